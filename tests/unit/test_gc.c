/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <fcntl.h>

#include "lib/store/backend.h"
#include "lib/sync/gc.h"
#include "lib/sync/restore.h"
#include "tests/support/wrapped_store.h"

enum { HOUR = 3600 * 1000 };
#define DAY ((int64_t)24 * HOUR)

struct house {
	struct scratch s;
	struct warm_store *files; /* the directory */
	struct wrapped_store wrapped;
	struct warm_store *store;
	struct warm_gc_options o;
	struct warm_gc_plan plan;
	struct warm_notices notices;
	struct heard heard;
	struct warm_error err;
	int64_t now;
	/* of the wrapper */
	int deletes, fail_delete; /* the nth fails, from 1 */
	int fail_status;
	const char *fail_name; /* deletes of names with this in them fail; NULL: none */
	char deleted[20][WARM_NAME_BYTES];
};

static int on_call(void *arg, enum wrapped_call call, const char *name, struct warm_error *err)
{
	struct house *h = arg;

	if (call != WRAPPED_DELETE)
		return 0;
	if (h->deletes < 20)
		snprintf(h->deleted[h->deletes], sizeof(h->deleted[0]), "%s", name);
	h->deletes++;
	if (h->deletes == h->fail_delete || (h->fail_name != NULL && strstr(name, h->fail_name)))
		return warm_error_set(err, (enum warm_status)h->fail_status, "not %s", name);
	return 0;
}

static struct house *open_house(void)
{
	struct house *h = calloc(1, sizeof(*h));

	assert_non_null(h);
	h->s = scratch_open();
	put_dir(h->s.fd, "store");
	assert_int_equal(warm_store_open(scratch_path(&h->s, "store"), &h->files, NULL), 0);
	h->wrapped = (struct wrapped_store){ .inner = h->files, .before = on_call, .arg = h };
	h->store = wrapped_store_open(&h->wrapped);
	h->notices = (struct warm_notices){ hear, &h->heard };
	h->now = warm_clock_wall_ms();
	h->fail_status = WARM_TRANSIENT;
	h->o = (struct warm_gc_options){ .store = h->store,
					 .young_ms = HOUR,
					 .notices = &h->notices };
	return h;
}

static void close_house(struct house *h)
{
	warm_gc_plan_release(&h->plan);
	warm_store_free(h->store);
	warm_store_free(h->files);
	scratch_close(&h->s);
	free(h);
}

/* A layer of `bytes` that don't compress, put so long ago, by its id and by the store's clock. */
static void put_layer(struct house *h, const struct warm_key *key, int64_t age_ms, bool complete,
		      size_t bytes)
{
	static uint64_t seed;
	uint8_t *data = noise(++seed, bytes + 1);
	char path[40], object[WARM_NAME_BYTES], full[2 * WARM_NAME_BYTES];
	snprintf(path, sizeof(path), "f%d", (int)seed);
	struct made_group g = {
		.name = path,
		.files = { { .path = path, .text = (const char *)data, .bytes = bytes + 1 } }
	};
	struct made_layer l = { .id = { (uint64_t)(h->now - age_ms), seed },
				.complete = complete ? "template" : NULL,
				.groups = &g,
				.n_groups = 1 };
	put_made_layer(h->files, key, &l, object);
	snprintf(full, sizeof(full), "store/%s", object);
	set_times(h->s.fd, full, (h->now - age_ms) * 1000000, (h->now - age_ms) * 1000000);
	free(data);
}

static void put(struct house *h, const char *model, const char *version, int64_t age_ms,
		bool complete)
{
	struct warm_key key = key_of(model, version);

	put_layer(h, &key, age_ms, complete, 1000);
}

static void plan(struct house *h)
{
	warm_gc_plan_release(&h->plan);
	h->err = (struct warm_error){ 0 };
	if (warm_gc_make_plan(&h->o, &h->plan, NULL, &h->err) != 0)
		fail_msg("%s", h->err.msg);
}

static int run(struct house *h)
{
	h->err = (struct warm_error){ 0 };
	return warm_gc_run(&h->o, &h->plan, NULL, &h->err);
}

