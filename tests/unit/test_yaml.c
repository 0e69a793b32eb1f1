/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <stdlib.h>

#include "lib/kube/yaml.h"

static struct warm_yaml *parsed(const char *text)
{
	struct warm_error err = { 0 };
	struct warm_yaml *yaml = NULL;

	if (warm_yaml_parse("f", text, strlen(text), &yaml, &err) != 0)
		fail_msg("%s of:\n%s", err.msg, text);
	return yaml;
}

static json_t *json(const char *text)
{
	json_t *value = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);

	if (value == NULL)
		fail_msg("no JSON: %s", text);
	return value;
}

static char *dump(const json_t *value)
{
	return json_dumps(value, JSON_ENCODE_ANY);
}

static void assert_value(const json_t *have, const char *want, const char *of)
{
	json_t *value = json(want);

	if (!json_equal(have, value) || json_typeof(have) != json_typeof(value)) {
		scope_free char *text = dump(have);
		fail_msg("%s\nand not %s, of:\n%s", text, want, of);
	}
	json_decref(value);
}

static void assert_read(const char *text, const char *want)
{
	scope_yaml struct warm_yaml *yaml = parsed(text);

	assert_int_equal(warm_yaml_count(yaml), 1);
	assert_value(warm_yaml_value(yaml, 0), want, text);
}

static void assert_refused(const char *text, size_t bytes, int status, const char *msg)
{
	struct warm_error err = { 0 };
	struct warm_yaml *yaml = NULL;

	assert_int_equal(warm_yaml_parse("f", text, bytes, &yaml, &err), status);
	assert_int_equal(err.status, status);
	assert_null(yaml);
	if (strcmp(err.msg, msg) != 0)
		fail_msg("'%s'\nand not '%s', of:\n%s", err.msg, msg, text);
}

/* The text with `wanted` in place of the first document; the caller frees it. */
static char *written(const char *text, json_t *wanted, size_t *ret_anew)
{
	scope_yaml struct warm_yaml *yaml = parsed(text);
	scope_buf struct warm_buf out = WARM_BUF_INIT;
	struct warm_error err = { 0 };

	warm_yaml_replace(yaml, 0, wanted);
	if (warm_yaml_write(yaml, &out, ret_anew, &err) != 0)
		fail_msg("%s of:\n%s", err.msg, text);
	assert_int_equal(err.status, 0);
	warm_buf_put_u8(&out, '\0');
	scope_yaml struct warm_yaml *again = parsed((const char *)out.data);
	if (!json_equal(warm_yaml_value(again, 0), wanted))
		fail_msg("another value:\n%s", (const char *)out.data);
	return (char *)take_ptr(out.data);
}

static void assert_written(const char *text, const char *want, const char *out, size_t want_anew)
{
	json_t *wanted = json(want);
	size_t anew = 99;
	scope_free char *have = written(text, wanted, &anew);

	if (strcmp(have, out) != 0)
		fail_msg("\n%s\nand not\n%s\nof\n%s", have, out, text);
	if (anew != want_anew)
		fail_msg("%zu anew of:\n%s", anew, text);
	json_decref(wanted);
}

/* ---- reading ---- */

/* As sigs.k8s.io/yaml 1.6 reads them. */
TEST(plain_and_tagged_scalars_are_resolved_as_kubernetes_does)
{
	static const struct {
		const char *text, *want;
	} rows[] = {
		{ "y", "true" },
		{ "Y", "true" },
		{ "n", "false" },
		{ "N", "false" },
		{ "yes", "true" },
		{ "Yes", "true" },
		{ "YES", "true" },
		{ "yEs", "\"yEs\"" },
		{ "no", "false" },
		{ "on", "true" },
		{ "On", "true" },
		{ "ON", "true" },
		{ "off", "false" },
		{ "OFF", "false" },
		{ "true", "true" },
		{ "True", "true" },
		{ "TRUE", "true" },
		{ "tRue", "\"tRue\"" },
		{ "false", "false" },
		{ "null", "null" },
		{ "Null", "null" },
		{ "NULL", "null" },
		{ "~", "null" },
		{ "nULL", "\"nULL\"" },
		{ "0", "0" },
		{ "1", "1" },
		{ "-1", "-1" },
		{ "+1", "1" },
		{ "007", "7" },
		{ "010", "8" },
		{ "-010", "-8" },
		{ "+010", "8" },
		{ "08", "8.0" },
		{ "09", "9.0" },
		{ "0o17", "15" },
		{ "0O17", "15" },
		{ "-0o17", "-15" },
		{ "+0o17", "15" },
		{ "0x1f", "31" },
		{ "0X1F", "31" },
		{ "-0x1F", "-31" },
		{ "+0x1f", "31" },
		{ "0x", "\"0x\"" },
		{ "0b1", "1" },
		{ "0B11", "3" },
		{ "-0b11", "-3" },
		{ "+0b1", "1" },
		{ "0b", "\"0b\"" },
		{ "0b2", "\"0b2\"" },
		{ "0b-1", "-1" },
		{ "0o-1", "\"0o-1\"" },
		{ "0x-1", "\"0x-1\"" },
		{ "0o8", "\"0o8\"" },
		{ "0x_1", "1" },
		{ "1_000", "1000" },
		{ "_1", "\"_1\"" },
		{ "1__0", "10" },
		{ "1_", "1" },
		{ "0_7", "7" },
		{ "1e3", "1000.0" },
		{ "1E3", "1000.0" },
		{ "1e+3", "1000.0" },
		{ "1e-3", "0.001" },
		{ "1.5", "1.5" },
		{ ".5", "0.5" },
		{ "-.5", "-0.5" },
		{ "+.5", "0.5" },
		{ "5.", "5.0" },
		{ ".", "\".\"" },
		{ "..", "\"..\"" },
		{ "-.", "\"-.\"" },
		{ "+.", "\"+.\"" },
		{ "+", "\"+\"" },
		{ "1.e3", "1000.0" },
		{ ".e3", "\".e3\"" },
		{ "1e", "\"1e\"" },
		{ "1.5e", "\"1.5e\"" },
		{ "1.5e+", "\"1.5e+\"" },
		{ "inf", "\"inf\"" },
		{ "nan", "\"nan\"" },
		{ "Infinity", "\"Infinity\"" },
		{ "1.2.3", "\"1.2.3\"" },
		{ "1:30", "\"1:30\"" },
		{ "12:30:45", "\"12:30:45\"" },
		{ "190:20:30", "\"190:20:30\"" },
		{ "2001-12-14", "\"2001-12-14\"" },
		{ "2001-12-14t21:59:43.10-05:00", "\"2001-12-14t21:59:43.10-05:00\"" },
		{ "2001-12-14T21:59:43Z", "\"2001-12-14T21:59:43Z\"" },
		{ "2020-1-1", "\"2020-1-1\"" },
		{ "9223372036854775807", "9223372036854775807" },
		{ "9223372036854775808", "9.223372036854776e+18" },
		{ "-9223372036854775808", "-9223372036854775808" },
		{ "0x7fffffffffffffff", "9223372036854775807" },
		{ "1e400", "\"1e400\"" },
		{ "-1e400", "\"-1e400\"" },
		{ "123456789012345678901234567890", "1.2345678901234568e+29" },
		{ "0.1", "0.1" },
		{ "-0", "0" },
		{ "-0.0", "-0.0" },
		{ "+0", "0" },
		{ "0.0", "0.0" },
		{ "1_0.5", "10.5" },
		{ "1.5_0", "1.5" },
		{ "1,000", "\"1,000\"" },
		{ "=", "\"=\"" },
		{ "<<", "\"<<\"" },
		{ "0x1p3", "\"0x1p3\"" },
		{ "0x1.8p1", "\"0x1.8p1\"" },
		{ "0b1.1", "\"0b1.1\"" },
		{ "\331\241", "\"\331\241\"" },
		{ "1e3_0", "1e+30" },
		{ "0888", "888.0" },
		{ "0777777777777777777777", "9223372036854775807" },
		{ "00", "0" },
		{ "-00", "0" },
		{ "0_0", "0" },
		{ "0o", "\"0o\"" },
		{ "1d", "\"1d\"" },
		{ "1f", "\"1f\"" },
		{ "0e0", "0.0" },
		{ "0e", "\"0e\"" },
		{ "00.5", "0.5" },
		{ "01.5", "1.5" },
		{ "01e3", "1000.0" },
		{ "08.5", "8.5" },
		{ "1.0", "1.0" },
		{ "100.0", "100.0" },
		{ "1e2", "100.0" },
		{ "3.0e0", "3.0" },
		{ "0o1_7", "15" },
		{ "0b1_0", "2" },
		{ "0x1_f", "31" },
		{ "-0b1_0", "-2" },
		{ "+_1", "1" },
		{ "-_1", "-1" },
		{ "+-1", "\"+-1\"" },
		{ "--1", "\"--1\"" },
		{ "-+1", "\"-+1\"" },
		{ "0o+7", "\"0o+7\"" },
		{ "0b+1", "1" },
		{ "+0x-1", "\"+0x-1\"" },
		{ "0x+1", "\"0x+1\"" },
		{ "1e1000", "\"1e1000\"" },
		{ "6.02e23", "6.02e+23" },
		{ ".1_5", "0.15" },
		{ ".5.", "\".5.\"" },
		{ "12e03", "12000.0" },
		{ "1e_3", "1000.0" },
		{ "!!str", "\"\"" },
		{ "1", "1" },
		{ "!!str 1", "\"1\"" },
		{ "!!int 1", "1" },
		{ "!!int '1'", "1" },
		{ "!!float 1", "1" },
		{ "!!float 1.5", "1.5" },
		{ "!!bool yes", "true" },
		{ "!!null ''", "null" },
		{ "!!str yes", "\"yes\"" },
		{ "!!str", "\"\"" },
		{ "!foo 1", "\"1\"" },
		{ "! 1", "\"1\"" },
		{ "!!str [1]", "[1]" },
		{ "!!map {}", "{}" },
		{ "!!seq []", "[]" },
		{ "!!set {a}", "{\"a\": null}" },
		{ "!!timestamp 2001-12-14", "\"2001-12-14\"" },
		{ "!<tag:yaml.org,2002:str> 5", "\"5\"" },
		{ "!!str 'a'", "\"a\"" },
		{ "!!bool 'true'", "true" },
		{ "!!float '1'", "1" },
		{ "!!bool true", "true" },
		{ "!!int 010", "8" },
		{ "!!float 010", "8" },
		{ "!!str ~", "\"~\"" },
		{ "!!merge x", "\"x\"" },
		{ "!!omap [a: 1]", "[{\"a\": 1}]" },
	};
	char text[256];

	for (size_t i = 0; i < COUNT(rows); i++) {
		snprintf(text, sizeof(text), "a: %s", rows[i].text);
		scope_yaml struct warm_yaml *yaml = parsed(text);
		assert_value(json_object_get(warm_yaml_value(yaml, 0), "a"), rows[i].want, text);
	}
}

