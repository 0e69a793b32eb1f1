/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void warm_buf_release(struct warm_buf *buf)
{
	free(buf->data);
	*buf = (struct warm_buf)WARM_BUF_INIT;
}

static bool reserve(struct warm_buf *buf, size_t more)
{
	if (buf->failed)
		return false;
	if (more <= buf->capacity_bytes - buf->bytes)
		return true;
	size_t capacity = buf->capacity_bytes == 0 ? 256 : buf->capacity_bytes;
	while (capacity - buf->bytes < more) {
		if (capacity > SIZE_MAX / 2) {
			buf->failed = true;
			return false;
		}
		capacity *= 2;
	}
	uint8_t *data = realloc(buf->data, capacity);
	if (data == NULL) {
		buf->failed = true;
		return false;
	}
	buf->data = data;
	buf->capacity_bytes = capacity;
	return true;
}

void warm_buf_put(struct warm_buf *buf, const void *data, size_t bytes)
{
	if (bytes == 0 || !reserve(buf, bytes))
		return;
	memcpy(buf->data + buf->bytes, data, bytes);
	buf->bytes += bytes;
}

static void put_le(struct warm_buf *buf, uint64_t v, size_t bytes)
{
	uint8_t le[8];

	for (size_t i = 0; i < bytes; i++)
		le[i] = (uint8_t)(v >> (8 * i));
	warm_buf_put(buf, le, bytes);
}

void warm_buf_put_u8(struct warm_buf *buf, uint8_t v)
{
	put_le(buf, v, 1);
}

void warm_buf_put_u16(struct warm_buf *buf, uint16_t v)
{
	put_le(buf, v, 2);
}

void warm_buf_put_u32(struct warm_buf *buf, uint32_t v)
{
	put_le(buf, v, 4);
}

void warm_buf_put_u64(struct warm_buf *buf, uint64_t v)
{
	put_le(buf, v, 8);
}

void warm_buf_put_uv(struct warm_buf *buf, uint64_t v)
{
	uint8_t out[10];
	size_t n = 0;

	do {
		out[n] = (uint8_t)(v & 0x7f);
		v >>= 7;
		if (v != 0)
			out[n] |= 0x80;
		n++;
	} while (v != 0);
	warm_buf_put(buf, out, n);
}

void warm_buf_put_str(struct warm_buf *buf, const char *s)
{
	size_t bytes = strlen(s);

	warm_buf_put_uv(buf, bytes);
	warm_buf_put(buf, s, bytes);
}

void warm_buf_put_text(struct warm_buf *buf, const char *data, size_t bytes)
{
	warm_buf_put_uv(buf, bytes);
	warm_buf_put(buf, data, bytes);
	warm_buf_put_u8(buf, 0);
}

void warm_buf_printf(struct warm_buf *buf, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0 || !reserve(buf, (size_t)n + 1))
		return;
	va_start(ap, fmt);
	vsnprintf((char *)buf->data + buf->bytes, (size_t)n + 1, fmt, ap);
	va_end(ap);
	buf->bytes += (size_t)n;
}

const uint8_t *warm_reader_take(struct warm_reader *r, size_t bytes)
{
	if (r->bad || bytes > r->bytes - r->at) {
		r->bad = true;
		return NULL;
	}
	const uint8_t *p = r->data + r->at;
	r->at += bytes;
	return p;
}

static uint64_t take_le(struct warm_reader *r, size_t bytes)
{
	const uint8_t *p = warm_reader_take(r, bytes);
	uint64_t v = 0;

	if (p == NULL)
		return 0;
	for (size_t i = 0; i < bytes; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

uint8_t warm_reader_u8(struct warm_reader *r)
{
	return (uint8_t)take_le(r, 1);
}

uint16_t warm_reader_u16(struct warm_reader *r)
{
	return (uint16_t)take_le(r, 2);
}

uint32_t warm_reader_u32(struct warm_reader *r)
{
	return (uint32_t)take_le(r, 4);
}

uint64_t warm_reader_u64(struct warm_reader *r)
{
	return take_le(r, 8);
}

uint64_t warm_reader_uv(struct warm_reader *r)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 64; shift += 7) {
		const uint8_t *p = warm_reader_take(r, 1);
		if (p == NULL)
			return 0;
		if (shift == 63 && *p > 1)
			break;
		v |= (uint64_t)(*p & 0x7f) << shift;
		if ((*p & 0x80) == 0)
			return v;
	}
	r->bad = true;
	return 0;
}

size_t warm_reader_count(struct warm_reader *r, size_t min_bytes)
{
	uint64_t n = warm_reader_uv(r);

	if (r->bad || n > (r->bytes - r->at) / min_bytes) {
		r->bad = true;
		return 0;
	}
	return (size_t)n;
}

const char *warm_reader_str(struct warm_reader *r, size_t max_bytes, size_t *ret_bytes)
{
	uint64_t n = warm_reader_uv(r);

	*ret_bytes = 0;
	if (r->bad || n > max_bytes) {
		r->bad = true;
		return "";
	}
	const uint8_t *p = warm_reader_take(r, (size_t)n);
	if (p == NULL || memchr(p, 0, (size_t)n) != NULL) {
		r->bad = true;
		return "";
	}
	*ret_bytes = (size_t)n;
	return (const char *)p;
}

const char *warm_reader_text(struct warm_reader *r, size_t *ret_bytes)
{
	uint64_t n = warm_reader_uv(r);
	const uint8_t *p = NULL;

	*ret_bytes = 0;
	if (!r->bad && n < r->bytes - r->at)
		p = warm_reader_take(r, (size_t)n + 1);
	if (p == NULL || p[n] != 0) {
		r->bad = true;
		return "";
	}
	*ret_bytes = (size_t)n;
	return (const char *)p;
}
