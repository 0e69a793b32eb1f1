/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <elf.h>
#include <fcntl.h>
#include <zstd.h>

#include "lib/layer/profile.h"

#define KEY52 "JLBMVPBZBZDTHY2Q54DTTFGFZEYHW5VI2ZA6RYBGUSU5E6OC3WDA"
#define IND52 "c66p46kzjbl2mqzn7yr5l7e5sgr2k5r3e5wtahnqnctobhbsutmp"

enum {
	SELF = WARM_GROUP_SELF_KEYED,
	MUT = WARM_GROUP_MUTABLE,
	MOUNT = WARM_GROUP_MOUNT_BOUND,
	CPU = WARM_GROUP_CPU_BOUND,
	REN = WARM_PLACE_RENAMED,
	UNREAD = WARM_PLACE_UNREAD,
	COMP = WARM_PLACE_COMPANION
};

/* `group` NULL: the file is never packed; "": the file's own path. */
static const struct {
	const char *path, *group;
	enum warm_profile profile;
	unsigned flags;
} places[] = {
	/* no profile */
	{ "other/model.bin", "", WARM_PROFILE_FILE, 0 },
	{ "top", "", WARM_PROFILE_FILE, 0 },
	{ "tritonx/a", "", WARM_PROFILE_FILE, 0 },
	{ "triton", "", WARM_PROFILE_FILE, 0 },
	{ "other/x.tmp", NULL, WARM_PROFILE_FILE, 0 },
	{ "other/x.lock", NULL, WARM_PROFILE_FILE, 0 },
	{ "other/tmp/x", NULL, WARM_PROFILE_FILE, 0 },
	{ ".warmcache/ledger", NULL, WARM_PROFILE_FILE, 0 },

	/* Triton */
	{ "triton/" KEY52 "/__grp__add.json", "triton/" KEY52, WARM_PROFILE_TRITON,
	  SELF | MOUNT | REN },
	{ "triton/" KEY52 "/add.cubin", "triton/" KEY52, WARM_PROFILE_TRITON, SELF | MOUNT | REN },
	{ "triton/sub/" KEY52 "/add.ptx", "triton/sub/" KEY52, WARM_PROFILE_TRITON,
	  SELF | MOUNT | REN },
	{ "triton/" KEY52, NULL, WARM_PROFILE_TRITON, 0 },
	{ "triton/JLBMVPBZ/add.ptx", NULL, WARM_PROFILE_TRITON, 0 },
	{ "triton/" KEY52 "A/add.ptx", NULL, WARM_PROFILE_TRITON, 0 },
	{ "triton/jLBMVPBZBZDTHY2Q54DTTFGFZEYHW5VI2ZA6RYBGUSU5E6OC3WDA/add.ptx", NULL,
	  WARM_PROFILE_TRITON, 0 },
	{ "triton/0LBMVPBZBZDTHY2Q54DTTFGFZEYHW5VI2ZA6RYBGUSU5E6OC3WDA/add.ptx", NULL,
	  WARM_PROFILE_TRITON, 0 },
	{ "triton/stray.json", NULL, WARM_PROFILE_TRITON, 0 },
	{ "triton/" KEY52 "/tmp.pid_17_ab/add.ptx", NULL, WARM_PROFILE_TRITON, 0 },

	/* Inductor, as in a listing of torch 2.15 */
	{ "inductor/3q/c3q7ko63jtcl33b5skkp4pu66jog3vts7p3nmrbmhdioqfedshwo.py", "",
	  WARM_PROFILE_INDUCTOR, SELF | REN },
	{ "inductor/66/" IND52 ".main.cpp", "", WARM_PROFILE_INDUCTOR, SELF | REN | UNREAD },
	{ "inductor/66/" IND52 ".main.so", "", WARM_PROFILE_INDUCTOR, CPU },
	{ "inductor/dv/cdvx2tvfeqbcfq7ewi6mv3lrc73nq6otekezddd6opdyfp7ofdyh.so.load_ok", "",
	  WARM_PROFILE_INDUCTOR, CPU | UNREAD },
	{ "inductor/66/" IND52 ".o", "", WARM_PROFILE_INDUCTOR, CPU | UNREAD },
	{ "inductor/66/" IND52 ".cu", "", WARM_PROFILE_INDUCTOR, SELF | REN | UNREAD },
	{ "inductor/66/" IND52 ".best_config", "", WARM_PROFILE_INDUCTOR, MUT | REN },
	{ "inductor/66/" IND52 ".kernel_perf", "", WARM_PROFILE_INDUCTOR, REN },
	{ "inductor/fxgraph/au/fauoggcwhjzz3qmvwcgmqeblpzbsikvz6avipnb4vq5i7tylvigs/"
	  "bkuti6k3gdbhpjcqmczrmgyybsdkdztdk5dgve2ygfudyozghpa",
	  "", WARM_PROFILE_INDUCTOR, SELF | REN },
	{ "inductor/aotautograd/aoc7ryapq7zxcducvopvaxb4t6c66pvsoici7giw5dw7tkd4dlyv/"
	  "hpn5rwwo2cxissdfacgc5lb52v3rqwjgv2rlikwkl77mskwuyi5",
	  "", WARM_PROFILE_INDUCTOR, SELF | REN },
	{ "inductor/cache/4ac2cabc390e4733e350ef073994c5c9307b76a8d641e8e026a4a9d279c2dd86", "",
	  WARM_PROFILE_INDUCTOR, MUT | REN },
	{ "inductor/cache/inductor_on_disk_cache/memoizer_cache.json", NULL, WARM_PROFILE_INDUCTOR,
	  0 },
	{ "inductor/cache/short", NULL, WARM_PROFILE_INDUCTOR, 0 },
	{ "inductor/triton/0/" KEY52 "/add.cubin", "inductor/triton/0/" KEY52, WARM_PROFILE_TRITON,
	  SELF | MOUNT | REN },
	{ "inductor/locks/" IND52 ".lock", NULL, WARM_PROFILE_INDUCTOR, 0 },
	{ "inductor/locks/" IND52, NULL, WARM_PROFILE_INDUCTOR, 0 },
	{ "inductor/66/.123.456.tmp", NULL, WARM_PROFILE_INDUCTOR, 0 },
	{ "inductor/66/" IND52 ".py.123.456.tmp", NULL, WARM_PROFILE_INDUCTOR, 0 },
	{ "inductor/66/tmpabcdefgh.o.tmp", NULL, WARM_PROFILE_INDUCTOR, 0 },
	{ "inductor/precompiled_headers/" IND52 ".h.gch", NULL, WARM_PROFILE_INDUCTOR, 0 },
	{ "inductor/dynamo/code_state_1.pkl", NULL, WARM_PROFILE_INDUCTOR, 0 },
	{ "inductor/gcc/bin/gcc", NULL, WARM_PROFILE_INDUCTOR, 0 },
	{ "inductor/abc/" IND52 ".so", NULL, WARM_PROFILE_INDUCTOR, 0 },

	/* vLLM, with Inductor's and Triton's trees inside */
	{ "vllm/torch_compile_cache/torch_aot_compile/0123abcd/rank_0_0/model", "",
	  WARM_PROFILE_VLLM, SELF | REN },
	{ "vllm/torch_compile_cache/0123abcd/rank_0_0/backbone/vllm_compile_cache.py", "",
	  WARM_PROFILE_VLLM, SELF | MUT },
	{ "vllm/torch_compile_cache/0123abcd/rank_0_0/backbone/cache_key_factors.json", "",
	  WARM_PROFILE_VLLM, SELF },
	{ "vllm/torch_compile_cache/0123abcd/rank_0_0/backbone/computation_graph.py", "",
	  WARM_PROFILE_VLLM, SELF },
	{ "vllm/torch_compile_cache/0123abcd/rank_0_0/transformed_code.py", "", WARM_PROFILE_VLLM,
	  SELF },
	{ "vllm/torch_compile_cache/0123abcd/rank_0_0/backbone/artifact_shape_None_subgraph_0", "",
	  WARM_PROFILE_VLLM, SELF | REN },
	{ "vllm/torch_compile_cache/0123abcd/rank_0_0/inductor_cache/66/" IND52 ".py", "",
	  WARM_PROFILE_INDUCTOR, SELF | REN },
	{ "vllm/torch_compile_cache/0123abcd/rank_0_0/inductor_cache/66/" IND52 ".so", "",
	  WARM_PROFILE_INDUCTOR, CPU },
	{ "vllm/torch_compile_cache/0123abcd/rank_0_0/triton_cache/" KEY52 "/k.cubin",
	  "vllm/torch_compile_cache/0123abcd/rank_0_0/triton_cache/" KEY52, WARM_PROFILE_TRITON,
	  SELF | MOUNT | REN },
	{ "vllm/deep_gemm/cache/kernel.gemm.1234/kernel.cubin",
	  "vllm/deep_gemm/cache/kernel.gemm.1234", WARM_PROFILE_DEEPGEMM, SELF | REN },
	{ "vllm/gpu_p2p_access_cache_for_0,1.json", NULL, WARM_PROFILE_VLLM, 0 },
	{ "vllm/modelinfos/x.json", NULL, WARM_PROFILE_VLLM, 0 },

	/* JAX: the -atime file rides with its entry */
	{ "jax/jit_f-0123-cache", "", WARM_PROFILE_JAX, SELF },
	{ "jax/jit_f-0123-atime", "jax/jit_f-0123-cache", WARM_PROFILE_JAX, SELF | COMP },
	{ "jax/sub/jit_f-atime-0-atime", "jax/sub/jit_f-atime-0-cache", WARM_PROFILE_JAX,
	  SELF | COMP },
	{ "jax/.lockfile", NULL, WARM_PROFILE_JAX, 0 },
	{ "jax/xla_gpu_per_fusion_autotune_cache_dir/x.textproto", NULL, WARM_PROFILE_JAX, 0 },

	/* FlashInfer: sources and objects are one group */
	{ "flashinfer/0.5.0/90a/cached_ops/norm/norm.so", "flashinfer/0.5.0/90a/cached_ops/norm",
	  WARM_PROFILE_FLASHINFER, 0 },
	{ "flashinfer/0.5.0/90a/cached_ops/norm/.ninja_log", "flashinfer/0.5.0/90a/cached_ops/norm",
	  WARM_PROFILE_FLASHINFER, 0 },
	{ "flashinfer/0.5.0/90a/generated/norm/norm.cu", "flashinfer/0.5.0/90a/cached_ops/norm",
	  WARM_PROFILE_FLASHINFER, 0 },
	{ "flashinfer/0.5.0/90a/cached_ops/tmp/norm.lock", NULL, WARM_PROFILE_FLASHINFER, 0 },
	{ "flashinfer/flashinfer_jit.log", NULL, WARM_PROFILE_FLASHINFER, 0 },

	{ "deepgemm/cache/kernel.gemm.1234/kernel.cu", "deepgemm/cache/kernel.gemm.1234",
	  WARM_PROFILE_DEEPGEMM, SELF | REN },
	{ "deepgemm/tmp/kernel.cu", NULL, WARM_PROFILE_DEEPGEMM, 0 },

	{ "tilelang/kernels/abcd/manifest.json", "tilelang/kernels/abcd", WARM_PROFILE_TILELANG,
	  SELF | REN },
	{ "tilelang/0.1/x/autotuner/abcd/best.json", "tilelang/0.1/x/autotuner/abcd",
	  WARM_PROFILE_TILELANG, SELF | REN },
	{ "tilelang/cuda-binaries/abcd/x.cubin", "tilelang/cuda-binaries/abcd",
	  WARM_PROFILE_TILELANG, SELF | REN },
	{ "tilelang/.staging/abcd/x.cubin", NULL, WARM_PROFILE_TILELANG, 0 },
	{ "tilelang/kernels/stray", NULL, WARM_PROFILE_TILELANG, 0 },

	{ "nvrtc/v1/ab/abcdef0123456789abcdef0123456789", "", WARM_PROFILE_NVRTC, SELF | REN },
	{ "nvrtc/v1/ab/abcdef0123456789abcdef0123456789.d/0123456789abcdef0123456789abcdef", "",
	  WARM_PROFILE_NVRTC, SELF | REN },
	{ "nvrtc/v1/ab/tmp.0123456789abcdef", NULL, WARM_PROFILE_NVRTC, 0 },
	{ "nvrtc/v2/ab/abcdef", NULL, WARM_PROFILE_NVRTC, 0 },
	{ "nvrtc/v1/abc/abcdef", NULL, WARM_PROFILE_NVRTC, 0 },
};

