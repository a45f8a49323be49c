/* See special.h.
 *
 * A span that has any special has a table of them, sorted by object and kind; all tables are in one vector, which the marker cuts into
 * jobs. One lock for all: they are changed by weft_set_finalizer and its like only, and read in stops. */
#include "gc/special.h"
#include <errno.h>
#include <string.h>
#include "gc/finalize.h"

struct special_table {
    struct span *span;
    size_t at; /* in the vector */
    uint32_t n, cap;
    struct special *e;
};

#define TABLES_PER_JOB 16u

static struct {
    struct lock lock; /* all; in a stop nobody else is here */
    struct special_table **table;
    size_t n, cap;
} specials = { .lock = LOCK_INIT(RANK_SPECIAL) };

void specials_stop(void)
{
    for (size_t i = 0; i < specials.n; i++) {
        off_free(OFF_SPECIAL, specials.table[i]->e);
        off_free(OFF_SPECIAL, specials.table[i]);
    }
    off_free(OFF_SPECIAL, specials.table);
    memset(&specials, 0, sizeof specials);
    lock_init(&specials.lock, RANK_SPECIAL);
}

static struct special_table *table_of(struct span *s)
{
    if (s->specials != NULL)
        return s->specials;
    if (specials.n == specials.cap) {
        size_t cap = w_max((size_t)64, 2 * specials.cap);
        void *v = off_realloc(OFF_SPECIAL, specials.table, cap * sizeof *specials.table);
        if (v == NULL)
            return NULL;
        specials.table = v;
        specials.cap = cap;
    }
    struct special_table *t = off_zalloc(OFF_SPECIAL, sizeof *t);
    if (t == NULL)
        return NULL;
    t->span = s;
    t->at = specials.n;
    specials.table[specials.n++] = t;
    return s->specials = t;
}

static void drop_if_empty(struct special_table *t)
{
    if (t->n != 0)
        return;
    specials.table[t->at] = specials.table[--specials.n];
    specials.table[t->at]->at = t->at;
    t->span->specials = NULL;
    off_free(OFF_SPECIAL, t->e);
    off_free(OFF_SPECIAL, t);
}

/* The place of (index, kind), or where it would be. */
static uint32_t search(const struct special_table *t, uint32_t index, uint32_t kind)
{
    uint32_t lo = 0, hi = t->n;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (t->e[mid].index < index || (t->e[mid].index == index && t->e[mid].kind < kind))
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static bool is_at(const struct special_table *t, uint32_t i, uint32_t index, uint32_t kind)
{
    return i < t->n && t->e[i].index == index && t->e[i].kind == kind;
}

static int add_locked(struct span *s, struct special sp)
{
    struct special_table *t = table_of(s);
    if (t == NULL)
        return -ENOMEM;
    uint32_t i = search(t, sp.index, sp.kind);
    if (is_at(t, i, sp.index, sp.kind))
        return -EEXIST;
    if (t->n == t->cap) {
        uint32_t cap = w_max(4u, 2 * t->cap);
        void *e = off_realloc(OFF_SPECIAL, t->e, cap * sizeof *t->e);
        if (e == NULL) {
            drop_if_empty(t);
            return -ENOMEM;
        }
        t->e = e;
        t->cap = cap;
    }
    memmove(&t->e[i + 1], &t->e[i], (t->n - i) * sizeof *t->e);
    t->e[i] = sp;
    t->n++;
    return 0;
}

int special_add(struct span *s, struct special sp)
{
    lock_take(&specials.lock);
    int err = add_locked(s, sp);
    lock_drop(&specials.lock);
    return err;
}

bool special_remove(struct span *s, size_t index, enum special_kind kind)
{
    lock_take(&specials.lock);
    struct special_table *t = s->specials;
    uint32_t i = t != NULL ? search(t, (uint32_t)index, kind) : 0;
    bool found = t != NULL && is_at(t, i, (uint32_t)index, kind);
    if (found) {
        memmove(&t->e[i], &t->e[i + 1], (--t->n - i) * sizeof *t->e);
        drop_if_empty(t);
    }
    lock_drop(&specials.lock);
    return found;
}

/* ---- in a stop ------------------------------------------------------------------------------------------------ */

/* The last job is the queue of finalizers to run. */
size_t specials_jobs_stw(void) { return (specials.n + TABLES_PER_JOB - 1) / TABLES_PER_JOB + 1; }

void specials_job_stw(size_t i, struct marker *m)
{
    size_t from = i * TABLES_PER_JOB, to = w_min(from + TABLES_PER_JOB, specials.n);
    if (from >= specials.n) {
        finalize_roots_stw(m);
        return;
    }
    for (; from < to; from++) {
        struct special_table *t = specials.table[from];
        for (uint32_t k = 0; k < t->n; k++) {
            /* Go's rule: what the object reaches is kept, the object itself is not. So of A -> B, only A can be found dead. */
            mark_contents(m, t->span, t->e[k].index);
            mark_word(m, (uintptr_t)t->e[k].ctx);
        }
    }
}

/* Queues the finalizers of dead objects and marks these: what they reach is marked already. An object whose call cannot
 * be queued for want of memory is kept as it is, for the next cycle. */
static uint64_t finalize_dead(struct special_table *t)
{
    uint64_t bytes = 0;
    uint32_t kept = 0;
    for (uint32_t k = 0; k < t->n; k++) {
        struct special sp = t->e[k];
        bool dead = !mark_is_set(t->span, sp.index);
        if (dead) {
            bits_set(span_marks(t->span), sp.index);
            bytes += span_elem(t->span);
        }
        if (!dead || !finalize_queue_stw(span_object(t->span, sp.index), sp.fn, sp.ctx))
            t->e[kept++] = sp;
    }
    t->n = kept;
    return bytes;
}

uint64_t specials_dead_stw(void)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < specials.n; i++)
        bytes += finalize_dead(specials.table[i]);
    for (size_t i = specials.n; i-- > 0;)
        drop_if_empty(specials.table[i]);
    return bytes;
}
