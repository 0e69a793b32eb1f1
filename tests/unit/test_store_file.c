/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <fcntl.h>

static struct warm_store *open_store(const struct scratch *s)
{
	struct warm_store *store = NULL;

	assert_int_equal(warm_store_open(scratch_path(s, "store"), &store, NULL), 0);
	return store;
}

static int put(const struct scratch *s, struct warm_store *store, const char *name,
	       const char *text)
{
	put_text(s->fd, "source", text);
	scope_close int fd = openat(s->fd, "source", O_RDONLY | O_CLOEXEC);
	return warm_store_put(store, name, fd, strlen(text), NULL, NULL);
}

static int take(void *arg, const void *data, size_t bytes, struct warm_error *err)
{
	(void)err;
	warm_buf_put(arg, data, bytes);
	return 0;
}

static int refuse(void *arg, const void *data, size_t bytes, struct warm_error *err)
{
	(void)arg;
	(void)data;
	(void)bytes;
	return warm_error_set(err, WARM_LIMIT, "enough");
}

static int name_object(void *arg, const struct warm_object *o, struct warm_error *err)
{
	(void)err;
	warm_buf_printf(arg, "%s(%d) ", o->name, (int)o->bytes);
	assert_true(o->modified_ms > 1700000000000);
	return 0;
}

static int refuse_object(void *arg, const struct warm_object *o, struct warm_error *err)
{
	(void)arg;
	(void)o;
	return warm_error_set(err, WARM_LIMIT, "enough");
}

static bool every_name(const char *name)
{
	return name[0] != '\0';
}

TEST(what_is_put_can_be_read_in_ranges)
{
	struct scratch s = scratch_open();
	scope_store struct warm_store *store = open_store(&s);
	struct warm_object o;
	static const struct {
		uint64_t offset, bytes;
		const char *want;
	} rows[] = { { 0, 10, "0123456789" },
		     { 3, 4, "3456" },
		     { 9, 1, "9" },
		     { 10, 0, "" },
		     { 0, 0, "" } };

	assert_int_equal(put(&s, store, "m/v/p/object", "0123456789"), 0);
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct warm_buf got = WARM_BUF_INIT;
		assert_int_equal(warm_store_get(store, "m/v/p/object", rows[i].offset,
						rows[i].bytes, take, &got, NULL, NULL),
				 0);
		warm_buf_put_u8(&got, 0);
		assert_string_equal((char *)got.data, rows[i].want);
		warm_buf_release(&got);
	}
	assert_int_equal(warm_store_head(store, "m/v/p/object", &o, NULL, NULL), 0);
	assert_int_equal(o.bytes, 10);
	assert_string_equal(o.name, "m/v/p/object");
	scratch_close(&s);
}

TEST(a_range_past_the_end_is_corrupt_and_a_missing_object_is_not_found)
{
	struct scratch s = scratch_open();
	scope_store struct warm_store *store = open_store(&s);
	struct warm_object o;
	struct warm_buf got = WARM_BUF_INIT;

	assert_int_equal(put(&s, store, "a", "0123456789"), 0);
	assert_int_equal(warm_store_get(store, "a", 8, 3, take, &got, NULL, NULL), WARM_CORRUPT);
	assert_int_equal(warm_store_get(store, "a", UINT64_MAX, 2, take, &got, NULL, NULL),
			 WARM_CORRUPT);
	assert_int_equal(warm_store_get(store, "b", 0, 1, take, &got, NULL, NULL), WARM_NOT_FOUND);
	assert_int_equal(warm_store_head(store, "b", &o, NULL, NULL), WARM_NOT_FOUND);
	assert_int_equal(warm_store_get(store, "a", 0, 3, refuse, NULL, NULL, NULL), WARM_LIMIT);
	warm_buf_release(&got);
	scratch_close(&s);
}

TEST(an_object_is_never_replaced)
{
	struct scratch s = scratch_open();
	scope_store struct warm_store *store = open_store(&s);

	assert_int_equal(put(&s, store, "m/a", "first"), 0);
	assert_int_equal(put(&s, store, "m/a", "second"), WARM_EXISTS);
	assert_file(s.fd, "store/m/a", "first");
	char *tree = list_tree(s.fd, false);
	assert_null(strstr(tree, ".tmp-"));
	free(tree);
	scratch_close(&s);
}

