/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

struct tally {
	const char *profile;
	size_t groups, files;
	uint64_t bytes;
};

static struct tally *tally_of(struct tally *tallies, size_t *n, const char *profile)
{
	for (size_t i = 0; i < *n; i++)
		if (strcmp(tallies[i].profile, profile) == 0)
			return &tallies[i];
	if (*n == WARM_PROFILES + 8)
		return &tallies[*n - 1];
	tallies[*n] = (struct tally){ .profile = profile };
	return &tallies[(*n)++];
}

static void print_layer(const struct cli *cli, const struct warm_layer *l, json_t *list)
{
	char id[WARM_ID_BYTES], when[32];
	const struct warm_index *x = l->index;
	const char *state = x == NULL ? "unusable" : l->covered ? "covered" : "live";

	warm_id_text(l->name.id, id);
	if (cli->options->json) {
		json_array_append_new(
			list,
			json_pack("{s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:s,s:s,s:b}", "object", l->object,
				  "id", id, "kind", l->name.kind == WARM_BASE ? "base" : "layer",
				  "state", state, "bytes", (json_int_t)l->object_bytes, "groups",
				  (json_int_t)(x != NULL ? x->n_groups : 0), "files",
				  (json_int_t)(x != NULL ? x->n_files : 0), "mount",
				  x != NULL ? x->mount : "", "program", x != NULL ? x->program : "",
				  "complete", x != NULL && x->complete != NULL));
		return;
	}
	printf("%c %-32s %s  %-8s %12s %7zu %7zu  %s%s\n", l->name.kind, id,
	       cli_time((int64_t)l->name.id.ms, when), state, cli_size(l->object_bytes),
	       x != NULL ? x->n_groups : 0, x != NULL ? x->n_files : 0, x != NULL ? x->mount : "",
	       x != NULL && x->complete != NULL ? "  complete" : "");
}

static int show(struct cli *cli, const char *argument, struct warm_error *err)
{
	scope_catalog struct warm_catalog catalog = { 0 };
	scope_state struct warm_state state = { 0 };
	struct tally tallies[WARM_PROFILES + 8];
	char key[3 * WARM_KEY_PART_BYTES + 3];
	size_t n_tallies = 0;

	(void)argument;
	int rc = cli_load_key(cli, &catalog, &state, err);
	if (rc != 0)
		return rc;
	for (size_t i = 0; i < state.n_live; i++) {
		const struct warm_group *g = state.live[i].group;
		const struct warm_index *x = catalog.layers[state.live[i].layer].index;
		struct tally *t = tally_of(tallies, &n_tallies, g->profile);
		t->groups++;
		t->files += g->n_files;
		for (size_t k = 0; k < g->n_files; k++)
			t->bytes += x->files[g->first_file + k].size;
	}
	const char *complete = warm_catalog_complete(&catalog);
	json_t *layers = json_array(), *profiles = json_array();
	if (!cli->options->json) {
		printf("key %s, %s\n\n", warm_key_text(&cli->target.key, key),
		       complete != NULL ? "complete" : "not complete");
		printf("  %-32s %-19s  %-8s %12s %7s %7s  %s\n", "LAYER", "MADE", "STATE", "SIZE",
		       "GROUPS", "FILES", "MOUNT");
	}
	for (size_t i = 0; i < catalog.n_layers; i++)
		print_layer(cli, &catalog.layers[i], layers);
	if (!cli->options->json)
		printf("\n%-12s %8s %8s %12s\n", "PROFILE", "GROUPS", "FILES", "SIZE");
	for (size_t i = 0; i < n_tallies; i++) {
		const struct tally *t = &tallies[i];
		if (cli->options->json)
			json_array_append_new(profiles,
					      json_pack("{s:s,s:I,s:I,s:I}", "profile", t->profile,
							"groups", (json_int_t)t->groups, "files",
							(json_int_t)t->files, "bytes",
							(json_int_t)t->bytes));
		else
			printf("%-12s %8zu %8zu %12s\n", t->profile, t->groups, t->files,
			       cli_size(t->bytes));
	}
	if (cli->options->json)
		cli_print_json(json_pack("{s:s,s:b,s:o,s:o}", "key",
					 warm_key_text(&cli->target.key, key), "complete",
					 complete != NULL, "layers", layers, "profiles", profiles));
	else {
		json_decref(layers);
		json_decref(profiles);
	}
	return 0;
}

const struct cli_command cli_show = {
	.name = "show",
	.summary = "the layers of a key, and what they hold together",
	.needs_key = true,
	.run = show,
};
