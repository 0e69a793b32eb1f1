/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/http_server.h"

#include <pthread.h>
#include <unistd.h>

#include "lib/store/registry.h"

#define scope_server WARM_SCOPE(close_server)
#define scope_registry WARM_SCOPE(free_registry)

static void close_server(struct http_server **s)
{
	http_server_close(*s);
}

static void free_registry(struct warm_registry **r)
{
	warm_registry_free(*r);
}

static struct warm_registry *open_registry(struct warm_registry_options o)
{
	struct warm_registry *r = NULL;

	assert_int_equal(warm_registry_open(&o, &r, NULL), 0);
	return r;
}

static struct warm_registry *plain_registry(const char *host)
{
	return open_registry((struct warm_registry_options){ .host = host, .plain_http = true });
}

/* "who: Authorization header" of a request, or the error's message. Static storage. */
static const char *authorize_with(struct warm_registry *r, struct warm_registry_scope *scope,
				  const struct warm_call *call)
{
	static char text[900];
	struct warm_http_request q = { .method = "GET" };
	struct warm_error err = { 0 };
	char who[64] = "";

	if (warm_registry_authorize(r, scope, &q, who, call, &err) != 0)
		snprintf(text, sizeof(text), "%s: %s", warm_status_name(err.status), err.msg);
	else
		snprintf(text, sizeof(text), "%s: %s", who,
			 q.n_headers > 0 ? q.headers[0] + strlen("Authorization: ") : "-");
	for (size_t i = 0; i < q.n_headers; i++)
		free(q.headers[i]);
	return text;
}

static const char *authorize(struct warm_registry *r, struct warm_registry_scope *scope)
{
	return authorize_with(r, scope, NULL);
}

static bool challenge(struct warm_registry *r, struct warm_registry_scope *scope, const char *line)
{
	scope_response struct warm_http_response response = { .status = 401 };

	if (line != NULL) {
		warm_buf_put(&response.head, line, strlen(line));
		warm_buf_put_u8(&response.head, 0);
	}
	return warm_registry_challenge(r, scope, &response);
}

#define PULL(scope) struct warm_registry_scope scope = { .key = "pull team/m" }

/* What a registry that wants basic authentication gets, by a config.json. */
static const char *basic_by(struct scratch *s, const char *host, const char *config)
{
	PULL(scope);

	no_clouds();
	put_text(s->fd, "config.json", config);
	setenv("DOCKER_CONFIG", s->path, 1);
	scope_registry struct warm_registry *r = plain_registry(host);
	const char *first = authorize(r, &scope);
	if (strstr(first, ": -") == NULL)
		return first;
	assert_true(challenge(r, &scope, "WWW-Authenticate: Basic realm=\"x\""));
	return authorize(r, &scope);
}

/* ---- config.json ---- */

TEST(logins_are_found_by_the_registrys_name)
{
	static const struct {
		const char *host, *config, *want;
	} rows[] = {
		{ "r.io:5000", "{\"auths\":{\"r.io:5000\":{\"auth\":\"dTpw\"}}}", "u: Basic dTpw" },
		{ "r.io", "{\"auths\":{\"https://r.io/v2/\":{\"auth\":\"dTpwOng=\"}}}",
		  "u: Basic dTpwOng=" },
		{ "r.io", "{\"auths\":{\"r.io\":{\"username\":\"u\",\"password\":\"p\"}}}",
		  "u: Basic dTpw" },
		{ "r.io", "{\"auths\":{\"http://r.io\":{\"auth\":\"dTo=\"}}}", "u: Basic dTo=" },
		{ "r.io", "{\"auths\":{\"other.io\":{\"auth\":\"dTpw\"}}}", "anonymous: -" },
		{ "r.io", "{\"auths\":{\"r.io:5000\":{\"auth\":\"dTpw\"}}}", "anonymous: -" },
		{ "r.io", "{\"auths\":{\"r.io\":{\"auth\":\"%%%%\"}}}", "anonymous: -" },
		{ "r.io", "{\"auths\":{\"r.io\":{\"auth\":\"dTp\"}}}", "anonymous: -" },
		{ "r.io", "{\"auths\":{\"r.io\":{\"auth\":5}},\"x\":[]}", "anonymous: -" },
		{ "r.io", "{}", "anonymous: -" },
		{ "r.io", "[]", "anonymous: -" },
		{ "docker.io", "{\"auths\":{\"https://index.docker.io/v1/\":{\"auth\":\"dTpw\"}}}",
		  "u: Basic dTpw" },
		{ "index.docker.io", "{\"auths\":{\"docker.io\":{\"auth\":\"dTpw\"}}}",
		  "u: Basic dTpw" },
		{ "r.io", "{\"auths\":{\"r.io\":{\"registrytoken\":\"tok\"}}}",
		  "a token: Bearer tok" },
	};
	struct scratch s = scratch_open();

	for (size_t i = 0; i < COUNT(rows); i++)
		assert_string_equal(basic_by(&s, rows[i].host, rows[i].config), rows[i].want);
	scratch_close(&s);
}

