/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <inttypes.h>

#include "lib/layer/state.h"

/* ---- layers without files: an index is all that a state looks at ---- */

enum { MAX_GROUPS = 16, MAX_FILES = 6 };

struct spec_group {
	const char *name;
	struct warm_id origin; /* none: the layer's */
	uint64_t bound;
	const char *paths[MAX_FILES]; /* none: the name */
};

static struct warm_id id_of(uint64_t ms)
{
	return (struct warm_id){ ms, ms * 7 };
}

/* Strings of `groups` and `covered` must outlive the layer. */
static struct warm_layer make_layer(enum warm_layer_kind kind, struct warm_id id,
				    const struct spec_group *groups, size_t n,
				    const struct warm_id *covered, size_t n_covered)
{
	struct warm_index *x = calloc(1, sizeof(*x));

	assert_non_null(x);
	x->kind = kind;
	x->id = id;
	x->groups = calloc(n + 1, sizeof(*x->groups));
	x->files = calloc(n * MAX_FILES + 1, sizeof(*x->files));
	x->covered = calloc(n_covered + 1, sizeof(*x->covered));
	assert_true(x->groups != NULL && x->files != NULL && x->covered != NULL);
	for (size_t i = 0; i < n; i++) {
		struct warm_group *g = &x->groups[i];
		*g = (struct warm_group){
			.name = groups[i].name,
			.profile = "file",
			.origin = warm_id_is_none(groups[i].origin) ? id : groups[i].origin,
			.bound = groups[i].bound,
			.first_file = (uint32_t)x->n_files,
		};
		for (size_t k = 0; k < MAX_FILES && (k == 0 || groups[i].paths[k] != NULL); k++) {
			const char *path = groups[i].paths[k] != NULL ? groups[i].paths[k]
								      : groups[i].name;
			x->files[x->n_files++] = (struct warm_file){ .path = path };
			g->n_files++;
		}
	}
	x->n_groups = n;
	if (n_covered > 0)
		memcpy(x->covered, covered, n_covered * sizeof(*covered));
	x->n_covered = n_covered;
	return (struct warm_layer){
		.name = { .kind = kind, .id = id },
		.index = x,
	};
}

static char *describe(const struct warm_layer *layers, const struct warm_state *s)
{
	struct warm_buf out = WARM_BUF_INIT;

	for (size_t i = 0; i < s->n_live; i++)
		warm_buf_printf(&out, "%s:%" PRIu64 "@%" PRIu64 " ", s->live[i].group->name,
				s->live[i].group->origin.ms, layers[s->live[i].layer].name.id.ms);
	warm_buf_put_u8(&out, 0);
	assert_false(out.failed);
	return (char *)out.data;
}

/* Build in every order of the list; all must give `want`: "name:origin@layer " for each. */
static void assert_state(struct warm_layer *layers, size_t n, const char *want)
{
	struct dice d = { 1 };

	for (int tries = 0; tries < 24; tries++) {
		scope_state struct warm_state s = { 0 };
		assert_int_equal(warm_state_build(layers, n, &s, NULL), 0);
		char *got = describe(layers, &s);
		assert_string_equal(got, want);
		free(got);
		for (size_t i = 0; i < s.n_live; i++)
			assert_ptr_equal(warm_state_find(&s, s.live[i].group->name), &s.live[i]);
		assert_null(warm_state_find(&s, "no such group"));
		for (size_t i = n; i > 1; i--) {
			size_t k = roll_below(&d, i);
			struct warm_layer swap = layers[i - 1];
			layers[i - 1] = layers[k];
			layers[k] = swap;
		}
	}
}

static void release(struct warm_layer *layers, size_t n)
{
	for (size_t i = 0; i < n; i++)
		warm_index_free(layers[i].index);
}

TEST(no_layers_hold_nothing)
{
	struct warm_layer none;
	scope_state struct warm_state s = { 0 };

	assert_int_equal(warm_state_build(&none, 0, &s, NULL), 0);
	assert_int_equal(s.n_live, 0);
	assert_null(warm_state_find(&s, "a"));
}

TEST(the_union_of_layers_counts)
{
	struct warm_layer l[] = {
		make_layer(WARM_LAYER, id_of(10),
			   (struct spec_group[]){ { .name = "a" }, { .name = "b" } }, 2, NULL, 0),
		make_layer(WARM_LAYER, id_of(20), (struct spec_group[]){ { .name = "c" } }, 1, NULL,
			   0),
	};

	assert_state(l, 2, "a:10@10 b:10@10 c:20@20 ");
	release(l, 2);
}

