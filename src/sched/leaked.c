/* [LEAKED] Which fibers wait for something that nobody can ever do.
 *
 * A collection answers it (gc.h, [LATE]). The stack of a fiber that waits is left out of the roots if what it waits for is an object of the heap: a
 * channel, those of a select, the object in which a mutex, a condition or the like lies. When the mark reaches that object, whoever reached it may end
 * the wait: so the fiber counts as alive, its stack is scanned, and the mark goes on. What is never reached when nothing moves any more is leaked. Its
 * stack is then scanned as always: nothing of it is freed, no finalizer of what it holds runs, and what the program does is as without the look.
 *
 * Why there is no false positive. Let L be the fibers found, and suppose that one of them is woken, the first of L. Each wait that is taken into account
 * is ended by a call that is given the object's address (send, receive, close, unlock, done, signal, release), or, of a fiber that is not in L, by a
 * timer or a descriptor. So somebody outside of L has the address, or came to it from something that he has. Of everything that can run outside of L
 * all that the collector knows was scanned, and all that leads to was marked, before the verdict:
 *
 *   - data of modules, thread-local variables, ranges of weft_root_add, handles and pins, whoever asked for them;
 *   - stacks and registers of what runs, is runnable, sleeps, waits for a descriptor, a processor, or a deadline, is in weft_blocking_begin, or is locked
 *     to a thread; of threads of the host that are attached, whatever they wait for; arguments and deferred calls of all of these, and of tasks that
 *     have not started; wait groups that their ends will tell;
 *   - fibers whose wait is for something outside of the heap, or cannot be named: who has its address cannot be known;
 *   - timers that are armed, those on a channel too, which are no roots otherwise; contexts hang on their timers, their parents, or whoever holds them;
 *   - what finalizers' objects reach, ctx, what cleanups are given, calls that are queued, what pools hold; and objects that have a weak pointer, as
 *     if it were a strong one: no call of the runtime brings an object back that was not marked then.
 *
 * That data is read conservatively, that old copies of a pointer lie in dead frames, or that who has the address will never use it, makes more fibers
 * count as alive: a leak is missed. The other way, a pointer that the collector does not see (in memory of malloc, in a thread that is not attached, in
 * an integer that was scrambled) does what it does with objects: whoever keeps the only one there has to say so, by a handle or a root. That is the one
 * condition, and <weft/prof.h> says it.
 *
 * Fibers outside of the collector's sight are none: FIBER_SYSTEM ones are never looked for, and neither is one that is bound to a thread. The main
 * fiber in a select without cases does what it means to, and is not said to have leaked; but what it holds it will never use, so others have. (As Go.)
 *
 * What a fiber waits for. Whoever parks with one of the reasons below says so before, in waits_on: an address; or, for reasons of channels, anything
 * but 0, and the channels are those of f->waits (none: for ever). 0: a timer may end it. The two lowest bits and the highest are ours, in a stop: ASKED,
 * its stack is left out of this look; REACHED, by this look, so far; FOUND, by the last one that has come to its end. Who makes profiles and dumps is not
 * stopped, and reads FOUND in the middle of another's look: so it changes by the verdict only. (REACHED hides the address from who scans the
 * descriptor: what it names has been marked by then.) Parked anew, a fiber has none of them, so one that was found wrongly (by the condition above) is
 * not shown as leaked for longer than it waits.
 *
 * Time. Objects that are waited for are in a hash table, which is asked for each object that is marked: so a chain of a hundred thousand fibers, each of
 * which the one before leads to, takes as long as a hundred thousand that a global does, in whatever order they lie. */
#include "sched/leaked.h"
#include "sched/chan.h"
#include "sched/mutator.h"
#include "sched/stack.h"
#include "sched/world.h"
#include <errno.h>
#include <string.h>

#define FOUND 1u
#define ASKED LEAKED_ASKED
#define REACHED ((uintptr_t)1 << 63) /* no address of a program has it */
#define BITS (FOUND | ASKED | REACHED)

#define OF_CHANNELS (1u << WAIT_CHAN_SEND | 1u << WAIT_CHAN_RECV | 1u << WAIT_CHAN_SEND_NIL | 1u << WAIT_CHAN_RECV_NIL | 1u << WAIT_SELECT | \
                     1u << WAIT_SELECT_EMPTY)
