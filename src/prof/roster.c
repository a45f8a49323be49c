/* See roster.h.
 *
 * [DUMP] No stop of the world. A helper (helper.h) does the work while the caller waits, as in a system call.
 *
 *   1. list     Tasks first, then bound fibers, so that none is missed that starts in between; both tables may be walked at any time. What is
 *               there twice is told by its id. Sorted by id.
 *   2. capture  One fiber after the other: pinned while its stack is copied, then walked in the copy. If it runs (or is in a system call), its thread
 *               is interrupted and makes the copy itself, in the signal handler, into the request's buffer. Fibers that have
 *               ended since the list was made are dropped from it.
 *   3. then     What the user of the list wants done on the helper, while the table of modules is held: symbols. Equal stacks are kept once, so
 *               that is done once for each.
 *   4. write    By the caller, through the user's function, in which anything may happen; nothing is held by then.
 *
 * So each fiber is shown as it was at some moment of the call, different fibers at different moments, and every fiber that existed during the
 * whole call is shown. */
#include "prof/roster.h"
#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/offheap.h"
#include "os/clock.h"
#include "os/futex.h"
#include "prof/helper.h"
#include "prof/symbols.h"
#include "sched/labels.h"
#include "sched/leaked.h"
#include "sched/report.h"
#include "sched/stack.h"
#include "sched/switch.h"
#include "sched/task.h"
#include "sched/world.h"

#define COPY_BYTES (1u << 20)      /* of one stack, from its top; what lies beyond is not shown */
#define LABELS_BYTES 1024u
#define ANSWER_NS 200000000        /* a thread that does not answer a signal for so long (blocked, not scheduled) is shown without frames */
#define TRIES 8                    /* to catch a fiber that starts and stops running all the time */

struct chunk { struct chunk *next; size_t used; char mem[]; };
#define CHUNK_BYTES (256u << 10)

void *roster_mem(struct roster *c, size_t bytes)
{
    bytes = w_align_up(bytes, 16);
    struct chunk *k = c->chunks;
    if (k == NULL || k->used + bytes > CHUNK_BYTES - sizeof *k) {
        k = off_alloc(OFF_PROF, w_max((size_t)CHUNK_BYTES, sizeof *k + bytes));
        if (k == NULL) {
            c->err = -ENOMEM;
            return NULL;
        }
        k->used = 0;
        k->next = c->chunks;
        c->chunks = k;
    }
    void *p = k->mem + k->used;
    k->used += bytes;
    return p;
}

const char *roster_text(struct roster *c, const char *s, size_t n)
{
    char *t = roster_mem(c, n + 1);
    if (t == NULL)
        return NULL;
    memcpy(t, s, n);
    t[n] = 0;
    return t;
}

void *roster_new(size_t bytes)
{
    return off_zalloc(OFF_PROF, bytes);
}

static void rec_drop(struct rec *r)
{
    if (r->kind != KIND_TASK)
        labels_unref(r->labels);
    r->labels = NULL;
}

void roster_free(struct roster *c)
{
    for (size_t i = 0; i < c->n; i++)
        rec_drop(&c->rec[i]);
    for (struct chunk *k = c->chunks, *next; k != NULL; k = next) {
        next = k->next;
        off_free(OFF_PROF, k);
    }
    off_free(OFF_PROF, c->rec);
    off_free(OFF_PROF, c);
}

/* ---- 1. list ------------------------------------------------------------------------------------------ */

static struct rec *rec_new(struct roster *c)
{
    if (c->n == c->room) {
        size_t room = c->room == 0 ? 256 : c->room * 2;
        struct rec *more = off_realloc(OFF_PROF, c->rec, room * sizeof *more);
        if (more == NULL) {
            c->lost++;
            return NULL;
        }
        c->rec = more;
        c->room = room;
    }
    struct rec *r = &c->rec[c->n++];
    *r = (struct rec){ 0 };
    return r;
}

/* What may have been freed meanwhile, read without a fault, at most a page. How much is there. */
static size_t read_some(const void *from, void *to, size_t n)
{
    size_t first = w_min(n, (size_t)(4096 - (uintptr_t)from % 4096));
    struct iovec in = { to, n }, out[2] = { { (void *)from, first }, { (char *)from + first, n - first } };
    ssize_t got = process_vm_readv(getpid(), &in, 1, out, first < n ? 2 : 1, 0);
    return got > 0 ? (size_t)got : 0;
}

