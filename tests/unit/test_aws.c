/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/http_server.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "lib/store/aws.h"

#define scope_server WARM_SCOPE(close_server)
#define scope_aws WARM_SCOPE(free_aws)

static void close_server(struct http_server **s)
{
	http_server_close(*s);
}

static void free_aws(struct warm_aws **a)
{
	warm_aws_free(*a);
}

static struct warm_aws *open_aws(const char *profile)
{
	struct warm_aws_options o = { .profile = profile };
	struct warm_aws *aws = NULL;

	assert_int_equal(warm_aws_open(&o, &aws, NULL), 0);
	return aws;
}

/* "source key secret token" of what is good now, or the error's message. Static storage. */
static const char *credentials(struct warm_aws *aws)
{
	static char text[900];
	scope_aws_credentials struct warm_aws_credentials c = { .token = NULL };
	struct warm_error err = { 0 };

	if (warm_aws_credentials(aws, &c, NULL, &err) != 0)
		snprintf(text, sizeof(text), "%s: %s", warm_status_name(err.status), err.msg);
	else
		snprintf(text, sizeof(text), "%s %s %s %s", c.source, c.key_id, c.secret,
			 c.token != NULL ? c.token : "-");
	return text;
}

static void put_shared(struct scratch *s, const char *credentials_text, const char *config_text)
{
	no_clouds();
	put_text(s->fd, "credentials", credentials_text);
	put_text(s->fd, "config", config_text);
	setenv("AWS_SHARED_CREDENTIALS_FILE", scratch_path(s, "credentials"), 1);
	setenv("AWS_CONFIG_FILE", scratch_path(s, "config"), 1);
}

static void put_keys(void)
{
	setenv("AWS_ACCESS_KEY_ID", "AKIDENV", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "envsecret", 1);
}

/* A time so many seconds from now, as AWS writes it. Static storage. */
static const char *in_seconds(int seconds)
{
	static char text[32];
	time_t t = time(NULL) + seconds;
	struct tm tm;

	gmtime_r(&t, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	return text;
}

/* STS, a container's endpoint and IMDS at once; counts what it gives out. */
struct cloud {
	int lifetime_s;
	int status; /* not 0: all is answered by it */
	int given;
	bool no_role;
};

static void answer(void *arg, const struct http_request *r, struct http_reply *reply)
{
	struct cloud *c = arg;
	char text[800];

	if (c->status != 0) {
		http_reply_text(reply, c->status,
				"<ErrorResponse><Error><Code>AccessDenied</Code>"
				"<Message>Not authorized</Message></Error></ErrorResponse>");
		return;
	}
	if (strcmp(r->target, "/latest/api/token") == 0) {
		http_reply_text(reply, 200, "IMDSTOKEN");
	} else if (strcmp(r->target, "/latest/meta-data/iam/security-credentials/") == 0) {
		http_reply_text(reply, c->no_role ? 404 : 200, "role-1\n");
	} else if (strcmp(r->method, "POST") == 0) {
		snprintf(text, sizeof(text),
			 "<AssumeRoleWithWebIdentityResponse "
			 "xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">"
			 "<AssumeRoleWithWebIdentityResult><Credentials>"
			 "<AccessKeyId>ASIA%d</AccessKeyId><SecretAccessKey>s%d</SecretAccessKey>"
			 "<SessionToken>t%d</SessionToken><Expiration>%s</Expiration>"
			 "</Credentials></AssumeRoleWithWebIdentityResult>"
			 "</AssumeRoleWithWebIdentityResponse>",
			 c->given, c->given, c->given, in_seconds(c->lifetime_s));
		c->given++;
		http_reply_text(reply, 200, text);
	} else {
		snprintf(text, sizeof(text),
			 "{\"Code\":\"Success\",\"AccessKeyId\":\"ASIA%d\",\"SecretAccessKey\":"
			 "\"s%d\",\"Token\":\"t%d\",\"Expiration\":\"%s\"}",
			 c->given, c->given, c->given, in_seconds(c->lifetime_s));
		c->given++;
		http_reply_text(reply, 200, text);
	}
}

static void put_web_identity(struct scratch *s, const struct http_server *server)
{
	no_clouds();
	put_text(s->fd, "token", "jwt+/=1\n");
	setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/r", 1);
	setenv("AWS_WEB_IDENTITY_TOKEN_FILE", scratch_path(s, "token"), 1);
	setenv("AWS_ENDPOINT_URL_STS", http_server_url(server), 1);
}

static void put_container(const struct http_server *server)
{
	char url[100];

	no_clouds();
	snprintf(url, sizeof(url), "%s/v1/credentials", http_server_url(server));
	setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url, 1);
	setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container-token", 1);
}

