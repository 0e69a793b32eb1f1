/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

#include "lib/base/clock.h"
#include "lib/base/pace.h"

static int64_t cpu_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return warm_timespec_ns(t) / 1000000;
}

static void work_ms(int64_t ms)
{
	for (int64_t end = cpu_ms() + ms; cpu_ms() < end;)
		continue;
}

static void sleep_ms(long ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&t, NULL);
}

TEST(a_thread_gets_its_percent_of_a_cpu)
{
	static const unsigned percents[] = { 50, 25 };

	for (size_t i = 0; i < COUNT(percents); i++) {
		struct warm_pace pace = { .percent = percents[i] };
		warm_pace_rest(&pace);
		int64_t wall = warm_clock_ms(), cpu = cpu_ms();
		for (int k = 0; k < 4; k++) {
			work_ms(15);
			warm_pace_rest(&pace);
		}
		int64_t used = cpu_ms() - cpu, passed = warm_clock_ms() - wall;
		/* A millisecond for each rounding. */
		if (passed + 5 < used * 100 / percents[i])
			fail_msg("%d ms of CPU in %d ms at %u%%", (int)used, (int)passed,
				 percents[i]);
	}
}

TEST(the_first_rest_only_takes_the_time)
{
	struct warm_pace pace = { .percent = 1 };

	work_ms(60); /* at one percent: six seconds */
	int64_t start = warm_clock_ms();
	warm_pace_rest(&pace);
	assert_true(warm_clock_ms() - start < 4000);
	assert_true(pace.wall_ns != 0);
}

TEST(without_a_limit_nobody_rests)
{
	struct warm_pace pace = { .percent = 0 };
	int64_t start = warm_clock_ms();

	for (int i = 0; i < 5; i++) {
		work_ms(5);
		warm_pace_rest(&pace);
	}
	assert_true(warm_clock_ms() - start < 5000);
	assert_int_equal(pace.wall_ns, 0);
	assert_int_equal(pace.cpu_ns, 0);
}

TEST(who_waited_for_something_else_needs_no_rest)
{
	struct warm_pace pace = { .percent = 1 };

	warm_pace_rest(&pace);
	sleep_ms(400); /* four milliseconds' worth at one percent */
	int64_t start = warm_clock_ms();
	warm_pace_rest(&pace);
	assert_true(warm_clock_ms() - start < 2000);
}

/* A long wait for the network is no credit for a long burst after it. */
TEST(what_was_not_used_is_not_saved_up)
{
	struct warm_pace pace = { .percent = 20 };

	warm_pace_rest(&pace);
	sleep_ms(300);
	warm_pace_rest(&pace);
	int64_t start = warm_clock_ms();
	work_ms(20);
	warm_pace_rest(&pace);
	assert_true(warm_clock_ms() - start >= 95);
}

TEST(a_limit_that_is_lifted_already_lets_nobody_rest)
{
	atomic_bool lifted = true;
	struct warm_pace pace = { .percent = 1, .lifted = &lifted };

	warm_pace_rest(&pace);
	int64_t start = warm_clock_ms();
	work_ms(30);
	warm_pace_rest(&pace);
	assert_true(warm_clock_ms() - start < 2000);
}

static void *lift(void *arg)
{
	sleep_ms(100);
	atomic_store((atomic_bool *)arg, true);
	return NULL;
}

TEST(a_limit_that_is_lifted_wakes_who_rests)
{
	atomic_bool lifted = false;
	struct warm_pace pace = { .percent = 1, .lifted = &lifted };
	pthread_t thread;

	warm_pace_rest(&pace);
	work_ms(100); /* ten seconds */
	assert_int_equal(pthread_create(&thread, NULL, lift, &lifted), 0);
	int64_t start = warm_clock_ms();
	warm_pace_rest(&pace);
	int64_t passed = warm_clock_ms() - start;
	pthread_join(thread, NULL);
	assert_true(passed >= 50);
	assert_true(passed < 5000);
}

struct priorities {
	int nice;
	long io;
};

static void *go_to_background(void *arg)
{
	struct priorities *p = arg;
	id_t thread = (id_t)syscall(SYS_gettid);

	warm_pace_background();
	p->nice = getpriority(PRIO_PROCESS, thread);
	p->io = syscall(SYS_ioprio_get, 1, 0);
	return NULL;
}

TEST(the_background_is_for_the_calling_thread_alone)
{
	struct priorities p = { 0, 0 };
	id_t mine = (id_t)syscall(SYS_gettid);
	int before = getpriority(PRIO_PROCESS, mine);
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, go_to_background, &p), 0);
	pthread_join(thread, NULL);
	assert_int_equal(getpriority(PRIO_PROCESS, mine), before);
	assert_int_equal(p.nice, 19);
	if (p.io < 0)
		print_message("# note: no I/O priorities here\n");
	else
		assert_int_equal(p.io >> 13, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_thread_gets_its_percent_of_a_cpu),
		cmocka_unit_test(the_first_rest_only_takes_the_time),
		cmocka_unit_test(without_a_limit_nobody_rests),
		cmocka_unit_test(who_waited_for_something_else_needs_no_rest),
		cmocka_unit_test(what_was_not_used_is_not_saved_up),
		cmocka_unit_test(a_limit_that_is_lifted_already_lets_nobody_rest),
		cmocka_unit_test(a_limit_that_is_lifted_wakes_who_rests),
		cmocka_unit_test(the_background_is_for_the_calling_thread_alone),
	};

	return RUN(tests);
}
