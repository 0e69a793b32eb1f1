/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A workload becomes Jobs: its containers as native sidecars, ours as the one that ends.
 */
#include <stdio.h>
#include <string.h>

#include "k8s/prewarm.h"
#include "lib/base/hash.h"
#include "lib/base/log.h"
#include "lib/kube/yaml.h"
#include "lib/layer/sha256.h"

enum { NAME_BYTES = 63, HASH_TEXT = 10, SPARE_MS = 10 * 60 * 1000, KEPT_S = 24 * 3600, TRIES = 2 };

struct render {
	struct prewarm *p;
	const struct warm_template *template; /* the workload's, unchanged */
	json_t *pod;			      /* the Job's: metadata and spec */
	json_t *spec;
	char container[128]; /* the model's */
	struct warm_error *err;
};

static int no_memory(struct warm_error *err)
{
	return warm_error_nomem(err, 256);
}

/* ---- the workload ---- */

static const struct {
	const char *name, *brief, *api, *plural;
} kinds[] = {
	{ "deployment", "deploy", "/apis/apps/v1", "deployments" },
	{ "statefulset", "sts", "/apis/apps/v1", "statefulsets" },
	{ "daemonset", "ds", "/apis/apps/v1", "daemonsets" },
	{ "job", "job", "/apis/batch/v1", "jobs" },
	{ "cronjob", "cj", "/apis/batch/v1", "cronjobs" },
	{ "pod", "po", "/api/v1", "pods" },
	{ "leaderworkerset", "lws", "/apis/leaderworkerset.x-k8s.io/v1", "leaderworkersets" },
};

enum { N_KINDS = sizeof(kinds) / sizeof(kinds[0]) };

/* "deployment/NAME", "deployments.apps/NAME", "deploy/NAME". Returns the kind's place, -1 for what is a
 * file. */
static int kind_of(const char *workload, const char **ret_name)
{
	const char *slash = strchr(workload, '/');
	size_t n = strcspn(workload, "./");

	if (access(workload, F_OK) == 0 || slash == NULL || slash[1] == '\0' ||
	    strchr(slash + 1, '/') != NULL)
		return -1;
	for (int i = 0; i < N_KINDS; i++) {
		size_t length = strlen(kinds[i].name);
		bool is_name = (n == length || (n == length + 1 && workload[length] == 's')) &&
			       strncasecmp(workload, kinds[i].name, length) == 0;
		bool is_short = n == strlen(kinds[i].brief) &&
				strncasecmp(workload, kinds[i].brief, n) == 0;
		if (is_name || is_short) {
			*ret_name = slash + 1;
			return i;
		}
	}
	return -1;
}

static int get_workload(struct prewarm *p, int kind, const char *name, json_t **ret_object,
			struct warm_error *err)
{
	const char *namespace;
	char path[512];
	int rc = prewarm_namespace(p, NULL, &namespace, err);

	if (rc == 0)
		rc = prewarm_kube(p, err);
	if (rc != 0)
		return rc;
	snprintf(path, sizeof(path), "%s/namespaces/%.63s/%s/%.253s", kinds[kind].api, namespace,
		 kinds[kind].plural, name);
	return warm_kube_request(p->kube, "GET", path, NULL, &p->call, ret_object, err);
}

/* A List, as --hook writes it, is what it holds. */
static int add_object(json_t *objects, json_t *object)
{
	json_t *items = json_object_get(object, "items");

	return warm_member_is(object, "kind", "List") && json_is_array(items)
		       ? json_array_extend(objects, items)
		       : json_array_append(objects, object);
}

/* All documents of a file as one array. */
static int load_file(const char *path, json_t **ret_objects, struct warm_error *err)
{
	scope_buf struct warm_buf text = WARM_BUF_INIT;
	scope_yaml struct warm_yaml *yaml = NULL;
	const char *name = strcmp(path, "-") == 0 ? "standard input" : path;

	int rc = warm_yaml_read(path, &text, err);
	if (rc == 0)
		rc = warm_yaml_parse(name, (const char *)text.data, text.bytes, &yaml, err);
	if (rc != 0)
		return rc;
	json_t *objects = json_array();
	for (size_t i = 0; i < warm_yaml_count(yaml); i++)
		rc |= add_object(objects, warm_yaml_value(yaml, i));
	if (rc != 0 || objects == NULL) {
		json_decref(objects);
		return no_memory(err);
	}
	*ret_objects = objects;
	return 0;
}

