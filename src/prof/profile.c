/* Profiles by name: weft_profile_lookup, weft_profile_write, and those that a program adds itself.
 *
 * Writing one. A helper (helper.h) asks the kind for its samples and makes the bytes, since symbols need the loader's lock, libdw and the host's
 * malloc, while the caller waits as in a system call. Then the caller hands them to the user's writer, in which anything may happen. While samples
 * are collected the end of the runtime waits for a thread of the host that asked (call_away), as it does for threads of fibers.
 *
 * The program's own profiles are in a list that only grows: whoever adds one walks the list for its name and then puts itself in front by a
 * compare-and-swap, which fails if somebody has done so meanwhile; then it walks again. So there is one of a name, and looking takes no lock.
 *
 * Things. A profile's table of things (open addressing, by address) is under its lock; a thing points to the bucket of the stack that added it, whose
 * first counter says how many things with that stack are in. Buckets stay when the last one is taken out: there are as many as places that add. */
#include <weft/prof.h>
#include <errno.h>
#include <string.h>
#include "base/offheap.h"
#include "prof/helper.h"
#include "prof/out.h"
#include "prof/pseudo.h"
#include "prof/walk.h"
#include "sched/report.h"
#include "sched/sched.h"

/* ---- those that are built in: a line each, by name ------------------------------------------------------------------ */

extern const struct profile_kind profile_fibers, profile_leaked, profile_threads; /* fibers.c */
extern const struct profile_kind profile_block, profile_mutex; /* block.c */
extern const struct profile_kind profile_heap, profile_allocs; /* heap.c */

struct thing { uintptr_t at; struct bucket *bucket; }; /* at 0: empty */

struct weft_profile {
    const struct profile_kind *kind;
    /* of the program's own */
    struct weft_profile *next;       /* fixed once it is in the list */
    struct profile_kind own;
    struct buckets buckets;          /* v[0]: things with that stack */
    struct lock lock;                /* the rest */
    struct thing *things;
    size_t room, n;
    char name[];
};

#define BUILT_IN(k) (&(weft_profile){ .kind = &(k) })
static weft_profile *const built_in[] = {
    BUILT_IN(profile_allocs),
    BUILT_IN(profile_block),
    BUILT_IN(profile_fibers),
    BUILT_IN(profile_leaked),
    BUILT_IN(profile_heap),
    BUILT_IN(profile_mutex),
    BUILT_IN(profile_threads),
};

static W_PTR(weft_profile) own; /* rel: publishes the first; acq in all who look */

static bool is_own(const weft_profile *p) { return p->kind == &p->own; }

/* ---- finding them ------------------------------------------------------------------------------------------------------ */

static weft_profile *built_in_find(const char *name)
{
    for (size_t i = 0; i < w_countof(built_in); i++) {
        const struct profile_kind *k = built_in[i]->kind;
        if (strcmp(k->name, name) == 0 || (k->also != NULL && strcmp(k->also, name) == 0))
            return built_in[i];
    }
    return NULL;
}

static weft_profile *own_find(weft_profile *first, const char *name)
{
    while (first != NULL && strcmp(first->name, name) != 0)
        first = first->next;
    return first;
}

weft_profile *weft_profile_lookup(const char *name)
{
    if (name == NULL)
        return NULL;
    weft_profile *p = built_in_find(name);
    return p != NULL ? p : own_find(load_acq(&own), name); /* acq: sees them; rel in weft_profile_new */
}

/* Keeps the first n of out in order; what does not fit is dropped from the end. */
static size_t put_in_order(weft_profile **out, size_t n, size_t room, weft_profile *p)
{
    size_t i = n;
    while (i > 0 && strcmp(out[i - 1]->kind->name, p->kind->name) > 0)
        i--;
    if (i >= room)
        return n;
    size_t behind = w_min(n, room - 1) - i;
    memmove(out + i + 1, out + i, behind * sizeof *out);
    out[i] = p;
    return w_min(n + 1, room);
}

size_t weft_profiles(weft_profile **out, size_t room)
{
    size_t n = 0, all = w_countof(built_in);
    for (size_t i = 0; i < w_countof(built_in); i++)
        n = put_in_order(out, n, room, built_in[i]);
    for (weft_profile *p = load_acq(&own); p != NULL; p = p->next, all++) /* acq: as in weft_profile_lookup */
        n = put_in_order(out, n, room, p);
    return all;
}

const char *weft_profile_name(const weft_profile *p) { return p->kind->name; }

/* ---- the program's own ---------------------------------------------------------------------------------------------------- */

