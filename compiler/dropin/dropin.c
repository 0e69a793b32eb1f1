/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libnvrtc.so.12 and .13 for programs that exist: NVRTC's own interface, cached.
 *
 * A handle of ours stands for a program. nvrtcCompileProgram asks the kernel cache; what comes
 * from there answers the getters. Whatever that can't answer (odd arguments, a second compile,
 * precompiled headers, a flow callback, an error's outputs) is done by the real library on a real
 * handle, made when it is first needed with all that was done to ours. So a program sees what
 * NVRTC would have shown it. Without WARM_CACHE_DIR, with WARM_NVRTC=off, or where the cache can't
 * be had, every call is the real library's.
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
	NO_NAMES_AFTER_COMPILATION = 8,
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
	const char *cache = getenv("WARM_CACHE_DIR"), *off = getenv("WARM_NVRTC");
	struct warm_error err = { 0 };

	lib.found = warm_nvrtc_find(NULL, DROPIN_MAJOR, &lib.nvrtc, &err) == 0;
	if (!lib.found) {
		/* Without builtins beside it there is no key; it may know better where they are. */
		lib.found = warm_nvrtc_find_alone(DROPIN_MAJOR, &lib.nvrtc) == 0;
		snprintf(lib.problem, sizeof(lib.problem), "warmcache: %s", err.msg);
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

enum state {
	FRESH,	  /* not compiled; `real` may exist, then it has the same expressions */
	ANSWERED, /* compiled by way of the cache: `result` */
	FAILED,	  /* the same, and it doesn't compile: `code`, `log` */
	REAL_ONE, /* `real` has all of it */
};

struct texts {
	char **list;
	size_t n;
};

struct program {
	enum state state;
	real_program real;
	char *source, *name;
	struct texts header_names, headers, expressions, options;
	struct warm_compile_result *result; /* its names live until the program ends */
	int code;
	char *log;
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
	free_texts(&p->options);
	warm_compile_result_free(p->result);
	free(p->log);
	free(p);
}

EXPORTED int nvrtcCreateProgram(struct program **prog, const char *src, const char *name, int n,
				const char *const *headers, const char *const *include_names);
EXPORTED int nvrtcDestroyProgram(struct program **prog);
EXPORTED int nvrtcCompileProgram(struct program *p, int n, const char *const *options);
EXPORTED int nvrtcAddNameExpression(struct program *p, const char *expression);

/* Do to the real handle what was done to ours. What has been compiled is REAL_ONE then. */
static int make_real(struct program *p)
{
	if (p->real == NULL) {
		int rc = REAL(nvrtcCreateProgram, (struct program **)&p->real, p->source, p->name,
			      (int)p->headers.n, (const char *const *)p->headers.list,
			      (const char *const *)p->header_names.list);
		for (size_t i = 0; rc == SUCCESS && i < p->expressions.n; i++)
			rc = REAL(nvrtcAddNameExpression, p->real, p->expressions.list[i]);
		if (rc != SUCCESS) {
			if (p->real != NULL)
				(void)REAL(nvrtcDestroyProgram, (struct program **)&p->real);
			p->real = NULL;
			return rc;
		}
	}
	if (p->state == ANSWERED || p->state == FAILED) {
		/* That code is known already. */
		(void)REAL(nvrtcCompileProgram, p->real, (int)p->options.n,
			   (const char *const *)p->options.list);
		p->state = REAL_ONE;
	}
	return SUCCESS;
}

/* Make the real handle and call the real function of the same name on it. */
#define ON_REAL(p, name, ...)                                                \
	__extension__({                                                      \
		int made = make_real(p);                                     \
		made != SUCCESS ? made : REAL(name, (p)->real, __VA_ARGS__); \
	})

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
		p->state = REAL_ONE;
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
	p->state = REAL_ONE;
	*prog = p;
	return SUCCESS;
}

/* ---- compile ---- */

static bool is_for_the_real_one(const struct program *p, int n, const char *const *options)
{
	if (p->state != FRESH || n < 0 || (n > 0 && options == NULL))
		return true;
	for (int i = 0; i < n; i++)
		if (options[i] == NULL || warm_option_is_untraceable((struct warm_kernel_text){
						  options[i], strlen(options[i]) }))
			return true;
	return false;
}

