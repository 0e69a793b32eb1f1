/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warmcache: the operator's command. One file a subcommand; this one parses and dispatches.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "lib/base/log.h"
#include "lib/store/tier.h"

static struct cli_options opt;
static atomic_bool interrupted;

static const struct warm_option options[] = {
	WARM_TARGET_ROWS(opt.target),
	{ "json", NULL, WARM_OPTION_BOOL, &opt.json, NULL, NULL,
	  "Print one JSON document instead of text." },
	{ "mount", NULL, WARM_OPTION_STRING, &opt.mount, NULL, "PATH",
	  "Where pods mount the volume, for pull, push, import, export and inject: Triton's "
	  "entries hold that path. Default: the directory itself; for export the newest "
	  "layer's; for inject /warmcache." },
	{ "fallback", "WARM_FALLBACK", WARM_OPTION_STRING, &opt.fallback, "none", "latest|none",
	  "For pull and export: take what the version lacks from another one." },
	{ "jobs", "WARM_JOBS", WARM_OPTION_COUNT, &opt.jobs, "0", "N",
	  "Frames to decode at once; 0: one more than there are CPUs." },
	{ "log", NULL, WARM_OPTION_STRING, &opt.log, NULL, "FILE",
	  "For explain: what WARM_COMPILER_LOG has recorded; its last miss is explained." },
	{ "fingerprint", NULL, WARM_OPTION_STRING, &opt.fingerprint, NULL, "HEX",
	  "For explain: the last miss of this program instead." },
	{ "min-layers", NULL, WARM_OPTION_COUNT, &opt.min_layers, "4", "N",
	  "For compact: keys with fewer layers that no base covers are left alone." },
	{ "work-dir", NULL, WARM_OPTION_STRING, &opt.work_dir, NULL, "DIR",
	  "For compact: where a key's files are unpacked. Default: TMPDIR." },
	{ "delete-after", NULL, WARM_OPTION_DURATION, &opt.delete_after_ms, "1h", "TIME",
	  "For compact: what a base covers is deleted when the base is so old by the store's "
	  "clock." },
	{ "older-than", NULL, WARM_OPTION_DURATION, &opt.older_than_ms, "0", "TIME",
	  "For gc: versions whose newest layer is older, e.g. 30d." },
	{ "keep", NULL, WARM_OPTION_COUNT, &opt.keep, "0", "N",
	  "For gc: all but the newest N versions of each model and platform." },
	{ "max-total", NULL, WARM_OPTION_BYTES, &opt.max_total_bytes, "0", "SIZE",
	  "For gc: the oldest versions, until what is left takes no more." },
	{ "uploads-older-than", NULL, WARM_OPTION_DURATION, &opt.uploads_older_ms, "1d", "TIME",
	  "For gc: uploads that were begun so long ago and never ended." },
	{ "delete", NULL, WARM_OPTION_BOOL, &opt.delete, NULL, NULL,
	  "For gc: delete. Without it gc says what it would delete." },
	WARM_INJECT_ROWS(opt.inject),
	{ "remove", NULL, WARM_OPTION_BOOL, &opt.remove, NULL, NULL,
	  "For inject: take warmcache out again." },
	{ "namespace", NULL, WARM_OPTION_STRING, &opt.namespace, NULL, "NAME",
	  "For pods: another namespace than the kubeconfig's." },
	{ "all-namespaces", NULL, WARM_OPTION_BOOL, &opt.all_namespaces, NULL, NULL,
	  "For pods: those of all namespaces." },
	{ "kubeconfig", NULL, WARM_OPTION_STRING, &opt.kubeconfig, NULL, "FILE",
	  "For pods: instead of KUBECONFIG, ~/.kube/config, the pod's service account." },
	{ "context", NULL, WARM_OPTION_STRING, &opt.context, NULL, "NAME",
	  "For pods: of the kubeconfig, instead of its current one." },
	WARM_PROFILE_ROW(opt.target),
};