/* As sigs.k8s.io/yaml 1.6 reads them. */
TEST(styles_anchors_merges_and_keys_are_read_as_kubernetes_does)
{
	static const struct {
		const char *text, *want;
	} rows[] = {
		{ "a: 'it''s'", "{\"a\": \"it's\"}" },
		{ "a: \"x\\\n  y\"", "{\"a\": \"xy\"}" },
		{ "a: \"x\n\n  y\"", "{\"a\": \"x\\ny\"}" },
		{ "a: 'x\n  y'", "{\"a\": \"x y\"}" },
		{ "a: x\n  y\n\n  z", "{\"a\": \"x y\\nz\"}" },
		{ "a: |\n  x\n  y\n", "{\"a\": \"x\\ny\\n\"}" },
		{ "a: |\n  x\n\n\n", "{\"a\": \"x\\n\"}" },
		{ "a: |-\n  x\n\n", "{\"a\": \"x\"}" },
		{ "a: |+\n  x\n\n", "{\"a\": \"x\\n\\n\"}" },
		{ "a: >\n  x\n  y\n\n  z\n", "{\"a\": \"x y\\nz\\n\"}" },
		{ "a: >-\n  x\n   y\n  z", "{\"a\": \"x\\n y\\nz\"}" },
		{ "a: >+\n  x\n\nb: 1", "{\"a\": \"x\\n\\n\", \"b\": 1}" },
		{ "a: |2\n   x\n  y", "{\"a\": \" x\\ny\"}" },
		{ "a: |1\n x", "{\"a\": \"x\"}" },
		{ "a: |+1\n  x\n\n", "{\"a\": \" x\\n\\n\"}" },
		{ "a: |1-\n  x\n\n", "{\"a\": \" x\"}" },
		{ "a: |\n", "{\"a\": \"\"}" },
		{ "a: |\nb: 1", "{\"a\": \"\", \"b\": 1}" },
		{ "a: |\n  x", "{\"a\": \"x\"}" },
		{ "a: | # c\n  x\n", "{\"a\": \"x\\n\"}" },
		{ "a: |#c\n  x\n", "{\"a\": \"x\\n\"}" },
		{ "a: |\n\n  x\n # no\n", "{\"a\": \"\\nx\\n\"}" },
		{ "a: &x 1\nb: *x", "{\"a\": 1, \"b\": 1}" },
		{ "a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}",
		  "{\"a\": {\"b\": 1}, \"c\": {\"b\": 1}, \"d\": {\"b\": 1, \"e\": 2}}" },
		{ "a: &x {b: 1, c: 2}\nd:\n  <<: *x\n  b: 3",
		  "{\"a\": {\"b\": 1, \"c\": 2}, \"d\": {\"b\": 3, \"c\": 2}}" },
		{ "a: &x {b: 1}\ne: &y {b: 2, c: 3}\nd:\n  <<: [*x, *y]",
		  "{\"a\": {\"b\": 1}, \"d\": {\"b\": 1, \"c\": 3}, \"e\": {\"b\": 2, \"c\": 3}}" },
		{ "&x a: *x", "{\"a\": \"a\"}" },
		{ "a: &x 1\nb: &x 2\nc: *x", "{\"a\": 1, \"b\": 2, \"c\": 2}" },
		{ "a: {<<: {b: 1}, b: 2}", "{\"a\": {\"b\": 2}}" },
		{ "a: {\"<<\": {b: 1}}", "{\"a\": {\"<<\": {\"b\": 1}}}" },
		{ "a: {<<: {b: 1}, <<: {c: 1}}", "{\"a\": {\"b\": 1, \"c\": 1}}" },
		{ "a: {<<: []}", "{\"a\": {}}" },
		{ "a: {<<: &z {b: 1}}", "{\"a\": {\"b\": 1}}" },
		{ "a: {!!merge <<: {b: 1}}", "{\"a\": {\"b\": 1}}" },
		{ "a: &x {b: &y {c: 1}}\nd: {<<: *x, b: {<<: *y, d: 1}}",
		  "{\"a\": {\"b\": {\"c\": 1}}, \"d\": {\"b\": {\"c\": 1, \"d\": 1}}}" },
		{ "? a\n: b", "{\"a\": \"b\"}" },
		{ "? |\n  x\n: y", "{\"x\\n\": true}" },
		{ "'': 1", "{\"\": 1}" },
		{ "{a, b: 1}", "{\"a\": null, \"b\": 1}" },
		{ "[a: 1, b]", "[{\"a\": 1}, \"b\"]" },
		{ "[a, ]", "[\"a\"]" },
		{ "{a: 1,}", "{\"a\": 1}" },
		{ "a: [1,\n2]", "{\"a\": [1, 2]}" },
		{ "a: [1\n]", "{\"a\": [1]}" },
		{ "a: {b:\n c}", "{\"a\": {\"b\": \"c\"}}" },
		{ "{a:1}", "{\"a:1\": null}" },
		{ "{\"a\":1}", "{\"a\": 1}" },
		{ "a:1", "\"a:1\"" },
		{ "- - a\n  - b\n- c", "[[\"a\", \"b\"], \"c\"]" },
		{ "- a: 1\n  b: 2\n-\n  c: 3\n- \n  - d",
		  "[{\"a\": 1, \"b\": 2}, {\"c\": 3}, [\"d\"]]" },
		{ "a:\n- b\n- c\nd: e", "{\"a\": [\"b\", \"c\"], \"d\": \"e\"}" },
		{ "a:\t1", "{\"a\": 1}" },
		{ "a: 1\t", "{\"a\": 1}" },
		{ "a: b\t#c", "{\"a\": \"b\"}" },
		{ "a: 'x\ty'", "{\"a\": \"x\\ty\"}" },
		{ "{a:\t1}", "{\"a\": 1}" },
		{ "%YAML 1.1\n---\na: 1", "{\"a\": 1}" },
		{ "%TAG ! tag:x,2000:\n---\na: !y 1", "{\"a\": \"1\"}" },
		{ "%TAG !e! tag:yaml.org,2002:\n---\na: !e!str 1", "{\"a\": \"1\"}" },
		{ "---\na: 1\n...\n", "{\"a\": 1}" },
		{ "--- a", "\"a\"" },
		{ "--- {a: 1}", "{\"a\": 1}" },
		{ "---\n", "null" },
		{ "a: 1 # c", "{\"a\": 1}" },
		{ "a: 1#c", "{\"a\": \"1#c\"}" },
		{ "a: '#'", "{\"a\": \"#\"}" },
		{ "a: \"x\" # c", "{\"a\": \"x\"}" },
		{ "\357\273\277a: 1", "{\"a\": 1}" },
		{ "a: \357\273\2771", "{\"a\": \"\357\273\2771\"}" },
		{ "a: 1\r\nb: 2\r\n", "{\"a\": 1, \"b\": 2}" },
		{ "a: |\r\n  x\r\n  y\r\n", "{\"a\": \"x\\ny\\n\"}" },
		{ "a: 1\rb: 2", "{\"a\": 1, \"b\": 2}" },
		{ "\303\251: \303\274\n\346\227\245\346\234\254: \360\237\230\200",
		  "{\"\303\251\": \"\303\274\", \"\346\227\245\346\234\254\": "
		  "\"\360\237\230\200\"}" },
		{ "a: |\n  x\342\200\250  y\n", "{\"a\": \"x\342\200\250y\\n\"}" },
		{ "a: \"\\e\\N\\_\\L\\P\\a\\b\\v\\f\\r\"",
		  "{\"a\": "
		  "\"\\u001b\302\205\302\240\342\200\250\342\200\251\\u0007\\b\\u000b\\f\\r\"}" },
		{ "a: !", "{\"a\": \"\"}" },
		{ "a: ?b", "{\"a\": \"?b\"}" },
		{ "a: -b", "{\"a\": \"-b\"}" },
		{ "a: :b", "{\"a\": \":b\"}" },
		{ "a: b]", "{\"a\": \"b]\"}" },
		{ "a: b, c", "{\"a\": \"b, c\"}" },
		{ "a: b:c", "{\"a\": \"b:c\"}" },
		{ "a: http://x:80", "{\"a\": \"http://x:80\"}" },
		{ "[a:b]", "[\"a:b\"]" },
		{ "[http://x]", "[\"http://x\"]" },
		{ "{a: http://x:1}", "{\"a\": \"http://x:1\"}" },
		{ "a: \"{{ .x }}\"", "{\"a\": \"{{ .x }}\"}" },
		{ "a: !!map\n  b: 1", "{\"a\": {\"b\": 1}}" },
		{ "a: !foo\n  b: 1", "{\"a\": {\"b\": 1}}" },
		{ "a: !!seq [1]", "{\"a\": [1]}" },
		{ "!!map {a: 1}", "{\"a\": 1}" },
		{ "a: !!str\nb: 1", "{\"a\": \"\", \"b\": 1}" },
		{ "a: &x\nb: 1", "{\"a\": null, \"b\": 1}" },
		{ "a: &x !!str 1", "{\"a\": \"1\"}" },
		{ "a: !!str &x 1", "{\"a\": \"1\"}" },
		{ "&a a: &b b\nc: {*a : 1}", "{\"a\": \"b\", \"c\": {\"a\": 1}}" },
		{ "a: 0.1\nb: 1e21\nc: 1e20\nd: 123456789.0\ne: 1e-7",
		  "{\"a\": 0.1, \"b\": 1e+21, \"c\": 1e+20, \"d\": 123456789.0, \"e\": 1e-07}" },
		{ "a: 2001-12-14\nb: 12:30", "{\"a\": \"2001-12-14\", \"b\": \"12:30\"}" },
		{ "- 1\n- yes\n- ~", "[1, true, null]" },
		{ "a: ''", "{\"a\": \"\"}" },
		{ "a: \"\"", "{\"a\": \"\"}" },
		{ "a: ' '", "{\"a\": \" \"}" },
		{ "yes", "true" },
		{ "1", "1" },
		{ "x", "\"x\"" },
		{ "[]", "[]" },
		{ "{}", "{}" },
	};

	for (size_t i = 0; i < COUNT(rows); i++)
		assert_read(rows[i].text, rows[i].want);
}

TEST(merged_keys_give_way_to_written_ones_and_the_first_of_several_counts)
{
	assert_read("a: {b: 2, <<: {b: 1}}", "{\"a\": {\"b\": 2}}");
	assert_read("a: {<<: {b: 1}, b: 2}", "{\"a\": {\"b\": 2}}");
	assert_read(
		"a: &x {b: 1}\ne: &z {b: 2, c: 3}\nd:\n  <<: [*x, *z]",
		"{\"a\": {\"b\": 1}, \"e\": {\"b\": 2, \"c\": 3}, \"d\": {\"b\": 1, \"c\": 3}}");
}