TEST(a_source_that_is_too_short_leaves_nothing)
{
	struct scratch s = scratch_open();
	scope_store struct warm_store *store = open_store(&s);

	put_text(s.fd, "source", "12345");
	scope_close int fd = openat(s.fd, "source", O_RDONLY | O_CLOEXEC);
	assert_int_equal(warm_store_put(store, "m/a", fd, 6, NULL, NULL), WARM_CORRUPT);
	char *tree = list_tree(s.fd, false);
	assert_null(strstr(tree, "store/"));
	free(tree);
	scratch_close(&s);
}

TEST(a_list_names_what_is_below_its_prefix)
{
	struct scratch s = scratch_open();
	scope_store struct warm_store *store = open_store(&s);
	struct warm_buf all = WARM_BUF_INIT;
	int64_t now = 0;

	assert_int_equal(put(&s, store, "m/v1/p/a", "1"), 0);
	assert_int_equal(put(&s, store, "m/v1/p/empty", ""), 0);
	assert_int_equal(put(&s, store, "m/v2/p/b", "22"), 0);
	assert_int_equal(put(&s, store, "mm/v1/p/c", "333"), 0);
	put_text(s.fd, "store/m/v1/p/.tmp-0123", "left by one that was killed");
	put_text(s.fd, "store/.hidden/x", "x");
	assert_int_equal(symlinkat("a", s.fd, "store/m/v1/p/link"), 0);
	assert_int_equal(warm_store_list(store, "m/v2/", name_object, &all, &now, NULL, NULL), 0);
	warm_buf_put_u8(&all, 0);
	assert_string_equal((char *)all.data, "m/v2/p/b(2) ");
	assert_true(now > 1700000000000);
	all.bytes = 0;
	assert_int_equal(warm_store_list(store, "m/", name_object, &all, NULL, NULL, NULL), 0);
	warm_buf_put_u8(&all, 0);
	assert_non_null(strstr((char *)all.data, "m/v1/p/a(1) "));
	assert_non_null(strstr((char *)all.data, "m/v1/p/empty(0) "));
	assert_non_null(strstr((char *)all.data, "m/v2/p/b(2) "));
	assert_null(strstr((char *)all.data, "mm/"));
	assert_null(strstr((char *)all.data, "link"));
	assert_null(strstr((char *)all.data, ".tmp"));
	all.bytes = 0;
	assert_int_equal(warm_store_list(store, "", name_object, &all, NULL, NULL, NULL), 0);
	warm_buf_put_u8(&all, 0);
	assert_non_null(strstr((char *)all.data, "mm/v1/p/c(3) "));
	assert_null(strstr((char *)all.data, "hidden"));
	assert_int_equal(warm_store_list(store, "none/", name_object, &all, NULL, NULL, NULL), 0);
	assert_int_equal(warm_store_list(store, "m/", refuse_object, NULL, NULL, NULL, NULL),
			 WARM_LIMIT);
	warm_buf_release(&all);
	scratch_close(&s);
}

TEST(a_store_that_is_not_there_is_not_found_until_something_is_put)
{
	struct scratch s = scratch_open();
	scope_store struct warm_store *store = open_store(&s);
	struct warm_buf all = WARM_BUF_INIT;

	assert_int_equal(warm_store_list(store, "", name_object, &all, NULL, NULL, NULL),
			 WARM_NOT_FOUND);
	assert_int_equal(put(&s, store, "a", "1"), 0);
	assert_int_equal(warm_store_list(store, "", name_object, &all, NULL, NULL, NULL), 0);
	assert_int_equal(all.bytes, strlen("a(1) "));
	warm_buf_release(&all);
	scratch_close(&s);
}

TEST(an_object_is_deleted_and_what_is_not_there_is_no_error)
{
	struct scratch s = scratch_open();
	scope_store struct warm_store *store = open_store(&s);

	assert_int_equal(put(&s, store, "m/v/p/a", "1"), 0);
	assert_int_equal(put(&s, store, "top", "1"), 0);
	assert_int_equal(warm_store_delete(store, "m/v/p/a", NULL, NULL), 0);
	assert_false(is_there(s.fd, "store/m/v/p/a"));
	assert_int_equal(warm_store_delete(store, "m/v/p/a", NULL, NULL), 0);
	assert_int_equal(warm_store_delete(store, "none/v/p/a", NULL, NULL), 0);
	assert_int_equal(warm_store_delete(store, "top", NULL, NULL), 0);
	assert_false(is_there(s.fd, "store/top"));
	scratch_close(&s);
}

