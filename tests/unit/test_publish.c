/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <fcntl.h>
#include <time.h>

#include "lib/sync/ledger.h"
#include "lib/sync/publish.h"
#include "lib/sync/restore.h"
#include "tests/support/wrapped_store.h"

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

/* ---- rounds that look, drain, and share ---- */

#define FACTORS "vllm/torch_compile_cache/abc/rank_0_0/x/cache_key_factors.json"

static int count_call(void *arg, enum wrapped_call call, const char *name, struct warm_error *err)
{
	atomic_int *n = arg;

	(void)call;
	(void)name;
	(void)err;
	atomic_fetch_add(n, 1);
	return 0;
}

TEST(a_look_counts_and_never_asks_the_store)
{
	struct house *h = open_house(AT_ONCE);
	atomic_int calls = 0;
	struct wrapped_store w = { .inner = h->store, .before = count_call, .arg = &calls };
	struct warm_store *wrapped = wrapped_store_open(&w);

	h->o.store = wrapped;
	h->o.max_file_bytes = 1000;
	put_text(h->volume, "a", "1");
	put_text(h->volume, "d/b", "22");
	put_text(h->volume, "inductor/ab/x.so", "\177ELF and no more");
	uint8_t *big = noise(1, 2000);
	put_file(h->volume, "triton/" KEY52 "/large", big, 2000, 0644, 0);
	put_text(h->volume, "triton/" KEY52 "/small", "1");
	free(big);
	for (int i = 0; i < 3; i++) {
		publish(h, WARM_PUBLISH_LOOK, "template");
		assert_int_equal(h->r.volume_groups, 4);
		assert_int_equal(h->r.fresh, 2);
		assert_int_equal(h->r.torn, 1);
		assert_int_equal(h->r.withheld, 1);
		assert_int_equal(h->r.waiting, 0);
		assert_int_equal(h->r.layers, 0);
		assert_false(h->r.complete);
	}
	assert_int_equal(calls, 0);
	assert_true(h->r.volume_bytes > 0);
	assert_false(is_there(h->volume, WARM_LEDGER_PATH));
	/* And what was looked at is published as ever. */
	publish(h, WARM_PUBLISH_ROUND, NULL);
	assert_true(calls > 0);
	assert_int_equal(h->r.groups, 2);
	warm_publisher_free(take_ptr(h->p));
	warm_store_free(wrapped);
	close_house(h);
}

TEST(a_look_waits_for_settling_as_a_round_does)
{
	struct house *h = open_house(NEVER);

	put_text(h->volume, "a", "1");
	put_text(h->volume, "inductor/ab/c.py", "renamed into place");
	publish(h, WARM_PUBLISH_LOOK, NULL);
	assert_int_equal(h->r.waiting, 2);
	assert_int_equal(h->r.fresh, 0);
	close_house(h);
}

TEST(a_publisher_that_only_reads_never_asks_the_store)
{
	struct house *h = open_house(AT_ONCE);
	atomic_int calls = 0;
	struct wrapped_store w = { .inner = h->store, .before = count_call, .arg = &calls };
	struct warm_store *wrapped = wrapped_store_open(&w);
	struct made_group g = { .name = "inductor/ab/r.py",
				.flags = WARM_GROUP_SELF_KEYED,
				.files = { { .path = "inductor/ab/r.py", .text = "123" } } };
	struct made_layer l = { .id = { 1700000000000, 1 }, .groups = &g, .n_groups = 1 };

	put_made_layer(h->store, &h->o.key, &l, NULL);
	(void)restore_into(h, "volume", "v2", "/cache");
	put_text(h->volume, "a", "1");
	h->o.store = wrapped;
	h->o.read_only = true;
	for (int mode = WARM_PUBLISH_LOOK; mode <= WARM_PUBLISH_ALL; mode++) {
		publish(h, (enum warm_publish_mode)mode, "template");
		assert_int_equal(h->r.layers, 0);
		assert_int_equal(h->r.fresh, 1);
		assert_int_equal(h->r.volume_groups, 2);
		assert_int_equal(warm_publish_use(&h->r).inert, 1);
		assert_int_equal(warm_publish_use(&h->r).inert_bytes, 3);
	}
	assert_int_equal(calls, 0);
	warm_publisher_free(take_ptr(h->p));
	warm_store_free(wrapped);
	close_house(h);
}

static void read_as_a_model(struct house *h, const char *path)
{
	struct stat st = stat_of(h->volume, path);

	set_times(h->volume, path, warm_timespec_ns(st.st_atim) + 1000000000,
		  warm_timespec_ns(st.st_mtim));
}