TEST(what_is_refused_is_told_by_name_line_and_column)
{
	static const struct {
		const char *text, *msg;
	} rows[] = {
		{ "a: |0\n x", "f:1:5: found an indentation indicator equal to 0 while scanning a "
			       "block scalar" },
		{ "a: |10\n x", "f:1:6: did not find expected comment or line break while scanning "
				"a block scalar" },
		{ "a: |\n   \n  x",
		  "f:3:3: did not find expected key while parsing a block mapping" },
		{ "a: &x 1\nd: {<<: *x}", "f:2:11: '<<' needs a mapping" },
		{ "a: *x", "f:1:4: an alias that names nothing" },
		{ "a: &x [*x]", "f:1:8: an alias within what it names" },
		{ "a: {<<: [{b: 1},[{c: 1}]]}", "f:1:26: '<<' needs a mapping" },
		{ "a: {<<: null}", "f:1:13: '<<' needs a mapping" },
		{ "a: {<<: }", "f:1:9: '<<' needs a mapping" },
		{ "a: 1\na: 2", "f:2:1: the key 'a' is there twice" },
		{ "a: 1\n'a': 2", "f:2:1: the key 'a' is there twice" },
		{ "{a: 1, a: 2}", "f:1:8: the key 'a' is there twice" },
		{ "1: a\n1: b", "f:2:1: the key '1' is there twice" },
		{ "? [a]\n: b", "f:1:3: a key that is no string: it needs quotes" },
		{ "? {a: 1}\n: b", "f:1:3: a key that is no string: it needs quotes" },
		{ "[1]: 2", "f:1:1: a key that is no string: it needs quotes" },
		{ "null: 1", "f:1:1: a key that is no string: it needs quotes" },
		{ "~: 1", "f:1:1: a key that is no string: it needs quotes" },
		{ ": 1", "f:1:1: did not find expected key while parsing a block mapping" },
		{ "[,]", "f:1:2: did not find expected node content while parsing a flow node" },
		{ "{,}", "f:1:2: did not find expected node content while parsing a flow node" },
		{ "[a,,b]", "f:1:4: did not find expected node content while parsing a flow node" },
		{ "a: b: c", "f:1:5: mapping values are not allowed in this context" },
		{ "a: - b", "f:1:4: block sequence entries are not allowed in this context" },
		{ "a:\n  - b\n - c",
		  "f:3:2: did not find expected key while parsing a block mapping" },
		{ "\ta: 1", "f:1:1: found character that cannot start any token while scanning for "
			    "the next token" },
		{ "a:\n\t- b", "f:2:1: found character that cannot start any token while scanning "
			       "for the next token" },
		{ "- \ta", "f:1:3: found character that cannot start any token while scanning for "
			   "the next token" },
		{ "a: |\n\tx", "f:2:1: found a tab character where an indentation space is "
			       "expected while scanning a block scalar" },
		{ "%YAML 2.0\n---\na: 1", "f:1:1: found incompatible YAML document" },
		{ "%FOO\n---\na: 1",
		  "f:1:5: found unknown directive name while scanning a directive" },
		{ "...", "f:1:1: did not find expected node content while parsing a block node" },
		{ "a: \007", "f:1:4: control characters are not allowed" },
		{ "a: \177", "f:1:4: control characters are not allowed" },
		{ "a: \302\205b",
		  "f:3:1: could not find expected ':' while scanning a simple key" },
		{ "a: \342\200\250b",
		  "f:3:1: could not find expected ':' while scanning a simple key" },
		{ "a: \"\\ud83d\\ude00\"", "f:1:7: found invalid Unicode character escape code "
					   "while parsing a quoted scalar" },
		{ "a: \"\\ud83d\"", "f:1:7: found invalid Unicode character escape code while "
				    "parsing a quoted scalar" },
		{ "a: \"\\q\"",
		  "f:1:5: found unknown escape character while parsing a quoted scalar" },
		{ "a: @b", "f:1:4: found character that cannot start any token while scanning for "
			   "the next token" },
		{ "a: `b", "f:1:4: found character that cannot start any token while scanning for "
			   "the next token" },
		{ "a: %b", "f:1:4: found character that cannot start any token while scanning for "
			   "the next token" },
		{ "a: &", "f:1:5: did not find expected alphabetic or numeric character while "
			  "scanning an anchor" },
		{ "a: *", "f:1:5: did not find expected alphabetic or numeric character while "
			  "scanning an alias" },
		{ "a: ,b", "f:1:4: did not find expected node content while parsing a block node" },
		{ "a: [b",
		  "f:2:1: did not find expected ',' or ']' while parsing a flow sequence" },
		{ "a: ]b", "f:1:4: did not find expected node content while parsing a block node" },
		{ "a: {b", "f:2:1: did not find expected ',' or '}' while parsing a flow mapping" },
		{ "a: }", "f:1:4: did not find expected node content while parsing a block node" },
		{ "a: |b", "f:1:5: did not find expected comment or line break while scanning a "
			   "block scalar" },
		{ "a: >b", "f:1:5: did not find expected comment or line break while scanning a "
			   "block scalar" },
		{ "a: 'b", "f:1:6: found unexpected end of stream while scanning a quoted scalar" },
		{ "a: \"b",
		  "f:1:6: found unexpected end of stream while scanning a quoted scalar" },
		{ "{{ .x }}", "f:1:2: a key that is no string: it needs quotes (a template? render "
			      "it first: helm template)" },
		{ "a: {{ .x }}", "f:1:5: a key that is no string: it needs quotes (a template? "
				 "render it first: helm template)" },
		{ "{{- if x }}\na: 1\n{{- end }}",
		  "f:1:3: did not find expected node content while parsing a flow node (a "
		  "template? render it first: helm template)" },
		{ "a:\n  b: 1\n c: 2",
		  "f:3:2: did not find expected key while parsing a block mapping" },
		{ "a:\n b: 1\n  c: 2", "f:3:4: mapping values are not allowed in this context" },
		{ "a\nb: 1", "f:2:2: mapping values are not allowed in this context" },
		{ "a: 1\n  b: 2", "f:2:4: mapping values are not allowed in this context" },
		{ "'a' 'b'", "f:1:5: did not find expected <document start>" },
		{ "a: 'b' c", "f:1:8: did not find expected key while parsing a block mapping" },
		{ "a: [b] c", "f:1:8: did not find expected key while parsing a block mapping" },
		{ "*a : 1", "f:1:1: an alias that names nothing" },
		{ "a: .inf", "f:1:4: a number that JSON lacks: it needs quotes" },
		{ "a: [-.INF]", "f:1:5: a number that JSON lacks: it needs quotes" },
		{ "1.5: a", "f:1:1: a key that is no string: it needs quotes" },
		{ "a: &x 1\n&b 2: c", "f:2:1: a key that is no string: it needs quotes" },
		{ "\xc3\xa9: \"\xe6\x97\xa5\"\n\xf0\x9f\x98\x80: \xc3\xa9: 1",
		  "f:2:5: mapping values are not allowed in this context" },
		{ "\xef\xbb\xbf# c\n\xc3\xa9: \x07", "f:2:4: control characters are not allowed" },
		{ "a: \xff", "f:1:4: invalid leading UTF-8 octet" },
		{ "a: \"\\0\"\nb: [", "f:3:1: did not find expected node content while parsing a "
				      "flow node" },
		{ "---\na: 1\n---\nb: *x\n", "f:4:4: an alias that names nothing" },
		{ "a: &x 1\n---\nb: *x\n", "f:3:4: an alias that names nothing" },
	};

	for (size_t i = 0; i < COUNT(rows); i++)
		assert_refused(rows[i].text, strlen(rows[i].text), WARM_INVALID, rows[i].msg);
	assert_refused("a: \0", 4, WARM_INVALID, "f:1:4: control characters are not allowed");
	assert_refused("{\"a\": 1, \"a\": 2}", 16, WARM_INVALID,
		       "f:1:10: the key 'a' is there twice");
}

TEST(a_nul_in_a_string_is_kept)
{
	assert_read("a: \"x\\0z\"", "{\"a\": \"x\\u0000z\"}");
	assert_written("a: 1\n", "{\"a\": \"x\\u0000z\"}", "a: \"x\\0z\"\n", 0);
}

TEST(a_file_has_documents_with_their_lines)
{
	static const struct {
		const char *text;
		size_t n, lines[3];
	} rows[] = {
		{ "", 0, { 0 } },
		{ "# c\n", 0, { 0 } },
		{ "a: 1", 1, { 1 } },
		{ "# c\n\na: 1\n", 1, { 3 } },
		{ "---\n", 1, { 2 } },
		{ "---\na: 1\n---\nb: 1\n", 2, { 2, 4 } },
		{ "a: 1\n---\n\n# c\nb: 1\n...\n---\nc: 1\n", 3, { 1, 5, 8 } },
		{ "a: 1\n...\n# c\n", 1, { 1 } },
		{ "a: 1\n---\n---\nb: 1\n", 3, { 1, 3, 4 } },
		{ "--- 1\n--- 2\n", 2, { 1, 2 } },
		{ "%YAML 1.1\n---\na: 1\n", 1, { 3 } },
		{ "--- # c\na: 1\n--- |\n x\n", 2, { 2, 3 } },
		{ "{\"a\": 1}\n{\"b\": 2}\n\n[3]", 3, { 1, 2, 4 } },
		{ "\n{\n\"a\": 1}{\"b\": 2}", 2, { 2, 3 } },
		{ "a: 1\r\n---\r\nb: 1\r\n", 2, { 1, 3 } },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		scope_yaml struct warm_yaml *yaml = parsed(rows[i].text);
		if (warm_yaml_count(yaml) != rows[i].n)
			fail_msg("%zu of:\n%s", warm_yaml_count(yaml), rows[i].text);
		for (size_t at = 0; at < rows[i].n; at++)
			if (warm_yaml_line(yaml, at) != rows[i].lines[at])
				fail_msg("line %zu of %zu in:\n%s", warm_yaml_line(yaml, at), at,
					 rows[i].text);
	}
}

TEST(an_empty_document_is_null)
{
	scope_yaml struct warm_yaml *yaml = parsed("---\n# c\n---\na: 1\n");

	assert_int_equal(warm_yaml_count(yaml), 2);
	assert_true(json_is_null(warm_yaml_value(yaml, 0)));
}

