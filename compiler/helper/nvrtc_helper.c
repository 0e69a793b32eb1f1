/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warmcache-nvrtc: compiles for libwarmcache-compiler, in a process of its own.
 *
 * It reads requests from its standard input (a socket), compiles each with NVRTC, finds what the
 * result depends on (trace.h, collect.h) and answers on the same socket until that ends. It ends
 * when the host does, and after some time, compiles and memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "compiler/helper/collect.h"
#include "compiler/native.h"
#include "lib/base/clock.h"
#include "lib/base/file.h"

/* A helper ends after so much; the host starts another. */
enum { IDLE_MS = 30 * 1000, AGE_MS = 10 * 60 * 1000, MAX_COMPILES = 500, MAX_RSS_BYTES = 1 << 30 };

/* Compile and trace. */
static int compile(const struct warm_native *native, const struct warm_wire_request *q,
		   struct warm_native_result *r, struct warm_collected *collected)
{
	const struct warm_traced *traced;
	size_t n;

	warm_trace_start();
	int rc = warm_native_compile(native, q, r, NULL);
	bool whole = warm_trace_stop(&traced, &n);
	if (rc != 0 || r->response.outcome != WARM_WIRE_COMPILED)
		return rc;
	rc = whole ? warm_collect(q, &r->response, traced, n, collected, NULL) : WARM_NO_MEMORY;
	r->response.deps.data = collected->encoded.data;
	r->response.deps.bytes = collected->encoded.bytes;
	r->response.deps.n = collected->n;
	r->response.reason = collected->reason;
	r->response.uncacheable = warm_text_of(collected->why);
	return rc;
}

/* A new helper is where its host is, which may not be entered again by its path. */
static bool enter(const char *cwd)
{
	char now[WARM_PATH_BYTES];

	return (getcwd(now, sizeof(now)) != NULL && strcmp(now, cwd) == 0) || chdir(cwd) == 0;
}

static int answer(const struct warm_wire_request *q)
{
	static struct warm_native native;
	struct warm_native_result r = { 0 };
	struct warm_collected collected = { .encoded = WARM_BUF_INIT };
	scope_buf struct warm_buf out = WARM_BUF_INIT;
	struct warm_error err = { 0 };
	int rc = 0;

	if (!enter(q->cwd.data)) {
		warm_error_errno(&err, errno, "current directory '%s'", q->cwd.data);
		warm_native_refuse(&r, WARM_WIRE_NO_CWD, 0, err.msg);
	} else if (native.library == NULL &&
		   warm_native_load(q->nvrtc.data, q->builtins.data, &native, &err) != 0) {
		warm_native_refuse(&r, WARM_WIRE_NO_NVRTC, 0, err.msg);
	} else {
		rc = compile(&native, q, &r, &collected);
	}
	if (rc != 0)
		warm_native_refuse(&r, WARM_WIRE_FAILED, 0, "the helper is out of memory");
	warm_wire_put_response(&out, &r.response);
	/* While it waits it is in nobody's way: not in a directory that may be unmounted. */
	rc = chdir("/") == 0 ? 0 : WARM_IO;
	if (warm_wire_send(STDIN_FILENO, &out, 0, NULL) != 0)
		rc = WARM_IO;
	warm_buf_release(&collected.encoded);
	warm_native_release(&r);
	return rc;
}

static int refuse(const struct warm_error *err)
{
	struct warm_native_result r = { 0 };
	scope_buf struct warm_buf out = WARM_BUF_INIT;

	warm_native_refuse(&r, WARM_WIRE_FAILED, 0, err->msg);
	warm_wire_put_response(&out, &r.response);
	return warm_wire_send(STDIN_FILENO, &out, 0, NULL) == 0 ? 1 : 3;
}

/* ---- the process ---- */

static pid_t host;

static void check_host(int signal_number)
{
	(void)signal_number;
	if (getppid() != host)
		_exit(0);
}

/* The socket alone doesn't tell the host's end: a fork of it may hold a copy. By a signal and not
 * by a thread, beside which malloc and stdio lock: that costs NVRTC 5 to 10%. */
static void watch_host(void)
{
	struct sigaction action = { .sa_handler = check_host, .sa_flags = SA_RESTART };
	const struct itimerval each = { .it_interval.tv_sec = 1, .it_value.tv_sec = 1 };

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &each, NULL);
	check_host(0);
}

static bool used_up(int64_t born_ms, unsigned compiles)
{
	scope_free char *text = NULL;
	size_t bytes = 0;
	long long pages = 0;

	if (compiles == 0)
		return false;
	/* Not ru_maxrss: a process started by posix_spawn begins with its host's. */
	if (warm_file_load(AT_FDCWD, "/proc/self/statm", 256, &text, &bytes, NULL) == 0 &&
	    sscanf(text, "%*d %lld", &pages) != 1)
		pages = 0;
	return compiles >= MAX_COMPILES || warm_clock_ms() - born_ms > AGE_MS ||
	       pages * sysconf(_SC_PAGESIZE) > MAX_RSS_BYTES;
}

/* The host's files are none of ours. */
static void close_others(void)
{
#ifdef SYS_close_range
	if (syscall(SYS_close_range, 3u, ~0u, 0u) == 0)
		return;
#endif
	struct rlimit limit;
	rlim_t end = getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 1024;
	for (rlim_t fd = 3; fd < end && fd < 65536; fd++)
		close((int)fd);
}

int main(int argc, char **argv)
{
	struct rlimit no_core = { 0, 0 };
	struct stat st;

	if (argc != 2 || fstat(STDIN_FILENO, &st) != 0 || !S_ISSOCK(st.st_mode)) {
		static const char text[] = "warmcache-nvrtc compiles for libwarmcache-compiler and "
					   "is started by it.\n";
		return write(STDERR_FILENO, text, sizeof(text) - 1) < 0 ? 1 : 2;
	}
	close_others();
	setrlimit(RLIMIT_CORE, &no_core);
	host = (pid_t)strtol(argv[1], NULL, 10);
	watch_host();
	int64_t born_ms = warm_clock_ms();
	for (unsigned compiles = 0; !used_up(born_ms, compiles); compiles++) {
		scope_free uint8_t *data = NULL;
		size_t bytes = 0;
		struct warm_wire_request q;
		/* The host is gone, has what it wanted, or asks for nothing more. */
		if (warm_wire_receive(STDIN_FILENO, warm_clock_ms() + IDLE_MS, &data, &bytes,
				      NULL) != 0)
			return 0;
		struct warm_error err = { 0 };
		if (warm_wire_parse_request(data, bytes, &q, &err) != 0)
			return refuse(&err);
		int rc = answer(&q);
		warm_wire_release_request(&q);
		if (rc != 0)
			return 1;
	}
	return 0;
}
