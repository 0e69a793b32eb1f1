/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/aws.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "lib/base/file.h"
#include "lib/store/sigv4.h"
#include "lib/store/url.h"
#include "lib/store/xml.h"

enum {
	FILE_BYTES = 1 << 20,
	TOKEN_BYTES = 64 << 10,
	FILES_MS = 60 * 1000,	  /* keys of files are read again after this */
	RENEW_MS = 5 * 60 * 1000, /* before they expire; or at half of what is left */
	AGAIN_MS = 10 * 1000,	  /* a renewal that failed is tried again after this */
	SOON_MS = 500,
	METADATA_MS = 1000, /* for the whole of IMDS */
	METADATA_TOKEN_S = 21600,
};

#define IMDS "http://169.254.169.254"
#define ECS "http://169.254.170.2"

struct setting {
	char *name, *value;
};

struct warm_aws {
	struct warm_aws_options o;
	char profile[128];
	struct setting *settings; /* of the profile, by the files as they were at the start */
	size_t n_settings;
	struct warm_http *http;	 /* for STS */
	struct warm_http *local; /* for metadata: no proxy */
	pthread_mutex_t lock;
	struct warm_aws_credentials now;
	bool known;
	int64_t renew_ms;   /* monotonic; 0: never */
	int64_t expires_ms; /* monotonic; 0: never */
};

void warm_aws_credentials_release(struct warm_aws_credentials *c)
{
	free(c->token);
	*c = (struct warm_aws_credentials){ 0 };
}

/* ---- the shared files ---- */

static void settings_release(struct setting *settings, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(settings[i].name);
		free(settings[i].value);
	}
	free(settings);
}

static char *trim(char *text)
{
	text += strspn(text, " \t\r");
	for (size_t n = strlen(text); n > 0 && strchr(" \t\r", text[n - 1]) != NULL; n--)
		text[n - 1] = '\0';
	return text;
}

/* "[name]" in credentials, "[profile name]" or "[default]" in config. */
static bool is_section(char *line, const char *profile, bool config)
{
	char *end = strchr(line, ']');

	if (end == NULL)
		return false;
	*end = '\0';
	char *name = trim(line + 1);
	if (config && strncmp(name, "profile", 7) == 0 && (name[7] == ' ' || name[7] == '\t'))
		name = trim(name + 7);
	else if (config && strcmp(name, "default") != 0)
		return false;
	return strcmp(name, profile) == 0;
}

static int add_setting(struct setting **settings, size_t *n, const char *name, const char *value,
		       struct warm_error *err)
{
	struct setting *more = realloc(*settings, (*n + 1) * sizeof(*more));

	if (more == NULL)
		return warm_error_nomem(err, (*n + 1) * sizeof(*more));
	*settings = more;
	more[*n] = (struct setting){ strdup(name), strdup(value) };
	(*n)++;
	return more[*n - 1].name == NULL || more[*n - 1].value == NULL
		       ? warm_error_nomem(err, strlen(value))
		       : 0;
}

/* Where a shared file is: the variable (then it is named), or a path below the home directory. */
static bool shared_path(const char *env, const char *below_home, char ret_path[WARM_PATH_BYTES],
			bool *ret_named)
{
	const char *path = getenv(env), *home = getenv("HOME");

	*ret_named = path != NULL && path[0] != '\0';
	if (*ret_named)
		snprintf(ret_path, WARM_PATH_BYTES, "%s", path);
	else if (home != NULL && home[0] != '\0')
		snprintf(ret_path, WARM_PATH_BYTES, "%s/%s", home, below_home);
	else
		return false;
	return true;
}

static int read_shared(const char *path, bool named, const char *profile, bool config,
		       struct setting **settings, size_t *n, struct warm_error *err)
{
	scope_free char *data = NULL;
	size_t bytes = 0;
	bool ours = false;
	char *save = NULL;
	int rc = warm_file_load(AT_FDCWD, path, FILE_BYTES, &data, &bytes, err);

