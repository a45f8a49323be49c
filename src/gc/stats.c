/* See stats.h. */
#include "gc/stats.h"
#include <string.h>
#include "gc/cache.h"
#include "gc/central.h"
#include "gc/pacer.h"
#include "gc/pages.h"
#include "gc/type.h"
#include "os/clock.h"

static struct {
    int64_t start_ns;
    /* under the gc lock; read in stops */
    uint32_t cycles, forced;
    uint64_t pause_total_ns, pause_ns[256], pause_end[256];
    uint64_t last_wall_ns;
    w_i64 cpu_ns;
} stats;

void stats_start(void)
{
    memset(&stats, 0, sizeof stats);
    stats.start_ns = os_now_ns();
}

void stats_cycle(bool forced, int64_t pause_ns, int64_t end_wall_ns, int64_t cpu_ns)
{
    unsigned slot = stats.cycles++ % 256;
    stats.forced += forced;
    stats.pause_total_ns += (uint64_t)pause_ns;
    stats.pause_ns[slot] = (uint64_t)pause_ns;
    stats.pause_end[slot] = stats.last_wall_ns = (uint64_t)end_wall_ns;
    store_rlx(&stats.cpu_ns, load_rlx(&stats.cpu_ns) + cpu_ns); /* rlx: one writer, under the gc lock */
}

double stats_cpu_fraction(void)
{
    int64_t ran = (os_now_ns() - stats.start_ns) * (int64_t)heap.host.procs();
    double f = ran > 0 ? (double)load_rlx(&stats.cpu_ns) / (double)ran : 0; /* rlx: a figure */
    return w_min(f, 1.0);
}

/* Objects and bytes by the counters; exact when caches are flushed. */
static void count(weft_mem_stats *out)
{
    uint64_t freed = load_rlx(&heap.large_free_bytes); /* rlx: counters, here and below */
    out->total_alloc = load_rlx(&heap.large_malloc_bytes);
    for (unsigned c = 0; c < GC_CLASSES; c++) {
        uint64_t m = load_rlx(&heap.gone[c].mallocs), f = load_rlx(&heap.frees[c]);
        for (struct gc_cache_priv *pv = heap.caches; pv != NULL; pv = pv->next)
            m += load_rlx(&pv->mallocs[c]);
        if (c == 0) {
            m = load_rlx(&heap.large_mallocs);
            f = load_rlx(&heap.large_frees);
        }
        out->by_size[c].size = gc_class_size[c];
        out->by_size[c].mallocs = m;
        out->by_size[c].frees = f;
        out->mallocs += m;
        out->frees += f;
        out->total_alloc += m * gc_class_size[c];
        freed += f * gc_class_size[c];
    }
    out->heap_objects = out->mallocs - out->frees;
    out->alloc = out->heap_alloc = out->total_alloc - freed;
}

/* Of caches: the struct that lies in the host's own memory, and *off, what is OFF_GC's. */
static uint64_t cache_bytes(uint64_t *off)
{
    uint64_t hosts = 0;
    *off = 0;
    for (struct gc_cache_priv *pv = heap.caches; pv != NULL; pv = pv->next) {
        hosts += sizeof *pv->cache;
        *off += sizeof *pv + pv->cache->nshapes * sizeof *pv->cache->shapes;
        for (uint32_t i = SHAPE_TYPED; i < pv->cache->nshapes; i++)
            *off += pv->cache->shapes[i] != NULL ? sizeof **pv->cache->shapes : 0;
    }
    return hosts + *off;
}

static struct off_stats offheap(enum off_purpose why)
{
    struct off_stats s;
    off_stats(why, &s);
    return s;
}

void gc_fill_stats(weft_mem_stats *out)
{
    size_t size = out->size;
    uint64_t caches_off;
    struct pages_stats pg;
    memset(out, 0, sizeof *out);
    out->size = size;
    caches_flush_stw();
    count(out);
    pages_stats(&pg);
    out->heap_sys = pg.sys_bytes;
    out->heap_idle = pg.free_bytes;
    out->heap_inuse = pg.sys_bytes - pg.free_bytes;
    out->heap_released = pg.released_bytes;
    out->mspan_inuse = load_rlx(&heap.nspans) * sizeof(struct span);
    out->mspan_sys = pg.spans_sys_bytes;
    out->mcache_inuse = out->mcache_sys = cache_bytes(&caches_off);
    out->gc_sys = pg.tables_sys_bytes + offheap(OFF_GC).mapped_bytes - caches_off + offheap(OFF_SPECIAL).mapped_bytes;
    out->next_gc = load_rlx(&pacer.goal);
    out->last_gc = stats.last_wall_ns;
    out->pause_total_ns = stats.pause_total_ns;
    memcpy(out->pause_ns, stats.pause_ns, sizeof out->pause_ns);
    memcpy(out->pause_end, stats.pause_end, sizeof out->pause_end);
    out->num_gc = stats.cycles;
    out->num_forced_gc = stats.forced;
    out->gc_cpu_fraction = stats_cpu_fraction();
    out->enable_gc = true;
    out->sys = out->heap_sys + out->mspan_sys + out->mcache_sys + out->gc_sys;
}

uint64_t stats_overhead_bytes(void)
{
    struct pages_stats pg;
    pages_stats(&pg);
    uint64_t n = pg.spans_sys_bytes + pg.tables_sys_bytes;
    for (int i = 0; i < OFF_PURPOSES; i++)
        n += offheap((enum off_purpose)i).in_use_bytes; /* not mapped_bytes: of a block that was freed only the address space stays */
    return n + (heap.host.stack_bytes != NULL ? heap.host.stack_bytes() : 0);
}
