/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include "lib/kernel/entry.h"
#include "lib/layer/profile.h"

static struct warm_kernel_text t(const char *s)
{
	return (struct warm_kernel_text){ s, strlen(s) };
}

static struct warm_kernel_text options[2], expressions[2], lowered[2];
static struct warm_kernel_dep deps[3];
static struct warm_buf encoded;

static struct warm_kernel_deps encode(size_t n)
{
	warm_buf_release(&encoded);
	for (size_t i = 0; i < n; i++)
		warm_kernel_encode_dep(&encoded, &deps[i]);
	return (struct warm_kernel_deps){ encoded.data, encoded.bytes, n };
}

static struct warm_kernel_entry sound(void)
{
	options[0] = t("-arch=sm_90");
	options[1] = t("-DX=\"a b\"");
	expressions[0] = t("f<int>");
	expressions[1] = t("&v");
	lowered[0] = t("_Z1fIiEvv");
	lowered[1] = t("");
	deps[0] = (struct warm_kernel_dep){
		WARM_KERNEL_DEP_FILE, true, t("inc/a.h"), 5, { 1, 2 }, 0
	};
	deps[1] = (struct warm_kernel_dep){
		WARM_KERNEL_DEP_ABSENT, false, t("/x/a.h"), 0, { 0, 0 }, 0
	};
	deps[2] = (struct warm_kernel_dep){ WARM_KERNEL_DEP_CWD, false, t("/w"), 0, { 0, 0 }, 0 };
	return (struct warm_kernel_entry){
		.fingerprint = { 0x0123456789abcdef, 0xfedcba9876543210 },
		.inputs = { .compiler = t("b:1234 b:5678"),
			    .environment = t("NVRTC_APPEND_FLAGS=-G\n"),
			    .name = t("k.cu"),
			    .options = options,
			    .n_options = 2,
			    .expressions = expressions,
			    .n_expressions = 2,
			    .source_bytes = 100,
			    .source_digest = { 3, 4 },
			    .headers_bytes = 50,
			    .n_headers = 2,
			    .headers_digest = { 5, 6 } },
		.deps = encode(3),
		.lowered = lowered,
		.outputs = { t("ptx"), { "cu\0bin", 6 }, t(""), t("") },
		.log = t("warning: x\n"),
	};
}

static void assert_text(struct warm_kernel_text got, struct warm_kernel_text want)
{
	assert_int_equal(got.bytes, want.bytes);
	assert_memory_equal(got.data, want.data, want.bytes);
	assert_int_equal(got.data[got.bytes], 0);
}

TEST(an_entry_is_read_back_as_it_was_written)
{
	struct warm_kernel_entry e = sound(), x;
	struct warm_buf b = WARM_BUF_INIT;

	warm_kernel_entry_encode(&e, &b);
	assert_false(b.failed);
	assert_int_equal(warm_kernel_entry_parse(b.data, b.bytes, &x, NULL), 0);
	assert_true(x.fingerprint.low == e.fingerprint.low &&
		    x.fingerprint.high == e.fingerprint.high);
	assert_true(warm_kernel_inputs_equal(&x.inputs, &e.inputs));
	assert_int_equal(x.deps.n, 3);
	struct warm_reader r = warm_reader_of(x.deps.data, x.deps.bytes);
	struct warm_kernel_dep dep;
	for (size_t i = 0; i < 3; i++) {
		assert_true(warm_kernel_next_dep(&r, &dep));
		assert_int_equal(dep.kind, deps[i].kind);
		assert_int_equal(dep.relative, deps[i].relative);
		assert_int_equal(dep.size, deps[i].size);
		assert_true(dep.digest.high == deps[i].digest.high);
		assert_text(dep.path, deps[i].path);
	}
	assert_false(warm_kernel_next_dep(&r, &dep));
	assert_false(r.bad);
	for (size_t i = 0; i < 2; i++)
		assert_text(x.lowered[i], e.lowered[i]);
	for (size_t i = 0; i < WARM_KERNEL_OUTPUTS; i++)
		assert_text(x.outputs[i], e.outputs[i]);
	assert_text(x.log, e.log);
	warm_kernel_entry_release(&x);
	warm_buf_release(&b);
}

TEST(an_entry_without_anything_is_read_back)
{
	struct warm_kernel_entry e = { 0 }, x;
	struct warm_buf b = WARM_BUF_INIT;

	warm_kernel_entry_encode(&e, &b);
	assert_int_equal(warm_kernel_entry_parse(b.data, b.bytes, &x, NULL), 0);
	assert_int_equal(x.inputs.n_options, 0);
	assert_int_equal(x.deps.n, 0);
	warm_kernel_entry_release(&x);
	warm_buf_release(&b);
}

TEST(a_cut_or_flipped_entry_is_no_entry)
{
	struct warm_kernel_entry e = sound(), x;
	struct warm_buf b = WARM_BUF_INIT;

	warm_kernel_entry_encode(&e, &b);
	for (size_t n = 0; n < b.bytes; n++) {
		uint8_t *exact = malloc(n + (n == 0));
		assert_non_null(exact);
		memcpy(exact, b.data, n);
		assert_int_equal(warm_kernel_entry_parse(exact, n, &x, NULL), WARM_CORRUPT);
		free(exact);
		b.data[n] ^= 4;
		assert_int_equal(warm_kernel_entry_parse(b.data, b.bytes, &x, NULL), WARM_CORRUPT);
		b.data[n] ^= 4;
	}
	warm_buf_put_u8(&b, 0);
	assert_int_equal(warm_kernel_entry_parse(b.data, b.bytes, &x, NULL), WARM_CORRUPT);
	warm_buf_release(&b);
}

