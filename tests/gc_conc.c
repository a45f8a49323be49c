/* [CONC], a step at a time: one thread is collector and program in turn, so each interleaving of marking and plain stores happens, and the same ones with
 * the same seed. gcverify ends the program if anything that can be reached was missed. */
#include "gc_host.h"
#include "base/rng.h"
#include "gc/conc.h"
#include "os/dirty.h"
#include "os/vm.h"

static unsigned running(gc_scan_range_fn *scan, void *marker)
{
    th_scan(0, 1, scan, marker);
    return 0;
}
static bool parked(unsigned part, gc_scan_range_fn *scan, void *marker) { return (void)part, (void)scan, (void)marker, true; }
static bool written(unsigned worker, unsigned n, gc_scan_range_fn *scan, void *marker) { return th_scan(worker, n, scan, marker), true; }

/* false: the kernel does not tell what is written to. */
static bool begin(enum dirty_backend way, void *base)
{
    (void)th_begin;
    struct gc_settings set = th_settings();
    struct gc_host host = th_host;
    host.scan_running = running;
    host.scan_parked = parked;
    host.scan_written = written;
    set.dirty = way;
    set.verify = true;
    th.stack_base = (const char *)base + 1024;
    th_main_tp = th_tp();
    cr_assert(off_init() == 0);
    int err = gc_start(&host, &set);
    if (err != 0) {
        fprintf(stderr, "skipped: what was written to is not to be had here (error %d)\n", -err);
        return false;
    }
    cr_assert(gc_cache_init(&th.cache) == 0);
    return true;
}

/* ---- a graph: holders in a list, each with slots; what lies in a slot is nowhere else --------------------------------------------------- */

enum { HOLDERS = 200, PADS = 10, PAD_BYTES = 8 << 20, SLOTS = 6, LEAF_BYTES = 48, BIG_SLOTS = 40000, BLOCKS_OF_PAGES = 120 };
struct holder { struct holder *next; void *slot[SLOTS]; uint64_t number; };
static struct holder *root;
static void **big;
static struct pages { uint64_t scanned; void *leaf; } **some; /* objects of one to four pages, so that runs of free ones come and go between them */
static void *pad[PADS]; /* so that holders lie far apart: pages are armed and looked at in pieces of 16 MiB */
static const weft_type *holder_type; /* NULL: conservative */
static struct rng rng;

static __attribute__((noinline)) void *leaf_new(void)
{
    uint64_t *p = th_alloc(LEAF_BYTES, SHAPE_CONS);
    p[0] = p[1] = 42;
    return p;
}

static __attribute__((noinline)) struct pages *pages_new(void *leaf)
{
    struct pages *p = th_alloc(8000 * (1 + rng_below(&rng, 4)), leaf != NULL ? SHAPE_CONS : SHAPE_NOSCAN);
    p->scanned = leaf != NULL;
    p->leaf = leaf;
    return p;
}

static void build(void)
{
    root = NULL;
    some = th_alloc(BLOCKS_OF_PAGES * sizeof *some, SHAPE_CONS);
    for (int i = 0; i < BLOCKS_OF_PAGES; i++)
        some[i] = pages_new(i % 4 != 0 ? leaf_new() : NULL);
    for (int i = 0; i < HOLDERS; i++) {
        struct holder *h = holder_type != NULL ? th_typed(holder_type, 1) : th_alloc(sizeof *h, SHAPE_CONS);
        h->next = root;
        root = h;
        if (i % (HOLDERS / PADS) == 0)
            pad[i / (HOLDERS / PADS)] = th_alloc(PAD_BYTES, SHAPE_NOSCAN);
        for (int k = 0; k < SLOTS; k += 2)
            h->slot[k] = leaf_new();
    }
    big = th_alloc(BIG_SLOTS * sizeof *big, SHAPE_CONS);
    for (int i = 0; i < BIG_SLOTS; i += 8)
        big[i] = leaf_new();
}

static __attribute__((noinline)) void **any_slot(void)
{
    if (rng_below(&rng, 2) == 0)
        return &big[rng_below(&rng, BIG_SLOTS)];
    struct holder *h = root;
    for (unsigned n = rng_below(&rng, HOLDERS); n > 0; n--)
        h = h->next;
    return &h->slot[rng_below(&rng, SLOTS)];
}

/* What comes to lie in a new object may be old, and nowhere else from then on. */
static __attribute__((noinline)) void mutate_pages(void)
{
    struct pages **at = &some[rng_below(&rng, BLOCKS_OF_PAGES)];
    cr_assert(*at == NULL || !(*at)->scanned || *(uint64_t *)(*at)->leaf == 42, "a leaf was freed");
    void **from = any_slot();
    *at = rng_below(&rng, 3) == 0 ? NULL : pages_new(*from);
    *from = NULL;
}