bool roster_name(const char *from, char to[ROSTER_NAME])
{
    size_t n = ROSTER_NAME - 1, got = read_some(from, to, n);
    to[got] = 0;
    return got != 0 && (memchr(to, 0, got) != NULL || got == n);
}

/* What was copied of the task is still so, [TASK]. Its owner may be writing it anew. */
static w_no_sanitize bool task_is(const struct task *at, uint64_t id)
{
    return __atomic_load_n(&at->id, __ATOMIC_ACQUIRE) == id; /* acq: see task.c */
}

/* A copy of a task's; NULL: it is none, or has run. Those with longer texts are not shown. */
static struct labels *copy_labels(struct roster *c, const struct task *at, uint64_t id, const struct labels *from)
{
    union { struct labels l; char bytes[LABELS_BYTES]; } is;
    size_t got = read_some(from, &is, sizeof is - 1);
    if (got < sizeof is.l || !task_is(at, id) || sizeof is.l + is.l.n * sizeof is.l.at[0] > got)
        return NULL;
    is.bytes[got] = 0; /* the last text ends there at the latest */
    struct labels *to = roster_mem(c, got + 1);
    if (to == NULL)
        return NULL;
    memcpy(to, &is, got + 1);
    for (uint32_t i = 0; i < to->n; i++) {
        size_t key = (size_t)(to->at[i].key - (const char *)from), value = (size_t)(to->at[i].value - (const char *)from);
        if (key >= got || value >= got)
            return NULL;
        to->at[i].key = (const char *)to + key;
        to->at[i].value = (const char *)to + value;
    }
    return to;
}

/* The name is believed only if the task was still queued after it was read. */
static void list_task(const struct task *t, const struct task *at, void *arg)
{
    struct roster *c = arg;
    char name[ROSTER_NAME];
    if ((t->flags & FIBER_SYSTEM) || c->leaked_only)
        return;
    struct rec *r = rec_new(c);
    if (r == NULL)
        return;
    r->kind = KIND_TASK;
    r->id = t->id;
    r->parent = t->parent;
    r->site = t->site;
    r->fn = t->fn;
    r->status = "runnable, not started";
    r->since_ns = -1;
    if (t->name != NULL && roster_name(t->name, name) && task_is(at, t->id))
        r->name = roster_text(c, name, strlen(name));
    if (t->labels != NULL && !c->list_only)
        r->labels = copy_labels(c, at, t->id, t->labels);
}

/* Reads descriptors that their owners may be writing; checked again when the fiber is pinned. */
static w_no_sanitize void list_fiber(struct fiber *f, void *arg)
{
    struct roster *c = arg;
    uint32_t s = load_acq(&f->state); /* acq: sees the id; rel in fiber_bind */
    if (s == FIBER_FREE || s == FIBER_DEAD || f->flags & FIBER_SYSTEM || f == c->self || (c->leaked_only && !leaked_is(f)))
        return;
    uint64_t id = __atomic_load_n(&f->id, __ATOMIC_ACQUIRE); /* acq, and the next: site is read in between */
    const void *site = __atomic_load_n(&f->site, __ATOMIC_ACQUIRE); /* for who lists only, and has no better */
    if (id == 0 || f->id != id)
        return; /* it has ended, and its page went back or has another one's */
    struct rec *r = rec_new(c);
    if (r == NULL)
        return;
    r->kind = KIND_FIBER;
    r->f = f;
    r->id = id;
    r->site = site;
    r->status = s == FIBER_RUNNING ? "running" : s == FIBER_RUNNABLE ? "runnable" : wait_reason_text(w_min(f->why, WAIT_REASON_COUNT - 1));
    r->since_ns = s == FIBER_WAITING ? __atomic_load_n(&f->since_ns, __ATOMIC_RELAXED) : -1; /* rlx: a hint, and so below */
    r->leaked = leaked_is(f);
}

w_no_sanitize void roster_more(struct roster *c, struct rec *r)
{
    char name[ROSTER_NAME];
    if (r->kind != KIND_FIBER)
        return;
    const char *from = __atomic_load_n(&r->f->name, __ATOMIC_RELAXED);
    uint64_t parent = __atomic_load_n(&r->f->parent, __ATOMIC_RELAXED);
    bool named = from != NULL && roster_name(from, name);
    if (__atomic_load_n(&r->f->id, __ATOMIC_ACQUIRE) != r->id) /* acq: after what was read */
        return;
    r->parent = parent;
    if (named)
        r->name = roster_text(c, name, strlen(name));
}

