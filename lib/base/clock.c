/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/clock.h"

#include <time.h>

enum { LOCK_NAP_NS = 50 * 1000 * 1000 };

static int64_t read_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t warm_clock_ns(void)
{
	return read_ns(CLOCK_MONOTONIC);
}

int64_t warm_clock_ms(void)
{
	return read_ns(CLOCK_MONOTONIC) / 1000000;
}

int64_t warm_clock_wall_ms(void)
{
	return read_ns(CLOCK_REALTIME) / 1000000;
}

int warm_call_check(const struct warm_call *call, struct warm_error *err)
{
	for (; call != NULL; call = call->outer) {
		if (call->cancel != NULL &&
		    atomic_load_explicit(call->cancel, memory_order_relaxed))
			return warm_error_set(err, WARM_CANCELED, "told to stop");
		if (call->deadline_ms != 0 && warm_clock_ms() >= call->deadline_ms)
			return warm_error_set(err, WARM_CANCELED, "the deadline has passed");
	}
	return 0;
}

int64_t warm_call_left_ms(const struct warm_call *call, int64_t most)
{
	for (; call != NULL; call = call->outer) {
		int64_t left = call->deadline_ms - warm_clock_ms();
		if (call->deadline_ms != 0 && left < most)
			most = left;
	}
	return most > 0 ? most : 0;
}

int warm_call_lock(pthread_mutex_t *mutex, const struct warm_call *call, struct warm_error *err)
{
	for (;;) {
		struct timespec soon;
		clock_gettime(CLOCK_REALTIME, &soon);
		soon.tv_nsec += LOCK_NAP_NS;
		if (soon.tv_nsec >= 1000000000) {
			soon.tv_nsec -= 1000000000;
			soon.tv_sec++;
		}
		if (pthread_mutex_timedlock(mutex, &soon) == 0)
			return 0;
		int rc = warm_call_check(call, err);
		if (rc != 0)
			return rc;
	}
}

bool warm_call_rest(int64_t ms, const struct warm_call *call)
{
	int64_t end = warm_clock_ms() + ms;

	if (warm_call_left_ms(call, ms + 1) <= ms)
		return false;
	while (warm_clock_ms() < end) {
		struct timespec nap = { .tv_nsec = 10 * 1000000 };
		if (warm_call_check(call, NULL) != 0)
			return false;
		nanosleep(&nap, NULL);
	}
	return true;
}
