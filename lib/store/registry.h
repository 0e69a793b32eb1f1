/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who we are to an OCI registry: logins of config.json and its helpers, ECR, Artifact Registry;
 * and the answers to its challenges: basic or a token.
 *
 *	warm_registry_authorize()   in `prepare`: adds what is known for the scope
 *	warm_registry_challenge()   in `refused`, for a 401: notes what it asks for
 *
 * Threads: any number on one object.
 * Source: Distribution specification 1.1; "Token Authentication Specification" of the distribution
 * project; containers-auth.json(5).
 */
#ifndef WARM_STORE_REGISTRY_H
#define WARM_STORE_REGISTRY_H

#include "lib/store/aws.h"
#include "lib/store/google.h"
#include "lib/store/http.h"

struct warm_registry;

enum warm_registry_login {
	WARM_LOGIN_AUTO,
	WARM_LOGIN_FILE,
	WARM_LOGIN_ECR,
	WARM_LOGIN_GOOGLE,
	WARM_LOGIN_NONE
};

struct warm_registry_options {
	const char *host;      /* as in the URL; borrowed, as all here */
	const char *auth_file; /* NULL: where the others look */
	const char *ca_file;   /* for token servers, ECR */
	enum warm_registry_login login;
	bool plain_http;
};

int warm_registry_open(const struct warm_registry_options *options, struct warm_registry **ret_r,
		       struct warm_error *err) WARM_CHECKED;
void warm_registry_free(struct warm_registry *r);

/* What a request is for: one token serves all of the same scope. `key` is made by the caller
 * ("pull team/llama"). */
struct warm_registry_scope {
	char key[300];
	char challenge[1024]; /* of the last 401; "" for none */
	int refusals;
};

/* Add an Authorization header, if there is anything to say. `ret_who` gets the user's name or
 * "anonymous". Errors: INVALID for a config.json that can't be used; DENIED, TRANSIENT of token
 * servers. */
int warm_registry_authorize(struct warm_registry *r, struct warm_registry_scope *scope,
			    struct warm_http_request *request, char ret_who[64],
			    const struct warm_call *call, struct warm_error *err) WARM_CHECKED;

/* After a 401: true when another try with warm_registry_authorize() may do better. */
bool warm_registry_challenge(struct warm_registry *r, struct warm_registry_scope *scope,
			     const struct warm_http_response *response);

#endif
