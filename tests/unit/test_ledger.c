/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include "lib/sync/ledger.h"

static struct warm_ledger_group *group_of(const char *name, uint64_t size)
{
	static char path[64], group_name[64], key[] = "m/v/p", profile[] = "file";
	static struct warm_ledger_file files[2];
	static struct warm_ledger_group g;

	snprintf(group_name, sizeof(group_name), "%s", name);
	snprintf(path, sizeof(path), "%s", name);
	files[0] = (struct warm_ledger_file){ path, size, 1700000000123456789, -5 };
	files[1] = (struct warm_ledger_file){ profile, 0, 1, 2 };
	g = (struct warm_ledger_group){ .name = group_name,
					.key = key,
					.profile = profile,
					.origin = { 7, 9 },
					.flags = WARM_LEDGER_RESTORED | WARM_LEDGER_FALLBACK,
					.files = files,
					.n_files = 2 };
	return &g;
}

TEST(a_ledger_is_read_back_as_it_was_saved)
{
	struct scratch s = scratch_open();
	struct warm_ledger l;
	char name[16];

	put_dir(s.fd, WARM_DIR);
	warm_ledger_init(&l);
	assert_true(warm_ledger_of_this_boot(&l));
	for (uint64_t i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "g%d", (int)(i * 37 % 200));
		assert_int_equal(warm_ledger_put(&l, group_of(name, i), NULL), 0);
	}
	assert_int_equal(warm_ledger_put(&l, group_of("g0", 12345), NULL), 0); /* replaces */
	assert_int_equal(l.n_groups, 200);
	assert_int_equal(warm_ledger_save(&l, s.fd, NULL), 0);
	warm_ledger_release(&l);
	assert_int_equal(warm_ledger_load(&l, s.fd, NULL), 0);
	assert_int_equal(l.n_groups, 200);
	assert_true(warm_ledger_of_this_boot(&l));
	for (size_t i = 1; i < l.n_groups; i++)
		assert_true(strcmp(l.groups[i - 1].name, l.groups[i].name) < 0);
	const struct warm_ledger_group *g = warm_ledger_find(&l, "g0");
	assert_non_null(g);
	assert_string_equal(g->key, "m/v/p");
	assert_string_equal(g->profile, "file");
	assert_int_equal(g->origin.ms, 7);
	assert_int_equal(g->origin.random, 9);
	assert_int_equal(g->flags, WARM_LEDGER_RESTORED | WARM_LEDGER_FALLBACK);
	assert_int_equal(g->n_files, 2);
	assert_int_equal(g->files[0].size, 12345);
	assert_int_equal(g->files[0].mtime_ns, 1700000000123456789);
	assert_int_equal(g->files[0].atime_ns, -5);
	assert_null(warm_ledger_find(&l, "none"));
	warm_ledger_release(&l);
	scratch_close(&s);
}

TEST(a_missing_ledger_is_not_found_and_empty)
{
	struct scratch s = scratch_open();
	struct warm_ledger l;

	assert_int_equal(warm_ledger_load(&l, s.fd, NULL), WARM_NOT_FOUND);
	assert_int_equal(l.n_groups, 0);
	assert_true(warm_ledger_of_this_boot(&l));
	warm_ledger_release(&l);
	scratch_close(&s);
}

TEST(a_torn_ledger_is_corrupt_wherever_it_is_torn)
{
	struct scratch s = scratch_open();
	struct warm_ledger l;
	size_t bytes = 0;

	put_dir(s.fd, WARM_DIR);
	warm_ledger_init(&l);
	assert_int_equal(warm_ledger_put(&l, group_of("g", 1), NULL), 0);
	assert_int_equal(warm_ledger_save(&l, s.fd, NULL), 0);
	warm_ledger_release(&l);
	char *data = text_of(s.fd, WARM_LEDGER_PATH, &bytes);
	for (size_t at = 0; at < bytes; at++) {
		put_file(s.fd, WARM_LEDGER_PATH, data, at, 0644, 0);
		assert_int_equal(warm_ledger_load(&l, s.fd, NULL), WARM_CORRUPT);
		assert_int_equal(l.n_groups, 0);
		warm_ledger_release(&l);
		data[at] ^= 1;
		put_file(s.fd, WARM_LEDGER_PATH, data, bytes, 0644, 0);
		data[at] ^= 1;
		assert_int_equal(warm_ledger_load(&l, s.fd, NULL), WARM_CORRUPT);
		warm_ledger_release(&l);
	}
	free(data);
	scratch_close(&s);
}

TEST(a_ledger_of_another_boot_is_known)
{
	struct scratch s = scratch_open();
	struct warm_ledger l;

	put_dir(s.fd, WARM_DIR);
	warm_ledger_init(&l);
	snprintf(l.boot_id, sizeof(l.boot_id), "another");
	assert_int_equal(warm_ledger_save(&l, s.fd, NULL), 0);
	warm_ledger_release(&l);
	assert_int_equal(warm_ledger_load(&l, s.fd, NULL), 0);
	assert_string_equal(l.boot_id, "another");
	assert_false(warm_ledger_of_this_boot(&l));
	warm_ledger_release(&l);
	scratch_close(&s);
}

static struct warm_ledger ledger_of(int n)
{
	struct warm_ledger l;
	char name[16];

