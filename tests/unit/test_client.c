/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/http_server.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "lib/kube/client.h"
#include "lib/kube/kubeconfig.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

#define scope_server WARM_SCOPE(close_server)
#define scope_json WARM_SCOPE(free_json)
#define PODS "/api/v1/namespaces/x/pods"
#define AT_ONCE "Retry-After: 0\r\n"
#define POD(name, uid, version)                                                                   \
	"{\"metadata\":{\"name\":\"" name "\",\"uid\":\"" uid "\",\"resourceVersion\":\"" version \
	"\"}}"
#define LIST(version, items)                                                 \
	"{\"kind\":\"PodList\",\"metadata\":{\"resourceVersion\":\"" version \
	"\"},\"items\":[" items "]}"
#define EVENT(type, object) "{\"type\":\"" type "\",\"object\":" object "}\n"
#define GONE "{\"kind\":\"Status\",\"code\":410,\"reason\":\"Expired\",\"message\":\"too old\"}"

static void close_server(struct http_server **s)
{
	http_server_close(*s);
}

static void free_json(json_t **value)
{
	json_decref(*value);
}

static void assert_says(const char *text, const char *part)
{
	assert_non_null(text);
	if (strstr(text, part) == NULL)
		fail_msg("'%s' isn't in: %s", part != NULL ? part : "", text);
}

/* A client of a server, with more of the cluster and of the user. */
static struct warm_kube *open_as(const struct scratch *s, const char *server, const char *cluster,
				 const char *user)
{
	char text[4096];
	struct warm_kube *k = NULL;
	struct warm_error err = { 0 };

	no_clouds();
	snprintf(text, sizeof(text),
		 "current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u, "
		 "namespace: x}}]\nclusters: [{name: c, cluster: {server: \"%s\"%s}}]\n"
		 "users: [{name: u, user: {%s}}]\n",
		 server, cluster, user);
	put_text(s->fd, "config", text);
	struct warm_kube_options o = { .kubeconfig = scratch_path(s, "config") };
	if (warm_kube_open(&o, &k, &err) != 0)
		fail_msg("%s", err.msg);
	return k;
}

static struct warm_kube *open_plain(const struct scratch *s, const struct http_server *server)
{
	return open_as(s, http_server_url(server), "", "token: secret");
}

/* "status: message" of a request, "ok" without one. Static storage. */
static const char *ask(struct warm_kube *k, const char *method, const char *path,
		       const json_t *body, const struct warm_call *call)
{
	static char text[600];
	struct warm_error err = { 0 };
	int rc = warm_kube_request(k, method, path, body, call, NULL, &err);

	snprintf(text, sizeof(text), "%s: %s", warm_status_name(rc), rc != 0 ? err.msg : "");
	assert_null(strstr(text, "secret"));
	return text;
}

/* ---- requests ---- */

TEST(a_request_brings_its_answer)
{
	static const struct canned answers[] = { { .status = 200, .body = "{\"a\":1}" },
						 { .status = 201, .body = "{\"b\":\"x\\u0000\"}" },
						 { .status = 200, .body = "{}" } };
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = CANNED(answers);
	scope_kube struct warm_kube *k = open_plain(&s, server);
	scope_json json_t *answer = NULL, *body = json_pack("{s:i}", "n", 1);

	assert_string_equal(warm_kube_namespace(k), "x");
	assert_string_equal(warm_kube_server(k), http_server_url(server));
	assert_int_equal(warm_kube_request(k, "GET", PODS "/a?b=c", NULL, NULL, &answer, NULL), 0);
	assert_int_equal(json_integer_value(json_object_get(answer, "a")), 1);
	assert_request(server, 0, "GET " PODS "/a?b=c");
	assert_header(server, 0, "authorization", "Bearer secret");
	assert_header(server, 0, "user-agent", "warmcache/" WARM_VERSION);
	assert_header(server, 0, "accept", "application/json");
	assert_string_equal(ask(k, "POST", PODS, body, NULL), "ok: ");
	assert_request(server, 1, "POST " PODS);
	assert_header(server, 1, "content-type", "application/json");
	assert_header(server, 1, "expect", NULL);
	assert_string_equal((char *)http_server_request(server, 1)->body.data, "{\"n\":1}");
	assert_string_equal(ask(k, "PATCH", PODS "/a", body, NULL), "ok: ");
	assert_header(server, 2, "content-type", "application/merge-patch+json");
}

TEST(username_and_password_are_sent)
{
	static const struct canned answers[] = { { .status = 200, .body = "{}" } };
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = CANNED(answers);
	scope_kube struct warm_kube *k = open_as(&s, http_server_url(server), "",
						 "username: ann, password: secret");

	assert_string_equal(ask(k, "GET", PODS, NULL, NULL), "ok: ");
	assert_header(server, 0, "authorization", "Basic YW5uOnNlY3JldA==");
}

