/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AWS Signature Version 4, by headers.
 *
 * Threads: pure functions.
 * Source: "Create a signed AWS API request", AWS Identity and Access Management's user guide; its
 * published vectors are in tests/unit/test_sigv4.c.
 */
#ifndef WARM_STORE_SIGV4_H
#define WARM_STORE_SIGV4_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/error.h"

#define WARM_SIGV4_UNSIGNED "UNSIGNED-PAYLOAD"
#define WARM_SHA256_HEX_BYTES 65

struct warm_sigv4 {
	const char *key_id, *secret;
	const char *region, *service;
	int64_t now_ms; /* since 1970 */
	const char *method;
	const char *path;	    /* as it is sent, encoded once */
	const char *query;	    /* as it is sent, encoded, in any order; "" for none */
	const char *const *headers; /* "name: value", all of them to be signed, host among them */
	size_t n_headers;
	const char *payload; /* SHA-256 of the body in hex, or WARM_SIGV4_UNSIGNED */
};

/* "20130524T000000Z", for the x-amz-date header; 17 bytes with the NUL. */
void warm_sigv4_date(int64_t now_ms, char ret_date[17]);

/* Append the value of the Authorization header to `ret_value`. NO_MEMORY. */
int warm_sigv4_sign(const struct warm_sigv4 *request, struct warm_buf *ret_value,
		    struct warm_error *err) WARM_CHECKED;

/* SHA-256 in hex, of memory or of the first `bytes` of a file. */
void warm_sha256_hex(const void *data, size_t bytes, char ret_hex[WARM_SHA256_HEX_BYTES]);
int warm_sha256_file_hex(int fd, uint64_t offset, uint64_t bytes,
			 char ret_hex[WARM_SHA256_HEX_BYTES], struct warm_error *err) WARM_CHECKED;

#endif
