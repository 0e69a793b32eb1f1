/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/layer/profile.h"

#include <ctype.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/hash.h"
#include "lib/layer/index.h"

static const struct {
	const char *name;
	const char *root; /* the usual directory below the volume */
} profiles[WARM_PROFILES] = {
	[WARM_PROFILE_FILE] = { "file", NULL },
	[WARM_PROFILE_TRITON] = { "triton", "triton" },
	[WARM_PROFILE_INDUCTOR] = { "inductor", "inductor" },
	[WARM_PROFILE_VLLM] = { "vllm", "vllm" },
	[WARM_PROFILE_JAX] = { "jax", "jax" },
	[WARM_PROFILE_FLASHINFER] = { "flashinfer", "flashinfer" },
	[WARM_PROFILE_DEEPGEMM] = { "deepgemm", "deepgemm" },
	[WARM_PROFILE_TILELANG] = { "tilelang", "tilelang" },
	[WARM_PROFILE_NVRTC] = { "nvrtc", "nvrtc" },
};

#define IN(p) (1u << WARM_PROFILE_##p)
#define IN_TORCH (IN(INDUCTOR) | IN(VLLM))
#define SELF WARM_GROUP_SELF_KEYED
#define MUTABLE WARM_GROUP_MUTABLE
#define MOUNT WARM_GROUP_MOUNT_BOUND
#define RENAMED WARM_PLACE_RENAMED
#define CPU WARM_GROUP_CPU_BOUND
#define COMPANION WARM_PLACE_COMPANION
#define UNREAD WARM_PLACE_UNREAD

/* Patterns of components: "**" is any number of directories, "#" a Triton hash, "xx" any two
 * bytes, the rest is fnmatch's. One that ends in '/' makes the directory the group; else the file is the group.
 * `twin` and `of`: the group is named by the path with `twin` put in place of `of`.
 * The first row that matches wins. */
