/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/http_server.h"

#include <pthread.h>
#include <unistd.h>

#include "lib/store/google.h"

#define scope_server WARM_SCOPE(close_server)
#define scope_google WARM_SCOPE(free_google)
#define TOKEN "/computeMetadata/v1/instance/service-accounts/default/token"

static void close_server(struct http_server **s)
{
	http_server_close(*s);
}

static void free_google(struct warm_google **g)
{
	warm_google_free(*g);
}

static struct warm_google *open_google(const char *host)
{
	struct warm_google *g = NULL;

	no_clouds();
	setenv("GCE_METADATA_HOST", host, 1);
	assert_int_equal(warm_google_open(&g, NULL), 0);
	return g;
}

/* The token, or the error's message. Static storage. */
static const char *token(struct warm_google *g)
{
	static char text[600];
	scope_free char *value = NULL;
	struct warm_error err = { 0 };

	if (warm_google_token(g, &value, NULL, &err) != 0)
		snprintf(text, sizeof(text), "%s: %s", warm_status_name(err.status), err.msg);
	else
		snprintf(text, sizeof(text), "%s", value);
	return text;
}

TEST(a_token_is_kept_until_it_is_said_to_be_bad)
{
	static const struct canned answers[] = {
		{ .status = 200,
		  .body = "{\"access_token\":\"t1\",\"expires_in\":3599,\"token_type\":"
			  "\"Bearer\"}" },
		{ .status = 200, .body = "{\"access_token\":\"t2\",\"expires_in\":3599}" },
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_google struct warm_google *g = open_google(http_server_host(s));

	assert_string_equal(token(g), "t1");
	assert_string_equal(token(g), "t1");
	assert_int_equal(http_server_count(s), 1);
	assert_request(s, 0, "GET " TOKEN);
	assert_header(s, 0, "metadata-flavor", "Google");
	warm_google_forget(g);
	assert_string_equal(token(g), "t2");
	assert_int_equal(http_server_count(s), 2);
}

TEST(a_token_is_renewed_before_it_expires)
{
	static const struct canned answers[] = {
		{ .status = 200, .body = "{\"access_token\":\"t1\",\"expires_in\":1}" },
		{ .status = 500 }, /* the one we have is good for a while */
		{ .status = 500 },
		{ .status = 200, .body = "{\"access_token\":\"t2\",\"expires_in\":3599}" },
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_google struct warm_google *g = open_google(http_server_host(s));

	assert_string_equal(token(g), "t1");
	usleep(550 * 1000);
	assert_string_equal(token(g), "t1");
	assert_int_equal(http_server_count(s), 2);
	warm_google_forget(g);
	assert_non_null(strstr(token(g), "transient: Google's metadata server"));
	assert_string_equal(token(g), "t2");
}

TEST(what_it_refuses_is_told)
{
	static const struct canned answers[] = {
		{ .status = 404 },
		{ .status = 403 },
		{ .status = 200, .body = "{}" },
		{ .status = 200, .body = "not found" },
		{ .status = 200, .body = "{\"access_token\":\"a\\r\\nX: b\"}" },
		{ .status = 302, .headers = "Location: http://127.0.0.1:1/\r\n" },
	};
	static const char *const want[] = {
		"denied: Google's metadata server: it answers 404: no service account is bound",
		"denied: Google's metadata server: it answers 403",
		"corrupt: Google's metadata server: it answers without a token",
		"corrupt: ",
		"corrupt: ",
		"denied: ",
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_google struct warm_google *g = open_google(http_server_host(s));

	for (size_t i = 0; i < COUNT(answers); i++)
		assert_memory_equal(token(g), want[i], strlen(want[i]));
	assert_int_equal(http_server_count(s), COUNT(answers));
}

struct late {
	int port;
	struct http_server *server;
};

static void give(void *arg, const struct http_request *request, struct http_reply *reply)
{
	(void)arg;
	(void)request;
	http_reply_text(reply, 200, "{\"access_token\":\"late\",\"expires_in\":3599}");
}

static void *open_late(void *arg)
{
	struct late *l = arg;

	usleep(500 * 1000);
	l->server = http_server_open_at(l->port, give, NULL);
	return NULL;
}

TEST(a_server_that_is_not_up_yet_is_waited_for)
{
	struct late l = { .port = closed_port() };
	char host[40];
	pthread_t thread;

	snprintf(host, sizeof(host), "127.0.0.1:%d", l.port);
	scope_google struct warm_google *g = open_google(host);
	assert_int_equal(pthread_create(&thread, NULL, open_late, &l), 0);
	assert_string_equal(token(g), "late");
	pthread_join(thread, NULL);
	http_server_close(l.server);
}

TEST(the_wait_for_it_ends_with_the_deadline)
{
	scope_google struct warm_google *g = open_google("127.0.0.1:1");
	int64_t start = warm_clock_ms();
	struct warm_call call = { .deadline_ms = start + 200 };
	char *value = NULL;

	assert_int_not_equal(warm_google_token(g, &value, &call, NULL), 0);
	assert_true(warm_clock_ms() - start < 500);
	assert_null(value);
}

TEST(a_token_may_last_for_ever)
{
	static const struct canned answers[] = {
		{ .status = 200,
		  .body = "{\"access_token\":\"t\",\"expires_in\":9223372036854775807}" },
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_google struct warm_google *g = open_google(http_server_host(s));

	assert_string_equal(token(g), "t");
	assert_string_equal(token(g), "t");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_token_is_kept_until_it_is_said_to_be_bad),
		cmocka_unit_test(a_token_is_renewed_before_it_expires),
		cmocka_unit_test(what_it_refuses_is_told),
		cmocka_unit_test(a_server_that_is_not_up_yet_is_waited_for),
		cmocka_unit_test(the_wait_for_it_ends_with_the_deadline),
		cmocka_unit_test(a_token_may_last_for_ever),
	};

	return RUN(tests);
}
