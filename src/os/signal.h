/* Signal handlers that share: ours looks first, the host's gets what is not for us. */
#ifndef WEFT_OS_SIGNAL_H
#define WEFT_OS_SIGNAL_H

#include <signal.h>
#include <stdbool.h>

/* What a handler of ours says of a signal. SIGNAL_BOTH: it was ours, but one of the host's may have melted into it while it was pending
 * (all but real-time signals do), so a handler of the host is called too; the default action is not taken. */
enum signal_whose { SIGNAL_HOSTS = 0, SIGNAL_OURS, SIGNAL_BOTH };
/* Runs on the alternate stack; errno is saved around it. */
typedef enum signal_whose signal_fn(int sig, siginfo_t *info, void *uc);

/* Installs fn in front of the present handler of sig. undisturbed: all other signals wait until it, and what it passes on to, has returned;
 * else only those do that the handler passed on to has asked for (sa_mask). 0, or negative errno. Not twice for one sig. */
int signal_hook(int sig, signal_fn *fn, bool undisturbed);
/* Is in front again, if the host has installed a handler since that passes nothing on; that one is behind ours now. One caller at a time.
 * 0, or negative errno. */
int signal_to_front(int sig);
/* Puts the host's handler back, unless the host has installed another one since. */
void signal_unhook(int sig);

#endif
