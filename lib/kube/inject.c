/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/kube/inject.h"

#include <stdio.h>
#include <string.h>

#include "lib/base/buf.h"

#define SAFE_TO_EVICT "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"

/* Where each compiler keeps its cache: a variable, and a directory of the volume that is the
 * profile's root. The first ones are those by default. */
static const struct {
	const char *name, *variable, *directory;
} compilers[] = {
	{ "torch", "TORCHINDUCTOR_CACHE_DIR", "/inductor" },
	{ "triton", "TRITON_CACHE_DIR", "/triton" },
	{ "vllm", "VLLM_CACHE_ROOT", "/vllm" },
	{ "jax", "JAX_COMPILATION_CACHE_DIR", "/jax" },
	{ "nvrtc", "WARM_CACHE_DIR", "" },
	{ "flashinfer", "FLASHINFER_WORKSPACE_BASE", "/flashinfer" },
	{ "deepgemm", "DG_JIT_CACHE_DIR", "/deepgemm" },
	{ "tilelang", "TILELANG_CACHE_DIR", "/tilelang" },
};

enum { N_COMPILERS = sizeof(compilers) / sizeof(compilers[0]) };

static int no_memory(struct warm_error *err)
{
	return warm_error_nomem(err, 256);
}

/* ---- options ---- */

enum { MAX_NAMES = WARM_OPTION_LIST_MAX };

/* Names separated by commas, in a copy. */
struct names {
	char *text;
	const char *items[MAX_NAMES];
	size_t n;
};

static void names_release(struct names *names)
{
	free(names->text);
}

static int split(const char *text, struct names *names, struct warm_error *err)
{
	char *save = NULL;

	names->text = strdup(text);
	if (names->text == NULL)
		return no_memory(err);
	for (char *p = strtok_r(names->text, ", ", &save); p != NULL && names->n < MAX_NAMES;
	     p = strtok_r(NULL, ", ", &save))
		names->items[names->n++] = p;
	return 0;
}

static int is_compiler(const char *name, size_t bytes)
{
	for (size_t i = 0; i < N_COMPILERS; i++)
		if (strlen(compilers[i].name) == bytes &&
		    memcmp(compilers[i].name, name, bytes) == 0)
			return true;
	return false;
}

static int check_compilers(const struct warm_option_list *list, struct warm_error *err)
{
	for (size_t i = 0; i < list->n; i++) {
		for (const char *at = list->items[i]; *at != '\0';) {
			size_t n = strcspn(at, ",");
			if (!is_compiler(at, n))
				return warm_error_set(err, WARM_INVALID,
						      "--for: '%.*s' is no compiler that is known",
						      (int)(n < 64 ? n : 64), at);
			at += n + (at[n] == ',');
		}
	}
	return 0;
}

static int check_quantity(const char *flag, const char *text, struct warm_error *err)
{
	static const char *const units[] = { "",  "m",	"k",  "M",  "G",  "T",	"P",
					     "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei" };
	size_t whole = strspn(text, "0123456789"), digits = whole;
	bool known = false;

	if (text[digits] == '.')
		digits += 1 + strspn(text + digits + 1, "0123456789");
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]) && !known; i++)
		known = strcmp(text + digits, units[i]) == 0;
	if (whole == 0 || !known)
		return warm_error_set(err, WARM_INVALID,
				      "--%s: '%.64s' is no quantity (200m, 256Mi)", flag, text);
	return 0;
}

