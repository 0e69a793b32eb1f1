/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests. What is parsed and then changed, by inject where there are pod templates and in many
 * places elsewhere, is written as text that means just that; inject twice is inject once. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/kube/inject.h"
#include "lib/kube/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void must(bool holds)
{
	if (!holds)
		abort();
}

static const struct warm_inject_options options = {
	.image = "warmcache:1",
	.mount = "/warmcache",
	.config = "warmcache",
	.init_cpu = "1",
	.init_memory = "256Mi",
	.sidecar_cpu = "200m",
	.sidecar_memory = "256Mi",
};

/* All templates of a document; false: the document is to stay as it was. */
static bool inject(json_t *manifest)
{
	scope_templates struct warm_templates found = { 0 };
	struct warm_inject_report report;

	must(warm_templates_find(manifest, &found, NULL) == 0);
	for (size_t i = 0; i < found.n; i++) {
		struct warm_error err = { 0 };
		int rc = warm_inject(&found.items[i], &options, &report, &err);
		must(rc == err.status && (rc == 0 || err.msg[0] != '\0'));
		if (rc != 0)
			return false;
	}
	return found.n > 0;
}

struct seed {
	uint32_t state;
};

static uint32_t next(struct seed *seed)
{
	seed->state = seed->state * 1664525 + 1013904223;
	return seed->state >> 16;
}

static void change_one(json_t *value, struct seed *seed)
{
	const char *key;
	json_t *one;
	void *next_one;
	size_t i;

	if (json_is_object(value)) {
		json_object_foreach_safe(value, next_one, key, one)
		{
			uint32_t what = next(seed) % 16;
			if (what == 0)
				json_object_del(value, key);
			else if (what == 1)
				json_object_set_new(value, key, json_string("yes: #"));
			else if (what > 4)
				change_one(one, seed);
		}
		if (next(seed) % 4 == 0)
			json_object_set_new(value, "added",
					    json_pack("[{s:s,s:n}]", "name", "a\n", "b"));
	} else if (json_is_array(value)) {
		json_array_foreach(value, i, one)
			change_one(one, seed);
		if (next(seed) % 4 == 0 && json_array_size(value) > 0)
			json_array_remove(value, next(seed) % json_array_size(value));
		if (next(seed) % 4 == 0)
			json_array_insert_new(value, next(seed) % (json_array_size(value) + 1),
					      json_pack("{s:i}", "k", 1));
	}
}

/* Write with the document's values in `wanted`, and read it again. */
static void rewrite(struct warm_yaml *yaml, json_t *wanted)
{
	scope_buf struct warm_buf text = WARM_BUF_INIT;
	scope_yaml struct warm_yaml *again = NULL;
	struct warm_error err = { 0 };
	size_t anew = 0, i;
	json_t *one;

	json_array_foreach(wanted, i, one)
		warm_yaml_replace(yaml, i, one);
	int rc = warm_yaml_write(yaml, &text, &anew, &err);
	must(rc == err.status);
	if (rc == WARM_UNSUPPORTED)
		return;
	must(rc == 0 && anew <= warm_yaml_count(yaml));
	must(warm_yaml_parse("", (const char *)text.data, text.bytes, &again, NULL) == 0);
	must(warm_yaml_count(again) == json_array_size(wanted));
	json_array_foreach(wanted, i, one)
		must(json_equal(warm_yaml_value(again, i), one));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct warm_error err = { 0 };
	struct seed seed = { (uint32_t)bytes };

	for (int pass = 0; pass < 3; pass++) {
		scope_yaml struct warm_yaml *yaml = NULL;
		int rc = warm_yaml_parse("f", (const char *)data, bytes, &yaml, &err);
		must(rc == err.status);
		if (rc != 0) {
			must((rc == WARM_INVALID || rc == WARM_LIMIT) && err.msg[0] != '\0');
			return 0;
		}
		json_t *wanted = json_array();
		for (size_t i = 0; i < warm_yaml_count(yaml); i++) {
			json_t *value = json_deep_copy(warm_yaml_value(yaml, i));
			must(warm_yaml_line(yaml, i) > 0);
			if (pass == 0 && inject(value)) {
				json_t *once = json_deep_copy(value);
				must(inject(value) && json_equal(once, value));
				json_decref(once);
			} else if (pass == 0) {
				json_decref(value);
				value = json_deep_copy(warm_yaml_value(yaml, i));
			} else {
				seed.state += i < bytes ? data[i] : 0;
				change_one(value, &seed);
			}
			json_array_append_new(wanted, value);
		}
		rewrite(yaml, wanted);
		json_decref(wanted);
	}
	return 0;
}