	warm_ledger_init(&l);
	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "g%d", i);
		assert_int_equal(warm_ledger_put(&l, group_of(name, (uint64_t)i), NULL), 0);
	}
	return l;
}

TEST(dropped_groups_are_gone_and_the_others_are_found)
{
	static const char *const keeps[] = { "0123456789", "", "0", "9", "13579", "012", "789" };

	for (size_t i = 0; i < COUNT(keeps); i++) {
		struct warm_ledger l = ledger_of(10);
		bool gone[10];
		for (int k = 0; k < 10; k++)
			gone[k] = strchr(keeps[i], '0' + k) == NULL;
		warm_ledger_drop(&l, gone);
		assert_int_equal(l.n_groups, strlen(keeps[i]));
		for (int k = 0; k < 10; k++) {
			char name[16];
			snprintf(name, sizeof(name), "g%d", k);
			const struct warm_ledger_group *g = warm_ledger_find(&l, name);
			assert_true((g == NULL) == gone[k]);
			if (g != NULL)
				assert_int_equal(g->files[0].size, k);
		}
		/* And it goes on as before. */
		assert_int_equal(warm_ledger_put(&l, group_of("g55", 55), NULL), 0);
		assert_int_equal(warm_ledger_put(&l, group_of("g0", 77), NULL), 0);
		assert_int_equal(warm_ledger_find(&l, "g0")->files[0].size, 77);
		assert_int_equal(warm_ledger_find(&l, "g55")->files[0].size, 55);
		warm_ledger_release(&l);
	}
}

TEST(nothing_is_dropped_from_an_empty_ledger)
{
	struct warm_ledger l;
	bool gone[1] = { true };

	warm_ledger_init(&l);
	warm_ledger_drop(&l, gone);
	assert_int_equal(l.n_groups, 0);
	warm_ledger_release(&l);
}

TEST(a_ledger_in_another_file_is_a_ledger_of_its_own)
{
	struct scratch s = scratch_open();
	struct warm_ledger l = ledger_of(3), other = ledger_of(1);

	put_dir(s.fd, WARM_DIR "/side");
	assert_int_equal(warm_ledger_save(&l, s.fd, NULL), 0);
	assert_int_equal(warm_ledger_save_to(&other, s.fd, WARM_DIR "/side/ledger", NULL), 0);
	warm_ledger_release(&l);
	warm_ledger_release(&other);
	assert_int_equal(warm_ledger_load(&l, s.fd, NULL), 0);
	assert_int_equal(warm_ledger_load_from(&other, s.fd, WARM_DIR "/side/ledger", NULL), 0);
	assert_int_equal(l.n_groups, 3);
	assert_int_equal(other.n_groups, 1);
	assert_string_equal(other.groups[0].name, "g0");
	warm_ledger_release(&l);
	warm_ledger_release(&other);
	scratch_close(&s);
}

TEST(an_error_of_a_ledger_names_its_file)
{
	struct scratch s = scratch_open();
	struct warm_ledger l = ledger_of(1);
	struct warm_error err = { 0 };
	size_t bytes = 0;

	/* No directory, and a link in the way. */
	assert_int_equal(warm_ledger_save_to(&l, s.fd, "no/ledger", &err), WARM_NOT_FOUND);
	put_dir(s.fd, "there");
	assert_int_equal(symlinkat("there", s.fd, "no"), 0);
	assert_int_equal(warm_ledger_save_to(&l, s.fd, "there/ledger", &err), 0);
	warm_ledger_release(&l);
	assert_int_equal(warm_ledger_load_from(&l, s.fd, "no/ledger", &err), WARM_CORRUPT);
	assert_int_equal(l.n_groups, 0);
	warm_ledger_release(&l);
	assert_int_equal(warm_ledger_load_from(&l, s.fd, "there/none", &err), WARM_NOT_FOUND);
	warm_ledger_release(&l);
	char *data = text_of(s.fd, "there/ledger", &bytes);
	put_file(s.fd, "there/ledger", data, bytes - 1, 0644, 0);
	assert_int_equal(warm_ledger_load_from(&l, s.fd, "there/ledger", &err), WARM_CORRUPT);
	assert_non_null(strstr(err.msg, "there/ledger"));
	warm_ledger_release(&l);
	put_file(s.fd, "there/ledger", data, 5, 0644, 0);
	assert_int_equal(warm_ledger_load_from(&l, s.fd, "there/ledger", &err), WARM_CORRUPT);
	assert_non_null(strstr(err.msg, "there/ledger"));
	warm_ledger_release(&l);
	free(data);
	scratch_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_ledger_is_read_back_as_it_was_saved),
		cmocka_unit_test(a_missing_ledger_is_not_found_and_empty),
		cmocka_unit_test(a_torn_ledger_is_corrupt_wherever_it_is_torn),
		cmocka_unit_test(a_ledger_of_another_boot_is_known),
		cmocka_unit_test(dropped_groups_are_gone_and_the_others_are_found),
		cmocka_unit_test(nothing_is_dropped_from_an_empty_ledger),
		cmocka_unit_test(a_ledger_in_another_file_is_a_ledger_of_its_own),
		cmocka_unit_test(an_error_of_a_ledger_names_its_file),
	};

	return RUN(tests);
}
