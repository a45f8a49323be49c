/* Marking beside a program that writes plain stores. See conc.h.
 *
 * [CONC] A cycle goes through these phases:
 *
 *     stop 1   caches are flushed; marking is on; what runs is scanned: stacks, registers, thread-local storage
 *     arm      pages of spans with pointers are armed (os/dirty.h): from then on the first write to each is noted. Small gaps of free pages between
 *              them are armed with them. Carded spans are not: their cards are cleared
 *     born     spans in which something was allocated since stop 1 are scanned: [BORN]
 *     mark     roots and stacks of parked fibers, which are armed first, are scanned, and what they lead to
 *     close    the cards that are marked are closed; only if there are any
 *     clean    what was written to is taken and armed again, and the marked objects there are scanned once more, as far as they lie on it; what
 *              closed cards cover, too; again, until few pages are left, or not many and it stops getting less
 *     stop 2   all roots but parked stacks; of these, and of the heap, the last pages that were written to; what they lead to. Weak pointers,
 *              finalizers. Marking is off
 *     disarm   writes to the heap cost nothing again; till then no cycle begins, so who allocates does some of it. What has been cold for a while
 *              becomes huge pages again, afterwards: [MEND] in mend.c
 *
 * Each phase is a number of jobs, which anybody takes who has time: the collector's fiber, processors that idle, allocations. Who finds nothing to do
 * goes on to the next phase when all jobs are done and nobody holds anything to be scanned. What `clean` finds is what was written while the
 * round before went on, so a program that writes faster than that can be looked at would never see its end: from close to stop 2 the cycle hurries
 * (gc_mark_hurries): who allocates or comes to the scheduler's loop marks longer than it has run, up to a millisecond. On the way to stop 2 it is
 * READY, and waits for somebody who may stop the world.
 *
 * Why nothing reachable is freed. Say an object X is reachable when stop 2 ends its mark, and is not marked. Follow the way from a root to X up to
 * the first object that is not marked; it is X without loss of generality, and a word w that leads to it lies in a root, or in a marked object O. All
 * stands still now, so w lies there since some store S. In which place?
 *
 *   - In a root that stop 2 scans: data of modules, registered ranges, handles, specials, thread-local storage, registers and stacks of threads,
 *     arguments of what has not begun. It was seen there; X is marked.
 *   - On the stack of a parked fiber. Whoever writes there, the fiber itself as it ran or another one that has an address in it, is noted as in the
 *     heap: [WATCHED] in sched/watch.c.
 *   - In O, on page p. O was marked before it was scanned there, or it was born marked. Let A be the last arming of p before stop 2's look (by arm, or by
 *     taking p in a round of clean).
 *       no A, so p is not armed: stop 2 takes it for written to, and scans the marked objects on it.
 *       S after A: p is not armed any more, as S ended that. The same.
 *       S before A: whoever scans p after A sees w. If A was a take, that is done next, for all that is marked on p by then. If A was `arm`, nothing
 *         was scanned before (no page is scanned before all are armed); was O marked by a worker, then after A, and it was scanned after that.
 *         Was O born marked before A was done, S wrote to memory that its owner had just zeroed: see [BORN].
 *   - In O, in a carded span. The same with cards for pages, and clearing, closing and taking for arming: [CARDS] in cards.c says why whoever reads after
 *     the take sees what was stored before its card was marked. Clearing is followed by no rescan either, hence born, and by cards_settle
 *     before anything is scanned. Stop 2 takes the cards that are closed and those that are marked.
 *
 * [BORN] What is allocated while marking is on is born marked, a run at a time: its owner sets the mark bits, then a fence, then the run is zeroed
 * and handed out. So every store to an object that was born is ordered after its mark bit. If S comes before a take of its page, the rescan that follows
 * the take sees the mark bit and w; if S comes after, the page is written to. `arm` is the one arming that no rescan follows: a page on which something is
 * born before stop 2 and after stop 1 may have been armed by it after S. So pages that arm has armed are the ones that stood in the heap at stop 1, and
 * those of spans which have been allocated from since stop 1 are found by span->born, the number of the cycle, and are scanned once at the end of arm,
 * as if they had been written to. The same holds for a page that was free at stop 1, or at the look of a round, was armed as part of a gap, and became a
 * span's: its owner has set map and kind (span_new) before the mark bits and the fence. So if S comes before the arming, whoever reads after that sees
 * all of them: born_job, which comes after all of arm, or the rescan that follows the take. If S comes after, it ends the arming. Such a page may also
 * become one without pointers, and its first write costs a fault then.
 *
 * A take is atomic for each page: the kernel writes the page table's entry once, reports the page if it was not armed, and flushes the processors'
 * copies of it before it returns. So a store is before the take in this sense: it was done with a translation that the flush has thrown away, and whoever
 * reads after the take returns sees it; or it comes after, faults, and ends the arming.
 *
 * A store in two halves (a thread is stopped, or scanned, in the middle of memcpy): what is copied is held by where it comes from, or by a register of
 * who copies; both are looked at in stop 2. The kernel's own writes, in read(2), end the arming as the program's do. A pointer that comes that way and is
 * held by nobody (it was in a pipe) keeps nothing alive, as ever.
 *
 * fork: it stops the processors, and slices are over by then, so nobody is in the middle of anything. In the child armed pages are not armed any more
 * and nobody goes on with the mark: it is given up (conc_after_fork_child).
 *
 * Words are read while they may be written. An aligned word is read as a whole on all machines that weft knows; what is not aligned is no pointer to the
 * collector.
 *
 * What is refused by the system in the middle (no memory for tables of pages) ends the mark: stop 2 gives it up and marks all. It is counted.
 *
 * The last stop could leave out its look at pages, 0.2 ms for a heap of 500 MB, if the system had counted no page fault of the program since the last
 * round. It may not: an arming also ends by the fault of a system call that is under way and has not been counted, or when the system moves the page in
 * memory, and then a store of the program is no fault.
 *
 * Minor cycles, which keep mark bits and scan only what was written since the cycle before, have been looked at and not built: pages would have to be
 * armed all the time, at a fault for each, and in bench/live_heap, where nine of ten operations keep to a 64th of the hubs at a time, 96 of 100 pages
 * with pointers were written to between two cycles. A page is too large a unit for that. */
