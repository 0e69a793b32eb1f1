/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is in the volume: every file that could be published, by group.
 *
 * Links, devices, temporary and lock files and what a profile doesn't list are left out. A scan
 * reads directories and stats files; it opens none of them.
 *
 * Threads: one scan, one thread.
 */
#ifndef WARM_SYNC_SCAN_H
#define WARM_SYNC_SCAN_H

#include "lib/layer/pack.h"
#include "lib/layer/profile.h"

struct warm_scan_file {
	const char *path;
	struct warm_seen seen;
	int64_t atime_ns;
	bool companion; /* rides in its group; a change of it is no change */
};

struct warm_scan_group {
	const char *name;
	enum warm_profile profile;
	unsigned flags;
	uint64_t bound;
	uint32_t first_file, n_files; /* sorted by path */
	uint64_t bytes;
	int64_t changed_ns; /* newest ctime, companions left out */
	bool holes;	    /* part of it is over the limit or can't be read */
};

struct warm_scan {
	struct warm_scan_file *files;
	size_t n_files, files_capacity;
	struct warm_scan_group *groups; /* sorted by name */
	size_t n_groups;
	uint64_t bytes;
	size_t skipped_kinds;	   /* links, devices, sockets */
	size_t skipped_unreadable; /* directories and files without permission */
	size_t skipped_large;
	char first_skipped[160];	/* a path among them, for the message */
	struct warm_scan_chunk *chunks; /* strings */
};

/* Called for each directory; for inotify watches. `path` is "" for the volume itself. */
typedef void (*warm_scan_dir_fn)(void *arg, const char *path);

/* Errors: NOT_FOUND, DENIED, IO for the volume's own directory; NO_MEMORY; CANCELED. */
int warm_scan_run(int volume_fd, const struct warm_profile_roots *roots, uint64_t max_file_bytes,
		  warm_scan_dir_fn dir_fn, void *dir_arg, const struct warm_call *call,
		  struct warm_scan *ret_scan, struct warm_error *err) WARM_CHECKED;
void warm_scan_release(struct warm_scan *scan);
#define scope_scan WARM_SCOPE(warm_scan_release)

#endif