TEST(of_the_same_group_the_newest_origin_wins)
{
	struct warm_layer l[] = {
		make_layer(WARM_LAYER, id_of(10),
			   (struct spec_group[]){ { .name = "a" }, { .name = "b" } }, 2, NULL, 0),
		make_layer(WARM_LAYER, id_of(20), (struct spec_group[]){ { .name = "a" } }, 1, NULL,
			   0),
		/* A base is newer as a layer, its group is not. */
		make_layer(WARM_BASE, id_of(30),
			   (struct spec_group[]){ { .name = "a", .origin = id_of(5) } }, 1, NULL,
			   0),
	};

	assert_state(l, 3, "a:20@20 b:10@10 ");
	release(l, 3);
}

TEST(of_equal_origins_the_newest_layer_wins)
{
	struct warm_layer l[] = {
		make_layer(WARM_LAYER, id_of(10), (struct spec_group[]){ { .name = "a" } }, 1, NULL,
			   0),
		make_layer(WARM_BASE, id_of(30),
			   (struct spec_group[]){ { .name = "a", .origin = id_of(10) } }, 1, NULL,
			   0),
		make_layer(WARM_BASE, id_of(40),
			   (struct spec_group[]){ { .name = "a", .origin = id_of(10) } }, 1, NULL,
			   0),
	};

	assert_state(l, 3, "a:10@40 ");
	release(l, 3);
}

TEST(a_group_is_taken_whole_and_never_merged)
{
	struct warm_layer l[] = {
		make_layer(WARM_LAYER, id_of(10),
			   (struct spec_group[]){ { .name = "d", .paths = { "d/1", "d/2" } } }, 1,
			   NULL, 0),
		make_layer(WARM_LAYER, id_of(20),
			   (struct spec_group[]){ { .name = "d", .paths = { "d/1" } } }, 1, NULL,
			   0),
	};
	scope_state struct warm_state s = { 0 };

	assert_state(l, 2, "d:20@20 ");
	assert_int_equal(warm_state_build(l, 2, &s, NULL), 0);
	assert_int_equal(s.live[0].group->n_files, 1);
	release(l, 2);
}

TEST(what_a_listed_base_covers_does_not_count)
{
	struct warm_id covered[] = { id_of(10), id_of(20) };
	struct warm_layer l[] = {
		make_layer(WARM_LAYER, id_of(10),
			   (struct spec_group[]){ { .name = "a" }, { .name = "gone" } }, 2, NULL,
			   0),
		make_layer(WARM_LAYER, id_of(20), (struct spec_group[]){ { .name = "b" } }, 1, NULL,
			   0),
		make_layer(WARM_BASE, id_of(30),
			   (struct spec_group[]){ { .name = "a", .origin = id_of(10) },
						  { .name = "b", .origin = id_of(20) } },
			   2, covered, 2),
		make_layer(WARM_LAYER, id_of(15), (struct spec_group[]){ { .name = "late" } }, 1,
			   NULL, 0),
	};

	assert_state(l, 4, "a:10@30 b:20@30 late:15@15 ");
	release(l, 4);
}

TEST(a_base_that_is_not_listed_or_not_read_covers_nothing)
{
	struct warm_id covered[] = { id_of(10) };
	struct warm_layer l[] = {
		make_layer(WARM_LAYER, id_of(10), (struct spec_group[]){ { .name = "a" } }, 1, NULL,
			   0),
		make_layer(WARM_BASE, id_of(30),
			   (struct spec_group[]){ { .name = "a", .origin = id_of(10) } }, 1,
			   covered, 1),
	};

	assert_state(l, 2, "a:10@30 ");
	for (size_t i = 0; i < 2; i++)
		if (l[i].name.kind == WARM_BASE) {
			warm_index_free(l[i].index);
			l[i].index = NULL;
		}
	assert_state(l, 2, "a:10@10 ");
	release(l, 2);
}

