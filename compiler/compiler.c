/* SPDX-License-Identifier: Apache-2.0 */
#include "warmcache/compiler.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "compiler/depend.h"
#include "compiler/nvrtc.h"
#include "compiler/spawn.h"
#include "compiler/wire.h"
#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/option.h"
#include "lib/base/parallel.h"
#include "lib/kernel/entry.h"

enum { DEFAULT_TIMEOUT_MS = 600 * 1000 };

struct warm_compiler {
	int cache_fd; /* -1: no cache */
	char no_cache_reason[256];
	struct warm_nvrtc nvrtc;
	char helper[2 * WARM_PATH_BYTES];
	char helper_missing[256];
	int mode;
	char **sealed; /* NULL-terminated */
	struct warm_depend *depend;
	unsigned max_parallel;
	int64_t timeout_ms;
	atomic_ullong hits, misses, uncacheable, unstored, bad_entries, failed, bytes_read,
		bytes_written, hit_ns, compile_ns;
};

struct warm_compile_result {
	uint8_t *data; /* the entry's bytes */
	struct warm_kernel_entry entry;
	enum warm_compile_source source;
	char reason[256];
	char fingerprint[33];
};

/* ---- errors ---- */

void warm_compiler_error_release(struct warm_compiler_error *error)
{
	if (error == NULL)
		return;
	free(error->log);
	*error = (struct warm_compiler_error)WARM_COMPILER_ERROR_INIT;
}

static int fail(struct warm_compiler_error *error, int status, const char *fmt, ...)
	WARM_PRINTF(3, 4);

static int fail(struct warm_compiler_error *error, int status, const char *fmt, ...)
{
	va_list ap;

	if (error == NULL)
		return status;
	*error = (struct warm_compiler_error)WARM_COMPILER_ERROR_INIT;
	error->status = status;
	va_start(ap, fmt);
	vsnprintf(error->message, sizeof(error->message), fmt, ap);
	va_end(ap);
	return status;
}

/* ---- open and close ---- */

void warm_compiler_close(struct warm_compiler *c)
{
	if (c == NULL)
		return;
	warm_depend_free(c->depend);
	for (size_t i = 0; c->sealed != NULL && c->sealed[i] != NULL; i++)
		free(c->sealed[i]);
	free(c->sealed);
	if (c->cache_fd >= 0)
		close(c->cache_fd);
	free(c);
}

static int copy_sealed(struct warm_compiler *c, const char *const *dirs)
{
	size_t n = 0;

	while (dirs != NULL && dirs[n] != NULL)
		n++;
	c->sealed = calloc(n + 1, sizeof(*c->sealed));
	if (c->sealed == NULL)
		return -1;
	for (size_t i = 0; i < n; i++)
		if ((c->sealed[i] = strdup(dirs[i])) == NULL)
			return -1;
	return 0;
}

static void open_cache(struct warm_compiler *c, const char *dir)
{
	if (dir == NULL)
		dir = getenv("WARM_CACHE_DIR");
	if (dir == NULL || dir[0] == '\0') {
		snprintf(c->no_cache_reason, sizeof(c->no_cache_reason),
			 "no cache directory is set");
		return;
	}
	c->cache_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (c->cache_fd < 0)
		snprintf(c->no_cache_reason, sizeof(c->no_cache_reason),
			 "cache directory %.180s: %s", dir, strerror(errno));
}

int warm_compiler_open(const struct warm_compiler_options *options,
		       struct warm_compiler **ret_compiler, struct warm_compiler_error *error)
{
	struct warm_compiler_options o = WARM_COMPILER_OPTIONS_INIT;
	struct warm_error err = { 0 };

