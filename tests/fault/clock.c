/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libclock.so: the program lives in a time of its own. LD_PRELOAD it; nothing in the program under
 * test knows of it. Without one of these variables time is as it is:
 *
 *	WARM_CLOCK_OFFSET=S     the wall clock is S seconds off; alone it leaves time() and
 *	                        gettimeofday(), by which TLS looks at certificates
 *	WARM_CLOCK_RATE=R       all time runs R times as fast, from the start on: 1440 is a day in
 *	                        a minute. R may be a fraction
 *	WARM_CLOCK_JUMP_FILE=F  the wall clock is as many seconds further as F says (a number, may
 *	                        be negative; no file: 0); it jumps when F changes, within 1 ms
 *	WARM_CLOCK_STATE=F      F keeps the time: a program that is started with the F of one that
 *	                        has ended goes on in that one's time. And it lets a test jump over
 *	                        what would only be waited for, below
 *
 * What runs by that time: all clocks (those of CPU time are R times as fast, and never jump),
 * timerfd (of a periodic one only the first expiration is exact), sleeps, the timeouts of poll,
 * select, epoll, pthread_cond_timedwait and pthread_mutex_timedlock, and the times of files as
 * stat and its kin tell them: what was changed 5 s ago in the program's time says so. Times of
 * files from before the start are left as they are. futimens and utimensat are mapped back, exactly
 * only for times from before the start. Not seen: waits without a timeout, timeouts of sockets,
 * /proc, files' times as other programs set and see them.
 *
 * WARM_CLOCK_STATE: a file of `struct state`. Where a test writes a time to `until_ns`, time is not
 * lived through up to there: whenever all threads of the program wait for nothing but time, it
 * jumps to where the first of them would be woken. A thread that computes, or waits for a server's
 * answer, keeps it at its real pace: so weeks pass in seconds, and no deadline of a request is
 * missed for it. From `until_ns` on (0, as it begins, is past) it is as fast as R says. Now is, by
 * the last of the `n` segments, mono_ns or wall_ns + (CLOCK_REALTIME - real_ns) * R. The kernel's
 * clock for files lags by a tick, 10 ms at most: what is changed so soon after a jump seems to be
 * from before it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define NEVER INT64_MAX

enum {
	SEGMENTS = 1 << 22,
	TIMERS = 16,
	SLICE_NS = 2 * 1000 * 1000, /* a wait looks this often at what a test has written */
	LOCK_NAP_NS = 200 * 1000,
	JUMP_NS = 1000 * 1000,
};

struct segment {
	int64_t real_ns, mono_ns, wall_ns; /* it begins there */
};

struct state {
	_Atomic int64_t until_ns; /* of the simulated monotonic clock */
	_Atomic int64_t n;
	int64_t jumped_s;
	struct segment segments[SEGMENTS];
};

struct waiter {
	int64_t until_ns; /* monotonic */
	struct waiter *next;
};

static struct state *state; /* NULL: time is as it is */
static double rate = 1;
static bool controlled;
static const char *jump_file;
static _Atomic int64_t jump_looked_ns;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* under the lock */
static struct waiter *waiters;
static int n_waiters, n_threads = 1;
static struct {
	int fd;
	int64_t at_ns; /* monotonic; 0: a free place */
} timers[TIMERS];

/* ---- now ---- */

