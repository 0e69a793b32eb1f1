/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The small XML documents of S3 and STS: elements and their text, nothing else.
 *
 * A document with a DTD is refused: so it has no entities of its own. Names are given without
 * their namespace.
 *
 * Threads: pure functions.
 */
#ifndef WARM_STORE_XML_H
#define WARM_STORE_XML_H

#include <stddef.h>

#include "lib/base/error.h"

/* At an element's end: its path from the root ("ListBucketResult/Contents/Key") and the text that
 * stands in it directly. What it returns stops the parse when it isn't 0. */
typedef int (*warm_xml_fn)(void *arg, const char *path, const char *text, struct warm_error *err);

/* CORRUPT: malformed, with a DTD, deeper than 16 elements, an element's text over 4 KiB. */
int warm_xml_parse(const void *data, size_t bytes, warm_xml_fn fn, void *arg,
		   struct warm_error *err) WARM_CHECKED;

#endif