TEST(the_files_of_others_are_looked_for_in_order)
{
	struct scratch s = scratch_open();
	struct {
		const char *env, *value, *path, *user;
	} places[] = {
		{ "HOME", s.path, ".docker/config.json", "home" },
		{ "XDG_RUNTIME_DIR", s.path, "containers/auth.json", "xdg" },
		{ "DOCKER_CONFIG", s.path, ".dockerconfigjson", "pod" },
		{ "DOCKER_CONFIG", s.path, "config.json", "docker" },
		{ "REGISTRY_AUTH_FILE", scratch_path(&s, "auth"), "auth", "file" },
	};

	no_clouds();
	for (size_t i = 0; i < COUNT(places); i++) {
		char config[200], want[60];
		PULL(scope);
		snprintf(config, sizeof(config), "{\"auths\":{\"r.io\":{\"username\":\"%s\"}}}",
			 places[i].user);
		snprintf(want, sizeof(want), "%s: -", places[i].user);
		put_text(s.fd, places[i].path, config);
		setenv(places[i].env, places[i].value, 1);
		scope_registry struct warm_registry *r = plain_registry("r.io");
		assert_string_equal(authorize(r, &scope), want);
	}
	/* One that is named is the only one. */
	put_text(s.fd, "mine", "{\"auths\":{\"x.io\":{\"username\":\"x\"}}}");
	PULL(scope);
	scope_registry struct warm_registry *r = open_registry((struct warm_registry_options){
		.host = "r.io", .auth_file = scratch_path(&s, "mine") });
	assert_string_equal(authorize(r, &scope), "anonymous: -");
	no_clouds();
	scratch_close(&s);
}

TEST(a_config_that_can_not_be_read_is_an_error)
{
	struct scratch s = scratch_open();
	PULL(scope);

	assert_non_null(strstr(basic_by(&s, "r.io", "{\n\n\"auths\":"), "line 3: no JSON"));
	assert_non_null(strstr(basic_by(&s, "r.io", ""), "invalid: login: "));
	no_clouds();
	scope_registry struct warm_registry *r = open_registry((struct warm_registry_options){
		.host = "r.io", .auth_file = "/nonexistent/config.json" });
	assert_non_null(strstr(authorize(r, &scope), "denied: login: /nonexistent/config.json"));
	scratch_close(&s);
}

TEST(no_login_is_wanted_and_none_is_looked_for)
{
	PULL(scope);

	no_clouds();
	setenv("REGISTRY_AUTH_FILE", "/etc/hostname", 1);
	scope_registry struct warm_registry *r = open_registry(
		(struct warm_registry_options){ .host = "r.io", .login = WARM_LOGIN_NONE });
	assert_string_equal(authorize(r, &scope), "anonymous: -");
	no_clouds();
}

/* ---- helpers ---- */

static void put_helper(struct scratch *s, const char *script)
{
	char path[600];
	static char *before;

	if (before == NULL)
		before = strdup(getenv("PATH"));
	put_file(s->fd, "bin/docker-credential-test", script, strlen(script), 0755, 0);
	snprintf(path, sizeof(path), "%s/bin:%s", s->path, before);
	setenv("PATH", path, 1);
}

