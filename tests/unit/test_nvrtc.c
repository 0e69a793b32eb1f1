/* SPDX-License-Identifier: Apache-2.0 */
/* With libraries that the test makes itself, and of which none is ever loaded. */
#include "tests/support/scratch.h"

#include <fcntl.h>

#include "compiler/nvrtc.h"

/* A shared library with a build id (hexadecimal digits; NULL: none). */
static void make_library(const struct scratch *s, const char *path, const char *build_id)
{
	char parent[300];

	snprintf(parent, sizeof(parent), "%s", path);
	if (strrchr(parent, '/') != NULL) {
		*strrchr(parent, '/') = '\0';
		put_dir(s->fd, parent);
	}
	assert_int_equal(shell("echo 'int stub_%s;' | cc -shared -nostdlib -x c - -o %s/%s "
			       "-Wl,--build-id=%s%s",
			       build_id != NULL ? build_id : "none", s->path, path,
			       build_id != NULL ? "0x" : "none", build_id != NULL ? build_id : ""),
			 0);
}

/* NVRTC and its builtins in a directory; the versions as in real ones. */
static void make_nvrtc(const struct scratch *s, const char *dir, int major, const char *build_id)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/libnvrtc.so.%d", dir, major);
	make_library(s, path, build_id);
	snprintf(path, sizeof(path), "%s/libnvrtc-builtins.so.%d.0", dir, major);
	make_library(s, path, "bbbbbbbb");
}

#define NEEDS_CC()            \
	if (!have_tool("cc")) \
	skip()

/* None of what this machine has: an empty environment, and places of CUDA aside. */
static void forget(void)
{
	static const char *const variables[] = { "WARM_NVRTC_LIBRARY", "LD_LIBRARY_PATH",
						 "VIRTUAL_ENV", "CONDA_PREFIX" };

	for (size_t i = 0; i < COUNT(variables); i++)
		unsetenv(variables[i]);
}

static struct warm_nvrtc must_find(const char *library, int major)
{
	struct warm_nvrtc n;
	struct warm_error err = { 0 };

	if (warm_nvrtc_find(library, major, &n, &err) != 0)
		fail_msg("%s", err.msg);
	return n;
}

/* Whether it is the one with this build id. */
static bool is_found(int major, const char *build_id)
{
	struct warm_nvrtc n;
	char want[80];

	snprintf(want, sizeof(want), "b:%s ", build_id);
	return warm_nvrtc_find(NULL, major, &n, NULL) == 0 &&
	       strncmp(n.identity, want, strlen(want)) == 0;
}

static void assert_refused(const char *library, int status, const char *word)
{
	struct warm_nvrtc n;
	struct warm_error err = { 0 };

	assert_int_equal(warm_nvrtc_find(library, 0, &n, &err), status);
	assert_int_equal(err.status, status);
	if (strstr(err.msg, word) == NULL)
		fail_msg("'%s' doesn't say '%s'", err.msg, word);
}

/* ---- identity ---- */

TEST(copies_of_a_library_have_one_build_id)
{
	NEEDS_CC();
	scope_scratch struct scratch s = scratch_open();
	char one[72], other[72];

	make_library(&s, "a.so", "0123456789abcdef0123456789abcdef01234567");
	assert_int_equal(shell("cd %s && cp a.so b.so && strip -o c.so a.so 2>/dev/null || "
			       "cp a.so c.so",
			       s.path),
			 0);
	assert_int_equal(warm_elf_identity(scratch_path(&s, "a.so"), one, NULL), 0);
	assert_string_equal(one, "b:0123456789abcdef0123456789abcdef01234567");
	for (const char *const *p = (const char *const[]){ "b.so", "c.so", NULL }; *p; p++) {
		assert_int_equal(warm_elf_identity(scratch_path(&s, *p), other, NULL), 0);
		assert_string_equal(other, one);
	}
	make_library(&s, "d.so", "0123456789abcdef0123456789abcdef01234568");
	assert_int_equal(warm_elf_identity(scratch_path(&s, "d.so"), other, NULL), 0);
	assert_string_not_equal(other, one);
}

