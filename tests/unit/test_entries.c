/* SPDX-License-Identifier: Apache-2.0 */
/* Without NVRTC: entries made by hand. */
#include "tests/support/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>

#include "compiler/entries.h"
#include "lib/base/clock.h"

enum { HOUR_S = 3600 };

struct shelf {
	struct scratch s;
	struct warm_entries e;
	struct warm_kernel_counters counters;
	struct warm_hasher *hasher;
};

static void open_shelf(struct shelf *h, uint64_t max_bytes)
{
	*h = (struct shelf){ .s = scratch_open() };
	h->hasher = warm_hasher_new();
	assert_non_null(h->hasher);
	h->e.cache_fd = h->s.fd;
	h->e.max_bytes = max_bytes;
	h->e.counters = &h->counters;
}

static void close_shelf(struct shelf *h)
{
	warm_hasher_free(h->hasher);
	scratch_close(&h->s);
}
#define scope_shelf WARM_SCOPE(close_shelf)

static uint64_t counted(const struct shelf *h, enum warm_kernel_counter counter)
{
	return warm_kernel_counted(&h->counters, counter);
}

static struct warm_kernel_text t(const char *s)
{
	return (struct warm_kernel_text){ s, strlen(s) };
}

/* Program number `id`. */
static struct warm_kernel_inputs inputs_of(uint64_t id)
{
	return (struct warm_kernel_inputs){ .compiler = t("b:1 b:2"),
					    .environment = t(""),
					    .name = t("k.cu"),
					    .source_bytes = 10,
					    .source_digest = { id, 0 } };
}

static struct warm_hash128 fingerprint_of(uint64_t id)
{
	struct warm_kernel_inputs in = inputs_of(id);
	struct warm_hasher *h = warm_hasher_new();

	assert_non_null(h);
	struct warm_hash128 f = warm_kernel_fingerprint(&in, h);
	warm_hasher_free(h);
	return f;
}

/* "nvrtc/v1/ab/<fingerprint>", in static storage. */
static const char *path_of(uint64_t id)
{
	static char path[128];

	warm_kernel_entry_path(fingerprint_of(id), NULL, path);
	return path;
}

/* The list of one file; the caller releases `buf`. */
static struct warm_kernel_deps depend_on(const char *path, struct warm_buf *buf)
{
	struct warm_kernel_dep dep = { .kind = WARM_KERNEL_DEP_FILE, .path = t(path) };

	warm_kernel_encode_dep(buf, &dep);
	assert_false(buf->failed);
	return (struct warm_kernel_deps){ buf->data, buf->bytes, 1 };
}

/* Store an entry of about `bytes`; `dep` (or NULL) is a file that it depends on. */
static int try_store(struct shelf *h, uint64_t id, size_t bytes, const char *dep)
{
	scope_buf struct warm_buf data = WARM_BUF_INIT, deps = WARM_BUF_INIT;
	scope_free uint8_t *cubin = noise(id, bytes + 1);
	struct warm_kernel_entry entry = { .fingerprint = fingerprint_of(id),
					   .inputs = inputs_of(id),
					   .log = t("log") };

	if (dep != NULL)
		entry.deps = depend_on(dep, &deps);

	for (int k = 0; k < WARM_KERNEL_OUTPUTS; k++)
		entry.outputs[k] = t("");
	entry.outputs[WARM_KERNEL_CUBIN] = (struct warm_kernel_text){ (const char *)cubin, bytes };
	warm_kernel_entry_encode(&entry, &data);
	assert_false(data.failed);
	return warm_entries_store(&h->e, &entry, data.data, data.bytes, NULL);
}

static void store(struct shelf *h, uint64_t id, size_t bytes)
{
	assert_int_equal(try_store(h, id, bytes, NULL), 0);
}

static bool has(struct shelf *h, uint64_t id)
{
	struct warm_kernel_inputs in = inputs_of(id);
	struct warm_stored s;

	if (!warm_entries_read(&h->e, fingerprint_of(id), &in, &s))
		return false;
	assert_true(warm_kernel_inputs_equal(&s.entry.inputs, &in));
	warm_stored_release(&s);
	return true;
}

