/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <zstd.h>

#include "lib/base/hash.h"
#include "lib/layer/unpack.h"

/* ---- a hook under read(), to change a file while it is packed ---- */

static void (*on_read)(void);

ssize_t read(int fd, void *data, size_t bytes)
{
	void (*hook)(void) = take_ptr(on_read);

	if (hook != NULL)
		hook();
	return syscall(SYS_read, fd, data, bytes);
}

/* ---- a layer in a scratch directory ---- */

struct layer {
	struct scratch s;
	int fd;
	struct warm_pack *pack;
	struct warm_key key;
	struct warm_layer_name name;
	uint64_t bytes;
};

static const struct warm_id fixed_id = { 1700000000000, 0x00000000deadbeef };
static const int64_t fixed_mtime = 1700000000123456789;

/* The tests run with none and with several. */
static unsigned pack_threads;

static struct layer open_layer(uint64_t max_bytes)
{
	struct layer l = { .s = scratch_open(), .key = key_of("llama", "v1") };

	l.fd = openat(l.s.fd, ".layer", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(l.fd >= 0);
	assert_int_equal(warm_pack_open(l.fd, 1, max_bytes, pack_threads, &l.pack, NULL), 0);
	return l;
}

static void close_layer(struct layer *l)
{
	warm_pack_free(l->pack);
	close(l->fd);
	scratch_close(&l->s);
}

static int add_seen(struct layer *l, const char *name, const char *const *paths, size_t n,
		    const struct warm_seen *seen, struct warm_error *err)
{
	struct warm_pack_file files[16];

	assert_true(n <= COUNT(files));
	for (size_t i = 0; i < n; i++)
		files[i] = (struct warm_pack_file){ paths[i], NULL, seen, fixed_mtime };
	struct warm_pack_group group = {
		.name = name, .profile = "file", .dir_fd = l->s.fd, .files = files, .n_files = n
	};
	return warm_pack_add(l->pack, &group, NULL, err);
}

static int add_one(struct layer *l, const char *path, struct warm_error *err)
{
	return add_seen(l, path, &path, 1, NULL, err);
}

static void finish(struct layer *l)
{
	struct warm_pack_meta meta = { .kind = WARM_LAYER,
				       .id = fixed_id,
				       .key = &l->key,
				       .created_ms = 1700000000123,
				       .mount = "/cache" };
	struct warm_error err = { 0 };

	if (warm_pack_finish(l->pack, &meta, &l->name, &l->bytes, &err) != 0)
		fail_msg("%s", err.msg);
	assert_int_equal(stat_of(l->s.fd, ".layer").st_size, l->bytes);
}

static struct warm_index *index_of(const struct layer *l)
{
	size_t bytes = 0, trailer = (size_t)warm_trailer_bytes(&l->name);
	char *data = text_of(l->s.fd, ".layer", &bytes);
	struct warm_index *x = NULL;
	struct warm_error err = { 0 };

