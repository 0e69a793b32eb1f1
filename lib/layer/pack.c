/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/layer/pack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <zstd.h>

#include "lib/base/file.h"
#include "lib/base/option.h"
#include "lib/layer/sha256.h"

/* Well below the format's limit: a decoded frame then stays in a core's cache while its files are
 * written. Override for experiments alone. */
#ifndef FRAME_BYTES
#define FRAME_BYTES (1u << 20)
#endif
_Static_assert(FRAME_BYTES <= WARM_FRAME_RAW_BYTES, "readers accept our frames");

enum {
	MAX_THREADS = 4,
	MAX_SLOTS = MAX_THREADS + 2,
	MAX_INDEX_BYTES = WARM_INDEX_RAW_BYTES / 4 * 3, /* readers refuse a larger index */
};

/* A frame on its way: filled by the caller's thread, compressed by any, written in order. */
struct slot {
	uint8_t *raw;
	size_t raw_used;
	uint8_t *packed;
	size_t packed_bytes;
	uint8_t digest[32];
	enum { SLOT_FREE, SLOT_FULL, SLOT_DONE } state;
	int status;
	struct warm_error err;
};

struct warm_pack {
	int fd;
	int level;
	uint64_t max_bytes;
	struct archive *tar;
	struct archive_entry *entry;

	/* A ring: slots[head] is being filled, those behind it back to slots[tail] are on their way. */
	struct slot slots[MAX_SLOTS];
	unsigned n_slots, head, tail;
	ZSTD_CCtx *cctx[MAX_THREADS + 1]; /* the last is the caller's */
	struct warm_pace *pace;		  /* NULL: at full speed */
	pthread_t threads[MAX_THREADS];
	unsigned n_threads;
	pthread_mutex_t lock;
	pthread_cond_t full, done;
	bool stop;

	uint64_t raw_offset;	/* of the slot being filled, in the tar */
	uint64_t collected_raw; /* of the frames written */
	uint64_t bytes;		/* written to fd */
	size_t index_bytes;	/* of groups and files, about */
	struct warm_frame *frames;
	size_t n_frames, frames_capacity;
	struct warm_group *groups;
	size_t n_groups, groups_capacity;
	struct warm_file *files;
	size_t n_files, files_capacity;
	bool discard; /* what libarchive writes now is not wanted */
	bool broken;
	struct warm_error write_err; /* of the callback under libarchive */
};

static int grow(void *array_p, size_t *capacity, size_t need, size_t element,
		struct warm_error *err)
{
	void **array = array_p;

	if (need <= *capacity)
		return 0;
	size_t more = *capacity == 0 ? 64 : 2 * *capacity;
	if (more < need)
		more = need;
	void *p = realloc(*array, more * element);
	if (p == NULL)
		return warm_error_nomem(err, more * element);
	*array = p;
	*capacity = more;
	return 0;
}

static void compress_slot(struct warm_pack *pack, ZSTD_CCtx *cctx, struct slot *slot)
{
	size_t n = ZSTD_compressCCtx(cctx, slot->packed, ZSTD_compressBound(FRAME_BYTES), slot->raw,
				     slot->raw_used, pack->level);

	slot->packed_bytes = n;
	if (ZSTD_isError(n))
		slot->status = warm_error_set(&slot->err, WARM_NO_MEMORY, "compress a frame: %s",
					      ZSTD_getErrorName(n));
	else
		slot->status = warm_sha256(slot->packed, n, slot->digest, &slot->err);
}

struct worker {
	struct warm_pack *pack;
	unsigned number;
};

static struct slot *next_full(struct warm_pack *pack)
{
	for (unsigned i = pack->tail; i != pack->head; i = (i + 1) % pack->n_slots)
		if (pack->slots[i].state == SLOT_FULL)
			return &pack->slots[i];
	return NULL;
}

