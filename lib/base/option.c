/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/option.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/log.h"

#ifndef WARM_VERSION
#define WARM_VERSION "0.0.0"
#endif

const char warm_version[] = WARM_VERSION;

enum { MAX_OPTIONS = 48 };

enum source { FROM_DEFAULT, FROM_ENV, FROM_FLAG };

static const char *log_format;

static const struct warm_option log_format_row = {
	"log-format",
	"WARM_LOG_FORMAT",
	WARM_OPTION_CHOICE,
	&log_format,
	"text",
	"text|json",
	"Lines on stderr: text for people, or one JSON object a line.",
};

/* Variables of ours that are no row of the program at hand. */
static const char *const known_env[] = {
	"WARM_STORE",	       "WARM_MODEL",
	"WARM_VERSION",	       "WARM_PLATFORM",
	"WARM_VOLUME",	       "WARM_PROFILE",
	"WARM_FALLBACK",       "WARM_DEADLINE",
	"WARM_JOBS",	       "WARM_REQUIRE",
	"WARM_RESULT",	       "WARM_RESTORE_MAX_BYTES",
	"WARM_SETTLE",	       "WARM_INTERVAL",
	"WARM_COMPLETE_AFTER", "WARM_LOG_FORMAT",
	"WARM_MAX_FILE_BYTES", "WARM_CACHE_DIR",
	"WARM_NVRTC_LIBRARY",  "WARM_NVRTC_HELPER",
	"WARM_COMPILER_LOG",   "WARM_COMPILER_MAX_BYTES",
	"WARM_NVRTC",	       "WARM_COMPILER_LIBRARY",
	"WARM_NEAR_MAX_BYTES", "WARM_NEAR_AFTER",
	"WARM_READY_URL",      "WARM_READY_MATCH",
	"WARM_READY_WITHIN",   "WARM_SPREAD",
	"WARM_CPU_LIMIT",      "WARM_LISTEN",
	"WARM_ALLOW_SECRETS",  "WARM_MODE",
	"WARM_IMAGE",
};

static int parse_number(const char *text, uint64_t *ret_number, const char **ret_rest)
{
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return -1;
	errno = 0;
	unsigned long long v = strtoull(text, &end, 10);
	if (errno != 0)
		return -1;
	*ret_number = v;
	*ret_rest = end;
	return 0;
}

static int parse_unit(const char *rest, const char *const *units, const uint64_t *factors,
		      uint64_t number, uint64_t max, uint64_t *ret_value)
{
	for (size_t i = 0; units[i] != NULL; i++) {
		if (strcmp(rest, units[i]) != 0)
			continue;
		if (number > max / factors[i])
			return -1;
		*ret_value = number * factors[i];
		return 0;
	}
	return -1;
}

static bool is_choice(const char *choices, const char *text)
{
	size_t n = strlen(text);

	for (const char *p = choices; p != NULL;) {
		size_t m = strcspn(p, "|");
		if (m == n && memcmp(p, text, n) == 0)
			return true;
		p = p[m] == '|' ? p + m + 1 : NULL;
	}
	return false;
}

