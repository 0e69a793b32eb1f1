/* SPDX-License-Identifier: Apache-2.0 */
/* The table and the lock by themselves; then callers of the compiler, with a real NVRTC. */
#include "tests/support/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "compiler/flight.h"
#include "lib/base/clock.h"
#include "lib/kernel/entry.h"
#include "warmcache/compiler.h"

enum { OTHER_UID = 65534, SOON_MS = 10000 };

static const struct warm_hash128 key = { 1, 2 }, other_key = { 2, 2 };
#define LOCK_PATH WARM_KERNEL_DIR "/lock"

static void nap_ms(long ms)
{
	struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	nanosleep(&ts, NULL);
}

static void wait_for_exit_0(pid_t child)
{
	int status = -1;

	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static struct warm_flight *take_off(struct warm_flights *f, struct warm_hash128 k)
{
	struct warm_flight *flight = NULL;
	uint8_t *data = NULL;
	size_t bytes = 1;

	warm_flight_join(f, k, SOON_MS, &flight, &data, &bytes);
	assert_non_null(flight);
	assert_null(data);
	assert_int_equal(bytes, 0);
	return flight;
}

/* ---- between threads ---- */

struct follower {
	pthread_t thread;
	struct warm_flights *flights;
	atomic_int *about;
	struct warm_flight *flight;
	uint8_t *data;
	size_t bytes;
};

static void *follow(void *arg)
{
	struct follower *f = arg;

	atomic_fetch_add(f->about, 1);
	warm_flight_join(f->flights, key, SOON_MS, &f->flight, &f->data, &f->bytes);
	if (f->flight != NULL) /* it came after the landing */
		warm_flight_land(f->flight, NULL, 0);
	return NULL;
}

enum { FOLLOWERS = 6 };

static void start_followers(struct follower *followers, struct warm_flights *flights,
			    atomic_int *about)
{
	for (size_t i = 0; i < FOLLOWERS; i++) {
		followers[i] = (struct follower){ .flights = flights, .about = about };
		assert_int_equal(pthread_create(&followers[i].thread, NULL, follow, &followers[i]),
				 0);
	}
	while (atomic_load(about) < FOLLOWERS)
		nap_ms(1);
	nap_ms(100);
}

TEST(who_joins_a_flight_waits_and_gets_what_it_lands_with)
{
	struct warm_flights *flights = warm_flights_new(-1);
	struct warm_flight *flight = take_off(flights, key);
	struct follower followers[FOLLOWERS];
	atomic_int about = 0;
	char text[] = "what was compiled";
	int followed = 0;

	start_followers(followers, flights, &about);
	warm_flight_land(flight, (const uint8_t *)text, sizeof(text));
	memset(text, 'x', sizeof(text)); /* theirs are copies */
	for (size_t i = 0; i < FOLLOWERS; i++) {
		assert_int_equal(pthread_join(followers[i].thread, NULL), 0);
		if (followers[i].flight != NULL)
			continue;
		followed++;
		assert_int_equal(followers[i].bytes, sizeof(text));
		assert_string_equal((char *)followers[i].data, "what was compiled");
		free(followers[i].data);
	}
	assert_true(followed > 0);
	warm_flight_land(take_off(flights, key), NULL, 0); /* the next one flies anew */
	warm_flights_free(flights);
}

TEST(a_flight_that_lands_with_nothing_lets_the_others_go_on)
{
	struct warm_flights *flights = warm_flights_new(-1);
	struct warm_flight *flight = take_off(flights, key);
	struct follower followers[FOLLOWERS];
	atomic_int about = 0;
	int64_t start_ms = warm_clock_ms();

	start_followers(followers, flights, &about);
	warm_flight_land(flight, NULL, 0);
	for (size_t i = 0; i < FOLLOWERS; i++) {
		assert_int_equal(pthread_join(followers[i].thread, NULL), 0);
		assert_null(followers[i].data);
		assert_int_equal(followers[i].bytes, 0);
	}
	assert_true(warm_clock_ms() - start_ms < SOON_MS);
	warm_flights_free(flights);
}

TEST(who_has_waited_long_enough_goes_on_alone)
{
	struct warm_flights *flights = warm_flights_new(-1);
	struct warm_flight *flight = take_off(flights, key), *second = NULL;
	uint8_t *data = NULL, byte = 1;
	size_t bytes = 1;
	int64_t start_ms = warm_clock_ms();

	warm_flight_join(flights, key, 50, &second, &data, &bytes);
	assert_true(warm_clock_ms() - start_ms >= 49);
	assert_true(warm_clock_ms() - start_ms < SOON_MS);
	assert_null(second);
	assert_null(data);
	assert_int_equal(bytes, 0);
	warm_flight_land(flight, &byte, 1); /* nobody takes it, nothing leaks */
	warm_flights_free(flights);
}

TEST(flights_of_other_programs_do_not_wait)
{
	struct warm_flights *flights = warm_flights_new(-1);
	struct warm_hash128 half = { 1, 3 };
	struct warm_flight *a = take_off(flights, key), *b = take_off(flights, other_key),
			   *c = take_off(flights, half);

	/* They land in any order. */
	warm_flight_land(b, NULL, 0);
	warm_flight_land(take_off(flights, other_key), NULL, 0);
	warm_flight_land(a, NULL, 0);
	warm_flight_land(c, NULL, 0);
	warm_flights_free(flights);
	warm_flights_free(NULL);
}

TEST(a_fork_flies_none_of_its_parents_flights)
{
	scope_scratch struct scratch s = scratch_open();
	struct warm_flights *flights = warm_flights_new(s.fd);
	struct warm_flight *flight = take_off(flights, key);

	assert_false(warm_flight_lock(flight, key, 0));
	warm_flights_fork(flights, WARM_FORK_PREPARE);
	pid_t child = fork();
	if (child == 0) {
		struct warm_flight *own = NULL, *more = NULL;
		uint8_t *data = NULL;
		size_t bytes = 0;
		warm_flights_fork(flights, WARM_FORK_CHILD);
		alarm(20);
		warm_flight_join(flights, key, 60000, &own, &data, &bytes);
		if (own == NULL)
			_exit(1);
		warm_flight_join(flights, key, 30, &more, &data, &bytes); /* and waiting works */
		if (more != NULL)
			_exit(2);
		/* The parent's lock is still the parent's. */
		if (!warm_flight_lock(own, key, 30))
			_exit(3);
		warm_flight_land(own, NULL, 0);
		warm_flights_free(flights);
		_exit(0);
	}
	warm_flights_fork(flights, WARM_FORK_PARENT);
	wait_for_exit_0(child);
	struct warm_flight *second = NULL;
	uint8_t *data = NULL;
	size_t bytes = 0;
	warm_flight_join(flights, key, 20, &second, &data, &bytes);
	assert_null(second); /* here it flies on */
	warm_flight_land(flight, NULL, 0);
	warm_flights_free(flights);
}

/* ---- between processes ---- */

/* Whether anybody holds any byte of the lock file. */
static bool is_locked(const struct scratch *s, const char *path)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	scope_close int fd = openat(s->fd, path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return false;
	assert_int_equal(fcntl(fd, F_OFD_GETLK, &lock), 0);
	return lock.l_type != F_UNLCK;
}

/* A process that holds `fingerprint` until `hold_ms` have passed, and then is killed or lands. */
static pid_t start_holder(const struct scratch *s, struct warm_hash128 fingerprint, long hold_ms,
			  bool killed)
{
	int ready[2];
	char byte;

	assert_int_equal(pipe(ready), 0);
	pid_t child = fork();
	if (child == 0) {
		struct warm_flights *flights = warm_flights_new(s->fd);
		struct warm_flight *flight = NULL;
		uint8_t *data = NULL;
		size_t bytes = 0;
		warm_flight_join(flights, key, 0, &flight, &data, &bytes);
		if (flight == NULL || warm_flight_lock(flight, fingerprint, 0) ||
		    write(ready[1], "x", 1) != 1)
			_exit(1);
		nap_ms(hold_ms);
		if (killed)
			raise(SIGKILL);
		warm_flight_land(flight, NULL, 0);
		warm_flights_free(flights);
		_exit(0);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return child;
}

TEST(a_lock_that_nobody_holds_is_had_at_once)
{
	scope_scratch struct scratch s = scratch_open();
	struct warm_flights *flights = warm_flights_new(s.fd);
	struct warm_flight *flight = take_off(flights, key);

	mode_t old = umask(077);
	assert_false(warm_flight_lock(flight, key, SOON_MS));
	umask(old);
	assert_true(is_locked(&s, LOCK_PATH));
	assert_int_equal(stat_of(s.fd, LOCK_PATH).st_mode & 07777, 0666); /* for other users */
	warm_flight_land(flight, NULL, 0);
	assert_false(is_locked(&s, LOCK_PATH));
	assert_int_equal(stat_of(s.fd, LOCK_PATH).st_size, 0);
	warm_flights_free(flights);
}

TEST(a_process_waits_until_the_other_lands)
{
	scope_scratch struct scratch s = scratch_open();
	struct warm_flights *flights = warm_flights_new(s.fd);
	struct warm_flight *flight = take_off(flights, key);
	pid_t holder = start_holder(&s, key, 200, false);
	int64_t start_ms = warm_clock_ms();

	assert_true(warm_flight_lock(flight, key, SOON_MS));
	assert_true(warm_clock_ms() - start_ms >= 50);
	assert_true(warm_clock_ms() - start_ms < SOON_MS);
	wait_for_exit_0(holder);
	assert_true(is_locked(&s, LOCK_PATH)); /* now by this one */
	warm_flight_land(flight, NULL, 0);
	warm_flights_free(flights);
}

TEST(a_process_that_is_killed_holds_nobody)
{
	scope_scratch struct scratch s = scratch_open();
	struct warm_flights *flights = warm_flights_new(s.fd);
	struct warm_flight *flight = take_off(flights, key);
	pid_t holder = start_holder(&s, key, 200, true);
	int64_t start_ms = warm_clock_ms();
	int status = 0;

	assert_true(warm_flight_lock(flight, key, SOON_MS));
	assert_true(warm_clock_ms() - start_ms < SOON_MS);
	assert_int_equal(waitpid(holder, &status, 0), holder);
	assert_true(WIFSIGNALED(status));
	assert_true(is_locked(&s, LOCK_PATH));
	warm_flight_land(flight, NULL, 0);
	warm_flights_free(flights);
}

TEST(a_lock_that_stays_held_is_waited_for_so_long_and_no_longer)
{
	scope_scratch struct scratch s = scratch_open();
	struct warm_flights *flights = warm_flights_new(s.fd);
	struct warm_flight *flight = take_off(flights, key);
	pid_t holder = start_holder(&s, key, 60000, false);
	int64_t start_ms = warm_clock_ms();

	assert_true(warm_flight_lock(flight, key, 50));
	assert_true(warm_clock_ms() - start_ms >= 49);
	assert_true(warm_clock_ms() - start_ms < SOON_MS);
	warm_flight_land(flight, NULL, 0);
	assert_true(is_locked(&s, LOCK_PATH)); /* the holder's lock is its own */
	kill(holder, SIGKILL);
	assert_int_equal(waitpid(holder, NULL, 0), holder);
	warm_flights_free(flights);
}

TEST(another_fingerprint_has_another_lock)
{
	scope_scratch struct scratch s = scratch_open();
	struct warm_flights *flights = warm_flights_new(s.fd);
	struct warm_hash128 large = { UINT64_MAX, UINT64_MAX }, near = { UINT64_MAX - 1, 0 };
	pid_t holder = start_holder(&s, large, 60000, false);
	struct warm_flight *a = take_off(flights, key), *b = take_off(flights, other_key);

	assert_false(warm_flight_lock(a, near, SOON_MS));
	assert_true(warm_flight_lock(b, large, 20)); /* a lock can be there, too */
	warm_flight_land(a, NULL, 0);
	warm_flight_land(b, NULL, 0);
	kill(holder, SIGKILL);
	assert_int_equal(waitpid(holder, NULL, 0), holder);
	warm_flights_free(flights);
}

TEST(flights_of_one_process_hold_each_their_own_lock)
{
	scope_scratch struct scratch s = scratch_open();
	struct warm_flights *flights = warm_flights_new(s.fd);
	struct warm_flight *a = take_off(flights, key), *b = take_off(flights, other_key),
			   *c = take_off(flights, (struct warm_hash128){ 9, 9 });

	/* The same program, asked for from two directories. */
	assert_false(warm_flight_lock(a, key, 0));
	assert_true(warm_flight_lock(b, key, 20));
	/* That one opened and closed the file drops nothing. */
	assert_false(warm_flight_lock(c, other_key, 0));
	warm_flight_land(b, NULL, 0);
	warm_flight_land(c, NULL, 0);
	assert_true(is_locked(&s, LOCK_PATH));
	warm_flight_land(a, NULL, 0);
	assert_false(is_locked(&s, LOCK_PATH));
	warm_flights_free(flights);
}

TEST(landing_unlocks_also_where_a_fork_has_a_copy_of_the_descriptor)
{
	scope_scratch struct scratch s = scratch_open();
	struct warm_flights *flights = warm_flights_new(s.fd);
	struct warm_flight *flight = take_off(flights, key);

	assert_false(warm_flight_lock(flight, key, 0));
	pid_t child = fork(); /* of somebody who calls nothing of ours */
	if (child == 0) {
		sleep(60);
		_exit(0);
	}
	warm_flight_land(flight, NULL, 0);
	assert_false(is_locked(&s, LOCK_PATH));
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, NULL, 0), child);
	warm_flights_free(flights);
}

