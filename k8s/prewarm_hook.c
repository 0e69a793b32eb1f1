/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A GitOps tool's hook: a small Job without a GPU that creates the prewarm Jobs and waits for them,
 * before the tool changes the workload. Its name is fixed; the tool deletes it before it makes the next.
 */
#include <stdio.h>
#include <string.h>

#include "k8s/prewarm.h"

enum { USER = 65532, END_S = 45 /* to pull the image and to start */ };

static const struct tool {
	const char *name, *hook_key, *hook, *policy_key, *policy, *order_key, *first, *second;
	int wait_s;
} tools[] = {
	{ "argocd", "argocd.argoproj.io/hook", "PreSync", "argocd.argoproj.io/hook-delete-policy",
	  "BeforeHookCreation", "argocd.argoproj.io/sync-wave", "-2", "-1", 30 * 60 },
	{ "helm", "helm.sh/hook", "pre-upgrade", "helm.sh/hook-delete-policy",
	  "before-hook-creation", "helm.sh/hook-weight", "-2", "-1", 4 * 60 },
};

static json_t *metadata_of(const struct tool *tool, const char *name, const char *namespace,
			   const char *order)
{
	json_t *metadata = json_pack("{s:s,s:{s:s},s:{s:s,s:s,s:s}}", "name", name, "labels",
				     "app.kubernetes.io/managed-by", "warmcache", "annotations",
				     tool->hook_key, tool->hook, tool->policy_key, tool->policy,
				     tool->order_key, order);

	if (namespace != NULL)
		json_object_set_new(metadata, "namespace", json_string(namespace));
	return metadata;
}

/* The Job's container has what the prewarm Job's own has: image, variables, rights. */
static json_t *container_of(const struct prewarm *p, const json_t *main, int64_t wait_s)
{
	char timeout[32];
	json_t *command, *env = json_array(), *one;
	json_t *c = json_pack("{s:s,s:O}", "name", PREWARM, "image",
			      json_object_get(main, "image"));
	size_t i;

	snprintf(timeout, sizeof(timeout), "%llds", (long long)wait_s);
	command = json_pack("[s,s,s,s,s,s]", PREWARM, "wait", "/prewarm/jobs.json", "--create",
			    "--timeout", timeout);
	if (p->options->require)
		json_array_append_new(command, json_string("--require"));
	json_object_set_new(c, "command", command);
	json_array_foreach(json_object_get(main, "env"), i, one) {
		const char *name = json_string_value(json_object_get(one, "name"));
		if (name != NULL && strcmp(name, "WARM_STORE") == 0)
			json_array_append(env, one);
	}
	json_object_set_new(c, "env", env);
	static const char *const copied[] = { "envFrom", "imagePullPolicy", "securityContext" };
	for (i = 0; i < sizeof(copied) / sizeof(copied[0]); i++)
		if (json_object_get(main, copied[i]) != NULL)
			json_object_set(c, copied[i], json_object_get(main, copied[i]));
	json_object_set_new(c, "resources",
			    json_pack("{s:{s:s,s:s},s:{s:s,s:s}}", "requests", "cpu", "100m",
				      "memory", "128Mi", "limits", "cpu", "100m", "memory",
				      "128Mi"));
	json_object_set_new(c, "volumeMounts",
			    json_pack("[{s:s,s:s,s:b}]", "name", "prewarm", "mountPath", "/prewarm",
				      "readOnly", 1));
	return c;
}

int prewarm_hook(struct prewarm *p, const json_t *jobs, const char *tool_name, json_t **ret_objects,
		 struct warm_error *err)
{
	const struct tool *tool = NULL;
	json_t *job = json_array_get(jobs, 0), *metadata = json_object_get(job, "metadata");
	json_t *template = json_object_get(json_object_get(job, "spec"), "template");
	json_t *spec = json_object_get(template, "spec");
	const json_t *main = json_array_get(json_object_get(spec, "containers"), 0);
	const char *workload = json_string_value(
		json_object_get(json_object_get(metadata, "labels"), PREWARM_MANAGED));
	const char *namespace = json_string_value(json_object_get(metadata, "namespace"));
	char name[80], hook[80];

	for (size_t i = 0; i < sizeof(tools) / sizeof(tools[0]); i++)
		if (strcmp(tools[i].name, tool_name) == 0)
			tool = &tools[i];
	if (tool == NULL)
		return warm_error_set(err, WARM_INVALID, "--hook: '%.64s' is none of argocd|helm",
				      tool_name);
	int64_t wait_s = p->options->hook_timeout_ms > 0 ? p->options->hook_timeout_ms / 1000
							 : tool->wait_s;
	snprintf(name, sizeof(name), "%.50s-prewarm", workload);
	snprintf(hook, sizeof(hook), "%.50s-prewarm-hook", workload);
	json_t *list = json_pack("{s:s,s:s,s:O}", "apiVersion", "v1", "kind", "List", "items",
				 (json_t *)(uintptr_t)jobs);
	scope_free char *text = json_dumps(list, JSON_INDENT(1));
	json_decref(list);
	if (text == NULL)
		return warm_error_nomem(err, 256);
	json_t *pod = json_pack("{s:s,s:s,s:[o],s:[{s:s,s:{s:s}}]}", "restartPolicy", "Never",
				"serviceAccountName", PREWARM, "containers",
				container_of(p, main, wait_s), "volumes", "name", "prewarm",
				"configMap", "name", name);
	static const char *const copied[] = { "imagePullSecrets", "tolerations" };
	for (size_t i = 0; i < sizeof(copied) / sizeof(copied[0]); i++)
		if (json_object_get(spec, copied[i]) != NULL)
			json_object_set(pod, copied[i], json_object_get(spec, copied[i]));
	/* Our programs alone run in it, as what a restricted namespace wants. */
	json_object_set_new(pod, "securityContext",
			    json_pack("{s:b,s:i,s:{s:s}}", "runAsNonRoot", 1, "runAsUser", USER,
				      "seccompProfile", "type", "RuntimeDefault"));
	json_t *objects = json_pack(
		"[{s:s,s:s,s:o,s:{s:s}},{s:s,s:s,s:o,s:{s:i,s:I,s:{s:{s:{s:s}},s:o}}}]",
		"apiVersion", "v1", "kind", "ConfigMap", "metadata",
		metadata_of(tool, name, namespace, tool->first), "data", "jobs.json", text,
		"apiVersion", "batch/v1", "kind", "Job", "metadata",
		metadata_of(tool, hook, namespace, tool->second), "spec", "backoffLimit", 1,
		"activeDeadlineSeconds", (json_int_t)wait_s + END_S, "template", "metadata",
		"labels", "app.kubernetes.io/managed-by", "warmcache", "spec", pod);
	if (objects == NULL)
		return warm_error_nomem(err, 256);
	*ret_objects = objects;
	return 0;
}
