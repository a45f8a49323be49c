/* See roots.h. */
#include "gc/roots.h"
#include <errno.h>
#include <string.h>
#include "gc/finalize.h"
#include "gc/mend.h"
#include "gc/special.h"
#include "os/loader.h"
#include "os/vm.h"

#define PIECE_BYTES ((uintptr_t)128 << 10)
#define BLOCK_SLOTS 512u

struct handle_slot {
    void *p;
    uint32_t gen;  /* odd: in use */
    uint32_t next; /* free: index + 1 of the next free one */
};
struct handle_block { struct handle_slot slot[BLOCK_SLOTS]; };

static struct {
    /* by who is busy with a cycle, and in its stops */
    struct loader_range *data;
    size_t ndata, data_cap;
    size_t pieces, blocks; /* jobs beside the program: written before they begin */
    /* the rest: under lock, or in a stop */
    struct lock lock;
    struct loader_range *user;
    size_t nuser, user_cap;
    struct handle_block **block;
    size_t nblocks, blocks_cap;
    uint32_t free_handle; /* index + 1; 0: none */
} roots = { .lock = LOCK_INIT(RANK_ROOTS) };

/* Room for one more element. */
static bool reserve(void **v, size_t *cap, size_t n, size_t elem)
{
    if (n < *cap)
        return true;
    size_t c = w_max((size_t)16, 2 * *cap);
    void *p = off_realloc(OFF_GC, *v, c * elem);
    if (p == NULL)
        return false;
    *v = p;
    *cap = c;
    return true;
}

/* The zero data of the private jemalloc, 2 MiB of tables; the symbols are the Makefile's. */
extern char off_jem_bss[], off_jem_bss_end[];

int roots_start(void)
{
    loader_exclude(off_jem_bss, (size_t)(off_jem_bss_end - off_jem_bss));
    loader_exclude(&heap, sizeof heap); /* its base is the address of an object */
    loader_exclude(&roots, sizeof roots);
    mend_exclude();
    return loader_start();
}

void roots_stop(void)
{
    off_free(OFF_GC, roots.data);
    off_free(OFF_GC, roots.user);
    for (size_t i = 0; i < roots.nblocks; i++)
        off_free(OFF_GC, roots.block[i]);
    off_free(OFF_GC, roots.block);
    memset(&roots, 0, sizeof roots);
    lock_init(&roots.lock, RANK_ROOTS);
    loader_stop();
}

int roots_prepare(void)
{
    int err = loader_refresh();
    if (err != 0)
        return err;
    size_t n;
    const struct loader_range *r = loader_data(&n);
    roots.ndata = 0;
    for (size_t i = 0; i < n; i++)
        for (uintptr_t lo = r[i].lo; lo < r[i].hi; lo += PIECE_BYTES) {
            if (!reserve((void **)&roots.data, &roots.data_cap, roots.ndata, sizeof *roots.data))
                return -ENOMEM;
            roots.data[roots.ndata++] = (struct loader_range){ lo, w_min(lo + PIECE_BYTES, r[i].hi), r[i].stays };
        }
    return 0;
}

/* ---- jobs --------------------------------------------------------------------------------------------------- */

size_t roots_jobs_stw(void) { return roots.ndata + roots.nuser + roots.nblocks + specials_jobs_stw(); }

static void mark_copy(void *m, const void *lo, const void *hi) { mark_range(m, lo, hi); }

static void data_job(size_t i, struct marker *m)
{
    struct loader_range r = roots.data[i];
    if (r.stays)
        mark_range(m, (void *)r.lo, (void *)r.hi);
    else
        loader_read(r.lo, r.hi, mark_copy, m);
}

void roots_job_stw(size_t i, struct marker *m)
{
    if (i < roots.ndata) {
        data_job(i, m);
        return;
    }
    i -= roots.ndata;
    if (i < roots.nuser) {
        mark_range(m, (void *)roots.user[i].lo, (void *)roots.user[i].hi);
        return;
    }
    i -= roots.nuser;
    if (i < roots.nblocks) {
        for (unsigned k = 0; k < BLOCK_SLOTS; k++)
            mark_word(m, (uintptr_t)roots.block[i]->slot[k].p);
        return;
    }
    specials_job_stw(i - roots.nblocks, m);
}

