/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Growing byte buffer and bounded reader for our binary formats.
 *
 * Integers are little-endian; counts and lengths are LEB128 ("uv"); a string is its length as uv
 * and its bytes. The reader never reads past its end: the first short or overlong read makes it
 * `bad`, and everything after returns zero, so that a parser checks once at the end of a record.
 *
 * Threads: none of its own.
 */
#ifndef WARM_BASE_BUF_H
#define WARM_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/error.h"

struct warm_buf {
	uint8_t *data;
	size_t bytes;
	size_t capacity_bytes;
	bool failed; /* an allocation failed: the contents are incomplete */
};

#define WARM_BUF_INIT             \
	{                         \
		NULL, 0, 0, false \
	}

void warm_buf_release(struct warm_buf *buf);
#define scope_buf WARM_SCOPE(warm_buf_release)

/* Append; on lack of memory `failed` is set and stays set. */
void warm_buf_put(struct warm_buf *buf, const void *data, size_t bytes);
void warm_buf_put_u8(struct warm_buf *buf, uint8_t v);
void warm_buf_put_u16(struct warm_buf *buf, uint16_t v);
void warm_buf_put_u32(struct warm_buf *buf, uint32_t v);
void warm_buf_put_u64(struct warm_buf *buf, uint64_t v);
void warm_buf_put_uv(struct warm_buf *buf, uint64_t v);
void warm_buf_put_str(struct warm_buf *buf, const char *s);
/* Length, bytes and a NUL, so that a view of it is a C string. */
void warm_buf_put_text(struct warm_buf *buf, const char *data, size_t bytes);
void warm_buf_printf(struct warm_buf *buf, const char *fmt, ...) WARM_PRINTF(2, 3);

struct warm_reader {
	const uint8_t *data;
	size_t bytes;
	size_t at;
	bool bad;
};

static inline struct warm_reader warm_reader_of(const void *data, size_t bytes)
{
	return (struct warm_reader){ .data = data, .bytes = bytes };
}

const uint8_t *warm_reader_take(struct warm_reader *r, size_t bytes); /* NULL when short */
uint8_t warm_reader_u8(struct warm_reader *r);
uint16_t warm_reader_u16(struct warm_reader *r);
uint32_t warm_reader_u32(struct warm_reader *r);
uint64_t warm_reader_u64(struct warm_reader *r);
uint64_t warm_reader_uv(struct warm_reader *r);
/* A count of things that take at least `min_bytes` each: bad when the rest can't hold them. */
size_t warm_reader_count(struct warm_reader *r, size_t min_bytes);
/* A string without NUL of at most `max_bytes`, as a view (not terminated). */
const char *warm_reader_str(struct warm_reader *r, size_t max_bytes, size_t *ret_bytes);

/* What warm_buf_put_text() wrote, as a view; "" and bad when it is malformed. */
const char *warm_reader_text(struct warm_reader *r, size_t *ret_bytes);

#endif
