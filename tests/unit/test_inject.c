/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include "lib/kube/inject.h"
#include "lib/kube/yaml.h"

static struct warm_inject_options defaults(void)
{
	return (struct warm_inject_options){ .image = "warmcache:1",
					     .mount = "/warmcache",
					     .config = "warmcache",
					     .init_cpu = "1",
					     .init_memory = "256Mi",
					     .sidecar_cpu = "200m",
					     .sidecar_memory = "128Mi" };
}

/* A manifest and its first template. */
struct made {
	json_t *value;
	struct warm_templates found;
	struct warm_template *template;
	struct warm_inject_report report;
};

static struct made make(const char *text)
{
	scope_yaml struct warm_yaml *yaml = NULL;
	struct warm_error err = { 0 };
	struct made m = { 0 };

	if (warm_yaml_parse("f", text, strlen(text), &yaml, &err) != 0)
		fail_msg("%s of %s", err.msg, text);
	m.value = json_deep_copy(warm_yaml_value(yaml, 0));
	assert_int_equal(warm_templates_find(m.value, &m.found, NULL), 0);
	assert_true(m.found.n > 0);
	m.template = &m.found.items[0];
	return m;
}

static void made_release(struct made *m)
{
	json_decref(m->value);
	warm_templates_release(&m->found);
}
#define scope_made WARM_SCOPE(made_release)

static void inject(struct made *m, const struct warm_inject_options *o)
{
	struct warm_error err = { 0 };

	for (size_t i = 0; i < m->found.n; i++)
		if (warm_inject(&m->found.items[i], o, &m->report, &err) != 0)
			fail_msg("%s", err.msg);
}

static struct made injected(const char *text, const struct warm_inject_options *o)
{
	struct made m = make(text);

	inject(&m, o);
	return m;
}

static void refused(const char *text, const struct warm_inject_options *o, int status,
		    const char *msg)
{
	scope_made struct made m = make(text);
	struct warm_error err = { 0 };

	assert_int_equal(warm_inject(m.template, o, &m.report, &err), status);
	assert_string_equal(err.msg, msg);
}

static json_t *container(const struct made *m, const char *name)
{
	json_t *one = warm_named(json_object_get(m->template->spec, "containers"), name);

	return one != NULL ? one
			   : warm_named(json_object_get(m->template->spec, "initContainers"), name);
}

static void assert_is(const json_t *have, const char *want)
{
	scope_yaml struct warm_yaml *yaml = NULL;
	scope_free char *text = json_dumps(have, JSON_ENCODE_ANY | JSON_INDENT(1));

	if (strcmp(want, "") == 0) {
		assert_null(have);
		return;
	}
	assert_int_equal(warm_yaml_parse("f", want, strlen(want), &yaml, NULL), 0);
	if (!json_equal(have, warm_yaml_value(yaml, 0)))
		fail_msg("%s\nand not\n%s", text, want);
}

/* A variable's value, or what it comes from. "" where there is none. */
static const char *variable(const json_t *of, const char *name)
{
	const json_t *one = warm_named(json_object_get(of, "env"), name);
	const json_t *from = json_object_get(json_object_get(one, "valueFrom"), "fieldRef");
	const char *value = json_string_value(json_object_get(one, "value"));

	if (from != NULL)
		return json_string_value(json_object_get(from, "fieldPath"));
	return value != NULL ? value : "";
}

static void assert_names(const json_t *list, const char *want)
{
	scope_buf struct warm_buf have = WARM_BUF_INIT;
	const json_t *one;
	size_t i;

	json_array_foreach(list, i, one)
		warm_buf_printf(&have, "%s%s", i > 0 ? " " : "",
				json_string_value(json_object_get(one, "name")));
	warm_buf_put_u8(&have, '\0');
	assert_string_equal((const char *)have.data, want);
}

#define POD(metadata, spec) \
	"kind: Pod\napiVersion: v1\nmetadata: {name: llm, " metadata "}\nspec: {" spec "}\n"
#define ONE "containers: [{name: server, image: 'r/llm:v7'}]"
#define SAFE "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"

/* ---- what is added ---- */

