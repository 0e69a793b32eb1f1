/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <zstd.h>

#include "lib/layer/sha256.h"

/* ---- an index made by hand, byte for byte as docs/format.md says ---- */

struct forged_file {
	const char *path;
	size_t path_bytes; /* 0: strlen(path) */
	uint64_t size, mode, frame, offset;
	bool absent;
};

struct forged_group {
	const char *name;
	struct warm_id origin;
	const char *profile;
	uint64_t bound, flags;
	uint64_t n_files; /* to claim */
	struct forged_file files[3];
	size_t n_real;
};

struct forged_frame {
	uint64_t bytes, raw_bytes;
};

struct forged {
	uint8_t kind;
	struct warm_id id;
	const char *model, *version, *platform;
	const char *mount, *program, *mark;
	uint8_t marked;
	uint64_t n_covered; /* to claim */
	struct warm_id covered[2];
	size_t n_covered_real;
	uint64_t n_frames; /* to claim */
	struct forged_frame frames[3];
	size_t n_frames_real;
	uint64_t n_groups; /* to claim */
	struct forged_group groups[2];
	size_t n_groups_real;
	const char *tail; /* bytes after the end */
	size_t cut;	  /* bytes to leave out at the end */
	/* the trailer */
	uint16_t major, minor;
	uint32_t magic, length_more, raw_bytes_more;
	bool wrong_header_magic;
};

static struct forged sound(void)
{
	struct warm_id id = { 1700000000000, 0x0123456789abcdef };

	return (struct forged){
		.kind = 'L',
		.id = id,
		.model = "llama",
		.version = "v1",
		.platform = "test",
		.mount = "/cache",
		.program = "forged 1",
		.mark = "",
		.n_frames = 2,
		.frames = { { 100, 4096 }, { 200, 8192 } },
		.n_frames_real = 2,
		.n_groups = 2,
		.groups = { { "a",
			      id,
			      "file",
			      0,
			      0,
			      2,
			      { { "a/x", 0, 10, 0, 0, 512, false },
				{ "a/y", 0, 5000, 0111, 0, 1024, false } },
			      2 },
			    { "b",
			      id,
			      "file",
			      0,
			      WARM_GROUP_SELF_KEYED,
			      1,
			      { { "b", 0, 0, 0, 1, 8192, false } },
			      1 } },
		.n_groups_real = 2,
		.major = 1,
		.magic = 0x184D2A5B,
	};
}

static void put_id(struct warm_buf *out, struct warm_id id)
{
	warm_buf_put_uv(out, id.ms);
	warm_buf_put_u64(out, id.random);
}

static void forge_raw(const struct forged *f, struct warm_buf *out)
{
	static const uint8_t digest[32];

	warm_buf_put_u8(out, f->kind);
	put_id(out, f->id);
	warm_buf_put_str(out, f->model);
	warm_buf_put_str(out, f->version);
	warm_buf_put_str(out, f->platform);
	warm_buf_put_u64(out, 1700000000001);
	warm_buf_put_str(out, f->mount);
	warm_buf_put_str(out, f->program);
	warm_buf_put_u8(out, f->marked);
	warm_buf_put_str(out, f->mark);
	warm_buf_put_uv(out, f->n_covered);
	for (size_t i = 0; i < f->n_covered_real; i++)
		put_id(out, f->covered[i]);
	warm_buf_put_uv(out, f->n_frames);
	for (size_t i = 0; i < f->n_frames_real; i++) {
		warm_buf_put_uv(out, f->frames[i].bytes);
		warm_buf_put_uv(out, f->frames[i].raw_bytes);
		warm_buf_put(out, digest, sizeof(digest));
	}
	warm_buf_put_uv(out, f->n_groups);
	for (size_t i = 0; i < f->n_groups_real; i++) {
		const struct forged_group *g = &f->groups[i];
		warm_buf_put_str(out, g->name);
		put_id(out, g->origin);
		warm_buf_put_str(out, g->profile);
		warm_buf_put_u64(out, g->bound);
		warm_buf_put_uv(out, g->flags);
		warm_buf_put_uv(out, g->n_files);
		for (size_t k = 0; k < g->n_real; k++) {
			const struct forged_file *x = &g->files[k];
			size_t bytes = x->path_bytes != 0 ? x->path_bytes : strlen(x->path);
			warm_buf_put_uv(out, bytes);
			warm_buf_put(out, x->path, bytes);
			warm_buf_put_uv(out, x->size);
			warm_buf_put_uv(out, x->mode);
			warm_buf_put_u64(out, 1700000000123456789);
			warm_buf_put_uv(out, x->frame);
			warm_buf_put_uv(out, x->offset);
		}
	}
	if (f->tail != NULL)
		warm_buf_put(out, f->tail, strlen(f->tail));
	out->bytes -= f->cut;
}

