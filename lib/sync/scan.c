/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/sync/scan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum { CHUNK_BYTES = 256 << 10, MAX_DEPTH = 64 };

struct warm_scan_chunk {
	struct warm_scan_chunk *next;
	size_t used, capacity;
	char data[];
};

/* What a scan keeps of each file until the groups are known. */
struct found {
	const char *group;
	uint32_t file;
	uint16_t profile;
	uint16_t flags;
	uint64_t bound;
};

struct scanner {
	struct warm_scan *scan;
	const struct warm_profile_roots *roots;
	uint64_t max_file_bytes;
	warm_scan_dir_fn dir_fn;
	void *dir_arg;
	const struct warm_call *call;
	struct found *found;
	size_t found_capacity;
	const char **holes; /* groups */
	size_t n_holes, holes_capacity;
	bool twins_hidden;
	struct warm_place place;
	char path[WARM_PATH_BYTES];
};

void warm_scan_release(struct warm_scan *scan)
{
	for (struct warm_scan_chunk *c = scan->chunks; c != NULL;) {
		struct warm_scan_chunk *next = c->next;
		free(c);
		c = next;
	}
	free(scan->files);
	free(scan->groups);
	*scan = (struct warm_scan){ 0 };
}

static const char *keep_string(struct warm_scan *scan, const char *text, size_t n)
{
	struct warm_scan_chunk *c = scan->chunks;

	if (c == NULL || c->capacity - c->used < n + 1) {
		size_t capacity = n + 1 > CHUNK_BYTES ? n + 1 : CHUNK_BYTES;
		c = malloc(sizeof(*c) + capacity);
		if (c == NULL)
			return NULL;
		*c = (struct warm_scan_chunk){ scan->chunks, 0, capacity };
		scan->chunks = c;
	}
	char *kept = c->data + c->used;
	memcpy(kept, text, n);
	kept[n] = '\0';
	c->used += n + 1;
	return kept;
}

static void skip(struct scanner *s, size_t *counter)
{
	(*counter)++;
	if (s->scan->first_skipped[0] == '\0')
		warm_path_printable(s->path, s->scan->first_skipped,
				    sizeof(s->scan->first_skipped));
}

/* The group of `s->path` lacks something that is there: it must not be published without.
 * `may_hide`: it is, or leads to, a directory that could hold more. */
static int add_hole(struct scanner *s, bool may_hide, struct warm_error *err)
{
	if (s->n_holes == s->holes_capacity) {
		size_t capacity = s->holes_capacity == 0 ? 16 : 2 * s->holes_capacity;
		void *holes = realloc((void *)s->holes, capacity * sizeof(*s->holes));
		if (holes == NULL)
			return warm_error_nomem(err, capacity * sizeof(*s->holes));
		s->holes = holes;
		s->holes_capacity = capacity;
	}
	warm_profile_place(s->roots, s->path, &s->place);
	/* Above all groups: it may hide parts of any that has several directories. */
	if (!s->place.packed) {
		if (may_hide && s->place.profile == WARM_PROFILE_FLASHINFER)
			s->twins_hidden = true;
		return 0;
	}
	const char *group = keep_string(s->scan, s->place.group, strlen(s->place.group));
	if (group == NULL)
		return warm_error_nomem(err, strlen(s->place.group));
	s->holes[s->n_holes++] = group;
	return 0;
}

static int add_file(struct scanner *s, size_t path_bytes, const struct stat *st,
		    struct warm_error *err)
{
	struct warm_scan *scan = s->scan;