int warm_inject_take(const struct warm_inject_flags *flags, struct warm_inject_options *ret_options,
		     struct warm_error *err)
{
	if (flags->image == NULL || flags->image[0] == '\0')
		return warm_error_set(err, WARM_INVALID,
				      "--image is missing: the image with warmcache's programs");
	const char *mount = flags->mount != NULL ? flags->mount : "/warmcache";
	if (mount[0] != '/' || mount[1] == '\0' || mount[strlen(mount) - 1] == '/' ||
	    strlen(mount) > 400)
		return warm_error_set(err, WARM_INVALID, "--mount: '%.128s' is no absolute path",
				      mount);
	for (size_t i = 0; i < flags->env.n; i++)
		if (strchr(flags->env.items[i], '=') == NULL || flags->env.items[i][0] == '=')
			return warm_error_set(err, WARM_INVALID, "--env: '%.128s' is no NAME=VALUE",
					      flags->env.items[i]);
	int rc = check_compilers(&flags->compilers, err);
	if (rc == 0 && flags->init_cpu != NULL)
		rc = check_quantity("init-cpu", flags->init_cpu, err);
	if (rc == 0)
		rc = check_quantity("init-memory", flags->init_memory, err);
	if (rc == 0)
		rc = check_quantity("sidecar-cpu", flags->sidecar_cpu, err);
	if (rc == 0)
		rc = check_quantity("sidecar-memory", flags->sidecar_memory, err);
	if (rc != 0)
		return rc;
	*ret_options = (struct warm_inject_options){
		.image = flags->image,
		.containers = flags->containers.items,
		.n_containers = flags->containers.n,
		.compilers = flags->compilers.items,
		.n_compilers = flags->compilers.n,
		.mount = mount,
		.config = flags->config,
		.env = flags->env.items,
		.n_env = flags->env.n,
		.ready_url = flags->ready_url,
		.ready_match = flags->ready_match,
		.init_cpu = flags->init_cpu,
		.init_memory = flags->init_memory,
		.sidecar_cpu = flags->sidecar_cpu,
		.sidecar_memory = flags->sidecar_memory,
		.read_only = flags->read_only,
	};
	return 0;
}

/* ---- removing ---- */

static void remove_named(json_t *spec, const char *list_name, const char *name, bool *was_there)
{
	json_t *list = json_object_get(spec, list_name), *one;
	size_t i;

	json_array_foreach(list, i, one) {
		if (!warm_member_is(one, "name", name))
			continue;
		json_array_remove(list, i--);
		*was_there = true;
	}
	if (*was_there && json_is_array(list) && json_array_size(list) == 0)
		json_object_del(spec, list_name);
}

/* Ours is an emptyDir without more; another one of that name is the user's. */
static bool is_our_volume(const json_t *volume)
{
	const json_t *empty_dir = json_object_get(volume, "emptyDir");

	return json_is_object(empty_dir) && json_object_size(empty_dir) == 0;
}

/* Where the volume is mounted in our init, or "". */
static const char *mount_of(const json_t *spec)
{
	json_t *init = warm_named(json_object_get(spec, "initContainers"), WARM_INJECT_INIT);
	const json_t *mount = warm_named(json_object_get(init, "volumeMounts"), WARM_INJECT_VOLUME);
	const char *path = json_string_value(json_object_get(mount, "mountPath"));

	return path != NULL ? path : "";
}

static bool is_our_variable(const json_t *variable, const char *mount)
{
	size_t n = strlen(mount);
	const char *value = json_string_value(json_object_get(variable, "value"));

	for (size_t i = 0; value != NULL && i < N_COMPILERS; i++)
		if (warm_member_is(variable, "name", compilers[i].variable) &&
		    strncmp(value, mount, n) == 0 && strcmp(value + n, compilers[i].directory) == 0)
			return true;
	return false;
}

static void clean_container(json_t *container, const char *mount, bool ours)
{
	json_t *env = json_object_get(container, "env"), *one;
	json_t *mounts = json_object_get(container, "volumeMounts");
	bool removed = false;
	size_t i;

	json_array_foreach(env, i, one) {
		if (!is_our_variable(one, mount))
			continue;
		json_array_remove(env, i--);
		removed = true;
	}
	if (removed && json_array_size(env) == 0)
		json_object_del(container, "env");
	removed = false;
	if (!ours)
		return;
	json_array_foreach(mounts, i, one) {
		if (!warm_member_is(one, "name", WARM_INJECT_VOLUME) ||
		    !warm_member_is(one, "mountPath", mount) || json_object_size(one) != 2)
			continue;
		json_array_remove(mounts, i--);
		removed = true;
	}
	if (removed && json_array_size(mounts) == 0)
		json_object_del(container, "volumeMounts");
}

