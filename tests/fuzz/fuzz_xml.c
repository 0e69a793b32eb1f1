/* SPDX-License-Identifier: Apache-2.0 */
/* XML of S3 and STS. What is told of a document is within its limits, and a callback that stops it
 * is the last. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/store/xml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void must(bool holds)
{
	if (!holds)
		abort();
}

struct told {
	size_t calls, stop_at;
};

static int take(void *arg, const char *path, const char *text, struct warm_error *err)
{
	struct told *t = arg;
	size_t depth = 1;

	for (const char *p = path; *p != '\0'; p++)
		depth += *p == '/';
	must(path[0] != '\0' && path[0] != '/' && strstr(path, "//") == NULL);
	must(depth <= 16 && strlen(path) < 512 && strlen(text) <= 4096);
	must(t->stop_at == 0 || t->calls < t->stop_at);
	return ++t->calls == t->stop_at ? warm_error_set(err, WARM_EXISTS, "enough") : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct told t = { 0, 0 };
	struct warm_error err = { 0 };
	int rc = warm_xml_parse(data, bytes, take, &t, &err);

	must(rc == 0 || (rc == WARM_CORRUPT && err.status == WARM_CORRUPT && err.msg[0] != '\0'));
	if (t.calls == 0)
		return 0;
	t = (struct told){ 0, t.calls / 2 + 1 };
	must(warm_xml_parse(data, bytes, take, &t, &err) == WARM_EXISTS);
	must(t.calls == t.stop_at);
	return 0;
}
