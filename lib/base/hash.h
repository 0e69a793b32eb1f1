/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XXH3, inlined so that nothing but libc is linked, and hexadecimal text.
 * Not for anything that an attacker may choose: layers use SHA-256 (lib/layer/sha256.h).
 */
#ifndef WARM_BASE_HASH_H
#define WARM_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

struct warm_hash128 {
	uint64_t low, high;
};

uint64_t warm_hash64(const void *data, size_t bytes);
struct warm_hash128 warm_hash128(const void *data, size_t bytes);

/* Streaming XXH3-128. `_new` returns NULL when out of memory. */
struct warm_hasher;
struct warm_hasher *warm_hasher_new(void);
void warm_hasher_free(struct warm_hasher *h);
void warm_hasher_reset(struct warm_hasher *h);
void warm_hasher_add(struct warm_hasher *h, const void *data, size_t bytes);
/* Add a field as its length (8 bytes) and its bytes: no two field lists give one stream. */
void warm_hasher_add_field(struct warm_hasher *h, const void *data, size_t bytes);
struct warm_hash128 warm_hasher_digest(const struct warm_hasher *h);

/* 2 * bytes lower-case digits and a NUL into `ret_hex`. */
void warm_hex(const uint8_t *data, size_t bytes, char *ret_hex);
/* 0, or -1 when `hex` is not exactly 2 * bytes lower-case digits. */
int warm_unhex(const char *hex, size_t hex_bytes, uint8_t *ret_data, size_t bytes);

/* High half first, as the usual canonical form; 33 bytes with the NUL. */
void warm_hash128_hex(struct warm_hash128 h, char ret_hex[33]);

/* Random bytes of the kernel, for names; never fails (falls back on clock and pid). */
void warm_random(void *ret_data, size_t bytes);

#endif
