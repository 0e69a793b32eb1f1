/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/http_server.h"

#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "lib/base/clock.h"
#include "lib/sync/ready.h"

#define scope_server WARM_SCOPE(close_server)

static void close_server(struct http_server **s)
{
	http_server_close(*s);
}

/* They live as long as the process; so does whoever never gets ready. */
static struct warm_ready *kept[40];
static int told_fds[40];
static size_t n_kept;

/* Begin to ask; the number of it. */
static size_t begin(const char *url, const char *pattern)
{
	struct warm_error err = { 0 };
	size_t i = n_kept++;

	assert_true(i < COUNT(kept));
	told_fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	assert_true(told_fds[i] >= 0);
	if (warm_ready_start(strdup(url), pattern, told_fds[i], &kept[i], &err) != 0)
		fail_msg("%s", err.msg);
	return i;
}

static bool told(size_t i, int within_ms)
{
	struct pollfd p = { .fd = told_fds[i], .events = POLLIN };

	return poll(&p, 1, within_ms) == 1;
}

/* Until the last answer is this one, for 20 s at most. */
static void wait_for_last(size_t i, const char *want)
{
	for (int64_t end = warm_clock_ms() + 20000; warm_clock_ms() < end; usleep(20000))
		if (strstr(warm_ready_last(kept[i]), want) != NULL)
			return;
	fail_msg("'%s', not '%s'", warm_ready_last(kept[i]), want);
}

enum { SOON = 20000, NOT_YET = 1500 };

static struct http_server *answering(const struct canned *answers, size_t n)
{
	return http_server_canned(answers, n);
}

TEST(any_answer_of_2xx_is_ready)
{
	static const int codes[] = { 200, 201, 204, 299 };

	no_clouds();
	for (size_t i = 0; i < COUNT(codes); i++) {
		const struct canned answer = { .status = codes[i],
					       .body = codes[i] == 204 ? NULL : "x" };
		scope_server struct http_server *s = answering(&answer, 1);
		char url[100];
		snprintf(url, sizeof(url), "%s/health-check?a=b", http_server_url(s));
		size_t r = begin(url, i % 2 == 0 ? NULL : "");
		assert_true(told(r, SOON));
		assert_int_equal(http_server_count(s), 1);
		assert_request(s, 0, "GET /health-check?a=b");
		/* And is asked no more. */
		uint64_t n = 0;
		assert_int_equal(read(told_fds[r], &n, sizeof(n)), sizeof(n));
		assert_int_equal(n, 1);
		assert_false(told(r, i == 0 ? NOT_YET : 0));
		assert_int_equal(http_server_count(s), 1);
	}
}

TEST(a_model_that_is_starting_is_asked_again)
{
	static const struct canned answers[] = {
		{ .status = 503, .body = "starting" },
		{ .status = 500 },
		{ .status = 200, .body = "{\"status\": \"READY\"}" },
	};
	scope_server struct http_server *s = CANNED(answers);
	int64_t start = warm_clock_ms();
	size_t r = begin(http_server_url(s), NULL);

	assert_true(told(r, SOON));
	assert_int_equal(http_server_count(s), 3);
	assert_true(warm_clock_ms() - start >= 1900); /* every second */
}

TEST(a_body_has_to_match)
{
	static const struct canned answers[] = {
		{ .status = 200, .body = "{\"status\": \"STARTING\"}" },
		{ .status = 503, .body = "{\"status\": \"READY\"}" }, /* matches, but no 2xx */
		{ .status = 200, .body = "{\n \"x\": 1,\n \"status\":   \"READY\"\n}" },
	};
	scope_server struct http_server *s = CANNED(answers);
	size_t r = begin(http_server_url(s), "\"status\": *\"READY\"");

	assert_true(told(r, SOON));
	assert_int_equal(http_server_count(s), 3);
}

static void answer_code(void *arg, const struct http_request *request, struct http_reply *reply)
{
	(void)request;
	http_reply_text(reply, *(const int *)arg, "x");
	if (*(const int *)arg == 301)
		http_reply_header(reply, "Location: /elsewhere");
}

