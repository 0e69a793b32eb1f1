/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warmcache inject: add warmcache to the workloads of a manifest, or take it out again.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "lib/base/log.h"
#include "lib/kube/yaml.h"

struct work {
	struct cli *cli;
	struct warm_inject_options options;
	size_t all, gpus;	  /* templates in the file; those that ask for a GPU */
	size_t templates, served; /* found; those with a container of the name given */
	const char *file;
};

static void tell(const struct warm_template *template, const struct warm_inject_report *r)
{
	enum { LONGEST = 128 }; /* of a key's part */
	char text[256];

	warm_template_text(template, text);
	if (strlen(r->model) > LONGEST || strlen(r->version) > LONGEST)
		warm_log(WARM_LOG_WARN, "inject",
			 "%s: model or version is over %d bytes: warmcache will be disabled in it. "
			 "Give --model or --version",
			 text, LONGEST);
	if (r->model[0] == '\0')
		warm_log(WARM_LOG_WARN, "inject", "%s: no model: warmcache is disabled in it",
			 text);
	else
		warm_log(WARM_LOG_INFO, "inject", "%s: container %s, key %s/%s/%s%s", text,
			 r->container, r->model, r->version, r->platform,
			 r->replaced ? " (brought up to date)" : "");
	if (r->model[0] != '\0' && r->version[0] == '\0')
		warm_log(WARM_LOG_WARN, "inject",
			 "%s: no version, since its image has no tag that stays: only artifacts "
			 "are kept whose names cover all that they depend on. Give --version, the "
			 "annotation " WARM_INJECT_VERSION ", or a digest",
			 text);
}

static bool has_gpu(const struct warm_template *template)
{
	const json_t *one;
	size_t i;

	json_array_foreach(json_object_get(template->spec, "containers"), i, one)
		if (warm_container_has_gpu(one))
			return true;
	return false;
}

/* Of many workloads, where nobody says which container: those that aren't a model's, by their looks. */
static bool is_left_alone(const struct work *w, const struct warm_template *template)
{
	struct warm_error why = { 0 };
	json_t *container;
	char text[256];

	if (w->all < 2 || w->options.n_containers > 0 ||
	    warm_template_annotation(template, WARM_INJECT_CONTAINER) != NULL)
		return false;
	warm_template_text(template, text);
	if (w->gpus > 0 && !has_gpu(template)) {
		warm_log(WARM_LOG_INFO, "inject",
			 "left alone: %s: it asks for no GPU, others do (--container)", text);
		return true;
	}
	if (warm_template_container(template, NULL, 0, &container, &why) == 0)
		return false;
	warm_log(WARM_LOG_WARN, "inject", "left alone: %s", why.msg);
	return true;
}

static int serve(struct work *w, struct warm_template *template, struct warm_error *err)
{
	struct warm_inject_report report;
	char text[256];
	bool was_there = false;

	if (w->cli->options->remove) {
		int rc = warm_inject_remove(template, &was_there, err);
		if (rc == 0)
			warm_log(WARM_LOG_INFO, "inject", "%s: %s",
				 warm_template_text(template, text),
				 was_there ? "removed" : "nothing of warmcache is there");
		w->served++;
		return rc;
	}
	if (is_left_alone(w, template))
		return 0;
	int rc = warm_inject(template, &w->options, &report, err);
	/* Of many workloads some may lack the container. */
	if (rc == WARM_NOT_FOUND) {
		warm_log(WARM_LOG_WARN, "inject", "left alone: %s", err->msg);
		return 0;
	}
	if (rc == 0) {
		w->served++;
		tell(template, &report);
	}
	return rc;
}

