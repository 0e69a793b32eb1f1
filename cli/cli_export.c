/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A key's cache as one archive: what its layers hold together, in the format that the suffix
 * names. Written beside its name and renamed, so that no half archive is left.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "lib/sync/scan.h"

static int tar_failed(struct archive *a, struct warm_error *err)
{
	int os_errno = archive_errno(a);
	const char *why = archive_error_string(a);

	return warm_error_set(err, os_errno == ENOSPC ? WARM_NO_SPACE : WARM_IO, "%s",
			      why != NULL ? why : "libarchive failed");
}

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n > m && strcmp(text + n - m, end) == 0;
}

static int set_format(struct archive *a, const char *path, struct warm_error *err)
{
	static const struct {
		const char *suffix;
		int (*format)(struct archive *);
		int (*filter)(struct archive *);
	} formats[] = {
		{ ".tar.zst", archive_write_set_format_pax_restricted,
		  archive_write_add_filter_zstd },
		{ ".tar.gz", archive_write_set_format_pax_restricted,
		  archive_write_add_filter_gzip },
		{ ".tgz", archive_write_set_format_pax_restricted, archive_write_add_filter_gzip },
		{ ".tar", archive_write_set_format_pax_restricted, archive_write_add_filter_none },
		{ ".zip", archive_write_set_format_zip, archive_write_add_filter_none },
	};

	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		if (!ends_with(path, formats[i].suffix))
			continue;
		if (formats[i].format(a) != ARCHIVE_OK || formats[i].filter(a) != ARCHIVE_OK)
			return tar_failed(a, err);
		return 0;
	}
	return warm_error_set(err, WARM_INVALID,
			      "the suffix is none of .tar.zst .tar.gz .tgz .tar .zip");
}

static int write_file(struct archive *a, struct archive_entry *e, int dir_fd,
		      const struct warm_scan_file *f, uint8_t *data, size_t capacity,
		      struct warm_error *err)
{
	scope_close int fd = -1;
	struct stat st;
	int rc = warm_beneath_open(dir_fd, f->path, O_RDONLY, 0, &fd, err);

	if (rc != 0)
		return rc;
	if (fstat(fd, &st) != 0)
		return warm_error_errno(err, errno, "stat");
	archive_entry_clear(e);
	archive_entry_copy_pathname(e, f->path);
	archive_entry_set_filetype(e, AE_IFREG);
	archive_entry_set_perm(e, st.st_mode & 0777);
	archive_entry_set_size(e, st.st_size);
	archive_entry_set_mtime(e, st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	rc = archive_write_header(a, e);
	if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN)
		return tar_failed(a, err);
	for (uint64_t at = 0, size = (uint64_t)st.st_size; at < size;) {
		size_t n = size - at < capacity ? (size_t)(size - at) : capacity;
		rc = warm_file_read_at(fd, data, n, at, err);
		if (rc != 0)
			return rc;
		if (archive_write_data(a, data, n) != (la_ssize_t)n)
			return tar_failed(a, err);
		at += n;
	}
	return 0;
}

static int write_archive(struct cli *cli, const char *dir, const char *path, size_t *ret_files,
			 struct warm_error *err)
{
	enum { CAPACITY = 1 << 20 };
	scope_scan struct warm_scan scan = { 0 };
	scope_close int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	scope_free uint8_t *data = malloc(CAPACITY);
	struct archive *a = archive_write_new();
	struct archive_entry *e = archive_entry_new();
	int rc;

	if (data == NULL || a == NULL || e == NULL || dir_fd < 0)
		rc = warm_error_nomem(err, CAPACITY);
	else
		rc = set_format(a, path, err);
	if (rc == 0)
		rc = warm_scan_run(dir_fd, &cli->target.roots, UINT64_MAX, NULL, NULL, &cli->call,
				   &scan, err);
	char temp[WARM_PATH_BYTES + 8];
	snprintf(temp, sizeof(temp), "%s.part", path);
	if (rc == 0 && archive_write_open_filename(a, temp) != ARCHIVE_OK)
		rc = tar_failed(a, err);
	for (size_t i = 0; rc == 0 && i < scan.n_files; i++) {
		rc = warm_call_check(&cli->call, err);
		if (rc == 0)
			rc = write_file(a, e, dir_fd, &scan.files[i], data, CAPACITY, err);
	}
	if (rc == 0 && archive_write_close(a) != ARCHIVE_OK)
		rc = tar_failed(a, err);
	archive_write_free(a);
	archive_entry_free(e);
	if (rc == 0 && rename(temp, path) != 0)
		rc = warm_error_errno(err, errno, "rename");
	if (rc != 0)
		unlink(temp);
	*ret_files = scan.n_files;
	return rc;
}

static int export(struct cli *cli, const char *path, struct warm_error *err)
{
	scope_catalog struct warm_catalog catalog = { 0 };
	scope_state struct warm_state state = { 0 };
	struct warm_restore_result r = { 0 };
	char dir[WARM_PATH_BYTES];
	const char *mount = cli->options->mount;
	size_t files = 0;

	int rc = cli_load_key(cli, &catalog, &state, err);
	if (rc != 0)
		return rc;
	for (size_t i = 0; mount == NULL && i < catalog.n_layers; i++)
		if (catalog.layers[i].index != NULL && catalog.layers[i].index->mount[0] != '\0')
			mount = catalog.layers[i].index->mount;
	rc = cli_temp_make(dir, err);
	if (rc != 0)
		return rc;
	rc = cli_restore_dir(cli, dir, mount, &r, err);
	if (rc == 0 && (rc = write_archive(cli, dir, path, &files, err)) != 0)
		warm_error_context(err, "%s", path);
	cli_temp_remove(dir);
	if (rc != 0)
		return rc;
	if (cli->options->json)
		cli_print_json(json_pack("{s:s,s:I,s:I,s:s,s:s}", "archive", path, "files",
					 (json_int_t)files, "bytes", (json_int_t)r.bytes, "mount",
					 mount != NULL ? mount : "", "reason", r.reason));
	else
		printf("%s: %zu files of %s, for a volume at %s%s%s\n", path, files,
		       cli_size(r.bytes), mount != NULL ? mount : "any path",
		       r.reason[0] != '\0' ? "; " : "", r.reason);
	return 0;
}

const struct cli_command cli_export = {
	.name = "export",
	.argument = "ARCHIVE",
	.summary = "write a key's cache as one archive",
	.needs_key = true,
	.run = export,
};
