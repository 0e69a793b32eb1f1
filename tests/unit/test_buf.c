/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include "lib/base/buf.h"

TEST(numbers_and_strings_are_read_back)
{
	struct warm_buf b = WARM_BUF_INIT;
	static const uint64_t uvs[] = { 0, 1, 127, 128, 16383, 16384, UINT32_MAX, UINT64_MAX };
	size_t n = 0;

	warm_buf_put_u8(&b, 0xfe);
	warm_buf_put_u16(&b, 0xfedc);
	warm_buf_put_u32(&b, 0xfedcba98);
	warm_buf_put_u64(&b, 0xfedcba9876543210);
	for (size_t i = 0; i < COUNT(uvs); i++)
		warm_buf_put_uv(&b, uvs[i]);
	warm_buf_put_str(&b, "text");
	warm_buf_put_str(&b, "");
	warm_buf_printf(&b, "%d-%s", 42, "x");
	struct warm_reader r = warm_reader_of(b.data, b.bytes);
	assert_int_equal(warm_reader_u8(&r), 0xfe);
	assert_int_equal(warm_reader_u16(&r), 0xfedc);
	assert_int_equal(warm_reader_u32(&r), 0xfedcba98);
	assert_true(warm_reader_u64(&r) == 0xfedcba9876543210);
	for (size_t i = 0; i < COUNT(uvs); i++)
		assert_true(warm_reader_uv(&r) == uvs[i]);
	assert_memory_equal(warm_reader_str(&r, 4, &n), "text", 4);
	assert_int_equal(n, 4);
	(void)warm_reader_str(&r, 0, &n);
	assert_int_equal(n, 0);
	assert_memory_equal(warm_reader_take(&r, 4), "42-x", 4);
	assert_false(r.bad);
	assert_int_equal(r.at, r.bytes);
	warm_buf_release(&b);
	assert_null(b.data);
}

TEST(a_short_read_makes_the_reader_bad_and_all_after_zero)
{
	static const uint8_t data[] = { 1, 2, 3 };
	struct warm_reader r = warm_reader_of(data, sizeof(data));
	size_t n = 9;

	assert_int_equal(warm_reader_u32(&r), 0);
	assert_true(r.bad);
	assert_int_equal(warm_reader_u8(&r), 0);
	assert_int_equal(warm_reader_uv(&r), 0);
	assert_int_equal(warm_reader_count(&r, 1), 0);
	assert_null(warm_reader_take(&r, 0));
	assert_string_equal(warm_reader_str(&r, 10, &n), "");
	assert_int_equal(n, 0);
}

TEST(numbers_of_over_64_bits_are_bad)
{
	static const uint8_t over[] = {
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02
	};
	static const uint8_t endless[] = { 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
					   0x80, 0x80, 0x80, 0x80, 0x00 };
	static const uint8_t cut[] = { 0x80 };
	struct warm_reader r = warm_reader_of(over, sizeof(over));

	assert_int_equal(warm_reader_uv(&r), 0);
	assert_true(r.bad);
	r = warm_reader_of(endless, sizeof(endless));
	assert_int_equal(warm_reader_uv(&r), 0);
	assert_true(r.bad);
	r = warm_reader_of(cut, sizeof(cut));
	assert_int_equal(warm_reader_uv(&r), 0);
	assert_true(r.bad);
}

TEST(counts_that_the_rest_cannot_hold_are_bad)
{
	static const uint8_t data[] = { 3, 0, 0, 0, 0, 0, 0 };
	struct warm_reader r = warm_reader_of(data, sizeof(data));

	assert_int_equal(warm_reader_count(&r, 2), 3);
	r = warm_reader_of(data, sizeof(data) - 1);
	assert_int_equal(warm_reader_count(&r, 2), 0);
	assert_true(r.bad);
}

TEST(strings_with_a_nul_or_over_their_limit_are_bad)
{
	static const uint8_t nul[] = { 3, 'a', 0, 'b' }, text[] = { 3, 'a', 'b', 'c' };
	struct warm_reader r = warm_reader_of(nul, sizeof(nul));
	size_t n;

	(void)warm_reader_str(&r, 10, &n);
	assert_true(r.bad);
	r = warm_reader_of(text, sizeof(text));
	(void)warm_reader_str(&r, 2, &n);
	assert_true(r.bad);
}

TEST(a_buffer_grows_to_what_is_put)
{
	struct warm_buf b = WARM_BUF_INIT;

	for (size_t i = 0; i < 100000; i++)
		warm_buf_put_u8(&b, (uint8_t)i);
	assert_int_equal(b.bytes, 100000);
	for (size_t i = 0; i < b.bytes; i++)
		assert_int_equal(b.data[i], (uint8_t)i);
	warm_buf_put(&b, NULL, 0);
	assert_int_equal(b.bytes, 100000);
	warm_buf_release(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_and_strings_are_read_back),
		cmocka_unit_test(a_short_read_makes_the_reader_bad_and_all_after_zero),
		cmocka_unit_test(numbers_of_over_64_bits_are_bad),
		cmocka_unit_test(counts_that_the_rest_cannot_hold_are_bad),
		cmocka_unit_test(strings_with_a_nul_or_over_their_limit_are_bad),
		cmocka_unit_test(a_buffer_grows_to_what_is_put),
	};

	return RUN(tests);
}
