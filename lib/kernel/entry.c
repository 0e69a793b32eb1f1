/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/kernel/entry.h"

#include <stdio.h>
#include <string.h>

static const char entry_magic[8] = { 'w', 'a', 'r', 'm', 'k', 'r', 'n', '1' };

enum { FIXED_BYTES = 8 + 16, SUM_BYTES = 16, DEP_BYTES = 22 };

static void put_hash(struct warm_buf *out, struct warm_hash128 h)
{
	warm_buf_put_u64(out, h.low);
	warm_buf_put_u64(out, h.high);
}

static struct warm_hash128 take_hash(struct warm_reader *r)
{
	struct warm_hash128 h;

	h.low = warm_reader_u64(r);
	h.high = warm_reader_u64(r);
	return h;
}

static bool hash_equal(struct warm_hash128 a, struct warm_hash128 b)
{
	return a.low == b.low && a.high == b.high;
}

static bool text_equal(struct warm_kernel_text a, struct warm_kernel_text b)
{
	return a.bytes == b.bytes && memcmp(a.data, b.data, a.bytes) == 0;
}

void warm_kernel_put_text(struct warm_buf *out, struct warm_kernel_text text)
{
	warm_buf_put_text(out, text.data, text.bytes);
}

struct warm_kernel_text warm_kernel_take_text(struct warm_reader *r)
{
	struct warm_kernel_text t;

	t.data = warm_reader_text(r, &t.bytes);
	return t;
}

void warm_kernel_encode_dep(struct warm_buf *out, const struct warm_kernel_dep *dep)
{
	warm_buf_put_u8(out, (uint8_t)dep->kind);
	warm_buf_put_u8(out, dep->relative);
	warm_kernel_put_text(out, dep->path);
	warm_buf_put_uv(out, dep->size);
	put_hash(out, dep->digest);
	warm_buf_put_uv(out, dep->twin);
}

bool warm_kernel_next_dep(struct warm_reader *r, struct warm_kernel_dep *ret_dep)
{
	if (r->bad || r->at == r->bytes)
		return false;
	uint8_t kind = warm_reader_u8(r);
	r->bad = r->bad || kind > WARM_KERNEL_DEP_APART;
	ret_dep->kind = (enum warm_kernel_dep_kind)kind;
	ret_dep->relative = warm_reader_u8(r) != 0;
	ret_dep->path = warm_kernel_take_text(r);
	ret_dep->size = warm_reader_uv(r);
	ret_dep->digest = take_hash(r);
	uint64_t twin = warm_reader_uv(r);
	r->bad = r->bad || twin > UINT32_MAX;
	ret_dep->twin = (uint32_t)twin;
	return !r->bad;
}

void warm_kernel_put_deps(struct warm_buf *out, struct warm_kernel_deps deps)
{
	warm_buf_put_uv(out, deps.n);
	warm_buf_put_uv(out, deps.bytes);
	warm_buf_put(out, deps.data, deps.bytes);
}

struct warm_kernel_deps warm_kernel_take_deps(struct warm_reader *r)
{
	struct warm_kernel_deps deps;

	deps.n = warm_reader_count(r, DEP_BYTES);
	deps.bytes = (size_t)warm_reader_uv(r);
	deps.data = warm_reader_take(r, deps.bytes);
	r->bad = r->bad || (deps.n == 0) != (deps.bytes == 0);
	return r->bad ? (struct warm_kernel_deps){ NULL, 0, 0 } : deps;
}

struct warm_hash128 warm_kernel_fingerprint(const struct warm_kernel_inputs *in,
					    struct warm_hasher *h)
{
	uint64_t numbers[9] = {
		1, /* of this scheme */
		in->n_options,
		in->n_expressions,
		in->source_bytes,
		in->source_digest.low,
		in->source_digest.high,
		in->n_headers,
		in->headers_digest.low,
		in->headers_digest.high,
	};

