/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/sync/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <time.h>

#include "lib/base/hash.h"
#include "lib/sync/fetch.h"
#include "lib/sync/quarantine.h"

#define STAGE WARM_DIR "/stage"

enum {
	FALLBACK_LOOKS = 8,	 /* versions whose marks are read, newest first */
	FALLBACK_MS = 10 * 1000, /* the most that the search for one may take */
};

const char *warm_restore_status_name(enum warm_restore_status status)
{
	static const char *const names[] = { "warm", "fallback", "partial", "cold", "error" };

	return names[status];
}

/* Where a wanted group comes from. */
struct wanted {
	const struct warm_group *group;
	const struct warm_catalog *catalog;
	uint32_t layer; /* in its catalog */
	bool fallback;
	bool fetched;
	bool theirs; /* the model made it while we were at work: it stays its own */
};

struct restore {
	const struct warm_restore_options *o;
	const struct warm_call *call;
	struct warm_restore_result *result;
	int volume_fd;
	int stage_fd, lock_fd;
	char stage[64]; /* its name below the volume */
	uint64_t mount_hash;
	struct warm_ledger ledger, quarantine;
	struct warm_catalog own, other;
	struct warm_state own_state, other_state;
	struct wanted *wanted;
	size_t n_wanted;
	int64_t atime_ns;
	char absent[WARM_PATH_BYTES]; /* a directory that the volume lacks; see exists() */
	size_t skipped_mount, skipped_cpu, skipped_quarantine, limited;
};

static void release(struct restore *r)
{
	warm_state_release(&r->own_state);
	warm_state_release(&r->other_state);
	warm_catalog_release(&r->own);
	warm_catalog_release(&r->other);
	warm_ledger_release(&r->ledger);
	warm_ledger_release(&r->quarantine);
	free(r->wanted);
	if (r->stage_fd >= 0)
		close(r->stage_fd);
	if (r->lock_fd >= 0)
		close(r->lock_fd);
	if (r->volume_fd >= 0)
		close(r->volume_fd);
}

static const struct warm_index *index_of(const struct wanted *w)
{
	return w->catalog->layers[w->layer].index;
}

/* ---- the volume ---- */

/* Files restored under another boot may have lost their bytes: all goes. Each root is moved aside
 * first, so that a run that is cut off leaves it whole or gone. */
static int drop_caches(struct restore *r, const char *why, struct warm_error *err)
{
	const char *root;
	char aside[64];

	warm_notice(r->o->notices, "volume-dropped", "%s: the caches in the volume are removed",
		    why);
	int rc = warm_beneath_mkdirs(r->volume_fd, STAGE, err);
	for (size_t i = 0; rc == 0 && (root = warm_profile_root(r->o->roots, i)) != NULL; i++) {
		const char *name = NULL;
		scope_close int parent = -1;
		uint64_t random;
		warm_random(&random, sizeof(random));
		snprintf(aside, sizeof(aside), STAGE "/old-%016llx", (unsigned long long)random);
		if (warm_beneath_parent(r->volume_fd, root, &parent, &name, NULL) != 0)
			continue;
		if (renameat(parent, name, r->volume_fd, aside) == 0 || errno == ENOENT)
			continue;
		if (errno == ENOTDIR)
			continue;
		/* A mount point, or a directory of somebody else's: in place then. */
		rc = warm_tree_remove(parent, name, err);
	}
	for (size_t i = 0; rc == 0 && i < r->ledger.n_groups; i++)
		for (size_t k = 0; k < r->ledger.groups[i].n_files; k++) {
			const char *path = r->ledger.groups[i].files[k].path, *name = NULL;
			scope_close int parent = -1;
			if (warm_path_check(path, strlen(path), NULL) == 0 &&
			    warm_beneath_parent(r->volume_fd, path, &parent, &name, NULL) == 0)
				unlinkat(parent, name, 0);
		}
	if (rc != 0)
		return rc;
	warm_ledger_release(&r->ledger);
	warm_ledger_init(&r->ledger);
	return warm_ledger_save(&r->ledger, r->volume_fd, err);
}

/* One restore a volume at a time, however many pods share it. The lock ends with its holder. */
static int lock_volume(struct restore *r, struct warm_error *err)
{
	struct timespec nap = { .tv_nsec = 50 * 1000000 };
	bool told = false;
	int rc = warm_beneath_open(r->volume_fd, WARM_DIR "/lock", O_RDWR | O_CREAT, 0666,
				   &r->lock_fd, err);

	if (rc != 0)
		return rc;
	while (flock(r->lock_fd, LOCK_EX | LOCK_NB) != 0) {
		if (errno == ENOSYS || errno == EOPNOTSUPP || errno == ENOLCK)
			return 0; /* a file system without locks */
		if (errno != EWOULDBLOCK && errno != EINTR)
			return warm_error_errno(err, errno, "lock");
		if (!told)
			warm_notice(r->o->notices, "locked", "another restore is at work in %s",
				    r->o->volume);
		told = true;
		rc = warm_call_check(r->call, err);
		if (rc != 0)
			return rc;
		nanosleep(&nap, NULL);
	}
	return 0;
}

