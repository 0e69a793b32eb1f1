/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store: named, immutable objects. It knows nothing of what they hold.
 *
 *	warm_store_open("DIR" or "scheme://...");
 *	warm_store_list / _head / _get / _put / _delete
 *	warm_store_free
 *
 * An object is there wholly or not at all, and never changes. A put is durable when it returns.
 * LIST shows every put that returned before it began. Names are relative, with '/' between
 * parts, and safe as paths.
 *
 * Every call takes a deadline and a flag to cancel (clock.h), and has done its retries when it
 * returns TRANSIENT. Threads: any number at once on one store.
 */
#ifndef WARM_STORE_STORE_H
#define WARM_STORE_STORE_H

#include <stdbool.h>
#include <sys/types.h>

#include "lib/base/clock.h"
#include "lib/base/error.h"

struct warm_store;

struct warm_object {
	const char *name;
	uint64_t bytes;
	int64_t modified_ms; /* by the store's clock; -1 when it doesn't say */
	int64_t used_ms;     /* when it was touched last; 0 when the store doesn't keep that */
};

typedef int (*warm_list_fn)(void *arg, const struct warm_object *object, struct warm_error *err);
typedef int (*warm_sink_fn)(void *arg, const void *data, size_t bytes, struct warm_error *err);

/* Open by URL or path (docs/stores.md); nothing is contacted yet. INVALID for a scheme or a
 * parameter that isn't known. */
int warm_store_open(const char *url, struct warm_store **ret_store,
		    struct warm_error *err) WARM_CHECKED;
void warm_store_free(struct warm_store *store);
static inline void warm_store_scope(struct warm_store **store)
{
	warm_store_free(*store);
}
#define scope_store WARM_SCOPE(warm_store_scope)

/* Permission bits that a directory store takes from what it makes, as a umask does; for programs
 * that clear their own. One thread, at the start. */
void warm_store_umask(mode_t mask);

/* For messages: without parameters, and it holds no credential. */
const char *warm_store_url(const struct warm_store *store);
/* How many gets in flight at once serve this store best. */
unsigned warm_store_parallel(const struct warm_store *store);

/* Can the store hold names that begin with `prefix`? INVALID says why not. Nothing is contacted. */
int warm_store_check(const struct warm_store *store, const char *prefix,
		     struct warm_error *err) WARM_CHECKED;

/* A number that grows while this process brings bytes to stores, or gets them from remote ones. */
uint64_t warm_store_activity(void);

/* Call `fn` for each object whose name begins with `prefix` (which ends in '/' or is empty), in
 * no particular order. `ret_now_ms`, where not NULL, gets the store's clock, -1 if it has none.
 *
 * Errors: DENIED, TRANSIENT, CANCELED, and whatever `fn` returns. A prefix without objects is no
 *         error; a store that isn't there at all is NOT_FOUND.
 */
int warm_store_list(struct warm_store *store, const char *prefix, warm_list_fn fn, void *arg,
		    int64_t *ret_now_ms, const struct warm_call *call,
		    struct warm_error *err) WARM_CHECKED;

/* Size and time of one object. `ret_object->name` is `name`. */
int warm_store_head(struct warm_store *store, const char *name, struct warm_object *ret_object,
		    const struct warm_call *call, struct warm_error *err) WARM_CHECKED;

/* Give bytes [offset, offset + bytes) of `name` to `sink`, in order, in pieces of any size.
 * Errors: NOT_FOUND; CORRUPT when the object ends before; whatever `sink` returns. */
int warm_store_get(struct warm_store *store, const char *name, uint64_t offset, uint64_t bytes,
		   warm_sink_fn sink, void *arg, const struct warm_call *call,
		   struct warm_error *err) WARM_CHECKED;

/* Put the first `bytes` of `fd` (read by offset) as `name`, whole or not at all.
 * Errors: EXISTS when the name is taken, where the store can tell; NO_SPACE; DENIED; TRANSIENT;
 *         CANCELED; UNSUPPORTED for a store that is only read. */
int warm_store_put(struct warm_store *store, const char *name, int fd, uint64_t bytes,
		   const struct warm_call *call, struct warm_error *err) WARM_CHECKED;

/* The same, in the place of what is there: for the few names that mean something of today (head,
 * lib/store/head.h). */
int warm_store_replace(struct warm_store *store, const char *name, int fd, uint64_t bytes,
		       const struct warm_call *call, struct warm_error *err) WARM_CHECKED;

/* Delete; what isn't there is no error. */
int warm_store_delete(struct warm_store *store, const char *name, const struct warm_call *call,
		      struct warm_error *err) WARM_CHECKED;

/* Remove what puts left that were begun more than `age_ms` ago by the store's clock and never
 * ended: multipart uploads, temporary files. Others may use the bucket: of uploads only those are
 * taken whose name `is_ours` knows. With `dry_run` they are only counted. Where a store keeps
 * nothing of that kind, or has no clock, there is nothing to do. */
int warm_store_sweep(struct warm_store *store, const char *prefix, int64_t age_ms,
		     bool (*is_ours)(const char *name), bool dry_run, size_t *ret_n,
		     const struct warm_call *call, struct warm_error *err) WARM_CHECKED;

/* The object is used: kept in LIST's `used_ms` by a directory that may be written to, by no other
 * store. Nothing is said where it fails. */
void warm_store_touch(struct warm_store *store, const char *name);

/* A file without a name, for an object on its way into the store, on the disk that will hold it.
 * UNSUPPORTED where the store has no disk of ours. */
int warm_store_spool(struct warm_store *store, int *ret_fd, struct warm_error *err) WARM_CHECKED;

/* What was read of `name` turned out wrong. True: it may have come from a copy of the store's own,
 * which is not used again for this name; another read may give better. */
bool warm_store_distrust(struct warm_store *store, const char *name);

#endif
