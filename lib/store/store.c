/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/store.h"

#include <string.h>

#include "lib/base/file.h"
#include "lib/store/backend.h"
#include "lib/store/http.h"

struct warm_store {
	const struct warm_backend *backend;
	void *state;
	char *url;
	unsigned parallel;
};

static const struct warm_backend *const backends[] = {
	&warm_backend_file, &warm_backend_s3,	 &warm_backend_gs,
	&warm_backend_oci,  &warm_backend_https, &warm_backend_http,
};

int warm_store_open(const char *url, struct warm_store **ret_store, struct warm_error *err)
{
	const char *colon = strstr(url, "://"), *rest = url;
	const struct warm_backend *backend = &warm_backend_file;

	if (url[0] == '\0')
		return warm_error_set(err, WARM_INVALID, "the store is an empty string");
	if (colon != NULL && memchr(url, '/', (size_t)(colon - url)) == NULL) {
		size_t n = (size_t)(colon - url);
		backend = NULL;
		for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++)
			if (strlen(backends[i]->scheme) == n &&
			    memcmp(backends[i]->scheme, url, n) == 0)
				backend = backends[i];
		if (backend == NULL)
			return warm_error_set(err, WARM_INVALID,
					      "store %.100s: unknown scheme '%.*s' (known: a "
					      "directory, file://, s3://, gs://, oci://, https://)",
					      url, (int)n, url);
		rest = colon + 3;
	}
	scope_store struct warm_store *store = calloc(1, sizeof(*store));
	if (store == NULL)
		return warm_error_nomem(err, sizeof(*store));
	store->url = strndup(url, backend == &warm_backend_file ? strlen(url) : strcspn(url, "?"));
	if (store->url == NULL)
		return warm_error_nomem(err, strlen(url));
	int rc = backend->open(rest, &store->state, err);
	if (rc != 0) {
		/* What stands before an '@' may be a password. */
		bool secret = backend != &warm_backend_file && strchr(url, '@') != NULL;
		warm_error_context(err, "store %.*s", secret ? (int)strcspn(url, ":") : 100,
				   store->url);
		return rc;
	}
	store->backend = backend;
	store->parallel = backend->connections != NULL ? backend->connections(store->state)
						       : backend->parallel;
	*ret_store = take_ptr(store);
	return 0;
}

int warm_store_wrap(const struct warm_backend *backend, void *state, const char *url,
		    unsigned parallel, struct warm_store **ret_store, struct warm_error *err)
{
	struct warm_store *store = calloc(1, sizeof(*store));

	if (store == NULL || (store->url = strdup(url)) == NULL) {
		free(store);
		return warm_error_nomem(err, sizeof(*store));
	}
	store->backend = backend;
	store->state = state;
	store->parallel = parallel;
	*ret_store = store;
	return 0;
}

void *warm_store_state(const struct warm_store *store)
{
	return store->state;
}

void warm_store_free(struct warm_store *store)
{
	if (store == NULL)
		return;
	if (store->backend != NULL)
		store->backend->free(store->state);
	free(store->url);
	free(store);
}

const char *warm_store_url(const struct warm_store *store)
{
	return store->url;
}

unsigned warm_store_parallel(const struct warm_store *store)
{
	return store->parallel;
}

int warm_store_check(const struct warm_store *store, const char *prefix, struct warm_error *err)
{
	if (store->backend->check == NULL || prefix[0] == '\0' ||
	    store->backend->check(store->state, prefix, err) == 0)
		return 0;
	if (err != NULL)
		err->status = WARM_INVALID;
	warm_error_context(err, "store %.100s", store->url);
	return WARM_INVALID;
}

uint64_t warm_store_activity(void)
{
	return warm_http_moved() + warm_file_moved();
}

static int check_name(const struct warm_store *store, const char *name,
		      const struct warm_call *call, struct warm_error *err)
{
	int rc = warm_path_check(name, strlen(name), err);
	if (rc == 0)
		rc = warm_call_check(call, err);
	if (rc != 0)
		warm_error_context(err, "%.80s: %.60s", store->url, name);
	return rc;
}

static int with_context(const struct warm_store *store, const char *what, const char *name, int rc,
			struct warm_error *err)
{
	const char *slash = name[0] != '\0' ? "/" : "";