TEST(names_that_leave_the_store_are_refused)
{
	static const char *const names[] = { "../a", "/a", "m/../../a", "", "m//a", "m/" };
	struct scratch s = scratch_open();
	scope_store struct warm_store *store = open_store(&s);
	struct warm_object o;
	struct warm_error err = { 0 };
	int without = WARM_INVALID;

	for (size_t i = 0; i < COUNT(names); i++) {
		assert_int_equal(put(&s, store, "x", "1") == 0 || true, true);
		assert_int_equal(warm_store_head(store, names[i], &o, NULL, &err), WARM_INVALID);
		assert_int_equal(warm_store_delete(store, names[i], NULL, &err), WARM_INVALID);
		if (warm_store_head(store, names[i], &o, NULL, NULL) != WARM_INVALID)
			without = warm_store_head(store, names[i], &o, NULL, NULL);
	}
	scratch_close(&s);
	/* A caller without an error object gets the same status. */
	assert_int_equal(without, WARM_INVALID);
}

TEST(a_link_in_the_store_is_not_followed)
{
	struct scratch s = scratch_open();
	scope_store struct warm_store *store = open_store(&s);
	struct warm_buf got = WARM_BUF_INIT;

	put_text(s.fd, "outside/f", "secret");
	put_dir(s.fd, "store/m");
	assert_int_equal(symlinkat("../../outside/f", s.fd, "store/m/link"), 0);
	assert_int_equal(symlinkat("../outside", s.fd, "store/dir"), 0);
	assert_int_equal(warm_store_get(store, "m/link", 0, 6, take, &got, NULL, NULL),
			 WARM_CORRUPT);
	assert_int_equal(warm_store_get(store, "dir/f", 0, 6, take, &got, NULL, NULL),
			 WARM_CORRUPT);
	assert_int_not_equal(put(&s, store, "dir/g", "1"), 0);
	assert_false(is_there(s.fd, "outside/g"));
	warm_buf_release(&got);
	scratch_close(&s);
}

TEST(a_canceled_call_says_so)
{
	struct scratch s = scratch_open();
	scope_store struct warm_store *store = open_store(&s);
	atomic_bool cancel = true;
	struct warm_call call = { .cancel = &cancel };
	struct warm_buf got = WARM_BUF_INIT;
	struct warm_error err = { 0 };

	assert_int_equal(put(&s, store, "a", "1"), 0);
	assert_int_equal(warm_store_get(store, "a", 0, 1, take, &got, &call, &err), WARM_CANCELED);
	assert_int_equal(warm_store_list(store, "", name_object, &got, NULL, &call, &err),
			 WARM_CANCELED);
	scope_close int fd = openat(s.fd, "source", O_RDONLY | O_CLOEXEC);
	assert_int_equal(warm_store_put(store, "b", fd, 1, &call, &err), WARM_CANCELED);
	assert_int_equal(got.bytes, 0);
	scratch_close(&s);
}

TEST(stores_are_opened_by_path_and_by_url)
{
	struct scratch s = scratch_open();
	struct warm_store *store = NULL;
	struct warm_error err = { 0 };
	char url[400];

	snprintf(url, sizeof(url), "file://%s/store", s.path);
	assert_int_equal(warm_store_open(url, &store, NULL), 0);
	assert_string_equal(warm_store_url(store), url);
	assert_int_equal(put(&s, store, "a", "1"), 0);
	assert_true(is_there(s.fd, "store/a"));
	assert_true(warm_store_parallel(store) > 0);
	warm_store_free(store);
	store = NULL;
	assert_int_equal(warm_store_open("nosuch://x", &store, &err), WARM_INVALID);
	assert_non_null(strstr(err.msg, "nosuch"));
	assert_int_equal(warm_store_open("", &store, &err), WARM_INVALID);
	assert_null(store);
	warm_store_free(NULL);
	scratch_close(&s);
}

/* ---- sweep ---- */

enum { DAY_MS = 24 * 3600 * 1000 };

