/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <time.h>

#include "lib/base/clock.h"
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

/* ---- repeats ---- */

enum { LONG = 3600 * 1000 };

struct capture {
	struct scratch s;
	int saved;
};

static struct capture capture_begin(void)
{
	struct capture c = { scratch_open(), dup(STDERR_FILENO) };
	scope_close int fd = openat(c.s.fd, "log", O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	assert_true(c.saved >= 0 && fd >= 0);
	assert_true(dup2(fd, STDERR_FILENO) >= 0);
	warm_log_setup("test", false, WARM_LOG_DEBUG);
	return c;
}

/* What was written; the caller frees it. */
static char *capture_end(struct capture *c)
{
	assert_true(dup2(c->saved, STDERR_FILENO) >= 0);
	close(c->saved);
	warm_log_repeats(0);
	char *text = text_of(c->s.fd, "log", NULL);
	scratch_close(&c->s);
	return text;
}

static size_t count_of(const char *text, const char *what)
{
	size_t n = 0;

	for (const char *p = text; (p = strstr(p, what)) != NULL; p += strlen(what))
		n++;
	return n;
}

static void wait_ms(long ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&t, NULL);
}

TEST(a_warning_that_says_the_same_is_told_once)
{
	struct capture c = capture_begin();

	warm_log_repeats(LONG);
	for (int i = 0; i < 10; i++)
		warm_log(WARM_LOG_WARN, "same", "the store said no");
	warm_log(WARM_LOG_WARN, "same", "the store said yes");
	warm_log(WARM_LOG_WARN, "different", "the store said no");
	scope_free char *text = capture_end(&c);
	assert_int_equal(count_of(text, "same: the store said no\n"), 1);
	assert_int_equal(count_of(text, "same: the store said yes\n"), 1);
	assert_int_equal(count_of(text, "different: the store said no\n"), 1);
	assert_int_equal(count_of(text, "\n"), 3);
}

TEST(numbers_do_not_make_a_failure_another)
{
	struct capture c = capture_begin();

	warm_log_repeats(LONG);
	for (int i = 0; i < 10; i++)
		warm_log(WARM_LOG_ERROR, "publish-failed", "%d groups of %d bytes after 0x%x", i,
			 i * 1000, i);
	scope_free char *text = capture_end(&c);
	assert_int_equal(count_of(text, "\n"), 1);
	assert_non_null(strstr(text, "publish-failed: 0 groups of 0 bytes after 0x0\n"));
}

TEST(what_is_no_failure_is_a_repeat_only_word_for_word)
{
	static const char *const events[] = { "left-out", "failed",	    "publish-failed-not",
					      "-faile",	  "publish_failed", "" };
	struct capture c = capture_begin();

	warm_log_repeats(LONG);
	for (size_t e = 0; e < COUNT(events); e++)
		for (int i = 0; i < 10; i++)
			warm_log(WARM_LOG_WARN, events[e], "%d groups, layer %016x", i % 5, i % 5);
	/* The end alone is one, too. */
	for (int i = 0; i < 10; i++)
		warm_log(WARM_LOG_WARN, "-failed", "%d tries", i);
	scope_free char *text = capture_end(&c);
	assert_int_equal(count_of(text, " groups, layer "), COUNT(events) * 5);
	assert_int_equal(count_of(text, " tries"), 1);
}

TEST(units_and_ids_are_numbers_and_names_with_digits_are_not)
{
	static const char *const same[] = { "a 5ms b 12MB c 0123456789abcdef d",
					    "a 70s b 1 c deadbeefdeadbeef d",
					    "a 123 b 7K c 00000000 d" };
	static const char *const different[] = { "layer sm_80",	  "layer sm_90", "layer v1model",
						 "layer v2model", "layer abc",	 "layer abd" };
	struct capture c = capture_begin();

	warm_log_repeats(LONG);
	for (size_t i = 0; i < COUNT(same); i++)
		warm_log(WARM_LOG_WARN, "units-failed", "%s", same[i]);
	for (size_t i = 0; i < COUNT(different); i++)
		warm_log(WARM_LOG_WARN, "names-failed", "%s", different[i]);
	scope_free char *text = capture_end(&c);
	assert_int_equal(count_of(text, " units-failed: "), 1);
	assert_int_equal(count_of(text, " names-failed: "), COUNT(different));
}

TEST(what_is_no_warning_is_always_told)
{
	struct capture c = capture_begin();

	warm_log_repeats(LONG);
	for (int i = 0; i < 10; i++) {
		warm_log(WARM_LOG_INFO, "status", "all is well");
		warm_log(WARM_LOG_DEBUG, "detail", "all is well");
	}
	scope_free char *text = capture_end(&c);
	assert_int_equal(count_of(text, "\n"), 20);
}