TEST(a_library_without_a_build_id_is_known_by_its_contents)
{
	NEEDS_CC();
	scope_scratch struct scratch s = scratch_open();
	char one[72], other[72];

	make_library(&s, "a.so", NULL);
	assert_int_equal(warm_elf_identity(scratch_path(&s, "a.so"), one, NULL), 0);
	assert_int_equal(strlen(one), 2 + 32);
	assert_memory_equal(one, "h:", 2);
	assert_int_equal(shell("cd %s && cp a.so b.so", s.path), 0);
	assert_int_equal(warm_elf_identity(scratch_path(&s, "b.so"), other, NULL), 0);
	assert_string_equal(other, one);
	flip_byte(scratch_path(&s, "b.so"), -1);
	assert_int_equal(warm_elf_identity(scratch_path(&s, "b.so"), other, NULL), 0);
	assert_string_not_equal(other, one);
}

TEST(what_is_no_library_has_no_identity)
{
	scope_scratch struct scratch s = scratch_open();
	char identity[72];

	put_text(s.fd, "text",
		 "this is a text, and long enough to have the header of a library "
		 "in it, were it one");
	put_text(s.fd, "empty", "");
	assert_int_equal(warm_elf_identity(scratch_path(&s, "text"), identity, NULL), WARM_CORRUPT);
	assert_int_equal(warm_elf_identity(scratch_path(&s, "empty"), identity, NULL),
			 WARM_CORRUPT);
	assert_int_equal(warm_elf_identity(scratch_path(&s, "none"), identity, NULL),
			 WARM_NOT_FOUND);
}

/* ---- by path ---- */

TEST(a_given_path_comes_before_the_environment)
{
	NEEDS_CC();
	scope_scratch struct scratch s = scratch_open();

	forget();
	make_nvrtc(&s, "given", 13, "aaaaaaaa");
	make_nvrtc(&s, "named", 13, "cccccccc");
	make_nvrtc(&s, "listed", 13, "dddddddd");
	setenv("WARM_NVRTC_LIBRARY", scratch_path(&s, "named/libnvrtc.so.13"), 1);
	setenv("LD_LIBRARY_PATH", scratch_path(&s, "listed"), 1);
	struct warm_nvrtc n = must_find(scratch_path(&s, "given/libnvrtc.so.13"), 0);
	assert_string_equal(n.identity, "b:aaaaaaaa b:bbbbbbbb");
	assert_string_equal(n.library, scratch_path(&s, "given/libnvrtc.so.13"));
	assert_string_equal(n.builtins, scratch_path(&s, "given/libnvrtc-builtins.so.13.0"));
	assert_true(is_found(0, "cccccccc"));
	unsetenv("WARM_NVRTC_LIBRARY");
	assert_true(is_found(0, "dddddddd"));
	/* A name that leads nowhere is not passed over. */
	setenv("WARM_NVRTC_LIBRARY", "/nowhere/libnvrtc.so.13", 1);
	assert_refused(NULL, WARM_NOT_FOUND, "/nowhere/libnvrtc.so.13");
	setenv("WARM_NVRTC_LIBRARY", "", 1); /* an empty one is none */
	assert_true(is_found(0, "dddddddd"));
	forget();
}

TEST(links_are_followed_to_the_real_files)
{
	NEEDS_CC();
	scope_scratch struct scratch s = scratch_open();

	forget();
	make_library(&s, "real/libnvrtc.so.13.0.88", "aaaaaaaa");
	make_library(&s, "real/libnvrtc-builtins.so.13.0.88", "eeeeeeee");
	make_library(&s, "real/libnvrtc-builtins.so.12.9.86", "ffffffff");
	put_dir(s.fd, "lib");
	assert_int_equal(symlinkat("../real/libnvrtc.so.13.0.88", s.fd, "lib/libnvrtc.so.13"), 0);
	struct warm_nvrtc n = must_find(scratch_path(&s, "lib/libnvrtc.so.13"), 0);
	assert_string_equal(n.library, scratch_path(&s, "real/libnvrtc.so.13.0.88"));
	/* Of several builtins those of its own version. */
	assert_string_equal(n.identity, "b:aaaaaaaa b:eeeeeeee");
}

