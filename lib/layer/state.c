/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/layer/state.h"

#include <string.h>

#include "lib/base/hash.h"

void warm_layers_free(struct warm_layer *layers, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(layers[i].object);
		warm_index_free(layers[i].index);
		free(layers[i].trailer);
	}
	free(layers);
}

void warm_state_release(struct warm_state *state)
{
	free(state->live);
	*state = (struct warm_state){ 0 };
}

static int compare_ids(const void *a, const void *b)
{
	return warm_id_compare(*(const struct warm_id *)a, *(const struct warm_id *)b);
}

void warm_state_cover(struct warm_layer *layers, size_t n)
{
	for (size_t i = 0; i < n; i++)
		layers[i].covered = false;
	for (size_t b = 0; b < n; b++) {
		const struct warm_index *base = layers[b].index;
		if (base == NULL || base->kind != WARM_BASE)
			continue;
		for (size_t c = 0; c < base->n_covered; c++)
			for (size_t i = 0; i < n; i++)
				if (i != b &&
				    compare_ids(&layers[i].name.id, &base->covered[c]) == 0)
					layers[i].covered = true;
	}
}

/* Newest first; ties by layer, so that every reader sorts alike. */
static int compare_age(const struct warm_live *a, const struct warm_live *b,
		       const struct warm_layer *layers)
{
	int c = warm_id_compare(b->group->origin, a->group->origin);

	if (c == 0)
		c = warm_id_compare(layers[b->layer].name.id, layers[a->layer].name.id);
	return c;
}

static int compare_name_age(const void *a_p, const void *b_p, void *layers)
{
	const struct warm_live *a = a_p, *b = b_p;
	int c = strcmp(a->group->name, b->group->name);

	return c != 0 ? c : compare_age(a, b, layers);
}

enum { MAX_CONFLICTS = 1 << 20 };

struct conflict {
	uint32_t newer, older; /* places in `live` */
};

struct conflicts {
	struct conflict *list;
	size_t n, capacity;
	const struct warm_live *live;
	const struct warm_layer *layers;
};

static int add_conflict(struct conflicts *c, uint32_t a, uint32_t b, struct warm_error *err)
{
	if (c->n == MAX_CONFLICTS)
		return warm_error_set(err, WARM_LIMIT, "over %d conflicts of groups over paths",
				      MAX_CONFLICTS);
	if (c->n == c->capacity) {
		size_t capacity = c->capacity == 0 ? 64 : 2 * c->capacity;
		struct conflict *list = realloc(c->list, capacity * sizeof(*list));
		if (list == NULL)
			return warm_error_nomem(err, capacity * sizeof(*list));
		c->list = list;
		c->capacity = capacity;
	}
	int age = compare_age(&c->live[a], &c->live[b], c->layers);
	if (age == 0)
		age = strcmp(c->live[a].group->name, c->live[b].group->name);
	c->list[c->n++] = age < 0 ? (struct conflict){ a, b } : (struct conflict){ b, a };
	return 0;
}

static int compare_conflicts(const void *a_p, const void *b_p, void *arg)
{
	const struct conflict *a = a_p, *b = b_p;
	const struct conflicts *c = arg;
	int age = compare_age(&c->live[a->newer], &c->live[b->newer], c->layers);

	if (age != 0)
		return age;
	return a->newer < b->newer ? -1 : a->newer > b->newer;
}

static bool apart(const struct warm_group *a, const struct warm_group *b)
{
	unsigned kinds = WARM_GROUP_CPU_BOUND | WARM_GROUP_MOUNT_BOUND;

	return a->bound != 0 && b->bound != 0 && a->bound != b->bound &&
	       (a->flags & kinds) == (b->flags & kinds);
}

/* Paths of live groups, by hash; a path may be there for several groups. */
struct slot {
	const char *path;
	uint32_t bytes; /* of it that count */
	uint32_t live;
};

struct paths {
	struct slot *slots;
	size_t capacity;
};

