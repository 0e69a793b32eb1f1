/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filling near stores from far: whole layers, verified, bounded.
 *
 * What near lacks is named in a file of the volume, by the restore that missed it and by the
 * publisher that put it; the sidecar fills near from it when the model has started. The file is
 * the model's to change, so it decides nothing: only layers of the key's own model are copied, and
 * only what is verified.
 *
 * Threads: one fill at a time a volume, beside it any number of notes; any number of pods on one
 * near store.
 */
#ifndef WARM_SYNC_NEAR_H
#define WARM_SYNC_NEAR_H

#include "lib/base/notice.h"
#include "lib/layer/key.h"
#include "lib/store/store.h"

/* Name a layer in the volume's list. `damaged`: near holds it, and not right. At most 512 names
 * are kept. */
int warm_near_note(int volume_fd, const char *const *names, const bool *damaged, size_t n,
		   struct warm_error *err) WARM_CHECKED;

struct warm_near_options {
	struct warm_store *const *stores; /* nearest first, the last one far */
	size_t n_stores;
	struct warm_key key;
	const char *volume;
	uint64_t max_bytes; /* of layers in one near store; 0: no bound */
	const struct warm_notices *notices;
};

struct warm_near_report {
	size_t filled, repaired; /* layers */
	size_t evicted;
	uint64_t bytes; /* of the filled ones */
	size_t left;	/* names that stay for another time */
};

/* Copy what is named into every near store that lacks it, and take it off the list. What is wrong
 * with a near store is a notice; its names stay for another time.
 *
 * Errors: of far; of the volume; CANCELED; NO_MEMORY.
 */
int warm_near_fill(const struct warm_near_options *options, const struct warm_call *call,
		   struct warm_near_report *ret_report, struct warm_error *err) WARM_CHECKED;

#endif