static void assert_flies_alone(int cache_fd)
{
	struct warm_flights *flights = warm_flights_new(cache_fd);
	struct warm_flight *flight = take_off(flights, key);
	int64_t start_ms = warm_clock_ms();

	assert_false(warm_flight_lock(flight, key, SOON_MS));
	assert_true(warm_clock_ms() - start_ms < SOON_MS / 2);
	warm_flight_land(flight, NULL, 0);
	warm_flights_free(flights);
}

TEST(where_no_lock_can_be_had_nobody_waits)
{
	scope_scratch struct scratch s = scratch_open();

	assert_flies_alone(-1); /* no cache */
	put_text(s.fd, "nvrtc", "a file where a directory should be");
	assert_flies_alone(s.fd);
	assert_int_equal(unlinkat(s.fd, "nvrtc", 0), 0);
	put_dir(s.fd, LOCK_PATH);
	assert_flies_alone(s.fd);
	assert_int_equal(unlinkat(s.fd, LOCK_PATH, AT_REMOVEDIR), 0);
	put_text(s.fd, "elsewhere", "text");
	assert_int_equal(symlinkat("../../elsewhere", s.fd, LOCK_PATH), 0);
	assert_flies_alone(s.fd);
	assert_false(is_locked(&s, "elsewhere"));
	assert_int_equal(unlinkat(s.fd, LOCK_PATH, 0), 0);
	assert_int_equal(mkfifoat(s.fd, LOCK_PATH, 0666), 0);
	assert_flies_alone(s.fd);
}

