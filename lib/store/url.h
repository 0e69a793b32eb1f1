/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store's URL: what stands before the '?' and the parameters behind it; and percent-encoding.
 *
 * Threads: pure functions.
 * Source: RFC 3986.
 */
#ifndef WARM_STORE_URL_H
#define WARM_STORE_URL_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/error.h"

struct warm_url {
	char *host;   /* up to the first '/': a bucket, a registry, a host with its port */
	char *prefix; /* without slashes at its ends; "" for none */
	struct {
		char *name, *value;
	} params[16];
	size_t n_params;
};

/* Split what follows "scheme://". `known` names the parameters of this kind of store and ends in
 * NULL. INVALID for an unknown parameter, one given twice, broken encoding, a prefix with empty parts,
 * "." or "..", user and password. */
int warm_url_parse(const char *rest, const char *const *known, struct warm_url *ret_url,
		   struct warm_error *err) WARM_CHECKED;
void warm_url_release(struct warm_url *url);

/* The parameter, else the first of the environment variables (`env` ends in NULL; may be NULL)
 * that is set and not empty, else NULL. */
const char *warm_url_param(const struct warm_url *url, const char *name, const char *const *env);
/* "true" or "false"; INVALID for anything else. */
int warm_url_flag(const struct warm_url *url, const char *name, bool initial, bool *ret_flag,
		  struct warm_error *err) WARM_CHECKED;
/* Whole numbers in [min, max]; sizes may end in K, M, G. */
int warm_url_number(const struct warm_url *url, const char *name, uint64_t initial, uint64_t min,
		    uint64_t max, uint64_t *ret_number, struct warm_error *err) WARM_CHECKED;

/* Append `text` with all but A-Z a-z 0-9 - . _ ~ as %XX; '/' stays with `keep_slash`. */
void warm_url_encode(struct warm_buf *buf, const char *text, bool keep_slash);
/* Decode %XX in place. 0, or -1 for broken encoding or a NUL. */
int warm_url_decode(char *text);

#endif
