/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/sync/target.h"

#include <malloc.h>
#include <signal.h>
#include <sys/stat.h>

#include "lib/base/log.h"

static int init(struct warm_target *t, const struct warm_target_options *o, struct warm_error *err)
{
	int rc = warm_key_init(&t->key, o->model, o->version, o->platform, err);

	if (rc != 0)
		return rc;
	t->disabled = t->key.model[0] == '\0';
	for (size_t i = 0; i < o->profiles.n; i++) {
		rc = warm_profile_roots_add(&t->roots, o->profiles.items[i], err);
		if (rc != 0) {
			warm_error_context(err, "--profile");
			return rc;
		}
	}
	if (o->stores.n == 0 && !t->disabled)
		return warm_error_set(err, WARM_INVALID, "--store is missing");
	for (size_t i = 0; i < o->stores.n; i++) {
		rc = warm_store_open(o->stores.items[i], &t->stores[i], err);
		if (rc != 0)
			return rc;
		t->n_stores++;
		char prefix[WARM_NAME_BYTES];
		warm_key_prefix(&t->key, prefix);
		if (!t->disabled)
			rc = warm_store_check(t->stores[i], prefix, err);
		if (rc != 0)
			return rc;
	}
	return 0;
}

int warm_target_init(struct warm_target *target, const struct warm_target_options *options,
		     struct warm_error *err)
{
	*target = (struct warm_target){ 0 };
	int rc = init(target, options, err);

	if (rc != 0)
		warm_target_release(target);
	return rc;
}

void warm_target_release(struct warm_target *target)
{
	for (size_t i = 0; i < target->n_stores; i++)
		warm_store_free(target->stores[i]);
	*target = (struct warm_target){ 0 };
}

static void log_notice(void *arg, const char *event, const char *text)
{
	(void)arg;
	warm_log(WARM_LOG_WARN, event, "%s", text);
}

const struct warm_notices warm_log_notices = { .fn = log_notice };

void warm_process_setup(void)
{
	/* A volume is the pod's: any uid of it may write. A store is not. */
	warm_store_umask(umask(0));
	signal(SIGPIPE, SIG_IGN);
	signal(SIGIO, SIG_IGN); /* a lease of ours that a writer breaks; the default is death */
	/* Buffers of megabytes come and go on many threads: give them back, keep one arena. */
	mallopt(M_ARENA_MAX, 2);
	mallopt(M_MMAP_THRESHOLD, 1 << 20);
	mallopt(M_TRIM_THRESHOLD, 1 << 20);
}