static const struct rule {
	unsigned roots; /* under which roots it holds */
	enum warm_profile profile;
	const char *pattern;
	unsigned flags;
	const char *of, *twin;
} rules[] = {
	{ IN(TRITON) | IN_TORCH, WARM_PROFILE_TRITON, "**/#/", SELF | MOUNT | RENAMED, NULL, NULL },

	{ IN(VLLM), WARM_PROFILE_VLLM, "torch_compile_cache/torch_aot_compile/*/rank_*/model",
	  SELF | RENAMED, NULL, NULL },
	{ IN(VLLM), WARM_PROFILE_VLLM, "torch_compile_cache/*/rank_*/**/vllm_compile_cache.py",
	  SELF | MUTABLE, NULL, NULL },
	{ IN(VLLM), WARM_PROFILE_VLLM, "torch_compile_cache/*/rank_*/**/cache_key_factors.json",
	  SELF, NULL, NULL },
	{ IN(VLLM), WARM_PROFILE_VLLM, "torch_compile_cache/*/rank_*/**/computation_graph.py", SELF,
	  NULL, NULL },
	{ IN(VLLM), WARM_PROFILE_VLLM, "torch_compile_cache/*/rank_*/**/transformed_code.py", SELF,
	  NULL, NULL },
	{ IN(VLLM), WARM_PROFILE_DEEPGEMM, "deep_gemm/cache/*/", SELF | RENAMED, NULL, NULL },

	{ IN_TORCH, WARM_PROFILE_INDUCTOR, "**/fxgraph/*/*/*", SELF | RENAMED, NULL, NULL },
	{ IN_TORCH, WARM_PROFILE_INDUCTOR, "**/aotautograd/*/*", SELF | RENAMED, NULL, NULL },
	{ IN_TORCH, WARM_PROFILE_INDUCTOR, "**/cache/????????????????????????????????*",
	  MUTABLE | RENAMED, NULL, NULL },
	{ IN_TORCH, WARM_PROFILE_INDUCTOR, "**/xx/*.best_config", MUTABLE | RENAMED, NULL, NULL },
	{ IN_TORCH, WARM_PROFILE_INDUCTOR, "**/xx/*.so", CPU, NULL, NULL },
	{ IN_TORCH, WARM_PROFILE_INDUCTOR, "**/xx/*.so.load_ok", CPU | UNREAD, NULL, NULL },
	{ IN_TORCH, WARM_PROFILE_INDUCTOR, "**/xx/*.o", CPU | UNREAD, NULL, NULL },
	{ IN_TORCH, WARM_PROFILE_INDUCTOR, "**/xx/*.py", SELF | RENAMED, NULL, NULL },
	{ IN_TORCH, WARM_PROFILE_INDUCTOR, "**/xx/*.cpp", SELF | RENAMED | UNREAD, NULL, NULL },
	{ IN_TORCH, WARM_PROFILE_INDUCTOR, "**/xx/*.cu", SELF | RENAMED | UNREAD, NULL, NULL },
	{ IN_TORCH, WARM_PROFILE_INDUCTOR, "**/xx/*.txt", SELF | RENAMED, NULL, NULL },
	{ IN_TORCH, WARM_PROFILE_INDUCTOR, "**/xx/*.kernel_perf", RENAMED, NULL, NULL },
	{ IN_TORCH, WARM_PROFILE_INDUCTOR, "**/xx/*.picked_kernel", RENAMED, NULL, NULL },

	/* After Inductor's own rules: what vLLM keeps beside them. */
	{ IN(VLLM), WARM_PROFILE_VLLM, "torch_compile_cache/*/rank_*/**/artifact_*", SELF | RENAMED,
	  NULL, NULL },

	{ IN(JAX), WARM_PROFILE_JAX, "**/*-cache", SELF, NULL, NULL },
	{ IN(JAX), WARM_PROFILE_JAX, "**/*-atime", SELF | COMPANION, "-atime", "-cache" },

	{ IN(FLASHINFER), WARM_PROFILE_FLASHINFER, "**/cached_ops/*/", 0, NULL, NULL },
	{ IN(FLASHINFER), WARM_PROFILE_FLASHINFER, "**/generated/*/", 0, "/generated/",
	  "/cached_ops/" },

	{ IN(DEEPGEMM), WARM_PROFILE_DEEPGEMM, "**/cache/*/", SELF | RENAMED, NULL, NULL },

	{ IN(TILELANG), WARM_PROFILE_TILELANG, "**/kernels/*/", SELF | RENAMED, NULL, NULL },
	{ IN(TILELANG), WARM_PROFILE_TILELANG, "**/cuda-binaries/*/", SELF | RENAMED, NULL, NULL },
	{ IN(TILELANG), WARM_PROFILE_TILELANG, "**/autotuner/*/", SELF | RENAMED, NULL, NULL },

	{ IN(NVRTC), WARM_PROFILE_NVRTC, "v1/xx/*", SELF | RENAMED, NULL, NULL },
	{ IN(NVRTC), WARM_PROFILE_NVRTC, "v1/xx/*.d/*", SELF | RENAMED, NULL, NULL },
};

enum {
	TRITON_KEY_BYTES = 52, /* BASE32 of a SHA-256 */
	JSON_BYTES = 2 << 20,  /* a parsed document takes sixteen times as much */
	TEXT_BYTES = 16 << 20,
};

const char *warm_profile_name(enum warm_profile profile)
{
	return profiles[profile].name;
}

enum warm_profile warm_profile_by_name(const char *name)
{
	for (int p = 0; p < WARM_PROFILES; p++)
		if (strcmp(profiles[p].name, name) == 0)
			return (enum warm_profile)p;
	return WARM_PROFILE_FILE;
}

int warm_profile_roots_add(struct warm_profile_roots *roots, const char *text,
			   struct warm_error *err)
{
	const char *equals = strchr(text, '=');
	char name[32];

