/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/xml.h"

#include <expat.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

enum { MAX_DEPTH = 16, TEXT_BYTES = 4096, PATH_BYTES = 512 };

struct document {
	XML_Parser parser;
	warm_xml_fn fn;
	void *arg;
	struct warm_error *err;
	int status;
	int depth;
	size_t ends[MAX_DEPTH]; /* of the path, before each element */
	char path[PATH_BYTES];
	char text[TEXT_BYTES + 1];
	size_t text_bytes;
};

static void stop(struct document *d, int status)
{
	if (d->status == 0)
		d->status = status;
	XML_StopParser(d->parser, XML_FALSE);
}

static void on_start(void *arg, const char *name, const char **attributes)
{
	struct document *d = arg;
	size_t at = strlen(d->path);
	const char *local = strrchr(name, '|'); /* the parser puts the namespace before it */

	(void)attributes;
	local = local != NULL ? local + 1 : name;
	if (d->depth == MAX_DEPTH || at + strlen(local) + 2 > sizeof(d->path)) {
		stop(d, warm_error_set(d->err, WARM_CORRUPT, "XML: nested too deep"));
		return;
	}
	d->ends[d->depth++] = at;
	snprintf(d->path + at, sizeof(d->path) - at, "%s%s", at > 0 ? "/" : "", local);
	d->text_bytes = 0;
}

static void on_text(void *arg, const char *text, int bytes)
{
	struct document *d = arg;

	if ((size_t)bytes > TEXT_BYTES - d->text_bytes) {
		stop(d, warm_error_set(d->err, WARM_CORRUPT, "XML: %.100s is too long", d->path));
		return;
	}
	memcpy(d->text + d->text_bytes, text, (size_t)bytes);
	d->text_bytes += (size_t)bytes;
}

static void on_end(void *arg, const char *name)
{
	struct document *d = arg;

	(void)name;
	if (d->status != 0)
		return;
	d->text[d->text_bytes] = '\0';
	int rc = d->fn(d->arg, d->path, d->text, d->err);
	d->path[d->ends[--d->depth]] = '\0';
	d->text_bytes = 0;
	if (rc != 0)
		stop(d, rc);
}

static void on_doctype(void *arg, const char *name, const char *system, const char *public, int own)
{
	struct document *d = arg;

	(void)name;
	(void)system;
	(void)public;
	(void)own;
	stop(d, warm_error_set(d->err, WARM_CORRUPT, "XML: a DTD is refused"));
}

int warm_xml_parse(const void *data, size_t bytes, warm_xml_fn fn, void *arg,
		   struct warm_error *err)
{
	struct document d = { .fn = fn, .arg = arg, .err = err };

	if (bytes > INT_MAX)
		return warm_error_set(err, WARM_CORRUPT, "XML: too long");
	d.parser = XML_ParserCreateNS(NULL, '|');
	if (d.parser == NULL)
		return warm_error_nomem(err, bytes);
	XML_SetUserData(d.parser, &d);
	XML_SetElementHandler(d.parser, on_start, on_end);
	XML_SetCharacterDataHandler(d.parser, on_text);
	XML_SetStartDoctypeDeclHandler(d.parser, on_doctype);
	int rc = XML_Parse(d.parser, data, (int)bytes, 1) == XML_STATUS_OK ? 0 : WARM_CORRUPT;
	if (d.status != 0)
		rc = d.status;
	else if (rc != 0)
		rc = warm_error_set(err, WARM_CORRUPT, "XML, line %lu: %s",
				    XML_GetCurrentLineNumber(d.parser),
				    XML_ErrorString(XML_GetErrorCode(d.parser)));
	XML_ParserFree(d.parser);
	return rc;
}
