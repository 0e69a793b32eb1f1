/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Garbage: versions that a store need not keep, by age, by count and by total size, or by name.
 *
 *	warm_gc_make_plan()   decide; nothing is touched
 *	warm_gc_run()         delete what the plan says
 *
 * The newest complete version of a model and platform is only deleted by name, and so is one in
 * which a layer was put a moment ago. Of a version that is deleted the layers with its complete
 * mark go first: one that is cut off anywhere leaves whole groups, and a version that counts as
 * incomplete. To be run by an operator or a CronJob, never by serving pods.
 *
 * Threads: one plan, one thread; reading makes threads of its own.
 */
#ifndef WARM_SYNC_GC_H
#define WARM_SYNC_GC_H

#include "lib/sync/catalog.h"

struct warm_gc_options {
	struct warm_store *store;
	const char *model;	  /* NULL or "": all of them */
	const char *version;	  /* by name, with `model`; NULL: by the rules below */
	const char *platform;	  /* this one alone; NULL: all */
	int64_t older_than_ms;	  /* since the newest layer; 0: no rule */
	size_t keep;		  /* versions of each model and platform; 0: no rule */
	uint64_t max_total_bytes; /* of all versions looked at; 0: no rule */
	int64_t young_ms;	  /* a layer put so lately protects its version */
	const struct warm_notices *notices;
};

enum warm_gc_reason { WARM_GC_NONE, WARM_GC_AGE, WARM_GC_COUNT, WARM_GC_SIZE, WARM_GC_NAME };
enum warm_gc_shield { WARM_GC_OPEN, WARM_GC_NEWEST_COMPLETE, WARM_GC_YOUNG };

struct warm_gc_version {
	struct warm_listed_key listed;
	enum warm_gc_reason reason; /* NONE: it stays anyhow */
	enum warm_gc_shield shield; /* what keeps it although a rule would take it */
	bool deleted;
};

struct warm_gc_plan {
	struct warm_gc_version *versions; /* newest first */
	size_t n;
};

/* "age", "count", ...; "newest complete", "young". */
const char *warm_gc_reason_name(enum warm_gc_reason reason);
const char *warm_gc_shield_name(enum warm_gc_shield shield);

/* Errors: of the store; NOT_FOUND for a version by name that isn't there; NO_MEMORY.
 * Owns: warm_gc_plan_release(). */
int warm_gc_make_plan(const struct warm_gc_options *options, struct warm_gc_plan *ret_plan,
		      const struct warm_call *call, struct warm_error *err) WARM_CHECKED;
void warm_gc_plan_release(struct warm_gc_plan *plan);
#define scope_gc_plan WARM_SCOPE(warm_gc_plan_release)

/* Whether the plan deletes it. */
bool warm_gc_takes(const struct warm_gc_version *version);

/* Delete what the plan takes, but for a version into which a layer was put since: that becomes
 * YOUNG, unless it goes by name. A version that fails leaves the others their turn; the first error
 * is returned. */
int warm_gc_run(const struct warm_gc_options *options, struct warm_gc_plan *plan,
		const struct warm_call *call, struct warm_error *err) WARM_CHECKED;

/* Remove uploads of layers and heads below `prefix` that were begun more than `age_ms` ago and never
 * ended (warm_store_sweep()). */
int warm_gc_sweep(struct warm_store *store, const char *prefix, int64_t age_ms, bool dry_run,
		  size_t *ret_n, const struct warm_call *call, struct warm_error *err) WARM_CHECKED;

#endif
