/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small parsers of text: option values of every kind, keys, ids, layer names, paths, profiles.
 * A name that parses must be the one that the formatter makes.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/file.h"
#include "lib/base/option.h"
#include "lib/layer/index.h"
#include "lib/layer/key.h"
#include "lib/layer/profile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void try_options(const char *text)
{
	const char *string = NULL, *choice = NULL;
	struct warm_option_list list = { .n = 0 };
	bool flag = false;
	uint64_t count = 7, size = 7;
	int64_t duration = 7;
	const struct warm_option rows[] = {
		{ "string", NULL, WARM_OPTION_STRING, &string, NULL, "X", "" },
		{ "list", NULL, WARM_OPTION_LIST, &list, NULL, "X", "" },
		{ "flag", NULL, WARM_OPTION_BOOL, &flag, NULL, NULL, "" },
		{ "count", NULL, WARM_OPTION_COUNT, &count, NULL, "N", "" },
		{ "duration", NULL, WARM_OPTION_DURATION, &duration, NULL, "TIME", "" },
		{ "size", NULL, WARM_OPTION_BYTES, &size, NULL, "SIZE", "" },
		{ "choice", NULL, WARM_OPTION_CHOICE, &choice, NULL, "text|json", "" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct warm_error err = { 0 };
		int rc = warm_option_set(&rows[i], text, &err);
		must(rc == 0 || rc == WARM_INVALID || rc == WARM_LIMIT);
		must(rc == 0 || (err.status != WARM_OK && err.msg[0] != '\0'));
	}
	must(duration >= 0 && (int64_t)size >= 0);
	must(choice == NULL || strcmp(choice, "text") == 0 || strcmp(choice, "json") == 0);
	for (int i = 0; i < WARM_OPTION_LIST_MAX + 2; i++)
		(void)(warm_option_set(&rows[1], text, NULL) == 0);
	must(list.n <= WARM_OPTION_LIST_MAX);
}

static void try_key(const char *text)
{
	struct warm_key key, parsed_key;
	struct warm_layer_name name = { .kind = WARM_BASE, .id = { 5, 6 }, .index_bytes = 7 },
			       parsed;
	char object[WARM_NAME_BYTES], prefix[WARM_NAME_BYTES], again[WARM_NAME_BYTES];
	char id_text[WARM_ID_BYTES], key_text[3 * WARM_KEY_PART_BYTES + 3];
	struct warm_id id;

	if (warm_key_init(&key, text, text, text, NULL) == 0) {
		must(strlen(text) <= 128 && strchr(text, '/') == NULL);
		warm_key_prefix(&key, prefix);
		must(warm_path_check(prefix, strlen(prefix) - 1, NULL) == 0 ||
		     strlen(prefix) > 3 * 255);
		warm_key_text(&key, key_text);
		warm_layer_name_format(&key, &name, object);
		must(warm_layer_name_parse(object, &parsed_key, &parsed, NULL) == 0);
		must(warm_key_equal(&key, &parsed_key));
		must(parsed.kind == name.kind && parsed.index_bytes == name.index_bytes);
	}
	if (warm_layer_name_parse(text, &parsed_key, &parsed, NULL) == 0) {
		warm_layer_name_format(&parsed_key, &parsed, again);
		must(strcmp(again, text) == 0);
		/* A key that was read is one that could have been given. */
		struct warm_key given;
		must(warm_key_init(&given, parsed_key.model, parsed_key.version,
				   parsed_key.platform, NULL) == 0);
	}
	if (warm_id_parse(text, strlen(text), &id) == 0) {
		must(!warm_id_is_none(id));
		must(strcmp(warm_id_text(id, id_text), text) == 0);
	}
}

static void try_path(const char *text, size_t bytes)
{
	char small[9], shown[400];
	struct warm_profile_roots roots = { .mount_hash = 42 };
	struct warm_place *place = malloc(sizeof(*place));
	bool sound = warm_path_check(text, bytes, NULL) == 0;

	warm_path_printable(text, small, sizeof(small));
	warm_path_printable(text, shown, sizeof(shown));
	must(strlen(small) < sizeof(small) && strlen(shown) < sizeof(shown));
	for (int i = 0; i < WARM_PROFILE_ROOTS_MAX + 1; i++)
		(void)(warm_profile_roots_add(&roots, text, NULL) == 0);
	if (sound && place != NULL) {
		warm_profile_place(NULL, text, place);
		warm_profile_place(&roots, text, place);
		if (place->packed) {
			const struct warm_group g = { .name = place->group, .bound = place->bound };
			must(place->group[0] != '\0' && warm_group_base(&g) > 0);
			must(warm_group_unit(place->group, text) <= bytes);
		}
	}
	free(place);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	scope_free char *text = malloc(bytes + 1);

	if (text == NULL)
		return 0;
	memcpy(text, data, bytes);
	text[bytes] = '\0';
	must(memchr(text, 0, bytes) == NULL || warm_path_check(text, bytes, NULL) != 0);
	try_options(text);
	try_key(text);
	try_path(text, strlen(text));
	return 0;
}
