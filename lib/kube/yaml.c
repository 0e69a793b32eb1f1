/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/kube/yaml.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

enum { MARK_EVERY = 256, MAX_NODES = 1 << 20, NODE_BYTES = 64 };

enum kind { SCALAR, SEQUENCE, MAPPING };

/* A node of the text. Offsets are bytes, [start, end); of a block collection `end` is its last
 * child's. A mapping's children are key, value, key, value, ... */
struct node {
	enum kind kind;
	bool flow, literal, alias;
	size_t start, end, column, line;
	json_t *value;
	struct node **children;
	size_t n, capacity;
	size_t nodes; /* of its value, aliases expanded; a long text counts as several */
};

struct anchor {
	char *name;
	const struct node *node; /* NULL while it is being read: a cycle */
};

struct document {
	struct node *root; /* NULL: empty */
	json_t *value;	   /* owned */
	json_t *wanted;	   /* borrowed; NULL: as it is */
	size_t start, end, line;
	bool json, anew;
};

struct warm_yaml {
	const char *name, *text;
	size_t bytes, bom; /* of these a byte order mark */
	bool crlf;
	struct document *documents;
	size_t n, capacity;
	size_t *marks; /* byte offset of each MARK_EVERY-th character */
	size_t n_marks;
};

struct reader {
	struct warm_yaml *yaml;
	yaml_parser_t parser;
	struct anchor *anchors;
	size_t n_anchors, anchors_capacity;
	size_t nodes;
	struct warm_error *err;
};

struct edit {
	size_t at, remove;
	struct warm_buf text;
};

struct writer {
	const struct warm_yaml *yaml;
	struct edit *edits;
	size_t n, capacity;
	struct warm_error *err;
};

static int grow(void **array, size_t *capacity, size_t n, size_t each, struct warm_error *err)
{
	if (n < *capacity)
		return 0;
	size_t more = *capacity == 0 ? 8 : 2 * *capacity;
	void *p = reallocarray(*array, more, each);
	if (p == NULL)
		return warm_error_nomem(err, more * each);
	*array = p;
	*capacity = more;
	return 0;
}

static void node_free(struct node *node)
{
	if (node == NULL)
		return;
	for (size_t i = 0; i < node->n; i++)
		node_free(node->children[i]);
	free(node->children);
	json_decref(node->value);
	free(node);
}

static void node_scope(struct node **node)
{
	node_free(*node);
}

void warm_yaml_free(struct warm_yaml *yaml)
{
	if (yaml == NULL)
		return;
	for (size_t i = 0; i < yaml->n; i++) {
		node_free(yaml->documents[i].root);
		json_decref(yaml->documents[i].value);
	}
	free(yaml->documents);
	free(yaml->marks);
	free(yaml);
}

/* ---- positions ---- */

