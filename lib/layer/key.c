/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/layer/key.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "lib/base/hash.h"

enum { MAX_ENCODED_BYTES = 255 /* of a component of a path */ };

/* Ids stop there; a writer that sees a later one comes after it by the random part. */
static const uint64_t max_ms = (uint64_t)1 << 53;

static bool is_plain(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '-' || c == '_' || c == '.' || c == '+' || c == '=';
}

static size_t encode(const char *part, char *out)
{
	size_t at = 0;

	if (part[0] == '\0')
		return (size_t)sprintf(out, "_/");
	if (strcmp(part, "_") == 0)
		return (size_t)sprintf(out, "%%5F/");
	for (const unsigned char *p = (const unsigned char *)part; *p != '\0'; p++) {
		if (is_plain(*p) && !(at == 0 && *p == '.'))
			out[at++] = (char)*p;
		else
			at += (size_t)sprintf(out + at, "%%%02X", *p);
	}
	out[at++] = '/';
	out[at] = '\0';
	return at;
}

static int take_part(const char *what, const char *text, char ret_part[WARM_KEY_PART_BYTES],
		     struct warm_error *err)
{
	size_t n = strlen(text);

	if (n >= WARM_KEY_PART_BYTES)
		return warm_error_set(err, WARM_INVALID, "%s has %zu bytes, over 128", what, n);
	for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++) {
		if (*p < 0x20 || *p == 0x7f)
			return warm_error_set(err, WARM_INVALID,
					      "%s holds a control character (0x%02x)", what, *p);
		if (*p == '/')
			return warm_error_set(err, WARM_INVALID, "%s '%s' holds a '/'", what, text);
	}
	if (strcmp(text, ".") == 0 || strcmp(text, "..") == 0)
		return warm_error_set(err, WARM_INVALID, "%s is '%s'", what, text);
	memmove(ret_part, text, n + 1);
	char encoded[3 * WARM_KEY_PART_BYTES + 3];
	if (encode(ret_part, encoded) > MAX_ENCODED_BYTES + 1)
		return warm_error_set(err, WARM_INVALID, "%s takes over %d bytes in object names",
				      what, MAX_ENCODED_BYTES);
	return 0;
}

int warm_key_init(struct warm_key *key, const char *model, const char *version,
		  const char *platform, struct warm_error *err)
{
	struct warm_key made;
	struct utsname machine;
	int rc;

	if (platform == NULL || platform[0] == '\0' || strcmp(platform, "auto") == 0)
		platform = uname(&machine) == 0 ? machine.machine : "unknown";
	rc = take_part("model", model != NULL ? model : "", made.model, err);
	if (rc == 0)
		rc = take_part("version", version != NULL ? version : "", made.version, err);
	if (rc == 0)
		rc = take_part("platform", platform, made.platform, err);
	if (rc == 0)
		*key = made;
	return rc;
}

static int decode(const char *text, size_t n, char ret_part[WARM_KEY_PART_BYTES])
{
	size_t at = 0;
	char again[3 * WARM_KEY_PART_BYTES + 3];

	if (n == 1 && text[0] == '_') {
		ret_part[0] = '\0';
		return 0;
	}
	for (size_t i = 0; i < n; i++) {
		unsigned v = (unsigned char)text[i];
		if (at + 1 >= WARM_KEY_PART_BYTES)
			return -1;
		if (v == '%') {
			char hex[3] = { 0 };
			if (i + 2 >= n || sscanf(text + i + 1, "%2[0-9A-F]", hex) != 1 ||
			    strlen(hex) != 2 || sscanf(hex, "%x", &v) != 1 || v == 0)
				return -1;
			i += 2;
		}
		ret_part[at++] = (char)v;
	}
	ret_part[at] = '\0';
	/* One part, one spelling. */
	if (take_part("part", ret_part, ret_part, NULL) != 0)
		return -1;
	size_t m = encode(ret_part, again);
	return m == n + 1 && memcmp(again, text, n) == 0 ? 0 : -1;
}

void warm_key_prefix(const struct warm_key *key, char ret_prefix[WARM_NAME_BYTES])
{
	size_t at = encode(key->model, ret_prefix);

	at += encode(key->version, ret_prefix + at);
	encode(key->platform, ret_prefix + at);
}

void warm_key_model_prefix(const struct warm_key *key, char ret_prefix[WARM_NAME_BYTES])
{
	encode(key->model, ret_prefix);
}

bool warm_key_equal(const struct warm_key *a, const struct warm_key *b)
{
	return strcmp(a->model, b->model) == 0 && strcmp(a->version, b->version) == 0 &&
	       strcmp(a->platform, b->platform) == 0;
}