static int64_t ns_of(const struct timespec *t)
{
	return (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

static struct timespec timespec_of(int64_t ns)
{
	struct timespec t = { ns / 1000000000, ns % 1000000000 };

	if (t.tv_nsec < 0) {
		t.tv_sec--;
		t.tv_nsec += 1000000000;
	}
	return t;
}

static int64_t raw_ns(clockid_t id)
{
	struct timespec t = { 0 };

	syscall(SYS_clock_gettime, id, &t);
	return ns_of(&t);
}

static int64_t times_rate(int64_t ns)
{
	return rate == 1 ? ns : (int64_t)((double)ns * rate);
}

static int64_t by_rate(int64_t ns)
{
	return rate == 1 || ns == NEVER ? ns : (int64_t)((double)ns / rate);
}

struct now {
	int64_t real_ns, mono_ns, wall_ns;
};

static struct now now(void)
{
	const struct segment *s = &state->segments[atomic_load(&state->n) - 1];
	int64_t real = raw_ns(CLOCK_REALTIME);
	int64_t passed = real > s->real_ns ? times_rate(real - s->real_ns) : 0;

	return (struct now){ real, s->mono_ns + passed, s->wall_ns + passed };
}

/* Under the lock. */
static void begin_segment(const struct now *from, int64_t mono_ns, int64_t wall_ns)
{
	int64_t n = atomic_load(&state->n);

	if (n == SEGMENTS) {
		dprintf(2, "libclock: over %d jumps\n", SEGMENTS);
		_exit(99);
	}
	state->segments[n] = (struct segment){ from->real_ns, mono_ns, wall_ns };
	atomic_store(&state->n, n + 1);
}

/* Take the jump that the file asks for. */
static void look_at_jump(int64_t real_ns)
{
	char text[32] = "";
	int saved = errno;

	if (jump_file == NULL || real_ns - atomic_load(&jump_looked_ns) < JUMP_NS)
		return;
	atomic_store(&jump_looked_ns, real_ns);
	int fd = (int)syscall(SYS_openat, AT_FDCWD, jump_file, O_RDONLY | O_CLOEXEC);
	long bytes = fd < 0 ? 0 : syscall(SYS_read, fd, text, sizeof(text) - 1);
	if (fd >= 0)
		syscall(SYS_close, fd);
	pthread_mutex_lock(&lock);
	/* Empty: it is being written. */
	int64_t more = (fd >= 0 && bytes <= 0 ? state->jumped_s : atoll(text)) - state->jumped_s;
	if (more != 0) {
		struct now n = now();
		begin_segment(&n, n.mono_ns, n.wall_ns + more * 1000000000);
		state->jumped_s += more;
	}
	pthread_mutex_unlock(&lock);
	errno = saved;
}

/* ---- jumping over waits ---- */

/* Under the lock. */
static void arm(int fd, int64_t at_ns, const struct timespec *interval)
{
	int64_t left = by_rate(at_ns - now().mono_ns);
	struct itimerspec t = { .it_value = timespec_of(left > 0 ? left : 1) };

	if (interval != NULL)
		t.it_interval = timespec_of(by_rate(ns_of(interval)));
	syscall(SYS_timerfd_settime, fd, 0, &t, NULL);
}

static void begin_wait(struct waiter *w, int64_t until_ns)
{
	pthread_mutex_lock(&lock);
	*w = (struct waiter){ until_ns, waiters };
	waiters = w;
	n_waiters++;
	pthread_mutex_unlock(&lock);
}

static void end_wait(const struct waiter *w)
{
	pthread_mutex_lock(&lock);
	for (struct waiter **p = &waiters; *p != NULL; p = &(*p)->next)
		if (*p == w) {
			*p = w->next;
			n_waiters--;
			break;
		}
	pthread_mutex_unlock(&lock);
}

/* Jump to where somebody wakes, if a test wants it and nobody does anything; `fds` are what the
 * caller waits for besides. */
static void jump(struct pollfd *fds, nfds_t n_fds)
{
	static const struct timespec at_once = { 0 };

	if (!controlled)
		return;
	pthread_mutex_lock(&lock);
	struct now n = now();
	int64_t to = atomic_load(&state->until_ns);
	/* What woke the caller came before the thread that did it was gone. */
	if (to > n.mono_ns && n_waiters == n_threads &&
	    (n_fds == 0 || syscall(SYS_ppoll, fds, n_fds, &at_once, NULL, 8) == 0)) {
		for (const struct waiter *w = waiters; w != NULL; w = w->next)
			to = w->until_ns < to ? w->until_ns : to;
		for (int i = 0; i < TIMERS; i++)
			if (timers[i].at_ns > n.mono_ns && timers[i].at_ns < to)
				to = timers[i].at_ns;
		if (to > n.mono_ns) {
			begin_segment(&n, to, n.wall_ns + to - n.mono_ns);
			for (int i = 0; i < TIMERS; i++)
				if (timers[i].at_ns > n.mono_ns)
					arm(timers[i].fd, timers[i].at_ns, NULL);
		}
	}
	pthread_mutex_unlock(&lock);
}

/* How long to wait really until `until_ns`, before looking again. */
static int64_t slice(int64_t until_ns)
{
	int64_t left = until_ns == NEVER ? NEVER : by_rate(until_ns - now().mono_ns);

	if (left < 0)
		return 0;
	return controlled && left > SLICE_NS ? SLICE_NS : left;
}

struct thread {
	void *(*fn)(void *);
	void *arg;
};

static void end_thread(void *arg)
{
	free(arg);
	pthread_mutex_lock(&lock);
	n_threads--;
	pthread_mutex_unlock(&lock);
}

static void *run_thread(void *arg)
{
	const struct thread *t = arg;
	void *result;

	pthread_cleanup_push(end_thread, arg);
	result = t->fn(t->arg);
	pthread_cleanup_pop(1);
	return result;
}

EXPORT int pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	void *real = dlsym(RTLD_NEXT, "pthread_create");
	__typeof__(&pthread_create) next = (__typeof__(next))(uintptr_t)real;
	struct thread *t = malloc(sizeof(*t));

	if (t == NULL)
		return EAGAIN;
	*t = (struct thread){ fn, arg };
	pthread_mutex_lock(&lock);
	n_threads++;
	pthread_mutex_unlock(&lock);
	int rc = next(id, attr, run_thread, t);
	if (rc != 0)
		end_thread(t);
	return rc;
}

/* ---- start ---- */

static double number(const char *name, double otherwise)
{
	const char *text = getenv(name);

	return text != NULL && text[0] != '\0' ? strtod(text, NULL) : otherwise;
}

static bool only_offset;

__attribute__((constructor)) static void start(void)
{
	const char *file = getenv("WARM_CLOCK_STATE");
	int64_t offset_ns = (int64_t)(number("WARM_CLOCK_OFFSET", 0) * 1e9);
	int fd = -1;

	rate = number("WARM_CLOCK_RATE", 1);
	jump_file = getenv("WARM_CLOCK_JUMP_FILE");
	controlled = file != NULL;
	only_offset = rate == 1 && jump_file == NULL && !controlled;
	if (offset_ns == 0 && rate == 1 && jump_file == NULL && !controlled)
		return;
	if (controlled && ((fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0666)) < 0 ||
			   ftruncate(fd, sizeof(*state)) != 0)) {
		dprintf(2, "libclock: %s: %s\n", file, strerror(errno));
		_exit(99);
	}
	struct state *made = mmap(NULL, sizeof(*state), PROT_READ | PROT_WRITE,
				  controlled ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, fd, 0);
	if (fd >= 0)
		close(fd);
	if (made == MAP_FAILED || rate <= 0) {
		dprintf(2, "libclock: no memory, or no WARM_CLOCK_RATE\n");
		_exit(99);
	}
	if (made->n == 0) {
		int64_t real = raw_ns(CLOCK_REALTIME);
		made->segments[0] = (struct segment){ real, raw_ns(CLOCK_MONOTONIC),
						      real + offset_ns };
		made->n = 1;
	}
	state = made;
}

