/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of each compiler's cache directory.
 *
 * A table of path patterns decides, for a path relative to the volume, which group it belongs to
 * and what may be done with it. Under a profile's root only what the table lists is packed;
 * under any other directory each file is a group of its own, and is not self-keyed.
 *
 * Threads: pure functions over static tables and the files they are pointed at.
 */
#ifndef WARM_LAYER_PROFILE_H
#define WARM_LAYER_PROFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/error.h"
#include "lib/base/file.h"

enum warm_profile {
	WARM_PROFILE_FILE, /* no compiler that we know */
	WARM_PROFILE_TRITON,
	WARM_PROFILE_INDUCTOR,
	WARM_PROFILE_VLLM,
	WARM_PROFILE_JAX,
	WARM_PROFILE_FLASHINFER,
	WARM_PROFILE_DEEPGEMM,
	WARM_PROFILE_TILELANG,
	WARM_PROFILE_NVRTC,
	WARM_PROFILES,
};

/* Static name: "triton", "inductor", ..., "file". */
const char *warm_profile_name(enum warm_profile profile);
/* The profile of this name, or WARM_PROFILE_FILE. */
enum warm_profile warm_profile_by_name(const char *name);

/* Roots beside the usual ones, from `--profile NAME=DIR`. */
#define WARM_PROFILE_ROOTS_MAX 16
struct warm_profile_roots {
	struct {
		enum warm_profile profile;
		const char *dir; /* relative, without a slash at its end */
	} extra[WARM_PROFILE_ROOTS_MAX];
	size_t n;
	uint64_t mount_hash; /* warm_mount_hash() of the volume's mount path */
};

/* Add a "NAME=DIR"; INVALID says what is wrong. `text` must outlive `roots`. */
int warm_profile_roots_add(struct warm_profile_roots *roots, const char *text,
			   struct warm_error *err) WARM_CHECKED;

/* The i-th directory of the volume that is some profile's root; NULL after the last. */
const char *warm_profile_root(const struct warm_profile_roots *roots, size_t i);

enum {
	WARM_PLACE_RENAMED = 1 << 8,	/* its compiler renames it into place: whole if it exists */
	WARM_PLACE_COMPANION = 1 << 10, /* rides in its group; a change of it is no change */
	WARM_PLACE_UNREAD = 1 << 11,	/* a hit doesn't open it: that it wasn't says nothing */
};

struct warm_place {
	enum warm_profile profile;
	bool packed;	/* false: never published */
	unsigned flags; /* WARM_GROUP_* of index.h and WARM_PLACE_* */
	uint64_t bound; /* to this CPU or this mount path; 0: neither */
	char group[WARM_PATH_BYTES + 24];
};

/* `path` is relative to the volume and passed warm_path_check(). `roots` may be NULL: the usual roots, and a mount path of "". */
void warm_profile_place(const struct warm_profile_roots *roots, const char *path,
			struct warm_place *ret_place);

/* Whether a directory of this name never holds anything to publish: temporary, staging and lock
 * directories, and our own .warmcache. */
bool warm_profile_skips_dir(const char *name);
/* The same for a file: temporary files, locks. */
bool warm_profile_skips_file(const char *name);

/* Hash of the instruction sets that compilers use on this machine; 0 where it can't be told: then
 * nothing bound to a CPU is packed or restored. */
uint64_t warm_cpu_hash(void);
/* Hash of a mount path; never 0. */
uint64_t warm_mount_hash(const char *mount);

enum warm_whole {
	WARM_WHOLE_NO,	    /* not all there, or torn */
	WARM_WHOLE_UNKNOWN, /* nothing in the files can tell */
	WARM_WHOLE_YES,	    /* proven by the files themselves */
};

/* Look whether a group is whole. `paths` are relative to `volume_fd`, sorted. On WARM_WHOLE_NO
 * `ret_why` (of `why_bytes`) says what is missing. */
enum warm_whole warm_profile_whole(int volume_fd, enum warm_profile profile, unsigned flags,
				   const char *group, const char *const *paths, size_t n,
				   char *ret_why, size_t why_bytes);

#endif