	/* Another user's home directory is no reason to look no further. */
	if (rc == WARM_NOT_FOUND || (rc == WARM_DENIED && !named))
		return 0;
	if (rc != 0) {
		warm_error_context(err, "%.120s", path);
		return rc;
	}
	for (char *line = strtok_r(data, "\n", &save); rc == 0 && line != NULL;
	     line = strtok_r(NULL, "\n", &save)) {
		bool nested = line[0] == ' ' || line[0] == '\t';
		line = trim(line);
		if (line[0] == '#' || line[0] == ';' || line[0] == '\0')
			continue;
		if (line[0] == '[') {
			ours = is_section(line, profile, config);
			continue;
		}
		char *equals = strchr(line, '=');
		if (!ours || nested || equals == NULL)
			continue;
		*equals = '\0';
		rc = add_setting(settings, n, trim(line), trim(equals + 1), err);
	}
	return rc;
}

/* Of both files; credentials count before config. */
static int load_settings(const char *profile, struct setting **ret_settings, size_t *ret_n,
			 struct warm_error *err)
{
	char path[WARM_PATH_BYTES];
	bool named = false;
	int rc = 0;

	*ret_settings = NULL;
	*ret_n = 0;
	if (shared_path("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials", path, &named))
		rc = read_shared(path, named, profile, false, ret_settings, ret_n, err);
	if (rc == 0 && shared_path("AWS_CONFIG_FILE", ".aws/config", path, &named))
		rc = read_shared(path, named, profile, true, ret_settings, ret_n, err);
	if (rc != 0) {
		settings_release(*ret_settings, *ret_n);
		*ret_settings = NULL;
		*ret_n = 0;
	}
	return rc;
}

static const char *setting_of(const struct setting *settings, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(settings[i].name, name) == 0 && settings[i].value[0] != '\0')
			return settings[i].value;
	return NULL;
}

const char *warm_aws_setting(struct warm_aws *aws, const char *name)
{
	return setting_of(aws->settings, aws->n_settings, name);
}

static const char *env_of(const char *name)
{
	const char *value = getenv(name);

	return value != NULL && value[0] != '\0' ? value : NULL;
}

const char *warm_aws_region(struct warm_aws *aws)
{
	const char *region = env_of("AWS_REGION");

	if (region == NULL)
		region = env_of("AWS_DEFAULT_REGION");
	return region != NULL ? region : warm_aws_setting(aws, "region");
}

/* ---- the object ---- */

int warm_aws_open(const struct warm_aws_options *options, struct warm_aws **ret_aws,
		  struct warm_error *err)
{
	struct warm_aws *aws = calloc(1, sizeof(*aws));
	const char *profile = options->profile != NULL ? options->profile : env_of("AWS_PROFILE");

	if (aws == NULL)
		return warm_error_nomem(err, sizeof(*aws));
	aws->o = *options;
	pthread_mutex_init(&aws->lock, NULL);
	snprintf(aws->profile, sizeof(aws->profile), "%s", profile != NULL ? profile : "default");
	int rc = load_settings(aws->profile, &aws->settings, &aws->n_settings, err);
	/* A file that can't be read is told when its keys are asked for. */
	if (rc == WARM_NO_MEMORY) {
		warm_aws_free(aws);
		return rc;
	}
	*ret_aws = aws;
	return 0;
}

void warm_aws_free(struct warm_aws *aws)
{
	if (aws == NULL)
		return;
	settings_release(aws->settings, aws->n_settings);
	warm_aws_credentials_release(&aws->now);
	warm_http_free(aws->http);
	warm_http_free(aws->local);
	pthread_mutex_destroy(&aws->lock);
	free(aws);
}

void warm_aws_forget(struct warm_aws *aws)
{
	pthread_mutex_lock(&aws->lock);
	aws->known = false;
	pthread_mutex_unlock(&aws->lock);
}

/* ---- providers ---- */

/* What a provider has found. */
struct found {
	struct warm_aws_credentials credentials;
	bool expires;
	int64_t left_ms;  /* until then, by the clock of who gave them; may be past */
	int64_t again_ms; /* read anew after this long, without being told; 0: no */
};