/* All of an entry's length in the cache, whole or not. */
static uint64_t bytes_on_disk(const struct shelf *h, size_t *ret_n)
{
	uint64_t bytes = 0;
	glob_t g;

	*ret_n = 0;
	if (glob(scratch_path(&h->s, "nvrtc/v1/*/*"), 0, NULL, &g) != 0)
		return 0;
	for (size_t i = 0; i < g.gl_pathc; i++) {
		struct stat st;
		if (lstat(g.gl_pathv[i], &st) == 0 && S_ISREG(st.st_mode)) {
			bytes += (uint64_t)st.st_size;
			++*ret_n;
		}
	}
	globfree(&g);
	return bytes;
}

static void age(const struct shelf *h, const char *path, int64_t atime_s, int64_t mtime_s)
{
	int64_t now_ns = warm_clock_wall_ms() * 1000000;

	set_times(h->s.fd, path, now_ns - atime_s * 1000000000, now_ns - mtime_s * 1000000000);
}

static int files_named(const struct shelf *h, const char *pattern)
{
	glob_t g;

	if (glob(scratch_path(&h->s, pattern), 0, NULL, &g) != 0)
		return 0;
	int n = (int)g.gl_pathc;
	globfree(&g);
	return n;
}

/* ---- store and read ---- */

TEST(what_was_stored_is_read_back_by_its_inputs)
{
	scope_shelf struct shelf h;
	struct warm_kernel_inputs in = inputs_of(1);
	struct warm_stored s;

	open_shelf(&h, 0);
	assert_false(has(&h, 1));
	store(&h, 1, 1000);
	assert_true(warm_entries_read(&h.e, fingerprint_of(1), &in, &s));
	scope_free uint8_t *cubin = noise(1, 1001);
	assert_int_equal(s.entry.outputs[WARM_KERNEL_CUBIN].bytes, 1000);
	assert_memory_equal(s.entry.outputs[WARM_KERNEL_CUBIN].data, cubin, 1000);
	assert_string_equal(s.entry.log.data, "log");
	assert_int_equal(counted(&h, WARM_KERNEL_COUNT_BYTES_WRITTEN), s.bytes);
	warm_stored_release(&s);
	assert_false(has(&h, 2));
	assert_int_equal(counted(&h, WARM_KERNEL_COUNT_BAD_ENTRIES), 0); /* missing isn't bad */
}

TEST(an_entry_is_known_by_the_digest_of_all_of_it)
{
	scope_shelf struct shelf h;
	struct warm_kernel_inputs in = inputs_of(1);
	struct warm_hash128 ids[3];

	open_shelf(&h, 0);
	for (int i = 0; i < 3; i++) {
		struct warm_stored s;
		store(&h, 1, i == 1 ? 200 : 100);
		assert_true(warm_entries_read(&h.e, fingerprint_of(1), &in, &s));
		ids[i] = warm_stored_id(&s);
		warm_stored_release(&s);
	}
	assert_true(ids[0].low == ids[2].low && ids[0].high == ids[2].high);
	assert_false(ids[0].low == ids[1].low || ids[0].high == ids[1].high);
}

TEST(entries_are_for_all_users_whatever_the_umask)
{
	scope_shelf struct shelf h;

	open_shelf(&h, 0);
	mode_t old = umask(077);
	store(&h, 1, 100);
	assert_int_equal(try_store(&h, 1, 100, "/a.h"), 0);
	umask(old);
	assert_int_equal(stat_of(h.s.fd, path_of(1)).st_mode & 07777, 0666);
	assert_int_equal(shell("test -z \"$(find %s/nvrtc -type d ! -perm 0777 -o -type f ! "
			       "-perm 0666)\"",
			       h.s.path),
			 0);
}

TEST(storing_again_replaces_and_leaves_nothing_beside)
{
	scope_shelf struct shelf h;
	size_t n = 0;

	open_shelf(&h, 0);
	for (int i = 0; i < 3; i++)
		store(&h, 1, 100);
	(void)bytes_on_disk(&h, &n);
	assert_int_equal(n, 1);
	assert_true(has(&h, 1));
}

TEST(without_a_directory_nothing_is_found)
{
	scope_shelf struct shelf h;
	struct warm_kernel_inputs in = inputs_of(1);
	struct warm_stored s;

	open_shelf(&h, 0);
	h.e.cache_fd = -1;
	assert_false(has(&h, 1));
	assert_false(warm_entries_read_variant(&h.e, fingerprint_of(1), &in, NULL, NULL, &s));
}

