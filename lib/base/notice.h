/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a library has to tell that is no error: the program that uses it logs it.
 *
 * Threads: a notice may come from any thread of the call that it was given to.
 */
#ifndef WARM_BASE_NOTICE_H
#define WARM_BASE_NOTICE_H

#include "lib/base/scope.h"

struct warm_notices {
	void (*fn)(void *arg, const char *event, const char *text);
	void *arg;
};

/* `notices`, and its function, may be NULL. */
void warm_notice(const struct warm_notices *notices, const char *event, const char *fmt, ...)
	WARM_PRINTF(3, 4);

#endif
