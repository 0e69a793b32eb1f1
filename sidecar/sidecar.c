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
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>

#include "lib/base/file.h"
#include "lib/base/hash.h"
#include "lib/base/log.h"
#include "lib/kernel/counters.h"
#include "lib/sync/ledger.h"
#include "lib/sync/near.h"
#include "lib/sync/publish.h"
#include "lib/sync/target.h"

enum {
	STATUS_MS = 600 * 1000,
	ROUND_MS = 300 * 1000, /* a round's deadline while the model runs */
	BACKOFF_MS = 1000,
	BACKOFF_MAX_MS = 60 * 1000,
	REPEAT_MS = 60 * 1000, /* a failure that repeats is told this often */
	PROBE_MS = 200,
	LAST_RETRY_MS = 10 * 1000, /* a store that fails is asked again this long after SIGTERM */
	STALL_MS = 2 * 1000, /* a round that stands still at SIGTERM makes room for the last one */
	LOOK_MS = 900,
	BUSY_CPU_NS = 20 * 1000 * 1000, /* of a second: packing, however little CPU we are given */
};

static struct {
	struct warm_target_options target;
	const char *volume;
	int64_t settle_ms, interval_ms, complete_after_ms, near_after_ms;
	uint64_t max_file_bytes, max_watches, near_max_bytes;
} opt;

static const struct warm_option options[] = {
	WARM_TARGET_ROWS(opt.target),
	{ "volume", "WARM_VOLUME", WARM_OPTION_STRING, &opt.volume, "/warmcache", "DIR",
	  "Directory to publish from, mounted at the same path in the model's container." },
	{ "settle", "WARM_SETTLE", WARM_OPTION_DURATION, &opt.settle_ms, "5s", "TIME",
	  "An artifact is published when nothing in its group changed for this long." },
	{ "interval", "WARM_INTERVAL", WARM_OPTION_DURATION, &opt.interval_ms, "5m", "TIME",
	  "After the first publish, publish at most this often until SIGTERM." },
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
	WARM_PROFILE_ROW(opt.target),
};

static const struct warm_program program = {
	.name = "warmcache-sidecar",
	.summary = "publish a compile cache's new artifacts beside the model",
	.usage = "--store DIR --model NAME --version VERSION --volume DIR [OPTIONS]",
	.details = "Runs beside the model. Publishes after the first settle time, then at most "
		   "every --interval, and what is left at SIGTERM; then it exits 0. A second "
		   "SIGTERM stops at once. SIGUSR1 publishes now. It never exits by itself.",
	.options = options,
	.n_options = sizeof(options) / sizeof(options[0]),
};

struct sidecar {
	struct warm_target target;
	int signal_fd, notify_fd, timer_fd, done_fd;
	bool by_clock; /* inotify can't be relied on */
	bool probed;

	/* worker */
	pthread_t worker;
	bool working;
	enum warm_publish_mode mode;
	const char *complete;
	struct warm_publisher *publisher;
	atomic_size_t watches;
	atomic_bool too_many_dirs;
	atomic_bool hurry;   /* SIGTERM: a round at work ends after its layer */
	atomic_bool give_up; /* SIGTERM, and nothing moves */
	int status;	     /* of the last round */
	struct warm_error error;
	struct warm_publish_report report; /* the worker's while it works */
	struct warm_publish_report last;   /* of the round that ended last */
	/* who fills near stores: another one, since a near store that hangs must hold nobody else */
	pthread_t filler;
	int filled_fd;
	bool filling;
	int fill_status;
	struct warm_near_report near;
	struct warm_error fill_error;
	/* the kernel cache's counters in the volume: the worker's, and as they were last */
	uint64_t kernel[WARM_KERNEL_COUNTED], last_kernel[WARM_KERNEL_COUNTED];

	/* schedule, monotonic ms; 0: none */
	int64_t next_round_ms, next_status_ms, last_publish_ms, last_new_ms;
	int64_t next_near_ms, near_from_ms; /* near stores are filled; not before */
	int64_t backoff_ms;
	int64_t allowed_ms; /* no round before this: an interval after the last publish */
	unsigned fruitless; /* looks in a row at groups that don't settle */
	bool changed;	    /* something happened since the last round began */
	bool now;	    /* SIGUSR1 */
	bool ending, final_done;
	int64_t ending_since_ms;
	int64_t active_ms;		  /* when something moved last */
	int64_t looked_ms, looked_cpu_ns; /* at the last look at that */
	uint64_t moved_bytes;

	/* totals */
	size_t layers, groups, files, failures;
	uint64_t bytes;
	/* failures that repeat */
	int64_t last_told_ms;
	size_t untold;
};

