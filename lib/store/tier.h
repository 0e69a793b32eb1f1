/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several stores read as one, nearest first. The last one is far: its LIST alone is the state. The
 * near ones serve bytes by name; what they lack, hold damaged or can't give comes from far. Only
 * when far can't be reached, or refuses its first LIST, does the nearest LIST that works count.
 *
 * What is wrong with a near store is a notice, never an error.
 *
 * Threads: as a store.
 */
#ifndef WARM_STORE_TIER_H
#define WARM_STORE_TIER_H

#include "lib/base/notice.h"
#include "lib/store/store.h"

/* `stores` (two at least) and `notices` are borrowed for the tier's life. It is only read: put and
 * delete are UNSUPPORTED. warm_store_free() ends it. */
int warm_tier_open(struct warm_store *const *stores, size_t n, const struct warm_notices *notices,
		   struct warm_store **ret_tier, struct warm_error *err) WARM_CHECKED;

/* Far was not to be reached: what was listed is near's. */
bool warm_tier_far_is_away(const struct warm_store *tier);

/* The names that near lacked (`damaged` false) or held damaged, of those that were read. After the
 * reads are done. */
typedef void (*warm_lacking_fn)(void *arg, const char *name, bool damaged);
void warm_tier_lacking(const struct warm_store *tier, warm_lacking_fn fn, void *arg);

#endif
