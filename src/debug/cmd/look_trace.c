/* What a trace shows. One pass over its events, with a record for each fiber and thread; what can only be judged at the end is kept by place. */
#include "debug/cmd/rules.h"
#include <inttypes.h>
#include <string.h>
#include "debug/cmd/trace.h"

#define UNKNOWN INT64_MIN

struct fiber {
    uint64_t seq, gen;
    int64_t runnable;       /* since when; UNKNOWN: it is not, or nobody knows */
    uint32_t made;          /* stack of who made it */
    uint32_t root;          /* a stack with the function it began with */
};
struct thread {
    uint64_t m;
    uint32_t fiber;         /* that runs there, number + 1 */
    int64_t last;           /* event */
    bool ended;             /* since its last fiber has ended it has run none */
    uint32_t made;          /* who made that one */
};
struct times { int64_t *ns; size_t n, room; };
/* By stack. */
struct place { uint32_t stack; uint64_t count; int64_t sum, max; struct times at; };
struct places { struct place *place; size_t n, room; struct map by; };
struct log { char *line; uint32_t stack; };

struct look {
    struct trace *t;
    struct report *r;
    int64_t now, end;
    uint64_t events, gaps, gaps_missing;
    struct fiber *fiber;
    struct thread *thread;
    size_t nfibers, fibers_room, nthreads, threads_room;
    struct map fibers, threads;
    /* one stop and one collection at a time */
    int64_t stop, cycle;
    struct trace_text stop_kind;
    uint32_t stop_stack;
    uint32_t cycle_stack;
    bool cycle_forced;
    uint64_t heap, goal;
    bool heap_known;
    uint64_t cycles;
    struct times forced, cycle_took; /* in parallel: when, how long */
    struct places forced_by, read_by, waits, threads_gone;
    int64_t stopped, longest;
    uint64_t stops, long_stops;
    struct trace_text longest_kind;
    uint32_t longest_stack;
    struct log *log;
    size_t nlogs, logs_room;
};

/* ---- places ---------------------------------------------------------------------------------------------------- */

static struct place *place_of(struct places *p, uint32_t stack)
{
    uint32_t at = map_get(&p->by, stack);
    if (at == MAP_NONE) {
        at = (uint32_t)p->n;
        map_put(&p->by, stack, at);
        MUST_ROOM(p->place, p->n, p->room);
        p->place[p->n++] = (struct place){ .stack = stack };
    }
    return &p->place[at];
}

static void times_add(struct times *t, int64_t ns)
{
    MUST_ROOM(t->ns, t->n, t->room);
    t->ns[t->n++] = ns;
}

static void place_add(struct places *p, uint32_t stack, int64_t at, int64_t ns)
{
    struct place *x = place_of(p, stack);
    x->count++;
    x->sum += ns;
    x->max = ns > x->max ? ns : x->max;
    times_add(&x->at, at);
}

