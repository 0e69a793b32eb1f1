/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/sync/compact.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/base/file.h"
#include "lib/base/hash.h"
#include "lib/base/parallel.h"
#include "lib/layer/pack.h"
#include "lib/sync/fetch.h"

enum { DEFAULT_LEVEL = 9, HOUR_MS = 3600 * 1000 };

#define COVERED_MS (90ull * 24 * HOUR_MS)

struct compaction {
	const struct warm_compact_options *o;
	const struct warm_call *call;
	struct warm_compact_report *report;
	struct warm_catalog catalog;
	struct warm_state state;
	int parent_fd; /* of the work directory */
	int work_fd;
	char work[40];
	struct warm_fetch_item *items;
	size_t n_items;
	char (*dirs)[40]; /* of the items */
};

/* ---- the base ---- */

/* Read the layers that `wanted` chooses to their ends; those that can't be verified lose their
 * index, and with it count as not there. `counts`: they weren't reported before. */
static int verify_layers(struct compaction *c, bool (*wanted)(const struct warm_layer *),
			 bool counts, struct warm_error *err)
{
	size_t n = c->catalog.n_layers;
	scope_free bool *want = calloc(n + 1, sizeof(*want));
	scope_free bool *bad = calloc(n + 1, sizeof(*bad));

	if (want == NULL || bad == NULL)
		return warm_error_nomem(err, n);
	for (size_t i = 0; i < n; i++)
		want[i] = c->catalog.layers[i].index != NULL && wanted(&c->catalog.layers[i]);
	struct warm_fetch fetch = {
		.store = c->o->store,
		.layers = c->catalog.layers,
		.n_layers = n,
		.dir_fd = -1,
		.all_frames = true,
		.wanted = want,
		.layer_bad = bad,
		.notices = c->o->notices,
	};
	struct warm_fetch_result result;
	int rc = warm_fetch_run(&fetch, &result, c->call, err);
	if (rc != 0 && rc != WARM_CORRUPT && rc != WARM_NOT_FOUND)
		return rc;
	for (size_t i = 0; i < n; i++)
		if (bad[i]) {
			warm_index_free(c->catalog.layers[i].index);
			c->catalog.layers[i].index = NULL;
			c->report->bad += counts;
		}
	return 0;
}

static bool is_uncovered(const struct warm_layer *layer)
{
	return !layer->covered;
}

static bool is_base(const struct warm_layer *layer)
{
	return layer->name.kind == WARM_BASE;
}

/* Unpack the live groups, by layer and by what they are bound to, since copies for two CPUs share
 * their paths. */
static int unpack_groups(struct compaction *c, struct warm_error *err)
{
	size_t n = c->catalog.n_layers;

	c->dirs = calloc(c->state.n_live + 1, sizeof(*c->dirs));
	c->items = calloc(c->state.n_live + 1, sizeof(*c->items));
	if (c->dirs == NULL || c->items == NULL)
		return warm_error_nomem(err, c->state.n_live * sizeof(*c->items));
	for (size_t i = 0; i < c->state.n_live; i++) {
		const struct warm_live *live = &c->state.live[i];
		snprintf(c->dirs[i], sizeof(c->dirs[i]), "%u-%016llx", live->layer,
			 (unsigned long long)live->group->bound);
		c->items[i] = (struct warm_fetch_item){ live->layer, live->group, c->dirs[i],
							false };
	}
	c->n_items = c->state.n_live;
	struct warm_fetch fetch = {
		.store = c->o->store,
		.layers = c->catalog.layers,
		.n_layers = n,
		.items = c->items,
		.n_items = c->n_items,
		.dir_fd = c->work_fd,
		.atime_ns = warm_clock_wall_ms() * 1000000,
		.notices = c->o->notices,
	};
	struct warm_fetch_result result;
	return warm_fetch_run(&fetch, &result, c->call, err);
}

static int add_group(struct compaction *c, struct warm_pack *pack,
		     const struct warm_fetch_item *item, struct warm_error *err)
{
	const struct warm_group *g = item->group;
	const struct warm_index *index = c->catalog.layers[item->layer].index;
	scope_free struct warm_pack_file *files = calloc(g->n_files + 1, sizeof(*files));
	scope_free char(*sources)[WARM_PATH_BYTES + 48] = calloc(g->n_files + 1, sizeof(*sources));

	if (files == NULL || sources == NULL)
		return warm_error_nomem(err, g->n_files * sizeof(*sources));
	for (size_t i = 0; i < g->n_files; i++) {
		const struct warm_file *f = &index->files[g->first_file + i];
		snprintf(sources[i], sizeof(sources[i]), "%s/%s", item->below, f->path);
		files[i] = (struct warm_pack_file){ f->path, sources[i], NULL, f->mtime_ns };
	}
	struct warm_pack_group group = {
		.name = g->name,
		.profile = g->profile,
		.origin = g->origin,
		.bound = g->bound,
		.flags = g->flags,
		.dir_fd = c->work_fd,
		.files = files,
		.n_files = g->n_files,
	};
	return warm_pack_add(pack, &group, c->call, err);
}