/* Off-heap memory and locks are for who is inside the runtime, or cannot be stopped as no runtime runs (NULL). */
static void leave(struct m *m)
{
    if (m != NULL)
        rt_leave(m);
}

static void thing_sample(struct bucket *b, void *arg)
{
    struct profile_out *o = arg;
    int64_t n = (int64_t)load_rlx(&b->v[0]); /* rlx: a number as of now */
    if (o->err == 0)
        o->err = profile_sample(o, b->pc, b->n, &n, NULL, 0);
}

static int own_collect(struct profile_out *o)
{
    buckets_each(&((weft_profile *)o->owner)->buckets, thing_sample, o);
    return o->err;
}

static weft_profile *own_make(const char *name)
{
    size_t n = strlen(name) + 1;
    struct m *m = rt_enter_try();
    weft_profile *p = off_zalloc(OFF_PROF, sizeof *p + n);
    leave(m);
    if (p == NULL)
        return NULL;
    memcpy(p->name, name, n);
    p->own = (struct profile_kind){ .name = p->name, .style = PROFILE_COUNTS, .value[0] = { p->name, "count" }, .values = 1,
                                    .period_type = { p->name, "count" }, .collect = own_collect };
    p->kind = &p->own;
    lock_init(&p->lock, RANK_LEAF);
    return p;
}

int weft_profile_new(const char *name, weft_profile **out)
{
    if (name == NULL || name[0] == 0 || out == NULL)
        return -EINVAL;
    weft_profile *p = NULL, *first;
    int err = 0;
    do {
        first = load_acq(&own); /* acq: as in weft_profile_lookup */
        if (built_in_find(name) != NULL || own_find(first, name) != NULL)
            err = -EEXIST;
        else if (p == NULL && (p = own_make(name)) == NULL)
            err = -ENOMEM;
        else
            p->next = first;
    } while (err == 0 && !cas_acq_rel(&own, first, p)); /* rel: publishes it; acq above */
    if (err == 0) {
        *out = p;
    } else if (p != NULL) {
        struct m *m = rt_enter_try();
        off_free(OFF_PROF, p);
        leave(m);
    }
    return err;
}

static size_t thing_slot(uintptr_t at, size_t room) { return (size_t)((at * 0x9e3779b97f4a7c15ull) >> 20) & (room - 1); }

/* Where it is, or would be. Under the lock; there is an empty one. */
static struct thing *thing_find(const weft_profile *p, uintptr_t at)
{
    size_t i = thing_slot(at, p->room);
    while (p->things[i].at != 0 && p->things[i].at != at)
        i = (i + 1) & (p->room - 1);
    return &p->things[i];
}

/* Makes sure of an empty slot. Under the lock. */
static bool things_reserve(weft_profile *p)
{
    if (p->n < p->room / 4 * 3)
        return true;
    struct thing *old = p->things;
    size_t had = p->room, room = had != 0 ? had * 2 : 64;
    struct thing *things = off_zalloc(OFF_PROF, room * sizeof *things);
    if (things == NULL)
        return false;
    p->things = things;
    p->room = room;
    for (size_t i = 0; i < had; i++)
        if (old[i].at != 0)
            *thing_find(p, old[i].at) = old[i];
    off_free(OFF_PROF, old);
    return true;
}

#define FRAMES_MAX 32u /* of a stack of the program's own profiles, as in Go */

/* Those behind the call that returns to caller, and without skip of them. */
static uint32_t stack_of_caller(struct m *m, uintptr_t caller, int skip, uintptr_t *pc, const uintptr_t **from)
{
    static const uintptr_t lost[] = { PSEUDO_LOST };
    uint32_t n = trim_outer(pc, walk_self(m, pc, WALK_MAX)), i = 0;
    while (i < n && pc[i] != caller)
        i++;
    i = i < n ? i : 0; /* the walk did not get that far */
    *from = lost;
    if ((uint32_t)skip >= n - i)
        return 1;
    *from = pc + i + skip;
    return w_min(n - i - (uint32_t)skip, FRAMES_MAX);
}

/* Inside the runtime. */
static int thing_add(weft_profile *p, uintptr_t at, const uintptr_t *pc, uint32_t n)
{
    struct bucket *b = bucket_get(&p->buckets, pc, n, 0);
    int err = b != NULL ? 0 : -ENOMEM;
    lock_take(&p->lock);
    struct thing *t = err == 0 && things_reserve(p) ? thing_find(p, at) : NULL;
    if (t == NULL) {
        err = -ENOMEM;
    } else if (t->at != 0) {
        err = -EEXIST;
    } else {
        *t = (struct thing){ at, b };
        p->n++;
        add_rlx(&b->v[0], 1); /* rlx: a counter */
    }
    lock_drop(&p->lock);
    return err;
}

