/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warmcache pods (kubectl warmcache pods): what warmcache does in the pods of a namespace. From init's
 * termination message and the sidecar's last status line, since a sidecar that runs has no message.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "lib/base/file.h"
#include "lib/kube/client.h"

enum { LOG_LINES = 1000, LOG_BYTES = 512 << 10, FIELD = 200 };

/* What is told of a pod. */
struct row {
	const char *namespace, *name;
	char start[FIELD]; /* init's status, or why there is none */
	char reason[FIELD];
	json_int_t files, bytes;
	char state[FIELD]; /* of the sidecar */
	char used[24], inert[24];
	int64_t published_ms; /* 0: not yet */
	char complete[8];
};

/* What a pod says may be meant for the terminal of who looks at it. */
static void set(char ret_text[FIELD], const char *text)
{
	warm_path_printable(text, ret_text, FIELD);
}

/* The status of one of our containers; NULL when the pod doesn't have it. */
static const json_t *container_of(const json_t *pod, const char *name)
{
	json_t *status = json_object_get(pod, "status");

	return warm_named(json_object_get(status, "initContainerStatuses"), name);
}

static bool has_warmcache(const json_t *pod)
{
	json_t *inits = json_object_get(json_object_get(pod, "spec"), "initContainers");

	return warm_named(inits, WARM_INJECT_INIT) != NULL ||
	       warm_named(inits, WARM_INJECT_SIDECAR) != NULL;
}

/* "waiting: ImagePullBackOff", "running", "ended 137 OOMKilled". */
static void describe(const json_t *status, char ret_text[FIELD])
{
	json_t *state = json_object_get(status, "state");
	const json_t *waiting = json_object_get(state, "waiting");
	const json_t *ended = json_object_get(state, "terminated");
	json_int_t restarts = json_integer_value(json_object_get(status, "restartCount"));
	size_t at = 0;

	if (json_is_object(waiting))
		at = (size_t)snprintf(ret_text, FIELD, "waiting: %.100s",
				      warm_member_text(waiting, "reason"));
	else if (json_is_object(ended))
		at = (size_t)snprintf(ret_text, FIELD, "ended %d %.60s",
				      (int)json_integer_value(json_object_get(ended, "exitCode")),
				      warm_member_text(ended, "reason"));
	else
		at = (size_t)snprintf(ret_text, FIELD, "%s",
				      json_is_object(json_object_get(state, "running"))
					      ? "running"
					      : "not started");
	if (restarts > 0 && at < FIELD)
		snprintf(ret_text + at, FIELD - at, " (%d restarts)", (int)restarts);
}

static void read_init(const json_t *pod, struct row *row)
{
	const json_t *status = container_of(pod, WARM_INJECT_INIT);
	const json_t *ended = json_object_get(json_object_get(status, "state"), "terminated");
	const char *message = warm_member_text(ended, "message");
	json_t *result = json_loads(message, 0, NULL);

	if (status == NULL)
		set(row->start, "-");
	else if (!json_is_object(result))
		describe(status, row->start);
	if (json_is_object(result)) {
		set(row->start, warm_member_text(result, "status"));
		set(row->reason, warm_member_text(result, "reason"));
		row->files = json_integer_value(json_object_get(result, "files"));
		row->bytes = json_integer_value(json_object_get(result, "bytes"));
		if (json_is_boolean(json_object_get(result, "complete")))
			snprintf(row->complete, sizeof(row->complete), "%s",
				 json_is_true(json_object_get(result, "complete")) ? "true"
										   : "false");
	}
	json_decref(result);
}

/* "name=value" of a status line. False when it isn't there. */
static bool field_of(const char *line, const char *name, char *ret_text, size_t bytes)
{
	size_t n = strlen(name);

	for (const char *at = line; (at = strstr(at, name)) != NULL; at += n) {
		if (at == line || at[-1] != ' ' || at[n] != '=')
			continue;
		snprintf(ret_text, bytes, "%.*s", (int)strcspn(at + n + 1, " \"\n"), at + n + 1);
		return true;
	}
	return false;
}

