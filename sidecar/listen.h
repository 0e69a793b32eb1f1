/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /healthz, /readyz and /metrics over HTTP, for probes and Prometheus.
 *
 * Threads: one of its own serves; the loop hands it numbers and says that it turns.
 */
#ifndef WARM_SIDECAR_LISTEN_H
#define WARM_SIDECAR_LISTEN_H

#include "sidecar/metrics.h"

/* The loop has to turn more often than this to be called alive. */
enum { WARM_LISTEN_TURN_MS = 30 * 1000 };

struct warm_listener;

/* Listen at "HOST:PORT", ":PORT" (any address), "[::1]:PORT".
 *
 * Errors: INVALID for an address that can't be read; those of binding, e.g. EXISTS when it is in
 *         use; NO_MEMORY.
 */
int warm_listener_open(const char *address, struct warm_listener **ret_listener,
		       struct warm_error *err) WARM_CHECKED;
void warm_listener_close(struct warm_listener *listener);

/* What is told from now on; a copy is kept. `listener` may be NULL. */
void warm_listener_update(struct warm_listener *listener, const struct warm_metrics *metrics);
/* The loop has turned. `listener` may be NULL. */
void warm_listener_beat(struct warm_listener *listener);

#endif