static int64_t jitter(int64_t ms)
{
	uint32_t r;

	warm_random(&r, sizeof(r));
	return ms - ms / 10 + (int64_t)(r % 1000) * (ms / 5) / 1000;
}

/* ---- inotify ---- */

static void watch_dir(void *arg, const char *path)
{
	struct sidecar *s = arg;
	char full[2 * WARM_PATH_BYTES];

	if (s->notify_fd < 0)
		return;
	if (atomic_load(&s->watches) >= opt.max_watches) {
		atomic_store(&s->too_many_dirs, true);
		return;
	}
	snprintf(full, sizeof(full), "%s/%s", opt.volume, path);
	if (inotify_add_watch(s->notify_fd, full,
			      IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE_SELF |
				      IN_ONLYDIR | IN_DONT_FOLLOW | IN_EXCL_UNLINK) >= 0)
		atomic_fetch_add(&s->watches, 1);
	else if (errno != ENOENT && errno != ENOTDIR)
		atomic_store(&s->too_many_dirs, true);
}

/* Read what inotify has; true when something happened (or was lost). */
static bool drain_notify(struct sidecar *s)
{
	char data[16384] __attribute__((aligned(8)));
	bool any = false;

	for (;;) {
		ssize_t n = read(s->notify_fd, data, sizeof(data));
		if (n <= 0)
			return any;
		for (char *p = data; p < data + n;) {
			const struct inotify_event *e = (const void *)p;
			p += sizeof(*e) + e->len;
			/* Our own directory changes with every ledger; IGNORED is an echo. */
			if ((e->mask & IN_IGNORED) != 0 ||
			    (e->len > 0 && strcmp(e->name, WARM_DIR) == 0))
				continue;
			if (e->len > 0 && (e->mask & IN_ISDIR) == 0 &&
			    warm_profile_skips_file(e->name))
				continue;
			any = true;
		}
	}
}

/* Some sandboxes accept watches and never report: make a file and see. */
static void probe_notify(struct sidecar *s)
{
	char dir[WARM_PATH_BYTES + 32], file[WARM_PATH_BYTES + 64];
	struct pollfd p = { .events = POLLIN };

	s->by_clock = true;
	snprintf(dir, sizeof(dir), "%s/" WARM_DIR, opt.volume);
	snprintf(file, sizeof(file), "%s/notify-probe", dir);
	p.fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (p.fd < 0)
		return;
	if (inotify_add_watch(p.fd, dir, IN_CREATE | IN_ONLYDIR | IN_DONT_FOLLOW) >= 0) {
		unlink(file);
		int fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd >= 0) {
			close(fd);
			unlink(file);
			s->by_clock = poll(&p, 1, PROBE_MS) <= 0;
		}
	}
	close(p.fd);
	if (s->by_clock)
		warm_log(WARM_LOG_WARN, "inotify",
			 "no events on this volume: scanning every %lld s",
			 (long long)(opt.interval_ms / 1000));
}

/* ---- rounds ---- */

/* What libwarmcache-compiler counted in the volume; nothing where it isn't used. */
static void read_kernel_counters(struct sidecar *s)
{
	scope_close int fd = open(opt.volume, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || warm_kernel_counters_read(fd, s->kernel, NULL) != 0)
		memset(s->kernel, 0, sizeof(s->kernel));
}

static void end_work(int done_fd)
{
	uint64_t one = 1;

	if (write(done_fd, &one, sizeof(one)) < 0)
		warm_log(WARM_LOG_ERROR, "eventfd", "%s", strerror(errno));
}

static void *work(void *arg)
{
	struct sidecar *s = arg;
	struct warm_call call = {
		.deadline_ms = s->mode == WARM_PUBLISH_FINAL ? 0 : warm_clock_ms() + ROUND_MS,
		.cancel = &s->give_up,
	};
	struct warm_publish_options o = {
		.store = warm_target_far(&s->target),
		.key = s->target.key,
		.volume = opt.volume,
		.settle_ms = opt.settle_ms,
		.max_file_bytes = opt.max_file_bytes,
		.complete_after_ms = opt.complete_after_ms,
		.hurry = &s->hurry,
		.has_near = s->target.n_stores > 1,
		.roots = &s->target.roots,
		.notices = &warm_log_notices,
	};

	s->report = (struct warm_publish_report){ 0 };
	s->status = 0;
	if (s->publisher == NULL) {
		s->status = warm_publisher_open(&o, &s->publisher, &s->error);
		s->report.volume_lost = s->status == WARM_NOT_FOUND || s->status == WARM_DENIED;
	}
	if (s->status == 0) {
		if (!s->probed)
			probe_notify(s);
		s->probed = true;
		atomic_store(&s->watches, 0);
		atomic_store(&s->too_many_dirs, false);
		s->status = warm_publisher_run(s->publisher, s->mode, s->complete, watch_dir, s,
					       &call, &s->report, &s->error);
	}
	read_kernel_counters(s);
	end_work(s->done_fd);
	return NULL;
}

