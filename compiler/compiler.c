/* SPDX-License-Identifier: Apache-2.0 */
#include "warmcache/compiler.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "compiler/cacheable.h"
#include "compiler/depend.h"
#include "compiler/entries.h"
#include "compiler/flight.h"
#include "compiler/journal.h"
#include "compiler/native.h"
#include "compiler/nvrtc.h"
#include "compiler/pool.h"
#include "compiler/spawn.h"
#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/option.h"
#include "lib/base/parallel.h"
#include "lib/kernel/entry.h"

enum { DEFAULT_TIMEOUT_MS = 600 * 1000 };

struct warm_compiler {
	struct warm_compiler *next; /* in `all` */
	struct warm_entries entries;
	char *cache_dir; /* absolute, and which it was */
	struct warm_fd_id cache_id;
	char no_cache_reason[256];
	struct warm_nvrtc nvrtc;
	char helper[2 * WARM_PATH_BYTES];
	char helper_missing[256];
	int mode;
	bool fallback;
	char **sealed; /* NULL-terminated */
	struct warm_depend *depend;
	struct warm_pool *pool;
	struct warm_flights *flights;
	struct warm_journal *journal; /* NULL: nobody asked */
	pthread_mutex_t native_lock;
	struct warm_native native; /* for `fallback`, once it was needed */
	unsigned max_parallel;
	int64_t timeout_ms;
	struct warm_kernel_counters counters;
};

struct warm_compile_result {
	struct warm_stored stored;
	enum warm_compile_source source;
	char reason[256];
	char fingerprint[33];
};

/* All compilers of the process, for fork(). */
static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static struct warm_compiler *all;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* ---- errors ---- */

