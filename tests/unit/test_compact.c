/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <fcntl.h>
#include <time.h>

#include "lib/sync/compact.h"
#include "lib/sync/restore.h"

static const struct warm_id first = { 1700000000000, 1 }, second = { 1700000000001, 2 },
			    third = { 1700000000002, 3 };

struct house {
	struct scratch s;
	struct warm_store *store;
	struct warm_key key;
	struct heard heard;
};

static struct house *open_house(void)
{
	struct house *h = calloc(1, sizeof(*h));

	assert_non_null(h);
	h->s = scratch_open();
	h->key = key_of("llama", "v1");
	put_dir(h->s.fd, "store");
	put_dir(h->s.fd, "work");
	assert_int_equal(warm_store_open(scratch_path(&h->s, "store"), &h->store, NULL), 0);
	return h;
}

static void close_house(struct house *h)
{
	warm_store_free(h->store);
	scratch_close(&h->s);
	free(h);
}

static int compact_from(struct house *h, size_t min_layers, int64_t min_age_ms,
			struct warm_compact_report *r)
{
	struct warm_notices notices = { hear, &h->heard };
	struct warm_compact_options o = { .store = h->store,
					  .key = h->key,
					  .work_dir = scratch_path(&h->s, "work"),
					  .min_layers = min_layers,
					  .min_age_ms = min_age_ms,
					  .notices = &notices };
	struct warm_error err = { 0 };

