/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/layer/index.h"

#include <stdio.h>
#include <string.h>
#include <zstd.h>

#include "lib/base/file.h"
#include "lib/base/hash.h"
#include "lib/layer/sha256.h"

/* Skippable frame: magic and length; then the fixed header of 128 bytes. */
static const uint32_t skippable_magic = 0x184D2A5B;
static const char header_magic[8] = { 'w', 'a', 'r', 'm', 'i', 'd', 'x', '\n' };

#define OWN_DIR ".warmcache" /* ledger, stage and spool: no artifact lies there */

enum {
	HEAD_BYTES = 8,
	SIGNATURE_ROOM = 2 + 2 + 8 + 64, /* algorithm, reserved, key id, signature */
	PROFILE_BYTES = 32,
	TEXT_BYTES = 1024,
	MAX_COPIES = 64, /* of a path, for as many CPUs or mount paths */
};

_Static_assert(HEAD_BYTES + 8 + 2 + 2 + 4 + 4 + 32 + SIGNATURE_ROOM == WARM_TRAILER_FIXED_BYTES,
	       "the fixed header's fields add up");

void warm_index_free(struct warm_index *index)
{
	if (index == NULL)
		return;
	free(index->covered);
	free(index->frames);
	free(index->groups);
	free(index->files);
	free(index->arena);
	free(index);
}

static void put_id(struct warm_buf *out, struct warm_id id)
{
	warm_buf_put_uv(out, id.ms);
	warm_buf_put_u64(out, id.random);
}

static void put_body(const struct warm_index *index, struct warm_buf *out)
{
	warm_buf_put_u8(out, (uint8_t)index->kind);
	put_id(out, index->id);
	warm_buf_put_str(out, index->key.model);
	warm_buf_put_str(out, index->key.version);
	warm_buf_put_str(out, index->key.platform);
	warm_buf_put_u64(out, (uint64_t)index->created_ms);
	warm_buf_put_str(out, index->mount);
	warm_buf_put_str(out, index->program);
	warm_buf_put_u8(out, index->complete != NULL);
	warm_buf_put_str(out, index->complete != NULL ? index->complete : "");

	warm_buf_put_uv(out, index->n_covered);
	for (size_t i = 0; i < index->n_covered; i++)
		put_id(out, index->covered[i]);

	warm_buf_put_uv(out, index->n_frames);
	for (size_t i = 0; i < index->n_frames; i++) {
		warm_buf_put_uv(out, index->frames[i].bytes);
		warm_buf_put_uv(out, index->frames[i].raw_bytes);
		warm_buf_put(out, index->frames[i].digest, 32);
	}

	warm_buf_put_uv(out, index->n_groups);
	size_t frame = 0;
	for (size_t i = 0; i < index->n_groups; i++) {
		const struct warm_group *g = &index->groups[i];
		warm_buf_put_str(out, g->name);
		put_id(out, g->origin);
		warm_buf_put_str(out, g->profile);
		warm_buf_put_u64(out, g->bound);
		warm_buf_put_uv(out, g->flags);
		warm_buf_put_uv(out, g->n_files);
		for (size_t k = 0; k < g->n_files; k++) {
			const struct warm_file *f = &index->files[g->first_file + k];
			while (frame + 1 < index->n_frames &&
			       f->raw_offset >= index->frames[frame + 1].raw_offset)
				frame++;
			warm_buf_put_str(out, f->path);
			warm_buf_put_uv(out, f->size);
			warm_buf_put_uv(out, f->mode);
			warm_buf_put_u64(out, (uint64_t)f->mtime_ns);
			warm_buf_put_uv(out, frame);
			warm_buf_put_uv(out, f->raw_offset - index->frames[frame].raw_offset);
		}
	}
}

/* One path is there once for whatever it is bound to, and for few things at all: what compares
 * groups by path need not fear a layer that repeats one. */
