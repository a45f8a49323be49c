/* Written pages by write protection and SIGSEGV.
 *
 * `map` has a bit for each page: it is armed, that is, protected. The handler of the fault takes the protection away and clears the bit.
 *
 * [DIRTY] Bits and protection change together, under one lock, and so whoever holds it finds a page that can be written to only where the bit is
 * clear. The kernel serialises changes of protection anyway. The handler may come at any write to the heap, also of the runtime's and whatever lock
 * that holds: hence the lock's rank, the last one, and who holds it does not touch the heap. A thread stopped by a stop of the world must not hold
 * it. Inside the runtime it is not stopped; the handler, and dirty_hold in user code, block all signals first. (The handler leaves them blocked:
 * the return from it puts back the mask that the kernel has kept.) A fork may find the lock held by a thread that the child does not have
 * (dirty_forked), with a bit cleared and the page still protected: so a fault where no bit is set is resolved as well.
 *
 * A fault in memory of the heap that is in use, and that is not an attempt to run it, is always ours, as nobody else protects it.
 *
 * [MAPS] Each run of armed pages and each run of others is a mapping to the kernel, of which it allows vm.max_map_count (65530), and the host has a
 * right to its own. So `runs` counts, and the more there are of what we allow ourselves (a quarter), the more pages one fault sets free together:
 * one; from half of it on 16; from three quarters on 128; then all in a group. If it is used up, or the kernel refuses, all of the heap is let go:
 * everything counts as written, and marking beside the program gains nothing in that cycle. Runs are counted inside of groups of 512 pages, those
 * that end at the border of two not, so a heap of 64 GiB may have 32768 more: with what we allow ourselves still within the default. (The kernel
 * joins neighbours again only if the mapping they once were had been touched before it was cut up. A heap has been.)
 *
 * dirty_hold. A system call that writes into a protected page fails with EFAULT, some after they have taken a message from its queue, so that to
 * try again is no remedy. Pages that are held are let go first, and a group with such pages is not armed until they are released. */
#include "os/loader.h"
#include "os/dirty_way.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "base/bits.h"
#include "base/fail.h"
#include "base/lock.h"
#include "base/syscall.h"
#include "os/vm.h"

#define GROUP 512u /* pages */
#define MAPS_DEFAULT 65530

static struct {
    /* fixed after start */
    uintptr_t lo, hi;
    size_t page;
    int64_t runs_most;
    void *tables;
    size_t tables_bytes;
    /* [DIRTY] the lock's */
    struct lock lock;
    uint64_t *map;
    uint32_t *held;     /* of each group: by how many calls */
    int64_t runs;       /* ends of runs inside of groups */
    w_uptr committed;   /* read by handlers: usable from lo to here. Grows */
} prot = { .lock = LOCK_INIT(RANK_DIRTY) };

/* ---- pages and groups, by index from lo; under the lock -------------------------------------------------------------- */

static size_t index_of(uintptr_t p) { return (p - prot.lo) / prot.page; }
static uintptr_t address_of(size_t i) { return prot.lo + i * prot.page; }
static size_t end_of_group(size_t i, size_t to) { return w_min(w_align_down(i, GROUP) + GROUP, to); }

static int64_t runs_in_group(size_t i)
{
    const uint64_t *w = &prot.map[i / GROUP * (GROUP / 64)];
    int64_t n = 0;
    uint64_t before = w[0] & 1;
    for (unsigned k = 0; k < GROUP / 64; k++) {
        n += bits_count(w[k] ^ (w[k] << 1 | before));
        before = w[k] >> 63;
    }
    return n;
}

static void fill(size_t from, size_t to, bool on)
{
    for (size_t i = from; i < to; i = w_min((i / 64 + 1) * 64, to)) {
        uint64_t bits = bits_mask((unsigned)(w_min((i / 64 + 1) * 64, to) - i)) << i % 64;
        prot.map[i / 64] = on ? prot.map[i / 64] | bits : prot.map[i / 64] & ~bits;
    }
}

/* Pages of one group. */
static int change(size_t from, size_t to, bool arm)
{
    int r = (int)sys_call3(SYS_mprotect, address_of(from), (to - from) * prot.page, arm ? PROT_READ : PROT_READ | PROT_WRITE);
    if (r != 0)
        return r;
    prot.runs -= runs_in_group(from);
    fill(from, to, arm);
    prot.runs += runs_in_group(from);
    return 0;
}

