/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <fcntl.h>
#include <jansson.h>
#include <math.h>

#include "lib/base/log.h"
#include "lib/base/option.h"
#include "lib/sync/result.h"
#include "sidecar/metrics.h"

static struct warm_metrics *some_metrics(void)
{
	struct warm_metrics *m = calloc(1, sizeof(*m));

	assert_non_null(m);
	m->key = key_of("llama", "v7");
	m->state = WARM_SIDECAR_RUNNING;
	m->restored = (struct warm_restored){ true, "warm", 112, 4711, 2500 };
	m->published = 2;
	m->nothing = 5;
	m->failed = 3;
	m->failures[-WARM_TRANSIENT] = 2;
	m->failures[-WARM_DENIED] = 1;
	m->layers = 2;
	m->groups = 31;
	m->files = 100;
	m->bytes = 1000;
	m->raw_bytes = 4000;
	m->last_success_ms = 1700000000123;
	m->last_publish_ms = 1700000000456;
	warm_histogram_add(&m->publish, 5);
	warm_histogram_add(&m->publish, 1500);
	m->last.waiting = 4;
	m->last.torn = 1;
	m->last.withheld = 2;
	m->last.left = 7;
	m->last.volume_groups = 50;
	m->last.volume_bytes = 123456;
	m->last.complete = true;
	m->last.use[WARM_PROFILE_TRITON] = (struct warm_use){ 120, 3, 9437184, 4096 };
	m->last.use[WARM_PROFILE_JAX] = (struct warm_use){ 0, 1, 0, 10 };
	m->watches = 12;
	m->ready = true;
	m->ready_known = true;
	m->quarantined = 6;
	for (int i = 0; i < WARM_KERNEL_COUNTED; i++)
		m->kernel[i] = 1000 + (uint64_t)i;
	m->kernel[WARM_KERNEL_COUNT_COMPILE_NS] = 1500000000;
	return m;
}

static char *print(const struct warm_metrics *m)
{
	struct warm_buf out = WARM_BUF_INIT;

	warm_metrics_print(m, &out);
	warm_buf_put_u8(&out, 0);
	assert_false(out.failed);
	assert_int_equal(strlen((char *)out.data), out.bytes - 1);
	return (char *)out.data;
}

static void assert_line(const char *text, const char *line)
{
	char whole[400];

	snprintf(whole, sizeof(whole), "\n%s\n", line);
	if (strstr(text, whole) == NULL)
		fail_msg("no line '%s' in:\n%s", line, text);
}

/* ---- a reader of the format ---- */

enum { MOST_LINES = 400 };

struct read {
	char names[MOST_LINES][100]; /* of families that had HELP and TYPE */
	char types[MOST_LINES][20];
	size_t n_families;
	char *samples[MOST_LINES]; /* name and labels */
	double values[MOST_LINES];
	size_t n_samples;
};

static size_t name_length(const char *p)
{
	return strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:");
}

/* Past the labels that begin at `p`; NULL: they are malformed. */
static const char *skip_labels(const char *p)
{
	if (*p != '{')
		return p;
	for (p++;;) {
		size_t n = name_length(p);
		if (n == 0 || p[n] != '=' || p[n + 1] != '"')
			return NULL;
		for (p += n + 2; *p != '"'; p++) {
			if (*p == '\0')
				return NULL;
			if (*p == '\\' && *++p != '\\' && *p != '"' && *p != 'n')
				return NULL;
		}
		p++;
		if (*p == '}')
			return p + 1;
		if (*p++ != ',')
			return NULL;
	}
}

/* The family that a sample belongs to is the last one that was headed. */
static bool of_family(const struct read *r, const char *sample, size_t n)
{
	const char *family = r->names[r->n_families - 1], *type = r->types[r->n_families - 1];
	size_t m = strlen(family);

	if (n == m && strncmp(sample, family, n) == 0)
		return strcmp(type, "histogram") != 0;
	if (strcmp(type, "histogram") != 0 || n < m || strncmp(sample, family, m) != 0)
		return false;
	return (n == m + 7 && strncmp(sample + m, "_bucket", 7) == 0) ||
	       (n == m + 4 && strncmp(sample + m, "_sum", 4) == 0) ||
	       (n == m + 6 && strncmp(sample + m, "_count", 6) == 0);
}

