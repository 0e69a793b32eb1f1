/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a pod gets warmcache: the one place that knows. `warmcache inject`, `warmcache-prewarm` and, by
 * tests that hold them to its output, the admission policy and the Kustomize component.
 *
 * A template gets a volume, an init container, a native sidecar, a mount and the compilers' variables
 * in the model's containers, and the annotation that lets the cluster autoscaler remove its node.
 * The init stands after the pod's own native sidecars (a proxy must run first). Nothing that is
 * there is changed: a variable that a container sets stays, a volume named warmcache that is no
 * emptyDir is used as it is, a mount at the same path too.
 *
 * The key comes, each part by itself, from the options, else from the pod's annotation
 * warmcache.dev/model, version, platform (by the downward API), else from the image's name. An empty
 * version (an image without a tag that stays) keeps only artifacts whose names cover all.
 *
 * What the options don't say of containers and compilers, the pod's annotations warmcache.dev/container
 * and warmcache.dev/for may (names separated by commas).
 *
 * Threads: any number, on different templates.
 */
#ifndef WARM_KUBE_INJECT_H
#define WARM_KUBE_INJECT_H

#include "lib/base/option.h"
#include "lib/kube/workload.h"

#define WARM_INJECT_VOLUME "warmcache"
#define WARM_INJECT_INIT "warmcache-init"
#define WARM_INJECT_SIDECAR "warmcache-sidecar"
#define WARM_INJECT_MODEL "warmcache.dev/model"
#define WARM_INJECT_VERSION "warmcache.dev/version"
#define WARM_INJECT_PLATFORM "warmcache.dev/platform"
#define WARM_INJECT_CONTAINER "warmcache.dev/container"
#define WARM_INJECT_FOR "warmcache.dev/for"

struct warm_inject_options {
	const char *image;	       /* with our programs */
	const char *const *containers; /* by name; none: warm_template_container() */
	size_t n_containers;
	const char *const *compilers; /* of warm_inject_compilers() */
	size_t n_compilers;
	const char *const *stores; /* nearest first; none: the ConfigMap's */
	size_t n_stores;
	const char *model, *version, *platform; /* NULL: annotation, image */
	const char *mount;			/* "/warmcache" */
	const char *config;	/* ConfigMap and Secret whose entries are our variables; "": none */
	const char *const *env; /* "NAME=VALUE", for both of ours */
	size_t n_env;
	const char *ready_url, *ready_match; /* NULL: none */
	const char *init_cpu;		     /* a quantity; NULL: by what the model asks for */
	const char *init_memory, *sidecar_cpu, *sidecar_memory;
	bool read_only;
	bool no_sidecar; /* prewarm: somebody else publishes */
};

/* What is the key's, as it was found; for messages. */
struct warm_inject_report {
	char container[128];
	char model[WARM_IMAGE_TEXT], version[WARM_IMAGE_TEXT], platform[WARM_IMAGE_TEXT];
	bool replaced; /* it was there already */
};

/* The options as a program's flags; they have static storage. */
struct warm_inject_flags {
	struct warm_option_list containers, compilers, env;
	const char *image, *config, *ready_url, *ready_match;
	const char *mount; /* a row of the program's own; NULL: "/warmcache" */
	const char *init_cpu, *init_memory, *sidecar_cpu, *sidecar_memory;
	bool read_only;
};