static int compare_ids(const void *a, const void *b)
{
	return warm_id_compare(*(const struct warm_id *)a, *(const struct warm_id *)b);
}

/* An id that a folded base covers: kept as long as its object may still be somewhere. What LIST
 * has no more and is long gone would only make every base longer than the last. */
static bool still_counts(const struct compaction *c, struct warm_id id)
{
	for (size_t i = 0; i < c->catalog.n_layers; i++)
		if (warm_id_compare(c->catalog.layers[i].name.id, id) == 0)
			return true;
	return id.ms + COVERED_MS > c->catalog.newest.ms;
}

static bool is_folded(const struct warm_layer *l)
{
	return l->index != NULL && !l->covered;
}

/* All that the base covers: the layers folded, and what those among them that are bases cover;
 * sorted. */
static int cover_ids(struct compaction *c, struct warm_id **ret_ids, size_t *ret_n,
		     struct warm_error *err)
{
	size_t most = 0, n = 0, kept = 0;

	for (size_t i = 0; i < c->catalog.n_layers; i++)
		if (is_folded(&c->catalog.layers[i]))
			most += 1 + c->catalog.layers[i].index->n_covered;
	struct warm_id *ids = calloc(most + 1, sizeof(*ids));
	if (ids == NULL)
		return warm_error_nomem(err, most * sizeof(*ids));
	for (size_t i = 0; i < c->catalog.n_layers; i++) {
		const struct warm_layer *l = &c->catalog.layers[i];
		if (!is_folded(l))
			continue;
		ids[n++] = l->name.id;
		for (size_t k = 0; k < l->index->n_covered; k++)
			if (still_counts(c, l->index->covered[k]))
				ids[n++] = l->index->covered[k];
		c->report->folded++;
	}
	if (n > 1)
		qsort(ids, n, sizeof(*ids), compare_ids);
	for (size_t i = 0; i < n; i++)
		if (kept == 0 || warm_id_compare(ids[kept - 1], ids[i]) != 0)
			ids[kept++] = ids[i];
	*ret_ids = ids;
	*ret_n = kept;
	return 0;
}

static int make_base(struct compaction *c, struct warm_error *err)
{
	scope_free struct warm_id *covered = NULL;
	scope_pack struct warm_pack *pack = NULL;
	size_t n_covered = 0;
	struct warm_layer_name name;
	uint64_t bytes = 0;

	int rc = cover_ids(c, &covered, &n_covered, err);
	if (rc != 0)
		return rc;
	scope_close int spool = openat(c->work_fd, "base", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC,
				       0600);
	if (spool < 0)
		return warm_error_errno(err, errno, "%s: make the spool", c->o->work_dir);
	rc = warm_pack_open(spool, c->o->level != 0 ? c->o->level : DEFAULT_LEVEL, UINT64_MAX,
			    warm_cpus(), &pack, err);
	for (size_t i = 0; rc == 0 && i < c->n_items; i++) {
		const struct warm_fetch_item *item = &c->items[i];
		if (!item->done)
			return warm_error_set(err, WARM_IO, "%s: group %s could not be unpacked",
					      c->o->work_dir, item->group->name);
		rc = add_group(c, pack, item, err);
	}
	if (rc != 0)
		return rc;
	c->report->groups = warm_pack_groups(pack);
	struct warm_pack_meta meta = {
		.kind = WARM_BASE,
		/* After all that it covers, and not newer than that: versions are ordered by it. */
		.id = warm_id_new(c->catalog.newest, 0),
		.key = &c->o->key,
		.created_ms = warm_clock_wall_ms(),
		.mount = c->catalog.layers[0].index != NULL ? c->catalog.layers[0].index->mount
							    : "",
		.complete = warm_catalog_complete(&c->catalog),
		.covered = covered,
		.n_covered = n_covered,
	};
	rc = warm_pack_finish(pack, &meta, &name, &bytes, err);
	if (rc != 0)
		return rc;
	warm_layer_name_format(&c->o->key, &name, c->report->base);
	rc = warm_store_put(c->o->store, c->report->base, spool, bytes, c->call, err);
	if (rc != 0)
		c->report->base[0] = '\0';
	c->report->bytes = bytes;
	return rc;
}

/* ---- deletion ---- */

/* Whether a base of the list that is old enough covers `id`. */
static bool may_delete(const struct compaction *c, struct warm_id id)
{
	int64_t age = c->o->min_age_ms != 0 ? c->o->min_age_ms : HOUR_MS;

	for (size_t i = 0; i < c->catalog.n_layers; i++) {
		const struct warm_layer *b = &c->catalog.layers[i];
		if (b->index == NULL || b->index->kind != WARM_BASE || b->modified_ms < 0 ||
		    c->catalog.now_ms < 0 || c->catalog.now_ms - b->modified_ms < age ||
		    warm_id_compare(b->name.id, id) == 0)
			continue;
		for (size_t k = 0; k < b->index->n_covered; k++)
			if (warm_id_compare(b->index->covered[k], id) == 0)
				return true;
	}
	return false;
}

