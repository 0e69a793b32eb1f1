/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a kernel was compiled again: two entries of the kernel cache compared, or a miss that
 * WARM_COMPILER_LOG has recorded with the entries of a volume, those with fewest differences
 * first. Needs no store.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "lib/kernel/entry.h"

enum { LOG_BYTES = 1 << 30, NEAREST = 3 };

/* ---- entries ---- */

struct loaded {
	char *path, *data;
	struct warm_kernel_entry entry;
};

static void release_loaded(struct loaded *l)
{
	warm_kernel_entry_release(&l->entry);
	free(l->data);
	free(l->path);
}
#define scope_loaded WARM_SCOPE(release_loaded)

static int load_entry(int dir_fd, const char *path, struct loaded *ret_loaded,
		      struct warm_error *err)
{
	struct loaded l = { 0 };
	size_t bytes = 0;
	int rc = warm_file_load(dir_fd, path, WARM_KERNEL_ENTRY_BYTES, &l.data, &bytes, err);

	if (rc == 0)
		rc = warm_kernel_entry_parse(l.data, bytes, &l.entry, err);
	if (rc == 0 && (l.path = strdup(path)) == NULL)
		rc = warm_error_nomem(err, strlen(path));
	if (rc != 0) {
		release_loaded(&l);
		warm_error_context(err, "%.120s", path);
		return rc;
	}
	*ret_loaded = l;
	return 0;
}

/* What one list has and the other lacks, or has otherwise. */
static unsigned explain_deps(const struct warm_kernel_entry *was,
			     const struct warm_kernel_entry *now, bool both, struct warm_buf *out)
{
	struct warm_reader r = warm_reader_of(now->deps.data, now->deps.bytes);
	struct warm_kernel_dep dep, other;
	unsigned n = 0;

	while (warm_kernel_next_dep(&r, &dep)) {
		struct warm_reader s = warm_reader_of(was->deps.data, was->deps.bytes);
		bool found = false, same = false;
		while (!found && warm_kernel_next_dep(&s, &other)) {
			found = strcmp(other.path.data, dep.path.data) == 0;
			same = found && other.kind == dep.kind && other.size == dep.size &&
			       other.twin == dep.twin && other.relative == dep.relative &&
			       other.digest.low == dep.digest.low &&
			       other.digest.high == dep.digest.high;
		}
		if (same || (found && !both))
			continue;
		const char *change = found ? "is another" : both ? "is new" : "is gone";
		if (n++ > 0 || out->bytes > 0)
			warm_buf_printf(out, "; ");
		warm_buf_printf(out, "dependency %s %s", dep.path.data, change);
	}
	return n;
}

static unsigned explain_entries(const struct warm_kernel_entry *was,
				const struct warm_kernel_entry *now, struct warm_buf *out)
{
	return warm_kernel_inputs_explain(&was->inputs, &now->inputs, out) +
	       explain_deps(was, now, true, out) + explain_deps(now, was, false, out);
}

static int compare_entries(const struct cli *cli, const char *was_path, const char *now_path,
			   struct warm_error *err)
{
	scope_loaded struct loaded was = { 0 }, now = { 0 };
	scope_buf struct warm_buf text = WARM_BUF_INIT;
	int rc = load_entry(AT_FDCWD, was_path, &was, err);

	if (rc == 0)
		rc = load_entry(AT_FDCWD, now_path, &now, err);
	if (rc != 0)
		return rc;
	unsigned n = explain_entries(&was.entry, &now.entry, &text);
	warm_buf_put_u8(&text, 0);
	if (text.failed)
		return warm_error_nomem(err, text.bytes);
	if (cli->options->json)
		cli_print_json(json_pack("{s:I,s:s}", "differences", (json_int_t)n, "text",
					 (char *)text.data));
	else if (n == 0)
		printf("no difference\n");
	else
		printf("%s\n", (char *)text.data);
	return 0;
}

/* ---- a logged miss ---- */

struct miss {
	json_t *line;
	struct warm_kernel_inputs inputs; /* views into it */
};

static void release_miss(struct miss *m)
{
	warm_kernel_inputs_release(&m->inputs);
	json_decref(m->line);
}
#define scope_miss WARM_SCOPE(release_miss)

static struct warm_kernel_text text_of(const json_t *line, const char *key)
{
	const char *text = json_string_value(json_object_get(line, key));

	return text != NULL ? (struct warm_kernel_text){ text, strlen(text) }
			    : (struct warm_kernel_text){ "", 0 };
}