#define BY_HELPER "{\"credHelpers\":{\"r.io\":\"test\",\"docker.io\":\"test\"}}"

TEST(a_helper_is_asked_for_user_and_secret)
{
	struct scratch s = scratch_open();

	put_helper(&s, "#!/bin/sh\n[ $1 = get ] && read host || [ \"$host\" ]\n"
		       "echo \"{\\\"Username\\\":\\\"$host\\\",\\\"Secret\\\":\\\"p\\\"}\"\n");
	assert_string_equal(basic_by(&s, "r.io", BY_HELPER), "r.io: Basic ci5pbzpw");
	assert_memory_equal(basic_by(&s, "docker.io", BY_HELPER),
			    "https://index.docker.io/v1/: ", 29);
	/* With a store of all logins, "auths" names those that it has. */
	assert_string_equal(
		basic_by(&s, "r.io", "{\"credsStore\":\"test\",\"auths\":{\"r.io\":{}}}"),
		"r.io: Basic ci5pbzpw");
	assert_string_equal(basic_by(&s, "r.io", "{\"credsStore\":\"test\"}"),
			    "r.io: Basic ci5pbzpw");
	assert_string_equal(
		basic_by(&s, "r.io",
			 "{\"credsStore\":\"test\",\"auths\":{\"r.io\":{\"auth\":\"dTpw\"}}}"),
		"u: Basic dTpw");
	scratch_close(&s);
}

TEST(a_helper_that_fails_is_an_error)
{
	static const struct {
		const char *script, *want;
	} rows[] = {
		{ "#!/bin/sh\ncat >/dev/null\necho the keychain is locked\nexit 1\n",
		  "docker-credential-test has failed: the keychain is locked" },
		{ "#!/bin/sh\ncat >/dev/null\necho '{\"Username\":\"u\"}'\n",
		  "docker-credential-test gives no user and secret" },
		{ "#!/bin/sh\ncat >/dev/null\necho hunter2\n", "gives no user and secret" },
		{ "#!/bin/sh\ncat >/dev/null\nkill -9 $$\n", "has failed" },
	};
	struct scratch s = scratch_open();

	for (size_t i = 0; i < COUNT(rows); i++) {
		put_helper(&s, rows[i].script);
		const char *said = basic_by(&s, "r.io", BY_HELPER);
		assert_memory_equal(said, "denied: login: ", 15);
		assert_non_null(strstr(said, rows[i].want));
		assert_null(strstr(said, "hunter2"));
	}
	assert_non_null(strstr(basic_by(&s, "r.io", "{\"credHelpers\":{\"r.io\":\"../x\"}}"),
			       "a bad name"));
	scratch_close(&s);
}

TEST(a_helper_that_is_missing_or_knows_nothing_leaves_it_to_the_next_place)
{
	struct scratch s = scratch_open();
	PULL(scope);

	put_helper(&s, "#!/bin/sh\ncat >/dev/null\n"
		       "echo credentials not found in native keychain\nexit 1\n");
	assert_string_equal(basic_by(&s, "r.io", BY_HELPER),
			    "anonymous, without docker-credential-test: -");
	assert_string_equal(basic_by(&s, "r.io", "{\"credHelpers\":{\"r.io\":\"nosuch\"}}"),
			    "anonymous, without docker-credential-nosuch: -");
	put_text(s.fd, "home/.docker/config.json",
		 "{\"auths\":{\"r.io\":{\"username\":\"home\"}}}");
	setenv("HOME", scratch_path(&s, "home"), 1);
	scope_registry struct warm_registry *r = plain_registry("r.io");
	assert_string_equal(authorize(r, &scope), "home: -");
	scratch_close(&s);
}

