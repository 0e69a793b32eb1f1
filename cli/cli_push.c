/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

static int push(struct cli *cli, const char *dir, struct warm_error *err)
{
	return cli_publish_dir(cli, dir, dir, err);
}

const struct cli_command cli_push = {
	.name = "push",
	.argument = "DIR",
	.summary = "publish a directory's artifacts",
	.needs_key = true,
	.run = push,
};
