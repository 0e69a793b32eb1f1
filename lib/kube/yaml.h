/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Manifests: YAML or JSON, many documents, as jansson values; and changed ones written back so that
 * all that didn't change stays as it was, comments and order and quoting included.
 *
 *	warm_yaml_parse()	the documents' values
 *	warm_yaml_rewrite()	a document's text for another value
 *	warm_yaml_emit()	a value as YAML
 *
 * Scalars are resolved as Kubernetes does (YAML 1.1 as of go-yaml: yes and on are booleans, 010 is
 * eight), aliases and merge keys (<<) are expanded, a key that is a whole number or a boolean is its
 * text. What Kubernetes refuses is refused: cycles, other keys that are no strings, numbers that JSON
 * lacks. So are duplicate keys, of which it takes the last.
 *
 * Threads: any number, on different objects.
 */
#ifndef WARM_KUBE_YAML_H
#define WARM_KUBE_YAML_H

#include <jansson.h>

#include "lib/base/buf.h"

enum { WARM_YAML_DEPTH = 100, WARM_YAML_BYTES = 16 << 20 };

/* Read a file, or standard input for "-". */
int warm_yaml_read(const char *path, struct warm_buf *ret_text,
		   struct warm_error *err) WARM_CHECKED;

struct warm_yaml; /* a file of documents */

/* Errors: INVALID with `name`, line and column and what is wrong; LIMIT for more than
 *         WARM_YAML_DEPTH levels, WARM_YAML_BYTES, or aliases that grow beyond it; NO_MEMORY.
 * Owns:   `text` and `name` must outlive it. */
int warm_yaml_parse(const char *name, const char *text, size_t bytes, struct warm_yaml **ret_yaml,
		    struct warm_error *err) WARM_CHECKED;
void warm_yaml_free(struct warm_yaml *yaml);
static inline void warm_yaml_scope(struct warm_yaml **yaml)
{
	warm_yaml_free(*yaml);
}
#define scope_yaml WARM_SCOPE(warm_yaml_scope)

size_t warm_yaml_count(const struct warm_yaml *yaml);
/* The document's value, null for an empty one. Borrowed. */
json_t *warm_yaml_value(const struct warm_yaml *yaml, size_t document);
/* The line on which it begins, from 1. */
size_t warm_yaml_line(const struct warm_yaml *yaml, size_t document);

/* Set the value that a document is to have; it is borrowed until warm_yaml_write(). */
void warm_yaml_replace(struct warm_yaml *yaml, size_t document, json_t *value);

/* Append the whole file, with the replaced documents as text that parses to just their new values. What is
 * equal keeps its bytes. Where that can't be (a change within what an anchor names), the document is
 * written anew, and `ret_anew` counts it. JSON stays JSON. */
int warm_yaml_write(struct warm_yaml *yaml, struct warm_buf *ret_text, size_t *ret_anew,
		    struct warm_error *err) WARM_CHECKED;

/* Append `value` as block YAML, each line indented by `indent` spaces. */
int warm_yaml_emit(const json_t *value, unsigned indent, struct warm_buf *ret_text,
		   struct warm_error *err) WARM_CHECKED;

/* Take apart a JSON text; as for YAML. Owns: the caller decrefs `ret_value`. */
int warm_json_parse(const char *name, const char *text, size_t bytes, json_t **ret_value,
		    struct warm_error *err) WARM_CHECKED;

#endif
