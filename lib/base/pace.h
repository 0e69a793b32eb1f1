/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Working beside somebody who comes first: a limit on the CPU time of a thread, and the lowest
 * priorities.
 *
 *	struct warm_pace pace = { .percent = 50, .lifted = &hurry };
 *	loop: some milliseconds of work; warm_pace_rest(&pace);
 *
 * Threads: a pace belongs to one thread; `lifted` may be set by any.
 */
#ifndef WARM_BASE_PACE_H
#define WARM_BASE_PACE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct warm_pace {
	unsigned percent;	   /* of one CPU; 0: no limit */
	const atomic_bool *lifted; /* once set, no limit any more; may be NULL */
	int64_t wall_ns, cpu_ns;   /* when the last rest ended; 0: none yet */
};

/* Sleep until the CPU time of this thread since the last call is `percent` of the time that has
 * passed. The first call only takes the time. */
void warm_pace_rest(struct warm_pace *pace);

/* The calling thread gets the lowest priority for CPU and disks, for good. */
void warm_pace_background(void);

#endif