	if (rc == 0)
		return 0;
	if (store->backend->scheme == NULL)
		return rc;
	if (store->backend->remote)
		warm_error_context(err, "%.80s%s%.250s", store->url, slash, name);
	else
		warm_error_context(err, "%s %.80s%s%.250s", what, store->url, slash, name);
	return rc;
}

int warm_store_list(struct warm_store *store, const char *prefix, warm_list_fn fn, void *arg,
		    int64_t *ret_now_ms, const struct warm_call *call, struct warm_error *err)
{
	int rc = warm_call_check(call, err);

	if (ret_now_ms != NULL)
		*ret_now_ms = -1;
	if (rc == 0)
		rc = store->backend->list(store->state, prefix, fn, arg, ret_now_ms, call, err);
	return with_context(store, "list", prefix, rc, err);
}

int warm_store_sweep(struct warm_store *store, const char *prefix, int64_t age_ms,
		     bool (*is_ours)(const char *name), bool dry_run, size_t *ret_n,
		     const struct warm_call *call, struct warm_error *err)
{
	int rc = warm_call_check(call, err);

	*ret_n = 0;
	if (rc == 0 && store->backend->sweep != NULL)
		rc = store->backend->sweep(store->state, prefix, age_ms, is_ours, dry_run, ret_n,
					   call, err);
	return with_context(store, "sweep", prefix, rc, err);
}

int warm_store_head(struct warm_store *store, const char *name, struct warm_object *ret_object,
		    const struct warm_call *call, struct warm_error *err)
{
	int rc = check_name(store, name, call, err);

	if (rc != 0)
		return rc;
	rc = store->backend->head(store->state, name, ret_object, call, err);
	return with_context(store, "look at", name, rc, err);
}

int warm_store_get(struct warm_store *store, const char *name, uint64_t offset, uint64_t bytes,
		   warm_sink_fn sink, void *arg, const struct warm_call *call,
		   struct warm_error *err)
{
	int rc = check_name(store, name, call, err);

	if (rc != 0)
		return rc;
	rc = store->backend->get(store->state, name, offset, bytes, sink, arg, call, err);
	return with_context(store, "read", name, rc, err);
}

static int read_only(struct warm_error *err)
{
	return warm_error_set(err, WARM_UNSUPPORTED, "only read: publish to the store behind it");
}

static int put(struct warm_store *store, const char *name, int fd, uint64_t bytes, bool replace,
	       const struct warm_call *call, struct warm_error *err)
{
	int rc = check_name(store, name, call, err);

	if (rc != 0)
		return rc;
	rc = store->backend->put == NULL
		     ? read_only(err)
		     : store->backend->put(store->state, name, fd, bytes, replace, call, err);
	return with_context(store, "write", name, rc, err);
}

int warm_store_put(struct warm_store *store, const char *name, int fd, uint64_t bytes,
		   const struct warm_call *call, struct warm_error *err)
{
	return put(store, name, fd, bytes, false, call, err);
}

int warm_store_replace(struct warm_store *store, const char *name, int fd, uint64_t bytes,
		       const struct warm_call *call, struct warm_error *err)
{
	return put(store, name, fd, bytes, true, call, err);
}

int warm_store_delete(struct warm_store *store, const char *name, const struct warm_call *call,
		      struct warm_error *err)
{
	int rc = check_name(store, name, call, err);

	if (rc != 0)
		return rc;
	rc = store->backend->delete == NULL
		     ? read_only(err)
		     : store->backend->delete (store->state, name, call, err);
	return with_context(store, "delete", name, rc, err);
}

void warm_store_touch(struct warm_store *store, const char *name)
{
	if (store->backend->touch != NULL)
		store->backend->touch(store->state, name);
}

int warm_store_spool(struct warm_store *store, int *ret_fd, struct warm_error *err)
{
	int rc = store->backend->spool == NULL ? warm_error_set(err, WARM_UNSUPPORTED, "no disk")
					       : store->backend->spool(store->state, ret_fd, err);

	if (rc != 0)
		warm_error_context(err, "%.80s", store->url);
	return rc;
}

bool warm_store_distrust(struct warm_store *store, const char *name)
{
	return store->backend->distrust != NULL && store->backend->distrust(store->state, name);
}