/* `volume` in a list separated by commas: taken out, or put in. */
static int set_evictable(json_t *pod, bool wanted, struct warm_error *err)
{
	json_t *metadata = json_object_get(pod, "metadata");
	json_t *annotations = json_object_get(metadata, "annotations");
	const char *old = json_string_value(json_object_get(annotations, SAFE_TO_EVICT));
	scope_buf struct warm_buf text = WARM_BUF_INIT;
	bool there = false;

	for (const char *at = old; at != NULL && *at != '\0';) {
		size_t n = strcspn(at, ",");
		bool ours = n == strlen(WARM_INJECT_VOLUME) &&
			    memcmp(at, WARM_INJECT_VOLUME, n) == 0;
		there = there || ours;
		if (!ours || wanted) {
			warm_buf_put(&text, ",", text.bytes > 0 ? 1 : 0);
			warm_buf_put(&text, at, n);
		}
		at += n + (at[n] == ',');
	}
	if (there == wanted)
		return 0;
	if (wanted) {
		warm_buf_put(&text, ",", text.bytes > 0 ? 1 : 0);
		warm_buf_put(&text, WARM_INJECT_VOLUME, strlen(WARM_INJECT_VOLUME));
		metadata = warm_member(pod, "metadata", false);
		annotations = metadata != NULL ? warm_member(metadata, "annotations", false) : NULL;
	} else if (text.bytes == 0) {
		json_object_del(annotations, SAFE_TO_EVICT);
		if (json_object_size(annotations) == 0)
			json_object_del(metadata, "annotations");
		if (json_object_size(metadata) == 0)
			json_object_del(pod, "metadata");
		return 0;
	}
	if (annotations == NULL || text.failed ||
	    json_object_set_new(annotations, SAFE_TO_EVICT,
				json_stringn((const char *)text.data, text.bytes)) != 0)
		return no_memory(err);
	return 0;
}

int warm_inject_remove(struct warm_template *template, bool *ret_was_there, struct warm_error *err)
{
	json_t *spec = template->spec, *one;
	json_t *volume = warm_named(json_object_get(spec, "volumes"), WARM_INJECT_VOLUME);
	scope_free char *mount = strdup(mount_of(spec));
	bool was_there = false;
	size_t i;
	int rc = 0;

	if (mount == NULL)
		return no_memory(err);
	remove_named(spec, "initContainers", WARM_INJECT_INIT, &was_there);
	remove_named(spec, "initContainers", WARM_INJECT_SIDECAR, &was_there);
	bool ours = is_our_volume(volume);
	if (was_there && mount[0] != '\0') {
		json_array_foreach(json_object_get(spec, "containers"), i, one)
			clean_container(one, mount, ours);
		json_array_foreach(json_object_get(spec, "initContainers"), i, one)
			clean_container(one, mount, ours);
		if (ours)
			remove_named(spec, "volumes", WARM_INJECT_VOLUME, &was_there);
		if (template->pod != NULL)
			rc = set_evictable(template->pod, false, err);
	}
	*ret_was_there = was_there;
	return rc;
}

/* ---- the key ---- */

static void copy(char ret_text[WARM_IMAGE_TEXT], const char *text)
{
	snprintf(ret_text, WARM_IMAGE_TEXT, "%s", text != NULL ? text : "");
}

/* What a variable of our init is set to, where that can be told from the template. */
static void read_variable(const struct warm_template *template, const json_t *init,
			  const char *name, const char *annotation, char ret_text[WARM_IMAGE_TEXT])
{
	const json_t *variable = warm_named(json_object_get(init, "env"), name);

	if (variable != NULL)
		copy(ret_text, json_object_get(variable, "valueFrom") != NULL
				       ? warm_template_annotation(template, annotation)
				       : json_string_value(json_object_get(variable, "value")));
	else
		ret_text[0] = '\0';
}

static void choose_key(const struct warm_template *template, const json_t *container,
		       const struct warm_inject_options *o, struct warm_inject_report *ret_report)
{
	const char *text = json_string_value(json_object_get(container, "image"));
	const char *model = warm_template_annotation(template, WARM_INJECT_MODEL);
	const char *version = warm_template_annotation(template, WARM_INJECT_VERSION);
	const char *platform = warm_template_annotation(template, WARM_INJECT_PLATFORM);
	struct warm_image image = { 0 };

	if (text != NULL)
		warm_image_parse(text, &image);
	copy(ret_report->model, o->model != NULL ? o->model : model != NULL ? model : image.model);
	copy(ret_report->version, o->version != NULL ? o->version
				  : version != NULL  ? version
						     : image.version);
	copy(ret_report->platform, o->platform != NULL ? o->platform
				   : platform != NULL  ? platform
						       : "auto");
}