TEST(what_is_no_whole_entry_of_these_inputs_is_counted_and_not_read)
{
	scope_shelf struct shelf h;
	char path[128], other[128];

	open_shelf(&h, 0);
	store(&h, 1, 1000);
	store(&h, 2, 1000);
	snprintf(path, sizeof(path), "%s", path_of(1));
	snprintf(other, sizeof(other), "%s", path_of(2));
	const char *full = scratch_path(&h.s, path);
	size_t bytes = 0;
	scope_free char *whole = text_of(h.s.fd, path, &bytes);
	uint64_t bad = 0;

	flip_byte(full, 200);
	assert_false(has(&h, 1));
	assert_int_equal(counted(&h, WARM_KERNEL_COUNT_BAD_ENTRIES), ++bad);
	put_file(h.s.fd, path, whole, bytes - 1, 0666, 0);
	assert_false(has(&h, 1));
	assert_int_equal(counted(&h, WARM_KERNEL_COUNT_BAD_ENTRIES), ++bad);
	put_file(h.s.fd, path, whole, 0, 0666, 0);
	assert_false(has(&h, 1));
	assert_int_equal(counted(&h, WARM_KERNEL_COUNT_BAD_ENTRIES), ++bad);
	put_file(h.s.fd, path, whole, bytes, 0666, 0);
	assert_true(has(&h, 1));
	flip_byte(full, 7); /* another version's magic */
	assert_false(has(&h, 1));
	assert_int_equal(counted(&h, WARM_KERNEL_COUNT_BAD_ENTRIES), ++bad);
	/* a sound entry of another program */
	assert_int_equal(renameat(h.s.fd, other, h.s.fd, path), 0);
	assert_false(has(&h, 1));
	assert_int_equal(counted(&h, WARM_KERNEL_COUNT_BAD_ENTRIES), ++bad);
	assert_int_equal(unlinkat(h.s.fd, path, 0), 0);
	assert_int_equal(mkfifoat(h.s.fd, path, 0666), 0); /* waits for no writer */
	assert_false(has(&h, 1));
	assert_int_equal(counted(&h, WARM_KERNEL_COUNT_BAD_ENTRIES), ++bad);
	assert_int_equal(unlinkat(h.s.fd, path, 0), 0);
	put_dir(h.s.fd, path);
	assert_false(has(&h, 1));
	assert_int_equal(counted(&h, WARM_KERNEL_COUNT_BAD_ENTRIES), ++bad);
	assert_int_equal(unlinkat(h.s.fd, path, AT_REMOVEDIR), 0);
	store(&h, 1, 1000);
	assert_true(has(&h, 1));
	assert_int_equal(counted(&h, WARM_KERNEL_COUNT_BAD_ENTRIES), bad);
}

TEST(a_fingerprint_alone_proves_nothing)
{
	scope_shelf struct shelf h;
	struct warm_kernel_inputs in = inputs_of(1);
	struct warm_stored s;

	open_shelf(&h, 0);
	store(&h, 1, 100);
	in.source_bytes++; /* as if two programs had one fingerprint */
	assert_false(warm_entries_read(&h.e, fingerprint_of(1), &in, &s));
	assert_int_equal(counted(&h, WARM_KERNEL_COUNT_BAD_ENTRIES), 1);
}

/* ---- variants ---- */

struct wanted {
	const char *dep; /* NULL: none will do */
	int asked;
	char first[32];
};

static const char *dep_of(const struct warm_stored *s)
{
	struct warm_reader r = warm_reader_of(s->entry.deps.data, s->entry.deps.bytes);
	struct warm_kernel_dep dep;

	assert_int_equal(s->entry.deps.n, 1);
	assert_true(warm_kernel_next_dep(&r, &dep));
	return dep.path.data;
}

static bool is_wanted(void *arg, const struct warm_stored *stored)
{
	struct wanted *w = arg;

	if (w->asked++ == 0)
		snprintf(w->first, sizeof(w->first), "%s", dep_of(stored));
	return w->dep != NULL && strcmp(dep_of(stored), w->dep) == 0;
}

static bool has_variant(struct shelf *h, uint64_t id, struct wanted *w)
{
	struct warm_kernel_inputs in = inputs_of(id);
	struct warm_stored s;

	w->asked = 0;
	if (!warm_entries_read_variant(&h->e, fingerprint_of(id), &in, is_wanted, w, &s))
		return false;
	assert_string_equal(dep_of(&s), w->dep);
	warm_stored_release(&s);
	return true;
}