bool prewarm_is_job(const json_t *object)
{
	json_t *metadata = json_object_get(object, "metadata");

	return warm_member_is(object, "kind", "Job") &&
	       json_object_get(json_object_get(metadata, "labels"), PREWARM_MANAGED) != NULL;
}

/* The template to prewarm: the first one that has the model's container. Of several workloads
 * --workload names one. */
static int choose_template(struct prewarm *p, const struct warm_templates *found,
			   const char *workload, struct warm_template *ret_template,
			   json_t **ret_container, struct warm_error *err)
{
	const struct warm_inject_flags *flags = &p->options->inject;
	const struct warm_template *chosen = NULL;
	struct warm_error why = { 0 };
	char text[256], other[256];
	int last = WARM_NOT_FOUND;

	if (p->options->workload != NULL)
		warm_error_set(&why, WARM_INVALID, "no workload of the name '%.63s'",
			       p->options->workload);
	else
		warm_error_set(&why, WARM_INVALID, "there is no pod template");
	for (size_t i = 0; i < found->n; i++) {
		const struct warm_template *t = &found->items[i];
		json_t *metadata = json_object_get(t->object, "metadata"), *container;
		if (p->options->workload != NULL &&
		    !warm_member_is(metadata, "name", p->options->workload))
			continue;
		last = warm_template_container(t, flags->containers.items, flags->containers.n,
					       &container, &why);
		if (last != 0 || (chosen != NULL && chosen->object == t->object))
			continue;
		if (chosen != NULL)
			return warm_error_set(err, WARM_INVALID,
					      "%.128s has several workloads, among them %.120s and "
					      "%.120s: name one by --workload NAME",
					      workload, warm_template_text(chosen, text),
					      warm_template_text(t, other));
		chosen = t;
		*ret_container = container;
	}
	if (chosen == NULL)
		return warm_error_set(err, last == WARM_NOT_FOUND ? WARM_INVALID : last,
				      "%.128s: %.300s", workload, why.msg);
	*ret_template = *chosen;
	return 0;
}

/* ---- images and the key ---- */

static int set_images(struct render *r)
{
	const struct warm_option_list *images = &r->p->options->set_images;
	json_t *containers = json_object_get(r->spec, "containers");

	for (size_t i = 0; i < images->n; i++) {
		const char *equals = strchr(images->items[i], '=');
		char name[128];
		snprintf(name, sizeof(name), "%.*s",
			 equals != NULL ? (int)(equals - images->items[i]) : 0, images->items[i]);
		json_t *container = warm_named(containers, equals != NULL ? name : r->container);
		if (container == NULL)
			container = warm_named(json_object_get(r->spec, "initContainers"), name);
		if (container == NULL && equals == NULL)
			container = json_array_get(containers, 0);
		if (container == NULL)
			return warm_error_set(r->err, WARM_INVALID,
					      "--set-image: no container '%.63s'", name);
		if (images->items[i][0] == '\0' || (equals != NULL && equals[1] == '\0'))
			return warm_error_set(r->err, WARM_INVALID,
					      "--set-image: '%.128s' has no image",
					      images->items[i]);
		if (json_object_set_new(
			    container, "image",
			    json_string(equals != NULL ? equals + 1 : images->items[i])) != 0)
			return no_memory(r->err);
	}
	return 0;
}

static int set_variable(json_t *container, const char *name, const char *value,
			struct warm_error *err)
{
	json_t *env = warm_member(container, "env", true), *one;
	json_t *made = json_pack("{s:s,s:s}", "name", name, "value", value);
	size_t i;

	json_array_foreach(env, i, one)
		if (warm_member_is(one, "name", name))
			return json_array_set_new(env, i, made) == 0 ? 0 : no_memory(err);
	return json_array_append_new(env, made) == 0 ? 0 : no_memory(err);
}

