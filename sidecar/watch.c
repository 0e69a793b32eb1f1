/* SPDX-License-Identifier: Apache-2.0 */
#include "sidecar/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "lib/base/file.h"
#include "lib/base/scope.h"
#include "lib/layer/profile.h"
#include "lib/sync/ledger.h"

enum { PROBE_MS = 200 };

void warm_watch_init(struct warm_watch *w, const char *volume, uint64_t max_watches)
{
	*w = (struct warm_watch){ .volume = volume, .max_watches = max_watches };
	w->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	atomic_store(&w->silent, w->fd < 0);
}

void warm_watch_begin(struct warm_watch *w)
{
	atomic_store(&w->watches, 0);
	atomic_store(&w->too_many, false);
}

void warm_watch_dir(void *arg, const char *path)
{
	struct warm_watch *w = arg;
	char full[2 * WARM_PATH_BYTES];

	if (w->fd < 0)
		return;
	if (atomic_load(&w->watches) >= w->max_watches) {
		atomic_store(&w->too_many, true);
		return;
	}
	snprintf(full, sizeof(full), "%s/%s", w->volume, path);
	if (inotify_add_watch(w->fd, full,
			      IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE_SELF |
				      IN_ONLYDIR | IN_DONT_FOLLOW | IN_EXCL_UNLINK) >= 0)
		atomic_fetch_add(&w->watches, 1);
	else if (errno != ENOENT && errno != ENOTDIR)
		atomic_store(&w->too_many, true);
}

bool warm_watch_drain(struct warm_watch *w)
{
	char data[16384] __attribute__((aligned(8)));
	bool any = false;

	for (;;) {
		ssize_t n = read(w->fd, data, sizeof(data));
		if (n <= 0)
			return any;
		for (char *p = data; p < data + n;) {
			const struct inotify_event *e = (const void *)p;
			p += sizeof(*e) + e->len;
			/* Our own directory changes with every ledger; IGNORED is an echo. */
			if ((e->mask & IN_IGNORED) != 0 ||
			    (e->len > 0 && strcmp(e->name, WARM_DIR) == 0))
				continue;
			if (e->len > 0 && (e->mask & IN_ISDIR) == 0 &&
			    warm_profile_skips_file(e->name))
				continue;
			any = true;
		}
	}
}

static bool sees_event(int dir)
{
	char name[] = "notify-probe", path[64];
	scope_close int notify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	struct pollfd p = { .fd = notify, .events = POLLIN };

	snprintf(path, sizeof(path), "/proc/self/fd/%d", dir);
	if (notify < 0 || inotify_add_watch(notify, path, IN_CREATE | IN_ONLYDIR) < 0)
		return false;
	unlinkat(dir, name, 0);
	scope_close int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
				    0600);
	if (fd < 0)
		return false;
	unlinkat(dir, name, 0);
	return poll(&p, 1, PROBE_MS) > 0;
}

void warm_watch_probe(struct warm_watch *w)
{
	scope_close int volume_fd = open(w->volume, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	scope_close int dir = -1;
	bool seen = w->fd >= 0 && volume_fd >= 0 &&
		    warm_beneath_open(volume_fd, WARM_DIR, O_RDONLY | O_DIRECTORY, 0, &dir, NULL) ==
			    0 &&
		    sees_event(dir);

	atomic_store(&w->silent, !seen);
}

bool warm_watch_by_clock(const struct warm_watch *w)
{
	return atomic_load(&w->silent) || atomic_load(&w->too_many);
}
