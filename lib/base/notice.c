/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/notice.h"

#include <stdarg.h>
#include <stdio.h>

void warm_notice(const struct warm_notices *notices, const char *event, const char *fmt, ...)
{
	char text[768];
	va_list ap;

	if (notices == NULL || notices->fn == NULL)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	notices->fn(notices->arg, event, text);
}