static void remove_variable(json_t *container, const char *name)
{
	json_t *env = json_object_get(container, "env"), *one;
	size_t i;

	json_array_foreach(env, i, one)
		if (warm_member_is(one, "name", name))
			json_array_remove(env, i--);
}

/* A part of the key in both of our containers. */
static int set_key_part(struct render *r, const char *name, const char *value)
{
	json_t *list = json_object_get(r->spec, "initContainers");
	int rc = set_variable(warm_named(list, WARM_INJECT_INIT), name, value, r->err);

	return rc == 0 ? set_variable(warm_named(list, WARM_INJECT_SIDECAR), name, value, r->err)
		       : rc;
}

static const char *given(const char *text, const char *none)
{
	return text != NULL && text[0] != '\0' && strcmp(text, none) != 0 ? text : NULL;
}

/* The version follows the image that it comes from. One that somebody has said, in the workload or in an
 * annotation, has to be said anew: else the cache of another image would get into its key. */
static int check_version(struct render *r, const struct warm_inject_report *key,
			 const json_t *old_container, const struct warm_image *new_image)
{
	const struct warm_target_options *t = &r->p->options->target;
	const json_t *container = warm_named(json_object_get(r->spec, "containers"), r->container);
	const char *old_text = json_string_value(json_object_get(old_container, "image"));
	const char *new_text = json_string_value(json_object_get(container, "image"));
	struct warm_image old = { 0 };

	if (old_text == NULL || new_text == NULL || strcmp(old_text, new_text) == 0 ||
	    given(t->version, "") != NULL)
		return 0;
	warm_image_parse(old_text, &old);
	if (warm_template_annotation(r->template, WARM_INJECT_VERSION) == NULL &&
	    strcmp(key->version, old.version) == 0 &&
	    (strcmp(old.version, new_image->version) != 0 ||
	     (strcmp(key->model, old.model) == 0 && strcmp(old.model, new_image->model) != 0)))
		return 0;
	return warm_error_set(r->err, WARM_INVALID,
			      "the image is another one, and the version is '%.128s' whatever the "
			      "image is: --version is missing",
			      key->version);
}

static int set_stores(struct render *r)
{
	const struct warm_option_list *stores = &r->p->options->target.stores;
	scope_buf struct warm_buf text = WARM_BUF_INIT;

	if (stores->n == 0)
		return 0;
	for (size_t i = 0; i < stores->n; i++)
		warm_buf_printf(&text, "%s%s", i > 0 ? "," : "", stores->items[i]);
	warm_buf_put_u8(&text, '\0');
	return text.failed ? no_memory(r->err)
			   : set_key_part(r, "WARM_STORE", (const char *)text.data);
}

/* What the Job's key has instead of the workload's; NULL: the same. */
struct new_key {
	const char *model, *version, *platform;
};

/* The workload has warmcache: its options stand, but for the key of a new version. */
static int bring_up_to_date(struct render *r, const struct new_key *key)
{
	int rc = 0;

	if (warm_named(json_object_get(r->spec, "initContainers"), WARM_INJECT_SIDECAR) == NULL)
		return warm_error_set(r->err, WARM_INVALID,
				      "it has " WARM_INJECT_INIT " and no " WARM_INJECT_SIDECAR);
	if (key->version != NULL)
		rc = set_key_part(r, "WARM_VERSION", key->version);
	if (rc == 0 && key->model != NULL)
		rc = set_key_part(r, "WARM_MODEL", key->model);
	if (rc == 0 && key->platform != NULL)
		rc = set_key_part(r, "WARM_PLATFORM", key->platform);
	return rc == 0 ? set_stores(r) : rc;
}