	int rc = warm_compact_run(&o, NULL, r, &err);
	if (rc != 0)
		print_message("# %s\n", err.msg);
	/* Nothing of it is left in the work directory. */
	scope_close int work = openat(h->s.fd, "work", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char *left = list_tree(work, false);
	assert_string_equal(left, "");
	free(left);
	return rc;
}

static int compact(struct house *h, int64_t min_age_ms, struct warm_compact_report *r)
{
	return compact_from(h, 0, min_age_ms, r);
}

static size_t listed(struct house *h)
{
	scope_catalog struct warm_catalog c = { 0 };

	assert_int_equal(warm_catalog_list(&c, h->store, &h->key, false, NULL, NULL), 0);
	return c.n_layers;
}

/* What a reader finds, as "name=contents\n" of all live groups of one file. */
static char *contents(struct house *h, const char *mount)
{
	struct scratch volume = scratch_open();
	struct warm_restore_result result;
	struct warm_restore_options o = { .store = h->store,
					  .key = h->key,
					  .volume = volume.path,
					  .fallback = WARM_FALLBACK_NONE,
					  .mount = mount };
	struct warm_error err = { 0 };

	if (warm_restore_run(&o, NULL, &result, &err) != 0)
		print_message("# restore: %s\n", err.msg);
	char *tree = list_tree(volume.fd, true);
	scratch_close(&volume);
	return tree;
}

static void put(struct house *h, struct warm_id id, const struct made_group *groups, size_t n)
{
	struct made_layer l = { .id = id, .groups = groups, .n_groups = n };

	put_made_layer(h->store, &h->key, &l, NULL);
}

/* So that a base is older than a `min_age_ms` of 1 by the file system's clock. */
static void wait_a_moment(void)
{
	struct timespec t = { 0, 30 * 1000000 };

	nanosleep(&t, NULL);
}

TEST(a_base_holds_what_its_layers_held)
{
	struct house *h = open_house();
	struct warm_compact_report r;

	put(h, first,
	    (struct made_group[]){
		    { .name = "a", .files = { { .path = "a", .text = "old" } } },
		    { .name = "d",
		      .flags = WARM_GROUP_SELF_KEYED,
		      .files = { { .path = "d/1", .text = "one", .mode = 0111 },
				 { .path = "d/2", .text = "", .mtime_ns = 5000000001 } } } },
	    2);
	put(h, second,
	    (struct made_group[]){ { .name = "a", .files = { { .path = "a", .text = "new" } } } },
	    1);
	char *before = contents(h, NULL);
	assert_int_equal(compact(h, 0, &r), 0);
	assert_int_equal(r.folded, 2);
	assert_int_equal(r.groups, 2);
	assert_int_equal(r.bad, 0);
	assert_int_equal(r.deleted, 0);
	assert_int_equal(r.kept, 2);
	assert_true(r.base[0] != '\0');
	assert_int_equal(listed(h), 3);
	char *after = contents(h, NULL);
	assert_string_equal(before, after);
	free(before);
	free(after);
	close_house(h);
}

TEST(a_base_keeps_origins_flags_and_the_complete_mark)
{
	struct house *h = open_house();
	struct warm_compact_report r;
	struct made_layer marked = {
		.id = first,
		.complete = "template-9",
		.groups = (struct made_group[]){ { .name = "a",
						   .profile = "triton",
						   .flags = WARM_GROUP_SELF_KEYED |
							    WARM_GROUP_MUTABLE,
						   .files = { { .path = "a", .text = "x" } } } },
		.n_groups = 1
	};

	put_made_layer(h->store, &h->key, &marked, NULL);
	put(h, second,
	    (struct made_group[]){ { .name = "b", .files = { { .path = "b", .text = "y" } } } }, 1);
	assert_int_equal(compact(h, 0, &r), 0);
	scope_catalog struct warm_catalog c = { 0 };
	assert_int_equal(warm_catalog_list(&c, h->store, &h->key, true, NULL, NULL), 0);
	assert_int_equal(warm_catalog_read(&c, h->store, NULL, NULL, NULL), 0);
	assert_string_equal(warm_catalog_complete(&c), "template-9");
	const struct warm_index *base = c.layers[0].index;
	assert_int_equal(base->kind, WARM_BASE);
	assert_int_equal(base->n_covered, 2);
	assert_int_equal(base->n_groups, 2);
	assert_string_equal(base->groups[0].name, "a");
	assert_string_equal(base->groups[0].profile, "triton");
	assert_int_equal(base->groups[0].flags, WARM_GROUP_SELF_KEYED | WARM_GROUP_MUTABLE);
	assert_int_equal(warm_id_compare(base->groups[0].origin, first), 0);
	assert_int_equal(warm_id_compare(base->groups[1].origin, second), 0);
	assert_true(warm_id_compare(base->id, second) > 0);
	assert_true(c.now_ms >= 0);
	close_house(h);
}

TEST(covered_layers_go_only_when_their_base_is_old_enough)
{
	struct house *h = open_house();
	struct warm_compact_report r;

	put(h, first,
	    (struct made_group[]){ { .name = "a", .files = { { .path = "a", .text = "1" } } } }, 1);
	put(h, second,
	    (struct made_group[]){ { .name = "b", .files = { { .path = "b", .text = "2" } } } }, 1);
	char *before = contents(h, NULL);
	assert_int_equal(compact(h, 0, &r), 0); /* an hour */
	assert_int_equal(listed(h), 3);
	wait_a_moment();
	assert_int_equal(compact(h, 0, &r), 0);
	assert_int_equal(r.deleted, 0);
	assert_string_equal(r.base, ""); /* one layer counts: nothing to fold */
	assert_int_equal(compact(h, 1, &r), 0);
	assert_int_equal(r.deleted, 2);
	assert_int_equal(listed(h), 1);
	char *after = contents(h, NULL);
	assert_string_equal(before, after);
	free(before);
	free(after);
	close_house(h);
}

TEST(a_chain_of_bases_loses_nothing)
{
	struct house *h = open_house();
	struct warm_compact_report r;
	char name[4][8];

	for (uint64_t round = 0; round < 4; round++) {
		snprintf(name[round], sizeof(name[round]), "g%d", (int)round);
		struct made_group g = { .name = name[round],
					.files = { { .path = name[round], .text = name[round] } } };
		struct warm_id id = { (uint64_t)warm_clock_wall_ms() + 1000 * (round + 1), round };
		put(h, id, &g, 1);
		char *before = contents(h, NULL);
		assert_int_equal(compact(h, 1, &r), 0);
		wait_a_moment();
		char *after = contents(h, NULL);
		assert_string_equal(before, after);
		free(before);
		free(after);
	}
	assert_int_equal(compact(h, 1, &r), 0);
	assert_int_equal(listed(h), 1);
	char *tree = contents(h, NULL);
	for (int i = 0; i < 4; i++)
		assert_non_null(strstr(tree, name[i]));
	free(tree);
	close_house(h);
}

/* The copies are of one path, so their contents tell which is which. */
static void assert_copy(struct house *h, const struct warm_layer *layer, uint64_t bound,
			const char *text)
{
	const struct warm_index *x = layer->index;

	for (size_t i = 0; i < x->n_groups; i++) {
		const struct warm_group *g = &x->groups[i];
		if (g->bound != bound)
			continue;
		const struct warm_file *f = &x->files[g->first_file];
		char prefix[WARM_NAME_BYTES + 300];
		size_t bytes = 0;
		snprintf(prefix, sizeof(prefix), "%s/store/%s", h->s.path, layer->object);
		uint8_t *data = load_file(prefix, &bytes);
		char command[2048];
		snprintf(command, sizeof(command), "%s/raw", h->s.path);
		/* Only zstd's own decoder and the index's positions are trusted here. */
		assert_int_equal(shell("zstd -qdcf '%s' > %s", prefix, command), 0);
		free(data);
		data = load_file(command, &bytes);
		assert_int_equal(f->size, strlen(text));
		assert_memory_equal(data + f->raw_offset, text, strlen(text));
		free(data);
		return;
	}
	fail_msg("no copy bound to %llx", (unsigned long long)bound);
}

static void check_copies(struct house *h)
{
	scope_catalog struct warm_catalog c = { 0 };

	assert_int_equal(warm_catalog_list(&c, h->store, &h->key, false, NULL, NULL), 0);
	assert_int_equal(warm_catalog_read(&c, h->store, NULL, NULL, NULL), 0);
	assert_int_equal(c.layers[0].index->kind, WARM_BASE);
	assert_copy(h, &c.layers[0], 0x1111, "for the first CPU");
	assert_copy(h, &c.layers[0], 0x2222, "for the second CPU, and longer");
}

static void put_copies(struct house *h)
{
	put(h, first,
	    (struct made_group[]){
		    { .name = "inductor/ab/x.so",
		      .flags = WARM_GROUP_CPU_BOUND,
		      .bound = 0x1111,
		      .files = { { .path = "inductor/ab/x.so", .text = "for the first CPU" } } } },
	    1);
	put(h, second,
	    (struct made_group[]){ { .name = "inductor/ab/x.so",
				     .flags = WARM_GROUP_CPU_BOUND,
				     .bound = 0x2222,
				     .files = { { .path = "inductor/ab/x.so",
						  .text = "for the second CPU, and longer" } } } },
	    1);
}

TEST(copies_for_two_cpus_live_on_in_a_base)
{
	struct house *h = open_house();
	struct warm_compact_report r;

	put_copies(h);
	assert_int_equal(compact(h, 0, &r), 0);
	assert_int_equal(r.groups, 2);
	check_copies(h);
	close_house(h);
}

TEST(copies_for_two_cpus_live_on_when_a_base_is_folded_into_the_next)
{
	struct house *h = open_house();
	struct warm_compact_report r;

	put_copies(h);
	assert_int_equal(compact(h, 0, &r), 0);
	put(h, (struct warm_id){ (uint64_t)warm_clock_wall_ms() + 5000, 9 },
	    (struct made_group[]){
		    { .name = "more", .files = { { .path = "more", .text = "more" } } } },
	    1);
	assert_int_equal(compact(h, 0, &r), 0);
	assert_int_equal(r.groups, 3);
	check_copies(h);
	close_house(h);
}

TEST(a_layer_with_a_bad_frame_is_left_alone_and_its_older_copies_live)
{
	struct house *h = open_house();
	struct warm_compact_report r;
	char object[WARM_NAME_BYTES], path[WARM_NAME_BYTES + 300];
	struct made_layer bad = {
		.id = third,
		.groups =
			(struct made_group[]){
				{ .name = "a", .files = { { .path = "a", .text = "newest" } } },
				{ .name = "only",
				  .files = { { .path = "only", .text = "here" } } } },
		.n_groups = 2
	};

	put(h, first,
	    (struct made_group[]){ { .name = "a", .files = { { .path = "a", .text = "1" } } } }, 1);
	put(h, second,
	    (struct made_group[]){ { .name = "b", .files = { { .path = "b", .text = "2" } } } }, 1);
	put_made_layer(h->store, &h->key, &bad, object);
	snprintf(path, sizeof(path), "%s/store/%s", h->s.path, object);
	flip_byte(path, 20);
	assert_int_equal(compact(h, 1, &r), 0);
	assert_int_equal(r.bad, 1);
	assert_int_equal(r.folded, 2);
	assert_int_equal(r.groups, 2);
	wait_a_moment();
	assert_int_equal(compact(h, 1, &r), 0);
	assert_int_equal(listed(h), 2); /* the base, and the bad one where it was */
	/* Mended (the flip undone), nothing of it was lost. */
	flip_byte(path, 20);
	char *tree = contents(h, NULL);
	assert_non_null(strstr(tree, "only size=4"));
	assert_non_null(strstr(tree, "a size=6"));
	assert_non_null(strstr(tree, "b size=1"));
	free(tree);
	close_house(h);
}

TEST(a_layer_with_a_bad_index_is_left_alone_and_counted)
{
	struct house *h = open_house();
	struct warm_compact_report r;
	char object[WARM_NAME_BYTES], path[WARM_NAME_BYTES + 300];
	struct made_layer bad = {
		.id = third,
		.groups = (struct made_group[]){ { .name = "only",
						   .files = { { .path = "only",
								.text = "here" } } } },
		.n_groups = 1
	};

	put(h, first,
	    (struct made_group[]){ { .name = "a", .files = { { .path = "a", .text = "1" } } } }, 1);
	put(h, second,
	    (struct made_group[]){ { .name = "b", .files = { { .path = "b", .text = "2" } } } }, 1);
	put_made_layer(h->store, &h->key, &bad, object);
	snprintf(path, sizeof(path), "%s/store/%s", h->s.path, object);
	flip_byte(path, -3);
	assert_int_equal(compact(h, 1, &r), 0);
	wait_a_moment();
	size_t bad_layers = r.bad;
	assert_int_equal(compact(h, 1, &r), 0);
	assert_int_equal(listed(h), 2);
	close_house(h);
	assert_int_equal(bad_layers, 1);
}

TEST(nothing_is_deleted_for_a_bad_base_and_the_next_round_replaces_it)
{
	struct house *h = open_house();
	struct warm_compact_report r;
	char path[2 * WARM_NAME_BYTES];

	put(h, first,
	    (struct made_group[]){ { .name = "a", .files = { { .path = "a", .text = "1" } } } }, 1);
	put(h, second,
	    (struct made_group[]){ { .name = "b", .files = { { .path = "b", .text = "2" } } } }, 1);
	assert_int_equal(compact(h, 0, &r), 0);
	snprintf(path, sizeof(path), "%s/store/%s", h->s.path, r.base);
	flip_byte(path, 20);
	wait_a_moment();
	/* For the bad base nothing may go; what it covers is folded again. */
	assert_int_equal(compact(h, 0, &r), 0);
	assert_int_equal(r.bad, 1);
	assert_int_equal(r.folded, 2);
	assert_int_equal(r.deleted, 0);
	assert_int_equal(listed(h), 4);
	struct warm_id newer = { (uint64_t)warm_clock_wall_ms() + 5000, 9 };
	put(h, newer,
	    (struct made_group[]){ { .name = "c", .files = { { .path = "c", .text = "3" } } } }, 1);
	assert_int_equal(compact(h, 1, &r), 0);
	assert_int_equal(r.folded, 2);
	assert_int_equal(r.groups, 3);
	char *tree = contents(h, NULL);
	assert_non_null(strstr(tree, "a size=1"));
	assert_non_null(strstr(tree, "b size=1"));
	assert_non_null(strstr(tree, "c size=1"));
	free(tree);
	close_house(h);
}

TEST(fewer_layers_than_asked_for_are_left_alone)
{
	struct house *h = open_house();
	struct warm_compact_report r;

	assert_int_equal(compact(h, 1, &r), 0); /* nothing at all */
	put(h, first,
	    (struct made_group[]){ { .name = "a", .files = { { .path = "a", .text = "1" } } } }, 1);
	assert_int_equal(compact(h, 1, &r), 0);
	assert_string_equal(r.base, "");
	assert_int_equal(listed(h), 1);
	close_house(h);
}

TEST(a_late_layer_of_an_older_id_is_not_covered_by_the_base)
{
	struct house *h = open_house();
	struct warm_compact_report r;

	put(h, first,
	    (struct made_group[]){ { .name = "a", .files = { { .path = "a", .text = "1" } } } }, 1);
	put(h, third,
	    (struct made_group[]){ { .name = "b", .files = { { .path = "b", .text = "2" } } } }, 1);
	assert_int_equal(compact(h, 1, &r), 0);
	put(h, second,
	    (struct made_group[]){
		    { .name = "late", .files = { { .path = "late", .text = "3" } } } },
	    1);
	wait_a_moment();
	for (int i = 0; i < 3; i++) {
		assert_int_equal(compact(h, 1, &r), 0);
		wait_a_moment();
	}
	char *tree = contents(h, NULL);
	assert_non_null(strstr(tree, "late size=1"));
	free(tree);
	close_house(h);
}

TEST(a_canceled_compaction_changes_nothing)
{
	struct house *h = open_house();
	struct warm_compact_report r;
	atomic_bool cancel = true;
	struct warm_call call = { .cancel = &cancel };
	struct warm_compact_options o = { .store = h->store,
					  .key = h->key,
					  .work_dir = scratch_path(&h->s, "work") };

	put(h, first,
	    (struct made_group[]){ { .name = "a", .files = { { .path = "a", .text = "1" } } } }, 1);
	put(h, second,
	    (struct made_group[]){ { .name = "b", .files = { { .path = "b", .text = "2" } } } }, 1);
	assert_int_equal(warm_compact_run(&o, &call, &r, NULL), WARM_CANCELED);
	assert_int_equal(listed(h), 2);
	close_house(h);
}

/* ---- what a base goes on covering ---- */

#define DAY_MS ((uint64_t)24 * 3600 * 1000)

static bool covers(const struct warm_index *base, struct warm_id id)
{
	for (size_t i = 0; i < base->n_covered; i++)
		if (warm_id_compare(base->covered[i], id) == 0)
			return true;
	return false;
}

TEST(ids_of_layers_that_are_long_gone_are_forgotten)
{
	struct house *h = open_house();
	struct warm_compact_report r;
	const struct warm_id newest = { 1700000000000 + 400 * DAY_MS, 9 };
	struct made_group a = { .name = "a", .files = { { .path = "a", .text = "1" } } },
			  b = { .name = "b", .files = { { .path = "b", .text = "2" } } };
	const struct warm_id covered[] = {
		{ 1700000000000, 1 },		    /* listed still */
		{ 1700000000000, 2 },		    /* long gone */
		{ newest.ms - 91 * DAY_MS, 3 },	    /* gone for more than 90 days */
		{ newest.ms - 90 * DAY_MS, 4 },	    /* for 90 */
		{ newest.ms - 90 * DAY_MS + 1, 5 }, /* not yet */
		{ newest.ms - 10 * DAY_MS, 6 },
	};
	const bool stays[] = { true, false, false, false, true, true };

	put(h, covered[0], &a, 1);
	put_made_layer(h->store, &h->key,
		       &(struct made_layer){ .kind = WARM_BASE,
					     .id = { newest.ms - DAY_MS, 7 },
					     .covered = covered,
					     .n_covered = COUNT(covered),
					     .groups = &a,
					     .n_groups = 1 },
		       NULL);
	put(h, newest, &b, 1);
	assert_int_equal(compact(h, 0, &r), 0);
	assert_int_equal(r.folded, 2);
	scope_catalog struct warm_catalog c = { 0 };
	assert_int_equal(warm_catalog_list(&c, h->store, &h->key, false, NULL, NULL), 0);
	assert_int_equal(warm_catalog_read(&c, h->store, NULL, NULL, NULL), 0);
	assert_int_equal(c.layers[0].name.kind, WARM_BASE);
	assert_true(warm_id_compare(c.layers[0].name.id, newest) > 0);
	const struct warm_index *base = c.layers[0].index;
	for (size_t i = 0; i < COUNT(covered); i++)
		if (covers(base, covered[i]) != stays[i])
			fail_msg("id %zu", i);
	/* The layers that were folded are covered whatever their age. */
	assert_true(covers(base, newest));
	assert_true(covers(base, (struct warm_id){ newest.ms - DAY_MS, 7 }));
	assert_int_equal(base->n_covered, 5);
	for (size_t i = 1; i < base->n_covered; i++)
		assert_true(warm_id_compare(base->covered[i - 1], base->covered[i]) < 0);
	close_house(h);
}

TEST(folded_layers_are_covered_however_old_they_are)
{
	struct house *h = open_house();
	struct warm_compact_report r;
	const struct warm_id old = { 1600000000000, 1 }, older = { 1500000000000, 1 };
	struct made_group a = { .name = "a", .files = { { .path = "a", .text = "1" } } },
			  b = { .name = "b", .files = { { .path = "b", .text = "2" } } };

	put(h, older, &a, 1);
	put(h, old, &b, 1);
	put(h, third, &b, 1);
	assert_int_equal(compact(h, 0, &r), 0);
	scope_catalog struct warm_catalog c = { 0 };
	assert_int_equal(warm_catalog_list(&c, h->store, &h->key, false, NULL, NULL), 0);
	assert_int_equal(warm_catalog_read(&c, h->store, NULL, NULL, NULL), 0);
	assert_int_equal(c.layers[0].index->n_covered, 3);
	assert_true(covers(c.layers[0].index, older));
	assert_true(covers(c.layers[0].index, old));
	/* And stay so as long as their objects are there. */
	struct warm_id later = { c.newest.ms + 200 * DAY_MS, 1 };
	put(h, later, &a, 1);
	assert_int_equal(compact(h, 0, &r), 0);
	assert_int_equal(warm_catalog_list(&c, h->store, &h->key, false, NULL, NULL), 0);
	assert_int_equal(warm_catalog_read(&c, h->store, NULL, NULL, NULL), 0);
	assert_true(covers(c.layers[0].index, older));
	assert_true(covers(c.layers[0].index, third));
	assert_true(covers(c.layers[0].index, later));
	char *after = contents(h, NULL);
	assert_non_null(strstr(after, "a size=1"));
	assert_non_null(strstr(after, "b size=1"));
	free(after);
	close_house(h);
}

/* A chain of compactions over years: each base covers what is there, not all that ever was. */
TEST(bases_do_not_grow_with_every_compaction)
{
	struct house *h = open_house();
	struct warm_compact_report r;
	size_t most = 0;
	struct warm_id id = { 1500000000000, 1 };

	for (int month = 0; month < 24; month++) {
		char path[16];
		for (int i = 0; i < 2; i++) {
			snprintf(path, sizeof(path), "g%d", i);
			struct made_group g = { .name = path,
						.files = { { .path = path, .text = "x" } } };
			id.ms += 15 * DAY_MS;
			put(h, id, &g, 1);
		}
		assert_int_equal(compact(h, 0, &r), 0);
		assert_true(r.base[0] != '\0');
		/* The clock of the file system moved on meanwhile. */
		assert_int_equal(
			shell("find %s/store -type f -exec touch -d '-2 hours' {} +", h->s.path),
			0);
		assert_int_equal(compact(h, 3600 * 1000, &r), 0);
		assert_int_equal(listed(h), 1);
		scope_catalog struct warm_catalog c = { 0 };
		assert_int_equal(warm_catalog_list(&c, h->store, &h->key, false, NULL, NULL), 0);
		assert_int_equal(warm_catalog_read(&c, h->store, NULL, NULL, NULL), 0);
		if (c.layers[0].index->n_covered > most)
			most = c.layers[0].index->n_covered;
		id = c.newest;
	}
	close_house(h);
	/* Three a month, of some four months. */
	assert_true(most <= 12);
	assert_true(most >= 6);
}

/* Versions are ordered by their newest id: compaction makes none newer than it was. */
TEST(a_base_is_one_millisecond_newer_than_the_newest_that_it_covers)
{
	struct house *h = open_house();
	struct warm_compact_report r;
	struct made_group a = { .name = "a", .files = { { .path = "a", .text = "1" } } };
	const struct warm_id ahead = { (uint64_t)warm_clock_wall_ms() + 3600 * 1000, 1 };
	const struct warm_id newest[] = { third, ahead };

	put(h, first, &a, 1);
	for (size_t i = 0; i < COUNT(newest); i++) {
		put(h, newest[i], &a, 1);
		assert_int_equal(compact(h, 0, &r), 0);
		assert_int_equal(r.folded, 2);
		scope_catalog struct warm_catalog c = { 0 };
		assert_int_equal(warm_catalog_list(&c, h->store, &h->key, false, NULL, NULL), 0);
		assert_int_equal(c.layers[0].name.kind, WARM_BASE);
		assert_true(c.newest.ms == newest[i].ms + 1);
		/* With nothing more to fold it stays. */
		assert_int_equal(compact(h, 0, &r), 0);
		assert_string_equal(r.base, "");
	}
	close_house(h);
}

/* Two compactors at once leave them: readers would go on with both. */
TEST(two_bases_are_folded_however_many_layers_are_asked_for)
{
	struct house *h = open_house();
	struct warm_compact_report r;
	struct made_group groups[] = {
		{ .name = "a", .files = { { .path = "a", .text = "1" } } },
		{ .name = "b", .files = { { .path = "b", .text = "2" } } },
	};

	put(h, first, &groups[0], 1);
	put(h, second, &groups[1], 1);
	assert_int_equal(compact_from(h, 3, 0, &r), 0);
	assert_string_equal(r.base, "");
	/* Both cover both layers, and neither the other. */
	for (uint64_t i = 0; i < 2; i++) {
		put_made_layer(h->store, &h->key,
			       &(struct made_layer){ .kind = WARM_BASE,
						     .id = { second.ms + 1, 7 + i },
						     .covered = (struct warm_id[]){ first, second },
						     .n_covered = 2,
						     .groups = groups,
						     .n_groups = 2 },
			       NULL);
		assert_int_equal(compact_from(h, 10, 0, &r), 0);
		assert_true((r.base[0] != '\0') == (i == 1));
	}
	assert_int_equal(r.folded, 2);
	assert_int_equal(r.groups, 2);
	assert_int_equal(r.kept, 4);
	/* One base and what came since are too few again. */
	put(h, (struct warm_id){ third.ms + 1000, 1 }, &groups[0], 1);
	assert_int_equal(compact_from(h, 10, 0, &r), 0);
	assert_string_equal(r.base, "");
	close_house(h);
}

TEST(a_corrupt_base_is_counted_once)
{
	static const long places[] = { 20, -3 }; /* a frame, the index */

	for (size_t i = 0; i < COUNT(places); i++) {
		struct house *h = open_house();
		struct warm_compact_report r;
		struct made_group a = { .name = "a", .files = { { .path = "a", .text = "1" } } };
		char path[2 * WARM_NAME_BYTES];

		put(h, first, &a, 1);
		put(h, second, &a, 1);
		assert_int_equal(compact(h, 0, &r), 0);
		snprintf(path, sizeof(path), "%s/store/%s", h->s.path, r.base);
		flip_byte(path, places[i]);
		wait_a_moment();
		/* Old enough, so that it is looked at again before anything goes. */
		assert_int_equal(compact_from(h, 10, 1, &r), 0);
		assert_int_equal(r.bad, 1);
		assert_int_equal(r.deleted, 0);
		assert_int_equal(listed(h), 3);
		close_house(h);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_base_holds_what_its_layers_held),
		cmocka_unit_test(a_base_keeps_origins_flags_and_the_complete_mark),
		cmocka_unit_test(covered_layers_go_only_when_their_base_is_old_enough),
		cmocka_unit_test(a_chain_of_bases_loses_nothing),
		cmocka_unit_test(copies_for_two_cpus_live_on_in_a_base),
		cmocka_unit_test(copies_for_two_cpus_live_on_when_a_base_is_folded_into_the_next),
		cmocka_unit_test(a_layer_with_a_bad_frame_is_left_alone_and_its_older_copies_live),
		cmocka_unit_test(a_layer_with_a_bad_index_is_left_alone_and_counted),
		cmocka_unit_test(nothing_is_deleted_for_a_bad_base_and_the_next_round_replaces_it),
		cmocka_unit_test(fewer_layers_than_asked_for_are_left_alone),
		cmocka_unit_test(a_late_layer_of_an_older_id_is_not_covered_by_the_base),
		cmocka_unit_test(a_canceled_compaction_changes_nothing),
		cmocka_unit_test(ids_of_layers_that_are_long_gone_are_forgotten),
		cmocka_unit_test(folded_layers_are_covered_however_old_they_are),
		cmocka_unit_test(bases_do_not_grow_with_every_compaction),
		cmocka_unit_test(a_base_is_one_millisecond_newer_than_the_newest_that_it_covers),
		cmocka_unit_test(two_bases_are_folded_however_many_layers_are_asked_for),
		cmocka_unit_test(a_corrupt_base_is_counted_once),
	};

	return RUN(tests);
}