TEST(one_connection_serves_all_but_posts)
{
	static const struct canned fine = { .status = 200, .body = "{}" };
	const struct canned answers[] = { fine, fine, fine, fine };
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = CANNED(answers);
	scope_kube struct warm_kube *k = open_plain(&s, server);

	assert_string_equal(ask(k, "GET", PODS, NULL, NULL), "ok: ");
	assert_string_equal(ask(k, "DELETE", PODS "/a", NULL, NULL), "ok: ");
	assert_string_equal(ask(k, "GET", PODS, NULL, NULL), "ok: ");
	assert_int_equal(http_server_request(server, 2)->connection, 0);
}

TEST(a_busy_server_is_asked_again)
{
	static const struct canned answers[] = { { .status = 503, .headers = AT_ONCE },
						 { .status = 429, .headers = AT_ONCE },
						 { .status = 500, .headers = AT_ONCE },
						 { .status = 200, .body = "{}" } };
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = CANNED(answers);
	scope_kube struct warm_kube *k = open_plain(&s, server);

	assert_string_equal(ask(k, "PUT", PODS "/a", NULL, NULL), "ok: ");
	assert_int_equal(http_server_count(server), 4);
}

TEST(five_tries_are_made)
{
	static const struct canned busy = { .status = 500, .headers = AT_ONCE };
	const struct canned answers[] = { busy, busy, busy, busy, busy, busy };
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = CANNED(answers);
	scope_kube struct warm_kube *k = open_plain(&s, server);

	assert_says(ask(k, "GET", PODS, NULL, NULL), "transient: GET " PODS " at ");
	assert_int_equal(http_server_count(server), 5);
}

TEST(the_wait_that_a_server_asks_for_is_kept)
{
	static const struct canned answers[] = { { .status = 429, .headers = "Retry-After: 1\r\n" },
						 { .status = 200, .body = "{}" } };
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = CANNED(answers);
	scope_kube struct warm_kube *k = open_plain(&s, server);
	int64_t start = warm_clock_ms();

	assert_string_equal(ask(k, "POST", PODS, NULL, NULL), "ok: ");
	assert_in_range(warm_clock_ms() - start, 1000, 5000);
}

TEST(a_wait_beyond_the_deadline_is_not_begun)
{
	static const struct canned answers[] = { { .status = 429,
						   .headers = "Retry-After: 20\r\n" } };
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = CANNED(answers);
	scope_kube struct warm_kube *k = open_plain(&s, server);
	int64_t start = warm_clock_ms();
	struct warm_call call = { .deadline_ms = start + 5000 };

	assert_says(ask(k, "GET", PODS, NULL, &call), "transient: GET " PODS " at ");
	assert_true(warm_clock_ms() - start < 2000);
}

TEST(a_post_that_may_have_arrived_is_not_sent_again)
{
	static const struct canned answers[] = {
		{ .status = 200, .body = "{}" },
		{ .status = 0 }, /* closed, on a connection that was kept or not */
		{ .status = 500, .headers = AT_ONCE },
		{ .status = 503 },
		{ .status = 201, .body = "{\"cut\":1}", .cut = 4 },
		{ .status = 503, .headers = AT_ONCE },
		{ .status = 200, .body = "{}" },
	};
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = CANNED(answers);
	scope_kube struct warm_kube *k = open_plain(&s, server);

	assert_string_equal(ask(k, "GET", PODS, NULL, NULL), "ok: ");
	for (int i = 0; i < 4; i++)
		assert_says(ask(k, "POST", PODS, NULL, NULL), "transient: POST " PODS);
	assert_int_equal(http_server_count(server), 5);
	assert_string_equal(ask(k, "POST", PODS, NULL, NULL), "ok: ");
}

TEST(a_cut_answer_is_asked_for_again)
{
	static const struct canned answers[] = { { .status = 200, .body = "{\"cut\":1}", .cut = 4 },
						 { .status = 0 },
						 { .status = 200, .body = "{}" } };
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = CANNED(answers);
	scope_kube struct warm_kube *k = open_plain(&s, server);

	assert_string_equal(ask(k, "GET", PODS, NULL, NULL), "ok: ");
}

TEST(an_answer_that_is_no_json_is_corrupt)
{
	static const struct canned answers[] = { { .status = 200, .body = "<html>" },
						 { .status = 200, .body = "" },
						 { .status = 204 } };
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = CANNED(answers);
	scope_kube struct warm_kube *k = open_plain(&s, server);

	assert_says(ask(k, "GET", PODS, NULL, NULL), "corrupt: GET " PODS ": http://127.0.0.1:");
	assert_says(ask(k, "GET", PODS, NULL, NULL), "no JSON: is it an API server?");
	assert_string_equal(ask(k, "GET", PODS, NULL, NULL), "ok: ");
}

