/* weft_debug_dump: one page of where everything is now.
 *
 * It is made of what others keep anyway: metrics, the machines and processors, the list of fibers (roster.h, without stacks). The caller takes the
 * numbers, inside the runtime; a helper puts names to addresses and makes the text; the caller hands it to the user's writer. Everything of the
 * scheduler's is read while its owner may be writing it, so it is for show, and no sanitizer may look. */
#include <weft/debug.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <weft/mem.h>
#include <weft/metrics.h>
#include <weft/prof.h>
#include <weft/trace.h>
#include "prof/roster.h"
#include "prof/symbols.h"
#include "prof/text.h"
#include "sched/leaked.h"
#include "sched/sched.h"

#define SITES_SHOWN 12u
#define THREADS_SHOWN 32u
#define PROFILES_MAX 64u

/* ---- numbers --------------------------------------------------------------------------------------------------- */

#define NUMBERS(X)                                                      \
    X(FIBERS, "/sched/goroutines:goroutines")                           \
    X(RUNNING, "/sched/goroutines/running:goroutines")                  \
    X(RUNNABLE, "/sched/goroutines/runnable:goroutines")                \
    X(WAITING, "/sched/goroutines/waiting:goroutines")                  \
    X(NOT_IN, "/sched/goroutines/not-in-go:goroutines")                 \
    X(MADE, "/sched/goroutines-created:goroutines")                     \
    X(THREADS, "/sched/threads/total:threads")                          \
    X(THREADS_MADE, "/weft/sched/threads/created:threads")              \
    X(HANDOFFS, "/weft/sched/hand-offs:processors")                     \
    X(DESCRIPTORS, "/weft/io/descriptors:descriptors")                  \
    X(CYCLES, "/gc/cycles/total:gc-cycles")                             \
    X(FORCED, "/gc/cycles/forced:gc-cycles")                            \
    X(GOAL, "/gc/heap/goal:bytes")                                      \
    X(LIVE, "/gc/heap/live:bytes")                                      \
    X(OBJECTS, "/gc/heap/objects:objects")                              \
    X(PERCENT, "/gc/gogc:percent")                                      \
    X(LIMIT, "/gc/gomemlimit:bytes")                                    \
    X(FINALIZERS, "/gc/finalizers/queued:finalizers")                   \
    X(FINALIZED, "/gc/finalizers/executed:finalizers")                  \
    X(CLEANUPS, "/gc/cleanups/queued:cleanups")                         \
    X(CLEANED, "/gc/cleanups/executed:cleanups")                        \
    X(MEM_TOTAL, "/memory/classes/total:bytes")                         \
    X(MEM_OBJECTS, "/memory/classes/heap/objects:bytes")                \
    X(MEM_UNUSED, "/memory/classes/heap/unused:bytes")                  \
    X(MEM_FREE, "/memory/classes/heap/free:bytes")                      \
    X(MEM_RELEASED, "/memory/classes/heap/released:bytes")              \
    X(MEM_STACKS, "/memory/classes/heap/stacks:bytes")                  \
    X(MEM_THREADS, "/memory/classes/os-stacks:bytes")                   \
    X(MEM_GC, "/memory/classes/metadata/other:bytes")                   \
    X(MEM_PROF, "/memory/classes/profiling/buckets:bytes")              \
    X(MEM_TRACE, "/weft/memory/off-heap/trace:bytes")                   \
    X(MEM_OTHER, "/memory/classes/other:bytes")

enum number {
#define X(id, name) id,
    NUMBERS(X)
#undef X
    NUMBER_COUNT
};

struct proc { uint32_t id, queued, timers, tick; bool runs; uint32_t machine; uint64_t fiber; };
struct thread { uint32_t id; int tid; const char *does; uint64_t fiber; bool foreign, locked; };
struct of_site { const void *site; uint64_t n; };
struct named { const char *name; int64_t n; };

