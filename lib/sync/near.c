/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/sync/near.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#include "lib/base/buf.h"
#include "lib/base/file.h"
#include "lib/layer/index.h"
#include "lib/layer/sha256.h"
#include "lib/sync/ledger.h"

#define LIST_PATH WARM_DIR "/near"

enum {
	NAMES = 512,
	LIST_BYTES = NAMES * (WARM_NAME_BYTES + 8),
	SPARE_BYTES = 64 << 20,	 /* of a disk, never taken for a copy on its way */
	MEMORY_BYTES = 64 << 20, /* the most where the volume's disk is memory, which may be ours */
};

/* ---- the list ---- */

/* The publisher notes while the list is being worked off. Another process may, too: what gets lost
 * then is named again by the next restore. */
static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;

struct wish {
	char *name;
	bool damaged;
	bool stays; /* some near store could not be served */
};

struct wishes {
	struct wish items[NAMES];
	size_t n;
};

static void wishes_release(struct wishes *w)
{
	for (size_t i = 0; i < w->n; i++)
		free(w->items[i].name);
	w->n = 0;
}

static int add_wish(struct wishes *w, const char *name, bool damaged, struct warm_error *err)
{
	for (size_t i = 0; i < w->n; i++)
		if (strcmp(w->items[i].name, name) == 0) {
			w->items[i].damaged = w->items[i].damaged || damaged;
			return 0;
		}
	if (w->n == NAMES)
		return 0; /* the next restore names it again */
	char *copy = strdup(name);
	if (copy == NULL)
		return warm_error_nomem(err, strlen(name));
	w->items[w->n++] = (struct wish){ copy, damaged, false };
	return 0;
}

/* Lines of '+' or '!' and a name. Anything else is passed over: the model can write there. */
static int load_wishes(int volume_fd, struct wishes *w, struct warm_error *err)
{
	scope_free char *data = NULL;
	size_t bytes = 0;
	char *save = NULL;
	int rc = warm_beneath_load(volume_fd, LIST_PATH, LIST_BYTES, &data, &bytes, err);

	w->n = 0;
	if (rc == WARM_NOT_FOUND || rc == WARM_CORRUPT || rc == WARM_LIMIT)
		return 0;
	for (char *line = rc == 0 ? strtok_r(data, "\n", &save) : NULL; rc == 0 && line != NULL;
	     line = strtok_r(NULL, "\n", &save))
		if (line[0] == '+' || line[0] == '!')
			rc = add_wish(w, line + 1, line[0] == '!', err);
	return rc;
}

static int save_wishes(int volume_fd, const struct wishes *w, struct warm_error *err)
{
	scope_buf struct warm_buf text = WARM_BUF_INIT;
	scope_close int dir = -1;

	int rc = warm_beneath_open(volume_fd, WARM_DIR, O_RDONLY | O_DIRECTORY, 0, &dir, err);
	if (rc != 0)
		return rc;
	for (size_t i = 0; i < w->n; i++)
		warm_buf_printf(&text, "%c%s\n", w->items[i].damaged ? '!' : '+', w->items[i].name);
	if (text.failed)
		return warm_error_nomem(err, text.bytes);
	if (text.bytes == 0)
		return unlinkat(dir, "near", 0) == 0 || errno == ENOENT
			       ? 0
			       : warm_error_errno(err, errno, "unlink " LIST_PATH);
	return warm_file_replace(dir, "near", text.data, text.bytes, 0666, false, err);
}

int warm_near_note(int volume_fd, const char *const *names, const bool *damaged, size_t n,
		   struct warm_error *err)
{
	scope_free struct wishes *w = calloc(1, sizeof(*w));

	if (w == NULL)
		return warm_error_nomem(err, sizeof(*w));
	pthread_mutex_lock(&list_lock);
	int rc = load_wishes(volume_fd, w, err);
	for (size_t i = 0; rc == 0 && i < n; i++)
		rc = add_wish(w, names[i], damaged[i], err);
	if (rc == 0 && w->n > 0)
		rc = save_wishes(volume_fd, w, err);
	pthread_mutex_unlock(&list_lock);
	wishes_release(w);
	return rc;
}

/* Take off the list what is done; what was named meanwhile stays. */
static int forget_done(int volume_fd, const struct wishes *done, struct warm_error *err)
{
	scope_free struct wishes *now = calloc(1, sizeof(*now));

	if (now == NULL)
		return warm_error_nomem(err, sizeof(*now));
	pthread_mutex_lock(&list_lock);
	int rc = load_wishes(volume_fd, now, err);
	size_t kept = 0;
	for (size_t i = 0; i < now->n; i++) {
		bool stays = true;
		for (size_t k = 0; k < done->n; k++)
			if (strcmp(now->items[i].name, done->items[k].name) == 0)
				stays = done->items[k].stays;
		if (stays)
			now->items[kept++] = now->items[i];
		else
			free(now->items[i].name);
	}
	now->n = kept;
	if (rc == 0)
		rc = save_wishes(volume_fd, now, err);
	pthread_mutex_unlock(&list_lock);
	wishes_release(now);
	return rc;
}

