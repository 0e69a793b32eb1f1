/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Find NVRTC and its builtins library, and tell them from others without loading them.
 *
 * Threads: pure functions over the file system and the environment.
 */
#ifndef WARM_COMPILER_NVRTC_H
#define WARM_COMPILER_NVRTC_H

#include "lib/base/buf.h"
#include "lib/base/file.h"

struct warm_nvrtc {
	char library[WARM_PATH_BYTES]; /* real paths */
	char builtins[WARM_PATH_BYTES];
	char identity[160];  /* of both: build ids, or hashes of the files */
	struct stat seen[2]; /* library and builtins, when the identity was taken */
};

/* Whether both files are still those that were found. */
bool warm_nvrtc_unchanged(const struct warm_nvrtc *nvrtc);

/* `library` is a path or NULL to search: WARM_NVRTC_LIBRARY; a libnvrtc that is loaded in this
 * process; for each loaded object that needs one, its RUNPATH or RPATH, and the nvidia wheels of
 * its site-packages; LD_LIBRARY_PATH; the loader's cache; the places where CUDA is installed; the
 * nvidia wheels of VIRTUAL_ENV and CONDA_PREFIX. Of major version `major` alone, if not 0. Never
 * our drop-in, which carries a note section that says so.
 *
 * Errors: NOT_FOUND naming what is missing and where it was looked for; CORRUPT for a file that
 *         is no ELF library.
 */
int warm_nvrtc_find(const char *library, int major, struct warm_nvrtc *ret_nvrtc,
		    struct warm_error *err) WARM_CHECKED;

/* The same without its builtins: `library` alone is set. */
int warm_nvrtc_find_alone(int major, struct warm_nvrtc *ret_nvrtc) WARM_CHECKED;

/* "b:" and the build id from the section .note.gnu.build-id, or "h:" and the XXH3-128 of the
 * file. (Not from PT_NOTE: in the wheels of 11.8 to 12.8 it points elsewhere.) */
int warm_elf_identity(const char *path, char ret_identity[72], struct warm_error *err) WARM_CHECKED;

#endif
