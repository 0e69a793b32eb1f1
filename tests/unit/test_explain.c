/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include "lib/kernel/entry.h"

static struct warm_kernel_text t(const char *s)
{
	return (struct warm_kernel_text){ s, strlen(s) };
}

static struct warm_kernel_text options[2][6], expressions[2][2];

static struct warm_kernel_inputs sound(int side)
{
	options[side][0] = t("-arch=sm_90");
	options[side][1] = t("-DX=1");
	options[side][2] = t("-lineinfo");
	expressions[side][0] = t("f<int>");
	expressions[side][1] = t("g");
	return (struct warm_kernel_inputs){ .compiler = t("b:1111 b:2222"),
					    .environment = t("EDG_BASE=/x\nNVRTCWIZ=1\n"),
					    .name = t("k.cu"),
					    .options = options[side],
					    .n_options = 3,
					    .expressions = expressions[side],
					    .n_expressions = 2,
					    .source_bytes = 100,
					    .source_digest = { 3, 4 },
					    .headers_bytes = 50,
					    .n_headers = 2,
					    .headers_digest = { 5, 6 } };
}

static void assert_explained(const struct warm_kernel_inputs *now, unsigned n, const char *text)
{
	struct warm_kernel_inputs was = sound(0);
	scope_buf struct warm_buf out = WARM_BUF_INIT;

	assert_int_equal(warm_kernel_inputs_explain(&was, now, &out), n);
	assert_false(out.failed);
	warm_buf_put_u8(&out, 0);
	assert_string_equal((char *)out.data, text);
	/* It finds a difference where, and only where, the inputs are different. */
	assert_int_equal(n == 0, warm_kernel_inputs_equal(&was, now));
}

TEST(between_equal_inputs_nothing_is_told)
{
	struct warm_kernel_inputs now = sound(1), empty = { 0 };
	scope_buf struct warm_buf out = WARM_BUF_INIT;

	assert_explained(&now, 0, "");
	empty.compiler = empty.environment = empty.name = t("");
	assert_int_equal(warm_kernel_inputs_explain(&empty, &empty, &out), 0);
	assert_int_equal(out.bytes, 0);
}

TEST(an_option_that_changed_is_told_with_both_values)
{
	struct warm_kernel_inputs now = sound(1);

	options[1][1] = t("-DX=2");
	assert_explained(&now, 1, "option 2: -DX=2 was -DX=1");
}

TEST(an_option_that_was_put_in_is_one_difference)
{
	struct warm_kernel_inputs now = sound(1);

	options[1][3] = options[1][2];
	options[1][2] = options[1][1];
	options[1][1] = t("-DNEW");
	now.n_options = 4;
	assert_explained(&now, 1, "option 2: -DNEW is new");
	now = sound(1);
	options[1][3] = t("-G");
	now.n_options = 4;
	assert_explained(&now, 1, "option 4: -G is new");
	now = sound(1);
	options[1][3] = options[1][2]; /* once more what is there */
	now.n_options = 4;
	assert_explained(&now, 1, "option 4: -lineinfo is new");
}

TEST(an_option_that_went_is_one_difference)
{
	struct warm_kernel_inputs now = sound(1);

	now.n_options = 2;
	assert_explained(&now, 1, "option 3: -lineinfo is gone");
	now = sound(1);
	now.options++;
	now.n_options = 2;
	assert_explained(&now, 1, "option 1: -arch=sm_90 is gone");
	now = sound(1);
	now.n_options = 0;
	assert_explained(&now, 3,
			 "option 1: -arch=sm_90 is gone; option 2: -DX=1 is gone; "
			 "option 3: -lineinfo is gone");
}

TEST(another_order_of_options_is_told_place_by_place)
{
	struct warm_kernel_inputs now = sound(1);

	options[1][0] = t("-lineinfo");
	options[1][2] = t("-arch=sm_90");
	assert_explained(&now, 2,
			 "option 1: -lineinfo was -arch=sm_90; option 3: -arch=sm_90 was "
			 "-lineinfo");
}

TEST(name_expressions_are_told_like_options)
{
	struct warm_kernel_inputs now = sound(1);

	expressions[1][0] = t("f<float>");
	assert_explained(&now, 1, "name expression 1: f<float> was f<int>");
	now = sound(1);
	now.n_expressions = 1;
	assert_explained(&now, 1, "name expression 2: g is gone");
}

