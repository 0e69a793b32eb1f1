/* SPDX-License-Identifier: Apache-2.0 */
/* URLs of stores, names in registries, references of servers: what is accepted is what was
 * given, and no input makes a name that isn't one. */
#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/file.h"
#include "lib/store/http.h"
#include "lib/store/oci_name.h"
#include "lib/store/url.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void try_encoding(const char *text)
{
	for (int keep = 0; keep < 2; keep++) {
		scope_buf struct warm_buf buf = WARM_BUF_INIT;
		warm_url_encode(&buf, text, keep != 0);
		warm_buf_put_u8(&buf, 0);
		if (buf.failed)
			return;
		must(warm_url_decode((char *)buf.data) == 0);
		must(strcmp((char *)buf.data, text) == 0);
	}
	scope_free char *copy = strdup(text);
	if (copy != NULL && warm_url_decode(copy) == 0)
		must(strlen(copy) <= strlen(text));
}

static void try_url(const char *text)
{
	static const char *const known[] = { "a", "size", "flag", NULL };
	struct warm_url url = { 0 };
	struct warm_error err = { 0 };
	uint64_t number = 0;
	bool flag;

	if (warm_url_parse(text, known, &url, &err) != 0) {
		must(err.status == WARM_INVALID && err.msg[0] != '\0' && url.host == NULL);
		return;
	}
	must(url.host[0] != '\0' && strpbrk(url.host, "/?#@") == NULL);
	must(url.prefix[0] != '/' && strpbrk(url.prefix, "?#") == NULL);
	must(url.n_params <= 3);
	if (warm_url_number(&url, "size", 7, 5, 1 << 20, &number, NULL) == 0)
		must(number >= 5 && number <= 1 << 20);
	if (warm_url_flag(&url, "flag", true, &flag, NULL) != 0)
		must(warm_url_param(&url, "flag", NULL) != NULL);
	warm_url_release(&url);
}

static bool is_repository(const char *text)
{
	for (const char *p = text; *p != '\0'; p++)
		if (!(islower((unsigned char)*p) || isdigit((unsigned char)*p) ||
		      strchr("/-._", *p) != NULL))
			return false;
	return isalnum((unsigned char)text[0]) && isalnum((unsigned char)text[strlen(text) - 1]);
}

static void try_names(const char *text)
{
	char repository[WARM_OCI_REPOSITORY_BYTES], tag[WARM_OCI_TAG_BYTES];
	char prefix[WARM_OCI_TAG_BYTES];

	if (warm_oci_repository("base", text, repository, NULL) == 0)
		must(is_repository(repository) && warm_oci_is_ours("base", repository));
	warm_oci_tag_prefix(text, prefix);
	if (warm_oci_name("", text, repository, tag, NULL) == 0) {
		must(warm_oci_is_tag(tag) && strlen(tag) < 129);
		must(strncmp(tag, prefix, strlen(prefix)) == 0 && strlen(prefix) == 34);
	}
	if (warm_oci_check_base(text, NULL) == 0)
		must(text[0] != '/' && strstr(text, "//") == NULL && strstr(text, "/.") == NULL);
}

static void try_references(const char *text)
{
	static const char base[] = "https://r.test:5000/v2/x?y";
	scope_free char *url = warm_http_resolve(base, text);

	if (url != NULL) {
		must(strstr(url, "://") != NULL);
		(void)warm_http_same_origin(base, url);
	}
	(void)warm_http_parse_date(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	scope_free char *text = malloc(bytes + 1);

	if (text == NULL)
		return 0;
	memcpy(text, data, bytes);
	text[bytes] = '\0';
	try_encoding(text);
	try_url(text);
	try_names(text);
	try_references(text);
	return 0;
}
