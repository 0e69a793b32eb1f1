/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/http_server.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "lib/store/http.h"

#define scope_server WARM_SCOPE(close_server)
#define scope_http WARM_SCOPE(free_http)

static void close_server(struct http_server **s)
{
	http_server_close(*s);
}

static void free_http(struct warm_http **h)
{
	warm_http_free(*h);
}

static struct warm_http *open_http(struct warm_http_options o)
{
	struct warm_http *h = NULL;

	no_clouds();
	assert_int_equal(warm_http_open(&o, &h, NULL), 0);
	return h;
}

static struct warm_http *plain_http(void)
{
	return open_http((struct warm_http_options){ .connections = 0 });
}

/* A request to one URL, that counts what is asked of it. */
struct ask {
	const char *method, *header;
	char url[300];
	int prepared, refusals, agains; /* so many refusals are said to be worth another try */
};

static int prepare(void *arg, struct warm_http_request *r, const struct warm_call *call,
		   struct warm_error *err)
{
	struct ask *a = arg;

	(void)call;
	(void)err;
	r->method = a->method != NULL ? a->method : "GET";
	warm_http_request_url(r, "%s", a->url);
	if (a->header != NULL)
		warm_http_request_header(r, "%s", a->header);
	warm_http_request_header(r, "X-Try: %d", a->prepared++);
	return 0;
}

static int refused(void *arg, const struct warm_http_response *r, bool *ret_again,
		   struct warm_error *err)
{
	struct ask *a = arg;

	a->refusals++;
	if (a->agains-- > 0) {
		*ret_again = true;
		return 0;
	}
	return warm_error_set(err, r->status >= 500 ? WARM_TRANSIENT : WARM_DENIED,
			      "refused: %.60s", (const char *)r->body.data);
}

static struct ask ask_for(const struct http_server *s, const char *path)
{
	struct ask a = { .method = "GET" };

	snprintf(a.url, sizeof(a.url), "%s%s", http_server_url(s), path);
	return a;
}

static struct warm_http_run run_of(struct ask *a)
{
	return (struct warm_http_run){ .prepare = prepare, .refused = refused, .arg = a };
}

static int take(void *arg, const void *data, size_t bytes, struct warm_error *err)
{
	(void)err;
	warm_buf_put(arg, data, bytes);
	return 0;
}

static struct warm_http_run range_of(struct ask *a, uint64_t offset, uint64_t bytes,
				     struct warm_buf *got)
{
	struct warm_http_run run = run_of(a);

	run.range_offset = offset;
	run.range_bytes = bytes;
	run.sink = take;
	run.sink_arg = got;
	return run;
}

static void assert_bytes(struct warm_buf *got, const void *want, size_t bytes)
{
	assert_int_equal(got->bytes, bytes);
	if (bytes > 0)
		assert_memory_equal(got->data, want, bytes);
	warm_buf_release(got);
}

/* ---- tries ---- */

#define AT_ONCE "Retry-After: 0\r\n"

TEST(a_busy_server_is_asked_again)
{
	static const struct canned answers[] = { { .status = 503, .headers = AT_ONCE },
						 { .status = 429, .headers = AT_ONCE },
						 { .status = 500, .headers = AT_ONCE },
						 { .status = 200, .body = "here" } };
	scope_server struct http_server *s = CANNED(answers);
	scope_http struct warm_http *h = plain_http();
	scope_response struct warm_http_response response = { 0 };
	struct ask a = ask_for(s, "/x?y=1");
	struct warm_http_run run = run_of(&a);

	assert_int_equal(warm_http_run(h, &run, &response, NULL, NULL), 0);
	assert_int_equal(response.status, 200);
	assert_string_equal((char *)response.body.data, "here");
	assert_int_equal(response.body.bytes, 4);
	assert_int_equal(http_server_count(s), 4);
	assert_request(s, 3, "GET /x?y=1");
	assert_header(s, 0, "x-try", "0");
	assert_header(s, 3, "x-try", "3"); /* prepared anew for each */
	assert_header(s, 0, "user-agent", "warmcache/" WARM_VERSION);
	assert_header(s, 0, "expect", NULL);
	assert_int_equal(a.refusals, 0);
}

TEST(a_wait_beyond_the_deadline_is_not_begun)
{
	static const struct canned answers[] = {
		{ .status = 503, .headers = "Retry-After: 20\r\n", .body = "busy" }
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/");
	struct warm_http_run run = run_of(&a);
	struct warm_error err = { 0 };
	int64_t start = warm_clock_ms();
	struct warm_call call = { .deadline_ms = start + 5000 };

	assert_int_equal(warm_http_run(h, &run, NULL, &call, &err), WARM_TRANSIENT);
	assert_true(warm_clock_ms() - start < 1000);
	assert_string_equal(err.msg, "refused: busy");
	assert_int_equal(err.http_status, 503);
}

TEST(five_tries_are_made)
{
	static const struct canned busy = { .status = 503, .headers = AT_ONCE, .body = "busy" };
	const struct canned answers[] = { busy, busy, busy, busy, busy, busy, busy };
	scope_server struct http_server *s = CANNED(answers);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/");
	struct warm_http_run run = run_of(&a);

	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), WARM_TRANSIENT);
	assert_int_equal(http_server_count(s), 5);
	assert_int_equal(a.refusals, 1);
}

TEST(a_metadata_server_that_is_busy_is_asked_again)
{
	static const struct canned answers[] = { { .status = 429, .headers = AT_ONCE },
						 { .status = 503, .headers = AT_ONCE },
						 { .status = 200 } };
	scope_server struct http_server *s = CANNED(answers);
	scope_http struct warm_http *h = open_http((struct warm_http_options){ .local = true });
	struct ask a = ask_for(s, "/");
	struct warm_http_run run = run_of(&a);

	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
	assert_int_equal(http_server_count(s), 3);
}

