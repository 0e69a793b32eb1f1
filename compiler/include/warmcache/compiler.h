/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libwarmcache-compiler: NVRTC with a cache that outlives the process.
 *
 *	struct warm_compiler_options options = WARM_COMPILER_OPTIONS_INIT;
 *	struct warm_compiler *compiler;
 *	options.cache_dir = "/warmcache";
 *	warm_compiler_open(&options, &compiler, &error);
 *	warm_compiler_compile(compiler, &program, &result, &error);
 *	cuModuleLoadData(&module, warm_compile_result_output(result, WARM_OUTPUT_CUBIN, &bytes));
 *	warm_compile_result_free(result);
 *	warm_compiler_close(compiler);
 *
 * The first call compiles; every later call with the same inputs, in any process that shares the
 * directory, reads. The same inputs: compiler and its builtins library (by build id), options in
 * order, source, base name, in-memory headers, name expressions, the environment variables that
 * NVRTC obeys, and the contents of every file that the compiler opened or looked for.
 *
 * NVRTC never runs in the calling process (but see `fallback`): helpers (warmcache-nvrtc) compile,
 * so NVRTC's signal handlers, stack limit, memory and crashes stay out, and compiles run in
 * parallel. A helper waits half a minute for more work, and ends with the process that started
 * it. Of many callers of one missing program, threads or processes, one compiles.
 *
 * Trouble with the cache (read-only, full, a bad entry) never fails a compile: it is counted.
 * WARM_COMPILER_LOG=stderr, or a file to append to: a JSON line for each call, which tells for a
 * miss what differs from the last program of that name; see `warmcache explain`.
 *
 * Threads: every function may be called by any number of threads on one compiler; a result
 * belongs to one thread at a time. The library keeps no thread of its own. After a fork() the
 * child may go on with the compilers it has.
 * Links: libc. NVRTC is found at run time; see `nvrtc_library`.
 */
#ifndef WARMCACHE_COMPILER_H
#define WARMCACHE_COMPILER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define WARM_COMPILER_API __attribute__((visibility("default")))
#else
#define WARM_COMPILER_API
#endif

struct warm_compiler;
struct warm_compile_result;

/* What functions return: 0 or one of these. */
enum warm_compiler_status {
	WARM_COMPILER_OK = 0,
	WARM_COMPILER_INVALID = 1,	 /* a NULL or senseless argument; `message` names it */
	WARM_COMPILER_NO_NVRTC = 2,	 /* libnvrtc or its builtins library is not to be found */
	WARM_COMPILER_COMPILE_ERROR = 3, /* the program does not compile; `log` is NVRTC's */
	WARM_COMPILER_HELPER = 4,	 /* the helper is missing, died, or took too long */
	WARM_COMPILER_NO_MEMORY = 5,
	WARM_COMPILER_NVRTC = 6,    /* NVRTC failed otherwise; `nvrtc_result` is its code */
	WARM_COMPILER_CANCELED = 7, /* of many: not begun, because `done` said so */
};

struct warm_compiler_error {
	int status;	  /* enum warm_compiler_status */
	int nvrtc_result; /* nvrtcResult, 0 when NVRTC wasn't asked */
	char message[512];
	/* Freed by warm_compiler_error_release(): */
	char *log; /* NVRTC's whole log, or NULL */
	char *ptx; /* PTX that was made before it failed, as when ptxas refuses it, or NULL */
	size_t log_bytes; /* of the log, which may end in more NULs than one; that isn't counted */
};

/* Start with this, or with zeros. Functions that fail overwrite it; release it before it goes. */
#define WARM_COMPILER_ERROR_INIT        \
	{                               \
		0, 0, "", NULL, NULL, 0 \
	}
WARM_COMPILER_API void warm_compiler_error_release(struct warm_compiler_error *error);

