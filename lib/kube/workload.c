/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/kube/workload.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "lib/base/buf.h"

enum { MAX_LEVELS = 24 };

static bool is_pod_spec(const json_t *value)
{
	const json_t *containers = json_object_get(value, "containers"), *one;
	size_t i;

	json_array_foreach(containers, i, one)
		if (!json_is_string(json_object_get(one, "name")) &&
		    !json_is_string(json_object_get(one, "image")))
			return false;
	return json_array_size(containers) > 0;
}

static int add(struct warm_templates *t, struct warm_template found, struct warm_error *err)
{
	if (t->n == t->capacity) {
		size_t more = t->capacity == 0 ? 8 : 2 * t->capacity;
		struct warm_template *p = reallocarray(t->items, more, sizeof(*p));
		if (p == NULL)
			return warm_error_nomem(err, more * sizeof(*p));
		t->items = p;
		t->capacity = more;
	}
	t->items[t->n++] = found;
	return 0;
}

static bool is_object(const json_t *value)
{
	return json_is_string(json_object_get(value, "kind")) &&
	       json_is_string(json_object_get(value, "apiVersion"));
}

static int find(json_t *value, json_t *object, const char *path, unsigned level,
		struct warm_templates *t, struct warm_error *err);

static int find_member(json_t *value, const char *key, json_t *member, json_t *object,
		       const char *path, unsigned level, struct warm_templates *t,
		       struct warm_error *err)
{
	struct warm_template found = { .object = object, .spec = member };

	if (strcmp(key, "status") == 0 || strcmp(key, "metadata") == 0)
		return 0;
	snprintf(found.path, sizeof(found.path), "%.90s%s%.30s", path, path[0] != '\0' ? "." : "",
		 key);
	if (!is_pod_spec(member))
		return find(member, object, found.path, level + 1, t, err);
	if (strcmp(key, "spec") == 0)
		found.pod = value;
	return add(t, found, err);
}

static int find(json_t *value, json_t *object, const char *path, unsigned level,
		struct warm_templates *t, struct warm_error *err)
{
	const char *key;
	json_t *member;
	size_t i;
	int rc = 0;

	if (level > MAX_LEVELS)
		return 0;
	if (is_object(value)) {
		object = value;
		path = "";
	}
	json_array_foreach(value, i, member)
		if (rc == 0)
			rc = find(member, object, path, level + 1, t, err);
	json_object_foreach(value, key, member)
		if (rc == 0)
			rc = find_member(value, key, member, object, path, level, t, err);
	return rc;
}

int warm_templates_find(json_t *manifest, struct warm_templates *templates, struct warm_error *err)
{
	return find(manifest, manifest, "", 0, templates, err);
}

void warm_templates_release(struct warm_templates *templates)
{
	free(templates->items);
	*templates = (struct warm_templates){ 0 };
}

const char *warm_template_text(const struct warm_template *template, char ret_text[256])
{
	const char *kind = json_string_value(json_object_get(template->object, "kind"));
	const json_t *metadata = json_object_get(template->object, "metadata");
	const char *name = json_string_value(json_object_get(metadata, "name"));

	if (name == NULL)
		name = json_string_value(json_object_get(metadata, "generateName"));
	snprintf(ret_text, 256, "%.80s %.160s", kind != NULL ? kind : "?",
		 name != NULL ? name : "without a name");
	return ret_text;
}

const char *warm_template_annotation(const struct warm_template *template, const char *name)
{
	const json_t *metadata = json_object_get(template->pod, "metadata");

	return json_string_value(json_object_get(json_object_get(metadata, "annotations"), name));
}

json_t *warm_named(const json_t *list, const char *name)
{
	json_t *one;
	size_t i;

	json_array_foreach(list, i, one) {
		const char *other = json_string_value(json_object_get(one, "name"));
		if (other != NULL && strcmp(other, name) == 0)
			return one;
	}
	return NULL;
}

const char *warm_member_text(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text != NULL ? text : "";
}

bool warm_member_is(const json_t *object, const char *name, const char *text)
{
	const char *value = json_string_value(json_object_get(object, name));

	return value != NULL && strcmp(value, text) == 0;
}