static void places_free(struct places *p)
{
    for (size_t i = 0; i < p->n; i++)
        free(p->place[i].at.ns);
    free(p->place);
    map_free(&p->by);
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The most of t, which it sorts, within a window; *first: where they begin. */
static size_t densest(struct times *t, int64_t window, size_t *first)
{
    size_t best = 0;
    *first = 0;
    if (t->n > 1)
        qsort(t->ns, t->n, sizeof *t->ns, compare);
    for (size_t from = 0, to = 0; to < t->n; to++) {
        while (t->ns[to] - t->ns[from] > window)
            from++;
        if (to + 1 - from > best) {
            best = to + 1 - from;
            *first = from;
        }
    }
    return best;
}

static void add(struct look *l, enum rule rule, uint32_t stack, const char *what)
{
    struct text t = { 0 };
    trace_stack_show(l->t, stack, &t);
    report_add(l->r, rule, t.at, "%s", what);
    text_free(&t);
}

/* ---- fibers and threads -------------------------------------------------------------------------------------------- */

static struct fiber *fiber_of(struct look *l, uint64_t id)
{
    uint32_t at = map_get(&l->fibers, id);
    if (at == MAP_NONE) {
        at = (uint32_t)l->nfibers;
        map_put(&l->fibers, id, at);
        MUST_ROOM(l->fiber, l->nfibers, l->fibers_room);
        l->fiber[l->nfibers++] = (struct fiber){ .runnable = UNKNOWN };
    }
    return &l->fiber[at];
}

static struct thread *thread_of(struct look *l, uint64_t m)
{
    uint32_t at = map_get(&l->threads, m);
    if (at == MAP_NONE) {
        at = (uint32_t)l->nthreads;
        map_put(&l->threads, m, at);
        MUST_ROOM(l->thread, l->nthreads, l->threads_room);
        l->thread[l->nthreads++] = (struct thread){ .m = m };
    }
    return &l->thread[at];
}

static struct fiber *running(struct look *l, const struct thread *t) { return t->fiber == 0 ? NULL : &l->fiber[t->fiber - 1]; }

/* False: something newer of f has been seen. */
static bool in_order(struct look *l, struct fiber *f, uint64_t seq)
{
    uint64_t gen = trace_number(l->t);
    if (f->gen == gen && seq < f->seq)
        return false;
    f->gen = gen;
    f->seq = seq;
    return true;
}

static void becomes_runnable(struct look *l, struct fiber *f)
{
    if (f != NULL)
        f->runnable = l->now;
}

static void runs(struct look *l, struct thread *t, struct fiber *f)
{
    if (f->runnable != UNKNOWN && l->now - f->runnable >= R_W15_NS)
        place_add(&l->waits, f->root != 0 ? f->root : f->made, l->now, l->now - f->runnable);
    f->runnable = UNKNOWN;
    t->fiber = (uint32_t)(f - l->fiber) + 1;
    t->ended = false;
}

static void leaves(struct look *l, struct thread *t, bool runnable, bool ends)
{
    struct fiber *f = running(l, t);
    if (f != NULL && runnable)
        becomes_runnable(l, f);
    t->ended = ends;
    t->made = ends && f != NULL ? f->made : 0;
    t->fiber = 0;
}

static void made(struct look *l, const struct trace_record *e, bool runnable)
{
    struct fiber *f = fiber_of(l, e->args[0]);
    f->root = trace_stack_of(l->t, e->args[1]);
    f->made = trace_stack_of(l->t, e->args[2]);
    f->runnable = runnable ? l->now : UNKNOWN;
}

static void status(struct look *l, const struct trace_record *e)
{
    struct fiber *f = fiber_of(l, e->args[0]);
    if (e->type == TRACE_GO_STATUS_STACK && f->root == 0)
        f->root = trace_stack_of(l->t, e->args[3]);
    if ((e->args[2] == TRACE_GO_RUNNING || e->args[2] == TRACE_GO_SYSCALL) && e->args[1] != TRACE_NONE) {
        size_t at = (size_t)(f - l->fiber);
        thread_of(l, e->args[1])->fiber = (uint32_t)at + 1;
    }
}

/* ---- stops and collections ------------------------------------------------------------------------------------------- */

/* Of what a thread does for the fiber that it runs: where weft gives no stack, because it is on another one by then, the function that the fiber began
 * with. */
static uint32_t stack_here(struct look *l, struct thread *t, uint64_t id)
{
    uint32_t stack = trace_stack_of(l->t, id);
    struct fiber *f = running(l, t);
    return stack == 0 && f != NULL ? f->root : stack;
}

static void cycle_begins(struct look *l, uint32_t stack)
{
    bool asked = trace_stack_has(l->t, stack, "runtime.GC") || trace_stack_has(l->t, stack, "runtime/debug.FreeOSMemory") ||
        trace_stack_has(l->t, stack, "weft_gc") || trace_stack_has(l->t, stack, "weft_free_os_memory");
    l->cycle = l->now;
    l->cycle_stack = stack;
    l->cycle_forced = asked || (l->heap_known && l->goal != 0 && (double)l->heap < R_W04_HEAP * (double)l->goal);
    l->cycles++;
}

static void cycle_ends(struct look *l)
{
    if (l->cycle != UNKNOWN && l->cycle_forced) {
        times_add(&l->forced, l->cycle);
        times_add(&l->cycle_took, l->now - l->cycle);
        place_add(&l->forced_by, l->cycle_stack, l->cycle, l->now - l->cycle);
    }
    l->cycle = UNKNOWN;
}

static void stop_ends(struct look *l)
{
    if (l->stop == UNKNOWN)
        return;
    int64_t ns = l->now - l->stop;
    l->stop = UNKNOWN;
    l->stops++;
    l->long_stops += ns >= R_W16_NS;
    l->stopped += ns;
    if (trace_text_is(l->stop_kind, "read mem stats"))
        place_add(&l->read_by, l->stop_stack, l->now, ns);
    if (ns > l->longest) {
        l->longest = ns;
        l->longest_kind = l->stop_kind;
        l->longest_stack = l->stop_stack;
    }
}

/* ---- logs of the doctor's, and of the trace's own ------------------------------------------------------------------------ */

static uint64_t number_in(struct trace_text s)
{
    uint64_t v = 0;
    for (size_t i = 0; i < s.n && s.at[i] >= '0' && s.at[i] <= '9' && v < UINT64_MAX / 20; i++)
        v = 10 * v + (uint64_t)(s.at[i] - '0');
    return v;
}

/* "W04 title (12)": of one place the last one is kept, which has the highest number. */
static void doctor_said(struct look *l, struct trace_text s, uint32_t stack)
{
    size_t title = s.n;
    while (title > 0 && s.at[title - 1] != '(')
        title--;
    title = title == 0 ? s.n : title;
    for (size_t i = 0; i < l->nlogs; i++)
        if (l->log[i].stack == stack && strncmp(l->log[i].line, s.at, title) == 0) {
            free(l->log[i].line);
            l->log[i].line = must_dup(s.at, s.n);
            return;
        }
    if (l->nlogs == 1000) /* places; the library's doctor keeps fewer */
        return;
    MUST_ROOM(l->log, l->nlogs, l->logs_room);
    l->log[l->nlogs++] = (struct log){ must_dup(s.at, s.n), stack };
}

static void logged(struct look *l, const struct trace_record *e)
{
    struct trace_text key = trace_text(l->t, e->args[1]), value = trace_text(l->t, e->args[2]);
    if (trace_text_is(key, "weft.doctor")) {
        doctor_said(l, value, trace_stack_of(l->t, e->args[3]));
    } else if (trace_text_is(key, "weft") && value.n > 20 && memmem(value.at, value.n, "are missing here", 16) != NULL) {
        l->gaps++;
        l->gaps_missing += number_in(value);
    }
}

/* ---- events ---------------------------------------------------------------------------------------------------------------- */

static void event(struct look *l, const struct trace_event *ev)
{
    const struct trace_record *e = &ev->rec;
    struct thread *t = thread_of(l, ev->m);
    struct fiber *f;
    t->last = l->now;
    switch ((unsigned)e->type) {
    case TRACE_GO_CREATE: made(l, e, true); break;
    case TRACE_GO_CREATE_BLOCKED: made(l, e, false); break;
    case TRACE_GO_CREATE_SYSCALL: (void)fiber_of(l, e->args[0]); break;
    case TRACE_GO_STATUS: case TRACE_GO_STATUS_STACK: status(l, e); break;
    case TRACE_GO_START:
        f = fiber_of(l, e->args[0]);
        if (in_order(l, f, e->args[1]))
            runs(l, t, f);
        break;
    case TRACE_GO_DESTROY: case TRACE_GO_DESTROY_SYSCALL: leaves(l, t, false, true); break;
    case TRACE_GO_STOP: leaves(l, t, true, false); break;
    case TRACE_GO_BLOCK: leaves(l, t, false, false); break;
    case TRACE_GO_UNBLOCK:
        f = fiber_of(l, e->args[0]);
        if (in_order(l, f, e->args[1]))
            becomes_runnable(l, f);
        break;
    case TRACE_GO_SYSCALL_END_BLOCKED: leaves(l, t, true, false); break;
    case TRACE_GO_SWITCH: case TRACE_GO_SWITCH_DESTROY:
        leaves(l, t, false, false);
        f = fiber_of(l, e->args[0]);
        f->runnable = UNKNOWN;
        if (in_order(l, f, e->args[1]))
            runs(l, t, f);
        break;
    case TRACE_STW_BEGIN:
        l->stop = l->now;
        l->stop_kind = trace_text(l->t, e->args[0]);
        l->stop_stack = stack_here(l, t, e->args[1]);
        break;
    case TRACE_STW_END: stop_ends(l); break;
    case TRACE_GC_BEGIN: cycle_begins(l, stack_here(l, t, e->args[1])); break;
    case TRACE_GC_END: cycle_ends(l); break;
    case TRACE_HEAP_ALLOC:
        l->heap = e->args[0];
        l->heap_known = true;
        break;
    case TRACE_HEAP_GOAL: l->goal = e->args[0]; break;
    case TRACE_USER_LOG: logged(l, e); break;
    default: break;
    }
}

/* ---- what is made of it ------------------------------------------------------------------------------------------------------ */

static double ms(int64_t ns) { return (double)ns / 1e6; }

static void judge_threads(struct look *l)
{
    for (size_t i = 0; i < l->nthreads; i++) {
        struct thread *t = &l->thread[i];
        if (t->ended && t->m != TRACE_NONE)
            place_add(&l->threads_gone, t->made, t->last, 0);
    }
    for (size_t i = 0; i < l->threads_gone.n; i++) {
        struct place *p = &l->threads_gone.place[i];
        size_t first, n = densest(&p->at, R_W03_WINDOW_NS, &first);
        if (n < R_W03_THREADS)
            continue;
        char what[200];
        snprintf(what, sizeof what, "%" PRIu64 " threads came to their end with a fiber that was made here, %zu of them within %.1f s; %zu threads in all",
                 p->count, n, (double)(p->at.ns[first + n - 1] - p->at.ns[first]) / 1e9, l->nthreads);
        add(l, RULE_W03, p->stack, what);
    }
}

static void judge_cycles(struct look *l)
{
    size_t first, best = 0;
    for (size_t i = 0; i < l->forced_by.n; i++)
        best = l->forced_by.place[i].count > l->forced_by.place[best].count ? i : best;
    size_t n = densest(&l->forced, R_W04_WINDOW_NS, &first); /* it is sorted already: one cycle at a time */
    int64_t took = 0, window = l->end < R_W04_WINDOW_NS ? l->end : R_W04_WINDOW_NS;
    for (size_t i = first; i < first + n; i++)
        took += l->cycle_took.ns[i];
    if (n < R_W04_CYCLES || (double)took < R_W04_SHARE * (double)window)
        return;
    char what[200];
    snprintf(what, sizeof what, "%zu of %" PRIu64 " collections were forced, not due by the heap's growth: %zu within %.2f s, which took %.0f %% of that time",
             l->forced.n, l->cycles, n, (double)window / 1e9, 100 * (double)took / (double)window);
    add(l, RULE_W04, l->forced_by.place[best].stack, what);
}

static void judge_reads(struct look *l)
{
    for (size_t i = 0; i < l->read_by.n; i++) {
        struct place *p = &l->read_by.place[i];
        size_t first, n = densest(&p->at, R_W06_WINDOW_NS, &first);
        if (n < R_W06_READS)
            continue;
        char what[200];
        snprintf(what, sizeof what, "the world was stopped %" PRIu64 " times to read memory statistics, %zu times within %.2f s; for %.1f ms in all, "
                 "at most %.2f ms", p->count, n, (double)(p->at.ns[first + n - 1] - p->at.ns[first]) / 1e9, ms(p->sum), ms(p->max));
        add(l, RULE_W06, p->stack, what);
    }
}

static void judge_waits(struct look *l)
{
    uint64_t count = 0;
    size_t worst = 0;
    for (size_t i = 0; i < l->waits.n; i++) {
        count += l->waits.place[i].count;
        worst = l->waits.place[i].max > l->waits.place[worst].max ? i : worst;
    }
    if (l->waits.n == 0 || (count < R_W15_TIMES && l->waits.place[worst].max < R_W15_ALONE_NS))
        return;
    char what[200];
    snprintf(what, sizeof what, "%" PRIu64 " times a fiber could run and waited for a processor for more than %.0f ms, at most %.0f ms; that one began "
             "here", count, ms(R_W15_NS), ms(l->waits.place[worst].max));
    add(l, RULE_W15, l->waits.place[worst].stack, what);
}

static void judge_stops(struct look *l)
{
    char what[240];
    int kind = (int)(l->longest_kind.n < 60 ? l->longest_kind.n : 60);
    if (l->long_stops >= R_W16_TIMES || l->longest >= R_W16_ALONE_NS) {
        snprintf(what, sizeof what, "the world was stopped for more than %.0f ms %" PRIu64 " times, %.0f ms at most (%.*s); there were %" PRIu64 " stops",
                 ms(R_W16_NS), l->long_stops, ms(l->longest), kind, l->longest_kind.at, l->stops);
        add(l, RULE_W16, l->longest_stack, what);
    } else if (!report_has(l->r, RULE_W04) && !report_has(l->r, RULE_W06) && l->stops >= R_W16_SHARE_TIMES &&
               (double)l->stopped >= R_W16_SHARE * (double)l->end) {
        snprintf(what, sizeof what, "the world stood still for %.0f %% of the time: %" PRIu64 " stops in %.2f s, the longest %.1f ms (%.*s)",
                 100 * (double)l->stopped / (double)l->end, l->stops, (double)l->end / 1e9, ms(l->longest), kind, l->longest_kind.at);
        add(l, RULE_W16, l->longest_stack, what);
    }
}

/* What the trace shows by itself, with numbers, is not said twice. */
static void judge_logs(struct look *l)
{
    for (size_t i = 0; i < l->nlogs; i++) {
        const char *s = l->log[i].line;
        char code[4] = "WXX";
        if (s[0] == 'W' && s[1] >= '0' && s[1] <= '9' && s[2] >= '0' && s[2] <= '9' && s[3] == ' ') {
            memcpy(code, s, 3);
            s += 4;
        }
        enum rule rule = report_rule(code);
        if (rule != RULE_WXX && report_has(l->r, rule))
            continue;
        add(l, RULE_WXX, l->log[i].stack, s);
        report_as(l->r, code);
    }
}

static void judge_whole(struct look *l)
{
    if (l->gaps > 0)
        report_add(l->r, RULE_T01, "", "%" PRIu64 " generations are missing in %" PRIu64 " places: what happened then is not known", l->gaps_missing, l->gaps);
    if (trace_cut_bytes(l->t) > 0)
        report_add(l->r, RULE_T01, "", "%zu bytes at the end belong to no complete generation: the trace was not stopped, or its file was cut",
                   trace_cut_bytes(l->t));
    if (trace_bad_batches(l->t) > 0)
        report_add(l->r, RULE_T01, "", "%" PRIu64 " batches hold what is no event: the file is damaged", trace_bad_batches(l->t));
}

void look_trace(struct report *r, const uint8_t *data, size_t n)
{
    const char *why;
    struct look l = { .t = trace_open(data, n, &why), .r = r, .stop = UNKNOWN, .cycle = UNKNOWN };
    if (l.t == NULL) {
        report_error(r, "%s", why);
        return;
    }
    for (struct trace_event ev; trace_next(l.t, &ev); l.events++) {
        l.now = ev.ns;
        l.end = ev.ns > l.end ? ev.ns : l.end;
        event(&l, &ev);
    }
    if (trace_generations(l.t) == 0) {
        report_error(r, "a trace without a complete generation: it was not stopped, or is cut");
    } else {
        report_kind(r, "trace (Go 1.%d), %.2f s, %" PRIu64 " generations, %" PRIu64 " events, %zu threads, %zu fibers", trace_version(l.t), (double)l.end / 1e9,
                    trace_generations(l.t), l.events, l.nthreads, l.nfibers);
        judge_threads(&l);
        judge_cycles(&l);
        judge_reads(&l);
        judge_waits(&l);
        judge_stops(&l);
        judge_logs(&l);
        judge_whole(&l);
    }
    struct places *all[] = { &l.forced_by, &l.read_by, &l.waits, &l.threads_gone };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        places_free(all[i]);
    for (size_t i = 0; i < l.nlogs; i++)
        free(l.log[i].line);
    void *rest[] = { l.log, l.fiber, l.thread, l.forced.ns, l.cycle_took.ns };
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++)
        free(rest[i]);
    map_free(&l.fibers);
    map_free(&l.threads);
    trace_close(l.t);
}
