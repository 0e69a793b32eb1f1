/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libfault.so: make the nth call fail, kill, stop or hang there. LD_PRELOAD it; nothing in the
 * program under test knows of it. Only calls after main() has begun count, and only those on
 * regular files and directories: pipes, eventfds and signals are left alone.
 *
 *	WARM_FAULT=DIRECTIVE[,DIRECTIVE...]
 *	  fail:CLASS:N[:ERRNO]   the Nth call of CLASS fails with ERRNO (a number)
 *	  fail:CLASS:N+[:ERRNO]  so do all after it
 *	  kill:CLASS:N           SIGKILL instead of the Nth call
 *	  stop:CLASS:N           SIGSTOP before the Nth call; it is made after SIGCONT
 *	  hang:CLASS:N           the Nth call never returns
 *	  short                  every write takes half of what it is given
 *	  noopenat2              openat2 answers ENOSYS
 *	  norename2              renameat2 with flags answers EINVAL
 *	  nolease, slowlease     F_SETLEASE answers EINVAL; a lease is held for 50 ms at least
 *	WARM_FAULT_BOOT_ID=FILE  is opened in place of the kernel's boot_id
 *	WARM_FAULT_COUNT=FILE    gets the number of calls by class when the program ends
 *
 * Classes: malloc (calloc, realloc; but for libcrypto and libarchive: the one crashes when its
 * start fails, the other ends the program), libmalloc (the same, of these two), open (openat, openat2), write (pwrite, ftruncate,
 * copy_file_range), fsync, rename (linkat), close (of a file opened for writing), mkdir, unlink,
 * poll, thread (pthread_create); any: all but memory, poll and thread; fs: what changes a file
 * system, an open with O_CREAT among it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define BOOT_ID "/proc/sys/kernel/random/boot_id"

enum class {
	MALLOC,
	LIBMALLOC,
	OPEN,
	WRITE,
	FSYNC,
	RENAME,
	CLOSE,
	MKDIR,
	UNLINK,
	POLL,
	THREAD,
	ANY,
	FS,
	CLASSES
};

static const struct {
	const char *name;
	int os_errno;
} classes[CLASSES] = {
	{ "malloc", ENOMEM }, { "libmalloc", ENOMEM }, { "open", EMFILE },   { "write", ENOSPC },
	{ "fsync", EIO },     { "rename", ENOSPC },    { "close", EIO },     { "mkdir", ENOSPC },
	{ "unlink", EIO },    { "poll", ENOMEM },      { "thread", EAGAIN }, { "any", EIO },
	{ "fs", ENOSPC },
};

enum action { FAIL, KILL, STOP, HANG };
static const char *const actions[] = { "fail", "kill", "stop", "hang" };

enum { MAX_RULES = 8 };

static struct rule {
	enum action action;
	enum class class;
	long n;
	bool and_after;
	int os_errno; /* 0: the class's own */
} rules[MAX_RULES];
static int n_rules;
static bool no_openat2, no_rename2, no_lease, slow_lease, short_writes;
static const char *boot_id, *count_file;
static atomic_bool armed;
static atomic_long counts[CLASSES];

/* glibc's own, so that nothing here allocates. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *old, size_t bytes);

#define REAL(name)                                                                   \
	static __typeof__(&name) real;                                               \
	__typeof__(&name) real_##name = __atomic_load_n(&real, __ATOMIC_RELAXED);    \
	if (real_##name == NULL) {                                                   \
		real_##name = (__typeof__(&name))(uintptr_t)dlsym(RTLD_NEXT, #name); \
		__atomic_store_n(&real, real_##name, __ATOMIC_RELAXED);              \
	}

static long raw(long number, long a, long b, long c, long d, long e)
{
	long r;
#if defined(__x86_64__)
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;

	__asm__ volatile("svc 0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4)
			 : "memory");
	r = x0;
#else
#error "say how this machine makes a system call"
#endif
	if (r < 0 && r > -4096) {
		errno = (int)-r;
		return -1;
	}
	return r;
}

static void strike(const struct rule *rule)
{
	switch (rule->action) {
	case KILL:
		kill(getpid(), SIGKILL);
		for (;;)
			raw(SYS_ppoll, 0, 0, 0, 0, 0);
	case STOP:
		kill(getpid(), SIGSTOP);
		break;
	case HANG:
		for (;;)
			raw(SYS_ppoll, 0, 0, 0, 0, 0);
	case FAIL:
		break;
	}
}

/* Count a call of `class`, and under ANY and FS where it belongs to these too. True: it fails,
 * errno is set. */