/* Pieces of the program's ranges, one after the other. */
static size_t user_pieces_locked(size_t want, struct loader_range *out)
{
    size_t n = 0;
    for (size_t i = 0; i < roots.nuser; i++) {
        const struct loader_range *r = &roots.user[i];
        size_t pieces = (r->hi - r->lo + PIECE_BYTES - 1) / PIECE_BYTES;
        if (want - n < pieces) {
            uintptr_t lo = r->lo + (want - n) * PIECE_BYTES;
            *out = (struct loader_range){ lo, w_min(lo + PIECE_BYTES, r->hi), true };
            return want + 1;
        }
        n += pieces;
    }
    return n;
}

size_t roots_jobs(void)
{
    struct loader_range none;
    lock_take(&roots.lock);
    roots.pieces = user_pieces_locked(SIZE_MAX, &none);
    roots.blocks = roots.nblocks;
    lock_drop(&roots.lock);
    return roots.ndata + roots.pieces + roots.blocks + specials_jobs();
}

/* Under the lock, as a range may be unmapped when it has been removed. What is found waits till after. */
static void user_job(size_t i, struct marker *m)
{
    struct loader_range r = { 0 };
    lock_take(&roots.lock);
    if (user_pieces_locked(i, &r) == i + 1)
        mark_range(m, (void *)r.lo, (void *)r.hi);
    lock_drop(&roots.lock);
}

static void handles_job(size_t i, struct marker *m)
{
    lock_take(&roots.lock);
    for (unsigned k = 0; k < BLOCK_SLOTS; k++)
        mark_word(m, (uintptr_t)roots.block[i]->slot[k].p);
    lock_drop(&roots.lock);
}

void roots_job(size_t i, struct marker *m)
{
    if (i < roots.ndata)
        data_job(i, m);
    else if ((i -= roots.ndata) < roots.pieces)
        user_job(i, m);
    else if ((i -= roots.pieces) < roots.blocks)
        handles_job(i, m);
    else
        specials_job(i - roots.blocks, m);
}

/* ---- one by one --------------------------------------------------------------------------------------------- */

static w_no_sanitize void words(root_fn *fn, void *arg, enum gc_root_kind kind, uint64_t owner, uintptr_t lo, uintptr_t hi)
{
    for (lo = w_align_up(lo, 8); lo + 8 <= hi; lo += 8)
        fn(arg, kind, owner, lo, *(const uintptr_t *)lo);
}

/* As loader_read, but that it is known where the words lie. */
static void words_that_may_go(root_fn *fn, void *arg, uintptr_t lo, uintptr_t hi)
{
    uintptr_t buf[512];
    for (lo = w_align_up(lo, 8); lo + 8 <= hi;) {
        size_t want = w_min(hi - lo, sizeof buf), got = os_vm_peek(buf, (void *)lo, want) / 8;
        for (size_t i = 0; i < got; i++)
            fn(arg, GC_ROOT_DATA, 0, lo + 8 * i, buf[i]);
        lo = got == want / 8 ? lo + 8 * got : w_align_down(lo + 8 * got, 4096) + 4096;
    }
}

void roots_each_stw(root_fn *fn, void *arg)
{
    for (size_t i = 0; i < roots.ndata; i++) {
        if (roots.data[i].stays)
            words(fn, arg, GC_ROOT_DATA, 0, roots.data[i].lo, roots.data[i].hi);
        else
            words_that_may_go(fn, arg, roots.data[i].lo, roots.data[i].hi);
    }
    for (size_t i = 0; i < roots.nuser; i++)
        words(fn, arg, GC_ROOT_RANGE, roots.user[i].lo, roots.user[i].lo, roots.user[i].hi);
    for (size_t i = 0; i < roots.nblocks; i++)
        for (unsigned k = 0; k < BLOCK_SLOTS; k++) {
            const struct handle_slot *s = &roots.block[i]->slot[k];
            fn(arg, GC_ROOT_HANDLE, (uint64_t)s->gen << 32 | (i * BLOCK_SLOTS + k + 1), 0, (uintptr_t)s->p);
        }
    specials_each_stw(fn, arg);
    finalize_each_stw(fn, arg);
}