TEST(a_metadata_server_that_fails_is_asked_once)
{
	static const struct canned answers[] = { { .status = 500, .headers = AT_ONCE },
						 { .status = 200 } };
	scope_server struct http_server *s = CANNED(answers);
	scope_http struct warm_http *h = open_http((struct warm_http_options){ .local = true });
	struct ask a = ask_for(s, "/");
	struct warm_http_run run = run_of(&a);

	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), WARM_TRANSIENT);
	assert_int_equal(http_server_count(s), 1);
}

TEST(a_refusal_is_not_tried_again_by_itself)
{
	static const struct canned answers[] = { { .status = 403, .body = "no" },
						 { .status = 501 },
						 { .status = 304 } };
	scope_server struct http_server *s = CANNED(answers);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/");
	struct warm_http_run run = run_of(&a);
	struct warm_error err = { 0 };

	assert_int_equal(warm_http_run(h, &run, NULL, NULL, &err), WARM_DENIED);
	assert_int_equal(err.http_status, 403);
	assert_string_equal(err.msg, "refused: no");
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), WARM_TRANSIENT);
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), WARM_DENIED);
	assert_int_equal(http_server_count(s), 3);
}

TEST(who_knows_better_now_may_try_again_four_times)
{
	static const struct canned no = { .status = 401 };
	const struct canned answers[] = {
		no, no, no, no, { .status = 200 }, no, no, no, no, no, no
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/");
	struct warm_http_run run = run_of(&a);
	struct warm_error err = { 0 };

	a.agains = 100;
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
	assert_int_equal(http_server_count(s), 5);
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, &err), WARM_TRANSIENT);
	assert_non_null(strstr(err.msg, "401 again and again"));
	assert_int_equal(http_server_count(s), 10);
}

static int fine(void *arg, const struct warm_http_response *r, bool *ret_again,
		struct warm_error *err)
{
	(void)arg;
	(void)r;
	(void)ret_again;
	(void)err;
	return 0;
}

TEST(what_is_no_error_to_the_caller_is_returned_with_its_status)
{
	static const struct canned answers[] = { { .status = 404, .body = "gone" } };
	scope_server struct http_server *s = CANNED(answers);
	scope_http struct warm_http *h = plain_http();
	scope_response struct warm_http_response response = { 0 };
	struct ask a = ask_for(s, "/");
	struct warm_buf got = WARM_BUF_INIT;
	struct warm_http_run run = range_of(&a, 0, 4, &got);

	run.refused = fine;
	assert_int_equal(warm_http_run(h, &run, &response, NULL, NULL), 0);
	assert_int_equal(response.status, 404);
	assert_bytes(&got, "", 0); /* an error's page is never given to the sink */
}

/* ---- ranges ---- */

struct object {
	uint8_t *data;
	size_t bytes;
	uint64_t cuts[4]; /* of the body of each request; 0: none */
	const char *etags[4];
	size_t asked;
};

static void serve_object(void *arg, const struct http_request *request, struct http_reply *reply)
{
	struct object *o = arg;
	size_t i = o->asked++;

	http_reply_object(reply, request, o->data, o->bytes);
	if (i < COUNT(o->cuts) && o->cuts[i] != 0)
		reply->cut = o->cuts[i];
	if (i < COUNT(o->etags) && o->etags[i] != NULL)
		http_reply_header(reply, "ETag: %s", o->etags[i]);
}

TEST(a_body_that_is_cut_goes_on_where_it_was)
{
	struct object o = { noise(1, 400000), 400000, { 200000 }, { "\"a\"", "\"a\"" }, 0 };
	scope_server struct http_server *s = http_server_open(serve_object, &o);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/o");
	struct warm_buf got = WARM_BUF_INIT;
	struct warm_http_run run = range_of(&a, 1000, 300000, &got);

	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
	assert_bytes(&got, o.data + 1000, 300000);
	assert_header(s, 0, "range", "bytes=1000-300999");
	assert_header(s, 1, "range", "bytes=201000-300999");
	assert_int_equal(http_server_count(s), 2);
	free(o.data);
}

TEST(an_object_that_changes_between_two_tries_is_corrupt)
{
	struct object o = { noise(1, 1000), 1000, { 100 }, { "\"a\"", "\"b\"" }, 0 };
	scope_server struct http_server *s = http_server_open(serve_object, &o);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/o");
	struct warm_buf got = WARM_BUF_INIT;
	struct warm_http_run run = range_of(&a, 0, 1000, &got);
	struct warm_error err = { 0 };

	assert_int_equal(warm_http_run(h, &run, NULL, NULL, &err), WARM_CORRUPT);
	assert_non_null(strstr(err.msg, "changed while"));
	assert_int_equal(http_server_count(s), 2);
	assert_bytes(&got, o.data, 100);
	free(o.data);
}

