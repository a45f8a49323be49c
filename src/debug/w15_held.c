/* W15: a fiber holds a processor for too long.
 *
 * The monitor's looks drive it, on its thread. For each machine it is remembered what runs there, since when without a scheduling step, and what CPU
 * time the thread had used by then. When that is too long the thread is interrupted and copies its stack in the handler of the stop signal; a later
 * look takes the answer, or says it without a stack if none came in ANSWER_NS. Once in each stretch. */
#include "debug/doctor.h"
#include "debug/findings.h"
#include "debug/thresholds.h"
#include "os/clock.h"
#include "os/procself.h"
#include "sched/report.h"
#include "sched/runq.h"
#include "sched/sched.h"
#include "sched/world.h"

#define WATCHED 64u              /* machines; of more some share a place, and begin anew all the time */
#define ANSWER_NS INT64_C(10000000000) /* a thread that gets no CPU answers late */

enum { FREE, ASKED, COPYING, COPIED };

static struct {
    struct watch {
        uint32_t m;              /* id */
        bool told, had_p;
        const struct fiber *f;
        uint64_t fiber;
        uint32_t tick;
        int64_t since_ns, wanted_ns, cpu_ns; /* since when: all of it; with work queued behind it */
        uint32_t looks, slept;               /* when it is nearly too long: looks, and how often it slept */
    } at[WATCHED];
    int64_t last_ns;
    /* The one question at a time. */
    w_u32 state;                 /* rel: publishes what was asked, and answered; acq by the other side */
    struct m *m;
    int64_t asked_ns;
    struct sighting s;
    struct unwind_from from;
    bool found;
    char bytes[RAW_BYTES];
} held;

/* ---- the stack ------------------------------------------------------------------------------------------------------------- */

/* In the handler of the stop signal. */
static w_no_sanitize void interrupted(struct m *m, const ucontext_t *uc)
{
    if (load_acq(&held.state) != ASKED || held.m != m || !cas_acq(&held.state, ASKED, COPYING)) /* acq: sees the question; rel in ask */
        return;
    const struct fiber *f = m->cur;
    uintptr_t sp = arch_uc_sp(uc);
    held.found = f != NULL && f->id == held.s.fiber && sp >= (uintptr_t)f->stack_lo && sp < (uintptr_t)f->stack_hi;
    if (held.found) {
        unwind_from_signal(&held.from, uc, f->stack_hi);
        keep_bytes(&held.from, held.bytes);
    }
    store_rel(&held.state, COPIED); /* rel: the answer; acq in answer */
}

static void ask(struct m *m, const struct sighting *s, int64_t now)
{
    held.m = m;
    held.s = *s;
    held.asked_ns = now;
    held.found = false;
    __atomic_store_n(&sched_reports.watched, interrupted, __ATOMIC_RELAXED); /* rlx: the signal is sent after it */
    store_rel(&held.state, ASKED); /* rel: the question; acq in interrupted */
    world_interrupt(m);
}

static void say_it(void)
{
    if (held.found)
        held.s.from = &held.from;
    doctor_sight(&held.s);
    store_rel(&held.state, FREE); /* rel: done with from; acq in answer */
}

static void answer(int64_t now)
{
    uint32_t state = load_acq(&held.state); /* acq: rel in interrupted */
    if (state == FREE || state == COPYING || (state == ASKED && now - held.asked_ns < ANSWER_NS))
        return;
    if (state == ASKED && !cas_acq(&held.state, ASKED, FREE)) /* it answers at this moment */
        return;
    say_it();
}

/* ---- what runs --------------------------------------------------------------------------------------------------------------- */

struct seen { uint32_t m; const struct fiber *f; uint64_t id; const void *site; bool has_p, wanted, inside; uint32_t tick; };

/* Of a machine that goes on meanwhile, or ends and is used for another thread: hints, looked at again and again. What is read of a fiber that has ended
 * is a zero or another fiber's. */
static w_no_sanitize bool see(struct m *m, struct seen *out)
{
    out->m = __atomic_load_n(&m->id, __ATOMIC_RELAXED); /* rlx: a hint */
    if (load_acq(&m->dead) != M_ALIVE || m->foreign) /* acq: sees the machine; rel in m_publish_locked */
        return false;
    out->f = __atomic_load_n(&m->cur, __ATOMIC_RELAXED); /* rlx, and below: hints */
    if (out->f == NULL)
        return false;
    out->id = out->f->id;
    out->site = out->f->site;
    struct p *p = load_rlx(&m->pstate) != M_GONE ? __atomic_load_n(&m->p, __ATOMIC_RELAXED) : NULL;
    out->has_p = p != NULL;
    out->tick = p != NULL ? load_rlx(&p->tick) : 0;
    out->wanted = p != NULL && (!runq_empty(p) || load_rlx(&sched.global_len) != 0);
    out->inside = load_rlx(&m->in_runtime) != 0;
    return out->id != 0;
}

static void begin_at(struct watch *w, const struct seen *s, int64_t now)
{
    *w = (struct watch){ .m = s->m, .f = s->f, .fiber = s->id, .tick = s->tick, .had_p = s->has_p, .since_ns = now, .cpu_ns = -1 };
}