/* ---- ranges of the program ------------------------------------------------------------------------------------ */

int gc_root_add(void *p, size_t bytes)
{
    if (p == NULL || bytes == 0 || (uintptr_t)p + bytes < (uintptr_t)p)
        return -EINVAL;
    lock_take(&roots.lock);
    bool ok = reserve((void **)&roots.user, &roots.user_cap, roots.nuser, sizeof *roots.user);
    if (ok)
        roots.user[roots.nuser++] = (struct loader_range){ (uintptr_t)p, (uintptr_t)p + bytes, true };
    lock_drop(&roots.lock);
    return ok ? 0 : -ENOMEM;
}

int gc_root_remove(void *p)
{
    int err = -ENOENT;
    lock_take(&roots.lock);
    for (size_t i = roots.nuser; i-- > 0 && err != 0;)
        if (roots.user[i].lo == (uintptr_t)p) {
            roots.user[i] = roots.user[--roots.nuser];
            err = 0;
        }
    lock_drop(&roots.lock);
    return err;
}

/* ---- handles: generation in the upper half, index + 1 in the lower -------------------------------------------------- */

static bool add_block(void)
{
    if (roots.nblocks >= UINT32_MAX / BLOCK_SLOTS - 1 ||
        !reserve((void **)&roots.block, &roots.blocks_cap, roots.nblocks, sizeof *roots.block))
        return false;
    struct handle_block *b = off_zalloc(OFF_GC, sizeof *b);
    if (b == NULL)
        return false;
    uint32_t first = (uint32_t)roots.nblocks * BLOCK_SLOTS;
    for (unsigned k = BLOCK_SLOTS; k-- > 0;) {
        b->slot[k].next = roots.free_handle;
        roots.free_handle = first + k + 1;
    }
    roots.block[roots.nblocks++] = b;
    return true;
}

static struct handle_slot *slot_at(uint32_t i) { return &roots.block[i / BLOCK_SLOTS]->slot[i % BLOCK_SLOTS]; }

static struct handle_slot *find_locked(weft_handle h)
{
    uint32_t i = (uint32_t)h - 1;
    if ((uint32_t)h == 0 || i >= roots.nblocks * BLOCK_SLOTS)
        return NULL;
    struct handle_slot *s = slot_at(i);
    return s->gen == h >> 32 && s->gen % 2 == 1 ? s : NULL;
}

weft_handle gc_handle_new(void *p)
{
    weft_handle h = 0;
    lock_take(&roots.lock);
    if (roots.free_handle != 0 || add_block()) {
        uint32_t i = roots.free_handle;
        struct handle_slot *s = slot_at(i - 1);
        roots.free_handle = s->next;
        s->p = p;
        s->gen++;
        h = (weft_handle)s->gen << 32 | i;
    }
    lock_drop(&roots.lock);
    return h;
}

void *gc_handle_get(weft_handle h)
{
    lock_take(&roots.lock);
    struct handle_slot *s = find_locked(h);
    void *p = s != NULL ? s->p : NULL;
    lock_drop(&roots.lock);
    return p;
}

int gc_handle_free(weft_handle h)
{
    lock_take(&roots.lock);
    struct handle_slot *s = find_locked(h);
    if (s != NULL) {
        s->p = NULL;
        s->gen++;
        s->next = roots.free_handle;
        roots.free_handle = (uint32_t)h;
    }
    lock_drop(&roots.lock);
    return s != NULL ? 0 : -ENOENT;
}