static int take_found(struct found *f, const char *source, const char *key_id, const char *secret,
		      const char *token, struct warm_error *err)
{
	struct warm_aws_credentials *c = &f->credentials;

	if (strlen(key_id) >= sizeof(c->key_id) || strlen(secret) >= sizeof(c->secret))
		return warm_error_set(err, WARM_INVALID, "credentials of the %s: too long", source);
	snprintf(c->key_id, sizeof(c->key_id), "%s", key_id);
	snprintf(c->secret, sizeof(c->secret), "%s", secret);
	c->source = source;
	if (token != NULL && token[0] != '\0' && (c->token = strdup(token)) == NULL)
		return warm_error_nomem(err, strlen(token));
	return 0;
}

static int client(struct warm_http **http, bool local, const char *ca_file, struct warm_error *err)
{
	struct warm_http_options o = { .connections = 2, .local = local, .ca_file = ca_file };

	return *http != NULL ? 0 : warm_http_open(&o, http, err);
}

/* A request with at most two headers; the body of a 2xx, a refusal else. */
struct simple {
	const char *method, *url, *header, *header2;
	const char *who; /* for messages */
	bool wants_404;
};

static int prepare_simple(void *arg, struct warm_http_request *r, const struct warm_call *call,
			  struct warm_error *err)
{
	const struct simple *s = arg;

	(void)call;
	(void)err;
	r->method = s->method;
	warm_http_request_url(r, "%s", s->url);
	if (s->header != NULL)
		warm_http_request_header(r, "%s", s->header);
	if (s->header2 != NULL)
		warm_http_request_header(r, "%s", s->header2);
	return 0;
}

struct sts_error {
	char code[64], message[160];
};

static int take_sts_error(void *arg, const char *path, const char *text, struct warm_error *err)
{
	struct sts_error *e = arg;
	const char *last = strrchr(path, '/');

	(void)err;
	if (last != NULL && strcmp(last, "/Code") == 0)
		snprintf(e->code, sizeof(e->code), "%s", text);
	if (last != NULL && strcmp(last, "/Message") == 0)
		snprintf(e->message, sizeof(e->message), "%s", text);
	return 0;
}

static int refuse_simple(void *arg, const struct warm_http_response *response, bool *ret_again,
			 struct warm_error *err)
{
	const struct simple *s = arg;
	struct sts_error e = { "", "" };

	(void)ret_again;
	/* A body that is no XML says nothing more. */
	if (warm_xml_parse(response->body.data, response->body.bytes, take_sts_error, &e, NULL) !=
	    0)
		e.message[0] = '\0';
	bool busy = response->status >= 500 || response->status == 429 || response->status == 408;
	return warm_error_set(err, busy ? WARM_TRANSIENT : WARM_DENIED, "%s answers %ld%s%s%s%s",
			      s->who, response->status, e.code[0] != '\0' ? " " : "", e.code,
			      e.message[0] != '\0' ? ": " : "", e.message);
}

static int ask(struct warm_http *http, struct simple *s, const char *body,
	       struct warm_http_response *ret_response, const struct warm_call *call,
	       struct warm_error *err)
{
	struct warm_http_run run = {
		.prepare = prepare_simple,
		.refused = refuse_simple,
		.arg = s,
		.data = body,
		.body_bytes = body != NULL ? strlen(body) : 0,
		.has_body = strcmp(s->method, "PUT") == 0,
	};
	int rc = warm_http_run(http, &run, ret_response, call, err);

	if (rc != 0)
		warm_error_context(err, "%s", s->who);
	return rc;
}

int64_t warm_aws_parse_time(const char *text)
{
	struct tm tm = { 0 };
	const char *rest = text == NULL ? NULL : strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);

	if (rest == NULL)
		return -1;
	int64_t ms = (int64_t)timegm(&tm) * 1000;
	if (rest[0] == '.')
		for (int i = 1, unit = 100; i <= 3 && rest[i] >= '0' && rest[i] <= '9';
		     i++, unit /= 10)
			ms += (rest[i] - '0') * unit;
	return ms;
}

