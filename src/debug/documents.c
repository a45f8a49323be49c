/* weft_debug_json: what there is now as JSON, for the live page, scripts and tests.
 *
 * One object per document. For all of them: at_ms is when it was made, milliseconds since 1970. Units are in the names (_bytes, _ns, _ms, _s);
 * without one it is a count. An integer beyond 2^53-1 is a string of digits. "There is none" (no limit, the collector off, never) is null. Addresses
 * are strings. A place is "function at file.c:12", "0x..." if nothing is known of it, "" if there is none. Lists that may be long are cut, the most
 * or longest first, and say so: shown, of all. Fields may be added; none changes its meaning. By example:
 *
 *   info      {"at_ms":1764172800123,"version":"0.1.0","program":"kv","pid":4711,"up_ms":86400123,"procs":2,"cpus":4,"quota_cpus":1.5,"procs_follow":true,
 *              "throttled_periods":12,"throttled_s":0.25,"fibers":1034,"threads":7,"descriptors":1025,
 *              "written_pages":"written pages are told by the kernel (userfaultfd)",
 *              "config":[{"name":"gc_percent","value":"100","variable":"WEFT_GC","default":true},{"name":"gctrace","value":"0","debug":true,...}]}
 *   procs     {"at_ms":...,"procs":[{"id":0,"state":"running","machine":3,"fiber":{"id":17,"name":"client","site":"accept_loop at /s/server.c:88"},
 *              "queued":4,"timers":2,"steps":90211}],"queue":{"global":0,"all":4},
 *              "fibers":{"all":1034,"running":1,"runnable":4,"waiting":1028,"blocking":1},"hand_offs":12,
 *              "wait_for_processor":{"count":10233,"p50_ns":1024,"p99_ns":114688,"max_ns":2097152},
 *              "threads":{"all":7,"shown":7,"made":9,"ended":2,"list":[{"id":3,"tid":4714,"does":"runs","fiber":{...},"hosts":false,"locked":false}]}}
 *             state: running, scheduling (a thread looks for work), idle. machine, fiber: null. max_ns: the end of the highest bucket. fibers: those of
 *             the runtime's own, too, which "fibers" leaves out
 *   fibers    {"at_ms":...,"all":1034,"made":5120,"leaked":0,"states":[{"state":"IO wait","n":1024}],
 *              "sites":{"all":3,"shown":3,"list":[{"site":"accept_loop at /s/server.c:88","n":1024,"states":[{"state":"IO wait","n":1022},...]}]},
 *              "waits":{"all":1029,"shown":200,"list":[{"id":9,"name":"janitor","state":"sleep","wait_ns":93000000000,"site":"...","parent":1,
 *              "leaked":false}]}}
 *             leaked: as the last look for leaks found
 *   heap      {"at_ms":...,"live_bytes":73400320,"objects":120034,"marked_bytes":52428800,"goal_bytes":104857600,"percent":100,"limit_bytes":null,
 *              "allocated_bytes":9007199181340673,"allocated_objects":99120034,"freed_bytes":...,"freed_objects":...,"retained_bytes":120000000,
 *              "released_bytes":5000000,"cycles":412,"forced":3,"last_ms_ago":812,"cpu_fraction":0.013,"finalizers":{"queued":10,"run":10},
 *              "cleanups":{"queued":0,"run":0},"sizes":[{"size":16,"live":1203,"allocated":99123},{"size":0,...}],
 *              "history":[{"cycle":411,"end_ms":1764172799311,"pause_ns":1830000,"forced":false,"before_bytes":104857600,"marked_bytes":52428800,
 *              "goal_bytes":104857600}]}
 *             live: objects that live or are not yet swept. marked: alive as of the last cycle. percent null: off. sizes: size 0 are large objects.
 *             history: the last 256 cycles, oldest first; goal_bytes: from then on
 *   stops     {"at_ms":...,"reasons":[{"reason":"GC","count":412,"stopping":{"p50_ns":14336,"p99_ns":229376,"max_ns":401200,
 *              "total_ns":9000000},"stopped":{...},"histogram":[{"from_ns":1048576,"to_ns":1310720,"stopping":0,"stopped":40}]}]}
 *             Reasons that happened. stopping: from deciding to stop until all stood still; stopped: until all ran again. A quantile is the end of its
 *             bucket, at most max. histogram: buckets that are not empty; the last one's to_ns may be null
 *   memory    in memory.c
 *   profiles  {"at_ms":...,"profiles":[{"name":"allocs","count":120,"own":false}],"rates":{"heap_bytes":524288,"block_ns":0,"mutex_fraction":0},
 *              "cpu":{"age_ms":1200,"bytes":40211,"max_bytes":67108864,"max_ms":3600000},"wall":null,"trace":{"writers":1},
 *              "flight":{"bytes":4011000,"most_bytes":8000000,"limit_bytes":10485760,"age_ms":10000,"generations":5,"lost":0,"snapshots":2,"failed":0,
 *              "triggers":0}}
 *             cpu, wall, trace, flight: null if none is under way. own: of the program. count -1: not known. age_ms of flight: how far back it keeps
 *   doctor    weft_doctor_report
 *
 * To add a document: a line in the table at the end, and its shape here. */
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <weft/debug.h>
#include "debug/json.h"
#include "debug/memory.h"
#include "debug/page.h"
#include "os/dirty.h"
#include "sched/leaked.h"

