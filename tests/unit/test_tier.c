/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <fcntl.h>

#include "lib/store/tier.h"
#include "lib/sync/catalog.h"
#include "lib/sync/restore.h"

#define NOWHERE "s3://bucket?endpoint=http://127.0.0.1:1&anonymous=true"

/* A far and two near stores, all directories. */
struct house {
	struct scratch s;
	struct warm_store *stores[3], *tier;
	struct heard heard;
	struct warm_notices notices;
	char object[WARM_NAME_BYTES];
};

static const char *const names[] = { "near", "second", "far" };

static struct house *open_house(void)
{
	struct house *h = calloc(1, sizeof(*h));

	assert_non_null(h);
	h->s = scratch_open();
	h->notices = (struct warm_notices){ hear, &h->heard };
	for (size_t i = 0; i < 3; i++) {
		put_dir(h->s.fd, names[i]);
		assert_int_equal(
			warm_store_open(scratch_path(&h->s, names[i]), &h->stores[i], NULL), 0);
	}
	assert_int_equal(warm_tier_open(h->stores, 3, &h->notices, &h->tier, NULL), 0);
	return h;
}

static void close_house(struct house *h)
{
	warm_store_free(h->tier);
	for (size_t i = 0; i < 3; i++)
		warm_store_free(h->stores[i]);
	scratch_close(&h->s);
	free(h);
}

static void put(struct house *h, size_t store, const char *name, const char *text)
{
	put_text(h->s.fd, "source", text);
	scope_close int fd = openat(h->s.fd, "source", O_RDONLY | O_CLOEXEC);
	assert_int_equal(warm_store_put(h->stores[store], name, fd, strlen(text), NULL, NULL), 0);
}

static int take(void *arg, const void *data, size_t bytes, struct warm_error *err)
{
	(void)err;
	warm_buf_put(arg, data, bytes);
	return 0;
}

static void assert_reads(struct house *h, const char *name, const char *text)
{
	scope_buf struct warm_buf got = WARM_BUF_INIT;

	assert_int_equal(warm_store_get(h->tier, name, 0, strlen(text), take, &got, NULL, NULL), 0);
	warm_buf_put_u8(&got, 0);
	assert_string_equal((char *)got.data, text);
}

static void note(void *arg, const char *name, bool damaged)
{
	warm_buf_printf(arg, "%s%s ", damaged ? "!" : "", name);
}

static void assert_lacking(struct house *h, const char *text)
{
	scope_buf struct warm_buf got = WARM_BUF_INIT;

	warm_tier_lacking(h->tier, note, &got);
	warm_buf_put_u8(&got, 0);
	assert_string_equal((char *)got.data, text);
}

static int name_object(void *arg, const struct warm_object *o, struct warm_error *err)
{
	(void)err;
	warm_buf_printf(arg, "%s ", o->name);
	return 0;
}

static void assert_lists(struct house *h, const char *text)
{
	scope_buf struct warm_buf got = WARM_BUF_INIT;

	assert_int_equal(warm_store_list(h->tier, "m/", name_object, &got, NULL, NULL, NULL), 0);
	warm_buf_put_u8(&got, 0);
	assert_string_equal((char *)got.data, text);
}

TEST(the_nearest_store_that_has_a_name_serves_it)
{
	struct house *h = open_house();

	put(h, 0, "m/a", "near a");
	put(h, 1, "m/a", "second");
	put(h, 2, "m/a", "far  a");
	put(h, 1, "m/b", "second b");
	put(h, 2, "m/b", "far    b");
	put(h, 2, "m/c", "far c");
	assert_reads(h, "m/a", "near a");
	assert_reads(h, "m/b", "second b");
	assert_reads(h, "m/c", "far c");
	assert_reads(h, "m/c", "far c");
	assert_lacking(h, "m/b m/c ");
	assert_string_equal(h->heard.text, "");
	close_house(h);
}

TEST(far_alone_is_listed)
{
	struct house *h = open_house();

	put(h, 0, "m/only-near", "x");
	put(h, 2, "m/far", "x");
	assert_lists(h, "m/far ");
	assert_false(warm_tier_far_is_away(h->tier));
	close_house(h);
}

