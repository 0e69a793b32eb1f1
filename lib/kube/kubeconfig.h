/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a client's configuration comes from: kubeconfig files, merged as kubectl does, or the service
 * account of the pod.
 *
 * Of several files the first that has a cluster, a user, a context or a current-context counts, as a
 * whole. Relative paths are relative to the file that they stand in. The files that a configuration
 * names are looked at once, so that a wrong one is told early; certificates of files are read again for
 * each connection, tokens by lib/kube/credential.h.
 *
 * Threads: any number, on different objects.
 * Source: kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig.
 */
#ifndef WARM_KUBE_KUBECONFIG_H
#define WARM_KUBE_KUBECONFIG_H

#include <jansson.h>
#include <stdbool.h>

#include "lib/base/error.h"

struct warm_kube_sources {
	const char *kubeconfig;	 /* as in warm_kube_options */
	const char *context;	 /* as in warm_kube_options */
	const char *account_dir; /* of the pod's service account; NULL: where the kubelet puts it */
};

/* PEM: a file, or its text, or neither. */
struct warm_kube_pem {
	char *file, *data;
};

struct warm_kube_config {
	char *server; /* "https://10.0.0.1:443", maybe with a path; no slash at its end */
	char *namespace;
	char *cluster_from, *user_from; /* "user admin of /root/.kube/config", for messages */
	char *tls_server_name, *proxy_url;
	bool insecure;
	struct warm_kube_pem ca, cert, key;
	char *token, *token_file, *username, *password;
	json_t *exec;	     /* of the user */
	char *exec_command;  /* its command; a path is made absolute or is below the kubeconfig's */
	json_t *exec_config; /* what the cluster has for the plugin */
};

/* Errors: as warm_kube_open(). */
int warm_kube_config_load(const struct warm_kube_sources *sources,
			  struct warm_kube_config *ret_config, struct warm_error *err) WARM_CHECKED;
void warm_kube_config_release(struct warm_kube_config *config);
#define scope_kube_config WARM_SCOPE(warm_kube_config_release)

/* "<a><b>", allocated; NULL when out of memory. */
char *warm_kube_join(const char *a, const char *b);

/* Is this why jansson gives nothing? Where no object can be made it says nothing at all. */
static inline bool warm_kube_no_memory(const json_error_t *why)
{
	return json_error_code(why) == json_error_out_of_memory || why->text[0] == '\0';
}

#endif