TEST(a_pod_gets_a_volume_two_containers_a_mount_variables_and_an_annotation)
{
	struct warm_inject_options o = defaults();
	scope_made struct made m = injected(POD("", ONE), &o);

	assert_is(m.value,
		  "kind: Pod\n"
		  "apiVersion: v1\n"
		  "metadata:\n"
		  "  name: llm\n"
		  "  annotations: {" SAFE ": warmcache}\n"
		  "spec:\n"
		  "  initContainers:\n"
		  "  - name: warmcache-init\n"
		  "    image: warmcache:1\n"
		  "    command: [warmcache-init]\n"
		  "    env: &env\n"
		  "    - {name: WARM_MODEL, value: r+llm}\n"
		  "    - {name: WARM_VERSION, value: v7}\n"
		  "    envFrom: &from\n"
		  "    - configMapRef: {name: warmcache, optional: true}\n"
		  "    - secretRef: {name: warmcache, optional: true}\n"
		  "    resources:\n"
		  "      requests: {cpu: '1', memory: 256Mi}\n"
		  "      limits: {cpu: '1', memory: 256Mi}\n"
		  "    securityContext: &sec\n"
		  "      allowPrivilegeEscalation: false\n"
		  "      readOnlyRootFilesystem: true\n"
		  "      capabilities: {drop: [ALL]}\n"
		  "      seccompProfile: {type: RuntimeDefault}\n"
		  "    volumeMounts: &mount [{name: warmcache, mountPath: /warmcache}]\n"
		  "  - name: warmcache-sidecar\n"
		  "    image: warmcache:1\n"
		  "    restartPolicy: Always\n"
		  "    command: [warmcache-sidecar]\n"
		  "    env: *env\n"
		  "    envFrom: *from\n"
		  "    lifecycle: {preStop: {exec: {command: [warmcache-sidecar, --pre-stop]}}}\n"
		  "    resources:\n"
		  "      requests: {cpu: 200m, memory: 128Mi}\n"
		  "      limits: {cpu: 200m, memory: 128Mi}\n"
		  "    securityContext: *sec\n"
		  "    volumeMounts: *mount\n"
		  "  containers:\n"
		  "  - name: server\n"
		  "    image: r/llm:v7\n"
		  "    volumeMounts: *mount\n"
		  "    env:\n"
		  "    - {name: TORCHINDUCTOR_CACHE_DIR, value: /warmcache/inductor}\n"
		  "    - {name: TRITON_CACHE_DIR, value: /warmcache/triton}\n"
		  "    - {name: VLLM_CACHE_ROOT, value: /warmcache/vllm}\n"
		  "    - {name: JAX_COMPILATION_CACHE_DIR, value: /warmcache/jax}\n"
		  "    - {name: WARM_CACHE_DIR, value: /warmcache}\n"
		  "  volumes: [{name: warmcache, emptyDir: {}}]\n");
	assert_string_equal(m.report.container, "server");
	assert_false(m.report.replaced);
}

TEST(ours_stand_after_the_pods_own_native_sidecars)
{
	struct warm_inject_options o = defaults();
	static const struct {
		const char *spec, *names;
	} rows[] = {
		{ "initContainers: [{name: a}, {name: proxy, restartPolicy: Always}, {name: "
		  "b}], " ONE,
		  "a proxy warmcache-init warmcache-sidecar b" },
		{ "initContainers: [{name: a}, {name: b}], " ONE,
		  "warmcache-init warmcache-sidecar a b" },
		{ "initContainers: [{name: p, restartPolicy: Always}, {name: a}, {name: q, "
		  "restartPolicy: Always}], " ONE,
		  "p a q warmcache-init warmcache-sidecar" },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		char text[1024];
		snprintf(text, sizeof(text), "kind: Pod\napiVersion: v1\nspec: {%s}", rows[i].spec);
		scope_made struct made m = injected(text, &o);
		assert_names(json_object_get(m.template->spec, "initContainers"), rows[i].names);
		inject(&m, &o);
		assert_names(json_object_get(m.template->spec, "initContainers"), rows[i].names);
	}
}

TEST(without_a_sidecar_only_the_init_is_added)
{
	struct warm_inject_options o = defaults();

	o.no_sidecar = true;
	scope_made struct made m = injected(POD("", ONE), &o);
	assert_names(json_object_get(m.template->spec, "initContainers"), "warmcache-init");
}