TEST(the_nearest_list_counts_where_far_is_away)
{
	struct house *h = open_house();
	struct warm_error err = { 0 };
	scope_buf struct warm_buf got = WARM_BUF_INIT;

	put(h, 0, "m/a", "x");
	put(h, 1, "m/b", "y");
	warm_store_free(h->tier);
	struct warm_store *broken = NULL;
	assert_int_equal(warm_store_open(NOWHERE, &broken, NULL), 0);
	struct warm_store *stores[] = { h->stores[0], h->stores[1], broken };
	assert_int_equal(warm_tier_open(stores, 3, &h->notices, &h->tier, NULL), 0);
	assert_lists(h, "m/a ");
	assert_true(warm_tier_far_is_away(h->tier));
	assert_non_null(strstr(h->heard.text, "far-away: s3://bucket/m/: can't connect"));
	assert_reads(h, "m/a", "x");
	assert_reads(h, "m/b", "y");
	assert_int_equal(warm_store_get(h->tier, "m/c", 0, 1, take, &got, NULL, &err),
			 WARM_TRANSIENT);
	assert_non_null(strstr(err.msg, "is away"));
	warm_store_free(take_ptr(h->tier));
	warm_store_free(broken);
	close_house(h);
}

static int refuse_listed(void *arg, const struct warm_object *o, struct warm_error *err)
{
	(void)arg;
	(void)o;
	return warm_error_set(err, WARM_LIMIT, "enough");
}

/* What fails then is one LIST: the pod's own layers are there. */
TEST(a_far_store_that_has_answered_is_not_away)
{
	struct house *h = open_house();
	struct warm_error err = { 0 };

	put(h, 0, "m/a", "near");
	put(h, 2, "m/a", "far!");
	put(h, 2, "n/b", "far");
	assert_lists(h, "m/a ");
	/* A directory that can't be listed, in a store that can. */
	assert_int_equal(shell("rm -r %s/far/n && touch %s/far/n", h->s.path, h->s.path), 0);
	assert_int_not_equal(warm_store_list(h->tier, "n/", refuse_listed, NULL, NULL, NULL, &err),
			     0);
	assert_false(warm_tier_far_is_away(h->tier));
	close_house(h);
}

TEST(a_near_object_that_is_too_short_is_damaged_and_read_from_behind)
{
	struct house *h = open_house();

	put(h, 0, "m/a", "short");
	put(h, 2, "m/a", "longer than that");
	assert_reads(h, "m/a", "longer than that");
	assert_lacking(h, "!m/a ");
	assert_non_null(strstr(h->heard.text, "near-damaged: "));
	close_house(h);
}

TEST(what_is_distrusted_comes_from_far_from_then_on)
{
	struct house *h = open_house();

	put(h, 0, "m/a", "wrong");
	put(h, 1, "m/a", "WRONG");
	put(h, 2, "m/a", "right");
	assert_reads(h, "m/a", "wrong");
	assert_true(warm_store_distrust(h->tier, "m/a"));
	assert_reads(h, "m/a", "right");
	/* Another thread may have read the same copy. */
	assert_true(warm_store_distrust(h->tier, "m/a"));
	assert_lacking(h, "!m/a ");
	put(h, 2, "m/far", "right");
	assert_reads(h, "m/far", "right");
	assert_false(warm_store_distrust(h->tier, "m/far"));
	assert_false(warm_store_distrust(h->stores[2], "m/a"));
	close_house(h);
}

TEST(a_near_store_that_fails_is_passed_over_once_and_for_all)
{
	struct house *h = open_house();
	struct warm_store *broken = NULL;

	assert_int_equal(warm_store_open(NOWHERE, &broken, NULL), 0);
	struct warm_store *stores[] = { broken, h->stores[1], h->stores[2] };
	warm_store_free(h->tier);
	assert_int_equal(warm_tier_open(stores, 3, &h->notices, &h->tier, NULL), 0);
	put(h, 1, "m/a", "second");
	put(h, 2, "m/b", "far");
	assert_reads(h, "m/a", "second");
	assert_reads(h, "m/b", "far");
	const char *told = strstr(h->heard.text,
				  "near-passed-over: s3://bucket/m/a: can't connect");
	assert_non_null(told);
	assert_null(strstr(told + 1, "near-passed-over"));
	warm_store_free(take_ptr(h->tier));
	warm_store_free(broken);
	close_house(h);
}

static int refuse(void *arg, const void *data, size_t bytes, struct warm_error *err)
{
	(void)data;
	(void)bytes;
	(*(int *)arg)++;
	return warm_error_set(err, WARM_CORRUPT, "enough");
}

TEST(a_sink_that_fails_is_no_fault_of_a_store)
{
	struct house *h = open_house();
	struct warm_error err = { 0 };
	int calls = 0;

	put(h, 0, "m/a", "x");
	put(h, 2, "m/a", "x");
	assert_int_equal(warm_store_get(h->tier, "m/a", 0, 1, refuse, &calls, NULL, &err),
			 WARM_CORRUPT);
	assert_int_equal(calls, 1);
	assert_non_null(strstr(err.msg, "enough"));
	assert_lacking(h, "");
	close_house(h);
}