/* ---- where they come from ---- */

TEST(the_environment_comes_first)
{
	struct scratch s = scratch_open();
	put_shared(&s, "[default]\naws_access_key_id=F\naws_secret_access_key=f\n", "");
	put_keys();
	scope_aws struct warm_aws *aws = open_aws(NULL);

	assert_string_equal(credentials(aws), "environment AKIDENV envsecret -");
	setenv("AWS_SESSION_TOKEN", "tok", 1);
	warm_aws_forget(aws);
	assert_string_equal(credentials(aws), "environment AKIDENV envsecret tok");
	unsetenv("AWS_SECRET_ACCESS_KEY"); /* a key without a secret is none */
	warm_aws_forget(aws);
	assert_string_equal(credentials(aws), "shared files F f -");
	scratch_close(&s);
}

TEST(a_profile_of_the_url_comes_before_the_environment)
{
	struct scratch s = scratch_open();
	put_shared(&s, "[p]\naws_access_key_id=F\naws_secret_access_key=f\n", "");
	put_keys();
	scope_aws struct warm_aws *aws = open_aws("p");

	assert_string_equal(credentials(aws), "shared files F f -");
	scratch_close(&s);
}

TEST(a_profile_is_read_from_both_files)
{
	struct scratch s = scratch_open();
	put_shared(&s,
		   "# comment\n; another\n[other]\naws_access_key_id=WRONG\n\n"
		   "[ p ]\r\naws_access_key_id = F\r\n  nested = x\naws_session_token=\n",
		   "[p]\naws_secret_access_key=WRONG\n[profile p]\naws_access_key_id=LATER\n"
		   "aws_secret_access_key=f=f\nregion=eu-1\ns3 =\n  endpoint_url = http://nested\n"
		   "endpoint_url=http://127.0.0.1:1\n[default]\nregion=WRONG\n");
	setenv("AWS_PROFILE", "p", 1);
	scope_aws struct warm_aws *aws = open_aws(NULL);

	assert_string_equal(credentials(aws), "shared files F f=f -");
	assert_string_equal(warm_aws_setting(aws, "endpoint_url"), "http://127.0.0.1:1");
	assert_null(warm_aws_setting(aws, "aws_session_token"));
	assert_string_equal(warm_aws_region(aws), "eu-1");
	setenv("AWS_DEFAULT_REGION", "eu-2", 1);
	assert_string_equal(warm_aws_region(aws), "eu-2");
	setenv("AWS_REGION", "eu-3", 1);
	assert_string_equal(warm_aws_region(aws), "eu-3");
	scratch_close(&s);
}

TEST(the_shared_files_are_below_the_home_directory)
{
	struct scratch s = scratch_open();

	no_clouds();
	put_text(s.fd, ".aws/credentials",
		 "[default]\naws_access_key_id=F\naws_secret_access_key=f\naws_session_token=t\n");
	put_text(s.fd, ".aws/config", "[default]\nregion=eu-1\n");
	setenv("HOME", s.path, 1);
	scope_aws struct warm_aws *aws = open_aws(NULL);
	assert_string_equal(credentials(aws), "shared files F f t");
	assert_string_equal(warm_aws_region(aws), "eu-1");
	scratch_close(&s);
}

