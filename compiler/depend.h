/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Do an entry's dependencies hold here and now?
 *
 * Contents are compared at a file's first look in a process, and remembered with (dev, ino, size,
 * mtime, ctime) for later looks; absence is a stat each time. Of an entry that held, what lies in
 * sealed directories is not looked at again. Threads: any number.
 */
#ifndef WARM_COMPILER_DEPEND_H
#define WARM_COMPILER_DEPEND_H

#include "compiler/pool.h"
#include "lib/base/file.h"
#include "lib/kernel/entry.h"

enum { WARM_DEPEND_WHY_BYTES = 512 };

struct warm_depend;

/* `sealed` is a NULL-terminated list of absolute directories (or NULL) whose files are trusted
 * after their first look; borrowed. NULL when out of memory. */
struct warm_depend *warm_depend_new(const char *const *sealed);
void warm_depend_free(struct warm_depend *depend);
void warm_depend_fork(struct warm_depend *depend, enum warm_fork phase);

/* Where a program is compiled, and so what relative paths mean. */
struct warm_place {
	char base
		[WARM_PATH_BYTES]; /* the program's directory, absolute; "" until it is asked for */
	char cwd[WARM_PATH_BYTES];
	struct warm_kernel_text dir; /* the program's directory as its name gives it: "../x/", "" */
};

/* `id` is the entry's (warm_stored_id()). Where one doesn't hold,
 * `ret_why` (NULL: not wanted) says which: "/x/a.h changed". */
bool warm_depend_holds(struct warm_depend *depend, struct warm_hash128 id,
		       struct warm_kernel_deps deps, const struct warm_place *place,
		       char ret_why[WARM_DEPEND_WHY_BYTES]);

#endif
