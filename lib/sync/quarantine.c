/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/sync/quarantine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/file.h"
#include "lib/layer/index.h"

int warm_quarantine_load(struct warm_ledger *ledger, int volume_fd, struct warm_error *err)
{
	int rc = warm_ledger_load_from(ledger, volume_fd, WARM_QUARANTINE_LEDGER, err);

	return rc == WARM_NO_MEMORY ? rc : 0;
}

/* Move one unit, a file or a directory that is a group, below the quarantine. What is there from
 * an earlier time makes room. One that isn't there went with another file of its unit. */
static int move_unit(int volume_fd, const char *unit, struct warm_error *err)
{
	char to[WARM_PATH_BYTES + 32];
	scope_close int from_fd = -1, to_fd = -1;
	const char *from_name = NULL, *to_name = NULL;
	struct stat st;

	int rc = warm_beneath_parent(volume_fd, unit, &from_fd, &from_name, err);
	if (rc == WARM_NOT_FOUND ||
	    (rc == 0 && fstatat(from_fd, from_name, &st, AT_SYMLINK_NOFOLLOW) != 0 &&
	     errno == ENOENT))
		return 0;
	if (rc != 0)
		return rc;
	snprintf(to, sizeof(to), WARM_QUARANTINE_DIR "/files/%s", unit);
	char *slash = strrchr(to, '/');
	*slash = '\0';
	rc = warm_beneath_mkdirs(volume_fd, to, err);
	*slash = '/';
	if (rc == 0)
		rc = warm_beneath_parent(volume_fd, to, &to_fd, &to_name, err);
	if (rc == 0)
		rc = warm_file_move(from_fd, from_name, to_fd, to_name, err);
	if (rc != WARM_EXISTS)
		return rc;
	rc = warm_tree_remove(to_fd, to_name, err);
	return rc != 0 ? rc : warm_file_move(from_fd, from_name, to_fd, to_name, err);
}

/* The ledger is the model's to change: our own directory is no cache. */
static bool is_ours(const char *path)
{
	size_t n = strlen(WARM_DIR);

	return strncmp(path, WARM_DIR, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

static bool is_own(const struct warm_group *named, const char *path, size_t unit)
{
	return strncmp(path, named->name, unit) == 0;
}

/* Something of it is there and as the ledger has it; else the model has made it anew, or it went. */
static bool is_as_restored(int volume_fd, const struct warm_ledger_group *g)
{
	struct stat st;

	for (size_t i = 0; i < g->n_files; i++) {
		const struct warm_ledger_file *f = &g->files[i];
		scope_close int parent = -1;
		const char *name = NULL;
		if (warm_path_check(f->path, strlen(f->path), NULL) == 0 &&
		    warm_beneath_parent(volume_fd, f->path, &parent, &name, NULL) == 0 &&
		    fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
		    (uint64_t)st.st_size == f->size && warm_timespec_ns(st.st_mtim) == f->mtime_ns)
			return true;
	}
	return false;
}

/* The group's own path first, then its twins (FlashInfer's generated/): alone those mean nothing. */
static int move_group(int volume_fd, const struct warm_ledger_group *g, struct warm_error *err)
{
	struct warm_group named = { .name = g->name };
	char unit[WARM_PATH_BYTES];

	for (int own = 1; own >= 0; own--)
		for (size_t i = 0; i < g->n_files; i++) {
			const char *path = g->files[i].path;
			if (warm_path_check(path, strlen(path), NULL) != 0 || is_ours(path))
				continue;
			size_t n = warm_group_unit(g->name, path);
			if (is_own(&named, path, n) != (own == 1))
				continue;
			snprintf(unit, sizeof(unit), "%.*s", (int)n, path);
			int rc = move_unit(volume_fd, unit, err);
			if (rc != 0)
				return rc;
		}
	return 0;
}

int warm_quarantine_run(const char *volume, size_t *ret_groups, struct warm_error *err)
{
	scope_ledger struct warm_ledger ledger = { 0 }, held = { 0 };
	scope_close int fd = open(volume, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	size_t n = 0;

	if (fd < 0)
		return warm_error_errno(err, errno, "volume %s", volume);
	int rc = warm_ledger_load(&ledger, fd, err);
	if (rc == WARM_NOT_FOUND) {
		*ret_groups = 0;
		return 0;
	}
	if (rc == 0)
		rc = warm_quarantine_load(&held, fd, err);
	for (size_t i = 0; rc == 0 && i < ledger.n_groups; i++)
		if ((ledger.groups[i].flags & WARM_LEDGER_RESTORED) != 0 &&
		    is_as_restored(fd, &ledger.groups[i]))
			rc = warm_ledger_put(&held, &ledger.groups[i], err);
	scope_free bool *gone = calloc(ledger.n_groups + 1, sizeof(*gone));
	if (rc == 0 && gone == NULL)
		rc = warm_error_nomem(err, ledger.n_groups);
	/* First what a later restore has to know: then nothing comes back, wherever this ends. */
	if (rc == 0)
		rc = warm_beneath_mkdirs(fd, WARM_QUARANTINE_DIR, err);
	if (rc == 0)
		rc = warm_ledger_save_to(&held, fd, WARM_QUARANTINE_LEDGER, err);
	if (rc != 0) {
		warm_error_context(err, "volume %s", volume);
		return rc;
	}
	for (size_t i = 0; i < ledger.n_groups; i++) {
		struct warm_error one = { 0 };
		if ((ledger.groups[i].flags & WARM_LEDGER_RESTORED) == 0 ||
		    !is_as_restored(fd, &ledger.groups[i]))
			continue;
		int moved = move_group(fd, &ledger.groups[i], &one);
		gone[i] = moved == 0;
		n += moved == 0;
		warm_error_keep_first(&rc, err, moved, &one);
	}
	warm_ledger_drop(&ledger, gone);
	struct warm_error save_err = { 0 };
	warm_error_keep_first(&rc, err, warm_ledger_save(&ledger, fd, &save_err), &save_err);
	*ret_groups = n;
	if (rc != 0)
		warm_error_context(err, "volume %s", volume);
	return rc;
}
