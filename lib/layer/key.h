/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys, layer ids and object names.
 *
 * A key is <model>/<version>/<platform>. In object names each part is encoded: letters, digits
 * and "-_.+=" stand for themselves, every other byte and a leading dot as %XX; an empty part is
 * "_", and a part that is just "_" is "%5F". An object is named
 *
 *	<model>/<version>/<platform>/<L|B>-<ms>-<random>-<index length>-<index digest>.tar.zst
 *
 * Threads: pure functions.
 */
#ifndef WARM_LAYER_KEY_H
#define WARM_LAYER_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/error.h"

#define WARM_KEY_PART_BYTES 129
#define WARM_NAME_BYTES 1400 /* the longest encoded key, and an object's own name */

struct warm_key {
	char model[WARM_KEY_PART_BYTES];
	char version[WARM_KEY_PART_BYTES];
	char platform[WARM_KEY_PART_BYTES];
};

/* Check and take the parts. `version` and `model` may be empty; `platform` "auto" becomes the
 * machine ("x86_64"). INVALID names the part and what is wrong: a '/', "." or "..", a control
 * character, over 128 bytes. */
int warm_key_init(struct warm_key *key, const char *model, const char *version,
		  const char *platform, struct warm_error *err) WARM_CHECKED;

/* "<model>/<version>/<platform>/", encoded. */
void warm_key_prefix(const struct warm_key *key, char ret_prefix[WARM_NAME_BYTES]);
/* "<model>/", encoded. */
void warm_key_model_prefix(const struct warm_key *key, char ret_prefix[WARM_NAME_BYTES]);
bool warm_key_equal(const struct warm_key *a, const struct warm_key *b);
/* "model/version/platform" for people; parts as given. */
const char *warm_key_text(const struct warm_key *key, char ret_text[3 * WARM_KEY_PART_BYTES + 3]);

/* An id of a layer; ordered by ms, then by random. All zero: none. */
struct warm_id {
	uint64_t ms;
	uint64_t random;
};

#define WARM_ID_BYTES 40

int warm_id_compare(struct warm_id a, struct warm_id b);
static inline bool warm_id_is_none(struct warm_id id)
{
	return id.ms == 0 && id.random == 0;
}
/* An id after `newest` (which may be none) and not before `now_ms`. */
struct warm_id warm_id_new(struct warm_id newest, int64_t now_ms);
const char *warm_id_text(struct warm_id id, char ret_text[WARM_ID_BYTES]);
int warm_id_parse(const char *text, size_t bytes, struct warm_id *ret_id) WARM_CHECKED;

enum warm_layer_kind { WARM_LAYER = 'L', WARM_BASE = 'B' };

struct warm_layer_name {
	enum warm_layer_kind kind;
	struct warm_id id;
	uint32_t index_bytes; /* of the compressed index */
	uint8_t digest[32];   /* SHA-256 of the compressed index */
};

/* The object's whole name, with the key's prefix. */
void warm_layer_name_format(const struct warm_key *key, const struct warm_layer_name *name,
			    char ret_name[WARM_NAME_BYTES]);

/* Parse a whole object name. INVALID for anything that warm_layer_name_format() can't have made;
 * callers skip such objects. */
int warm_layer_name_parse(const char *text, struct warm_key *ret_key,
			  struct warm_layer_name *ret_name, struct warm_error *err) WARM_CHECKED;

#endif
