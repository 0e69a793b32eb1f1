/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The entries in a cache directory: read one, list a program's variants, store one, and keep all
 * of them below a size. The layout is lib/kernel/entry.h's.
 *
 * Entries are written beside their place and renamed, so a reader finds whole ones or none, and
 * any number of processes may read, store and evict at once. Threads: any number.
 */
#ifndef WARM_COMPILER_ENTRIES_H
#define WARM_COMPILER_ENTRIES_H

#include <stdatomic.h>

#include "lib/kernel/counters.h"
#include "lib/kernel/entry.h"

struct warm_entries {
	_Atomic int cache_fd; /* the volume; -1: there is none */
	uint64_t max_bytes;   /* 0: no limit */
	struct warm_kernel_counters *counters;
	_Atomic uint64_t unswept_bytes; /* stored since the last sweep */
	atomic_flag sweeping;
	/* Which variant of a program held last; mixed up by two writers it names none, or one that is
	 * looked at like any other. */
	struct {
		_Atomic uint64_t fingerprint, low, high;
	} recent[256];
};

/* An entry and the bytes that it views. */
struct warm_stored {
	uint8_t *data;
	size_t bytes;
	struct warm_kernel_entry entry;
};

/* The digest of all of it, which is its last bytes. */
struct warm_hash128 warm_stored_id(const struct warm_stored *stored);
void warm_stored_release(struct warm_stored *stored);

/* The entry without dependencies. False: there is none that is whole and of these inputs. */
bool warm_entries_read(struct warm_entries *entries, struct warm_hash128 fingerprint,
		       const struct warm_kernel_inputs *inputs, struct warm_stored *ret_stored);

/* The variants of a program with dependencies, the one that held last and then newest first, until
 * `holds` takes one. */
typedef bool (*warm_entry_holds_fn)(void *arg, const struct warm_stored *stored);
bool warm_entries_read_variant(struct warm_entries *entries, struct warm_hash128 fingerprint,
			       const struct warm_kernel_inputs *inputs, warm_entry_holds_fn holds,
			       void *arg, struct warm_stored *ret_stored);

/* Store the encoded entry `data`. Of variants only the newest WARM_KERNEL_VARIANTS stay. Above the
 * limit the entries that were not read for the longest time go, down to nine tenths of it.
 * Errors: of the file system. */
int warm_entries_store(struct warm_entries *entries, const struct warm_kernel_entry *entry,
		       const void *data, size_t bytes, struct warm_error *err) WARM_CHECKED;

#endif