/* The program's part: moves what is in one place to another, takes things away, makes new ones. */
static __attribute__((noinline)) void mutate(void)
{
    if (rng_below(&rng, 20) == 0)
        mutate_pages();
    void **from = any_slot(), **to = any_slot();
    void *p = *from;
    *from = NULL;
    if (p == NULL || rng_below(&rng, 16) == 0)
        p = leaf_new();
    cr_assert_eq(*(uint64_t *)p, 42, "a leaf was freed");
    *to = p;
}

static int count_leaves(void)
{
    int n = 0;
    for (struct holder *h = root; h != NULL; h = h->next)
        for (int k = 0; k < SLOTS; k++)
            n += h->slot[k] != NULL && *(uint64_t *)h->slot[k] == 42;
    for (int i = 0; i < BIG_SLOTS; i++)
        n += big[i] != NULL && *(uint64_t *)big[i] == 42;
    return n;
}

/* ---- the collector's part ------------------------------------------------------------------------------------------------------------------- */

static struct gc_turn turn;
static uint64_t bytes_at_once;

static __attribute__((noinline)) void step(void)
{
    jmp_buf regs;
    uint64_t scanned = 0;
    memset(&regs, 0, sizeof regs);
    __builtin_unwind_init();
    (void)setjmp(regs);
    th.stack_top = (const char *)w_min((uintptr_t)__builtin_frame_address(0), (uintptr_t)&regs);
    if (!turn.came)
        gc_collect_some(&turn);
    else
        gc_mark_some(GC_CPU_DEDICATED, true, bytes_at_once, &scanned);
    __asm__ volatile("" : : "r"(regs) : "memory");
}

static int cycle(int moves)
{
    int steps = 0;
    turn = (struct gc_turn){ .why = GC_WHY_PERIODIC };
    do {
        step();
        for (int i = 0; i < moves; i++)
            mutate();
    } while (steps++, gc_mark_work());
    return steps;
}

static void cycles(enum dirty_backend way, bool typed, uint64_t bytes, int moves)
{
    if (!begin(way, __builtin_frame_address(0)))
        return;
    uint64_t seed = test_seed();
    rng_seed(&rng, seed);
    bytes_at_once = bytes;
    static const size_t offsets[] = { 0, 8, 16, 24, 32, 40, 48 };
    holder_type = typed ? gc_type_make(sizeof(struct holder), offsets, w_countof(offsets)) : NULL;
    build();
    int steps = 0;
    for (int i = 0; i < 12; i++)
        steps += cycle(moves);
    struct conc_stats s;
    conc_stats(&s);
    cr_assert_eq(s.cycles, 12);
    cr_assert_eq(s.given_up, 0);
    cr_assert(moves == 0 || s.written_pages + s.left_pages > 0);
    cr_assert(bytes > 1000 || steps > 12 * 100, "%d steps: that was no interleaving", steps);
    cr_assert_gt(count_leaves(), 0);
    root = NULL;
    big = NULL;
    some = NULL;
    memset(pad, 0, sizeof pad);
    th_end();
}

Test(gc_conc, word_by_word, .timeout = 60) { cycles(DIRTY_UFFD, false, 1, 1); }
Test(gc_conc, with_many_moves_between, .timeout = 60) { cycles(DIRTY_UFFD, false, 200, 20); }
Test(gc_conc, in_large_pieces, .timeout = 60) { cycles(DIRTY_UFFD, false, 20000, 300); }
Test(gc_conc, typed_objects, .timeout = 60) { cycles(DIRTY_UFFD, true, 1, 2); }

/* What lives stays, and nothing is written: then nothing is left to the stop. */
Test(gc_conc, at_rest, .timeout = 60)
{
    struct conc_stats s;
    if (!begin(DIRTY_UFFD, __builtin_frame_address(0)))
        return;
    bytes_at_once = 1 << 20;
    holder_type = NULL;
    rng_seed(&rng, 1);
    build();
    cycle(0);
    int leaves = count_leaves();
    cycle(0);
    conc_stats(&s);
    cr_assert_eq(count_leaves(), leaves);
    cr_assert(s.left_pages <= 4, "%lu pages were left to two stops", (unsigned long)s.left_pages);
    th_end();
}

/* Leaves that lie on the stack from the beginning of a cycle on, where only the stops see them, are put away when all has been looked at but
 * for the last time: into old objects, a store to an armed page; or into new ones on the stack, on pages that are there and were never armed. */
enum { CARRIED = 64, LARGE_BYTES = 40000 };

static __attribute__((noinline)) void pick_up(void **carried)
{
    for (int k = 0; k < CARRIED; k++)
        for (void **from = any_slot(); carried[k] == NULL; from = any_slot()) {
            carried[k] = *from;
            *from = NULL;
        }
}

