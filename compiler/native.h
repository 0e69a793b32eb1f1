/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NVRTC itself, in the calling process: what the helper runs, and the host where it must.
 *
 * NVRTC replaces the handlers of SIGINT and SIGTERM while it parses, and raises RLIMIT_STACK.
 * Threads: any number at once on one loaded library; NVRTC serialises most of a compile.
 */
#ifndef WARM_COMPILER_NATIVE_H
#define WARM_COMPILER_NATIVE_H

#include "compiler/wire.h"

typedef struct nvrtc_program *warm_native_program;

struct warm_native {
	void *library; /* of dlopen(); stays loaded */
	int number;    /* major * 100 + minor */
	const char *(*error_string)(int);
	int (*create)(warm_native_program *, const char *, const char *, int, const char *const *,
		      const char *const *);
	int (*destroy)(warm_native_program *);
	int (*compile)(warm_native_program, int, const char *const *);
	int (*add_expression)(warm_native_program, const char *);
	int (*lowered)(warm_native_program, const char *, const char **);
	int (*log_size)(warm_native_program, size_t *);
	int (*log)(warm_native_program, char *);
	int (*size[WARM_KERNEL_OUTPUTS])(warm_native_program, size_t *);
	int (*get[WARM_KERNEL_OUTPUTS])(warm_native_program, char *);
};

/* Load by absolute paths, the builtins first: NVRTC then finds these whatever its RPATH says.
 * Errors: UNSUPPORTED with the loader's words, or naming the function that is missing. */
int warm_native_load(const char *library, const char *builtins, struct warm_native *ret_native,
		     struct warm_error *err) WARM_CHECKED;

/* A response and what its texts lie in. */
struct warm_native_result {
	struct warm_wire_response response;
	char *log, *outputs[WARM_KERNEL_OUTPUTS];
	char **lowered;
};

/* Compile. The request's `nvrtc`, `builtins` and `cwd` are not looked at; dependencies
 * are left empty. NO_MEMORY. Owns: warm_native_release() frees, in any case. */
int warm_native_compile(const struct warm_native *native, const struct warm_wire_request *request,
			struct warm_native_result *ret_result, struct warm_error *err) WARM_CHECKED;
void warm_native_release(struct warm_native_result *result);

/* Make it an answer that says why there is none. `message` is borrowed. */
void warm_native_refuse(struct warm_native_result *result, enum warm_wire_outcome outcome,
			int nvrtc_result, const char *message);

#endif