TEST(only_a_base_covers)
{
	struct warm_id covered[] = { id_of(10) };
	struct warm_layer l[] = {
		make_layer(WARM_LAYER, id_of(10), (struct spec_group[]){ { .name = "a" } }, 1, NULL,
			   0),
		make_layer(WARM_LAYER, id_of(30), (struct spec_group[]){ { .name = "b" } }, 1,
			   covered, 1),
	};

	assert_state(l, 2, "a:10@10 b:30@30 ");
	release(l, 2);
}

TEST(a_base_that_covers_itself_still_counts)
{
	struct warm_id covered[] = { id_of(30) };
	struct warm_layer l[] = {
		make_layer(WARM_BASE, id_of(30), (struct spec_group[]){ { .name = "a" } }, 1,
			   covered, 1),
	};

	assert_state(l, 1, "a:30@30 ");
	release(l, 1);
}

TEST(a_covered_base_covers_still_what_it_covered)
{
	struct warm_id first[] = { id_of(10) }, second[] = { id_of(20), id_of(10) };
	struct warm_layer l[] = {
		make_layer(WARM_LAYER, id_of(10), (struct spec_group[]){ { .name = "a" } }, 1, NULL,
			   0),
		make_layer(WARM_BASE, id_of(20),
			   (struct spec_group[]){ { .name = "a", .origin = id_of(10) } }, 1, first,
			   1),
		make_layer(WARM_BASE, id_of(30),
			   (struct spec_group[]){ { .name = "a", .origin = id_of(10) } }, 1, second,
			   2),
	};

	assert_state(l, 3, "a:10@30 ");
	release(l, 3);
}

TEST(of_two_groups_that_share_a_path_the_newest_wins)
{
	struct warm_layer l[] = {
		make_layer(WARM_LAYER, id_of(10),
			   (struct spec_group[]){ { .name = "d", .paths = { "d/x", "d/y" } } }, 1,
			   NULL, 0),
		make_layer(WARM_LAYER, id_of(20), (struct spec_group[]){ { .name = "d/x" } }, 1,
			   NULL, 0),
	};

	assert_state(l, 2, "d/x:20@20 ");
	release(l, 2);
}

TEST(a_group_that_lost_takes_nothing_with_it)
{
	/* c beats b on p, b would beat a on q: a lives. */
	struct warm_layer l[] = {
		make_layer(WARM_LAYER, id_of(10),
			   (struct spec_group[]){ { .name = "a", .paths = { "q" } } }, 1, NULL, 0),
		make_layer(WARM_LAYER, id_of(20),
			   (struct spec_group[]){ { .name = "b", .paths = { "p", "q" } } }, 1, NULL,
			   0),
		make_layer(WARM_LAYER, id_of(30),
			   (struct spec_group[]){ { .name = "c", .paths = { "p" } } }, 1, NULL, 0),
	};

	assert_state(l, 3, "a:10@10 c:30@30 ");
	release(l, 3);
}

TEST(groups_of_one_layer_that_share_a_path_leave_one)
{
	struct warm_layer l[] = {
		make_layer(WARM_LAYER, id_of(10),
			   (struct spec_group[]){ { .name = "a", .paths = { "p" } },
						  { .name = "b", .paths = { "p" } } },
			   2, NULL, 0),
	};

	assert_state(l, 1, "a:10@10 ");
	release(l, 1);
}

TEST(copies_bound_to_two_cpus_live_side_by_side)
{
	struct warm_layer l[] = {
		make_layer(WARM_LAYER, id_of(10),
			   (struct spec_group[]){ { .name = "s@1", .bound = 1, .paths = { "s" } } },
			   1, NULL, 0),
		make_layer(WARM_LAYER, id_of(20),
			   (struct spec_group[]){ { .name = "s@2", .bound = 2, .paths = { "s" } } },
			   1, NULL, 0),
		/* An unbound one conflicts with both. */
		make_layer(WARM_LAYER, id_of(15),
			   (struct spec_group[]){ { .name = "t", .paths = { "t", "s" } } }, 1, NULL,
			   0),
	};

	assert_state(l, 3, "s@1:10@10 s@2:20@20 ");
	release(l, 3);
}

TEST(a_group_inside_anothers_file_is_a_conflict)
{
	/* "d" was a file; now it is a directory. Both can't be in one volume. */
	struct warm_layer l[] = {
		make_layer(WARM_LAYER, id_of(10),
			   (struct spec_group[]){ { .name = "d" }, { .name = "e" } }, 2, NULL, 0),
		make_layer(WARM_LAYER, id_of(20), (struct spec_group[]){ { .name = "d/x" } }, 1,
			   NULL, 0),
	};

	assert_state(l, 2, "d/x:20@20 e:10@10 ");
	release(l, 2);
}

