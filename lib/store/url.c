/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/url.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/file.h"

static int digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int warm_url_decode(char *text)
{
	char *to = text;

	for (const char *p = text; *p != '\0'; p++) {
		if (*p != '%') {
			*to++ = *p;
			continue;
		}
		int high = digit_of(p[1]), low = high < 0 ? -1 : digit_of(p[2]);
		if (low < 0 || high + low == 0)
			return -1;
		*to++ = (char)(high << 4 | low);
		p += 2;
	}
	*to = '\0';
	return 0;
}

void warm_url_encode(struct warm_buf *buf, const char *text, bool keep_slash)
{
	static const char digits[] = "0123456789ABCDEF";

	for (; *text != '\0'; text++) {
		unsigned char c = (unsigned char)*text;
		if ((c < 0x80 && isalnum(c)) || strchr("-._~", c) != NULL ||
		    (keep_slash && c == '/')) {
			warm_buf_put_u8(buf, c);
			continue;
		}
		warm_buf_put_u8(buf, '%');
		warm_buf_put_u8(buf, (uint8_t)digits[c >> 4]);
		warm_buf_put_u8(buf, (uint8_t)digits[c & 15]);
	}
}

void warm_url_release(struct warm_url *url)
{
	free(url->host);
	free(url->prefix);
	for (size_t i = 0; i < url->n_params; i++) {
		free(url->params[i].name);
		free(url->params[i].value);
	}
	*url = (struct warm_url){ 0 };
}

static bool is_known(const char *const *known, const char *name)
{
	for (; *known != NULL; known++)
		if (strcmp(*known, name) == 0)
			return true;
	return false;
}

static int take_param(struct warm_url *u, const char *text, const char *const *known,
		      struct warm_error *err)
{
	const char *equals = strchr(text, '=');
	size_t max = sizeof(u->params) / sizeof(u->params[0]);

	if (equals == NULL)
		return warm_error_set(err, WARM_INVALID, "parameter '%.64s' has no value", text);
	if (u->n_params == max)
		return warm_error_set(err, WARM_INVALID, "over %zu parameters", max);
	char *name = strndup(text, (size_t)(equals - text)), *value = strdup(equals + 1);
	if (name == NULL || value == NULL) {
		free(name);
		free(value);
		return warm_error_nomem(err, strlen(text));
	}
	size_t at = u->n_params++;
	u->params[at].name = name;
	u->params[at].value = value;
	if (warm_url_decode(value) != 0)
		return warm_error_set(err, WARM_INVALID, "parameter '%.64s': broken %%XX", name);
	if (!is_known(known, name)) {
		char list[200] = "";
		for (size_t used = 0; *known != NULL && used < sizeof(list); known++)
			used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s",
						 used > 0 ? ", " : "", *known);
		return warm_error_set(err, WARM_INVALID, "unknown parameter '%.64s' (known: %s)",
				      name, list);
	}
	for (size_t i = 0; i < at; i++)
		if (strcmp(u->params[i].name, name) == 0)
			return warm_error_set(err, WARM_INVALID, "parameter '%s' is given twice",
					      name);
	return 0;
}

static int parse(struct warm_url *u, char *text, const char *const *known, struct warm_error *err)
{
	char *query = strchr(text, '?'), *save = NULL;

	/* Anywhere: a password may hold a '/' or a '?', and must not be quoted in another error. */
	if (strchr(text, '@') != NULL)
		return warm_error_set(
			err, WARM_INVALID,
			"a user or password has no place in a URL; see docs/stores.md "
			"for where credentials come from (an '@' in a value is %%40)");
	if (query != NULL)
		*query++ = '\0';
	if (strchr(text, '#') != NULL)
		return warm_error_set(err, WARM_INVALID, "'#' has no meaning in a store's URL");
	size_t n = strcspn(text, "/");
	u->host = strndup(text, n);
	while (text[n] == '/')
		n++;
	u->prefix = strdup(text + n);
	if (u->host == NULL || u->prefix == NULL)
		return warm_error_nomem(err, strlen(text));
	for (size_t m = strlen(u->prefix); m > 0 && u->prefix[m - 1] == '/'; m--)
		u->prefix[m - 1] = '\0';
	if (u->prefix[0] != '\0' && warm_path_check(u->prefix, strlen(u->prefix), err) != 0)
		return WARM_INVALID;
	if (u->host[0] == '\0')
		return warm_error_set(err, WARM_INVALID, "nothing follows '://'");
	for (char *p = query == NULL ? NULL : strtok_r(query, "&", &save); p != NULL;
	     p = strtok_r(NULL, "&", &save)) {
		int rc = take_param(u, p, known, err);
		if (rc != 0)
			return rc;
	}
	return 0;
}

int warm_url_parse(const char *rest, const char *const *known, struct warm_url *ret_url,
		   struct warm_error *err)
{
	scope_free char *text = strdup(rest);
	struct warm_url u = { 0 };

	if (text == NULL)
		return warm_error_nomem(err, strlen(rest));
	int rc = parse(&u, text, known, err);
	if (rc != 0) {
		warm_url_release(&u);
		return rc;
	}
	*ret_url = u;
	return 0;
}

const char *warm_url_param(const struct warm_url *url, const char *name, const char *const *env)
{
	for (size_t i = 0; i < url->n_params; i++)
		if (strcmp(url->params[i].name, name) == 0)
			return url->params[i].value;
	for (; env != NULL && *env != NULL; env++) {
		const char *value = getenv(*env);
		if (value != NULL && value[0] != '\0')
			return value;
	}
	return NULL;
}

int warm_url_flag(const struct warm_url *url, const char *name, bool initial, bool *ret_flag,
		  struct warm_error *err)
{
	const char *value = warm_url_param(url, name, NULL);

	if (value != NULL && strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
		return warm_error_set(err, WARM_INVALID, "%s: '%.64s' is neither true nor false",
				      name, value);
	*ret_flag = value == NULL ? initial : value[0] == 't';
	return 0;
}

int warm_url_number(const struct warm_url *url, const char *name, uint64_t initial, uint64_t min,
		    uint64_t max, uint64_t *ret_number, struct warm_error *err)
{
	const char *value = warm_url_param(url, name, NULL);
	static const char units[] = "KMG";
	char *end = NULL;

	if (value == NULL) {
		*ret_number = initial;
		return 0;
	}
	errno = 0;
	uint64_t v = isdigit((unsigned char)value[0]) ? strtoull(value, &end, 10) : 0;
	const char *unit = end != NULL && *end != '\0' ? strchr(units, *end) : NULL;
	if (unit != NULL && v <= UINT64_MAX >> 30) {
		v <<= 10 * (unit - units + 1);
		end++;
	}
	if (errno != 0 || end == NULL || *end != '\0' || v < min || v > max)
		return warm_error_set(err, WARM_INVALID,
				      "%s: '%.64s' is no number from %llu to %llu", name, value,
				      (unsigned long long)min, (unsigned long long)max);
	*ret_number = v;
	return 0;
}