TEST(redirects_and_refusals_are_not_ready)
{
	static int codes[] = { 301, 304, 401, 404, 500, 503 };

	for (size_t i = 0; i < COUNT(codes); i++) {
		scope_server struct http_server *s = http_server_open(answer_code, &codes[i]);
		size_t r = begin(http_server_url(s), NULL);
		char want[20];
		snprintf(want, sizeof(want), "HTTP %d", codes[i]);
		wait_for_last(r, want);
		assert_false(told(r, 0));
		assert_request(s, 0, "GET /");
	}
}

static void always_ok(void *arg, const struct http_request *request, struct http_reply *reply)
{
	(void)arg;
	(void)request;
	http_reply_text(reply, 200, "ok");
}

TEST(a_port_where_nobody_listens_yet_is_asked_until_somebody_does)
{
	int port = closed_port();
	char url[60];

	snprintf(url, sizeof(url), "http://127.0.0.1:%d/", port);
	size_t r = begin(url, NULL);
	for (int64_t end = warm_clock_ms() + 5000;
	     warm_clock_ms() < end && strcmp(warm_ready_last(kept[r]), "not asked yet") == 0;)
		usleep(20000);
	assert_string_not_equal(warm_ready_last(kept[r]), "not asked yet");
	assert_false(told(r, NOT_YET));
	struct http_server *s = http_server_open_at(port, always_ok, NULL);
	assert_true(told(r, SOON));
	http_server_close(s);
}

TEST(a_server_that_hangs_is_given_up_and_asked_again)
{
	static const struct canned answers[] = {
		{ .status = 200, .body = "half", .length = 100, .hang = true },
		{ .status = 200, .body = "whole" },
	};
	scope_server struct http_server *s = CANNED(answers);
	size_t r = begin(http_server_url(s), NULL);

	assert_false(told(r, NOT_YET));
	assert_true(told(r, SOON));
	assert_int_equal(http_server_count(s), 2);
}

TEST(a_body_that_is_cut_short_is_no_answer)
{
	static const struct canned answers[] = {
		{ .status = 200, .body = "READY and so on", .cut = 5 },
		{ .status = 200, .body = "READY" },
	};
	scope_server struct http_server *s = CANNED(answers);
	size_t r = begin(http_server_url(s), "READY");

	assert_true(told(r, SOON));
	assert_int_equal(http_server_count(s), 2);
}

/* ---- a server that talks for ever ---- */

struct chatter {
	int listener, port;
	const char *begins; /* the body */
	pthread_t thread;
	atomic_bool ends;
};

static void *chat(void *arg)
{
	struct chatter *c = arg;
	char text[8192];

	while (!atomic_load(&c->ends)) {
		struct pollfd p = { .fd = c->listener, .events = POLLIN };
		if (poll(&p, 1, 100) != 1)
			continue;
		scope_close int fd = accept(c->listener, NULL, NULL);
		if (fd < 0 || read(fd, text, sizeof(text)) <= 0)
			continue;
		int n = snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\n\r\n%s", c->begins);
		if (send(fd, text, (size_t)n, MSG_NOSIGNAL) < 0)
			continue;
		memset(text, '.', sizeof(text));
		while (!atomic_load(&c->ends) && send(fd, text, sizeof(text), MSG_NOSIGNAL) > 0)
			continue;
	}
	return NULL;
}

static void start_chatter(struct chatter *c, const char *begins)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(a);

	c->begins = begins;
	atomic_store(&c->ends, false);
	c->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(c->listener, (struct sockaddr *)&a, n), 0);
	assert_int_equal(listen(c->listener, 8), 0);
	assert_int_equal(getsockname(c->listener, (struct sockaddr *)&a, &n), 0);
	c->port = ntohs(a.sin_port);
	assert_int_equal(pthread_create(&c->thread, NULL, chat, c), 0);
}

static void stop_chatter(struct chatter *c)
{
	atomic_store(&c->ends, true);
	pthread_join(c->thread, NULL);
	close(c->listener);
}

TEST(of_an_endless_body_the_beginning_counts)
{
	struct chatter c;
	char url[60];

	start_chatter(&c, "READY");
	snprintf(url, sizeof(url), "http://127.0.0.1:%d/", c.port);
	assert_true(told(begin(url, NULL), SOON));
	assert_true(told(begin(url, "^READY"), SOON));
	size_t r = begin(url, "STEADY");
	wait_for_last(r, "a body that doesn't match");
	assert_false(told(r, NOT_YET));
	stop_chatter(&c);
}

