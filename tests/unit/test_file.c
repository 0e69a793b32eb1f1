/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <fcntl.h>

#include "lib/base/file.h"

TEST(only_paths_that_stay_beneath_are_taken)
{
	static const char *const good[] = {
		"a", "a/b", "...", "a..b/.c", "\303\274/\377", "a b\n"
	};
	static const char *const bad[] = { "",	   "/",	   "/a",   ".",	 "..",
					   "a/..", "../a", "a//b", "a/", "a/./b" };
	char path[WARM_PATH_BYTES + 1];

	for (size_t i = 0; i < COUNT(good); i++)
		assert_int_equal(warm_path_check(good[i], strlen(good[i]), NULL), 0);
	for (size_t i = 0; i < COUNT(bad); i++)
		assert_int_equal(warm_path_check(bad[i], strlen(bad[i]), NULL), WARM_INVALID);
	assert_int_equal(warm_path_check("a\0b", 3, NULL), WARM_INVALID);
	memset(path, 'x', sizeof(path));
	assert_int_equal(warm_path_check(path, 255, NULL), 0);
	assert_int_equal(warm_path_check(path, 256, NULL), WARM_INVALID);
	for (size_t i = 1; i < sizeof(path); i += 2)
		path[i] = '/';
	assert_int_equal(warm_path_check(path, WARM_PATH_BYTES - 1, NULL), 0);
	assert_int_equal(warm_path_check(path, WARM_PATH_BYTES + 1, NULL), WARM_INVALID);
}

TEST(control_bytes_are_made_printable)
{
	char shown[16];

	assert_string_equal(warm_path_printable("a\nb\x7f", shown, sizeof(shown)), "a\\x0ab\\x7f");
	assert_string_equal(warm_path_printable("\n\n\n\n\n", shown, sizeof(shown)),
			    "\\x0a\\x0a\\x0a");
	assert_string_equal(warm_path_printable("0123456789abcdef", shown, sizeof(shown)),
			    "0123456789abcde");
	assert_string_equal(warm_path_printable("x", shown, 1), "");
}

TEST(broken_utf8_is_made_printable)
{
	char shown[32];

	assert_string_equal(warm_path_printable("\303\274", shown, sizeof(shown)), "\303\274");
	warm_path_printable("a\377b", shown, sizeof(shown));
	assert_string_equal(shown, "a\\xffb");
}

TEST(a_file_is_loaded_whole_or_refused)
{
	struct scratch s = scratch_open();
	char *data = NULL;
	size_t bytes = 0;

	put_text(s.fd, "f", "12345");
	assert_int_equal(warm_file_load(s.fd, "f", 5, &data, &bytes, NULL), 0);
	assert_int_equal(bytes, 5);
	assert_string_equal(data, "12345");
	free(data);
	assert_int_equal(warm_file_load(s.fd, "f", 4, &data, &bytes, NULL), WARM_LIMIT);
	assert_int_equal(warm_file_load(s.fd, "none", 4, &data, &bytes, NULL), WARM_NOT_FOUND);
	assert_int_equal(warm_file_load(s.fd, ".", 4, &data, &bytes, NULL), WARM_INVALID);
	assert_int_equal(
		warm_file_load(AT_FDCWD, "/proc/self/status", 1 << 20, &data, &bytes, NULL), 0);
	assert_true(bytes > 100);
	free(data);
	assert_int_equal(warm_file_load(AT_FDCWD, "/proc/self/status", 10, &data, &bytes, NULL),
			 WARM_LIMIT);
	scratch_close(&s);
}

