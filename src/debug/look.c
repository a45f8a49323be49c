/* See look.h.
 *
 *   1. the caller    asks for metrics and the like, outside the runtime, then looks at machines, processors and the heap, inside
 *   2. a helper      lists the fibers (roster.h, without stacks), if they are wanted, and looks at what only it may: /proc, say. Until then the
 *                    runtime cannot end
 *   3. the helper    puts names to addresses, and makes the text
 *   4. the caller    hands it to the user's writer
 *
 * Everything of the scheduler's is read while its owner may be writing it, so it is for show, and no sanitizer may look. */
#include "debug/look.h"
#include <errno.h>
#include <string.h>
#include <weft/prof.h>
#include "base/fmt.h"
#include "prof/profile.h"
#include "sched/maxprocs.h"
#include "sched/runq.h"
#include "sched/world.h"
#include "trace/api.h"
#include "trace/flight.h"

#define READ(field) __atomic_load_n(&(field), __ATOMIC_RELAXED) /* rlx: for show */

/* ---- 1. outside the runtime, which each of these enters ----------------------------------------------------------- */

static int take_numbers(struct look *l)
{
    static const char *const name[] = {
#define X(id, text) text,
        LOOK_NUMBERS(X)
#undef X
    };
    for (unsigned i = 0; i < LOOK_NUMBER_COUNT; i++)
        l->number[i].name = name[i];
    return weft_metrics_read(l->number, LOOK_NUMBER_COUNT);
}

static void take_stops(struct look *l)
{
    for (int i = 0; i < WEFT_STOP_REASONS; i++) {
        weft_read_stop_stats(i, &l->stop[i]);
        timehist_sum(world_times(i, false), l->stopping[i]);
        timehist_sum(world_times(i, true), l->stopped[i]);
    }
}

static void take_watching(struct look *l)
{
    weft_profile *all[LOOK_PROFILES];
    l->profiles = w_min(weft_profiles(all, LOOK_PROFILES), (size_t)LOOK_PROFILES);
    for (size_t i = 0; i < l->profiles; i++)
        l->profile[i] = (struct look_profile){ weft_profile_name(all[i]), weft_profile_count(all[i]), weft_profile_remove(all[i], NULL) == 0 };
    l->heap_rate = weft_set_mem_profile_rate(-1);
    l->block_ns = block_profile_rate();
    l->mutex_fraction = weft_set_mutex_profile_fraction(-1);
    l->cpu_on = sampler_state("CPU profile", &l->cpu);
    l->wall_on = sampler_state("wall-clock profile", &l->wall);
    l->tracing = weft_trace_enabled();
    l->trace_writers = trace_writers();
    l->flight_on = flight_limits(&l->flight_age_ns, &l->flight_bytes);
    l->flight.size = sizeof l->flight;
    weft_flight_recorder_stats(&l->flight);
}

static void take_info(struct look *l)
{
    weft_metric m[2] = { { .name = "/weft/cpu/throttled/periods:periods" }, { .name = "/weft/cpu/throttled/time:cpu-seconds" } };
    if (weft_metrics_read(m, 2) == 0) {
        l->throttled = m[0].u64;
        l->throttled_s = m[1].f64;
    }
    l->follows = maxprocs_follows();
}

/* ---- 1. inside ---------------------------------------------------------------------------------------------------- */

static w_no_sanitize void take_fiber(const struct m *m, struct look_fiber *to)
{
    const struct fiber *f = m->blocking ? m->blocked : READ(m->cur);
    to->id = 0;
    if (f == NULL || f->flags & FIBER_THREAD)
        return;
    uint64_t id = READ(f->id); /* descriptors stay mapped */
    const char *name = READ(f->name);
    to->site = READ(f->site);
    to->system = READ(f->flags) & FIBER_SYSTEM;
    if (name == NULL || !roster_name(name, to->name))
        to->name[0] = 0;
    if (__atomic_load_n(&f->id, __ATOMIC_ACQUIRE) == id) /* acq: after what was read; else it is another's by now */
        to->id = id;
}

