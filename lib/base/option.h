/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One table of options a program: it drives the parser, --help, --print-config and the man page.
 *
 * Order of strength: flag over environment over default, all through one parser. Every table
 * gets --help, --version-info (program version), --print-config, --print-man and --log-format
 * besides its own rows. Values land in the variables that the rows point to.
 *
 * Threads: one thread, at the start of a program.
 */
#ifndef WARM_BASE_OPTION_H
#define WARM_BASE_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/error.h"

enum warm_option_kind {
	WARM_OPTION_STRING,   /* const char ** */
	WARM_OPTION_LIST,     /* struct warm_option_list *; repeatable; comma-separated in env */
	WARM_OPTION_BOOL,     /* bool *; no argument */
	WARM_OPTION_COUNT,    /* uint64_t *; 0 and up */
	WARM_OPTION_DURATION, /* int64_t *, in ms; "30", "30s", "500ms", "5m", "1h", "30d" */
	WARM_OPTION_BYTES,    /* uint64_t *; "16M", "2G", "1024"; powers of 1024 */
	WARM_OPTION_CHOICE,   /* const char **; one of `choices`, separated by '|' */
};

#define WARM_OPTION_LIST_MAX 16

struct warm_option_list {
	const char *items[WARM_OPTION_LIST_MAX];
	size_t n;
	char *from_env; /* what items of a variable point into; lives as long as the program */
};

struct warm_option {
	const char *name; /* long name, without dashes */
	const char *env;  /* environment variable, or NULL */
	enum warm_option_kind kind;
	void *value;
	const char *initial;  /* default as text, through the same parser; NULL: none */
	const char *argument; /* e.g. "DIR"; for CHOICE the choices: "text|json" */
	const char *help;
};

struct warm_program {
	const char *name;    /* "warmcache-init" */
	const char *summary; /* one line */
	const char *usage;   /* "[OPTIONS]", "SUBCOMMAND [OPTIONS]" */
	const char *details; /* paragraphs for --help and the man page, or NULL */
	const struct warm_option *options;
	size_t n_options;
};

enum warm_options_result {
	WARM_OPTIONS_RUN,  /* go on */
	WARM_OPTIONS_DONE, /* --help and the like have printed: exit 0 */
};

/* Parse `argv` (argv[0] is skipped) and the environment. Rows that parsed are set even when a
 * later one is bad, so that a program that fails open knows what it can. `ret_first_operand` is
 * the index of the first argument that is no option. WARM_ variables that no program of ours
 * knows are named in one warning on stderr.
 *
 * Errors: INVALID naming the option, its source (flag or variable), the value and why.
 * Owns:   strings point into argv and the environment; list items of variables live for ever.
 */
int warm_options_parse(const struct warm_program *program, int argc, char **argv,
		       enum warm_options_result *ret_result, int *ret_first_operand,
		       struct warm_error *err) WARM_CHECKED;

/* Parse one value; exposed for tests and fuzzing. */
int warm_option_set(const struct warm_option *option, const char *text,
		    struct warm_error *err) WARM_CHECKED;

extern const char warm_version[];

#endif
