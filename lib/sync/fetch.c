/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/sync/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/file.h"
#include "lib/base/parallel.h"
#include "lib/layer/unpack.h"

enum {
	BUDGET_BYTES = 24 << 20,
	IN_FLIGHT_BYTES = 512 << 10, /* a fetcher, of the budget: what is few stays in the cache */
	MAX_DECODERS = 4,	     /* each holds a decoded frame of 4 MiB at most */
	MAX_FETCHERS = 16,
	RANGE_BYTES = 8 << 20,
	MIN_RANGE_BYTES = 512 << 10,
	GAP_BYTES = 64 << 10, /* cheaper to read through than to ask again */
	MAX_DEPTH = 128,
};

/* A piece of a file that one frame holds. */
struct part {
	uint32_t frame;
	uint32_t item;
	uint32_t file;
};

struct range {
	uint32_t layer;
	uint32_t first, end; /* frames */
	uint64_t bytes;
};

/* A frame on its way from a fetcher to a decoder. */
struct packet {
	struct packet *next;
	uint32_t layer, frame;
	size_t used, capacity;
	uint8_t data[];
};

struct plan {
	struct part *parts; /* sorted by frame */
	size_t n_parts;
	uint32_t *first_part; /* per frame, n_frames + 1; NULL: nothing wanted */
};

struct engine {
	struct warm_fetch *fetch;
	const struct warm_call *outer;
	struct warm_call call; /* with our own cancel flag */
	atomic_bool cancel;
	struct plan *plans;
	struct range *ranges;
	size_t n_ranges;
	atomic_size_t next_range;
	uint64_t total_bytes;
	atomic_uint *left;   /* parts of each item still to come */
	atomic_bool *failed; /* per item */

	pthread_mutex_t lock;
	pthread_cond_t room; /* budget or the end */
	pthread_cond_t work; /* a packet or the end */
	struct packet *head, **tail;
	struct packet *spare; /* buffers to use again */
	size_t in_flight_bytes, budget_bytes;
	unsigned fetchers;
	bool stopped;
	int status;
	struct warm_error first;
	uint64_t fetched_bytes, frames;
};

static void note_error(struct engine *e, int rc, const struct warm_error *err)
{
	bool fatal = rc == WARM_CANCELED || rc == WARM_NO_SPACE || rc == WARM_NO_MEMORY;

	pthread_mutex_lock(&e->lock);
	if (e->status == 0 || (fatal && e->status != WARM_CANCELED && !e->stopped)) {
		e->status = rc;
		e->first = *err;
	}
	if (fatal) {
		e->stopped = true;
		atomic_store(&e->cancel, true);
		pthread_cond_broadcast(&e->room);
		pthread_cond_broadcast(&e->work);
	}
	pthread_mutex_unlock(&e->lock);
}

static void fail_frames(struct engine *e, uint32_t layer, uint32_t first, uint32_t end)
{
	const struct plan *p = &e->plans[layer];

	if (e->fetch->layer_bad != NULL)
		__atomic_store_n(&e->fetch->layer_bad[layer], true, __ATOMIC_RELAXED);
	if (p->first_part == NULL)
		return;
	for (uint32_t i = p->first_part[first]; i < p->first_part[end]; i++)
		atomic_store(&e->failed[p->parts[i].item], true);
}

static void item_path(const struct warm_fetch_item *item, const struct warm_file *file,
		      char ret_path[2 * WARM_PATH_BYTES])
{
	snprintf(ret_path, 2 * WARM_PATH_BYTES, "%s%s%s", item->below,
		 item->below[0] != '\0' ? "/" : "", file->path);
}

/* ---- planning ---- */

static int compare_parts(const void *a_p, const void *b_p)
{
	const struct part *a = a_p, *b = b_p;

	return a->frame < b->frame ? -1 : a->frame > b->frame;
}

