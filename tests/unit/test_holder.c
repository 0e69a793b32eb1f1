/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "sidecar/holder.h"

#define HOLDER ".warmcache/sidecar"

struct house {
	struct scratch s;
	int volume;
	char path[300];
};

static struct house open_house(void)
{
	struct house h = { .s = scratch_open() };

	put_dir(h.s.fd, "volume/.warmcache");
	h.volume = openat(h.s.fd, "volume", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(h.volume >= 0);
	snprintf(h.path, sizeof(h.path), "%s/volume", h.s.path);
	return h;
}

static void close_house(struct house *h)
{
	close(h->volume);
	scratch_close(&h->s);
}

/* Another process that takes the volume, says so, and waits for SIGUSR2 or its end. */
struct other {
	pid_t pid;
	int told; /* of a pipe: 't' taken, 'r' refused, 'u' SIGUSR2 */
};

static struct other start_other(const struct house *h)
{
	int pipe_fds[2];

	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		sigset_t set;
		int fd = -1, got = 0;
		close(pipe_fds[0]);
		alarm(60);
		sigemptyset(&set);
		sigaddset(&set, SIGUSR2);
		sigprocmask(SIG_BLOCK, &set, NULL);
		char answer = warm_holder_take(h->path, &fd, NULL) == 0 ? 't' : 'r';
		if (write(pipe_fds[1], &answer, 1) != 1 || answer == 'r')
			_exit(1);
		sigwait(&set, &got);
		_exit(write(pipe_fds[1], "u", 1) == 1 ? 0 : 1);
	}
	close(pipe_fds[1]);
	return (struct other){ pid, pipe_fds[0] };
}

static char hear_other(const struct other *o)
{
	char c = 0;

	return read(o->told, &c, 1) == 1 ? c : '\0';
}

static void end_other(struct other *o)
{
	kill(o->pid, SIGKILL);
	assert_int_equal(waitpid(o->pid, NULL, 0), o->pid);
	close(o->told);
}

TEST(a_volume_without_a_sidecar_has_none_to_tell)
{
	struct house h = open_house();
	struct warm_error err = { 0 };

	/* Nobody ever took it; then somebody who is gone did. */
	assert_int_equal(warm_holder_tell(h.path, &err), WARM_NOT_FOUND);
	assert_false(is_there(h.volume, HOLDER)); /* asking makes no file */
	put_text(h.volume, HOLDER, "");
	err = (struct warm_error){ 0 };
	assert_int_equal(warm_holder_tell(h.path, &err), WARM_NOT_FOUND);
	assert_non_null(strstr(err.msg, "no sidecar is at work"));
	assert_non_null(strstr(err.msg, h.path));
	close_house(&h);
}

TEST(who_takes_a_volume_has_it_until_it_closes_it)
{
	struct house h = open_house();
	int fd = -1;

	assert_int_equal(warm_holder_take(h.path, &fd, NULL), 0);
	assert_true(fd >= 0);
	assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
	assert_true(is_there(h.volume, HOLDER));
	struct other o = start_other(&h);
	assert_int_equal(hear_other(&o), 'r');
	end_other(&o);
	close(fd);
	o = start_other(&h);
	assert_int_equal(hear_other(&o), 't');
	end_other(&o);
	close_house(&h);
}

TEST(a_volume_that_another_process_has_is_taken)
{
	struct house h = open_house();
	struct warm_error err = { 0 };
	struct other o = start_other(&h);
	int fd = -1;

	assert_int_equal(hear_other(&o), 't');
	assert_int_equal(warm_holder_take(h.path, &fd, &err), WARM_EXISTS);
	assert_int_equal(fd, -1);
	assert_non_null(strstr(err.msg, h.path));
	/* It goes on having it. */
	assert_int_equal(warm_holder_take(h.path, &fd, NULL), WARM_EXISTS);
	assert_int_equal(warm_holder_tell(h.path, NULL), 0);
	assert_int_equal(hear_other(&o), 'u');
	assert_int_equal(waitpid(o.pid, NULL, 0), o.pid);
	close(o.told);
	/* Who ends gives it back, however it ends. */
	assert_int_equal(warm_holder_take(h.path, &fd, NULL), 0);
	close(fd);
	o = start_other(&h);
	assert_int_equal(hear_other(&o), 't');
	end_other(&o);
	assert_int_equal(warm_holder_take(h.path, &fd, NULL), 0);
	close(fd);
	close_house(&h);
}