static void *work(void *arg)
{
	struct warm_pack *pack = ((struct worker *)arg)->pack;
	unsigned number = ((struct worker *)arg)->number;

	free(arg);
	pthread_mutex_lock(&pack->lock);
	for (;;) {
		struct slot *slot = next_full(pack);
		if (slot == NULL && pack->stop)
			break;
		if (slot == NULL) {
			pthread_cond_wait(&pack->full, &pack->lock);
			continue;
		}
		slot->state = SLOT_FREE; /* taken: no other thread looks at it */
		pthread_mutex_unlock(&pack->lock);
		compress_slot(pack, pack->cctx[number], slot);
		pthread_mutex_lock(&pack->lock);
		slot->state = SLOT_DONE;
		pthread_cond_signal(&pack->done);
	}
	pthread_mutex_unlock(&pack->lock);
	return NULL;
}

/* Write the oldest frame on its way. */
static int collect_frame(struct warm_pack *pack, struct warm_error *err)
{
	struct slot *slot = &pack->slots[pack->tail];

	pthread_mutex_lock(&pack->lock);
	while (slot->state != SLOT_DONE)
		pthread_cond_wait(&pack->done, &pack->lock);
	slot->state = SLOT_FREE;
	pack->tail = (pack->tail + 1) % pack->n_slots;
	pthread_mutex_unlock(&pack->lock);
	if (slot->status != 0) {
		if (err != NULL)
			*err = slot->err;
		return slot->status;
	}
	int rc = grow(&pack->frames, &pack->frames_capacity, pack->n_frames + 1,
		      sizeof(*pack->frames), err);
	if (rc != 0)
		return rc;
	struct warm_frame *f = &pack->frames[pack->n_frames];
	*f = (struct warm_frame){
		.offset = pack->bytes,
		.raw_offset = pack->collected_raw,
		.bytes = (uint32_t)slot->packed_bytes,
		.raw_bytes = (uint32_t)slot->raw_used,
	};
	memcpy(f->digest, slot->digest, sizeof(f->digest));
	rc = warm_file_write_at(pack->fd, slot->packed, slot->packed_bytes, pack->bytes, err);
	if (rc != 0)
		return rc;
	pack->n_frames++;
	pack->bytes += slot->packed_bytes;
	pack->collected_raw += slot->raw_used;
	return 0;
}

/* Write all that is on its way. On failure the rest is still waited for. */
static int drain(struct warm_pack *pack, struct warm_error *err)
{
	int first = 0;

	while (pack->tail != pack->head) {
		int rc = collect_frame(pack, first == 0 ? err : NULL);
		if (first == 0)
			first = rc;
	}
	return first;
}

/* Send the frame that was filled on its way, and take the next slot. */
static int flush_frame(struct warm_pack *pack, struct warm_error *err)
{
	struct slot *slot = &pack->slots[pack->head];

	if (slot->raw_used == 0)
		return 0;
	if (pack->n_threads == 0)
		compress_slot(pack, pack->cctx[MAX_THREADS], slot);
	pthread_mutex_lock(&pack->lock);
	slot->state = pack->n_threads > 0 ? SLOT_FULL : SLOT_DONE;
	pack->raw_offset += slot->raw_used;
	pack->head = (pack->head + 1) % pack->n_slots;
	pthread_cond_signal(&pack->full);
	pthread_mutex_unlock(&pack->lock);
	int rc = 0;
	if ((pack->head + 1) % pack->n_slots == pack->tail || pack->n_threads == 0)
		rc = collect_frame(pack, err);
	if (pack->pace != NULL && pack->n_threads == 0)
		warm_pace_rest(pack->pace);
	pack->slots[pack->head].raw_used = 0;
	return rc;
}

static int put_raw(struct warm_pack *pack, const void *data, size_t bytes, struct warm_error *err)
{
	const uint8_t *p = data;

	while (bytes > 0) {
		struct slot *slot = &pack->slots[pack->head];
		size_t n = FRAME_BYTES - slot->raw_used;
		if (n > bytes)
			n = bytes;
		memcpy(slot->raw + slot->raw_used, p, n);
		slot->raw_used += n;
		p += n;
		bytes -= n;
		if (slot->raw_used == FRAME_BYTES) {
			int rc = flush_frame(pack, err);
			if (rc != 0)
				return rc;
		}
	}
	return 0;
}