TEST(a_long_body_is_looked_at_as_far_as_64_KiB)
{
	static char within[200000], beyond[200000];
	static const struct canned first[] = { { .status = 200, .body = within } };
	static const struct canned second[] = { { .status = 200, .body = beyond } };

	memset(within, '.', sizeof(within) - 1);
	memcpy(within + 65000, "READY", 5);
	memset(beyond, '.', sizeof(beyond) - 1);
	memcpy(beyond + 66000, "READY", 5);
	scope_server struct http_server *s = CANNED(first);
	assert_true(told(begin(http_server_url(s), "READY"), SOON));
	assert_int_equal(http_server_count(s), 1);
	scope_server struct http_server *other = CANNED(second);
	size_t r = begin(http_server_url(other), "READY");
	wait_for_last(r, "HTTP ");
	assert_false(told(r, NOT_YET));
}

TEST(one_of_https_needs_no_certificate_that_we_know)
{
	scope_scratch struct scratch s = scratch_open();
	struct http_server *server = http_server_open_tls(scratch_path(&s, "ca.pem"), always_ok,
							  NULL);

	assert_true(told(begin(http_server_url(server), "ok"), SOON));
	http_server_close(server);
}

TEST(no_proxy_is_asked)
{
	static const struct canned answers[] = { { .status = 200 } };
	scope_server struct http_server *s = CANNED(answers);

	setenv("http_proxy", "http://127.0.0.1:1/", 1);
	setenv("ALL_PROXY", "http://127.0.0.1:1/", 1);
	bool ready = told(begin(http_server_url(s), NULL), SOON);
	unsetenv("http_proxy");
	unsetenv("ALL_PROXY");
	assert_true(ready);
}

/* ---- options that can't be used ---- */

TEST(what_is_no_url_of_http_is_invalid)
{
	static const char *const urls[] = {
		"",
		"http://",
		"https://",
		"ftp://127.0.0.1/",
		"127.0.0.1:5000",
		"file:///etc/passwd",
		"http://a b/",
		"http://[::1/",
		"http://h:99999/",
		"HTTP:/x",
		"unix:///x",
	};

	for (size_t i = 0; i < COUNT(urls); i++) {
		struct warm_ready *r = NULL;
		struct warm_error err = { 0 };
		int rc = warm_ready_start(urls[i], NULL, -1, &r, &err);
		if (rc != WARM_INVALID)
			fail_msg("'%s': %d", urls[i], rc);
		assert_null(r);
		assert_non_null(strstr(err.msg, "--ready-url"));
	}
}

TEST(what_is_no_pattern_is_invalid)
{
	static const char *const patterns[] = { "(", "[a", "a{2", "*(", "\\" };

	for (size_t i = 0; i < COUNT(patterns); i++) {
		struct warm_ready *r = NULL;
		struct warm_error err = { 0 };
		int rc = warm_ready_start("http://127.0.0.1:1/", patterns[i], -1, &r, &err);
		if (rc != WARM_INVALID)
			fail_msg("'%s': %d", patterns[i], rc);
		assert_null(r);
		assert_non_null(strstr(err.msg, "--ready-match"));
		assert_non_null(strstr(err.msg, patterns[i]));
	}
	assert_int_equal(warm_ready_start("http://127.0.0.1:1/", "(", -1, &kept[0], NULL),
			 WARM_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_answer_of_2xx_is_ready),
		cmocka_unit_test(a_model_that_is_starting_is_asked_again),
		cmocka_unit_test(a_body_has_to_match),
		cmocka_unit_test(redirects_and_refusals_are_not_ready),
		cmocka_unit_test(a_port_where_nobody_listens_yet_is_asked_until_somebody_does),
		cmocka_unit_test(a_server_that_hangs_is_given_up_and_asked_again),
		cmocka_unit_test(a_body_that_is_cut_short_is_no_answer),
		cmocka_unit_test(of_an_endless_body_the_beginning_counts),
		cmocka_unit_test(a_long_body_is_looked_at_as_far_as_64_KiB),
		cmocka_unit_test(one_of_https_needs_no_certificate_that_we_know),
		cmocka_unit_test(no_proxy_is_asked),
		cmocka_unit_test(what_is_no_url_of_http_is_invalid),
		cmocka_unit_test(what_is_no_pattern_is_invalid),
	};

	return RUN(tests);
}