TEST(a_replaced_file_is_the_new_one_and_nothing_is_left_beside_it)
{
	struct scratch s = scratch_open();

	umask(077);
	assert_int_equal(warm_file_replace(s.fd, "f", "one", 3, 0644, true, NULL), 0);
	assert_int_equal(warm_file_replace(s.fd, "f", "", 0, 0666, false, NULL), 0);
	assert_file(s.fd, "f", "");
	assert_int_equal(stat_of(s.fd, "f").st_mode & 0777, 0666);
	assert_int_equal(warm_file_replace(s.fd, "no/f", "x", 1, 0666, false, NULL),
			 WARM_NOT_FOUND);
	put_text(s.fd, "dir/x", "x");
	assert_true(warm_file_replace(s.fd, "dir", "x", 1, 0666, false, NULL) != 0);
	char *tree = list_tree(s.fd, false);
	assert_non_null(strstr(tree, "dir/x size=1"));
	assert_null(strstr(tree, ".tmp-"));
	free(tree);
	scratch_close(&s);
}

TEST(a_short_file_read_by_offset_is_corrupt)
{
	struct scratch s = scratch_open();
	char data[8];

	put_text(s.fd, "f", "12345");
	scope_close int fd = openat(s.fd, "f", O_RDONLY | O_CLOEXEC);
	assert_int_equal(warm_file_read_at(fd, data, 3, 2, NULL), 0);
	assert_memory_equal(data, "345", 3);
	assert_int_equal(warm_file_read_at(fd, data, 4, 2, NULL), WARM_CORRUPT);
	scratch_close(&s);
}