TEST(use_is_counted_by_profile_and_what_a_hit_does_not_open_is_left_out)
{
	struct house *h = open_house(AT_ONCE);
	struct made_group groups[] = {
		{ .name = "deepgemm/cache/k",
		  .flags = WARM_GROUP_SELF_KEYED,
		  .files = { { .path = "deepgemm/cache/k/.committed", .text = "" },
			     { .path = "deepgemm/cache/k/kernel.cu", .text = "12" } } },
		{ .name = "inductor/ab/x.cpp",
		  .flags = WARM_GROUP_SELF_KEYED,
		  .files = { { .path = "inductor/ab/x.cpp", .text = "1234567" } } },
		{ .name = "inductor/ab/x.py",
		  .flags = WARM_GROUP_SELF_KEYED,
		  .files = { { .path = "inductor/ab/x.py", .text = "12345" } } },
		{ .name = "inductor/ab/y.cu",
		  .flags = WARM_GROUP_SELF_KEYED,
		  .files = { { .path = "inductor/ab/y.cu", .text = "1" } } },
		{ .name = "jax/f-cache",
		  .flags = WARM_GROUP_SELF_KEYED,
		  .files = { { .path = "jax/f-cache", .text = "123" } } },
		{ .name = "x/f", .files = { { .path = "x/f", .text = "1234" } } },
	};
	struct made_layer l = { .id = { 1700000000000, 1 },
				.groups = groups,
				.n_groups = COUNT(groups) };

	put_made_layer(h->store, &h->o.key, &l, NULL);
	assert_int_equal(restore_into(h, "volume", "v2", "/cache").groups, COUNT(groups));
	publish(h, WARM_PUBLISH_LOOK, NULL);
	const struct warm_use *use = h->r.use;
	assert_int_equal(use[WARM_PROFILE_INDUCTOR].inert, 1);
	assert_int_equal(use[WARM_PROFILE_INDUCTOR].inert_bytes, 5);
	assert_int_equal(use[WARM_PROFILE_DEEPGEMM].inert, 1);
	assert_int_equal(use[WARM_PROFILE_JAX].inert, 1);
	assert_int_equal(use[WARM_PROFILE_FILE].inert, 1);
	assert_int_equal(use[WARM_PROFILE_TRITON].inert, 0);
	assert_int_equal(warm_publish_use(&h->r).inert, 4);
	assert_int_equal(warm_publish_use(&h->r).inert_bytes, 5 + 2 + 3 + 4);
	assert_int_equal(warm_publish_use(&h->r).used, 0);
	read_as_a_model(h, "inductor/ab/x.cpp");
	read_as_a_model(h, "inductor/ab/x.py");
	read_as_a_model(h, "deepgemm/cache/k/kernel.cu"); /* one file of two */
	publish(h, WARM_PUBLISH_LOOK, NULL);
	assert_int_equal(use[WARM_PROFILE_INDUCTOR].used, 2);
	assert_int_equal(use[WARM_PROFILE_INDUCTOR].used_bytes, 12);
	assert_int_equal(use[WARM_PROFILE_INDUCTOR].inert, 0);
	assert_int_equal(use[WARM_PROFILE_DEEPGEMM].used, 1);
	assert_int_equal(use[WARM_PROFILE_DEEPGEMM].used_bytes, 2);
	assert_int_equal(use[WARM_PROFILE_JAX].inert, 1);
	assert_int_equal(warm_publish_use(&h->r).used, 3);
	assert_int_equal(warm_publish_use(&h->r).inert, 2);
	/* The model's own are none of it. */
	put_text(h->volume, "inductor/ab/own.py", "1");
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(warm_publish_use(&h->r).used, 3);
	assert_int_equal(warm_publish_use(&h->r).inert, 2);
	close_house(h);
}

TEST(a_group_that_may_hold_a_secret_passes)
{
	static const struct {
		const char *allowed;
		bool passes;
	} rows[] = {
		{ FACTORS, true },
		{ "vllm/*", true },
		{ "*/cache_key_factors.json", true },
		{ "vllm/torch_compile_cache/ab?/rank_0_0/*", true },
		{ "cache_key_factors.json", false },
		{ "triton/*", false },
		{ "/" FACTORS, false },
		{ "", false },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct house *h = open_house(AT_ONCE);
		const char *allow[] = { "nothing/of/the/kind", rows[i].allowed };
		h->o.allow_secrets = allow;
		h->o.n_allow_secrets = 2;
		put_text(h->volume, FACTORS, "{\"env\": {\"VLLM_API_KEY\": \"x\"}}");
		put_text(h->volume, "other.py",
			 "key = 'AK"
			 "IA0123456789ABCDEF'");
		publish(h, WARM_PUBLISH_ALL, NULL);
		if (h->r.groups != (rows[i].passes ? 1 : 0))
			fail_msg("%s: %zu groups", rows[i].allowed, h->r.groups);
		assert_int_equal(h->r.withheld, rows[i].passes ? 1 : 2);
		/* And is withheld the next time, too. */
		publish(h, WARM_PUBLISH_ALL, NULL);
		assert_int_equal(h->r.groups, 0);
		close_house(h);
	}
}

TEST(fresh_counts_what_is_new_and_whole_published_or_not)
{
	struct house *h = open_house(AT_ONCE);

	put_text(h->volume, "a", "1");
	put_text(h->volume, "b", "1");
	put_text(h->volume, "inductor/ab/k.best_config", "{}"); /* rides along */
	put_text(h->volume, FACTORS, "{\"A_KEY\": \"x\"}");	/* new and whole, if withheld */
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.fresh, 3);
	assert_int_equal(h->r.groups, 3);
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(h->r.fresh, 1);
	put_text(h->volume, "a", "changed");
	publish(h, WARM_PUBLISH_LOOK, NULL);
	assert_int_equal(h->r.fresh, 2);
	close_house(h);
}

static void put_noise(struct house *h, const char *format, int n, size_t bytes)
{
	for (int i = 0; i < n; i++) {
		uint8_t *data = noise((uint64_t)i, bytes);
		char path[40];
		snprintf(path, sizeof(path), "%s%02d", format, i);
		put_file(h->volume, path, data, bytes, 0644, 0);
		free(data);
	}
}

