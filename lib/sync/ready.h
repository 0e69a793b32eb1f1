/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether the model is ready: a URL that is asked every second until it says so, once.
 *
 * Threads: asks in a thread of its own, which ends when the model is ready.
 */
#ifndef WARM_SYNC_READY_H
#define WARM_SYNC_READY_H

#include <stdbool.h>

#include "lib/base/error.h"

struct warm_ready;

/* Check URL and pattern, and begin to ask. The eventfd `told_fd` is written when an answer was 2xx
 * and its body matched `pattern` (POSIX extended; NULL or "": any body).
 *
 * Errors: INVALID for a URL that is no http(s) one or a bad pattern; NO_MEMORY.
 * Owns:   lives as long as the process.
 */
int warm_ready_start(const char *url, const char *pattern, int told_fd,
		     struct warm_ready **ret_ready, struct warm_error *err) WARM_CHECKED;

/* What the last answer was, for messages: "connection refused", "HTTP 503". */
const char *warm_ready_last(struct warm_ready *ready);

#endif
