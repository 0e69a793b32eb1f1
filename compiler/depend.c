/* SPDX-License-Identifier: Apache-2.0 */
#include "compiler/depend.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/file.h"

enum {
	STEP_MS = 1000,
	SEEN = 1024,
	MAX_KNOWN = 1 << 16,
	MAX_OPEN = 64,
	LOOK_BYTES = 2 * WARM_PATH_BYTES
};

/* A file as it was when its contents were digested. */
struct known {
	char *path;
	uint64_t dev, ino, size;
	int64_t mtime_ns, ctime_ns;
	struct warm_hash128 digest;
	bool sealed;
};

/* An entry that held: which of its dependencies are not sealed, and so are looked at again. */
struct seen {
	uint64_t look;		 /* 0: none */
	uint32_t open[MAX_OPEN]; /* offsets in its list */
	uint32_t n_open;
};

struct warm_depend {
	const char *const *sealed;
	pthread_mutex_t lock;
	struct known *table; /* open addressing by path */
	size_t n, capacity;
	struct seen seen[SEEN]; /* by the look; a newer one takes an older one's place */
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
		/* Below it by its text, and not out of it again by "..". */
		if (n > 0 && strncmp(path, d->sealed[i], n) == 0 &&
		    (path[n] == '/' || d->sealed[i][n - 1] == '/') &&
		    strstr(path + n - 1, "/..") == NULL)
			return true;
	}
	return false;
}

/* Programs in temporary directories leave one file after the other. */
static void forget_all(struct warm_depend *d)
{
	for (size_t i = 0; i < d->capacity; i++) {
		free(d->table[i].path);
		d->table[i].path = NULL;
	}
	d->n = 0;
}

static void remember(struct warm_depend *d, const char *path, const struct known *k)
{
	pthread_mutex_lock(&d->lock);
	if (d->n == MAX_KNOWN)
		forget_all(d);
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

/* A place for the contents of one file after the other. */
struct contents {
	uint8_t *data;
	size_t capacity;
};

/* Digest a file that isn't known. The state is that before the read: a change during it shows at
 * the next look. */
static bool digest_file(const char *path, uint64_t want_bytes, struct contents *contents,
			struct known *ret_known)
{
	struct stat st;

	scope_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) ||
	    (uint64_t)st.st_size != want_bytes || want_bytes > WARM_KERNEL_ENTRY_BYTES)
		return false;
	if (want_bytes > contents->capacity) {
		size_t capacity = (size_t)want_bytes + (64 << 10);
		free(contents->data);
		contents->data = malloc(capacity);
		contents->capacity = contents->data != NULL ? capacity : 0;
	}
	if (contents->data == NULL ||
	    warm_file_read_at(fd, contents->data, (size_t)want_bytes, 0, NULL) != 0)
		return false;
	*ret_known = (struct known){
		.dev = st.st_dev,
		.ino = st.st_ino,
		.size = (uint64_t)st.st_size,
		.mtime_ns = warm_timespec_ns(st.st_mtim),
		.ctime_ns = warm_timespec_ns(st.st_ctim),
		.digest = warm_hash128(contents->data, (size_t)want_bytes),
	};
	return true;
}

static bool is_as_known(const char *path, const struct known *k)
{
	struct stat st;

	return stat(path, &st) == 0 && k->dev == st.st_dev && k->ino == st.st_ino &&
	       k->size == (uint64_t)st.st_size && k->mtime_ns == warm_timespec_ns(st.st_mtim) &&
	       k->ctime_ns == warm_timespec_ns(st.st_ctim);
}

/* ---- which paths are one file ---- */

/* NVRTC passes over a guarded file that it has read by another path. So it counts which paths are
 * the same file: a table of those of the list, by device and inode. */
struct files {
	struct {
		uint64_t dev, ino;
		uint32_t number; /* 0: free */
	} * slots;
	size_t capacity; /* a power of two, more than twice the files */
	uint32_t n;
};