/* The variants' mtimes are made to differ: two within a tick have no order. */
static void store_variant(struct shelf *h, uint64_t id, const char *dep, int64_t mtime_s)
{
	scope_buf struct warm_buf deps = WARM_BUF_INIT;
	char path[128];

	assert_int_equal(try_store(h, id, 1000, dep), 0);
	struct warm_hash128 digest = warm_kernel_deps_digest(depend_on(dep, &deps));
	warm_kernel_entry_path(fingerprint_of(id), &digest, path);
	set_times(h->s.fd, path, mtime_s * 1000000000, mtime_s * 1000000000);
}

TEST(variants_are_offered_the_last_that_held_then_newest_first)
{
	scope_shelf struct shelf h;
	struct wanted w = { 0 };

	open_shelf(&h, 0);
	assert_false(has_variant(&h, 1, &w));
	store_variant(&h, 1, "/b.h", 2000);
	store_variant(&h, 1, "/c.h", 3000);
	store_variant(&h, 1, "/a.h", 1000);
	w.dep = "/a.h";
	assert_true(has_variant(&h, 1, &w));
	assert_int_equal(w.asked, 3);
	assert_string_equal(w.first, "/c.h");
	/* The one that held last goes first. */
	assert_true(has_variant(&h, 1, &w));
	assert_int_equal(w.asked, 1);
	w.dep = "/c.h";
	assert_true(has_variant(&h, 1, &w));
	assert_int_equal(w.asked, 2);
	assert_string_equal(w.first, "/a.h");
	w.dep = NULL;
	assert_false(has_variant(&h, 1, &w));
	assert_int_equal(w.asked, 3);
	assert_false(has(&h, 1)); /* none without dependencies */
}

TEST(a_ninth_variant_takes_the_place_of_the_oldest)
{
	scope_shelf struct shelf h;
	struct wanted w = { 0 };
	char dep[16];

	open_shelf(&h, 0);
	for (int i = 0; i < WARM_KERNEL_VARIANTS; i++) {
		snprintf(dep, sizeof(dep), "/%d.h", i);
		store_variant(&h, 1, dep, 1000 + i);
	}
	w.dep = "/0.h";
	assert_true(has_variant(&h, 1, &w));
	store_variant(&h, 1, "/new.h", 6000);
	assert_false(has_variant(&h, 1, &w));
	assert_int_equal(w.asked, WARM_KERNEL_VARIANTS);
	w.dep = "/1.h";
	assert_true(has_variant(&h, 1, &w));
	w.dep = "/new.h";
	assert_true(has_variant(&h, 1, &w));
}

TEST(a_variant_that_is_bad_is_passed_over)
{
	scope_shelf struct shelf h;
	struct wanted w = { .dep = "/a.h" };
	glob_t g;

	open_shelf(&h, 0);
	store_variant(&h, 1, "/b.h", 2000);
	assert_int_equal(glob(scratch_path(&h.s, "nvrtc/v1/*/*.d/*"), 0, NULL, &g), 0);
	flip_byte(g.gl_pathv[0], 60);
	store_variant(&h, 1, "/a.h", 1000);
	assert_true(has_variant(&h, 1, &w));
	assert_int_equal(w.asked, 1);
	assert_int_equal(counted(&h, WARM_KERNEL_COUNT_BAD_ENTRIES), 1);
	/* What has no entry's name is not even looked at. */
	put_text(h.s.fd, "other", "x");
	assert_int_equal(
		shell("cp %s/other $(dirname %s)/tmp.0123456789abcdef", h.s.path, g.gl_pathv[0]),
		0);
	w.dep = "/none.h";
	assert_false(has_variant(&h, 1, &w));
	assert_int_equal(counted(&h, WARM_KERNEL_COUNT_BAD_ENTRIES), 2); /* the flipped one again */
	globfree(&g);
}

/* ---- the size limit ---- */