TEST(in_a_directory_that_may_only_be_read_nobody_waits)
{
	scope_scratch struct scratch s = scratch_open();

	if (geteuid() != 0) {
		print_message("# note: not root; nothing is tried as another user\n");
		return;
	}
	assert_int_equal(fchmod(s.fd, 0755), 0);
	pid_t child = fork();
	if (child == 0) {
		struct warm_flight *flight = NULL;
		uint8_t *data = NULL;
		size_t bytes = 0;
		if (setuid(OTHER_UID) != 0)
			_exit(1);
		struct warm_flights *flights = warm_flights_new(s.fd);
		warm_flight_join(flights, key, 0, &flight, &data, &bytes);
		if (flight == NULL || warm_flight_lock(flight, key, 60000))
			_exit(2);
		warm_flight_land(flight, NULL, 0);
		warm_flights_free(flights);
		_exit(0);
	}
	wait_for_exit_0(child);
	assert_false(is_there(s.fd, "nvrtc"));
}

/* ---- callers of the compiler ---- */

static bool lacking(void)
{
	const char *library = getenv("WARM_NVRTC_LIBRARY"), *helper = getenv("WARM_NVRTC_HELPER");

	return library == NULL || library[0] == '\0' || helper == NULL || helper[0] == '\0';
}
#define NEEDS_NVRTC()  \
	if (lacking()) \
	skip()

