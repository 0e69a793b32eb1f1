/* SPDX-License-Identifier: Apache-2.0 */
#include "compiler/wire.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/base/clock.h"
#include "lib/base/option.h"

enum { MESSAGE_BYTES = 1 << 30, HEAD_BYTES = 8 };

static const uint32_t wire_magic = 0x31767277;

static struct warm_kernel_text *take_texts(struct warm_reader *r, size_t *ret_n)
{
	size_t n = warm_reader_count(r, 2);
	struct warm_kernel_text *t = calloc(n + 1, sizeof(*t));

	*ret_n = 0;
	if (t == NULL)
		return NULL;
	for (size_t i = 0; i < n; i++)
		t[i] = warm_kernel_take_text(r);
	*ret_n = n;
	return t;
}

/* Another version may find other dependencies, or lay the fields out in another way. */
static int take_version(struct warm_reader *r, const char *what, struct warm_error *err)
{
	struct warm_kernel_text version = warm_kernel_take_text(r);

	if (r->bad)
		return warm_error_set(err, WARM_CORRUPT, "malformed %s", what);
	if (strcmp(version.data, warm_version) != 0)
		return warm_error_set(err, WARM_CORRUPT,
				      "library and helper are of versions %.40s and %.40s",
				      version.data, warm_version);
	return 0;
}

void warm_wire_put_request(struct warm_buf *out, const struct warm_wire_request *q)
{
	warm_kernel_put_text(out, warm_text_of(warm_version));
	warm_kernel_put_text(out, q->nvrtc);
	warm_kernel_put_text(out, q->builtins);
	warm_kernel_put_text(out, q->cwd);
	warm_kernel_put_text(out, q->name);
	warm_kernel_put_text(out, q->source);
	warm_buf_put_uv(out, q->n_options);
	for (size_t i = 0; i < q->n_options; i++)
		warm_kernel_put_text(out, q->options[i]);
	warm_buf_put_uv(out, q->n_expressions);
	for (size_t i = 0; i < q->n_expressions; i++)
		warm_kernel_put_text(out, q->expressions[i]);
	warm_buf_put_uv(out, q->n_headers);
	for (size_t i = 0; i < q->n_headers; i++) {
		warm_kernel_put_text(out, q->headers[i].name);
		warm_kernel_put_text(out, q->headers[i].source);
	}
}

void warm_wire_release_request(struct warm_wire_request *q)
{
	free((void *)(uintptr_t)q->options);
	free((void *)(uintptr_t)q->expressions);
	free((void *)(uintptr_t)q->headers);
	*q = (struct warm_wire_request){ 0 };
}

int warm_wire_parse_request(const void *data, size_t bytes, struct warm_wire_request *ret_request,
			    struct warm_error *err)
{
	struct warm_reader r = warm_reader_of(data, bytes);
	struct warm_wire_request q = { 0 };
	int rc = take_version(&r, "request", err);

	if (rc != 0)
		return rc;
	q.nvrtc = warm_kernel_take_text(&r);
	q.builtins = warm_kernel_take_text(&r);
	q.cwd = warm_kernel_take_text(&r);
	q.name = warm_kernel_take_text(&r);
	q.source = warm_kernel_take_text(&r);
	q.options = take_texts(&r, &q.n_options);
	q.expressions = take_texts(&r, &q.n_expressions);
	size_t n = warm_reader_count(&r, 4);
	struct warm_wire_header *headers = calloc(n + 1, sizeof(*headers));
	q.headers = headers;
	if (q.options == NULL || q.expressions == NULL || headers == NULL) {
		warm_wire_release_request(&q);
		return warm_error_nomem(err, bytes);
	}
	for (; q.n_headers < n; q.n_headers++) {
		headers[q.n_headers].name = warm_kernel_take_text(&r);
		headers[q.n_headers].source = warm_kernel_take_text(&r);
	}
	if (r.bad || r.at != r.bytes) {
		warm_wire_release_request(&q);
		return warm_error_set(err, WARM_CORRUPT, "malformed request");
	}
	*ret_request = q;
	return 0;
}

void warm_wire_put_response(struct warm_buf *out, const struct warm_wire_response *a)
{
	warm_kernel_put_text(out, warm_text_of(warm_version));
	warm_buf_put_u8(out, (uint8_t)a->outcome);
	warm_buf_put_u32(out, (uint32_t)a->nvrtc_result);
	warm_kernel_put_text(out, a->message);
	warm_buf_put_u8(out, (uint8_t)a->reason);
	warm_kernel_put_text(out, a->uncacheable);
	warm_kernel_put_text(out, a->log);
	for (int k = 0; k < WARM_KERNEL_OUTPUTS; k++)
		warm_kernel_put_text(out, a->outputs[k]);
	warm_buf_put_uv(out, a->n_lowered);
	for (size_t i = 0; i < a->n_lowered; i++)
		warm_kernel_put_text(out, a->lowered[i]);
	warm_kernel_put_deps(out, a->deps);
}

