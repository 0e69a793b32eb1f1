/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What unit tests share: a directory of their own, files in it, and layers made by hand.
 *
 * Everything here ends the test with an assertion when it fails.
 */
#ifndef WARM_TESTS_SCRATCH_H
#define WARM_TESTS_SCRATCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Wants some of the above before it. */
#include <cmocka.h>

#include "lib/base/file.h"
#include "lib/layer/index.h"
#include "lib/layer/pack.h"
#include "lib/store/store.h"

#define TEST(name) static void name(void **state __attribute__((unused)))
#define RUN(tests) cmocka_run_group_tests(tests, NULL, NULL)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A directory under $TMPDIR, removed with all below it by scratch_close(). */
struct scratch {
	char path[256];
	int fd;
};
struct scratch scratch_open(void);
void scratch_close(struct scratch *s);
#define scope_scratch WARM_SCOPE(scratch_close)
/* "<scratch>/<name>" in static storage, of which there are eight. */
const char *scratch_path(const struct scratch *s, const char *name);

/* Make parents and the file. Fixed mtime where `mtime_ns` is not 0. */
void put_file(int dir_fd, const char *path, const void *data, size_t bytes, mode_t mode,
	      int64_t mtime_ns);
void put_text(int dir_fd, const char *path, const char *text);
void put_dir(int dir_fd, const char *path);
void set_times(int dir_fd, const char *path, int64_t atime_ns, int64_t mtime_ns);
bool is_there(int dir_fd, const char *path);
struct stat stat_of(int dir_fd, const char *path);
/* The file's text; the caller frees it. */
char *text_of(int dir_fd, const char *path, size_t *ret_bytes);
void assert_file(int dir_fd, const char *path, const char *text);

/* One line a file, sorted: path, size, execute bits, mtime (ns; 0 unless asked for), digest of the
 * contents. `.warmcache` is left out. The caller frees it. */
char *list_tree(int dir_fd, bool with_mtime);

/* A generator whose numbers depend on its seed alone. */
struct dice {
	uint64_t state;
};
uint64_t roll(struct dice *d);
static inline uint64_t roll_below(struct dice *d, uint64_t n)
{
	return roll(d) % n;
}
/* Bytes that don't compress, or that do. The caller frees them. */
uint8_t *noise(uint64_t seed, size_t bytes);
uint8_t *pattern(uint64_t seed, size_t bytes);

/* system() with a printf format; the exit status. */
int shell(const char *fmt, ...) WARM_PRINTF(1, 2);
/* Whether a tool is there; prints a note when it isn't. */
bool have_tool(const char *name);

struct warm_key key_of(const char *model, const char *version);

/* A layer made by hand: groups of files with given contents, whatever a profile would say. */
struct made_file {
	const char *path;
	const char *text;
	size_t bytes; /* 0: strlen(text) */
	int64_t mtime_ns;
	mode_t mode;
};
struct made_group {
	const char *name; /* without "@..." */
	const char *profile;
	unsigned flags;
	uint64_t bound;
	struct warm_id origin;	   /* none: the layer's id */
	struct made_file files[4]; /* up to the first without a path */
};
struct made_layer {
	enum warm_layer_kind kind; /* 0: WARM_LAYER */
	struct warm_id id;
	const char *mount;
	const char *complete;
	const struct warm_id *covered;
	size_t n_covered;
	const struct made_group *groups;
	size_t n_groups;
};
/* Pack and put it; the object's name in `ret_object`. */
void put_made_layer(struct warm_store *store, const struct warm_key *key,
		    const struct made_layer *layer, char ret_object[WARM_NAME_BYTES]);

/* All of `path` in one buffer; the caller frees it. */
uint8_t *load_file(const char *path, size_t *ret_bytes);
/* Change one byte of a file in place; negative offsets count from its end. */
void flip_byte(const char *path, long offset);

/* Everything that an index says, and a digest of the tar that its frames decode to, as text; where
 * frames begin and their compressed bytes are left out, since those depend on the writer and on
 * the version of zstd. */
char *describe_layer(const uint8_t *layer, size_t bytes, const struct warm_key *key,
		     const struct warm_layer_name *name);

/* Notices that a call gave, as "event: text\n". */
struct heard {
	char text[16384];
	size_t used;
};
void hear(void *heard, const char *event, const char *text);

#endif
