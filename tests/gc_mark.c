/* What a cycle keeps and what it frees. Everything runs with gcverify and gcpoison, so a wrong mark ends the test. */
#include "gc_host.h"
#include "gc/mark.h"
#include <inttypes.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>
#include "os/procself.h"

static struct gc_settings checked(void)
{
    struct gc_settings set = th_settings();
    set.poison = set.verify = true;
    set.gc_percent = -1;
    return set;
}
#define BEGIN() th_begin(checked(), __builtin_frame_address(0))

static uint64_t objects(void)
{
    static weft_mem_stats st;
    st.size = sizeof st;
    gc_fill_stats(&st);
    return st.heap_objects;
}

static void collect(void)
{
    test_wipe_stack();
    th_collect(GC_WHY_FORCED);
}

static void **volatile global_root;
static __thread void **volatile tls_root; /* volatile: or the compiler drops what nobody reads */
static void **added[4];
static weft_handle handle;

static void make_rooted(void)
{
    global_root = th_alloc(64, SHAPE_CONS);
    *global_root = th_alloc(64, SHAPE_CONS);
    tls_root = th_alloc(64, SHAPE_CONS);
    *tls_root = th_alloc(64, SHAPE_CONS);
    handle = gc_handle_new(th_alloc(4096, SHAPE_CONS));
    uintptr_t *block = malloc(64);
    memset(block, 0, 64);
    block[3] = (uintptr_t)th_alloc(48, SHAPE_CONS) + 47; /* interior */
    cr_assert_eq(gc_root_add(block, 64), 0);
    added[0] = (void **)((uintptr_t)block ^ 1);
}

Test(gc_mark, every_kind_of_root)
{
    BEGIN();
    th_away(make_rooted);
    collect();
    cr_assert_eq(objects(), 6);
    global_root = NULL;
    collect();
    cr_assert_eq(objects(), 4);
    tls_root = NULL;
    collect();
    cr_assert_eq(objects(), 2);
    cr_assert_not_null(gc_handle_get(handle));
    cr_assert_eq(gc_handle_free(handle), 0);
    cr_assert_eq(gc_handle_free(handle), -ENOENT);
    cr_assert_null(gc_handle_get(handle));
    cr_assert_null(gc_handle_get(0));
    collect();
    cr_assert_eq(objects(), 1);
    void *block = (void *)((uintptr_t)added[0] ^ 1);
    cr_assert_eq(gc_root_remove(block), 0);
    cr_assert_eq(gc_root_remove(block), -ENOENT);
    collect();
    cr_assert_eq(objects(), 0);
    th_end();
}

Test(gc_mark, handles_are_not_reused_by_number)
{
    BEGIN();
    weft_handle h[2000];
    int x;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 2000; i++) {
            weft_handle old = h[i];
            h[i] = gc_handle_new(&x + i % 7);
            cr_assert_neq(h[i], 0);
            if (round != 0) {
                cr_assert_neq(h[i], old);
                cr_assert_null(gc_handle_get(old));
            }
        }
        for (int i = 0; i < 2000; i++)
            cr_assert_eq(gc_handle_get(h[i]), &x + i % 7);
        for (int i = 0; i < 2000; i++)
            cr_assert_eq(gc_handle_free(h[i]), 0);
    }
    th_end();
}

struct mixed { uintptr_t hidden; void *seen; uintptr_t hidden2; };

static void make_typed(void)
{
    size_t offs[] = { offsetof(struct mixed, seen) };
    const weft_type *t = gc_type_make(sizeof(struct mixed), offs, 1);
    struct mixed *m = th_typed(t, 5000); /* large: 120 KB */
    for (int i = 0; i < 5000; i++) {
        m[i].hidden = m[i].hidden2 = (uintptr_t)th_alloc(32, SHAPE_CONS);
        m[i].seen = th_alloc(32, SHAPE_CONS);
    }
    struct mixed *small = th_typed(t, 3);
    for (int i = 0; i < 3; i++) {
        small[i].hidden = (uintptr_t)th_alloc(32, SHAPE_CONS);
        small[i].seen = th_alloc(32, SHAPE_CONS);
    }
    void **noscan = th_alloc(800, SHAPE_NOSCAN);
    for (int i = 0; i < 100; i++)
        noscan[i] = th_alloc(32, SHAPE_CONS);
    global_root = th_alloc(64, SHAPE_CONS);
    global_root[0] = m;
    global_root[1] = small;
    global_root[2] = noscan;
}

Test(gc_mark, types_tell_pointers_from_numbers)
{
    BEGIN();
    th_away(make_typed);
    collect();
    cr_assert_eq(objects(), 1 + 3 + 5000 + 3);
    global_root = NULL;
    collect();
    cr_assert_eq(objects(), 0);
    th_end();
}