static w_no_sanitize void take_procs(struct look *l)
{
    uint32_t n = nprocs();
    l->global_queue = load_rlx(&sched.global_len); /* rlx: for show, and below */
    l->proc = roster_mem(&l->r, n * sizeof *l->proc);
    for (uint32_t i = 0; i < n; i++) {
        const struct p *from = sched.allp[i];
        const struct m *m = load_acq(&from->owner); /* acq: sees the machine; it stays while the runtime runs */
        timehist_sum(&from->latencies, l->latencies);
        if (l->proc == NULL)
            continue;
        struct look_proc *to = &l->proc[l->procs++];
        *to = (struct look_proc){
            .id = from->id, .queued = runq_len(from), .timers = READ(from->timers.len), .steps = load_rlx(&from->tick),
            .runs = load_rlx(&from->status) == P_RUNNING && m != NULL,
        };
        if (to->runs) {
            to->machine = m->id;
            take_fiber(m, &to->fiber);
        }
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

static w_no_sanitize void take_threads(struct look *l)
{
    l->thread = roster_mem(&l->r, LOOK_THREADS * sizeof *l->thread);
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next) { /* acq: sees the machine; rel in m_publish_locked */
        if (load_acq(&m->dead) != M_ALIVE) /* acq: likewise */
            continue;
        if (l->thread != NULL && l->threads < LOOK_THREADS) {
            struct look_thread *to = &l->thread[l->threads++];
            *to = (struct look_thread){ .id = m->id, .tid = m->tid, .does = what_does(m), .foreign = m->foreign, .locked = READ(m->locked) != NULL };
            take_fiber(m, &to->fiber);
        }
        l->threads_all++;
    }
}

static void take_heap(struct look *l)
{
    stats_count(&l->counts);
    l->cycles = stats_history(l->history);
    l->cpu_fraction = stats_cpu_fraction();
}

static int take_inside(struct look *l)
{
    struct m *m = rt_enter_try();
    if (m == NULL)
        return -ESRCH;
    int64_t collected = gc_last_end_ns();
    l->now_ns = os_now_ns();
    l->wall_ns = os_wall_ns();
    l->up_ns = l->now_ns - sched.start_ns;
    l->collected_ago_ns = collected != 0 ? l->now_ns - collected : -1;
    l->nprocs = nprocs();
    gc_scavenge_stats(&l->scavenged);
    if (l->wants & LOOK_SCHED) {
        take_procs(l);
        take_threads(l);
    }
    if (l->wants & LOOK_HEAP)
        take_heap(l);
    if (l->wants & LOOK_INFO && !maxprocs_quota(&l->quota))
        l->quota = 0;
    rt_leave(m);
    return 0;
}

/* ---- 2. and 3. on the helper -------------------------------------------------------------------------------------- */

#define GROUPS_MAX 4096u /* places and states that are told apart: of more, what is left over has no place */

static struct look_group *group_of(struct look *l, struct look_group *table, const void *site, const char *state)
{
    uint64_t h = ((uintptr_t)site ^ (uintptr_t)state << 7) * UINT64_C(0x9e3779b97f4a7c15);
    for (uint32_t i = (uint32_t)(h >> 52) % (2 * GROUPS_MAX);; i = (i + 1) % (2 * GROUPS_MAX)) {
        struct look_group *g = &table[i];
        if (g->state == NULL && l->groups >= GROUPS_MAX && site != NULL)
            return group_of(l, table, NULL, state); /* of which there are as many as states: room is left for them */
        if (g->state == NULL) {
            l->groups++;
            g->site = site;
            g->state = state;
        }
        if (g->site == site && g->state == state)
            return g;
    }
}

static bool group_before(const struct look_group *a, const struct look_group *b)
{
    return a->site != b->site ? (uintptr_t)a->site < (uintptr_t)b->site : (uintptr_t)a->state < (uintptr_t)b->state;
}

static bool more(const struct look_group *a, const struct look_group *b) { return a->n > b->n; }

/* By insertion, with gaps that shrink: there are few. */
static void sort(struct look_group *g, uint32_t n, bool (*before)(const struct look_group *a, const struct look_group *b))
{
    static const uint32_t gaps[] = { 701, 301, 132, 57, 23, 10, 4, 1 };
    for (unsigned s = 0; s < w_countof(gaps); s++)
        for (uint32_t i = gaps[s]; i < n; i++) {
            struct look_group x = g[i];
            uint32_t k = i;
            for (; k >= gaps[s] && before(&x, &g[k - gaps[s]]); k -= gaps[s])
                g[k] = g[k - gaps[s]];
            g[k] = x;
        }
}

void look_sort(struct look_group *g, uint32_t n) { sort(g, n, more); }

static void add_wait(struct look *l, struct rec *r)
{
    uint32_t i = l->waits;
    if (i == LOOK_WAITS) {
        if (l->wait[i - 1]->since_ns <= r->since_ns)
            return;
        i--;
    } else {
        l->waits++;
    }
    for (; i > 0 && l->wait[i - 1]->since_ns > r->since_ns; i--)
        l->wait[i] = l->wait[i - 1];
    l->wait[i] = r;
}

static void group_fibers(struct look *l)
{
    struct look_group *table = roster_mem(&l->r, 2 * GROUPS_MAX * sizeof *table);
    if (table == NULL)
        return;
    memset(table, 0, 2 * GROUPS_MAX * sizeof *table);
    for (size_t i = 0; i < l->r.n; i++) {
        struct rec *r = &l->r.rec[i];
        if (r->kind == KIND_THREAD)
            continue;
        l->fibers++;
        group_of(l, table, r->site, r->status)->n++;
        if (r->since_ns < 0)
            continue;
        l->waiting++;
        if (r->since_ns > 0) /* of others it is not known */
            add_wait(l, r);
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < 2 * GROUPS_MAX; i++)
        if (table[i].state != NULL)
            table[n++] = table[i];
    l->group = table;
    l->groups = n;
    sort(table, n, group_before);
    for (uint32_t i = 0; i < l->waits; i++)
        roster_more(&l->r, l->wait[i]);
}

static void listed(struct roster *r)
{
    struct look *l = (struct look *)r;
    if (l->wants & LOOK_FIBERS)
        group_fibers(l);
    if (l->look != NULL)
        l->look(l);
}

static void then(struct roster *r)
{
    struct look *l = (struct look *)r;
    if (r->err == 0 && r->lost == 0)
        l->make(l);
}

static struct look_group *merged(struct look *l, uint32_t *n, bool by_site)
{
    struct look_group *out = roster_mem(&l->r, w_max(l->groups, 1u) * sizeof *out);
    *n = 0;
    for (uint32_t i = 0; out != NULL && i < l->groups; i++) {
        const struct look_group *g = &l->group[i];
        uint32_t k = by_site && *n > 0 ? *n - 1 : 0; /* those of a place follow each other */
        while (k < *n && (by_site ? out[k].site != g->site : out[k].state != g->state))
            k++;
        if (k == *n)
            out[(*n)++] = (struct look_group){ g->site, g->state, 0 };
        out[k].n += g->n;
    }
    sort(out, *n, more);
    return out;
}

struct look_group *look_by_site(struct look *l, uint32_t *n) { return merged(l, n, true); }
struct look_group *look_by_state(struct look *l, uint32_t *n) { return merged(l, n, false); }

bool look_symbol(struct look *l, const void *site, struct symbol *out)
{
    if (site == NULL || l->r.maps == NULL || symbols_at(l->r.maps, (uintptr_t)site, l->scratch) == 0)
        return false;
    *out = l->scratch[0];
    return out->func != NULL;
}

const char *look_site(struct look *l, const void *site)
{
    char name[LOOK_SITE];
    struct symbol s;
    if (site == NULL)
        return "";
    for (uint32_t i = 0; i < l->nnames; i++)
        if (l->names[i].site == site)
            return l->names[i].name;
    if (!look_symbol(l, site, &s))
        w_fmt(name, sizeof name, "0x%lx", (unsigned long)(uintptr_t)site);
    else if (s.file != NULL && s.line != 0)
        w_fmt(name, sizeof name, "%.120s at %.180s:%u", s.func, s.file, s.line);
    else
        w_fmt(name, sizeof name, "%.300s", s.func);
    if (l->nnames == l->names_room) {
        uint32_t room = l->names_room == 0 ? 64 : 2 * l->names_room;
        struct look_name *more_names = roster_mem(&l->r, room * sizeof *more_names);
        if (more_names == NULL)
            return "";
        if (l->nnames != 0)
            memcpy(more_names, l->names, l->nnames * sizeof *more_names);
        l->names = more_names;
        l->names_room = room;
    }
    const char *kept = roster_text(&l->r, name, strlen(name));
    if (kept != NULL)
        l->names[l->nnames++] = (struct look_name){ site, (char *)kept };
    return kept != NULL ? kept : "";
}

/* ---- numbers ------------------------------------------------------------------------------------------------------ */

uint64_t look_sum(const uint64_t counts[TIMEHIST_BUCKETS])
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < TIMEHIST_BUCKETS; i++)
        sum += counts[i];
    return sum;
}

