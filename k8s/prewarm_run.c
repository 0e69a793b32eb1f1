/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Create Jobs, follow them, wait for them.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "k8s/prewarm.h"
#include "lib/base/log.h"
#include "lib/sync/catalog.h"

enum {
	SLICE_MS = 15 * 1000, /* of a watch: then the Job itself is looked at */
	POLL_MS = 1000,
	KEPT_MS = 60 * 1000, /* servers may take a while to end */
	POLL_STORE_MS = 15 * 1000,
	LOG_BYTES = 256 << 10,
	OWN_LINES = 20,
	MODEL_LINES = 40,
	SUMMARY = 512,
};

enum state { FAILED = -1, RUNNING = 0, DONE = 1, ABSENT = 2 };

/* One Job that is followed. */
struct follow {
	struct prewarm *p;
	const json_t *job; /* as it was rendered */
	const char *name, *namespace;
	enum state state;
	char told[SUMMARY];   /* of its pod, last */
	char pod[256];	      /* the newest pod that was seen */
	char made[32];	      /* its creation */
	bool listed, ended;   /* all pods were told; that one has ended */
	char line[SUMMARY];   /* of its log, last */
	int64_t looked_ms;    /* at the store */
	int64_t filled_ms;    /* until then its own container hadn't ended well */
	bool store_is_silent; /* that was told */
};

static void rest(int64_t ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&ts, NULL);
}

static void path_of(const struct follow *f, char ret_path[512], const char *name)
{
	snprintf(ret_path, 512, "/apis/batch/v1/namespaces/%.63s/jobs%s%.63s", f->namespace,
		 name[0] != '\0' ? "/" : "", name);
}

/* ---- the store ---- */

/* Whether the key holds a layer that is marked complete for this template. NOT_FOUND: it doesn't. */
static int look_at_store(const struct follow *f, struct warm_error *err)
{
	json_t *template = json_object_get(json_object_get(f->job, "spec"), "template");
	json_t *annotations = json_object_get(json_object_get(f->job, "metadata"), "annotations");
	struct warm_template t = { .object = (json_t *)(uintptr_t)f->job,
				   .pod = template,
				   .spec = json_object_get(template, "spec") };
	struct warm_target_options o = f->p->options->target;
	const json_t *init = warm_named(json_object_get(t.spec, "initContainers"),
					WARM_INJECT_INIT);
	const json_t *store = warm_named(json_object_get(init, "env"), "WARM_STORE");
	scope_free char *stores = strdup(warm_member_text(store, "value"));
	scope_target struct warm_target target = { 0 };
	scope_catalog struct warm_catalog catalog = { 0 };
	struct warm_inject_report key;
	char *save = NULL;

	if (stores == NULL)
		return warm_error_nomem(err, 64);
	warm_inject_key(&t, NULL, &key);
	o.model = key.model;
	o.version = key.version;
	o.platform = key.platform;
	if (o.stores.n == 0)
		for (char *s = strtok_r(stores, ",", &save);
		     s != NULL && o.stores.n < WARM_OPTION_LIST_MAX; s = strtok_r(NULL, ",", &save))
			o.stores.items[o.stores.n++] = s;
	if (o.stores.n == 0)
		return warm_error_set(err, WARM_UNSUPPORTED, "no store is given (--store)");
	/* A tag that moves is of another image each day. */
	if (key.version[0] == '\0')
		return WARM_NOT_FOUND;
	int rc = warm_target_init(&target, &o, err);
	const char *far = o.stores.items[o.stores.n - 1];
	if (rc == 0 && far[0] == '/' && access(far, F_OK) != 0)
		return warm_error_set(err, WARM_UNSUPPORTED, "%.200s isn't on this machine", far);
	if (rc == 0)
		rc = warm_catalog_list(&catalog, warm_target_far(&target), &target.key, false,
				       &f->p->call, err);
	if (rc == 0)
		rc = warm_catalog_read(&catalog, warm_target_far(&target), &warm_log_notices,
				       &f->p->call, err);
	if (rc == 0)
		warm_state_cover(catalog.layers, catalog.n_layers);
	if (rc == 0 &&
	    !warm_catalog_has_mark(&catalog, warm_member_text(annotations, PREWARM_TEMPLATE)))
		rc = WARM_NOT_FOUND;
	return rc;
}