TEST(each_path_has_its_place)
{
	struct warm_profile_roots roots = { .mount_hash = 0x1234 };
	char want[WARM_PATH_BYTES + 24];

	for (size_t i = 0; i < COUNT(places); i++) {
		struct warm_place p;
		uint64_t bound = 0;
		warm_profile_place(&roots, places[i].path, &p);
		if (p.packed != (places[i].group != NULL))
			fail_msg("%s is %s", places[i].path, p.packed ? "packed" : "left out");
		if (!p.packed)
			continue;
		snprintf(want, sizeof(want), "%s",
			 places[i].group[0] != '\0' ? places[i].group : places[i].path);
		if ((places[i].flags & CPU) != 0)
			bound = warm_cpu_hash();
		if ((places[i].flags & MOUNT) != 0)
			bound = 0x1234;
		if (bound != 0)
			snprintf(want + strlen(want), 20, "@%016llx", (unsigned long long)bound);
		if (strcmp(p.group, want) != 0 || p.profile != places[i].profile ||
		    p.flags != places[i].flags || p.bound != bound)
			fail_msg("%s: group %s, profile %s, flags %x", places[i].path, p.group,
				 warm_profile_name(p.profile), p.flags);
	}
}

TEST(a_group_of_every_place_has_a_name_that_readers_accept)
{
	for (size_t i = 0; i < COUNT(places); i++) {
		struct warm_place p;
		warm_profile_place(NULL, places[i].path, &p);
		if (!p.packed)
			continue;
		struct warm_group g = { .name = p.group, .bound = p.bound };
		size_t unit = warm_group_unit(p.group, places[i].path);
		assert_true(warm_group_base(&g) == strlen(p.group) - (p.bound != 0 ? 17 : 0));
		assert_true(unit > 0 && unit <= strlen(places[i].path));
	}
}

