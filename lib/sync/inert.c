/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/sync/inert.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/file.h"
#include "lib/kernel/entry.h"
#include "lib/layer/secret.h"

enum {
	FACTORS_BYTES = 256 << 10,
	MADE_LOOKED_AT = 4,	 /* files of the model, of each kind */
	RESTORED_LOOKED_AT = 16, /* and what they are compared with */
	DIFFERENCES = 4,	 /* told of one pair */
	VALUE_BYTES = 60,
	HOMES = 8,
};

struct search {
	int volume_fd;
	const char *mount;
	const struct warm_scan *scan;
	struct warm_buf *text;
	unsigned causes;
	bool *restored; /* of each group of the scan */
	size_t n_made;
};

static struct warm_buf *cause(struct search *s)
{
	if (s->causes++ > 0)
		warm_buf_printf(s->text, "; ");
	return s->text;
}

/* ---- where it writes ---- */

static const char *variable_of(enum warm_profile profile)
{
	static const char *const names[WARM_PROFILES] = {
		[WARM_PROFILE_TRITON] = "TRITON_CACHE_DIR",
		[WARM_PROFILE_INDUCTOR] = "TORCHINDUCTOR_CACHE_DIR",
		[WARM_PROFILE_VLLM] = "VLLM_CACHE_ROOT",
		[WARM_PROFILE_JAX] = "JAX_COMPILATION_CACHE_DIR",
		[WARM_PROFILE_FLASHINFER] = "FLASHINFER_WORKSPACE_BASE",
		[WARM_PROFILE_DEEPGEMM] = "DG_JIT_CACHE_DIR",
		[WARM_PROFILE_TILELANG] = "TILELANG_CACHE_DIR",
		[WARM_PROFILE_NVRTC] = "WARM_CACHE_DIR",
	};

	return names[profile];
}

/* The directory that a compiler was given: what holds a Triton directory, else the first part of
 * the path. */
static void home_of(const struct warm_scan_group *g, char ret_home[256])
{
	const char *end = g->profile == WARM_PROFILE_TRITON ? strrchr(g->name, '/')
							    : strchr(g->name, '/');

	snprintf(ret_home, 256, "%.*s", end != NULL ? (int)(end - g->name) : 0, g->name);
}

struct homes {
	char dirs[HOMES][256];
	size_t n;
};

static bool has_home(const struct homes *h, const char *dir)
{
	for (size_t i = 0; i < h->n; i++)
		if (strcmp(h->dirs[i], dir) == 0)
			return true;
	return false;
}

static void add_home(struct homes *h, const char *dir)
{
	if (h->n < HOMES && dir[0] != '\0' && !has_home(h, dir))
		snprintf(h->dirs[h->n++], sizeof(h->dirs[0]), "%s", dir);
}

/* The model's own of the profile, and of no profile: a directory that we don't know. */
static void look_at_homes(struct search *s, enum warm_profile profile)
{
	struct homes restored = { 0 }, made = { 0 }, all = { 0 };
	char home[256];

	for (size_t i = 0; i < s->scan->n_groups; i++) {
		const struct warm_scan_group *g = &s->scan->groups[i];
		home_of(g, home);
		if (s->restored[i]) {
			add_home(&all, home);
			if (g->profile == profile)
				add_home(&restored, home);
		}
	}
	bool same = false;
	for (size_t i = 0; i < s->scan->n_groups; i++) {
		const struct warm_scan_group *g = &s->scan->groups[i];
		if (s->restored[i] || (g->profile != profile && g->profile != WARM_PROFILE_FILE))
			continue;
		home_of(g, home);
		same = same || (g->profile == profile && has_home(&restored, home));
		if (!has_home(&all, home))
			add_home(&made, home);
	}
	if (restored.n == 0 || made.n == 0 || same)
		return;
	warm_buf_printf(cause(s), "the cache of %s was restored to ", warm_profile_name(profile));
	for (size_t i = 0; i < restored.n; i++)
		warm_buf_printf(s->text, "%s%s/", i > 0 ? ", " : "", restored.dirs[i]);
	warm_buf_printf(s->text, " and the model writes to ");
	for (size_t i = 0; i < made.n; i++)
		warm_buf_printf(s->text, "%s%s/", i > 0 ? ", " : "", made.dirs[i]);
	if (variable_of(profile) != NULL)
		warm_buf_printf(s->text, ": %s has another value, or --profile is missing",
				variable_of(profile));
}