/* Our clock may be wrong: theirs says how long they last. */
static void take_expiry(struct found *f, const char *text, const struct warm_http_response *r)
{
	int64_t at_ms = warm_aws_parse_time(text), now_ms = warm_http_date(r);

	if (at_ms < 0)
		return;
	f->expires = true;
	f->left_ms = at_ms - (now_ms >= 0 ? now_ms : warm_clock_wall_ms());
}

static int from_environment(struct warm_aws *aws, struct found *f, bool *ret_found,
			    struct warm_error *err)
{
	const char *key_id = env_of("AWS_ACCESS_KEY_ID"), *secret = env_of("AWS_SECRET_ACCESS_KEY");

	*ret_found = key_id != NULL && secret != NULL && aws->o.profile == NULL;
	return !*ret_found ? 0
			   : take_found(f, "environment", key_id, secret,
					env_of("AWS_SESSION_TOKEN"), err);
}

struct sts_answer {
	char key_id[160], secret[160], expiration[64];
	char *token;
};

static int take_sts(void *arg, const char *path, const char *text, struct warm_error *err)
{
	struct sts_answer *a = arg;
	const char *last = strrchr(path, '/');

	if (last == NULL || strstr(path, "/Credentials/") == NULL)
		return 0;
	if (strcmp(last, "/AccessKeyId") == 0)
		snprintf(a->key_id, sizeof(a->key_id), "%s", text);
	else if (strcmp(last, "/SecretAccessKey") == 0)
		snprintf(a->secret, sizeof(a->secret), "%s", text);
	else if (strcmp(last, "/Expiration") == 0)
		snprintf(a->expiration, sizeof(a->expiration), "%s", text);
	else if (strcmp(last, "/SessionToken") == 0) {
		free(a->token);
		a->token = strdup(text);
		if (a->token == NULL)
			return warm_error_nomem(err, strlen(text));
	}
	return 0;
}

static char *load_token(const char *path, struct warm_error *err)
{
	char *data = NULL;
	size_t bytes = 0;

	struct warm_error why = { 0 };
	if (warm_file_load(AT_FDCWD, path, TOKEN_BYTES, &data, &bytes, &why) != 0) {
		/* Not there is no cold cache. */
		(void)warm_error_set(err, WARM_DENIED, "token file %.120s: %.100s", path, why.msg);
		return NULL;
	}
	while (bytes > 0 && strchr(" \t\r\n", data[bytes - 1]) != NULL)
		data[--bytes] = '\0';
	return data;
}

static int assume_role(struct warm_aws *aws, const char *role, const char *token_file,
		       const char *session, struct found *f, const struct warm_call *call,
		       struct warm_error *err)
{
	scope_buf struct warm_buf url = WARM_BUF_INIT, body = WARM_BUF_INIT;
	scope_response struct warm_http_response response = { 0 };
	scope_free char *token = load_token(token_file, err);
	const char *endpoint = env_of("AWS_ENDPOINT_URL_STS");
	const char *region = aws->o.region != NULL ? aws->o.region : warm_aws_region(aws);

