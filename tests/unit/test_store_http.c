/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/http_server.h"

#include <fcntl.h>

#define scope_server WARM_SCOPE(close_server)

static void close_server(struct http_server **s)
{
	http_server_close(*s);
}

static struct warm_store *open_web(const struct http_server *s, const char *rest)
{
	struct warm_store *store = NULL;
	struct warm_error err = { 0 };
	char url[500];

	no_clouds();
	snprintf(url, sizeof(url), "%s%s", http_server_url(s), rest);
	if (warm_store_open(url, &store, &err) != 0)
		fail_msg("%s", err.msg);
	return store;
}

static int take(void *arg, const void *data, size_t bytes, struct warm_error *err)
{
	(void)err;
	warm_buf_put(arg, data, bytes);
	return 0;
}

static int note(void *arg, const struct warm_object *o, struct warm_error *err)
{
	(void)err;
	warm_buf_printf(arg, "%s %llu\n", o->name, (unsigned long long)o->bytes);
	return 0;
}

/* The names of a list, or the error's message. Static storage. */
static const char *list(struct warm_store *store, const char *prefix, int64_t *ret_now_ms)
{
	static char text[1000];
	scope_buf struct warm_buf found = WARM_BUF_INIT;
	struct warm_error err = { 0 };

	if (warm_store_list(store, prefix, note, &found, ret_now_ms, NULL, &err) != 0)
		snprintf(text, sizeof(text), "%s: %s", warm_status_name(err.status), err.msg);
	else
		snprintf(text, sizeof(text), "%.*s", (int)found.bytes,
			 found.bytes > 0 ? (const char *)found.data : "");
	return text;
}

#define HEAD_A "warmcache-head 1 0\n5 1 a/v/p/x\n6 1 a/w/p/y\nend 2\n"
#define HEAD_ALL "warmcache-head 1 0\n50 -1 a/head\n50 -1 b/head\nend 2\n"
#define DATE "Date: Tue, 15 Nov 1994 08:12:31 GMT\r\n"

TEST(a_model_is_listed_by_its_head)
{
	static const struct canned answers[] = { { .status = 200, .headers = DATE, .body = HEAD_A },
						 { .status = 200, .body = HEAD_A } };
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_web(s, "/pre/fix/");
	int64_t now = 0;

	assert_string_equal(list(store, "a/v/", &now), "a/v/p/x 5\n");
	assert_int_equal(now, 784887151000);
	assert_string_equal(list(store, "a/", NULL), "a/v/p/x 5\na/w/p/y 6\n");
	assert_request(s, 0, "GET /pre/fix/a/head");
	assert_int_equal(http_server_count(s), 2);
}

TEST(all_models_are_listed_by_the_head_of_all)
{
	static const struct canned answers[] = { { .status = 200, .body = HEAD_ALL },
						 { .status = 200, .body = HEAD_A },
						 { .status = 404 } /* deleted since */ };
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_web(s, "");

	assert_string_equal(list(store, "", NULL), "a/v/p/x 5\na/w/p/y 6\n");
	assert_request(s, 0, "GET /head");
	assert_request(s, 1, "GET /a/head");
	assert_request(s, 2, "GET /b/head");
}

TEST(a_model_without_a_head_is_cold_where_others_have_one)
{
	static const struct canned answers[] = { { .status = 404 },
						 { .status = 200, .body = HEAD_ALL } };
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_web(s, "");

	assert_string_equal(list(store, "new/v/", NULL), "");
	assert_request(s, 0, "GET /new/head");
	assert_request(s, 1, "GET /head");
}

TEST(a_server_without_heads_is_told_how_to_get_them)
{
	static const struct canned none = { .status = 404 };
	const struct canned answers[] = { none, none, none };
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_web(s, "");

	assert_non_null(strstr(list(store, "a/", NULL), "unsupported: "));
	assert_non_null(strstr(list(store, "", NULL), "run `warmcache head` on the store behind"));
	assert_int_equal(http_server_count(s), 3);
}

