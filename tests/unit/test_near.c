/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "lib/sync/near.h"

/* A volume, a near and a far directory. */
struct house {
	struct scratch s;
	int volume_fd;
	struct warm_store *stores[2];
	struct heard heard;
	struct warm_near_options o;
	struct warm_near_report report;
	struct warm_error err;
};

static struct house *open_house(void)
{
	static struct warm_notices notices;
	struct house *h = calloc(1, sizeof(*h));

	assert_non_null(h);
	h->s = scratch_open();
	put_dir(h->s.fd, "volume/.warmcache");
	h->volume_fd = openat(h->s.fd, "volume", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(warm_store_open(scratch_path(&h->s, "near"), &h->stores[0], NULL), 0);
	assert_int_equal(warm_store_open(scratch_path(&h->s, "far"), &h->stores[1], NULL), 0);
	notices = (struct warm_notices){ hear, &h->heard };
	h->o = (struct warm_near_options){ .stores = h->stores,
					   .n_stores = 2,
					   .key = key_of("m", "v"),
					   .volume = strdup(scratch_path(&h->s, "volume")),
					   .notices = &notices };
	return h;
}

static void close_house(struct house *h)
{
	warm_store_free(h->stores[0]);
	warm_store_free(h->stores[1]);
	close(h->volume_fd);
	scratch_close(&h->s);
	free((char *)(uintptr_t)h->o.volume);
	free(h);
}

/* A layer of `kib` KiB that doesn't compress. */
static char *put_layer(struct house *h, size_t store, const char *model, uint64_t ms, size_t kib)
{
	struct warm_key key = key_of(model, "v");
	scope_free uint8_t *data = noise(ms, kib << 10);
	struct made_group g = {
		.name = "a", .files = { { .path = "a", .text = (char *)data, .bytes = kib << 10 } }
	};
	struct made_layer l = { .id = { ms, 1 }, .groups = &g, .n_groups = 1 };
	char *object = malloc(WARM_NAME_BYTES);

	put_made_layer(h->stores[store], &key, &l, object);
	return object;
}

static void name_layer(struct house *h, const char *object, bool damaged)
{
	assert_int_equal(warm_near_note(h->volume_fd, &object, &damaged, 1, NULL), 0);
}

static int fill(struct house *h)
{
	return warm_near_fill(&h->o, NULL, &h->report, &h->err);
}

static void assert_same(struct house *h, const char *object)
{
	assert_int_equal(shell("cmp -s %s/near/%s %s/far/%s", h->s.path, object, h->s.path, object),
			 0);
}

static bool near_has(struct house *h, const char *object)
{
	struct warm_object o;

	return warm_store_head(h->stores[0], object, &o, NULL, NULL) == 0;
}

TEST(what_is_named_is_copied_whole_and_the_list_goes)
{
	struct house *h = open_house();
	scope_free char *a = put_layer(h, 1, "m", 10, 3000), *b = put_layer(h, 1, "m", 11, 5);
	scope_free char *c = put_layer(h, 1, "m", 12, 5);

	assert_false(is_there(h->volume_fd, ".warmcache/near"));
	name_layer(h, a, false);
	name_layer(h, b, false);
	name_layer(h, a, false);
	assert_true(is_there(h->volume_fd, ".warmcache/near"));
	assert_int_equal(fill(h), 0);
	assert_int_equal(h->report.filled, 2);
	assert_int_equal(h->report.left, 0);
	assert_same(h, a);
	assert_same(h, b);
	assert_false(near_has(h, c));
	assert_false(is_there(h->volume_fd, ".warmcache/near"));
	assert_int_equal(fill(h), 0);
	assert_int_equal(h->report.filled, 0);
	close_house(h);
}

TEST(what_near_has_is_not_fetched_again)
{
	struct house *h = open_house();
	scope_free char *a = put_layer(h, 1, "m", 10, 5);

	name_layer(h, a, false);
	assert_int_equal(fill(h), 0);
	/* Were it fetched, the broken far would be seen. */
	char path[2 * WARM_NAME_BYTES];
	snprintf(path, sizeof(path), "%s/far/%s", h->s.path, a);
	flip_byte(path, 100);
	name_layer(h, a, false);
	assert_int_equal(fill(h), 0);
	assert_int_equal(h->report.filled, 0);
	assert_string_equal(h->heard.text, "");
	close_house(h);
}

TEST(a_damaged_copy_is_replaced_and_a_good_one_is_not)
{
	struct house *h = open_house();
	scope_free char *a = put_layer(h, 1, "m", 10, 500), *b = put_layer(h, 1, "m", 11, 500);
	char path[2 * WARM_NAME_BYTES];

	name_layer(h, a, false);
	name_layer(h, b, false);
	assert_int_equal(fill(h), 0);
	snprintf(path, sizeof(path), "%s/near/%s", h->s.path, a);
	flip_byte(path, 300000);
	name_layer(h, a, true);
	name_layer(h, b, true); /* the model may say so */
	assert_int_equal(fill(h), 0);
	assert_int_equal(h->report.repaired, 1);
	assert_int_equal(h->report.filled, 0);
	assert_same(h, a);
	close_house(h);
}

TEST(a_copy_of_another_size_is_replaced)
{
	struct house *h = open_house();
	scope_free char *a = put_layer(h, 1, "m", 10, 5);

	name_layer(h, a, false);
	assert_int_equal(fill(h), 0);
	assert_int_equal(shell("truncate -s 100 %s/near/%s", h->s.path, a), 0);
	name_layer(h, a, false);
	assert_int_equal(fill(h), 0);
	assert_int_equal(h->report.repaired, 1);
	assert_same(h, a);
	close_house(h);
}

TEST(what_far_holds_damaged_does_not_get_into_near)
{
	struct house *h = open_house();
	scope_free char *a = put_layer(h, 1, "m", 10, 500), *b = put_layer(h, 1, "m", 11, 5);
	char path[2 * WARM_NAME_BYTES];

	snprintf(path, sizeof(path), "%s/far/%s", h->s.path, a);
	flip_byte(path, 1000);
	name_layer(h, a, false);
	name_layer(h, b, false);
	assert_int_equal(fill(h), 0);
	assert_false(near_has(h, a));
	assert_same(h, b);
	assert_int_equal(h->report.left, 0);
	assert_non_null(strstr(h->heard.text, "digest is wrong"));
	close_house(h);
}

TEST(the_list_decides_nothing)
{
	struct house *h = open_house();
	scope_free char *other = put_layer(h, 1, "other", 10, 5), *a = put_layer(h, 1, "m", 10, 5);
	char text[3 * WARM_NAME_BYTES];

	/* Another model's, no layer, a way out, gone, and noise. */
	put_text(h->s.fd, "far/secret", "x");
	snprintf(text, sizeof(text),
		 "+%s\n+secret\n+../far/secret\n!m/v/test/L-1-0000000000000001-5-x.tar.zst\n"
		 "+\n\n?\n+%s\n+m/v/test/L-99-0000000000000001-5-"
		 "0000000000000000000000000000000000000000000000000000000000000000.tar.zst\n",
		 other, a);
	put_text(h->volume_fd, ".warmcache/near", text);
	assert_int_equal(fill(h), 0);
	assert_int_equal(h->report.filled, 1);
	assert_same(h, a);
	assert_int_equal(shell("test $(find %s/near -type f | wc -l) = 1", h->s.path), 0);
	/* Nor does a link in its place. */
	assert_int_equal(
		shell("ln -s %s/far/secret %s/volume/.warmcache/near", h->s.path, h->s.path), 0);
	assert_int_equal(fill(h), 0);
	assert_int_equal(h->report.filled, 0);
	assert_file(h->s.fd, "far/secret", "x");
	close_house(h);
}

static void set_use(struct house *h, const char *object, int64_t seconds)
{
	char path[2 * WARM_NAME_BYTES];

	snprintf(path, sizeof(path), "near/%s", object);
	set_times(h->s.fd, path, seconds * 1000000000, 1000000000);
}

TEST(what_was_used_longest_ago_makes_room)
{
	struct house *h = open_house();
	scope_free char *a = put_layer(h, 1, "m", 10, 400), *b = put_layer(h, 1, "m", 11, 400);
	scope_free char *c = put_layer(h, 1, "m", 12, 400), *d = put_layer(h, 1, "m", 13, 400);

	h->o.max_bytes = 1300 << 10;
	name_layer(h, a, false);
	name_layer(h, b, false);
	name_layer(h, c, false);
	assert_int_equal(fill(h), 0);
	put_text(h->s.fd, "near/m/README", "not ours");
	set_use(h, a, 1000);
	set_use(h, b, 900);
	set_use(h, c, 1100);
	name_layer(h, d, false);
	assert_int_equal(fill(h), 0);
	assert_int_equal(h->report.evicted, 1);
	assert_false(near_has(h, b));
	assert_true(near_has(h, a) && near_has(h, c) && near_has(h, d));
	assert_file(h->s.fd, "near/m/README", "not ours");
	close_house(h);
}

TEST(what_is_wanted_now_is_not_evicted_for_what_is_wanted_now)
{
	struct house *h = open_house();
	scope_free char *a = put_layer(h, 1, "m", 10, 400), *b = put_layer(h, 1, "m", 11, 400);

	h->o.max_bytes = 600 << 10;
	name_layer(h, a, false);
	name_layer(h, b, false);
	assert_int_equal(fill(h), 0);
	assert_int_equal(h->report.filled, 1);
	assert_true(near_has(h, a));
	assert_non_null(strstr(h->heard.text, "over the bound"));
	assert_int_equal(h->report.left, 0);
	close_house(h);
}

TEST(a_near_store_that_cannot_be_written_keeps_its_names_for_another_time)
{
	struct house *h = open_house();
	scope_free char *a = put_layer(h, 1, "m", 10, 5), *b = put_layer(h, 1, "m", 11, 5);

	put_text(h->s.fd, "near", "a file where the directory should be");
	name_layer(h, a, false);
	name_layer(h, b, true);
	assert_int_equal(fill(h), 0);
	assert_int_equal(h->report.left, 2);
	const char *told = strstr(h->heard.text, "near-passed-over");
	assert_non_null(told);
	assert_null(strstr(told + 1, "near-passed-over"));
	assert_int_equal(shell("rm %s/near", h->s.path), 0);
	assert_int_equal(fill(h), 0);
	assert_int_equal(h->report.filled, 2);
	assert_false(is_there(h->volume_fd, ".warmcache/near"));
	close_house(h);
}

TEST(a_far_store_that_is_away_keeps_the_names)
{
	struct house *h = open_house();
	scope_free char *a = put_layer(h, 1, "m", 10, 5);
	struct warm_store *far = h->stores[1];

	name_layer(h, a, false);
	assert_int_equal(warm_store_open("s3://bucket?endpoint=http://127.0.0.1:1&anonymous=true",
					 &h->stores[1], NULL),
			 0);
	assert_int_equal(fill(h), WARM_TRANSIENT);
	assert_int_equal(h->report.left, 1);
	assert_true(is_there(h->volume_fd, ".warmcache/near"));
	warm_store_free(h->stores[1]);
	h->stores[1] = far;
	close_house(h);
}

TEST(a_fill_that_is_told_to_stop_leaves_whole_layers_and_the_rest_of_the_names)
{
	struct house *h = open_house();
	scope_free char *a = put_layer(h, 1, "m", 10, 5);
	atomic_bool stop = true;
	struct warm_call call = { .cancel = &stop };

	name_layer(h, a, false);
	assert_int_equal(warm_near_fill(&h->o, &call, &h->report, &h->err), WARM_CANCELED);
	assert_false(near_has(h, a));
	assert_true(is_there(h->volume_fd, ".warmcache/near"));
	close_house(h);
}

TEST(the_list_is_bounded)
{
	struct house *h = open_house();
	char name[64];
	const char *names[] = { name };
	const bool damaged[] = { false };

	for (int i = 0; i < 600; i++) {
		snprintf(name, sizeof(name), "m/v/test/%d", i);
		assert_int_equal(warm_near_note(h->volume_fd, names, damaged, 1, NULL), 0);
	}
	assert_int_equal(shell("test $(wc -l < %s/volume/.warmcache/near) = 512", h->s.path), 0);
	close_house(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_named_is_copied_whole_and_the_list_goes),
		cmocka_unit_test(what_near_has_is_not_fetched_again),
		cmocka_unit_test(a_damaged_copy_is_replaced_and_a_good_one_is_not),
		cmocka_unit_test(a_copy_of_another_size_is_replaced),
		cmocka_unit_test(what_far_holds_damaged_does_not_get_into_near),
		cmocka_unit_test(the_list_decides_nothing),
		cmocka_unit_test(what_was_used_longest_ago_makes_room),
		cmocka_unit_test(what_is_wanted_now_is_not_evicted_for_what_is_wanted_now),
		cmocka_unit_test(
			a_near_store_that_cannot_be_written_keeps_its_names_for_another_time),
		cmocka_unit_test(a_far_store_that_is_away_keeps_the_names),
		cmocka_unit_test(
			a_fill_that_is_told_to_stop_leaves_whole_layers_and_the_rest_of_the_names),
		cmocka_unit_test(the_list_is_bounded),
	};

	return RUN(tests);
}