TEST(a_range_that_is_not_the_one_asked_for_is_corrupt)
{
	static const struct canned answers[] = {
		{ .status = 206, .body = "0123456789" },
		{ .status = 206, .body = "0123456789", .headers = "Content-Range: 5-14/20\r\n" },
		{ .status = 206,
		  .body = "0123456789",
		  .headers = "Content-Range: bytes 4-13/20\r\n" },
		{ .status = 206,
		  .body = "0123456789",
		  .headers = "Content-Range: bytes 6-14/20\r\n" },
		{ .status = 206,
		  .body = "0123456789",
		  .headers = "Content-Range: bytes 5-15/20\r\n" },
		{ .status = 206, .body = "01234", .headers = "Content-Range: bytes 5-9/10\r\n" },
		{ .status = 206, .body = "0123456789", .headers = "Content-Range: bytes 5-14\r\n" },
		{ .status = 206,
		  .headers = "Content-Type: multipart/byteranges; boundary=B\r\n",
		  .body = "--B\r\nContent-Range: bytes 5-14/20\r\n\r\n0123456789\r\n--B--" },
		{ .status = 206,
		  .headers = "Content-Range: bytes 5-14/20\r\n",
		  .body = "0123456789 and more than was asked for" },
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/o");
	struct warm_buf got = WARM_BUF_INIT;
	struct warm_http_run run = range_of(&a, 5, 10, &got);

	for (size_t i = 0; i < COUNT(answers); i++) {
		struct warm_error err = { 0 };
		assert_int_equal(warm_http_run(h, &run, NULL, NULL, &err), WARM_CORRUPT);
		assert_int_equal(err.status, WARM_CORRUPT);
		assert_int_equal(http_server_count(s), i + 1); /* not tried again */
		assert_true(got.bytes <= 10);
		if (i == 5)
			assert_non_null(strstr(err.msg, "has 10 bytes, shorter"));
		else
			assert_int_equal(got.bytes, 0);
		got.bytes = 0;
	}
	warm_buf_release(&got);
}

TEST(a_short_answer_is_asked_for_its_rest)
{
	static const struct canned answers[] = {
		{ .status = 206, .body = "56789", .headers = "Content-Range: bytes 5-14/*\r\n" },
		{ .status = 206, .body = "ABCDE", .headers = "Content-Range: bytes 10-14/*\r\n" },
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/o");
	struct warm_buf got = WARM_BUF_INIT;
	struct warm_http_run run = range_of(&a, 5, 10, &got);

	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
	assert_bytes(&got, "56789ABCDE", 10);
	assert_header(s, 1, "range", "bytes=10-14");
}

static void serve_whole(void *arg, const struct http_request *request, struct http_reply *reply)
{
	struct object *o = arg;

	(void)request;
	reply->status = 200;
	warm_buf_put(&reply->body, o->data, o->bytes);
	if (o->cuts[o->asked] != 0)
		reply->cut = o->cuts[o->asked];
	o->asked++;
}

TEST(a_server_without_ranges_is_read_up_to_the_range_and_no_further)
{
	struct object o = { noise(2, 8 << 20), 8 << 20, { 0 }, { NULL }, 0 };
	scope_server struct http_server *s = http_server_open(serve_whole, &o);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/o");
	struct warm_buf got = WARM_BUF_INIT;
	struct warm_http_run run = range_of(&a, 300000, 5000, &got);

	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
	assert_bytes(&got, o.data + 300000, 5000);
	/* The end of the object, and beyond it. */
	run = range_of(&a, (8 << 20) - 10, 10, &got);
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
	assert_bytes(&got, o.data + (8 << 20) - 10, 10);
	run = range_of(&a, (8 << 20) - 10, 11, &got);
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), WARM_CORRUPT);
	assert_int_equal(http_server_count(s), 3);
	warm_buf_release(&got);
	free(o.data);
}

TEST(a_whole_body_that_is_cut_is_resumed_by_skipping)
{
	struct object o = { noise(2, 400000), 400000, { 200000 }, { NULL }, 0 };
	scope_server struct http_server *s = http_server_open(serve_whole, &o);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/o");
	struct warm_buf got = WARM_BUF_INIT;
	struct warm_http_run run = range_of(&a, 100000, 250000, &got);

	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
	assert_bytes(&got, o.data + 100000, 250000);
	assert_int_equal(http_server_count(s), 2);
	free(o.data);
}

static int refuse_bytes(void *arg, const void *data, size_t bytes, struct warm_error *err)
{
	(void)data;
	*(size_t *)arg += bytes;
	return warm_error_set(err, WARM_EXISTS, "enough");
}

TEST(a_sinks_error_is_returned_as_it_is)
{
	struct object o = { noise(1, 1000), 1000, { 0 }, { NULL }, 0 };
	scope_server struct http_server *s = http_server_open(serve_object, &o);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/o");
	struct warm_http_run run = range_of(&a, 0, 1000, NULL);
	struct warm_error err = { 0 };
	size_t got = 0;

	run.sink = refuse_bytes;
	run.sink_arg = &got;
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, &err), WARM_EXISTS);
	assert_string_equal(err.msg, "enough");
	assert_int_equal(http_server_count(s), 1);
	free(o.data);
}

/* ---- redirects ---- */

struct route {
	char there[300];
	int status;
	int left; /* redirects before "here" is answered */
};

static void redirect(void *arg, const struct http_request *request, struct http_reply *reply)
{
	struct route *r = arg;

	(void)request;
	if (r->left-- > 0) {
		http_reply_text(reply, r->status, "moved");
		http_reply_header(reply, "Location: %s", r->there);
		return;
	}
	http_reply_text(reply, 200, "here");
}

TEST(a_redirect_on_the_same_origin_keeps_the_headers)
{
	static const int statuses[] = { 301, 302, 303, 307, 308 };
	struct route r = { "../b?c=d", 0, 0 };
	scope_server struct http_server *s = http_server_open(redirect, &r);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/x/a");
	struct warm_http_run run = run_of(&a);

	a.header = "Authorization: Bearer secret";
	run.follow = true;
	for (size_t i = 0; i < COUNT(statuses); i++) {
		r.left = 1;
		r.status = statuses[i];
		assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
		assert_request(s, 2 * i, "GET /x/a");
		assert_request(s, 2 * i + 1, "GET /b?c=d");
		assert_header(s, 2 * i + 1, "authorization", "Bearer secret");
	}
}

