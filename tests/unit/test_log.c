/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <fcntl.h>
#include <jansson.h>

#include "lib/base/log.h"

static void assert_escaped(const char *text, const char *want)
{
	char got[256];

	assert_int_equal(warm_json_escape(text, got, sizeof(got)), strlen(want));
	assert_string_equal(got, want);
}

TEST(text_that_needs_nothing_stays_as_it_is)
{
	assert_escaped("", "");
	assert_escaped("-arch=sm_90 /usr/local 'x' <y> & ~", "-arch=sm_90 /usr/local 'x' <y> & ~");
	/* Two, three and four bytes of UTF-8, the first and last of each length. */
	assert_escaped("\xc2\x80 \xdf\xbf \xe0\xa0\x80 \xef\xbf\xbf \xf0\x90\x80\x80 "
		       "\xf4\x8f\xbf\xbf",
		       "\xc2\x80 \xdf\xbf \xe0\xa0\x80 \xef\xbf\xbf \xf0\x90\x80\x80 "
		       "\xf4\x8f\xbf\xbf");
}

TEST(quotes_backslashes_and_control_characters_are_escaped)
{
	assert_escaped("a\"b\\c", "a\\\"b\\\\c");
	assert_escaped("one\ntwo\ttab\x01\x1f\x7f", "one\\ntwo\\u0009tab\\u0001\\u001f\\u007f");
}

TEST(bytes_that_are_no_utf8_become_code_points)
{
	assert_escaped("\xff", "\\u00ff");
	assert_escaped("a\x80z", "a\\u0080z");	      /* continues nothing */
	assert_escaped("\xc3(", "\\u00c3(");	      /* isn't continued */
	assert_escaped("\xe2\x82", "\\u00e2\\u0082"); /* cut short by the end */
	assert_escaped("\xc0\xaf", "\\u00c0\\u00af"); /* longer than needed */
	assert_escaped("\xe0\x80\xaf", "\\u00e0\\u0080\\u00af");
	assert_escaped("\xed\xa0\x80", "\\u00ed\\u00a0\\u0080"); /* half of a pair of UTF-16 */
	assert_escaped("\xf4\x90\x80\x80", "\\u00f4\\u0090\\u0080\\u0080"); /* too large */
}

TEST(whatever_the_bytes_a_json_reader_takes_the_string)
{
	struct dice d = { 5 };

	for (int round = 0; round < 20000; round++) {
		char text[24], escaped[160], line[200];
		size_t n = roll_below(&d, sizeof(text) - 1);
		for (size_t i = 0; i < n; i++)
			do
				text[i] = (char)(roll_below(&d, 3) == 0 ? roll(&d)
									: 0x80 | roll(&d));
			while (text[i] == '\0');
		text[n] = '\0';
		warm_json_escape(text, escaped, sizeof(escaped));
		snprintf(line, sizeof(line), "[\"%s\"]", escaped);
		json_t *json = json_loads(line, 0, NULL);
		if (json == NULL)
			fail_msg("no JSON: %s", line);
		json_decref(json);
	}
}

TEST(a_string_that_does_not_fit_ends_before_what_would_be_cut)
{
	char got[8];

	assert_int_equal(warm_json_escape("abcdefghij", got, sizeof(got)), 7);
	assert_string_equal(got, "abcdefg");
	assert_int_equal(warm_json_escape("abcdef\n", got, sizeof(got)), 6);
	assert_string_equal(got, "abcdef");
	assert_int_equal(warm_json_escape("abcd\x01", got, sizeof(got)), 4);
	assert_string_equal(got, "abcd");
	assert_int_equal(warm_json_escape("abcdef\xc3\xa9", got, sizeof(got)), 6);
	assert_string_equal(got, "abcdef");
	memset(got, 'x', sizeof(got));
	assert_int_equal(warm_json_escape("abc", got, 1), 0);
	assert_int_equal(got[0], 0);
	assert_int_equal(got[1], 'x');
	assert_int_equal(warm_json_escape("abc", got + 1, 0), 0);
	assert_int_equal(got[1], 'x');
}

/* What warm_log() writes to stderr; the caller frees it. */
static char *logged(const struct scratch *s, bool json, const char *text)
{
	scope_close int saved = dup(STDERR_FILENO);
	scope_close int fd = openat(s->fd, "log", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(saved >= 0 && fd >= 0);
	assert_true(dup2(fd, STDERR_FILENO) >= 0);
	warm_log_setup("test", json, WARM_LOG_INFO);
	warm_log(WARM_LOG_DEBUG, "below", "not shown");
	warm_log(WARM_LOG_WARN, "event", "%s", text);
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	return text_of(s->fd, "log", NULL);
}

TEST(a_json_line_gives_back_the_text)
{
	scope_scratch struct scratch s = scratch_open();
	const char *text = "path=\"a\\b\"\nsecond \xc3\xa9";
	scope_free char *line = logged(&s, true, text);
	json_t *json = json_loads(line, 0, NULL);

	assert_non_null(json);
	assert_string_equal(json_string_value(json_object_get(json, "text")), text);
	assert_string_equal(json_string_value(json_object_get(json, "level")), "warn");
	assert_string_equal(json_string_value(json_object_get(json, "program")), "test");
	assert_string_equal(json_string_value(json_object_get(json, "event")), "event");
	json_decref(json);
	assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1); /* one line */
}

TEST(a_text_line_stays_one_line)
{
	scope_scratch struct scratch s = scratch_open();
	scope_free char *line = logged(&s, false, "one\ntwo\x1b[31m");

	assert_non_null(strstr(line, " WARN test: event: one two [31m\n"));
	assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
}

TEST(a_text_too_long_for_a_line_leaves_the_line_whole)
{
	scope_scratch struct scratch s = scratch_open();
	char text[4000];

	memset(text, '\x02', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	scope_free char *line = logged(&s, true, text);
	json_t *json = json_loads(line, 0, NULL);
	assert_non_null(json);
	assert_true(json_string_length(json_object_get(json, "text")) > 100);
	json_decref(json);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_that_needs_nothing_stays_as_it_is),
		cmocka_unit_test(quotes_backslashes_and_control_characters_are_escaped),
		cmocka_unit_test(bytes_that_are_no_utf8_become_code_points),
		cmocka_unit_test(whatever_the_bytes_a_json_reader_takes_the_string),
		cmocka_unit_test(a_string_that_does_not_fit_ends_before_what_would_be_cut),
		cmocka_unit_test(a_json_line_gives_back_the_text),
		cmocka_unit_test(a_text_line_stays_one_line),
		cmocka_unit_test(a_text_too_long_for_a_line_leaves_the_line_whole),
	};

	return RUN(tests);
}
