/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/sigv4.h"

#include <ctype.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "lib/base/file.h"
#include "lib/base/hash.h"

enum { CHUNK_BYTES = 256 << 10, MAX_PARTS = 64 };

void warm_sha256_hex(const void *data, size_t bytes, char ret_hex[WARM_SHA256_HEX_BYTES])
{
	uint8_t digest[SHA256_DIGEST_LENGTH];

	SHA256(data, bytes, digest);
	warm_hex(digest, sizeof(digest), ret_hex);
}

static void free_digest(EVP_MD_CTX **md)
{
	EVP_MD_CTX_free(*md);
}

int warm_sha256_file_hex(int fd, uint64_t offset, uint64_t bytes,
			 char ret_hex[WARM_SHA256_HEX_BYTES], struct warm_error *err)
{
	uint8_t digest[SHA256_DIGEST_LENGTH];
	scope_free uint8_t *data = malloc(CHUNK_BYTES);
	WARM_SCOPE(free_digest) EVP_MD_CTX *md = EVP_MD_CTX_new();

	if (data == NULL || md == NULL || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1)
		return warm_error_nomem(err, CHUNK_BYTES);
	while (bytes > 0) {
		size_t n = bytes < CHUNK_BYTES ? (size_t)bytes : CHUNK_BYTES;
		int rc = warm_file_read_at(fd, data, n, offset, err);
		if (rc != 0)
			return rc;
		EVP_DigestUpdate(md, data, n);
		offset += n;
		bytes -= n;
	}
	EVP_DigestFinal_ex(md, digest, NULL);
	warm_hex(digest, sizeof(digest), ret_hex);
	return 0;
}

void warm_sigv4_date(int64_t now_ms, char ret_date[17])
{
	time_t t = (time_t)(now_ms / 1000);
	struct tm tm;

	gmtime_r(&t, &tm);
	if (strftime(ret_date, 17, "%Y%m%dT%H%M%SZ", &tm) == 0)
		ret_date[0] = '\0';
}

/* The part up to the '=' alone decides; "a=1" comes before "a-b=1" although '-' is less. */
static int compare_params(const void *a_p, const void *b_p)
{
	const char *a = *(char *const *)a_p, *b = *(char *const *)b_p;
	size_t n = strcspn(a, "="), m = strcspn(b, "=");
	int c = memcmp(a, b, n < m ? n : m);

	if (c == 0 && n != m)
		return n < m ? -1 : 1;
	return c != 0 ? c : strcmp(a + n, b + m);
}

static int put_query(struct warm_buf *buf, const char *query, struct warm_error *err)
{
	char *params[MAX_PARTS], *save = NULL;
	scope_free char *copy = strdup(query);
	size_t n = 0;

	if (copy == NULL)
		return warm_error_nomem(err, strlen(query));
	for (char *p = strtok_r(copy, "&", &save); p != NULL && n < MAX_PARTS;
	     p = strtok_r(NULL, "&", &save))
		params[n++] = p;
	qsort(params, n, sizeof(*params), compare_params);
	for (size_t i = 0; i < n; i++)
		warm_buf_printf(buf, "%s%s%s", i > 0 ? "&" : "", params[i],
				strchr(params[i], '=') == NULL ? "=" : "");
	warm_buf_put_u8(buf, '\n');
	return 0;
}

/* "name:value", the name in lower case, the value trimmed and its inner spaces single. */
static char *canonical_header(const char *line)
{
	const char *colon = strchr(line, ':');
	char *out = malloc(strlen(line) + 1), *to = out;

	if (out == NULL || colon == NULL) {
		free(out);
		return NULL;
	}
	for (const char *p = line; p < colon; p++)
		*to++ = (char)tolower((unsigned char)*p);
	*to++ = ':';
	char *start = to;
	for (const char *p = colon + 1; *p != '\0'; p++) {
		if (*p == ' ' && (to == start || to[-1] == ' '))
			continue;
		*to++ = *p;
	}
	while (to > start && to[-1] == ' ')
		to--;
	*to = '\0';
	return out;
}