TEST(builtins_that_are_missing_or_may_be_anothers_are_told)
{
	NEEDS_CC();
	scope_scratch struct scratch s = scratch_open();
	const char *library = scratch_path(&s, "lib/libnvrtc.so.13");

	forget();
	make_library(&s, "lib/libnvrtc.so.13", "aaaaaaaa");
	assert_refused(library, WARM_NOT_FOUND, "libnvrtc-builtins is missing beside");
	assert_refused(library, WARM_NOT_FOUND, library);
	make_library(&s, "lib/libnvrtc-builtins.so.13.0.alt.1", "cccccccc");
	assert_refused(library, WARM_NOT_FOUND, "libnvrtc-builtins is missing beside");
	make_library(&s, "lib/libnvrtc-builtins.so.13.0.88", "dddddddd");
	assert_string_equal(must_find(library, 0).identity, "b:aaaaaaaa b:dddddddd");
	make_library(&s, "lib/libnvrtc-builtins.so.12.9.86", "eeeeeeee");
	assert_refused(library, WARM_NOT_FOUND, "several versions of libnvrtc-builtins");
	assert_int_equal(unlinkat(s.fd, "lib/libnvrtc-builtins.so.12.9.86", 0), 0);
	/* Two names of one file are one. */
	assert_int_equal(
		symlinkat("libnvrtc-builtins.so.13.0.88", s.fd, "lib/libnvrtc-builtins.so.13.0"),
		0);
	assert_string_equal(must_find(library, 0).identity, "b:aaaaaaaa b:dddddddd");
	put_text(s.fd, "lib/libnvrtc-builtins.so.13.0.88", "no library");
	assert_refused(library, WARM_CORRUPT, "is no library");
}

TEST(our_own_drop_in_is_refused)
{
	NEEDS_CC();
	scope_scratch struct scratch s = scratch_open();
	const char *library = scratch_path(&s, "lib/libnvrtc.so.13");

	forget();
	make_nvrtc(&s, "lib", 13, "aaaaaaaa");
	assert_int_equal(
		shell("printf '%%s\\n' '.section .note.warmcache,\"a\",@note' '.long 4,4,1' "
		      "'.ascii \"wrm\\\\0\"' '.long 1' | cc -shared -nostdlib -x assembler - -o %s "
		      "-Wl,--build-id=0xaaaaaaaa",
		      library),
		0);
	assert_refused(library, WARM_CORRUPT, "drop-in");
	assert_refused(library, WARM_CORRUPT, library);
	setenv("WARM_NVRTC_LIBRARY", library, 1);
	assert_refused(NULL, WARM_CORRUPT, "drop-in");
	unsetenv("WARM_NVRTC_LIBRARY");
	/* Where it stands in front of NVRTC, NVRTC is found behind it. */
	make_nvrtc(&s, "behind", 13, "cccccccc");
	char list[600];
	snprintf(list, sizeof(list), "%s/lib:%s/behind", s.path, s.path);
	setenv("LD_LIBRARY_PATH", list, 1);
	assert_true(is_found(0, "cccccccc"));
	forget();
}

TEST(what_was_found_is_known_again_until_one_of_both_files_changes)
{
	NEEDS_CC();
	scope_scratch struct scratch s = scratch_open();
	static const char *const names[] = { "lib/libnvrtc.so.13",
					     "lib/libnvrtc-builtins.so.13.0" };

	forget();
	for (size_t i = 0; i < COUNT(names); i++) {
		make_nvrtc(&s, "lib", 13, "aaaaaaaa");
		struct warm_nvrtc n = must_find(scratch_path(&s, "lib/libnvrtc.so.13"), 0);
		assert_true(warm_nvrtc_unchanged(&n));
		set_times(s.fd, names[i], 1000000000, 1000000000);
		assert_false(warm_nvrtc_unchanged(&n));
		n = must_find(scratch_path(&s, "lib/libnvrtc.so.13"), 0);
		/* Another file with the same times, as in an image. */
		assert_int_equal(
			shell("cd %s && cp -p %s new && mv new %s", s.path, names[i], names[i]), 0);
		assert_false(warm_nvrtc_unchanged(&n));
		n = must_find(scratch_path(&s, "lib/libnvrtc.so.13"), 0);
		assert_int_equal(unlinkat(s.fd, names[i], 0), 0);
		assert_false(warm_nvrtc_unchanged(&n));
	}
}