/* ---- clocks ---- */

EXPORT int clock_gettime(clockid_t id, struct timespec *ret)
{
	int rc = (int)syscall(SYS_clock_gettime, id, ret);

	if (rc != 0 || state == NULL)
		return rc;
	if (id == CLOCK_PROCESS_CPUTIME_ID || id == CLOCK_THREAD_CPUTIME_ID || id < 0) {
		*ret = timespec_of(times_rate(ns_of(ret)));
		return 0;
	}
	look_at_jump(raw_ns(CLOCK_REALTIME));
	struct now n = now();
	bool wall = id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE || id == CLOCK_TAI;
	*ret = timespec_of(wall ? n.wall_ns : n.mono_ns);
	return 0;
}

EXPORT int gettimeofday(struct timeval *ret, void *zone)
{
	struct timespec t;

	(void)zone;
	if (only_offset)
		t = timespec_of(raw_ns(CLOCK_REALTIME));
	else
		clock_gettime(CLOCK_REALTIME, &t);
	*ret = (struct timeval){ t.tv_sec, t.tv_nsec / 1000 };
	return 0;
}

EXPORT time_t time(time_t *ret)
{
	struct timespec t;

	if (only_offset)
		t = timespec_of(raw_ns(CLOCK_REALTIME));
	else
		clock_gettime(CLOCK_REALTIME, &t);
	if (ret != NULL)
		*ret = t.tv_sec;
	return t.tv_sec;
}

/* ---- timers, sleeps ---- */

/* A moment that is so early is no wall clock's. */
static bool is_monotonic(int64_t ns)
{
	return ns < (int64_t)1000000000 * 1000000000;
}

/* The monotonic time at which a clock of the program shows `at`. */
static int64_t when(const struct timespec *at)
{
	int64_t ns = ns_of(at);
	struct now n = now();

	return is_monotonic(ns) ? ns : n.mono_ns + ns - n.wall_ns;
}