static int check_copies(const struct warm_index *index, struct warm_error *err)
{
	size_t capacity = 64;
	char shown[96];

	while (capacity < 2 * index->n_files)
		capacity *= 2;
	struct slot {
		const char *path;
		uint64_t bound;
	};
	scope_free struct slot *slots = calloc(capacity, sizeof(*slots));
	if (slots == NULL)
		return warm_error_nomem(err, capacity * sizeof(*slots));
	for (size_t i = 0; i < index->n_groups; i++) {
		const struct warm_group *g = &index->groups[i];
		for (size_t k = 0; k < g->n_files; k++) {
			const char *path = index->files[g->first_file + k].path;
			size_t at = warm_hash64(path, strlen(path)) & (capacity - 1), copies = 0;
			for (; slots[at].path != NULL; at = (at + 1) & (capacity - 1)) {
				if (strcmp(slots[at].path, path) != 0)
					continue;
				if (slots[at].bound == g->bound || ++copies >= MAX_COPIES)
					return warm_error_set(
						err, WARM_CORRUPT, "file '%s' is there %s",
						warm_path_printable(path, shown, sizeof(shown)),
						copies >= MAX_COPIES ? "too often" : "twice");
			}
			slots[at] = (struct slot){ path, g->bound };
		}
	}
	return 0;
}

int warm_index_encode(const struct warm_index *index, struct warm_buf *ret_trailer,
		      struct warm_layer_name *ret_name, struct warm_error *err)
{
	scope_buf struct warm_buf raw = WARM_BUF_INIT;
	struct warm_layer_name name = { .kind = index->kind, .id = index->id };
	static const uint8_t room[SIGNATURE_ROOM];

	/* A layer that readers refuse is worse than none. */
	int rc = check_copies(index, err);
	if (rc != 0)
		return rc;
	put_body(index, &raw);
	if (raw.failed)
		return warm_error_nomem(err, raw.bytes);
	if (raw.bytes > WARM_INDEX_RAW_BYTES)
		return warm_error_set(err, WARM_LIMIT, "the index takes %zu bytes, over %u",
				      raw.bytes, WARM_INDEX_RAW_BYTES);
	size_t bound = ZSTD_compressBound(raw.bytes);
	scope_free uint8_t *packed = malloc(bound);
	if (packed == NULL)
		return warm_error_nomem(err, bound);
	size_t bytes = ZSTD_compress(packed, bound, raw.data, raw.bytes, 6);
	if (ZSTD_isError(bytes))
		return warm_error_set(err, WARM_NO_MEMORY, "compress the index: %s",
				      ZSTD_getErrorName(bytes));
	if (bytes > WARM_INDEX_BYTES)
		return warm_error_set(err, WARM_LIMIT, "the index takes %zu bytes, over %u", bytes,
				      WARM_INDEX_BYTES);
	rc = warm_sha256(packed, bytes, name.digest, err);
	if (rc != 0)
		return rc;
	name.index_bytes = (uint32_t)bytes;

	warm_buf_put_u32(ret_trailer, skippable_magic);
	warm_buf_put_u32(ret_trailer, (uint32_t)(WARM_TRAILER_FIXED_BYTES - HEAD_BYTES + bytes));
	warm_buf_put(ret_trailer, header_magic, sizeof(header_magic));
	warm_buf_put_u16(ret_trailer, WARM_FORMAT_MAJOR);
	warm_buf_put_u16(ret_trailer, WARM_FORMAT_MINOR);
	warm_buf_put_u32(ret_trailer, (uint32_t)bytes);
	warm_buf_put_u32(ret_trailer, (uint32_t)raw.bytes);
	warm_buf_put(ret_trailer, name.digest, 32);
	warm_buf_put(ret_trailer, room, sizeof(room));
	warm_buf_put(ret_trailer, packed, bytes);
	if (ret_trailer->failed)
		return warm_error_nomem(err, bytes);
	*ret_name = name;
	return 0;
}

static struct warm_id take_id(struct warm_reader *r)
{
	struct warm_id id;

	id.ms = warm_reader_uv(r);
	id.random = warm_reader_u64(r);
	if (id.ms == 0 || id.ms > (uint64_t)1 << 53)
		r->bad = true;
	return id;
}

