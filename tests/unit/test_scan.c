/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <time.h>

#include "lib/sync/scan.h"

#define KEY52 "JLBMVPBZBZDTHY2Q54DTTFGFZEYHW5VI2ZA6RYBGUSU5E6OC3WDA"

static void count_dir(void *arg, const char *path)
{
	struct warm_buf *seen = arg;

	warm_buf_printf(seen, "[%s]", path);
}

static struct warm_scan scan(const struct scratch *s, uint64_t max_bytes)
{
	struct warm_profile_roots roots = { .mount_hash = 0xff };
	struct warm_scan r;
	struct warm_error err = { 0 };

	if (warm_scan_run(s->fd, &roots, max_bytes, NULL, NULL, NULL, &r, &err) != 0)
		fail_msg("%s", err.msg);
	return r;
}

TEST(an_empty_volume_has_no_groups)
{
	struct scratch s = scratch_open();
	scope_scan struct warm_scan r = scan(&s, UINT64_MAX);

	assert_int_equal(r.n_files, 0);
	assert_int_equal(r.n_groups, 0);
	scratch_close(&s);
}

TEST(files_are_gathered_into_sorted_groups)
{
	struct scratch s = scratch_open();

	put_text(s.fd, "z", "12");
	put_text(s.fd, "triton/" KEY52 "/b.ptx", "1");
	put_text(s.fd, "triton/" KEY52 "/a.ptx", "1");
	put_text(s.fd, "flashinfer/x/generated/n/n.cu", "1");
	put_text(s.fd, "flashinfer/x/cached_ops/n/n.so", "123");
	put_text(s.fd, "flashinfer/x/other/n/n.so", "never");
	put_text(s.fd, "a/b", "1");
	scope_scan struct warm_scan r = scan(&s, UINT64_MAX);
	assert_int_equal(r.n_groups, 4);
	assert_int_equal(r.n_files, 6);
	assert_int_equal(r.bytes, 9);
	static const char *const names[] = { "a/b", "flashinfer/x/cached_ops/n",
					     "triton/" KEY52 "@00000000000000ff", "z" };
	for (size_t i = 0; i < 4; i++)
		assert_string_equal(r.groups[i].name, names[i]);
	const struct warm_scan_group *g = &r.groups[1];
	assert_int_equal(g->n_files, 2);
	assert_int_equal(g->bytes, 4);
	assert_string_equal(r.files[g->first_file].path, "flashinfer/x/cached_ops/n/n.so");
	assert_string_equal(r.files[g->first_file + 1].path, "flashinfer/x/generated/n/n.cu");
	g = &r.groups[2];
	assert_int_equal(g->profile, WARM_PROFILE_TRITON);
	assert_int_equal(g->bound, 0xff);
	assert_string_equal(r.files[g->first_file].path, "triton/" KEY52 "/a.ptx");
	struct stat st = stat_of(s.fd, "triton/" KEY52 "/a.ptx");
	struct warm_seen seen = warm_seen_of(&st);
	assert_true(warm_seen_equal(&seen, &r.files[g->first_file].seen));
	scratch_close(&s);
}

TEST(what_is_no_regular_file_is_left_out_and_counted)
{
	struct scratch s = scratch_open();

	put_text(s.fd, "a", "1");
	put_text(s.fd, "large", "12345");
	put_text(s.fd, "x.tmp", "1");
	put_text(s.fd, "tmp/x", "1");
	put_text(s.fd, "locks/x", "1");
	put_text(s.fd, ".warmcache/ledger", "1");
	put_text(s.fd, "triton/stray", "1");
	assert_int_equal(symlinkat("a", s.fd, "link"), 0);
	assert_int_equal(symlinkat(".", s.fd, "loop"), 0);
	assert_int_equal(mkfifoat(s.fd, "fifo", 0600), 0);
	scope_scan struct warm_scan r = scan(&s, 4);
	assert_int_equal(r.n_groups, 1);
	assert_string_equal(r.groups[0].name, "a");
	assert_int_equal(r.skipped_kinds, 3);
	assert_int_equal(r.skipped_large, 1);
	assert_true(r.first_skipped[0] != '\0');
	scratch_close(&s);
}

TEST(a_companions_change_is_no_change_of_its_group)
{
	struct scratch s = scratch_open();

	put_text(s.fd, "jax/f-cache", "1");
	struct timespec t = { 0, 30 * 1000000 };
	nanosleep(&t, NULL);
	put_text(s.fd, "jax/f-atime", "1");
	scope_scan struct warm_scan r = scan(&s, UINT64_MAX);
	assert_int_equal(r.n_groups, 1);
	assert_int_equal(r.groups[0].n_files, 2);
	assert_int_equal(r.groups[0].changed_ns,
			 warm_timespec_ns(stat_of(s.fd, "jax/f-cache").st_ctim));
	scratch_close(&s);
}

TEST(each_directory_is_shown_for_watching)
{
	struct scratch s = scratch_open();
	struct warm_buf seen = WARM_BUF_INIT;
	struct warm_scan r;

	put_text(s.fd, "a/b/c", "1");
	put_dir(s.fd, "tmp/x");
	assert_int_equal(warm_scan_run(s.fd, NULL, UINT64_MAX, count_dir, &seen, NULL, &r, NULL),
			 0);
	warm_buf_put_u8(&seen, 0);
	assert_string_equal((char *)seen.data, "[][a][a/b]");
	warm_buf_release(&seen);
	warm_scan_release(&r);
	scratch_close(&s);
}

TEST(very_deep_directories_do_no_harm)
{
	struct scratch s = scratch_open();
	char path[300] = "d";

	for (int i = 0; i < 80; i++)
		strcat(path, "/d");
	put_dir(s.fd, path);
	put_text(s.fd, "a", "1");
	scope_scan struct warm_scan r = scan(&s, UINT64_MAX);
	assert_int_equal(r.n_groups, 1);
	scratch_close(&s);
}

TEST(a_canceled_scan_says_so)
{
	struct scratch s = scratch_open();
	atomic_bool cancel = true;
	struct warm_call call = { .cancel = &cancel };
	struct warm_scan r;

	put_text(s.fd, "a", "1");
	assert_int_equal(warm_scan_run(s.fd, NULL, UINT64_MAX, NULL, NULL, &call, &r, NULL),
			 WARM_CANCELED);
	scratch_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_volume_has_no_groups),
		cmocka_unit_test(files_are_gathered_into_sorted_groups),
		cmocka_unit_test(what_is_no_regular_file_is_left_out_and_counted),
		cmocka_unit_test(a_companions_change_is_no_change_of_its_group),
		cmocka_unit_test(each_directory_is_shown_for_watching),
		cmocka_unit_test(very_deep_directories_do_no_harm),
		cmocka_unit_test(a_canceled_scan_says_so),
	};

	return RUN(tests);
}