	warm_profile_place(s->roots, s->path, &s->place);
	if (!s->place.packed)
		return 0;
	if ((uint64_t)st->st_size > s->max_file_bytes) {
		skip(s, &scan->skipped_large);
		return add_hole(s, false, err);
	}
	if (scan->n_files == scan->files_capacity) {
		size_t capacity = scan->files_capacity == 0 ? 1024 : 2 * scan->files_capacity;
		void *files = realloc(scan->files, capacity * sizeof(*scan->files));
		if (files == NULL)
			return warm_error_nomem(err, capacity * sizeof(*scan->files));
		scan->files = files;
		void *found = realloc(s->found, capacity * sizeof(*s->found));
		if (found == NULL)
			return warm_error_nomem(err, capacity * sizeof(*s->found));
		s->found = found;
		scan->files_capacity = capacity;
	}
	const char *path = keep_string(scan, s->path, path_bytes);
	const char *group = path;
	if (path == NULL)
		return warm_error_nomem(err, path_bytes);
	if (strcmp(s->place.group, path) != 0) {
		/* Neighbours mostly share a group: keep its name once. */
		const char *last = scan->n_files > 0 ? s->found[scan->n_files - 1].group : "";
		group = strcmp(s->place.group, last) == 0
				? last
				: keep_string(scan, s->place.group, strlen(s->place.group));
		if (group == NULL)
			return warm_error_nomem(err, path_bytes);
	}
	scan->files[scan->n_files] = (struct warm_scan_file){
		.path = path,
		.seen = warm_seen_of(st),
		.atime_ns = warm_timespec_ns(st->st_atim),
	};
	s->found[scan->n_files] = (struct found){ group, (uint32_t)scan->n_files,
						  (uint16_t)s->place.profile,
						  (uint16_t)s->place.flags, s->place.bound };
	scan->n_files++;
	return 0;
}

static int scan_dir(struct scanner *s, int fd, size_t at, int depth, struct warm_error *err)
{
	struct warm_scan *scan = s->scan;
	scope_closedir DIR *dir = fdopendir(fd);

	if (dir == NULL) {
		close(fd);
		return warm_error_errno(err, errno, "read directory");
	}
	s->path[at > 0 ? at - 1 : 0] = '\0';
	if (s->dir_fn != NULL)
		s->dir_fn(s->dir_arg, s->path);
	int rc = warm_call_check(s->call, err);
	struct dirent *e;
	while (rc == 0 && (errno = 0, e = readdir(dir)) != NULL) {
		const char *name = e->d_name;
		size_t n = strlen(name);
		struct stat st;
		if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
			continue;
		if (at > 0)
			s->path[at - 1] = '/';
		if (at + n + 4 > sizeof(s->path)) {
			memcpy(s->path + at, "x", 2);
			skip(s, &scan->skipped_large);
			rc = add_hole(s, true, err);
			continue;
		}
		memcpy(s->path + at, name, n + 1);
		if (e->d_type == DT_REG && warm_profile_skips_file(name))
			continue;
		if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
			if (errno == ENOENT)
				continue; /* gone meanwhile */
			if (errno != EACCES && errno != EPERM)
				return warm_error_errno(err, errno, "stat %s", s->path);
			skip(s, &scan->skipped_unreadable);
			rc = add_hole(s, true, err);
			continue;
		}
		if (S_ISREG(st.st_mode)) {
			rc = add_file(s, at + n, &st, err);
		} else if (S_ISDIR(st.st_mode)) {
			if (warm_profile_skips_dir(name))
				continue;
			if (depth >= MAX_DEPTH) {
				memcpy(s->path + at + n, "/x", 3);
				skip(s, &scan->skipped_large);
				rc = add_hole(s, true, err);
				continue;
			}
			int sub = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			if (sub < 0) {
				if (errno == ENOENT)
					continue;
				if (errno != EACCES && errno != EPERM)
					return warm_error_errno(err, errno, "open %s", s->path);
				skip(s, &scan->skipped_unreadable);
				/* Whatever it holds would have gone here. */
				memcpy(s->path + at + n, "/x", 3);
				rc = add_hole(s, true, err);
				continue;
			}
			rc = scan_dir(s, sub, at + n + 1, depth + 1, err);
		} else {
			/* A link or a device is never packed; a group that holds one is not whole
			 * without it. */
			skip(s, &scan->skipped_kinds);
			rc = add_hole(s,
				      strcmp(name, "cached_ops") == 0 ||
					      strcmp(name, "generated") == 0,
				      err);
		}
	}
	if (rc == 0 && errno != 0)
		rc = warm_error_errno(err, errno, "read directory");
	return rc;
}

