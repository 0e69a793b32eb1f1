/* SPDX-License-Identifier: Apache-2.0 */
/* The list of a web server's store: names that are told are safe paths below the prefix, and a
 * head made of them says the same. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/base/file.h"
#include "lib/store/head.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void must(bool holds)
{
	if (!holds)
		abort();
}

struct told {
	const char *prefix;
	struct warm_buf lines;
	size_t names;
};

static int take(void *arg, const struct warm_object *o, struct warm_error *err)
{
	struct told *t = arg;

	(void)err;
	must(strncmp(o->name, t->prefix, strlen(t->prefix)) == 0);
	must(warm_path_check(o->name, strlen(o->name), NULL) == 0);
	warm_buf_printf(&t->lines, "%llu %lld %s\n", (unsigned long long)o->bytes,
			(long long)o->modified_ms, o->name);
	t->names++;
	return 0;
}

static int parse(const void *data, size_t bytes, struct told *t)
{
	struct warm_error err = { 0 };
	int rc = warm_head_parse(data, bytes, t->prefix, take, t, &err);

	must(rc == 0 || rc == WARM_CORRUPT || rc == WARM_UNSUPPORTED);
	must(rc == 0 || (err.status == (enum warm_status)rc && err.msg[0] != '\0'));
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct told all = { .prefix = "" }, some = { .prefix = "m/" }, again = { .prefix = "" };
	scope_buf struct warm_buf head = WARM_BUF_INIT;

	if (parse(data, bytes, &all) == 0) {
		must(parse(data, bytes, &some) == 0 && some.names <= all.names);
		warm_buf_printf(&head, "warmcache-head 1 0\n");
		warm_buf_put(&head, all.lines.data, all.lines.bytes);
		warm_buf_printf(&head, "end %zu\n", all.names);
		must(parse(head.data, head.bytes, &again) == 0);
		must(again.names == all.names && again.lines.bytes == all.lines.bytes);
		must(all.names == 0 ||
		     memcmp(again.lines.data, all.lines.data, all.lines.bytes) == 0);
	}
	warm_buf_release(&all.lines);
	warm_buf_release(&some.lines);
	warm_buf_release(&again.lines);
	return 0;
}