/* Another pod, with the same in its volume, that publishes after our first layer. */
struct neighbour {
	struct house *h;
	char volume[300];
	int puts;
	size_t groups;
};

static void publish_as_neighbour(void *arg, const char *name)
{
	struct neighbour *n = arg;
	struct warm_publish_options o = n->h->o;
	struct warm_publish_report r;
	struct warm_publisher *p = NULL;

	(void)name;
	if (n->puts++ > 0)
		return;
	o.store = n->h->store;
	o.volume = n->volume;
	assert_int_equal(warm_publisher_open(&o, &p, NULL), 0);
	assert_int_equal(warm_publisher_run(p, WARM_PUBLISH_ALL, NULL, NULL, NULL, NULL, &r, NULL),
			 0);
	n->groups = r.groups;
	warm_publisher_free(p);
}

TEST(what_others_put_between_two_layers_is_not_put_again)
{
	struct house *h = open_house(AT_ONCE);
	struct neighbour n = { .h = h };
	struct wrapped_store w = { .inner = h->store,
				   .after_put = publish_as_neighbour,
				   .arg = &n };
	struct warm_store *wrapped = wrapped_store_open(&w);

	h->o.layer_bytes = 1 << 20;
	put_noise(h, "x/", 12, 400000);
	put_text(h->volume, "inductor/ab/k.best_config", "{}");
	snprintf(n.volume, sizeof(n.volume), "%s/other", h->s.path);
	assert_int_equal(shell("cp -a %s/volume %s/other", h->s.path, h->s.path), 0);
	h->o.store = wrapped;
	publish(h, WARM_PUBLISH_ROUND, NULL);
	/* A layer of ours, the rest is the neighbour's, and what is mutable rides along. */
	assert_true(h->r.groups >= 2 && h->r.groups <= 5);
	assert_int_equal(h->r.groups - 1 + n.groups - 1, 12);
	assert_int_equal(h->r.layers, 2);
	/* Nothing is missing. */
	assert_int_equal(restore_into(h, "third", "v2", "/cache").groups, 13);
	publish(h, WARM_PUBLISH_ROUND, NULL);
	assert_int_equal(h->r.groups, 0);
	warm_publisher_free(take_ptr(h->p));
	warm_store_free(wrapped);
	close_house(h);
}

static int fail_second_list(void *arg, enum wrapped_call call, const char *name,
			    struct warm_error *err)
{
	atomic_int *lists = arg;

	(void)name;
	if (call == WRAPPED_LIST && atomic_fetch_add(lists, 1) == 1)
		return warm_error_set(err, WARM_TRANSIENT, "no second LIST");
	return 0;
}

TEST(a_store_that_fails_between_two_layers_keeps_the_first)
{
	struct house *h = open_house(AT_ONCE);
	atomic_int lists = 0;
	struct wrapped_store w = { .inner = h->store, .before = fail_second_list, .arg = &lists };
	struct warm_store *wrapped = wrapped_store_open(&w);

	h->o.store = wrapped;
	h->o.layer_bytes = 1 << 20;
	put_noise(h, "x/", 8, 400000);
	assert_int_equal(warm_publisher_open(&h->o, &h->p, &h->err), 0);
	assert_int_equal(warm_publisher_run(h->p, WARM_PUBLISH_ROUND, "template", NULL, NULL, NULL,
					    &h->r, &h->err),
			 WARM_TRANSIENT);
	assert_int_equal(h->r.layers, 1);
	assert_false(h->r.complete);
	size_t first_groups = h->r.groups;
	assert_true(first_groups >= 1);
	publish(h, WARM_PUBLISH_ROUND, NULL);
	assert_int_equal(h->r.groups, 8 - first_groups);
	assert_int_equal(restore_into(h, "other", "v2", "/cache").groups, 8);
	warm_publisher_free(take_ptr(h->p));
	warm_store_free(wrapped);
	close_house(h);
}

/* The layers of the key, oldest first. */
static void list_layers(struct house *h, struct warm_catalog *c)
{
	assert_int_equal(warm_catalog_list(c, h->store, &h->o.key, false, NULL, NULL), 0);
	assert_int_equal(warm_catalog_read(c, h->store, NULL, NULL, NULL), 0);
}

static const struct warm_index *layer(const struct warm_catalog *c, size_t i)
{
	return c->layers[c->n_layers - 1 - i].index;
}