/* ---- a copy on its way ---- */

struct spool {
	int fd; /* -1: none yet */
	uint64_t bytes, at;
};

static int spool_bytes(void *arg, const void *data, size_t bytes, struct warm_error *err)
{
	struct spool *s = arg;
	int rc = warm_file_write_at(s->fd, data, bytes, s->at, err);

	s->at += bytes;
	return rc;
}

static int verify_frames(int fd, const struct warm_index *index, const struct warm_call *call,
			 struct warm_error *err)
{
	uint8_t digest[32];

	for (size_t i = 0; i < index->n_frames; i++) {
		const struct warm_frame *f = &index->frames[i];
		scope_free uint8_t *data = malloc(f->bytes);
		if (data == NULL)
			return warm_error_nomem(err, f->bytes);
		int rc = warm_call_check(call, err);
		if (rc == 0)
			rc = warm_file_read_at(fd, data, f->bytes, f->offset, err);
		if (rc == 0)
			rc = warm_sha256(data, f->bytes, digest, err);
		if (rc != 0)
			return rc;
		if (memcmp(digest, f->digest, sizeof(digest)) != 0)
			return warm_error_set(err, WARM_CORRUPT, "frame %zu: the digest is wrong",
					      i);
	}
	return 0;
}

static int verify_spool(const struct spool *s, const struct warm_key *key,
			const struct warm_layer_name *name, const struct warm_call *call,
			struct warm_error *err)
{
	uint64_t bytes = warm_trailer_bytes(name);
	scope_index struct warm_index *index = NULL;

	if (name->index_bytes > WARM_INDEX_BYTES || s->bytes < bytes)
		return warm_error_set(err, WARM_CORRUPT, "cut short");
	scope_free uint8_t *trailer = malloc((size_t)bytes);
	if (trailer == NULL)
		return warm_error_nomem(err, (size_t)bytes);
	int rc = warm_file_read_at(s->fd, trailer, (size_t)bytes, s->bytes - bytes, err);
	if (rc == 0)
		rc = warm_index_parse(trailer, (size_t)bytes, s->bytes, key, name, &index, err);
	return rc != 0 ? rc : verify_frames(s->fd, index, call, err);
}

/* On near's own disk where it has one, else in the volume. */
static int open_spool(int volume_fd, struct warm_store *near, uint64_t bytes, int *ret_fd,
		      struct warm_error *err)
{
	struct statvfs space;
	struct statfs fs;
	bool in_volume = false;
	scope_close int fd = -1;
	int rc = warm_store_spool(near, &fd, err);

	if (rc == WARM_UNSUPPORTED) {
		scope_close int dir = -1;
		in_volume = true;
		rc = warm_beneath_open(volume_fd, WARM_DIR, O_RDONLY | O_DIRECTORY, 0, &dir, err);
		if (rc == 0)
			rc = warm_file_unnamed(dir, ".", &fd, err);
	}
	if (rc != 0)
		return rc;
	if (in_volume && bytes > MEMORY_BYTES && fstatfs(fd, &fs) == 0 &&
	    (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC))
		return warm_error_set(err, WARM_LIMIT, "%llu bytes, and the volume is in memory",
				      (unsigned long long)bytes);
	if (fstatvfs(fd, &space) == 0 &&
	    (uint64_t)space.f_bavail * space.f_frsize < bytes + SPARE_BYTES)
		return warm_error_set(err, WARM_NO_SPACE, "no space to copy %llu bytes",
				      (unsigned long long)bytes);
	*ret_fd = take_fd(&fd);
	return 0;
}

/* Read an object whole into a file without a name, and verify it. */
static int fetch_whole(struct warm_store *store, const char *object, struct spool *s,
		       const struct warm_call *call, struct warm_error *err)
{
	struct warm_key key;
	struct warm_layer_name name;

	int rc = warm_layer_name_parse(object, &key, &name, err);
	if (rc != 0)
		return rc;
	s->at = 0;
	rc = warm_store_get(store, object, 0, s->bytes, spool_bytes, s, call, err);
	if (rc == 0)
		rc = verify_spool(s, &key, &name, call, err);
	if (rc != 0)
		warm_error_context(err, "copy %.200s", object);
	return rc;
}