static la_ssize_t tar_write(struct archive *tar, void *arg, const void *data, size_t bytes)
{
	struct warm_pack *pack = arg;

	if (pack->discard)
		return (la_ssize_t)bytes;
	if (put_raw(pack, data, bytes, &pack->write_err) != 0) {
		archive_set_error(tar, EIO, "%s", pack->write_err.msg);
		return -1;
	}
	return (la_ssize_t)bytes;
}

static int tar_error(struct warm_pack *pack, const char *what, struct warm_error *err)
{
	if (pack->write_err.status != WARM_OK) {
		if (err != NULL)
			*err = pack->write_err;
		return pack->write_err.status;
	}
	if (archive_errno(pack->tar) == ENOMEM)
		return warm_error_nomem(err, 0);
	const char *why = archive_error_string(pack->tar);
	return warm_error_set(err, WARM_IO, "%s: %s", what,
			      why != NULL ? why : "libarchive failed");
}

static int make_slots(struct warm_pack *pack, unsigned threads, struct warm_error *err)
{
	pack->n_slots = threads + 2;
	for (unsigned i = 0; i < pack->n_slots; i++) {
		pack->slots[i].raw = malloc(FRAME_BYTES);
		pack->slots[i].packed = malloc(ZSTD_compressBound(FRAME_BYTES));
		if (pack->slots[i].raw == NULL || pack->slots[i].packed == NULL)
			return warm_error_nomem(err, FRAME_BYTES);
	}
	pack->cctx[MAX_THREADS] = ZSTD_createCCtx();
	if (pack->cctx[MAX_THREADS] == NULL)
		return warm_error_nomem(err, 0);
	/* With fewer threads than asked for it goes on; with none the caller's does the work. */
	while (pack->n_threads < threads) {
		struct worker *w = malloc(sizeof(*w));
		pack->cctx[pack->n_threads] = ZSTD_createCCtx();
		if (w == NULL || pack->cctx[pack->n_threads] == NULL) {
			free(w);
			return warm_error_nomem(err, sizeof(*w));
		}
		*w = (struct worker){ pack, pack->n_threads };
		if (pthread_create(&pack->threads[pack->n_threads], NULL, work, w) != 0) {
			free(w);
			return 0;
		}
		pack->n_threads++;
	}
	return 0;
}

int warm_pack_open(int fd, int level, uint64_t max_bytes, unsigned threads,
		   struct warm_pack **ret_pack, struct warm_error *err)
{
	scope_pack struct warm_pack *pack = calloc(1, sizeof(*pack));

	if (pack == NULL)
		return warm_error_nomem(err, sizeof(*pack));
	pack->fd = fd;
	pack->level = level;
	pack->max_bytes = max_bytes;
	pthread_mutex_init(&pack->lock, NULL);
	pthread_cond_init(&pack->full, NULL);
	pthread_cond_init(&pack->done, NULL);
	pack->tar = archive_write_new();
	pack->entry = archive_entry_new();
	if (pack->tar == NULL || pack->entry == NULL)
		return warm_error_nomem(err, 0);
	int rc = make_slots(pack, threads < MAX_THREADS ? threads : MAX_THREADS, err);
	if (rc != 0)
		return rc;
	/* No blocking: what libarchive writes arrives at once, so that positions are known. */
	if (archive_write_set_format_pax_restricted(pack->tar) != ARCHIVE_OK ||
	    archive_write_set_bytes_per_block(pack->tar, 0) != ARCHIVE_OK ||
	    archive_write_open(pack->tar, pack, NULL, tar_write, NULL) != ARCHIVE_OK)
		return tar_error(pack, "open the tar writer", err);
	*ret_pack = take_ptr(pack);
	return 0;
}

void warm_pack_pace(struct warm_pack *pack, struct warm_pace *pace)
{
	pack->pace = pace;
}

static void drop_groups(struct warm_pack *pack, size_t n_groups, size_t n_files)
{
	for (size_t i = n_groups; i < pack->n_groups; i++) {
		free((void *)(uintptr_t)pack->groups[i].name);
		free((void *)(uintptr_t)pack->groups[i].profile);
	}
	for (size_t i = n_files; i < pack->n_files; i++)
		free((void *)(uintptr_t)pack->files[i].path);
	pack->n_groups = n_groups;
	pack->n_files = n_files;
}

