/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an API server refuses, as an error for people: what was asked, by whom, what lacks and how to
 * give it.
 *
 * Threads: pure functions.
 * Source: kubernetes.io/docs/reference/kubernetes-api/common-definitions/status.
 */
#ifndef WARM_KUBE_REFUSAL_H
#define WARM_KUBE_REFUSAL_H

#include <jansson.h>
#include <stdbool.h>

#include "lib/base/error.h"

struct warm_kube_refusal {
	const char *method, *path;
	const char *server;	/* URL */
	const char *credential; /* warm_kube_credential_name() */
	long http_status;
	const json_t *status; /* the answer's Status; NULL: it was something else */
};

/* Returns the status that it sets. */
int warm_kube_refuse(const struct warm_kube_refusal *r, struct warm_error *err);

/* What a request is about, as RBAC names it. */
struct warm_kube_target {
	const char *verb;
	char resource[160]; /* "jobs.batch", "pods/log" */
	char namespace[64]; /* "": none */
	char name[256];	    /* "": a collection */
};
void warm_kube_target(const char *method, const char *path, struct warm_kube_target *ret_target);

/* Does the query of `path` have this parameter? */
bool warm_kube_has_param(const char *path, const char *name);

#endif