/* "v1" or "model/v1" or "model/v1/platform": "reason", "reason, but shield", or "". */
static void assert_fate(struct house *h, const char *what, const char *want)
{
	for (size_t i = 0; i < h->plan.n; i++) {
		const struct warm_gc_version *v = &h->plan.versions[i];
		char full[3 * WARM_KEY_PART_BYTES + 3], got[80];
		warm_key_text(&v->listed.key, full);
		if (strcmp(full, what) != 0 && strcmp(v->listed.key.version, what) != 0)
			continue;
		snprintf(got, sizeof(got), "%s%s%s", warm_gc_reason_name(v->reason),
			 v->reason != WARM_GC_NONE && v->shield != WARM_GC_OPEN ? ", but " : "",
			 v->reason != WARM_GC_NONE ? warm_gc_shield_name(v->shield) : "");
		if (strcmp(got, want) != 0)
			fail_msg("%s: '%s', not '%s'", full, got, want);
		assert_true(warm_gc_takes(v) == (want[0] != '\0' && strchr(want, ',') == NULL));
		return;
	}
	fail_msg("%s is not in the plan", what);
}

static size_t layers_of(struct house *h, const char *model, const char *version)
{
	scope_catalog struct warm_catalog c = { 0 };
	struct warm_key key = key_of(model, version);

	assert_int_equal(warm_catalog_list(&c, h->files, &key, false, NULL, NULL), 0);
	return c.n_layers;
}

static bool is_complete(struct house *h, const char *model, const char *version)
{
	scope_catalog struct warm_catalog c = { 0 };
	struct warm_key key = key_of(model, version);

	assert_int_equal(warm_catalog_list(&c, h->files, &key, false, NULL, NULL), 0);
	assert_int_equal(warm_catalog_read(&c, h->files, NULL, NULL, NULL), 0);
	return warm_catalog_complete(&c) != NULL;
}

TEST(a_plan_of_an_empty_store_is_empty)
{
	struct house *h = open_house();

	h->o.keep = 1;
	h->o.older_than_ms = DAY;
	h->o.max_total_bytes = 1;
	plan(h);
	assert_int_equal(h->plan.n, 0);
	assert_int_equal(run(h), 0);
	/* Objects that are none of ours are no versions. */
	put_text(h->s.fd, "store/README", "x");
	put_text(h->s.fd, "store/m/v/p/x.tar.zst", "x");
	plan(h);
	assert_int_equal(h->plan.n, 0);
	close_house(h);
}

TEST(without_a_rule_everything_stays)
{
	struct house *h = open_house();

	put(h, "m", "v1", 900 * DAY, false);
	put(h, "m", "v2", 800 * DAY, true);
	plan(h);
	assert_int_equal(h->plan.n, 2);
	assert_fate(h, "v1", "");
	assert_fate(h, "v2", "");
	assert_int_equal(run(h), 0);
	assert_int_equal(h->deletes, 0);
	close_house(h);
}

TEST(versions_are_planned_newest_first)
{
	struct house *h = open_house();

	put(h, "m", "b", 2 * DAY, false);
	put(h, "n", "c", 1 * DAY, false);
	put(h, "m", "a", 3 * DAY, false);
	plan(h);
	assert_int_equal(h->plan.n, 3);
	assert_string_equal(h->plan.versions[0].listed.key.version, "c");
	assert_string_equal(h->plan.versions[1].listed.key.version, "b");
	assert_string_equal(h->plan.versions[2].listed.key.version, "a");
	close_house(h);
}

TEST(what_is_older_goes_by_its_newest_layer)
{
	struct house *h = open_house();

	put(h, "m", "fresh", 2 * HOUR, true);
	put(h, "m", "used", 90 * DAY, false);
	put(h, "m", "used", 29 * DAY, false); /* its newest */
	put(h, "m", "old", 31 * DAY, false);
	h->o.older_than_ms = 30 * DAY;
	plan(h);
	assert_fate(h, "fresh", "");
	assert_fate(h, "used", "");
	assert_fate(h, "old", "age");
	assert_int_equal(run(h), 0);
	assert_int_equal(layers_of(h, "m", "old"), 0);
	assert_int_equal(layers_of(h, "m", "used"), 2);
	assert_int_equal(layers_of(h, "m", "fresh"), 1);
	close_house(h);
}

