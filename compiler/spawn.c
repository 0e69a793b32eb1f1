/* SPDX-License-Identifier: Apache-2.0 */
#include "compiler/spawn.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "compiler/wire.h"
#include "lib/base/clock.h"
#include "lib/base/file.h"

#define HELPER_NAME "warmcache-nvrtc"

const char *const warm_nvrtc_environment[] = {
	"NVRTC_APPEND_FLAGS",
	"NVRTC_PREPEND_FLAGS",
	"NVRTCWIZ",
	"NV_NVVM_VERSION",
	"NVRTC_DISABLE_PCH",
	"EDG_BASE",
	"EDG_MODULES_PATH",
	"LLVM_OVERRIDE_PRODUCER",
	"FINALIZER_USE_LEGACY_ELF_BUILDER",
	NULL,
};

enum { MAX_ENVIRONMENT = 24, END_MS = 2000 };

static bool try_helper(const char *path, char *ret_path, size_t bytes)
{
	if (access(path, X_OK) != 0)
		return false;
	snprintf(ret_path, bytes, "%s", path);
	return true;
}

int warm_helper_find(const char *given, char *ret_path, size_t bytes, struct warm_error *err)
{
	char path[2 * WARM_PATH_BYTES], own[WARM_PATH_BYTES] = "", exe[WARM_PATH_BYTES] = "";
	Dl_info info;

	if (given == NULL || given[0] == '\0')
		given = getenv("WARM_NVRTC_HELPER");
	if (given != NULL && given[0] != '\0') {
		if (try_helper(given, ret_path, bytes))
			return 0;
		return warm_error_errno(err, errno, "helper %s", given);
	}
	if (dladdr((const void *)(uintptr_t)&warm_helper_find, &info) != 0 &&
	    info.dli_fname != NULL && realpath(info.dli_fname, own) != NULL)
		*strrchr(own, '/') = '\0';
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	exe[n > 0 ? n : 0] = '\0';
	if (strrchr(exe, '/') != NULL)
		*strrchr(exe, '/') = '\0';
	const char *const dirs[] = { own, exe };
	for (size_t i = 0; i < 2; i++) {
		if (dirs[i][0] == '\0')
			continue;
		snprintf(path, sizeof(path), "%s/" HELPER_NAME, dirs[i]);
		if (try_helper(path, ret_path, bytes))
			return 0;
		snprintf(path, sizeof(path), "%s/../bin/" HELPER_NAME, dirs[i]);
		if (try_helper(path, ret_path, bytes))
			return 0;
	}
	return warm_error_set(err, WARM_NOT_FOUND,
			      HELPER_NAME
			      " is neither in %.80s nor in ../bin from it, nor in %.80s; "
			      "set WARM_NVRTC_HELPER",
			      own, exe);
}

static int build_environment(const char *lines, char *ret_env[MAX_ENVIRONMENT],
			     struct warm_error *err)
{
	size_t n = 0;

	while (*lines != '\0' && n + 2 < MAX_ENVIRONMENT) {
		size_t bytes = strcspn(lines, "\n");
		ret_env[n] = strndup(lines, bytes);
		if (ret_env[n++] == NULL)
			return warm_error_nomem(err, bytes);
		lines += bytes + (lines[bytes] == '\n');
	}
	/* So that the builtins find libstdc++ where the image keeps it. */
	const char *libraries = getenv("LD_LIBRARY_PATH");
	if (libraries != NULL && asprintf(&ret_env[n], "LD_LIBRARY_PATH=%s", libraries) < 0)
		return warm_error_nomem(err, strlen(libraries));
	return 0;
}

