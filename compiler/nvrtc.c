/* SPDX-License-Identifier: Apache-2.0 */
#include "compiler/nvrtc.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <link.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/hash.h"

enum { MAX_SECTIONS = 4096, NOTE_BYTES = 4096, LIBRARY_BYTES = 1 << 30, CACHE_BYTES = 64 << 20 };

#define DROPIN_SECTION ".note.warmcache"

enum { FIRST_MAJOR = 12, LAST_MAJOR = 13 };

/* ---- identity ---- */

static int read_build_id(int fd, const Elf64_Shdr *s, char ret_identity[72])
{
	uint8_t note[NOTE_BYTES];

	if (s->sh_size > sizeof(note) || s->sh_size < 16 ||
	    warm_file_read_at(fd, note, (size_t)s->sh_size, s->sh_offset, NULL) != 0)
		return WARM_NOT_FOUND;
	struct warm_reader r = warm_reader_of(note, (size_t)s->sh_size);
	uint32_t name_bytes = warm_reader_u32(&r), bytes = warm_reader_u32(&r);
	uint32_t type = warm_reader_u32(&r);
	warm_reader_take(&r, (name_bytes + 3) & ~3u);
	const uint8_t *id = warm_reader_take(&r, bytes);
	if (type != NT_GNU_BUILD_ID || id == NULL || bytes < 4 || bytes > 32)
		return WARM_NOT_FOUND;
	ret_identity[0] = 'b';
	ret_identity[1] = ':';
	warm_hex(id, bytes, ret_identity + 2);
	return 0;
}

/* NOT_FOUND: it has none; EXISTS: it is our drop-in, which is no NVRTC; CORRUPT: no library. */
static int find_build_id(int fd, uint64_t size, char ret_identity[72])
{
	Elf64_Ehdr head;
	Elf64_Shdr names;

	if (warm_file_read_at(fd, &head, sizeof(head), 0, NULL) != 0 ||
	    memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_ident[EI_CLASS] != ELFCLASS64)
		return WARM_CORRUPT;
	if (head.e_shoff == 0 || head.e_shoff > size || head.e_shentsize != sizeof(names) ||
	    head.e_shnum == 0 || head.e_shnum > MAX_SECTIONS || head.e_shstrndx >= head.e_shnum)
		return WARM_NOT_FOUND;
	if (warm_file_read_at(fd, &names, sizeof(names),
			      head.e_shoff + head.e_shstrndx * sizeof(names), NULL) != 0)
		return WARM_NOT_FOUND;
	int rc = WARM_NOT_FOUND;
	for (unsigned i = 0; i < head.e_shnum; i++) {
		Elf64_Shdr s;
		char name[20] = { 0 };
		if (warm_file_read_at(fd, &s, sizeof(s), head.e_shoff + i * sizeof(s), NULL) != 0)
			return WARM_NOT_FOUND;
		if (s.sh_type != SHT_NOTE ||
		    warm_file_read_at(fd, name, 19, names.sh_offset + s.sh_name, NULL) != 0)
			continue;
		if (strncmp(name, DROPIN_SECTION, strlen(DROPIN_SECTION)) == 0)
			return WARM_EXISTS;
		if (strcmp(name, ".note.gnu.build-id") == 0)
			rc = read_build_id(fd, &s, ret_identity);
	}
	return rc;
}

int warm_elf_identity(const char *path, char ret_identity[72], struct warm_error *err)
{
	struct stat st;

	scope_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) != 0)
		return warm_error_errno(err, errno, "%s", path);
	int rc = find_build_id(fd, (uint64_t)st.st_size, ret_identity);
	if (rc == WARM_CORRUPT)
		return warm_error_set(err, WARM_CORRUPT, "%s is no library", path);
	if (rc == WARM_EXISTS)
		return warm_error_set(err, WARM_EXISTS,
				      "%s is warmcache's drop-in, where NVRTC itself is needed",
				      path);
	if (rc == 0)
		return 0;
	scope_free char *data = NULL;
	size_t bytes = 0;
	rc = warm_file_load(AT_FDCWD, path, LIBRARY_BYTES, &data, &bytes, err);
	if (rc != 0)
		return rc;
	ret_identity[0] = 'h';
	ret_identity[1] = ':';
	warm_hash128_hex(warm_hash128(data, bytes), ret_identity + 2);
	return 0;
}

/* ---- builtins ---- */

/* Beside the library: libnvrtc-builtins.so.<major>.<minor>. Where there are several, the one of
 * the library's own version (its real name ends in major.minor.patch). */
