/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory as a store: an object is a file. A put writes a file without a name, syncs it, links
 * it under its name where that is free and syncs the directory. Where a file system has no such
 * files it is a temporary one in the object's own directory, and a rename without replacing; names
 * that begin with a dot are never objects.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/file.h"
#include "lib/base/hash.h"
#include "lib/store/backend.h"

enum { COPY_BYTES = 1 << 20, GET_BYTES = 256 << 10 };

static mode_t mask;
static atomic_ullong moved;

uint64_t warm_file_moved(void)
{
	return atomic_load(&moved);
}

void warm_store_umask(mode_t new_mask)
{
	mask = new_mask;
}

struct file_store {
	char *root;
};

static void file_free(void *state)
{
	struct file_store *s = state;

	if (s == NULL)
		return;
	free(s->root);
	free(s);
}

static int file_open(const char *rest, void **ret_state, struct warm_error *err)
{
	struct file_store *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return warm_error_nomem(err, sizeof(*s));
	s->root = strdup(rest[0] != '\0' ? rest : "/");
	if (s->root == NULL) {
		free(s);
		return warm_error_nomem(err, strlen(rest));
	}
	*ret_state = s;
	return 0;
}

static int open_root(const struct file_store *s, struct warm_error *err)
{
	int fd = open(s->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd >= 0 ? fd : warm_error_errno(err, errno, "open directory");
}

struct walk {
	warm_list_fn fn; /* NULL: nobody wants to know */
	void *arg;
	const struct warm_call *call;
	/* For a sweep: the time before which temporary files are counted, and removed. */
	int64_t before_ms;
	size_t *swept;
	bool removes;
	char path[WARM_PATH_BYTES];
};

/* A temporary file of a put: gone with its writer, but where that was killed. */
static void sweep_file(const struct walk *w, int dir_fd, const char *name)
{
	struct stat st;

	if (strncmp(name, ".tmp-", 5) != 0 || strlen(name) != 5 + 16 ||
	    strspn(name + 5, "0123456789abcdef") != 16 ||
	    fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode) ||
	    warm_timespec_ns(st.st_mtim) / 1000000 >= w->before_ms)
		return;
	if (!w->removes || unlinkat(dir_fd, name, 0) == 0)
		(*w->swept)++;
}

static int walk_dir(struct walk *w, int fd, size_t at, int depth, struct warm_error *err)
{
	scope_closedir DIR *dir = fdopendir(fd);

	if (dir == NULL) {
		close(fd);
		return warm_error_errno(err, errno, "read directory");
	}
	for (;;) {
		errno = 0;
		struct dirent *e = readdir(dir);
		if (e == NULL && errno != 0)
			return warm_error_errno(err, errno, "read directory %s", w->path);
		if (e == NULL)
			return 0;
		size_t n = strlen(e->d_name);
		struct stat st;
		if (w->swept != NULL)
			sweep_file(w, fd, e->d_name);
		if (e->d_name[0] == '.' || at + n + 2 > sizeof(w->path))
			continue;
		int rc = warm_call_check(w->call, err);
		if (rc != 0)
			return rc;
		if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
			if (errno == ENOENT) /* deleted meanwhile */
				continue;
			return warm_error_errno(err, errno, "stat %s%s", w->path, e->d_name);
		}
		memcpy(w->path + at, e->d_name, n + 1);
		if (S_ISREG(st.st_mode)) {
			struct warm_object o = { w->path, (uint64_t)st.st_size,
						 warm_timespec_ns(st.st_mtim) / 1000000,
						 warm_timespec_ns(st.st_atim) / 1000000 };
			rc = w->fn != NULL ? w->fn(w->arg, &o, err) : 0;
		} else if (S_ISDIR(st.st_mode) && depth < 16) {
			w->path[at + n] = '/';
			w->path[at + n + 1] = '\0';
			int sub = openat(fd, e->d_name,
					 O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			if (sub >= 0)
				rc = walk_dir(w, sub, at + n + 1, depth + 1, err);
			else if (errno != ENOENT)
				rc = warm_error_errno(err, errno, "open %s", w->path);
		}
		w->path[at] = '\0';
		if (rc != 0)
			return rc;
	}
}