/* Note a conflict with each group other than `live` that holds the first `n` bytes of `path`. */
static int clash(const struct paths *p, struct conflicts *c, const char *path, size_t n,
		 uint32_t live, struct warm_error *err)
{
	size_t at = warm_hash64(path, n) & (p->capacity - 1);

	for (; p->slots[at].path != NULL; at = (at + 1) & (p->capacity - 1)) {
		uint32_t other = p->slots[at].live;
		if (other == live || p->slots[at].bytes != n ||
		    memcmp(p->slots[at].path, path, n) != 0 ||
		    apart(c->live[other].group, c->live[live].group))
			continue;
		int rc = add_conflict(c, other, live, err);
		if (rc != 0)
			return rc;
	}
	return 0;
}

static void put_path(struct paths *p, const char *path, size_t n, uint32_t live)
{
	size_t at = warm_hash64(path, n) & (p->capacity - 1);

	while (p->slots[at].path != NULL)
		at = (at + 1) & (p->capacity - 1);
	p->slots[at] = (struct slot){ path, (uint32_t)n, live };
}

static const char *path_of(const struct conflicts *c, size_t live, size_t file)
{
	const struct warm_index *index = c->layers[c->live[live].layer].index;

	return index->files[c->live[live].group->first_file + file].path;
}

static bool same_unit(const char *a, const char *b, size_t unit)
{
	return strncmp(a, b, unit) == 0 && a[unit] == '/';
}

/* Find pairs of live groups that hold the same path, or one a directory where the other has a
 * file, or one a file in the other's unit. */
static int find_conflicts(struct conflicts *c, size_t n_live, struct warm_error *err)
{
	size_t n_paths = 0;
	struct paths p = { .capacity = 64 };
	int rc = 0;

	for (size_t i = 0; i < n_live; i++)
		n_paths += c->live[i].group->n_files;
	while (p.capacity < 4 * n_paths)
		p.capacity *= 2;
	p.slots = calloc(p.capacity, sizeof(*p.slots));
	if (p.slots == NULL)
		return warm_error_nomem(err, p.capacity * sizeof(*p.slots));
	for (size_t i = 0; rc == 0 && i < n_live; i++)
		for (size_t k = 0; rc == 0 && k < c->live[i].group->n_files; k++) {
			const char *path = path_of(c, i, k);
			size_t unit = warm_group_unit(c->live[i].group->name, path);
			rc = clash(&p, c, path, strlen(path), (uint32_t)i, err);
			put_path(&p, path, strlen(path), (uint32_t)i);
			/* A directory that moves as one is the group's alone. */
			if (rc != 0 || path[unit] == '\0' ||
			    (k > 0 && same_unit(path_of(c, i, k - 1), path, unit)))
				continue;
			rc = clash(&p, c, path, unit, (uint32_t)i, err);
			put_path(&p, path, unit, (uint32_t)i);
		}
	for (size_t i = 0; rc == 0 && i < n_live; i++)
		for (size_t k = 0; rc == 0 && k < c->live[i].group->n_files; k++) {
			const char *path = path_of(c, i, k);
			for (const char *s = strchr(path, '/'); rc == 0 && s != NULL;
			     s = strchr(s + 1, '/'))
				rc = clash(&p, c, path, (size_t)(s - path), (uint32_t)i, err);
		}
	free(p.slots);
	return rc;
}

int warm_state_build(struct warm_layer *layers, size_t n, struct warm_state *ret_state,
		     struct warm_error *err)
{
	size_t total = 0, n_live = 0;

	warm_state_cover(layers, n);
	for (size_t i = 0; i < n; i++)
		if (layers[i].index != NULL && !layers[i].covered)
			total += layers[i].index->n_groups;
	scope_free struct warm_live *live = calloc(total + 1, sizeof(*live));
	scope_free bool *dropped = calloc(total + 1, sizeof(*dropped));
	if (live == NULL || dropped == NULL)
		return warm_error_nomem(err, total * sizeof(*live));
	for (size_t i = 0; i < n; i++) {
		if (layers[i].index == NULL || layers[i].covered)
			continue;
		for (size_t g = 0; g < layers[i].index->n_groups; g++)
			live[n_live++] = (struct warm_live){ &layers[i].index->groups[g],
							     (uint32_t)i };
	}
	if (n_live > 1)
		qsort_r(live, n_live, sizeof(*live), compare_name_age, layers);
	size_t kept = 0;
	for (size_t i = 0; i < n_live; i++)
		if (kept == 0 || strcmp(live[kept - 1].group->name, live[i].group->name) != 0)
			live[kept++] = live[i];
	n_live = kept;