/* Below .warmcache, which may be anything by now: the model can write there. */
static int remove_stage(struct restore *r, struct warm_error *err)
{
	scope_close int dir = -1;
	int rc = warm_beneath_open(r->volume_fd, WARM_DIR, O_RDONLY | O_DIRECTORY, 0, &dir, err);

	return rc != 0 ? rc : warm_tree_remove(dir, "stage", err);
}

/* Temporary files of ledgers and spools whose writers were killed. */
static void remove_scraps(const struct restore *r)
{
	int fd = -1;

	if (warm_beneath_open(r->volume_fd, WARM_DIR, O_RDONLY | O_DIRECTORY, 0, &fd, NULL) != 0)
		return;
	scope_closedir DIR *dir = fdopendir(fd);
	if (dir == NULL) {
		close(fd);
		return;
	}
	struct dirent *e;
	while ((e = readdir(dir)) != NULL)
		if (strncmp(e->d_name, "ledger.tmp-", 11) == 0 ||
		    strncmp(e->d_name, "result.tmp-", 11) == 0 ||
		    strncmp(e->d_name, "spool-", 6) == 0 || strncmp(e->d_name, "atime-", 6) == 0)
			unlinkat(fd, e->d_name, 0);
}

static int open_volume(struct restore *r, struct warm_error *err)
{
	r->volume_fd = open(r->o->volume, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r->volume_fd < 0)
		return warm_error_errno(err, errno, "volume %s", r->o->volume);
	char mount[WARM_PATH_BYTES];
	if (r->o->mount != NULL)
		snprintf(mount, sizeof(mount), "%s", r->o->mount);
	else if (realpath(r->o->volume, mount) == NULL)
		return warm_error_errno(err, errno, "volume %s", r->o->volume);
	r->mount_hash = warm_mount_hash(mount);
	if (r->o->dry_run) {
		int rc = warm_ledger_load(&r->ledger, r->volume_fd, NULL);
		return rc == WARM_NO_MEMORY ? warm_error_nomem(err, 0) : 0;
	}
	int rc = warm_beneath_mkdirs(r->volume_fd, WARM_DIR, err);
	if (rc != 0) {
		warm_error_context(err, "volume %s", r->o->volume);
		return rc;
	}
	rc = lock_volume(r, err);
	/* What an earlier run left in the stage goes first: it may hold what was moved aside. */
	if (rc == 0)
		rc = remove_stage(r, err);
	remove_scraps(r);
	if (rc == 0)
		rc = warm_ledger_load(&r->ledger, r->volume_fd, err);
	if (rc == WARM_CORRUPT) {
		char why[sizeof(err->msg)];
		snprintf(why, sizeof(why), "%s", err->msg);
		rc = drop_caches(r, why, err);
	} else if (rc == WARM_NOT_FOUND) {
		/* From here on a restart of the node can be told, also if this start is cold. */
		rc = warm_ledger_save(&r->ledger, r->volume_fd, err);
	} else if (rc == 0 && !warm_ledger_of_this_boot(&r->ledger)) {
		rc = drop_caches(r, "the node was restarted since the last restore", err);
	}
	if (rc == 0)
		rc = remove_stage(r, err);
	if (rc == 0)
		rc = warm_quarantine_load(&r->quarantine, r->volume_fd, err);
	if (rc != 0)
		warm_error_context(err, "volume %s", r->o->volume);
	return rc;
}

static int open_stage(struct restore *r, struct warm_error *err)
{
	uint64_t random;

	warm_random(&random, sizeof(random));
	snprintf(r->stage, sizeof(r->stage), STAGE "/%016llx", (unsigned long long)random);
	int rc = warm_beneath_mkdirs(r->volume_fd, r->stage, err);
	if (rc == 0)
		rc = warm_beneath_open(r->volume_fd, r->stage, O_RDONLY | O_DIRECTORY, 0,
				       &r->stage_fd, err);
	return rc;
}

/* ---- what is wanted ---- */

static bool usable_here(struct restore *r, const struct warm_group *g)
{
	if ((g->flags & WARM_GROUP_CPU_BOUND) != 0 &&
	    (warm_cpu_hash() == 0 || g->bound != warm_cpu_hash())) {
		r->skipped_cpu++;
		return false;
	}
	if ((g->flags & WARM_GROUP_MOUNT_BOUND) != 0 && g->bound != r->mount_hash) {
		r->skipped_mount++;
		return false;
	}
	return true;
}

/* Under suspicion here: not again, until another copy of it is published. */
static bool in_quarantine(struct restore *r, const struct warm_group *g)
{
	const struct warm_ledger_group *held = warm_ledger_find(&r->quarantine, g->name);

	if (held == NULL || warm_id_compare(held->origin, g->origin) != 0)
		return false;
	r->skipped_quarantine++;
	return true;
}

static bool is_mutable(const struct wanted *w)
{
	return (w->group->flags & WARM_GROUP_MUTABLE) != 0;
}

