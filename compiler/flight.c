/* SPDX-License-Identifier: Apache-2.0 */
#include "compiler/flight.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/kernel/entry.h"

#define LOCK_PATH WARM_KERNEL_DIR "/lock"

enum { FIRST_NAP_NS = 1000000, LAST_NAP_NS = 16000000 };

struct warm_flight {
	struct warm_flights *all;
	struct warm_flight *next;
	struct warm_hash128 key;
	unsigned followers; /* still to take what it landed with */
	bool landed;
	uint8_t *data;
	size_t bytes;
	int lock_fd; /* -1: not locked */
	struct warm_fd_id lock_id;
	off_t lock_at;
};

struct warm_flights {
	pthread_mutex_t lock;
	pthread_cond_t landed;
	struct warm_flight *list; /* as many as compiles run: few */
	_Atomic int cache_fd;
};

static void init_landed(pthread_cond_t *cond)
{
	pthread_condattr_t monotonic;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

struct warm_flights *warm_flights_new(int cache_fd)
{
	struct warm_flights *f = calloc(1, sizeof(*f));

	if (f == NULL)
		return NULL;
	pthread_mutex_init(&f->lock, NULL);
	init_landed(&f->landed);
	f->cache_fd = cache_fd;
	return f;
}

void warm_flights_use(struct warm_flights *f, int cache_fd)
{
	f->cache_fd = cache_fd;
}

void warm_flights_free(struct warm_flights *f)
{
	if (f == NULL)
		return;
	pthread_cond_destroy(&f->landed);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

void warm_flights_fork(struct warm_flights *f, enum warm_fork phase)
{
	if (phase == WARM_FORK_PREPARE) {
		pthread_mutex_lock(&f->lock);
		return;
	}
	/* Who flies them are the parent's threads, who will never land here. */
	if (phase == WARM_FORK_CHILD) {
		for (struct warm_flight *one = f->list, *next; one != NULL; one = next) {
			next = one->next;
			if (warm_fd_is(one->lock_fd, one->lock_id))
				close(one->lock_fd);
			free(one->data);
			free(one);
		}
		f->list = NULL;
		init_landed(&f->landed);
	}
	pthread_mutex_unlock(&f->lock);
}

/* Under the lock. */
static void unlink_flight(struct warm_flights *f, struct warm_flight *one)
{
	struct warm_flight **at = &f->list;

	while (*at != NULL && *at != one)
		at = &(*at)->next;
	if (*at != NULL)
		*at = one->next;
}

static void follow(struct warm_flights *f, struct warm_flight *one, int64_t wait_ms,
		   uint8_t **ret_data, size_t *ret_bytes)
{
	struct timespec end = warm_timespec_of_ns(warm_clock_ns() + wait_ms * 1000000);
	int rc = 0;

	one->followers++;
	while (!one->landed && rc == 0)
		rc = pthread_cond_timedwait(&f->landed, &f->lock, &end);
	one->followers--;
	if (!one->landed)
		return;
	if (one->data != NULL && (*ret_data = malloc(one->bytes + 1)) != NULL) {
		memcpy(*ret_data, one->data, one->bytes);
		*ret_bytes = one->bytes;
	}
	if (one->followers == 0) {
		free(one->data);
		free(one);
	}
}

void warm_flight_join(struct warm_flights *f, struct warm_hash128 key, int64_t wait_ms,
		      struct warm_flight **ret_flight, uint8_t **ret_data, size_t *ret_bytes)
{
	*ret_flight = NULL;
	*ret_data = NULL;
	*ret_bytes = 0;
	pthread_mutex_lock(&f->lock);
	struct warm_flight *one = f->list;
	while (one != NULL && (one->key.low != key.low || one->key.high != key.high))
		one = one->next;
	if (one != NULL) {
		follow(f, one, wait_ms, ret_data, ret_bytes);
	} else if ((one = calloc(1, sizeof(*one))) != NULL) {
		*one = (struct warm_flight){ .all = f, .next = f->list, .key = key, .lock_fd = -1 };
		f->list = one;
		*ret_flight = one;
	}
	pthread_mutex_unlock(&f->lock);
}

/* ---- between processes ---- */

static int open_lock(int cache_fd)
{
	int fd = openat(cache_fd, LOCK_PATH, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	if (fd >= 0 || errno != ENOENT)
		return fd;
	if (warm_beneath_mkdirs(cache_fd, WARM_KERNEL_DIR, NULL) != 0)
		return -1;
	fd = openat(cache_fd, LOCK_PATH, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
		    0666);
	/* For processes of another uid, whatever the umask was. */
	if (fd >= 0)
		(void)fchmod(fd, 0666);
	return fd;
}

static int set_lock(int fd, short type, off_t at)
{
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1 };
	int rc;

	/* Of the open file description: a thread that opens and closes the file elsewhere in this
	 * process doesn't drop it. */
	do
		rc = fcntl(fd, F_OFD_SETLK, &lock);
	while (rc != 0 && errno == EINTR);
	return rc;
}

bool warm_flight_lock(struct warm_flight *one, struct warm_hash128 fingerprint, int64_t wait_ms)
{
	int64_t end_ms = warm_clock_ms() + wait_ms;
	struct timespec nap = { .tv_nsec = FIRST_NAP_NS };
	off_t at = (off_t)(fingerprint.low & (uint64_t)INT64_MAX >> 1);
	bool waited = false;

	if (one->all->cache_fd < 0)
		return false;
	scope_close int fd = warm_fd_move_up(open_lock(one->all->cache_fd));
	while (fd >= 0) {
		if (set_lock(fd, F_WRLCK, at) == 0) {
			one->lock_at = at;
			one->lock_id = warm_fd_id(fd);
			one->lock_fd = take_fd(&fd);
			break;
		}
		/* A file system without such locks: each process for itself. */
		if ((errno != EAGAIN && errno != EACCES) || warm_clock_ms() >= end_ms)
			break;
		waited = true;
		nanosleep(&nap, NULL);
		if (nap.tv_nsec < LAST_NAP_NS)
			nap.tv_nsec *= 2;
	}
	return waited;
}

void warm_flight_unlock(struct warm_flight *one)
{
	if (warm_fd_is(one->lock_fd, one->lock_id)) {
		/* A fork of this process may hold a copy of the descriptor. */
		(void)set_lock(one->lock_fd, F_UNLCK, one->lock_at);
		close(one->lock_fd);
	}
	one->lock_fd = -1;
}

void warm_flight_land(struct warm_flight *one, const uint8_t *data, size_t bytes)
{
	struct warm_flights *f = one->all;

	warm_flight_unlock(one);
	pthread_mutex_lock(&f->lock);
	unlink_flight(f, one);
	one->landed = true;
	if (one->followers == 0) {
		free(one);
	} else {
		one->data = data != NULL ? malloc(bytes + 1) : NULL;
		if (one->data != NULL) {
			memcpy(one->data, data, bytes);
			one->bytes = bytes;
		}
		pthread_cond_broadcast(&f->landed);
	}
	pthread_mutex_unlock(&f->lock);
}