	struct conflicts c = { .live = live, .layers = layers };
	int rc = find_conflicts(&c, n_live, err);
	if (rc == 0) {
		/* From the newest down: a group that lost already takes nothing with it. */
		if (c.n > 1)
			qsort_r(c.list, c.n, sizeof(*c.list), compare_conflicts, &c);
		for (size_t i = 0; i < c.n; i++)
			if (!dropped[c.list[i].newer])
				dropped[c.list[i].older] = true;
		kept = 0;
		for (size_t i = 0; i < n_live; i++)
			if (!dropped[i])
				live[kept++] = live[i];
		ret_state->live = take_ptr(live);
		ret_state->n_live = kept;
	}
	free(c.list);
	return rc;
}

const struct warm_live *warm_state_find(const struct warm_state *state, const char *name)
{
	size_t low = 0, high = state->n_live;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int c = strcmp(state->live[mid].group->name, name);
		if (c == 0)
			return &state->live[mid];
		if (c < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}

static bool has_path(const struct paths *p, const char *path, size_t n)
{
	size_t at = warm_hash64(path, n) & (p->capacity - 1);

	for (; p->slots[at].path != NULL; at = (at + 1) & (p->capacity - 1))
		if (p->slots[at].bytes == n && memcmp(p->slots[at].path, path, n) == 0)
			return true;
	return false;
}

/* Whether a file of the group, or a directory above one, is a path of `files`, or a file of it is
 * a directory in `dirs`. */
static bool shares_path(const struct warm_live *live, const struct warm_layer *layers,
			const struct paths *files, const struct paths *dirs)
{
	const struct warm_file *f = &layers[live->layer].index->files[live->group->first_file];

	for (size_t k = 0; k < live->group->n_files; k++) {
		const char *path = f[k].path;
		if (has_path(files, path, strlen(path)) || has_path(dirs, path, strlen(path)))
			return true;
		for (const char *s = strchr(path, '/'); s != NULL; s = strchr(s + 1, '/'))
			if (has_path(files, path, (size_t)(s - path)))
				return true;
	}
	return false;
}

static void put_dirs(struct paths *p, const char *path)
{
	for (const char *s = strchr(path, '/'); s != NULL; s = strchr(s + 1, '/'))
		if (!has_path(p, path, (size_t)(s - path)))
			put_path(p, path, (size_t)(s - path), 0);
}

int warm_state_subtract(struct warm_state *state, const struct warm_layer *layers,
			const struct warm_state *first, const struct warm_layer *first_layers,
			struct warm_error *err)
{
	struct conflicts c = { .live = first->live, .layers = first_layers };
	struct paths files = { .capacity = 64 }, dirs = { .capacity = 64 };
	size_t n_files = 0, n_dirs = 0, kept = 0;

	for (size_t i = 0; i < first->n_live; i++)
		for (size_t k = 0; k < first->live[i].group->n_files; k++) {
			n_files++;
			for (const char *p = path_of(&c, i, k); *p != '\0'; p++)
				n_dirs += *p == '/';
		}
	while (files.capacity < 4 * n_files)
		files.capacity *= 2;
	while (dirs.capacity < 2 * n_dirs)
		dirs.capacity *= 2;
	files.slots = calloc(files.capacity, sizeof(*files.slots));
	dirs.slots = calloc(dirs.capacity, sizeof(*dirs.slots));
	if (files.slots == NULL || dirs.slots == NULL) {
		free(files.slots);
		free(dirs.slots);
		return warm_error_nomem(err, dirs.capacity * sizeof(*dirs.slots));
	}
	for (size_t i = 0; i < first->n_live; i++)
		for (size_t k = 0; k < first->live[i].group->n_files; k++) {
			const char *path = path_of(&c, i, k);
			size_t unit = warm_group_unit(first->live[i].group->name, path);
			put_path(&files, path, strlen(path), 0);
			if (path[unit] != '\0' && !has_path(&files, path, unit))
				put_path(&files, path, unit, 0);
			put_dirs(&dirs, path);
		}
	for (size_t i = 0; i < state->n_live; i++)
		if (warm_state_find(first, state->live[i].group->name) == NULL &&
		    !shares_path(&state->live[i], layers, &files, &dirs))
			state->live[kept++] = state->live[i];
	state->n_live = kept;
	free(files.slots);
	free(dirs.slots);
	return 0;
}
