/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A web server as a store that is only read: names below a URL, and LIST by the head objects that
 * `warmcache head` writes into the store behind it.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/file.h"
#include "lib/store/backend.h"
#include "lib/store/head.h"
#include "lib/store/http.h"
#include "lib/store/url.h"

enum { TOKEN_BYTES = 64 << 10 };

struct web {
	struct warm_url url;
	const char *scheme;
	const char *bearer_file;
	struct warm_http *http;
};

struct op {
	struct web *w;
	const char *method, *name;
	bool missing; /* 404; no error */
};

static void web_free(void *state)
{
	struct web *w = state;

	if (w == NULL)
		return;
	warm_http_free(w->http);
	warm_url_release(&w->url);
	free(w);
}

static int web_open(const char *scheme, const char *rest, void **ret_state, struct warm_error *err)
{
	static const char *const known[] = { "bearer-file", "ca", "connections", NULL };
	struct web *w = calloc(1, sizeof(*w));

	if (w == NULL)
		return warm_error_nomem(err, sizeof(*w));
	w->scheme = scheme;
	int rc = warm_url_parse(rest, known, &w->url, err);
	if (rc == 0)
		rc = warm_http_open_url(&w->url, NULL, &w->http, err);
	if (rc == 0)
		w->bearer_file = warm_url_param(&w->url, "bearer-file", NULL);
	if (rc != 0) {
		web_free(w);
		return rc;
	}
	*ret_state = w;
	return 0;
}

static unsigned web_connections(const void *state)
{
	const struct web *s = state;

	return warm_http_connections(s->http);
}

static int http_open(const char *rest, void **ret_state, struct warm_error *err)
{
	return web_open("http", rest, ret_state, err);
}

static int https_open(const char *rest, void **ret_state, struct warm_error *err)
{
	return web_open("https", rest, ret_state, err);
}

static int put_bearer(const struct web *w, struct warm_http_request *r, struct warm_error *err)
{
	scope_free char *token = NULL;
	size_t bytes = 0;
	struct warm_error why = { 0 };

	if (warm_file_load(AT_FDCWD, w->bearer_file, TOKEN_BYTES, &token, &bytes, &why) != 0)
		return warm_error_set(err, WARM_DENIED, "bearer-file=%.100s: %.100s",
				      w->bearer_file, why.msg);
	while (bytes > 0 && strchr(" \t\r\n", token[bytes - 1]) != NULL)
		token[--bytes] = '\0';
	if (bytes == 0 || strpbrk(token, "\r\n") != NULL)
		return warm_error_set(err, WARM_INVALID, "bearer-file=%.100s: not one line",
				      w->bearer_file);
	warm_http_request_header(r, "Authorization: Bearer %s", token);
	return 0;
}

static int prepare(void *arg, struct warm_http_request *r, const struct warm_call *call,
		   struct warm_error *err)
{
	struct op *op = arg;
	scope_buf struct warm_buf path = WARM_BUF_INIT;

	(void)call;
	if (op->w->url.prefix[0] != '\0') {
		warm_buf_put_u8(&path, '/');
		warm_buf_put(&path, op->w->url.prefix, strlen(op->w->url.prefix));
	}
	warm_buf_put_u8(&path, '/');
	warm_url_encode(&path, op->name, true);
	warm_buf_put_u8(&path, 0);
	if (path.failed)
		return warm_error_nomem(err, path.bytes);
	r->method = op->method;
	warm_http_request_url(r, "%s://%s%s", op->w->scheme, op->w->url.host,
			      (const char *)path.data);
	return op->w->bearer_file != NULL ? put_bearer(op->w, r, err) : 0;
}

static int refused(void *arg, const struct warm_http_response *r, bool *ret_again,
		   struct warm_error *err)
{
	struct op *op = arg;
	long status = r->status;

	(void)ret_again;
	op->missing = status == 404 || status == 410;
	if (status == 401 || status == 403)
		return warm_error_set(err, WARM_DENIED, "%ld for %s%s", status, op->method,
				      op->w->bearer_file != NULL
					      ? " with the token of bearer-file"
					      : ": give a token by bearer-file=FILE in the URL");
	if (status == 416)
		return warm_error_set(err, WARM_CORRUPT, "416: shorter than it should be");
	return warm_error_set(err,
			      op->missing		       ? WARM_NOT_FOUND
			      : status >= 500 || status == 429 ? WARM_TRANSIENT
							       : WARM_DENIED,
			      "%ld for %s", status, op->method);
}