static size_t char_bytes(unsigned char c)
{
	return c < 0xc0 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

/* libyaml counts characters. */
static int mark_characters(struct warm_yaml *yaml, struct warm_error *err)
{
	size_t characters = 0;

	yaml->marks = calloc(yaml->bytes / MARK_EVERY + 1, sizeof(*yaml->marks));
	if (yaml->marks == NULL)
		return warm_error_nomem(err, yaml->bytes / MARK_EVERY * sizeof(*yaml->marks));
	for (size_t at = yaml->bom; at < yaml->bytes;
	     at += char_bytes((unsigned char)yaml->text[at])) {
		if (characters % MARK_EVERY == 0)
			yaml->marks[yaml->n_marks++] = at;
		characters++;
	}
	return 0;
}

static size_t offset_of(const struct warm_yaml *yaml, size_t character)
{
	size_t mark = character / MARK_EVERY, left = character % MARK_EVERY;

	if (mark >= yaml->n_marks)
		return yaml->bytes;
	size_t at = yaml->marks[mark];
	for (; left > 0 && at < yaml->bytes; left--)
		at += char_bytes((unsigned char)yaml->text[at]);
	return at < yaml->bytes ? at : yaml->bytes;
}

static size_t line_start(const struct warm_yaml *yaml, size_t at)
{
	while (at > yaml->bom && yaml->text[at - 1] != '\n')
		at--;
	return at;
}

static size_t next_line(const struct warm_yaml *yaml, size_t at)
{
	const char *end = at < yaml->bytes ? memchr(yaml->text + at, '\n', yaml->bytes - at) : NULL;

	return end != NULL ? (size_t)(end - yaml->text) + 1 : yaml->bytes;
}

/* Of a byte. */
static yaml_mark_t mark_of(const struct warm_yaml *yaml, size_t byte)
{
	yaml_mark_t mark = { 0 };

	for (size_t at = yaml->bom; at < yaml->bom + byte && at < yaml->bytes;
	     at += char_bytes((unsigned char)yaml->text[at])) {
		mark.index++;
		mark.column++;
		if (yaml->text[at] != '\n')
			continue;
		mark.column = 0;
		mark.line++;
	}
	return mark;
}

static int bad(const struct reader *r, yaml_mark_t mark, const char *what)
{
	size_t at = offset_of(r->yaml, mark.index), from = line_start(r->yaml, at);
	size_t length = next_line(r->yaml, at) - from;
	bool helm = memmem(r->yaml->text + from, length, "{{", 2) != NULL;

	return warm_error_set(r->err, WARM_INVALID, "%.200s:%zu:%zu: %s%s", r->yaml->name,
			      mark.line + 1, mark.column + 1, what,
			      helm ? " (a template? render it first: helm template)" : "");
}

/* ---- scalars ---- */

static bool one_of(const char *text, const char *const *words)
{
	for (; *words != NULL; words++)
		if (strcmp(text, *words) == 0)
			return true;
	return false;
}

static bool looks_decimal(const char *text)
{
	const char *p = text + (*text == '-' || *text == '+');
	size_t before = strspn(p, "0123456789");

	p += before;
	if (*p == '.')
		p++;
	size_t after = strspn(p, "0123456789");
	if (before + after == 0 || (after == 0 && p[-1] == '.' && before == 0))
		return false;
	p += after;
	if (*p == 'e' || *p == 'E') {
		p++;
		p += *p == '-' || *p == '+';
		size_t digits = strspn(p, "0123456789");
		if (digits == 0)
			return false;
		p += digits;
	}
	return *p == '\0';
}

static bool is_integer(const char *text, long long *ret_value)
{
	const char *digits = text + (*text == '-' || *text == '+');
	bool binary = digits[0] == '0' && (digits[1] == 'b' || digits[1] == 'B');
	bool octal = digits[0] == '0' && (digits[1] == 'o' || digits[1] == 'O');
	char *end;

	if (!isdigit((unsigned char)digits[0]) || (octal && !isdigit((unsigned char)digits[2])))
		return false;
	errno = 0;
	long long v = binary || octal ? strtoll(digits + 2, &end, binary ? 2 : 8)
				      : strtoll(text, &end, 0);
	if ((binary || octal) && *text == '-')
		v = -v;
	if (*end != '\0' || end == digits + (binary || octal ? 2 : 0) || errno != 0)
		return false;
	*ret_value = v;
	return true;
}

/* Numbers that JSON lacks. */
static bool is_infinite(const char *text)
{
	static const char *const words[] = { ".inf",  ".Inf",  ".INF",	"+.inf", "+.Inf",
					     "+.INF", "-.inf", "-.Inf", "-.INF", ".nan",
					     ".NaN",  ".NAN",  NULL };

	return one_of(text, words);
}

/* Whether a plain scalar is no string, by YAML 1.1 as of go-yaml, but what `ret_value` is set to;
 * NULL: no memory. */
static bool resolve(const char *text, size_t bytes, json_t **ret_value)
{
	static const char *const yes[] = { "y",	   "Y",	   "yes", "Yes", "YES", "true",
					   "True", "TRUE", "on",  "On",	 "ON",	NULL };
	static const char *const no[] = { "n",	   "N",	    "no",  "No",  "NO",	 "false",
					  "False", "FALSE", "off", "Off", "OFF", NULL };
	static const char *const nothing[] = { "", "~", "null", "Null", "NULL", NULL };
	char plain[64];
	long long integer;
	size_t n = 0;

	if (strlen(text) != bytes)
		return false;
	if (one_of(text, nothing)) {
		*ret_value = json_null();
		return true;
	}
	if (one_of(text, yes) || one_of(text, no)) {
		*ret_value = json_boolean(one_of(text, yes));
		return true;
	}
	if (bytes >= sizeof(plain) || !(isdigit((unsigned char)text[0]) || strchr("+-.", text[0])))
		return false;
	for (const char *p = text; *p != '\0'; p++)
		if (*p != '_' || p == text)
			plain[n++] = *p;
	plain[n] = '\0';
	if (is_integer(plain, &integer)) {
		*ret_value = json_integer(integer);
		return true;
	}
	if (!looks_decimal(plain) || !isfinite(strtod(plain, NULL)))
		return false;
	*ret_value = json_real(strtod(plain, NULL));
	return true;
}

static bool is_tag(const yaml_char_t *tag, const char *name)
{
	return tag != NULL && strncmp((const char *)tag, "tag:yaml.org,2002:", 18) == 0 &&
	       strcmp((const char *)tag + 18, name) == 0;
}

/* A tag of its own makes a string of what is plain, one of a number a number of what is quoted. */
static bool is_resolved(const yaml_event_t *event)
{
	const yaml_char_t *tag = event->data.scalar.tag;

	if (tag == NULL)
		return event->data.scalar.plain_implicit &&
		       event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	return is_tag(tag, "int") || is_tag(tag, "float") || is_tag(tag, "bool") ||
	       is_tag(tag, "null");
}

static int scalar_value(const struct reader *r, const yaml_event_t *event, json_t **ret_value)
{
	const char *text = (const char *)event->data.scalar.value;
	size_t bytes = event->data.scalar.length;
	json_t *value = NULL;

	if (is_resolved(event) && is_infinite(text))
		return bad(r, event->start_mark, "a number that JSON lacks: it needs quotes");
	if (!is_resolved(event) || !resolve(text, bytes, &value))
		value = json_stringn(text, bytes);
	if (value == NULL)
		return warm_error_nomem(r->err, bytes);
	*ret_value = value;
	return 0;
}

/* ---- reading ---- */

static int next_event(struct reader *r, yaml_event_t *ret_event)
{
	const yaml_parser_t *p = &r->parser;

	if (yaml_parser_parse(&r->parser, ret_event))
		return 0;
	if (p->error == YAML_MEMORY_ERROR)
		return warm_error_nomem(r->err, r->yaml->bytes);
	if (p->error == YAML_READER_ERROR)
		return bad(r, mark_of(r->yaml, p->problem_offset), p->problem);
	char text[256];
	snprintf(text, sizeof(text), "%s%s%s", p->problem, p->context != NULL ? " " : "",
		 p->context != NULL ? p->context : "");
	return bad(r, p->problem_mark, text);
}

static int node_new(struct reader *r, const yaml_event_t *event, enum kind kind,
		    struct node **ret_node)
{
	if (++r->nodes > MAX_NODES)
		return warm_error_set(r->err, WARM_LIMIT, "%.200s: over %d nodes", r->yaml->name,
				      MAX_NODES);
	struct node *node = calloc(1, sizeof(*node));
	if (node == NULL)
		return warm_error_nomem(r->err, sizeof(*node));
	node->kind = kind;
	node->start = offset_of(r->yaml, event->start_mark.index);
	node->end = offset_of(r->yaml, event->end_mark.index);
	node->column = event->start_mark.column;
	node->line = event->start_mark.line;
	node->nodes = 1;
	*ret_node = node;
	return 0;
}

static int add_child(struct reader *r, struct node *parent, struct node *child)
{
	int rc = grow((void **)&parent->children, &parent->capacity, parent->n,
		      sizeof(struct node *), r->err);

	if (rc != 0)
		return rc;
	parent->children[parent->n++] = child;
	parent->nodes += child->nodes;
	return 0;
}

static int begin_anchor(struct reader *r, const yaml_char_t *name)
{
	if (name == NULL)
		return 0;
	int rc = grow((void **)&r->anchors, &r->anchors_capacity, r->n_anchors, sizeof(*r->anchors),
		      r->err);
	if (rc != 0)
		return rc;
	char *copy = strdup((const char *)name);
	if (copy == NULL)
		return warm_error_nomem(r->err, strlen((const char *)name));
	r->anchors[r->n_anchors++] = (struct anchor){ .name = copy };
	return 0;
}

static int read_alias(struct reader *r, const yaml_event_t *event, struct node *node)
{
	const char *name = (const char *)event->data.alias.anchor;

	for (size_t i = r->n_anchors; i-- > 0;) {
		if (strcmp(r->anchors[i].name, name) != 0)
			continue;
		const struct node *named = r->anchors[i].node;
		if (named == NULL)
			return bad(r, event->start_mark, "an alias within what it names");
		r->nodes += named->nodes;
		if (r->nodes > MAX_NODES)
			return warm_error_set(r->err, WARM_LIMIT,
					      "%.200s:%zu: aliases grow beyond %d nodes",
					      r->yaml->name, event->start_mark.line + 1, MAX_NODES);
		node->alias = true;
		node->nodes = named->nodes;
		node->value = json_deep_copy(named->value);
		return node->value != NULL ? 0 : warm_error_nomem(r->err, named->nodes);
	}
	return bad(r, event->start_mark, "an alias that names nothing");
}

static int merge_one(const struct reader *r, json_t *into, json_t *from, yaml_mark_t mark)
{
	if (!json_is_object(from))
		return bad(r, mark, "'<<' needs a mapping");
	return json_object_update_missing(into, from) == 0 ? 0 : warm_error_nomem(r->err, 64);
}

/* Merged keys give way to those that are written, and the first of several counts. */
static int merge(const struct reader *r, struct node *node, yaml_mark_t mark)
{
	int rc = 0;

	for (size_t i = 0; i + 1 < node->n && rc == 0; i += 2) {
		const struct node *key = node->children[i];
		json_t *from = node->children[i + 1]->value, *one;
		size_t at;
		if (key->literal || !json_is_string(key->value) ||
		    strcmp(json_string_value(key->value), "<<") != 0)
			continue;
		if (!json_is_array(from)) {
			rc = merge_one(r, node->value, from, mark);
			continue;
		}
		json_array_foreach(from, at, one)
			if (rc == 0)
				rc = merge_one(r, node->value, one, mark);
	}
	return rc;
}

static int read_node(struct reader *r, const yaml_event_t *event, unsigned depth,
		     struct node **ret_node);

static int read_child(struct reader *r, struct node *parent, yaml_event_type_t end, unsigned depth,
		      bool *ret_ended, yaml_mark_t *ret_mark)
{
	yaml_event_t event;
	struct node *child = NULL;

	int rc = next_event(r, &event);
	if (rc != 0)
		return rc;
	*ret_mark = event.start_mark;
	*ret_ended = event.type == end;
	if (*ret_ended) {
		if (parent->flow || parent->n == 0)
			parent->end = offset_of(r->yaml, event.end_mark.index);
		else
			parent->end = parent->children[parent->n - 1]->end;
	} else {
		rc = read_node(r, &event, depth + 1, &child);
		if (rc == 0)
			rc = add_child(r, parent, child);
		if (rc != 0)
			node_free(child);
	}
	yaml_event_delete(&event);
	return rc;
}

static int read_sequence(struct reader *r, struct node *node, unsigned depth)
{
	bool ended = false;
	yaml_mark_t mark;
	int rc = 0;

	node->value = json_array();
	if (node->value == NULL)
		return warm_error_nomem(r->err, 64);
	while (rc == 0 && !ended) {
		rc = read_child(r, node, YAML_SEQUENCE_END_EVENT, depth, &ended, &mark);
		if (rc == 0 && !ended &&
		    json_array_append(node->value, node->children[node->n - 1]->value) != 0)
			rc = warm_error_nomem(r->err, 64);
	}
	return rc;
}

static int put_member(struct reader *r, struct node *node, yaml_mark_t mark)
{
	const struct node *key = node->children[node->n - 2];
	json_t *value = node->children[node->n - 1]->value;
	const char *name = json_string_value(key->value);

	if (strcmp(name, "<<") == 0 && !key->literal)
		return 0;
	if (json_object_get(node->value, name) != NULL) {
		char text[160];
		snprintf(text, sizeof(text), "the key '%.100s' is there twice", name);
		return bad(r, mark, text);
	}
	return json_object_set(node->value, name, value) == 0 ? 0 : warm_error_nomem(r->err, 64);
}

/* Of a whole number or a boolean Kubernetes makes a string: 8080, and "true" of y. */
static int name_key(const struct reader *r, struct node *key, yaml_mark_t mark)
{
	const json_t *value = key->value;
	bool named = r->n_anchors > 0 && r->anchors[r->n_anchors - 1].node == key;
	char text[32];

	if (json_is_string(value))
		return 0;
	if (named || !(json_is_integer(value) || json_is_boolean(value)))
		return bad(r, mark, "a key that is no string: it needs quotes");
	snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	json_t *name = json_string(json_is_integer(value) ? text
				   : json_is_true(value)  ? "true"
							  : "false");
	if (name == NULL)
		return warm_error_nomem(r->err, sizeof(text));
	json_decref(key->value);
	key->value = name;
	return 0;
}

static int read_mapping(struct reader *r, struct node *node, unsigned depth)
{
	bool ended = false;
	yaml_mark_t mark = { 0 }, key_mark = { 0 };
	int rc = 0;

	node->value = json_object();
	if (node->value == NULL)
		return warm_error_nomem(r->err, 64);
	while (rc == 0) {
		rc = read_child(r, node, YAML_MAPPING_END_EVENT, depth, &ended, &mark);
		if (rc != 0 || ended)
			break;
		if (node->n % 2 == 1) {
			key_mark = mark;
			rc = name_key(r, node->children[node->n - 1], mark);
		} else {
			rc = put_member(r, node, key_mark);
		}
	}
	return rc == 0 ? merge(r, node, mark) : rc;
}

static int read_node(struct reader *r, const yaml_event_t *event, unsigned depth,
		     struct node **ret_node)
{
	WARM_SCOPE(node_scope) struct node *node = NULL;
	const yaml_char_t *anchor = NULL;
	size_t named = r->n_anchors;
	int rc;

	if (depth > WARM_YAML_DEPTH)
		return warm_error_set(r->err, WARM_LIMIT, "%.200s:%zu: over %d levels",
				      r->yaml->name, event->start_mark.line + 1, WARM_YAML_DEPTH);
	switch (event->type) {
	case YAML_ALIAS_EVENT:
		rc = node_new(r, event, SCALAR, &node);
		if (rc == 0)
			rc = read_alias(r, event, node);
		break;
	case YAML_SCALAR_EVENT:
		rc = node_new(r, event, SCALAR, &node);
		if (rc != 0)
			break;
		anchor = event->data.scalar.anchor;
		node->literal = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
		node->flow = event->data.scalar.style == YAML_LITERAL_SCALAR_STYLE ||
			     event->data.scalar.style == YAML_FOLDED_SCALAR_STYLE;
		node->nodes += event->data.scalar.length / NODE_BYTES;
		rc = scalar_value(r, event, &node->value);
		if (rc == 0)
			rc = begin_anchor(r, anchor);
		break;
	case YAML_SEQUENCE_START_EVENT:
		rc = node_new(r, event, SEQUENCE, &node);
		if (rc != 0)
			break;
		anchor = event->data.sequence_start.anchor;
		node->flow = event->data.sequence_start.style == YAML_FLOW_SEQUENCE_STYLE;
		rc = begin_anchor(r, anchor);
		if (rc == 0)
			rc = read_sequence(r, node, depth);
		break;
	case YAML_MAPPING_START_EVENT:
		rc = node_new(r, event, MAPPING, &node);
		if (rc != 0)
			break;
		anchor = event->data.mapping_start.anchor;
		node->flow = event->data.mapping_start.style == YAML_FLOW_MAPPING_STYLE;
		rc = begin_anchor(r, anchor);
		if (rc == 0)
			rc = read_mapping(r, node, depth);
		break;
	default:
		return bad(r, event->start_mark, "unexpected");
	}
	if (rc != 0)
		return rc;
	if (anchor != NULL)
		r->anchors[named].node = node;
	*ret_node = take_ptr(node);
	return 0;
}

static int add_document(struct warm_yaml *yaml, struct document document, struct warm_error *err)
{
	int rc = grow((void **)&yaml->documents, &yaml->capacity, yaml->n, sizeof(*yaml->documents),
		      err);

	if (rc == 0)
		yaml->documents[yaml->n++] = document;
	return rc;
}

static void forget_anchors(struct reader *r)
{
	for (size_t i = 0; i < r->n_anchors; i++)
		free(r->anchors[i].name);
	r->n_anchors = 0;
}

/* The node, then the document's end. */
static int read_document(struct reader *r, const yaml_event_t *begin)
{
	struct document document = { .start = offset_of(r->yaml, begin->start_mark.index) };
	yaml_event_t event;

	int rc = next_event(r, &event);
	if (rc != 0)
		return rc;
	rc = read_node(r, &event, 0, &document.root);
	yaml_event_delete(&event);
	if (rc != 0)
		return rc;
	document.end = document.root->end;
	document.line = document.root->line + 1;
	document.value = json_incref(document.root->value);
	rc = add_document(r->yaml, document, r->err);
	if (rc != 0) {
		node_free(document.root);
		json_decref(document.value);
		return rc;
	}
	rc = next_event(r, &event);
	if (rc == 0)
		yaml_event_delete(&event);
	forget_anchors(r);
	return rc;
}

static int read_stream(struct reader *r)
{
	yaml_event_t event;
	bool ended = false;
	int rc = 0;

	while (rc == 0 && !ended) {
		rc = next_event(r, &event);
		if (rc != 0)
			break;
		ended = event.type == YAML_STREAM_END_EVENT;
		if (event.type == YAML_DOCUMENT_START_EVENT)
			rc = read_document(r, &event);
		yaml_event_delete(&event);
	}
	return rc;
}

static int parse_yaml(struct warm_yaml *yaml, struct warm_error *err)
{
	struct reader r = { .yaml = yaml, .err = err };

	int rc = mark_characters(yaml, err);
	if (rc != 0)
		return rc;
	if (!yaml_parser_initialize(&r.parser))
		return warm_error_nomem(err, sizeof(r.parser));
	yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)yaml->text + yaml->bom,
				     yaml->bytes - yaml->bom);
	rc = read_stream(&r);
	yaml_parser_delete(&r.parser);
	forget_anchors(&r);
	free(r.anchors);
	return rc;
}

