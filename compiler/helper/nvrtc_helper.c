/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warmcache-nvrtc: compiles for libwarmcache-compiler, in a process of its own.
 *
 * It reads requests from its standard input (a socket), compiles each with NVRTC, and answers on
 * the same socket until that ends. It exports its own fopen: libnvrtc's calls arrive here, and
 * what they opened or failed to open are the program's dependencies, complete. It ends when the
 * host does, and after some time, compiles and memory.
 */
#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "compiler/cacheable.h"
#include "compiler/native.h"
#include "lib/base/clock.h"
#include "lib/base/file.h"

#define EXPORTED __attribute__((visibility("default")))

/* A helper ends after so much; the host starts another. */
enum { IDLE_MS = 30 * 1000, AGE_MS = 10 * 60 * 1000, MAX_COMPILES = 500, MAX_RSS_KIB = 1 << 20 };

/* ---- the trace ---- */

struct opened {
	char *path; /* as given to fopen */
	bool found;
	struct stat st;
};

static struct {
	pthread_mutex_t lock;
	bool on, failed;
	struct opened *list;
	size_t n, capacity;
} trace = { .lock = PTHREAD_MUTEX_INITIALIZER };

typedef FILE *(*fopen_fn)(const char *, const char *);

static void record(const char *path, const char *mode, FILE *file)
{
	if (mode[0] != 'r')
		return;
	int saved = errno;
	pthread_mutex_lock(&trace.lock);
	if (trace.on && trace.n == trace.capacity) {
		size_t capacity = trace.capacity == 0 ? 512 : 2 * trace.capacity;
		struct opened *list = realloc(trace.list, capacity * sizeof(*list));
		if (list == NULL)
			trace.failed = true;
		else {
			trace.list = list;
			trace.capacity = capacity;
		}
	}
	if (trace.on && trace.n < trace.capacity) {
		struct opened *o = &trace.list[trace.n];
		*o = (struct opened){ .path = strdup(path), .found = file != NULL };
		if (o->path == NULL || (file != NULL && fstat(fileno(file), &o->st) != 0))
			trace.failed = true;
		trace.n++;
	}
	pthread_mutex_unlock(&trace.lock);
	errno = saved;
}

EXPORTED FILE *fopen(const char *path, const char *mode);
EXPORTED FILE *fopen64(const char *path, const char *mode);

static FILE *open_and_record(const char *symbol, const char *path, const char *mode)
{
	fopen_fn real;

	*(void **)&real = dlsym(RTLD_NEXT, symbol);
	FILE *file = real(path, mode);
	record(path, mode, file);
	return file;
}

EXPORTED FILE *fopen(const char *path, const char *mode)
{
	return open_and_record("fopen", path, mode);
}

EXPORTED FILE *fopen64(const char *path, const char *mode)
{
	return open_and_record("fopen64", path, mode);
}

static void start_trace(bool on)
{
	pthread_mutex_lock(&trace.lock);
	for (size_t i = 0; i < trace.n; i++)
		free(trace.list[i].path);
	trace.n = 0;
	trace.failed = false;
	trace.on = on;
	pthread_mutex_unlock(&trace.lock);
}

/* ---- one compile ---- */

struct compile {
	const struct warm_wire_request *q;
	struct warm_native_result r;
	char base[WARM_PATH_BYTES]; /* the program's directory */
	char dir[WARM_PATH_BYTES];  /* the same as the name gives it: "../x/", "" */
	struct warm_buf deps;	    /* encoded */
	enum warm_kernel_reason reason;
	char why[WARM_WHY_BYTES];
};

/* __FILE__ and its kin, or assert(), whose expansion holds it; static_assert() does not. */
static bool tells_file(struct warm_kernel_text t)
{
	if (warm_text_contains(t, "__FILE__") || warm_text_contains(t, "__builtin_FILE") ||
	    warm_text_contains(t, "source_location"))
		return true;
	const char *end = t.data + t.bytes;
	for (const char *p = t.data; p < end; p++) {
		p = memmem(p, (size_t)(end - p), "assert", 6);
		if (p == NULL)
			return false;
		char before = p > t.data ? p[-1] : ' ';
		if (before != '_' && !isalnum((unsigned char)before))
			return true;
	}
	return false;
}

static void uncacheable(struct compile *c, enum warm_kernel_reason reason, const char *fmt, ...)
	WARM_PRINTF(3, 4);