/* ---- histories ---- */

enum {
	NAMES = 12,
	MAX_LAYERS = 400,
	HISTORIES = 400,
	STEPS = 60,
	WRITERS = 5,
	HOUR_MS = 3600 * 1000,
};

struct put {
	struct warm_layer layer;
	int64_t visible_at; /* when a LIST shows it */
	bool deleted;
};

struct world {
	struct dice dice;
	uint64_t seed;
	int64_t now;
	int64_t skew[WRITERS];
	struct put puts[MAX_LAYERS];
	size_t n;
	struct warm_id newest_origin[NAMES]; /* of what a LIST has ever shown */
};

static char names[NAMES][8], paths[NAMES][MAX_FILES][16];

static size_t list(const struct world *w, struct warm_layer *ret, size_t *ret_at)
{
	size_t n = 0;

	for (size_t i = 0; i < w->n; i++)
		if (!w->puts[i].deleted && w->puts[i].visible_at <= w->now) {
			ret[n] = w->puts[i].layer;
			ret_at[n++] = i;
		}
	return n;
}

static struct warm_id next_id(struct world *w, const struct warm_layer *listed, size_t n)
{
	struct warm_id newest = { 0, 0 };

	for (size_t i = 0; i < n; i++)
		if (warm_id_compare(listed[i].name.id, newest) > 0)
			newest = listed[i].name.id;
	struct warm_id id = warm_id_new(newest, w->now + w->skew[roll_below(&w->dice, WRITERS)]);
	id.random = roll(&w->dice); /* so that a seed gives one history */
	assert_true(warm_id_compare(id, newest) > 0);
	return id;
}

static void put(struct world *w, struct warm_layer layer)
{
	/* A third of the puts take up to two hours until they are listed. */
	int64_t delay = roll_below(&w->dice, 3) == 0 ? (int64_t)roll_below(&w->dice, 2 * HOUR_MS)
						     : 0;

	assert_true(w->n < MAX_LAYERS);
	w->puts[w->n++] = (struct put){ layer, w->now + delay, false };
}

static void publish(struct world *w)
{
	static struct warm_layer listed[MAX_LAYERS];
	static size_t at[MAX_LAYERS];
	struct spec_group groups[4] = { 0 };
	size_t n = list(w, listed, at), n_groups = 1 + roll_below(&w->dice, 4);
	bool taken[NAMES] = { false };

	for (size_t i = 0; i < n_groups; i++) {
		size_t name = roll_below(&w->dice, NAMES);
		while (taken[name])
			name = (name + 1) % NAMES;
		taken[name] = true;
		groups[i].name = names[name];
		/* Groups grow and shrink. */
		size_t files = 1 + roll_below(&w->dice, MAX_FILES);
		for (size_t k = 0; k < files; k++)
			groups[i].paths[k] = paths[name][k];
	}
	put(w, make_layer(WARM_LAYER, next_id(w, listed, n), groups, n_groups, NULL, 0));
}

static void compact(struct world *w)
{
	static struct warm_layer listed[MAX_LAYERS];
	static size_t at[MAX_LAYERS];
	static struct warm_id covered[MAX_LAYERS * 8];
	struct spec_group groups[MAX_GROUPS] = { 0 };
	scope_state struct warm_state s = { 0 };
	size_t n = list(w, listed, at), n_covered = 0, n_uncovered = 0;

	assert_int_equal(warm_state_build(listed, n, &s, NULL), 0);
	for (size_t i = 0; i < n; i++) {
		if (listed[i].covered)
			continue;
		n_uncovered++;
		for (size_t k = 0; k <= listed[i].index->n_covered; k++) {
			struct warm_id id = k == 0 ? listed[i].name.id
						   : listed[i].index->covered[k - 1];
			bool known = false;
			for (size_t c = 0; c < n_covered; c++)
				known = known || warm_id_compare(covered[c], id) == 0;
			assert_true(n_covered < COUNT(covered));
			if (!known)
				covered[n_covered++] = id;
		}
	}
	if (n_uncovered < 2)
		return;
	assert_true(s.n_live <= MAX_GROUPS);
	for (size_t i = 0; i < s.n_live; i++) {
		const struct warm_group *g = s.live[i].group;
		const struct warm_file *files = listed[s.live[i].layer].index->files;
		groups[i].name = g->name;
		groups[i].origin = g->origin;
		for (size_t k = 0; k < g->n_files; k++)
			groups[i].paths[k] = files[g->first_file + k].path;
	}
	put(w, make_layer(WARM_BASE, next_id(w, listed, n), groups, s.n_live, covered, n_covered));
}