TEST(a_redirect_to_another_origin_loses_the_headers_but_keeps_the_range)
{
	struct object o = { noise(1, 1000), 1000, { 0 }, { NULL }, 0 };
	struct route r = { "", 307, 1 };
	scope_server struct http_server *s = http_server_open(redirect, &r);
	scope_server struct http_server *other = http_server_open(serve_object, &o);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/a");
	struct warm_buf got = WARM_BUF_INIT;
	struct warm_http_run run = range_of(&a, 10, 20, &got);

	snprintf(r.there, sizeof(r.there), "%s/signed?X-Signature=1", http_server_url(other));
	a.header = "Authorization: Bearer secret";
	run.follow = true;
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
	assert_header(s, 0, "authorization", "Bearer secret");
	assert_request(other, 0, "GET /signed?X-Signature=1");
	assert_header(other, 0, "authorization", NULL);
	assert_header(other, 0, "x-try", NULL);
	assert_header(other, 0, "range", "bytes=10-29");
	assert_bytes(&got, o.data + 10, 20);
	free(o.data);
}

TEST(a_redirect_is_a_refusal_to_who_does_not_follow)
{
	struct route r = { "/b", 307, 1 };
	scope_server struct http_server *s = http_server_open(redirect, &r);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/a");
	struct warm_http_run run = run_of(&a);

	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), WARM_DENIED);
	assert_int_equal(a.refusals, 1);
	assert_int_equal(http_server_count(s), 1);
}

TEST(five_redirects_are_followed_and_not_six)
{
	struct route r = { "/b", 302, 5 };
	scope_server struct http_server *s = http_server_open(redirect, &r);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/a");
	struct warm_http_run run = run_of(&a);
	struct warm_error err = { 0 };

	run.follow = true;
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
	r.left = 6;
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, &err), WARM_CORRUPT);
	assert_non_null(strstr(err.msg, "over 5 redirects"));
	assert_int_equal(http_server_count(s), 12);
}

TEST(a_redirect_to_nowhere_is_an_error)
{
	static const struct canned answers[] = {
		{ .status = 302 },
		{ .status = 302, .headers = "Location: file:///etc/passwd\r\n" },
		{ .status = 302, .headers = "Location: http://:x/\r\n" },
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/a");
	struct warm_http_run run = run_of(&a);

	run.follow = true;
	for (size_t i = 0; i < COUNT(answers); i++) {
		int rc = warm_http_run(h, &run, NULL, NULL, NULL);
		assert_true(rc == WARM_CORRUPT || rc == WARM_INVALID);
		assert_int_equal(http_server_count(s), i + 1);
	}
}

/* ---- TLS ---- */

TEST(a_redirect_away_from_tls_is_refused)
{
	scope_scratch struct scratch dir = scratch_open();
	struct route r = { "", 302, 1 };
	scope_server struct http_server *s = http_server_open_tls(scratch_path(&dir, "ca.pem"),
								  redirect, &r);
	scope_server struct http_server *plain = http_server_open(redirect, &r);
	scope_http struct warm_http *h =
		open_http((struct warm_http_options){ .ca_file = scratch_path(&dir, "ca.pem") });
	struct ask a = ask_for(s, "/a");
	struct warm_http_run run = run_of(&a);
	struct warm_error err = { 0 };

	snprintf(r.there, sizeof(r.there), "%s/secret-path", http_server_url(plain));
	run.follow = true;
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, &err), WARM_DENIED);
	assert_non_null(strstr(err.msg, "away from TLS"));
	assert_null(strstr(err.msg, "secret-path"));
	assert_int_equal(http_server_count(plain), 0);
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
}

TEST(a_certificate_that_is_not_trusted_is_denied_with_advice)
{
	scope_scratch struct scratch dir = scratch_open();
	struct route r = { "", 302, 0 };
	scope_server struct http_server *s = http_server_open_tls(scratch_path(&dir, "ca.pem"),
								  redirect, &r);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/a");
	struct warm_http_run run = run_of(&a);
	struct warm_error err = { 0 };
	struct warm_http *none = NULL;

	assert_int_equal(warm_http_run(h, &run, NULL, NULL, &err), WARM_DENIED);
	assert_non_null(strstr(err.msg, "isn't trusted"));
	assert_non_null(strstr(err.msg, "ca=FILE"));
	assert_int_equal(http_server_count(s), 0);
	struct warm_http_options bad = { .ca_file = "/nonexistent/ca.pem" };
	assert_int_equal(warm_http_open(&bad, &none, &err), WARM_INVALID);
	put_text(dir.fd, "no.pem", "no certificate");
	bad.ca_file = scratch_path(&dir, "no.pem");
	assert_int_equal(warm_http_open(&bad, &none, NULL), 0);
	assert_int_equal(warm_http_run(none, &run, NULL, NULL, &err), WARM_DENIED);
	assert_non_null(strstr(err.msg, "no certificates (PEM)"));
	warm_http_free(none);
	setenv("SSL_CERT_FILE", scratch_path(&dir, "ca.pem"), 1);
	struct warm_http_options system = { .connections = 1 };
	assert_int_equal(warm_http_open(&system, &none, NULL), 0);
	assert_int_equal(warm_http_run(none, &run, NULL, NULL, NULL), 0);
	warm_http_free(none);
	unsetenv("SSL_CERT_FILE");
}

/* ---- ends ---- */

static void *set_soon(void *arg)
{
	usleep(250 * 1000);
	atomic_store((atomic_bool *)arg, true);
	return NULL;
}