struct arena {
	char *data;
	size_t used;
};

/* Strings go into one block of the raw index's size: each has a length byte or more there,
 * which makes room for its NUL. */
static const char *take_str(struct warm_reader *r, size_t max_bytes, struct arena *arena)
{
	size_t n;
	const char *s = warm_reader_str(r, max_bytes, &n);

	if (r->bad)
		return "";
	char *copy = arena->data + arena->used;
	memcpy(copy, s, n);
	copy[n] = '\0';
	arena->used += n + 1;
	return copy;
}

static int take_key_part(struct warm_reader *r, char ret_part[WARM_KEY_PART_BYTES])
{
	size_t n;
	const char *s = warm_reader_str(r, WARM_KEY_PART_BYTES - 1, &n);

	memcpy(ret_part, s, n);
	ret_part[n] = '\0';
	return 0;
}

static void *take_array(struct warm_reader *r, size_t min_bytes, size_t element, size_t *ret_n,
			struct warm_error *err)
{
	size_t n = warm_reader_count(r, min_bytes);
	void *array = calloc(n + 1, element);

	if (array == NULL)
		(void)warm_error_nomem(err, n * element);
	*ret_n = n;
	return array;
}

static int parse_frames(struct warm_reader *r, struct warm_index *index, struct warm_error *err)
{
	index->frames = take_array(r, 34, sizeof(*index->frames), &index->n_frames, err);
	if (index->frames == NULL)
		return WARM_NO_MEMORY;
	for (size_t i = 0; i < index->n_frames; i++) {
		struct warm_frame *f = &index->frames[i];
		uint64_t bytes = warm_reader_uv(r), raw = warm_reader_uv(r);
		const uint8_t *digest = warm_reader_take(r, 32);
		if (r->bad)
			return 0;
		if (bytes == 0 || bytes > WARM_FRAME_BYTES || raw == 0 ||
		    raw > WARM_FRAME_RAW_BYTES)
			return warm_error_set(err, WARM_CORRUPT,
					      "frame %zu claims %llu bytes for %llu", i,
					      (unsigned long long)bytes, (unsigned long long)raw);
		memcpy(f->digest, digest, 32);
		f->bytes = (uint32_t)bytes;
		f->raw_bytes = (uint32_t)raw;
		f->offset = index->bytes;
		f->raw_offset = index->raw_bytes;
		index->bytes += bytes;
		index->raw_bytes += raw;
	}
	if (index->raw_bytes > WARM_RATIO_SLACK &&
	    (index->raw_bytes - WARM_RATIO_SLACK) / WARM_MAX_RATIO > index->bytes)
		return warm_error_set(err, WARM_LIMIT, "%llu bytes that decode to %llu",
				      (unsigned long long)index->bytes,
				      (unsigned long long)index->raw_bytes);
	return 0;
}

static int parse_file(struct warm_reader *r, struct warm_index *index, struct arena *arena,
		      uint64_t *end, struct warm_file *f, struct warm_error *err)
{
	char shown[96];

	f->path = take_str(r, WARM_PATH_BYTES - 1, arena);
	f->size = warm_reader_uv(r);
	uint64_t mode = warm_reader_uv(r);
	f->mtime_ns = (int64_t)warm_reader_u64(r);
	uint64_t frame = warm_reader_uv(r), offset = warm_reader_uv(r);
	if (r->bad)
		return 0;
	if (warm_path_check(f->path, strlen(f->path), err) != 0) {
		warm_error_context(err, "file '%s'",
				   warm_path_printable(f->path, shown, sizeof(shown)));
		if (err != NULL)
			err->status = WARM_CORRUPT;
		return WARM_CORRUPT;
	}
	if (strncmp(f->path, OWN_DIR, strlen(OWN_DIR)) == 0 &&
	    (f->path[strlen(OWN_DIR)] == '/' || f->path[strlen(OWN_DIR)] == '\0'))
		return warm_error_set(err, WARM_CORRUPT, "file '%s' lies in our own directory",
				      warm_path_printable(f->path, shown, sizeof(shown)));
	if (frame >= index->n_frames || offset > index->frames[frame].raw_bytes ||
	    (mode & ~(uint64_t)0111) != 0)
		return warm_error_set(err, WARM_CORRUPT, "file '%s' lies about its place or mode",
				      warm_path_printable(f->path, shown, sizeof(shown)));
	f->mode = (uint32_t)mode;
	f->raw_offset = index->frames[frame].raw_offset + offset;
	if (f->raw_offset < *end || f->size > index->raw_bytes ||
	    f->raw_offset > index->raw_bytes - f->size)
		return warm_error_set(err, WARM_CORRUPT,
				      "file '%s' overlaps another or runs past the last frame",
				      warm_path_printable(f->path, shown, sizeof(shown)));
	*end = f->raw_offset + f->size;
	return 0;
}

