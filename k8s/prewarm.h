/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warmcache-prewarm: Jobs that fill the cache of a version before its first user.
 *
 *	prewarm.c		options and subcommands
 *	prewarm_render.c	a workload becomes Jobs
 *	prewarm_hook.c		what a GitOps tool needs to run them
 *	prewarm_run.c		create, follow and wait for them
 *	prewarm_fill.c		within a Job: wait for the model, ask it, publish
 *
 * Threads: one thread; prewarm_fill asks for readiness in another.
 */
#ifndef WARM_K8S_PREWARM_H
#define WARM_K8S_PREWARM_H

#include <jansson.h>

#include "lib/kube/client.h"
#include "lib/kube/inject.h"
#include "lib/sync/target.h"

#define PREWARM "warmcache-prewarm"		  /* program, container, service account */
#define PREWARM_MANAGED "warmcache.dev/prewarm"	  /* label: a Job of ours; the workload's name */
#define PREWARM_TEMPLATE "warmcache.dev/template" /* annotation: the hash of the pod template */

struct prewarm_options {
	struct warm_target_options target;
	struct warm_inject_flags inject;
	struct warm_option_list set_images, products, requests, labels;
	const char *workload, *cog, *service_account, *hook, *claims;
	const char *namespace, *kubeconfig, *context;
	const char *volume, *complete, *request_texts, *result; /* of fill */
	int64_t timeout_ms, hook_timeout_ms, settle_ms;
	bool require, force;
	bool create;
};

struct prewarm {
	const struct prewarm_options *options;
	struct warm_call call;
	struct warm_kube *kube; /* opened when it is needed */
};

/* Open the client, once. */
int prewarm_kube(struct prewarm *p, struct warm_error *err) WARM_CHECKED;

/* The namespace of an object, else of --namespace, else of the kubeconfig (a client is opened). */
int prewarm_namespace(struct prewarm *p, const json_t *object, const char **ret_namespace,
		      struct warm_error *err) WARM_CHECKED;

/* The Jobs for a workload: a file, "-", or "deployment/NAME". A file of Jobs that were rendered is
 * taken as it is. Owns: the caller decrefs the array. */
int prewarm_render(struct prewarm *p, const char *workload, json_t **ret_jobs,
		   struct warm_error *err) WARM_CHECKED;

/* Whether this is a Job that prewarm_render() has made. */
bool prewarm_is_job(const json_t *object);

/* Wrap Jobs into what runs them as a hook of `tool` ("argocd", "helm"). Owns: the caller decrefs the
 * array of objects. */
int prewarm_hook(struct prewarm *p, const json_t *jobs, const char *tool, json_t **ret_objects,
		 struct warm_error *err) WARM_CHECKED;

/* Create the Jobs and follow them. IO: one has failed. CANCELED: the timeout. */
int prewarm_run(struct prewarm *p, const json_t *jobs, struct warm_error *err) WARM_CHECKED;
/* Wait for Jobs that somebody else creates. */
int prewarm_wait(struct prewarm *p, const json_t *jobs, struct warm_error *err) WARM_CHECKED;

/* `--request` files and `--cog` as one JSON text; "" for none. Owns: the caller frees it. */
int prewarm_requests(const struct prewarm_options *options, char **ret_text,
		     struct warm_error *err) WARM_CHECKED;
int prewarm_fill(struct prewarm *p, struct warm_error *err) WARM_CHECKED;

#endif