/* DONE; ABSENT: it isn't there; RUNNING: nobody can tell. */
static enum state state_in_store(struct follow *f)
{
	struct warm_error err = { 0 };
	int rc = look_at_store(f, &err);

	if (rc == 0)
		return DONE;
	if (rc == WARM_NOT_FOUND)
		return ABSENT;
	if (!f->store_is_silent)
		warm_log(rc == WARM_UNSUPPORTED ? WARM_LOG_INFO : WARM_LOG_WARN, "store",
			 "%s: whether the cache is complete isn't known: %s", f->name, err.msg);
	f->store_is_silent = true;
	return RUNNING;
}

/* ---- creating ---- */

static enum state state_of(const json_t *job)
{
	const json_t *one;
	size_t i;

	json_array_foreach(json_object_get(json_object_get(job, "status"), "conditions"), i, one) {
		if (strcmp(warm_member_text(one, "status"), "True") != 0)
			continue;
		if (strcmp(warm_member_text(one, "type"), "Complete") == 0)
			return DONE;
		if (strcmp(warm_member_text(one, "type"), "Failed") == 0)
			return FAILED;
	}
	return RUNNING;
}

/* ABSENT when there is none. */
static int get_state(const struct follow *f, enum state *ret_state, char ret_uid[64],
		     struct warm_error *err)
{
	char path[512];
	json_t *job = NULL;

	path_of(f, path, f->name);
	int rc = warm_kube_request(f->p->kube, "GET", path, NULL, &f->p->call, &job, err);
	if (rc != 0 && rc != WARM_NOT_FOUND)
		return rc;
	*ret_state = rc == 0 ? state_of(job) : ABSENT;
	if (ret_uid != NULL)
		snprintf(ret_uid, 64, "%s",
			 warm_member_text(json_object_get(job, "metadata"), "uid"));
	json_decref(job);
	return 0;
}

/* That one alone: another run may have replaced it meanwhile. */
static int delete_job(const struct follow *f, const char *uid, struct warm_error *err)
{
	json_t *how = json_pack("{s:s,s:s,s:s,s:{s:s}}", "apiVersion", "v1", "kind",
				"DeleteOptions", "propagationPolicy", "Foreground", "preconditions",
				"uid", uid);
	enum state state = RUNNING;
	char path[512];

	path_of(f, path, f->name);
	int rc = warm_kube_request(f->p->kube, "DELETE", path, how, &f->p->call, NULL, err);
	json_decref(how);
	if (rc == WARM_NOT_FOUND)
		return 0;
	while (rc == 0) {
		rc = get_state(f, &state, NULL, err);
		if (rc != 0 || state == ABSENT)
			return rc;
		rest(POLL_MS / 2);
		rc = warm_call_check(&f->p->call, err);
	}
	return rc;
}

static int post_job(const struct follow *f, struct warm_error *err)
{
	char path[512];

	path_of(f, path, "");
	return warm_kube_request(f->p->kube, "POST", path, f->job, &f->p->call, NULL, err);
}

/* A Job of this name is the same Job, since its name has the template's hash. One that failed, or
 * whose cache is gone, is replaced. */
static int create(struct follow *f, struct warm_error *err)
{
	enum state stored = f->p->options->force ? ABSENT : state_in_store(f), state;
	char uid[64];

	if (stored == DONE) {
		warm_log(WARM_LOG_INFO, "complete", "%s: the cache is complete for this template",
			 f->name);
		f->state = DONE;
		return 0;
	}
	int rc = post_job(f, err);
	if (rc == 0)
		warm_log(WARM_LOG_INFO, "created", "job %s/%s", f->namespace, f->name);
	if (rc != WARM_EXISTS)
		return rc;
	rc = get_state(f, &state, uid, err);
	if (rc != 0)
		return rc;
	if (state == RUNNING) {
		warm_log(WARM_LOG_INFO, "found", "job %s/%s runs already", f->namespace, f->name);
		return 0;
	}
	if (state == DONE && stored != ABSENT) {
		warm_log(WARM_LOG_INFO, "complete", "job %s/%s is Complete already", f->namespace,
			 f->name);
		f->state = DONE;
		return 0;
	}
	if (state != ABSENT) {
		warm_log(WARM_LOG_INFO, "replaced", "job %s/%s: it %s", f->namespace, f->name,
			 state == FAILED	? "had failed"
			 : f->p->options->force ? "is Complete (--force)"
						: "is Complete, and the cache is gone");
		rc = delete_job(f, uid, err);
	}
	return rc == 0 ? post_job(f, err) : rc;
}