struct page {
    struct roster r;
    weft_metric number[NUMBER_COUNT];
    weft_stop_stats stop[WEFT_STOP_REASONS];
    struct named profile[PROFILES_MAX];
    size_t profiles;
    bool tracing;
    struct proc *proc;
    uint32_t procs;
    struct thread *thread;
    uint32_t threads, threads_all;
    int64_t up_ns, collected_ago_ns; /* the second: negative: never */
    /* the helper's */
    struct text text;
    struct symbol scratch[SYMBOLS_INLINED_MAX];
};

static uint64_t num(const struct page *p, enum number i) { return p->number[i].u64; }

/* Outside the runtime, which each of these enters. */
static int take_numbers(struct page *p)
{
    static const char *const name[] = {
#define X(id, text) text,
        NUMBERS(X)
#undef X
    };
    weft_profile *all[PROFILES_MAX];
    for (unsigned i = 0; i < NUMBER_COUNT; i++)
        p->number[i].name = name[i];
    int err = weft_metrics_read(p->number, NUMBER_COUNT);
    for (int i = 0; i < WEFT_STOP_REASONS; i++)
        weft_read_stop_stats(i, &p->stop[i]);
    p->profiles = w_min(weft_profiles(all, PROFILES_MAX), (size_t)PROFILES_MAX);
    for (size_t i = 0; i < p->profiles; i++)
        p->profile[i] = (struct named){ weft_profile_name(all[i]), weft_profile_count(all[i]) };
    p->tracing = weft_trace_enabled();
    return err;
}

#define READ(field) __atomic_load_n(&(field), __ATOMIC_RELAXED) /* rlx: for show */

static w_no_sanitize uint64_t fiber_of(const struct m *m)
{
    const struct fiber *f = m->blocking ? m->blocked : READ(m->cur);
    return f == NULL || f->flags & FIBER_THREAD ? 0 : __atomic_load_n(&f->id, __ATOMIC_RELAXED); /* rlx: for show; descriptors stay mapped */
}

static w_no_sanitize void take_procs(struct page *p)
{
    uint32_t n = nprocs();
    p->proc = roster_mem(&p->r, n * sizeof *p->proc);
    for (uint32_t i = 0; p->proc != NULL && i < n; i++) {
        const struct p *from = sched.allp[i];
        const struct m *m = load_acq(&from->owner); /* acq: sees the machine; it stays while the runtime runs */
        bool runs = load_rlx(&from->status) == P_RUNNING && m != NULL; /* rlx: for show */
        p->proc[p->procs++] = (struct proc){
            .id = from->id, .queued = load_rlx(&from->runq.tail) - load_rlx(&from->runq.head) + (load_rlx(&from->runq.next) != NULL),
            .timers = READ(from->timers.len), .tick = load_rlx(&from->tick), .runs = runs, .machine = runs ? m->id : 0, .fiber = runs ? fiber_of(m) : 0,
        };
    }
}

static w_no_sanitize const char *what_does(const struct m *m)
{
    if (m->blocking)
        return "blocks, without a processor";
    if (m->foreign)
        return "is the host's";
    if (READ(m->cur) != NULL)
        return "runs";
    return load_rlx(&m->sleep) == 1 ? "sleeps" : "looks for work, or waits for descriptors"; /* rlx: for show */
}

static w_no_sanitize void take_threads(struct page *p)
{
    p->thread = roster_mem(&p->r, THREADS_SHOWN * sizeof *p->thread);
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next) { /* acq: sees the machine; rel in m_publish_locked */
        if (load_acq(&m->dead) != M_ALIVE) /* acq: likewise */
            continue;
        if (p->thread != NULL && p->threads < THREADS_SHOWN)
            p->thread[p->threads++] = (struct thread){ m->id, m->tid, what_does(m), fiber_of(m), m->foreign, READ(m->locked) != NULL };
        p->threads_all++;
    }
}

/* ---- the text ------------------------------------------------------------------------------------------------------ */

