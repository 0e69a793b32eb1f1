/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <regex.h>

#include "lib/store/oci_name.h"

static bool matches(const char *pattern, const char *text)
{
	regex_t re;

	assert_int_equal(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
	bool found = regexec(&re, text, 0, NULL, 0) == 0;
	regfree(&re);
	return found;
}

/* Distribution specification 1.1, "Pulling manifests". */
#define REPOSITORY "^[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*)*$"
#define TAG "^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$"

static void random_part(struct dice *d, const char *letters, size_t most, char *ret_part)
{
	size_t n = 1 + roll_below(d, most);

	for (size_t i = 0; i < n; i++)
		ret_part[i] = letters[roll_below(d, strlen(letters))];
	ret_part[n] = '\0';
}

TEST(a_models_repository_is_as_documented)
{
	static const struct {
		const char *base, *name, *want;
	} rows[] = {
		{ "", "llama/v/p/x", "llama" },
		{ "team/a", "llama/v/p/x", "team/a/llama" },
		{ "", "Llama-3/", "x__4clama--3" },
		{ "", "a-b.c_d/v", "a--b.c_d" },
		{ "", "a__b/", "a-5f-5fb" },
		{ "", "a--b/", "a-2d-2db" },
		{ "", "-a/", "x__2da" },
		{ "", "a-/", "a-2d" },
		{ "", "_/", "x__5f" },
		{ "", "%5F/", "x__255-46" },
		{ "", "m\xc3\xa9/", "m-c3-a9" },
		{ "b", "aB/", "b/a-42" },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		char repository[WARM_OCI_REPOSITORY_BYTES];
		assert_int_equal(warm_oci_repository(rows[i].base, rows[i].name, repository, NULL),
				 0);
		assert_string_equal(repository, rows[i].want);
		assert_true(matches(REPOSITORY, repository));
		assert_true(warm_oci_is_ours(rows[i].base, repository));
	}
}

static int compare_texts(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

TEST(two_models_never_share_a_repository)
{
	enum { MODELS = 20000 };
	struct dice d = { 11 };
	char *models[MODELS], *repositories[MODELS];
	size_t n = 0;

	for (size_t i = 0; i < MODELS; i++) {
		char part[130];
		random_part(&d, i % 2 == 0 ? "ab-_.A" : "x_45c-2dL.\xc3", 6, part);
		models[i] = strdup(part);
	}
	qsort(models, MODELS, sizeof(*models), compare_texts);
	for (size_t i = 0; i < MODELS; i++) {
		char repository[WARM_OCI_REPOSITORY_BYTES];
		if (i > 0 && strcmp(models[i], models[i - 1]) == 0)
			continue;
		assert_int_equal(warm_oci_repository("", models[i], repository, NULL), 0);
		repositories[n++] = strdup(repository);
	}
	assert_true(n > 5000);
	qsort(repositories, n, sizeof(*repositories), compare_texts);
	for (size_t i = 0; i < n; i++) {
		if (i > 0)
			assert_string_not_equal(repositories[i], repositories[i - 1]);
		if (i % 10 == 0)
			assert_true(matches(REPOSITORY, repositories[i]));
	}
	for (size_t i = 0; i < n; i++)
		free(repositories[i]);
	for (size_t i = 0; i < MODELS; i++)
		free(models[i]);
}

TEST(a_tag_fits_any_name_and_begins_as_its_prefixes_say)
{
	static const char letters[] = "abXY09-_.+%~ \xc3\xa9";
	struct dice d = { 3 };

	for (int round = 0; round < 500; round++) {
		char model[130], version[130], platform[130], rest[200], name[700], prefix[500];
		char repository[WARM_OCI_REPOSITORY_BYTES], tag[WARM_OCI_TAG_BYTES];
		char begin[WARM_OCI_TAG_BYTES];
		random_part(&d, "abc", 128, model);
		random_part(&d, letters, 128, version);
		random_part(&d, letters, 128, platform);
		random_part(&d, letters, 190, rest);
		snprintf(name, sizeof(name), "%s/%s/%s/%s", model, version, platform, rest);
		assert_int_equal(warm_oci_name("base", name, repository, tag, NULL), 0);
		assert_true(matches(TAG, tag));
		assert_true(warm_oci_is_tag(tag));
		snprintf(prefix, sizeof(prefix), "%s/", model);
		warm_oci_tag_prefix(prefix, begin);
		assert_string_equal(begin, "");
		snprintf(prefix, sizeof(prefix), "%s/%s/", model, version);
		warm_oci_tag_prefix(prefix, begin);
		assert_int_equal(strlen(begin), 17);
		assert_memory_equal(tag, begin, 17);
		snprintf(prefix, sizeof(prefix), "%s/%s/%s/", model, version, platform);
		warm_oci_tag_prefix(prefix, begin);
		assert_int_equal(strlen(begin), 34);
		assert_memory_equal(tag, begin, 34);
	}
}

TEST(a_tag_is_two_hashes_and_the_last_part)
{
	char repository[WARM_OCI_REPOSITORY_BYTES], tag[WARM_OCI_TAG_BYTES];

	assert_int_equal(warm_oci_name("", "m/v1/x86_64/L-1-00ff-9.tar+zst", repository, tag, NULL),
			 0);
	assert_string_equal(tag, "3bfc269594ef6492-7520b5a1b312efde-L-1-00ff-9.tar_zst");
}

TEST(names_that_differ_have_tags_that_differ)
{
	static const char *const names[] = { "m/v/p/a", "m/v/q/a", "m/w/p/a",
					     "m/p/v/a", "m/v/p/b", "m/v-p/p/a" };
	char repository[WARM_OCI_REPOSITORY_BYTES], tags[COUNT(names)][WARM_OCI_TAG_BYTES];

	for (size_t i = 0; i < COUNT(names); i++) {
		assert_int_equal(warm_oci_name("", names[i], repository, tags[i], NULL), 0);
		for (size_t k = 0; k < i; k++)
			assert_string_not_equal(tags[i], tags[k]);
	}
}

TEST(names_of_other_than_four_parts_are_refused)
{
	static const char *const names[] = { "m", "m/v", "m/v/p", "m/v/p/", "", "/v/p/x" };
	char repository[WARM_OCI_REPOSITORY_BYTES], tag[WARM_OCI_TAG_BYTES];

	for (size_t i = 0; i < COUNT(names); i++)
		assert_int_equal(warm_oci_name("", names[i], repository, tag, NULL), WARM_INVALID);
}

TEST(a_repository_has_at_most_255_bytes)
{
	char base[130], model[130], repository[WARM_OCI_REPOSITORY_BYTES];

	memset(base, 'b', sizeof(base));
	memset(model, 'm', sizeof(model));
	base[128] = model[126] = '\0';
	assert_int_equal(warm_oci_repository(base, model, repository, NULL), 0);
	assert_int_equal(strlen(repository), 255);
	model[126] = 'm';
	model[127] = '\0';
	assert_int_equal(warm_oci_repository(base, model, repository, NULL), WARM_LIMIT);
	memset(model, 'M', 86);
	model[86] = '\0';
	assert_int_equal(warm_oci_repository("", model, repository, NULL), WARM_LIMIT);
	model[84] = '\0';
	assert_int_equal(warm_oci_repository("", model, repository, NULL), 0);
	assert_int_equal(strlen(repository), 254);
}

TEST(the_base_is_a_repositorys_path)
{
	static const char *const good[] = { "", "a", "team/cache", "a-b/c.d/e_f", "0/1" };
	static const char *const bad[] = { "A", "/a",  "a//b", "-a",  "a-",   "a/-b",	"a-/b",
					   ".", "a b", "a:b",  "a%b", "\xc3", "a/../b", "a/." };

	for (size_t i = 0; i < COUNT(good); i++)
		assert_int_equal(warm_oci_check_base(good[i], NULL), 0);
	for (size_t i = 0; i < COUNT(bad); i++)
		assert_int_equal(warm_oci_check_base(bad[i], NULL), WARM_INVALID);
}

TEST(tags_and_repositories_of_others_are_told_apart)
{
	static const char *const tags[] = { "latest",
					    "v1",
					    "",
					    "3bfc269594ef6492",
					    "3bfc269594ef6492-7c8d5ad80cc3ee82",
					    "3bfc269594ef6492-7c8d5ad80cc3ee82-",
					    "3bfc269594ef649-7c8d5ad80cc3ee82-x",
					    "3BFC269594ef6492-7c8d5ad80cc3ee82-x",
					    "3bfc269594ef64921-7c8d5ad80cc3ee82-x" };

	for (size_t i = 0; i < COUNT(tags); i++)
		assert_false(warm_oci_is_tag(tags[i]));
	assert_true(warm_oci_is_tag("3bfc269594ef6492-7c8d5ad80cc3ee82-x"));
	assert_true(warm_oci_is_ours("", "m"));
	assert_true(warm_oci_is_ours("a/b", "a/b/m"));
	assert_false(warm_oci_is_ours("", "a/m"));
	assert_false(warm_oci_is_ours("a", "a"));
	assert_false(warm_oci_is_ours("a", "ab/m"));
	assert_false(warm_oci_is_ours("a", "b/m"));
	assert_false(warm_oci_is_ours("a", "a/b/m"));
}

TEST(a_base_has_single_separators)
{
	static const char *const bad[] = { "a..b", "a._b", "a-.b", "a___b", "a/b..c" };

	for (size_t i = 0; i < COUNT(bad); i++) {
		assert_false(matches(REPOSITORY, bad[i]));
		assert_int_equal(warm_oci_check_base(bad[i], NULL), WARM_INVALID);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_models_repository_is_as_documented),
		cmocka_unit_test(two_models_never_share_a_repository),
		cmocka_unit_test(a_tag_fits_any_name_and_begins_as_its_prefixes_say),
		cmocka_unit_test(a_tag_is_two_hashes_and_the_last_part),
		cmocka_unit_test(names_that_differ_have_tags_that_differ),
		cmocka_unit_test(names_of_other_than_four_parts_are_refused),
		cmocka_unit_test(a_repository_has_at_most_255_bytes),
		cmocka_unit_test(the_base_is_a_repositorys_path),
		cmocka_unit_test(tags_and_repositories_of_others_are_told_apart),
		cmocka_unit_test(a_base_has_single_separators),
	};

	return RUN(tests);
}