	if (warm_index_parse(data + bytes - trailer, trailer, bytes, &l->key, &l->name, &x, &err) !=
	    0)
		fail_msg("%s", err.msg);
	free(data);
	return x;
}

/* The raw tar, by zstd's own streaming: what other tools see. */
static uint8_t *raw_of(const struct layer *l, size_t *ret_bytes)
{
	size_t bytes = 0;
	char *data = text_of(l->s.fd, ".layer", &bytes);
	struct warm_buf out = WARM_BUF_INIT;
	ZSTD_DStream *z = ZSTD_createDStream();
	static uint8_t piece[1 << 16];
	ZSTD_inBuffer in = { data, bytes, 0 };

	assert_non_null(z);
	while (in.pos < in.size) {
		ZSTD_outBuffer o = { piece, sizeof(piece), 0 };
		assert_false(ZSTD_isError(ZSTD_decompressStream(z, &o, &in)));
		warm_buf_put(&out, piece, o.pos);
		while (o.pos == o.size) {
			o.pos = 0;
			assert_false(ZSTD_isError(ZSTD_decompressStream(z, &o, &in)));
			warm_buf_put(&out, piece, o.pos);
		}
	}
	ZSTD_freeDStream(z);
	free(data);
	assert_false(out.failed);
	*ret_bytes = out.bytes;
	return out.data;
}

static void assert_same_layers(const struct layer *a, const struct layer *b)
{
	size_t n = 0, m = 0;
	char *x = text_of(a->s.fd, ".layer", &n), *y = text_of(b->s.fd, ".layer", &m);

	assert_int_equal(n, m);
	assert_memory_equal(x, y, n);
	free(x);
	free(y);
}

static void put_noise(struct layer *l, const char *path, uint64_t seed, size_t bytes)
{
	uint8_t *data = noise(seed, bytes);

	put_file(l->s.fd, path, data, bytes, 0644, fixed_mtime);
	free(data);
}

/* ---- tests ---- */

TEST(an_empty_layer_is_whole)
{
	struct layer l = open_layer(UINT64_MAX);

	finish(&l);
	struct warm_index *x = index_of(&l);
	assert_int_equal(x->n_groups, 0);
	assert_int_equal(x->n_files, 0);
	warm_index_free(x);
	assert_int_equal(shell("tar --zstd -tf %s/.layer >/dev/null", l.s.path), 0);
	close_layer(&l);
}

TEST(the_index_finds_every_byte_in_the_tar)
{
	static const size_t sizes[] = {
		0, 1, 511, 512, 513, 100000, (4 << 20) - 512, 4 << 20, (4 << 20) + 1, 9 << 20
	};
	struct layer l = open_layer(UINT64_MAX);
	char path[40];

	for (size_t i = 0; i < COUNT(sizes); i++) {
		snprintf(path, sizeof(path), "d/%02zu", i);
		put_noise(&l, path, i, sizes[i]);
		assert_int_equal(add_one(&l, path, NULL), 0);
	}
	assert_int_equal(warm_pack_groups(l.pack), COUNT(sizes));
	finish(&l);
	struct warm_index *x = index_of(&l);
	size_t bytes = 0;
	uint8_t *raw = raw_of(&l, &bytes);
	assert_int_equal(bytes, x->raw_bytes);
	assert_int_equal(x->n_files, COUNT(sizes));
	for (size_t i = 0; i < x->n_files; i++) {
		const struct warm_file *f = &x->files[i];
		uint8_t *want = noise(i, sizes[i]);
		assert_int_equal(f->size, sizes[i]);
		assert_true(f->raw_offset + f->size <= bytes);
		assert_memory_equal(raw + f->raw_offset, want, sizes[i]);
		assert_int_equal(f->mtime_ns, fixed_mtime);
		free(want);
	}
	for (size_t i = 0; i < x->n_frames; i++)
		assert_true(x->frames[i].raw_bytes <= WARM_FRAME_RAW_BYTES);
	free(raw);
	warm_index_free(x);
	close_layer(&l);
}

TEST(each_frame_is_a_zstd_frame_with_its_size)
{
	struct layer l = open_layer(UINT64_MAX);

	put_noise(&l, "big", 1, 9 << 20);
	assert_int_equal(add_one(&l, "big", NULL), 0);
	finish(&l);
	struct warm_index *x = index_of(&l);
	char *data = text_of(l.s.fd, ".layer", NULL);
	assert_true(x->n_frames >= 3);
	for (size_t i = 0; i < x->n_frames; i++) {
		assert_int_equal(
			ZSTD_getFrameContentSize(data + x->frames[i].offset, x->frames[i].bytes),
			x->frames[i].raw_bytes);
		assert_int_equal(ZSTD_findFrameCompressedSize(data + x->frames[i].offset,
							      x->frames[i].bytes),
				 x->frames[i].bytes);
	}
	free(data);
	warm_index_free(x);
	close_layer(&l);
}

TEST(the_same_groups_give_the_same_bytes)
{
	struct layer a = open_layer(UINT64_MAX);
	unsigned threads = pack_threads;
	pack_threads = 1;
	struct layer b = open_layer(UINT64_MAX);
	pack_threads = threads;
	struct layer *both[] = { &a, &b };

	for (size_t i = 0; i < 2; i++) {
		put_noise(both[i], "x/one", 1, 300000);
		put_noise(both[i], "x/two", 2, 5 << 20);
		assert_int_equal(add_one(both[i], "x/one", NULL), 0);
		assert_int_equal(add_one(both[i], "x/two", NULL), 0);
		finish(both[i]);
	}
	assert_same_layers(&a, &b);
	close_layer(&a);
	close_layer(&b);
}

TEST(execute_bits_are_kept_and_no_others)
{
	static const mode_t modes[] = { 0600, 0755, 0777, 0444, 0610, 04755 };
	struct layer l = open_layer(UINT64_MAX);
	char path[8];

	for (size_t i = 0; i < COUNT(modes); i++) {
		snprintf(path, sizeof(path), "%zu", i);
		put_file(l.s.fd, path, "x", 1, modes[i], 0);
		assert_int_equal(add_one(&l, path, NULL), 0);
	}
	finish(&l);
	struct warm_index *x = index_of(&l);
	for (size_t i = 0; i < COUNT(modes); i++)
		assert_int_equal(x->files[i].mode, modes[i] & 0111);
	warm_index_free(x);
	close_layer(&l);
}

/* After each failed add: the layer is the one that never saw the group. */
static void check_rolled_back(struct layer *l, const char *const *paths, size_t n,
			      const struct warm_seen *seen, int status)
{
	struct layer clean = open_layer(UINT64_MAX);
	struct warm_error err = { 0 };
	struct layer *both[] = { l, &clean };

	for (size_t i = 0; i < 2; i++) {
		put_noise(both[i], "before", 90, 700000);
		put_noise(both[i], "after", 91, 600000);
		assert_int_equal(add_one(both[i], "before", NULL), 0);
	}
	int rc = add_seen(l, "group", paths, n, seen, &err);
	on_read = NULL;
	if (rc != status)
		fail_msg("wanted %s, got %s: %s", warm_status_name(status), warm_status_name(rc),
			 err.msg);
	assert_int_equal(err.status, status);
	assert_true(warm_pack_usable(l->pack));
	assert_int_equal(warm_pack_groups(l->pack), 1);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(add_one(both[i], "after", NULL), 0);
		finish(both[i]);
	}
	assert_same_layers(l, &clean);
	close_layer(&clean);
}

