/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workloads: where the pod templates of a manifest are, and what is in them.
 *
 * A template is found by its shape, so that kinds which nobody told us of are served: a mapping whose
 * `containers` is a list of mappings with a name or an image. A Deployment has one, a
 * LeaderWorkerSet two, a List as many as its items.
 *
 * Threads: any number, on different manifests.
 */
#ifndef WARM_KUBE_WORKLOAD_H
#define WARM_KUBE_WORKLOAD_H

#include <jansson.h>
#include <stdbool.h>

#include "lib/base/error.h"

enum { WARM_WORKLOAD_PATH = 128, WARM_IMAGE_TEXT = 512 };

/* One pod template. All is borrowed from the manifest. */
struct warm_template {
	json_t *object; /* what was applied: kind, metadata */
	json_t *pod;	/* what holds `spec` and the pod's metadata; NULL: a spec without metadata,
			 * as a KServe predictor is */
	json_t *spec;
	char path[WARM_WORKLOAD_PATH]; /* "spec.template.spec" */
};

struct warm_templates {
	struct warm_template *items;
	size_t n, capacity;
};

/* Append the templates in `manifest`. Errors: NO_MEMORY. */
int warm_templates_find(json_t *manifest, struct warm_templates *templates,
			struct warm_error *err) WARM_CHECKED;
void warm_templates_release(struct warm_templates *templates);
#define scope_templates WARM_SCOPE(warm_templates_release)

/* "Deployment llama" for messages. */
const char *warm_template_text(const struct warm_template *template, char ret_text[256]);

/* The pod's annotation, or NULL. */
const char *warm_template_annotation(const struct warm_template *template, const char *name);

/* The container of `names` (its first one), else the only one, else the only one that asks for a GPU.
 * Errors: NOT_FOUND: none of that name; INVALID: several. Both name those that are there. */
int warm_template_container(const struct warm_template *template, const char *const *names,
			    size_t n_names, json_t **ret_container,
			    struct warm_error *err) WARM_CHECKED;

/* Whether a container asks for a GPU: a limit of nvidia.com/..., amd.com/..., gpu.intel.com/..., or a
 * claim. */
bool warm_container_has_gpu(const json_t *container);

/* A list's element of this name, NULL when there is none; `list` may be NULL. */
json_t *warm_named(const json_t *list, const char *name);

/* A member's text, "" where it is none; whether it is this one. */
const char *warm_member_text(const json_t *object, const char *name);
bool warm_member_is(const json_t *object, const char *name, const char *text);

/* A member that is an object or an array; an empty one is made. NULL: no memory. */
json_t *warm_member(json_t *object, const char *name, bool array);

/* What an image's name says of what is in it. `model`: the repository, '/' as '+' (a key has no '/').
 * `version`: the digest, else the tag; "" for one that moves (latest, main, ...) or none at all. */
struct warm_image {
	char model[WARM_IMAGE_TEXT], version[WARM_IMAGE_TEXT];
};
void warm_image_parse(const char *text, struct warm_image *ret_image);

#endif
