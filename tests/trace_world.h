/* A scheduler of nothing: threads that take processors and fibers, block, wake, create, steal, collect and mark at random, each step told to the
 * trace by the rules of trace/buffer.c, and written down as Go's tool should show it. Fibers are records in queues; nothing runs on them. */
#ifndef WEFT_TRACE_WORLD_H
#define WEFT_TRACE_WORLD_H

#include "base/rng.h"
#include "trace_test.h"

#define WORLD_FIBERS 4000
#define WORLD_PROCS 8
#define WORLD_THREADS 8

enum { SPAN = 1u << 7 }; /* in state: in the middle of an assist, or a sweep */

struct wfiber {
    struct trace_resource told;
    w_u64 state;       /* enum trace_go_status; SPAN; thread << 8. 0: not made, or no more */
    uint64_t id;
    const char *regions[4]; /* owner */
    unsigned nregions;
};

struct wproc {
    struct trace_resource told;
    w_u64 state;       /* enum trace_proc_status; SPAN; thread << 8 */
    uint64_t id;
    uint64_t victim;   /* lock: in a syscall, may be stolen from this thread; 0: may not */
};

struct wthread {
    struct world *w;
    struct trace_emitter *e;
    uint64_t m;
    struct rng rng;
    struct wproc *p;
    struct wfiber *f;
    bool in_syscall;
    struct lines told;
    uint64_t task;
    pthread_t thread;
};

struct world {
    int nthreads, nprocs, steps;
    unsigned advance_every; /* steps of a thread, about; 0: never */
    bool texts;             /* logs have many different texts */
    struct wfiber fiber[WORLD_FIBERS];
    struct wproc proc[WORLD_PROCS];
    struct wthread thread[WORLD_THREADS];
    pthread_mutex_t lock;   /* the next group */
    struct wfiber *runnable[WORLD_FIBERS], *waiting[WORLD_FIBERS];
    int nrunnable, nwaiting;
    struct wproc *idle[WORLD_PROCS];
    int nidle;
    w_u32 nfibers;
    w_u64 tasks;
    pthread_mutex_t advance; /* the switcher; before gc */
    pthread_mutex_t gc;      /* the next group */
    uint64_t gc_number;
    bool gc_runs;
};

static const char *const world_texts[] = { "chan receive", "sync", "network", "sleep", "weft_yield", "GC mark termination", "other" };
enum { TEXT_YIELD = 5, TEXT_STW = 6 };

/* Addresses are numbers; odd ones stand for code with another function inlined. */
static unsigned world_frames(void *arg, uintptr_t pc, struct trace_frame *out, unsigned max)
{
    static char text[2][32];
    (void)arg;
    unsigned n = 0;
    if (pc % 2 != 0 && max > 1) {
        snprintf(text[0], sizeof text[0], "inlined%lu", (unsigned long)pc % 10);
        out[n++] = (struct trace_frame){ text[0], "inline.h", 7 };
    }
    snprintf(text[1], sizeof text[1], "f%lu", (unsigned long)pc);
    out[n++] = (struct trace_frame){ text[1], "file.c", (unsigned)pc };
    return n;
}
static const struct trace_symbols world_symbols = { .frames = world_frames };

/* ---- telling -------------------------------------------------------------------------------------------------- */

#define TELL(t, ...) lines_add(&(t)->told, (t)->m, (t)->e->gen, __VA_ARGS__)

static struct wfiber *take_random(struct wthread *t, struct wfiber **list, int *n)
{
    pthread_mutex_lock(&t->w->lock);
    struct wfiber *f = NULL;
    if (*n > 0) {
        int i = (int)rng_below(&t->rng, (uint32_t)*n);
        f = list[i];
        list[i] = list[--*n];
    }
    pthread_mutex_unlock(&t->w->lock);
    return f;
}

static void put_fiber(struct wthread *t, struct wfiber **list, int *n, struct wfiber *f)
{
    pthread_mutex_lock(&t->w->lock);
    list[(*n)++] = f;
    pthread_mutex_unlock(&t->w->lock);
}

static void proc_state(struct wthread *t, struct wproc *p)
{
    if (!trace_first(&p->told, t->e->gen))
        return;
    uint64_t s = load_rlx(&p->state);
    trace_event(t->e, PROC_STATUS, p->id, s & 7);
    if (s & SPAN)
        trace_event(t->e, GC_SWEEP_ACTIVE, p->id);
}