/* The clock of the file system that holds the store: a fresh file's mtime. */
static int64_t file_now(int root_fd)
{
	char name[40];
	uint64_t random;
	struct stat st;
	int64_t now = -1;

	warm_random(&random, sizeof(random));
	snprintf(name, sizeof(name), ".tmp-%016llx", (unsigned long long)random);
	scope_close int fd = openat(root_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0)
		return -1;
	if (write(fd, "", 1) == 1 && fstat(fd, &st) == 0)
		now = warm_timespec_ns(st.st_mtim) / 1000000;
	unlinkat(root_fd, name, 0);
	return now;
}

static int walk_prefix(struct walk *w, int root, const char *prefix, struct warm_error *err)
{
	size_t n = strlen(prefix);

	if (n + 1 > sizeof(w->path))
		return warm_error_set(err, WARM_INVALID, "prefix too long");
	memcpy(w->path, prefix, n + 1);
	int fd = openat(root, n > 0 ? prefix : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0)
		return warm_error_errno(err, errno, "open directory");
	return walk_dir(w, fd, n, 0, err);
}

static int file_list(void *state, const char *prefix, warm_list_fn fn, void *arg,
		     int64_t *ret_now_ms, const struct warm_call *call, struct warm_error *err)
{
	struct walk w = { .fn = fn, .arg = arg, .call = call };
	scope_close int root = open_root(state, err);

	if (root < 0)
		return root;
	if (ret_now_ms != NULL)
		*ret_now_ms = file_now(root);
	return walk_prefix(&w, root, prefix, err);
}

static int file_sweep(void *state, const char *prefix, int64_t age_ms,
		      bool (*is_ours)(const char *name), bool dry_run, size_t *ret_n,
		      const struct warm_call *call, struct warm_error *err)
{
	struct walk w = { .call = call, .swept = ret_n, .removes = !dry_run };
	scope_close int root = open_root(state, err);

	if (root < 0)
		return root;
	(void)is_ours; /* a temporary file doesn't say what it was to be */
	int64_t now = file_now(root);
	if (now < 0)
		return 0;
	w.before_ms = now - age_ms;
	return walk_prefix(&w, root, prefix, err);
}

static int open_object(void *state, const char *name, int *ret_fd, struct stat *ret_st,
		       struct warm_error *err)
{
	scope_close int root = open_root(state, err);

	if (root < 0)
		return root;
	scope_close int fd = -1;
	int rc = warm_beneath_open(root, name, O_RDONLY | O_NONBLOCK, 0, &fd, err);
	if (rc != 0)
		return rc;
	if (fstat(fd, ret_st) != 0)
		return warm_error_errno(err, errno, "stat");
	if (!S_ISREG(ret_st->st_mode))
		return warm_error_set(err, WARM_CORRUPT, "no regular file");
	*ret_fd = take_fd(&fd);
	return 0;
}

static int file_head(void *state, const char *name, struct warm_object *ret_object,
		     const struct warm_call *call, struct warm_error *err)
{
	scope_close int fd = -1;
	struct stat st;
	int rc = open_object(state, name, &fd, &st, err);

	(void)call;
	if (rc == 0)
		*ret_object = (struct warm_object){ name, (uint64_t)st.st_size,
						    warm_timespec_ns(st.st_mtim) / 1000000,
						    warm_timespec_ns(st.st_atim) / 1000000 };
	return rc;
}

static int file_get(void *state, const char *name, uint64_t offset, uint64_t bytes,
		    warm_sink_fn sink, void *arg, const struct warm_call *call,
		    struct warm_error *err)
{
	scope_close int fd = -1;
	struct stat st;
	int rc = open_object(state, name, &fd, &st, err);