static int delete_covered(struct compaction *c, struct warm_error *err)
{
	/* A fresh LIST: what was read for the base may be gone or covered anew. */
	int rc = warm_catalog_list(&c->catalog, c->o->store, &c->o->key, true, c->call, err);

	if (rc == 0)
		rc = warm_catalog_read(&c->catalog, c->o->store, c->o->notices, c->call, err);
	bool any = false;
	for (size_t i = 0; rc == 0 && i < c->catalog.n_layers; i++)
		any = any || may_delete(c, c->catalog.layers[i].name.id);
	if (rc == 0 && any)
		rc = verify_layers(c, is_base, false,
				   err); /* before anything that they cover goes */
	warm_state_cover(c->catalog.layers, c->catalog.n_layers);
	for (size_t i = 0; rc == 0 && i < c->catalog.n_layers; i++) {
		const struct warm_layer *l = &c->catalog.layers[i];
		if (!may_delete(c, l->name.id)) {
			c->report->kept += l->covered;
			continue;
		}
		rc = warm_store_delete(c->o->store, l->object, c->call, err);
		if (rc == 0)
			c->report->deleted++;
	}
	return rc;
}

static int open_work(struct compaction *c, struct warm_error *err)
{
	uint64_t random;

	warm_random(&random, sizeof(random));
	snprintf(c->work, sizeof(c->work), ".warm-compact-%016llx", (unsigned long long)random);
	c->parent_fd = open(c->o->work_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (c->parent_fd < 0)
		return warm_error_errno(err, errno, "work directory %s", c->o->work_dir);
	if (mkdirat(c->parent_fd, c->work, 0700) != 0)
		return warm_error_errno(err, errno, "work directory %s", c->o->work_dir);
	c->work_fd = openat(c->parent_fd, c->work, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (c->work_fd < 0)
		return warm_error_errno(err, errno, "work directory %s", c->o->work_dir);
	return 0;
}

/* Enough layers, or what two compactors left that worked at once: two bases. */
static bool worth_folding(const struct compaction *c, size_t least)
{
	size_t n = 0, bases = 0;

	for (size_t i = 0; i < c->catalog.n_layers; i++) {
		n += is_folded(&c->catalog.layers[i]);
		bases += is_folded(&c->catalog.layers[i]) && is_base(&c->catalog.layers[i]);
	}
	return n >= least || bases >= 2;
}

static int run(struct compaction *c, struct warm_error *err)
{
	size_t least = c->o->min_layers != 0 ? c->o->min_layers : 2;
	int rc = warm_catalog_list(&c->catalog, c->o->store, &c->o->key, false, c->call, err);

	if (rc == 0)
		rc = warm_catalog_read(&c->catalog, c->o->store, c->o->notices, c->call, err);
	c->report->bad = c->catalog.refused;
	for (size_t bad = SIZE_MAX; rc == 0 && c->catalog.n_layers >= 2 && bad != c->report->bad;) {
		/* A base that turns out bad uncovers others: until all that counts is verified. */
		bad = c->report->bad;
		rc = verify_layers(c, is_uncovered, true, err);
		warm_state_cover(c->catalog.layers, c->catalog.n_layers);
	}
	/* After that, since a group whose newest copy is bad lives on in an older one. */
	if (rc == 0)
		rc = warm_state_build(c->catalog.layers, c->catalog.n_layers, &c->state, err);
	if (rc == 0 && worth_folding(c, least)) {
		rc = open_work(c, err);
		if (rc == 0)
			rc = unpack_groups(c, err);
		if (rc == 0)
			rc = make_base(c, err);
	}
	if (rc == 0)
		rc = delete_covered(c, err);
	return rc;
}

int warm_compact_run(const struct warm_compact_options *options, const struct warm_call *call,
		     struct warm_compact_report *ret_report, struct warm_error *err)
{
	struct compaction c = {
		.o = options,
		.call = call,
		.report = ret_report,
		.parent_fd = -1,
		.work_fd = -1,
	};

	*ret_report = (struct warm_compact_report){ 0 };
	int rc = run(&c, err);
	if (c.work_fd >= 0)
		close(c.work_fd);
	if (c.parent_fd >= 0) {
		if (c.work[0] != '\0' && warm_tree_remove(c.parent_fd, c.work, NULL) != 0)
			warm_notice(options->notices, "work-directory", "%s/%s can't be removed",
				    options->work_dir, c.work);
		close(c.parent_fd);
	}
	warm_state_release(&c.state);
	warm_catalog_release(&c.catalog);
	free(c.items);
	free(c.dirs);
	return rc;
}
