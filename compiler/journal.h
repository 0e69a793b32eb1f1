/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A JSON line for each lookup, where WARM_COMPILER_LOG asks for it: "stderr", or a file to append
 * to. A miss tells what differs from the last program of that name in this process, and its
 * inputs, so that `warmcache explain` can compare them with every entry later.
 *
 * Threads: any number. A line is written by one write().
 */
#ifndef WARM_COMPILER_JOURNAL_H
#define WARM_COMPILER_JOURNAL_H

#include "compiler/pool.h"
#include "lib/kernel/entry.h"

struct warm_journal;

struct warm_journal_event {
	const char *event; /* "hit", "wait", "miss", "uncacheable", "unstored", "error" */
	const struct warm_kernel_inputs *inputs;
	struct warm_hash128 fingerprint;
	int64_t duration_ns;
	size_t bytes;		/* of the entry */
	const char *reason;	/* or NULL */
	const char *dependency; /* why a variant didn't hold, or NULL */
};

/* `where` is WARM_COMPILER_LOG's value. NULL when it is NULL or empty, when there is no memory, or
 * the file can't be opened: a log is no reason to fail. */
struct warm_journal *warm_journal_open(const char *where);
void warm_journal_close(struct warm_journal *journal);
void warm_journal_fork(struct warm_journal *journal, enum warm_fork phase);

void warm_journal_write(struct warm_journal *journal, const struct warm_journal_event *event);

#endif
