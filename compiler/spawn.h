/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Run the helper for one request.
 *
 * The host may be multi-threaded, may have closed descriptors and may ignore SIGCHLD. The
 * helper's environment is built: variables that NVRTC obeys, LD_LIBRARY_PATH, nothing else, and
 * never LD_PRELOAD. Threads: any number; each call has a helper of its own.
 */
#ifndef WARM_COMPILER_SPAWN_H
#define WARM_COMPILER_SPAWN_H

#include "lib/base/buf.h"

/* Variables of the environment that change what NVRTC makes; NULL-terminated. */
extern const char *const warm_nvrtc_environment[];

/* Find the helper: `given`, WARM_NVRTC_HELPER, beside this library, ../bin from it, beside the
 * executable. NOT_FOUND says where it was looked for. */
int warm_helper_find(const char *given, char *ret_path, size_t bytes,
		     struct warm_error *err) WARM_CHECKED;

/* `environment` is "NAME=VALUE\n" lines, those of warm_nvrtc_environment[] that the key holds.
 *
 * Send `request`, receive the answer. Errors: NOT_FOUND when the helper dies (the message says
 * how); CANCELED after `timeout_ms`, the helper is killed; NO_MEMORY; IO.
 * Owns: the caller frees `*ret_data`. */
int warm_helper_run(const char *helper, const char *environment, const struct warm_buf *request,
		    int64_t timeout_ms, uint8_t **ret_data, size_t *ret_bytes,
		    struct warm_error *err) WARM_CHECKED;

#endif