static bool faulted(enum class class, bool any, bool fs)
{
	long n[CLASSES] = { 0 };
	int saved = errno, fail = 0;

	if (!atomic_load_explicit(&armed, memory_order_relaxed))
		return false;
	n[class] = atomic_fetch_add(&counts[class], 1) + 1;
	if (any)
		n[ANY] = atomic_fetch_add(&counts[ANY], 1) + 1;
	if (fs)
		n[FS] = atomic_fetch_add(&counts[FS], 1) + 1;
	for (int i = 0; i < n_rules; i++) {
		const struct rule *r = &rules[i];
		long at = n[r->class];
		if (at == 0 || !(at == r->n || (r->and_after && at > r->n)))
			continue;
		strike(r);
		if (r->action == FAIL)
			fail = r->os_errno != 0 ? r->os_errno : classes[r->class].os_errno;
	}
	errno = fail != 0 ? fail : saved;
	return fail != 0;
}

static bool is_file(int fd)
{
	struct stat st;
	int saved = errno;
	bool yes = fd > 2 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);

	errno = saved;
	return yes;
}

/* ---- start and end ---- */

static enum class class_of(const char *name, size_t n) {
	for (int c = 0; c < CLASSES;
	     c++) if (strlen(classes[c].name) == n &&
		      memcmp(classes[c].name, name, n) == 0) return (enum class)c;
	return CLASSES;
}

static void take_directive(const char *text, size_t n)
{
	static const struct {
		const char *name;
		bool *flag;
	} flags[] = {
		{ "noopenat2", &no_openat2 }, { "norename2", &no_rename2 },
		{ "nolease", &no_lease },     { "slowlease", &slow_lease },
		{ "short", &short_writes },
	};
	const char *colon = memchr(text, ':', n);

	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		if (strlen(flags[i].name) == n && memcmp(flags[i].name, text, n) == 0) {
			*flags[i].flag = true;
			return;
		}
	struct rule r = { 0 };
	int a = 0;
	while (a < 4 && (colon == NULL || strncmp(actions[a], text, (size_t)(colon - text)) != 0))
		a++;
	const char *name = colon != NULL ? colon + 1 : text;
	size_t name_bytes = strcspn(name, ":,");
	r.action = (enum action)a;
	r.class = class_of(name, name_bytes);
	if (a == 4 || r.class == CLASSES || name[name_bytes] != ':' || n_rules == MAX_RULES) {
		dprintf(2, "libfault: WARM_FAULT: '%.*s' is no directive\n", (int)n, text);
		_exit(99);
	}
	char *end;
	r.n = strtol(name + name_bytes + 1, &end, 10);
	r.and_after = *end == '+';
	end += r.and_after;
	if (*end == ':')
		r.os_errno = (int)strtol(end + 1, &end, 10);
	rules[n_rules++] = r;
}

static int take_library(struct dl_phdr_info *info, size_t bytes, void *arg);

static void setup(void)
{
	const char *text = getenv("WARM_FAULT");

	boot_id = getenv("WARM_FAULT_BOOT_ID");
	count_file = getenv("WARM_FAULT_COUNT");
	while (text != NULL && *text != '\0') {
		size_t n = strcspn(text, ",");
		take_directive(text, n);
		text += n + (text[n] == ',');
	}
	dl_iterate_phdr(take_library, NULL);
	atomic_store(&armed, true);
}