static int add_warmcache(struct render *r, const struct new_key *key)
{
	const struct warm_target_options *t = &r->p->options->target;
	const char *container = r->container;
	struct warm_template template = { .object = r->template->object,
					  .pod = r->pod,
					  .spec = r->spec };
	struct warm_inject_options o;
	struct warm_inject_report report;

	snprintf(template.path, sizeof(template.path), "%s", r->template->path);
	int rc = warm_inject_take(&r->p->options->inject, &o, r->err);
	if (rc != 0)
		return rc;
	if (o.n_containers == 0 &&
	    warm_template_annotation(&template, WARM_INJECT_CONTAINER) == NULL) {
		o.containers = &container;
		o.n_containers = 1;
	}
	o.stores = t->stores.items;
	o.n_stores = t->stores.n;
	o.model = key->model;
	o.version = key->version;
	o.platform = key->platform;
	return warm_inject(&template, &o, &report, r->err);
}

/* The key that the Job is to fill, and ours in the pod. */
static int prepare_key(struct render *r, const json_t *old_container)
{
	const json_t *container = warm_named(json_object_get(r->spec, "containers"), r->container);
	const char *old_text = json_string_value(json_object_get(old_container, "image"));
	const char *new_text = json_string_value(json_object_get(container, "image"));
	const struct warm_target_options *t = &r->p->options->target;
	struct new_key new_key = { .model = given(t->model, ""),
				   .version = given(t->version, ""),
				   .platform = given(t->platform, "auto") };
	struct warm_inject_report key;
	struct warm_image old, new;

	warm_image_parse(old_text != NULL ? old_text : "", &old);
	warm_image_parse(new_text != NULL ? new_text : "", &new);
	warm_inject_key(r->template, old_container, &key);
	int rc = check_version(r, &key, old_container, &new);
	if (rc != 0)
		return rc;
	/* What came from the old image, or says the same, comes from the new one. */
	if (new_key.version == NULL && strcmp(old.version, new.version) != 0 &&
	    strcmp(key.version, old.version) == 0)
		new_key.version = new.version;
	if (new_key.model == NULL && strcmp(old.model, new.model) != 0 &&
	    strcmp(key.model, old.model) == 0)
		new_key.model = new.model;
	return warm_named(json_object_get(r->spec, "initContainers"), WARM_INJECT_INIT) != NULL
		       ? bring_up_to_date(r, &new_key)
		       : add_warmcache(r, &new_key);
}

/* ---- the pod ---- */

static const char *const left_out_of_spec[] = {
	"topologySpreadConstraints", "hostname",       "subdomain",	  "nodeName",
	"activeDeadlineSeconds",     "readinessGates", "schedulingGates", "setHostnameAsFQDN",
	"ephemeralContainers",	     "hostNetwork",    "hostPID",	  "hostIPC",
};

/* Annotations of whoever has applied or restarted the workload. */
static const char *const left_out_of_annotations[] = {
	"kubectl.kubernetes.io/",
	"argocd.argoproj.io/",
	"deployment.kubernetes.io/",
	"meta.helm.sh/",
	"helm.sh/",
	"prometheus.io/",
};

static void strip_ports(json_t *container)
{
	json_t *one;
	size_t i;

	json_object_del(container, "resizePolicy");
	json_array_foreach(json_object_get(container, "ports"), i, one)
		json_object_del(one, "hostPort");
}

static void strip_container(json_t *container)
{
	static const char *const left_out[] = { "livenessProbe", "readinessProbe", "startupProbe",
						"restartPolicyRules" };
	json_t *lifecycle = json_object_get(container, "lifecycle");

	for (size_t i = 0; i < sizeof(left_out) / sizeof(left_out[0]); i++)
		json_object_del(container, left_out[i]);
	json_object_del(lifecycle, "preStop");
	if (lifecycle != NULL && json_object_size(lifecycle) == 0)
		json_object_del(container, "lifecycle");
	strip_ports(container);
}

/* Servers run beside ours, behind the pod's own init containers. */
static int make_sidecars(struct render *r)
{
	json_t *inits = warm_member(r->spec, "initContainers", true), *one;
	size_t i;
	int rc = 0;

	/* Others wait for them to be up, so they keep their probes. */
	json_array_foreach(inits, i, one)
		strip_ports(one);
	json_array_foreach(json_object_get(r->spec, "containers"), i, one) {
		strip_container(one);
		rc |= json_object_set_new(one, "restartPolicy", json_string("Always"));
		rc |= json_array_append(inits, one);
	}
	return rc == 0 && inits != NULL ? 0 : no_memory(r->err);
}

