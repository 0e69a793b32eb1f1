/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warmcache-nvrtc: compiles for libwarmcache-compiler, in a process of its own.
 *
 * It reads requests from its standard input (a socket), compiles each with NVRTC, and answers on
 * the same socket until that ends. It exports its own fopen: libnvrtc's calls arrive here, and
 * what they opened or failed to open are the program's dependencies, complete.
 */
#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "compiler/wire.h"
#include "lib/base/clock.h"
#include "lib/base/file.h"

#define EXPORTED __attribute__((visibility("default")))

enum { NO_CACHE_SINCE = 12 * 100 + 9, ERROR_INVALID_OPTION = 5, ERROR_COMPILATION = 6 };

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

/* ---- NVRTC ---- */

typedef struct nvrtc_program *program_t;

static struct {
	void *library;
	int (*version)(int *, int *);
	const char *(*error_string)(int);
	int (*create)(program_t *, const char *, const char *, int, const char *const *,
		      const char *const *);
	int (*destroy)(program_t *);
	int (*compile)(program_t, int, const char *const *);
	int (*add_expression)(program_t, const char *);
	int (*lowered)(program_t, const char *, const char **);
	int (*log_size)(program_t, size_t *);
	int (*log)(program_t, char *);
	int (*size[WARM_KERNEL_OUTPUTS])(program_t, size_t *);
	int (*get[WARM_KERNEL_OUTPUTS])(program_t, char *);
	int number; /* major * 100 + minor */
} nvrtc;

static char load_message[512];

static int load_nvrtc(const char *path, const char *builtins)
{
	static const char *const sizes[WARM_KERNEL_OUTPUTS] = {
		"nvrtcGetPTXSize", "nvrtcGetCUBINSize", "nvrtcGetLTOIRSize", "nvrtcGetOptiXIRSize"
	};
	static const char *const gets[WARM_KERNEL_OUTPUTS] = { "nvrtcGetPTX", "nvrtcGetCUBIN",
							       "nvrtcGetLTOIR", "nvrtcGetOptiXIR" };
	const struct {
		const char *name;
		void *slot;
	} symbols[] = {
		{ "nvrtcVersion", &nvrtc.version },
		{ "nvrtcGetErrorString", &nvrtc.error_string },
		{ "nvrtcCreateProgram", &nvrtc.create },
		{ "nvrtcDestroyProgram", &nvrtc.destroy },
		{ "nvrtcCompileProgram", &nvrtc.compile },
		{ "nvrtcAddNameExpression", &nvrtc.add_expression },
		{ "nvrtcGetLoweredName", &nvrtc.lowered },
		{ "nvrtcGetProgramLogSize", &nvrtc.log_size },
		{ "nvrtcGetProgramLog", &nvrtc.log },
	};

	if (nvrtc.library != NULL)
		return 0;
	/* By absolute path and first: NVRTC then finds this one whatever its RPATH says. */
	if (dlopen(builtins, RTLD_NOW | RTLD_GLOBAL) == NULL) {
		snprintf(load_message, sizeof(load_message), "%s", dlerror());
		return -1;
	}
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (library == NULL) {
		snprintf(load_message, sizeof(load_message), "%s", dlerror());
		return -1;
	}
	for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
		void *symbol = dlsym(library, symbols[i].name);
		if (symbol == NULL) {
			snprintf(load_message, sizeof(load_message), "%s has no %s", path,
				 symbols[i].name);
			return -1;
		}
		*(void **)symbols[i].slot = symbol;
	}
	for (int k = 0; k < WARM_KERNEL_OUTPUTS; k++) {
		*(void **)&nvrtc.size[k] = dlsym(library, sizes[k]);
		*(void **)&nvrtc.get[k] = dlsym(library, gets[k]);
	}
	int major = 0, minor = 0;
	if (nvrtc.version(&major, &minor) == 0)
		nvrtc.number = major * 100 + minor;
	nvrtc.library = library;
	return 0;
}

/* ---- one compile ---- */

struct compile {
	const struct warm_wire_request *q;
	struct warm_wire_response a;
	char *log, *outputs[WARM_KERNEL_OUTPUTS];
	char base[WARM_PATH_BYTES]; /* the program's directory */
	char **paths;		    /* of dependencies */
	size_t n_paths;
	char why[200];
};

static bool starts_with(struct warm_kernel_text t, const char *prefix)
{
	size_t n = strlen(prefix);

	return t.bytes >= n && memcmp(t.data, prefix, n) == 0;
}

static bool contains(struct warm_kernel_text t, const char *word)
{
	return memmem(t.data, t.bytes, word, strlen(word)) != NULL;
}

