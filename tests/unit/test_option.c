/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <fcntl.h>

#include "lib/base/option.h"

/* List items that come from the environment live for ever, as option.h says. */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:set_from_env";
}

static struct {
	const char *string;
	struct warm_option_list list;
	bool flag;
	uint64_t count, bytes;
	int64_t duration;
	const char *choice;
} v;

static const struct warm_option rows[] = {
	{ "string", "WARM_TEST_STRING", WARM_OPTION_STRING, &v.string, "initial", "TEXT",
	  "A text." },
	{ "list", "WARM_TEST_LIST", WARM_OPTION_LIST, &v.list, NULL, "ITEM", "Items." },
	{ "flag", "WARM_TEST_FLAG", WARM_OPTION_BOOL, &v.flag, "false", NULL, "A flag." },
	{ "count", "WARM_TEST_COUNT", WARM_OPTION_COUNT, &v.count, "7", "N", "A number." },
	{ "bytes", NULL, WARM_OPTION_BYTES, &v.bytes, "1K", "SIZE", "A size." },
	{ "duration", "WARM_TEST_DURATION", WARM_OPTION_DURATION, &v.duration, "5s", "TIME",
	  "A time." },
	{ "choice", "WARM_TEST_CHOICE", WARM_OPTION_CHOICE, &v.choice, "one", "one|two|three",
	  "A choice." },
};

static const struct warm_program program = {
	"warm-test", "tests options", "[OPTIONS] [ARGUMENT]", "Some details.", rows, COUNT(rows)
};

static int parse(enum warm_options_result *ret_result, int *ret_operand, struct warm_error *err,
		 const char *const *args, size_t n)
{
	char *argv[16] = { (char *)(uintptr_t) "warm-test" };

	memset(&v, 0, sizeof(v));
	*err = (struct warm_error){ 0 };
	for (size_t i = 0; i < n; i++)
		argv[i + 1] = (char *)(uintptr_t)args[i];
	return warm_options_parse(&program, (int)n + 1, argv, ret_result, ret_operand, err);
}
#define PARSE(...)                                                           \
	parse(&result, &operand, &err, (const char *const[]){ __VA_ARGS__ }, \
	      sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(const char *))

static enum warm_options_result result;
static int operand;
static struct warm_error err;

static void clear_environment(void)
{
	static const char *const names[] = { "WARM_TEST_STRING",   "WARM_TEST_LIST",
					     "WARM_TEST_FLAG",	   "WARM_TEST_COUNT",
					     "WARM_TEST_DURATION", "WARM_TEST_CHOICE" };

	for (size_t i = 0; i < COUNT(names); i++)
		unsetenv(names[i]);
}

TEST(defaults_hold_where_nothing_else_is_said)
{
	clear_environment();
	assert_int_equal(parse(&result, &operand, &err, NULL, 0), 0);
	assert_int_equal(result, WARM_OPTIONS_RUN);
	assert_string_equal(v.string, "initial");
	assert_int_equal(v.list.n, 0);
	assert_false(v.flag);
	assert_int_equal(v.count, 7);
	assert_int_equal(v.bytes, 1024);
	assert_int_equal(v.duration, 5000);
	assert_string_equal(v.choice, "one");
	assert_int_equal(operand, 1);
}

TEST(a_flag_goes_before_the_environment_and_that_before_the_default)
{
	clear_environment();
	setenv("WARM_TEST_STRING", "environment", 1);
	setenv("WARM_TEST_LIST", "a,b", 1);
	setenv("WARM_TEST_FLAG", "true", 1);
	setenv("WARM_TEST_COUNT", "9", 1);
	assert_int_equal(PARSE("--string=flag", "--list", "c", "--list=d"), 0);
	assert_string_equal(v.string, "flag");
	assert_int_equal(v.list.n, 2);
	assert_string_equal(v.list.items[0], "c");
	assert_string_equal(v.list.items[1], "d");
	assert_true(v.flag);
	assert_int_equal(v.count, 9);
	assert_int_equal(PARSE("--count=3"), 0);
	assert_string_equal(v.string, "environment");
	assert_int_equal(v.list.n, 2);
	assert_string_equal(v.list.items[0], "a");
	assert_int_equal(v.count, 3);
	clear_environment();
}

TEST(operands_are_left_to_the_caller_wherever_they_stand)
{
	clear_environment();
	assert_int_equal(PARSE("--flag", "push", "--count=3"), 0);
	assert_int_equal(operand, 3); /* moved behind the flags */
	assert_true(v.flag);
	assert_int_equal(v.count, 3);
	assert_int_equal(PARSE("--flag", "--", "--count=3"), 0);
	assert_int_equal(operand, 3);
	assert_int_equal(v.count, 7);
	assert_int_equal(parse(&result, NULL, &err, (const char *const[]){ "push" }, 1),
			 WARM_INVALID);
	assert_non_null(strstr(err.msg, "push"));
}