/* The checksum is not the only guard: a writer with a bug must not harm a reader. */
TEST(an_entry_that_lies_under_a_right_checksum_does_no_harm)
{
	struct warm_kernel_entry e = sound(), x;
	struct warm_buf b = WARM_BUF_INIT;

	warm_kernel_entry_encode(&e, &b);
	for (uint64_t seed = 0; seed < 20000; seed++) {
		struct dice d = { seed };
		size_t bytes = b.bytes - roll_below(&d, 5) % 3;
		uint8_t *copy = malloc(bytes);
		assert_non_null(copy);
		memcpy(copy, b.data, bytes);
		for (uint64_t n = 1 + roll_below(&d, 3); n > 0; n--)
			copy[8 + roll_below(&d, bytes - 24)] = (uint8_t)roll(&d);
		struct warm_hash128 sum = warm_hash128(copy, bytes - 16);
		for (int i = 0; i < 8; i++) {
			copy[bytes - 16 + (size_t)i] = (uint8_t)(sum.low >> (8 * i));
			copy[bytes - 8 + (size_t)i] = (uint8_t)(sum.high >> (8 * i));
		}
		if (warm_kernel_entry_parse(copy, bytes, &x, NULL) == 0) {
			for (size_t i = 0; i < x.inputs.n_options; i++)
				assert_true(x.inputs.options[i].data[x.inputs.options[i].bytes] ==
					    0);
			warm_kernel_entry_release(&x);
		}
		free(copy);
	}
	warm_buf_release(&b);
}

TEST(each_input_changes_the_fingerprint)
{
	struct warm_hasher *h = warm_hasher_new();
	struct warm_kernel_entry e = sound();
	struct warm_kernel_inputs changed[14];
	struct warm_hash128 seen[15];
	static struct warm_kernel_text more[2], split[2];
	size_t n = 0;

	assert_non_null(h);
	for (size_t i = 0; i < COUNT(changed); i++)
		changed[i] = e.inputs;
	changed[n++].compiler = t("b:1235 b:5678");
	changed[n++].environment = t("");
	changed[n++].name = t("l.cu");
	changed[n++].n_options = 1;
	more[0] = options[1];
	more[1] = options[0];
	changed[n++].options = more; /* their order counts */
	split[0] = t("-arch=sm_90-");
	split[1] = t("DX=\"a b\"");
	changed[n++].options = split; /* and where they end */
	changed[n++].n_expressions = 1;
	changed[n++].source_bytes++;
	changed[n++].source_digest.low++;
	changed[n++].source_digest.high++;
	changed[n++].n_headers++;
	changed[n++].headers_digest.low++;
	changed[n++].headers_digest.high++;
	seen[0] = warm_kernel_fingerprint(&e.inputs, h);
	for (size_t i = 0; i < n; i++) {
		seen[i + 1] = warm_kernel_fingerprint(&changed[i], h);
		for (size_t k = 0; k <= i; k++)
			assert_false(seen[k].low == seen[i + 1].low &&
				     seen[k].high == seen[i + 1].high);
		assert_false(warm_kernel_inputs_equal(&e.inputs, &changed[i]));
	}
	struct warm_hash128 again = warm_kernel_fingerprint(&e.inputs, h);
	assert_true(again.low == seen[0].low && again.high == seen[0].high);
	warm_hasher_free(h);
}

TEST(each_part_of_a_dependency_changes_the_digest)
{
	struct warm_hasher *h = warm_hasher_new();

	assert_non_null(h);
	(void)sound();
	struct warm_hash128 first = warm_kernel_deps_digest(encode(3));
	for (int i = 0; i < 7; i++) {
		(void)sound();
		if (i == 0)
			deps[0].kind = WARM_KERNEL_DEP_DIR;
		else if (i == 1)
			deps[0].relative = false;
		else if (i == 2)
			deps[0].path = t("inc/b.h");
		else if (i == 3)
			deps[0].size++;
		else if (i == 4)
			deps[0].digest.high++;
		else if (i == 6)
			deps[0].twin = 1;
		struct warm_hash128 other = warm_kernel_deps_digest(encode(i == 5 ? 2 : 3));
		assert_false(other.low == first.low && other.high == first.high);
	}
	warm_hasher_free(h);
}

TEST(paths_of_entries_are_those_that_the_profile_publishes)
{
	struct warm_hash128 fingerprint = { 0x0123456789abcdef, 0xfedcba9876543210 },
			    digest = { 1, 2 };
	struct warm_place place;
	char path[128];

	warm_kernel_entry_path(fingerprint, NULL, path);
	assert_string_equal(path, "nvrtc/v1/fe/fedcba98765432100123456789abcdef");
	warm_profile_place(NULL, path, &place);
	assert_true(place.packed);
	assert_int_equal(place.profile, WARM_PROFILE_NVRTC);
	warm_kernel_entry_path(fingerprint, &digest, path);
	assert_string_equal(path, "nvrtc/v1/fe/fedcba98765432100123456789abcdef.d/"
				  "00000000000000020000000000000001");
	warm_profile_place(NULL, path, &place);
	assert_true(place.packed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_entry_is_read_back_as_it_was_written),
		cmocka_unit_test(an_entry_without_anything_is_read_back),
		cmocka_unit_test(a_cut_or_flipped_entry_is_no_entry),
		cmocka_unit_test(an_entry_that_lies_under_a_right_checksum_does_no_harm),
		cmocka_unit_test(each_input_changes_the_fingerprint),
		cmocka_unit_test(each_part_of_a_dependency_changes_the_digest),
		cmocka_unit_test(paths_of_entries_are_those_that_the_profile_publishes),
	};

	return RUN(tests);
}