void warm_compiler_error_release(struct warm_compiler_error *error)
{
	if (error == NULL)
		return;
	free(error->log);
	free(error->ptx);
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

/* ---- fork ---- */

static void at_fork(enum warm_fork phase)
{
	for (struct warm_compiler *c = all; c != NULL; c = c->next) {
		warm_depend_fork(c->depend, phase);
		warm_pool_fork(c->pool, phase);
		warm_flights_fork(c->flights, phase);
		warm_journal_fork(c->journal, phase);
		/* Who swept, or loaded NVRTC, is not here any more. */
		if (phase == WARM_FORK_CHILD) {
			atomic_flag_clear(&c->entries.sweeping);
			warm_kernel_counters_forked(&c->counters, c->entries.cache_fd);
			pthread_mutex_init(&c->native_lock, NULL);
		}
	}
}

static void before_fork(void)
{
	pthread_mutex_lock(&all_lock);
	at_fork(WARM_FORK_PREPARE);
}

static void after_fork_in_parent(void)
{
	at_fork(WARM_FORK_PARENT);
	pthread_mutex_unlock(&all_lock);
}

static void after_fork_in_child(void)
{
	at_fork(WARM_FORK_CHILD);
	pthread_mutex_unlock(&all_lock);
}

/* What hits have counted since a second ago, of a program that closes no compiler. */
static void flush_all(void)
{
	for (struct warm_compiler *c = all; c != NULL; c = c->next)
		warm_kernel_counters_flush(&c->counters, true);
}

static void register_once(void)
{
	(void)pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
	(void)atexit(flush_all);
}

static void add_to_all(struct warm_compiler *c)
{
	pthread_once(&once, register_once);
	pthread_mutex_lock(&all_lock);
	c->next = all;
	all = c;
	pthread_mutex_unlock(&all_lock);
}

static void remove_from_all(struct warm_compiler *c)
{
	pthread_mutex_lock(&all_lock);
	for (struct warm_compiler **at = &all; *at != NULL; at = &(*at)->next)
		if (*at == c) {
			*at = c->next;
			break;
		}
	pthread_mutex_unlock(&all_lock);
}

/* ---- open and close ---- */

void warm_compiler_close(struct warm_compiler *c)
{
	if (c == NULL)
		return;
	remove_from_all(c);
	warm_pool_free(c->pool);
	warm_flights_free(c->flights);
	warm_depend_free(c->depend);
	warm_journal_close(c->journal);
	warm_kernel_counters_close(&c->counters);
	for (size_t i = 0; c->sealed != NULL && c->sealed[i] != NULL; i++)
		free(c->sealed[i]);
	free(c->sealed);
	if (warm_fd_is(c->entries.cache_fd, c->cache_id))
		close(c->entries.cache_fd);
	free(c->cache_dir);
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
		dir = secure_getenv("WARM_CACHE_DIR");
	if (dir == NULL || dir[0] == '\0') {
		snprintf(c->no_cache_reason, sizeof(c->no_cache_reason),
			 "no cache directory is set");
		return;
	}
	c->entries.cache_fd = warm_fd_move_up(open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	if (c->entries.cache_fd < 0)
		snprintf(c->no_cache_reason, sizeof(c->no_cache_reason),
			 "cache directory %.180s: %s", dir, strerror(errno));
	else if (warm_kernel_counters_open(&c->counters, c->entries.cache_fd, NULL) != 0)
		c->counters.id.ino = 0; /* the process's own are enough */
	c->cache_id = warm_fd_id(c->entries.cache_fd);
	c->cache_dir = realpath(dir, NULL);
}

/* A program that makes itself a daemon closes our descriptor with the others, and the number is
 * another file's then. */
static void check_cache(struct warm_compiler *c)
{
	if (c->entries.cache_fd < 0 || warm_fd_is(c->entries.cache_fd, c->cache_id))
		return;
	int fd = c->cache_dir != NULL
			 ? warm_fd_move_up(open(c->cache_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC))
			 : -1;
	bool ours = warm_fd_is(fd, c->cache_id);
	pthread_mutex_lock(&all_lock);
	if (!warm_fd_is(c->entries.cache_fd, c->cache_id)) {
		if (!ours)
			snprintf(c->no_cache_reason, sizeof(c->no_cache_reason),
				 "the program closed the cache directory's descriptor");
		c->entries.cache_fd = ours ? take_fd(&fd) : -1;
		warm_flights_use(c->flights, c->entries.cache_fd);
	}
	pthread_mutex_unlock(&all_lock);
	if (fd >= 0)
		close(fd);
}

/* "2G"; what makes no sense is no limit. */
static uint64_t max_bytes_of_environment(void)
{
	const char *text = getenv("WARM_COMPILER_MAX_BYTES");
	uint64_t bytes = 0;
	const struct warm_option row = { .name = "max-bytes",
					 .kind = WARM_OPTION_BYTES,
					 .value = &bytes };

	return text != NULL && warm_option_set(&row, text, NULL) == 0 ? bytes : 0;
}

static int check_options(const struct warm_compiler_options *options,
			 struct warm_compiler_options *ret_options,
			 struct warm_compiler_error *error)
{
	if (options != NULL) {
		/* A program built against an older header has a shorter struct. */
		if (options->size == 0 || options->size > sizeof(*ret_options))
			return fail(error, WARM_COMPILER_INVALID,
				    "options.size is %zu, where this library knows %zu",
				    options->size, sizeof(*ret_options));
		memcpy(ret_options, options, options->size);
	}
	if (ret_options->mode < WARM_MODE_TRACED || ret_options->mode > WARM_MODE_CLOSED)
		return fail(error, WARM_COMPILER_INVALID, "options.mode is %d", ret_options->mode);
	return 0;
}

int warm_compiler_open(const struct warm_compiler_options *options,
		       struct warm_compiler **ret_compiler, struct warm_compiler_error *error)
{
	struct warm_compiler_options o = WARM_COMPILER_OPTIONS_INIT;
	struct warm_error err = { 0 };

	if (ret_compiler == NULL)
		return fail(error, WARM_COMPILER_INVALID, "ret_compiler is NULL");
	int rc = check_options(options, &o, error);
	if (rc != 0)
		return rc;
	struct warm_compiler *c = calloc(1, sizeof(*c));
	if (c == NULL)
		return fail(error, WARM_COMPILER_NO_MEMORY, "out of memory");
	pthread_mutex_init(&c->native_lock, NULL);
	c->entries.cache_fd = -1;
	c->entries.counters = &c->counters;
	c->entries.max_bytes = o.max_bytes > 0 ? o.max_bytes : max_bytes_of_environment();
	c->mode = o.mode;
	c->fallback = o.fallback != 0;
	c->max_parallel = o.max_parallel > 0 ? o.max_parallel : warm_cpus();
	c->timeout_ms = o.timeout_ms > 0 ? o.timeout_ms : DEFAULT_TIMEOUT_MS;
	open_cache(c, o.cache_dir);
	if (copy_sealed(c, o.mode == WARM_MODE_SEALED ? o.sealed_dirs : NULL) != 0 ||
	    (c->depend = warm_depend_new((const char *const *)c->sealed)) == NULL ||
	    (c->pool = warm_pool_new(c->helper, c->max_parallel, &c->counters)) == NULL ||
	    (c->flights = warm_flights_new(c->entries.cache_fd)) == NULL) {
		warm_compiler_close(c);
		return fail(error, WARM_COMPILER_NO_MEMORY, "out of memory");
	}
	if (warm_nvrtc_find(o.nvrtc_library, 0, &c->nvrtc, &err) != 0) {
		warm_compiler_close(c);
		return fail(error, WARM_COMPILER_NO_NVRTC, "%s", err.msg);
	}
	/* Hits need no helper: it is missed when something has to be compiled. */
	if (warm_helper_find(o.helper, c->helper, sizeof(c->helper), &err) != 0)
		snprintf(c->helper_missing, sizeof(c->helper_missing), "%.255s", err.msg);
	c->journal = warm_journal_open(secure_getenv("WARM_COMPILER_LOG"));
	add_to_all(c);
	*ret_compiler = c;
	return 0;
}

/* ---- a program's inputs ---- */

struct inputs {
	struct warm_kernel_inputs in;
	struct warm_kernel_text few[24]; /* options and expressions, mostly */
	struct warm_kernel_text *many;
	struct warm_buf environment;
	struct warm_place place;
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
	}
	if (p->n_name_expressions > 0 && p->name_expressions == NULL)
		return "program.name_expressions is NULL";
	for (size_t i = 0; i < p->n_name_expressions; i++)
		if (p->name_expressions[i] == NULL)
			return "an element of program.name_expressions is NULL";
	return NULL;
}

/* NVRTC would read up to it alone. What holds one is never stored, so only a miss looks. */
static const char *check_texts(const struct warm_compile_program *p)
{
	if (memchr(p->source, 0, p->source_bytes) != NULL)
		return "program.source holds a NUL byte";
	for (size_t i = 0; i < p->n_headers; i++)
		if (memchr(p->headers[i].source, 0, p->headers[i].source_bytes) != NULL)
			return "an element of program.headers holds a NUL byte";
	return NULL;
}

/* One line each. A newline in a value would make two of one: such an environment is marked, and
 * nothing is cached in it. */
static void take_variable(struct inputs *p, const char *variable)
{
	warm_buf_printf(&p->environment, "%s\n", variable);
	for (size_t i = p->environment.bytes - strlen(variable) - 1;
	     !p->environment.failed && i + 1 < p->environment.bytes; i++)
		if (p->environment.data[i] == '\n')
			p->environment.data[i] = WARM_NEWLINE_MARK;
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
	if (name[0] == '\0')
		name = WARM_DEFAULT_PROGRAM;
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

static void find_directories(const struct warm_compile_program *program, struct warm_place *place)
{
	const char *name = program->name != NULL ? program->name : "";
	const char *slash = strrchr(name, '/');

	if (place->cwd[0] != '\0')
		return;
	if (getcwd(place->cwd, sizeof(place->cwd)) == NULL)
		snprintf(place->cwd, sizeof(place->cwd), "/");
	place->dir = (struct warm_kernel_text){ name,
						slash != NULL ? (size_t)(slash + 1 - name) : 0 };
	if (slash == NULL)
		snprintf(place->base, sizeof(place->base), "%s", place->cwd);
	else if (name[0] == '/')
		snprintf(place->base, sizeof(place->base), "%.*s", (int)(slash - name), name);
	else
		snprintf(place->base, sizeof(place->base), "%.*s/%.*s",
			 (int)(sizeof(place->base) / 2), place->cwd, (int)(slash - name), name);
}

/* ---- one call ---- */

struct call {
	struct warm_compiler *c;
	const struct warm_compile_program *program;
	struct inputs inputs;
	struct warm_hasher *hasher;
	struct warm_hash128 fingerprint;
	int64_t start_ns;
	char why[WARM_DEPEND_WHY_BYTES]; /* the newest variant's dependency that didn't hold */
};

static void count(struct warm_compiler *c, enum warm_kernel_counter counter, uint64_t n)
{
	warm_kernel_count(&c->counters, counter, n);
}

static bool dependencies_hold(void *arg, const struct warm_stored *stored)
{
	struct call *call = arg;
	bool first = call->c->journal != NULL && call->why[0] == '\0';

	find_directories(call->program, &call->inputs.place);
	return warm_depend_holds(call->c->depend, warm_stored_id(stored), stored->entry.deps,
				 &call->inputs.place, first ? call->why : NULL);
}

static struct warm_compile_result *new_result(enum warm_compile_source source,
					      struct warm_stored *stored)
{
	struct warm_compile_result *r = calloc(1, sizeof(*r));

	if (r == NULL) {
		warm_stored_release(stored);
		return NULL;
	}
	r->source = source;
	r->stored = *stored;
	return r;
}

static struct warm_compile_result *look_up(struct call *call)
{
	struct warm_compiler *c = call->c;
	struct warm_stored s;

	call->why[0] = '\0';
	if (!warm_entries_read(&c->entries, call->fingerprint, &call->inputs.in, &s) &&
	    (c->mode == WARM_MODE_CLOSED ||
	     !warm_entries_read_variant(&c->entries, call->fingerprint, &call->inputs.in,
					dependencies_hold, call, &s)))
		return NULL;
	count(c, WARM_KERNEL_COUNT_BYTES_READ, s.bytes);
	return new_result(WARM_COMPILE_HIT, &s);
}

/* ---- compile ---- */

/* With a NUL behind it; NULL when it is empty. */
static char *copy_text(struct warm_kernel_text text)
{
	char *copy = text.bytes > 0 ? malloc(text.bytes + 1) : NULL;

	if (copy != NULL) {
		memcpy(copy, text.data, text.bytes);
		copy[text.bytes] = '\0';
	}
	return copy;
}

static int fail_by_response(const struct warm_wire_response *a, const char *name,
			    struct warm_compiler_error *error)
{
	static const int statuses[] = {
		[WARM_WIRE_COMPILED] = WARM_COMPILER_OK,
		[WARM_WIRE_COMPILE_ERROR] = WARM_COMPILER_COMPILE_ERROR,
		[WARM_WIRE_NVRTC_ERROR] = WARM_COMPILER_NVRTC,
		[WARM_WIRE_NO_NVRTC] = WARM_COMPILER_NO_NVRTC,
		[WARM_WIRE_NO_CWD] = WARM_COMPILER_HELPER,
		[WARM_WIRE_FAILED] = WARM_COMPILER_HELPER,
	};
	int status = fail(error, statuses[a->outcome], "%s%s%s", name != NULL ? name : "",
			  name != NULL ? ": " : "", a->message.data);

	if (error != NULL) {
		error->nvrtc_result = a->nvrtc_result;
		error->log = copy_text(a->log);
		error->log_bytes = error->log != NULL ? a->log.bytes : 0;
		error->ptx = copy_text(a->outputs[WARM_KERNEL_PTX]);
	}
	return status;
}

/* Store what was compiled, unless it mustn't be, and set the result's source and reason. */
static void keep(struct call *call, const struct warm_wire_response *a,
		 struct warm_compile_result *r)
{
	struct warm_compiler *c = call->c;
	struct warm_error err = { 0 };

	if (a->reason != WARM_KERNEL_CACHEABLE) {
		r->source = WARM_COMPILE_UNCACHEABLE;
		snprintf(r->reason, sizeof(r->reason), "%s", a->uncacheable.data);
		count(c, warm_kernel_counter_of(a->reason), 1);
		return;
	}
	r->source = WARM_COMPILE_UNSTORED;
	if (!warm_nvrtc_unchanged(&c->nvrtc)) {
		/* Nobody else may have this one either. */
		r->source = WARM_COMPILE_UNCACHEABLE;
		snprintf(r->reason, sizeof(r->reason),
			 "%.200s changed since the compiler was opened", c->nvrtc.library);
		count(c, WARM_KERNEL_COUNT_BY_CHANGE, 1);
		return;
	}
	if (c->entries.cache_fd < 0)
		snprintf(r->reason, sizeof(r->reason), "%s", c->no_cache_reason);
	else if (warm_entries_store(&c->entries, &r->stored.entry, r->stored.data, r->stored.bytes,
				    &err) != 0)
		snprintf(r->reason, sizeof(r->reason), "%.250s", err.msg);
	else
		r->source = WARM_COMPILE_MISS;
	if (r->source == WARM_COMPILE_UNSTORED)
		count(c, WARM_KERNEL_COUNT_UNSTORED, 1);
}

/* Make a result of an answer. */
static int take_response(struct call *call, const struct warm_wire_response *a,
			 struct warm_compile_result **ret_result, struct warm_compiler_error *error)
{
	if (a->outcome == WARM_WIRE_COMPILED && a->n_lowered != call->inputs.in.n_expressions)
		return fail(error, WARM_COMPILER_HELPER, "the helper answered another question");
	if (a->outcome != WARM_WIRE_COMPILED)
		return fail_by_response(a, call->program->name, error);
	struct warm_kernel_entry entry = {
		.fingerprint = call->fingerprint,
		.inputs = call->inputs.in,
		.deps = a->deps,
		.lowered = a->lowered,
		.log = a->log,
	};
	memcpy(entry.outputs, a->outputs, sizeof(entry.outputs));
	struct warm_buf bytes = WARM_BUF_INIT;
	struct warm_stored s = { 0 };
	warm_kernel_entry_encode(&entry, &bytes);
	if (bytes.failed || warm_kernel_entry_parse(bytes.data, bytes.bytes, &s.entry, NULL) != 0) {
		warm_buf_release(&bytes);
		return fail(error, WARM_COMPILER_NO_MEMORY, "out of memory");
	}
	s.data = bytes.data;
	s.bytes = bytes.bytes;
	*ret_result = new_result(WARM_COMPILE_MISS, &s);
	if (*ret_result == NULL)
		return fail(error, WARM_COMPILER_NO_MEMORY, "out of memory");
	keep(call, a, *ret_result);
	return 0;
}

/* In this process: `why` is what kept the helper from it, and takes the place of its error. */
static int compile_in_host(struct call *call, const struct warm_wire_request *q, const char *why,
			   struct warm_compile_result **ret_result,
			   struct warm_compiler_error *error)
{
	struct warm_compiler *c = call->c;
	struct warm_native_result r = { 0 };
	struct warm_error err = { 0 };
	char text[WARM_WHY_BYTES];

	pthread_mutex_lock(&c->native_lock);
	int rc = c->native.library != NULL
			 ? 0
			 : warm_native_load(c->nvrtc.library, c->nvrtc.builtins, &c->native, &err);
	pthread_mutex_unlock(&c->native_lock);
	if (rc != 0)
		return fail(error, WARM_COMPILER_NO_NVRTC, "%s", err.msg);
	rc = warm_native_compile(&c->native, q, &r, &err);
	snprintf(text, sizeof(text), "compiled in this process: %.160s", why);
	r.response.reason = WARM_KERNEL_BY_HOST;
	r.response.uncacheable = warm_text_of(text);
	rc = rc != 0 ? fail(error, WARM_COMPILER_NO_MEMORY, "%s", err.msg)
		     : take_response(call, &r.response, ret_result, error);
	warm_native_release(&r);
	return rc;
}

static int ask_helper(struct call *call, const struct warm_buf *request, bool alone,
		      uint8_t **ret_data, struct warm_wire_response *ret_response,
		      struct warm_error *err)
{
	size_t bytes = 0;
	int rc = warm_pool_run(call->c->pool, call->inputs.in.environment.data, request, alone,
			       call->c->timeout_ms, ret_data, &bytes, err);

	return rc == 0 ? warm_wire_parse_response(*ret_data, bytes, ret_response, err) : rc;
}

static int compile_in_helper(struct call *call, const struct warm_wire_request *q, bool alone,
			     enum warm_kernel_reason reason, const char *why,
			     struct warm_compile_result **ret_result,
			     struct warm_compiler_error *error)
{
	struct warm_compiler *c = call->c;
	scope_buf struct warm_buf request = WARM_BUF_INIT;
	scope_free uint8_t *data = NULL;
	struct warm_wire_response a = { 0 };
	struct warm_error err = { 0 };

	if (c->helper[0] == '\0')
		return fail(error, WARM_COMPILER_HELPER, "%s", c->helper_missing);
	warm_wire_put_request(&request, q);
	int rc = ask_helper(call, &request, alone, &data, &a, &err);
	/* A new one begins where this process is. */
	if (rc == 0 && a.outcome == WARM_WIRE_NO_CWD && !alone) {
		warm_wire_release_response(&a);
		free(take_ptr(data));
		rc = ask_helper(call, &request, true, &data, &a, &err);
	}
	if (rc == WARM_NO_MEMORY)
		return fail(error, WARM_COMPILER_NO_MEMORY, "%s", err.msg);
	if (rc == WARM_CORRUPT)
		warm_error_context(&err, "%s", c->helper);
	if (rc != 0)
		return fail(error, WARM_COMPILER_HELPER, "%s", err.msg);
	if (reason != WARM_KERNEL_CACHEABLE) {
		a.reason = reason;
		a.uncacheable = warm_text_of(why);
	}
	rc = take_response(call, &a, ret_result, error);
	warm_wire_release_response(&a);
	return rc;
}

static int compile(struct call *call, const struct warm_wire_request *q,
		   enum warm_kernel_reason reason, const char *why,
		   struct warm_compile_result **ret_result, struct warm_compiler_error *error)
{
	struct warm_compiler_error own = WARM_COMPILER_ERROR_INIT;
	/* A kept helper may only meet what leaves nothing behind in it. */
	bool alone = reason == WARM_KERNEL_BY_OPTION || reason == WARM_KERNEL_BY_ENVIRONMENT;
	int rc = compile_in_helper(call, q, alone, reason, why, ret_result, &own);

	if (call->c->fallback && (rc == WARM_COMPILER_HELPER || rc == WARM_COMPILER_NO_NVRTC)) {
		char message[sizeof(own.message)];
		memcpy(message, own.message, sizeof(message));
		warm_compiler_error_release(&own);
		rc = compile_in_host(call, q, message, ret_result, &own);
	}
	if (error != NULL && rc != 0)
		*error = own;
	else
		warm_compiler_error_release(&own);
	return rc;
}

/* ---- a miss ---- */

/* What another caller of this program landed with, if it is right here. */
static struct warm_compile_result *share(struct call *call, uint8_t *data, size_t bytes)
{
	struct warm_stored s = { .data = data, .bytes = bytes };

	if (data == NULL || warm_kernel_entry_parse(data, bytes, &s.entry, NULL) != 0) {
		free(data);
		return NULL;
	}
	/* In closed mode no file is looked at. */
	if (s.entry.deps.n > 0 &&
	    (call->c->mode == WARM_MODE_CLOSED || !dependencies_hold(call, &s))) {
		warm_stored_release(&s);
		return NULL;
	}
	return new_result(WARM_COMPILE_HIT, &s);
}

static struct warm_hash128 flight_key(struct call *call)
{
	struct warm_hasher *h = call->hasher;

	/* The same program from another directory may be another. */
	warm_hasher_reset(h);
	warm_hasher_add(h, &call->fingerprint, sizeof(call->fingerprint));
	warm_hasher_add_field(h, call->inputs.place.dir.data, call->inputs.place.dir.bytes);
	warm_hasher_add_field(h, call->inputs.place.cwd, strlen(call->inputs.place.cwd));
	return warm_hasher_digest(h);
}

static int compile_once(struct call *call, const struct warm_wire_request *q,
			struct warm_compile_result **ret_result, bool *ret_waited,
			struct warm_compiler_error *error)
{
	struct warm_flight *flight;
	uint8_t *data;
	size_t bytes;
	int rc = 0;

	warm_flight_join(call->c->flights, flight_key(call), call->c->timeout_ms, &flight, &data,
			 &bytes);
	if (flight == NULL) {
		*ret_waited = true;
		*ret_result = share(call, data, bytes);
		return *ret_result != NULL
			       ? 0
			       : compile(call, q, WARM_KERNEL_CACHEABLE, "", ret_result, error);
	}
	/* Others look up first, too: what was stored since this call did is found now. */
	*ret_waited = warm_flight_lock(flight, call->fingerprint, call->c->timeout_ms);
	struct warm_compile_result *r = look_up(call);
	/* Another process compiled it, and it isn't there: then it is none that is stored, and who
	 * else waits is better off at once. */
	if (r == NULL && *ret_waited)
		warm_flight_unlock(flight);
	if (r == NULL)
		rc = compile(call, q, WARM_KERNEL_CACHEABLE, "", &r, error);
	bool shared = rc == 0 && r->source != WARM_COMPILE_UNCACHEABLE;
	warm_flight_land(flight, shared ? r->stored.data : NULL, shared ? r->stored.bytes : 0);
	if (rc == 0)
		*ret_result = r;
	return rc;
}

static int miss(struct call *call, struct warm_compile_result **ret_result, bool *ret_waited,
		struct warm_compiler_error *error)
{
	const struct warm_compile_program *program = call->program;
	struct inputs *p = &call->inputs;
	char why[WARM_WHY_BYTES] = "";
	const char *wrong = check_texts(program);

	if (wrong != NULL)
		return fail(error, WARM_COMPILER_INVALID, "%s", wrong);
	scope_free struct warm_wire_header *headers = calloc(program->n_headers + 1,
							     sizeof(*headers));
	if (headers == NULL)
		return fail(error, WARM_COMPILER_NO_MEMORY, "out of memory");
	for (size_t i = 0; i < program->n_headers; i++) {
		headers[i].name = warm_text_of(program->headers[i].name);
		headers[i].source = (struct warm_kernel_text){ program->headers[i].source,
							       program->headers[i].source_bytes };
	}
	find_directories(program, &p->place);
	struct warm_wire_request q = {
		.nvrtc = warm_text_of(call->c->nvrtc.library),
		.builtins = warm_text_of(call->c->nvrtc.builtins),
		.cwd = warm_text_of(p->place.cwd),
		.name = warm_text_of(program->name != NULL ? program->name : ""),
		.source = { program->source, program->source_bytes },
		.options = p->in.options,
		.n_options = p->in.n_options,
		.expressions = p->in.expressions,
		.n_expressions = p->in.n_expressions,
		.headers = headers,
		.n_headers = program->n_headers,
	};
	enum warm_kernel_reason reason = warm_request_reason(&q, p->in.environment.data, why);
	return reason == WARM_KERNEL_CACHEABLE
		       ? compile_once(call, &q, ret_result, ret_waited, error)
		       : compile(call, &q, reason, why, ret_result, error);
}

/* ---- the call ---- */

static void tell(struct call *call, const struct warm_compile_result *r, bool waited,
		 const char *message)
{
	static const char *const events[] = { "hit", "miss", "uncacheable", "unstored" };

	if (call->c->journal == NULL)
		return;
	struct warm_journal_event e = {
		.event = r == NULL				   ? "error"
			 : waited && r->source == WARM_COMPILE_HIT ? "wait"
								   : events[r->source],
		.inputs = &call->inputs.in,
		.fingerprint = call->fingerprint,
		.duration_ns = warm_clock_ns() - call->start_ns,
		.bytes = r != NULL ? r->stored.bytes : 0,
		.reason = r != NULL ? r->reason : message,
		.dependency = r == NULL || r->source != WARM_COMPILE_HIT ? call->why : NULL,
	};
	warm_journal_write(call->c->journal, &e);
}

static void count_result(struct call *call, const struct warm_compile_result *r, bool waited)
{
	struct warm_compiler *c = call->c;
	bool hit = r != NULL && r->source == WARM_COMPILE_HIT;

	count(c,
	      hit	  ? WARM_KERNEL_COUNT_HITS
	      : r != NULL ? WARM_KERNEL_COUNT_MISSES
			  : WARM_KERNEL_COUNT_FAILED,
	      1);
	if (hit && waited)
		count(c, WARM_KERNEL_COUNT_WAITS, 1);
	count(c, hit ? WARM_KERNEL_COUNT_HIT_NS : WARM_KERNEL_COUNT_COMPILE_NS,
	      (uint64_t)(warm_clock_ns() - call->start_ns));
}

int warm_compiler_compile(struct warm_compiler *c, const struct warm_compile_program *program,
			  struct warm_compile_result **ret_result,
			  struct warm_compiler_error *error)
{
	struct warm_compiler_error own = WARM_COMPILER_ERROR_INIT;
	struct call call;

	if (c == NULL || program == NULL || ret_result == NULL)
		return fail(error, WARM_COMPILER_INVALID, "%s is NULL",
			    c == NULL	      ? "compiler"
			    : program == NULL ? "program"
					      : "ret_result");
	const char *wrong = check_program(program);
	if (wrong != NULL)
		return fail(error, WARM_COMPILER_INVALID, "%s", wrong);
	check_cache(c);
	call.c = c;
	call.program = program;
	call.start_ns = warm_clock_ns();
	call.why[0] = '\0';
	call.hasher = warm_hasher_new();
	call.inputs.many = NULL;
	call.inputs.environment = (struct warm_buf)WARM_BUF_INIT;
	call.inputs.place.cwd[0] = call.inputs.place.base[0] = '\0';
	int rc = 0;
	if (call.hasher == NULL || take_inputs(c, program, call.hasher, &call.inputs) != 0) {
		rc = fail(&own, WARM_COMPILER_NO_MEMORY, "out of memory");
	} else {
		bool waited = false;
		call.fingerprint = warm_kernel_fingerprint(&call.inputs.in, call.hasher);
		struct warm_compile_result *r = look_up(&call);
		if (r == NULL)
			rc = miss(&call, &r, &waited, &own);
		count_result(&call, rc == 0 ? r : NULL, waited);
		warm_kernel_counters_flush(&c->counters,
					   r == NULL || r->source != WARM_COMPILE_HIT);
		warm_pool_tidy(c->pool);
		tell(&call, rc == 0 ? r : NULL, waited, own.message);
		if (rc == 0) {
			warm_hash128_hex(call.fingerprint, r->fingerprint);
			*ret_result = r;
		}
	}
	warm_hasher_free(call.hasher);
	release_inputs(&call.inputs);
	if (rc != 0 && error != NULL)
		*error = own;
	else
		warm_compiler_error_release(&own);
	return rc;
}

/* ---- many ---- */

struct batch {
	struct warm_compiler *compiler;
	const struct warm_compile_program *programs;
	struct warm_compile_result **results;
	struct warm_compiler_error *errors;
	int (*done)(void *arg, size_t index, const struct warm_compile_result *result);
	void *arg;
	pthread_mutex_t lock;
	atomic_bool canceled;
};

static int compile_one(void *arg, size_t i, struct warm_error *err)
{
	struct batch *b = arg;

	(void)err;
	if (atomic_load(&b->canceled)) {
		(void)fail(&b->errors[i], WARM_COMPILER_CANCELED, "not begun");
		return 0;
	}
	if (warm_compiler_compile(b->compiler, &b->programs[i], &b->results[i], &b->errors[i]) != 0)
		b->results[i] = NULL;
	if (b->done != NULL) {
		pthread_mutex_lock(&b->lock);
		if (b->done(b->arg, i, b->results[i]) != 0)
			atomic_store(&b->canceled, true);
		pthread_mutex_unlock(&b->lock);
	}
	return 0; /* one that fails doesn't stop the others */
}

int warm_compiler_compile_many(
	struct warm_compiler *compiler, const struct warm_compile_program *programs, size_t n,
	struct warm_compile_result **ret_results, struct warm_compiler_error *errors,
	int (*done)(void *arg, size_t index, const struct warm_compile_result *result), void *arg)
{
	struct batch b = {
		.compiler = compiler,
		.programs = programs,
		.results = ret_results,
		.errors = errors,
		.done = done,
		.arg = arg,
		.lock = PTHREAD_MUTEX_INITIALIZER,
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
	warm_stored_release(&r->stored);
	free(r);
}

const void *warm_compile_result_output(const struct warm_compile_result *r, enum warm_output kind,
				       size_t *ret_bytes)
{
	bool known = (unsigned)kind < WARM_KERNEL_OUTPUTS &&
		     r->stored.entry.outputs[kind].bytes > 0;

	if (ret_bytes != NULL)
		*ret_bytes = known ? r->stored.entry.outputs[kind].bytes : 0;
	return known ? r->stored.entry.outputs[kind].data : NULL;
}

const char *warm_compile_result_log(const struct warm_compile_result *r)
{
	return r->stored.entry.log.data;
}

size_t warm_compile_result_log_bytes(const struct warm_compile_result *r)
{
	return r->stored.entry.log.bytes;
}

const char *warm_compile_result_lowered_name(const struct warm_compile_result *r,
					     const char *name_expression)
{
	size_t n = strlen(name_expression);

	for (size_t i = 0; i < r->stored.entry.inputs.n_expressions; i++)
		if (r->stored.entry.inputs.expressions[i].bytes == n &&
		    memcmp(r->stored.entry.inputs.expressions[i].data, name_expression, n) == 0)
			return r->stored.entry.lowered[i].bytes > 0
				       ? r->stored.entry.lowered[i].data
				       : NULL;
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
				struct warm_compiler_counters *ret_counters, size_t bytes)
{
	const struct warm_kernel_counters *k = &c->counters;
	struct warm_compiler_counters n = {
		.hits = warm_kernel_counted(k, WARM_KERNEL_COUNT_HITS),
		.misses = warm_kernel_counted(k, WARM_KERNEL_COUNT_MISSES),
		.waits = warm_kernel_counted(k, WARM_KERNEL_COUNT_WAITS),
		.unstored = warm_kernel_counted(k, WARM_KERNEL_COUNT_UNSTORED),
		.bad_entries = warm_kernel_counted(k, WARM_KERNEL_COUNT_BAD_ENTRIES),
		.failed = warm_kernel_counted(k, WARM_KERNEL_COUNT_FAILED),
		.evicted = warm_kernel_counted(k, WARM_KERNEL_COUNT_EVICTED),
		.helpers_started = warm_kernel_counted(k, WARM_KERNEL_COUNT_HELPERS),
		.bytes_read = warm_kernel_counted(k, WARM_KERNEL_COUNT_BYTES_READ),
		.bytes_written = warm_kernel_counted(k, WARM_KERNEL_COUNT_BYTES_WRITTEN),
		.hit_us = warm_kernel_counted(k, WARM_KERNEL_COUNT_HIT_NS) / 1000,
		.compile_us = warm_kernel_counted(k, WARM_KERNEL_COUNT_COMPILE_NS) / 1000,
		.uncacheable_option = warm_kernel_counted(k, WARM_KERNEL_COUNT_BY_OPTION),
		.uncacheable_environment = warm_kernel_counted(k, WARM_KERNEL_COUNT_BY_ENVIRONMENT),
		.uncacheable_time = warm_kernel_counted(k, WARM_KERNEL_COUNT_BY_TIME),
		.uncacheable_changed = warm_kernel_counted(k, WARM_KERNEL_COUNT_BY_CHANGE),
		.uncacheable_host = warm_kernel_counted(k, WARM_KERNEL_COUNT_BY_HOST),
	};

	n.uncacheable = n.uncacheable_option + n.uncacheable_environment + n.uncacheable_time +
			n.uncacheable_changed + n.uncacheable_host;
	memset(ret_counters, 0, bytes);
	memcpy(ret_counters, &n, bytes < sizeof(n) ? bytes : sizeof(n));
}

const char *warm_compiler_version(void)
{
	return warm_version;
}
