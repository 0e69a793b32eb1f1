/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/hash.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/hash_avx2.h"

#if WARM_HASH_AVX2
#include <cpuid.h>
#endif

enum { LONG_BYTES = 1024 }; /* below, the call costs more than the vectors win */

#if WARM_HASH_AVX2
/* By hand: __builtin_cpu_supports() brings a constructor, and this is part of what LD_PRELOAD puts
 * into every process. */
static bool cpu_has_avx2(void)
{
	enum { LEAF_1_OSXSAVE_AVX = 3 << 27, LEAF_7_AVX2 = 1 << 5, XMM_AND_YMM = 6 };
	unsigned a, b, c, d, low, high;

	if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & LEAF_1_OSXSAVE_AVX) != LEAF_1_OSXSAVE_AVX)
		return false;
	/* Does the system keep the registers? */
	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (low & XMM_AND_YMM) == XMM_AND_YMM && __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 &&
	       (b & LEAF_7_AVX2) != 0;
}

static bool has_avx2(size_t bytes)
{
	static _Atomic int known; /* 0: not yet; 1: no; 2: yes */

	if (bytes < LONG_BYTES)
		return false;
	if (known == 0)
		known = cpu_has_avx2() ? 2 : 1;
	return known == 2;
}
#endif

struct warm_hasher {
	XXH3_state_t state;
};

uint64_t warm_hash64(const void *data, size_t bytes)
{
	return XXH3_64bits(data, bytes);
}

struct warm_hash128 warm_hash128(const void *data, size_t bytes)
{
#if WARM_HASH_AVX2
	XXH128_hash_t h = has_avx2(bytes) ? warm_xxh128_avx2(data, bytes)
					  : XXH3_128bits(data, bytes);
#else
	XXH128_hash_t h = XXH3_128bits(data, bytes);
#endif

	return (struct warm_hash128){ h.low64, h.high64 };
}

struct warm_hasher *warm_hasher_new(void)
{
	struct warm_hasher *h = aligned_alloc(64, (sizeof(*h) + 63) / 64 * 64);

	if (h != NULL)
		XXH3_128bits_reset(&h->state);
	return h;
}

void warm_hasher_free(struct warm_hasher *h)
{
	free(h);
}

void warm_hasher_reset(struct warm_hasher *h)
{
	XXH3_128bits_reset(&h->state);
}

void warm_hasher_add(struct warm_hasher *h, const void *data, size_t bytes)
{
#if WARM_HASH_AVX2
	if (has_avx2(bytes)) {
		warm_xxh_update_avx2(&h->state, data, bytes);
		return;
	}
#endif
	if (bytes != 0)
		XXH3_128bits_update(&h->state, data, bytes);
}

void warm_hasher_add_field(struct warm_hasher *h, const void *data, size_t bytes)
{
	uint64_t length = bytes;

	warm_hasher_add(h, &length, sizeof(length));
	warm_hasher_add(h, data, bytes);
}

struct warm_hash128 warm_hasher_digest(const struct warm_hasher *h)
{
	XXH128_hash_t d = XXH3_128bits_digest(&h->state);

	return (struct warm_hash128){ d.low64, d.high64 };
}

void warm_hex(const uint8_t *data, size_t bytes, char *ret_hex)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < bytes; i++) {
		ret_hex[2 * i] = digits[data[i] >> 4];
		ret_hex[2 * i + 1] = digits[data[i] & 15];
	}
	ret_hex[2 * bytes] = '\0';
}

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

int warm_unhex(const char *hex, size_t hex_bytes, uint8_t *ret_data, size_t bytes)
{
	if (hex_bytes != 2 * bytes)
		return -1;
	for (size_t i = 0; i < bytes; i++) {
		int high = digit(hex[2 * i]), low = digit(hex[2 * i + 1]);
		if (high < 0 || low < 0)
			return -1;
		ret_data[i] = (uint8_t)(high << 4 | low);
	}
	return 0;
}

void warm_hash128_hex(struct warm_hash128 h, char ret_hex[33])
{
	uint8_t be[16];

	for (int i = 0; i < 8; i++) {
		be[i] = (uint8_t)(h.high >> (56 - 8 * i));
		be[8 + i] = (uint8_t)(h.low >> (56 - 8 * i));
	}
	warm_hex(be, sizeof(be), ret_hex);
}

void warm_random(void *ret_data, size_t bytes)
{
	uint8_t *p = ret_data;

	if (getrandom(ret_data, bytes, GRND_NONBLOCK) == (ssize_t)bytes)
		return;
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	uint64_t seed[3] = { (uint64_t)ts.tv_nsec, (uint64_t)ts.tv_sec, (uint64_t)getpid() };
	for (size_t i = 0; i < bytes; i++) {
		seed[0] = XXH3_64bits(seed, sizeof(seed));
		p[i] = (uint8_t)seed[0];
	}
}