	if (ret_compiler == NULL)
		return fail(error, WARM_COMPILER_INVALID, "ret_compiler is NULL");
	if (options != NULL) {
		/* A program built against an older header has a shorter struct. */
		if (options->size == 0 || options->size > sizeof(o))
			return fail(error, WARM_COMPILER_INVALID,
				    "options.size is %zu, where this library knows %zu",
				    options->size, sizeof(o));
		memcpy(&o, options, options->size);
	}
	if (o.mode < WARM_MODE_TRACED || o.mode > WARM_MODE_CLOSED)
		return fail(error, WARM_COMPILER_INVALID, "options.mode is %d", o.mode);
	struct warm_compiler *c = calloc(1, sizeof(*c));
	if (c == NULL)
		return fail(error, WARM_COMPILER_NO_MEMORY, "out of memory");
	c->cache_fd = -1;
	c->mode = o.mode;
	c->max_parallel = o.max_parallel > 0 ? o.max_parallel : warm_cpus();
	c->timeout_ms = o.timeout_ms > 0 ? o.timeout_ms : DEFAULT_TIMEOUT_MS;
	if (copy_sealed(c, o.mode == WARM_MODE_SEALED ? o.sealed_dirs : NULL) != 0 ||
	    (c->depend = warm_depend_new((const char *const *)c->sealed)) == NULL) {
		warm_compiler_close(c);
		return fail(error, WARM_COMPILER_NO_MEMORY, "out of memory");
	}
	if (warm_nvrtc_find(o.nvrtc_library, &c->nvrtc, &err) != 0) {
		warm_compiler_close(c);
		return fail(error, WARM_COMPILER_NO_NVRTC, "%s", err.msg);
	}
	/* Hits need no helper: it is missed when something has to be compiled. */
	if (warm_helper_find(o.helper, c->helper, sizeof(c->helper), &err) != 0)
		snprintf(c->helper_missing, sizeof(c->helper_missing), "%s", err.msg);
	open_cache(c, o.cache_dir);
	*ret_compiler = c;
	return 0;
}

/* ---- a program's inputs ---- */

struct inputs {
	struct warm_kernel_inputs in;
	struct warm_kernel_text few[24]; /* options and expressions, mostly */
	struct warm_kernel_text *many;
	struct warm_buf environment;
	char base[WARM_PATH_BYTES]; /* "" until asked for */
	char cwd[WARM_PATH_BYTES];
};

static void release_inputs(struct inputs *p)
{
	free(p->many);
	warm_buf_release(&p->environment);
}

static const char *check_program(const struct warm_compile_program *p)
{
	if (p->source == NULL)
		return "program.source is NULL";
	if (memchr(p->source, 0, p->source_bytes) != NULL)
		return "program.source holds a NUL byte";
	if (p->n_options > 0 && p->options == NULL)
		return "program.options is NULL";
	for (size_t i = 0; i < p->n_options; i++)
		if (p->options[i] == NULL)
			return "an element of program.options is NULL";
	if (p->n_headers > 0 && p->headers == NULL)
		return "program.headers is NULL";
	for (size_t i = 0; i < p->n_headers; i++) {
		if (p->headers[i].name == NULL || p->headers[i].source == NULL)
			return "an element of program.headers holds NULL";
		if (memchr(p->headers[i].source, 0, p->headers[i].source_bytes) != NULL)
			return "an element of program.headers holds a NUL byte";
	}
	if (p->n_name_expressions > 0 && p->name_expressions == NULL)
		return "program.name_expressions is NULL";
	for (size_t i = 0; i < p->n_name_expressions; i++)
		if (p->name_expressions[i] == NULL)
			return "an element of program.name_expressions is NULL";
	return NULL;
}

/* One line each; a value that holds a newline can't be told from two variables. */
static void take_variable(struct inputs *p, const char *variable)
{
	for (const char *c = variable; *c != '\0'; c++)
		if (*c == '\n')
			return;
	warm_buf_printf(&p->environment, "%s\n", variable);
}

static void take_environment(struct inputs *p)
{
	extern char **environ;

	for (char **e = environ; e != NULL && *e != NULL; e++) {
		/* All of them begin with one of these letters. */
		if ((*e)[0] != 'N' && (*e)[0] != 'E' && (*e)[0] != 'L' && (*e)[0] != 'F')
			continue;
		size_t n = strcspn(*e, "=");
		for (size_t i = 0; warm_nvrtc_environment[i] != NULL; i++)
			if (strlen(warm_nvrtc_environment[i]) == n &&
			    memcmp(*e, warm_nvrtc_environment[i], n) == 0)
				take_variable(p, *e);
	}
}

static int take_inputs(const struct warm_compiler *c, const struct warm_compile_program *program,
		       struct warm_hasher *hasher, struct inputs *p)
{
	size_t n = program->n_options + program->n_name_expressions;
	struct warm_kernel_text *texts = p->few;

