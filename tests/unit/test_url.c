/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include "lib/store/url.h"

static const char *const known[] = { "endpoint", "size", "flag", NULL };

#define scope_url WARM_SCOPE(warm_url_release)

TEST(a_url_is_a_host_and_a_prefix_without_slashes_at_its_ends)
{
	static const struct {
		const char *rest, *host, *prefix;
	} rows[] = {
		{ "bucket", "bucket", "" },
		{ "bucket/", "bucket", "" },
		{ "bucket//", "bucket", "" },
		{ "bucket/a/b", "bucket", "a/b" },
		{ "bucket//a/b//", "bucket", "a/b" },
		{ "host:9000/a", "host:9000", "a" },
		{ "[::1]:9000/a", "[::1]:9000", "a" },
		{ "bucket?size=1", "bucket", "" },
		{ "bucket/a+b/?size=1&&", "bucket", "a+b" },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		scope_url struct warm_url url = { 0 };
		assert_int_equal(warm_url_parse(rows[i].rest, known, &url, NULL), 0);
		assert_string_equal(url.host, rows[i].host);
		assert_string_equal(url.prefix, rows[i].prefix);
	}
}

TEST(what_is_no_url_of_a_store_is_refused_with_the_reason)
{
	static const struct {
		const char *rest, *reason;
	} rows[] = {
		{ "", "nothing follows" },
		{ "/a", "nothing follows" },
		{ "?size=1", "nothing follows" },
		{ "b#x", "'#'" },
		{ "b/a//c", "" },
		{ "b/../c", "" },
		{ "b/./c?size=1", "" },
		{ "b?size=1&colour=2", "unknown parameter 'colour' (known: endpoint, size, flag)" },
		{ "b?Size=1", "unknown parameter 'Size'" },
		{ "b?=1", "unknown parameter ''" },
		{ "b?size=1&flag=true&size=1", "'size' is given twice" },
		{ "b?size", "'size' has no value" },
		{ "b?size=%4", "broken %XX" },
		{ "b?size=%", "broken %XX" },
		{ "b?size=%zz", "broken %XX" },
		{ "b?size=a%00b", "broken %XX" },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct warm_url url = { 0 };
		struct warm_error err = { 0 };
		assert_int_equal(warm_url_parse(rows[i].rest, known, &url, &err), WARM_INVALID);
		assert_non_null(strstr(err.msg, rows[i].reason));
		assert_null(url.host);
	}
}

TEST(more_parameters_than_fit_are_refused)
{
	static const char *const all[] = { "a", "b", "c", "d", "e", "f", "g", "h", "i",
					   "j", "k", "l", "m", "n", "o", "p", "q", NULL };
	scope_url struct warm_url url = { 0 };
	struct warm_error err = { 0 };

	assert_int_equal(warm_url_parse("h?a=&b=&c=&d=&e=&f=&g=&h=&i=&j=&k=&l=&m=&n=&o=&p=", all,
					&url, &err),
			 0);
	assert_int_equal(url.n_params, 16);
	assert_string_equal(warm_url_param(&url, "p", NULL), "");
	warm_url_release(&url);
	assert_int_equal(warm_url_parse("h?a=&b=&c=&d=&e=&f=&g=&h=&i=&j=&k=&l=&m=&n=&o=&p=&q=", all,
					&url, &err),
			 WARM_INVALID);
}

TEST(a_password_in_a_url_is_refused_and_never_shown)
{
	static const char *const urls[] = { "s3://user:hunter2@bucket/x", "https://hunter2@host",
					    "oci://user:hunter2@registry/x?login=none",
					    "gs://user:hunter2@bucket", "http://a:hunter2@h#x" };
	struct warm_store *store = NULL;

	for (size_t i = 0; i < COUNT(urls); i++) {
		struct warm_error err = { 0 };
		assert_int_equal(warm_store_open(urls[i], &store, &err), WARM_INVALID);
		assert_null(strstr(err.msg, "hunter2"));
	}
	assert_null(store);
}

TEST(the_value_of_a_parameter_is_not_shown_for_an_unknown_name)
{
	struct warm_url url;
	struct warm_error err = { 0 };

	assert_int_equal(warm_url_parse("b?secret=hunter2", known, &url, &err), WARM_INVALID);
	assert_non_null(strstr(err.msg, "secret"));
	assert_null(strstr(err.msg, "hunter2"));
}

TEST(a_parameter_counts_before_the_environment)
{
	static const char *const env[] = { "TEST_URL_A", "TEST_URL_B", NULL };
	scope_url struct warm_url url = { 0 };

	assert_int_equal(warm_url_parse("b?endpoint=http%3A%2f%2Fx%3F%26&flag=", known, &url, NULL),
			 0);
	setenv("TEST_URL_A", "", 1);
	setenv("TEST_URL_B", "b", 1);
	assert_string_equal(warm_url_param(&url, "endpoint", env), "http://x?&");
	assert_string_equal(warm_url_param(&url, "flag", env), "");
	assert_string_equal(warm_url_param(&url, "size", env), "b");
	setenv("TEST_URL_A", "a", 1);
	assert_string_equal(warm_url_param(&url, "size", env), "a");
	assert_null(warm_url_param(&url, "size", NULL));
	unsetenv("TEST_URL_A");
	unsetenv("TEST_URL_B");
	assert_null(warm_url_param(&url, "size", env));
}