void warm_inject_key(const struct warm_template *template, const json_t *container,
		     struct warm_inject_report *ret_report)
{
	static const struct warm_inject_options none;
	const json_t *init = warm_named(json_object_get(template->spec, "initContainers"),
					WARM_INJECT_INIT);
	const char *name = json_string_value(json_object_get(container, "name"));

	*ret_report = (struct warm_inject_report){ .replaced = init != NULL };
	snprintf(ret_report->container, sizeof(ret_report->container), "%s",
		 name != NULL ? name : "");
	if (init == NULL) {
		choose_key(template, container, &none, ret_report);
		return;
	}
	read_variable(template, init, "WARM_MODEL", WARM_INJECT_MODEL, ret_report->model);
	read_variable(template, init, "WARM_VERSION", WARM_INJECT_VERSION, ret_report->version);
	read_variable(template, init, "WARM_PLATFORM", WARM_INJECT_PLATFORM, ret_report->platform);
	if (ret_report->platform[0] == '\0')
		copy(ret_report->platform, "auto");
}

/* ---- adding ---- */

static int add_variable(json_t *env, const char *name, const char *value, size_t value_bytes)
{
	return json_array_append_new(
		env, json_pack("{s:s,s:s%}", "name", name, "value", value, value_bytes));
}

static int add_key_variable(json_t *env, const struct warm_template *template, const char *name,
			    const char *annotation, const char *option, const char *value)
{
	char field[128];

	if (option != NULL || warm_template_annotation(template, annotation) == NULL)
		return add_variable(env, name, value, strlen(value));
	snprintf(field, sizeof(field), "metadata.annotations['%s']", annotation);
	return json_array_append_new(env, json_pack("{s:s,s:{s:{s:s}}}", "name", name, "valueFrom",
						    "fieldRef", "fieldPath", field));
}

static json_t *environment(const struct warm_template *template,
			   const struct warm_inject_options *o, const struct warm_inject_report *r)
{
	json_t *env = json_array();
	scope_buf struct warm_buf stores = WARM_BUF_INIT;
	int rc = env == NULL;

	for (size_t i = 0; i < o->n_stores; i++)
		warm_buf_printf(&stores, "%s%s", i > 0 ? "," : "", o->stores[i]);
	rc |= stores.failed;
	if (stores.bytes > 0)
		rc |= add_variable(env, "WARM_STORE", (const char *)stores.data, stores.bytes);
	rc |= add_key_variable(env, template, "WARM_MODEL", WARM_INJECT_MODEL, o->model, r->model);
	rc |= add_key_variable(env, template, "WARM_VERSION", WARM_INJECT_VERSION, o->version,
			       r->version);
	if (strcmp(r->platform, "auto") != 0)
		rc |= add_key_variable(env, template, "WARM_PLATFORM", WARM_INJECT_PLATFORM,
				       o->platform, r->platform);
	if (strcmp(o->mount, "/warmcache") != 0)
		rc |= add_variable(env, "WARM_VOLUME", o->mount, strlen(o->mount));
	if (o->ready_url != NULL)
		rc |= add_variable(env, "WARM_READY_URL", o->ready_url, strlen(o->ready_url));
	if (o->ready_match != NULL)
		rc |= add_variable(env, "WARM_READY_MATCH", o->ready_match, strlen(o->ready_match));
	if (o->read_only)
		rc |= add_variable(env, "WARM_MODE", "readonly", strlen("readonly"));
	for (size_t i = 0; i < o->n_env; i++) {
		const char *equals = strchr(o->env[i], '=');
		char name[256];
		if (equals == NULL)
			continue;
		snprintf(name, sizeof(name), "%.*s", (int)(equals - o->env[i]), o->env[i]);
		rc |= add_variable(env, name, equals + 1, strlen(equals + 1));
	}
	if (rc == 0)
		return env;
	json_decref(env);
	return NULL;
}