/* A bound group's name ends in what it is bound to, so that copies live side by side. */
static bool name_is_sound(const struct warm_group *g)
{
	char suffix[18];
	size_t n = strlen(g->name);

	bool cpu = (g->flags & WARM_GROUP_CPU_BOUND) != 0;
	bool mount = (g->flags & WARM_GROUP_MOUNT_BOUND) != 0;
	if ((g->bound != 0) != (cpu != mount) || (cpu && mount))
		return false;
	if (g->bound == 0)
		return n > 0;
	snprintf(suffix, sizeof(suffix), "@%016llx", (unsigned long long)g->bound);
	return n > 17 && strcmp(g->name + n - 17, suffix) == 0;
}

static int parse_groups(struct warm_reader *r, struct warm_index *index, struct arena *arena,
			struct warm_error *err)
{
	size_t capacity = (r->bytes - r->at) / 13 + 1, at = 0;
	uint64_t end = 0;
	char shown[96];

	index->groups = take_array(r, 20, sizeof(*index->groups), &index->n_groups, err);
	if (index->groups == NULL)
		return WARM_NO_MEMORY;
	/* Grown by group: a lying count must not cost memory for more files than can follow. */
	for (size_t i = 0; i < index->n_groups && !r->bad; i++) {
		struct warm_group *g = &index->groups[i];
		g->name = take_str(r, WARM_PATH_BYTES + 16, arena);
		g->origin = take_id(r);
		g->profile = take_str(r, PROFILE_BYTES, arena);
		g->bound = warm_reader_u64(r);
		uint64_t flags = warm_reader_uv(r);
		size_t n = warm_reader_count(r, 13);
		if (r->bad)
			return 0;
		g->flags = (unsigned)flags;
		if ((flags & ~(uint64_t)WARM_GROUP_FLAGS) != 0 || !name_is_sound(g) || n == 0 ||
		    at + n > capacity || at + n > UINT32_MAX)
			return warm_error_set(err, WARM_CORRUPT, "group '%s' is malformed",
					      warm_path_printable(g->name, shown, sizeof(shown)));
		if (warm_id_compare(g->origin, index->id) > 0 ||
		    (index->kind == WARM_LAYER && warm_id_compare(g->origin, index->id) != 0))
			return warm_error_set(err, WARM_CORRUPT, "group '%s' has a wrong origin",
					      warm_path_printable(g->name, shown, sizeof(shown)));
		g->first_file = (uint32_t)at;
		g->n_files = (uint32_t)n;
		struct warm_file *files = realloc(index->files, (at + n) * sizeof(*files));
		if (files == NULL)
			return warm_error_nomem(err, (at + n) * sizeof(*files));
		index->files = files;
		for (size_t k = 0; k < n; k++) {
			struct warm_file *f = &files[at + k];
			int rc = parse_file(r, index, arena, &end, f, err);
			if (rc != 0 || r->bad)
				return rc;
			if (k > 0 && strcmp(f[-1].path, f->path) >= 0)
				return warm_error_set(
					err, WARM_CORRUPT,
					"group '%s' lists its files out of order",
					warm_path_printable(g->name, shown, sizeof(shown)));
		}
		at += n;
	}
	index->n_files = at;
	return check_copies(index, err);
}

