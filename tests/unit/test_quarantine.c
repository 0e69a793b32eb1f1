/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <fcntl.h>

#include "lib/layer/profile.h"
#include "lib/sync/publish.h"
#include "lib/sync/quarantine.h"
#include "lib/sync/restore.h"

#define KEY52 "JLBMVPBZBZDTHY2Q54DTTFGFZEYHW5VI2ZA6RYBGUSU5E6OC3WDA"
#define HELD WARM_QUARANTINE_DIR "/files/"

enum { SELF = WARM_GROUP_SELF_KEYED };

static const struct warm_id first = { 1700000000000, 1 }, second = { 1700000000001, 2 };

struct house {
	struct scratch s;
	struct warm_store *store;
	int volume;
	char volume_path[300];
	struct warm_restore_result r;
	struct heard heard;
	/* of the last quarantine */
	size_t groups;
	struct warm_error err;
};

static struct house *open_house(void)
{
	struct house *h = calloc(1, sizeof(*h));

	assert_non_null(h);
	h->s = scratch_open();
	put_dir(h->s.fd, "store");
	put_dir(h->s.fd, "volume/" WARM_DIR);
	put_text(h->s.fd, "outside/precious", "untouched");
	h->volume = openat(h->s.fd, "volume", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(h->volume >= 0);
	assert_int_equal(warm_store_open(scratch_path(&h->s, "store"), &h->store, NULL), 0);
	snprintf(h->volume_path, sizeof(h->volume_path), "%s/volume", h->s.path);
	return h;
}

/* Whatever happened: outside of the volume nothing was touched. */
static void close_house(struct house *h)
{
	scope_close int outside = openat(h->s.fd, "outside", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char *tree = list_tree(outside, false);

	assert_file(outside, "precious", "untouched");
	assert_ptr_equal(strchr(tree, '\n'), tree + strlen(tree) - 1);
	free(tree);
	assert_false(is_there(outside, WARM_DIR));
	warm_store_free(h->store);
	close(h->volume);
	scratch_close(&h->s);
	free(h);
}

static void put_in(struct house *h, struct warm_id id, const struct made_group *groups, size_t n)
{
	struct warm_key key = key_of("llama", "v2");
	struct made_layer l = { .id = id, .groups = groups, .n_groups = n };

	put_made_layer(h->store, &key, &l, NULL);
}

static void restore(struct house *h)
{
	struct warm_notices notices = { hear, &h->heard };
	struct warm_restore_options o = { .store = h->store,
					  .key = key_of("llama", "v2"),
					  .volume = h->volume_path,
					  .mount = "/cache",
					  .notices = &notices };
	struct warm_error err = { 0 };

	if (warm_restore_run(&o, NULL, &h->r, &err) != 0)
		fail_msg("%s", err.msg);
}

static int quarantine(struct house *h)
{
	h->err = (struct warm_error){ 0 };
	h->groups = 99;
	return warm_quarantine_run(h->volume_path, &h->groups, &h->err);
}

static void assert_held(struct house *h, const char *path, const char *text)
{
	char held[WARM_PATH_BYTES];

	snprintf(held, sizeof(held), HELD "%s", path);
	if (is_there(h->volume, path))
		fail_msg("%s is in the cache still", path);
	if (!is_there(h->volume, held))
		fail_msg("%s is not in quarantine", path);
	assert_file(h->volume, held, text);
}

static size_t groups_in(struct house *h, const char *path)
{
	struct warm_ledger l;

	assert_int_equal(warm_ledger_load_from(&l, h->volume, path, NULL), 0);
	size_t n = l.n_groups;
	warm_ledger_release(&l);
	return n;
}

/* A ledger of groups of one file each, "name" or "name=path", as they are in the volume now. */
static void put_ledger(struct house *h, const char *const *names, size_t n)
{
	struct warm_ledger l;
	char key[] = "llama/v2/test", profile[] = "file";

	warm_ledger_init(&l);
	for (size_t i = 0; i < n; i++) {
		char name[300], path[300];
		const char *equals = strchr(names[i], '=');
		snprintf(path, sizeof(path), "%s", equals != NULL ? equals + 1 : names[i]);
		snprintf(name, sizeof(name), "%.*s", (int)strcspn(names[i], "="), names[i]);
		struct warm_ledger_file f = { path, 10, 1, 2 };
		struct stat st;
		if (fstatat(h->volume, path, &st, AT_SYMLINK_NOFOLLOW) == 0) {
			f.size = (uint64_t)st.st_size;
			f.mtime_ns = warm_timespec_ns(st.st_mtim);
			f.atime_ns = warm_timespec_ns(st.st_atim);
		}
		struct warm_ledger_group g = { .name = name,
					       .key = key,
					       .profile = profile,
					       .origin = first,
					       .flags = WARM_LEDGER_RESTORED,
					       .files = &f,
					       .n_files = 1 };
		assert_int_equal(warm_ledger_put(&l, &g, NULL), 0);
	}
	assert_int_equal(warm_ledger_save(&l, h->volume, NULL), 0);
	warm_ledger_release(&l);
}
#define LEDGER(...)                                         \
	put_ledger(h, (const char *const[]){ __VA_ARGS__ }, \
		   COUNT(((const char *const[]){ __VA_ARGS__ })))

TEST(groups_of_all_shapes_are_moved_whole)
{
	struct house *h = open_house();
	struct made_group groups[] = {
		{ .name = "triton/" KEY52,
		  .flags = SELF | WARM_GROUP_MOUNT_BOUND,
		  .bound = warm_mount_hash("/cache"),
		  .files = { { .path = "triton/" KEY52 "/k.json", .text = "{}" },
			     { .path = "triton/" KEY52 "/k.ptx", .text = "ptx" } } },
		{ .name = "inductor/ab/x.py",
		  .flags = SELF,
		  .files = { { .path = "inductor/ab/x.py", .text = "py" } } },
		{ .name = "inductor/ab/k.best_config",
		  .flags = WARM_GROUP_MUTABLE,
		  .files = { { .path = "inductor/ab/k.best_config", .text = "{}" } } },
		{ .name = "jax/f-cache",
		  .flags = SELF,
		  .files = { { .path = "jax/f-atime", .text = "t" },
			     { .path = "jax/f-cache", .text = "c" } } },
		{ .name = "flashinfer/0.5/90/cached_ops/norm",
		  .files = { { .path = "flashinfer/0.5/90/cached_ops/norm/norm.so", .text = "so" },
			     { .path = "flashinfer/0.5/90/generated/norm/norm.cu",
			       .text = "cu" } } },
		{ .name = "top", .files = { { .path = "top", .text = "top" } } },
	};

	put_in(h, first, groups, COUNT(groups));
	restore(h);
	assert_int_equal(h->r.groups, 6);
	/* The model's own stays. */
	put_text(h->volume, "inductor/ab/own.py", "own");
	put_text(h->volume, "triton/own/x", "own");
	assert_int_equal(quarantine(h), 0);
	assert_int_equal(h->groups, 6);
	assert_held(h, "triton/" KEY52 "/k.json", "{}");
	assert_held(h, "triton/" KEY52 "/k.ptx", "ptx");
	assert_held(h, "inductor/ab/x.py", "py");
	assert_held(h, "inductor/ab/k.best_config", "{}");
	assert_held(h, "jax/f-cache", "c");
	assert_held(h, "jax/f-atime", "t");
	assert_held(h, "flashinfer/0.5/90/cached_ops/norm/norm.so", "so");
	assert_held(h, "flashinfer/0.5/90/generated/norm/norm.cu", "cu");
	assert_held(h, "top", "top");
	assert_false(is_there(h->volume, "triton/" KEY52));
	assert_file(h->volume, "inductor/ab/own.py", "own");
	assert_file(h->volume, "triton/own/x", "own");
	/* The ledger has forgotten them, the other one knows. */
	assert_int_equal(groups_in(h, WARM_LEDGER_PATH), 0);
	assert_int_equal(groups_in(h, WARM_QUARANTINE_LEDGER), 6);
	close_house(h);
}

TEST(what_the_model_changed_of_a_group_goes_with_what_it_did_not)
{
	struct house *h = open_house();
	struct made_group g = { .name = "deepgemm/cache/k",
				.flags = SELF,
				.files = { { .path = "deepgemm/cache/k/a", .text = "a" },
					   { .path = "deepgemm/cache/k/b", .text = "b" } } };

	put_in(h, first, &g, 1);
	restore(h);
	put_text(h->volume, "deepgemm/cache/k/a", "changed");
	put_text(h->volume, "deepgemm/cache/k/more", "more");
	assert_int_equal(quarantine(h), 0);
	assert_int_equal(h->groups, 1);
	assert_held(h, "deepgemm/cache/k/a", "changed");
	assert_held(h, "deepgemm/cache/k/b", "b");
	assert_held(h, "deepgemm/cache/k/more", "more");
	close_house(h);
}

/* The suspicion is of what was restored. */
TEST(what_the_model_made_anew_stays_and_is_neither_held_nor_forgotten)
{
	struct house *h = open_house();
	struct made_group groups[] = {
		{ .name = "larger", .files = { { .path = "larger", .text = "1" } } },
		{ .name = "later", .files = { { .path = "later", .text = "1" } } },
		{ .name = "d/all",
		  .flags = SELF,
		  .files = { { .path = "d/all/a", .text = "1" },
			     { .path = "d/all/b", .text = "1" } } },
		{ .name = "gone", .files = { { .path = "gone", .text = "1" } } },
		{ .name = "same", .files = { { .path = "same", .text = "1" } } },
	};

	put_in(h, first, groups, COUNT(groups));
	restore(h);
	assert_int_equal(h->r.groups, COUNT(groups));
	struct stat st = stat_of(h->volume, "larger");
	put_text(h->volume, "larger", "anew");
	set_times(h->volume, "larger", 0, warm_timespec_ns(st.st_mtim));
	put_text(h->volume, "later", "2");
	set_times(h->volume, "later", 0, warm_timespec_ns(st.st_mtim) + 1);
	put_text(h->volume, "d/all/a", "anew");
	put_text(h->volume, "d/all/b", "anew");
	assert_int_equal(unlinkat(h->volume, "gone", 0), 0);
	assert_int_equal(quarantine(h), 0);
	assert_int_equal(h->groups, 1);
	assert_held(h, "same", "1");
	assert_file(h->volume, "larger", "anew");
	assert_file(h->volume, "later", "2");
	assert_file(h->volume, "d/all/a", "anew");
	assert_file(h->volume, "d/all/b", "anew");
	assert_false(is_there(h->volume, HELD "larger"));
	assert_false(is_there(h->volume, HELD "gone"));
	assert_int_equal(groups_in(h, WARM_LEDGER_PATH), 4);
	assert_int_equal(groups_in(h, WARM_QUARANTINE_LEDGER), 1);
	/* So what went comes back, and from the same layer. */
	restore(h);
	assert_true(is_there(h->volume, "gone"));
	assert_false(is_there(h->volume, "same"));
	close_house(h);
}

TEST(a_volume_that_was_never_restored_has_nothing_to_move)
{
	struct house *h = open_house();

	put_text(h->volume, "a", "own");
	assert_int_equal(quarantine(h), 0);
	assert_int_equal(h->groups, 0);
	assert_false(is_there(h->volume, WARM_QUARANTINE_DIR));
	assert_file(h->volume, "a", "own");
	assert_int_equal(warm_tree_remove(h->volume, WARM_DIR, NULL), 0);
	assert_int_equal(quarantine(h), 0);
	assert_int_equal(h->groups, 0);
	close_house(h);
}

TEST(a_volume_that_is_not_there_is_not_found)
{
	struct scratch s = scratch_open();
	struct warm_error err = { 0 };
	size_t groups = 0;

	assert_int_equal(warm_quarantine_run(scratch_path(&s, "none"), &groups, &err),
			 WARM_NOT_FOUND);
	assert_non_null(strstr(err.msg, "none"));
	scratch_close(&s);
}

TEST(what_was_only_published_stays)
{
	struct house *h = open_house();
	struct made_group g = { .name = "restored",
				.files = { { .path = "restored", .text = "r" } } };
	struct warm_publish_report report;
	struct warm_publisher *p = NULL;
	struct warm_publish_options o = { .store = h->store,
					  .key = key_of("llama", "v2"),
					  .volume = h->volume_path,
					  .mount = "/cache" };

	put_in(h, first, &g, 1);
	restore(h);
	put_text(h->volume, "own", "o");
	assert_int_equal(warm_publisher_open(&o, &p, NULL), 0);
	assert_int_equal(
		warm_publisher_run(p, WARM_PUBLISH_ALL, NULL, NULL, NULL, NULL, &report, NULL), 0);
	assert_int_equal(report.groups, 1);
	warm_publisher_free(p);
	assert_int_equal(quarantine(h), 0);
	assert_int_equal(h->groups, 1);
	assert_held(h, "restored", "r");
	assert_file(h->volume, "own", "o");
	assert_int_equal(groups_in(h, WARM_LEDGER_PATH), 1);
	close_house(h);
}

TEST(what_went_meanwhile_is_no_error)
{
	struct house *h = open_house();

	put_text(h->volume, "there", "t");
	LEDGER("gone", "deep/er/gone=deep/er/gone/file", "there");
	assert_int_equal(quarantine(h), 0);
	assert_int_equal(h->groups, 1);
	assert_held(h, "there", "t");
	assert_int_equal(groups_in(h, WARM_LEDGER_PATH), 2);
	assert_int_equal(groups_in(h, WARM_QUARANTINE_LEDGER), 1);
	close_house(h);
}

/* ---- later restores ---- */

TEST(a_restore_leaves_out_what_is_in_quarantine)
{
	struct house *h = open_house();
	struct made_group groups[] = {
		{ .name = "bad", .files = { { .path = "bad", .text = "1" } } },
		{ .name = "d/bad", .flags = SELF, .files = { { .path = "d/bad", .text = "2" } } },
	};

	put_in(h, first, groups, 2);
	restore(h);
	assert_int_equal(h->r.groups, 2);
	assert_int_equal(quarantine(h), 0);
	restore(h);
	assert_int_equal(h->r.groups, 0);
	assert_int_equal(h->r.status, WARM_RESTORE_COLD);
	assert_false(is_there(h->volume, "bad"));
	assert_non_null(strstr(h->r.reason, "2 groups are in quarantine"));
	/* Whoever made them again since comes in: it is another origin. */
	struct made_group again[] = {
		{ .name = "bad", .files = { { .path = "bad", .text = "better" } } },
		{ .name = "more", .files = { { .path = "more", .text = "3" } } },
	};
	put_in(h, second, again, 2);
	restore(h);
	assert_int_equal(h->r.groups, 2);
	assert_file(h->volume, "bad", "better");
	assert_file(h->volume, "more", "3");
	assert_false(is_there(h->volume, "d/bad"));
	/* A second quarantine keeps the first one's in mind. */
	assert_int_equal(quarantine(h), 0);
	assert_int_equal(h->groups, 2);
	assert_held(h, "bad", "better");
	restore(h);
	assert_int_equal(h->r.groups, 0);
	assert_false(is_there(h->volume, "bad"));
	assert_false(is_there(h->volume, "d/bad"));
	close_house(h);
}

TEST(another_volume_is_restored_as_ever)
{
	struct house *h = open_house();
	struct made_group g = { .name = "bad", .files = { { .path = "bad", .text = "1" } } };

	put_in(h, first, &g, 1);
	restore(h);
	assert_int_equal(quarantine(h), 0);
	put_dir(h->s.fd, "other");
	snprintf(h->volume_path, sizeof(h->volume_path), "%s/other", h->s.path);
	restore(h);
	assert_int_equal(h->r.groups, 1);
	assert_file(h->s.fd, "other/bad", "1");
	close_house(h);
}

TEST(a_quarantine_whose_ledger_is_lost_or_torn_holds_nothing_back)
{
	struct house *h = open_house();
	struct made_group g = { .name = "bad", .files = { { .path = "bad", .text = "1" } } };
	struct warm_ledger held;

	put_in(h, first, &g, 1);
	restore(h);
	assert_int_equal(quarantine(h), 0);
	assert_int_equal(warm_quarantine_load(&held, h->volume, NULL), 0);
	assert_int_equal(held.n_groups, 1);
	assert_string_equal(held.groups[0].name, "bad");
	warm_ledger_release(&held);
	put_text(h->volume, WARM_QUARANTINE_LEDGER, "torn");
	assert_int_equal(warm_quarantine_load(&held, h->volume, NULL), 0);
	assert_int_equal(held.n_groups, 0);
	warm_ledger_release(&held);
	restore(h);
	assert_int_equal(h->r.groups, 1);
	assert_int_equal(quarantine(h), 0); /* written anew */
	assert_int_equal(groups_in(h, WARM_QUARANTINE_LEDGER), 1);
	assert_int_equal(unlinkat(h->volume, WARM_QUARANTINE_LEDGER, 0), 0);
	assert_int_equal(warm_quarantine_load(&held, h->volume, NULL), 0);
	assert_int_equal(held.n_groups, 0);
	warm_ledger_release(&held);
	close_house(h);
}

/* ---- cut off ---- */

static void put_deep(int dir_fd, const char *path, int depth)
{
	scope_close int at = openat(dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	for (int i = 0; i < depth; i++) {
		assert_int_equal(mkdirat(at, "d", 0700), 0);
		int next = openat(at, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_true(next >= 0);
		close(at);
		at = next;
	}
}

TEST(a_run_that_was_cut_off_is_completed_by_the_next)
{
	struct house *h = open_house();
	struct made_group groups[] = {
		{ .name = "a/1", .files = { { .path = "a/1", .text = "1" } } },
		{ .name = "b/2", .files = { { .path = "b/2", .text = "2" } } },
		{ .name = "c/3", .files = { { .path = "c/3", .text = "3" } } },
	};

	put_in(h, first, groups, 3);
	restore(h);
	/* In the second one's place what is too deep to be removed. */
	put_dir(h->volume, HELD "b/2");
	put_deep(h->volume, HELD "b/2", 300);
	assert_true(quarantine(h) < 0);
	assert_non_null(strstr(h->err.msg, h->volume_path));
	assert_int_equal(h->groups, 2); /* it keeps no other back */
	assert_held(h, "a/1", "1");
	assert_file(h->volume, "b/2", "2");
	assert_held(h, "c/3", "3");
	/* Nothing of it comes back meanwhile, be it moved or not. */
	assert_int_equal(groups_in(h, WARM_LEDGER_PATH), 1);
	assert_int_equal(groups_in(h, WARM_QUARANTINE_LEDGER), 3);
	restore(h);
	assert_false(is_there(h->volume, "a/1"));
	assert_int_equal(shell("rm -r %s/" HELD "b/2", h->volume_path), 0);
	assert_int_equal(quarantine(h), 0);
	assert_held(h, "a/1", "1");
	assert_held(h, "b/2", "2");
	assert_held(h, "c/3", "3");
	assert_int_equal(groups_in(h, WARM_LEDGER_PATH), 0);
	assert_int_equal(groups_in(h, WARM_QUARANTINE_LEDGER), 3);
	close_house(h);
}

TEST(a_second_run_finds_nothing_to_do)
{
	struct house *h = open_house();

	put_text(h->volume, "a", "1");
	put_text(h->volume, "d/b/file", "2");
	LEDGER("a", "d/b=d/b/file");
	assert_int_equal(quarantine(h), 0);
	assert_int_equal(h->groups, 2);
	assert_int_equal(quarantine(h), 0);
	assert_int_equal(h->groups, 0);
	assert_held(h, "a", "1");
	assert_held(h, "d/b/file", "2");
	assert_int_equal(groups_in(h, WARM_QUARANTINE_LEDGER), 2);
	close_house(h);
}

/* Moved, and the ledger not yet saved: the next run finds nothing of it as it was restored. */
TEST(a_run_that_ended_before_its_ledger_was_saved_loses_nothing)
{
	struct house *h = open_house();
	size_t bytes = 0;

	put_text(h->volume, "a", "1");
	put_text(h->volume, "d/b/file", "2");
	LEDGER("a", "d/b=d/b/file");
	char *ledger = text_of(h->volume, WARM_LEDGER_PATH, &bytes);
	assert_int_equal(quarantine(h), 0);
	put_file(h->volume, WARM_LEDGER_PATH, ledger, bytes, 0644, 0);
	free(ledger);
	assert_int_equal(quarantine(h), 0);
	assert_int_equal(h->groups, 0);
	assert_held(h, "a", "1");
	assert_held(h, "d/b/file", "2");
	assert_int_equal(groups_in(h, WARM_QUARANTINE_LEDGER), 2);
	close_house(h);
}

TEST(what_is_there_from_an_earlier_time_makes_room)
{
	struct house *h = open_house();

	put_text(h->volume, "a", "new");
	put_text(h->volume, "d/b/file", "new");
	put_text(h->volume, "f", "new");
	LEDGER("a", "d/b=d/b/file", "f");
	put_text(h->volume, HELD "a", "old");
	put_text(h->volume, HELD "d/b/other", "old");
	put_text(h->volume, HELD "f/now/a/directory", "old");
	assert_int_equal(quarantine(h), 0);
	assert_held(h, "a", "new");
	assert_held(h, "d/b/file", "new");
	assert_held(h, "f", "new");
	assert_false(is_there(h->volume, HELD "d/b/other"));
	close_house(h);
}

TEST(a_torn_ledger_is_corrupt_and_moves_nothing)
{
	struct house *h = open_house();

	put_text(h->volume, WARM_LEDGER_PATH, "torn");
	put_text(h->volume, "a", "1");
	assert_int_equal(quarantine(h), WARM_CORRUPT);
	assert_file(h->volume, "a", "1");
	close_house(h);
}

/* ---- the model is in the volume, too ---- */

TEST(links_in_the_way_of_the_quarantine_are_not_followed)
{
	static const char *const places[] = { WARM_DIR, WARM_QUARANTINE_DIR };

	for (size_t i = 0; i < COUNT(places); i++) {
		struct house *h = open_house();
		char parent[100];
		put_text(h->volume, "d/e/f", "1");
		LEDGER("d/e/f");
		if (i > 0) {
			snprintf(parent, sizeof(parent), "%.*s",
				 (int)(strrchr(places[i], '/') - places[i]), places[i]);
			put_dir(h->volume, parent);
		} else {
			/* With a ledger of its own, which must not be believed. */
			assert_int_equal(warm_tree_remove(h->volume, WARM_DIR, NULL), 0);
		}
		assert_int_equal(symlinkat(scratch_path(&h->s, "outside"), h->volume, places[i]),
				 0);
		int rc = quarantine(h);
		if (i > 0 && rc == 0)
			fail_msg("%s: moved through a link", places[i]);
		assert_file(h->volume, "d/e/f", "1");
		close_house(h);
	}
}

TEST(a_link_in_the_place_of_a_held_group_is_replaced)
{
	struct house *h = open_house();

	put_text(h->volume, "d/e/f", "1");
	LEDGER("d/e=d/e/f");
	put_dir(h->volume, HELD "d");
	assert_int_equal(symlinkat(scratch_path(&h->s, "outside"), h->volume, HELD "d/e"), 0);
	assert_int_equal(quarantine(h), 0);
	assert_held(h, "d/e/f", "1");
	assert_true(S_ISDIR(stat_of(h->volume, HELD "d/e").st_mode));
	close_house(h);
}

/* It is the model's, even where it leads to what is as the ledger has it. */
TEST(a_link_in_the_place_of_a_group_stays)
{
	struct house *h = open_house();

	put_text(h->volume, "d/link/precious", "untouched");
	put_text(h->volume, "file", "untouched");
	set_times(h->volume, "d/link/precious", 1000000000, 2000000000);
	set_times(h->volume, "file", 1000000000, 2000000000);
	set_times(h->s.fd, "outside/precious", 1000000000, 2000000000);
	LEDGER("d/link=d/link/precious", "file");
	assert_int_equal(warm_tree_remove(h->volume, "d/link", NULL), 0);
	assert_int_equal(unlinkat(h->volume, "file", 0), 0);
	assert_int_equal(symlinkat(scratch_path(&h->s, "outside"), h->volume, "d/link"), 0);
	assert_int_equal(symlinkat(scratch_path(&h->s, "outside/precious"), h->volume, "file"), 0);
	assert_int_equal(quarantine(h), 0);
	assert_int_equal(h->groups, 0);
	assert_true(S_ISLNK(stat_of(h->volume, "d/link").st_mode));
	assert_true(S_ISLNK(stat_of(h->volume, "file").st_mode));
	assert_false(is_there(h->volume, HELD "file"));
	assert_int_equal(groups_in(h, WARM_LEDGER_PATH), 2);
	close_house(h);
}

TEST(a_link_above_a_group_is_not_followed)
{
	struct house *h = open_house();

	assert_int_equal(symlinkat(scratch_path(&h->s, "outside"), h->volume, "d"), 0);
	put_text(h->volume, "e", "1");
	LEDGER("d/precious", "e");
	(void)!quarantine(h);
	assert_held(h, "e", "1");
	close_house(h);
}

TEST(paths_that_leave_the_volume_are_left_alone)
{
	struct house *h = open_house();
	char absolute[400];

	snprintf(absolute, sizeof(absolute), "x=%s/outside/precious", h->s.path);
	put_text(h->volume, "d/e", "1");
	put_text(h->volume, "last", "1");
	LEDGER("../outside/precious", "a/../../outside/precious", absolute, ".", "..", "d//e",
	       "d/./e", "last");
	assert_int_equal(quarantine(h), 0);
	assert_held(h, "last", "1");
	assert_file(h->volume, "d/e", "1");
	close_house(h);
}

TEST(our_own_directory_is_no_group)
{
	struct house *h = open_house();

	put_text(h->volume, "last", "1");
	put_text(h->volume, WARM_DIR "-not/f", "1");
	put_text(h->volume, WARM_DIR "/own", "1");
	LEDGER(WARM_DIR, WARM_DIR "/ledger", WARM_DIR "/own", "own=" WARM_DIR "/own",
	       "x=" WARM_DIR "/ledger", "y=" WARM_DIR "/quarantine/ledger",
	       "z/z=" WARM_DIR "/quarantine/files/last", WARM_DIR "-not/f", "last");
	assert_int_equal(quarantine(h), 0);
	assert_held(h, "last", "1");
	assert_held(h, WARM_DIR "-not/f", "1");
	assert_file(h->volume, WARM_DIR "/own", "1");
	assert_false(is_there(h->volume, HELD WARM_DIR));
	close_house(h);
}

/* What stands in the way of the quarantine's own directories: the group stays, and is not
 * forgotten. */
TEST(a_group_that_can_not_be_moved_is_not_counted)
{
	static const char *const places[] = { WARM_QUARANTINE_DIR "/files", HELD "d", HELD "d/e" };

	for (size_t i = 0; i < COUNT(places); i++)
		for (int link = 0; link < 2; link++) {
			struct house *h = open_house();
			char parent[100];
			put_text(h->volume, "d/e/f", "1");
			LEDGER("d/e/f");
			snprintf(parent, sizeof(parent), "%.*s",
				 (int)(strrchr(places[i], '/') - places[i]), places[i]);
			put_dir(h->volume, parent);
			if (link)
				assert_int_equal(symlinkat(scratch_path(&h->s, "outside"),
							   h->volume, places[i]),
						 0);
			else
				put_text(h->volume, places[i], "in the way");
			int rc = quarantine(h);
			bool stays = is_there(h->volume, "d/e/f");
			size_t known = groups_in(h, WARM_LEDGER_PATH), counted = h->groups;
			close_house(h);
			if (!stays || rc == 0 || known != 1 || counted != 0)
				fail_msg("%s%s: the group %s, rc %d, %zu counted, %zu in the "
					 "ledger",
					 places[i], link ? " (a link)" : "",
					 stays ? "stays" : "went", rc, counted, known);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(groups_of_all_shapes_are_moved_whole),
		cmocka_unit_test(what_the_model_changed_of_a_group_goes_with_what_it_did_not),
		cmocka_unit_test(what_the_model_made_anew_stays_and_is_neither_held_nor_forgotten),
		cmocka_unit_test(a_volume_that_was_never_restored_has_nothing_to_move),
		cmocka_unit_test(a_volume_that_is_not_there_is_not_found),
		cmocka_unit_test(what_was_only_published_stays),
		cmocka_unit_test(what_went_meanwhile_is_no_error),
		cmocka_unit_test(a_restore_leaves_out_what_is_in_quarantine),
		cmocka_unit_test(another_volume_is_restored_as_ever),
		cmocka_unit_test(a_quarantine_whose_ledger_is_lost_or_torn_holds_nothing_back),
		cmocka_unit_test(a_run_that_was_cut_off_is_completed_by_the_next),
		cmocka_unit_test(a_second_run_finds_nothing_to_do),
		cmocka_unit_test(a_run_that_ended_before_its_ledger_was_saved_loses_nothing),
		cmocka_unit_test(what_is_there_from_an_earlier_time_makes_room),
		cmocka_unit_test(a_torn_ledger_is_corrupt_and_moves_nothing),
		cmocka_unit_test(links_in_the_way_of_the_quarantine_are_not_followed),
		cmocka_unit_test(a_link_in_the_place_of_a_held_group_is_replaced),
		cmocka_unit_test(a_link_in_the_place_of_a_group_stays),
		cmocka_unit_test(a_link_above_a_group_is_not_followed),
		cmocka_unit_test(paths_that_leave_the_volume_are_left_alone),
		cmocka_unit_test(our_own_directory_is_no_group),
		cmocka_unit_test(a_group_that_can_not_be_moved_is_not_counted),
	};

	return RUN(tests);
}