/* A file that was written so long ago. */
static void put_old(const struct scratch *s, const char *path, int64_t age_ms)
{
	put_text(s->fd, path, "x");
	int64_t then = (warm_clock_wall_ms() - age_ms) * 1000000;
	set_times(s->fd, path, then, then);
}

static size_t sweep(struct warm_store *store, const char *prefix, bool dry_run)
{
	struct warm_error err = { 0 };
	size_t n = 99;

	if (warm_store_sweep(store, prefix, DAY_MS, every_name, dry_run, &n, NULL, &err) != 0)
		fail_msg("%s", err.msg);
	return n;
}

TEST(a_sweep_takes_temporary_files_that_are_old_and_nothing_else)
{
	static const struct {
		const char *path;
		int64_t age_ms;
		bool goes;
	} rows[] = {
		{ "store/.tmp-0123456789abcdef", 2 * DAY_MS, true },
		{ "store/m/v/p/.tmp-1111111111111111", 2 * DAY_MS, true },
		{ "store/m/v/p/.tmp-fedcba9876543210", DAY_MS + 60000, true },
		{ "store/m/v/p/.tmp-2222222222222222", DAY_MS - 60000, false },
		{ "store/m/v/p/.tmp-3333333333333333", 0, false },
		{ "store/m/v/p/.tmp-4444444444444444", -DAY_MS, false }, /* of the future */
		{ "store/m/v/p/.tmp-", 2 * DAY_MS, false },
		{ "store/m/v/p/.tmp-1", 2 * DAY_MS, false },
		{ "store/m/v/p/.tmp-111111111111111", 2 * DAY_MS, false },   /* one less */
		{ "store/m/v/p/.tmp-11111111111111111", 2 * DAY_MS, false }, /* one more */
		{ "store/m/v/p/.tmp-11111111111111AB", 2 * DAY_MS, false },
		{ "store/m/v/p/.tmp-111111111111111g", 2 * DAY_MS, false },
		{ "store/m/v/p/.tmp_1111111111111111", 2 * DAY_MS, false },
		{ "store/m/v/p/.tmp", 2 * DAY_MS, false },
		{ "store/m/v/p/tmp-5555555555555555", 2 * DAY_MS, false },
		{ "store/m/v/p/x.tmp-6666666666666666", 2 * DAY_MS, false },
		{ "store/m/v/p/object", 400 * (int64_t)DAY_MS, false },
		{ "store/m/v/p/.hidden", 2 * DAY_MS, false },
		{ "store/.hidden/.tmp-7777777777777777", 2 * DAY_MS,
		  false }, /* no directory of ours */
		{ "store/a/b/c/d/e/f/g/h/i/j/.tmp-8888888888888888", 2 * DAY_MS, true },
		{ "other/.tmp-9999999999999999", 2 * DAY_MS, false },
	};
	struct scratch s = scratch_open();
	scope_store struct warm_store *store = open_store(&s);
	size_t goes = 0;

	for (size_t i = 0; i < COUNT(rows); i++) {
		put_old(&s, rows[i].path, rows[i].age_ms);
		goes += rows[i].goes;
	}
	assert_int_equal(sweep(store, "", true), goes);
	for (size_t i = 0; i < COUNT(rows); i++)
		assert_true(is_there(s.fd, rows[i].path));
	assert_int_equal(sweep(store, "", false), goes);
	for (size_t i = 0; i < COUNT(rows); i++)
		if (is_there(s.fd, rows[i].path) == rows[i].goes)
			fail_msg("%s", rows[i].path);
	assert_int_equal(sweep(store, "", false), 0);
	scratch_close(&s);
}

TEST(a_sweep_takes_regular_files_alone_and_follows_no_link)
{
	struct scratch s = scratch_open();
	scope_store struct warm_store *store = open_store(&s);
	static const char *const kept[] = {
		"store/m/.tmp-d111111111111111", "store/m/.tmp-d111111111111111/file",
		"store/m/.tmp-f111111111111111", "store/m/.tmp-e111111111111111",
		"away/.tmp-1111111111111111",	 "away/target"
	};

	put_dir(s.fd, "store/m");
	put_old(&s, "store/m/.tmp-d111111111111111/file", 2 * DAY_MS);
	assert_int_equal(mkfifoat(s.fd, "store/m/.tmp-f111111111111111", 0600), 0);
	put_old(&s, "away/.tmp-1111111111111111", 2 * DAY_MS);
	put_old(&s, "away/target", 2 * DAY_MS);
	assert_int_equal(symlinkat("../../away/target", s.fd, "store/m/.tmp-e111111111111111"), 0);
	assert_int_equal(symlinkat("../../away", s.fd, "store/m/link"), 0);
	for (size_t i = 0; i < COUNT(kept); i++)
		set_times(s.fd, kept[i], 0, 0);
	assert_int_equal(sweep(store, "", false), 0);
	for (size_t i = 0; i < COUNT(kept); i++)
		if (!is_there(s.fd, kept[i]))
			fail_msg("%s", kept[i]);
	scratch_close(&s);
}

