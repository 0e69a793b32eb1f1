/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same function over many items by several threads, and how many of them there is room for.
 */
#ifndef WARM_BASE_PARALLEL_H
#define WARM_BASE_PARALLEL_H

#include <stdint.h>

#include "lib/base/clock.h"
#include "lib/base/error.h"

typedef int (*warm_item_fn)(void *arg, size_t item, struct warm_error *err);

/* Call fn(arg, i) for i in [0, n) by at most `threads` threads, the caller's among them. After
 * the first failure no further item begins; it is what is returned. Fewer threads than asked for
 * (or none but the caller's) is no error. */
int warm_parallel(unsigned threads, size_t n, warm_item_fn fn, void *arg,
		  struct warm_error *err) WARM_CHECKED;

/* CPUs that this process may use, by its affinity and its control group's limit; 1 at least. */
unsigned warm_cpus(void);

/* Bytes of memory that this process may still take, by the machine and its control group, where
 * page cache that nobody reads counts as free; UINT64_MAX where neither can be read. */
uint64_t warm_memory_left(void);

#endif