static void put_bytes(struct text *t, const char *what, uint64_t bytes)
{
    if (bytes >= (uint64_t)INT64_MAX)
        text_putf(t, "%s none", what);
    else if (bytes < UINT64_C(10) << 20)
        text_putf(t, "%s %lu KiB", what, (unsigned long)(bytes >> 10));
    else
        text_putf(t, "%s %lu MiB", what, (unsigned long)(bytes >> 20));
}

static void put_time(struct text *t, int64_t ns)
{
    if (ns < 10000)
        text_putf(t, "%ld ns", (long)ns);
    else if (ns < 10000000)
        text_putf(t, "%ld us", (long)(ns / 1000));
    else if (ns < INT64_C(10000000000))
        text_putf(t, "%ld ms", (long)(ns / 1000000));
    else
        text_putf(t, "%ld s", (long)(ns / 1000000000));
}

static void put_site(struct page *p, const void *site)
{
    uint32_t n = site != NULL && p->r.maps != NULL ? symbols_at(p->r.maps, (uintptr_t)site, p->scratch) : 0;
    const struct symbol *s = &p->scratch[0];
    if (n == 0 || s->func == NULL) {
        text_putf(&p->text, "0x%lx", (unsigned long)(uintptr_t)site);
        return;
    }
    text_puts(&p->text, s->func);
    if (s->file != NULL && s->line != 0)
        text_putf(&p->text, " (%.150s:%u)", s->file, s->line);
}

/* Sorted by id, threads last. */
static const struct rec *rec_of(const struct page *p, uint64_t id)
{
    for (size_t i = 0; i < p->r.n; i++)
        if (p->r.rec[i].id == id && p->r.rec[i].kind == KIND_FIBER)
            return &p->r.rec[i];
    return NULL;
}

static void put_fiber(struct page *p, uint64_t id)
{
    const struct rec *r = rec_of(p, id);
    if (r == NULL) {
        text_putf(&p->text, "fiber %lu", (unsigned long)id); /* of the runtime, or it has ended */
        return;
    }
    text_putf(&p->text, "fiber %lu, made by ", (unsigned long)id);
    put_site(p, r->site);
}

static void put_procs(struct page *p)
{
    struct text *t = &p->text;
    text_puts(t, "\nprocessors\n");
    for (uint32_t i = 0; i < p->procs; i++) {
        const struct proc *c = &p->proc[i];
        text_putf(t, "  P%u  ", c->id);
        if (!c->runs) {
            text_puts(t, "idle");
        } else if (c->fiber == 0) {
            text_putf(t, "M%u, in the scheduler", c->machine);
        } else {
            text_putf(t, "M%u, ", c->machine);
            put_fiber(p, c->fiber);
        }
        text_putf(t, "; queued %u, timers %u, steps %u\n", c->queued, c->timers, c->tick);
    }
}

/* Adds one to those of that key, of which there are n in a table with room. What does not fit is not told apart. */
static uint32_t count_in(struct of_site *of, uint32_t n, uint32_t room, const void *key)
{
    for (uint32_t i = 0; i < n; i++)
        if (of[i].site == key) {
            of[i].n++;
            return n;
        }
    if (n < room)
        of[n++] = (struct of_site){ key, 1 };
    return n;
}

static void most_first(struct of_site *of, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++)
        for (uint32_t k = i; k > 0 && of[k].n > of[k - 1].n; k--) {
            struct of_site was = of[k];
            of[k] = of[k - 1];
            of[k - 1] = was;
        }
}

#define TOLD_APART 1024u

