/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/sync/publish.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>

#include "lib/base/hash.h"
#include "lib/base/parallel.h"
#include "lib/kernel/entry.h"
#include "lib/layer/secret.h"
#include "lib/sync/inert.h"
#include "lib/sync/ledger.h"
#include "lib/sync/near.h"

enum {
	DEFAULT_LAYER_BYTES = 16 << 20,
	LEFT_OUT_TOLD = 8,	     /* groups that a last round leaves out, by name */
	FIRST_LAYER_BYTES = 1 << 20, /* at the pod's end; each is twice the one before */
	DEFAULT_LEVEL = 1,
	DEFAULT_UNPROVEN_MS = 60000,
	SPARE_BYTES = 1 << 20, /* of the disk, never taken for a spool */
};

/* A group that claims to be of the future: when its state was first seen. */
struct sighting {
	uint64_t name_hash, state_hash;
	int64_t since_ms; /* monotonic */
	bool live;
};

struct warm_publisher {
	struct warm_publish_options o;
	char mount[WARM_PATH_BYTES];
	struct warm_profile_roots roots;
	int volume_fd;
	bool atime_moves; /* reads leave a trace on this mount */
	bool asked_store; /* once since the start */
	bool ready;	  /* the model is, and it is known */
	size_t skipped_told;
	int64_t trusted_since_ns; /* groups that changed before are not published; 0: all are */
	struct warm_catalog catalog;
	struct sighting *sightings;
	size_t n_sightings, sightings_capacity;
};

void warm_publisher_free(struct warm_publisher *p)
{
	if (p == NULL)
		return;
	warm_catalog_release(&p->catalog);
	free(p->sightings);
	if (p->volume_fd >= 0)
		close(p->volume_fd);
	free(p);
}

/* Does a read move atime here? A file with an old atime, read once, tells. */
static bool probe_atime(int volume_fd)
{
	char path[64];
	uint64_t random;
	struct timespec times[2] = { { .tv_sec = 1000 }, { .tv_sec = 2000 } };
	struct stat st;
	char c;
	bool moves = true;

	warm_random(&random, sizeof(random));
	snprintf(path, sizeof(path), WARM_DIR "/atime-%016llx", (unsigned long long)random);
	scope_close int fd = -1;
	if (warm_beneath_open(volume_fd, path, O_RDWR | O_CREAT | O_EXCL, 0600, &fd, NULL) != 0)
		return true;
	if (write(fd, "x", 1) == 1 && futimens(fd, times) == 0 && pread(fd, &c, 1, 0) == 1 &&
	    fstat(fd, &st) == 0)
		moves = st.st_atim.tv_sec != 1000;
	unlinkat(volume_fd, path, 0);
	return moves;
}

int warm_publisher_open(const struct warm_publish_options *options, struct warm_publisher **ret_p,
			struct warm_error *err)
{
	scope_publisher struct warm_publisher *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return warm_error_nomem(err, sizeof(*p));
	p->o = *options;
	p->catalog.folds = true;
	if (p->o.unproven_ms == 0)
		p->o.unproven_ms = DEFAULT_UNPROVEN_MS;
	if (p->o.unproven_ms < p->o.settle_ms)
		p->o.unproven_ms = p->o.settle_ms;
	if (p->o.layer_bytes == 0)
		p->o.layer_bytes = DEFAULT_LAYER_BYTES;
	if (p->o.max_file_bytes == 0)
		p->o.max_file_bytes = (uint64_t)2 << 30;
	if (p->o.level == 0)
		p->o.level = DEFAULT_LEVEL;
	p->volume_fd = open(options->volume, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (p->volume_fd < 0)
		return warm_error_errno(err, errno, "volume %s", options->volume);
	if (options->mount != NULL)
		snprintf(p->mount, sizeof(p->mount), "%s", options->mount);
	else if (realpath(options->volume, p->mount) == NULL)
		return warm_error_errno(err, errno, "volume %s", options->volume);
	if (options->roots != NULL)
		p->roots = *options->roots;
	p->roots.mount_hash = warm_mount_hash(p->mount);
	if (!options->no_ledger) {
		int rc = warm_beneath_mkdirs(p->volume_fd, WARM_DIR, err);
		if (rc != 0) {
			warm_error_context(err, "volume %s", options->volume);
			return rc;
		}
		p->atime_moves = probe_atime(p->volume_fd);
	}
	*ret_p = take_ptr(p);
	return 0;
}

/* ---- settled and whole ---- */

static uint64_t state_hash(const struct warm_scan *scan, const struct warm_scan_group *g)
{
	uint64_t h = 0;

	for (size_t i = 0; i < g->n_files; i++) {
		const struct warm_seen *s = &scan->files[g->first_file + i].seen;
		uint64_t v[4] = { h, s->size, (uint64_t)s->mtime_ns, (uint64_t)s->ctime_ns };
		h = warm_hash64(v, sizeof(v));
	}
	return h;
}

/* Milliseconds that the group has stood unchanged, by its ctime. A ctime in the future (the clock
 * was set back) says nothing: then, as long as we have watched it. */
static int64_t quiet_ms(struct warm_publisher *p, const struct warm_scan *scan,
			const struct warm_scan_group *g)
{
	int64_t by_clock = warm_clock_wall_ms() - g->changed_ns / 1000000;

	if (by_clock >= 0)
		return by_clock;
	uint64_t name = warm_hash64(g->name, strlen(g->name)), state = state_hash(scan, g);
	int64_t now = warm_clock_ms();
	for (size_t i = 0; i < p->n_sightings; i++) {
		struct sighting *s = &p->sightings[i];
		if (s->name_hash != name)
			continue;
		if (s->state_hash != state) {
			s->state_hash = state;
			s->since_ms = now;
		}
		s->live = true;
		return now - s->since_ms;
	}
	if (p->n_sightings == p->sightings_capacity) {
		size_t capacity = p->sightings_capacity == 0 ? 64 : 2 * p->sightings_capacity;
		struct sighting *more = realloc(p->sightings, capacity * sizeof(*more));
		if (more == NULL)
			return 0;
		p->sightings = more;
		p->sightings_capacity = capacity;
	}
	p->sightings[p->n_sightings++] = (struct sighting){ name, state, now, true };
	return 0;
}

static void forget_sightings(struct warm_publisher *p)
{
	size_t kept = 0;

	for (size_t i = 0; i < p->n_sightings; i++)
		if (p->sightings[i].live) {
			p->sightings[kept] = p->sightings[i];
			p->sightings[kept++].live = false;
		}
	p->n_sightings = kept;
}

enum writers { NOBODY_WRITES, SOMEBODY_WRITES, NO_LEASE };

/* A read lease is to be had only while nobody has the file open for writing. */
static enum writers writers_of(int volume_fd, const char *path)
{
	scope_close int fd = -1;

