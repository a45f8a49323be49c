/* W18: the address of a thread-local variable is used on another thread than the one whose variable it is.
 *
 * The fiber took it, waited, and went on elsewhere. A compiler may do that on its own (&errno is taken for constant within a function), so it is
 * worth a check where thread-local state is used after a wait. It needs no memory of who took what: the variables of a program and of the libraries
 * it started with lie beside the control block of their thread, in an area that is known of each of our threads. */
#include <errno.h>
#include "debug/place.h"
#include "os/loader.h"

/* A thread that ends or comes meanwhile may be missed. */
static w_no_sanitize const struct m *thread_of(const void *at, const struct m *self)
{
    for (const struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next) { /* acq: sees the machine; rel in m_publish_locked */
        uintptr_t tp = __atomic_load_n(&m->thread_pointer, __ATOMIC_RELAXED); /* rlx: fixed while it lives */
        if (m != self && tp != 0 && load_acq(&m->dead) == M_ALIVE && loader_beside(tp, at)) /* acq: likewise */
            return m;
    }
    return NULL;
}

w_noinline int weft_tls_check(const void *address)
{
    struct m *m = rt_enter_try();
    if (m == NULL)
        return -ESRCH;
    const struct m *owner = thread_of(address, m);
    if (owner != NULL && doctor_wants(WEFT_W18)) {
        struct sighting s = { .code = WEFT_W18, .n = { (uint64_t)owner->tid, (uint64_t)m->tid } };
        doctor_stack(&s);
        doctor_sight(&s);
    }
    rt_leave(m);
    return owner != NULL ? -EXDEV : 0;
}

static void say(struct text *t, const struct sighting *s)
{
    text_putf(t, "fiber %lu, on thread %lu, uses a thread-local variable of thread %lu: it has the address from before a wait", (unsigned long)s->fiber,
              (unsigned long)s->n[1], (unsigned long)s->n[0]);
}

const struct detector w18_thread_local = {
    .code = WEFT_W18,
    .title = "the address of a thread-local variable was kept over a wait",
    .cure = "Take the address anew after each call that may move the fiber, in a function that is not inlined; or weft_lock_os_thread around the use.",
    .say = say,
};
