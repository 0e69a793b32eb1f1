/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger: what in the volume came from a store or went to one.
 *
 * `.warmcache/ledger` is replaced whole by rename. It is written before groups are moved in, so
 * an entry is a plan until the disk matches it; what doesn't match is ignored. It also keeps the
 * kernel's boot_id: nothing that we restore is synced, so after a crash of the node files may be
 * there without their bytes.
 *
 * Threads: one at a time.
 */
#ifndef WARM_SYNC_LEDGER_H
#define WARM_SYNC_LEDGER_H

#include "lib/layer/key.h"

enum {
	WARM_LEDGER_RESTORED = 1,
	WARM_LEDGER_PUBLISHED = 2,
	WARM_LEDGER_FALLBACK = 4, /* restored from another version's key */
};

struct warm_ledger_file {
	char *path;
	uint64_t size;
	int64_t mtime_ns;
	int64_t atime_ns; /* what the restore set */
};

struct warm_ledger_group {
	char *name;
	char *key; /* text of the key it came from or went to */
	char *profile;
	struct warm_id origin;
	unsigned flags;
	struct warm_ledger_file *files;
	size_t n_files;
};

struct warm_ledger {
	char boot_id[40];
	struct warm_ledger_group *groups; /* sorted by name */
	size_t n_groups, capacity;
};

#define WARM_DIR ".warmcache"
#define WARM_LEDGER_PATH WARM_DIR "/ledger"

/* An empty ledger of this boot. */
void warm_ledger_init(struct warm_ledger *ledger);
void warm_ledger_release(struct warm_ledger *ledger);
#define scope_ledger WARM_SCOPE(warm_ledger_release)

/* Errors: NOT_FOUND when there is none; CORRUPT for a torn one. On failure `ledger` is empty. */
int warm_ledger_load(struct warm_ledger *ledger, int volume_fd,
		     struct warm_error *err) WARM_CHECKED;
int warm_ledger_save(const struct warm_ledger *ledger, int volume_fd,
		     struct warm_error *err) WARM_CHECKED;

/* The same for another file of the volume (quarantine.h). */
int warm_ledger_load_from(struct warm_ledger *ledger, int volume_fd, const char *path,
			  struct warm_error *err) WARM_CHECKED;
int warm_ledger_save_to(const struct warm_ledger *ledger, int volume_fd, const char *path,
			struct warm_error *err) WARM_CHECKED;

/* Whether it was written in this boot of the kernel. */
bool warm_ledger_of_this_boot(const struct warm_ledger *ledger);

struct warm_ledger_group *warm_ledger_find(const struct warm_ledger *ledger, const char *name);

/* Forget the groups for which `gone` is set, one for each group. */
void warm_ledger_drop(struct warm_ledger *ledger, const bool *gone);

/* Add or replace a group; files are copied. */
int warm_ledger_put(struct warm_ledger *ledger, const struct warm_ledger_group *group,
		    struct warm_error *err) WARM_CHECKED;

#endif