TEST(a_cancel_ends_a_call_that_hangs)
{
	static const struct canned answers[] = {
		{ .status = 200, .body = "never the end", .length = 100, .hang = true },
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/a");
	struct warm_http_run run = run_of(&a);
	atomic_bool cancel = false;
	struct warm_call call = { .cancel = &cancel };
	struct warm_error err = { 0 };
	int64_t start = warm_clock_ms();
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, set_soon, &cancel), 0);
	assert_int_equal(warm_http_run(h, &run, NULL, &call, &err), WARM_CANCELED);
	assert_in_range(warm_clock_ms() - start, 250, 600);
	assert_int_equal(err.status, WARM_CANCELED);
	pthread_join(thread, NULL);
	assert_int_equal(http_server_count(s), 1);
}

TEST(a_deadline_ends_a_call_that_hangs)
{
	static const struct canned answers[] = { { .status = 200, .length = 9, .hang = true },
						 { .status = 200 } };
	scope_server struct http_server *s = CANNED(answers);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/a");
	struct warm_http_run run = run_of(&a);
	int64_t start = warm_clock_ms();
	struct warm_call call = { .deadline_ms = start + 150 };

	assert_int_equal(warm_http_run(h, &run, NULL, &call, NULL), WARM_CANCELED);
	assert_in_range(warm_clock_ms() - start, 140, 400);
	assert_int_equal(warm_http_run(h, &run, NULL, &call, NULL), WARM_CANCELED);
	assert_int_equal(http_server_count(s), 1); /* past it nothing is sent */
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
}

TEST(a_server_that_says_nothing_has_stalled)
{
	static const struct canned answers[] = { { .status = 200, .length = 9, .hang = true } };
	scope_server struct http_server *s = CANNED(answers);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/a");
	struct warm_http_run run = run_of(&a);
	struct warm_error err = { 0 };

	run.answer_ms = 500;
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, &err), WARM_TRANSIENT);
	assert_non_null(strstr(err.msg, "has stalled"));
}

TEST(a_server_that_was_never_reached_is_tried_once)
{
	scope_http struct warm_http *h = plain_http();
	struct ask a = { .method = "GET" };
	struct warm_http_run run = run_of(&a);
	struct warm_error err = { 0 };
	char want[60];
	int port = closed_port();

	snprintf(a.url, sizeof(a.url), "http://127.0.0.1:%d/a?token=secret", port);
	snprintf(want, sizeof(want), "can't connect to 127.0.0.1:%d", port);
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, &err), WARM_TRANSIENT);
	assert_int_equal(a.prepared, 1);
	assert_int_equal(err.os_errno, ECONNREFUSED);
	assert_non_null(strstr(err.msg, want));
	assert_null(strstr(err.msg, "secret"));
}

TEST(a_server_that_was_reached_is_tried_again_when_it_hangs_up)
{
	static const struct canned answers[] = { { .status = 200 },
						 { .status = 0 },
						 { .status = 200 } };
	scope_server struct http_server *s = CANNED(answers);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/a");
	struct warm_http_run run = run_of(&a);

	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
	assert_int_equal(http_server_count(s), 3);
}

struct late {
	int port;
	struct http_server *server;
	struct route route;
};

static void *open_late(void *arg)
{
	struct late *l = arg;

	usleep(150 * 1000);
	l->server = http_server_open_at(l->port, redirect, &l->route);
	return NULL;
}

TEST(a_connection_that_is_refused_is_tried_as_long_as_wanted)
{
	struct late l = { .port = closed_port() };
	scope_http struct warm_http *h = open_http((struct warm_http_options){ .local = true });
	struct ask a = { .method = "GET" };
	struct warm_http_run run = run_of(&a);
	int64_t start = warm_clock_ms();
	pthread_t thread;

	snprintf(a.url, sizeof(a.url), "http://127.0.0.1:%d/", l.port);
	run.retry_refused_ms = 150;
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), WARM_TRANSIENT);
	assert_in_range(warm_clock_ms() - start, 100, 500);
	assert_true(a.prepared > 1);
	assert_int_equal(pthread_create(&thread, NULL, open_late, &l), 0);
	run.retry_refused_ms = 5000;
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
	pthread_join(thread, NULL);
	http_server_close(l.server);
}

/* ---- bodies ---- */

static void busy_once(void *arg, const struct http_request *request, struct http_reply *reply)
{
	(void)request;
	if ((*(int *)arg)++ == 0) {
		http_reply_text(reply, 503, "");
		http_reply_header(reply, "Retry-After: 0");
		return;
	}
	http_reply_text(reply, 200, "");
}

TEST(a_part_of_a_file_is_sent_whole_at_each_try)
{
	scope_scratch struct scratch dir = scratch_open();
	int asked = 0;
	scope_server struct http_server *s = http_server_open(busy_once, &asked);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/a");
	struct warm_http_run run = run_of(&a);
	uint8_t *data = noise(1, 3000000);

	put_file(dir.fd, "f", data, 3000000, 0600, 0);
	scope_close int fd = openat(dir.fd, "f", O_RDONLY | O_CLOEXEC);
	a.method = "PUT";
	run.fd = fd;
	run.fd_offset = 1000;
	run.body_bytes = 2900000;
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
	for (size_t i = 0; i < 2; i++) {
		const struct http_request *r = http_server_request(s, i);
		assert_request(s, i, "PUT /a");
		assert_header(s, i, "content-length", "2900000");
		assert_header(s, i, "transfer-encoding", NULL);
		assert_int_equal(r->body.bytes, 2900000);
		assert_memory_equal(r->body.data, data + 1000, 2900000);
	}
	assert_int_equal(lseek(fd, 0, SEEK_CUR), 0);
	free(data);
}

