/* SPDX-License-Identifier: Apache-2.0 */
/* Helpers as processes: with a real NVRTC, and with scripts that misbehave in their place. */
#include "tests/support/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "lib/base/clock.h"
#include "warmcache/compiler.h"

static bool lacking(void)
{
	const char *library = getenv("WARM_NVRTC_LIBRARY"), *helper = getenv("WARM_NVRTC_HELPER");

	return library == NULL || library[0] == '\0' || helper == NULL || helper[0] == '\0';
}
#define NEEDS_NVRTC()  \
	if (lacking()) \
	skip()

enum { SOURCE_BYTES = 2400, GONE_MS = 3000, LONG_MS = 20000 };

static void nap_ms(long ms)
{
	struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	nanosleep(&ts, NULL);
}

/* ---- processes ---- */

/* Its state as in /proc/<pid>/stat, and its parent; 'X' when it is gone. */
static char state_of(pid_t pid, pid_t *ret_parent)
{
	char path[40], text[512];

	snprintf(path, sizeof(path), "/proc/%ld/stat", (long)pid);
	scope_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	if (n <= 0)
		return 'X';
	text[n] = '\0';
	const char *end = strrchr(text, ')'); /* names may hold anything */
	if (end == NULL || strlen(end) < 5)
		return 'X';
	*ret_parent = (pid_t)strtol(end + 4, NULL, 10);
	return end[2];
}

/* The running children of `host`, the first of them in `ret_first`. */
static int children_of(pid_t host, pid_t *ret_first)
{
	scope_closedir DIR *dir = opendir("/proc");
	int n = 0;

	for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
		pid_t pid = (pid_t)strtol(e->d_name, NULL, 10), parent = 0;
		char state = pid > 0 ? state_of(pid, &parent) : 'X';
		if (parent != host || state == 'Z' || state == 'X')
			continue;
		if (n++ == 0 && ret_first != NULL)
			*ret_first = pid;
	}
	return n;
}

static pid_t only_child(void)
{
	pid_t pid = 0;

	assert_int_equal(children_of(getpid(), &pid), 1);
	return pid;
}

static bool goes_within(pid_t pid, int64_t ms)
{
	int64_t end_ms = warm_clock_ms() + ms;
	pid_t parent;

	for (;;) {
		char state = state_of(pid, &parent);
		if (state == 'X' || state == 'Z')
			return true;
		if (warm_clock_ms() > end_ms)
			return false;
		nap_ms(5);
	}
}

static bool children_come_to(int want, int64_t ms)
{
	int64_t end_ms = warm_clock_ms() + ms;

	while (children_of(getpid(), NULL) != want) {
		if (warm_clock_ms() > end_ms)
			return false;
		nap_ms(5);
	}
	return true;
}