TEST(json_may_stream_and_has_escapes_that_yaml_lacks)
{
	scope_yaml struct warm_yaml *yaml = parsed("{\"a\": \"\\ud83d\\ude00\\u00e9\\/\"}\n[1.0]");

	assert_int_equal(warm_yaml_count(yaml), 2);
	assert_value(warm_yaml_value(yaml, 0), "{\"a\": \"\xf0\x9f\x98\x80\xc3\xa9/\"}", "json");
	assert_value(warm_yaml_value(yaml, 1), "[1.0]", "json");
	assert_refused("{\"a\": 1}\n{\"b\": ", 15, WARM_INVALID,
		       "f:2:1: did not find expected <document start>");
}

static char *repeated(const char *first, const char *each, size_t n, const char *last)
{
	scope_buf struct warm_buf text = WARM_BUF_INIT;

	warm_buf_put(&text, first, strlen(first));
	for (size_t i = 0; i < n; i++)
		warm_buf_put(&text, each, strlen(each));
	warm_buf_put(&text, last, strlen(last));
	warm_buf_put_u8(&text, '\0');
	assert_false(text.failed);
	return (char *)take_ptr(text.data);
}

TEST(a_hundred_levels_are_deep_enough)
{
	scope_free char *some = repeated("", "- ", WARM_YAML_DEPTH, "a\n");
	scope_free char *more = repeated("", "- ", WARM_YAML_DEPTH + 1, "a\n");
	scope_free char *flow = repeated("a: ", "[", 5000, "");

	warm_yaml_free(parsed(some));
	assert_refused(more, strlen(more), WARM_LIMIT, "f:1: over 100 levels");
	assert_refused(flow, strlen(flow), WARM_LIMIT, "f:1: over 100 levels");
}

TEST(aliases_that_grow_are_refused_before_they_fill_the_memory)
{
	scope_buf struct warm_buf laughs = WARM_BUF_INIT;
	scope_free char *text = repeated("a: &x '", "0123456789abcdef", 65536, "'\n");
	scope_free char *texts = repeated(text, "- *x\n", 0, "b:\n");
	scope_free char *many = repeated(texts, "- *x\n", 1000, "");
	scope_free char *few = repeated(texts, "- *x\n", 10, "");

	warm_buf_printf(&laughs, "x0: &x0 [1,1,1,1,1,1,1,1,1,1]\n");
	for (int i = 1; i < 9; i++) {
		warm_buf_printf(&laughs, "x%d: &x%d [", i, i);
		for (int k = 0; k < 10; k++)
			warm_buf_printf(&laughs, "%s*x%d", k > 0 ? "," : "", i - 1);
		warm_buf_printf(&laughs, "]\n");
	}
	assert_refused((const char *)laughs.data, laughs.bytes, WARM_LIMIT,
		       "f:6: aliases grow beyond 1048576 nodes");
	assert_refused(many, strlen(many), WARM_LIMIT, "f:66: aliases grow beyond 1048576 nodes");
	warm_yaml_free(parsed(few));
}

TEST(sixteen_mebibytes_are_large_enough)
{
	scope_free char *text = repeated("a: 1\n", "#23456789abcdef\n", (WARM_YAML_BYTES >> 4) - 1,
					 "#2345678901");
	struct warm_yaml *yaml = NULL;

	assert_int_equal(strlen(text), WARM_YAML_BYTES);
	assert_int_equal(warm_yaml_parse("f", text, WARM_YAML_BYTES, &yaml, NULL), 0);
	warm_yaml_free(yaml);
	assert_refused(text, WARM_YAML_BYTES + 1, WARM_LIMIT, "f: over 16 MiB");
}

/* ---- writing ---- */