static const struct cli_command *const commands[] = {
	&cli_ls,      &cli_show, &cli_pull,    &cli_push, &cli_verify, &cli_import, &cli_export,
	&cli_explain, &cli_head, &cli_compact, &cli_gc,	  &cli_inject, &cli_pods,
};

static const char details[] =
	"Subcommands:\n"
	"  ls              models, versions and platforms in a store\n"
	"  show            the layers of a key, and what they hold together\n"
	"  pull DIR        restore into a directory\n"
	"  push DIR        publish a directory's artifacts\n"
	"  verify          read every layer to its end and check it\n"
	"  import ARCHIVE  publish what an archive of a cache holds (tar.gz, tar.zst, zip, ...)\n"
	"  export ARCHIVE  write a key's cache as one archive, by its suffix\n"
	"  head            write a store's list for web servers that serve it (docs/stores.md)\n"
	"  compact         fold the layers of each key into a base (docs/sidecar.md)\n"
	"  gc              delete versions by age, count, size or name; says what, without "
	"--delete\n"
	"  inject FILE     add warmcache to the workloads of a manifest (docs/kubernetes.md)\n"
	"  pods            what warmcache does in the pods of a namespace; as a plugin:\n"
	"                  kubectl warmcache pods\n"
	"  explain VOLUME --log FILE\n"
	"                  why a kernel was compiled: a logged miss and the entries next to it\n"
	"  explain ENTRY ENTRY\n"
	"                  how two kernels of the cache differ";

/* ---- shared by the subcommands ---- */

static void print_progress(struct cli *cli, int64_t now, uint64_t done_bytes, uint64_t total_bytes)
{
	if (now - cli->started_ms < 1000 || now - cli->last_progress_ms < 100 ||
	    !isatty(STDERR_FILENO))
		return;
	cli->last_progress_ms = now;
	cli->progress_shown = true;
	fprintf(stderr, "\r%3.0f%% of %.1f MiB ",
		total_bytes > 0 ? 100.0 * (double)done_bytes / (double)total_bytes : 0.0,
		(double)total_bytes / 1048576);
}

void cli_progress(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct cli *cli = arg;
	int64_t now = warm_clock_ms();

	/* Somebody else is printing: this one is not missed. */
	if (pthread_mutex_trylock(&lock) != 0)
		return;
	print_progress(cli, now, done_bytes, total_bytes);
	pthread_mutex_unlock(&lock);
}

void cli_progress_end(struct cli *cli)
{
	if (cli->progress_shown)
		fprintf(stderr, "\r%40s\r", "");
	cli->progress_shown = false;
}

void cli_print_json(json_t *root)
{
	json_dumpf(root, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(root);
}

const char *cli_size(uint64_t bytes)
{
	static char texts[8][24];
	static unsigned next;
	char *text = texts[next++ % 8];

	if (bytes < 10240)
		snprintf(text, sizeof(texts[0]), "%llu B", (unsigned long long)bytes);
	else if (bytes < 10 << 20)
		snprintf(text, sizeof(texts[0]), "%.1f KiB", (double)bytes / 1024);
	else
		snprintf(text, sizeof(texts[0]), "%.1f MiB", (double)bytes / 1048576);
	return text;
}

const char *cli_time(int64_t ms, char ret_text[32])
{
	time_t t = (time_t)(ms / 1000);
	struct tm tm;

	if (gmtime_r(&t, &tm) == NULL || strftime(ret_text, 32, "%Y-%m-%d %H:%M:%S", &tm) == 0)
		snprintf(ret_text, 32, "%lld", (long long)ms);
	return ret_text;
}

int cli_load_key(struct cli *cli, struct warm_catalog *catalog, struct warm_state *state,
		 struct warm_error *err)
{
	char text[3 * WARM_KEY_PART_BYTES + 3];
	int rc = warm_catalog_list(catalog, cli->store, &cli->target.key, true, &cli->call, err);

	if (rc == 0 && catalog->n_layers == 0)
		return warm_error_set(err, WARM_NOT_FOUND, "%.100s holds nothing for %.140s",
				      warm_store_url(cli->store),
				      warm_key_text(&cli->target.key, text));
	if (rc == 0)
		rc = warm_catalog_read(catalog, cli->store, &warm_log_notices, &cli->call, err);
	if (rc == 0)
		rc = warm_state_build(catalog->layers, catalog->n_layers, state, err);
	return rc;
}

int cli_temp_make(char ret_path[WARM_PATH_BYTES], struct warm_error *err)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(ret_path, WARM_PATH_BYTES, "%.3900s/warmcache-XXXXXX",
		 tmp != NULL && tmp[0] != '\0' ? tmp : "/tmp");
	if (mkdtemp(ret_path) == NULL)
		return warm_error_errno(err, errno, "make %s", ret_path);
	return 0;
}

