/* SPDX-License-Identifier: Apache-2.0 */
#include "sidecar/metrics.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/log.h"
#include "lib/base/option.h"
#include "lib/sync/result.h"

#define PREFIX "warmcache_"

static const double bounds[WARM_HISTOGRAM_BUCKETS] = { 0.01, 0.03, 0.1, 0.3, 1,	  3,
						       10,   30,   60,	120, 300, 600 };

const char *warm_sidecar_state_name(enum warm_sidecar_state state)
{
	static const char *const names[] = { "starting", "running", "draining", "ending",
					     "disabled" };

	return names[state];
}

void warm_histogram_add(struct warm_histogram *h, int64_t ms)
{
	double seconds = (double)ms / 1000;

	for (int i = 0; i < WARM_HISTOGRAM_BUCKETS; i++)
		if (seconds <= bounds[i]) {
			h->buckets[i]++;
			break;
		}
	h->count++;
	h->sum += seconds;
}

void warm_restored_load(struct warm_restored *restored, const char *volume)
{
	scope_close int fd = open(volume, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	scope_free char *text = NULL;
	size_t bytes = 0;
	/* The model can write there: a status is one of those that init knows. */
	static const char *const statuses[] = { "warm", "fallback", "partial", "cold", "error" };

	if (fd < 0 ||
	    warm_beneath_load(fd, WARM_RESULT_PATH, WARM_RESULT_BYTES, &text, &bytes, NULL) != 0)
		return;
	json_t *root = json_loadb(text, bytes, 0, NULL);
	const char *status = json_string_value(json_object_get(root, "status"));
	for (size_t i = 0; status != NULL && i < sizeof(statuses) / sizeof(statuses[0]); i++) {
		if (strcmp(status, statuses[i]) != 0)
			continue;
		json_int_t files = json_integer_value(json_object_get(root, "files")),
			   of_files = json_integer_value(json_object_get(root, "bytes")),
			   ms = json_integer_value(json_object_get(root, "duration_ms"));
		restored->known = true;
		snprintf(restored->status, sizeof(restored->status), "%s", status);
		restored->files = files > 0 ? (uint64_t)files : 0;
		restored->bytes = of_files > 0 ? (uint64_t)of_files : 0;
		restored->duration_ms = ms > 0 ? ms : 0;
	}
	json_decref(root);
}

/* ---- text ---- */

static void head(struct warm_buf *out, const char *name, const char *type, const char *help)
{
	warm_buf_printf(out, "# HELP " PREFIX "%s %s.\n# TYPE " PREFIX "%s %s\n", name, help, name,
			type);
}

static void plain(struct warm_buf *out, const char *name, const char *type, const char *help,
		  uint64_t value)
{
	head(out, name, type, help);
	warm_buf_printf(out, PREFIX "%s %llu\n", name, (unsigned long long)value);
}

static void sample(struct warm_buf *out, const char *name, const char *label, const char *value,
		   uint64_t n)
{
	warm_buf_printf(out, PREFIX "%s{%s=\"%s\"} %llu\n", name, label, value,
			(unsigned long long)n);
}

static void timestamp(struct warm_buf *out, const char *name, const char *help, int64_t ms)
{
	head(out, name, "gauge", help);
	warm_buf_printf(out, PREFIX "%s %.3f\n", name, (double)ms / 1000);
}

static void histogram(struct warm_buf *out, const char *name, const char *help,
		      const struct warm_histogram *h)
{
	uint64_t sum = 0;

	head(out, name, "histogram", help);
	for (int i = 0; i < WARM_HISTOGRAM_BUCKETS; i++) {
		sum += h->buckets[i];
		warm_buf_printf(out, PREFIX "%s_bucket{le=\"%g\"} %llu\n", name, bounds[i],
				(unsigned long long)sum);
	}
	warm_buf_printf(out,
			PREFIX "%s_bucket{le=\"+Inf\"} %llu\n" PREFIX "%s_sum %g\n" PREFIX
			       "%s_count %llu\n",
			name, (unsigned long long)h->count, name, h->sum, name,
			(unsigned long long)h->count);
}

/* Prometheus refuses a scrape for a label that isn't UTF-8. */
static void label(struct warm_buf *out, const char *name, const char *value)
{
	warm_buf_printf(out, "%s=\"", name);
	json_t *text = json_string(value);
	for (const char *p = value; *p != '\0'; p++)
		if (*p == '"' || *p == '\\')
			warm_buf_printf(out, "\\%c", *p);
		else
			warm_buf_put(out, text == NULL && (unsigned char)*p >= 0x80 ? "?" : p, 1);
	json_decref(text);
	warm_buf_printf(out, "\"");
}

static void print_identity(const struct warm_metrics *m, struct warm_buf *out)
{
	head(out, "build_info", "gauge", "Version of this program");
	sample(out, "build_info", "version", warm_version, 1);
	head(out, "key_info", "gauge", "What the cache belongs to");
	warm_buf_printf(out, PREFIX "key_info{");
	label(out, "model", m->key.model);
	warm_buf_printf(out, ",");
	label(out, "version", m->key.version);
	warm_buf_printf(out, ",");
	label(out, "platform", m->key.platform);
	warm_buf_printf(out, "} 1\n");
	head(out, "state", "gauge", "1 for the state of the sidecar");
	for (int i = 0; i < WARM_SIDECAR_STATES; i++)
		sample(out, "state", "state", warm_sidecar_state_name((enum warm_sidecar_state)i),
		       m->state == (enum warm_sidecar_state)i);
}

static void print_restored(const struct warm_metrics *m, struct warm_buf *out)
{
	struct warm_histogram duration = { 0 };

	if (!m->restored.known)
		return;
	warm_histogram_add(&duration, m->restored.duration_ms);
	head(out, "restores_total", "counter", "Restores into this volume by what came of them");
	sample(out, "restores_total", "status", m->restored.status, 1);
	histogram(out, "restore_duration_seconds", "From start to end of init", &duration);
	plain(out, "restored_files", "gauge", "Files moved in by init", m->restored.files);
	plain(out, "restored_bytes", "gauge", "Bytes of these files", m->restored.bytes);
}

static void print_publishes(const struct warm_metrics *m, struct warm_buf *out)
{
	head(out, "rounds_total", "counter", "Looks at the volume by what came of them");
	sample(out, "rounds_total", "result", "published", m->published);
	sample(out, "rounds_total", "result", "nothing", m->nothing);
	sample(out, "rounds_total", "result", "failed", m->failed);
	histogram(out, "publish_duration_seconds", "Rounds that published", &m->publish);
	plain(out, "published_layers_total", "counter", "Layers put", m->layers);
	plain(out, "published_groups_total", "counter", "Groups put", m->groups);
	plain(out, "published_files_total", "counter", "Files put", m->files);
	plain(out, "published_bytes_total", "counter", "Bytes of layers put", m->bytes);
	plain(out, "published_raw_bytes_total", "counter", "Bytes of files put", m->raw_bytes);
	head(out, "failures_total", "counter", "Failed rounds by kind");
	for (int i = 1; i < WARM_STATUSES; i++)
		sample(out, "failures_total", "kind", warm_status_name(-i), m->failures[i]);
	timestamp(out, "last_success_timestamp_seconds", "When a round ended well",
		  m->last_success_ms);
	timestamp(out, "last_publish_timestamp_seconds", "When a layer was put",
		  m->last_publish_ms);
}

static void print_volume(const struct warm_metrics *m, struct warm_buf *out)
{
	const struct warm_publish_report *r = &m->last;

	head(out, "queue_groups", "gauge", "Groups that are not published by reason");
	sample(out, "queue_groups", "reason", "waiting", r->waiting);
	sample(out, "queue_groups", "reason", "torn", r->torn);
	sample(out, "queue_groups", "reason", "withheld", r->withheld);
	sample(out, "queue_groups", "reason", "left", r->left);
	plain(out, "volume_groups", "gauge", "Groups in the volume", r->volume_groups);
	plain(out, "volume_bytes", "gauge", "Bytes of their files", r->volume_bytes);
	plain(out, "watches", "gauge", "Directories watched by inotify", m->watches);
	head(out, "cache_groups", "gauge", "Restored groups, opened since or not");
	for (int i = 0; i < WARM_PROFILES; i++) {
		const char *name = warm_profile_name((enum warm_profile)i);
		warm_buf_printf(out,
				PREFIX "cache_groups{profile=\"%s\",state=\"used\"} %zu\n" PREFIX
				       "cache_groups{profile=\"%s\",state=\"inert\"} %zu\n",
				name, r->use[i].used, name, r->use[i].inert);
	}
	head(out, "cache_bytes", "gauge", "Bytes of restored groups, opened since or not");
	for (int i = 0; i < WARM_PROFILES; i++) {
		const char *name = warm_profile_name((enum warm_profile)i);
		warm_buf_printf(out,
				PREFIX "cache_bytes{profile=\"%s\",state=\"used\"} %llu\n" PREFIX
				       "cache_bytes{profile=\"%s\",state=\"inert\"} %llu\n",
				name, (unsigned long long)r->use[i].used_bytes, name,
				(unsigned long long)r->use[i].inert_bytes);
	}
	plain(out, "complete", "gauge", "Whether the version's cache carries the complete mark",
	      r->complete);
	if (m->ready_known)
		plain(out, "model_ready", "gauge", "Whether the model has answered as ready",
		      m->ready);
	plain(out, "quarantined_groups_total", "counter",
	      "Restored groups moved aside because the model never got ready", m->quarantined);
}

static void print_kernels(const struct warm_metrics *m, struct warm_buf *out)
{
	char metric[80];

	for (int i = 0; i < WARM_KERNEL_COUNTED; i++) {
		enum warm_kernel_counter c = (enum warm_kernel_counter)i;
		const char *name = warm_kernel_counter_name(c);
		size_t n = strlen(name);
		if (n > 3 && strcmp(name + n - 3, "_ns") == 0) {
			/* Prometheus counts in seconds. */
			snprintf(metric, sizeof(metric), "kernel_%.*s_seconds_total", (int)n - 3,
				 name);
			head(out, metric, "counter", warm_kernel_counter_text(c));
			warm_buf_printf(out, PREFIX "%s %.6f\n", metric,
					(double)m->kernel[i] / 1e9);
			continue;
		}
		snprintf(metric, sizeof(metric), "kernel_%s_total", name);
		plain(out, metric, "counter", warm_kernel_counter_text(c), m->kernel[i]);
	}
}

/* The usual names of a process's own numbers. */
static void print_process(struct warm_buf *out)
{
	scope_free char *text = NULL;
	size_t bytes = 0;
	struct timespec cpu;
	unsigned long long pages = 0, fds = 0;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
	if (warm_file_load(AT_FDCWD, "/proc/self/statm", 4096, &text, &bytes, NULL) == 0)
		(void)sscanf(text, "%*u %llu", &pages);
	scope_closedir DIR *dir = opendir("/proc/self/fd");
	while (dir != NULL && readdir(dir) != NULL)
		fds++;
	warm_buf_printf(out,
			"# HELP process_cpu_seconds_total CPU time of this process.\n"
			"# TYPE process_cpu_seconds_total counter\n"
			"process_cpu_seconds_total %.3f\n"
			"# HELP process_resident_memory_bytes Memory of this process.\n"
			"# TYPE process_resident_memory_bytes gauge\n"
			"process_resident_memory_bytes %llu\n"
			"# HELP process_open_fds Open descriptors of this process.\n"
			"# TYPE process_open_fds gauge\n"
			"process_open_fds %llu\n",
			(double)warm_timespec_ns(cpu) / 1e9,
			pages * (unsigned long long)sysconf(_SC_PAGESIZE), fds > 3 ? fds - 3 : 0);
}

void warm_metrics_print(const struct warm_metrics *m, struct warm_buf *out)
{
	print_identity(m, out);
	print_restored(m, out);
	print_publishes(m, out);
	print_volume(m, out);
	print_kernels(m, out);
	print_process(out);
}

/* ---- for people, and for Kubernetes ---- */

void warm_metrics_log(const struct warm_metrics *m, const char *state)
{
	const struct warm_publish_report *last = &m->last;
	struct warm_use use = warm_publish_use(last);
	char key[3 * WARM_KEY_PART_BYTES + 3];
	int64_t ago_ms = m->last_publish_ms == 0 ? -1000
						 : warm_clock_wall_ms() - m->last_publish_ms;

	warm_log(WARM_LOG_INFO, "status",
		 "state=%s key=%s published_layers=%llu published_groups=%llu published_files=%llu "
		 "published_bytes=%llu failures=%llu volume_groups=%zu waiting=%zu torn=%zu "
		 "withheld=%zu used=%zu inert=%zu used_bytes=%llu inert_bytes=%llu complete=%s "
		 "ready=%s quarantined=%llu watches=%zu last_publish_s=%lld "
		 "kernel_hits=%llu kernel_misses=%llu",
		 state, warm_key_text(&m->key, key), (unsigned long long)m->layers,
		 (unsigned long long)m->groups, (unsigned long long)m->files,
		 (unsigned long long)m->bytes, (unsigned long long)m->failed, last->volume_groups,
		 last->waiting, last->torn, last->withheld, use.used, use.inert,
		 (unsigned long long)use.used_bytes, (unsigned long long)use.inert_bytes,
		 last->complete ? "true" : "false",
		 !m->ready_known ? "unknown"
		 : m->ready	 ? "true"
				 : "false",
		 (unsigned long long)m->quarantined, m->watches, (long long)ago_ms / 1000,
		 (unsigned long long)m->kernel[WARM_KERNEL_COUNT_HITS],
		 (unsigned long long)m->kernel[WARM_KERNEL_COUNT_MISSES]);
}

static json_t *json_of_use(const struct warm_publish_report *r, bool used)
{
	json_t *o = json_object();

	for (int i = 0; i < WARM_PROFILES; i++) {
		const struct warm_use *u = &r->use[i];
		size_t n = used ? u->used : u->inert;
		uint64_t bytes = used ? u->used_bytes : u->inert_bytes;
		if (n > 0)
			json_object_set_new(o, warm_profile_name((enum warm_profile)i),
					    json_pack("[I,I]", (json_int_t)n, (json_int_t)bytes));
	}
	return o;
}

char *warm_metrics_result(const struct warm_metrics *m, const char *status, const char *reason)
{
	char key[3 * WARM_KEY_PART_BYTES + 3];
	json_t *o = json_object();

	warm_result_set_text(o, "status", status);
	warm_result_set_text(o, "key", m->key.model[0] != '\0' ? warm_key_text(&m->key, key) : "");
	json_object_set_new(o, "layers", json_integer((json_int_t)m->layers));
	json_object_set_new(o, "groups", json_integer((json_int_t)m->groups));
	json_object_set_new(o, "files", json_integer((json_int_t)m->files));
	json_object_set_new(o, "bytes", json_integer((json_int_t)m->bytes));
	json_object_set_new(o, "failures", json_integer((json_int_t)m->failed));
	json_object_set_new(o, "waiting", json_integer((json_int_t)m->last.waiting));
	json_object_set_new(o, "torn", json_integer((json_int_t)m->last.torn));
	json_object_set_new(o, "withheld", json_integer((json_int_t)m->last.withheld));
	json_object_set_new(o, "complete", json_boolean(m->last.complete));
	if (m->ready_known)
		json_object_set_new(o, "ready", json_boolean(m->ready));
	json_object_set_new(o, "used", json_of_use(&m->last, true));
	json_object_set_new(o, "inert", json_of_use(&m->last, false));
	json_object_set_new(o, "quarantined", json_integer((json_int_t)m->quarantined));
	warm_result_set_text(o, "reason", reason);
	return warm_result_text(o);
}