TEST(what_changed_is_written_where_it_belongs)
{
	static const struct {
		const char *text, *want, *out;
		size_t anew;
	} rows[] = {
		{ "a: 1\nb: 2\n", "{\"a\": 1, \"b\": 2, \"c\": 3}", "a: 1\nb: 2\nc: 3\n", 0 },
		{ "a:\n  x: 1\n# about b\nb: 2\n", "{\"a\": {\"x\": 1, \"q\": 2}, \"b\": 2}",
		  "a:\n  x: 1\n  q: 2\n# about b\nb: 2\n", 0 },
		{ "a:\n  x: 1\n\n# about b\n\nb: 2\n", "{\"a\": {\"x\": 1, \"q\": 2}, \"b\": 2}",
		  "a:\n  x: 1\n  q: 2\n\n# about b\n\nb: 2\n", 0 },
		{ "a:\n  x: 1\n  # more of a\nb: 2\n", "{\"a\": {\"x\": 1, \"q\": 2}, \"b\": 2}",
		  "a:\n  x: 1\n  q: 2\n  # more of a\nb: 2\n", 0 },
		{ "a: 1\nc: 3\n", "{\"a\": 1, \"b\": 2, \"c\": 3}", "a: 1\nb: 2\nc: 3\n", 0 },
		{ "b: 2\n", "{\"a\": 1, \"b\": 2}", "b: 2\na: 1\n", 0 },
		{ "a: {}\nb: 1\n", "{\"a\": {\"x\": 1}, \"b\": 1}", "a:\n  x: 1\nb: 1\n", 0 },
		{ "a: {} # c\nb: 1\n", "{\"a\": {\"x\": 1}, \"b\": 1}", "a: {\"x\": 1} # c\nb: 1\n",
		  0 },
		{ "a: []\nb: 1\n", "{\"a\": [\"x\"], \"b\": 1}", "a:\n- x\nb: 1\n", 0 },
		{ "a:\nb: 1\n", "{\"a\": {\"x\": 1}, \"b\": 1}", "a:\n  x: 1\nb: 1\n", 0 },
		{ "b: 1\na:", "{\"a\": [\"x\"], \"b\": 1}", "b: 1\na:\n- x\n", 0 },
		{ "a: ~\n", "{\"a\": {\"x\": 1}}", "a:\n  x: 1\n", 0 },
		{ "a: # c\nb: 1\n", "{\"a\": {\"x\": 1}, \"b\": 1}", "a: {\"x\": 1} # c\nb: 1\n",
		  0 },
		{ "a:\nb: 1\n", "{\"a\": 7, \"b\": 1}", "a: 7\nb: 1\n", 0 },
		{ "a: # c\nb: 1\n", "{\"a\": 7, \"b\": 1}", "a: 7 # c\nb: 1\n", 0 },
		{ "{}\n", "{\"a\": 1}", "{\"a\":1}\n", 0 },
		{ "---\n# c\n", "{\"a\": 1}", "---\n# c\n{\"a\": 1}", 0 },
		{ "a: {x: 1, q: 2}\n", "{\"a\": {\"x\": 1, \"q\": 2, \"z\": [1, {\"q\": \"r\"}]}}",
		  "a: {x: 1, q: 2, \"z\": [1, {\"q\": \"r\"}]}\n", 0 },
		{ "a: {x: 1, q: 2}\n", "{\"a\": {\"x\": 5, \"q\": 2}}", "a: {x: 5, q: 2}\n", 0 },
		{ "a: {\n  x: 1,\n  q: 2,\n}\n", "{\"a\": {\"x\": 1, \"q\": 2, \"z\": 3}}",
		  "a: {\n  x: 1,\n  q: 2, \"z\": 3,\n}\n", 0 },
		{ "a: {x: 1, q: 2}\n", "{\"a\": {\"q\": 2}}", "a: {\"q\": 2}\n", 0 },
		{ "a: [x, y]\n", "{\"a\": [\"x\", \"y\", \"z\"]}", "a: [\"x\", \"y\", \"z\"]\n",
		  0 },
		{ "a: [x, y]\n", "{\"a\": [\"w\", \"x\", \"y\"]}", "a: [\"w\", \"x\", \"y\"]\n",
		  0 },
		{ "a: [x, y]\n", "{\"a\": [\"x\", \"m\", \"y\"]}", "a: [\"x\", \"m\", \"y\"]\n",
		  0 },
		{ "a: [x, y]\n", "{\"a\": [\"y\"]}", "a: [\"y\"]\n", 0 },
		{ "a: [{name: x, v: 1}]\n", "{\"a\": [{\"name\": \"x\", \"v\": 2}]}",
		  "a: [{name: x, v: 2}]\n", 0 },
		{ "a: [x, y]\n", "{\"a\": []}", "a: []\n", 0 },
		{ "a: {x, q}\n", "{\"a\": {\"x\": 1, \"q\": null}}", "a:\n  x: 1\n  q: null\n", 1 },
		{ "a:\n  - x\n  - y\nb: 1\n", "{\"a\": [\"x\", \"y\", \"z\"], \"b\": 1}",
		  "a:\n  - x\n  - \"y\"\n  - z\nb: 1\n", 0 },
		{ "a:\n- x\n- y\nb: 1\n", "{\"a\": [\"x\", \"y\", \"z\"], \"b\": 1}",
		  "a:\n- x\n- \"y\"\n- z\nb: 1\n", 0 },
		{ "a:\n- x\n- y\n", "{\"a\": [\"w\", \"x\", \"y\"]}", "a:\n- w\n- x\n- \"y\"\n",
		  0 },
		{ "a:\n# about x\n- x\n- y\n", "{\"a\": [\"w\", \"x\", \"y\"]}",
		  "a:\n- w\n# about x\n- x\n- \"y\"\n", 0 },
		{ "a:\n- x\n# about y\n- y\n", "{\"a\": [\"x\", \"m\", \"y\"]}",
		  "a:\n- x\n- m\n- \"y\"\n# about y\n", 0 },
		{ "a:\n-\n  name: x\n  v: 1\n-\n  name: y\n",
		  "{\"a\": [{\"name\": \"x\", \"v\": 2}, {\"name\": \"y\", \"w\": 3}, {\"name\": "
		  "\"z\"}]}",
		  "a:\n-\n  name: x\n  v: 2\n-\n  name: \"y\"\n  w: 3\n- name: z\n", 0 },
		{ "a:\n- name: x\n  v: 1\n- name: y\n",
		  "{\"a\": [{\"name\": \"x\", \"v\": 1, \"w\": [1]}, {\"name\": \"y\", \"e\": "
		  "{}}]}",
		  "a:\n- name: x\n  v: 1\n  w:\n  - 1\n- name: \"y\"\n  e: {}\n", 0 },
		{ "- - a\n  - b\n- - c\n", "[[\"a\", \"b\", \"x\"], [\"c\"]]",
		  "- - a\n  - b\n  - x\n- - c\n", 0 },
		{ "- - a\n  - b\n", "[[\"x\", \"a\", \"b\"]]", "- - x\n  - a\n  - b\n", 0 },
		{ "- - a\n  - b\n", "[[\"b\"]]", "- - b\n", 0 },
		{ "- - a\n  - b\n", "[[\"a\"]]", "- - a\n", 0 },
		{ "- name: x\n  v: 1\n", "[{\"v\": 1}]", "- v: 1\n", 0 },
		{ "a: 1\nb: 2\nc: 3\n", "{\"b\": 2, \"c\": 3}", "b: 2\nc: 3\n", 0 },
		{ "# a\na: 1\n# b\nb: 2\n", "{\"b\": 2}", "# a\n# b\nb: 2\n", 0 },
		{ "a: 1\n# b\nb: 2\n# c\nc: 3\n", "{\"a\": 1, \"c\": 3}", "a: 1\n# b\n# c\nc: 3\n",
		  0 },
		{ "a: 1\n# b\nb: 2\n# end\n", "{\"a\": 1}", "a: 1\n# b\n# end\n", 0 },
		{ "a: 1\nb: 2\n", "{}", "{}\n", 0 },
		{ "x:\n  a: 1\n  b: 2\ny: 1\n", "{\"x\": {}, \"q\": 1}", "x:\n  {}\nq: 1\n", 0 },
		{ "a:\n- x\n# y\n- y\n- z\n", "{\"a\": [\"x\", \"z\"]}", "a:\n- x\n# y\n- z\n", 0 },
		{ "a:\n- x\n# y\n- y\n- z\n", "{\"a\": [\"y\", \"z\"]}", "a:\n- \"y\"\n# y\n- z\n",
		  0 },
		{ "a:\n- x\n# y\n- y\n- z # z\n# end\n", "{\"a\": [\"x\", \"y\"]}",
		  "a:\n- x\n- \"y\"\n# y\n# end\n", 0 },
		{ "a:\n- x\n- y\nb: 1\n", "{\"a\": [], \"b\": 1}", "a: []\nb: 1\n", 1 },
		{ "a: |\n  x\n  y\n", "{\"a\": \"x\\ny\\n\", \"b\": 1}", "a: |\n  x\n  y\nb: 1\n",
		  0 },
		{ "a: |+\n  x\n\n", "{\"a\": \"x\\n\\n\", \"b\": 1}", "a: |+\n  x\n\nb: 1\n", 0 },
		{ "a: |-\n  x\n\n\nb: 1\n", "{\"a\": \"x\", \"n\": 1, \"b\": 1}",
		  "a: |-\n  x\n\n\n\"n\": 1\nb: 1\n", 0 },
		{ "s:\n  a: |\n    x\n\n# c\nb: 1\n",
		  "{\"s\": {\"a\": \"x\\n\", \"n\": 1}, \"b\": 1}",
		  "s:\n  a: |\n    x\n\n  \"n\": 1\n# c\nb: 1\n", 0 },
		{ "s:\n  a: |+\n    x\n\n# c\nb: 1\n",
		  "{\"s\": {\"a\": \"x\\n\\n\", \"n\": 1}, \"b\": 1}",
		  "s:\n  a: |+\n    x\n\n  \"n\": 1\n# c\nb: 1\n", 0 },
		{ "a: |\n  x\n  y\nb: 1\n", "{\"a\": \"z\\n\", \"b\": 1}", "a: \"z\\n\"\nb: 1\n",
		  0 },
		{ "a: |\n  x\n  y\n\nb: 1\n", "{\"b\": 1}", "b: 1\n", 0 },
		{ "a: |\n  x", "{\"a\": \"x\", \"b\": 1}", "a: x\nb: 1\n", 1 },
		{ "a:\n  s: |\n    x\n  # of a\n\nb: 1\n",
		  "{\"a\": {\"s\": \"x\\n\", \"n\": 1}, \"b\": 1}",
		  "a:\n  s: |\n    x\n  \"n\": 1\n  # of a\n\nb: 1\n", 0 },
		{ "a: 1", "{\"a\": 1, \"b\": 2}", "a: 1\nb: 2\n", 0 },
		{ "a:\n- x", "{\"a\": [\"x\", \"y\"]}", "a:\n- x\n- \"y\"\n", 0 },
		{ "a: 1 # c", "{\"a\": 1, \"b\": 2}", "a: 1 # c\nb: 2\n", 0 },
		{ "a:\r\n  x: 1\r\nb: 2\r\n", "{\"a\": {\"x\": 1, \"q\": \"p\\nq\\n\"}, \"b\": 2}",
		  "a:\r\n  x: 1\r\n  q: |\r\n    p\r\n    q\r\nb: 2\r\n", 0 },
		{ "a: 1\n\n\n", "{\"a\": 1, \"b\": 2}", "a: 1\nb: 2\n\n\n", 0 },
		{ "a: 1\n...\n", "{\"a\": 1, \"b\": 2}", "a: 1\nb: 2\n...\n", 0 },
		{ "---\na: 1\n", "{\"a\": 1, \"b\": 2}", "---\na: 1\nb: 2\n", 0 },
		{ "--- {a: 1}\n", "{\"a\": 1, \"b\": 2}", "--- {a: 1, \"b\": 2}\n", 0 },
		{ "--- &x\na: 1\n", "{\"a\": 1, \"b\": 2}", "--- &x\na: 1\nb: 2\n", 0 },
		{ "a: &x\n  p: 1\nb: *x\n", "{\"a\": {\"p\": 2}, \"b\": {\"p\": 1}}",
		  "a:\n  p: 2\nb:\n  p: 1\n", 1 },
		{ "a: &x\n  p: 1\nb: *x\n", "{\"a\": {\"p\": 2}, \"b\": {\"p\": 2}}",
		  "a:\n  p: 2\nb:\n  p: 2\n", 1 },
		{ "a: &x\n  p: 1\nb: *x\n", "{\"a\": {\"p\": 1}, \"b\": {\"p\": 2}}",
		  "a:\n  p: 1\nb:\n  p: 2\n", 1 },
		{ "a: &x\n  p: 1\nb: *x\n", "{\"b\": {\"p\": 1}}", "b:\n  p: 1\n", 1 },
		{ "a: &x\n  p: 1\n# c\nb: *x\n", "{\"a\": {\"p\": 1}, \"b\": {\"p\": 1}, \"c\": 1}",
		  "a: &x\n  p: 1\n# c\nb: *x\nc: 1\n", 0 },
		{ "a:\n- &x\n  p: 1\n- *x\n", "{\"a\": [{\"p\": 1}, {\"p\": 1}, {\"p\": 3}]}",
		  "a:\n- &x\n  p: 1\n- *x\n- p: 3\n", 0 },
		{ "a: &x 1\nb:\n  c: *x\nd: 1\n",
		  "{\"a\": 1, \"b\": {\"c\": 1, \"e\": 2}, \"d\": 1}",
		  "a: &x 1\nb:\n  c: *x\n  e: 2\nd: 1\n", 0 },
		{ "d: &d\n  p: 1\n  q: 1\na:\n  <<: *d\n  r: 1\n",
		  "{\"d\": {\"p\": 1, \"q\": 1}, \"a\": {\"p\": 1, \"q\": 1, \"r\": 1, \"s\": 1}}",
		  "d: &d\n  p: 1\n  q: 1\na:\n  <<: *d\n  r: 1\n  s: 1\n", 0 },
		{ "d: &d\n  p: 1\n  q: 1\na:\n  <<: *d\n  r: 1\n",
		  "{\"d\": {\"p\": 1, \"q\": 1}, \"a\": {\"p\": 2, \"q\": 1, \"r\": 1}}",
		  "d: &d\n  p: 1\n  q: 1\na:\n  <<: *d\n  p: 2\n  r: 1\n", 0 },
		{ "d: &d\n  p: 1\n  q: 1\na:\n  <<: *d\n  r: 1\n",
		  "{\"d\": {\"p\": 1, \"q\": 1}, \"a\": {\"q\": 1, \"r\": 1}}",
		  "d:\n  p: 1\n  q: 1\na:\n  q: 1\n  r: 1\n", 1 },
		{ "d: &d\n  p: 1\na:\n  <<: *d\n",
		  "{\"d\": {\"p\": 1}, \"a\": {\"p\": 1, \"s\": 1}}",
		  "d: &d\n  p: 1\na:\n  <<: *d\n  s: 1\n", 0 },
		{ "\"a b\": 1\n'c: d': 2\n",
		  "{\"a b\": 1, \"c: d\": 3, \"e # f\": 4, \"yes\": 1, \"1\": 2, \"\": 3, \"-\": "
		  "1, \"? x\": 1, \"\303\251\": 1, \"<<\": 1}",
		  "\"a b\": 1\n"
		  "'c: d': 3\n"
		  "'e # f': 4\n"
		  "\"yes\": 1\n"
		  "\"1\": 2\n"
		  "\"\": 3\n"
		  "'-': 1\n"
		  "'? x': 1\n"
		  "\303\251: 1\n"
		  "\"<<\": 1\n",
		  0 },
		{ "a: 1\n",
		  "{\"a\": 1, \"b\": \"yes\", \"c\": \"1\", \"d\": \"null\", \"e\": \"a: b\", "
		  "\"f\": \" #\", \"g\": \"x #y\", \"h\": \"\", \"i\": \"~\", \"j\": \"0x1f\", "
		  "\"k\": \"1e3\", \"l\": \"- x\", \"m\": \"*a\", \"n\": \"&a\", \"o\": \"!x\", "
		  "\"p\": \"%x\", \"q\": \"=\", \"r\": \"`x\", \"s\": \"{x\", \"t\": \"[x\", "
		  "\"u\": \"x: \", \"v\": \"x:\", \"w\": \"'x'\", \"x\": \"\\\"x\\\"\", \"z\": "
		  "\"<<\"}",
		  "a: 1\n"
		  "b: \"yes\"\n"
		  "c: \"1\"\n"
		  "d: \"null\"\n"
		  "e: 'a: b'\n"
		  "f: ' #'\n"
		  "g: 'x #y'\n"
		  "h: \"\"\n"
		  "i: \"~\"\n"
		  "j: \"0x1f\"\n"
		  "k: \"1e3\"\n"
		  "l: '- x'\n"
		  "m: '*a'\n"
		  "\"n\": '&a'\n"
		  "o: '!x'\n"
		  "p: '%x'\n"
		  "q: \"=\"\n"
		  "r: '`x'\n"
		  "s: '{x'\n"
		  "t: '[x'\n"
		  "u: 'x: '\n"
		  "v: 'x:'\n"
		  "w: '''x'''\n"
		  "x: '\"x\"'\n"
		  "z: \"<<\"\n",
		  0 },
		{ "a: 1\n",
		  "{\"a\": 1, \"b\": \"a\\n"
		  "b\", \"c\": \"a\\n"
		  "b\\n"
		  "\", \"d\": \"a\\n"
		  "\\n"
		  "\", \"e\": \"\\n"
		  "\", \"f\": \"\\n"
		  " a\\n"
		  "\", \"g\": \" a\\n"
		  "b\\n"
		  "\", \"h\": \"a\\tb\", \"i\": \"\\ta\", \"j\": \"a \\n"
		  "b\", \"k\": \"\303\251\\n"
		  "\360\237\230\200\\n"
		  "\", \"l\": \"\\u0007\", \"m\": \"\342\200\250\", \"n\": \"a\\r\\n"
		  "b\", \"o\": \"\357\273\277\", \"p\": \"\302\205\", \"q\": \".inf\", \"r\": "
		  "\"...\", \"s\": \"--- a\\n"
		  "\", \"t\": \"# c\\n"
		  "\", \"u\": \"a\\n"
		  "---\\n"
		  "b\\n"
		  "\", \"v\": \"\177\", \"w\": \"2001-12-14\", \"x\": \"12:30\", \"z\": \"1_000\"}",
		  "a: 1\n"
		  "b: |-\n"
		  "  a\n"
		  "  b\n"
		  "c: |\n"
		  "  a\n"
		  "  b\n"
		  "d: |+\n"
		  "  a\n"
		  "\n"
		  "e: |2+\n"
		  "\n"
		  "f: |2\n"
		  "\n"
		  "   a\n"
		  "g: |2\n"
		  "   a\n"
		  "  b\n"
		  "h: \"a\\tb\"\n"
		  "i: \"\\ta\"\n"
		  "j: \"a \\n"
		  "b\"\n"
		  "k: \"\303\251\\n"
		  "\\U0001F600\\n"
		  "\"\n"
		  "l: \"\\a\"\n"
		  "m: '\342\200\250  '\n"
		  "\"n\": \"a\\r\\n"
		  "b\"\n"
		  "o: \"\\uFEFF\"\n"
		  "p: \"\\N\"\n"
		  "q: \".inf\"\n"
		  "r: '...'\n"
		  "s: |\n"
		  "  --- a\n"
		  "t: |\n"
		  "  # c\n"
		  "u: |\n"
		  "  a\n"
		  "  ---\n"
		  "  b\n"
		  "v: \"\\x7F\"\n"
		  "w: \"2001-12-14\"\n"
		  "x: \"12:30\"\n"
		  "z: \"1_000\"\n",
		  0 },
		{ "\303\244: \303\266 # \303\274\n"
		  "list:\n"
		  "  - \346\227\245\346\234\254\350\252\236 # "
		  "\343\202\263\343\203\241\343\203\263\343\203\210\n"
		  "  - \360\237\230\200\n"
		  "b: 1\n",
		  "{\"\303\244\": \"\303\266\", \"list\": "
		  "[\"\346\227\245\346\234\254\350\252\236\", \"\346\226\260\", "
		  "\"\360\237\230\200\"], \"b\": 2, \"c\": \"\303\237\"}",
		  "\303\244: \303\266 # \303\274\n"
		  "list:\n"
		  "  - \346\227\245\346\234\254\350\252\236 # "
		  "\343\202\263\343\203\241\343\203\263\343\203\210\n"
		  "  - \346\226\260\n"
		  "  - \360\237\230\200\n"
		  "b: 2\n"
		  "c: \303\237\n",
		  0 },
		{ "a: 1 # c\nb: 'x' # d\nc: \"x\"\nd: x\n",
		  "{\"a\": 2, \"b\": \"y'\", \"c\": \"y\\\"\", \"d\": \"y: z\"}",
		  "a: 2 # c\nb: \"y'\" # d\nc: \"y\\\"\"\nd: 'y: z'\n", 0 },
		{ "a: 1 # c\nb: x\n", "{\"a\": {\"p\": 1}, \"b\": [1]}",
		  "a: {\"p\": 1} # c\nb: [1]\n", 0 },
		{ "a:\n  p: 1\nb:\n- 1\nc: 1\n", "{\"a\": 1, \"b\": \"x\", \"c\": 1}",
		  "a: 1\nb: x\nc: 1\n", 1 },
		{ "a: x\n  y\nb: 1\n", "{\"a\": \"z\", \"b\": 1}", "a: z\nb: 1\n", 0 },
		{ "a: x\n  y\nb: 1\n", "{\"a\": \"x y\", \"n\": 1, \"b\": 1}",
		  "a: x\n  y\n\"n\": 1\nb: 1\n", 0 },
		{ "a: \"x\n  y\" # c\nb: 1\n", "{\"a\": \"x y\", \"n\": 1, \"b\": 1}",
		  "a: \"x\n  y\" # c\n\"n\": 1\nb: 1\n", 0 },
		{ "? a\n: b\n", "{\"a\": \"b\", \"c\": 1}", "a: b\nc: 1\n", 1 },
		{ "? a\n: b\n", "{\"a\": \"x\"}", "? a\n: x\n", 0 },
		{ "? a\n: b\n? c\n: d\n", "{\"c\": \"d\"}", "c: d\n", 1 },
		{ "a:\n  x\nb: 1\n", "{\"a\": \"y\", \"b\": 1}", "a:\n  \"y\"\nb: 1\n", 0 },
		{ "a:\n  'x'\n", "{\"a\": \"y\", \"b\": 1}", "a:\n  \"y\"\nb: 1\n", 0 },
		{ "a: {\"x\": \"y\"}\n", "{\"a\": {\"x\": \"y\", \"z\": \"1\"}}",
		  "a: {\"x\": \"y\", \"z\": \"1\"}\n", 0 },
		{ "a:\n- x\n- name: n\n  v: 1\n",
		  "{\"a\": [1, {\"name\": \"n\", \"v\": {\"w\": 1}}]}",
		  "a:\n- 1\n- name: \"n\"\n  v:\n    w: 1\n", 0 },
		{ "a:\n- x\n- y\n", "{\"a\": [\"y\", \"x\"]}", "a:\n- \"y\"\n- x\n", 0 },
		{ "a:\n- x\n- x\n", "{\"a\": [\"x\", \"x\", \"x\"]}", "a:\n- x\n- x\n- x\n", 0 },
		{ "a: &x 1\nb: 2\n", "{\"a\": 2, \"b\": 2}", "a: 2\nb: 2\n", 0 },
		{ "a: !!str 1\nb: 2\n", "{\"a\": 2, \"b\": 2}", "a: 2\nb: 2\n", 0 },
		{ "a: !!map\n  b: 1\n", "{\"a\": {\"b\": 1, \"c\": 2}}",
		  "a: !!map\n  b: 1\n  c: 2\n", 0 },
		{ "a: &q\n  b: 1\nx: 1\n", "{\"a\": {\"b\": 1, \"c\": 2}, \"x\": 1}",
		  "a: &q\n  b: 1\n  c: 2\nx: 1\n", 0 },
		{ "a:\n- &q\n  b: 1\n", "{\"a\": [\"n\", {\"b\": 1}]}",
		  "a:\n- \"n\"\n- &q\n  b: 1\n", 0 },
		{ "a: &q {}\nx: 1\n", "{\"a\": {\"b\": 1}, \"x\": 1}", "a:\n  b: 1\nx: 1\n", 0 },
		{ "a: &q\nx: 1\n", "{\"a\": {\"b\": 1}, \"x\": 1}", "a:\n  b: 1\nx: 1\n", 0 },
		{ "a:\n- []\n- {}\n", "{\"a\": [[\"x\"], {\"b\": 1}]}", "a:\n- [\"x\"]\n- b: 1\n",
		  0 },
		{ "a:\n-\n- x\n", "{\"a\": [{\"b\": 1}, \"x\"]}", "a:\n- b: 1\n- x\n", 0 },
		{ "a:\n      b: 1\n      c:\n        - x\nd: 1\n",
		  "{\"a\": {\"b\": 1, \"c\": [\"x\", \"y\"], \"e\": 1}, \"d\": 1}",
		  "a:\n"
		  "      b: 1\n"
		  "      c:\n"
		  "        - x\n"
		  "        - \"y\"\n"
		  "      e: 1\n"
		  "d: 1\n",
		  0 },
		{ "a:\n  b: 1\n  # end of a", "{\"a\": {\"b\": 1, \"c\": 2}}",
		  "a:\n  b: 1\n  c: 2\n  # end of a", 0 },
		{ "a: 1\n# b\nb: 2\nc: 3\n", "{\"a\": 1, \"d\": 4, \"c\": 3}",
		  "a: 1\nd: 4\n# b\nc: 3\n", 0 },
		{ "s:\n  a: 1\n  b: 2\n# t\nt: 1\n",
		  "{\"s\": {\"a\": 1, \"d\": {\"e\": 1}}, \"t\": 1}",
		  "s:\n  a: 1\n  d:\n    e: 1\n# t\nt: 1\n", 0 },
		{ "8080: a\non: b\n", "{\"8080\": \"c\", \"true\": \"b\", \"9\": \"d\"}",
		  "8080: c\non: b\n\"9\": d\n", 0 },
		{ "- name: x\n  v: 1\n- name: z\n",
		  "[{\"name\": \"x\", \"w\": 1}, {\"name\": \"z\"}]",
		  "- name: x\n  w: 1\n- name: z\n", 0 },
		{ "a:\n- x\n- z\n", "{\"a\": [\"p\", \"q\"]}", "a:\n- p\n- q\n", 0 },
		{ "a: !foo\n  p: 1\n", "{\"a\": {\"p\": 1, \"q\": 2}}", "a: !foo\n  p: 1\n  q: 2\n",
		  0 },
		{ "a: x\nb: 'x'\n", "{\"a\": \"yes\", \"b\": \"yes\"}", "a: \"yes\"\nb: \"yes\"\n",
		  0 },
		{ "spec:\n"
		  "  template:\n"
		  "    spec:\n"
		  "      containers:\n"
		  "      - name: a # the model\n"
		  "        image: i:1\n"
		  "\n"
		  "      # the proxy\n"
		  "      - name: b\n"
		  "  replicas: 2\n",
		  "{\"spec\": {\"template\": {\"spec\": {\"containers\": [{\"name\": \"a\", "
		  "\"image\": \"i:1\", \"env\": [{\"name\": \"E\", \"value\": \"1\"}]}, {\"name\": "
		  "\"b\"}], \"volumes\": [{\"name\": \"v\", \"emptyDir\": {}}]}}, \"replicas\": "
		  "2}}",
		  "spec:\n"
		  "  template:\n"
		  "    spec:\n"
		  "      containers:\n"
		  "      - name: a # the model\n"
		  "        image: i:1\n"
		  "        env:\n"
		  "        - name: E\n"
		  "          value: \"1\"\n"
		  "\n"
		  "      # the proxy\n"
		  "      - name: b\n"
		  "      volumes:\n"
		  "      - name: v\n"
		  "        emptyDir: {}\n"
		  "  replicas: 2\n",
		  0 },
		{ "- - name: a\n    v: 1\n  - b\n",
		  "[[{\"name\": \"a\", \"v\": 1, \"w\": 2}, \"b\", {\"name\": \"c\"}]]",
		  "- - name: a\n    v: 1\n    w: 2\n  - b\n  - name: c\n", 0 },
		{ "a: 1\n", "{\"a\": 1, \"b\": \".inf\", \"c\": \"-.INF\", \"d\": \".nan\"}",
		  "a: 1\nb: \".inf\"\nc: \"-.INF\"\nd: \".nan\"\n", 0 },
		{ "a: 1\r\nb: 2", "{\"a\": 1, \"b\": 2, \"c\": 3}", "a: 1\r\nb: 2\r\nc: 3\r\n", 0 },
		{ "a:\t1\t# c\nb: 2\n", "{\"a\": 3, \"b\": 2, \"c\": 1}",
		  "a:\t3\t# c\nb: 2\nc: 1\n", 0 },
		{ "\357\273\277a: 1\n", "{\"a\": 1, \"b\": 2}", "\357\273\277a: 1\nb: 2\n", 0 },
		{ "a: >-\n  x\n  z\n\n  w\nb: 1\n", "{\"a\": \"x z\\nw\", \"c\": 1, \"b\": 1}",
		  "a: >-\n  x\n  z\n\n  w\nc: 1\nb: 1\n", 0 },
		{ "a: |2\n    x\n  z\nb: 1\n", "{\"a\": \"  x\\nz\\n\", \"c\": 1, \"b\": 1}",
		  "a: |2\n    x\n  z\nc: 1\nb: 1\n", 0 },
		{ "{\n    \"a\": 1,\n    \"b\": []\n}\n", "{\"a\": 1, \"b\": [2]}",
		  "{\n    \"a\": 1,\n    \"b\": [\n        2\n    ]\n}\n", 0 },
		{ "{\"a\":1}", "{\"a\": 1, \"b\": 2}", "{\"a\":1,\"b\":2}", 0 },
	};

	for (size_t i = 0; i < COUNT(rows); i++)
		assert_written(rows[i].text, rows[i].want, rows[i].out, rows[i].anew);
}