static void read_all(char *text, struct read *r)
{
	char help[100] = "";

	assert_int_equal(text[strlen(text) - 1], '\n');
	for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
		char name[100], type[20];
		int at = 0;
		if (sscanf(line, "# HELP %99s %n", name, &at) == 1 && at > 0) {
			assert_true(line[at] != '\0');
			assert_int_equal(line[strlen(line) - 1], '.');
			snprintf(help, sizeof(help), "%s", name);
			continue;
		}
		if (sscanf(line, "# TYPE %99s %19s%n", name, type, &at) == 2 && line[at] == '\0') {
			assert_string_equal(name, help);
			assert_true(strcmp(type, "counter") == 0 || strcmp(type, "gauge") == 0 ||
				    strcmp(type, "histogram") == 0);
			size_t n = strlen(name);
			bool total = n > 6 && strcmp(name + n - 6, "_total") == 0;
			if ((strcmp(type, "counter") == 0) != total)
				fail_msg("%s is a %s", name, type);
			for (size_t i = 0; i < r->n_families; i++)
				if (strcmp(r->names[i], name) == 0)
					fail_msg("%s twice", name);
			snprintf(r->names[r->n_families], sizeof(r->names[0]), "%s", name);
			snprintf(r->types[r->n_families++], sizeof(r->types[0]), "%s", type);
			continue;
		}
		size_t n = name_length(line);
		const char *end = skip_labels(line + n);
		if (n == 0 || end == NULL || *end != ' ')
			fail_msg("malformed: %s", line);
		if (r->n_families == 0 || !of_family(r, line, n))
			fail_msg("without HELP and TYPE before it: %s", line);
		char *rest = NULL;
		r->values[r->n_samples] = strtod(end + 1, &rest);
		if (rest == end + 1 || *rest != '\0' || isnan(r->values[r->n_samples]))
			fail_msg("no number: %s", line);
		r->samples[r->n_samples] = strndup(line, (size_t)(end - line));
		for (size_t i = 0; i < r->n_samples; i++)
			if (strcmp(r->samples[i], r->samples[r->n_samples]) == 0)
				fail_msg("twice: %s", line);
		assert_true(++r->n_samples < MOST_LINES);
	}
	assert_true(r->n_families > 20);
}

static void read_release(struct read *r)
{
	for (size_t i = 0; i < r->n_samples; i++)
		free(r->samples[i]);
	free(r);
}

static struct read *read_metrics(const struct warm_metrics *m)
{
	struct read *r = calloc(1, sizeof(*r));
	char *text = print(m);

	assert_non_null(r);
	read_all(text, r);
	free(text);
	return r;
}

static double value_of(const struct read *r, const char *sample)
{
	for (size_t i = 0; i < r->n_samples; i++)
		if (strcmp(r->samples[i], sample) == 0)
			return r->values[i];
	fail_msg("no %s", sample);
	return 0;
}

TEST(every_line_parses_whatever_the_numbers)
{
	struct warm_metrics *m = some_metrics();

	read_release(read_metrics(m));
	memset(m, 0, sizeof(*m));
	m->key = key_of("llama", "v7");
	read_release(read_metrics(m));
	free(m);
	m = some_metrics();
	m->bytes = UINT64_MAX;
	m->last.volume_bytes = UINT64_MAX;
	m->last.waiting = SIZE_MAX;
	m->publish.count = UINT64_MAX;
	m->publish.sum = 1e15;
	m->last_success_ms = INT64_MAX;
	for (int i = 0; i < WARM_KERNEL_COUNTED; i++)
		m->kernel[i] = UINT64_MAX;
	read_release(read_metrics(m));
	for (int at = 0; at < WARM_SIDECAR_STATES; at++) {
		m->state = (enum warm_sidecar_state)at;
		read_release(read_metrics(m));
	}
	free(m);
}