TEST(a_bad_value_names_option_source_and_value)
{
	clear_environment();
	assert_int_equal(PARSE("--count=many"), WARM_INVALID);
	assert_non_null(strstr(err.msg, "--count"));
	assert_non_null(strstr(err.msg, "many"));
	setenv("WARM_TEST_DURATION", "soon", 1);
	assert_int_equal(PARSE("--count=5"), WARM_INVALID);
	assert_non_null(strstr(err.msg, "WARM_TEST_DURATION"));
	assert_non_null(strstr(err.msg, "soon"));
	assert_int_equal(v.count, 5); /* what parsed is set all the same */
	assert_int_equal(v.duration, 5000);
	clear_environment();
}

TEST(flags_that_are_not_known_are_named)
{
	clear_environment();
	assert_int_equal(PARSE("--nosuch"), WARM_INVALID);
	assert_non_null(strstr(err.msg, "--nosuch"));
	assert_int_equal(PARSE("--nosuch=3"), WARM_INVALID);
	assert_non_null(strstr(err.msg, "--nosuch"));
	assert_int_equal(PARSE("--count"), WARM_INVALID);
	assert_non_null(strstr(err.msg, "--count"));
	assert_int_equal(PARSE("-x"), WARM_INVALID);
	assert_non_null(strstr(err.msg, "-x"));
}

TEST(short_flags_in_a_bundle_are_named)
{
	clear_environment();
	assert_int_equal(PARSE("--count=3", "-abc"), WARM_INVALID);
	assert_non_null(strstr(err.msg, "-a"));
	assert_null(strstr(err.msg, "--count"));
}

static const struct warm_option *row(const char *name)
{
	for (size_t i = 0; i < COUNT(rows); i++)
		if (strcmp(rows[i].name, name) == 0)
			return &rows[i];
	fail();
	return NULL;
}

TEST(durations_are_read_with_their_units)
{
	static const struct {
		const char *text;
		int64_t ms; /* -1: refused */
	} cases[] = {
		{ "0", 0 },
		{ "30", 30000 },
		{ "30s", 30000 },
		{ "500ms", 500 },
		{ "5m", 300000 },
		{ "1h", 3600000 },
		{ "", -1 },
		{ "s", -1 },
		{ "-1", -1 },
		{ "+1", -1 },
		{ " 1", -1 },
		{ "1 s", -1 },
		{ "1.5s", -1 },
		{ "1d", 86400000 },
		{ "30d", 2592000000 },
		{ "0d", 0 },
		{ "1D", -1 },
		{ "1days", -1 },
		{ "1d12h", -1 },
		{ "26687997791d", 2305843009142400000 }, /* the most: a quarter of what fits */
		{ "26687997792d", -1 },
		{ "1S", -1 },
		{ "0x10", -1 },
		{ "1h30m", -1 },
		{ "99999999999999999999", -1 },
		{ "9223372036854775807h", -1 },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		v.duration = -1;
		int rc = warm_option_set(row("duration"), cases[i].text, NULL);
		if (rc != (cases[i].ms >= 0 ? 0 : WARM_INVALID) || v.duration != cases[i].ms)
			fail_msg("'%s' gives %d, %lld", cases[i].text, rc, (long long)v.duration);
	}
}

TEST(sizes_are_read_with_their_units)
{
	static const struct {
		const char *text;
		uint64_t bytes; /* UINT64_MAX: refused */
	} cases[] = {
		{ "0", 0 },
		{ "1024", 1024 },
		{ "16M", 16 << 20 },
		{ "2G", UINT64_C(2) << 30 },
		{ "1T", UINT64_C(1) << 40 },
		{ "3Ki", 3072 },
		{ "3Mi", 3 << 20 },
		{ "1Gi", 1 << 30 },
		{ "", UINT64_MAX },
		{ "M", UINT64_MAX },
		{ "1m", UINT64_MAX },
		{ "1MB", UINT64_MAX },
		{ "-1", UINT64_MAX },
		{ "1.5G", UINT64_MAX },
		{ "9223372036854775807K", UINT64_MAX },
		{ "18446744073709551616", UINT64_MAX },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		v.bytes = UINT64_MAX;
		int rc = warm_option_set(row("bytes"), cases[i].text, NULL);
		if (rc != (cases[i].bytes != UINT64_MAX ? 0 : WARM_INVALID) ||
		    v.bytes != cases[i].bytes)
			fail_msg("'%s' gives %d, %llu", cases[i].text, rc,
				 (unsigned long long)v.bytes);
	}
}