/* What a hit checks of entries with dependencies; never part of the key. */
enum warm_compiler_mode {
	WARM_MODE_TRACED = 0, /* each dependency's contents at its first look in a process, later
			       * by dev, inode, size, mtime and ctime */
	WARM_MODE_SEALED = 1, /* as traced, but a file below `sealed_dirs` is looked at once */
	WARM_MODE_CLOSED = 2, /* only programs that open no file hit; no file is looked at */
};

struct warm_compiler_options {
	size_t size;	       /* sizeof(struct warm_compiler_options): set by the macro below */
	const char *cache_dir; /* the volume: entries go to <cache_dir>/nvrtc/v1. NULL:
				* WARM_CACHE_DIR of the environment; neither: no cache */
	const char *nvrtc_library; /* libnvrtc's path. NULL: WARM_NVRTC_LIBRARY; one that is loaded;
				    * for loaded objects that need one their RUNPATH or RPATH, and
				    * the nvidia wheels beside them; LD_LIBRARY_PATH; the loader's
				    * cache; CUDA's usual places; the wheels of VIRTUAL_ENV and
				    * CONDA_PREFIX */
	const char *helper;	   /* path of warmcache-nvrtc. NULL: WARM_NVRTC_HELPER; beside this
				    * library, in .., or in bin up to three levels above; the same
				    * from the executable */
	int mode;		   /* enum warm_compiler_mode */
	const char *const *sealed_dirs; /* for WARM_MODE_SEALED, absolute, NULL-terminated */
	unsigned max_parallel;		/* compiles, and so helpers, at once; 0: the CPUs */
	unsigned timeout_ms;		/* of one compile; 0: ten minutes */
	int fallback; /* not 0: where the helper is missing, dies or takes too long, compile in
		       * this process; such a result isn't stored */
	uint64_t max_bytes; /* of all entries; above it those go that were not read for the
			     * longest time. 0: WARM_COMPILER_MAX_BYTES of the environment
			     * ("2G", "512M"); neither: no limit. Not beside a sidecar, which
			     * publishes what it finds */
};

#define WARM_COMPILER_OPTIONS_INIT                                                          \
	{                                                                                   \
		sizeof(struct warm_compiler_options), NULL, NULL, NULL, 0, NULL, 0, 0, 0, 0 \
	}

/* Open a compiler. NVRTC is looked for, not loaded. Strings are copied.
 *
 * Errors: INVALID; NO_NVRTC (the message lists where it was looked for; hits need it as well: its
 *         build id is part of the key); NO_MEMORY. A cache directory that can't be used is no
 *         error: every call compiles.
 * Owns:   the caller closes `*ret_compiler`.
 */
WARM_COMPILER_API int warm_compiler_open(const struct warm_compiler_options *options,
					 struct warm_compiler **ret_compiler,
					 struct warm_compiler_error *error);
/* No call on it may be running. NULL does nothing. */
WARM_COMPILER_API void warm_compiler_close(struct warm_compiler *compiler);

struct warm_header {
	const char *name;   /* as it is included */
	const char *source; /* `source_bytes` bytes */
	size_t source_bytes;
};

/* A program, as nvrtcCreateProgram and nvrtcCompileProgram take it. Borrowed for the call. */
struct warm_compile_program {
	const char *source;
	size_t source_bytes;
	const char *name; /* file name for messages and quoted includes; NULL: NVRTC's default */
	const char *const *options;
	size_t n_options;
	const struct warm_header *headers;
	size_t n_headers;
	const char *const *name_expressions;
	size_t n_name_expressions;
};

enum warm_output {
	WARM_OUTPUT_PTX = 0, /* its NUL is counted, as by nvrtcGetPTXSize */
	WARM_OUTPUT_CUBIN = 1,
	WARM_OUTPUT_LTOIR = 2,
	WARM_OUTPUT_OPTIXIR = 3,
	WARM_OUTPUT_TILEIR = 4, /* NVRTC 13.2 and newer, --enable-tile */
};

enum warm_compile_source {
	WARM_COMPILE_HIT = 0,	      /* read from the cache */
	WARM_COMPILE_MISS = 1,	      /* compiled, and stored */
	WARM_COMPILE_UNCACHEABLE = 2, /* compiled; must not be stored, see the reason */
	WARM_COMPILE_UNSTORED = 3,    /* compiled; could not be stored, see the reason */
};