TEST(what_a_container_sets_stays)
{
	struct warm_inject_options o = defaults();
	scope_made struct made m = injected(
		POD("",
		    "containers: [{name: a, env: [{name: X, value: '1'}, {name: TRITON_CACHE_DIR, "
		    "value: /mine}, {name: VLLM_CACHE_ROOT, valueFrom: {fieldRef: {fieldPath: "
		    "f}}}], "
		    "volumeMounts: [{name: data, mountPath: /data}, {name: warmcache, mountPath: "
		    "/warmcache, subPath: s}]}], volumes: [{name: data}]"),
		&o);
	json_t *one = container(&m, "a");

	assert_names(json_object_get(one, "env"),
		     "X TRITON_CACHE_DIR VLLM_CACHE_ROOT TORCHINDUCTOR_CACHE_DIR "
		     "JAX_COMPILATION_CACHE_DIR WARM_CACHE_DIR");
	assert_string_equal(variable(one, "TRITON_CACHE_DIR"), "/mine");
	assert_string_equal(variable(one, "VLLM_CACHE_ROOT"), "f");
	assert_is(json_object_get(one, "volumeMounts"),
		  "[{name: data, mountPath: /data}, {name: warmcache, mountPath: /warmcache, "
		  "subPath: s}]");
	assert_names(json_object_get(m.template->spec, "volumes"), "data warmcache");
}

TEST(a_volume_of_that_name_that_is_something_else_is_used_as_it_is)
{
	struct warm_inject_options o = defaults();
	scope_made struct made m = injected(
		POD("", ONE ", volumes: [{name: warmcache, emptyDir: {sizeLimit: 1Gi}}]"), &o);
	bool was_there = false;

	assert_is(json_object_get(m.template->spec, "volumes"),
		  "[{name: warmcache, emptyDir: {sizeLimit: 1Gi}}]");
	assert_int_equal(warm_inject_remove(m.template, &was_there, NULL), 0);
	assert_true(was_there);
	assert_is(json_object_get(m.template->spec, "volumes"),
		  "[{name: warmcache, emptyDir: {sizeLimit: 1Gi}}]");
}

TEST(the_annotation_is_a_list_that_others_are_in)
{
	static const struct {
		const char *before, *after;
	} rows[] = {
		{ "a", "a,warmcache" },
		{ "a,b", "a,b,warmcache" },
		{ "warmcache", "warmcache" },
		{ "a,warmcache,b", "a,warmcache,b" },
		{ "warmcache2", "warmcache2,warmcache" },
		{ "''", "warmcache" },
	};
	struct warm_inject_options o = defaults();
	char text[512];

	for (size_t i = 0; i < COUNT(rows); i++) {
		snprintf(text, sizeof(text), POD("annotations: {x: z, " SAFE ": '%s'}", ONE),
			 strcmp(rows[i].before, "''") == 0 ? "" : rows[i].before);
		scope_made struct made m = injected(text, &o);
		assert_string_equal(warm_template_annotation(m.template, SAFE), rows[i].after);
		assert_string_equal(warm_template_annotation(m.template, "x"), "z");
	}
}

TEST(a_template_without_metadata_gets_all_but_the_annotation)
{
	struct warm_inject_options o = defaults();
	scope_made struct made m =
		injected("kind: InferenceService\napiVersion: v1\nmetadata: {name: k}\n"
			 "spec: {predictor: {containers: [{name: c, image: 'i:1'}]}}",
			 &o);

	assert_is(json_object_get(m.value, "metadata"), "{name: k}");
	assert_names(json_object_get(m.template->spec, "initContainers"),
		     "warmcache-init warmcache-sidecar");
	assert_string_equal(variable(container(&m, WARM_INJECT_INIT), "WARM_VERSION"), "1");
}

TEST(the_models_containers_alone_get_mount_and_variables)
{
	static const char *const names[] = { "b", "c" };
	struct warm_inject_options o = defaults();

	o.containers = names;
	o.n_containers = 2;
	scope_made struct made m = injected(POD("", "containers: [{name: a, image: 'a:1'}, {name: "
						    "b, image: 'b:2'}, {name: c, image: 'c:3'}]"),
					    &o);
	assert_is(container(&m, "a"), "{name: a, image: 'a:1'}");
	assert_string_equal(variable(container(&m, "b"), "TRITON_CACHE_DIR"), "/warmcache/triton");
	assert_string_equal(variable(container(&m, "c"), "TRITON_CACHE_DIR"), "/warmcache/triton");
	assert_string_equal(m.report.container, "b");
	assert_string_equal(m.report.version, "2");
}