/* ---- JSON ---- */

int warm_json_parse(const char *name, const char *text, size_t bytes, json_t **ret_value,
		    struct warm_error *err)
{
	json_error_t problem;
	json_t *value = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &problem);

	if (value == NULL)
		return warm_error_set(err, WARM_INVALID, "%.200s:%d:%d: %s", name, problem.line,
				      problem.column, problem.text);
	*ret_value = value;
	return 0;
}

/* Objects one after the other, as `kubectl get -o json` of several gives. What isn't JSON to the end is
 * YAML, perhaps. */
static bool parse_json(struct warm_yaml *yaml)
{
	size_t at = yaml->bom, line = 1;

	for (;;) {
		json_error_t problem;
		for (; at < yaml->bytes && isspace((unsigned char)yaml->text[at]); at++)
			line += yaml->text[at] == '\n';
		if (at == yaml->bytes)
			return yaml->n > 0;
		if (yaml->text[at] != '{' && yaml->text[at] != '[')
			return false;
		json_t *value = json_loadb(yaml->text + at, yaml->bytes - at,
					   JSON_REJECT_DUPLICATES | JSON_DISABLE_EOF_CHECK,
					   &problem);
		if (value == NULL)
			return false;
		struct document document = { .value = value,
					     .json = true,
					     .start = at,
					     .end = at + (size_t)problem.position,
					     .line = line };
		for (; at < document.end; at++)
			line += yaml->text[at] == '\n';
		if (add_document(yaml, document, NULL) != 0) {
			json_decref(value);
			return false;
		}
	}
}

