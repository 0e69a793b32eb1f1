/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/registry.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "lib/base/file.h"
#include "lib/store/sigv4.h"
#include "lib/store/url.h"

enum {
	CONFIG_BYTES = 1 << 20,
	HELPER_BYTES = 64 << 10,
	HELPER_MS = 10 * 1000,
	AGAIN_MS = 10 * 1000,
	LOGIN_MS = 5 * 60 * 1000, /* a login is looked up again after this */
	TOKEN_S = 60,		  /* of a token that doesn't say how long it lasts */
	TOKEN_MAX_S = 24 * 3600,
	TOKENS = 16,
	REFUSALS = 2,
};

extern char **environ;

struct login {
	char *user, *password; /* NULL: anonymous */
	char *identity;	       /* a refresh token instead of a password */
	char *bearer;	       /* a token as it is */
};

struct token {
	char key[300];
	char *value;
	int64_t expires_ms; /* monotonic */
};

struct warm_registry {
	struct warm_registry_options o;
	struct warm_http *http; /* token servers, ECR */
	struct warm_aws *aws;
	struct warm_google *google;
	pthread_mutex_t lock;
	bool basic; /* it has asked for basic authentication */
	struct login login;
	bool known;
	char without
		[80]; /* ", without docker-credential-x": a helper that is named and isn't here */
	int64_t renew_ms;
	struct token tokens[TOKENS];
	size_t next_token;
};

static void login_release(struct login *l)
{
	free(l->user);
	free(l->password);
	free(l->identity);
	free(l->bearer);
	*l = (struct login){ NULL };
}

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n >= m && strcmp(text + n - m, end) == 0;
}

/* "123456789012.dkr.ecr.eu-west-1.amazonaws.com" -> its region. */
static bool ecr_region(const char *host, char ret_region[64])
{
	const char *mark = strstr(host, ".dkr.ecr"), *dot;

	if (mark == NULL ||
	    !(ends_with(host, ".amazonaws.com") || ends_with(host, ".amazonaws.com.cn")))
		return false;
	mark += strlen(".dkr.ecr");
	if (strncmp(mark, "-fips", 5) == 0)
		mark += 5;
	if (*mark != '.' || (dot = strchr(++mark, '.')) == NULL || dot - mark > 60)
		return false;
	snprintf(ret_region, 64, "%.*s", (int)(dot - mark), mark);
	return true;
}

static bool is_google(const char *host)
{
	return ends_with(host, "-docker.pkg.dev") || strcmp(host, "gcr.io") == 0 ||
	       ends_with(host, ".gcr.io");
}

int warm_registry_open(const struct warm_registry_options *options, struct warm_registry **ret_r,
		       struct warm_error *err)
{
	struct warm_registry *r = calloc(1, sizeof(*r));
	struct warm_http_options http = { .connections = 4, .ca_file = options->ca_file };
	struct warm_aws_options aws = { .ca_file = options->ca_file };
	char region[64];

	if (r == NULL)
		return warm_error_nomem(err, sizeof(*r));
	r->o = *options;
	pthread_mutex_init(&r->lock, NULL);
	int rc = warm_http_open(&http, &r->http, err);
	bool any = r->o.login == WARM_LOGIN_AUTO;
	if (rc == 0 && (r->o.login == WARM_LOGIN_ECR || (any && ecr_region(r->o.host, region))))
		rc = warm_aws_open(&aws, &r->aws, err);
	if (rc == 0 && (r->o.login == WARM_LOGIN_GOOGLE || (any && is_google(r->o.host))))
		rc = warm_google_open(&r->google, err);
	if (rc != 0) {
		warm_registry_free(r);
		return rc;
	}
	*ret_r = r;
	return 0;
}

