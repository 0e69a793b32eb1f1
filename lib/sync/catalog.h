/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layers of a key, as a store lists them, and their indexes.
 *
 *	warm_catalog_list()   one LIST
 *	warm_catalog_read()   indexes that aren't there yet, in parallel
 *
 * A layer that can't be used (corrupt, a newer format, gone) is left out with a notice, and the
 * rest is used. Threads: one catalog, one thread at a time.
 */
#ifndef WARM_SYNC_CATALOG_H
#define WARM_SYNC_CATALOG_H

#include "lib/base/notice.h"
#include "lib/layer/state.h"
#include "lib/store/store.h"

struct warm_catalog {
	struct warm_key key;
	struct warm_layer *layers; /* sorted by id, newest first */
	size_t n_layers;
	struct warm_id newest; /* none for an empty key */
	int64_t now_ms;	       /* the store's clock at the LIST; -1 unknown */
	size_t refused;	       /* layers whose index can't be used */
	bool folds;	       /* warm_catalog_fold() will be called: what it needs is kept */
};

/* LIST the key anew. Indexes that were read before stay with their layers. */
int warm_catalog_list(struct warm_catalog *catalog, struct warm_store *store,
		      const struct warm_key *key, bool want_now, const struct warm_call *call,
		      struct warm_error *err) WARM_CHECKED;

/* Read missing indexes. Errors: TRANSIENT, DENIED, CANCELED, NO_MEMORY; others are notices. */
int warm_catalog_read(struct warm_catalog *catalog, struct warm_store *store,
		      const struct warm_notices *notices, const struct warm_call *call,
		      struct warm_error *err) WARM_CHECKED;

/* Free the indexes, and keep what they were read from: a tenth of the memory. The next
 * warm_catalog_read() asks the store for none of them. For a catalog that is kept for hours. */
void warm_catalog_fold(struct warm_catalog *catalog);

/* The newest layer's complete mark among those that count; NULL: the key isn't complete. */
const char *warm_catalog_complete(const struct warm_catalog *catalog);
/* Whether one that counts has the mark `mark`; "": any. */
bool warm_catalog_has_mark(const struct warm_catalog *catalog, const char *mark);

void warm_catalog_release(struct warm_catalog *catalog);
#define scope_catalog WARM_SCOPE(warm_catalog_release)

/* The keys below a prefix of the store ("" for all), newest layer first.
 * Owns: the caller frees `*ret_keys`. */
struct warm_listed_key {
	struct warm_key key;
	struct warm_id newest;
	int64_t modified_ms; /* of the object put last, by the store's clock; -1: unknown */
	size_t n_layers;
	uint64_t bytes;
};
/* `ret_now_ms` (may be NULL) gets the store's clock, as in warm_store_list(). */
int warm_catalog_keys(struct warm_store *store, const char *prefix,
		      struct warm_listed_key **ret_keys, size_t *ret_n, int64_t *ret_now_ms,
		      const struct warm_call *call, struct warm_error *err) WARM_CHECKED;

#endif