/* ---- the bound ---- */

struct held {
	char *name;
	uint64_t bytes;
	int64_t used_ms;
};

struct near {
	struct warm_store *store;
	bool sick;
	bool listed;
	struct held *held; /* least used first */
	size_t n_held, capacity, next;
	uint64_t total_bytes;
};

static int hold(void *arg, const struct warm_object *object, struct warm_error *err)
{
	struct near *n = arg;
	struct warm_key key;
	struct warm_layer_name name;

	if (warm_layer_name_parse(object->name, &key, &name, NULL) != 0)
		return 0; /* not ours to count, nor to delete */
	if (n->n_held == n->capacity) {
		size_t capacity = n->capacity == 0 ? 64 : 2 * n->capacity;
		struct held *held = realloc(n->held, capacity * sizeof(*held));
		if (held == NULL)
			return warm_error_nomem(err, capacity * sizeof(*held));
		n->held = held;
		n->capacity = capacity;
	}
	char *copy = strdup(object->name);
	if (copy == NULL)
		return warm_error_nomem(err, strlen(object->name));
	/* A copy that nobody has read since it was made counts from then. */
	int64_t used_ms = object->used_ms > object->modified_ms ? object->used_ms
								: object->modified_ms;
	n->held[n->n_held++] = (struct held){ copy, object->bytes, used_ms };
	n->total_bytes += object->bytes;
	return 0;
}

static int least_used_first(const void *a_p, const void *b_p)
{
	const struct held *a = a_p, *b = b_p;

	if (a->used_ms != b->used_ms)
		return a->used_ms < b->used_ms ? -1 : 1;
	return strcmp(a->name, b->name);
}

static bool is_wished(const struct wishes *w, const char *name)
{
	for (size_t i = 0; i < w->n; i++)
		if (strcmp(w->items[i].name, name) == 0)
			return true;
	return false;
}

/* Make room for `bytes`. LIMIT when what is wanted now takes it all. */
static int make_room(struct near *n, const struct wishes *w, uint64_t bytes, uint64_t max_bytes,
		     struct warm_near_report *report, const struct warm_call *call,
		     struct warm_error *err)
{
	if (max_bytes == 0)
		return 0;
	if (!n->listed) {
		int rc = warm_store_list(n->store, "", hold, n, NULL, call, err);
		if (rc != 0 && rc != WARM_NOT_FOUND)
			return rc;
		n->listed = true;
		if (n->n_held > 1)
			qsort(n->held, n->n_held, sizeof(*n->held), least_used_first);
	}
	for (; bytes > max_bytes || n->total_bytes > max_bytes - bytes; n->next++) {
		if (bytes > max_bytes || n->next == n->n_held)
			return warm_error_set(err, WARM_LIMIT,
					      "a layer of %llu bytes: over the bound",
					      (unsigned long long)bytes);
		const struct held *h = &n->held[n->next];
		if (is_wished(w, h->name))
			continue;
		int rc = warm_store_delete(n->store, h->name, call, err);
		if (rc != 0)
			return rc;
		n->total_bytes -= h->bytes;
		report->evicted++;
	}
	return 0;
}

/* ---- filling ---- */

struct fill {
	const struct warm_near_options *o;
	const struct warm_call *call;
	struct warm_near_report *report;
	struct wishes *wishes;
	struct near near[16];
	int volume_fd;
	struct spool spool; /* of far's copy */
	bool spooled;
};

/* Does near hold it as it should be? Only a reason to doubt makes it worth a read. */
static int is_right(struct fill *f, struct near *n, const struct wish *w, uint64_t bytes,
		    bool *ret_there, bool *ret_right, struct warm_error *err)
{
	struct warm_object object;
	struct spool mine = { .fd = -1, .bytes = bytes };
	int rc = warm_store_head(n->store, w->name, &object, f->call, err);

	*ret_there = rc == 0 || rc == WARM_CORRUPT;
	*ret_right = rc == 0 && object.bytes == bytes;
	if (rc != 0 && rc != WARM_NOT_FOUND && rc != WARM_CORRUPT)
		return rc;
	if (!*ret_right || !w->damaged)
		return 0;
	rc = open_spool(f->volume_fd, n->store, bytes, &mine.fd, err);
	if (rc == 0)
		rc = fetch_whole(n->store, w->name, &mine, f->call, err);
	if (mine.fd >= 0)
		close(mine.fd);
	*ret_right = rc == 0;
	return rc == WARM_CORRUPT || rc == WARM_NOT_FOUND ? 0 : rc;
}

