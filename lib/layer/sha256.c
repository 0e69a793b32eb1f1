/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/layer/sha256.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdbool.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool usable;

/* libcrypto 3.0 does this at its first use, and dies of a lack of memory in there. */
static void start_libcrypto(void)
{
	usable = OPENSSL_init_crypto(0, NULL) == 1;
}

int warm_sha256(const void *data, size_t bytes, uint8_t ret_digest[32], struct warm_error *err)
{
	pthread_once(&once, start_libcrypto);
	if (!usable || EVP_Digest(data, bytes, ret_digest, NULL, EVP_sha256(), NULL) != 1)
		return warm_error_set(err, WARM_NO_MEMORY, "libcrypto can't make a SHA-256");
	return 0;
}