TEST(the_newest_of_each_model_and_platform_are_kept)
{
	struct house *h = open_house();
	struct warm_key other;
	char version[16];

	for (int i = 1; i <= 4; i++) {
		snprintf(version, sizeof(version), "v%d", i);
		put(h, "m", version, (10 - i) * DAY, false);
		put(h, "n", version, (20 - i) * DAY, false);
		assert_int_equal(warm_key_init(&other, "m", version, "arm", NULL), 0);
		put_layer(h, &other, (30 - i) * DAY, false, 10);
	}
	h->o.keep = 2;
	plan(h);
	assert_int_equal(h->plan.n, 12);
	static const char *const kinds[][2] = { { "m", "test" }, { "n", "test" }, { "m", "arm" } };
	for (size_t k = 0; k < COUNT(kinds); k++)
		for (int i = 1; i <= 4; i++) {
			char what[40];
			snprintf(what, sizeof(what), "%s/v%d/%s", kinds[k][0], i, kinds[k][1]);
			assert_fate(h, what, i <= 2 ? "count" : "");
		}
	assert_int_equal(run(h), 0);
	assert_int_equal(h->deletes, 6);
	assert_int_equal(layers_of(h, "m", "v2"), 0);
	assert_int_equal(layers_of(h, "m", "v3"), 1);
	close_house(h);
}

TEST(a_model_may_be_named_alone)
{
	struct house *h = open_house();

	put(h, "m", "v1", 9 * DAY, false);
	put(h, "m", "v2", 8 * DAY, false);
	put(h, "m2", "v1", 9 * DAY, false);
	put(h, "m2", "v2", 8 * DAY, false);
	h->o.keep = 1;
	h->o.model = "m";
	plan(h);
	assert_int_equal(h->plan.n, 2);
	assert_fate(h, "m/v1/test", "count");
	assert_int_equal(run(h), 0);
	assert_int_equal(layers_of(h, "m2", "v1"), 1);
	h->o.model = "";
	plan(h);
	assert_int_equal(h->plan.n, 3);
	h->o.model = "a/b";
	assert_int_equal(warm_gc_make_plan(&h->o, &h->plan, NULL, &h->err), WARM_INVALID);
	close_house(h);
}

TEST(the_oldest_go_until_the_total_fits)
{
	struct house *h = open_house();
	struct warm_key key;
	char version[16];

	for (int i = 1; i <= 5; i++) {
		snprintf(version, sizeof(version), "v%d", i);
		key = key_of("m", version);
		put_layer(h, &key, (10 - i) * DAY, false, 100000);
	}
	h->o.max_total_bytes = 350000;
	plan(h);
	assert_fate(h, "v1", "size");
	assert_fate(h, "v2", "size");
	assert_fate(h, "v3", "");
	assert_fate(h, "v5", "");
	/* What another rule takes counts no more. */
	h->o.older_than_ms = 7 * DAY + HOUR; /* v1, v2 */
	plan(h);
	assert_fate(h, "v1", "age");
	assert_fate(h, "v2", "age");
	assert_fate(h, "v3", "");
	h->o.max_total_bytes = 250000;
	plan(h);
	assert_fate(h, "v3", "size");
	assert_fate(h, "v4", "");
	h->o.older_than_ms = 0;
	h->o.max_total_bytes = 1;
	plan(h);
	for (int i = 1; i <= 5; i++) {
		snprintf(version, sizeof(version), "v%d", i);
		assert_fate(h, version, "size");
	}
	h->o.max_total_bytes = 1 << 30;
	plan(h);
	assert_fate(h, "v1", "");
	close_house(h);
}

/* ---- shields ---- */

TEST(the_newest_complete_version_of_each_model_and_platform_stays)
{
	struct house *h = open_house();
	struct warm_key arm;

	put(h, "m", "v1", 90 * DAY, true);
	put(h, "m", "v2", 80 * DAY, true);
	put(h, "m", "v3", 70 * DAY, false);
	put(h, "n", "v1", 95 * DAY, true);
	assert_int_equal(warm_key_init(&arm, "m", "v1", "arm", NULL), 0);
	put_layer(h, &arm, 99 * DAY, true, 10);
	h->o.older_than_ms = 30 * DAY;
	h->o.keep = 1;
	h->o.max_total_bytes = 1;
	plan(h);
	assert_fate(h, "m/v1/test", "age");
	assert_fate(h, "m/v2/test", "age, but newest complete");
	assert_fate(h, "m/v3/test", "age");
	assert_fate(h, "n/v1/test", "age, but newest complete");
	assert_fate(h, "m/v1/arm", "age, but newest complete");
	assert_int_equal(run(h), 0);
	assert_int_equal(layers_of(h, "m", "v1"), 0);
	assert_int_equal(layers_of(h, "m", "v2"), 1);
	assert_int_equal(layers_of(h, "m", "v3"), 0);
	assert_int_equal(layers_of(h, "n", "v1"), 1);
	close_house(h);
}

