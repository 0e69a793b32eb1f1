/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single flight: of many callers of one missing program one compiles, the others wait for it.
 *
 * Between threads by a table of what is being compiled; between processes that share the cache by
 * a lock on one byte of <cache>/nvrtc/v1/lock, at an offset made of the fingerprint. The kernel
 * drops the lock with its holder, however that ends. Waiting is bounded, and whoever waited in
 * vain compiles: a flight saves work, nothing depends on it. Threads: any number.
 */
#ifndef WARM_COMPILER_FLIGHT_H
#define WARM_COMPILER_FLIGHT_H

#include "compiler/pool.h"
#include "lib/base/hash.h"

struct warm_flights;
struct warm_flight;

/* `cache_fd` is borrowed; -1: threads of this process only. NULL when out of memory. */
struct warm_flights *warm_flights_new(int cache_fd);
/* From now on by another descriptor of the same cache. */
void warm_flights_use(struct warm_flights *flights, int cache_fd);
void warm_flights_free(struct warm_flights *flights);
void warm_flights_fork(struct warm_flights *flights, enum warm_fork phase);

/* Join the flight of `key`. Its first caller gets `*ret_flight` and must land it. The others wait
 * until it has landed, at most `wait_ms`, and get NULL; what the first one landed with is copied
 * to `*ret_data` (NULL: nothing, or no memory). Owns: the caller frees `*ret_data`. */
void warm_flight_join(struct warm_flights *flights, struct warm_hash128 key, int64_t wait_ms,
		      struct warm_flight **ret_flight, uint8_t **ret_data, size_t *ret_bytes);

/* Wait until no other process holds `fingerprint`, at most `wait_ms`. True when one did: it may
 * have stored what is wanted. */
bool warm_flight_lock(struct warm_flight *flight, struct warm_hash128 fingerprint, int64_t wait_ms);

/* Let the other processes go on already. */
void warm_flight_unlock(struct warm_flight *flight);

/* Let the others go on. `data` is what they may use instead of their own compile, or NULL. */
void warm_flight_land(struct warm_flight *flight, const uint8_t *data, size_t bytes);

#endif
