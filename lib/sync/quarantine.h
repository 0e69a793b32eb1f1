/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quarantine: what was restored and is under suspicion is moved aside in the volume, so that the
 * model's next start is cold.
 *
 * `.warmcache/quarantine/` holds the groups below their own paths, and a ledger of them: a later
 * restore leaves groups of these origins out. No store is touched.
 *
 * Threads: one at a time a volume, beside no publish.
 */
#ifndef WARM_SYNC_QUARANTINE_H
#define WARM_SYNC_QUARANTINE_H

#include "lib/sync/ledger.h"

#define WARM_QUARANTINE_DIR WARM_DIR "/quarantine"
#define WARM_QUARANTINE_LEDGER WARM_QUARANTINE_DIR "/ledger"

/* Move all groups of the volume's ledger aside that are as they were restored; what the model has
 * made anew since is its own. `ret_groups` counts those that are out of
 * the cache; the ledger forgets them. A run that was cut off is completed by the next.
 *
 * Errors: of the volume: NOT_FOUND, DENIED, NO_SPACE, CORRUPT for its ledger; NO_MEMORY. Groups
 *         moved before are moved.
 */
int warm_quarantine_run(const char *volume, size_t *ret_groups,
			struct warm_error *err) WARM_CHECKED;

/* The ledger of what is in quarantine; empty when there is none that can be read. Errors:
 * NO_MEMORY. */
int warm_quarantine_load(struct warm_ledger *ledger, int volume_fd,
			 struct warm_error *err) WARM_CHECKED;

#endif
