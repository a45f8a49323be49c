/* W05: an object was collected while what belongs to it was in use, for want of a weft_keep_alive.
 *
 * Looked for in the mode that makes it likely, WEFT_DEBUG=gcstress=N,gcpoison=1: elsewhere nothing here costs anything. Two things are proof.
 *
 *  - A finalizer or cleanup is about to run, and a call of the program's that waits (weft_write and its like) has a buffer outside of the heap whose
 *    address the object holds, or which the finalizer is called with: from now on the buffer belongs to nobody, and the call goes on with it. Buffers
 *    of calls that wait are told by io.c, in this mode only.
 *  - Memory of a freed object was written to, which gcpoison finds when it is used again. The program ends then, by gc/poison.c; what is known of the
 *    object is told before.
 *
 * The stack of a finding is that of whoever made the collection run that found the object dead: by gcstress a collection runs in the middle of some
 * allocation, and the last reference had gone before. The other stack is that of the allocation. For that, in this mode every allocation is told,
 * and every freed object: a table, direct mapped by address, has who allocated an object and in which cycle it was freed; whoever comes later at the
 * same place of the table takes it. Of cycles the last CYCLES are kept. */
#include <string.h>
#include "base/text.h"
#include "debug/doctor.h"
#include "debug/findings.h"
#include "debug/place.h"
#include "debug/thresholds.h"
#include "gc/gc.h"
#include "prof/buckets.h"
#include "sched/sched.h"

#define OBJECTS (1u << 16)
#define CYCLES 4096u
#define ASKERS 64u      /* machines that collect at a time */
#define BUSY 512u       /* buffers of calls that wait */
#define WORDS_LOOKED 64u

struct object { uintptr_t at; struct bucket *made; uint64_t freed; };
struct cycle { uint64_t number; struct bucket *by; };
struct busy { uintptr_t lo, hi; uint64_t fiber; };

/* Mapped while the mode is on. */
static struct seen {
    struct lock lock; /* all */
    struct object object[OBJECTS];
    struct cycle cycle[CYCLES];
    struct { const struct m *m; struct bucket *by; } asker[ASKERS];
    struct busy busy[BUSY];
    uint32_t nbusy;
} *seen;
static struct buckets buckets; /* stacks */

static struct bucket *stack_here(void)
{
    struct place p;
    place_here(&p);
    return p.n > 0 ? bucket_get(&buckets, p.pc, p.n, 0) : NULL;
}

static struct object *object_at(uintptr_t at) { return &seen->object[(uint32_t)((at >> 3) * 0x9e3779b97f4a7c15ull >> 48) % OBJECTS]; }

static uint32_t put(uintptr_t *to, const struct bucket *b)
{
    uint32_t n = b != NULL ? w_min(b->n, DOCTOR_FRAMES) : 0;
    if (n > 0)
        memcpy(to, b->pc, n * sizeof *to);
    return n;
}

/* ---- what is told ------------------------------------------------------------------------------------------------ */

/* Whoever asks for a collection, on his own stack; and the cycle, in its stop, on the same thread. */
static void asked(void)
{
    struct bucket *b = stack_here();
    lock_take(&seen->lock);
    seen->asker[m_self()->id % ASKERS].m = m_self();
    seen->asker[m_self()->id % ASKERS].by = b;
    lock_drop(&seen->lock);
}

static void cycle_began(uint64_t number)
{
    uint32_t i = m_self()->id % ASKERS;
    lock_take(&seen->lock);
    seen->cycle[number % CYCLES] = (struct cycle){ number, seen->asker[i].m == m_self() ? seen->asker[i].by : NULL };
    lock_drop(&seen->lock);
}

static void allocated(uintptr_t at)
{
    struct bucket *b = stack_here();
    lock_take(&seen->lock);
    *object_at(at) = (struct object){ at, b, 0 };
    lock_drop(&seen->lock);
}

static void freed(uintptr_t at, uint64_t number)
{
    lock_take(&seen->lock);
    if (object_at(at)->at == at)
        object_at(at)->freed = number;
    lock_drop(&seen->lock);
}

static void buffer(uintptr_t lo, size_t bytes, bool busy)
{
    if (gc_in_heap((const void *)lo)) /* whoever waits keeps it, whatever becomes of other objects that have its address */
        return;
    struct busy b = { .lo = lo, .hi = lo + bytes, .fiber = m_self()->cur != NULL ? m_self()->cur->id : 0 };
    lock_take(&seen->lock);
    if (busy && seen->nbusy < BUSY)
        seen->busy[seen->nbusy++] = b;
    for (uint32_t i = seen->nbusy; !busy && i-- > 0;)
        if (seen->busy[i].lo == b.lo && seen->busy[i].hi == b.hi && seen->busy[i].fiber == b.fiber) {
            seen->busy[i] = seen->busy[--seen->nbusy];
            break;
        }
    lock_drop(&seen->lock);
}

/* ---- what is found ------------------------------------------------------------------------------------------------ */

/* Under the lock. */
static const struct busy *busy_at(uintptr_t word)
{
    for (uint32_t i = 0; i < seen->nbusy; i++)
        if (word >= seen->busy[i].lo && word < seen->busy[i].hi)
            return &seen->busy[i];
    return NULL;
}