static pthread_mutex_t walking = PTHREAD_MUTEX_INITIALIZER; /* held between weft_blocking_begin and _end, where no stop finds its holder */
static w_u32 walks; /* walk_use has been called in this life of the runtime */

/* Once a life: walks are exact from then on. Without memory or a thread for that they are as good as frame pointers are. Inside the runtime, which it
 * leaves meanwhile. */
static w_cold struct m *walk_well(struct m *m)
{
    bool away = m->foreign;
    if (away)
        call_away(m);
    rt_leave(m);
    weft_blocking_begin();
    pthread_mutex_lock(&walking);
    if (load_rlx(&walks) == 0 && walk_use() == 0) /* rlx: under the mutex */
        store_rlx(&walks, 1); /* rlx: a flag */
    pthread_mutex_unlock(&walking);
    weft_blocking_end();
    m = rt_enter();
    if (away)
        call_back(m);
    return m;
}

w_noinline int weft_profile_add(weft_profile *p, const void *thing, int skip)
{
    uintptr_t pc[WALK_MAX];
    const uintptr_t *from;
    if (p == NULL || thing == NULL || skip < 0)
        return -EINVAL;
    if (!is_own(p))
        return -EPERM;
    struct m *m = rt_enter_try();
    if (m == NULL)
        return -ESRCH;
    if (unlikely(load_rlx(&walks) == 0)) /* rlx: looked at again under the mutex */
        m = walk_well(m);
    uint32_t n = stack_of_caller(m, (uintptr_t)__builtin_return_address(0), skip, pc, &from);
    int err = thing_add(p, (uintptr_t)thing, from, n);
    rt_leave(m);
    return err;
}

/* Under the lock. Those behind it move up, if they are further from where they should be. */
static void thing_remove(weft_profile *p, struct thing *t)
{
    size_t hole = (size_t)(t - p->things), mask = p->room - 1;
    sub_rlx(&t->bucket->v[0], 1); /* rlx: a counter */
    p->n--;
    for (size_t i = (hole + 1) & mask; p->things[i].at != 0; i = (i + 1) & mask) {
        size_t home = thing_slot(p->things[i].at, p->room);
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            p->things[hole] = p->things[i];
            hole = i;
        }
    }
    p->things[hole] = (struct thing){ 0 };
}

int weft_profile_remove(weft_profile *p, const void *thing)
{
    if (p == NULL)
        return -EINVAL;
    if (!is_own(p))
        return -EPERM;
    struct m *m = rt_enter_try();
    lock_take(&p->lock);
    struct thing *t = p->n > 0 && thing != NULL ? thing_find(p, (uintptr_t)thing) : NULL;
    if (t != NULL && t->at != 0)
        thing_remove(p, t);
    lock_drop(&p->lock);
    leave(m);
    return 0;
}

int64_t weft_profile_count(weft_profile *p)
{
    int64_t n = -ESRCH;
    if (p == NULL)
        return -EINVAL;
    struct m *m = rt_enter_try();
    if (is_own(p)) {
        lock_take(&p->lock);
        n = (int64_t)p->n;
        lock_drop(&p->lock);
    } else if (m != NULL) {
        n = p->kind->count();
    }
    leave(m);
    return n;
}

/* ---- writing ----------------------------------------------------------------------------------------------------------------- */

static w_u32 symbols_kept; /* something has been looked up in this life of the runtime */

struct job {
    struct profile_out *o;
    struct m *away; /* a thread of the host, which the end of the runtime waits for; else NULL */
    bool make;
    int err;
};

/* From here on nothing of the runtime's is read, and it may end. */
static void come_back(struct job *j)
{
    if (j->away != NULL)
        call_back(j->away);
    j->away = NULL;
}

static void work(void *arg)
{
    struct job *j = arg;
    const struct maps *maps = maps_begin(symbols_gone);
    if (maps == NULL) {
        j->err = -ENOMEM;
        return;
    }
    j->err = out_collect(j->o, maps);
    come_back(j);
    if (j->err == 0 && j->make)
        j->err = out_make(j->o);
    maps_end();
}

