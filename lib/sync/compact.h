/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compaction: fold the layers of a key into a base.
 *
 * The base holds the live groups of every layer that could be read and verified to its end, with
 * their origins, and lists the ids that it covers, those that its covered bases cover included.
 * Layers that can't be read are not covered and stay as they are.
 *
 * A covered layer is deleted only when its base was found in a fresh LIST, verified, and stood
 * there for `min_age_ms` by the store's own clock; where the store has no clock it stays. So two
 * compactors at once, one that dies anywhere, and readers in the middle of a restore lose
 * nothing. To be run by an operator or a CronJob, never by serving pods.
 *
 * Threads: one compaction, one thread; it makes threads for reading.
 */
#ifndef WARM_SYNC_COMPACT_H
#define WARM_SYNC_COMPACT_H

#include "lib/sync/catalog.h"

struct warm_compact_options {
	struct warm_store *store;
	struct warm_key key;
	const char *work_dir; /* for unpacked files; an unlinked place is made below it */
	int level;	      /* of zstd; 0: 9 */
	size_t min_layers;    /* fewer uncovered layers than this are left alone; 0: 2 */
	int64_t min_age_ms;   /* of a base before what it covers is deleted; 0: one hour */
	const struct warm_notices *notices;
};

struct warm_compact_report {
	size_t folded;		    /* layers covered by the new base */
	size_t groups;		    /* in it */
	uint64_t bytes;		    /* its size */
	char base[WARM_NAME_BYTES]; /* its object; "" when none was made */
	size_t deleted;		    /* covered layers */
	size_t kept;		    /* covered layers that may not be deleted yet */
	size_t bad;		    /* layers that could not be read or verified */
};

/* Errors: of the store and of the work directory; NO_MEMORY; CANCELED. */
int warm_compact_run(const struct warm_compact_options *options, const struct warm_call *call,
		     struct warm_compact_report *ret_report, struct warm_error *err) WARM_CHECKED;

#endif