static void drop_documents(struct warm_yaml *yaml)
{
	for (size_t i = 0; i < yaml->n; i++)
		json_decref(yaml->documents[i].value);
	yaml->n = 0;
}

int warm_yaml_parse(const char *name, const char *text, size_t bytes, struct warm_yaml **ret_yaml,
		    struct warm_error *err)
{
	if (bytes > WARM_YAML_BYTES)
		return warm_error_set(err, WARM_LIMIT, "%.200s: over %d MiB", name,
				      WARM_YAML_BYTES >> 20);
	scope_yaml struct warm_yaml *yaml = calloc(1, sizeof(*yaml));
	if (yaml == NULL)
		return warm_error_nomem(err, sizeof(*yaml));
	yaml->name = name;
	text = bytes > 0 ? text : ""; /* of an empty buffer: NULL */
	yaml->text = text;
	yaml->bytes = bytes;
	yaml->bom = bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
	const char *newline = memchr(text, '\n', bytes);
	yaml->crlf = newline != NULL && newline > text && newline[-1] == '\r';
	if (!parse_json(yaml)) {
		drop_documents(yaml);
		int rc = parse_yaml(yaml, err);
		if (rc != 0)
			return rc;
	}
	*ret_yaml = take_ptr(yaml);
	return 0;
}

size_t warm_yaml_count(const struct warm_yaml *yaml)
{
	return yaml->n;
}

json_t *warm_yaml_value(const struct warm_yaml *yaml, size_t document)
{
	return yaml->documents[document].value;
}

size_t warm_yaml_line(const struct warm_yaml *yaml, size_t document)
{
	return yaml->documents[document].line;
}

void warm_yaml_replace(struct warm_yaml *yaml, size_t document, json_t *value)
{
	yaml->documents[document].wanted = value;
}

int warm_yaml_read(const char *path, struct warm_buf *ret_text, struct warm_error *err)
{
	char data[65536];
	scope_close int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO)
						    : open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : 0;

	while (fd >= 0 && (n = read(fd, data, sizeof(data))) > 0) {
		warm_buf_put(ret_text, data, (size_t)n);
		if (ret_text->bytes > WARM_YAML_BYTES)
			return warm_error_set(err, WARM_LIMIT, "%.200s: over %d MiB", path,
					      WARM_YAML_BYTES >> 20);
	}
	if (n < 0)
		return warm_error_errno(err, errno, "%.200s", path);
	return ret_text->failed ? warm_error_nomem(err, ret_text->bytes) : 0;
}

