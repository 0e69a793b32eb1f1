/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/head.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/base/buf.h"
#include "lib/base/file.h"

#define FIRST_WORD "warmcache-head"

enum { VERSION = 1 };

/* The next line of `*at`, without its end; NULL when there is none. */
static char *next_line(char **at)
{
	char *line = *at, *end = strchr(line, '\n');

	if (end == NULL)
		return NULL;
	*end = '\0';
	*at = end + 1;
	return line;
}

int warm_head_parse(const char *data, size_t bytes, const char *prefix, warm_list_fn fn, void *arg,
		    struct warm_error *err)
{
	scope_free char *copy = strndup(data, bytes);
	size_t n = strlen(prefix), names = 0, said = 0;
	unsigned version = 0;
	char *at = copy, *line;

	if (copy == NULL)
		return warm_error_nomem(err, bytes);
	line = next_line(&at);
	if (line == NULL || sscanf(line, FIRST_WORD " %u %*d", &version) != 1)
		return warm_error_set(err, WARM_CORRUPT, "not a head that `warmcache head` wrote");
	if (version != VERSION)
		return warm_error_set(err, WARM_UNSUPPORTED, "a head of version %u", version);
	while ((line = next_line(&at)) != NULL) {
		struct warm_object o = { .name = NULL };
		int name = 0;
		if (sscanf(line, "end %zu", &said) == 1)
			return said == names && *at == '\0'
				       ? 0
				       : warm_error_set(err, WARM_CORRUPT,
							"head: names are missing");
		if (line[0] < '0' || line[0] > '9' ||
		    sscanf(line, "%" SCNu64 " %" SCNd64 " %n", &o.bytes, &o.modified_ms, &name) !=
			    2 ||
		    name == 0)
			return warm_error_set(err, WARM_CORRUPT, "head: a line that is none");
		names++;
		o.name = line + name;
		if (strncmp(o.name, prefix, n) != 0 ||
		    warm_path_check(o.name, strlen(o.name), NULL) != 0)
			continue;
		int rc = fn(arg, &o, err);
		if (rc != 0)
			return rc;
	}
	return warm_error_set(err, WARM_CORRUPT, "head: cut short");
}

/* ---- writing ---- */

struct listed {
	char *name;
	uint64_t bytes;
	int64_t modified_ms;
};

struct collection {
	struct listed *items;
	size_t n, capacity;
};

static int collect(void *arg, const struct warm_object *object, struct warm_error *err)
{
	struct collection *c = arg;
	const char *slash = strchr(object->name, '/');

	/* Heads themselves, and what lies beside the models, are no objects of a key. */
	if (slash == NULL || strcmp(slash + 1, WARM_HEAD_NAME) == 0 ||
	    strchr(object->name, '\n') != NULL)
		return 0;
	if (c->n == c->capacity) {
		size_t capacity = c->capacity == 0 ? 256 : 2 * c->capacity;
		struct listed *items = realloc(c->items, capacity * sizeof(*items));
		if (items == NULL)
			return warm_error_nomem(err, capacity * sizeof(*items));
		c->items = items;
		c->capacity = capacity;
	}
	char *name = strdup(object->name);
	if (name == NULL)
		return warm_error_nomem(err, strlen(object->name));
	c->items[c->n++] = (struct listed){ name, object->bytes, object->modified_ms };
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct listed *)a)->name, ((const struct listed *)b)->name);
}

static void begin(struct warm_buf *text)
{
	text->bytes = 0;
	warm_buf_printf(text, FIRST_WORD " %d %lld\n", VERSION, (long long)warm_clock_wall_ms());
}

static int end(struct warm_store *store, const char *name, struct warm_buf *text, size_t names,
	       const struct warm_call *call, struct warm_error *err)
{
	warm_buf_printf(text, "end %zu\n", names);
	if (text->failed)
		return warm_error_nomem(err, text->bytes);
	if (text->bytes > WARM_HEAD_BYTES)
		return warm_error_set(err, WARM_LIMIT, "%s of %zu bytes: compact the store", name,
				      text->bytes);
	scope_close int fd = memfd_create("head", MFD_CLOEXEC);
	if (fd < 0)
		return warm_error_errno(err, errno, "memfd");
	int rc = warm_file_write(fd, text->data, text->bytes, err);
	return rc != 0 ? rc : warm_store_replace(store, name, fd, text->bytes, call, err);
}

static int write_heads(struct warm_store *store, const struct collection *c, bool all,
		       struct warm_head_report *report, const struct warm_call *call,
		       struct warm_error *err)
{
	scope_buf struct warm_buf text = WARM_BUF_INIT, models = WARM_BUF_INIT;
	char name[300];

	begin(&models);
	for (size_t i = 0; i < c->n;) {
		size_t model = strcspn(c->items[i].name, "/") + 1, first = i;
		begin(&text);
		for (; i < c->n && strncmp(c->items[i].name, c->items[first].name, model) == 0; i++)
			warm_buf_printf(&text, "%llu %lld %s\n",
					(unsigned long long)c->items[i].bytes,
					(long long)c->items[i].modified_ms, c->items[i].name);
		if (model + sizeof(WARM_HEAD_NAME) > sizeof(name))
			continue; /* not made by us */
		snprintf(name, sizeof(name), "%.*s" WARM_HEAD_NAME, (int)model,
			 c->items[first].name);
		int rc = end(store, name, &text, i - first, call, err);
		if (rc != 0)
			return rc;
		warm_buf_printf(&models, "%zu -1 %s\n", text.bytes, name);
		report->models++;
		report->objects += i - first;
	}
	return all ? end(store, WARM_HEAD_NAME, &models, report->models, call, err) : 0;
}

int warm_head_write(struct warm_store *store, const char *prefix,
		    struct warm_head_report *ret_report, const struct warm_call *call,
		    struct warm_error *err)
{
	struct collection c = { 0 };

	*ret_report = (struct warm_head_report){ 0 };
	int rc = warm_store_list(store, prefix, collect, &c, NULL, call, err);
	if (rc == 0 && c.n > 1)
		qsort(c.items, c.n, sizeof(*c.items), by_name);
	if (rc == 0)
		rc = write_heads(store, &c, prefix[0] == '\0', ret_report, call, err);
	for (size_t i = 0; i < c.n; i++)
		free(c.items[i].name);
	free(c.items);
	return rc;
}