static void put_fibers(struct page *p)
{
    struct text *t = &p->text;
    struct of_site *site = roster_mem(&p->r, TOLD_APART * sizeof *site), *state = roster_mem(&p->r, TOLD_APART * sizeof *state);
    uint32_t sites = 0, states = 0;
    uint64_t all = 0, shown = 0;
    if (site == NULL || state == NULL)
        return;
    for (size_t i = 0; i < p->r.n; i++)
        if (p->r.rec[i].kind != KIND_THREAD) {
            all++;
            sites = count_in(site, sites, TOLD_APART, p->r.rec[i].site);
            states = count_in(state, states, TOLD_APART, p->r.rec[i].status); /* texts that are there once */
        }
    most_first(site, sites);
    most_first(state, states);
    text_putf(t, "\nfibers %lu: %lu running, %lu runnable, %lu waiting, %lu blocking; made %lu; ", (unsigned long)all, (unsigned long)num(p, RUNNING),
              (unsigned long)num(p, RUNNABLE), (unsigned long)num(p, WAITING), (unsigned long)num(p, NOT_IN), (unsigned long)num(p, MADE));
    text_putf(t, "leaked %lu, when goroutineleak was last written\n  are ", (unsigned long)leaked_count());
    for (uint32_t i = 0; i < states; i++)
        text_putf(t, "%s%lu %s", i == 0 ? "" : ", ", (unsigned long)state[i].n, (const char *)state[i].site);
    text_puts(t, "\n  made by\n");
    for (uint32_t i = 0; i < w_min(sites, SITES_SHOWN); i++) {
        text_putf(t, "  %7lu  ", (unsigned long)site[i].n);
        put_site(p, site[i].site);
        text_puts(t, "\n");
        shown += site[i].n;
    }
    if (shown < all)
        text_putf(t, "  %7lu  others\n", (unsigned long)(all - shown));
}

static void put_threads(struct page *p)
{
    struct text *t = &p->text;
    text_putf(t, "\nthreads %lu: made %lu, hand-offs of processors %lu\n", (unsigned long)num(p, THREADS), (unsigned long)num(p, THREADS_MADE),
              (unsigned long)num(p, HANDOFFS));
    for (uint32_t i = 0; i < p->threads; i++) {
        const struct thread *h = &p->thread[i];
        text_putf(t, "  M%u  thread %d %s%s", h->id, h->tid, h->does, h->locked ? ", locked to a fiber" : "");
        if (h->fiber != 0) {
            text_puts(t, ": ");
            put_fiber(p, h->fiber);
        }
        text_puts(t, "\n");
    }
    if (p->threads < p->threads_all)
        text_putf(t, "  %u others\n", p->threads_all - p->threads);
}

static void put_heap(struct page *p)
{
    struct text *t = &p->text;
    put_bytes(t, "\nheap", num(p, MEM_OBJECTS));
    text_putf(t, " in %lu objects;", (unsigned long)num(p, OBJECTS));
    put_bytes(t, " live after the last collection", num(p, LIVE));
    put_bytes(t, ", goal", num(p, GOAL));
    text_putf(t, " (%ld %%),", (long)num(p, PERCENT));
    put_bytes(t, " limit", num(p, LIMIT));
    text_putf(t, "\n  collections %lu, %lu of them forced", (unsigned long)num(p, CYCLES), (unsigned long)num(p, FORCED));
    if (p->collected_ago_ns >= 0) {
        text_puts(t, "; the last ended ");
        put_time(t, p->collected_ago_ns);
        text_puts(t, " ago");
    }
    text_putf(t, "; finalizers run %lu of %lu, cleanups %lu of %lu\n", (unsigned long)num(p, FINALIZED), (unsigned long)num(p, FINALIZERS),
              (unsigned long)num(p, CLEANED), (unsigned long)num(p, CLEANUPS));
    text_puts(t, "\nstops of the world\n");
    for (int i = 0; i < WEFT_STOP_REASONS; i++) {
        const weft_stop_stats *s = &p->stop[i];
        if (s->count == 0)
            continue;
        text_putf(t, "  %7lu  %s: ", (unsigned long)s->count, s->reason);
        put_time(t, (int64_t)(s->stopped_total_ns / s->count));
        text_puts(t, " on average, at most ");
        put_time(t, (int64_t)s->stopped_max_ns);
        text_puts(t, "\n");
    }
}

