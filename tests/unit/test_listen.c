/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/http_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#include "lib/base/clock.h"
#include "sidecar/listen.h"

/* The monotonic clock of our own objects, which a test sets ahead. */
static _Atomic int64_t ahead_s;

int clock_gettime(clockid_t id, struct timespec *ret)
{
	int rc = (int)syscall(SYS_clock_gettime, id, ret);

	if (rc == 0 && id == CLOCK_MONOTONIC)
		ret->tv_sec += ahead_s;
	return rc;
}

struct house {
	struct warm_listener *l;
	int port;
	struct warm_metrics m;
};

static struct house *open_house(void)
{
	struct house *h = calloc(1, sizeof(*h));
	struct warm_error err = { 0 };
	char address[40];

	assert_non_null(h);
	h->port = closed_port();
	h->m.key = key_of("llama", "v7");
	h->m.state = WARM_SIDECAR_RUNNING;
	snprintf(address, sizeof(address), "127.0.0.1:%d", h->port);
	if (warm_listener_open(address, &h->l, &err) != 0)
		fail_msg("%s", err.msg);
	warm_listener_update(h->l, &h->m);
	return h;
}

static void close_house(struct house *h)
{
	warm_listener_close(h->l);
	free(h);
	ahead_s = 0;
}

static int connect_to(int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons((uint16_t)port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) != 0) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	return fd;
}

/* All that comes until the other side closes, or 20 s have passed. */
static size_t receive(int fd, char *ret, size_t bytes)
{
	size_t n = 0;
	struct pollfd p = { .fd = fd, .events = POLLIN };

	while (n + 1 < bytes && poll(&p, 1, 20000) == 1) {
		ssize_t got = read(fd, ret + n, bytes - n - 1);
		if (got <= 0)
			break;
		n += (size_t)got;
	}
	ret[n] = '\0';
	return n;
}

/* Send it as it is; the answer in `ret`. The status, 0 when there is none. */
static int talk(int port, const char *request, char *ret, size_t bytes)
{
	int code = 0;
	scope_close int fd = connect_to(port);

	ret[0] = '\0';
	if (fd < 0 || send(fd, request, strlen(request), MSG_NOSIGNAL) < 0)
		return 0;
	receive(fd, ret, bytes);
	return sscanf(ret, "HTTP/1.1 %d ", &code) == 1 ? code : 0;
}

static char answered[65536];

