/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/hash.h"

enum { TOLD = 64, TEXT_BYTES = 1536 };

/* What was told, and how often it was not since. */
static struct told {
	uint64_t hash;
	int64_t at_ms;
	size_t left_out;
} told[TOLD];
static pthread_mutex_t told_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic int64_t repeat_ms;

static const char *log_program = "warmcache";
static bool log_json;
static enum warm_log_level log_lowest = WARM_LOG_INFO;

void warm_log_setup(const char *program, bool json, enum warm_log_level lowest)
{
	log_program = program;
	log_json = json;
	log_lowest = lowest;
}

void warm_log_repeats(int64_t ms)
{
	repeat_ms = ms;
}

static bool is_word(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       c == '_';
}

/* A number, with or without a unit, or an id in hex. Not a name that has digits. */
static bool is_number(const char *word, size_t n)
{
	size_t digits = strspn(word, "0123456789"), hex = strspn(word, "0123456789abcdef");

	return (digits > 0 && n - (digits < n ? digits : n) <= 2) || (n >= 8 && hex >= n);
}

/* Hash of a line; of a failure without its numbers: times, sizes and ids differ from one to the
 * next. */
static uint64_t hash_line(const char *event, const char *text)
{
	char plain[TEXT_BYTES];
	size_t n = 0, m = strlen(event);

	if (m < 7 || strcmp(event + m - 7, "-failed") != 0)
		return warm_hash64(text, strlen(text)) ^ warm_hash64(event, m);

	for (const char *p = text; *p != '\0';) {
		size_t word = 0;
		while (is_word(p[word]))
			word++;
		size_t taken = word > 0 ? word : 1;
		if (word == 0 || !is_number(p, word)) {
			memcpy(plain + n, p, taken);
			n += taken;
		}
		p += taken;
	}
	return warm_hash64(plain, n) ^ warm_hash64(event, m);
}

/* Whether to tell this line; `ret_left_out` counts those like it that were not since the last. */
static bool take_turn(const char *event, const char *text, size_t *ret_left_out)
{
	uint64_t hash = hash_line(event, text);
	int64_t now = warm_clock_ms();
	struct told *mine = &told[0];
	bool tell = true;

	pthread_mutex_lock(&told_lock);
	for (size_t i = 0; i < TOLD; i++) {
		if (told[i].hash == hash && told[i].at_ms != 0) {
			mine = &told[i];
			tell = now - mine->at_ms >= repeat_ms;
			break;
		}
		if (told[i].at_ms < mine->at_ms)
			mine = &told[i]; /* the oldest makes room */
	}
	if (mine->hash != hash)
		*mine = (struct told){ .hash = hash };
	*ret_left_out = mine->left_out;
	if (tell) {
		mine->at_ms = now != 0 ? now : 1;
		mine->left_out = 0;
	} else {
		mine->left_out++;
	}
	pthread_mutex_unlock(&told_lock);
	return tell;
}

/* The bytes of the UTF-8 sequence at `p`, 0 when it is none. */
static size_t utf8_bytes(const unsigned char *p)
{
	static const struct {
		unsigned char mask, head;
		uint32_t least;
	} forms[] = {
		{ 0x80, 0, 0 }, { 0xe0, 0xc0, 0x80 }, { 0xf0, 0xe0, 0x800 }, { 0xf8, 0xf0, 0x10000 }
	};

	for (size_t n = 0; n < 4; n++) {
		if ((p[0] & forms[n].mask) != forms[n].head)
			continue;
		uint32_t code = p[0] & (unsigned char)~forms[n].mask;
		for (size_t i = 1; i <= n; i++) {
			if ((p[i] & 0xc0) != 0x80)
				return 0;
			code = code << 6 | (p[i] & 0x3f);
		}
		return code < forms[n].least || code > 0x10ffff || (code >> 11) == 0x1b ? 0 : n + 1;
	}
	return 0;
}

size_t warm_json_escape(const char *text, char *ret, size_t bytes)
{
	size_t at = 0;

	for (const unsigned char *p = (const unsigned char *)text; *p != '\0';) {
		char one[8];
		size_t taken = utf8_bytes(p);
		if (*p == '"' || *p == '\\')
			snprintf(one, sizeof(one), "\\%c", *p);
		else if (*p == '\n')
			snprintf(one, sizeof(one), "\\n");
		else if (*p < 0x20 || *p == 0x7f || taken == 0)
			snprintf(one, sizeof(one), "\\u%04x", *p);
		else
			snprintf(one, sizeof(one), "%.*s", (int)taken, (const char *)p);
		p += taken > 0 ? taken : 1;
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
	char text[TEXT_BYTES], line[4096], escaped[3000], when[40];
	struct timespec now;
	struct tm tm;
	va_list ap;

	if (level < log_lowest)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	size_t left_out = 0;
	if (repeat_ms > 0 && level >= WARM_LOG_WARN && !take_turn(event, text, &left_out))
		return;
	if (left_out > 0) {
		size_t used = strlen(text);
		snprintf(text + used, sizeof(text) - used, " (%zu more like it before)", left_out);
	}
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