static struct warm_kernel_text *texts_of(const json_t *line, const char *key, size_t *ret_n)
{
	const json_t *list = json_object_get(line, key), *item;
	struct warm_kernel_text *texts = calloc(json_array_size(list) + 1, sizeof(*texts));
	size_t i;

	*ret_n = texts != NULL ? json_array_size(list) : 0;
	json_array_foreach(list, i, item) {
		const char *text = json_string_value(item);
		if (texts != NULL)
			texts[i] = (struct warm_kernel_text){ text != NULL ? text : "",
							      text != NULL ? strlen(text) : 0 };
	}
	return texts;
}

static struct warm_hash128 digest_of(const json_t *line, const char *key)
{
	const char *hex = text_of(line, key).data;
	unsigned long long high = 0, low = 0;

	if (sscanf(hex, "%16llx%16llx", &high, &low) != 2)
		high = low = 0;
	return (struct warm_hash128){ .low = low, .high = high };
}

static uint64_t number_of(const json_t *line, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(line, key));
}

static int take_inputs(struct miss *m, struct warm_error *err)
{
	struct warm_kernel_inputs in = {
		.compiler = text_of(m->line, "compiler"),
		.environment = text_of(m->line, "environment"),
		.name = text_of(m->line, "name"),
		.source_bytes = number_of(m->line, "source_bytes"),
		.source_digest = digest_of(m->line, "source_digest"),
		.headers_bytes = number_of(m->line, "headers_bytes"),
		.n_headers = (uint32_t)number_of(m->line, "headers"),
		.headers_digest = digest_of(m->line, "headers_digest"),
	};

	in.options = texts_of(m->line, "options", &in.n_options);
	in.expressions = texts_of(m->line, "name_expressions", &in.n_expressions);
	m->inputs = in;
	return in.options != NULL && in.expressions != NULL ? 0 : warm_error_nomem(err, 0);
}

/* The last line of `path` that has inputs and, if given, the fingerprint. */
static int find_miss(const char *path, const char *fingerprint, struct miss *ret_miss,
		     struct warm_error *err)
{
	scope_free char *data = NULL;
	size_t bytes = 0;
	int rc = warm_file_load(AT_FDCWD, path, LOG_BYTES, &data, &bytes, err);

	if (rc != 0)
		return rc;
	for (char *line = data; *line != '\0';) {
		size_t n = strcspn(line, "\n");
		json_t *one = json_loadb(line, n, 0, NULL);
		/* A program that doesn't compile has no entry to be compared with. */
		bool fits = json_is_string(json_object_get(one, "source_digest")) &&
			    strcmp(text_of(one, "event").data, "error") != 0 &&
			    (fingerprint == NULL ||
			     strcmp(text_of(one, "fingerprint").data, fingerprint) == 0);
		if (fits) {
			json_decref(ret_miss->line);
			ret_miss->line = one;
		} else {
			json_decref(one);
		}
		line += n + (line[n] == '\n');
	}
	if (ret_miss->line == NULL)
		return warm_error_set(err, WARM_NOT_FOUND, "%.120s records no miss%s%.40s", path,
				      fingerprint != NULL ? " of " : "",
				      fingerprint != NULL ? fingerprint : "");
	return take_inputs(ret_miss, err);
}

/* ---- the nearest entries ---- */

struct near {
	char path[256], *text;
	unsigned differences;
};

struct search {
	const struct miss *miss;
	struct near nearest[NEAREST];
	size_t n, entries, bad;
	char same[256]; /* an entry of the same inputs, or "" */
};

static void release_search(struct search *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->nearest[i].text);
}
#define scope_search WARM_SCOPE(release_search)

static int consider(struct search *s, int dir_fd, const char *path, struct warm_error *err)
{
	scope_loaded struct loaded l = { 0 };
	scope_buf struct warm_buf text = WARM_BUF_INIT;

	if (load_entry(dir_fd, path, &l, NULL) != 0) {
		s->bad++;
		return 0;
	}
	s->entries++;
	unsigned n = warm_kernel_inputs_explain(&l.entry.inputs, &s->miss->inputs, &text);
	warm_buf_put_u8(&text, 0);
	if (n == 0) {
		snprintf(s->same, sizeof(s->same), "%s", path);
		return 0;
	}
	size_t at = s->n;
	while (at > 0 && s->nearest[at - 1].differences > n)
		at--;
	if (at == NEAREST)
		return 0;
	if (text.failed)
		return warm_error_nomem(err, text.bytes);
	if (s->n == NEAREST)
		free(s->nearest[--s->n].text);
	memmove(&s->nearest[at + 1], &s->nearest[at], (s->n - at) * sizeof(s->nearest[0]));
	s->n++;
	s->nearest[at].differences = n;
	s->nearest[at].text = (char *)take_ptr(text.data);
	snprintf(s->nearest[at].path, sizeof(s->nearest[at].path), "%s", path);
	return 0;
}