TEST(replicas_begin_at_different_places_and_end_with_what_is_mutable)
{
	char seen[32][8] = { "" };
	size_t n_seen = 0;

	for (int pod = 0; pod < 20; pod++) {
		struct house *h = open_house(AT_ONCE);
		scope_catalog struct warm_catalog c = { 0 };
		h->o.layer_bytes = 1 << 20;
		put_noise(h, "x/", 12, 300000);
		put_text(h->volume, "inductor/ab/a.best_config", "{}");
		put_text(h->volume, "inductor/ab/z.best_config", "{}");
		wait_a_moment();
		publish(h, WARM_PUBLISH_ROUND, "template");
		assert_int_equal(h->r.groups, 14);
		list_layers(h, &c);
		assert_true(c.n_layers >= 3);
		const struct warm_index *first = layer(&c, 0), *last = layer(&c, c.n_layers - 1);
		bool known = false;
		/* Within a layer groups are sorted: the least name says where it began, mostly. */
		for (size_t i = 0; i < n_seen; i++)
			known = known || strcmp(seen[i], first->groups[0].name) == 0;
		if (!known)
			snprintf(seen[n_seen++], sizeof(seen[0]), "%s", first->groups[0].name);
		for (size_t i = 0; i + 1 < c.n_layers; i++) {
			const struct warm_index *x = layer(&c, i);
			assert_null(x->complete);
			for (size_t k = 0; k < x->n_groups; k++)
				assert_true((x->groups[k].flags & WARM_GROUP_MUTABLE) == 0);
		}
		size_t mutables = 0;
		for (size_t k = 0; k < last->n_groups; k++)
			mutables += (last->groups[k].flags & WARM_GROUP_MUTABLE) != 0;
		assert_int_equal(mutables, 2);
		assert_non_null(last->complete);
		close_house(h);
	}
	assert_true(n_seen >= 2);
}

TEST(one_layer_is_packed_in_the_order_of_names)
{
	for (int pod = 0; pod < 3; pod++) {
		struct house *h = open_house(AT_ONCE);
		scope_catalog struct warm_catalog c = { 0 };
		put_noise(h, "x/", 5, 1000);
		publish(h, WARM_PUBLISH_ROUND, NULL);
		list_layers(h, &c);
		const struct warm_index *x = layer(&c, 0);
		assert_int_equal(x->n_groups, 5);
		for (size_t i = 1; i < x->n_groups; i++)
			assert_true(strcmp(x->groups[i - 1].name, x->groups[i].name) < 0);
		close_house(h);
	}
}

TEST(a_drain_puts_what_is_proven_whole_and_the_smallest_first)
{
	struct house *h = open_house(NEVER);
	scope_catalog struct warm_catalog c = { 0 };

	h->o.layer_bytes = 1 << 20;
	for (int i = 0; i < 6; i++) {
		/* The later by name, the smaller. */
		size_t bytes = 700000 - (size_t)i * 100000;
		uint8_t *data = noise((uint64_t)i, bytes);
		char path[40];
		snprintf(path, sizeof(path), "inductor/ab/%d.py", i);
		put_file(h->volume, path, data, bytes, 0644, 0);
		free(data);
	}
	put_text(h->volume, "unproven", "1");
	put_text(h->volume, "inductor/ab/k.best_config", "{}");
	publish(h, WARM_PUBLISH_ROUND, NULL);
	assert_int_equal(h->r.groups, 0);
	publish(h, WARM_PUBLISH_DRAIN, NULL);
	assert_int_equal(h->r.groups, 7);
	assert_int_equal(h->r.waiting, 1);
	assert_null(strstr(h->heard.text, "left-out")); /* a last round will say it */
	list_layers(h, &c);
	assert_true(c.n_layers >= 3);
	bool has_smallest = false;
	for (size_t i = 0; i < layer(&c, 0)->n_groups; i++)
		has_smallest = has_smallest ||
			       strcmp(layer(&c, 0)->groups[i].name, "inductor/ab/5.py") == 0;
	assert_true(has_smallest);
	const struct warm_index *last = layer(&c, c.n_layers - 1);
	bool has_largest = false, has_mutable = false;
	for (size_t i = 0; i < last->n_groups; i++) {
		has_largest = has_largest || strcmp(last->groups[i].name, "inductor/ab/0.py") == 0;
		has_mutable = has_mutable || (last->groups[i].flags & WARM_GROUP_MUTABLE) != 0;
	}
	assert_true(has_largest && has_mutable);
	publish(h, WARM_PUBLISH_FINAL, NULL);
	assert_int_equal(h->r.groups, 0);
	assert_non_null(strstr(h->heard.text, "left-out: unproven"));
	close_house(h);
}

TEST(a_drain_with_nothing_new_does_not_ask_the_store_again)
{
	struct house *h = open_house(AT_ONCE);
	atomic_int calls = 0;
	struct wrapped_store w = { .inner = h->store, .before = count_call, .arg = &calls };
	struct warm_store *wrapped = wrapped_store_open(&w);

	h->o.store = wrapped;
	put_text(h->volume, "a", "1");
	publish(h, WARM_PUBLISH_DRAIN, NULL);
	assert_int_equal(h->r.groups, 1);
	int after_first = calls;
	for (int i = 0; i < 5; i++)
		publish(h, WARM_PUBLISH_DRAIN, NULL);
	assert_int_equal(calls, after_first);
	warm_publisher_free(take_ptr(h->p));
	warm_store_free(wrapped);
	close_house(h);
}

TEST(in_a_hurry_a_round_ends_after_the_layer_at_hand)
{
	static const struct {
		enum warm_publish_mode mode;
		bool ends;
	} rows[] = { { WARM_PUBLISH_ROUND, true },
		     { WARM_PUBLISH_DRAIN, true },
		     { WARM_PUBLISH_FINAL, false },
		     { WARM_PUBLISH_ALL, false } };

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct house *h = open_house(AT_ONCE);
		atomic_bool hurry = true;
		h->o.hurry = &hurry;
		put_text(h->volume, "a", "1");
		put_text(h->volume, "b", "1");
		wait_a_moment();
		publish(h, rows[i].mode, "template");
		assert_int_equal(h->r.groups, rows[i].ends ? 0 : 2);
		assert_true(h->r.complete != rows[i].ends);
		/* What was left comes in the last round. */
		publish(h, WARM_PUBLISH_FINAL, "template");
		assert_int_equal(h->r.groups, rows[i].ends ? 2 : 0);
		assert_true(h->r.complete);
		close_house(h);
	}
}

