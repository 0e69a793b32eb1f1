/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libnvrtc.so.12 and .13 for programs that exist: NVRTC's own interface, cached.
 *
 * A handle of ours stands for a program. nvrtcCompileProgram asks the kernel cache, and what came
 * from there answers the getters. What that can't answer (odd arguments, precompiled headers, a
 * flow callback) is done by the real library on a real handle, made when it is needed with all
 * that was done to ours; from then on that has the word. Without WARM_CACHE_DIR, with
 * WARM_NVRTC=off, or where the cache can't be had, every handle is real from the start.
 *
 * Nothing happens before the first call: LD_PRELOAD reaches processes that never make one.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/cacheable.h"
#include "compiler/dropin/names.h"
#include "compiler/nvrtc.h"
#include "warmcache/compiler.h"

#ifndef DROPIN_MAJOR
#define DROPIN_MAJOR 13 /* the Makefile builds one of each */
#endif

#define EXPORTED __attribute__((visibility("default")))

enum {
	SUCCESS = 0,
	OUT_OF_MEMORY = 1,
	INVALID_INPUT = 3,
	INVALID_PROGRAM = 4,
	INVALID_OPTION = 5,
	COMPILATION = 6,
	NO_NAMES_AFTER_COMPILATION = 8,
	NO_NAMES_BEFORE_COMPILATION = 9,
	NAME_NOT_VALID = 10,
	INTERNAL_ERROR = 11,
	NO_PCH_ATTEMPTED = 13,
};

/* So that a search for NVRTC knows this for what it is (compiler/nvrtc.c). */
static const struct {
	uint32_t name_bytes, text_bytes, type;
	char name[12], text[8];
} dropin_note __attribute__((section(".note.warmcache"), used, aligned(4))) = {
	sizeof("warmcache"), sizeof("dropin"), 1, "warmcache", "dropin"
};

/* ---- the real library ---- */

enum name {
#define NAME_ENUM(name, first, last) REAL_##name,
	WARM_DROPIN_NAMES(NAME_ENUM)
#undef NAME_ENUM
		N_NAMES,
};

static const char *const names[] = {
#define NAME_TEXT(name, first, last) #name,
	WARM_DROPIN_NAMES(NAME_TEXT)
#undef NAME_TEXT
};

typedef void *real_program;

static struct {
	pthread_once_t found_once, loaded_once;
	struct warm_nvrtc nvrtc;
	bool found;
	struct warm_compiler *compiler; /* NULL: every call is the real library's */
	void *functions[N_NAMES];
	char problem[400]; /* why there is no real library */
} lib = { .found_once = PTHREAD_ONCE_INIT, .loaded_once = PTHREAD_ONCE_INIT };

static void find(void)
{
	struct warm_compiler_options options = WARM_COMPILER_OPTIONS_INIT;
	const char *cache = secure_getenv("WARM_CACHE_DIR"), *off = getenv("WARM_NVRTC");
	struct warm_error err = { 0 };

	lib.found = warm_nvrtc_find(NULL, DROPIN_MAJOR, &lib.nvrtc, &err) == 0;
	if (!lib.found) {
		/* Without builtins beside it there is no key; it may know better where they are. */
		lib.found = warm_nvrtc_find_alone(DROPIN_MAJOR, &lib.nvrtc) == 0;
		snprintf(lib.problem, sizeof(lib.problem), "warmcache: %.380s", err.msg);
		return;
	}
	if (cache == NULL || cache[0] == '\0' || (off != NULL && strcmp(off, "off") == 0))
		return;
	options.nvrtc_library = lib.nvrtc.library;
	if (warm_compiler_open(&options, &lib.compiler, NULL) != 0)
		lib.compiler = NULL;
}

static void load(void)
{
	pthread_once(&lib.found_once, find);
	if (!lib.found)
		return;
	if (lib.nvrtc.builtins[0] != '\0')
		(void)dlopen(lib.nvrtc.builtins, RTLD_NOW | RTLD_GLOBAL);
	void *library = dlopen(lib.nvrtc.library, RTLD_NOW | RTLD_LOCAL);
	if (library == NULL) {
		snprintf(lib.problem, sizeof(lib.problem), "warmcache: %s", dlerror());
		return;
	}
	for (int i = 0; i < N_NAMES; i++)
		lib.functions[i] = dlsym(library, names[i]);
}

