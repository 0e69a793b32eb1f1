/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Within a Job, beside the model's server: wait until it is ready, send the warm-up requests, publish
 * all, and mark the cache complete. The exit code is the publish's.
 */
#include <errno.h>
#include <poll.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "k8s/prewarm.h"
#include "lib/base/file.h"
#include "lib/base/log.h"
#include "lib/kube/yaml.h"
#include "lib/store/http.h"
#include "lib/sync/publish.h"
#include "lib/sync/ready.h"
#include "lib/sync/result.h"

enum {
	REQUEST_TEXTS = 64 << 10, /* they travel in a variable of the pod */
	ANSWER_SHOWN = 200,
	TURN_MS = 1000,
	TELL_MS = 30 * 1000,
	QUIET_MS = 20 * 1000, /* of what is torn and doesn't change */
	RESCUE_MS = 20 * 1000,
	RETRY_MS = 2000,
};

/* ---- requests ---- */

static int check_pattern(const char *pattern)
{
	regex_t compiled;
	int rc = pattern != NULL ? regcomp(&compiled, pattern, REG_EXTENDED | REG_NOSUB) : -1;

	if (rc == 0)
		regfree(&compiled);
	return rc;
}

static int check_request(const json_t *request, const char *name, struct warm_error *err)
{
	const json_t *method = json_object_get(request, "method"), *value;
	const json_t *headers = json_object_get(request, "headers");
	const char *key;

	if (!json_is_string(json_object_get(request, "url")))
		return warm_error_set(err, WARM_INVALID,
				      "%.200s: a request is an object with a \"url\"", name);
	if (method != NULL && !json_is_string(method))
		return warm_error_set(err, WARM_INVALID, "%.200s: \"method\" is no string", name);
	json_object_foreach((json_t *)(uintptr_t)request, key, value)
		if (strcmp(key, "url") != 0 && strcmp(key, "method") != 0 &&
		    strcmp(key, "headers") != 0 && strcmp(key, "body") != 0 &&
		    strcmp(key, "match") != 0)
			return warm_error_set(
				err, WARM_INVALID,
				"%.200s: \"%.64s\" is none of url, method, headers, body, match",
				name, key);
	value = json_object_get(request, "match");
	if (value != NULL && check_pattern(json_string_value(value)) != 0)
		return warm_error_set(err, WARM_INVALID,
				      "%.200s: \"match\" is no POSIX extended pattern", name);
	if (headers != NULL && !json_is_object(headers))
		return warm_error_set(err, WARM_INVALID, "%.200s: \"headers\" is no object", name);
	json_object_foreach((json_t *)(uintptr_t)headers, key, value)
		if (!json_is_string(value) || strpbrk(json_string_value(value), "\r\n") != NULL ||
		    strpbrk(key, "\r\n:") != NULL)
			return warm_error_set(err, WARM_INVALID,
					      "%.200s: the header \"%.64s\" is no string of one "
					      "line",
					      name, key);
	return 0;
}

static int add_requests(json_t *all, json_t *given, const char *name, struct warm_error *err)
{
	json_t *one;
	size_t i;
	int rc = 0;

	if (!json_is_array(given)) {
		rc = check_request(given, name, err);
		if (rc == 0 && json_array_append(all, given) != 0)
			rc = warm_error_nomem(err, 64);
		return rc;
	}
	json_array_foreach(given, i, one) {
		rc = check_request(one, name, err);
		if (rc == 0 && json_array_append(all, one) != 0)
			rc = warm_error_nomem(err, 64);
		if (rc != 0)
			break;
	}
	return rc;
}

static int add_file(json_t *all, const char *path, struct warm_error *err)
{
	scope_buf struct warm_buf text = WARM_BUF_INIT;
	json_t *given = NULL;

	int rc = warm_yaml_read(path, &text, err);
	if (rc == 0)
		rc = warm_json_parse(path, (const char *)text.data, text.bytes, &given, err);
	if (rc == 0)
		rc = add_requests(all, given, path, err);
	json_decref(given);
	return rc;
}

static int add_prediction(json_t *all, const char *text, struct warm_error *err)
{
	json_t *input = NULL;

	int rc = warm_json_parse("--cog", text, strlen(text), &input, err);
	if (rc != 0)
		return rc;
	if (!json_is_object(input))
		rc = warm_error_set(err, WARM_INVALID, "--cog: the input is no JSON object");
	else if (json_array_append_new(all, json_pack("{s:s,s:{s:O},s:s}", "url", "/predictions",
						      "body", "input", input, "match",
						      "\"status\": *\"succeeded\"")) != 0)
		rc = warm_error_nomem(err, 64);
	json_decref(input);
	return rc;
}