TEST(compilers_are_those_asked_for)
{
	static const char *const some[] = { "triton,flashinfer", "deepgemm", "tilelang" };
	struct warm_inject_options o = defaults();

	o.compilers = some;
	o.n_compilers = 3;
	scope_made struct made m = injected(POD("annotations: {warmcache.dev/for: jax}", ONE), &o);
	assert_is(json_object_get(container(&m, "server"), "env"),
		  "[{name: TRITON_CACHE_DIR, value: /warmcache/triton}, {name: "
		  "FLASHINFER_WORKSPACE_BASE, "
		  "value: /warmcache/flashinfer}, {name: DG_JIT_CACHE_DIR, value: "
		  "/warmcache/deepgemm}, "
		  "{name: TILELANG_CACHE_DIR, value: /warmcache/tilelang}]");
}

TEST(annotations_say_what_the_options_do_not)
{
	struct warm_inject_options o = defaults();
	scope_made struct made m = injected(
		POD("annotations: {warmcache.dev/for: 'torch, jax', warmcache.dev/container: 'b, "
		    "a'}",
		    "containers: [{name: a, image: 'a:1'}, {name: b, image: 'b:2'}, {name: c}]"),
		&o);

	assert_names(json_object_get(container(&m, "a"), "env"),
		     "TORCHINDUCTOR_CACHE_DIR JAX_COMPILATION_CACHE_DIR");
	assert_is(container(&m, "c"), "{name: c}");
	assert_string_equal(m.report.container, "b");
}

TEST(options_become_variables_of_ours)
{
	static const char *const env[] = { "A=1", "B=x=y", "C=" }, *const stores[] = { "/near",
										       "s3://b/p" };
	struct warm_inject_options o = defaults();

	o.env = env;
	o.n_env = 3;
	o.stores = stores;
	o.n_stores = 2;
	o.mount = "/cache";
	o.config = "";
	o.ready_url = "http://127.0.0.1/health";
	o.ready_match = "ok";
	o.read_only = true;
	o.platform = "h100";
	scope_made struct made m = injected(POD("", ONE), &o);
	for (int i = 0; i < 2; i++) {
		json_t *one = container(&m, i == 0 ? WARM_INJECT_INIT : WARM_INJECT_SIDECAR);
		assert_is(json_object_get(one, "env"),
			  "[{name: WARM_STORE, value: '/near,s3://b/p'}, {name: WARM_MODEL, value: "
			  "r+llm}, "
			  "{name: WARM_VERSION, value: v7}, {name: WARM_PLATFORM, value: h100}, "
			  "{name: "
			  "WARM_VOLUME, value: /cache}, {name: WARM_READY_URL, value: "
			  "'http://127.0.0.1/health'}, "
			  "{name: WARM_READY_MATCH, value: ok}, {name: WARM_MODE, value: "
			  "readonly}, {name: A, "
			  "value: '1'}, {name: B, value: 'x=y'}, {name: C, value: ''}]");
		assert_null(json_object_get(one, "envFrom"));
		assert_is(json_object_get(one, "volumeMounts"),
			  "[{name: warmcache, mountPath: /cache}]");
	}
	assert_string_equal(variable(container(&m, "server"), "WARM_CACHE_DIR"), "/cache");
}

TEST(a_store_that_is_a_directory_is_mounted_as_the_models_container_mounts_it)
{
	static const char *const stores[] = { "/caches/team" };
	struct warm_inject_options o = defaults();

	o.stores = stores;
	o.n_stores = 1;
	scope_made struct made m = injected(
		POD("",
		    "containers: [{name: a, volumeMounts: [{name: x, mountPath: /cache}, {name: s, "
		    "mountPath: /caches/, readOnly: true}, {name: t, mountPath: /caches/team}, "
		    "{name: r, "
		    "mountPath: /}, {name: u, mountPath: /caches/teams}]}]"),
		&o);
	assert_is(json_object_get(container(&m, WARM_INJECT_INIT), "volumeMounts"),
		  "[{name: warmcache, mountPath: /warmcache}, {name: s, mountPath: /caches/, "
		  "readOnly: true}, "
		  "{name: t, mountPath: /caches/team}]");
	assert_is(json_object_get(container(&m, WARM_INJECT_SIDECAR), "volumeMounts"),
		  "[{name: warmcache, mountPath: /warmcache}, {name: s, mountPath: /caches/, "
		  "readOnly: true}, "
		  "{name: t, mountPath: /caches/team}]");
}

/* ---- the key ---- */