/* ---- following ---- */

static void add(char text[SUMMARY], const char *fmt, ...) WARM_PRINTF(2, 3);
static void add(char text[SUMMARY], const char *fmt, ...)
{
	size_t at = strlen(text);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text + at, SUMMARY - at, fmt, ap);
	va_end(ap);
}

/* What keeps a container waiting, or how it ended, or nothing. */
static void add_container(char text[SUMMARY], const json_t *status)
{
	json_t *state = json_object_get(status, "state");
	const json_t *waiting = json_object_get(state, "waiting");
	const json_t *ended = json_object_get(state, "terminated");
	json_int_t restarts = json_integer_value(json_object_get(status, "restartCount"));
	const char *name = warm_member_text(status, "name"),
		   *reason = warm_member_text(waiting, "reason");

	if (json_is_object(waiting) && strcmp(reason, "PodInitializing") != 0)
		add(text, "; %s waits: %s %.120s", name, reason,
		    warm_member_text(waiting, "message"));
	else if (json_is_object(ended))
		add(text, "; %s ended with %d", name,
		    (int)json_integer_value(json_object_get(ended, "exitCode")));
	else if (json_is_object(json_object_get(state, "running")))
		add(text, "; %s runs", name);
	if (restarts > 0)
		add(text, " (restarted %d times)", (int)restarts);
}

static void summarize(const json_t *pod, char ret_text[SUMMARY])
{
	json_t *status = json_object_get(pod, "status"), *one;
	size_t i;

	snprintf(ret_text, SUMMARY, "%s", warm_member_text(status, "phase"));
	json_array_foreach(json_object_get(status, "conditions"), i, one)
		if (strcmp(warm_member_text(one, "type"), "PodScheduled") == 0 &&
		    strcmp(warm_member_text(one, "status"), "False") == 0)
			add(ret_text, ", not scheduled: %.250s", warm_member_text(one, "message"));
	json_array_foreach(json_object_get(status, "initContainerStatuses"), i, one)
		add_container(ret_text, one);
	json_array_foreach(json_object_get(status, "containerStatuses"), i, one)
		add_container(ret_text, one);
}

static bool has_ended(const json_t *pod)
{
	const char *phase = warm_member_text(json_object_get(pod, "status"), "phase");

	return strcmp(phase, "Succeeded") == 0 || strcmp(phase, "Failed") == 0;
}

/* A Job that has tried again has several pods, in the order of their names. */
static bool is_older(const struct follow *f, const json_t *pod)
{
	json_t *metadata = json_object_get(pod, "metadata");
	int order = strcmp(warm_member_text(metadata, "creationTimestamp"), f->made);

	return strcmp(warm_member_text(metadata, "name"), f->pod) != 0 &&
	       (order < 0 || (order == 0 && has_ended(pod)));
}

static int see_pod(void *arg, enum warm_kube_event event, const json_t *pod, struct warm_error *err)
{
	struct follow *f = arg;
	char text[SUMMARY];

	(void)err;
	if (event == WARM_KUBE_LISTED) {
		f->listed = true;
		return f->ended;
	}
	if (event == WARM_KUBE_DELETED || is_older(f, pod))
		return 0;
	json_t *metadata = json_object_get(pod, "metadata");
	snprintf(f->pod, sizeof(f->pod), "%s", warm_member_text(metadata, "name"));
	snprintf(f->made, sizeof(f->made), "%s", warm_member_text(metadata, "creationTimestamp"));
	summarize(pod, text);
	if (strcmp(text, f->told) != 0)
		warm_log(WARM_LOG_INFO, "pod", "%s: %s", f->pod, text);
	memcpy(f->told, text, sizeof(text));
	/* Now the Job will tell. */
	f->ended = has_ended(pod);
	return f->listed && f->ended;
}

static void read_log(const struct follow *f, const char *container, int lines,
		     struct warm_buf *ret_text)
{
	char path[1024];

