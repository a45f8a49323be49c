/* See scavenge.h.
 *
 * What the heap does not use any more it keeps for a while: to take a page again costs a fault, of a huge page the clearing of 2 MiB. How much it
 * keeps is set by each mark:
 *
 *     as many bytes of pages as were in use then, by as much more or less as the goal has moved, and a tenth (pace_retain);
 *     with a memory limit: what leaves the whole runtime 95 % of it
 *
 * [SCAVENGE] Three go below that:
 *
 *     in the background   a fiber of the host calls gc_scavenge_some as long as more is kept, and sleeps in between so long that it uses
 *                         1 % of the processors, if all that it releases is taken again. It is woken when a sweep ends, since only then it is known what is free
 *     an allocation       that makes the whole exceed the limit releases that much before it returns; one for which the heap had to grow
 *                         releases as much, if more is kept than the goal: free pages were there, but not in one piece
 *     on request          gc_release_free: all
 *
 * Which pages: free huge pages first, from the end of the heap; then free pages among used ones, whose huge page is thereby broken for good, but
 * none in chunks that were more than 96.875 % used at some time in this cycle or the last (pages.c): these fill up again. The limit and the request
 * take those, too.
 *
 * With the heap done, the host gives back of its own: stacks that nobody needed for a whole cycle, in processors' caches too (sched/stack.c), and
 * off-heap memory. */
#include "gc/scavenge.h"
#include <string.h>
#include "base/fmt.h"
#include "gc/pacer.h"
#include "gc/pages.h"
#include "gc/stats.h"
#include "os/clock.h"

#define WORK_NS 1000000 /* between two sleeps */
#define AGAIN_BYTES_PER_NS 10 /* to take a page again: fault and clearing, a tenth of a nanosecond per byte; several times what its release costs */

static struct {
    w_u64 retain;       /* of the heap's pages; PACE_NEVER: all. Written in stops */
    w_u32 host_pending; /* 1: since the last sweep the host has not been asked, or had something */
    int64_t worked_ns;  /* since the last sleep, with what it costs to take the pages again; gc_scavenge_some's one caller's */
    /* counters, rlx */
    w_u64 background_bytes, eager_bytes, background_ns, assist_ns;
    uint64_t told_background, told_eager; /* as of the last line of scavtrace; by who ends a sweep */
} sc;

void scavenge_start(void)
{
    memset(&sc, 0, sizeof sc);
    store_rlx(&sc.retain, PACE_NEVER); /* rlx: nobody else yet */
}

void scavenge_pace_stw(void)
{
    if (heap.poison)
        return; /* what is written into freed memory would go with it, unseen */
    store_rlx(&sc.retain, pace_retain(pacer.last.in_use_bytes, load_rlx(&pacer.goal), pacer.last_goal)); /* rlx: in a stop */
}

/* By how much the whole exceeds limit; 0 also without one. */
static uint64_t excess_over(uint64_t limit)
{
    uint64_t have = pages_retained_bytes() + stats_overhead_bytes();
    return have > limit ? have - limit : 0;
}

enum want { WANT_NOTHING, WANT_GOAL, WANT_LIMIT };

static enum want wanted(void)
{
    int64_t limit = load_rlx(&pacer.limit); /* rlx: a setting */
    if (limit != INT64_MAX && excess_over(pace_limit_retain((uint64_t)limit)) != 0)
        return WANT_LIMIT;
    return pages_retained_bytes() > load_rlx(&sc.retain) ? WANT_GOAL : WANT_NOTHING; /* rlx: a goal */
}

void scavenge_wake(void)
{
    if (heap.host.scavenge_ready != NULL && (load_rlx(&sc.host_pending) != 0 || wanted() != WANT_NOTHING)) /* rlx: a hint */
        heap.host.scavenge_ready();
}

/* ---- scavtrace -------------------------------------------------------------------------------------------------- */

static void trace(uint64_t background, uint64_t eager, const char *why)
{
    char line[160];
    struct pages_stats pg;
    pages_stats(&pg);
    uint64_t retained = pg.sys_bytes - pg.released_bytes;
    w_fmt(line, sizeof line, "scav %llu KiB work (bg), %llu KiB work (eager), %llu KiB now, %u%% util%s", (unsigned long long)(background >> 10),
          (unsigned long long)(eager >> 10), (unsigned long long)(pg.released_bytes >> 10),
          (unsigned)(retained != 0 ? (pg.sys_bytes - pg.free_bytes) * 100 / retained : 0), why);
    heap.host.log(line);
}

static void trace_cycle(void)
{
    uint64_t background = load_rlx(&sc.background_bytes), eager = load_rlx(&sc.eager_bytes); /* rlx: counters */
    trace(background - sc.told_background, eager - sc.told_eager, "");
    sc.told_background = background;
    sc.told_eager = eager;
}

/* ---- the three ---------------------------------------------------------------------------------------------------- */