TEST(further_roots_are_taken_before_the_usual_ones)
{
	struct warm_profile_roots roots = { .mount_hash = 1 };
	struct warm_place p;

	assert_int_equal(warm_profile_roots_add(&roots, "triton=my/kernels", NULL), 0);
	assert_int_equal(warm_profile_roots_add(&roots, "inductor=triton/ind", NULL), 0);
	warm_profile_place(&roots, "my/kernels/" KEY52 "/a.ptx", &p);
	assert_int_equal(p.profile, WARM_PROFILE_TRITON);
	assert_true(p.packed);
	warm_profile_place(&roots, "my/kernels/junk", &p);
	assert_false(p.packed);
	warm_profile_place(&roots, "triton/ind/ab/x.py", &p);
	assert_int_equal(p.profile, WARM_PROFILE_INDUCTOR);
	assert_true(p.packed);
	warm_profile_place(&roots, "my/other", &p);
	assert_int_equal(p.profile, WARM_PROFILE_FILE);
	size_t n = 0, found = 0;
	for (const char *root; (root = warm_profile_root(&roots, n)) != NULL; n++)
		found += strcmp(root, "my/kernels") == 0 || strcmp(root, "triton/ind") == 0 ||
			 strcmp(root, "jax") == 0;
	assert_int_equal(n, WARM_PROFILES - 1 + 2);
	assert_int_equal(found, 3);
}

