/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/sync/gc.h"

#include <stdio.h>
#include <string.h>

#include "lib/store/head.h"

const char *warm_gc_reason_name(enum warm_gc_reason reason)
{
	static const char *const names[] = { "", "age", "count", "size", "name" };

	return names[reason];
}

const char *warm_gc_shield_name(enum warm_gc_shield shield)
{
	static const char *const names[] = { "", "newest complete", "young" };

	return names[shield];
}

void warm_gc_plan_release(struct warm_gc_plan *plan)
{
	free(plan->versions);
	*plan = (struct warm_gc_plan){ 0 };
}

bool warm_gc_takes(const struct warm_gc_version *version)
{
	return version->reason != WARM_GC_NONE && version->shield == WARM_GC_OPEN;
}

static bool of_one_kind(const struct warm_gc_version *a, const struct warm_gc_version *b)
{
	return strcmp(a->listed.key.model, b->listed.key.model) == 0 &&
	       strcmp(a->listed.key.platform, b->listed.key.platform) == 0;
}

/* ---- rules ---- */

static void take_by_name(const struct warm_gc_options *o, struct warm_gc_plan *plan)
{
	for (size_t i = 0; i < plan->n; i++) {
		struct warm_gc_version *v = &plan->versions[i];
		if (strcmp(v->listed.key.version, o->version) == 0)
			v->reason = WARM_GC_NAME;
	}
}

static void take_by_age_and_count(const struct warm_gc_options *o, struct warm_gc_plan *plan,
				  int64_t now_ms)
{
	for (size_t i = 0; i < plan->n; i++) {
		struct warm_gc_version *v = &plan->versions[i];
		size_t newer = 0;
		for (size_t k = 0; k < i; k++)
			newer += of_one_kind(&plan->versions[k], v);
		if (o->older_than_ms > 0 &&
		    now_ms - (int64_t)v->listed.newest.ms > o->older_than_ms)
			v->reason = WARM_GC_AGE;
		else if (o->keep > 0 && newer >= o->keep)
			v->reason = WARM_GC_COUNT;
	}
}

/* The oldest first, of those that stay so far and have no shield. */
static void take_by_size(const struct warm_gc_options *o, struct warm_gc_plan *plan)
{
	uint64_t total = 0;

	for (size_t i = 0; i < plan->n; i++)
		if (!warm_gc_takes(&plan->versions[i]))
			total += plan->versions[i].listed.bytes;
	for (size_t i = plan->n; o->max_total_bytes > 0 && i-- > 0 && total > o->max_total_bytes;) {
		struct warm_gc_version *v = &plan->versions[i];
		if (warm_gc_takes(v))
			continue;
		v->reason = v->reason != WARM_GC_NONE ? v->reason : WARM_GC_SIZE;
		if (v->shield == WARM_GC_OPEN)
			total -= v->listed.bytes;
	}
}

/* ---- shields ---- */

enum mark { MARKED, UNMARKED, UNKNOWN };

/* A layer that we can't read, of a newer format perhaps, may carry the mark. */
static int look_for_mark(const struct warm_gc_options *o, const struct warm_key *key,
			 enum mark *ret_mark, const struct warm_call *call, struct warm_error *err)
{
	scope_catalog struct warm_catalog c = { 0 };
	int rc = warm_catalog_list(&c, o->store, key, false, call, err);

	if (rc == 0)
		rc = warm_catalog_read(&c, o->store, NULL, call, err);
	*ret_mark = rc == 0 && warm_catalog_complete(&c) != NULL ? MARKED
		    : c.refused > 0				 ? UNKNOWN
								 : UNMARKED;
	return rc;
}

/* The first complete one of each model and platform, newest first, and those before it that may
 * be complete. */
static int shield_complete(const struct warm_gc_options *o, struct warm_gc_plan *plan,
			   const struct warm_call *call, struct warm_error *err)
{
	scope_free enum mark *marks = calloc(plan->n + 1, sizeof(*marks));

	if (marks == NULL)
		return warm_error_nomem(err, plan->n * sizeof(*marks));
	for (size_t i = 0; i < plan->n; i++) {
		struct warm_gc_version *v = &plan->versions[i];
		bool found = false;
		for (size_t k = 0; k < i && !found; k++)
			found = of_one_kind(&plan->versions[k], v) && marks[k] == MARKED;
		marks[i] = UNMARKED;
		int rc = found ? 0 : look_for_mark(o, &v->listed.key, &marks[i], call, err);
		if (rc != 0)
			return rc;
		if (marks[i] != UNMARKED)
			v->shield = WARM_GC_NEWEST_COMPLETE;
	}
	return 0;
}

/* By the store's clock where it has one, else by the newest id. */
static void shield_young(const struct warm_gc_options *o, struct warm_gc_plan *plan, int64_t now_ms)
{
	for (size_t i = 0; i < plan->n; i++) {
		struct warm_gc_version *v = &plan->versions[i];
		int64_t put_ms = v->listed.modified_ms >= 0 ? v->listed.modified_ms
							    : (int64_t)v->listed.newest.ms;
		if (v->shield == WARM_GC_OPEN && now_ms - put_ms < o->young_ms)
			v->shield = WARM_GC_YOUNG;
	}
}

