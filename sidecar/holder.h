/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which sidecar serves a volume: the one that holds a record lock on `.warmcache/sidecar`. The
 * kernel tells who that is, in the asking process's own pid namespace, and forgets it with the
 * process; so `--pre-stop` needs no pid file, no port and no shared name.
 *
 * Threads: one at a time. The lock goes when the process closes any descriptor of the file.
 */
#ifndef WARM_SIDECAR_HOLDER_H
#define WARM_SIDECAR_HOLDER_H

#include <stdbool.h>

#include "lib/base/error.h"

/* Take the lock. EXISTS: another process has it, and goes on having it.
 * Owns: the caller keeps `ret_fd` open for as long as it serves the volume. */
int warm_holder_take(const char *volume, int *ret_fd, struct warm_error *err) WARM_CHECKED;

/* Whether the file that `fd` locks is still the volume's: the model may have cleared that. */
bool warm_holder_counts(const char *volume, int fd);

/* Tell the volume's sidecar that the pod's end has begun. NOT_FOUND: there is none. */
int warm_holder_tell(const char *volume, struct warm_error *err) WARM_CHECKED;

#endif