/* The number of the first file of the list that is this one; 0: this is it, or no memory. */
static uint32_t number_of(struct files *f, const struct known *k, size_t max_files,
			  bool *ret_failed)
{
	if (f->slots == NULL) {
		for (f->capacity = 16; f->capacity < 2 * max_files + 2;)
			f->capacity *= 2;
		f->slots = calloc(f->capacity, sizeof(*f->slots));
		*ret_failed = f->slots == NULL;
		if (f->slots == NULL)
			return 0;
	}
	f->n++;
	size_t at = (size_t)(k->ino * 0x9e3779b97f4a7c15u ^ k->dev) & (f->capacity - 1);
	for (; f->slots[at].number != 0; at = (at + 1) & (f->capacity - 1))
		if (f->slots[at].dev == k->dev && f->slots[at].ino == k->ino)
			return f->slots[at].number;
	f->slots[at].dev = k->dev;
	f->slots[at].ino = k->ino;
	f->slots[at].number = f->n;
	return 0;
}

static bool holds_file(struct warm_depend *d, const struct warm_kernel_dep *dep, const char *path,
		       struct contents *contents, struct known *ret_known)
{
	struct known k = { 0 };

	if (!recall(d, path, &k) || !(k.sealed || is_as_known(path, &k))) {
		if (!digest_file(path, dep->size, contents, &k))
			return false;
		k.sealed = is_sealed(d, path);
		/* Times move in steps: a file that changed just now may change again within one. */
		int64_t newest = k.mtime_ns > k.ctime_ns ? k.mtime_ns : k.ctime_ns;
		if (k.sealed || warm_clock_wall_ms() - newest / 1000000 > STEP_MS)
			remember(d, path, &k);
	}
	*ret_known = k;
	return k.size == dep->size && k.digest.low == dep->digest.low &&
	       k.digest.high == dep->digest.high;
}

/* ---- entries that held ---- */

static bool was_seen(struct warm_depend *d, uint64_t look, struct seen *ret_seen)
{
	pthread_mutex_lock(&d->lock);
	const struct seen *slot = &d->seen[look % SEEN];
	bool found = slot->look == look;
	if (found) {
		ret_seen->n_open = slot->n_open;
		memcpy(ret_seen->open, slot->open, slot->n_open * sizeof(slot->open[0]));
	}
	pthread_mutex_unlock(&d->lock);
	return found;
}

static void see(struct warm_depend *d, const struct seen *seen)
{
	pthread_mutex_lock(&d->lock);
	d->seen[seen->look % SEEN] = *seen;
	pthread_mutex_unlock(&d->lock);
}

/* ---- dependencies ---- */

/* The entry at this place: the same entry elsewhere may depend on other files. Never 0. */
static uint64_t look_of(struct warm_hash128 id, const struct warm_place *place)
{
	return (warm_hash64(place->base, strlen(place->base)) ^
		warm_hash64(place->cwd, strlen(place->cwd)) * 31 ^
		warm_hash64(place->dir.data, place->dir.bytes) * 37 ^ id.low) |
	       1;
}

/* The look at one entry. */
struct look {
	struct warm_depend *d;
	const struct warm_place *place;
	struct contents contents;
	struct files files;
	size_t max_files;
	char *why;	/* NULL: not wanted */
	const char *at; /* the last one's path */
	char *path;	/* room for one that is relative */
};

/* Nothing is there, or a file that isn't in the list yet. */
static bool is_apart(struct look *l)
{
	struct known known = { 0 };
	bool failed = false;
	struct stat st;

	if (stat(l->at, &st) != 0 || S_ISDIR(st.st_mode))
		return true;
	known.dev = st.st_dev;
	known.ino = st.st_ino;
	return number_of(&l->files, &known, l->max_files, &failed) == 0 && !failed;
}

static bool holds(struct look *l, const struct warm_kernel_dep *dep)
{
	const struct warm_place *place = l->place;
	bool failed = false;
	struct known known;
	struct stat st;

	switch (dep->kind) {
	case WARM_KERNEL_DEP_ABSENT:
		return stat(l->at, &st) != 0 || S_ISDIR(st.st_mode);
	case WARM_KERNEL_DEP_FILE:
		return holds_file(l->d, dep, l->at, &l->contents, &known) &&
		       number_of(&l->files, &known, l->max_files, &failed) == dep->twin && !failed;
	case WARM_KERNEL_DEP_APART:
		return is_apart(l);
	case WARM_KERNEL_DEP_DIR:
		return dep->path.bytes == place->dir.bytes &&
		       memcmp(dep->path.data, place->dir.data, place->dir.bytes) == 0;
	case WARM_KERNEL_DEP_CWD:
		return strcmp(dep->path.data, place->cwd) == 0;
	}
	return false;
}