TEST(a_file_that_is_too_short_is_no_upload)
{
	scope_scratch struct scratch dir = scratch_open();
	int asked = 1;
	scope_server struct http_server *s = http_server_open(busy_once, &asked);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/a");
	struct warm_http_run run = run_of(&a);

	put_text(dir.fd, "f", "short");
	scope_close int fd = openat(dir.fd, "f", O_RDONLY | O_CLOEXEC);
	a.method = "PUT";
	run.fd = fd;
	run.body_bytes = 6;
	assert_int_not_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
	assert_int_equal(http_server_count(s), 0);
}

TEST(bodies_of_memory_and_empty_ones_are_sent)
{
	int asked = 1;
	scope_server struct http_server *s = http_server_open(busy_once, &asked);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/a");
	struct warm_http_run run = run_of(&a);

	a.method = "POST";
	run.data = "a=b";
	run.body_bytes = 3;
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
	run.data = NULL;
	run.body_bytes = 0;
	run.has_body = true;
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
	a.method = "DELETE";
	run.has_body = false;
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
	assert_request(s, 0, "POST /a");
	assert_string_equal((char *)http_server_request(s, 0)->body.data, "a=b");
	assert_header(s, 0, "content-length", "3");
	assert_request(s, 1, "POST /a");
	assert_header(s, 1, "content-length", "0");
	assert_request(s, 2, "DELETE /a");
	assert_header(s, 2, "content-length", NULL);
}

TEST(bytes_of_bodies_are_counted_both_ways)
{
	struct object o = { noise(1, 5000), 5000, { 0 }, { NULL }, 0 };
	scope_server struct http_server *s = http_server_open(serve_object, &o);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/a");
	struct warm_http_run run = run_of(&a);
	uint64_t before = warm_http_moved();

	run.data = "0123456789";
	run.body_bytes = 10;
	a.method = "POST";
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
	assert_int_equal(warm_http_moved() - before, 5010);
	free(o.data);
}

TEST(a_body_above_the_limit_is_refused_and_an_error_page_cut)
{
	char page[5000];
	const struct canned answers[] = { { .status = 200, .body = page },
					  { .status = 200, .body = page },
					  { .status = 403, .body = page } };
	scope_server struct http_server *s = CANNED(answers);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/a");
	struct warm_http_run run = run_of(&a);
	struct warm_error err = { 0 };

	memset(page, 'x', sizeof(page));
	page[sizeof(page) - 1] = '\0';
	run.max_body_bytes = sizeof(page) - 1;
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, &err), 0);
	run.max_body_bytes = sizeof(page) - 2;
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, &err), WARM_LIMIT);
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, &err), WARM_DENIED);
	assert_int_equal(http_server_count(s), 3);
}

TEST(a_head_has_headers_and_no_body)
{
	struct object o = { noise(1, 1000), 1000, { 0 }, { NULL }, 0 };
	scope_server struct http_server *s = http_server_open(serve_object, &o);
	scope_http struct warm_http *h = plain_http();
	scope_response struct warm_http_response response = { 0 };
	struct ask a = ask_for(s, "/a");
	struct warm_http_run run = run_of(&a);

	a.method = "HEAD";
	assert_int_equal(warm_http_run(h, &run, &response, NULL, NULL), 0);
	assert_request(s, 0, "HEAD /a");
	assert_string_equal(warm_http_header(&response, "content-length"), "1000");
	assert_int_equal(response.body.bytes, 0);
	free(o.data);
}