TEST(what_did_not_change_keeps_its_bytes)
{
	static const char *const rows[] = {
		"",
		"# c",
		"a:   1   # c\n\n\n",
		"---\n---\n...\n",
		"a: 1\r\nb: |\r\n  x\r\n",
		"\xef\xbb\xbf"
		"a: &x {b : 1}\nc:  *x",
		"{\"a\":1}\n{\"b\" : 2}",
		"%YAML 1.1\n--- # c\n? a\n:   b\n",
		"- >+\n  x\n\n\n",
		"a: 1",
		"[ ]",
		"a:\tb\t\n",
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		scope_yaml struct warm_yaml *yaml = parsed(rows[i]);
		scope_buf struct warm_buf out = WARM_BUF_INIT;
		json_t *copies = json_array();
		size_t anew = 99;
		for (size_t at = 0; at < warm_yaml_count(yaml); at++) {
			json_array_append_new(copies, json_deep_copy(warm_yaml_value(yaml, at)));
			warm_yaml_replace(yaml, at, json_array_get(copies, at));
		}
		assert_int_equal(warm_yaml_write(yaml, &out, &anew, NULL), 0);
		assert_int_equal(anew, 0);
		assert_int_equal(out.bytes, strlen(rows[i]));
		if (out.bytes > 0)
			assert_memory_equal(out.data, rows[i], out.bytes);
		json_decref(copies);
	}
}

