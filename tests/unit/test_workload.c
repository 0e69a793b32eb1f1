/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include "lib/kube/workload.h"
#include "lib/kube/yaml.h"

static json_t *manifest(const char *text)
{
	scope_yaml struct warm_yaml *yaml = NULL;
	struct warm_error err = { 0 };

	if (warm_yaml_parse("f", text, strlen(text), &yaml, &err) != 0)
		fail_msg("%s", err.msg);
	return json_deep_copy(warm_yaml_value(yaml, 0));
}

/* "text path" of each template, with " -" where the pod's metadata isn't to be had. */
static void assert_found(const char *text, const char *want)
{
	scope_templates struct warm_templates found = { 0 };
	scope_buf struct warm_buf have = WARM_BUF_INIT;
	json_t *value = manifest(text);
	char name[256];

	assert_int_equal(warm_templates_find(value, &found, NULL), 0);
	for (size_t i = 0; i < found.n; i++)
		warm_buf_printf(&have, "%s %s%s\n", warm_template_text(&found.items[i], name),
				found.items[i].path, found.items[i].pod == NULL ? " -" : "");
	warm_buf_put_u8(&have, '\0');
	assert_string_equal((const char *)have.data, want);
	json_decref(value);
}

#define HEAD(kind) "kind: " kind "\napiVersion: v1\nmetadata: {name: m}\n"
#define SPEC "spec: {containers: [{name: c}]}"

TEST(a_template_is_found_by_its_shape)
{
	static const struct {
		const char *text, *want;
	} rows[] = {
		{ HEAD("Pod") SPEC, "Pod m spec\n" },
		{ HEAD("Deployment") "spec: {template: {" SPEC "}}",
		  "Deployment m spec.template.spec\n" },
		{ HEAD("StatefulSet") "spec: {template: {" SPEC
				      "}, volumeClaimTemplates: [{metadata: {}}]}",
		  "StatefulSet m spec.template.spec\n" },
		{ HEAD("DaemonSet") "spec: {template: {" SPEC "}}",
		  "DaemonSet m spec.template.spec\n" },
		{ HEAD("Job") "spec: {template: {" SPEC "}}", "Job m spec.template.spec\n" },
		{ HEAD("CronJob") "spec: {jobTemplate: {spec: {template: {" SPEC "}}}}",
		  "CronJob m spec.jobTemplate.spec.template.spec\n" },
		{ HEAD("LeaderWorkerSet") "spec: {leaderWorkerTemplate: {leaderTemplate: {" SPEC
					  "}, workerTemplate: {" SPEC "}}}",
		  "LeaderWorkerSet m spec.leaderWorkerTemplate.leaderTemplate.spec\n"
		  "LeaderWorkerSet m spec.leaderWorkerTemplate.workerTemplate.spec\n" },
		{ "kind: List\napiVersion: v1\nitems:\n- kind: Pod\n  apiVersion: v1\n  metadata: "
		  "{name: a}\n"
		  "  " SPEC "\n- {kind: Service, apiVersion: v1, spec: {ports: [{name: p}]}}\n"
		  "- kind: Job\n  apiVersion: v1\n  metadata: {generateName: b-}\n  spec: "
		  "{template: {" SPEC "}}\n",
		  "Pod a spec\nJob b- spec.template.spec\n" },
		{ HEAD("InferenceService") "spec: {predictor: {minReplicas: 1, containers: [{name: "
					   "kserve-container, image: i}]}}",
		  "InferenceService m spec.predictor -\n" },
		{ HEAD("Service") "spec: {template: {spec: {containers: [{image: i}]}}}",
		  "Service m spec.template.spec\n" },
		{ HEAD("PyTorchJob") "spec: {pytorchReplicaSpecs: {Master: {template: {" SPEC
				     "}}, Worker: {template: {" SPEC "}}}}",
		  "PyTorchJob m spec.pytorchReplicaSpecs.Master.template.spec\n"
		  "PyTorchJob m spec.pytorchReplicaSpecs.Worker.template.spec\n" },
		{ HEAD("RayCluster") "spec: {headGroupSpec: {template: {" SPEC
				     "}}, workerGroupSpecs: [{template: "
				     "{" SPEC "}}, {template: {" SPEC "}}]}",
		  "RayCluster m spec.headGroupSpec.template.spec\n"
		  "RayCluster m spec.workerGroupSpecs.template.spec\n"
		  "RayCluster m spec.workerGroupSpecs.template.spec\n" },
		{ "apiVersion: v1\nkind: Pod\n" SPEC, "Pod without a name spec\n" },
		{ SPEC, "? without a name spec\n" },
	};

	for (size_t i = 0; i < COUNT(rows); i++)
		assert_found(rows[i].text, rows[i].want);
}

