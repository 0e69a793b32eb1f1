/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One error object for all libraries.
 *
 * A function that can fail returns 0 or a negative `enum warm_status` and has a
 * `struct warm_error *err` as its last parameter. The lowest layer sets the error, callers put
 * what they were doing in front with warm_error_context(), main prints it once.
 *
 * What is expected has a status of its own: NOT_FOUND is a cold cache and no failure; TRANSIENT
 * may be tried again; CANCELED is a deadline or a request to stop.
 *
 * `err` may be NULL where the caller only needs the status. Threads: one error object belongs to
 * one thread at a time.
 */
#ifndef WARM_BASE_ERROR_H
#define WARM_BASE_ERROR_H

#include <stdarg.h>

#include "lib/base/scope.h"

enum warm_status {
	WARM_OK = 0,
	WARM_INVALID = -1,   /* bad options, bad names: the caller's input */
	WARM_NOT_FOUND = -2, /* the thing isn't there; for a cache: cold */
	WARM_TRANSIENT = -3, /* may work when tried again */
	WARM_CORRUPT = -4,   /* bytes are not what they should be */
	WARM_DENIED = -5,    /* no permission, bad credential, bad signature */
	WARM_NO_SPACE = -6,  /* disk or quota full */
	WARM_LIMIT = -7,     /* larger or more than we accept */
	WARM_NO_MEMORY = -8,
	WARM_CANCELED = -9,	/* deadline passed, or told to stop */
	WARM_EXISTS = -10,	/* the name is taken already */
	WARM_UNSUPPORTED = -11, /* newer format, missing feature */
	WARM_IO = -12,		/* any other error of the system */
};

struct warm_error {
	enum warm_status status;
	int os_errno;
	long http_status;
	char msg[512];
};

/* Set `err` to `status` with a message; returns `status`, for `return warm_error_set(...)`. */
int warm_error_set(struct warm_error *err, enum warm_status status, const char *fmt, ...)
	WARM_PRINTF(3, 4);

/* Set `err` from an errno value: the status is chosen by it, the message ends in its text. */
int warm_error_errno(struct warm_error *err, int os_errno, const char *fmt, ...) WARM_PRINTF(3, 4);

/* Put "<what>: " in front of the message. One that gets too long loses its end. */
void warm_error_context(struct warm_error *err, const char *fmt, ...) WARM_PRINTF(2, 3);

/* WARM_NO_MEMORY, with the size that could not be had. */
int warm_error_nomem(struct warm_error *err, size_t bytes);

/* For work that goes on after a failure: `*rc` and `err` keep the first one of several. */
void warm_error_keep_first(int *rc, struct warm_error *err, int next,
			   const struct warm_error *next_err);

/* "corrupt", "denied", ...: one word, for metrics and results. Static storage. */
const char *warm_status_name(int status);

/* The exit code of a program that ends with `status`. */
int warm_status_exit_code(int status);

#endif