void warm_registry_free(struct warm_registry *r)
{
	if (r == NULL)
		return;
	warm_http_free(r->http);
	warm_aws_free(r->aws);
	warm_google_free(r->google);
	login_release(&r->login);
	for (size_t i = 0; i < TOKENS; i++)
		free(r->tokens[i].value);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

/* ---- base64 ---- */

static char *encode64(const char *data, size_t bytes)
{
	char *text = malloc(4 * ((bytes + 2) / 3) + 1);

	if (text != NULL)
		EVP_EncodeBlock((unsigned char *)text, (const unsigned char *)data, (int)bytes);
	return text;
}

static char *decode64(const char *text)
{
	size_t n = strlen(text);
	char *data = malloc(n + 1);

	if (data == NULL || n % 4 != 0) {
		free(data);
		return NULL;
	}
	int bytes = EVP_DecodeBlock((unsigned char *)data, (const unsigned char *)text, (int)n);
	if (bytes < 0) {
		free(data);
		return NULL;
	}
	while (n > 0 && text[n - 1] == '=' && bytes > 0) {
		bytes--;
		n--;
	}
	data[bytes] = '\0';
	return data;
}

/* ---- config.json ---- */

/* "https://index.docker.io/v1/" -> "index.docker.io". */
static void normal_name(const char *name, char ret_name[256])
{
	if (strncmp(name, "https://", 8) == 0)
		name += 8;
	else if (strncmp(name, "http://", 7) == 0)
		name += 7;
	snprintf(ret_name, 256, "%s", name);
	for (size_t n = strlen(ret_name); n > 0 && ret_name[n - 1] == '/'; n--)
		ret_name[n - 1] = '\0';
	if (ends_with(ret_name, "/v1") || ends_with(ret_name, "/v2"))
		ret_name[strlen(ret_name) - 3] = '\0';
	if (strcmp(ret_name, "docker.io") == 0 || strcmp(ret_name, "registry-1.docker.io") == 0)
		snprintf(ret_name, 256, "index.docker.io");
}

static json_t *entry_of(json_t *object, const char *host)
{
	char wanted[256], have[256];
	const char *name;
	json_t *value;

	normal_name(host, wanted);
	json_object_foreach(object, name, value) {
		normal_name(name, have);
		if (strcmp(wanted, have) == 0)
			return value;
	}
	return NULL;
}

static int copy_text(char **ret_copy, const char *text, struct warm_error *err)
{
	if (text == NULL || text[0] == '\0')
		return 0;
	free(*ret_copy);
	*ret_copy = strdup(text);
	return *ret_copy == NULL ? warm_error_nomem(err, strlen(text)) : 0;
}

static int take_auth(struct login *l, json_t *auth, struct warm_error *err)
{
	const char *basic = json_string_value(json_object_get(auth, "auth"));
	scope_free char *pair = basic != NULL && basic[0] != '\0' ? decode64(basic) : NULL;
	char *colon = pair != NULL ? strchr(pair, ':') : NULL;
	int rc = copy_text(&l->user, json_string_value(json_object_get(auth, "username")), err);

	if (rc == 0)
		rc = copy_text(&l->password, json_string_value(json_object_get(auth, "password")),
			       err);
	if (rc == 0)
		rc = copy_text(&l->identity,
			       json_string_value(json_object_get(auth, "identitytoken")), err);
	if (rc == 0)
		rc = copy_text(&l->bearer,
			       json_string_value(json_object_get(auth, "registrytoken")), err);
	if (rc == 0 && colon != NULL) {
		*colon = '\0';
		rc = copy_text(&l->user, pair, err);
		if (rc == 0)
			rc = copy_text(&l->password, colon + 1, err);
	}
	return rc;
}

/* Run "docker-credential-NAME get", give it the host, take what it prints. NOT_FOUND when it isn't
 * there, or knows nothing of the host. */
static int run_helper(const char *name, const char *host, char ret_out[HELPER_BYTES],
		      const struct warm_call *call, struct warm_error *err)
{
	char program[100], get[] = "get";
	char *argv[] = { program, get, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	int in[2], out[2];
	pid_t pid = -1;
	size_t used = 0;

	for (const char *p = name; *p != '\0'; p++)
		if (!isalnum((unsigned char)*p) && strchr("-_.", *p) == NULL)
			return warm_error_set(err, WARM_INVALID, "helper '%.40s': a bad name",
					      name);
	snprintf(program, sizeof(program), "docker-credential-%.60s", name);
	if (pipe2(in, O_CLOEXEC) != 0)
		return warm_error_errno(err, errno, "pipe");
	if (pipe2(out, O_CLOEXEC) != 0) {
		close(in[0]);
		close(in[1]);
		return warm_error_errno(err, errno, "pipe");
	}
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, in[0], 0);
	posix_spawn_file_actions_adddup2(&actions, out[1], 1);
	posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	posix_spawnattr_init(&attributes); /* a group of its own, to be killed with its children */
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
	int failed = posix_spawnp(&pid, program, &actions, &attributes, argv, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	close(in[0]);
	close(out[1]);
	size_t n = strlen(host);
	if (failed == 0 && write(in[1], host, n) != (ssize_t)n)
		failed = EPIPE;
	close(in[1]);
	int64_t end = warm_clock_ms() + HELPER_MS;
	bool open = true;
	int status = 0;
	/* Until it has ended: one that closes its output and stays is no better than a silent one. */
	while (failed == 0 && (open || waitpid(pid, &status, WNOHANG) == 0)) {
		struct pollfd p = { .fd = open ? out[0] : -1, .events = POLLIN };
		if (warm_clock_ms() >= end || warm_call_check(call, NULL) != 0) {
			failed = ETIMEDOUT;
		} else if (poll(&p, 1, open ? 50 : 5) > 0) {
			ssize_t got = used + 1 < HELPER_BYTES ? read(out[0], ret_out + used,
								     HELPER_BYTES - 1 - used)
							      : 0;
			open = got > 0;
			used += got > 0 ? (size_t)got : 0;
		}
	}
	ret_out[used] = '\0';
	close(out[0]);
	if (pid > 0 && failed != 0) {
		kill(-pid, SIGKILL);
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
	}
	int rc = warm_call_check(call, err);
	if (rc != 0)
		return rc;
	if (failed == ENOENT || (failed == 0 && strstr(ret_out, "credentials not found") != NULL))
		return warm_error_set(err, WARM_NOT_FOUND, "%s", program);
	if (failed != 0)
		return warm_error_set(err, WARM_DENIED, "%s: %s", program, strerror(failed));
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		/* Its words, unless they look like what it is asked for. */
		ret_out[strchr(ret_out, '{') != NULL ? 0 : strcspn(ret_out, "\n")] = '\0';
		return warm_error_set(err, WARM_DENIED, "%s has failed: %.100s", program, ret_out);
	}
	return 0;
}

static int from_helper(struct login *l, const char *name, const char *host,
		       const struct warm_call *call, struct warm_error *err)
{
	scope_free char *out = malloc(HELPER_BYTES);
	const char *server = strcmp(host, "docker.io") == 0 ? "https://index.docker.io/v1/" : host;
	json_error_t where;

	if (out == NULL)
		return warm_error_nomem(err, HELPER_BYTES);
	int rc = run_helper(name, server, out, call, err);
	if (rc != 0)
		return rc;
	json_t *o = json_loads(out, 0, &where);
	const char *user = json_string_value(json_object_get(o, "Username"));
	const char *secret = json_string_value(json_object_get(o, "Secret"));
	if (user == NULL || secret == NULL)
		rc = warm_error_set(err, WARM_DENIED,
				    "docker-credential-%.60s gives no user and secret", name);
	else if (strcmp(user, "<token>") == 0)
		rc = copy_text(&l->identity, secret, err);
	else {
		rc = copy_text(&l->user, user, err);
		if (rc == 0)
			rc = copy_text(&l->password, secret, err);
	}
	json_decref(o);
	return rc;
}

/* Where the others look for their logins; `index` counts up, false at the end. */
static bool config_path(const struct warm_registry *r, size_t index, char ret_path[WARM_PATH_BYTES],
			bool *ret_named)
{
	static const struct {
		const char *env, *below;
		bool named;
	} places[] = {
		{ "REGISTRY_AUTH_FILE", "", true },
		{ "DOCKER_CONFIG", "/config.json", true },
		{ "DOCKER_CONFIG", "/.dockerconfigjson", true },
		{ "XDG_RUNTIME_DIR", "/containers/auth.json", false },
		{ "HOME", "/.docker/config.json", false },
	};

	*ret_named = true;
	if (r->o.auth_file != NULL) {
		snprintf(ret_path, WARM_PATH_BYTES, "%s", r->o.auth_file);
		return index == 0;
	}
	if (index >= sizeof(places) / sizeof(places[0]))
		return false;
	const char *value = getenv(places[index].env);
	*ret_named = places[index].named;
	ret_path[0] = '\0';
	if (value != NULL && value[0] != '\0')
		snprintf(ret_path, WARM_PATH_BYTES, "%s%s", value, places[index].below);
	return true;
}

static int from_config(struct warm_registry *r, json_t *config, struct login *l, bool *ret_found,
		       const struct warm_call *call, struct warm_error *err)
{
	json_t *helper = entry_of(json_object_get(config, "credHelpers"), r->o.host);
	json_t *auth = entry_of(json_object_get(config, "auths"), r->o.host);
	json_t *store = json_object_get(config, "credsStore");

	const char *name = json_string_value(helper);
	int rc;

	*ret_found = true;
	/* With a credsStore "auths" holds empty objects, if anything. */
	if (name == NULL && auth != NULL && json_object_size(auth) > 0)
		return take_auth(l, auth, err);
	if (name == NULL)
		name = json_string_value(store);
	rc = name != NULL ? from_helper(l, name, r->o.host, call, err) : WARM_NOT_FOUND;
	if (rc == WARM_NOT_FOUND) {
		/* A helper that isn't here leaves it to the next place. */
		*ret_found = false;
		if (name != NULL)
			snprintf(r->without, sizeof(r->without),
				 ", without docker-credential-%.20s", name);
	}
	return *ret_found ? rc : 0;
}

static int from_files(struct warm_registry *r, struct login *l, bool *ret_found,
		      const struct warm_call *call, struct warm_error *err)
{
	char path[WARM_PATH_BYTES];
	bool named = false;

	*ret_found = false;
	for (size_t i = 0; !*ret_found && config_path(r, i, path, &named); i++) {
		scope_free char *data = NULL;
		size_t bytes = 0;
		json_error_t where;
		struct warm_error why = { 0 };
		if (path[0] == '\0')
			continue;
		int rc = warm_file_load(AT_FDCWD, path, CONFIG_BYTES, &data, &bytes, &why);
		if ((rc == WARM_NOT_FOUND && r->o.auth_file == NULL) ||
		    (rc == WARM_DENIED && !named))
			continue;
		if (rc != 0)
			return warm_error_set(err, WARM_DENIED, "%.120s: %.100s", path, why.msg);
		json_t *config = json_loadb(data, bytes, 0, &where);
		if (config == NULL)
			return warm_error_set(err, WARM_INVALID, "%.120s: line %d: no JSON", path,
					      where.line);
		rc = from_config(r, config, l, ret_found, call, err);
		json_decref(config);
		if (rc != 0) {
			warm_error_context(err, "%.120s", path);
			return rc;
		}
	}
	return 0;
}

/* ---- the clouds ---- */

static bool is_busy(long status)
{
	return status >= 500 || status == 429 || status == 408;
}

struct ecr {
	struct warm_registry *r;
	char url[256], region[64], who[24];
};

#define ECR_BODY "{}"

static int prepare_ecr(void *arg, struct warm_http_request *q, const struct warm_call *call,
		       struct warm_error *err)
{
	struct ecr *e = arg;
	char payload[WARM_SHA256_HEX_BYTES];

	q->method = "POST";
	warm_http_request_url(q, "%s", e->url);
	warm_http_request_header(q, "Content-Type: application/x-amz-json-1.1");
	warm_http_request_header(
		q, "X-Amz-Target: AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken");
	warm_sha256_hex(ECR_BODY, strlen(ECR_BODY), payload);
	return warm_aws_sign(e->r->aws, q, e->region, "ecr", payload, 0, e->who, call, err);
}

static int refuse_ecr(void *arg, const struct warm_http_response *response, bool *ret_again,
		      struct warm_error *err)
{
	struct ecr *e = arg;
	json_error_t where;
	json_t *o = json_loadb((const char *)response->body.data, response->body.bytes, 0, &where);
	const char *type = json_string_value(json_object_get(o, "__type"));

	(void)ret_again;
	int rc = warm_error_set(err, is_busy(response->status) ? WARM_TRANSIENT : WARM_DENIED,
				"%ld %.80s for GetAuthorizationToken as %s: the role may lack "
				"ecr:GetAuthorizationToken",
				response->status, type != NULL ? type : "", e->who);
	json_decref(o);
	return rc;
}

static int from_ecr(struct warm_registry *r, struct login *l, const struct warm_call *call,
		    struct warm_error *err)
{
	struct ecr e = { .r = r };
	const char *endpoint = getenv("AWS_ENDPOINT_URL_ECR");
	scope_response struct warm_http_response response = { 0 };
	struct warm_http_run run = { .prepare = prepare_ecr,
				     .refused = refuse_ecr,
				     .arg = &e,
				     .data = ECR_BODY,
				     .body_bytes = strlen(ECR_BODY) };
	json_error_t where;

	if (!ecr_region(r->o.host, e.region)) {
		const char *region = warm_aws_region(r->aws);
		snprintf(e.region, sizeof(e.region), "%s", region != NULL ? region : "us-east-1");
	}
	if (endpoint != NULL && endpoint[0] != '\0')
		snprintf(e.url, sizeof(e.url), "%s%s", endpoint,
			 ends_with(endpoint, "/") ? "" : "/");
	else
		snprintf(e.url, sizeof(e.url), "https://api.ecr.%s.amazonaws.com%s/", e.region,
			 strncmp(e.region, "cn-", 3) == 0 ? ".cn" : "");
	int rc = warm_http_run(r->http, &run, &response, call, err);
	if (rc != 0)
		return rc;
	json_t *o = json_loadb((const char *)response.body.data, response.body.bytes, 0, &where);
	json_t *data = json_array_get(json_object_get(o, "authorizationData"), 0);
	const char *text = json_string_value(json_object_get(data, "authorizationToken"));
	scope_free char *pair = text != NULL ? decode64(text) : NULL;
	char *colon = pair != NULL ? strchr(pair, ':') : NULL;
	json_decref(o);
	if (colon == NULL)
		return warm_error_set(err, WARM_CORRUPT, "ECR answers without a token");
	*colon = '\0';
	rc = copy_text(&l->user, pair, err);
	return rc != 0 ? rc : copy_text(&l->password, colon + 1, err);
}

static int from_google(struct warm_registry *r, struct login *l, const struct warm_call *call,
		       struct warm_error *err)
{
	int rc = warm_google_token(r->google, &l->password, call, err);

	return rc != 0 ? rc : copy_text(&l->user, "oauth2accesstoken", err);
}

static int look(struct warm_registry *r, struct login *l, const struct warm_call *call,
		struct warm_error *err)
{
	bool found = r->o.login == WARM_LOGIN_NONE;
	int rc = 0;

	if (!found && (r->o.login == WARM_LOGIN_AUTO || r->o.login == WARM_LOGIN_FILE))
		rc = from_files(r, l, &found, call, err);
	if (rc == 0 && !found && r->aws != NULL)
		return from_ecr(r, l, call, err);
	if (rc == 0 && !found && r->google != NULL)
		return from_google(r, l, call, err);
	return rc;
}

/* Under the lock. */
static int know_login(struct warm_registry *r, const struct warm_call *call, struct warm_error *err)
{
	struct login l = { NULL };

	if (r->known && warm_clock_ms() < r->renew_ms)
		return 0;
	int rc = look(r, &l, call, err);
	if (rc != 0 && r->known) {
		/* The one that we have may still be good. */
		login_release(&l);
		r->renew_ms = warm_clock_ms() + AGAIN_MS;
		return 0;
	}
	if (rc != 0) {
		login_release(&l);
		warm_error_context(err, "login");
		return rc;
	}
	login_release(&r->login);
	r->login = l;
	r->known = true;
	r->renew_ms = warm_clock_ms() + LOGIN_MS;
	return 0;
}

/* ---- tokens ---- */

/* A parameter of a challenge: Bearer realm="https://...",service="...",scope="...". */
static bool challenge_param(const char *challenge, const char *name, char *ret_value, size_t bytes)
{
	size_t n = strlen(name);

	for (const char *p = challenge; (p = strcasestr(p, name)) != NULL; p += n) {
		if ((p != challenge && strchr(" ,", p[-1]) == NULL) || p[n] != '=')
			continue;
		const char *value = p + n + 1;
		size_t length = value[0] == '"' ? strcspn(value + 1, "\"") : strcspn(value, ", ");
		value += value[0] == '"';
		if (length >= bytes)
			return false;
		memcpy(ret_value, value, length);
		ret_value[length] = '\0';
		return true;
	}
	return false;
}

struct token_request {
	const char *url, *authorization;
	bool post;
};

static int prepare_token(void *arg, struct warm_http_request *q, const struct warm_call *call,
			 struct warm_error *err)
{
	const struct token_request *t = arg;

	(void)call;
	(void)err;
	q->method = t->post ? "POST" : "GET";
	warm_http_request_url(q, "%s", t->url);
	if (t->authorization != NULL)
		warm_http_request_header(q, "%s", t->authorization);
	if (t->post)
		warm_http_request_header(q, "Content-Type: application/x-www-form-urlencoded");
	return 0;
}

static int refuse_token(void *arg, const struct warm_http_response *response, bool *ret_again,
			struct warm_error *err)
{
	(void)arg;
	(void)ret_again;
	return warm_error_set(err, is_busy(response->status) ? WARM_TRANSIENT : WARM_DENIED,
			      "the token server answers %ld%s", response->status,
			      response->status == 401 ? ": it doesn't take user and password" : "");
}

static char *basic_header(const struct login *l)
{
	scope_free char *pair = NULL, *encoded = NULL;
	char *header = NULL;

	if (asprintf(&pair, "%s:%s", l->user, l->password != NULL ? l->password : "") < 0)
		return NULL;
	encoded = encode64(pair, strlen(pair));
	if (encoded == NULL || asprintf(&header, "Authorization: Basic %s", encoded) < 0)
		return NULL;
	return header;
}

static void put_param(struct warm_buf *buf, const char *name, const char *value)
{
	warm_buf_printf(buf, "%s%s=", buf->bytes > 0 ? "&" : "", name);
	warm_url_encode(buf, value, false);
}

static void keep_token(struct warm_registry *r, const char *key, char *value, int64_t seconds)
{
	struct token *t = NULL;

	for (size_t i = 0; i < TOKENS; i++)
		if (strcmp(r->tokens[i].key, key) == 0)
			t = &r->tokens[i];
	if (t == NULL)
		t = &r->tokens[r->next_token++ % TOKENS];
	free(t->value);
	snprintf(t->key, sizeof(t->key), "%s", key);
	t->value = value;
	/* A tenth less, so that it doesn't expire on its way. */
	if (seconds <= 0)
		seconds = TOKEN_S;
	t->expires_ms = warm_clock_ms() + (seconds < TOKEN_MAX_S ? seconds : TOKEN_MAX_S) * 900;
}

static int get_token(struct warm_registry *r, const struct warm_registry_scope *scope,
		     const struct warm_call *call, struct warm_error *err)
{
	char realm[600], service[200] = "", wanted[400] = "";
	const struct login *l = &r->login;
	scope_buf struct warm_buf params = WARM_BUF_INIT, url = WARM_BUF_INIT;
	scope_response struct warm_http_response response = { 0 };
	scope_free char *authorization = NULL;
	bool post = l->identity != NULL;

	if (!challenge_param(scope->challenge, "realm", realm, sizeof(realm)))
		return warm_error_set(err, WARM_CORRUPT, "401 without a realm to get a token from");
	if (strncmp(realm, "https://", 8) != 0 && !r->o.plain_http)
		return warm_error_set(err, WARM_DENIED, "a token server without TLS: refused");
	(void)challenge_param(scope->challenge, "service", service, sizeof(service));
	(void)challenge_param(scope->challenge, "scope", wanted, sizeof(wanted));
	if (service[0] != '\0')
		put_param(&params, "service", service);
	if (wanted[0] != '\0')
		put_param(&params, "scope", wanted);
	if (post) {
		put_param(&params, "grant_type", "refresh_token");
		put_param(&params, "client_id", "warmcache");
		put_param(&params, "refresh_token", l->identity);
	}
	warm_buf_put_u8(&params, 0);
	if (params.failed)
		return warm_error_nomem(err, params.bytes);
	warm_buf_printf(&url, "%s", realm);
	if (!post && params.bytes > 1)
		warm_buf_printf(&url, "%c%s", strchr(realm, '?') != NULL ? '&' : '?',
				(const char *)params.data);
	warm_buf_put_u8(&url, 0);
	if (!post && l->user != NULL && (authorization = basic_header(l)) == NULL)
		return warm_error_nomem(err, sizeof(*l));
	if (url.failed)
		return warm_error_nomem(err, url.bytes);
	struct token_request t = { (const char *)url.data, authorization, post };
	struct warm_http_run run = { .prepare = prepare_token, .refused = refuse_token, .arg = &t };
	if (post) {
		run.data = params.data;
		run.body_bytes = params.bytes - 1;
	}
	int rc = warm_http_run(r->http, &run, &response, call, err);
	if (rc != 0)
		return rc;
	json_error_t where;
	json_t *o = json_loadb((const char *)response.body.data, response.body.bytes, 0, &where);
	const char *text = json_string_value(json_object_get(o, "token"));
	if (text == NULL)
		text = json_string_value(json_object_get(o, "access_token"));
	char *value = text != NULL && strpbrk(text, "\r\n") == NULL ? strdup(text) : NULL;
	if (value != NULL)
		keep_token(r, scope->key, value,
			   json_integer_value(json_object_get(o, "expires_in")));
	json_decref(o);
	return value != NULL ? 0
			     : warm_error_set(err, WARM_CORRUPT, "the token server sends no token");
}

static const char *known_token(const struct warm_registry *r, const char *key)
{
	for (size_t i = 0; i < TOKENS; i++)
		if (r->tokens[i].value != NULL && strcmp(r->tokens[i].key, key) == 0 &&
		    warm_clock_ms() < r->tokens[i].expires_ms)
			return r->tokens[i].value;
	return NULL;
}

static int authorize(struct warm_registry *r, struct warm_registry_scope *scope,
		     struct warm_http_request *request, char ret_who[64],
		     const struct warm_call *call, struct warm_error *err)
{
	int rc = know_login(r, call, err);

	if (rc != 0)
		return rc;
	if (r->login.user != NULL)
		snprintf(ret_who, 64, "%.60s", r->login.user);
	else if (r->login.identity != NULL || r->login.bearer != NULL)
		snprintf(ret_who, 64, "a token");
	else
		snprintf(ret_who, 64, "anonymous%.54s", r->without);
	if (r->login.bearer != NULL) {
		warm_http_request_header(request, "Authorization: Bearer %s", r->login.bearer);
		return 0;
	}
	if (r->basic) {
		scope_free char *header = r->login.user != NULL ? basic_header(&r->login) : NULL;
		if (r->login.user != NULL && header == NULL)
			return warm_error_nomem(err, sizeof(r->login));
		if (header != NULL)
			warm_http_request_header(request, "%s", header);
		return 0;
	}
	const char *token = known_token(r, scope->key);
	if (token == NULL && scope->challenge[0] != '\0') {
		rc = get_token(r, scope, call, err);
		token = rc == 0 ? known_token(r, scope->key) : NULL;
	}
	if (token != NULL)
		warm_http_request_header(request, "Authorization: Bearer %s", token);
	return rc;
}

int warm_registry_authorize(struct warm_registry *r, struct warm_registry_scope *scope,
			    struct warm_http_request *request, char ret_who[64],
			    const struct warm_call *call, struct warm_error *err)
{
	int rc = warm_call_lock(&r->lock, call, err);

	if (rc != 0)
		return rc;
	rc = authorize(r, scope, request, ret_who, call, err);
	pthread_mutex_unlock(&r->lock);
	return rc;
}

bool warm_registry_challenge(struct warm_registry *r, struct warm_registry_scope *scope,
			     const struct warm_http_response *response)
{
	const char *challenge = warm_http_header(response, "www-authenticate");
	bool again = scope->refusals++ < REFUSALS;

	/* Another host that a redirect led to has no business with our login. */
	if (challenge == NULL || response->foreign)
		return false;
	pthread_mutex_lock(&r->lock);
	if (strncasecmp(challenge, "basic", 5) == 0) {
		/* Refused although we said who we are: perhaps the login has changed. */
		if (scope->refusals > 1)
			r->known = false;
		r->basic = true;
	} else if (strncasecmp(challenge, "bearer", 6) == 0 &&
		   strlen(challenge) < sizeof(scope->challenge)) {
		snprintf(scope->challenge, sizeof(scope->challenge), "%s", challenge);
		for (size_t i = 0; i < TOKENS; i++)
			if (strcmp(r->tokens[i].key, scope->key) == 0)
				r->tokens[i].expires_ms = 0;
		if (scope->refusals > 1)
			r->known = false;
	} else {
		again = false;
	}
	pthread_mutex_unlock(&r->lock);
	return again;
}
