/* W01: what a finalizer is called with, or its own object, leads to that object, which is never found dead: the finalizer never runs.
 *
 * gc has the proof, with the way ([HELD] in gc/held.c). Of each place that sets such finalizers one is kept, and stays as long as the runtime does,
 * since the sentence is made later, by a thread of the doctor's. */
#include "debug/doctor.h"
#include "debug/retain.h"
#include "gc/held.h"

#define KEPT 32u /* places */

static struct lock lock = LOCK_INIT(RANK_LEAF);
static struct kept { struct gc_held held; uint32_t others; } *kept[KEPT]; /* under the lock; others grows */
static uint32_t nkept;

/* Under the lock. NULL: no room, or no memory. */
static struct kept *kept_of(const struct gc_held *h)
{
    for (uint32_t i = 0; i < nkept; i++)
        if (kept[i]->held.pc == h->pc && kept[i]->held.by_ctx == h->by_ctx)
            return kept[i];
    struct kept *k = nkept < KEPT ? off_alloc(OFF_PROF, sizeof *k) : NULL;
    if (k != NULL) {
        *k = (struct kept){ .held = *h };
        kept[nkept++] = k;
    }
    return k;
}

static void told(enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t c)
{
    const struct gc_held *h = (const struct gc_held *)a;
    (void)id, (void)b, (void)c;
    lock_take(&lock);
    struct kept *k = kept_of(h);
    uint32_t all = 0;
    if (k != NULL)
        all = k->others += 1 + h->others;
    lock_drop(&lock);
    if (k == NULL)
        return;
    struct sighting s = { .code = WEFT_W01, .n = { (uint64_t)(uintptr_t)k, all }, .nstack = 1, .stack = { (uintptr_t)h->pc } };
    doctor_sight(&s);
}

static void put_step(struct text *t, const struct gc_held_step *p, bool last)
{
    char type[128];
    retain_type(type, sizeof type, p->shape);
    text_putf(t, "0x%lx (%.100s, %lu bytes)", (unsigned long)(uintptr_t)p->obj, type, (unsigned long)p->bytes);
    if (last)
        return;
    if (p->field == HELD_CTX)
        text_puts(t, ", whose finalizer's ctx is ");
    else
        text_putf(t, " at offset %u -> ", p->field);
}

static void say(struct text *t, const struct sighting *s)
{
    const struct gc_held *h = &((const struct kept *)(uintptr_t)s->n[0])->held;
    uint32_t n = w_min(h->steps, HELD_STEPS);
    if (h->by_ctx)
        text_puts(t, "the ctx of a finalizer keeps the finalizer's own object, so that it never runs: ctx ");
    else
        text_puts(t, "an object with a finalizer leads to itself, and what leads back has one too or is kept by it, so that it never runs: ");
    for (uint32_t i = 0; i < n; i++) {
        if (i + 1 == HELD_STEPS && h->steps > HELD_STEPS)
            text_putf(t, "... %u others ... -> ", h->steps - HELD_STEPS);
        put_step(t, &h->step[i], i + 1 == n);
    }
    text_putf(t, "; of finalizers set here, %lu are kept by nothing but finalizers", (unsigned long)s->n[1]);
}

/* What was found is told after the end of a life: so the records are dropped when the next one begins. */
static void begin(void)
{
    for (uint32_t i = 0; i < nkept; i++)
        off_free(OFF_PROF, kept[i]);
    nkept = 0;
}

static void after_fork(void)
{
    lock_init(&lock, RANK_LEAF);
    nkept = 0; /* the parent's findings are forgotten, too */
}

const struct detector w01_capture = {
    .code = WEFT_W01,
    .title = "a finalizer's ctx keeps its own object",
    .cure = "Give the finalizer what it needs by value, or in an object that does not lead back: it gets the object as its first argument. A circle "
            "of objects with finalizers is to be broken by hand.",
    .probes = DOCTOR_PROBE(finalizer_held),
    .probe = told,
    .begin = begin,
    .after_fork = after_fork,
    .say = say,
};
