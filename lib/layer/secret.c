/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/layer/secret.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/file.h"

enum {
	PIECE_BYTES = 256 << 10,
	OVERLAP_BYTES = 4096, /* longer than any secret that is looked for */
	SEARCHED_BYTES = 4 << 20,
	FACTORS_BYTES = 1 << 20,
	RUN_BYTES = 1024, /* no key is longer, and no search takes longer than that from a place */
	SNIFF_BYTES = 4096,
};

/* ---- by name ---- */

bool warm_secret_name(const char *name)
{
	static const char *const words[] = { "KEY",	   "KEYS",	  "TOKEN",    "TOKENS",
					     "SECRET",	   "SECRETS",	  "PASSWORD", "PASSWD",
					     "CREDENTIAL", "CREDENTIALS", "APIKEY",   "PASSPHRASE",
					     "AUTHTOKEN",  "PGPASSWORD" };

	for (const char *p = name; *p != '\0';) {
		size_t n = strcspn(p, "_");
		for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
			if (strlen(words[i]) == n && memcmp(p, words[i], n) == 0)
				return true;
		p += n + (p[n] == '_');
	}
	return false;
}

/* The first non-empty string below a name that says secret; `below` is that name, or NULL. */
static bool find_named(json_t *value, const char *below, char *ret_name, size_t name_bytes)
{
	const char *name;
	json_t *child;
	size_t i;

	if (below != NULL && json_is_string(value) && json_string_length(value) > 0) {
		snprintf(ret_name, name_bytes, "%s", below);
		return true;
	}
	json_object_foreach(value, name, child) {
		const char *outer = below != NULL ? below : warm_secret_name(name) ? name : NULL;
		if (find_named(child, outer, ret_name, name_bytes))
			return true;
	}
	json_array_foreach(value, i, child)
		if (find_named(child, below, ret_name, name_bytes))
			return true;
	return false;
}

/* ---- by form ---- */

/* A prefix and what has to follow: at least `least` of a class of characters. */
enum class { UPPER_DIGIT = 1, ALNUM = 2, WORD = 4, URL64 = 8 };

static const struct form {
	const char *prefix;
	const char *what;
	enum class class;
	unsigned least, most; /* most 0: no bound */
	bool mixed; /* a digit and a letter in upper case among them: no word with dashes */
} forms[] = {
	{ "AKIA", "an AWS access key", UPPER_DIGIT, 16, 16, false },
	{ "ASIA", "an AWS access key", UPPER_DIGIT, 16, 16, false },
	{ "AIza", "a Google API key", URL64, 35, 35, true },
	{ "ghp_", "a GitHub token", ALNUM, 36, 0, false },
	{ "gho_", "a GitHub token", ALNUM, 36, 0, false },
	{ "ghu_", "a GitHub token", ALNUM, 36, 0, false },
	{ "ghs_", "a GitHub token", ALNUM, 36, 0, false },
	{ "ghr_", "a GitHub token", ALNUM, 36, 0, false },
	{ "github_pat_", "a GitHub token", WORD, 22, 0, false },
	{ "glpat-", "a GitLab token", URL64, 20, 0, false },
	{ "hf_", "a Hugging Face token", ALNUM, 30, 0, false },
	{ "xoxb-", "a Slack token", URL64, 20, 0, false },
	{ "xoxp-", "a Slack token", URL64, 20, 0, false },
	{ "xoxa-", "a Slack token", URL64, 20, 0, false },
	{ "xoxs-", "a Slack token", URL64, 20, 0, false },
	{ "sk-", "an OpenAI key", URL64, 32, 0, true },
	{ "nvapi-", "an NVIDIA key", URL64, 40, 0, true },
};

static unsigned classes_of(unsigned char c)
{
	if (isupper(c) || isdigit(c))
		return UPPER_DIGIT | ALNUM | WORD | URL64;
	if (islower(c))
		return ALNUM | WORD | URL64;
	return c == '_' ? WORD | URL64 : c == '-' ? URL64 : 0;
}

static size_t run_of(const char *p, const char *end, enum class class, bool *ret_mixed)
{
	const char *at = p;
	bool digit = false, upper = false;

	if (end - p > RUN_BYTES)
		end = p + RUN_BYTES;
	for (; at < end && (classes_of((unsigned char)*at) & class) != 0; at++) {
		digit = digit || isdigit((unsigned char)*at);
		upper = upper || isupper((unsigned char)*at);
	}
	*ret_mixed = digit && upper;
	return (size_t)(at - p);
}

static bool matches(const struct form *f, const char *p, const char *end)
{
	size_t n = strlen(f->prefix);
	bool mixed;

	if ((size_t)(end - p) < n || memcmp(p, f->prefix, n) != 0)
		return false;
	size_t run = run_of(p + n, end, f->class, &mixed);
	return run >= f->least && (f->most == 0 || run <= f->most) && (mixed || !f->mixed);
}

static bool is_pem(const char *p, const char *end)
{
	static const char begin[] = "-----BEGIN ", key[] = "PRIVATE KEY";
	size_t n = (size_t)(end - p);

	if (n < sizeof(begin) - 1 || memcmp(p, begin, sizeof(begin) - 1) != 0)
		return false;
	return memmem(p, n < 64 ? n : 64, key, sizeof(key) - 1) != NULL;
}

/* JSON web token: three parts of base64url; the first two begin as an encoded '{"' does. */
static bool is_jwt(const char *p, const char *end)
{
	bool mixed;

	for (int part = 0; part < 3; part++) {
		if (part < 2 && (end - p < 3 || memcmp(p, "eyJ", 3) != 0))
			return false;
		size_t n = run_of(p, end, URL64, &mixed);
		if (n < 10)
			return false;
		p += n;
		if (part < 2 && (p == end || *p++ != '.'))
			return false;
	}
	return true;
}

