/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *log_program = "warmcache";
static bool log_json;
static enum warm_log_level log_lowest = WARM_LOG_INFO;

void warm_log_setup(const char *program, bool json, enum warm_log_level lowest)
{
	log_program = program;
	log_json = json;
	log_lowest = lowest;
}

size_t warm_json_escape(const char *text, char *ret, size_t bytes)
{
	size_t at = 0;

	for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++) {
		char one[8];
		if (*p == '"' || *p == '\\')
			snprintf(one, sizeof(one), "\\%c", *p);
		else if (*p == '\n')
			snprintf(one, sizeof(one), "\\n");
		else if (*p < 0x20 || *p == 0x7f)
			snprintf(one, sizeof(one), "\\u%04x", *p);
		else
			snprintf(one, sizeof(one), "%c", *p);
		size_t n = strlen(one);
		if (at + n + 1 > bytes)
			break;
		memcpy(ret + at, one, n);
		at += n;
	}
	if (bytes > 0)
		ret[at] = '\0';
	return at;
}

void warm_log(enum warm_log_level level, const char *event, const char *fmt, ...)
{
	static const char *const levels[] = { "DEBUG", "INFO", "WARN", "ERROR" };
	static const char *const json_levels[] = { "debug", "info", "warn", "error" };
	char text[1536], line[4096], escaped[3000], when[40];
	struct timespec now;
	struct tm tm;
	va_list ap;

	if (level < log_lowest)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	size_t used = strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(when + used, sizeof(when) - used, ".%03ldZ", now.tv_nsec / 1000000);

	int n;
	if (log_json) {
		warm_json_escape(text, escaped, sizeof(escaped));
		n = snprintf(
			line, sizeof(line),
			"{\"time\":\"%s\",\"level\":\"%s\",\"program\":\"%s\",\"event\":\"%s\","
			"\"text\":\"%s\"}\n",
			when, json_levels[level], log_program, event, escaped);
	} else {
		for (char *p = text; *p != '\0'; p++)
			if ((unsigned char)*p < 0x20)
				*p = ' ';
		n = snprintf(line, sizeof(line), "%s %s %s: %s%s%s\n", when, levels[level],
			     log_program, event, text[0] != '\0' ? ": " : "", text);
	}
	if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0)
		return; /* nobody is left to tell */
}
