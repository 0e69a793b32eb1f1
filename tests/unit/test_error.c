/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <errno.h>

#include "lib/base/error.h"

TEST(context_is_put_in_front)
{
	struct warm_error err = { 0 };

	assert_int_equal(warm_error_set(&err, WARM_CORRUPT, "frame %d", 7), WARM_CORRUPT);
	warm_error_context(&err, "layer %s", "x");
	assert_int_equal(err.status, WARM_CORRUPT);
	assert_string_equal(err.msg, "layer x: frame 7");
	assert_int_equal(err.status, WARM_CORRUPT);
}

TEST(an_errno_value_chooses_the_status)
{
	static const struct {
		int os_errno;
		enum warm_status status;
	} rows[] = {
		{ ENOENT, WARM_NOT_FOUND }, { EACCES, WARM_DENIED },   { EROFS, WARM_DENIED },
		{ ENOSPC, WARM_NO_SPACE },  { EDQUOT, WARM_NO_SPACE }, { ENOMEM, WARM_NO_MEMORY },
		{ EEXIST, WARM_EXISTS },    { ELOOP, WARM_CORRUPT },   { EAGAIN, WARM_TRANSIENT },
		{ EIO, WARM_IO },	    { 99999, WARM_IO },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct warm_error err = { 0 };
		assert_int_equal(warm_error_errno(&err, rows[i].os_errno, "open x"),
				 rows[i].status);
		assert_int_equal(err.os_errno, rows[i].os_errno);
		assert_true(strncmp(err.msg, "open x: ", 8) == 0);
		assert_int_equal(warm_error_errno(NULL, rows[i].os_errno, "open x"),
				 rows[i].status);
	}
}

TEST(long_messages_lose_their_ends)
{
	struct warm_error err = { 0 };
	char text[600];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	(void)warm_error_errno(&err, ENOENT, "%s", text);
	assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
	warm_error_context(&err, "front");
	assert_true(strncmp(err.msg, "front: xxx", 10) == 0);
	warm_error_context(&err, "%s", text);
	assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
}

TEST(every_status_has_a_name_and_an_exit_code_of_its_own)
{
	for (int a = WARM_OK; a >= WARM_IO; a--) {
		assert_true((warm_status_exit_code(a) == 0) == (a == WARM_OK));
		for (int b = a - 1; b >= WARM_IO; b--) {
			assert_string_not_equal(warm_status_name(a), warm_status_name(b));
			assert_int_not_equal(warm_status_exit_code(a), warm_status_exit_code(b));
		}
	}
	assert_string_equal(warm_status_name(-1000), "io");
	assert_int_equal(warm_status_exit_code(-1000), 1);
}

TEST(a_caller_without_an_error_object_gets_the_status)
{
	assert_int_equal(warm_error_set(NULL, WARM_LIMIT, "x"), WARM_LIMIT);
	assert_int_equal(warm_error_nomem(NULL, 5), WARM_NO_MEMORY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(context_is_put_in_front),
		cmocka_unit_test(an_errno_value_chooses_the_status),
		cmocka_unit_test(long_messages_lose_their_ends),
		cmocka_unit_test(every_status_has_a_name_and_an_exit_code_of_its_own),
		cmocka_unit_test(a_caller_without_an_error_object_gets_the_status),
	};

	return RUN(tests);
}