struct sealed {
	struct warm_buf trailer;
	struct warm_key key;
	struct warm_layer_name name;
	uint64_t object_bytes;
};

static struct sealed seal(const struct forged *f)
{
	struct warm_buf raw = WARM_BUF_INIT;
	struct sealed s = { .trailer = WARM_BUF_INIT, .key = key_of("llama", "v1") };
	static const uint8_t room[76];

	forge_raw(f, &raw);
	size_t bound = ZSTD_compressBound(raw.bytes);
	uint8_t *packed = malloc(bound);
	assert_non_null(packed);
	size_t bytes = ZSTD_compress(packed, bound, raw.data, raw.bytes, 3);
	assert_false(ZSTD_isError(bytes));
	s.name.kind = (enum warm_layer_kind)'L';
	s.name.id = sound().id;
	s.name.index_bytes = (uint32_t)bytes;
	assert_int_equal(warm_sha256(packed, bytes, s.name.digest, NULL), 0);
	warm_buf_put_u32(&s.trailer, f->magic);
	warm_buf_put_u32(&s.trailer, (uint32_t)(128 + bytes + f->length_more));
	warm_buf_put(&s.trailer, f->wrong_header_magic ? "warmidy\n" : "warmidx\n", 8);
	warm_buf_put_u16(&s.trailer, f->major);
	warm_buf_put_u16(&s.trailer, f->minor);
	warm_buf_put_u32(&s.trailer, (uint32_t)bytes);
	warm_buf_put_u32(&s.trailer, (uint32_t)raw.bytes + f->raw_bytes_more);
	warm_buf_put(&s.trailer, s.name.digest, 32);
	warm_buf_put(&s.trailer, room, sizeof(room));
	warm_buf_put(&s.trailer, packed, bytes);
	assert_false(s.trailer.failed);
	s.object_bytes = 300 + s.trailer.bytes;
	warm_buf_release(&raw);
	free(packed);
	return s;
}

static int parse(const struct sealed *s, struct warm_index **ret_index, struct warm_error *err)
{
	/* A copy of exactly this size, so that a sanitizer sees a read past its end. */
	uint8_t *exact = malloc(s->trailer.bytes);

	assert_non_null(exact);
	memcpy(exact, s->trailer.data, s->trailer.bytes);
	int rc = warm_index_parse(exact, s->trailer.bytes, s->object_bytes, &s->key, &s->name,
				  ret_index, err);
	free(exact);
	return rc;
}

static void check_refused(const struct forged *f, int status, const char *why, const char *where,
			  int line)
{
	struct sealed s = seal(f);
	struct warm_error err = { 0 };
	struct warm_index *index = NULL;

	int rc = parse(&s, &index, &err);
	if (rc != status || index != NULL || strstr(err.msg, why) == NULL)
		fail_msg("%s:%d: wanted %s with '%s', got %s: %s", where, line,
			 warm_status_name(status), why, warm_status_name(rc), err.msg);
	/* A caller that needs the status alone gets the same. */
	assert_int_equal(parse(&s, &index, NULL), status);
	warm_buf_release(&s.trailer);
}
#define refused(f, why) check_refused(f, WARM_CORRUPT, why, __FILE__, __LINE__)