TEST(what_is_counted_is_told_by_its_name)
{
	struct warm_metrics *m = some_metrics();
	char *text = print(m), version[100];

	snprintf(version, sizeof(version), "warmcache_build_info{version=\"%s\"} 1", warm_version);
	static const char *const lines[] = {
		"warmcache_key_info{model=\"llama\",version=\"v7\",platform=\"test\"} 1",
		"warmcache_state{state=\"running\"} 1",
		"warmcache_state{state=\"starting\"} 0",
		"warmcache_state{state=\"disabled\"} 0",
		"warmcache_restores_total{status=\"warm\"} 1",
		"warmcache_restored_files 112",
		"warmcache_restored_bytes 4711",
		"warmcache_rounds_total{result=\"published\"} 2",
		"warmcache_rounds_total{result=\"nothing\"} 5",
		"warmcache_rounds_total{result=\"failed\"} 3",
		"warmcache_published_layers_total 2",
		"warmcache_published_groups_total 31",
		"warmcache_published_files_total 100",
		"warmcache_published_bytes_total 1000",
		"warmcache_published_raw_bytes_total 4000",
		"warmcache_failures_total{kind=\"transient\"} 2",
		"warmcache_failures_total{kind=\"denied\"} 1",
		"warmcache_failures_total{kind=\"no-space\"} 0",
		"warmcache_last_success_timestamp_seconds 1700000000.123",
		"warmcache_last_publish_timestamp_seconds 1700000000.456",
		"warmcache_queue_groups{reason=\"waiting\"} 4",
		"warmcache_queue_groups{reason=\"torn\"} 1",
		"warmcache_queue_groups{reason=\"withheld\"} 2",
		"warmcache_queue_groups{reason=\"left\"} 7",
		"warmcache_volume_groups 50",
		"warmcache_volume_bytes 123456",
		"warmcache_watches 12",
		"warmcache_cache_groups{profile=\"triton\",state=\"used\"} 120",
		"warmcache_cache_groups{profile=\"triton\",state=\"inert\"} 3",
		"warmcache_cache_groups{profile=\"jax\",state=\"inert\"} 1",
		"warmcache_cache_bytes{profile=\"triton\",state=\"used\"} 9437184",
		"warmcache_cache_bytes{profile=\"triton\",state=\"inert\"} 4096",
		"warmcache_cache_bytes{profile=\"file\",state=\"used\"} 0",
		"warmcache_model_ready 1",
		"warmcache_complete 1",
		"warmcache_quarantined_groups_total 6",
		"warmcache_kernel_hits_total 1000",
		"warmcache_kernel_misses_total 1001",
		"warmcache_kernel_compile_seconds_total 1.500000",
	};
	for (size_t i = 0; i < COUNT(lines); i++)
		assert_line(text, lines[i]);
	assert_line(text, version);
	assert_null(strstr(text, "_ns_total"));
	assert_non_null(strstr(text, "\nprocess_cpu_seconds_total "));
	assert_non_null(strstr(text, "\nprocess_resident_memory_bytes "));
	assert_non_null(strstr(text, "\nprocess_open_fds "));
	free(text);
	free(m);
}

TEST(what_is_not_known_is_not_told)
{
	struct warm_metrics *m = some_metrics();

	m->restored.known = false;
	m->ready_known = false;
	char *text = print(m);
	assert_null(strstr(text, "warmcache_restore"));
	assert_null(strstr(text, "model_ready"));
	free(text);
	m->ready_known = true;
	m->ready = false;
	text = print(m);
	assert_line(text, "warmcache_model_ready 0");
	free(text);
	free(m);
}

TEST(exactly_one_state_is_set)
{
	struct warm_metrics *m = some_metrics();

	for (int at = 0; at < WARM_SIDECAR_STATES; at++) {
		double sum = 0;
		m->state = (enum warm_sidecar_state)at;
		struct read *r = read_metrics(m);
		for (int i = 0; i < WARM_SIDECAR_STATES; i++) {
			char sample[80];
			snprintf(sample, sizeof(sample), "warmcache_state{state=\"%s\"}",
				 warm_sidecar_state_name((enum warm_sidecar_state)i));
			sum += value_of(r, sample);
			assert_true((value_of(r, sample) != 0) == (i == at));
		}
		assert_true(sum == 1);
		read_release(r);
	}
	free(m);
}

TEST(every_status_has_a_kind_of_its_own)
{
	struct warm_metrics *m = some_metrics();

	for (int i = 0; i < WARM_STATUSES; i++)
		m->failures[i] = 100 + (uint64_t)i;
	struct read *r = read_metrics(m);
	for (int i = 1; i < WARM_STATUSES; i++) {
		char sample[80];
		snprintf(sample, sizeof(sample), "warmcache_failures_total{kind=\"%s\"}",
			 warm_status_name(-i));
		assert_true(value_of(r, sample) == 100 + i);
	}
	/* All there are. */
	assert_int_equal(WARM_STATUSES, 1 - WARM_IO);
	read_release(r);
	free(m);
}