/* Threads of the host that are attached. */
static w_no_sanitize void list_threads(struct roster *c)
{
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next) { /* acq: sees the machine; rel in m_publish_locked */
        if (!m->foreign || load_acq(&m->dead) != 0 || &m->self == c->self)
            continue;
        struct rec *r = rec_new(c);
        if (r == NULL)
            return;
        r->kind = KIND_THREAD;
        r->f = &m->self;
        r->m = m;
        r->id = (uint64_t)m->tid;
    }
}

/* Threads last; by id; the fiber before its task. */
static bool rec_before(const struct rec *a, const struct rec *b)
{
    bool at = a->kind == KIND_THREAD, bt = b->kind == KIND_THREAD;
    return at != bt ? bt : a->id != b->id ? a->id < b->id : a->kind < b->kind;
}

/* A heap: in place, and without the recursion of one that is quick on average. */
static void recs_sort(struct rec *r, size_t n)
{
    for (size_t start = n / 2, end = n; end > 1;) {
        if (start > 0) {
            start--;
        } else {
            end--;
            struct rec t = r[end];
            r[end] = r[0];
            r[0] = t;
        }
        struct rec t = r[start];
        size_t i = start, child;
        for (; (child = 2 * i + 1) < end; i = child) {
            if (child + 1 < end && rec_before(&r[child], &r[child + 1]))
                child++;
            if (!rec_before(&t, &r[child]))
                break;
            r[i] = r[child];
        }
        r[i] = t;
    }
}

static void recs_pack(struct roster *c, size_t from)
{
    size_t to = from;
    for (size_t i = from; i < c->n; i++) {
        struct rec *r = &c->rec[i];
        bool again = to > from && r->kind != KIND_THREAD && c->rec[to - 1].kind != KIND_THREAD && c->rec[to - 1].id == r->id;
        if (!r->gone && !again)
            c->rec[to++] = *r;
        else
            rec_drop(r);
    }
    c->n = to;
}

static void list(struct roster *c)
{
    size_t first = c->n; /* the caller stays in front */
    tasks_each(list_task, c);
    stack_each(0, 1, list_fiber, c);
    if (!c->leaked_only)
        list_threads(c);
    if (c->n == first)
        return;
    recs_sort(c->rec + first, c->n - first);
    for (size_t i = first; i < c->n && c->wanted != NULL; i++)
        c->rec[i].gone = c->rec[i].kind == KIND_THREAD || !c->wanted(c->rec[i].id, c->wanted_arg);
    recs_pack(c, first);
}

/* ---- 2. capture ------------------------------------------------------------------------------------------ */

/* A stack may hold anything, red zones of a sanitizer included. */
static w_no_sanitize void copy_words(char *to, const char *from, size_t bytes)
{
    for (size_t i = 0; i + sizeof(uintptr_t) <= bytes; i += sizeof(uintptr_t))
        *(uintptr_t *)(to + i) = *(const volatile uintptr_t *)(from + i);
}

/* *u was made of a stack that may run on at any time: from here on it is a copy. Async-signal-safe. */
static bool stack_copy(struct unwind_from *u, char *to)
{
    size_t bytes = w_min(u->hi - u->lo, (uintptr_t)COPY_BYTES);
    copy_words(to, u->bytes, bytes);
    bool cut = u->lo + bytes < u->hi;
    u->hi = u->lo + bytes;
    u->bytes = to;
    return cut;
}

static const char *copy_name(struct roster *c, const char *name)
{
    return name != NULL ? roster_text(c, name, strnlen(name, ROSTER_NAME - 1)) : NULL;
}

/* What does not change while it is pinned, or its thread interrupted. (No sanitizer understands that.) Labels are its own to change. */
static w_no_sanitize void copy_fields(struct rec *r, const struct fiber *f)
{
    r->parent = f->parent;
    r->site = f->site;
    r->locked = f->lock_depth != 0;
    r->labels = labels_ref(f->labels);
}

static w_no_sanitize bool frame_at_start(const void *sp) { return ARCH_PC((const struct arch_frame *)sp) == (uint64_t)(uintptr_t)weft_arch_entry; }

enum caught { CAUGHT, CAUGHT_GONE, CAUGHT_RUNNING };