TEST(a_profile_that_can_not_be_used_is_an_error)
{
	static const struct {
		const char *config, *reason;
	} rows[] = {
		{ "[profile p]\nrole_arn=arn:x\nsource_profile=default\n",
		  "only keys, and role_arn" },
		{ "[profile p]\ncredential_process=/bin/x\n", "only keys, and role_arn" },
		{ "[profile p]\nsso_session=x\n", "only keys, and role_arn" },
		{ "[profile p]\nsso_start_url=x\n", "only keys, and role_arn" },
		{ "[profile q]\nregion=x\n", "profile p: not in the shared files" },
		{ "[profile p]\nrole_arn=a\nweb_identity_token_file=/nonexistent/t\n",
		  "denied: credentials: token file /nonexistent/t" },
	};
	struct scratch s = scratch_open();

	for (size_t i = 0; i < COUNT(rows); i++) {
		put_shared(&s, "", rows[i].config);
		scope_aws struct warm_aws *aws = open_aws("p");
		assert_non_null(strstr(credentials(aws), rows[i].reason));
	}
	/* One with other settings alone is no reason to stop looking. */
	put_shared(&s, "", "[profile p]\nregion=x\n");
	scope_aws struct warm_aws *aws = open_aws("p");
	assert_string_equal(credentials(aws), "none   -");
	scratch_close(&s);
}

TEST(without_any_there_are_empty_ones_and_nothing_is_signed)
{
	no_clouds();
	scope_aws struct warm_aws *aws = open_aws(NULL);
	struct warm_http_request r = { .method = "GET" };
	char who[24];

	assert_string_equal(credentials(aws), "none   -");
	warm_http_request_url(&r, "https://b.s3.amazonaws.com/x");
	assert_int_equal(
		warm_aws_sign(aws, &r, "us-east-1", "s3", "UNSIGNED-PAYLOAD", 0, who, NULL, NULL),
		0);
	assert_string_equal(who, "nobody");
	for (size_t i = 0; i < r.n_headers; i++)
		assert_true(strncasecmp(r.headers[i], "authorization", 13) != 0);
	for (size_t i = 0; i < r.n_headers; i++)
		free(r.headers[i]);
	free(r.url);
}

TEST(who_wants_to_be_anonymous_is)
{
	struct warm_aws_options o = { .anonymous = true };
	struct warm_aws *aws = NULL;

	no_clouds();
	put_keys();
	assert_int_equal(warm_aws_open(&o, &aws, NULL), 0);
	assert_string_equal(credentials(aws), "none   -");
	warm_aws_free(aws);
}

/* ---- services ---- */

TEST(a_web_identity_is_given_to_sts_and_read_again_at_each_renewal)
{
	struct scratch s = scratch_open();
	struct cloud c = { .lifetime_s = 3600 };
	scope_server struct http_server *server = http_server_open(answer, &c);
	put_web_identity(&s, server);
	scope_aws struct warm_aws *aws = open_aws(NULL);

	assert_string_equal(credentials(aws), "web identity ASIA0 s0 t0");
	assert_string_equal(credentials(aws), "web identity ASIA0 s0 t0");
	assert_int_equal(http_server_count(server), 1);
	assert_request(server, 0, "POST /");
	assert_header(server, 0, "content-type", "application/x-www-form-urlencoded");
	assert_header(server, 0, "authorization", NULL);
	assert_string_equal((char *)http_server_request(server, 0)->body.data,
			    "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&"
			    "RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr&RoleSessionName=warmcache&"
			    "WebIdentityToken=jwt%2B%2F%3D1");
	put_text(s.fd, "token", "jwt2");
	setenv("AWS_ROLE_SESSION_NAME", "me", 1);
	warm_aws_forget(aws);
	assert_string_equal(credentials(aws), "web identity ASIA1 s1 t1");
	const char *body = (char *)http_server_request(server, 1)->body.data;
	assert_non_null(strstr(body, "RoleSessionName=me&WebIdentityToken=jwt2"));
	scratch_close(&s);
}