#include "gc/conc.h"
#include <errno.h>
#include <string.h>
#include "gc/cards.h"
#include "gc/mend.h"
#include "gc/roots.h"
#include "os/dirty.h"

#define GROUP_CHUNKS 4u    /* of a job: 16 MiB */
#define DENSE_PAGES 8192u  /* when so many are expected, a job is one chunk: some milliseconds at most */
#define RANGES 128u        /* of written pages, at a time */
#define FEW_PAGES 64u      /* may be left to the stop: some 50 us */
#define MANY_PAGES 512u    /* not if a further round can do something about it */
#define ROUNDS_MAX 24u
#define GAP_PAGES 8u       /* between two runs of spans with pointers that are treated as one: a system call costs more */

enum phase { PHASE_OFF, PHASE_ARM, PHASE_BORN, PHASE_MARK, PHASE_CLOSE, PHASE_CLEAN, PHASE_READY, PHASE_END, PHASE_DISARM };

static struct {
    struct lock lock;       /* RANK_LEAF: jobs */
    enum phase phase;       /* changed under lock by who leads */
    size_t group_chunks;    /* of a job */
    uint64_t next, njobs, stacks; /* the first jobs of PHASE_MARK scan stacks */
    uint32_t running;       /* jobs taken and not done */
    w_u32 leading;          /* 1: somebody leads */
    w_i32 err;              /* of the system; rlx: found by who leads after the job is done */
    w_u64 round_pages;      /* written, found by this round */
    /* who leads */
    uint64_t last_pages;
    unsigned rounds;
    /* rlx: figures */
    w_u64 scanned;
    w_u64 cycles, given_up, written_pages, left_pages, all_rounds, stop_stack_bytes;
} conc = { .lock = LOCK_INIT(RANK_LEAF) };

bool conc_possible(void) { return heap.host.scan_running != NULL && dirty_backend() != DIRTY_NONE; }

void conc_start(void)
{
    memset(&conc, 0, sizeof conc);
    lock_init(&conc.lock, RANK_LEAF);
    mend_start();
}

bool gc_mark_hurries(void)
{
    enum phase p = __atomic_load_n(&conc.phase, __ATOMIC_RELAXED); /* rlx: a hint */
    return p == PHASE_CLOSE || p == PHASE_CLEAN || p == PHASE_READY;
}

uint64_t conc_scanned(void) { return load_rlx(&conc.scanned); } /* rlx: a figure */