static int list_nodes;
static void make_list(void)
{
    for (int i = 0; i < list_nodes; i++) {
        void **n = th_alloc(16, SHAPE_CONS);
        n[0] = global_root;
        global_root = n;
    }
}

Test(gc_mark, a_long_list_needs_no_native_stack)
{
    struct gc_settings set = th_settings();
    set.gc_percent = -1;
    th_begin(set, __builtin_frame_address(0));
    list_nodes = 10000000;
    th_away(make_list);
    collect();
    cr_assert_eq(objects(), 10000000);
    global_root = NULL;
    collect();
    cr_assert_eq(objects(), 0);
    th_end();
}

static void make_wide(void)
{
    global_root = th_alloc(8 * 300000, SHAPE_CONS);
    for (int i = 0; i < 300000; i++) {
        void **mid = th_alloc(16, SHAPE_CONS);
        global_root[(i * 7919l) % 300000] = mid;
        mid[1] = th_alloc(24, SHAPE_NOSCAN);
    }
}

/* No memory for mark stacks at all: the mark drops work and goes over the heap again. */
Test(gc_mark, exhausted_mark_stack_is_survived)
{
    BEGIN();
    th_away(make_wide);
    mark_max_chunks = 0;
    for (th.procs = 1; th.procs <= 4; th.procs += 3) {
        collect();
        cr_assert_eq(objects(), 600001);
    }
    th_end();
}

static void make_huge(void)
{
    const size_t words = 10u << 20; /* more pieces than a chunk of mark stack has entries */
    global_root = th_alloc(words * 8, SHAPE_CONS);
    for (size_t i = 0; i < 1000; i++)
        global_root[words - 1 - i * (words / 1000)] = th_alloc(64, SHAPE_CONS);
}

Test(gc_mark, exhausted_mark_stack_and_a_huge_object)
{
    struct gc_settings set = th_settings();
    set.verify = true;
    set.gc_percent = -1;
    th_begin(set, __builtin_frame_address(0));
    th_away(make_huge);
    mark_max_chunks = 0;
    for (th.procs = 1; th.procs <= 4; th.procs += 3) {
        collect();
        cr_assert_eq(objects(), 1001);
    }
    th_end();
}

/* Every way to search words, however wide: each word of an object keeps what it points to, and what lies just outside of the heap, or anywhere,
 * is no pointer. */
enum { MOST_WORDS = 41, PAIRS = 1024, ELEMENTS = 12 };
static void make_every_word(void)
{
    const uintptr_t base = (uintptr_t)heap.base, junk[] = { 0, base - 8, base + load_rlx(&heap.committed), ~(uintptr_t)0, base ^ 1ull << 63,
                                                            base + (1ull << 40), 1ull << 63, -base };
    global_root = th_alloc(MOST_WORDS * MOST_WORDS * sizeof(void *), SHAPE_CONS);
    for (size_t words = 2; words < MOST_WORDS; words++)
        for (size_t at = 0; at < words; at++) {
            uintptr_t *p = th_alloc(words * 8, SHAPE_CONS);
            global_root[words * MOST_WORDS + at] = (void **)p;
            for (size_t i = 0; i < words; i++)
                p[i] = i % 3 == at % 3 ? (uintptr_t)th_alloc(16, SHAPE_NOSCAN) + at % 16 : junk[(i + at) % w_countof(junk)];
        }
    /* pairs, most of which are searched several at a time */
    uintptr_t *pairs = th_alloc(PAIRS * sizeof *pairs, SHAPE_CONS);
    global_root[0] = (void **)pairs;
    for (size_t i = 0; i < PAIRS; i++) {
        uintptr_t *p = th_alloc(i % 7 == 0 ? 24 : 16, SHAPE_CONS);
        pairs[i] = (uintptr_t)p;
        for (size_t k = 0; k < 2; k++)
            p[k] = (i >> k & 1) != 0 ? (uintptr_t)th_alloc(16, SHAPE_NOSCAN) : junk[i % w_countof(junk)];
    }
    /* elements of a layout: each keeps by its second word, and none by its first */
    const weft_type *t = gc_type_make(16, (size_t[]){ 8 }, 1);
    for (size_t n = 1; n <= ELEMENTS; n++) {
        uintptr_t *p = th_typed(t, n);
        global_root[n] = (void **)p;
        for (size_t i = 0; i < 2 * n; i++)
            p[i] = (uintptr_t)th_alloc(16, SHAPE_NOSCAN);
    }
}