static int find_builtins(struct warm_nvrtc *n, struct warm_error *err)
{
	char pattern[WARM_PATH_BYTES + 40], real[PATH_MAX], first[PATH_MAX] = "";
	const char *slash = strrchr(n->library, '/');
	const char *version = strstr(slash, ".so.");
	size_t different = 0;
	bool matched = false;
	glob_t g;

	snprintf(pattern, sizeof(pattern), "%.*s/libnvrtc-builtins.so.[0-9]*",
		 (int)(slash - n->library), n->library);
	version = version != NULL ? version + 4 : "";
	if (glob(pattern, 0, NULL, &g) != 0)
		return warm_error_set(err, WARM_NOT_FOUND, "libnvrtc-builtins is missing beside %s",
				      n->library);
	for (size_t i = 0; i < g.gl_pathc; i++) {
		if (realpath(g.gl_pathv[i], real) == NULL || strstr(real, ".alt.") != NULL)
			continue;
		const char *own = strstr(strrchr(real, '/'), ".so.");
		size_t k = own != NULL ? strlen(own + 4) : 0;
		/* 13.0.88 beside 13.0.88, and 13.0 beside 13.0.88 */
		bool match = k > 2 && strlen(version) >= k && memcmp(own + 4, version, k) == 0;
		if (strcmp(real, first) != 0)
			different++;
		if (first[0] == '\0' || (match && !matched))
			snprintf(first, sizeof(first), "%s", real);
		matched = matched || match;
	}
	globfree(&g);
	if (first[0] == '\0')
		return warm_error_set(err, WARM_NOT_FOUND, "libnvrtc-builtins is missing beside %s",
				      n->library);
	if (different > 1 && !matched)
		return warm_error_set(
			err, WARM_NOT_FOUND,
			"several versions of libnvrtc-builtins beside %s, none of them "
			"known to be its own",
			n->library);
	snprintf(n->builtins, sizeof(n->builtins), "%s", first);
	return 0;
}

bool warm_nvrtc_unchanged(const struct warm_nvrtc *n)
{
	const char *const paths[2] = { n->library, n->builtins };
	struct stat st;

	for (int i = 0; i < 2; i++)
		if (stat(paths[i], &st) != 0 || st.st_dev != n->seen[i].st_dev ||
		    st.st_ino != n->seen[i].st_ino || st.st_size != n->seen[i].st_size ||
		    warm_timespec_ns(st.st_mtim) != warm_timespec_ns(n->seen[i].st_mtim) ||
		    warm_timespec_ns(st.st_ctim) != warm_timespec_ns(n->seen[i].st_ctim))
			return false;
	return true;
}

/* ---- search ---- */

struct search {
	struct warm_nvrtc *found;
	int major;	  /* 0: any */
	bool alone;	  /* without looking for its builtins */
	bool named;	  /* the path was given */
	bool other_major; /* it was met */
	struct warm_buf tried;
	struct warm_error last; /* why a candidate was refused */
	bool done;
};

/* libnvrtc.so.13, libnvrtc-builtins.so.13.5 */
static int major_of(const char *path)
{
	const char *version = strstr(strrchr(path, '/'), ".so.");

	return version != NULL ? atoi(version + 4) : 0;
}

static void try_path(struct search *s, const char *path)
{
	char real[PATH_MAX], one[72], other[72];
	struct warm_nvrtc n = { 0 };

	if (s->done || realpath(path, real) == NULL)
		return;
	snprintf(n.library, sizeof(n.library), "%s", real);
	if (s->alone) {
		s->done = warm_elf_identity(n.library, one, NULL) == 0 &&
			  (s->major == 0 || major_of(n.library) == s->major);
		if (s->done)
			*s->found = n;
		return;
	}
	struct warm_error err = { 0 };
	/* Before the identity is read: what is replaced meanwhile is known by this. */
	bool seen = stat(n.library, &n.seen[0]) == 0;
	if (warm_elf_identity(n.library, one, &err) != 0 || find_builtins(&n, &err) != 0 ||
	    stat(n.builtins, &n.seen[1]) != 0 || warm_elf_identity(n.builtins, other, &err) != 0) {
		/* That it meets itself tells nobody anything, unless it was asked for. */
		if (s->named || err.status != WARM_EXISTS)
			s->last = err;
		if (err.status == WARM_EXISTS && s->named)
			s->last.status = WARM_CORRUPT;
		return;
	}
	if (s->major != 0 && major_of(n.builtins) != s->major) {
		(void)warm_error_set(&s->last, WARM_NOT_FOUND, "%s is no NVRTC %d", path, s->major);
		s->other_major = true;
		return;
	}
	if (!seen || !warm_nvrtc_unchanged(&n))
		return;
	snprintf(n.identity, sizeof(n.identity), "%s %s", one, other);
	*s->found = n;
	s->done = true;
}

