/* See stats.h. */
#include "gc/stats.h"
#include <string.h>
#include "base/backoff.h"
#include "gc/cache.h"
#include "os/clock.h"

static struct {
    int64_t start_ns;
    /* by who is busy with a cycle; read in stops */
    uint64_t pause_total_ns;
    uint64_t last_wall_ns;
    w_i64 cpu_ns;
    struct lock lock; /* RANK_LEAF: what is read without a stop */
    struct heap_cycles now;
    struct heap_cycle history[STATS_CYCLES]; /* a ring; last, as most of it is not touched until there were many */
} stats = { .lock = LOCK_INIT(RANK_LEAF) };

void stats_start(void)
{
    memset(&stats, 0, sizeof stats);
    lock_init(&stats.lock, RANK_LEAF);
    stats.start_ns = os_now_ns();
}

void stats_cycle(const struct heap_cycle *c, int64_t cpu_ns)
{
    lock_take(&stats.lock);
    stats.history[stats.now.total++ % STATS_CYCLES] = *c;
    stats.now.forced += c->forced;
    lock_drop(&stats.lock);
    stats.pause_total_ns += c->pause_ns;
    stats.last_wall_ns = c->end_wall_ns;
    store_rlx(&stats.cpu_ns, load_rlx(&stats.cpu_ns) + cpu_ns); /* rlx: one writer, who is busy with a cycle */
}

/* Idle and stopped time are parts of the total and do not overlap. A scavenger's is that of its thread, which may have gone on without a processor:
 * so the rest is not taken to be less than it was, and the total is the sum, lest they contradict each other. */
void stats_cycle_cpu(uint64_t stack_bytes, const int64_t mark_ns[GC_CPU_KINDS])
{
    int64_t total = 0, idle = 0, stopped = 0;
    struct gc_scavenge_stats scav;
    if (heap.host.cpu_times != NULL)
        heap.host.cpu_times(&total, &idle, &stopped);
    gc_scavenge_stats(&scav);
    lock_take(&stats.lock);
    struct heap_cycles *c = &stats.now;
    c->idle_ns = idle;
    c->pause_ns = stopped;
    c->scav_assist_ns = (int64_t)scav.assist_ns;
    c->scav_background_ns = (int64_t)scav.background_ns;
    int64_t others = idle + stopped + c->scav_assist_ns + c->scav_background_ns;
    for (unsigned k = 0; k < GC_CPU_KINDS; k++)
        others += c->mark_ns[k] += mark_ns[k];
    c->user_ns = w_max(c->user_ns, total - others);
    c->total_ns = others + c->user_ns;
    c->stack_bytes += stack_bytes;
    lock_drop(&stats.lock);
}

void stats_cycles(struct heap_cycles *out)
{
    lock_take(&stats.lock);
    *out = stats.now;
    lock_drop(&stats.lock);
}

unsigned stats_history(struct heap_cycle out[STATS_CYCLES])
{
    lock_take(&stats.lock);
    uint64_t total = stats.now.total;
    unsigned n = (unsigned)w_min(total, (uint64_t)STATS_CYCLES);
    for (unsigned i = 0; i < n; i++)
        out[i] = stats.history[(total - n + i) % STATS_CYCLES];
    lock_drop(&stats.lock);
    return n;
}

void stats_pace(struct heap_pace *out)
{
    lock_take(&pacer.lock);
    *out = (struct heap_pace){ pacer.last, load_rlx(&pacer.percent), load_rlx(&pacer.limit), load_rlx(&pacer.goal) }; /* rlx: under the lock */
    lock_drop(&pacer.lock);
}

double stats_cpu_fraction(void)
{
    int64_t ran = (os_now_ns() - stats.start_ns) * (int64_t)heap.host.procs();
    double f = ran > 0 ? (double)load_rlx(&stats.cpu_ns) / (double)ran : 0; /* rlx: a figure */
    return w_min(f, 1.0);
}

/* ---- [COUNT] --------------------------------------------------------------------------------------------- */

/* Calls fn for what is left of each run: class and bytes. */
#define each_left(sc, c, bytes)                                                                                                             \
    for (unsigned w_ = 0, c; w_ < w_countof((sc)->used); w_++)                                                                               \
        for (uint64_t b_ = __atomic_load_n(&(sc)->used[w_], __ATOMIC_RELAXED), bytes;                                                        \
             b_ != 0 && (c = 64 * w_ + bits_ctz(b_), bytes = run_left(sc, c), true); b_ &= b_ - 1)

