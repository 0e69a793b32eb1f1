/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/wait.h>

#include "lib/kernel/counters.h"

enum { OTHER_UID = 65534 };

static int entries_of(const struct scratch *s)
{
	scope_closedir DIR *dir = opendir(scratch_path(s, ".warmcache"));
	int n = 0;

	assert_non_null(dir);
	for (struct dirent *e; (e = readdir(dir)) != NULL;)
		n += e->d_name[0] != '.';
	return n;
}

static uint64_t read_one(const struct scratch *s, enum warm_kernel_counter counter)
{
	uint64_t values[WARM_KERNEL_COUNTED];

	assert_int_equal(warm_kernel_counters_read(s->fd, values, NULL), 0);
	return values[counter];
}

static void wait_for_exit_0(pid_t child)
{
	int status = -1;

	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

TEST(the_file_is_made_whole_and_for_all_whatever_the_umask)
{
	scope_scratch struct scratch s = scratch_open();
	struct warm_kernel_counters c = { 0 };

	mode_t old = umask(077);
	assert_int_equal(warm_kernel_counters_open(&c, s.fd, NULL), 0);
	umask(old);
	struct stat st = stat_of(s.fd, WARM_KERNEL_COUNTERS_PATH);
	assert_int_equal(st.st_size, 4096);
	assert_int_equal(st.st_mode & 07777, 0666);
	assert_int_equal(stat_of(s.fd, ".warmcache").st_mode & 0777, 0777);
	assert_int_equal(entries_of(&s), 1); /* nothing else is left there */
	warm_kernel_counters_close(&c);
}

TEST(what_is_counted_shows_in_the_process_and_in_the_file)
{
	scope_scratch struct scratch s = scratch_open();
	struct warm_kernel_counters c = { 0 };
	uint64_t values[WARM_KERNEL_COUNTED];

	warm_kernel_count(&c, WARM_KERNEL_COUNT_HITS, 5); /* before there is a file */
	assert_int_equal(warm_kernel_counters_open(&c, s.fd, NULL), 0);
	for (int i = 0; i < WARM_KERNEL_COUNTED; i++)
		warm_kernel_count(&c, (enum warm_kernel_counter)i, 100 + (uint64_t)i);
	warm_kernel_counters_flush(&c, true);
	warm_kernel_counters_flush(&c, true); /* nothing is added twice */
	assert_int_equal(warm_kernel_counters_read(s.fd, values, NULL), 0);
	for (int i = 0; i < WARM_KERNEL_COUNTED; i++)
		assert_int_equal(values[i], 100 + i + (i == WARM_KERNEL_COUNT_HITS ? 5 : 0));
	assert_int_equal(warm_kernel_counted(&c, WARM_KERNEL_COUNT_HITS), 105);
	warm_kernel_counters_close(&c);
	warm_kernel_count(&c, WARM_KERNEL_COUNT_HITS, 1); /* for itself alone */
	warm_kernel_counters_flush(&c, true);
	assert_int_equal(read_one(&s, WARM_KERNEL_COUNT_HITS), 105);
	assert_int_equal(warm_kernel_counted(&c, WARM_KERNEL_COUNT_HITS), 106);
}

TEST(processes_that_count_at_once_lose_nothing)
{
	scope_scratch struct scratch s = scratch_open();
	pid_t children[4];
	int start[2];

	/* All of them make the file: one is first. */
	assert_int_equal(pipe(start), 0);
	for (size_t i = 0; i < COUNT(children); i++) {
		children[i] = fork();
		if (children[i] == 0) {
			struct warm_kernel_counters c = { 0 };
			char byte;
			close(start[1]);
			if (read(start[0], &byte, 1) != 0 ||
			    warm_kernel_counters_open(&c, s.fd, NULL) != 0)
				_exit(1);
			for (int k = 0; k < 20000; k++) {
				warm_kernel_count(&c, WARM_KERNEL_COUNT_MISSES, i + 1);
				if (k % 100 == 0)
					warm_kernel_counters_flush(&c, true);
			}
			warm_kernel_counters_close(&c);
			_exit(warm_kernel_counted(&c, WARM_KERNEL_COUNT_MISSES) != 20000 * (i + 1));
		}
	}
	close(start[0]);
	close(start[1]);
	for (size_t i = 0; i < COUNT(children); i++)
		wait_for_exit_0(children[i]);
	assert_int_equal(read_one(&s, WARM_KERNEL_COUNT_MISSES), 20000 * (1 + 2 + 3 + 4));
	assert_int_equal(entries_of(&s), 1);
}

static void *count_much(void *counters)
{
	for (int i = 0; i < 20000; i++)
		warm_kernel_count(counters, WARM_KERNEL_COUNT_WAITS, 3);
	return NULL;
}

TEST(threads_that_count_at_once_lose_nothing)
{
	scope_scratch struct scratch s = scratch_open();
	struct warm_kernel_counters c = { 0 };
	pthread_t threads[4];

	assert_int_equal(warm_kernel_counters_open(&c, s.fd, NULL), 0);
	for (size_t i = 0; i < COUNT(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, count_much, &c), 0);
	for (size_t i = 0; i < COUNT(threads); i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(warm_kernel_counted(&c, WARM_KERNEL_COUNT_WAITS), 4 * 20000 * 3);
	warm_kernel_counters_flush(&c, true);
	assert_int_equal(read_one(&s, WARM_KERNEL_COUNT_WAITS), 4 * 20000 * 3);
	warm_kernel_counters_close(&c);
}

static void assert_not_used(const struct scratch *s)
{
	struct warm_kernel_counters c = { 0 };
	struct warm_error err = { 0 };
	uint64_t values[WARM_KERNEL_COUNTED];

	assert_true(warm_kernel_counters_open(&c, s->fd, &err) < 0);
	assert_string_not_equal(err.msg, "");
	assert_int_equal(c.id.ino, 0);
	warm_kernel_count(&c, WARM_KERNEL_COUNT_HITS, 2);
	assert_int_equal(warm_kernel_counted(&c, WARM_KERNEL_COUNT_HITS), 2);
	assert_true(warm_kernel_counters_read(s->fd, values, NULL) < 0);
	warm_kernel_counters_close(&c);
}

TEST(what_is_no_file_of_counters_is_left_as_it_is_and_a_process_counts_alone)
{
	scope_scratch struct scratch s = scratch_open();
	const char *path = WARM_KERNEL_COUNTERS_PATH;
	char sound[5000] = "warmcnt1";

	put_file(s.fd, path, sound, 4095, 0666, 0); /* cut short */
	assert_not_used(&s);
	assert_int_equal(stat_of(s.fd, path).st_size, 4095);
	put_file(s.fd, path, sound, 0, 0666, 0);
	assert_not_used(&s);
	assert_int_equal(stat_of(s.fd, path).st_size, 0);
	put_file(s.fd, path, sound, 5000, 0666, 0); /* of a longer format */
	assert_not_used(&s);
	sound[7] = '2'; /* of another version */
	put_file(s.fd, path, sound, 4096, 0666, 0);
	assert_not_used(&s);
	size_t bytes = 0;
	char *after = text_of(s.fd, path, &bytes);
	assert_int_equal(bytes, 4096);
	assert_memory_equal(after, sound, bytes);
	free(after);
	assert_int_equal(unlinkat(s.fd, path, 0), 0);
	put_dir(s.fd, path);
	assert_not_used(&s);
	assert_int_equal(unlinkat(s.fd, path, AT_REMOVEDIR), 0);
	assert_int_equal(mkfifoat(s.fd, path, 0666), 0);
	assert_not_used(&s);
	assert_int_equal(unlinkat(s.fd, path, 0), 0);
	sound[7] = '1'; /* behind a link: right contents in a wrong place */
	put_file(s.fd, "elsewhere", sound, 4096, 0666, 0);
	assert_int_equal(symlinkat("../elsewhere", s.fd, path), 0);
	assert_not_used(&s);
	after = text_of(s.fd, "elsewhere", &bytes);
	assert_memory_equal(after, sound, bytes);
	free(after);
	assert_int_equal(unlinkat(s.fd, path, 0), 0);
	put_file(s.fd, path, sound, 4096, 0666, 0); /* and the control */
	struct warm_kernel_counters c = { 0 };
	assert_int_equal(warm_kernel_counters_open(&c, s.fd, NULL), 0);
	warm_kernel_counters_close(&c);
}

TEST(a_file_that_is_cut_meanwhile_harms_nobody)
{
	scope_scratch struct scratch s = scratch_open();
	struct warm_kernel_counters c = { 0 };

	assert_int_equal(warm_kernel_counters_open(&c, s.fd, NULL), 0);
	put_file(s.fd, WARM_KERNEL_COUNTERS_PATH, "", 0, 0666, 0);
	warm_kernel_count(&c, WARM_KERNEL_COUNT_HITS, 1);
	warm_kernel_counters_flush(&c, true);
	assert_int_equal(warm_kernel_counted(&c, WARM_KERNEL_COUNT_HITS), 1);
	warm_kernel_counters_close(&c);
}

TEST(a_fork_adds_only_what_it_counts_itself)
{
	scope_scratch struct scratch s = scratch_open();
	struct warm_kernel_counters c = { 0 };

	assert_int_equal(warm_kernel_counters_open(&c, s.fd, NULL), 0);
	warm_kernel_count(&c, WARM_KERNEL_COUNT_HITS, 10);
	pid_t child = fork();
	if (child == 0) {
		warm_kernel_counters_forked(&c, s.fd);
		warm_kernel_count(&c, WARM_KERNEL_COUNT_HITS, 3);
		warm_kernel_counters_close(&c);
		_exit(0);
	}
	wait_for_exit_0(child);
	warm_kernel_counters_close(&c);
	assert_int_equal(read_one(&s, WARM_KERNEL_COUNT_HITS), 13);
}

TEST(a_file_where_the_directory_should_be_disturbs_nothing)
{
	scope_scratch struct scratch s = scratch_open();

	put_text(s.fd, ".warmcache", "not a directory");
	assert_not_used(&s);
	assert_file(s.fd, ".warmcache", "not a directory");
}

TEST(where_nobody_has_counted_there_is_nothing_to_read)
{
	scope_scratch struct scratch s = scratch_open();
	uint64_t values[WARM_KERNEL_COUNTED] = { 7 };

	assert_int_equal(warm_kernel_counters_read(s.fd, values, NULL), WARM_NOT_FOUND);
	assert_int_equal(values[0], 7); /* outputs are written on success alone */
	assert_false(is_there(s.fd, ".warmcache"));
}

TEST(on_a_volume_that_may_only_be_read_a_process_counts_alone_and_reads_the_sums)
{
	scope_scratch struct scratch s = scratch_open();
	struct warm_kernel_counters c = { 0 };

	if (geteuid() != 0) {
		print_message("# note: not root; nothing is tried as another user\n");
		return;
	}
	assert_int_equal(fchmod(s.fd, 0755), 0);
	pid_t child = fork();
	if (child == 0) { /* there is none, and none can be made */
		if (setuid(OTHER_UID) != 0 || warm_kernel_counters_open(&c, s.fd, NULL) == 0)
			_exit(1);
		warm_kernel_count(&c, WARM_KERNEL_COUNT_HITS, 1);
		_exit(warm_kernel_counted(&c, WARM_KERNEL_COUNT_HITS) != 1);
	}
	wait_for_exit_0(child);
	assert_false(is_there(s.fd, WARM_KERNEL_COUNTERS_PATH));
	assert_int_equal(warm_kernel_counters_open(&c, s.fd, NULL), 0);
	warm_kernel_count(&c, WARM_KERNEL_COUNT_HITS, 41);
	warm_kernel_counters_flush(&c, true);
	assert_int_equal(fchmodat(s.fd, WARM_KERNEL_COUNTERS_PATH, 0644, 0), 0);
	child = fork();
	if (child == 0) {
		struct warm_kernel_counters other = { 0 };
		uint64_t values[WARM_KERNEL_COUNTED];
		if (setuid(OTHER_UID) != 0 || warm_kernel_counters_open(&other, s.fd, NULL) == 0)
			_exit(1);
		warm_kernel_count(&other, WARM_KERNEL_COUNT_HITS, 1);
		_exit(warm_kernel_counters_read(s.fd, values, NULL) != 0 ||
		      values[WARM_KERNEL_COUNT_HITS] != 41);
	}
	wait_for_exit_0(child);
	assert_int_equal(read_one(&s, WARM_KERNEL_COUNT_HITS), 41);
	warm_kernel_counters_close(&c);
}

TEST(another_user_counts_in_the_same_file)
{
	scope_scratch struct scratch s = scratch_open();
	struct warm_kernel_counters c = { 0 };

	if (geteuid() != 0)
		return;
	mode_t old = umask(077);
	assert_int_equal(warm_kernel_counters_open(&c, s.fd, NULL), 0);
	umask(old);
	warm_kernel_count(&c, WARM_KERNEL_COUNT_HITS, 1);
	warm_kernel_counters_flush(&c, true);
	assert_int_equal(fchmod(s.fd, 0755), 0);
	pid_t child = fork();
	if (child == 0) {
		struct warm_kernel_counters other = { 0 };
		if (setuid(OTHER_UID) != 0 || warm_kernel_counters_open(&other, s.fd, NULL) != 0)
			_exit(1);
		warm_kernel_count(&other, WARM_KERNEL_COUNT_HITS, 1);
		warm_kernel_counters_close(&other);
		_exit(0);
	}
	wait_for_exit_0(child);
	assert_int_equal(read_one(&s, WARM_KERNEL_COUNT_HITS), 2);
	warm_kernel_counters_close(&c);
}

TEST(each_counter_has_a_name_of_its_own_and_says_what_it_counts)
{
	for (int i = 0; i < WARM_KERNEL_COUNTED; i++) {
		const char *name = warm_kernel_counter_name((enum warm_kernel_counter)i);
		assert_true(name[0] != '\0' &&
			    strspn(name, "abcdefghijklmnopqrstuvwxyz_") == strlen(name));
		assert_string_not_equal(warm_kernel_counter_text((enum warm_kernel_counter)i), "");
		for (int k = 0; k < i; k++)
			assert_string_not_equal(
				name, warm_kernel_counter_name((enum warm_kernel_counter)k));
	}
}

/* The file's layout: a counter that moved would add one thing to another in a mixed volume. */
TEST(counters_stand_where_they_always_stood)
{
	static const char *const order[] = { "hits",
					     "misses",
					     "waits",
					     "failed",
					     "bad_entries",
					     "unstored",
					     "evicted",
					     "helpers_started",
					     "bytes_read",
					     "bytes_written",
					     "hit_ns",
					     "compile_ns",
					     "uncacheable_option",
					     "uncacheable_environment",
					     "uncacheable_time",
					     "uncacheable_changed",
					     "uncacheable_host" };
	scope_scratch struct scratch s = scratch_open();
	struct warm_kernel_counters c = { 0 };
	uint8_t byte = 0;

	assert_true(WARM_KERNEL_COUNTED >= COUNT(order));
	for (size_t i = 0; i < COUNT(order); i++)
		assert_string_equal(warm_kernel_counter_name((enum warm_kernel_counter)i),
				    order[i]);
	assert_int_equal(warm_kernel_counters_open(&c, s.fd, NULL), 0);
	warm_kernel_count(&c, WARM_KERNEL_COUNT_BY_HOST, 77);
	warm_kernel_counters_flush(&c, true);
	scope_close int fd = openat(s.fd, WARM_KERNEL_COUNTERS_PATH, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, 64 + 16 * 8), 1);
	assert_int_equal(byte, 77);
	warm_kernel_counters_close(&c);
}

TEST(each_reason_has_its_counter)
{
	static const struct {
		enum warm_kernel_reason reason;
		const char *name;
	} rows[] = {
		{ WARM_KERNEL_BY_OPTION, "uncacheable_option" },
		{ WARM_KERNEL_BY_ENVIRONMENT, "uncacheable_environment" },
		{ WARM_KERNEL_BY_TIME, "uncacheable_time" },
		{ WARM_KERNEL_BY_CHANGE, "uncacheable_changed" },
		{ WARM_KERNEL_BY_HOST, "uncacheable_host" },
	};

	assert_int_equal(COUNT(rows), WARM_KERNEL_REASONS - 1);
	for (size_t i = 0; i < COUNT(rows); i++)
		assert_string_equal(
			warm_kernel_counter_name(warm_kernel_counter_of(rows[i].reason)),
			rows[i].name);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_file_is_made_whole_and_for_all_whatever_the_umask),
		cmocka_unit_test(what_is_counted_shows_in_the_process_and_in_the_file),
		cmocka_unit_test(processes_that_count_at_once_lose_nothing),
		cmocka_unit_test(threads_that_count_at_once_lose_nothing),
		cmocka_unit_test(
			what_is_no_file_of_counters_is_left_as_it_is_and_a_process_counts_alone),
		cmocka_unit_test(a_file_that_is_cut_meanwhile_harms_nobody),
		cmocka_unit_test(a_fork_adds_only_what_it_counts_itself),
		cmocka_unit_test(a_file_where_the_directory_should_be_disturbs_nothing),
		cmocka_unit_test(where_nobody_has_counted_there_is_nothing_to_read),
		cmocka_unit_test(
			on_a_volume_that_may_only_be_read_a_process_counts_alone_and_reads_the_sums),
		cmocka_unit_test(another_user_counts_in_the_same_file),
		cmocka_unit_test(each_counter_has_a_name_of_its_own_and_says_what_it_counts),
		cmocka_unit_test(counters_stand_where_they_always_stood),
		cmocka_unit_test(each_reason_has_its_counter),
	};

	return RUN(tests);
}
