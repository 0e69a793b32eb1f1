/* SPDX-License-Identifier: Apache-2.0 */
/* libclock.so: LD_PRELOAD it and the wall clock is WARM_CLOCK_OFFSET seconds off. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

__attribute__((visibility("default"))) int clock_gettime(clockid_t id, struct timespec *ret)
{
	int rc = (int)syscall(SYS_clock_gettime, id, ret);
	const char *offset = getenv("WARM_CLOCK_OFFSET");

	if (rc == 0 && offset != NULL && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		ret->tv_sec += atol(offset);
	return rc;
}