static bool look_at(struct look *l, const struct warm_kernel_dep *dep)
{
	static const char *const words[] = {
		[WARM_KERNEL_DEP_ABSENT] = "appeared",
		[WARM_KERNEL_DEP_FILE] = "changed or is gone",
		[WARM_KERNEL_DEP_DIR] = "was the program's directory",
		[WARM_KERNEL_DEP_CWD] = "was the current directory",
		[WARM_KERNEL_DEP_APART] = "is the same file as another one",
	};

	l->at = dep->path.data;
	if (dep->relative) {
		snprintf(l->path, LOOK_BYTES, "%s/%s", l->place->base, dep->path.data);
		l->at = l->path;
	}
	if (holds(l, dep))
		return true;
	if (l->why != NULL)
		snprintf(l->why, WARM_DEPEND_WHY_BYTES, "%.450s %s", l->at, words[dep->kind]);
	return false;
}

/* True: they hold, for sure. */
static bool look_at_open(struct look *l, struct warm_kernel_deps deps, const struct seen *seen)
{
	struct warm_kernel_dep dep;

	for (uint32_t i = 0; i < seen->n_open; i++) {
		struct warm_reader r = warm_reader_of(deps.data, deps.bytes);
		struct stat st;
		r.at = seen->open[i];
		if (!warm_kernel_next_dep(&r, &dep) || !look_at(l, &dep))
			return false;
		/* What it is apart from was passed over. */
		if (dep.kind == WARM_KERNEL_DEP_APART && stat(l->at, &st) == 0)
			return false;
	}
	return true;
}

static bool look_at_all(struct look *l, struct warm_kernel_deps deps, struct seen *seen)
{
	struct warm_reader r = warm_reader_of(deps.data, deps.bytes);
	struct warm_kernel_dep dep;
	size_t at = 0;

	for (; warm_kernel_next_dep(&r, &dep); at = r.at) {
		if (!look_at(l, &dep))
			return false;
		bool place = dep.kind == WARM_KERNEL_DEP_DIR || dep.kind == WARM_KERNEL_DEP_CWD;
		if (seen->look == 0 || (!place && is_sealed(l->d, l->at)))
			continue;
		/* A file that may change may become the same as another one: all are looked at. */
		if (dep.kind == WARM_KERNEL_DEP_FILE || seen->n_open == MAX_OPEN || at > UINT32_MAX)
			seen->look = 0;
		else
			seen->open[seen->n_open++] = (uint32_t)at;
	}
	return !r.bad;
}

bool warm_depend_holds(struct warm_depend *d, struct warm_hash128 id, struct warm_kernel_deps deps,
		       const struct warm_place *place, char ret_why[WARM_DEPEND_WHY_BYTES])
{
	char path[LOOK_BYTES];
	struct look l = {
		.d = d, .place = place, .max_files = deps.n, .why = ret_why, .path = path
	};
	struct seen seen;

	uint64_t look = d->sealed != NULL && d->sealed[0] != NULL ? look_of(id, place) : 0;
	seen.look = look;
	seen.n_open = 0;
	bool again = seen.look != 0 && was_seen(d, seen.look, &seen);
	bool ok = again && look_at_open(&l, deps, &seen);
	if (!ok) {
		/* Alone it may not be told from the files that were passed over: from the start. */
		free(take_ptr(l.files.slots));
		l.files.n = 0;
		again = false;
		seen.look = look;
		seen.n_open = 0;
		ok = look_at_all(&l, deps, &seen);
	}
	free(l.contents.data);
	free(l.files.slots);
	if (ok && !again && seen.look != 0)
		see(d, &seen);
	return ok;
}