TEST(a_page_that_is_no_head_is_corrupt)
{
	static const struct canned answers[] = { { .status = 200, .body = "<html>hello</html>" },
						 { .status = 200 } };
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_web(s, "");

	for (size_t i = 0; i < COUNT(answers); i++)
		assert_memory_equal(list(store, "a/", NULL), "corrupt: ", 9);
}

static void serve_object(void *arg, const struct http_request *request, struct http_reply *reply)
{
	http_reply_object(reply, request, arg, strlen(arg));
	http_reply_header(reply, "Last-Modified: Tue, 15 Nov 1994 08:12:31 GMT");
}

TEST(an_object_is_looked_at_and_read_in_ranges)
{
	char data[] = "0123456789";
	scope_server struct http_server *s = http_server_open(serve_object, data);
	scope_store struct warm_store *store = open_web(s, "/p");
	scope_buf struct warm_buf got = WARM_BUF_INIT;
	struct warm_object o;

	assert_int_equal(warm_store_head(store, "m/a+b c", &o, NULL, NULL), 0);
	assert_int_equal(o.bytes, 10);
	assert_int_equal(o.modified_ms, 784887151000);
	assert_int_equal(warm_store_get(store, "m/a+b c", 3, 4, take, &got, NULL, NULL), 0);
	assert_memory_equal(got.data, "3456", 4);
	assert_int_equal(warm_store_get(store, "m/a", 3, 0, take, &got, NULL, NULL), 0);
	assert_int_equal(warm_store_get(store, "m/a", 8, 4, take, &got, NULL, NULL), WARM_CORRUPT);
	assert_int_equal(warm_store_get(store, "m/a", 20, 1, take, &got, NULL, NULL), WARM_CORRUPT);
	assert_request(s, 0, "HEAD /p/m/a%2Bb%20c");
	assert_request(s, 1, "GET /p/m/a%2Bb%20c");
	assert_header(s, 1, "range", "bytes=3-6");
	assert_header(s, 1, "authorization", NULL);
	assert_int_equal(http_server_count(s), 4);
}

TEST(a_token_of_a_file_is_sent_and_read_anew)
{
	static const struct canned here = { .status = 200, .body = "x" };
	const struct canned answers[] = { here, here, { .status = 401 } };
	scope_scratch struct scratch dir = scratch_open();
	scope_server struct http_server *s = CANNED(answers);
	struct warm_object o;
	struct warm_error err = { 0 };
	char rest[300];

	snprintf(rest, sizeof(rest), "/p?bearer-file=%s", scratch_path(&dir, "token"));
	put_text(dir.fd, "token", "one\n");
	scope_store struct warm_store *store = open_web(s, rest);
	assert_int_equal(warm_store_head(store, "a", &o, NULL, NULL), 0);
	put_text(dir.fd, "token", "hunter2");
	assert_int_equal(warm_store_head(store, "a", &o, NULL, NULL), 0);
	assert_header(s, 0, "authorization", "Bearer one");
	assert_header(s, 1, "authorization", "Bearer hunter2");
	assert_int_equal(warm_store_head(store, "a", &o, NULL, &err), WARM_DENIED);
	assert_non_null(strstr(err.msg, "401 for HEAD with the token of bearer-file"));
	assert_null(strstr(err.msg, "hunter2"));
	put_text(dir.fd, "token", "two\nlines");
	assert_int_equal(warm_store_head(store, "a", &o, NULL, &err), WARM_INVALID);
	put_text(dir.fd, "token", "\n");
	assert_int_equal(warm_store_head(store, "a", &o, NULL, &err), WARM_INVALID);
	unlinkat(dir.fd, "token", 0);
	assert_int_equal(warm_store_head(store, "a", &o, NULL, &err), WARM_DENIED);
	assert_non_null(strstr(err.msg, "bearer-file="));
	assert_int_equal(http_server_count(s), 3);
}