/* ---- the search ---- */

TEST(directories_of_ld_library_path_are_looked_through_in_order)
{
	NEEDS_CC();
	scope_scratch struct scratch s = scratch_open();
	char list[900];

	forget();
	put_dir(s.fd, "empty");
	make_nvrtc(&s, "first", 13, "aaaaaaaa");
	make_nvrtc(&s, "second", 13, "cccccccc");
	snprintf(list, sizeof(list), ":/nowhere:%s/empty:%s/first:%s/second", s.path, s.path,
		 s.path);
	setenv("LD_LIBRARY_PATH", list, 1);
	assert_true(is_found(0, "aaaaaaaa"));
	/* One that is no NVRTC, or lacks its builtins, is passed over. */
	put_text(s.fd, "first/libnvrtc.so.13", "no library");
	assert_true(is_found(0, "cccccccc"));
	make_library(&s, "first/libnvrtc.so.13", "aaaaaaaa");
	assert_true(is_found(0, "aaaaaaaa"));
	assert_int_equal(unlinkat(s.fd, "first/libnvrtc-builtins.so.13.0", 0), 0);
	assert_true(is_found(0, "cccccccc"));
	forget();
}

TEST(of_two_major_versions_the_newer_is_taken_or_the_one_asked_for)
{
	NEEDS_CC();
	scope_scratch struct scratch s = scratch_open();

	forget();
	make_nvrtc(&s, "twelve", 12, "12121212");
	make_nvrtc(&s, "thirteen", 13, "13131313");
	char list[600];
	snprintf(list, sizeof(list), "%s/twelve:%s/thirteen", s.path, s.path);
	setenv("LD_LIBRARY_PATH", list, 1);
	assert_true(is_found(0, "12121212")); /* the first directory first */
	assert_true(is_found(12, "12121212"));
	assert_true(is_found(13, "13131313"));
	assert_int_equal(shell("cd %s && mkdir both && cp twelve/* thirteen/* both", s.path), 0);
	setenv("LD_LIBRARY_PATH", scratch_path(&s, "both"), 1);
	/* Their builtins can't be told apart by these names; by the real ones they can. */
	assert_int_equal(shell("cd %s/both && mv libnvrtc.so.12 libnvrtc.so.12.0.76 && "
			       "mv libnvrtc.so.13 libnvrtc.so.13.0.88 && "
			       "ln -s libnvrtc.so.12.0.76 libnvrtc.so.12 && "
			       "ln -s libnvrtc.so.13.0.88 libnvrtc.so.13",
			       s.path),
			 0);
	assert_true(is_found(0, "13131313"));
	assert_true(is_found(12, "12121212"));
	assert_true(is_found(13, "13131313"));
	forget();
}

