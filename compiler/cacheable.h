/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must not be cached, told from a program's inputs: the result depends on more than an entry
 * records. Threads: pure functions.
 */
#ifndef WARM_COMPILER_CACHEABLE_H
#define WARM_COMPILER_CACHEABLE_H

#include "compiler/wire.h"
#include "lib/kernel/counters.h"

enum { WARM_WHY_BYTES = 200 };

/* NVRTC's name of a program without one. */
#define WARM_DEFAULT_PROGRAM "default_program"

/* CACHEABLE, or the reason, with its text in `ret_why`. `environment` is "NAME=VALUE\n" lines.
 * Files on disk are not looked at: the helper does. */
enum warm_kernel_reason warm_request_reason(const struct warm_wire_request *request,
					    const char *environment, char ret_why[WARM_WHY_BYTES]);

/* Stands in `environment` for a newline of a value. */
#define WARM_NEWLINE_MARK '\001'

bool warm_option_is_untraceable(struct warm_kernel_text option);

/* __TIME__, __DATE__ or __TIMESTAMP__. */
bool warm_text_tells_time(struct warm_kernel_text text);

/* Without white space at both ends, as NVRTC takes an option. */
struct warm_kernel_text warm_text_trim(struct warm_kernel_text text);
bool warm_text_starts_with(struct warm_kernel_text text, const char *prefix);
bool warm_text_contains(struct warm_kernel_text text, const char *word);

#endif
