/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/layer/pack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
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

struct warm_pack {
	int fd;
	int level;
	uint64_t max_bytes;
	ZSTD_CCtx *cctx;
	struct archive *tar;
	struct archive_entry *entry;
	uint8_t *raw; /* the frame that is being filled */
	size_t raw_used;
	uint8_t *packed;
	size_t packed_capacity;
	uint64_t raw_offset; /* of `raw` in the tar */
	uint64_t bytes;	     /* written to fd */
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

static int flush_frame(struct warm_pack *pack, struct warm_error *err)
{
	if (pack->raw_used == 0)
		return 0;
	int rc = grow(&pack->frames, &pack->frames_capacity, pack->n_frames + 1,
		      sizeof(*pack->frames), err);
	if (rc != 0)
		return rc;
	size_t n = ZSTD_compressCCtx(pack->cctx, pack->packed, pack->packed_capacity, pack->raw,
				     pack->raw_used, pack->level);
	if (ZSTD_isError(n))
		return warm_error_set(err, WARM_NO_MEMORY, "compress a frame: %s",
				      ZSTD_getErrorName(n));
	struct warm_frame *f = &pack->frames[pack->n_frames];
	*f = (struct warm_frame){
		.offset = pack->bytes,
		.raw_offset = pack->raw_offset,
		.bytes = (uint32_t)n,
		.raw_bytes = (uint32_t)pack->raw_used,
	};
	rc = warm_sha256(pack->packed, n, f->digest, err);
	if (rc == 0)
		rc = warm_file_write_at(pack->fd, pack->packed, n, pack->bytes, err);
	if (rc != 0)
		return rc;
	pack->n_frames++;
	pack->bytes += n;
	pack->raw_offset += pack->raw_used;
	pack->raw_used = 0;
	return 0;
}

static int put_raw(struct warm_pack *pack, const void *data, size_t bytes, struct warm_error *err)
{
	const uint8_t *p = data;

	while (bytes > 0) {
		size_t n = FRAME_BYTES - pack->raw_used;
		if (n > bytes)
			n = bytes;
		memcpy(pack->raw + pack->raw_used, p, n);
		pack->raw_used += n;
		p += n;
		bytes -= n;
		if (pack->raw_used == FRAME_BYTES) {
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

int warm_pack_open(int fd, int level, uint64_t max_bytes, struct warm_pack **ret_pack,
		   struct warm_error *err)
{
	scope_pack struct warm_pack *pack = calloc(1, sizeof(*pack));

	if (pack == NULL)
		return warm_error_nomem(err, sizeof(*pack));
	pack->fd = fd;
	pack->level = level;
	pack->max_bytes = max_bytes;
	pack->packed_capacity = ZSTD_compressBound(FRAME_BYTES);
	pack->raw = malloc(FRAME_BYTES);
	pack->packed = malloc(pack->packed_capacity);
	pack->cctx = ZSTD_createCCtx();
	pack->tar = archive_write_new();
	pack->entry = archive_entry_new();
	if (pack->raw == NULL || pack->packed == NULL || pack->cctx == NULL || pack->tar == NULL ||
	    pack->entry == NULL)
		return warm_error_nomem(err, FRAME_BYTES);
	/* No blocking: what libarchive writes arrives at once, so that positions are known. */
	if (archive_write_set_format_pax_restricted(pack->tar) != ARCHIVE_OK ||
	    archive_write_set_bytes_per_block(pack->tar, 0) != ARCHIVE_OK ||
	    archive_write_open(pack->tar, pack, NULL, tar_write, NULL) != ARCHIVE_OK)
		return tar_error(pack, "open the tar writer", err);
	*ret_pack = take_ptr(pack);
	return 0;
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
	drop_groups(pack, 0, 0);
	pack->discard = true;
	archive_entry_free(pack->entry);
	archive_write_free(pack->tar);
	ZSTD_freeCCtx(pack->cctx);
	free(pack->raw);
	free(pack->packed);
	free(pack->frames);
	free(pack->groups);
	free(pack->files);
	free(pack);
}

bool warm_pack_usable(const struct warm_pack *pack)
{
	return !pack->broken;
}

uint64_t warm_pack_bytes(const struct warm_pack *pack)
{
	return pack->bytes;
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
		size_t n = FRAME_BYTES - pack->raw_used;
		if (n > left)
			n = (size_t)left;
		int rc = warm_call_check(call, err);
		if (rc != 0) {
			pack->broken = true;
			return rc;
		}
		ssize_t got = read(fd, pack->raw + pack->raw_used, n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return warm_error_errno(err, errno, "read");
		if (got == 0)
			return warm_error_set(err, WARM_EXISTS, "changed while it was read");
		pack->raw_used += (size_t)got;
		left -= (uint64_t)got;
		if (pack->raw_used == FRAME_BYTES) {
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

static int open_source(int dir_fd, const char *path, struct warm_error *err)
{
	int fd = -1;
	/* O_NONBLOCK: a FIFO that took the file's place must not hold us. O_NOATIME: our reads
	 * don't count as use; only the owner may ask for it. */
	int rc = warm_beneath_open(dir_fd, path, O_RDONLY | O_NONBLOCK | O_NOATIME, 0, &fd, NULL);

	if (rc == WARM_DENIED)
		rc = warm_beneath_open(dir_fd, path, O_RDONLY | O_NONBLOCK, 0, &fd, err);
	else if (rc != 0)
		rc = warm_beneath_open(dir_fd, path, O_RDONLY | O_NONBLOCK | O_NOATIME, 0, &fd,
				       err);
	return rc != 0 ? rc : fd;
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
	scope_close int fd = open_source(group->dir_fd, source, err);
	if (fd < 0)
		return fd;
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
		.raw_offset = pack->raw_offset + pack->raw_used,
	};
	if (f->path == NULL)
		return warm_error_nomem(err, strlen(file->path));
	pack->n_files++;
	rc = put_data(pack, fd, size, call, err);
	if (rc != 0)
		return pack->broken ? rc : warm_error_context(err, "%s", file->path);
	if (fstat(fd, &st) != 0)
		return warm_error_errno(err, errno, "stat %s", file->path);
	struct warm_seen after = warm_seen_of(&st);
	if (!warm_seen_equal(&before, &after))
		return warm_error_set(err, WARM_EXISTS, "%s changed while it was read", file->path);
	return 0;
}

struct mark {
	size_t n_frames, raw_used, n_groups, n_files;
	uint64_t raw_offset, bytes;
};

/* Take the stream back to `mark`. When a frame was closed since, its first bytes are those that
 * were in the buffer then: decode it again. */
static int roll_back(struct warm_pack *pack, const struct mark *mark)
{
	pack->discard = true;
	archive_write_finish_entry(pack->tar);
	pack->discard = false;
	drop_groups(pack, mark->n_groups, mark->n_files);
	if (pack->n_frames > mark->n_frames) {
		const struct warm_frame *f = &pack->frames[mark->n_frames];
		if (warm_file_read_at(pack->fd, pack->packed, f->bytes, f->offset, NULL) != 0)
			return -1;
		size_t n = ZSTD_decompress(pack->raw, FRAME_BYTES, pack->packed, f->bytes);
		if (ZSTD_isError(n) || ftruncate(pack->fd, (off_t)mark->bytes) != 0)
			return -1;
	}
	pack->n_frames = mark->n_frames;
	pack->raw_used = mark->raw_used;
	pack->raw_offset = mark->raw_offset;
	pack->bytes = mark->bytes;
	return 0;
}

int warm_pack_add(struct warm_pack *pack, const struct warm_pack_group *group,
		  const struct warm_call *call, struct warm_error *err)
{
	struct mark mark = {
		.n_frames = pack->n_frames,
		.raw_used = pack->raw_used,
		.n_groups = pack->n_groups,
		.n_files = pack->n_files,
		.raw_offset = pack->raw_offset,
		.bytes = pack->bytes,
	};
	int rc = grow(&pack->groups, &pack->groups_capacity, pack->n_groups + 1,
		      sizeof(*pack->groups), err);

	for (size_t i = 0; rc == 0 && i < group->n_files; i++)
		rc = add_file(pack, group, &group->files[i], call, err);
	if (rc == 0 && pack->n_groups > 0 && pack->bytes > pack->max_bytes)
		rc = warm_error_set(err, WARM_LIMIT, "the layer is full");
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
