/* The shape of the heap: pages, spans, and from any word to the object it points into.
 *
 *     base                                                                        base + reserved
 *     | chunk 0 (4 MiB = 512 pages) | chunk 1 | ... | last committed |  not committed ...  |
 *
 * A page has 8 KiB. A run of pages that holds objects is a span: objects of one size class and one shape, or one large object. Seven
 * tables beside the heap are indexed by page (or chunk), reserved whole and committed along with the chunks:
 *
 *   heap.pagemap[page]  32 bits: class in bits 0-6 (0: no span; CLASS_LARGE), noscan in bit 7, typed in bit 8, pages since the first of its span
 *                       in bits 10-31. So a word is resolved to the first page of its span by one load from a dense table: 256 KiB
 *                       of it for 512 MiB of heap, which stays in the second-level cache during a mark.
 *   heap.kinds[page/64] bitmaps of pages of spans, by what a cycle that marks beside the program has to do with them: it searches all of them several
 *                       times, once in a stop, and the pagemap is 32 times as large.
 *   heap.shapes[page]   32 bits: the shape of the span that starts at that page, if it is typed.
 *   heap.spans[page]    128 bytes: the record of the span that starts at that page, at a fixed place: no pointer to load.
 *   heap.bits[page]     64 bytes, a cache line: the mark bits of the span that starts at that page and, but for the smallest objects, its
 *                       allocation bits. Apart from the record, since this and the tables above are all that marking needs of most
 *                       objects: so the lines lie close together, use all sets of the cache, and a huge page holds those of 256 MiB.
 *   heap.chunks[chunk]  the page allocator's bitmaps (pages.c).
 *
 * [BITS] A span has a mark bit and an allocation bit per object. Of up to 256 objects both are in heap.bits, which is enough from 32 bytes on;
 * of more, the allocation bits are in the record. An allocation bit says: the slot belongs to the program or to the unused
 * remainder of a processor's run. Who may write them: the processor that holds the span (allocation bits), the sweeper
 * that took it off its list (both), the markers (marks; atomically), and the processor once more while a cycle marks beside the program: what it
 * allocates is born marked. Marks are zero in every span that is swept, but while a cycle marks.
 * Words of allocation bits are stored relaxed and whole, since heap_find of other threads may look at a neighbour's bit at any time.
 *
 * [SWEPT] A span is swept when its sweepgen equals heap.sweepgen, which moves on by 2 at the end of each mark, and is being swept at 1 less. In an
 * unswept span the marks say which objects live, the allocation bits which had lived or died; sweeping makes marks the allocation bits. */
#ifndef WEFT_GC_HEAP_H
#define WEFT_GC_HEAP_H

#include "base/atomic.h"
#include "base/base.h"
#include "base/bits.h"
#include "base/lock.h"
#include "base/offheap.h"
#include "gc/gc.h"

#define PAGE_SHIFT 13
#define HEAP_PAGE (1u << PAGE_SHIFT)
#define CHUNK_PAGES 512u
#define CHUNK_BYTES ((size_t)CHUNK_PAGES * HEAP_PAGE)
#define HEAP_MAX_BYTES ((size_t)1 << 40) /* offsets fit 40 bits: mark.c packs them */
#define CLASS_LARGE 127u
#define PAGE_NOSCAN 128u
#define PAGE_TYPED 256u
#define PAGE_BACK(map) ((map) >> 10) /* pages since the first */
#define PAGE_BACK_ONE (1u << 10)
#define LARGE_MAX_PAGES ((size_t)1 << 22) /* what a pagemap entry can count */
#define NO_PAGE SIZE_MAX
#define SWEEPGEN_STEP 2u
#define SPAN_WORDS 8u /* of 64 bits, for the bits of the smallest objects */

struct class_info {
    uint32_t size, magic; /* bytes; 2^32 / bytes, rounded up */
    uint16_t nobj;        /* in a span */
    uint8_t npages, nwords; /* of a span; 64-bit words of one of its bitmaps */
};
extern const struct class_info class_info[128]; /* by the class of the pagemap */

struct special_table;

struct span {
    /* fixed while it is in use */
    uint32_t shape;
    uint8_t cls;    /* as in the pagemap: CLASS_LARGE for large objects */
    bool carded;    /* as the shape: [CARDS] */
    uint16_t nobj;
    w_u32 sweepgen; /* rel after sweeping: publishes the bits; acq in span_object_live */
    /* the owner's */
    uint16_t scan;  /* no free slot below this index */
    uint16_t nfree; /* clear allocation bits */
    w_u32 born;     /* the cycle in which something was allocated here while it marked; see [BORN] in conc.c */
    /* cold */
    struct span *next;       /* in a list of central.c */
    size_t npages;
    struct special_table *specials; /* under the lock of special.c; NULL: none */
    bool needzero;           /* free slots may hold old bytes */
    uint8_t pad_[64 - 16 - 33];
    uint64_t allocs[SPAN_WORDS]; /* [BITS] of more than 256 objects; else zeros */
};
_Static_assert(sizeof(struct span) == 128, "one record per page");
_Static_assert(offsetof(struct span, allocs) == 64, "[BITS]: a line");
/* Of 64 pages; each is of one kind at most. rlx: changed by who makes or frees a span; exact in a stop, and see [BORN] in conc.c. */
enum page_kind { ARMED_PAGES, CARDED_PAGES, NOSCAN_PAGES, PAGE_KINDS };
struct page_kinds { w_u64 of[PAGE_KINDS]; };
struct span_bits { uint64_t w[SPAN_WORDS]; } w_aligned(64); /* [BITS] nwords of marks, nwords of allocation bits if that fits, zeros */