/* A processor that was taken away is no step; one that was got is. */
static bool goes_on(const struct watch *w, const struct seen *s)
{
    return w->m == s->m && w->f == s->f && w->fiber == s->id && (s->has_p ? w->had_p && w->tick == s->tick : true);
}

/* 0 while the thread starts, which is our own clock. */
static int64_t cpu_of(const struct m *m)
{
    int tid = __atomic_load_n(&m->tid, __ATOMIC_RELAXED); /* rlx: a number */
    return tid != 0 ? os_thread_cpu_ns(tid) : -1;
}

/* It was at work itself for so long, or asleep in user code, and not waiting for a CPU, or inside the runtime for somebody who does. */
static bool its_own_fault(const struct watch *w, struct m *m, int64_t ns)
{
    return (w->cpu_ns >= 0 && cpu_of(m) - w->cpu_ns >= ns) || (w->looks != 0 && w->slept * 100 >= w->looks * T_W15_ASLEEP_PERCENT);
}

static void look_at(struct m *m, int64_t now)
{
    struct seen s = { 0 };
    bool runs = see(m, &s);
    struct watch *w = &held.at[s.m % WATCHED];
    if (!runs && (w->m != s.m || w->f == NULL))
        return;
    if (!runs || !goes_on(w, &s)) {
        begin_at(w, &s, now);
        return;
    }
    w->had_p = s.has_p;
    if (w->cpu_ns < 0) /* from the second look on: most never come to it */
        w->cpu_ns = cpu_of(m);
    w->wanted_ns = !s.wanted ? 0 : w->wanted_ns != 0 ? w->wanted_ns : now;
    w->looks++;
    int64_t slow = sched.cfg.slowfiber * 1000000, ns = now - w->since_ns;
    bool stuck = w->wanted_ns != 0 && now - w->wanted_ns >= T_W15_STUCK_NS;
    if ((slow != 0 && ns * 4 >= slow) || (w->wanted_ns != 0 && (now - w->wanted_ns) * 4 >= T_W15_STUCK_NS))
        w->slept += !s.inside && os_thread_sleeps(__atomic_load_n(&m->tid, __ATOMIC_RELAXED)); /* rlx: as above */
    else
        w->looks = w->slept = 0;
    bool yes = (stuck && its_own_fault(w, m, T_W15_STUCK_CPU_NS)) || (slow != 0 && ns >= slow && its_own_fault(w, m, slow - slow / 8));
    if (w->told || !yes || load_rlx(&held.state) != FREE) /* rlx: only we leave FREE */
        return;
    w->told = true;
    struct sighting sight = { .code = WEFT_W15, .fiber = s.id, .nmade = s.site != NULL, .made = { (uintptr_t)s.site } };
    sight.n[0] = (uint64_t)ns;
    sight.n[1] = s.inside;
    sight.n[2] = s.has_p;
    ask(m, &sight, now);
}

static void later(int64_t ns)
{
    for (struct watch *w = held.at; w < held.at + WATCHED; w++) {
        w->since_ns += w->f != NULL ? ns : 0;
        w->wanted_ns += w->wanted_ns != 0 ? ns : 0;
    }
}

static void told(enum probe_id id, uintptr_t now, uintptr_t b, uintptr_t c)
{
    (void)id, (void)b, (void)c;
    int64_t since = (int64_t)now - held.last_ns;
    if (since < T_W15_LOOK_NS)
        return;
    held.last_ns = (int64_t)now;
    answer((int64_t)now);
    if (load_acq(&sched.stopping) != 0) { /* acq: nothing. That time is the stopper's, not theirs who stand still for him */
        later(since);
        return;
    }
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next) /* acq: sees *m; rel in m_publish_locked */
        look_at(m, (int64_t)now);
}

static void say(struct text *t, const struct sighting *s)
{
    text_putf(t, "fiber %lu has run for %lu ms without a wait or a yield, %s", (unsigned long)s->fiber, (unsigned long)(s->n[0] / 1000000),
              s->n[1] ? "inside the runtime, where its processor cannot be taken" : s->n[2] ? "and holds a processor"
                                                                                  : "the longest of it without a processor");
}

static void forget(void)
{
    held.last_ns = 0;
    for (uint32_t i = 0; i < WATCHED; i++)
        if (held.at[i].f != NULL) /* what was never touched takes no memory */
            held.at[i] = (struct watch){ 0 };
    store_rlx(&held.state, FREE); /* rlx: nobody else runs */
}
static void end(void)
{
    __atomic_store_n(&sched_reports.watched, NULL, __ATOMIC_RELAXED); /* rlx: a thread of the host's may be in its handler, and finds FREE */
    if (load_acq(&held.state) != FREE) /* acq: rel in interrupted. Nobody answers any more */
        say_it();
    forget();
}

const struct detector w15_held = {
    .code = WEFT_W15,
    .title = "a fiber holds a processor",
    .cure = "Let it weft_yield now and then, or put weft_blocking_begin and weft_blocking_end around what takes long; a call into weft that "
            "takes long gets too much at once.",
    .probes = DOCTOR_PROBE(monitor_look),
    .probe = told,
    .end = end,
    .after_fork = forget,
    .say = say,
};
