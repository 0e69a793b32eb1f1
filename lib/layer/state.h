/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of a key: what its layers hold together.
 *
 * Every listed layer that no listed base covers counts. Of two layers that hold the same group
 * the newest origin wins, for the whole group (of equal origins, the newest layer). Of two groups
 * that share a path the newest origin wins as well, unless they are bound to different CPUs. All
 * readers of the same list agree, in whatever order they got it.
 *
 * Threads: a built state is read only.
 */
#ifndef WARM_LAYER_STATE_H
#define WARM_LAYER_STATE_H

#include "lib/layer/index.h"

struct warm_layer {
	char *object; /* its name in the store */
	uint64_t object_bytes;
	int64_t modified_ms; /* by the store's clock; -1 when unknown */
	struct warm_layer_name name;
	struct warm_index *index; /* NULL: not read, or refused */
	bool covered;		  /* by a base of the list; set by warm_state_build() */
	uint8_t *trailer;	  /* what the index was read from, where it is kept (catalog.h) */
	size_t trailer_bytes;
};

void warm_layers_free(struct warm_layer *layers, size_t n);

struct warm_live {
	const struct warm_group *group;
	uint32_t layer; /* its place in the list */
};

struct warm_state {
	struct warm_live *live; /* sorted by the group's name */
	size_t n_live;
};

/* Mark covered layers, and find the live groups of those that have an index. The state borrows
 * from `layers`. Errors: NO_MEMORY. */
int warm_state_build(struct warm_layer *layers, size_t n, struct warm_state *ret_state,
		     struct warm_error *err) WARM_CHECKED;
void warm_state_release(struct warm_state *state);
#define scope_state WARM_SCOPE(warm_state_release)

/* NULL when no live group has this name. */
const struct warm_live *warm_state_find(const struct warm_state *state, const char *name);

/* Take out of `state` the groups that `first` (the state of another key) holds too, by name or by
 * a path. Errors: NO_MEMORY. */
int warm_state_subtract(struct warm_state *state, const struct warm_layer *layers,
			const struct warm_state *first, const struct warm_layer *first_layers,
			struct warm_error *err) WARM_CHECKED;

/* Mark what listed bases with an index cover; warm_state_build() does it too. */
void warm_state_cover(struct warm_layer *layers, size_t n);

#endif
