/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client proves itself with, at a moment: tokens of files, which are read again when what was read
 * is 60 s old, and what exec plugins give, until it expires.
 *
 *	struct warm_kube_credential c = { .config = &config };
 *	warm_kube_credential_get()	before a request
 *	warm_kube_credential_renew()	after a 401
 *	warm_kube_credential_release()
 *
 * A token that was good stays when its file can't be read again. Nothing of a credential gets into a
 * message. Threads: one object, one thread.
 * Source: kubernetes.io/docs/reference/config-api/client-authentication.v1.
 */
#ifndef WARM_KUBE_CREDENTIAL_H
#define WARM_KUBE_CREDENTIAL_H

#include <stdint.h>

#include "lib/base/clock.h"
#include "lib/kube/kubeconfig.h"

struct warm_kube_credential {
	const struct warm_kube_config *config;
	char *token;	    /* NULL: none */
	char *cert, *key;   /* PEM of a plugin; NULL: as the configuration says */
	int64_t read_ms;    /* monotonic, of the token's file; 0: not yet */
	bool asked;	    /* the plugin has answered */
	int64_t expires_ms; /* since 1970; 0: never */
};

/* Make `token`, `cert` and `key` what they are now.
 *
 * Errors: DENIED for a token's file that can't be read, and a plugin that fails or gives nothing of
 *         use; NOT_FOUND never; CANCELED; NO_MEMORY.
 */
int warm_kube_credential_get(struct warm_kube_credential *c, const struct warm_call *call,
			     struct warm_error *err) WARM_CHECKED;
/* Read the file or run the plugin again. `ret_again`: another try may go better now. */
int warm_kube_credential_renew(struct warm_kube_credential *c, bool *ret_again,
			       const struct warm_call *call, struct warm_error *err) WARM_CHECKED;
void warm_kube_credential_release(struct warm_kube_credential *c);

/* "the token of /x/token (user u of /root/.kube/config)": what kind, and where from. */
const char *warm_kube_credential_name(const struct warm_kube_credential *c, char *ret_text,
				      size_t bytes);

/* RFC 3339, in ms since 1970; -1 for anything else. */
int64_t warm_kube_parse_time(const char *text);

#endif