TEST(each_part_of_the_key_comes_from_option_annotation_or_image)
{
	static const char all[] = "annotations: {warmcache.dev/model: am, warmcache.dev/version: "
				  "av, warmcache.dev/platform: ap}";
	static const char field[] = "metadata.annotations['warmcache.dev/model']";
	struct warm_inject_options o = defaults();
	char text[512];

	scope_made struct made image = injected(POD("", ONE), &o);
	assert_string_equal(image.report.model, "r+llm");
	assert_string_equal(image.report.version, "v7");
	assert_string_equal(image.report.platform, "auto");
	assert_string_equal(variable(container(&image, WARM_INJECT_INIT), "WARM_PLATFORM"), "");

	snprintf(text, sizeof(text), POD("%s", ONE), all);
	scope_made struct made annotated = injected(text, &o);
	assert_string_equal(annotated.report.model, "am");
	assert_string_equal(annotated.report.version, "av");
	assert_string_equal(annotated.report.platform, "ap");
	json_t *init = container(&annotated, WARM_INJECT_INIT);
	assert_string_equal(variable(init, "WARM_MODEL"), field);
	assert_string_equal(variable(init, "WARM_VERSION"),
			    "metadata.annotations['warmcache.dev/version']");
	assert_string_equal(variable(init, "WARM_PLATFORM"),
			    "metadata.annotations['warmcache.dev/platform']");

	o.version = "ov";
	scope_made struct made mixed = injected(text, &o);
	init = container(&mixed, WARM_INJECT_INIT);
	assert_string_equal(variable(init, "WARM_MODEL"), field);
	assert_string_equal(variable(init, "WARM_VERSION"), "ov");
	assert_string_equal(mixed.report.version, "ov");
}

TEST(the_key_of_a_template_is_told_with_and_without_ours)
{
	struct warm_inject_options o = defaults();
	struct warm_inject_report r;
	scope_made struct made m = make(POD("annotations: {warmcache.dev/version: av}", ONE));

	warm_inject_key(m.template, container(&m, "server"), &r);
	assert_false(r.replaced);
	assert_string_equal(r.container, "server");
	assert_string_equal(r.model, "r+llm");
	assert_string_equal(r.version, "av");
	assert_string_equal(r.platform, "auto");
	o.model = "om";
	inject(&m, &o);
	warm_inject_key(m.template, container(&m, "server"), &r);
	assert_true(r.replaced);
	assert_string_equal(r.model, "om");
	assert_string_equal(r.version, "av");
	json_array_clear(json_object_get(container(&m, WARM_INJECT_INIT), "env"));
	warm_inject_key(m.template, container(&m, "server"), &r);
	assert_string_equal(r.model, "");
	assert_string_equal(r.platform, "auto");
}

TEST(an_image_without_a_name_gives_an_empty_key_and_no_error)
{
	struct warm_inject_options o = defaults();
	scope_made struct made m = injected(POD("", "containers: [{name: a}]"), &o);

	assert_string_equal(m.report.model, "");
	assert_string_equal(m.report.version, "");
}

/* ---- again, and away ---- */

static const char *const shapes[] = {
	POD("", ONE),
	POD("annotations: {a: b}", ONE),
	POD("annotations: {a: b, " SAFE ": data}", ONE),
	POD("labels: {}",
	    ONE ", initContainers: [{name: p, restartPolicy: Always}, {name: i, env: [{name: "
		"TRITON_CACHE_DIR, value: /x}]}], volumes: [{name: w, emptyDir: {}}]"),
	POD("", "containers: [{name: server, image: i, env: [{name: E, value: '1'}, {name: "
		"WARM_CACHE_DIR, value: "
		"/own}], volumeMounts: [{name: d, mountPath: /d}], ports: [{containerPort: 1}]}, "
		"{name: sc, "
		"resources: {}}], restartPolicy: Never"),
	"kind: Deployment\napiVersion: v1\nspec: {replicas: 2, template: {metadata: "
	"{creationTimestamp: null}, "
	"spec: {" ONE "}}}",
	"kind: Deployment\napiVersion: v1\nspec: {template: {spec: {" ONE "}}}",
	"kind: CronJob\napiVersion: v1\nspec: {jobTemplate: {spec: {template: {spec: {" ONE "}}}}}",
	"kind: LeaderWorkerSet\napiVersion: v1\nspec: {leaderWorkerTemplate: {size: 2, "
	"leaderTemplate: {metadata: "
	"{labels: {a: b}}, spec: {" ONE "}}, workerTemplate: {spec: {" ONE "}}}}",
	"kind: List\napiVersion: v1\nitems: [{kind: Pod, apiVersion: v1, spec: {" ONE
	"}}, {kind: ConfigMap, "
	"apiVersion: v1, data: {x: 'containers:'}}, {kind: Job, apiVersion: v1, spec: {template: "
	"{spec: {" ONE "}}}}]",
	"kind: InferenceService\napiVersion: v1\nspec: {predictor: {minReplicas: 1, " ONE "}}",
	"kind: Service\napiVersion: v1\nspec: {template: {metadata: {annotations: {k: v}}, spec: "
	"{containers: "
	"[{image: 'x:1'}], timeoutSeconds: 3}}}",
	"kind: RayCluster\napiVersion: v1\nspec: {headGroupSpec: {template: {spec: {" ONE
	"}}}, workerGroupSpecs: [{replicas: 1, template: {spec: {" ONE "}}}]}",
};