/* The object lives: its finalizer has not begun. */
static w_no_sanitize const struct busy *used_by(uintptr_t obj, uintptr_t arg, uint32_t *field)
{
    const struct busy *b = busy_at(arg);
    *field = UINT32_MAX;
    size_t words = obj != 0 ? w_min(gc_object_size((void *)obj) / 8, (size_t)WORDS_LOOKED) : 0;
    for (size_t i = 0; b == NULL && i < words; i++) {
        b = busy_at(((const uintptr_t *)obj)[i]);
        *field = (uint32_t)(8 * i);
    }
    return b;
}

/* Who made the collection that found it dead, and who had allocated it. Under the lock. */
static void put_stacks(struct sighting *s, uintptr_t at, uint64_t number)
{
    const struct cycle *c = &seen->cycle[number % CYCLES];
    const struct object *o = object_at(at);
    s->n[2] = number;
    s->nstack = put(s->stack, c->number == number ? c->by : NULL);
    s->nmade = put(s->made, o->at == at ? o->made : NULL);
}

static void runs(const struct gc_call *call)
{
    struct sighting s = { .code = WEFT_W05 };
    uint32_t field;
    lock_take(&seen->lock);
    const struct busy *b = used_by((uintptr_t)call->obj, (uintptr_t)call->arg, &field);
    if (b != NULL) {
        s.fiber = b->fiber;
        s.n[0] = field;
        s.n[1] = b->hi - b->lo;
        put_stacks(&s, (uintptr_t)call->obj, call->cycle);
    }
    lock_drop(&seen->lock);
    if (b != NULL)
        doctor_sight(&s);
}

/* The program ends next. */
static void poisoned(uintptr_t at, uintptr_t bytes, uintptr_t field)
{
    struct sighting s = { .code = WEFT_W05, .text = "written to after it was freed", .n = { field, bytes } };
    lock_take(&seen->lock);
    if (object_at(at)->at == at)
        put_stacks(&s, at, object_at(at)->freed);
    lock_drop(&seen->lock);
    doctor_sight(&s);
    tell_flush(T_W05_LAST_WORDS_NS);
}

static void told(enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t c)
{
    if (likely(seen == NULL))
        return;
    switch ((int)id) {
    case PROBE_gc_asked:
        asked();
        break;
    case PROBE_gc_begin:
        cycle_began(a);
        break;
    case PROBE_alloc_checked:
        allocated(a);
        break;
    case PROBE_free_checked:
        freed(a, b);
        break;
    case PROBE_buffer_used:
        buffer(a, b, c != 0);
        break;
    case PROBE_finalizer_run:
        runs((const struct gc_call *)b);
        break;
    case PROBE_poison_broken:
        poisoned(a, b, c);
        break;
    }
}

static void say(struct text *t, const struct sighting *s)
{
    if (s->text != NULL) {
        text_putf(t, "memory of an object of %lu bytes was written to, at offset %lu, after collection %lu had freed it", (unsigned long)s->n[1],
                  (unsigned long)s->n[0], (unsigned long)s->n[2]);
        return;
    }
    text_putf(t, "the finalizer or cleanup of an object runs while fiber %lu still waits in a call that uses %lu bytes of memory ",
              (unsigned long)s->fiber, (unsigned long)s->n[1]);
    if (s->n[0] == UINT32_MAX)
        text_puts(t, "which it is called with");
    else
        text_putf(t, "whose address the object has at offset %lu", (unsigned long)s->n[0]);
    text_putf(t, "; nothing led to the object any more in collection %lu, which ran here", (unsigned long)s->n[2]);
}

static void begin(void)
{
    if (sched.cfg.gcpoison == 0 || sched.cfg.gcstress == 0)
        return;
    struct seen *s = off_map(OFF_PROF, w_align_up(sizeof *s, 4096), 4096);
    if (s != NULL)
        lock_init(&s->lock, RANK_LEAF);
    seen = s;
}

static void end(void)
{
    struct seen *s = seen;
    seen = NULL;
    if (s == NULL)
        return;
    off_unmap(OFF_PROF, s, w_align_up(sizeof *s, 4096));
    buckets_free(&buckets);
}

static void after_fork(void)
{
    if (seen == NULL)
        return;
    lock_init(&seen->lock, RANK_LEAF);
    seen->nbusy = 0;
}

const struct detector w05_used_after = {
    .code = WEFT_W05,
    .title = "an object was collected while its memory was in use",
    .cure = "Call weft_keep_alive(object) after the last use of what belongs to it: the collector sees pointers, not what they stand for.",
    .probes = DOCTOR_PROBE(gc_asked) | DOCTOR_PROBE(gc_begin) | DOCTOR_PROBE(alloc_checked) | DOCTOR_PROBE(free_checked) |
              DOCTOR_PROBE(buffer_used) | DOCTOR_PROBE(finalizer_run) | DOCTOR_PROBE(poison_broken),
    .probe = told,
    .begin = begin,
    .always = true,
    .end = end,
    .after_fork = after_fork,
    .say = say,
};