/* A store that is a directory of a volume which the model's container mounts: we mount it as well. */
static int add_store_mounts(json_t *mounts, const json_t *container,
			    const struct warm_inject_options *o)
{
	json_t *one;
	size_t i;
	int rc = 0;

	json_array_foreach(json_object_get(container, "volumeMounts"), i, one) {
		const char *path = json_string_value(json_object_get(one, "mountPath"));
		size_t n = path != NULL ? strlen(path) : 0;
		bool wanted = false;
		while (n > 1 && path[n - 1] == '/')
			n--;
		for (size_t j = 0; j < o->n_stores && n > 1; j++)
			wanted = wanted || (strncmp(o->stores[j], path, n) == 0 &&
					    (o->stores[j][n] == '/' || o->stores[j][n] == '\0'));
		if (wanted && !warm_member_is(one, "name", WARM_INJECT_VOLUME))
			rc |= json_array_append_new(mounts, json_deep_copy(one));
	}
	return rc;
}

/* CPUs, of "2", "1500m", 0.5; 0 where nothing is said. */
static double cpu_of(const json_t *amount)
{
	const char *text = json_string_value(amount);
	char *end;

	if (text == NULL)
		return json_number_value(amount);
	double cpu = strtod(text, &end);
	return *end == 'm' ? cpu / 1000 : cpu;
}

/* A pod asks for the most of what its init asks for and what the rest does in all: init may have much
 * where the model does. */
static const char *init_cpu_of(const json_t *container, const struct warm_inject_options *o)
{
	json_t *resources = json_object_get(container, "resources");
	const json_t *cpu = json_object_get(json_object_get(resources, "requests"), "cpu");

	if (o->init_cpu != NULL)
		return o->init_cpu;
	if (cpu == NULL)
		cpu = json_object_get(json_object_get(resources, "limits"), "cpu");
	return cpu_of(cpu) >= 1 ? "1" : "200m";
}

/* Whether the model's container says that it isn't root, where the pod says nothing: a restricted
 * namespace wants to hear it of each. Where the pod's user is root ours would never start. */
static bool is_non_root(const struct warm_template *template, const json_t *container)
{
	json_t *pod = json_object_get(template->spec, "securityContext");
	json_t *own = json_object_get(container, "securityContext");
	const json_t *user = json_object_get(pod, "runAsUser");

	return json_object_get(pod, "runAsNonRoot") == NULL &&
	       json_is_true(json_object_get(own, "runAsNonRoot")) &&
	       !(json_is_integer(user) && json_integer_value(user) == 0);
}

static json_t *our_container(const struct warm_template *template, const json_t *container,
			     const struct warm_inject_options *o,
			     const struct warm_inject_report *r, bool sidecar)
{
	const char *cpu = sidecar ? o->sidecar_cpu : init_cpu_of(container, o);
	const char *memory = sidecar ? o->sidecar_memory : o->init_memory;
	const char *name = sidecar ? WARM_INJECT_SIDECAR : WARM_INJECT_INIT;
	json_t *c = json_pack("{s:s,s:s}", "name", name, "image", o->image);
	json_t *mounts = json_pack("[{s:s,s:s}]", "name", WARM_INJECT_VOLUME, "mountPath",
				   o->mount);
	int rc = c == NULL || mounts == NULL;

	if (sidecar)
		rc |= json_object_set_new(c, "restartPolicy", json_string("Always"));
	rc |= json_object_set_new(c, "command", json_pack("[s]", name));
	rc |= json_object_set_new(c, "env", environment(template, o, r));
	if (o->config[0] != '\0')
		rc |= json_object_set_new(c, "envFrom",
					  json_pack("[{s:{s:s,s:b}},{s:{s:s,s:b}}]", "configMapRef",
						    "name", o->config, "optional", 1, "secretRef",
						    "name", o->config, "optional", 1));
	if (sidecar)
		rc |= json_object_set_new(c, "lifecycle",
					  json_pack("{s:{s:{s:[s,s]}}}", "preStop", "exec",
						    "command", WARM_INJECT_SIDECAR, "--pre-stop"));
	/* Requests of containers may not add up to more than a pod's own. */
	if (json_object_get(template->spec, "resources") == NULL)
		rc |= json_object_set_new(c, "resources",
					  json_pack("{s:{s:s,s:s},s:{s:s,s:s}}", "requests", "cpu",
						    cpu, "memory", memory, "limits", "cpu", cpu,
						    "memory", memory));
	rc |= json_object_set_new(c, "securityContext",
				  json_pack("{s:b,s:b,s:{s:[s]},s:{s:s}}",
					    "allowPrivilegeEscalation", 0, "readOnlyRootFilesystem",
					    1, "capabilities", "drop", "ALL", "seccompProfile",
					    "type", "RuntimeDefault"));
	if (is_non_root(template, container))
		rc |= json_object_set_new(json_object_get(c, "securityContext"), "runAsNonRoot",
					  json_true());
	rc |= add_store_mounts(mounts, container, o);
	rc |= json_object_set_new(c, "volumeMounts", mounts);
	if (rc == 0)
		return c;
	json_decref(c);
	return NULL;
}