int warm_option_set(const struct warm_option *option, const char *text, struct warm_error *err)
{
	static const char *const time_units[] = { "", "ms", "s", "m", "h", "d", NULL };
	static const uint64_t time_factors[] = { 1000, 1, 1000, 60000, 3600000, 86400000 };
	static const char *const byte_units[] = { "", "K", "M", "G", "T", "Ki", "Mi", "Gi", NULL };
	static const uint64_t byte_factors[] = { 1,	     1 << 10, 1 << 20, 1 << 30,
						 1ull << 40, 1 << 10, 1 << 20, 1 << 30 };
	const char *rest = "";
	uint64_t number = 0, value = 0;

	switch (option->kind) {
	case WARM_OPTION_STRING:
		*(const char **)option->value = text;
		return 0;
	case WARM_OPTION_LIST: {
		struct warm_option_list *list = option->value;
		if (list->n == WARM_OPTION_LIST_MAX)
			return warm_error_set(err, WARM_INVALID, "given more than %d times",
					      WARM_OPTION_LIST_MAX);
		list->items[list->n++] = text;
		return 0;
	}
	case WARM_OPTION_BOOL:
		if (strcmp(text, "true") == 0 || strcmp(text, "1") == 0) {
			*(bool *)option->value = true;
			return 0;
		}
		if (strcmp(text, "false") == 0 || strcmp(text, "0") == 0 || text[0] == '\0') {
			*(bool *)option->value = false;
			return 0;
		}
		return warm_error_set(err, WARM_INVALID, "'%.64s' is neither true nor false", text);
	case WARM_OPTION_COUNT:
		if (parse_number(text, &number, &rest) != 0 || *rest != '\0')
			return warm_error_set(err, WARM_INVALID, "'%.64s' is no whole number",
					      text);
		*(uint64_t *)option->value = number;
		return 0;
	case WARM_OPTION_DURATION:
		if (parse_number(text, &number, &rest) != 0 ||
		    parse_unit(rest, time_units, time_factors, number, INT64_MAX / 4, &value) != 0)
			return warm_error_set(
				err, WARM_INVALID,
				"'%.64s' is no duration (30, 30s, 500ms, 5m, 1h, 30d)", text);
		*(int64_t *)option->value = (int64_t)value;
		return 0;
	case WARM_OPTION_BYTES:
		if (parse_number(text, &number, &rest) != 0 ||
		    parse_unit(rest, byte_units, byte_factors, number, INT64_MAX, &value) != 0)
			return warm_error_set(err, WARM_INVALID,
					      "'%.64s' is no size (1024, 16M, 2G)", text);
		*(uint64_t *)option->value = value;
		return 0;
	case WARM_OPTION_CHOICE:
		if (!is_choice(option->argument, text))
			return warm_error_set(err, WARM_INVALID, "'%.64s' is none of %s", text,
					      option->argument);
		*(const char **)option->value = text;
		return 0;
	}
	return warm_error_set(err, WARM_INVALID, "unknown kind of option");
}

static void wrap(const char *text, int indent, int at)
{
	int width = 78;

	while (*text != '\0') {
		size_t n = strcspn(text, " \n");
		if (at + (int)n > width && at > indent) {
			printf("\n%*s", indent, "");
			at = indent;
		}
		printf("%.*s", (int)n, text);
		at += (int)n;
		text += n;
		if (*text == '\n') {
			printf("\n%*s", indent, "");
			at = indent;
			text++;
		} else if (*text == ' ') {
			if (at < width)
				putchar(' ');
			at++;
			text++;
		}
	}
	putchar('\n');
}

static void print_help(const struct warm_program *program, const struct warm_option *const *rows,
		       size_t n)
{
	printf("%s - %s\n\nusage: %s ", program->name, program->summary, program->name);
	wrap(program->usage, 7, 8 + (int)strlen(program->name));
	putchar('\n');
	if (program->details != NULL) {
		wrap(program->details, 0, 0);
		putchar('\n');
	}
	for (size_t i = 0; i < n; i++) {
		const struct warm_option *o = rows[i];
		printf("  --%s%s%s\n      ", o->name, o->argument != NULL ? " " : "",
		       o->argument != NULL ? o->argument : "");
		wrap(o->help, 6, 6);
		if (o->env != NULL || o->initial != NULL) {
			printf("      [");
			if (o->env != NULL)
				printf("environment: %s", o->env);
			if (o->initial != NULL)
				printf("%sdefault: %s", o->env != NULL ? "; " : "", o->initial);
			printf("]\n");
		}
	}
	printf("  --help, --version-info, --print-config, --print-man\n"
	       "      Print what the name says and exit.\n");
}

static void man_text(const char *text)
{
	bool line_start = true;

	for (; *text != '\0'; text++) {
		if (line_start && (*text == '.' || *text == '\''))
			printf("\\&");
		if (*text == '\\')
			printf("\\e");
		else if (*text == '-')
			printf("\\-");
		else
			putchar(*text);
		line_start = *text == '\n';
	}
}