/* c->from is its stack then. */
static w_no_sanitize enum caught capture_parked(struct roster *c, struct rec *r, bool *cut)
{
    struct fiber *f = r->f;
    if (!fiber_pin(f))
        return r->kind == KIND_FIBER && (load_acq(&f->state) != FIBER_RUNNING || f->id != r->id) ? CAUGHT_GONE : CAUGHT_RUNNING;
    enum caught is = CAUGHT;
    bool waits = load_rlx(&f->state) == FIBER_WAITING; /* rlx: read with acquire in fiber_pin */
    if (r->kind == KIND_FIBER && f->id != r->id) {
        is = CAUGHT_GONE;
    } else if (f->why == WAIT_BLOCKING) {
        is = CAUGHT_RUNNING; /* only the scheduler believes that it is parked, or runnable again */
    } else {
        int64_t since = f->since_ns;
        copy_fields(r, f);
        r->name = copy_name(c, f->name);
        r->status = waits ? wait_reason_text(f->why) : frame_at_start(f->sp) ? "runnable, not started" : "runnable";
        r->leaked = leaked_is(f);
        r->minutes = waits && since > 0 ? (os_now_ns() - since) / 60000000000 : 0;
        unwind_from_frame(&c->from, f->sp, f->stack_hi);
        *cut = stack_copy(&c->from, c->copy);
    }
    fiber_unpin(f);
    return is;
}

/* The one request to a thread to copy its stack. who: 0 nobody is asked; ANSWERING; else the machine that is asked. */
#define ANSWERING 1u
static struct {
    w_uptr who;         /* rel: publishes the request; acq in roster_interrupted */
    w_u32 done;         /* futex; rel: publishes the answer; acq in ask */
    /* the request */
    struct fiber *f;
    uint64_t id;
    char *copy;
    /* the answer */
    bool found, cut, blocking;
    struct unwind_from from;
    struct rec fields;
    char name[ROSTER_NAME];
} request;

/* In the handler of the stop signal, on any thread that got one. */
static void roster_interrupted(struct m *m, const ucontext_t *uc)
{
    if (!cas_acq(&request.who, (uintptr_t)m, ANSWERING)) /* acq: sees the request; rel in ask */
        return;
    struct fiber *f = request.f;
    uintptr_t sp = arch_uc_sp(uc);
    request.found = (f->flags & FIBER_THREAD || f->id == request.id) && sp >= (uintptr_t)f->stack_lo && sp < (uintptr_t)f->stack_hi &&
                    (m->cur == f || (m->blocking && m->blocked == f));
    if (request.found) {
        unwind_from_signal(&request.from, uc, f->stack_hi);
        request.cut = stack_copy(&request.from, request.copy);
        request.blocking = m->blocking;
        copy_fields(&request.fields, f);
        request.name[0] = 0;
        for (unsigned i = 0; f->name != NULL && i + 1 < ROSTER_NAME && (request.name[i] = f->name[i]) != 0; i++)
            request.name[i + 1] = 0;
    }
    store_rel(&request.done, 1); /* rel: the answer; acq in ask */
    os_futex_wake(&request.done, 1);
}

/* The machine on which f runs now, perhaps. */
static w_no_sanitize struct m *machine_of(struct fiber *f)
{
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next) /* acq: as in list_threads */
        if (load_acq(&m->dead) == 0 && (__atomic_load_n(&m->cur, __ATOMIC_ACQUIRE) == f || (m->blocking && m->blocked == f)))
            return m;
    return NULL;
}

/* False: no answer. request.found tells whether it was still there. */
static bool ask(struct roster *c, struct m *m, struct rec *r)
{
    request.f = r->f;
    request.id = r->id;
    request.copy = c->copy;
    request.found = false;
    store_rlx(&request.done, 0); /* rlx: published by who */
    store_rel(&request.who, (uintptr_t)m); /* rel: the request; acq in roster_interrupted */
    bool sent = world_interrupt(m) == 0;
    int64_t until = os_now_ns() + ANSWER_NS, left;
    while (sent && load_acq(&request.done) == 0 && (left = until - os_now_ns()) > 0)
        os_futex_wait(&request.done, 0, left);
    if (cas_acq(&request.who, (uintptr_t)m, 0)) /* nobody has begun to answer, and nobody will */
        return false;
    while (load_acq(&request.done) == 0) /* acq: the answer; rel in roster_interrupted */
        os_futex_wait(&request.done, 0, ANSWER_NS);
    store_rlx(&request.who, 0); /* rlx: only we ask */
    return true;
}