static struct warm_http_run run_of(struct op *op)
{
	return (struct warm_http_run){
		.prepare = prepare, .refused = refused, .arg = op, .follow = true
	};
}

static int web_head(void *state, const char *name, struct warm_object *ret_object,
		    const struct warm_call *call, struct warm_error *err)
{
	struct op op = { state, "HEAD", name, false };
	struct warm_http_run run = run_of(&op);
	scope_response struct warm_http_response response = { 0 };
	int rc = warm_http_run(op.w->http, &run, &response, call, err);

	if (rc != 0)
		return rc;
	const char *length = warm_http_header(&response, "content-length");
	if (length == NULL)
		return warm_error_set(err, WARM_CORRUPT, "the server doesn't say how long it is");
	*ret_object = (struct warm_object){
		.name = name,
		.bytes = strtoull(length, NULL, 10),
		.modified_ms = warm_http_parse_date(warm_http_header(&response, "last-modified")),
	};
	return 0;
}

static int web_get(void *state, const char *name, uint64_t offset, uint64_t bytes,
		   warm_sink_fn sink, void *arg, const struct warm_call *call,
		   struct warm_error *err)
{
	struct op op = { state, "GET", name, false };
	struct warm_http_run run = run_of(&op);

	run.range_offset = offset;
	run.range_bytes = bytes;
	run.sink = sink;
	run.sink_arg = arg;
	return bytes == 0 ? 0 : warm_http_run(op.w->http, &run, NULL, call, err);
}

struct listing {
	struct web *w;
	warm_list_fn fn;
	void *arg;
	const struct warm_call *call;
	int64_t now_ms;
};

static int read_head(struct listing *l, const char *name, const char *prefix, warm_list_fn fn,
		     void *arg, struct warm_error *err)
{
	struct op op = { l->w, "GET", name, false };
	struct warm_http_run run = run_of(&op);
	scope_response struct warm_http_response response = { 0 };

	run.max_body_bytes = WARM_HEAD_BYTES;
	int rc = warm_http_run(l->w->http, &run, &response, l->call, err);
	if (rc != 0)
		return rc;
	l->now_ms = warm_http_date(&response);
	return warm_head_parse((const char *)response.body.data, response.body.bytes, prefix, fn,
			       arg, err);
}

static int list_model(void *arg, const struct warm_object *object, struct warm_error *err)
{
	struct listing *l = arg;
	int rc = read_head(l, object->name, "", l->fn, l->arg, err);

	return rc == WARM_NOT_FOUND ? 0 : rc;
}

static int nothing(void *arg, const struct warm_object *object, struct warm_error *err)
{
	(void)arg;
	(void)object;
	(void)err;
	return 0;
}

static int web_list(void *state, const char *prefix, warm_list_fn fn, void *arg,
		    int64_t *ret_now_ms, const struct warm_call *call, struct warm_error *err)
{
	struct listing l = { state, fn, arg, call, -1 };
	size_t model = strcspn(prefix, "/");
	char name[300];
	int rc;

	if (prefix[0] == '\0') {
		rc = read_head(&l, WARM_HEAD_NAME, "", list_model, &l, err);
	} else {
		if (model + sizeof("/" WARM_HEAD_NAME) > sizeof(name))
			return warm_error_set(err, WARM_INVALID, "prefix too long");
		snprintf(name, sizeof(name), "%.*s/" WARM_HEAD_NAME, (int)model, prefix);
		rc = read_head(&l, name, prefix, fn, arg, err);
		/* A model that isn't there, or a server that has no heads at all? */
		if (rc == WARM_NOT_FOUND)
			rc = read_head(&l, WARM_HEAD_NAME, "", nothing, NULL, err);
	}
	if (rc == WARM_NOT_FOUND)
		return warm_error_set(err, WARM_UNSUPPORTED,
				      "no object '" WARM_HEAD_NAME
				      "' there: run `warmcache head` on "
				      "the store behind it");
	if (rc == 0 && ret_now_ms != NULL)
		*ret_now_ms = l.now_ms;
	return rc;
}

#define CALLS                                                                               \
	.connections = web_connections, .remote = true, .free = web_free, .list = web_list, \
	.head = web_head, .get = web_get

const struct warm_backend warm_backend_http = { .scheme = "http", .open = http_open, CALLS };
const struct warm_backend warm_backend_https = { .scheme = "https", .open = https_open, CALLS };