TEST(the_sum_of_sizes_stays_at_the_limit_however_much_is_stored)
{
	scope_shelf struct shelf h;
	enum { LIMIT = 200000, ENTRIES = 100 };
	size_t n = 0;

	open_shelf(&h, LIMIT);
	for (uint64_t i = 0; i < ENTRIES; i++) {
		store(&h, i, 9000);
		/* What is there is counted again after each sixteenth of the limit. */
		assert_true(bytes_on_disk(&h, &n) <= LIMIT + LIMIT / 16);
		assert_true(has(&h, i));
	}
	assert_true(bytes_on_disk(&h, &n) > LIMIT / 2); /* no more goes than has to */
	assert_int_equal(counted(&h, WARM_KERNEL_COUNT_EVICTED), ENTRIES - n);
}

TEST(without_a_limit_nothing_goes)
{
	scope_shelf struct shelf h;
	size_t n = 0;

	open_shelf(&h, 0);
	for (uint64_t i = 0; i < 40; i++)
		store(&h, i, 9000);
	(void)bytes_on_disk(&h, &n);
	assert_int_equal(n, 40);
	assert_int_equal(counted(&h, WARM_KERNEL_COUNT_EVICTED), 0);
}

TEST(below_the_limit_nothing_goes)
{
	scope_shelf struct shelf h;
	size_t n = 0;

	open_shelf(&h, 400000);
	for (uint64_t i = 0; i < 40; i++)
		store(&h, i, 9000);
	(void)bytes_on_disk(&h, &n);
	assert_int_equal(n, 40);
	assert_int_equal(counted(&h, WARM_KERNEL_COUNT_EVICTED), 0);
}

TEST(those_that_were_read_lately_stay)
{
	scope_shelf struct shelf h;

	open_shelf(&h, 0);
	for (uint64_t i = 0; i < 20; i++) {
		store(&h, i, 10000);
		/* The higher the number the later it was read; every fifth just now. */
		age(&h, path_of(i), i % 5 == 0 ? 100 : 10 * HOUR_S - (int64_t)i, 100 * HOUR_S);
	}
	h.e.max_bytes = 110000; /* of 210000: about ten go */
	store(&h, 100, 1000);
	assert_true(counted(&h, WARM_KERNEL_COUNT_EVICTED) >= 9);
	assert_true(counted(&h, WARM_KERNEL_COUNT_EVICTED) <= 12);
	for (uint64_t i = 0; i < 20; i += 5)
		assert_true(has(&h, i));
	/* Of the others the ones not read for the longest time went. */
	assert_false(has(&h, 1));
	assert_false(has(&h, 7));
	assert_true(has(&h, 19));
	assert_true(has(&h, 18));
}

TEST(what_was_just_stored_stays_even_if_larger_than_the_limit)
{
	scope_shelf struct shelf h;
	size_t n = 0;

	open_shelf(&h, 20000);
	store(&h, 1, 5000);
	store(&h, 2, 5000);
	store(&h, 3, 50000);
	assert_true(has(&h, 3));
	(void)bytes_on_disk(&h, &n);
	assert_int_equal(n, 1);
	/* Also where it has to have the oldest atime: the clock of a file server may be behind. */
	store(&h, 4, 50000);
	assert_true(has(&h, 4));
	assert_false(has(&h, 3));
}

TEST(the_first_store_of_a_process_counts_what_is_there_from_earlier)
{
	scope_shelf struct shelf h;
	size_t n = 0;

	open_shelf(&h, 0);
	for (uint64_t i = 0; i < 20; i++)
		store(&h, i, 10000);
	h.e.max_bytes = 100000;
	store(&h, 50, 100); /* small: by itself it would not be worth a look */
	assert_true(bytes_on_disk(&h, &n) <= 100000);
	assert_true(n >= 8);
}

TEST(variants_count_for_the_limit_and_go_as_well)
{
	scope_shelf struct shelf h;
	struct wanted w = { 0 };
	char dep[16];

	open_shelf(&h, 0);
	for (int i = 0; i < 6; i++) {
		snprintf(dep, sizeof(dep), "/%d.h", i);
		store_variant(&h, 1, dep, 1000 + i);
	}
	h.e.max_bytes = 4000; /* each has a bit over 1000 */
	store(&h, 2, 100);
	assert_true(counted(&h, WARM_KERNEL_COUNT_EVICTED) >= 3);
	w.dep = "/0.h";
	assert_false(has_variant(&h, 1, &w));
	assert_true(has(&h, 2));
}