static void uncacheable(struct compile *c, enum warm_kernel_reason reason, const char *fmt, ...)
{
	va_list ap;

	if (c->reason != WARM_KERNEL_CACHEABLE)
		return;
	c->reason = reason;
	va_start(ap, fmt);
	vsnprintf(c->why, sizeof(c->why), fmt, ap);
	va_end(ap);
}

/* The program's name, with its directory, in what came out: in a warning of the log, as bytes in a
 * cubin, as a list of numbers in PTX. A macro of any header may bring it there. */
static bool name_in_outputs(const struct compile *c)
{
	struct warm_kernel_text name = c->q->name;
	scope_buf struct warm_buf list = WARM_BUF_INIT;

	if (memchr(name.data, '/', name.bytes) == NULL)
		return false;
	if (warm_text_contains(c->r.response.log, name.data))
		return true;
	for (size_t i = 0; i < name.bytes; i++)
		warm_buf_printf(&list, "%s%u", i > 0 ? ", " : "", (unsigned char)name.data[i]);
	if (list.failed || list.data == NULL)
		return true;
	for (int k = 0; k < WARM_KERNEL_OUTPUTS; k++) {
		struct warm_kernel_text out = c->r.response.outputs[k];
		if (out.bytes > 0 && (memmem(out.data, out.bytes, name.data, name.bytes) != NULL ||
				      memmem(out.data, out.bytes, list.data, list.bytes) != NULL))
			return true;
	}
	return false;
}

/* Does the program's directory get into the output? */
static bool shows_directory(const struct compile *c)
{
	static const char *const options[] = { "-lineinfo", "--generate-line-info",
					       "-G",	    "--device-debug",
					       "-dlto",	    "--dlink-time-opt",
					       "-optix-ir", "--optix-ir" };

	for (size_t i = 0; i < c->q->n_options; i++)
		for (size_t k = 0; k < sizeof(options) / sizeof(options[0]); k++)
			if (strcmp(c->q->options[i].data, options[k]) == 0)
				return true;
	for (size_t i = 0; i < c->q->n_options; i++)
		if (tells_file(c->q->options[i]))
			return true;
	if (tells_file(c->q->source) || name_in_outputs(c))
		return true;
	for (size_t i = 0; i < c->q->n_headers; i++)
		if (tells_file(c->q->headers[i].source))
			return true;
	return false;
}

/* The directory that option `i` names for includes (or the file, for -include); NULL: none. */
static const char *include_path(const struct compile *c, size_t i)
{
	struct warm_kernel_text o = c->q->options[i];
	const char *path = NULL;
	const char *next = i + 1 < c->q->n_options ? c->q->options[i + 1].data : NULL;

	if (warm_text_starts_with(o, "-I"))
		path = o.bytes > 2 ? o.data + 2 : next;
	else if (warm_text_contains(o, "include"))
		path = strchr(o.data, '=') != NULL ? strchr(o.data, '=') + 1 : next;
	while (path != NULL && (*path == ' ' || *path == '='))
		path++;
	return path;
}

/* Does the current directory decide which files are found? */
static bool looks_from_cwd(const struct compile *c)
{
	for (size_t i = 0; i < c->q->n_options; i++) {
		const char *path = include_path(c, i);
		if (path != NULL && *path != '/')
			return true;
	}
	return false;
}

/* Does an absolute include option lead to `path`? Then it may have been found by that. */
static bool below_include_option(const struct compile *c, const char *path)
{
	for (size_t i = 0; i < c->q->n_options; i++) {
		const char *dir = include_path(c, i);
		size_t n = dir != NULL ? strlen(dir) : 0;
		while (n > 1 && dir[n - 1] == '/')
			n--;
		if (n > 0 && dir[0] == '/' && strncmp(path, dir, n) == 0 &&
		    (path[n] == '/' || path[n] == '\0' || n == 1))
			return true;
	}
	return false;
}

static void find_base(struct compile *c)
{
	const char *name = c->q->name.data, *slash = strrchr(name, '/');

	snprintf(c->dir, sizeof(c->dir), "%.*s", slash != NULL ? (int)(slash + 1 - name) : 0, name);
	if (slash == NULL)
		snprintf(c->base, sizeof(c->base), "%s", c->q->cwd.data);
	else if (name[0] == '/')
		snprintf(c->base, sizeof(c->base), "%.*s", (int)(slash - name), name);
	else
		snprintf(c->base, sizeof(c->base), "%s/%.*s", c->q->cwd.data, (int)(slash - name),
			 name);
}

