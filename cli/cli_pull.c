/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "cli/cli.h"

static int pull(struct cli *cli, const char *dir, struct warm_error *err)
{
	struct warm_restore_result r;

	if (mkdir(dir, 0777) != 0 && errno != EEXIST)
		return warm_error_errno(err, errno, "make directory %s", dir);
	int rc = cli_restore_dir(cli, dir, cli->options->mount, &r, err);
	if (cli->options->json)
		cli_print_json(json_pack(
			"{s:s,s:I,s:I,s:I,s:I,s:s}", "status", warm_restore_status_name(r.status),
			"files", (json_int_t)r.files, "bytes", (json_int_t)r.bytes, "present_files",
			(json_int_t)r.present_files, "fetched_bytes", (json_int_t)r.fetched_bytes,
			"reason", r.reason));
	else if (r.groups > 0)
		printf("%s: %s, %zu files of %s; %zu files were there%s%s\n", dir,
		       warm_restore_status_name(r.status), r.files, cli_size(r.bytes),
		       r.present_files, r.reason[0] != '\0' ? "; " : "", r.reason);
	return rc;
}

const struct cli_command cli_pull = {
	.name = "pull",
	.argument = "DIR",
	.summary = "restore into a directory",
	.needs_key = true,
	.run = pull,
};