/* By name alone: lines of one name keep their order. */
static void sort_headers(char **lines, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		char *line = lines[i];
		size_t bytes = strcspn(line, ":"), k = i;
		for (; k > 0; k--) {
			size_t m = strcspn(lines[k - 1], ":");
			int c = memcmp(lines[k - 1], line, m < bytes ? m : bytes);
			if (c < 0 || (c == 0 && m <= bytes))
				break;
			lines[k] = lines[k - 1];
		}
		lines[k] = line;
	}
}

static void put_headers(struct warm_buf *buf, struct warm_buf *names, char *const *lines, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		size_t length = strcspn(lines[i], ":");
		bool again = i > 0 && strncmp(lines[i - 1], lines[i], length + 1) == 0;
		/* Several of one name are one line, values joined by commas. */
		if (again) {
			buf->bytes -= buf->bytes > 0; /* the line end of the one before */
			warm_buf_printf(buf, ",%s\n", lines[i] + length + 1);
			continue;
		}
		warm_buf_printf(buf, "%s\n", lines[i]);
		warm_buf_printf(names, "%s%.*s", i > 0 ? ";" : "", (int)length, lines[i]);
	}
}

static void hmac(const void *key, size_t key_bytes, const void *data, size_t bytes,
		 uint8_t ret_mac[SHA256_DIGEST_LENGTH])
{
	unsigned n = SHA256_DIGEST_LENGTH;

	HMAC(EVP_sha256(), key, (int)key_bytes, data, bytes, ret_mac, &n);
}

int warm_sigv4_sign(const struct warm_sigv4 *q, struct warm_buf *ret_value, struct warm_error *err)
{
	scope_buf struct warm_buf request = WARM_BUF_INIT, names = WARM_BUF_INIT;
	scope_buf struct warm_buf to_sign = WARM_BUF_INIT, secret = WARM_BUF_INIT;
	char *lines[MAX_PARTS], date[17], digest[WARM_SHA256_HEX_BYTES];
	uint8_t key[SHA256_DIGEST_LENGTH];
	size_t n = 0;

	if (q->n_headers > MAX_PARTS)
		return warm_error_set(err, WARM_LIMIT, "over %d headers to sign", MAX_PARTS);
	for (; n < q->n_headers && (lines[n] = canonical_header(q->headers[n])) != NULL; n++)
		;
	bool complete = n == q->n_headers;
	warm_buf_printf(&request, "%s\n%s\n", q->method, q->path);
	int rc = complete ? put_query(&request, q->query, err) : warm_error_nomem(err, 0);
	if (rc == 0) {
		sort_headers(lines, n);
		put_headers(&request, &names, lines, n);
		warm_buf_put_u8(&names, '\0');
		warm_buf_printf(&request, "\n%s\n%s", (const char *)names.data, q->payload);
	}
	for (size_t i = 0; i < n; i++)
		free(lines[i]);
	if (rc != 0)
		return rc;
	if (request.failed || names.failed)
		return warm_error_nomem(err, request.bytes);

	warm_sigv4_date(q->now_ms, date);
	warm_sha256_hex(request.data, request.bytes, digest);
	warm_buf_printf(&to_sign, "AWS4-HMAC-SHA256\n%s\n%.8s/%s/%s/aws4_request\n%s", date, date,
			q->region, q->service, digest);
	warm_buf_printf(&secret, "AWS4%s", q->secret);
	if (to_sign.failed || secret.failed)
		return warm_error_nomem(err, to_sign.bytes);
	hmac(secret.data, secret.bytes, date, 8, key);
	hmac(key, sizeof(key), q->region, strlen(q->region), key);
	hmac(key, sizeof(key), q->service, strlen(q->service), key);
	hmac(key, sizeof(key), "aws4_request", strlen("aws4_request"), key);
	hmac(key, sizeof(key), to_sign.data, to_sign.bytes, key);
	warm_hex(key, sizeof(key), digest);
	warm_buf_printf(ret_value,
			"AWS4-HMAC-SHA256 Credential=%s/%.8s/%s/%s/aws4_request, SignedHeaders=%s, "
			"Signature=%s",
			q->key_id, date, q->region, q->service, (const char *)names.data, digest);
	return ret_value->failed ? warm_error_nomem(err, ret_value->bytes) : 0;
}
