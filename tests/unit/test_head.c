/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <fcntl.h>

#include "lib/store/head.h"

static int note(void *arg, const struct warm_object *o, struct warm_error *err)
{
	(void)err;
	warm_buf_printf(arg, "%llu %lld %s\n", (unsigned long long)o->bytes,
			(long long)o->modified_ms, o->name);
	return 0;
}

static int refuse(void *arg, const struct warm_object *o, struct warm_error *err)
{
	(void)arg;
	(void)o;
	return warm_error_set(err, WARM_EXISTS, "enough");
}

#define HEAD                                                                                       \
	"warmcache-head 1 1700000000000\n10 1690000000000 m/v/p/a\n0 -1 m/v/p/b c\n7 5 m/v2/p/d\n" \
	"end 3\n"

static char *parse(const char *text, size_t bytes, const char *prefix, int want,
		   struct warm_error *err)
{
	struct warm_buf buf = WARM_BUF_INIT;

	assert_int_equal(warm_head_parse(text, bytes, prefix, note, &buf, err), want);
	warm_buf_put_u8(&buf, 0);
	return (char *)buf.data;
}

static void assert_parsed(const char *text, const char *prefix, const char *want)
{
	char *have = parse(text, strlen(text), prefix, 0, NULL);

	assert_string_equal(have, want);
	free(have);
}

static void put(struct scratch *s, struct warm_store *store, const char *name, const char *text)
{
	put_text(s->fd, "source", text);
	scope_close int fd = openat(s->fd, "source", O_RDONLY | O_CLOEXEC);
	assert_int_equal(warm_store_put(store, name, fd, strlen(text), NULL, NULL), 0);
}

static char *parse_file(struct scratch *s, const char *path, const char *prefix)
{
	size_t bytes = 0;
	char *text = text_of(s->fd, path, &bytes), *have = parse(text, bytes, prefix, 0, NULL);

	free(text);
	return have;
}

TEST(names_are_told_with_size_and_time_below_a_prefix)
{
	assert_parsed(HEAD, "", "10 1690000000000 m/v/p/a\n0 -1 m/v/p/b c\n7 5 m/v2/p/d\n");
	assert_parsed(HEAD, "m/v/", "10 1690000000000 m/v/p/a\n0 -1 m/v/p/b c\n");
	assert_parsed(HEAD, "m/v2/p/", "7 5 m/v2/p/d\n");
	assert_parsed(HEAD, "n/", "");
	assert_parsed("warmcache-head 1 0\nend 0\n", "", "");
}

TEST(a_head_that_is_cut_at_any_byte_is_corrupt)
{
	for (size_t n = 0; n < strlen(HEAD); n++) {
		struct warm_error err = { 0 };
		char *exact = malloc(n + 1);
		memcpy(exact, HEAD, n);
		free(parse(exact, n, "", WARM_CORRUPT, &err));
		assert_int_equal(err.status, WARM_CORRUPT);
		free(exact);
	}
}

TEST(what_is_no_head_is_refused)
{
	static const struct {
		const char *text;
		int want;
	} rows[] = {
		{ "<html>not found</html>\n", WARM_CORRUPT },
		{ "warmcache-head x 0\nend 0\n", WARM_CORRUPT },
		{ "warmcache-head 2 0\nwhat a new line\nend 0\n", WARM_UNSUPPORTED },
		{ "warmcache-head 0 0\nend 0\n", WARM_UNSUPPORTED },
		{ "warmcache-head 1 0\n1 1 m/a\nend 2\n", WARM_CORRUPT },
		{ "warmcache-head 1 0\n1 1 m/a\nend 0\n", WARM_CORRUPT },
		{ "warmcache-head 1 0\n1 1 m/a\nend 1\n1 1 m/b\n", WARM_CORRUPT },
		{ "warmcache-head 1 0\nfoo\nend 1\n", WARM_CORRUPT },
		{ "warmcache-head 1 0\n1 m/a\nend 1\n", WARM_CORRUPT },
		{ "warmcache-head 1 0\n\nend 0\n", WARM_CORRUPT },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct warm_error err = { 0 };
		free(parse(rows[i].text, strlen(rows[i].text), "", rows[i].want, &err));
		assert_int_equal(err.status, rows[i].want);
	}
	free(parse("warmcache-head 1 0\n\0end 0\n", 26, "", WARM_CORRUPT, NULL));
}