TEST(a_profile_may_name_a_web_identity)
{
	struct scratch s = scratch_open();
	struct cloud c = { .lifetime_s = 3600 };
	scope_server struct http_server *server = http_server_open(answer, &c);
	char config[500];

	put_text(s.fd, "token", "jwt");
	snprintf(config, sizeof(config),
		 "[default]\nrole_arn=arn:r\nrole_session_name=n\nweb_identity_token_file=%s\n",
		 scratch_path(&s, "token"));
	put_shared(&s, "", config);
	setenv("AWS_ENDPOINT_URL", http_server_url(server), 1);
	scope_aws struct warm_aws *aws = open_aws(NULL);
	assert_string_equal(credentials(aws), "web identity ASIA0 s0 t0");
	scratch_close(&s);
}

TEST(what_sts_refuses_is_told_without_the_token)
{
	struct scratch s = scratch_open();
	struct cloud c = { .status = 403 };
	scope_server struct http_server *server = http_server_open(answer, &c);
	put_web_identity(&s, server);
	scope_aws struct warm_aws *aws = open_aws(NULL);
	const char *said = credentials(aws);

	assert_non_null(strstr(said, "denied: "));
	assert_non_null(strstr(said, "AssumeRoleWithWebIdentity answers 403 AccessDenied"));
	assert_non_null(strstr(said, "Not authorized"));
	assert_null(strstr(said, "jwt"));
	unlinkat(s.fd, "token", 0);
	said = credentials(aws);
	assert_non_null(strstr(said, "denied: "));
	assert_non_null(strstr(said, "token file"));
	scratch_close(&s);
}

TEST(a_container_is_asked_with_its_token)
{
	struct scratch s = scratch_open();
	struct cloud c = { .lifetime_s = 3600 };
	scope_server struct http_server *server = http_server_open(answer, &c);
	put_container(server);
	scope_aws struct warm_aws *aws = open_aws(NULL);

	assert_string_equal(credentials(aws), "container endpoint ASIA0 s0 t0");
	assert_request(server, 0, "GET /v1/credentials");
	assert_header(server, 0, "authorization", "container-token");
	/* The file counts before the variable, and is read again. */
	put_text(s.fd, "token", "of-file\n");
	setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", scratch_path(&s, "token"), 1);
	warm_aws_forget(aws);
	assert_string_equal(credentials(aws), "container endpoint ASIA1 s1 t1");
	assert_header(server, 1, "authorization", "of-file");
	put_text(s.fd, "token", "two\nlines");
	warm_aws_forget(aws);
	assert_non_null(strstr(credentials(aws), "several lines"));
	assert_int_equal(http_server_count(server), 2);
	scratch_close(&s);
}

TEST(a_containers_token_goes_to_no_other_host)
{
	static const char *const urls[] = { "http://example.com/c",	   "http://127.evil.test/",
					    "http://127.0.0.1.evil.test/", "http://localhost.evil/",
					    "http://169.254.170.20/",	   "ftp://127.0.0.1/",
					    "http://169.254.169.254/",	   "/relative" };

	no_clouds();
	for (size_t i = 0; i < COUNT(urls); i++) {
		setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", urls[i], 1);
		setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "secret", 1);
		scope_aws struct warm_aws *aws = open_aws(NULL);
		const char *said = credentials(aws);
		assert_non_null(strstr(said, "neither TLS nor"));
		assert_non_null(strstr(said, "denied: "));
	}
}

TEST(an_answer_without_credentials_is_corrupt)
{
	static const struct canned answers[] = { { .status = 200, .body = "{}" },
						 { .status = 200, .body = "no json" },
						 { .status = 200 } };
	scope_server struct http_server *server = CANNED(answers);
	put_container(server);
	scope_aws struct warm_aws *aws = open_aws(NULL);

	for (size_t i = 0; i < COUNT(answers); i++)
		assert_non_null(strstr(credentials(aws), "corrupt: "));
}

