/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warmcache-init: restore the cache of this model version into a volume, before the model runs.
 *
 * It fails open: whatever goes wrong, the volume is usable and the exit code is 0, unless
 * --require or --check ask for more. A watchdog ends the program soon after the deadline also
 * where a file system hangs; renames made until then are whole.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "lib/base/file.h"
#include "lib/base/log.h"
#include "lib/store/tier.h"
#include "lib/sync/ledger.h"
#include "lib/sync/near.h"
#include "lib/sync/restore.h"
#include "lib/sync/result.h"
#include "lib/sync/target.h"

#define ATTEMPT WARM_DIR "/attempt"

enum { WATCHDOG_SPARE_MS = 2000, CHECK_FILE_BYTES = 1, NOTED = 512, KILLED_STARTS = 2 };

static struct {
	struct warm_target_options target;
	const char *volume, *fallback, *result;
	int64_t deadline_ms;
	uint64_t jobs, max_bytes;
	bool require, check, dry_run;
} opt;

static const struct warm_option options[] = {
	WARM_TARGET_ROWS(opt.target),
	{ "volume", "WARM_VOLUME", WARM_OPTION_STRING, &opt.volume, "/warmcache", "DIR",
	  "Directory to restore into, mounted at the same path in the model's container." },
	{ "fallback", "WARM_FALLBACK", WARM_OPTION_STRING, &opt.fallback, "latest",
	  "latest|none|VERSION,...",
	  "Until this version's cache is complete, take what it lacks from another version: the "
	  "newest complete one, none, or the first of a list." },
	{ "deadline", "WARM_DEADLINE", WARM_OPTION_DURATION, &opt.deadline_ms, "30s", "TIME",
	  "Stop then; what is restored by then stays." },
	{ "jobs", "WARM_JOBS", WARM_OPTION_COUNT, &opt.jobs, "0", "N",
	  "Frames to decode at once, at most 4; 0: one more than there are CPUs." },
	{ "max-bytes", "WARM_RESTORE_MAX_BYTES", WARM_OPTION_BYTES, &opt.max_bytes, "0", "SIZE",
	  "The most to add to the volume; 0: half of what is free." },
	WARM_PROFILE_ROW(opt.target),
	{ "result", "WARM_RESULT", WARM_OPTION_STRING, &opt.result, NULL, "FILE",
	  "Write the result there, one JSON object of at most 1 KiB. Default: the container's "
	  "termination log, where there is one." },
	{ "require", "WARM_REQUIRE", WARM_OPTION_BOOL, &opt.require, NULL, NULL,
	  "Exit with a failure unless the cache was restored whole." },
	{ "check", NULL, WARM_OPTION_BOOL, &opt.check, NULL, NULL,
	  "Check options, store and volume, restore nothing; failures are exit codes." },
	{ "dry-run", NULL, WARM_OPTION_BOOL, &opt.dry_run, NULL, NULL,
	  "Say what would be restored, and change nothing." },
};

static const struct warm_program program = {
	.name = "warmcache-init",
	.summary = "restore a model version's compile cache into a volume",
	.usage = "--store DIR --model NAME --version VERSION --volume DIR [OPTIONS]",
	.details = "Runs as an init container. Whatever goes wrong, the volume is usable and the "
		   "exit code is 0: the model then starts cold. With --require or --check "
		   "failures are exit codes: 2 bad usage, 3 nothing to restore, others by kind.",
	.options = options,
	.n_options = sizeof(options) / sizeof(options[0]),
};

static int64_t started_ms;
static pthread_mutex_t result_lock = PTHREAD_MUTEX_INITIALIZER;
static bool result_written;
static char written[WARM_RESULT_BYTES + 1];