	warm_hasher_reset(h);
	warm_hasher_add(h, numbers, sizeof(numbers));
	warm_hasher_add_field(h, in->compiler.data, in->compiler.bytes);
	warm_hasher_add_field(h, in->environment.data, in->environment.bytes);
	warm_hasher_add_field(h, in->name.data, in->name.bytes);
	for (size_t i = 0; i < in->n_options; i++)
		warm_hasher_add_field(h, in->options[i].data, in->options[i].bytes);
	for (size_t i = 0; i < in->n_expressions; i++)
		warm_hasher_add_field(h, in->expressions[i].data, in->expressions[i].bytes);
	return warm_hasher_digest(h);
}

bool warm_kernel_inputs_equal(const struct warm_kernel_inputs *a,
			      const struct warm_kernel_inputs *b)
{
	if (!text_equal(a->compiler, b->compiler) || !text_equal(a->environment, b->environment) ||
	    !text_equal(a->name, b->name) || a->n_options != b->n_options ||
	    a->n_expressions != b->n_expressions || a->source_bytes != b->source_bytes ||
	    !hash_equal(a->source_digest, b->source_digest) ||
	    a->headers_bytes != b->headers_bytes || a->n_headers != b->n_headers ||
	    !hash_equal(a->headers_digest, b->headers_digest))
		return false;
	for (size_t i = 0; i < a->n_options; i++)
		if (!text_equal(a->options[i], b->options[i]))
			return false;
	for (size_t i = 0; i < a->n_expressions; i++)
		if (!text_equal(a->expressions[i], b->expressions[i]))
			return false;
	return true;
}

struct warm_hash128 warm_kernel_deps_digest(struct warm_kernel_deps deps)
{
	return warm_hash128(deps.data, deps.bytes);
}

void warm_kernel_put_inputs(struct warm_buf *out, const struct warm_kernel_inputs *in)
{
	warm_kernel_put_text(out, in->compiler);
	warm_kernel_put_text(out, in->environment);
	warm_kernel_put_text(out, in->name);
	warm_buf_put_uv(out, in->n_options);
	for (size_t i = 0; i < in->n_options; i++)
		warm_kernel_put_text(out, in->options[i]);
	warm_buf_put_uv(out, in->n_expressions);
	for (size_t i = 0; i < in->n_expressions; i++)
		warm_kernel_put_text(out, in->expressions[i]);
	warm_buf_put_uv(out, in->source_bytes);
	put_hash(out, in->source_digest);
	warm_buf_put_uv(out, in->headers_bytes);
	warm_buf_put_uv(out, in->n_headers);
	put_hash(out, in->headers_digest);
}

void warm_kernel_inputs_release(struct warm_kernel_inputs *in)
{
	free((void *)(uintptr_t)in->options);
	free((void *)(uintptr_t)in->expressions);
	*in = (struct warm_kernel_inputs){ 0 };
}

void warm_kernel_entry_encode(const struct warm_kernel_entry *e, struct warm_buf *out)
{
	size_t start = out->bytes;

	warm_buf_put(out, entry_magic, sizeof(entry_magic));
	put_hash(out, e->fingerprint);
	warm_kernel_put_inputs(out, &e->inputs);
	for (size_t i = 0; i < e->inputs.n_expressions; i++)
		warm_kernel_put_text(out, e->lowered[i]);
	warm_kernel_put_deps(out, e->deps);
	for (int k = 0; k < WARM_KERNEL_OUTPUTS; k++)
		warm_kernel_put_text(out, e->outputs[k]);
	warm_kernel_put_text(out, e->log);
	if (!out->failed)
		put_hash(out, warm_hash128(out->data + start, out->bytes - start));
}

void warm_kernel_entry_release(struct warm_kernel_entry *entry)
{
	warm_kernel_inputs_release(&entry->inputs);
	free(entry->lowered);
	*entry = (struct warm_kernel_entry){ 0 };
}

