/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warmcache-prewarm: options and subcommands.
 */
#include "k8s/prewarm.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/log.h"
#include "lib/kube/yaml.h"

enum { FOLLOW_SPARE_MS = 11 * 60 * 1000 }; /* a Job's own deadline comes first */

static struct prewarm_options opt;
static atomic_bool interrupted;

static const struct warm_option options[] = {
	WARM_TARGET_ROWS(opt.target),
	WARM_INJECT_ROWS(opt.inject),
	{ "mount", NULL, WARM_OPTION_STRING, &opt.inject.mount, NULL, "PATH",
	  "Where the volume is mounted, of a workload without warmcache. Default: /warmcache." },
	{ "set-image", NULL, WARM_OPTION_LIST, &opt.set_images, NULL, "[CONTAINER=]IMAGE",
	  "Another image than the workload's: of the model's container, or of the one that is "
	  "named. Repeatable." },
	{ "gpu-product", NULL, WARM_OPTION_LIST, &opt.products, NULL, "NAMES",
	  "A Job for each, on nodes with this nvidia.com/gpu.product. Separated by commas." },
	{ "request", NULL, WARM_OPTION_LIST, &opt.requests, NULL, "FILE",
	  "Warm-up requests as JSON: {\"url\": ..., \"body\": ...} or a list of such. "
	  "Repeatable." },
	{ "cog", NULL, WARM_OPTION_STRING, &opt.cog, NULL, "INPUT",
	  "A prediction of a Cog server to warm up with: its input, a JSON object." },
	{ "workload", NULL, WARM_OPTION_STRING, &opt.workload, NULL, "NAME",
	  "Which one, where a file has several." },
	{ "timeout", "WARM_TIMEOUT", WARM_OPTION_DURATION, &opt.timeout_ms, "0", "TIME",
	  "How long a Job may take (1h); how long `wait` waits (10m)." },
	{ "service-account", NULL, WARM_OPTION_STRING, &opt.service_account, NULL, "NAME",
	  "The Job's, instead of the workload's." },
	{ "claims", NULL, WARM_OPTION_CHOICE, &opt.claims, NULL, "keep|empty",
	  "What the Job has of the workload's PersistentVolumeClaims: the same, where several pods "
	  "may have them at once, or an empty volume. Needed where there are such that aren't "
	  "read-only." },
	{ "label", NULL, WARM_OPTION_LIST, &opt.labels, NULL, "NAME=VALUE",
	  "A label for Job and pod, e.g. a queue's. Repeatable." },
	{ "hook", NULL, WARM_OPTION_STRING, &opt.hook, NULL, "argocd|helm",
	  "With render: what makes the Jobs run before a sync or an upgrade." },
	{ "hook-timeout", NULL, WARM_OPTION_DURATION, &opt.hook_timeout_ms, "0", "TIME",
	  "How long the hook waits: 30m for Argo CD, 4m for Helm, which gives it 5." },
	{ "namespace", NULL, WARM_OPTION_STRING, &opt.namespace, NULL, "NAME",
	  "Instead of the manifest's, the kubeconfig's or the pod's." },
	{ "kubeconfig", NULL, WARM_OPTION_STRING, &opt.kubeconfig, NULL, "FILE",
	  "Default: KUBECONFIG, ~/.kube/config, the pod's service account." },
	{ "context", NULL, WARM_OPTION_STRING, &opt.context, NULL, "NAME",
	  "Of the kubeconfig, instead of its current one." },
	{ "require", NULL, WARM_OPTION_BOOL, &opt.require, NULL, NULL,
	  "With wait: what isn't complete is a failure." },
	{ "create", NULL, WARM_OPTION_BOOL, &opt.create, NULL, NULL,
	  "With wait: create the Jobs first, as run does." },
	{ "force", NULL, WARM_OPTION_BOOL, &opt.force, NULL, NULL,
	  "With run: also where the cache is complete for this template." },
	{ "volume", "WARM_VOLUME", WARM_OPTION_STRING, &opt.volume, "/warmcache", "DIR",
	  "With fill: the volume." },
	{ "settle", "WARM_SETTLE", WARM_OPTION_DURATION, &opt.settle_ms, "5s", "TIME",
	  "With fill: an artifact is published when its group didn't change for this long." },
	{ "complete", "WARM_COMPLETE", WARM_OPTION_STRING, &opt.complete, "", "MARK",
	  "With fill: the mark of the last layer, the template's hash." },
	{ "requests", "WARM_REQUESTS", WARM_OPTION_STRING, &opt.request_texts, NULL, "JSON",
	  "With fill: the warm-up requests." },
	{ "result", NULL, WARM_OPTION_STRING, &opt.result, NULL, "FILE",
	  "With fill: where the result goes. Default: the container's termination log." },
};

static const char details[] =
	"Subcommands (docs/kubernetes.md):\n"
	"  render WORKLOAD  print the Jobs that fill the cache for a workload: a\n"
	"                   file, \"-\", or deployment/NAME (statefulset/, daemonset/,\n"
	"                   job/, cronjob/, pod/, leaderworkerset/) of the cluster\n"
	"  run WORKLOAD     create them, follow them, end with their exit code\n"
	"  wait WORKLOAD    wait until they are complete; ends 0 in any case\n"
	"                   without --require\n"
	"  fill             within a Job: wait for the model, send the requests,\n"
	"                   publish";

int prewarm_kube(struct prewarm *p, struct warm_error *err)
{
	const struct warm_kube_options o = { .kubeconfig = p->options->kubeconfig,
					     .context = p->options->context };

	return p->kube != NULL ? 0 : warm_kube_open(&o, &p->kube, err);
}