enum { CALLERS = 16, SOURCE_BYTES = 1200 };

/* Lies in memory that all processes of a test share. */
struct shared {
	atomic_int ready, go;
	struct one {
		atomic_int rc; /* -1: has not returned */
		int source;
		struct warm_hash128 digest; /* of the cubin */
		bool log_tells;
	} one[CALLERS];
};

static struct shared *new_shared(void)
{
	struct shared *sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_true(sh != MAP_FAILED);
	for (int i = 0; i < CALLERS; i++)
		atomic_store(&sh->one[i].rc, -1);
	return sh;
}

static void let_go(struct shared *sh, int callers)
{
	while (atomic_load(&sh->ready) < callers)
		nap_ms(1);
	atomic_store(&sh->go, 1);
}

/* Some 150 ms of compile, or with more kernels more. */
static struct warm_compile_program slow_program(char source[SOURCE_BYTES], const char *head,
						int kernels, const char *value)
{
	static const char *const options[] = { "-arch=sm_90" };
	size_t used = (size_t)snprintf(source, SOURCE_BYTES, "%s\n", head);

	for (int i = 0; i < kernels; i++)
		used += (size_t)snprintf(
			source + used, SOURCE_BYTES - used,
			"extern \"C\" __global__ void k%d(float *a) { for (int i = 0; "
			"i < 5; i++) a[i] = sinf(a[i]) * powf(a[i + 1], %s); }\n",
			i, value);
	return (struct warm_compile_program){ .source = source,
					      .source_bytes = used,
					      .name = "k.cu",
					      .options = options,
					      .n_options = 1 };
}

static struct warm_compiler *open_compiler(const char *cache, const char *helper, int mode)
{
	struct warm_compiler_options o = WARM_COMPILER_OPTIONS_INIT;
	struct warm_compiler *c = NULL;