void cli_temp_remove(const char *path)
{
	struct warm_error err = { 0 };

	if (warm_tree_remove(AT_FDCWD, path, &err) != 0)
		warm_log(WARM_LOG_WARN, "temporary-directory", "%s: %s", path, err.msg);
}

int cli_publish_dir(struct cli *cli, const char *dir, const char *what, struct warm_error *err)
{
	struct warm_publish_options o = {
		.store = cli->store,
		.key = cli->target.key,
		.volume = dir,
		.mount = cli->options->mount,
		.no_ledger = true,
		.roots = &cli->target.roots,
		.notices = &warm_log_notices,
		.progress = cli_progress,
		.progress_arg = cli,
	};
	scope_publisher struct warm_publisher *p = NULL;
	struct warm_publish_report r = { 0 };

	int rc = warm_publisher_open(&o, &p, err);
	if (rc == 0)
		rc = warm_publisher_run(p, WARM_PUBLISH_ALL, NULL, NULL, NULL, &cli->call, &r, err);
	cli_progress_end(cli);
	if (rc != 0)
		return rc;
	if (cli->options->json) {
		cli_print_json(json_pack(
			"{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "layers", (json_int_t)r.layers,
			"groups", (json_int_t)r.groups, "files", (json_int_t)r.files, "raw_bytes",
			(json_int_t)r.raw_bytes, "bytes", (json_int_t)r.bytes, "present",
			(json_int_t)r.present, "torn", (json_int_t)r.torn, "withheld",
			(json_int_t)r.withheld + (json_int_t)r.waiting));
		return 0;
	}
	printf("%s: %zu groups, %zu files, %s published as %zu layers of %s\n", what, r.groups,
	       r.files, cli_size(r.raw_bytes), r.layers, cli_size(r.bytes));
	if (r.present > 0)
		printf("%zu groups were in the store already\n", r.present);
	if (r.torn + r.withheld + r.waiting > 0)
		printf("%zu groups were left out: %zu not whole, %zu withheld, %zu changing\n",
		       r.torn + r.withheld + r.waiting, r.torn, r.withheld, r.waiting);
	return 0;
}

int cli_restore_dir(struct cli *cli, const char *dir, const char *mount,
		    struct warm_restore_result *ret_result, struct warm_error *err)
{
	scope_store struct warm_store *tier = NULL;
	struct warm_restore_options o = {
		.store = cli->store,
		.key = cli->target.key,
		.volume = dir,
		.mount = mount,
		.fallback = strcmp(cli->options->fallback, "latest") == 0 ? WARM_FALLBACK_LATEST
									  : WARM_FALLBACK_NONE,
		.jobs = (unsigned)cli->options->jobs,
		.roots = &cli->target.roots,
		.notices = &warm_log_notices,
		.progress = cli_progress,
		.progress_arg = cli,
	};
	char text[3 * WARM_KEY_PART_BYTES + 3];
	int rc = 0;

	if (cli->target.n_stores > 1) {
		rc = warm_tier_open(cli->target.stores, cli->target.n_stores, &warm_log_notices,
				    &tier, err);
		if (rc != 0)
			return rc;
		o.store = tier;
	}
	rc = warm_restore_run(&o, &cli->call, ret_result, err);