int prewarm_namespace(struct prewarm *p, const json_t *object, const char **ret_namespace,
		      struct warm_error *err)
{
	const json_t *metadata = json_object_get(object, "metadata");
	const char *own = json_string_value(json_object_get(metadata, "namespace"));
	int rc = 0;

	if (own == NULL)
		own = p->options->namespace;
	if (own == NULL) {
		rc = prewarm_kube(p, err);
		own = rc == 0 ? warm_kube_namespace(p->kube) : NULL;
	}
	if (rc == 0)
		*ret_namespace = own;
	return rc;
}

static int print(const json_t *objects, struct warm_error *err)
{
	const json_t *one;
	size_t i;

	json_array_foreach(objects, i, one) {
		scope_buf struct warm_buf text = WARM_BUF_INIT;
		int rc = warm_yaml_emit(one, 0, &text, err);
		if (rc != 0)
			return rc;
		printf("%s%.*s", i > 0 ? "---\n" : "", (int)text.bytes, (const char *)text.data);
	}
	return 0;
}

static int render(struct prewarm *p, const json_t *jobs, struct warm_error *err)
{
	json_t *objects = NULL;

	if (p->options->hook == NULL)
		return print(jobs, err);
	int rc = prewarm_hook(p, jobs, p->options->hook, &objects, err);
	if (rc == 0)
		rc = print(objects, err);
	json_decref(objects);
	return rc;
}

/* A full GPU pool, an API or a store that is away must not hold a rollout. */
static int go_on(const struct prewarm *p, int rc, const struct warm_error *err)
{
	if (rc == 0 || p->options->require)
		return rc;
	if (atomic_load(&interrupted))
		return rc;
	warm_log(WARM_LOG_WARN, "not-complete", "%s: the rollout goes on, cold", err->msg);
	return 0;
}

static int serve(struct prewarm *p, const char *command, const char *workload,
		 struct warm_error *err)
{
	json_t *jobs = NULL;

	int rc = prewarm_render(p, workload, &jobs, err);
	if (rc != 0 && strcmp(command, "wait") == 0)
		return go_on(p, rc, err);
	if (rc == 0 && strcmp(command, "render") == 0)
		rc = render(p, jobs, err);
	else if (rc == 0 && strcmp(command, "run") == 0)
		rc = prewarm_run(p, jobs, err);
	else if (rc == 0)
		rc = go_on(p, prewarm_wait(p, jobs, err), err);
	json_decref(jobs);
	return rc;
}

/* `timeout_ms` becomes a Job's, the call's deadline that of this program. */
static void set_deadline(struct prewarm *p, const char *command)
{
	enum { JOB_MS = 60 * 60 * 1000, WAIT_MS = 10 * 60 * 1000 };
	bool waits = strcmp(command, "wait") == 0;
	int64_t given = opt.timeout_ms > 0 ? opt.timeout_ms : waits ? WAIT_MS : JOB_MS;

	opt.timeout_ms = waits ? JOB_MS : given;
	p->call.deadline_ms = warm_clock_ms() + given +
			      (strcmp(command, "run") == 0 ? FOLLOW_SPARE_MS : 0);
}

static void on_signal(int signal_number)
{
	(void)signal_number;
	if (atomic_exchange(&interrupted, true))
		_exit(130);
}

static int usage(const char *what)
{
	fprintf(stderr, "%s: %s\n%s\n", PREWARM, what, details);
	return 2;
}

int main(int argc, char **argv)
{
	static const char *const commands[] = { "render", "run", "wait", "fill" };
	const struct warm_program program = {
		.name = PREWARM,
		.summary = "fill the compile cache of a model version before its first user",
		.usage = "SUBCOMMAND [WORKLOAD] [OPTIONS]",
		.details = details,
		.options = options,
		.n_options = sizeof(options) / sizeof(options[0]),
	};
	struct prewarm p = { .options = &opt, .call = { .cancel = &interrupted } };
	const struct sigaction sa = { .sa_handler = on_signal };
	struct warm_error err = { 0 };
	enum warm_options_result parsed;
	int operand = 0;

	warm_process_setup();
	warm_log_setup(PREWARM, false, WARM_LOG_INFO);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	int rc = warm_options_parse(&program, argc, argv, &parsed, &operand, &err);
	if (parsed == WARM_OPTIONS_DONE)
		return 0;
	if (rc != 0) {
		fprintf(stderr, "%s: %s\n", PREWARM, err.msg);
		/* A bad variable in a ConfigMap holds no rollout, either. */
		return argc > 1 && strcmp(argv[1], "wait") == 0 && !opt.require ? 0 : 2;
	}
	const char *command = operand < argc ? argv[operand] : NULL;
	bool known = false, fills;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]) && command != NULL; i++)
		known = known || strcmp(commands[i], command) == 0;
	if (!known)
		return usage(command == NULL ? "a subcommand is missing" : "no such subcommand");
	fills = strcmp(command, "fill") == 0;
	if (argc - operand - 1 != (fills ? 0 : 1))
		return usage(fills ? "fill has no operand" : "one workload is needed");
	set_deadline(&p, command);
	rc = fills ? prewarm_fill(&p, &err) : serve(&p, command, argv[operand + 1], &err);
	if (rc != 0)
		fprintf(stderr, "%s %s: %s\n", PREWARM, command, err.msg);
	warm_kube_free(p.kube);
	if (fflush(stdout) != 0) {
		fprintf(stderr, "%s: can't write to stdout\n", PREWARM);
		return 1;
	}
	return warm_status_exit_code(rc);
}