TEST(wheels_of_a_python_environment_are_found)
{
	NEEDS_CC();
	scope_scratch struct scratch s = scratch_open();
	static const char *const variables[] = { "VIRTUAL_ENV", "CONDA_PREFIX" };

	make_nvrtc(&s, "env/lib/python3.11/site-packages/nvidia/cu13/lib", 13, "aaaaaaaa");
	make_nvrtc(&s, "old/lib/python3.9/site-packages/nvidia/cuda_nvrtc/lib", 12, "cccccccc");
	make_nvrtc(&s, "conda/lib", 13, "dddddddd"); /* not a wheel, beside some Python */
	put_dir(s.fd, "conda/lib/python3.12/site-packages");
	for (size_t i = 0; i < COUNT(variables); i++) {
		forget();
		struct warm_nvrtc n;
		if (warm_nvrtc_find(NULL, 0, &n, NULL) == 0) {
			print_message(
				"# note: this machine has %s; other places aren't looked at\n",
				n.library);
			return;
		}
		setenv(variables[i], scratch_path(&s, "env"), 1);
		assert_true(is_found(0, "aaaaaaaa"));
		assert_false(is_found(12, "aaaaaaaa"));
		setenv(variables[i], scratch_path(&s, "old"), 1);
		assert_true(is_found(0, "cccccccc"));
		setenv(variables[i], scratch_path(&s, "conda"), 1);
		assert_true(is_found(0, "dddddddd"));
		setenv(variables[i], "", 1);
		assert_false(is_found(0, "dddddddd"));
	}
	forget();
	/* LD_LIBRARY_PATH comes first. */
	make_nvrtc(&s, "first", 13, "eeeeeeee");
	setenv("VIRTUAL_ENV", scratch_path(&s, "env"), 1);
	setenv("LD_LIBRARY_PATH", scratch_path(&s, "first"), 1);
	assert_true(is_found(0, "eeeeeeee"));
	forget();
}

TEST(a_library_alone_is_found_without_its_builtins)
{
	NEEDS_CC();
	scope_scratch struct scratch s = scratch_open();
	struct warm_nvrtc n;

	forget();
	make_library(&s, "lib/libnvrtc.so.13", "aaaaaaaa");
	setenv("LD_LIBRARY_PATH", scratch_path(&s, "lib"), 1);
	assert_false(is_found(0, "aaaaaaaa"));
	assert_int_equal(warm_nvrtc_find_alone(13, &n), 0);
	assert_string_equal(n.library, scratch_path(&s, "lib/libnvrtc.so.13"));
	put_text(s.fd, "lib/libnvrtc.so.13", "no library");
	assert_true(warm_nvrtc_find_alone(13, &n) != 0 ||
		    strcmp(n.library, scratch_path(&s, "lib/libnvrtc.so.13")) != 0);
	forget();
}

TEST(where_there_is_none_the_places_are_told)
{
	scope_scratch struct scratch s = scratch_open();
	struct warm_nvrtc n;

	forget();
	if (warm_nvrtc_find(NULL, 0, &n, NULL) == 0) {
		print_message("# note: this machine has %s; that there is none isn't tried\n",
			      n.library);
		return;
	}
	assert_refused(NULL, WARM_NOT_FOUND, "set WARM_NVRTC_LIBRARY");
	assert_refused(NULL, WARM_NOT_FOUND, "/usr/local/cuda/lib64");
	setenv("LD_LIBRARY_PATH", s.path, 1);
	assert_refused(NULL, WARM_NOT_FOUND, s.path);
	/* The one there was, and why it will not do, is more than where there was none. */
	put_text(s.fd, "libnvrtc.so.13", "no library");
	assert_refused(NULL, WARM_NOT_FOUND, "is no library");
	forget();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(copies_of_a_library_have_one_build_id),
		cmocka_unit_test(a_library_without_a_build_id_is_known_by_its_contents),
		cmocka_unit_test(what_is_no_library_has_no_identity),
		cmocka_unit_test(a_given_path_comes_before_the_environment),
		cmocka_unit_test(links_are_followed_to_the_real_files),
		cmocka_unit_test(builtins_that_are_missing_or_may_be_anothers_are_told),
		cmocka_unit_test(our_own_drop_in_is_refused),
		cmocka_unit_test(what_was_found_is_known_again_until_one_of_both_files_changes),
		cmocka_unit_test(directories_of_ld_library_path_are_looked_through_in_order),
		cmocka_unit_test(of_two_major_versions_the_newer_is_taken_or_the_one_asked_for),
		cmocka_unit_test(wheels_of_a_python_environment_are_found),
		cmocka_unit_test(a_library_alone_is_found_without_its_builtins),
		cmocka_unit_test(where_there_is_none_the_places_are_told),
	};

	return RUN(tests);
}