/* __FILE__ and its kin, or assert(), whose expansion holds it; static_assert() does not. */
static bool tells_file(struct warm_kernel_text t)
{
	if (contains(t, "__FILE__") || contains(t, "__builtin_FILE") ||
	    contains(t, "source_location"))
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

static bool tells_time(struct warm_kernel_text t)
{
	return contains(t, "__TIME__") || contains(t, "__DATE__") || contains(t, "__TIMESTAMP__");
}

static void uncacheable(struct compile *c, const char *fmt, ...) WARM_PRINTF(2, 3);

static void uncacheable(struct compile *c, const char *fmt, ...)
{
	va_list ap;

	if (c->why[0] != '\0')
		return;
	va_start(ap, fmt);
	vsnprintf(c->why, sizeof(c->why), fmt, ap);
	va_end(ap);
}

/* Options whose result depends on more than what is recorded. */
static void check_options(struct compile *c)
{
	static const char *const bad[] = { "--time",
					   "-time",
					   "-fdevice-time-trace",
					   "--fdevice-time-trace",
					   "-Xcudafe",
					   "--Xcudafe",
					   "--pch",
					   "-pch",
					   "--create-pch",
					   "-create-pch",
					   "--use-pch",
					   "-use-pch" };

	for (size_t i = 0; i < c->q->n_options; i++)
		for (size_t k = 0; k < sizeof(bad) / sizeof(bad[0]); k++)
			if (starts_with(c->q->options[i], bad[k]))
				uncacheable(c, "option %s", c->q->options[i].data);
	for (size_t i = 0; i < c->q->n_options; i++)
		if (tells_time(c->q->options[i]))
			uncacheable(c, "option %s", c->q->options[i].data);
	/* Flags from there are none that we have looked at. */
	static const char *const flags[] = { "NVRTC_APPEND_FLAGS", "NVRTC_PREPEND_FLAGS" };
	for (size_t i = 0; i < 2; i++)
		if (getenv(flags[i]) != NULL && getenv(flags[i])[0] != '\0')
			uncacheable(c, "%s is set", flags[i]);
	if (tells_time(c->q->source))
		uncacheable(c, "the source uses __TIME__, __DATE__ or __TIMESTAMP__");
	for (size_t i = 0; i < c->q->n_headers; i++)
		if (tells_time(c->q->headers[i].source))
			uncacheable(c, "header %s uses __TIME__, __DATE__ or __TIMESTAMP__",
				    c->q->headers[i].name.data);
}

/* The program's name, with its directory, in what came out: as bytes in a cubin, as a list of
 * numbers in PTX. A macro of any header may bring it there. */
static bool name_in_outputs(const struct compile *c)
{
	struct warm_kernel_text name = c->q->name;
	scope_buf struct warm_buf list = WARM_BUF_INIT;

	if (memchr(name.data, '/', name.bytes) == NULL)
		return false;
	for (size_t i = 0; i < name.bytes; i++)
		warm_buf_printf(&list, "%s%u", i > 0 ? ", " : "", (unsigned char)name.data[i]);
	if (list.failed || list.data == NULL)
		return true;
	for (int k = 0; k < WARM_KERNEL_OUTPUTS; k++) {
		struct warm_kernel_text out = c->a.outputs[k];
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

	if (starts_with(o, "-I"))
		path = o.bytes > 2 ? o.data + 2 : next;
	else if (contains(o, "include"))
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

static int add_dep(struct compile *c, enum warm_kernel_dep_kind kind, const char *path,
		   bool relative, uint64_t size, struct warm_hash128 digest)
{
	char *copy = strdup(path);
	char **paths = realloc(c->paths, (c->n_paths + 1) * sizeof(*paths));

	if (paths != NULL)
		c->paths = paths;
	if (copy == NULL || paths == NULL) {
		free(copy);
		return -1;
	}
	c->paths[c->n_paths++] = copy;
	c->a.deps[c->a.n_deps++] = (struct warm_kernel_dep){
		.kind = kind,
		.relative = relative,
		.path = warm_text_of(copy),
		.size = size,
		.digest = digest,
	};
	return 0;
}

static bool same_state(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       warm_timespec_ns(a->st_mtim) == warm_timespec_ns(b->st_mtim) &&
	       warm_timespec_ns(a->st_ctim) == warm_timespec_ns(b->st_ctim);
}

/* One opened or missed path. What changed since NVRTC looked makes the result uncacheable. */
static int depend_on(struct compile *c, const struct opened *o, bool *shows_dir)
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
			uncacheable(c, "%.150s appeared while it compiled", path);
		return add_dep(c, WARM_KERNEL_DEP_ABSENT, kept, relative, 0, digest);
	}
	if (S_ISDIR(o->st.st_mode))
		return add_dep(c, WARM_KERNEL_DEP_ABSENT, kept, relative, 0, digest);
	scope_free char *data = NULL;
	size_t bytes = 0;
	if (!S_ISREG(o->st.st_mode) ||
	    warm_file_load(AT_FDCWD, path, WARM_KERNEL_ENTRY_BYTES, &data, &bytes, NULL) != 0 ||
	    stat(path, &st) != 0 || !same_state(&st, &o->st)) {
		uncacheable(c, "%.150s changed while it compiled", path);
		return 0;
	}
	struct warm_kernel_text text = { data, bytes };
	if (tells_time(text))
		uncacheable(c, "%.120s uses __TIME__, __DATE__ or __TIMESTAMP__", path);
	if (relative && tells_file(text))
		*shows_dir = true;
	return add_dep(c, WARM_KERNEL_DEP_FILE, kept, relative, bytes, warm_hash128(data, bytes));
}

static int collect_deps(struct compile *c)
{
	bool shows_dir = shows_directory(c);
	struct warm_hash128 none = { 0, 0 };
	int rc = 0;

	pthread_mutex_lock(&trace.lock);
	trace.on = false;
	if (trace.failed)
		uncacheable(c, "out of memory for the dependencies");
	c->a.deps = calloc(trace.n + 3, sizeof(*c->a.deps));
	if (c->a.deps == NULL)
		rc = -1;
	if (trace.n > 1)
		qsort(trace.list, trace.n, sizeof(*trace.list), compare_opened);
	for (size_t i = 0; rc == 0 && i < trace.n; i++) {
		if (i > 0 && strcmp(trace.list[i].path, trace.list[i - 1].path) == 0) {
			if (trace.list[i].found != trace.list[i - 1].found)
				uncacheable(c, "%.150s appeared or went while it compiled",
					    trace.list[i].path);
			continue;
		}
		rc = depend_on(c, &trace.list[i], &shows_dir);
	}
	pthread_mutex_unlock(&trace.lock);
	if (rc == 0 && shows_dir)
		rc = add_dep(c, WARM_KERNEL_DEP_DIR, c->base, false, 0, none);
	if (rc == 0 && (shows_dir || looks_from_cwd(c)))
		rc = add_dep(c, WARM_KERNEL_DEP_CWD, c->q->cwd.data, false, 0, none);
	return rc;
}

static int get_text(program_t p, int (*size)(program_t, size_t *), int (*get)(program_t, char *),
		    char **ret_data, struct warm_kernel_text *ret_text)
{
	size_t bytes = 0;

	if (size == NULL || get == NULL || size(p, &bytes) != 0 || bytes == 0)
		return 0;
	char *data = malloc(bytes + 1);
	if (data == NULL)
		return -1;
	if (get(p, data) != 0) {
		free(data);
		return 0;
	}
	data[bytes] = '\0';
	*ret_data = data;
	*ret_text = (struct warm_kernel_text){ data, bytes };
	return 0;
}

static int refuse(struct compile *c, enum warm_wire_outcome outcome, int code, const char *message)
{
	c->a.outcome = outcome;
	c->a.nvrtc_result = code;
	c->a.message = warm_text_of(message);
	return 0;
}

static int compile_program(struct compile *c, program_t p)
{
	const struct warm_wire_request *q = c->q;
	const char **options = calloc(q->n_options + 2, sizeof(*options));
	size_t n = 0;

	if (options == NULL)
		return -1;
	bool no_cache = false;
	for (size_t i = 0; i < q->n_options; i++) {
		options[n++] = q->options[i].data;
		no_cache = no_cache || strcmp(q->options[i].data, "--no-cache") == 0 ||
			   strcmp(q->options[i].data, "-no-cache") == 0;
	}
	/* NVRTC's own cache asks libcuda first, which takes 300 ms where there is a driver. */
	if (nvrtc.number >= NO_CACHE_SINCE && !no_cache)
		options[n++] = "--no-cache";
	start_trace(q->trace);
	int code = nvrtc.compile(p, (int)n, options);
	free(options);
	if (get_text(p, nvrtc.log_size, nvrtc.log, &c->log, &c->a.log) != 0)
		return -1;
	/* NVRTC counts the NUL. */
	if (c->a.log.bytes > 0 && c->a.log.data[c->a.log.bytes - 1] == '\0')
		c->a.log.bytes--;
	if (code != 0)
		return refuse(c,
			      code == ERROR_COMPILATION || code == ERROR_INVALID_OPTION ||
					      c->a.log.bytes > 0
				      ? WARM_WIRE_COMPILE_ERROR
				      : WARM_WIRE_NVRTC_ERROR,
			      code, nvrtc.error_string(code));
	for (int k = 0; k < WARM_KERNEL_OUTPUTS; k++) {
		if (get_text(p, nvrtc.size[k], nvrtc.get[k], &c->outputs[k], &c->a.outputs[k]) != 0)
			return -1;
		/* PTX of 1 byte is only its NUL: none. */
		if (k == WARM_KERNEL_PTX && c->a.outputs[k].bytes <= 1)
			c->a.outputs[k] = (struct warm_kernel_text){ "", 0 };
	}
	if (collect_deps(c) != 0)
		return -1;
	c->a.lowered = calloc(q->n_expressions + 1, sizeof(*c->a.lowered));
	if (c->a.lowered == NULL)
		return -1;
	for (; c->a.n_lowered < q->n_expressions; c->a.n_lowered++) {
		const char *lowered = NULL;
		int rc = nvrtc.lowered(p, q->expressions[c->a.n_lowered].data, &lowered);
		c->a.lowered[c->a.n_lowered] = warm_text_of(rc == 0 && lowered != NULL ? lowered
										       : "");
	}
	c->a.uncacheable = warm_text_of(c->why);
	return 0;
}

/* Fill `c->a`. -1: out of memory. */
static int compile(struct compile *c, program_t *program)
{
	const struct warm_wire_request *q = c->q;
	const char **names = calloc(q->n_headers + 1, sizeof(*names));
	const char **sources = calloc(q->n_headers + 1, sizeof(*sources));

	if (names == NULL || sources == NULL) {
		free(names);
		free(sources);
		return -1;
	}
	for (size_t i = 0; i < q->n_headers; i++) {
		names[i] = q->headers[i].name.data;
		sources[i] = q->headers[i].source.data;
	}
	int code = nvrtc.create(program, q->source.data, q->name.bytes > 0 ? q->name.data : NULL,
				(int)q->n_headers, sources, names);
	free(names);
	free(sources);
	for (size_t i = 0; code == 0 && i < q->n_expressions; i++)
		code = nvrtc.add_expression(*program, q->expressions[i].data);
	if (code != 0)
		return refuse(c, WARM_WIRE_NVRTC_ERROR, code, nvrtc.error_string(code));
	find_base(c);
	check_options(c);
	return compile_program(c, *program);
}

static void release(struct compile *c)
{
	for (int k = 0; k < WARM_KERNEL_OUTPUTS; k++)
		free(c->outputs[k]);
	for (size_t i = 0; i < c->n_paths; i++)
		free(c->paths[i]);
	free(c->paths);
	free(c->log);
	free(c->a.deps);
	free(c->a.lowered);
}

static int answer(const struct warm_wire_request *q)
{
	struct compile c = { .q = q };
	scope_buf struct warm_buf out = WARM_BUF_INIT;
	program_t program = NULL;
	struct warm_kernel_text empty = { "", 0 };
	char cwd_message[WARM_PATH_BYTES + 64];

	c.a.message = c.a.uncacheable = c.a.log = empty;
	for (int k = 0; k < WARM_KERNEL_OUTPUTS; k++)
		c.a.outputs[k] = empty;
	int rc = 0;
	if (q->cwd.bytes == 0 || chdir(q->cwd.data) != 0) {
		snprintf(cwd_message, sizeof(cwd_message), "current directory '%s': %s",
			 q->cwd.data, strerror(errno));
		rc = refuse(&c, WARM_WIRE_FAILED, 0, cwd_message);
	} else if (load_nvrtc(q->nvrtc.data, q->builtins.data) != 0) {
		rc = refuse(&c, WARM_WIRE_NO_NVRTC, 0, load_message);
	} else {
		rc = compile(&c, &program);
	}
	if (rc != 0)
		(void)refuse(&c, WARM_WIRE_FAILED, 0, "the helper is out of memory");
	warm_wire_put_response(&out, &c.a);
	if (program != NULL)
		nvrtc.destroy(&program);
	rc = warm_wire_send(STDIN_FILENO, &out, 0, NULL);
	start_trace(false);
	release(&c);
	return rc;
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

int main(void)
{
	struct rlimit no_core = { 0, 0 };
	struct stat st;

	if (fstat(STDIN_FILENO, &st) != 0 || !S_ISSOCK(st.st_mode)) {
		static const char text[] = "warmcache-nvrtc compiles for libwarmcache-compiler and "
					   "is started by it.\n";
		return write(STDERR_FILENO, text, sizeof(text) - 1) < 0 ? 1 : 2;
	}
	close_others();
	setrlimit(RLIMIT_CORE, &no_core);
	for (;;) {
		scope_free uint8_t *data = NULL;
		size_t bytes = 0;
		struct warm_wire_request q;
		if (warm_wire_receive(STDIN_FILENO, 0, &data, &bytes, NULL) != 0)
			return 0; /* the host is gone or has what it wanted */
		if (warm_wire_parse_request(data, bytes, &q, NULL) != 0)
			return 1;
		int rc = answer(&q);
		warm_wire_release_request(&q);
		if (rc != 0)
			return 1;
	}
}