uint64_t look_quantile(const uint64_t counts[TIMEHIST_BUCKETS], double q, uint64_t most)
{
    uint64_t all = look_sum(counts), upto = 0;
    for (unsigned i = 0; all != 0 && i < TIMEHIST_BUCKETS; i++)
        if ((double)(upto += counts[i]) >= q * (double)all)
            return i + 1 < TIMEHIST_BUCKETS ? w_min(timehist_lower_ns(i + 1), most) : most;
    return 0;
}

/* ---- all of it ---------------------------------------------------------------------------------------------------- */

static struct look *look_new(int *err)
{
    struct m *m = rt_enter_try();
    *err = m == NULL ? -ESRCH : -ENOMEM;
    struct look *l = m != NULL ? roster_new(sizeof *l) : NULL;
    if (m != NULL)
        rt_leave(m);
    return l;
}

static void look_drop(struct look *l)
{
    struct m *m = rt_enter_try(); /* as in roster_drop */
    text_free(&l->text);
    if (m != NULL)
        rt_leave(m);
    roster_drop(&l->r);
}

static int take_all(struct look *l)
{
    int err = take_numbers(l);
    if (l->wants & LOOK_STOPS)
        take_stops(l);
    if (l->wants & LOOK_WATCHING)
        take_watching(l);
    if (l->wants & LOOK_INFO)
        take_info(l);
    if (err == 0)
        err = take_inside(l);
    if (err == 0)
        err = roster_open(&l->r, true, false);
    if (err != 0)
        return err;
    l->r.list_only = true;
    l->r.nobody = (l->wants & LOOK_FIBERS) == 0;
    l->r.listed = listed;
    l->r.then = then;
    roster_take(&l->r);
    return l->r.err != 0 ? l->r.err : l->text.nomem || l->r.lost != 0 ? -ENOMEM : 0;
}

int look_run(unsigned wants, void (*look)(struct look *l), void (*make)(struct look *l), void *arg, weft_writer *w, void *ctx)
{
    int saved = errno, err;
    if (w == NULL)
        return -EINVAL;
    struct look *l = look_new(&err);
    if (l == NULL)
        return err;
    l->wants = wants;
    l->look = look;
    l->make = make;
    l->arg = arg;
    err = take_all(l);
    if (err == 0)
        err = text_write(&l->text, w, ctx);
    look_drop(l);
    errno = saved;
    return err;
}