TEST(a_version_in_which_a_layer_was_put_a_moment_ago_stays)
{
	struct house *h = open_house();
	struct warm_key key = key_of("m", "young");

	put(h, "m", "newest", 1 * DAY, true);
	/* By its ids it is old: the clock of the store counts. */
	put_layer(h, &key, 90 * DAY, false, 10);
	put_layer(h, &key, 80 * DAY, false, 10);
	assert_int_equal(shell("cd %s/store/m/young/test && touch $(ls | head -1)", h->s.path), 0);
	put(h, "m", "old", 90 * DAY, false);
	h->o.older_than_ms = 30 * DAY;
	h->o.keep = 1;
	plan(h);
	assert_fate(h, "young", "age, but young");
	assert_fate(h, "old", "age");
	h->o.young_ms = 0;
	plan(h);
	assert_fate(h, "young", "age");
	close_house(h);
}

TEST(a_shielded_version_counts_in_the_total)
{
	struct house *h = open_house();
	struct warm_key key = key_of("m", "complete");

	put_layer(h, &key, 90 * DAY, true, 100000);
	key = key_of("m", "v2");
	put_layer(h, &key, 80 * DAY, false, 100000);
	key = key_of("m", "v3");
	put_layer(h, &key, 70 * DAY, false, 100000);
	h->o.max_total_bytes = 250000;
	plan(h);
	assert_fate(h, "complete", "size, but newest complete");
	assert_fate(h, "v2", "size");
	assert_fate(h, "v3", "");
	close_house(h);
}

TEST(reasons_and_shields_have_names)
{
	assert_string_equal(warm_gc_reason_name(WARM_GC_NONE), "");
	assert_string_equal(warm_gc_reason_name(WARM_GC_AGE), "age");
	assert_string_equal(warm_gc_reason_name(WARM_GC_COUNT), "count");
	assert_string_equal(warm_gc_reason_name(WARM_GC_SIZE), "size");
	assert_string_equal(warm_gc_reason_name(WARM_GC_NAME), "name");
	assert_string_equal(warm_gc_shield_name(WARM_GC_OPEN), "");
	assert_string_equal(warm_gc_shield_name(WARM_GC_NEWEST_COMPLETE), "newest complete");
	assert_string_equal(warm_gc_shield_name(WARM_GC_YOUNG), "young");
}

/* ---- by name ---- */

TEST(a_version_by_name_goes_whatever_it_is)
{
	struct house *h = open_house();
	struct warm_key arm;

	put(h, "m", "v1", 1000, true); /* young, complete, the newest */
	put(h, "m", "v2", 9 * DAY, false);
	put(h, "m2", "v1", 9 * DAY, false);
	assert_int_equal(warm_key_init(&arm, "m", "v1", "arm", NULL), 0);
	put_layer(h, &arm, 1000, true, 10);
	h->o.model = "m";
	h->o.version = "v1";
	h->o.platform = "arm";
	plan(h);
	assert_fate(h, "m/v1/arm", "name");
	assert_int_equal(h->plan.n, 1); /* the others' aren't in it */
	h->o.platform = NULL;
	plan(h);
	assert_fate(h, "m/v1/arm", "name");
	assert_fate(h, "m/v1/test", "name");
	assert_fate(h, "m/v2/test", "");
	assert_int_equal(run(h), 0);
	assert_int_equal(layers_of(h, "m", "v1"), 0);
	assert_int_equal(layers_of(h, "m", "v2"), 1);
	assert_int_equal(layers_of(h, "m2", "v1"), 1);
	assert_false(is_there(h->s.fd, "store/m/v1/arm/x"));
	close_house(h);
}