TEST(a_refusal_is_told_with_what_the_server_says)
{
	static const struct canned answers[] = {
		{ .status = 404,
		  .body = "{\"kind\":\"Status\",\"message\":\"pods \\\"a\\\" not "
			  "found\",\"details\":{\"name\":\"a\"}}" },
		{ .status = 302, .headers = "Location: /elsewhere\r\n" },
		{ .status = 401 },
	};
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = CANNED(answers);
	scope_kube struct warm_kube *k = open_plain(&s, server);
	struct warm_error err = { 0 };

	assert_int_equal(warm_kube_request(k, "GET", PODS "/a", NULL, NULL, NULL, &err),
			 WARM_NOT_FOUND);
	assert_int_equal(err.http_status, 404);
	assert_says(err.msg, ": pods \"a\" not found");
	assert_says(ask(k, "GET", PODS, NULL, NULL), "invalid: ");
	assert_says(ask(k, "GET", PODS, NULL, NULL), "doesn't take the token of user u of ");
	assert_int_equal(http_server_count(server), 3);
}

/* Refuses what isn't the token of the moment, and changes the file when `change` is set. */
struct rotating {
	const struct scratch *scratch;
	const char *want, *change;
};

static void check_token(void *arg, const struct http_request *r, struct http_reply *reply)
{
	struct rotating *t = arg;
	const char *have = http_request_header(r, "authorization");
	bool good = have != NULL && strcmp(have + strlen("Bearer "), t->want) == 0;

	if (t->change != NULL)
		put_text(t->scratch->fd, "token", t->change);
	t->change = NULL;
	http_reply_text(reply, good ? 200 : 401, "{}");
}

TEST(a_token_that_is_refused_is_read_once_more)
{
	scope_scratch struct scratch s = scratch_open();
	struct rotating t = { &s, "t2", "t2" };
	scope_server struct http_server *server = http_server_open(check_token, &t);
	put_text(s.fd, "token", "t1");
	scope_kube struct warm_kube *k = open_as(&s, http_server_url(server), "",
						 "tokenFile: token");

	assert_string_equal(ask(k, "POST", PODS, NULL, NULL), "ok: ");
	assert_int_equal(http_server_count(server), 2);
	t.want = "t3"; /* the file still holds t2 */
	assert_says(ask(k, "GET", PODS, NULL, NULL), "denied: ");
	assert_int_equal(http_server_count(server), 3);
	t.change = "t4";
	assert_says(ask(k, "GET", PODS, NULL, NULL), "doesn't take the token of /");
	assert_int_equal(http_server_count(server), 5);
}

TEST(a_server_that_is_not_there_is_named)
{
	scope_scratch struct scratch s = scratch_open();
	char url[64], want[200];

	snprintf(url, sizeof(url), "http://127.0.0.1:%d", closed_port());
	snprintf(want, sizeof(want), "transient: GET " PODS ": can't connect to %s (cluster c of ",
		 url);
	scope_kube struct warm_kube *k = open_as(&s, url, "", "");
	const char *text = ask(k, "GET", PODS, NULL, NULL);
	assert_says(text, want);
	assert_says(text, "Connection refused");
	scope_kube struct warm_kube *unknown = open_as(&s, "http://nowhere.invalid", "", "");
	struct warm_call call = { .deadline_ms = warm_clock_ms() + 20000 };
	assert_says(ask(unknown, "GET", PODS, NULL, &call),
		    "can't resolve the name of http://nowhere.invalid (cluster c of ");
}

static void answer_late(void *arg, const struct http_request *r, struct http_reply *reply)
{
	(void)arg;
	(void)r;
	reply->delay_ms = 2000;
	http_reply_text(reply, 200, "{}");
}

TEST(a_deadline_ends_a_slow_answer)
{
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = http_server_open(answer_late, NULL);
	scope_kube struct warm_kube *k = open_plain(&s, server);
	int64_t start = warm_clock_ms();
	struct warm_call call = { .deadline_ms = start + 200 };
	atomic_bool stop = true;
	struct warm_call stopped = { .cancel = &stop };

	assert_says(ask(k, "GET", PODS, NULL, &call),
		    "canceled: GET " PODS ": the deadline has passed");
	assert_says(ask(k, "GET", PODS, NULL, &stopped), "canceled: GET " PODS ": told to stop");
	assert_true(warm_clock_ms() - start < 1500);
}

static void answer_much(void *arg, const struct http_request *r, struct http_reply *reply)
{
	static char spaces[1 << 20];

	(void)arg;
	(void)r;
	memset(spaces, ' ', sizeof(spaces));
	reply->status = 200;
	for (int i = 0; i < 65; i++)
		warm_buf_put(&reply->body, spaces, sizeof(spaces));
}

