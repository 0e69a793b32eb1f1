/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list that a web server's readers need: written into the store behind it, from a LIST of it.
 */
#include <stdio.h>

#include "cli/cli.h"
#include "lib/store/head.h"

static int head(struct cli *cli, const char *argument, struct warm_error *err)
{
	char prefix[WARM_NAME_BYTES] = "";
	struct warm_head_report report;

	(void)argument;
	if (cli->target.key.model[0] != '\0')
		warm_key_model_prefix(&cli->target.key, prefix);
	int rc = warm_head_write(cli->store, prefix, &report, &cli->call, err);
	if (rc != 0)
		return rc;
	if (cli->options->json)
		cli_print_json(json_pack("{s:I,s:I}", "models", (json_int_t)report.models,
					 "objects", (json_int_t)report.objects));
	else
		printf("%s: heads of %zu models, %zu objects\n", warm_store_url(cli->store),
		       report.models, report.objects);
	return 0;
}

const struct cli_command cli_head = {
	.name = "head",
	.summary = "write a store's list for web servers that serve it",
	.run = head,
};
