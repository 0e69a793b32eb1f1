/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <fcntl.h>
#include <time.h>

#include "lib/sync/ledger.h"
#include "lib/sync/publish.h"
#include "lib/sync/restore.h"

#define KEY52 "JLBMVPBZBZDTHY2Q54DTTFGFZEYHW5VI2ZA6RYBGUSU5E6OC3WDA"

/* Groups are settled at once, or never within a test. */
enum { AT_ONCE = 0, NEVER = 3600 * 1000 };

struct house {
	struct scratch s;
	struct warm_store *store;
	int volume;
	struct warm_publish_options o;
	struct warm_publish_report r;
	struct warm_error err;
	struct warm_notices notices;
	struct heard heard;
	struct warm_publisher *p;
	char volume_path[300];
};

static struct house *open_house(int64_t settle_ms)
{
	struct house *h = calloc(1, sizeof(*h));

	assert_non_null(h);
	h->s = scratch_open();
	put_dir(h->s.fd, "store");
	put_dir(h->s.fd, "volume");
	h->volume = openat(h->s.fd, "volume", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(h->volume >= 0);
	assert_int_equal(warm_store_open(scratch_path(&h->s, "store"), &h->store, NULL), 0);
	snprintf(h->volume_path, sizeof(h->volume_path), "%s/volume", h->s.path);
	h->notices = (struct warm_notices){ hear, &h->heard };
	h->o = (struct warm_publish_options){ .store = h->store,
					      .key = key_of("llama", "v2"),
					      .volume = h->volume_path,
					      .mount = "/cache",
					      .settle_ms = settle_ms,
					      .notices = &h->notices };
	return h;
}

static void close_house(struct house *h)
{
	warm_publisher_free(h->p);
	warm_store_free(h->store);
	close(h->volume);
	scratch_close(&h->s);
	free(h);
}

static void publish(struct house *h, enum warm_publish_mode mode, const char *complete)
{
	if (h->p == NULL && warm_publisher_open(&h->o, &h->p, &h->err) != 0)
		fail_msg("%s", h->err.msg);
	if (warm_publisher_run(h->p, mode, complete, NULL, NULL, NULL, &h->r, &h->err) != 0)
		fail_msg("%s", h->err.msg);
}

/* Another pod: a volume of its own, restored from the same store. */
static struct warm_restore_result restore_into(struct house *h, const char *volume,
					       const char *version, const char *mount)
{
	struct warm_restore_result r;
	struct warm_restore_options o = { .store = h->store,
					  .key = key_of("llama", version),
					  .volume = scratch_path(&h->s, volume),
					  .mount = mount,
					  .notices = &h->notices };

	put_dir(h->s.fd, volume);
	if (warm_restore_run(&o, NULL, &r, &h->err) != 0)
		fail_msg("%s", h->err.msg);
	return r;
}

static size_t layers_of(struct house *h, const char *version)
{
	scope_catalog struct warm_catalog c = { 0 };
	struct warm_key key = key_of("llama", version);

	assert_int_equal(warm_catalog_list(&c, h->store, &key, false, NULL, NULL), 0);
	return c.n_layers;
}

/* Wait for the clock that stamps files to move on. */
static void wait_a_moment(void)
{
	struct timespec t = { 0, 30 * 1000000 };

	nanosleep(&t, NULL);
}

TEST(what_was_published_is_restored_to_the_same_tree)
{
	struct house *h = open_house(AT_ONCE);
	uint8_t *big = noise(1, 9 << 20);

	put_file(h->volume, "x/plain", "plain", 5, 0644, 1600000000123456789);
	put_file(h->volume, "x/exe", "run", 3, 0755, 1600000000000000001);
	put_file(h->volume, "x/empty", "", 0, 0600, 1);
	put_file(h->volume, "x/big", big, 9 << 20, 0644, 0);
	put_file(h->volume, "triton/" KEY52 "/__grp__k.json",
		 "{\"child_paths\": {\"k.ptx\": \"/x\"}}", 32, 0644, 0);
	put_file(h->volume, "triton/" KEY52 "/k.ptx", "ptx", 3, 0644, 1500000000999999999);
	put_file(h->volume, "inductor/ab/c.py", "print()", 7, 0644, 0);
	put_file(h->volume, "\303\274ber/\377", "odd", 3, 0644, 0);
	free(big);
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.groups, 7);
	assert_int_equal(h->r.files, 8);
	assert_int_equal(h->r.layers, 1);
	struct warm_restore_result r = restore_into(h, "other", "v2", "/cache");
	assert_int_equal(r.status, WARM_RESTORE_WARM);
	scope_close int other = openat(h->s.fd, "other", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char *want = list_tree(h->volume, true), *got = list_tree(other, true);
	assert_string_equal(got, want);
	free(want);
	free(got);
	close_house(h);
}

TEST(triton_groups_are_restored_under_their_own_mount_path_alone)
{
	struct house *h = open_house(AT_ONCE);

	put_text(h->volume, "triton/" KEY52 "/__grp__k.json", "{\"child_paths\": {}}");
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.groups, 1);
	assert_int_equal(restore_into(h, "a", "v2", "/elsewhere").groups, 0);
	assert_int_equal(restore_into(h, "b", "v2", "/cache").groups, 1);
	close_house(h);
}

