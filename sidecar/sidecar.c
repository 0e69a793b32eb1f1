/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warmcache-sidecar: publish what the model's compilers leave in the volume.
 *
 * One event loop (signals, inotify, a timer, the worker's end) and one worker thread that does
 * rounds of publishing, so that a store that hangs never keeps the loop from a signal. inotify
 * says when to look; a scan says what there is. It never exits by itself: with options that
 * can't be used it reports `disabled` and waits for SIGTERM, since a sidecar that exits takes
 * its pod out of service.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>

#include "lib/base/file.h"
#include "lib/base/hash.h"
#include "lib/base/log.h"
#include "lib/base/pace.h"
#include "lib/sync/near.h"
#include "lib/sync/quarantine.h"
#include "lib/sync/ready.h"
#include "lib/sync/result.h"
#include "lib/sync/target.h"
#include "sidecar/holder.h"
#include "sidecar/listen.h"
#include "sidecar/watch.h"

enum {
	STATUS_MS = 600 * 1000,
	FIRST_STATUS_MS = 15 *
			  1000, /* then twice as long each time: who looks early wants to know */
	ROUND_MS = 1800 * 1000, /* a round's deadline while the model runs */
	BACKOFF_MS = 1000,
	BACKOFF_MAX_MS = 60 * 1000,
	REPEAT_MS = 60 * 1000,	   /* a failure that repeats is told this often */
	CLOCK_LOOK_MS = 1000,	   /* looks by the clock come no more often */
	DRAIN_MS = 1000,	   /* from T0 on, between looks */
	LAST_RETRY_MS = 10 * 1000, /* a store that fails is asked again this long after SIGTERM */
	STALL_MS = 2 * 1000, /* a round that stands still at SIGTERM makes room for the last one */
	LOOK_MS = 900,
	BUSY_CPU_NS = 20 * 1000 * 1000, /* of a second: packing, however little CPU we are given */
	TURN_MS = 10 * 1000,		/* with a listener the loop turns this often */
	INERT_BYTES = 1200,
};

static struct {
	struct warm_target_options target;
	const char *volume;
	int64_t settle_ms, interval_ms, spread_ms, complete_after_ms, near_after_ms,
		ready_within_ms;
	uint64_t max_file_bytes, max_watches, near_max_bytes, cpu_limit;
	const char *ready_url, *ready_match, *listen, *result, *mode;
	struct warm_option_list allow_secrets;
	bool pre_stop;
} opt;

static const struct warm_option options[] = {
	WARM_TARGET_ROWS(opt.target),
	{ "volume", "WARM_VOLUME", WARM_OPTION_STRING, &opt.volume, "/warmcache", "DIR",
	  "Directory to publish from, mounted at the same path in the model's container." },
	{ "settle", "WARM_SETTLE", WARM_OPTION_DURATION, &opt.settle_ms, "5s", "TIME",
	  "An artifact is published when nothing in its group changed for this long." },
	{ "interval", "WARM_INTERVAL", WARM_OPTION_DURATION, &opt.interval_ms, "5m", "TIME",
	  "After the first publish, publish at most this often until SIGTERM." },
	{ "spread", "WARM_SPREAD", WARM_OPTION_DURATION, &opt.spread_ms, "60s", "TIME",
	  "Before a publish wait a random part of this, so that replicas that start together store "
	  "few copies. Never more than the interval." },
	{ "ready-url", "WARM_READY_URL", WARM_OPTION_STRING, &opt.ready_url, NULL, "URL",
	  "Publish only when the model has answered 2xx there; the first layer after that marks "
	  "the version's cache complete." },
	{ "ready-match", "WARM_READY_MATCH", WARM_OPTION_STRING, &opt.ready_match, NULL, "REGEX",
	  "... and the answer's body matches this, e.g. READY." },
	{ "ready-within", "WARM_READY_WITHIN", WARM_OPTION_DURATION, &opt.ready_within_ms, "30m",
	  "TIME",
	  "With --ready-url: a model that isn't ready by then starts cold the next time: what was "
	  "restored is moved aside. 0: never." },
	{ "complete-after", "WARM_COMPLETE_AFTER", WARM_OPTION_DURATION, &opt.complete_after_ms,
	  "60s", "TIME",
	  "At a graceful end, mark the version's cache complete when nothing new came for this "
	  "long." },
	{ "max-file-bytes", "WARM_MAX_FILE_BYTES", WARM_OPTION_BYTES, &opt.max_file_bytes, "2G",
	  "SIZE", "Never publish a larger file, nor its group." },
	{ "max-watches", NULL, WARM_OPTION_COUNT, &opt.max_watches, "8192", "N",
	  "Directories to watch by inotify; with more the volume is scanned by the clock." },
	{ "near-max-bytes", "WARM_NEAR_MAX_BYTES", WARM_OPTION_BYTES, &opt.near_max_bytes, "16G",
	  "SIZE",
	  "With several stores: the most that layers take in a near one; what was used longest ago "
	  "goes first. 0: no bound." },
	{ "near-after", "WARM_NEAR_AFTER", WARM_OPTION_DURATION, &opt.near_after_ms, "60s", "TIME",
	  "Fill near stores not before this long after the start: the model's start comes first." },
	{ "cpu-limit", "WARM_CPU_LIMIT", WARM_OPTION_COUNT, &opt.cpu_limit, "50", "PERCENT",
	  "While the model runs, packing takes at most so much of one CPU. 0: no limit." },
	{ "allow-secrets", "WARM_ALLOW_SECRETS", WARM_OPTION_LIST, &opt.allow_secrets, NULL, "PATH",
	  "A file below the volume, or a pattern of such, that may be published although it looks "
	  "as if it held a secret. Repeatable." },
	{ "mode", "WARM_MODE", WARM_OPTION_CHOICE, &opt.mode, "readwrite", "readwrite|readonly",
	  "readonly: look and measure, never write to a store." },
	{ "listen", "WARM_LISTEN", WARM_OPTION_STRING, &opt.listen, NULL, "ADDR",
	  "Serve /healthz, /readyz and /metrics there: HOST:PORT, or :PORT for all addresses." },
	{ "result", NULL, WARM_OPTION_STRING, &opt.result, NULL, "FILE",
	  "Write the result there at the end, one JSON object of at most 1 KiB. Default: the "
	  "container's termination log, where there is one." },
	{ "pre-stop", NULL, WARM_OPTION_BOOL, &opt.pre_stop, NULL, NULL,
	  "Tell the sidecar that serves the volume that the pod's end has begun, and return. For "
	  "a preStop hook." },
	WARM_PROFILE_ROW(opt.target),
};

static const struct warm_program program = {
	.name = "warmcache-sidecar",
	.summary = "publish a compile cache's new artifacts beside the model",
	.usage = "--store DIR --model NAME --version VERSION --volume DIR [OPTIONS]",
	.details = "Runs beside the model. Publishes after the first settle time, then at most "
		   "every --interval, and what is left at SIGTERM; then it exits 0. A second "
		   "SIGTERM stops at once. SIGUSR1 publishes now, SIGUSR2 says what --pre-stop "
		   "does. It never exits by itself. docs/sidecar.md tells more.",
	.options = options,
	.n_options = sizeof(options) / sizeof(options[0]),
};

struct sidecar {
	struct warm_target target;
	int signal_fd, timer_fd, done_fd, ready_fd;
	struct warm_watch watch;
	struct warm_listener *listener;
	struct warm_ready *ready_probe;

	/* worker */
	pthread_t worker;
	bool working;
	enum warm_publish_mode mode;
	const char *complete;
	bool quarantine, want_why; /* what else this round has to do */
	bool ready;		   /* the model was when the round began */
	struct warm_publisher *publisher;
	int holder_fd;
	bool probed;
	atomic_bool t0;	     /* the pod's end has begun: a round at work makes room */
	atomic_bool hurry;   /* SIGTERM: a round at work ends after its layer */
	atomic_bool give_up; /* SIGTERM, and nothing moves */
	int status;	     /* of the last round */
	struct warm_error error;
	struct warm_publish_report report; /* the worker's while it works */
	size_t quarantined;		   /* groups, of a round that was to */
	int quarantine_status;
	struct warm_error quarantine_error;
	char inert[INERT_BYTES]; /* why nothing restored is used; "" unless asked for */
	struct warm_restored restored;
	uint64_t kernel[WARM_KERNEL_COUNTED];
	/* who fills near stores: another one, since a near store that hangs must hold nobody else */
	pthread_t filler;
	int filled_fd;
	bool filling;
	int fill_status;
	struct warm_near_report near;
	struct warm_error fill_error;

	/* schedule, monotonic ms; 0: none */
	int64_t next_round_ms, next_status_ms, status_ms, last_new_ms;
	int64_t next_near_ms, near_from_ms; /* near stores are filled; not before */
	int64_t not_ready_ms;		    /* the model should be ready by then */
	int64_t backoff_ms;
	int64_t allowed_ms; /* no round before this: an interval after the last publish */
	int64_t wait_ms;    /* this publish's part of the spread; -1: not drawn yet */
	unsigned fruitless; /* looks in a row at groups that don't settle */
	bool looked;	    /* the first scan has been */
	bool changed;	    /* something happened since the last round began */
	bool now;	    /* SIGUSR1 */
	bool told_inert;
	bool draining; /* T0 has passed */
	bool ending, final_done;
	int64_t ending_since_ms; /* SIGTERM, or T0 before it */
	int64_t active_ms;	 /* when something moved last */
	int64_t gave_up_ms;
	int64_t looked_ms, looked_cpu_ns; /* at the last look at that */
	uint64_t moved_bytes;

	struct warm_metrics metrics; /* what is told; `last` is of the round that ended last */
};

static int64_t jitter(int64_t ms)
{
	uint32_t r;

	warm_random(&r, sizeof(r));
	return ms - ms / 10 + (int64_t)(r % 1000) * (ms / 5) / 1000;
}

static int64_t random_part(int64_t ms)
{
	uint32_t r;

	warm_random(&r, sizeof(r));
	return (int64_t)r * ms / UINT32_MAX;
}

/* ---- rounds ---- */

/* What libwarmcache-compiler counted in the volume; what can't be read stays as it was. */
static void read_kernel_counters(struct sidecar *s)
{
	scope_close int fd = open(opt.volume, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	uint64_t read[WARM_KERNEL_COUNTED];

	if (fd >= 0 && warm_kernel_counters_read(fd, read, NULL) == 0)
		memcpy(s->kernel, read, sizeof(s->kernel));
}

static void end_work(int done_fd)
{
	uint64_t one = 1;

	if (write(done_fd, &one, sizeof(one)) < 0)
		warm_log(WARM_LOG_ERROR, "eventfd", "%s", strerror(errno));
}

static int open_volume(struct sidecar *s)
{
	struct warm_publish_options o = {
		.store = warm_target_far(&s->target),
		.key = s->target.key,
		.volume = opt.volume,
		.settle_ms = opt.settle_ms,
		.max_file_bytes = opt.max_file_bytes,
		.complete_after_ms = opt.complete_after_ms,
		.hurry = &s->hurry,
		.cpu_percent = (unsigned)opt.cpu_limit,
		.draining = &s->t0,
		.allow_secrets = opt.allow_secrets.items,
		.n_allow_secrets = opt.allow_secrets.n,
		.read_only = strcmp(opt.mode, "readonly") == 0,
		.has_near = s->target.n_stores > 1,
		.roots = &s->target.roots,
		.notices = &warm_log_notices,
	};
	int rc = warm_publisher_open(&o, &s->publisher, &s->error);

	if (rc == 0 && !s->probed) {
		warm_watch_probe(&s->watch);
		warm_restored_load(&s->restored, opt.volume);
		s->probed = true;
	}
	return rc;
}

/* For --pre-stop. Another sidecar may have the volume, and end. */
static void hold_volume(struct sidecar *s)
{
	struct warm_error err = { 0 };

	if (s->holder_fd >= 0 && !warm_holder_counts(opt.volume, s->holder_fd))
		close(take_fd(&s->holder_fd));
	if (s->holder_fd < 0 && warm_holder_take(opt.volume, &s->holder_fd, &err) != 0)
		warm_log(WARM_LOG_WARN, "holder", "%s: --pre-stop won't find this one", err.msg);
}

/* Between rounds hours may pass. Code that they ran through stays in the page cache, where the next
 * one finds it; the heap's free pages don't. */
static void give_memory_back(void)
{
	scope_free char *maps = NULL;
	size_t bytes = 0;
	char *save = NULL;

	malloc_trim(0);
	if (warm_file_load(AT_FDCWD, "/proc/self/maps", 1 << 20, &maps, &bytes, NULL) != 0)
		return;
	for (char *line = strtok_r(maps, "\n", &save); line != NULL;
	     line = strtok_r(NULL, "\n", &save)) {
		unsigned long long from, to;
		char rights[5], path;
		/* Never written to, so that nothing is lost: the file has it all. */
		if (sscanf(line, "%llx-%llx %4s %*s %*s %*s %c", &from, &to, rights, &path) == 4 &&
		    strcmp(rights, "r-xp") == 0 && path == '/')
			(void)madvise((void *)(uintptr_t)from, (size_t)(to - from), MADV_DONTNEED);
	}
}

/* Whether it means something that nothing was opened yet: the model is ready, or, where nobody
 * tells, it has compiled. */
static bool is_telling(const struct sidecar *s)
{
	return s->ready ||
	       (!s->metrics.ready_known && s->mode >= WARM_PUBLISH_ROUND && s->report.fresh > 0);
}

/* What a round of this mode is, and what else has to be done by the way. */
static void *work(void *arg)
{
	struct sidecar *s = arg;
	struct warm_call call = {
		.deadline_ms = s->mode == WARM_PUBLISH_FINAL ? 0 : warm_clock_ms() + ROUND_MS,
		.cancel = &s->give_up,
	};
	scope_buf struct warm_buf why = WARM_BUF_INIT;
	if (s->mode <= WARM_PUBLISH_ROUND)
		warm_pace_background();
	s->report = (struct warm_publish_report){ 0 };
	s->status = 0;
	s->quarantined = 0;
	s->quarantine_status = 0;
	s->inert[0] = '\0';
	if (s->publisher == NULL) {
		s->status = open_volume(s);
		s->report.volume_lost = s->status == WARM_NOT_FOUND || s->status == WARM_DENIED;
	}
	if (s->status == 0) {
		hold_volume(s);
		if (s->ready)
			warm_publisher_set_ready(s->publisher);
		warm_watch_begin(&s->watch);
		s->status = warm_publisher_run(s->publisher, s->mode, s->complete, warm_watch_dir,
					       &s->watch, &call, &s->report, &s->error);
	}
	struct warm_use use = warm_publish_use(&s->report);
	/* Of what nobody has opened nobody suffers: the model may not have begun yet. */
	if (s->status == 0 && s->quarantine && use.used > 0)
		s->quarantine_status = warm_quarantine_run(opt.volume, &s->quarantined,
							   &s->quarantine_error);
	if (s->status == 0 && s->want_why && use.used == 0 && use.inert > 0 && is_telling(s) &&
	    warm_publisher_explain_inert(s->publisher, &call, &why, NULL) == 0 && !why.failed)
		snprintf(s->inert, sizeof(s->inert), "%.*s", (int)why.bytes,
			 (const char *)why.data);
	read_kernel_counters(s);
	give_memory_back();
	end_work(s->done_fd);
	return NULL;
}

/* SIGTERM cancels it: near can wait, the last round can't. */
static void *fill(void *arg)
{
	struct sidecar *s = arg;
	struct warm_call call = { .cancel = &s->hurry };
	warm_pace_background();
	struct warm_near_options o = {
		.stores = s->target.stores,
		.n_stores = s->target.n_stores,
		.key = s->target.key,
		.volume = opt.volume,
		.max_bytes = opt.near_max_bytes,
		.notices = &warm_log_notices,
	};

	s->fill_status = warm_near_fill(&o, &call, &s->near, &s->fill_error);
	end_work(s->filled_fd);
	return NULL;
}

static void start_fill(struct sidecar *s)
{
	s->next_near_ms = 0;
	s->filling = pthread_create(&s->filler, NULL, fill, s) == 0;
	if (!s->filling)
		s->next_near_ms = warm_clock_ms() + BACKOFF_MAX_MS;
}

static void end_fill(struct sidecar *s)
{
	const struct warm_near_report *r = &s->near;
	uint64_t count;

	if (!s->filling || read(s->filled_fd, &count, sizeof(count)) < 0)
		return;
	pthread_join(s->filler, NULL);
	s->filling = false;
	if (r->filled + r->repaired > 0)
		warm_log(WARM_LOG_INFO, "near-filled",
			 "%zu layers, %zu repaired, %.1f MiB; %zu evicted, %zu left", r->filled,
			 r->repaired, (double)r->bytes / 1048576, r->evicted, r->left);
	if (s->fill_status != 0 && !s->ending)
		warm_log(WARM_LOG_WARN, "near-failed", "%s: %s", warm_status_name(s->fill_status),
			 s->fill_error.msg);
	if (r->left > 0 || s->fill_status != 0)
		s->next_near_ms = warm_clock_ms() + jitter(opt.interval_ms);
}

/* While nobody says that the model is ready, only looks; and the first one doesn't wait for the
 * spread. */
static enum warm_publish_mode mode_of(const struct sidecar *s)
{
	if (s->ending)
		return WARM_PUBLISH_FINAL;
	if (s->draining)
		return WARM_PUBLISH_DRAIN;
	if (s->now)
		return WARM_PUBLISH_ROUND;
	bool may = s->metrics.ready || !s->metrics.ready_known;
	return may && (s->looked || opt.spread_ms == 0) ? WARM_PUBLISH_ROUND : WARM_PUBLISH_LOOK;
}

/* The mark that this round may put: known readiness is what it stands for. Where nobody tells, a
 * graceful end after some time without anything new. */
static const char *mark_of(const struct sidecar *s, int64_t now)
{
	if (s->metrics.last.complete)
		return NULL;
	if (s->metrics.ready_known)
		return s->metrics.ready && s->mode != WARM_PUBLISH_LOOK ? "" : NULL;
	return s->mode == WARM_PUBLISH_FINAL && s->metrics.last.volume_groups > 0 && !s->changed &&
			       now - s->last_new_ms >= opt.complete_after_ms
		       ? ""
		       : NULL;
}

static void start_round(struct sidecar *s)
{
	int64_t now = warm_clock_ms();

	s->mode = mode_of(s);
	atomic_store(&s->give_up, false);
	if (!s->final_done) /* a last round that is tried again has the mark of the first */
		s->complete = mark_of(s, now);
	s->quarantine = s->not_ready_ms != 0 && now >= s->not_ready_ms && !s->draining &&
			!s->ending;
	s->want_why = s->looked && !s->told_inert;
	s->ready = s->metrics.ready;
	s->changed = false;
	s->now = false;
	s->wait_ms = -1;
	s->next_round_ms = 0;
	s->working = pthread_create(&s->worker, NULL, work, s) == 0;
	if (!s->working) {
		s->status = warm_error_set(&s->error, WARM_NO_MEMORY, "can't start a thread");
		s->next_round_ms = now + BACKOFF_MS;
		s->changed = true;
		s->final_done = s->mode == WARM_PUBLISH_FINAL;
	}
}

/* ---- what it tells ---- */

static void tell_numbers(struct sidecar *s)
{
	struct warm_metrics *m = &s->metrics;

	m->state = s->ending	 ? WARM_SIDECAR_ENDING
		   : s->draining ? WARM_SIDECAR_DRAINING
		   : s->looked	 ? WARM_SIDECAR_RUNNING
				 : WARM_SIDECAR_STARTING;
	m->watches = atomic_load(&s->watch.watches);
	warm_listener_update(s->listener, m);
}

static void write_result(const struct sidecar *s, const char *status, const char *reason)
{
	struct warm_error err = { 0 };
	scope_free char *text = warm_metrics_result(&s->metrics, status, reason);

	if (text != NULL && warm_result_write(opt.result, text, &err) != 0)
		warm_log(WARM_LOG_WARN, "result", "%s", err.msg);
}

static void log_status(struct sidecar *s, const char *state)
{
	s->metrics.watches = atomic_load(&s->watch.watches);
	warm_metrics_log(&s->metrics, state);
	s->status_ms = s->status_ms == 0 ? FIRST_STATUS_MS : 2 * s->status_ms;
	if (s->status_ms > STATUS_MS)
		s->status_ms = STATUS_MS;
	s->next_status_ms = warm_clock_ms() + s->status_ms;
}

static void count_round(struct sidecar *s)
{
	struct warm_metrics *m = &s->metrics;
	const struct warm_publish_report *r = &s->report;
	/* The mark is known only to who has asked the store. */
	bool complete = r->asked ? r->complete : m->last.complete;

	m->last = *r;
	m->last.complete = complete;
	m->restored = s->restored;
	memcpy(m->kernel, s->kernel, sizeof(m->kernel));
	m->layers += r->layers;
	m->groups += r->groups;
	m->files += r->files;
	m->bytes += r->bytes;
	m->raw_bytes += r->raw_bytes;
	m->quarantined += s->quarantined;
	if (r->layers > 0) {
		m->last_publish_ms = warm_clock_wall_ms();
		warm_histogram_add(&m->publish, r->scan_ms + r->pack_ms + r->put_ms);
	}
	if (s->status == 0) {
		m->last_success_ms = warm_clock_wall_ms();
		m->published += r->layers > 0;
		m->nothing += r->layers == 0;
	} else {
		m->failed++;
		if (-s->status < WARM_STATUSES)
			m->failures[-s->status]++;
	}
}

static void tell_published(struct sidecar *s)
{
	const struct warm_publish_report *r = &s->report;

	warm_log(WARM_LOG_INFO, "published",
		 "%zu groups, %zu files, %.1f MiB as %zu layers of %.1f MiB; scan %lld ms, "
		 "pack %lld ms, put %lld ms; %zu waiting, %zu torn%s",
		 r->groups, r->files, (double)r->raw_bytes / 1048576, r->layers,
		 (double)r->bytes / 1048576, (long long)r->scan_ms, (long long)r->pack_ms,
		 (long long)r->put_ms, r->waiting, r->torn,
		 r->complete ? "; the version is complete" : "");
	log_status(s, s->ending ? "ending" : s->draining ? "draining" : "running");
}

/* Not less: looks cost something. */
static int64_t settle_ms(void)
{
	return opt.settle_ms > 100 ? opt.settle_ms : 100;
}

/* A publish's part of the spread, drawn once until it has been. */
static int64_t spread_of(struct sidecar *s)
{
	if (mode_of(s) != WARM_PUBLISH_ROUND)
		return 0;
	if (s->wait_ms < 0)
		s->wait_ms = random_part(opt.spread_ms < opt.interval_ms ? opt.spread_ms
									 : opt.interval_ms);
	return s->wait_ms;
}

static void end_round(struct sidecar *s)
{
	const struct warm_publish_report *r = &s->report;
	uint64_t count;
	int64_t now = warm_clock_ms();

	if (!s->working || read(s->done_fd, &count, sizeof(count)) < 0)
		return;
	pthread_join(s->worker, NULL);
	s->working = false;
	if (!s->looked && warm_watch_by_clock(&s->watch))
		warm_log(WARM_LOG_WARN, "inotify",
			 "no events on this volume: scanning every %lld s",
			 (long long)(opt.interval_ms / 1000));
	s->looked = s->looked || s->status == 0;
	count_round(s);
	if (s->quarantine) {
		bool done = s->quarantined > 0 || warm_publish_use(r).inert == 0;
		s->not_ready_ms = s->status == 0 && s->quarantine_status == 0 && done
					  ? 0
					  : now + REPEAT_MS;
		if (s->status == 0 && s->quarantine_status != 0)
			warm_log(WARM_LOG_WARN, "quarantine-failed", "%s", s->quarantine_error.msg);
		if (s->quarantined > 0)
			warm_log(
				WARM_LOG_WARN, "quarantined",
				"the model isn't ready within %lld s (%s): %zu restored groups are "
				"moved to %s/" WARM_QUARANTINE_DIR ", so that its next start is "
				"cold. Seen on many pods: warmcache gc --version",
				(long long)opt.ready_within_ms / 1000,
				warm_ready_last(s->ready_probe), s->quarantined, opt.volume);
	}
	if (s->inert[0] != '\0') {
		s->told_inert = true;
		warm_log(WARM_LOG_WARN, "inert",
			 "a cache was restored and nothing of it was opened: %s", s->inert);
	}
	if (r->groups > 0 || r->waiting > 0)
		s->last_new_ms = now;
	if (r->layers > 0) {
		if (s->target.n_stores > 1)
			s->next_near_ms = now > s->near_from_ms ? now : s->near_from_ms;
		s->allowed_ms = now + jitter(opt.interval_ms);
		tell_published(s);
	}
	if (s->status != 0) {
		warm_log(WARM_LOG_WARN, "publish-failed", "%s: %s", warm_status_name(s->status),
			 s->error.msg);
		s->backoff_ms = s->backoff_ms == 0 ? BACKOFF_MS : 2 * s->backoff_ms;
		if (s->backoff_ms > (s->draining ? BACKOFF_MS : BACKOFF_MAX_MS))
			s->backoff_ms = s->draining ? BACKOFF_MS : BACKOFF_MAX_MS;
		s->next_round_ms = now + jitter(s->backoff_ms);
		/* The volume may have come back as another directory. */
		if (r->volume_lost) {
			warm_publisher_free(s->publisher);
			s->publisher = NULL;
			if (s->holder_fd >= 0)
				close(take_fd(&s->holder_fd));
		}
	} else {
		s->backoff_ms = 0;
	}
	if (s->mode == WARM_PUBLISH_FINAL)
		s->final_done = true;
	/* If the next one is killed, this is what was told. */
	if (s->draining && r->layers > 0)
		write_result(s, "ending", "");
	/* What was there before the first look may have to be published. */
	if (s->mode == WARM_PUBLISH_LOOK && s->status == 0 && s->next_round_ms == 0 &&
	    mode_of(s) != WARM_PUBLISH_LOOK)
		s->next_round_ms = now + settle_ms() + spread_of(s);
}

/* When to look next. The first publish comes as soon as something has settled and the spread is
 * waited; after that the interval counts. What doesn't settle is looked at again, each time later.
 * From T0 on: every second. */
static void schedule(struct sidecar *s)
{
	const struct warm_publish_report *last = &s->metrics.last;
	int64_t now = warm_clock_ms(), settle = settle_ms();
	bool unsettled = last->waiting + last->torn > 0;
	bool by_clock = warm_watch_by_clock(&s->watch) || last->left > 0;
	int64_t due;

	if (s->working || s->backoff_ms != 0)
		return; /* after a failure its own date stands */
	if (!s->changed && (s->next_round_ms != 0 || !(unsettled || by_clock)))
		return;
	if (s->draining) {
		due = now + DRAIN_MS;
	} else if (s->changed) {
		s->fruitless = 0;
		due = now + settle;
	} else if (unsettled) {
		due = now + (settle << (s->fruitless < 6 ? s->fruitless++ : 6));
		if (due > now + opt.interval_ms && opt.interval_ms > settle)
			due = now + opt.interval_ms;
	} else {
		due = now +
		      jitter(opt.interval_ms > CLOCK_LOOK_MS ? opt.interval_ms : CLOCK_LOOK_MS);
	}
	if (!s->draining && due < s->allowed_ms)
		due = s->allowed_ms;
	if (s->changed && !s->draining)
		due += spread_of(s);
	/* Something new brings the next look forward, and never puts it off. */
	if (s->next_round_ms == 0 || due < s->next_round_ms)
		s->next_round_ms = due;
}

static void earliest(int64_t *at, int64_t other)
{
	if (other != 0 && other < *at)
		*at = other;
}

static void arm_timer(const struct sidecar *s)
{
	int64_t now = warm_clock_ms(), at = s->next_status_ms;

	if (!s->working) {
		earliest(&at, s->next_round_ms);
		earliest(&at, s->ending ? 0 : s->not_ready_ms);
	}
	if (!s->filling && !s->ending)
		earliest(&at, s->next_near_ms);
	if (s->listener != NULL)
		earliest(&at, now + TURN_MS);
	if ((s->draining || s->ending) && s->working)
		earliest(&at, now + 1000);
	int64_t left = at - now;
	if (left < 1)
		left = 1;
	struct itimerspec t = { .it_value = { left / 1000, left % 1000 * 1000000 } };
	timerfd_settime(s->timer_fd, 0, &t, NULL);
}

/* ---- signals ---- */

static int64_t cpu_time_ns(void)
{
	struct timespec cpu;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
	return warm_timespec_ns(cpu);
}

static void begin_stall_watch(struct sidecar *s)
{
	s->ending_since_ms = s->looked_ms = warm_clock_ms();
	s->looked_cpu_ns = cpu_time_ns();
}

/* T0, by --pre-stop: what is whole goes out while the model drains, and little is left for
 * SIGTERM. */
static void begin_drain(struct sidecar *s)
{
	if (s->draining || s->ending)
		return;
	s->draining = true;
	begin_stall_watch(s);
	s->backoff_ms = 0;
	s->not_ready_ms = 0;
	s->next_round_ms = warm_clock_ms();
	atomic_store(&s->t0, true);
	warm_log(WARM_LOG_INFO, "draining", "the pod is ending: publishing what is whole");
	write_result(s, "ending", "");
}

static void take_signals(struct sidecar *s)
{
	struct signalfd_siginfo info;

	while (read(s->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGUSR1) {
			s->now = true;
			continue;
		}
		if (info.ssi_signo == SIGUSR2) {
			begin_drain(s);
			continue;
		}
		if (s->ending) {
			warm_log(WARM_LOG_WARN, "stopped", "told twice: stopping at once");
			_exit(1);
		}
		s->ending = true;
		begin_stall_watch(s);
		s->backoff_ms = 0;
		s->next_round_ms = 0;
		atomic_store(&s->t0, true);
		atomic_store(&s->hurry, true);
		warm_log(WARM_LOG_INFO, "ending", "publishing what is left");
		write_result(s, "ending", "");
	}
}

static int idle_until_signal(const struct sidecar *s, int signal_fd)
{
	struct signalfd_siginfo info;
	struct pollfd p = { .fd = signal_fd, .events = POLLIN };

	for (;;) {
		warm_listener_beat(s->listener);
		if (poll(&p, 1, s->listener != NULL ? TURN_MS : -1) <= 0)
			continue;
		ssize_t n = read(signal_fd, &info, sizeof(info));
		if (n == (ssize_t)sizeof(info) &&
		    (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT))
			return 0;
	}
}

/* After a last round that failed: a store may come back, but it must not hold the pod's end. */
static bool worth_retrying(const struct sidecar *s)
{
	return s->status != 0 && s->status != WARM_DENIED && s->status != WARM_UNSUPPORTED &&
	       s->status != WARM_INVALID && s->status != WARM_NOT_FOUND && !s->report.volume_lost &&
	       s->next_round_ms - s->ending_since_ms < LAST_RETRY_MS;
}

/* A store that hangs must not hold the pod's end. No deadline: as long as bytes go out, or the
 * packing takes CPU, there is progress. */
static void watch_stall(struct sidecar *s)
{
	int64_t now = warm_clock_ms();
	uint64_t moved = warm_store_activity();

	if (now - s->looked_ms >= LOOK_MS) {
		int64_t cpu_ns = cpu_time_ns(), seconds = (now - s->looked_ms + 999) / 1000;
		/* Of one that has to make room, packing is no progress: it is packed again. */
		if (s->mode == mode_of(s) && cpu_ns - s->looked_cpu_ns >= seconds * BUSY_CPU_NS)
			s->active_ms = now;
		s->looked_ms = now;
		s->looked_cpu_ns = cpu_ns;
	}
	if (moved != s->moved_bytes)
		s->active_ms = now;
	s->moved_bytes = moved;
	int64_t since = s->active_ms > s->ending_since_ms ? s->active_ms : s->ending_since_ms;
	/* Whoever has to make room has less time than whoever that is for. */
	if (now - since < (s->mode == mode_of(s) ? LAST_RETRY_MS : STALL_MS))
		return;
	if (!atomic_exchange(&s->give_up, true))
		s->gave_up_ms = now;
	/* It doesn't even notice: a disk hangs. What it had in hand is not in the store. */
	if (s->ending && now - s->gave_up_ms >= LAST_RETRY_MS) {
		warm_log(WARM_LOG_ERROR, "incomplete",
			 "the store or the volume hangs: what is left is not published");
		log_status(s, "incomplete");
		write_result(s, "incomplete", "the store or the volume hangs");
		_exit(0);
	}
}

static bool fills_near(const struct sidecar *s)
{
	return s->target.n_stores > 1 && strcmp(opt.mode, "readonly") != 0;
}

static void take_ready(struct sidecar *s)
{
	uint64_t count;

	if (s->metrics.ready || read(s->ready_fd, &count, sizeof(count)) < 0)
		return;
	s->metrics.ready = true;
	s->not_ready_ms = 0;
	s->near_from_ms = warm_clock_ms();
	if (fills_near(s))
		s->next_near_ms = s->near_from_ms;
	/* A look that was due becomes a publish: at a date of its own. */
	s->changed = true;
	if (s->backoff_ms == 0)
		s->next_round_ms = 0;
	warm_log(WARM_LOG_INFO, "ready", "%s answers", opt.ready_url);
}

/* Several sources of work; each is looked at in each turn. */
static void take_events(struct sidecar *s)
{
	struct pollfd fds[] = {
		{ .fd = s->signal_fd, .events = POLLIN }, { .fd = s->done_fd, .events = POLLIN },
		{ .fd = s->timer_fd, .events = POLLIN },  { .fd = s->watch.fd, .events = POLLIN },
		{ .fd = s->filled_fd, .events = POLLIN }, { .fd = s->ready_fd, .events = POLLIN },
	};
	enum { N = sizeof(fds) / sizeof(fds[0]) };
	uint64_t ticks;

	if (poll(fds, N, -1) < 0 && errno != EINTR) {
		/* Out of memory, most likely: look at all once a second. */
		struct timespec second = { .tv_sec = 1 };
		warm_log(WARM_LOG_ERROR, "poll", "%s", strerror(errno));
		nanosleep(&second, NULL);
		for (size_t i = 0; i < N; i++)
			fds[i].revents = POLLIN;
	}
	warm_listener_beat(s->listener);
	if (fds[2].revents != 0 && read(s->timer_fd, &ticks, sizeof(ticks)) < 0 && errno != EAGAIN)
		warm_log(WARM_LOG_ERROR, "timer", "%s", strerror(errno));
	if (fds[0].revents != 0)
		take_signals(s);
	if (fds[1].revents != 0)
		end_round(s);
	if (fds[4].revents != 0)
		end_fill(s);
	if (fds[5].revents != 0)
		take_ready(s);
	if (s->watch.fd >= 0 && fds[3].revents != 0 && warm_watch_drain(&s->watch))
		s->changed = true;
}

static void run(struct sidecar *s)
{
	int64_t now = warm_clock_ms();

	s->last_new_ms = now;
	if (fills_near(s)) {
		s->near_from_ms = s->metrics.ready_known ? INT64_MAX : now + opt.near_after_ms;
		s->next_near_ms = s->metrics.ready_known ? 0 : s->near_from_ms;
	}
	if (s->metrics.ready_known && opt.ready_within_ms > 0)
		s->not_ready_ms = now + opt.ready_within_ms;
	/* The first scan sets the watches: now, so that nothing is missed from here on. */
	start_round(s);
	log_status(s, "started");
	for (;;) {
		tell_numbers(s);
		arm_timer(s);
		take_events(s);
		now = warm_clock_ms();
		if (now >= s->next_status_ms) {
			log_status(s, s->ending ? "ending" : s->draining ? "draining" : "running");
			/* Reads make no event: what is used is counted by a look. */
			if (!s->working && s->next_round_ms == 0)
				s->next_round_ms = now;
		}
		if ((s->draining || s->ending) && s->working)
			watch_stall(s);
		if (s->ending && !s->working) {
			if (s->final_done && !worth_retrying(s))
				break;
			if (!s->final_done || now >= s->next_round_ms)
				start_round(s);
			continue;
		}
		if (s->next_near_ms != 0 && !s->filling && !s->ending && now >= s->next_near_ms)
			start_fill(s);
		if (s->working)
			continue;
		schedule(s);
		if (s->now || (s->next_round_ms != 0 && now >= s->next_round_ms) ||
		    (s->not_ready_ms != 0 && now >= s->not_ready_ms && s->backoff_ms == 0))
			start_round(s);
	}
	const char *end = s->status == 0 ? "ended" : "incomplete";
	if (s->status != 0)
		warm_log(WARM_LOG_ERROR, "incomplete", "what is left is not published: %s",
			 s->error.msg);
	log_status(s, end);
	write_result(s, end, s->status == 0 ? "" : s->error.msg);
}

static void disable(struct sidecar *s, const struct warm_error *err)
{
	warm_log(WARM_LOG_ERROR, "disabled", "%s; nothing will be published until a restart",
		 err->msg);
	warm_log(WARM_LOG_INFO, "status", "state=disabled reason=%s", err->msg);
	s->metrics.state = WARM_SIDECAR_DISABLED;
	snprintf(s->metrics.reason, sizeof(s->metrics.reason), "%s", err->msg);
	warm_listener_update(s->listener, &s->metrics);
	write_result(s, "disabled", err->msg);
}

static int pre_stop(void)
{
	struct warm_error err = { 0 };

	if (warm_holder_tell(opt.volume, &err) == 0)
		return 0;
	fprintf(stderr, "%s: %s\n", program.name, err.msg);
	return 1;
}

static int start(struct sidecar *s, const sigset_t *signals, struct warm_error *err)
{
	int rc = warm_target_init(&s->target, &opt.target, err);

	if (rc == 0 && s->target.disabled)
		rc = warm_error_set(err, WARM_INVALID, "no model is given");
	s->signal_fd = signalfd(-1, signals, SFD_NONBLOCK | SFD_CLOEXEC);
	s->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	s->done_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	s->filled_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	s->ready_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (rc == 0 && (s->signal_fd < 0 || s->timer_fd < 0 || s->done_fd < 0 || s->filled_fd < 0 ||
			s->ready_fd < 0))
		rc = warm_error_errno(err, errno, "event loop");
	warm_watch_init(&s->watch, opt.volume, opt.max_watches);
	s->holder_fd = -1;
	s->wait_ms = -1;
	s->metrics.key = s->target.key;
	if (rc == 0 && opt.ready_url != NULL && opt.ready_url[0] != '\0') {
		s->metrics.ready_known = true;
		rc = warm_ready_start(opt.ready_url, opt.ready_match, s->ready_fd, &s->ready_probe,
				      err);
	}
	return rc;
}

int main(int argc, char **argv)
{
	static struct sidecar s;
	struct warm_error err = { 0 }, listen_err = { 0 };
	enum warm_options_result parsed;
	sigset_t set;

	warm_process_setup();
	warm_log_setup(program.name, false, WARM_LOG_INFO);
	/* First of all, so that a SIGTERM that comes early is not lost. */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	int rc = warm_options_parse(&program, argc, argv, &parsed, NULL, &err);
	if (parsed == WARM_OPTIONS_DONE)
		return 0;
	if (opt.pre_stop)
		return pre_stop();
	warm_log_repeats(REPEAT_MS);
	int blocking_fd = signalfd(-1, &set, SFD_CLOEXEC);
	if (opt.listen != NULL && opt.listen[0] != '\0' &&
	    warm_listener_open(opt.listen, &s.listener, &listen_err) != 0)
		warm_log(WARM_LOG_WARN, "listen", "%s: no metrics are served", listen_err.msg);
	if (rc == 0)
		rc = start(&s, &set, &err);
	if (rc != 0) {
		disable(&s, &err);
		return idle_until_signal(&s, blocking_fd);
	}
	close(blocking_fd);
	run(&s);
	/* Near, or the model, hangs: it is not waited for, and what it uses is not taken from it. */
	if (s.filling || (s.metrics.ready_known && !s.metrics.ready))
		_exit(0);
	warm_listener_close(s.listener);
	warm_publisher_free(s.publisher);
	warm_target_release(&s.target);
	return 0;
}
