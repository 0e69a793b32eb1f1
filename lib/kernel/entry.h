/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An entry of the kernel cache: one compiled program, with what it was compiled from.
 *
 *	nvrtc/v1/<2 hex>/<fingerprint>               a program without dependencies
 *	nvrtc/v1/<2 hex>/<fingerprint>.d/<digest>    one of its variants, by dependency list
 *
 * A path never changes its contents, so the union of two caches is right. The file holds its
 * inputs (options in full; length and digest of source and headers), every output that NVRTC's
 * getters give, the dependencies, and ends in the XXH3-128 of all before. A file that is cut
 * short, flipped or of another version is no entry: a miss, never an error.
 *
 * Threads: pure functions.
 */
#ifndef WARM_KERNEL_ENTRY_H
#define WARM_KERNEL_ENTRY_H

#include "lib/base/buf.h"
#include "lib/base/hash.h"

#define WARM_KERNEL_DIR "nvrtc/v1"
#define WARM_KERNEL_VARIANTS 8
#define WARM_KERNEL_ENTRY_BYTES ((size_t)1 << 30)

enum warm_kernel_output_kind {
	WARM_KERNEL_PTX,
	WARM_KERNEL_CUBIN,
	WARM_KERNEL_LTOIR,
	WARM_KERNEL_OPTIXIR,
	WARM_KERNEL_TILEIR,
	WARM_KERNEL_OUTPUTS,
};

enum warm_kernel_dep_kind {
	WARM_KERNEL_DEP_ABSENT, /* was looked for and not there */
	WARM_KERNEL_DEP_FILE,	/* size and digest of its contents */
	WARM_KERNEL_DEP_DIR,   /* the program's directory, as the name gives it, is in the output */
	WARM_KERNEL_DEP_CWD,   /* the current directory decides (a relative -I) */
	WARM_KERNEL_DEP_APART, /* is not there, or is no file of the list so far: the compiler
				 * asked only for its identity */
};

/* A view: strings lie in the entry's data, terminated by the NUL that the format keeps. */
struct warm_kernel_text {
	const char *data;
	size_t bytes;
};

struct warm_kernel_dep {
	enum warm_kernel_dep_kind kind;
	bool relative; /* to the program's directory */
	struct warm_kernel_text path;
	uint64_t size;
	struct warm_hash128 digest;
	uint32_t twin; /* of a file: which one of the list's files, counted from 1, is the same
			* file (device and inode) as this, the first; 0: none before it */
};

/* A list of them as an entry holds it: `n` in `bytes` bytes. An entry may have hundreds, and most
 * readers need none. */
struct warm_kernel_deps {
	const uint8_t *data;
	size_t bytes, n;
};

/* What a program is compiled from, as far as an entry keeps it. */
struct warm_kernel_inputs {
	struct warm_kernel_text compiler;    /* ids of libnvrtc and its builtins */
	struct warm_kernel_text environment; /* variables that count, "A=1\nB=2\n" */
	struct warm_kernel_text name;	     /* base name */
	const struct warm_kernel_text *options;
	size_t n_options;
	const struct warm_kernel_text *expressions; /* name expressions */
	size_t n_expressions;
	uint64_t source_bytes;
	struct warm_hash128 source_digest;
	uint64_t headers_bytes;
	uint32_t n_headers;
	struct warm_hash128 headers_digest; /* names and bytes, length-framed, in order */
};

struct warm_kernel_entry {
	struct warm_hash128 fingerprint;
	struct warm_kernel_inputs inputs;
	struct warm_kernel_deps deps;
	struct warm_kernel_text *lowered; /* per name expression; empty: none */
	struct warm_kernel_text outputs[WARM_KERNEL_OUTPUTS];
	struct warm_kernel_text log;
};

/* The fingerprint of inputs; dependencies are no part of it. */
struct warm_hash128 warm_kernel_fingerprint(const struct warm_kernel_inputs *inputs,
					    struct warm_hasher *hasher);
bool warm_kernel_inputs_equal(const struct warm_kernel_inputs *a,
			      const struct warm_kernel_inputs *b);
struct warm_hash128 warm_kernel_deps_digest(struct warm_kernel_deps deps);

/* The fields that entries and the helper's messages share. A text is written with a NUL behind it;
 * taking one that is malformed makes the reader bad. */
void warm_kernel_put_text(struct warm_buf *out, struct warm_kernel_text text);
struct warm_kernel_text warm_kernel_take_text(struct warm_reader *r);
/* Append one to a list; its texts are copied. */
void warm_kernel_encode_dep(struct warm_buf *out, const struct warm_kernel_dep *dep);
/* The next of the list that `r` reads. False at its end, and where it is malformed (`r->bad`). */
bool warm_kernel_next_dep(struct warm_reader *r, struct warm_kernel_dep *ret_dep);
void warm_kernel_put_deps(struct warm_buf *out, struct warm_kernel_deps deps);
struct warm_kernel_deps warm_kernel_take_deps(struct warm_reader *r);

void warm_kernel_put_inputs(struct warm_buf *out, const struct warm_kernel_inputs *inputs);
/* Views into the reader's data, in tables of their own. NO_MEMORY; malformed ones make `r` bad. */
int warm_kernel_take_inputs(struct warm_reader *r,
			    struct warm_kernel_inputs *ret_inputs) WARM_CHECKED;
void warm_kernel_inputs_release(struct warm_kernel_inputs *inputs);

/* Say in words how `now` differs from `was`: "option 3: -arch=sm_90 was -arch=sm_89; source: 120
 * bytes were 118". Returns the number of differences; nothing is written when there is none. */
unsigned warm_kernel_inputs_explain(const struct warm_kernel_inputs *was,
				    const struct warm_kernel_inputs *now, struct warm_buf *out);

/* Write an entry. Errors show in `out->failed`. */
void warm_kernel_entry_encode(const struct warm_kernel_entry *entry, struct warm_buf *out);

/* Check and read. CORRUPT for whatever is no whole entry of this version; NO_MEMORY.
 * Owns: `ret_entry` borrows `data`; warm_kernel_entry_release() frees its tables. */
int warm_kernel_entry_parse(const void *data, size_t bytes, struct warm_kernel_entry *ret_entry,
			    struct warm_error *err) WARM_CHECKED;
void warm_kernel_entry_release(struct warm_kernel_entry *entry);

/* "nvrtc/v1/ab/<fingerprint>", and with `deps` ".d/<digest>" behind it. */
void warm_kernel_entry_path(struct warm_hash128 fingerprint, const struct warm_hash128 *deps,
			    char ret_path[128]);

#endif