TEST(a_helper_that_hangs_is_killed_with_the_call)
{
	struct scratch s = scratch_open();
	int64_t start = warm_clock_ms();
	struct warm_call call = { .deadline_ms = start + 150 };
	PULL(scope);

	no_clouds();
	put_helper(&s, "#!/bin/sh\necho $$ > \"$DOCKER_CONFIG/pid\"\nexec sleep 100\n");
	put_text(s.fd, "config.json", BY_HELPER);
	setenv("DOCKER_CONFIG", s.path, 1);
	scope_registry struct warm_registry *r = plain_registry("r.io");
	assert_null(strstr(authorize_with(r, &scope, &call), "Basic"));
	assert_in_range(warm_clock_ms() - start, 140, 600);
	char *pid = text_of(s.fd, "pid", NULL);
	assert_int_not_equal(shell("kill -0 %d 2>/dev/null", atoi(pid)), 0);
	free(pid);
	scratch_close(&s);
}

/* ---- challenges ---- */

/* A token server: tokens are t0, t1, ... */
struct tokens {
	int given, status, expires_in;
};

static void give_token(void *arg, const struct http_request *request, struct http_reply *reply)
{
	struct tokens *t = arg;
	char text[100];

	(void)request;
	if (t->status != 0) {
		http_reply_text(reply, t->status, "{}");
		return;
	}
	snprintf(text, sizeof(text), "{\"%stoken\":\"t%d\",\"expires_in\":%d}",
		 t->given % 2 == 0 ? "" : "access_", t->given, t->expires_in);
	t->given++;
	http_reply_text(reply, 200, text);
}

static const char *bearer(const struct http_server *s, const char *scope)
{
	static char line[400];

	snprintf(line, sizeof(line),
		 "Www-Authenticate: Bearer realm=\"%s/token\",service=\"r.io\",scope=\"%s\"",
		 http_server_url(s), scope);
	return line;
}

TEST(a_token_is_fetched_once_for_a_scope)
{
	struct scratch s = scratch_open();
	struct tokens t = { .expires_in = 300 };
	scope_server struct http_server *server = http_server_open(give_token, &t);
	PULL(first);
	PULL(second);
	struct warm_registry_scope push = { .key = "push team/m" };

	no_clouds();
	put_text(s.fd, "config.json", "{\"auths\":{\"r.io\":{\"auth\":\"dTpw\"}}}");
	setenv("DOCKER_CONFIG", s.path, 1);
	scope_registry struct warm_registry *r = plain_registry("r.io");
	assert_string_equal(authorize(r, &first), "u: -"); /* before anybody has asked */
	assert_true(challenge(r, &first, bearer(server, "repository:team/m:pull")));
	assert_string_equal(authorize(r, &first), "u: Bearer t0");
	assert_string_equal(authorize(r, &second), "u: Bearer t0");
	assert_int_equal(http_server_count(server), 1);
	assert_request(server, 0, "GET /token?service=r.io&scope=repository%3Ateam%2Fm%3Apull");
	assert_header(server, 0, "authorization", "Basic dTpw");
	assert_string_equal(authorize(r, &push), "u: -");
	assert_true(challenge(r, &push, bearer(server, "repository:team/m:pull,push")));
	assert_string_equal(authorize(r, &push), "u: Bearer t1");
	assert_request(server, 1,
		       "GET /token?service=r.io&scope=repository%3Ateam%2Fm%3Apull%2Cpush");
	assert_string_equal(authorize(r, &first), "u: Bearer t0");
	scratch_close(&s);
}

TEST(a_token_that_is_refused_is_fetched_anew_and_not_for_ever)
{
	struct tokens t = { .expires_in = 300 };
	scope_server struct http_server *server = http_server_open(give_token, &t);
	PULL(scope);

	no_clouds();
	scope_registry struct warm_registry *r = plain_registry("r.io");
	assert_true(challenge(r, &scope, bearer(server, "x")));
	assert_string_equal(authorize(r, &scope), "anonymous: Bearer t0");
	assert_header(server, 0, "authorization", NULL);
	assert_true(challenge(r, &scope, bearer(server, "x")));
	assert_string_equal(authorize(r, &scope), "anonymous: Bearer t1");
	assert_false(challenge(r, &scope, bearer(server, "x")));
}