/* ---- pages ------------------------------------------------------------------------------------------------ */

/* Jobs of so many chunks. No job is under way. */
static size_t groups(size_t group_chunks)
{
    size_t chunks = load_rlx(&heap.committed) / CHUNK_BYTES; /* rlx: only grows; what is new in it has not been armed */
    conc.group_chunks = group_chunks;
    return (chunks + group_chunks - 1) / group_chunks;
}

#define POINTERS (1u << ARMED_PAGES | 1u << CARDED_PAGES)
#define IN_USE (POINTERS | 1u << NOSCAN_PAGES)

/* A bit for each of 64 pages that is of one of those kinds. rlx: of spans that are being made, see [BORN]. */
static uint64_t pages_of(unsigned kinds, size_t word)
{
    uint64_t w = 0;
    for (unsigned k = 0; k < PAGE_KINDS; k++)
        if (kinds & 1u << k)
            w |= load_rlx(&heap.kinds[word].of[k]);
    return w;
}

/* The first page from there on, before end, that is of those kinds, or is not. */
static size_t page_next(unsigned kinds, bool is, size_t from, size_t end)
{
    for (; from < end; from = (from / 64 + 1) * 64) {
        uint64_t w = pages_of(kinds, from / 64);
        w = (is ? w : ~w) & ~bits_mask(from % 64);
        if (w != 0)
            return w_min(end, from / 64 * 64 + bits_ctz(w));
    }
    return end;
}

struct run { size_t at, to, end; }; /* pages [at, to); it goes on at to, up to end */

static struct run run_begin(size_t group)
{
    size_t from = group * conc.group_chunks * CHUNK_PAGES, end = load_rlx(&heap.committed) >> PAGE_SHIFT; /* rlx: as in groups */
    return (struct run){ from, from, w_min(from + conc.group_chunks * CHUNK_PAGES, end) };
}

/* What may lie between pages that are treated as one run: nothing; up to GAP_PAGES that are free; up to so many of any kind. */
enum gaps { NO_GAPS, FREE_GAPS, ANY_GAPS };

static bool is_gap(enum gaps gaps, size_t from, size_t to)
{
    return from == to || (gaps != NO_GAPS && to - from <= GAP_PAGES && (gaps == ANY_GAPS || page_next(IN_USE, true, from, to) == to));
}

/* The next pages of those kinds. */
static bool run_next(struct run *r, unsigned kinds, enum gaps gaps)
{
    r->at = r->to = page_next(kinds, true, r->to, r->end);
    for (size_t next = r->at; next < r->end && is_gap(gaps, r->to, next); next = page_next(kinds, true, r->to, r->end))
        r->to = page_next(kinds, false, next, r->end);
    return r->at < r->end;
}

/* Of who arms: it makes the other processors throw away translations at each call, which costs more than a page for nothing. Not by write protection:
 * there a page that becomes one without pointers would fail a system call of the program's that writes to it. */
static enum gaps arm_gaps(void) { return load_rlx(&dirty_holds) != 0 ? NO_GAPS : FREE_GAPS; } /* rlx: see there */

static uintptr_t page_addr(size_t page) { return (uintptr_t)heap.base + (page << PAGE_SHIFT); }

static void failed(ptrdiff_t err) { store_rlx(&conc.err, (int)err); } /* rlx: see there */

/* Anything to do with cards outside of a stop? */
static bool cards_beside(void) { return load_rlx(&heap.ncarded) != 0 && cards_concurrent(); } /* rlx: new ones are all in born spans */

/* [lo, hi) was written to, or lies in a gap: scans what lies on armed pages, and says how many bytes that is. Carded pages count as written to, being
 * never armed. */
static uint64_t scan_written(struct marker *m, uintptr_t lo, uintptr_t hi)
{
    uint64_t bytes = 0;
    for (size_t to, at = page_of((void *)lo), end = page_of((void *)(hi - 1)) + 1; (at = page_next(1u << ARMED_PAGES, true, at, end)) < end; at = to) {
        to = page_next(1u << ARMED_PAGES, false, at, end);
        uintptr_t from = w_max(lo, page_addr(at)), until = w_min(hi, page_addr(to));
        mark_pages(m, from, until);
        bytes += until - from;
    }
    return bytes;
}

struct card_scan { struct marker *m; uint64_t bytes; };

