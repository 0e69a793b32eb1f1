/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index of a layer: what its frames hold. docs/format.md is the specification.
 *
 * A writer fills a `struct warm_index` and calls warm_index_encode(), which gives the trailer
 * (the skippable zstd frame at the layer's end) and the layer's name. A reader knows from the
 * name how long the trailer is, reads it, and calls warm_index_parse(), which verifies the digest
 * before it looks at anything. After a parse every number has been checked: frames lie back to
 * back and fill the object up to the trailer; files lie in their frames, in order, without
 * overlap; paths are safe to create beneath a directory; counts and sizes are within the limits.
 *
 * Threads: a parsed index is read only; any number at once.
 */
#ifndef WARM_LAYER_INDEX_H
#define WARM_LAYER_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/error.h"
#include "lib/layer/key.h"

#define WARM_FORMAT_MAJOR 1
#define WARM_FORMAT_MINOR 0

#define WARM_FRAME_RAW_BYTES (4u << 20) /* the most that a frame holds */
#define WARM_FRAME_BYTES (WARM_FRAME_RAW_BYTES + (WARM_FRAME_RAW_BYTES >> 8) + 512)
#define WARM_TRAILER_FIXED_BYTES 136	 /* skippable frame's head and the fixed header */
#define WARM_INDEX_RAW_BYTES (16u << 20) /* the most that an index decodes to */
#define WARM_INDEX_BYTES (8u << 20)	 /* the most that it takes compressed */

/* A layer may decode to WARM_RATIO_SLACK bytes and, above that, to so many times its size. */
#define WARM_RATIO_SLACK (64u << 20)
#define WARM_MAX_RATIO 2048

/* What is known of a group; the writer's profile decided it. */
enum {
	WARM_GROUP_SELF_KEYED = 1,  /* its name covers all that it depends on */
	WARM_GROUP_MUTABLE = 2,	    /* an index file that is rewritten; the newest wins */
	WARM_GROUP_MOUNT_BOUND = 4, /* holds absolute paths: right under one mount path only */
	WARM_GROUP_CPU_BOUND = 8,   /* built for one CPU's instruction sets */
	WARM_GROUP_FLAGS = 15,
};

struct warm_frame {
	uint64_t offset;     /* in the object */
	uint64_t raw_offset; /* in the tar */
	uint32_t bytes;
	uint32_t raw_bytes;
	uint8_t digest[32]; /* SHA-256 of the compressed bytes */
};

struct warm_file {
	const char *path;
	uint64_t size;
	uint64_t raw_offset; /* of its first byte in the tar */
	int64_t mtime_ns;
	uint32_t mode; /* 0111 bits alone */
};

struct warm_group {
	const char *name; /* ends in "@<16 hex>" of `bound`, where that is not 0 */
	const char *profile;
	struct warm_id origin;
	uint64_t bound; /* hash of the CPU's instruction sets or of the mount path; 0: neither */
	unsigned flags;
	uint32_t first_file, n_files;
};

struct warm_index {
	uint16_t major, minor;
	enum warm_layer_kind kind;
	struct warm_id id;
	struct warm_key key;
	int64_t created_ms;
	const char *mount;    /* path of the volume when it was packed */
	const char *program;  /* name and version of the writer */
	const char *complete; /* the complete mark; NULL: none, "" or a template hash: marked */
	struct warm_id *covered;
	size_t n_covered;
	struct warm_frame *frames;
	size_t n_frames;
	struct warm_group *groups;
	size_t n_groups;
	struct warm_file *files;
	size_t n_files;
	uint64_t raw_bytes;	/* of all frames */
	uint64_t bytes;		/* of all frames, compressed: where the trailer begins */
	size_t index_raw_bytes; /* of a parsed one: about the memory that it takes */
	void *arena;		/* strings of a parsed index */
};

void warm_index_free(struct warm_index *index);
static inline void warm_index_scope(struct warm_index **index)
{
	warm_index_free(*index);
}
#define scope_index WARM_SCOPE(warm_index_scope)

/* The trailer for `index`, appended to `ret_trailer`, and the layer's name.
 *
 * Errors: NO_MEMORY; LIMIT when the index is larger than readers accept.
 */
int warm_index_encode(const struct warm_index *index, struct warm_buf *ret_trailer,
		      struct warm_layer_name *ret_name, struct warm_error *err) WARM_CHECKED;

/* Bytes of the trailer of a layer of this name: the last ones of the object. */
static inline uint64_t warm_trailer_bytes(const struct warm_layer_name *name)
{
	return WARM_TRAILER_FIXED_BYTES + (uint64_t)name->index_bytes;
}

/* Verify and parse a trailer.
 *
 * Input:  `trailer`, the last warm_trailer_bytes(name) bytes of an object of `object_bytes`;
 *         `key` and `name`, from the object's name.
 * Errors: CORRUPT for a wrong digest and for anything that lies (the message says what);
 *         UNSUPPORTED for a newer major; LIMIT; NO_MEMORY.
 * Owns:   the caller frees `ret_index`.
 */
int warm_index_parse(const void *trailer, size_t trailer_bytes, uint64_t object_bytes,
		     const struct warm_key *key, const struct warm_layer_name *name,
		     struct warm_index **ret_index, struct warm_error *err) WARM_CHECKED;

/* Verify the digest alone, and say how large the index is when it is decoded: before memory is
 * taken for it. CORRUPT as above. */
int warm_index_measure(const void *trailer, size_t trailer_bytes,
		       const struct warm_layer_name *name, uint64_t *ret_raw_bytes,
		       struct warm_error *err) WARM_CHECKED;

/* The part that follows the digest check; for the fuzzer. */
int warm_index_parse_raw(const void *raw, size_t raw_bytes, uint64_t frames_bytes,
			 struct warm_index **ret_index, struct warm_error *err) WARM_CHECKED;

/* The frames [*ret_first, *ret_end) that hold bytes of `file`; empty for an empty file. */
void warm_index_frames_of(const struct warm_index *index, const struct warm_file *file,
			  size_t *ret_first, size_t *ret_end);

/* The length of the group's name without its "@<16 hex>". */
size_t warm_group_base(const struct warm_group *group);

/* The part of `path` that a restore moves as one: as many components as the group's name has.
 * Returns its length. */
size_t warm_group_unit(const char *group_name, const char *path);

#endif