TEST(an_answer_without_end_is_a_limit)
{
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = http_server_open(answer_much, NULL);
	scope_kube struct warm_kube *k = open_plain(&s, server);

	assert_says(ask(k, "GET", PODS, NULL, NULL), "limit: GET " PODS ": http://");
	assert_int_equal(http_server_count(server), 1);
}

TEST(of_a_text_the_beginning_is_taken)
{
	static const struct canned answers[] = {
		{ .status = 200, .body = "0123456789" },
		{ .status = 200, .body = "abc" },
		{ .status = 404,
		  .body = "{\"kind\":\"Status\",\"message\":\"no\",\"details\":{"
			  "\"name\":\"p\"}}" },
	};
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = CANNED(answers);
	scope_kube struct warm_kube *k = open_plain(&s, server);
	scope_buf struct warm_buf text = WARM_BUF_INIT;

	assert_int_equal(warm_kube_text(k, PODS "/p/log", 4, NULL, &text, NULL), 0);
	assert_int_equal(warm_kube_text(k, PODS "/p/log", 4, NULL, &text, NULL), 0);
	assert_int_equal(text.bytes, 7);
	assert_memory_equal(text.data, "0123abc", 7);
	assert_int_equal(warm_kube_text(k, PODS "/p/log", 4, NULL, &text, NULL), WARM_NOT_FOUND);
	assert_int_equal(text.bytes, 7);
}

/* ---- TLS, proxies ---- */

static void answer_fine(void *arg, const struct http_request *r, struct http_reply *reply)
{
	(void)arg;
	(void)r;
	http_reply_text(reply, 200, "{}");
}

TEST(the_cluster_s_authority_is_trusted_and_no_other)
{
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = http_server_open_tls(scratch_path(&s, "ca"),
								       answer_fine, NULL);
	scope_server struct http_server *other = http_server_open_tls(scratch_path(&s, "other"),
								      answer_fine, NULL);
	const char *url = http_server_url(server);
	scope_kube struct warm_kube *k = open_as(&s, url, ", certificate-authority: ca", "");
	scope_kube struct warm_kube *wrong = open_as(&s, url, ", certificate-authority: other", "");
	scope_kube struct warm_kube *none = open_as(&s, url, "", "");
	scope_kube struct warm_kube *any = open_as(&s, url, ", insecure-skip-tls-verify: true", "");

	assert_string_equal(ask(k, "GET", PODS, NULL, NULL), "ok: ");
	assert_says(ask(wrong, "GET", PODS, NULL, NULL),
		    "denied: GET " PODS ": the certificate of https://127.0.0.1:");
	assert_says(ask(none, "GET", PODS, NULL, NULL), "isn't trusted");
	assert_string_equal(ask(any, "GET", PODS, NULL, NULL), "ok: ");
	assert_int_equal(http_server_count(server), 2);
}

TEST(a_certificate_may_be_for_another_name)
{
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = http_server_open_tls(scratch_path(&s, "ca"),
								       answer_fine, NULL);
	const char *port = strrchr(http_server_url(server), ':');
	char url[64], host[64];

	snprintf(url, sizeof(url), "https://localhost%s/prefix/", port);
	snprintf(host, sizeof(host), "localhost%s", port);
	scope_kube struct warm_kube *k = open_as(&s, url, ", certificate-authority: ca", "");
	scope_kube struct warm_kube *named =
		open_as(&s, url, ", certificate-authority: ca, tls-server-name: 127.0.0.1", "");
	assert_says(ask(k, "GET", PODS, NULL, NULL), "is for another name");
	assert_string_equal(ask(named, "GET", PODS, NULL, NULL), "ok: ");
	assert_request(server, 0, "GET /prefix" PODS);
	assert_header(server, 0, "host", host);
}

TEST(the_kubeconfig_s_proxy_goes_before_the_environment)
{
	static const struct canned answers[] = { { .status = 200, .body = "{}" } };
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *proxy = CANNED(answers);
	char cluster[100];

	snprintf(cluster, sizeof(cluster), ", proxy-url: \"http://ann:secret@%s\"",
		 http_server_host(proxy));
	scope_kube struct warm_kube *k = open_as(&s, "http://nowhere.invalid:8", cluster, "");
	setenv("http_proxy", "http://127.0.0.1:1", 1);
	setenv("NO_PROXY", "*", 1);
	assert_string_equal(ask(k, "GET", PODS, NULL, NULL), "ok: ");
	assert_request(proxy, 0, "GET http://nowhere.invalid:8" PODS);
}

/* ---- lists ---- */

#define PIECE(token, items)                                                                   \
	"{\"kind\":\"PodList\",\"metadata\":{\"resourceVersion\":\"9\",\"continue\":\"" token \
	"\",\"remainingItemCount\":1},\"items\":[" items "]}"