	if (token == NULL)
		return WARM_DENIED;
	if (endpoint == NULL)
		endpoint = env_of("AWS_ENDPOINT_URL");
	if (endpoint != NULL)
		warm_buf_printf(&url, "%s", endpoint);
	else if (region != NULL && strcmp(region, "auto") != 0)
		warm_buf_printf(&url, "https://sts.%s.amazonaws.com%s", region,
				strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
	else
		warm_buf_printf(&url, "https://sts.amazonaws.com");
	while (url.bytes > 0 && url.data[url.bytes - 1] == '/')
		url.bytes--;
	warm_buf_put(&url, "/", 2);
	warm_buf_printf(&body, "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=");
	warm_url_encode(&body, role, false);
	warm_buf_printf(&body, "&RoleSessionName=");
	warm_url_encode(&body, session != NULL ? session : "warmcache", false);
	warm_buf_printf(&body, "&WebIdentityToken=");
	warm_url_encode(&body, token, false);
	warm_buf_put_u8(&body, 0);
	if (url.failed || body.failed)
		return warm_error_nomem(err, TOKEN_BYTES);
	struct simple s = { .method = "POST",
			    .url = (const char *)url.data,
			    .header = "Content-Type: application/x-www-form-urlencoded",
			    .who = "STS AssumeRoleWithWebIdentity" };
	int rc = client(&aws->http, false, aws->o.ca_file, err);
	if (rc == 0)
		rc = ask(aws->http, &s, (const char *)body.data, &response, call, err);
	if (rc != 0)
		return rc;
	struct sts_answer a = { .token = NULL };
	rc = warm_xml_parse(response.body.data, response.body.bytes, take_sts, &a, err);
	if (rc == 0 && (a.key_id[0] == '\0' || a.secret[0] == '\0'))
		rc = warm_error_set(err, WARM_CORRUPT, "no credentials in the answer");
	if (rc == 0)
		rc = take_found(f, "web identity", a.key_id, a.secret, a.token, err);
	else
		warm_error_context(err, "STS");
	take_expiry(f, a.expiration, &response);
	free(a.token);
	return rc;
}

static int from_files(struct warm_aws *aws, struct found *f, bool *ret_found,
		      const struct warm_call *call, struct warm_error *err)
{
	struct setting *s = NULL;
	size_t n = 0;
	int rc = load_settings(aws->profile, &s, &n, err);

	if (rc != 0)
		return rc;
	const char *key_id = setting_of(s, n, "aws_access_key_id");
	const char *secret = setting_of(s, n, "aws_secret_access_key");
	const char *role = setting_of(s, n, "role_arn");
	const char *token_file = setting_of(s, n, "web_identity_token_file");
	bool named = aws->o.profile != NULL || env_of("AWS_PROFILE") != NULL;
	*ret_found = true;
	if (role != NULL && token_file != NULL)
		rc = assume_role(aws, role, token_file, setting_of(s, n, "role_session_name"), f,
				 call, err);
	else if (role != NULL || setting_of(s, n, "credential_process") != NULL ||
		 setting_of(s, n, "sso_session") != NULL ||
		 setting_of(s, n, "sso_start_url") != NULL)
		rc = warm_error_set(err, WARM_INVALID,
				    "profile %s: only keys, and role_arn with "
				    "web_identity_token_file, can be used",
				    aws->profile);
	else if (key_id != NULL && secret != NULL) {
		rc = take_found(f, "shared files", key_id, secret,
				setting_of(s, n, "aws_session_token"), err);
		f->again_ms = FILES_MS;
	} else if (named && n == 0)
		rc = warm_error_set(err, WARM_INVALID,
				    "profile %s: not in the shared files "
				    "(~/.aws/credentials, ~/.aws/config)",
				    aws->profile);
	else
		*ret_found = false;
	settings_release(s, n);
	return rc;
}

static int from_web_identity(struct warm_aws *aws, struct found *f, bool *ret_found,
			     const struct warm_call *call, struct warm_error *err)
{
	const char *role = env_of("AWS_ROLE_ARN");
	const char *token_file = env_of("AWS_WEB_IDENTITY_TOKEN_FILE");

	*ret_found = role != NULL && token_file != NULL;
	return *ret_found ? assume_role(aws, role, token_file, env_of("AWS_ROLE_SESSION_NAME"), f,
					call, err)
			  : 0;
}

static int take_json(struct found *f, const char *source, const struct warm_http_response *r,
		     struct warm_error *err)
{
	json_error_t where;
	json_t *o = json_loadb((const char *)r->body.data, r->body.bytes, 0, &where);
	const char *key_id = json_string_value(json_object_get(o, "AccessKeyId"));
	const char *secret = json_string_value(json_object_get(o, "SecretAccessKey"));
	int rc;