TEST(a_version_by_name_that_is_not_there_is_not_found)
{
	struct house *h = open_house();

	put(h, "m", "v1", DAY, false);
	h->o.model = "m";
	h->o.version = "v9";
	assert_int_equal(warm_gc_make_plan(&h->o, &h->plan, NULL, &h->err), WARM_NOT_FOUND);
	assert_non_null(strstr(h->err.msg, "v9"));
	assert_int_equal(h->plan.n, 0);
	h->o.version = "v1";
	h->o.platform = "arm";
	assert_int_equal(warm_gc_make_plan(&h->o, &h->plan, NULL, &h->err), WARM_NOT_FOUND);
	/* The empty version has a name, too. */
	struct warm_key any = key_of("m", "");
	put_layer(h, &any, DAY, false, 10);
	h->o.version = "";
	h->o.platform = NULL;
	plan(h);
	assert_fate(h, "m//test", "name");
	assert_fate(h, "m/v1/test", "");
	close_house(h);
}

/* ---- deletion ---- */

TEST(marked_layers_go_first)
{
	struct house *h = open_house();

	put(h, "m", "v1", 9 * DAY, false);
	put(h, "m", "v1", 8 * DAY, true);
	put(h, "m", "v1", 7 * DAY, false);
	put(h, "m", "v1", 6 * DAY, true);
	h->o.model = "m";
	h->o.version = "v1";
	plan(h);
	h->fail_delete = 3;
	assert_int_equal(run(h), WARM_TRANSIENT);
	assert_false(h->plan.versions[0].deleted);
	assert_false(is_complete(h, "m", "v1"));
	assert_int_equal(layers_of(h, "m", "v1"), 2);
	/* Those that are left are whole. */
	struct warm_restore_result r;
	struct warm_restore_options o = { .store = h->files,
					  .key = key_of("m", "v1"),
					  .volume = scratch_path(&h->s, "volume"),
					  .fallback = WARM_FALLBACK_NONE };
	put_dir(h->s.fd, "volume");
	assert_int_equal(warm_restore_run(&o, NULL, &r, NULL), 0);
	assert_int_equal(r.groups, 2);
	assert_false(r.complete);
	/* And the next run ends it. */
	h->fail_delete = 0;
	plan(h);
	assert_int_equal(run(h), 0);
	assert_true(h->plan.versions[0].deleted);
	assert_int_equal(layers_of(h, "m", "v1"), 0);
	close_house(h);
}

TEST(a_version_with_one_mark_counts_as_incomplete_from_the_first_delete_on)
{
	for (int nth = 2; nth <= 4; nth++) {
		struct house *h = open_house();
		put(h, "m", "v1", 9 * DAY, false);
		put(h, "m", "v1", 8 * DAY, true);
		put(h, "m", "v1", 7 * DAY, false);
		put(h, "m", "v1", 6 * DAY, false);
		h->o.model = "m";
		h->o.version = "v1";
		plan(h);
		h->fail_delete = nth;
		assert_int_equal(run(h), WARM_TRANSIENT);
		assert_false(is_complete(h, "m", "v1"));
		assert_int_equal(layers_of(h, "m", "v1"), 5 - nth);
		close_house(h);
	}
}

TEST(a_layer_that_can_not_be_read_is_deleted_too)
{
	struct house *h = open_house();

	put(h, "m", "v1", 9 * DAY, false);
	put(h, "m", "v1", 8 * DAY, true);
	assert_int_equal(shell("cd %s/store/m/v1/test && for f in *; do truncate -s 100 $f; done",
			       h->s.path),
			 0);
	h->o.model = "m";
	h->o.version = "v1";
	plan(h);
	assert_int_equal(run(h), 0);
	assert_int_equal(layers_of(h, "m", "v1"), 0);
	close_house(h);
}

