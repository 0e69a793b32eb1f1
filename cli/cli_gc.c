/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Versions that a store need not keep, and uploads that never ended.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "lib/sync/gc.h"

enum { YOUNG_MS = 3600 * 1000 };

static json_t *json_of(const struct warm_gc_version *v, const char *reason)
{
	const struct warm_listed_key *k = &v->listed;

	return json_pack("{s:s,s:s,s:s,s:I,s:I,s:s}", "model", k->key.model, "version",
			 k->key.version, "platform", k->key.platform, "layers",
			 (json_int_t)k->n_layers, "bytes", (json_int_t)k->bytes, "reason", reason);
}

static void print_json(const struct cli *cli, const struct warm_gc_plan *plan, size_t uploads)
{
	json_t *versions = json_array(), *kept = json_array();

	for (size_t i = 0; i < plan->n; i++) {
		const struct warm_gc_version *v = &plan->versions[i];
		if (warm_gc_takes(v) && (v->deleted || !cli->options->delete))
			json_array_append_new(versions, json_of(v, warm_gc_reason_name(v->reason)));
		else if (v->reason != WARM_GC_NONE && !warm_gc_takes(v))
			json_array_append_new(kept, json_of(v, warm_gc_shield_name(v->shield)));
	}
	cli_print_json(json_pack("{s:b,s:o,s:o,s:I}", "deleted", cli->options->delete, "versions",
				 versions, "kept", kept, "uploads", (json_int_t)uploads));
}

static void print_text(const struct cli *cli, const struct warm_gc_plan *plan, size_t uploads)
{
	const char *did = cli->options->delete ? "deleted" : "would be deleted";
	char key[3 * WARM_KEY_PART_BYTES + 3];
	uint64_t bytes = 0;
	size_t n = 0;

	for (size_t i = 0; i < plan->n; i++) {
		const struct warm_gc_version *v = &plan->versions[i];
		bool taken = warm_gc_takes(v) && (v->deleted || !cli->options->delete);
		if (v->reason == WARM_GC_NONE || (warm_gc_takes(v) && !taken))
			continue;
		printf("%s: %zu layers, %s: %s (%s)\n", warm_key_text(&v->listed.key, key),
		       v->listed.n_layers, cli_size(v->listed.bytes), taken ? did : "kept",
		       taken ? warm_gc_reason_name(v->reason) : warm_gc_shield_name(v->shield));
		if (taken) {
			bytes += v->listed.bytes;
			n++;
		}
	}
	printf("%zu versions of %s, %zu uploads that never ended: %s\n", n, cli_size(bytes),
	       uploads, did);
}

static int gc(struct cli *cli, const char *argument, struct warm_error *err)
{
	const struct cli_options *opt = cli->options;
	const char *platform = opt->target.platform, *version = opt->target.version;
	/* In a pod's environment stands what it serves: a version to delete is given by the flag. */
	bool by_name = version[0] != '\0' && version != getenv("WARM_VERSION");
	struct warm_gc_options o = {
		.store = cli->store,
		.model = opt->target.model,
		.version = by_name ? version : NULL,
		.platform = strcmp(platform, "auto") != 0 ? platform : NULL,
		.older_than_ms = opt->older_than_ms,
		.keep = (size_t)opt->keep,
		.max_total_bytes = opt->max_total_bytes,
		.young_ms = YOUNG_MS,
		.notices = &warm_log_notices,
	};
	scope_gc_plan struct warm_gc_plan plan = { 0 };
	struct warm_error sweep_err = { 0 };
	char prefix[WARM_NAME_BYTES] = "";
	size_t uploads = 0;

	(void)argument;
	if (by_name && opt->target.model[0] == '\0')
		return warm_error_set(err, WARM_INVALID, "--version without --model");
	if (by_name && (opt->older_than_ms > 0 || opt->keep > 0 || opt->max_total_bytes > 0))
		return warm_error_set(err, WARM_INVALID,
				      "--version goes without --older-than, --keep, --max-total");
	if (opt->target.model[0] != '\0')
		warm_key_model_prefix(&cli->target.key, prefix);
	int rc = warm_gc_make_plan(&o, &plan, &cli->call, err);
	if (rc == 0 && opt->delete)
		rc = warm_gc_run(&o, &plan, &cli->call, err);
	/* One who may not list uploads can delete versions all the same. */
	if (plan.versions != NULL &&
	    warm_gc_sweep(cli->store, prefix, opt->uploads_older_ms, !opt->delete, &uploads,
			  &cli->call, &sweep_err) != 0)
		warm_notice(&warm_log_notices, "uploads", "%s", sweep_err.msg);
	if (plan.versions != NULL && opt->json)
		print_json(cli, &plan, uploads);
	else if (plan.versions != NULL)
		print_text(cli, &plan, uploads);
	return rc;
}

const struct cli_command cli_gc = {
	.name = "gc",
	.summary = "delete versions by age, count, size or name",
	.run = gc,
};