TEST(a_sound_index_is_read_as_it_was_made)
{
	struct forged f = sound();
	struct warm_index *x = NULL;
	struct warm_error err = { 0 };

	f.marked = 1;
	f.mark = "template-7";
	struct sealed s = seal(&f);
	if (parse(&s, &x, &err) != 0)
		fail_msg("%s", err.msg);
	assert_int_equal(x->kind, WARM_LAYER);
	assert_int_equal(x->id.ms, f.id.ms);
	assert_int_equal(x->id.random, f.id.random);
	assert_string_equal(x->key.model, "llama");
	assert_string_equal(x->key.version, "v1");
	assert_string_equal(x->key.platform, "test");
	assert_int_equal(x->created_ms, 1700000000001);
	assert_string_equal(x->mount, "/cache");
	assert_string_equal(x->program, "forged 1");
	assert_string_equal(x->complete, "template-7");
	assert_int_equal(x->n_frames, 2);
	assert_int_equal(x->frames[1].offset, 100);
	assert_int_equal(x->frames[1].raw_offset, 4096);
	assert_int_equal(x->bytes, 300);
	assert_int_equal(x->raw_bytes, 12288);
	assert_int_equal(x->n_groups, 2);
	assert_int_equal(x->n_files, 3);
	assert_string_equal(x->files[1].path, "a/y");
	assert_int_equal(x->files[1].raw_offset, 1024);
	assert_int_equal(x->files[1].size, 5000);
	assert_int_equal(x->files[1].mode, 0111);
	assert_int_equal(x->files[1].mtime_ns, 1700000000123456789);
	assert_int_equal(x->groups[1].first_file, 2);
	assert_int_equal(x->groups[1].flags, WARM_GROUP_SELF_KEYED);
	assert_int_equal(x->files[2].size, 0);
	warm_index_free(x);
	warm_buf_release(&s.trailer);
}

TEST(what_is_encoded_is_parsed_to_the_same)
{
	struct warm_id id = { 1700000000000, 7 }, older = { 1600000000000, 9 };
	struct warm_frame frames[2] = {
		{ .offset = 0, .raw_offset = 0, .bytes = 50, .raw_bytes = 4 << 20 },
		{ .offset = 50, .raw_offset = 4 << 20, .bytes = 60, .raw_bytes = 1000 }
	};
	struct warm_file files[3] = {
		{ "a", 0, 0, -5, 0 },
		{ "b/c", (4 << 20) + 500, 100, 1, 0111 },
		{ "b/d", 0, (4 << 20) + 1000, INT64_MAX, 0 },
	};
	struct warm_group groups[2] = {
		{ "a@00000000000000ff", "file", older, 0xff, WARM_GROUP_CPU_BOUND, 0, 1 },
		{ "b", "triton", id, 0, WARM_GROUP_SELF_KEYED | WARM_GROUP_MUTABLE, 1, 2 },
	};
	struct warm_index index = {
		.kind = WARM_BASE,
		.id = id,
		.key = key_of("m", ""),
		.created_ms = -1,
		.mount = "",
		.program = "p",
		.complete = "",
		.covered = &older,
		.n_covered = 1,
		.frames = frames,
		.n_frames = 2,
		.groups = groups,
		.n_groups = 2,
		.files = files,
		.n_files = 3,
	};
	struct warm_buf trailer = WARM_BUF_INIT;
	struct warm_layer_name name;
	struct warm_index *x = NULL;
	struct warm_error err = { 0 };

	frames[1].digest[31] = 0xab;
	assert_int_equal(warm_index_encode(&index, &trailer, &name, &err), 0);
	assert_int_equal(trailer.bytes, warm_trailer_bytes(&name));
	if (warm_index_parse(trailer.data, trailer.bytes, 110 + trailer.bytes, &index.key, &name,
			     &x, &err) != 0)
		fail_msg("%s", err.msg);
	assert_int_equal(x->kind, WARM_BASE);
	assert_int_equal(x->created_ms, -1);
	assert_string_equal(x->complete, "");
	assert_int_equal(x->n_covered, 1);
	assert_int_equal(warm_id_compare(x->covered[0], older), 0);
	assert_int_equal(x->frames[1].digest[31], 0xab);
	assert_string_equal(x->groups[0].name, "a@00000000000000ff");
	assert_int_equal(x->groups[0].bound, 0xff);
	assert_int_equal(warm_group_base(&x->groups[0]), 1);
	assert_int_equal(warm_group_base(&x->groups[1]), 1);
	for (size_t i = 0; i < 3; i++) {
		assert_string_equal(x->files[i].path, files[i].path);
		assert_int_equal(x->files[i].size, files[i].size);
		assert_int_equal(x->files[i].raw_offset, files[i].raw_offset);
		assert_int_equal(x->files[i].mtime_ns, files[i].mtime_ns);
		assert_int_equal(x->files[i].mode, files[i].mode);
	}
	warm_index_free(x);
	warm_buf_release(&trailer);
}

