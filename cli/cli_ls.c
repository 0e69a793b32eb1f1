/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static int ls(struct cli *cli, const char *argument, struct warm_error *err)
{
	char prefix[WARM_NAME_BYTES] = "", when[32];
	scope_free struct warm_listed_key *keys = NULL;
	const char *version = cli->options->target.version;
	size_t n = 0;

	(void)argument;
	if (cli->target.key.model[0] != '\0')
		warm_key_model_prefix(&cli->target.key, prefix);
	int rc = warm_catalog_keys(cli->store, prefix, &keys, &n, NULL, &cli->call, err);
	if (rc != 0)
		return rc;
	json_t *list = json_array();
	if (!cli->options->json && n > 0)
		printf("%-32s %-24s %-16s %7s %12s  %s\n", "MODEL", "VERSION", "PLATFORM", "LAYERS",
		       "SIZE", "NEWEST");
	for (size_t i = 0; i < n; i++) {
		const struct warm_listed_key *k = &keys[i];
		if (version[0] != '\0' && strcmp(k->key.version, version) != 0)
			continue;
		if (cli->options->json)
			json_array_append_new(
				list, json_pack("{s:s,s:s,s:s,s:I,s:I,s:I}", "model", k->key.model,
						"version", k->key.version, "platform",
						k->key.platform, "layers", (json_int_t)k->n_layers,
						"bytes", (json_int_t)k->bytes, "newest_ms",
						(json_int_t)k->newest.ms));
		else
			printf("%-32s %-24s %-16s %7zu %12s  %s\n", k->key.model,
			       k->key.version[0] != '\0' ? k->key.version : "(empty)",
			       k->key.platform, k->n_layers, cli_size(k->bytes),
			       cli_time((int64_t)k->newest.ms, when));
	}
	if (cli->options->json)
		cli_print_json(json_pack("{s:o}", "keys", list));
	else
		json_decref(list);
	return 0;
}

const struct cli_command cli_ls = {
	.name = "ls",
	.summary = "models, versions and platforms in a store",
	.run = ls,
};