	o.cache_dir = cache;
	o.helper = helper;
	o.mode = mode;
	return warm_compiler_open(&o, &c, NULL) == 0 ? c : NULL;
}

struct caller {
	pthread_t thread;
	struct warm_compiler *c;
	const struct warm_compile_program *program;
	struct shared *sh;
	struct one *one;
};

static void *call(void *arg)
{
	struct caller *caller = arg;
	struct one *one = caller->one;
	struct warm_compile_result *r = NULL;
	struct warm_compiler_error e = WARM_COMPILER_ERROR_INIT;

	atomic_fetch_add(&caller->sh->ready, 1);
	while (atomic_load(&caller->sh->go) == 0)
		nap_ms(1);
	int rc = warm_compiler_compile(caller->c, caller->program, &r, &e);
	if (rc == 0) {
		size_t bytes = 0;
		const void *cubin = warm_compile_result_output(r, WARM_OUTPUT_CUBIN, &bytes);
		one->source = (int)warm_compile_result_source(r);
		one->digest = warm_hash128(cubin != NULL ? cubin : "", bytes);
		warm_compile_result_free(r);
	} else {
		one->log_tells = e.log != NULL && strstr(e.log, "undeclared_thing") != NULL;
	}
	warm_compiler_error_release(&e);
	atomic_store(&one->rc, rc);
	return NULL;
}

/* `n` threads that call with one compiler, as numbers `first` and up. Returns those that failed to
 * start. */
static int start_callers(struct caller *callers, int n, struct warm_compiler *c,
			 const struct warm_compile_program *p, struct shared *sh, int first)
{
	int failed = 0;

	for (int i = 0; i < n; i++) {
		callers[i] = (struct caller){
			.c = c, .program = p, .sh = sh, .one = &sh->one[first + i]
		};
		failed += pthread_create(&callers[i].thread, NULL, call, &callers[i]) != 0;
	}
	return failed;
}

static void join_callers(struct caller *callers, int n)
{
	for (int i = 0; i < n; i++)
		pthread_join(callers[i].thread, NULL);
}

static void assert_one_compile(const struct shared *sh, int callers)
{
	int misses = 0;

	for (int i = 0; i < callers; i++) {
		assert_int_equal(sh->one[i].rc, 0);
		assert_true(sh->one[i].digest.low == sh->one[0].digest.low &&
			    sh->one[i].digest.high == sh->one[0].digest.high);
		misses += sh->one[i].source != WARM_COMPILE_HIT;
	}
	assert_int_equal(misses, 1);
}