EXPORT int timerfd_settime(int fd, int flags, const struct itimerspec *new, struct itimerspec *old)
{
	int64_t value = ns_of(&new->it_value);

	if (state == NULL)
		return (int)syscall(SYS_timerfd_settime, fd, flags, new, old);
	pthread_mutex_lock(&lock);
	int place = 0, rc = 0;
	while (place + 1 < TIMERS && timers[place].at_ns != 0 && timers[place].fd != fd)
		place++;
	timers[place].fd = fd;
	timers[place].at_ns = 0;
	if (value == 0) {
		rc = (int)syscall(SYS_timerfd_settime, fd, 0, new, old);
	} else {
		bool absolute = (flags & TFD_TIMER_ABSTIME) != 0;
		timers[place].at_ns = absolute ? when(&new->it_value) : now().mono_ns + value;
		arm(fd, timers[place].at_ns, &new->it_interval);
	}
	pthread_mutex_unlock(&lock);
	return rc;
}

/* 0, or EINTR. */
static int sleep_until(int64_t until_ns)
{
	struct waiter w;
	int rc = 0;

	begin_wait(&w, until_ns);
	jump(NULL, 0);
	while (rc == 0 && now().mono_ns < until_ns) {
		struct timespec nap = timespec_of(slice(until_ns) + 1);
		if (syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &nap, NULL) != 0)
			rc = errno;
		else
			jump(NULL, 0);
	}
	end_wait(&w);
	return rc;
}

EXPORT int clock_nanosleep(clockid_t id, int flags, const struct timespec *wanted,
			   struct timespec *ret_left)
{
	if (state == NULL)
		return syscall(SYS_clock_nanosleep, id, flags, wanted, ret_left) == 0 ? 0 : errno;
	bool absolute = (flags & TIMER_ABSTIME) != 0;
	int64_t until = absolute ? when(wanted) : now().mono_ns + ns_of(wanted);
	int rc = sleep_until(until);
	if (rc == EINTR && ret_left != NULL && !absolute) {
		int64_t left = until - now().mono_ns;
		*ret_left = timespec_of(left > 0 ? left : 0);
	}
	return rc;
}

EXPORT int nanosleep(const struct timespec *wanted, struct timespec *ret_left)
{
	int rc = clock_nanosleep(CLOCK_MONOTONIC, 0, wanted, ret_left);

	errno = rc != 0 ? rc : errno;
	return rc != 0 ? -1 : 0;
}

EXPORT int usleep(useconds_t us)
{
	struct timespec nap = timespec_of((int64_t)us * 1000);

	return nanosleep(&nap, NULL);
}

EXPORT unsigned sleep(unsigned seconds)
{
	struct timespec nap = { .tv_sec = seconds }, left = { 0 };

	return nanosleep(&nap, &left) == 0 ? 0 : (unsigned)left.tv_sec;
}

/* ---- waits for events ---- */

/* A connection: what comes by it is somebody else's doing, in real time. */
static bool is_connection(int fd)
{
	int saved = errno, domain = 0, listens = 0;
	socklen_t bytes = sizeof(int);
	bool yes = fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &bytes) == 0 &&
		   domain != AF_UNIX &&
		   getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &bytes) == 0 && !listens;

	errno = saved;
	return yes;
}

static int wait_for(struct pollfd *fds, nfds_t n, int64_t wait_ns, const sigset_t *mask)
{
	int64_t until = wait_ns < 0 ? NEVER : now().mono_ns + wait_ns;
	bool idle = controlled;
	struct waiter w;
	int rc;

	for (nfds_t i = 0; idle && i < n; i++)
		idle = !is_connection(fds[i].fd);
	if (idle) {
		begin_wait(&w, until);
		jump(fds, n);
	}
	for (;;) {
		int64_t left = idle || until != NEVER ? slice(until) : NEVER;
		struct timespec t = timespec_of(left);
		rc = (int)syscall(SYS_ppoll, fds, n, left == NEVER ? NULL : &t, mask, 8);
		if (rc != 0 || (until != NEVER && now().mono_ns >= until))
			break;
		if (idle)
			jump(fds, n);
	}
	int saved = errno;
	if (idle)
		end_wait(&w);
	errno = saved;
	return rc;
}

EXPORT int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *wait, const sigset_t *mask)
{
	if (state == NULL) {
		struct timespec copy = wait != NULL ? *wait : (struct timespec){ 0 };
		return (int)syscall(SYS_ppoll, fds, n, wait != NULL ? &copy : NULL, mask, 8);
	}
	return wait_for(fds, n, wait != NULL ? ns_of(wait) : -1, mask);
}

