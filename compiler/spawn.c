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

#include "lib/base/clock.h"
#include "lib/base/file.h"

#define HELPER_NAME "warmcache-nvrtc"

const char *const warm_nvrtc_environment[] = {
	"NVRTC_APPEND_FLAGS",
	"NVRTC_PREPEND_FLAGS",
	"NVRTCWIZ",
	"NV_NVVM_VERSION",
	"NVRTC_DISABLE_PCH",
	"NVRTC_PCH_HEAP_SIZE",
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
	/* The drop-in lies deeper: in lib/nvrtc, installed in lib/warmcache/nvrtc. */
	static const char *const ways[] = { "", "../bin/", "../", "../../bin/", "../../../bin/" };
	char path[2 * WARM_PATH_BYTES], own[WARM_PATH_BYTES] = "", exe[WARM_PATH_BYTES] = "";
	Dl_info info;

	if (given == NULL || given[0] == '\0')
		given = secure_getenv("WARM_NVRTC_HELPER");
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
		for (size_t k = 0; k < sizeof(ways) / sizeof(ways[0]); k++) {
			snprintf(path, sizeof(path), "%s/%s" HELPER_NAME, dirs[i], ways[k]);
			if (try_helper(path, ret_path, bytes))
				return 0;
		}
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

	while (*lines != '\0' && n + 3 < MAX_ENVIRONMENT) {
		size_t bytes = strcspn(lines, "\n");
		ret_env[n] = strndup(lines, bytes);
		if (ret_env[n++] == NULL)
			return warm_error_nomem(err, bytes);
		lines += bytes + (lines[bytes] == '\n');
	}
	/* Large pages for NVRTC's heap of 100 MB: 5% less time. */
	ret_env[n] = strdup("GLIBC_TUNABLES=glibc.malloc.hugetlb=1");
	if (ret_env[n++] == NULL)
		return warm_error_nomem(err, 1);
	/* So that the builtins find libstdc++ where the image keeps it. */
	const char *libraries = getenv("LD_LIBRARY_PATH");
	if (libraries != NULL && asprintf(&ret_env[n], "LD_LIBRARY_PATH=%s", libraries) < 0)
		return warm_error_nomem(err, strlen(libraries));
	return 0;
}

static int spawn(const char *helper, const char *environment, int fd, pid_t *ret_pid,
		 struct warm_error *err)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	char *env[MAX_ENVIRONMENT] = { 0 };
	char host[24];
	char *argv[] = { (char *)(uintptr_t)HELPER_NAME, host, NULL };
	sigset_t none, all;

	int rc = build_environment(environment, env, err);
	snprintf(host, sizeof(host), "%ld", (long)getpid());
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
	/* A group of its own: a terminal's Ctrl-C is meant for the host. */
	if (failed == 0)
		failed = posix_spawnattr_setpgroup(&attributes, 0);
	if (failed == 0)
		failed = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK |
								       POSIX_SPAWN_SETSIGDEF |
								       POSIX_SPAWN_SETPGROUP);
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

int warm_helper_start(const char *helper, const char *environment, pid_t *ret_pid, int *ret_fd,
		      struct warm_error *err)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
		return warm_error_errno(err, errno, "socketpair");
	scope_close int ours = warm_fd_move_up(pair[0]), theirs = warm_fd_move_up(pair[1]);
	if (ours < 0 || theirs < 0)
		return warm_error_errno(err, errno, "dup");
	int rc = spawn(helper, environment, theirs, ret_pid, err);
	if (rc == 0)
		*ret_fd = take_fd(&ours);
	return rc;
}

/* It has nothing left to do; one that doesn't end soon is made to. */
bool warm_helper_reap(pid_t pid, bool wait, int *ret_status)
{
	struct timespec nap = { .tv_nsec = 1000000 };
	int64_t end_ms = warm_clock_ms() + END_MS;

	for (;;) {
		pid_t waited = waitpid(pid, ret_status, WNOHANG);
		if (waited > 0)
			return true;
		/* ECHILD: the host takes its children itself, or ignores SIGCHLD. */
		if (waited < 0 && errno != EINTR) {
			*ret_status = -1;
			return true;
		}
		if (!wait)
			return false;
		if (warm_clock_ms() > end_ms)
			kill(pid, SIGKILL);
		nanosleep(&nap, NULL);
	}
}