static void print_man(const struct warm_program *program, const struct warm_option *const *rows,
		      size_t n)
{
	printf(".TH %s 1 \"\" \"warmcache %s\"\n.SH NAME\n%s \\- ", program->name, warm_version,
	       program->name);
	man_text(program->summary);
	printf("\n.SH SYNOPSIS\n.B %s\n", program->name);
	man_text(program->usage);
	printf("\n");
	if (program->details != NULL) {
		printf(".SH DESCRIPTION\n");
		man_text(program->details);
		printf("\n");
	}
	printf(".SH OPTIONS\n");
	for (size_t i = 0; i < n; i++) {
		const struct warm_option *o = rows[i];
		printf(".TP\n.B \\-\\-");
		man_text(o->name);
		if (o->argument != NULL) {
			putchar(' ');
			man_text(o->argument);
		}
		putchar('\n');
		man_text(o->help);
		if (o->initial != NULL) {
			printf(" Default: ");
			man_text(o->initial);
			putchar('.');
		}
		if (o->env != NULL)
			printf(" Environment: %s.", o->env);
		putchar('\n');
	}
}

static void print_value(const struct warm_option *o)
{
	switch (o->kind) {
	case WARM_OPTION_STRING:
	case WARM_OPTION_CHOICE: {
		const char *s = *(const char *const *)o->value;
		printf("%s", s != NULL ? s : "");
		break;
	}
	case WARM_OPTION_LIST: {
		const struct warm_option_list *list = o->value;
		for (size_t i = 0; i < list->n; i++)
			printf("%s%s", i > 0 ? "," : "", list->items[i]);
		break;
	}
	case WARM_OPTION_BOOL:
		printf("%s", *(const bool *)o->value ? "true" : "false");
		break;
	case WARM_OPTION_DURATION:
		printf("%lldms", (long long)*(const int64_t *)o->value);
		break;
	case WARM_OPTION_COUNT:
	case WARM_OPTION_BYTES:
		printf("%llu", (unsigned long long)*(const uint64_t *)o->value);
		break;
	}
}

static void keep_first(struct warm_error *first, const struct warm_error *err)
{
	if (first->status == WARM_OK)
		*first = *err;
}

static void set_from_env(const struct warm_option *o, const char *text, struct warm_error *first)
{
	struct warm_error err = { 0 };

	if (o->kind != WARM_OPTION_LIST) {
		if (warm_option_set(o, text, &err) != 0) {
			warm_error_context(&err, "%s", o->env);
			keep_first(first, &err);
		}
		return;
	}
	char *copy = strdup(text);
	char *save = NULL;
	((struct warm_option_list *)o->value)->from_env = copy;
	if (copy == NULL) {
		(void)warm_error_nomem(first, strlen(text));
		return;
	}
	for (char *item = strtok_r(copy, ",", &save); item != NULL;
	     item = strtok_r(NULL, ",", &save))
		if (warm_option_set(o, item, &err) != 0) {
			warm_error_context(&err, "%s", o->env);
			keep_first(first, &err);
		}
}

static bool env_is_known(const char *name, size_t n, const struct warm_option *const *rows,
			 size_t n_rows)
{
	for (size_t i = 0; i < n_rows; i++)
		if (rows[i]->env != NULL && strlen(rows[i]->env) == n &&
		    memcmp(rows[i]->env, name, n) == 0)
			return true;
	for (size_t i = 0; i < sizeof(known_env) / sizeof(known_env[0]); i++)
		if (strlen(known_env[i]) == n && memcmp(known_env[i], name, n) == 0)
			return true;
	return false;
}

static void warn_unknown_env(const struct warm_option *const *rows, size_t n_rows)
{
	extern char **environ;

	for (char **e = environ; *e != NULL; e++) {
		size_t n = strcspn(*e, "=");
		if (strncmp(*e, "WARM_", 5) == 0 && !env_is_known(*e, n, rows, n_rows))
			warm_log(WARM_LOG_WARN, "environment", "%.*s is no variable of warmcache",
				 (int)n, *e);
	}
}

