/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a program tells at its end: one JSON object of at most 1 KiB, where Kubernetes reads a
 * container's termination message.
 *
 * Threads: any number, on different objects.
 */
#ifndef WARM_SYNC_RESULT_H
#define WARM_SYNC_RESULT_H

#include <jansson.h>

#include "lib/base/error.h"

enum { WARM_RESULT_BYTES = 1024 };

/* What init told, for the sidecar's metrics. */
#define WARM_RESULT_PATH ".warmcache/result"

/* Set a text that may not be UTF-8. */
void warm_result_set_text(json_t *object, const char *name, const char *text);

/* The object as text of at most WARM_RESULT_BYTES: where it is longer, first `reason`, then `key`
 * lose their ends. Frees `object`. Owns: the caller frees the result; NULL: no memory. */
char *warm_result_text(json_t *object);

/* Write it to `path`; NULL: to the container's termination log, where there is one; "": nowhere. */
int warm_result_write(const char *path, const char *text, struct warm_error *err) WARM_CHECKED;

#endif
