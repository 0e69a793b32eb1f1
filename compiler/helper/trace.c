/* SPDX-License-Identifier: Apache-2.0 */
#include "compiler/helper/trace.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/file.h"

enum { DIGEST_BYTES = 1 << 30 };

#define EXPORTED __attribute__((visibility("default")))

static struct {
	pthread_mutex_t lock;
	bool on, failed;
	struct warm_traced *list;
	size_t n, capacity;
} trace = { .lock = PTHREAD_MUTEX_INITIALIZER };

static bool room_for_one(void)
{
	if (trace.n < trace.capacity)
		return true;
	size_t capacity = trace.capacity == 0 ? 1024 : 2 * trace.capacity;
	struct warm_traced *list = realloc(trace.list, capacity * sizeof(*list));
	if (list == NULL)
		return false;
	trace.list = list;
	trace.capacity = capacity;
	return true;
}

/* What it holds when it is opened: times alone move too coarsely to tell a change. */
static void digest(int fd, struct warm_traced *t)
{
	if (!S_ISREG(t->st.st_mode) || t->st.st_size > DIGEST_BYTES)
		return;
	size_t bytes = (size_t)t->st.st_size;
	void *data = malloc(bytes + 1);
	if (data != NULL && warm_file_read_at(fd, data, bytes, 0, NULL) == 0) {
		t->bytes = bytes;
		t->digest = warm_hash128(data, bytes);
	}
	free(data);
}

/* `st` is NULL where nothing was found; `fd` is -1 where nothing was opened. */
static void record(const char *path, bool opened, const struct stat *st, int fd)
{
	int saved = errno;

	pthread_mutex_lock(&trace.lock);
	if (trace.on) {
		char *copy = strdup(path);
		if (copy != NULL && room_for_one()) {
			struct warm_traced *t = &trace.list[trace.n++];
			*t = (struct warm_traced){ .path = copy,
						   .opened = opened,
						   .found = st != NULL };
			if (st != NULL)
				t->st = *st;
			if (fd >= 0)
				digest(fd, t);
		} else {
			free(copy);
			trace.failed = true;
		}
	}
	pthread_mutex_unlock(&trace.lock);
	errno = saved;
}

typedef FILE *(*fopen_fn)(const char *, const char *);

static FILE *open_and_record(const char *symbol, const char *path, const char *mode)
{
	struct stat st;
	fopen_fn real;

	*(void **)&real = dlsym(RTLD_NEXT, symbol);
	FILE *file = real(path, mode);
	if (mode[0] == 'r')
		record(path, true, file != NULL && fstat(fileno(file), &st) == 0 ? &st : NULL,
		       file != NULL ? fileno(file) : -1);
	return file;
}

static int stat_and_record(const char *path, struct stat *st)
{
	int rc = fstatat(AT_FDCWD, path, st, 0);

	record(path, false, rc == 0 ? st : NULL, -1);
	return rc;
}

EXPORTED FILE *fopen(const char *path, const char *mode);
EXPORTED FILE *fopen64(const char *path, const char *mode);
EXPORTED int stat(const char *path, struct stat *st);
EXPORTED int __xstat(int version, const char *path, struct stat *st);

FILE *fopen(const char *path, const char *mode)
{
	return open_and_record("fopen", path, mode);
}

FILE *fopen64(const char *path, const char *mode)
{
	return open_and_record("fopen64", path, mode);
}

int stat(const char *path, struct stat *st)
{
	return stat_and_record(path, st);
}

/* What programs for a glibc before 2.33 call; the structure is the same. */
int __xstat(int version, const char *path, struct stat *st)
{
	(void)version;
	return stat_and_record(path, st);
}

void warm_trace_start(void)
{
	pthread_mutex_lock(&trace.lock);
	for (size_t i = 0; i < trace.n; i++)
		free(trace.list[i].path);
	trace.n = 0;
	trace.failed = false;
	trace.on = true;
	pthread_mutex_unlock(&trace.lock);
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct warm_traced *)a)->path, ((const struct warm_traced *)b)->path);
}

bool warm_trace_stop(const struct warm_traced **ret_list, size_t *ret_n)
{
	pthread_mutex_lock(&trace.lock);
	trace.on = false;
	if (trace.n > 1)
		qsort(trace.list, trace.n, sizeof(*trace.list), by_path);
	*ret_list = trace.list;
	*ret_n = trace.n;
	pthread_mutex_unlock(&trace.lock);
	return !trace.failed;
}
