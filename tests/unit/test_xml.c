/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include "lib/base/buf.h"
#include "lib/store/xml.h"

static int note(void *arg, const char *path, const char *text, struct warm_error *err)
{
	(void)err;
	warm_buf_printf(arg, "%s=%s\n", path, text);
	return 0;
}

static int refuse(void *arg, const char *path, const char *text, struct warm_error *err)
{
	size_t *calls = arg;

	(void)path;
	(void)text;
	++*calls;
	return warm_error_set(err, WARM_EXISTS, "enough");
}

static char *parse(const char *xml, int want, struct warm_error *err)
{
	struct warm_buf buf = WARM_BUF_INIT;

	assert_int_equal(warm_xml_parse(xml, strlen(xml), note, &buf, err), want);
	warm_buf_put_u8(&buf, 0);
	return (char *)buf.data;
}

static void assert_parsed(const char *xml, const char *want)
{
	char *have = parse(xml, 0, NULL);

	assert_string_equal(have, want);
	free(have);
}

static void assert_refused(const char *xml, const char *reason)
{
	struct warm_error err = { 0 };

	free(parse(xml, WARM_CORRUPT, &err));
	assert_int_equal(err.status, WARM_CORRUPT);
	assert_non_null(strstr(err.msg, reason));
}

TEST(elements_are_told_by_path_at_their_end)
{
	assert_parsed("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
		      "<R><C><Key>a</Key><Size>1</Size></C><C><Key/></C><T b=\"c\">true</T></R>\n",
		      "R/C/Key=a\nR/C/Size=1\nR/C=\nR/C/Key=\nR/C=\nR/T=true\nR=\n");
}

TEST(text_is_what_stands_in_an_element_behind_its_last_child)
{
	assert_parsed("<r>\n <a>1</a>\n <b/>end</r>", "r/a=1\nr/b=\nr=end\n");
}

TEST(a_namespace_is_no_part_of_a_name)
{
	assert_parsed("<R xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Key>k</Key></R>",
		      "R/Key=k\nR=\n");
	assert_parsed("<x:R xmlns:x=\"urn:a\"><x:Key>k</x:Key></x:R>", "R/Key=k\nR=\n");
}

TEST(entities_and_cdata_are_text)
{
	assert_parsed("<K>a&amp;b&lt;&gt;&quot;&apos;&#x20AC;&#65;</K>", "K=a&b<>\"'\xe2\x82\xac"
									 "A\n");
	assert_parsed("<K>a<![CDATA[<b>&amp;]]>c<!-- no --></K>", "K=a<b>&amp;c\n");
}

TEST(a_dtd_is_refused)
{
	assert_refused("<!DOCTYPE R><R/>", "DTD");
	assert_refused("<!DOCTYPE R SYSTEM \"file:///etc/passwd\"><R/>", "DTD");
	assert_refused(
		"<!DOCTYPE r [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\">"
		"<!ENTITY c \"&b;&b;&b;&b;&b;&b;&b;&b;\"><!ENTITY d \"&c;&c;&c;&c;&c;&c;\">]>"
		"<r>&d;</r>",
		"DTD");
	assert_refused("<!DOCTYPE r [<!ENTITY f SYSTEM \"file:///etc/passwd\">]><r>&f;</r>", "DTD");
}

TEST(sixteen_elements_are_deep_enough)
{
	char xml[400] = "", want[64];

	for (int i = 0; i < 16; i++)
		strcat(xml, "<a>");
	for (int i = 0; i < 16; i++)
		strcat(xml, "</a>");
	char *have = parse(xml, 0, NULL);
	snprintf(want, sizeof(want), "a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a=\n");
	assert_memory_equal(have, want, strlen(want));
	free(have);
	memmove(xml + 51, xml + 48, strlen(xml + 48) + 1);
	memcpy(xml + 48, "<a>", 3);
	strcat(xml, "</a>");
	assert_refused(xml, "too deep");
}

TEST(a_path_that_is_too_long_is_refused)
{
	char name[260], xml[1200];

	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	snprintf(xml, sizeof(xml), "<%s><%s/></%s>", name, name, name);
	assert_refused(xml, "too deep");
}

TEST(a_text_has_at_most_four_kilobytes)
{
	struct warm_buf xml = WARM_BUF_INIT;

	for (int extra = 0; extra < 2; extra++) {
		xml.bytes = 0;
		warm_buf_printf(&xml, "<a><b>");
		for (int i = 0; i < 4096 + extra; i++)
			warm_buf_put_u8(&xml, 'x');
		warm_buf_printf(&xml, "</b></a>");
		warm_buf_put_u8(&xml, 0);
		if (extra == 0)
			free(parse((char *)xml.data, 0, NULL));
		else
			assert_refused((char *)xml.data, "a/b is too long");
	}
	warm_buf_release(&xml);
}

TEST(what_is_malformed_is_corrupt)
{
	static const char *const rows[] = { "",
					    " ",
					    "no xml",
					    "<a>",
					    "<a></b>",
					    "<a/><b/>",
					    "<a>&nbsp;</a>",
					    "<a>\x01</a>",
					    "<a>\xff</a>",
					    "<x:a/>",
					    "<html><br></html>" };

	for (size_t i = 0; i < COUNT(rows); i++)
		assert_refused(rows[i], "XML");
	assert_int_equal(warm_xml_parse("<a>\0</a>", 8, note, NULL, NULL), WARM_CORRUPT);
}

TEST(a_callback_that_fails_stops_the_parse_and_its_error_is_returned)
{
	static const char xml[] = "<r><a>1</a><b/><c>2</c></r>";
	struct warm_error err = { 0 };
	size_t calls = 0;

	assert_int_equal(warm_xml_parse(xml, strlen(xml), refuse, &calls, &err), WARM_EXISTS);
	assert_int_equal(calls, 1);
	assert_string_equal(err.msg, "enough");
	calls = 0;
	assert_int_equal(warm_xml_parse("<r><b/>", 7, refuse, &calls, NULL), WARM_EXISTS);
	assert_int_equal(calls, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(elements_are_told_by_path_at_their_end),
		cmocka_unit_test(text_is_what_stands_in_an_element_behind_its_last_child),
		cmocka_unit_test(a_namespace_is_no_part_of_a_name),
		cmocka_unit_test(entities_and_cdata_are_text),
		cmocka_unit_test(a_dtd_is_refused),
		cmocka_unit_test(sixteen_elements_are_deep_enough),
		cmocka_unit_test(a_path_that_is_too_long_is_refused),
		cmocka_unit_test(a_text_has_at_most_four_kilobytes),
		cmocka_unit_test(what_is_malformed_is_corrupt),
		cmocka_unit_test(a_callback_that_fails_stops_the_parse_and_its_error_is_returned),
	};

	return RUN(tests);
}