/* ---- emitting ---- */

static int append(void *arg, unsigned char *data, size_t bytes)
{
	struct warm_buf *text = arg;

	warm_buf_put(text, data, bytes);
	return !text->failed;
}

static bool emit_scalar(yaml_emitter_t *emitter, const char *text, size_t bytes,
			yaml_scalar_style_t style)
{
	yaml_event_t event;

	return yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text,
					    (int)bytes, 1, 1, style) &&
	       yaml_emitter_emit(emitter, &event);
}

/* A date or a time for other readers of YAML 1.1. */
static bool looks_timely(const char *text)
{
	size_t digits = strspn(text, "0123456789");

	return (digits == 4 && text[4] == '-') ||
	       (digits > 0 && text[digits] == ':' && text[strspn(text, "0123456789:.")] == '\0');
}

static bool emit_string(yaml_emitter_t *emitter, const char *text, size_t bytes)
{
	yaml_scalar_style_t style = YAML_ANY_SCALAR_STYLE;
	json_t *other = NULL;

	if (resolve(text, bytes, &other) || is_infinite(text) || looks_timely(text) ||
	    strcmp(text, "<<") == 0 || strcmp(text, "=") == 0)
		style = YAML_DOUBLE_QUOTED_SCALAR_STYLE;
	else if (strchr(text, '\n') != NULL)
		style = YAML_LITERAL_SCALAR_STYLE;
	json_decref(other);
	return emit_scalar(emitter, text, bytes, style);
}

static bool emit_value(yaml_emitter_t *emitter, const json_t *value)
{
	yaml_event_t event;
	char number[32];
	const char *key;
	const json_t *one;
	size_t i;

	switch (json_typeof(value)) {
	case JSON_OBJECT:
		if (!yaml_mapping_start_event_initialize(&event, NULL, NULL, 1,
							 YAML_BLOCK_MAPPING_STYLE) ||
		    !yaml_emitter_emit(emitter, &event))
			return false;
		json_object_foreach((json_t *)(uintptr_t)value, key, one)
			if (!emit_string(emitter, key, strlen(key)) || !emit_value(emitter, one))
				return false;
		return yaml_mapping_end_event_initialize(&event) &&
		       yaml_emitter_emit(emitter, &event);
	case JSON_ARRAY:
		if (!yaml_sequence_start_event_initialize(&event, NULL, NULL, 1,
							  YAML_BLOCK_SEQUENCE_STYLE) ||
		    !yaml_emitter_emit(emitter, &event))
			return false;
		json_array_foreach(value, i, one)
			if (!emit_value(emitter, one))
				return false;
		return yaml_sequence_end_event_initialize(&event) &&
		       yaml_emitter_emit(emitter, &event);
	case JSON_STRING:
		return emit_string(emitter, json_string_value(value), json_string_length(value));
	case JSON_INTEGER:
		snprintf(number, sizeof(number), "%" JSON_INTEGER_FORMAT,
			 json_integer_value(value));
		return emit_scalar(emitter, number, strlen(number), YAML_PLAIN_SCALAR_STYLE);
	case JSON_REAL:
		snprintf(number, sizeof(number), "%.17g", json_real_value(value));
		if (strpbrk(number, ".e") == NULL)
			strcat(number, ".0");
		return emit_scalar(emitter, number, strlen(number), YAML_PLAIN_SCALAR_STYLE);
	case JSON_TRUE:
	case JSON_FALSE:
		return json_is_true(value)
			       ? emit_scalar(emitter, "true", 4, YAML_PLAIN_SCALAR_STYLE)
			       : emit_scalar(emitter, "false", 5, YAML_PLAIN_SCALAR_STYLE);
	default:
		return emit_scalar(emitter, "null", 4, YAML_PLAIN_SCALAR_STYLE);
	}
}

static bool emit_document(yaml_emitter_t *emitter, const json_t *value)
{
	yaml_event_t event;

	return yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING) &&
	       yaml_emitter_emit(emitter, &event) &&
	       yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1) &&
	       yaml_emitter_emit(emitter, &event) && emit_value(emitter, value) &&
	       yaml_document_end_event_initialize(&event, 1) &&
	       yaml_emitter_emit(emitter, &event) && yaml_stream_end_event_initialize(&event) &&
	       yaml_emitter_emit(emitter, &event);
}

static void indent_lines(const struct warm_buf *from, unsigned indent, struct warm_buf *into)
{
	for (size_t at = 0; at < from->bytes;) {
		const char *line = (const char *)from->data + at;
		const char *end = memchr(line, '\n', from->bytes - at);
		size_t length = end != NULL ? (size_t)(end - line) + 1 : from->bytes - at;
		if (*line != '\n')
			warm_buf_printf(into, "%*s", (int)indent, "");
		warm_buf_put(into, line, length);
		at += length;
	}
}

int warm_yaml_emit(const json_t *value, unsigned indent, struct warm_buf *ret_text,
		   struct warm_error *err)
{
	scope_buf struct warm_buf text = WARM_BUF_INIT;
	yaml_emitter_t emitter;

	if (!yaml_emitter_initialize(&emitter))
		return warm_error_nomem(err, sizeof(emitter));
	yaml_emitter_set_output(&emitter, append, &text);
	yaml_emitter_set_unicode(&emitter, 1);
	yaml_emitter_set_width(&emitter, -1);
	yaml_emitter_set_indent(&emitter, 2);
	bool done = emit_document(&emitter, value);
	yaml_emitter_delete(&emitter);
	if (!done || text.failed)
		return warm_error_nomem(err, text.bytes + 64);
	/* An open-ended document is closed by "...": the text goes into another one. */
	if (text.bytes > 4 && memcmp(text.data + text.bytes - 5, "\n...\n", 5) == 0)
		text.bytes -= 4;
	indent_lines(&text, indent, ret_text);
	return ret_text->failed ? warm_error_nomem(err, text.bytes) : 0;
}

/* ---- rewriting ---- */

/* A new edit; its text is to be filled in. NULL: no memory. */
static struct warm_buf *add_edit(struct writer *w, size_t at, size_t remove)
{
	if (grow((void **)&w->edits, &w->capacity, w->n, sizeof(*w->edits), w->err) != 0)
		return NULL;
	w->edits[w->n] = (struct edit){ .at = at, .remove = remove, .text = WARM_BUF_INIT };
	return &w->edits[w->n++].text;
}

static void drop_edits(struct writer *w, size_t n)
{
	while (w->n > n)
		warm_buf_release(&w->edits[--w->n].text);
}

static int put_flow(struct writer *w, struct warm_buf *text, const json_t *value)
{
	scope_free char *dump = json_dumps(value, JSON_ENCODE_ANY);

	if (dump == NULL)
		return warm_error_nomem(w->err, 64);
	warm_buf_put(text, dump, strlen(dump));
	return 0;
}