TEST(a_group_with_a_missing_file_is_taken_back)
{
	struct layer l = open_layer(UINT64_MAX);
	const char *const paths[] = { "a", "b", "missing" };

	put_noise(&l, "a", 1, 1000);
	put_noise(&l, "b", 2, 1000);
	check_rolled_back(&l, paths, 3, NULL, WARM_NOT_FOUND);
	close_layer(&l);
}

TEST(a_group_that_closed_frames_is_taken_back)
{
	static const size_t sizes[] = { 4 << 20, 5 << 20, 13 << 20,
					(4 << 20) - 700000 - 1536 - 1024 };

	for (size_t i = 0; i < COUNT(sizes); i++) {
		struct layer l = open_layer(UINT64_MAX);
		const char *const paths[] = { "big", "missing" };
		put_noise(&l, "big", 1, sizes[i]);
		check_rolled_back(&l, paths, 2, NULL, WARM_NOT_FOUND);
		close_layer(&l);
	}
}

TEST(a_file_that_is_not_what_was_seen_takes_its_group_back)
{
	struct layer l = open_layer(UINT64_MAX);
	const char *const paths[] = { "a" };

	put_noise(&l, "a", 1, 1000);
	struct stat st = stat_of(l.s.fd, "a");
	struct warm_seen seen = warm_seen_of(&st);
	seen.ctime_ns--;
	check_rolled_back(&l, paths, 1, &seen, WARM_EXISTS);
	close_layer(&l);
}