TEST(a_root_that_makes_no_sense_is_refused)
{
	static const char *const rows[] = {
		"triton",      "nosuch=dir", "file=dir",
		"triton=",     "triton=/a",  "triton=a/",
		"triton=../a", "=a",	     "a-name-of-more-than-thirty-two-bytes=a"
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct warm_profile_roots roots = { 0 };
		struct warm_error err = { 0 };
		assert_int_equal(warm_profile_roots_add(&roots, rows[i], &err), WARM_INVALID);
		assert_int_equal(roots.n, 0);
	}
	struct warm_profile_roots roots = { 0 };
	for (size_t i = 0; i < WARM_PROFILE_ROOTS_MAX; i++)
		assert_int_equal(warm_profile_roots_add(&roots, "triton=a", NULL), 0);
	assert_int_equal(warm_profile_roots_add(&roots, "triton=a", NULL), WARM_INVALID);
}

TEST(profiles_are_found_by_their_names)
{
	for (int p = 0; p < WARM_PROFILES; p++)
		assert_int_equal(warm_profile_by_name(warm_profile_name((enum warm_profile)p)), p);
	assert_int_equal(warm_profile_by_name("nosuch"), WARM_PROFILE_FILE);
}

TEST(hashes_of_cpu_and_mount_are_stable_and_never_zero)
{
	assert_true(warm_cpu_hash() != 0);
	assert_true(warm_cpu_hash() == warm_cpu_hash());
	assert_true(warm_mount_hash("") != 0);
	assert_true(warm_mount_hash("/a") != warm_mount_hash("/b"));
}

/* ---- wholeness ---- */

static enum warm_whole whole(int fd, enum warm_profile profile, unsigned flags, const char *group,
			     const char *const *paths, size_t n)
{
	char why[160];

	enum warm_whole w = warm_profile_whole(fd, profile, flags, group, paths, n, why,
					       sizeof(why));
	/* The reason is there when something is missing, and only then. */
	assert_true((w == WARM_WHOLE_NO) == (why[0] != '\0'));
	return w;
}

static enum warm_whole whole_file(int fd, enum warm_profile profile, unsigned flags,
				  const char *path)
{
	return whole(fd, profile, flags, path, &path, 1);
}

/* Cut `path` at many lengths: never whole. */
static void assert_no_cut_is_whole(int fd, enum warm_profile profile, const char *path)
{
	size_t bytes = 0;
	char *data = text_of(fd, path, &bytes);
	static const size_t off[] = { 1, 2, 8, 63, 64, 65, 200, 1000, 4000 };
	char cut[300];

	snprintf(cut, sizeof(cut), "cut-%.200s",
		 strrchr(path, '/') != NULL ? strrchr(path, '/') + 1 : path);
	for (size_t i = 0; i < COUNT(off) + 20; i++) {
		size_t n = i < COUNT(off) ? bytes - (off[i] < bytes ? off[i] : bytes)
					  : bytes * (i - COUNT(off)) / 20;
		put_file(fd, cut, data, n, 0755, 0);
		if (whole_file(fd, profile, 0, cut) != WARM_WHOLE_NO)
			fail_msg("%s cut at %zu of %zu passes for whole", path, n, bytes);
	}
	free(data);
}

TEST(a_real_shared_object_is_whole_and_no_cut_of_it_is)
{
	struct scratch s = scratch_open();

	if (!have_tool("gcc")) {
		scratch_close(&s);
		skip();
	}
	put_text(s.fd, "a.c",
		 "int f(int x) { return x + 1; } int big[5000] = { 1 }; int zero[9000];\n");
	assert_int_equal(shell("cd %s && gcc -g -shared -fPIC a.c -o a.so && gcc -c a.c -o a.o && "
			       "strip a.so -o stripped.so",
			       s.path),
			 0);
	static const char *const files[] = { "a.so", "a.o", "stripped.so" };
	for (size_t i = 0; i < COUNT(files); i++) {
		assert_int_equal(whole_file(s.fd, WARM_PROFILE_INDUCTOR, CPU, files[i]),
				 WARM_WHOLE_YES);
		assert_int_equal(whole_file(s.fd, WARM_PROFILE_FILE, 0, files[i]), WARM_WHOLE_YES);
		assert_no_cut_is_whole(s.fd, WARM_PROFILE_INDUCTOR, files[i]);
	}
	scratch_close(&s);
}

/* The sections' headers come right behind it. */
static Elf64_Ehdr head_of_two_sections(void)
{
	Elf64_Ehdr head = { .e_shoff = sizeof(head),
			    .e_shnum = 2,
			    .e_shentsize = sizeof(Elf64_Shdr) };

	memcpy(head.e_ident, ELFMAG, SELFMAG);
	head.e_ident[EI_CLASS] = ELFCLASS64;
	return head;
}

TEST(an_elf_file_whose_program_headers_lie_past_its_end_is_not_whole)
{
	/* ptxas puts a cubin's program headers last, behind the section headers. */
	struct scratch s = scratch_open();
	struct {
		Elf64_Ehdr head;
		Elf64_Shdr sections[2];
		Elf64_Phdr programs[2];
	} elf = { 0 };

	elf.head = head_of_two_sections();
	elf.head.e_phoff = sizeof(elf.head) + sizeof(elf.sections);
	elf.head.e_phnum = 2;
	elf.head.e_phentsize = sizeof(Elf64_Phdr);
	put_file(s.fd, "k.cubin", &elf, sizeof(elf), 0644, 0);
	assert_int_equal(whole_file(s.fd, WARM_PROFILE_FILE, 0, "k.cubin"), WARM_WHOLE_YES);
	put_file(s.fd, "k.cubin", &elf, sizeof(elf) - 1, 0644, 0);
	enum warm_whole cut = whole_file(s.fd, WARM_PROFILE_FILE, 0, "k.cubin");
	scratch_close(&s);
	assert_int_equal(cut, WARM_WHOLE_NO);
}

