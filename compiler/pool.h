/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Helpers that are kept: a request goes to one that waits, or to a new one.
 *
 * NVRTC's first compile in a process costs up to 160 ms more than the next, so helpers are used
 * again. At most `max_helpers` live at once, and no second one where memory is short; a few wait
 * for more work, and end by themselves when there is none. Threads: any number; one call has a
 * helper for itself.
 */
#ifndef WARM_COMPILER_POOL_H
#define WARM_COMPILER_POOL_H

#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/kernel/counters.h"

struct warm_pool;

/* Around fork(): nobody may hold a lock then, and a child has none of its parent's helpers. */
enum warm_fork { WARM_FORK_PREPARE, WARM_FORK_PARENT, WARM_FORK_CHILD };

/* `helper` (a path) and `counters` are borrowed. NULL when out of memory. */
struct warm_pool *warm_pool_new(const char *helper, unsigned max_helpers,
				struct warm_kernel_counters *counters);
/* Ends the helpers that wait. No call may be running. */
void warm_pool_free(struct warm_pool *pool);
void warm_pool_fork(struct warm_pool *pool, enum warm_fork phase);

/* Send `request`, receive the answer. `environment` is "NAME=VALUE\n" lines (spawn.h). With
 * `alone` the helper is new and used for nothing else.
 *
 * Errors: NOT_FOUND when the helper dies (the message says how); CANCELED after `timeout_ms`, the
 *         helper is killed; NO_MEMORY; IO.
 * Owns:   the caller frees `*ret_data`.
 */
int warm_pool_run(struct warm_pool *pool, const char *environment, const struct warm_buf *request,
		  bool alone, int64_t timeout_ms, uint8_t **ret_data, size_t *ret_bytes,
		  struct warm_error *err) WARM_CHECKED;

/* Take the status of helpers that have ended by themselves, now and then: call it at any time. */
void warm_pool_tidy(struct warm_pool *pool);

#endif