static void look_for_no_writes(struct search *s)
{
	bool seen[WARM_PROFILES] = { false };

	if (s->n_made > 0)
		return;
	warm_buf_printf(cause(s),
			"the model has written nothing to the volume: it has no mount at %s, or no "
			"variable of its compiler leads there (",
			s->mount);
	const char *comma = "";
	for (size_t i = 0; i < s->scan->n_groups; i++) {
		enum warm_profile p = s->scan->groups[i].profile;
		if (!s->restored[i] || seen[p] || variable_of(p) == NULL)
			continue;
		seen[p] = true;
		warm_buf_printf(s->text, "%s%s", comma, variable_of(p));
		comma = ", ";
	}
	warm_buf_printf(s->text, ")");
}

/* ---- what keys are made of ---- */

struct differences {
	struct warm_buf text;
	unsigned n;
	unsigned secrets; /* names on the way that say secret */
};

static void put_value(struct warm_buf *out, bool secret, json_t *value)
{
	/* What stands inside of a list or an object has names of its own. */
	bool plain = value != NULL && !json_is_object(value) && !json_is_array(value);
	scope_free char *dump = plain ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;

	if (value == NULL)
		warm_buf_printf(out, "nothing");
	else if (!plain)
		warm_buf_printf(out, json_is_object(value) ? "an object" : "a list");
	else if (dump == NULL || secret || warm_secret_in(dump, strlen(dump)) != NULL)
		warm_buf_printf(out, "(not shown)");
	else
		warm_buf_printf(out, "%.*s%s", VALUE_BYTES, dump,
				strlen(dump) > VALUE_BYTES ? "..." : "");
}

static void compare_values(struct differences *d, const char *path, const char *name, json_t *was,
			   json_t *now);

static void compare_members(struct differences *d, const char *path, json_t *was, json_t *now)
{
	const char *name;
	json_t *value;
	char inner[256];

	json_object_foreach(now, name, value) {
		snprintf(inner, sizeof(inner), "%s%s%s", path, path[0] != '\0' ? "." : "", name);
		compare_values(d, inner, name, json_object_get(was, name), value);
	}
	json_object_foreach(was, name, value) {
		snprintf(inner, sizeof(inner), "%s%s%s", path, path[0] != '\0' ? "." : "", name);
		if (json_object_get(now, name) == NULL)
			compare_values(d, inner, name, value, NULL);
	}
}

static void compare_values(struct differences *d, const char *path, const char *name, json_t *was,
			   json_t *now)
{
	if (json_equal(was, now))
		return;
	bool secret = d->secrets > 0 || warm_secret_name(name);
	if (json_is_object(was) && json_is_object(now)) {
		d->secrets += secret;
		compare_members(d, path, was, now);
		d->secrets -= secret;
		return;
	}
	if (d->n++ >= DIFFERENCES)
		return;
	warm_buf_printf(&d->text, "%s%s is ", d->n > 1 ? ", " : "", path);
	put_value(&d->text, secret, now);
	warm_buf_printf(&d->text, " and was ");
	put_value(&d->text, secret, was);
}

static json_t *load_json(const struct search *s, const char *path)
{
	scope_free char *text = NULL;
	size_t bytes = 0;

	if (warm_beneath_load(s->volume_fd, path, FACTORS_BYTES, &text, &bytes, NULL) != 0)
		return NULL;
	json_t *root = json_loadb(text, bytes, 0, NULL);
	/* What a compile results in is no input of it. */
	static const char *const results[] = { "hash",
					       "shared",
					       "tmem_size",
					       "num_regs",
					       "global_scratch_size",
					       "profile_scratch_size" };
	for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++)
		json_object_del(root, results[i]);
	return root;
}

