/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the subcommands of `warmcache` share: options, key and store, output, progress.
 *
 * A subcommand returns 0 or an error; main prints it once. Text goes to stdout for people, one
 * JSON document with --json. Progress shows on a terminal alone, after a second.
 */
#ifndef WARM_CLI_CLI_H
#define WARM_CLI_CLI_H

#include <jansson.h>

#include "lib/kube/inject.h"
#include "lib/sync/publish.h"
#include "lib/sync/restore.h"
#include "lib/sync/target.h"

struct cli_options {
	struct warm_target_options target;
	bool json;
	const char *mount, *fallback;
	const char *log, *fingerprint; /* of explain */
	uint64_t jobs;
	/* of compact */
	uint64_t min_layers;
	const char *work_dir;
	int64_t delete_after_ms;
	/* of gc */
	int64_t older_than_ms, uploads_older_ms;
	uint64_t keep, max_total_bytes;
	bool delete;
	/* of inject */
	struct warm_inject_flags inject;
	bool remove;
	/* of pods */
	const char *namespace, *kubeconfig, *context;
	bool all_namespaces;
};

struct cli {
	const struct cli_options *options;
	struct warm_target target;
	struct warm_store *store; /* the far one */
	struct warm_call call;
	const char *second; /* operand, or NULL */
	int64_t started_ms, last_progress_ms;
	bool progress_shown;
};

struct cli_command {
	const char *name;
	const char *argument; /* name of its operand; NULL: it has none */
	const char *second;   /* of another one, which may be left out; NULL: none */
	const char *summary;
	bool needs_key, needs_no_store;
	int (*run)(struct cli *cli, const char *argument, struct warm_error *err);
};

extern const struct cli_command cli_ls, cli_show, cli_pull, cli_push, cli_verify, cli_import,
	cli_export, cli_explain, cli_head, cli_compact, cli_gc, cli_inject, cli_pods;

/* For `progress` fields; `arg` is the struct cli. Safe for any thread. */
void cli_progress(void *arg, uint64_t done_bytes, uint64_t total_bytes);
/* Take the progress line away before something else is printed. */
void cli_progress_end(struct cli *cli);

/* Print and free `root`. */
void cli_print_json(json_t *root);
/* "12.3 MiB" in one of a few static buffers. */
const char *cli_size(uint64_t bytes);
/* "2026-11-24 05:00:00" UTC, of a time in ms. */
const char *cli_time(int64_t ms, char ret_text[32]);

/* List and read the key's layers; NOT_FOUND when it has none. */
int cli_load_key(struct cli *cli, struct warm_catalog *catalog, struct warm_state *state,
		 struct warm_error *err) WARM_CHECKED;

/* A new directory below TMPDIR; removed by cli_temp_remove(). */
int cli_temp_make(char ret_path[WARM_PATH_BYTES], struct warm_error *err) WARM_CHECKED;
void cli_temp_remove(const char *path);

/* Publish a directory that is no volume, and report. */
int cli_publish_dir(struct cli *cli, const char *dir, const char *what,
		    struct warm_error *err) WARM_CHECKED;
/* Restore into `dir`; `status` as for init. */
int cli_restore_dir(struct cli *cli, const char *dir, const char *mount,
		    struct warm_restore_result *ret_result, struct warm_error *err) WARM_CHECKED;

#endif
