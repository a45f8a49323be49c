/* W02: finalizers are the way to close what is scarce, and run when the heap has grown, not when there is none left.
 *
 * Two things are proof.
 *
 *  - A weft_resource came near its limit, a collection was made for it, and finalizers gave an eighth of the limit back.
 *  - A collection ends while three quarters of the descriptors are taken, and finds objects dead that have finalizers. Before such a finalizer runs,
 *    numbers in its object that are those of open descriptors are noted; when it has run, they are looked at: of a descriptor that is closed then,
 *    this finalizer was the one to close it. Some of those in one batch are no accident. Another thread that opens a file in that moment takes the
 *    number and hides it, so a number that is open says nothing. The cost is a call of fcntl for each of a few finalizers, and only while
 *    descriptors are short. */
#include "debug/doctor.h"
#include "debug/thresholds.h"
#include "gc/gc.h"
#include "sched/reclaim.h"
#include "sched/sched.h"
#include <weft/gc.h>

#define NUMBERS 16u /* of 32 bits, at the beginning of an object */
#define NOTED 4u

static struct {
    struct lock lock;  /* all */
    uint32_t left;     /* finalizers of the batch that are looked at yet; rlx elsewhere: a hint */
    uint32_t closed, noted;
    int32_t fd[NOTED]; /* of the one that runs */
    uint64_t dead;     /* objects of the batch */
    const void *pc;    /* who set the finalizer */
} late = { .lock = LOCK_INIT(RANK_LEAF) };

static void cycle_ended(void)
{
    uint64_t n = gc_calls_waiting(GC_FINALIZER);
    if (n < T_W02_OBJECTS || !reclaim_descriptors_short())
        return;
    lock_take(&late.lock);
    late.dead = n;
    late.closed = late.noted = 0;
    __atomic_store_n(&late.left, (uint32_t)w_min(n, (uint64_t)T_W02_LOOKS), __ATOMIC_RELAXED);
    lock_drop(&late.lock);
}

/* Of the finalizer that has run last. Under the lock. */
static bool closed_enough(void)
{
    bool closed = false;
    for (uint32_t i = 0; i < late.noted; i++)
        closed = closed || !reclaim_is_open(late.fd[i]);
    late.noted = 0;
    late.closed += closed;
    return closed && late.closed == T_W02_CLOSED;
}

/* 0 to 2 belong to everybody. Under the lock. */
static w_no_sanitize void note(const struct gc_call *call, int64_t limit)
{
    const int32_t *number = call->obj;
    size_t n = w_min(gc_object_size(call->obj) / sizeof *number, (size_t)NUMBERS);
    for (size_t i = 0; i < n && late.noted < NOTED; i++)
        if (number[i] > 2 && number[i] < limit && reclaim_is_open(number[i]))
            late.fd[late.noted++] = number[i];
    late.pc = call->pc;
}

static void runs(const struct gc_call *call)
{
    struct sighting s = { .code = WEFT_W02 };
    bool found = false;
    if (__atomic_load_n(&late.left, __ATOMIC_RELAXED) == 0)
        return;
    int64_t limit = reclaim_limit();
    lock_take(&late.lock);
    if (late.left > 0) {
        const void *pc = late.pc;
        found = closed_enough();
        s.n[0] = (uint64_t)limit;
        s.n[1] = late.dead;
        s.nstack = pc != NULL;
        s.stack[0] = (uintptr_t)pc;
        note(call, limit);
        __atomic_store_n(&late.left, found ? 0 : late.left - 1, __ATOMIC_RELAXED);
    }
    lock_drop(&late.lock);
    if (found)
        doctor_sight(&s);
}

static void resource(const weft_resource *r, int64_t held, int64_t late)
{
    int64_t limit = reclaim_limit_of(r);
    if (late < limit / 8 || late < (int64_t)T_W02_OBJECTS)
        return;
    struct sighting s = { .code = WEFT_W02, .text = r->name != NULL ? r->name : "objects", .n = { (uint64_t)limit, (uint64_t)late, (uint64_t)held } };
    doctor_stack(&s);
    doctor_sight(&s);
}

static void told(enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t c)
{
    if (id == PROBE_gc_end)
        cycle_ended();
    else if (id == PROBE_resource_late)
        resource((const weft_resource *)a, (int64_t)b, (int64_t)c);
    else if (c == GC_FINALIZER)
        runs((const struct gc_call *)b);
}

static void say(struct text *t, const struct sighting *s)
{
    if (s->text == NULL)
        text_putf(t, "finalizers close descriptors: more than three quarters of the %lu that the process may have were open, and a collection "
                     "found %lu objects dead whose finalizers, set here, were to close theirs", (unsigned long)s->n[0], (unsigned long)s->n[1]);
    else
        text_putf(t, "%lu of at most %lu were held here, and %lu of these by nobody any more: finalizers gave them back after a collection that "
                     "was made for it: ", (unsigned long)s->n[2], (unsigned long)s->n[0], (unsigned long)s->n[1]);
    if (s->text != NULL)
        text_puts(t, s->text);
}

static void begin(void) { late.left = late.noted = 0; }
static void after_fork(void)
{
    lock_init(&late.lock, RANK_LEAF);
    begin();
}

const struct detector w02_late_close = {
    .code = WEFT_W02,
    .title = "finalizers close what is scarce, late",
    .cure = "Close it when it is no longer needed, and take the finalizer away then; as a net for what was forgotten, see weft_reclaim.",
    .probes = DOCTOR_PROBE(gc_end) | DOCTOR_PROBE(finalizer_run) | DOCTOR_PROBE(resource_late),
    .probe = told,
    .begin = begin,
    .after_fork = after_fork,
    .say = say,
};