	if (equals == NULL || (size_t)(equals - text) >= sizeof(name))
		return warm_error_set(err, WARM_INVALID, "'%.64s' is not NAME=DIR", text);
	memcpy(name, text, (size_t)(equals - text));
	name[equals - text] = '\0';
	enum warm_profile p = warm_profile_by_name(name);
	if (p == WARM_PROFILE_FILE)
		return warm_error_set(err, WARM_INVALID, "'%s' is no profile", name);
	if (warm_path_check(equals + 1, strlen(equals + 1), err) != 0) {
		warm_error_context(err, "directory of profile %s", name);
		return WARM_INVALID;
	}
	if (roots->n == WARM_PROFILE_ROOTS_MAX)
		return warm_error_set(err, WARM_INVALID, "more than %d profiles",
				      WARM_PROFILE_ROOTS_MAX);
	roots->extra[roots->n].profile = p;
	roots->extra[roots->n].dir = equals + 1;
	roots->n++;
	return 0;
}

const char *warm_profile_root(const struct warm_profile_roots *roots, size_t i)
{
	if (i < WARM_PROFILES - 1)
		return profiles[i + 1].root;
	i -= WARM_PROFILES - 1;
	return roots != NULL && i < roots->n ? roots->extra[i].dir : NULL;
}

static bool is_triton_key(const char *part, size_t n)
{
	if (n != TRITON_KEY_BYTES)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!(part[i] >= 'A' && part[i] <= 'Z') && !(part[i] >= '2' && part[i] <= '7'))
			return false;
	return true;
}

static bool matches_part(const char *want, const char *part, size_t n)
{
	if (strcmp(want, "#") == 0)
		return is_triton_key(part, n);
	if (strcmp(want, "xx") == 0)
		return n == 2;
	return fnmatch(want, part, 0) == 0;
}

/* Match `path` against `pattern`; the length of the part that names the group, or -1. */
static long match(const char *pattern, const char *path, const char *start)
{
	char want[64], part[256];

	if (pattern[0] == '\0')
		/* The pattern ended in '/': a directory, with something below it. */
		return path[0] != '\0' ? path - start - 1 : -1;
	if (strncmp(pattern, "**/", 3) == 0) {
		for (const char *at = path;;) {
			long n = match(pattern + 3, at, start);
			if (n >= 0)
				return n;
			at = strchr(at, '/');
			if (at == NULL)
				return -1;
			at++;
		}
	}
	size_t want_bytes = strcspn(pattern, "/"), bytes = strcspn(path, "/");
	bool more_wanted = pattern[want_bytes] == '/', more = path[bytes] == '/';
	if (more_wanted != more || bytes >= sizeof(part) || want_bytes >= sizeof(want))
		return -1;
	memcpy(want, pattern, want_bytes);
	want[want_bytes] = '\0';
	memcpy(part, path, bytes);
	part[bytes] = '\0';
	if (!matches_part(want, part, bytes))
		return -1;
	if (!more)
		return path - start + (long)bytes;
	return match(pattern + want_bytes + 1, path + bytes + 1, start);
}

static bool below(const char *dir, const char *path, const char **ret_rest)
{
	size_t n = strlen(dir);

	if (strncmp(path, dir, n) != 0 || path[n] != '/')
		return false;
	*ret_rest = path + n + 1;
	return true;
}

static enum warm_profile find_root(const struct warm_profile_roots *roots, const char *path,
				   const char **ret_rest)
{
	if (roots != NULL)
		for (size_t i = 0; i < roots->n; i++)
			if (below(roots->extra[i].dir, path, ret_rest))
				return roots->extra[i].profile;
	for (int p = 1; p < WARM_PROFILES; p++)
		if (below(profiles[p].root, path, ret_rest))
			return (enum warm_profile)p;
	return WARM_PROFILE_FILE;
}

/* The last `of` in the group's name becomes `twin`. */
static void rename_twin(char *group, size_t bytes, const char *of, const char *twin)
{
	char *found = NULL;

	for (char *p = group; (p = strstr(p, of)) != NULL; p++)
		found = p;
	if (found == NULL)
		return;
	char rest[WARM_PATH_BYTES + 24];
	snprintf(rest, sizeof(rest), "%s", found + strlen(of));
	snprintf(found, bytes - (size_t)(found - group), "%s%s", twin, rest);
}