/* `ret_changed`: the document's new value, to be freed. */
static int serve_document(struct work *w, struct warm_yaml *yaml, size_t document,
			  json_t **ret_changed, struct warm_error *err)
{
	scope_templates struct warm_templates found = { 0 };
	json_t *value = json_deep_copy(warm_yaml_value(yaml, document));

	if (value == NULL)
		return warm_error_nomem(err, 256);
	*ret_changed = value;
	int rc = warm_templates_find(value, &found, err);
	for (size_t i = 0; i < found.n && rc == 0; i++)
		rc = serve(w, &found.items[i], err);
	if (rc != 0)
		warm_error_context(err, "%s:%zu", w->file, warm_yaml_line(yaml, document));
	w->templates += found.n;
	if (found.n > 0)
		warm_yaml_replace(yaml, document, value);
	return rc;
}

static int count(struct work *w, const struct warm_yaml *yaml, struct warm_error *err)
{
	int rc = 0;

	for (size_t i = 0; i < warm_yaml_count(yaml) && rc == 0; i++) {
		scope_templates struct warm_templates found = { 0 };
		rc = warm_templates_find(warm_yaml_value(yaml, i), &found, err);
		w->all += found.n;
		for (size_t k = 0; k < found.n; k++)
			w->gpus += has_gpu(&found.items[k]);
	}
	return rc;
}

static int serve_all(struct work *w, struct warm_yaml *yaml, json_t **changed,
		     struct warm_error *err)
{
	scope_buf struct warm_buf out = WARM_BUF_INIT;
	size_t anew = 0;
	int rc = count(w, yaml, err);

	for (size_t i = 0; i < warm_yaml_count(yaml) && rc == 0; i++)
		rc = serve_document(w, yaml, i, &changed[i], err);
	if (rc == 0 && w->templates == 0)
		rc = warm_error_set(err, WARM_INVALID, "%s: no pod template in %zu documents",
				    w->file, warm_yaml_count(yaml));
	if (rc == 0 && w->served == 0)
		rc = warm_error_set(err, WARM_INVALID,
				    "%s: the container wanted is in none of %zu pod templates",
				    w->file, w->templates);
	if (rc == 0)
		rc = warm_yaml_write(yaml, &out, &anew, err);
	if (rc != 0)
		return rc;
	if (anew > 0)
		warm_log(WARM_LOG_WARN, "inject",
			 "%s: %zu documents had to be written anew, comments are lost", w->file,
			 anew);
	if (fwrite(out.data, 1, out.bytes, stdout) != out.bytes)
		return warm_error_errno(err, errno, "write");
	return 0;
}

static int run(struct cli *cli, const char *argument, struct warm_error *err)
{
	const struct cli_options *o = cli->options;
	struct work w = { .cli = cli,
			  .file = strcmp(argument, "-") == 0 ? "standard input" : argument };
	scope_buf struct warm_buf text = WARM_BUF_INIT;
	scope_yaml struct warm_yaml *yaml = NULL;
	int rc = 0;

	struct warm_inject_flags flags = o->inject;
	flags.mount = o->mount;
	if (!o->remove)
		rc = warm_inject_take(&flags, &w.options, err);
	if (rc == 0)
		rc = warm_yaml_read(argument, &text, err);
	if (rc == 0)
		rc = warm_yaml_parse(w.file, (const char *)text.data, text.bytes, &yaml, err);
	if (rc != 0)
		return rc;
	w.options.stores = o->target.stores.items;
	w.options.n_stores = o->target.stores.n;
	w.options.model = o->target.model[0] != '\0' ? o->target.model : NULL;
	w.options.version = o->target.version[0] != '\0' ? o->target.version : NULL;
	w.options.platform = strcmp(o->target.platform, "auto") != 0 ? o->target.platform : NULL;
	scope_free json_t **changed = calloc(warm_yaml_count(yaml) + 1, sizeof(*changed));
	if (changed == NULL)
		return warm_error_nomem(err, 256);
	rc = serve_all(&w, yaml, changed, err);
	for (size_t i = 0; i < warm_yaml_count(yaml); i++)
		json_decref(changed[i]);
	return rc;
}

const struct cli_command cli_inject = {
	.name = "inject",
	.argument = "FILE",
	.summary = "add warmcache to the workloads of a manifest",
	.needs_no_store = true,
	.run = run,
};