/* The items' names, each followed by a comma. */
static const char *names_of(const json_t *list)
{
	static char text[100];
	size_t i;
	json_t *item;

	text[0] = '\0';
	json_array_foreach(json_object_get(list, "items"), i, item)
		strcat(strcat(text, json_string_value(json_object_get(
					    json_object_get(item, "metadata"), "name"))),
		       ",");
	return text;
}

TEST(a_list_in_pieces_is_put_together)
{
	static const struct canned answers[] = {
		{ .status = 200, .body = PIECE("a+/=", POD("a", "1", "1") "," POD("b", "2", "2")) },
		{ .status = 503, .headers = AT_ONCE },
		{ .status = 200, .body = PIECE("t2", POD("c", "3", "3")) },
		{ .status = 200, .body = LIST("9", POD("d", "4", "4")) },
		{ .status = 200, .body = PIECE("t4", POD("e", "4", "4")) },
	};
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = CANNED(answers);
	scope_kube struct warm_kube *k = open_plain(&s, server);
	scope_json json_t *list = NULL, *piece = NULL;

	assert_int_equal(warm_kube_request(k, "GET", PODS "?limit=2", NULL, NULL, &list, NULL), 0);
	assert_string_equal(names_of(list), "a,b,c,d,");
	assert_null(json_object_get(json_object_get(list, "metadata"), "continue"));
	assert_request(server, 1, "GET " PODS "?limit=2&continue=a%2B%2F%3D");
	assert_request(server, 3, "GET " PODS "?limit=2&continue=t2");
	assert_int_equal(
		warm_kube_request(k, "GET", PODS "?limit=1&continue=t3", NULL, NULL, &piece, NULL),
		0);
	assert_string_equal(names_of(piece), "e,");
}

TEST(a_list_whose_rest_is_gone_is_taken_whole)
{
	static const struct canned answers[] = {
		{ .status = 200, .body = PIECE("t", POD("a", "1", "1")) },
		{ .status = 410, .body = GONE },
		{ .status = 200, .body = LIST("9", POD("b", "2", "2") "," POD("c", "3", "3")) },
	};
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = CANNED(answers);
	scope_kube struct warm_kube *k = open_plain(&s, server);
	scope_json json_t *list = NULL;

	assert_int_equal(
		warm_kube_request(k, "GET", PODS "?x=y&limit=1&z=", NULL, NULL, &list, NULL), 0);
	assert_string_equal(names_of(list), "b,c,");
	assert_request(server, 2, "GET " PODS "?x=y&z=");
}

/* ---- watch ---- */

struct told {
	char text[2000];
	const char *stop_at;   /* after such a line: 1 */
	int rc;		       /* in place of that 1 */
	struct warm_kube *ask; /* is asked for each event */
};

static int hear_event(void *arg, enum warm_kube_event event, const json_t *object,
		      struct warm_error *err)
{
	static const char *const names[] = { "added", "modified", "deleted", "listed" };
	struct told *t = arg;
	const json_t *meta = json_object_get(object, "metadata");
	char line[100];

	snprintf(line, sizeof(line), "%s %s%s%s\n", names[event],
		 object != NULL ? json_string_value(json_object_get(meta, "name")) : "",
		 object != NULL ? "@" : "",
		 object != NULL ? json_string_value(json_object_get(meta, "resourceVersion")) : "");
	strcat(t->text, line);
	if (t->ask != NULL)
		assert_int_equal(warm_kube_request(t->ask, "GET", "/asked", NULL, NULL, NULL, NULL),
				 0);
	if (t->stop_at == NULL || strcmp(line, t->stop_at) != 0)
		return 0;
	return t->rc != 0 ? warm_error_set(err, (enum warm_status)t->rc, "of its own") : 1;
}

#define STREAM(text)                                        \
	{                                                   \
		.status = 200, .body = (text), .length = -2 \
	}