static int64_t parse_time(const char *text)
{
	struct tm tm = { 0 };

	return strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) != NULL ? (int64_t)timegm(&tm) * 1000 : 0;
}

/* The last status line, cut out of `log`; NULL. */
static char *last_status(char *log)
{
	char *save = NULL, *found = NULL;

	for (char *line = strtok_r(log, "\n", &save); line != NULL;
	     line = strtok_r(NULL, "\n", &save))
		if (strstr(line, " state=") != NULL || strstr(line, "\"state=") != NULL)
			found = line;
	return found;
}

/* The rest of a string of JSON, up to the quote that ends it. */
static void unescape(char *text)
{
	char *to = text;

	for (const char *p = text; *p != '\0' && *p != '"'; p++) {
		if (*p == '\\' && p[1] != '\0')
			p++;
		*to++ = *p;
	}
	*to = '\0';
}

static void read_status(char *log, struct row *row)
{
	char *line = last_status(log), seconds[24], state[24];
	bool is_json = false;

	if (line == NULL)
		return;
	/* In a line of JSON the first field comes behind a quote. */
	for (char *p = line; (p = strstr(p, "\"state=")) != NULL; is_json = true)
		*p = ' ';
	/* Of one that has ended or is to be started again, that is the news. */
	if (strncmp(row->state, "running", 7) == 0 &&
	    field_of(line, "state", state, sizeof(state))) {
		char restarts[FIELD];
		snprintf(restarts, sizeof(restarts), "%s", row->state + 7);
		snprintf(row->state, FIELD, "%s%.100s", state, restarts);
	}
	/* The first line is older than the first look at the volume. */
	if (!field_of(line, "state", state, sizeof(state)) || strcmp(state, "started") != 0) {
		field_of(line, "used", row->used, sizeof(row->used));
		field_of(line, "inert", row->inert, sizeof(row->inert));
		field_of(line, "complete", row->complete, sizeof(row->complete));
	}
	if (field_of(line, "last_publish_s", seconds, sizeof(seconds)) && seconds[0] != '-')
		row->published_ms = parse_time(line) - strtoll(seconds, NULL, 10) * 1000;
	char *reason = strstr(line, " reason=");
	if (reason != NULL && strncmp(row->state, "disabled", 8) == 0) {
		reason += strlen(" reason=");
		if (is_json)
			unescape(reason);
		set(row->reason, reason);
	}
}

static int read_sidecar(struct warm_kube *kube, const json_t *pod, struct row *row,
			const struct warm_call *call, struct warm_error *err)
{
	const json_t *status = container_of(pod, WARM_INJECT_SIDECAR);
	scope_buf struct warm_buf log = WARM_BUF_INIT;
	char path[1024];

	if (status == NULL) {
		set(row->state, "-");
		return 0;
	}
	describe(status, row->state);
	if (strncmp(row->state, "running", 7) != 0 && strncmp(row->state, "ended", 5) != 0)
		return 0;
	snprintf(path, sizeof(path),
		 "/api/v1/namespaces/%.63s/pods/%.253s/log?container=" WARM_INJECT_SIDECAR
		 "&tailLines=%d&timestamps=true",
		 row->namespace, row->name, LOG_LINES);
	int rc = warm_kube_text(kube, path, LOG_BYTES, call, &log, err);
	warm_buf_put_u8(&log, '\0');
	if (rc == WARM_DENIED || rc == WARM_NO_MEMORY || rc == WARM_CANCELED)
		return rc;
	/* A log that is gone, or not there yet, is no fault. */
	if (rc == 0 && !log.failed)
		read_status((char *)log.data, row);
	return 0;
}

