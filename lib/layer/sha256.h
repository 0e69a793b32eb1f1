/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 by libcrypto. Errors: NO_MEMORY alone. Threads: any number.
 */
#ifndef WARM_LAYER_SHA256_H
#define WARM_LAYER_SHA256_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/error.h"

int warm_sha256(const void *data, size_t bytes, uint8_t ret_digest[32],
		struct warm_error *err) WARM_CHECKED;

#endif