TEST(nothing_beneath_follows_a_link_or_leaves)
{
	struct scratch s = scratch_open();
	int fd = -1;
	const char *name = NULL;

	put_text(s.fd, "outside/f", "secret");
	put_text(s.fd, "in/real/f", "x");
	scope_close int in = openat(s.fd, "in", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(symlinkat("../outside", in, "dir"), 0);
	assert_int_equal(symlinkat("real/f", in, "file"), 0);
	static const char *const bad[] = { "dir/f", "file" };
	for (size_t i = 0; i < COUNT(bad); i++)
		assert_int_equal(warm_beneath_open(in, bad[i], O_RDONLY, 0, &fd, NULL),
				 WARM_CORRUPT);
	assert_true(warm_beneath_open(in, "../outside/f", O_RDONLY, 0, &fd, NULL) != 0);
	assert_true(warm_beneath_open(in, "dir/new", O_WRONLY | O_CREAT, 0666, &fd, NULL) != 0);
	assert_true(warm_beneath_mkdirs(in, "dir/sub", NULL) != 0);
	assert_true(warm_beneath_parent(in, "dir/f", &fd, &name, NULL) != 0);
	assert_false(is_there(s.fd, "outside/new"));
	assert_false(is_there(s.fd, "outside/sub"));
	assert_int_equal(warm_beneath_open(in, "real/f", O_RDONLY, 0, &fd, NULL), 0);
	close(fd);
	scratch_close(&s);
}

TEST(the_parent_of_a_path_is_opened)
{
	struct scratch s = scratch_open();
	const char *name = NULL;
	int fd = -1;

	put_text(s.fd, "a/b/f", "x");
	assert_int_equal(warm_beneath_parent(s.fd, "a/b/f", &fd, &name, NULL), 0);
	assert_string_equal(name, "f");
	assert_true(is_there(fd, "f"));
	close(fd);
	assert_int_equal(warm_beneath_parent(s.fd, "top", &fd, &name, NULL), 0);
	assert_string_equal(name, "top");
	assert_true(is_there(fd, "a/b/f"));
	close(fd);
	assert_int_equal(warm_beneath_parent(s.fd, "no/f", &fd, &name, NULL), WARM_NOT_FOUND);
	scratch_close(&s);
}

TEST(directories_are_made_for_everybody)
{
	struct scratch s = scratch_open();

	umask(077);
	assert_int_equal(warm_beneath_mkdirs(s.fd, "a/b/c", NULL), 0);
	assert_int_equal(warm_beneath_mkdirs(s.fd, "a/b/c", NULL), 0);
	assert_int_equal(stat_of(s.fd, "a/b").st_mode & 0777, 0777);
	put_text(s.fd, "a/f", "x");
	assert_int_equal(warm_beneath_mkdirs(s.fd, "a/f/c", NULL), WARM_NOT_FOUND);
	scratch_close(&s);
}

TEST(a_move_never_replaces)
{
	struct scratch s = scratch_open();

	put_text(s.fd, "f", "1");
	put_text(s.fd, "g", "2");
	put_text(s.fd, "d/x", "3");
	put_dir(s.fd, "e");
	assert_int_equal(warm_file_move(s.fd, "f", s.fd, "g", NULL), WARM_EXISTS);
	assert_int_equal(warm_file_move(s.fd, "d", s.fd, "e", NULL), WARM_EXISTS);
	assert_int_equal(warm_file_move(s.fd, "d", s.fd, "g", NULL), WARM_EXISTS);
	assert_file(s.fd, "g", "2");
	assert_int_equal(warm_file_move(s.fd, "f", s.fd, "h", NULL), 0);
	assert_int_equal(warm_file_move(s.fd, "d", s.fd, "e/d", NULL), 0);
	assert_file(s.fd, "e/d/x", "3");
	assert_int_equal(warm_file_move(s.fd, "none", s.fd, "h2", NULL), WARM_NOT_FOUND);
	scratch_close(&s);
}

TEST(a_tree_is_removed_and_what_links_point_to_stays)
{
	struct scratch s = scratch_open();

	put_text(s.fd, "outside/f", "stays");
	put_text(s.fd, "t/a/b/c", "goes");
	assert_int_equal(symlinkat("../outside", s.fd, "t/link"), 0);
	assert_int_equal(symlinkat("outside", s.fd, "top-link"), 0);
	assert_int_equal(mkfifoat(s.fd, "t/fifo", 0600), 0);
	assert_int_equal(warm_tree_remove(s.fd, "t", NULL), 0);
	assert_int_equal(warm_tree_remove(s.fd, "t", NULL), 0);
	assert_int_equal(warm_tree_remove(s.fd, "top-link", NULL), 0);
	assert_false(is_there(s.fd, "t"));
	assert_false(is_there(s.fd, "top-link"));
	assert_file(s.fd, "outside/f", "stays");
	scratch_close(&s);
}

TEST(times_before_1970_survive_the_way_to_timespec_and_back)
{
	static const int64_t times[] = {
		0, 1, -1, 999999999, -999999999, -1000000000, 1700000000123456789
	};

	for (size_t i = 0; i < COUNT(times); i++) {
		struct timespec ts = warm_timespec_of_ns(times[i]);
		assert_true(ts.tv_nsec >= 0 && ts.tv_nsec < 1000000000);
		assert_int_equal(warm_timespec_ns(ts), times[i]);
	}
}

TEST(the_boot_id_is_one_line)
{
	char id[40];

	warm_boot_id(id);
	assert_true(strlen(id) == 36 || strcmp(id, "unknown") == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_paths_that_stay_beneath_are_taken),
		cmocka_unit_test(control_bytes_are_made_printable),
		cmocka_unit_test(broken_utf8_is_made_printable),
		cmocka_unit_test(a_file_is_loaded_whole_or_refused),
		cmocka_unit_test(a_replaced_file_is_the_new_one_and_nothing_is_left_beside_it),
		cmocka_unit_test(a_short_file_read_by_offset_is_corrupt),
		cmocka_unit_test(nothing_beneath_follows_a_link_or_leaves),
		cmocka_unit_test(the_parent_of_a_path_is_opened),
		cmocka_unit_test(directories_are_made_for_everybody),
		cmocka_unit_test(a_move_never_replaces),
		cmocka_unit_test(a_tree_is_removed_and_what_links_point_to_stays),
		cmocka_unit_test(times_before_1970_survive_the_way_to_timespec_and_back),
		cmocka_unit_test(the_boot_id_is_one_line),
	};

	return RUN(tests);
}
