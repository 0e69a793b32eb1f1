/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include "lib/sync/catalog.h"

struct house {
	struct scratch s;
	struct warm_store *store;
	struct heard heard;
	struct warm_notices notices;
};

static struct house *open_house(void)
{
	struct house *h = calloc(1, sizeof(*h));

	assert_non_null(h);
	h->s = scratch_open();
	h->notices = (struct warm_notices){ hear, &h->heard };
	assert_int_equal(warm_store_open(scratch_path(&h->s, "store"), &h->store, NULL), 0);
	return h;
}

static void close_house(struct house *h)
{
	warm_store_free(h->store);
	scratch_close(&h->s);
	free(h);
}

static void put(struct house *h, const char *version, uint64_t ms, const char *complete,
		char *ret_object)
{
	struct warm_key key = key_of("m", version);
	struct made_group g = { .name = "a", .files = { { .path = "a", .text = "1" } } };
	struct made_layer l = {
		.id = { ms, 1 }, .complete = complete, .groups = &g, .n_groups = 1
	};

	put_made_layer(h->store, &key, &l, ret_object);
}

TEST(layers_are_listed_newest_first_and_of_their_key_alone)
{
	struct house *h = open_house();
	struct warm_key key = key_of("m", "v");
	scope_catalog struct warm_catalog c = { 0 };

	put(h, "v", 20, NULL, NULL);
	put(h, "v", 30, NULL, NULL);
	put(h, "v", 10, NULL, NULL);
	put(h, "other", 99, NULL, NULL);
	put_text(h->s.fd, "store/m/v/test/README", "no layer");
	put_text(h->s.fd, "store/m/v/test/sub/L-1-x", "no layer");
	assert_int_equal(warm_catalog_list(&c, h->store, &key, true, NULL, NULL), 0);
	assert_int_equal(c.n_layers, 3);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(c.layers[i].name.id.ms, 30 - 10 * i);
	assert_int_equal(c.newest.ms, 30);
	assert_true(c.now_ms > 0);
	close_house(h);
}

TEST(a_store_that_is_not_there_lists_nothing)
{
	struct house *h = open_house();
	struct warm_key key = key_of("m", "v");
	scope_catalog struct warm_catalog c = { 0 };
	struct warm_error err = { 0 };

	assert_int_equal(warm_catalog_list(&c, h->store, &key, false, NULL, &err), 0);
	assert_int_equal(c.n_layers, 0);
	assert_true(warm_id_is_none(c.newest));
	assert_int_equal(warm_catalog_read(&c, h->store, NULL, NULL, NULL), 0);
	assert_null(warm_catalog_complete(&c));
	close_house(h);
}

TEST(an_index_that_was_read_is_kept_when_the_key_is_listed_anew)
{
	struct house *h = open_house();
	struct warm_key key = key_of("m", "v");
	scope_catalog struct warm_catalog c = { 0 };

	put(h, "v", 10, NULL, NULL);
	put(h, "v", 20, NULL, NULL);
	assert_int_equal(warm_catalog_list(&c, h->store, &key, false, NULL, NULL), 0);
	assert_int_equal(warm_catalog_read(&c, h->store, NULL, NULL, NULL), 0);
	const struct warm_index *kept = c.layers[1].index;
	assert_non_null(kept);
	put(h, "v", 15, NULL, NULL);
	assert_int_equal(warm_catalog_list(&c, h->store, &key, false, NULL, NULL), 0);
	assert_int_equal(c.n_layers, 3);
	assert_ptr_equal(c.layers[2].index, kept);
	assert_null(c.layers[1].index);
	assert_int_equal(warm_catalog_read(&c, h->store, NULL, NULL, NULL), 0);
	assert_non_null(c.layers[1].index);
	assert_int_equal(c.refused, 0);
	close_house(h);
}