TEST(a_symlink_takes_its_group_back)
{
	struct layer l = open_layer(UINT64_MAX);
	const char *const paths[] = { "a", "link" };

	put_noise(&l, "a", 1, 5 << 20);
	assert_int_equal(symlinkat("a", l.s.fd, "link"), 0);
	check_rolled_back(&l, paths, 2, NULL, WARM_CORRUPT);
	close_layer(&l);
}

TEST(a_symlink_on_the_way_takes_its_group_back)
{
	struct layer l = open_layer(UINT64_MAX);
	const char *const paths[] = { "link/a" };

	put_noise(&l, "d/a", 1, 1000);
	assert_int_equal(symlinkat("d", l.s.fd, "link"), 0);
	check_rolled_back(&l, paths, 1, NULL, WARM_CORRUPT);
	close_layer(&l);
}

TEST(a_fifo_or_a_directory_takes_its_group_back_and_holds_nobody)
{
	static const char *const paths[] = { "fifo" }, *const dirs[] = { "dir" };
	struct layer l = open_layer(UINT64_MAX);

	assert_int_equal(mkfifoat(l.s.fd, "fifo", 0600), 0);
	check_rolled_back(&l, paths, 1, NULL, WARM_CORRUPT);
	close_layer(&l);
	l = open_layer(UINT64_MAX);
	put_dir(l.s.fd, "dir");
	check_rolled_back(&l, dirs, 1, NULL, WARM_CORRUPT);
	close_layer(&l);
}

static int hook_fd;

static void grow_it(void)
{
	scope_close int fd = openat(hook_fd, "victim", O_WRONLY | O_APPEND | O_CLOEXEC);

	assert_int_equal(write(fd, "more", 4), 4);
}

static void cut_it(void)
{
	scope_close int fd = openat(hook_fd, "victim", O_WRONLY | O_CLOEXEC);

	assert_int_equal(ftruncate(fd, 100), 0);
}

static void rewrite_it(void)
{
	scope_close int fd = openat(hook_fd, "victim", O_WRONLY | O_CLOEXEC);

	assert_int_equal(pwrite(fd, "X", 1, 50), 1);
	assert_int_equal(futimens(fd, (struct timespec[2]){ { 1, 0 }, { 1, 0 } }), 0);
}

static void check_change(void (*change)(void), size_t bytes)
{
	struct layer l = open_layer(UINT64_MAX);
	const char *const paths[] = { "first", "victim" };

	put_noise(&l, "first", 1, 3000);
	put_noise(&l, "victim", 2, bytes);
	hook_fd = l.s.fd;
	/* The first read is of `before` and behind us when the hook is set; `first` is the next. */
	struct layer clean = open_layer(UINT64_MAX);
	struct layer *both[] = { &l, &clean };
	struct warm_error err = { 0 };
	for (size_t i = 0; i < 2; i++) {
		put_noise(both[i], "before", 90, 700000);
		assert_int_equal(add_one(both[i], "before", NULL), 0);
	}
	struct stat st = stat_of(l.s.fd, "first");
	struct warm_seen seen = warm_seen_of(&st);
	struct stat victim = stat_of(l.s.fd, "victim");
	struct warm_seen victim_seen = warm_seen_of(&victim);
	struct warm_pack_file files[2] = { { paths[1], NULL, &victim_seen, 1 },
					   { paths[0], NULL, &seen, 1 } };
	struct warm_pack_group group = {
		.name = "g", .profile = "file", .dir_fd = l.s.fd, .files = files, .n_files = 2
	};
	on_read = change;
	int rc = warm_pack_add(l.pack, &group, NULL, &err);
	assert_null(on_read);
	assert_int_equal(rc, WARM_EXISTS);
	assert_true(warm_pack_usable(l.pack));
	finish(&l);
	finish(&clean);
	assert_same_layers(&l, &clean);
	close_layer(&clean);
	close_layer(&l);
}

