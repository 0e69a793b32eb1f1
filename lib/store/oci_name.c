/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/oci_name.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "lib/store/sigv4.h"

enum { HASH_DIGITS = 16, REST_BYTES = 64, PARTS = 3 };

static bool is_plain(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* The length of a separator: ".", "_", "__" or any number of "-"; 0 for none. */
static size_t separator(const char *text)
{
	if (text[0] == '-')
		return strspn(text, "-");
	if (text[0] == '_')
		return text[1] == '_' ? 2 : 1;
	return text[0] == '.' ? 1 : 0;
}

int warm_oci_check_base(const char *base, struct warm_error *err)
{
	for (const char *p = base; *p != '\0';) {
		size_t between = p == base ? 0 : *p == '/' ? 1 : separator(p);
		bool bad = p != base && between == 0;
		p += between;
		bad = bad || !is_plain(*p);
		while (is_plain(*p))
			p++;
		if (bad)
			return warm_error_set(
				err, WARM_INVALID,
				"'%.100s' is no repository's path: lower case letters "
				"and digits, single - . _ between them",
				base);
	}
	return 0;
}

/* Append the encoded model; bytes used, or 0 when there is no room. */
static size_t encode_model(const char *model, size_t n, char *to, size_t room)
{
	size_t used = 0;

	for (size_t i = 0; i < n; i++) {
		char c = model[i], text[8];
		bool inner = i > 0 && i + 1 < n && is_plain(model[i - 1]) && is_plain(model[i + 1]);
		if (is_plain(c) || (inner && (c == '.' || c == '_')))
			snprintf(text, sizeof(text), "%c", c);
		else if (inner && c == '-')
			snprintf(text, sizeof(text), "--");
		else
			snprintf(text, sizeof(text), "%s%02x", i == 0 ? "x__" : "-",
				 (unsigned)(unsigned char)c);
		size_t bytes = strlen(text);
		if (used + bytes >= room)
			return 0;
		memcpy(to + used, text, bytes + 1);
		used += bytes;
	}
	return used;
}

int warm_oci_repository(const char *base, const char *name,
			char ret_repository[WARM_OCI_REPOSITORY_BYTES], struct warm_error *err)
{
	size_t n = strcspn(name, "/");
	int at = snprintf(ret_repository, WARM_OCI_REPOSITORY_BYTES, "%s%s", base,
			  base[0] != '\0' ? "/" : "");

	if (n == 0)
		return warm_error_set(err, WARM_INVALID, "a name without a model");
	if (at >= WARM_OCI_REPOSITORY_BYTES ||
	    encode_model(name, n, ret_repository + at, WARM_OCI_REPOSITORY_BYTES - (size_t)at) == 0)
		return warm_error_set(
			err, WARM_LIMIT,
			"a repository's name has at most 255 bytes; the model's is too "
			"long for it");
	return 0;
}

void warm_oci_tag_prefix(const char *prefix, char ret_prefix[WARM_OCI_TAG_BYTES])
{
	char digest[WARM_SHA256_HEX_BYTES];
	const char *at = strchr(prefix, '/');
	size_t used = 0;

	ret_prefix[0] = '\0';
	for (int part = 1; part < PARTS && at != NULL; part++) {
		size_t n = strcspn(++at, "/");
		if (at[n] != '/')
			return;
		warm_sha256_hex(at, n, digest);
		used += (size_t)snprintf(ret_prefix + used, WARM_OCI_TAG_BYTES - used, "%.*s-",
					 HASH_DIGITS, digest);
		at += n;
	}
}

static bool tag_holds(char c)
{
	return isalnum((unsigned char)c) || (c != '\0' && strchr("-_.", c) != NULL);
}

int warm_oci_name(const char *base, const char *name,
		  char ret_repository[WARM_OCI_REPOSITORY_BYTES], char ret_tag[WARM_OCI_TAG_BYTES],
		  struct warm_error *err)
{
	int rc = warm_oci_repository(base, name, ret_repository, err);
	const char *rest = name;

	if (rc != 0)
		return rc;
	for (int part = 0; part < PARTS; part++) {
		rest = strchr(rest, '/');
		if (rest == NULL || rest[1] == '\0')
			return warm_error_set(err, WARM_INVALID,
					      "a registry holds names of four parts alone");
		rest++;
	}
	warm_oci_tag_prefix(name, ret_tag);
	size_t used = strlen(ret_tag);
	for (size_t i = 0; i < REST_BYTES && rest[i] != '\0'; i++)
		ret_tag[used++] = tag_holds(rest[i]) ? rest[i] : '_';
	ret_tag[used] = '\0';
	return 0;
}

bool warm_oci_is_tag(const char *tag)
{
	for (int part = 0; part < PARTS - 1; part++) {
		if (strspn(tag, "0123456789abcdef") != HASH_DIGITS || tag[HASH_DIGITS] != '-')
			return false;
		tag += HASH_DIGITS + 1;
	}
	return tag[0] != '\0';
}

bool warm_oci_is_ours(const char *base, const char *repository)
{
	size_t n = strlen(base);

	if (n > 0 && (strncmp(repository, base, n) != 0 || repository[n] != '/'))
		return false;
	return strchr(repository + n + (n > 0), '/') == NULL;
}