TEST(an_instance_is_asked_by_version_two)
{
	struct cloud c = { .lifetime_s = 3600 };
	scope_server struct http_server *server = http_server_open(answer, &c);

	no_clouds();
	setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", http_server_url(server), 1);
	unsetenv("AWS_EC2_METADATA_DISABLED");
	scope_aws struct warm_aws *aws = open_aws(NULL);
	assert_string_equal(credentials(aws), "instance metadata service ASIA0 s0 t0");
	assert_int_equal(http_server_count(server), 3);
	assert_request(server, 0, "PUT /latest/api/token");
	assert_header(server, 0, "x-aws-ec2-metadata-token-ttl-seconds", "21600");
	assert_request(server, 1, "GET /latest/meta-data/iam/security-credentials/");
	assert_header(server, 1, "x-aws-ec2-metadata-token", "IMDSTOKEN");
	assert_request(server, 2, "GET /latest/meta-data/iam/security-credentials/role-1");
	assert_header(server, 2, "x-aws-ec2-metadata-token", "IMDSTOKEN");
	setenv("AWS_EC2_METADATA_DISABLED", "TRUE", 1);
	warm_aws_forget(aws);
	assert_string_equal(credentials(aws), "none   -");
	assert_int_equal(http_server_count(server), 3);
	no_clouds();
}

TEST(a_machine_that_is_no_instance_has_no_credentials)
{
	static const struct canned hanging[] = { { .status = 200, .length = 5, .hang = true } };
	struct cloud c = { .no_role = true };
	scope_server struct http_server *server = http_server_open(answer, &c);
	scope_server struct http_server *slow = CANNED(hanging);

	no_clouds();
	unsetenv("AWS_EC2_METADATA_DISABLED");
	setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", http_server_url(server), 1);
	scope_aws struct warm_aws *aws = open_aws(NULL);
	assert_string_equal(credentials(aws), "none   -"); /* without a role */
	warm_aws_forget(aws);
	setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1", 1);
	assert_string_equal(credentials(aws), "none   -");
	warm_aws_forget(aws);
	setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", http_server_url(slow), 1);
	int64_t start = warm_clock_ms();
	assert_string_equal(credentials(aws), "none   -");
	assert_in_range(warm_clock_ms() - start, 900, 1500);
	no_clouds();
}

/* ---- over time ---- */

TEST(what_expires_is_renewed_before)
{
	struct cloud c = { .lifetime_s = 4 }; /* told in whole seconds; so at half of it */
	scope_server struct http_server *server = http_server_open(answer, &c);
	put_container(server);
	scope_aws struct warm_aws *aws = open_aws(NULL);

	assert_string_equal(credentials(aws), "container endpoint ASIA0 s0 t0");
	c.status = 500; /* what is there is good until it expires */
	usleep(2100 * 1000);
	assert_string_equal(credentials(aws), "container endpoint ASIA0 s0 t0");
	assert_int_equal(http_server_count(server), 2);
	assert_string_equal(credentials(aws), "container endpoint ASIA0 s0 t0");
	assert_int_equal(http_server_count(server), 2); /* and not asked again at once */
	warm_aws_forget(aws);				/* a server says that they are bad */
	assert_non_null(strstr(credentials(aws), "transient: "));
	c.status = 0;
	assert_string_equal(credentials(aws), "container endpoint ASIA1 s1 t1");
}

/* Our clock may be wrong, or the server late: whom they are for says whether they are good. */
TEST(what_looks_expired_is_used_and_asked_for_again_later)
{
	struct cloud c = { .lifetime_s = -10 };
	scope_server struct http_server *server = http_server_open(answer, &c);
	put_container(server);
	scope_aws struct warm_aws *aws = open_aws(NULL);

	assert_string_equal(credentials(aws), "container endpoint ASIA0 s0 t0");
	assert_string_equal(credentials(aws), "container endpoint ASIA0 s0 t0");
	assert_int_equal(http_server_count(server), 1);
	warm_aws_forget(aws);
	assert_string_equal(credentials(aws), "container endpoint ASIA1 s1 t1");
}