EXPORT int poll(struct pollfd *fds, nfds_t n, int timeout)
{
	struct timespec wait = timespec_of((int64_t)timeout * 1000000);

	return ppoll(fds, n, timeout < 0 ? NULL : &wait, NULL);
}

/* Those that follow only wait shorter: while a thread does so time isn't jumped over. */
EXPORT int select(int n, fd_set *in, fd_set *out, fd_set *other, struct timeval *wait)
{
	int64_t ns = wait == NULL ? 0 : (int64_t)wait->tv_sec * 1000000000 + wait->tv_usec * 1000;
	struct timespec t = timespec_of(by_rate(ns));

	return (int)syscall(SYS_pselect6, n, in, out, other, wait == NULL ? NULL : &t, NULL);
}

EXPORT int pselect(int n, fd_set *in, fd_set *out, fd_set *other, const struct timespec *wait,
		   const sigset_t *mask)
{
	struct timespec t = timespec_of(wait == NULL ? 0 : by_rate(ns_of(wait)));
	struct {
		const sigset_t *mask;
		size_t bytes;
	} with = { mask, 8 };

	return (int)syscall(SYS_pselect6, n, in, out, other, wait == NULL ? NULL : &t, &with);
}

EXPORT int epoll_pwait(int fd, struct epoll_event *events, int n, int timeout, const sigset_t *mask)
{
	int64_t ms = timeout <= 0 ? timeout : by_rate((int64_t)timeout * 1000000) / 1000000;

	/* A short wait stays one. */
	return (int)syscall(SYS_epoll_pwait, fd, events, n, timeout > 0 && ms == 0 ? 1 : (int)ms,
			    mask, 8);
}

EXPORT int epoll_wait(int fd, struct epoll_event *events, int n, int timeout)
{
	return epoll_pwait(fd, events, n, timeout, NULL);
}

/* ---- waits of threads for each other ---- */

/* Has the program's clock reached this? */
static bool has_come(const struct timespec *at)
{
	int64_t ns = ns_of(at);
	struct now n;

	look_at_jump(raw_ns(CLOCK_REALTIME));
	n = now();
	return ns <= (is_monotonic(ns) ? n.mono_ns : n.wall_ns);
}

EXPORT int pthread_cond_clockwait(pthread_cond_t *cond, pthread_mutex_t *mutex, clockid_t id,
				  const struct timespec *at)
{
	void *real = dlsym(RTLD_NEXT, "pthread_cond_clockwait");
	__typeof__(&pthread_cond_clockwait) next = (__typeof__(next))(uintptr_t)real;
	struct waiter w;
	int rc = ETIMEDOUT;

	if (state == NULL)
		return next(cond, mutex, id, at);
	begin_wait(&w, when(at));
	jump(NULL, 0);
	while (rc == ETIMEDOUT && !has_come(at)) {
		int64_t left = slice(when(at)); /* or less: the wall clock may be set */
		struct timespec soon =
			timespec_of(raw_ns(CLOCK_MONOTONIC) + (left < SLICE_NS ? left : SLICE_NS));
		rc = next(cond, mutex, CLOCK_MONOTONIC, &soon);
		if (rc == ETIMEDOUT)
			jump(NULL, 0);
	}
	end_wait(&w);
	return rc;
}

EXPORT int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
				  const struct timespec *at)
{
	return pthread_cond_clockwait(
		cond, mutex, is_monotonic(ns_of(at)) ? CLOCK_MONOTONIC : CLOCK_REALTIME, at);
}

EXPORT int pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *at)
{
	clockid_t id = is_monotonic(ns_of(at)) ? CLOCK_MONOTONIC : CLOCK_REALTIME;
	struct timespec nap = { .tv_nsec = LOCK_NAP_NS };
	struct waiter w;
	int rc = pthread_mutex_trylock(mutex);

	if (rc != EBUSY)
		return rc;
	if (state != NULL)
		begin_wait(&w, when(at));
	for (;;) {
		rc = pthread_mutex_trylock(mutex);
		if (rc != EBUSY)
			break;
		if (state != NULL ? has_come(at) : raw_ns(id) >= ns_of(at)) {
			rc = ETIMEDOUT;
			break;
		}
		if (state != NULL)
			jump(NULL, 0);
		syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &nap, NULL);
	}
	if (state != NULL)
		end_wait(&w);
	return rc;
}

