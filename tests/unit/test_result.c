/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <fcntl.h>

#include "lib/sync/result.h"

static json_t *object_of(const char *key, const char *reason)
{
	json_t *o = json_pack("{s:s, s:i, s:b}", "status", "incomplete", "layers", 3, "complete",
			      1);

	assert_non_null(o);
	warm_result_set_text(o, "key", key);
	warm_result_set_text(o, "reason", reason);
	return o;
}

/* The text of it, parsed; not longer than is allowed. */
static json_t *round_trip(const char *key, const char *reason)
{
	char *text = warm_result_text(object_of(key, reason));

	assert_non_null(text);
	if (strlen(text) > WARM_RESULT_BYTES)
		fail_msg("%zu bytes", strlen(text));
	assert_null(strchr(text, '\n'));
	json_t *back = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	if (back == NULL)
		fail_msg("no JSON: %s", text);
	free(text);
	assert_string_equal(json_string_value(json_object_get(back, "status")), "incomplete");
	assert_int_equal(json_integer_value(json_object_get(back, "layers")), 3);
	assert_true(json_is_true(json_object_get(back, "complete")));
	return back;
}

static const char *member(json_t *o, const char *name)
{
	const char *text = json_string_value(json_object_get(o, name));

	assert_non_null(text);
	return text;
}

TEST(what_is_short_is_told_whole)
{
	json_t *o = round_trip("llama/v7/x86_64",
			       "the \"store\" said\nno \\ \303\251 \360\237\230\200");

	assert_string_equal(member(o, "key"), "llama/v7/x86_64");
	assert_string_equal(member(o, "reason"),
			    "the \"store\" said\nno \\ \303\251 \360\237\230\200");
	json_decref(o);
}

TEST(a_long_reason_loses_its_end_and_the_key_stays)
{
	char reason[5000];

	for (size_t n = 800; n < sizeof(reason); n += 37) {
		memset(reason, 'r', n);
		reason[n] = '\0';
		json_t *o = round_trip("llama/v7/x86_64", reason);
		const char *cut = member(o, "reason");
		assert_string_equal(member(o, "key"), "llama/v7/x86_64");
		assert_memory_equal(cut, reason, strlen(cut));
		assert_true(strlen(cut) >= 256);
		json_decref(o);
	}
}

TEST(a_long_key_loses_its_end_when_the_reason_has)
{
	char key[3 * 128 + 3], reason[500];

	memset(key, 'k', sizeof(key));
	key[sizeof(key) - 1] = '\0';
	memset(reason, 'r', sizeof(reason));
	reason[sizeof(reason) - 1] = '\0';
	/* Both fit. */
	json_t *o = round_trip(key, "short");
	assert_string_equal(member(o, "key"), key);
	json_decref(o);
	o = round_trip(key, reason);
	assert_string_equal(member(o, "key"), key);
	json_decref(o);
	/* Quotes take two bytes each. */
	memset(key, '"', sizeof(key) - 1);
	o = round_trip(key, reason);
	assert_true(strlen(member(o, "key")) >= 256);
	json_decref(o);
	char longer[2000];
	memset(longer, 'k', sizeof(longer));
	longer[sizeof(longer) - 1] = '\0';
	o = round_trip(longer, reason);
	assert_int_equal(strlen(member(o, "key")), 256);
	json_decref(o);
}

TEST(text_is_cut_between_its_characters)
{
	static const char *const characters[] = { "\303\251", "\342\202\254", "\360\237\230\200" };
	char reason[4000], key[1600];

	for (size_t i = 0; i < COUNT(characters); i++) {
		size_t n = strlen(characters[i]);
		for (size_t shift = 0; shift < 4; shift++) {
			memset(reason, 'x', shift);
			for (size_t at = shift; at + n < sizeof(reason); at += n) {
				memcpy(reason + at, characters[i], n);
				reason[at + n] = '\0';
			}
			memcpy(key, reason, sizeof(key));
			key[shift + n * 300] = '\0';
			json_t *o = round_trip(key, reason);
			const char *cut = member(o, "reason");
			assert_int_equal((strlen(cut) - shift) % n, 0);
			assert_true(strlen(cut) > 0);
			cut = member(o, "key");
			assert_int_equal((strlen(cut) - shift) % n, 0);
			json_decref(o);
		}
	}
}

TEST(control_characters_that_take_six_bytes_each_fit_too)
{
	char reason[1000];

	memset(reason, '\1', sizeof(reason));
	reason[sizeof(reason) - 1] = '\0';
	json_t *o = round_trip("llama/v7/x86_64", reason);
	assert_true(strlen(member(o, "reason")) >= 64);
	json_decref(o);
}