bool warm_profile_skips_dir(const char *name)
{
	return strcmp(name, "tmp") == 0 || strncmp(name, "tmp.", 4) == 0 ||
	       strcmp(name, "locks") == 0 || strcmp(name, ".staging") == 0 ||
	       strcmp(name, ".warmcache") == 0;
}

bool warm_profile_skips_file(const char *name)
{
	return strncmp(name, "tmp.", 4) == 0 || strcmp(name, "lock") == 0 ||
	       strcmp(name, ".lockfile") == 0 || fnmatch("*.lock", name, 0) == 0 ||
	       fnmatch("*.tmp", name, 0) == 0 || fnmatch("*.tmp.[0-9]*", name, 0) == 0 ||
	       fnmatch("*.tmp-*", name, 0) == 0;
}

static bool skips(const char *path)
{
	char part[256];

	for (;;) {
		size_t n = strcspn(path, "/");
		if (n >= sizeof(part))
			return true;
		memcpy(part, path, n);
		part[n] = '\0';
		if (path[n] == '\0')
			return warm_profile_skips_file(part);
		if (warm_profile_skips_dir(part))
			return true;
		path += n + 1;
	}
}

void warm_profile_place(const struct warm_profile_roots *roots, const char *path,
			struct warm_place *ret_place)
{
	const char *rest = path;
	enum warm_profile root = find_root(roots, path, &rest);

	ret_place->profile = root;
	ret_place->packed = false;
	ret_place->flags = 0;
	ret_place->bound = 0;
	ret_place->group[0] = '\0';
	if (skips(path))
		return;
	if (root == WARM_PROFILE_FILE) {
		ret_place->packed = true;
		snprintf(ret_place->group, sizeof(ret_place->group), "%s", path);
		return;
	}
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		const struct rule *r = &rules[i];
		long n = (r->roots & 1u << root) != 0 ? match(r->pattern, rest, rest) : -1;
		if (n < 0)
			continue;
		ret_place->packed = true;
		ret_place->profile = r->profile;
		ret_place->flags = r->flags;
		snprintf(ret_place->group, sizeof(ret_place->group), "%.*s", (int)(rest - path + n),
			 path);
		if (r->of != NULL)
			rename_twin(ret_place->group, sizeof(ret_place->group), r->of, r->twin);
		if ((r->flags & CPU) != 0) {
			ret_place->bound = warm_cpu_hash();
			ret_place->packed = ret_place->bound != 0;
		}
		if ((r->flags & MOUNT) != 0)
			ret_place->bound = roots != NULL ? roots->mount_hash : warm_mount_hash("");
		if (ret_place->bound != 0) {
			size_t at = strlen(ret_place->group);
			snprintf(ret_place->group + at, sizeof(ret_place->group) - at, "@%016llx",
				 (unsigned long long)ret_place->bound);
		}
		return;
	}
}

static bool is_instruction_set(const char *flag)
{
	/* What gcc and clang switch on for -march=native; not what the kernel mitigates. */
	static const char *const prefixes[] = { "sse",	"ssse", "avx",	  "amx", "bmi", "aes",
						"vaes", "vpc",	"pclmul", "sha", "sm3", "sm4" };
	static const char *const names[] = { "fma",	"fma4",	      "f16c",	  "abm",
					     "popcnt",	"movbe",      "adx",	  "gfni",
					     "rdrand",	"rdseed",     "clwb",	  "xop",
					     "tbm",	"clflushopt", "fsgsbase", "xsave",
					     "xsavec",	"xsaves",     "xsaveopt", "serialize",
					     "movdiri", "movdir64b",  "cldemote", "waitpkg",
					     "lahf_lm", "rtm",	      "pku",	  "mwaitx",
					     "clzero",	"wbnoinvd",   "rdpid",	  "cx16" };

	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
		if (strncmp(flag, prefixes[i], strlen(prefixes[i])) == 0)
			return true;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(flag, names[i]) == 0)
			return true;
	return false;
}