/* Also into the volume, for the sidecar's metrics; nothing depends on it. */
static void leave_result(void)
{
	scope_close int fd = open(opt.volume, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	scope_close int dir = -1;
	const char *name = NULL;

	if (fd >= 0 && warm_beneath_parent(fd, WARM_RESULT_PATH, &dir, &name, NULL) == 0)
		(void)!warm_file_replace(dir, name, written, strlen(written), 0666, false, NULL);
}

/* Write the result once, by whoever comes first: main or the watchdog. */
static void write_result(const char *status, const struct warm_key *key,
			 const struct warm_restore_result *r, const char *reason_text)
{
	char key_text[3 * WARM_KEY_PART_BYTES + 3] = "";
	int64_t duration = warm_clock_ms() - started_ms;

	/* Who holds it may hang in a write: the watchdog doesn't wait for that. */
	struct timespec soon;
	clock_gettime(CLOCK_REALTIME, &soon);
	soon.tv_sec++;
	if (pthread_mutex_timedlock(&result_lock, &soon) != 0)
		return;
	if (result_written) {
		pthread_mutex_unlock(&result_lock);
		return;
	}
	result_written = true;
	if (key != NULL)
		warm_key_text(key, key_text);
	json_t *o = json_object(), *phases = json_object();
	warm_result_set_text(o, "status", status);
	warm_result_set_text(o, "key", key_text);
	json_object_set_new(o, "layers", json_integer((json_int_t)r->layers));
	json_object_set_new(o, "files", json_integer((json_int_t)r->files));
	json_object_set_new(o, "bytes", json_integer((json_int_t)r->bytes));
	json_object_set_new(o, "present_files", json_integer((json_int_t)r->present_files));
	json_object_set_new(o, "fetched_bytes", json_integer((json_int_t)r->fetched_bytes));
	json_object_set_new(o, "duration_ms", json_integer(duration));
	json_object_set_new(phases, "list", json_integer(r->list_ms));
	json_object_set_new(phases, "index", json_integer(r->index_ms));
	json_object_set_new(phases, "fetch", json_integer(r->fetch_ms));
	json_object_set_new(phases, "place", json_integer(r->place_ms));
	json_object_set_new(o, "phases", phases);
	json_object_set_new(o, "complete", json_boolean(r->complete));
	if (r->fallback_version[0] != '\0')
		warm_result_set_text(o, "fallback", r->fallback_version);
	warm_result_set_text(o, "reason", reason_text);
	scope_free char *text = warm_result_text(o);
	struct warm_error err = { 0 };
	if (text != NULL && warm_result_write(opt.result, text, &err) != 0)
		warm_log(WARM_LOG_WARN, "result", "%s", err.msg);
	snprintf(written, sizeof(written), "%s", text != NULL ? text : "");
	warm_log(strcmp(status, "error") == 0 || strcmp(status, "partial") == 0 ? WARM_LOG_WARN
										: WARM_LOG_INFO,
		 "restored",
		 "%s: %zu files, %.1f MiB from %zu layers in %lld ms (%.1f MiB fetched, %zu files "
		 "were there)%s%s%s%s",
		 status, r->files, (double)r->bytes / 1048576, r->layers, (long long)duration,
		 (double)r->fetched_bytes / 1048576, r->present_files,
		 r->fallback_version[0] != '\0' ? ", fallback to version " : "",
		 r->fallback_version, reason_text[0] != '\0' ? ": " : "", reason_text);
	pthread_mutex_unlock(&result_lock);
}

static int exit_code(int status)
{
	return opt.require || opt.check ? warm_status_exit_code(status) : 0;
}

static const struct warm_key *watched_key;

static void *watchdog(void *arg)
{
	int64_t end_ms = *(int64_t *)arg;

	for (int64_t now; (now = warm_clock_ms()) < end_ms;) {
		int64_t left = end_ms - now;
		struct timespec ts = { left / 1000, left % 1000 * 1000000 };
		nanosleep(&ts, NULL);
	}
	struct warm_restore_result none = { 0 };
	write_result("partial", watched_key, &none,
		     "the deadline has passed and the store or the volume hangs");
	_exit(exit_code(WARM_CANCELED));
}

static int fail(const struct warm_key *key, const struct warm_error *err)
{
	struct warm_restore_result none = { 0 };

	write_result("error", key, &none, err->msg);
	return exit_code(err->status);
}

static int check_store(void *arg, const struct warm_object *object, struct warm_error *err)
{
	(void)object;
	(void)err;
	(*(size_t *)arg)++;
	return 0;
}

static int check(const struct warm_target *target, const struct warm_call *call,
		 struct warm_error *err)
{
	char prefix[WARM_NAME_BYTES];
	size_t n = 0;

	warm_key_prefix(&target->key, prefix);
	for (size_t i = 0; i < target->n_stores; i++) {
		int rc = warm_store_list(target->stores[i], prefix, check_store, &n, NULL, call,
					 err);
		if (rc != 0)
			return rc;
	}
	scope_close int fd = open(opt.volume, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return warm_error_errno(err, errno, "volume %s", opt.volume);
	int rc = warm_file_replace(fd, ".warmcache-check", "x", CHECK_FILE_BYTES, 0600, false, err);
	if (rc != 0) {
		warm_error_context(err, "volume %s", opt.volume);
		return rc;
	}
	unlinkat(fd, ".warmcache-check", 0);
	return 0;
}

static int take_fallback(struct warm_restore_options *o, char *copy, const char **versions,
			 size_t max, struct warm_error *err)
{
	char *save = NULL;

	if (strcmp(opt.fallback, "latest") == 0 || opt.fallback[0] == '\0') {
		o->fallback = WARM_FALLBACK_LATEST;
		return 0;
	}
	if (strcmp(opt.fallback, "none") == 0) {
		o->fallback = WARM_FALLBACK_NONE;
		return 0;
	}
	o->fallback = WARM_FALLBACK_VERSIONS;
	for (char *v = strtok_r(copy, ",", &save); v != NULL; v = strtok_r(NULL, ",", &save)) {
		struct warm_key key;
		if (o->n_versions == max)
			return warm_error_set(err, WARM_INVALID, "--fallback: over %zu versions",
					      max);
		if (warm_key_init(&key, "m", v, "p", err) != 0) {
			warm_error_context(err, "--fallback");
			return WARM_INVALID;
		}
		versions[o->n_versions++] = v;
	}
	o->versions = versions;
	return 0;
}

/* What near lacks, for the sidecar. */
struct lacking {
	const char *names[NOTED];
	bool damaged[NOTED];
	size_t n;
};

static void take_lacking(void *arg, const char *name, bool damaged)
{
	struct lacking *l = arg;

	if (l->n == NOTED)
		return;
	l->names[l->n] = name;
	l->damaged[l->n++] = damaged;
}

static void note_lacking(const struct warm_store *tier)
{
	static struct lacking l;
	struct warm_error err = { 0 };
	scope_close int fd = open(opt.volume, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	warm_tier_lacking(tier, take_lacking, &l);
	if (fd >= 0 && l.n > 0 && warm_near_note(fd, l.names, l.damaged, l.n, &err) != 0)
		warm_log(WARM_LOG_WARN, "near", "%s", err.msg);
}

/* Several stores are tiers: `ret_tier`, which the caller frees. */
static int restore(const struct warm_target *target, struct warm_restore_options *o,
		   const struct warm_call *call, struct warm_restore_result *result,
		   struct warm_store **ret_tier, struct warm_error *err)
{
	int rc = 0;

	o->store = warm_target_far(target);
	if (target->n_stores > 1) {
		rc = warm_tier_open(target->stores, target->n_stores, &warm_log_notices, ret_tier,
				    err);
		if (rc != 0)
			return rc;
		o->store = *ret_tier;
	}
	rc = warm_restore_run(o, call, result, err);
	if (target->n_stores > 1 && warm_tier_far_is_away(*ret_tier)) {
		char reason[256];
		snprintf(reason, sizeof(reason), "%.250s", result->reason);
		snprintf(result->reason, sizeof(result->reason),
			 "%.100s is away: by the nearer stores alone%s%s",
			 warm_store_url(warm_target_far(target)), reason[0] != '\0' ? "; " : "",
			 reason);
	}
	return rc;
}

/* ---- what kills us must not keep the pod from starting ---- */

static int attempt_fd = -1;

/* While a restore runs, a file in the volume has a byte for it, and is locked. What is there unlocked
 * is of starts that were killed, by lack of memory perhaps, and would be again: this one is to
 * restore nothing. */
static bool begin_attempt(void)
{
	scope_close int fd = open(opt.volume, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || warm_beneath_mkdirs(fd, WARM_DIR, NULL) != 0 ||
	    warm_beneath_open(fd, ATTEMPT, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK, 0666,
			      &attempt_fd, NULL) != 0)
		return true; /* the restore says what is wrong */
	if (flock(attempt_fd, LOCK_EX | LOCK_NB) != 0 || fstat(attempt_fd, &st) != 0) {
		close(take_fd(&attempt_fd));
		return true; /* another one is at work */
	}
	(void)!write(attempt_fd, "", 1); /* on a full disk it isn't counted */
	return st.st_size < KILLED_STARTS;
}

static void end_attempt(void)
{
	scope_close int fd = open(opt.volume, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	scope_close int dir = -1;
	const char *name = NULL;

	if (fd >= 0 && warm_beneath_parent(fd, ATTEMPT, &dir, &name, NULL) == 0)
		unlinkat(dir, name, 0);
}

static pid_t worker;

/* As the first process of a container we would never see it. */
static void on_terminate(int signal_number)
{
	if (worker > 0)
		kill(worker, SIGKILL);
	end_attempt();
	_exit(opt.require || opt.check ? 128 + signal_number : 0);
}

static int run(void);

/* In a container the work is done by a child: one that crashes is a cold start, where a container that
 * crashes would be restarted for ever. */
static int run_guarded(void)
{
	const struct sigaction sa = { .sa_handler = on_terminate };
	struct warm_restore_result none = { 0 };
	char reason[128];
	int status;

	fflush(NULL);
	worker = fork();
	if (worker < 0)
		return run();
	if (worker == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(run());
	}
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	while (waitpid(worker, &status, 0) < 0)
		if (errno != EINTR)
			return 0;
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	/* Out of memory, most likely: then the kubelet starts us again, whatever our exit code is. */
	if (WTERMSIG(status) != SIGKILL)
		end_attempt();
	snprintf(reason, sizeof(reason), "the restore was ended by signal %d (%s)",
		 WTERMSIG(status), strsignal(WTERMSIG(status)));
	write_result("error", NULL, &none, reason);
	return exit_code(WARM_IO);
}

static int run(void)
{
	struct warm_error err = { 0 };
	scope_target struct warm_target target = { 0 };
	const char *versions[16];
	char fallback_copy[2200];
	struct warm_restore_result result = { 0 };

	int rc = warm_target_init(&target, &opt.target, &err);
	struct warm_restore_options o = {
		.key = target.key,
		.volume = opt.volume,
		.jobs = (unsigned)(opt.jobs > 64 ? 64 : opt.jobs),
		.max_bytes = opt.max_bytes,
		.dry_run = opt.dry_run,
		.roots = &target.roots,
		.notices = &warm_log_notices,
	};
	if (rc == 0) {
		snprintf(fallback_copy, sizeof(fallback_copy), "%s", opt.fallback);
		rc = take_fallback(&o, fallback_copy, versions, 16, &err);
	}
	if (rc != 0)
		return fail(NULL, &err);
	if (target.disabled) {
		write_result("cold", &target.key, &result, "disabled: no model is given");
		return exit_code(WARM_INVALID);
	}

	int64_t deadline = opt.deadline_ms > 0 ? started_ms + opt.deadline_ms : 0;
	int64_t watchdog_end = deadline + WATCHDOG_SPARE_MS;
	struct warm_call call = { .deadline_ms = deadline };
	pthread_t id;
	watched_key = &target.key;
	if (deadline != 0 && pthread_create(&id, NULL, watchdog, &watchdog_end) == 0)
		pthread_detach(id);
	if (opt.check) {
		rc = check(&target, &call, &err);
		if (rc != 0)
			return fail(&target.key, &err);
		write_result("cold", &target.key, &result, "checked: store and volume are usable");
		return 0;
	}
	o.cold = !opt.dry_run && !begin_attempt();
	scope_store struct warm_store *tier = NULL;
	rc = restore(&target, &o, &call, &result, &tier, &err);
	if (o.cold && rc == 0)
		snprintf(result.reason, sizeof(result.reason),
			 "starts before on this volume were killed while they restored");
	write_result(warm_restore_status_name(result.status), &target.key, &result, result.reason);
	if (!opt.dry_run)
		leave_result();
	if (attempt_fd >= 0)
		end_attempt();
	if (tier != NULL && !opt.dry_run)
		note_lacking(tier);
	if (rc == 0 && result.status == WARM_RESTORE_COLD)
		rc = WARM_NOT_FOUND;
	return exit_code(rc);
}

int main(int argc, char **argv)
{
	struct warm_error err = { 0 };
	enum warm_options_result parsed;

	started_ms = warm_clock_ms();
	warm_process_setup();
	warm_log_setup(program.name, false, WARM_LOG_INFO);
	int rc = warm_options_parse(&program, argc, argv, &parsed, NULL, &err);
	if (parsed == WARM_OPTIONS_DONE)
		return 0;
	if (rc != 0)
		return fail(NULL, &err);
	/* Of a container, also where its processes share a namespace with others'. */
	return getpid() == 1 || getppid() == 0 ? run_guarded() : run();
}