json_t *warm_member(json_t *object, const char *name, bool array)
{
	json_t *member = json_object_get(object, name);

	if (array ? json_is_array(member) : json_is_object(member))
		return member;
	member = array ? json_array() : json_object();
	return json_object_set_new(object, name, member) == 0 ? member : NULL;
}

bool warm_container_has_gpu(const json_t *container)
{
	static const char *const makers[] = { "nvidia.com/", "amd.com/", "gpu.intel.com/" };
	json_t *resources = json_object_get(container, "resources");
	const char *key;
	json_t *amount;

	json_object_foreach(json_object_get(resources, "limits"), key, amount)
		for (size_t i = 0; i < sizeof(makers) / sizeof(makers[0]); i++)
			if (strncmp(key, makers[i], strlen(makers[i])) == 0)
				return true;
	return json_array_size(json_object_get(resources, "claims")) > 0;
}

static void name_all(const json_t *containers, struct warm_buf *ret_text)
{
	const json_t *one;
	size_t i;

	json_array_foreach(containers, i, one) {
		const char *name = json_string_value(json_object_get(one, "name"));
		warm_buf_printf(ret_text, "%s%.63s", i > 0 ? ", " : "", name != NULL ? name : "?");
	}
	warm_buf_put_u8(ret_text, '\0');
}

int warm_template_container(const struct warm_template *template, const char *const *names,
			    size_t n_names, json_t **ret_container, struct warm_error *err)
{
	json_t *containers = json_object_get(template->spec, "containers"), *one, *found = NULL;
	scope_buf struct warm_buf all = WARM_BUF_INIT;
	char text[256];
	size_t i, n = 0;

	if (n_names > 0)
		found = warm_named(containers, names[0]);
	else if (json_array_size(containers) == 1)
		found = json_array_get(containers, 0);
	if (n_names == 0 && found == NULL) {
		json_array_foreach(containers, i, one) {
			if (!warm_container_has_gpu(one))
				continue;
			found = one;
			n++;
		}
		if (n != 1)
			found = NULL;
	}
	if (found != NULL) {
		*ret_container = found;
		return 0;
	}
	name_all(containers, &all);
	warm_template_text(template, text);
	if (all.failed)
		return warm_error_nomem(err, 64);
	return n_names > 0 ? warm_error_set(err, WARM_NOT_FOUND,
					    "%s: no container '%.63s' in %s; there are: %.200s",
					    text, names[0], template->path, (const char *)all.data)
			   : warm_error_set(err, WARM_INVALID,
					    "%s: several containers in %s and not just one of them "
					    "with a GPU: name one of %.200s",
					    text, template->path, (const char *)all.data);
}

void warm_image_parse(const char *text, struct warm_image *ret_image)
{
	static const char *const moving[] = { "latest", "main",	   "master", "stable",
					      "dev",	"nightly", "edge",   "head" };
	const char *digest = strchr(text, '@');
	size_t bytes = digest != NULL ? (size_t)(digest - text) : strlen(text);
	const char *slash = memrchr(text, '/', bytes), *from = slash != NULL ? slash : text;
	const char *colon = memchr(from, ':', bytes - (size_t)(from - text));
	size_t repository = colon != NULL ? (size_t)(colon - text) : bytes;

	*ret_image = (struct warm_image){ 0 };
	snprintf(ret_image->model, sizeof(ret_image->model), "%.*s", (int)repository, text);
	for (char *p = ret_image->model; *p != '\0'; p++)
		if (*p == '/')
			*p = '+';
	if (digest != NULL) {
		snprintf(ret_image->version, sizeof(ret_image->version), "%s", digest + 1);
		return;
	}
	if (colon == NULL)
		return;
	snprintf(ret_image->version, sizeof(ret_image->version), "%s", colon + 1);
	/* "latest-cu128", "dev-2": by word. */
	for (const char *at = ret_image->version; *at != '\0';) {
		size_t n = strcspn(at, "-_.");
		for (size_t i = 0; i < sizeof(moving) / sizeof(moving[0]); i++)
			if (strlen(moving[i]) == n && strncasecmp(at, moving[i], n) == 0) {
				ret_image->version[0] = '\0';
				return;
			}
		at += n + (at[n] != '\0');
	}
}