static bool is_factors(const char *path)
{
	return strcmp(warm_path_base(path), "cache_key_factors.json") == 0;
}

static bool is_metadata(const char *path)
{
	const char *name = warm_path_base(path);
	size_t n = strlen(name);

	return n > 5 && strcmp(name + n - 5, ".json") == 0 && strncmp(name, "__grp__", 7) != 0;
}

/* The path of the group's file that says what its key is made of; NULL: none does. */
static const char *factors_of(const struct search *s, const struct warm_scan_group *g)
{
	for (size_t i = 0; i < g->n_files; i++) {
		const char *path = s->scan->files[g->first_file + i].path;
		if ((g->profile == WARM_PROFILE_VLLM && is_factors(path)) ||
		    (g->profile == WARM_PROFILE_TRITON && is_metadata(path)))
			return path;
	}
	return NULL;
}

/* Compare a file of the model's with the restored ones of the same name; the nearest is told. */
static void compare_factors(struct search *s, const char *path, enum warm_profile profile)
{
	struct differences best = { .n = UINT32_MAX };
	json_t *now = load_json(s, path);
	size_t looked = 0;

	for (size_t i = 0; now != NULL && i < s->scan->n_groups; i++) {
		const struct warm_scan_group *g = &s->scan->groups[i];
		const char *other = s->restored[i] && g->profile == profile ? factors_of(s, g)
									    : NULL;
		if (other == NULL || strcmp(warm_path_base(other), warm_path_base(path)) != 0)
			continue;
		if (looked++ == RESTORED_LOOKED_AT)
			break;
		json_t *was = load_json(s, other);
		struct differences d = { .n = 0 };
		if (was != NULL)
			compare_members(&d, "", was, now);
		json_decref(was);
		if (was != NULL && d.n > 0 && d.n < best.n) {
			warm_buf_release(&best.text);
			best = d;
		} else {
			warm_buf_release(&d.text);
		}
	}
	json_decref(now);
	if (best.n != UINT32_MAX && !best.text.failed) {
		warm_buf_printf(cause(s), "%s: %.*s", warm_path_base(path), (int)best.text.bytes,
				(const char *)best.text.data);
		if (best.n > DIFFERENCES)
			warm_buf_printf(s->text, ", and %u more", best.n - DIFFERENCES);
	}
	warm_buf_release(&best.text);
}

static void look_at_factors(struct search *s, enum warm_profile profile)
{
	const char *told[MADE_LOOKED_AT];
	size_t n = 0;

	for (size_t i = 0; n < MADE_LOOKED_AT && i < s->scan->n_groups; i++) {
		const struct warm_scan_group *g = &s->scan->groups[i];
		const char *path = !s->restored[i] && g->profile == profile ? factors_of(s, g)
									    : NULL;
		bool again = path == NULL;
		for (size_t k = 0; !again && k < n; k++)
			again = strcmp(warm_path_base(told[k]), warm_path_base(path)) == 0;
		if (again)
			continue;
		told[n++] = path;
		compare_factors(s, path, profile);
	}
}

/* <inductor>/cache/<hash of device, CUDA and Triton>: its name is all that it tells. */
static const char *system_key_of(const struct warm_scan_group *g)
{
	const char *name = warm_path_base(g->name);

	if (g->profile != WARM_PROFILE_INDUCTOR || name - g->name < 7 || strlen(name) < 32)
		return NULL;
	return strncmp(name - 7, "/cache/", 7) == 0 ? name : NULL;
}