/* Delete what a listed base of an hour ago covers; dies half-way as often as not. */
static void collect(struct world *w)
{
	static struct warm_layer listed[MAX_LAYERS];
	static size_t at[MAX_LAYERS];
	size_t n = list(w, listed, at);
	bool dies = roll_below(&w->dice, 2) == 0;

	for (size_t b = 0; b < n; b++) {
		const struct warm_index *base = listed[b].index;
		if (base->kind != WARM_BASE || w->puts[at[b]].visible_at + HOUR_MS > w->now)
			continue;
		for (size_t c = 0; c < base->n_covered; c++)
			for (size_t i = 0; i < n; i++) {
				if (warm_id_compare(listed[i].name.id, base->covered[c]) != 0)
					continue;
				if (dies && roll_below(&w->dice, 4) == 0)
					return;
				w->puts[at[i]].deleted = true;
			}
	}
}

static void check_world(struct world *w, int step)
{
	static struct warm_layer listed[MAX_LAYERS];
	static size_t at[MAX_LAYERS];
	scope_state struct warm_state s = { 0 }, other = { 0 };

	for (size_t i = 0; i < w->n; i++) {
		const struct warm_index *x = w->puts[i].layer.index;
		if (w->puts[i].visible_at > w->now)
			continue;
		for (size_t g = 0; g < x->n_groups; g++)
			for (size_t k = 0; k < NAMES; k++)
				if (strcmp(x->groups[g].name, names[k]) == 0 &&
				    warm_id_compare(x->groups[g].origin, w->newest_origin[k]) > 0)
					w->newest_origin[k] = x->groups[g].origin;
	}
	size_t n = list(w, listed, at);
	assert_int_equal(warm_state_build(listed, n, &s, NULL), 0);
	char *one = describe(listed, &s);
	for (size_t k = 0; k < NAMES; k++) {
		const struct warm_live *live = warm_state_find(&s, names[k]);
		bool ever = !warm_id_is_none(w->newest_origin[k]);
		if (ever != (live != NULL) ||
		    (ever && warm_id_compare(live->group->origin, w->newest_origin[k]) != 0))
			fail_msg("seed %" PRIu64 " step %d: group %s is lost or old: %s", w->seed,
				 step, names[k], one);
	}
	for (size_t i = n; i > 1; i--) {
		size_t k = roll_below(&w->dice, i);
		struct warm_layer swap = listed[i - 1];
		listed[i - 1] = listed[k];
		listed[k] = swap;
	}
	assert_int_equal(warm_state_build(listed, n, &other, NULL), 0);
	char *two = describe(listed, &other);
	if (strcmp(one, two) != 0)
		fail_msg("seed %" PRIu64 " step %d: %s, or in another order %s", w->seed, step, one,
			 two);
	free(one);
	free(two);
}

TEST(in_no_history_a_group_is_lost)
{
	for (size_t k = 0; k < NAMES; k++) {
		snprintf(names[k], sizeof(names[k]), "g%zu", k);
		for (size_t i = 0; i < MAX_FILES; i++)
			snprintf(paths[k][i], sizeof(paths[k][i]), "g%zu/%zu", k, i);
	}
	for (uint64_t seed = 1; seed <= HISTORIES; seed++) {
		struct world *w = calloc(1, sizeof(*w));
		assert_non_null(w);
		w->seed = seed;
		w->dice.state = seed * 1000003;
		w->now = 1700000000000;
		for (size_t i = 0; i < WRITERS; i++)
			w->skew[i] = (int64_t)roll_below(&w->dice, 2 * HOUR_MS) - HOUR_MS;
		for (int step = 0; step < STEPS; step++) {
			w->now += (int64_t)roll_below(&w->dice, HOUR_MS / 3);
			switch (roll_below(&w->dice, 8)) {
			case 0:
			case 1: /* base put; nothing deleted until some collect() */
				compact(w);
				break;
			case 2: /* two at once, from the same list */
				compact(w);
				compact(w);
				break;
			case 3:
				collect(w);
				break;
			default:
				publish(w);
			}
			check_world(w, step);
		}
		w->now += 3 * HOUR_MS; /* all that was put is listed */
		check_world(w, STEPS);
		collect(w);
		check_world(w, STEPS + 1);
		for (size_t i = 0; i < w->n; i++)
			warm_index_free(w->puts[i].layer.index);
		free(w);
	}
}

