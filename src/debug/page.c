/* weft_debug_dump: one page of where everything is now; and its parts, weft_debug_text. The numbers are look.h's. */
#include "debug/page.h"
#include <errno.h>
#include <unistd.h>
#include <weft/debug.h>
#include "os/dirty.h"
#include "sched/leaked.h"

#define SITES_SHOWN 12u
#define THREADS_SHOWN 32u

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

static void put_site(struct look *l, const void *site)
{
    struct symbol s;
    if (!look_symbol(l, site, &s)) {
        text_putf(&l->text, "0x%lx", (unsigned long)(uintptr_t)site);
        return;
    }
    text_puts(&l->text, s.func);
    if (s.file != NULL && s.line != 0)
        text_putf(&l->text, " (%.150s:%u)", s.file, s.line);
}

static void put_fiber(struct look *l, const struct look_fiber *f)
{
    text_putf(&l->text, "fiber %lu", (unsigned long)f->id);
    if (f->name[0] != 0)
        text_putf(&l->text, " %s", f->name);
    if (f->system) {
        text_puts(&l->text, ", of the runtime");
        return;
    }
    text_puts(&l->text, ", made by ");
    put_site(l, f->site);
}

static void put_procs(struct look *l)
{
    struct text *t = &l->text;
    text_puts(t, "processors\n");
    for (uint32_t i = 0; i < l->procs; i++) {
        const struct look_proc *c = &l->proc[i];
        text_putf(t, "  P%u  ", c->id);
        if (!c->runs) {
            text_puts(t, "idle");
        } else if (c->fiber.id == 0) {
            text_putf(t, "M%u, in the scheduler", c->machine);
        } else {
            text_putf(t, "M%u, ", c->machine);
            put_fiber(l, &c->fiber);
        }
        text_putf(t, "; queued %u, timers %u, steps %u\n", c->queued, c->timers, c->steps);
    }
}

static void put_fibers(struct look *l)
{
    struct text *t = &l->text;
    uint32_t sites, states;
    uint64_t shown = 0;
    struct look_group *site = look_by_site(l, &sites), *state = look_by_state(l, &states);
    if (site == NULL || state == NULL)
        return;
    text_putf(t, "fibers %lu; with the runtime's own %lu running, %lu runnable, %lu waiting, %lu blocking, made %lu; ", (unsigned long)l->fibers,
              (unsigned long)look_num(l, RUNNING), (unsigned long)look_num(l, RUNNABLE), (unsigned long)look_num(l, WAITING),
              (unsigned long)look_num(l, NOT_IN), (unsigned long)look_num(l, MADE));
    text_putf(t, "leaked %lu, when goroutineleak was last written\n  are ", (unsigned long)leaked_count());
    for (uint32_t i = 0; i < states; i++)
        text_putf(t, "%s%lu %s", i == 0 ? "" : ", ", (unsigned long)state[i].n, state[i].state);
    text_puts(t, "\n  made by\n");
    for (uint32_t i = 0; i < w_min(sites, SITES_SHOWN); i++) {
        text_putf(t, "  %7lu  ", (unsigned long)site[i].n);
        put_site(l, site[i].site);
        text_puts(t, "\n");
        shown += site[i].n;
    }
    if (shown < l->fibers)
        text_putf(t, "  %7lu  others\n", (unsigned long)(l->fibers - shown));
}

#define WAITS_SHOWN 12u

static void put_waits(struct look *l)
{
    struct text *t = &l->text;
    text_puts(t, "  have waited longest\n");
    for (uint32_t i = 0; i < w_min(l->waits, WAITS_SHOWN); i++) {
        const struct rec *r = l->wait[i];
        text_putf(t, "  fiber %lu %s%s%s for ", (unsigned long)r->id, r->name != NULL ? r->name : "", r->name != NULL ? " " : "", r->status);
        put_time(t, w_max(l->now_ns - r->since_ns, (int64_t)0));
        text_puts(t, ", made by ");
        put_site(l, r->site);
        text_puts(t, "\n");
    }
}

static void put_threads(struct look *l)
{
    struct text *t = &l->text;
    uint32_t shown = w_min(l->threads, THREADS_SHOWN);
    text_putf(t, "threads %lu: made %lu, hand-offs of processors %lu\n", (unsigned long)look_num(l, THREADS),
              (unsigned long)look_num(l, THREADS_MADE), (unsigned long)look_num(l, HANDOFFS));
    for (uint32_t i = 0; i < shown; i++) {
        const struct look_thread *h = &l->thread[i];
        text_putf(t, "  M%u  thread %d %s%s", h->id, h->tid, h->does, h->locked ? ", locked to a fiber" : "");
        if (h->fiber.id != 0) {
            text_puts(t, ": ");
            put_fiber(l, &h->fiber);
        }
        text_puts(t, "\n");
    }
    if (shown < l->threads_all)
        text_putf(t, "  %u others\n", l->threads_all - shown);
}

