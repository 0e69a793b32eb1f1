/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From what NVRTC looked at, and what came out, to what an entry depends on.
 *
 * A path below the program's directory is kept relative to it, so that a program in another
 * directory may hit. But only if nothing else than a quoted include can have led there, and the
 * directory shows in no output; else the entry is bound to directory and current directory.
 *
 * Threads: none of its own.
 */
#ifndef WARM_HELPER_COLLECT_H
#define WARM_HELPER_COLLECT_H

#include "compiler/cacheable.h"
#include "compiler/helper/trace.h"

struct warm_collected {
	struct warm_buf encoded;
	size_t n;
	enum warm_kernel_reason reason; /* why the result must not be stored */
	char why[WARM_WHY_BYTES];
};

/* The dependencies of a program that compiled. NO_MEMORY. Owns: the caller releases `encoded`. */
int warm_collect(const struct warm_wire_request *request, const struct warm_wire_response *response,
		 const struct warm_traced *traced, size_t n, struct warm_collected *ret_collected,
		 struct warm_error *err) WARM_CHECKED;

#endif