static void *real(enum name name)
{
	pthread_once(&lib.loaded_once, load);
	return lib.functions[name];
}

/* Call the real function of the same type; INTERNAL_ERROR where the library has none. */
#define REAL(name, ...)                                                         \
	__extension__({                                                         \
		__typeof__(&(name)) function;                                   \
		*(void **)&function = real(REAL_##name);                        \
		function != NULL ? (int)function(__VA_ARGS__) : INTERNAL_ERROR; \
	})

/* ---- programs ---- */

struct texts {
	char **list;
	size_t n;
};

/* A compile empties PTX and log; the other outputs and the lowered names stay until one makes new
 * ones; the names are closed once the options were right. So does NVRTC, 12.0 to 13.5. */
struct program {
	real_program real; /* not NULL: it has the word */
	char *source, *name;
	struct texts header_names, headers, expressions;
	bool names_closed;
	struct texts *compiles; /* the options of each, in order */
	size_t n_compiles;
	struct warm_compile_result **results; /* kept: names that were given live on */
	size_t n_results;
	/* what the getters show */
	const struct warm_compile_result *last; /* NULL: none yet, or it failed */
	const struct warm_compile_result *names, *outputs[WARM_OUTPUT_TILEIR + 1];
	struct warm_compiler_error failure; /* of the last compile */
};

static void free_texts(struct texts *t)
{
	for (size_t i = 0; i < t->n; i++)
		free(t->list[i]);
	free(t->list);
	*t = (struct texts){ NULL, 0 };
}

static int add_text(struct texts *t, const char *text)
{
	char **list = realloc(t->list, (t->n + 1) * sizeof(*list));

	if (list == NULL)
		return OUT_OF_MEMORY;
	t->list = list;
	t->list[t->n] = strdup(text);
	return t->list[t->n] != NULL ? (t->n++, SUCCESS) : OUT_OF_MEMORY;
}

static int copy_texts(struct texts *t, size_t n, const char *const *from)
{
	int rc = SUCCESS;

	free_texts(t);
	for (size_t i = 0; rc == SUCCESS && i < n; i++)
		rc = add_text(t, from[i]);
	return rc;
}

static void free_program(struct program *p)
{
	if (p == NULL)
		return;
	free(p->source);
	free(p->name);
	free_texts(&p->header_names);
	free_texts(&p->headers);
	free_texts(&p->expressions);
	for (size_t i = 0; i < p->n_compiles; i++)
		free_texts(&p->compiles[i]);
	free(p->compiles);
	for (size_t i = 0; i < p->n_results; i++)
		warm_compile_result_free(p->results[i]);
	free(p->results);
	warm_compiler_error_release(&p->failure);
	free(p);
}

EXPORTED int nvrtcCreateProgram(struct program **prog, const char *src, const char *name, int n,
				const char *const *headers, const char *const *include_names);
EXPORTED int nvrtcDestroyProgram(struct program **prog);
EXPORTED int nvrtcCompileProgram(struct program *p, int n, const char *const *options);
EXPORTED int nvrtcAddNameExpression(struct program *p, const char *expression);

/* Make a real handle, and do to it what was done to ours. */
static int make_real(struct program *p)
{
	real_program made = NULL;

	if (p->real != NULL)
		return SUCCESS;
	int rc = REAL(nvrtcCreateProgram, (struct program **)&made, p->source, p->name,
		      (int)p->headers.n, (const char *const *)p->headers.list,
		      (const char *const *)p->header_names.list);
	for (size_t i = 0; rc == SUCCESS && i < p->expressions.n; i++)
		rc = REAL(nvrtcAddNameExpression, made, p->expressions.list[i]);
	if (rc != SUCCESS) {
		if (made != NULL)
			(void)REAL(nvrtcDestroyProgram, (struct program **)&made);
		return rc;
	}
	/* Their codes are known already. */
	for (size_t i = 0; i < p->n_compiles; i++)
		(void)REAL(nvrtcCompileProgram, made, (int)p->compiles[i].n,
			   (const char *const *)p->compiles[i].list);
	p->real = made;
	return SUCCESS;
}

/* ---- create and destroy ---- */

static int compare_texts(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* What NVRTC refuses, or what this can't tell for lack of memory. */
static bool is_odd(const char *src, int n, const char *const *headers,
		   const char *const *include_names)
{
	if (src == NULL || n < 0 || (n > 0 && (headers == NULL || include_names == NULL)))
		return true;
	for (int i = 0; i < n; i++)
		if (headers[i] == NULL || include_names[i] == NULL)
			return true;
	if (n < 2)
		return false;
	const char **sorted = malloc((size_t)n * sizeof(*sorted));
	if (sorted == NULL)
		return true;
	memcpy(sorted, include_names, (size_t)n * sizeof(*sorted));
	qsort(sorted, (size_t)n, sizeof(*sorted), compare_texts);
	bool twice = false;
	for (int i = 1; i < n; i++)
		twice = twice || strcmp(sorted[i - 1], sorted[i]) == 0;
	free(sorted);
	return twice;
}

int nvrtcCreateProgram(struct program **prog, const char *src, const char *name, int n,
		       const char *const *headers, const char *const *include_names)
{
	if (prog == NULL)
		return INVALID_PROGRAM;
	pthread_once(&lib.found_once, find);
	struct program *p = calloc(1, sizeof(*p));
	if (p == NULL)
		return OUT_OF_MEMORY;
	int rc = SUCCESS;
	if (lib.compiler == NULL || is_odd(src, n, headers, include_names)) {
		rc = REAL(nvrtcCreateProgram, (struct program **)&p->real, src, name, n, headers,
			  include_names);
	} else {
		p->source = strdup(src);
		p->name = name != NULL ? strdup(name) : NULL;
		if (p->source == NULL || (name != NULL && p->name == NULL) ||
		    copy_texts(&p->headers, (size_t)n, headers) != SUCCESS ||
		    copy_texts(&p->header_names, (size_t)n, include_names) != SUCCESS)
			rc = OUT_OF_MEMORY;
	}
	if (rc != SUCCESS) {
		free_program(p);
		return rc;
	}
	*prog = p;
	return SUCCESS;
}

int nvrtcDestroyProgram(struct program **prog)
{
	int rc = SUCCESS;

	if (prog == NULL || *prog == NULL)
		return INVALID_PROGRAM;
	if ((*prog)->real != NULL)
		rc = REAL(nvrtcDestroyProgram, (struct program **)&(*prog)->real);
	free_program(*prog);
	*prog = NULL;
	return rc;
}

/* Creates a program, too; undocumented. */
EXPORTED int __nvrtcCPEx(struct program **prog, const char *src, const char *name, int n,
			 const char *const *headers, const char *const *include_names, int n_keys,
			 const int *keys, void *const *values);
int __nvrtcCPEx(struct program **prog, const char *src, const char *name, int n,
		const char *const *headers, const char *const *include_names, int n_keys,
		const int *keys, void *const *values)
{
	if (prog == NULL)
		return INVALID_PROGRAM;
	struct program *p = calloc(1, sizeof(*p));
	if (p == NULL)
		return OUT_OF_MEMORY;
	int rc = REAL(__nvrtcCPEx, (struct program **)&p->real, src, name, n, headers,
		      include_names, n_keys, keys, values);
	if (rc != SUCCESS) {
		free_program(p);
		return rc;
	}
	*prog = p;
	return SUCCESS;
}

/* ---- compile ---- */

static bool is_for_the_real_one(const struct program *p, int n, const char *const *options)
{
	if (p->real != NULL || (n > 0 && options == NULL))
		return true;
	for (int i = 0; i < n; i++)
		if (options[i] == NULL || warm_option_is_untraceable((struct warm_kernel_text){
						  options[i], strlen(options[i]) }))
			return true;
	return false;
}

/* Room for one more compile and its result. */
static bool reserve(struct program *p, int n, const char *const *options)
{
	struct texts *compiles = realloc(p->compiles, (p->n_compiles + 1) * sizeof(*compiles));

	if (compiles != NULL)
		p->compiles = compiles;
	struct warm_compile_result **results = realloc(p->results,
						       (p->n_results + 1) * sizeof(*results));
	if (results != NULL)
		p->results = results;
	if (compiles == NULL || results == NULL)
		return false;
	struct texts *one = &p->compiles[p->n_compiles];
	*one = (struct texts){ NULL, 0 };
	if (copy_texts(one, (size_t)n, options) == SUCCESS)
		return true;
	free_texts(one);
	return false;
}

static void show(struct program *p, struct warm_compile_result *result)
{
	p->results[p->n_results++] = result;
	p->last = p->names = result;
	p->names_closed = true;
	for (int k = 0; k <= WARM_OUTPUT_TILEIR; k++)
		if (warm_compile_result_output(result, (enum warm_output)k, NULL) != NULL)
			p->outputs[k] = result;
}

/* False: the cache's way is closed, by lack of memory, a helper that can't, or an outcome that
 * isn't known to the last detail. */
static bool compile_by_cache(struct program *p, int n, const char *const *options, int *ret_code)
{
	struct warm_compiler_error error = WARM_COMPILER_ERROR_INIT;
	struct warm_header *headers = calloc(p->headers.n + 1, sizeof(*headers));
	struct warm_compile_result *result = NULL;

	if (headers == NULL || !reserve(p, n, options)) {
		free(headers);
		return false;
	}
	for (size_t i = 0; i < p->headers.n; i++)
		headers[i] = (struct warm_header){ p->header_names.list[i], p->headers.list[i],
						   strlen(p->headers.list[i]) };
	struct warm_compile_program program = {
		.source = p->source,
		.source_bytes = strlen(p->source),
		.name = p->name,
		.options = options,
		.n_options = (size_t)n,
		.headers = headers,
		.n_headers = p->headers.n,
		.name_expressions = (const char *const *)p->expressions.list,
		.n_name_expressions = p->expressions.n,
	};
	int rc = warm_compiler_compile(lib.compiler, &program, &result, &error);
	free(headers);
	*ret_code = error.nvrtc_result;
	/* ptxas refused it: that takes the cubin away, and after a success new names stay. */
	bool refused = rc == WARM_COMPILER_COMPILE_ERROR && error.ptx != NULL;
	bool known = rc == WARM_COMPILER_OK ||
		     (rc == WARM_COMPILER_COMPILE_ERROR &&
		      (error.nvrtc_result == INVALID_OPTION || error.nvrtc_result == COMPILATION) &&
		      !(refused && p->names != NULL));
	if (!known) {
		free_texts(&p->compiles[p->n_compiles]);
		warm_compiler_error_release(&error);
		return false;
	}
	p->n_compiles++;
	p->last = NULL;
	warm_compiler_error_release(&p->failure);
	p->failure = error;
	if (rc == WARM_COMPILER_OK)
		show(p, result);
	else if (error.nvrtc_result != INVALID_OPTION)
		p->names_closed = true;
	if (refused)
		p->outputs[WARM_OUTPUT_CUBIN] = NULL;
	return true;
}

int nvrtcCompileProgram(struct program *p, int n, const char *const *options)
{
	int code = SUCCESS;

	if (p == NULL)
		return INVALID_PROGRAM;
	if (n < 0)
		return INVALID_INPUT;
	if (!is_for_the_real_one(p, n, options) && compile_by_cache(p, n, options, &code))
		return code;
	int rc = make_real(p);
	return rc != SUCCESS ? rc : REAL(nvrtcCompileProgram, p->real, n, options);
}

/* ---- names ---- */

int nvrtcAddNameExpression(struct program *p, const char *expression)
{
	if (p == NULL)
		return INVALID_PROGRAM;
	if (expression == NULL)
		return INVALID_INPUT;
	if (p->real != NULL)
		return REAL(nvrtcAddNameExpression, p->real, expression);
	return p->names_closed ? NO_NAMES_AFTER_COMPILATION : add_text(&p->expressions, expression);
}

EXPORTED int nvrtcGetLoweredName(struct program *p, const char *expression, const char **ret);
int nvrtcGetLoweredName(struct program *p, const char *expression, const char **ret)
{
	if (p == NULL)
		return INVALID_PROGRAM;
	if (expression == NULL || ret == NULL)
		return INVALID_INPUT;
	if (p->real != NULL)
		return REAL(nvrtcGetLoweredName, p->real, expression, ret);
	*ret = NULL;
	if (p->names == NULL)
		return NO_NAMES_BEFORE_COMPILATION;
	*ret = warm_compile_result_lowered_name(p->names, expression);
	return *ret != NULL ? SUCCESS : NAME_NOT_VALID;
}

/* ---- outputs ---- */

/* PTX, of the last compile alone, is a string: none is an empty one. */
static const char *ptx_of(const struct program *p, size_t *ret_bytes)
{
	const char *ptx = p->failure.ptx;

	if (p->last != NULL)
		ptx = warm_compile_result_output(p->last, WARM_OUTPUT_PTX, NULL);
	ptx = ptx != NULL ? ptx : "";
	*ret_bytes = strlen(ptx) + 1;
	return ptx;
}

static const void *output_of(const struct program *p, enum warm_output kind, size_t *ret_bytes)
{
	if (kind == WARM_OUTPUT_PTX)
		return ptx_of(p, ret_bytes);
	if (p->outputs[kind] != NULL)
		return warm_compile_result_output(p->outputs[kind], kind, ret_bytes);
	*ret_bytes = 0;
	return "";
}

static int put_size(const struct program *p, enum warm_output kind, size_t *ret)
{
	(void)output_of(p, kind, ret);
	return SUCCESS;
}

static int put_output(const struct program *p, enum warm_output kind, char *ret)
{
	size_t bytes;
	const void *data = output_of(p, kind, &bytes);

	memcpy(ret, data, bytes);
	return SUCCESS;
}

/* nvrtcGet<what>Size and nvrtcGet<what>. `lacking`: whether the real library has none; asked only
 * of what some releases lack, so that a hit doesn't load it. */
#define GETTERS(what, kind, lacking)                                              \
	EXPORTED int nvrtcGet##what##Size(struct program *p, size_t *ret);        \
	int nvrtcGet##what##Size(struct program *p, size_t *ret)                  \
	{                                                                         \
		if (lacking)                                                      \
			return INTERNAL_ERROR;                                    \
		if (p == NULL || ret == NULL)                                     \
			return p == NULL ? INVALID_PROGRAM : INVALID_INPUT;       \
		return p->real != NULL ? REAL(nvrtcGet##what##Size, p->real, ret) \
				       : put_size(p, kind, ret);                  \
	}                                                                         \
	EXPORTED int nvrtcGet##what(struct program *p, char *ret);                \
	int nvrtcGet##what(struct program *p, char *ret)                          \
	{                                                                         \
		if (lacking)                                                      \
			return INTERNAL_ERROR;                                    \
		if (p == NULL || ret == NULL)                                     \
			return p == NULL ? INVALID_PROGRAM : INVALID_INPUT;       \
		return p->real != NULL ? REAL(nvrtcGet##what, p->real, ret)       \
				       : put_output(p, kind, ret);                \
	}

GETTERS(PTX, WARM_OUTPUT_PTX, false)
GETTERS(CUBIN, WARM_OUTPUT_CUBIN, false)
GETTERS(LTOIR, WARM_OUTPUT_LTOIR, false)
GETTERS(NVVM, WARM_OUTPUT_LTOIR, false) /* an older name of the same */
GETTERS(OptiXIR, WARM_OUTPUT_OPTIXIR, false)
GETTERS(TileIR, WARM_OUTPUT_TILEIR, real(REAL_nvrtcGetTileIR) == NULL)

/* It may hold NULs of its own at its end. */
static const char *log_of(const struct program *p, size_t *ret_bytes)
{
	if (p->last != NULL) {
		*ret_bytes = warm_compile_result_log_bytes(p->last) + 1;
		return warm_compile_result_log(p->last);
	}
	*ret_bytes = p->failure.log_bytes + 1;
	return p->failure.log != NULL ? p->failure.log : "";
}

EXPORTED int nvrtcGetProgramLogSize(struct program *p, size_t *ret);
int nvrtcGetProgramLogSize(struct program *p, size_t *ret)
{
	if (p == NULL || ret == NULL)
		return p == NULL ? INVALID_PROGRAM : INVALID_INPUT;
	if (p->real != NULL)
		return REAL(nvrtcGetProgramLogSize, p->real, ret);
	(void)log_of(p, ret);
	return SUCCESS;
}

EXPORTED int nvrtcGetProgramLog(struct program *p, char *ret);
int nvrtcGetProgramLog(struct program *p, char *ret)
{
	size_t bytes;

	if (p == NULL || ret == NULL)
		return p == NULL ? INVALID_PROGRAM : INVALID_INPUT;
	if (p->real != NULL)
		return REAL(nvrtcGetProgramLog, p->real, ret);
	const char *log = log_of(p, &bytes);
	memcpy(ret, log, bytes);
	return SUCCESS;
}

/* ---- precompiled headers, flow callbacks: programs that use them are the real library's ---- */

EXPORTED int nvrtcGetPCHCreateStatus(struct program *p);
int nvrtcGetPCHCreateStatus(struct program *p)
{
	if (real(REAL_nvrtcGetPCHCreateStatus) == NULL)
		return INTERNAL_ERROR;
	if (p == NULL)
		return INVALID_PROGRAM;
	return p->real != NULL ? REAL(nvrtcGetPCHCreateStatus, p->real) : NO_PCH_ATTEMPTED;
}

EXPORTED int nvrtcGetPCHHeapSizeRequired(struct program *p, size_t *ret);
int nvrtcGetPCHHeapSizeRequired(struct program *p, size_t *ret)
{
	if (real(REAL_nvrtcGetPCHHeapSizeRequired) == NULL)
		return INTERNAL_ERROR;
	if (p == NULL || ret == NULL)
		return p == NULL ? INVALID_PROGRAM : INVALID_INPUT;
	if (p->real != NULL)
		return REAL(nvrtcGetPCHHeapSizeRequired, p->real, ret);
	*ret = 0;
	return SUCCESS;
}

EXPORTED int nvrtcSetFlowCallback(struct program *p, int (*callback)(void *, void *),
				  void *payload);
int nvrtcSetFlowCallback(struct program *p, int (*callback)(void *, void *), void *payload)
{
	if (real(REAL_nvrtcSetFlowCallback) == NULL)
		return INTERNAL_ERROR;
	if (p == NULL || callback == NULL)
		return p == NULL ? INVALID_PROGRAM : INVALID_INPUT;
	int rc = make_real(p);
	return rc != SUCCESS ? rc : REAL(nvrtcSetFlowCallback, p->real, callback, payload);
}

/* ---- what knows no program ---- */

EXPORTED int nvrtcVersion(int *major, int *minor);
int nvrtcVersion(int *major, int *minor)
{
	return REAL(nvrtcVersion, major, minor);
}

EXPORTED int nvrtcGetNumSupportedArchs(int *ret);
int nvrtcGetNumSupportedArchs(int *ret)
{
	return REAL(nvrtcGetNumSupportedArchs, ret);
}

EXPORTED int nvrtcGetSupportedArchs(int *ret);
int nvrtcGetSupportedArchs(int *ret)
{
	return REAL(nvrtcGetSupportedArchs, ret);
}

EXPORTED int nvrtcGetPCHHeapSize(size_t *ret);
int nvrtcGetPCHHeapSize(size_t *ret)
{
	return REAL(nvrtcGetPCHHeapSize, ret);
}

EXPORTED int nvrtcSetPCHHeapSize(size_t bytes);
int nvrtcSetPCHHeapSize(size_t bytes)
{
	return REAL(nvrtcSetPCHHeapSize, bytes);
}

EXPORTED int nvrtcGetBundledHeadersInfo(void *info, const char **log);
int nvrtcGetBundledHeadersInfo(void *info, const char **log)
{
	return REAL(nvrtcGetBundledHeadersInfo, info, log);
}

EXPORTED int nvrtcInstallBundledHeaders(const char *path, unsigned flags, const char **log);
int nvrtcInstallBundledHeaders(const char *path, unsigned flags, const char **log)
{
	return REAL(nvrtcInstallBundledHeaders, path, flags, log);
}

EXPORTED int nvrtcRemoveBundledHeaders(const char *path, const char **log);
int nvrtcRemoveBundledHeaders(const char *path, const char **log)
{
	return REAL(nvrtcRemoveBundledHeaders, path, log);
}

/* Undocumented: a table of functions by number. */
EXPORTED void *__nvrtcNvvmHandle(unsigned number);
void *__nvrtcNvvmHandle(unsigned number)
{
	void *(*function)(unsigned);

	*(void **)&function = real(REAL___nvrtcNvvmHandle);
	return function != NULL ? function(number) : NULL;
}

EXPORTED const char *nvrtcGetErrorString(int code);
const char *nvrtcGetErrorString(int code)
{
	const char *(*function)(int);

	*(void **)&function = real(REAL_nvrtcGetErrorString);
	if (function != NULL)
		return function(code);
	/* INTERNAL_ERROR is what every call gives without a real library. */
	return code == SUCCESS ? "NVRTC_SUCCESS" : lib.problem;
}