/* False: the cache's way is closed, by lack of memory or a helper that can't. */
static bool compile_by_cache(struct program *p, int n, const char *const *options)
{
	struct warm_compiler_error error = WARM_COMPILER_ERROR_INIT;
	struct warm_header *headers = calloc(p->headers.n + 1, sizeof(*headers));

	if (headers == NULL || copy_texts(&p->options, (size_t)n, options) != SUCCESS) {
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
	int rc = warm_compiler_compile(lib.compiler, &program, &p->result, &error);
	free(headers);
	if (rc == WARM_COMPILER_OK) {
		p->state = ANSWERED;
		p->code = SUCCESS;
	} else if (rc == WARM_COMPILER_COMPILE_ERROR) {
		p->state = FAILED;
		p->code = error.nvrtc_result;
		p->log = error.log;
		error.log = NULL;
	}
	warm_compiler_error_release(&error);
	return p->state != FRESH;
}

int nvrtcCompileProgram(struct program *p, int n, const char *const *options)
{
	if (p == NULL)
		return INVALID_PROGRAM;
	if (!is_for_the_real_one(p, n, options) && compile_by_cache(p, n, options))
		return p->code;
	int rc = make_real(p);
	if (rc != SUCCESS)
		return rc;
	p->state = REAL_ONE;
	return REAL(nvrtcCompileProgram, p->real, n, options);
}

/* ---- names ---- */

int nvrtcAddNameExpression(struct program *p, const char *expression)
{
	if (p == NULL)
		return INVALID_PROGRAM;
	if (expression == NULL)
		return INVALID_INPUT;
	if (p->state == ANSWERED)
		return NO_NAMES_AFTER_COMPILATION;
	if (p->state != FRESH)
		return ON_REAL(p, nvrtcAddNameExpression, expression);
	int rc = add_text(&p->expressions, expression);
	return rc == SUCCESS && p->real != NULL ? REAL(nvrtcAddNameExpression, p->real, expression)
						: rc;
}

EXPORTED int nvrtcGetLoweredName(struct program *p, const char *expression, const char **ret);
int nvrtcGetLoweredName(struct program *p, const char *expression, const char **ret)
{
	if (p == NULL)
		return INVALID_PROGRAM;
	if (expression == NULL || ret == NULL)
		return INVALID_INPUT;
	if (p->state == ANSWERED) {
		bool given = false;
		for (size_t i = 0; i < p->expressions.n; i++)
			given = given || strcmp(p->expressions.list[i], expression) == 0;
		*ret = given ? warm_compile_result_lowered_name(p->result, expression) : NULL;
		if (!given)
			return NAME_NOT_VALID;
		if (*ret != NULL)
			return SUCCESS;
	}
	return ON_REAL(p, nvrtcGetLoweredName, expression, ret);
}

/* ---- outputs ---- */

static size_t output_bytes(const struct program *p, enum warm_output kind)
{
	size_t bytes;

	(void)warm_compile_result_output(p->result, kind, &bytes);
	/* No PTX is an empty string. */
	return kind == WARM_OUTPUT_PTX && bytes == 0 ? 1 : bytes;
}

static int put_output(const struct program *p, enum warm_output kind, char *out)
{
	size_t bytes;
	const void *data = warm_compile_result_output(p->result, kind, &bytes);

	if (bytes > 0)
		memcpy(out, data, bytes);
	else if (kind == WARM_OUTPUT_PTX)
		out[0] = '\0';
	return SUCCESS;
}

/* nvrtcGet<what>Size and nvrtcGet<what>. `lacking`: whether the real library has none; asked only
 * of what some releases lack, so that a hit doesn't load it. */
#define GETTERS(what, kind, lacking)                                        \
	EXPORTED int nvrtcGet##what##Size(struct program *p, size_t *ret);  \
	int nvrtcGet##what##Size(struct program *p, size_t *ret)            \
	{                                                                   \
		if (lacking)                                                \
			return INTERNAL_ERROR;                              \
		if (p == NULL || ret == NULL)                               \
			return p == NULL ? INVALID_PROGRAM : INVALID_INPUT; \
		if (p->state != ANSWERED)                                   \
			return ON_REAL(p, nvrtcGet##what##Size, ret);       \
		*ret = output_bytes(p, kind);                               \
		return SUCCESS;                                             \
	}                                                                   \
	EXPORTED int nvrtcGet##what(struct program *p, char *ret);          \
	int nvrtcGet##what(struct program *p, char *ret)                    \
	{                                                                   \
		if (lacking)                                                \
			return INTERNAL_ERROR;                              \
		if (p == NULL || ret == NULL)                               \
			return p == NULL ? INVALID_PROGRAM : INVALID_INPUT; \
		if (p->state != ANSWERED)                                   \
			return ON_REAL(p, nvrtcGet##what, ret);             \
		return put_output(p, kind, ret);                            \
	}

GETTERS(PTX, WARM_OUTPUT_PTX, false)
GETTERS(CUBIN, WARM_OUTPUT_CUBIN, false)
GETTERS(LTOIR, WARM_OUTPUT_LTOIR, false)
GETTERS(NVVM, WARM_OUTPUT_LTOIR, false) /* an older name of the same */
GETTERS(OptiXIR, WARM_OUTPUT_OPTIXIR, false)
GETTERS(TileIR, WARM_OUTPUT_TILEIR, real(REAL_nvrtcGetTileIR) == NULL)

static const char *log_of(const struct program *p)
{
	if (p->state == ANSWERED)
		return warm_compile_result_log(p->result);
	return p->log != NULL ? p->log : "";
}

EXPORTED int nvrtcGetProgramLogSize(struct program *p, size_t *ret);
int nvrtcGetProgramLogSize(struct program *p, size_t *ret)
{
	if (p == NULL || ret == NULL)
		return p == NULL ? INVALID_PROGRAM : INVALID_INPUT;
	if (p->state != ANSWERED && p->state != FAILED)
		return ON_REAL(p, nvrtcGetProgramLogSize, ret);
	*ret = strlen(log_of(p)) + 1;
	return SUCCESS;
}

EXPORTED int nvrtcGetProgramLog(struct program *p, char *ret);
int nvrtcGetProgramLog(struct program *p, char *ret)
{
	if (p == NULL || ret == NULL)
		return p == NULL ? INVALID_PROGRAM : INVALID_INPUT;
	if (p->state != ANSWERED && p->state != FAILED)
		return ON_REAL(p, nvrtcGetProgramLog, ret);
	memcpy(ret, log_of(p), strlen(log_of(p)) + 1);
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
	if (p->state == ANSWERED)
		return NO_PCH_ATTEMPTED;
	int rc = make_real(p);
	return rc != SUCCESS ? rc : REAL(nvrtcGetPCHCreateStatus, p->real);
}

EXPORTED int nvrtcGetPCHHeapSizeRequired(struct program *p, size_t *ret);
int nvrtcGetPCHHeapSizeRequired(struct program *p, size_t *ret)
{
	if (real(REAL_nvrtcGetPCHHeapSizeRequired) == NULL)
		return INTERNAL_ERROR;
	if (p == NULL || ret == NULL)
		return p == NULL ? INVALID_PROGRAM : INVALID_INPUT;
	if (p->state != ANSWERED)
		return ON_REAL(p, nvrtcGetPCHHeapSizeRequired, ret);
	*ret = 0;
	return SUCCESS;
}

EXPORTED int nvrtcSetFlowCallback(struct program *p, int (*callback)(void *, void *),
				  void *payload);
int nvrtcSetFlowCallback(struct program *p, int (*callback)(void *, void *), void *payload)
{
	if (real(REAL_nvrtcSetFlowCallback) == NULL)
		return INTERNAL_ERROR;
	if (p == NULL)
		return INVALID_PROGRAM;
	int rc = ON_REAL(p, nvrtcSetFlowCallback, callback, payload);
	if (rc == SUCCESS)
		p->state = REAL_ONE;
	return rc;
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
