/* SPDX-License-Identifier: Apache-2.0 */
#include "compiler/depend.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/file.h"

enum { STEP_MS = 1000 };

/* A file as it was when its contents were digested. */
struct known {
	char *path;
	uint64_t dev, ino, size;
	int64_t mtime_ns, ctime_ns;
	struct warm_hash128 digest;
	bool sealed;
};

struct warm_depend {
	const char *const *sealed;
	pthread_mutex_t lock;
	struct known *table; /* open addressing by path */
	size_t n, capacity;
};

struct warm_depend *warm_depend_new(const char *const *sealed)
{
	struct warm_depend *d = calloc(1, sizeof(*d));

	if (d == NULL)
		return NULL;
	d->sealed = sealed;
	pthread_mutex_init(&d->lock, NULL);
	return d;
}

void warm_depend_free(struct warm_depend *d)
{
	if (d == NULL)
		return;
	for (size_t i = 0; i < d->capacity; i++)
		free(d->table[i].path);
	free(d->table);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

void warm_depend_fork(struct warm_depend *d, enum warm_fork phase)
{
	if (phase == WARM_FORK_PREPARE)
		pthread_mutex_lock(&d->lock);
	else
		pthread_mutex_unlock(&d->lock);
}

static struct known *slot_of(struct known *table, size_t capacity, const char *path)
{
	size_t at = warm_hash64(path, strlen(path)) & (capacity - 1);

	while (table[at].path != NULL && strcmp(table[at].path, path) != 0)
		at = (at + 1) & (capacity - 1);
	return &table[at];
}

static bool grow(struct warm_depend *d)
{
	size_t capacity = d->capacity == 0 ? 1024 : 2 * d->capacity;
	struct known *table = calloc(capacity, sizeof(*table));

	if (table == NULL)
		return false;
	for (size_t i = 0; i < d->capacity; i++)
		if (d->table[i].path != NULL)
			*slot_of(table, capacity, d->table[i].path) = d->table[i];
	free(d->table);
	d->table = table;
	d->capacity = capacity;
	return true;
}

static bool is_sealed(const struct warm_depend *d, const char *path)
{
	for (size_t i = 0; d->sealed != NULL && d->sealed[i] != NULL; i++) {
		size_t n = strlen(d->sealed[i]);
		if (n > 0 && strncmp(path, d->sealed[i], n) == 0 &&
		    (path[n] == '/' || d->sealed[i][n - 1] == '/'))
			return true;
	}
	return false;
}

static void remember(struct warm_depend *d, const char *path, const struct known *k)
{
	pthread_mutex_lock(&d->lock);
	if (2 * (d->n + 1) <= d->capacity || grow(d)) {
		struct known *slot = slot_of(d->table, d->capacity, path);
		char *kept = slot->path;
		if (kept == NULL && (kept = strdup(path)) != NULL)
			d->n++;
		if (kept != NULL) {
			*slot = *k;
			slot->path = kept;
		}
	}
	pthread_mutex_unlock(&d->lock);
}

static bool recall(struct warm_depend *d, const char *path, struct known *ret_known)
{
	bool found = false;

	pthread_mutex_lock(&d->lock);
	if (d->capacity > 0) {
		const struct known *slot = slot_of(d->table, d->capacity, path);
		found = slot->path != NULL;
		if (found)
			*ret_known = *slot;
	}
	pthread_mutex_unlock(&d->lock);
	return found;
}

static bool holds_file(struct warm_depend *d, const struct warm_kernel_dep *dep, const char *path)
{
	struct known k = { 0 };
	struct stat st;

	bool known = recall(d, path, &k);
	if (!known || !k.sealed) {
		if (stat(path, &st) != 0 || !S_ISREG(st.st_mode) ||
		    (uint64_t)st.st_size != dep->size)
			return false;
		known = known && k.dev == st.st_dev && k.ino == st.st_ino &&
			k.size == (uint64_t)st.st_size &&
			k.mtime_ns == warm_timespec_ns(st.st_mtim) &&
			k.ctime_ns == warm_timespec_ns(st.st_ctim);
	}
	if (!known) {
		/* The state before the read: a change during it shows at the next look. */
		scope_free char *data = NULL;
		size_t bytes = 0;
		if (warm_file_load(AT_FDCWD, path, WARM_KERNEL_ENTRY_BYTES, &data, &bytes, NULL) !=
		    0)
			return false;
		k = (struct known){
			.dev = st.st_dev,
			.ino = st.st_ino,
			.size = (uint64_t)st.st_size,
			.mtime_ns = warm_timespec_ns(st.st_mtim),
			.ctime_ns = warm_timespec_ns(st.st_ctim),
			.digest = warm_hash128(data, bytes),
			.sealed = is_sealed(d, path),
		};
		/* Times move in steps: a file that changed just now may change again within one. */
		int64_t newest = k.mtime_ns > k.ctime_ns ? k.mtime_ns : k.ctime_ns;
		if (warm_clock_wall_ms() - newest / 1000000 > STEP_MS)
			remember(d, path, &k);
	}
	return k.size == dep->size && k.digest.low == dep->digest.low &&
	       k.digest.high == dep->digest.high;
}

static bool holds(struct warm_depend *d, const struct warm_kernel_dep *dep, const char *path,
		  const struct warm_place *place)
{
	struct stat st;

	switch (dep->kind) {
	case WARM_KERNEL_DEP_ABSENT:
		return stat(path, &st) != 0 || S_ISDIR(st.st_mode);
	case WARM_KERNEL_DEP_FILE:
		return holds_file(d, dep, path);
	case WARM_KERNEL_DEP_DIR:
		return dep->path.bytes == place->dir.bytes &&
		       memcmp(dep->path.data, place->dir.data, place->dir.bytes) == 0;
	case WARM_KERNEL_DEP_CWD:
		return strcmp(dep->path.data, place->cwd) == 0;
	}
	return false;
}

bool warm_depend_holds(struct warm_depend *d, const struct warm_kernel_dep *deps, size_t n,
		       const struct warm_place *place, char ret_why[WARM_DEPEND_WHY_BYTES])
{
	static const char *const words[] = {
		[WARM_KERNEL_DEP_ABSENT] = "appeared",
		[WARM_KERNEL_DEP_FILE] = "changed or is gone",
		[WARM_KERNEL_DEP_DIR] = "was the program's directory",
		[WARM_KERNEL_DEP_CWD] = "was the current directory",
	};
	char path[2 * WARM_PATH_BYTES];

	for (size_t i = 0; i < n; i++) {
		const char *at = deps[i].path.data;
		if (deps[i].relative) {
			snprintf(path, sizeof(path), "%s/%s", place->base, deps[i].path.data);
			at = path;
		}
		if (holds(d, &deps[i], at, place))
			continue;
		if (ret_why != NULL)
			snprintf(ret_why, WARM_DEPEND_WHY_BYTES, "%.450s %s", at,
				 words[deps[i].kind]);
		return false;
	}
	return true;
}
