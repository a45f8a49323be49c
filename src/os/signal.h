/* Signal handlers that share: ours looks first, the host's gets what is not for us. */
#ifndef WEFT_OS_SIGNAL_H
#define WEFT_OS_SIGNAL_H

#include <signal.h>
#include <stdbool.h>

/* true: the signal was ours. Runs on the alternate stack; errno is saved around it. */
typedef bool signal_fn(int sig, siginfo_t *info, void *uc);

/* Installs fn in front of the present handler of sig. 0, or negative errno. Not twice for one sig. */
int signal_hook(int sig, signal_fn *fn);
/* Puts the host's handler back, unless the host has installed another one since. */
void signal_unhook(int sig);

#endif
