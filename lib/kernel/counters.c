/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/kernel/counters.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/hash.h"

enum { FILE_BYTES = 4096, HEAD_BYTES = 64, FLUSH_MS = 1000, TRIES = 20 };

static const char counters_magic[8] = { 'w', 'a', 'r', 'm', 'c', 'n', 't', '1' };

_Static_assert(HEAD_BYTES + WARM_KERNEL_COUNTED * sizeof(uint64_t) <= FILE_BYTES,
	       "the counters fit into their file");

static const char *const names[] = {
#define COUNTER_NAME(symbol, name, text) name,
	WARM_KERNEL_COUNTERS(COUNTER_NAME)
#undef COUNTER_NAME
};

static const char *const texts[] = {
#define COUNTER_TEXT(symbol, name, text) text,
	WARM_KERNEL_COUNTERS(COUNTER_TEXT)
#undef COUNTER_TEXT
};

const char *warm_kernel_counter_name(enum warm_kernel_counter counter)
{
	return names[counter];
}

const char *warm_kernel_counter_text(enum warm_kernel_counter counter)
{
	return texts[counter];
}

/* Whole at once: a process that maps it never meets a short one. */
static int make_file(int volume_fd, struct warm_error *err)
{
	char data[FILE_BYTES] = { 0 }, temp[80];
	uint64_t random;

	memcpy(data, counters_magic, sizeof(counters_magic));
	int rc = warm_beneath_mkdirs(volume_fd, ".warmcache", err);
	if (rc != 0)
		return rc;
	warm_random(&random, sizeof(random));
	snprintf(temp, sizeof(temp), WARM_KERNEL_COUNTERS_PATH ".%016llx",
		 (unsigned long long)random);
	scope_close int fd = -1;
	rc = warm_beneath_open(volume_fd, temp, O_WRONLY | O_CREAT | O_EXCL, 0666, &fd, err);
	if (rc != 0)
		return rc;
	rc = warm_file_write(fd, data, sizeof(data), err);
	/* For processes of another uid, whatever the umask was. Not on every file system. */
	if (rc == 0 && fchmod(fd, 0666) != 0 && errno != EPERM)
		rc = warm_error_errno(err, errno, "chmod %s", temp);
	if (rc == 0)
		rc = warm_file_close(&fd, err);
	if (rc == 0)
		rc = warm_file_move(volume_fd, temp, volume_fd, WARM_KERNEL_COUNTERS_PATH, err);
	if (rc != 0)
		unlinkat(volume_fd, temp, 0);
	return rc == WARM_EXISTS ? 0 : rc;
}

static int open_file(int volume_fd, int flags, int *ret_fd, struct warm_error *err)
{
	char magic[sizeof(counters_magic)];
	struct stat st;

	scope_close int fd = -1;
	int rc = warm_beneath_open(volume_fd, WARM_KERNEL_COUNTERS_PATH, flags | O_NONBLOCK, 0, &fd,
				   err);
	if (rc != 0)
		return rc;
	if (fstat(fd, &st) != 0)
		return warm_error_errno(err, errno, WARM_KERNEL_COUNTERS_PATH);
	if (!S_ISREG(st.st_mode) || st.st_size != FILE_BYTES ||
	    warm_file_read_at(fd, magic, sizeof(magic), 0, NULL) != 0 ||
	    memcmp(magic, counters_magic, sizeof(magic)) != 0)
		return warm_error_set(err, WARM_CORRUPT,
				      WARM_KERNEL_COUNTERS_PATH " is no file of counters");
	*ret_fd = take_fd(&fd);
	return 0;
}

int warm_kernel_counters_open(struct warm_kernel_counters *c, int volume_fd, struct warm_error *err)
{
	scope_close int fd = -1;
	int rc = open_file(volume_fd, O_RDWR, &fd, err);

	if (rc == WARM_NOT_FOUND) {
		rc = make_file(volume_fd, err);
		if (rc == 0)
			rc = open_file(volume_fd, O_RDWR, &fd, err);
	}
	if (rc != 0)
		return rc;
	fd = warm_fd_move_up(take_fd(&fd));
	if (fd < 0)
		return warm_error_errno(err, errno, "dup");
	c->id = warm_fd_id(fd);
	c->fd = take_fd(&fd);
	return 0;
}

void warm_kernel_counters_close(struct warm_kernel_counters *c)
{
	warm_kernel_counters_flush(c, true);
	if (warm_fd_is(c->fd, c->id))
		close(c->fd);
	c->id = (struct warm_fd_id){ 0, 0 };
}

void warm_kernel_counters_forked(struct warm_kernel_counters *c, int volume_fd)
{
	bool used = c->id.ino != 0;

	for (int i = 0; i < WARM_KERNEL_COUNTED; i++)
		c->flushed[i] = atomic_load_explicit(&c->own[i], memory_order_relaxed);
	atomic_flag_clear(&c->flushing);
	if (warm_fd_is(c->fd, c->id))
		close(c->fd);
	/* A descriptor of its own: locks are of those. */
	c->id = (struct warm_fd_id){ 0, 0 };
	if (used && warm_kernel_counters_open(c, volume_fd, NULL) != 0)
		c->id.ino = 0;
}

static int lock_file(int fd, short type)
{
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_len = 1 };

	return fcntl(fd, F_OFD_SETLK, &lock);
}

static void add_to_file(struct warm_kernel_counters *c)
{
	uint64_t sums[WARM_KERNEL_COUNTED], own[WARM_KERNEL_COUNTED];

	if (warm_file_read_at(c->fd, sums, sizeof(sums), HEAD_BYTES, NULL) != 0)
		return;
	for (int i = 0; i < WARM_KERNEL_COUNTED; i++) {
		own[i] = atomic_load_explicit(&c->own[i], memory_order_relaxed);
		sums[i] += own[i] - c->flushed[i];
	}
	if (warm_file_write_at(c->fd, sums, sizeof(sums), HEAD_BYTES, NULL) == 0)
		memcpy(c->flushed, own, sizeof(own));
}

void warm_kernel_counters_flush(struct warm_kernel_counters *c, bool now)
{
	int64_t now_ms = warm_clock_ms();

	if (c->id.ino == 0 || (!now && now_ms - c->flushed_ms < FLUSH_MS) ||
	    atomic_flag_test_and_set(&c->flushing))
		return;
	c->flushed_ms = now_ms;
	/* Another process that adds just now is done in a moment: a few tries are enough. */
	for (int i = 0; i < TRIES && warm_fd_is(c->fd, c->id); i++) {
		const struct timespec nap = { .tv_nsec = 50000 };
		if (lock_file(c->fd, F_WRLCK) == 0) {
			add_to_file(c);
			(void)lock_file(c->fd, F_UNLCK);
			break;
		}
		nanosleep(&nap, NULL);
	}
	atomic_flag_clear(&c->flushing);
}

int warm_kernel_counters_read(int volume_fd, uint64_t ret_values[WARM_KERNEL_COUNTED],
			      struct warm_error *err)
{
	scope_close int fd = -1;
	int rc = open_file(volume_fd, O_RDONLY, &fd, err);

	if (rc != 0)
		return rc;
	return warm_file_read_at(fd, ret_values, WARM_KERNEL_COUNTED * sizeof(uint64_t), HEAD_BYTES,
				 err);
}
