/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where an object lives in an OCI registry: "<model>/<version>/<platform>/<rest>" is a tag of the
 * repository "<base>/<model>" (docs/format.md).
 *
 * Repositories are lower case. In a model's name (as it stands in the object's) a-z and 0-9 stand
 * for themselves; '-', '.' and '_' between two such for "--", '.' and '_'; every other byte is '-'
 * and two hexadecimal digits. A name that would begin with '-' begins with "x__" instead.
 *
 * A tag is the first 16 digits of each inner part's SHA-256, and the last part's first 64 bytes,
 * joined by '-'; bytes that a tag can't hold are '_'. It tells objects apart; the name itself is
 * an annotation.
 *
 * Threads: pure functions.
 */
#ifndef WARM_STORE_OCI_NAME_H
#define WARM_STORE_OCI_NAME_H

#include <stdbool.h>

#include "lib/base/error.h"

#define WARM_OCI_REPOSITORY_BYTES 256
#define WARM_OCI_TAG_BYTES 129

/* The base of a URL must be a repository's path, or empty. INVALID. */
int warm_oci_check_base(const char *base, struct warm_error *err) WARM_CHECKED;

/* The repository of a name, or of a prefix that has the model. LIMIT over 255 bytes. */
int warm_oci_repository(const char *base, const char *name,
			char ret_repository[WARM_OCI_REPOSITORY_BYTES],
			struct warm_error *err) WARM_CHECKED;

/* Repository and tag of a whole name. INVALID, LIMIT. */
int warm_oci_name(const char *base, const char *name,
		  char ret_repository[WARM_OCI_REPOSITORY_BYTES], char ret_tag[WARM_OCI_TAG_BYTES],
		  struct warm_error *err) WARM_CHECKED;

/* What all tags of names below a prefix ("<model>/", "<model>/<version>/<platform>/") begin with. */
void warm_oci_tag_prefix(const char *prefix, char ret_prefix[WARM_OCI_TAG_BYTES]);

/* Could it be a tag, a repository that was made here? */
bool warm_oci_is_tag(const char *tag);
bool warm_oci_is_ours(const char *base, const char *repository);

#endif