TEST(a_histogram_is_cumulative_and_sums_up)
{
	static const int64_t values_ms[] = { 0,	   10,	  11,	  30,	  99,	  1000,
					     1001, 60000, 600000, 600001, 3600000 };
	static const struct {
		const char *bound;
		double below;
	} rows[] = { { "0.01", 2 }, { "0.03", 4 }, { "0.1", 5 },  { "0.3", 5 }, { "1", 6 },
		     { "3", 7 },    { "10", 7 },   { "30", 7 },	  { "60", 8 },	{ "120", 8 },
		     { "300", 8 },  { "600", 9 },  { "+Inf", 11 } };
	struct warm_metrics *m = some_metrics();
	double sum = 0;

	m->publish = (struct warm_histogram){ 0 };
	for (size_t i = 0; i < COUNT(values_ms); i++) {
		warm_histogram_add(&m->publish, values_ms[i]);
		sum += (double)values_ms[i] / 1000;
	}
	struct read *r = read_metrics(m);
	for (size_t i = 0; i < COUNT(rows); i++) {
		char sample[80];
		snprintf(sample, sizeof(sample),
			 "warmcache_publish_duration_seconds_bucket{le=\"%s\"}", rows[i].bound);
		if (value_of(r, sample) != rows[i].below)
			fail_msg("%s: %g", rows[i].bound, value_of(r, sample));
	}
	assert_true(value_of(r, "warmcache_publish_duration_seconds_count") == 11);
	assert_true(fabs(value_of(r, "warmcache_publish_duration_seconds_sum") - sum) < 1);
	assert_true(value_of(r, "warmcache_restore_duration_seconds_bucket{le=\"1\"}") == 0);
	assert_true(value_of(r, "warmcache_restore_duration_seconds_bucket{le=\"3\"}") == 1);
	assert_true(value_of(r, "warmcache_restore_duration_seconds_sum") == 2.5);
	read_release(r);
	free(m);
}

TEST(label_values_are_escaped)
{
	struct warm_metrics *m = some_metrics();

	snprintf(m->key.model, sizeof(m->key.model), "a\"b\\c");
	snprintf(m->key.version, sizeof(m->key.version), "v{x=\"1\"},y");
	snprintf(m->key.platform, sizeof(m->key.platform), "\303\251\\");
	read_release(read_metrics(m));
	char *text = print(m);
	assert_line(text, "warmcache_key_info{model=\"a\\\"b\\\\c\",version=\"v{x=\\\"1\\\"},y\","
			  "platform=\"\303\251\\\\\"} 1");
	free(text);
	free(m);
}

TEST(promtool_finds_nothing_to_say)
{
	struct warm_metrics *m = some_metrics();
	scope_scratch struct scratch s = scratch_open();

	if (have_tool("promtool")) {
		snprintf(m->key.model, sizeof(m->key.model), "a\"b\\c");
		char *text = print(m);
		put_text(s.fd, "metrics", text);
		free(text);
		int rc = shell("promtool check metrics <%s/metrics >%s/said 2>&1", s.path, s.path);
		char *said = text_of(s.fd, "said", NULL);
		if (rc != 0)
			print_message("%s\n", said);
		free(said);
		assert_int_equal(rc, 0);
	}
	free(m);
}

/* ---- what init left ---- */

static struct warm_restored load(const char *json)
{
	scope_scratch struct scratch s = scratch_open();
	struct warm_restored r = { 0 };

	if (json != NULL)
		put_text(s.fd, WARM_RESULT_PATH, json);
	warm_restored_load(&r, s.path);
	return r;
}

TEST(what_init_told_is_read)
{
	struct warm_restored r = load("{\"status\": \"fallback\", \"files\": 12, \"bytes\": 34, "
				      "\"duration_ms\": 56, \"more\": []}");

	assert_true(r.known);
	assert_string_equal(r.status, "fallback");
	assert_int_equal(r.files, 12);
	assert_int_equal(r.bytes, 34);
	assert_int_equal(r.duration_ms, 56);
	static const char *const statuses[] = { "warm", "fallback", "partial", "cold", "error" };
	for (size_t i = 0; i < COUNT(statuses); i++) {
		char json[60];
		snprintf(json, sizeof(json), "{\"status\": \"%s\"}", statuses[i]);
		r = load(json);
		assert_true(r.known);
		assert_string_equal(r.status, statuses[i]);
		assert_int_equal(r.files, 0);
	}
}

