/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <fcntl.h>

#include "lib/layer/key.h"

static const struct warm_layer_name some_name = { .kind = WARM_LAYER,
						  .id = { 1700000000000, 0xabc },
						  .index_bytes = 725,
						  .digest = { 0xde, 0xad } };

TEST(parts_that_are_no_names_are_refused)
{
	static const char *const parts[] = { "a/b", "/", ".", "..", "a\nb", "\x01", "a\x7f" };
	char long_part[130];
	struct warm_key key = { 0 };
	struct warm_error err = { 0 };

	for (size_t i = 0; i < COUNT(parts); i++) {
		assert_int_equal(warm_key_init(&key, parts[i], "v", "p", &err), WARM_INVALID);
		assert_non_null(strstr(err.msg, "model"));
		assert_int_equal(warm_key_init(&key, "m", parts[i], "p", &err), WARM_INVALID);
		assert_non_null(strstr(err.msg, "version"));
		assert_int_equal(warm_key_init(&key, "m", "v", parts[i], &err), WARM_INVALID);
		assert_non_null(strstr(err.msg, "platform"));
	}
	memset(long_part, 'x', 129);
	long_part[129] = '\0';
	assert_int_equal(warm_key_init(&key, long_part, "v", "p", &err), WARM_INVALID);
	long_part[128] = '\0';
	assert_int_equal(warm_key_init(&key, long_part, "v", "p", &err), 0);
}

TEST(an_automatic_platform_is_the_machine)
{
	struct warm_key a, b, c;

	assert_int_equal(warm_key_init(&a, "m", "v", "auto", NULL), 0);
	assert_int_equal(warm_key_init(&b, "m", NULL, NULL, NULL), 0);
	assert_int_equal(warm_key_init(&c, NULL, "v", "", NULL), 0);
	assert_string_equal(a.platform, b.platform);
	assert_string_equal(a.platform, c.platform);
	assert_string_not_equal(a.platform, "auto");
	assert_string_equal(b.version, "");
	assert_string_equal(c.model, "");
}

static const struct {
	const char *model, *version, *platform, *prefix;
} spellings[] = {
	{ "m", "v", "p", "m/v/p/" },
	{ "llama-3.1_70B+x=1", "1.0", "x86_64", "llama-3.1_70B+x=1/1.0/x86_64/" },
	{ "", "", "p", "_/_/p/" },
	{ "_", "__", "p", "%5F/__/p/" },
	{ ".hidden", "..x", "p", "%2Ehidden/%2E.x/p/" },
	{ "a b", "50%", "p:q@r", "a%20b/50%25/p%3Aq%40r/" },
	{ "\303\274", "\xff", "p", "%C3%BC/%FF/p/" },
};

TEST(object_names_are_spelled_one_way_and_read_back)
{
	for (size_t i = 0; i < COUNT(spellings); i++) {
		struct warm_key key, back;
		struct warm_layer_name name;
		char prefix[WARM_NAME_BYTES], object[WARM_NAME_BYTES];
		assert_int_equal(warm_key_init(&key, spellings[i].model, spellings[i].version,
					       spellings[i].platform, NULL),
				 0);
		warm_key_prefix(&key, prefix);
		assert_string_equal(prefix, spellings[i].prefix);
		warm_layer_name_format(&key, &some_name, object);
		assert_true(strncmp(object, prefix, strlen(prefix)) == 0);
		assert_int_equal(warm_layer_name_parse(object, &back, &name, NULL), 0);
		assert_true(warm_key_equal(&key, &back));
		assert_int_equal(name.kind, some_name.kind);
		assert_int_equal(warm_id_compare(name.id, some_name.id), 0);
		assert_int_equal(name.index_bytes, some_name.index_bytes);
		assert_memory_equal(name.digest, some_name.digest, 32);
	}
}

