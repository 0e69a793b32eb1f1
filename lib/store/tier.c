/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/tier.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "lib/base/hash.h"
#include "lib/store/backend.h"

enum {
	FAR_LIST_MS = 10 * 1000, /* or half of the time that is left: then near's turn */
	NEAR_MS = 5 *
		  1000, /* without a byte, or half of what is left: then the next store's turn */
	MAX_STORES = 16,
};

/* What is known of a name. */
struct known {
	uint64_t hash;
	char *name;
	size_t from; /* stores before this one don't serve it */
	bool lacking, damaged, touched;
};

struct tier {
	struct warm_store *stores[MAX_STORES];
	size_t n;
	const struct warm_notices *notices;
	atomic_bool sick[MAX_STORES];
	atomic_bool far_is_away, far_was_here;
	pthread_mutex_t lock;
	struct known *known; /* under the lock */
	size_t n_known, capacity;
};

static void tier_free(void *state)
{
	struct tier *t = state;

	if (t == NULL)
		return;
	for (size_t i = 0; i < t->n_known; i++)
		free(t->known[i].name);
	free(t->known);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

static struct warm_store *far_of(const struct tier *t)
{
	return t->stores[t->n - 1];
}

/* Under the lock. NULL when out of memory: then nothing is remembered. */
static struct known *known_of(struct tier *t, const char *name)
{
	uint64_t hash = warm_hash64(name, strlen(name));

	for (size_t i = 0; i < t->n_known; i++)
		if (t->known[i].hash == hash && strcmp(t->known[i].name, name) == 0)
			return &t->known[i];
	if (t->n_known == t->capacity) {
		size_t capacity = t->capacity == 0 ? 32 : 2 * t->capacity;
		struct known *more = realloc(t->known, capacity * sizeof(*more));
		if (more == NULL)
			return NULL;
		t->known = more;
		t->capacity = capacity;
	}
	char *copy = strdup(name);
	if (copy == NULL)
		return NULL;
	t->known[t->n_known] = (struct known){ .hash = hash, .name = copy };
	return &t->known[t->n_known++];
}

static size_t first_store(struct tier *t, const char *name)
{
	pthread_mutex_lock(&t->lock);
	const struct known *k = known_of(t, name);
	size_t from = k != NULL ? k->from : 0;
	pthread_mutex_unlock(&t->lock);
	return from;
}

static void note_miss(struct tier *t, const char *name, size_t store, bool damaged)
{
	bool told = true;

	pthread_mutex_lock(&t->lock);
	struct known *k = known_of(t, name);
	if (k != NULL) {
		if (k->from <= store)
			k->from = store + 1;
		told = k->damaged;
		k->lacking = true;
		k->damaged = k->damaged || damaged;
	}
	pthread_mutex_unlock(&t->lock);
	if (damaged && !told)
		warm_notice(t->notices, "near-damaged",
			    "%.80s/%.150s is damaged; reading it from %.80s",
			    warm_store_url(t->stores[store]), name, warm_store_url(far_of(t)));
}

static void note_sick(struct tier *t, size_t store, const struct warm_error *err)
{
	if (!atomic_exchange(&t->sick[store], true))
		warm_notice(t->notices, "near-passed-over", "%s; using the stores behind it",
			    err->msg);
}

/* A near store's first use of a name counts as one for its bound (near.h). */
static void note_use(struct tier *t, const char *name, size_t store)
{
	pthread_mutex_lock(&t->lock);
	struct known *k = known_of(t, name);
	bool touched = k == NULL || k->touched;
	if (k != NULL)
		k->touched = true;
	pthread_mutex_unlock(&t->lock);
	if (!touched)
		warm_store_touch(t->stores[store], name);
}

static int far_error(const struct tier *t, struct warm_error *err)
{
	return warm_error_set(err, WARM_TRANSIENT, "%.120s is away, and nearer stores lack it",
			      warm_store_url(far_of(t)));
}

static bool is_ours_to_return(int rc)
{
	return rc == WARM_CANCELED || rc == WARM_NO_MEMORY;
}

/* ---- reading ---- */

struct counted {
	warm_sink_fn sink;
	void *arg;
	uint64_t given;
	bool failed;
	struct warm_call *call; /* near's, the wait for it begins anew with each piece */
	int64_t patience_ms;
};

static int count(void *arg, const void *data, size_t bytes, struct warm_error *err)
{
	struct counted *c = arg;
	int rc = c->sink(c->arg, data, bytes, err);

	c->failed = rc != 0;
	c->given += rc == 0 ? bytes : 0;
	c->call->deadline_ms = warm_clock_ms() + c->patience_ms;
	return rc;
}

static int tier_get(void *state, const char *name, uint64_t offset, uint64_t bytes,
		    warm_sink_fn sink, void *arg, const struct warm_call *call,
		    struct warm_error *err)
{
	struct tier *t = state;
	struct counted c = { .sink = sink, .arg = arg };
	struct warm_error near_err = { 0 };

	/* What one store has given the next one doesn't give again. */
	for (size_t i = first_store(t, name); i + 1 < t->n; i++) {
		if (atomic_load(&t->sick[i]))
			continue;
		c.patience_ms = warm_call_left_ms(call, 2 * NEAR_MS) / 2 + 1;
		struct warm_call near_call = { .deadline_ms = warm_clock_ms() + c.patience_ms,
					       .outer = call };
		c.call = &near_call;
		int rc = warm_store_get(t->stores[i], name, offset + c.given, bytes - c.given,
					count, &c, &near_call, &near_err);
		if (rc == WARM_CANCELED && !c.failed && warm_call_check(call, NULL) == 0)
			rc = warm_error_set(&near_err, WARM_TRANSIENT, "%.120s is too slow",
					    warm_store_url(t->stores[i]));
		if (rc == 0)
			note_use(t, name, i);
		if (rc == 0 || c.failed || is_ours_to_return(rc)) {
			if (rc != 0 && err != NULL)
				*err = near_err;
			return rc;
		}
		if (rc == WARM_NOT_FOUND || rc == WARM_CORRUPT)
			note_miss(t, name, i, rc == WARM_CORRUPT);
		else
			note_sick(t, i, &near_err);
	}
	if (atomic_load(&t->far_is_away))
		return far_error(t, err);
	int rc = warm_store_get(far_of(t), name, offset + c.given, bytes - c.given, sink, arg, call,
				err);
	if (rc == 0)
		atomic_store(&t->far_was_here, true);
	return rc;
}

static int tier_head(void *state, const char *name, struct warm_object *ret_object,
		     const struct warm_call *call, struct warm_error *err)
{
	struct tier *t = state;

	for (size_t i = 0; atomic_load(&t->far_is_away) && i + 1 < t->n; i++)
		if (warm_store_head(t->stores[i], name, ret_object, call, err) == 0)
			return 0;
	return atomic_load(&t->far_is_away)
		       ? far_error(t, err)
		       : warm_store_head(far_of(t), name, ret_object, call, err);
}

static bool tier_distrust(void *state, const char *name)
{
	struct tier *t = state;
	bool from_near;

	pthread_mutex_lock(&t->lock);
	const struct known *k = known_of(t, name);
	from_near = k != NULL && (k->from + 1 < t->n || k->damaged);
	size_t store = k != NULL ? k->from : 0;
	pthread_mutex_unlock(&t->lock);
	if (!from_near)
		return false;
	/* Which of several near stores gave it isn't known: all of them are passed over. */
	if (store + 1 < t->n)
		note_miss(t, name, store, true);
	note_miss(t, name, t->n - 2, true);
	return true;
}

/* ---- LIST ---- */

struct listing {
	warm_list_fn fn;
	void *arg;
	bool failed; /* the caller's function */
	size_t n;
};

static int tell(void *arg, const struct warm_object *object, struct warm_error *err)
{
	struct listing *l = arg;
	int rc = l->fn(l->arg, object, err);

	l->n++;
	l->failed = rc != 0;
	return rc;
}

static int list_near(struct tier *t, const char *prefix, struct listing *l,
		     const struct warm_call *call, const struct warm_error *far_err,
		     struct warm_error *err)
{
	struct warm_error near_err = { 0 };

	for (size_t i = 0; i + 1 < t->n; i++) {
		if (atomic_load(&t->sick[i]))
			continue;
		int rc = warm_store_list(t->stores[i], prefix, tell, l, NULL, call, &near_err);
		if (rc == WARM_NOT_FOUND)
			continue;
		if (rc == 0 || l->failed || is_ours_to_return(rc) || l->n > 0) {
			if (rc != 0 && err != NULL)
				*err = near_err;
			return rc;
		}
		note_sick(t, i, &near_err);
	}
	if (err != NULL)
		*err = *far_err;
	return far_err->status;
}

static int tier_list(void *state, const char *prefix, warm_list_fn fn, void *arg,
		     int64_t *ret_now_ms, const struct warm_call *call, struct warm_error *err)
{
	struct tier *t = state;
	struct listing l = { fn, arg, false, 0 };
	struct warm_error far_err = { .status = WARM_TRANSIENT };
	struct warm_call far_call = { .outer = call };

	if (atomic_load(&t->far_is_away)) {
		(void)far_error(t, &far_err);
		return list_near(t, prefix, &l, call, &far_err, err);
	}
	/* A far store that has answered before isn't away: what fails then is this LIST. */
	bool was_here = atomic_load(&t->far_was_here);
	if (!was_here)
		far_call.deadline_ms = warm_clock_ms() +
				       warm_call_left_ms(call, 2 * FAR_LIST_MS) / 2 + 1;
	int rc = warm_store_list(far_of(t), prefix, tell, &l, ret_now_ms, &far_call, &far_err);
	if (rc == 0 || rc == WARM_NOT_FOUND)
		atomic_store(&t->far_was_here, true);
	bool ended = rc == WARM_CANCELED && warm_call_check(call, NULL) != 0;
	if (rc == 0 || was_here || l.failed || rc == WARM_NOT_FOUND || rc == WARM_NO_MEMORY ||
	    l.n > 0 || ended) {
		if (rc != 0 && err != NULL)
			*err = far_err;
		return rc;
	}
	if (rc == WARM_CANCELED)
		(void)warm_error_set(&far_err, WARM_TRANSIENT, "%.100s doesn't answer",
				     warm_store_url(far_of(t)));
	if (!atomic_exchange(&t->far_is_away, true))
		warm_notice(t->notices, "far-away", "%s; the nearer stores alone are used",
			    far_err.msg);
	return list_near(t, prefix, &l, call, &far_err, err);
}

/* Without a scheme: the stores below have put their names into errors. */
static const struct warm_backend backend = {
	.free = tier_free,
	.list = tier_list,
	.head = tier_head,
	.get = tier_get,
	.distrust = tier_distrust,
};

int warm_tier_open(struct warm_store *const *stores, size_t n, const struct warm_notices *notices,
		   struct warm_store **ret_tier, struct warm_error *err)
{
	struct tier *t = calloc(1, sizeof(*t));

	if (t == NULL)
		return warm_error_nomem(err, sizeof(*t));
	if (n < 2 || n > MAX_STORES) {
		free(t);
		return warm_error_set(err, WARM_INVALID, "%zu stores make no tiers", n);
	}
	memcpy(t->stores, stores, n * sizeof(*stores));
	t->n = n;
	t->notices = notices;
	pthread_mutex_init(&t->lock, NULL);
	/* As many at once as the busiest of them serves. */
	unsigned parallel = 1;
	for (size_t i = 0; i < n; i++)
		if (warm_store_parallel(stores[i]) > parallel)
			parallel = warm_store_parallel(stores[i]);
	int rc = warm_store_wrap(&backend, t, warm_store_url(stores[n - 1]), parallel, ret_tier,
				 err);
	if (rc != 0)
		tier_free(t);
	return rc;
}

bool warm_tier_far_is_away(const struct warm_store *tier)
{
	const struct tier *t = warm_store_state(tier);

	return atomic_load(&t->far_is_away);
}

void warm_tier_lacking(const struct warm_store *tier, warm_lacking_fn fn, void *arg)
{
	const struct tier *t = warm_store_state(tier);

	for (size_t i = 0; i < t->n_known; i++)
		if (t->known[i].lacking)
			fn(arg, t->known[i].name, t->known[i].damaged);
}
