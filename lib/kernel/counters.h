/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel cache did, counted in the process and in the volume.
 *
 * The file <volume>/.warmcache/counters is an array of 64-bit counters to which all processes of
 * the volume add what they counted, under a lock; the sidecar reads it. It is not mapped: anybody
 * in the pod may cut it, and a host that touched it then would die by SIGBUS. It is made whole and
 * linked into place. Where it can't be had (read-only volume, another format) a process counts for
 * itself alone.
 *
 * Threads: any number; counting is one relaxed atomic addition.
 */
#ifndef WARM_KERNEL_COUNTERS_H
#define WARM_KERNEL_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

#include "lib/base/file.h"

#define WARM_KERNEL_COUNTERS_PATH ".warmcache/counters"

/* Why a result must not be stored. */
enum warm_kernel_reason {
	WARM_KERNEL_CACHEABLE,
	WARM_KERNEL_BY_OPTION,	    /* an option whose result depends on more than is recorded */
	WARM_KERNEL_BY_ENVIRONMENT, /* NVRTC_APPEND_FLAGS, NVRTC_PREPEND_FLAGS */
	WARM_KERNEL_BY_TIME,	    /* __TIME__, __DATE__, __TIMESTAMP__ */
	WARM_KERNEL_BY_CHANGE,	    /* a file changed while it compiled */
	WARM_KERNEL_BY_HOST,	    /* compiled in the host, where nothing is traced */
	WARM_KERNEL_REASONS,
};

/* Each counter: name and what it counts. A new one goes to the end; none is ever moved. */
#define WARM_KERNEL_COUNTERS(X)                                                               \
	X(HITS, "hits", "Lookups answered from the cache")                                    \
	X(MISSES, "misses", "Programs compiled")                                              \
	X(WAITS, "waits", "Hits that waited for another's compile of the same program")       \
	X(FAILED, "failed", "Programs that did not compile")                                  \
	X(BAD_ENTRIES, "bad_entries", "Files in the cache that were no whole entry")          \
	X(UNSTORED, "unstored", "Compiled programs that could not be stored")                 \
	X(EVICTED, "evicted", "Entries deleted to keep the size limit")                       \
	X(HELPERS, "helpers_started", "Helper processes started")                             \
	X(BYTES_READ, "bytes_read", "Bytes of entries that hit")                              \
	X(BYTES_WRITTEN, "bytes_written", "Bytes of entries stored")                          \
	X(HIT_NS, "hit_ns", "Time spent in hits")                                             \
	X(COMPILE_NS, "compile_ns", "Time spent in compiles")                                 \
	X(BY_OPTION, "uncacheable_option", "Not stored because of an option")                 \
	X(BY_ENVIRONMENT, "uncacheable_environment", "Not stored because of the environment") \
	X(BY_TIME, "uncacheable_time", "Not stored because the program tells the time")       \
	X(BY_CHANGE, "uncacheable_changed", "Not stored because a file changed meanwhile")    \
	X(BY_HOST, "uncacheable_host", "Not stored because it was compiled in the host")

enum warm_kernel_counter {
#define WARM_KERNEL_COUNTER_ENUM(symbol, name, text) WARM_KERNEL_COUNT_##symbol,
	WARM_KERNEL_COUNTERS(WARM_KERNEL_COUNTER_ENUM)
#undef WARM_KERNEL_COUNTER_ENUM
		WARM_KERNEL_COUNTED,
};

/* "hits"; what it counts. Static storage. */
const char *warm_kernel_counter_name(enum warm_kernel_counter counter);
const char *warm_kernel_counter_text(enum warm_kernel_counter counter);

struct warm_kernel_counters {
	_Atomic uint64_t own[WARM_KERNEL_COUNTED];
	uint64_t flushed[WARM_KERNEL_COUNTED]; /* of them, what the file has; under `flushing` */
	atomic_flag flushing;
	_Atomic int64_t flushed_ms;
	int fd; /* of the file; valid only while it is `id`'s */
	struct warm_fd_id id;
};

/* Count in the volume's file, too, from now on; made if missing. Errors: those of the file; then
 * only the process counts. Owns: warm_kernel_counters_close() closes. */
int warm_kernel_counters_open(struct warm_kernel_counters *counters, int volume_fd,
			      struct warm_error *err) WARM_CHECKED;
/* Flushes first. */
void warm_kernel_counters_close(struct warm_kernel_counters *counters);

/* In the child of a fork: what was counted so far is its parent's to add. */
void warm_kernel_counters_forked(struct warm_kernel_counters *counters, int volume_fd);

/* Add to the file what was counted since the last time: at once, or without `now` at most every
 * second. What can't be added now is added later. */
void warm_kernel_counters_flush(struct warm_kernel_counters *counters, bool now);

/* Read the volume's file. NOT_FOUND: no process counted there yet; CORRUPT. */
int warm_kernel_counters_read(int volume_fd, uint64_t ret_values[WARM_KERNEL_COUNTED],
			      struct warm_error *err) WARM_CHECKED;

static inline void warm_kernel_count(struct warm_kernel_counters *c,
				     enum warm_kernel_counter counter, uint64_t n)
{
	atomic_fetch_add_explicit(&c->own[counter], n, memory_order_relaxed);
}

static inline uint64_t warm_kernel_counted(const struct warm_kernel_counters *c,
					   enum warm_kernel_counter counter)
{
	return atomic_load_explicit(&c->own[counter], memory_order_relaxed);
}

/* The counter of a reason other than CACHEABLE. */
static inline enum warm_kernel_counter warm_kernel_counter_of(enum warm_kernel_reason reason)
{
	return (enum warm_kernel_counter)(WARM_KERNEL_COUNT_BY_OPTION + (int)reason -
					  WARM_KERNEL_BY_OPTION);
}

#endif