/* Whether only blanks come before `at` on its line. */
static bool begins_line(const struct warm_yaml *yaml, size_t at)
{
	for (size_t i = line_start(yaml, at); i < at; i++)
		if (yaml->text[i] != ' ')
			return false;
	return true;
}

/* The first byte after the lines of a child of a block collection. A block scalar's end is the
 * beginning of a line already. */
static size_t after(const struct warm_yaml *yaml, const struct node *node)
{
	const struct node *last = node;

	while (!last->flow && last->kind != SCALAR && last->n > 0)
		last = last->children[last->n - 1];
	if (last->kind == SCALAR && last->flow)
		return last->end;
	return next_line(yaml, last->end);
}

/* Comments right above a line belong to what follows. */
static size_t above_comments(const struct warm_yaml *yaml, size_t at)
{
	while (at > 0) {
		size_t line = line_start(yaml, at - 1), i = line;
		while (i < at && yaml->text[i] == ' ')
			i++;
		if (yaml->text[i] != '#')
			break;
		at = line;
	}
	return at;
}

/* Block text as lines of their own at `at`. */
static int insert_lines(struct writer *w, size_t at, const json_t *value, size_t column)
{
	struct warm_buf *text = add_edit(w, at, 0);

	if (text == NULL)
		return WARM_NO_MEMORY;
	if (at > 0 && w->yaml->text[at - 1] != '\n')
		warm_buf_put(text, "\n", 1);
	return warm_yaml_emit(value, (unsigned)column, text, w->err);
}

/* Block text at `at`, the column of what follows it on its line. */
static int insert_before(struct writer *w, size_t at, const json_t *value, size_t column)
{
	scope_buf struct warm_buf lines = WARM_BUF_INIT;
	struct warm_buf *text = add_edit(w, at, 0);

	if (text == NULL)
		return WARM_NO_MEMORY;
	int rc = warm_yaml_emit(value, (unsigned)column, &lines, w->err);
	if (rc != 0)
		return rc;
	warm_buf_put(text, lines.data + column, lines.bytes - column);
	warm_buf_printf(text, "%*s", (int)column, "");
	return 0;
}

/* The entry or item that begins at `from` with its lines, up to `to`. */
static int remove_lines(struct writer *w, size_t from, size_t to)
{
	if (!begins_line(w->yaml, from))
		return warm_error_set(w->err, WARM_UNSUPPORTED, "it shares its line");
	from = line_start(w->yaml, from);
	return add_edit(w, from, to - from) != NULL ? 0 : WARM_NO_MEMORY;
}

static bool is_empty(const json_t *value)
{
	return json_is_null(value) || (json_is_array(value) && json_array_size(value) == 0) ||
	       (json_is_object(value) && json_object_size(value) == 0);
}

static bool is_collection(const json_t *value)
{
	return json_is_array(value) || json_is_object(value);
}

/* Another value altogether. `column`: of the block mapping whose entry it is; -1: none. */
static int replace_node(struct writer *w, const struct node *node, const json_t *wanted, int column)
{
	const struct warm_yaml *yaml = w->yaml;
	size_t start = node->start, end = node->end;

	if (column >= 0 && is_collection(wanted) && !is_empty(wanted) && is_empty(node->value)) {
		/* "key: []" becomes "key:" and lines. */
		while (start > 0 && yaml->text[start - 1] == ' ')
			start--;
		size_t line = next_line(yaml, end);
		bool more = false;
		for (size_t i = end; i < line && !more; i++)
			more = !isspace((unsigned char)yaml->text[i]);
		if (!more && add_edit(w, start, end - start) != NULL)
			return insert_lines(w, line, wanted,
					    (size_t)column + (json_is_object(wanted) ? 2 : 0));
	}
	if (node->kind == SCALAR && node->flow && end > start) /* a block scalar: keep its line */
		end--;
	struct warm_buf *text = add_edit(w, start, end - start);
	if (text == NULL)
		return WARM_NO_MEMORY;
	if (start > 0 && yaml->text[start - 1] == ':')
		warm_buf_put(text, " ", 1);
	if (!json_is_string(wanted) || node->literal)
		return put_flow(w, text, wanted);
	scope_buf struct warm_buf plain = WARM_BUF_INIT;
	int rc = warm_yaml_emit(wanted, 0, &plain, w->err);
	if (rc != 0)
		return rc;
	if (plain.bytes == 0 ||
	    memchr(plain.data, '\n', plain.bytes) != plain.data + plain.bytes - 1)
		return put_flow(w, text, wanted);
	warm_buf_put(text, plain.data, plain.bytes - 1);
	return 0;
}

static int change(struct writer *w, const struct node *node, const json_t *wanted, int column);

static const struct node *entry_of(const struct node *map, const char *name, size_t *ret_i)
{
	for (size_t i = 0; i + 1 < map->n; i += 2) {
		if (strcmp(json_string_value(map->children[i]->value), name) != 0)
			continue;
		*ret_i = i;
		return map->children[i + 1];
	}
	return NULL;
}

static int change_flow_mapping(struct writer *w, const struct node *map, const json_t *wanted)
{
	const char *key;
	const json_t *value;
	size_t at;
	int rc = 0;

	for (size_t i = 0; i + 1 < map->n; i += 2)
		if (json_object_get(wanted, json_string_value(map->children[i]->value)) == NULL)
			return replace_node(w, map, wanted, -1);
	json_object_foreach((json_t *)(uintptr_t)wanted, key, value) {
		const struct node *old = entry_of(map, key, &at);
		if (rc == 0 && old != NULL)
			rc = change(w, old, value, -1);
		if (rc != 0 || old != NULL)
			continue;
		if (json_equal(json_object_get(map->value, key), value))
			continue; /* merged */
		struct warm_buf *text = add_edit(w, map->children[map->n - 1]->end, 0);
		scope_free char *name = NULL;
		json_t *string = json_string(key);
		name = string != NULL ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
		json_decref(string);
		if (text == NULL || name == NULL)
			return warm_error_nomem(w->err, 64);
		warm_buf_printf(text, ", %s: ", name);
		rc = put_flow(w, text, value);
	}
	return rc;
}

static json_t *pair(const char *key, const json_t *value)
{
	json_t *object = json_object();

	if (object != NULL && json_object_set(object, key, (json_t *)(uintptr_t)value) != 0) {
		json_decref(object);
		return NULL;
	}
	return object;
}