/* The newest first. */
static void try_dir(struct search *s, const char *dir)
{
	char path[2 * WARM_PATH_BYTES];

	if (s->done || dir[0] == '\0')
		return;
	warm_buf_printf(&s->tried, "%s%s", s->tried.bytes > 0 ? ", " : "", dir);
	for (int major = LAST_MAJOR; major >= FIRST_MAJOR; major--) {
		if (s->major != 0 && s->major != major)
			continue;
		snprintf(path, sizeof(path), "%.4090s/libnvrtc.so.%d", dir, major);
		try_path(s, path);
	}
}

/* Directories between colons; `origin` is put for $ORIGIN. */
static void try_list(struct search *s, const char *list, const char *origin)
{
	static const char *const words[] = { "$ORIGIN", "${ORIGIN}" };

	for (const char *p = list; p != NULL && *p != '\0';) {
		char dir[2 * WARM_PATH_BYTES];
		size_t n = strcspn(p, ":"), skip = 0;
		for (size_t i = 0; i < 2 && origin != NULL && skip == 0; i++)
			if (strncmp(p, words[i], strlen(words[i])) == 0)
				skip = strlen(words[i]);
		if (n > skip && n < WARM_PATH_BYTES) {
			snprintf(dir, sizeof(dir), "%.4000s%.*s", skip > 0 ? origin : "",
				 (int)(n - skip), p + skip);
			try_dir(s, dir);
		} else if (skip > 0) {
			try_dir(s, origin);
		}
		p += n + (p[n] == ':');
	}
}

static void try_wheels(struct search *s, const char *site)
{
	static const char *const places[] = { "nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib" };
	char dir[WARM_PATH_BYTES + 32];

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		snprintf(dir, sizeof(dir), "%s/%s", site, places[i]);
		try_dir(s, dir);
	}
}