TEST(a_watch_tells_each_state_once)
{
	static const struct canned answers[] = {
		{ .status = 200, .body = LIST("10", POD("a", "1", "1") "," POD("b", "2", "2")) },
		STREAM(EVENT("ADDED", POD("c", "3", "11")) EVENT("MODIFIED", POD("a", "1", "12"))
			       EVENT("MODIFIED", POD("a", "1", "12"))
				       EVENT("BOOKMARK", POD("", "", "20")) "{\"type\":\"ADDED\""),
		{ .status = 410, .body = GONE },
		{ .status = 200,
		  .body = LIST("40", POD("a", "1", "12") "," POD("c", "3", "30") "," POD("d", "4",
											 "31")) },
		STREAM(EVENT("MODIFIED", POD("d", "4", "41")) EVENT("ERROR", GONE)),
		{ .status = 200,
		  .body = LIST("50", POD("a", "9", "45") "," POD("c", "3", "30") "," POD("d", "4",
											 "41")) },
		STREAM(EVENT("DELETED", POD("z", "7", "51")) EVENT("DELETED", POD("c", "3", "52"))
			       EVENT("ADDED", POD("e", "5", "53"))),
	};
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = CANNED(answers);
	scope_kube struct warm_kube *k = open_plain(&s, server);
	struct told t = { .stop_at = "deleted c@52\n" };

	assert_int_equal(
		warm_kube_watch(k, PODS "?x=y&timeoutSeconds=7", hear_event, &t, NULL, NULL), 0);
	assert_string_equal(t.text, "added a@1\nadded b@2\nlisted \n"
				    "added c@11\nmodified a@12\n"
				    "deleted b@2\nmodified c@30\nadded d@31\nlisted \n"
				    "modified d@41\n"
				    "deleted a@12\nadded a@45\nlisted \n"
				    "deleted c@52\n");
	assert_request(server, 0, "GET " PODS "?x=y&timeoutSeconds=7&limit=500");
	assert_request(server, 1,
		       "GET " PODS "?x=y&timeoutSeconds=7&watch=true"
		       "&allowWatchBookmarks=true&resourceVersion=10");
	assert_request(server, 2,
		       "GET " PODS "?x=y&timeoutSeconds=7&watch=true"
		       "&allowWatchBookmarks=true&resourceVersion=20");
	assert_int_equal(http_server_count(server), 7);
}

TEST(a_watch_is_ended_by_the_server_within_ten_minutes)
{
	static const struct canned answers[] = {
		{ .status = 200, .body = LIST("1", "") },
		STREAM(EVENT("ADDED", POD("a", "1", "2"))),
	};
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = CANNED(answers);
	scope_kube struct warm_kube *k = open_plain(&s, server);
	struct told t = { .stop_at = "added a@2\n" };

	assert_int_equal(warm_kube_watch(k, PODS, hear_event, &t, NULL, NULL), 0);
	const char *at = strstr(http_server_request(server, 1)->target, "&timeoutSeconds=");
	assert_non_null(at);
	assert_in_range(atoi(at + strlen("&timeoutSeconds=")), 300, 600);
}

TEST(a_watch_waits_for_a_server_that_is_away)
{
	static const struct canned answers[] = {
		{ .status = 200, .body = LIST("1", "") },
		{ .status = 503 },
		{ .status = 503 },
		STREAM(EVENT("ADDED", POD("a", "1", "2"))),
	};
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = CANNED(answers);
	scope_kube struct warm_kube *k = open_plain(&s, server);
	struct told t = { .stop_at = "added a@2\n" };
	int64_t start = warm_clock_ms();

	assert_int_equal(warm_kube_watch(k, PODS, hear_event, &t, NULL, NULL), 0);
	assert_in_range(warm_clock_ms() - start, 2000, 8000);
	assert_int_equal(http_server_count(server), 4);
}

TEST(a_watch_that_is_too_old_again_and_again_waits)
{
	static const struct canned list = { .status = 200, .body = LIST("1", "") };
	static const struct canned gone = { .status = 410, .body = GONE };
	const struct canned answers[] = {
		list, gone, list, gone, list, gone, list, gone, list, gone
	};
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = CANNED(answers);
	scope_kube struct warm_kube *k = open_plain(&s, server);
	struct told t = { .stop_at = NULL };
	struct warm_call call = { .deadline_ms = warm_clock_ms() + 800 };

	assert_int_equal(warm_kube_watch(k, PODS, hear_event, &t, &call, NULL), WARM_CANCELED);
	assert_int_equal(http_server_count(server), 4);
}

TEST(what_a_watch_can_t_go_on_with_ends_it)
{
	static const struct canned list = { .status = 200, .body = LIST("1", "") };
	static const struct {
		struct canned answers[2];
		int want;
		const char *says;
	} cases[] = {
		{ { { .status = 403 } }, WARM_DENIED, "refused" },
		{ { { .status = 200, .body = "{\"kind\":\"Pod\"}" } }, WARM_INVALID, "is no list" },
		{ { { .status = 200, .body = "{\"items\":[]}" } },
		  WARM_CORRUPT,
		  "a list without a resourceVersion" },
		{ { { .status = 0 }, { .status = 403 } }, WARM_DENIED, "refused" },
		{ { { .status = 0 }, STREAM("<html>\n") }, WARM_CORRUPT, "no JSON" },
		{ { { .status = 0 }, STREAM("[]\n") }, WARM_CORRUPT, "no event" },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct canned answers[2] = { cases[i].answers[0], cases[i].answers[1] };
		if (answers[0].status == 0)
			answers[0] = list;
		scope_scratch struct scratch s = scratch_open();
		scope_server struct http_server *server = CANNED(answers);
		scope_kube struct warm_kube *k = open_plain(&s, server);
		struct told t = { .stop_at = NULL };
		struct warm_error err = { 0 };
		assert_int_equal(warm_kube_watch(k, PODS, hear_event, &t, NULL, &err),
				 cases[i].want);
		assert_says(err.msg, cases[i].says);
	}
}

