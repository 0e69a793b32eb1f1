/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fold the layers of each key into a base, and delete what older bases cover.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "lib/base/log.h"
#include "lib/sync/compact.h"

static int compact_one(struct cli *cli, const struct warm_key *key, const char *work_dir,
		       json_t *list, struct warm_error *err)
{
	const struct cli_options *opt = cli->options;
	struct warm_compact_options o = {
		.store = cli->store,
		.key = *key,
		.work_dir = work_dir,
		.min_layers = opt->min_layers > 2 ? (size_t)opt->min_layers : 2,
		.min_age_ms = opt->delete_after_ms > 0 ? opt->delete_after_ms : 1,
		.notices = &warm_log_notices,
	};
	struct warm_compact_report r = { 0 };
	char text[3 * WARM_KEY_PART_BYTES + 3];
	int rc = warm_compact_run(&o, &cli->call, &r, err);

	warm_key_text(key, text);
	if (rc != 0)
		warm_error_context(err, "%.140s", text);
	json_array_append_new(list,
			      json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:s,s:I,s:I,s:I}", "model",
					key->model, "version", key->version, "platform",
					key->platform, "folded", (json_int_t)r.folded, "groups",
					(json_int_t)r.groups, "bytes", (json_int_t)r.bytes, "base",
					r.base, "deleted", (json_int_t)r.deleted, "kept",
					(json_int_t)r.kept, "bad", (json_int_t)r.bad));
	if (opt->json)
		return rc;
	if (r.base[0] != '\0')
		printf("%s: %zu layers folded into a base of %zu groups, %s\n", text, r.folded,
		       r.groups, cli_size(r.bytes));
	if (r.deleted > 0)
		printf("%s: %zu covered layers deleted\n", text, r.deleted);
	if (r.kept > 0)
		printf("%s: %zu covered layers stay until their base is old enough\n", text,
		       r.kept);
	if (r.bad > 0)
		printf("%s: %zu layers can't be read\n", text, r.bad);
	return rc;
}

static bool is_wanted(const struct cli *cli, const struct warm_key *key)
{
	const struct warm_target_options *t = &cli->options->target;

	return (t->version[0] == '\0' || strcmp(t->version, key->version) == 0) &&
	       (strcmp(t->platform, "auto") == 0 || strcmp(t->platform, key->platform) == 0);
}

static int compact(struct cli *cli, const char *argument, struct warm_error *err)
{
	const char *work_dir = cli->options->work_dir;
	char prefix[WARM_NAME_BYTES] = "";
	scope_free struct warm_listed_key *keys = NULL;
	size_t n = 0, n_wanted = 0;
	int first = 0;

	(void)argument;
	if (work_dir == NULL || work_dir[0] == '\0')
		work_dir = getenv("TMPDIR");
	if (work_dir == NULL || work_dir[0] == '\0')
		work_dir = "/tmp";
	if (cli->options->target.version[0] != '\0' && cli->options->target.model[0] == '\0')
		return warm_error_set(err, WARM_INVALID, "--version without --model");
	if (cli->target.key.model[0] != '\0')
		warm_key_model_prefix(&cli->target.key, prefix);
	int rc = warm_catalog_keys(cli->store, prefix, &keys, &n, NULL, &cli->call, err);
	if (rc != 0)
		return rc;
	json_t *list = json_array();
	for (size_t i = 0; i < n; i++) {
		struct warm_error one = { 0 };
		if (!is_wanted(cli, &keys[i].key))
			continue;
		n_wanted++;
		rc = compact_one(cli, &keys[i].key, work_dir, list, &one);
		if (rc != 0 && first == 0) {
			first = rc;
			*err = one;
		} else if (rc != 0) {
			warm_log(WARM_LOG_WARN, "compact", "%s", one.msg);
		}
		if (rc == WARM_CANCELED)
			break;
	}
	if (cli->options->json)
		cli_print_json(json_pack("{s:o}", "keys", list));
	else
		json_decref(list);
	if (n_wanted == 0 && cli->options->target.model[0] != '\0')
		return warm_error_set(err, WARM_NOT_FOUND, "%.100s holds nothing of %.100s %.100s",
				      warm_store_url(cli->store), cli->options->target.model,
				      cli->options->target.version);
	return first;
}

const struct cli_command cli_compact = {
	.name = "compact",
	.summary = "fold the layers of each key into a base",
	.run = compact,
};
