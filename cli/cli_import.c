/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An archive of a cache directory, in any format that libarchive reads, becomes layers. Paths in
 * it are those below the volume ("inductor/...", "triton/..."). Only regular files are taken;
 * what a profile doesn't list is left out, as when a sidecar publishes.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "lib/base/log.h"

enum { MAX_FILES = 1000000 };

struct extraction {
	struct cli *cli;
	struct archive *archive;
	int dir_fd;
	uint64_t bytes;
	size_t files, skipped;
};

static const uint64_t max_bytes = (uint64_t)256 << 30;

static int extract_data(struct extraction *x, int fd, struct warm_error *err)
{
	const void *data;
	size_t bytes;
	la_int64_t offset;

	for (;;) {
		int rc = warm_call_check(&x->cli->call, err);
		if (rc != 0)
			return rc;
		rc = archive_read_data_block(x->archive, &data, &bytes, &offset);
		if (rc == ARCHIVE_EOF)
			return 0;
		if (rc != ARCHIVE_OK)
			return warm_error_set(err, WARM_CORRUPT, "%s",
					      archive_error_string(x->archive));
		x->bytes += bytes;
		if (x->bytes > max_bytes)
			return warm_error_set(err, WARM_LIMIT, "more than %llu bytes",
					      (unsigned long long)max_bytes);
		rc = warm_file_write_at(fd, data, bytes, (uint64_t)offset, err);
		if (rc != 0)
			return rc;
	}
}

static int extract_entry(struct extraction *x, struct archive_entry *e, struct warm_error *err)
{
	const char *path = archive_entry_pathname(e);
	char shown[120], parent[WARM_PATH_BYTES];

	if (path == NULL)
		return warm_error_set(err, WARM_CORRUPT, "an entry has no name");
	while (path[0] == '.' && path[1] == '/')
		path += 2;
	if (archive_entry_filetype(e) == AE_IFDIR)
		return 0;
	warm_path_printable(path, shown, sizeof(shown));
	if (archive_entry_filetype(e) != AE_IFREG || archive_entry_hardlink(e) != NULL) {
		warm_log(WARM_LOG_WARN, "skipped", "%s is a link or a device", shown);
		x->skipped++;
		return 0;
	}
	if (warm_path_check(path, strlen(path), err) != 0) {
		warm_error_context(err, "entry '%s'", shown);
		return WARM_INVALID;
	}
	if (++x->files > MAX_FILES)
		return warm_error_set(err, WARM_LIMIT, "more than %d files", MAX_FILES);
	const char *slash = strrchr(path, '/');
	int rc = 0;
	if (slash != NULL) {
		snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path), path);
		rc = warm_beneath_mkdirs(x->dir_fd, parent, err);
	}
	scope_close int fd = -1;
	if (rc == 0)
		rc = warm_beneath_open(x->dir_fd, path, O_WRONLY | O_CREAT | O_TRUNC,
				       0666 | (archive_entry_perm(e) & 0111), &fd, err);
	if (rc == 0)
		rc = extract_data(x, fd, err);
	if (rc == 0) {
		struct timespec times[2] = {
			{ .tv_nsec = UTIME_OMIT },
			{ .tv_sec = archive_entry_mtime(e),
			  .tv_nsec = archive_entry_mtime_nsec(e) },
		};
		if (futimens(fd, times) != 0)
			rc = warm_error_errno(err, errno, "set times");
	}
	if (rc == 0)
		rc = warm_file_close(&fd, err);
	if (rc != 0)
		warm_error_context(err, "entry '%s'", shown);
	return rc;
}

static int extract(struct extraction *x, const char *path, struct warm_error *err)
{
	struct archive_entry *e;
	int rc;

	archive_read_support_filter_all(x->archive);
	archive_read_support_format_all(x->archive);
	if (archive_read_open_filename(x->archive, path, 1 << 20) != ARCHIVE_OK)
		return warm_error_set(
			err, archive_errno(x->archive) == ENOENT ? WARM_NOT_FOUND : WARM_CORRUPT,
			"%s", archive_error_string(x->archive));
	while ((rc = archive_read_next_header(x->archive, &e)) == ARCHIVE_OK ||
	       rc == ARCHIVE_WARN) {
		int failed = extract_entry(x, e, err);
		if (failed != 0)
			return failed;
	}
	if (rc != ARCHIVE_EOF)
		return warm_error_set(err, WARM_CORRUPT, "%s", archive_error_string(x->archive));
	if (x->files == 0)
		return warm_error_set(err, WARM_CORRUPT, "no files in it");
	return 0;
}

static int import(struct cli *cli, const char *path, struct warm_error *err)
{
	char dir[WARM_PATH_BYTES];
	struct extraction x = { .cli = cli, .dir_fd = -1 };
	struct stat st;

	if (stat(path, &st) != 0)
		return warm_error_errno(err, errno, "%s", path);
	int rc = cli_temp_make(dir, err);
	if (rc != 0)
		return rc;
	x.dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	x.archive = archive_read_new();
	if (x.archive == NULL || x.dir_fd < 0)
		rc = warm_error_nomem(err, 0);
	else if ((rc = extract(&x, path, err)) != 0)
		warm_error_context(err, "%s", path);
	archive_read_free(x.archive);
	if (x.dir_fd >= 0)
		close(x.dir_fd);
	if (rc == 0 && cli->options->mount == NULL)
		warm_log(WARM_LOG_WARN, "mount",
			 "without --mount PATH, Triton's entries are skipped by every restore: "
			 "they hold "
			 "the path of the volume");
	if (rc == 0)
		rc = cli_publish_dir(cli, dir, path, err);
	cli_temp_remove(dir);
	return rc;
}

const struct cli_command cli_import = {
	.name = "import",
	.argument = "ARCHIVE",
	.summary = "publish what an archive of a cache holds",
	.needs_key = true,
	.run = import,
};