	if (rc != 0)
		return rc;
	uint64_t size = (uint64_t)st.st_size;
	if (offset > size || bytes > size - offset)
		return warm_error_set(err, WARM_CORRUPT,
				      "has %llu bytes, shorter than it should be",
				      (unsigned long long)size);
	size_t capacity = bytes < GET_BYTES ? (size_t)bytes : GET_BYTES;
	scope_free uint8_t *data = malloc(capacity + 1);
	if (data == NULL)
		return warm_error_nomem(err, capacity);
	while (rc == 0 && bytes > 0) {
		size_t n = bytes < capacity ? (size_t)bytes : capacity;
		rc = warm_call_check(call, err);
		if (rc == 0)
			rc = warm_file_read_at(fd, data, n, offset, err);
		if (rc == 0)
			rc = sink(arg, data, n, err);
		offset += n;
		bytes -= n;
	}
	return rc;
}

static int copy_bytes(int from, int to, uint64_t bytes, const struct warm_call *call,
		      struct warm_error *err)
{
	scope_free uint8_t *data = NULL;
	uint64_t offset = 0;
	bool by_kernel = true;

	while (offset < bytes) {
		uint64_t left = bytes - offset;
		size_t n = left < COPY_BYTES ? (size_t)left : COPY_BYTES;
		int rc = warm_call_check(call, err);
		if (rc != 0)
			return rc;
		if (by_kernel) {
			loff_t in = (loff_t)offset, out = (loff_t)offset;
			ssize_t got = copy_file_range(from, &in, to, &out, n, 0);
			if (got > 0) {
				offset += (uint64_t)got;
				atomic_fetch_add(&moved, (uint64_t)got);
				continue;
			}
			if (got < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
				return warm_error_errno(err, errno, "write");
			by_kernel = false;
		}
		if (data == NULL && (data = malloc(COPY_BYTES)) == NULL)
			return warm_error_nomem(err, COPY_BYTES);
		rc = warm_file_read_at(from, data, n, offset, err);
		if (rc == 0)
			rc = warm_file_write_at(to, data, n, offset, err);
		if (rc != 0)
			return rc;
		offset += n;
		atomic_fetch_add(&moved, n);
	}
	return 0;
}

static int sync_dir(int fd, struct warm_error *err)
{
	/* Some file systems (FUSE) have no fsync for directories, and need none. */
	if (fsync(fd) != 0 && errno != EINVAL && errno != ENOSYS)
		return warm_error_errno(err, errno, "sync the directory");
	return 0;
}

/* Open the object's directory, making and syncing what is missing on the way. */
static int make_parents(int root, const char *name, int *ret_fd, const char **ret_base,
			struct warm_error *err)
{
	scope_close int at = fcntl(root, F_DUPFD_CLOEXEC, 0);
	char part[256];

	if (at < 0)
		return warm_error_errno(err, errno, "dup");
	for (;;) {
		const char *slash = strchr(name, '/');
		if (slash == NULL)
			break;
		memcpy(part, name, (size_t)(slash - name));
		part[slash - name] = '\0';
		if (mkdirat(at, part, 0777 & ~mask) == 0) {
			int rc = sync_dir(at, err);
			if (rc != 0)
				return rc;
		} else if (errno != EEXIST) {
			return warm_error_errno(err, errno, "make directory %s", part);
		}
		int next = openat(at, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (next < 0)
			return warm_error_errno(err, errno, "open directory %s", part);
		close(at);
		at = next;
		name = slash + 1;
	}
	*ret_fd = take_fd(&at);
	*ret_base = name;
	return 0;
}

static int copy_and_sync(int from, int to, uint64_t bytes, const struct warm_call *call,
			 struct warm_error *err)
{
	int rc = copy_bytes(from, to, bytes, call, err);