static int start(const char *helper, const char *environment, int fd, pid_t *ret_pid,
		 struct warm_error *err)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	char *env[MAX_ENVIRONMENT] = { 0 };
	char *argv[] = { (char *)(uintptr_t)HELPER_NAME, NULL };
	sigset_t none, all;

	int rc = build_environment(environment, env, err);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attributes);
	sigemptyset(&none);
	sigfillset(&all);
	int failed = posix_spawn_file_actions_adddup2(&actions, fd, STDIN_FILENO);
	if (failed == 0)
		failed = posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null",
							  O_WRONLY, 0);
	if (failed == 0)
		failed = posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null",
							  O_WRONLY, 0);
	if (failed == 0)
		failed = posix_spawnattr_setsigmask(&attributes, &none);
	if (failed == 0)
		failed = posix_spawnattr_setsigdefault(&attributes, &all);
	if (failed == 0)
		failed = posix_spawnattr_setflags(&attributes,
						  POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	if (rc == 0 && failed == 0)
		failed = posix_spawn(ret_pid, helper, &actions, &attributes, argv, env);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	for (size_t i = 0; i < MAX_ENVIRONMENT; i++)
		free(env[i]);
	if (rc == 0 && failed != 0)
		rc = warm_error_errno(err, failed, "start %s", helper);
	return rc;
}

/* Above 2, so that it is none of the descriptors that the helper gets by number. */
static int move_up(int *fd)
{
	int up = fcntl(*fd, F_DUPFD_CLOEXEC, 3);

	close(*fd);
	*fd = up;
	return up;
}

/* It has nothing left to do; one that doesn't end soon is made to. */
static pid_t wait_for_end(pid_t pid, int *ret_status)
{
	struct timespec nap = { .tv_nsec = 1000000 };
	int64_t end_ms = warm_clock_ms() + END_MS;

	for (;;) {
		pid_t waited = waitpid(pid, ret_status, WNOHANG);
		if (waited > 0 || (waited < 0 && errno != EINTR))
			return waited;
		if (warm_clock_ms() > end_ms)
			kill(pid, SIGKILL);
		nanosleep(&nap, NULL);
	}
}

int warm_helper_run(const char *helper, const char *environment, const struct warm_buf *request,
		    int64_t timeout_ms, uint8_t **ret_data, size_t *ret_bytes,
		    struct warm_error *err)
{
	int64_t deadline = timeout_ms > 0 ? warm_clock_ms() + timeout_ms : 0;
	int pair[2];
	pid_t pid = -1;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
		return warm_error_errno(err, errno, "socketpair");
	scope_close int ours = pair[0], theirs = pair[1];
	if (move_up(&ours) < 0 || move_up(&theirs) < 0)
		return warm_error_errno(err, errno, "dup");
	int rc = start(helper, environment, theirs, &pid, err);
	close(take_fd(&theirs));
	if (rc != 0)
		return rc;
	rc = warm_wire_send(ours, request, deadline, err);
	if (rc == 0)
		rc = warm_wire_receive(ours, deadline, ret_data, ret_bytes, err);
	/* The helper ends when the socket does. A fork of the host may hold a copy of ours: so not
	 * by close() alone. */
	shutdown(ours, SHUT_RDWR);
	close(take_fd(&ours));
	if (rc != 0 && rc != WARM_NOT_FOUND)
		kill(pid, SIGKILL);
	int status = 0;
	pid_t waited = wait_for_end(pid, &status);
	if (rc == WARM_NOT_FOUND) {
		/* ECHILD: the host takes its children itself, or ignores SIGCHLD. */
		if (waited < 0)
			return warm_error_set(err, rc, "%s died", helper);
		if (WIFSIGNALED(status))
			return warm_error_set(err, rc, "%s was killed by signal %d (%s)", helper,
					      WTERMSIG(status), strsignal(WTERMSIG(status)));
		return warm_error_set(err, rc, "%s exited with %d before it answered", helper,
				      WEXITSTATUS(status));
	}
	if (rc == WARM_CANCELED)
		return warm_error_set(err, rc, "%s took over %lld ms and was killed", helper,
				      (long long)timeout_ms);
	return rc;
}
