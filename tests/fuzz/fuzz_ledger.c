/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger, which the model may write too: as it comes, and with its checksum made right.
 * What loads must save and load again.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/base/hash.h"
#include "lib/sync/ledger.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static char place[64];
static int volume_fd = -1;

static void clean_up(void)
{
	unlinkat(volume_fd, WARM_LEDGER_PATH, 0);
	unlinkat(volume_fd, WARM_DIR, AT_REMOVEDIR);
	rmdir(place);
}

static void must(bool holds)
{
	if (!holds)
		abort();
}

static bool open_volume(void)
{
	if (volume_fd >= 0)
		return true;
	snprintf(place, sizeof(place), "/dev/shm/fuzz-ledger-XXXXXX");
	if (mkdtemp(place) == NULL) {
		snprintf(place, sizeof(place), "/tmp/fuzz-ledger-XXXXXX");
		if (mkdtemp(place) == NULL)
			return false;
	}
	volume_fd = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (volume_fd < 0 || mkdirat(volume_fd, WARM_DIR, 0777) != 0)
		return false;
	atexit(clean_up);
	return true;
}

static void check(const void *data, size_t bytes)
{
	scope_ledger struct warm_ledger ledger = { 0 };
	scope_ledger struct warm_ledger again = { 0 };
	struct warm_error err = { 0 };

	int fd = openat(volume_fd, WARM_LEDGER_PATH, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
			0666);
	if (fd < 0)
		return;
	bool written = write(fd, data, bytes) == (ssize_t)bytes;
	close(fd);
	if (!written)
		return;
	if (warm_ledger_load(&ledger, volume_fd, &err) != 0) {
		must(ledger.n_groups == 0 && err.status != WARM_OK);
		return;
	}
	(void)warm_ledger_of_this_boot(&ledger);
	for (size_t i = 0; i < ledger.n_groups; i++)
		(void)warm_ledger_find(&ledger, ledger.groups[i].name);
	if (warm_ledger_save(&ledger, volume_fd, &err) != 0)
		return;
	must(warm_ledger_load(&again, volume_fd, &err) == 0);
	must(again.n_groups == ledger.n_groups && strcmp(again.boot_id, ledger.boot_id) == 0);
	for (size_t i = 0; i < again.n_groups; i++)
		must(strcmp(again.groups[i].name, ledger.groups[i].name) == 0 &&
		     again.groups[i].n_files == ledger.groups[i].n_files);
	if (ledger.n_groups > 0)
		must(warm_ledger_put(&again, &ledger.groups[0], &err) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	scope_free uint8_t *copy = malloc(bytes + 8);

	if (copy == NULL || !open_volume())
		return 0;
	memcpy(copy, data, bytes);
	check(copy, bytes);
	if (bytes < 8)
		return 0;
	uint64_t sum = warm_hash64(copy, bytes - 8);
	for (size_t i = 0; i < 8; i++)
		copy[bytes - 8 + i] = (uint8_t)(sum >> (8 * i));
	check(copy, bytes);
	return 0;
}