static int compare_opened(const void *a, const void *b)
{
	return strcmp(((const struct opened *)a)->path, ((const struct opened *)b)->path);
}

static void add_dep(struct compile *c, enum warm_kernel_dep_kind kind, const char *path,
		    bool relative, uint64_t size, struct warm_hash128 digest)
{
	struct warm_kernel_dep dep = { kind, relative, warm_text_of(path), size, digest };

	warm_kernel_encode_dep(&c->deps, &dep);
	c->r.response.deps.n++;
}

static bool same_state(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       warm_timespec_ns(a->st_mtim) == warm_timespec_ns(b->st_mtim) &&
	       warm_timespec_ns(a->st_ctim) == warm_timespec_ns(b->st_ctim);
}

/* One opened or missed path. What changed since NVRTC looked makes the result uncacheable. */
static void depend_on(struct compile *c, const struct opened *o, bool *shows_dir)
{
	char path[2 * WARM_PATH_BYTES];
	struct warm_hash128 digest = { 0, 0 };
	size_t base_bytes = strlen(c->base);
	struct stat st;

	snprintf(path, sizeof(path), "%s%s%s", o->path[0] == '/' ? "" : c->q->cwd.data,
		 o->path[0] == '/' ? "" : "/", o->path);
	bool relative = strncmp(path, c->base, base_bytes) == 0 && path[base_bytes] == '/';
	/* Below the program's directory, and below an -I: either may have found it, so the entry
	 * is right for this directory alone. */
	if (relative && below_include_option(c, path)) {
		relative = false;
		*shows_dir = true;
	}
	const char *kept = relative ? path + base_bytes + 1 : path;
	if (!o->found) {
		if (stat(path, &st) == 0 && S_ISREG(st.st_mode))
			uncacheable(c, WARM_KERNEL_BY_CHANGE, "%.150s appeared while it compiled",
				    path);
		add_dep(c, WARM_KERNEL_DEP_ABSENT, kept, relative, 0, digest);
		return;
	}
	if (S_ISDIR(o->st.st_mode)) {
		add_dep(c, WARM_KERNEL_DEP_ABSENT, kept, relative, 0, digest);
		return;
	}
	scope_free char *data = NULL;
	size_t bytes = 0;
	if (!S_ISREG(o->st.st_mode) ||
	    warm_file_load(AT_FDCWD, path, WARM_KERNEL_ENTRY_BYTES, &data, &bytes, NULL) != 0 ||
	    stat(path, &st) != 0 || !same_state(&st, &o->st)) {
		uncacheable(c, WARM_KERNEL_BY_CHANGE, "%.150s changed while it compiled", path);
		return;
	}
	struct warm_kernel_text text = { data, bytes };
	if (warm_text_tells_time(text))
		uncacheable(c, WARM_KERNEL_BY_TIME,
			    "%.120s uses __TIME__, __DATE__ or __TIMESTAMP__", path);
	if (relative && tells_file(text))
		*shows_dir = true;
	add_dep(c, WARM_KERNEL_DEP_FILE, kept, relative, bytes, warm_hash128(data, bytes));
}

static int collect_deps(struct compile *c)
{
	bool shows_dir = shows_directory(c);
	struct warm_hash128 none = { 0, 0 };

	pthread_mutex_lock(&trace.lock);
	trace.on = false;
	if (trace.failed)
		uncacheable(c, WARM_KERNEL_BY_CHANGE, "out of memory for the dependencies");
	if (trace.n > 1)
		qsort(trace.list, trace.n, sizeof(*trace.list), compare_opened);
	for (size_t i = 0; i < trace.n; i++) {
		if (i > 0 && strcmp(trace.list[i].path, trace.list[i - 1].path) == 0) {
			if (trace.list[i].found != trace.list[i - 1].found)
				uncacheable(c, WARM_KERNEL_BY_CHANGE,
					    "%.150s appeared or went while it compiled",
					    trace.list[i].path);
			continue;
		}
		depend_on(c, &trace.list[i], &shows_dir);
	}
	pthread_mutex_unlock(&trace.lock);
	if (shows_dir)
		add_dep(c, WARM_KERNEL_DEP_DIR, c->dir, false, 0, none);
	if (shows_dir || looks_from_cwd(c))
		add_dep(c, WARM_KERNEL_DEP_CWD, c->q->cwd.data, false, 0, none);
	c->r.response.deps.data = c->deps.data;
	c->r.response.deps.bytes = c->deps.bytes;
	return c->deps.failed ? -1 : 0;
}

