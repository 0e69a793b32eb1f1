/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <fcntl.h>

#include "lib/kernel/entry.h"
#include "lib/sync/inert.h"

#define KEY52 "JLBMVPBZBZDTHY2Q54DTTFGFZEYHW5VI2ZA6RYBGUSU5E6OC3WDA"
#define OTHER52 "KLBMVPBZBZDTHY2Q54DTTFGFZEYHW5VI2ZA6RYBGUSU5E6OC3WDA"
#define FACTORS(hash) "vllm/torch_compile_cache/" hash "/rank_0_0/x/cache_key_factors.json"
#define NOTHING_FOUND "what was compiled differs in what its compiler doesn't write down"

struct house {
	struct scratch s;
	int volume;
	struct warm_profile_roots roots;
	struct warm_ledger ledger;
	char *text;
};

static struct house *open_house(void)
{
	struct house *h = calloc(1, sizeof(*h));

	assert_non_null(h);
	h->s = scratch_open();
	put_dir(h->s.fd, "volume");
	h->volume = openat(h->s.fd, "volume", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(h->volume >= 0);
	h->roots.mount_hash = warm_mount_hash("/cache");
	warm_ledger_init(&h->ledger);
	return h;
}

static void close_house(struct house *h)
{
	warm_ledger_release(&h->ledger);
	free(h->text);
	close(h->volume);
	scratch_close(&h->s);
	free(h);
}

static void scan(struct house *h, struct warm_scan *ret_scan)
{
	assert_int_equal(
		warm_scan_run(h->volume, &h->roots, 1 << 30, NULL, NULL, NULL, ret_scan, NULL), 0);
}

/* All that is in the volume now was restored; what comes later is the model's. */
static void mark_restored(struct house *h)
{
	scope_scan struct warm_scan x = { 0 };
	char key[] = "m/v/p", profile[] = "file";

	scan(h, &x);
	for (size_t i = 0; i < x.n_groups; i++) {
		struct warm_ledger_group g = { .name = (char *)(uintptr_t)x.groups[i].name,
					       .key = key,
					       .profile = profile,
					       .flags = WARM_LEDGER_RESTORED };
		assert_int_equal(warm_ledger_put(&h->ledger, &g, NULL), 0);
	}
}

static const char *explain(struct house *h)
{
	scope_scan struct warm_scan x = { 0 };
	struct warm_buf text = WARM_BUF_INIT;

	scan(h, &x);
	warm_inert_explain(h->volume, "/cache", &x, &h->ledger, &text);
	warm_buf_put_u8(&text, 0);
	assert_false(text.failed);
	free(h->text);
	h->text = (char *)text.data;
	assert_true(h->text[0] != '\0');
	assert_null(strchr(h->text, '\n'));
	return h->text;
}

static void assert_says(struct house *h, const char *what)
{
	if (strstr(explain(h), what) == NULL)
		fail_msg("'%s' is not in: %s", what, h->text);
}

static void assert_says_not(struct house *h, const char *what)
{
	if (strstr(explain(h), what) != NULL)
		fail_msg("'%s' is in: %s", what, h->text);
}

/* ---- where it writes ---- */

TEST(nothing_written_is_a_mount_or_a_variable)
{
	struct house *h = open_house();

	put_text(h->volume, "inductor/ab/x.py", "1");
	put_text(h->volume, "triton/" KEY52 "/k.json", "{}");
	put_text(h->volume, "jax/a-cache", "1");
	mark_restored(h);
	assert_says(h, "the model has written nothing to the volume");
	assert_says(h, "no mount at /cache");
	assert_says(h, "TORCHINDUCTOR_CACHE_DIR");
	assert_says(h, "TRITON_CACHE_DIR");
	assert_says(h, "JAX_COMPILATION_CACHE_DIR");
	assert_says_not(h, "VLLM_CACHE_ROOT");
	assert_says_not(h, NOTHING_FOUND);
	/* One line of the model's is enough. */
	put_text(h->volume, "inductor/ab/y.py", "2");
	assert_says_not(h, "has written nothing");
	close_house(h);
}

TEST(an_empty_volume_is_explained_as_well)
{
	struct house *h = open_house();

	assert_says(h, "the model has written nothing to the volume");
	close_house(h);
}

TEST(every_profile_names_its_own_variable)
{
	static const struct {
		const char *path, *variable;
	} rows[] = {
		{ "triton/" KEY52 "/k.json", "TRITON_CACHE_DIR" },
		{ "inductor/ab/x.py", "TORCHINDUCTOR_CACHE_DIR" },
		{ FACTORS("a"), "VLLM_CACHE_ROOT" },
		{ "jax/a-cache", "JAX_COMPILATION_CACHE_DIR" },
		{ "flashinfer/cached_ops/a/a.so", "FLASHINFER_WORKSPACE_BASE" },
		{ "deepgemm/cache/a/kernel.cu", "DG_JIT_CACHE_DIR" },
		{ "tilelang/kernels/a/b", "TILELANG_CACHE_DIR" },
		{ "nvrtc/v1/ab/cdef", "WARM_CACHE_DIR" },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct house *h = open_house();
		put_text(h->volume, rows[i].path, "1");
		mark_restored(h);
		assert_says(h, rows[i].variable);
		close_house(h);
	}
}

TEST(another_directory_is_named_with_its_variable)
{
	struct house *h = open_house();

	put_text(h->volume, "inductor/ab/x.py", "1");
	mark_restored(h);
	put_text(h->volume, "torch/ab/y.py", "2");
	assert_says(h, "the cache of inductor was restored to inductor/ and the model writes to "
		       "torch/: TORCHINDUCTOR_CACHE_DIR has another value");
	/* Where both are used, there is another reason. */
	put_text(h->volume, "inductor/ab/z.py", "2");
	assert_says_not(h, "the model writes to");
	close_house(h);
}

TEST(another_directory_of_a_known_profile_is_named)
{
	struct house *h = open_house();

	assert_int_equal(warm_profile_roots_add(&h->roots, "inductor=other", NULL), 0);
	put_text(h->volume, "inductor/ab/x.py", "1");
	mark_restored(h);
	put_text(h->volume, "other/ab/x.py", "1");
	assert_says(h, "restored to inductor/ and the model writes to other/");
	close_house(h);
}

TEST(what_another_compiler_writes_is_no_other_directory)
{
	struct house *h = open_house();

	put_text(h->volume, "inductor/ab/x.py", "1");
	put_text(h->volume, "jax/a-cache", "1");
	mark_restored(h);
	put_text(h->volume, "jax/b-cache", "1");
	assert_says_not(h, "the model writes to");
	close_house(h);
}

/* Triton's own directory and those that Inductor gives it lie at different depths. */
TEST(tritons_directory_is_the_one_above_its_keys)
{
	struct house *h = open_house();

	put_text(h->volume, "inductor/triton/0/" KEY52 "/__grp__k.json", "{}");
	mark_restored(h);
	put_text(h->volume, "inductor/triton/1/" OTHER52 "/__grp__k.json", "{}");
	assert_says(h,
		    "the cache of triton was restored to inductor/triton/0/ and the model writes "
		    "to inductor/triton/1/: TRITON_CACHE_DIR");
	close_house(h);
}

TEST(many_directories_are_told_as_far_as_there_is_room)
{
	struct house *h = open_house();
	char path[40];

	put_text(h->volume, "inductor/ab/x.py", "1");
	mark_restored(h);
	for (int i = 0; i < 50; i++) {
		snprintf(path, sizeof(path), "dir%02d/x", i);
		put_text(h->volume, path, "1");
	}
	assert_says(h, "dir00/");
	assert_says(h, "dir07/");
	assert_says_not(h, "dir08/");
	close_house(h);
}

/* ---- vLLM ---- */

TEST(factors_that_differ_are_named_with_both_values)
{
	struct house *h = open_house();

	put_text(h->volume, FACTORS("old"),
		 "{\"code_hash\": \"aaa\", \"env\": {\"VLLM_USE_V1\": true, \"SAME\": 1, \"GONE\": "
		 "7}, "
		 "\"list\": [1, 2]}");
	mark_restored(h);
	put_text(
		h->volume, FACTORS("new"),
		"{\"code_hash\": \"bbb\", \"env\": {\"VLLM_USE_V1\": false, \"SAME\": 1, \"CAME\": "
		"{\"a\": 1}}, \"list\": [1, 2]}");
	assert_says(h, "cache_key_factors.json: ");
	assert_says(h, "code_hash is \"bbb\" and was \"aaa\"");
	assert_says(h, "env.VLLM_USE_V1 is false and was true");
	assert_says(h, "env.CAME is an object and was nothing");
	assert_says(h, "env.GONE is nothing and was 7");
	assert_says_not(h, "SAME");
	assert_says_not(h, "list");
	assert_says_not(h, NOTHING_FOUND);
	close_house(h);
}

TEST(what_looks_like_a_secret_is_not_shown)
{
	struct house *h = open_house();

	put_text(h->volume, FACTORS("old"),
		 "{\"HF_TOKEN\": \"one-value\", \"DEEP_KEY\": {\"inner\": \"one-value\"}, \"url\": "
		 "\"https:/"
		 "/user:one-value@host\"}");
	mark_restored(h);
	put_text(h->volume, FACTORS("new"),
		 "{\"HF_TOKEN\": \"two-value\", \"DEEP_KEY\": [\"two-value\"], \"url\": "
		 "\"https:/"
		 "/user:two-value@host\"}");
	assert_says(h, "HF_TOKEN is (not shown) and was (not shown)");
	assert_says(h, "DEEP_KEY is a list and was an object");
	assert_says(h, "url is (not shown) and was (not shown)");
	assert_says_not(h, "one-value");
	assert_says_not(h, "two-value");
	close_house(h);
}

TEST(only_a_few_differences_are_told_and_the_others_counted)
{
	struct house *h = open_house();
	char was[2000] = "{", now[2000] = "{";

	for (int i = 0; i < 20; i++) {
		char member[40];
		snprintf(member, sizeof(member), "%s\"f%02d\": %d", i > 0 ? ", " : "", i, i);
		strcat(was, member);
		snprintf(member, sizeof(member), "%s\"f%02d\": %d", i > 0 ? ", " : "", i, i + 100);
		strcat(now, member);
	}
	strcat(was, "}");
	strcat(now, "}");
	put_text(h->volume, FACTORS("old"), was);
	mark_restored(h);
	put_text(h->volume, FACTORS("new"), now);
	assert_says(h, ", and 16 more");
	close_house(h);
}

TEST(long_values_are_cut)
{
	struct house *h = open_house();
	char json[3000], value[2000];

	memset(value, 'v', sizeof(value));
	value[sizeof(value) - 1] = '\0';
	put_text(h->volume, FACTORS("old"), "{\"a\": 1}");
	mark_restored(h);
	snprintf(json, sizeof(json), "{\"a\": \"%s\"}", value);
	put_text(h->volume, FACTORS("new"), json);
	assert_says(h, "vvv... and was 1");
	assert_true(strlen(h->text) < 300);
	close_house(h);
}

TEST(the_nearest_of_several_is_told)
{
	struct house *h = open_house();

	put_text(h->volume, FACTORS("a"), "{\"x\": 1, \"y\": 1, \"z\": 1}");
	put_text(h->volume, FACTORS("b"), "{\"x\": 2, \"y\": 2, \"z\": 1}");
	put_text(h->volume, FACTORS("c"), "{\"x\": 1, \"y\": 1, \"z\": 2}");
	mark_restored(h);
	put_text(h->volume, FACTORS("new"), "{\"x\": 2, \"y\": 2, \"z\": 3}");
	assert_says(h, "z is 3 and was 1");
	assert_says_not(h, "x is");
	close_house(h);
}

TEST(equal_factors_are_no_cause)
{
	struct house *h = open_house();

	put_text(h->volume, FACTORS("a"), "{\"x\": 1, \"y\": {\"z\": [1]}}");
	mark_restored(h);
	put_text(h->volume, FACTORS("b"), "{\"y\": {\"z\": [1]}, \"x\": 1}");
	assert_says(h, NOTHING_FOUND);
	close_house(h);
}

TEST(malformed_and_huge_json_is_no_cause)
{
	static const char *const bad[] = { "",	   "{",		"[1, 2]",  "\"text\"",
					   "null", "{\"a\": }", "\377\376" };
	enum { HUGE_BYTES = 5 << 20 };

	for (size_t i = 0; i < COUNT(bad); i++)
		for (int side = 0; side < 2; side++) {
			struct house *h = open_house();
			put_text(h->volume, FACTORS("old"), side == 0 ? bad[i] : "{\"a\": 1}");
			mark_restored(h);
			put_text(h->volume, FACTORS("new"), side == 1 ? bad[i] : "{\"a\": 1}");
			(void)explain(h);
			close_house(h);
		}
	struct house *h = open_house();
	char *text = malloc(HUGE_BYTES);
	assert_non_null(text);
	memset(text, ' ', HUGE_BYTES);
	memcpy(text, "{\"a\": 2}", 8);
	put_text(h->volume, FACTORS("old"), "{\"a\": 1}");
	mark_restored(h);
	put_file(h->volume, FACTORS("new"), text, HUGE_BYTES, 0644, 0);
	assert_says(h, NOTHING_FOUND);
	/* So deep that a reader gives up. */
	memset(text, '[', HUGE_BYTES);
	put_file(h->volume, FACTORS("new"), text, 1 << 20, 0644, 0);
	assert_says(h, NOTHING_FOUND);
	free(text);
	close_house(h);
}

TEST(links_are_not_followed_to_factors)
{
	struct house *h = open_house();

	put_text(h->volume, FACTORS("old"), "{\"a\": 1}");
	mark_restored(h);
	put_text(h->volume, FACTORS("new"), "{\"a\": 1}");
	put_text(h->s.fd, "outside.json", "{\"a\": \"outside\"}");
	scope_scan struct warm_scan x = { 0 };
	scan(h, &x);
	/* Since the scan it has become a link. */
	assert_int_equal(unlinkat(h->volume, FACTORS("new"), 0), 0);
	assert_int_equal(symlinkat(scratch_path(&h->s, "outside.json"), h->volume, FACTORS("new")),
			 0);
	scope_buf struct warm_buf text = WARM_BUF_INIT;
	warm_inert_explain(h->volume, "/cache", &x, &h->ledger, &text);
	warm_buf_put_u8(&text, 0);
	assert_null(strstr((char *)text.data, "outside"));
	close_house(h);
}

/* ---- Triton ---- */

#define METADATA(arch, rest)                                                                      \
	"{\"hash\": \"" arch "\", \"target\": {\"backend\": \"cuda\", \"arch\": " arch "}, " rest \
	"}"

TEST(tritons_target_and_version_are_named_and_results_are_not)
{
	struct house *h = open_house();

	put_text(h->volume, "triton/" KEY52 "/__grp__add.json", "{\"child_paths\": {}}");
	put_text(h->volume, "triton/" KEY52 "/add.json",
		 METADATA("80", "\"triton_version\": \"3.1\", \"shared\": 1, \"num_regs\": 7, "
				"\"tmem_size\": 1, \"global_scratch_size\": 1, "
				"\"profile_scratch_size\": 1"));
	mark_restored(h);
	put_text(h->volume, "triton/" OTHER52 "/__grp__add.json", "{\"child_paths\": {\"a\": 1}}");
	put_text(h->volume, "triton/" OTHER52 "/add.json",
		 METADATA("90", "\"triton_version\": \"3.2\", \"shared\": 2, \"num_regs\": 8, "
				"\"tmem_size\": 2, \"global_scratch_size\": 2, "
				"\"profile_scratch_size\": 2"));
	assert_says(h, "add.json: ");
	assert_says(h, "target.arch is 90 and was 80");
	assert_says(h, "triton_version is \"3.2\" and was \"3.1\"");
	assert_says_not(h, "shared");
	assert_says_not(h, "num_regs");
	assert_says_not(h, "scratch");
	assert_says_not(h, "tmem");
	assert_says_not(h, "hash");
	assert_says_not(h, "child_paths");
	close_house(h);
}

TEST(kernels_of_other_names_are_not_compared)
{
	struct house *h = open_house();

	put_text(h->volume, "triton/" KEY52 "/add.json", METADATA("80", "\"x\": 1"));
	mark_restored(h);
	put_text(h->volume, "triton/" OTHER52 "/mul.json", METADATA("90", "\"x\": 1"));
	assert_says(h, NOTHING_FOUND);
	close_house(h);
}

TEST(many_groups_are_looked_at_within_bounds)
{
	struct house *h = open_house();
	char path[200];

	for (int i = 0; i < 300; i++) {
		snprintf(path, sizeof(path),
			 "vllm/torch_compile_cache/old%03d/rank_0_0/x/"
			 "cache_key_factors.json",
			 i);
		put_text(h->volume, path, "{\"a\": 1, \"b\": 2}");
	}
	mark_restored(h);
	for (int i = 0; i < 300; i++) {
		snprintf(path, sizeof(path),
			 "vllm/torch_compile_cache/new%03d/rank_0_0/x/"
			 "cache_key_factors.json",
			 i);
		put_text(h->volume, path, "{\"a\": 1, \"b\": 3}");
	}
	/* Of many files of one name one is compared. */
	assert_says(h, "b is 3 and was 2");
	assert_true(strlen(h->text) < 200);
	close_house(h);
}

TEST(names_that_are_no_format_come_out_as_they_are)
{
	struct house *h = open_house();

	put_text(h->volume, FACTORS("old"), "{\"%s%n\": \"%s\"}");
	mark_restored(h);
	put_text(h->volume, FACTORS("new"), "{\"%s%n\": \"%d\"}");
	assert_says(h, "%s%n is \"%d\" and was \"%s\"");
	close_house(h);
}

/* ---- Inductor ---- */

#define SYSTEM_A "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define SYSTEM_B "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"

TEST(another_system_key_of_inductor_is_told)
{
	struct house *h = open_house();

	put_text(h->volume, "inductor/cache/" SYSTEM_A, "{}");
	mark_restored(h);
	put_text(h->volume, "inductor/cache/" SYSTEM_B, "{}");
	assert_says(h, "Inductor's system key (GPU, CUDA and Triton) is fedcba987654 and was "
		       "0123456789ab");
	close_house(h);
}

TEST(the_same_system_key_is_no_cause)
{
	struct house *h = open_house();

	put_text(h->volume, "inductor/cache/" SYSTEM_A, "{}");
	put_text(h->volume, "inductor/cache/" SYSTEM_B, "{}");
	mark_restored(h);
	put_text(h->volume, "inductor/sub/cache/" SYSTEM_B, "{}");
	assert_says(h, NOTHING_FOUND);
	close_house(h);
}

/* ---- kernels ---- */

static struct warm_kernel_text text_view(const char *s)
{
	return (struct warm_kernel_text){ s, strlen(s) };
}

static void put_kernel(struct house *h, const char *path, const char *compiler, const char *option,
		       const char *name)
{
	scope_buf struct warm_buf b = WARM_BUF_INIT;
	struct warm_kernel_text options[] = { text_view(option) };
	struct warm_kernel_entry e = {
		.fingerprint = { 1, 2 },
		.inputs = { .compiler = text_view(compiler),
			    .environment = text_view(""),
			    .name = text_view(name),
			    .options = options,
			    .n_options = 1,
			    .source_bytes = 100 },
		.outputs = { text_view("ptx"), text_view(""), text_view(""), text_view(""),
			     text_view("") },
		.log = text_view(""),
	};

	warm_kernel_entry_encode(&e, &b);
	assert_false(b.failed);
	put_file(h->volume, path, b.data, b.bytes, 0644, 0);
}

TEST(a_kernels_options_and_compiler_are_told)
{
	struct house *h = open_house();

	put_kernel(h, "nvrtc/v1/ab/one", "b:1234 b:5678", "-arch=sm_80", "k.cu");
	put_kernel(h, "nvrtc/v1/ab/two", "b:9999 b:9999", "-arch=sm_70", "k.cu");
	mark_restored(h);
	put_kernel(h, "nvrtc/v1/cd/three", "b:1234 b:5678", "-arch=sm_90", "k.cu");
	assert_says(h, "kernel k.cu: ");
	assert_says(h, "-arch=sm_90");
	assert_says(h, "-arch=sm_80");
	assert_says_not(h, "sm_70");
	close_house(h);
}

TEST(kernel_entries_that_are_none_are_no_cause)
{
	struct house *h = open_house();

	put_text(h->volume, "nvrtc/v1/ab/torn", "WARM");
	put_kernel(h, "nvrtc/v1/ab/whole", "b:1234 b:5678", "-arch=sm_80", "k.cu");
	mark_restored(h);
	put_text(h->volume, "nvrtc/v1/cd/own", "no entry");
	assert_says(h, NOTHING_FOUND);
	close_house(h);
}

TEST(several_causes_are_told_one_after_another)
{
	struct house *h = open_house();

	put_text(h->volume, FACTORS("old"), "{\"a\": 1}");
	put_text(h->volume, "inductor/cache/" SYSTEM_A, "{}");
	put_kernel(h, "nvrtc/v1/ab/one", "b:1 b:2", "-arch=sm_80", "k.cu");
	mark_restored(h);
	put_text(h->volume, FACTORS("new"), "{\"a\": 2}");
	put_text(h->volume, "inductor/cache/" SYSTEM_B, "{}");
	put_kernel(h, "nvrtc/v1/cd/two", "b:1 b:2", "-arch=sm_90", "k.cu");
	assert_says(h, "a is 2 and was 1; Inductor's system key");
	assert_says(h, "; kernel k.cu: ");
	close_house(h);
}

TEST(a_secret_is_not_shown_wherever_its_name_stands)
{
	static const struct {
		const char *was, *now;
	} rows[] = {
		/* a member of an object of that name */
		{ "{\"A_KEY\": {\"inner\": \"one-value\"}}",
		  "{\"A_KEY\": {\"inner\": \"two-value\"}}" },
		/* in an object that the other lacks */
		{ "{\"x\": 1}", "{\"x\": 1, \"env\": {\"HF_TOKEN\": \"two-value\"}}" },
		{ "{\"x\": 1, \"env\": {\"HF_TOKEN\": \"one-value\"}}", "{\"x\": 1}" },
		/* in a list */
		{ "{\"env\": [{\"HF_TOKEN\": \"one-value\"}]}",
		  "{\"env\": [{\"HF_TOKEN\": \"two-value\"}]}" },
		{ "{\"env\": 1}", "{\"env\": {\"a\": [{\"DB_PASSWORD\": \"two-value\"}]}}" },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct house *h = open_house();
		put_text(h->volume, FACTORS("old"), rows[i].was);
		mark_restored(h);
		put_text(h->volume, FACTORS("new"), rows[i].now);
		assert_says_not(h, "one-value");
		assert_says_not(h, "two-value");
		close_house(h);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_written_is_a_mount_or_a_variable),
		cmocka_unit_test(an_empty_volume_is_explained_as_well),
		cmocka_unit_test(every_profile_names_its_own_variable),
		cmocka_unit_test(another_directory_is_named_with_its_variable),
		cmocka_unit_test(another_directory_of_a_known_profile_is_named),
		cmocka_unit_test(what_another_compiler_writes_is_no_other_directory),
		cmocka_unit_test(tritons_directory_is_the_one_above_its_keys),
		cmocka_unit_test(many_directories_are_told_as_far_as_there_is_room),
		cmocka_unit_test(factors_that_differ_are_named_with_both_values),
		cmocka_unit_test(what_looks_like_a_secret_is_not_shown),
		cmocka_unit_test(only_a_few_differences_are_told_and_the_others_counted),
		cmocka_unit_test(long_values_are_cut),
		cmocka_unit_test(the_nearest_of_several_is_told),
		cmocka_unit_test(equal_factors_are_no_cause),
		cmocka_unit_test(malformed_and_huge_json_is_no_cause),
		cmocka_unit_test(links_are_not_followed_to_factors),
		cmocka_unit_test(tritons_target_and_version_are_named_and_results_are_not),
		cmocka_unit_test(kernels_of_other_names_are_not_compared),
		cmocka_unit_test(many_groups_are_looked_at_within_bounds),
		cmocka_unit_test(names_that_are_no_format_come_out_as_they_are),
		cmocka_unit_test(another_system_key_of_inductor_is_told),
		cmocka_unit_test(the_same_system_key_is_no_cause),
		cmocka_unit_test(a_kernels_options_and_compiler_are_told),
		cmocka_unit_test(kernel_entries_that_are_none_are_no_cause),
		cmocka_unit_test(several_causes_are_told_one_after_another),
		cmocka_unit_test(a_secret_is_not_shown_wherever_its_name_stands),
	};

	return RUN(tests);
}