static int compare_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

uint64_t warm_cpu_hash(void)
{
	static _Atomic uint64_t known;
	static atomic_bool asked;
	scope_free char *text = NULL;
	char *flags[512], *save = NULL;
	size_t bytes = 0, n = 0;
	uint64_t hash = known;

	if (hash != 0 || asked)
		return hash;
	scope_buf struct warm_buf list = WARM_BUF_INIT;
	if (warm_file_load(AT_FDCWD, "/proc/cpuinfo", 16 << 20, &text, &bytes, NULL) == 0) {
		/* x86: "flags : ..."; arm64: "Features : ...", all of which are instruction sets. */
		char *line = strstr(text, "\nflags");
		bool arm = line == NULL;
		if (arm)
			line = strstr(text, "\nFeatures");
		line = line != NULL ? strchr(line, ':') : NULL;
		if (line != NULL) {
			line[strcspn(line, "\n")] = '\0';
			for (char *f = strtok_r(line + 1, " ", &save); f != NULL && n < 512;
			     f = strtok_r(NULL, " ", &save))
				if (arm || is_instruction_set(f))
					flags[n++] = f;
			qsort(flags, n, sizeof(flags[0]), compare_text);
		}
	}
	for (size_t i = 0; i < n; i++)
		warm_buf_put_str(&list, flags[i]);
	if (n > 0 && !list.failed) {
		hash = warm_hash64(list.data, list.bytes);
		hash = hash != 0 ? hash : 1;
	}
	known = hash;
	asked = true;
	return hash;
}

uint64_t warm_mount_hash(const char *mount)
{
	uint64_t hash = warm_hash64(mount, strlen(mount));

	return hash != 0 ? hash : 1;
}

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n >= m && strcmp(text + n - m, end) == 0;
}

static bool is_elf_name(const char *path)
{
	return ends_with(path, ".so") || ends_with(path, ".cubin") || ends_with(path, ".o");
}

/* A linker that was killed leaves section headers that point past the file's end, or none. */
static bool elf_is_whole(int volume_fd, const char *path)
{
	scope_close int fd = -1;
	Elf64_Ehdr head;
	Elf64_Shdr section;
	struct stat st;

	if (warm_beneath_read(volume_fd, path, &fd, NULL) != 0 || fstat(fd, &st) != 0 ||
	    warm_file_read_at(fd, &head, sizeof(head), 0, NULL) != 0)
		return false;
	uint64_t size = (uint64_t)st.st_size;
	if (memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_ident[EI_CLASS] != ELFCLASS64)
		return false;
	if (head.e_shoff == 0 || head.e_shnum == 0 || head.e_shentsize != sizeof(section) ||
	    head.e_shoff > size || (size - head.e_shoff) / sizeof(section) < head.e_shnum)
		return false;
	for (unsigned i = 0; i < head.e_phnum; i++) {
		Elf64_Phdr segment;
		if (head.e_phentsize != sizeof(segment) ||
		    warm_file_read_at(fd, &segment, sizeof(segment),
				      head.e_phoff + i * sizeof(segment), NULL) != 0 ||
		    segment.p_offset > size || segment.p_filesz > size - segment.p_offset)
			return false;
	}
	for (unsigned i = 0; i < head.e_shnum; i++) {
		if (warm_file_read_at(fd, &section, sizeof(section),
				      head.e_shoff + i * sizeof(section), NULL) != 0)
			return false;
		if (section.sh_type != SHT_NOBITS && section.sh_type != SHT_NULL &&
		    (section.sh_offset > size || section.sh_size > size - section.sh_offset))
			return false;
	}
	return true;
}

static json_t *load_json(int volume_fd, const char *path)
{
	scope_free char *text = NULL;
	size_t bytes = 0;

	if (warm_beneath_load(volume_fd, path, JSON_BYTES, &text, &bytes, NULL) != 0)
		return NULL;
	return json_loadb(text, bytes, JSON_DECODE_ANY, NULL);
}