void warm_pack_free(struct warm_pack *pack)
{
	if (pack == NULL)
		return;
	pthread_mutex_lock(&pack->lock);
	pack->stop = true;
	pthread_cond_broadcast(&pack->full);
	pthread_mutex_unlock(&pack->lock);
	for (unsigned i = 0; i < pack->n_threads; i++)
		pthread_join(pack->threads[i], NULL);
	drop_groups(pack, 0, 0);
	pack->discard = true;
	archive_entry_free(pack->entry);
	archive_write_free(pack->tar);
	for (unsigned i = 0; i <= MAX_THREADS; i++)
		ZSTD_freeCCtx(pack->cctx[i]);
	for (unsigned i = 0; i < MAX_SLOTS; i++) {
		free(pack->slots[i].raw);
		free(pack->slots[i].packed);
	}
	pthread_cond_destroy(&pack->full);
	pthread_cond_destroy(&pack->done);
	pthread_mutex_destroy(&pack->lock);
	free(pack->frames);
	free(pack->groups);
	free(pack->files);
	free(pack);
}

bool warm_pack_usable(const struct warm_pack *pack)
{
	return !pack->broken;
}

size_t warm_pack_groups(const struct warm_pack *pack)
{
	return pack->n_groups;
}

static int put_header(struct warm_pack *pack, const struct warm_pack_file *file, uint64_t size,
		      uint32_t mode, struct warm_error *err)
{
	struct archive_entry *e = archive_entry_clear(pack->entry);

	archive_entry_copy_pathname(e, file->path);
	archive_entry_set_filetype(e, AE_IFREG);
	archive_entry_set_perm(e, 0666 | mode);
	archive_entry_set_size(e, (la_int64_t)size);
	archive_entry_set_uid(e, 0);
	archive_entry_set_gid(e, 0);
	archive_entry_set_mtime(e, warm_timespec_of_ns(file->mtime_ns).tv_sec, 0);
	/* A path that is no UTF-8 is a warning; it is written byte for byte. */
	int rc = archive_write_header(pack->tar, e);
	if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN)
		return tar_error(pack, "write a tar header", err);
	return 0;
}

/* Bytes go from the file into the frame's buffer; libarchive believes that it padded them. */
static int put_data(struct warm_pack *pack, int fd, uint64_t size, const struct warm_call *call,
		    struct warm_error *err)
{
	static const uint8_t zeros[512];
	uint64_t left = size;

	while (left > 0) {
		struct slot *slot = &pack->slots[pack->head];
		size_t n = FRAME_BYTES - slot->raw_used;
		if (n > left)
			n = (size_t)left;
		int rc = warm_call_check(call, err);
		if (rc != 0) {
			pack->broken = true;
			return rc;
		}
		ssize_t got = read(fd, slot->raw + slot->raw_used, n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return warm_error_errno(err, errno, "read");
		if (got == 0)
			return warm_error_set(err, WARM_EXISTS, "changed while it was read");
		slot->raw_used += (size_t)got;
		left -= (uint64_t)got;
		if (slot->raw_used == FRAME_BYTES) {
			rc = flush_frame(pack, err);
			if (rc != 0) {
				pack->broken = true;
				return rc;
			}
		}
	}
	pack->discard = true;
	int rc = archive_write_finish_entry(pack->tar);
	pack->discard = false;
	if (rc != ARCHIVE_OK) {
		pack->broken = true;
		return tar_error(pack, "finish a tar entry", err);
	}
	rc = put_raw(pack, zeros, (size_t)((512 - size % 512) % 512), err);
	if (rc != 0)
		pack->broken = true;
	return rc;
}

static int add_file(struct warm_pack *pack, const struct warm_pack_group *group,
		    const struct warm_pack_file *file, const struct warm_call *call,
		    struct warm_error *err)
{
	struct stat st;
	const char *source = file->source != NULL ? file->source : file->path;
	int rc = grow(&pack->files, &pack->files_capacity, pack->n_files + 1, sizeof(*pack->files),
		      err);