TEST(a_sweep_stays_below_its_prefix)
{
	struct scratch s = scratch_open();
	scope_store struct warm_store *store = open_store(&s);

	put_old(&s, "store/m/v/.tmp-1111111111111111", 2 * DAY_MS);
	put_old(&s, "store/m2/v/.tmp-2222222222222222", 2 * DAY_MS);
	put_old(&s, "store/.tmp-3333333333333333", 2 * DAY_MS);
	assert_int_equal(sweep(store, "m/", false), 1);
	assert_false(is_there(s.fd, "store/m/v/.tmp-1111111111111111"));
	assert_true(is_there(s.fd, "store/m2/v/.tmp-2222222222222222"));
	assert_true(is_there(s.fd, "store/.tmp-3333333333333333"));
	assert_int_equal(sweep(store, "none/", false), 0);
	scratch_close(&s);
}

TEST(a_sweep_leaves_a_put_that_is_under_way)
{
	struct scratch s = scratch_open();
	scope_store struct warm_store *store = open_store(&s);
	size_t n = 99;

	assert_int_equal(put(&s, store, "m/object", "1"), 0);
	put_text(s.fd, "store/m/.tmp-1234567890abcdef", "half");
	assert_int_equal(warm_store_sweep(store, "", 60000, every_name, false, &n, NULL, NULL), 0);
	assert_int_equal(n, 0);
	assert_true(is_there(s.fd, "store/m/.tmp-1234567890abcdef"));
	assert_true(is_there(s.fd, "store/m/object"));
	scratch_close(&s);
}

TEST(a_sweep_of_no_store_says_so_and_a_canceled_one_ends)
{
	struct scratch s = scratch_open();
	scope_store struct warm_store *store = open_store(&s);
	atomic_bool cancel = true;
	struct warm_call call = { .cancel = &cancel };
	size_t n = 99;

	assert_int_equal(warm_store_sweep(store, "", DAY_MS, every_name, false, &n, NULL, NULL),
			 WARM_NOT_FOUND);
	assert_int_equal(n, 0);
	put_old(&s, "store/m/.tmp-1111111111111111", 2 * DAY_MS);
	assert_int_equal(warm_store_sweep(store, "", DAY_MS, every_name, false, &n, &call, NULL),
			 WARM_CANCELED);
	assert_true(is_there(s.fd, "store/m/.tmp-1111111111111111"));
	scratch_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_put_can_be_read_in_ranges),
		cmocka_unit_test(a_range_past_the_end_is_corrupt_and_a_missing_object_is_not_found),
		cmocka_unit_test(an_object_is_never_replaced),
		cmocka_unit_test(a_source_that_is_too_short_leaves_nothing),
		cmocka_unit_test(a_list_names_what_is_below_its_prefix),
		cmocka_unit_test(a_store_that_is_not_there_is_not_found_until_something_is_put),
		cmocka_unit_test(an_object_is_deleted_and_what_is_not_there_is_no_error),
		cmocka_unit_test(names_that_leave_the_store_are_refused),
		cmocka_unit_test(a_link_in_the_store_is_not_followed),
		cmocka_unit_test(a_canceled_call_says_so),
		cmocka_unit_test(stores_are_opened_by_path_and_by_url),
		cmocka_unit_test(a_sweep_takes_temporary_files_that_are_old_and_nothing_else),
		cmocka_unit_test(a_sweep_takes_regular_files_alone_and_follows_no_link),
		cmocka_unit_test(a_sweep_stays_below_its_prefix),
		cmocka_unit_test(a_sweep_leaves_a_put_that_is_under_way),
		cmocka_unit_test(a_sweep_of_no_store_says_so_and_a_canceled_one_ends),
	};

	return RUN(tests);
}
