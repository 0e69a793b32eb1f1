/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a profile reads of files to tell whether a group is whole: ELF headers, JSON, ninja logs,
 * zstd streams, Python literals. The first byte chooses profile and file name.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/layer/index.h"
#include "lib/layer/profile.h"
#include "lib/layer/secret.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const struct {
	enum warm_profile profile;
	unsigned flags;
	const char *name, *other; /* `other` exists, empty */
} cases[] = {
	{ WARM_PROFILE_INDUCTOR, 0, "a.so", NULL },
	{ WARM_PROFILE_INDUCTOR, WARM_GROUP_MUTABLE, "a.best_config", NULL },
	{ WARM_PROFILE_VLLM, WARM_GROUP_MUTABLE, "a.py", NULL },
	{ WARM_PROFILE_TRITON, 0, "__grp__k.json", "k.json" },
	{ WARM_PROFILE_TILELANG, 0, "manifest.json", "kernel.cu" },
	{ WARM_PROFILE_FLASHINFER, 0, ".ninja_log", "g.so" },
	{ WARM_PROFILE_DEEPGEMM, 0, "kernel.cubin", "kernel.cu" },
	{ WARM_PROFILE_JAX, 0, "x-cache", NULL },
	{ WARM_PROFILE_VLLM, 0, "cache_key_factors.json", NULL },
};

enum { CASES = sizeof(cases) / sizeof(cases[0]) };

static char place[64];
static int volume_fd = -1;

static void clean_up(void)
{
	for (size_t i = 0; i < CASES; i++) {
		char path[64];
		snprintf(path, sizeof(path), "g/%s", cases[i].name);
		unlinkat(volume_fd, path, 0);
		if (cases[i].other != NULL) {
			snprintf(path, sizeof(path), "g/%s", cases[i].other);
			unlinkat(volume_fd, path, 0);
		}
	}
	unlinkat(volume_fd, "g", AT_REMOVEDIR);
	rmdir(place);
}

static bool open_volume(void)
{
	if (volume_fd >= 0)
		return true;
	snprintf(place, sizeof(place), "/dev/shm/fuzz-whole-XXXXXX");
	if (mkdtemp(place) == NULL) {
		snprintf(place, sizeof(place), "/tmp/fuzz-whole-XXXXXX");
		if (mkdtemp(place) == NULL)
			return false;
	}
	volume_fd = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (volume_fd < 0 || mkdirat(volume_fd, "g", 0777) != 0)
		return false;
	atexit(clean_up);
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	char path[64], other[64], why[40], name[20];
	const char *paths[2] = { path, other };
	size_t n = 1;

	if (bytes < 1 || !open_volume())
		return 0;
	size_t i = data[0] % CASES;
	snprintf(path, sizeof(path), "g/%s", cases[i].name);
	int fd = openat(volume_fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0)
		return 0;
	bool written = write(fd, data + 1, bytes - 1) == (ssize_t)bytes - 1;
	close(fd);
	if (cases[i].other != NULL) {
		snprintf(other, sizeof(other), "g/%s", cases[i].other);
		fd = openat(volume_fd, other, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
		if (fd < 0)
			return 0;
		close(fd);
		n = 2;
	}
	if (!written)
		return 0;
	enum warm_whole whole = warm_profile_whole(
		volume_fd, cases[i].profile, cases[i].flags,
		cases[i].profile == WARM_PROFILE_JAX ? path : "g", paths, n, why, sizeof(why));
	if (whole == WARM_WHOLE_NO && why[0] == '\0')
		abort();
	(void)warm_secret_find(volume_fd, path, name, sizeof(name));
	return 0;
}