/* A hiccup of the instance's metadata service must not make anybody of somebody. */
TEST(a_renewal_that_finds_nobody_keeps_what_is_good)
{
	struct cloud c = { .lifetime_s = 5 };
	scope_server struct http_server *server = http_server_open(answer, &c);

	no_clouds();
	unsetenv("AWS_EC2_METADATA_DISABLED");
	setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", http_server_url(server), 1);
	scope_aws struct warm_aws *aws = open_aws(NULL);
	const char *first = strdup(credentials(aws));
	assert_null(strstr(first, "none"));
	setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1", 1);
	usleep(2600 * 1000);
	assert_string_equal(credentials(aws), first);
	free((char *)(uintptr_t)first);
	no_clouds();
}

TEST(another_users_home_directory_is_passed_over)
{
	struct scratch s = scratch_open();
	struct cloud c = { .lifetime_s = 700 };
	scope_server struct http_server *server = http_server_open(answer, &c);

	put_container(server);
	put_text(s.fd, ".aws", "a file where a directory should be: as closed as another's");
	setenv("HOME", s.path, 1);
	scope_aws struct warm_aws *aws = open_aws(NULL);
	assert_string_equal(credentials(aws), "container endpoint ASIA0 s0 t0");
	no_clouds();
	scratch_close(&s);
}

TEST(what_is_good_for_long_is_not_asked_for_again)
{
	struct cloud c = { .lifetime_s = 700 }; /* renewed five minutes before */
	scope_server struct http_server *server = http_server_open(answer, &c);
	put_container(server);
	scope_aws struct warm_aws *aws = open_aws(NULL);

	for (int i = 0; i < 5; i++)
		assert_string_equal(credentials(aws), "container endpoint ASIA0 s0 t0");
	assert_int_equal(http_server_count(server), 1);
}

static void *ask_often(void *arg)
{
	for (int i = 0; i < 20; i++) {
		scope_aws_credentials struct warm_aws_credentials c = { .token = NULL };
		if (warm_aws_credentials(arg, &c, NULL, NULL) != 0 || c.token == NULL)
			return arg;
	}
	return NULL;
}

TEST(of_many_threads_one_asks)
{
	struct cloud c = { .lifetime_s = 3600 };
	scope_server struct http_server *server = http_server_open(answer, &c);
	put_container(server);
	scope_aws struct warm_aws *aws = open_aws(NULL);
	pthread_t threads[8];
	void *failed = NULL;

	for (size_t i = 0; i < COUNT(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, ask_often, aws), 0);
	for (size_t i = 0; i < COUNT(threads); i++) {
		pthread_join(threads[i], &failed);
		assert_null(failed);
	}
	assert_int_equal(http_server_count(server), 1);
}

/* ---- signing ---- */

TEST(a_signed_request_carries_host_date_token_and_signature)
{
	static const char *const names[] = {
		"x-amz-content-sha256: P", "X-Amz-Date: ", "X-Amz-Security-Token: tok",
		"Host: h:9000", "Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"
	};
	struct warm_http_request r = { .method = "GET" };
	char who[24] = "";

	no_clouds();
	setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "hunter2", 1);
	setenv("AWS_SESSION_TOKEN", "tok", 1);
	scope_aws struct warm_aws *aws = open_aws(NULL);
	warm_http_request_url(&r, "http://h:9000/b/k?list-type=2");
	assert_int_equal(warm_aws_sign(aws, &r, "eu-1", "s3", "P", 3600 * 1000, who, NULL, NULL),
			 0);
	assert_string_equal(who, "key ...MPLE");
	assert_int_equal(r.n_headers, COUNT(names));
	for (size_t i = 0; i < r.n_headers; i++) {
		assert_memory_equal(r.headers[i], names[i], strlen(names[i]));
		assert_null(strstr(r.headers[i], "hunter2"));
	}
	assert_non_null(strstr(r.headers[4], "/eu-1/s3/aws4_request, SignedHeaders=host;"
					     "x-amz-content-sha256;x-amz-date;"
					     "x-amz-security-token, Signature="));
	/* By the server's clock, an hour ahead of ours. */
	struct tm tm = { 0 };
	assert_non_null(strptime(r.headers[1], "X-Amz-Date: %Y%m%dT%H%M%SZ", &tm));
	assert_in_range(timegm(&tm) - time(NULL), 3590, 3600);
	for (size_t i = 0; i < r.n_headers; i++)
		free(r.headers[i]);
	free(r.url);
}