static int change_mapping(struct writer *w, const struct node *map, const json_t *wanted)
{
	const char *key;
	const json_t *value;
	size_t column = map->children[0]->column, place = 0, i;
	int rc = 0;

	for (i = 0; i + 1 < map->n && rc == 0; i += 2) {
		key = json_string_value(map->children[i]->value);
		if (json_object_get(wanted, key) == NULL && strcmp(key, "<<") != 0)
			rc = remove_lines(w, map->children[i]->start,
					  after(w->yaml, map->children[i + 1]));
	}
	/* A new key comes after the one that is before it. */
	place = after(w->yaml, map->children[1]);
	json_object_foreach((json_t *)(uintptr_t)wanted, key, value) {
		if (rc != 0)
			break;
		const struct node *old = entry_of(map, key, &i);
		if (old != NULL) {
			rc = change(w, old, value, (int)column);
			place = after(w->yaml, old);
			continue;
		}
		if (json_equal(json_object_get(map->value, key), value))
			continue; /* merged */
		json_t *added = pair(key, value);
		rc = added != NULL ? insert_lines(w, place, added, column)
				   : warm_error_nomem(w->err, 64);
		json_decref(added);
	}
	return rc;
}

static bool same_item(const json_t *a, const json_t *b)
{
	const json_t *name = json_object_get(a, "name");

	return json_equal(a, b) ||
	       (json_is_string(name) && json_equal(name, json_object_get(b, "name")));
}

/* Whether an item without a name may be another one as it was before. */
static bool is_alike(const json_t *a, const json_t *b)
{
	const char *key;
	json_t *value;

	if (json_is_array(a))
		return json_is_array(b);
	if (json_is_string(json_object_get(a, "name")))
		return false;
	json_object_foreach((json_t *)(uintptr_t)a, key, value)
		if (json_object_get(b, key) != NULL)
			return true;
	return false;
}

static bool is_among(const json_t *item, const json_t *list, size_t from)
{
	for (size_t i = from; i < json_array_size(list); i++)
		if (same_item(item, json_array_get(list, i)))
			return true;
	return false;
}

/* The '-' of an item: on its line or, of one that begins below, on a line before. */
static int dash_of(const struct writer *w, const struct node *list, size_t item, size_t *ret_at)
{
	for (size_t line = line_start(w->yaml, list->children[item]->start);;
	     line = line_start(w->yaml, line - 1)) {
		if (line + list->column < w->yaml->bytes &&
		    w->yaml->text[line + list->column] == '-') {
			*ret_at = line + list->column;
			return 0;
		}
		if (line <= list->start)
			return warm_error_set(w->err, WARM_UNSUPPORTED, "a list of a form unknown");
	}
}

static int insert_item(struct writer *w, const struct node *list, size_t before, const json_t *item)
{
	int rc;

	if (list->flow) {
		bool last = before == list->n;
		size_t at = last ? list->children[list->n - 1]->end : list->children[before]->start;
		struct warm_buf *text = add_edit(w, at, 0);
		if (text == NULL)
			return WARM_NO_MEMORY;
		if (last)
			warm_buf_put(text, ", ", 2);
		rc = put_flow(w, text, item);
		if (!last)
			warm_buf_put(text, ", ", 2);
		return rc;
	}
	bool shares_line = false;
	size_t at;
	if (before > 0) {
		at = after(w->yaml, list->children[before - 1]);
	} else {
		rc = dash_of(w, list, 0, &at);
		if (rc != 0)
			return rc;
		shares_line = !begins_line(w->yaml, at);
		if (!shares_line)
			at = above_comments(w->yaml, line_start(w->yaml, at));
	}
	json_t *lines = json_array();
	rc = lines == NULL || json_array_append(lines, (json_t *)(uintptr_t)item) != 0
		     ? warm_error_nomem(w->err, 64)
	     : shares_line ? insert_before(w, at, lines, list->column)
			   : insert_lines(w, at, lines, list->column);
	json_decref(lines);
	return rc;
}

static int remove_items(struct writer *w, const struct node *list, size_t from, size_t to)
{
	int rc = 0;

	for (size_t i = from; i < to && rc == 0; i++) {
		size_t at;
		rc = dash_of(w, list, i, &at);
		if (rc == 0)
			rc = remove_lines(w, at, after(w->yaml, list->children[i]));
	}
	return rc;
}

/* Within it or, where that can't be, as another one. */
static int change_item(struct writer *w, const struct node *list, size_t i, const json_t *item)
{
	size_t n = w->n;

	int rc = change(w, list->children[i], item, -1);
	if (rc != WARM_UNSUPPORTED || list->flow)
		return rc;
	drop_edits(w, n);
	rc = insert_item(w, list, i, item);
	return rc == 0 ? remove_items(w, list, i, i + 1) : rc;
}

static int change_sequence(struct writer *w, const struct node *list, const json_t *wanted)
{
	size_t at = 0, i;
	const json_t *item;
	int rc = 0;

	/* Of a flow list nothing is cut out: it is written anew. */
	json_array_foreach(wanted, i, item) {
		size_t found = at;
		if (rc != 0)
			break;
		while (found < list->n && !same_item(list->children[found]->value, item))
			found++;
		if (found == list->n && at < list->n && is_alike(list->children[at]->value, item) &&
		    !is_among(list->children[at]->value, wanted, i + 1))
			found = at;
		if (found == list->n) {
			rc = insert_item(w, list, at, item);
			continue;
		}
		if (found > at && list->flow)
			return warm_error_set(w->err, WARM_UNSUPPORTED, "a flow list");
		rc = remove_items(w, list, at, found);
		if (rc == 0)
			rc = change_item(w, list, found, item);
		at = found + 1;
	}
	if (rc == 0 && at < list->n && list->flow)
		return warm_error_set(w->err, WARM_UNSUPPORTED, "a flow list");
	return rc == 0 ? remove_items(w, list, at, list->n) : rc;
}

/* Edits that make `node` mean `wanted`; UNSUPPORTED where they can't be had. */
static int change(struct writer *w, const struct node *node, const json_t *wanted, int column)
{
	size_t n = w->n;
	int rc;

	if (json_equal(node->value, wanted))
		return 0;
	if (node->alias)
		return warm_error_set(w->err, WARM_UNSUPPORTED, "an alias");
	if (node->kind == MAPPING && node->n > 0 && json_is_object(wanted) && node->flow)
		return change_flow_mapping(w, node, wanted);
	if (node->kind == MAPPING && node->n > 0 && json_is_object(wanted) && !is_empty(wanted))
		return change_mapping(w, node, wanted);
	if (node->kind != SEQUENCE || !json_is_array(wanted) || is_empty(node->value) ||
	    (is_empty(wanted) && !node->flow))
		return replace_node(w, node, wanted, column);
	rc = change_sequence(w, node, wanted);
	if (rc != WARM_UNSUPPORTED || !node->flow)
		return rc;
	drop_edits(w, n);
	return replace_node(w, node, wanted, column);
}