static struct warm_inject_options for_all(const char *shape, const char *const *name)
{
	struct warm_inject_options o = defaults();

	o.containers = name;
	o.n_containers = strstr(shape, "name: server") != NULL;
	return o;
}

TEST(twice_is_once)
{
	static const char *const name[] = { "server" };

	for (size_t i = 0; i < COUNT(shapes); i++) {
		struct warm_inject_options o = for_all(shapes[i], name);
		scope_made struct made m = injected(shapes[i], &o);
		scope_free char *once = json_dumps(m.value, 0);
		inject(&m, &o);
		scope_free char *twice = json_dumps(m.value, 0);
		assert_string_equal(once, twice);
		assert_true(m.report.replaced);
	}
}

TEST(again_with_other_options_is_as_if_with_these_at_once)
{
	static const char *const name[] = { "server" };

	for (size_t i = 0; i < COUNT(shapes); i++) {
		struct warm_inject_options o = for_all(shapes[i], name);
		scope_made struct made m = injected(shapes[i], &o);
		o.mount = "/other";
		o.version = "v9";
		o.image = "warmcache:2";
		o.no_sidecar = true;
		scope_made struct made at_once = injected(shapes[i], &o);
		inject(&m, &o);
		assert_true(json_equal(m.value, at_once.value));
	}
}

TEST(what_was_added_is_taken_out_and_all_else_is_as_it_was)
{
	static const char *const name[] = { "server" };

	for (size_t i = 0; i < COUNT(shapes); i++) {
		struct warm_inject_options o = for_all(shapes[i], name);
		scope_made struct made m = make(shapes[i]);
		scope_free char *before = json_dumps(m.value, 0);
		inject(&m, &o);
		for (size_t k = 0; k < m.found.n; k++) {
			bool was_there = false;
			assert_int_equal(warm_inject_remove(&m.found.items[k], &was_there, NULL),
					 0);
			assert_true(was_there);
		}
		scope_free char *after = json_dumps(m.value, 0);
		assert_string_equal(after, before);
		bool was_there = true;
		assert_int_equal(warm_inject_remove(m.template, &was_there, NULL), 0);
		assert_false(was_there);
	}
}

/* Whether all of `a` is in `b`, lists in their order. */
static bool holds(const json_t *b, const json_t *a)
{
	const char *key;
	const json_t *one;
	size_t i, at = 0;

	if (json_is_object(a)) {
		json_object_foreach((json_t *)(uintptr_t)a, key, one)
			if (!holds(json_object_get(b, key), one))
				return false;
		return true;
	}
	if (!json_is_array(a))
		return json_equal(a, b) ||
		       (json_is_string(a) && json_is_string(b) &&
			strstr(json_string_value(b), json_string_value(a)) != NULL);
	json_array_foreach(a, i, one) {
		while (at < json_array_size(b) && !holds(json_array_get(b, at), one))
			at++;
		if (at++ >= json_array_size(b))
			return false;
	}
	return true;
}

TEST(nothing_that_is_there_is_dropped_or_put_elsewhere)
{
	static const char *const name[] = { "server" };

	for (size_t i = 0; i < COUNT(shapes); i++) {
		struct warm_inject_options o = for_all(shapes[i], name);
		scope_made struct made before = make(shapes[i]);
		scope_made struct made m = injected(shapes[i], &o);
		assert_true(holds(m.value, before.value));
		assert_false(json_equal(m.value, before.value));
	}
}

