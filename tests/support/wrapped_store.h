/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store around another one, in which a test may let calls fail or do something in between.
 *
 * The hooks may be called by several threads at once, as the store is.
 */
#ifndef WARM_TESTS_WRAPPED_STORE_H
#define WARM_TESTS_WRAPPED_STORE_H

#include "tests/support/scratch.h"

enum wrapped_call { WRAPPED_LIST, WRAPPED_HEAD, WRAPPED_GET, WRAPPED_PUT, WRAPPED_DELETE };

struct wrapped_store {
	struct warm_store *inner; /* borrowed */
	/* Before a call reaches `inner`: other than 0 is its result. May be NULL. */
	int (*before)(void *arg, enum wrapped_call call, const char *name, struct warm_error *err);
	/* After a put that went well. May be NULL. */
	void (*after_put)(void *arg, const char *name);
	void *arg;
};

/* `w` has to outlive the store. */
struct warm_store *wrapped_store_open(struct wrapped_store *w);

#endif
