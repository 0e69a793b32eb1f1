/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/kernel/counters.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/file.h"
#include "lib/base/hash.h"

enum { FILE_BYTES = 4096, HEAD_BYTES = 64 };

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
	void *map = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return warm_error_errno(err, errno, "map " WARM_KERNEL_COUNTERS_PATH);
	c->map = map;
	c->shared = (_Atomic uint64_t *)(void *)((char *)map + HEAD_BYTES);
	return 0;
}

void warm_kernel_counters_close(struct warm_kernel_counters *c)
{
	if (c->map != NULL)
		munmap(c->map, FILE_BYTES);
	c->map = NULL;
	c->shared = NULL;
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
