/* SPDX-License-Identifier: Apache-2.0 */
#include "sidecar/holder.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "lib/base/file.h"
#include "lib/sync/ledger.h"

#define HOLDER_PATH WARM_DIR "/sidecar"

static int open_lock(const char *volume, int flags, int *ret_fd, struct warm_error *err)
{
	scope_close int volume_fd = open(volume, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (volume_fd < 0)
		return warm_error_errno(err, errno, "volume %s", volume);
	int rc = warm_beneath_open(volume_fd, HOLDER_PATH, flags, 0666, ret_fd, err);
	if (rc != 0)
		warm_error_context(err, "volume %s", volume);
	return rc;
}

int warm_holder_take(const char *volume, int *ret_fd, struct warm_error *err)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	scope_close int fd = -1;
	int rc = open_lock(volume, O_RDWR | O_CREAT, &fd, err);

	if (rc != 0)
		return rc;
	if (fcntl(fd, F_SETLK, &lock) != 0) {
		if (errno == EAGAIN || errno == EACCES)
			return warm_error_set(err, WARM_EXISTS, "another sidecar is at work in %s",
					      volume);
		return warm_error_errno(err, errno, "volume %s: lock " HOLDER_PATH, volume);
	}
	*ret_fd = take_fd(&fd);
	return 0;
}

bool warm_holder_counts(const char *volume, int fd)
{
	scope_close int volume_fd = open(volume, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	scope_close int dir = -1;
	const char *name = NULL;
	struct stat held, named;

	return volume_fd >= 0 && fstat(fd, &held) == 0 &&
	       warm_beneath_parent(volume_fd, HOLDER_PATH, &dir, &name, NULL) == 0 &&
	       fstatat(dir, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
	       held.st_dev == named.st_dev && held.st_ino == named.st_ino;
}

int warm_holder_tell(const char *volume, struct warm_error *err)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	scope_close int fd = -1;
	int rc = open_lock(volume, O_RDWR, &fd, err);

	if (rc != 0)
		return rc;
	if (fcntl(fd, F_GETLK, &lock) != 0)
		return warm_error_errno(err, errno, "volume %s: look at " HOLDER_PATH, volume);
	if (lock.l_type == F_UNLCK || lock.l_pid <= 0)
		return warm_error_set(err, WARM_NOT_FOUND, "no sidecar is at work in %s", volume);
	if (kill(lock.l_pid, SIGUSR2) != 0)
		return warm_error_errno(err, errno, "signal process %d", (int)lock.l_pid);
	return 0;
}