TEST(frames_of_a_file_are_those_that_hold_its_bytes)
{
	struct warm_frame frames[3] = { { .raw_offset = 0, .raw_bytes = 100 },
					{ .raw_offset = 100, .raw_bytes = 100 },
					{ .raw_offset = 200, .raw_bytes = 50 } };
	struct warm_index x = { .frames = frames, .n_frames = 3 };
	static const struct {
		uint64_t offset, size;
		size_t first, end;
	} rows[] = {
		{ 0, 1, 0, 1 },	    { 0, 100, 0, 1 },	{ 99, 1, 0, 1 },   { 99, 2, 0, 2 },
		{ 100, 100, 1, 2 }, { 100, 101, 1, 3 }, { 50, 200, 0, 3 }, { 249, 1, 2, 3 },
		{ 100, 0, 0, 0 },   { 250, 0, 0, 0 },	{ 0, 250, 0, 3 },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct warm_file f = { .raw_offset = rows[i].offset, .size = rows[i].size };
		size_t first = 9, end = 9;
		warm_index_frames_of(&x, &f, &first, &end);
		assert_int_equal(first, rows[i].first);
		assert_int_equal(end, rows[i].end);
	}
}

TEST(a_unit_has_as_many_components_as_the_groups_name)
{
	static const struct {
		const char *group, *path, *unit;
	} rows[] = {
		{ "a", "a", "a" },
		{ "a", "a/b/c", "a" },
		{ "t/H", "t/H/x.json", "t/H" },
		{ "t/H@0123456789abcdef", "t/H/sub/x", "t/H" },
		{ "f/cached_ops/n", "f/generated/n/a.cu", "f/generated/n" },
		{ "j/x-cache", "j/x-atime", "j/x-atime" },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		size_t n = warm_group_unit(rows[i].group, rows[i].path);
		assert_int_equal(n, strlen(rows[i].unit));
		assert_memory_equal(rows[i].path, rows[i].unit, n);
	}
}

/* ---- lies ---- */

TEST(an_unknown_kind_is_refused)
{
	struct forged f = sound();

	f.kind = 'X';
	refused(&f, "kind");
}

TEST(a_name_that_differs_from_its_index_is_refused)
{
	struct forged f = sound();

	f.kind = 'B';
	refused(&f, "differs");
	f = sound();
	f.id.random++;
	f.groups[0].origin = f.groups[1].origin = f.id;
	refused(&f, "differs");
	f = sound();
	f.model = "llamb";
	refused(&f, "differs");
	f = sound();
	f.version = "v2";
	refused(&f, "differs");
	f = sound();
	f.platform = "";
	refused(&f, "differs");
}

TEST(ids_of_zero_or_beyond_any_clock_are_refused)
{
	struct forged f = sound();

	f.id.ms = 0;
	refused(&f, "malformed");
	f = sound();
	f.id.ms = UINT64_MAX;
	refused(&f, "malformed");
	f = sound();
	f.groups[1].origin.ms = 0;
	refused(&f, "malformed");
	f = sound();
	f.n_covered = f.n_covered_real = 1;
	refused(&f, "malformed");
}

TEST(a_wrong_origin_is_refused)
{
	struct forged f = sound();

	f.groups[1].origin.ms--; /* a layer's groups are of its own id */
	refused(&f, "origin");
	f = sound();
	f.groups[1].origin.ms++; /* of the future */
	refused(&f, "origin");
	f.kind = 'B';
	refused(&f, "origin");
}

TEST(counts_that_the_index_cannot_hold_are_refused)
{
	static const uint64_t lies[] = { 3, 1000, UINT32_MAX, UINT64_MAX, UINT64_MAX / 2 };

	for (size_t i = 0; i < COUNT(lies); i++) {
		struct forged f = sound();
		f.n_groups = lies[i];
		refused(&f, "malformed");
		f = sound();
		f.n_frames = lies[i];
		refused(&f, "");
		f = sound();
		f.groups[1].n_files = lies[i];
		refused(&f, "malformed");
		f = sound();
		f.n_covered = lies[i];
		refused(&f, "");
	}
}