#define SITES_SHOWN 100u

static uint64_t ms(int64_t ns) { return (uint64_t)(w_max(ns, (int64_t)0) / 1000000); }

static void begin(struct json *j, struct look *l)
{
    *j = (struct json){ .t = &l->text };
    json_open(j, NULL, '{');
    json_u64(j, "at_ms", ms(l->wall_ns));
}

static void end(struct json *j)
{
    json_close(j, '}');
    text_puts(j->t, "\n");
}

/* ---- info ---------------------------------------------------------------------------------------------------------- */

static void put_config(struct json *j)
{
    struct config_item item;
    json_open(j, "config", '[');
    for (unsigned i = 0; config_item(&sched.cfg, i, &item); i++) {
        json_open(j, NULL, '{');
        json_str(j, "name", item.name);
        json_str(j, "value", item.value);
        if (item.env != NULL)
            json_str(j, "variable", item.env);
        if (item.debug)
            json_bool(j, "debug", true);
        json_bool(j, "default", item.is_default);
        json_close(j, '}');
    }
    json_close(j, ']');
}

static void make_info(struct look *l)
{
    struct json j;
    begin(&j, l);
    json_str(&j, "version", WEFT_VERSION);
    json_str(&j, "program", program_invocation_short_name);
    json_u64(&j, "pid", (uint64_t)getpid());
    json_u64(&j, "up_ms", ms(l->up_ns));
    json_u64(&j, "procs", l->nprocs);
    json_u64(&j, "cpus", sched.ncpu);
    if (l->quota != 0)
        json_f64(&j, "quota_cpus", l->quota);
    else
        json_null(&j, "quota_cpus");
    json_bool(&j, "procs_follow", l->follows);
    json_u64(&j, "throttled_periods", l->throttled);
    json_f64(&j, "throttled_s", l->throttled_s);
    json_u64(&j, "fibers", look_num(l, FIBERS));
    json_u64(&j, "threads", look_num(l, THREADS));
    json_u64(&j, "descriptors", look_num(l, DESCRIPTORS));
    json_str(&j, "written_pages", dirty_why());
    put_config(&j);
    end(&j);
}

/* ---- procs --------------------------------------------------------------------------------------------------------- */

static void put_fiber(struct json *j, struct look *l, const struct look_fiber *f)
{
    if (f->id == 0) {
        json_null(j, "fiber");
        return;
    }
    json_open(j, "fiber", '{');
    json_u64(j, "id", f->id);
    json_str(j, "name", f->name);
    json_str(j, "site", f->system ? "" : look_site(l, f->site));
    json_close(j, '}');
}

