/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publish: from a volume into a store.
 *
 * A publisher is kept for the life of a sidecar; each round scans, decides what is new and whole,
 * asks the store what it has by now, packs the rest and puts it, layer by layer. Every layer is
 * put whole or not at all, and the ledger follows each put: a round that is cut off anywhere is
 * continued by the next.
 *
 * Threads: one publisher, one thread.
 */
#ifndef WARM_SYNC_PUBLISH_H
#define WARM_SYNC_PUBLISH_H

#include "lib/base/buf.h"
#include "lib/layer/profile.h"
#include "lib/sync/catalog.h"
#include "lib/sync/scan.h"

struct warm_publish_options {
	struct warm_store *store;
	struct warm_key key;
	const char *volume;
	const char *mount;	   /* recorded in layers; NULL: the volume's real path */
	int64_t settle_ms;	   /* a group is settled when unchanged this long */
	int64_t unproven_ms;	   /* ... where no lease and no profile can tell; 0: 60 s */
	uint64_t max_file_bytes;   /* larger files are never published; 0: 2 GiB */
	uint64_t layer_bytes;	   /* compressed; 0: 16 MiB */
	int level;		   /* of zstd; 0: 1 */
	int64_t complete_after_ms; /* no mark while a group is younger than this */
	bool has_near;		   /* what is put is named for near stores (near.h) */
	bool no_ledger;		   /* for directories that are no volume: subtract by name alone */
	bool read_only;		   /* look and count; the store is never asked */
	unsigned cpu_percent;	   /* of one CPU, at most, while a ROUND packs; 0: no limit */
	/* Set: the pod's end has begun. The limit is lifted, and a ROUND ends after the layer at
	 * hand, to make room for what a DRAIN does in its own order. May be NULL. */
	const atomic_bool *draining;
	/* Files that may hold what looks like a secret: paths or patterns of fnmatch(). */
	const char *const *allow_secrets;
	size_t n_allow_secrets;
	/* Set: a round that isn't a last one ends after the layer at hand. May be NULL. */
	const atomic_bool *hurry;
	const struct warm_profile_roots *roots;
	const struct warm_notices *notices;
	/* Called now and then with raw bytes packed so far and to pack; may be NULL. */
	void (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes);
	void *progress_arg;
};

enum warm_publish_mode {
	WARM_PUBLISH_LOOK,  /* count what is there; the store isn't asked */
	WARM_PUBLISH_ROUND, /* settled groups; begins anywhere among them, so that replicas which
			     * publish the same at once share the work */
	WARM_PUBLISH_DRAIN, /* settle time waived as in a last round, which comes later */
	WARM_PUBLISH_FINAL, /* settle time waived for what is proven whole or renamed into place;
			     * smallest groups first */
	WARM_PUBLISH_ALL,   /* settle time waived for all that isn't known to be torn */
};

/* Restored groups of a profile: opened since, or not. Those that a hit doesn't open are in
 * neither. */
struct warm_use {
	size_t used, inert;
	uint64_t used_bytes, inert_bytes;
};

struct warm_publish_report {
	size_t layers, groups, files; /* put by this round */
	uint64_t raw_bytes, bytes;    /* of these: in the volume, in the store */
	size_t waiting;		      /* groups that are new but not settled, or being written */
	size_t torn;		      /* groups that are new and not whole */
	size_t withheld;	      /* groups never published: secrets, unreadable files */
	size_t left;	/* groups by fallback that nobody opened yet: a read makes no event */
	size_t present; /* new groups that the store had already */
	size_t fresh;	/* groups that are new, settled and whole; published or not */
	size_t volume_groups;
	uint64_t volume_bytes;
	struct warm_use use[WARM_PROFILES];
	int64_t scan_ms, pack_ms, put_ms;
	bool asked;	  /* the store was listed: what is said of the mark is so */
	bool complete;	  /* the key carries the complete mark now */
	bool volume_lost; /* the volume could not be scanned */
};

struct warm_publisher;

/* Open the volume and look at it; the store isn't asked.
 * Errors: NOT_FOUND, DENIED for the volume; NO_MEMORY. */
int warm_publisher_open(const struct warm_publish_options *options, struct warm_publisher **ret_p,
			struct warm_error *err) WARM_CHECKED;
void warm_publisher_free(struct warm_publisher *p);
static inline void warm_publisher_scope(struct warm_publisher **p)
{
	warm_publisher_free(*p);
}
#define scope_publisher WARM_SCOPE(warm_publisher_scope)

/* The model is ready: from now on a mark needs no quiet time before it. */
void warm_publisher_set_ready(struct warm_publisher *p);

/* The sum over all profiles. */
struct warm_use warm_publish_use(const struct warm_publish_report *report);

/* Look for the reasons why nothing of what was restored was opened (inert.h).
 * Owns: the caller releases `ret_text`. */
int warm_publisher_explain_inert(struct warm_publisher *p, const struct warm_call *call,
				 struct warm_buf *ret_text, struct warm_error *err) WARM_CHECKED;

/* One round. `complete` (NULL: none) is the mark to put on the round's last layer, or on an
 * empty one when there is nothing new; not when the key has it already ("": any mark at all).
 * `dir_fn` sees each directory.
 *
 * Errors: of the store: TRANSIENT, DENIED, CANCELED, NO_SPACE; of the volume: NOT_FOUND, DENIED,
 *         NO_SPACE for the spool; NO_MEMORY. `ret_report` says what was put before.
 */
int warm_publisher_run(struct warm_publisher *p, enum warm_publish_mode mode, const char *complete,
		       warm_scan_dir_fn dir_fn, void *dir_arg, const struct warm_call *call,
		       struct warm_publish_report *ret_report, struct warm_error *err) WARM_CHECKED;

#endif
