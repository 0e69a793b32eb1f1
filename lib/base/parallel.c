/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/parallel.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/file.h"

struct work {
	warm_item_fn fn;
	void *arg;
	size_t n;
	atomic_size_t next;
	atomic_bool stop;
	pthread_mutex_t lock;
	struct warm_error first;
	int status;
};

static void *worker(void *arg)
{
	struct work *w = arg;

	for (;;) {
		struct warm_error err = { 0 };
		size_t i = atomic_fetch_add(&w->next, 1);
		if (i >= w->n || atomic_load(&w->stop))
			return NULL;
		int rc = w->fn(w->arg, i, &err);
		if (rc == 0)
			continue;
		pthread_mutex_lock(&w->lock);
		if (w->status == 0) {
			w->status = rc;
			w->first = err;
		}
		pthread_mutex_unlock(&w->lock);
		atomic_store(&w->stop, true);
	}
}

int warm_parallel(unsigned threads, size_t n, warm_item_fn fn, void *arg, struct warm_error *err)
{
	enum { MAX = 64 };
	struct work w = { .fn = fn, .arg = arg, .n = n, .lock = PTHREAD_MUTEX_INITIALIZER };
	pthread_t ids[MAX];
	unsigned started = 0;

	while (started < MAX && started + 1 < threads && started + 1 < n &&
	       pthread_create(&ids[started], NULL, worker, &w) == 0)
		started++;
	worker(&w);
	for (unsigned i = 0; i < started; i++)
		pthread_join(ids[i], NULL);
	if (w.status != 0 && err != NULL)
		*err = w.first;
	return w.status;
}

/* CPUs' worth of time that a control group leaves us; 0: no limit that we can read. */
static unsigned cgroup_cpus(void)
{
	scope_free char *text = NULL, *period_text = NULL;
	size_t bytes = 0;
	long long quota = -1, period = 0;

	if (warm_file_load(AT_FDCWD, "/sys/fs/cgroup/cpu.max", 256, &text, &bytes, NULL) == 0) {
		if (sscanf(text, "%lld %lld", &quota, &period) != 2)
			return 0;
	} else if (warm_file_load(AT_FDCWD, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", 64, &text,
				  &bytes, NULL) == 0 &&
		   warm_file_load(AT_FDCWD, "/sys/fs/cgroup/cpu/cpu.cfs_period_us", 64,
				  &period_text, &bytes, NULL) == 0) {
		quota = atoll(text);
		period = atoll(period_text);
	}
	if (quota <= 0 || period <= 0)
		return 0;
	return (unsigned)((quota + period - 1) / period);
}

unsigned warm_cpus(void)
{
	cpu_set_t set;
	unsigned limit = cgroup_cpus();
	int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

	if (n < 1)
		n = 1;
	return limit > 0 && limit < (unsigned)n ? limit : (unsigned)n;
}

/* The number behind `key` in `path`; in a file of one number `key` is "". */
static bool read_number(const char *path, const char *key, uint64_t *ret_number)
{
	scope_free char *text = NULL;
	unsigned long long number;
	size_t bytes = 0;

	if (warm_file_load(AT_FDCWD, path, 64 << 10, &text, &bytes, NULL) != 0)
		return false;
	const char *at = strstr(text, key);
	if (at == NULL || sscanf(at + strlen(key), "%llu", &number) != 1)
		return false;
	*ret_number = number;
	return true;
}

uint64_t warm_memory_left(void)
{
	static const struct {
		const char *limit, *used, *stat, *idle;
	} groups[] = {
		{ "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current",
		  "/sys/fs/cgroup/memory.stat", "\ninactive_file " },
		{ "/sys/fs/cgroup/memory/memory.limit_in_bytes",
		  "/sys/fs/cgroup/memory/memory.usage_in_bytes",
		  "/sys/fs/cgroup/memory/memory.stat", "\ntotal_inactive_file " },
	};
	uint64_t left = UINT64_MAX, limit, used, idle, free_kib;

	if (read_number("/proc/meminfo", "MemAvailable:", &free_kib))
		left = free_kib << 10;
	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
		/* "max": no limit */
		if (!read_number(groups[i].limit, "", &limit) ||
		    !read_number(groups[i].used, "", &used))
			continue;
		if (read_number(groups[i].stat, groups[i].idle, &idle))
			used -= idle < used ? idle : used;
		uint64_t here = limit > used ? limit - used : 0;
		left = here < left ? here : left;
	}
	return left;
}