TEST(a_hit_moves_an_old_atime_and_never_an_mtime)
{
	scope_shelf struct shelf h;
	struct stat before, after;

	open_shelf(&h, 1000000);
	store(&h, 1, 100);
	age(&h, path_of(1), 2 * HOUR_S, 3 * HOUR_S);
	before = stat_of(h.s.fd, path_of(1));
	assert_true(has(&h, 1));
	after = stat_of(h.s.fd, path_of(1));
	assert_int_equal(warm_timespec_ns(after.st_mtim), warm_timespec_ns(before.st_mtim));
	assert_true(time(NULL) - after.st_atim.tv_sec < 60);
	/* Not at each hit. */
	age(&h, path_of(1), 20, 10);
	before = stat_of(h.s.fd, path_of(1));
	assert_true(has(&h, 1));
	after = stat_of(h.s.fd, path_of(1));
	assert_int_equal(warm_timespec_ns(after.st_ctim), warm_timespec_ns(before.st_ctim));
}

TEST(without_a_limit_a_hit_sets_no_time)
{
	scope_shelf struct shelf h;

	open_shelf(&h, 0);
	store(&h, 1, 100);
	age(&h, path_of(1), 2 * HOUR_S, 3 * HOUR_S);
	struct stat before = stat_of(h.s.fd, path_of(1));
	assert_true(has(&h, 1));
	struct stat after = stat_of(h.s.fd, path_of(1));
	/* The kernel itself may move the atime (relatime); the ctime only utimensat moves. */
	assert_int_equal(warm_timespec_ns(after.st_ctim), warm_timespec_ns(before.st_ctim));
	assert_int_equal(warm_timespec_ns(after.st_mtim), warm_timespec_ns(before.st_mtim));
}

TEST(files_that_a_killed_store_left_go_after_an_hour)
{
	scope_shelf struct shelf h;

	open_shelf(&h, 1000000);
	put_text(h.s.fd, "nvrtc/v1/ab/tmp.0000000000000001", "half");
	put_text(h.s.fd, "nvrtc/v1/ab/tmp.0000000000000002", "half");
	put_text(h.s.fd, "nvrtc/v1/ab/0123456789abcdef0123456789abcdef.d/tmp.0000000000000003",
		 "x");
	age(&h, "nvrtc/v1/ab/tmp.0000000000000001", 0, HOUR_S + 60);
	age(&h, "nvrtc/v1/ab/tmp.0000000000000002", 2 * HOUR_S, HOUR_S - 60);
	age(&h, "nvrtc/v1/ab/0123456789abcdef0123456789abcdef.d/tmp.0000000000000003", 0,
	    HOUR_S + 60);
	store(&h, 1, 100);
	assert_false(is_there(h.s.fd, "nvrtc/v1/ab/tmp.0000000000000001"));
	assert_true(is_there(h.s.fd, "nvrtc/v1/ab/tmp.0000000000000002"));
	assert_int_equal(files_named(&h, "nvrtc/v1/ab/*.d/tmp.*"), 0);
	assert_int_equal(counted(&h, WARM_KERNEL_COUNT_EVICTED), 0);
}

TEST(what_is_no_entry_is_left_alone)
{
	scope_shelf struct shelf h;
	static const char *const foreign[] = {
		"nvrtc/v1/lock",
		"nvrtc/v1/README",
		"nvrtc/v1/ab/notes.txt",
		"nvrtc/v1/ab/0123456789abcdef0123456789abcde",
		"nvrtc/v1/ab/0123456789abcdef0123456789abcdef0",
		"nvrtc/v1/ab/.0123456789abcdef0123456789abcde",
		"nvrtc/v1/ab/c/d/0123456789abcdef0123456789abcdef",
		"nvrtc/v2/ab/0123456789abcdef0123456789abcdef",
		"torch/0123456789abcdef0123456789abcdef",
		"outside",
	};

	open_shelf(&h, 1000);
	for (size_t i = 0; i < COUNT(foreign); i++) {
		put_text(h.s.fd, foreign[i], "foreign text, which is not to be lost");
		age(&h, foreign[i], 1000 * HOUR_S, 1000 * HOUR_S);
	}
	put_dir(h.s.fd, "nvrtc/v1/ab/0123456789abcdef0123456789abcdee");
	assert_int_equal(symlinkat("../../../outside", h.s.fd,
				   "nvrtc/v1/ab/0123456789abcdef0123456789abcded"),
			 0);
	assert_int_equal(symlinkat("../../torch", h.s.fd, "nvrtc/v1/cd"), 0);
	for (uint64_t i = 0; i < 10; i++)
		store(&h, i, 5000);
	assert_true(counted(&h, WARM_KERNEL_COUNT_EVICTED) == 9);
	for (size_t i = 0; i < COUNT(foreign); i++)
		assert_file(h.s.fd, foreign[i], "foreign text, which is not to be lost");
	assert_true(is_there(h.s.fd, "nvrtc/v1/ab/0123456789abcdef0123456789abcded"));
	assert_true(is_there(h.s.fd, "nvrtc/v1/ab/0123456789abcdef0123456789abcdee"));
}