static void put_heap(struct look *l)
{
    struct text *t = &l->text;
    put_bytes(t, "heap", look_num(l, MEM_OBJECTS));
    text_putf(t, " in %lu objects;", (unsigned long)look_num(l, OBJECTS));
    put_bytes(t, " live after the last collection", look_num(l, LIVE));
    put_bytes(t, ", goal", look_num(l, GOAL));
    text_putf(t, " (%ld %%),", (long)look_num(l, PERCENT));
    put_bytes(t, " limit", look_num(l, LIMIT));
    text_putf(t, "\n  collections %lu, %lu of them forced", (unsigned long)look_num(l, CYCLES), (unsigned long)look_num(l, FORCED));
    if (l->collected_ago_ns >= 0) {
        text_puts(t, "; the last ended ");
        put_time(t, l->collected_ago_ns);
        text_puts(t, " ago");
    }
    text_putf(t, "; finalizers run %lu of %lu, cleanups %lu of %lu\n", (unsigned long)look_num(l, FINALIZED), (unsigned long)look_num(l, FINALIZERS),
              (unsigned long)look_num(l, CLEANED), (unsigned long)look_num(l, CLEANUPS));
}

#define CYCLES_SHOWN 16u

static void put_cycles(struct look *l)
{
    struct text *t = &l->text;
    unsigned shown = w_min(l->cycles, CYCLES_SHOWN);
    text_puts(t, "  the last collections: ended, world stopped for, heap before, alive, next goal\n");
    for (unsigned i = l->cycles - shown; i < l->cycles; i++) {
        const struct heap_cycle *c = &l->history[i];
        text_putf(t, "  %7lu  ", (unsigned long)c->number);
        put_time(t, w_max(l->wall_ns - (int64_t)c->end_wall_ns, (int64_t)0));
        text_puts(t, " ago, ");
        put_time(t, (int64_t)c->pause_ns);
        put_bytes(t, ",", c->before_bytes);
        put_bytes(t, ",", c->marked_bytes);
        put_bytes(t, ",", c->goal_bytes);
        text_puts(t, c->forced ? ", forced\n" : "\n");
    }
}

static void put_stops(struct look *l)
{
    struct text *t = &l->text;
    text_puts(t, "stops of the world\n");
    for (int i = 0; i < WEFT_STOP_REASONS; i++) {
        const weft_stop_stats *s = &l->stop[i];
        if (s->count == 0)
            continue;
        text_putf(t, "  %7lu  %s: ", (unsigned long)s->count, s->reason);
        put_time(t, (int64_t)(s->stopped_total_ns / s->count));
        text_puts(t, " on average, at most ");
        put_time(t, (int64_t)s->stopped_max_ns);
        text_puts(t, "\n");
    }
}

static void put_stop_times(struct look *l)
{
    struct text *t = &l->text;
    text_puts(t, "  until all stood still: median, 99 %, most; until all ran again: the same\n");
    for (int i = 0; i < WEFT_STOP_REASONS; i++) {
        const weft_stop_stats *s = &l->stop[i];
        if (s->count == 0)
            continue;
        const uint64_t times[] = {
            look_quantile(l->stopping[i], 0.5, s->stopping_max_ns), look_quantile(l->stopping[i], 0.99, s->stopping_max_ns), s->stopping_max_ns,
            look_quantile(l->stopped[i], 0.5, s->stopped_max_ns), look_quantile(l->stopped[i], 0.99, s->stopped_max_ns), s->stopped_max_ns,
        };
        text_putf(t, "  %s: ", s->reason);
        for (unsigned k = 0; k < w_countof(times); k++) {
            text_puts(t, k == 0 ? "" : k == 3 ? "; " : ", ");
            put_time(t, (int64_t)times[k]);
        }
        text_puts(t, "\n");
    }
}