TEST(nothing_new_makes_no_layer)
{
	struct house *h = open_house(AT_ONCE);

	publish(h, WARM_PUBLISH_ROUND, NULL);
	assert_int_equal(h->r.layers, 0);
	put_text(h->volume, "a", "1");
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.layers, 1);
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.layers, 0);
	publish(h, WARM_PUBLISH_FINAL, NULL);
	assert_int_equal(h->r.layers, 0);
	assert_int_equal(layers_of(h, "v2"), 1);
	close_house(h);
}

TEST(what_another_pod_published_meanwhile_is_not_published_again)
{
	struct house *h = open_house(AT_ONCE);

	put_text(h->volume, "a", "1");
	publish(h, WARM_PUBLISH_ALL, NULL);
	put_text(h->s.fd, "other/a", "2");
	put_text(h->s.fd, "other/b", "2");
	warm_publisher_free(take_ptr(h->p));
	h->o.volume = scratch_path(&h->s, "other");
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.groups, 1);
	assert_int_equal(h->r.present, 1);
	close_house(h);
}

TEST(a_changed_group_is_published_again_and_wins)
{
	struct house *h = open_house(AT_ONCE);

	put_text(h->volume, "a", "old");
	publish(h, WARM_PUBLISH_ALL, NULL);
	put_text(h->volume, "a", "newer");
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.groups, 1);
	(void)restore_into(h, "other", "v2", "/cache");
	assert_file(h->s.fd, "other/a", "newer");
	close_house(h);
}

TEST(what_the_store_has_lost_is_published_again)
{
	struct house *h = open_house(AT_ONCE);

	put_text(h->volume, "a", "1");
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(warm_tree_remove(h->s.fd, "store", NULL), 0);
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.groups, 1);
	close_house(h);
}

TEST(a_round_waits_until_a_group_has_settled)
{
	struct house *h = open_house(NEVER);

	put_text(h->volume, "a", "1");
	put_text(h->volume, "inductor/ab/c.py", "renamed into place");
	publish(h, WARM_PUBLISH_ROUND, NULL);
	assert_int_equal(h->r.groups, 0);
	assert_int_equal(h->r.waiting, 2);
	/* At the end: what its compiler renames is whole, of the other nobody knows. */
	publish(h, WARM_PUBLISH_FINAL, NULL);
	assert_int_equal(h->r.groups, 1);
	assert_int_equal(h->r.waiting, 1);
	assert_non_null(strstr(h->heard.text, "not settled"));
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.groups, 1);
	close_house(h);
}

TEST(a_file_that_is_open_for_writing_is_never_published)
{
	struct house *h = open_house(AT_ONCE);

	put_text(h->volume, "deepgemm/cache/k/kernel.cu", "1");
	put_text(h->volume, "a", "1");
	int fd = openat(h->volume, "a", O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	for (int mode = WARM_PUBLISH_ROUND; mode <= WARM_PUBLISH_ALL; mode++) {
		publish(h, (enum warm_publish_mode)mode, NULL);
		assert_int_equal(h->r.groups, 0);
		assert_int_equal(h->r.waiting, 1);
	}
	assert_non_null(strstr(h->heard.text, "open for writing"));
	close(fd);
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.groups, 1);
	close_house(h);
}

TEST(a_torn_library_is_never_published)
{
	struct house *h = open_house(AT_ONCE);

	put_text(h->volume, "inductor/ab/x.so", "\177ELF and no more");
	put_text(h->volume, "inductor/ab/x.py", "1");
	for (int mode = WARM_PUBLISH_ROUND; mode <= WARM_PUBLISH_ALL; mode++) {
		publish(h, (enum warm_publish_mode)mode, NULL);
		assert_int_equal(h->r.torn, 1);
	}
	(void)restore_into(h, "other", "v2", "/cache");
	assert_false(is_there(h->s.fd, "other/inductor/ab/x.so"));
	assert_true(is_there(h->s.fd, "other/inductor/ab/x.py"));
	close_house(h);
}