static void put_memory(struct page *p)
{
    struct text *t = &p->text;
    put_bytes(t, "\nmemory", num(p, MEM_TOTAL));
    put_bytes(t, "\n  heap: objects", num(p, MEM_OBJECTS));
    put_bytes(t, ", between them", num(p, MEM_UNUSED));
    put_bytes(t, ", free", num(p, MEM_FREE));
    put_bytes(t, ", given back (not in the sum of what is resident)", num(p, MEM_RELEASED));
    put_bytes(t, "\n  stacks: of fibers", num(p, MEM_STACKS));
    put_bytes(t, ", of threads", num(p, MEM_THREADS));
    put_bytes(t, "\n  the runtime: collector", num(p, MEM_GC));
    put_bytes(t, ", profiles", num(p, MEM_PROF));
    put_bytes(t, ", traces", num(p, MEM_TRACE));
    put_bytes(t, ", the rest", num(p, MEM_OTHER));
    text_puts(t, "\n");
}

static void put_watching(struct page *p)
{
    struct text *t = &p->text;
    text_puts(t, "\nprofiles:");
    for (size_t i = 0; i < p->profiles; i++)
        text_putf(t, "%s %.100s %ld", i == 0 ? "" : ",", p->profile[i].name, (long)p->profile[i].n);
    text_putf(t, "\ntrace: %s\n", p->tracing ? "under way" : "off");
}

static void make_text(struct roster *r)
{
    struct page *p = (struct page *)r;
    struct text *t = &p->text;
    text_putf(t, "weft %s, process %d, up ", WEFT_VERSION, (int)getpid());
    put_time(t, p->up_ns);
    text_putf(t, ", %u processors, %lu descriptors\n", p->procs, (unsigned long)num(p, DESCRIPTORS));
    put_procs(p);
    put_fibers(p);
    put_threads(p);
    put_heap(p);
    put_memory(p);
    put_watching(p);
}

/* ---- the public side ------------------------------------------------------------------------------------------------- */

static struct page *page_new(int *err)
{
    struct m *m = rt_enter_try();
    *err = m == NULL ? -ESRCH : -ENOMEM;
    struct page *p = m != NULL ? roster_new(sizeof *p) : NULL;
    if (m != NULL)
        rt_leave(m);
    return p;
}

static void page_drop(struct page *p)
{
    struct m *m = rt_enter_try(); /* as in roster_drop */
    text_free(&p->text);
    if (m != NULL)
        rt_leave(m);
    roster_drop(&p->r);
}

static int take_sched(struct page *p)
{
    struct m *m = rt_enter_try();
    if (m == NULL)
        return -ESRCH;
    int64_t now = os_now_ns(), collected = gc_last_end_ns();
    p->up_ns = now - sched.start_ns;
    p->collected_ago_ns = collected != 0 ? now - collected : -1;
    take_procs(p);
    take_threads(p);
    rt_leave(m);
    return 0;
}

static int take_all(struct page *p)
{
    int err = take_numbers(p);
    if (err == 0)
        err = take_sched(p);
    if (err == 0)
        err = roster_open(&p->r, true, false);
    if (err != 0)
        return err;
    p->r.list_only = true;
    p->r.then = make_text;
    roster_take(&p->r);
    return p->r.err != 0 ? p->r.err : p->text.nomem || p->r.lost != 0 ? -ENOMEM : 0;
}

int weft_debug_dump(weft_writer *w, void *ctx)
{
    int saved = errno, err;
    if (w == NULL)
        return -EINVAL;
    struct page *p = page_new(&err);
    if (p == NULL)
        return err;
    err = take_all(p);
    if (err == 0)
        err = text_write(&p->text, w, ctx);
    page_drop(p);
    errno = saved;
    return err;
}