static enum caught capture_running(struct roster *c, struct rec *r, bool *cut)
{
    struct m *m = r->m != NULL ? r->m : machine_of(r->f);
    if (m == NULL)
        return CAUGHT_RUNNING;
    if (!ask(c, m, r)) {
        r->no_answer = true;
        return CAUGHT_RUNNING;
    }
    if (!request.found)
        return CAUGHT_RUNNING;
    r->no_answer = false;
    r->parent = request.fields.parent;
    r->site = request.fields.site;
    r->locked = request.fields.locked;
    r->labels = request.fields.labels;
    r->name = request.name[0] != 0 ? roster_text(c, request.name, strlen(request.name)) : NULL;
    r->status = request.blocking ? wait_reason_text(WAIT_BLOCKING) : "running";
    c->from = request.from;
    *cut = request.cut;
    return CAUGHT;
}

/* It runs, and was not to be caught. What does not change with the fiber's life is still told. */
static w_no_sanitize void capture_nothing(struct rec *r)
{
    r->status = load_acq(&r->f->state) == FIBER_WAITING ? wait_reason_text(r->f->why) : "running";
    r->parent = r->f->parent;
    r->site = r->f->site;
    if (r->kind == KIND_FIBER && __atomic_load_n(&r->f->id, __ATOMIC_ACQUIRE) != r->id)
        r->gone = true;
    if (r->kind == KIND_THREAD && load_acq(&r->m->dead) != 0)
        r->gone = true;
}

static struct trace *trace_keep(struct roster *c, const struct unwind_trace *w, enum view view, bool cut)
{
    uint64_t h = w->n + view * 7u + cut;
    for (uint32_t i = 0; i < w->n; i++)
        h = (h ^ w->pc[i]) * 0x9e3779b97f4a7c15ull;
    struct trace **at = &c->traces[(h >> 32) % ROSTER_TRACES];
    for (struct trace *t = *at; t != NULL; t = t->next)
        if (t->n == w->n && t->elided == w->elided && t->view == view && t->cut == cut &&
            memcmp(t->pc, w->pc, w->n * sizeof *w->pc) == 0)
            return t;
    struct trace *t = roster_mem(c, sizeof *t + w->n * sizeof *w->pc);
    if (t == NULL)
        return NULL;
    *t = (struct trace){ .next = *at, .n = w->n, .elided = w->elided, .view = view, .cut = cut };
    memcpy(t->pc, w->pc, w->n * sizeof *w->pc);
    *at = t;
    return t;
}

static void walk(void *arg, bool all_there)
{
    struct roster *c = arg;
    unwind_walk(c->maps, all_there, &c->from, &c->walked);
}

static void capture(struct roster *c, struct rec *r)
{
    bool cut = false, parked = true;
    enum caught got = CAUGHT_RUNNING;
    for (unsigned i = 0; i < TRIES && got == CAUGHT_RUNNING && !r->no_answer; i++) {
        got = capture_parked(c, r, &cut);
        parked = got == CAUGHT;
        if (got == CAUGHT_RUNNING)
            got = capture_running(c, r, &cut);
    }
    r->gone = got == CAUGHT_GONE;
    if (got == CAUGHT_RUNNING)
        capture_nothing(r);
    if (got != CAUGHT)
        return;
    maps_hold(walk, c);
    r->trace = trace_keep(c, &c->walked, parked ? VIEW_PARKED : VIEW_RUNNING, cut);
}

/* The caller waits for us: its stack stands still. */
static void capture_self(struct roster *c)
{
    struct fiber *f = c->self;
    struct rec *r = rec_new(c);
    if (r == NULL)
        return;
    r->kind = f->flags & FIBER_THREAD ? KIND_THREAD : KIND_FIBER;
    r->f = f;
    r->id = r->kind == KIND_THREAD ? (uint64_t)c->self_m->tid : f->id;
    r->status = "running";
    copy_fields(r, f);
    r->name = copy_name(c, f->name);
    unwind_from_frame(&c->from, c->sp, f->stack_hi);
    maps_hold(walk, c);
    r->trace = trace_keep(c, &c->walked, VIEW_SELF, false);
}

/* ---- the helper --------------------------------------------------------------------------------------------- */

