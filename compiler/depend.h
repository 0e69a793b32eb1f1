/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Do an entry's dependencies hold here and now?
 *
 * Contents are compared at a file's first look in a process, and remembered with (dev, ino, size,
 * mtime, ctime) for later looks; absence is a stat each time. Threads: any number.
 */
#ifndef WARM_COMPILER_DEPEND_H
#define WARM_COMPILER_DEPEND_H

#include "lib/kernel/entry.h"

struct warm_depend;

/* `sealed` is a NULL-terminated list of absolute directories (or NULL) whose files are trusted
 * after their first look; borrowed. NULL when out of memory. */
struct warm_depend *warm_depend_new(const char *const *sealed);
void warm_depend_free(struct warm_depend *depend);

/* `base` is the program's directory, `cwd` the current one, both absolute. */
bool warm_depend_holds(struct warm_depend *depend, const struct warm_kernel_dep *deps, size_t n,
		       const char *base, const char *cwd);

#endif