static const char *age(int64_t ms, char ret_text[32])
{
	int64_t seconds = (warm_clock_wall_ms() - ms) / 1000;

	if (ms == 0)
		return "never";
	if (seconds < 120)
		snprintf(ret_text, 32, "%llds ago", (long long)seconds);
	else if (seconds < 2 * 3600)
		snprintf(ret_text, 32, "%lldm ago", (long long)seconds / 60);
	else
		snprintf(ret_text, 32, "%lldh ago", (long long)seconds / 3600);
	return ret_text;
}

static void print(const struct cli *cli, const struct row *r, json_t *list)
{
	char ago[32], used[56];

	if (cli->options->json) {
		json_array_append_new(
			list,
			json_pack("{s:s,s:s,s:s,s:I,s:I,s:s,s:s,s:s,s:s,s:s,s:I}", "namespace",
				  r->namespace, "pod", r->name, "start", r->start, "files",
				  r->files, "bytes", r->bytes, "sidecar", r->state, "used", r->used,
				  "inert", r->inert, "complete", r->complete, "reason", r->reason,
				  "published_ms", (json_int_t)r->published_ms));
		return;
	}
	snprintf(used, sizeof(used), "%s/%s", r->used[0] != '\0' ? r->used : "-",
		 r->inert[0] != '\0' ? r->inert : "-");
	printf("%s%s%-*s %-18s %6lld %10s %-12s %-10s %-24s %s\n",
	       cli->options->all_namespaces ? r->namespace : "",
	       cli->options->all_namespaces ? "/" : "", 40, r->name, r->start, (long long)r->files,
	       cli_size((uint64_t)r->bytes), used, age(r->published_ms, ago), r->state, r->reason);
}

static int tell_pods(struct cli *cli, struct warm_kube *kube, const json_t *pods, json_t *list,
		     size_t *ret_n, struct warm_error *err)
{
	const json_t *pod;
	size_t i;
	int rc = 0;

	json_array_foreach(json_object_get(pods, "items"), i, pod) {
		json_t *metadata = json_object_get(pod, "metadata");
		struct row row = { .namespace = warm_member_text(metadata, "namespace"),
				   .name = warm_member_text(metadata, "name") };
		if (!has_warmcache(pod))
			continue;
		read_init(pod, &row);
		rc = read_sidecar(kube, pod, &row, &cli->call, err);
		if (rc != 0)
			break;
		print(cli, &row, list);
		(*ret_n)++;
	}
	return rc;
}

static int pods(struct cli *cli, const char *argument, struct warm_error *err)
{
	const struct cli_options *o = cli->options;
	const struct warm_kube_options how = { .kubeconfig = o->kubeconfig, .context = o->context };
	scope_kube struct warm_kube *kube = NULL;
	json_t *answer = NULL, *list = json_array();
	char path[256];
	size_t n = 0;

	(void)argument;
	int rc = warm_kube_open(&how, &kube, err);
	if (rc == 0) {
		const char *namespace = o->namespace != NULL ? o->namespace
							     : warm_kube_namespace(kube);
		if (o->all_namespaces)
			snprintf(path, sizeof(path), "/api/v1/pods?limit=500");
		else
			snprintf(path, sizeof(path), "/api/v1/namespaces/%.63s/pods?limit=500",
				 namespace);
		rc = warm_kube_request(kube, "GET", path, NULL, &cli->call, &answer, err);
	}
	if (rc == 0 && !o->json)
		printf("%-40s %-18s %6s %10s %-12s %-10s %-24s %s\n", "POD", "START", "FILES",
		       "SIZE", "USED/INERT", "PUBLISHED", "SIDECAR", "REASON");
	if (rc == 0)
		rc = tell_pods(cli, kube, answer, list, &n, err);
	if (rc == 0 && o->json)
		cli_print_json(json_incref(list));
	if (rc == 0 && n == 0 && !o->json)
		printf("no pod has warmcache\n");
	json_decref(answer);
	json_decref(list);
	return rc;
}

const struct cli_command cli_pods = {
	.name = "pods",
	.summary = "what warmcache does in the pods of a namespace",
	.needs_no_store = true,
	.run = pods,
};