static bool has_file(const char *group, const char *name, const char *const *paths, size_t n)
{
	size_t m = strlen(group);

	for (size_t i = 0; i < n; i++)
		if (strncmp(paths[i], group, m) == 0 && paths[i][m] == '/' &&
		    strcmp(paths[i] + m + 1, name) == 0)
			return true;
	return false;
}

static enum warm_whole no(char *ret_why, size_t why_bytes, const char *fmt, ...) WARM_PRINTF(3, 4);

static enum warm_whole no(char *ret_why, size_t why_bytes, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(ret_why, why_bytes, fmt, ap);
	va_end(ap);
	return WARM_WHOLE_NO;
}

static enum warm_whole triton_is_whole(int volume_fd, const char *group, const char *const *paths,
				       size_t n, char *ret_why, size_t why_bytes)
{
	bool manifest = false;

	for (size_t i = 0; i < n; i++) {
		const char *name = warm_path_base(paths[i]);
		if (strncmp(name, "__grp__", 7) != 0)
			continue;
		manifest = true;
		json_t *root = load_json(volume_fd, paths[i]);
		json_t *children = json_object_get(root, "child_paths");
		const char *child, *missing = NULL;
		json_t *value;
		json_object_foreach(children, child, value)
			if (missing == NULL && !has_file(group, child, paths, n))
				missing = child;
		if (missing != NULL || !json_is_object(children)) {
			no(ret_why, why_bytes, "%s %s", name,
			   missing != NULL ? "names a file that is not there" : "does not parse");
			json_decref(root);
			return WARM_WHOLE_NO;
		}
		json_decref(root);
	}
	if (manifest)
		return WARM_WHOLE_YES;
	/* Without __grp__ a directory holds one file that was renamed into it. */
	const char *name = warm_path_base(paths[0]);
	if (n == 1 && (ends_with(name, ".so") || ends_with(name, ".autotune.json")))
		return WARM_WHOLE_YES;
	return no(ret_why, why_bytes, "no __grp__ file yet");
}

static enum warm_whole deepgemm_is_whole(const char *group, const char *const *paths, size_t n,
					 char *ret_why, size_t why_bytes)
{
	if (has_file(group, ".committed", paths, n) && has_file(group, "kernel.cubin", paths, n))
		return WARM_WHOLE_YES;
	if (has_file(group, "kernel.cu", paths, n) && has_file(group, "kernel.cubin", paths, n))
		return WARM_WHOLE_YES;
	return no(ret_why, why_bytes, "kernel.cu or kernel.cubin is missing");
}