TEST(a_key_that_is_too_long_is_an_error_without_it)
{
	char secret[200];

	no_clouds();
	memset(secret, 'q', sizeof(secret));
	secret[sizeof(secret) - 1] = '\0';
	setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE", 1);
	setenv("AWS_SECRET_ACCESS_KEY", secret, 1);
	scope_aws struct warm_aws *aws = open_aws(NULL);
	assert_non_null(strstr(credentials(aws), "too long"));
	assert_null(strstr(credentials(aws), "qqq"));
}

TEST(a_containers_host_is_not_what_stands_before_an_at)
{
	struct cloud c = { .lifetime_s = 3600 };
	scope_server struct http_server *server = http_server_open(answer, &c);
	static const char *const users[] = { "127.0.0.9:x@", "localhost:x@", "169.254.170.2:x@" };
	char url[100];

	no_clouds();
	for (size_t i = 0; i < COUNT(users); i++) {
		snprintf(url, sizeof(url), "http://%s%s/c", users[i], http_server_host(server));
		setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url, 1);
		setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "secret", 1);
		scope_aws struct warm_aws *aws = open_aws(NULL);
		assert_non_null(strstr(credentials(aws), "neither TLS nor"));
	}
	assert_int_equal(http_server_count(server), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_environment_comes_first),
		cmocka_unit_test(a_profile_of_the_url_comes_before_the_environment),
		cmocka_unit_test(a_profile_is_read_from_both_files),
		cmocka_unit_test(the_shared_files_are_below_the_home_directory),
		cmocka_unit_test(a_profile_that_can_not_be_used_is_an_error),
		cmocka_unit_test(without_any_there_are_empty_ones_and_nothing_is_signed),
		cmocka_unit_test(who_wants_to_be_anonymous_is),
		cmocka_unit_test(a_web_identity_is_given_to_sts_and_read_again_at_each_renewal),
		cmocka_unit_test(a_profile_may_name_a_web_identity),
		cmocka_unit_test(what_sts_refuses_is_told_without_the_token),
		cmocka_unit_test(a_container_is_asked_with_its_token),
		cmocka_unit_test(a_containers_token_goes_to_no_other_host),
		cmocka_unit_test(an_answer_without_credentials_is_corrupt),
		cmocka_unit_test(an_instance_is_asked_by_version_two),
		cmocka_unit_test(a_machine_that_is_no_instance_has_no_credentials),
		cmocka_unit_test(what_expires_is_renewed_before),
		cmocka_unit_test(what_looks_expired_is_used_and_asked_for_again_later),
		cmocka_unit_test(a_renewal_that_finds_nobody_keeps_what_is_good),
		cmocka_unit_test(another_users_home_directory_is_passed_over),
		cmocka_unit_test(what_is_good_for_long_is_not_asked_for_again),
		cmocka_unit_test(of_many_threads_one_asks),
		cmocka_unit_test(a_signed_request_carries_host_date_token_and_signature),
		cmocka_unit_test(a_key_that_is_too_long_is_an_error_without_it),
		cmocka_unit_test(a_containers_host_is_not_what_stands_before_an_at),
	};

	return RUN(tests);
}