TEST(telling_reaches_the_holder_of_this_volume_alone)
{
	struct house one = open_house(), two = open_house();
	struct other first = start_other(&one), second = start_other(&two);

	assert_int_equal(hear_other(&first), 't');
	assert_int_equal(hear_other(&second), 't');
	assert_int_equal(warm_holder_tell(two.path, NULL), 0);
	assert_int_equal(hear_other(&second), 'u');
	int flags = fcntl(first.told, F_GETFL);
	assert_int_equal(fcntl(first.told, F_SETFL, flags | O_NONBLOCK), 0);
	assert_int_equal(hear_other(&first), '\0');
	end_other(&first);
	end_other(&second);
	close_house(&one);
	close_house(&two);
}

TEST(links_in_the_way_are_not_followed)
{
	struct house h = open_house();
	struct warm_error err = { 0 };
	int fd = -1;

	put_text(h.s.fd, "outside/sidecar", "precious");
	assert_int_equal(symlinkat(scratch_path(&h.s, "outside/sidecar"), h.volume, HOLDER), 0);
	assert_int_equal(warm_holder_take(h.path, &fd, &err), WARM_CORRUPT);
	assert_int_equal(warm_holder_tell(h.path, NULL), WARM_CORRUPT);
	assert_non_null(strstr(err.msg, h.path));
	/* One to nowhere makes nothing there. */
	assert_int_equal(unlinkat(h.volume, HOLDER, 0), 0);
	assert_int_equal(symlinkat(scratch_path(&h.s, "outside/new"), h.volume, HOLDER), 0);
	assert_int_equal(warm_holder_take(h.path, &fd, NULL), WARM_CORRUPT);
	assert_false(is_there(h.s.fd, "outside/new"));
	/* And its directory. */
	assert_int_equal(warm_tree_remove(h.volume, ".warmcache", NULL), 0);
	assert_int_equal(symlinkat(scratch_path(&h.s, "outside"), h.volume, ".warmcache"), 0);
	assert_int_equal(warm_holder_take(h.path, &fd, NULL), WARM_CORRUPT);
	assert_int_equal(warm_holder_tell(h.path, NULL), WARM_CORRUPT);
	assert_file(h.s.fd, "outside/sidecar", "precious");
	assert_int_equal(fd, -1);
	close_house(&h);
}

TEST(what_is_no_file_can_not_be_taken)
{
	struct house h = open_house();
	struct warm_error err = { 0 };
	int fd = -1;

	put_dir(h.volume, HOLDER);
	assert_true(warm_holder_take(h.path, &fd, &err) < 0);
	assert_true(warm_holder_tell(h.path, &err) < 0);
	assert_int_equal(fd, -1);
	close_house(&h);
}

TEST(a_volume_that_is_not_there_or_not_prepared_is_not_found)
{
	struct house h = open_house();
	struct warm_error err = { 0 };
	int fd = -1;

	assert_int_equal(warm_holder_take(scratch_path(&h.s, "none"), &fd, &err), WARM_NOT_FOUND);
	assert_non_null(strstr(err.msg, "none"));
	assert_int_equal(warm_holder_tell(scratch_path(&h.s, "none"), &err), WARM_NOT_FOUND);
	assert_int_equal(warm_tree_remove(h.volume, ".warmcache", NULL), 0);
	assert_int_equal(warm_holder_take(h.path, &fd, &err), WARM_NOT_FOUND);
	assert_int_equal(warm_holder_tell(h.path, &err), WARM_NOT_FOUND);
	close_house(&h);
}

TEST(what_the_file_holds_says_nothing)
{
	struct house h = open_house();
	int fd = -1;

	/* No pid is read from it. */
	put_text(h.volume, HOLDER, "1\n");
	assert_int_equal(warm_holder_tell(h.path, NULL), WARM_NOT_FOUND);
	assert_int_equal(warm_holder_take(h.path, &fd, NULL), 0);
	assert_file(h.volume, HOLDER, "1\n");
	close(fd);
	close_house(&h);
}