int warm_gc_make_plan(const struct warm_gc_options *o, struct warm_gc_plan *ret_plan,
		      const struct warm_call *call, struct warm_error *err)
{
	char prefix[WARM_NAME_BYTES] = "";
	scope_free struct warm_listed_key *keys = NULL;
	scope_gc_plan struct warm_gc_plan plan = { 0 };
	struct warm_key model;
	int64_t now_ms = -1;
	int rc = 0;

	if (o->model != NULL && o->model[0] != '\0') {
		rc = warm_key_init(&model, o->model, "", "any", err);
		if (rc != 0)
			return rc;
		warm_key_model_prefix(&model, prefix);
	}
	rc = warm_catalog_keys(o->store, prefix, &keys, &plan.n, &now_ms, call, err);
	if (rc != 0)
		return rc;
	if (now_ms < 0)
		now_ms = warm_clock_wall_ms();
	plan.versions = calloc(plan.n + 1, sizeof(*plan.versions));
	if (plan.versions == NULL)
		return warm_error_nomem(err, plan.n * sizeof(*plan.versions));
	size_t n = 0;
	for (size_t i = 0; i < plan.n; i++)
		if (o->platform == NULL || strcmp(keys[i].key.platform, o->platform) == 0)
			plan.versions[n++].listed = keys[i];
	plan.n = n;
	if (o->version != NULL) {
		take_by_name(o, &plan);
		bool any = false;
		for (size_t i = 0; i < plan.n; i++)
			any = any || warm_gc_takes(&plan.versions[i]);
		if (!any)
			return warm_error_set(err, WARM_NOT_FOUND,
					      "%.100s holds no version '%.100s' of %.100s",
					      warm_store_url(o->store), o->version, o->model);
	} else {
		shield_young(o, &plan, now_ms);
		rc = shield_complete(o, &plan, call, err);
		if (rc != 0)
			return rc;
		take_by_age_and_count(o, &plan, now_ms);
		take_by_size(o, &plan);
	}
	*ret_plan = plan;
	plan = (struct warm_gc_plan){ 0 };
	return 0;
}

/* ---- deletion ---- */

static bool has_mark(const struct warm_layer *l)
{
	return l->index == NULL || l->index->complete != NULL;
}

static int delete_version(const struct warm_gc_options *o, struct warm_gc_version *v,
			  const struct warm_call *call, struct warm_error *err)
{
	scope_catalog struct warm_catalog c = { 0 };
	struct warm_error read_err = { 0 };
	int rc = warm_catalog_list(&c, o->store, &v->listed.key, false, call, err);

	if (rc == 0 && v->reason != WARM_GC_NAME &&
	    (warm_id_compare(c.newest, v->listed.newest) > 0 || c.n_layers > v->listed.n_layers)) {
		v->shield = WARM_GC_YOUNG;
		return 0;
	}

	/* What can't be read is deleted, too; it only isn't known which layers have the mark. */
	if (rc == 0 && warm_catalog_read(&c, o->store, NULL, call, &read_err) != 0)
		warm_notice(o->notices, "unread", "%s", read_err.msg);
	for (int marked = 1; rc == 0 && marked >= 0; marked--)
		for (size_t i = 0; rc == 0 && i < c.n_layers; i++)
			if (has_mark(&c.layers[i]) == (marked == 1))
				rc = warm_store_delete(o->store, c.layers[i].object, call, err);
	return rc;
}

int warm_gc_run(const struct warm_gc_options *o, struct warm_gc_plan *plan,
		const struct warm_call *call, struct warm_error *err)
{
	int first = 0;

	for (size_t i = 0; i < plan->n; i++) {
		struct warm_gc_version *v = &plan->versions[i];
		struct warm_error one = { 0 };
		if (!warm_gc_takes(v))
			continue;
		int rc = delete_version(o, v, call, &one);
		v->deleted = rc == 0 && warm_gc_takes(v);
		if (rc != 0)
			warm_notice(o->notices, "not-deleted", "%s", one.msg);
		if (rc == 0 || first != 0)
			continue;
		first = rc;
		if (err != NULL)
			*err = one;
		if (rc == WARM_CANCELED)
			break;
	}
	return first;
}

static bool is_ours(const char *name)
{
	struct warm_key key;
	struct warm_layer_name layer;
	size_t n = strlen(name);

	return warm_layer_name_parse(name, &key, &layer, NULL) == 0 ||
	       strcmp(name, WARM_HEAD_NAME) == 0 ||
	       (n > sizeof(WARM_HEAD_NAME) &&
		strcmp(name + n - sizeof(WARM_HEAD_NAME), "/" WARM_HEAD_NAME) == 0);
}

int warm_gc_sweep(struct warm_store *store, const char *prefix, int64_t age_ms, bool dry_run,
		  size_t *ret_n, const struct warm_call *call, struct warm_error *err)
{
	return warm_store_sweep(store, prefix, age_ms, is_ours, dry_run, ret_n, call, err);
}