/* The kubelet reads $$ and $(NAME) in a variable. In JSON '$' stands in strings alone. */
static char *escape_dollars(const char *text)
{
	scope_buf struct warm_buf out = WARM_BUF_INIT;

	for (; *text != '\0'; text++)
		if (*text == '$')
			warm_buf_printf(&out, "\\u0024");
		else
			warm_buf_put_u8(&out, (uint8_t)*text);
	warm_buf_put_u8(&out, '\0');
	return out.failed ? NULL : strdup((const char *)out.data);
}

int prewarm_requests(const struct prewarm_options *options, char **ret_text, struct warm_error *err)
{
	json_t *all = json_array();
	int rc = all == NULL ? warm_error_nomem(err, 64) : 0;

	for (size_t i = 0; i < options->requests.n && rc == 0; i++)
		rc = add_file(all, options->requests.items[i], err);
	if (rc == 0 && options->cog != NULL)
		rc = add_prediction(all, options->cog, err);
	char *text = NULL;
	if (rc == 0) {
		scope_free char *plain = json_array_size(all) > 0 ? json_dumps(all, JSON_COMPACT)
								  : strdup("");
		text = plain != NULL ? escape_dollars(plain) : NULL;
		if (text == NULL)
			rc = warm_error_nomem(err, 64);
		else if (strlen(text) > REQUEST_TEXTS)
			rc = warm_error_set(err, WARM_LIMIT,
					    "the requests take %zu bytes: over %d, which is what a "
					    "Job carries",
					    strlen(text), REQUEST_TEXTS);
	}
	json_decref(all);
	if (rc == 0)
		*ret_text = text;
	else
		free(text);
	return rc;
}

struct sending {
	const json_t *request;
	const char *base;
	char *body;
};

static int prepare(void *arg, struct warm_http_request *request, const struct warm_call *call,
		   struct warm_error *err)
{
	const struct sending *s = arg;
	const char *url = json_string_value(json_object_get(s->request, "url")), *key;
	const char *method = json_string_value(json_object_get(s->request, "method"));
	json_t *headers = json_object_get(s->request, "headers"), *value;
	scope_free char *whole = warm_http_resolve(s->base, url);

	(void)call;
	if (whole == NULL)
		return warm_error_set(err, WARM_INVALID, "'%.200s' is no URL", url);
	request->method = method != NULL ? method : s->body != NULL ? "POST" : "GET";
	warm_http_request_url(request, "%s", whole);
	if (s->body != NULL && json_object_get(headers, "Content-Type") == NULL)
		warm_http_request_header(request, "Content-Type: application/json");
	json_object_foreach(headers, key, value)
		warm_http_request_header(request, "%s: %s", key, json_string_value(value));
	return 0;
}

static int refused(void *arg, const struct warm_http_response *response, bool *ret_again,
		   struct warm_error *err)
{
	char shown[ANSWER_SHOWN];

	(void)arg;
	(void)ret_again;
	err->http_status = response->status;
	return warm_error_set(err, WARM_INVALID, "HTTP %ld: %s", response->status,
			      warm_path_printable(response->body.data != NULL
							  ? (const char *)response->body.data
							  : "",
						  shown, sizeof(shown)));
}

/* A server may answer 200 and say in the body that it failed. */
static int check_answer(const struct warm_http_response *response, const json_t *request,
			struct warm_error *err)
{
	const char *pattern = json_string_value(json_object_get(request, "match"));
	const char *body = response->body.data != NULL ? (const char *)response->body.data : "";
	char shown[ANSWER_SHOWN];
	regex_t compiled;

	if (pattern == NULL)
		return 0;
	if (regcomp(&compiled, pattern, REG_EXTENDED | REG_NOSUB) != 0)
		return warm_error_nomem(err, 64);
	int no = regexec(&compiled, body, 0, NULL, 0);
	regfree(&compiled);
	if (no == 0)
		return 0;
	return warm_error_set(err, WARM_INVALID, "the answer doesn't match '%.100s': %s", pattern,
			      warm_path_printable(body, shown, sizeof(shown)));
}

static int send_request(struct warm_http *http, const json_t *request, const char *base,
			const struct warm_call *call, struct warm_error *err)
{
	const json_t *body = json_object_get(request, "body");
	struct sending s = { .request = request, .base = base };
	struct warm_http_run run = { .prepare = prepare,
				     .refused = refused,
				     .arg = &s,
				     .max_body_bytes = 256 << 20,
				     .answer_ms = warm_call_left_ms(call, INT64_MAX) };

	if (json_is_string(body))
		s.body = strdup(json_string_value(body));
	else if (body != NULL)
		s.body = json_dumps(body, JSON_COMPACT | JSON_ENCODE_ANY);
	if (body != NULL && s.body == NULL)
		return warm_error_nomem(err, 64);
	if (s.body != NULL) {
		run.data = s.body;
		run.body_bytes = strlen(s.body);
		run.has_body = true;
	}
	scope_response struct warm_http_response response = { 0 };
	int rc = warm_http_run(http, &run, &response, call, err);
	free(s.body);
	return rc == 0 ? check_answer(&response, request, err) : rc;
}

