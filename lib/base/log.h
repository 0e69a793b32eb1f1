/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One event a line on stderr, for people or as JSON. Programs log; libraries return errors.
 *
 * Fields are name, printf format, values: `warm_log(WARM_LOG_INFO, "published", "layer=%s", id)`
 * gives `2026-11-24T05:00:00.123Z INFO published layer=...` or
 * `{"time":"...","level":"info","event":"published","text":"layer=..."}`.
 *
 * Threads: any number; a line is one write.
 */
#ifndef WARM_BASE_LOG_H
#define WARM_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/scope.h"

enum warm_log_level { WARM_LOG_DEBUG, WARM_LOG_INFO, WARM_LOG_WARN, WARM_LOG_ERROR };

/* Name of the program, for text lines; `json` and `lowest` for all lines after. */
void warm_log_setup(const char *program, bool json, enum warm_log_level lowest);
/* From now on a warning or error that says the same as an earlier one is told at most once in `ms`,
 * with the number of those left out; 0: always. Of failures (events that end in "-failed") numbers
 * and ids don't count. At most 64 different ones are kept in mind. For programs that run for
 * weeks. */
void warm_log_repeats(int64_t ms);
void warm_log(enum warm_log_level level, const char *event, const char *fmt, ...) WARM_PRINTF(3, 4);

/* Append `text` as the inside of a JSON string; always terminated. Returns bytes used. */
size_t warm_json_escape(const char *text, char *ret, size_t bytes);

#endif