static void report(void)
{
	char text[512];
	size_t used = 0;

	if (!atomic_exchange(&armed, false) || count_file == NULL)
		return;
	for (int c = 0; c < CLASSES; c++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s %ld\n",
					 classes[c].name, atomic_load(&counts[c]));
	long fd = raw(SYS_openat, AT_FDCWD, (long)(uintptr_t)count_file,
		      O_WRONLY | O_CREAT | O_TRUNC, 0666, 0);
	if (fd >= 0) {
		raw(SYS_write, fd, (long)(uintptr_t)text, (long)used, 0, 0);
		raw(SYS_close, fd, 0, 0, 0, 0);
	}
}

static int (*program_main)(int, char **, char **);

static int wrapped_main(int argc, char **argv, char **envp)
{
	setup();
	int rc = program_main(argc, argv, envp);
	report();
	return rc;
}

EXPORT int __libc_start_main(int (*main_fn)(int, char **, char **), int argc, char **argv,
			     void (*init)(void), void (*fini)(void), void (*rtld_fini)(void),
			     void *stack_end);
EXPORT int __libc_start_main(int (*main_fn)(int, char **, char **), int argc, char **argv,
			     void (*init)(void), void (*fini)(void), void (*rtld_fini)(void),
			     void *stack_end)
{
	REAL(__libc_start_main)
	program_main = main_fn;
	return real___libc_start_main(wrapped_main, argc, argv, init, fini, rtld_fini, stack_end);
}

EXPORT void _exit(int code)
{
	report();
	for (;;)
		raw(SYS_exit_group, code, 0, 0, 0, 0);
}

/* ---- memory, threads ---- */

enum { MAX_RANGES = 8 };
static struct {
	uintptr_t start, end;
} library_code[MAX_RANGES];
static int n_ranges;

static int take_library(struct dl_phdr_info *info, size_t bytes, void *arg)
{
	(void)bytes;
	(void)arg;
	if (strstr(info->dlpi_name, "libcrypto") == NULL &&
	    strstr(info->dlpi_name, "libarchive") == NULL)
		return 0;
	for (int i = 0; i < info->dlpi_phnum && n_ranges < MAX_RANGES; i++)
		if (info->dlpi_phdr[i].p_type == PT_LOAD &&
		    (info->dlpi_phdr[i].p_flags & PF_X) != 0) {
			library_code[n_ranges].start = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
			library_code[n_ranges].end = library_code[n_ranges].start +
						     info->dlpi_phdr[i].p_memsz;
			n_ranges++;
		}
	return 0;
}

static bool no_memory(const void *caller)
{
	enum class class = MALLOC;

	if (!atomic_load_explicit(&armed, memory_order_relaxed))
		return false;
	for (int i = 0; i < n_ranges; i++)
		if ((uintptr_t)caller >= library_code[i].start &&
		    (uintptr_t)caller < library_code[i].end)
			class = LIBMALLOC;
	return faulted(class, false, false);
}

EXPORT void *malloc(size_t bytes)
{
	return no_memory(__builtin_return_address(0)) ? NULL : __libc_malloc(bytes);
}

EXPORT void *calloc(size_t n, size_t bytes)
{
	return no_memory(__builtin_return_address(0)) ? NULL : __libc_calloc(n, bytes);
}

EXPORT void *realloc(void *old, size_t bytes)
{
	return no_memory(__builtin_return_address(0)) ? NULL : __libc_realloc(old, bytes);
}

EXPORT int pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	REAL(pthread_create)
	return faulted(THREAD, false, false) ? errno : real_pthread_create(id, attr, fn, arg);
}

EXPORT int poll(struct pollfd *fds, nfds_t n, int timeout)
{
	REAL(poll)
	return faulted(POLL, false, false) ? -1 : real_poll(fds, n, timeout);
}