TEST(a_source_is_told_by_its_size_or_as_other_contents)
{
	struct warm_kernel_inputs now = sound(1);

	now.source_bytes = 120;
	now.source_digest.low = 9;
	assert_explained(&now, 1, "source: 120 bytes were 100");
	now.source_bytes = 100;
	assert_explained(&now, 1, "source: other contents of the same 100 bytes");
	now = sound(1);
	now.source_digest.high = 9;
	assert_explained(&now, 1, "source: other contents of the same 100 bytes");
}

TEST(headers_in_memory_are_told_by_number_size_or_contents)
{
	struct warm_kernel_inputs now = sound(1);

	now.n_headers = 3;
	now.headers_bytes = 70;
	now.headers_digest.low = 9;
	assert_explained(&now, 1, "headers in memory: 3 were 2");
	now.n_headers = 2;
	assert_explained(&now, 1, "headers in memory: 70 bytes were 50");
	now.headers_bytes = 50;
	assert_explained(&now, 1, "headers in memory: other contents of the same 50 bytes");
}

TEST(variables_are_told_as_new_and_gone)
{
	struct warm_kernel_inputs now = sound(1);

	now.environment = t("EDG_BASE=/x\nNVRTCWIZ=1\nNV_NVVM_VERSION=2\n");
	assert_explained(&now, 1, "environment: NV_NVVM_VERSION=2 is new");
	now.environment = t("NVRTCWIZ=1\n");
	assert_explained(&now, 1, "environment: EDG_BASE=/x is gone");
	now.environment = t("EDG_BASE=/x\nNVRTCWIZ=11\n");
	assert_explained(&now, 2,
			 "environment: NVRTCWIZ=11 is new; environment: NVRTCWIZ=1 is gone");
	now.environment = t("");
	assert_explained(&now, 2,
			 "environment: EDG_BASE=/x is gone; environment: NVRTCWIZ=1 is gone");
}

TEST(another_compiler_is_told_apart_from_other_builtins)
{
	struct warm_kernel_inputs now = sound(1);

	now.compiler = t("b:3333 b:2222");
	assert_explained(&now, 1, "libnvrtc: b:3333 was b:1111");
	now.compiler = t("b:1111 h:44");
	assert_explained(&now, 1, "libnvrtc-builtins: h:44 was b:2222");
	now.compiler = t("b:11112 b:2222");
	assert_explained(&now, 1, "libnvrtc: b:11112 was b:1111");
	now.compiler = t("b:5 b:6");
	assert_explained(&now, 2, "libnvrtc: b:5 was b:1111; libnvrtc-builtins: b:6 was b:2222");
	now.compiler = t(""); /* of a line that somebody cut */
	assert_explained(&now, 2, "libnvrtc:  was b:1111; libnvrtc-builtins:  was b:2222");
}

TEST(another_name_is_told)
{
	struct warm_kernel_inputs now = sound(1);

	now.name = t("l.cu");
	assert_explained(&now, 1, "name: l.cu was k.cu");
}

TEST(many_differences_stand_in_one_text)
{
	struct warm_kernel_inputs now = sound(1);

	options[1][0] = t("-arch=sm_80");
	now.source_bytes = 1;
	now.name = t("l.cu");
	assert_explained(&now, 3,
			 "name: l.cu was k.cu; option 1: -arch=sm_80 was -arch=sm_90; "
			 "source: 1 bytes were 100");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(between_equal_inputs_nothing_is_told),
		cmocka_unit_test(an_option_that_changed_is_told_with_both_values),
		cmocka_unit_test(an_option_that_was_put_in_is_one_difference),
		cmocka_unit_test(an_option_that_went_is_one_difference),
		cmocka_unit_test(another_order_of_options_is_told_place_by_place),
		cmocka_unit_test(name_expressions_are_told_like_options),
		cmocka_unit_test(a_source_is_told_by_its_size_or_as_other_contents),
		cmocka_unit_test(headers_in_memory_are_told_by_number_size_or_contents),
		cmocka_unit_test(variables_are_told_as_new_and_gone),
		cmocka_unit_test(another_compiler_is_told_apart_from_other_builtins),
		cmocka_unit_test(another_name_is_told),
		cmocka_unit_test(many_differences_stand_in_one_text),
	};

	return RUN(tests);
}