/* ---- marks ---- */

TEST(a_mark_comes_after_a_quiet_time_or_when_the_model_is_ready)
{
	struct house *h = open_house(AT_ONCE);

	h->o.complete_after_ms = NEVER;
	put_text(h->volume, "a", "1");
	publish(h, WARM_PUBLISH_ALL, "template");
	assert_int_equal(h->r.groups, 1);
	assert_false(h->r.complete);
	put_text(h->volume, "b", "1");
	publish(h, WARM_PUBLISH_ROUND, "template");
	assert_false(h->r.complete);
	warm_publisher_set_ready(h->p);
	put_text(h->volume, "c", "1");
	publish(h, WARM_PUBLISH_ROUND, "template");
	assert_int_equal(h->r.groups, 1);
	assert_true(h->r.complete);
	close_house(h);
}

TEST(readiness_alone_brings_the_mark_on_an_empty_layer)
{
	struct house *h = open_house(AT_ONCE);

	h->o.complete_after_ms = NEVER;
	put_text(h->volume, "a", "1");
	publish(h, WARM_PUBLISH_ALL, NULL);
	warm_publisher_set_ready(h->p);
	publish(h, WARM_PUBLISH_ROUND, "template");
	assert_true(h->r.complete);
	assert_int_equal(h->r.layers, 1);
	assert_int_equal(h->r.groups, 0);
	close_house(h);
}