/* ---- open ---- */

static long do_open(int dir_fd, const char *path, int flags, mode_t mode)
{
	if (boot_id != NULL && strcmp(path, BOOT_ID) == 0)
		path = boot_id;
	if (faulted(OPEN, true, (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE))
		return -1;
	return raw(SYS_openat, dir_fd, (long)(uintptr_t)path, flags, mode, 0);
}

#define TAKE_MODE(last)                                                   \
	mode_t mode = 0;                                                  \
	if ((flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE) { \
		va_list ap;                                               \
		va_start(ap, last);                                       \
		mode = va_arg(ap, mode_t);                                \
		va_end(ap);                                               \
	}

EXPORT int open(const char *path, int flags, ...)
{
	TAKE_MODE(flags)
	return (int)do_open(AT_FDCWD, path, flags, mode);
}

EXPORT int open64(const char *path, int flags, ...)
{
	TAKE_MODE(flags)
	return (int)do_open(AT_FDCWD, path, flags, mode);
}

EXPORT int openat(int dir_fd, const char *path, int flags, ...)
{
	TAKE_MODE(flags)
	return (int)do_open(dir_fd, path, flags, mode);
}

EXPORT int openat64(int dir_fd, const char *path, int flags, ...)
{
	TAKE_MODE(flags)
	return (int)do_open(dir_fd, path, flags, mode);
}

/* What _FORTIFY_SOURCE makes of calls without a mode. */
EXPORT int __open_2(const char *path, int flags);
EXPORT int __open_2(const char *path, int flags)
{
	return (int)do_open(AT_FDCWD, path, flags, 0);
}

EXPORT int __open64_2(const char *path, int flags);
EXPORT int __open64_2(const char *path, int flags)
{
	return (int)do_open(AT_FDCWD, path, flags, 0);
}

EXPORT int __openat_2(int dir_fd, const char *path, int flags);
EXPORT int __openat_2(int dir_fd, const char *path, int flags)
{
	return (int)do_open(dir_fd, path, flags, 0);
}

EXPORT int __openat64_2(int dir_fd, const char *path, int flags);
EXPORT int __openat64_2(int dir_fd, const char *path, int flags)
{
	return (int)do_open(dir_fd, path, flags, 0);
}

EXPORT long syscall(long number, ...)
{
	long a[6];
	va_list ap;
	REAL(syscall)

	va_start(ap, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (number == SYS_openat2) {
		uint64_t flags = *(const uint64_t *)(uintptr_t)a[2];
		if (no_openat2) {
			errno = ENOSYS;
			return -1;
		}
		if (faulted(OPEN, true, (flags & O_CREAT) != 0))
			return -1;
	}
	return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

EXPORT int close(int fd)
{
	int flags = fd > 2 ? fcntl(fd, F_GETFL) : -1;
	bool fail = flags >= 0 && (flags & O_ACCMODE) != O_RDONLY && (flags & O_PATH) == 0 &&
		    is_file(fd) && faulted(CLOSE, true, false);
	int os_errno = errno;
	int rc = (int)raw(SYS_close, fd, 0, 0, 0, 0);

	if (!fail)
		return rc;
	errno = os_errno; /* as NFS does: closed, and the bytes are lost */
	return -1;
}

/* ---- write ---- */

static size_t cut(size_t bytes)
{
	return short_writes && bytes > 1 ? bytes / 2 : bytes;
}

EXPORT ssize_t write(int fd, const void *data, size_t bytes)
{
	if (is_file(fd)) {
		if (faulted(WRITE, true, true))
			return -1;
		bytes = cut(bytes);
	}
	return raw(SYS_write, fd, (long)(uintptr_t)data, (long)bytes, 0, 0);
}

EXPORT ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
	if (faulted(WRITE, true, true))
		return -1;
	return raw(SYS_pwrite64, fd, (long)(uintptr_t)data, (long)cut(bytes), offset, 0);
}

EXPORT ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t offset)
{
	if (faulted(WRITE, true, true))
		return -1;
	return raw(SYS_pwrite64, fd, (long)(uintptr_t)data, (long)cut(bytes), offset, 0);
}

EXPORT ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t bytes,
			       unsigned flags)
{
	REAL(copy_file_range)
	if (faulted(WRITE, true, true))
		return -1;
	return real_copy_file_range(in, in_at, out, out_at, cut(bytes), flags);
}

EXPORT int ftruncate(int fd, off_t bytes)
{
	if (faulted(WRITE, true, true))
		return -1;
	return (int)raw(SYS_ftruncate, fd, bytes, 0, 0, 0);
}

EXPORT int fsync(int fd)
{
	if (faulted(FSYNC, true, true))
		return -1;
	return (int)raw(SYS_fsync, fd, 0, 0, 0, 0);
}

/* ---- names ---- */

EXPORT int rename(const char *from, const char *to)
{
	if (faulted(RENAME, true, true))
		return -1;
	return (int)raw(SYS_renameat2, AT_FDCWD, (long)(uintptr_t)from, AT_FDCWD,
			(long)(uintptr_t)to, 0);
}

EXPORT int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
	if (faulted(RENAME, true, true))
		return -1;
	return (int)raw(SYS_renameat2, from_fd, (long)(uintptr_t)from, to_fd, (long)(uintptr_t)to,
			0);
}

