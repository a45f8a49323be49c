/* See special.h.
 *
 * A span that has any special has a table of them, sorted by object and kind; all tables are in one vector, which the marker
 * cuts into jobs. One lock for all: they are changed by weft_set_finalizer and its like only, and read in stops. Objects mostly get theirs
 * in the order of their addresses, as they are allocated, so that adding is appending. */
#include "gc/special.h"
#include <errno.h>
#include <string.h>
#include "gc/finalize.h"
#include "gc/weak.h"

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
    bool later; /* finalizers are left out; changed in stops */
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

/* The first entry of (index, kind) or behind it: where the kind begins. */
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

/* The one of a kind that is there once; NULL: none. */
static struct special *only_locked(const struct special_table *t, size_t index, enum special_kind kind)
{
    uint32_t i = t != NULL ? search(t, (uint32_t)index, kind) : 0;
    return t != NULL && is_at(t, i, (uint32_t)index, kind) ? &t->e[i] : NULL;
}

/* Behind those of its object and kind. */
static int add_locked(struct span *s, struct special sp)
{
    struct special_table *t = table_of(s);
    if (t == NULL)
        return -ENOMEM;
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
    uint32_t i = search(t, sp.index, sp.kind + 1);
    memmove(&t->e[i + 1], &t->e[i], (t->n - i) * sizeof *t->e);
    t->e[i] = sp;
    t->n++;
    return 0;
}

static void remove_locked(struct special_table *t, struct special *e)
{
    t->n--;
    memmove(e, e + 1, (size_t)(t->e + t->n - e) * sizeof *e);
    drop_if_empty(t);
}

int special_add(struct span *s, struct special sp)
{
    lock_take(&specials.lock);
    int err = add_locked(s, sp);
    lock_drop(&specials.lock);
    return err;
}

int special_add_only(struct span *s, struct special sp)
{
    lock_take(&specials.lock);
    int err = only_locked(s->specials, sp.index, sp.kind) != NULL ? -EEXIST : add_locked(s, sp);
    lock_drop(&specials.lock);
    return err;
}

bool special_remove(struct span *s, size_t index, enum special_kind kind)
{
    lock_take(&specials.lock);
    struct special *e = only_locked(s->specials, index, kind);
    if (e != NULL)
        remove_locked(s->specials, e);
    lock_drop(&specials.lock);
    return e != NULL;
}

/* ---- weak handles ---------------------------------------------------------------------------------------------- */

static weft_weak *weak_locked(const struct special_table *t, size_t index, uint64_t offset)
{
    if (t == NULL)
        return NULL;
    for (uint32_t i = search(t, (uint32_t)index, SPECIAL_WEAK); is_at(t, i, (uint32_t)index, SPECIAL_WEAK); i++)
        if (t->e[i].weak.offset == offset)
            return t->e[i].weak.handle;
    return NULL;
}

weft_weak *special_weak(struct span *s, size_t index, uint64_t offset)
{
    lock_take(&specials.lock);
    weft_weak *w = weak_locked(s->specials, index, offset);
    lock_drop(&specials.lock);
    return w;
}

weft_weak *special_weak_add(struct span *s, size_t index, uint64_t offset, weft_weak *handle)
{
    struct special sp = { .index = (uint32_t)index, .kind = SPECIAL_WEAK, .weak = { handle, offset } };
    lock_take(&specials.lock);
    weft_weak *w = weak_locked(s->specials, index, offset);
    if (w == NULL && add_locked(s, sp) == 0)
        w = handle;
    lock_drop(&specials.lock);
    return w;
}

/* ---- cleanups --------------------------------------------------------------------------------------------------- */

bool special_cleanup_remove(const void *p, uint64_t id)
{
    struct span *s = heap_span_of(p);
    if (s == NULL)
        return false;
    bool found = false;
    lock_take(&specials.lock);
    struct special_table *t = s->specials;
    if (t != NULL) { /* so the span is in use, whosever it is, and its record stands still */
        uint32_t index = (uint32_t)span_index(s, p), i = search(t, index, SPECIAL_CLEANUP);
        while (is_at(t, i, index, SPECIAL_CLEANUP) && t->e[i].cleanup.id != id)
            i++;
        found = is_at(t, i, index, SPECIAL_CLEANUP);
        if (found)
            remove_locked(t, &t->e[i]);
    }
    lock_drop(&specials.lock);
    return found;
}

