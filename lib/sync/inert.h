/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a restored cache isn't used: the likely causes, found by looking at what was restored and at
 * what the model made beside it.
 *
 * Where the model writes: elsewhere in the volume, or not there at all. What its compilers say that
 * their keys are made of: vLLM's cache_key_factors.json, the name of Inductor's system key, Triton's
 * metadata, the inputs in kernel entries. Values of names that look like secrets are not told.
 *
 * Threads: any number, on different buffers.
 */
#ifndef WARM_SYNC_INERT_H
#define WARM_SYNC_INERT_H

#include "lib/base/buf.h"
#include "lib/sync/ledger.h"
#include "lib/sync/scan.h"

/* Append the causes, "; " between them; when none is found, what that leaves. `mount` is the path
 * of the volume. Reads files of the volume; what can't be read is no cause. */
void warm_inert_explain(int volume_fd, const char *mount, const struct warm_scan *scan,
			const struct warm_ledger *ledger, struct warm_buf *text);

#endif
