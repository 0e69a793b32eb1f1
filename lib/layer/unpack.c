/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/layer/unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <zstd.h>

#include "lib/base/file.h"
#include "lib/layer/sha256.h"

struct warm_unpack {
	ZSTD_DCtx *dctx;
	uint8_t *raw;
	size_t capacity;
};

int warm_unpack_new(struct warm_unpack **ret_unpack, struct warm_error *err)
{
	scope_unpack struct warm_unpack *unpack = calloc(1, sizeof(*unpack));

	if (unpack == NULL)
		return warm_error_nomem(err, sizeof(*unpack));
	unpack->dctx = ZSTD_createDCtx();
	if (unpack->dctx == NULL)
		return warm_error_nomem(err, 0);
	*ret_unpack = take_ptr(unpack);
	return 0;
}

void warm_unpack_free(struct warm_unpack *unpack)
{
	if (unpack == NULL)
		return;
	ZSTD_freeDCtx(unpack->dctx);
	free(unpack->raw);
	free(unpack);
}

int warm_unpack_frame(struct warm_unpack *unpack, const struct warm_index *index, size_t frame,
		      const void *packed, const uint8_t **ret_raw, struct warm_error *err)
{
	const struct warm_frame *f = &index->frames[frame];
	uint8_t digest[32];

	int rc = warm_sha256(packed, f->bytes, digest, err);
	if (rc != 0)
		return rc;
	if (memcmp(digest, f->digest, 32) != 0)
		return warm_error_set(err, WARM_CORRUPT, "frame %zu doesn't match its digest",
				      frame);
	if (unpack->capacity < f->raw_bytes) {
		free(unpack->raw);
		unpack->capacity = 0;
		unpack->raw = malloc(f->raw_bytes);
		if (unpack->raw == NULL)
			return warm_error_nomem(err, f->raw_bytes);
		unpack->capacity = f->raw_bytes;
	}
	size_t n = ZSTD_decompressDCtx(unpack->dctx, unpack->raw, f->raw_bytes, packed, f->bytes);
	if (ZSTD_isError(n) || n != f->raw_bytes)
		return warm_error_set(err, WARM_CORRUPT, "frame %zu doesn't decode to %u bytes: %s",
				      frame, f->raw_bytes,
				      ZSTD_isError(n) ? ZSTD_getErrorName(n) : "too short");
	*ret_raw = unpack->raw;
	return 0;
}

static int set_attributes(int fd, const struct warm_file *file, int64_t atime_ns,
			  struct warm_error *err)
{
	struct timespec times[2] = { warm_timespec_of_ns(atime_ns),
				     warm_timespec_of_ns(file->mtime_ns) };
	struct stat st;

	/* The umask may have taken bits away. */
	if (fstat(fd, &st) != 0)
		return warm_error_errno(err, errno, "stat");
	if ((st.st_mode & 0777) != (0666 | file->mode) && fchmod(fd, 0666 | file->mode) != 0)
		return warm_error_errno(err, errno, "chmod");
	if (futimens(fd, times) != 0)
		return warm_error_errno(err, errno, "set times");
	return 0;
}

int warm_unpack_write(int dir_fd, const char *path, const struct warm_index *index, size_t frame,
		      const struct warm_file *file, const uint8_t *raw, int64_t atime_ns,
		      struct warm_error *err)
{
	const struct warm_frame *f = &index->frames[frame];
	uint64_t from = file->raw_offset, to = file->raw_offset + file->size;
	bool whole = from >= f->raw_offset && to <= f->raw_offset + f->raw_bytes;

	if (from < f->raw_offset)
		from = f->raw_offset;
	if (to > f->raw_offset + f->raw_bytes)
		to = f->raw_offset + f->raw_bytes;
	scope_close int fd = -1;
	int rc = warm_beneath_open(dir_fd, path, O_WRONLY | O_CREAT | O_NONBLOCK, 0666 | file->mode,
				   &fd, err);
	if (rc == 0)
		rc = warm_file_write_at(fd, raw + (from - f->raw_offset), to - from,
					from - file->raw_offset, err);
	if (rc == 0 && whole)
		rc = set_attributes(fd, file, atime_ns, err);
	if (rc == 0)
		rc = warm_file_close(&fd, err);
	return rc;
}

int warm_unpack_settle(int dir_fd, const char *path, const struct warm_file *file, int64_t atime_ns,
		       struct warm_error *err)
{
	scope_close int fd = -1;
	int rc = warm_beneath_open(dir_fd, path, O_WRONLY | O_CREAT | O_NONBLOCK, 0666 | file->mode,
				   &fd, err);

	if (rc == 0)
		rc = set_attributes(fd, file, atime_ns, err);
	if (rc == 0)
		rc = warm_file_close(&fd, err);
	return rc;
}