static int send_requests(const struct prewarm *p, const char *base, struct warm_error *err)
{
	const char *text = p->options->request_texts;
	const struct warm_http_options local = { .local = true, .connections = 1 };
	struct warm_http *http = NULL;
	json_t *all = NULL, *one, *checked = json_array();
	size_t i;

	int rc = warm_json_parse("WARM_REQUESTS", text, strlen(text), &all, err);
	if (rc == 0)
		rc = add_requests(checked, all, "WARM_REQUESTS", err);
	if (rc == 0)
		rc = warm_http_open(&local, &http, err);
	json_array_foreach(checked, i, one) {
		int64_t start = warm_clock_ms();
		if (rc != 0)
			break;
		rc = send_request(http, one, base, &p->call, err);
		if (rc != 0)
			warm_error_context(err, "request %zu of %zu, %.200s", i + 1,
					   json_array_size(checked),
					   json_string_value(json_object_get(one, "url")));
		else
			warm_log(WARM_LOG_INFO, "request", "%zu of %zu answered in %.1f s", i + 1,
				 json_array_size(checked),
				 (double)(warm_clock_ms() - start) / 1000);
	}
	warm_http_free(http);
	json_decref(all);
	json_decref(checked);
	return rc;
}

/* ---- the model ---- */

static int wait_ready(const struct prewarm *p, struct warm_error *err)
{
	const struct warm_inject_flags *o = &p->options->inject;
	scope_close int told = eventfd(0, EFD_CLOEXEC);
	struct pollfd wait = { .fd = told, .events = POLLIN };
	struct warm_ready *ready;
	int64_t start = warm_clock_ms(), tell = start + TELL_MS;

	if (o->ready_url == NULL || o->ready_url[0] == '\0')
		return warm_error_set(err, WARM_INVALID, "--ready-url is missing");
	if (told < 0)
		return warm_error_errno(err, errno, "eventfd");
	int rc = warm_ready_start(o->ready_url, o->ready_match, told, &ready, err);
	while (rc == 0 && poll(&wait, 1, TURN_MS) <= 0) {
		rc = warm_call_check(&p->call, err);
		if (rc != 0)
			warm_error_context(err, "the model isn't ready at %.200s (%.100s)",
					   o->ready_url, warm_ready_last(ready));
		if (rc == 0 && warm_clock_ms() >= tell) {
			warm_log(WARM_LOG_INFO, "waiting", "%s: %s", o->ready_url,
				 warm_ready_last(ready));
			tell += TELL_MS;
		}
	}
	if (rc == 0)
		warm_log(WARM_LOG_INFO, "ready", "%s answers after %.0f s", o->ready_url,
			 (double)(warm_clock_ms() - start) / 1000);
	/* It goes on asking for as long as the process lives. */
	if (rc != 0)
		(void)take_fd(&told);
	return rc;
}

/* ---- publishing ---- */

static void rest(int64_t ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&ts, NULL);
}

/* Until nothing changes and all is whole. What is torn and stays as it is was left by somebody who was
 * killed; nothing waits for that. */
static int wait_quiet(const struct prewarm *p, struct warm_publisher *publisher,
		      struct warm_error *err)
{
	struct warm_publish_report report = { 0 };
	int64_t end = warm_clock_ms() + QUIET_MS;
	uint64_t bytes = 0;
	int rc = 0;

	do {
		rest(TURN_MS);
		rc = warm_call_check(&p->call, err);
		if (rc == 0)
			rc = warm_publisher_run(publisher, WARM_PUBLISH_LOOK, NULL, NULL, NULL,
						&p->call, &report, err);
		if (report.volume_bytes != bytes)
			end = warm_clock_ms() + QUIET_MS;
		bytes = report.volume_bytes;
	} while (rc == 0 && (report.waiting > 0 || (report.torn > 0 && warm_clock_ms() < end)));
	if (rc == WARM_CANCELED)
		warm_error_context(err, "the model still compiles");
	return rc;
}

static void add_report(struct warm_publish_report *sum, const struct warm_publish_report *one)
{
	size_t layers = sum->layers, groups = sum->groups, files = sum->files;
	uint64_t bytes = sum->bytes;

	*sum = *one;
	sum->layers += layers;
	sum->groups += groups;
	sum->files += files;
	sum->bytes += bytes;
}