	if (warm_beneath_open(volume_fd, path, O_RDONLY | O_NONBLOCK, 0, &fd, NULL) != 0)
		return NO_LEASE;
	if (fcntl(fd, F_SETLEASE, F_RDLCK) == 0) {
		fcntl(fd, F_SETLEASE, F_UNLCK);
		return NOBODY_WRITES;
	}
	return errno == EAGAIN ? SOMEBODY_WRITES : NO_LEASE;
}

enum readiness { READY, WAITING, TORN };

/* An entry of ours ends in a checksum. */
static enum warm_whole kernel_is_whole(int volume_fd, const char *path, char *ret_why,
				       size_t why_bytes)
{
	scope_free char *data = NULL;
	size_t bytes = 0;
	struct warm_kernel_entry entry;

	if (warm_beneath_load(volume_fd, path, WARM_KERNEL_ENTRY_BYTES, &data, &bytes, NULL) != 0)
		return WARM_WHOLE_UNKNOWN;
	if (warm_kernel_entry_parse(data, bytes, &entry, NULL) != 0) {
		snprintf(ret_why, why_bytes, "its checksum is wrong");
		return WARM_WHOLE_NO;
	}
	warm_kernel_entry_release(&entry);
	return WARM_WHOLE_YES;
}

static enum readiness readiness_of(struct warm_publisher *p, const struct warm_scan *scan,
				   const struct warm_scan_group *g, enum warm_publish_mode mode,
				   char *ret_why, size_t why_bytes)
{
	enum writers writers = NOBODY_WRITES;
	int64_t quiet = quiet_ms(p, scan, g);

	snprintf(ret_why, why_bytes, "not settled");
	if ((mode == WARM_PUBLISH_ROUND || mode == WARM_PUBLISH_LOOK) && quiet < p->o.settle_ms)
		return WAITING;
	for (size_t i = 0; i < g->n_files; i++) {
		enum writers w = writers_of(p->volume_fd, scan->files[g->first_file + i].path);
		if (w == SOMEBODY_WRITES) {
			snprintf(ret_why, why_bytes, "open for writing");
			return WAITING;
		}
		if (w == NO_LEASE)
			writers = NO_LEASE;
	}
	scope_free const char **paths = calloc(g->n_files + 1, sizeof(*paths));
	if (paths == NULL)
		return WAITING;
	for (size_t i = 0; i < g->n_files; i++)
		paths[i] = scan->files[g->first_file + i].path;
	struct warm_group named = { .name = g->name, .bound = g->bound };
	char base[WARM_PATH_BYTES + 24];
	snprintf(base, sizeof(base), "%.*s", (int)warm_group_base(&named), g->name);
	enum warm_whole whole = warm_profile_whole(p->volume_fd, g->profile, g->flags, base, paths,
						   g->n_files, ret_why, why_bytes);
	if (whole != WARM_WHOLE_NO && g->profile == WARM_PROFILE_NVRTC)
		whole = kernel_is_whole(p->volume_fd, paths[0], ret_why, why_bytes);
	if (whole == WARM_WHOLE_NO)
		return TORN;
	if (mode == WARM_PUBLISH_ALL || whole == WARM_WHOLE_YES ||
	    (g->flags & WARM_PLACE_RENAMED) != 0)
		return READY;
	/* Only time can tell. */
	snprintf(ret_why, why_bytes, "not settled");
	int64_t need = writers == NO_LEASE ? p->o.unproven_ms : p->o.settle_ms;
	return quiet >= need ? READY : WAITING;
}

/* ---- what is new ---- */

enum standing {
	NEW,	   /* not in the ledger, or there by fallback: by name */
	CHANGED,   /* in the ledger, and other files on disk */
	UNCHANGED, /* in the ledger as it is on disk */
	LEFT,	   /* by fallback and not used: stays out */
};

static const struct warm_ledger_file *file_of(const struct warm_ledger_group *l, const char *path)
{
	for (size_t i = 0; i < l->n_files; i++)
		if (strcmp(l->files[i].path, path) == 0)
			return &l->files[i];
	return NULL;
}

/* The same files, sizes and times; companions don't count. */
static bool same_as_ledger(const struct warm_publisher *p, const struct warm_scan *scan,
			   const struct warm_scan_group *g, const struct warm_ledger_group *l)
{
	struct warm_place place;
	size_t n = 0, known = 0;

	for (size_t i = 0; i < g->n_files; i++) {
		const struct warm_scan_file *s = &scan->files[g->first_file + i];
		if (s->companion)
			continue;
		const struct warm_ledger_file *f = file_of(l, s->path);
		if (f == NULL || s->seen.size != f->size || s->seen.mtime_ns != f->mtime_ns)
			return false;
		n++;
	}
	for (size_t i = 0; i < l->n_files; i++) {
		warm_profile_place(&p->roots, l->files[i].path, &place);
		known += (place.flags & WARM_PLACE_COMPANION) == 0;
	}
	return n == known;
}

static bool was_opened(const struct warm_publisher *p, const struct warm_scan *scan,
		       const struct warm_scan_group *g, const struct warm_ledger_group *l)
{
	if (!p->atime_moves)
		return true;
	for (size_t i = 0; i < g->n_files; i++) {
		const struct warm_scan_file *f = &scan->files[g->first_file + i];
		const struct warm_ledger_file *known = file_of(l, f->path);
		if (known != NULL && f->atime_ns > known->atime_ns)
			return true;
	}
	return false;
}

static enum standing standing_of(const struct warm_publisher *p, const struct warm_scan *scan,
				 const struct warm_scan_group *g, const struct warm_ledger_group *l)
{
	if (l == NULL)
		return NEW;
	if (!same_as_ledger(p, scan, g, l))
		return (g->flags & WARM_GROUP_MUTABLE) != 0 ? NEW : CHANGED;
	if ((l->flags & WARM_LEDGER_FALLBACK) != 0)
		return was_opened(p, scan, g, l) ? NEW : LEFT;
	return UNCHANGED;
}

/* Whether the store holds it already, or something newer. */
static bool subtracted(const struct warm_state *state, const struct warm_scan_group *g,
		       enum standing standing, const struct warm_ledger_group *l)
{
	const struct warm_live *live = warm_state_find(state, g->name);

