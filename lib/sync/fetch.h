/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fetch groups out of layers: grouped ranges over many connections, frames verified and decoded
 * by a pool, files written beneath a directory. All under one memory budget.
 *
 * A group whose frame is corrupt, or whose files can't be written, fails alone. At the deadline,
 * or when the disk is full, what is done is done; `done` tells for each item.
 *
 * Threads: one call makes its own and ends them.
 */
#ifndef WARM_SYNC_FETCH_H
#define WARM_SYNC_FETCH_H

#include "lib/sync/catalog.h"

struct warm_fetch_item {
	uint32_t layer; /* in `layers` */
	const struct warm_group *group;
	const char *below; /* directory that its paths are put below; "" or "dir" */
	bool done;	   /* set: every file is written whole */
};

struct warm_fetch {
	struct warm_store *store;
	const struct warm_layer *layers;
	size_t n_layers;
	struct warm_fetch_item *items;
	size_t n_items;
	int dir_fd;	    /* -1: verify only, write nothing */
	bool all_frames;    /* of layers that have an item or `wanted`, also those of no item */
	const bool *wanted; /* with all_frames: layers to read; may be NULL */
	bool *layer_bad;    /* with all_frames: set for layers with a bad frame; may be NULL */
	unsigned jobs;	    /* decoders; 0: one more than there are CPUs */
	int64_t atime_ns;   /* to set on files */
	const struct warm_notices *notices;
	/* Called now and then with bytes fetched so far and to fetch; may be NULL. */
	void (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes);
	void *progress_arg;
};

struct warm_fetch_result {
	uint64_t fetched_bytes; /* of frames */
	uint64_t frames;
	size_t done; /* items */
};

/* Errors: the first that stopped all (CANCELED, NO_SPACE, NO_MEMORY) or the first that made an
 *         item fail; the items' `done` are right in any case. */
int warm_fetch_run(struct warm_fetch *fetch, struct warm_fetch_result *ret_result,
		   const struct warm_call *call, struct warm_error *err) WARM_CHECKED;

#endif