	if (rc == 0 && fsync(to) != 0)
		rc = warm_error_errno(err, errno, "fsync");
	return rc;
}

/* By a file that has no name until it is whole, and vanishes with its writer. UNSUPPORTED where
 * there are none, or no /proc to name them by. */
static int put_unnamed(int dir, const char *base, int from, uint64_t bytes,
		       const struct warm_call *call, struct warm_error *err)
{
	char path[40];
	struct stat st;
	scope_close int out = openat(dir, ".", O_WRONLY | O_TMPFILE | O_CLOEXEC, 0666 & ~mask);

	if (out < 0 && errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL && errno != ENOENT)
		return warm_error_errno(err, errno, "create a temporary file");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", out);
	if (out < 0 || stat(path, &st) != 0)
		return WARM_UNSUPPORTED;
	int rc = copy_and_sync(from, out, bytes, call, err);
	if (rc != 0)
		return rc;
	if (linkat(AT_FDCWD, path, dir, base, AT_SYMLINK_FOLLOW) != 0)
		return errno == EEXIST || errno == ENOSPC || errno == EDQUOT || errno == EROFS ||
				       errno == EACCES
			       ? warm_error_errno(err, errno, "link")
			       : WARM_UNSUPPORTED;
	return warm_file_close(&out, err);
}

static int put_named(int dir, const char *base, int from, uint64_t bytes, bool replace,
		     const struct warm_call *call, struct warm_error *err)
{
	char temp[40];
	uint64_t random;

	warm_random(&random, sizeof(random));
	snprintf(temp, sizeof(temp), ".tmp-%016llx", (unsigned long long)random);
	scope_close int out = openat(dir, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
				     0666 & ~mask);
	if (out < 0)
		return warm_error_errno(err, errno, "create a temporary file");
	int rc = copy_and_sync(from, out, bytes, call, err);
	if (rc == 0)
		rc = warm_file_close(&out, err);
	if (rc == 0 && !replace)
		rc = warm_file_move(dir, temp, dir, base, err);
	else if (rc == 0 && renameat(dir, temp, dir, base) != 0)
		rc = warm_error_errno(err, errno, "rename");
	if (rc != 0)
		unlinkat(dir, temp, 0);
	return rc;
}

static int file_put(void *state, const char *name, int fd, uint64_t bytes, bool replace,
		    const struct warm_call *call, struct warm_error *err)
{
	struct file_store *s = state;
	const char *base = name;

	if (mkdir(s->root, 0777 & ~mask) != 0 && errno != EEXIST)
		return warm_error_errno(err, errno, "make the store's directory");
	scope_close int root = open_root(s, err);
	if (root < 0)
		return root;
	scope_close int dir = -1;
	int rc = make_parents(root, name, &dir, &base, err);
	if (rc != 0)
		return rc;
	rc = replace ? WARM_UNSUPPORTED : put_unnamed(dir, base, fd, bytes, call, err);
	if (rc == WARM_UNSUPPORTED)
		rc = put_named(dir, base, fd, bytes, replace, call, err);
	return rc != 0 ? rc : sync_dir(dir, err);
}

static int file_delete(void *state, const char *name, const struct warm_call *call,
		       struct warm_error *err)
{
	scope_close int root = open_root(state, err);
	scope_close int dir = -1;
	const char *base = NULL;

	(void)call;
	if (root < 0)
		return root;
	int rc = warm_beneath_parent(root, name, &dir, &base, err);
	if (rc == WARM_NOT_FOUND)
		return 0;
	if (rc == 0 && unlinkat(dir, base, 0) != 0 && errno != ENOENT)
		rc = warm_error_errno(err, errno, "unlink");
	return rc;
}

/* A file without a name where objects go: what is copied there needs no room elsewhere. */
static int file_spool(void *state, int *ret_fd, struct warm_error *err)
{
	const struct file_store *s = state;

	if (mkdir(s->root, 0777 & ~mask) != 0 && errno != EEXIST)
		return warm_error_errno(err, errno, "make the store's directory");
	scope_close int root = open_root(s, err);
	return root < 0 ? root : warm_file_unnamed(root, ".", ret_fd, err);
}

/* By atime, set rather than left to the mount's options. */
static void file_touch(void *state, const char *name)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_NOW }, { .tv_nsec = UTIME_OMIT } };
	scope_close int fd = -1;
	struct stat st;

	if (open_object(state, name, &fd, &st, NULL) == 0 && futimens(fd, times) != 0)
		return; /* read-only: whoever fills it sees to its bound */
}

const struct warm_backend warm_backend_file = {
	.scheme = "file",
	.parallel = 4,
	.open = file_open,
	.free = file_free,
	.list = file_list,
	.head = file_head,
	.get = file_get,
	.put = file_put,
	.delete = file_delete,
	.sweep = file_sweep,
	.touch = file_touch,
	.spool = file_spool,
};