EXPORT int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
	if (no_rename2 && flags != 0) {
		errno = EINVAL;
		return -1;
	}
	if (faulted(RENAME, true, true))
		return -1;
	return (int)raw(SYS_renameat2, from_fd, (long)(uintptr_t)from, to_fd, (long)(uintptr_t)to,
			flags);
}

EXPORT int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
	if (faulted(RENAME, true, true))
		return -1;
	return (int)raw(SYS_linkat, from_fd, (long)(uintptr_t)from, to_fd, (long)(uintptr_t)to,
			flags);
}

EXPORT int mkdir(const char *path, mode_t mode)
{
	if (faulted(MKDIR, true, true))
		return -1;
	return (int)raw(SYS_mkdirat, AT_FDCWD, (long)(uintptr_t)path, mode, 0, 0);
}

EXPORT int mkdirat(int dir_fd, const char *path, mode_t mode)
{
	if (faulted(MKDIR, true, true))
		return -1;
	return (int)raw(SYS_mkdirat, dir_fd, (long)(uintptr_t)path, mode, 0, 0);
}

EXPORT int unlink(const char *path)
{
	if (faulted(UNLINK, true, true))
		return -1;
	return (int)raw(SYS_unlinkat, AT_FDCWD, (long)(uintptr_t)path, 0, 0, 0);
}

EXPORT int unlinkat(int dir_fd, const char *path, int flags)
{
	if (faulted(UNLINK, true, true))
		return -1;
	return (int)raw(SYS_unlinkat, dir_fd, (long)(uintptr_t)path, flags, 0, 0);
}

/* ---- leases ---- */

static int do_fcntl(int fd, int command, long arg)
{
	if (command == F_SETLEASE && no_lease) {
		errno = EINVAL;
		return -1;
	}
	int rc = (int)raw(SYS_fcntl, fd, command, arg, 0, 0);
	if (command == F_SETLEASE && arg == F_RDLCK && rc == 0 && slow_lease)
		usleep(50000);
	return rc;
}

EXPORT int fcntl(int fd, int command, ...)
{
	va_list ap;

	va_start(ap, command);
	long arg = va_arg(ap, long);
	va_end(ap);
	return do_fcntl(fd, command, arg);
}

EXPORT int fcntl64(int fd, int command, ...)
{
	va_list ap;

	va_start(ap, command);
	long arg = va_arg(ap, long);
	va_end(ap);
	return do_fcntl(fd, command, arg);
}