TEST(a_mount_that_has_a_subpath_is_the_users)
{
	static const char text[] = POD("", "containers: [{name: a, volumeMounts: [{name: "
					   "warmcache, mountPath: /warmcache, subPath: s}]}]");
	struct warm_inject_options o = defaults();
	scope_made struct made m = injected(text, &o);
	bool was_there;

	assert_int_equal(warm_inject_remove(m.template, &was_there, NULL), 0);
	assert_is(json_object_get(container(&m, "a"), "volumeMounts"),
		  "[{name: warmcache, mountPath: /warmcache, subPath: s}]");
}

/* ---- errors ---- */

TEST(a_container_that_is_not_there_is_an_error_and_the_template_is_as_it_was)
{
	static const char *const first[] = { "a", "b" }, *const other[] = { "a", "x" };
	struct warm_inject_options o = defaults();
	struct warm_error err = { 0 };

	o.containers = first;
	o.n_containers = 2;
	scope_made struct made m = injected(POD("", "containers: [{name: a}, {name: b}]"), &o);
	json_t *before = json_deep_copy(m.value);
	o.containers = other;
	assert_int_equal(warm_inject(m.template, &o, &m.report, &err), WARM_NOT_FOUND);
	assert_string_equal(err.msg, "Pod llm: no container 'x' in spec; there are: a, b");
	assert_true(json_equal(m.value, before));
	json_decref(before);
	o = defaults();
	refused(POD("annotations: {warmcache.dev/container: c}", ONE), &o, WARM_NOT_FOUND,
		"Pod llm: no container 'c' in spec; there are: server");
}

TEST(what_is_not_clear_or_taken_is_refused)
{
	struct warm_inject_options o = defaults();

	refused(POD("", "containers: [{name: a}, {name: b}]"), &o, WARM_INVALID,
		"Pod llm: several containers in spec and not just one of them with a GPU: name one "
		"of a, b");
	refused(POD("",
		    "containers: [{name: a, volumeMounts: [{name: x, mountPath: /warmcache}]}]"),
		&o, WARM_INVALID, "Pod llm: container a: the volume x is at /warmcache already");
}

/* ---- flags ---- */

static struct warm_inject_flags flags(void)
{
	return (struct warm_inject_flags){ .image = "i",
					   .mount = "/warmcache",
					   .config = "warmcache",
					   .init_cpu = "1",
					   .init_memory = "256Mi",
					   .sidecar_cpu = "200m",
					   .sidecar_memory = "256Mi" };
}

static void assert_flag(const struct warm_inject_flags *f, const char *msg)
{
	struct warm_inject_options o;
	struct warm_error err = { 0 };
	int rc = warm_inject_take(f, &o, &err);

	assert_int_equal(rc, msg != NULL ? WARM_INVALID : 0);
	assert_string_equal(err.msg, msg != NULL ? msg : "");
}

TEST(flags_are_checked_and_the_error_names_them)
{
	static const char *const good[] = { "1",    "200m", "1.5", "256Mi", "2Gi",
					    "64Ki", "1G",   "1k",  "0" };
	static const char *const bad[] = { "",	 "m",	  "1 Gi", "1gi", "1GB",
					   "-1", "1.2.3", ".",	  "5mm", "1im" };
	static const char *const mounts[] = { "", "warmcache", "/", "/warmcache/", "./x" };
	struct warm_inject_flags f = flags();
	char msg[128];

	assert_flag(&f, NULL);
	f.image = NULL;
	assert_flag(&f, "--image is missing: the image with warmcache's programs");
	f.image = "";
	assert_flag(&f, "--image is missing: the image with warmcache's programs");
	for (size_t i = 0; i < COUNT(good); i++) {
		f = flags();
		f.init_memory = f.sidecar_cpu = good[i];
		assert_flag(&f, NULL);
	}
	for (size_t i = 0; i < COUNT(bad); i++) {
		f = flags();
		f.sidecar_memory = bad[i];
		snprintf(msg, sizeof(msg), "--sidecar-memory: '%s' is no quantity (200m, 256Mi)",
			 bad[i]);
		assert_flag(&f, msg);
	}
	for (size_t i = 0; i < COUNT(mounts); i++) {
		f = flags();
		f.mount = mounts[i];
		snprintf(msg, sizeof(msg), "--mount: '%s' is no absolute path", mounts[i]);
		assert_flag(&f, msg);
	}
	f = flags();
	f.env = (struct warm_option_list){ .items = { "A=1", "=2" }, .n = 2 };
	assert_flag(&f, "--env: '=2' is no NAME=VALUE");
	f.env.items[1] = "B";
	assert_flag(&f, "--env: 'B' is no NAME=VALUE");
	f = flags();
	f.compilers = (struct warm_option_list){ .items = { "torch", "triton,cuda" }, .n = 2 };
	assert_flag(&f, "--for: 'cuda' is no compiler that is known");
	f.compilers.items[1] = "torch,triton,vllm,jax,nvrtc,flashinfer,deepgemm,tilelang";
	assert_flag(&f, NULL);
}

