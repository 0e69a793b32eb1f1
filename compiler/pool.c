/* SPDX-License-Identifier: Apache-2.0 */
#include "compiler/pool.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "compiler/spawn.h"
#include "compiler/wire.h"
#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/parallel.h"

/* Each holds 100 to 270 MB, and some compiles take more. A second one is started only where there
 * is room for it: they count into the host's control group. */
enum { MAX_WAITING = 4, MAX_ENDING = 16, ROOM_BYTES = 512 << 20, TIDY_MS = 5000 };

struct helper {
	pid_t pid;
	int fd;
	struct warm_fd_id id;
	char *environment;
	bool used; /* has answered before */
};

struct warm_pool {
	const char *path;
	struct warm_kernel_counters *counters;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned max, live; /* live: working and waiting */
	struct helper waiting[MAX_WAITING];
	size_t n_waiting;
	_Atomic int64_t tidied_ms;
	pid_t ending[MAX_ENDING];
	size_t n_ending;
};

struct warm_pool *warm_pool_new(const char *helper, unsigned max_helpers,
				struct warm_kernel_counters *counters)
{
	struct warm_pool *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return NULL;
	p->path = helper;
	p->counters = counters;
	p->max = max_helpers;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->changed, NULL);
	return p;
}

/* A fork of the host may hold a copy of the socket: so not by close() alone. */
static void hang_up(struct helper *h)
{
	if (warm_fd_is(h->fd, h->id)) {
		shutdown(h->fd, SHUT_RDWR);
		close(h->fd);
	}
	free(h->environment);
}

