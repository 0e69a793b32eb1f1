/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A Google access token, as the metadata server gives it to the workload: renewed before it
 * expires; a server that refuses connections (a node's first seconds) is asked again for 5 s.
 *
 * Threads: any number on one object.
 */
#ifndef WARM_STORE_GOOGLE_H
#define WARM_STORE_GOOGLE_H

#include "lib/base/clock.h"
#include "lib/base/error.h"

struct warm_google;

int warm_google_open(struct warm_google **ret_google, struct warm_error *err) WARM_CHECKED;
void warm_google_free(struct warm_google *google);

/* Owns: the caller frees `*ret_token`. Errors: DENIED, TRANSIENT, CANCELED. */
int warm_google_token(struct warm_google *google, char **ret_token, const struct warm_call *call,
		      struct warm_error *err) WARM_CHECKED;
/* A server says that it is no good (any more). */
void warm_google_forget(struct warm_google *google);

#endif
