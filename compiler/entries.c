/* SPDX-License-Identifier: Apache-2.0 */
#include "compiler/entries.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "lib/base/clock.h"
#include "lib/base/file.h"

/* A store that was killed leaves a file behind; nobody writes one for an hour. */
enum { MAX_VARIANTS = 4 * WARM_KERNEL_VARIANTS, STALE_S = 3600, ATIME_STEP_S = 60 };

#define TEMP_PREFIX "tmp."

/* ---- read ---- */

struct warm_hash128 warm_stored_id(const struct warm_stored *s)
{
	struct warm_hash128 id;

	memcpy(&id, s->data + s->bytes - sizeof(id), sizeof(id));
	return id;
}

void warm_stored_release(struct warm_stored *s)
{
	warm_kernel_entry_release(&s->entry);
	free(s->data);
}

/* Without this, relatime moves an atime once a day. The mtime stays: the sidecar compares it. */
static void touch(int fd, const struct stat *st)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_NOW }, { .tv_nsec = UTIME_OMIT } };

	if (time(NULL) - st->st_atim.tv_sec > ATIME_STEP_S)
		(void)futimens(fd, times);
}

static bool read_entry(struct warm_entries *e, const char *path, struct warm_hash128 fingerprint,
		       const struct warm_kernel_inputs *in, struct warm_stored *ret_stored)
{
	struct warm_stored s = { 0 };
	struct stat st;

	scope_close int fd = openat(e->cache_fd, path,
				    O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return false;
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) ||
	    (uint64_t)st.st_size > WARM_KERNEL_ENTRY_BYTES)
		goto bad;
	s.bytes = (size_t)st.st_size;
	s.data = malloc(s.bytes + 1);
	if (s.data == NULL || warm_file_read_at(fd, s.data, s.bytes, 0, NULL) != 0 ||
	    warm_kernel_entry_parse(s.data, s.bytes, &s.entry, NULL) != 0)
		goto bad;
	if (s.entry.fingerprint.low != fingerprint.low ||
	    s.entry.fingerprint.high != fingerprint.high ||
	    !warm_kernel_inputs_equal(&s.entry.inputs, in))
		goto bad;
	if (e->max_bytes != 0)
		touch(fd, &st);
	*ret_stored = s;
	return true;
bad:
	warm_kernel_count(e->counters, WARM_KERNEL_COUNT_BAD_ENTRIES, 1);
	warm_stored_release(&s);
	return false;
}

bool warm_entries_read(struct warm_entries *e, struct warm_hash128 fingerprint,
		       const struct warm_kernel_inputs *in, struct warm_stored *ret_stored)
{
	char path[128];

	if (e->cache_fd < 0)
		return false;
	warm_kernel_entry_path(fingerprint, NULL, path);
	return read_entry(e, path, fingerprint, in, ret_stored);
}

static bool is_entry_name(const char *name)
{
	return strlen(name) == 32 && strspn(name, "0123456789abcdef") == 32;
}

struct variant {
	char name[64];
	int64_t mtime_ns;
};

static int newest_first(const void *a_p, const void *b_p)
{
	const struct variant *a = a_p, *b = b_p;

	if (a->mtime_ns != b->mtime_ns)
		return a->mtime_ns > b->mtime_ns ? -1 : 1;
	return strcmp(a->name, b->name);
}