EXPORT int pthread_mutex_clocklock(pthread_mutex_t *mutex, clockid_t id, const struct timespec *at)
{
	(void)id;
	return pthread_mutex_timedlock(mutex, at);
}

/* ---- times of files ---- */

/* The program's wall clock at a real moment. */
static int64_t told(int64_t real_ns)
{
	int64_t low = 0, high = state == NULL ? 0 : atomic_load(&state->n);

	if (high == 0 || real_ns < state->segments[0].real_ns)
		return real_ns;
	while (high - low > 1) {
		int64_t mid = low + (high - low) / 2;
		if (state->segments[mid].real_ns <= real_ns)
			low = mid;
		else
			high = mid;
	}
	const struct segment *s = &state->segments[low];
	return s->wall_ns + times_rate(real_ns - s->real_ns);
}

/* The latest real moment at which the program's wall clock showed this. */
static int64_t untold(int64_t wall_ns)
{
	int64_t n = state == NULL ? 0 : atomic_load(&state->n);

	for (int64_t i = n; i-- > 0;) {
		const struct segment *s = &state->segments[i];
		if (s->wall_ns > wall_ns)
			continue;
		int64_t real = s->real_ns + by_rate(wall_ns - s->wall_ns);
		return i + 1 < n && real > s[1].real_ns ? s[1].real_ns : real;
	}
	return wall_ns;
}

static int tell(int rc, struct stat *st)
{
	if (rc != 0 || state == NULL)
		return rc;
	st->st_mtim = timespec_of(told(ns_of(&st->st_mtim)));
	st->st_ctim = timespec_of(told(ns_of(&st->st_ctim)));
	st->st_atim = timespec_of(told(ns_of(&st->st_atim)));
	return rc;
}

EXPORT int fstatat(int dir_fd, const char *path, struct stat *st, int flags)
{
	return tell((int)syscall(SYS_newfstatat, dir_fd, path, st, flags), st);
}

EXPORT int fstat(int fd, struct stat *st)
{
	return tell((int)syscall(SYS_fstat, fd, st), st);
}

EXPORT int stat(const char *path, struct stat *st)
{
	return fstatat(AT_FDCWD, path, st, 0);
}

EXPORT int lstat(const char *path, struct stat *st)
{
	return fstatat(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW);
}

/* The same struct, where the kernel has one alone. */
EXPORT int fstatat64(int dir_fd, const char *path, struct stat64 *st, int flags)
{
	return fstatat(dir_fd, path, (struct stat *)st, flags);
}

EXPORT int fstat64(int fd, struct stat64 *st)
{
	return fstat(fd, (struct stat *)st);
}

EXPORT int stat64(const char *path, struct stat64 *st)
{
	return stat(path, (struct stat *)st);
}

EXPORT int lstat64(const char *path, struct stat64 *st)
{
	return lstat(path, (struct stat *)st);
}

static void tell_one(struct statx_timestamp *t)
{
	struct timespec at = timespec_of(told(t->tv_sec * 1000000000 + t->tv_nsec));

	t->tv_sec = at.tv_sec;
	t->tv_nsec = (uint32_t)at.tv_nsec;
}

EXPORT int statx(int dir_fd, const char *path, int flags, unsigned mask, struct statx *st)
{
	int rc = (int)syscall(SYS_statx, dir_fd, path, flags, mask, st);

	if (rc == 0 && state != NULL) {
		tell_one(&st->stx_atime);
		tell_one(&st->stx_btime);
		tell_one(&st->stx_ctime);
		tell_one(&st->stx_mtime);
	}
	return rc;
}

static int set_times(int dir_fd, const char *path, const struct timespec times[2], int flags)
{
	struct timespec real[2];

	for (int i = 0; times != NULL && i < 2; i++) {
		bool special = times[i].tv_nsec == UTIME_NOW || times[i].tv_nsec == UTIME_OMIT;
		real[i] = special ? times[i] : timespec_of(untold(ns_of(&times[i])));
	}
	return (int)syscall(SYS_utimensat, dir_fd, path, times != NULL ? real : NULL, flags);
}

EXPORT int utimensat(int dir_fd, const char *path, const struct timespec times[2], int flags)
{
	return set_times(dir_fd, path, times, flags);
}

EXPORT int futimens(int fd, const struct timespec times[2])
{
	return set_times(fd, NULL, times, 0);
}