/* Entries lie `depth` levels below, at most. */
static int search_dir(struct search *s, int volume_fd, const char *path, int depth,
		      struct warm_error *err)
{
	scope_close int fd = openat(volume_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int listed = fd >= 0 ? dup(fd) : -1;
	scope_closedir DIR *dir = listed >= 0 ? fdopendir(listed) : NULL;
	struct dirent *d;
	struct stat st;
	char below[256];
	int rc = 0;

	if (dir == NULL) {
		rc = warm_error_errno(err, errno, "%.120s", path);
		if (listed >= 0)
			close(listed);
		return rc;
	}
	while (rc == 0 && (d = readdir(dir)) != NULL) {
		if (d->d_name[0] == '.' || strlen(d->d_name) > 64 ||
		    fstatat(fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
			continue;
		snprintf(below, sizeof(below), "%.180s/%.64s", path, d->d_name);
		if (S_ISDIR(st.st_mode) && depth > 0)
			rc = search_dir(s, volume_fd, below, depth - 1, err);
		else if (S_ISREG(st.st_mode) && strlen(d->d_name) == 32)
			rc = consider(s, volume_fd, below, err);
	}
	return rc;
}

static void print_search(const struct cli *cli, const struct search *s)
{
	const json_t *line = s->miss->line;
	const char *name = text_of(line, "name").data, *why = text_of(line, "dependency").data;
	const char *reason = text_of(line, "reason").data;
	json_t *list = json_array();

	if (!cli->options->json) {
		printf("%s of '%s', %s, fingerprint %s\n", text_of(line, "event").data, name,
		       text_of(line, "time").data, text_of(line, "fingerprint").data);
		if (why[0] != '\0')
			printf("an entry of the same inputs didn't hold: %s\n", why);
		if (reason[0] != '\0')
			printf("not stored: %s\n", reason);
		if (s->same[0] != '\0')
			printf("an entry of the same inputs is there now: %s\n", s->same);
		printf("the nearest of %zu entries%s\n", s->entries, s->n > 0 ? ":" : ": none");
	}
	for (size_t i = 0; i < s->n; i++) {
		const struct near *n = &s->nearest[i];
		if (cli->options->json)
			json_array_append_new(
				list, json_pack("{s:s,s:I,s:s}", "path", n->path, "differences",
						(json_int_t)n->differences, "text", n->text));
		else
			printf("%s: %s\n", n->path, n->text);
	}
	if (cli->options->json)
		cli_print_json(json_pack("{s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:o}", "name", name,
					 "fingerprint", text_of(line, "fingerprint").data,
					 "dependency", why, "reason", reason, "same", s->same,
					 "entries", (json_int_t)s->entries, "bad",
					 (json_int_t)s->bad, "nearest", list));
	else
		json_decref(list);
}

static int explain_miss(const struct cli *cli, const char *volume, struct warm_error *err)
{
	scope_miss struct miss m = { 0 };
	scope_search struct search s = { .miss = &m };
	int rc = find_miss(cli->options->log, cli->options->fingerprint, &m, err);

	if (rc != 0)
		return rc;
	scope_close int fd = open(volume, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return warm_error_errno(err, errno, "volume %.150s", volume);
	rc = search_dir(&s, fd, WARM_KERNEL_DIR, 2, err);
	if (rc == WARM_NOT_FOUND)
		rc = warm_error_set(err, rc, "%.150s holds no " WARM_KERNEL_DIR, volume);
	if (rc == 0)
		print_search(cli, &s);
	return rc;
}

static int explain(struct cli *cli, const char *argument, struct warm_error *err)
{
	if (cli->second != NULL)
		return compare_entries(cli, argument, cli->second, err);
	if (cli->options->log == NULL)
		return warm_error_set(err, WARM_INVALID,
				      "either two entries, or a volume and --log FILE");
	return explain_miss(cli, argument, err);
}

const struct cli_command cli_explain = {
	.name = "explain",
	.argument = "VOLUME|ENTRY",
	.second = "ENTRY",
	.summary = "why a kernel was compiled again",
	.needs_no_store = true,
	.run = explain,
};