TEST(an_error_of_one_version_leaves_the_others_their_turn)
{
	struct house *h = open_house();

	put(h, "m", "v1", 9 * DAY, false);
	put(h, "m", "v2", 8 * DAY, false);
	put(h, "m", "v3", 7 * DAY, false);
	put(h, "m", "v4", 6 * DAY, false);
	h->o.keep = 1;
	plan(h);
	h->fail_name = "m/v2/";
	h->fail_status = WARM_DENIED;
	assert_int_equal(run(h), WARM_DENIED);
	assert_non_null(strstr(h->err.msg, "m/v2/"));
	assert_int_equal(layers_of(h, "m", "v1"), 0);
	assert_int_equal(layers_of(h, "m", "v2"), 1);
	assert_int_equal(layers_of(h, "m", "v3"), 0);
	assert_int_equal(layers_of(h, "m", "v4"), 1);
	for (size_t i = 0; i < h->plan.n; i++) {
		const char *version = h->plan.versions[i].listed.key.version;
		assert_true(h->plan.versions[i].deleted ==
			    (strcmp(version, "v1") == 0 || strcmp(version, "v3") == 0));
	}
	close_house(h);
}

TEST(a_canceled_run_ends_at_once)
{
	struct house *h = open_house();
	atomic_bool cancel = true;
	struct warm_call call = { .cancel = &cancel };

	put(h, "m", "v1", 9 * DAY, false);
	put(h, "m", "v2", 8 * DAY, false);
	put(h, "m", "v3", 7 * DAY, false);
	h->o.keep = 1;
	assert_int_equal(warm_gc_make_plan(&h->o, &h->plan, &call, &h->err), WARM_CANCELED);
	assert_int_equal(h->plan.n, 0);
	plan(h);
	h->fail_delete = 1;
	h->fail_status = WARM_CANCELED;
	assert_int_equal(run(h), WARM_CANCELED);
	assert_int_equal(h->deletes, 1);
	assert_int_equal(layers_of(h, "m", "v1") + layers_of(h, "m", "v2"), 2);
	assert_int_equal(warm_gc_run(&h->o, &h->plan, &call, NULL), WARM_CANCELED);
	assert_int_equal(h->deletes, 1);
	close_house(h);
}

static int refuse_list(void *arg, enum wrapped_call call, const char *name, struct warm_error *err)
{
	(void)arg;
	(void)name;
	return call == WRAPPED_LIST ? warm_error_set(err, WARM_DENIED, "no LIST") : 0;
}

static int refuse_get(void *arg, enum wrapped_call call, const char *name, struct warm_error *err)
{
	(void)arg;
	(void)name;
	return call == WRAPPED_GET ? warm_error_set(err, WARM_TRANSIENT, "no GET") : 0;
}

/* Without knowing which version is the newest complete one nothing may be planned. */
TEST(a_store_that_fails_makes_no_plan)
{
	struct house *h = open_house();

	put(h, "m", "v1", 9 * DAY, true);
	h->o.keep = 1;
	h->wrapped.before = refuse_list;
	assert_int_equal(warm_gc_make_plan(&h->o, &h->plan, NULL, &h->err), WARM_DENIED);
	h->wrapped.before = refuse_get;
	assert_int_equal(warm_gc_make_plan(&h->o, &h->plan, NULL, &h->err), WARM_TRANSIENT);
	assert_int_equal(h->plan.n, 0);
	close_house(h);
}

/* Since the plan somebody may have put more. */
TEST(a_version_into_which_a_layer_was_put_after_the_plan_is_left)
{
	struct house *h = open_house();

	put(h, "m", "v1", 9 * DAY, false);
	put(h, "m", "v2", 8 * DAY, false);
	put(h, "m", "v3", 7 * DAY, false);
	h->o.keep = 1;
	plan(h);
	assert_fate(h, "v1", "count");
	put(h, "m", "v1", 1000, true);
	assert_int_equal(run(h), 0);
	assert_fate(h, "v1", "count, but young");
	assert_fate(h, "v2", "count");
	assert_int_equal(layers_of(h, "m", "v1"), 2);
	assert_int_equal(layers_of(h, "m", "v2"), 0);
	assert_int_equal(layers_of(h, "m", "v3"), 1);
	for (size_t i = 0; i < h->plan.n; i++) {
		const struct warm_gc_version *v = &h->plan.versions[i];
		assert_true(v->deleted == (strcmp(v->listed.key.version, "v2") == 0));
	}
	close_house(h);
}