TEST(what_nobody_of_ours_wrote_is_not_believed)
{
	static const char *const rows[] = {
		NULL,
		"",
		"{",
		"[]",
		"null",
		"{}",
		"{\"status\": 1}",
		"{\"status\": \"\"}",
		"{\"status\": \"hot\"}",
		"{\"status\": \"warm\\\"} 1\\nevil{a=\\\"\"}",
		"{\"status\": \"warm\"} trailing",
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct warm_restored r = load(rows[i]);
		if (r.known)
			fail_msg("%s", rows[i]);
	}
	struct warm_restored r = load("{\"status\": \"warm\", \"files\": -1, \"bytes\": \"x\", "
				      "\"duration_ms\": -5}");
	assert_true(r.known);
	assert_int_equal(r.files, 0);
	assert_int_equal(r.bytes, 0);
	assert_int_equal(r.duration_ms, 0);
	/* Longer than init writes. */
	char long_json[2000];
	memset(long_json, ' ', sizeof(long_json));
	memcpy(long_json, "{\"status\": \"warm\"}", 18);
	long_json[sizeof(long_json) - 1] = '\0';
	assert_false(load(long_json).known);
}

TEST(a_link_in_the_place_of_inits_result_is_not_followed)
{
	scope_scratch struct scratch s = scratch_open();
	struct warm_restored r = { 0 };

	put_text(s.fd, "outside", "{\"status\": \"warm\"}");
	put_dir(s.fd, "volume/.warmcache");
	assert_int_equal(symlinkat("../../outside", s.fd, "volume/" WARM_RESULT_PATH), 0);
	warm_restored_load(&r, scratch_path(&s, "volume"));
	assert_false(r.known);
	warm_restored_load(&r, scratch_path(&s, "none"));
	assert_false(r.known);
	/* Nor does a FIFO hold us. */
	assert_int_equal(unlinkat(s.fd, "volume/" WARM_RESULT_PATH, 0), 0);
	assert_int_equal(mkfifoat(s.fd, "volume/" WARM_RESULT_PATH, 0600), 0);
	warm_restored_load(&r, scratch_path(&s, "volume"));
	assert_false(r.known);
}

/* ---- the other forms ---- */

TEST(the_result_tells_the_same_numbers)
{
	struct warm_metrics *m = some_metrics();
	char *text = warm_metrics_result(m, "ended", "because");
	json_t *o = json_loads(text, JSON_REJECT_DUPLICATES, NULL);

	assert_non_null(o);
	assert_true(strlen(text) <= WARM_RESULT_BYTES);
	free(text);
	const char *status = NULL, *key = NULL, *reason = NULL;
	int layers = 0, groups = 0, files = 0, bytes = 0, failures = 0, waiting = 0, torn = 0,
	    withheld = 0, complete = 0, ready = 0, quarantined = 0, used = 0, used_bytes = 0,
	    inert = 0, inert_bytes = 0;
	assert_int_equal(json_unpack(o,
				     "{s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b, s:b, "
				     "s:{s:[i,i]}, s:{s:[i,i], s:[i,i]}, s:i, s:s!}",
				     "status", &status, "key", &key, "layers", &layers, "groups",
				     &groups, "files", &files, "bytes", &bytes, "failures",
				     &failures, "waiting", &waiting, "torn", &torn, "withheld",
				     &withheld, "complete", &complete, "ready", &ready, "used",
				     "triton", &used, &used_bytes, "inert", "triton", &inert,
				     &inert_bytes, "jax", &inert, &inert_bytes, "quarantined",
				     &quarantined, "reason", &reason),
			 0);
	assert_string_equal(status, "ended");
	assert_string_equal(key, "llama/v7/test");
	assert_string_equal(reason, "because");
	assert_int_equal(layers, 2);
	assert_int_equal(groups, 31);
	assert_int_equal(files, 100);
	assert_int_equal(bytes, 1000);
	assert_int_equal(failures, 3);
	assert_int_equal(waiting, 4);
	assert_int_equal(torn, 1);
	assert_int_equal(withheld, 2);
	assert_true(complete && ready);
	assert_int_equal(used, 120);
	assert_int_equal(used_bytes, 9437184);
	assert_int_equal(quarantined, 6);
	json_decref(o);
	m->ready_known = false;
	text = warm_metrics_result(m, "ended", "");
	assert_null(strstr(text, "\"ready\""));
	free(text);
	free(m);
}