static void scan_cards(void *arg, uintptr_t lo, uintptr_t hi)
{
    struct card_scan *c = arg;
    c->bytes += hi - lo;
    mark_pages(c->m, lo, hi);
}

/* The same of cards. Bytes. */
static uint64_t take_cards(size_t group, bool stw, struct marker *m)
{
    struct card_scan c = { m, 0 };
    if (load_rlx(&heap.ncarded) == 0 || (!stw && !cards_concurrent())) /* rlx: as in cards_beside; exact in a stop */
        return 0;
    for (struct run r = run_begin(group); run_next(&r, 1u << CARDED_PAGES, NO_GAPS);)
        (stw ? cards_take_stw : cards_take)(page_addr(r.at), page_addr(r.to), scan_cards, &c);
    return c.bytes;
}

/* Takes what was written to in a group, and has it scanned. */
static void take_group(size_t group, bool arm, struct marker *m)
{
    struct dirty_range found[RANGES];
    uint64_t bytes = take_cards(group, !arm, m);
    for (struct run r = run_begin(group); run_next(&r, 1u << ARMED_PAGES, arm ? arm_gaps() : ANY_GAPS);)
        for (uintptr_t at = page_addr(r.at), end = page_addr(r.to); at < end;) {
            ptrdiff_t n = dirty_take(at, end, arm, found, RANGES, &at);
            if (n < 0) {
                failed(n);
                return;
            }
            for (ptrdiff_t i = 0; i < n; i++) {
                bytes += scan_written(m, found[i].lo, found[i].hi);
                if (arm) /* in the stop there may be more gaps among them, and what is left then is little */
                    mend_written(found[i].lo, found[i].hi);
            }
        }
    add_rlx(&conc.round_pages, bytes >> 12); /* rlx: read when the jobs are done */
}

/* ---- jobs ------------------------------------------------------------------------------------------------ */

static void arm_job(uint64_t i, struct marker *m)
{
    (void)m;
    if (cards_beside())
        for (struct run r = run_begin(i); run_next(&r, 1u << CARDED_PAGES, NO_GAPS);)
            cards_clear(page_addr(r.at), page_addr(r.to));
    for (struct run r = run_begin(i); run_next(&r, 1u << ARMED_PAGES, arm_gaps());) {
        int err = dirty_arm(page_addr(r.at), page_addr(r.to));
        if (err != 0) {
            failed(err);
            return;
        }
    }
}

static void disarm_job(uint64_t i, struct marker *m)
{
    (void)m;
    struct run r = run_begin(i);
    if (dirty_disarm(page_addr(r.at), page_addr(r.end)) != 0)
        failed(-EAGAIN); /* writes there will be noted for nothing */
    mend_cycle(page_addr(r.at), page_addr(r.end));
}

/* [BORN] */
static void born_job(uint64_t i, struct marker *m)
{
    uint32_t now = (uint32_t)gc_cycles_begun();
    for (struct run r = run_begin(i); run_next(&r, POINTERS, NO_GAPS);)
        for (size_t p = r.at; p < r.to;) {
            uint32_t map = load_acq(&heap.pagemap[p]); /* acq: rel in map_pages */
            struct span *s = &heap.spans[p - PAGE_BACK(map)];
            if ((map & 127) == 0) {
                p++;
                continue;
            }
            if (load_rlx(&s->born) == now) /* rlx: stored before the mark bits, which a fence orders before all stores to what is born */
                mark_pages(m, (uintptr_t)span_base(s), (uintptr_t)span_base(s) + span_bytes(s));
            p = span_page(s) + s->npages;
        }
}

static void root_job(uint64_t i, struct marker *m)
{
    if (i >= conc.stacks)
        roots_job((size_t)(i - conc.stacks), m);
    else if (!heap.host.scan_parked((unsigned)i, mark_stack, m))
        failed(-EAGAIN);
}

static void written_stacks_stw(unsigned worker, unsigned nworkers, struct marker *m)
{
    if (!heap.host.scan_written(worker, nworkers, mark_stack, m))
        failed(-EAGAIN);
}

static void close_job(uint64_t i, struct marker *m)
{
    (void)m;
    for (struct run r = run_begin(i); run_next(&r, 1u << CARDED_PAGES, NO_GAPS);)
        cards_close(page_addr(r.at), page_addr(r.to));
}

static void clean_job(uint64_t i, struct marker *m) { take_group((size_t)i, true, m); }
static void rest_job_stw(uint64_t i, struct marker *m) { take_group((size_t)i, false, m); }