/* All is one mapping again, so this cannot be refused for want of one. */
static void let_all_go(void)
{
    size_t n = index_of(load_rlx(&prot.committed)); /* rlx: it only grows, and what is new is not armed */
    int r = (int)sys_call3(SYS_mprotect, prot.lo, n * prot.page, PROT_READ | PROT_WRITE);
    if (r != 0)
        w_fatal("the heap's protection cannot be taken away (error %d)", -r);
    memset(prot.map, 0, (n + 63) / 64 * sizeof *prot.map);
    prot.runs = 0;
}

static void let_go(size_t from, size_t to)
{
    if (prot.runs >= prot.runs_most || change(from, to, false) != 0)
        let_all_go();
}

/* [MAPS] */
static size_t grain(void)
{
    int64_t left = prot.runs_most - prot.runs, most = prot.runs_most;
    return left > most / 2 ? 1 : left > most / 4 ? 16 : left > most / 8 ? 128 : GROUP;
}

/* The end of the run of pages from i on, before to, that are as armed as i. */
static size_t run_end(size_t i, size_t to)
{
    bool armed = bits_get(prot.map, i);
    while (i < to) {
        uint64_t others = (armed ? ~prot.map[i / 64] : prot.map[i / 64]) & ~bits_mask(i % 64);
        if (others != 0)
            return w_min(i / 64 * 64 + bits_ctz(others), to);
        i = (i / 64 + 1) * 64;
    }
    return to;
}

/* ---- ranges ---------------------------------------------------------------------------------------------------------- */

static int arm_group(size_t from, size_t to)
{
    int err = 0;
    lock_take(&prot.lock);
    if (prot.held[from / GROUP] == 0)
        err = prot.runs < prot.runs_most ? change(from, to, true) : -ENOMEM;
    lock_drop(&prot.lock);
    return err;
}

static int mprotect_arm(uintptr_t lo, uintptr_t hi)
{
    int err = hi > load_rlx(&prot.committed) ? -EINVAL : 0; /* rlx: only grows. A fault there is not ours */
    for (size_t i = index_of(lo), to = index_of(hi), end; i < to && err == 0; i = end) {
        end = end_of_group(i, to);
        err = arm_group(i, end);
    }
    return err;
}

static int mprotect_disarm(uintptr_t lo, uintptr_t hi)
{
    for (size_t i = index_of(lo), to = index_of(hi), end; i < to; i = end) {
        end = end_of_group(i, to);
        lock_take(&prot.lock);
        let_go(i, end);
        lock_drop(&prot.lock);
    }
    return 0;
}

struct taking { struct dirty_range *out; size_t n, k; bool arm; };

/* Where it has stopped: to, or there is no more room, or an error that is to be returned if nothing else is. */
static size_t take_group(struct taking *t, size_t i, size_t to, int *err)
{
    lock_take(&prot.lock);
    bool arm = t->arm && prot.held[i / GROUP] == 0;
    while (i < to) {
        size_t end = run_end(i, to);
        if (!bits_get(prot.map, i)) {
            size_t k = dirty_put(t->out, t->k, t->n, address_of(i), address_of(end));
            if (k == 0)
                break;
            t->k = k;
            if (arm && (*err = prot.runs < prot.runs_most ? change(i, end, true) : -ENOMEM) != 0)
                break;
        }
        i = end;
    }
    lock_drop(&prot.lock);
    return i;
}

static ptrdiff_t mprotect_take(uintptr_t lo, uintptr_t hi, bool arm, struct dirty_range *out, size_t n, uintptr_t *next)
{
    struct taking t = { out, n, 0, arm };
    int err = 0;
    size_t i = index_of(lo), to = index_of(hi);
    while (i < to) {
        size_t end = end_of_group(i, to), at = take_group(&t, i, end, &err);
        i = at;
        if (at != end)
            break;
    }
    *next = address_of(i);
    return err != 0 ? err : (ptrdiff_t)t.k;
}

static int mprotect_committed(uintptr_t lo, uintptr_t hi)
{
    (void)lo;
    if (hi > load_rlx(&prot.committed)) /* rlx: who commits holds a lock */
        store_rel(&prot.committed, hi); /* rel: the pages are usable; acq in mprotect_fault */
    return 0;
}

