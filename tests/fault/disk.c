/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libdisk.so: LD_PRELOAD it, and files whose path begins with BAD_DISK lie on a bad disk: fsync
 * hangs there; with BAD_DISK_RATE it takes so many bytes a second instead.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static bool is_there(int fd)
{
	const char *disk = getenv("BAD_DISK");
	char link[64], path[4096];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof(path) - 1);
	if (n < 0 || disk == NULL)
		return false;
	path[n] = '\0';
	return strncmp(path, disk, strlen(disk)) == 0;
}

static long rate(void)
{
	const char *text = getenv("BAD_DISK_RATE");

	return text != NULL ? atol(text) : 0;
}

EXPORT int fsync(int fd)
{
	__typeof__(&fsync) next = (__typeof__(&fsync))(uintptr_t)dlsym(RTLD_NEXT, "fsync");

	if (rate() == 0 && is_there(fd)) {
		fprintf(stderr, "fsync hangs\n");
		for (;;)
			pause();
	}
	return next(fd);
}

EXPORT ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
	__typeof__(&pwrite) next = (__typeof__(&pwrite))(uintptr_t)dlsym(RTLD_NEXT, "pwrite");

	if (rate() > 0 && is_there(fd)) {
		long long ns = (long long)bytes * 1000000000 / rate();
		struct timespec nap = { ns / 1000000000, ns % 1000000000 };
		nanosleep(&nap, NULL);
	}
	return next(fd, data, bytes, offset);
}

/* Across file systems, for all it knows: what is copied goes through pwrite(). */
EXPORT ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t bytes,
			       unsigned flags)
{
	(void)in, (void)in_at, (void)out, (void)out_at, (void)bytes, (void)flags;
	errno = EXDEV;
	return -1;
}
