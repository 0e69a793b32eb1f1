/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <fcntl.h>

#include "lib/sync/ledger.h"
#include "lib/sync/restore.h"

#define KEY52 "JLBMVPBZBZDTHY2Q54DTTFGFZEYHW5VI2ZA6RYBGUSU5E6OC3WDA"

enum { SELF = WARM_GROUP_SELF_KEYED };

static const struct warm_id first = { 1700000000000, 1 }, second = { 1700000000001, 2 },
			    third = { 1700000000002, 3 };

struct house {
	struct scratch s;
	struct warm_store *store;
	struct warm_key key;
	int volume;
	struct warm_restore_options o;
	struct warm_restore_result r;
	struct warm_error err;
	struct warm_notices notices;
	struct heard heard;
};

static struct house *open_house(void)
{
	struct house *h = calloc(1, sizeof(*h));

	assert_non_null(h);
	h->s = scratch_open();
	h->key = key_of("llama", "v2");
	put_dir(h->s.fd, "store");
	put_dir(h->s.fd, "volume");
	h->volume = openat(h->s.fd, "volume", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(h->volume >= 0);
	assert_int_equal(warm_store_open(scratch_path(&h->s, "store"), &h->store, NULL), 0);
	h->notices = (struct warm_notices){ hear, &h->heard };
	static char volume[300];
	snprintf(volume, sizeof(volume), "%s/volume", h->s.path);
	h->o = (struct warm_restore_options){ .store = h->store,
					      .key = h->key,
					      .volume = volume,
					      .mount = "/cache",
					      .notices = &h->notices };
	return h;
}

static void close_house(struct house *h)
{
	warm_store_free(h->store);
	close(h->volume);
	scratch_close(&h->s);
	free(h);
}

static int restore(struct house *h)
{
	h->err = (struct warm_error){ 0 };
	int rc = warm_restore_run(&h->o, NULL, &h->r, &h->err);

	if (rc != 0)
		print_message("# %s\n", h->err.msg);
	assert_false(is_there(h->volume, ".warmcache/stage"));
	return rc;
}

static void put_in(struct house *h, const char *version, struct warm_id id, const char *complete,
		   const struct made_group *groups, size_t n, char *ret_object)
{
	struct warm_key key = key_of("llama", version);
	struct made_layer l = { .id = id, .complete = complete, .groups = groups, .n_groups = n };

	put_made_layer(h->store, &key, &l, ret_object);
}

static void put(struct house *h, struct warm_id id, const struct made_group *groups, size_t n)
{
	put_in(h, "v2", id, NULL, groups, n, NULL);
}

static struct made_group one(const char *path, const char *text, unsigned flags)
{
	return (struct made_group){ .name = path,
				    .flags = flags,
				    .files = { { .path = path, .text = text } } };
}

static char *in_store(struct house *h, const char *object)
{
	static char path[2 * WARM_NAME_BYTES];

	snprintf(path, sizeof(path), "%s/store/%s", h->s.path, object);
	return path;
}

TEST(an_empty_store_and_a_missing_one_are_cold)
{
	struct house *h = open_house();

	assert_int_equal(restore(h), 0);
	assert_int_equal(h->r.status, WARM_RESTORE_COLD);
	assert_int_equal(warm_tree_remove(h->s.fd, "store", NULL), 0);
	assert_int_equal(restore(h), 0);
	assert_int_equal(h->r.status, WARM_RESTORE_COLD);
	close_house(h);
}

TEST(a_missing_volume_is_not_found)
{
	struct house *h = open_house();

	h->o.volume = scratch_path(&h->s, "nowhere");
	assert_int_equal(warm_restore_run(&h->o, NULL, &h->r, &h->err), WARM_NOT_FOUND);
	assert_int_equal(h->r.status, WARM_RESTORE_ERROR);
	assert_true(h->r.reason[0] != '\0');
	close_house(h);
}

TEST(groups_come_back_with_modes_and_nanoseconds)
{
	struct house *h = open_house();
	uint8_t *big = noise(3, 9 << 20);
	struct made_group groups[] = {
		{ .name = "triton/" KEY52,
		  .flags = SELF | WARM_GROUP_MOUNT_BOUND,
		  .bound = warm_mount_hash("/cache"),
		  .files = { { .path = "triton/" KEY52 "/a.json",
			       .text = "{}",
			       .mtime_ns = 1234567890123456789 },
			     { .path = "triton/" KEY52 "/run", .text = "x", .mode = 0111 } } },
		{ .name = "big",
		  .files = { { .path = "big",
			       .text = (const char *)big,
			       .bytes = 9 << 20,
			       .mode = 0111,
			       .mtime_ns = 987654321 } } },
		{ .name = "empty", .files = { { .path = "empty", .text = "" } } },
		{ .name = "deep", .files = { { .path = "deep/a/b/c", .text = "c" } } },
	};

	umask(077);
	put(h, first, groups, COUNT(groups));
	assert_int_equal(restore(h), 0);
	assert_int_equal(h->r.status, WARM_RESTORE_WARM);
	assert_int_equal(h->r.groups, 4);
	assert_int_equal(h->r.files, 5);
	struct stat st = stat_of(h->volume, "triton/" KEY52 "/a.json");
	assert_int_equal(warm_timespec_ns(st.st_mtim), 1234567890123456789);
	assert_int_equal(st.st_mode & 07777, 0666);
	assert_int_equal(stat_of(h->volume, "triton/" KEY52 "/run").st_mode & 07777, 0777);
	assert_int_equal(stat_of(h->volume, "triton/" KEY52).st_mode & 07777, 0777);
	st = stat_of(h->volume, "big");
	assert_int_equal(warm_timespec_ns(st.st_mtim), 987654321);
	assert_int_equal(st.st_mode & 07777, 0777);
	size_t bytes = 0;
	char *got = text_of(h->volume, "big", &bytes);
	assert_int_equal(bytes, 9 << 20);
	assert_memory_equal(got, big, bytes);
	free(got);
	free(big);
	assert_file(h->volume, "empty", "");
	assert_file(h->volume, "deep/a/b/c", "c");
	close_house(h);
}

TEST(a_second_restore_fetches_nothing)
{
	struct house *h = open_house();
	struct made_group groups[] = { one("a", "1", 0), one("d/b", "2", 0) };

	put(h, first, groups, 2);
	assert_int_equal(restore(h), 0);
	assert_true(h->r.fetched_bytes > 0);
	assert_int_equal(restore(h), 0);
	assert_int_equal(h->r.status, WARM_RESTORE_WARM);
	assert_int_equal(h->r.fetched_bytes, 0);
	assert_int_equal(h->r.files, 0);
	assert_int_equal(h->r.present_files, 2);
	assert_int_equal(h->r.groups, 2);
	close_house(h);
}

TEST(a_further_restore_fetches_what_the_volume_lacks)
{
	struct house *h = open_house();
	struct made_group groups[] = { one("d/a", "1", 0), one("d/b", "2", 0) };

	put(h, first, groups, 2);
	assert_int_equal(restore(h), 0);
	assert_int_equal(unlinkat(h->volume, "d/a", 0), 0);
	assert_int_equal(restore(h), 0);
	assert_int_equal(h->r.files, 1);
	assert_file(h->volume, "d/a", "1");
	close_house(h);
}

TEST(what_is_there_already_stays)
{
	struct house *h = open_house();
	struct made_group groups[] = { one("d/a", "store's", 0), one("d/b", "2", 0) };

	put(h, first, groups, 2);
	put_text(h->volume, "d/a", "mine");
	put_text(h->volume, "d/other", "mine too");
	assert_int_equal(restore(h), 0);
	assert_file(h->volume, "d/a", "mine");
	assert_file(h->volume, "d/other", "mine too");
	assert_file(h->volume, "d/b", "2");
	close_house(h);
}

TEST(a_group_that_the_model_is_making_is_left_to_it)
{
	struct house *h = open_house();
	struct made_group g = {
		.name = "deepgemm/cache/k",
		.flags = SELF,
		.files = { { .path = "deepgemm/cache/k/kernel.cu", .text = "store's" },
			   { .path = "deepgemm/cache/k/kernel.cubin", .text = "store's" } }
	};
	struct made_group groups[] = { g, one("other", "1", 0) };

	put(h, first, groups, 2);
	put_text(h->volume, "deepgemm/cache/k/kernel.cu", "mine");
	assert_int_equal(restore(h), 0);
	assert_file(h->volume, "deepgemm/cache/k/kernel.cu", "mine");
	assert_false(is_there(h->volume, "deepgemm/cache/k/kernel.cubin"));
	assert_file(h->volume, "other", "1");
	close_house(h);
}

TEST(groups_of_several_directories_come_whole)
{
	struct house *h = open_house();
	struct made_group groups[] = {
		{ .name = "flashinfer/0.5/90/cached_ops/norm",
		  .files = { { .path = "flashinfer/0.5/90/cached_ops/norm/norm.so", .text = "so" },
			     { .path = "flashinfer/0.5/90/generated/norm/norm.cu",
			       .text = "cu" } } },
		{ .name = "jax/f-cache",
		  .flags = SELF,
		  .files = { { .path = "jax/f-atime", .text = "t" },
			     { .path = "jax/f-cache", .text = "c" } } },
	};

	put(h, first, groups, 2);
	assert_int_equal(restore(h), 0);
	assert_int_equal(h->r.status, WARM_RESTORE_WARM);
	assert_file(h->volume, "flashinfer/0.5/90/cached_ops/norm/norm.so", "so");
	assert_file(h->volume, "flashinfer/0.5/90/generated/norm/norm.cu", "cu");
	assert_file(h->volume, "jax/f-atime", "t");
	assert_file(h->volume, "jax/f-cache", "c");
	close_house(h);
}

TEST(a_restore_that_was_cut_off_between_two_directories_is_completed)
{
	struct house *h = open_house();
	struct made_group g = { .name = "jax/f-cache",
				.flags = SELF,
				.files = { { .path = "jax/f-atime", .text = "t" },
					   { .path = "jax/f-cache", .text = "c" } } };

	put(h, first, &g, 1);
	assert_int_equal(restore(h), 0);
	assert_int_equal(unlinkat(h->volume, "jax/f-cache", 0), 0);
	put_text(h->volume, ".warmcache/stage/0123/groups/jax/f-cache", "to");
	assert_int_equal(restore(h), 0);
	assert_file(h->volume, "jax/f-cache", "c");
	close_house(h);
}

TEST(mutable_files_come_too)
{
	struct house *h = open_house();
	struct made_group groups[] = { one("inductor/ab/k.best_config", "{}", WARM_GROUP_MUTABLE),
				       one("inductor/ab/k.py", "x", SELF) };

	put(h, first, groups, 2);
	assert_int_equal(restore(h), 0);
	assert_int_equal(h->r.status, WARM_RESTORE_WARM);
	assert_file(h->volume, "inductor/ab/k.best_config", "{}");
	assert_file(h->volume, "inductor/ab/k.py", "x");
	close_house(h);
}

TEST(mutable_files_stay_out_while_something_is_missing)
{
	struct house *h = open_house();
	struct made_group groups[] = { one("inductor/ab/k.best_config", "{}", WARM_GROUP_MUTABLE),
				       one("inductor/ab/k.py", "12345", SELF),
				       one("inductor/ab/m.py", "12345", SELF) };

	put(h, first, groups, 3);
	h->o.max_bytes = 7;
	assert_int_equal(restore(h), WARM_LIMIT);
	assert_int_equal(h->r.status, WARM_RESTORE_PARTIAL);
	assert_true(is_there(h->volume, "inductor/ab/k.py"));
	assert_false(is_there(h->volume, "inductor/ab/m.py"));
	assert_false(is_there(h->volume, "inductor/ab/k.best_config"));
	close_house(h);
}

TEST(at_the_limit_what_fits_is_placed_and_it_says_so)
{
	struct house *h = open_house();
	struct made_group groups[] = { one("a", "12345", 0), one("b", "1234567890", 0),
				       one("c", "123", 0) };

	put(h, first, groups, 3);
	h->o.max_bytes = 9;
	assert_int_equal(restore(h), WARM_LIMIT);
	assert_int_equal(h->r.status, WARM_RESTORE_PARTIAL);
	assert_int_equal(h->r.groups, 2);
	assert_true(h->r.reason[0] != '\0');
	assert_true(is_there(h->volume, "a"));
	assert_false(is_there(h->volume, "b"));
	assert_true(is_there(h->volume, "c"));
	close_house(h);
}

TEST(groups_of_another_mount_path_or_cpu_are_skipped_and_it_says_so)
{
	struct house *h = open_house();
	struct made_group groups[] = {
		{ .name = "triton/" KEY52,
		  .flags = SELF | WARM_GROUP_MOUNT_BOUND,
		  .bound = warm_mount_hash("/elsewhere"),
		  .files = { { .path = "triton/" KEY52 "/a.json", .text = "{}" } } },
		{ .name = "inductor/ab/x.so",
		  .flags = WARM_GROUP_CPU_BOUND,
		  .bound = warm_cpu_hash() ^ 1,
		  .files = { { .path = "inductor/ab/x.so", .text = "other" } } },
		{ .name = "inductor/ab/x.so",
		  .flags = WARM_GROUP_CPU_BOUND,
		  .bound = warm_cpu_hash(),
		  .files = { { .path = "inductor/ab/x.so", .text = "ours" } } },
	};

	put(h, first, groups, 3);
	assert_int_equal(restore(h), 0);
	assert_false(is_there(h->volume, "triton"));
	assert_file(h->volume, "inductor/ab/x.so", "ours");
	assert_non_null(strstr(h->r.reason, "mount path"));
	assert_non_null(strstr(h->r.reason, "CPU"));
	close_house(h);
}

TEST(a_layer_with_a_corrupt_index_is_refused_and_the_rest_used)
{
	struct house *h = open_house();
	struct made_group a = one("a", "1", 0), b = one("b", "2", 0);
	char object[WARM_NAME_BYTES];

	put(h, first, &a, 1);
	put_in(h, "v2", second, NULL, &b, 1, object);
	flip_byte(in_store(h, object), -1);
	assert_int_equal(restore(h), WARM_CORRUPT);
	assert_int_equal(h->r.status, WARM_RESTORE_PARTIAL);
	assert_file(h->volume, "a", "1");
	assert_false(is_there(h->volume, "b"));
	assert_non_null(strstr(h->heard.text, "layer-refused"));
	close_house(h);
}

TEST(a_layer_that_is_cut_short_is_refused_and_the_rest_used)
{
	struct house *h = open_house();
	struct made_group a = one("a", "1", 0), b = one("b", "2", 0);
	char object[WARM_NAME_BYTES];

	put(h, first, &a, 1);
	put_in(h, "v2", second, NULL, &b, 1, object);
	for (off_t bytes = 300; bytes >= 0; bytes -= 50) {
		assert_int_equal(truncate(in_store(h, object), bytes), 0);
		assert_int_equal(restore(h), WARM_CORRUPT);
		assert_file(h->volume, "a", "1");
		assert_false(is_there(h->volume, "b"));
	}
	close_house(h);
}

TEST(a_corrupt_layer_that_a_base_covers_does_no_harm)
{
	struct house *h = open_house();
	struct made_group a = one("a", "1", 0);
	char object[WARM_NAME_BYTES];
	struct made_layer base = { .kind = WARM_BASE,
				   .id = second,
				   .covered = &first,
				   .n_covered = 1,
				   .groups = &a,
				   .n_groups = 1 };

	put_in(h, "v2", first, NULL, &a, 1, object);
	a.origin = first;
	put_made_layer(h->store, &h->key, &base, NULL);
	flip_byte(in_store(h, object), -1);
	int rc = restore(h);
	assert_file(h->volume, "a", "1");
	enum warm_restore_status status = h->r.status;
	close_house(h);
	assert_int_equal(rc, 0);
	assert_int_equal(status, WARM_RESTORE_WARM);
}

TEST(of_a_corrupt_frame_only_its_groups_stay_out)
{
	/* The group's first file is whole in a sound frame; the second spans into the corrupt one:
	 * a torn group in the stage, which must not get into the volume. */
	struct house *h = open_house();
	uint8_t *big = noise(3, 9 << 20);
	struct made_group groups[] = {
		one("x/before", "1", 0),
		{ .name = "deepgemm/cache/k",
		  .flags = SELF,
		  .files = { { .path = "deepgemm/cache/k/kernel.cu", .text = "cu" },
			     { .path = "deepgemm/cache/k/kernel.cubin",
			       .text = (const char *)big,
			       .bytes = 9 << 20 } } },
		one("x/after", "2", 0),
		one("inductor/ab/k.best_config", "{}", WARM_GROUP_MUTABLE),
	};
	char object[WARM_NAME_BYTES];

	put_in(h, "v2", first, NULL, groups, 4, object);
	flip_byte(in_store(h, object), 5 << 20);
	assert_int_equal(restore(h), WARM_CORRUPT);
	assert_int_equal(h->r.status, WARM_RESTORE_PARTIAL);
	assert_file(h->volume, "x/before", "1");
	assert_file(h->volume, "x/after", "2");
	assert_false(is_there(h->volume, "deepgemm/cache/k"));
	assert_false(is_there(h->volume, "inductor/ab/k.best_config"));
	assert_int_equal(h->r.groups, 2);
	/* Mended, the next run completes it. */
	flip_byte(in_store(h, object), 5 << 20);
	assert_int_equal(restore(h), 0);
	assert_int_equal(h->r.status, WARM_RESTORE_WARM);
	assert_int_equal(stat_of(h->volume, "deepgemm/cache/k/kernel.cubin").st_size, 9 << 20);
	assert_true(is_there(h->volume, "inductor/ab/k.best_config"));
	free(big);
	close_house(h);
}

TEST(a_dry_run_changes_nothing)
{
	struct house *h = open_house();
	struct made_group groups[] = { one("a", "1", 0), one("b", "22", 0) };

	put(h, first, groups, 2);
	put_text(h->volume, "a", "mine");
	h->o.dry_run = true;
	assert_int_equal(restore(h), 0);
	assert_int_equal(h->r.files, 1);
	assert_int_equal(h->r.bytes, 2);
	assert_int_equal(h->r.fetched_bytes, 0);
	assert_false(is_there(h->volume, "b"));
	assert_false(is_there(h->volume, ".warmcache"));
	close_house(h);
}

TEST(only_self_keyed_groups_come_from_another_version)
{
	struct house *h = open_house();
	struct made_group other[] = { one("keyed", "v1's", SELF), one("plain", "v1's", 0),
				      one("both", "v1's", SELF) };
	struct made_group own = one("both", "v2's", SELF);

	put_in(h, "v1", first, NULL, other, 3, NULL);
	put(h, second, &own, 1);
	assert_int_equal(restore(h), 0);
	assert_int_equal(h->r.status, WARM_RESTORE_FALLBACK);
	assert_string_equal(h->r.fallback_version, "v1");
	assert_file(h->volume, "keyed", "v1's");
	assert_file(h->volume, "both", "v2's");
	assert_false(is_there(h->volume, "plain"));
	scope_ledger struct warm_ledger ledger;
	assert_int_equal(warm_ledger_load(&ledger, h->volume, NULL), 0);
	assert_int_equal(warm_ledger_find(&ledger, "keyed")->flags,
			 WARM_LEDGER_RESTORED | WARM_LEDGER_FALLBACK);
	assert_string_equal(warm_ledger_find(&ledger, "keyed")->key, "llama/v1/test");
	assert_int_equal(warm_ledger_find(&ledger, "both")->flags, WARM_LEDGER_RESTORED);
	close_house(h);
}

TEST(a_complete_key_needs_no_other_version)
{
	struct house *h = open_house();
	struct made_group other = one("keyed", "v1's", SELF), own = one("own", "v2's", SELF);

	put_in(h, "v1", first, NULL, &other, 1, NULL);
	put_in(h, "v2", second, "", &own, 1, NULL);
	assert_int_equal(restore(h), 0);
	assert_int_equal(h->r.status, WARM_RESTORE_WARM);
	assert_true(h->r.complete);
	assert_false(is_there(h->volume, "keyed"));
	close_house(h);
}

TEST(the_newest_complete_version_is_fallen_back_on_before_a_newer_one)
{
	struct house *h = open_house();
	struct made_group old = one("k", "complete", SELF), newer = one("k", "newer", SELF);

	put_in(h, "v0", first, "", &old, 1, NULL);
	put_in(h, "v1", second, NULL, &newer, 1, NULL);
	assert_int_equal(restore(h), 0);
	assert_string_equal(h->r.fallback_version, "v0");
	assert_file(h->volume, "k", "complete");
	close_house(h);
}

TEST(named_versions_are_fallen_back_on_in_their_order)
{
	struct house *h = open_house();
	struct made_group a = one("k", "a", SELF), b = one("k", "b", SELF);
	const char *const versions[] = { "missing", "va", "vb" };

	put_in(h, "va", first, NULL, &a, 1, NULL);
	put_in(h, "vb", second, "", &b, 1, NULL);
	h->o.fallback = WARM_FALLBACK_VERSIONS;
	h->o.versions = versions;
	h->o.n_versions = 3;
	assert_int_equal(restore(h), 0);
	assert_file(h->volume, "k", "a");
	close_house(h);
}

TEST(without_a_fallback_another_version_is_not_looked_at)
{
	struct house *h = open_house();
	struct made_group other = one("keyed", "v1's", SELF);

	put_in(h, "v1", first, "", &other, 1, NULL);
	h->o.fallback = WARM_FALLBACK_NONE;
	assert_int_equal(restore(h), 0);
	assert_int_equal(h->r.status, WARM_RESTORE_COLD);
	close_house(h);
}

TEST(an_empty_version_gets_only_what_is_self_keyed)
{
	struct house *h = open_house();
	struct made_group groups[] = { one("keyed", "1", SELF), one("plain", "1", 0) };

	put_in(h, "", first, NULL, groups, 2, NULL);
	put_in(h, "v1", second, "", groups, 2, NULL);
	h->o.key = key_of("llama", "");
	assert_int_equal(restore(h), 0);
	assert_int_equal(h->r.status, WARM_RESTORE_WARM);
	assert_true(is_there(h->volume, "keyed"));
	assert_false(is_there(h->volume, "plain"));
	close_house(h);
}

TEST(a_ledger_of_another_boot_drops_the_caches_and_nothing_else)
{
	struct house *h = open_house();
	struct made_group groups[] = { one("inductor/ab/k.py", "whole", SELF),
				       one("top", "whole", 0) };

	put(h, first, groups, 2);
	assert_int_equal(restore(h), 0);
	/* The node crashed: the files are there, their bytes are not. */
	struct stat st = stat_of(h->volume, "inductor/ab/k.py");
	put_file(h->volume, "inductor/ab/k.py", "\0\0\0\0\0", 5, 0666,
		 warm_timespec_ns(st.st_mtim));
	put_text(h->volume, "triton/own", "lost too");
	put_text(h->volume, "weights/model.bin", "not ours");
	struct warm_ledger ledger;
	assert_int_equal(warm_ledger_load(&ledger, h->volume, NULL), 0);
	snprintf(ledger.boot_id, sizeof(ledger.boot_id), "00000000-0000-0000-0000-000000000000");
	assert_int_equal(warm_ledger_save(&ledger, h->volume, NULL), 0);
	warm_ledger_release(&ledger);
	assert_int_equal(restore(h), 0);
	assert_file(h->volume, "inductor/ab/k.py", "whole");
	assert_file(h->volume, "top", "whole");
	assert_int_equal(h->r.files, 2);
	assert_false(is_there(h->volume, "triton/own"));
	assert_file(h->volume, "weights/model.bin", "not ours");
	assert_non_null(strstr(h->heard.text, "volume-dropped"));
	close_house(h);
}

TEST(a_ledger_of_another_boot_drops_its_files_outside_the_roots)
{
	struct house *h = open_house();
	struct made_group group = one("own/dir/file", "whole", 0);

	put(h, first, &group, 1);
	assert_int_equal(restore(h), 0);
	struct warm_ledger ledger;
	assert_int_equal(warm_ledger_load(&ledger, h->volume, NULL), 0);
	snprintf(ledger.boot_id, sizeof(ledger.boot_id), "other");
	assert_int_equal(warm_ledger_save(&ledger, h->volume, NULL), 0);
	warm_ledger_release(&ledger);
	put_file(h->volume, "own/dir/file", "\0\0\0\0\0", 5, 0666, 1700000000123456789);
	assert_int_equal(restore(h), 0);
	assert_file(h->volume, "own/dir/file", "whole");
	close_house(h);
}

TEST(a_torn_ledger_drops_the_caches)
{
	struct house *h = open_house();
	struct made_group group = one("inductor/ab/k.py", "whole", SELF);

	put(h, first, &group, 1);
	assert_int_equal(restore(h), 0);
	put_text(h->volume, ".warmcache/ledger", "torn");
	put_text(h->volume, "inductor/ab/k.py", "?????");
	assert_int_equal(restore(h), 0);
	assert_file(h->volume, "inductor/ab/k.py", "whole");
	close_house(h);
}

TEST(an_old_stage_is_removed)
{
	struct house *h = open_house();

	put_text(h->volume, ".warmcache/stage/0123456789abcdef/groups/a/b", "left over");
	assert_int_equal(restore(h), 0);
	assert_false(is_there(h->volume, ".warmcache/stage"));
	close_house(h);
}

TEST(nothing_is_written_through_a_link_in_the_volume)
{
	struct house *h = open_house();
	struct made_group groups[] = { one("inductor/ab/k.py", "1", SELF),
				       one("inductor/ab/k.best_config", "{}", WARM_GROUP_MUTABLE),
				       one("sound", "2", 0) };

	put(h, first, groups, 3);
	put_dir(h->s.fd, "outside");
	assert_int_equal(symlinkat("../outside", h->volume, "inductor"), 0);
	(void)!restore(h);
	scope_close int outside = openat(h->s.fd, "outside", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char *tree = list_tree(outside, false);
	assert_string_equal(tree, "");
	assert_file(h->volume, "sound", "2");
	free(tree);
	close_house(h);
}

TEST(groups_of_two_versions_that_share_a_path_are_never_mixed)
{
	/* Another version's writer drew its groups differently: a file where ours has a directory. */
	struct house *h = open_house();
	struct made_group own = { .name = "d",
				  .flags = SELF,
				  .files = { { .path = "d/x", .text = "own" },
					     { .path = "d/y", .text = "own" } } };
	struct made_group other = one("d/x", "of another version, longer", SELF);

	put_in(h, "v1", first, NULL, &other, 1, NULL);
	put(h, second, &own, 1);
	(void)!restore(h);
	char *x = is_there(h->volume, "d/x") ? text_of(h->volume, "d/x", NULL) : strdup("nothing");
	bool sound = strcmp(x, "own") == 0;
	print_message("# d/x holds '%s'\n", x);
	free(x);
	close_house(h);
	assert_true(sound);
}

TEST(what_this_key_has_for_another_mount_path_does_not_keep_the_fallback_out)
{
	struct house *h = open_house();
	struct made_group g = { .name = "triton/" KEY52,
				.flags = SELF | WARM_GROUP_MOUNT_BOUND,
				.bound = warm_mount_hash("/elsewhere"),
				.files = { { .path = "triton/" KEY52 "/a.json", .text = "{}" } } };

	put(h, second, &g, 1);
	g.bound = warm_mount_hash("/cache");
	put_in(h, "v1", first, NULL, &g, 1, NULL);
	(void)!restore(h);
	bool there = is_there(h->volume, "triton/" KEY52 "/a.json");
	close_house(h);
	assert_true(there);
}

TEST(a_file_that_became_a_directory_costs_no_other_group)
{
	/* "d" was a file once and is a directory now, in two layers of one key. */
	struct house *h = open_house();
	struct made_group old[] = { one("d", "file", 0), one("e", "1", 0) };
	struct made_group new[] = { one("d/x", "below", 0), one("z/y", "2", 0) };

	put(h, first, old, 2);
	put(h, second, new, 2);
	(void)!restore(h);
	bool newest = is_there(h->volume, "d/x"),
	     rest = is_there(h->volume, "e") && is_there(h->volume, "z/y");
	size_t groups = h->r.groups;
	close_house(h);
	assert_true(rest);
	assert_true(newest);
	assert_int_equal(groups, 3);
}

TEST(a_file_of_this_version_where_another_has_a_directory_costs_no_other_group)
{
	struct house *h = open_house();
	struct made_group own = one("a", "file", SELF);
	struct made_group other[] = { one("a/b", "below", SELF), one("z/y", "2", SELF) };

	put_in(h, "v1", first, NULL, other, 2, NULL);
	put(h, second, &own, 1);
	(void)!restore(h);
	bool own_there = is_there(h->volume, "a"), rest = is_there(h->volume, "z/y");
	close_house(h);
	assert_true(own_there);
	assert_true(rest);
}

TEST(a_canceled_restore_leaves_whole_groups_or_none)
{
	struct house *h = open_house();
	struct made_group group = one("a", "1", 0);
	atomic_bool cancel = true;
	struct warm_call call = { .cancel = &cancel };

	put(h, first, &group, 1);
	assert_int_equal(warm_restore_run(&h->o, &call, &h->r, &h->err), WARM_CANCELED);
	assert_int_equal(h->r.status, WARM_RESTORE_ERROR);
	assert_false(is_there(h->volume, "a"));
	assert_true(h->r.reason[0] != '\0');
	close_house(h);
}

TEST(the_newest_state_of_a_group_is_restored)
{
	struct house *h = open_house();
	struct made_group a = one("a", "old", 0), b = one("a", "new", 0), c = one("a", "older", 0);
	struct made_layer base = { .kind = WARM_BASE, .id = third, .groups = &c, .n_groups = 1 };

	put(h, first, &a, 1);
	put(h, second, &b, 1);
	c.origin = (struct warm_id){ 1600000000000, 1 };
	put_made_layer(h->store, &h->key, &base, NULL);
	assert_int_equal(restore(h), 0);
	assert_file(h->volume, "a", "new");
	close_house(h);
}

TEST(a_path_as_long_as_paths_may_be_is_restored)
{
	struct house *h = open_house();
	static char path[WARM_PATH_BYTES];
	size_t at = 0;

	/* 4000 bytes: within the format's limit of 4095 */
	while (at < 3999) {
		path[at] = at % 201 == 200 ? '/' : 'p';
		at++;
	}
	path[at] = '\0';
	struct made_group groups[] = { one(path, "long", 0), one("short", "1", 0) };
	put(h, first, groups, 2);
	assert_int_equal(restore(h), 0);
	assert_int_equal(h->r.status, WARM_RESTORE_WARM);
	assert_int_equal(h->r.groups, 2);
	close_house(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_store_and_a_missing_one_are_cold),
		cmocka_unit_test(a_missing_volume_is_not_found),
		cmocka_unit_test(groups_come_back_with_modes_and_nanoseconds),
		cmocka_unit_test(a_second_restore_fetches_nothing),
		cmocka_unit_test(a_further_restore_fetches_what_the_volume_lacks),
		cmocka_unit_test(what_is_there_already_stays),
		cmocka_unit_test(a_group_that_the_model_is_making_is_left_to_it),
		cmocka_unit_test(groups_of_several_directories_come_whole),
		cmocka_unit_test(a_restore_that_was_cut_off_between_two_directories_is_completed),
		cmocka_unit_test(mutable_files_come_too),
		cmocka_unit_test(mutable_files_stay_out_while_something_is_missing),
		cmocka_unit_test(at_the_limit_what_fits_is_placed_and_it_says_so),
		cmocka_unit_test(groups_of_another_mount_path_or_cpu_are_skipped_and_it_says_so),
		cmocka_unit_test(a_layer_with_a_corrupt_index_is_refused_and_the_rest_used),
		cmocka_unit_test(a_layer_that_is_cut_short_is_refused_and_the_rest_used),
		cmocka_unit_test(a_corrupt_layer_that_a_base_covers_does_no_harm),
		cmocka_unit_test(of_a_corrupt_frame_only_its_groups_stay_out),
		cmocka_unit_test(a_dry_run_changes_nothing),
		cmocka_unit_test(only_self_keyed_groups_come_from_another_version),
		cmocka_unit_test(a_complete_key_needs_no_other_version),
		cmocka_unit_test(the_newest_complete_version_is_fallen_back_on_before_a_newer_one),
		cmocka_unit_test(named_versions_are_fallen_back_on_in_their_order),
		cmocka_unit_test(without_a_fallback_another_version_is_not_looked_at),
		cmocka_unit_test(an_empty_version_gets_only_what_is_self_keyed),
		cmocka_unit_test(a_ledger_of_another_boot_drops_the_caches_and_nothing_else),
		cmocka_unit_test(a_ledger_of_another_boot_drops_its_files_outside_the_roots),
		cmocka_unit_test(a_torn_ledger_drops_the_caches),
		cmocka_unit_test(an_old_stage_is_removed),
		cmocka_unit_test(nothing_is_written_through_a_link_in_the_volume),
		cmocka_unit_test(groups_of_two_versions_that_share_a_path_are_never_mixed),
		cmocka_unit_test(
			what_this_key_has_for_another_mount_path_does_not_keep_the_fallback_out),
		cmocka_unit_test(a_file_that_became_a_directory_costs_no_other_group),
		cmocka_unit_test(
			a_file_of_this_version_where_another_has_a_directory_costs_no_other_group),
		cmocka_unit_test(a_canceled_restore_leaves_whole_groups_or_none),
		cmocka_unit_test(the_newest_state_of_a_group_is_restored),
		cmocka_unit_test(a_path_as_long_as_paths_may_be_is_restored),
	};

	return RUN(tests);
}