TEST(flags_counts_and_choices_take_their_values_alone)
{
	static const struct {
		const char *name, *text;
		bool good;
	} cases[] = {
		{ "flag", "true", true },
		{ "flag", "1", true },
		{ "flag", "false", true },
		{ "flag", "0", true },
		{ "flag", "", true },
		{ "flag", "yes", false },
		{ "flag", "TRUE", false },
		{ "count", "0", true },
		{ "count", "18446744073709551615", true },
		{ "count", "1K", false },
		{ "count", "", false },
		{ "count", "-0", false },
		{ "choice", "two", true },
		{ "choice", "three", true },
		{ "choice", "", false },
		{ "choice", "tw", false },
		{ "choice", "twoo", false },
		{ "choice", "one|two", false },
		{ "choice", "Two", false },
	};

	for (size_t i = 0; i < COUNT(cases); i++)
		if ((warm_option_set(row(cases[i].name), cases[i].text, NULL) == 0) !=
		    cases[i].good)
			fail_msg("%s '%s'", cases[i].name, cases[i].text);
}

TEST(a_list_has_its_limit)
{
	v.list.n = 0;
	for (int i = 0; i < WARM_OPTION_LIST_MAX; i++)
		assert_int_equal(warm_option_set(row("list"), "x", NULL), 0);
	assert_int_equal(warm_option_set(row("list"), "x", NULL), WARM_INVALID);
	v.list.n = 0;
}

/* What a call prints on stdout. */
static char *printed(const char *arg, struct scratch *s)
{
	fflush(stdout);
	int saved = dup(STDOUT_FILENO);
	int fd = openat(s->fd, "out", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(saved >= 0 && fd >= 0);
	assert_true(dup2(fd, STDOUT_FILENO) >= 0);
	int rc = PARSE(arg);
	fflush(stdout);
	dup2(saved, STDOUT_FILENO);
	close(saved);
	close(fd);
	assert_int_equal(rc, 0);
	assert_int_equal(result, WARM_OPTIONS_DONE);
	return text_of(s->fd, "out", NULL);
}

TEST(help_names_every_option_in_80_columns)
{
	struct scratch s = scratch_open();
	char *text;

	clear_environment();
	text = printed("--help", &s);
	for (size_t i = 0; i < COUNT(rows); i++) {
		char flag[32];
		snprintf(flag, sizeof(flag), "--%s", rows[i].name);
		assert_non_null(strstr(text, flag));
		assert_non_null(strstr(text, rows[i].help));
	}
	for (const char *line = text; line != NULL;) {
		const char *end = strchr(line, '\n');
		assert_true(end == NULL || end - line <= 80);
		line = end != NULL ? end + 1 : NULL;
	}
	free(text);
	scratch_close(&s);
}

TEST(the_configuration_is_printed_with_its_sources)
{
	struct scratch s = scratch_open();
	char *text;

	clear_environment();
	setenv("WARM_TEST_LIST", "a,b", 1);
	text = printed("--print-config", &s);
	assert_non_null(strstr(text, "string=initial\t# default\n"));
	assert_non_null(strstr(text, "list=a,b\t# environment\n"));
	assert_non_null(strstr(text, "duration=5000ms\t# default\n"));
	assert_non_null(strstr(text, "log-format=text\t# default\n"));
	free(text);
	text = printed("--print-man", &s);
	assert_non_null(strstr(text, ".TH warm-test 1"));
	assert_non_null(strstr(text, "\\-\\-duration"));
	free(text);
	text = printed("--version-info", &s);
	assert_non_null(strstr(text, warm_version));
	free(text);
	clear_environment();
	scratch_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_hold_where_nothing_else_is_said),
		cmocka_unit_test(a_flag_goes_before_the_environment_and_that_before_the_default),
		cmocka_unit_test(operands_are_left_to_the_caller_wherever_they_stand),
		cmocka_unit_test(a_bad_value_names_option_source_and_value),
		cmocka_unit_test(flags_that_are_not_known_are_named),
		cmocka_unit_test(short_flags_in_a_bundle_are_named),
		cmocka_unit_test(durations_are_read_with_their_units),
		cmocka_unit_test(sizes_are_read_with_their_units),
		cmocka_unit_test(flags_counts_and_choices_take_their_values_alone),
		cmocka_unit_test(a_list_has_its_limit),
		cmocka_unit_test(help_names_every_option_in_80_columns),
		cmocka_unit_test(the_configuration_is_printed_with_its_sources),
	};

	return RUN(tests);
}