/* At most MAX_VARIANTS; how many there are. */
static size_t list_variants(int cache_fd, const char *dir_path, struct variant *ret)
{
	size_t n = 0;
	int fd = openat(cache_fd, dir_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	scope_closedir DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *d;
	struct stat st;

	if (dir == NULL) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	while (n < MAX_VARIANTS && (d = readdir(dir)) != NULL) {
		if (!is_entry_name(d->d_name) || fstatat(fd, d->d_name, &st, 0) != 0)
			continue;
		snprintf(ret[n].name, sizeof(ret[n].name), "%.40s", d->d_name);
		ret[n++].mtime_ns = warm_timespec_ns(st.st_mtim);
	}
	qsort(ret, n, sizeof(*ret), newest_first);
	return n;
}

static bool read_recent(struct warm_entries *e, struct warm_hash128 fingerprint,
			const struct warm_kernel_inputs *in, char ret_name[33],
			struct warm_stored *ret_stored)
{
	size_t at = fingerprint.high % 256;
	struct warm_hash128 deps = { e->recent[at].low, e->recent[at].high };
	char path[128];

	ret_name[0] = '\0';
	if (e->recent[at].fingerprint != fingerprint.low)
		return false;
	warm_hash128_hex(deps, ret_name);
	warm_kernel_entry_path(fingerprint, &deps, path);
	return read_entry(e, path, fingerprint, in, ret_stored);
}

static void remember(struct warm_entries *e, struct warm_hash128 fingerprint,
		     const struct warm_stored *s)
{
	size_t at = fingerprint.high % 256;
	struct warm_hash128 deps = warm_kernel_deps_digest(s->entry.deps);

	e->recent[at].low = deps.low;
	e->recent[at].high = deps.high;
	e->recent[at].fingerprint = fingerprint.low;
}

bool warm_entries_read_variant(struct warm_entries *e, struct warm_hash128 fingerprint,
			       const struct warm_kernel_inputs *in, warm_entry_holds_fn holds,
			       void *arg, struct warm_stored *ret_stored)
{
	struct variant variants[MAX_VARIANTS];
	char path[128], dir[136], variant_path[208], recent[33];
	struct warm_stored s;

	if (e->cache_fd < 0)
		return false;
	if (read_recent(e, fingerprint, in, recent, &s)) {
		if (holds(arg, &s)) {
			*ret_stored = s;
			return true;
		}
		warm_stored_release(&s);
	}
	warm_kernel_entry_path(fingerprint, NULL, path);
	snprintf(dir, sizeof(dir), "%s.d", path);
	size_t n = list_variants(e->cache_fd, dir, variants);
	for (size_t i = 0; i < n; i++) {
		snprintf(variant_path, sizeof(variant_path), "%s/%.32s", dir, variants[i].name);
		if (strcmp(variants[i].name, recent) == 0 ||
		    !read_entry(e, variant_path, fingerprint, in, &s))
			continue;
		if (holds(arg, &s)) {
			remember(e, fingerprint, &s);
			*ret_stored = s;
			return true;
		}
		warm_stored_release(&s);
	}
	return false;
}

/* ---- what is left behind ---- */

static void remove_if_stale(int dir_fd, const char *name, const struct stat *st)
{
	if (strncmp(name, TEMP_PREFIX, strlen(TEMP_PREFIX)) == 0 &&
	    time(NULL) - st->st_mtim.tv_sec > STALE_S)
		(void)unlinkat(dir_fd, name, 0);
}

static void remove_stale(int cache_fd, const char *path)
{
	int fd = openat(cache_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	scope_closedir DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *d;
	struct stat st;

	if (dir == NULL && fd >= 0)
		close(fd);
	while (dir != NULL && (d = readdir(dir)) != NULL)
		if (strncmp(d->d_name, TEMP_PREFIX, strlen(TEMP_PREFIX)) == 0 &&
		    fstatat(fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
			remove_if_stale(fd, d->d_name, &st);
}

/* Room for one more variant, unless it is there: the oldest go. */
static void make_room(int cache_fd, const char *path, const char *name)
{
	struct variant variants[MAX_VARIANTS];
	char old[256];
	size_t n = list_variants(cache_fd, path, variants);

	for (size_t i = 0; i < n; i++)
		if (strcmp(variants[i].name, name) == 0)
			return;
	for (size_t i = WARM_KERNEL_VARIANTS - 1; i < n; i++) {
		snprintf(old, sizeof(old), "%s/%.32s", path, variants[i].name);
		(void)unlinkat(cache_fd, old, 0);
	}
}

/* ---- the size limit ---- */

struct used {
	char path[224];
	uint64_t bytes;
	int64_t atime_ns;
};

struct sweep {
	struct used *list;
	size_t n, capacity;
	uint64_t total_bytes;
};

static int oldest_first(const void *a_p, const void *b_p)
{
	const struct used *a = a_p, *b = b_p;

	if (a->atime_ns != b->atime_ns)
		return a->atime_ns < b->atime_ns ? -1 : 1;
	return strcmp(a->path, b->path);
}

static int add_used(struct sweep *s, const char *path, const struct stat *st)
{
	if (s->n == s->capacity) {
		size_t capacity = s->capacity == 0 ? 256 : 2 * s->capacity;
		struct used *list = realloc(s->list, capacity * sizeof(*list));
		if (list == NULL)
			return -1;
		s->list = list;
		s->capacity = capacity;
	}
	struct used *u = &s->list[s->n++];
	snprintf(u->path, sizeof(u->path), "%s", path);
	u->bytes = (uint64_t)st->st_size;
	u->atime_ns = warm_timespec_ns(st->st_atim);
	s->total_bytes += u->bytes;
	return 0;
}

/* `depth` more levels of directories below `path` hold entries. */
static int sweep_dir(int cache_fd, const char *path, int depth, struct sweep *s)
{
	int fd = openat(cache_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	scope_closedir DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *d;
	struct stat st;
	char below[224];
	int rc = 0;

	if (dir == NULL) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	while (rc == 0 && (d = readdir(dir)) != NULL) {
		if (d->d_name[0] == '.' || strlen(d->d_name) > 40 ||
		    fstatat(fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
			continue;
		snprintf(below, sizeof(below), "%.160s/%.40s", path, d->d_name);
		if (S_ISDIR(st.st_mode) && depth > 0)
			rc = sweep_dir(cache_fd, below, depth - 1, s);
		else if (S_ISREG(st.st_mode) && is_entry_name(d->d_name))
			rc = add_used(s, below, &st);
		else if (S_ISREG(st.st_mode))
			remove_if_stale(fd, d->d_name, &st);
	}
	return rc;
}

/* Two processes that sweep at once choose the same entries: what one deletes the other finds
 * gone, and both count it as freed. */
static void keep_limit(struct warm_entries *e, const char *stored)
{
	struct sweep s = { 0 };

	if (sweep_dir(e->cache_fd, WARM_KERNEL_DIR, 2, &s) == 0 && s.total_bytes > e->max_bytes) {
		uint64_t goal = e->max_bytes - e->max_bytes / 10;
		qsort(s.list, s.n, sizeof(*s.list), oldest_first);
		for (size_t i = 0; i < s.n && s.total_bytes > goal; i++) {
			if (strcmp(s.list[i].path, stored) == 0)
				continue;
			if (unlinkat(e->cache_fd, s.list[i].path, 0) == 0)
				warm_kernel_count(e->counters, WARM_KERNEL_COUNT_EVICTED, 1);
			else if (errno != ENOENT)
				continue;
			s.total_bytes -= s.list[i].bytes;
		}
	}
	free(s.list);
}

/* Others store as well: what is there is counted again after each sixteenth of the limit. */
static void note_stored(struct warm_entries *e, const char *stored, size_t bytes)
{
	if (e->max_bytes == 0)
		return;
	uint64_t since = atomic_fetch_add(&e->unswept_bytes, bytes);
	/* The first store counts what is there from earlier. */
	if ((since != 0 && since + bytes <= e->max_bytes / 16) ||
	    atomic_flag_test_and_set(&e->sweeping))
		return;
	atomic_store(&e->unswept_bytes, 1);
	keep_limit(e, stored);
	atomic_flag_clear(&e->sweeping);
}

/* ---- store ---- */

int warm_entries_store(struct warm_entries *e, const struct warm_kernel_entry *entry,
		       const void *data, size_t bytes, struct warm_error *err)
{
	char path[128], temp[160];
	uint64_t random;

	if (entry->deps.n > 0) {
		struct warm_hash128 deps = warm_kernel_deps_digest(entry->deps);
		warm_kernel_entry_path(entry->fingerprint, &deps, path);
	} else {
		warm_kernel_entry_path(entry->fingerprint, NULL, path);
	}
	char *slash = strrchr(path, '/');
	*slash = '\0';
	int rc = warm_beneath_mkdirs(e->cache_fd, path, err);
	if (rc != 0)
		return rc;
	remove_stale(e->cache_fd, path);
	if (entry->deps.n > 0)
		make_room(e->cache_fd, path, slash + 1);
	warm_random(&random, sizeof(random));
	snprintf(temp, sizeof(temp), "%s/" TEMP_PREFIX "%016llx", path, (unsigned long long)random);
	*slash = '/';
	scope_close int fd = openat(e->cache_fd, temp,
				    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
	if (fd < 0)
		return warm_error_errno(err, errno, "create %s", temp);
	rc = warm_file_write(fd, data, bytes, err);
	/* Readers of another uid: whatever the umask was. Not on every file system. */
	if (rc == 0 && fchmod(fd, 0666) != 0 && errno != EPERM)
		rc = warm_error_errno(err, errno, "chmod %s", temp);
	if (rc == 0)
		rc = warm_file_close(&fd, err);
	if (rc == 0 && renameat(e->cache_fd, temp, e->cache_fd, path) != 0)
		rc = warm_error_errno(err, errno, "rename to %s", path);
	if (rc != 0) {
		unlinkat(e->cache_fd, temp, 0);
		return rc;
	}
	warm_kernel_count(e->counters, WARM_KERNEL_COUNT_BYTES_WRITTEN, bytes);
	note_stored(e, path, bytes);
	return 0;
}