TEST(names_that_are_no_paths_are_passed_over)
{
	assert_parsed(
		"warmcache-head 1 0\n1 1 ../x\n1 1 /etc/x\n1 1 m//a\n1 1 m/./a\n1 1 m/ok\nend 5\n",
		"", "1 1 m/ok\n");
}

TEST(a_callback_that_fails_stops_it)
{
	struct warm_error err = { 0 };

	assert_int_equal(warm_head_parse(HEAD, strlen(HEAD), "", refuse, NULL, &err), WARM_EXISTS);
	assert_string_equal(err.msg, "enough");
}

TEST(heads_of_a_store_name_what_its_list_names)
{
	struct scratch s = scratch_open();
	scope_store struct warm_store *store = NULL;
	struct warm_head_report report = { 9, 9 };

	assert_int_equal(warm_store_open(scratch_path(&s, "store"), &store, NULL), 0);
	put(&s, store, "a/v/p/2", "22");
	put(&s, store, "a/v/p/1", "1");
	put(&s, store, "a-b/v/p/3", "333");
	put(&s, store, "a/old/p/4", "");
	put(&s, store, "stray", "x");
	for (int round = 0; round < 2; round++) { /* the heads of before are no objects */
		assert_int_equal(warm_head_write(store, "", &report, NULL, NULL), 0);
		assert_int_equal(report.models, 2);
		assert_int_equal(report.objects, 4);
		char *all = parse_file(&s, "store/head", ""),
		     *a = parse_file(&s, "store/a/head", "");
		assert_non_null(strstr(all, " -1 a-b/head\n"));
		assert_non_null(strstr(all, " -1 a/head\n"));
		assert_int_equal(strtoull(strchr(all, '\n') + 1, NULL, 10),
				 stat_of(s.fd, "store/a/head").st_size);
		assert_non_null(strstr(a, "a/old/p/4\n"));
		const char *one = strstr(a, "a/v/p/1\n"), *two = strstr(a, "a/v/p/2\n");
		assert_true(one != NULL && two != NULL && one < two);
		assert_null(strstr(a, "a-b"));
		long long size = -1, modified = 0;
		assert_int_equal(sscanf(two - 16, "%lld %lld", &size, &modified), 2);
		assert_int_equal(size, 2);
		assert_true(modified > 1700000000000);
		free(all);
		free(a);
	}
	scratch_close(&s);
}

TEST(a_model_alone_leaves_the_head_of_all)
{
	struct scratch s = scratch_open();
	scope_store struct warm_store *store = NULL;
	struct warm_head_report report;

	assert_int_equal(warm_store_open(scratch_path(&s, "store"), &store, NULL), 0);
	put(&s, store, "a/v/p/1", "1");
	put(&s, store, "b/v/p/1", "1");
	assert_int_equal(warm_head_write(store, "a/", &report, NULL, NULL), 0);
	assert_int_equal(report.models, 1);
	assert_true(is_there(s.fd, "store/a/head"));
	assert_false(is_there(s.fd, "store/b/head"));
	assert_false(is_there(s.fd, "store/head"));
	scratch_close(&s);
}

TEST(a_store_that_is_not_there_gets_no_head)
{
	struct scratch s = scratch_open();
	scope_store struct warm_store *store = NULL;
	struct warm_head_report report = { 9, 9 };

	assert_int_equal(warm_store_open(scratch_path(&s, "store"), &store, NULL), 0);
	assert_int_equal(warm_head_write(store, "", &report, NULL, NULL), WARM_NOT_FOUND);
	assert_int_equal(report.models, 0);
	scratch_close(&s);
}

TEST(a_size_is_not_negative)
{
	static const char head[] = "warmcache-head 1 0\n-5 1 m/a\nend 1\n";

	free(parse(head, strlen(head), "", WARM_CORRUPT, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_told_with_size_and_time_below_a_prefix),
		cmocka_unit_test(a_head_that_is_cut_at_any_byte_is_corrupt),
		cmocka_unit_test(what_is_no_head_is_refused),
		cmocka_unit_test(names_that_are_no_paths_are_passed_over),
		cmocka_unit_test(a_callback_that_fails_stops_it),
		cmocka_unit_test(heads_of_a_store_name_what_its_list_names),
		cmocka_unit_test(a_model_alone_leaves_the_head_of_all),
		cmocka_unit_test(a_store_that_is_not_there_gets_no_head),
		cmocka_unit_test(a_size_is_not_negative),
	};

	return RUN(tests);
}