static int write_json(struct writer *w, const struct document *document)
{
	const struct warm_yaml *yaml = w->yaml;
	const char *brace = yaml->text + document->start + 1;
	size_t flags = JSON_ENCODE_ANY | JSON_COMPACT, spaces;

	if (*brace == '\n' || *brace == '\r') {
		brace += strspn(brace, "\r\n");
		spaces = strspn(brace, " ");
		flags = JSON_ENCODE_ANY | JSON_INDENT(spaces > 0 && spaces < 9 ? spaces : 2);
	}
	scope_free char *dump = json_dumps(document->wanted, flags);
	struct warm_buf *text = add_edit(w, document->start, document->end - document->start);
	if (dump == NULL || text == NULL)
		return warm_error_nomem(w->err, 64);
	warm_buf_put(text, dump, strlen(dump));
	return 0;
}

/* The whole document as new text, comments lost. */
static int write_anew(struct writer *w, const struct document *document)
{
	size_t start = line_start(w->yaml, document->root->start),
	       end = after(w->yaml, document->root);

	if (strncmp(w->yaml->text + start, "---", 3) == 0)
		return warm_error_set(w->err, WARM_UNSUPPORTED,
				      "%.200s:%zu: a document on the line of its '---'",
				      w->yaml->name, document->line);
	struct warm_buf *text = add_edit(w, start, end - start);
	return text != NULL ? warm_yaml_emit(document->wanted, 0, text, w->err) : WARM_NO_MEMORY;
}

static int by_place(const void *a, const void *b)
{
	const struct edit *x = *(const struct edit *const *)a, *y = *(const struct edit *const *)b;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	if ((x->remove == 0) != (y->remove == 0))
		return x->remove == 0 ? -1 : 1; /* what comes in before what goes */
	return x < y ? -1 : x > y;		/* as they were made */
}

static void put_text(struct warm_buf *into, const char *text, size_t bytes, bool crlf)
{
	for (size_t i = 0; i < bytes; i++) {
		if (crlf && text[i] == '\n')
			warm_buf_put(into, "\r", 1);
		warm_buf_put(into, text + i, 1);
	}
}

static int apply(const struct writer *w, struct warm_buf *ret_text)
{
	const struct warm_yaml *yaml = w->yaml;
	scope_free const struct edit **order = calloc(w->n + 1, sizeof(*order));
	size_t at = 0;

	if (order == NULL)
		return warm_error_nomem(w->err, w->n * sizeof(*order));
	for (size_t i = 0; i < w->n; i++)
		order[i] = &w->edits[i];
	qsort(order, w->n, sizeof(*order), by_place);
	for (size_t i = 0; i < w->n; i++) {
		if (order[i]->text.failed)
			return warm_error_nomem(w->err, order[i]->text.bytes);
		if (order[i]->at < at)
			return warm_error_set(w->err, WARM_UNSUPPORTED, "edits meet");
		warm_buf_put(ret_text, yaml->text + at, order[i]->at - at);
		put_text(ret_text, (const char *)order[i]->text.data, order[i]->text.bytes,
			 yaml->crlf);
		at = order[i]->at + order[i]->remove;
	}
	warm_buf_put(ret_text, yaml->text + at, yaml->bytes - at);
	return ret_text->failed ? warm_error_nomem(w->err, yaml->bytes) : 0;
}

/* Of documents that could be written anew. */
static bool write_more_anew(struct warm_yaml *yaml)
{
	bool more = false;

	for (size_t i = 0; i < yaml->n; i++) {
		struct document *d = &yaml->documents[i];
		if (d->wanted == NULL || d->anew || d->json || json_equal(d->value, d->wanted))
			continue;
		d->anew = more = true;
	}
	return more;
}

static int write_once(struct warm_yaml *yaml, struct warm_buf *ret_text, struct warm_error *err)
{
	struct writer w = { .yaml = yaml, .err = err };
	int rc = 0;

	for (size_t i = 0; i < yaml->n && rc == 0; i++) {
		struct document *d = &yaml->documents[i];
		size_t n = w.n;
		if (d->wanted == NULL || json_equal(d->value, d->wanted))
			continue;
		if (d->json) {
			rc = write_json(&w, d);
			continue;
		}
		rc = d->anew ? WARM_UNSUPPORTED : change(&w, d->root, d->wanted, -1);
		if (rc == WARM_UNSUPPORTED) {
			drop_edits(&w, n);
			d->anew = true;
			rc = write_anew(&w, d);
		}
	}
	if (rc == 0)
		rc = apply(&w, ret_text);
	drop_edits(&w, 0);
	free(w.edits);
	return rc;
}

/* Whether the text means what it should; documents that don't are to be written anew. */
static int is_right(struct warm_yaml *yaml, const struct warm_buf *text, bool *ret_right,
		    bool *ret_worth_another, struct warm_error *err)
{
	scope_yaml struct warm_yaml *again = NULL;

	int rc = warm_yaml_parse("", (const char *)text->data, text->bytes, &again, NULL);
	if (rc == WARM_NO_MEMORY)
		return warm_error_nomem(err, text->bytes);
	*ret_right = true;
	*ret_worth_another = false;
	for (size_t i = 0; i < yaml->n; i++) {
		struct document *d = &yaml->documents[i];
		if (rc == 0 && again->n == yaml->n &&
		    json_equal(again->documents[i].value, d->wanted != NULL ? d->wanted : d->value))
			continue;
		*ret_right = false;
		if (d->wanted != NULL && !d->anew && !d->json && !json_equal(d->value, d->wanted)) {
			d->anew = true;
			*ret_worth_another = true;
		}
	}
	return 0;
}

int warm_yaml_write(struct warm_yaml *yaml, struct warm_buf *ret_text, size_t *ret_anew,
		    struct warm_error *err)
{
	scope_buf struct warm_buf text = WARM_BUF_INIT;
	struct warm_error problem;
	bool another = true, right = false;
	int rc = 0;

	while (rc == 0 && another && !right) {
		text.bytes = 0;
		rc = write_once(yaml, &text, &problem);
		if (rc == 0)
			rc = is_right(yaml, &text, &right, &another, &problem);
		else if (rc == WARM_UNSUPPORTED && write_more_anew(yaml))
			rc = 0;
	}
	if (rc == 0 && !right)
		rc = warm_error_set(&problem, WARM_UNSUPPORTED,
				    "%.200s: can't be written so that it means what it should",
				    yaml->name);
	if (rc != 0) {
		if (err != NULL)
			*err = problem;
		return rc;
	}
	warm_buf_put(ret_text, text.data, text.bytes);
	if (ret_text->failed)
		return warm_error_nomem(err, text.bytes);
	*ret_anew = 0;
	for (size_t i = 0; i < yaml->n; i++)
		*ret_anew += yaml->documents[i].anew;
	return 0;
}