/* Compile, or read.
 *
 * Errors: as listed above; `ret_result` is set on success alone.
 * Owns:   the caller frees `*ret_result`; its data live as long as it does.
 */
WARM_COMPILER_API int warm_compiler_compile(struct warm_compiler *compiler,
					    const struct warm_compile_program *program,
					    struct warm_compile_result **ret_result,
					    struct warm_compiler_error *error);

/* Many programs, as many at once as `max_parallel`. `ret_results[i]` is set or NULL, `errors[i]`
 * is set where it is NULL; both are arrays of `n`. `done` (may be NULL) is called after each
 * program, by one thread at a time; when it returns other than 0 no further program is begun.
 * Returns 0 when all succeeded, else the first failure's status. */
WARM_COMPILER_API int warm_compiler_compile_many(
	struct warm_compiler *compiler, const struct warm_compile_program *programs, size_t n,
	struct warm_compile_result **ret_results, struct warm_compiler_error *errors,
	int (*done)(void *arg, size_t index, const struct warm_compile_result *result), void *arg);

WARM_COMPILER_API void warm_compile_result_free(struct warm_compile_result *result);

/* One of the outputs; NULL and 0 bytes when the options didn't ask for it. */
WARM_COMPILER_API const void *warm_compile_result_output(const struct warm_compile_result *result,
							 enum warm_output kind, size_t *ret_bytes);
/* NVRTC's log, "" when empty; and its length, for it may end in more NULs than one. */
WARM_COMPILER_API const char *warm_compile_result_log(const struct warm_compile_result *result);
WARM_COMPILER_API size_t warm_compile_result_log_bytes(const struct warm_compile_result *result);
/* The lowered name of an expression that the program gave; NULL when it gave no such. */
WARM_COMPILER_API const char *
warm_compile_result_lowered_name(const struct warm_compile_result *result,
				 const char *name_expression);
WARM_COMPILER_API enum warm_compile_source
warm_compile_result_source(const struct warm_compile_result *result);
/* Why it is UNCACHEABLE or UNSTORED; "" else. */
WARM_COMPILER_API const char *warm_compile_result_reason(const struct warm_compile_result *result);
/* The fingerprint, 32 hexadecimal digits. */
WARM_COMPILER_API const char *
warm_compile_result_fingerprint(const struct warm_compile_result *result);

/* Since the compiler was opened. The sums over all processes of a volume stand in its file
 * .warmcache/counters. */
struct warm_compiler_counters {
	uint64_t hits;
	uint64_t misses;      /* compiles, stored or not */
	uint64_t waits;	      /* of the hits: waited for another's compile */
	uint64_t uncacheable; /* of the misses: must not be stored */
	uint64_t unstored;    /* of the misses: could not be stored */
	uint64_t bad_entries; /* files that were no whole entry */
	uint64_t failed;      /* compiles that failed */
	uint64_t evicted;     /* entries deleted to keep `max_bytes` */
	uint64_t helpers_started;
	uint64_t bytes_read;	     /* of entries that hit */
	uint64_t bytes_written;	     /* of entries stored */
	uint64_t hit_us;	     /* microseconds spent in hits, waiting included */
	uint64_t compile_us;	     /* and in compiles */
	uint64_t uncacheable_option; /* uncacheable, by reason */
	uint64_t uncacheable_environment;
	uint64_t uncacheable_time;
	uint64_t uncacheable_changed;
	uint64_t uncacheable_host;
};

/* `bytes` is sizeof(*ret_counters): a program built against an older header has a shorter struct. */
WARM_COMPILER_API void warm_compiler_get_counters(const struct warm_compiler *compiler,
						  struct warm_compiler_counters *ret_counters,
						  size_t bytes);

/* "0.1.0" */
WARM_COMPILER_API const char *warm_compiler_version(void);

#ifdef __cplusplus
}
#endif

#endif