TEST(a_body_that_is_shorter_than_it_says_is_asked_for_again)
{
	static const struct canned answers[] = {
		{ .status = 200, .body = "half", .length = 8, .cut = 4 },
		{ .status = 200, .body = "complete" }
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_http struct warm_http *h = plain_http();
	scope_response struct warm_http_response response = { 0 };
	struct ask a = ask_for(s, "/a");
	struct warm_http_run run = run_of(&a);

	assert_int_equal(warm_http_run(h, &run, &response, NULL, NULL), 0);
	assert_string_equal((char *)response.body.data, "complete");
}

TEST(an_answer_that_is_cut_behind_its_head_is_asked_for_again)
{
	static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
	static const struct canned answers[] = {
		{ .status = 1, .bare = true, .body = head, .cut = sizeof(head) - 1 },
		{ .status = 200, .body = "complete" }
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/");
	struct warm_http_run run = run_of(&a);

	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
}

/* ---- heads ---- */

#define OK_HEAD "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"

TEST(the_head_is_that_of_the_final_answer)
{
	static const struct canned answers[] = {
		{ .status = 1,
		  .bare = true,
		  .body = "HTTP/1.1 100 Continue\r\nX-First: 1\r\n\r\n" OK_HEAD
			  "Date: Tue, 15 Nov 1994 08:12:31 GMT\r\nx-SECOND:  two \r\n\r\n" }
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_http struct warm_http *h = plain_http();
	scope_response struct warm_http_response response = { 0 };
	struct ask a = ask_for(s, "/a");
	struct warm_http_run run = run_of(&a);

	assert_int_equal(warm_http_run(h, &run, &response, NULL, NULL), 0);
	assert_null(warm_http_header(&response, "X-First"));
	assert_string_equal(warm_http_header(&response, "X-Second"), "two");
	assert_null(warm_http_header(&response, "X-Sec"));
	assert_int_equal(warm_http_date(&response), 784887151000);
}

TEST(a_head_that_is_no_http_is_an_error_and_no_crash)
{
	char huge[40000];
	const struct canned answers[] = {
		{ .status = 1, .bare = true, .body = huge },
		{ .status = 1, .bare = true, .body = "SSH-2.0-OpenSSH_9.2\r\n\r\n", .cut = 23 },
		{ .status = 1, .bare = true, .body = "\r\n\r\n", .cut = 4 },
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/a");
	struct warm_http_run run = run_of(&a);

	size_t n = strlen(strcpy(huge, OK_HEAD));
	while (n < 36000)
		n += (size_t)sprintf(huge + n, "X-Header-%05zu: %0200d\r\n", n, 1);
	strcpy(huge + n, "\r\n");
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), WARM_CORRUPT);
	for (size_t i = 1; i < COUNT(answers); i++) {
		struct warm_error err = { 0 };
		assert_int_not_equal(warm_http_run(h, &run, NULL, NULL, &err), 0);
		assert_int_equal(http_server_count(s), i + 1);
	}
}

static void serve_nul(void *arg, const struct http_request *request, struct http_reply *reply)
{
	static const char head[] = OK_HEAD "X-Nul: a\0b\r\n\r\n";

	(void)arg;
	(void)request;
	reply->status = 1;
	reply->bare = true;
	warm_buf_put(&reply->body, head, sizeof(head) - 1);
}

TEST(a_header_with_a_nul_is_refused)
{
	scope_server struct http_server *s = http_server_open(serve_nul, NULL);
	scope_http struct warm_http *h = open_http((struct warm_http_options){ .local = true });
	struct ask a = ask_for(s, "/a");
	struct warm_http_run run = run_of(&a);

	assert_int_not_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
	assert_int_equal(http_server_count(s), 1);
}

static int prepare_many(void *arg, struct warm_http_request *r, const struct warm_call *call,
			struct warm_error *err)
{
	for (int i = 0; i < WARM_HTTP_HEADERS; i++)
		warm_http_request_header(r, "X-%d: 1", i);
	return prepare(arg, r, call, err);
}

TEST(a_request_with_too_many_headers_is_not_sent)
{
	scope_server struct http_server *s = http_server_canned(NULL, 0);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/a");
	struct warm_http_run run = run_of(&a);

	run.prepare = prepare_many;
	assert_int_not_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
	assert_int_equal(http_server_count(s), 0);
}

/* ---- connections ---- */

TEST(one_connection_serves_many_requests)
{
	int asked = 1;
	scope_server struct http_server *s = http_server_open(busy_once, &asked);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/a");
	struct warm_http_run run = run_of(&a);

	for (size_t i = 0; i < 50; i++)
		assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
	for (size_t i = 0; i < 50; i++)
		assert_int_equal(http_server_request(s, i)->connection, 0);
}

struct crowd {
	struct warm_http *http;
	const struct http_server *server;
	const struct object *object;
	atomic_int failures;
	unsigned number;
};

static void *read_ranges(void *arg)
{
	struct crowd *c = arg;
	struct ask a = ask_for(c->server, "/o");

	for (size_t i = 0; i < 20; i++) {
		struct warm_buf got = WARM_BUF_INIT;
		struct warm_http_run run = range_of(&a, i * 1000, 50000, &got);
		if (warm_http_run(c->http, &run, NULL, NULL, NULL) != 0 || got.bytes != 50000 ||
		    memcmp(got.data, c->object->data + i * 1000, 50000) != 0)
			atomic_fetch_add(&c->failures, 1);
		warm_buf_release(&got);
	}
	return NULL;
}

static void crowd_at(unsigned connections)
{
	struct object o = { noise(1, 100000), 100000, { 0 }, { NULL }, 0 };
	scope_server struct http_server *s = http_server_open(serve_object, &o);
	scope_http struct warm_http *h =
		open_http((struct warm_http_options){ .connections = connections });
	struct crowd c = { .http = h, .server = s, .object = &o };
	pthread_t threads[16];

	for (size_t i = 0; i < COUNT(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_ranges, &c), 0);
	for (size_t i = 0; i < COUNT(threads); i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(c.failures, 0);
	assert_int_equal(http_server_count(s), 320);
	for (size_t i = 0; i < 320; i++)
		assert_true(http_server_request(s, i)->connection < connections);
	free(o.data);
}

TEST(sixteen_threads_share_a_client)
{
	crowd_at(16);
}

TEST(threads_wait_for_one_of_few_connections)
{
	crowd_at(2);
}

TEST(a_proxy_is_used_but_not_for_metadata)
{
	int asked = 1;
	scope_server struct http_server *s = http_server_open(busy_once, &asked);
	scope_http struct warm_http *h = plain_http();
	scope_http struct warm_http *local = open_http((struct warm_http_options){ .local = true });
	struct ask a = { .method = "GET", .url = "http://127.0.0.1:1/a" };
	struct warm_http_run run = run_of(&a);

	setenv("http_proxy", http_server_url(s), 1);
	unsetenv("NO_PROXY");
	assert_int_equal(warm_http_run(h, &run, NULL, NULL, NULL), 0);
	assert_request(s, 0, "GET http://127.0.0.1:1/a");
	assert_int_equal(warm_http_run(local, &run, NULL, NULL, NULL), WARM_TRANSIENT);
	assert_int_equal(http_server_count(s), 1);
	no_clouds();
}

/* ---- URLs ---- */

TEST(origins_are_scheme_host_and_port)
{
	static const struct {
		const char *a, *b;
		bool same;
	} rows[] = {
		{ "http://h/a", "http://h/b?c", true },
		{ "http://h/a", "http://h:80/", true },
		{ "https://h/a", "https://H:443/", true },
		{ "http://h/a", "https://h/a", false },
		{ "http://h:80/", "http://h:8080/", false },
		{ "http://h/", "http://h.evil/", false },
		{ "http://h/", "http://h@evil/", false },
		{ "http://h/", "http://evil/h", false },
		{ "http://h/", "", false },
	};

	for (size_t i = 0; i < COUNT(rows); i++)
		assert_int_equal(warm_http_same_origin(rows[i].a, rows[i].b), rows[i].same);
}

TEST(references_are_resolved_against_their_base)
{
	static const struct {
		const char *base, *reference, *want;
	} rows[] = {
		{ "http://h:5000", "/v2/x?y=z", "http://h:5000/v2/x?y=z" },
		{ "http://h/a/b?c", "d", "http://h/a/d" },
		{ "https://h/a", "//other/x", "https://other/x" },
		{ "https://h/a", "http://other/x", "http://other/x" },
		{ "https://h/a/b", "?n=1", "https://h/a/b?n=1" },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		char *have = warm_http_resolve(rows[i].base, rows[i].reference);
		assert_string_equal(have, rows[i].want);
		free(have);
	}
	assert_null(warm_http_resolve("", "/x"));
}

TEST(dates_are_those_of_http)
{
	assert_int_equal(warm_http_parse_date("Sun, 06 Nov 1994 08:49:37 GMT"), 784111777000);
	assert_int_equal(warm_http_parse_date("soon"), -1);
	assert_int_equal(warm_http_parse_date(""), -1);
	assert_int_equal(warm_http_parse_date(NULL), -1);
}

TEST(a_wait_that_is_very_long_is_no_short_one)
{
	static const struct canned answers[] = {
		{ .status = 503, .headers = "Retry-After: 9223372036854775807\r\n" },
		{ .status = 200 }
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_http struct warm_http *h = plain_http();
	struct ask a = ask_for(s, "/");
	struct warm_http_run run = run_of(&a);
	struct warm_call call = { .deadline_ms = warm_clock_ms() + 5000 };

	assert_int_equal(warm_http_run(h, &run, NULL, &call, NULL), WARM_TRANSIENT);
	assert_int_equal(http_server_count(s), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_busy_server_is_asked_again),
		cmocka_unit_test(a_wait_beyond_the_deadline_is_not_begun),
		cmocka_unit_test(five_tries_are_made),
		cmocka_unit_test(a_metadata_server_that_is_busy_is_asked_again),
		cmocka_unit_test(a_metadata_server_that_fails_is_asked_once),
		cmocka_unit_test(a_refusal_is_not_tried_again_by_itself),
		cmocka_unit_test(who_knows_better_now_may_try_again_four_times),
		cmocka_unit_test(what_is_no_error_to_the_caller_is_returned_with_its_status),
		cmocka_unit_test(a_body_that_is_cut_goes_on_where_it_was),
		cmocka_unit_test(an_object_that_changes_between_two_tries_is_corrupt),
		cmocka_unit_test(a_range_that_is_not_the_one_asked_for_is_corrupt),
		cmocka_unit_test(a_short_answer_is_asked_for_its_rest),
		cmocka_unit_test(a_server_without_ranges_is_read_up_to_the_range_and_no_further),
		cmocka_unit_test(a_whole_body_that_is_cut_is_resumed_by_skipping),
		cmocka_unit_test(a_sinks_error_is_returned_as_it_is),
		cmocka_unit_test(a_redirect_on_the_same_origin_keeps_the_headers),
		cmocka_unit_test(
			a_redirect_to_another_origin_loses_the_headers_but_keeps_the_range),
		cmocka_unit_test(a_redirect_is_a_refusal_to_who_does_not_follow),
		cmocka_unit_test(five_redirects_are_followed_and_not_six),
		cmocka_unit_test(a_redirect_to_nowhere_is_an_error),
		cmocka_unit_test(a_redirect_away_from_tls_is_refused),
		cmocka_unit_test(a_certificate_that_is_not_trusted_is_denied_with_advice),
		cmocka_unit_test(a_cancel_ends_a_call_that_hangs),
		cmocka_unit_test(a_deadline_ends_a_call_that_hangs),
		cmocka_unit_test(a_server_that_says_nothing_has_stalled),
		cmocka_unit_test(a_server_that_was_never_reached_is_tried_once),
		cmocka_unit_test(a_server_that_was_reached_is_tried_again_when_it_hangs_up),
		cmocka_unit_test(a_connection_that_is_refused_is_tried_as_long_as_wanted),
		cmocka_unit_test(a_part_of_a_file_is_sent_whole_at_each_try),
		cmocka_unit_test(a_file_that_is_too_short_is_no_upload),
		cmocka_unit_test(bodies_of_memory_and_empty_ones_are_sent),
		cmocka_unit_test(bytes_of_bodies_are_counted_both_ways),
		cmocka_unit_test(a_body_above_the_limit_is_refused_and_an_error_page_cut),
		cmocka_unit_test(a_head_has_headers_and_no_body),
		cmocka_unit_test(a_body_that_is_shorter_than_it_says_is_asked_for_again),
		cmocka_unit_test(an_answer_that_is_cut_behind_its_head_is_asked_for_again),
		cmocka_unit_test(the_head_is_that_of_the_final_answer),
		cmocka_unit_test(a_head_that_is_no_http_is_an_error_and_no_crash),
		cmocka_unit_test(a_header_with_a_nul_is_refused),
		cmocka_unit_test(a_request_with_too_many_headers_is_not_sent),
		cmocka_unit_test(one_connection_serves_many_requests),
		cmocka_unit_test(sixteen_threads_share_a_client),
		cmocka_unit_test(threads_wait_for_one_of_few_connections),
		cmocka_unit_test(a_proxy_is_used_but_not_for_metadata),
		cmocka_unit_test(origins_are_scheme_host_and_port),
		cmocka_unit_test(references_are_resolved_against_their_base),
		cmocka_unit_test(dates_are_those_of_http),
		cmocka_unit_test(a_wait_that_is_very_long_is_no_short_one),
	};

	return RUN(tests);
}