/* SIGTERM cancels it: near can wait, the last round can't. */
static void *fill(void *arg)
{
	struct sidecar *s = arg;
	struct warm_call call = { .cancel = &s->hurry };
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

static void start_round(struct sidecar *s, enum warm_publish_mode mode)
{
	int64_t now = warm_clock_ms();

	s->mode = mode;
	atomic_store(&s->give_up, false);
	s->complete = NULL;
	if (mode == WARM_PUBLISH_FINAL && s->last.volume_groups > 0 && !s->changed &&
	    now - s->last_new_ms >= opt.complete_after_ms)
		s->complete = "";
	s->changed = false;
	s->now = false;
	s->next_round_ms = 0;
	s->working = pthread_create(&s->worker, NULL, work, s) == 0;
	if (!s->working) {
		s->status = warm_error_set(&s->error, WARM_NO_MEMORY, "can't start a thread");
		s->next_round_ms = now + BACKOFF_MS;
		s->changed = true;
		s->final_done = mode == WARM_PUBLISH_FINAL;
	}
}

static void log_status(struct sidecar *s, const char *state)
{
	char key[3 * WARM_KEY_PART_BYTES + 3];
	int64_t now = warm_clock_ms();
	long long ago = s->last_publish_ms == 0 ? -1 : (now - s->last_publish_ms) / 1000;

	warm_log(WARM_LOG_INFO, "status",
		 "state=%s key=%s published_layers=%zu published_groups=%zu published_files=%zu "
		 "published_bytes=%llu failures=%zu volume_groups=%zu waiting=%zu torn=%zu "
		 "withheld=%zu used=%zu inert=%zu complete=%s watches=%zu last_publish_s=%lld "
		 "kernel_hits=%llu kernel_misses=%llu",
		 state, warm_key_text(&s->target.key, key), s->layers, s->groups, s->files,
		 (unsigned long long)s->bytes, s->failures, s->last.volume_groups, s->last.waiting,
		 s->last.torn, s->last.withheld, s->last.used, s->last.inert,
		 s->last.complete ? "true" : "false", (size_t)atomic_load(&s->watches), ago,
		 (unsigned long long)s->last_kernel[WARM_KERNEL_COUNT_HITS],
		 (unsigned long long)s->last_kernel[WARM_KERNEL_COUNT_MISSES]);
	s->next_status_ms = now + STATUS_MS;
}

static void tell_failure(struct sidecar *s)
{
	int64_t now = warm_clock_ms();

	s->failures++;
	if (s->last_told_ms != 0 && now - s->last_told_ms < REPEAT_MS) {
		s->untold++;
		return;
	}
	warm_log(WARM_LOG_WARN, "publish-failed", "%s: %s (%zu more since the last of these lines)",
		 warm_status_name(s->status), s->error.msg, s->untold);
	s->untold = 0;
	s->last_told_ms = now;
}

static void end_round(struct sidecar *s)
{
	const struct warm_publish_report *r = &s->last;
	uint64_t count;
	int64_t now = warm_clock_ms();

	if (!s->working || read(s->done_fd, &count, sizeof(count)) < 0)
		return;
	pthread_join(s->worker, NULL);
	s->working = false;
	s->last = s->report;
	memcpy(s->last_kernel, s->kernel, sizeof(s->last_kernel));
	s->layers += r->layers;
	s->groups += r->groups;
	s->files += r->files;
	s->bytes += r->bytes;
	if (r->groups > 0 || r->waiting > 0)
		s->last_new_ms = now;
	if (r->layers > 0) {
		s->last_publish_ms = now;
		if (s->target.n_stores > 1)
			s->next_near_ms = now > s->near_from_ms ? now : s->near_from_ms;
		s->allowed_ms = now + jitter(opt.interval_ms);
		warm_log(WARM_LOG_INFO, "published",
			 "%zu groups, %zu files, %.1f MiB as %zu layers of %.1f MiB; scan %lld ms, "
			 "pack %lld ms, put %lld ms; %zu waiting, %zu torn%s",
			 r->groups, r->files, (double)r->raw_bytes / 1048576, r->layers,
			 (double)r->bytes / 1048576, (long long)r->scan_ms, (long long)r->pack_ms,
			 (long long)r->put_ms, r->waiting, r->torn,
			 r->complete ? "; the version is complete" : "");
		log_status(s, s->mode == WARM_PUBLISH_FINAL ? "ending" : "running");
	}
	if (s->status != 0) {
		tell_failure(s);
		s->backoff_ms = s->backoff_ms == 0 ? BACKOFF_MS : 2 * s->backoff_ms;
		if (s->backoff_ms > BACKOFF_MAX_MS)
			s->backoff_ms = BACKOFF_MAX_MS;
		s->next_round_ms = now + jitter(s->backoff_ms);
		s->changed = true;
		/* The volume may have come back as another directory. */
		if (s->last.volume_lost) {
			warm_publisher_free(s->publisher);
			s->publisher = NULL;
		}
	} else {
		s->backoff_ms = 0;
	}
	if (s->mode == WARM_PUBLISH_FINAL)
		s->final_done = true;
}

/* When to look next. The first publish comes as soon as something has settled; after that the
 * interval counts. What doesn't settle is looked at again, each time later. */
static void schedule(struct sidecar *s)
{
	int64_t now = warm_clock_ms(), settle = opt.settle_ms > 100 ? opt.settle_ms : 100;
	bool unsettled = s->last.waiting + s->last.torn > 0;
	bool by_clock = s->by_clock || atomic_load(&s->too_many_dirs) || s->last.left > 0;
	int64_t due;

	if (s->working || s->backoff_ms != 0)
		return; /* after a failure its own date stands */
	if (!s->changed && (s->next_round_ms != 0 || !(unsettled || by_clock)))
		return;
	if (s->changed) {
		s->fruitless = 0;
		due = now + settle;
	} else if (unsettled) {
		due = now + (settle << (s->fruitless < 6 ? s->fruitless++ : 6));
		if (due > now + opt.interval_ms && opt.interval_ms > settle)
			due = now + opt.interval_ms;
	} else {
		due = now + jitter(opt.interval_ms);
	}
	if (due < s->allowed_ms)
		due = s->allowed_ms;
	/* Something new brings the next look forward, and never puts it off. */
	if (s->next_round_ms == 0 || due < s->next_round_ms)
		s->next_round_ms = due;
}

static void arm_timer(const struct sidecar *s)
{
	int64_t at = s->next_status_ms;

	if (s->next_round_ms != 0 && !s->working && s->next_round_ms < at)
		at = s->next_round_ms;
	if (s->next_near_ms != 0 && !s->filling && !s->ending && s->next_near_ms < at)
		at = s->next_near_ms;
	if (s->ending && s->working)
		at = warm_clock_ms() + 1000;
	int64_t left = at - warm_clock_ms();
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

static void take_signals(struct sidecar *s)
{
	struct signalfd_siginfo info;

	while (read(s->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGUSR1) {
			s->now = true;
			continue;
		}
		if (s->ending) {
			warm_log(WARM_LOG_WARN, "stopped", "told twice: stopping at once");
			_exit(1);
		}
		s->ending = true;
		s->ending_since_ms = s->looked_ms = warm_clock_ms();
		s->looked_cpu_ns = cpu_time_ns();
		s->backoff_ms = 0;
		s->next_round_ms = 0;
		atomic_store(&s->hurry, true);
		warm_log(WARM_LOG_INFO, "ending", "publishing what is left");
	}
}

static int idle_until_signal(int signal_fd)
{
	struct signalfd_siginfo info;

	for (;;) {
		ssize_t n = read(signal_fd, &info, sizeof(info));
		if (n < 0 && errno == EINTR)
			continue;
		if (n != (ssize_t)sizeof(info) || info.ssi_signo != SIGUSR1)
			return 0;
	}
}

/* After a last round that failed: a store may come back, but it must not hold the pod's end. */
static bool worth_retrying(const struct sidecar *s)
{
	return s->status != 0 && s->status != WARM_DENIED && s->status != WARM_UNSUPPORTED &&
	       s->status != WARM_INVALID && !s->last.volume_lost &&
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
		if (cpu_ns - s->looked_cpu_ns >= seconds * BUSY_CPU_NS)
			s->active_ms = now;
		s->looked_ms = now;
		s->looked_cpu_ns = cpu_ns;
	}
	if (moved != s->moved_bytes)
		s->active_ms = now;
	s->moved_bytes = moved;
	int64_t since = s->active_ms > s->ending_since_ms ? s->active_ms : s->ending_since_ms;
	if (now - since >= (s->mode == WARM_PUBLISH_FINAL ? LAST_RETRY_MS : STALL_MS))
		atomic_store(&s->give_up, true);
}

static int run(struct sidecar *s)
{
	s->next_round_ms = warm_clock_ms() + (opt.settle_ms > 0 ? opt.settle_ms : 100);
	s->last_new_ms = warm_clock_ms();
	if (s->target.n_stores > 1)
		s->next_near_ms = s->near_from_ms = warm_clock_ms() + opt.near_after_ms;
	/* The first scan sets the watches: now, so that nothing is missed from here on. */
	start_round(s, WARM_PUBLISH_ROUND);
	log_status(s, "started");
	for (;;) {
		struct pollfd fds[] = {
			{ .fd = s->signal_fd, .events = POLLIN },
			{ .fd = s->done_fd, .events = POLLIN },
			{ .fd = s->timer_fd, .events = POLLIN },
			{ .fd = s->notify_fd, .events = POLLIN },
			{ .fd = s->filled_fd, .events = POLLIN },
		};
		arm_timer(s);
		if (poll(fds, 5, -1) < 0 && errno != EINTR) {
			/* Out of memory, most likely: look at all once a second. */
			struct timespec second = { .tv_sec = 1 };
			warm_log(WARM_LOG_ERROR, "poll", "%s", strerror(errno));
			nanosleep(&second, NULL);
			for (size_t i = 0; i < 5; i++)
				fds[i].revents = POLLIN;
		}
		uint64_t ticks;
		if (fds[2].revents != 0 && read(s->timer_fd, &ticks, sizeof(ticks)) < 0 &&
		    errno != EAGAIN)
			warm_log(WARM_LOG_ERROR, "timer", "%s", strerror(errno));
		if (fds[0].revents != 0)
			take_signals(s);
		if (fds[1].revents != 0)
			end_round(s);
		if (fds[4].revents != 0)
			end_fill(s);
		if (s->notify_fd >= 0 && fds[3].revents != 0 && drain_notify(s))
			s->changed = true;
		if (warm_clock_ms() >= s->next_status_ms)
			log_status(s, s->ending ? "ending" : "running");
		if (s->ending && s->working)
			watch_stall(s);
		if (s->ending && !s->working) {
			if (s->final_done && !worth_retrying(s))
				break;
			if (!s->final_done || warm_clock_ms() >= s->next_round_ms)
				start_round(s, WARM_PUBLISH_FINAL);
			continue;
		}
		if (s->next_near_ms != 0 && !s->filling && !s->ending &&
		    warm_clock_ms() >= s->next_near_ms)
			start_fill(s);
		if (s->working)
			continue;
		schedule(s);
		int64_t now = warm_clock_ms();
		if (s->now || (s->next_round_ms != 0 && now >= s->next_round_ms))
			start_round(s, WARM_PUBLISH_ROUND);
	}
	log_status(s, "ended");
	return 0;
}

static void disable(const struct warm_error *err)
{
	warm_log(WARM_LOG_ERROR, "disabled", "%s; nothing will be published until a restart",
		 err->msg);
	warm_log(WARM_LOG_INFO, "status", "state=disabled reason=%s", err->msg);
}

int main(int argc, char **argv)
{
	static struct sidecar s;
	struct warm_error err = { 0 };
	enum warm_options_result parsed;
	sigset_t set;

	warm_process_setup();
	warm_log_setup(program.name, false, WARM_LOG_INFO);
	/* First of all, so that a SIGTERM that comes early is not lost. */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	int rc = warm_options_parse(&program, argc, argv, &parsed, NULL, &err);
	if (parsed == WARM_OPTIONS_DONE)
		return 0;
	int blocking_fd = signalfd(-1, &set, SFD_CLOEXEC);
	if (rc == 0)
		rc = warm_target_init(&s.target, &opt.target, &err);
	if (rc == 0 && s.target.disabled)
		rc = warm_error_set(&err, WARM_INVALID, "no model is given");
	s.signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	s.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	s.done_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	s.filled_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	s.notify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (rc == 0 && (s.signal_fd < 0 || s.timer_fd < 0 || s.done_fd < 0 || s.filled_fd < 0))
		rc = warm_error_errno(&err, errno, "event loop");
	if (rc != 0) {
		disable(&err);
		return idle_until_signal(blocking_fd);
	}
	close(blocking_fd);
	rc = run(&s);
	/* Near hangs: it is not waited for, and what it uses is not taken from it. */
	if (s.filling)
		_exit(rc);
	warm_publisher_free(s.publisher);
	warm_target_release(&s.target);
	return rc;
}