static uint64_t put_procs(struct json *j, struct look *l)
{
    uint64_t queued = l->global_queue;
    json_open(j, "procs", '[');
    for (uint32_t i = 0; i < l->procs; i++) {
        const struct look_proc *p = &l->proc[i];
        json_open(j, NULL, '{');
        json_u64(j, "id", p->id);
        json_str(j, "state", !p->runs ? "idle" : p->fiber.id != 0 ? "running" : "scheduling");
        if (p->runs)
            json_u64(j, "machine", p->machine);
        else
            json_null(j, "machine");
        put_fiber(j, l, &p->fiber);
        json_u64(j, "queued", p->queued);
        json_u64(j, "timers", p->timers);
        json_u64(j, "steps", p->steps);
        json_close(j, '}');
        queued += p->queued;
    }
    json_close(j, ']');
    return queued;
}

static void put_threads(struct json *j, struct look *l)
{
    json_open(j, "threads", '{');
    json_u64(j, "all", l->threads_all);
    json_u64(j, "shown", l->threads);
    json_u64(j, "made", look_num(l, THREADS_MADE));
    json_u64(j, "ended", look_num(l, THREADS_ENDED));
    json_open(j, "list", '[');
    for (uint32_t i = 0; i < l->threads; i++) {
        const struct look_thread *h = &l->thread[i];
        json_open(j, NULL, '{');
        json_u64(j, "id", h->id);
        json_i64(j, "tid", h->tid);
        json_str(j, "does", h->does);
        put_fiber(j, l, &h->fiber);
        json_bool(j, "hosts", h->foreign);
        json_bool(j, "locked", h->locked);
        json_close(j, '}');
    }
    json_close(j, ']');
    json_close(j, '}');
}

static void make_procs(struct look *l)
{
    struct json j;
    begin(&j, l);
    uint64_t queued = put_procs(&j, l);
    json_open(&j, "queue", '{');
    json_u64(&j, "global", l->global_queue);
    json_u64(&j, "all", queued);
    json_close(&j, '}');
    json_open(&j, "fibers", '{');
    json_u64(&j, "all", look_num(l, FIBERS));
    json_u64(&j, "running", look_num(l, RUNNING));
    json_u64(&j, "runnable", look_num(l, RUNNABLE));
    json_u64(&j, "waiting", look_num(l, WAITING));
    json_u64(&j, "blocking", look_num(l, NOT_IN));
    json_close(&j, '}');
    json_u64(&j, "hand_offs", look_num(l, HANDOFFS));
    json_open(&j, "wait_for_processor", '{');
    json_u64(&j, "count", look_sum(l->latencies));
    json_u64(&j, "p50_ns", look_quantile(l->latencies, 0.5, UINT64_C(1) << 47));
    json_u64(&j, "p99_ns", look_quantile(l->latencies, 0.99, UINT64_C(1) << 47));
    json_u64(&j, "max_ns", look_quantile(l->latencies, 1, UINT64_C(1) << 47));
    json_close(&j, '}');
    put_threads(&j, l);
    end(&j);
}

/* ---- fibers -------------------------------------------------------------------------------------------------------- */

static void put_states(struct json *j, const struct look_group *g, uint32_t n)
{
    json_open(j, "states", '[');
    for (uint32_t i = 0; i < n; i++) {
        json_open(j, NULL, '{');
        json_str(j, "state", g[i].state);
        json_u64(j, "n", g[i].n);
        json_close(j, '}');
    }
    json_close(j, ']');
}

static void put_site(struct json *j, struct look *l, const struct look_group *site)
{
    uint32_t from = 0, to;
    while (from < l->groups && l->group[from].site != site->site)
        from++;
    for (to = from; to < l->groups && l->group[to].site == site->site;)
        to++;
    look_sort(l->group + from, to - from);
    json_open(j, NULL, '{');
    json_str(j, "site", look_site(l, site->site));
    json_u64(j, "n", site->n);
    put_states(j, l->group + from, to - from);
    json_close(j, '}');
}