/* False: it is put away already. */
static __attribute__((noinline)) bool put_away(void **at, bool into_new)
{
    void *leaf = *at;
    if (leaf == NULL || *(uint64_t *)leaf != 42) /* a new object begins with an address */
        return false;
    if (into_new)
        *(void **)(*at = th_alloc(LARGE_BYTES, SHAPE_CONS)) = leaf;
    else
        for (void **to = any_slot(); *at != NULL; to = any_slot())
            if (*to == NULL)
                *to = leaf, *at = NULL;
    return true;
}

/* How many were put away. */
static __attribute__((noinline)) int cycle_that_carries(bool into_new)
{
    int n = 0;
    void *carried[CARRIED] = { NULL };
    turn = (struct gc_turn){ .why = GC_WHY_PERIODIC };
    step();
    pick_up(carried);
    do {
        step();
        if (gc_mark_hurries())
            n += put_away(&carried[rng_below(&rng, CARRIED)], into_new);
        __asm__ volatile("" : : "r"(carried) : "memory");
    } while (gc_mark_work());
    for (int k = 0; k < CARRIED; k++)
        put_away(&carried[k], false);
    return n;
}

static void carries(bool into_new)
{
    if (!begin(DIRTY_UFFD, __builtin_frame_address(0)))
        return;
    bytes_at_once = 1 << 20;
    holder_type = NULL;
    rng_seed(&rng, test_seed());
    build();
    for (int i = 0; i < 2 * CARRIED; i++)
        memset(th_alloc(LARGE_BYTES, SHAPE_CONS), 0, LARGE_BYTES); /* pages to be used again */
    cycle(0);
    for (int i = 0; i < 20; i++)
        cr_assert_gt(cycle_that_carries(into_new), 0);
    th_end();
}

Test(gc_conc, stored_after_the_last_look_in_an_old_object, .timeout = 60) { carries(false); }
Test(gc_conc, stored_after_the_last_look_in_a_new_object, .timeout = 60) { carries(true); }

/* ---- [MEND] ------------------------------------------------------------------------------------------------------------------------------------ */

enum { BLOCKS = 8, BLOCK_BYTES = 8 << 20, BLOCK_UNITS = BLOCK_BYTES / OS_HUGE_PAGE };
static void **block[BLOCKS];

/* A cycle in which the first `hot` blocks are written to all the time, somewhere in each huge page. */
static void cycle_beside_writes(int hot)
{
    turn = (struct gc_turn){ .why = GC_WHY_PERIODIC };
    do {
        step();
        for (int i = 0; i < hot; i++)
            for (size_t at = 0; at < BLOCK_BYTES; at += OS_HUGE_PAGE)
                block[i][(at + rng_below(&rng, OS_HUGE_PAGE)) / sizeof(void *)] = block[i];
    } while (gc_mark_work());
}

/* How many it was tried with; *mended: how often that came to something. */
static uint64_t mend_all(uint64_t *mended)
{
    struct conc_stats before, after;
    conc_stats(&before);
    while (gc_mend_wanted())
        gc_mend_some();
    conc_stats(&after);
    *mended += after.mended - before.mended;
    return after.mends - before.mends;
}

/* Of what was split by writes: what has stayed cold for a whole cycle, and each part once. */
Test(gc_conc, what_became_cold_is_made_of_huge_pages_again, .timeout = 60)
{
    enum { COLD_UNITS = BLOCKS / 2 * BLOCK_UNITS };
    if (!begin(DIRTY_UFFD, __builtin_frame_address(0)))
        return;
    bytes_at_once = 8 << 20;
    rng_seed(&rng, 1);
    for (int i = 0; i < BLOCKS; i++) {
        block[i] = th_alloc(BLOCK_BYTES, SHAPE_CONS);
        for (size_t k = 0; k < BLOCK_BYTES / sizeof(void *); k += 512)
            block[i][k] = block[i];
    }
    uint64_t mended = 0, once = 0;
    cycle_beside_writes(0), cycle_beside_writes(0);
    mend_all(&mended); /* what lies around the blocks, too */
    uintptr_t lo = w_align_up((uintptr_t)block[BLOCKS - 1], OS_HUGE_PAGE);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 2; i++) {
            cycle_beside_writes(BLOCKS);
            cr_assert_eq(mend_all(&mended), 0, "all is hot");
        }
        mended = 0;
        cycle_beside_writes(BLOCKS / 2);
        uint64_t n = mend_all(&mended);
        cr_assert(n + BLOCKS >= COLD_UNITS && n <= COLD_UNITS + BLOCKS, "%lu of %d", (unsigned long)n, COLD_UNITS);
        cr_assert_leq(mended, n);
        once |= mended;
        for (int i = 0; i < 3; i++) {
            cycle_beside_writes(BLOCKS / 2);
            cr_assert_eq(mend_all(&mended), 0, "they are as they were");
        }
    }
    if (once == 0) { /* is that because there are none? */
        cr_assert_eq(dirty_mend(lo, lo + OS_HUGE_PAGE), 0, "it could have been done");
        cr_skip_test("there are no huge pages to be had");
    }
    th_end();
}
