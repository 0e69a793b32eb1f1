/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index of a layer. The first byte chooses the way in: 0 the raw index; 1 the same, packed
 * into a sound trailer whose name and key fit; 2 a whole trailer as it comes, with the digest in
 * the name made right. What parses must hold what index.h promises.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "lib/base/file.h"
#include "lib/layer/index.h"
#include "lib/layer/sha256.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void check_promises(const struct warm_index *index)
{
	uint64_t offset = 0, raw = 0, end = 0;
	size_t first, past;

	for (size_t i = 0; i < index->n_frames; i++) {
		const struct warm_frame *f = &index->frames[i];
		must(f->offset == offset && f->raw_offset == raw);
		must(f->bytes > 0 && f->bytes <= WARM_FRAME_BYTES);
		must(f->raw_bytes > 0 && f->raw_bytes <= WARM_FRAME_RAW_BYTES);
		offset += f->bytes;
		raw += f->raw_bytes;
	}
	must(offset == index->bytes && raw == index->raw_bytes);
	for (size_t g = 0; g < index->n_groups; g++) {
		const struct warm_group *group = &index->groups[g];
		must(group->n_files > 0 && group->first_file + group->n_files <= index->n_files);
		must(warm_group_base(group) > 0);
		for (size_t k = 0; k < group->n_files; k++) {
			const struct warm_file *f = &index->files[group->first_file + k];
			must(warm_path_check(f->path, strlen(f->path), NULL) == 0);
			must(f->raw_offset >= end && f->raw_offset + f->size <= raw);
			must((f->mode & ~0111u) == 0);
			end = f->raw_offset + f->size;
			must(warm_group_unit(group->name, f->path) <= strlen(f->path));
			warm_index_frames_of(index, f, &first, &past);
			must(past <= index->n_frames && (f->size == 0 || first < past));
			if (f->size > 0)
				must(index->frames[first].raw_offset <= f->raw_offset &&
				     index->frames[past - 1].raw_offset +
						     index->frames[past - 1].raw_bytes >=
					     f->raw_offset + f->size);
		}
	}
}

/* The frames of a raw index take as many bytes as it says: try what it would need. */
static uint64_t frames_bytes(const uint8_t *raw, size_t bytes)
{
	scope_index struct warm_index *index = NULL;
	struct warm_error err = { 0 };
	unsigned long long said;

	if (warm_index_parse_raw(raw, bytes, UINT64_MAX, &index, &err) == 0 ||
	    sscanf(err.msg, "the frames take %llu bytes", &said) != 1)
		return 0;
	return said;
}

static void parse_raw(const uint8_t *raw, size_t bytes)
{
	scope_index struct warm_index *index = NULL;
	struct warm_error err = { 0 };

	int rc = warm_index_parse_raw(raw, bytes, frames_bytes(raw, bytes), &index, &err);
	must((rc == 0) == (index != NULL));
	if (rc == 0)
		check_promises(index);
}

static void parse_trailer(uint8_t *trailer, size_t bytes, uint64_t frames)
{
	scope_index struct warm_index *index = NULL;
	struct warm_layer_name name = { .kind = WARM_LAYER, .id = { 1, 0 } };
	struct warm_key key = { "m", "v", "p" };
	struct warm_error err = { 0 };

	if (bytes < WARM_TRAILER_FIXED_BYTES)
		return;
	name.index_bytes = (uint32_t)(bytes - WARM_TRAILER_FIXED_BYTES);
	if (warm_sha256(trailer + WARM_TRAILER_FIXED_BYTES, name.index_bytes, name.digest, NULL) !=
	    0)
		return;
	int rc = warm_index_parse(trailer, bytes, frames + bytes, &key, &name, &index, &err);
	must((rc == 0) == (index != NULL));
	if (rc == 0)
		check_promises(index);
}

static void parse_packed(const uint8_t *raw, size_t bytes)
{
	scope_buf struct warm_buf t = WARM_BUF_INIT;
	static const uint8_t room[108];
	size_t bound = ZSTD_compressBound(bytes);
	scope_free uint8_t *packed = malloc(bound);

	if (packed == NULL)
		return;
	size_t n = ZSTD_compress(packed, bound, raw, bytes, 1);
	if (ZSTD_isError(n))
		return;
	warm_buf_put_u32(&t, 0x184D2A5B);
	warm_buf_put_u32(&t, (uint32_t)(WARM_TRAILER_FIXED_BYTES - 8 + n));
	warm_buf_put(&t, "warmidx\n", 8);
	warm_buf_put_u16(&t, WARM_FORMAT_MAJOR);
	warm_buf_put_u16(&t, WARM_FORMAT_MINOR);
	warm_buf_put_u32(&t, (uint32_t)n);
	warm_buf_put_u32(&t, (uint32_t)bytes);
	warm_buf_put(&t, room, sizeof(room));
	warm_buf_put(&t, packed, n);
	if (!t.failed)
		parse_trailer(t.data, t.bytes, frames_bytes(raw, bytes));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	if (bytes < 1)
		return 0;
	/* Exactly as large as it is, for the sanitizer. */
	scope_free uint8_t *copy = malloc(bytes > 1 ? bytes - 1 : 1);
	if (copy == NULL)
		return 0;
	memcpy(copy, data + 1, bytes - 1);
	switch (data[0] % 3) {
	case 0:
		parse_raw(copy, bytes - 1);
		break;
	case 1:
		parse_packed(copy, bytes - 1);
		break;
	default:
		parse_trailer(copy, bytes - 1, 100);
		break;
	}
	return 0;
}
