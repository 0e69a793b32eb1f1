/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cleanup at the end of a scope.
 *
 *	scope_free char *path = strdup(x);     freed on every way out
 *	scope_close int fd = open(...);        closed on every way out
 *	*ret_path = take_ptr(path);            ownership moves out, nothing is freed
 *
 * A type with its own release function has its macro beside it, made with WARM_SCOPE.
 */
#ifndef WARM_BASE_SCOPE_H
#define WARM_BASE_SCOPE_H

#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

#define WARM_SCOPE(fn) __attribute__((cleanup(fn)))
#define WARM_CHECKED __attribute__((warn_unused_result))
#define WARM_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

static inline void warm_scope_free(void *p)
{
	free(*(void **)p);
}

static inline void warm_scope_close(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void warm_scope_closedir(DIR **dir)
{
	if (*dir != NULL)
		closedir(*dir);
}

#define scope_free WARM_SCOPE(warm_scope_free)
#define scope_close WARM_SCOPE(warm_scope_close)
#define scope_closedir WARM_SCOPE(warm_scope_closedir)

#define take_ptr(p)                      \
	__extension__({                  \
		__auto_type taken = (p); \
		(p) = NULL;              \
		taken;                   \
	})

static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

#endif