/* Where the loader would look for the NVRTC that a loaded object needs. */
static void try_run_path(struct search *s, const struct dl_phdr_info *info, const char *path,
			 const char *slash)
{
	const ElfW(Dyn) *dynamic = NULL;
	const char *strings = NULL;
	size_t lists[2] = { 0, 0 };
	bool needs = false;

	for (int i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
			dynamic = (const ElfW(Dyn) *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
	for (const ElfW(Dyn) *d = dynamic; d != NULL && d->d_tag != DT_NULL; d++)
		if (d->d_tag == DT_STRTAB)
			strings = (const char *)d->d_un.d_ptr;
	/* The loader has made it an address, except in objects that it can't write to. */
	if (strings == NULL || (uintptr_t)strings < info->dlpi_addr)
		return;
	for (const ElfW(Dyn) *d = dynamic; d->d_tag != DT_NULL; d++) {
		if (d->d_tag == DT_NEEDED)
			needs = needs || strncmp(strings + d->d_un.d_val, "libnvrtc.so.", 12) == 0;
		else if (d->d_tag == DT_RUNPATH || d->d_tag == DT_RPATH)
			lists[d->d_tag == DT_RPATH] = (size_t)d->d_un.d_val;
	}
	char origin[WARM_PATH_BYTES];
	snprintf(origin, sizeof(origin), "%.*s", (int)(slash - path), path);
	for (size_t i = 0; needs && i < 2; i++)
		if (lists[i] != 0)
			try_list(s, strings + lists[i], origin);
}

static int try_object(struct dl_phdr_info *info, size_t size, void *arg)
{
	/* Of 14 letters before the last slash; the second is Debian's. */
	static const char *const packages[] = { "/site-packages/", "/dist-packages/" };
	struct search *s = arg;
	char site[WARM_PATH_BYTES], soname[24];
	char exe[WARM_PATH_BYTES];
	const char *path = info->dlpi_name;

	(void)size;
	/* The program itself has no name here. */
	if (path[0] == '\0') {
		ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
		exe[n > 0 ? n : 0] = '\0';
		path = exe;
	}
	const char *slash = strrchr(path, '/');
	if (slash == NULL)
		return 0;
	for (int major = LAST_MAJOR; major >= FIRST_MAJOR; major--) {
		snprintf(soname, sizeof(soname), "libnvrtc.so.%d", major);
		if ((s->major == 0 || s->major == major) &&
		    strncmp(slash + 1, soname, strlen(soname)) == 0)
			try_path(s, path);
	}
	try_run_path(s, info, path, slash);
	for (size_t i = 0; i < sizeof(packages) / sizeof(packages[0]); i++) {
		const char *at = strstr(path, packages[i]);
		if (at == NULL)
			continue;
		snprintf(site, sizeof(site), "%.*s", (int)(at - path + 14), path);
		try_wheels(s, site);
	}
	return s->done;
}

static void try_environment(struct search *s, const char *variable)
{
	char pattern[WARM_PATH_BYTES];
	const char *prefix = getenv(variable);
	glob_t g;

	if (prefix == NULL || prefix[0] == '\0')
		return;
	snprintf(pattern, sizeof(pattern), "%.3900s/lib/python3*/site-packages", prefix);
	if (glob(pattern, 0, NULL, &g) == 0) {
		for (size_t i = 0; i < g.gl_pathc; i++)
			try_wheels(s, g.gl_pathv[i]);
		globfree(&g);
	}
	snprintf(pattern, sizeof(pattern), "%.3900s/lib", prefix);
	try_dir(s, pattern);
}

/* What ldconfig has found, from glibc's ld.so.cache: a header, entries of 24 bytes whose words 1
 * and 2 are the offsets of name and path, strings. */
static void try_loader_cache(struct search *s)
{
	static const char magic[] = "glibc-ld.so.cache1.1";
	enum { HEAD = 48, ENTRY = 24 };
	scope_free char *data = NULL;
	size_t bytes = 0;
	uint32_t n, words[3];

	if (warm_file_load(AT_FDCWD, "/etc/ld.so.cache", CACHE_BYTES, &data, &bytes, NULL) != 0 ||
	    bytes < HEAD || memcmp(data, magic, strlen(magic)) != 0)
		return;
	memcpy(&n, data + strlen(magic), sizeof(n));
	for (size_t i = 0; i < n && HEAD + (i + 1) * ENTRY <= bytes; i++) {
		memcpy(words, data + HEAD + i * ENTRY, sizeof(words));
		if (words[1] >= bytes || words[2] >= bytes)
			return;
		for (int major = LAST_MAJOR; major >= FIRST_MAJOR; major--) {
			char soname[24];
			snprintf(soname, sizeof(soname), "libnvrtc.so.%d", major);
			/* The data end in a NUL. */
			if ((s->major == 0 || s->major == major) &&
			    strcmp(data + words[1], soname) == 0)
				try_path(s, data + words[2]);
		}
	}
}

static int find(const char *library, struct search *s, struct warm_error *err)
{
	static const char *const places[] = {
		"/usr/local/cuda/lib64",
#if defined(__aarch64__)
		"/usr/local/cuda/targets/sbsa-linux/lib",
		"/usr/lib/aarch64-linux-gnu",
#else
		"/usr/local/cuda/targets/x86_64-linux/lib",
		"/usr/lib/x86_64-linux-gnu",
#endif
		"/usr/lib64",
		"/usr/lib"
	};
	bool given = library != NULL && library[0] != '\0';

	if (!given)
		library = secure_getenv("WARM_NVRTC_LIBRARY");
	if (library != NULL && library[0] != '\0') {
		if (access(library, F_OK) != 0)
			(void)warm_error_errno(&s->last, errno, "%s", library);
		s->named = true;
		try_path(s, library);
		s->named = false;
		if (!s->done && given)
			warm_error_context(&s->last, "NVRTC");
		else if (!s->done)
			warm_error_context(&s->last, "WARM_NVRTC_LIBRARY");
		if (!s->done && !s->other_major && err != NULL)
			*err = s->last;
		/* Of two drop-ins the variable names only one's. */
		if (s->done || !s->other_major)
			return s->done			   ? 0
			       : s->last.status != WARM_OK ? (int)s->last.status
							   : WARM_NOT_FOUND;
	}
	dl_iterate_phdr(try_object, s);
	try_list(s, getenv("LD_LIBRARY_PATH"), NULL);
	try_loader_cache(s);
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		try_dir(s, places[i]);
	try_environment(s, "VIRTUAL_ENV");
	try_environment(s, "CONDA_PREFIX");
	if (!s->done) {
		if (s->last.status != WARM_OK)
			(void)warm_error_set(err, WARM_NOT_FOUND, "%s", s->last.msg);
		else
			(void)warm_error_set(err, WARM_NOT_FOUND,
					     "no libnvrtc.so.%s; set WARM_NVRTC_LIBRARY "
					     "(looked in %.140s)",
					     s->major == 0	      ? "13 or .12"
					     : s->major == LAST_MAJOR ? "13"
								      : "12",
					     s->tried.data != NULL ? (char *)s->tried.data : "");
	}
	warm_buf_release(&s->tried);
	return s->done ? 0 : WARM_NOT_FOUND;
}

int warm_nvrtc_find(const char *library, int major, struct warm_nvrtc *ret_nvrtc,
		    struct warm_error *err)
{
	struct search s = { .found = ret_nvrtc, .major = major };

	return find(library, &s, err);
}

int warm_nvrtc_find_alone(int major, struct warm_nvrtc *ret_nvrtc)
{
	struct search s = { .found = ret_nvrtc, .major = major, .alone = true };

	return find(NULL, &s, NULL);
}