#define WARM_INJECT_DEFAULT_COMPILERS "torch,triton,vllm,jax,nvrtc"
#define WARM_INJECT_ROWS(o)                                                                        \
	{ "image",                                                                                 \
	  "WARM_IMAGE",                                                                            \
	  WARM_OPTION_STRING,                                                                      \
	  &(o).image,                                                                              \
	  NULL,                                                                                    \
	  "IMAGE",                                                                                 \
	  "The image with warmcache's programs (make image)." },                                   \
		{ "container",                                                                     \
		  NULL,                                                                            \
		  WARM_OPTION_LIST,                                                                \
		  &(o).containers,                                                                 \
		  NULL,                                                                            \
		  "NAME",                                                                          \
		  "The model's container. Default: the only one, or the only one with a GPU. "     \
		  "Repeatable; the first one's image gives the key's default." },                  \
		{ "for",                                                                           \
		  NULL,                                                                            \
		  WARM_OPTION_LIST,                                                                \
		  &(o).compilers,                                                                  \
		  NULL,                                                                            \
		  "NAMES",                                                                         \
		  "Compilers to point into the volume, of torch, triton, vllm, jax, nvrtc (these " \
		  "by default), flashinfer, deepgemm, tilelang. Separated by commas." },           \
		{ "config",                                                                        \
		  NULL,                                                                            \
		  WARM_OPTION_STRING,                                                              \
		  &(o).config,                                                                     \
		  "warmcache",                                                                     \
		  "NAME",                                                                          \
		  "ConfigMap and Secret of the pod's namespace, both optional, whose entries are " \
		  "variables of ours: WARM_STORE, AWS_ACCESS_KEY_ID, ... Empty: none." },          \
		{ "env",                                                                           \
		  NULL,                                                                            \
		  WARM_OPTION_LIST,                                                                \
		  &(o).env,                                                                        \
		  NULL,                                                                            \
		  "NAME=VALUE",                                                                    \
		  "A variable for our containers. Repeatable." },                                  \
		{ "ready-url",                                                                     \
		  "WARM_READY_URL",                                                                \
		  WARM_OPTION_STRING,                                                              \
		  &(o).ready_url,                                                                  \
		  NULL,                                                                            \
		  "URL",                                                                           \
		  "Where the model says that it is ready, e.g. http://127.0.0.1:8000/health." },   \
		{ "ready-match",                                                                   \
		  "WARM_READY_MATCH",                                                              \
		  WARM_OPTION_STRING,                                                              \
		  &(o).ready_match,                                                                \
		  NULL,                                                                            \
		  "REGEX",                                                                         \
		  "... and what the answer's body must match." },                                  \
		{ "init-cpu",                                                                      \
		  NULL,                                                                            \
		  WARM_OPTION_STRING,                                                              \
		  &(o).init_cpu,                                                                   \
		  NULL,                                                                            \
		  "QUANTITY",                                                                      \
		  "CPU of the init container, request and limit. Default: 1 where the model asks " \
		  "for as "                                                                        \
		  "much, else 200m: the pod must not ask for more because of it." },               \
		{ "init-memory",                                                                   \
		  NULL,                                                                            \
		  WARM_OPTION_STRING,                                                              \
		  &(o).init_memory,                                                                \
		  "256Mi",                                                                         \
		  "QUANTITY",                                                                      \
		  "Memory of the init container." },                                               \
		{ "sidecar-cpu", NULL,	     WARM_OPTION_STRING,   &(o).sidecar_cpu,               \
		  "200m",	 "QUANTITY", "CPU of the sidecar." },                              \
		{ "sidecar-memory", NULL,	WARM_OPTION_STRING,	 &(o).sidecar_memory,      \
		  "256Mi",	    "QUANTITY", "Memory of the sidecar." },                        \
	{                                                                                          \
		"read-only", NULL, WARM_OPTION_BOOL, &(o).read_only, NULL, NULL,                   \
			"The sidecar never writes to the store (WARM_MODE=readonly)."              \
	}

/* Check the flags and make options of them, all but stores and key. INVALID names the flag. The
 * options point into the flags. */
int warm_inject_take(const struct warm_inject_flags *flags, struct warm_inject_options *ret_options,
		     struct warm_error *err) WARM_CHECKED;

/* Add to `template`, or bring up to date what was added.
 *
 * Errors: NOT_FOUND: no container of a name; the template is as it was. INVALID: not just one
 *         container, a mount path that is somebody else's, the template's form; NO_MEMORY. The
 *         template may then be changed in part: it isn't to be used.
 */
int warm_inject(struct warm_template *template, const struct warm_inject_options *options,
		struct warm_inject_report *ret_report, struct warm_error *err) WARM_CHECKED;

/* Undo it. `ret_was_there`: whether there was anything. */
int warm_inject_remove(struct warm_template *template, bool *ret_was_there,
		       struct warm_error *err) WARM_CHECKED;

/* The key that a template's pods use: of our containers where it has them, else as warm_inject() would
 * choose for `container`. Variables that come from elsewhere (a ConfigMap) are "". */
void warm_inject_key(const struct warm_template *template, const json_t *container,
		     struct warm_inject_report *ret_report);

#endif