static int serve(struct fill *f, struct near *n, const struct wish *w, uint64_t bytes, int *ret_far,
		 struct warm_error *err)
{
	bool there = false, right = false;
	int rc = is_right(f, n, w, bytes, &there, &right, err);

	if (rc != 0 || right)
		return rc;
	rc = make_room(n, f->wishes, bytes, f->o->max_bytes, f->report, f->call, err);
	if (rc == 0 && !f->spooled) {
		if (f->spool.fd >= 0)
			close(take_fd(&f->spool.fd));
		f->spool.bytes = bytes;
		rc = open_spool(f->volume_fd, n->store, bytes, &f->spool.fd, err);
		if (rc == 0)
			rc = *ret_far = fetch_whole(f->o->stores[f->o->n_stores - 1], w->name,
						    &f->spool, f->call, err);
		f->spooled = rc == 0;
	}
	if (rc == 0 && there)
		rc = warm_store_delete(n->store, w->name, f->call, err);
	if (rc == 0)
		rc = warm_store_put(n->store, w->name, f->spool.fd, bytes, f->call, err);
	if (rc == WARM_EXISTS)
		return 0; /* another pod was faster */
	if (rc != 0)
		return rc;
	n->total_bytes += bytes;
	f->report->filled += !there;
	f->report->repaired += there;
	f->report->bytes += bytes;
	return 0;
}

/* One name into every near store. An error is one of far, of the volume, or the end. */
static int fill_one(struct fill *f, struct wish *w, struct warm_error *err)
{
	struct warm_store *far = f->o->stores[f->o->n_stores - 1];
	struct warm_key key;
	struct warm_layer_name name;
	struct warm_object object;

	/* Only this model's: the list is the model's to write. */
	if (warm_layer_name_parse(w->name, &key, &name, NULL) != 0 ||
	    strcmp(key.model, f->o->key.model) != 0)
		return 0;
	int rc = warm_store_head(far, w->name, &object, f->call, err);
	if (rc == WARM_NOT_FOUND)
		return 0; /* compacted away */
	if (rc != 0)
		return rc;
	f->spooled = false;
	for (size_t i = 0; i + 1 < f->o->n_stores; i++) {
		struct near *n = &f->near[i];
		int far_rc = 0;
		w->stays = w->stays || n->sick;
		if (n->sick)
			continue;
		rc = serve(f, n, w, object.bytes, &far_rc, err);
		if (rc == 0)
			continue;
		if (rc == WARM_CANCELED || rc == WARM_NO_MEMORY)
			return rc;
		if (far_rc == WARM_CORRUPT || far_rc == WARM_NOT_FOUND || rc == WARM_LIMIT) {
			/* Not to be copied: what reads it from far refuses it too. */
			warm_notice(f->o->notices, "near", "%s", err->msg);
			return 0;
		}
		if (far_rc != 0)
			return far_rc;
		warm_notice(f->o->notices, "near-passed-over", "%s", err->msg);
		n->sick = true;
		w->stays = true;
	}
	return 0;
}

int warm_near_fill(const struct warm_near_options *options, const struct warm_call *call,
		   struct warm_near_report *ret_report, struct warm_error *err)
{
	struct fill f = { .o = options, .call = call, .report = ret_report };
	scope_free struct wishes *w = calloc(1, sizeof(*w));
	scope_close int volume_fd = open(options->volume, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct warm_error own = { 0 };

	if (err == NULL)
		err = &own;
	*ret_report = (struct warm_near_report){ 0 };
	if (volume_fd < 0)
		return warm_error_errno(err, errno, "volume %s", options->volume);
	if (w == NULL)
		return warm_error_nomem(err, sizeof(*w));
	f.wishes = w;
	f.volume_fd = volume_fd;
	f.spool.fd = -1;
	for (size_t i = 0; i + 1 < options->n_stores; i++)
		f.near[i].store = options->stores[i];
	int rc = load_wishes(volume_fd, w, err);
	for (size_t i = 0; i < w->n; i++) {
		struct wish *wish = &w->items[i];
		if (rc == 0)
			rc = fill_one(&f, wish, err);
		wish->stays = wish->stays || rc != 0;
		ret_report->left += wish->stays;
	}
	struct warm_error save_err = { 0 };
	int saved = w->n > 0 ? forget_done(volume_fd, w, &save_err) : 0;
	if (rc == 0 && saved != 0) {
		rc = saved;
		*err = save_err;
	}
	if (f.spool.fd >= 0)
		close(f.spool.fd);
	for (size_t i = 0; i + 1 < options->n_stores; i++) {
		for (size_t k = 0; k < f.near[i].n_held; k++)
			free(f.near[i].held[k].name);
		free(f.near[i].held);
	}
	wishes_release(w);
	return rc;
}
