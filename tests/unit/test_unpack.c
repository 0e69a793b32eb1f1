/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <fcntl.h>
#include <zstd.h>

#include "lib/layer/sha256.h"
#include "lib/layer/unpack.h"

/* One frame around `raw`, and an index that claims `raw_bytes` of it. */
struct framed {
	uint8_t *packed;
	struct warm_frame frame;
	struct warm_index index;
};

static void frame_up(struct framed *f, const void *raw, size_t bytes, uint32_t claimed)
{
	size_t bound = ZSTD_compressBound(bytes);

	f->packed = malloc(bound);
	assert_non_null(f->packed);
	size_t n = ZSTD_compress(f->packed, bound, raw, bytes, 1);
	assert_false(ZSTD_isError(n));
	/* Exactly this size, so that a sanitizer sees a read past its end. */
	f->packed = realloc(f->packed, n);
	assert_non_null(f->packed);
	f->frame = (struct warm_frame){ .bytes = (uint32_t)n, .raw_bytes = claimed };
	assert_int_equal(warm_sha256(f->packed, n, f->frame.digest, NULL), 0);
	f->index = (struct warm_index){ .frames = &f->frame, .n_frames = 1, .raw_bytes = claimed };
}

static int decode(struct framed *f, const uint8_t **ret_raw, struct warm_unpack **ret_unpack,
		  struct warm_error *err)
{
	assert_int_equal(warm_unpack_new(ret_unpack, NULL), 0);
	*ret_raw = NULL;
	return warm_unpack_frame(*ret_unpack, &f->index, 0, f->packed, ret_raw, err);
}

TEST(a_sound_frame_is_decoded)
{
	scope_unpack struct warm_unpack *u = NULL;
	uint8_t *raw = pattern(1, 100000);
	const uint8_t *got;
	struct framed f;

	frame_up(&f, raw, 100000, 100000);
	assert_int_equal(decode(&f, &got, &u, NULL), 0);
	assert_memory_equal(got, raw, 100000);
	free(f.packed);
	free(raw);
}

