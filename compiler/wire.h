/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the library and its helper say to each other over a socket: requests and responses in turn,
 * each a length, the version and the fields (lib/base/buf.h). Both ends must be of one version.
 *
 * Threads: pure functions over buffers and a socket.
 */
#ifndef WARM_COMPILER_WIRE_H
#define WARM_COMPILER_WIRE_H

#include "lib/base/buf.h"
#include "lib/kernel/counters.h"
#include "lib/kernel/entry.h"

struct warm_wire_header {
	struct warm_kernel_text name, source;
};

struct warm_wire_request {
	struct warm_kernel_text nvrtc, builtins; /* paths */
	struct warm_kernel_text cwd;
	struct warm_kernel_text name; /* as given; "" for none */
	struct warm_kernel_text source;
	const struct warm_kernel_text *options, *expressions;
	size_t n_options, n_expressions;
	const struct warm_wire_header *headers;
	size_t n_headers;
};

enum warm_wire_outcome {
	WARM_WIRE_COMPILED,
	WARM_WIRE_COMPILE_ERROR, /* NVRTC_ERROR_COMPILATION and the like: see the log */
	WARM_WIRE_NVRTC_ERROR,	 /* any other error of NVRTC */
	WARM_WIRE_NO_NVRTC,	 /* can't be loaded */
	WARM_WIRE_NO_CWD,	 /* the current directory can't be entered */
	WARM_WIRE_FAILED,	 /* the helper itself */
};

struct warm_wire_response {
	enum warm_wire_outcome outcome;
	int nvrtc_result;
	struct warm_kernel_text message;     /* for all but COMPILED */
	enum warm_kernel_reason reason;	     /* why the result must not be stored */
	struct warm_kernel_text uncacheable; /* the reason's text; "" for CACHEABLE */
	struct warm_kernel_text log;
	struct warm_kernel_text outputs[WARM_KERNEL_OUTPUTS];
	struct warm_kernel_text *lowered;
	size_t n_lowered;
	struct warm_kernel_deps deps;
};

void warm_wire_put_request(struct warm_buf *out, const struct warm_wire_request *request);
void warm_wire_put_response(struct warm_buf *out, const struct warm_wire_response *response);

/* Views into `data`, which must be followed by nothing of the message; tables are allocated and
 * freed by the release functions. CORRUPT; NO_MEMORY. */
int warm_wire_parse_request(const void *data, size_t bytes, struct warm_wire_request *ret_request,
			    struct warm_error *err) WARM_CHECKED;
int warm_wire_parse_response(const void *data, size_t bytes,
			     struct warm_wire_response *ret_response,
			     struct warm_error *err) WARM_CHECKED;
void warm_wire_release_request(struct warm_wire_request *request);
void warm_wire_release_response(struct warm_wire_response *response);

/* Send or receive one message. `deadline_ms` (monotonic; 0: none) bounds the whole.
 * Errors: NOT_FOUND when the other end is gone; CANCELED at the deadline; LIMIT; NO_MEMORY. */
int warm_wire_send(int fd, const struct warm_buf *message, int64_t deadline_ms,
		   struct warm_error *err) WARM_CHECKED;
int warm_wire_receive(int fd, int64_t deadline_ms, uint8_t **ret_data, size_t *ret_bytes,
		      struct warm_error *err) WARM_CHECKED;

static inline struct warm_kernel_text warm_text_of(const char *s)
{
	return (struct warm_kernel_text){ s, __builtin_strlen(s) };
}

#endif
