/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What looks like a secret in a text artifact.
 *
 * Two rules: in files that list an environment (vLLM's cache_key_factors.json), a variable whose
 * name has the word KEY, TOKEN, SECRET, PASSWORD or CREDENTIAL and whose value is a non-empty
 * string; in any text file, values that have the form of a well-known kind of key or token. It
 * finds what was left there by mistake, not what somebody hides.
 *
 * Threads: any number.
 */
#ifndef WARM_LAYER_SECRET_H
#define WARM_LAYER_SECRET_H

#include <stdbool.h>
#include <stddef.h>

/* Whether a variable of this name is taken to hold a secret. */
bool warm_secret_name(const char *name);

/* What kind of secret the text holds ("an AWS access key"); NULL: none. Static storage. */
const char *warm_secret_in(const char *text, size_t bytes);

/* Whether the file holds what looks like a secret. Of files that aren't text nothing is read; one
 * that lists an environment and can't be parsed can't be cleared. `ret_what` gets the variable's
 * name or the kind, never the value. The atime stays. */
bool warm_secret_find(int dir_fd, const char *path, char *ret_what, size_t what_bytes);

#endif