TEST(the_next_one_tells_how_many_were_left_out)
{
	struct capture c = capture_begin();

	warm_log_repeats(1000);
	for (int i = 0; i < 5; i++)
		warm_log(WARM_LOG_WARN, "count-failed", "try %d failed", i);
	wait_ms(1050);
	warm_log(WARM_LOG_WARN, "count-failed", "try %d failed", 6);
	wait_ms(1050);
	warm_log(WARM_LOG_WARN, "count-failed", "try %d failed", 7);
	scope_free char *text = capture_end(&c);
	assert_int_equal(count_of(text, "\n"), 3);
	assert_non_null(strstr(text, "try 0 failed\n"));
	assert_non_null(strstr(text, "try 6 failed (4 more like it before)\n"));
	assert_non_null(strstr(text, "try 7 failed\n")); /* none since */
}

TEST(a_long_line_is_counted_too)
{
	struct capture c = capture_begin();
	char line[4000];

	memset(line, 'l', sizeof(line));
	line[sizeof(line) - 1] = '\0';
	warm_log_repeats(LONG);
	for (int i = 0; i < 3; i++)
		warm_log(WARM_LOG_WARN, "long", "%s", line);
	scope_free char *text = capture_end(&c);
	assert_int_equal(count_of(text, "\n"), 1);
}

TEST(zero_tells_all_again)
{
	struct capture c = capture_begin();

	warm_log_repeats(LONG);
	warm_log(WARM_LOG_WARN, "zero", "x");
	warm_log(WARM_LOG_WARN, "zero", "x");
	warm_log_repeats(0);
	for (int i = 0; i < 5; i++)
		warm_log(WARM_LOG_WARN, "zero", "x");
	scope_free char *text = capture_end(&c);
	assert_int_equal(count_of(text, "\n"), 6);
}

static void log_letters(int from, int to)
{
	for (int i = from; i < to; i++)
		warm_log(WARM_LOG_WARN, "letters", "about %c%c", 'a' + i / 26, 'a' + i % 26);
}

TEST(sixty_four_different_lines_are_kept_in_mind)
{
	struct capture c = capture_begin();

	wait_ms(10); /* what was told before is older */
	warm_log_repeats(LONG);
	log_letters(0, 64);
	wait_ms(10);
	log_letters(0, 64);
	scope_free char *text = capture_end(&c);
	assert_int_equal(count_of(text, "\n"), 64);
}

TEST(beyond_sixty_four_the_oldest_is_forgotten_and_told_again)
{
	struct capture c = capture_begin();

	warm_log_repeats(LONG);
	for (int i = 100; i < 164; i++) {
		log_letters(i, i + 1);
		wait_ms(2); /* so that there is an oldest */
	}
	log_letters(164, 165); /* in the place of the first */
	log_letters(101, 165);
	log_letters(100, 101);
	scope_free char *text = capture_end(&c);
	assert_int_equal(count_of(text, "\n"), 66);
}

TEST(many_different_lines_are_all_told)
{
	struct capture c = capture_begin();

	warm_log_repeats(LONG);
	for (int round = 0; round < 3; round++)
		log_letters(200, 600);
	scope_free char *text = capture_end(&c);
	/* Each at least once, and with so many few are in mind. */
	for (int i = 200; i < 600; i++) {
		char line[40];
		snprintf(line, sizeof(line), "about %c%c", 'a' + i / 26, 'a' + i % 26);
		assert_true(count_of(text, line) >= 1);
	}
}

enum { THREADS = 8, LINES_EACH = 2000 };

static void *log_much(void *arg)
{
	for (int i = 0; i < LINES_EACH; i++)
		warm_log(WARM_LOG_WARN, "threads-failed", "thread %d line %d", *(int *)arg, i);
	return NULL;
}

TEST(threads_together_lose_no_count)
{
	struct capture c = capture_begin();
	pthread_t threads[THREADS];
	int ids[THREADS];

	warm_log_repeats(2);
	for (int i = 0; i < THREADS; i++) {
		ids[i] = i;
		assert_int_equal(pthread_create(&threads[i], NULL, log_much, &ids[i]), 0);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	wait_ms(10);
	warm_log(WARM_LOG_WARN, "threads-failed", "thread 9 line 9");
	scope_free char *text = capture_end(&c);
	size_t told = 0, left_out = 0;
	for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
		const char *count = strchr(line, '(');
		told++;
		assert_non_null(strstr(line, " WARN test: threads-failed: thread "));
		left_out += count != NULL ? (size_t)atol(count + 1) : 0;
	}
	assert_int_equal(told + left_out, THREADS * LINES_EACH + 1);
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
		cmocka_unit_test(a_warning_that_says_the_same_is_told_once),
		cmocka_unit_test(numbers_do_not_make_a_failure_another),
		cmocka_unit_test(what_is_no_failure_is_a_repeat_only_word_for_word),
		cmocka_unit_test(units_and_ids_are_numbers_and_names_with_digits_are_not),
		cmocka_unit_test(what_is_no_warning_is_always_told),
		cmocka_unit_test(the_next_one_tells_how_many_were_left_out),
		cmocka_unit_test(a_long_line_is_counted_too),
		cmocka_unit_test(zero_tells_all_again),
		cmocka_unit_test(sixty_four_different_lines_are_kept_in_mind),
		cmocka_unit_test(beyond_sixty_four_the_oldest_is_forgotten_and_told_again),
		cmocka_unit_test(many_different_lines_are_all_told),
		cmocka_unit_test(threads_together_lose_no_count),
	};

	return RUN(tests);
}
