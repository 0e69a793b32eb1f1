/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/clock.h"

#include <time.h>

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
	if (call == NULL)
		return 0;
	if (call->cancel != NULL && atomic_load_explicit(call->cancel, memory_order_relaxed))
		return warm_error_set(err, WARM_CANCELED, "told to stop");
	if (call->deadline_ms != 0 && warm_clock_ms() >= call->deadline_ms)
		return warm_error_set(err, WARM_CANCELED, "the deadline has passed");
	return 0;
}