static int ask(int port, const char *method, const char *path)
{
	char request[300];

	snprintf(request, sizeof(request), "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		 method, path);
	return talk(port, request, answered, sizeof(answered));
}

static const char *body(void)
{
	const char *end = strstr(answered, "\r\n\r\n");

	return end != NULL ? end + 4 : "";
}

TEST(paths_are_answered_and_others_are_not)
{
	struct house *h = open_house();

	assert_int_equal(ask(h->port, "GET", "/healthz"), 200);
	assert_string_equal(body(), "ok\n");
	assert_int_equal(ask(h->port, "GET", "/readyz"), 200);
	assert_string_equal(body(), "ok\n");
	assert_int_equal(ask(h->port, "GET", "/metrics"), 200);
	assert_non_null(strstr(answered, "Content-Type: text/plain; version=0.0.4; charset=utf-8"));
	assert_non_null(strstr(body(), "\nwarmcache_key_info{model=\"llama\",version=\"v7\","
				       "platform=\"test\"} 1\n"));
	assert_int_equal(ask(h->port, "GET", "/metrics?name[]=x"), 200);
	static const char *const others[] = { "/",	   "/metrics/", "/healthz/x",  "/METRICS",
					      "//metrics", "/../etc",	"/%6detricsx", "*" };
	for (size_t i = 0; i < COUNT(others); i++)
		if (ask(h->port, "GET", others[i]) / 100 != 4)
			fail_msg("%s: %s", others[i], answered);
	assert_int_equal(ask(h->port, "GET", "/favicon.ico"), 404);
	close_house(h);
}

TEST(only_reads_are_allowed)
{
	static const char *const methods[] = {
		"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "EVIL"
	};
	struct house *h = open_house();

	for (size_t i = 0; i < COUNT(methods); i++) {
		if (ask(h->port, methods[i], "/metrics") != 405)
			fail_msg("%s: %s", methods[i], answered);
		assert_non_null(strstr(answered, "Allow: GET, HEAD"));
	}
	assert_int_equal(ask(h->port, "HEAD", "/metrics"), 200);
	assert_string_equal(body(), "");
	assert_int_equal(ask(h->port, "HEAD", "/none"), 404);
	assert_int_equal(talk(h->port,
			      "POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
			      "Connection: close\r\n\r\nhello",
			      answered, sizeof(answered)),
			 405);
	assert_int_equal(talk(h->port,
			      "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
			      "Connection: close\r\n\r\nhello",
			      answered, sizeof(answered)),
			 200);
	close_house(h);
}

TEST(several_questions_may_come_by_one_connection)
{
	struct house *h = open_house();

	assert_int_equal(talk(h->port,
			      "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
			      "GET /none HTTP/1.1\r\nHost: x\r\n\r\n"
			      "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
			      answered, sizeof(answered)),
			 200);
	const char *second = strstr(answered, "HTTP/1.1 404");
	assert_non_null(second);
	assert_non_null(strstr(second, "HTTP/1.1 200"));
	close_house(h);
}

TEST(readiness_follows_the_state)
{
	static const struct {
		enum warm_sidecar_state state;
		const char *reason;
		int code;
		const char *body;
	} rows[] = {
		{ WARM_SIDECAR_STARTING, "", 503, "starting\n" },
		{ WARM_SIDECAR_STARTING, "volume /cache: denied", 503,
		  "starting: volume /cache: denied\n" },
		{ WARM_SIDECAR_RUNNING, "", 200, "ok\n" },
		{ WARM_SIDECAR_RUNNING, "the store is away", 200, "ok\n" },
		{ WARM_SIDECAR_DRAINING, "", 200, "ok\n" },
		{ WARM_SIDECAR_ENDING, "", 200, "ok\n" },
		{ WARM_SIDECAR_DISABLED, "--store: no URL", 503, "disabled: --store: no URL\n" },
	};
	struct house *h = open_house();

	for (size_t i = 0; i < COUNT(rows); i++) {
		h->m.state = rows[i].state;
		snprintf(h->m.reason, sizeof(h->m.reason), "%s", rows[i].reason);
		warm_listener_update(h->l, &h->m);
		assert_int_equal(ask(h->port, "GET", "/readyz"), rows[i].code);
		assert_string_equal(body(), rows[i].body);
		assert_int_equal(ask(h->port, "GET", "/healthz"), 200);
		assert_int_equal(ask(h->port, "GET", "/metrics"), 200);
	}
	close_house(h);
}

TEST(before_the_first_numbers_it_is_starting)
{
	struct house *h = calloc(1, sizeof(*h));
	char address[40];

	assert_non_null(h);
	h->port = closed_port();
	snprintf(address, sizeof(address), "127.0.0.1:%d", h->port);
	assert_int_equal(warm_listener_open(address, &h->l, NULL), 0);
	assert_int_equal(ask(h->port, "GET", "/readyz"), 503);
	assert_int_equal(ask(h->port, "GET", "/healthz"), 200);
	assert_int_equal(ask(h->port, "GET", "/metrics"), 200);
	close_house(h);
}

TEST(a_loop_that_does_not_turn_is_not_healthy)
{
	struct house *h = open_house();

	ahead_s = 29;
	assert_int_equal(ask(h->port, "GET", "/healthz"), 200);
	ahead_s = 31;
	assert_int_equal(ask(h->port, "GET", "/healthz"), 503);
	assert_non_null(strstr(body(), "has not turned for 31 s"));
	assert_int_equal(ask(h->port, "GET", "/readyz"), 200);
	warm_listener_beat(h->l);
	assert_int_equal(ask(h->port, "GET", "/healthz"), 200);
	ahead_s = 100;
	assert_int_equal(ask(h->port, "GET", "/healthz"), 503);
	close_house(h);
}

TEST(numbers_are_those_of_the_last_update)
{
	struct house *h = open_house();

	h->m.layers = 17;
	assert_int_equal(ask(h->port, "GET", "/metrics"), 200);
	assert_non_null(strstr(body(), "\nwarmcache_published_layers_total 0\n"));
	warm_listener_update(h->l, &h->m);
	assert_int_equal(ask(h->port, "GET", "/metrics"), 200);
	assert_non_null(strstr(body(), "\nwarmcache_published_layers_total 17\n"));
	close_house(h);
}

/* ---- addresses ---- */

TEST(addresses_of_all_forms_are_taken)
{
	static const char *const forms[] = { "127.0.0.1:%d", ":%d", "localhost:%d", "0.0.0.0:%d" };

	for (size_t i = 0; i <= COUNT(forms); i++) {
		struct warm_listener *l = NULL;
		struct warm_error err = { 0 };
		char address[60];
		int port = closed_port();
		if (i < COUNT(forms))
			snprintf(address, sizeof(address), "%.*s:%d",
				 (int)(strchr(forms[i], ':') - forms[i]), forms[i], port);
		else
			snprintf(address, sizeof(address), "[::1]:%d", port);
		int rc = warm_listener_open(address, &l, &err);
		if (rc != 0 && strstr(address, "::1") != NULL) {
			print_message("# note: no IPv6 here: %s\n", err.msg);
			continue;
		}
		if (rc != 0)
			fail_msg("%s: %s", address, err.msg);
		/* The others answer by IPv4. */
		if (i < COUNT(forms) && strncmp(address, "localhost", 9) != 0)
			assert_int_equal(ask(port, "GET", "/healthz"), 200);
		warm_listener_close(l);
	}
}

TEST(addresses_that_are_none_are_invalid)
{
	static const char *const addresses[] = {
		"",
		":",
		"9400",
		"host",
		"127.0.0.1",
		"127.0.0.1:",
		"127.0.0.1:http",
		"127.0.0.1:-1",
		"127.0.0.1: 80",
		"127.0.0.1:123456",
		"127.0.0.1:0x50",
		"[::1]",
		"[::1]:",
		"1.2.3.4.5.6:80",
		"http://127.0.0.1:9400",
		"127.0.0.1:9400/",
	};

	for (size_t i = 0; i < COUNT(addresses); i++) {
		struct warm_listener *l = NULL;
		struct warm_error err = { 0 };
		int rc = warm_listener_open(addresses[i], &l, &err);
		if (rc != WARM_INVALID)
			fail_msg("'%s': %d %s", addresses[i], rc, err.msg);
		assert_null(l);
		assert_non_null(strstr(err.msg, "--listen"));
	}
	char long_address[600];
	memset(long_address, 'h', sizeof(long_address));
	memcpy(long_address + 590, ":9400", 6);
	struct warm_listener *l = NULL;
	assert_int_equal(warm_listener_open(long_address, &l, NULL), WARM_INVALID);
}

TEST(an_address_in_use_and_one_that_is_not_ours_say_so)
{
	struct house *h = open_house();
	struct warm_listener *l = NULL;
	struct warm_error err = { 0 };
	char address[40];

	snprintf(address, sizeof(address), "127.0.0.1:%d", h->port);
	assert_true(warm_listener_open(address, &l, &err) < 0);
	assert_non_null(strstr(err.msg, address));
	snprintf(address, sizeof(address), "192.0.2.1:%d", closed_port());
	err = (struct warm_error){ 0 };
	assert_true(warm_listener_open(address, &l, &err) < 0);
	assert_non_null(strstr(err.msg, "192.0.2.1"));
	assert_null(l);
	/* The first goes on, and its address is free when it has ended. */
	assert_int_equal(ask(h->port, "GET", "/healthz"), 200);
	int port = h->port;
	close_house(h);
	snprintf(address, sizeof(address), "127.0.0.1:%d", port);
	assert_int_equal(warm_listener_open(address, &l, &err), 0);
	warm_listener_close(l);
}

TEST(no_listener_is_taken_everywhere)
{
	struct warm_metrics m = { 0 };

	warm_listener_update(NULL, &m);
	warm_listener_beat(NULL);
	warm_listener_close(NULL);
}

/* ---- clients of all kinds ---- */

TEST(a_slow_client_holds_no_other)
{
	struct house *h = open_house();
	static const char request[] =
		"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
	scope_close int slow = connect_to(h->port);

	assert_true(slow >= 0);
	for (size_t i = 0; i < sizeof(request) - 1; i++) {
		assert_int_equal(send(slow, request + i, 1, MSG_NOSIGNAL), 1);
		if (i % 16 == 0)
			assert_int_equal(ask(h->port, "GET", "/readyz"), 200);
	}
	receive(slow, answered, sizeof(answered));
	assert_non_null(strstr(answered, "HTTP/1.1 200"));
	/* One that never reads its answer. */
	scope_close int deaf = connect_to(h->port);
	for (int i = 0; i < 200; i++)
		if (send(deaf, request, sizeof(request) - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			break;
	assert_int_equal(ask(h->port, "GET", "/healthz"), 200);
	close_house(h);
}

struct client {
	int port, answered;
};

static void *ask_often(void *arg)
{
	struct client *c = arg;
	char text[32768];

	for (int i = 0; i < 5; i++)
		c->answered += talk(c->port,
				    "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
				    text, sizeof(text)) == 200;
	return NULL;
}

TEST(many_clients_at_once_are_all_answered)
{
	enum { CLIENTS = 40 };
	struct house *h = open_house();
	struct client clients[CLIENTS];
	pthread_t threads[CLIENTS];

	for (int i = 0; i < CLIENTS; i++) {
		clients[i] = (struct client){ h->port, 0 };
		assert_int_equal(pthread_create(&threads[i], NULL, ask_often, &clients[i]), 0);
	}
	for (int i = 0; i < 200; i++) {
		h->m.layers = (uint64_t)i;
		warm_listener_update(h->l, &h->m);
		warm_listener_beat(h->l);
	}
	for (int i = 0; i < CLIENTS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < CLIENTS; i++)
		assert_int_equal(clients[i].answered, 5);
	close_house(h);
}

TEST(nonsense_and_heads_that_are_too_long_harm_nobody)
{
	struct house *h = open_house();
	char request[20000];

	static const char *const rows[] = { "\r\n\r\n",
					    "GET\r\n\r\n",
					    "\001\002\003\r\n\r\n",
					    "GET /healthz HTTP/9.9\r\n\r\n",
					    "GET /healthz HTTP/1.1\r\n\r\n", /* no host */
					    "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: "
					    "-1\r\n\r\n" };
	for (size_t i = 0; i < COUNT(rows); i++) {
		scope_close int fd = connect_to(h->port);
		assert_true(send(fd, rows[i], strlen(rows[i]), MSG_NOSIGNAL) > 0);
		shutdown(fd, SHUT_WR);
		receive(fd, answered, sizeof(answered));
		assert_int_equal(ask(h->port, "GET", "/healthz"), 200);
	}
	int n = snprintf(request, sizeof(request), "GET /healthz HTTP/1.1\r\nHost: x\r\nX: ");
	memset(request + n, 'x', sizeof(request) - (size_t)n);
	memcpy(request + sizeof(request) - 5, "\r\n\r\n", 5);
	int code = talk(h->port, request, answered, sizeof(answered));
	assert_true(code == 0 || code / 100 == 4);
	char path[10000];
	memset(path, 'x', sizeof(path));
	path[sizeof(path) - 1] = '\0';
	snprintf(request, sizeof(request), "GET /%s HTTP/1.1\r\nHost: x\r\n\r\n", path);
	code = talk(h->port, request, answered, sizeof(answered));
	assert_true(code == 0 || code / 100 == 4);
	assert_int_equal(ask(h->port, "GET", "/healthz"), 200);
	close_house(h);
}

TEST(it_closes_at_once_while_clients_are_connected)
{
	struct house *h = open_house();
	int idle[10];

	for (size_t i = 0; i < COUNT(idle); i++) {
		idle[i] = connect_to(h->port);
		assert_true(idle[i] >= 0);
		if (i % 2 == 0)
			assert_true(send(idle[i], "GET /hea", 8, MSG_NOSIGNAL) == 8);
	}
	assert_int_equal(ask(h->port, "GET", "/healthz"), 200);
	int port = h->port;
	int64_t start = warm_clock_ms();
	close_house(h);
	assert_true(warm_clock_ms() - start < 5000);
	for (size_t i = 0; i < COUNT(idle); i++)
		close(idle[i]);
	assert_int_equal(connect_to(port), -1);
}

TEST(an_address_in_use_exists)
{
	struct house *h = open_house();
	struct warm_listener *l = NULL;
	char address[40];

	snprintf(address, sizeof(address), "127.0.0.1:%d", h->port);
	assert_int_equal(warm_listener_open(address, &l, NULL), WARM_EXISTS);
	assert_null(l);
	close_house(h);
}

TEST(ports_that_are_too_large_are_invalid)
{
	static const char *const addresses[] = { "127.0.0.1:65536", "127.0.0.1:99999" };

	for (size_t i = 0; i < COUNT(addresses); i++) {
		struct warm_listener *l = NULL;
		int rc = warm_listener_open(addresses[i], &l, NULL);
		warm_listener_close(l);
		assert_int_equal(rc, WARM_INVALID);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths_are_answered_and_others_are_not),
		cmocka_unit_test(only_reads_are_allowed),
		cmocka_unit_test(several_questions_may_come_by_one_connection),
		cmocka_unit_test(readiness_follows_the_state),
		cmocka_unit_test(before_the_first_numbers_it_is_starting),
		cmocka_unit_test(a_loop_that_does_not_turn_is_not_healthy),
		cmocka_unit_test(numbers_are_those_of_the_last_update),
		cmocka_unit_test(addresses_of_all_forms_are_taken),
		cmocka_unit_test(addresses_that_are_none_are_invalid),
		cmocka_unit_test(an_address_in_use_and_one_that_is_not_ours_say_so),
		cmocka_unit_test(no_listener_is_taken_everywhere),
		cmocka_unit_test(a_slow_client_holds_no_other),
		cmocka_unit_test(many_clients_at_once_are_all_answered),
		cmocka_unit_test(nonsense_and_heads_that_are_too_long_harm_nobody),
		cmocka_unit_test(it_closes_at_once_while_clients_are_connected),
		cmocka_unit_test(an_address_in_use_exists),
		cmocka_unit_test(ports_that_are_too_large_are_invalid),
	};

	return RUN(tests);
}
