/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Find and start the helper.
 *
 * The host may be multi-threaded, may have closed descriptors and may ignore SIGCHLD. The
 * helper's environment is built: variables that NVRTC obeys, LD_LIBRARY_PATH, malloc's large
 * pages, nothing else, and never LD_PRELOAD. Threads: any number.
 */
#ifndef WARM_COMPILER_SPAWN_H
#define WARM_COMPILER_SPAWN_H

#include <stdbool.h>
#include <sys/types.h>

#include "lib/base/error.h"

/* Variables of the environment that change what NVRTC makes; NULL-terminated. */
extern const char *const warm_nvrtc_environment[];

/* Find the helper: `given`, WARM_NVRTC_HELPER, beside this library, in .., or in bin up to three
 * levels above; and the same from the executable. NOT_FOUND says where it was looked for. */
int warm_helper_find(const char *given, char *ret_path, size_t bytes,
		     struct warm_error *err) WARM_CHECKED;

/* Start a helper, in a process group of its own; `ret_fd` is the socket to it (wire.h).
 * `environment` is "NAME=VALUE\n" lines, those of warm_nvrtc_environment[] that the key holds.
 * Owns: the caller closes `*ret_fd` and reaps the helper. */
int warm_helper_start(const char *helper, const char *environment, pid_t *ret_pid, int *ret_fd,
		      struct warm_error *err) WARM_CHECKED;

/* Take the status of a helper that has ended or is ending; with `wait`, kill one that takes too
 * long. False: it runs. `*ret_status` is -1 where the host took it itself. */
bool warm_helper_reap(pid_t pid, bool wait, int *ret_status);

#endif