TEST(processes_that_store_at_once_keep_the_limit_and_whole_entries)
{
	scope_shelf struct shelf h;
	enum { LIMIT = 300000, EACH = 60 };
	pid_t children[4];
	size_t n = 0;

	open_shelf(&h, LIMIT);
	for (uint64_t p = 0; p < COUNT(children); p++) {
		children[p] = fork();
		if (children[p] != 0)
			continue;
		int bad = 0;
		for (uint64_t i = 0; i < EACH; i++) {
			/* Every third is a program that the others store as well. */
			uint64_t id = i % 3 == 0 ? i : 1000 * (p + 1) + i;
			bad += try_store(&h, id, 9000, NULL) != 0;
			(void)has(&h, i / 3 * 3);
		}
		_exit(bad != 0 || counted(&h, WARM_KERNEL_COUNT_BAD_ENTRIES) != 0);
	}
	for (size_t p = 0; p < COUNT(children); p++) {
		int status = -1;
		assert_true(children[p] > 0);
		assert_int_equal(waitpid(children[p], &status, 0), children[p]);
		assert_int_equal(status, 0);
	}
	/* Each looks after a sixteenth that it stored itself. */
	assert_true(bytes_on_disk(&h, &n) <= LIMIT + COUNT(children) * (LIMIT / 16 + 9200));
	assert_true(n >= 20);
	assert_int_equal(files_named(&h, "nvrtc/v1/*/tmp.*"), 0);
	size_t sound = 0;
	for (uint64_t p = 0; p <= COUNT(children); p++)
		for (uint64_t i = 0; i < EACH; i++)
			sound += has(&h, 1000 * p + i);
	assert_int_equal(sound, n);
	assert_int_equal(counted(&h, WARM_KERNEL_COUNT_BAD_ENTRIES), 0);
}

static void *store_many(void *arg)
{
	static atomic_uint threads;
	struct shelf *shared = arg;
	struct warm_hasher *hasher = warm_hasher_new();
	uint64_t first = 1000 * (1 + (uint64_t)atomic_fetch_add(&threads, 1));
	int bad = hasher == NULL;

	for (uint64_t i = 0; i < 30 && hasher != NULL; i++) {
		scope_buf struct warm_buf data = WARM_BUF_INIT;
		scope_free uint8_t *cubin = noise(i, 9000);
		struct warm_kernel_inputs in = inputs_of(first + i);
		struct warm_kernel_entry entry = {
			.fingerprint = warm_kernel_fingerprint(&in, hasher), .inputs = in
		};
		entry.outputs[WARM_KERNEL_CUBIN] = (struct warm_kernel_text){ (const char *)cubin,
									      9000 };
		warm_kernel_entry_encode(&entry, &data);
		bad += warm_entries_store(&shared->e, &entry, data.data, data.bytes, NULL) != 0;
	}
	warm_hasher_free(hasher);
	return bad != 0 ? shared : NULL;
}

TEST(threads_that_store_at_once_keep_the_limit)
{
	scope_shelf struct shelf h;
	enum { LIMIT = 200000 };
	pthread_t threads[4];
	void *bad;
	size_t n = 0;

	open_shelf(&h, LIMIT);
	for (size_t i = 0; i < COUNT(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, store_many, &h), 0);
	for (size_t i = 0; i < COUNT(threads); i++) {
		assert_int_equal(pthread_join(threads[i], &bad), 0);
		assert_null(bad);
	}
	/* While one sweeps the others don't: a few entries each may come on top, on a busy machine. */
	assert_true(bytes_on_disk(&h, &n) <= LIMIT + LIMIT / 16 + 4 * COUNT(threads) * 9200);
	assert_true(counted(&h, WARM_KERNEL_COUNT_EVICTED) > 0);
	assert_int_equal(counted(&h, WARM_KERNEL_COUNT_EVICTED) + n, COUNT(threads) * 30);
}

