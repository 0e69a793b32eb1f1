/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/sync/ledger.h"

#include <stdio.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/base/file.h"
#include "lib/base/hash.h"

static const char ledger_magic[8] = { 'w', 'a', 'r', 'm', 'l', 'd', 'g', '1' };

enum { LEDGER_BYTES = 32 << 20 }; /* 200,000 files */

void warm_ledger_init(struct warm_ledger *ledger)
{
	*ledger = (struct warm_ledger){ 0 };
	warm_boot_id(ledger->boot_id);
}

static void release_group(struct warm_ledger_group *g)
{
	for (size_t i = 0; i < g->n_files; i++)
		free(g->files[i].path);
	free(g->files);
	free(g->name);
	free(g->key);
	free(g->profile);
}

void warm_ledger_release(struct warm_ledger *ledger)
{
	for (size_t i = 0; i < ledger->n_groups; i++)
		release_group(&ledger->groups[i]);
	free(ledger->groups);
	*ledger = (struct warm_ledger){ 0 };
}

static char *take_copy(struct warm_reader *r)
{
	size_t n;
	const char *s = warm_reader_str(r, WARM_PATH_BYTES + 64, &n);

	return r->bad ? NULL : strndup(s, n);
}

static int parse_group(struct warm_reader *r, struct warm_ledger_group *g)
{
	g->name = take_copy(r);
	g->key = take_copy(r);
	g->profile = take_copy(r);
	g->origin.ms = warm_reader_u64(r);
	g->origin.random = warm_reader_u64(r);
	g->flags = (unsigned)warm_reader_uv(r);
	size_t n = warm_reader_count(r, 18);
	if (r->bad)
		return WARM_CORRUPT;
	g->files = calloc(n + 1, sizeof(*g->files));
	if (g->files == NULL || g->name == NULL || g->key == NULL || g->profile == NULL)
		return WARM_NO_MEMORY;
	for (; g->n_files < n; g->n_files++) {
		struct warm_ledger_file *f = &g->files[g->n_files];
		f->path = take_copy(r);
		f->size = warm_reader_uv(r);
		f->mtime_ns = (int64_t)warm_reader_u64(r);
		f->atime_ns = (int64_t)warm_reader_u64(r);
		if (r->bad || f->path == NULL) {
			free(f->path);
			return r->bad ? WARM_CORRUPT : WARM_NO_MEMORY;
		}
	}
	return 0;
}

int warm_ledger_load(struct warm_ledger *ledger, int volume_fd, struct warm_error *err)
{
	return warm_ledger_load_from(ledger, volume_fd, WARM_LEDGER_PATH, err);
}

int warm_ledger_load_from(struct warm_ledger *ledger, int volume_fd, const char *path,
			  struct warm_error *err)
{
	scope_free char *data = NULL;
	size_t bytes = 0;

	warm_ledger_init(ledger);
	int rc = warm_beneath_load(volume_fd, path, LEDGER_BYTES, &data, &bytes, err);
	if (rc != 0)
		return rc;
	uint64_t sum = 0;
	if (bytes < 8 + 8)
		return warm_error_set(err, WARM_CORRUPT, "%s is cut short", path);
	struct warm_reader tail = warm_reader_of(data + bytes - 8, 8);
	sum = warm_reader_u64(&tail);
	if (memcmp(data, ledger_magic, 8) != 0 || warm_hash64(data, bytes - 8) != sum)
		return warm_error_set(err, WARM_CORRUPT, "%s is torn", path);

	struct warm_reader r = warm_reader_of(data + 8, bytes - 16);
	size_t n_boot;
	const char *boot = warm_reader_str(&r, sizeof(ledger->boot_id) - 1, &n_boot);
	char boot_id[sizeof(ledger->boot_id)] = { 0 };
	memcpy(boot_id, boot, n_boot);
	size_t n = warm_reader_count(&r, 22);
	struct warm_ledger_group *groups = calloc(n + 1, sizeof(*groups));
	if (groups == NULL)
		return warm_error_nomem(err, n * sizeof(*groups));
	ledger->groups = groups;
	ledger->capacity = n;
	rc = r.bad ? WARM_CORRUPT : 0;
	while (rc == 0 && ledger->n_groups < n) {
		rc = parse_group(&r, &groups[ledger->n_groups]);
		ledger->n_groups++;
	}
	if (rc == 0 && r.at != r.bytes)
		rc = WARM_CORRUPT;
	if (rc != 0) {
		warm_ledger_release(ledger);
		warm_ledger_init(ledger);
		return rc == WARM_NO_MEMORY
			       ? warm_error_nomem(err, bytes)
			       : warm_error_set(err, WARM_CORRUPT, "%s is malformed", path);
	}
	memcpy(ledger->boot_id, boot_id, sizeof(boot_id));
	return 0;
}

