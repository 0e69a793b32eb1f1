/* SPDX-License-Identifier: Apache-2.0 */
/* Between hash.c and hash_avx2.c. */
#ifndef WARM_BASE_HASH_AVX2_H
#define WARM_BASE_HASH_AVX2_H

#include <stddef.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#if defined(__x86_64__)
#define WARM_HASH_AVX2 1
XXH128_hash_t warm_xxh128_avx2(const void *data, size_t bytes);
void warm_xxh_update_avx2(XXH3_state_t *state, const void *data, size_t bytes);
#else
#define WARM_HASH_AVX2 0
#endif

#endif
