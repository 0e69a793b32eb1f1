/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time, deadlines and cancellation.
 *
 * `struct warm_call` goes with everything that may wait: a deadline on the monotonic clock and a
 * flag that another thread or a signal handler may set. Threads: reads only, any number at once.
 */
#ifndef WARM_BASE_CLOCK_H
#define WARM_BASE_CLOCK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/error.h"

struct warm_call {
	int64_t deadline_ms;	       /* warm_clock_ms() value; 0: none */
	const atomic_bool *cancel;     /* NULL: can't be canceled */
	const struct warm_call *outer; /* ends with that one at the latest; NULL: none */
};

/* Milliseconds of the monotonic clock. */
int64_t warm_clock_ms(void);
/* Nanoseconds of the monotonic clock. */
int64_t warm_clock_ns(void);
/* Milliseconds since 1970, UTC. */
int64_t warm_clock_wall_ms(void);

/* 0, or CANCELED when the deadline has passed or the flag is set. `call` may be NULL. */
int warm_call_check(const struct warm_call *call, struct warm_error *err) WARM_CHECKED;

/* Milliseconds until the deadline of `call` or an outer one, `most` at most; 0 when it is past. */
int64_t warm_call_left_ms(const struct warm_call *call, int64_t most);

/* Wait, unless the deadline comes before the end of it (then at once: what went wrong is the better
 * news) or the call is canceled. Returns whether it waited. */
bool warm_call_rest(int64_t ms, const struct warm_call *call) WARM_CHECKED;

/* Lock, unless the call ends before. */
int warm_call_lock(pthread_mutex_t *mutex, const struct warm_call *call,
		   struct warm_error *err) WARM_CHECKED;

#endif