void warm_pool_free(struct warm_pool *p)
{
	int status;

	if (p == NULL)
		return;
	for (size_t i = 0; i < p->n_waiting; i++)
		hang_up(&p->waiting[i]);
	for (size_t i = 0; i < p->n_waiting; i++)
		(void)warm_helper_reap(p->waiting[i].pid, true, &status);
	for (size_t i = 0; i < p->n_ending; i++)
		(void)warm_helper_reap(p->ending[i], true, &status);
	pthread_cond_destroy(&p->changed);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

void warm_pool_fork(struct warm_pool *p, enum warm_fork phase)
{
	if (phase == WARM_FORK_PREPARE) {
		pthread_mutex_lock(&p->lock);
		return;
	}
	if (phase == WARM_FORK_CHILD) {
		for (size_t i = 0; i < p->n_waiting; i++) {
			if (warm_fd_is(p->waiting[i].fd, p->waiting[i].id))
				close(p->waiting[i].fd);
			free(p->waiting[i].environment);
		}
		p->n_waiting = p->n_ending = p->live = 0;
		pthread_cond_init(&p->changed, NULL);
	}
	pthread_mutex_unlock(&p->lock);
}

/* ---- under the lock ---- */

static void reap_ended(struct warm_pool *p)
{
	size_t kept = 0;
	int status;

	for (size_t i = 0; i < p->n_ending; i++)
		if (!warm_helper_reap(p->ending[i], false, &status))
			p->ending[kept++] = p->ending[i];
	p->n_ending = kept;
}

static void let_end(struct warm_pool *p, struct helper *h)
{
	int status;

	hang_up(h);
	p->live--;
	if (warm_helper_reap(h->pid, false, &status))
		return;
	if (p->n_ending == MAX_ENDING)
		reap_ended(p);
	if (p->n_ending == MAX_ENDING)
		(void)warm_helper_reap(h->pid, true, &status);
	else
		p->ending[p->n_ending++] = h->pid;
}

static bool is_alive(const struct helper *h)
{
	struct pollfd fd = { .fd = h->fd, .events = POLLIN | POLLRDHUP };

	return warm_fd_is(h->fd, h->id) && poll(&fd, 1, 0) == 0;
}

static bool take_waiting(struct warm_pool *p, const char *environment, struct helper *ret_helper)
{
	for (size_t i = p->n_waiting; i-- > 0;) {
		struct helper h = p->waiting[i];
		bool alive = is_alive(&h), fits = strcmp(h.environment, environment) == 0;
		if (alive && !fits)
			continue;
		p->waiting[i] = p->waiting[--p->n_waiting];
		if (alive) {
			*ret_helper = h;
			return true;
		}
		let_end(p, &h);
	}
	return false;
}

void warm_pool_tidy(struct warm_pool *p)
{
	int64_t now_ms = warm_clock_ms();

	if (now_ms - p->tidied_ms < TIDY_MS || pthread_mutex_trylock(&p->lock) != 0)
		return;
	p->tidied_ms = now_ms;
	reap_ended(p);
	for (size_t i = p->n_waiting; i-- > 0;) {
		struct helper h = p->waiting[i];
		if (is_alive(&h))
			continue;
		p->waiting[i] = p->waiting[--p->n_waiting];
		let_end(p, &h);
	}
	pthread_mutex_unlock(&p->lock);
}

/* ---- one request ---- */

/* A helper that waits, or room for a new one (`pid` 0); with `fresh` the latter. */
static struct helper acquire(struct warm_pool *p, const char *environment, bool fresh)
{
	struct helper h = { .fd = -1 };

	pthread_mutex_lock(&p->lock);
	reap_ended(p);
	while (fresh || !take_waiting(p, environment, &h)) {
		bool room = p->live < p->max && (p->live == 0 || warm_memory_left() > ROOM_BYTES);
		/* One that waits, of another environment, makes room. */
		if (!room && p->n_waiting > 0) {
			let_end(p, &p->waiting[--p->n_waiting]);
			continue;
		}
		if (room) {
			p->live++;
			break;
		}
		pthread_cond_wait(&p->changed, &p->lock);
	}
	pthread_mutex_unlock(&p->lock);
	return h;
}

static void give_back(struct warm_pool *p, struct helper *h, bool keep)
{
	pthread_mutex_lock(&p->lock);
	if (keep && p->n_waiting < MAX_WAITING) {
		h->used = true;
		p->waiting[p->n_waiting++] = *h;
	} else {
		let_end(p, h);
	}
	pthread_cond_signal(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

static void give_up(struct warm_pool *p)
{
	pthread_mutex_lock(&p->lock);
	p->live--;
	pthread_cond_signal(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

/* Say how a helper ended that gave no answer. */
static int explain_end(struct warm_pool *p, struct helper *h, int rc, int64_t timeout_ms,
		       struct warm_error *err)
{
	int status = 0;

	if (rc != WARM_NOT_FOUND)
		kill(h->pid, SIGKILL);
	hang_up(h);
	(void)warm_helper_reap(h->pid, true, &status);
	give_up(p);
	if (rc == WARM_CANCELED)
		return warm_error_set(err, rc, "%s took over %lld ms and was killed", p->path,
				      (long long)timeout_ms);
	if (rc != WARM_NOT_FOUND) {
		warm_error_context(err, "%s", p->path);
		return rc;
	}
	if (status == -1)
		return warm_error_set(err, rc, "%s died", p->path);
	if (WIFSIGNALED(status))
		return warm_error_set(err, rc, "%s was killed by signal %d (%s)", p->path,
				      WTERMSIG(status), strsignal(WTERMSIG(status)));
	return warm_error_set(err, rc, "%s exited with %d before it answered", p->path,
			      WEXITSTATUS(status));
}

static int ask(struct warm_pool *p, const char *environment, const struct warm_buf *request,
	       bool fresh, bool keep, int64_t timeout_ms, bool *ret_used, uint8_t **ret_data,
	       size_t *ret_bytes, struct warm_error *err)
{
	struct helper h = acquire(p, environment, fresh);
	int rc = 0;

	*ret_used = h.used;
	if (h.pid == 0) {
		h.environment = strdup(environment);
		rc = h.environment == NULL
			     ? warm_error_nomem(err, strlen(environment))
			     : warm_helper_start(p->path, environment, &h.pid, &h.fd, err);
		if (rc != 0) {
			free(h.environment);
			give_up(p);
			return rc;
		}
		h.id = warm_fd_id(h.fd);
		warm_kernel_count(p->counters, WARM_KERNEL_COUNT_HELPERS, 1);
	}
	int64_t deadline_ms = timeout_ms > 0 ? warm_clock_ms() + timeout_ms : 0;
	rc = warm_wire_send(h.fd, request, deadline_ms, err);
	if (rc == 0)
		rc = warm_wire_receive(h.fd, deadline_ms, ret_data, ret_bytes, err);
	if (rc != 0)
		return explain_end(p, &h, rc, timeout_ms, err);
	give_back(p, &h, keep);
	return 0;
}

int warm_pool_run(struct warm_pool *p, const char *environment, const struct warm_buf *request,
		  bool alone, int64_t timeout_ms, uint8_t **ret_data, size_t *ret_bytes,
		  struct warm_error *err)
{
	bool used = false;
	int rc = ask(p, environment, request, alone, !alone, timeout_ms, &used, ret_data, ret_bytes,
		     err);

	/* It may have ended just then, or by what it had compiled before. */
	if (rc == WARM_NOT_FOUND && used)
		rc = ask(p, environment, request, true, !alone, timeout_ms, &used, ret_data,
			 ret_bytes, err);
	return rc;
}