const char *warm_key_text(const struct warm_key *key, char ret_text[3 * WARM_KEY_PART_BYTES + 3])
{
	snprintf(ret_text, 3 * WARM_KEY_PART_BYTES + 3, "%s/%s/%s", key->model, key->version,
		 key->platform);
	return ret_text;
}

int warm_id_compare(struct warm_id a, struct warm_id b)
{
	if (a.ms != b.ms)
		return a.ms < b.ms ? -1 : 1;
	if (a.random != b.random)
		return a.random < b.random ? -1 : 1;
	return 0;
}

struct warm_id warm_id_new(struct warm_id newest, int64_t now_ms)
{
	struct warm_id id = { .ms = now_ms > 0 ? (uint64_t)now_ms : 1 };

	if (id.ms <= newest.ms)
		id.ms = newest.ms + 1;
	warm_random(&id.random, sizeof(id.random));
	if (id.ms > max_ms) {
		id.ms = max_ms;
		if (id.random <= newest.random && newest.random < UINT64_MAX)
			id.random = newest.random + 1 + id.random % (UINT64_MAX - newest.random);
	}
	return id;
}

const char *warm_id_text(struct warm_id id, char ret_text[WARM_ID_BYTES])
{
	snprintf(ret_text, WARM_ID_BYTES, "%llu-%016llx", (unsigned long long)id.ms,
		 (unsigned long long)id.random);
	return ret_text;
}

static int parse_decimal(const char *text, size_t bytes, uint64_t max, uint64_t *ret_value)
{
	uint64_t v = 0;

	if (bytes == 0 || bytes > 19 || (bytes > 1 && text[0] == '0'))
		return -1;
	for (size_t i = 0; i < bytes; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -1;
		v = v * 10 + (uint64_t)(text[i] - '0');
	}
	if (v > max)
		return -1;
	*ret_value = v;
	return 0;
}

int warm_id_parse(const char *text, size_t bytes, struct warm_id *ret_id)
{
	const char *dash = memchr(text, '-', bytes);
	struct warm_id id = { 0, 0 };
	uint8_t be[8];

	if (dash == NULL || parse_decimal(text, (size_t)(dash - text), max_ms, &id.ms) != 0 ||
	    id.ms == 0 || warm_unhex(dash + 1, bytes - (size_t)(dash + 1 - text), be, 8) != 0)
		return WARM_INVALID;
	for (int i = 0; i < 8; i++)
		id.random = id.random << 8 | be[i];
	*ret_id = id;
	return 0;
}

void warm_layer_name_format(const struct warm_key *key, const struct warm_layer_name *name,
			    char ret_name[WARM_NAME_BYTES])
{
	char id[WARM_ID_BYTES], digest[65];

	warm_key_prefix(key, ret_name);
	warm_hex(name->digest, sizeof(name->digest), digest);
	size_t at = strlen(ret_name);
	snprintf(ret_name + at, WARM_NAME_BYTES - at, "%c-%s-%u-%s.tar.zst", name->kind,
		 warm_id_text(name->id, id), name->index_bytes, digest);
}

int warm_layer_name_parse(const char *text, struct warm_key *ret_key,
			  struct warm_layer_name *ret_name, struct warm_error *err)
{
	struct warm_key key;
	struct warm_layer_name name = { 0 };
	char *parts[3] = { key.model, key.version, key.platform };
	const char *at = text;

	for (int i = 0; i < 3; i++) {
		const char *slash = strchr(at, '/');
		if (slash == NULL || decode(at, (size_t)(slash - at), parts[i]) != 0)
			return warm_error_set(err, WARM_INVALID, "not the name of a layer");
		at = slash + 1;
	}
	if ((at[0] != 'L' && at[0] != 'B') || at[1] != '-')
		return warm_error_set(err, WARM_INVALID, "not the name of a layer");
	name.kind = (enum warm_layer_kind)at[0];
	at += 2;
	const char *ms_end = strchr(at, '-');
	const char *id_end = ms_end != NULL ? strchr(ms_end + 1, '-') : NULL;
	const char *length_end = id_end != NULL ? strchr(id_end + 1, '-') : NULL;
	uint64_t length = 0;
	if (length_end == NULL || warm_id_parse(at, (size_t)(id_end - at), &name.id) != 0 ||
	    parse_decimal(id_end + 1, (size_t)(length_end - id_end - 1), UINT32_MAX, &length) !=
		    0 ||
	    strlen(length_end + 1) != 64 + strlen(".tar.zst") ||
	    warm_unhex(length_end + 1, 64, name.digest, 32) != 0 ||
	    strcmp(length_end + 1 + 64, ".tar.zst") != 0)
		return warm_error_set(err, WARM_INVALID, "not the name of a layer");
	name.index_bytes = (uint32_t)length;
	*ret_key = key;
	*ret_name = name;
	return 0;
}
