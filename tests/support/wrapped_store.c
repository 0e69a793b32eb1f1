/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/wrapped_store.h"

#include "lib/store/backend.h"

static int before(struct wrapped_store *w, enum wrapped_call call, const char *name,
		  struct warm_error *err)
{
	return w->before != NULL ? w->before(w->arg, call, name, err) : 0;
}

static int wrapped_list(void *state, const char *prefix, warm_list_fn fn, void *arg,
			int64_t *ret_now_ms, const struct warm_call *call, struct warm_error *err)
{
	struct wrapped_store *w = state;
	int rc = before(w, WRAPPED_LIST, prefix, err);

	return rc != 0 ? rc : warm_store_list(w->inner, prefix, fn, arg, ret_now_ms, call, err);
}

static int wrapped_head(void *state, const char *name, struct warm_object *ret_object,
			const struct warm_call *call, struct warm_error *err)
{
	struct wrapped_store *w = state;
	int rc = before(w, WRAPPED_HEAD, name, err);

	return rc != 0 ? rc : warm_store_head(w->inner, name, ret_object, call, err);
}

static int wrapped_get(void *state, const char *name, uint64_t offset, uint64_t bytes,
		       warm_sink_fn sink, void *arg, const struct warm_call *call,
		       struct warm_error *err)
{
	struct wrapped_store *w = state;
	int rc = before(w, WRAPPED_GET, name, err);

	return rc != 0 ? rc : warm_store_get(w->inner, name, offset, bytes, sink, arg, call, err);
}

static int wrapped_put(void *state, const char *name, int fd, uint64_t bytes, bool replace,
		       const struct warm_call *call, struct warm_error *err)
{
	struct wrapped_store *w = state;
	int rc = before(w, WRAPPED_PUT, name, err);

	if (rc == 0)
		rc = replace ? warm_store_replace(w->inner, name, fd, bytes, call, err)
			     : warm_store_put(w->inner, name, fd, bytes, call, err);
	if (rc == 0 && w->after_put != NULL)
		w->after_put(w->arg, name);
	return rc;
}

static int wrapped_delete(void *state, const char *name, const struct warm_call *call,
			  struct warm_error *err)
{
	struct wrapped_store *w = state;
	int rc = before(w, WRAPPED_DELETE, name, err);

	return rc != 0 ? rc : warm_store_delete(w->inner, name, call, err);
}

static void wrapped_free(void *state)
{
	(void)state;
}

struct warm_store *wrapped_store_open(struct wrapped_store *w)
{
	static const struct warm_backend backend = {
		.parallel = 2,
		.free = wrapped_free,
		.list = wrapped_list,
		.head = wrapped_head,
		.get = wrapped_get,
		.put = wrapped_put,
		.delete = wrapped_delete,
	};
	struct warm_store *store = NULL;

	assert_int_equal(warm_store_wrap(&backend, w, "wrapped", 2, &store, NULL), 0);
	return store;
}