int warm_index_parse_raw(const void *raw, size_t raw_bytes, uint64_t frames_bytes,
			 struct warm_index **ret_index, struct warm_error *err)
{
	struct warm_reader r = warm_reader_of(raw, raw_bytes);
	scope_index struct warm_index *index = calloc(1, sizeof(*index));
	struct arena arena = { malloc(raw_bytes + 1), 0 };

	if (index == NULL || arena.data == NULL) {
		free(arena.data);
		return warm_error_nomem(err, raw_bytes);
	}
	index->arena = arena.data;
	index->index_raw_bytes = raw_bytes;
	uint8_t kind = warm_reader_u8(&r);
	index->kind = (enum warm_layer_kind)kind;
	index->id = take_id(&r);
	take_key_part(&r, index->key.model);
	take_key_part(&r, index->key.version);
	take_key_part(&r, index->key.platform);
	index->created_ms = (int64_t)warm_reader_u64(&r);
	index->mount = take_str(&r, WARM_PATH_BYTES, &arena);
	index->program = take_str(&r, TEXT_BYTES, &arena);
	uint8_t marked = warm_reader_u8(&r);
	const char *mark = take_str(&r, TEXT_BYTES, &arena);
	index->complete = marked != 0 ? mark : NULL;
	if (!r.bad && kind != WARM_LAYER && kind != WARM_BASE)
		return warm_error_set(err, WARM_CORRUPT, "the index has no known kind");

	index->covered = take_array(&r, 9, sizeof(*index->covered), &index->n_covered, err);
	if (index->covered == NULL)
		return WARM_NO_MEMORY;
	for (size_t i = 0; i < index->n_covered; i++) {
		index->covered[i] = take_id(&r);
		if (!r.bad && warm_id_compare(index->covered[i], index->id) >= 0)
			return warm_error_set(err, WARM_CORRUPT,
					      "it covers a layer that isn't older than itself");
	}
	int rc = parse_frames(&r, index, err);
	if (rc == 0 && !r.bad)
		rc = parse_groups(&r, index, &arena, err);
	if (rc != 0)
		return rc;
	if (r.bad || r.at != r.bytes)
		return warm_error_set(err, WARM_CORRUPT,
				      "the index is malformed at byte %zu of %zu", r.at, r.bytes);
	if (index->bytes != frames_bytes)
		return warm_error_set(
			err, WARM_CORRUPT, "the frames take %llu bytes where the layer has %llu",
			(unsigned long long)index->bytes, (unsigned long long)frames_bytes);
	*ret_index = take_ptr(index);
	return 0;
}

int warm_index_measure(const void *trailer, size_t trailer_bytes,
		       const struct warm_layer_name *name, uint64_t *ret_raw_bytes,
		       struct warm_error *err)
{
	const uint8_t *packed = (const uint8_t *)trailer + WARM_TRAILER_FIXED_BYTES;
	uint8_t digest[32];

	if (name->index_bytes > WARM_INDEX_BYTES)
		return warm_error_set(err, WARM_LIMIT, "an index of %u bytes, over %u",
				      name->index_bytes, WARM_INDEX_BYTES);
	if (trailer_bytes != warm_trailer_bytes(name))
		return warm_error_set(err, WARM_CORRUPT, "the layer is cut short");
	int rc = warm_sha256(packed, name->index_bytes, digest, err);
	if (rc != 0)
		return rc;
	if (memcmp(digest, name->digest, 32) != 0)
		return warm_error_set(err, WARM_CORRUPT,
				      "the index doesn't match the digest in the layer's name");
	unsigned long long raw_bytes = ZSTD_getFrameContentSize(packed, name->index_bytes);
	if (raw_bytes > WARM_INDEX_RAW_BYTES) /* unknown and error are there too */
		return warm_error_set(err, WARM_CORRUPT, "the index has no size, or over %u bytes",
				      WARM_INDEX_RAW_BYTES);
	*ret_raw_bytes = raw_bytes;
	return 0;
}