TEST(a_deadline_ends_a_silent_watch)
{
	static const struct canned answers[] = {
		{ .status = 200, .body = LIST("1", "") },
		{ .status = 200,
		  .body = EVENT("ADDED", POD("a", "1", "2")),
		  .length = -2,
		  .hang = true },
	};
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = CANNED(answers);
	scope_kube struct warm_kube *k = open_plain(&s, server);
	struct told t = { .stop_at = NULL };
	struct warm_error err = { 0 };
	int64_t start = warm_clock_ms();
	struct warm_call call = { .deadline_ms = start + 500 };

	assert_int_equal(warm_kube_watch(k, PODS, hear_event, &t, &call, &err), WARM_CANCELED);
	assert_says(err.msg, "the deadline has passed");
	assert_string_equal(t.text, "listed \nadded a@2\n");
	assert_true(warm_clock_ms() - start < 2000);
}

static void serve_pods(void *arg, const struct http_request *r, struct http_reply *reply)
{
	(void)arg;
	if (strcmp(r->target, "/asked") == 0) {
		http_reply_text(reply, 200, "{}");
	} else if (strstr(r->target, "watch=true") == NULL) {
		http_reply_text(reply, 200, LIST("1", ""));
	} else {
		http_reply_text(reply, 200,
				EVENT("ADDED", POD("a", "1", "2"))
					EVENT("ADDED", POD("b", "2", "3")));
		reply->length = -2;
		reply->hang = true;
	}
}

TEST(an_event_may_lead_to_requests)
{
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = http_server_open(serve_pods, NULL);
	scope_kube struct warm_kube *k = open_plain(&s, server);
	struct told t = { .stop_at = "added b@3\n", .ask = k };

	assert_int_equal(warm_kube_watch(k, PODS, hear_event, &t, NULL, NULL), 0);
	assert_string_equal(t.text, "listed \nadded a@2\nadded b@3\n");
	assert_int_equal(http_server_count(server), 5);
}

TEST(what_the_callback_returns_ends_the_watch_as_it_is)
{
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = http_server_open(serve_pods, NULL);
	scope_kube struct warm_kube *k = open_plain(&s, server);
	struct told t = { .stop_at = "added a@2\n", .rc = WARM_TRANSIENT };
	struct warm_error err = { 0 };

	assert_int_equal(warm_kube_watch(k, PODS, hear_event, &t, NULL, &err), WARM_TRANSIENT);
	assert_string_equal(err.msg, "of its own");
	t = (struct told){ .stop_at = "listed \n" };
	assert_int_equal(warm_kube_watch(k, PODS, hear_event, &t, NULL, &err), 0);
	assert_string_equal(t.text, "listed \n");
}

/* ---- the nth allocation fails ---- */

static _Thread_local long fail_at, allocations, blocks, threads;

#if !SANITIZED
#define EXPORT __attribute__((visibility("default")))

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *old, size_t bytes);
void __libc_free(void *old);

static bool no_memory(void)
{
	return ++allocations == fail_at;
}

static void *counted(void *block)
{
	blocks += block != NULL;
	return block;
}

EXPORT void *malloc(size_t bytes)
{
	return no_memory() ? NULL : counted(__libc_malloc(bytes));
}

EXPORT void *calloc(size_t n, size_t bytes)
{
	return no_memory() ? NULL : counted(__libc_calloc(n, bytes));
}

EXPORT void *realloc(void *old, size_t bytes)
{
	if (no_memory())
		return NULL;
	return old == NULL ? counted(__libc_realloc(old, bytes)) : __libc_realloc(old, bytes);
}

EXPORT void free(void *old)
{
	blocks -= old != NULL;
	__libc_free(old);
}

EXPORT int pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

	if (real == NULL)
		real = (__typeof__(real))(uintptr_t)dlsym(RTLD_NEXT, "pthread_create");
	threads++;
	return real(id, attr, fn, arg);
}

/* libcurl's fail as others do; it leaks one where a connection begins (7.88), so they aren't counted. */
static void *curls_malloc(size_t bytes)
{
	return no_memory() ? NULL : __libc_malloc(bytes);
}

static void *curls_calloc(size_t n, size_t bytes)
{
	return no_memory() ? NULL : __libc_calloc(n, bytes);
}

static void *curls_realloc(void *old, size_t bytes)
{
	return no_memory() ? NULL : __libc_realloc(old, bytes);
}

static char *curls_strdup(const char *text)
{
	char *copy = curls_malloc(strlen(text) + 1);

	return copy != NULL ? strcpy(copy, text) : NULL;
}

static void take_over_curl(void)
{
	curl_global_init_mem(CURL_GLOBAL_DEFAULT, curls_malloc, __libc_free, curls_realloc,
			     curls_strdup, curls_calloc);
}
#else
static void take_over_curl(void)
{
}
#endif