TEST(refusals_have_the_right_status)
{
	static const struct {
		int status, want;
		const char *said;
	} rows[] = {
		{ 403, WARM_DENIED, "give a token by bearer-file=FILE in the URL" },
		{ 404, WARM_NOT_FOUND, "404 for GET" },
		{ 410, WARM_NOT_FOUND, "410" },
		{ 416, WARM_CORRUPT, "416" },
		{ 400, WARM_DENIED, "400 for GET" },
		{ 503, WARM_TRANSIENT, "503 for GET" },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		const struct canned a = { .status = rows[i].status,
					  .headers = "Retry-After: 0\r\n" };
		const struct canned answers[] = { a, a, a, a, a };
		scope_server struct http_server *s = CANNED(answers);
		scope_store struct warm_store *store = open_web(s, "");
		scope_buf struct warm_buf got = WARM_BUF_INIT;
		struct warm_error err = { 0 };
		assert_int_equal(warm_store_get(store, "a", 0, 1, take, &got, NULL, &err),
				 rows[i].want);
		assert_non_null(strstr(err.msg, rows[i].said));
		assert_int_equal(err.http_status, rows[i].status);
	}
}

TEST(redirects_are_followed_and_a_foreign_host_gets_no_token)
{
	static char data[] = "0123456789";
	scope_scratch struct scratch dir = scratch_open();
	scope_server struct http_server *there = http_server_open(serve_object, data);
	char headers[100], rest[300];
	snprintf(headers, sizeof(headers), "Location: %s/cdn\r\n", http_server_url(there));
	const struct canned answers[] = { { .status = 302, .headers = headers } };
	scope_server struct http_server *s = CANNED(answers);
	scope_buf struct warm_buf got = WARM_BUF_INIT;

	put_text(dir.fd, "token", "secret");
	snprintf(rest, sizeof(rest), "?bearer-file=%s", scratch_path(&dir, "token"));
	scope_store struct warm_store *store = open_web(s, rest);
	assert_int_equal(warm_store_get(store, "a", 0, 10, take, &got, NULL, NULL), 0);
	assert_memory_equal(got.data, data, 10);
	assert_header(s, 0, "authorization", "Bearer secret");
	assert_request(there, 0, "GET /cdn");
	assert_header(there, 0, "authorization", NULL);
}

TEST(a_web_server_is_only_read)
{
	scope_server struct http_server *s = http_server_canned(NULL, 0);
	scope_store struct warm_store *store = open_web(s, "");
	struct warm_error err = { 0 };

	assert_int_equal(warm_store_put(store, "a", -1, 0, NULL, &err), WARM_UNSUPPORTED);
	assert_non_null(strstr(err.msg, "publish to the store behind it"));
	assert_int_equal(warm_store_replace(store, "a", -1, 0, NULL, &err), WARM_UNSUPPORTED);
	assert_int_equal(warm_store_delete(store, "a", NULL, &err), WARM_UNSUPPORTED);
	assert_int_equal(http_server_count(s), 0);
}

TEST(a_refusal_is_a_sentence)
{
	static const struct canned answers[] = { { .status = 403 } };
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_web(s, "");
	scope_buf struct warm_buf got = WARM_BUF_INIT;
	struct warm_error err = { 0 };

	assert_int_equal(warm_store_get(store, "a", 0, 1, take, &got, NULL, &err), WARM_DENIED);
	assert_non_null(strstr(err.msg, "403 for GET: give a token"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_model_is_listed_by_its_head),
		cmocka_unit_test(all_models_are_listed_by_the_head_of_all),
		cmocka_unit_test(a_model_without_a_head_is_cold_where_others_have_one),
		cmocka_unit_test(a_server_without_heads_is_told_how_to_get_them),
		cmocka_unit_test(a_page_that_is_no_head_is_corrupt),
		cmocka_unit_test(an_object_is_looked_at_and_read_in_ranges),
		cmocka_unit_test(a_token_of_a_file_is_sent_and_read_anew),
		cmocka_unit_test(refusals_have_the_right_status),
		cmocka_unit_test(redirects_are_followed_and_a_foreign_host_gets_no_token),
		cmocka_unit_test(a_web_server_is_only_read),
		cmocka_unit_test(a_refusal_is_a_sentence),
	};

	return RUN(tests);
}