TEST(mutable_files_ride_along_and_never_cause_a_publish)
{
	struct house *h = open_house(AT_ONCE);

	put_text(h->volume, "inductor/ab/k.best_config", "{\"a\": 1}");
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.layers, 0);
	put_text(h->volume, "inductor/ab/k.py", "1");
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.layers, 1);
	assert_int_equal(h->r.groups, 2);
	put_text(h->volume, "inductor/ab/k.best_config", "{\"a\": 22}");
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.layers, 0);
	/* The newest wins, with the next thing that is new. */
	put_text(h->volume, "inductor/ab/m.py", "1");
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.groups, 2);
	(void)restore_into(h, "other", "v2", "/cache");
	assert_file(h->s.fd, "other/inductor/ab/k.best_config", "{\"a\": 22}");
	close_house(h);
}

TEST(a_mutable_file_that_does_not_parse_stays_out)
{
	struct house *h = open_house(AT_ONCE);

	put_text(h->volume, "inductor/ab/k.best_config", "{\"a\": ");
	put_text(h->volume, "inductor/ab/k.py", "1");
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.groups, 1);
	assert_int_equal(h->r.torn, 1);
	close_house(h);
}

TEST(secrets_are_withheld)
{
	struct house *h = open_house(AT_ONCE);
	static const char path[] = "vllm/torch_compile_cache/abc/rank_0_0/x/cache_key_factors.json";

	put_text(h->volume, path, "{\"env\": {\"VLLM_API_KEY\": \"sk-very-secret\"}}");
	put_text(h->volume, "vllm/torch_compile_cache/abc/rank_0_0/x/computation_graph.py", "1");
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.withheld, 1);
	assert_int_equal(h->r.groups, 1);
	assert_non_null(strstr(h->heard.text, "VLLM_API_KEY"));
	assert_null(strstr(h->heard.text, "sk-very-secret"));
	assert_int_equal(shell("cat $(find %s/store -type f) | zstd -qdc | grep -q sk-very-secret",
			       h->s.path),
			 1);
	close_house(h);
}

TEST(links_devices_and_large_files_are_never_published)
{
	struct house *h = open_house(AT_ONCE);

	put_text(h->volume, "a", "1");
	put_text(h->volume, "large", "0123456789");
	assert_int_equal(symlinkat("/etc/passwd", h->volume, "link"), 0);
	assert_int_equal(symlinkat("/etc", h->volume, "dir"), 0);
	assert_int_equal(mkfifoat(h->volume, "fifo", 0644), 0);
	h->o.max_file_bytes = 9;
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.groups, 1);
	close_house(h);
}

TEST(an_empty_version_publishes_only_what_is_self_keyed)
{
	struct house *h = open_house(AT_ONCE);

	h->o.key = key_of("llama", "");
	put_text(h->volume, "inductor/ab/k.py", "1");
	put_text(h->volume, "other/file", "1");
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.groups, 1);
	close_house(h);
}

TEST(layers_are_at_most_of_the_given_size)
{
	struct house *h = open_house(AT_ONCE);
	char path[16];

	h->o.layer_bytes = 5 << 20;
	for (uint64_t i = 0; i < 16; i++) {
		uint8_t *data = noise(i, 1000000);
		snprintf(path, sizeof(path), "x/%02d", (int)i);
		put_file(h->volume, path, data, 1000000, 0644, 0);
		free(data);
	}
	publish(h, WARM_PUBLISH_ALL, "");
	assert_int_equal(h->r.groups, 16);
	assert_true(h->r.layers >= 4);
	scope_catalog struct warm_catalog c = { 0 };
	assert_int_equal(warm_catalog_list(&c, h->store, &h->o.key, false, NULL, NULL), 0);
	assert_int_equal(warm_catalog_read(&c, h->store, NULL, NULL, NULL), 0);
	assert_int_equal(c.n_layers, h->r.layers);
	uint64_t largest = 0;
	for (size_t i = 0; i < c.n_layers; i++) {
		if (c.layers[i].object_bytes > largest)
			largest = c.layers[i].object_bytes;
		/* the mark is on the last alone */
		assert_true((c.layers[i].index->complete != NULL) == (i == 0));
	}
	assert_int_equal(restore_into(h, "other", "v2", "/cache").groups, 16);
	close_house(h);
	assert_true(largest <= (5 << 20) + (64 << 10));
}