TEST(an_elf_file_whose_section_lies_past_its_end_is_not_whole)
{
	/* Section headers first: a cut at the end takes only what they point at. */
	struct scratch s = scratch_open();
	struct {
		Elf64_Ehdr head;
		Elf64_Shdr sections[2];
		char code[64];
	} elf = { 0 };

	elf.head = head_of_two_sections();
	elf.sections[1].sh_type = SHT_PROGBITS;
	elf.sections[1].sh_offset = offsetof(__typeof__(elf), code);
	elf.sections[1].sh_size = sizeof(elf.code);
	put_file(s.fd, "x.so", &elf, sizeof(elf), 0644, 0);
	assert_int_equal(whole_file(s.fd, WARM_PROFILE_FILE, 0, "x.so"), WARM_WHOLE_YES);
	put_file(s.fd, "x.so", &elf, sizeof(elf) - 1, 0644, 0);
	enum warm_whole cut = whole_file(s.fd, WARM_PROFILE_FILE, 0, "x.so");
	scratch_close(&s);
	assert_int_equal(cut, WARM_WHOLE_NO);
}

TEST(what_is_no_elf_but_has_its_name_is_not_whole)
{
	struct scratch s = scratch_open();

	put_text(s.fd, "empty.so", "");
	put_text(s.fd, "text.so",
		 "this is no ELF file, but it is longer than an ELF header is: 64 bytes.");
	assert_int_equal(whole_file(s.fd, WARM_PROFILE_INDUCTOR, CPU, "empty.so"), WARM_WHOLE_NO);
	assert_int_equal(whole_file(s.fd, WARM_PROFILE_INDUCTOR, CPU, "text.so"), WARM_WHOLE_NO);
	assert_int_equal(whole_file(s.fd, WARM_PROFILE_INDUCTOR, CPU, "missing.so"), WARM_WHOLE_NO);
	scratch_close(&s);
}

TEST(a_file_that_nothing_is_known_of_is_unknown)
{
	struct scratch s = scratch_open();

	put_text(s.fd, "x.bin", "x");
	assert_int_equal(whole_file(s.fd, WARM_PROFILE_FILE, 0, "x.bin"), WARM_WHOLE_UNKNOWN);
	assert_int_equal(whole(s.fd, WARM_PROFILE_FILE, 0, "x", NULL, 0), WARM_WHOLE_NO);
	scratch_close(&s);
}

TEST(an_empty_mark_of_inductor_is_whole_and_one_with_contents_unknown)
{
	struct scratch s = scratch_open();

	put_text(s.fd, "a.so.load_ok", "");
	put_text(s.fd, "b.so.load_ok", "x");
	assert_int_equal(whole_file(s.fd, WARM_PROFILE_INDUCTOR, 0, "a.so.load_ok"),
			 WARM_WHOLE_YES);
	assert_int_equal(whole_file(s.fd, WARM_PROFILE_INDUCTOR, 0, "b.so.load_ok"),
			 WARM_WHOLE_UNKNOWN);
	assert_int_equal(whole_file(s.fd, WARM_PROFILE_INDUCTOR, 0, "c.so.load_ok"),
			 WARM_WHOLE_UNKNOWN);
	scratch_close(&s);
}

static const char group_json[] = "{\"child_paths\": {\"add.ttir\": \"/vol/triton/x/add.ttir\", "
				 "\"add.json\": \"/v/add.json\"}}";

TEST(a_triton_directory_is_whole_with_its_group_file_and_all_children)
{
	struct scratch s = scratch_open();
	static const char *const all[] = { "t/__grp__add.json", "t/add.json", "t/add.ttir" };

	put_text(s.fd, "t/__grp__add.json", group_json);
	put_text(s.fd, "t/add.json", "{}");
	put_text(s.fd, "t/add.ttir", "x");
	assert_int_equal(whole(s.fd, WARM_PROFILE_TRITON, SELF, "t", all, 3), WARM_WHOLE_YES);
	/* a child is missing */
	assert_int_equal(whole(s.fd, WARM_PROFILE_TRITON, SELF, "t", all, 2), WARM_WHOLE_NO);
	/* no group file yet */
	assert_int_equal(whole(s.fd, WARM_PROFILE_TRITON, SELF, "t", all + 1, 2), WARM_WHOLE_NO);
	/* a group file that is cut short, or something else */
	static const char *const bad[] = {
		"{\"child_paths\": {\"add.ttir\"", "", "[]", "{}", "null", "{\"child_paths\": []}"
	};
	for (size_t i = 0; i < COUNT(bad); i++) {
		put_text(s.fd, "t/__grp__add.json", bad[i]);
		assert_int_equal(whole(s.fd, WARM_PROFILE_TRITON, SELF, "t", all, 3),
				 WARM_WHOLE_NO);
	}
	scratch_close(&s);
}

TEST(a_triton_directory_with_two_group_files_needs_the_children_of_both)
{
	struct scratch s = scratch_open();
	static const char *const all[] = { "t/__grp__a.json", "t/__grp__b.json", "t/add.json",
					   "t/add.ttir" };

	put_text(s.fd, "t/__grp__a.json", group_json);
	put_text(s.fd, "t/__grp__b.json", "{\"child_paths\": {\"b.ttir\": \"/x\"}}");
	put_text(s.fd, "t/add.json", "{}");
	put_text(s.fd, "t/add.ttir", "x");
	assert_int_equal(whole(s.fd, WARM_PROFILE_TRITON, SELF, "t", all, 4), WARM_WHOLE_NO);
	scratch_close(&s);
}