	if ((g->flags & WARM_GROUP_MUTABLE) != 0)
		return standing == UNCHANGED;
	if (live == NULL)
		return false;
	if (standing == CHANGED)
		return warm_id_compare(live->group->origin, l->origin) > 0;
	return true;
}

struct candidate {
	const struct warm_scan_group *group;
	enum standing standing;
	bool mutable;
	bool put;  /* by this round, or in the layer at hand */
	bool gone; /* somebody else put it meanwhile */
};

static int smallest_first(const void *a_p, const void *b_p)
{
	const struct candidate *a = a_p, *b = b_p;

	if (a->mutable != b->mutable)
		return a->mutable ? 1 : -1;
	if (a->group->bytes != b->group->bytes)
		return a->group->bytes < b->group->bytes ? -1 : 1;
	return strcmp(a->group->name, b->group->name);
}

static int by_name(const void *a_p, const void *b_p)
{
	const struct candidate *a = a_p, *b = b_p;

	if (a->mutable != b->mutable)
		return a->mutable ? 1 : -1;
	return strcmp(a->group->name, b->group->name);
}

/* ---- a round ---- */

struct round {
	struct warm_publisher *p;
	enum warm_publish_mode mode;
	const char *complete;
	const struct warm_call *call;
	struct warm_publish_report *report;
	struct warm_scan scan;
	struct warm_ledger ledger;
	struct warm_state state;
	struct candidate *candidates;
	size_t n_candidates;
	struct warm_id last_id;
	size_t no_room; /* groups for which the volume has no space left to spool */
	struct warm_pace pace;
	/* the layer that is being packed */
	int spool_fd;
	struct warm_pack *pack;
	const struct candidate **packed;
	size_t n_packed;
};

static bool may_hold_secrets(const struct warm_publisher *p, const char *path)
{
	for (size_t i = 0; i < p->o.n_allow_secrets; i++)
		if (strcmp(p->o.allow_secrets[i], path) == 0 ||
		    fnmatch(p->o.allow_secrets[i], path, 0) == 0)
			return true;
	return false;
}

static bool holds_secret(struct round *r, const struct warm_scan_group *g)
{
	char what[80], shown[160];

	for (size_t i = 0; i < g->n_files; i++) {
		const char *path = r->scan.files[g->first_file + i].path;
		if (may_hold_secrets(r->p, path) ||
		    !warm_secret_find(r->p->volume_fd, path, what, sizeof(what)))
			continue;
		warm_notice(r->p->o.notices, "secret",
			    "%s looks as if it held a secret (%s): its group is not published",
			    warm_path_printable(path, shown, sizeof(shown)), what);
		return true;
	}
	return false;
}

static void count_use(struct round *r, const struct warm_scan_group *g,
		      const struct warm_ledger_group *l)
{
	struct warm_use *use = &r->report->use[g->profile];

	if (l == NULL || (l->flags & WARM_LEDGER_RESTORED) == 0)
		return;
	if (was_opened(r->p, &r->scan, g, l)) {
		use->used++;
		use->used_bytes += g->bytes;
	} else if ((g->flags & WARM_PLACE_UNREAD) == 0) {
		use->inert++;
		use->inert_bytes += g->bytes;
	}
}

static int collect(struct round *r, struct warm_error *err)
{
	struct warm_publisher *p = r->p;
	struct warm_publish_report *report = r->report;
	bool self_keyed_only = p->o.key.version[0] == '\0';
	size_t left_out = 0;
	char why[160], shown[160];

	r->candidates = calloc(r->scan.n_groups + 1, sizeof(*r->candidates));
	r->packed = calloc(r->scan.n_groups + 1, sizeof(*r->packed));
	if (r->candidates == NULL || r->packed == NULL)
		return warm_error_nomem(err, r->scan.n_groups * sizeof(*r->candidates));
	report->volume_groups = r->scan.n_groups;
	report->volume_bytes = r->scan.bytes;
	for (size_t i = 0; i < r->scan.n_groups; i++) {
		const struct warm_scan_group *g = &r->scan.groups[i];
		const struct warm_ledger_group *l = warm_ledger_find(&r->ledger, g->name);
		enum standing standing = standing_of(p, &r->scan, g, l);
		count_use(r, g, l);
		report->left += standing == LEFT;
		if (standing == LEFT ||
		    (self_keyed_only && (g->flags & WARM_GROUP_SELF_KEYED) == 0))
			continue;
		if (g->holes || g->changed_ns < p->trusted_since_ns) {
			report->withheld++;
			continue;
		}
		if (standing != UNCHANGED) {
			enum readiness ready = readiness_of(p, &r->scan, g, r->mode, why,
							    sizeof(why));
			if (ready != READY) {
				if (ready == TORN)
					report->torn++;
				else
					report->waiting++;
				if (r->mode >= WARM_PUBLISH_FINAL && left_out++ < LEFT_OUT_TOLD)
					warm_notice(
						p->o.notices, "left-out", "%s: %s",
						warm_path_printable(g->name, shown, sizeof(shown)),
						why);
				continue;
			}
		}
		bool mutable = (g->flags & WARM_GROUP_MUTABLE) != 0;
		report->fresh += standing != UNCHANGED && !mutable;
		r->candidates[r->n_candidates++] =
			(struct candidate){ .group = g, .standing = standing, .mutable = mutable };
	}
	if (left_out > LEFT_OUT_TOLD)
		warm_notice(p->o.notices, "left-out", "%zu more groups", left_out - LEFT_OUT_TOLD);
	return 0;
}

static bool worth_asking(const struct round *r)
{
	if (r->mode == WARM_PUBLISH_LOOK || r->p->o.read_only)
		return false;
	return !r->p->asked_store || r->complete != NULL || r->mode >= WARM_PUBLISH_FINAL ||
	       r->report->fresh > 0;
}

static int list_store(struct round *r, struct warm_error *err)
{
	struct warm_publisher *p = r->p;
	int rc = warm_catalog_list(&p->catalog, p->o.store, &p->o.key, false, r->call, err);

	if (rc == 0)
		rc = warm_catalog_read(&p->catalog, p->o.store, p->o.notices, r->call, err);
	warm_state_release(&r->state);
	if (rc == 0)
		rc = warm_state_build(p->catalog.layers, p->catalog.n_layers, &r->state, err);
	if (rc != 0)
		return rc;
	if (warm_id_compare(p->catalog.newest, r->last_id) > 0)
		r->last_id = p->catalog.newest;
	return 0;
}

/* Replicas that start together have the same to publish. Where that is more than one layer, each
 * begins at another place. */
static void begin_anywhere(struct round *r)
{
	size_t n = 0;
	uint64_t bytes = 0;
	uint32_t random;

	for (; n < r->n_candidates && !r->candidates[n].mutable; n++)
		bytes += r->candidates[n].group->bytes;
	if (n < 2 || bytes <= r->p->o.layer_bytes)
		return;
	struct candidate *turned = malloc(n * sizeof(*turned));
	if (turned == NULL)
		return;
	warm_random(&random, sizeof(random));
	for (size_t i = 0; i < n; i++)
		turned[i] = r->candidates[(i + random % n) % n];
	memcpy(r->candidates, turned, n * sizeof(*turned));
	free(turned);
}

/* After a layer was put: what others put meanwhile need not be put by us, too. */
static int subtract_again(struct round *r, struct warm_error *err)
{
	int rc = list_store(r, err);

	for (size_t i = 0; rc == 0 && i < r->n_candidates; i++) {
		struct candidate *c = &r->candidates[i];
		const struct warm_ledger_group *l = warm_ledger_find(&r->ledger, c->group->name);
		if (!c->mutable && !c->gone && !c->put &&
		    subtracted(&r->state, c->group, c->standing, l)) {
			c->gone = true;
			r->report->present++;
		}
	}
	return rc;
}

static int ask_store(struct round *r, struct warm_error *err)
{
	struct warm_publisher *p = r->p;
	int rc = list_store(r, err);

	if (rc != 0)
		return rc;
	p->asked_store = r->report->asked = true;
	r->report->complete = warm_catalog_complete(&p->catalog) != NULL;

	size_t kept = 0;
	for (size_t i = 0; i < r->n_candidates; i++) {
		struct candidate *c = &r->candidates[i];
		const struct warm_ledger_group *l = warm_ledger_find(&r->ledger, c->group->name);
		if (subtracted(&r->state, c->group, c->standing, l)) {
			r->report->present += c->standing == NEW && !c->mutable;
			continue;
		}
		r->candidates[kept++] = *c;
	}
	r->n_candidates = kept;
	if (r->n_candidates > 1)
		qsort(r->candidates, kept, sizeof(*r->candidates),
		      r->mode == WARM_PUBLISH_FINAL || r->mode == WARM_PUBLISH_DRAIN
			      ? smallest_first
			      : by_name);
	if (r->mode == WARM_PUBLISH_ROUND)
		begin_anywhere(r);
	return 0;
}

/* In the volume or, for a directory that is none, below TMPDIR. */
static int unlinked_file(const struct warm_publisher *p, int *ret_fd, struct warm_error *err)
{
	const char *tmp = getenv("TMPDIR");

	if (tmp == NULL || tmp[0] == '\0')
		tmp = "/tmp";
	if (p->o.no_ledger)
		return warm_file_unnamed(AT_FDCWD, tmp, ret_fd, err);
	scope_close int dir = -1;
	int rc = warm_beneath_open(p->volume_fd, WARM_DIR, O_RDONLY | O_DIRECTORY, 0, &dir, err);
	if (rc == 0)
		rc = warm_file_unnamed(dir, ".", ret_fd, err);
	if (rc != 0)
		warm_error_context(err, "volume %s", p->o.volume);
	return rc;
}

static int open_spool(struct round *r, struct warm_error *err)
{
	struct warm_publisher *p = r->p;

	int rc = unlinked_file(p, &r->spool_fd, err);
	if (rc != 0)
		return rc;
	/* While the model runs, the CPUs are its. */
	unsigned threads = r->mode == WARM_PUBLISH_ROUND ? 0 : warm_cpus();
	/* At the pod's end nobody knows how much time there is: what is put soon is safe soon. */
	uint64_t bytes = p->o.layer_bytes;
	if ((r->mode == WARM_PUBLISH_DRAIN || r->mode == WARM_PUBLISH_FINAL) &&
	    r->report->layers < 16 && bytes > (uint64_t)FIRST_LAYER_BYTES << r->report->layers)
		bytes = (uint64_t)FIRST_LAYER_BYTES << r->report->layers;
	rc = warm_pack_open(r->spool_fd, p->o.level, bytes, threads, &r->pack, err);
	if (rc == 0)
		warm_pack_pace(r->pack, &r->pace);
	return rc;
}

/* Whether the spool may take a group of so many bytes, which may not compress at all. */
static bool has_room(const struct warm_publisher *p, uint64_t bytes)
{
	struct statvfs fs;

	if (p->o.no_ledger || fstatvfs(p->volume_fd, &fs) != 0)
		return true;
	uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	return free_bytes > SPARE_BYTES && bytes < free_bytes - SPARE_BYTES;
}

static void close_spool(struct round *r)
{
	warm_pack_free(take_ptr(r->pack));
	if (r->spool_fd >= 0)
		close(take_fd(&r->spool_fd));
	r->n_packed = 0;
}

static int note_published(struct round *r, struct warm_id id, struct warm_error *err)
{
	char key[3 * WARM_KEY_PART_BYTES + 3];

	if (r->p->o.no_ledger)
		return 0;
	for (size_t i = 0; i < r->n_packed; i++) {
		const struct warm_scan_group *g = r->packed[i]->group;
		const struct warm_ledger_group *old = warm_ledger_find(&r->ledger, g->name);
		scope_free struct warm_ledger_file *files = calloc(g->n_files + 1, sizeof(*files));
		if (files == NULL)
			return warm_error_nomem(err, g->n_files * sizeof(*files));
		for (size_t k = 0; k < g->n_files; k++) {
			const struct warm_scan_file *f = &r->scan.files[g->first_file + k];
			const struct warm_ledger_file *known =
				old != NULL && (old->flags & WARM_LEDGER_RESTORED) != 0
					? file_of(old, f->path)
					: NULL;
			files[k] = (struct warm_ledger_file){ (char *)(uintptr_t)f->path,
							      f->seen.size, f->seen.mtime_ns,
							      known != NULL ? known->atime_ns
									    : f->atime_ns };
		}
		struct warm_ledger_group entry = {
			.name = (char *)(uintptr_t)g->name,
			.key = (char *)(uintptr_t)warm_key_text(&r->p->o.key, key),
			.profile = (char *)(uintptr_t)warm_profile_name(g->profile),
			.origin = id,
			.flags = WARM_LEDGER_PUBLISHED |
				 (old != NULL ? old->flags & WARM_LEDGER_RESTORED : 0u),
			.files = files,
			.n_files = g->n_files,
		};
		int rc = warm_ledger_put(&r->ledger, &entry, err);
		if (rc != 0)
			return rc;
	}
	return warm_ledger_save(&r->ledger, r->p->volume_fd, err);
}

/* End the layer at hand and put it. */
static int put_layer(struct round *r, bool last, struct warm_error *err)
{
	struct warm_publisher *p = r->p;
	char object[WARM_NAME_BYTES];
	struct warm_layer_name name;
	uint64_t bytes = 0;
	struct warm_id id = warm_id_new(r->last_id, warm_clock_wall_ms());
	struct warm_pack_meta meta = {
		.kind = WARM_LAYER,
		.id = id,
		.key = &p->o.key,
		.created_ms = warm_clock_wall_ms(),
		.mount = p->mount,
		.complete = last ? r->complete : NULL,
	};

	int64_t start = warm_clock_ms();
	int rc = warm_pack_finish(r->pack, &meta, &name, &bytes, err);
	if (rc != 0)
		return rc;
	r->report->pack_ms += warm_clock_ms() - start;
	start = warm_clock_ms();
	warm_layer_name_format(&p->o.key, &name, object);
	rc = warm_store_put(p->o.store, object, r->spool_fd, bytes, r->call, err);
	r->report->put_ms += warm_clock_ms() - start;
	if (rc != 0)
		return rc;
	r->last_id = id;
	r->report->layers++;
	r->report->groups += r->n_packed;
	r->report->bytes += bytes;
	r->report->complete = r->report->complete || meta.complete != NULL;
	for (size_t i = 0; i < r->n_packed; i++) {
		r->report->files += r->packed[i]->group->n_files;
		r->report->raw_bytes += r->packed[i]->group->bytes;
	}
	if (p->o.has_near && r->mode <= WARM_PUBLISH_DRAIN) {
		const char *names[] = { object };
		const bool damaged[] = { false };
		struct warm_error near_err = { 0 };
		if (warm_near_note(p->volume_fd, names, damaged, 1, &near_err) != 0)
			warm_notice(p->o.notices, "near", "%s", near_err.msg);
	}
	/* The layer is in the store: a ledger that can't be written costs a copy at worst. */
	struct warm_error ledger_err = { 0 };
	if (note_published(r, id, &ledger_err) != 0)
		warm_notice(p->o.notices, "ledger", "%s", ledger_err.msg);
	close_spool(r);
	return 0;
}

static int add_to_pack(struct round *r, const struct candidate *c, struct warm_error *err)
{
	const struct warm_scan_group *g = c->group;
	scope_free struct warm_pack_file *files = calloc(g->n_files + 1, sizeof(*files));

	if (files == NULL)
		return warm_error_nomem(err, g->n_files * sizeof(*files));
	for (size_t i = 0; i < g->n_files; i++) {
		const struct warm_scan_file *f = &r->scan.files[g->first_file + i];
		files[i] = (struct warm_pack_file){ f->path, NULL, f->companion ? NULL : &f->seen,
						    f->seen.mtime_ns };
	}
	struct warm_pack_group group = {
		.name = g->name,
		.profile = warm_profile_name(g->profile),
		.bound = g->bound,
		.flags = g->flags & WARM_GROUP_FLAGS,
		.dir_fd = r->p->volume_fd,
		.files = files,
		.n_files = g->n_files,
	};
	return warm_pack_add(r->pack, &group, r->call, err);
}

static bool is_set(const atomic_bool *flag)
{
	return flag != NULL && atomic_load(flag);
}

/* Another round comes, in its own order. */
static bool makes_room(const struct round *r)
{
	const struct warm_publish_options *o = &r->p->o;

	return (r->mode <= WARM_PUBLISH_DRAIN && is_set(o->hurry)) ||
	       (r->mode <= WARM_PUBLISH_ROUND && is_set(o->draining));
}

static int pack_one(struct round *r, struct candidate *c, struct warm_error *err)
{
	int64_t start = warm_clock_ms();
	int rc = 0;

	/* One after another: what comes first need not wait until all are read. */
	if (holds_secret(r, c->group)) {
		r->report->withheld++;
		return 0;
	}
	bool room = has_room(r->p, c->group->bytes);
	if (!room && r->n_packed > 0) {
		/* A layer that is put gives its space back. */
		rc = put_layer(r, false, err);
		if (rc != 0)
			return rc;
		room = has_room(r->p, c->group->bytes);
	}
	if (!room) {
		r->no_room++;
		return 0;
	}

	for (int tries = 0; tries < 2 && !c->gone; tries++) {
		if (r->pack == NULL)
			rc = open_spool(r, err);
		if (rc == 0)
			rc = add_to_pack(r, c, err);
		if (rc != WARM_LIMIT || !warm_pack_usable(r->pack) || r->n_packed == 0)
			break;
		r->report->pack_ms += warm_clock_ms() - start;
		rc = put_layer(r, false, err);
		if (rc != 0 || makes_room(r))
			return rc;
		if (r->mode == WARM_PUBLISH_ROUND)
			rc = subtract_again(r, err);
		start = warm_clock_ms();
		if (rc != 0)
			return rc;
	}
	if (c->gone)
		return 0;
	r->report->pack_ms += warm_clock_ms() - start;
	if (rc == 0) {
		c->put = true;
		r->packed[r->n_packed++] = c;
		return 0;
	}
	if (r->pack == NULL || !warm_pack_usable(r->pack))
		return rc;
	/* This group alone: it changed, went, or can't be read. */
	if (rc == WARM_EXISTS || rc == WARM_NOT_FOUND) {
		r->report->waiting++;
	} else {
		r->report->withheld++;
		warm_notice(r->p->o.notices, "unreadable", "%s",
			    err != NULL ? err->msg : c->group->name);
	}
	return 0;
}

/* Gone or closed to us; whatever else there is (no descriptors, no memory) may pass. */
static bool is_lost(int rc)
{
	return rc == WARM_NOT_FOUND || rc == WARM_DENIED || rc == WARM_CORRUPT;
}

/* The directory may have gone, and another have come to its place. */
static int check_volume(const struct warm_publisher *p, struct warm_error *err)
{
	struct stat held, named;

	if (fstat(p->volume_fd, &held) != 0 || stat(p->o.volume, &named) != 0)
		return warm_error_errno(err, errno, "volume %s", p->o.volume);
	if (held.st_dev != named.st_dev || held.st_ino != named.st_ino)
		return warm_error_set(err, WARM_NOT_FOUND, "volume %s: another directory by now",
				      p->o.volume);
	return 0;
}

/* A ledger of another boot, or a torn one, means a crash of the node since: what is there may have
 * lost its bytes, and is not published until it changes. */
static int load_ledger(struct round *r, struct warm_error *err)
{
	int rc = warm_ledger_load(&r->ledger, r->p->volume_fd, err);

	if (rc == WARM_NOT_FOUND)
		return 0;
	if (rc != 0 && rc != WARM_CORRUPT)
		return rc;
	if (rc == 0 && warm_ledger_of_this_boot(&r->ledger))
		return 0;
	if (rc == WARM_CORRUPT) /* what is saved next must not count as this boot's */
		snprintf(r->ledger.boot_id, sizeof(r->ledger.boot_id), "torn");
	if (r->p->trusted_since_ns == 0) {
		r->p->trusted_since_ns = warm_clock_wall_ms() * 1000000;
		warm_notice(r->p->o.notices, "node-restarted",
			    "the node was restarted since the volume was filled: what is from "
			    "before is not published");
	}
	return 0;
}

/* Whether the key is too young for a mark: empty, or, where readiness isn't known, with groups that
 * came so lately that more of them may be missing. */
static bool still_growing(const struct round *r)
{
	int64_t since_ns = (warm_clock_wall_ms() - r->p->o.complete_after_ms) * 1000000;

	if (!r->p->ready && r->report->waiting + r->report->torn > 0)
		return true;
	/* A mark on nothing would only keep the fallback out. */
	if (r->state.n_live + r->n_candidates == 0)
		return true;
	for (size_t i = 0; i < r->n_candidates && !r->p->ready; i++)
		if (r->candidates[i].standing != UNCHANGED && !r->candidates[i].mutable &&
		    r->candidates[i].group->changed_ns > since_ns)
			return true;
	return false;
}

static int run_round(struct round *r, warm_scan_dir_fn dir_fn, void *dir_arg,
		     struct warm_error *err)
{
	struct warm_publisher *p = r->p;
	int64_t start = warm_clock_ms();

