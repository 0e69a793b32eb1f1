/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Restore: from a store into a volume.
 *
 * Whatever happens, the volume holds whole groups only: files are written in a stage beside the
 * cache and moved in by rename, whole directories at once where the volume lacks them, and what
 * is there already stays. A restore that was cut off at any moment is completed by the next one.
 *
 * Threads: one restore a volume at a time; it makes threads of its own and ends them.
 */
#ifndef WARM_SYNC_RESTORE_H
#define WARM_SYNC_RESTORE_H

#include "lib/layer/profile.h"
#include "lib/sync/catalog.h"

enum warm_fallback { WARM_FALLBACK_LATEST, WARM_FALLBACK_NONE, WARM_FALLBACK_VERSIONS };

struct warm_restore_options {
	struct warm_store *store;
	struct warm_key key;
	const char *volume; /* an existing directory */
	enum warm_fallback fallback;
	const char *const *versions; /* for WARM_FALLBACK_VERSIONS, the first that exists wins */
	size_t n_versions;
	unsigned jobs;	    /* 0: by the CPUs */
	uint64_t max_bytes; /* to add to the volume; 0: half of what is free */
	bool dry_run;	    /* look, fetch nothing, change nothing */
	bool cold;	    /* put the volume in order, restore nothing; the store isn't asked */
	const char *mount;  /* path that the groups will be used under; NULL: the volume's own */
	const struct warm_profile_roots *roots;
	const struct warm_notices *notices;
	void (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes);
	void *progress_arg;
};

enum warm_restore_status {
	WARM_RESTORE_WARM,     /* all that the key holds for this machine is in the volume */
	WARM_RESTORE_FALLBACK, /* the same, with groups of another version among it */
	WARM_RESTORE_PARTIAL,  /* something of it is missing; `reason` says why */
	WARM_RESTORE_COLD,     /* nothing to restore */
	WARM_RESTORE_ERROR,    /* nothing was restored, and something was wrong */
};

struct warm_restore_result {
	enum warm_restore_status status;
	size_t layers;		/* that hold what was wanted */
	size_t groups;		/* in the volume now, of those wanted */
	size_t files;		/* moved in by this run */
	uint64_t bytes;		/* of these files */
	size_t present_files;	/* wanted and there before */
	uint64_t fetched_bytes; /* of frames */
	int64_t list_ms, index_ms, fetch_ms, place_ms;
	char fallback_version[WARM_KEY_PART_BYTES]; /* "" when none was used */
	bool complete;				    /* the key itself carries the complete mark */
	char reason[512];			    /* empty when there is nothing to say */
};

const char *warm_restore_status_name(enum warm_restore_status status);

/* Run one restore. `ret_result` is filled in any case; the return value is the error behind
 * PARTIAL and ERROR, else 0.
 *
 * Errors: of the volume: NOT_FOUND, DENIED, NO_SPACE; of the store: TRANSIENT, DENIED; CORRUPT
 *         when layers or frames had to be refused; LIMIT at `max_bytes`; CANCELED at the
 *         deadline; INVALID.
 */
int warm_restore_run(const struct warm_restore_options *options, const struct warm_call *call,
		     struct warm_restore_result *ret_result, struct warm_error *err) WARM_CHECKED;

#endif