static void put_wait(struct json *j, struct look *l, const struct rec *r)
{
    json_open(j, NULL, '{');
    json_u64(j, "id", r->id);
    json_str(j, "name", r->name != NULL ? r->name : "");
    json_str(j, "state", r->status);
    json_u64(j, "wait_ns", (uint64_t)w_max(l->now_ns - r->since_ns, (int64_t)0));
    json_str(j, "site", look_site(l, r->site));
    json_u64(j, "parent", r->parent);
    json_bool(j, "leaked", r->leaked);
    json_close(j, '}');
}

static void make_fibers(struct look *l)
{
    struct json j;
    uint32_t sites, states;
    struct look_group *site = look_by_site(l, &sites), *state = look_by_state(l, &states);
    begin(&j, l);
    json_u64(&j, "all", l->fibers);
    json_u64(&j, "made", look_num(l, MADE));
    json_u64(&j, "leaked", leaked_count());
    put_states(&j, state, states);
    json_open(&j, "sites", '{');
    json_u64(&j, "all", sites);
    json_u64(&j, "shown", w_min(sites, SITES_SHOWN));
    json_open(&j, "list", '[');
    for (uint32_t i = 0; i < w_min(sites, SITES_SHOWN); i++)
        put_site(&j, l, &site[i]);
    json_close(&j, ']');
    json_close(&j, '}');
    json_open(&j, "waits", '{');
    json_u64(&j, "all", l->waiting);
    json_u64(&j, "shown", l->waits);
    json_open(&j, "list", '[');
    for (uint32_t i = 0; i < l->waits; i++)
        put_wait(&j, l, l->wait[i]);
    json_close(&j, ']');
    json_close(&j, '}');
    end(&j);
}

/* ---- heap ---------------------------------------------------------------------------------------------------------- */

static void put_sizes(struct json *j, const struct heap_counts *n)
{
    json_open(j, "sizes", '[');
    for (unsigned i = 1; i <= GC_CLASSES; i++) {
        unsigned c = i % GC_CLASSES; /* large ones, class 0, last */
        if (n->mallocs[c] == n->frees[c])
            continue;
        json_open(j, NULL, '{');
        json_u64(j, "size", gc_class_size[c]);
        json_u64(j, "live", n->mallocs[c] - n->frees[c]);
        json_u64(j, "allocated", n->mallocs[c]);
        json_close(j, '}');
    }
    json_close(j, ']');
}

static void put_history(struct json *j, const struct look *l)
{
    json_open(j, "history", '[');
    for (unsigned i = 0; i < l->cycles; i++) {
        const struct heap_cycle *c = &l->history[i];
        json_open(j, NULL, '{');
        json_u64(j, "cycle", c->number);
        json_u64(j, "end_ms", c->end_wall_ns / 1000000);
        json_u64(j, "pause_ns", c->pause_ns);
        json_bool(j, "forced", c->forced);
        json_u64(j, "before_bytes", c->before_bytes);
        json_u64(j, "marked_bytes", c->marked_bytes);
        json_limit(j, "goal_bytes", c->goal_bytes);
        json_close(j, '}');
    }
    json_close(j, ']');
}

static void put_calls(struct json *j, const char *key, uint64_t queued, uint64_t run)
{
    json_open(j, key, '{');
    json_u64(j, "queued", queued);
    json_u64(j, "run", run);
    json_close(j, '}');
}