TEST(a_file_that_changes_while_it_is_read_takes_its_group_back)
{
	check_change(grow_it, 3000);
	check_change(cut_it, 3000);
	check_change(rewrite_it, 3000);
	check_change(grow_it, 6 << 20);
	check_change(cut_it, 6 << 20);
	check_change(rewrite_it, 6 << 20);
}

TEST(the_status_is_the_same_for_a_caller_without_an_error_object)
{
	struct layer l = open_layer(UINT64_MAX);

	put_noise(&l, "victim", 2, 3000);
	hook_fd = l.s.fd;
	on_read = cut_it;
	int rc = add_one(&l, "victim", NULL);
	on_read = NULL;
	close_layer(&l);
	assert_int_equal(rc, WARM_EXISTS);
}

TEST(a_canceled_add_ends_the_pack)
{
	struct layer l = open_layer(UINT64_MAX);
	atomic_bool cancel = true;
	struct warm_call call = { .cancel = &cancel };
	struct warm_pack_file file = { "a", NULL, NULL, 1 };
	struct warm_pack_group group = {
		.name = "a", .profile = "file", .dir_fd = l.s.fd, .files = &file, .n_files = 1
	};
	struct warm_pack_meta meta = {
		.kind = WARM_LAYER, .id = fixed_id, .key = &l.key, .mount = ""
	};

	put_noise(&l, "a", 1, 100);
	assert_int_equal(warm_pack_add(l.pack, &group, &call, NULL), WARM_CANCELED);
	assert_false(warm_pack_usable(l.pack));
	assert_int_equal(warm_pack_finish(l.pack, &meta, &l.name, &l.bytes, NULL), WARM_IO);
	close_layer(&l);
}

TEST(a_full_layer_says_so_and_can_be_finished)
{
	struct layer l = open_layer(9 << 20);
	char path[8];
	size_t n = 0;
	int rc = 0;

	for (; n < 20 && rc == 0; n++) {
		snprintf(path, sizeof(path), "%02zu", n);
		put_noise(&l, path, n, 3 << 20);
		rc = add_one(&l, path, NULL);
	}
	assert_int_equal(rc, WARM_LIMIT);
	assert_true(warm_pack_usable(l.pack));
	assert_int_equal(warm_pack_groups(l.pack), n - 1);
	assert_true(n > 2);
	finish(&l);
	struct warm_index *x = index_of(&l);
	assert_int_equal(x->n_groups, n - 1);
	warm_index_free(x);
	close_layer(&l);
}

TEST(a_layer_of_small_groups_stays_within_its_limit)
{
	enum { MAX = 5 << 19 };
	struct layer l = open_layer(MAX);
	char path[8];
	int rc = 0;

	for (size_t n = 0; n < 60 && rc == 0; n++) {
		snprintf(path, sizeof(path), "%02zu", n);
		put_noise(&l, path, n, 100 << 10);
		rc = add_one(&l, path, NULL);
	}
	assert_int_equal(rc, WARM_LIMIT);
	finish(&l);
	uint64_t bytes = l.bytes;
	close_layer(&l);
	assert_true(bytes <= MAX + (64 << 10)); /* the trailer besides */
}

TEST(what_readers_would_refuse_for_its_ratio_is_not_packed)
{
	struct layer l = open_layer(16 << 20);

	/* Zeros compress some thousand times, and readers take that for a bomb. */
	put_text(l.s.fd, "small", "kept");
	put_text(l.s.fd, "zeros", "");
	int fd = openat(l.s.fd, "zeros", O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 400 << 20), 0);
	close(fd);
	assert_int_equal(add_one(&l, "zeros", NULL), WARM_LIMIT);
	assert_true(warm_pack_usable(l.pack));
	assert_int_equal(add_one(&l, "small", NULL), 0);
	assert_int_equal(add_one(&l, "zeros", NULL), WARM_LIMIT);
	finish(&l);
	struct warm_index *x = index_of(&l);
	assert_int_equal(x->n_groups, 1);
	assert_string_equal(x->groups[0].name, "small");
	warm_index_free(x);
	close_layer(&l);
}