/* Sixteen callers in four processes, all at once. */
static void call_from_four_processes(struct scratch *s, const struct warm_compile_program *p)
{
	struct shared *sh = new_shared();
	pid_t children[4];
	uint64_t sums[WARM_KERNEL_COUNTED];

	for (int i = 0; i < 4; i++) {
		children[i] = fork();
		if (children[i] == 0) {
			struct caller callers[4];
			struct warm_compiler *c = open_compiler(scratch_path(s, "cache"), NULL,
								WARM_MODE_TRACED);
			if (c == NULL || start_callers(callers, 4, c, p, sh, 4 * i) != 0)
				_exit(1);
			join_callers(callers, 4);
			warm_compiler_close(c);
			_exit(0);
		}
	}
	let_go(sh, 16);
	for (int i = 0; i < 4; i++)
		wait_for_exit_0(children[i]);
	assert_one_compile(sh, 16);
	scope_close int volume_fd = openat(s->fd, "cache", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(warm_kernel_counters_read(volume_fd, sums, NULL), 0);
	assert_int_equal(sums[WARM_KERNEL_COUNT_MISSES], 1);
	assert_int_equal(sums[WARM_KERNEL_COUNT_HITS], 15);
	assert_true(sums[WARM_KERNEL_COUNT_WAITS] > 0);
	assert_int_equal(sums[WARM_KERNEL_COUNT_HELPERS], 1);
	assert_int_equal(sums[WARM_KERNEL_COUNT_FAILED], 0);
	munmap(sh, sizeof(*sh));
}

TEST(sixteen_callers_in_four_processes_cost_one_compile)
{
	NEEDS_NVRTC();
	scope_scratch struct scratch s = scratch_open();
	char source[SOURCE_BYTES];
	struct warm_compile_program p = slow_program(source, "", 1, "2.5f");

	put_dir(s.fd, "cache");
	call_from_four_processes(&s, &p);
}

TEST(so_they_do_for_a_program_with_a_header_on_disk)
{
	NEEDS_NVRTC();
	scope_scratch struct scratch s = scratch_open();
	char source[SOURCE_BYTES], option[300];
	const char *options[] = { "-arch=sm_90", option };
	struct warm_compile_program p = slow_program(source, "#include \"a.h\"", 1, "VALUE");

	put_dir(s.fd, "cache");
	put_text(s.fd, "inc/a.h", "#define VALUE 2.5f\n");
	snprintf(option, sizeof(option), "-I%s/inc", s.path);
	p.options = options;
	p.n_options = 2;
	call_from_four_processes(&s, &p);
}

TEST(without_a_cache_the_threads_of_a_process_share_one_compile)
{
	NEEDS_NVRTC();
	struct shared *sh = new_shared();
	char source[SOURCE_BYTES];
	struct warm_compile_program p = slow_program(source, "", 1, "2.5f");
	struct warm_compiler *c = open_compiler(NULL, NULL, WARM_MODE_TRACED);
	struct warm_compiler_counters n;
	struct caller callers[8];

	assert_non_null(c);
	assert_int_equal(start_callers(callers, 8, c, &p, sh, 0), 0);
	let_go(sh, 8);
	join_callers(callers, 8);
	assert_one_compile(sh, 8);
	warm_compiler_get_counters(c, &n, sizeof(n));
	assert_int_equal(n.misses, 1);
	assert_int_equal(n.hits, 7);
	assert_int_equal(n.waits, 7);
	assert_int_equal(n.unstored, 1);
	assert_int_equal(n.helpers_started, 1);
	warm_compiler_close(c);
	munmap(sh, sizeof(*sh));
}

TEST(a_program_that_fails_gives_each_caller_the_log)
{
	NEEDS_NVRTC();
	scope_scratch struct scratch s = scratch_open();
	struct shared *sh = new_shared();
	char source[SOURCE_BYTES];
	struct warm_compile_program p = slow_program(source, "", 1, "undeclared_thing");
	struct warm_compiler_counters n;
	struct caller callers[8];

	put_dir(s.fd, "cache");
	struct warm_compiler *c = open_compiler(scratch_path(&s, "cache"), NULL, WARM_MODE_TRACED);
	assert_non_null(c);
	assert_int_equal(start_callers(callers, 8, c, &p, sh, 0), 0);
	let_go(sh, 8);
	join_callers(callers, 8);
	for (int i = 0; i < 8; i++) {
		assert_int_equal(sh->one[i].rc, WARM_COMPILER_COMPILE_ERROR);
		assert_true(sh->one[i].log_tells);
	}
	warm_compiler_get_counters(c, &n, sizeof(n));
	assert_int_equal(n.failed, 8);
	assert_int_equal(n.hits + n.misses, 0);
	warm_compiler_close(c);
	munmap(sh, sizeof(*sh));
}

/* A process that compiles `p` with a helper that never answers, until end_stuck(). */
struct stuck {
	pid_t host, helper;
};

static struct stuck start_stuck(const struct scratch *s, const struct warm_compile_program *p)
{
	static const char script[] = "#!/bin/sh\necho $$ >$0.new\nmv $0.new $0.pid\n"
				     "exec sleep 100\n";
	const char *cache = scratch_path(s, "cache"), *helper = scratch_path(s, "hangs");
	struct stuck stuck;

	put_file(s->fd, "hangs", script, strlen(script), 0755, 0);
	stuck.host = fork();
	if (stuck.host == 0) {
		struct warm_compile_result *r = NULL;
		struct warm_compiler *c = open_compiler(cache, helper, WARM_MODE_TRACED);
		if (c != NULL)
			(void)warm_compiler_compile(c, p, &r, NULL);
		_exit(1);
	}
	assert_true(stuck.host > 0);
	while (!is_there(s->fd, "hangs.pid"))
		nap_ms(2);
	scope_free char *pid = text_of(s->fd, "hangs.pid", NULL);
	stuck.helper = (pid_t)strtol(pid, NULL, 10);
	assert_true(stuck.helper > 1);
	return stuck;
}

/* The host first: it must not see its helper die. */
static void end_stuck(const struct stuck *stuck)
{
	kill(stuck->host, SIGKILL);
	kill(stuck->helper, SIGKILL);
}

struct killer {
	struct stuck victim;
	long after_ms;
};

static void *kill_later(void *arg)
{
	struct killer *k = arg;

	nap_ms(k->after_ms);
	end_stuck(&k->victim);
	return NULL;
}

TEST(a_process_that_is_killed_while_it_compiles_holds_no_other)
{
	NEEDS_NVRTC();
	scope_scratch struct scratch s = scratch_open();
	char source[SOURCE_BYTES];
	struct warm_compile_program p = slow_program(source, "", 1, "2.5f");
	struct warm_compile_result *r = NULL;
	struct warm_compiler_error e = WARM_COMPILER_ERROR_INIT;
	pthread_t thread;

	put_dir(s.fd, "cache");
	struct killer k = { start_stuck(&s, &p), 300 };
	assert_true(is_locked(&s, "cache/" LOCK_PATH));
	struct warm_compiler *c = open_compiler(scratch_path(&s, "cache"), NULL, WARM_MODE_TRACED);
	assert_non_null(c);
	int64_t start_ms = warm_clock_ms();
	assert_int_equal(pthread_create(&thread, NULL, kill_later, &k), 0);
	assert_int_equal(warm_compiler_compile(c, &p, &r, &e), 0);
	assert_true(warm_clock_ms() - start_ms >= 250); /* it did wait */
	assert_true(warm_clock_ms() - start_ms < 2 * SOON_MS);
	assert_int_equal(warm_compile_result_source(r), WARM_COMPILE_MISS);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(waitpid(k.victim.host, NULL, 0), k.victim.host);
	warm_compile_result_free(r);
	warm_compiler_close(c);
}

TEST(a_program_that_must_not_be_stored_waits_for_nobody)
{
	NEEDS_NVRTC();
	scope_scratch struct scratch s = scratch_open();
	struct shared *sh = new_shared();
	char source[SOURCE_BYTES];
	struct warm_compile_program p =
		slow_program(source, "__device__ const char t[] = __TIME__;", 1, "2.5f");
	struct warm_compiler_counters n;
	struct caller callers[3];

	put_dir(s.fd, "cache");
	struct stuck stuck = start_stuck(&s, &p);
	struct warm_compiler *c = open_compiler(scratch_path(&s, "cache"), NULL, WARM_MODE_TRACED);
	assert_non_null(c);
	int64_t start_ms = warm_clock_ms();
	assert_int_equal(start_callers(callers, 3, c, &p, sh, 0), 0);
	let_go(sh, 3);
	join_callers(callers, 3);
	assert_true(warm_clock_ms() - start_ms < SOON_MS);
	assert_false(is_locked(&s, "cache/" LOCK_PATH));
	end_stuck(&stuck);
	assert_int_equal(waitpid(stuck.host, NULL, 0), stuck.host);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(sh->one[i].rc, 0);
		assert_int_equal(sh->one[i].source, WARM_COMPILE_UNCACHEABLE);
	}
	warm_compiler_get_counters(c, &n, sizeof(n));
	assert_int_equal(n.misses, 3);
	assert_int_equal(n.waits, 0);
	assert_int_equal(n.uncacheable_time, 3);
	warm_compiler_close(c);
	munmap(sh, sizeof(*sh));
}

