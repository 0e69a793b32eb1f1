/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pack groups into a layer: tar, cut into zstd frames, with the index at its end.
 *
 *	warm_pack_open(fd, ...);            an empty file, opened for reading and writing
 *	warm_pack_add(...) per group;       whole or not at all
 *	warm_pack_finish(...);              end of archive, trailer; gives name and size
 *	warm_pack_free(...);
 *
 * A group is in the layer wholly or not at all: a file that changed while it was read, that
 * can't be read or that isn't what the caller saw takes its whole group back out of the stream.
 * The same groups in the same order give the same frames.
 *
 * Threads: one pack belongs to one thread at a time, and may have some of its own.
 */
#ifndef WARM_LAYER_PACK_H
#define WARM_LAYER_PACK_H

#include <sys/stat.h>

#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/pace.h"
#include "lib/layer/index.h"

/* What tells one state of a file from another. */
struct warm_seen {
	uint64_t dev, ino, size;
	int64_t mtime_ns, ctime_ns;
};

static inline struct warm_seen warm_seen_of(const struct stat *st)
{
	return (struct warm_seen){
		.dev = st->st_dev,
		.ino = st->st_ino,
		.size = (uint64_t)st->st_size,
		.mtime_ns = warm_timespec_ns(st->st_mtim),
		.ctime_ns = warm_timespec_ns(st->st_ctim),
	};
}

static inline bool warm_seen_equal(const struct warm_seen *a, const struct warm_seen *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
	       a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns;
}

struct warm_pack_file {
	const char *path;	      /* in the layer */
	const char *source;	      /* below `dir_fd`; NULL: the same as `path` */
	const struct warm_seen *seen; /* by the scan; another state means that it changed */
	int64_t mtime_ns;	      /* to record */
};

struct warm_pack_group {
	const char *name;
	const char *profile;
	struct warm_id origin; /* none: the layer's own id */
	uint64_t bound;	       /* as in struct warm_group */
	unsigned flags;
	int dir_fd;
	const struct warm_pack_file *files; /* sorted by path */
	size_t n_files;
};

struct warm_pack_meta {
	enum warm_layer_kind kind;
	struct warm_id id;
	const struct warm_key *key;
	int64_t created_ms;
	const char *mount;
	const char *complete; /* NULL: no mark */
	const struct warm_id *covered;
	size_t n_covered;
};

struct warm_pack;

/* `level` is zstd's. A layer takes at most `max_bytes` compressed, unless one group alone is
 * larger. Frames are compressed by `threads` threads while the caller's reads files, at most 4;
 * 0: by the caller's. `fd` stays the caller's and must be empty. */
int warm_pack_open(int fd, int level, uint64_t max_bytes, unsigned threads,
		   struct warm_pack **ret_pack, struct warm_error *err) WARM_CHECKED;
void warm_pack_free(struct warm_pack *pack);
static inline void warm_pack_scope(struct warm_pack **pack)
{
	warm_pack_free(*pack);
}
#define scope_pack WARM_SCOPE(warm_pack_scope)

/* Add one group.
 *
 * Errors: EXISTS when a file changed under the reader (try again in a later round); NOT_FOUND,
 *         DENIED, CORRUPT (a link in the way) for one that can't be read; LIMIT when the layer
 *         would grow over its size or over what readers accept: finish it and add the group to
 *         the next; one that is over that alone can't be published. In all these cases
 *         the pack is as it was before. NO_SPACE, IO, NO_MEMORY, CANCELED: the pack can't be used
 *         any more.
 */
int warm_pack_add(struct warm_pack *pack, const struct warm_pack_group *group,
		  const struct warm_call *call, struct warm_error *err) WARM_CHECKED;
/* Whether the last warm_pack_add() that failed left the pack usable. */
bool warm_pack_usable(const struct warm_pack *pack);

/* Keep to `pace` between frames, where the caller's thread compresses them. It is borrowed. */
void warm_pack_pace(struct warm_pack *pack, struct warm_pace *pace);

size_t warm_pack_groups(const struct warm_pack *pack);

/* Write the end. The name to store it under, and the object's size. */
int warm_pack_finish(struct warm_pack *pack, const struct warm_pack_meta *meta,
		     struct warm_layer_name *ret_name, uint64_t *ret_bytes,
		     struct warm_error *err) WARM_CHECKED;

#endif