static void (*const job_of[])(uint64_t i, struct marker *m) = {
    [PHASE_ARM] = arm_job, [PHASE_BORN] = born_job, [PHASE_MARK] = root_job, [PHASE_CLOSE] = close_job,
    [PHASE_CLEAN] = clean_job, [PHASE_DISARM] = disarm_job,
};

struct job { enum phase phase; uint64_t i; };

static void do_job(void *arg, struct marker *m)
{
    const struct job *j = arg;
    job_of[j->phase](j->i, m);
}

/* false: there is none, in j->phase. */
static bool take_job(struct job *j)
{
    lock_take(&conc.lock);
    j->phase = conc.phase;
    bool got = conc.next < conc.njobs;
    if (got) {
        j->i = conc.next++;
        conc.running++;
    }
    lock_drop(&conc.lock);
    return got;
}

/* Everything is armed. Who sees that is inside until his slice is over, so it is this cycle that he works for. */
static bool may_scan(enum phase p) { return p >= PHASE_BORN && p <= PHASE_CLEAN; }

static void job_done(void)
{
    lock_take(&conc.lock);
    conc.running--;
    lock_drop(&conc.lock);
}

/* ---- phases ---------------------------------------------------------------------------------------------- */

static void set_phase(enum phase p, uint64_t njobs)
{
    store_rlx(&conc.round_pages, 0); /* rlx: no job is under way */
    lock_take(&conc.lock);
    __atomic_store_n(&conc.phase, p, __ATOMIC_RELAXED); /* rlx: under the lock; gc_mark_hurries looks without */
    conc.next = 0;
    conc.njobs = njobs;
    lock_drop(&conc.lock);
}

static void begin(enum phase p, uint64_t njobs)
{
    set_phase(p, njobs);
    if ((njobs != 0 || p == PHASE_READY) && heap.host.mark_ready != NULL)
        heap.host.mark_ready();
}

static bool jobs_done(enum phase *p)
{
    lock_take(&conc.lock);
    bool done = conc.next == conc.njobs && conc.running == 0;
    *p = conc.phase;
    lock_drop(&conc.lock);
    return done;
}

/* What a round found decides whether there is another. */
static bool another_round(void)
{
    uint64_t found = load_rlx(&conc.round_pages); /* rlx: the jobs are done */
    bool more = found > FEW_PAGES && conc.rounds < ROUNDS_MAX && (conc.rounds < 4 || found > MANY_PAGES || found < conc.last_pages / 8 * 7);
    add_rlx(&conc.written_pages, found);
    conc.last_pages = found;
    return more;
}

static size_t clean_groups(void) { return groups(conc.rounds == 0 || conc.last_pages > DENSE_PAGES ? 1 : GROUP_CHUNKS); }

static void begin_clean(void)
{
    if (cards_beside())
        begin(PHASE_CLOSE, groups(GROUP_CHUNKS));
    else
        begin(PHASE_CLEAN, clean_groups());
}

static enum conc_step go_on(enum phase p, bool ends)
{
    if (load_rlx(&conc.err) != 0 && may_scan(p)) { /* rlx: the jobs are done */
        begin(PHASE_READY, 0);
        return CONC_WORKED;
    }
    switch (p) {
    case PHASE_ARM: /* what it was refused shows at the end of the next phase */
        if (cards_beside())
            cards_settle();
        begin(PHASE_BORN, groups(GROUP_CHUNKS));
        return CONC_WORKED;
    case PHASE_BORN:
        begin(PHASE_MARK, conc.stacks + roots_jobs());
        return CONC_WORKED;
    case PHASE_CLEAN:
        conc.rounds++;
        add_rlx(&conc.all_rounds, 1);
        if (another_round())
            begin_clean();
        else
            begin(PHASE_READY, 0);
        return CONC_WORKED;
    case PHASE_MARK:
        begin_clean();
        return CONC_WORKED;
    case PHASE_CLOSE:
        cards_settle();
        begin(PHASE_CLEAN, clean_groups());
        return CONC_WORKED;
    case PHASE_DISARM:
        if (!ends)
            break;
        store_rlx(&gc_marks, 0); /* rlx: a hint now */
        begin(PHASE_OFF, 0);
        return CONC_OVER;
    case PHASE_READY:
        if (!ends)
            break;
        begin(PHASE_END, 0);
        return CONC_MARKED;
    case PHASE_END:
    case PHASE_OFF:
        break;
    }
    return CONC_NOTHING;
}