static void put_memory(struct look *l)
{
    struct text *t = &l->text;
    put_bytes(t, "memory", look_num(l, MEM_TOTAL));
    put_bytes(t, "\n  heap: objects", look_num(l, MEM_OBJECTS));
    put_bytes(t, ", between them", look_num(l, MEM_UNUSED));
    put_bytes(t, ", free", look_num(l, MEM_FREE));
    put_bytes(t, ", given back (not in the sum of what is resident)", look_num(l, MEM_RELEASED));
    put_bytes(t, "\n  stacks: of fibers", look_num(l, MEM_STACKS));
    put_bytes(t, ", of threads", look_num(l, MEM_THREADS));
    put_bytes(t, "\n  the runtime: collector", look_num(l, MEM_GC));
    put_bytes(t, ", profiles", look_num(l, MEM_PROF));
    put_bytes(t, ", traces", look_num(l, MEM_TRACE));
    put_bytes(t, ", the rest", look_num(l, MEM_OTHER));
    text_puts(t, "\n");
}

static void put_running(struct text *t, const char *what, const struct sampler_state *s)
{
    text_putf(t, "%s: under way for ", what);
    put_time(t, s->age_ns);
    put_bytes(t, ",", s->live.bytes);
    text_puts(t, " written\n");
}

static void put_watching(struct look *l)
{
    struct text *t = &l->text;
    text_puts(t, "profiles:");
    for (size_t i = 0; i < l->profiles; i++)
        text_putf(t, "%s %.100s %ld", i == 0 ? "" : ",", l->profile[i].name, (long)l->profile[i].count);
    text_puts(t, "\n");
    if (l->cpu_on)
        put_running(t, "CPU profile", &l->cpu);
    if (l->wall_on)
        put_running(t, "wall-clock profile", &l->wall);
    if (l->flight_on) {
        text_putf(t, "flight recorder: keeps %lu generations", (unsigned long)l->flight.generations);
        put_bytes(t, ",", l->flight.bytes);
        text_puts(t, "\n");
    }
    text_putf(t, "trace: %s\n", l->tracing ? "under way" : "off");
}

static void put_head(struct look *l)
{
    struct text *t = &l->text;
    text_putf(t, "weft %s, process %d, up ", WEFT_VERSION, (int)getpid());
    put_time(t, l->up_ns);
    text_putf(t, ", %u processors, %lu descriptors\n", l->nprocs, (unsigned long)look_num(l, DESCRIPTORS));
}

static void make_page(struct look *l)
{
    void (*const put[])(struct look *l) = { put_procs, put_fibers, put_threads, put_heap, put_stops, put_memory, put_watching };
    put_head(l);
    for (unsigned i = 0; i < w_countof(put); i++) {
        text_puts(&l->text, "\n");
        put[i](l);
    }
}

int weft_debug_dump(weft_writer *w, void *ctx)
{
    return look_run(LOOK_SCHED | LOOK_FIBERS | LOOK_STOPS | LOOK_WATCHING, NULL, make_page, NULL, w, ctx);
}

/* ---- by part ------------------------------------------------------------------------------------------------------- */

static void make_info(struct look *l)
{
    struct text *t = &l->text;
    struct config_item item;
    put_head(l);
    if (l->quota != 0)
        text_putf(t, "quota of the control group: %lu %% of a CPU; stood still in %lu periods\n", (unsigned long)(l->quota * 100),
                  (unsigned long)l->throttled);
    text_putf(t, "the number of processors %s\n", l->follows ? "follows quota and affinity" : "stays");
    text_putf(t, "collections %s%s%s\n", dirty_backend() != DIRTY_NONE ? "mark beside the program" : "stop the world to mark",
              dirty_why()[0] != 0 ? ": " : "", dirty_why());
    text_puts(t, "settings:\n");
    for (unsigned i = 0; config_item(&sched.cfg, i, &item); i++)
        if (!item.debug || !item.is_default)
            text_putf(t, "  %s%s = %s\n", item.debug ? "WEFT_DEBUG " : "", item.name, item.value);
}

static void make_procs(struct look *l) { put_procs(l), text_puts(&l->text, "\n"), put_threads(l); }
static void make_fibers(struct look *l) { put_fibers(l), put_waits(l); }
static void make_heap(struct look *l) { put_heap(l), put_cycles(l); }
static void make_stops(struct look *l) { put_stops(l), put_stop_times(l); }

const struct page_part page_parts[] = {
    { "info", LOOK_INFO, make_info },
    { "procs", LOOK_SCHED, make_procs },
    { "fibers", LOOK_FIBERS, make_fibers },
    { "heap", LOOK_HEAP, make_heap },
    { "stops", LOOK_STOPS, make_stops },
    { "profiles", LOOK_WATCHING, put_watching },
    { NULL, 0, NULL },
};