	if (key_id == NULL || secret == NULL)
		rc = warm_error_set(err, WARM_CORRUPT, "the %s answers without credentials",
				    source);
	else
		rc = take_found(f, source, key_id, secret,
				json_string_value(json_object_get(o, "Token")), err);
	take_expiry(f, json_string_value(json_object_get(o, "Expiration")), r);
	json_decref(o);
	return rc;
}

/* Where a container's token may be sent without TLS: to this machine and the agents of ECS and
 * EKS. */
static bool is_container_host(const char *url)
{
	static const char *const hosts[] = { "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]",
					     "localhost", "[::1]" };
	char host[64];

	if (strncmp(url, "https://", 8) == 0)
		return true;
	if (strncmp(url, "http://", 7) != 0)
		return false;
	url += 7;
	size_t n = strcspn(url, "/?#");
	if (n >= sizeof(host) || memchr(url, '@', n) != NULL)
		return false;
	snprintf(host, sizeof(host), "%.*s", (int)n, url);
	char *colon = strrchr(host, ':');
	if (colon != NULL && strchr(colon, ']') == NULL)
		*colon = '\0';
	for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++)
		if (strcmp(host, hosts[i]) == 0)
			return true;
	return strncmp(host, "127.", 4) == 0 && host[strspn(host, "0123456789.")] == '\0';
}