	if (rc != 0)
		return rc;
	scope_close int fd = -1;
	rc = warm_beneath_read(group->dir_fd, source, &fd, err);
	if (rc != 0)
		return rc;
	if (fstat(fd, &st) != 0)
		return warm_error_errno(err, errno, "stat %s", file->path);
	if (!S_ISREG(st.st_mode))
		return warm_error_set(err, WARM_CORRUPT, "%s is no regular file", file->path);
	struct warm_seen before = warm_seen_of(&st);
	if (file->seen != NULL && !warm_seen_equal(&before, file->seen))
		return warm_error_set(err, WARM_EXISTS, "%s changed since it was seen", file->path);

	uint32_t mode = st.st_mode & 0111;
	uint64_t size = before.size;
	rc = put_header(pack, file, size, mode, err);
	if (rc != 0) {
		pack->broken = true;
		return rc;
	}
	struct warm_file *f = &pack->files[pack->n_files];
	*f = (struct warm_file){
		.path = strdup(file->path),
		.size = size,
		.mode = mode,
		.mtime_ns = file->mtime_ns,
		.raw_offset = pack->raw_offset + pack->slots[pack->head].raw_used,
	};
	if (f->path == NULL)
		return warm_error_nomem(err, strlen(file->path));
	pack->n_files++;
	rc = put_data(pack, fd, size, call, err);
	if (rc != 0) {
		warm_error_context(err, "%s", file->path);
		return rc;
	}
	if (fstat(fd, &st) != 0)
		return warm_error_errno(err, errno, "stat %s", file->path);
	struct warm_seen after = warm_seen_of(&st);
	if (!warm_seen_equal(&before, &after))
		return warm_error_set(err, WARM_EXISTS, "%s changed while it was read", file->path);
	return 0;
}

struct mark {
	size_t n_frames, raw_used, n_groups, n_files; /* frames: those on their way counted */
	uint64_t raw_offset;
};

static size_t frames_sent(const struct warm_pack *pack)
{
	return pack->n_frames + (pack->head + pack->n_slots - pack->tail) % pack->n_slots;
}

/* Take the stream back to `mark`. When a frame was closed since, its first bytes are those that
 * were in the buffer then: decode it again. */
static int roll_back(struct warm_pack *pack, const struct mark *mark)
{
	pack->discard = true;
	archive_write_finish_entry(pack->tar);
	pack->discard = false;
	drop_groups(pack, mark->n_groups, mark->n_files);
	if (drain(pack, NULL) != 0)
		return -1;
	struct slot *slot = &pack->slots[pack->head];
	if (pack->n_frames > mark->n_frames) {
		const struct warm_frame *f = &pack->frames[mark->n_frames];
		if (warm_file_read_at(pack->fd, slot->packed, f->bytes, f->offset, NULL) != 0)
			return -1;
		size_t n = ZSTD_decompress(slot->raw, FRAME_BYTES, slot->packed, f->bytes);
		if (ZSTD_isError(n) || ftruncate(pack->fd, (off_t)f->offset) != 0)
			return -1;
		pack->bytes = f->offset;
		pack->collected_raw = f->raw_offset;
	}
	pack->n_frames = mark->n_frames;
	slot->raw_used = mark->raw_used;
	pack->raw_offset = mark->raw_offset;
	return 0;
}

/* About what the index takes, raw. */
static size_t index_estimate(const struct warm_pack *pack)
{
	return pack->index_bytes + 40 * frames_sent(pack);
}

/* Whether the layer has grown over its size or beyond what readers accept; frames on their way are
 * waited for only where they could decide it. */
static int is_full(struct warm_pack *pack, bool *ret_full, struct warm_error *err)
{
	const struct slot *head = &pack->slots[pack->head];
	uint64_t most = pack->bytes + head->raw_used;
	uint64_t raw_bytes = pack->raw_offset + head->raw_used;
	int rc = 0;

	for (unsigned i = pack->tail; i != pack->head; i = (i + 1) % pack->n_slots)
		most += pack->slots[i].raw_used;
	if (most > pack->max_bytes || raw_bytes > WARM_RATIO_SLACK)
		rc = drain(pack, err);
	*ret_full = (pack->n_groups > 0 && pack->bytes + head->raw_used > pack->max_bytes) ||
		    index_estimate(pack) > MAX_INDEX_BYTES ||
		    (raw_bytes > WARM_RATIO_SLACK &&
		     (raw_bytes - WARM_RATIO_SLACK) / WARM_MAX_RATIO > pack->bytes);
	return rc;
}

int warm_pack_add(struct warm_pack *pack, const struct warm_pack_group *group,
		  const struct warm_call *call, struct warm_error *err)
{
	if (group->n_files == 0)
		return warm_error_set(err, WARM_INVALID, "group %.100s has no files", group->name);
	struct mark mark = {
		.n_frames = frames_sent(pack),
		.raw_used = pack->slots[pack->head].raw_used,
		.n_groups = pack->n_groups,
		.n_files = pack->n_files,
		.raw_offset = pack->raw_offset,
	};
	bool full = false;
	int rc = grow(&pack->groups, &pack->groups_capacity, pack->n_groups + 1,
		      sizeof(*pack->groups), err);

	for (size_t i = 0; rc == 0 && i < group->n_files; i++)
		rc = add_file(pack, group, &group->files[i], call, err);
	size_t index_bytes = pack->index_bytes;
	if (rc == 0) {
		pack->index_bytes += strlen(group->name) + 64;
		for (size_t i = 0; i < group->n_files; i++)
			pack->index_bytes += strlen(group->files[i].path) + 32;
		rc = is_full(pack, &full, err);
		if (rc != 0)
			pack->broken = true;
		else if (full)
			rc = warm_error_set(err, WARM_LIMIT, "the layer is full");
	}
	if (rc == 0) {
		struct warm_group *g = &pack->groups[pack->n_groups];
		*g = (struct warm_group){
			.name = strdup(group->name),
			.profile = strdup(group->profile),
			.origin = group->origin,
			.bound = group->bound,
			.flags = group->flags,
			.first_file = (uint32_t)mark.n_files,
			.n_files = (uint32_t)group->n_files,
		};
		pack->n_groups++;
		if (g->name == NULL || g->profile == NULL)
			rc = warm_error_nomem(err, strlen(group->name));
	}
	if (rc != 0)
		pack->index_bytes = index_bytes;
	if (rc != 0 && !pack->broken && roll_back(pack, &mark) != 0)
		pack->broken = true;
	if (rc == WARM_NO_SPACE || rc == WARM_NO_MEMORY)
		pack->broken = true;
	return rc;
}

int warm_pack_finish(struct warm_pack *pack, const struct warm_pack_meta *meta,
		     struct warm_layer_name *ret_name, uint64_t *ret_bytes, struct warm_error *err)
{
	scope_buf struct warm_buf trailer = WARM_BUF_INIT;
	char program[64];