TEST(a_use_is_seen_in_near_alone)
{
	struct house *h = open_house();

	put(h, 0, "m/a", "x");
	put(h, 2, "m/a", "x");
	set_times(h->s.fd, "near/m/a", 1000000000, 2000000000);
	set_times(h->s.fd, "far/m/a", 1000000000, 2000000000);
	assert_reads(h, "m/a", "x");
	assert_true(stat_of(h->s.fd, "near/m/a").st_atim.tv_sec > 1700000000);
	assert_int_equal(stat_of(h->s.fd, "near/m/a").st_mtim.tv_sec, 2);
	assert_int_equal(stat_of(h->s.fd, "far/m/a").st_atim.tv_sec, 1);
	close_house(h);
}

TEST(tiers_are_only_read)
{
	struct house *h = open_house();

	put_text(h->s.fd, "source", "x");
	scope_close int fd = openat(h->s.fd, "source", O_RDONLY | O_CLOEXEC);
	assert_int_equal(warm_store_put(h->tier, "m/a", fd, 1, NULL, NULL), WARM_UNSUPPORTED);
	assert_int_equal(warm_store_delete(h->tier, "m/a", NULL, NULL), WARM_UNSUPPORTED);
	struct warm_store *tier = NULL;
	assert_int_equal(warm_tier_open(h->stores, 1, NULL, &tier, NULL), WARM_INVALID);
	close_house(h);
}

static void put_layer(struct house *h, size_t store)
{
	struct warm_key key = key_of("m", "v");
	scope_free uint8_t *data = noise(7, 3 << 20);
	struct made_group g = {
		.name = "a", .files = { { .path = "a", .text = (char *)data, .bytes = 3 << 20 } }
	};
	struct made_layer l = { .id = { 10, 1 }, .groups = &g, .n_groups = 1 };

	put_made_layer(h->stores[store], &key, &l, h->object);
}

static void restore(struct house *h, enum warm_restore_status status)
{
	struct warm_restore_options o = { .store = h->tier,
					  .key = key_of("m", "v"),
					  .volume = scratch_path(&h->s, "volume"),
					  .notices = &h->notices };
	struct warm_restore_result r = { 0 };

	put_dir(h->s.fd, "volume");
	assert_int_equal(warm_restore_run(&o, NULL, &r, NULL), 0);
	assert_int_equal(r.status, status);
}

/* Each tenth of a near copy broken in turn: index, frames, header. */
TEST(a_restore_is_whole_whatever_is_broken_in_near)
{
	for (long tenth = 0; tenth < 10; tenth++) {
		struct house *h = open_house();
		char path[2 * WARM_NAME_BYTES];
		put_layer(h, 2);
		assert_int_equal(shell("cp -r %s/far/m %s/near/", h->s.path, h->s.path), 0);
		snprintf(path, sizeof(path), "%s/near/%s", h->s.path, h->object);
		struct stat st;
		assert_int_equal(stat(path, &st), 0);
		flip_byte(path, st.st_size / 10 * tenth + (tenth == 0 ? 100 : 5));
		if (tenth == 9)
			flip_byte(path, -40); /* in the index */
		restore(h, WARM_RESTORE_WARM);
		assert_int_equal(stat_of(h->s.fd, "volume/a").st_size, 3 << 20);
		char expected[WARM_NAME_BYTES + 8];
		snprintf(expected, sizeof(expected), "!%s ", h->object);
		assert_lacking(h, expected);
		assert_non_null(strstr(h->heard.text, "near-damaged"));
		assert_null(strstr(h->heard.text, "refused"));
		close_house(h);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_nearest_store_that_has_a_name_serves_it),
		cmocka_unit_test(far_alone_is_listed),
		cmocka_unit_test(the_nearest_list_counts_where_far_is_away),
		cmocka_unit_test(a_far_store_that_has_answered_is_not_away),
		cmocka_unit_test(a_near_object_that_is_too_short_is_damaged_and_read_from_behind),
		cmocka_unit_test(what_is_distrusted_comes_from_far_from_then_on),
		cmocka_unit_test(a_near_store_that_fails_is_passed_over_once_and_for_all),
		cmocka_unit_test(a_sink_that_fails_is_no_fault_of_a_store),
		cmocka_unit_test(a_use_is_seen_in_near_alone),
		cmocka_unit_test(tiers_are_only_read),
		cmocka_unit_test(a_restore_is_whole_whatever_is_broken_in_near),
	};

	return RUN(tests);
}