#define OF_ADDRESSES (1u << WAIT_MUTEX | 1u << WAIT_RW_RLOCK | 1u << WAIT_RW_LOCK | 1u << WAIT_GROUP | 1u << WAIT_COND | 1u << WAIT_SEMA)

/* f waits for obj, the start of an object. */
struct want { uintptr_t obj; struct fiber *f; uint32_t next, due; }; /* of the same slot of the table; due by the same worker. Index + 1 */
struct answer { int err; uint64_t n; };
struct due { uint32_t first; } w_aligned(64);

/* In a stop only, but for found. */
bool leaked_looking;
static struct {
    int err;
    struct want *want;
    uint32_t n, cap;
    uint32_t *slot; /* index + 1 of the first */
    unsigned slots_log2;
    struct due due[WORLD_WORKERS_MAX];
    w_u64 found, found_run; /* the last look's, in which life of the runtime. rlx: for show */
} leaked;

uint64_t leaked_count(void) { return load_rlx(&leaked.found_run) == sched.run ? load_rlx(&leaked.found) : 0; } /* rlx: as it says */

/* Of a fiber that may run, a hint, which no sanitizer understands. */
static w_no_sanitize bool waits_for_others(const struct fiber *f)
{
    return load_rlx(&f->state) == FIBER_WAITING && ((OF_CHANNELS | OF_ADDRESSES) >> f->why & 1) != 0 && (load_rlx(&f->waits_on) & ~BITS) != 0;
}

w_no_sanitize bool leaked_is(const struct fiber *f) { return waits_for_others(f) && (load_rlx(&f->waits_on) & FOUND) != 0; } /* rlx: see its comment */

/* ---- who is asked ------------------------------------------------------------------------------------------- */

static bool want_add(uintptr_t obj, struct fiber *f)
{
    if (leaked.n == leaked.cap) {
        uint32_t cap = leaked.cap == 0 ? 1024 : leaked.cap * 2;
        void *more = cap > leaked.cap ? off_realloc(OFF_PROF, leaked.want, cap * sizeof *leaked.want) : NULL;
        if (more == NULL) {
            leaked.err = -ENOMEM;
            return false;
        }
        leaked.want = more;
        leaked.cap = cap;
    }
    leaked.want[leaked.n++] = (struct want){ .obj = obj, .f = f };
    return true;
}

/* False: not an object of the heap. */
static bool want_at(uintptr_t addr, struct fiber *f)
{
    void *base = gc_in_heap((void *)addr) ? gc_object_base((void *)addr) : NULL;
    return base != NULL && want_add((uintptr_t)base, f);
}

/* Waiters lie on the stack of f, which a sanitizer takes for somebody else's business. */
static w_no_sanitize bool wants(struct fiber *f)
{
    if ((OF_ADDRESSES >> f->why & 1) != 0)
        return want_at(load_rlx(&f->waits_on) & ~BITS, f);
    bool all = true;
    for (uint32_t i = 0; f->waits != NULL && i < f->nwaits && all; i++)
        all = want_at((uintptr_t)f->waits[i].chan, f);
    return all;
}

static w_no_sanitize void ask(struct fiber *f, void *arg)
{
    (void)arg;
    if (!waits_for_others(f) || leaked.err != 0)
        return;
    uint32_t n = leaked.n;
    bool asked = (f->flags & (FIBER_THREAD | FIBER_SYSTEM)) == 0 && f->bound == NULL && wants(f);
    if (!asked)
        leaked.n = n;
    uintptr_t was = load_rlx(&f->waits_on);
    if (asked)
        store_rlx(&f->waits_on, was | ASKED);
    else if (leaked.err == 0)
        store_rlx(&f->waits_on, was & ~BITS);
}

static inline uint32_t slot_of(uintptr_t obj) { return (uint32_t)((uint64_t)(obj >> 4) * 0x9e3779b97f4a7c15u >> (64 - leaked.slots_log2)); }

