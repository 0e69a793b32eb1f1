/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `head` objects: a LIST for stores that have none (plain web servers).
 *
 * "<model>/head" names the objects of a model, "head" the heads of all models. Lines of text:
 *
 *	warmcache-head 1 <when, ms since 1970>
 *	<bytes> <modified, ms since 1970, or -1> <name>
 *	end <number of names>
 *
 * Threads: pure functions, and one writer a store.
 */
#ifndef WARM_STORE_HEAD_H
#define WARM_STORE_HEAD_H

#include "lib/store/store.h"

#define WARM_HEAD_NAME "head"
#define WARM_HEAD_BYTES (16u << 20)

/* Call `fn` for each name that begins with `prefix`. CORRUPT: not a head, cut short, too new. */
int warm_head_parse(const char *data, size_t bytes, const char *prefix, warm_list_fn fn, void *arg,
		    struct warm_error *err) WARM_CHECKED;

struct warm_head_report {
	size_t models, objects;
};

/* LIST `store` below `prefix` ("" or "<model>/") and write the heads of the models found; with ""
 * also the head of all. Errors: of the store; NO_MEMORY; CANCELED. */
int warm_head_write(struct warm_store *store, const char *prefix,
		    struct warm_head_report *ret_report, const struct warm_call *call,
		    struct warm_error *err) WARM_CHECKED;

#endif
