/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A frame with a right digest and any contents: the decoder must stay in its buffer. Input: a
 * claimed raw size (4 bytes), a split (2 bytes), then the bytes of two frames. Both go through
 * one decoder, as they do in a restore.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/layer/sha256.h"
#include "lib/layer/unpack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void unpack_one(struct warm_unpack *unpack, struct warm_index *index, size_t frame,
		       const uint8_t *data, size_t bytes)
{
	struct warm_frame *f = &index->frames[frame];
	const uint8_t *raw = NULL;
	struct warm_error err = { 0 };
	volatile uint8_t sum = 0;
	scope_free uint8_t *copy = malloc(bytes > 0 ? bytes : 1);

	if (copy == NULL || bytes == 0)
		return;
	memcpy(copy, data, bytes);
	f->bytes = (uint32_t)bytes;
	if (warm_sha256(copy, bytes, f->digest, NULL) != 0)
		return;
	int rc = warm_unpack_frame(unpack, index, frame, copy, &raw, &err);
	if ((rc == 0) != (raw != NULL))
		abort();
	for (size_t i = 0; rc == 0 && i < f->raw_bytes; i++)
		sum = (uint8_t)(sum + raw[i]);
	/* One wrong bit and nothing is decoded. */
	copy[bytes / 2] ^= 1;
	if (warm_unpack_frame(unpack, index, frame, copy, &raw, &err) != WARM_CORRUPT)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct warm_frame frames[2] = { 0 };
	struct warm_index index = { .frames = frames, .n_frames = 2 };
	scope_unpack struct warm_unpack *unpack = NULL;
	uint32_t claimed;
	uint16_t split;

	if (bytes < 6 || warm_unpack_new(&unpack, NULL) != 0)
		return 0;
	memcpy(&claimed, data, 4);
	memcpy(&split, data + 4, 2);
	data += 6;
	bytes -= 6;
	size_t first = bytes > 0 ? split % (bytes + 1) : 0;
	frames[0].raw_bytes = 1 + claimed % WARM_FRAME_RAW_BYTES;
	frames[1].raw_bytes = 1 + (claimed >> 8) % 65536;
	unpack_one(unpack, &index, 0, data, first);
	unpack_one(unpack, &index, 1, data + first, bytes - first);
	return 0;
}
