/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "lib/base/hash.h"

int warm_path_check(const char *path, size_t bytes, struct warm_error *err)
{
	if (bytes == 0)
		return warm_error_set(err, WARM_INVALID, "empty path");
	if (bytes >= WARM_PATH_BYTES)
		return warm_error_set(err, WARM_INVALID, "path of %zu bytes, over PATH_MAX", bytes);
	if (memchr(path, 0, bytes) != NULL)
		return warm_error_set(err, WARM_INVALID, "path with a NUL byte");
	if (path[0] == '/')
		return warm_error_set(err, WARM_INVALID, "absolute path");
	for (size_t at = 0; at <= bytes;) {
		const char *slash = memchr(path + at, '/', bytes - at);
		size_t n = slash == NULL ? bytes - at : (size_t)(slash - (path + at));
		if (n == 0)
			return warm_error_set(err, WARM_INVALID, "path with an empty component");
		if (n > 255)
			return warm_error_set(err, WARM_INVALID,
					      "path with a component over 255 bytes");
		if ((n == 1 && path[at] == '.') ||
		    (n == 2 && path[at] == '.' && path[at + 1] == '.'))
			return warm_error_set(err, WARM_INVALID, "path with a '%.*s' component",
					      (int)n, path + at);
		at += n + 1;
	}
	return 0;
}

/* Bytes of the printable UTF-8 sequence at `p`; 0: none begins there. */
static size_t sequence_bytes(const unsigned char *p)
{
	size_t n = p[0] < 0x80			 ? 1
		   : p[0] >= 0xc2 && p[0] < 0xe0 ? 2
		   : p[0] >= 0xe0 && p[0] < 0xf0 ? 3
		   : p[0] >= 0xf0 && p[0] < 0xf5 ? 4
						 : 0;

	if (n == 1)
		return p[0] >= 0x20 && p[0] != 0x7f;
	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	/* Overlong forms, surrogates, beyond U+10FFFF. */
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] >= 0xa0) ||
	    (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] >= 0x90))
		return 0;
	return n;
}

const char *warm_path_base(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash != NULL ? slash + 1 : path;
}

const char *warm_path_printable(const char *text, char *ret_text, size_t bytes)
{
	size_t at = 0;

	for (const unsigned char *p = (const unsigned char *)text; *p != '\0';) {
		size_t n = sequence_bytes(p);
		if (at + (n > 0 ? n : 4) + 1 > bytes)
			break;
		if (n > 0)
			memcpy(ret_text + at, p, n);
		else
			snprintf(ret_text + at, bytes - at, "\\x%02x", *p);
		at += n > 0 ? n : 4;
		p += n > 0 ? n : 1;
	}
	ret_text[at] = '\0';
	return ret_text;
}

