/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/sync/result.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/file.h"

#define TERMINATION_LOG "/dev/termination-log"

enum { SHORT_KEY_BYTES = 256, SHORT_REASON_BYTES = 16 };

void warm_result_set_text(json_t *object, const char *name, const char *text)
{
	json_t *s = json_string(text);
	char printable[600];

	if (s == NULL) { /* not UTF-8 */
		snprintf(printable, sizeof(printable), "%s", text);
		for (char *p = printable; *p != '\0'; p++)
			if ((unsigned char)*p >= 0x80)
				*p = '?';
		s = json_string(printable);
	}
	json_object_set_new(object, name, s);
}

/* Cut a member to `bytes` at most; not in the middle of a UTF-8 sequence, which jansson refuses. */
static void shorten(json_t *object, const char *name, size_t bytes)
{
	json_t *value = json_object_get(object, name);
	const char *text = json_string_value(value);

	if (text == NULL || json_string_length(value) <= bytes)
		return;
	while (bytes > 0 && ((unsigned char)text[bytes] & 0xc0) == 0x80)
		bytes--;
	json_object_set_new(object, name, json_stringn(text, bytes));
}

char *warm_result_text(json_t *object)
{
	char *text = json_dumps(object, JSON_COMPACT);

	for (size_t room = 512; text != NULL && strlen(text) > WARM_RESULT_BYTES; room /= 2) {
		shorten(object, "reason", room);
		if (room <= 2 * SHORT_REASON_BYTES)
			shorten(object, "key", SHORT_KEY_BYTES);
		free(text);
		text = json_dumps(object, JSON_COMPACT);
		if (room == 0)
			break;
	}
	json_decref(object);
	if (text != NULL && strlen(text) > WARM_RESULT_BYTES)
		text[WARM_RESULT_BYTES] = '\0';
	return text;
}

int warm_result_write(const char *path, const char *text, struct warm_error *err)
{
	struct stat st;

	if (path == NULL && stat(TERMINATION_LOG, &st) == 0 && S_ISREG(st.st_mode))
		path = TERMINATION_LOG;
	if (path == NULL || path[0] == '\0')
		return 0;
	/* A termination log is a mounted file: written in place, it can't be replaced. */
	scope_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_CLOEXEC,
				  0666);
	if (fd < 0)
		return warm_error_errno(err, errno, "result %s", path);
	int rc = warm_file_write(fd, text, strlen(text), err);
	if (rc != 0)
		warm_error_context(err, "result %s", path);
	return rc;
}