TEST(a_frame_with_a_flipped_bit_is_never_decoded)
{
	scope_unpack struct warm_unpack *u = NULL;
	uint8_t *raw = pattern(1, 3000);
	struct framed f;

	frame_up(&f, raw, 3000, 3000);
	assert_int_equal(warm_unpack_new(&u, NULL), 0);
	for (size_t bit = 0; bit < 8 * (size_t)f.frame.bytes; bit++) {
		struct warm_error err = { 0 };
		const uint8_t *got = NULL;
		f.packed[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(warm_unpack_frame(u, &f.index, 0, f.packed, &got, &err),
				 WARM_CORRUPT);
		assert_non_null(strstr(err.msg, "doesn't match its digest"));
		assert_null(got);
		f.packed[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	free(f.packed);
	free(raw);
}

TEST(another_sound_frame_in_its_place_is_refused)
{
	scope_unpack struct warm_unpack *u = NULL;
	uint8_t *one = noise(1, 3000), *two = noise(2, 3000);
	struct warm_error err = { 0 };
	const uint8_t *got;
	struct framed f, g;

	frame_up(&f, one, 3000, 3000);
	frame_up(&g, two, 3000, 3000);
	assert_int_equal(f.frame.bytes, g.frame.bytes);
	memcpy(g.frame.digest, f.frame.digest, 32);
	assert_int_equal(decode(&g, &got, &u, &err), WARM_CORRUPT);
	assert_non_null(strstr(err.msg, "digest"));
	assert_null(got);
	free(f.packed);
	free(g.packed);
	free(one);
	free(two);
}

TEST(a_frame_that_decodes_to_more_or_less_than_it_claims_is_refused)
{
	static const uint32_t claims[] = { 1, 2999, 3001, 6000, WARM_FRAME_RAW_BYTES };
	uint8_t *raw = pattern(1, 3000);

	for (size_t i = 0; i < COUNT(claims); i++) {
		scope_unpack struct warm_unpack *u = NULL;
		struct warm_error err = { 0 };
		const uint8_t *got;
		struct framed f;
		frame_up(&f, raw, 3000, claims[i]);
		assert_int_equal(decode(&f, &got, &u, &err), WARM_CORRUPT);
		assert_non_null(strstr(err.msg, "doesn't decode"));
		assert_null(got);
		free(f.packed);
	}
	free(raw);
}

TEST(a_frame_that_is_no_zstd_is_refused)
{
	scope_unpack struct warm_unpack *u = NULL;
	uint8_t *raw = noise(1, 300);
	const uint8_t *got;
	struct framed f;

	frame_up(&f, raw, 300, 300);
	memset(f.packed, 'z', f.frame.bytes);
	assert_int_equal(warm_sha256(f.packed, f.frame.bytes, f.frame.digest, NULL), 0);
	assert_int_equal(decode(&f, &got, &u, NULL), WARM_CORRUPT);
	free(f.packed);
	free(raw);
}

TEST(one_unpack_decodes_frames_of_growing_and_shrinking_sizes)
{
	static const size_t sizes[] = { 10, 100000, 1000, WARM_FRAME_RAW_BYTES, 1 };
	scope_unpack struct warm_unpack *u = NULL;

	assert_int_equal(warm_unpack_new(&u, NULL), 0);
	for (size_t i = 0; i < COUNT(sizes); i++) {
		uint8_t *raw = pattern(i, sizes[i]);
		const uint8_t *got = NULL;
		struct framed f;
		frame_up(&f, raw, sizes[i], (uint32_t)sizes[i]);
		assert_int_equal(warm_unpack_frame(u, &f.index, 0, f.packed, &got, NULL), 0);
		assert_memory_equal(got, raw, sizes[i]);
		free(f.packed);
		free(raw);
	}
}

/* A file over frames of 100, 100 and 50 bytes. */
static struct warm_frame three[3] = { { .raw_offset = 0, .raw_bytes = 100 },
				      { .raw_offset = 100, .raw_bytes = 100 },
				      { .raw_offset = 200, .raw_bytes = 50 } };

TEST(parts_of_a_file_are_written_in_any_order)
{
	static const size_t orders[][3] = { { 0, 1, 2 }, { 2, 1, 0 }, { 1, 2, 0 }, { 2, 0, 1 } };
	struct scratch s = scratch_open();
	struct warm_index x = { .frames = three, .n_frames = 3, .raw_bytes = 250 };
	struct warm_file file = { "f", 180, 60, 1700000000123456789, 0111 };
	uint8_t *raw = noise(5, 250);

	umask(077);
	for (size_t i = 0; i < COUNT(orders); i++) {
		char path[8];
		snprintf(path, sizeof(path), "f%zu", i);
		for (size_t k = 0; k < 3; k++) {
			size_t frame = orders[i][k];
			assert_int_equal(warm_unpack_write(s.fd, path, &x, frame, &file,
							   raw + three[frame].raw_offset,
							   7000000000, NULL),
					 0);
		}
		assert_int_equal(warm_unpack_settle(s.fd, path, &file, 7000000000, NULL), 0);
		struct stat st = stat_of(s.fd, path);
		size_t bytes = 0;
		char *got = text_of(s.fd, path, &bytes);
		assert_int_equal(bytes, 180);
		assert_memory_equal(got, raw + 60, 180);
		assert_int_equal(st.st_mode & 07777, 0777);
		assert_int_equal(warm_timespec_ns(st.st_mtim), file.mtime_ns);
		assert_int_equal(warm_timespec_ns(st.st_atim), 7000000000);
		free(got);
	}
	free(raw);
	scratch_close(&s);
}

TEST(a_file_in_one_frame_and_an_empty_one_get_mode_and_times_at_once)
{
	struct scratch s = scratch_open();
	struct warm_index x = { .frames = three, .n_frames = 3, .raw_bytes = 250 };
	struct warm_file file = { "f", 100, 100, -1500000001, 0 };
	struct warm_file empty = { "e", 0, 250, 1700000000000000001, 0100 };
	uint8_t *raw = noise(5, 250);

	umask(077);
	assert_int_equal(warm_unpack_write(s.fd, "f", &x, 1, &file, raw, 1, NULL), 0);
	assert_int_equal(warm_unpack_settle(s.fd, "e", &empty, 1, NULL), 0);
	struct stat st = stat_of(s.fd, "f");
	assert_int_equal(st.st_size, 100);
	assert_int_equal(st.st_mode & 07777, 0666);
	assert_int_equal(warm_timespec_ns(st.st_mtim), file.mtime_ns);
	st = stat_of(s.fd, "e");
	assert_int_equal(st.st_size, 0);
	assert_int_equal(st.st_mode & 07777, 0766);
	assert_int_equal(warm_timespec_ns(st.st_mtim), empty.mtime_ns);
	free(raw);
	scratch_close(&s);
}

TEST(a_link_in_the_way_is_refused_and_its_target_untouched)
{
	struct scratch s = scratch_open();
	struct warm_index x = { .frames = three, .n_frames = 3, .raw_bytes = 250 };
	struct warm_file file = { "f", 10, 0, 1, 0 };
	uint8_t *raw = noise(5, 250);

	put_text(s.fd, "outside/target", "mine");
	put_dir(s.fd, "in");
	scope_close int in = openat(s.fd, "in", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(symlinkat("../outside/target", in, "link"), 0);
	assert_int_equal(symlinkat("../outside", in, "dir"), 0);
	assert_int_equal(symlinkat("../outside/new", in, "dangling"), 0);
	assert_int_equal(warm_unpack_write(in, "link", &x, 0, &file, raw, 1, NULL), WARM_CORRUPT);
	assert_int_equal(warm_unpack_write(in, "dir/target", &x, 0, &file, raw, 1, NULL),
			 WARM_CORRUPT);
	assert_int_equal(warm_unpack_write(in, "dangling", &x, 0, &file, raw, 1, NULL),
			 WARM_CORRUPT);
	assert_int_equal(warm_unpack_settle(in, "link", &file, 1, NULL), WARM_CORRUPT);
	assert_file(s.fd, "outside/target", "mine");
	assert_false(is_there(s.fd, "outside/new"));
	free(raw);
	scratch_close(&s);
}

TEST(a_missing_directory_is_not_found)
{
	struct scratch s = scratch_open();
	struct warm_index x = { .frames = three, .n_frames = 3, .raw_bytes = 250 };
	struct warm_file file = { "f", 10, 0, 1, 0 };
	uint8_t raw[100] = { 0 };

	assert_int_equal(warm_unpack_write(s.fd, "no/f", &x, 0, &file, raw, 1, NULL),
			 WARM_NOT_FOUND);
	scratch_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sound_frame_is_decoded),
		cmocka_unit_test(a_frame_with_a_flipped_bit_is_never_decoded),
		cmocka_unit_test(another_sound_frame_in_its_place_is_refused),
		cmocka_unit_test(a_frame_that_decodes_to_more_or_less_than_it_claims_is_refused),
		cmocka_unit_test(a_frame_that_is_no_zstd_is_refused),
		cmocka_unit_test(one_unpack_decodes_frames_of_growing_and_shrinking_sizes),
		cmocka_unit_test(parts_of_a_file_are_written_in_any_order),
		cmocka_unit_test(a_file_in_one_frame_and_an_empty_one_get_mode_and_times_at_once),
		cmocka_unit_test(a_link_in_the_way_is_refused_and_its_target_untouched),
		cmocka_unit_test(a_missing_directory_is_not_found),
	};

	return RUN(tests);
}