TEST(counts_below_what_follows_are_refused)
{
	struct forged f = sound();

	f.n_groups = 1;
	refused(&f, "malformed");
	f = sound();
	f.groups[0].n_files = 1;
	refused(&f, "");
	f = sound();
	f.groups[0].n_files = 0;
	refused(&f, "");
	f = sound();
	f.groups[1].n_files = f.groups[1].n_real = 0;
	refused(&f, "malformed");
	f = sound();
	f.n_frames = 1;
	refused(&f, "");
}

TEST(trailing_bytes_and_a_cut_end_are_refused)
{
	struct forged f = sound();

	f.tail = "x";
	refused(&f, "malformed");
	for (size_t cut = 1; cut < 120; cut++) {
		f = sound();
		f.cut = cut;
		refused(&f, "");
	}
}

TEST(frames_that_claim_impossible_sizes_are_refused)
{
	static const struct forged_frame lies[] = {
		{ 0, 8192 },
		{ 200, 0 },
		{ WARM_FRAME_BYTES + 1, 8192 },
		{ 200, WARM_FRAME_RAW_BYTES + 1 },
		{ UINT64_MAX, 8192 },
		{ 200, UINT64_MAX },
	};

	for (size_t i = 0; i < COUNT(lies); i++) {
		struct forged f = sound();
		f.frames[1] = lies[i];
		refused(&f, "claims");
	}
}

TEST(frames_that_do_not_fill_the_object_are_refused)
{
	struct forged f = sound();

	f.frames[1].bytes = 199;
	refused(&f, "frames take");
	f.frames[1].bytes = 201;
	refused(&f, "frames take");
}

TEST(a_layer_that_decodes_to_far_more_than_it_has_is_refused)
{
	struct warm_buf raw = WARM_BUF_INIT;
	struct forged f = sound();
	struct warm_index *x = NULL;
	struct warm_error err = { 0 };
	static const uint8_t digest[32];
	enum { FRAMES = 1024 }; /* 4 GiB in 10 KiB */

	f.n_frames = f.n_frames_real = 0;
	f.n_groups = f.n_groups_real = 0;
	forge_raw(&f, &raw);
	raw.bytes -= 2; /* both counts */
	warm_buf_put_uv(&raw, FRAMES);
	for (int i = 0; i < FRAMES; i++) {
		warm_buf_put_uv(&raw, 10);
		warm_buf_put_uv(&raw, WARM_FRAME_RAW_BYTES);
		warm_buf_put(&raw, digest, 32);
	}
	warm_buf_put_uv(&raw, 0);
	assert_int_equal(warm_index_parse_raw(raw.data, raw.bytes, 10 * FRAMES, &x, &err),
			 WARM_LIMIT);
	assert_null(x);
	warm_buf_release(&raw);
}

TEST(a_file_that_lies_about_its_place_is_refused)
{
	struct forged f = sound();

	f.groups[1].files[0].frame = 2; /* no such frame */
	refused(&f, "place");
	f = sound();
	f.groups[1].files[0].frame = UINT64_MAX;
	refused(&f, "place");
	f = sound();
	f.groups[1].files[0].offset = 8193; /* past its frame */
	refused(&f, "place");
	f = sound();
	f.groups[1].files[0].offset = UINT64_MAX;
	refused(&f, "place");
	f = sound();
	f.groups[1].files[0].size = 1; /* past the last frame */
	refused(&f, "past the last");
	f = sound();
	f.groups[1].files[0].size = UINT64_MAX;
	refused(&f, "past the last");
}

TEST(files_that_overlap_are_refused)
{
	struct forged f = sound();

	f.groups[0].files[1].offset = 521;
	refused(&f, "overlaps");
	f = sound();
	f.groups[1].files[0].frame = 1; /* into the file that spans frames */
	f.groups[1].files[0].offset = 100;
	refused(&f, "overlaps");
	f.groups[1].files[0].offset = 1024 + 5000 - 4096;
	struct sealed s = seal(&f);
	struct warm_index *x = NULL;
	assert_int_equal(parse(&s, &x, NULL), 0); /* right behind it */
	warm_index_free(x);
	warm_buf_release(&s.trailer);
}

