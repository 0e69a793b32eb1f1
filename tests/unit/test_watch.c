/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <fcntl.h>
#include <poll.h>

#include "lib/sync/scan.h"
#include "sidecar/watch.h"

struct house {
	struct scratch s;
	int volume;
	char path[300];
	struct warm_watch w;
};

static struct house *open_house(uint64_t max_watches)
{
	struct house *h = calloc(1, sizeof(*h));

	assert_non_null(h);
	h->s = scratch_open();
	put_dir(h->s.fd, "volume/.warmcache");
	h->volume = openat(h->s.fd, "volume", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(h->volume >= 0);
	snprintf(h->path, sizeof(h->path), "%s/volume", h->s.path);
	warm_watch_init(&h->w, h->path, max_watches);
	return h;
}

static void close_house(struct house *h)
{
	if (h->w.fd >= 0)
		close(h->w.fd);
	close(h->volume);
	scratch_close(&h->s);
	free(h);
}

/* Whether this place has events at all. */
static bool has_events(struct house *h)
{
	warm_watch_probe(&h->w);
	if (!atomic_load(&h->w.silent))
		return true;
	print_message("# note: inotify is silent here\n");
	return false;
}

static void scan(struct house *h)
{
	scope_scan struct warm_scan x = { 0 };

	warm_watch_begin(&h->w);
	assert_int_equal(
		warm_scan_run(h->volume, NULL, 1 << 30, warm_watch_dir, &h->w, NULL, &x, NULL), 0);
}

/* What happened is worth a look, as far as events have come. */
static bool happened(struct house *h)
{
	struct pollfd p = { .fd = h->w.fd, .events = POLLIN };

	poll(&p, 1, 200);
	return warm_watch_drain(&h->w);
}

TEST(a_probe_hears_its_own_file_and_leaves_none)
{
	struct house *h = open_house(100);

	assert_false(warm_watch_by_clock(&h->w));
	if (has_events(h))
		assert_false(warm_watch_by_clock(&h->w));
	else
		assert_true(warm_watch_by_clock(&h->w));
	assert_false(is_there(h->volume, ".warmcache/notify-probe"));
	/* What a probe that was killed left is no harm. */
	put_text(h->volume, ".warmcache/notify-probe", "x");
	bool silent = atomic_load(&h->w.silent);
	warm_watch_probe(&h->w);
	assert_true(atomic_load(&h->w.silent) == silent);
	assert_false(is_there(h->volume, ".warmcache/notify-probe"));
	close_house(h);
}

TEST(where_a_probe_can_not_be_made_looks_come_by_the_clock)
{
	struct house *h = open_house(100);

	assert_int_equal(warm_tree_remove(h->volume, ".warmcache", NULL), 0);
	warm_watch_probe(&h->w);
	assert_true(warm_watch_by_clock(&h->w));
	/* Nothing is made through a link. */
	put_dir(h->s.fd, "outside");
	assert_int_equal(symlinkat(scratch_path(&h->s, "outside"), h->volume, ".warmcache"), 0);
	warm_watch_probe(&h->w);
	assert_true(warm_watch_by_clock(&h->w));
	assert_int_equal(unlinkat(h->volume, ".warmcache", 0), 0);
	/* Something in its place that can't be removed. */
	put_dir(h->volume, ".warmcache/notify-probe/inner");
	warm_watch_probe(&h->w);
	assert_true(warm_watch_by_clock(&h->w));
	assert_true(is_there(h->volume, ".warmcache/notify-probe/inner"));
	close_house(h);
}

TEST(changes_that_may_be_published_are_heard)
{
	struct house *h = open_house(100);

	put_text(h->volume, "d/e/old", "1");
	if (has_events(h)) {
		scan(h);
		assert_int_equal(atomic_load(&h->w.watches), 3);
		assert_false(happened(h));
		put_text(h->volume, "d/e/new", "1");
		assert_true(happened(h));
		assert_false(happened(h)); /* once */
		put_text(h->volume, "d/e/old", "2");
		assert_true(happened(h));
		assert_int_equal(renameat(h->volume, "d/e/new", h->volume, "top"), 0);
		assert_true(happened(h));
		put_dir(h->volume, "another");
		assert_true(happened(h));
		/* A directory that no scan has seen is not watched. */
		put_text(h->volume, "another/file", "1");
		assert_false(happened(h));
		scan(h);
		put_text(h->volume, "another/file", "2");
		assert_true(happened(h));
	}
	close_house(h);
}

TEST(reading_deleting_and_touching_are_not_worth_a_look)
{
	struct house *h = open_house(100);

	put_text(h->volume, "d/file", "1");
	put_text(h->volume, "d/other", "1");
	if (has_events(h)) {
		scan(h);
		free(text_of(h->volume, "d/file", NULL));
		set_times(h->volume, "d/file", 1000000000, 1000000000);
		assert_int_equal(unlinkat(h->volume, "d/other", 0), 0);
		assert_false(happened(h));
	}
	close_house(h);
}

TEST(our_own_directory_and_temporary_files_are_not_worth_a_look)
{
	static const char *const names[] = {
		"d/x.lock",  "d/x.tmp",		  "d/tmp.x",
		"d/lock",    "d/.lockfile",	  "d/x.tmp.123",
		"d/x.tmp-1", ".warmcache/ledger", ".warmcache/stage/x",
	};
	struct house *h = open_house(100);

	put_dir(h->volume, "d");
	if (has_events(h)) {
		scan(h);
		for (size_t i = 0; i < COUNT(names); i++)
			put_text(h->volume, names[i], "1");
		assert_int_equal(warm_tree_remove(h->volume, ".warmcache", NULL), 0);
		put_dir(h->volume, ".warmcache");
		assert_false(happened(h));
		/* Until it gets its name. */
		assert_int_equal(renameat(h->volume, "d/x.tmp", h->volume, "d/x"), 0);
		assert_true(happened(h));
	}
	close_house(h);
}

TEST(a_directory_that_goes_is_worth_a_look)
{
	struct house *h = open_house(100);

	put_text(h->volume, "d/e/f", "1");
	if (has_events(h)) {
		scan(h);
		assert_int_equal(warm_tree_remove(h->volume, "d", NULL), 0);
		assert_true(happened(h));
		assert_false(happened(h));
	}
	close_house(h);
}

TEST(beyond_the_limit_looks_come_by_the_clock)
{
	struct house *h = open_house(4);
	char path[40];

	if (has_events(h)) {
		put_dir(h->volume, "a/b/c");
		scan(h);
		assert_int_equal(atomic_load(&h->w.watches), 4);
		assert_false(warm_watch_by_clock(&h->w));
		for (int i = 0; i < 10; i++) {
			snprintf(path, sizeof(path), "more%d", i);
			put_dir(h->volume, path);
		}
		scan(h);
		assert_int_equal(atomic_load(&h->w.watches), 4);
		assert_true(warm_watch_by_clock(&h->w));
		/* When they are gone, events are enough again. */
		for (int i = 0; i < 10; i++) {
			snprintf(path, sizeof(path), "more%d", i);
			assert_int_equal(unlinkat(h->volume, path, AT_REMOVEDIR), 0);
		}
		scan(h);
		assert_false(warm_watch_by_clock(&h->w));
	}
	close_house(h);
}

TEST(without_watches_allowed_none_is_made)
{
	struct house *h = open_house(0);

	scan(h);
	assert_int_equal(atomic_load(&h->w.watches), 0);
	assert_true(warm_watch_by_clock(&h->w));
	put_text(h->volume, "a", "1");
	assert_false(happened(h));
	close_house(h);
}

TEST(what_went_since_it_was_seen_or_is_a_link_is_not_watched)
{
	struct house *h = open_house(100);

	put_dir(h->s.fd, "outside");
	put_text(h->volume, "file", "1");
	assert_int_equal(symlinkat(scratch_path(&h->s, "outside"), h->volume, "link"), 0);
	warm_watch_begin(&h->w);
	warm_watch_dir(&h->w, "none");
	warm_watch_dir(&h->w, "link");
	warm_watch_dir(&h->w, "file");
	assert_int_equal(atomic_load(&h->w.watches), 0);
	assert_false(warm_watch_by_clock(&h->w));
	warm_watch_dir(&h->w, "");
	assert_int_equal(atomic_load(&h->w.watches), 1);
	put_text(h->s.fd, "outside/x", "1");
	assert_false(happened(h));
	close_house(h);
}

TEST(without_inotify_all_goes_by_the_clock)
{
	struct house *h = open_house(100);

	close(h->w.fd);
	h->w.fd = -1;
	warm_watch_begin(&h->w);
	warm_watch_dir(&h->w, "");
	assert_int_equal(atomic_load(&h->w.watches), 0);
	warm_watch_probe(&h->w);
	assert_true(warm_watch_by_clock(&h->w));
	assert_false(warm_watch_drain(&h->w));
	close_house(h);
}

TEST(a_flood_of_events_is_taken_whole)
{
	struct house *h = open_house(100);
	char path[300];

	put_dir(h->volume, "d");
	if (has_events(h)) {
		scan(h);
		memset(path, 'n', sizeof(path));
		for (int i = 0; i < 3000; i++) {
			snprintf(path, sizeof(path), "d/%0200d.lock", i);
			put_text(h->volume, path, "");
		}
		assert_false(happened(h));
		put_text(h->volume, "d/x", "1");
		assert_true(happened(h));
		assert_false(happened(h));
	}
	close_house(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_probe_hears_its_own_file_and_leaves_none),
		cmocka_unit_test(where_a_probe_can_not_be_made_looks_come_by_the_clock),
		cmocka_unit_test(changes_that_may_be_published_are_heard),
		cmocka_unit_test(reading_deleting_and_touching_are_not_worth_a_look),
		cmocka_unit_test(our_own_directory_and_temporary_files_are_not_worth_a_look),
		cmocka_unit_test(a_directory_that_goes_is_worth_a_look),
		cmocka_unit_test(beyond_the_limit_looks_come_by_the_clock),
		cmocka_unit_test(without_watches_allowed_none_is_made),
		cmocka_unit_test(what_went_since_it_was_seen_or_is_a_link_is_not_watched),
		cmocka_unit_test(without_inotify_all_goes_by_the_clock),
		cmocka_unit_test(a_flood_of_events_is_taken_whole),
	};

	return RUN(tests);
}