TEST(one_group_larger_than_the_limit_has_its_own_layer)
{
	struct layer l = open_layer(1 << 20);

	put_noise(&l, "big", 1, 9 << 20);
	put_noise(&l, "small", 1, 10);
	assert_int_equal(add_one(&l, "big", NULL), 0);
	assert_int_equal(add_one(&l, "small", NULL), WARM_LIMIT);
	finish(&l);
	struct warm_index *x = index_of(&l);
	assert_int_equal(x->n_groups, 1);
	warm_index_free(x);
	close_layer(&l);
}

/* ---- other people's tools ---- */

static const char *const odd_names[] = {
	"plain",
	"dir/exe",
	"dir/empty",
	"unicode/\303\274ber-\346\227\245\346\234\254.txt",
	"latin1/\374ber.txt",
	"newline/a\nb",
	"space/ a b ",
	"quote/'\"\\",
	"dash/-rf",
	"deep/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q/r/s/t/u/v/w/x/y/z/file",
};

static void check_tool(const struct layer *l, const char *name, const char *command)
{
	struct scratch out = scratch_open();

	print_message("# %s\n", name);
	assert_int_equal(
		shell("cd %s && umask 0 && LAYER=%s/.layer && %s", out.path, l->s.path, command),
		0);
	scope_close int in = openat(l->s.fd, "in", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char *want = list_tree(in, false), *got = list_tree(out.fd, false);
	assert_string_equal(got, want);
	for (size_t i = 0; i < COUNT(odd_names); i++)
		assert_int_equal(stat_of(out.fd, odd_names[i]).st_mtim.tv_sec,
				 fixed_mtime / 1000000000);
	free(want);
	free(got);
	scratch_close(&out);
}

TEST(tar_bsdtar_and_python_extract_a_layer_to_the_same_tree)
{
	struct layer l = open_layer(UINT64_MAX);
	char part[251], path[800];
	struct warm_error err = { 0 };

	memset(part, 'n', 250);
	part[250] = '\0';
	snprintf(path, sizeof(path), "%s/%s/%s", part, part, part);
	put_dir(l.s.fd, "in");
	int in = openat(l.s.fd, "in", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(in >= 0);
	const char *files[COUNT(odd_names) + 2];
	size_t n = 0;
	for (size_t i = 0; i < COUNT(odd_names); i++) {
		size_t bytes = strcmp(odd_names[i], "dir/empty") == 0 ? 0 : 1000 + i;
		uint8_t *data = noise(i, bytes);
		put_file(in, odd_names[i], data, bytes,
			 strcmp(odd_names[i], "dir/exe") == 0 ? 0777 : 0666, fixed_mtime);
		free(data);
		files[n++] = odd_names[i];
	}
	uint8_t *big = noise(77, 9 << 20);
	put_file(in, "big", big, 9 << 20, 0666, fixed_mtime);
	free(big);
	files[n++] = "big";
	put_file(in, path, "long", 4, 0666, fixed_mtime);
	files[n++] = path;
	for (size_t i = 0; i < n; i++) {
		struct warm_pack_file file = { files[i], NULL, NULL, fixed_mtime };
		struct warm_pack_group group = { .name = files[i],
						 .profile = "file",
						 .dir_fd = in,
						 .files = &file,
						 .n_files = 1 };
		if (warm_pack_add(l.pack, &group, NULL, &err) != 0)
			fail_msg("%s", err.msg);
	}
	close(in);
	finish(&l);
	if (have_tool("zstd")) {
		assert_int_equal(shell("zstd -qt --no-progress < %s/.layer", l.s.path), 0);
		if (have_tool("tar"))
			check_tool(&l, "tar", "tar --zstd -xf $LAYER 2>/dev/null");
		if (have_tool("python3"))
			check_tool(&l, "python3",
				   "zstd -qdc $LAYER | LC_ALL=C.UTF-8 python3 -c '"
				   "import sys, tarfile\n"
				   "t = tarfile.open(fileobj=sys.stdin.buffer, mode=\"r|\")\n"
				   "t.extractall(\".\")'");
	}
	if (have_tool("bsdtar"))
		check_tool(&l, "bsdtar", "LC_ALL=C.UTF-8 bsdtar -xf $LAYER 2>/dev/null");
	close_layer(&l);
}

/* ---- golden: a layer of long ago ---- */

#define GOLDEN "tests/golden"

static void pack_golden(struct layer *l)
{
	static const struct {
		const char *group, *profile;
		uint64_t bound;
		unsigned flags;
		const char *paths[3];
	} groups[] = {
		{ "inductor/ab/cabc.main.so@00000000000000c1",
		  "inductor",
		  0xc1,
		  WARM_GROUP_CPU_BOUND,
		  { "inductor/ab/cabc.main.so" } },
		{ "inductor/ab/cabc.py",
		  "inductor",
		  0,
		  WARM_GROUP_SELF_KEYED,
		  { "inductor/ab/cabc.py" } },
		{ "triton/"
		  "JLBMVPBZBZDTHY2Q54DTTFGFZEYHW5VI2ZA6RYBGUSU5E6OC3WDA"
		  "@00000000000000d2",
		  "triton",
		  0xd2,
		  WARM_GROUP_SELF_KEYED | WARM_GROUP_MOUNT_BOUND,
		  { "triton/JLBMVPBZBZDTHY2Q54DTTFGFZEYHW5VI2ZA6RYBGUSU5E6OC3WDA/__grp__add.json",
		    "triton/JLBMVPBZBZDTHY2Q54DTTFGFZEYHW5VI2ZA6RYBGUSU5E6OC3WDA/add.cubin",
		    "triton/JLBMVPBZBZDTHY2Q54DTTFGFZEYHW5VI2ZA6RYBGUSU5E6OC3WDA/empty" } },
		{ "vllm/\303\274ber", "vllm", 0, WARM_GROUP_MUTABLE, { "vllm/\303\274ber" } },
	};

	for (size_t i = 0; i < COUNT(groups); i++) {
		struct warm_pack_file files[3];
		size_t n = 0;
		for (; n < 3 && groups[i].paths[n] != NULL; n++) {
			const char *path = groups[i].paths[n];
			/* The .cubin spans frames. */
			size_t bytes = strstr(path, ".cubin") != NULL  ? (9 << 20) + 17
				       : strstr(path, "empty") != NULL ? 0
								       : 1000 + 100 * i + n;
			uint8_t *data = pattern(i * 8 + n, bytes);
			put_file(l->s.fd, path, data, bytes,
				 strstr(path, ".so") != NULL ? 0755 : 0644, 0);
			free(data);
			files[n] = (struct warm_pack_file){ path, NULL, NULL,
							    fixed_mtime + (int64_t)(i * 8 + n) };
		}
		struct warm_pack_group group = { .name = groups[i].group,
						 .profile = groups[i].profile,
						 .bound = groups[i].bound,
						 .flags = groups[i].flags,
						 .dir_fd = l->s.fd,
						 .files = files,
						 .n_files = n };
		assert_int_equal(warm_pack_add(l->pack, &group, NULL, NULL), 0);
	}
	l->key = key_of("golden model", "1.0");
	struct warm_id covered = { 1600000000000, 1 };
	struct warm_pack_meta meta = { .kind = WARM_LAYER,
				       .id = fixed_id,
				       .key = &l->key,
				       .created_ms = 1700000000123,
				       .mount = "/cache",
				       .complete = "template-1",
				       .covered = &covered,
				       .n_covered = 1 };
	assert_int_equal(warm_pack_finish(l->pack, &meta, &l->name, &l->bytes, NULL), 0);
}

static char *describe(const struct layer *l)
{
	size_t bytes = 0;
	char *data = text_of(l->s.fd, ".layer", &bytes);
	char *text = describe_layer((const uint8_t *)data, bytes, &l->key, &l->name);

	free(data);
	return text;
}

TEST(the_golden_layer_is_read_exactly_and_packed_again_to_the_same_tar)
{
	struct layer l = open_layer(UINT64_MAX);
	char object[WARM_NAME_BYTES];

	pack_golden(&l);
	if (getenv("WARM_GOLDEN_UPDATE") != NULL) {
		size_t bytes = 0;
		char *data = text_of(l.s.fd, ".layer", &bytes), *text = describe(&l);
		warm_layer_name_format(&l.key, &l.name, object);
		assert_int_equal(shell("rm -rf " GOLDEN "/store " GOLDEN "/layer-1.txt"), 0);
		put_file(AT_FDCWD, GOLDEN "/layer-1.txt", text, strlen(text), 0644, 0);
		char path[2048];
		snprintf(path, sizeof(path), GOLDEN "/store/%s", object);
		put_file(AT_FDCWD, path, data, bytes, 0644, 0);
		snprintf(path, sizeof(path), "%s\n", object);
		put_file(AT_FDCWD, GOLDEN "/layer-1.name", path, strlen(path), 0644, 0);
		free(data);
		free(text);
	}
	char *name_text = text_of(AT_FDCWD, GOLDEN "/layer-1.name", NULL);
	char *want = text_of(AT_FDCWD, GOLDEN "/layer-1.txt", NULL), path[2048];
	name_text[strcspn(name_text, "\n")] = '\0';
	struct warm_layer_name name;
	struct warm_key key;
	assert_int_equal(warm_layer_name_parse(name_text, &key, &name, NULL), 0);
	snprintf(path, sizeof(path), GOLDEN "/store/%s", name_text);
	size_t bytes = 0;
	uint8_t *golden = load_file(path, &bytes);
	char *read_back = describe_layer(golden, bytes, &key, &name), *again = describe(&l);
	assert_string_equal(read_back, want);
	assert_string_equal(again, want);
	free(golden);
	free(read_back);
	free(again);
	free(want);
	free(name_text);
	close_layer(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_layer_is_whole),
		cmocka_unit_test(the_index_finds_every_byte_in_the_tar),
		cmocka_unit_test(each_frame_is_a_zstd_frame_with_its_size),
		cmocka_unit_test(the_same_groups_give_the_same_bytes),
		cmocka_unit_test(execute_bits_are_kept_and_no_others),
		cmocka_unit_test(a_group_with_a_missing_file_is_taken_back),
		cmocka_unit_test(a_group_that_closed_frames_is_taken_back),
		cmocka_unit_test(a_file_that_is_not_what_was_seen_takes_its_group_back),
		cmocka_unit_test(a_symlink_takes_its_group_back),
		cmocka_unit_test(a_symlink_on_the_way_takes_its_group_back),
		cmocka_unit_test(a_fifo_or_a_directory_takes_its_group_back_and_holds_nobody),
		cmocka_unit_test(a_file_that_changes_while_it_is_read_takes_its_group_back),
		cmocka_unit_test(the_status_is_the_same_for_a_caller_without_an_error_object),
		cmocka_unit_test(a_canceled_add_ends_the_pack),
		cmocka_unit_test(a_full_layer_says_so_and_can_be_finished),
		cmocka_unit_test(a_layer_of_small_groups_stays_within_its_limit),
		cmocka_unit_test(what_readers_would_refuse_for_its_ratio_is_not_packed),
		cmocka_unit_test(one_group_larger_than_the_limit_has_its_own_layer),
		cmocka_unit_test(tar_bsdtar_and_python_extract_a_layer_to_the_same_tree),
		cmocka_unit_test(the_golden_layer_is_read_exactly_and_packed_again_to_the_same_tar),
	};

	umask(022);
	int failed = RUN(tests);
	pack_threads = 3;
	return failed + RUN(tests);
}