TEST(mode_bits_besides_execute_are_refused)
{
	static const uint64_t modes[] = {
		0200, 04111, 0644, 010000, UINT32_MAX, UINT64_C(1) << 40
	};

	for (size_t i = 0; i < COUNT(modes); i++) {
		struct forged f = sound();
		f.groups[0].files[0].mode = modes[i];
		refused(&f, "mode");
	}
}

TEST(paths_that_are_not_safe_to_create_are_refused)
{
	static char long_part[300], long_path[5000];
	struct forged f;

	memset(long_part, 'p', 256);
	for (size_t i = 0; i < WARM_PATH_BYTES; i++)
		long_path[i] = i % 2 == 0 ? 'q' : '/';
	static const struct {
		const char *path;
		size_t bytes;
		const char *why;
	} rows[] = {
		{ "/etc/passwd", 0, "absolute" },
		{ "/", 0, "absolute" },
		{ "..", 0, "'..'" },
		{ "../x", 0, "'..'" },
		{ "a/../../x", 0, "'..'" },
		{ "a/..", 0, "'..'" },
		{ "./a", 0, "'.'" },
		{ "a/.", 0, "'.'" },
		{ "a//b", 0, "empty component" },
		{ "a/", 0, "empty component" },
		{ "a\0b", 3, "malformed" },
		{ "\0", 1, "malformed" },
		{ long_part, 256, "255" },
		{ long_path, WARM_PATH_BYTES, "malformed" },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		f = sound();
		f.groups[1].files[0].path = rows[i].path;
		f.groups[1].files[0].path_bytes = rows[i].bytes;
		refused(&f, rows[i].why);
	}
}

TEST(an_empty_path_is_refused)
{
	struct forged f = sound();

	f.groups[1].files[0].path = "";
	refused(&f, "empty path");
}

TEST(files_out_of_order_or_twice_in_a_group_are_refused)
{
	struct forged f = sound();

	f.groups[0].files[0].path = "a/z";
	refused(&f, "out of order");
	f.groups[0].files[0].path = "a/y";
	refused(&f, "out of order");
}

TEST(flags_that_are_not_known_are_refused)
{
	static const uint64_t flags[] = { WARM_GROUP_FLAGS + 1, 1u << 31, UINT64_C(1) << 32,
					  UINT64_MAX };

	for (size_t i = 0; i < COUNT(flags); i++) {
		struct forged f = sound();
		f.groups[1].flags = flags[i];
		refused(&f, "malformed");
	}
}

TEST(a_bound_group_whose_name_does_not_end_in_it_is_refused)
{
	static const char *const names[] = { "b",    "@00000000000000ff",  "b@00000000000000fe",
					     "b@ff", "b@00000000000000FF", "b@00000000000000ff " };

	for (size_t i = 0; i < COUNT(names); i++) {
		struct forged f = sound();
		f.groups[1].bound = 0xff;
		f.groups[1].flags = WARM_GROUP_CPU_BOUND;
		f.groups[1].name = names[i];
		refused(&f, "malformed");
	}
	struct forged f = sound();
	f.groups[1].bound = 0xff;
	f.groups[1].flags = WARM_GROUP_CPU_BOUND;
	f.groups[1].name = "b@00000000000000ff";
	struct sealed s = seal(&f);
	struct warm_index *x = NULL;
	assert_int_equal(parse(&s, &x, NULL), 0);
	warm_index_free(x);
	warm_buf_release(&s.trailer);
}

TEST(what_a_group_is_bound_to_fits_its_flags)
{
	static const unsigned both = WARM_GROUP_CPU_BOUND | WARM_GROUP_MOUNT_BOUND;
	const struct {
		uint64_t bound;
		unsigned flags;
	} wrong[] = { { 0xff, 0 },
		      { 0xff, both },
		      { 0, WARM_GROUP_CPU_BOUND },
		      { 0, WARM_GROUP_MOUNT_BOUND },
		      { 0, both } };

	for (size_t i = 0; i < COUNT(wrong); i++) {
		struct forged f = sound();
		f.groups[1].bound = wrong[i].bound;
		f.groups[1].flags = wrong[i].flags;
		if (wrong[i].bound != 0)
			f.groups[1].name = "b@00000000000000ff";
		refused(&f, "malformed");
	}
}