TEST(an_object_that_is_too_long_by_itself_is_cut)
{
	json_t *o = object_of("k", "r");
	char name[40];

	for (int i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "profile_%d", i);
		json_object_set_new(o, name, json_integer(i));
	}
	char *text = warm_result_text(o);
	assert_non_null(text);
	assert_true(strlen(text) <= WARM_RESULT_BYTES);
	free(text);
	/* And so is one that has no texts at all. */
	o = json_object();
	for (int i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "profile_%d", i);
		json_object_set_new(o, name, json_integer(i));
	}
	text = warm_result_text(o);
	assert_non_null(text);
	assert_int_equal(strlen(text), WARM_RESULT_BYTES);
	free(text);
}

TEST(text_that_is_no_utf8_is_told_as_far_as_it_can_be)
{
	json_t *o = round_trip("mod\377el/\303/x", "caf\351 \200");

	assert_string_equal(member(o, "key"), "mod?el/?/x");
	assert_string_equal(member(o, "reason"), "caf? ?");
	json_decref(o);
	char bytes[3000];
	memset(bytes, '\377', sizeof(bytes));
	bytes[sizeof(bytes) - 1] = '\0';
	o = round_trip(bytes, bytes);
	assert_true(strlen(member(o, "reason")) > 0);
	assert_int_equal(strspn(member(o, "reason"), "?"), strlen(member(o, "reason")));
	json_decref(o);
}

TEST(whatever_the_texts_the_result_is_json)
{
	struct dice d = { 11 };

	for (int round = 0; round < 3000; round++) {
		char texts[2][700];
		for (int k = 0; k < 2; k++) {
			size_t n = roll_below(&d, k == 0 ? 385 : sizeof(texts[k]));
			unsigned kind = (unsigned)roll_below(&d, 3);
			for (size_t i = 0; i < n; i++)
				do
					texts[k][i] = (char)(kind == 0	 ? roll(&d)
							     : kind == 1 ? 0x20 + roll_below(&d, 95)
									 : 1 + roll_below(&d, 40));
				while (texts[k][i] == '\0' ||
				       (k == 0 && (unsigned char)texts[k][i] < 0x20));
			texts[k][n] = '\0';
		}
		json_decref(round_trip(texts[0], texts[1]));
	}
}

TEST(a_result_is_written_in_place)
{
	struct scratch s = scratch_open();
	const char *path = scratch_path(&s, "log");

	assert_int_equal(warm_result_write(path, "first, and longer", NULL), 0);
	assert_file(s.fd, "log", "first, and longer");
	ino_t before = stat_of(s.fd, "log").st_ino;
	assert_int_equal(warm_result_write(path, "second", NULL), 0);
	assert_file(s.fd, "log", "second");
	assert_int_equal(stat_of(s.fd, "log").st_ino, before);
	scratch_close(&s);
}

TEST(an_empty_path_writes_nowhere)
{
	struct scratch s = scratch_open();

	assert_int_equal(fchdir(s.fd), 0);
	assert_int_equal(warm_result_write("", "text", NULL), 0);
	char *tree = list_tree(s.fd, false);
	assert_string_equal(tree, "");
	free(tree);
	assert_int_equal(chdir("/"), 0);
	scratch_close(&s);
}

TEST(without_a_termination_log_none_is_made)
{
	if (is_there(AT_FDCWD, "/dev/termination-log")) {
		print_message("# note: this container has a termination log\n");
		return;
	}
	assert_int_equal(warm_result_write(NULL, "text", NULL), 0);
	assert_false(is_there(AT_FDCWD, "/dev/termination-log"));
}

TEST(a_result_that_can_not_be_written_says_where)
{
	struct scratch s = scratch_open();
	struct warm_error err = { 0 };

	assert_int_equal(warm_result_write(scratch_path(&s, "no/log"), "x", &err), WARM_NOT_FOUND);
	assert_non_null(strstr(err.msg, "no/log"));
	put_dir(s.fd, "dir");
	assert_true(warm_result_write(scratch_path(&s, "dir"), "x", &err) < 0);
	assert_non_null(strstr(err.msg, "/dir"));
	assert_int_equal(warm_result_write("/dev/full", "x", &err), WARM_NO_SPACE);
	assert_non_null(strstr(err.msg, "/dev/full"));
	assert_int_equal(warm_result_write("/dev/full", "x", NULL), WARM_NO_SPACE);
	scratch_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_short_is_told_whole),
		cmocka_unit_test(a_long_reason_loses_its_end_and_the_key_stays),
		cmocka_unit_test(a_long_key_loses_its_end_when_the_reason_has),
		cmocka_unit_test(text_is_cut_between_its_characters),
		cmocka_unit_test(control_characters_that_take_six_bytes_each_fit_too),
		cmocka_unit_test(an_object_that_is_too_long_by_itself_is_cut),
		cmocka_unit_test(text_that_is_no_utf8_is_told_as_far_as_it_can_be),
		cmocka_unit_test(whatever_the_texts_the_result_is_json),
		cmocka_unit_test(a_result_is_written_in_place),
		cmocka_unit_test(an_empty_path_writes_nowhere),
		cmocka_unit_test(without_a_termination_log_none_is_made),
		cmocka_unit_test(a_result_that_can_not_be_written_says_where),
	};

	return RUN(tests);
}
