/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include "compiler/cacheable.h"

static struct warm_kernel_text options[3];
static struct warm_wire_header headers[2];

static struct warm_wire_request sound(void)
{
	options[0] = warm_text_of("-arch=sm_90");
	options[1] = warm_text_of("-std=c++17");
	headers[0] = (struct warm_wire_header){ warm_text_of("a.h"), warm_text_of("int a;\n") };
	headers[1] = (struct warm_wire_header){ warm_text_of("b.h"), warm_text_of("int b;\n") };
	return (struct warm_wire_request){
		.name = warm_text_of("k.cu"),
		.source = warm_text_of("__global__ void k() {}\n"),
		.options = options,
		.n_options = 2,
		.headers = headers,
		.n_headers = 2,
	};
}

static void assert_reason(const struct warm_wire_request *q, const char *environment,
			  enum warm_kernel_reason want, const char *word)
{
	char why[WARM_WHY_BYTES] = "";
	enum warm_kernel_reason got = warm_request_reason(q, environment, why);

	if (got != want)
		fail_msg("%s: reason %d, wanted %d (%s)", word, (int)got, (int)want, why);
	if (want != WARM_KERNEL_CACHEABLE && strstr(why, word) == NULL)
		fail_msg("'%s' doesn't say '%s'", why, word);
}

TEST(an_ordinary_program_may_be_cached)
{
	struct warm_wire_request q = sound(), empty = { 0 };

	assert_reason(&q, "", WARM_KERNEL_CACHEABLE, "");
	empty.name = empty.source = warm_text_of("");
	assert_reason(&empty, "", WARM_KERNEL_CACHEABLE, "");
}

TEST(options_that_nobody_can_trace_are_named)
{
	static const char *const untraceable[] = {
		"--time=/tmp/t.csv",
		"-time=x",
		"--fdevice-time-trace=x",
		"-fdevice-time-trace",
		"-Xcudafe=--x",
		"-Xcudafe",
		"--Xcudafe",
		"--pch",
		"-pch",
		"--pch-dir=/tmp",
		"--pch-verbose=true",
		"--create-pch=a",
		"-create-pch=a",
		"--use-pch=a",
		"-use-pch",
		"--use-bundled-headers",
		"-use-bundled-headers=true",
	};

	for (size_t i = 0; i < COUNT(untraceable); i++) {
		struct warm_wire_request q = sound();
		options[i % 2] = warm_text_of(untraceable[i]); /* wherever it stands */
		assert_true(warm_option_is_untraceable(options[i % 2]));
		assert_reason(&q, "", WARM_KERNEL_BY_OPTION, untraceable[i]);
	}
}

TEST(options_that_only_look_like_those_may_be_cached)
{
	static const char *const fine[] = { "-DXcudafe", "-DT=time", "--std=c++20", "-I--pch",
					    "-DX=--time" };

	for (size_t i = 0; i < COUNT(fine); i++) {
		struct warm_wire_request q = sound();
		options[1] = warm_text_of(fine[i]);
		assert_false(warm_option_is_untraceable(options[1]));
		assert_reason(&q, "", WARM_KERNEL_CACHEABLE, fine[i]);
	}
}

TEST(a_program_that_tells_the_time_is_told_wherever_it_says_so)
{
	static const char *const words[] = { "__TIME__", "__DATE__", "__TIMESTAMP__" };

	for (size_t i = 0; i < COUNT(words); i++) {
		char text[80];
		snprintf(text, sizeof(text), "const char *t = %s;", words[i]);
		struct warm_wire_request q = sound();
		q.source = warm_text_of(text);
		assert_reason(&q, "", WARM_KERNEL_BY_TIME, "the source");
		q = sound();
		headers[1].source = warm_text_of(text);
		assert_reason(&q, "", WARM_KERNEL_BY_TIME, "header b.h");
		q = sound();
		snprintf(text, sizeof(text), "-DT=%s", words[i]);
		options[1] = warm_text_of(text);
		assert_reason(&q, "", WARM_KERNEL_BY_TIME, text);
	}
	struct warm_wire_request q = sound();
	q.source = warm_text_of("int x = __TIME; int y = TIME__; int z = __LINE__; // __DATE_");
	assert_reason(&q, "", WARM_KERNEL_CACHEABLE, "");
}

TEST(flags_from_the_environment_are_not_looked_into)
{
	struct warm_wire_request q = sound();

	assert_reason(&q, "NVRTC_APPEND_FLAGS=-G\n", WARM_KERNEL_BY_ENVIRONMENT,
		      "NVRTC_APPEND_FLAGS is set");
	assert_reason(&q, "EDG_BASE=/x\nNVRTC_PREPEND_FLAGS=-G\n", WARM_KERNEL_BY_ENVIRONMENT,
		      "NVRTC_PREPEND_FLAGS is set");
	assert_reason(&q, "NVRTC_APPEND_FLAGS=-G", WARM_KERNEL_BY_ENVIRONMENT,
		      "NVRTC_APPEND_FLAGS is set");
	/* Empty ones add no flag; a value isn't a variable; others are part of the key. */
	assert_reason(&q, "NVRTC_APPEND_FLAGS=\nNVRTC_PREPEND_FLAGS=\n", WARM_KERNEL_CACHEABLE, "");
	assert_reason(&q, "EDG_BASE=NVRTC_APPEND_FLAGS=-G\n", WARM_KERNEL_CACHEABLE, "");
	assert_reason(&q, "NVRTCWIZ=1\nNV_NVVM_VERSION=2\n", WARM_KERNEL_CACHEABLE, "");
}

TEST(a_text_of_any_length_is_cut_to_the_reason)
{
	char text[3000];
	struct warm_wire_request q = sound();

	memset(text, 'x', sizeof(text));
	memcpy(text, "--pch", 5);
	text[sizeof(text) - 1] = '\0';
	options[0] = warm_text_of(text);
	assert_reason(&q, "", WARM_KERNEL_BY_OPTION, "option --pchxxx");
	memcpy(text, "-DT=__TIME__", 12);
	options[0] = warm_text_of(text);
	assert_reason(&q, "", WARM_KERNEL_BY_TIME, "option -DT=__TIME__");
	q = sound();
	memset(text, 'h', 12);
	headers[0].name = warm_text_of(text);
	headers[0].source = warm_text_of("__DATE__");
	assert_reason(&q, "", WARM_KERNEL_BY_TIME, "header hhh");
}

TEST(texts_are_looked_through_within_their_bytes)
{
	struct warm_kernel_text text = { "ab__TIME__cd", 5 };

	assert_false(warm_text_tells_time(text));
	text.bytes = 10;
	assert_true(warm_text_tells_time(text));
	assert_true(warm_text_starts_with(text, "ab__"));
	assert_false(warm_text_starts_with((struct warm_kernel_text){ "--pch", 3 }, "--pch"));
	assert_true(warm_text_contains(text, "TIME"));
	assert_false(warm_text_contains(text, "cd"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_ordinary_program_may_be_cached),
		cmocka_unit_test(options_that_nobody_can_trace_are_named),
		cmocka_unit_test(options_that_only_look_like_those_may_be_cached),
		cmocka_unit_test(a_program_that_tells_the_time_is_told_wherever_it_says_so),
		cmocka_unit_test(flags_from_the_environment_are_not_looked_into),
		cmocka_unit_test(a_text_of_any_length_is_cut_to_the_reason),
		cmocka_unit_test(texts_are_looked_through_within_their_bytes),
	};

	return RUN(tests);
}
