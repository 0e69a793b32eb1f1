/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When to look at the volume: inotify on its directories, as far as that goes.
 *
 * Events only say that something happened; a scan says what there is. The scan adds the watches as
 * it goes. Past the limit, without watches left, or where no events come (some sandboxes, network
 * file systems) `by_clock` says that looks must come by the clock.
 *
 * Threads: the scanning thread adds, the loop drains.
 */
#ifndef WARM_SIDECAR_WATCH_H
#define WARM_SIDECAR_WATCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct warm_watch {
	const char *volume;
	uint64_t max_watches;
	int fd; /* of inotify, to be polled; -1: none is to be had */
	atomic_size_t watches;
	atomic_bool too_many; /* directories, in the last scan */
	atomic_bool silent;   /* no events come here */
};

void warm_watch_init(struct warm_watch *watch, const char *volume, uint64_t max_watches);

/* Make a file and see whether an event comes. The volume must have its .warmcache. */
void warm_watch_probe(struct warm_watch *watch);

/* A scan begins: count anew. */
void warm_watch_begin(struct warm_watch *watch);
/* A warm_scan_dir_fn; `arg` is the watch. */
void warm_watch_dir(void *arg, const char *path);

/* Take the events; true when something happened that may be published. */
bool warm_watch_drain(struct warm_watch *watch);

bool warm_watch_by_clock(const struct warm_watch *watch);

#endif