/* NULL when there are none, or no memory. */
static struct warm_kernel_text *take_texts(struct warm_reader *r, size_t n)
{
	struct warm_kernel_text *texts = n > 0 ? calloc(n, sizeof(*texts)) : NULL;

	for (size_t i = 0; texts != NULL && i < n; i++)
		texts[i] = warm_kernel_take_text(r);
	return texts;
}

int warm_kernel_take_inputs(struct warm_reader *r, struct warm_kernel_inputs *ret_inputs)
{
	struct warm_kernel_inputs in = { 0 };

	in.compiler = warm_kernel_take_text(r);
	in.environment = warm_kernel_take_text(r);
	in.name = warm_kernel_take_text(r);
	in.n_options = warm_reader_count(r, 2);
	in.options = take_texts(r, in.n_options);
	in.n_expressions = warm_reader_count(r, 2);
	in.expressions = take_texts(r, in.n_expressions);
	in.source_bytes = warm_reader_uv(r);
	in.source_digest = take_hash(r);
	in.headers_bytes = warm_reader_uv(r);
	in.n_headers = (uint32_t)warm_reader_uv(r);
	in.headers_digest = take_hash(r);
	if ((in.n_options > 0 && in.options == NULL) ||
	    (in.n_expressions > 0 && in.expressions == NULL)) {
		warm_kernel_inputs_release(&in);
		return WARM_NO_MEMORY;
	}
	*ret_inputs = in;
	return 0;
}

static int parse_body(struct warm_reader *r, struct warm_kernel_entry *e)
{
	if (warm_kernel_take_inputs(r, &e->inputs) != 0)
		return WARM_NO_MEMORY;
	size_t n = e->inputs.n_expressions;
	e->lowered = take_texts(r, n);
	if (n > 0 && e->lowered == NULL)
		return WARM_NO_MEMORY;
	e->deps = warm_kernel_take_deps(r);
	for (int k = 0; k < WARM_KERNEL_OUTPUTS; k++)
		e->outputs[k] = warm_kernel_take_text(r);
	e->log = warm_kernel_take_text(r);
	return r->bad || r->at != r->bytes ? WARM_CORRUPT : 0;
}

int warm_kernel_entry_parse(const void *data, size_t bytes, struct warm_kernel_entry *ret_entry,
			    struct warm_error *err)
{
	struct warm_kernel_entry e = { 0 };

	if (bytes < FIXED_BYTES + SUM_BYTES || memcmp(data, entry_magic, sizeof(entry_magic)) != 0)
		return warm_error_set(err, WARM_CORRUPT, "no kernel entry of this version");
	struct warm_reader sum = warm_reader_of((const uint8_t *)data + bytes - SUM_BYTES,
						SUM_BYTES);
	if (!hash_equal(take_hash(&sum), warm_hash128(data, bytes - SUM_BYTES)))
		return warm_error_set(err, WARM_CORRUPT, "the kernel entry's checksum is wrong");
	struct warm_reader r = warm_reader_of(data, bytes - SUM_BYTES);
	r.at = sizeof(entry_magic);
	e.fingerprint = take_hash(&r);
	int rc = parse_body(&r, &e);
	if (rc != 0) {
		warm_kernel_entry_release(&e);
		return rc == WARM_NO_MEMORY
			       ? warm_error_nomem(err, bytes)
			       : warm_error_set(err, WARM_CORRUPT, "the kernel entry is malformed");
	}
	*ret_entry = e;
	return 0;
}

void warm_kernel_entry_path(struct warm_hash128 fingerprint, const struct warm_hash128 *deps,
			    char ret_path[128])
{
	char hex[33], variant[33] = "";

	warm_hash128_hex(fingerprint, hex);
	if (deps != NULL)
		warm_hash128_hex(*deps, variant);
	snprintf(ret_path, 128, WARM_KERNEL_DIR "/%.2s/%s%s%s", hex, hex, deps != NULL ? ".d/" : "",
		 variant);
}