	if (f->pod[0] == '\0')
		return;
	snprintf(path, sizeof(path),
		 "/api/v1/namespaces/%.63s/pods/%.253s/log?container=%.63s&tailLines=%d",
		 f->namespace, f->pod, container, lines);
	/* What can't be had isn't there yet, or not any more. */
	if (warm_kube_text(f->p->kube, path, LOG_BYTES, &f->p->call, ret_text, NULL) != 0)
		ret_text->bytes = 0;
}

/* What ours says is the progress. */
static void tell_progress(struct follow *f)
{
	scope_buf struct warm_buf text = WARM_BUF_INIT;
	char line[SUMMARY];

	read_log(f, PREWARM, 1, &text);
	snprintf(line, sizeof(line), "%.*s", (int)(text.bytes < SUMMARY ? text.bytes : SUMMARY - 1),
		 text.data != NULL ? (const char *)text.data : "");
	line[strcspn(line, "\n")] = '\0';
	if (line[0] != '\0' && strcmp(line, f->line) != 0)
		warm_log(WARM_LOG_INFO, "progress", "%s: %s", f->pod, line);
	memcpy(f->line, line, sizeof(line));
}

static int follow(struct follow *f, struct warm_error *err)
{
	char path[512];
	int rc = 0;

	snprintf(path, sizeof(path),
		 "/api/v1/namespaces/%.63s/"
		 "pods?labelSelector=batch.kubernetes.io%%2Fjob-name%%3D%.63s",
		 f->namespace, f->name);
	f->filled_ms = warm_clock_ms();
	while (f->state == RUNNING && rc == 0) {
		struct warm_call slice = { .deadline_ms = warm_clock_ms() + SLICE_MS,
					   .outer = &f->p->call };
		f->listed = false;
		rc = warm_kube_watch(f->p->kube, path, see_pod, f, &slice, err);
		if (rc == WARM_CANCELED)
			rc = warm_call_check(&f->p->call, err);
		tell_progress(f);
		/* A container that somebody added may keep the pod, and the Job. */
		if (f->ended || strstr(f->told, PREWARM " ended with 0") == NULL)
			f->filled_ms = warm_clock_ms();
		if (rc == 0 && warm_clock_ms() - f->filled_ms > KEPT_MS &&
		    state_in_store(f) == DONE) {
			warm_log(WARM_LOG_WARN, "kept",
				 "%s: the cache is complete; another container keeps the pod: %s",
				 f->pod, f->told);
			f->state = DONE;
			break;
		}
		if (rc == 0)
			rc = get_state(f, &f->state, NULL, err);
		if (rc == 0 && f->state == RUNNING)
			rest(POLL_MS);
		if (rc == 0 && f->state == ABSENT)
			return warm_error_set(err, WARM_NOT_FOUND, "job %s was deleted", f->name);
	}
	return rc;
}

/* ---- failures ---- */

static void print_lines(const char *what, const struct warm_buf *text)
{
	if (text->bytes > 0)
		fprintf(stderr, "--- %s\n%.*s%s", what, (int)text->bytes, (const char *)text->data,
			text->data[text->bytes - 1] == '\n' ? "" : "\n");
}

static void print_events(const struct follow *f, const char *object)
{
	char path[512];
	struct warm_error err = { 0 };
	json_t *events = NULL, *one;
	size_t i;

	snprintf(path, sizeof(path),
		 "/api/v1/namespaces/%.63s/events?fieldSelector=involvedObject.name%%3D%.253s",
		 f->namespace, object);
	if (warm_kube_request(f->p->kube, "GET", path, NULL, &f->p->call, &events, &err) != 0)
		fprintf(stderr, "--- no events: %s\n", err.msg);
	json_array_foreach(json_object_get(events, "items"), i, one)
		fprintf(stderr, "--- event of %s: %s: %s\n", object,
			warm_member_text(one, "reason"), warm_member_text(one, "message"));
	json_decref(events);
}

/* All that there is to see, before somebody has to ask. */
static void print_failure(struct follow *f)
{
	json_t *template = json_object_get(json_object_get(f->job, "spec"), "template");
	json_t *inits = json_object_get(json_object_get(template, "spec"), "initContainers"), *one;
	size_t i;

	print_events(f, f->name);
	if (f->pod[0] == '\0')
		return;
	print_events(f, f->pod);
	json_array_foreach(inits, i, one) {
		scope_buf struct warm_buf text = WARM_BUF_INIT;
		read_log(f, warm_member_text(one, "name"), MODEL_LINES, &text);
		print_lines(warm_member_text(one, "name"), &text);
	}
	scope_buf struct warm_buf own = WARM_BUF_INIT;
	read_log(f, PREWARM, OWN_LINES, &own);
	print_lines(PREWARM, &own);
}