TEST(random_keys_are_read_back)
{
	for (uint64_t seed = 0; seed < 2000; seed++) {
		struct dice d = { seed };
		char parts[3][WARM_KEY_PART_BYTES];
		struct warm_key key, back;
		struct warm_layer_name name;
		char object[WARM_NAME_BYTES];
		for (size_t p = 0; p < 3; p++) {
			size_t n = roll_below(&d, seed % 2 == 0 ? 4 : WARM_KEY_PART_BYTES);
			for (size_t i = 0; i < n; i++)
				parts[p][i] = (char)(1 + roll_below(&d, 255));
			parts[p][n] = '\0';
		}
		if (warm_key_init(&key, parts[0], parts[1], parts[2], NULL) != 0)
			continue;
		warm_layer_name_format(&key, &some_name, object);
		assert_int_equal(warm_layer_name_parse(object, &back, &name, NULL), 0);
		assert_true(warm_key_equal(&key, &back));
	}
}

#define DIGEST "dead000000000000000000000000000000000000000000000000000000000000"

TEST(names_that_are_no_layers_are_refused)
{
	static const char *const names[] = {
		"",
		"m",
		"m/v/p",
		"m/v/p/",
		"m/v/p/head",
		"m/v/L-1-0000000000000abc-1-" DIGEST ".tar.zst",
		"x/m/v/p/L-1-0000000000000abc-1-" DIGEST ".tar.zst",
		"/v/p/L-1-0000000000000abc-1-" DIGEST ".tar.zst",
		"m/v/p/X-1-0000000000000abc-1-" DIGEST ".tar.zst",
		"m/v/p/L-0-0000000000000abc-1-" DIGEST ".tar.zst",
		"m/v/p/L-01-0000000000000abc-1-" DIGEST ".tar.zst",
		"m/v/p/L--1-0000000000000abc-1-" DIGEST ".tar.zst",
		"m/v/p/L-99999999999999999999-0000000000000abc-1-" DIGEST ".tar.zst",
		"m/v/p/L-1-abc-1-" DIGEST ".tar.zst",
		"m/v/p/L-1-0000000000000ABC-1-" DIGEST ".tar.zst",
		"m/v/p/L-1-0000000000000abc-4294967296-" DIGEST ".tar.zst",
		"m/v/p/L-1-0000000000000abc--" DIGEST ".tar.zst",
		"m/v/p/L-1-0000000000000abc-+1-" DIGEST ".tar.zst",
		"m/v/p/L-1-0000000000000abc-1-" DIGEST ".tar.zstd",
		"m/v/p/L-1-0000000000000abc-1-" DIGEST "0.tar.zst",
		"m/v/p/L-1-0000000000000abc-1-" DIGEST ".tar.zst/x",
		/* another spelling of a part */
		"%6D/v/p/L-1-0000000000000abc-1-" DIGEST ".tar.zst",
		"m%20/v/%70/L-1-0000000000000abc-1-" DIGEST ".tar.zst",
		"m%2f/v/p/L-1-0000000000000abc-1-" DIGEST ".tar.zst",
		"m%/v/p/L-1-0000000000000abc-1-" DIGEST ".tar.zst",
		"m%2/v/p/L-1-0000000000000abc-1-" DIGEST ".tar.zst",
		"m%00/v/p/L-1-0000000000000abc-1-" DIGEST ".tar.zst",
		"m b/v/p/L-1-0000000000000abc-1-" DIGEST ".tar.zst",
		".m/v/p/L-1-0000000000000abc-1-" DIGEST ".tar.zst",
	};
	struct warm_key key;
	struct warm_layer_name name;

	for (size_t i = 0; i < COUNT(names); i++)
		if (warm_layer_name_parse(names[i], &key, &name, NULL) != WARM_INVALID)
			fail_msg("taken: %s", names[i]);
	assert_int_equal(warm_layer_name_parse("m/v/p/B-1-0000000000000abc-1-" DIGEST ".tar.zst",
					       &key, &name, NULL),
			 0);
}

TEST(names_of_parts_that_no_key_can_have_are_refused)
{
	/* '/', "..", "." and control characters are no parts, however they are spelled. */
	static const char *const names[] = {
		"a%2Fb/v/p/L-1-0000000000000abc-1-" DIGEST ".tar.zst",
		"%2E./v/p/L-1-0000000000000abc-1-" DIGEST ".tar.zst",
		"%2E/v/p/L-1-0000000000000abc-1-" DIGEST ".tar.zst",
		"m/v%0A/p/L-1-0000000000000abc-1-" DIGEST ".tar.zst",
	};
	struct warm_key key;
	struct warm_layer_name name;

	for (size_t i = 0; i < COUNT(names); i++)
		if (warm_layer_name_parse(names[i], &key, &name, NULL) != WARM_INVALID)
			fail_msg("taken: %s", names[i]);
}