TEST(a_layer_that_cannot_be_used_is_left_out_with_a_notice)
{
	struct house *h = open_house();
	struct warm_key key = key_of("m", "v");
	scope_catalog struct warm_catalog c = { 0 };
	char object[WARM_NAME_BYTES], path[2 * WARM_NAME_BYTES];

	put(h, "v", 10, NULL, NULL);
	put(h, "v", 20, NULL, object);
	snprintf(path, sizeof(path), "%s/store/%s", h->s.path, object);
	flip_byte(path, -5);
	put(h, "v", 30, NULL, object);
	assert_int_equal(warm_catalog_list(&c, h->store, &key, false, NULL, NULL), 0);
	snprintf(path, sizeof(path), "%s/store/%s", h->s.path, object);
	assert_int_equal(unlink(path), 0); /* deleted since the LIST */
	assert_int_equal(warm_catalog_read(&c, h->store, &h->notices, NULL, NULL), 0);
	assert_int_equal(c.refused, 2);
	assert_null(c.layers[0].index);
	assert_null(c.layers[1].index);
	assert_non_null(c.layers[2].index);
	assert_non_null(strstr(h->heard.text, "layer-gone"));
	assert_non_null(strstr(h->heard.text, "layer-refused"));
	close_house(h);
}

TEST(the_newest_mark_of_what_counts_is_the_keys)
{
	struct house *h = open_house();
	struct warm_key key = key_of("m", "v");
	scope_catalog struct warm_catalog c = { 0 };

	put(h, "v", 10, "old", NULL);
	put(h, "v", 20, "new", NULL);
	put(h, "v", 30, NULL, NULL);
	assert_int_equal(warm_catalog_list(&c, h->store, &key, false, NULL, NULL), 0);
	assert_int_equal(warm_catalog_read(&c, h->store, NULL, NULL, NULL), 0);
	assert_string_equal(warm_catalog_complete(&c), "new");
	close_house(h);
}

TEST(keys_are_listed_newest_first)
{
	struct house *h = open_house();
	struct warm_listed_key *keys = NULL;
	size_t n = 0;

	put(h, "v1", 10, NULL, NULL);
	put(h, "v2", 30, NULL, NULL);
	put(h, "v1", 20, NULL, NULL);
	put(h, "", 25, NULL, NULL);
	assert_int_equal(warm_catalog_keys(h->store, "m/", &keys, &n, NULL, NULL, NULL), 0);
	assert_int_equal(n, 3);
	assert_string_equal(keys[0].key.version, "v2");
	assert_string_equal(keys[1].key.version, "");
	assert_string_equal(keys[2].key.version, "v1");
	assert_int_equal(keys[2].n_layers, 2);
	assert_int_equal(keys[2].newest.ms, 20);
	assert_true(keys[2].bytes > 0);
	free(keys);
	assert_int_equal(warm_catalog_keys(h->store, "", &keys, &n, NULL, NULL, NULL), 0);
	assert_int_equal(n, 3);
	free(keys);
	close_house(h);
}

TEST(a_canceled_read_says_so)
{
	struct house *h = open_house();
	struct warm_key key = key_of("m", "v");
	scope_catalog struct warm_catalog c = { 0 };
	atomic_bool cancel = true;
	struct warm_call call = { .cancel = &cancel };
	struct warm_error err = { 0 };

	put(h, "v", 10, NULL, NULL);
	assert_int_equal(warm_catalog_list(&c, h->store, &key, false, NULL, NULL), 0);
	assert_int_equal(warm_catalog_read(&c, h->store, NULL, &call, &err), WARM_CANCELED);
	assert_int_equal(err.status, WARM_CANCELED);
	close_house(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(layers_are_listed_newest_first_and_of_their_key_alone),
		cmocka_unit_test(a_store_that_is_not_there_lists_nothing),
		cmocka_unit_test(an_index_that_was_read_is_kept_when_the_key_is_listed_anew),
		cmocka_unit_test(a_layer_that_cannot_be_used_is_left_out_with_a_notice),
		cmocka_unit_test(the_newest_mark_of_what_counts_is_the_keys),
		cmocka_unit_test(keys_are_listed_newest_first),
		cmocka_unit_test(a_canceled_read_says_so),
	};

	return RUN(tests);
}