TEST(nothing_is_marked_while_groups_wait_or_are_torn_or_none_are_there)
{
	struct house *h = open_house(AT_ONCE);

	publish(h, WARM_PUBLISH_ROUND, "template");
	assert_false(h->r.complete);
	assert_int_equal(layers_of(h, "v2"), 0);
	put_text(h->volume, "a", "1");
	int fd = openat(h->volume, "writing", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	publish(h, WARM_PUBLISH_ROUND, "template");
	assert_int_equal(h->r.groups, 1);
	assert_false(h->r.complete);
	close(fd);
	put_text(h->volume, "inductor/ab/x.so", "\177ELF and no more");
	publish(h, WARM_PUBLISH_ALL, "template");
	assert_false(h->r.complete);
	assert_int_equal(unlinkat(h->volume, "inductor/ab/x.so", 0), 0);
	publish(h, WARM_PUBLISH_ALL, "template");
	assert_true(h->r.complete);
	close_house(h);
}

/* Files that a ready model keeps open would hold the mark back for as long as it runs. */
TEST(where_readiness_is_known_only_an_empty_key_holds_the_mark_back)
{
	struct house *h = open_house(AT_ONCE);

	assert_int_equal(warm_publisher_open(&h->o, &h->p, &h->err), 0);
	warm_publisher_set_ready(h->p);
	publish(h, WARM_PUBLISH_ROUND, "template");
	assert_false(h->r.complete);
	/* What waits or is torn makes no key that isn't empty. */
	int fd = openat(h->volume, "writing", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	put_text(h->volume, "inductor/ab/x.so", "\177ELF and no more");
	publish(h, WARM_PUBLISH_ROUND, "template");
	assert_int_equal(h->r.waiting, 1);
	assert_int_equal(h->r.torn, 1);
	assert_false(h->r.complete);
	assert_int_equal(layers_of(h, "v2"), 0);
	put_text(h->volume, "a", "1");
	publish(h, WARM_PUBLISH_ROUND, "template");
	assert_int_equal(h->r.groups, 1);
	assert_int_equal(h->r.waiting, 1);
	assert_int_equal(h->r.torn, 1);
	assert_true(h->r.complete);
	close(fd);
	close_house(h);
}

/* ---- restraint and progress ---- */

static int64_t process_cpu_ms(void)
{
	struct timespec cpu;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
	return warm_timespec_ns(cpu) / 1000000;
}

TEST(a_round_keeps_to_its_share_of_a_cpu)
{
	struct house *h = open_house(AT_ONCE);
	atomic_bool draining = false;

	h->o.cpu_percent = 10;
	h->o.draining = &draining;
	put_noise(h, "x/", 8, 2 << 20);
	int64_t cpu_before = process_cpu_ms();
	publish(h, WARM_PUBLISH_ROUND, NULL);
	int64_t cpu_ms = process_cpu_ms() - cpu_before;
	assert_int_equal(h->r.groups, 8);
	/* Looking at the volume and the put aren't packing: half of it, then. */
	assert_true(h->r.pack_ms >= cpu_ms * 10 / 2);
	close_house(h);
}

static void begin_the_end(void *arg, uint64_t done, uint64_t total)
{
	(void)done;
	(void)total;
	atomic_store((atomic_bool *)arg, true);
}

TEST(when_the_end_begins_nobody_rests)
{
	struct house *h = open_house(AT_ONCE);
	atomic_bool draining = false;

	h->o.cpu_percent = 1;
	h->o.draining = &draining;
	h->o.progress = begin_the_end;
	h->o.progress_arg = &draining;
	put_text(h->volume, "a", "1"); /* packed at once, and with it the end begins */
	put_noise(h, "x/", 8, 1 << 20);
	int64_t cpu_before = process_cpu_ms();
	publish(h, WARM_PUBLISH_ROUND, NULL);
	assert_true(h->r.groups >= 1);
	/* Restrained it would be a hundred times as much. */
	assert_true(h->r.pack_ms < (process_cpu_ms() - cpu_before + 10) * 60);
	close_house(h);
}

TEST(a_round_that_begins_when_the_end_has_begun_leaves_all_to_a_drain)
{
	struct house *h = open_house(AT_ONCE);
	atomic_bool draining = true;

	h->o.draining = &draining;
	put_text(h->volume, "a", "1");
	wait_a_moment();
	publish(h, WARM_PUBLISH_ROUND, "template");
	assert_int_equal(h->r.groups, 0);
	assert_false(h->r.complete);
	publish(h, WARM_PUBLISH_DRAIN, "template");
	assert_int_equal(h->r.groups, 1);
	assert_true(h->r.complete);
	close_house(h);
}

struct watched {
	uint64_t last, total;
	int calls;
};

static void watch_progress(void *arg, uint64_t done, uint64_t total)
{
	struct watched *w = arg;

	assert_true(done >= w->last && done <= total);
	assert_true(w->calls == 0 || total == w->total);
	w->last = done;
	w->total = total;
	w->calls++;
}

TEST(progress_grows_up_to_all)
{
	struct house *h = open_house(AT_ONCE);
	struct watched w = { 0 };

	h->o.progress = watch_progress;
	h->o.progress_arg = &w;
	put_noise(h, "x/", 5, 1000);
	publish(h, WARM_PUBLISH_ALL, NULL);
	assert_int_equal(w.calls, 5);
	assert_int_equal(w.total, 5000);
	assert_int_equal(w.last, 5000);
	close_house(h);
}

TEST(what_is_inert_is_explained)
{
	struct house *h = open_house(AT_ONCE);
	struct made_group g = { .name = "inductor/ab/r.py",
				.flags = WARM_GROUP_SELF_KEYED,
				.files = { { .path = "inductor/ab/r.py", .text = "123" } } };
	struct made_layer l = { .id = { 1700000000000, 1 }, .groups = &g, .n_groups = 1 };
	scope_buf struct warm_buf text = WARM_BUF_INIT;
	atomic_bool cancel = true;
	struct warm_call call = { .cancel = &cancel };

	publish(h, WARM_PUBLISH_LOOK, NULL);
	assert_int_equal(warm_publisher_explain_inert(h->p, NULL, &text, &h->err), WARM_NOT_FOUND);
	assert_int_equal(text.bytes, 0);
	put_made_layer(h->store, &h->o.key, &l, NULL);
	(void)restore_into(h, "volume", "v2", "/cache");
	assert_int_equal(warm_publisher_explain_inert(h->p, &call, &text, &h->err), WARM_CANCELED);
	assert_int_equal(warm_publisher_explain_inert(h->p, NULL, &text, &h->err), 0);
	warm_buf_put_u8(&text, 0);
	assert_non_null(strstr((char *)text.data, "no mount at /cache"));
	assert_non_null(strstr((char *)text.data, "TORCHINDUCTOR_CACHE_DIR"));
	close_house(h);
}

static void set_flag(void *arg, const char *name)
{
	(void)name;
	atomic_store((atomic_bool *)arg, true);
}

TEST(a_hurry_in_the_middle_leaves_whole_layers_and_no_mark)
{
	static const enum warm_publish_mode modes[] = { WARM_PUBLISH_ROUND, WARM_PUBLISH_DRAIN };

	for (size_t i = 0; i < COUNT(modes); i++) {
		struct house *h = open_house(AT_ONCE);
		atomic_bool hurry = false;
		struct wrapped_store w = { .inner = h->store,
					   .after_put = set_flag,
					   .arg = &hurry };
		struct warm_store *wrapped = wrapped_store_open(&w);
		h->o.store = wrapped;
		h->o.hurry = &hurry;
		h->o.layer_bytes = 1 << 20;
		put_noise(h, "x/", 12, 400000);
		wait_a_moment();
		publish(h, modes[i], "template");
		/* The one after it was at hand already. */
		assert_true(h->r.layers >= 1 && h->r.layers <= 2);
		assert_true(h->r.groups < 12);
		assert_false(h->r.complete);
		size_t before = h->r.groups;
		publish(h, WARM_PUBLISH_FINAL, "template");
		assert_int_equal(h->r.groups, 12 - before);
		assert_true(h->r.complete);
		warm_publisher_free(take_ptr(h->p));
		warm_store_free(wrapped);
		close_house(h);
	}
}

TEST(present_counts_what_others_put_and_not_our_own)
{
	struct house *h = open_house(AT_ONCE);

	h->o.layer_bytes = 1 << 20;
	put_noise(h, "x/", 12, 400000);
	publish(h, WARM_PUBLISH_ROUND, NULL);
	assert_true(h->r.layers > 1);
	assert_int_equal(h->r.groups, 12);
	assert_int_equal(h->r.present, 0);
	close_house(h);
}

/* The model may put a link in the place of our directory at any time. */
TEST(a_ledger_is_not_written_through_a_link)
{
	struct house *h = open_house(AT_ONCE);

	publish(h, WARM_PUBLISH_LOOK, NULL);
	put_dir(h->s.fd, "outside");
	assert_int_equal(warm_tree_remove(h->volume, WARM_DIR, NULL), 0);
	assert_int_equal(symlinkat(scratch_path(&h->s, "outside"), h->volume, WARM_DIR), 0);
	for (int i = 0; i < 2; i++) {
		(void)!warm_publisher_run(h->p, WARM_PUBLISH_ALL, NULL, NULL, NULL, NULL, &h->r,
					  &h->err);
		wait_a_moment();
		put_text(h->volume, "a", "made after that");
	}
	assert_false(is_there(h->s.fd, "outside/ledger"));
	close_house(h);
}

/* ---- the pod's end ---- */

static uint64_t object_bytes(struct house *h, const struct warm_catalog *c, size_t i)
{
	struct warm_object o;

	assert_int_equal(
		warm_store_head(h->store, c->layers[c->n_layers - 1 - i].object, &o, NULL, NULL),
		0);
	return o.bytes;
}

/* Nobody knows how much time there is: what is put soon is safe soon. */
TEST(at_the_pods_end_layers_begin_small_and_double)
{
	static const struct {
		enum warm_publish_mode mode;
		uint64_t layer_bytes;
		size_t groups[8]; /* of 300000 bytes, by layer */
	} rows[] = {
		{ WARM_PUBLISH_DRAIN, 0, { 3, 6, 13, 18 } },
		{ WARM_PUBLISH_FINAL, 0, { 3, 6, 13, 18 } },
		{ WARM_PUBLISH_FINAL, 3 << 20, { 3, 6, 10, 10, 10, 1 } },
		{ WARM_PUBLISH_DRAIN, 700000, { 2, 2, 2, 2, 2, 2, 2, 2 } },
		{ WARM_PUBLISH_ROUND, 0, { 40 } },
		{ WARM_PUBLISH_ALL, 0, { 40 } },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct house *h = open_house(AT_ONCE);
		scope_catalog struct warm_catalog c = { 0 };
		size_t sum = 0;
		h->o.layer_bytes = rows[i].layer_bytes;
		put_noise(h, "x/", 40, 300000);
		wait_a_moment();
		publish(h, rows[i].mode, "template");
		assert_int_equal(h->r.groups, 40);
		list_layers(h, &c);
		assert_int_equal(c.n_layers, h->r.layers);
		for (size_t k = 0; k < 8 && rows[i].groups[k] != 0; k++) {
			const struct warm_index *x = layer(&c, k);
			if (x->n_groups != rows[i].groups[k])
				fail_msg("row %zu: layer %zu has %zu groups of %zu bytes", i, k,
					 (size_t)x->n_groups, (size_t)object_bytes(h, &c, k));
			if (rows[i].mode != WARM_PUBLISH_ROUND && rows[i].mode != WARM_PUBLISH_ALL)
				assert_true(object_bytes(h, &c, k) <= (uint64_t)1 << (20 + k));
			sum += x->n_groups;
			/* The mark is in the last of them. */
			assert_true((x->complete != NULL) == (k + 1 == c.n_layers));
		}
		assert_true(sum == 40 || rows[i].groups[7] != 0);
		close_house(h);
	}
}

struct order {
	struct heard *heard;
	int puts, puts_before;
};

static void note_order(void *arg, const char *name)
{
	struct order *o = arg;

	(void)name;
	o->puts++;
	o->puts_before += strstr(o->heard->text, "secret: ") == NULL;
}

TEST(secrets_are_looked_for_when_their_group_is_packed)
{
	struct house *h = open_house(AT_ONCE);
	struct order order = { .heard = &h->heard };
	struct wrapped_store w = { .inner = h->store, .after_put = note_order, .arg = &order };
	struct warm_store *wrapped = wrapped_store_open(&w);
	char *text = malloc(500001);

	assert_non_null(text);
	memset(text, '.', 500000);
	text[500000] = '\0';
	memcpy(text + 100, "AK", 2);
	memcpy(text + 102, "IA0123456789ABCDEF", 18);
	h->o.store = wrapped;
	put_noise(h, "x/", 8, 300000);
	put_text(h->volume, "x/secret.txt", text); /* the largest comes last */
	free(text);
	publish(h, WARM_PUBLISH_FINAL, "template");
	assert_int_equal(h->r.groups, 8);
	assert_int_equal(h->r.withheld, 1);
	assert_int_equal(order.puts, 2);
	assert_int_equal(order.puts_before, 1);
	assert_non_null(strstr(h->heard.text, "secret: x/secret.txt"));
	/* What holds none keeps its mark. */
	assert_true(h->r.complete);
	assert_int_equal(restore_into(h, "other", "v2", "/cache").groups, 8);
	assert_false(is_there(h->s.fd, "other/x/secret.txt"));
	warm_publisher_free(take_ptr(h->p));
	warm_store_free(wrapped);
	close_house(h);
}

/* ---- the model clears its volume ---- */

TEST(a_round_works_again_after_our_directory_was_removed)
{
	for (int mode = WARM_PUBLISH_LOOK; mode <= WARM_PUBLISH_ALL; mode++) {
		struct house *h = open_house(AT_ONCE);
		put_text(h->volume, "a", "1");
		publish(h, WARM_PUBLISH_ALL, NULL);
		assert_int_equal(h->r.groups, 1);
		assert_int_equal(warm_tree_remove(h->volume, WARM_DIR, NULL), 0);
		put_text(h->volume, "b", "2");
		wait_a_moment();
		publish(h, (enum warm_publish_mode)mode, "template");
		assert_int_equal(h->r.groups, mode == WARM_PUBLISH_LOOK ? 0 : 1);
		assert_false(h->r.volume_lost);
		assert_true(is_there(h->volume, WARM_DIR));
		/* And with all that was in it. */
		assert_int_equal(shell("rm -rf %s/* %s/.warmcache", h->volume_path, h->volume_path),
				 0);
		publish(h, WARM_PUBLISH_ROUND, NULL);
		assert_int_equal(h->r.groups, 0);
		put_text(h->volume, "c", "3");
		publish(h, WARM_PUBLISH_ALL, NULL);
		assert_int_equal(h->r.groups, 1);
		assert_true(is_there(h->volume, WARM_LEDGER_PATH));
		close_house(h);
	}
}

TEST(nothing_is_written_where_a_link_in_place_of_our_directory_leads)
{
	struct house *h = open_house(AT_ONCE);

	put_text(h->volume, "a", "1");
	publish(h, WARM_PUBLISH_ALL, NULL);
	put_dir(h->s.fd, "outside");
	scope_close int outside = openat(h->s.fd, "outside", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(warm_tree_remove(h->volume, WARM_DIR, NULL), 0);
	assert_int_equal(symlinkat(scratch_path(&h->s, "outside"), h->volume, WARM_DIR), 0);
	put_text(h->volume, "b", "2");
	wait_a_moment();
	for (int mode = WARM_PUBLISH_LOOK; mode <= WARM_PUBLISH_ALL; mode++) {
		h->err = (struct warm_error){ 0 };
		assert_true(warm_publisher_run(h->p, (enum warm_publish_mode)mode, "template", NULL,
					       NULL, NULL, &h->r, &h->err) < 0);
		assert_non_null(strstr(h->err.msg, WARM_DIR));
		assert_int_equal(h->r.layers, 0);
		assert_false(h->r.volume_lost);
	}
	struct warm_publisher *p = NULL;
	assert_true(warm_publisher_open(&h->o, &p, &h->err) < 0);
	assert_null(p);
	char *left = list_tree(outside, false);
	assert_string_equal(left, "");
	free(left);
	assert_int_equal(shell("test -z \"$(ls -A %s)\"", scratch_path(&h->s, "outside")), 0);
	/* Gone again, the round works again. */
	assert_int_equal(unlinkat(h->volume, WARM_DIR, 0), 0);
	publish(h, WARM_PUBLISH_ALL, "template");
	assert_int_equal(h->r.groups, 1);
	assert_true(h->r.complete);
	close_house(h);
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
		cmocka_unit_test(a_look_counts_and_never_asks_the_store),
		cmocka_unit_test(a_look_waits_for_settling_as_a_round_does),
		cmocka_unit_test(a_publisher_that_only_reads_never_asks_the_store),
		cmocka_unit_test(
			use_is_counted_by_profile_and_what_a_hit_does_not_open_is_left_out),
		cmocka_unit_test(a_group_that_may_hold_a_secret_passes),
		cmocka_unit_test(fresh_counts_what_is_new_and_whole_published_or_not),
		cmocka_unit_test(what_others_put_between_two_layers_is_not_put_again),
		cmocka_unit_test(a_store_that_fails_between_two_layers_keeps_the_first),
		cmocka_unit_test(replicas_begin_at_different_places_and_end_with_what_is_mutable),
		cmocka_unit_test(one_layer_is_packed_in_the_order_of_names),
		cmocka_unit_test(a_drain_puts_what_is_proven_whole_and_the_smallest_first),
		cmocka_unit_test(a_drain_with_nothing_new_does_not_ask_the_store_again),
		cmocka_unit_test(in_a_hurry_a_round_ends_after_the_layer_at_hand),
		cmocka_unit_test(a_mark_comes_after_a_quiet_time_or_when_the_model_is_ready),
		cmocka_unit_test(readiness_alone_brings_the_mark_on_an_empty_layer),
		cmocka_unit_test(nothing_is_marked_while_groups_wait_or_are_torn_or_none_are_there),
		cmocka_unit_test(where_readiness_is_known_only_an_empty_key_holds_the_mark_back),
		cmocka_unit_test(a_round_keeps_to_its_share_of_a_cpu),
		cmocka_unit_test(when_the_end_begins_nobody_rests),
		cmocka_unit_test(a_round_that_begins_when_the_end_has_begun_leaves_all_to_a_drain),
		cmocka_unit_test(progress_grows_up_to_all),
		cmocka_unit_test(what_is_inert_is_explained),
		cmocka_unit_test(a_hurry_in_the_middle_leaves_whole_layers_and_no_mark),
		cmocka_unit_test(present_counts_what_others_put_and_not_our_own),
		cmocka_unit_test(a_ledger_is_not_written_through_a_link),
		cmocka_unit_test(at_the_pods_end_layers_begin_small_and_double),
		cmocka_unit_test(secrets_are_looked_for_when_their_group_is_packed),
		cmocka_unit_test(a_round_works_again_after_our_directory_was_removed),
		cmocka_unit_test(nothing_is_written_where_a_link_in_place_of_our_directory_leads),
	};

	return RUN(tests);
}