/* ---- watches --------------------------------------------------------------------------------------------------- */

int gc_watch(void *obj, void (*dead_stw)(void *obj))
{
    struct span *s = heap_span_of(obj);
    return special_add_only(s, (struct special){ .index = (uint32_t)span_index(s, obj), .kind = SPECIAL_WATCH, .dead_stw = dead_stw });
}

bool gc_unwatch(void *obj)
{
    struct span *s = heap_span_of(obj);
    return special_remove(s, span_index(s, obj), SPECIAL_WATCH);
}

/* ---- pools ------------------------------------------------------------------------------------------------------- */

int gc_pool_add(struct gc_pool *pool)
{
    struct span *s = heap_span_of(pool);
    size_t i = span_index(s, pool);
    pool->cycle = gc_cycles_begun();
    return special_add(s, (struct special){ .index = (uint32_t)i, .kind = SPECIAL_POOL, .pool = pool });
}

/* ---- in a stop ------------------------------------------------------------------------------------------------ */

/* The last job is the queues of what is to run. */
bool specials_any_stw(void) { return specials.n != 0; }
size_t specials_jobs_stw(void) { return (specials.n + TABLES_PER_JOB - 1) / TABLES_PER_JOB + 1; }

/* Once in each cycle, though marking for gcverify comes by a second time. */
static void pool_turn(struct gc_pool *pool)
{
    uint64_t now = gc_cycles_begun();
    if (pool->cycle == now)
        return;
    pool->cycle = now;
    pool->victim = load_rlx(&pool->primary); /* rlx, here and below: everybody stands still */
    store_rlx(&pool->primary, NULL);
}

static void hold(struct span *s, const struct special *e, bool stopped, struct marker *m)
{
    switch ((enum special_kind)e->kind) {
    case SPECIAL_WEAK:
        mark_word(m, (uintptr_t)e->weak.handle);
        if (mark_is_late(m)) /* whoever has the handle can come to the object */
            mark_word(m, (uintptr_t)span_object(s, e->index));
        break;
    case SPECIAL_FINALIZER:
        if (specials.later)
            break;
        /* Go's rule: what the object reaches is kept, the object itself is not. So of A -> B, only A can be found dead. */
        mark_contents(m, s, e->index);
        mark_word(m, (uintptr_t)e->finalizer.ctx);
        break;
    case SPECIAL_CLEANUP:
        mark_word(m, (uintptr_t)e->cleanup.arg);
        break;
    case SPECIAL_WATCH:
        break;
    case SPECIAL_POOL:
        if (!stopped)
            break;
        pool_turn(e->pool);
        mark_word(m, (uintptr_t)e->pool->victim);
        break;
    }
}

static void table_hold(const struct special_table *t, bool stopped, struct marker *m)
{
    for (uint32_t k = 0; k < t->n; k++)
        hold(t->span, &t->e[k], stopped, m);
}

void specials_job_stw(size_t i, struct marker *m)
{
    size_t from = i * TABLES_PER_JOB, to = w_min(from + TABLES_PER_JOB, specials.n);
    if (from >= specials.n)
        finalize_roots_stw(m);
    for (; from < to; from++)
        table_hold(specials.table[from], true, m);
}

size_t specials_jobs(void)
{
    lock_take(&specials.lock);
    size_t n = (specials.n + TABLES_PER_JOB - 1) / TABLES_PER_JOB;
    lock_drop(&specials.lock);
    return n + 1;
}

/* Tables that come, go or change places meanwhile are seen in the stop. */
void specials_job(size_t i, struct marker *m)
{
    for (size_t at = i * TABLES_PER_JOB; at < (i + 1) * TABLES_PER_JOB; at++) {
        lock_take(&specials.lock);
        if (at < specials.n)
            table_hold(specials.table[at], false, m);
        lock_drop(&specials.lock);
    }
}

void specials_finalizers_later_stw(bool later) { specials.later = later; }

void specials_finalizers_stw(size_t i, struct marker *m)
{
    size_t from = i * TABLES_PER_JOB, to = w_min(from + TABLES_PER_JOB, specials.n);
    for (; from < to; from++) {
        struct special_table *t = specials.table[from];
        for (uint32_t k = 0; k < t->n; k++)
            if (t->e[k].kind == SPECIAL_FINALIZER)
                hold(t->span, &t->e[k], true, m);
    }
}