static enum conc_step lead(bool ends)
{
    enum phase p;
    enum conc_step r = CONC_NOTHING;
    if (!cas_acq_rel(&conc.leading, 0, 1)) /* acq: sees what the last one did; rel below */
        return CONC_NOTHING;
    if (jobs_done(&p) && (!may_scan(p) || mark_idle())) /* in this order: jobs find what is to be scanned, and not the other way round */
        r = go_on(p, ends);
    store_rel(&conc.leading, 0);
    return r;
}

enum conc_step conc_step(bool ends, uint64_t most, uint64_t *scanned)
{
    struct job j;
    uint64_t before = *scanned;
    bool worked = take_job(&j);
    if (worked) {
        mark_slice(do_job, &j, most, scanned);
        job_done();
    } else {
        worked = may_scan(j.phase) && mark_slice(NULL, NULL, most, scanned);
    }
    if (worked) {
        add_rlx(&conc.scanned, *scanned - before); /* rlx: a figure */
        return CONC_WORKED;
    }
    return lead(ends);
}

/* ---- in the stops ------------------------------------------------------------------------------------------ */

static void scan_running(void *arg, struct marker *m)
{
    (void)arg;
    conc.stacks = heap.host.scan_running(mark_stack, m);
}

void conc_begin_stw(void)
{
    uint64_t scanned = 0;
    mark_begin_stw();
    store_rlx(&gc_marks, 2); /* rlx, and all below: in a stop */
    store_rlx(&heap.born_bytes, 0);
    store_rlx(&conc.err, 0);
    store_rlx(&conc.scanned, 0);
    conc.rounds = 0;
    conc.last_pages = 0;
    mark_slice(scan_running, NULL, 0, &scanned);
    add_rlx(&conc.scanned, scanned);
    set_phase(PHASE_ARM, groups(GROUP_CHUNKS)); /* the host hears of it after the stop */
}

static void over_stw(void)
{
    add_rlx(&conc.cycles, 1); /* rlx, here and below: in a stop */
    store_rlx(&gc_marks, 1);
}

void conc_disarm(void) { begin(PHASE_DISARM, groups(GROUP_CHUNKS)); }

void conc_end_stw(unsigned nworkers, struct pacer_marked *out)
{
    const struct mark_rest rest = { .njobs = groups(GROUP_CHUNKS), .job_stw = rest_job_stw, .scan_stw = written_stacks_stw };
    store_rlx(&conc.round_pages, 0); /* rlx, and all below: in a stop */
    bool ok = load_rlx(&conc.err) == 0;
    if (ok) {
        mark_stw(nworkers, NULL, &rest, out);
        add_rlx(&conc.left_pages, load_rlx(&conc.round_pages));
        ok = load_rlx(&conc.err) == 0;
    }
    if (ok) {
        out->live_bytes += load_rlx(&heap.born_bytes);
    } else {
        add_rlx(&conc.given_up, 1);
        mark_cancel_stw();
        mark_stw(nworkers, NULL, NULL, out);
    }
    add_rlx(&conc.stop_stack_bytes, out->stop_stack_bytes);
    over_stw();
}

void conc_give_up_stw(void)
{
    add_rlx(&conc.given_up, 1); /* rlx: in a stop */
    mark_cancel_stw();
    over_stw();
}

void conc_after_fork_child(void)
{
    lock_init(&conc.lock, RANK_LEAF);
    store_rlx(&conc.leading, 0); /* rlx: alone, as below */
    conc.running = 0;
    conc.next = conc.njobs = 0;
    if (gc_marking())
        mark_cancel_stw();
    store_rlx(&gc_marks, 0);
    conc.phase = PHASE_OFF;
    if (dirty_backend() != DIRTY_NONE)
        dirty_after_fork_child(); /* without it cycles stop the world from now on */
}

void conc_stats(struct conc_stats *out)
{
    *out = (struct conc_stats){ /* rlx: figures */
        load_rlx(&conc.cycles), load_rlx(&conc.given_up), load_rlx(&conc.written_pages), load_rlx(&conc.left_pages), load_rlx(&conc.all_rounds),
        load_rlx(&conc.stop_stack_bytes), 0, 0,
    };
    mend_stats(&out->mends, &out->mended);
}