/* Ours is made of the workload's sidecar: the same options, key and rights. */
static int make_main(struct render *r, json_t **ret_main)
{
	const struct prewarm_options *o = r->p->options;
	json_t *inits = json_object_get(r->spec, "initContainers"), *one;
	const json_t *init = warm_named(inits, WARM_INJECT_INIT);
	scope_free char *requests = NULL;
	size_t i;

	int rc = prewarm_requests(o, &requests, r->err);
	if (rc != 0)
		return rc;
	json_t *main = json_deep_copy(warm_named(inits, WARM_INJECT_SIDECAR));
	json_array_foreach(inits, i, one)
		if (warm_member_is(one, "name", WARM_INJECT_SIDECAR))
			json_array_remove(inits, i--);
	json_object_del(main, "restartPolicy");
	json_object_del(main, "lifecycle");
	json_object_del(main, "args");
	json_t *resources = json_object_get(init, "resources");
	if (main == NULL || json_object_set_new(main, "name", json_string(PREWARM)) != 0 ||
	    json_object_set_new(main, "command", json_pack("[s,s]", PREWARM, "fill")) != 0 ||
	    (resources != NULL && json_object_set(main, "resources", resources) != 0)) {
		json_decref(main);
		return no_memory(r->err);
	}
	*ret_main = main;
	remove_variable(main, "WARM_MODE");
	remove_variable(main, "WARM_LISTEN");
	if (rc == 0 && o->inject.ready_url != NULL)
		rc = set_variable(main, "WARM_READY_URL", o->inject.ready_url, r->err);
	if (rc == 0 && o->inject.ready_match != NULL)
		rc = set_variable(main, "WARM_READY_MATCH", o->inject.ready_match, r->err);
	if (rc == 0 && requests[0] != '\0')
		rc = set_variable(main, "WARM_REQUESTS", requests, r->err);
	if (rc == 0 && warm_named(json_object_get(main, "env"), "WARM_READY_URL") == NULL)
		rc = warm_error_set(
			r->err, WARM_INVALID,
			"--ready-url is missing: where the model says that it is ready");
	return rc;
}

/* A claim may be one pod's alone, and the workload would wait for it. */
static int choose_claims(struct render *r)
{
	const char *how = r->p->options->claims;
	json_t *volumes = json_object_get(r->spec, "volumes"), *one;
	size_t i;

	json_array_foreach(json_object_get(r->spec, "resourceClaims"), i, one)
		if (json_object_get(one, "resourceClaimName") != NULL && how == NULL)
			return warm_error_set(
				r->err, WARM_INVALID,
				"its pods share the resource claim '%.128s': --claims=keep where "
				"the Job may have it, too",
				json_string_value(json_object_get(one, "resourceClaimName")));
	json_array_foreach(volumes, i, one) {
		json_t *claim = json_object_get(one, "persistentVolumeClaim");
		if (claim == NULL || json_is_true(json_object_get(claim, "readOnly")) ||
		    (how != NULL && strcmp(how, "keep") == 0))
			continue;
		if (how == NULL)
			return warm_error_set(
				r->err, WARM_INVALID,
				"its pods have the claim '%.128s': --claims=keep where several "
				"pods may have it at once, --claims=empty for an empty volume in "
				"its place",
				json_string_value(json_object_get(claim, "claimName")));
		json_object_del(one, "persistentVolumeClaim");
		if (json_object_set_new(one, "emptyDir", json_object()) != 0)
			return no_memory(r->err);
	}
	return 0;
}

