// SPDX-License-Identifier: Apache-2.0
/* The first process of a cluster's namespaces, and of each pod's: reaps the others' children and
 * ends at SIGTERM. */
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

int main(void)
{
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	while (sigwait(&set, &sig) == 0) {
		if (sig != SIGCHLD)
			exit(0);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
	return 1;
}