/* After the pod's own native sidecars; these two stay together. */
static int add_containers(json_t *spec, json_t *init, json_t *sidecar, struct warm_error *err)
{
	json_t *list = warm_member(spec, "initContainers", true), *one;
	size_t i, place = 0;

	json_array_foreach(list, i, one)
		if (warm_member_is(one, "restartPolicy", "Always"))
			place = i + 1;
	/* Both are given away, whatever fails. */
	int rc = json_array_insert_new(list, place, init);
	if (sidecar != NULL)
		rc |= json_array_insert_new(list, place + 1, sidecar);
	return rc == 0 ? 0 : no_memory(err);
}

static int add_volume(json_t *spec, struct warm_error *err)
{
	json_t *volumes = warm_member(spec, "volumes", true);

	if (volumes == NULL)
		return no_memory(err);
	if (warm_named(volumes, WARM_INJECT_VOLUME) != NULL)
		return 0;
	return json_array_append_new(volumes, json_pack("{s:s,s:{}}", "name", WARM_INJECT_VOLUME,
							"emptyDir")) == 0
		       ? 0
		       : no_memory(err);
}

static int mount_in(json_t *container, const char *mount, struct warm_error *err)
{
	json_t *mounts = warm_member(container, "volumeMounts", true), *one;
	size_t i;

	json_array_foreach(json_object_get(container, "volumeDevices"), i, one)
		if (warm_member_is(one, "devicePath", mount) ||
		    warm_member_is(one, "name", WARM_INJECT_VOLUME))
			return warm_error_set(
				err, WARM_INVALID,
				"a device is at %.200s, or of the volume " WARM_INJECT_VOLUME,
				mount);
	json_array_foreach(mounts, i, one) {
		if (!warm_member_is(one, "mountPath", mount))
			continue;
		if (warm_member_is(one, "name", WARM_INJECT_VOLUME))
			return 0;
		return warm_error_set(err, WARM_INVALID,
				      "container %.63s: the volume %.63s is at %.200s already",
				      json_string_value(json_object_get(container, "name")),
				      json_string_value(json_object_get(one, "name")), mount);
	}
	return mounts != NULL && json_array_append_new(mounts, json_pack("{s:s,s:s}", "name",
									 WARM_INJECT_VOLUME,
									 "mountPath", mount)) == 0
		       ? 0
		       : no_memory(err);
}

/* Items may be lists themselves. */
static bool is_chosen(const struct warm_inject_options *o, const char *compiler)
{
	size_t bytes = strlen(compiler);

	for (size_t i = 0; i < o->n_compilers; i++) {
		for (const char *at = o->compilers[i]; *at != '\0';) {
			size_t n = strcspn(at, ", ");
			if (n == bytes && memcmp(at, compiler, n) == 0)
				return true;
			at += n + (at[n] != '\0');
		}
	}
	return false;
}

/* A variable that the container sets stays. */
static int point_compilers(json_t *container, const struct warm_inject_options *o,
			   struct warm_error *err)
{
	char value[512];

	for (size_t i = 0; i < N_COMPILERS; i++) {
		if (!is_chosen(o, compilers[i].name))
			continue;
		json_t *env = warm_member(container, "env", true);
		if (env == NULL)
			return no_memory(err);
		if (warm_named(env, compilers[i].variable) != NULL)
			continue;
		int n = snprintf(value, sizeof(value), "%.400s%s", o->mount,
				 compilers[i].directory);
		if (add_variable(env, compilers[i].variable, value, (size_t)n) != 0)
			return no_memory(err);
	}
	return 0;
}

