/* Threads and their hold on processors. */
#ifndef WEFT_SCHED_MACHINE_H
#define WEFT_SCHED_MACHINE_H

#include "sched/sched.h"

/* m has p from now on, or none. Owner of m, or a waker while m sleeps. */
void m_own(struct m *m, struct p *p);
struct p *m_disown(struct m *m);
/* Inside the runtime. While somebody tries to take it we are still the owner, and he will find that out. */
static inline bool m_has_p(struct m *m)
{
    uint32_t s;
    while (unlikely((s = load_acq(&m->pstate)) == M_TAKING)) /* acq: as in rt_own */
        cpu_relax();
    return s != M_GONE;
}

/* Takes the P of a machine that is in user code: the other side of [ENTRY]. NULL: it is inside, or has none. Under sched.take_lock. */
struct p *p_take(struct m *m);
/* The same, but for a moment: gets it back, or is told by whoever does not give it back (proc_lost). */
struct p *p_borrow(struct m *m);

/* m gets an idle processor, if there is one. */
bool m_get_idle(struct m *m);
/* Idle processors. Under sched.lock; get gives NULL while a stop is wanted. */
struct p *p_idle_get(void);
void p_idle_put(struct p *p);
void p_count_idle(struct p *p, bool idle); /* in the accounts of CPU time; by m_own and p_idle_put, and when p is withdrawn */

/* Somebody should look for work: wakes a machine if a processor idles and nobody searches. */
void proc_wake_slow(void);
static inline void proc_wake(void)
{
    /* seq: after the queue was filled (an exchange), before these looks; the searcher that goes idle makes its processor idle first and then looks at
     * the queues. */
    if (load_seq(&sched.nidle_p) != 0 && load_seq(&sched.nspinning) == 0)
        proc_wake_slow();
}
/* Timers or descriptors wait, and no machine idles, searches or polls that would serve them. A hint. */
bool procs_all_busy(void);
/* Another machine gets m's processor, and r to begin with. False: none is to be had, or the world is to stop. m is in the scheduler's loop. */
bool m_pass_on(struct m *m, runnable r);
/* p, which the caller owned and has left, goes to a machine if there is work for it, else it idles. */
void proc_handoff(struct p *p);
/* f is bound to a thread that sleeps: that one gets p, which the caller owned and has left. Is the world to stop or end, f is queued and p idles. */
void proc_give_bound(struct p *p, struct fiber *f);

/* Sleeps until m_wake; the caller has set m->sleep = 1 before anybody could know of it. */
void m_sleep(struct m *m);
/* The same, and counts the machine as not active: may find the deadlock. */
void m_sleep_inactive(struct m *m);
/* m goes on. The caller has given it a P (m_own) if it needs one, and counted it active, under sched.lock. */
void m_wake(struct m *m);
/* The fiber that was locked to m has ended: true when the thread is to return; the main thread sleeps for ever instead, until the runtime ends. */
bool m_exit_locked(struct m *m);

struct m *m_new(void);                 /* not in any list yet; NULL: no memory */
void m_publish_locked(struct m *m);    /* into all_m, under sched.lock */
int m_thread_start(struct m *m);       /* 0 or negative errno */
void m_check_limit(uint32_t n);        /* so many threads of ours: ends the program if that is more than weft_set_max_threads allows */
void m_start_or_give_up(struct m *m);  /* the same; on failure its P idles again */
int m_spare_start(uint32_t n);         /* one thread more, which looks for work and goes to sleep. 1; 0: n sleep already; -EAGAIN: no processor idles now */
void m_give_up(struct m *m);           /* m, whose thread was not started, gives its P back */
void m_leave(struct m *m);             /* on its own thread, which runs no fiber any more: the thread is as it was before, others may have m */
void m_thread_setup(struct m *m);      /* on the thread itself: thread-locals, alternate stack */
void m_thread_teardown(struct m *m);
int m_attach(struct m **out);          /* the calling host thread; 0, -ESRCH, -ENOMEM */
void m_detach(struct m *m);            /* the same; m may be of an earlier life of the runtime */
void machines_after_fork(struct m *self); /* in the child: the threads of all others are no more */
void machines_free(void);              /* at the end of the runtime */

/* Ends the runtime: every machine leaves at its next step. Any machine. Only the first result counts. */
void runtime_end(int result);
/* No machine is awake and none will wake: all fibers are asleep. Called under sched.lock, which it drops. */
void runtime_idle_locked(void);
/* The runtime ends: the calling fiber is left where it is, its thread goes back to its own stack. Not for host threads. */
void runtime_leave_fiber(struct m *m) w_noreturn;
/* The same in a child of a fork in which nobody waits for the runtime to end: ends the process, when all others have left; the first caller does. */
void runtime_orphan_end(void);
/* The main fiber is done; if it called weft_exit the others go on. */
void main_fiber_ended(bool by_exit);

/* The list of fibers (link.next) becomes runnable: on p's queue, or on the global one if p is NULL. */
void inject_fibers(struct p *p, struct fiber *list);

#endif