static inline uint64_t run_left(const struct gc_shape_cache *sc, unsigned c)
{
    /* rlx: void if seq moves */
    return (uintptr_t)__atomic_load_n(&sc->end[c], __ATOMIC_RELAXED) - (uintptr_t)__atomic_load_n(&sc->run[c].bump, __ATOMIC_RELAXED);
}

/* left by class, if it is not NULL. Returns the sum. */
static inline uint64_t count_left(const struct gc_cache_priv *pv, uint64_t *left)
{
    uint64_t sum = 0;
    const struct gc_shape_cache *sc = &pv->cache->basic[SHAPE_NOSCAN], *typed = load_acq(&pv->typed); /* acq: sees *typed; rel in typed_cache_new */
    for (; sc != NULL; sc = sc == &pv->cache->basic[SHAPE_NOSCAN] ? sc + 1 : sc == &pv->cache->basic[SHAPE_CONS] ? typed : sc->next)
        each_left(sc, c, bytes) {
            sum += bytes;
            if (left != NULL)
                left[c] += bytes;
        }
    return sum;
}

/* What is allocated from the cache, in bytes; by class, if classes is not NULL. The owner is between begin and end for a few stores. */
static inline uint64_t count_cache(const struct gc_cache_priv *pv, uint64_t *mallocs)
{
    for (unsigned looks = 0;; backoff(looks++)) {
        uint64_t seq = seq_read(&pv->seq);
        uint64_t left[GC_CLASSES], bytes = load_rlx(&pv->malloc_bytes); /* rlx, here and below: void if seq moves */
        if (mallocs != NULL) {
            memset(left, 0, sizeof left);
            for (unsigned c = 0; c < GC_CLASSES; c++)
                mallocs[c] = load_rlx(&pv->mallocs[c]);
        }
        bytes -= count_left(pv, mallocs != NULL ? left : NULL);
        if (!seq_moved(&pv->seq, seq)) {
            for (unsigned c = 1; mallocs != NULL && c < GC_CLASSES; c++)
                if (left[c] != 0)
                    mallocs[c] -= left[c] / gc_class_size[c];
            return bytes;
        }
    }
}

void stats_bytes(struct heap_bytes *out)
{
    out->frees = load_rlx(&heap.large_free_bytes) + load_rlx(&heap.small_free_bytes); /* rlx: counters, here and below; frees first */
    out->mallocs = load_acq(&heap.large_malloc_bytes) + load_rlx(&heap.gone_bytes);   /* acq: rel in large() */
    for (struct gc_cache_priv *pv = heap.caches; pv != NULL; pv = pv->next)            /* plain: changes in stops only */
        out->mallocs += count_cache(pv, NULL);
}

void stats_count(struct heap_counts *out)
{
    uint64_t mallocs[GC_CLASSES];
    out->frees[0] = load_rlx(&heap.large_frees); /* rlx, acq, plain: as above */
    out->bytes.frees = load_rlx(&heap.large_free_bytes);
    out->bytes.mallocs = load_acq(&heap.large_malloc_bytes);
    out->mallocs[0] = load_rlx(&heap.large_mallocs);
    for (unsigned c = 1; c < GC_CLASSES; c++) {
        out->frees[c] = load_rlx(&heap.frees[c]);
        out->mallocs[c] = load_rlx(&heap.gone[c].mallocs);
    }
    for (struct gc_cache_priv *pv = heap.caches; pv != NULL; pv = pv->next) {
        count_cache(pv, mallocs);
        for (unsigned c = 1; c < GC_CLASSES; c++)
            out->mallocs[c] += mallocs[c];
    }
    out->malloc_objects = out->mallocs[0];
    out->free_objects = out->frees[0];
    for (unsigned c = 1; c < GC_CLASSES; c++) {
        out->malloc_objects += out->mallocs[c];
        out->free_objects += out->frees[c];
        out->bytes.mallocs += out->mallocs[c] * gc_class_size[c];
        out->bytes.frees += out->frees[c] * gc_class_size[c];
    }
}