/* NULL: *err tells why. */
static struct profile_out *out_begin(weft_profile *p, enum out_form form, int *err)
{
    struct m *m = rt_enter_try();
    *err = m == NULL ? -ESRCH : -ENOMEM;
    if (m == NULL)
        return NULL;
    struct profile_out *o = out_new(p->kind, form, p);
    if (o != NULL)
        o->run = m->run;
    if (o != NULL && form == OUT_TEXT && p->kind->style == PROFILE_HEAP)
        o->stats = off_zalloc(OFF_PROF, sizeof *o->stats);
    rt_leave(m);
    if (o != NULL && o->stats != NULL) {
        o->stats->size = sizeof *o->stats;
        weft_read_mem_stats(o->stats);
    }
    return o;
}

/* The runtime may have ended meanwhile: then there is no stop that would wait for who holds a lock of the memory's. */
static void out_end(struct profile_out *o)
{
    struct m *m = rt_enter_try();
    out_free(o);
    leave(m);
}

static int out_run(struct profile_out *o, bool make)
{
    struct job j = { .o = o, .make = make };
    struct m *m = rt_enter_try();
    if (m == NULL)
        return -ESRCH;
    if (m->run != o->run) { /* a window that began in another life: its numbers are gone */
        rt_leave(m);
        return -ESRCH;
    }
    store_rlx(&symbols_kept, 1); /* rlx: read when nobody writes profiles any more */
    if (m->foreign)
        call_away(j.away = m);
    rt_leave(m);
    weft_blocking_begin();
    int err = helper_run(work, &j);
    weft_blocking_end();
    come_back(&j);
    return err != 0 ? err : j.err;
}

static enum out_form form_of(const struct profile_kind *k, int debug)
{
    return debug > 0 || (debug < 0 && k->style == PROFILE_HEAP) ? OUT_TEXT : OUT_PROTO;
}

int weft_profile_write(weft_profile *p, weft_writer *w, void *ctx, int debug)
{
    int saved = errno, err = 0;
    if (p == NULL || w == NULL)
        return -EINVAL;
    if (!weft_running())
        return -ESRCH;
    if (p->kind->prepare != NULL && (err = p->kind->prepare(debug)) != 0)
        return err;
    if (debug >= 2 && p->kind->write_text != NULL)
        return p->kind->write_text(w, ctx);
    struct profile_out *o = out_begin(p, form_of(p->kind, debug), &err);
    if (o == NULL)
        return err;
    err = out_run(o, true);
    if (err == 0)
        err = out_write(o, w, ctx);
    out_end(o);
    errno = saved;
    return err;
}

/* ---- what happens in a window ---------------------------------------------------------------------------------------------------- */

struct weft_profile_delta { struct profile_out out; }; /* nothing else */

int weft_profile_delta_begin(weft_profile *p, weft_profile_delta **out)
{
    int saved = errno, err = 0;
    if (p == NULL || out == NULL)
        return -EINVAL;
    if (!(p->kind->flags & PROFILE_DELTA))
        return -ENOTSUP;
    if (!weft_running())
        return -ESRCH;
    if (p->kind->prepare != NULL && (err = p->kind->prepare(0)) != 0)
        return err;
    struct profile_out *o = out_begin(p, OUT_DELTA, &err);
    if (o == NULL)
        return err;
    err = out_run(o, false);
    if (err == 0)
        *out = (weft_profile_delta *)o;
    else
        out_end(o);
    errno = saved;
    return err;
}

int weft_profile_delta_end(weft_profile_delta *d, weft_writer *w, void *ctx)
{
    struct profile_out *o = &d->out;
    int saved = errno, err = 0;
    if (w != NULL) {
        if (o->kind->prepare != NULL)
            err = o->kind->prepare(0);
        if (err == 0)
            err = out_run(o, true);
        if (err == 0)
            err = out_write(o, w, ctx);
    }
    out_end(o);
    errno = saved;
    return err;
}

/* ---- the runtime's end, and forks --------------------------------------------------------------------------------------------------- */

/* Nobody writes profiles any more. */
static void profile_end(void)
{
    if (load_rlx(&walks) != 0) /* rlx: nobody else is there */
        walk_unuse();
    store_rlx(&walks, 0);
    symbols_end(&symbols_kept);
}

/* Threads that were in the middle of weft_profile_add or remove while no runtime ran are no more, nor is there a fork in the middle of it else. */
static void profile_after_fork(void)
{
    walking = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    store_rlx(&walks, 0); /* rlx: nobody else runs */
    for (weft_profile *p = load_acq(&own); p != NULL; p = p->next) /* acq: as in weft_profile_lookup */
        lock_init(&p->lock, RANK_LEAF);
}

static struct sched_guest guest = { .end = profile_end, .after_fork = profile_after_fork };

static void __attribute__((constructor)) profile_init(void)
{
    sched_guest_add(&guest);
}