	if (n > sizeof(p->few) / sizeof(p->few[0])) {
		texts = p->many = calloc(n, sizeof(*texts));
		if (texts == NULL)
			return -1;
	}
	for (size_t i = 0; i < program->n_options; i++)
		texts[i] = warm_text_of(program->options[i]);
	for (size_t i = 0; i < program->n_name_expressions; i++)
		texts[program->n_options + i] = warm_text_of(program->name_expressions[i]);
	take_environment(p);
	if (p->environment.failed)
		return -1;
	const char *name = program->name != NULL ? program->name : "";
	const char *slash = strrchr(name, '/');
	p->in = (struct warm_kernel_inputs){
		.compiler = warm_text_of(c->nvrtc.identity),
		.environment = { p->environment.data != NULL ? (char *)p->environment.data : "",
				 p->environment.bytes },
		.name = warm_text_of(slash != NULL ? slash + 1 : name),
		.options = texts,
		.n_options = program->n_options,
		.expressions = texts + program->n_options,
		.n_expressions = program->n_name_expressions,
		.source_bytes = program->source_bytes,
		.source_digest = warm_hash128(program->source, program->source_bytes),
		.n_headers = (uint32_t)program->n_headers,
	};
	if (program->n_headers > 0) {
		warm_hasher_reset(hasher);
		for (size_t i = 0; i < program->n_headers; i++) {
			const struct warm_header *h = &program->headers[i];
			warm_hasher_add_field(hasher, h->name, strlen(h->name));
			warm_hasher_add_field(hasher, h->source, h->source_bytes);
			p->in.headers_bytes += h->source_bytes;
		}
		p->in.headers_digest = warm_hasher_digest(hasher);
	}
	return 0;
}

static void find_directories(const struct warm_compile_program *program, struct inputs *p)
{
	const char *name = program->name != NULL ? program->name : "";
	const char *slash = strrchr(name, '/');

	if (p->cwd[0] != '\0')
		return;
	if (getcwd(p->cwd, sizeof(p->cwd)) == NULL)
		snprintf(p->cwd, sizeof(p->cwd), "/");
	if (slash == NULL)
		snprintf(p->base, sizeof(p->base), "%s", p->cwd);
	else if (name[0] == '/')
		snprintf(p->base, sizeof(p->base), "%.*s", (int)(slash - name), name);
	else
		snprintf(p->base, sizeof(p->base), "%.*s/%.*s", (int)(sizeof(p->base) / 2), p->cwd,
			 (int)(slash - name), name);
}

/* ---- hits ---- */

/* Read one entry; NULL when it isn't there, isn't whole, or is another program's. */
static struct warm_compile_result *read_entry(struct warm_compiler *c, int dir_fd, const char *path,
					      struct warm_hash128 fingerprint,
					      const struct warm_kernel_inputs *in)
{
	struct stat st;

	scope_close int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return NULL;
	struct warm_compile_result *r = calloc(1, sizeof(*r));
	if (r == NULL || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) ||
	    (uint64_t)st.st_size > WARM_KERNEL_ENTRY_BYTES)
		goto bad;
	size_t bytes = (size_t)st.st_size;
	r->data = malloc(bytes + 1);
	if (r->data == NULL || warm_file_read_at(fd, r->data, bytes, 0, NULL) != 0 ||
	    warm_kernel_entry_parse(r->data, bytes, &r->entry, NULL) != 0)
		goto bad;
	if (r->entry.fingerprint.low != fingerprint.low ||
	    r->entry.fingerprint.high != fingerprint.high ||
	    !warm_kernel_inputs_equal(&r->entry.inputs, in))
		goto bad;
	atomic_fetch_add_explicit(&c->bytes_read, bytes, memory_order_relaxed);
	return r;
bad:
	atomic_fetch_add_explicit(&c->bad_entries, 1, memory_order_relaxed);
	warm_compile_result_free(r);
	return NULL;
}

struct variant {
	char name[64];
	int64_t mtime_ns;
};

static int newest_first(const void *a_p, const void *b_p)
{
	const struct variant *a = a_p, *b = b_p;

	if (a->mtime_ns != b->mtime_ns)
		return a->mtime_ns > b->mtime_ns ? -1 : 1;
	return strcmp(a->name, b->name);
}