int warm_options_parse(const struct warm_program *program, int argc, char **argv,
		       enum warm_options_result *ret_result, int *ret_first_operand,
		       struct warm_error *err)
{
	const struct warm_option *rows[MAX_OPTIONS + 1];
	enum source sources[MAX_OPTIONS + 1] = { 0 };
	struct option longs[MAX_OPTIONS + 6] = { 0 };
	struct warm_error first = { 0 }, one = { 0 };
	size_t n = 0;
	int help = 0, print_config = 0, manual = 0, version = 0;

	for (size_t i = 0; i < program->n_options && n < MAX_OPTIONS; i++)
		rows[n++] = &program->options[i];
	rows[n++] = &log_format_row;
	for (size_t i = 0; i < n; i++)
		longs[i] = (struct option){
			.name = rows[i]->name,
			.has_arg = rows[i]->kind == WARM_OPTION_BOOL ? no_argument
								     : required_argument,
			.val = (int)(1000 + i),
		};
	longs[n] = (struct option){ "help", no_argument, &help, 1 };
	longs[n + 1] = (struct option){ "print-config", no_argument, &print_config, 1 };
	longs[n + 2] = (struct option){ "print-man", no_argument, &manual, 1 };
	longs[n + 3] = (struct option){ "version-info", no_argument, &version, 1 };

	for (size_t i = 0; i < n; i++) {
		if (rows[i]->initial != NULL &&
		    warm_option_set(rows[i], rows[i]->initial, &one) != 0) {
			warm_error_context(&one, "default of --%s", rows[i]->name);
			keep_first(&first, &one);
		}
		const char *text = rows[i]->env != NULL ? getenv(rows[i]->env) : NULL;
		if (text == NULL)
			continue;
		sources[i] = FROM_ENV;
		set_from_env(rows[i], text, &first);
	}

	optind = 0;
	opterr = 0;
	int c, index;
	while ((c = getopt_long(argc, argv, ":", longs, &index)) != -1) {
		if (c == 0)
			continue;
		if (c == ':' || c == '?') {
			char bundled[3] = { '-', (char)optopt, '\0' };
			/* Inside a bundle of short flags optind still points before it. */
			const char *what = optopt > 0 && optopt < 1000 ? bundled : argv[optind - 1];
			(void)warm_error_set(&one, WARM_INVALID,
					     c == ':' ? "%.64s: needs a value"
						      : "%.64s: unknown or ambiguous flag",
					     what);
			keep_first(&first, &one);
			continue;
		}
		size_t i = (size_t)c - 1000;
		if (rows[i]->kind == WARM_OPTION_LIST && sources[i] != FROM_FLAG)
			((struct warm_option_list *)rows[i]->value)->n = 0;
		sources[i] = FROM_FLAG;
		if (warm_option_set(rows[i], optarg != NULL ? optarg : "true", &one) != 0) {
			warm_error_context(&one, "--%s", rows[i]->name);
			keep_first(&first, &one);
		}
	}
	if (ret_first_operand != NULL)
		*ret_first_operand = optind;
	else if (optind < argc) {
		(void)warm_error_set(&one, WARM_INVALID, "%.64s: unexpected argument",
				     argv[optind]);
		keep_first(&first, &one);
	}
	warm_log_setup(program->name, log_format != NULL && strcmp(log_format, "json") == 0,
		       WARM_LOG_INFO);
	warn_unknown_env(rows, n);

	*ret_result = WARM_OPTIONS_DONE;
	if (help) {
		print_help(program, rows, n);
		return 0;
	}
	if (manual) {
		print_man(program, rows, n);
		return 0;
	}
	if (version) {
		printf("%s %s\n", program->name, warm_version);
		return 0;
	}
	if (first.status != WARM_OK) {
		*ret_result = WARM_OPTIONS_RUN;
		if (err != NULL)
			*err = first;
		return first.status;
	}
	if (print_config) {
		static const char *const names[] = { "default", "environment", "flag" };
		for (size_t i = 0; i < n; i++) {
			printf("%s=", rows[i]->name);
			print_value(rows[i]);
			printf("\t# %s\n", names[sources[i]]);
		}
		return 0;
	}
	*ret_result = WARM_OPTIONS_RUN;
	return 0;
}