static void want(struct restore *r, const struct warm_catalog *catalog,
		 const struct warm_live *live, bool fallback)
{
	r->wanted[r->n_wanted++] = (struct wanted){
		.group = live->group,
		.catalog = catalog,
		.layer = live->layer,
		.fallback = fallback,
	};
}

/* Take out of a state what is not for this CPU, mount path or lack of a version. */
static void keep_usable(struct restore *r, struct warm_state *state, bool self_keyed_only)
{
	size_t kept = 0;

	for (size_t i = 0; i < state->n_live; i++) {
		const struct warm_group *g = state->live[i].group;
		if (self_keyed_only && (g->flags & WARM_GROUP_SELF_KEYED) == 0)
			continue;
		if (usable_here(r, g) && !in_quarantine(r, g))
			state->live[kept++] = state->live[i];
	}
	state->n_live = kept;
}

/* The version to fall back on: the newest complete one, else the newest. What was read of it on
 * the way is in r->other. */
static int find_fallback(struct restore *r, struct warm_key *ret_key, bool *ret_found,
			 struct warm_error *err)
{
	char prefix[WARM_NAME_BYTES];
	scope_free struct warm_listed_key *keys = NULL;
	size_t n = 0, looks = 0;
	const struct warm_listed_key *pick = NULL;

	*ret_found = false;
	warm_key_model_prefix(&r->o->key, prefix);
	int rc = warm_catalog_keys(r->o->store, prefix, &keys, &n, NULL, r->call, err);
	if (rc == WARM_NOT_FOUND)
		return 0;
	if (rc != 0)
		return rc;
	if (r->o->fallback == WARM_FALLBACK_VERSIONS) {
		for (size_t v = 0; pick == NULL && v < r->o->n_versions; v++)
			for (size_t i = 0; pick == NULL && i < n; i++)
				if (strcmp(keys[i].key.version, r->o->versions[v]) == 0 &&
				    strcmp(keys[i].key.platform, r->o->key.platform) == 0 &&
				    !warm_key_equal(&keys[i].key, &r->o->key))
					pick = &keys[i];
	} else {
		bool complete = false;
		for (size_t i = 0; !complete && i < n && looks < FALLBACK_LOOKS; i++) {
			if (strcmp(keys[i].key.platform, r->o->key.platform) != 0 ||
			    warm_key_equal(&keys[i].key, &r->o->key))
				continue;
			looks++;
			scope_catalog struct warm_catalog c = { 0 };
			rc = warm_catalog_list(&c, r->o->store, &keys[i].key, false, r->call, err);
			if (rc == 0)
				rc = warm_catalog_read(&c, r->o->store, NULL, r->call, err);
			if (rc != 0)
				return rc;
			complete = warm_catalog_complete(&c) != NULL;
			if (pick != NULL && !complete)
				continue;
			pick = &keys[i];
			warm_catalog_release(&r->other);
			r->other = c;
			c = (struct warm_catalog){ 0 };
		}
	}
	if (pick != NULL) {
		*ret_key = pick->key;
		*ret_found = true;
	}
	return 0;
}

static int load_catalog(struct restore *r, struct warm_catalog *catalog, const struct warm_key *key,
			struct warm_state *state, struct warm_error *err)
{
	int64_t start = warm_clock_ms();
	int rc = catalog->n_layers > 0
			 ? 0 /* read already */
			 : warm_catalog_list(catalog, r->o->store, key, false, r->call, err);

	r->result->list_ms += warm_clock_ms() - start;
	start = warm_clock_ms();
	if (rc == 0)
		rc = warm_catalog_read(catalog, r->o->store, r->o->notices, r->call, err);
	if (rc == 0 && catalog->refused > 0) {
		/* Perhaps compacted between the LIST and the read: look once more. */
		rc = warm_catalog_list(catalog, r->o->store, key, false, r->call, err);
		if (rc == 0)
			rc = warm_catalog_read(catalog, r->o->store, NULL, r->call, err);
	}
	if (rc == 0) {
		warm_state_release(state);
		rc = warm_state_build(catalog->layers, catalog->n_layers, state, err);
	}
	r->result->index_ms += warm_clock_ms() - start;
	return rc;
}