static void look_at_system_key(struct search *s)
{
	const char *was = NULL, *now = NULL;

	for (size_t i = 0; i < s->scan->n_groups; i++) {
		const char *key = system_key_of(&s->scan->groups[i]);
		if (key != NULL && s->restored[i])
			was = key;
		else if (key != NULL)
			now = key;
	}
	for (size_t i = 0; now != NULL && i < s->scan->n_groups; i++) {
		const char *key = system_key_of(&s->scan->groups[i]);
		if (s->restored[i] && key != NULL && strcmp(key, now) == 0)
			return;
	}
	if (was != NULL && now != NULL)
		warm_buf_printf(cause(s),
				"Inductor's system key (GPU, CUDA and Triton) is %.12s and was "
				"%.12s",
				now, was);
}

static int load_entry(const struct search *s, const struct warm_scan_group *g, char **ret_data,
		      struct warm_kernel_entry *ret_entry)
{
	size_t bytes = 0;
	int rc = warm_beneath_load(s->volume_fd, s->scan->files[g->first_file].path,
				   WARM_KERNEL_ENTRY_BYTES, ret_data, &bytes, NULL);

	return rc != 0 ? rc : warm_kernel_entry_parse(*ret_data, bytes, ret_entry, NULL);
}

/* The first kernel that the model compiled, and the restored one that is most like it. */
static void look_at_kernels(struct search *s)
{
	scope_free char *made_data = NULL;
	struct warm_kernel_entry made;
	struct warm_buf best = WARM_BUF_INIT;
	unsigned least = UINT32_MAX;
	size_t looked = 0, i = 0;

	while (i < s->scan->n_groups &&
	       (s->restored[i] || s->scan->groups[i].profile != WARM_PROFILE_NVRTC))
		i++;
	if (i == s->scan->n_groups || load_entry(s, &s->scan->groups[i], &made_data, &made) != 0)
		return;
	for (i = 0; i < s->scan->n_groups && looked < RESTORED_LOOKED_AT; i++) {
		scope_free char *data = NULL;
		struct warm_kernel_entry entry;
		if (!s->restored[i] || s->scan->groups[i].profile != WARM_PROFILE_NVRTC)
			continue;
		looked++;
		if (load_entry(s, &s->scan->groups[i], &data, &entry) != 0)
			continue;
		struct warm_buf text = WARM_BUF_INIT;
		unsigned n = warm_kernel_inputs_explain(&entry.inputs, &made.inputs, &text);
		warm_kernel_entry_release(&entry);
		if (n > 0 && n < least && !text.failed) {
			least = n;
			warm_buf_release(&best);
			best = text;
		} else {
			warm_buf_release(&text);
		}
	}
	if (least != UINT32_MAX)
		warm_buf_printf(cause(s), "kernel %.60s: %.*s", made.inputs.name.data,
				(int)(best.bytes < 300 ? best.bytes : 300),
				(const char *)best.data);
	warm_buf_release(&best);
	warm_kernel_entry_release(&made);
}

void warm_inert_explain(int volume_fd, const char *mount, const struct warm_scan *scan,
			const struct warm_ledger *ledger, struct warm_buf *text)
{
	scope_free bool *restored = calloc(scan->n_groups + 1, sizeof(*restored));
	struct search s = { volume_fd, mount, scan, text, 0, restored, 0 };

	if (restored == NULL)
		return;
	for (size_t i = 0; i < scan->n_groups; i++) {
		const struct warm_ledger_group *l = warm_ledger_find(ledger, scan->groups[i].name);
		restored[i] = l != NULL && (l->flags & WARM_LEDGER_RESTORED) != 0;
		s.n_made += !restored[i];
	}
	look_for_no_writes(&s);
	for (int p = 1; p < WARM_PROFILES; p++)
		look_at_homes(&s, (enum warm_profile)p);
	look_at_factors(&s, WARM_PROFILE_VLLM);
	look_at_factors(&s, WARM_PROFILE_TRITON);
	look_at_system_key(&s);
	look_at_kernels(&s);
	if (s.causes == 0)
		warm_buf_printf(text, "what was compiled differs in what its compiler doesn't "
				      "write down: the framework's version, the model's code");
}