int warm_ledger_save(const struct warm_ledger *ledger, int volume_fd, struct warm_error *err)
{
	return warm_ledger_save_to(ledger, volume_fd, WARM_LEDGER_PATH, err);
}

int warm_ledger_save_to(const struct warm_ledger *ledger, int volume_fd, const char *path,
			struct warm_error *err)
{
	scope_buf struct warm_buf out = WARM_BUF_INIT;

	warm_buf_put(&out, ledger_magic, sizeof(ledger_magic));
	warm_buf_put_str(&out, ledger->boot_id);
	warm_buf_put_uv(&out, ledger->n_groups);
	for (size_t i = 0; i < ledger->n_groups; i++) {
		const struct warm_ledger_group *g = &ledger->groups[i];
		warm_buf_put_str(&out, g->name);
		warm_buf_put_str(&out, g->key);
		warm_buf_put_str(&out, g->profile);
		warm_buf_put_u64(&out, g->origin.ms);
		warm_buf_put_u64(&out, g->origin.random);
		warm_buf_put_uv(&out, g->flags);
		warm_buf_put_uv(&out, g->n_files);
		for (size_t k = 0; k < g->n_files; k++) {
			warm_buf_put_str(&out, g->files[k].path);
			warm_buf_put_uv(&out, g->files[k].size);
			warm_buf_put_u64(&out, (uint64_t)g->files[k].mtime_ns);
			warm_buf_put_u64(&out, (uint64_t)g->files[k].atime_ns);
		}
	}
	if (!out.failed)
		warm_buf_put_u64(&out, warm_hash64(out.data, out.bytes));
	if (out.failed)
		return warm_error_nomem(err, out.bytes);
	/* The model may have put a link in the way. */
	scope_close int dir = -1;
	const char *name = NULL;
	int rc = warm_beneath_parent(volume_fd, path, &dir, &name, err);
	return rc != 0 ? rc : warm_file_replace(dir, name, out.data, out.bytes, 0666, false, err);
}

bool warm_ledger_of_this_boot(const struct warm_ledger *ledger)
{
	char boot_id[40];

	warm_boot_id(boot_id);
	return strcmp(boot_id, ledger->boot_id) == 0;
}

/* The place of `name`, or where it would be inserted. */
static size_t place_of(const struct warm_ledger *ledger, const char *name, bool *ret_found)
{
	size_t low = 0, high = ledger->n_groups;

	*ret_found = false;
	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int c = strcmp(ledger->groups[mid].name, name);
		if (c == 0) {
			*ret_found = true;
			return mid;
		}
		if (c < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

struct warm_ledger_group *warm_ledger_find(const struct warm_ledger *ledger, const char *name)
{
	bool found;
	size_t at = place_of(ledger, name, &found);

	return found ? &ledger->groups[at] : NULL;
}

void warm_ledger_drop(struct warm_ledger *ledger, const bool *gone)
{
	size_t kept = 0;

	for (size_t i = 0; i < ledger->n_groups; i++)
		if (gone[i])
			release_group(&ledger->groups[i]);
		else
			ledger->groups[kept++] = ledger->groups[i];
	ledger->n_groups = kept;
}

int warm_ledger_put(struct warm_ledger *ledger, const struct warm_ledger_group *group,
		    struct warm_error *err)
{
	struct warm_ledger_group copy = {
		.name = strdup(group->name),
		.key = strdup(group->key),
		.profile = strdup(group->profile),
		.origin = group->origin,
		.flags = group->flags,
		.files = calloc(group->n_files + 1, sizeof(*copy.files)),
	};
	bool found;
	bool ok = copy.name != NULL && copy.key != NULL && copy.profile != NULL &&
		  copy.files != NULL;

	for (; ok && copy.n_files < group->n_files; copy.n_files++) {
		copy.files[copy.n_files] = group->files[copy.n_files];
		copy.files[copy.n_files].path = strdup(group->files[copy.n_files].path);
		ok = copy.files[copy.n_files].path != NULL;
	}
	if (ok && ledger->n_groups == ledger->capacity) {
		size_t capacity = ledger->capacity == 0 ? 64 : 2 * ledger->capacity;
		struct warm_ledger_group *groups = realloc(ledger->groups,
							   capacity * sizeof(*groups));
		ok = groups != NULL;
		if (ok) {
			ledger->groups = groups;
			ledger->capacity = capacity;
		}
	}
	if (!ok) {
		release_group(&copy);
		return warm_error_nomem(err, sizeof(copy));
	}
	size_t at = place_of(ledger, group->name, &found);
	if (found) {
		release_group(&ledger->groups[at]);
	} else {
		memmove(&ledger->groups[at + 1], &ledger->groups[at],
			(ledger->n_groups - at) * sizeof(*ledger->groups));
		ledger->n_groups++;
	}
	ledger->groups[at] = copy;
	return 0;
}