static int serve_container(const struct warm_template *template, json_t *container,
			   const struct warm_inject_options *o, struct warm_error *err)
{
	char text[256];
	int rc = mount_in(container, o->mount, err);

	if (rc == 0)
		rc = point_compilers(container, o, err);
	if (rc != 0)
		warm_error_context(err, "%s", warm_template_text(template, text));
	return rc;
}

/* What the API would refuse, or what couldn't run. */
static int check_template(const struct warm_template *template, struct warm_error *err)
{
	json_t *os = json_object_get(template->spec, "os");
	json_t *selector = json_object_get(template->spec, "nodeSelector");
	json_t *containers = json_object_get(template->spec, "containers");
	char text[256];

	warm_template_text(template, text);
	if (warm_member_is(os, "name", "windows") ||
	    warm_member_is(selector, "kubernetes.io/os", "windows"))
		return warm_error_set(err, WARM_INVALID, "%s is for Windows", text);
	if (warm_named(containers, WARM_INJECT_INIT) != NULL ||
	    warm_named(containers, WARM_INJECT_SIDECAR) != NULL)
		return warm_error_set(err, WARM_INVALID,
				      "%s: a container of our name is no init container of ours",
				      text);
	return 0;
}

static int inject(struct warm_template *template, const struct warm_inject_options *options,
		  struct warm_inject_report *r, struct warm_error *err)
{
	json_t *container;
	int rc = check_template(template, err);

	if (rc == 0)
		rc = warm_template_container(template, options->containers, options->n_containers,
					     &container, err);
	if (rc != 0)
		return rc;
	const char *name = json_string_value(json_object_get(container, "name"));
	snprintf(r->container, sizeof(r->container), "%s", name != NULL ? name : "");
	choose_key(template, container, options, r);
	json_t *init = our_container(template, container, options, r, false);
	json_t *sidecar = options->no_sidecar
				  ? NULL
				  : our_container(template, container, options, r, true);
	if (init == NULL || (sidecar == NULL && !options->no_sidecar)) {
		json_decref(init);
		json_decref(sidecar);
		return no_memory(err);
	}
	rc = add_containers(template->spec, init, sidecar, err);
	if (rc == 0)
		rc = add_volume(template->spec, err);
	if (rc == 0)
		rc = serve_container(template, container, options, err);
	for (size_t i = 1; i < options->n_containers && rc == 0; i++) {
		rc = warm_template_container(template, options->containers + i, 1, &container, err);
		if (rc == 0)
			rc = serve_container(template, container, options, err);
	}
	if (rc == 0 && template->pod != NULL)
		rc = set_evictable(template->pod, true, err);
	return rc;
}

int warm_inject(struct warm_template *template, const struct warm_inject_options *options,
		struct warm_inject_report *ret_report, struct warm_error *err)
{
	static const char *const by_default[] = { WARM_INJECT_DEFAULT_COMPILERS };
	const char *containers = warm_template_annotation(template, WARM_INJECT_CONTAINER);
	const char *wanted = warm_template_annotation(template, WARM_INJECT_FOR);
	WARM_SCOPE(names_release) struct names names = { 0 };
	struct warm_inject_options o = *options;
	struct warm_inject_report r = { 0 };
	json_t *container;
	int rc = 0;

	if (o.n_containers == 0 && containers != NULL) {
		rc = split(containers, &names, err);
		o.containers = names.items;
		o.n_containers = names.n;
	}
	if (o.n_compilers == 0) {
		o.compilers = wanted != NULL ? &wanted : by_default;
		o.n_compilers = 1;
	}
	for (size_t i = 0; i < o.n_containers && rc == 0; i++)
		rc = warm_template_container(template, o.containers + i, 1, &container, err);
	if (rc == 0)
		rc = warm_inject_remove(template, &r.replaced, err);
	if (rc == 0)
		rc = inject(template, &o, &r, err);
	if (rc == 0)
		*ret_report = r;
	return rc;
}