TEST(what_only_looks_like_a_template_is_none)
{
	static const char *const rows[] = {
		HEAD("ConfigMap") "data:\n  pod.yaml: |\n    spec:\n      containers: [{name: "
				  "c}]\n",
		HEAD("CustomResourceDefinition") "spec: {versions: [{schema: {openAPIV3Schema: "
						 "{properties: "
						 "{spec: {properties: {containers: {type: array, "
						 "items: "
						 "{properties: {name: {type: string}}}}}}}}}}]}",
		HEAD("Pod") "spec: {containers: []}",
		HEAD("Pod") "spec: {containers: {name: c}}",
		HEAD("Pod") "spec: {containers: [c]}",
		HEAD("Pod") "spec: {containers: [{name: c}, {nothing: 1}]}",
		HEAD("Pod") "spec: {containers: [{name: 1}]}",
		HEAD("Pod") "status: {spec: {containers: [{name: c}]}}",
		"kind: Pod\napiVersion: v1\nmetadata: {spec: {containers: [{name: c}]}}",
		"containers: [{name: c}]",
		"[]",
		"text",
		"null",
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		scope_templates struct warm_templates found = { 0 };
		json_t *value = manifest(rows[i]);
		assert_int_equal(warm_templates_find(value, &found, NULL), 0);
		if (found.n != 0)
			fail_msg("found in %s", rows[i]);
		json_decref(value);
	}
}

TEST(templates_are_appended_and_any_number_is_found)
{
	scope_templates struct warm_templates found = { 0 };
	json_t *one = manifest(HEAD("Pod") SPEC), *many = json_pack("{s:[]}", "items");

	for (int i = 0; i < 50; i++)
		json_array_append(json_object_get(many, "items"), one);
	assert_int_equal(warm_templates_find(one, &found, NULL), 0);
	assert_int_equal(warm_templates_find(many, &found, NULL), 0);
	assert_int_equal(found.n, 51);
	assert_ptr_equal(found.items[50].object, one);
	assert_ptr_equal(found.items[0].spec, json_object_get(one, "spec"));
	json_decref(one);
	json_decref(many);
}

TEST(annotations_are_the_pods_and_not_the_workloads)
{
	scope_templates struct warm_templates found = { 0 };
	json_t *value = manifest(
		"kind: Deployment\napiVersion: v1\nmetadata: {annotations: {a: outer, b: x}}\n"
		"spec: {template: {metadata: {annotations: {a: inner, n: 1}}, " SPEC "}}");

	assert_int_equal(warm_templates_find(value, &found, NULL), 0);
	assert_string_equal(warm_template_annotation(&found.items[0], "a"), "inner");
	assert_null(warm_template_annotation(&found.items[0], "b"));
	assert_null(warm_template_annotation(&found.items[0], "n"));
	json_decref(value);
}

static int choose(const char *containers, const char *name, const char **ret_name,
		  struct warm_error *err)
{
	static char chosen[64];
	json_t *spec = manifest(containers), *found = NULL;
	struct warm_template template = { .object = spec, .spec = spec, .path = "spec" };

	int rc = warm_template_container(&template, &name, name != NULL, &found, err);
	if (rc == 0) {
		const char *text = json_string_value(json_object_get(found, "name"));
		snprintf(chosen, sizeof(chosen), "%s", text != NULL ? text : "");
		*ret_name = chosen;
	}
	json_decref(spec);
	return rc;
}

TEST(the_models_container_is_the_one_named_the_only_one_or_the_one_with_a_gpu)
{
	static const struct {
		const char *containers, *name, *want;
	} rows[] = {
		{ "containers: [{name: a}]", NULL, "a" },
		{ "containers: [{image: x}]", NULL, "" },
		{ "containers: [{name: a}, {name: b}]", "b", "b" },
		{ "containers: [{name: a}, {name: b, resources: {limits: {nvidia.com/gpu: 1}}}]",
		  NULL, "b" },
		{ "containers: [{name: a, resources: {limits: {nvidia.com/gpu: 1}}}, {name: b}]",
		  "b", "b" },
		{ "containers: [{name: a, resources: {limits: {nvidia.com/mig-1g.5gb: 1}}}, {name: "
		  "b}]",
		  NULL, "a" },
		{ "containers: [{name: a}, {name: b, resources: {limits: {amd.com/gpu: 1}}}]", NULL,
		  "b" },
		{ "containers: [{name: a}, {name: b, resources: {limits: {gpu.intel.com/i915: "
		  "1}}}]",
		  NULL, "b" },
		{ "containers: [{name: a}, {name: b, resources: {claims: [{name: gpu}]}}]", NULL,
		  "b" },
	};
	const char *have;

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct warm_error err = { 0 };
		if (choose(rows[i].containers, rows[i].name, &have, &err) != 0)
			fail_msg("%s", err.msg);
		assert_string_equal(have, rows[i].want);
	}
}