/* ---- writes ------------------------------------------------------------------------------------------------------------ */

static uint64_t block_signals(void)
{
    uint64_t all = ~0ull, old = 0;
    sys_call4(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, sizeof all);
    return old;
}

static bool mprotect_fault(uintptr_t addr)
{
    if (addr < prot.lo || addr >= load_acq(&prot.committed)) /* acq: rel in mprotect_committed */
        return false;
    block_signals();
    lock_take(&prot.lock);
    size_t i = index_of(addr), n = grain(), from = w_align_down(i, n);
    let_go(from, w_min(from + n, index_of(load_rlx(&prot.committed)))); /* rlx: only grows */
    lock_drop(&prot.lock);
    return true;
}

static void mprotect_hold(uintptr_t lo, uintptr_t hi, bool hold)
{
    hi = w_min(w_align_up(hi, prot.page), load_acq(&prot.committed)); /* acq: rel in mprotect_committed */
    lo = w_max(w_align_down(lo, prot.page), prot.lo);
    if (lo >= hi)
        return;
    uint64_t mask = block_signals();
    for (size_t i = index_of(lo), to = index_of(hi), end; i < to; i = end) {
        end = end_of_group(i, to);
        lock_take(&prot.lock);
        prot.held[i / GROUP] += hold ? 1 : -1u;
        if (hold && (bits_get(prot.map, i) || run_end(i, end) != end))
            let_go(i, end);
        lock_drop(&prot.lock);
    }
    sys_call4(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, sizeof mask);
}

/* ---- start ------------------------------------------------------------------------------------------------------------- */

static int64_t most_maps(void)
{
    char buf[32] = "";
    long fd = fail_now(FAIL_FD) ? -EMFILE : sys_call4(SYS_openat, -100, "/proc/sys/vm/max_map_count", 0, 0);
    if (fd >= 0) {
        sys_call3(SYS_read, fd, buf, sizeof buf - 1);
        sys_call1(SYS_close, fd);
    }
    long n = atol(buf);
    return n > 0 ? n : MAPS_DEFAULT;
}

static void mprotect_stop(void)
{
    os_vm_free(prot.tables, prot.tables_bytes);
    prot.tables = NULL;
    store_rlx(&prot.committed, prot.lo); /* rlx: nobody runs */
}

/* Nothing is tried: without this call there would be no heap. */
static int mprotect_start(uintptr_t lo, uintptr_t hi, const char **why)
{
    size_t page = os_page_bytes(), groups = ((hi - lo) / page + GROUP - 1) / GROUP, map_bytes = groups * (GROUP / 8);
    loader_exclude(&prot, sizeof prot); /* lo is the address of an object */
    *why = "there is no memory for its table";
    prot.tables_bytes = w_align_up(map_bytes + groups * sizeof *prot.held, page);
    prot.tables = os_vm_reserve(prot.tables_bytes, page);
    if (prot.tables == NULL)
        return -ENOMEM;
    if (os_vm_commit(prot.tables, prot.tables_bytes) != 0) {
        mprotect_stop();
        return -ENOMEM;
    }
    prot.lo = lo;
    prot.hi = hi;
    prot.page = page;
    prot.map = prot.tables;
    prot.held = (void *)((char *)prot.tables + map_bytes);
    prot.runs = 0;
    prot.runs_most = most_maps() / 4;
    store_rlx(&prot.committed, lo); /* rlx: nobody runs */
    return 0;
}

static void mprotect_forked(void) { lock_init(&prot.lock, RANK_DIRTY); }

static int mprotect_after_fork_child(void)
{
    let_all_go();
    memset(prot.held, 0, (index_of(load_rlx(&prot.committed)) + GROUP - 1) / GROUP * sizeof *prot.held); /* rlx: nobody else runs */
    return 0;
}

const struct dirty_way dirty_mprotect = {
    .id = DIRTY_MPROTECT, .does = "found by write protection (mprotect and SIGSEGV)", .holds = true,
    .start = mprotect_start, .stop = mprotect_stop, .committed = mprotect_committed, .arm = mprotect_arm, .disarm = mprotect_disarm,
    .take = mprotect_take, .hold = mprotect_hold, .fault = mprotect_fault, .forked = mprotect_forked,
    .after_fork_child = mprotect_after_fork_child,
};