/* Of caches: the struct that lies in the host's own memory, and *off, what is OFF_GC's. */
static uint64_t cache_bytes(uint64_t *off)
{
    uint64_t hosts = 0;
    *off = 0;
    for (struct gc_cache_priv *pv = heap.caches; pv != NULL; pv = pv->next) { /* plain: as above */
        hosts += sizeof *pv->cache;
        *off += sizeof *pv + load_rlx(&pv->table_bytes); /* rlx: counter */
    }
    return hosts + *off;
}

static struct off_stats offheap(enum off_purpose why)
{
    struct off_stats s;
    off_stats(why, &s);
    return s;
}

#define MEMORY_TRIES 8

/* At each moment the objects lie in pages in use; so if no page changed hands while they were counted they fit in those. If pages change all the
 * time, what was in use is taken for at least what the objects need. */
void stats_memory(struct heap_memory *out, struct heap_counts *counts)
{
    for (unsigned i = 0; i < MEMORY_TRIES; i++) {
        pages_stats(&out->pages);
        if (counts != NULL) {
            stats_count(counts);
            out->bytes = counts->bytes;
        } else
            stats_bytes(&out->bytes);
        out->spans_bytes = load_rlx(&heap.nspans) * sizeof(struct span); /* rlx: counter */
        if (pages_same(&out->pages))
            break;
    }
    out->in_use_bytes = w_max(out->pages.sys_bytes - out->pages.free_bytes, out->bytes.mallocs - out->bytes.frees);
    out->spans_bytes = w_min(out->spans_bytes, out->pages.spans_sys_bytes);
    uint64_t caches_off;
    out->caches_bytes = cache_bytes(&caches_off);
    out->other_bytes = out->pages.tables_sys_bytes + offheap(OFF_GC).mapped_bytes - caches_off + offheap(OFF_SPECIAL).mapped_bytes;
}

static void fill_counts(weft_mem_stats *out, const struct heap_counts *n)
{
    for (unsigned c = 0; c < GC_CLASSES; c++) {
        out->by_size[c].size = gc_class_size[c];
        out->by_size[c].mallocs = n->mallocs[c];
        out->by_size[c].frees = n->frees[c];
    }
    out->mallocs = n->malloc_objects;
    out->frees = n->free_objects;
    out->heap_objects = out->mallocs - out->frees;
    out->total_alloc = n->bytes.mallocs;
    out->alloc = out->heap_alloc = n->bytes.mallocs - n->bytes.frees;
}

void gc_fill_stats(weft_mem_stats *out)
{
    struct heap_counts counts;
    struct heap_memory mem;
    stats_memory(&mem, &counts);
    fill_counts(out, &counts);
    out->heap_sys = mem.pages.sys_bytes;
    out->heap_idle = mem.pages.free_bytes;
    out->heap_inuse = mem.in_use_bytes;
    out->heap_released = mem.pages.released_bytes;
    out->mspan_inuse = mem.spans_bytes;
    out->mspan_sys = mem.pages.spans_sys_bytes;
    out->mcache_inuse = out->mcache_sys = mem.caches_bytes;
    out->gc_sys = mem.other_bytes;
    out->next_gc = load_rlx(&pacer.goal); /* rlx: a figure */
    out->last_gc = stats.last_wall_ns;
    out->pause_total_ns = stats.pause_total_ns;
    for (unsigned i = 0; i < STATS_CYCLES; i++) {
        out->pause_ns[i] = stats.history[i].pause_ns;
        out->pause_end[i] = stats.history[i].end_wall_ns;
    }
    out->num_gc = (uint32_t)stats.now.total;
    out->num_forced_gc = (uint32_t)stats.now.forced;
    out->gc_cpu_fraction = stats_cpu_fraction();
    out->enable_gc = true;
    out->sys = out->heap_sys + out->mspan_sys + out->mcache_sys + out->gc_sys;
}

uint64_t stats_overhead_bytes(void)
{
    struct pages_stats pg;
    pages_stats(&pg);
    uint64_t off = off_in_use_bytes(); /* not what is mapped: of a block that was freed only the address space stays */
    return pg.spans_sys_bytes + pg.tables_sys_bytes + off + (heap.host.stack_bytes != NULL ? heap.host.stack_bytes() : 0);
}
