/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every layer of a key, read to its end: trailer, index, digest and length of every frame; and
 * the tar that the frames make, as libarchive reads it, must be what the index says.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "lib/sync/fetch.h"

enum { CHUNK_BYTES = 1 << 20 };

struct source {
	struct cli *cli;
	const struct warm_layer *layer;
	uint64_t at;
	uint8_t *data;
	size_t used;
	struct warm_error err;
};

static int take(void *arg, const void *data, size_t bytes, struct warm_error *err)
{
	struct source *s = arg;

	if (bytes > CHUNK_BYTES - s->used)
		return warm_error_set(err, WARM_CORRUPT, "the store sent more than was asked for");
	memcpy(s->data + s->used, data, bytes);
	s->used += bytes;
	return 0;
}

static la_ssize_t next_chunk(struct archive *a, void *arg, const void **ret_data)
{
	struct source *s = arg;
	uint64_t left = s->layer->object_bytes - s->at;
	uint64_t n = left < CHUNK_BYTES ? left : CHUNK_BYTES;

	s->used = 0;
	if (n > 0 && warm_store_get(s->cli->store, s->layer->object, s->at, n, take, s,
				    &s->cli->call, &s->err) != 0) {
		archive_set_error(a, EIO, "%s", s->err.msg);
		return -1;
	}
	s->at += n;
	*ret_data = s->data;
	return (la_ssize_t)s->used;
}

/* The tar's entries are the index's files, in order. */
static int compare_tar(struct archive *a, const struct warm_index *index, struct warm_error *err)
{
	struct archive_entry *e;
	size_t n = 0;
	int rc;

	while ((rc = archive_read_next_header(a, &e)) == ARCHIVE_OK || rc == ARCHIVE_WARN) {
		const struct warm_file *f = n < index->n_files ? &index->files[n] : NULL;
		const char *path = archive_entry_pathname(e);
		if (f == NULL || path == NULL || strcmp(path, f->path) != 0 ||
		    (uint64_t)archive_entry_size(e) != f->size ||
		    archive_entry_filetype(e) != AE_IFREG)
			return warm_error_set(err, WARM_CORRUPT,
					      "the tar's entry %zu is not what the index says", n);
		n++;
	}
	if (rc != ARCHIVE_EOF)
		return warm_error_set(err, WARM_CORRUPT, "the tar can't be read: %s",
				      archive_error_string(a));
	if (n != index->n_files)
		return warm_error_set(err, WARM_CORRUPT, "the tar has %zu files, the index %zu", n,
				      index->n_files);
	return 0;
}

static int verify_tar(struct cli *cli, const struct warm_layer *layer, struct warm_error *err)
{
	struct source s = { .cli = cli, .layer = layer, .data = malloc(CHUNK_BYTES) };
	struct archive *a = archive_read_new();
	int rc;

	if (s.data == NULL || a == NULL)
		rc = warm_error_nomem(err, CHUNK_BYTES);
	else if (archive_read_support_filter_zstd(a) != ARCHIVE_OK ||
		 archive_read_support_format_tar(a) != ARCHIVE_OK ||
		 archive_read_open(a, &s, NULL, next_chunk, NULL) != ARCHIVE_OK)
		rc = s.err.status != WARM_OK
			     ? warm_error_set(err, s.err.status, "%s", s.err.msg)
			     : warm_error_set(err, WARM_CORRUPT, "the tar can't be read: %s",
					      archive_error_string(a));
	else
		rc = compare_tar(a, layer->index, err);
	archive_read_free(a);
	free(s.data);
	return rc;
}

static int verify(struct cli *cli, const char *argument, struct warm_error *err)
{
	scope_catalog struct warm_catalog catalog = { 0 };
	scope_state struct warm_state state = { 0 };
	size_t bad_layers = 0;

	(void)argument;
	int rc = cli_load_key(cli, &catalog, &state, err);
	if (rc != 0)
		return rc;
	scope_free bool *wanted = calloc(catalog.n_layers, sizeof(*wanted));
	scope_free bool *bad = calloc(catalog.n_layers, sizeof(*bad));
	if (wanted == NULL || bad == NULL)
		return warm_error_nomem(err, catalog.n_layers);
	for (size_t i = 0; i < catalog.n_layers; i++)
		wanted[i] = catalog.layers[i].index != NULL;
	struct warm_fetch fetch = {
		.store = cli->store,
		.layers = catalog.layers,
		.n_layers = catalog.n_layers,
		.dir_fd = -1,
		.all_frames = true,
		.wanted = wanted,
		.layer_bad = bad,
		.jobs = (unsigned)cli->options->jobs,
		.notices = &warm_log_notices,
		.progress = cli_progress,
		.progress_arg = cli,
	};
	struct warm_fetch_result fetched;
	rc = warm_fetch_run(&fetch, &fetched, &cli->call, err);
	cli_progress_end(cli);
	if (rc != 0 && rc != WARM_CORRUPT && rc != WARM_NOT_FOUND)
		return rc;
	json_t *list = json_array();
	for (size_t i = 0; i < catalog.n_layers; i++) {
		const struct warm_layer *l = &catalog.layers[i];
		struct warm_error why = { 0 };
		if (l->index == NULL)
			(void)warm_error_set(&why, WARM_CORRUPT, "its index can't be used");
		else if (bad[i])
			(void)warm_error_set(&why, WARM_CORRUPT, "a frame is corrupt");
		else if (verify_tar(cli, l, &why) == WARM_CANCELED)
			break;
		bad_layers += why.status != WARM_OK;
		if (cli->options->json)
			json_array_append_new(list,
					      json_pack("{s:s,s:b,s:s}", "object", l->object, "ok",
							why.status == WARM_OK, "reason", why.msg));
		else
			printf("%s %s%s%s\n", why.status == WARM_OK ? "ok " : "BAD", l->object,
			       why.msg[0] != '\0' ? ": " : "", why.msg);
	}
	if (cli->options->json)
		cli_print_json(json_pack("{s:o,s:I,s:I}", "layers", list, "bad",
					 (json_int_t)bad_layers, "fetched_bytes",
					 (json_int_t)fetched.fetched_bytes));
	else
		json_decref(list);
	rc = warm_call_check(&cli->call, err);
	if (rc == 0 && bad_layers > 0)
		rc = warm_error_set(err, WARM_CORRUPT, "%zu of %zu layers are bad", bad_layers,
				    catalog.n_layers);
	return rc;
}

const struct cli_command cli_verify = {
	.name = "verify",
	.summary = "read every layer to its end and check it",
	.needs_key = true,
	.run = verify,
};