TEST(readers_agree_whatever_the_order_also_where_paths_are_shared)
{
	static const char *const shared[] = { "p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7" };
	static const char *const group_names[] = { "a", "b",   "c",   "d",   "e",
						   "f", "g@1", "g@2", "h@1", "h@2" };

	for (uint64_t seed = 1; seed <= 500; seed++) {
		struct dice d = { seed };
		struct warm_layer l[6];
		size_t n = 1 + roll_below(&d, COUNT(l));
		for (size_t i = 0; i < n; i++) {
			struct spec_group groups[5] = { 0 };
			size_t n_groups = 1 + roll_below(&d, COUNT(groups));
			struct warm_id id = id_of(100 + 10 * i + roll_below(&d, 10));
			bool base = roll_below(&d, 3) == 0, used[COUNT(group_names)] = { false };
			for (size_t g = 0; g < n_groups; g++) {
				size_t name = roll_below(&d, COUNT(group_names));
				while (used[name])
					name = (name + 1) % COUNT(group_names);
				used[name] = true;
				groups[g].name = group_names[name];
				if (name >= 6)
					groups[g].bound = 1 + name % 2;
				if (base)
					groups[g].origin = id_of(50 + roll_below(&d, 50));
				size_t first = roll_below(&d, COUNT(shared)),
				       files = 1 + roll_below(&d, 2);
				for (size_t k = 0; k < files && first + k < COUNT(shared); k++)
					groups[g].paths[k] = shared[first + k];
			}
			l[i] = make_layer(base ? WARM_BASE : WARM_LAYER, id, groups, n_groups, NULL,
					  0);
		}
		scope_state struct warm_state s = { 0 };
		assert_int_equal(warm_state_build(l, n, &s, NULL), 0);
		char *want = describe(l, &s);
		/* No path twice, unless for two CPUs. */
		for (size_t i = 0; i < s.n_live; i++)
			for (size_t k = 0; k < i; k++) {
				const struct warm_group *a = s.live[i].group, *b = s.live[k].group;
				if (a->bound != 0 && b->bound != 0 && a->bound != b->bound)
					continue;
				for (size_t x = 0; x < a->n_files; x++)
					for (size_t y = 0; y < b->n_files; y++)
						assert_string_not_equal(
							l[s.live[i].layer]
								.index->files[a->first_file + x]
								.path,
							l[s.live[k].layer]
								.index->files[b->first_file + y]
								.path);
			}
		assert_state(l, n, want);
		free(want);
		release(l, n);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_layers_hold_nothing),
		cmocka_unit_test(the_union_of_layers_counts),
		cmocka_unit_test(of_the_same_group_the_newest_origin_wins),
		cmocka_unit_test(of_equal_origins_the_newest_layer_wins),
		cmocka_unit_test(a_group_is_taken_whole_and_never_merged),
		cmocka_unit_test(what_a_listed_base_covers_does_not_count),
		cmocka_unit_test(a_base_that_is_not_listed_or_not_read_covers_nothing),
		cmocka_unit_test(only_a_base_covers),
		cmocka_unit_test(a_base_that_covers_itself_still_counts),
		cmocka_unit_test(a_covered_base_covers_still_what_it_covered),
		cmocka_unit_test(of_two_groups_that_share_a_path_the_newest_wins),
		cmocka_unit_test(a_group_that_lost_takes_nothing_with_it),
		cmocka_unit_test(groups_of_one_layer_that_share_a_path_leave_one),
		cmocka_unit_test(copies_bound_to_two_cpus_live_side_by_side),
		cmocka_unit_test(a_group_inside_anothers_file_is_a_conflict),
		cmocka_unit_test(in_no_history_a_group_is_lost),
		cmocka_unit_test(readers_agree_whatever_the_order_also_where_paths_are_shared),
	};

	return RUN(tests);
}