/* A StatefulSet's claims are made for its pods; the Job's pod gets fresh ones. */
static int add_claims(struct render *r)
{
	const json_t *spec = json_object_get(r->template->object, "spec");
	json_t *volumes = warm_member(r->spec, "volumes", true), *claim;
	size_t i;
	int rc = volumes == NULL;

	json_array_foreach(json_object_get(spec, "volumeClaimTemplates"), i, claim) {
		json_t *metadata = json_object_get(claim, "metadata");
		const char *name = json_string_value(json_object_get(metadata, "name"));
		if (name != NULL && warm_named(volumes, name) == NULL)
			rc |= json_array_append_new(
				volumes, json_pack("{s:s,s:{s:{s:O}}}", "name", name, "ephemeral",
						   "volumeClaimTemplate", "spec",
						   json_object_get(claim, "spec")));
	}
	return rc == 0 ? 0 : no_memory(r->err);
}

/* Labels of a pod that say what webhooks do with it, and select nothing. */
static const char *const kept_labels[] = { "sidecar.istio.io/inject",
					   "azure.workload.identity/use" };

static int set_labels(const struct render *r, json_t *metadata, const char *name)
{
	json_t *old = json_object_get(json_object_get(r->template->pod, "metadata"), "labels");
	const struct warm_option_list *given_labels = &r->p->options->labels;
	json_t *labels = json_pack("{s:s,s:s,s:s}", "app.kubernetes.io/name", PREWARM,
				   "app.kubernetes.io/managed-by", "warmcache", PREWARM_MANAGED,
				   name);
	int rc = labels == NULL;

	for (size_t i = 0; i < sizeof(kept_labels) / sizeof(kept_labels[0]); i++)
		if (json_object_get(old, kept_labels[i]) != NULL)
			rc |= json_object_set(labels, kept_labels[i],
					      json_object_get(old, kept_labels[i]));
	for (size_t i = 0; i < given_labels->n; i++) {
		const char *equals = strchr(given_labels->items[i], '=');
		char label[320];
		if (equals == NULL) {
			json_decref(labels);
			return warm_error_set(r->err, WARM_INVALID,
					      "--label: '%.128s' is no NAME=VALUE",
					      given_labels->items[i]);
		}
		snprintf(label, sizeof(label), "%.*s", (int)(equals - given_labels->items[i]),
			 given_labels->items[i]);
		rc |= json_object_set_new(labels, label, json_string(equals + 1));
	}
	rc |= json_object_set_new(metadata, "labels", labels);
	return rc == 0 ? 0 : no_memory(r->err);
}

static int set_metadata(struct render *r, const char *name)
{
	json_t *old = json_object_get(json_object_get(r->pod, "metadata"), "annotations");
	json_t *metadata = json_object(), *annotations = json_object(), *value;
	const char *key;
	int rc = metadata == NULL || annotations == NULL;

	json_object_foreach(old, key, value) {
		bool left_out = false;
		for (size_t i = 0; i < sizeof(left_out_of_annotations) / sizeof(char *); i++)
			left_out = left_out || strncmp(key, left_out_of_annotations[i],
						       strlen(left_out_of_annotations[i])) == 0;
		if (!left_out)
			rc |= json_object_set(annotations, key, value);
	}
	if (json_object_size(annotations) > 0)
		rc |= json_object_set(metadata, "annotations", annotations);
	json_decref(annotations);
	rc |= json_object_set(r->pod, "metadata", metadata);
	json_decref(metadata);
	return rc == 0 ? set_labels(r, metadata, name) : no_memory(r->err);
}

static int set_nodes(struct render *r, const char *product)
{
	const struct prewarm_options *o = r->p->options;
	json_t *affinity = json_object_get(r->spec, "affinity");
	int rc = 0;

	for (size_t i = 0; i < sizeof(left_out_of_spec) / sizeof(char *); i++)
		json_object_del(r->spec, left_out_of_spec[i]);
	if (warm_member_is(r->spec, "dnsPolicy", "ClusterFirstWithHostNet"))
		json_object_del(r->spec, "dnsPolicy");
	json_object_del(affinity, "podAffinity");
	json_object_del(affinity, "podAntiAffinity");
	if (affinity != NULL && json_object_size(affinity) == 0)
		json_object_del(r->spec, "affinity");
	if (product != NULL) {
		json_t *selector = warm_member(r->spec, "nodeSelector", false);
		rc |= selector == NULL || json_object_set_new(selector, "nvidia.com/gpu.product",
							      json_string(product)) != 0;
	}
	if (o->service_account != NULL) {
		json_object_del(r->spec, "serviceAccount");
		rc |= json_object_set_new(r->spec, "serviceAccountName",
					  json_string(o->service_account));
	}
	rc |= json_object_set_new(r->spec, "restartPolicy", json_string("Never"));
	return rc == 0 ? 0 : no_memory(r->err);
}

