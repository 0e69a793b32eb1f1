/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all programs are told alike: which store, which key, which volume. The option rows are
 * shared, so that flags, variables and messages are the same everywhere.
 *
 * Threads: one thread, at the start of a program.
 */
#ifndef WARM_SYNC_TARGET_H
#define WARM_SYNC_TARGET_H

#include "lib/base/option.h"
#include "lib/layer/profile.h"
#include "lib/store/store.h"
#include "lib/sync/catalog.h"

struct warm_target_options {
	struct warm_option_list stores;
	const char *model, *version, *platform;
	struct warm_option_list profiles;
};

/* Rows for the key and the store; `o` is a `struct warm_target_options` with static storage. */
#define WARM_TARGET_ROWS(o)                                                                      \
	{ "store",                                                                               \
	  "WARM_STORE",                                                                          \
	  WARM_OPTION_LIST,                                                                      \
	  &(o).stores,                                                                           \
	  NULL,                                                                                  \
	  "DIR|URL",                                                                             \
	  "Where layers live: a directory, s3://, gs://, oci:// or https:// URL. Repeatable, "   \
	  "nearest first: publishing goes to the last, the nearer ones serve what they have." }, \
		{ "model",                                                                       \
		  "WARM_MODEL",                                                                  \
		  WARM_OPTION_STRING,                                                            \
		  &(o).model,                                                                    \
		  "",                                                                            \
		  "NAME",                                                                        \
		  "The model that the cache belongs to. Empty: disabled." },                     \
		{ "version",                                                                     \
		  "WARM_VERSION",                                                                \
		  WARM_OPTION_STRING,                                                            \
		  &(o).version,                                                                  \
		  "",                                                                            \
		  "VERSION",                                                                     \
		  "The model's version. Empty: only artifacts whose name covers all that they "  \
		  "depend on "                                                                   \
		  "are kept." },                                                                 \
	{                                                                                        \
		"platform", "WARM_PLATFORM", WARM_OPTION_STRING, &(o).platform, "auto", "NAME",  \
			"What compiled code depends on beyond the version. auto: the machine, "  \
			"e.g. x86_64."                                                           \
	}

#define WARM_PROFILE_ROW(o)                                                                      \
	{                                                                                        \
		"profile", "WARM_PROFILE", WARM_OPTION_LIST, &(o).profiles, NULL, "NAME=DIR",    \
			"A directory of the volume with the layout of inductor, triton, vllm, "  \
			"jax, flashinfer, "                                                      \
			"deepgemm, tilelang or nvrtc, besides those of these names. Repeatable." \
	}

struct warm_target {
	struct warm_key key;
	bool disabled;					 /* the model is empty */
	struct warm_store *stores[WARM_OPTION_LIST_MAX]; /* nearest first */
	size_t n_stores;
	struct warm_profile_roots roots;
};

/* Check and open. INVALID names the option and what is wrong with it. On failure `target` holds
 * nothing. */
int warm_target_init(struct warm_target *target, const struct warm_target_options *options,
		     struct warm_error *err) WARM_CHECKED;
void warm_target_release(struct warm_target *target);
#define scope_target WARM_SCOPE(warm_target_release)

/* The store that is published to, whose LIST is the state. */
static inline struct warm_store *warm_target_far(const struct warm_target *target)
{
	return target->stores[target->n_stores - 1];
}

/* Notices of libraries as log lines, at warning level. */
extern const struct warm_notices warm_log_notices;

/* A program's settings that every one of ours wants: no umask, SIGPIPE ignored, and malloc kept
 * from holding on to memory per thread. */
void warm_process_setup(void);

#endif
