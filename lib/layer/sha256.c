/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/layer/sha256.h"

#include <openssl/evp.h>

int warm_sha256(const void *data, size_t bytes, uint8_t ret_digest[32], struct warm_error *err)
{
	if (EVP_Digest(data, bytes, ret_digest, NULL, EVP_sha256(), NULL) != 1)
		return warm_error_set(err, WARM_NO_MEMORY, "libcrypto can't make a SHA-256");
	return 0;
}