/* Statistics of one class, in objects; large objects are class 0. */
struct class_stats { w_u64 mallocs, frees; };

struct central;
struct gc_cache_priv;

struct heap {
    /* fixed after gc_start, but for the rate */
    char *base;
    size_t reserved;
    w_u32 *pagemap;
    struct page_kinds *kinds;
    struct span *spans;
    struct span_bits *bits;
    uint32_t *shapes;      /* written before the page's map, which publishes it */
    bool running, poison, verify, trace, scavtrace, madv_free, fenced;
    bool beside_always;    /* [CONC] also where a mark in a stop would be as short */
    uint64_t stress, sample_seed;
    struct gc_host host;
    w_u64 sample_rate;     /* may change at any time; rlx: a setting */

    w_uptr committed;      /* bytes from base that are usable; written under pages.lock, rlx elsewhere: only grows, and whoever
                              holds a pointer beyond an old value got it after the growth */
    w_u32 sweepgen;        /* written in a stop */
    /* counters, rlx */
    w_u64 live;            /* bytes found by the last mark + given out since, by whole runs of spans: the pacer's */
    w_u64 born_bytes;      /* born marked in this cycle */
    w_u64 large_mallocs, large_frees, large_malloc_bytes, large_free_bytes;
    w_u64 frees[GC_CLASSES], small_free_bytes;
    w_u64 nspans, ncarded; /* ncarded: of them */
    /* under caches_lock */
    struct lock caches_lock;
    struct gc_cache_priv *caches;
    struct class_stats gone[GC_CLASSES]; /* mallocs of caches that are no more */
    w_u64 gone_bytes;
};
extern struct heap heap;

/* Somebody waits for us to stand still. */
static inline bool heap_stop_wanted(void)
{
    return heap.host.stop_wanted != NULL && load_rlx(heap.host.stop_wanted) != 0; /* rlx: looked at again and again */
}

static inline size_t page_of(const void *p) { return (size_t)((const char *)p - heap.base) >> PAGE_SHIFT; }
static inline size_t span_page(const struct span *s) { return (size_t)(s - heap.spans); }
static inline char *span_base(const struct span *s) { return heap.base + (span_page(s) << PAGE_SHIFT); }
static inline size_t span_bytes(const struct span *s) { return s->npages << PAGE_SHIFT; }
static inline size_t span_elem(const struct span *s)
{
    return s->cls == CLASS_LARGE ? span_bytes(s) : class_info[s->cls].size;
}
static inline unsigned span_words(const struct span *s) { return class_info[s->cls].nwords; }
static inline uint64_t *span_marks(const struct span *s) { return heap.bits[span_page(s)].w; }
static inline uint64_t *span_allocs(struct span *s)
{
    unsigned n = span_words(s);
    return likely(2 * n <= SPAN_WORDS) ? span_marks(s) + n : s->allocs;
}
/* Index in s of the object around p; may be >= nobj for the rest behind the last. */
static inline size_t span_index(const struct span *s, const void *p)
{
    return (size_t)((const char *)p - span_base(s)) * class_info[s->cls].magic >> 32;
}
/* Which bit of heap.bits, 512 a page, is the mark of the object at an offset from base; map is what the pagemap has of it. */
static inline __attribute__((always_inline)) w_no_sanitize size_t heap_slot_bit(size_t off, uint32_t map)
{
    size_t first = (off >> PAGE_SHIFT) - PAGE_BACK(map);
    return first * 64 * SPAN_WORDS + ((off - (first << PAGE_SHIFT)) * class_info[map & 127].magic >> 32);
}
/* The same of the object around p: by the pagemap alone, since a span's record is one more line that is far away. */
static inline size_t heap_mark_bit(const void *p)
{
    size_t off = (size_t)((const char *)p - heap.base);
    uint32_t map = load_rlx(&heap.pagemap[off >> PAGE_SHIFT]); /* rlx: the object is alive, or was when this cycle began */
    return heap_slot_bit(off, map);
}
static inline char *span_object(const struct span *s, size_t i) { return span_base(s) + i * span_elem(s); }

/* The span around p, NULL if there is none. */
struct span *heap_span_of(const void *p);
/* The object around p, if it is live: its span and index. Any thread; p is the caller's own pointer, so its object cannot go meanwhile. */
bool heap_find(const void *p, struct span **s, size_t *index);
/* Takes pages and makes them a span that nobody else knows yet, all its slots free. NULL: out of memory. */
struct span *span_new(uint32_t shape, unsigned cls, size_t npages);
/* Gives the pages back. */
void span_free(struct span *s);
/* [BORN] in conc.c: objects [from, to) are about to be handed out while a cycle marks. The caller holds the span. */
void span_born(struct span *s, size_t from, size_t to);
/* The first span at page >= from, or NULL. In a stop. */
struct span *span_next(size_t from);

#endif