static int choose(struct restore *r, struct warm_error *err)
{
	bool self_keyed_only = r->o->key.version[0] == '\0';
	struct warm_key other;
	bool found = false;
	int rc = load_catalog(r, &r->own, &r->o->key, &r->own_state, err);

	if (rc != 0)
		return rc;
	r->result->complete = warm_catalog_complete(&r->own) != NULL;
	keep_usable(r, &r->own_state, self_keyed_only);
	if (!r->result->complete && r->o->fallback != WARM_FALLBACK_NONE &&
	    r->o->key.version[0] != '\0') {
		/* It may take half of the time: what is the pod's own comes first. */
		int64_t start = warm_clock_ms();
		const struct warm_call *outer = r->call;
		struct warm_call half = { .outer = outer };
		half.deadline_ms = start + warm_call_left_ms(outer, 2 * FALLBACK_MS) / 2 + 1;
		r->call = &half;
		rc = find_fallback(r, &other, &found, err);
		r->result->list_ms += warm_clock_ms() - start;
		if (rc == 0 && found)
			rc = load_catalog(r, &r->other, &other, &r->other_state, err);
		r->call = outer;
		if (rc == WARM_CANCELED && warm_call_check(outer, NULL) == 0)
			rc = warm_error_set(err, WARM_TRANSIENT,
					    "%s is too slow to look for another version",
					    warm_store_url(r->o->store));
		if (rc == WARM_CANCELED || rc == WARM_NO_MEMORY)
			return rc;
		if (rc != 0) {
			warm_notice(r->o->notices, "fallback", "%s",
				    err != NULL ? err->msg : "not to be had");
			found = false;
			warm_state_release(&r->other_state);
			warm_catalog_release(&r->other);
		}
	}
	if (found) {
		keep_usable(r, &r->other_state, true);
		rc = warm_state_subtract(&r->other_state, r->other.layers, &r->own_state,
					 r->own.layers, err);
		if (rc != 0)
			return rc;
	}
	size_t n = r->own_state.n_live + (found ? r->other_state.n_live : 0);
	r->wanted = calloc(n + 1, sizeof(*r->wanted));
	if (r->wanted == NULL)
		return warm_error_nomem(err, n * sizeof(*r->wanted));
	for (size_t i = 0; i < r->own_state.n_live; i++)
		want(r, &r->own, &r->own_state.live[i], false);
	size_t own = r->n_wanted;
	for (size_t i = 0; found && i < r->other_state.n_live; i++)
		want(r, &r->other, &r->other_state.live[i], true);
	if (r->n_wanted > own)
		snprintf(r->result->fallback_version, sizeof(r->result->fallback_version), "%s",
			 other.version);
	return 0;
}

/* ---- what is there ---- */

enum presence { ABSENT, PRESENT, BUSY };

/* Is it there? In an empty volume most directories are not: one that was found absent answers
 * for all below it. */