TEST(a_triton_directory_of_one_renamed_file_is_whole)
{
	struct scratch s = scratch_open();
	static const char *const tune[] = { "t/add.autotune.json" }, *const ptx[] = { "t/add.ptx" };

	put_text(s.fd, tune[0], "{}");
	put_text(s.fd, ptx[0], "x");
	assert_int_equal(whole(s.fd, WARM_PROFILE_TRITON, SELF, "t", tune, 1), WARM_WHOLE_YES);
	assert_int_equal(whole(s.fd, WARM_PROFILE_TRITON, SELF, "t", ptx, 1), WARM_WHOLE_NO);
	scratch_close(&s);
}

TEST(a_triton_directory_with_a_torn_cubin_is_not_whole)
{
	struct scratch s = scratch_open();
	static const char *const all[] = { "t/__grp__add.json", "t/add.cubin" };

	put_text(s.fd, all[0], "{\"child_paths\": {\"add.cubin\": \"/x\"}}");
	put_text(s.fd, all[1], "\177ELF and no more");
	assert_int_equal(whole(s.fd, WARM_PROFILE_TRITON, SELF, "t", all, 2), WARM_WHOLE_NO);
	scratch_close(&s);
}

/* The smallest ELF file that is whole. */
static void put_elf(int fd, const char *path)
{
	struct {
		Elf64_Ehdr head;
		Elf64_Shdr section;
	} elf = { 0 };

	memcpy(elf.head.e_ident, ELFMAG, SELFMAG);
	elf.head.e_ident[EI_CLASS] = ELFCLASS64;
	elf.head.e_shoff = sizeof(elf.head);
	elf.head.e_shnum = 1;
	elf.head.e_shentsize = sizeof(elf.section);
	put_file(fd, path, &elf, sizeof(elf), 0644, 0);
}

TEST(a_deepgemm_kernel_is_whole_with_source_and_cubin)
{
	struct scratch s = scratch_open();
	static const char *const all[] = { "k/.committed", "k/kernel.cu", "k/kernel.cubin" };

	put_text(s.fd, all[0], "");
	put_text(s.fd, all[1], "x");
	put_elf(s.fd, all[2]);
	assert_int_equal(whole(s.fd, WARM_PROFILE_DEEPGEMM, SELF, "k", all, 3), WARM_WHOLE_YES);
	assert_int_equal(whole(s.fd, WARM_PROFILE_DEEPGEMM, SELF, "k", all + 1, 2), WARM_WHOLE_YES);
	assert_int_equal(whole(s.fd, WARM_PROFILE_DEEPGEMM, SELF, "k", all + 2, 1), WARM_WHOLE_NO);
	assert_int_equal(whole(s.fd, WARM_PROFILE_DEEPGEMM, SELF, "k", all, 2), WARM_WHOLE_NO);
	assert_int_equal(whole(s.fd, WARM_PROFILE_DEEPGEMM, SELF, "k", all + 1, 1), WARM_WHOLE_NO);
	scratch_close(&s);
}

TEST(a_tilelang_kernel_is_whole_when_its_manifest_and_its_files_agree)
{
	struct scratch s = scratch_open();
	static const char *const all[] = { "k/kernel.cu", "k/manifest.json", "k/params.pkl" };

	put_text(s.fd, all[0], "12345");
	put_text(s.fd, all[1],
		 "{\"files\": {\"kernel.cu\": {\"size\": 5}, \"params.pkl\": {\"size\": 3}}}");
	put_text(s.fd, all[2], "123");
	assert_int_equal(whole(s.fd, WARM_PROFILE_TILELANG, SELF, "k", all, 3), WARM_WHOLE_YES);
	assert_int_equal(whole(s.fd, WARM_PROFILE_TILELANG, SELF, "k", all, 2), WARM_WHOLE_NO);
	put_text(s.fd, all[2], "12");
	assert_int_equal(whole(s.fd, WARM_PROFILE_TILELANG, SELF, "k", all, 3), WARM_WHOLE_NO);
	put_text(s.fd, all[1], "{\"files\": ");
	assert_int_equal(whole(s.fd, WARM_PROFILE_TILELANG, SELF, "k", all, 3), WARM_WHOLE_NO);
	put_text(s.fd, all[1], "{}");
	assert_int_equal(whole(s.fd, WARM_PROFILE_TILELANG, SELF, "k", all, 3), WARM_WHOLE_NO);
	static const char *const without[] = { "k/kernel.cu" };
	assert_int_equal(whole(s.fd, WARM_PROFILE_TILELANG, SELF, "k", without, 1),
			 WARM_WHOLE_UNKNOWN);
	scratch_close(&s);
}