/* ---- the Job ---- */

static int hash_of(const json_t *pod, char ret_hash[HASH_TEXT + 1], struct warm_error *err)
{
	scope_free char *text = json_dumps(pod, JSON_COMPACT | JSON_SORT_KEYS);
	char hex[65];
	uint8_t digest[32];

	if (text == NULL)
		return no_memory(err);
	int rc = warm_sha256(text, strlen(text), digest, err);
	if (rc != 0)
		return rc;
	warm_hex(digest, sizeof(digest), hex);
	snprintf(ret_hash, HASH_TEXT + 1, "%.*s", HASH_TEXT, hex);
	return 0;
}

static int make_job(struct render *r, const char *workload, json_t *main, json_t **ret_job)
{
	const struct prewarm_options *o = r->p->options;
	char hash[HASH_TEXT + 1], name[NAME_BYTES + 1], timeout[32];
	json_t *object_metadata = json_object_get(r->template->object, "metadata");
	const char *namespace =
		o->namespace != NULL
			? o->namespace
			: json_string_value(json_object_get(object_metadata, "namespace"));

	int rc = hash_of(r->pod, hash, r->err);
	if (rc != 0)
		return rc;
	/* Not part of what it is the hash of: `wait` has a timeout of its own. */
	snprintf(timeout, sizeof(timeout), "%llds", (long long)o->timeout_ms / 1000);
	rc = set_variable(main, "WARM_TIMEOUT", timeout, r->err);
	if (rc == 0)
		rc = set_variable(main, "WARM_COMPLETE", hash, r->err);
	if (rc != 0)
		return rc;
	snprintf(name, sizeof(name), "%.*s-warm-%s", NAME_BYTES - HASH_TEXT - 6, workload, hash);
	json_t *metadata = json_pack("{s:s,s:{s:s}}", "name", name, "annotations", PREWARM_TEMPLATE,
				     hash);
	if (metadata == NULL ||
	    (namespace != NULL &&
	     json_object_set_new(metadata, "namespace", json_string(namespace)) != 0)) {
		json_decref(metadata);
		return no_memory(r->err);
	}
	rc = set_labels(r, metadata, workload);
	if (rc != 0) {
		json_decref(metadata);
		return rc;
	}
	json_t *job = json_pack("{s:s,s:s,s:o,s:{s:i,s:I,s:i,s:s,s:{s:[{s:s,s:[{s:s}]}]},s:O}}",
				"apiVersion", "batch/v1", "kind", "Job", "metadata", metadata,
				"spec", "backoffLimit", TRIES, "activeDeadlineSeconds",
				(json_int_t)(o->timeout_ms + SPARE_MS) / 1000,
				"ttlSecondsAfterFinished", KEPT_S, "podReplacementPolicy", "Failed",
				"podFailurePolicy", "rules", "action", "Ignore", "onPodConditions",
				"type", "DisruptionTarget", "template", r->pod);
	if (job == NULL)
		return no_memory(r->err);
	*ret_job = job;
	return 0;
}

/* A workload's name as a label's value and the beginning of a Job's name. */
static void name_of(const struct warm_template *template, char ret_name[NAME_BYTES + 1])
{
	json_t *metadata = json_object_get(template->object, "metadata");
	const char *name = json_string_value(json_object_get(metadata, "name"));
	size_t n = 0;

	for (; name != NULL && *name != '\0' && n < NAME_BYTES - HASH_TEXT - 6; name++) {
		char c = *name >= 'A' && *name <= 'Z' ? (char)(*name - 'A' + 'a') : *name;
		bool fits = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
		if (fits || n > 0)
			ret_name[n++] = fits ? c : '-';
	}
	while (n > 0 && ret_name[n - 1] == '-')
		n--;
	ret_name[n] = '\0';
	if (n == 0)
		snprintf(ret_name, NAME_BYTES + 1, "workload");
}