TEST(by_name_a_version_goes_with_what_came_after_the_plan)
{
	struct house *h = open_house();

	put(h, "m", "v1", 9 * DAY, false);
	put(h, "m", "v2", 8 * DAY, false);
	h->o.model = "m";
	h->o.version = "v1";
	plan(h);
	put(h, "m", "v1", 1000, true);
	assert_int_equal(run(h), 0);
	assert_fate(h, "v1", "name");
	assert_true(h->plan.versions[0].deleted || h->plan.versions[1].deleted);
	assert_int_equal(layers_of(h, "m", "v1"), 0);
	assert_int_equal(layers_of(h, "m", "v2"), 1);
	close_house(h);
}

TEST(a_platform_restricts_every_rule)
{
	struct house *h = open_house();
	struct warm_key arm;
	char version[16];

	for (int i = 1; i <= 4; i++) {
		snprintf(version, sizeof(version), "v%d", i);
		put(h, "m", version, (10 - i) * DAY, i == 4);
		assert_int_equal(warm_key_init(&arm, "m", version, "arm", NULL), 0);
		put_layer(h, &arm, (30 - i) * DAY, i == 4, 100000);
	}
	h->o.platform = "arm";
	h->o.keep = 3;
	plan(h);
	assert_int_equal(h->plan.n, 4);
	assert_fate(h, "m/v1/arm", "count");
	assert_fate(h, "m/v2/arm", "");
	h->o.keep = 0;
	h->o.older_than_ms = DAY;
	plan(h);
	assert_int_equal(h->plan.n, 4);
	assert_fate(h, "m/v1/arm", "age");
	assert_fate(h, "m/v3/arm", "age");
	assert_fate(h, "m/v4/arm", "age, but newest complete");
	/* The others' bytes don't count. */
	h->o.older_than_ms = 0;
	h->o.max_total_bytes = 350000;
	plan(h);
	assert_fate(h, "m/v1/arm", "size");
	assert_fate(h, "m/v2/arm", "");
	assert_int_equal(run(h), 0);
	assert_int_equal(h->deletes, 1);
	assert_non_null(strstr(h->deleted[0], "m/v1/arm/"));
	h->o.platform = "none";
	h->o.keep = 1;
	plan(h);
	assert_int_equal(h->plan.n, 0);
	close_house(h);
}

/* It may be of a newer format, and carry the mark. */
TEST(a_version_with_a_layer_that_can_not_be_read_is_shielded_as_if_complete)
{
	struct house *h = open_house();

	put(h, "m", "v1", 9 * DAY, false);
	put(h, "m", "v2", 8 * DAY, false);
	put(h, "m", "v2", 8 * DAY - HOUR, false);
	put(h, "m", "v3", 7 * DAY, false);
	assert_int_equal(
		shell("cd %s/store/m/v2/test && truncate -s 100 $(ls | head -1)", h->s.path), 0);
	h->o.keep = 1;
	plan(h);
	assert_fate(h, "v1", "count");
	assert_fate(h, "v2", "count, but newest complete");
	assert_fate(h, "v3", "");
	assert_int_equal(run(h), 0);
	assert_int_equal(layers_of(h, "m", "v1"), 0);
	assert_int_equal(layers_of(h, "m", "v2"), 2);
	close_house(h);
}

/* ---- sweep ---- */

struct swept {
	bool (*is_ours)(const char *name);
	char prefix[80];
	int64_t age_ms;
	bool dry_run;
	int rc;
};

static int note_sweep(void *state, const char *prefix, int64_t age_ms,
		      bool (*is_ours)(const char *name), bool dry_run, size_t *ret_n,
		      const struct warm_call *call, struct warm_error *err)
{
	struct swept *s = state;

	(void)call;
	s->is_ours = is_ours;
	s->age_ms = age_ms;
	s->dry_run = dry_run;
	snprintf(s->prefix, sizeof(s->prefix), "%s", prefix);
	*ret_n = 7;
	return s->rc == 0 ? 0 : warm_error_set(err, (enum warm_status)s->rc, "no");
}

static void free_nothing(void *state)
{
	(void)state;
}