int warm_file_read_at(int fd, void *ret_data, size_t bytes, uint64_t offset, struct warm_error *err)
{
	uint8_t *p = ret_data;

	while (bytes > 0) {
		ssize_t n = pread(fd, p, bytes, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return warm_error_errno(err, errno, "read");
		if (n == 0)
			return warm_error_set(err, WARM_CORRUPT, "file ends %zu bytes early",
					      bytes);
		p += n;
		bytes -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

int warm_file_write(int fd, const void *data, size_t bytes, struct warm_error *err)
{
	const uint8_t *p = data;

	while (bytes > 0) {
		ssize_t n = write(fd, p, bytes);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return warm_error_errno(err, errno, "write");
		p += n;
		bytes -= (size_t)n;
	}
	return 0;
}

int warm_file_write_at(int fd, const void *data, size_t bytes, uint64_t offset,
		       struct warm_error *err)
{
	const uint8_t *p = data;

	while (bytes > 0) {
		ssize_t n = pwrite(fd, p, bytes, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return warm_error_errno(err, errno, "write");
		p += n;
		bytes -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static int load_fd(int fd, const char *path, size_t max_bytes, char **ret_data, size_t *ret_bytes,
		   struct warm_error *err)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return warm_error_errno(err, errno, "stat %s", path);
	if (S_ISDIR(st.st_mode))
		return warm_error_set(err, WARM_INVALID, "%s: is a directory", path);
	if ((uint64_t)st.st_size > max_bytes)
		return warm_error_set(err, WARM_LIMIT, "%s: %lld bytes, more than %zu", path,
				      (long long)st.st_size, max_bytes);
	/* Files of /proc say size 0: read until the end, whatever was said. */
	size_t capacity = (size_t)st.st_size + 1, used = 0;
	if (st.st_size == 0)
		capacity = 4096;
	scope_free char *data = malloc(capacity + 1);
	if (data == NULL)
		return warm_error_nomem(err, capacity);
	for (;;) {
		ssize_t n = read(fd, data + used, capacity - used);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return warm_error_errno(err, errno, "read %s", path);
		if (n == 0)
			break;
		used += (size_t)n;
		if (used > max_bytes)
			return warm_error_set(err, WARM_LIMIT, "%s: more than %zu bytes", path,
					      max_bytes);
		if (used == capacity) {
			char *more = realloc(data, 2 * capacity + 1);
			if (more == NULL)
				return warm_error_nomem(err, 2 * capacity);
			data = more;
			capacity *= 2;
		}
	}
	data[used] = '\0';
	*ret_data = take_ptr(data);
	*ret_bytes = used;
	return 0;
}

int warm_file_load(int dir_fd, const char *path, size_t max_bytes, char **ret_data,
		   size_t *ret_bytes, struct warm_error *err)
{
	scope_close int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	if (fd < 0)
		return warm_error_errno(err, errno, "open %s", path);
	return load_fd(fd, path, max_bytes, ret_data, ret_bytes, err);
}

int warm_file_unnamed(int dir_fd, const char *path, int *ret_fd, struct warm_error *err)
{
	char name[WARM_PATH_BYTES];
	uint64_t random;
	int fd = openat(dir_fd, path, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);

	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
		warm_random(&random, sizeof(random));
		snprintf(name, sizeof(name), "%.3900s/spool-%016llx", path,
			 (unsigned long long)random);
		fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd >= 0)
			unlinkat(dir_fd, name, 0);
	}
	if (fd < 0)
		return warm_error_errno(err, errno, "make a spool in %s", path);
	*ret_fd = fd;
	return 0;
}

struct warm_fd_id warm_fd_id(int fd)
{
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0)
		return (struct warm_fd_id){ 0, 0 };
	return (struct warm_fd_id){ st.st_dev, st.st_ino };
}

bool warm_fd_is(int fd, struct warm_fd_id id)
{
	struct warm_fd_id now = warm_fd_id(fd);

	return now.ino != 0 && now.dev == id.dev && now.ino == id.ino;
}

int warm_fd_move_up(int fd)
{
	if (fd < 0 || fd > STDERR_FILENO)
		return fd;
	int up = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	int saved = errno;
	close(fd);
	errno = saved;
	return up;
}

int warm_file_close(int *fd, struct warm_error *err)
{
	int closing = take_fd(fd);

	if (close(closing) != 0 && errno != EINTR)
		return warm_error_errno(err, errno, "close");
	return 0;
}

static int sync_parent(int dir_fd, const char *path, struct warm_error *err)
{
	char parent[WARM_PATH_BYTES];
	const char *slash = strrchr(path, '/');

	if (slash == NULL)
		snprintf(parent, sizeof(parent), ".");
	else
		snprintf(parent, sizeof(parent), "%.*s", slash == path ? 1 : (int)(slash - path),
			 path);
	scope_close int fd = openat(dir_fd, parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return warm_error_errno(err, errno, "open %s", parent);
	if (fsync(fd) != 0)
		return warm_error_errno(err, errno, "fsync %s", parent);
	return 0;
}

int warm_file_replace(int dir_fd, const char *path, const void *data, size_t bytes, mode_t mode,
		      bool durable, struct warm_error *err)
{
	char temp[WARM_PATH_BYTES + 32];
	uint64_t random;
	int rc;

	warm_random(&random, sizeof(random));
	snprintf(temp, sizeof(temp), "%s.tmp-%016llx", path, (unsigned long long)random);
	scope_close int fd = openat(dir_fd, temp,
				    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	if (fd < 0)
		return warm_error_errno(err, errno, "create %s", temp);
	rc = warm_file_write(fd, data, bytes, err);
	if (rc == 0 && fchmod(fd, mode) != 0)
		rc = warm_error_errno(err, errno, "chmod");
	if (rc == 0 && durable && fsync(fd) != 0)
		rc = warm_error_errno(err, errno, "fsync");
	if (rc == 0)
		rc = warm_file_close(&fd, err);
	if (rc == 0 && renameat(dir_fd, temp, dir_fd, path) != 0)
		rc = warm_error_errno(err, errno, "rename to");
	if (rc != 0) {
		unlinkat(dir_fd, temp, 0);
		warm_error_context(err, "%s", path);
		return rc;
	}
	return durable ? sync_parent(dir_fd, path, err) : 0;
}

static atomic_bool no_openat2;

static int walk_open(int dir_fd, const char *path, int flags, mode_t mode)
{
	scope_close int held = -1;
	int at_fd = dir_fd;
	char part[256];

	for (;;) {
		const char *slash = strchr(path, '/');
		if (slash == NULL)
			return openat(at_fd, path, flags | O_NOFOLLOW, mode);
		if (slash - path > 255) {
			errno = ENAMETOOLONG;
			return -1;
		}
		memcpy(part, path, (size_t)(slash - path));
		part[slash - path] = '\0';
		/* O_NOFOLLOW with O_PATH opens the link itself; O_DIRECTORY then refuses it. */
		int fd = openat(at_fd, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return -1;
		if (held >= 0)
			close(held);
		held = fd;
		at_fd = fd;
		path = slash + 1;
	}
}

static int beneath_openat(int dir_fd, const char *path, int flags, mode_t mode)
{
	flags |= O_CLOEXEC;
	if ((flags & O_PATH) == 0) /* which openat2 takes with nothing else */
		flags |= O_NOCTTY;
	if (!atomic_load_explicit(&no_openat2, memory_order_relaxed)) {
		struct open_how how = {
			.flags = (uint64_t)(unsigned)(flags | O_NOFOLLOW),
			.mode = (flags & O_CREAT) != 0 ? mode : 0,
			.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
		};
		for (int tries = 0; tries < 128; tries++) {
			long fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));
			if (fd >= 0)
				return (int)fd;
			if (errno != EAGAIN)
				break;
		}
		/* Sandboxes answer EPERM for a system call that they don't know. */
		if (errno != ENOSYS && errno != EPERM && errno != EAGAIN)
			return -1;
		if (errno == ENOSYS)
			atomic_store_explicit(&no_openat2, true, memory_order_relaxed);
	}
	return walk_open(dir_fd, path, flags, mode);
}

int warm_beneath_open(int dir_fd, const char *path, int flags, mode_t mode, int *ret_fd,
		      struct warm_error *err)
{
	char shown[160];
	int fd = beneath_openat(dir_fd, path, flags, mode);

	if (fd < 0)
		return warm_error_errno(err, errno, "open %s",
					warm_path_printable(path, shown, sizeof(shown)));
	*ret_fd = fd;
	return 0;
}

/* Make a directory if it isn't there; one that is made gets 0777 whatever the umask. */
static int make_dir(int dir_fd, const char *name)
{
	struct stat st;

	if (mkdirat(dir_fd, name, 0777) != 0)
		return errno == EEXIST ? 0 : -1;
	scope_close int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) != 0)
		return -1;
	return (st.st_mode & 0777) == 0777 ? 0 : fchmod(fd, 0777);
}

int warm_beneath_read(int dir_fd, const char *path, int *ret_fd, struct warm_error *err)
{
	int fd = beneath_openat(dir_fd, path, O_RDONLY | O_NONBLOCK | O_NOATIME, 0);

	if (fd < 0 && errno == EPERM) /* not the owner */
		return warm_beneath_open(dir_fd, path, O_RDONLY | O_NONBLOCK, 0, ret_fd, err);
	if (fd < 0) {
		char shown[160];
		return warm_error_errno(err, errno, "open %s",
					warm_path_printable(path, shown, sizeof(shown)));
	}
	*ret_fd = fd;
	return 0;
}

int warm_beneath_load(int dir_fd, const char *path, size_t max_bytes, char **ret_data,
		      size_t *ret_bytes, struct warm_error *err)
{
	scope_close int fd = -1;
	int rc = warm_beneath_read(dir_fd, path, &fd, err);

	return rc != 0 ? rc : load_fd(fd, path, max_bytes, ret_data, ret_bytes, err);
}

int warm_beneath_mkdirs(int dir_fd, const char *path, struct warm_error *err)
{
	char part[256], shown[160];
	scope_close int held = -1;
	int at_fd = dir_fd;

	for (const char *at = path; *at != '\0';) {
		size_t n = strcspn(at, "/");
		if (n > 255)
			return warm_error_set(err, WARM_INVALID, "path component over 255 bytes");
		memcpy(part, at, n);
		part[n] = '\0';
		at += n + (at[n] == '/');
		if (make_dir(at_fd, part) != 0)
			return warm_error_errno(err, errno, "mkdir %s",
						warm_path_printable(path, shown, sizeof(shown)));
		int fd = openat(at_fd, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return warm_error_errno(err, errno, "open directory %s",
						warm_path_printable(path, shown, sizeof(shown)));
		if (held >= 0)
			close(held);
		held = fd;
		at_fd = fd;
	}
	return 0;
}

int warm_beneath_parent(int dir_fd, const char *path, int *ret_fd, const char **ret_name,
			struct warm_error *err)
{
	char parent[WARM_PATH_BYTES];
	const char *slash = strrchr(path, '/');

	if (slash == NULL) {
		int fd = fcntl(dir_fd, F_DUPFD_CLOEXEC, 0);
		if (fd < 0)
			return warm_error_errno(err, errno, "dup");
		*ret_fd = fd;
		*ret_name = path;
		return 0;
	}
	snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path), path);
	int rc = warm_beneath_open(dir_fd, parent, O_PATH | O_DIRECTORY, 0, ret_fd, err);
	if (rc == 0)
		*ret_name = slash + 1;
	return rc;
}

