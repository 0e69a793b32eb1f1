/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct {
	enum warm_status status;
	const char *name;
	int exit_code;
} statuses[] = {
	{ WARM_OK, "ok", 0 },
	{ WARM_INVALID, "invalid", 2 },
	{ WARM_NOT_FOUND, "not-found", 3 },
	{ WARM_TRANSIENT, "transient", 4 },
	{ WARM_CORRUPT, "corrupt", 5 },
	{ WARM_DENIED, "denied", 6 },
	{ WARM_NO_SPACE, "no-space", 7 },
	{ WARM_LIMIT, "limit", 8 },
	{ WARM_NO_MEMORY, "no-memory", 9 },
	{ WARM_CANCELED, "canceled", 10 },
	{ WARM_EXISTS, "exists", 11 },
	{ WARM_UNSUPPORTED, "unsupported", 12 },
	{ WARM_IO, "io", 1 },
};

static void set(struct warm_error *err, enum warm_status status, int os_errno, const char *fmt,
		va_list ap) WARM_PRINTF(4, 0);

static void set(struct warm_error *err, enum warm_status status, int os_errno, const char *fmt,
		va_list ap)
{
	if (err == NULL)
		return;
	err->status = status;
	err->os_errno = os_errno;
	err->http_status = 0;
	vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
}

int warm_error_set(struct warm_error *err, enum warm_status status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	set(err, status, 0, fmt, ap);
	va_end(ap);
	return status;
}

static enum warm_status status_of_errno(int os_errno)
{
	switch (os_errno) {
	case ENOENT:
	case ENOTDIR:
		return WARM_NOT_FOUND;
	case EACCES:
	case EPERM:
	case EROFS:
		return WARM_DENIED;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return WARM_NO_SPACE;
	case ENOMEM:
		return WARM_NO_MEMORY;
	case EADDRINUSE:
	case EEXIST:
	case ENOTEMPTY:
		return WARM_EXISTS;
	case ELOOP:
	case EXDEV:
		return WARM_CORRUPT;
	case EINTR:
	case EAGAIN:
	case EBUSY:
	case ETIMEDOUT:
	case ESTALE:
		return WARM_TRANSIENT;
	case ENAMETOOLONG:
		return WARM_LIMIT;
	default:
		return WARM_IO;
	}
}

int warm_error_errno(struct warm_error *err, int os_errno, const char *fmt, ...)
{
	enum warm_status status = status_of_errno(os_errno);
	char text[96];
	va_list ap;

	if (err == NULL)
		return status;
	va_start(ap, fmt);
	set(err, status, os_errno, fmt, ap);
	va_end(ap);
	size_t used = strlen(err->msg);
	snprintf(err->msg + used, sizeof(err->msg) - used, ": %s",
		 strerror_r(os_errno, text, sizeof(text)));
	return status;
}

void warm_error_context(struct warm_error *err, const char *fmt, ...)
{
	char old[sizeof(err->msg)];
	va_list ap;

	if (err == NULL)
		return;
	memcpy(old, err->msg, sizeof(old));
	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	size_t used = strlen(err->msg);
	snprintf(err->msg + used, sizeof(err->msg) - used, ": %s", old);
}

int warm_error_nomem(struct warm_error *err, size_t bytes)
{
	return warm_error_set(err, WARM_NO_MEMORY, "out of memory for %zu bytes", bytes);
}

void warm_error_keep_first(int *rc, struct warm_error *err, int next,
			   const struct warm_error *next_err)
{
	if (*rc != 0 || next == 0)
		return;
	*rc = next;
	if (err != NULL)
		*err = *next_err;
}

const char *warm_status_name(int status)
{
	for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
		if ((int)statuses[i].status == status)
			return statuses[i].name;
	return "io";
}

int warm_status_exit_code(int status)
{
	for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
		if ((int)statuses[i].status == status)
			return statuses[i].exit_code;
	return 1;
}
