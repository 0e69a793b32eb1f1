/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/parallel.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

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

unsigned warm_cpus(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) != 0)
		return 1;
	int n = CPU_COUNT(&set);
	return n > 0 ? (unsigned)n : 1;
}
