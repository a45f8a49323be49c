/* Threads of the runtime that are no machines. A place belongs to the thread that has put its number there, until it puts 0. */
#include "sched/service.h"
#include <signal.h>
#include "base/probe.h"
#include "base/syscall.h"

#define SERVICES 96u /* those of a stop are at most 64 */

static struct service services[SERVICES];
static w_u32 wanted; /* SIGPROF is to be let in. rlx: a wish */
static __thread struct service *self __attribute__((tls_model("initial-exec")));

struct service *service_self(void) { return self; }
void services_let_in(bool let) { store_rlx(&wanted, let); }

static void let_in(struct service *s, bool let)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGPROF);
    s->lets_in = let;
    pthread_sigmask(let ? SIG_UNBLOCK : SIG_BLOCK, &set, NULL);
}

void service_look(struct service *s)
{
    bool let = load_rlx(&wanted) != 0;
    if (s != NULL && unlikely(s->lets_in != let))
        let_in(s, let);
}

struct service *service_begin(enum service_kind kind)
{
    for (struct service *s = services; s < services + SERVICES; s++) {
        if (load_rlx(&s->tid) != 0 || !cas_acq(&s->tid, 0, SERVICE_CLAIMED)) /* acq: who had it is done with it; rel in service_end. rlx: looked at again */
            continue;
        s->kind = kind;
        store_rlx(&s->sampled, 0); /* rlx: published below */
        store_rel(&s->tid, (uint32_t)sys_call0(SYS_gettid)); /* rel: publishes kind and sampled; acq in services_each */
        self = s;
        s->lets_in = false;
        service_look(s);
        PROBE(thread_here, 0, s, 1);
        return s;
    }
    return NULL;
}

void service_end(struct service *s)
{
    if (s == NULL)
        return;
    PROBE(thread_here, 0, s, 0);
    let_in(s, false);
    self = NULL;
    store_rel(&s->tid, 0); /* rel: acq in service_begin */
}

void services_each(void (*fn)(struct service *s, void *arg), void *arg)
{
    for (struct service *s = services; s < services + SERVICES; s++)
        if (service_tid(s) != 0)
            fn(s, arg);
}

unsigned services_count(enum service_kind kind)
{
    unsigned n = 0;
    for (struct service *s = services; s < services + SERVICES; s++)
        n += service_tid(s) != 0 && s->kind == kind;
    return n;
}

void services_after_fork(void)
{
    for (struct service *s = services; s < services + SERVICES; s++)
        store_rlx(&s->tid, 0); /* rlx: nobody else runs, and below */
    store_rlx(&wanted, 0);
}