TEST(a_flag_is_true_or_false)
{
	static const struct {
		const char *rest;
		bool initial;
		int rc, want;
	} rows[] = { { "b", true, 0, true },
		     { "b", false, 0, false },
		     { "b?flag=true", false, 0, true },
		     { "b?flag=false", true, 0, false },
		     { "b?flag=yes", true, WARM_INVALID, 0 },
		     { "b?flag=", true, WARM_INVALID, 0 },
		     { "b?flag=TRUE", true, WARM_INVALID, 0 } };

	for (size_t i = 0; i < COUNT(rows); i++) {
		scope_url struct warm_url url = { 0 };
		bool flag = !rows[i].want;
		assert_int_equal(warm_url_parse(rows[i].rest, known, &url, NULL), 0);
		assert_int_equal(warm_url_flag(&url, "flag", rows[i].initial, &flag, NULL),
				 rows[i].rc);
		assert_int_equal(flag, rows[i].rc == 0 ? rows[i].want : !rows[i].want);
	}
}

TEST(a_number_has_units_and_bounds)
{
	static const struct {
		const char *value;
		uint64_t want; /* 0: refused */
	} rows[] = {
		{ "10", 10 },
		{ "5", 5 },
		{ "5368709120", 5368709120 },
		{ "5G", 5368709120 },
		{ "1K", 1024 },
		{ "3M", 3 << 20 },
		{ "4", 0 },
		{ "5368709121", 0 },
		{ "6G", 0 },
		{ "0", 0 },
		{ "", 0 },
		{ "-6", 0 },
		{ "+6", 0 },
		{ " 6", 0 },
		{ "6 ", 0 },
		{ "6k", 0 },
		{ "6KB", 0 },
		{ "6KK", 0 },
		{ "0x10", 0 },
		{ "1.5G", 0 },
		{ "18446744073709551615G", 0 },
		{ "17179869185G", 0 },
		{ "99999999999999999999", 0 },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		scope_url struct warm_url url = { 0 };
		struct warm_error err = { 0 };
		char rest[100];
		uint64_t n = 77;
		snprintf(rest, sizeof(rest), "b?size=%s", rows[i].value);
		assert_int_equal(warm_url_parse(rest, known, &url, NULL), 0);
		int rc = warm_url_number(&url, "size", 9, 5, (uint64_t)5 << 30, &n, &err);
		assert_int_equal(rc, rows[i].want != 0 ? 0 : WARM_INVALID);
		assert_int_equal(n, rows[i].want != 0 ? rows[i].want : 77);
		assert_true(rc == 0 || strstr(err.msg, "from 5 to 5368709120") != NULL);
	}
	scope_url struct warm_url none = { 0 };
	uint64_t n = 0;
	assert_int_equal(warm_url_parse("b", known, &none, NULL), 0);
	assert_int_equal(warm_url_number(&none, "size", 9, 5, 10, &n, NULL), 0);
	assert_int_equal(n, 9);
}

TEST(what_is_encoded_decodes_to_itself)
{
	struct dice d = { 5 };

	for (int round = 0; round < 2000; round++) {
		scope_buf struct warm_buf buf = WARM_BUF_INIT;
		char text[40];
		size_t n = roll_below(&d, sizeof(text));
		for (size_t i = 0; i < n; i++)
			text[i] = (char)(1 + roll_below(&d, 255));
		text[n] = '\0';
		bool keep = roll_below(&d, 2) != 0;
		warm_url_encode(&buf, text, keep);
		warm_buf_put_u8(&buf, 0);
		char *encoded = (char *)buf.data;
		static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
					    "0123456789-._~%/";
		assert_int_equal(encoded[strspn(encoded, plain)], '\0');
		assert_true(keep || strchr(encoded, '/') == NULL);
		assert_int_equal(warm_url_decode(encoded), 0);
		assert_string_equal(encoded, text);
	}
	scope_buf struct warm_buf buf = WARM_BUF_INIT;
	warm_url_encode(&buf, "a/b c+\xc3\xa9~%", true);
	warm_buf_put_u8(&buf, 0);
	assert_string_equal((char *)buf.data, "a/b%20c%2B%C3%A9~%25");
}

TEST(a_password_with_a_slash_or_a_question_mark_is_never_shown_either)
{
	static const char *const urls[] = { "s3://AKID:hunter2/x@bucket/p",
					    "s3://AKID:hunter2?x@bucket/p",
					    "https://user:hunter2/x@host/p",
					    "https://user:hunter2?x@host/p" };

	for (size_t i = 0; i < COUNT(urls); i++) {
		struct warm_store *store = NULL;
		struct warm_error err = { 0 };
		int rc = warm_store_open(urls[i], &store, &err);
		warm_store_free(store);
		assert_int_equal(rc, WARM_INVALID);
		assert_null(strstr(err.msg, "hunter2"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_url_is_a_host_and_a_prefix_without_slashes_at_its_ends),
		cmocka_unit_test(what_is_no_url_of_a_store_is_refused_with_the_reason),
		cmocka_unit_test(more_parameters_than_fit_are_refused),
		cmocka_unit_test(a_password_in_a_url_is_refused_and_never_shown),
		cmocka_unit_test(the_value_of_a_parameter_is_not_shown_for_an_unknown_name),
		cmocka_unit_test(a_parameter_counts_before_the_environment),
		cmocka_unit_test(a_flag_is_true_or_false),
		cmocka_unit_test(a_number_has_units_and_bounds),
		cmocka_unit_test(what_is_encoded_decodes_to_itself),
		cmocka_unit_test(a_password_with_a_slash_or_a_question_mark_is_never_shown_either),
	};

	return RUN(tests);
}