/* Open, ask, list, watch until the first event. */
static int use_all(const char *config, struct warm_error *err)
{
	struct warm_kube_options o = { .kubeconfig = config };
	struct told t = { .stop_at = "added a@2\n" };
	struct warm_call call = { .deadline_ms = warm_clock_ms() + 20000 };
	scope_kube struct warm_kube *k = NULL;
	json_t *answer = NULL;

	int rc = warm_kube_open(&o, &k, err);
	if (rc == 0)
		rc = warm_kube_request(k, "GET", "/asked", NULL, &call, &answer, err);
	json_decref(answer);
	if (rc == 0)
		rc = warm_kube_watch(k, PODS, hear_event, &t, &call, err);
	return rc;
}

TEST(without_memory_it_says_so_and_leaks_nothing)
{
	if (SANITIZED)
		skip();
	scope_scratch struct scratch s = scratch_open();
	scope_server struct http_server *server = http_server_open(serve_pods, NULL);
	char *config = strdup(scratch_path(&s, "config"));
	struct warm_error err = { 0 };

	warm_kube_free(open_as(&s, http_server_url(server),
			       ", certificate-authority-data: \"LS0tLS1CRUdJTiAK\"",
			       "tokenFile: token"));
	put_text(s.fd, "token", "t");
	assert_int_equal(use_all(config, &err), 0);
	bool failed = true;
	int refusals = 0;
	for (long n = 1; failed; n++) {
		long before = blocks;
		allocations = threads = 0;
		fail_at = n;
		int rc = use_all(config, &err);
		failed = allocations >= n;
		fail_at = 0;
		/* libc keeps what it made for a thread that libcurl has begun. */
		if (blocks != before && threads == 0)
			fail_msg("allocation %ld of %ld: %ld blocks are left, status %s", n,
				 allocations, blocks - before, warm_status_name(rc));
		/* What libcurl makes of it may be a connection that fails, which is tried again;
		 * jansson's lexer and libyaml may take it for bad text. */
		bool said = strstr(err.msg, "no memory") != NULL || rc == WARM_CORRUPT;
		if (rc != 0 && rc != WARM_NO_MEMORY && rc != WARM_TRANSIENT && !said)
			fail_msg("allocation %ld: %s: %s", n, warm_status_name(rc), err.msg);
		refusals += rc == WARM_NO_MEMORY;
	}
	assert_true(refusals > 20);
	free(config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_brings_its_answer),
		cmocka_unit_test(username_and_password_are_sent),
		cmocka_unit_test(one_connection_serves_all_but_posts),
		cmocka_unit_test(a_busy_server_is_asked_again),
		cmocka_unit_test(five_tries_are_made),
		cmocka_unit_test(the_wait_that_a_server_asks_for_is_kept),
		cmocka_unit_test(a_wait_beyond_the_deadline_is_not_begun),
		cmocka_unit_test(a_post_that_may_have_arrived_is_not_sent_again),
		cmocka_unit_test(a_cut_answer_is_asked_for_again),
		cmocka_unit_test(an_answer_that_is_no_json_is_corrupt),
		cmocka_unit_test(a_refusal_is_told_with_what_the_server_says),
		cmocka_unit_test(a_token_that_is_refused_is_read_once_more),
		cmocka_unit_test(a_server_that_is_not_there_is_named),
		cmocka_unit_test(a_deadline_ends_a_slow_answer),
		cmocka_unit_test(an_answer_without_end_is_a_limit),
		cmocka_unit_test(of_a_text_the_beginning_is_taken),
		cmocka_unit_test(the_cluster_s_authority_is_trusted_and_no_other),
		cmocka_unit_test(a_certificate_may_be_for_another_name),
		cmocka_unit_test(the_kubeconfig_s_proxy_goes_before_the_environment),
		cmocka_unit_test(a_list_in_pieces_is_put_together),
		cmocka_unit_test(a_list_whose_rest_is_gone_is_taken_whole),
		cmocka_unit_test(a_watch_tells_each_state_once),
		cmocka_unit_test(a_watch_is_ended_by_the_server_within_ten_minutes),
		cmocka_unit_test(a_watch_waits_for_a_server_that_is_away),
		cmocka_unit_test(a_watch_that_is_too_old_again_and_again_waits),
		cmocka_unit_test(what_a_watch_can_t_go_on_with_ends_it),
		cmocka_unit_test(a_deadline_ends_a_silent_watch),
		cmocka_unit_test(an_event_may_lead_to_requests),
		cmocka_unit_test(what_the_callback_returns_ends_the_watch_as_it_is),
		cmocka_unit_test(without_memory_it_says_so_and_leaks_nothing),
	};

	signal(SIGPIPE, SIG_IGN); /* as programs do */
	take_over_curl();
	return RUN(tests);
}