	warm_ledger_init(&r->ledger);
	int rc = check_volume(p, err);
	if (rc != 0) {
		r->report->volume_lost = is_lost(rc);
		return rc;
	}
	/* The model may have cleared the volume. */
	if (!p->o.no_ledger)
		rc = warm_beneath_mkdirs(p->volume_fd, WARM_DIR, err);
	if (rc == 0 && !p->o.no_ledger)
		rc = load_ledger(r, err);
	if (rc != 0)
		return rc;
	rc = warm_scan_run(p->volume_fd, &p->roots, p->o.max_file_bytes, dir_fn, dir_arg, r->call,
			   &r->scan, err);
	if (rc != 0) {
		r->report->volume_lost = is_lost(rc);
		warm_error_context(err, "volume %s", p->o.volume);
		return rc;
	}
	size_t skipped = r->scan.skipped_large + r->scan.skipped_unreadable;
	if (skipped > 0 && skipped != p->skipped_told)
		warm_notice(
			p->o.notices, "skipped",
			"%zu files and directories are over the limit or unreadable, among them "
			"%s: their groups are not published",
			skipped, r->scan.first_skipped);
	p->skipped_told = skipped;
	rc = collect(r, err);
	forget_sightings(p);
	r->report->scan_ms = warm_clock_ms() - start;
	if (rc != 0 || !worth_asking(r))
		return rc;
	rc = ask_store(r, err);
	/* A template's mark is put beside another's. */
	if (rc == 0 && r->complete != NULL &&
	    (warm_catalog_has_mark(&p->catalog, r->complete) || still_growing(r)))
		r->complete = NULL; /* marked already, or too early */
	uint64_t total = 0, done = 0;
	for (size_t i = 0; i < r->n_candidates; i++)
		total += r->candidates[i].group->bytes;
	for (size_t i = 0; rc == 0 && i < r->n_candidates; i++) {
		if (r->n_packed == 0 && makes_room(r)) {
			r->complete = NULL;
			break;
		}
		if (r->candidates[i].gone)
			continue;
		/* Mutable files come last and ride along; alone they are no reason. */
		if (r->candidates[i].mutable && r->report->groups + r->n_packed == 0)
			break;
		rc = pack_one(r, &r->candidates[i], err);
		done += r->candidates[i].group->bytes;
		if (p->o.progress != NULL)
			p->o.progress(p->o.progress_arg, done, total);
	}
	if (rc == 0 && r->no_room > 0) {
		r->complete = NULL;
		if (r->n_packed > 0)
			rc = put_layer(r, false, err);
		if (rc == 0)
			rc = warm_error_set(err, WARM_NO_SPACE,
					    "volume %s: no space to spool %zu groups", p->o.volume,
					    r->no_room);
	}
	if (rc == 0 && r->n_packed == 0 && r->complete != NULL && r->pack == NULL)
		rc = open_spool(r, err);
	if (rc == 0 && r->pack != NULL && (r->n_packed > 0 || r->complete != NULL))
		rc = put_layer(r, true, err);
	return rc;
}

int warm_publisher_run(struct warm_publisher *p, enum warm_publish_mode mode, const char *complete,
		       warm_scan_dir_fn dir_fn, void *dir_arg, const struct warm_call *call,
		       struct warm_publish_report *ret_report, struct warm_error *err)
{
	struct round r = {
		.p = p,
		.mode = mode,
		.complete = complete,
		.call = call,
		.report = ret_report,
		.spool_fd = -1,
		.pace = { .percent = mode == WARM_PUBLISH_ROUND ? p->o.cpu_percent : 0,
			  .lifted = p->o.draining },
	};