/* From here on nothing of the runtime's is read, and it may end. */
static void come_back(struct roster *c)
{
    if (c->away != NULL)
        call_back(c->away);
}

static void capture_all(struct roster *c)
{
    if (c->self != NULL)
        capture_self(c);
    size_t first = c->n;
    if (!c->all)
        return;
    list(c);
    for (size_t i = first; i < c->n; i++)
        if (c->rec[i].kind != KIND_TASK)
            capture(c, &c->rec[i]);
    recs_pack(c, first);
}

int roster_fill(struct roster *c, const struct maps *maps)
{
    c->maps = maps;
    unwind_load();
    c->copy = off_alloc(OFF_PROF, COPY_BYTES);
    if (c->copy == NULL)
        return c->err = -ENOMEM;
    capture_all(c);
    off_free(OFF_PROF, c->copy);
    return 0;
}

static void work(void *arg)
{
    struct roster *c = arg;
    if (c->list_only) {
        if (!c->nobody)
            list(c);
        if (c->listed != NULL)
            c->listed(c);
        come_back(c);
        if (c->then == NULL)
            return;
        c->maps = maps_begin(symbols_gone);
        if (c->maps == NULL) {
            c->err = -ENOMEM;
            return;
        }
        c->then(c);
        maps_end();
        return;
    }
    const struct maps *maps = maps_begin(symbols_gone);
    if (maps == NULL) {
        c->err = -ENOMEM;
        return;
    }
    if (roster_fill(c, maps) == 0) {
        come_back(c);
        if (c->then != NULL)
            c->then(c);
    }
    maps_end();
}

static w_u32 symbols_kept;

int roster_collect(struct roster *c)
{
    store_rlx(&symbols_kept, 1); /* rlx: read when nobody makes any more */
    int err = helper_run(work, c);
    return err != 0 ? err : c->err;
}

/* ---- from user code ------------------------------------------------------------------------------------------ */

static void open_inside(struct roster *c, struct m *m, bool all, bool self)
{
    c->all = all;
    c->self = self ? m->cur : NULL;
    c->self_m = m;
    c->total = (uint64_t)fibers_alive();
    if (m->foreign) /* the helper reads what the end would take away */
        call_away(c->away = m);
}

void *roster_begin(size_t bytes, bool all, bool self, int *err)
{
    struct m *m = rt_enter_try();
    *err = m == NULL ? -ESRCH : -ENOMEM;
    if (m == NULL)
        return NULL;
    struct roster *c = roster_new(bytes);
    if (c != NULL)
        open_inside(c, m, all, self);
    rt_leave(m);
    return c;
}

int roster_open(struct roster *c, bool all, bool self)
{
    struct m *m = rt_enter_try();
    if (m == NULL)
        return -ESRCH;
    open_inside(c, m, all, self);
    rt_leave(m);
    return 0;
}

/* Below the saved registers of the caller. */
static void helper_wait(void *arg)
{
    struct roster *c = arg;
    weft_blocking_begin();
    c->err = roster_collect(c);
    weft_blocking_end();
    come_back(c); /* work may have failed before */
}

void roster_take(struct roster *c)
{
    weft_arch_call_saved(&c->sp, helper_wait, c);
}

/* The runtime may have ended meanwhile: then there is no stop that would wait for who holds a lock of the memory's. */
void roster_drop(struct roster *c)
{
    struct m *m = rt_enter_try();
    roster_free(c);
    if (m != NULL)
        rt_leave(m);
}

w_noinline int roster_each(void (*each)(uint64_t id, const void *site, void *arg), void *arg)
{
    int saved = errno, err;
    struct roster *c = roster_begin(sizeof *c, true, false, &err);
    if (c == NULL)
        return err;
    c->list_only = true;
    roster_take(c);
    err = c->err != 0 ? c->err : c->lost != 0 ? -ENOMEM : 0;
    for (size_t i = 0; i < c->n && err == 0; i++)
        if (c->rec[i].kind != KIND_THREAD)
            each(c->rec[i].id, c->rec[i].site, arg);
    roster_drop(c);
    errno = saved;
    return err;
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

/* Nobody makes any more. */
static void roster_end(void) { symbols_end(&symbols_kept); }

static void __attribute__((constructor)) roster_init(void)
{
    sched_reports.interrupted = roster_interrupted;
    sched_reports.end = roster_end;
}