static int render_one(struct prewarm *p, const struct warm_template *template,
		      const json_t *container, const char *product, json_t **ret_job,
		      struct warm_error *err)
{
	const char *model = json_string_value(json_object_get(container, "name"));
	json_t *pod = json_pack("{s:o}", "spec", json_deep_copy(template->spec)), *main = NULL;
	struct render r = { .p = p, .template = template, .pod = pod, .err = err };
	char name[NAME_BYTES + 1];
	int rc = pod == NULL ? no_memory(err) : 0;

	r.spec = json_object_get(pod, "spec");
	name_of(template, name);
	snprintf(r.container, sizeof(r.container), "%s", model != NULL ? model : "");
	json_t *metadata = json_object_get(template->pod, "metadata");
	if (rc == 0 && metadata != NULL &&
	    json_object_set_new(pod, "metadata", json_deep_copy(metadata)) != 0)
		rc = no_memory(err);
	if (rc == 0)
		rc = set_images(&r);
	if (rc == 0)
		rc = prepare_key(&r, container);
	if (rc == 0)
		rc = set_metadata(&r, name);
	if (rc == 0)
		rc = make_main(&r, &main);
	if (rc == 0)
		rc = make_sidecars(&r);
	if (rc == 0 && json_object_set_new(r.spec, "containers", json_pack("[O]", main)) != 0)
		rc = no_memory(err);
	if (rc == 0)
		rc = choose_claims(&r);
	if (rc == 0)
		rc = add_claims(&r);
	if (rc == 0)
		rc = set_nodes(&r, product);
	if (rc == 0)
		rc = make_job(&r, name, main, ret_job);
	json_decref(main);
	json_decref(pod);
	return rc;
}

static int render_products(struct prewarm *p, const struct warm_template *template,
			   const json_t *container, json_t *jobs, struct warm_error *err)
{
	const struct warm_option_list *products = &p->options->products;
	int rc = 0;

	for (size_t i = 0; i < (products->n > 0 ? products->n : 1) && rc == 0; i++) {
		scope_free char *copy = strdup(products->n > 0 ? products->items[i] : "");
		char *save = NULL;
		if (copy == NULL)
			return no_memory(err);
		char *product = strtok_r(copy, ",", &save);
		if (product == NULL && products->n > 0)
			return warm_error_set(err, WARM_INVALID, "--gpu-product: no name");
		do {
			json_t *job = NULL;
			rc = render_one(p, template, container, product, &job, err);
			if (rc == 0 && json_array_append_new(jobs, job) != 0)
				rc = no_memory(err);
			product = product != NULL ? strtok_r(NULL, ",", &save) : NULL;
		} while (rc == 0 && product != NULL);
	}
	return rc;
}

int prewarm_render(struct prewarm *p, const char *workload, json_t **ret_jobs,
		   struct warm_error *err)
{
	scope_templates struct warm_templates found = { 0 };
	struct warm_template template = { 0 };
	json_t *objects = NULL, *jobs = NULL, *container = NULL, *one;
	const char *name;
	size_t i;
	int kind = kind_of(workload, &name);

	int rc = kind >= 0 ? get_workload(p, kind, name, &objects, err)
			   : load_file(workload, &objects, err);
	if (rc != 0)
		return rc;
	jobs = json_array();
	json_array_foreach(objects, i, one)
		if (prewarm_is_job(one) && json_array_append(jobs, one) != 0)
			rc = no_memory(err);
	if (rc == 0 && json_array_size(jobs) == 0) {
		rc = warm_templates_find(objects, &found, err);
		if (rc == 0)
			rc = choose_template(p, &found, workload, &template, &container, err);
		if (rc == 0)
			rc = render_products(p, &template, container, jobs, err);
	}
	json_decref(objects);
	if (rc == 0)
		*ret_jobs = jobs;
	else
		json_decref(jobs);
	return rc;
}