TEST(a_token_that_has_expired_is_fetched_anew)
{
	struct tokens t = { .expires_in = 1 };
	scope_server struct http_server *server = http_server_open(give_token, &t);
	PULL(scope);

	no_clouds();
	scope_registry struct warm_registry *r = plain_registry("r.io");
	assert_true(challenge(r, &scope, bearer(server, "x")));
	assert_string_equal(authorize(r, &scope), "anonymous: Bearer t0");
	assert_string_equal(authorize(r, &scope), "anonymous: Bearer t0");
	usleep(910 * 1000);
	assert_string_equal(authorize(r, &scope), "anonymous: Bearer t1");
}

TEST(an_identity_token_is_posted)
{
	struct scratch s = scratch_open();
	struct tokens t = { .expires_in = 300 };
	scope_server struct http_server *server = http_server_open(give_token, &t);
	PULL(scope);

	no_clouds();
	put_helper(&s, "#!/bin/sh\ncat >/dev/null\n"
		       "echo '{\"Username\":\"<token>\",\"Secret\":\"id+1\"}'\n");
	put_text(s.fd, "config.json", BY_HELPER);
	setenv("DOCKER_CONFIG", s.path, 1);
	scope_registry struct warm_registry *r = plain_registry("r.io");
	for (int i = 0; i < 2; i++) {
		scope.refusals = 0;
		assert_true(challenge(r, &scope, bearer(server, "x")));
		assert_memory_equal(authorize(r, &scope), "a token: Bearer t", 17);
		assert_request(server, (size_t)i, "POST /token");
		assert_header(server, (size_t)i, "content-type",
			      "application/x-www-form-urlencoded");
		assert_header(server, (size_t)i, "authorization", NULL);
		assert_string_equal((char *)http_server_request(server, (size_t)i)->body.data,
				    "service=r.io&scope=x&grant_type=refresh_token&"
				    "client_id=warmcache&refresh_token=id%2B1");
		/* The same from "auths". */
		put_text(s.fd, "config.json",
			 "{\"auths\":{\"r.io\":{\"identitytoken\":\"id+1\"}}}");
		warm_registry_free(r);
		r = plain_registry("r.io");
	}
	scratch_close(&s);
}

TEST(what_a_token_server_refuses_is_told)
{
	struct tokens t = { .status = 401 };
	scope_server struct http_server *server = http_server_open(give_token, &t);
	PULL(scope);

	no_clouds();
	scope_registry struct warm_registry *r = plain_registry("r.io");
	assert_true(challenge(r, &scope, bearer(server, "x")));
	assert_string_equal(authorize(r, &scope),
			    "denied: the token server answers 401: it doesn't "
			    "take user and password");
	t.status = 200;
	assert_string_equal(authorize(r, &scope), "corrupt: the token server sends no token");
}

TEST(a_token_server_without_tls_is_refused_unless_plain_http_is_wanted)
{
	struct tokens t = { .expires_in = 300 };
	scope_server struct http_server *server = http_server_open(give_token, &t);
	PULL(scope);

	no_clouds();
	scope_registry struct warm_registry *r =
		open_registry((struct warm_registry_options){ .host = "r.io" });
	assert_true(challenge(r, &scope, bearer(server, "x")));
	assert_non_null(strstr(authorize(r, &scope), "a token server without TLS: refused"));
	assert_int_equal(http_server_count(server), 0);
}

TEST(challenges_that_are_none_are_the_end)
{
	PULL(scope);

	no_clouds();
	scope_registry struct warm_registry *r = plain_registry("r.io");
	assert_false(challenge(r, &scope, NULL));
	scope.refusals = 0;
	assert_false(challenge(r, &scope, "WWW-Authenticate: Negotiate"));
	scope.refusals = 0;
	assert_true(challenge(r, &scope, "WWW-Authenticate: Bearer service=\"x\""));
	assert_non_null(strstr(authorize(r, &scope), "401 without a realm"));
}