static int plan_layer(struct engine *e, uint32_t layer, struct warm_error *err)
{
	const struct warm_fetch *f = e->fetch;
	const struct warm_index *index = f->layers[layer].index;
	struct plan *p = &e->plans[layer];
	size_t capacity = 0, first, end;
	bool wanted = f->wanted != NULL && f->wanted[layer];

	for (size_t i = 0; i < f->n_items; i++) {
		const struct warm_fetch_item *item = &f->items[i];
		if (item->layer != layer)
			continue;
		wanted = true;
		for (size_t k = 0; k < item->group->n_files; k++) {
			warm_index_frames_of(index, &index->files[item->group->first_file + k],
					     &first, &end);
			capacity += end - first;
		}
	}
	if (!wanted)
		return 0;
	p->parts = calloc(capacity + 1, sizeof(*p->parts));
	p->first_part = calloc(index->n_frames + 2, sizeof(*p->first_part));
	if (p->parts == NULL || p->first_part == NULL)
		return warm_error_nomem(err, capacity * sizeof(*p->parts));
	for (size_t i = 0; i < f->n_items; i++) {
		const struct warm_fetch_item *item = &f->items[i];
		if (item->layer != layer)
			continue;
		unsigned left = 0;
		for (size_t k = 0; k < item->group->n_files; k++) {
			uint32_t file = item->group->first_file + (uint32_t)k;
			warm_index_frames_of(index, &index->files[file], &first, &end);
			for (; first < end; first++, left++)
				p->parts[p->n_parts++] = (struct part){ (uint32_t)first,
									(uint32_t)i, file };
		}
		atomic_store(&e->left[i], left);
	}
	/* Items mostly come in the order of the layer, but nothing promises it. */
	qsort(p->parts, p->n_parts, sizeof(*p->parts), compare_parts);
	size_t at = 0;
	for (size_t frame = 0; frame <= index->n_frames; frame++) {
		p->first_part[frame] = (uint32_t)at;
		while (at < p->n_parts && p->parts[at].frame == frame)
			at++;
	}
	p->first_part[index->n_frames + 1] = (uint32_t)at;
	return 0;
}

static bool frame_wanted(const struct engine *e, uint32_t layer, size_t frame)
{
	const struct plan *p = &e->plans[layer];

	return p->first_part != NULL &&
	       (e->fetch->all_frames || p->first_part[frame] < p->first_part[frame + 1]);
}

static int add_range(struct engine *e, size_t *capacity, struct range range, struct warm_error *err)
{
	if (e->n_ranges == *capacity) {
		size_t more = *capacity == 0 ? 64 : 2 * *capacity;
		struct range *ranges = realloc(e->ranges, more * sizeof(*ranges));
		if (ranges == NULL)
			return warm_error_nomem(err, more * sizeof(*ranges));
		e->ranges = ranges;
		*capacity = more;
	}
	e->ranges[e->n_ranges++] = range;
	e->total_bytes += range.bytes;
	return 0;
}

static int plan_ranges(struct engine *e, unsigned parallel, struct warm_error *err)
{
	uint64_t wanted_bytes = 0;
	size_t capacity = 0;

	for (size_t l = 0; l < e->fetch->n_layers; l++)
		for (size_t i = 0;
		     e->plans[l].first_part != NULL && i < e->fetch->layers[l].index->n_frames; i++)
			if (frame_wanted(e, (uint32_t)l, i))
				wanted_bytes += e->fetch->layers[l].index->frames[i].bytes;
	uint64_t target = wanted_bytes / (2 * parallel);
	if (target > RANGE_BYTES)
		target = RANGE_BYTES;
	if (target < MIN_RANGE_BYTES)
		target = MIN_RANGE_BYTES;
	for (size_t l = 0; l < e->fetch->n_layers; l++) {
		const struct warm_index *index = e->fetch->layers[l].index;
		struct range r = { .layer = (uint32_t)l };
		if (e->plans[l].first_part == NULL)
			continue;
		for (size_t i = 0; i < index->n_frames; i++) {
			const struct warm_frame *f = &index->frames[i];
			if (!frame_wanted(e, (uint32_t)l, i))
				continue;
			uint64_t gap = r.end > r.first
					       ? f->offset - index->frames[r.first].offset - r.bytes
					       : 0;
			if (r.end > r.first &&
			    (gap > GAP_BYTES || r.bytes + gap + f->bytes > target)) {
				int rc = add_range(e, &capacity, r, err);
				if (rc != 0)
					return rc;
				r.end = r.first = 0;
			}
			if (r.end == r.first) {
				r.first = (uint32_t)i;
				r.bytes = 0;
				gap = 0;
			}
			r.end = (uint32_t)i + 1;
			r.bytes += gap + f->bytes;
		}
		if (r.end > r.first) {
			int rc = add_range(e, &capacity, r, err);
			if (rc != 0)
				return rc;
		}
	}
	return 0;
}