TEST(a_group_without_a_name_is_refused)
{
	struct forged f = sound();

	f.groups[1].name = "";
	refused(&f, "malformed");
}

TEST(texts_over_their_limits_are_refused)
{
	static char text[2000];
	struct forged f = sound();

	memset(text, 't', sizeof(text) - 1);
	f.program = text;
	refused(&f, "malformed");
	f = sound();
	f.mark = text;
	refused(&f, "malformed");
	f = sound();
	f.model = text;
	refused(&f, "malformed");
	f = sound();
	f.groups[0].profile = text;
	refused(&f, "malformed");
}

TEST(a_newer_major_is_unsupported_and_a_newer_minor_is_read)
{
	struct forged f = sound();

	f.major = 2;
	check_refused(&f, WARM_UNSUPPORTED, "2.0", __FILE__, __LINE__);
	f.minor = 9;
	check_refused(&f, WARM_UNSUPPORTED, "2.9", __FILE__, __LINE__);
	f.major = 1;
	struct sealed s = seal(&f);
	struct warm_index *x = NULL;
	assert_int_equal(parse(&s, &x, NULL), 0);
	assert_int_equal(x->minor, 9);
	warm_index_free(x);
	warm_buf_release(&s.trailer);
}

TEST(a_trailer_that_is_malformed_is_refused)
{
	struct forged f = sound();

	f.magic = 0xFD2FB528;
	refused(&f, "trailer");
	f = sound();
	f.length_more = 1;
	refused(&f, "trailer");
	f = sound();
	f.wrong_header_magic = true;
	refused(&f, "trailer");
	f = sound();
	f.raw_bytes_more = 1;
	refused(&f, "lies");
	f = sound();
	f.raw_bytes_more = WARM_INDEX_RAW_BYTES;
	refused(&f, "lies");
	f = sound();
	f.raw_bytes_more = UINT32_MAX; /* one less */
	refused(&f, "lies");
}

TEST(a_digest_in_the_header_that_differs_from_the_name_is_refused)
{
	struct forged f = sound();
	struct sealed s = seal(&f);
	struct warm_index *x = NULL;

	s.trailer.data[28] ^= 1;
	int rc = parse(&s, &x, NULL);
	warm_index_free(x);
	warm_buf_release(&s.trailer);
	assert_int_equal(rc, WARM_CORRUPT);
}

TEST(nothing_is_parsed_whose_digest_is_not_the_names)
{
	struct forged f = sound();
	struct sealed s = seal(&f);
	struct warm_index *x = NULL;
	struct warm_error err = { 0 };

	for (size_t at = WARM_TRAILER_FIXED_BYTES; at < s.trailer.bytes; at++) {
		s.trailer.data[at] ^= 0x40;
		assert_int_equal(parse(&s, &x, &err), WARM_CORRUPT);
		assert_non_null(strstr(err.msg, "digest"));
		s.trailer.data[at] ^= 0x40;
	}
	s.name.digest[0] ^= 1;
	assert_int_equal(parse(&s, &x, &err), WARM_CORRUPT);
	assert_non_null(strstr(err.msg, "digest"));
	assert_null(x);
	warm_buf_release(&s.trailer);
}

TEST(a_cut_trailer_is_refused)
{
	struct forged f = sound();
	struct sealed s = seal(&f);
	struct warm_index *x = NULL;
	size_t whole = s.trailer.bytes;

	for (size_t n = 1; n < whole; n++) {
		s.trailer.bytes = n;
		assert_int_equal(parse(&s, &x, NULL), WARM_CORRUPT);
	}
	s.trailer.bytes = whole;
	s.object_bytes = whole - 1; /* the object is shorter than its trailer */
	assert_int_equal(parse(&s, &x, NULL), WARM_CORRUPT);
	s.object_bytes = whole; /* no room for its frames */
	assert_int_equal(parse(&s, &x, NULL), WARM_CORRUPT);
	assert_null(x);
	warm_buf_release(&s.trailer);
}

TEST(an_index_that_claims_over_the_limit_is_refused_before_it_is_looked_at)
{
	struct warm_layer_name name = { .kind = WARM_LAYER,
					.id = { 1, 1 },
					.index_bytes = WARM_INDEX_BYTES + 1 };
	struct warm_key key = key_of("m", "v");
	struct warm_index *x = NULL;
	size_t bytes = (size_t)warm_trailer_bytes(&name);
	uint8_t *data = calloc(1, bytes);

	assert_non_null(data);
	assert_int_equal(warm_index_parse(data, bytes, bytes, &key, &name, &x, NULL), WARM_LIMIT);
	free(data);
}