	cli_progress_end(cli);
	if (rc == 0 && ret_result->status == WARM_RESTORE_COLD)
		return warm_error_set(err, WARM_NOT_FOUND, "%.100s holds nothing for %.140s",
				      warm_store_url(cli->store),
				      warm_key_text(&cli->target.key, text));
	return rc;
}

/* ---- main ---- */

static void on_interrupt(int signal_number)
{
	(void)signal_number;
	if (atomic_exchange(&interrupted, true))
		_exit(130);
}

static const struct cli_command *find_command(const char *name)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strcmp(commands[i]->name, name) == 0)
			return commands[i];
	return NULL;
}

static int run(const struct cli_command *command, const char *argument, const char *second,
	       struct warm_error *err)
{
	struct cli cli = { .options = &opt, .second = second, .started_ms = warm_clock_ms() };

	cli.call.cancel = &interrupted;
	if (strcmp(opt.fallback, "none") != 0 && strcmp(opt.fallback, "latest") != 0)
		return warm_error_set(err, WARM_INVALID,
				      "--fallback: '%.64s' is none of latest|none", opt.fallback);
	if (command->needs_no_store)
		return command->run(&cli, argument, err);
	if (command->needs_key && opt.target.model[0] == '\0')
		return warm_error_set(err, WARM_INVALID, "--model is missing");
	if (opt.target.stores.n == 0)
		return warm_error_set(err, WARM_INVALID, "--store is missing");
	int rc = warm_target_init(&cli.target, &opt.target, err);
	if (rc != 0)
		return rc;
	cli.store = warm_target_far(&cli.target);
	rc = command->run(&cli, argument, err);
	cli_progress_end(&cli);
	warm_target_release(&cli.target);
	return rc;
}

int main(int argc, char **argv)
{
	struct warm_program program = {
		.name = "warmcache",
		.summary = "look into compile caches in a store, and move them",
		.usage = "SUBCOMMAND [ARGUMENT] --store DIR --model NAME --version VERSION "
			 "[OPTIONS]",
		.details = details,
		.options = options,
		.n_options = sizeof(options) / sizeof(options[0]),
	};
	struct sigaction sa = { .sa_handler = on_interrupt };
	struct warm_error err = { 0 };
	enum warm_options_result parsed;
	int operand = 0;

	warm_process_setup();
	umask(022); /* unlike a volume, what an operator makes is the operator's */
	warm_log_setup(program.name, false, WARM_LOG_INFO);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	int rc = warm_options_parse(&program, argc, argv, &parsed, &operand, &err);
	if (parsed == WARM_OPTIONS_DONE)
		return 0;
	if (rc != 0) {
		fprintf(stderr, "warmcache: %s\n", err.msg);
		return 2;
	}
	const struct cli_command *command = operand < argc ? find_command(argv[operand]) : NULL;
	if (command == NULL) {
		if (operand < argc)
			fprintf(stderr, "warmcache: '%.64s' is no subcommand\n%s\n", argv[operand],
				details);
		else
			fprintf(stderr, "warmcache: a subcommand is missing\n%s\n", details);
		return 2;
	}
	int given = argc - operand - 1, wanted = command->argument != NULL ? 1 : 0;
	if (given < wanted || given > wanted + (command->second != NULL ? 1 : 0)) {
		fprintf(stderr, "usage: warmcache %s %s%s%s%s%s[OPTIONS]\n", command->name,
			wanted ? command->argument : "", wanted ? " " : "",
			command->second != NULL ? "[" : "",
			command->second != NULL ? command->second : "",
			command->second != NULL ? "] " : "");
		return 2;
	}
	rc = run(command, given > 0 ? argv[operand + 1] : NULL,
		 given > 1 ? argv[operand + 2] : NULL, &err);
	if (rc != 0)
		fprintf(stderr, "warmcache %s: %s\n", command->name, err.msg);
	if (fflush(stdout) != 0) {
		fprintf(stderr, "warmcache: can't write to stdout\n");
		return 1;
	}
	return warm_status_exit_code(rc);
}