/* Others may have uploads under way in the same bucket. */
TEST(a_sweep_takes_names_of_layers_and_heads_alone)
{
	static const struct warm_backend backend = { .free = free_nothing, .sweep = note_sweep };
	static const char *const others[] = {
		"",
		"m/v/test/",
		"m/v/test/x.tar.zst",
		"m/v/test/header",
		"ahead",
		"m/v/ahead",
		"head/other",
		"checkpoints/model.safetensors",
		"m/v/test/HEAD",
		"/",
		"m/head.tmp",
	};
	struct house *h = open_house();
	struct swept swept = { 0 };
	struct warm_store *store = NULL;
	struct warm_key key = key_of("m", "v1");
	char object[WARM_NAME_BYTES], longer[WARM_NAME_BYTES + 8];
	struct warm_error err = { 0 };
	size_t n = 0;

	assert_int_equal(warm_store_wrap(&backend, &swept, "noting", 1, &store, NULL), 0);
	assert_int_equal(warm_gc_sweep(store, "m/", 5 * DAY, true, &n, NULL, NULL), 0);
	assert_int_equal(n, 7);
	assert_string_equal(swept.prefix, "m/");
	assert_true(swept.age_ms == 5 * DAY && swept.dry_run);
	for (size_t i = 0; i < COUNT(others); i++)
		if (swept.is_ours(others[i]))
			fail_msg("'%s'", others[i]);
	assert_true(swept.is_ours("head"));
	assert_true(swept.is_ours("m/v1/test/head"));
	struct made_group g = { .name = "a", .files = { { .path = "a", .text = "1" } } };
	for (int kind = WARM_LAYER; kind <= WARM_BASE; kind++) {
		put_made_layer(h->files, &key,
			       &(struct made_layer){ .kind = (enum warm_layer_kind)kind,
						     .id = { 1700000000000, 1 },
						     .groups = &g,
						     .n_groups = 1 },
			       object);
		assert_true(swept.is_ours(object));
		snprintf(longer, sizeof(longer), "%sx", object);
		assert_false(swept.is_ours(longer));
		assert_false(swept.is_ours(object + 2)); /* a part of the key is missing */
	}
	swept.rc = WARM_DENIED;
	assert_int_equal(warm_gc_sweep(store, "", DAY, false, &n, NULL, &err), WARM_DENIED);
	assert_false(swept.dry_run);
	warm_store_free(store);
	/* A store that keeps no halves has none to sweep. */
	assert_int_equal(warm_gc_sweep(h->store, "", DAY, false, &n, NULL, NULL), 0);
	assert_int_equal(n, 0);
	close_house(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_plan_of_an_empty_store_is_empty),
		cmocka_unit_test(without_a_rule_everything_stays),
		cmocka_unit_test(versions_are_planned_newest_first),
		cmocka_unit_test(what_is_older_goes_by_its_newest_layer),
		cmocka_unit_test(the_newest_of_each_model_and_platform_are_kept),
		cmocka_unit_test(a_model_may_be_named_alone),
		cmocka_unit_test(the_oldest_go_until_the_total_fits),
		cmocka_unit_test(the_newest_complete_version_of_each_model_and_platform_stays),
		cmocka_unit_test(a_version_in_which_a_layer_was_put_a_moment_ago_stays),
		cmocka_unit_test(a_shielded_version_counts_in_the_total),
		cmocka_unit_test(reasons_and_shields_have_names),
		cmocka_unit_test(a_version_by_name_goes_whatever_it_is),
		cmocka_unit_test(a_version_by_name_that_is_not_there_is_not_found),
		cmocka_unit_test(marked_layers_go_first),
		cmocka_unit_test(
			a_version_with_one_mark_counts_as_incomplete_from_the_first_delete_on),
		cmocka_unit_test(a_layer_that_can_not_be_read_is_deleted_too),
		cmocka_unit_test(an_error_of_one_version_leaves_the_others_their_turn),
		cmocka_unit_test(a_canceled_run_ends_at_once),
		cmocka_unit_test(a_store_that_fails_makes_no_plan),
		cmocka_unit_test(a_version_into_which_a_layer_was_put_after_the_plan_is_left),
		cmocka_unit_test(by_name_a_version_goes_with_what_came_after_the_plan),
		cmocka_unit_test(a_platform_restricts_every_rule),
		cmocka_unit_test(
			a_version_with_a_layer_that_can_not_be_read_is_shielded_as_if_complete),
		cmocka_unit_test(a_sweep_takes_names_of_layers_and_heads_alone),
	};

	return RUN(tests);
}