TEST(only_the_document_that_was_replaced_changes)
{
	static const char text[] =
		"# 1\na: &x {p: 1}\nb: *x\n---\n# 2\na: &x {p: 1} # c\nb: *x\n---\n"
		"# 3\na: 1\n";
	scope_yaml struct warm_yaml *yaml = parsed(text);
	scope_buf struct warm_buf out = WARM_BUF_INIT;
	json_t *second = json("{\"a\": {\"p\": 2}, \"b\": {\"p\": 1}}"),
	       *third = json("{\"a\": 2}");
	size_t anew;

	warm_yaml_replace(yaml, 1, second);
	warm_yaml_replace(yaml, 2, third);
	assert_int_equal(warm_yaml_write(yaml, &out, &anew, NULL), 0);
	assert_int_equal(anew, 1);
	warm_buf_put_u8(&out, '\0');
	assert_string_equal((const char *)out.data,
			    "# 1\na: &x {p: 1}\nb: *x\n---\n# 2\na:\n  p: 2\nb:\n  p: 1\n---\n"
			    "# 3\na: 2\n");
	json_decref(second);
	json_decref(third);
}

TEST(what_cannot_be_written_is_an_error_and_not_another_meaning)
{
	static const char text[] = "--- &x [1, 2]\n";
	scope_yaml struct warm_yaml *yaml = parsed("--- {a: &x {b: 1}, c: *x}\n");
	scope_buf struct warm_buf out = WARM_BUF_INIT;
	struct warm_error err = { 0 };
	json_t *wanted = json("{\"a\": {\"b\": 1}, \"c\": {\"b\": 2}}");
	size_t anew = 7;

	warm_yaml_replace(yaml, 0, wanted);
	assert_int_equal(warm_yaml_write(yaml, &out, &anew, &err), WARM_UNSUPPORTED);
	assert_string_equal(err.msg, "f:1: a document on the line of its '---'");
	assert_int_equal(out.bytes, 0);
	assert_int_equal(anew, 7);
	json_decref(wanted);
	assert_written(text, "[1]", "--- [1]\n", 0);
}

TEST(what_stands_behind_a_byte_order_mark_is_changed_in_its_place)
{
	assert_written("\xef\xbb\xbf"
		       "a: 1 # c\nb:\n- x\n- z\nd: 1\n",
		       "{\"a\": 2, \"b\": [\"x\", \"w\", \"z\"], \"d\": 3}",
		       "\xef\xbb\xbf"
		       "a: 2 # c\nb:\n- x\n- w\n- z\nd: 3\n",
		       0);
}

TEST(text_is_never_folded)
{
	scope_free char *words = repeated("", "some words ", 1000, "end");
	scope_free char *lines = repeated(words, "\nmore: # of it", 3, "\n");
	json_t *value = json_pack("{s:s,s:s}", "a", words, "b", lines);
	scope_buf struct warm_buf out = WARM_BUF_INIT;
	size_t n = 0;

	assert_int_equal(warm_yaml_emit(value, 2, &out, NULL), 0);
	warm_buf_put_u8(&out, '\0');
	for (const char *p = (const char *)out.data; *p != '\0'; p++)
		n += *p == '\n';
	assert_int_equal(n, 1 + 1 + 4);
	assert_memory_equal(out.data, "  a: some words", 15);
	assert_non_null(strstr((const char *)out.data, "\n  b: |\n    some words"));
	scope_free char *want = dump(value);
	assert_read((const char *)out.data, want);
	json_decref(value);
}

TEST(a_value_is_emitted_so_that_it_is_read_again)
{
	static const char *const rows[] = {
		"{}",
		"[]",
		"null",
		"\"\"",
		"\"a\\nb\"",
		"\"\\n\"",
		"1",
		"-1",
		"1.0",
		"1e100",
		"0.1",
		"-0.0",
		"true",
		"[[], {}, [[]], [{}], [null]]",
		"{\"\": {\"a\": []}}",
		"[\"\\u0000\", \"\\u001b\", \"\\u0085\", \"\\u2028\", \"\\ufeff\", "
		"\"\\ud83d\\ude00\"]",
		"9007199254740993",
		"9223372036854775807",
		"1e22",
		"123456789012345680000.0",
		"{\"a\": \" x\", \"b\": \"x \", \"c\": \"x\\n \", \"d\": \"\\n\\nx\", \"e\": "
		"\"x\\n\\n\"}",
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		for (unsigned indent = 0; indent < 5; indent += 2) {
			scope_buf struct warm_buf out = WARM_BUF_INIT;
			json_t *value = json(rows[i]);
			assert_int_equal(warm_yaml_emit(value, indent, &out, NULL), 0);
			warm_buf_put_u8(&out, '\0');
			assert_read((const char *)out.data, rows[i]);
			json_decref(value);
		}
	}
}

TEST(json_errors_have_a_place)
{
	struct warm_error err = { 0 };
	json_t *value = NULL;

	assert_int_equal(warm_json_parse("f", "{\"a\": [1]}", 10, &value, &err), 0);
	json_decref(value);
	value = NULL;
	assert_int_equal(warm_json_parse("f", "{\"a\":\n x}", 9, &value, &err), WARM_INVALID);
	assert_non_null(strstr(err.msg, "f:2:2: "));
	assert_int_equal(warm_json_parse("f", "{\"a\":1,\"a\":1}", 13, &value, &err), WARM_INVALID);
	assert_null(value);
}

/* ---- random documents ---- */

struct maker {
	struct dice dice;
	struct warm_buf text;
	unsigned n;  /* names that have been given */
	bool simple; /* block collections and scalars alone */
};

static void put_line_end(struct maker *m)
{
	if (roll_below(&m->dice, 5) == 0)
		warm_buf_printf(&m->text, "  # line %u", m->n++);
	warm_buf_put_u8(&m->text, '\n');
	if (roll_below(&m->dice, 12) == 0)
		warm_buf_put_u8(&m->text, '\n');
}

static void put_comment(struct maker *m, unsigned indent)
{
	if (roll_below(&m->dice, 6) == 0)
		warm_buf_printf(&m->text, "%*s# above %u\n", (int)indent, "", m->n++);
}

/* A scalar or a flow collection, after "key:" or "-". */
static void put_leaf(struct maker *m, unsigned indent)
{
	static const char *const leaves[] = {
		"1",
		"yes",
		"'it''s'",
		"\"a\\tb\"",
		"plain text",
		"\xc3\xa9\xe6\x97\xa5",
		"0x1f",
		"\"\xf0\x9f\x98\x80\"",
		"null",
		"~",
		"",
		"\"1\"",
		"http://x:80/z#f",
		"!!str 1",
	};
	static const char *const flows[] = { "[]",	    "{}",
					     "[a, b]",	    "{a: 1, b: [c]}",
					     "[{name: x}]", "{\"a\": \"b\"}",
					     "&u 5",	    "*top" };
	static const char *const blocks[] = { "|", "|-", "|+", ">", ">-", "|2" };
	uint64_t what = roll_below(&m->dice, m->simple ? 14 : 20);

	if (what < 11) {
		warm_buf_printf(&m->text, " %s", leaves[roll_below(&m->dice, COUNT(leaves))]);
		put_line_end(m);
	} else if (what < 14) {
		warm_buf_printf(&m->text, " %s\n", blocks[roll_below(&m->dice, COUNT(blocks))]);
		for (uint64_t i = roll_below(&m->dice, 3) + 1; i > 0; i--)
			warm_buf_printf(&m->text, "%*sblock %u # text\n", (int)indent + 2, "",
					m->n++);
		if (roll_below(&m->dice, 3) == 0)
			warm_buf_put_u8(&m->text, '\n');
	} else {
		warm_buf_printf(&m->text, " %s", flows[roll_below(&m->dice, COUNT(flows))]);
		put_line_end(m);
	}
}