TEST(a_result_with_a_long_key_and_a_long_reason_is_json_still)
{
	struct warm_metrics *m = some_metrics();
	char reason[3000];

	memset(reason, 'r', sizeof(reason));
	reason[sizeof(reason) - 1] = '\0';
	memset(m->key.model, 'm', sizeof(m->key.model) - 1);
	memset(m->key.version, 'v', sizeof(m->key.version) - 1);
	memset(m->key.platform, 'p', sizeof(m->key.platform) - 1);
	char *text = warm_metrics_result(m, "incomplete", reason);
	assert_true(strlen(text) <= WARM_RESULT_BYTES);
	json_t *o = json_loads(text, 0, NULL);
	assert_non_null(o);
	json_decref(o);
	free(text);
	free(m);
}

TEST(the_status_line_tells_the_same_numbers)
{
	struct warm_metrics *m = some_metrics();
	scope_scratch struct scratch s = scratch_open();
	scope_close int saved = dup(STDERR_FILENO);
	scope_close int fd = openat(s.fd, "log", O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	assert_true(saved >= 0 && dup2(fd, STDERR_FILENO) >= 0);
	warm_log_setup("test", false, WARM_LOG_INFO);
	warm_metrics_log(m, "running");
	m->ready_known = false;
	m->last_publish_ms = 0;
	m->last.complete = false;
	warm_metrics_log(m, "ending");
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	scope_free char *text = text_of(s.fd, "log", NULL);
	static const char *const parts[] = {
		" INFO test: status: state=running key=llama/v7/test published_layers=2 "
		"published_groups=31 published_files=100 published_bytes=1000 failures=3 "
		"volume_groups=50 waiting=4 torn=1 withheld=2 used=120 inert=4 "
		"used_bytes=9437184 inert_bytes=4106 complete=true ready=true quarantined=6 "
		"watches=12 last_publish_s=",
		" kernel_hits=1000 kernel_misses=1001\n",
		"state=ending",
		"complete=false ready=unknown",
		"last_publish_s=-1 ",
	};
	for (size_t i = 0; i < COUNT(parts); i++)
		if (strstr(text, parts[i]) == NULL)
			fail_msg("no '%s' in %s", parts[i], text);
	free(m);
}

TEST(a_result_with_all_profiles_and_a_long_key_is_json)
{
	struct warm_metrics *m = some_metrics();

	memset(m->key.model, 'm', 100);
	memset(m->key.version, 'v', 60);
	for (int i = 0; i < WARM_PROFILES; i++)
		m->last.use[i] = (struct warm_use){ 12000, 12000, 123456789012, 123456789012 };
	char *text = warm_metrics_result(m, "ended", "");
	json_t *o = json_loads(text, 0, NULL);
	bool valid = o != NULL;
	if (!valid)
		print_message("%s\n", text);
	json_decref(o);
	free(text);
	free(m);
	assert_true(valid);
}

TEST(labels_are_utf8_whatever_the_key)
{
	struct warm_metrics *m = some_metrics();
	scope_scratch struct scratch s = scratch_open();

	m->key = key_of("caf\351", "v1");
	char *text = print(m);
	json_t *as_json = json_stringn(text, strlen(text)); /* NULL: no UTF-8 */
	bool utf8 = as_json != NULL;
	json_decref(as_json);
	free(text);
	free(m);
	assert_true(utf8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_line_parses_whatever_the_numbers),
		cmocka_unit_test(what_is_counted_is_told_by_its_name),
		cmocka_unit_test(what_is_not_known_is_not_told),
		cmocka_unit_test(exactly_one_state_is_set),
		cmocka_unit_test(every_status_has_a_kind_of_its_own),
		cmocka_unit_test(a_histogram_is_cumulative_and_sums_up),
		cmocka_unit_test(label_values_are_escaped),
		cmocka_unit_test(promtool_finds_nothing_to_say),
		cmocka_unit_test(what_init_told_is_read),
		cmocka_unit_test(what_nobody_of_ours_wrote_is_not_believed),
		cmocka_unit_test(a_link_in_the_place_of_inits_result_is_not_followed),
		cmocka_unit_test(the_result_tells_the_same_numbers),
		cmocka_unit_test(a_result_with_a_long_key_and_a_long_reason_is_json_still),
		cmocka_unit_test(the_status_line_tells_the_same_numbers),
		cmocka_unit_test(a_result_with_all_profiles_and_a_long_key_is_json),
		cmocka_unit_test(labels_are_utf8_whatever_the_key),
	};

	return RUN(tests);
}