int warm_file_move(int from_fd, const char *from, int to_fd, const char *to, struct warm_error *err)
{
	struct stat st;

	if (renameat2(from_fd, from, to_fd, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return warm_error_errno(err, errno, "rename to %s", to);
	if (fstatat(from_fd, from, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return warm_error_errno(err, errno, "stat %s", from);
	if (S_ISREG(st.st_mode) && linkat(from_fd, from, to_fd, to, 0) == 0) {
		unlinkat(from_fd, from, 0);
		return 0;
	}
	if (S_ISREG(st.st_mode) && errno == EEXIST)
		return warm_error_errno(err, EEXIST, "link to %s", to);
	if (fstatat(to_fd, to, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return warm_error_errno(err, EEXIST, "rename to %s", to);
	if (renameat(from_fd, from, to_fd, to) != 0)
		return warm_error_errno(err, errno, "rename to %s", to);
	return 0;
}

static int remove_below(int fd, int depth, struct warm_error *err)
{
	if (depth > 256) {
		close(fd);
		return warm_error_set(err, WARM_LIMIT, "directories nested over 256 deep");
	}
	scope_closedir DIR *dir = fdopendir(fd);
	if (dir == NULL) {
		close(fd);
		return warm_error_errno(err, errno, "read directory");
	}
	struct dirent *e;
	while ((e = readdir(dir)) != NULL) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (unlinkat(fd, e->d_name, 0) == 0 || errno == ENOENT)
			continue;
		if (errno != EISDIR && errno != EPERM)
			return warm_error_errno(err, errno, "remove %s", e->d_name);
		int sub = openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (sub < 0)
			return warm_error_errno(err, errno, "open %s", e->d_name);
		int rc = remove_below(sub, depth + 1, err);
		if (rc != 0)
			return rc;
		if (unlinkat(fd, e->d_name, AT_REMOVEDIR) != 0 && errno != ENOENT)
			return warm_error_errno(err, errno, "remove %s", e->d_name);
	}
	return 0;
}

int warm_tree_remove(int dir_fd, const char *name, struct warm_error *err)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0) {
		if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT)
			return 0;
		return warm_error_errno(err, errno, "remove %s", name);
	}
	int rc = remove_below(fd, 0, err);
	if (rc == 0 && unlinkat(dir_fd, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
		rc = warm_error_errno(err, errno, "remove %s", name);
	return rc;
}

void warm_boot_id(char ret_id[40])
{
	scope_free char *data = NULL;
	size_t bytes = 0;

	if (warm_file_load(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 256, &data, &bytes, NULL) !=
		    0 ||
	    bytes < 36) {
		snprintf(ret_id, 40, "unknown");
		return;
	}
	data[36] = '\0';
	snprintf(ret_id, 40, "%s", data);
}
