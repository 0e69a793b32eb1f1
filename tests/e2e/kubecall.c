/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib/kube from the command line, for tests. One line of JSON for what came:
 *
 *	kubecall request METHOD PATH [BODY]	{"answer": ...}
 *	kubecall text PATH BYTES		{"text": ...}
 *	kubecall watch PATH SECONDS		{"event": "added", "name": ..., "version": ...} each
 *	kubecall repeat PATH SECONDS		a request twice a second: {"ok": true} or an error
 *
 * and for an error {"status": "denied", "http": 403, "message": ...}, with exit code 1. Where is
 * configured is as for all that uses lib/kube; CONTEXT names a context.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/kube/client.h"

static void print(json_t *object)
{
	char *text = object != NULL ? json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS) : NULL;

	if (text == NULL)
		exit(9);
	puts(text);
	fflush(stdout);
	free(text);
	json_decref(object);
}

static int print_error(const struct warm_error *err)
{
	print(json_pack("{s:s, s:i, s:s}", "status", warm_status_name(err->status), "http",
			(int)err->http_status, "message", err->msg));
	return 1;
}

static int hear(void *arg, enum warm_kube_event event, const json_t *object, struct warm_error *err)
{
	static const char *const names[] = { "added", "modified", "deleted", "listed" };
	json_t *meta = json_object_get(object, "metadata");

	(void)arg;
	(void)err;
	if (object == NULL)
		print(json_pack("{s:s}", "event", names[event]));
	else
		print(json_pack("{s:s, s:O, s:O}", "event", names[event], "name",
				json_object_get(meta, "name"), "version",
				json_object_get(meta, "resourceVersion")));
	return 0;
}

static int repeat(struct warm_kube *k, const char *path, struct warm_call *call)
{
	while (warm_call_check(call, NULL) == 0) {
		struct warm_error err = { 0 };
		if (warm_kube_request(k, "GET", path, NULL, call, NULL, &err) == 0)
			print(json_pack("{s:b}", "ok", 1));
		else
			print_error(&err);
		usleep(500 * 1000);
	}
	return 0;
}

static int run(struct warm_kube *k, char **args, struct warm_error *err)
{
	struct warm_call call = { .deadline_ms = warm_clock_ms() + 30 * 1000 };
	struct warm_buf text = WARM_BUF_INIT;
	json_t *answer = NULL, *body = NULL;
	int rc;

	if (strcmp(args[0], "watch") == 0 || strcmp(args[0], "repeat") == 0)
		call.deadline_ms = warm_clock_ms() + 1000 * atoi(args[2]);
	if (strcmp(args[0], "repeat") == 0)
		return repeat(k, args[1], &call);
	if (strcmp(args[0], "watch") == 0)
		return warm_kube_watch(k, args[1], hear, NULL, &call, err);
	if (strcmp(args[0], "text") == 0) {
		rc = warm_kube_text(k, args[1], (size_t)atol(args[2]), &call, &text, err);
		if (rc == 0)
			print(json_pack("{s:s%}", "text", (const char *)text.data, text.bytes));
		warm_buf_release(&text);
		return rc;
	}
	if (args[3] != NULL && (body = json_loads(args[3], 0, NULL)) == NULL)
		return warm_error_set(err, WARM_INVALID, "a body that is no JSON");
	rc = warm_kube_request(k, args[1], args[2], body, &call, &answer, err);
	json_decref(body);
	if (rc == 0)
		print(json_pack("{s:o}", "answer", answer));
	return rc;
}

int main(int argc, char **argv)
{
	struct warm_kube_options o = { .context = getenv("CONTEXT") };
	struct warm_error err = { 0 };
	struct warm_kube *k = NULL;

	signal(SIGPIPE, SIG_IGN);
	if (argc < 4)
		return 2;
	int rc = warm_kube_open(&o, &k, &err);
	if (rc == 0)
		rc = run(k, argv + 1, &err);
	warm_kube_free(k);
	return rc != 0 ? print_error(&err) : 0;
}