/* A store that fails for a moment must not cost what took minutes of a GPU. */
static int publish(struct warm_publisher *publisher, enum warm_publish_mode mode, const char *mark,
		   const struct warm_call *call, struct warm_publish_report *sum,
		   struct warm_error *err)
{
	struct warm_publish_report report;
	int rc;

	for (;;) {
		rc = warm_publisher_run(publisher, mode, mark, NULL, NULL, call, &report, err);
		add_report(sum, &report);
		/* At the end the store's own reason is the better news. */
		if (rc != WARM_TRANSIENT || warm_call_left_ms(call, INT64_MAX) <= RETRY_MS ||
		    warm_call_check(call, NULL) != 0)
			return rc;
		warm_log(WARM_LOG_WARN, "publish-failed", "%s; again in %d s", err->msg,
			 RETRY_MS / 1000);
		rest(RETRY_MS);
	}
}

static void tell(const struct prewarm *p, const struct warm_target *target, int rc,
		 const struct warm_publish_report *r, const struct warm_error *err)
{
	char key[3 * WARM_KEY_PART_BYTES + 3];
	json_t *o = json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:b}", "status",
			      rc == 0 ? "complete" : "failed", "layers", (json_int_t)r->layers,
			      "groups", (json_int_t)r->groups, "files", (json_int_t)r->files,
			      "bytes", (json_int_t)r->bytes, "present", (json_int_t)r->present,
			      "torn", (json_int_t)r->torn, "withheld", (json_int_t)r->withheld,
			      "complete", r->complete);
	struct warm_error result_err = { 0 };

	warm_result_set_text(o, "key", warm_key_text(&target->key, key));
	warm_result_set_text(o, "reason", rc == 0 ? "" : err->msg);
	scope_free char *text = warm_result_text(o);
	if (text != NULL && warm_result_write(p->options->result, text, &result_err) != 0)
		warm_log(WARM_LOG_WARN, "result", "%s", result_err.msg);
	if (rc == 0)
		warm_log(
			WARM_LOG_INFO, "complete",
			"%s: %zu groups, %zu files published as %zu layers; %zu groups were there; "
			"%zu not whole, %zu withheld",
			key, r->groups, r->files, r->layers, r->present, r->torn, r->withheld);
}

static int fill(struct prewarm *p, const struct warm_target *target,
		struct warm_publish_report *report, struct warm_error *err)
{
	const struct prewarm_options *o = p->options;
	struct warm_publish_options options = {
		.store = warm_target_far(target),
		.key = target->key,
		.volume = o->volume,
		.settle_ms = o->settle_ms,
		.has_near = target->n_stores > 1,
		.roots = &target->roots,
		.notices = &warm_log_notices,
	};
	scope_publisher struct warm_publisher *publisher = NULL;

	int rc = warm_publisher_open(&options, &publisher, err);
	if (rc == 0)
		rc = wait_ready(p, err);
	if (rc == 0 && o->request_texts != NULL && o->request_texts[0] != '\0')
		rc = send_requests(p, o->inject.ready_url, err);
	if (rc == 0) {
		warm_publisher_set_ready(publisher);
		rc = wait_quiet(p, publisher, err);
	}
	if (rc == 0)
		rc = publish(publisher, WARM_PUBLISH_ALL, o->complete, &p->call, report, err);
	if (rc == 0 && report->volume_groups == 0)
		return warm_error_set(err, WARM_NOT_FOUND,
				      "nothing was compiled into %.200s: do the model's variables "
				      "lead there?",
				      o->volume);
	if (rc == 0 && !report->complete)
		return warm_error_set(err, WARM_IO, "the cache couldn't be marked complete");
	if (rc == 0)
		return 0;
	/* What is compiled already serves the next try, wherever that runs. */
	if (publisher != NULL) {
		struct warm_call rescue = { .deadline_ms = warm_clock_ms() + RESCUE_MS };
		struct warm_error lost = { 0 };
		if (publish(publisher, WARM_PUBLISH_FINAL, NULL, &rescue, report, &lost) != 0)
			warm_log(WARM_LOG_WARN, "publish-failed", "%s", lost.msg);
	}
	return rc;
}

int prewarm_fill(struct prewarm *p, struct warm_error *err)
{
	scope_target struct warm_target target = { 0 };
	struct warm_publish_report report = { 0 };

	int rc = warm_target_init(&target, &p->options->target, err);
	if (rc == 0 && target.disabled)
		rc = warm_error_set(err, WARM_INVALID, "no model is given: nothing can be filled");
	if (rc == 0)
		rc = fill(p, &target, &report, err);
	tell(p, &target, rc, &report, err);
	return rc;
}