static void make_heap(struct look *l)
{
    struct json j;
    begin(&j, l);
    json_u64(&j, "live_bytes", look_num(l, MEM_OBJECTS));
    json_u64(&j, "objects", look_num(l, OBJECTS));
    json_u64(&j, "marked_bytes", look_num(l, LIVE));
    json_limit(&j, "goal_bytes", look_num(l, GOAL));
    json_limit(&j, "percent", look_num(l, PERCENT));
    json_limit(&j, "limit_bytes", look_num(l, LIMIT));
    json_u64(&j, "allocated_bytes", look_num(l, ALLOC_BYTES));
    json_u64(&j, "allocated_objects", look_num(l, ALLOC_OBJECTS));
    json_u64(&j, "freed_bytes", look_num(l, FREE_BYTES));
    json_u64(&j, "freed_objects", look_num(l, FREE_OBJECTS));
    json_u64(&j, "retained_bytes", l->scavenged.retained_bytes);
    json_u64(&j, "released_bytes", look_num(l, MEM_RELEASED));
    json_u64(&j, "cycles", look_num(l, CYCLES));
    json_u64(&j, "forced", look_num(l, FORCED));
    json_limit(&j, "last_ms_ago", l->collected_ago_ns >= 0 ? ms(l->collected_ago_ns) : UINT64_MAX);
    json_f64(&j, "cpu_fraction", l->cpu_fraction);
    put_calls(&j, "finalizers", look_num(l, FINALIZERS), look_num(l, FINALIZED));
    put_calls(&j, "cleanups", look_num(l, CLEANUPS), look_num(l, CLEANED));
    put_sizes(&j, &l->counts);
    put_history(&j, l);
    end(&j);
}

/* ---- stops --------------------------------------------------------------------------------------------------------- */

static void put_times(struct json *j, const char *key, const uint64_t *counts, uint64_t total_ns, uint64_t max_ns)
{
    json_open(j, key, '{');
    json_u64(j, "p50_ns", look_quantile(counts, 0.5, max_ns));
    json_u64(j, "p99_ns", look_quantile(counts, 0.99, max_ns));
    json_u64(j, "max_ns", max_ns);
    json_u64(j, "total_ns", total_ns);
    json_close(j, '}');
}

static void put_histogram(struct json *j, const uint64_t *stopping, const uint64_t *stopped)
{
    json_open(j, "histogram", '[');
    for (unsigned i = 1; i < TIMEHIST_BUCKETS; i++) { /* none takes less than no time */
        if (stopping[i] == 0 && stopped[i] == 0)
            continue;
        json_open(j, NULL, '{');
        json_u64(j, "from_ns", timehist_lower_ns(i));
        json_limit(j, "to_ns", i + 1 < TIMEHIST_BUCKETS ? timehist_lower_ns(i + 1) : UINT64_MAX);
        json_u64(j, "stopping", stopping[i]);
        json_u64(j, "stopped", stopped[i]);
        json_close(j, '}');
    }
    json_close(j, ']');
}

static void make_stops(struct look *l)
{
    struct json j;
    begin(&j, l);
    json_open(&j, "reasons", '[');
    for (int i = 0; i < WEFT_STOP_REASONS; i++) {
        const weft_stop_stats *s = &l->stop[i];
        if (s->count == 0)
            continue;
        json_open(&j, NULL, '{');
        json_str(&j, "reason", s->reason);
        json_u64(&j, "count", s->count);
        put_times(&j, "stopping", l->stopping[i], s->stopping_total_ns, s->stopping_max_ns);
        put_times(&j, "stopped", l->stopped[i], s->stopped_total_ns, s->stopped_max_ns);
        put_histogram(&j, l->stopping[i], l->stopped[i]);
        json_close(&j, '}');
    }
    json_close(&j, ']');
    end(&j);
}

/* ---- profiles ------------------------------------------------------------------------------------------------------ */

static void put_sampler(struct json *j, const char *key, bool on, const struct sampler_state *s)
{
    if (!on) {
        json_null(j, key);
        return;
    }
    json_open(j, key, '{');
    json_u64(j, "age_ms", ms(s->age_ns));
    json_u64(j, "bytes", s->live.bytes);
    json_limit(j, "max_bytes", s->live.max_bytes != 0 ? s->live.max_bytes : UINT64_MAX);
    json_limit(j, "max_ms", s->live.max_ns != 0 ? ms(s->live.max_ns) : UINT64_MAX);
    json_close(j, '}');
}