void warm_wire_release_response(struct warm_wire_response *a)
{
	free(a->lowered);
	*a = (struct warm_wire_response){ 0 };
}

int warm_wire_parse_response(const void *data, size_t bytes,
			     struct warm_wire_response *ret_response, struct warm_error *err)
{
	struct warm_reader r = warm_reader_of(data, bytes);
	struct warm_wire_response a = { 0 };
	int rc = take_version(&r, "response", err);

	if (rc != 0)
		return rc;
	a.outcome = (enum warm_wire_outcome)warm_reader_u8(&r);
	a.nvrtc_result = (int)warm_reader_u32(&r);
	a.message = warm_kernel_take_text(&r);
	a.reason = (enum warm_kernel_reason)warm_reader_u8(&r);
	a.uncacheable = warm_kernel_take_text(&r);
	a.log = warm_kernel_take_text(&r);
	for (int k = 0; k < WARM_KERNEL_OUTPUTS; k++)
		a.outputs[k] = warm_kernel_take_text(&r);
	a.lowered = take_texts(&r, &a.n_lowered);
	a.deps = warm_kernel_take_deps(&r);
	if (a.lowered == NULL) {
		warm_wire_release_response(&a);
		return warm_error_nomem(err, bytes);
	}
	if (r.bad || r.at != r.bytes || a.outcome > WARM_WIRE_FAILED ||
	    a.reason >= WARM_KERNEL_REASONS) {
		warm_wire_release_response(&a);
		return warm_error_set(err, WARM_CORRUPT, "malformed response");
	}
	*ret_response = a;
	return 0;
}

static int wait_for(int fd, short events, int64_t deadline_ms, struct warm_error *err)
{
	for (;;) {
		struct pollfd p = { .fd = fd, .events = events };
		int timeout = -1;
		if (deadline_ms != 0) {
			int64_t left = deadline_ms - warm_clock_ms();
			if (left <= 0)
				return warm_error_set(err, WARM_CANCELED, "it took too long");
			timeout = left > 1000 ? 1000 : (int)left;
		}
		int n = poll(&p, 1, timeout);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return warm_error_errno(err, errno, "poll");
	}
}

int warm_wire_send(int fd, const struct warm_buf *message, int64_t deadline_ms,
		   struct warm_error *err)
{
	scope_buf struct warm_buf all = WARM_BUF_INIT;

	warm_buf_put_u32(&all, wire_magic);
	warm_buf_put_u32(&all, (uint32_t)message->bytes);
	warm_buf_put(&all, message->data, message->bytes);
	if (message->failed || all.failed)
		return warm_error_nomem(err, message->bytes);
	if (message->bytes > MESSAGE_BYTES)
		return warm_error_set(err, WARM_LIMIT, "a message of %zu bytes", message->bytes);
	for (size_t at = 0; at < all.bytes;) {
		ssize_t n = send(fd, all.data + at, all.bytes - at, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n >= 0) {
			at += (size_t)n;
			continue;
		}
		if (errno == EPIPE || errno == ECONNRESET)
			return warm_error_set(err, WARM_NOT_FOUND, "the other end is gone");
		if (errno != EAGAIN && errno != EINTR)
			return warm_error_errno(err, errno, "send");
		int rc = wait_for(fd, POLLOUT, deadline_ms, err);
		if (rc != 0)
			return rc;
	}
	return 0;
}

static int receive_all(int fd, void *data, size_t bytes, int64_t deadline_ms,
		       struct warm_error *err)
{
	uint8_t *p = data;

	while (bytes > 0) {
		int rc = wait_for(fd, POLLIN, deadline_ms, err);
		if (rc != 0)
			return rc;
		ssize_t n = recv(fd, p, bytes, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno == ECONNRESET))
			return warm_error_set(err, WARM_NOT_FOUND, "the other end is gone");
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return warm_error_errno(err, errno, "receive");
		if (n > 0) {
			p += n;
			bytes -= (size_t)n;
		}
	}
	return 0;
}

int warm_wire_receive(int fd, int64_t deadline_ms, uint8_t **ret_data, size_t *ret_bytes,
		      struct warm_error *err)
{
	uint8_t head[HEAD_BYTES];
	int rc = receive_all(fd, head, sizeof(head), deadline_ms, err);

	if (rc != 0)
		return rc;
	struct warm_reader r = warm_reader_of(head, sizeof(head));
	uint32_t magic = warm_reader_u32(&r), bytes = warm_reader_u32(&r);
	if (magic != wire_magic || bytes > MESSAGE_BYTES)
		return warm_error_set(err, WARM_CORRUPT, "not our protocol");
	scope_free uint8_t *data = malloc((size_t)bytes + 1);
	if (data == NULL)
		return warm_error_nomem(err, bytes);
	rc = receive_all(fd, data, bytes, deadline_ms, err);
	if (rc != 0)
		return rc;
	*ret_data = take_ptr(data);
	*ret_bytes = bytes;
	return 0;
}
