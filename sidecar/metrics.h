/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the sidecar tells of itself, as numbers, and in three forms: for Prometheus (text format
 * 0.0.4), as the status line of the log, as the termination message.
 *
 * Threads: plain data; whoever shares it locks it.
 */
#ifndef WARM_SIDECAR_METRICS_H
#define WARM_SIDECAR_METRICS_H

#include "lib/base/buf.h"
#include "lib/kernel/counters.h"
#include "lib/layer/key.h"
#include "lib/sync/publish.h"

enum warm_sidecar_state {
	WARM_SIDECAR_STARTING, /* the volume wasn't scanned yet */
	WARM_SIDECAR_RUNNING,
	WARM_SIDECAR_DRAINING, /* T0 has passed: the pod is ending */
	WARM_SIDECAR_ENDING,   /* SIGTERM */
	WARM_SIDECAR_DISABLED, /* its options can't be used */
	WARM_SIDECAR_STATES,
};
const char *warm_sidecar_state_name(enum warm_sidecar_state state);

enum { WARM_HISTOGRAM_BUCKETS = 12, WARM_STATUSES = 13 };

struct warm_histogram {
	uint64_t buckets[WARM_HISTOGRAM_BUCKETS]; /* not cumulative; by warm_histogram_bounds */
	uint64_t count;
	double sum; /* seconds */
};
void warm_histogram_add(struct warm_histogram *h, int64_t ms);

/* What init left in the volume (result.h). */
struct warm_restored {
	bool known;
	char status[16];
	uint64_t files, bytes;
	int64_t duration_ms;
};

struct warm_metrics {
	struct warm_key key;
	enum warm_sidecar_state state;
	char reason[512]; /* of a state other than running: what is wrong */
	struct warm_restored restored;
	uint64_t published, nothing, failed; /* rounds */
	uint64_t failures[WARM_STATUSES];    /* by -status */
	uint64_t layers, groups, files, bytes, raw_bytes;
	int64_t last_success_ms, last_publish_ms; /* since 1970; 0: never */
	struct warm_histogram publish;
	struct warm_publish_report last; /* of the last round */
	size_t watches;
	bool ready, ready_known;
	uint64_t quarantined;
	uint64_t kernel[WARM_KERNEL_COUNTED];
};

void warm_metrics_print(const struct warm_metrics *metrics, struct warm_buf *out);

/* The status line of the log. */
void warm_metrics_log(const struct warm_metrics *metrics, const char *state);

/* The termination message (result.h). Owns: the caller frees it; NULL: no memory. */
char *warm_metrics_result(const struct warm_metrics *metrics, const char *status,
			  const char *reason);

/* Read what init left; `restored->known` stays false where there is none. */
void warm_restored_load(struct warm_restored *restored, const char *volume);

#endif