/* ---- all of them ---- */

static int begin(struct prewarm *p, const json_t *jobs, bool needs_kube, struct follow **ret_all,
		 size_t *ret_n, struct warm_error *err)
{
	size_t n = json_array_size(jobs);
	struct follow *all = calloc(n + 1, sizeof(*all));
	int rc = all == NULL ? warm_error_nomem(err, n * sizeof(*all)) : prewarm_kube(p, err);

	if (rc != 0 && !needs_kube) {
		warm_log(WARM_LOG_WARN, "kubernetes", "%s: the store alone can tell", err->msg);
		rc = 0;
	}
	for (size_t i = 0; i < n && rc == 0; i++) {
		struct follow *f = &all[i];
		f->p = p;
		f->job = json_array_get(jobs, i);
		f->name = warm_member_text(json_object_get(f->job, "metadata"), "name");
		f->namespace = "default";
		if (p->kube != NULL)
			rc = prewarm_namespace(p, f->job, &f->namespace, err);
	}
	if (rc != 0) {
		free(all);
		return rc;
	}
	*ret_all = all;
	*ret_n = n;
	return 0;
}

static int tell_end(struct follow *all, size_t n, struct warm_error *err)
{
	size_t failed = 0, first = 0;

	for (size_t i = 0; i < n; i++) {
		if (all[i].state == FAILED && failed++ == 0)
			first = i;
		if (all[i].state == FAILED && all[i].p->kube != NULL)
			print_failure(&all[i]);
	}
	if (failed > 0)
		return warm_error_set(err, WARM_IO, "%zu of %zu jobs failed, among them %s/%s",
				      failed, n, all[first].namespace, all[first].name);
	return 0;
}

int prewarm_run(struct prewarm *p, const json_t *jobs, struct warm_error *err)
{
	scope_free struct follow *all = NULL;
	size_t n = 0;

	int rc = begin(p, jobs, true, &all, &n, err);
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = create(&all[i], err);
	for (size_t i = 0; i < n && rc == 0; i++) {
		rc = follow(&all[i], err);
		if (rc != 0)
			warm_error_context(err, "job %s/%s", all[i].namespace, all[i].name);
		else if (all[i].state == DONE)
			warm_log(WARM_LOG_INFO, "done", "job %s/%s", all[i].namespace, all[i].name);
	}
	return rc == 0 ? tell_end(all, n, err) : rc;
}

/* One look at a Job that somebody may have created, or whose cache may have come otherwise. */
static int look(struct follow *f, struct warm_error *err)
{
	enum state state = ABSENT;
	int rc = f->p->kube != NULL ? get_state(f, &state, NULL, err) : 0;

	if (rc != 0)
		return rc;
	if (state == DONE || state == FAILED)
		f->state = state;
	if (f->state == DONE || warm_clock_ms() - f->looked_ms < POLL_STORE_MS)
		return 0;
	f->looked_ms = warm_clock_ms();
	if (state_in_store(f) == DONE)
		f->state = DONE;
	return 0;
}

int prewarm_wait(struct prewarm *p, const json_t *jobs, struct warm_error *err)
{
	scope_free struct follow *all = NULL;
	size_t n = 0, left = 0;

	int rc = begin(p, jobs, p->options->create, &all, &n, err);
	for (size_t i = 0; i < n && rc == 0; i++) {
		all[i].looked_ms = -POLL_STORE_MS;
		if (p->options->create)
			rc = create(&all[i], err);
	}
	do {
		left = 0;
		for (size_t i = 0; i < n && rc == 0; i++) {
			if (all[i].state == RUNNING)
				rc = look(&all[i], err);
			left += all[i].state == RUNNING;
		}
		if (rc == 0 && left > 0) {
			rest(POLL_MS);
			rc = warm_call_check(&p->call, err);
			if (rc != 0)
				warm_error_context(err, "%zu of %zu jobs aren't complete", left, n);
		}
	} while (rc == 0 && left > 0);
	return rc == 0 ? tell_end(all, n, err) : rc;
}