TEST(random_damage_to_a_raw_index_never_harms_the_reader)
{
	struct forged f = sound();
	struct warm_buf raw = WARM_BUF_INIT;

	forge_raw(&f, &raw);
	for (uint64_t seed = 0; seed < 20000; seed++) {
		struct dice d = { seed };
		struct warm_index *x = NULL;
		uint8_t *copy = malloc(raw.bytes);
		size_t bytes = raw.bytes - (roll_below(&d, 4) == 0 ? roll_below(&d, raw.bytes) : 0);
		assert_non_null(copy);
		memcpy(copy, raw.data, raw.bytes);
		for (uint64_t n = 1 + roll_below(&d, 4); n > 0; n--)
			copy[roll_below(&d, raw.bytes)] = (uint8_t)roll(&d);
		uint8_t *exact = malloc(bytes + (bytes == 0));
		assert_non_null(exact);
		memcpy(exact, copy, bytes);
		int rc = warm_index_parse_raw(exact, bytes, 300, &x, NULL);
		assert_true((rc == 0) == (x != NULL));
		if (rc == 0)
			for (size_t i = 0; i < x->n_files; i++)
				assert_true(x->files[i].raw_offset + x->files[i].size <=
					    x->raw_bytes);
		warm_index_free(x);
		free(exact);
		free(copy);
	}
	warm_buf_release(&raw);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sound_index_is_read_as_it_was_made),
		cmocka_unit_test(what_is_encoded_is_parsed_to_the_same),
		cmocka_unit_test(frames_of_a_file_are_those_that_hold_its_bytes),
		cmocka_unit_test(a_unit_has_as_many_components_as_the_groups_name),
		cmocka_unit_test(an_unknown_kind_is_refused),
		cmocka_unit_test(a_name_that_differs_from_its_index_is_refused),
		cmocka_unit_test(ids_of_zero_or_beyond_any_clock_are_refused),
		cmocka_unit_test(a_wrong_origin_is_refused),
		cmocka_unit_test(counts_that_the_index_cannot_hold_are_refused),
		cmocka_unit_test(counts_below_what_follows_are_refused),
		cmocka_unit_test(trailing_bytes_and_a_cut_end_are_refused),
		cmocka_unit_test(frames_that_claim_impossible_sizes_are_refused),
		cmocka_unit_test(frames_that_do_not_fill_the_object_are_refused),
		cmocka_unit_test(a_layer_that_decodes_to_far_more_than_it_has_is_refused),
		cmocka_unit_test(a_file_that_lies_about_its_place_is_refused),
		cmocka_unit_test(files_that_overlap_are_refused),
		cmocka_unit_test(mode_bits_besides_execute_are_refused),
		cmocka_unit_test(paths_that_are_not_safe_to_create_are_refused),
		cmocka_unit_test(an_empty_path_is_refused),
		cmocka_unit_test(files_out_of_order_or_twice_in_a_group_are_refused),
		cmocka_unit_test(flags_that_are_not_known_are_refused),
		cmocka_unit_test(a_bound_group_whose_name_does_not_end_in_it_is_refused),
		cmocka_unit_test(what_a_group_is_bound_to_fits_its_flags),
		cmocka_unit_test(a_group_without_a_name_is_refused),
		cmocka_unit_test(texts_over_their_limits_are_refused),
		cmocka_unit_test(a_newer_major_is_unsupported_and_a_newer_minor_is_read),
		cmocka_unit_test(a_trailer_that_is_malformed_is_refused),
		cmocka_unit_test(a_digest_in_the_header_that_differs_from_the_name_is_refused),
		cmocka_unit_test(nothing_is_parsed_whose_digest_is_not_the_names),
		cmocka_unit_test(a_cut_trailer_is_refused),
		cmocka_unit_test(
			an_index_that_claims_over_the_limit_is_refused_before_it_is_looked_at),
		cmocka_unit_test(random_damage_to_a_raw_index_never_harms_the_reader),
	};

	return RUN(tests);
}