TEST(the_same_program_in_another_directory_is_not_shared)
{
	NEEDS_NVRTC();
	scope_scratch struct scratch s = scratch_open();
	struct shared *sh = new_shared();
	char source[SOURCE_BYTES], one[300], two[300];
	struct warm_compile_program p = slow_program(source, "#include \"a.h\"", 1, "VALUE"), q = p;
	struct caller callers[2];

	put_dir(s.fd, "cache");
	put_text(s.fd, "one/a.h", "#define VALUE 2.5f\n");
	put_text(s.fd, "two/a.h", "#define VALUE 3.5f\n");
	snprintf(one, sizeof(one), "%s/one/k.cu", s.path);
	snprintf(two, sizeof(two), "%s/two/k.cu", s.path);
	p.name = one;
	q.name = two;
	struct warm_compiler *c = open_compiler(scratch_path(&s, "cache"), NULL, WARM_MODE_TRACED);
	assert_non_null(c);
	assert_int_equal(start_callers(&callers[0], 1, c, &p, sh, 0), 0);
	assert_int_equal(start_callers(&callers[1], 1, c, &q, sh, 1), 0);
	let_go(sh, 2);
	join_callers(callers, 2);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(sh->one[i].rc, 0);
		assert_int_equal(sh->one[i].source, WARM_COMPILE_MISS);
	}
	assert_false(sh->one[0].digest.low == sh->one[1].digest.low);
	warm_compiler_close(c);
	munmap(sh, sizeof(*sh));
}