TEST(every_key_gives_names_that_a_store_takes)
{
	char part[129];
	struct warm_key key;
	char object[WARM_NAME_BYTES];

	/* 128 bytes of UTF-8 are 384 when encoded; a file name has 255. */
	for (size_t i = 0; i < 128; i += 2)
		memcpy(part + i, "\303\274", 2);
	part[128] = '\0';
	if (warm_key_init(&key, part, "v", "p", NULL) != 0)
		return; /* refused at once, where its user sees it: as good */
	warm_layer_name_format(&key, &some_name, object);
	assert_int_equal(warm_path_check(object, strlen(object), NULL), 0);
}

TEST(ids_are_ordered_by_time_and_then_by_chance)
{
	struct warm_id a = { 1, 9 }, b = { 2, 1 }, c = { 2, 2 }, none = { 0, 0 };

	assert_true(warm_id_compare(a, b) < 0);
	assert_true(warm_id_compare(b, c) < 0);
	assert_true(warm_id_compare(c, a) > 0);
	assert_int_equal(warm_id_compare(b, b), 0);
	assert_true(warm_id_is_none(none));
	assert_false(warm_id_is_none(a));
}

TEST(a_new_id_comes_after_the_newest_and_not_before_now)
{
	struct warm_id none = { 0, 0 }, newest = { 5000, UINT64_MAX };

	assert_int_equal(warm_id_new(none, 1234).ms, 1234);
	assert_int_equal(warm_id_new(newest, 1234).ms, 5001);
	assert_int_equal(warm_id_new(newest, 5000).ms, 5001);
	assert_int_equal(warm_id_new(newest, 6000).ms, 6000);
	assert_true(warm_id_new(none, -5).ms >= 1);
	assert_true(warm_id_new(none, 1).random != warm_id_new(none, 1).random);
}

TEST(an_id_after_any_that_is_read_can_be_read)
{
	/* One layer of a writer without a clock must not hide all that come after it. */
	struct warm_id newest, back;
	char text[WARM_ID_BYTES];
	static const char largest[] = "9007199254740992-0000000000000001"; /* 2^53 */

	if (warm_id_parse(largest, strlen(largest), &newest) != 0)
		return;
	warm_id_text(warm_id_new(newest, 1700000000000), text);
	assert_int_equal(warm_id_parse(text, strlen(text), &back), 0);
}

TEST(ids_are_read_back)
{
	for (uint64_t seed = 0; seed < 1000; seed++) {
		struct dice d = { seed };
		struct warm_id id = { 1 + roll(&d) % (UINT64_C(1) << 53), roll(&d) }, back;
		char text[WARM_ID_BYTES];
		warm_id_text(id, text);
		assert_int_equal(warm_id_parse(text, strlen(text), &back), 0);
		assert_int_equal(warm_id_compare(id, back), 0);
		assert_int_equal(warm_id_parse(text, strlen(text) - 1, &back), WARM_INVALID);
	}
}

TEST(keys_are_told_to_people_as_they_were_given)
{
	struct warm_key key = key_of("my model", "v 1");
	char text[3 * WARM_KEY_PART_BYTES + 3];

	assert_string_equal(warm_key_text(&key, text), "my model/v 1/test");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parts_that_are_no_names_are_refused),
		cmocka_unit_test(an_automatic_platform_is_the_machine),
		cmocka_unit_test(object_names_are_spelled_one_way_and_read_back),
		cmocka_unit_test(random_keys_are_read_back),
		cmocka_unit_test(names_that_are_no_layers_are_refused),
		cmocka_unit_test(names_of_parts_that_no_key_can_have_are_refused),
		cmocka_unit_test(every_key_gives_names_that_a_store_takes),
		cmocka_unit_test(ids_are_ordered_by_time_and_then_by_chance),
		cmocka_unit_test(a_new_id_comes_after_the_newest_and_not_before_now),
		cmocka_unit_test(an_id_after_any_that_is_read_can_be_read),
		cmocka_unit_test(ids_are_read_back),
		cmocka_unit_test(keys_are_told_to_people_as_they_were_given),
	};

	return RUN(tests);
}