/* ---- where nothing can be stored ---- */

TEST(a_store_that_fails_leaves_nothing_behind)
{
	scope_shelf struct shelf h;

	open_shelf(&h, 1000000);
	put_dir(h.s.fd, path_of(1)); /* rename() can't replace it */
	assert_true(try_store(&h, 1, 100, NULL) < 0);
	assert_int_equal(files_named(&h, "nvrtc/v1/*/tmp.*"), 0);
	assert_int_equal(counted(&h, WARM_KERNEL_COUNT_BYTES_WRITTEN), 0);
	assert_int_equal(shell("rm -r %s/nvrtc", h.s.path), 0);
	put_text(h.s.fd, "nvrtc", "a file where a directory should be");
	assert_true(try_store(&h, 1, 100, NULL) < 0);
	assert_file(h.s.fd, "nvrtc", "a file where a directory should be");
}

TEST(on_a_full_disk_nothing_is_left_and_later_stores_succeed)
{
	scope_shelf struct shelf h;
	const char *volume;

	open_shelf(&h, 0);
	put_dir(h.s.fd, "volume");
	volume = scratch_path(&h.s, "volume");
	if (geteuid() != 0 || mount("none", volume, "tmpfs", 0, "size=256k") != 0) {
		print_message("# note: no file system may be mounted; a full disk isn't tried\n");
		return;
	}
	h.e.cache_fd = open(volume, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = 0, stored = 0;
	while (stored < 100 && (rc = try_store(&h, (uint64_t)stored, 30000, NULL)) == 0)
		stored++;
	int left = files_named(&h, "volume/nvrtc/v1/*/tmp.*");
	int room = unlinkat(h.e.cache_fd, path_of(0), 0) == 0 ? try_store(&h, 200, 30000, NULL)
							      : -1;
	bool sound = has(&h, 200) && has(&h, 1);
	close(h.e.cache_fd);
	assert_int_equal(umount(volume), 0);
	assert_int_equal(rc, WARM_NO_SPACE);
	assert_true(stored > 3);
	assert_int_equal(left, 0);
	assert_int_equal(room, 0);
	assert_true(sound);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_stored_is_read_back_by_its_inputs),
		cmocka_unit_test(an_entry_is_known_by_the_digest_of_all_of_it),
		cmocka_unit_test(entries_are_for_all_users_whatever_the_umask),
		cmocka_unit_test(storing_again_replaces_and_leaves_nothing_beside),
		cmocka_unit_test(without_a_directory_nothing_is_found),
		cmocka_unit_test(what_is_no_whole_entry_of_these_inputs_is_counted_and_not_read),
		cmocka_unit_test(a_fingerprint_alone_proves_nothing),
		cmocka_unit_test(variants_are_offered_the_last_that_held_then_newest_first),
		cmocka_unit_test(a_ninth_variant_takes_the_place_of_the_oldest),
		cmocka_unit_test(a_variant_that_is_bad_is_passed_over),
		cmocka_unit_test(the_sum_of_sizes_stays_at_the_limit_however_much_is_stored),
		cmocka_unit_test(without_a_limit_nothing_goes),
		cmocka_unit_test(below_the_limit_nothing_goes),
		cmocka_unit_test(those_that_were_read_lately_stay),
		cmocka_unit_test(what_was_just_stored_stays_even_if_larger_than_the_limit),
		cmocka_unit_test(the_first_store_of_a_process_counts_what_is_there_from_earlier),
		cmocka_unit_test(variants_count_for_the_limit_and_go_as_well),
		cmocka_unit_test(a_hit_moves_an_old_atime_and_never_an_mtime),
		cmocka_unit_test(without_a_limit_a_hit_sets_no_time),
		cmocka_unit_test(files_that_a_killed_store_left_go_after_an_hour),
		cmocka_unit_test(what_is_no_entry_is_left_alone),
		cmocka_unit_test(processes_that_store_at_once_keep_the_limit_and_whole_entries),
		cmocka_unit_test(threads_that_store_at_once_keep_the_limit),
		cmocka_unit_test(a_store_that_fails_leaves_nothing_behind),
		cmocka_unit_test(on_a_full_disk_nothing_is_left_and_later_stores_succeed),
	};

	return RUN(tests);
}