	*ret_report = (struct warm_publish_report){ 0 };
	int rc = run_round(&r, dir_fn, dir_arg, err);
	close_spool(&r);
	warm_state_release(&r.state);
	warm_catalog_fold(&p->catalog);
	warm_scan_release(&r.scan);
	warm_ledger_release(&r.ledger);
	free(r.candidates);
	free(r.packed);
	return rc;
}

void warm_publisher_set_ready(struct warm_publisher *p)
{
	p->ready = true;
}

struct warm_use warm_publish_use(const struct warm_publish_report *report)
{
	struct warm_use sum = { 0 };

	for (int i = 0; i < WARM_PROFILES; i++) {
		sum.used += report->use[i].used;
		sum.inert += report->use[i].inert;
		sum.used_bytes += report->use[i].used_bytes;
		sum.inert_bytes += report->use[i].inert_bytes;
	}
	return sum;
}

int warm_publisher_explain_inert(struct warm_publisher *p, const struct warm_call *call,
				 struct warm_buf *ret_text, struct warm_error *err)
{
	scope_ledger struct warm_ledger ledger = { 0 };
	scope_scan struct warm_scan scan = { 0 };
	int rc = warm_ledger_load(&ledger, p->volume_fd, err);

	if (rc == 0)
		rc = warm_scan_run(p->volume_fd, &p->roots, p->o.max_file_bytes, NULL, NULL, call,
				   &scan, err);
	if (rc == 0)
		warm_inert_explain(p->volume_fd, p->mount, &scan, &ledger, ret_text);
	return rc;
}
