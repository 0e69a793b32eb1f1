/* SPDX-License-Identifier: Apache-2.0 */
/* XXH3 for CPUs with AVX2: this file alone is compiled for them (Makefile). The digests are the
 * same. */
#include "lib/base/hash_avx2.h"

#if WARM_HASH_AVX2
#ifndef __AVX2__
#error "compile this with -mavx2"
#endif

XXH128_hash_t warm_xxh128_avx2(const void *data, size_t bytes)
{
	return XXH3_128bits(data, bytes);
}

void warm_xxh_update_avx2(XXH3_state_t *state, const void *data, size_t bytes)
{
	XXH3_128bits_update(state, data, bytes);
}
#endif