TEST(parameters_of_a_challenge_stand_in_any_order)
{
	struct tokens t = { .expires_in = 300 };
	scope_server struct http_server *server = http_server_open(give_token, &t);
	char line[300];
	PULL(scope);

	no_clouds();
	scope_registry struct warm_registry *r = plain_registry("r.io");
	snprintf(line, sizeof(line),
		 "www-authenticate: bearer xrealm=\"no\", SCOPE=a:b:c, "
		 "realm=\"%s/auth?a=b\"",
		 http_server_url(server));
	assert_true(challenge(r, &scope, line));
	assert_string_equal(authorize(r, &scope), "anonymous: Bearer t0");
	assert_request(server, 0, "GET /auth?a=b&scope=a%3Ab%3Ac");
}

/* ---- clouds ---- */

TEST(ecr_gives_a_login_by_a_signed_call)
{
	static const struct canned answers[] = {
		{ .status = 200,
		  .body = "{\"authorizationData\":[{\"authorizationToken\":\"QVdTOnB3\"}]}" },
		{ .status = 400, .body = "{\"__type\":\"AccessDeniedException\"}" },
	};
	scope_server struct http_server *server = CANNED(answers);
	PULL(scope);

	no_clouds();
	setenv("AWS_ENDPOINT_URL_ECR", http_server_url(server), 1);
	setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "hunter2", 1);
	static const char host[] = "1234.dkr.ecr.eu-west-9.amazonaws.com";
	scope_registry struct warm_registry *r = plain_registry(host);
	assert_string_equal(authorize(r, &scope), "AWS: -");
	assert_request(server, 0, "POST /");
	assert_header(server, 0, "x-amz-target",
		      "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken");
	const char *signature = http_request_header(http_server_request(server, 0),
						    "authorization");
	assert_non_null(strstr(signature, "/eu-west-9/ecr/aws4_request"));
	assert_true(challenge(r, &scope, "WWW-Authenticate: Basic realm=\"x\""));
	assert_string_equal(authorize(r, &scope), "AWS: Basic QVdTOnB3");
	scope_registry struct warm_registry *again = plain_registry(host);
	const char *said = authorize(again, &scope);
	assert_non_null(strstr(said, "400 AccessDeniedException for GetAuthorizationToken as "
				     "key ...MPLE"));
	assert_null(strstr(said, "hunter2"));
}

TEST(google_gives_a_login_by_its_metadata_server)
{
	static const struct canned answers[] = {
		{ .status = 200, .body = "{\"access_token\":\"g\",\"expires_in\":3000}" },
	};
	scope_server struct http_server *server = CANNED(answers);
	PULL(scope);

	no_clouds();
	setenv("GCE_METADATA_HOST", http_server_host(server), 1);
	scope_registry struct warm_registry *r = plain_registry("eu-docker.pkg.dev");
	assert_string_equal(authorize(r, &scope), "oauth2accesstoken: -");
	assert_true(challenge(r, &scope, "WWW-Authenticate: Basic realm=\"x\""));
	assert_string_equal(authorize(r, &scope),
			    "oauth2accesstoken: Basic b2F1dGgyYWNjZXNzdG9rZW46Zw==");
	assert_int_equal(http_server_count(server), 1);
}

static void *authorize_often(void *arg)
{
	for (int i = 0; i < 50; i++) {
		PULL(scope);
		struct warm_http_request q = { .method = "GET" };
		char who[64];
		if (warm_registry_authorize(arg, &scope, &q, who, NULL, NULL) != 0 ||
		    q.n_headers != 1 || strcmp(q.headers[0], "Authorization: Bearer t0") != 0)
			return arg;
		free(q.headers[0]);
	}
	return NULL;
}

TEST(many_threads_share_a_token)
{
	struct tokens t = { .expires_in = 300 };
	scope_server struct http_server *server = http_server_open(give_token, &t);
	pthread_t threads[8];
	void *failed = NULL;
	PULL(scope);

	no_clouds();
	scope_registry struct warm_registry *r = plain_registry("r.io");
	assert_true(challenge(r, &scope, bearer(server, "x")));
	assert_string_equal(authorize(r, &scope), "anonymous: Bearer t0");
	for (size_t i = 0; i < COUNT(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, authorize_often, r), 0);
	for (size_t i = 0; i < COUNT(threads); i++) {
		pthread_join(threads[i], &failed);
		assert_null(failed);
	}
	assert_int_equal(http_server_count(server), 1);
}

