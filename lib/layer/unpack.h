/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames back into files: verify, decode, write beneath a directory.
 *
 * Threads: one `struct warm_unpack` a thread; any number at once over one index.
 */
#ifndef WARM_LAYER_UNPACK_H
#define WARM_LAYER_UNPACK_H

#include "lib/layer/index.h"

struct warm_unpack;

int warm_unpack_new(struct warm_unpack **ret_unpack, struct warm_error *err) WARM_CHECKED;
void warm_unpack_free(struct warm_unpack *unpack);
static inline void warm_unpack_scope(struct warm_unpack **unpack)
{
	warm_unpack_free(*unpack);
}
#define scope_unpack WARM_SCOPE(warm_unpack_scope)

/* Verify one frame's digest and only then decode it.
 *
 * Output: `ret_raw` points to frame->raw_bytes bytes, valid until the next call.
 * Errors: CORRUPT naming the frame; NO_MEMORY.
 */
int warm_unpack_frame(struct warm_unpack *unpack, const struct warm_index *index, size_t frame,
		      const void *packed, const uint8_t **ret_raw,
		      struct warm_error *err) WARM_CHECKED;

/* Write to `path` (a file's own, or a place for it) beneath `dir_fd` what `frame` holds of
 * `file`. The first part creates the file; parts may come in any order and from many threads;
 * each is one open, write, close. The directory must be there. Mode and times are set by
 * warm_unpack_settle(), or here when `file` lies in this frame alone.
 *
 * Errors: those of open and write; CORRUPT for a link in the way.
 */
int warm_unpack_write(int dir_fd, const char *path, const struct warm_index *index, size_t frame,
		      const struct warm_file *file, const uint8_t *raw, int64_t atime_ns,
		      struct warm_error *err) WARM_CHECKED;

/* Set times and execute bits of a file of several frames, or make an empty one. */
int warm_unpack_settle(int dir_fd, const char *path, const struct warm_file *file, int64_t atime_ns,
		       struct warm_error *err) WARM_CHECKED;

#endif
