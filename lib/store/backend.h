/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a kind of store implements. store.c checks arguments and puts the store's URL and the
 * object's name in front of errors, so that a backend says only what went wrong.
 */
#ifndef WARM_STORE_BACKEND_H
#define WARM_STORE_BACKEND_H

#include "lib/store/store.h"

struct warm_backend {
	const char *scheme; /* "file"; NULL: stores below it name themselves in errors */
	unsigned parallel;
	bool remote; /* errors say themselves what was asked */
	int (*open)(const char *rest, void **ret_state, struct warm_error *err);
	void (*free)(void *state);
	int (*list)(void *state, const char *prefix, warm_list_fn fn, void *arg,
		    int64_t *ret_now_ms, const struct warm_call *call, struct warm_error *err);
	int (*head)(void *state, const char *name, struct warm_object *ret_object,
		    const struct warm_call *call, struct warm_error *err);
	int (*get)(void *state, const char *name, uint64_t offset, uint64_t bytes,
		   warm_sink_fn sink, void *arg, const struct warm_call *call,
		   struct warm_error *err);
	/* put and delete: NULL where a store is only read */
	int (*put)(void *state, const char *name, int fd, uint64_t bytes, bool replace,
		   const struct warm_call *call, struct warm_error *err);
	int (*delete)(void *state, const char *name, const struct warm_call *call,
		      struct warm_error *err);
	/* May be NULL; see store.h. */
	unsigned (*connections)(const void *state); /* NULL: `parallel` */
	int (*check)(void *state, const char *prefix, struct warm_error *err);
	int (*sweep)(void *state, const char *prefix, int64_t age_ms,
		     bool (*is_ours)(const char *name), bool dry_run, size_t *ret_n,
		     const struct warm_call *call, struct warm_error *err);
	void (*touch)(void *state, const char *name);
	int (*spool)(void *state, int *ret_fd, struct warm_error *err);
	bool (*distrust)(void *state, const char *name);
};

/* Bytes that directory stores have written in this process. */
uint64_t warm_file_moved(void);

/* A store of a backend that has no URL of its own. Owns: the store frees `state`. */
int warm_store_wrap(const struct warm_backend *backend, void *state, const char *url,
		    unsigned parallel, struct warm_store **ret_store,
		    struct warm_error *err) WARM_CHECKED;
void *warm_store_state(const struct warm_store *store);

extern const struct warm_backend warm_backend_file, warm_backend_s3, warm_backend_gs,
	warm_backend_oci, warm_backend_http, warm_backend_https;

#endif