static bool exists(struct restore *r, const char *path)
{
	struct stat st;
	size_t n = strlen(r->absent);

	if (n > 0 && strncmp(path, r->absent, n) == 0 && (path[n] == '/' || path[n] == '\0'))
		return false;
	if (fstatat(r->volume_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return true;
	for (const char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
		snprintf(r->absent, sizeof(r->absent), "%.*s", (int)(slash - path), path);
		if (fstatat(r->volume_fd, r->absent, &st, AT_SYMLINK_NOFOLLOW) != 0)
			return false;
	}
	r->absent[0] = '\0';
	return false;
}

/* PRESENT: every file is there. ABSENT: the group can be moved in. BUSY: part of it is there and
 * is not what an earlier restore put there: the model's own, which stays. */
static enum presence presence_of(struct restore *r, const struct wanted *w)
{
	const struct warm_index *index = index_of(w);
	const struct warm_ledger_group *planned = warm_ledger_find(&r->ledger, w->group->name);
	size_t there = 0;
	bool foreign = false;
	char unit[WARM_PATH_BYTES];

	for (size_t k = 0; k < w->group->n_files; k++)
		there += exists(r, index->files[w->group->first_file + k].path);
	if (there == w->group->n_files)
		return PRESENT;
	for (size_t k = 0; k < w->group->n_files; k++) {
		const char *path = index->files[w->group->first_file + k].path;
		size_t n = warm_group_unit(w->group->name, path);
		snprintf(unit, sizeof(unit), "%.*s", (int)n, path);
		if (!exists(r, unit))
			continue;
		/* One of several units is in: an earlier run was cut off between them, if the
		 * ledger knows this very file. */
		struct stat st;
		bool ours = false;
		if (planned != NULL && fstatat(r->volume_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0)
			for (size_t i = 0; i < planned->n_files; i++)
				ours = ours ||
				       (strcmp(planned->files[i].path, path) == 0 &&
					planned->files[i].size == (uint64_t)st.st_size &&
					planned->files[i].mtime_ns == warm_timespec_ns(st.st_mtim));
		foreign = foreign || !ours;
	}
	return foreign ? BUSY : ABSENT;
}

static uint64_t size_of(const struct wanted *w)
{
	const struct warm_index *index = index_of(w);
	uint64_t bytes = 0;

	for (size_t k = 0; k < w->group->n_files; k++)
		bytes += index->files[w->group->first_file + k].size;
	return bytes;
}

static uint64_t limit_bytes(struct restore *r)
{
	struct statvfs fs;

	if (r->o->max_bytes != 0)
		return r->o->max_bytes;
	if (fstatvfs(r->volume_fd, &fs) != 0)
		return UINT64_MAX;
	return (uint64_t)fs.f_bavail * fs.f_frsize / 2;
}

/* ---- fetching ---- */

static int fetch_catalog(struct restore *r, const struct warm_catalog *catalog, const bool *take,
			 struct warm_error *err)
{
	size_t n = 0;
	scope_free struct warm_fetch_item *items = calloc(r->n_wanted + 1, sizeof(*items));
	scope_free size_t *back = calloc(r->n_wanted + 1, sizeof(*back));

	if (items == NULL || back == NULL)
		return warm_error_nomem(err, r->n_wanted * sizeof(*items));
	for (size_t i = 0; i < r->n_wanted; i++) {
		const struct wanted *w = &r->wanted[i];
		if (!take[i] || w->catalog != catalog)
			continue;
		/* Mutable files wait apart: they go in last. */
		items[n] = (struct warm_fetch_item){ w->layer, w->group,
						     is_mutable(w) ? "late" : "groups", false };
		back[n++] = i;
	}
	if (n == 0)
		return 0;
	struct warm_fetch fetch = {
		.store = r->o->store,
		.layers = catalog->layers,
		.n_layers = catalog->n_layers,
		.items = items,
		.n_items = n,
		.dir_fd = r->stage_fd,
		.jobs = r->o->jobs,
		.atime_ns = r->atime_ns,
		.notices = r->o->notices,
		.progress = r->o->progress,
		.progress_arg = r->o->progress_arg,
	};
	struct warm_fetch_result fetched = { 0 };
	int rc = warm_fetch_run(&fetch, &fetched, r->call, err);
	r->result->fetched_bytes += fetched.fetched_bytes;
	for (size_t i = 0; i < n; i++)
		r->wanted[back[i]].fetched = items[i].done;
	return rc;
}

/* Take out of the stage what isn't whole, so that the stage holds whole groups only. */
static int clear_unfinished(struct restore *r, const bool *take, struct warm_error *err)
{
	char path[WARM_PATH_BYTES + 16];

	for (size_t i = 0; i < r->n_wanted; i++) {
		const struct wanted *w = &r->wanted[i];
		if (!take[i] || w->fetched)
			continue;
		for (size_t k = 0; k < w->group->n_files; k++) {
			const char *file = index_of(w)->files[w->group->first_file + k].path;
			size_t n = warm_group_unit(w->group->name, file);
			const char *name = NULL;
			scope_close int parent = -1;
			snprintf(path, sizeof(path), "%s/%.*s", is_mutable(w) ? "late" : "groups",
				 (int)n, file);
			if (warm_beneath_parent(r->stage_fd, path, &parent, &name, NULL) != 0)
				continue;
			int rc = warm_tree_remove(parent, name, err);
			if (rc != 0)
				return rc;
		}
	}
	return 0;
}

/* ---- moving in ---- */

static int plan_ledger(struct restore *r, const bool *take, struct warm_error *err)
{
	char key[3 * WARM_KEY_PART_BYTES + 3];

	for (size_t i = 0; i < r->n_wanted; i++) {
		const struct wanted *w = &r->wanted[i];
		const struct warm_index *index = index_of(w);
		if (!take[i] || !w->fetched)
			continue;
		scope_free struct warm_ledger_file *files = calloc(w->group->n_files + 1,
								   sizeof(*files));
		if (files == NULL)
			return warm_error_nomem(err, w->group->n_files * sizeof(*files));
		for (size_t k = 0; k < w->group->n_files; k++) {
			const struct warm_file *f = &index->files[w->group->first_file + k];
			files[k] = (struct warm_ledger_file){ (char *)(uintptr_t)f->path, f->size,
							      f->mtime_ns, r->atime_ns };
		}
		struct warm_ledger_group g = {
			.name = (char *)(uintptr_t)w->group->name,
			.key = (char *)(uintptr_t)warm_key_text(&index->key, key),
			.profile = (char *)(uintptr_t)w->group->profile,
			.origin = w->group->origin,
			.flags = WARM_LEDGER_RESTORED | (w->fallback ? WARM_LEDGER_FALLBACK : 0u),
			.files = files,
			.n_files = w->group->n_files,
		};
		int rc = warm_ledger_put(&r->ledger, &g, err);
		if (rc != 0)
			return rc;
	}
	return warm_ledger_save(&r->ledger, r->volume_fd, err);
}

/* Move one unit into the volume. EXISTS: what is there stays. */
static int move_unit(struct restore *r, const char *below, const char *path, size_t bytes,
		     struct warm_error *err)
{
	char from[WARM_PATH_BYTES + 16], to[WARM_PATH_BYTES];
	scope_close int from_fd = -1, to_fd = -1;
	const char *from_name = NULL, *to_name = NULL;

	snprintf(to, sizeof(to), "%.*s", (int)bytes, path);
	snprintf(from, sizeof(from), "%s/%s", below, to);
	int rc = warm_beneath_parent(r->stage_fd, from, &from_fd, &from_name, NULL);
	if (rc == WARM_NOT_FOUND)
		return 0; /* moved with another file of its unit */
	char *slash = strrchr(to, '/');
	if (slash != NULL) {
		*slash = '\0';
		rc = warm_beneath_mkdirs(r->volume_fd, to, err);
		*slash = '/';
		if (rc != 0)
			return rc;
	}
	rc = warm_beneath_parent(r->volume_fd, to, &to_fd, &to_name, err);
	if (rc == 0)
		rc = warm_file_move(from_fd, from_name, to_fd, to_name, err);
	return rc == WARM_NOT_FOUND ? 0 : rc;
}

static int compare_strings(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

struct merge {
	struct restore *r;
	char **units; /* sorted: directories that are groups: never merged into */
	size_t n_units;
	char path[WARM_PATH_BYTES];
};

static int merge_dir(struct merge *m, int from_fd, int to_fd, size_t at, struct warm_error *err)
{
	int scan_fd = fcntl(from_fd, F_DUPFD_CLOEXEC, 0);
	scope_closedir DIR *dir = scan_fd >= 0 ? fdopendir(scan_fd) : NULL;
	struct dirent *e;
	int first = 0;

	if (dir == NULL) {
		int failed = errno;
		if (scan_fd >= 0)
			close(scan_fd);
		return warm_error_errno(err, failed, "read the stage");
	}
	while ((e = readdir(dir)) != NULL) {
		size_t n = strlen(e->d_name);
		struct warm_error move_err = { 0 };
		char *path = m->path;
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (at + n + 2 > sizeof(m->path))
			continue;
		memcpy(m->path + at, e->d_name, n + 1);
		int rc = warm_file_move(from_fd, e->d_name, to_fd, e->d_name, &move_err);
		if (rc == 0 ||
		    (rc == WARM_EXISTS && bsearch(&path, m->units, m->n_units, sizeof(*m->units),
						  compare_strings) != NULL))
			continue;
		if (rc != WARM_EXISTS) {
			warm_error_keep_first(&first, err, rc, &move_err);
			continue; /* one that can't be moved keeps no other out */
		}
		scope_close int from = openat(from_fd, e->d_name,
					      O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		scope_close int to = openat(to_fd, e->d_name,
					    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (from < 0 || to < 0) {
			/* A file, or something else of the model's; else we could not look. */
			if (errno != ENOTDIR && errno != ELOOP && errno != ENOENT)
				warm_error_keep_first(
					&first, err,
					warm_error_errno(&move_err, errno, "open %s", m->path),
					&move_err);
			continue;
		}
		m->path[at + n] = '/';
		m->path[at + n + 1] = '\0';
		rc = merge_dir(m, from, to, at + n + 1, &move_err);
		if (rc != 0)
			warm_error_keep_first(&first, err, rc, &move_err);
	}
	return first;
}

/* Is the unit of `path` in the volume what an earlier run put there for this group? */
static bool unit_is_ours(struct restore *r, const struct wanted *w, const char *path, size_t unit)
{
	const struct warm_index *index = index_of(w);
	struct stat st;

	for (size_t k = 0; k < w->group->n_files; k++) {
		const struct warm_file *f = &index->files[w->group->first_file + k];
		if (strncmp(f->path, path, unit) != 0 ||
		    (f->path[unit] != '/' && f->path[unit] != '\0'))
			continue;
		if (fstatat(r->volume_fd, f->path, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
		    (uint64_t)st.st_size != f->size || warm_timespec_ns(st.st_mtim) != f->mtime_ns)
			return false;
	}
	return true;
}

/* Units that are not the group's own path go first (FlashInfer's generated/ before its
 * cached_ops/): alone they mean nothing to anybody. Where somebody made one of them meanwhile the
 * group is theirs, and ours leaves the stage. */
static int move_twins(struct restore *r, struct wanted *w, struct warm_error *err)
{
	char own[WARM_PATH_BYTES + 16];
	bool twins = false;

	for (size_t k = 0; k < w->group->n_files; k++) {
		const char *path = index_of(w)->files[w->group->first_file + k].path;
		size_t n = warm_group_unit(w->group->name, path);
		if (strncmp(path, w->group->name, n) == 0)
			continue;
		snprintf(own, sizeof(own), "%.*s", (int)warm_group_base(w->group), w->group->name);
		r->absent[0] = '\0';
		bool theirs = !twins && exists(r, own);
		twins = true;
		int rc = theirs ? WARM_EXISTS : move_unit(r, "groups", path, n, err);
		if (rc == WARM_EXISTS && !theirs && unit_is_ours(r, w, path, n))
			continue;
		if (rc == WARM_EXISTS) {
			w->fetched = false;
			w->theirs = true;
			return 0;
		}
		if (rc != 0)
			return rc;
	}
	return 0;
}

static int move_groups(struct restore *r, const bool *take, struct warm_error *err)
{
	struct merge m = { .r = r };
	size_t n_units = 0;
	int rc = 0;

	for (size_t i = 0; i < r->n_wanted; i++) {
		struct wanted *w = &r->wanted[i];
		n_units += take[i] && w->fetched;
		if (!take[i] || !w->fetched || is_mutable(w))
			continue;
		struct warm_error one = { 0 };
		int moved = move_twins(r, w, &one);
		if (moved != 0) {
			warm_error_keep_first(&rc, err, moved, &one);
			w->fetched = false;
		}
	}
	/* Of what isn't whole, or was given up just now, the stage keeps nothing. */
	struct warm_error clear_err = { 0 };
	int cleared = clear_unfinished(r, take, &clear_err);
	if (cleared != 0) {
		warm_error_keep_first(&rc, err, cleared, &clear_err);
		return rc;
	}
	m.units = calloc(n_units + 1, sizeof(*m.units));
	if (m.units == NULL)
		return warm_error_nomem(err, n_units * sizeof(*m.units));
	for (size_t i = 0; i < r->n_wanted; i++) {
		const struct warm_group *g = r->wanted[i].group;
		if (!take[i] || !r->wanted[i].fetched)
			continue;
		m.units[m.n_units] = strndup(g->name, warm_group_base(g));
		if (m.units[m.n_units] == NULL) {
			rc = warm_error_nomem(err, strlen(g->name));
			break;
		}
		m.n_units++;
	}
	if (m.n_units > 1)
		qsort(m.units, m.n_units, sizeof(*m.units), compare_strings);
	scope_close int from = openat(r->stage_fd, "groups",
				      O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (from < 0 && errno != ENOENT)
		rc = warm_error_errno(err, errno, "open the stage");
	else if (from >= 0 && rc != WARM_NO_MEMORY) {
		struct warm_error merge_err = { 0 };
		int merged = merge_dir(&m, from, r->volume_fd, 0, &merge_err);
		if (merged != 0)
			warm_error_keep_first(&rc, err, merged, &merge_err);
	}
	for (size_t i = 0; i < m.n_units; i++)
		free(m.units[i]);
	free(m.units);
	return rc;
}

static int move_late(struct restore *r, const bool *take, struct warm_error *err)
{
	for (size_t i = 0; i < r->n_wanted; i++) {
		const struct wanted *w = &r->wanted[i];
		if (!take[i] || !w->fetched || !is_mutable(w))
			continue;
		for (size_t k = 0; k < w->group->n_files; k++) {
			const char *path = index_of(w)->files[w->group->first_file + k].path;
			int rc = move_unit(r, "late", path, strlen(path), err);
			if (rc != 0 && rc != WARM_EXISTS)
				return rc;
		}
	}
	return 0;
}

static void say(struct restore *r, const char *fmt, ...) WARM_PRINTF(2, 3);

static void say(struct restore *r, const char *fmt, ...)
{
	size_t used = strlen(r->result->reason);
	va_list ap;

	if (used > 0 && used + 3 < sizeof(r->result->reason))
		used += (size_t)snprintf(r->result->reason + used, sizeof(r->result->reason) - used,
					 "; ");
	va_start(ap, fmt);
	vsnprintf(r->result->reason + used, sizeof(r->result->reason) - used, fmt, ap);
	va_end(ap);
}

static int count_layers(struct restore *r, struct warm_error *err)
{
	size_t n = r->own.n_layers + r->other.n_layers;
	scope_free bool *seen = calloc(n + 1, sizeof(*seen));

	if (seen == NULL)
		return warm_error_nomem(err, n);
	for (size_t i = 0; i < r->n_wanted; i++) {
		const struct wanted *w = &r->wanted[i];
		seen[w->layer + (w->fallback ? r->own.n_layers : 0)] = true;
	}
	for (size_t i = 0; i < n; i++)
		r->result->layers += seen[i];
	return 0;
}

/* Did all units of a group that was to be moved in arrive (or somebody's of the same name)? */
static bool is_in(struct restore *r, const struct wanted *w)
{
	char unit[WARM_PATH_BYTES], last[WARM_PATH_BYTES] = "";

	r->absent[0] = '\0';
	for (size_t k = 0; w->fetched && k < w->group->n_files; k++) {
		const char *path = index_of(w)->files[w->group->first_file + k].path;
		snprintf(unit, sizeof(unit), "%.*s", (int)warm_group_unit(w->group->name, path),
			 path);
		if (strcmp(unit, last) == 0)
			continue;
		if (!exists(r, unit))
			return false;
		snprintf(last, sizeof(last), "%s", unit);
	}
	return w->fetched;
}

static int run(struct restore *r, struct warm_error *err)
{
	struct warm_restore_result *result = r->result;
	struct timespec now;
	size_t missing = 0, fallback = 0;

	/* Not later than any ctime to come, so that relatime moves it at the first read. */
	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	r->atime_ns = warm_timespec_ns(now);
	int rc = open_volume(r, err);
	if (rc != 0)
		return rc;
	if (r->o->cold) {
		result->status = WARM_RESTORE_COLD;
		return 0;
	}
	rc = choose(r, err);
	if (rc != 0)
		return rc;
	rc = count_layers(r, err);
	if (rc != 0)
		return rc;

	scope_free bool *take = calloc(r->n_wanted + 1, sizeof(*take));
	if (take == NULL)
		return warm_error_nomem(err, r->n_wanted);
	uint64_t limit = limit_bytes(r), planned = 0;
	size_t n_take = 0;
	for (size_t i = 0; i < r->n_wanted; i++) {
		struct wanted *w = &r->wanted[i];
		uint64_t bytes = size_of(w);
		switch (presence_of(r, w)) {
		case PRESENT:
			result->present_files += w->group->n_files;
			result->groups++;
			fallback += w->fallback;
			continue;
		case BUSY:
			continue;
		case ABSENT:
			break;
		}
		if (bytes > limit - planned) {
			r->limited++;
			missing++;
			continue;
		}
		planned += bytes;
		take[i] = true;
		n_take++;
	}
	int first = 0;
	struct warm_error first_err = { 0 };
	if (n_take > 0 && !r->o->dry_run) {
		int64_t start = warm_clock_ms();
		rc = open_stage(r, err);
		if (rc == 0)
			rc = fetch_catalog(r, &r->own, take, err);
		if (rc == 0 || rc == WARM_CORRUPT || rc == WARM_NOT_FOUND) {
			warm_error_keep_first(&first, &first_err, rc, err);
			rc = fetch_catalog(r, &r->other, take, err);
		}
		result->fetch_ms = warm_clock_ms() - start;
		warm_error_keep_first(&first, &first_err, rc, err);
		/* What is whole goes in, whatever stopped the rest. */
		start = warm_clock_ms();
		for (size_t i = 0; i < r->n_wanted; i++)
			missing += take[i] && !r->wanted[i].fetched;
		rc = r->stage_fd >= 0 ? plan_ledger(r, take, err) : first;
		if (rc == 0)
			rc = move_groups(r, take, err);
		/* An index file may name what a refused layer held. */
		if (rc == 0 && missing + r->own.refused + r->other.refused == 0)
			rc = move_late(r, take, err);
		missing = 0;
		for (size_t i = 0; i < r->n_wanted; i++) {
			if (!take[i] || r->wanted[i].theirs)
				continue;
			if (!is_in(r, &r->wanted[i])) {
				missing++;
				continue;
			}
			result->groups++;
			result->files += r->wanted[i].group->n_files;
			result->bytes += size_of(&r->wanted[i]);
			fallback += r->wanted[i].fallback;
		}
		warm_error_keep_first(&first, &first_err, rc, err);
		if (remove_stage(r, NULL) != 0)
			warm_notice(r->o->notices, "stage",
				    "%s/" STAGE " can't be removed; the next run will",
				    r->o->volume);
		result->place_ms = warm_clock_ms() - start;
	} else if (r->o->dry_run) {
		for (size_t i = 0; i < r->n_wanted; i++)
			if (take[i]) {
				result->files += r->wanted[i].group->n_files;
				result->bytes += size_of(&r->wanted[i]);
				fallback += r->wanted[i].fallback;
				result->groups++;
			}
	}
	size_t refused = r->own.refused + r->other.refused;
	if (first == 0 && refused > 0)
		first = warm_error_set(&first_err, WARM_CORRUPT,
				       "%zu layers can't be used; see the log", refused);
	if (first == 0 && r->limited > 0)
		first = warm_error_set(&first_err, WARM_LIMIT,
				       "%zu groups left out at the limit of %llu bytes", r->limited,
				       (unsigned long long)limit);
	if (r->skipped_mount > 0)
		say(r, "%zu groups are bound to another mount path", r->skipped_mount);
	if (r->skipped_quarantine > 0)
		say(r, "%zu groups are in quarantine, since the model never got ready with them",
		    r->skipped_quarantine);
	if (r->skipped_cpu > 0)
		say(r, "%zu groups are for other CPUs", r->skipped_cpu);
	if (first != 0)
		say(r, "%s", first_err.msg);
	if (first != 0 || missing > 0)
		result->status = result->groups > 0 ? WARM_RESTORE_PARTIAL : WARM_RESTORE_ERROR;
	else if (r->n_wanted == 0)
		result->status = WARM_RESTORE_COLD;
	else
		result->status = fallback > 0 ? WARM_RESTORE_FALLBACK : WARM_RESTORE_WARM;
	/* What is left out for good is no failure; but it isn't all there, either. */
	if (r->skipped_quarantine > 0 && first == 0 && result->groups > 0)
		result->status = WARM_RESTORE_PARTIAL;
	if (fallback == 0)
		result->fallback_version[0] = '\0';
	if (first != 0 && err != NULL)
		*err = first_err;
	return first;
}

int warm_restore_run(const struct warm_restore_options *options, const struct warm_call *call,
		     struct warm_restore_result *ret_result, struct warm_error *err)
{
	struct warm_error own = { 0 };
	struct warm_restore_result before = { 0 };

	if (err == NULL)
		err = &own;
	for (int tries = 0;; tries++) {
		struct restore r = {
			.o = options,
			.call = call,
			.result = ret_result,
			.volume_fd = -1,
			.stage_fd = -1,
			.lock_fd = -1,
		};
		*ret_result = (struct warm_restore_result){ .status = WARM_RESTORE_ERROR };
		int rc = run(&r, err);
		bool listed = r.own.n_layers > 0;
		release(&r);
		ret_result->files += before.files;
		ret_result->bytes += before.bytes;
		ret_result->fetched_bytes += before.fetched_bytes;
		/* A layer that was compacted away under us: its base is listed by now. */
		if (rc == WARM_NOT_FOUND && listed && tries == 0) {
			before = *ret_result;
			continue;
		}
		if (rc != 0 && ret_result->reason[0] == '\0')
			snprintf(ret_result->reason, sizeof(ret_result->reason), "%s", err->msg);
		return rc;
	}
}