TEST(what_a_header_that_changed_meanwhile_spoilt_is_not_shared)
{
	NEEDS_NVRTC();
	scope_scratch struct scratch s = scratch_open();
	struct shared *sh = new_shared();
	char source[SOURCE_BYTES], option[300], event[4096];
	const char *options[] = { "-arch=sm_90", option };
	struct warm_compile_program p = slow_program(source, "#include \"a.h\"", 3, "VALUE");
	struct warm_compiler_counters n;
	struct caller callers[3];
	int stale = 0;

	put_dir(s.fd, "cache");
	put_text(s.fd, "inc/a.h", "#define VALUE 2.5f\n");
	snprintf(option, sizeof(option), "-I%s/inc", s.path);
	p.options = options;
	p.n_options = 2;
	scope_close int watch_fd = inotify_init1(IN_CLOEXEC);
	assert_true(inotify_add_watch(watch_fd, scratch_path(&s, "inc/a.h"), IN_CLOSE_NOWRITE) >=
		    0);
	struct warm_compiler *c = open_compiler(scratch_path(&s, "cache"), NULL, WARM_MODE_TRACED);
	assert_non_null(c);
	assert_int_equal(start_callers(callers, 3, c, &p, sh, 0), 0);
	let_go(sh, 3);
	assert_true(read(watch_fd, event, sizeof(event)) > 0); /* NVRTC has read it */
	put_text(s.fd, "inc/a.h", "#define VALUE 3.5f\n");
	join_callers(callers, 3);
	/* Who waited has compiled what is there now; nobody got the first one's result. */
	struct warm_hash128 now = { 0, 0 };
	for (int i = 0; i < 3; i++) {
		assert_int_equal(sh->one[i].rc, 0);
		assert_int_not_equal(sh->one[i].source, WARM_COMPILE_HIT);
		if (sh->one[i].source == WARM_COMPILE_UNCACHEABLE)
			stale++;
		else
			now = sh->one[i].digest;
	}
	assert_int_equal(stale, 1);
	warm_compiler_get_counters(c, &n, sizeof(n));
	assert_int_equal(n.uncacheable_changed, 1);
	/* The entry that is there now is the header's of now. */
	struct warm_compile_result *r = NULL;
	size_t bytes = 0;
	assert_int_equal(warm_compiler_compile(c, &p, &r, NULL), 0);
	assert_int_equal(warm_compile_result_source(r), WARM_COMPILE_HIT);
	const void *cubin = warm_compile_result_output(r, WARM_OUTPUT_CUBIN, &bytes);
	assert_true(warm_hash128(cubin, bytes).low == now.low);
	warm_compile_result_free(r);
	warm_compiler_close(c);
	munmap(sh, sizeof(*sh));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_joins_a_flight_waits_and_gets_what_it_lands_with),
		cmocka_unit_test(a_flight_that_lands_with_nothing_lets_the_others_go_on),
		cmocka_unit_test(who_has_waited_long_enough_goes_on_alone),
		cmocka_unit_test(flights_of_other_programs_do_not_wait),
		cmocka_unit_test(a_fork_flies_none_of_its_parents_flights),
		cmocka_unit_test(a_lock_that_nobody_holds_is_had_at_once),
		cmocka_unit_test(a_process_waits_until_the_other_lands),
		cmocka_unit_test(a_process_that_is_killed_holds_nobody),
		cmocka_unit_test(a_lock_that_stays_held_is_waited_for_so_long_and_no_longer),
		cmocka_unit_test(another_fingerprint_has_another_lock),
		cmocka_unit_test(flights_of_one_process_hold_each_their_own_lock),
		cmocka_unit_test(landing_unlocks_also_where_a_fork_has_a_copy_of_the_descriptor),
		cmocka_unit_test(where_no_lock_can_be_had_nobody_waits),
		cmocka_unit_test(in_a_directory_that_may_only_be_read_nobody_waits),
		cmocka_unit_test(sixteen_callers_in_four_processes_cost_one_compile),
		cmocka_unit_test(so_they_do_for_a_program_with_a_header_on_disk),
		cmocka_unit_test(without_a_cache_the_threads_of_a_process_share_one_compile),
		cmocka_unit_test(a_program_that_fails_gives_each_caller_the_log),
		cmocka_unit_test(a_process_that_is_killed_while_it_compiles_holds_no_other),
		cmocka_unit_test(a_program_that_must_not_be_stored_waits_for_nobody),
		cmocka_unit_test(the_same_program_in_another_directory_is_not_shared),
		cmocka_unit_test(what_a_header_that_changed_meanwhile_spoilt_is_not_shared),
	};

	if (lacking())
		print_message("# note: WARM_NVRTC_LIBRARY and WARM_NVRTC_HELPER are not set; some "
			      "is skipped\n");
	unsetenv("WARM_CACHE_DIR");
	unsetenv("WARM_COMPILER_LOG");
	unsetenv("WARM_COMPILER_MAX_BYTES");
	alarm(300); /* what waits for ever fails */
	return RUN(tests);
}