int warm_index_parse(const void *trailer, size_t trailer_bytes, uint64_t object_bytes,
		     const struct warm_key *key, const struct warm_layer_name *name,
		     struct warm_index **ret_index, struct warm_error *err)
{
	struct warm_reader r = warm_reader_of(trailer, trailer_bytes);
	const uint8_t *packed = (const uint8_t *)trailer + WARM_TRAILER_FIXED_BYTES;
	uint64_t measured = 0;

	if (object_bytes < trailer_bytes)
		return warm_error_set(err, WARM_CORRUPT, "the layer is cut short");
	int rc = warm_index_measure(trailer, trailer_bytes, name, &measured, err);
	if (rc != 0)
		return rc;

	uint32_t magic = warm_reader_u32(&r), length = warm_reader_u32(&r);
	const uint8_t *header = warm_reader_take(&r, sizeof(header_magic));
	uint16_t major = warm_reader_u16(&r), minor = warm_reader_u16(&r);
	uint32_t index_bytes = warm_reader_u32(&r), raw_bytes = warm_reader_u32(&r);
	const uint8_t *again = warm_reader_take(&r, 32);
	if (r.bad || magic != skippable_magic || length != trailer_bytes - HEAD_BYTES ||
	    memcmp(header, header_magic, sizeof(header_magic)) != 0)
		return warm_error_set(err, WARM_CORRUPT, "the layer's trailer is malformed");
	if (major > WARM_FORMAT_MAJOR)
		return warm_error_set(err, WARM_UNSUPPORTED,
				      "format %u.%u, newer than this program's %d", major, minor,
				      WARM_FORMAT_MAJOR);
	if (memcmp(again, name->digest, 32) != 0 || index_bytes != name->index_bytes ||
	    raw_bytes != measured)
		return warm_error_set(err, WARM_CORRUPT,
				      "the header lies about the index's digest or length");
	scope_free uint8_t *raw = malloc((size_t)raw_bytes + 1);
	if (raw == NULL)
		return warm_error_nomem(err, raw_bytes);
	size_t n = ZSTD_decompress(raw, raw_bytes, packed, index_bytes);
	if (ZSTD_isError(n) || n != raw_bytes)
		return warm_error_set(err, WARM_CORRUPT, "the index can't be decompressed");
	scope_index struct warm_index *index = NULL;
	rc = warm_index_parse_raw(raw, raw_bytes, object_bytes - trailer_bytes, &index, err);
	if (rc != 0)
		return rc;
	if (index->kind != name->kind || warm_id_compare(index->id, name->id) != 0 ||
	    !warm_key_equal(&index->key, key))
		return warm_error_set(err, WARM_CORRUPT,
				      "the layer's name differs from what its index says");
	index->major = major;
	index->minor = minor;
	*ret_index = take_ptr(index);
	return 0;
}

void warm_index_frames_of(const struct warm_index *index, const struct warm_file *file,
			  size_t *ret_first, size_t *ret_end)
{
	size_t low = 0, high = index->n_frames;

	if (file->size == 0) {
		*ret_first = *ret_end = 0;
		return;
	}
	while (high - low > 1) {
		size_t mid = low + (high - low) / 2;
		if (index->frames[mid].raw_offset <= file->raw_offset)
			low = mid;
		else
			high = mid;
	}
	size_t end = low + 1;
	while (end < index->n_frames &&
	       index->frames[end].raw_offset < file->raw_offset + file->size)
		end++;
	*ret_first = low;
	*ret_end = end;
}

size_t warm_group_base(const struct warm_group *group)
{
	size_t n = strlen(group->name);

	return group->bound != 0 && n > 17 ? n - 17 : n;
}

size_t warm_group_unit(const char *group_name, const char *path)
{
	size_t depth = 1, at = 0;

	for (const char *p = group_name; *p != '\0'; p++)
		depth += *p == '/';
	for (; path[at] != '\0'; at++)
		if (path[at] == '/' && --depth == 0)
			break;
	return at;
}
