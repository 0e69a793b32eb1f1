/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/pace.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/file.h"

enum {
	NAP_MS = 50, /* so that a lifted limit is soon seen */
	IOPRIO_OF_THREAD = 1,
	IOPRIO_IDLE = 3 << 13,
	LOWEST_NICE = 19,
};

void warm_pace_rest(struct warm_pace *pace)
{
	struct timespec cpu;

	if (pace->percent == 0)
		return;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
	int64_t used = warm_timespec_ns(cpu) - pace->cpu_ns, now = warm_clock_ns();
	int64_t end = pace->wall_ns + used * 100 / pace->percent;
	while (pace->wall_ns != 0 && now < end &&
	       !(pace->lifted != NULL && atomic_load(pace->lifted))) {
		int64_t left = end - now < NAP_MS * 1000000 ? end - now : NAP_MS * 1000000;
		struct timespec nap = { 0, left };
		nanosleep(&nap, NULL);
		now = warm_clock_ns();
	}
	pace->wall_ns = now;
	pace->cpu_ns = warm_timespec_ns(cpu);
}

void warm_pace_background(void)
{
	id_t thread = (id_t)syscall(SYS_gettid);

	/* Neither is refused by more than a sandbox; then the limit alone holds. */
	(void)setpriority(PRIO_PROCESS, thread, LOWEST_NICE);
	(void)syscall(SYS_ioprio_set, IOPRIO_OF_THREAD, 0, IOPRIO_IDLE);
}
