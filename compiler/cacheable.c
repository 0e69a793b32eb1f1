/* SPDX-License-Identifier: Apache-2.0 */
#include "compiler/cacheable.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

struct warm_kernel_text warm_text_trim(struct warm_kernel_text t)
{
	while (t.bytes > 0 && isspace((unsigned char)t.data[0])) {
		t.data++;
		t.bytes--;
	}
	while (t.bytes > 0 && isspace((unsigned char)t.data[t.bytes - 1]))
		t.bytes--;
	return t;
}

bool warm_text_starts_with(struct warm_kernel_text t, const char *prefix)
{
	size_t n = strlen(prefix);

	return t.bytes >= n && memcmp(t.data, prefix, n) == 0;
}

bool warm_text_contains(struct warm_kernel_text t, const char *word)
{
	return memmem(t.data, t.bytes, word, strlen(word)) != NULL;
}

bool warm_text_tells_time(struct warm_kernel_text t)
{
	return warm_text_contains(t, "__TIME__") || warm_text_contains(t, "__DATE__") ||
	       warm_text_contains(t, "__TIMESTAMP__");
}

/* These write files, or read what nobody records; with a precompiled header NVRTC opens next to
 * none of the headers that count. */
static const char *const untraceable[] = { "--time",
					   "-time",
					   "-fdevice-time-trace",
					   "--fdevice-time-trace",
					   "-Xcudafe",
					   "--Xcudafe",
					   "--pch",
					   "-pch",
					   "--create-pch",
					   "-create-pch",
					   "--use-pch",
					   "-use-pch",
					   "--use-bundled-headers",
					   "-use-bundled-headers" };

bool warm_option_is_untraceable(struct warm_kernel_text option)
{
	/* ptxas reads options of its own from a file. */
	if (warm_text_contains(option, "options-file") || warm_text_contains(option, "-optf"))
		return true;
	option = warm_text_trim(option);
	for (size_t i = 0; i < sizeof(untraceable) / sizeof(untraceable[0]); i++)
		if (warm_text_starts_with(option, untraceable[i]))
			return true;
	return false;
}

static const char *const flag_variables[] = { "NVRTC_APPEND_FLAGS=", "NVRTC_PREPEND_FLAGS=" };

static bool variable_is_set(const char *environment, const char *variable)
{
	size_t n = strlen(variable);

	for (const char *line = environment; line != NULL && *line != '\0';) {
		if (strncmp(line, variable, n) == 0)
			return line[n] != '\n' && line[n] != '\0';
		line += strcspn(line, "\n");
		line += *line == '\n';
	}
	return false;
}

enum warm_kernel_reason warm_request_reason(const struct warm_wire_request *q,
					    const char *environment, char ret_why[WARM_WHY_BYTES])
{
	static const char times[] = "uses __TIME__, __DATE__ or __TIMESTAMP__";

	for (size_t i = 0; i < q->n_options; i++) {
		if (warm_option_is_untraceable(q->options[i])) {
			snprintf(ret_why, WARM_WHY_BYTES, "option %.180s", q->options[i].data);
			return WARM_KERNEL_BY_OPTION;
		}
		if (warm_text_tells_time(q->options[i])) {
			snprintf(ret_why, WARM_WHY_BYTES, "option %.100s %s", q->options[i].data,
				 times);
			return WARM_KERNEL_BY_TIME;
		}
	}
	for (size_t i = 0; i < 2; i++)
		if (variable_is_set(environment, flag_variables[i])) {
			snprintf(ret_why, WARM_WHY_BYTES, "%.*s is set",
				 (int)strlen(flag_variables[i]) - 1, flag_variables[i]);
			return WARM_KERNEL_BY_ENVIRONMENT;
		}
	if (environment != NULL && strchr(environment, WARM_NEWLINE_MARK) != NULL) {
		snprintf(ret_why, WARM_WHY_BYTES, "a variable of NVRTC's holds a newline");
		return WARM_KERNEL_BY_ENVIRONMENT;
	}
	if (warm_text_tells_time(q->source)) {
		snprintf(ret_why, WARM_WHY_BYTES, "the source %s", times);
		return WARM_KERNEL_BY_TIME;
	}
	for (size_t i = 0; i < q->n_headers; i++)
		if (warm_text_tells_time(q->headers[i].source)) {
			snprintf(ret_why, WARM_WHY_BYTES, "header %.120s %s",
				 q->headers[i].name.data, times);
			return WARM_KERNEL_BY_TIME;
		}
	return WARM_KERNEL_CACHEABLE;
}