TEST(a_flashinfer_operator_is_whole_when_ninja_has_logged_its_library)
{
	struct scratch s = scratch_open();
	static const char *const all[] = { "f/cached_ops/norm/.ninja_log",
					   "f/cached_ops/norm/norm.o", "f/cached_ops/norm/norm.so",
					   "f/generated/norm/norm.cu" };
	static const char group[] = "f/cached_ops/norm";

	put_text(s.fd, all[0], "# ninja log v5\n0\t9\t1\tnorm.o\tabc\n9\t12\t1\tnorm.so\tdef\n");
	put_elf(s.fd, all[1]);
	put_elf(s.fd, all[2]);
	put_text(s.fd, all[3], "x");
	assert_int_equal(whole(s.fd, WARM_PROFILE_FLASHINFER, 0, group, all, 4), WARM_WHOLE_YES);
	put_text(s.fd, all[0], "# ninja log v5\n0\t9\t1\tnorm.o\tabc\n");
	assert_int_equal(whole(s.fd, WARM_PROFILE_FLASHINFER, 0, group, all, 4), WARM_WHOLE_NO);
	assert_int_equal(whole(s.fd, WARM_PROFILE_FLASHINFER, 0, group, all, 2), WARM_WHOLE_NO);
	/* without a log only time can tell */
	assert_int_equal(whole(s.fd, WARM_PROFILE_FLASHINFER, 0, group, all + 1, 3),
			 WARM_WHOLE_UNKNOWN);
	scratch_close(&s);
}

TEST(a_library_that_is_part_of_anothers_name_is_not_taken_for_it)
{
	struct scratch s = scratch_open();
	static const char *const all[] = { "f/cached_ops/norm/.ninja_log",
					   "f/cached_ops/norm/norm.so" };

	/* ninja was killed while it linked norm.so; prenorm.so is another target. */
	put_text(s.fd, all[0], "# ninja log v5\n0\t9\t1\tprenorm.so\tabc\n");
	put_elf(s.fd, all[1]);
	enum warm_whole w = whole(s.fd, WARM_PROFILE_FLASHINFER, 0, "f/cached_ops/norm", all, 2);
	scratch_close(&s);
	assert_int_equal(w, WARM_WHOLE_NO);
}

TEST(a_jax_entry_is_whole_when_its_zstd_stream_ends)
{
	struct scratch s = scratch_open();
	uint8_t *raw = noise(1, 50000), *packed = malloc(60000);

	assert_non_null(packed);
	size_t n = ZSTD_compress(packed, 60000, raw, 50000, 1);
	put_file(s.fd, "x-cache", packed, n, 0644, 0);
	assert_int_equal(whole_file(s.fd, WARM_PROFILE_JAX, SELF, "x-cache"), WARM_WHOLE_YES);
	for (size_t cut = 0; cut < n; cut += cut < 20 ? 1 : 997) {
		put_file(s.fd, "x-cache", packed, cut, 0644, 0);
		if (cut < 4)
			assert_int_equal(whole_file(s.fd, WARM_PROFILE_JAX, SELF, "x-cache"),
					 WARM_WHOLE_NO);
		else
			assert_true(whole_file(s.fd, WARM_PROFILE_JAX, SELF, "x-cache") ==
				    WARM_WHOLE_NO);
	}
	put_file(s.fd, "x-cache", packed, n - 1, 0644, 0);
	assert_int_equal(whole_file(s.fd, WARM_PROFILE_JAX, SELF, "x-cache"), WARM_WHOLE_NO);
	put_text(s.fd, "x-cache",
		 "x\234zlib's stream"); /* another compressor: only time can tell */
	assert_int_equal(whole_file(s.fd, WARM_PROFILE_JAX, SELF, "x-cache"), WARM_WHOLE_UNKNOWN);
	free(raw);
	free(packed);
	scratch_close(&s);
}

TEST(a_jax_atime_file_alone_is_not_whole)
{
	struct scratch s = scratch_open();
	static const char *const paths[] = { "x-atime" };

	put_text(s.fd, "x-atime", "12345678");
	assert_int_equal(whole(s.fd, WARM_PROFILE_JAX, SELF, "x-cache", paths, 1), WARM_WHOLE_NO);
	scratch_close(&s);
}

TEST(a_python_literal_is_whole_when_it_closes)
{
	static const struct {
		const char *text;
		enum warm_whole whole;
	} rows[] = {
		{ "{('a', 1): ['b', (2, \"c\")]}", WARM_WHOLE_YES },
		{ "{\n (None, 0, 'inductor'): ('f]{', '/x/it\\'s.py')\n}\n", WARM_WHOLE_YES },
		{ "{}", WARM_WHOLE_YES },
		{ "", WARM_WHOLE_NO },
		{ "\n", WARM_WHOLE_NO },
		{ "{('a', 1): ['b'", WARM_WHOLE_NO },
		{ "{('a', 1): 'b", WARM_WHOLE_NO },
		{ "{('a', 1): 'b}", WARM_WHOLE_NO },
		{ "{('a', 1): 'b\\'}", WARM_WHOLE_NO },
		{ "{('a', 1]}", WARM_WHOLE_NO },
		{ "{}}", WARM_WHOLE_NO },
		{ "'{}'", WARM_WHOLE_NO },
	};
	struct scratch s = scratch_open();

	for (size_t i = 0; i < COUNT(rows); i++) {
		put_text(s.fd, "vllm_compile_cache.py", rows[i].text);
		if (whole_file(s.fd, WARM_PROFILE_VLLM, SELF | MUT, "vllm_compile_cache.py") !=
		    rows[i].whole)
			fail_msg("%s", rows[i].text);
	}
	assert_int_equal(whole_file(s.fd, WARM_PROFILE_VLLM, SELF | MUT, "missing.py"),
			 WARM_WHOLE_NO);
	scratch_close(&s);
}