/* The variants of a program with dependencies, newest first. Returns how many, at most `max`. */
static size_t list_variants(int dir_fd, const char *path, struct variant *ret, size_t max)
{
	size_t n = 0;
	int fd = openat(dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	scope_closedir DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *e;
	struct stat st;

	if (dir == NULL) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	while (n < max && (e = readdir(dir)) != NULL) {
		if (strlen(e->d_name) != 32 || fstatat(fd, e->d_name, &st, 0) != 0)
			continue;
		snprintf(ret[n].name, sizeof(ret[n].name), "%.40s", e->d_name);
		ret[n++].mtime_ns = warm_timespec_ns(st.st_mtim);
	}
	qsort(ret, n, sizeof(*ret), newest_first);
	return n;
}

static struct warm_compile_result *look_up(struct warm_compiler *c,
					   const struct warm_compile_program *program,
					   struct warm_hash128 fingerprint, struct inputs *p)
{
	struct variant variants[4 * WARM_KERNEL_VARIANTS];
	char path[128], dir[136], variant_path[208];

	if (c->cache_fd < 0)
		return NULL;
	warm_kernel_entry_path(fingerprint, NULL, path);
	struct warm_compile_result *r = read_entry(c, c->cache_fd, path, fingerprint, &p->in);
	if (r != NULL || c->mode == WARM_MODE_CLOSED)
		return r;
	snprintf(dir, sizeof(dir), "%s.d", path);
	size_t n = list_variants(c->cache_fd, dir, variants, 4 * WARM_KERNEL_VARIANTS);
	for (size_t i = 0; i < n; i++) {
		snprintf(variant_path, sizeof(variant_path), "%s/%.32s", dir, variants[i].name);
		r = read_entry(c, c->cache_fd, variant_path, fingerprint, &p->in);
		if (r == NULL)
			continue;
		find_directories(program, p);
		if (warm_depend_holds(c->depend, r->entry.deps, r->entry.n_deps, p->base, p->cwd))
			return r;
		warm_compile_result_free(r);
	}
	return NULL;
}

/* ---- misses ---- */

static int store_entry(struct warm_compiler *c, const struct warm_kernel_entry *entry,
		       const uint8_t *data, size_t bytes, struct warm_hasher *hasher,
		       struct warm_error *err)
{
	struct variant variants[4 * WARM_KERNEL_VARIANTS];
	char path[128], temp[160], old[256];
	uint64_t random;

	if (entry->n_deps > 0) {
		struct warm_hash128 deps = warm_kernel_deps_digest(entry->deps, entry->n_deps,
								   hasher);
		warm_kernel_entry_path(entry->fingerprint, &deps, path);
	} else {
		warm_kernel_entry_path(entry->fingerprint, NULL, path);
	}
	char *slash = strrchr(path, '/');
	*slash = '\0';
	int rc = warm_beneath_mkdirs(c->cache_fd, path, err);
	if (rc != 0)
		return rc;
	if (entry->n_deps > 0) {
		/* Room for one more: the oldest go. */
		size_t n = list_variants(c->cache_fd, path, variants, 4 * WARM_KERNEL_VARIANTS);
		for (size_t i = WARM_KERNEL_VARIANTS - 1; i < n; i++) {
			snprintf(old, sizeof(old), "%s/%s", path, variants[i].name);
			if (strcmp(variants[i].name, slash + 1) != 0)
				unlinkat(c->cache_fd, old, 0);
		}
	}
	warm_random(&random, sizeof(random));
	snprintf(temp, sizeof(temp), "%s/tmp.%016llx", path, (unsigned long long)random);
	*slash = '/';
	scope_close int fd = openat(c->cache_fd, temp,
				    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
	if (fd < 0)
		return warm_error_errno(err, errno, "create %s", temp);
	rc = warm_file_write(fd, data, bytes, err);
	/* Readers of another uid: whatever the umask was. Not on every file system. */
	if (rc == 0 && fchmod(fd, 0666) != 0 && errno != EPERM)
		rc = warm_error_errno(err, errno, "chmod %s", temp);
	if (rc == 0)
		rc = warm_file_close(&fd, err);
	if (rc == 0 && renameat(c->cache_fd, temp, c->cache_fd, path) != 0)
		rc = warm_error_errno(err, errno, "rename to %s", path);
	if (rc != 0)
		unlinkat(c->cache_fd, temp, 0);
	return rc;
}

static int ask_helper(struct warm_compiler *c, const struct warm_compile_program *program,
		      struct inputs *p, uint8_t **ret_data, struct warm_wire_response *ret_response,
		      struct warm_compiler_error *error)
{
	struct warm_error err = { 0 };
	scope_buf struct warm_buf request = WARM_BUF_INIT;
	size_t bytes = 0;

	if (c->helper[0] == '\0')
		return fail(error, WARM_COMPILER_HELPER, "%s", c->helper_missing);
	scope_free struct warm_wire_header *headers = calloc(program->n_headers + 1,
							     sizeof(*headers));
	if (headers == NULL)
		return fail(error, WARM_COMPILER_NO_MEMORY, "out of memory");
	for (size_t i = 0; i < program->n_headers; i++) {
		headers[i].name = warm_text_of(program->headers[i].name);
		headers[i].source = (struct warm_kernel_text){ program->headers[i].source,
							       program->headers[i].source_bytes };
	}
	find_directories(program, p);
	struct warm_wire_request q = {
		.nvrtc = warm_text_of(c->nvrtc.library),
		.builtins = warm_text_of(c->nvrtc.builtins),
		.cwd = warm_text_of(p->cwd),
		.name = warm_text_of(program->name != NULL ? program->name : ""),
		.source = { program->source, program->source_bytes },
		.trace = true,
		.options = p->in.options,
		.n_options = p->in.n_options,
		.expressions = p->in.expressions,
		.n_expressions = p->in.n_expressions,
		.headers = headers,
		.n_headers = program->n_headers,
	};
	warm_wire_put_request(&request, &q);
	int rc = warm_helper_run(c->helper, p->in.environment.data, &request, c->timeout_ms,
				 ret_data, &bytes, &err);
	if (rc == 0)
		rc = warm_wire_parse_response(*ret_data, bytes, ret_response, &err);
	if (rc == WARM_NO_MEMORY)
		return fail(error, WARM_COMPILER_NO_MEMORY, "%s", err.msg);
	return rc == 0 ? 0 : fail(error, WARM_COMPILER_HELPER, "%s", err.msg);
}

static int fail_by_response(const struct warm_wire_response *a, const char *name,
			    struct warm_compiler_error *error)
{
	static const int statuses[] = {
		[WARM_WIRE_COMPILED] = WARM_COMPILER_OK,
		[WARM_WIRE_COMPILE_ERROR] = WARM_COMPILER_COMPILE_ERROR,
		[WARM_WIRE_NVRTC_ERROR] = WARM_COMPILER_NVRTC,
		[WARM_WIRE_NO_NVRTC] = WARM_COMPILER_NO_NVRTC,
		[WARM_WIRE_FAILED] = WARM_COMPILER_HELPER,
	};
	int status = fail(error, statuses[a->outcome], "%s%s%s", name != NULL ? name : "",
			  name != NULL ? ": " : "", a->message.data);

	if (error != NULL) {
		error->nvrtc_result = a->nvrtc_result;
		if (a->log.bytes > 0)
			error->log = strndup(a->log.data, a->log.bytes);
	}
	return status;
}

static int compile(struct warm_compiler *c, const struct warm_compile_program *program,
		   struct warm_hash128 fingerprint, struct inputs *p, struct warm_hasher *hasher,
		   struct warm_compile_result **ret_result, struct warm_compiler_error *error)
{
	scope_free uint8_t *data = NULL;
	struct warm_wire_response a = { 0 };
	struct warm_error err = { 0 };

	int rc = ask_helper(c, program, p, &data, &a, error);
	if (rc != 0)
		return rc;
	if (a.outcome != WARM_WIRE_COMPILED) {
		rc = fail_by_response(&a, program->name, error);
		warm_wire_release_response(&a);
		return rc;
	}
	struct warm_kernel_entry entry = {
		.fingerprint = fingerprint,
		.inputs = p->in,
		.deps = a.deps,
		.n_deps = a.n_deps,
		.lowered = a.lowered,
		.log = a.log,
	};
	memcpy(entry.outputs, a.outputs, sizeof(entry.outputs));
	struct warm_buf bytes = WARM_BUF_INIT;
	warm_kernel_entry_encode(&entry, &bytes);
	struct warm_compile_result *r = calloc(1, sizeof(*r));
	if (bytes.failed || r == NULL ||
	    warm_kernel_entry_parse(bytes.data, bytes.bytes, &r->entry, NULL) != 0) {
		warm_buf_release(&bytes);
		free(r);
		warm_wire_release_response(&a);
		return fail(error, WARM_COMPILER_NO_MEMORY, "out of memory");
	}
	r->data = bytes.data;
	r->source = WARM_COMPILE_MISS;
	if (a.uncacheable.bytes > 0) {
		r->source = WARM_COMPILE_UNCACHEABLE;
		snprintf(r->reason, sizeof(r->reason), "%s", a.uncacheable.data);
		atomic_fetch_add_explicit(&c->uncacheable, 1, memory_order_relaxed);
	} else if (!warm_nvrtc_unchanged(&c->nvrtc)) {
		r->source = WARM_COMPILE_UNSTORED;
		snprintf(r->reason, sizeof(r->reason),
			 "%.200s changed since the compiler was opened", c->nvrtc.library);
	} else if (c->cache_fd < 0) {
		r->source = WARM_COMPILE_UNSTORED;
		snprintf(r->reason, sizeof(r->reason), "%s", c->no_cache_reason);
	} else if (store_entry(c, &r->entry, bytes.data, bytes.bytes, hasher, &err) != 0) {
		r->source = WARM_COMPILE_UNSTORED;
		snprintf(r->reason, sizeof(r->reason), "%.250s", err.msg);
	} else {
		atomic_fetch_add_explicit(&c->bytes_written, bytes.bytes, memory_order_relaxed);
	}
	if (r->source == WARM_COMPILE_UNSTORED)
		atomic_fetch_add_explicit(&c->unstored, 1, memory_order_relaxed);
	warm_wire_release_response(&a);
	*ret_result = r;
	return 0;
}

int warm_compiler_compile(struct warm_compiler *c, const struct warm_compile_program *program,
			  struct warm_compile_result **ret_result,
			  struct warm_compiler_error *error)
{
	struct inputs p;
	int64_t start = warm_clock_ns();

	if (c == NULL || program == NULL || ret_result == NULL)
		return fail(error, WARM_COMPILER_INVALID, "%s is NULL",
			    c == NULL	      ? "compiler"
			    : program == NULL ? "program"
					      : "ret_result");
	const char *wrong = check_program(program);
	if (wrong != NULL)
		return fail(error, WARM_COMPILER_INVALID, "%s", wrong);
	struct warm_hasher *hasher = warm_hasher_new();
	p.many = NULL;
	p.environment = (struct warm_buf)WARM_BUF_INIT;
	p.cwd[0] = p.base[0] = '\0';
	if (hasher == NULL || take_inputs(c, program, hasher, &p) != 0) {
		warm_hasher_free(hasher);
		release_inputs(&p);
		return fail(error, WARM_COMPILER_NO_MEMORY, "out of memory");
	}
	struct warm_hash128 fingerprint = warm_kernel_fingerprint(&p.in, hasher);
	struct warm_compile_result *r = look_up(c, program, fingerprint, &p);
	int rc = 0;
	if (r != NULL) {
		atomic_fetch_add_explicit(&c->hits, 1, memory_order_relaxed);
		atomic_fetch_add_explicit(&c->hit_ns, (unsigned long long)(warm_clock_ns() - start),
					  memory_order_relaxed);
	} else {
		rc = compile(c, program, fingerprint, &p, hasher, &r, error);
		atomic_fetch_add_explicit(rc == 0 ? &c->misses : &c->failed, 1,
					  memory_order_relaxed);
		atomic_fetch_add_explicit(&c->compile_ns,
					  (unsigned long long)(warm_clock_ns() - start),
					  memory_order_relaxed);
	}
	warm_hasher_free(hasher);
	release_inputs(&p);
	if (rc != 0)
		return rc;
	warm_hash128_hex(fingerprint, r->fingerprint);
	*ret_result = r;
	return 0;
}

/* ---- many ---- */

struct batch {
	struct warm_compiler *compiler;
	const struct warm_compile_program *programs;
	struct warm_compile_result **results;
	struct warm_compiler_error *errors;
	void (*done)(void *arg, size_t index, const struct warm_compile_result *result);
	void *arg;
	pthread_mutex_t lock;
};

static int compile_one(void *arg, size_t i, struct warm_error *err)
{
	struct batch *b = arg;

	(void)err;
	if (warm_compiler_compile(b->compiler, &b->programs[i], &b->results[i], &b->errors[i]) != 0)
		b->results[i] = NULL;
	if (b->done != NULL) {
		pthread_mutex_lock(&b->lock);
		b->done(b->arg, i, b->results[i]);
		pthread_mutex_unlock(&b->lock);
	}
	return 0; /* one that fails doesn't stop the others */
}

int warm_compiler_compile_many(
	struct warm_compiler *compiler, const struct warm_compile_program *programs, size_t n,
	struct warm_compile_result **ret_results, struct warm_compiler_error *errors,
	void (*done)(void *arg, size_t index, const struct warm_compile_result *result), void *arg)
{
	struct batch b = {
		compiler, programs, ret_results, errors, done, arg, PTHREAD_MUTEX_INITIALIZER
	};

	if (compiler == NULL ||
	    (n > 0 && (programs == NULL || ret_results == NULL || errors == NULL)))
		return WARM_COMPILER_INVALID;
	for (size_t i = 0; i < n; i++) {
		ret_results[i] = NULL;
		errors[i] = (struct warm_compiler_error)WARM_COMPILER_ERROR_INIT;
	}
	if (warm_parallel(compiler->max_parallel, n, compile_one, &b, NULL) != 0)
		return WARM_COMPILER_NO_MEMORY;
	for (size_t i = 0; i < n; i++)
		if (ret_results[i] == NULL)
			return errors[i].status;
	return 0;
}

/* ---- results ---- */

void warm_compile_result_free(struct warm_compile_result *r)
{
	if (r == NULL)
		return;
	warm_kernel_entry_release(&r->entry);
	free(r->data);
	free(r);
}

const void *warm_compile_result_output(const struct warm_compile_result *r, enum warm_output kind,
				       size_t *ret_bytes)
{
	bool known = (unsigned)kind < WARM_KERNEL_OUTPUTS && r->entry.outputs[kind].bytes > 0;

	if (ret_bytes != NULL)
		*ret_bytes = known ? r->entry.outputs[kind].bytes : 0;
	return known ? r->entry.outputs[kind].data : NULL;
}

const char *warm_compile_result_log(const struct warm_compile_result *r)
{
	return r->entry.log.data;
}

const char *warm_compile_result_lowered_name(const struct warm_compile_result *r,
					     const char *name_expression)
{
	size_t n = strlen(name_expression);

	for (size_t i = 0; i < r->entry.inputs.n_expressions; i++)
		if (r->entry.inputs.expressions[i].bytes == n &&
		    memcmp(r->entry.inputs.expressions[i].data, name_expression, n) == 0)
			return r->entry.lowered[i].bytes > 0 ? r->entry.lowered[i].data : NULL;
	return NULL;
}

enum warm_compile_source warm_compile_result_source(const struct warm_compile_result *r)
{
	return r->source;
}

const char *warm_compile_result_reason(const struct warm_compile_result *r)
{
	return r->reason;
}

const char *warm_compile_result_fingerprint(const struct warm_compile_result *r)
{
	return r->fingerprint;
}

void warm_compiler_get_counters(const struct warm_compiler *c,
				struct warm_compiler_counters *ret_counters)
{
	*ret_counters = (struct warm_compiler_counters){
		.hits = atomic_load(&c->hits),
		.misses = atomic_load(&c->misses),
		.uncacheable = atomic_load(&c->uncacheable),
		.unstored = atomic_load(&c->unstored),
		.bad_entries = atomic_load(&c->bad_entries),
		.failed = atomic_load(&c->failed),
		.bytes_read = atomic_load(&c->bytes_read),
		.bytes_written = atomic_load(&c->bytes_written),
		.hit_us = atomic_load(&c->hit_ns) / 1000,
		.compile_us = atomic_load(&c->compile_ns) / 1000,
	};
}

const char *warm_compiler_version(void)
{
	return warm_version;
}
