/* W16: a stop of the world takes too long: a thread does not stop, or what is done in the stop does not end.
 *
 * All by who stops the world, of which there is one at a time; what is kept from one probe to the next passes on with world.owner. The first time a
 * thread is late its CPU time is noted, so that at the end it can be told from one that got no CPU. When all stand still, so does it: its stack is
 * taken from where it does. */
#include <string.h>
#include <weft/mem.h>
#include "debug/doctor.h"
#include "debug/thresholds.h"
#include "os/clock.h"
#include "os/procself.h"
#include "sched/sched.h"

static struct {
    struct m *late;           /* the first; NULL: none */
    bool inside;
    int tid;
    uint32_t ack;             /* its last acknowledgement then */
    int64_t cpu_ns, waited_ns; /* of the thread when it was late first; so long it was waited for */
    uint32_t looks, slept;
    int64_t stopping_ns, process_cpu_ns;
} stop;

static const char *reason_text(uintptr_t reason)
{
    weft_stop_stats s;
    return weft_read_stop_stats((int)reason, &s) == 0 ? s.reason : "?";
}

static void late(struct m *m, int64_t waited_ns, bool inside)
{
    if (stop.late == NULL) {
        stop.late = m;
        stop.inside = inside;
        stop.ack = load_rlx(&m->stop_ack); /* rlx: to be compared */
        stop.tid = __atomic_load_n(&m->tid, __ATOMIC_RELAXED); /* rlx: a number; 0 while the thread starts, and then nothing is known of it */
        stop.cpu_ns = stop.tid != 0 ? os_thread_cpu_ns(stop.tid) : INT64_MAX;
        stop.looks = stop.slept = 0;
    }
    if (stop.late != m)
        return;
    stop.waited_ns = waited_ns;
    stop.looks++;
    stop.slept += !inside && stop.tid != 0 && os_thread_state(stop.tid) == 'S'; /* who can be woken, and is not: by a signal that is blocked */
}

/* Where it stands still; if only its processor was taken it does not. False: not known. */
static w_no_sanitize bool stack_of(const struct m *m, struct unwind_from *from, uint64_t *fiber, uintptr_t *made)
{
    const struct fiber *f = __atomic_load_n(&m->cur, __ATOMIC_RELAXED); /* rlx, and the rest: it stands still, and we have seen that with acq */
    if (f == NULL)
        return false;
    *fiber = f->flags & FIBER_THREAD ? 0 : f->id;
    *made = (uintptr_t)f->site;
    const char *sp = m->stop_sp;
    if (sp == NULL || sp < f->stack_lo || sp >= f->stack_hi)
        return false;
    if (m->stop_regs_lo != NULL)
        unwind_from_signal(from, m->stop_regs_lo, f->stack_hi);
    else
        unwind_from_frame(from, sp, f->stack_hi);
    return from->lo >= (uintptr_t)f->stack_lo && from->lo < from->hi;
}

static void stopped(uintptr_t reason, int64_t took_ns)
{
    struct m *m = stop.late;
    stop.late = NULL;
    stop.stopping_ns = took_ns;
    stop.process_cpu_ns = reason == WEFT_STOP_GC ? os_process_cpu_ns() : 0;
    if (m == NULL || stop.waited_ns < sched.cfg.slowstop * 1000000)
        return;
    int64_t cpu = stop.tid != 0 ? os_thread_cpu_ns(stop.tid) - stop.cpu_ns : 0;
    if (cpu < sched.cfg.slowstop * 1000000 && stop.waited_ns / w_max(stop.looks, 1u) * stop.slept < sched.cfg.slowstop * 1000000)
        return;
    struct unwind_from from;
    struct sighting s = { .code = WEFT_W16, .text = reason_text(reason),
                          .n = { (uint64_t)stop.waited_ns, (uint64_t)stop.tid, stop.inside, m->foreign } };
    /* acq: sees its registers; rel in acknowledge */
    if (load_acq(&m->stop_ack) != stop.ack && stack_of(m, &from, &s.fiber, &s.made[0]))
        s.from = &from;
    s.nmade = s.made[0] != 0;
    doctor_sight(&s);
}

static void started(uintptr_t reason, int64_t took_ns)
{
    int64_t in_stop = took_ns - stop.stopping_ns, limit = sched.cfg.slowstop * 1000000 * T_W16_LONG;
    if (reason != WEFT_STOP_GC || in_stop < limit || (os_process_cpu_ns() - stop.process_cpu_ns) * 100 < limit * T_W16_CPU_PERCENT)
        return;
    struct sighting s = { .code = WEFT_W16, .text = "collecting", .n = { (uint64_t)in_stop } };
    doctor_sight(&s);
}

static void told(enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t c)
{
    if (sched.cfg.slowstop == 0)
        return;
    if (id == PROBE_world_late)
        late((struct m *)a, (int64_t)b, c != 0);
    else if (id == PROBE_world_stopped)
        stopped(a, (int64_t)b);
    else
        started(a, (int64_t)b);
}

static void say(struct text *t, const struct sighting *s)
{
    unsigned long ms = (unsigned long)(s->n[0] / 1000000);
    if (strcmp(s->text, "collecting") == 0) {
        text_putf(t, "the collector stopped the world for %lu ms", ms);
        return;
    }
    text_putf(t, "a stop of the world (%.60s) waited %lu ms for thread %lu%s, which was %s", s->text, ms, (unsigned long)s->n[1],
              s->n[3] ? " of the host" : "", s->n[2] ? "inside the runtime" : "in user code, with the stop signal blocked or held back");
}

static void forget(void) { stop.late = NULL; }

const struct detector w16_stop = {
    .code = WEFT_W16,
    .title = "a stop of the world takes long",
    .cure = "Threads must not block the stop signal (weft_config.stop_signal) while they run fibers or are attached; a heap whose marking takes "
            "that long wants fewer objects with pointers: weft_alloc_noscan, larger pieces.",
    .probes = DOCTOR_PROBE(world_late) | DOCTOR_PROBE(world_stopped) | DOCTOR_PROBE(world_start),
    .probe = told,
    .begin = forget,
    .after_fork = forget,
    .say = say,
};