static void put_entries(struct maker *m, unsigned indent, unsigned depth, bool on_line);

static void put_items(struct maker *m, unsigned indent, unsigned depth, bool on_line)
{
	for (uint64_t i = roll_below(&m->dice, 4) + 1; i > 0; i--) {
		if (!on_line) {
			put_comment(m, indent);
			warm_buf_printf(&m->text, "%*s", (int)indent, "");
		}
		on_line = false;
		warm_buf_put_u8(&m->text, '-');
		uint64_t what = depth == 0 ? 0 : roll_below(&m->dice, m->simple ? 5 : 6);
		if (what < 3) {
			put_leaf(m, indent);
		} else if (what < 5) {
			warm_buf_put_u8(&m->text, ' ');
			put_entries(m, indent + 2, depth - 1, true);
		} else {
			warm_buf_put_u8(&m->text, ' ');
			put_items(m, indent + 2, depth - 1, true);
		}
	}
}

static void put_entries(struct maker *m, unsigned indent, unsigned depth, bool on_line)
{
	for (uint64_t i = roll_below(&m->dice, 4) + 1; i > 0; i--) {
		if (!on_line) {
			put_comment(m, indent);
			warm_buf_printf(&m->text, "%*s", (int)indent, "");
		}
		on_line = false;
		warm_buf_printf(&m->text,
				roll_below(&m->dice, 8) == 0 ? "\"k%u\":" : "k%u:", m->n++);
		uint64_t what = depth == 0 ? 0 : roll_below(&m->dice, 6);
		if (what < 2) {
			put_leaf(m, indent);
			continue;
		}
		if (!m->simple && roll_below(&m->dice, 8) == 0)
			warm_buf_printf(&m->text, " &a%u", m->n++);
		put_line_end(m);
		if (what < 4)
			put_entries(m, indent + 2 + 2 * (unsigned)roll_below(&m->dice, 2),
				    depth - 1, false);
		else
			put_items(m, indent + 2 * (unsigned)roll_below(&m->dice, 2), depth - 1,
				  false);
	}
}

static json_t *new_value(struct maker *m)
{
	switch (roll_below(&m->dice, 6)) {
	case 0:
		return json_pack("{s:s,s:[i,s]}", "name", "new", "list", 1, "yes");
	case 1:
		return json_pack("[{s:n}]", "x");
	case 2:
		return json_string("two\nlines\n");
	case 3:
		return json_integer((json_int_t)roll_below(&m->dice, 100));
	case 4:
		return json_string("a: b # c");
	default:
		return json_string("\xc3\xbc");
	}
}

static void add_somewhere(struct maker *m, json_t *value)
{
	const char *key;
	json_t *one;
	char name[32];
	size_t i;

	json_object_foreach(value, key, one)
		add_somewhere(m, one);
	json_array_foreach(value, i, one)
		add_somewhere(m, one);
	if (roll_below(&m->dice, 3) > 0)
		return;
	if (json_object_size(value) > 0) {
		snprintf(name, sizeof(name), "new%u", m->n++);
		json_object_set_new(value, name, new_value(m));
	} else if (json_array_size(value) > 0) {
		json_array_insert_new(value, roll_below(&m->dice, json_array_size(value) + 1),
				      json_pack("{s:i}", "unique", (int)m->n++));
	}
}

static void change_somewhere(struct maker *m, json_t *value)
{
	const char *key;
	json_t *one;
	void *next;
	size_t i;

	json_object_foreach_safe(value, next, key, one)
	{
		change_somewhere(m, one);
		uint64_t what = roll_below(&m->dice, 10);
		if (what == 0)
			json_object_del(value, key);
		else if (what == 1)
			json_object_set_new(value, key, new_value(m));
	}
	json_array_foreach(value, i, one) {
		change_somewhere(m, one);
		if (roll_below(&m->dice, 8) == 0)
			json_array_set_new(value, i, new_value(m));
	}
	if (json_array_size(value) > 0 && roll_below(&m->dice, 4) == 0)
		json_array_remove(value, roll_below(&m->dice, json_array_size(value)));
	if (roll_below(&m->dice, 3) == 0)
		add_somewhere(m, value);
}

static const char *next_line(const char *line)
{
	const char *end = strchr(line, '\n');

	return end != NULL ? end + 1 : line + strlen(line);
}

/* Every line of `text` is in `out`, in order. */
static void assert_lines_kept(const char *text, const char *out)
{
	const char *at = out;

	for (const char *line = text; *line != '\0'; line = next_line(line)) {
		size_t n = (size_t)(next_line(line) - line);
		while (*at != '\0' &&
		       ((size_t)(next_line(at) - at) != n || memcmp(at, line, n) != 0))
			at = next_line(at);
		if (*at == '\0')
			fail_msg("'%.*s' is lost:\n%s---- of\n%s", (int)n, line, out, text);
		at = next_line(at);
	}
}

TEST(of_a_random_document_that_grows_every_line_stays_in_its_place)
{
	for (uint64_t seed = 0; seed < 3000; seed++) {
		struct maker m = { .dice = { seed }, .text = WARM_BUF_INIT, .simple = true };
		size_t anew = 99;
		put_comment(&m, 0);
		put_entries(&m, 0, 4, false);
		put_comment(&m, 0);
		warm_buf_put_u8(&m.text, '\0');
		const char *text = (const char *)m.text.data;
		scope_yaml struct warm_yaml *yaml = parsed(text);
		json_t *wanted = json_deep_copy(warm_yaml_value(yaml, 0));
		add_somewhere(&m, wanted);
		scope_free char *out = written(text, wanted, &anew);
		if (anew != 0)
			fail_msg("anew, seed %d:\n%s", (int)seed, text);
		assert_lines_kept(text, out);
		/* Order is no part of json_equal(). */
		scope_yaml struct warm_yaml *again = parsed(out);
		scope_free char *have = dump(warm_yaml_value(again, 0)), *want = dump(wanted);
		assert_string_equal(have, want);
		json_decref(wanted);
		warm_buf_release(&m.text);
	}
}

TEST(a_random_document_that_changes_at_random_means_what_it_should)
{
	size_t all_anew = 0;

	for (uint64_t seed = 0; seed < 6000; seed++) {
		struct maker m = { .dice = { seed }, .text = WARM_BUF_INIT };
		size_t anew = 99;
		warm_buf_printf(&m.text, "top: &top {t: 1}\n");
		put_entries(&m, 0, 4, false);
		warm_buf_put_u8(&m.text, '\0');
		const char *text = (const char *)m.text.data;
		scope_yaml struct warm_yaml *yaml = parsed(text);
		json_t *wanted = json_deep_copy(warm_yaml_value(yaml, 0));
		change_somewhere(&m, wanted);
		scope_free char *out = written(text, wanted, &anew);
		all_anew += anew;
		json_decref(wanted);
		warm_buf_release(&m.text);
	}
	print_message("note: %zu of 6000 anew\n", all_anew);
}

/* ---- faults ---- */

static long left; /* allocations that succeed */

static void *scarce(size_t bytes)
{
	return left-- > 0 ? malloc(bytes) : NULL;
}

TEST(without_memory_nothing_is_written_and_nothing_leaks)
{
	static const char text[] =
		"a: &x {p: 1, q: [1.5, yes, ~]}\nb:\n  <<: *x\n  8080: z\nc: [1]\n"
		"d:\n- e: f\n";
	json_malloc_t old_malloc;
	json_free_t old_free;
	bool done = false;

	json_t *wanted = json(
		"{\"a\": {\"p\": 1, \"q\": [1.5, true, null]}, \"b\": {\"p\": 2, \"q\": [1.5, "
		"true, "
		"null], \"8080\": \"z\"}, \"c\": [1, \"no\"], \"d\": [{\"e\": \"f\", \"g\": []}]}");
	json_get_alloc_funcs(&old_malloc, &old_free);
	for (long n = 0; !done; n++) {
		scope_yaml struct warm_yaml *yaml = NULL;
		scope_buf struct warm_buf out = WARM_BUF_INIT;
		struct warm_error err = { 0 };
		size_t anew;
		left = n;
		json_set_alloc_funcs(scarce, free);
		int rc = warm_yaml_parse("f", text, strlen(text), &yaml, &err);
		if (rc == 0) {
			warm_yaml_replace(yaml, 0, wanted);
			rc = warm_yaml_write(yaml, &out, &anew, &err);
		}
		json_set_alloc_funcs(old_malloc, old_free);
		assert_int_equal(rc, err.status);
		done = rc == 0;
		if (!done) {
			if (rc != WARM_NO_MEMORY)
				fail_msg("the %ld.: %s", n, err.msg);
			assert_int_equal(out.bytes, 0);
			continue;
		}
		assert_true(n > 50);
		assert_int_equal(anew, 0);
		warm_buf_put_u8(&out, '\0');
		scope_yaml struct warm_yaml *again = parsed((const char *)out.data);
		assert_true(json_equal(warm_yaml_value(again, 0), wanted));
	}
	json_decref(wanted);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_and_tagged_scalars_are_resolved_as_kubernetes_does),
		cmocka_unit_test(styles_anchors_merges_and_keys_are_read_as_kubernetes_does),
		cmocka_unit_test(
			merged_keys_give_way_to_written_ones_and_the_first_of_several_counts),
		cmocka_unit_test(what_is_refused_is_told_by_name_line_and_column),
		cmocka_unit_test(a_nul_in_a_string_is_kept),
		cmocka_unit_test(a_file_has_documents_with_their_lines),
		cmocka_unit_test(an_empty_document_is_null),
		cmocka_unit_test(json_may_stream_and_has_escapes_that_yaml_lacks),
		cmocka_unit_test(a_hundred_levels_are_deep_enough),
		cmocka_unit_test(aliases_that_grow_are_refused_before_they_fill_the_memory),
		cmocka_unit_test(sixteen_mebibytes_are_large_enough),
		cmocka_unit_test(what_changed_is_written_where_it_belongs),
		cmocka_unit_test(what_did_not_change_keeps_its_bytes),
		cmocka_unit_test(only_the_document_that_was_replaced_changes),
		cmocka_unit_test(what_cannot_be_written_is_an_error_and_not_another_meaning),
		cmocka_unit_test(what_stands_behind_a_byte_order_mark_is_changed_in_its_place),
		cmocka_unit_test(text_is_never_folded),
		cmocka_unit_test(a_value_is_emitted_so_that_it_is_read_again),
		cmocka_unit_test(json_errors_have_a_place),
		cmocka_unit_test(of_a_random_document_that_grows_every_line_stays_in_its_place),
		cmocka_unit_test(a_random_document_that_changes_at_random_means_what_it_should),
		cmocka_unit_test(without_memory_nothing_is_written_and_nothing_leaks),
	};

	return RUN(tests);
}