static void wait_for_exit_0(pid_t child)
{
	int status = -1;

	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/* The text of /proc/<pid>/<name>, NULs as spaces; the caller frees it. */
static char *proc_text(pid_t pid, const char *name)
{
	char path[60];
	enum { BYTES = 65536 };
	char *text = calloc(1, BYTES);

	assert_non_null(text);
	snprintf(path, sizeof(path), "/proc/%ld/%s", (long)pid, name);
	scope_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	ssize_t n, used = 0;
	while ((n = read(fd, text + used, (size_t)(BYTES - 1 - used))) > 0)
		used += n;
	for (ssize_t i = 0; i < used; i++)
		if (text[i] == '\0')
			text[i] = ' ';
	return text;
}

/* ---- compiles ---- */

/* NULL when it can't be opened. Nothing is stored where `cache` is NULL: each call compiles. */
static struct warm_compiler *open_compiler(const char *cache, unsigned max_parallel)
{
	struct warm_compiler_options o = WARM_COMPILER_OPTIONS_INIT;
	struct warm_compiler *c = NULL;

	o.cache_dir = cache;
	o.max_parallel = max_parallel;
	return warm_compiler_open(&o, &c, NULL) == 0 ? c : NULL;
}

static struct warm_compiler *must_open(unsigned max_parallel)
{
	struct warm_compiler *c = open_compiler(NULL, max_parallel);

	assert_non_null(c);
	return c;
}

/* A program of its own for each number; each kernel more costs some 100 ms. */
static struct warm_compile_program program_of(char source[SOURCE_BYTES], int number, int kernels)
{
	static const char *const options[] = { "-arch=sm_90" };
	size_t used = (size_t)snprintf(source, SOURCE_BYTES,
				       "__global__ void first(int *a) { a[0] = %d; }\n", number);

	for (int i = 0; i < kernels; i++)
		used += (size_t)snprintf(
			source + used, SOURCE_BYTES - used,
			"__global__ void k%d(float *a) { for (int i = 0; i < %d; i++) "
			"a[i] = sinf(a[i]) * powf(a[i + 1], a[i + 2]); }\n",
			i, 5 + i);
	return (struct warm_compile_program){ .source = source,
					      .source_bytes = used,
					      .name = "k.cu",
					      .options = options,
					      .n_options = 1 };
}

/* 0, or what warm_compiler_compile() returned. */
static int compile(struct warm_compiler *c, int number, int kernels,
		   struct warm_compiler_error *error)
{
	char source[SOURCE_BYTES];
	struct warm_compile_program p = program_of(source, number, kernels);
	struct warm_compile_result *r = NULL;
	int rc = warm_compiler_compile(c, &p, &r, error);

	if (rc == 0 && warm_compile_result_output(r, WARM_OUTPUT_CUBIN, NULL) == NULL)
		rc = -1;
	warm_compile_result_free(r);
	return rc;
}

static uint64_t helpers_started(const struct warm_compiler *c)
{
	struct warm_compiler_counters n;

	warm_compiler_get_counters(c, &n, sizeof(n));
	return n.helpers_started;
}

/* A thread that compiles. */
struct worker {
	pthread_t thread;
	struct warm_compiler *c;
	int number, times, kernels;
	atomic_int *done;
	int rc;
	struct warm_compiler_error error;
};

static void *work(void *arg)
{
	struct worker *w = arg;

	for (int i = 0; i < w->times && w->rc == 0; i++)
		w->rc = compile(w->c, w->number + i, w->kernels, &w->error);
	if (w->done != NULL)
		atomic_fetch_add(w->done, 1);
	return NULL;
}

static void start_worker(struct worker *w)
{
	assert_int_equal(pthread_create(&w->thread, NULL, work, w), 0);
}

static void join_worker(struct worker *w)
{
	assert_int_equal(pthread_join(w->thread, NULL), 0);
}

/* ---- used again ---- */

TEST(a_helper_serves_one_compile_after_another)
{
	NEEDS_NVRTC();
	struct warm_compiler *c = must_open(2);

	for (int i = 0; i < 5; i++)
		assert_int_equal(compile(c, i, 0, NULL), 0);
	pid_t helper = only_child();
	struct warm_compile_program wrong = { .source = "wrong", .source_bytes = 5 };
	struct warm_compile_result *r = NULL;
	assert_int_equal(warm_compiler_compile(c, &wrong, &r, NULL), WARM_COMPILER_COMPILE_ERROR);
	assert_int_equal(compile(c, 9, 0, NULL), 0);
	assert_int_equal(only_child(), helper);
	assert_int_equal(helpers_started(c), 1);
	warm_compiler_close(c);
}

TEST(a_helper_outlives_the_thread_that_started_it)
{
	NEEDS_NVRTC();
	struct worker w = { .c = must_open(2), .times = 1 };

	start_worker(&w);
	join_worker(&w);
	assert_int_equal(w.rc, 0);
	nap_ms(50);
	assert_int_equal(compile(w.c, 5, 0, NULL), 0);
	assert_int_equal(helpers_started(w.c), 1);
	warm_compiler_close(w.c);
}

TEST(no_more_helpers_live_than_may_compile_at_once)
{
	NEEDS_NVRTC();
	struct warm_compiler *c = must_open(2);
	struct worker workers[8];
	atomic_int done = 0;
	int most = 0;

	for (int i = 0; i < 8; i++) {
		workers[i] = (struct worker){ .c = c, .number = 10 * i, .times = 3, .done = &done };
		start_worker(&workers[i]);
	}
	while (atomic_load(&done) < 8) {
		int n = children_of(getpid(), NULL);
		most = n > most ? n : most;
		nap_ms(2);
	}
	for (int i = 0; i < 8; i++) {
		join_worker(&workers[i]);
		assert_int_equal(workers[i].rc, 0);
	}
	assert_true(most == 1 || most == 2);
	assert_true(helpers_started(c) <= 2);
	warm_compiler_close(c);
}

TEST(of_many_helpers_only_four_wait_for_more)
{
	NEEDS_NVRTC();
	struct warm_compiler *c = must_open(6);
	struct worker workers[6];

	for (int i = 0; i < 6; i++) {
		workers[i] = (struct worker){ .c = c, .number = i, .times = 1, .kernels = 1 };
		start_worker(&workers[i]);
	}
	for (int i = 0; i < 6; i++) {
		join_worker(&workers[i]);
		assert_int_equal(workers[i].rc, 0);
	}
	assert_true(helpers_started(c) > 4);
	assert_true(children_come_to(4, GONE_MS));
	nap_ms(50);
	assert_int_equal(children_of(getpid(), NULL), 4);
	warm_compiler_close(c);
	assert_int_equal(children_of(getpid(), NULL), 0);
}

TEST(a_helper_follows_its_host_into_another_directory)
{
	NEEDS_NVRTC();
	scope_scratch struct scratch s = scratch_open();
	static const char *const options[] = { "-arch=sm_90", "-Iinc" };
	struct warm_compile_program p = { .source = "#include <a.h>\n__global__ void NAME() {}\n",
					  .options = options,
					  .n_options = 2 };
	struct warm_compiler *c = must_open(1);
	scope_close int before_fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	assert_true(before_fd >= 0);
	p.source_bytes = strlen(p.source);
	put_text(s.fd, "one/inc/a.h", "#define NAME first_one\n");
	put_text(s.fd, "two/inc/a.h", "#define NAME second_one\n");
	for (int i = 0; i < 4; i++) {
		struct warm_compile_result *r = NULL;
		assert_int_equal(chdir(scratch_path(&s, i % 2 == 0 ? "one" : "two")), 0);
		int rc = warm_compiler_compile(c, &p, &r, NULL);
		assert_int_equal(fchdir(before_fd), 0);
		assert_int_equal(rc, 0);
		assert_non_null(strstr(warm_compile_result_output(r, WARM_OUTPUT_PTX, NULL),
				       i % 2 == 0 ? "first_one" : "second_one"));
		warm_compile_result_free(r);
	}
	assert_int_equal(helpers_started(c), 1);
	warm_compiler_close(c);
}

TEST(compiles_leave_no_descriptor_open)
{
	NEEDS_NVRTC();
	struct warm_compiler *c = must_open(1);
	char listing[40];

	snprintf(listing, sizeof(listing), "/proc/%ld/fd", (long)getpid());
	assert_int_equal(compile(c, 0, 0, NULL), 0);
	scope_closedir DIR *dir = opendir(listing);
	int before = 0, after = 0;
	while (readdir(dir) != NULL)
		before++;
	for (int i = 0; i < 4; i++) {
		kill(only_child(), SIGKILL); /* with the helpers, too */
		assert_true(children_come_to(0, GONE_MS));
		/* Twice: the helper of a second try does not wait for more. */
		assert_int_equal(compile(c, i, 0, NULL), 0);
		assert_int_equal(compile(c, i, 0, NULL), 0);
	}
	rewinddir(dir);
	while (readdir(dir) != NULL)
		after++;
	assert_int_equal(after, before);
	warm_compiler_close(c);
}

/* ---- helpers of their own ---- */

TEST(another_environment_has_a_helper_of_its_own)
{
	NEEDS_NVRTC();
	struct warm_compiler *c = must_open(3);

	setenv("WARM_TEST_SECRET", "hunter2", 1);
	assert_int_equal(compile(c, 0, 0, NULL), 0);
	pid_t plain = only_child();
	setenv("EDG_BASE", "/nowhere", 1);
	int rc = compile(c, 1, 0, NULL);
	unsetenv("EDG_BASE");
	unsetenv("WARM_TEST_SECRET");
	assert_int_equal(rc, 0);
	assert_int_equal(helpers_started(c), 2);
	assert_int_equal(children_of(getpid(), NULL), 2);
	scope_free char *first = proc_text(plain, "environ");
	assert_null(strstr(first, "EDG_BASE"));
	assert_null(strstr(first, "hunter2")); /* nothing else is passed on */
	/* Both wait, each for its own. */
	assert_int_equal(compile(c, 2, 0, NULL), 0);
	setenv("EDG_BASE", "/nowhere", 1);
	rc = compile(c, 3, 0, NULL);
	unsetenv("EDG_BASE");
	assert_int_equal(rc, 0);
	assert_int_equal(helpers_started(c), 2);
	kill(plain, SIGKILL);
	assert_true(goes_within(plain, GONE_MS));
	scope_free char *second = proc_text(only_child(), "environ");
	assert_non_null(strstr(second, "EDG_BASE=/nowhere"));
	assert_null(strstr(second, "hunter2"));
	warm_compiler_close(c);
}

TEST(a_helper_of_another_environment_makes_room)
{
	NEEDS_NVRTC();
	struct warm_compiler *c = must_open(1);

	assert_int_equal(compile(c, 0, 0, NULL), 0);
	pid_t plain = only_child();
	setenv("EDG_BASE", "/nowhere", 1);
	int rc = compile(c, 1, 0, NULL);
	unsetenv("EDG_BASE");
	assert_int_equal(rc, 0);
	assert_true(goes_within(plain, GONE_MS));
	assert_int_equal(children_of(getpid(), NULL), 1);
	assert_int_equal(compile(c, 2, 0, NULL), 0);
	assert_int_equal(helpers_started(c), 3);
	warm_compiler_close(c);
}

TEST(a_compile_that_may_leave_something_behind_has_a_helper_for_itself)
{
	NEEDS_NVRTC();
	scope_scratch struct scratch s = scratch_open();
	char time_option[320];
	const char *const lists[][3] = { { "-arch=sm_90", "--pch", "-DX" },
					 { "-arch=sm_90", "-Xcudafe", "--display_error_number" },
					 { "-arch=sm_90", time_option, "-DX" } };
	struct warm_compiler *c = must_open(1);

	snprintf(time_option, sizeof(time_option), "--time=%s/times.csv", s.path);
	for (size_t i = 0; i < COUNT(lists); i++) {
		char source[SOURCE_BYTES];
		struct warm_compile_program p = program_of(source, 1, 0);
		struct warm_compile_result *r = NULL;
		p.options = lists[i];
		p.n_options = 3;
		/* Neither one that waits nor one that comes back to wait. */
		assert_int_equal(compile(c, 0, 0, NULL), 0);
		assert_int_equal(helpers_started(c), 2 * i + 1);
		assert_int_equal(warm_compiler_compile(c, &p, &r, NULL), 0);
		assert_int_equal(warm_compile_result_source(r), WARM_COMPILE_UNCACHEABLE);
		assert_int_equal(helpers_started(c), 2 * i + 2);
		assert_true(children_come_to(0, GONE_MS));
		warm_compile_result_free(r);
	}
	warm_compiler_close(c);
}

static unsigned long long mask_of(const char *status, const char *field)
{
	const char *at = strstr(status, field);

	assert_non_null(at);
	return strtoull(at + strlen(field), NULL, 16);
}

TEST(a_helper_is_set_apart_from_its_host)
{
	NEEDS_NVRTC();
	struct warm_compiler *c = must_open(1);
	struct sigaction ignore = { .sa_handler = SIG_IGN }, before;
	sigset_t block, old;
	int ends[2];
	char byte;

	/* Descriptors that the host forgot to mark, signals that it blocks and ignores. */
	assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
	sigemptyset(&block);
	sigaddset(&block, SIGTERM);
	assert_int_equal(pthread_sigmask(SIG_BLOCK, &block, &old), 0);
	assert_int_equal(sigaction(SIGUSR1, &ignore, &before), 0);
	int rc = compile(c, 0, 0, NULL);
	assert_int_equal(sigaction(SIGUSR1, &before, NULL), 0);
	assert_int_equal(pthread_sigmask(SIG_SETMASK, &old, NULL), 0);
	assert_int_equal(rc, 0);
	pid_t helper = only_child();
	assert_int_equal(getpgid(helper), helper); /* no Ctrl-C of the host's terminal */
	assert_int_not_equal(helper, getpgrp());
	close(ends[1]);
	assert_int_equal(read(ends[0], &byte, 1), 0); /* the helper holds no end */
	close(ends[0]);
	scope_free char *status = proc_text(helper, "status");
	assert_false(mask_of(status, "SigBlk:") & 1ull << (SIGTERM - 1));
	assert_false(mask_of(status, "SigIgn:") & 1ull << (SIGUSR1 - 1));
	warm_compiler_close(c);
}

/* ---- helpers that die ---- */

TEST(a_helper_that_was_killed_while_it_waited_is_replaced_without_an_error)
{
	NEEDS_NVRTC();
	struct warm_compiler *c = must_open(1);

	assert_int_equal(compile(c, 0, 0, NULL), 0);
	pid_t helper = only_child();
	kill(helper, SIGKILL);
	assert_int_equal(compile(c, 1, 0, NULL), 0); /* whether it is gone yet or not */
	assert_int_equal(helpers_started(c), 2);
	assert_true(goes_within(helper, GONE_MS));
	assert_int_equal(compile(c, 2, 0, NULL), 0);
	assert_int_not_equal(only_child(), helper);
	warm_compiler_close(c);
}

TEST(a_new_helper_that_is_killed_while_it_compiles_is_an_error_that_says_so)
{
	NEEDS_NVRTC();
	struct warm_compiler *c = must_open(1);
	struct worker w = { .c = c, .times = 1, .kernels = 12, .error = WARM_COMPILER_ERROR_INIT };
	pid_t helper = 0;

	start_worker(&w);
	while (children_of(getpid(), &helper) == 0)
		nap_ms(2);
	nap_ms(150);
	kill(helper, SIGKILL);
	join_worker(&w);
	assert_int_equal(w.rc, WARM_COMPILER_HELPER);
	assert_int_equal(w.error.status, WARM_COMPILER_HELPER);
	assert_non_null(strstr(w.error.message, "killed by signal 9"));
	assert_non_null(strstr(w.error.message, "warmcache-nvrtc"));
	warm_compiler_error_release(&w.error);
	/* Its place is free again. */
	assert_int_equal(compile(c, 1, 0, NULL), 0);
	assert_int_equal(helpers_started(c), 2);
	warm_compiler_close(c);
}

TEST(a_used_helper_that_is_killed_while_it_compiles_is_tried_once_more)
{
	NEEDS_NVRTC();
	struct warm_compiler *c = must_open(1);
	struct worker w = { .c = c, .times = 1, .kernels = 5, .error = WARM_COMPILER_ERROR_INIT };

	assert_int_equal(compile(c, 100, 0, NULL), 0);
	pid_t helper = only_child();
	start_worker(&w);
	nap_ms(150);
	kill(helper, SIGKILL);
	join_worker(&w);
	assert_int_equal(w.rc, 0);
	assert_int_equal(helpers_started(c), 2);
	warm_compiler_close(c);
}

/* Compile with a script in the helper's place. The script's pid goes to `ret_pid`. */
static int compile_by_script(const struct scratch *s, const char *script, unsigned timeout_ms,
			     struct warm_compiler_error *error, pid_t *ret_pid)
{
	struct warm_compiler_options o = WARM_COMPILER_OPTIONS_INIT;
	struct warm_compiler *c = NULL;
	char text[512];

	snprintf(text, sizeof(text), "#!/bin/sh\necho $$ >$0.pid\n%s\n", script);
	put_file(s->fd, "stub", text, strlen(text), 0755, 0);
	o.helper = scratch_path(s, "stub");
	o.timeout_ms = timeout_ms;
	assert_int_equal(warm_compiler_open(&o, &c, error), 0);
	int rc = compile(c, 0, 0, error);
	warm_compiler_close(c);
	scope_free char *pid = text_of(s->fd, "stub.pid", NULL);
	*ret_pid = (pid_t)strtol(pid, NULL, 10);
	return rc;
}

TEST(a_helper_that_hangs_is_killed_when_its_time_is_up)
{
	NEEDS_NVRTC();
	static const char *const scripts[] = {
		"exec sleep 100",
		"printf 'wrv1\\144\\0\\0\\0half' >&0; exec sleep 100", /* within its answer */
		"trap '' TERM INT HUP; exec sleep 100",
	};

	for (size_t i = 0; i < COUNT(scripts); i++) {
		scope_scratch struct scratch s = scratch_open();
		struct warm_compiler_error e = WARM_COMPILER_ERROR_INIT;
		int64_t start_ms = warm_clock_ms();
		pid_t pid;
		assert_int_equal(compile_by_script(&s, scripts[i], 300, &e, &pid),
				 WARM_COMPILER_HELPER);
		assert_non_null(strstr(e.message, "took over 300 ms"));
		assert_non_null(strstr(e.message, "stub"));
		assert_true(warm_clock_ms() - start_ms >= 290);
		assert_true(warm_clock_ms() - start_ms < LONG_MS);
		assert_true(goes_within(pid, 0));
		warm_compiler_error_release(&e);
	}
}

TEST(a_helper_that_answers_nonsense_is_an_error)
{
	NEEDS_NVRTC();
	static const struct {
		const char *script, *word;
	} rows[] = {
		{ "printf 'this is no answer at all' >&0; exec sleep 100", "not our protocol" },
		/* four gigabytes are announced */
		{ "printf 'wrv1\\377\\377\\377\\377' >&0; exec sleep 100", "not our protocol" },
		{ "printf 'wrv1\\4\\0\\0\\0abcd' >&0; exec cat >/dev/null", "malformed response" },
		{ "printf 'wrv1\\0\\0\\0\\0' >&0; exec cat >/dev/null", "malformed response" },
		{ "printf 'wrv1\\144\\0\\0\\0half' >&0; exit 7", "exited with 7" },
		{ "printf 'wrv' >&0; exit 8", "exited with 8" },
		{ "kill -SEGV $$", "killed by signal 11" },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		scope_scratch struct scratch s = scratch_open();
		struct warm_compiler_error e = WARM_COMPILER_ERROR_INIT;
		pid_t pid;
		assert_int_equal(compile_by_script(&s, rows[i].script, LONG_MS, &e, &pid),
				 WARM_COMPILER_HELPER);
		if (strstr(e.message, rows[i].word) == NULL)
			fail_msg("'%s' doesn't say '%s'", e.message, rows[i].word);
		assert_true(goes_within(pid, 0));
		warm_compiler_error_release(&e);
	}
}

TEST(a_helper_that_hangs_up_and_lives_on_is_ended)
{
	NEEDS_NVRTC();
	scope_scratch struct scratch s = scratch_open();
	struct warm_compiler_error e = WARM_COMPILER_ERROR_INIT;
	int64_t start_ms = warm_clock_ms();
	pid_t pid;

	assert_int_equal(compile_by_script(&s, "exec sleep 100 </dev/null", LONG_MS, &e, &pid),
			 WARM_COMPILER_HELPER);
	assert_true(warm_clock_ms() - start_ms < LONG_MS);
	assert_true(goes_within(pid, 0));
	warm_compiler_error_release(&e);
}

/* ---- the end ---- */

TEST(closing_the_compiler_ends_its_helpers)
{
	NEEDS_NVRTC();
	struct warm_compiler *c = must_open(2), *other = must_open(1);
	struct worker workers[2];

	for (int i = 0; i < 2; i++) {
		workers[i] = (struct worker){ .c = c, .number = i, .times = 1, .kernels = 1 };
		start_worker(&workers[i]);
	}
	for (int i = 0; i < 2; i++)
		join_worker(&workers[i]);
	assert_int_equal(compile(other, 0, 0, NULL), 0);
	warm_compiler_close(c);
	pid_t left = only_child(); /* the other compiler's */
	assert_int_equal(compile(other, 1, 0, NULL), 0);
	assert_int_equal(only_child(), left);
	warm_compiler_close(other);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nor is any left to be waited for */
	assert_int_equal(errno, ECHILD);
}

TEST(closing_kills_a_helper_that_does_not_end)
{
	NEEDS_NVRTC();
	struct warm_compiler *c = must_open(1);
	int64_t start_ms;

	assert_int_equal(compile(c, 0, 0, NULL), 0);
	pid_t helper = only_child();
	kill(helper, SIGSTOP);
	start_ms = warm_clock_ms();
	warm_compiler_close(c);
	assert_true(warm_clock_ms() - start_ms < LONG_MS);
	assert_true(goes_within(helper, 0));
}

enum end { BY_EXIT, BY_SIGKILL, BY_EXEC, WITH_A_FORK, WITH_A_BARE_FORK, WHILE_IT_COMPILES };

struct family {
	pid_t helper, fork;
};

static void *compile_long(void *arg)
{
	(void)compile(arg, 1, 12, NULL);
	return NULL;
}

/* A process with a helper, that then ends in the given way. */
static void be_host(enum end end, int out_fd)
{
	struct family f = { 0 };
	struct warm_compiler *c = open_compiler(NULL, 1);
	pthread_t thread;

	alarm(60);
	if (c == NULL || compile(c, 0, 0, NULL) != 0 || children_of(getpid(), &f.helper) != 1)
		_exit(1);
	if (end == WITH_A_FORK)
		f.fork = fork();
	else if (end == WITH_A_BARE_FORK) /* no handler of pthread_atfork() runs */
		f.fork = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (f.fork == 0 && (end == WITH_A_FORK || end == WITH_A_BARE_FORK)) {
		for (;;)
			pause();
	}
	if (end == WHILE_IT_COMPILES && pthread_create(&thread, NULL, compile_long, c) != 0)
		_exit(1);
	if (end == WHILE_IT_COMPILES)
		nap_ms(100);
	if (write(out_fd, &f, sizeof(f)) != sizeof(f))
		_exit(1);
	if (end == BY_EXEC)
		execl("/bin/sleep", "sleep", "60", (char *)NULL);
	if (end == BY_SIGKILL)
		raise(SIGKILL);
	_exit(0);
}

static void assert_helper_goes(enum end end)
{
	struct family f = { 0 };
	int ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	pid_t host = fork();
	if (host == 0)
		be_host(end, ends[1]);
	close(ends[1]);
	ssize_t n = read(ends[0], &f, sizeof(f));
	close(ends[0]);
	bool gone = n == sizeof(f) && goes_within(f.helper, GONE_MS);
	kill(host, SIGKILL);
	assert_int_equal(waitpid(host, NULL, 0), host);
	if (f.fork > 0)
		kill(f.fork, SIGKILL);
	assert_int_equal(n, sizeof(f));
	assert_true(f.helper > 0);
	if (!gone)
		fail_msg("the helper outlives its host (way %d)", (int)end);
}

TEST(a_helper_ends_when_its_host_exits)
{
	NEEDS_NVRTC();
	assert_helper_goes(BY_EXIT);
}

TEST(a_helper_ends_when_its_host_is_killed)
{
	NEEDS_NVRTC();
	assert_helper_goes(BY_SIGKILL);
}

TEST(a_helper_ends_when_its_host_becomes_another_program)
{
	NEEDS_NVRTC();
	assert_helper_goes(BY_EXEC);
}

TEST(a_helper_ends_with_its_host_though_a_fork_lives_on)
{
	NEEDS_NVRTC();
	assert_helper_goes(WITH_A_FORK);
	assert_helper_goes(WITH_A_BARE_FORK);
}

TEST(a_helper_ends_with_its_host_also_within_a_compile)
{
	NEEDS_NVRTC();
	assert_helper_goes(WHILE_IT_COMPILES);
}

/* ---- little memory ---- */

/* In a child: what its control group says is made up. False: not allowed here. */
static bool pretend_little_memory(const struct scratch *s)
{
	static const char *const names[] = { "memory.max", "memory.current" };

	if (geteuid() != 0 || unshare(CLONE_NEWNS) != 0 ||
	    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount(s->path, "/sys/fs/cgroup", NULL, MS_BIND, NULL) != 0)
		return false;
	for (size_t i = 0; i < COUNT(names); i++) {
		scope_close int fd = openat(s->fd, names[i], O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
		if (fd < 0 || write(fd, "1000000\n", 8) != 8)
			return false;
	}
	return true;
}

enum { NOT_ALLOWED = 77 };

/* Many callers, one helper; 0 when all of them got their results. */
static int compile_many_with_little_memory(void)
{
	struct warm_compiler *c = open_compiler(NULL, 4);
	struct worker workers[4];
	int rc = 0;

	if (c == NULL)
		return 1;
	for (int i = 0; i < 4; i++) {
		workers[i] = (struct worker){ .c = c, .number = 10 * i, .times = 2 };
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0)
			return 2;
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(workers[i].thread, NULL);
		rc = workers[i].rc != 0 ? 3 : rc;
	}
	if (rc == 0 && helpers_started(c) != 1)
		rc = 4;
	warm_compiler_close(c);
	return rc;
}

/* A helper that waits is of no use for another environment, nor for a compile that needs one for
 * itself: it has to make room, since nobody else will. */
static int compile_otherwise_with_little_memory(void)
{
	static const char *const options[] = { "-arch=sm_90", "-Xcudafe",
					       "--display_error_number" };
	struct warm_compiler *c = open_compiler(NULL, 4);
	struct warm_compile_result *r = NULL;
	char source[SOURCE_BYTES];
	struct warm_compile_program p = program_of(source, 1, 0);

	if (c == NULL || compile(c, 0, 0, NULL) != 0)
		return 1;
	setenv("EDG_BASE", "/nowhere", 1);
	if (compile(c, 1, 0, NULL) != 0)
		return 2;
	unsetenv("EDG_BASE");
	if (compile(c, 2, 0, NULL) != 0)
		return 3;
	p.options = options;
	p.n_options = 3;
	if (warm_compiler_compile(c, &p, &r, NULL) != 0)
		return 4;
	warm_compile_result_free(r);
	if (compile(c, 3, 0, NULL) != 0)
		return 5;
	warm_compiler_close(c);
	return 0;
}

static void assert_with_little_memory(int (*fn)(void))
{
	scope_scratch struct scratch s = scratch_open();
	int status = -1;
	pid_t child = fork();

	if (child == 0) {
		alarm(40);
		_exit(pretend_little_memory(&s) ? fn() : NOT_ALLOWED);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_ALLOWED)
		print_message("# note: nothing may be mounted; little memory isn't tried\n");
	else if (status != 0)
		fail_msg("the child ended with status %d", status);
}

TEST(where_memory_is_short_all_callers_share_one_helper)
{
	NEEDS_NVRTC();
	assert_with_little_memory(compile_many_with_little_memory);
}

TEST(where_memory_is_short_a_helper_of_another_environment_makes_room)
{
	NEEDS_NVRTC();
	assert_with_little_memory(compile_otherwise_with_little_memory);
}

/* ---- hosts of all kinds ---- */

TEST(a_host_without_standard_descriptors_compiles_and_reads)
{
	NEEDS_NVRTC();
	scope_scratch struct scratch s = scratch_open();
	const char *cache = scratch_path(&s, "cache");

	put_dir(s.fd, "cache");
	pid_t child = fork();
	if (child == 0) {
		alarm(60);
		close(0);
		close(1);
		close(2);
		struct warm_compiler *c = open_compiler(cache, 1);
		if (c == NULL)
			_exit(1);
		for (int i = 0; i < 3; i++) {
			if (compile(c, i % 2, 0, NULL) != 0)
				_exit(2);
			/* What it prints to nobody must not get to the helper. */
			for (int fd = 0; fd < 3; fd++)
				if (write(fd, "noise", 5) == 5)
					_exit(4);
		}
		struct warm_compiler_counters n;
		warm_compiler_get_counters(c, &n, sizeof(n));
		warm_compiler_close(c);
		_exit(n.misses == 2 && n.hits == 1 && n.unstored == 0 && n.helpers_started == 1
			      ? 0
			      : 3);
	}
	wait_for_exit_0(child);
}

static void reap_all(int number)
{
	int saved = errno;

	(void)number;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	errno = saved;
}

TEST(a_host_that_ignores_or_takes_sigchld_compiles)
{
	NEEDS_NVRTC();

	for (int takes = 0; takes < 2; takes++) {
		pid_t child = fork();
		if (child == 0) {
			struct sigaction act = { .sa_handler = takes ? reap_all : SIG_IGN,
						 .sa_flags = SA_RESTART };
			struct warm_compiler_error e = WARM_COMPILER_ERROR_INIT;
			pid_t helper = 0;
			alarm(60);
			sigaction(SIGCHLD, &act, NULL);
			struct warm_compiler *c = open_compiler(NULL, 1);
			if (c == NULL || compile(c, 0, 0, NULL) != 0)
				_exit(1);
			if (children_of(getpid(), &helper) != 1)
				_exit(2);
			kill(helper, SIGKILL);
			if (compile(c, 1, 0, NULL) != 0 || helpers_started(c) != 2)
				_exit(3);
			warm_compiler_close(c);
			if (children_of(getpid(), NULL) != 0)
				_exit(4);
			/* How it ended nobody can tell then. */
			struct warm_compiler_options o = WARM_COMPILER_OPTIONS_INIT;
			o.helper = "/bin/false";
			if (warm_compiler_open(&o, &c, NULL) != 0 ||
			    compile(c, 0, 0, &e) != WARM_COMPILER_HELPER ||
			    strstr(e.message, "/bin/false") == NULL)
				_exit(5);
			warm_compiler_error_release(&e);
			warm_compiler_close(c);
			_exit(0);
		}
		wait_for_exit_0(child);
	}
}

/* In a fork: 0 when it compiles with its parent's compiler and a helper of its own. */
static int compile_as_fork(struct warm_compiler *c, int number)
{
	uint64_t before = helpers_started(c);
	int rc = 0;

	if (children_of(getpid(), NULL) != 0)
		rc = 11;
	else if (compile(c, number, 0, NULL) != 0 || compile(c, number + 1, 0, NULL) != 0)
		rc = 12;
	else if (helpers_started(c) != before + 1)
		rc = 13;
	else if (children_of(getpid(), NULL) != 1)
		rc = 14;
	warm_compiler_close(c);
	if (rc == 0 && children_of(getpid(), NULL) != 0)
		rc = 15;
	return rc;
}

TEST(a_fork_compiles_with_its_parents_compiler_and_a_helper_of_its_own)
{
	NEEDS_NVRTC();
	struct warm_compiler *c = must_open(1);

	assert_int_equal(compile(c, 0, 0, NULL), 0);
	pid_t helper = only_child();
	for (int i = 0; i < 2; i++) {
		pid_t child = fork();
		if (child == 0) {
			alarm(60);
			_exit(compile_as_fork(c, 10));
		}
		wait_for_exit_0(child);
	}
	/* The parent's is as it was. */
	assert_int_equal(compile(c, 1, 0, NULL), 0);
	assert_int_equal(only_child(), helper);
	assert_int_equal(helpers_started(c), 1);
	warm_compiler_close(c);
}

/* A sanitizer's own locks are not made for forks of threaded processes. */
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
struct busy {
	struct warm_compiler *c;
	atomic_int stop, rounds;
};

static void *be_busy(void *arg)
{
	struct busy *b = arg;

	for (int i = 0; atomic_load(&b->stop) == 0; i++) {
		if (compile(b->c, 0, 0, NULL) != 0 || compile(b->c, 1000 + i / 4, 0, NULL) != 0)
			return b;
		atomic_fetch_add(&b->rounds, 1);
	}
	return NULL;
}

/* Fifty forks while other threads look up and compile; 0 when each of them could, too. */
static int fork_much(const char *cache)
{
	struct busy b = { .c = open_compiler(cache, 2) };
	pthread_t threads[2];
	void *bad;

	if (b.c == NULL || compile(b.c, 0, 0, NULL) != 0)
		return 1;
	for (size_t i = 0; i < COUNT(threads); i++)
		if (pthread_create(&threads[i], NULL, be_busy, &b) != 0)
			return 2;
	for (int i = 0; i < 50; i++) {
		pid_t child = fork();
		int status = -1;
		if (child == 0) {
			alarm(10); /* a lock that stayed locked */
			if (compile(b.c, 0, 0, NULL) != 0)
				_exit(20);
			_exit(i % 10 == 0 ? compile_as_fork(b.c, 5000 + 10 * i) : 0);
		}
		if (waitpid(child, &status, 0) != child || status != 0)
			return 100;
	}
	atomic_store(&b.stop, 1);
	for (size_t i = 0; i < COUNT(threads); i++)
		if (pthread_join(threads[i], &bad) != 0 || bad != NULL)
			return 3;
	warm_compiler_close(b.c);
	return atomic_load(&b.rounds) > 0 ? 0 : 4;
}
#endif

TEST(forks_of_a_busy_host_find_no_lock_locked)
{
	NEEDS_NVRTC();
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
	skip();
#else
	scope_scratch struct scratch s = scratch_open();
	const char *cache = scratch_path(&s, "cache");

	put_dir(s.fd, "cache");
	pid_t child = fork();
	if (child == 0) {
		alarm(120);
		_exit(fork_much(cache));
	}
	wait_for_exit_0(child);
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_helper_serves_one_compile_after_another),
		cmocka_unit_test(a_helper_outlives_the_thread_that_started_it),
		cmocka_unit_test(no_more_helpers_live_than_may_compile_at_once),
		cmocka_unit_test(of_many_helpers_only_four_wait_for_more),
		cmocka_unit_test(a_helper_follows_its_host_into_another_directory),
		cmocka_unit_test(compiles_leave_no_descriptor_open),
		cmocka_unit_test(another_environment_has_a_helper_of_its_own),
		cmocka_unit_test(a_helper_of_another_environment_makes_room),
		cmocka_unit_test(a_compile_that_may_leave_something_behind_has_a_helper_for_itself),
		cmocka_unit_test(a_helper_is_set_apart_from_its_host),
		cmocka_unit_test(
			a_helper_that_was_killed_while_it_waited_is_replaced_without_an_error),
		cmocka_unit_test(
			a_new_helper_that_is_killed_while_it_compiles_is_an_error_that_says_so),
		cmocka_unit_test(a_used_helper_that_is_killed_while_it_compiles_is_tried_once_more),
		cmocka_unit_test(a_helper_that_hangs_is_killed_when_its_time_is_up),
		cmocka_unit_test(a_helper_that_answers_nonsense_is_an_error),
		cmocka_unit_test(a_helper_that_hangs_up_and_lives_on_is_ended),
		cmocka_unit_test(closing_the_compiler_ends_its_helpers),
		cmocka_unit_test(closing_kills_a_helper_that_does_not_end),
		cmocka_unit_test(a_helper_ends_when_its_host_exits),
		cmocka_unit_test(a_helper_ends_when_its_host_is_killed),
		cmocka_unit_test(a_helper_ends_when_its_host_becomes_another_program),
		cmocka_unit_test(a_helper_ends_with_its_host_though_a_fork_lives_on),
		cmocka_unit_test(a_helper_ends_with_its_host_also_within_a_compile),
		cmocka_unit_test(where_memory_is_short_all_callers_share_one_helper),
		cmocka_unit_test(where_memory_is_short_a_helper_of_another_environment_makes_room),
		cmocka_unit_test(a_host_without_standard_descriptors_compiles_and_reads),
		cmocka_unit_test(a_host_that_ignores_or_takes_sigchld_compiles),
		cmocka_unit_test(a_fork_compiles_with_its_parents_compiler_and_a_helper_of_its_own),
		cmocka_unit_test(forks_of_a_busy_host_find_no_lock_locked),
	};

	if (lacking())
		print_message("# note: WARM_NVRTC_LIBRARY and WARM_NVRTC_HELPER are not set; all "
			      "is skipped\n");
	unsetenv("WARM_CACHE_DIR");
	unsetenv("WARM_COMPILER_LOG");
	unsetenv("WARM_COMPILER_MAX_BYTES");
	alarm(300); /* what waits for ever fails */
	return RUN(tests);
}