static int compare_found(const void *a_p, const void *b_p, void *arg)
{
	const struct found *a = a_p, *b = b_p;
	const struct warm_scan *scan = arg;
	int c = a->group == b->group ? 0 : strcmp(a->group, b->group);

	return c != 0 ? c : strcmp(scan->files[a->file].path, scan->files[b->file].path);
}

static int compare_groups(const void *a, const void *b)
{
	return strcmp(((const struct warm_scan_group *)a)->name,
		      ((const struct warm_scan_group *)b)->name);
}

static int build_groups(struct scanner *s, struct warm_error *err)
{
	struct warm_scan *scan = s->scan;
	size_t n = scan->n_files;

	if (n > 1 && s->found != NULL)
		qsort_r(s->found, n, sizeof(*s->found), compare_found, scan);
	struct warm_scan_file *files = calloc(n + 1, sizeof(*files));
	if (files == NULL)
		return warm_error_nomem(err, n * sizeof(*files));
	size_t n_groups = 0;
	for (size_t i = 0; i < n; i++) {
		files[i] = scan->files[s->found[i].file];
		if (i == 0 || strcmp(s->found[i].group, s->found[i - 1].group) != 0)
			n_groups++;
	}
	free(scan->files);
	scan->files = files;
	scan->files_capacity = n + 1;
	scan->groups = calloc(n_groups + 1, sizeof(*scan->groups));
	if (scan->groups == NULL)
		return warm_error_nomem(err, n_groups * sizeof(*scan->groups));
	struct warm_scan_group *g = NULL;
	for (size_t i = 0; i < n; i++) {
		const struct found *f = &s->found[i];
		if (g == NULL || strcmp(f->group, g->name) != 0) {
			g = &scan->groups[scan->n_groups++];
			*g = (struct warm_scan_group){
				.name = f->group,
				.profile = (enum warm_profile)f->profile,
				.bound = f->bound,
				.first_file = (uint32_t)i,
				.changed_ns = INT64_MIN,
			};
		}
		g->n_files++;
		g->flags |= f->flags & ~(unsigned)WARM_PLACE_COMPANION;
		g->bytes += files[i].seen.size;
		files[i].companion = (f->flags & WARM_PLACE_COMPANION) != 0;
		if (!files[i].companion && files[i].seen.ctime_ns > g->changed_ns)
			g->changed_ns = files[i].seen.ctime_ns;
		scan->bytes += files[i].seen.size;
	}
	for (size_t k = 0; k < scan->n_groups; k++)
		scan->groups[k].holes = s->twins_hidden &&
					scan->groups[k].profile == WARM_PROFILE_FLASHINFER;
	for (size_t i = 0; i < s->n_holes; i++) {
		struct warm_scan_group key = { .name = s->holes[i] };
		struct warm_scan_group *hit = scan->n_groups > 0
						      ? bsearch(&key, scan->groups, scan->n_groups,
								sizeof(key), compare_groups)
						      : NULL;
		if (hit != NULL)
			hit->holes = true;
	}
	return 0;
}

int warm_scan_run(int volume_fd, const struct warm_profile_roots *roots, uint64_t max_file_bytes,
		  warm_scan_dir_fn dir_fn, void *dir_arg, const struct warm_call *call,
		  struct warm_scan *ret_scan, struct warm_error *err)
{
	scope_scan struct warm_scan scan = { 0 };
	scope_free struct scanner *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return warm_error_nomem(err, sizeof(*s));
	s->scan = &scan;
	s->roots = roots;
	s->max_file_bytes = max_file_bytes;
	s->dir_fn = dir_fn;
	s->dir_arg = dir_arg;
	s->call = call;
	int fd = openat(volume_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return warm_error_errno(err, errno, "open the volume");
	int rc = scan_dir(s, fd, 0, 0, err);
	if (rc == 0)
		rc = build_groups(s, err);
	free(s->found);
	free((void *)s->holes);
	if (rc == 0) {
		*ret_scan = scan;
		scan = (struct warm_scan){ 0 };
	}
	return rc;
}