/* ---- faults ---- */

static long left;

static void *scarce(size_t bytes)
{
	return left-- > 0 ? malloc(bytes) : NULL;
}

TEST(without_memory_it_says_so_and_nothing_leaks)
{
	static const char *const stores[] = { "/caches/a" }, *const env[] = { "A=1" };
	struct warm_inject_options o = defaults();
	json_malloc_t old_malloc;
	json_free_t old_free;
	bool done = false;

	o.stores = stores;
	o.n_stores = 1;
	o.env = env;
	o.n_env = 1;
	json_get_alloc_funcs(&old_malloc, &old_free);
	for (long n = 0; !done; n++) {
		scope_made struct made m = make(POD(
			"annotations: {warmcache.dev/model: m}",
			"containers: [{name: a, volumeMounts: [{name: c, mountPath: /caches}]}]"));
		struct warm_error err = { 0 };
		left = n;
		json_set_alloc_funcs(scarce, free);
		int rc = warm_inject(m.template, &o, &m.report, &err);
		json_set_alloc_funcs(old_malloc, old_free);
		assert_int_equal(rc, err.status);
		if (rc != 0)
			assert_int_equal(rc, WARM_NO_MEMORY);
		done = rc == 0;
		if (done) {
			scope_made struct made whole =
				make(POD("annotations: {warmcache.dev/model: m}",
					 "containers: [{name: a, volumeMounts: [{name: c, "
					 "mountPath: /caches}]}]"));
			inject(&whole, &o);
			assert_true(json_equal(whole.value, m.value));
			assert_true(n > 100);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			a_pod_gets_a_volume_two_containers_a_mount_variables_and_an_annotation),
		cmocka_unit_test(ours_stand_after_the_pods_own_native_sidecars),
		cmocka_unit_test(without_a_sidecar_only_the_init_is_added),
		cmocka_unit_test(what_a_container_sets_stays),
		cmocka_unit_test(a_volume_of_that_name_that_is_something_else_is_used_as_it_is),
		cmocka_unit_test(the_annotation_is_a_list_that_others_are_in),
		cmocka_unit_test(a_template_without_metadata_gets_all_but_the_annotation),
		cmocka_unit_test(the_models_containers_alone_get_mount_and_variables),
		cmocka_unit_test(compilers_are_those_asked_for),
		cmocka_unit_test(annotations_say_what_the_options_do_not),
		cmocka_unit_test(options_become_variables_of_ours),
		cmocka_unit_test(
			a_store_that_is_a_directory_is_mounted_as_the_models_container_mounts_it),
		cmocka_unit_test(each_part_of_the_key_comes_from_option_annotation_or_image),
		cmocka_unit_test(the_key_of_a_template_is_told_with_and_without_ours),
		cmocka_unit_test(an_image_without_a_name_gives_an_empty_key_and_no_error),
		cmocka_unit_test(twice_is_once),
		cmocka_unit_test(again_with_other_options_is_as_if_with_these_at_once),
		cmocka_unit_test(what_was_added_is_taken_out_and_all_else_is_as_it_was),
		cmocka_unit_test(nothing_that_is_there_is_dropped_or_put_elsewhere),
		cmocka_unit_test(a_mount_that_has_a_subpath_is_the_users),
		cmocka_unit_test(
			a_container_that_is_not_there_is_an_error_and_the_template_is_as_it_was),
		cmocka_unit_test(what_is_not_clear_or_taken_is_refused),
		cmocka_unit_test(flags_are_checked_and_the_error_names_them),
		cmocka_unit_test(without_memory_it_says_so_and_nothing_leaks),
	};

	return RUN(tests);
}