static void table_make(void)
{
    leaked.slots_log2 = 4;
    while (leaked.slots_log2 < 31 && (1u << leaked.slots_log2) < 2 * (uint64_t)leaked.n)
        leaked.slots_log2++;
    leaked.slot = off_zalloc(OFF_PROF, sizeof(uint32_t) << leaked.slots_log2);
    if (leaked.slot == NULL) {
        leaked.err = -ENOMEM;
        return;
    }
    for (uint32_t i = 0; i < leaked.n; i++) {
        uint32_t *at = &leaked.slot[slot_of(leaked.want[i].obj)];
        leaked.want[i].next = *at;
        *at = i + 1;
    }
}

static void spare(struct fiber *f, void *arg)
{
    (void)arg;
    uintptr_t w = load_rlx(&f->waits_on);
    if ((w & ASKED) != 0) /* pages of those that are no more are not written */
        store_rlx(&f->waits_on, w & ~(uintptr_t)ASKED);
}

static void begin_stw(void *arg)
{
    (void)arg;
    leaked.err = 0;
    leaked.n = 0;
    memset(leaked.due, 0, sizeof leaked.due);
    stack_each(0, 1, ask, NULL);
    table_make();
    if (leaked.err != 0) /* nobody is, then, and the look before stands */
        stack_each(0, 1, spare, NULL);
    leaked_looking = true;
}

/* ---- what is reached ------------------------------------------------------------------------------------------ */

static void reached_stw(void *arg, unsigned worker, void *obj)
{
    (void)arg;
    if (leaked.err != 0)
        return;
    for (uint32_t i = leaked.slot[slot_of((uintptr_t)obj)]; i != 0; i = leaked.want[i - 1].next) {
        struct want *w = &leaked.want[i - 1];
        /* rlx: of those who reach it by several channels one scans it; what he finds meets the rest at the workers' end */
        if (w->obj == (uintptr_t)obj && (or_rlx(&w->f->waits_on, REACHED) & REACHED) == 0) {
            w->due = leaked.due[worker].first;
            leaked.due[worker].first = i;
        }
    }
}

static bool next_stw(void *arg, unsigned worker, gc_scan_range_fn *scan, void *marker)
{
    (void)arg;
    struct due *d = &leaked.due[worker];
    if (d->first == 0)
        return false;
    struct want *w = &leaked.want[d->first - 1];
    d->first = w->due;
    world_scan_parked(w->f, scan, marker);
    return true;
}

struct rest { gc_scan_range_fn *scan; void *marker; };

static void rest_of(struct fiber *f, void *arg)
{
    const struct rest *r = arg;
    if ((load_rlx(&f->waits_on) & (ASKED | REACHED)) == ASKED)
        world_scan_parked(f, r->scan, r->marker);
}

static void rest_stw(void *arg, unsigned worker, unsigned nworkers, gc_scan_range_fn *scan, void *marker)
{
    (void)arg;
    stack_each(worker, nworkers, rest_of, &(struct rest){ scan, marker });
}

static void verdict(struct fiber *f, void *n)
{
    uintptr_t w = load_rlx(&f->waits_on);
    if ((w & ASKED) == 0)
        return;
    bool idles = (f->flags & FIBER_MAIN) != 0 && f->why == WAIT_SELECT_EMPTY;
    bool found = (w & REACHED) == 0 && !idles;
    store_rlx(&f->waits_on, (w & ~BITS) | (found ? FOUND : 0));
    *(uint64_t *)n += found;
}

static void end_stw(void *arg)
{
    uint64_t n = 0;
    stack_each(0, 1, verdict, &n);
    off_free(OFF_PROF, leaked.want);
    off_free(OFF_PROF, leaked.slot);
    leaked.want = NULL;
    leaked.slot = NULL;
    leaked.cap = leaked.n = 0;
    leaked_looking = false;
    struct answer *a = arg;
    a->err = leaked.err;
    a->n = n;
    if (leaked.err == 0) {
        store_rlx(&leaked.found, n);
        store_rlx(&leaked.found_run, sched.run);
    }
}

/* ---- the look --------------------------------------------------------------------------------------------------- */

static void look(void *answer)
{
    struct gc_late late = {
        .begin_stw = begin_stw, .reached_stw = reached_stw, .next_stw = next_stw, .rest_stw = rest_stw, .end_stw = end_stw, .arg = answer,
    };
    gc_collect_late(&late);
}

int leaked_find(uint64_t *n)
{
    struct answer a = { .err = -ENOMEM };
    mutator_collecting(look, &a);
    *n = a.n;
    return a.err;
}