Test(gc_mark, every_word_by_every_search)
{
    uint64_t expected = 1 + 1 + PAIRS + PAIRS + ELEMENTS + ELEMENTS * (ELEMENTS + 1) / 2;
    for (size_t words = 2; words < MOST_WORDS; words++)
        for (size_t at = 0; at < words; at++, expected++)
            for (size_t i = at % 3; i < words; i += 3)
                expected++;
    cr_assert_geq(mark_searches(), 1);
    for (unsigned k = 0; k < mark_searches(); k++) {
        mark_use_search(k);
        BEGIN();
        th_away(make_every_word);
        for (th.procs = 1; th.procs <= 2; th.procs++) {
            collect();
            cr_assert_eq(objects(), expected, "search %u: %" PRIu64 " and not %" PRIu64, k, objects(), expected);
        }
        th_end();
    }
}

/* A random graph against a model that is kept in numbers. Objects carry their model index; shapes and sizes vary. */
struct model { uint32_t edge[3]; uint8_t live; };
enum { NODES = 6000 };
static struct model model[NODES];
static void **slots; /* a large object: index -> object */
static uint64_t rnd_state = 88172645463325252ull;
static uint32_t rnd(uint32_t n)
{
    rnd_state ^= rnd_state << 13;
    rnd_state ^= rnd_state >> 7;
    rnd_state ^= rnd_state << 17;
    return (uint32_t)(rnd_state >> 16) % n;
}

struct gnode { uint64_t tag; struct gnode *edge[3]; };
static const weft_type *gtype;

static void check_from_roots(void)
{
    static uint8_t seen[NODES];
    static uint32_t stack[NODES * 4];
    size_t n = 0;
    memset(seen, 0, sizeof seen);
    for (uint32_t i = 0; i < NODES; i++)
        if (slots[i] != NULL)
            stack[n++] = i;
    static struct gnode *at[NODES];
    for (uint32_t i = 0; i < NODES; i++)
        at[i] = slots[i];
    while (n != 0) {
        uint32_t i = stack[--n];
        struct gnode *g = at[i];
        cr_assert_eq(g->tag, 0x7700000000ull + i, "object %u holds another's bytes", i);
        if (seen[i]++)
            continue;
        for (int e = 0; e < 3; e++) {
            uint32_t k = model[i].edge[e];
            cr_assert((k == UINT32_MAX) == (g->edge[e] == NULL));
            if (k != UINT32_MAX && !seen[k]) {
                at[k] = g->edge[e];
                if (n < NODES * 4 - 3)
                    stack[n++] = k;
            }
        }
    }
    memset(at, 0, sizeof at);
}

static void random_graph(void)
{
    size_t offs[] = { 8, 16, 24 };
    static const size_t extra[] = { 0, 8, 40, 100, 500, 3000, 40000, 300000 };
    slots = th_alloc(NODES * 8, SHAPE_CONS);
    for (int round = 0; round < 12; round++) {
        for (uint32_t i = 0; i < NODES; i++)
            if (slots[i] == NULL) {
                size_t more = extra[rnd(100) < 96 ? rnd(5) : rnd(8)];
                gtype = gc_type_make(sizeof(struct gnode) + more, offs, 3);
                struct gnode *g = rnd(2) ? th_typed(gtype, 1) : th_alloc(sizeof *g + more, SHAPE_CONS);
                g->tag = 0x7700000000ull + i;
                memset(model[i].edge, 0xff, sizeof model[i].edge);
                slots[i] = g;
            }
        for (int k = 0; k < 2 * NODES; k++) {
            uint32_t a = rnd(NODES), b = rnd(NODES), e = rnd(3);
            ((struct gnode *)slots[a])->edge[e] = slots[b];
            model[a].edge[e] = b;
        }
        check_from_roots();
        uint32_t dropped[NODES];
        for (uint32_t i = 0; i < NODES; i++)
            dropped[i] = rnd(3) != 0;
        for (uint32_t i = 0; i < NODES; i++) /* edges into dropped slots would be made anew under the same number */
            for (int e = 0; e < 3; e++)
                if (slots[i] != NULL && model[i].edge[e] != UINT32_MAX && dropped[model[i].edge[e]] && rnd(2)) {
                    ((struct gnode *)slots[i])->edge[e] = NULL;
                    model[i].edge[e] = UINT32_MAX;
                }
        void **kept = th_alloc(NODES * 8, SHAPE_CONS);
        for (uint32_t i = 0; i < NODES; i++)
            kept[i] = dropped[i] ? NULL : slots[i];
        slots = kept;
        kept = NULL;
        th_collect(GC_WHY_FORCED);
        check_from_roots();
        /* what is kept forgets what was dropped, before the numbers are used again */
        for (uint32_t i = 0; i < NODES; i++)
            for (int e = 0; e < 3; e++)
                if (slots[i] != NULL && model[i].edge[e] != UINT32_MAX && dropped[model[i].edge[e]]) {
                    ((struct gnode *)slots[i])->edge[e] = NULL;
                    model[i].edge[e] = UINT32_MAX;
                }
    }
}