TEST(where_it_is_not_clear_the_error_names_those_that_are_there)
{
	static const struct {
		const char *containers, *name;
		int status;
		const char *msg;
	} rows[] = {
		{ "containers: [{name: a}, {image: x}]", "c", WARM_NOT_FOUND,
		  "? without a name: no container 'c' in spec; there are: a, ?" },
		{ "containers: [{name: a}, {name: b}]", NULL, WARM_INVALID,
		  "? without a name: several containers in spec and not just one of them with a "
		  "GPU: name "
		  "one of a, b" },
		{ "containers: [{name: a, resources: {limits: {amd.com/gpu: 1}}}, {name: b, "
		  "resources: "
		  "{limits: {nvidia.com/gpu: 1}}}]",
		  NULL, WARM_INVALID,
		  "? without a name: several containers in spec and not just one of them with a "
		  "GPU: name "
		  "one of a, b" },
		{ "containers: [{name: a, resources: {requests: {nvidia.com/gpu: 1}}}, {name: b, "
		  "resources: "
		  "{limits: {cpu: 1}, claims: []}}]",
		  NULL, WARM_INVALID,
		  "? without a name: several containers in spec and not just one of them with a "
		  "GPU: name "
		  "one of a, b" },
	};
	const char *have = NULL;

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct warm_error err = { 0 };
		assert_int_equal(choose(rows[i].containers, rows[i].name, &have, &err),
				 rows[i].status);
		assert_string_equal(err.msg, rows[i].msg);
		assert_null(have);
	}
}

TEST(an_elements_name_is_a_string)
{
	json_t *list = manifest("[{name: a}, x, {name: 1}, {name: b, v: 1}, {name: b, v: 2}]");

	assert_ptr_equal(warm_named(list, "b"), json_array_get(list, 3));
	assert_null(warm_named(list, "1"));
	assert_null(warm_named(list, "c"));
	assert_null(warm_named(NULL, "a"));
	json_decref(list);
}

TEST(a_member_that_lacks_is_made)
{
	json_t *object = manifest("{a: [1], o: {x: 1}, s: text, z: null}");

	assert_ptr_equal(warm_member(object, "a", true), json_object_get(object, "a"));
	assert_int_equal(json_array_size(warm_member(object, "a", true)), 1);
	assert_int_equal(json_object_size(warm_member(object, "o", false)), 1);
	assert_true(json_is_array(warm_member(object, "n", true)));
	assert_true(json_is_object(warm_member(object, "z", false)));
	json_decref(object);
}

TEST(an_images_name_says_model_and_version)
{
	static const struct {
		const char *text, *model, *version;
	} rows[] = {
		{ "llm", "llm", "" },
		{ "llm:v1", "llm", "v1" },
		{ "r8.im/team/llm:v1", "r8.im+team+llm", "v1" },
		{ "host:5000/llm", "host:5000+llm", "" },
		{ "host:5000/a/b:v1.2", "host:5000+a+b", "v1.2" },
		{ "a/b@sha256:0123", "a+b", "sha256:0123" },
		{ "a/b:v1@sha256:0123", "a+b", "sha256:0123" },
		{ "host:5000/b:latest@sha256:0123", "host:5000+b", "sha256:0123" },
		{ "a:latest", "a", "" },
		{ "a:main", "a", "" },
		{ "a:master", "a", "" },
		{ "a:stable", "a", "" },
		{ "a:dev", "a", "" },
		{ "a:nightly", "a", "" },
		{ "a:edge", "a", "" },
		{ "a:head", "a", "" },
		{ "a:latest-1", "a", "" },
		{ "a:Main", "a", "" },
		{ "a:v1-dev_2", "a", "" },
		{ "a:v1.dev3", "a", "v1.dev3" },
		{ "", "", "" },
	};
	struct warm_image image;

	for (size_t i = 0; i < COUNT(rows); i++) {
		warm_image_parse(rows[i].text, &image);
		assert_string_equal(image.model, rows[i].model);
		assert_string_equal(image.version, rows[i].version);
	}
}

TEST(an_image_that_is_too_long_is_cut)
{
	struct warm_image image;
	char text[2000];

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	text[1000] = ':';
	warm_image_parse(text, &image);
	assert_int_equal(strlen(image.model), WARM_IMAGE_TEXT - 1);
	assert_int_equal(strlen(image.version), WARM_IMAGE_TEXT - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_template_is_found_by_its_shape),
		cmocka_unit_test(what_only_looks_like_a_template_is_none),
		cmocka_unit_test(templates_are_appended_and_any_number_is_found),
		cmocka_unit_test(annotations_are_the_pods_and_not_the_workloads),
		cmocka_unit_test(
			the_models_container_is_the_one_named_the_only_one_or_the_one_with_a_gpu),
		cmocka_unit_test(where_it_is_not_clear_the_error_names_those_that_are_there),
		cmocka_unit_test(an_elements_name_is_a_string),
		cmocka_unit_test(a_member_that_lacks_is_made),
		cmocka_unit_test(an_images_name_says_model_and_version),
		cmocka_unit_test(an_image_that_is_too_long_is_cut),
	};

	return RUN(tests);
}