void scavenge_swept(void)
{
    pages_generation();
    if (heap.host.release_wanted != NULL && heap.host.release_wanted())
        store_rel(&sc.host_pending, 1); /* rel: what there is to be given back; acq in release_some */
    if (heap.scavtrace)
        trace_cycle();
    scavenge_wake();
}

static size_t release_some(void)
{
    enum want want = wanted();
    size_t bytes = want != WANT_NOTHING ? pages_release_some(want == WANT_LIMIT) : 0;
    add_rlx(&sc.background_bytes, bytes); /* rlx: a counter */
    if (bytes == 0 && load_rlx(&sc.host_pending) != 0 && xchg_acq(&sc.host_pending, 0) != 0) { /* rlx: a hint; acq: rel there */
        bytes = heap.host.release_some(); /* meanwhile a sweep may end */
        if (bytes != 0)
            store_rlx(&sc.host_pending, 1); /* rlx: ours to look at */
    }
    return bytes;
}

int64_t gc_scavenge_some(void)
{
    int64_t begin = os_self_cpu_ns(); /* not while others had the processor: on a busy machine it would never be through */
    size_t bytes = release_some();
    int64_t took = os_self_cpu_ns() - begin, before = sc.worked_ns, worked = before + took + (int64_t)(bytes / AGAIN_BYTES_PER_NS);
    add_rlx(&sc.background_ns, (uint64_t)took); /* rlx: a counter */
    if (bytes != 0 && worked < WORK_NS) {
        sc.worked_ns = worked;
        return 0;
    }
    sc.worked_ns = 0;
    /* Before it waits to be woken it sleeps for what it has done since the last time. */
    return bytes == 0 && before == 0 ? -1 : pace_scavenge_sleep_ns(w_max(worked, (int64_t)WORK_NS), heap.host.procs());
}

/* Releases on behalf of an allocation. */
static void release_now(size_t bytes, bool force)
{
    int64_t begin = os_now_ns();
    add_rlx(&sc.eager_bytes, pages_release(bytes, force)); /* rlx: counters */
    int64_t took = os_now_ns() - begin;
    add_rlx(&sc.assist_ns, (uint64_t)took);
    add_rlx(&pacer.assist_ns, took);
}

void scavenge_allocated(size_t grown)
{
    if (pacer_limited()) {
        uint64_t overhead = stats_overhead_bytes(), retained = pages_retained_bytes(), limit = (uint64_t)load_rlx(&pacer.limit); /* rlx: a setting */
        if (overhead + retained > limit && !pacer_capped()) {
            release_now(overhead + retained - limit, true);
            retained = pages_retained_bytes();
        }
        pacer_revise(overhead, retained);
    }
    uint64_t goal = load_rlx(&sc.retain); /* rlx: a goal */
    if (unlikely(grown != 0) && goal != PACE_NEVER) {
        uint64_t retained = pages_retained_bytes();
        if (retained > goal)
            release_now(w_min((uint64_t)grown, retained - goal), false);
    }
}

void scavenge_to_limit(void)
{
    int64_t limit = load_rlx(&pacer.limit); /* rlx: a setting */
    uint64_t excess = limit != INT64_MAX ? excess_over((uint64_t)limit) : 0;
    if (excess != 0)
        release_now(excess, true);
}

void gc_release_free(void)
{
    uint64_t bytes = pages_release(SIZE_MAX, true);
    pages_release_tables();
    if (heap.scavtrace)
        trace(0, bytes, " (forced)");
}

/* By what it took so far, and what taking the pages again will take, in one percent of the time. */
static uint64_t background_speed(uint64_t bytes, uint64_t ns)
{
    double ns_per_byte = 1.0 / AGAIN_BYTES_PER_NS + (bytes != 0 ? (double)ns / (double)bytes : 0);
    return (uint64_t)(1e9 / 100 * (double)heap.host.procs() / ns_per_byte);
}

void gc_scavenge_stats(struct gc_scavenge_stats *out)
{
    out->background_bytes = load_rlx(&sc.background_bytes); /* rlx: counters, here and below */
    out->eager_bytes = load_rlx(&sc.eager_bytes);
    out->background_ns = load_rlx(&sc.background_ns);
    out->assist_ns = load_rlx(&sc.assist_ns);
    out->retained_bytes = pages_retained_bytes();
    out->keep_bytes = load_rlx(&sc.retain);
    int64_t limit = load_rlx(&pacer.limit);
    uint64_t excess = limit != INT64_MAX ? excess_over(pace_limit_retain((uint64_t)limit)) : 0;
    out->by_limit = excess != 0 && out->retained_bytes - w_min(out->retained_bytes, excess) < out->keep_bytes;
    if (out->by_limit)
        out->keep_bytes = out->retained_bytes - w_min(out->retained_bytes, excess);
    out->bytes_per_s = background_speed(out->background_bytes, out->background_ns);
}