/* Compile and trace. */
static int compile(struct compile *c, const struct warm_native *native)
{
	find_base(c);
	start_trace(true);
	int rc = warm_native_compile(native, c->q, &c->r, NULL);
	if (rc == 0 && c->r.response.outcome == WARM_WIRE_COMPILED && collect_deps(c) != 0)
		rc = WARM_NO_MEMORY;
	start_trace(false);
	c->r.response.reason = c->reason;
	c->r.response.uncacheable = warm_text_of(c->why);
	return rc;
}

static int answer(const struct warm_wire_request *q)
{
	static struct warm_native native;
	struct compile c = { .q = q };
	scope_buf struct warm_buf out = WARM_BUF_INIT;
	struct warm_error err = { 0 };
	int rc = 0;

	if (q->cwd.bytes == 0 || chdir(q->cwd.data) != 0) {
		warm_error_errno(&err, errno, "current directory '%s'", q->cwd.data);
		warm_native_refuse(&c.r, WARM_WIRE_FAILED, 0, err.msg);
	} else if (native.library == NULL &&
		   warm_native_load(q->nvrtc.data, q->builtins.data, &native, &err) != 0) {
		warm_native_refuse(&c.r, WARM_WIRE_NO_NVRTC, 0, err.msg);
	} else {
		rc = compile(&c, &native);
	}
	if (rc != 0)
		warm_native_refuse(&c.r, WARM_WIRE_FAILED, 0, "the helper is out of memory");
	warm_wire_put_response(&out, &c.r.response);
	/* While it waits it is in nobody's way: not in a directory that may be unmounted. */
	rc = chdir("/") == 0 ? 0 : WARM_IO;
	if (warm_wire_send(STDIN_FILENO, &out, 0, NULL) != 0)
		rc = WARM_IO;
	warm_buf_release(&c.deps);
	warm_native_release(&c.r);
	return rc;
}

/* ---- the process ---- */

/* The socket alone doesn't tell the host's end: a fork of it may hold a copy. */
static void *watch_host(void *arg)
{
	pid_t host = *(const pid_t *)arg;
#ifdef SYS_pidfd_open
	struct pollfd p = { .fd = (int)syscall(SYS_pidfd_open, host, 0), .events = POLLIN };
#else
	struct pollfd p = { .fd = -1 };
#endif

	while (getppid() == host && (poll(&p, 1, 1000) <= 0 || (p.revents & POLLIN) == 0))
		;
	_exit(0);
}

static bool used_up(int64_t born_ms, unsigned compiles)
{
	struct rusage usage;

	return compiles >= MAX_COMPILES || warm_clock_ms() - born_ms > AGE_MS ||
	       (getrusage(RUSAGE_SELF, &usage) == 0 && usage.ru_maxrss > MAX_RSS_KIB);
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
	pthread_t watcher;
	static pid_t host;

	if (argc != 2 || fstat(STDIN_FILENO, &st) != 0 || !S_ISSOCK(st.st_mode)) {
		static const char text[] = "warmcache-nvrtc compiles for libwarmcache-compiler and "
					   "is started by it.\n";
		return write(STDERR_FILENO, text, sizeof(text) - 1) < 0 ? 1 : 2;
	}
	close_others();
	setrlimit(RLIMIT_CORE, &no_core);
	host = (pid_t)strtol(argv[1], NULL, 10);
	if (pthread_create(&watcher, NULL, watch_host, &host) != 0)
		return 1;
	int64_t born_ms = warm_clock_ms();
	for (unsigned compiles = 0; !used_up(born_ms, compiles); compiles++) {
		scope_free uint8_t *data = NULL;
		size_t bytes = 0;
		struct warm_wire_request q;
		/* The host is gone, has what it wanted, or asks for nothing more. */
		if (warm_wire_receive(STDIN_FILENO, warm_clock_ms() + IDLE_MS, &data, &bytes,
				      NULL) != 0)
			return 0;
		if (warm_wire_parse_request(data, bytes, &q, NULL) != 0)
			return 1;
		int rc = answer(&q);
		warm_wire_release_request(&q);
		if (rc != 0)
			return 1;
	}
	return 0;
}