static int from_container(struct warm_aws *aws, struct found *f, bool *ret_found,
			  const struct warm_call *call, struct warm_error *err)
{
	const char *relative = env_of("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
	const char *full = env_of("AWS_CONTAINER_CREDENTIALS_FULL_URI");
	const char *token_file = env_of("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
	const char *token = env_of("AWS_CONTAINER_AUTHORIZATION_TOKEN");
	scope_response struct warm_http_response response = { 0 };
	scope_free char *url = NULL, *header = NULL, *loaded = NULL;

	*ret_found = relative != NULL || full != NULL;
	if (!*ret_found)
		return 0;
	if (asprintf(&url, "%s%s", relative != NULL ? ECS : "",
		     relative != NULL ? relative : full) < 0)
		return warm_error_nomem(err, TOKEN_BYTES);
	if (!is_container_host(url))
		return warm_error_set(err, WARM_DENIED,
				      "AWS_CONTAINER_CREDENTIALS_FULL_URI: neither TLS nor an "
				      "address of this machine: refused");
	if (token_file != NULL) {
		loaded = load_token(token_file, err);
		if (loaded == NULL)
			return WARM_DENIED;
		token = loaded;
	}
	if (token != NULL && strpbrk(token, "\r\n") != NULL)
		return warm_error_set(err, WARM_INVALID, "the container's token has several lines");
	if (token != NULL && asprintf(&header, "Authorization: %s", token) < 0)
		return warm_error_nomem(err, TOKEN_BYTES);
	struct simple s = { .method = "GET",
			    .url = url,
			    .header = header,
			    .who = "container credential endpoint" };
	int rc = client(&aws->local, true, NULL, err);
	if (rc == 0)
		rc = ask(aws->local, &s, NULL, &response, call, err);
	return rc != 0 ? rc : take_json(f, "container endpoint", &response, err);
}

/* The first line of a body, as text. */
static char *first_line(const struct warm_http_response *r)
{
	const char *data = r->body.data != NULL ? (const char *)r->body.data : "";

	return strndup(data, strcspn(data, "\r\n"));
}

/* Where there is no instance there is no answer: that is no error, and takes a second at most. */
static int from_instance(struct warm_aws *aws, struct found *f, bool *ret_found,
			 const struct warm_call *outer, struct warm_error *err)
{
	const char *disabled = env_of("AWS_EC2_METADATA_DISABLED");
	const char *endpoint = env_of("AWS_EC2_METADATA_SERVICE_ENDPOINT");
	scope_response struct warm_http_response token = { 0 }, role = { 0 }, answer = { 0 };
	scope_free char *url = NULL, *header = NULL, *ttl = NULL, *name = NULL, *line = NULL;
	struct warm_call call = { .deadline_ms = warm_clock_ms() + METADATA_MS,
				  .cancel = outer != NULL ? outer->cancel : NULL };
	struct simple s = { .who = "instance metadata service" };

	*ret_found = false;
	if (disabled != NULL && strcasecmp(disabled, "true") == 0)
		return 0;
	if (outer != NULL && outer->deadline_ms != 0 && outer->deadline_ms < call.deadline_ms)
		call.deadline_ms = outer->deadline_ms;
	if (endpoint == NULL)
		endpoint = IMDS;
	int rc = client(&aws->local, true, NULL, err);
	if (rc != 0)
		return rc;
	if (asprintf(&url, "%s/latest/api/token", endpoint) < 0 ||
	    asprintf(&ttl, "X-aws-ec2-metadata-token-ttl-seconds: %d", METADATA_TOKEN_S) < 0)
		return warm_error_nomem(err, TOKEN_BYTES);
	s.method = "PUT";
	s.url = url;
	s.header = ttl;
	if (ask(aws->local, &s, NULL, &token, &call, NULL) != 0) {
		f->again_ms = AGAIN_MS; /* or it was only slow */
		return warm_call_check(outer, err);
	}
	line = first_line(&token);
	free(take_ptr(url));
	if (line == NULL || asprintf(&header, "X-aws-ec2-metadata-token: %s", line) < 0 ||
	    asprintf(&url, "%s/latest/meta-data/iam/security-credentials/", endpoint) < 0)
		return warm_error_nomem(err, TOKEN_BYTES);
	s.method = "GET";
	s.url = url;
	s.header = header;
	if (ask(aws->local, &s, NULL, &role, &call, NULL) != 0)
		return warm_call_check(outer, err); /* an instance without a role */
	name = first_line(&role);
	free(take_ptr(url));
	if (name == NULL ||
	    asprintf(&url, "%s/latest/meta-data/iam/security-credentials/%s", endpoint, name) < 0)
		return warm_error_nomem(err, TOKEN_BYTES);
	s.url = url;
	rc = ask(aws->local, &s, NULL, &answer, &call, err);
	if (rc != 0)
		return rc;
	*ret_found = true;
	return take_json(f, "instance metadata service", &answer, err);
}

static int look(struct warm_aws *aws, struct found *f, const struct warm_call *call,
		struct warm_error *err)
{
	bool found = aws->o.anonymous;
	int rc = 0;

	f->credentials.source = "none";
	if (!found)
		rc = from_environment(aws, f, &found, err);
	if (rc == 0 && !found)
		rc = from_files(aws, f, &found, call, err);
	if (rc == 0 && !found)
		rc = from_web_identity(aws, f, &found, call, err);
	if (rc == 0 && !found)
		rc = from_container(aws, f, &found, call, err);
	if (rc == 0 && !found)
		rc = from_instance(aws, f, &found, call, err);
	/* A secret may be mounted later. */
	if (rc == 0 && !found && f->again_ms == 0)
		f->again_ms = FILES_MS;
	return rc;
}

static int copy_credentials(const struct warm_aws_credentials *from,
			    struct warm_aws_credentials *ret_to, struct warm_error *err)
{
	struct warm_aws_credentials to = *from;

	if (from->token != NULL && (to.token = strdup(from->token)) == NULL)
		return warm_error_nomem(err, strlen(from->token));
	*ret_to = to;
	return 0;
}

/* Under the lock. What we have stays while it is good, whatever a renewal brings. */
static int renew(struct warm_aws *aws, int64_t now, const struct warm_call *call,
		 struct warm_error *err)
{
	struct found f = { .expires = false };
	int rc = look(aws, &f, call, err);
	bool good = aws->known && aws->now.key_id[0] != '\0' &&
		    (aws->expires_ms == 0 || now < aws->expires_ms);

	if (good && (rc != 0 || f.credentials.key_id[0] == '\0')) {
		warm_aws_credentials_release(&f.credentials);
		aws->renew_ms = now + AGAIN_MS;
		return 0;
	}
	if (rc != 0) {
		warm_aws_credentials_release(&f.credentials);
		return rc;
	}
	warm_aws_credentials_release(&aws->now);
	aws->now = f.credentials;
	aws->known = true;
	aws->renew_ms = f.again_ms != 0 ? now + f.again_ms : 0;
	aws->expires_ms = f.expires ? now + f.left_ms : 0;
	if (f.expires) {
		int64_t wait = f.left_ms > 2 * RENEW_MS ? f.left_ms - RENEW_MS : f.left_ms / 2;
		aws->renew_ms = now + (f.left_ms <= 0 ? AGAIN_MS : wait > SOON_MS ? wait : SOON_MS);
	}
	return 0;
}

int warm_aws_credentials(struct warm_aws *aws, struct warm_aws_credentials *ret_credentials,
			 const struct warm_call *call, struct warm_error *err)
{
	int rc = 0;

	/* One looks, the others wait for what it finds. */
	rc = warm_call_lock(&aws->lock, call, err);
	if (rc != 0) {
		warm_error_context(err, "credentials");
		return rc;
	}
	int64_t now = warm_clock_ms();
	if (!aws->known || (aws->renew_ms != 0 && now >= aws->renew_ms))
		rc = renew(aws, now, call, err);
	if (rc == 0)
		rc = copy_credentials(&aws->now, ret_credentials, err);
	pthread_mutex_unlock(&aws->lock);
	if (rc != 0)
		warm_error_context(err, "credentials");
	return rc;
}

/* ---- signing ---- */

static int split_url(char *url, char **ret_host, char **ret_path, char **ret_query)
{
	static char empty[] = "";
	char *host = strstr(url, "://");

	if (host == NULL)
		return -1;
	host += 3;
	char *path = strchr(host, '/');
	if (path == NULL)
		return -1;
	char *query = strchr(path, '?');
	if (query != NULL)
		*query++ = '\0';
	*ret_host = host;
	*ret_path = path;
	*ret_query = query != NULL ? query : empty;
	return 0;
}

int warm_aws_sign(struct warm_aws *aws, struct warm_http_request *request, const char *region,
		  const char *service, const char *payload, int64_t skew_ms, char ret_who[24],
		  const struct warm_call *call, struct warm_error *err)
{
	scope_aws_credentials struct warm_aws_credentials c = { .token = NULL };
	scope_free char *url = request->url != NULL ? strdup(request->url) : NULL;
	scope_buf struct warm_buf value = WARM_BUF_INIT;
	char date[17], *host, *path, *query;

	int rc = warm_aws_credentials(aws, &c, call, err);
	if (rc != 0)
		return rc;
	size_t id_bytes = strlen(c.key_id);
	if (id_bytes == 0)
		snprintf(ret_who, 24, "nobody");
	else
		snprintf(ret_who, 24, "key ...%s",
			 c.key_id + (id_bytes > 8 ? id_bytes - 4 : id_bytes));
	if (strcmp(service, "s3") == 0 && id_bytes > 0)
		warm_http_request_header(request, "x-amz-content-sha256: %s", payload);
	if (id_bytes == 0)
		return 0;
	struct warm_sigv4 q = {
		.key_id = c.key_id,
		.secret = c.secret,
		.region = region,
		.service = service,
		.now_ms = warm_clock_wall_ms() + skew_ms,
		.method = request->method,
		.payload = payload,
	};
	warm_sigv4_date(q.now_ms, date);
	warm_http_request_header(request, "X-Amz-Date: %s", date);
	if (c.token != NULL)
		warm_http_request_header(request, "X-Amz-Security-Token: %s", c.token);
	if (url == NULL)
		return warm_error_nomem(err, WARM_HTTP_HEADERS);
	if (split_url(url, &host, &path, &query) != 0)
		return warm_error_set(err, WARM_INVALID, "no URL to sign");
	warm_http_request_header(request, "Host: %.*s", (int)(path - host), host);
	if (request->n_headers >= WARM_HTTP_HEADERS)
		return warm_error_set(err, WARM_LIMIT, "over %d headers", WARM_HTTP_HEADERS);
	for (size_t i = 0; i < request->n_headers; i++)
		if (request->headers[i] == NULL)
			return warm_error_nomem(err, WARM_HTTP_HEADERS);
	q.path = path;
	q.query = query;
	q.headers = (const char *const *)request->headers;
	q.n_headers = request->n_headers;
	rc = warm_sigv4_sign(&q, &value, err);
	if (rc != 0)
		return rc;
	warm_buf_put_u8(&value, 0);
	if (value.failed)
		return warm_error_nomem(err, value.bytes);
	warm_http_request_header(request, "Authorization: %s", (const char *)value.data);
	return 0;
}