	if (pack->broken)
		return warm_error_set(err, WARM_IO, "the pack failed before");
	if (archive_write_close(pack->tar) != ARCHIVE_OK)
		return tar_error(pack, "end the tar", err);
	int rc = flush_frame(pack, err);
	if (rc == 0)
		rc = drain(pack, err);
	if (rc != 0)
		return rc;
	snprintf(program, sizeof(program), "warmcache %s", warm_version);
	for (size_t i = 0; i < pack->n_groups; i++)
		if (warm_id_is_none(pack->groups[i].origin))
			pack->groups[i].origin = meta->id;
	struct warm_index index = {
		.kind = meta->kind,
		.id = meta->id,
		.key = *meta->key,
		.created_ms = meta->created_ms,
		.mount = meta->mount,
		.program = program,
		.complete = meta->complete,
		.covered = (struct warm_id *)(uintptr_t)meta->covered,
		.n_covered = meta->n_covered,
		.frames = pack->frames,
		.n_frames = pack->n_frames,
		.groups = pack->groups,
		.n_groups = pack->n_groups,
		.files = pack->files,
		.n_files = pack->n_files,
	};
	rc = warm_index_encode(&index, &trailer, ret_name, err);
	if (rc == 0)
		rc = warm_file_write_at(pack->fd, trailer.data, trailer.bytes, pack->bytes, err);
	if (rc == 0)
		*ret_bytes = pack->bytes + trailer.bytes;
	return rc;
}
