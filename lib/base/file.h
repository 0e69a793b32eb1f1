/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files: whole reads and writes, replacement by rename, and paths that can't leave a directory.
 *
 * "Beneath" functions take a directory and a relative path that passed warm_path_check(). They
 * never follow a symlink and never leave the directory, also while somebody else changes it:
 * openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS), or component by component with O_NOFOLLOW
 * where the kernel or a sandbox has no openat2.
 *
 * Threads: any number, on different files.
 */
#ifndef WARM_BASE_FILE_H
#define WARM_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "lib/base/error.h"

#define WARM_PATH_BYTES 4096 /* PATH_MAX, the NUL included */

/* 0 when `path` (of `bytes` bytes) is relative, in normal form and safe to create: no empty, "."
 * or ".." component, none over 255 bytes, no NUL, at most PATH_MAX with its end. INVALID else. */
int warm_path_check(const char *path, size_t bytes, struct warm_error *err) WARM_CHECKED;

/* The last component of `path`. */
const char *warm_path_base(const char *path);

/* Make `text` printable: control bytes and broken UTF-8 lead bytes as \xNN. Returns `ret_text`. */
const char *warm_path_printable(const char *text, char *ret_text, size_t bytes);

/* Read exactly / write all; short reads are CORRUPT. */
int warm_file_read_at(int fd, void *ret_data, size_t bytes, uint64_t offset,
		      struct warm_error *err) WARM_CHECKED;
int warm_file_write(int fd, const void *data, size_t bytes, struct warm_error *err) WARM_CHECKED;
int warm_file_write_at(int fd, const void *data, size_t bytes, uint64_t offset,
		       struct warm_error *err) WARM_CHECKED;

/* Read a whole file of at most `max_bytes` (LIMIT above). The data ends in a NUL that is not
 * counted. Owns: the caller frees `ret_data`. */
int warm_file_load(int dir_fd, const char *path, size_t max_bytes, char **ret_data,
		   size_t *ret_bytes, struct warm_error *err) WARM_CHECKED;

/* Replace `path` by `data`: temporary file beside it, rename. With `durable` the file and the
 * directory are synced. On failure the old file stands and no temporary file is left. */
int warm_file_replace(int dir_fd, const char *path, const void *data, size_t bytes, mode_t mode,
		      bool durable, struct warm_error *err) WARM_CHECKED;

/* A file without a name in the directory `path` of `dir_fd`, open for reading and writing: it goes
 * with its last descriptor. */
int warm_file_unnamed(int dir_fd, const char *path, int *ret_fd,
		      struct warm_error *err) WARM_CHECKED;

/* Which file a descriptor is of. A program may close all that it knows nothing of, and open others
 * under their numbers: whoever keeps one that it doesn't own asks first. */
struct warm_fd_id {
	uint64_t dev, ino;
};
struct warm_fd_id warm_fd_id(int fd); /* zeros when it is closed */
bool warm_fd_is(int fd, struct warm_fd_id id);

/* Give a descriptor a number above 2, in a process that may have closed those: what it prints to
 * nobody must not get into our file. Returns the new one, -1 with errno where there is none. */
int warm_fd_move_up(int fd);

/* Close a written file; its result counts. `*fd` becomes -1 in any case. */
int warm_file_close(int *fd, struct warm_error *err) WARM_CHECKED;

/* open() beneath `dir_fd`. O_CLOEXEC and O_NOFOLLOW are added. A link in the way is CORRUPT. */
int warm_beneath_open(int dir_fd, const char *path, int flags, mode_t mode, int *ret_fd,
		      struct warm_error *err) WARM_CHECKED;

/* Open beneath `dir_fd` for a read of ours, which is no use of the file: its atime stays where we
 * may ask for that. A FIFO doesn't hold us. */
int warm_beneath_read(int dir_fd, const char *path, int *ret_fd,
		      struct warm_error *err) WARM_CHECKED;

/* warm_file_load() by warm_beneath_read(). */
int warm_beneath_load(int dir_fd, const char *path, size_t max_bytes, char **ret_data,
		      size_t *ret_bytes, struct warm_error *err) WARM_CHECKED;

/* mkdir -p beneath `dir_fd`, mode 0777 whatever the umask for those it makes. */
int warm_beneath_mkdirs(int dir_fd, const char *path, struct warm_error *err) WARM_CHECKED;

/* Open the directory that holds `path` beneath `dir_fd`; `ret_name` is the last component. */
int warm_beneath_parent(int dir_fd, const char *path, int *ret_fd, const char **ret_name,
			struct warm_error *err) WARM_CHECKED;

/* Rename without replacing: EXISTS when the target is there. Falls back on link() for files and
 * on a look before rename() for directories where the file system lacks RENAME_NOREPLACE. */
int warm_file_move(int from_fd, const char *from, int to_fd, const char *to,
		   struct warm_error *err) WARM_CHECKED;

/* Delete `name` and all below it, following nothing. What is not there is no error. */
int warm_tree_remove(int dir_fd, const char *name, struct warm_error *err) WARM_CHECKED;

/* The kernel's boot id, "unknown" where it can't be read. */
void warm_boot_id(char ret_id[40]);

static inline int64_t warm_timespec_ns(struct timespec ts)
{
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static inline struct timespec warm_timespec_of_ns(int64_t ns)
{
	int64_t sec = ns / 1000000000, rest = ns % 1000000000;

	if (rest < 0) {
		rest += 1000000000;
		sec--;
	}
	return (struct timespec){ .tv_sec = sec, .tv_nsec = rest };
}

#endif