TEST(the_complete_mark_is_put_once_also_on_an_empty_layer)
{
	struct house *h = open_house(AT_ONCE);

	put_text(h->volume, "a", "1");
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_false(h->r.complete);
	publish(h, WARM_PUBLISH_ROUND, "template-1");
	assert_true(h->r.complete);
	assert_int_equal(h->r.layers, 1);
	assert_int_equal(h->r.groups, 0);
	publish(h, WARM_PUBLISH_ROUND, "template-1");
	assert_true(h->r.complete);
	assert_int_equal(h->r.layers, 0);
	struct warm_restore_result r = restore_into(h, "other", "v2", "/cache");
	assert_true(r.complete);
	close_house(h);
}

TEST(ids_come_after_what_the_store_lists)
{
	struct house *h = open_house(AT_ONCE);
	/* Another writer's clock is an hour ahead. */
	struct warm_id ahead = { (uint64_t)warm_clock_wall_ms() + 3600 * 1000, 5 };
	struct made_group g = { .name = "a", .files = { { .path = "a", .text = "theirs" } } };
	struct made_layer l = { .id = ahead, .groups = &g, .n_groups = 1 };

	put_made_layer(h->store, &h->o.key, &l, NULL);
	put_text(h->volume, "b", "1");
	publish(h, WARM_PUBLISH_ALL, NULL);
	scope_catalog struct warm_catalog c = { 0 };
	assert_int_equal(warm_catalog_list(&c, h->store, &h->o.key, false, NULL, NULL), 0);
	assert_int_equal(c.n_layers, 2);
	assert_int_equal(c.layers[0].name.id.ms, ahead.ms + 1);
	close_house(h);
}

TEST(a_group_by_fallback_goes_into_the_own_key_once_it_was_read)
{
	struct house *h = open_house(AT_ONCE);
	struct warm_key old = key_of("llama", "v1");
	struct made_group groups[] = {
		{ .name = "inductor/ab/read.py",
		  .flags = WARM_GROUP_SELF_KEYED,
		  .files = { { .path = "inductor/ab/read.py", .text = "1" } } },
		{ .name = "inductor/ab/unread.py",
		  .flags = WARM_GROUP_SELF_KEYED,
		  .files = { { .path = "inductor/ab/unread.py", .text = "1" } } },
	};
	struct made_layer l = { .id = { 1700000000000, 1 }, .groups = groups, .n_groups = 2 };

	put_made_layer(h->store, &old, &l, NULL);
	struct warm_restore_result r = restore_into(h, "volume", "v2", "/cache");
	assert_int_equal(r.status, WARM_RESTORE_FALLBACK);
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.groups, 0);
	assert_int_equal(warm_publish_use(&h->r).inert, 2);
	/* A read, as a model's: it moves atime. */
	struct stat st = stat_of(h->volume, "inductor/ab/read.py");
	set_times(h->volume, "inductor/ab/read.py", warm_timespec_ns(st.st_atim) + 1000000000,
		  warm_timespec_ns(st.st_mtim));
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.groups, 1);
	assert_int_equal(warm_publish_use(&h->r).used, 1);
	assert_int_equal(warm_publish_use(&h->r).inert, 1);
	assert_int_equal(layers_of(h, "v2"), 1);
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.groups, 0);
	close_house(h);
}

TEST(packing_and_looking_do_not_count_as_use)
{
	struct house *h = open_house(AT_ONCE);

	put_text(h->volume, "triton/" KEY52 "/__grp__k.json", "{\"child_paths\": {}}");
	put_text(h->volume, "vllm/torch_compile_cache/abc/rank_0_0/x/cache_key_factors.json", "{}");
	put_text(h->volume, "x/a", "1");
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.groups, 3);
	(void)restore_into(h, "other", "v2", "/cache");
	warm_publisher_free(take_ptr(h->p));
	char other[300];
	snprintf(other, sizeof(other), "%s/other", h->s.path);
	h->o.volume = other;
	wait_a_moment();
	for (int i = 0; i < 3; i++) {
		/* The store has lost it all: everything is looked at and packed anew. */
		assert_int_equal(warm_tree_remove(h->s.fd, "store", NULL), 0);
		publish(h, WARM_PUBLISH_ALL, NULL);
		assert_int_equal(h->r.groups, 3);
		assert_int_equal(warm_publish_use(&h->r).used, 0);
		assert_int_equal(warm_publish_use(&h->r).inert, 3);
		wait_a_moment();
	}
	close_house(h);
}