static void fiber_state(struct wthread *t, struct wfiber *f)
{
    if (!trace_first(&f->told, t->e->gen))
        return;
    uint64_t s = load_rlx(&f->state);
    trace_event(t->e, GO_STATUS, f->id, (s & 7) == TRACE_GO_RUNNING || (s & 7) == TRACE_GO_SYSCALL ? s >> 8 : TRACE_NONE, s & 7);
    if (s & SPAN)
        trace_event(t->e, GC_MARK_ASSIST_ACTIVE, f->id);
}

/* What the thread has. */
static void own_states(struct wthread *t)
{
    if (t->p != NULL)
        proc_state(t, t->p);
    if (t->f != NULL)
        fiber_state(t, t->f);
}

static void become(w_u64 *state, uint64_t status, uint64_t m) { store_rel(state, status | (load_rlx(state) & SPAN) | m << 8); }

/* A stack of up to three addresses, and as it is shown. */
static uint64_t some_stack(struct wthread *t, char shown[160])
{
    uintptr_t pcs[3];
    unsigned n = rng_below(&t->rng, 4);
    shown[0] = 0;
    for (unsigned i = 0; i < n; i++) {
        pcs[i] = 100 + rng_below(&t->rng, 6);
        unsigned k = pcs[i] % 2 + 1;
        if (k == 2)
            sprintf(shown + strlen(shown), "%sinlined%lu", shown[0] ? "," : " Stack=", (unsigned long)pcs[i] % 10);
        sprintf(shown + strlen(shown), "%sf%lu", shown[0] ? "," : " Stack=", (unsigned long)pcs[i]);
    }
    return trace_stack(t->e, pcs, n);
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

static void start_proc(struct wthread *t)
{
    struct world *w = t->w;
    pthread_mutex_lock(&w->lock);
    struct wproc *p = w->nidle > 0 ? w->idle[--w->nidle] : NULL;
    pthread_mutex_unlock(&w->lock);
    if (p == NULL)
        return;
    if (trace_enter(t->e)) {
        proc_state(t, p);
        trace_event(t->e, PROC_START, p->id, trace_next(&p->told, t->e->gen));
        TELL(t, "StateTransition ProcID=%lu Idle->Running Reason=\"\"", (unsigned long)p->id);
        become(&p->state, TRACE_PROC_RUNNING, t->m);
        trace_leave(t->e);
    } else
        become(&p->state, TRACE_PROC_RUNNING, t->m);
    t->p = p;
}

static void idle_proc(struct world *w, struct wproc *p)
{
    pthread_mutex_lock(&w->lock);
    w->idle[w->nidle++] = p;
    pthread_mutex_unlock(&w->lock);
}

static void stop_proc(struct wthread *t)
{
    if (load_rlx(&t->p->state) & SPAN)
        return;
    if (trace_enter(t->e)) {
        own_states(t);
        trace_event(t->e, PROC_STOP);
        become(&t->p->state, TRACE_PROC_IDLE, 0);
        trace_leave(t->e);
    } else
        become(&t->p->state, TRACE_PROC_IDLE, 0);
    struct wproc *p = t->p;
    t->p = NULL;
    idle_proc(t->w, p);
}

static void steal_proc(struct wthread *t)
{
    struct world *w = t->w;
    struct wproc *p = NULL;
    uint64_t victim = 0;
    pthread_mutex_lock(&w->lock);
    for (int i = 0; i < w->nprocs && p == NULL; i++)
        if (w->proc[i].victim != 0) {
            p = &w->proc[i];
            victim = p->victim;
            p->victim = 0;
        }
    pthread_mutex_unlock(&w->lock);
    if (p == NULL)
        return;
    if (trace_enter(t->e)) {
        if (trace_first(&p->told, t->e->gen))
            trace_event(t->e, PROC_STATUS, p->id, TRACE_PROC_ABANDONED);
        trace_event(t->e, PROC_STEAL, p->id, trace_next(&p->told, t->e->gen), victim);
        become(&p->state, TRACE_PROC_IDLE, 0);
        trace_leave(t->e);
    } else
        become(&p->state, TRACE_PROC_IDLE, 0);
    idle_proc(w, p);
}

static void start_fiber(struct wthread *t)
{
    struct wfiber *f = take_random(t, t->w->runnable, &t->w->nrunnable);
    if (f == NULL)
        return;
    if (trace_enter(t->e)) {
        own_states(t);
        fiber_state(t, f);
        trace_event(t->e, GO_START, f->id, trace_next(&f->told, t->e->gen));
        TELL(t, "StateTransition GoID=%lu Runnable->Running Reason=\"\"", (unsigned long)f->id);
        become(&f->state, TRACE_GO_RUNNING, t->m);
        trace_leave(t->e);
    } else
        become(&f->state, TRACE_GO_RUNNING, t->m);
    t->f = f;
}

static void create_fiber(struct wthread *t, bool blocked)
{
    struct world *w = t->w;
    uint32_t i = add_rlx(&w->nfibers, 1);
    if (i >= WORLD_FIBERS)
        return;
    struct wfiber *f = &w->fiber[i];
    f->id = i + 1;
    uint32_t status = blocked ? TRACE_GO_WAITING : TRACE_GO_RUNNABLE;
    if (trace_enter(t->e)) {
        char stack[160];
        own_states(t);
        trace_first(&f->told, t->e->gen);
        uintptr_t start = 1000;
        uint64_t fn = trace_stack(t->e, &start, 1), at = some_stack(t, stack);
        if (blocked)
            trace_event(t->e, GO_CREATE_BLOCKED, f->id, fn, at);
        else
            trace_event(t->e, GO_CREATE, f->id, fn, at);
        TELL(t, "StateTransition GoID=%lu NotExist->%s Reason=\"\"%s", (unsigned long)f->id, blocked ? "Waiting" : "Runnable",
            stack[0] ? stack : " Stack=f1000");
        become(&f->state, status, 0);
        trace_leave(t->e);
    } else
        become(&f->state, status, 0);
    if (blocked)
        put_fiber(t, w->waiting, &w->nwaiting, f);
    else
        put_fiber(t, w->runnable, &w->nrunnable, f);
}

static void unblock_fiber(struct wthread *t)
{
    struct wfiber *f = take_random(t, t->w->waiting, &t->w->nwaiting);
    if (f == NULL)
        return;
    if (trace_enter(t->e)) {
        char stack[160];
        own_states(t);
        fiber_state(t, f);
        trace_event(t->e, GO_UNBLOCK, f->id, trace_next(&f->told, t->e->gen), some_stack(t, stack));
        TELL(t, "StateTransition GoID=%lu Waiting->Runnable Reason=\"\"%s", (unsigned long)f->id, stack);
        become(&f->state, TRACE_GO_RUNNABLE, 0);
        trace_leave(t->e);
    } else
        become(&f->state, TRACE_GO_RUNNABLE, 0);
    put_fiber(t, t->w->runnable, &t->w->nrunnable, f);
}

/* Blocks, yields or ends. */
static void leave_fiber(struct wthread *t, uint32_t status)
{
    struct wfiber *f = t->f;
    if (status == 0 && (load_rlx(&f->state) & SPAN))
        return;
    if (trace_enter(t->e)) {
        char stack[160] = "";
        const char *to = "NotExist", *why = "";
        own_states(t);
        if (status == TRACE_GO_WAITING) {
            unsigned text = rng_below(&t->rng, 4);
            trace_event(t->e, GO_BLOCK, text + 1, some_stack(t, stack));
            to = "Waiting";
            why = world_texts[text];
        } else if (status == TRACE_GO_RUNNABLE) {
            trace_event(t->e, GO_STOP, TEXT_YIELD, some_stack(t, stack));
            to = "Runnable";
            why = world_texts[TEXT_YIELD - 1];
        } else
            trace_event(t->e, GO_DESTROY);
        TELL(t, "StateTransition GoID=%lu Running->%s Reason=\"%s\"%s", (unsigned long)f->id, to, why, stack);
        become(&f->state, status, 0);
        trace_leave(t->e);
    } else
        become(&f->state, status, 0);
    t->f = NULL;
    if (status == TRACE_GO_WAITING)
        put_fiber(t, t->w->waiting, &t->w->nwaiting, f);
    else if (status == TRACE_GO_RUNNABLE)
        put_fiber(t, t->w->runnable, &t->w->nrunnable, f);
}

static void switch_fiber(struct wthread *t, bool destroy)
{
    struct wfiber *f = t->f;
    if (destroy && (load_rlx(&f->state) & SPAN))
        return;
    struct wfiber *next = take_random(t, t->w->waiting, &t->w->nwaiting);
    if (next == NULL)
        return;
    uint32_t left = destroy ? 0 : TRACE_GO_WAITING;
    if (trace_enter(t->e)) {
        own_states(t);
        fiber_state(t, next);
        if (destroy)
            trace_event(t->e, GO_SWITCH_DESTROY, next->id, trace_next(&next->told, t->e->gen));
        else
            trace_event(t->e, GO_SWITCH, next->id, trace_next(&next->told, t->e->gen));
        TELL(t, "StateTransition GoID=%lu Waiting->Runnable Reason=\"\"", (unsigned long)next->id);
        TELL(t, "StateTransition GoID=%lu Running->%s Reason=\"\"", (unsigned long)f->id, destroy ? "NotExist" : "Waiting");
        TELL(t, "StateTransition GoID=%lu Runnable->Running Reason=\"\"", (unsigned long)next->id);
        become(&f->state, left, 0);
        become(&next->state, TRACE_GO_RUNNING, t->m);
        trace_leave(t->e);
    } else {
        become(&f->state, left, 0);
        become(&next->state, TRACE_GO_RUNNING, t->m);
    }
    t->f = next;
    if (!destroy)
        put_fiber(t, t->w->waiting, &t->w->nwaiting, f);
}

static void begin_syscall(struct wthread *t)
{
    struct wproc *p = t->p;
    if (load_rlx(&p->state) & SPAN)
        return;
    if (trace_enter(t->e)) {
        char stack[160];
        own_states(t);
        trace_event(t->e, GO_SYSCALL_BEGIN, trace_next(&p->told, t->e->gen), some_stack(t, stack));
        TELL(t, "StateTransition GoID=%lu Running->Syscall Reason=\"\"%s", (unsigned long)t->f->id, stack);
        become(&t->f->state, TRACE_GO_SYSCALL, t->m);
        become(&p->state, TRACE_PROC_SYSCALL, t->m);
        trace_leave(t->e);
    } else {
        become(&t->f->state, TRACE_GO_SYSCALL, t->m);
        become(&p->state, TRACE_PROC_SYSCALL, t->m);
    }
    t->in_syscall = true;
    pthread_mutex_lock(&t->w->lock);
    p->victim = t->m;
    pthread_mutex_unlock(&t->w->lock);
}

/* A thread of the host. */
static void create_in_syscall(struct wthread *t)
{
    uint32_t i = add_rlx(&t->w->nfibers, 1);
    if (i >= WORLD_FIBERS)
        return;
    struct wfiber *f = &t->w->fiber[i];
    f->id = i + 1;
    if (trace_enter(t->e)) {
        trace_first(&f->told, t->e->gen);
        trace_event(t->e, GO_CREATE_SYSCALL, f->id);
        TELL(t, "StateTransition GoID=%lu NotExist->Syscall Reason=\"\"", (unsigned long)f->id);
        become(&f->state, TRACE_GO_SYSCALL, t->m);
        trace_leave(t->e);
    } else
        become(&f->state, TRACE_GO_SYSCALL, t->m);
    t->f = f;
    t->in_syscall = true;
}

static void end_syscall(struct wthread *t, bool destroy)
{
    struct world *w = t->w;
    struct wfiber *f = t->f;
    struct wproc *p = t->p;
    pthread_mutex_lock(&w->lock);
    bool mine = p != NULL && p->victim == t->m;
    if (mine)
        p->victim = 0;
    pthread_mutex_unlock(&w->lock);
    destroy = destroy && (load_rlx(&f->state) & SPAN) == 0;
    if (!mine)
        p = t->p = NULL;
    uint32_t to = destroy ? 0 : mine ? TRACE_GO_RUNNING : TRACE_GO_RUNNABLE;
    bool on = trace_enter(t->e);
    if (on) {
        own_states(t);
        if (destroy)
            trace_event(t->e, GO_DESTROY_SYSCALL);
        else if (mine)
            trace_event(t->e, GO_SYSCALL_END);
        else
            trace_event(t->e, GO_SYSCALL_END_BLOCKED);
        TELL(t, "StateTransition GoID=%lu Syscall->%s Reason=\"\"", (unsigned long)f->id, destroy ? "NotExist" : mine ? "Running" : "Runnable");
    }
    become(&f->state, to, mine && !destroy ? t->m : 0);
    if (mine)
        become(&p->state, destroy ? TRACE_PROC_ABANDONED : TRACE_PROC_RUNNING, destroy ? 0 : t->m);
    if (on)
        trace_leave(t->e);
    t->in_syscall = false;
    if (mine && !destroy)
        return;
    t->f = NULL;
    t->p = NULL;
    if (mine) {
        pthread_mutex_lock(&w->lock);
        p->victim = t->m; /* anybody's */
        pthread_mutex_unlock(&w->lock);
    } else if (!destroy)
        put_fiber(t, w->runnable, &w->nrunnable, f);
}

static void toggle(w_u64 *state) { store_rel(state, load_rlx(state) ^ SPAN); }

static void sweep(struct wthread *t)
{
    bool on = trace_enter(t->e);
    if (on) {
        own_states(t);
        if (load_rlx(&t->p->state) & SPAN)
            trace_event(t->e, GC_SWEEP_END, 8192, 4096);
        else
            trace_event(t->e, GC_SWEEP_BEGIN, 0);
        TELL(t, "Range%s Name=\"GC incremental sweep\"", load_rlx(&t->p->state) & SPAN ? "End" : "Begin");
    }
    toggle(&t->p->state);
    if (on)
        trace_leave(t->e);
}

static void assist(struct wthread *t)
{
    bool on = trace_enter(t->e);
    if (on) {
        own_states(t);
        if (load_rlx(&t->f->state) & SPAN)
            trace_event(t->e, GC_MARK_ASSIST_END);
        else
            trace_event(t->e, GC_MARK_ASSIST_BEGIN, 0);
        TELL(t, "Range%s Name=\"GC mark assist\"", load_rlx(&t->f->state) & SPAN ? "End" : "Begin");
    }
    toggle(&t->f->state);
    if (on)
        trace_leave(t->e);
}

static void collect(struct wthread *t)
{
    struct world *w = t->w;
    if (pthread_mutex_trylock(&w->gc) != 0)
        return;
    if (trace_enter(t->e)) {
        own_states(t);
        w->gc_number++;
        trace_event(t->e, STW_BEGIN, TEXT_STW, 0);
        TELL(t, "RangeBegin Name=\"stop-the-world (GC mark termination)\"");
        if (w->gc_runs)
            trace_event(t->e, GC_END, w->gc_number);
        else
            trace_event(t->e, GC_BEGIN, w->gc_number, 0);
        TELL(t, "Range%s Name=\"GC concurrent mark phase\"", w->gc_runs ? "End" : "Begin");
        trace_event(t->e, STW_END);
        TELL(t, "RangeEnd Name=\"stop-the-world (GC mark termination)\"");
        w->gc_runs = !w->gc_runs;
        trace_leave(t->e);
    }
    pthread_mutex_unlock(&w->gc);
}

static void mark(struct wthread *t)
{
    static const char *const names[] = { "parse", "reply", "work" };
    struct wfiber *f = t->f;
    if (!trace_enter(t->e))
        return;
    own_states(t);
    char text[80], stack[160];
    const char *name = names[rng_below(&t->rng, 3)];
    switch (rng_below(&t->rng, 6)) {
    case 0:
        if (f->nregions < 4) {
            f->regions[f->nregions++] = name;
            trace_event(t->e, USER_REGION_BEGIN, 0, trace_text(t->e, name, strlen(name)), some_stack(t, stack));
            TELL(t, "RegionBegin Task=0 Type=\"%s\"%s", name, stack);
        }
        break;
    case 1:
        if (f->nregions > 0) {
            name = f->regions[--f->nregions];
            trace_event(t->e, USER_REGION_END, 0, trace_text(t->e, name, strlen(name)), some_stack(t, stack));
            TELL(t, "RegionEnd Task=0 Type=\"%s\"%s", name, stack);
        }
        break;
    case 2:
        if (t->task == 0) {
            t->task = add_rlx(&t->w->tasks, 1) + 1;
            trace_event(t->e, USER_TASK_BEGIN, t->task, 0, trace_text(t->e, name, strlen(name)), 0);
            TELL(t, "TaskBegin ID=%lu Parent=18446744073709551615 Type=\"%s\"", (unsigned long)t->task, name);
        } else {
            trace_event(t->e, USER_TASK_END, t->task, 0);
            TELL(t, "TaskEnd ID=%lu", (unsigned long)t->task);
            t->task = 0;
        }
        break;
    case 3:
        trace_event(t->e, HEAP_ALLOC, 1000 + t->m);
        TELL(t, "Metric Name=\"/memory/classes/heap/objects:bytes\" Value=Value{Uint64(%lu)}", 1000 + (unsigned long)t->m);
        break;
    case 4:
        trace_event(t->e, GO_LABEL, trace_text(t->e, name, strlen(name)));
        TELL(t, "Label Label=\"%s\" Resource=Goroutine(%lu)", name, (unsigned long)f->id);
        break;
    default:
        snprintf(text, sizeof text, "value %u", rng_below(&t->rng, t->w->texts ? 1000000 : 10));
        trace_event(t->e, USER_LOG, 0, trace_text(t->e, name, strlen(name)), trace_text(t->e, text, strlen(text)), some_stack(t, stack));
        TELL(t, "Log Task=0 Category=\"%s\" Message=\"%s\"%s", name, text, stack);
    }
    trace_leave(t->e);
}

/* ---- the switcher ------------------------------------------------------------------------------------------------------ */

struct seen { uint64_t proc[WORLD_PROCS], fiber[WORLD_FIBERS]; uint32_t nfibers; };

/* Ends the generation. advance and gc are held. */
static void world_switch(struct world *w, bool stop)
{
    struct seen *s = malloc(sizeof *s);
    for (int i = 0; i < w->nprocs; i++)
        s->proc[i] = load_acq(&w->proc[i].state);
    s->nfibers = w_min(load_acq(&w->nfibers), (uint32_t)WORLD_FIBERS);
    for (uint32_t i = 0; i < s->nfibers; i++)
        s->fiber[i] = load_acq(&w->fiber[i].state);
    uint32_t gen = trace_switch(stop);
    for (int i = 0; i < w->nprocs; i++) {
        uint64_t v = s->proc[i], status = v & 7;
        if (!trace_first(&w->proc[i].told, gen))
            continue;
        trace_event(trace_late(status == TRACE_PROC_RUNNING || status == TRACE_PROC_SYSCALL ? v >> 8 : TRACE_NONE), PROC_STATUS, (uint64_t)i, status);
        if (v & SPAN)
            trace_event(&trace.late, GC_SWEEP_ACTIVE, (uint64_t)i);
    }
    for (uint32_t i = 0; i < s->nfibers; i++) {
        uint64_t v = s->fiber[i], status = v & 7;
        bool there = status == TRACE_GO_RUNNING || status == TRACE_GO_SYSCALL;
        if (status == 0 || !trace_first(&w->fiber[i].told, gen))
            continue;
        uintptr_t start = 1000;
        struct trace_emitter *l = trace_late(there ? v >> 8 : TRACE_NONE);
        trace_event(l, GO_STATUS_STACK, i + 1, there ? v >> 8 : TRACE_NONE, status, trace_stack(l, &start, 1));
        if (v & SPAN)
            trace_event(l, GC_MARK_ASSIST_ACTIVE, i + 1);
    }
    trace_finish(&world_symbols);
    free(s);
}

/* By a thread that runs a fiber, so that a running collection can be told of in the new generation. */
static void advance(struct wthread *t)
{
    struct world *w = t->w;
    if (pthread_mutex_trylock(&w->advance) != 0)
        return;
    pthread_mutex_lock(&w->gc);
    if (trace_on()) {
        world_switch(w, false);
        if (w->gc_runs && trace_enter(t->e)) {
            own_states(t);
            trace_event(t->e, GC_ACTIVE, ++w->gc_number);
            trace_leave(t->e);
        }
    }
    pthread_mutex_unlock(&w->gc);
    pthread_mutex_unlock(&w->advance);
}

static void step(struct wthread *t)
{
    struct world *w = t->w;
    uint32_t r = rng_below(&t->rng, 100);
    if (t->f == NULL && rng_below(&t->rng, 10) == 0)
        r < 50 ? steal_proc(t) : unblock_fiber(t);
    else if (t->in_syscall)
        end_syscall(t, r < 20);
    else if (t->p == NULL)
        r < 10 ? create_in_syscall(t) : start_proc(t);
    else if (t->f == NULL)
        r < 5 ? stop_proc(t) : r < 10 ? sweep(t) : r < 20 ? create_fiber(t, false) : start_fiber(t);
    else if (w->advance_every != 0 && rng_below(&t->rng, w->advance_every) == 0)
        advance(t);
    else if (r < 15)
        create_fiber(t, r < 3);
    else if (r < 30)
        leave_fiber(t, TRACE_GO_WAITING);
    else if (r < 40)
        leave_fiber(t, TRACE_GO_RUNNABLE);
    else if (r < 48)
        leave_fiber(t, 0);
    else if (r < 58)
        unblock_fiber(t);
    else if (r < 68)
        begin_syscall(t);
    else if (r < 74)
        switch_fiber(t, r < 71);
    else if (r < 78)
        assist(t);
    else if (r < 82)
        collect(t);
    else if (r < 84)
        sweep(t);
    else
        mark(t);
}

/* ---- life ------------------------------------------------------------------------------------------------------------------ */

static __attribute__((unused)) struct world *world_new(uint64_t seed, int nthreads, int nprocs, int steps)
{
    struct world *w = calloc(1, sizeof *w);
    w->nthreads = nthreads;
    w->nprocs = nprocs;
    w->steps = steps;
    pthread_mutex_init(&w->lock, NULL);
    pthread_mutex_init(&w->advance, NULL);
    pthread_mutex_init(&w->gc, NULL);
    for (int i = 0; i < nprocs; i++) {
        w->proc[i].id = (uint64_t)i;
        store_rlx(&w->proc[i].state, TRACE_PROC_IDLE);
        w->idle[w->nidle++] = &w->proc[i];
    }
    for (int i = 0; i < nthreads; i++) {
        struct wthread *t = &w->thread[i];
        t->w = w;
        t->m = 101 + (uint64_t)i;
        rng_seed(&t->rng, seed * 100 + (uint64_t)i);
        cr_assert_not_null(t->e = trace_emitter_get(t->m, false));
    }
    return w;
}

static void *world_thread(void *arg)
{
    struct wthread *t = arg;
    for (int i = 0; i < t->w->steps; i++)
        step(t);
    return NULL;
}

/* All threads take their steps; what they then have, they keep. */
static __attribute__((unused)) void world_run(struct world *w)
{
    for (int i = 0; i < w->nthreads; i++)
        cr_assert_eq(pthread_create(&w->thread[i].thread, NULL, world_thread, &w->thread[i]), 0);
    for (int i = 0; i < w->nthreads; i++)
        pthread_join(w->thread[i].thread, NULL);
}

static __attribute__((unused)) void world_free(struct world *w)
{
    for (int i = 0; i < w->nthreads; i++) {
        trace_emitter_put(w->thread[i].e);
        for (size_t k = 0; k < w->thread[i].told.n; k++)
            free(w->thread[i].told.at[k].text);
        free(w->thread[i].told.at);
    }
    free(w);
}

/* The file, which holds these generations (but those that bridge a gap), tells of each thread exactly what it told in them. Returns the number of
 * generations that bridge. */
static __attribute__((unused)) unsigned world_check(struct world *w, const char *path)
{
    static uint32_t gen[4096];
    static bool bridge[4096];
    size_t n = file_generations(path, gen, 4095);
    unsigned bridges = 0;
    struct lines all = go_parse(path);
    memset(bridge, 0, sizeof bridge);
    for (size_t i = 0; i < all.n; i++)
        if (strstr(all.at[i].text, "Log Task=0 Category=\"weft\"") != NULL) {
            bridge[all.at[i].gen] = true;
            bridges++;
        }
    for (int k = 0; k < w->nthreads; k++) {
        struct wthread *t = &w->thread[k];
        size_t at = 0;
        for (size_t i = 0; i < t->told.n; i++) {
            struct line *want = &t->told.at[i];
            size_t s = 1;
            while (s <= n && (gen[s - 1] != want->gen || bridge[s]))
                s++;
            if (s > n)
                continue; /* dropped */
            while (at < all.n && (all.at[at].m != t->m || bridge[all.at[at].gen]))
                at++;
            cr_assert(at < all.n && all.at[at].gen == s && strcmp(all.at[at].text, want->text) == 0, "thread %lu, event %zu of generation %u:\n"
                "  told  %s\n  shown %s (%u)", (unsigned long)t->m, i, want->gen, want->text, at < all.n ? all.at[at].text : "nothing",
                at < all.n ? gen[all.at[at].gen - 1] : 0);
            at++;
        }
        for (; at < all.n; at++)
            cr_assert(all.at[at].m != t->m || bridge[all.at[at].gen], "thread %lu never told: %s", (unsigned long)t->m, all.at[at].text);
    }
    for (size_t i = 0; i < all.n; i++)
        free(all.at[i].text);
    free(all.at);
    return bridges;
}

#endif