void specials_each_finalizer_stw(void (*fn)(void *arg, struct span *s, struct special *e), void *arg)
{
    for (size_t i = 0; i < specials.n; i++)
        for (uint32_t k = 0; k < specials.table[i]->n; k++)
            if (specials.table[i]->e[k].kind == SPECIAL_FINALIZER)
                fn(arg, specials.table[i]->span, &specials.table[i]->e[k]);
}

const struct special *special_finalizer_stw(const struct span *s, size_t index)
{
    return s->specials != NULL ? only_locked(s->specials, index, SPECIAL_FINALIZER) : NULL;
}

/* What hold() marks, one by one. */
static void each(struct span *s, const struct special *e, root_fn *fn, void *arg)
{
    uintptr_t obj = (uintptr_t)span_object(s, e->index);
    switch ((enum special_kind)e->kind) {
    case SPECIAL_WEAK:
        fn(arg, GC_ROOT_WEAK, obj, 0, (uintptr_t)e->weak.handle);
        break;
    case SPECIAL_FINALIZER:
        fn(arg, GC_ROOT_FINALIZABLE, obj, 0, obj);
        fn(arg, GC_ROOT_CTX, obj, 0, (uintptr_t)e->finalizer.ctx);
        break;
    case SPECIAL_CLEANUP:
        fn(arg, GC_ROOT_CLEANUP, obj, 0, (uintptr_t)e->cleanup.arg);
        break;
    case SPECIAL_WATCH:
        break;
    case SPECIAL_POOL:
        fn(arg, GC_ROOT_POOL, obj, 0, (uintptr_t)e->pool->victim);
        break;
    }
}

void specials_each_stw(root_fn *fn, void *arg)
{
    for (size_t i = 0; i < specials.n; i++)
        for (uint32_t k = 0; k < specials.table[i]->n; k++)
            each(specials.table[i]->span, &specials.table[i]->e[k], fn, arg);
}

/* What becomes of a special whose object was not marked. *lives: the object is to live on; what its finalizer may reach is marked already. Returns
 * true if the special stays: a call that cannot be queued for want of memory keeps the object as it is, for the next cycle. */
static bool outlives(struct span *s, const struct special *e, bool *lives)
{
    bool stays = false;
    switch ((enum special_kind)e->kind) {
    case SPECIAL_WEAK:
        weak_clear_stw(e->weak.handle);
        break;
    case SPECIAL_FINALIZER:
        stays = !finalize_queue_stw(span_object(s, e->index), e->finalizer.fn, e->finalizer.ctx, e->finalizer.pc);
        *lives = true;
        break;
    case SPECIAL_CLEANUP:
        stays = *lives || !cleanup_queue_stw(e->cleanup.fn, e->cleanup.arg);
        break;
    case SPECIAL_WATCH:
        stays = *lives;
        if (!stays)
            e->dead_stw(span_object(s, e->index));
        break;
    case SPECIAL_POOL:
        stays = *lives;
        break;
    }
    *lives |= stays;
    return stays;
}

/* The object of entries [from, to) was not marked; those that stay are moved to *kept. */
static bool dead_object(struct special_table *t, uint32_t from, uint32_t to, uint32_t *kept)
{
    bool lives = false;
    for (uint32_t k = from; k < to; k++) {
        struct special sp = t->e[k];
        if (outlives(t->span, &sp, &lives))
            t->e[(*kept)++] = sp;
    }
    return lives;
}

static uint64_t table_dead(struct special_table *t)
{
    uint64_t bytes = 0;
    uint32_t kept = 0;
    for (uint32_t k = 0, end; k < t->n; k = end) {
        uint32_t index = t->e[k].index;
        for (end = k + 1; end < t->n && t->e[end].index == index;)
            end++;
        if (mark_is_set(t->span, index)) {
            memmove(&t->e[kept], &t->e[k], (end - k) * sizeof *t->e);
            kept += end - k;
        } else if (dead_object(t, k, end, &kept)) {
            bits_set(span_marks(t->span), index);
            bytes += span_elem(t->span);
        }
    }
    t->n = kept;
    return bytes;
}

uint64_t specials_dead_stw(void)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < specials.n; i++)
        bytes += table_dead(specials.table[i]);
    for (size_t i = specials.n; i-- > 0;)
        drop_if_empty(specials.table[i]);
    return bytes;
}