/* `p` stands at "://": user:password@ follows, and the password is no placeholder. */
static bool has_password(const char *p, const char *end)
{
	const char *colon = NULL, *at = p + 3;

	if (end - at > RUN_BYTES)
		end = at + RUN_BYTES;
	for (; at < end && *at != '@'; at++) {
		if (isspace((unsigned char)*at) || strchr("/?#\"'<>\\", *at) != NULL)
			return false;
		if (*at == ':' && colon == NULL)
			colon = at;
	}
	if (at == end || colon == NULL || at - colon < 2)
		return false;
	const char *password = colon + 1;
	return strchr("{$*", password[0]) == NULL && strncmp(password, "%s", 2) != 0 &&
	       strncmp(password, "%(", 2) != 0 && strncmp(password, "xxx", 3) != 0;
}

/* In the middle of something longer; a letter after a backslash is JSON's or Python's line end. */
static bool is_inside(const char *text, const char *p)
{
	if (p == text || (classes_of((unsigned char)p[-1]) & WORD) == 0)
		return false;
	return !(p - text >= 2 && p[-2] == '\\' && strchr("nrt", p[-1]) != NULL);
}

/* Whether a form begins with these two: most places are left here. */
static inline bool may_begin(char first, char second)
{
	switch (first) {
	case 'A':
		return second == 'K' || second == 'S' || second == 'I';
	case 'e':
		return second == 'y';
	case 'g':
		return second == 'h' || second == 'i' || second == 'l';
	case 'h':
		return second == 'f';
	case 'n':
		return second == 'v';
	case 's':
		return second == 'k';
	case 'x':
		return second == 'o';
	default:
		return false;
	}
}

/* Where the text is a piece of a longer one, its first byte only says what stands before. */
static const char *search_text(const char *text, size_t bytes, bool is_piece)
{
	const char *end = text + bytes;

	for (const char *p = text + is_piece; p + 4 <= end; p++) {
		switch (*p) {
		case '-':
			if (p[1] == '-' && is_pem(p, end))
				return "a private key";
			continue;
		case ':':
			if (p[1] == '/' && p[2] == '/' && has_password(p, end))
				return "a URL with a password";
			continue;
		default:
			if (!may_begin(p[0], p[1]))
				continue;
		}
		if (is_inside(text, p))
			continue;
		if (*p == 'e' && is_jwt(p, end))
			return "a JSON web token";
		for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++)
			if (forms[i].prefix[0] == *p && forms[i].prefix[1] == p[1] &&
			    matches(&forms[i], p, end))
				return forms[i].what;
	}
	return NULL;
}

const char *warm_secret_in(const char *text, size_t bytes)
{
	return search_text(text, bytes, false);
}

/* ---- files ---- */

/* Compilers' own output is text, too, and large: it is made of the program, not of the
 * environment. */
static bool is_compiled(const char *name)
{
	static const char *const suffixes[] = { ".ptx",	  ".ttir", ".ttgir", ".llir",
						".cubin", ".so",   ".o",     ".sass" };
	const char *dot = strrchr(name, '.');

	for (size_t i = 0; dot != NULL && i < sizeof(suffixes) / sizeof(suffixes[0]); i++)
		if (strcmp(dot, suffixes[i]) == 0)
			return true;
	return false;
}

static const char *search(int fd, char *piece)
{
	size_t kept = 0;

	for (uint64_t offset = 0; offset < SEARCHED_BYTES;) {
		ssize_t n = pread(fd, piece + kept, PIECE_BYTES - kept, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return NULL;
		size_t have = kept + (size_t)n, sniff = have < SNIFF_BYTES ? have : SNIFF_BYTES;
		if (offset == 0 && memchr(piece, '\0', sniff) != NULL)
			return NULL; /* no text */
		const char *what = search_text(piece, have, offset > 0);
		if (what != NULL)
			return what;
		offset += (uint64_t)n;
		kept = have < OVERLAP_BYTES ? have : OVERLAP_BYTES;
		memmove(piece, piece + have - kept, kept);
	}
	return NULL;
}

static bool search_file(int dir_fd, const char *path, char *ret_what, size_t what_bytes)
{
	scope_close int fd = -1;
	scope_free char *piece = NULL;

	if (is_compiled(warm_path_base(path)) || warm_beneath_read(dir_fd, path, &fd, NULL) != 0)
		return false;
	piece = malloc(PIECE_BYTES);
	const char *what = piece != NULL ? search(fd, piece) : "no memory to look";
	if (what != NULL)
		snprintf(ret_what, what_bytes, "%s", what);
	return what != NULL;
}

bool warm_secret_find(int dir_fd, const char *path, char *ret_what, size_t what_bytes)
{
	scope_free char *text = NULL;
	size_t bytes = 0;

	if (strcmp(warm_path_base(path), "cache_key_factors.json") != 0)
		return search_file(dir_fd, path, ret_what, what_bytes);
	json_t *root = NULL;
	if (warm_beneath_load(dir_fd, path, FACTORS_BYTES, &text, &bytes, NULL) == 0)
		root = json_loadb(text, bytes, JSON_DECODE_ANY, NULL);
	if (root == NULL) {
		snprintf(ret_what, what_bytes, "(unreadable)");
		return true;
	}
	bool found = find_named(root, NULL, ret_what, what_bytes);
	json_decref(root);
	if (found)
		return true;
	const char *what = warm_secret_in(text, bytes);
	if (what != NULL)
		snprintf(ret_what, what_bytes, "%s", what);
	return what != NULL;
}