static enum warm_whole tilelang_is_whole(int volume_fd, const char *group, const char *const *paths,
					 size_t n, char *ret_why, size_t why_bytes)
{
	if (!has_file(group, "manifest.json", paths, n))
		return WARM_WHOLE_UNKNOWN;
	char path[WARM_PATH_BYTES + 32];
	snprintf(path, sizeof(path), "%s/manifest.json", group);
	json_t *root = load_json(volume_fd, path);
	json_t *files = json_object_get(root, "files");
	const char *name;
	json_t *value;
	enum warm_whole whole = json_is_object(files) ? WARM_WHOLE_YES : WARM_WHOLE_NO;
	json_object_foreach(files, name, value) {
		struct stat st;
		char file[WARM_PATH_BYTES + 300];
		snprintf(file, sizeof(file), "%s/%s", group, name);
		if (!has_file(group, name, paths, n) ||
		    fstatat(volume_fd, file, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
		    st.st_size != json_integer_value(json_object_get(value, "size")))
			whole = WARM_WHOLE_NO;
	}
	json_decref(root);
	return whole == WARM_WHOLE_YES
		       ? whole
		       : no(ret_why, why_bytes, "manifest.json and the files differ");
}

/* A line is start, end, mtime, output and hash, with tabs between. */
static bool log_names(const char *log, const char *target)
{
	size_t n = strlen(target);

	for (const char *p = strstr(log, target); p != NULL; p = strstr(p + 1, target))
		if (p > log && (p[-1] == '\t' || p[-1] == '/') && p[n] == '\t')
			return true;
	return false;
}

/* FlashInfer: ninja writes a target's line into .ninja_log when its command has ended. */
static enum warm_whole flashinfer_is_whole(int volume_fd, const char *group,
					   const char *const *paths, size_t n, char *ret_why,
					   size_t why_bytes)
{
	char path[WARM_PATH_BYTES + 32], target[300];
	scope_free char *text = NULL;
	size_t bytes = 0;

	if (has_file(group, "meta.json", paths, n)) /* CuTe-DSL: its commit marker */
		return WARM_WHOLE_YES;
	snprintf(target, sizeof(target), "%.250s.so", warm_path_base(group));
	if (!has_file(group, target, paths, n))
		return no(ret_why, why_bytes, "%s is not linked yet", target);
	snprintf(path, sizeof(path), "%s/.ninja_log", group);
	if (!has_file(group, ".ninja_log", paths, n))
		return WARM_WHOLE_UNKNOWN;
	if (warm_beneath_load(volume_fd, path, JSON_BYTES, &text, &bytes, NULL) != 0)
		return WARM_WHOLE_UNKNOWN;
	if (!log_names(text, target))
		return no(ret_why, why_bytes, ".ninja_log doesn't name %s yet", target);
	return WARM_WHOLE_YES;
}

/* Where the zstd frame (RFC 8878, 3.1.1) at the file's start ends: from block to block, without
 * reading what they hold. 0: it doesn't end within the file. */
static uint64_t zstd_frame_end(int fd, uint64_t size)
{
	static const uint8_t window_bytes = 1, dictionary_bytes[] = { 0, 1, 2, 4 },
			     content_bytes[] = { 0, 2, 4, 8 };
	uint8_t head[5], block[3];

	if (size < sizeof(head) || warm_file_read_at(fd, head, sizeof(head), 0, NULL) != 0)
		return 0;
	bool single = (head[4] & 0x20) != 0;
	unsigned content = head[4] >> 6;
	uint64_t at = 5u + (single ? 0u : window_bytes) + dictionary_bytes[head[4] & 3] +
		      (content == 0 && single ? 1u : content_bytes[content]);
	for (bool last = false; !last;) {
		if (at > size || size - at < sizeof(block) ||
		    warm_file_read_at(fd, block, sizeof(block), at, NULL) != 0)
			return 0;
		uint32_t header = (uint32_t)block[0] | (uint32_t)block[1] << 8 |
				  (uint32_t)block[2] << 16;
		unsigned type = header >> 1 & 3;
		last = (header & 1) != 0;
		if (type == 3)
			return 0;
		at += sizeof(block) + (type == 1 ? 1 : header >> 3); /* 1: a byte repeated */
	}
	return at + ((head[4] & 4) != 0 ? 4 : 0); /* checksum */
}

/* An entry is one compressed stream; zstd's says where it ends, zlib's only to a decoder. */
static enum warm_whole jax_is_whole(int volume_fd, const char *path, char *ret_why,
				    size_t why_bytes)
{
	static const uint8_t zstd_magic[4] = { 0x28, 0xb5, 0x2f, 0xfd };
	scope_close int fd = -1;
	uint8_t magic[4];
	struct stat st;

	if (warm_beneath_read(volume_fd, path, &fd, NULL) != 0 || fstat(fd, &st) != 0 ||
	    warm_file_read_at(fd, magic, 4, 0, NULL) != 0)
		return no(ret_why, why_bytes, "too short");
	if (memcmp(magic, zstd_magic, 4) != 0)
		return WARM_WHOLE_UNKNOWN;
	if (zstd_frame_end(fd, (uint64_t)st.st_size) != (uint64_t)st.st_size)
		return no(ret_why, why_bytes, "the zstd stream doesn't end");
	return WARM_WHOLE_YES;
}

/* A Python literal whose brackets and quotes close. */
static bool literal_closes(const char *text)
{
	char stack[256];
	size_t depth = 0;
	bool any = false;

	for (const char *p = text; *p != '\0'; p++) {
		if (*p == '\'' || *p == '"') {
			char quote = *p;
			for (p++; *p != '\0' && *p != quote; p++)
				if (*p == '\\' && p[1] != '\0')
					p++;
			if (*p == '\0')
				return false;
		} else if (*p == '(' || *p == '[' || *p == '{') {
			if (depth == sizeof(stack))
				return false;
			stack[depth++] = *p == '(' ? ')' : *p == '[' ? ']' : '}';
			any = true;
		} else if (*p == ')' || *p == ']' || *p == '}') {
			if (depth == 0 || stack[--depth] != *p)
				return false;
		}
	}
	return any && depth == 0;
}

static enum warm_whole mutable_parses(int volume_fd, const char *path, char *ret_why,
				      size_t why_bytes)
{
	if (ends_with(path, ".py")) {
		scope_free char *text = NULL;
		size_t bytes = 0;
		if (warm_beneath_load(volume_fd, path, TEXT_BYTES, &text, &bytes, NULL) != 0)
			return no(ret_why, why_bytes, "can't be read");
		return strlen(text) == bytes && literal_closes(text)
			       ? WARM_WHOLE_YES
			       : no(ret_why, why_bytes, "does not parse");
	}
	json_t *root = load_json(volume_fd, path);
	if (root == NULL)
		return no(ret_why, why_bytes, "does not parse as JSON");
	json_decref(root);
	return WARM_WHOLE_YES;
}

/* Written in place, but there is nothing of it that could be torn. */
static bool is_empty_mark(int volume_fd, const char *path)
{
	struct stat st;

	return ends_with(path, ".so.load_ok") &&
	       fstatat(volume_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
	       st.st_size == 0;
}

enum warm_whole warm_profile_whole(int volume_fd, enum warm_profile profile, unsigned flags,
				   const char *group, const char *const *paths, size_t n,
				   char *ret_why, size_t why_bytes)
{
	bool all_elf = true;

	ret_why[0] = '\0';
	if (n == 0)
		return no(ret_why, why_bytes, "no files");
	if ((flags & WARM_GROUP_MUTABLE) != 0)
		return mutable_parses(volume_fd, paths[0], ret_why, why_bytes);
	for (size_t i = 0; i < n; i++) {
		bool elf = is_elf_name(paths[i]);
		all_elf = all_elf && elf;
		if (elf && !elf_is_whole(volume_fd, paths[i]))
			return no(ret_why, why_bytes, "%s is cut short or no ELF file",
				  warm_path_base(paths[i]));
	}
	switch (profile) {
	case WARM_PROFILE_TRITON:
		return triton_is_whole(volume_fd, group, paths, n, ret_why, why_bytes);
	case WARM_PROFILE_DEEPGEMM:
		return deepgemm_is_whole(group, paths, n, ret_why, why_bytes);
	case WARM_PROFILE_TILELANG:
		return tilelang_is_whole(volume_fd, group, paths, n, ret_why, why_bytes);
	case WARM_PROFILE_FLASHINFER:
		return flashinfer_is_whole(volume_fd, group, paths, n, ret_why, why_bytes);
	case WARM_PROFILE_JAX:
		for (size_t i = 0; i < n; i++)
			if (strcmp(paths[i], group) == 0)
				return jax_is_whole(volume_fd, group, ret_why, why_bytes);
		return no(ret_why, why_bytes, "an -atime file without its -cache file");
	case WARM_PROFILE_INDUCTOR:
		if (n == 1 && is_empty_mark(volume_fd, paths[0]))
			return WARM_WHOLE_YES;
		break;
	case WARM_PROFILE_VLLM:
	case WARM_PROFILE_NVRTC:
	case WARM_PROFILE_FILE:
	case WARM_PROFILES:
		break;
	}
	return all_elf ? WARM_WHOLE_YES : WARM_WHOLE_UNKNOWN;
}