/* ---- whether it counts still ---- */

TEST(a_holder_counts_as_long_as_its_file_is_the_volumes)
{
	struct house h = open_house();
	int fd = -1, again = -1;

	assert_int_equal(warm_holder_take(h.path, &fd, NULL), 0);
	assert_true(warm_holder_counts(h.path, fd));
	assert_true(warm_holder_counts(h.path, fd)); /* asking changes nothing */
	struct other o = start_other(&h);
	assert_int_equal(hear_other(&o), 'r');
	end_other(&o);
	/* The model clears the volume, and somebody makes the file again. */
	assert_int_equal(warm_tree_remove(h.volume, ".warmcache", NULL), 0);
	assert_false(warm_holder_counts(h.path, fd));
	put_dir(h.volume, ".warmcache");
	assert_false(warm_holder_counts(h.path, fd));
	put_text(h.volume, HOLDER, "");
	assert_false(warm_holder_counts(h.path, fd));
	/* Taken again, it is the new one that counts. */
	assert_int_equal(warm_holder_take(h.path, &again, NULL), 0);
	assert_true(warm_holder_counts(h.path, again));
	assert_false(warm_holder_counts(h.path, fd));
	o = start_other(&h);
	assert_int_equal(hear_other(&o), 'r');
	end_other(&o);
	close(fd);
	assert_true(warm_holder_counts(h.path, again));
	close(again);
	close_house(&h);
}

TEST(a_link_to_the_file_that_is_held_does_not_count)
{
	struct house h = open_house();
	int fd = -1;

	assert_int_equal(warm_holder_take(h.path, &fd, NULL), 0);
	assert_int_equal(renameat(h.volume, HOLDER, h.s.fd, "elsewhere"), 0);
	assert_false(warm_holder_counts(h.path, fd));
	assert_int_equal(symlinkat(scratch_path(&h.s, "elsewhere"), h.volume, HOLDER), 0);
	assert_false(warm_holder_counts(h.path, fd));
	/* Put back, it is the same again. */
	assert_int_equal(renameat(h.s.fd, "elsewhere", h.volume, HOLDER), 0);
	assert_true(warm_holder_counts(h.path, fd));
	close(fd);
	close_house(&h);
}

TEST(a_holder_of_a_volume_that_went_or_of_another_does_not_count)
{
	struct house one = open_house(), two = open_house();
	int fd = -1;

	assert_int_equal(warm_holder_take(one.path, &fd, NULL), 0);
	put_text(two.volume, HOLDER, "");
	assert_false(warm_holder_counts(two.path, fd));
	assert_false(warm_holder_counts(scratch_path(&one.s, "none"), fd));
	assert_false(warm_holder_counts(one.path, -1));
	assert_int_equal(renameat(one.s.fd, "volume", one.s.fd, "moved"), 0);
	assert_false(warm_holder_counts(one.path, fd));
	assert_true(warm_holder_counts(scratch_path(&one.s, "moved"), fd));
	put_text(one.s.fd, "volume/" HOLDER, "");
	assert_false(warm_holder_counts(one.path, fd));
	close(fd);
	close_house(&one);
	close_house(&two);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_volume_without_a_sidecar_has_none_to_tell),
		cmocka_unit_test(who_takes_a_volume_has_it_until_it_closes_it),
		cmocka_unit_test(a_volume_that_another_process_has_is_taken),
		cmocka_unit_test(telling_reaches_the_holder_of_this_volume_alone),
		cmocka_unit_test(links_in_the_way_are_not_followed),
		cmocka_unit_test(what_is_no_file_can_not_be_taken),
		cmocka_unit_test(a_volume_that_is_not_there_or_not_prepared_is_not_found),
		cmocka_unit_test(what_the_file_holds_says_nothing),
		cmocka_unit_test(a_holder_counts_as_long_as_its_file_is_the_volumes),
		cmocka_unit_test(a_link_to_the_file_that_is_held_does_not_count),
		cmocka_unit_test(a_holder_of_a_volume_that_went_or_of_another_does_not_count),
	};

	return RUN(tests);
}