Test(gc_mark, random_graph_one_worker)
{
    BEGIN();
    random_graph();
    th_end();
}

Test(gc_mark, random_graph_four_workers)
{
    th.procs = 4;
    BEGIN();
    random_graph();
    th_end();
}

static int first_tid;
static bool first_slept;

/* The second worker has not come to work till the first one sleeps. */
static void scan_when_it_sleeps(unsigned worker, unsigned n, gc_scan_range_fn *scan, void *marker)
{
    if (n > 1 && worker == 0)
        __atomic_store_n(&first_tid, gettid(), __ATOMIC_RELEASE);
    for (int64_t until_ns = os_now_ns() + 10000000000; worker == 1 && !first_slept && os_now_ns() < until_ns; test_pause())
        first_slept = __atomic_load_n(&first_tid, __ATOMIC_ACQUIRE) != 0 && os_thread_state(first_tid) == 'S';
    th_scan(worker, n, scan, marker);
}

/* Else one without a CPU would wait for it behind those who wait for him. */
Test(gc_mark, who_waits_for_another_worker_sleeps)
{
    th.procs = 2;
    BEGIN();
    heap.host.scan_stacks = scan_when_it_sleeps;
    list_nodes = 200000;
    th_away(make_list);
    collect();
    cr_assert(first_slept);
    cr_assert_eq(objects(), 200000);
    th_end();
}

Test(gc_mark, random_graph_under_stress)
{
    struct gc_settings set = checked();
    set.stress = 4999;
    th_begin(set, __builtin_frame_address(0));
    random_graph();
    th_end();
}

/* ---- what the checks find ------------------------------------------------------------------------------- */

static void *hidden_obj;
static void fake_scan(unsigned worker, unsigned n, gc_scan_range_fn *scan, void *marker)
{
    static int calls;
    th_scan(worker, n, scan, marker);
    void *word = (void *)((uintptr_t)hidden_obj ^ 0xff00000000000000ull);
    if (calls++ != 0) /* the first mark does not see it */
        scan(marker, &word, &word + 1);
}

static void make_hidden(void) { hidden_obj = (void *)((uintptr_t)th_alloc(64, SHAPE_CONS) ^ 0xff00000000000000ull); }

Test(gc_mark, verify_finds_what_the_mark_missed, .signal = SIGABRT)
{
    BEGIN();
    heap.host.scan_stacks = fake_scan;
    th_away(make_hidden);
    collect();
}

Test(gc_mark, poison_finds_a_write_after_free, .signal = SIGABRT)
{
    BEGIN();
    th_away(make_hidden);
    collect();
    ((char *)((uintptr_t)hidden_obj ^ 0xff00000000000000ull))[40] = 1;
    for (int i = 0; i < 1000; i++)
        th_alloc(64, SHAPE_CONS);
}

/* madvdontneed=0: the kernel takes what it likes of free memory, system page by system page. */
static size_t dropped_off;
static void make_dropped(void) { dropped_off = (size_t)((char *)th_alloc(1u << 20, SHAPE_NOSCAN) - heap.base); }

Test(gc_mark, poison_knows_what_the_kernel_took)
{
    test_needs_a_kernel();
    struct gc_settings set = checked();
    set.madv_free = true;
    th_begin(set, __builtin_frame_address(0));
    th_away(make_dropped);
    collect();
    gc_release_free();
    for (size_t at = 4096; at < 1u << 20; at += 3 * 4096)
        madvise(heap.base + dropped_off + at, 4096, MADV_DONTNEED);
    char *p = th_alloc(1u << 20, SHAPE_NOSCAN);
    cr_assert_eq((size_t)(p - heap.base), dropped_off);
    for (size_t at = 0; at < 1u << 20; at += 512)
        cr_assert_eq(p[at], 0);
    th_end();
}

Test(gc_mark, freed_memory_is_poisoned)
{
    BEGIN();
    th_away(make_hidden);
    unsigned char *p = (unsigned char *)((uintptr_t)hidden_obj ^ 0xff00000000000000ull);
    size_t off = (size_t)((char *)p - heap.base);
    p = NULL;
    collect();
    cr_assert_eq((unsigned char)heap.base[off], 0xDB);
    cr_assert_eq((unsigned char)heap.base[off + 63], 0xDB);
    th_end();
}
