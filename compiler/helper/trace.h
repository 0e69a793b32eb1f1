/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What NVRTC looks at in the file system, recorded while it compiles.
 *
 * libnvrtc's calls of fopen and stat arrive at the functions of these names that this program
 * exports. It opens what it reads; of what has the same device and inode as something that it
 * read before, and is guarded, it is content with stat.
 *
 * Threads: recording is safe from any; start, stop and the list belong to one.
 */
#ifndef WARM_HELPER_TRACE_H
#define WARM_HELPER_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "lib/base/hash.h"

struct warm_traced {
	char *path;  /* as given */
	bool opened; /* by fopen; else by stat alone */
	bool found;
	struct stat st; /* if found */
	uint64_t bytes; /* and, if it was opened then, what it held */
	struct warm_hash128 digest;
};

void warm_trace_start(void);
/* Stop; the list is sorted by path, and lives until the next start. False: it isn't whole. */
bool warm_trace_stop(const struct warm_traced **ret_list, size_t *ret_n);

#endif