TEST(a_restored_group_that_was_read_counts_as_used)
{
	struct house *h = open_house(AT_ONCE);
	char c;

	put_text(h->volume, "x/a", "1");
	put_text(h->volume, "x/b", "1");
	publish(h, WARM_PUBLISH_ALL, NULL);
	(void)restore_into(h, "other", "v2", "/cache");
	wait_a_moment();
	int fd = openat(h->s.fd, "other/x/a", O_RDONLY | O_CLOEXEC);
	assert_int_equal(read(fd, &c, 1), 1);
	struct stat st;
	assert_int_equal(fstat(fd, &st), 0);
	close(fd);
	warm_publisher_free(take_ptr(h->p));
	char other[300];
	snprintf(other, sizeof(other), "%s/other", h->s.path);
	h->o.volume = other;
	publish(h, WARM_PUBLISH_ROUND, NULL);
	assert_int_equal(warm_publish_use(&h->r).used + warm_publish_use(&h->r).inert, 2);
	/* On a noatime mount everything counts as used. */
	assert_true(warm_publish_use(&h->r).used == 1 || warm_publish_use(&h->r).used == 2);
	assert_int_equal(h->r.layers, 0);
	close_house(h);
}

TEST(a_publisher_without_a_ledger_writes_nothing_into_the_directory)
{
	struct house *h = open_house(AT_ONCE);

	h->o.no_ledger = true;
	put_text(h->volume, "a", "1");
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.groups, 1);
	assert_false(is_there(h->volume, ".warmcache"));
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.groups, 0);
	close_house(h);
}

TEST(an_empty_volume_is_scanned_without_trouble)
{
	struct house *h = open_house(AT_ONCE);

	publish(h, WARM_PUBLISH_FINAL, NULL);
	assert_int_equal(h->r.volume_groups, 0);
	close_house(h);
}

TEST(a_denied_or_missing_volume_and_a_canceled_round_say_so)
{
	struct house *h = open_house(AT_ONCE);
	atomic_bool cancel = true;
	struct warm_call call = { .cancel = &cancel };

	h->o.volume = scratch_path(&h->s, "nowhere");
	assert_int_equal(warm_publisher_open(&h->o, &h->p, &h->err), WARM_NOT_FOUND);
	assert_null(h->p);
	h->o.volume = h->volume_path;
	assert_int_equal(warm_publisher_open(&h->o, &h->p, &h->err), 0);
	put_text(h->volume, "a", "1");
	int with = warm_publisher_run(h->p, WARM_PUBLISH_ALL, NULL, NULL, NULL, &call, &h->r,
				      &h->err);
	int without = warm_publisher_run(h->p, WARM_PUBLISH_ALL, NULL, NULL, NULL, &call, &h->r,
					 NULL);
	assert_int_equal(layers_of(h, "v2"), 0);
	close_house(h);
	assert_int_equal(with, WARM_CANCELED);
	assert_int_equal(without, WARM_CANCELED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_published_is_restored_to_the_same_tree),
		cmocka_unit_test(triton_groups_are_restored_under_their_own_mount_path_alone),
		cmocka_unit_test(nothing_new_makes_no_layer),
		cmocka_unit_test(what_another_pod_published_meanwhile_is_not_published_again),
		cmocka_unit_test(a_changed_group_is_published_again_and_wins),
		cmocka_unit_test(what_the_store_has_lost_is_published_again),
		cmocka_unit_test(a_round_waits_until_a_group_has_settled),
		cmocka_unit_test(a_file_that_is_open_for_writing_is_never_published),
		cmocka_unit_test(a_torn_library_is_never_published),
		cmocka_unit_test(mutable_files_ride_along_and_never_cause_a_publish),
		cmocka_unit_test(a_mutable_file_that_does_not_parse_stays_out),
		cmocka_unit_test(secrets_are_withheld),
		cmocka_unit_test(links_devices_and_large_files_are_never_published),
		cmocka_unit_test(an_empty_version_publishes_only_what_is_self_keyed),
		cmocka_unit_test(layers_are_at_most_of_the_given_size),
		cmocka_unit_test(the_complete_mark_is_put_once_also_on_an_empty_layer),
		cmocka_unit_test(ids_come_after_what_the_store_lists),
		cmocka_unit_test(a_group_by_fallback_goes_into_the_own_key_once_it_was_read),
		cmocka_unit_test(packing_and_looking_do_not_count_as_use),
		cmocka_unit_test(a_restored_group_that_was_read_counts_as_used),
		cmocka_unit_test(a_publisher_without_a_ledger_writes_nothing_into_the_directory),
		cmocka_unit_test(an_empty_volume_is_scanned_without_trouble),
		cmocka_unit_test(a_denied_or_missing_volume_and_a_canceled_round_say_so),
	};

	return RUN(tests);
}