static void put_flight(struct json *j, const struct look *l)
{
    const weft_flight_stats *f = &l->flight;
    uint64_t triggers = 0;
    for (unsigned i = 0; i < w_countof(f->triggers); i++)
        triggers += f->triggers[i];
    json_open(j, "flight", '{');
    json_u64(j, "bytes", f->bytes);
    json_u64(j, "most_bytes", f->most_bytes);
    json_u64(j, "limit_bytes", l->flight_bytes);
    json_u64(j, "age_ms", ms(l->flight_age_ns));
    json_u64(j, "generations", f->generations);
    json_u64(j, "lost", f->lost);
    json_u64(j, "snapshots", f->snapshots);
    json_u64(j, "failed", f->failed);
    json_u64(j, "triggers", triggers);
    json_close(j, '}');
}

static void make_profiles(struct look *l)
{
    struct json j;
    begin(&j, l);
    json_open(&j, "profiles", '[');
    for (size_t i = 0; i < l->profiles; i++) {
        json_open(&j, NULL, '{');
        json_str(&j, "name", l->profile[i].name);
        json_i64(&j, "count", w_max(l->profile[i].count, (int64_t)-1));
        json_bool(&j, "own", l->profile[i].own);
        json_close(&j, '}');
    }
    json_close(&j, ']');
    json_open(&j, "rates", '{');
    json_i64(&j, "heap_bytes", l->heap_rate);
    json_i64(&j, "block_ns", l->block_ns);
    json_i64(&j, "mutex_fraction", l->mutex_fraction);
    json_close(&j, '}');
    put_sampler(&j, "cpu", l->cpu_on, &l->cpu);
    put_sampler(&j, "wall", l->wall_on, &l->wall);
    if (l->tracing) {
        json_open(&j, "trace", '{');
        json_u64(&j, "writers", l->trace_writers);
        json_close(&j, '}');
    } else {
        json_null(&j, "trace");
    }
    if (l->flight_on)
        put_flight(&j, l);
    else
        json_null(&j, "flight");
    end(&j);
}

/* ---- the table ----------------------------------------------------------------------------------------------------- */

static const struct document {
    const char *what;
    unsigned wants;
    void (*look)(struct look *l);
    void (*make)(struct look *l);
} documents[] = {
    { "info", LOOK_INFO, NULL, make_info },
    { "procs", LOOK_SCHED, NULL, make_procs },
    { "fibers", LOOK_FIBERS, NULL, make_fibers },
    { "heap", LOOK_HEAP, NULL, make_heap },
    { "stops", LOOK_STOPS, NULL, make_stops },
    { "memory", 0, memory_look, memory_json },
    { "profiles", LOOK_WATCHING, NULL, make_profiles },
};

#define DOCTOR "doctor" /* makes its own */

int weft_debug_json(const char *what, weft_writer *w, void *ctx)
{
    struct memory mem;
    if (what == NULL || w == NULL)
        return -EINVAL;
    for (unsigned i = 0; i < w_countof(documents); i++)
        if (strcmp(what, documents[i].what) == 0)
            return look_run(documents[i].wants, documents[i].look, documents[i].make, &mem, w, ctx);
    return strcmp(what, DOCTOR) == 0 ? weft_doctor_report(w, ctx, WEFT_FORM_JSON) : -ENOENT;
}

int weft_debug_text(const char *what, weft_writer *w, void *ctx)
{
    if (what == NULL || w == NULL)
        return -EINVAL;
    for (const struct page_part *p = page_parts; p->what != NULL; p++)
        if (strcmp(what, p->what) == 0)
            return look_run(p->wants, NULL, p->make, NULL, w, ctx);
    if (strcmp(what, DOCTOR) == 0)
        return weft_doctor_report(w, ctx, WEFT_FORM_TEXT);
    return strcmp(what, "memory") == 0 ? weft_memory_explain(w, ctx) : -ENOENT;
}

int weft_config_report(weft_writer *w, void *ctx) { return weft_debug_text("info", w, ctx); }

const char *weft_debug_what(unsigned i)
{
    return i < w_countof(documents) ? documents[i].what : i == w_countof(documents) ? DOCTOR : NULL;
}
