/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of the Kubernetes API.
 *
 *	warm_kube_open()	a kubeconfig, or the pod's own service account
 *	warm_kube_request()	one object, or a list of them
 *	warm_kube_watch()	a list, then what happens to it
 *	warm_kube_text()	what is no JSON: a pod's log
 *	warm_kube_free()
 *
 * Credentials are those of kubectl: client certificates, tokens, basic authentication, exec plugins
 * (client.authentication.k8s.io/v1 and v1beta1). A token's file is read again when what was read is
 * 60 s old, since the kubelet replaces it; a 401 reads it, or runs the plugin, once more. No
 * credential gets into a message.
 *
 * What is worth trying again is: connections that fail, 429 and 5xx with Retry-After kept (30 s at
 * most a time), until the call's deadline or five tries; a POST that may have arrived is not.
 *
 * Threads: one client, one thread. A program ignores SIGPIPE.
 */
#ifndef WARM_KUBE_CLIENT_H
#define WARM_KUBE_CLIENT_H

#include <jansson.h>
#include <stdbool.h>

#include "lib/base/buf.h"
#include "lib/base/clock.h"

struct warm_kube;

struct warm_kube_options {
	const char *kubeconfig; /* file; NULL: KUBECONFIG (files separated by ':'),
				 * ~/.kube/config, the pod's account, in this order */
	const char *context;	/* of the kubeconfig; NULL: its current one */
};

/* Read the configuration; nothing is asked yet.
 *
 * Errors: NOT_FOUND when there is no configuration (named: where was looked); INVALID for one that
 *         can't be read, with file and reason, or a context that it lacks; DENIED for a file that
 *         may not be read; NO_MEMORY.
 */
int warm_kube_open(const struct warm_kube_options *options, struct warm_kube **ret_kube,
		   struct warm_error *err) WARM_CHECKED;
void warm_kube_free(struct warm_kube *kube);
static inline void warm_kube_scope(struct warm_kube **kube)
{
	warm_kube_free(*kube);
}
#define scope_kube WARM_SCOPE(warm_kube_scope)

/* The namespace of the context or of the pod; "default" where none is given. */
const char *warm_kube_namespace(const struct warm_kube *kube);
/* "https://10.0.0.1:443", for messages. */
const char *warm_kube_server(const struct warm_kube *kube);

/* One request. `path` has its query: "/api/v1/namespaces/x/pods?limit=1". `body` (NULL: none) is sent
 * as JSON; with PATCH as application/merge-patch+json. A list that comes in pieces (`continue`) is
 * put together.
 *
 * Errors: NOT_FOUND (404, 410); DENIED (401: which credential was used; 403: which verb on which
 *         resource in which namespace is missing); EXISTS (409); INVALID (400, 415, 422: the fields
 *         and causes that the server names); LIMIT (413: too large); TRANSIENT (429, 5xx, no
 *         connection) after the tries; CORRUPT for an answer that is no JSON; CANCELED. The message
 *         says what was asked, and the server's own. `err->http_status` is set.
 * Owns:   the caller decrefs `ret_answer` (NULL: not wanted); `body` is borrowed.
 */
int warm_kube_request(struct warm_kube *kube, const char *method, const char *path,
		      const json_t *body, const struct warm_call *call, json_t **ret_answer,
		      struct warm_error *err) WARM_CHECKED;

/* GET text of at most `max_bytes` (its beginning), appended to `ret_text`. */
int warm_kube_text(struct warm_kube *kube, const char *path, size_t max_bytes,
		   const struct warm_call *call, struct warm_buf *ret_text,
		   struct warm_error *err) WARM_CHECKED;

enum warm_kube_event {
	WARM_KUBE_ADDED,
	WARM_KUBE_MODIFIED,
	WARM_KUBE_DELETED, /* after a new list: what it lacks; the object as it was known last */
	WARM_KUBE_LISTED,  /* a list has been told whole; the object is NULL */
};

/* Returns 0 to go on, 1 to end the watch, or a negative status, which ends it with `err`. */
typedef int (*warm_kube_watch_fn)(void *arg, enum warm_kube_event event, const json_t *object,
				  struct warm_error *err);

/* List `path` (a collection, with its query: selectors), tell each object, then watch from the list's
 * resourceVersion on, with bookmarks. A watch that ends is taken up where it was; 410, as a status
 * or as an ERROR event, lists anew and tells what changed meanwhile. An object is told once for each
 * state of it; one that was made anew under its name is another object. Between events `fn` isn't
 * called; a deadline ends it. `fn` may ask by the same client, but not watch.
 *
 * Errors: as of a request; a server that is away while watching is asked again, with back-off of 1 s
 *         to 30 s, until the call ends; CANCELED at the deadline.
 */
int warm_kube_watch(struct warm_kube *kube, const char *path, warm_kube_watch_fn fn, void *arg,
		    const struct warm_call *call, struct warm_error *err) WARM_CHECKED;

#endif