TEST(a_literal_with_a_nul_in_it_is_not_whole)
{
	/* A file that lost its end in a crash: its size is there, its bytes are zeros. */
	struct scratch s = scratch_open();

	put_file(s.fd, "vllm_compile_cache.py", "{}\0\0\0\0", 6, 0644, 0);
	enum warm_whole w = whole_file(s.fd, WARM_PROFILE_VLLM, SELF | MUT,
				       "vllm_compile_cache.py");
	scratch_close(&s);
	assert_int_equal(w, WARM_WHOLE_NO);
}

TEST(a_mutable_json_file_is_whole_when_it_parses)
{
	struct scratch s = scratch_open();

	put_text(s.fd, "k.best_config", "{\"XBLOCK\": 1, \"found_by_coordesc\": false}");
	assert_int_equal(whole_file(s.fd, WARM_PROFILE_INDUCTOR, MUT, "k.best_config"),
			 WARM_WHOLE_YES);
	put_text(s.fd, "k.best_config", "{\"XBLOCK\": 1, \"found_by");
	assert_int_equal(whole_file(s.fd, WARM_PROFILE_INDUCTOR, MUT, "k.best_config"),
			 WARM_WHOLE_NO);
	put_text(s.fd, "k.best_config", "");
	assert_int_equal(whole_file(s.fd, WARM_PROFILE_INDUCTOR, MUT, "k.best_config"),
			 WARM_WHOLE_NO);
	put_text(s.fd, "k.best_config", "{} {}");
	assert_int_equal(whole_file(s.fd, WARM_PROFILE_INDUCTOR, MUT, "k.best_config"),
			 WARM_WHOLE_NO);
	scratch_close(&s);
}

TEST(a_link_is_never_followed_to_tell)
{
	struct scratch s = scratch_open();

	put_elf(s.fd, "real.so");
	assert_int_equal(symlinkat("real.so", s.fd, "link.so"), 0);
	assert_int_equal(whole_file(s.fd, WARM_PROFILE_FILE, 0, "link.so"), WARM_WHOLE_NO);
	scratch_close(&s);
}

TEST(temporary_files_and_directories_are_known_by_name)
{
	static const char *const files[] = { "tmp.1234", "lock",     ".lockfile", "x.lock",
					     "x.tmp",	 "x.tmp.12", "x.tmp-0123" };
	static const char *const dirs[] = { "tmp", "tmp.pid_1", "locks", ".staging", ".warmcache" };
	static const char *const others[] = {
		"x", "template", "xlock", "lockx", "x.tmpl", ".hidden"
	};

	for (size_t i = 0; i < COUNT(files); i++)
		assert_true(warm_profile_skips_file(files[i]));
	for (size_t i = 0; i < COUNT(dirs); i++)
		assert_true(warm_profile_skips_dir(dirs[i]));
	for (size_t i = 0; i < COUNT(others); i++) {
		assert_false(warm_profile_skips_file(others[i]));
		assert_false(warm_profile_skips_dir(others[i]));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_path_has_its_place),
		cmocka_unit_test(a_group_of_every_place_has_a_name_that_readers_accept),
		cmocka_unit_test(further_roots_are_taken_before_the_usual_ones),
		cmocka_unit_test(a_root_that_makes_no_sense_is_refused),
		cmocka_unit_test(profiles_are_found_by_their_names),
		cmocka_unit_test(hashes_of_cpu_and_mount_are_stable_and_never_zero),
		cmocka_unit_test(a_real_shared_object_is_whole_and_no_cut_of_it_is),
		cmocka_unit_test(an_elf_file_whose_program_headers_lie_past_its_end_is_not_whole),
		cmocka_unit_test(an_elf_file_whose_section_lies_past_its_end_is_not_whole),
		cmocka_unit_test(what_is_no_elf_but_has_its_name_is_not_whole),
		cmocka_unit_test(a_file_that_nothing_is_known_of_is_unknown),
		cmocka_unit_test(a_triton_directory_is_whole_with_its_group_file_and_all_children),
		cmocka_unit_test(
			a_triton_directory_with_two_group_files_needs_the_children_of_both),
		cmocka_unit_test(a_triton_directory_of_one_renamed_file_is_whole),
		cmocka_unit_test(a_triton_directory_with_a_torn_cubin_is_not_whole),
		cmocka_unit_test(a_deepgemm_kernel_is_whole_with_source_and_cubin),
		cmocka_unit_test(a_tilelang_kernel_is_whole_when_its_manifest_and_its_files_agree),
		cmocka_unit_test(a_flashinfer_operator_is_whole_when_ninja_has_logged_its_library),
		cmocka_unit_test(a_library_that_is_part_of_anothers_name_is_not_taken_for_it),
		cmocka_unit_test(a_jax_entry_is_whole_when_its_zstd_stream_ends),
		cmocka_unit_test(a_jax_atime_file_alone_is_not_whole),
		cmocka_unit_test(a_python_literal_is_whole_when_it_closes),
		cmocka_unit_test(a_literal_with_a_nul_in_it_is_not_whole),
		cmocka_unit_test(an_empty_mark_of_inductor_is_whole_and_one_with_contents_unknown),
		cmocka_unit_test(a_mutable_json_file_is_whole_when_it_parses),
		cmocka_unit_test(a_link_is_never_followed_to_tell),
		cmocka_unit_test(temporary_files_and_directories_are_known_by_name),
	};

	return RUN(tests);
}