/* ---- directories ---- */

static int compare_paths(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The directories that were made last, open, from the top down: in sorted order each one costs
 * one mkdir and one open. */
struct dir_stack {
	int depth;
	int fds[MAX_DEPTH];
	size_t ends[MAX_DEPTH]; /* in `path` */
	char path[2 * WARM_PATH_BYTES];
};

static void pop_dirs(struct dir_stack *s, int depth)
{
	while (s->depth > depth)
		close(s->fds[--s->depth]);
}

static int make_dir(struct dir_stack *s, int root_fd, const char *path, struct warm_error *err)
{
	char part[256];
	struct stat st;
	int depth = 0;

	while (depth < s->depth && strncmp(s->path, path, s->ends[depth]) == 0 &&
	       (path[s->ends[depth]] == '/' || path[s->ends[depth]] == '\0'))
		depth++;
	pop_dirs(s, depth);
	size_t at = depth > 0 ? s->ends[depth - 1] : 0;
	while (path[at] != '\0') {
		at += path[at] == '/';
		size_t n = strcspn(path + at, "/");
		if (n >= sizeof(part) || s->depth == MAX_DEPTH)
			return 0; /* the group fails when its file is written */
		memcpy(part, path + at, n);
		part[n] = '\0';
		at += n;
		int parent = s->depth > 0 ? s->fds[s->depth - 1] : root_fd;
		if (mkdirat(parent, part, 0777) != 0 && errno != EEXIST)
			return errno == ENOTDIR ? 0
						: warm_error_errno(err, errno, "mkdir %s", part);
		int fd = openat(parent, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			/* A file of another group is in the way: this group fails later. */
			return errno == ENOTDIR || errno == ELOOP
				       ? 0
				       : warm_error_errno(err, errno, "open directory %s", part);
		s->fds[s->depth] = fd;
		s->ends[s->depth++] = at;
		memcpy(s->path, path, at);
		/* The umask may have taken bits. */
		if (fstat(fd, &st) != 0 || ((st.st_mode & 0777) != 0777 && fchmod(fd, 0777) != 0))
			return warm_error_errno(err, errno, "chmod %s", part);
	}
	return 0;
}

static int make_dirs(struct engine *e, struct warm_error *err)
{
	struct warm_fetch *f = e->fetch;
	char path[2 * WARM_PATH_BYTES], last[2 * WARM_PATH_BYTES] = "";
	size_t n = 0, capacity = 0;
	char **dirs = NULL;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < f->n_items; i++) {
		const struct warm_fetch_item *item = &f->items[i];
		const struct warm_index *index = f->layers[item->layer].index;
		for (size_t k = 0; rc == 0 && k < item->group->n_files; k++) {
			item_path(item, &index->files[item->group->first_file + k], path);
			char *slash = strrchr(path, '/');
			if (slash == NULL)
				continue;
			*slash = '\0';
			if (strcmp(path, last) == 0)
				continue;
			snprintf(last, sizeof(last), "%s", path);
			if (n == capacity) {
				capacity = capacity == 0 ? 256 : 2 * capacity;
				char **more = realloc(dirs, capacity * sizeof(*dirs));
				if (more == NULL) {
					rc = warm_error_nomem(err, capacity * sizeof(*dirs));
					break;
				}
				dirs = more;
			}
			if ((dirs[n] = strdup(path)) == NULL)
				rc = warm_error_nomem(err, sizeof(path));
			else
				n++;
		}
	}
	if (n > 1)
		qsort(dirs, n, sizeof(*dirs), compare_paths);
	struct dir_stack stack = { .depth = 0 };
	for (size_t i = 0; rc == 0 && i < n; i++)
		rc = make_dir(&stack, f->dir_fd, dirs[i], err);
	pop_dirs(&stack, 0);
	for (size_t i = 0; i < n; i++)
		free(dirs[i]);
	free(dirs);
	return rc;
}

/* ---- fetchers ---- */

static struct packet *get_packet(struct engine *e, size_t bytes)
{
	struct packet *p = NULL;

	pthread_mutex_lock(&e->lock);
	while (!e->stopped && e->in_flight_bytes > 0 &&
	       e->in_flight_bytes + bytes > e->budget_bytes)
		pthread_cond_wait(&e->room, &e->lock);
	if (e->stopped) {
		pthread_mutex_unlock(&e->lock);
		return NULL;
	}
	e->in_flight_bytes += bytes;
	/* One is woken for each packet that ends; who has got in wakes the next while there is room. */
	if (e->in_flight_bytes < e->budget_bytes)
		pthread_cond_signal(&e->room);
	struct packet **best = NULL;
	for (struct packet **s = &e->spare; *s != NULL; s = &(*s)->next)
		if ((*s)->capacity >= bytes && (best == NULL || (*s)->capacity < (*best)->capacity))
			best = s;
	if (best != NULL) {
		p = *best;
		*best = p->next;
	} else if (e->spare != NULL) {
		/* Too small for this one: let it go, so that spares stay within the budget. */
		p = e->spare;
		e->spare = p->next;
		free(p);
		p = NULL;
	}
	pthread_mutex_unlock(&e->lock);
	if (p == NULL) {
		size_t capacity = (bytes + 0xffff) & ~(size_t)0xffff;
		p = malloc(sizeof(*p) + capacity);
		if (p != NULL)
			p->capacity = capacity;
	}
	if (p == NULL) {
		pthread_mutex_lock(&e->lock);
		e->in_flight_bytes -= bytes;
		pthread_mutex_unlock(&e->lock);
		struct warm_error err = { 0 };
		note_error(e, warm_error_nomem(&err, bytes), &err);
		return NULL;
	}
	p->used = 0;
	p->next = NULL;
	return p;
}

static void put_packet(struct engine *e, struct packet *p, size_t bytes)
{
	pthread_mutex_lock(&e->lock);
	e->in_flight_bytes -= bytes;
	p->next = e->spare;
	e->spare = p;
	pthread_cond_signal(&e->room);
	pthread_mutex_unlock(&e->lock);
}

struct stream {
	struct engine *e;
	const struct range *range;
	const struct warm_index *index;
	uint32_t frame;
	uint64_t skip; /* bytes of a gap still to pass over */
	struct packet *packet;
};

static void send_packet(struct engine *e, struct packet *p)
{
	pthread_mutex_lock(&e->lock);
	*e->tail = p;
	e->tail = &p->next;
	e->fetched_bytes += p->used;
	e->frames++;
	uint64_t fetched = e->fetched_bytes;
	pthread_cond_signal(&e->work);
	pthread_mutex_unlock(&e->lock);
	if (e->fetch->progress != NULL)
		e->fetch->progress(e->fetch->progress_arg, fetched, e->total_bytes);
}

static int take_bytes(void *arg, const void *data, size_t bytes, struct warm_error *err)
{
	struct stream *s = arg;
	const uint8_t *p = data;

	int rc = warm_call_check(s->e->outer, err);
	if (rc != 0)
		return rc;
	while (bytes > 0) {
		if (s->frame >= s->range->end)
			return warm_error_set(err, WARM_CORRUPT,
					      "the store sent more than was asked for");
		const struct warm_frame *f = &s->index->frames[s->frame];
		if (s->packet == NULL && s->skip == 0) {
			if (!frame_wanted(s->e, s->range->layer, s->frame)) {
				s->skip = f->bytes;
			} else {
				s->packet = get_packet(s->e, f->bytes);
				if (s->packet == NULL)
					return warm_error_set(err, WARM_CANCELED, "told to stop");
				s->packet->layer = s->range->layer;
				s->packet->frame = s->frame;
			}
		}
		size_t n = bytes;
		if (s->skip > 0) {
			if (n > s->skip)
				n = (size_t)s->skip;
			s->skip -= n;
			if (s->skip == 0)
				s->frame++;
		} else {
			if (n > f->bytes - s->packet->used)
				n = f->bytes - s->packet->used;
			memcpy(s->packet->data + s->packet->used, p, n);
			s->packet->used += n;
			if (s->packet->used == f->bytes) {
				send_packet(s->e, s->packet);
				s->packet = NULL;
				s->frame++;
			}
		}
		p += n;
		bytes -= n;
	}
	return 0;
}

static void fetch_range(struct engine *e, const struct range *range)
{
	const struct warm_layer *layer = &e->fetch->layers[range->layer];
	struct warm_error err = { 0 };
	struct stream s = { .e = e, .range = range, .index = layer->index, .frame = range->first };

	int rc = warm_store_get(e->fetch->store, layer->object,
				layer->index->frames[range->first].offset, range->bytes, take_bytes,
				&s, &e->call, &err);
	if (s.packet != NULL)
		put_packet(e, s.packet, layer->index->frames[s.frame].bytes);
	if (rc == 0)
		return;
	fail_frames(e, range->layer, s.frame, range->end);
	if (rc == WARM_CANCELED && warm_call_check(e->outer, &err) != 0)
		rc = WARM_CANCELED; /* say why: deadline or stop */
	note_error(e, rc, &err);
}

static void *fetcher(void *arg)
{
	struct engine *e = arg;

	for (;;) {
		size_t i = atomic_fetch_add(&e->next_range, 1);
		if (i >= e->n_ranges)
			break;
		if (atomic_load(&e->cancel))
			fail_frames(e, e->ranges[i].layer, e->ranges[i].first, e->ranges[i].end);
		else
			fetch_range(e, &e->ranges[i]);
	}
	pthread_mutex_lock(&e->lock);
	e->fetchers--;
	pthread_cond_broadcast(&e->work);
	pthread_mutex_unlock(&e->lock);
	return NULL;
}

/* ---- decoders ---- */

/* All parts of an item are written: give times to its files of many frames, make empty ones. */
static int settle_item(struct engine *e, uint32_t i, struct warm_error *err)
{
	const struct warm_fetch_item *item = &e->fetch->items[i];
	const struct warm_index *index = e->fetch->layers[item->layer].index;
	char path[2 * WARM_PATH_BYTES];
	size_t first, end;

	for (size_t k = 0; k < item->group->n_files; k++) {
		const struct warm_file *file = &index->files[item->group->first_file + k];
		warm_index_frames_of(index, file, &first, &end);
		if (end - first == 1)
			continue;
		item_path(item, file, path);
		int rc = warm_unpack_settle(e->fetch->dir_fd, path, file, e->fetch->atime_ns, err);
		if (rc != 0)
			return rc;
	}
	return 0;
}

static void end_part(struct engine *e, uint32_t item, unsigned n)
{
	struct warm_error err = { 0 };

	if (atomic_fetch_sub(&e->left[item], n) != n)
		return;
	if (atomic_load(&e->failed[item]))
		return;
	if (e->fetch->dir_fd >= 0) {
		int rc = settle_item(e, item, &err);
		if (rc != 0) {
			atomic_store(&e->failed[item], true);
			note_error(e, rc, &err);
			return;
		}
	}
	e->fetch->items[item].done = true;
}

static int refill(void *arg, const void *data, size_t bytes, struct warm_error *err)
{
	struct packet *p = arg;

	if (bytes > p->capacity - p->used)
		return warm_error_set(err, WARM_CORRUPT, "the store sent more than was asked for");
	memcpy(p->data + p->used, data, bytes);
	p->used += bytes;
	return 0;
}

/* A frame whose digest is wrong may come right from behind a damaged copy. */
static int decode_again(struct engine *e, struct warm_unpack *unpack, struct packet *packet,
			const uint8_t **ret_raw, struct warm_error *err)
{
	const struct warm_layer *layer = &e->fetch->layers[packet->layer];
	const struct warm_frame *frame = &layer->index->frames[packet->frame];

	if (!warm_store_distrust(e->fetch->store, layer->object))
		return err->status;
	packet->used = 0;
	int rc = warm_store_get(e->fetch->store, layer->object, frame->offset, frame->bytes, refill,
				packet, &e->call, err);
	packet->used = frame->bytes;
	return rc != 0 ? rc
		       : warm_unpack_frame(unpack, layer->index, packet->frame, packet->data,
					   ret_raw, err);
}

static void decode(struct engine *e, struct warm_unpack *unpack, struct packet *packet)
{
	const struct warm_layer *layer = &e->fetch->layers[packet->layer];
	const struct plan *plan = &e->plans[packet->layer];
	char path[2 * WARM_PATH_BYTES];
	struct warm_error err = { 0 };
	const uint8_t *raw = NULL;

	int rc = warm_unpack_frame(unpack, layer->index, packet->frame, packet->data, &raw, &err);
	if (rc == WARM_CORRUPT)
		rc = decode_again(e, unpack, packet, &raw, &err);
	if (rc != 0) {
		warm_error_context(&err, "%s", layer->object);
		warm_notice(e->fetch->notices, "frame-refused", "%s", err.msg);
		fail_frames(e, packet->layer, packet->frame, packet->frame + 1);
		note_error(e, rc, &err);
		return;
	}
	for (uint32_t i = plan->first_part[packet->frame]; i < plan->first_part[packet->frame + 1];
	     i++) {
		const struct part *part = &plan->parts[i];
		const struct warm_fetch_item *item = &e->fetch->items[part->item];
		const struct warm_file *file = &layer->index->files[part->file];
		if (e->fetch->dir_fd >= 0 && !atomic_load(&e->failed[part->item])) {
			item_path(item, file, path);
			rc = warm_unpack_write(e->fetch->dir_fd, path, layer->index, packet->frame,
					       file, raw, e->fetch->atime_ns, &err);
			if (rc != 0) {
				atomic_store(&e->failed[part->item], true);
				note_error(e, rc, &err);
			}
		}
		end_part(e, part->item, 1);
	}
}

static void *decoder(void *arg)
{
	struct engine *e = arg;
	scope_unpack struct warm_unpack *unpack = NULL;
	struct warm_error err = { 0 };

	int rc = warm_unpack_new(&unpack, &err);
	if (rc != 0)
		note_error(e, rc, &err);
	for (;;) {
		pthread_mutex_lock(&e->lock);
		while (e->head == NULL && e->fetchers > 0)
			pthread_cond_wait(&e->work, &e->lock);
		struct packet *p = e->head;
		if (p == NULL) {
			pthread_mutex_unlock(&e->lock);
			return NULL;
		}
		e->head = p->next;
		if (e->head == NULL)
			e->tail = &e->head;
		bool stopped = e->stopped;
		pthread_mutex_unlock(&e->lock);
		/* After the deadline nothing is written any more: the rest has no time. */
		if (stopped || unpack == NULL)
			fail_frames(e, p->layer, p->frame, p->frame + 1);
		else
			decode(e, unpack, p);
		put_packet(e, p, p->used);
	}
}

/* ---- the whole ---- */

static int run_threads(struct engine *e, unsigned fetchers, unsigned decoders,
		       struct warm_error *err)
{
	pthread_t ids[MAX_FETCHERS + MAX_DECODERS];
	unsigned n = 0, decoding = 0;

	e->fetchers = fetchers;
	for (; decoding < decoders; decoding++, n++)
		if (pthread_create(&ids[n], NULL, decoder, e) != 0)
			break;
	unsigned fetching = 0;
	for (; decoding > 0 && fetching < fetchers; fetching++, n++)
		if (pthread_create(&ids[n], NULL, fetcher, e) != 0)
			break;
	pthread_mutex_lock(&e->lock);
	e->fetchers -= fetchers - fetching;
	pthread_cond_broadcast(&e->work);
	pthread_mutex_unlock(&e->lock);
	for (unsigned i = 0; i < n; i++)
		pthread_join(ids[i], NULL);
	if (decoding == 0 || fetching == 0)
		return warm_error_set(err, WARM_NO_MEMORY, "can't start a thread");
	return 0;
}

static int prepare(struct engine *e, unsigned parallel, struct warm_error *err)
{
	struct warm_fetch *f = e->fetch;
	int rc = 0;

	e->plans = calloc(f->n_layers + 1, sizeof(*e->plans));
	e->left = calloc(f->n_items + 1, sizeof(*e->left));
	e->failed = calloc(f->n_items + 1, sizeof(*e->failed));
	if (e->plans == NULL || e->left == NULL || e->failed == NULL)
		return warm_error_nomem(err, f->n_items * sizeof(*e->left));
	for (size_t l = 0; rc == 0 && l < f->n_layers; l++)
		if (f->layers[l].index != NULL)
			rc = plan_layer(e, (uint32_t)l, err);
	if (rc == 0)
		rc = plan_ranges(e, parallel, err);
	if (rc == 0 && f->dir_fd >= 0)
		rc = make_dirs(e, err);
	return rc;
}

int warm_fetch_run(struct warm_fetch *fetch, struct warm_fetch_result *ret_result,
		   const struct warm_call *call, struct warm_error *err)
{
	struct engine e = {
		.fetch = fetch,
		.outer = call,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.room = PTHREAD_COND_INITIALIZER,
		.work = PTHREAD_COND_INITIALIZER,
	};
	unsigned decoders = fetch->jobs > 0 ? fetch->jobs : warm_cpus() + 1;
	unsigned parallel = warm_store_parallel(fetch->store);

	if (decoders > MAX_DECODERS)
		decoders = MAX_DECODERS;
	if (parallel > MAX_FETCHERS)
		parallel = MAX_FETCHERS;
	e.tail = &e.head;
	e.budget_bytes = BUDGET_BYTES - decoders * WARM_FRAME_RAW_BYTES;
	if (e.budget_bytes > parallel * IN_FLIGHT_BYTES)
		e.budget_bytes = parallel * IN_FLIGHT_BYTES;
	e.call = (struct warm_call){ .cancel = &e.cancel, .outer = call };
	for (size_t i = 0; i < fetch->n_items; i++)
		fetch->items[i].done = false;

	int rc = warm_call_check(call, err);
	if (rc == 0)
		rc = prepare(&e, parallel, err);
	if (rc == 0) {
		/* Groups of empty files alone need no frame. */
		for (size_t i = 0; i < fetch->n_items; i++)
			if (atomic_load(&e.left[i]) == 0)
				end_part(&e, (uint32_t)i, 0);
		unsigned fetchers = e.n_ranges < parallel ? (unsigned)e.n_ranges : parallel;
		if (fetchers > 0)
			rc = run_threads(&e, fetchers, decoders, err);
	}
	if (rc == 0 && e.status != 0) {
		rc = e.status;
		if (err != NULL)
			*err = e.first;
	}
	*ret_result = (struct warm_fetch_result){ e.fetched_bytes, e.frames, 0 };
	for (size_t i = 0; i < fetch->n_items; i++)
		ret_result->done += fetch->items[i].done;
	for (size_t l = 0; e.plans != NULL && l < fetch->n_layers; l++) {
		free(e.plans[l].parts);
		free(e.plans[l].first_part);
	}
	for (struct packet *p = e.spare; p != NULL;) {
		struct packet *next = p->next;
		free(p);
		p = next;
	}
	for (struct packet *p = e.head; p != NULL;) {
		struct packet *next = p->next;
		free(p);
		p = next;
	}
	free(e.plans);
	free(e.ranges);
	free(e.left);
	free(e.failed);
	return rc;
}