static void give_for_ever(void *arg, const struct http_request *request, struct http_reply *reply)
{
	(void)arg;
	(void)request;
	http_reply_text(reply, 200, "{\"token\":\"t\",\"expires_in\":9223372036854775807}");
}

TEST(a_token_may_last_for_ever)
{
	scope_server struct http_server *server = http_server_open(give_for_ever, NULL);
	PULL(scope);

	no_clouds();
	scope_registry struct warm_registry *r = plain_registry("r.io");
	assert_true(challenge(r, &scope, bearer(server, "x")));
	assert_string_equal(authorize(r, &scope), "anonymous: Bearer t");
}

TEST(a_helper_that_hangs_silently_is_killed_with_the_call)
{
	struct scratch s = scratch_open();
	int64_t start = warm_clock_ms();
	struct warm_call call = { .deadline_ms = start + 150 };
	PULL(scope);

	no_clouds();
	put_helper(&s, "#!/bin/sh\nexec >&- 2>&-\nexec sleep 3\n");
	put_text(s.fd, "config.json", BY_HELPER);
	setenv("DOCKER_CONFIG", s.path, 1);
	scope_registry struct warm_registry *r = plain_registry("r.io");
	(void)authorize_with(r, &scope, &call);
	assert_true(warm_clock_ms() - start < 1000);
	scratch_close(&s);
}

TEST(a_call_that_ends_in_a_helper_is_canceled)
{
	struct scratch s = scratch_open();
	struct warm_call call = { .deadline_ms = warm_clock_ms() + 150 };
	PULL(scope);

	no_clouds();
	put_helper(&s, "#!/bin/sh\nexec sleep 3\n");
	put_text(s.fd, "config.json", BY_HELPER);
	setenv("DOCKER_CONFIG", s.path, 1);
	scope_registry struct warm_registry *r = plain_registry("r.io");
	assert_memory_equal(authorize_with(r, &scope, &call), "canceled: ", 10);
	scratch_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(logins_are_found_by_the_registrys_name),
		cmocka_unit_test(the_files_of_others_are_looked_for_in_order),
		cmocka_unit_test(a_config_that_can_not_be_read_is_an_error),
		cmocka_unit_test(no_login_is_wanted_and_none_is_looked_for),
		cmocka_unit_test(a_helper_is_asked_for_user_and_secret),
		cmocka_unit_test(a_helper_that_fails_is_an_error),
		cmocka_unit_test(
			a_helper_that_is_missing_or_knows_nothing_leaves_it_to_the_next_place),
		cmocka_unit_test(a_helper_that_hangs_is_killed_with_the_call),
		cmocka_unit_test(a_token_is_fetched_once_for_a_scope),
		cmocka_unit_test(a_token_that_is_refused_is_fetched_anew_and_not_for_ever),
		cmocka_unit_test(a_token_that_has_expired_is_fetched_anew),
		cmocka_unit_test(an_identity_token_is_posted),
		cmocka_unit_test(what_a_token_server_refuses_is_told),
		cmocka_unit_test(a_token_server_without_tls_is_refused_unless_plain_http_is_wanted),
		cmocka_unit_test(challenges_that_are_none_are_the_end),
		cmocka_unit_test(parameters_of_a_challenge_stand_in_any_order),
		cmocka_unit_test(ecr_gives_a_login_by_a_signed_call),
		cmocka_unit_test(google_gives_a_login_by_its_metadata_server),
		cmocka_unit_test(many_threads_share_a_token),
		cmocka_unit_test(a_token_may_last_for_ever),
		cmocka_unit_test(a_helper_that_hangs_silently_is_killed_with_the_call),
		cmocka_unit_test(a_call_that_ends_in_a_helper_is_canceled),
	};

	return RUN(tests);
}
