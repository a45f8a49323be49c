/* See loader.h.
 *
 * The fingerprint. glibc's list of modules (_r_debug.r_map) changes between r_state leaving RT_CONSISTENT and coming back to it; a
 * module that is unloaded is unmapped only within. So, when in a stop r_state is RT_CONSISTENT and the walk over the list gives the same hash as
 * it gave under the loader's lock, every range of the table is mapped. A program without that list (static) has no changes.
 *
 * Thread-local storage by glibc's ABI: the thread's DTV has a slot per module with the address of its block. A slot is filled late, by the first
 * access through it, also for blocks in the static area; therefore that area (sizes from the loader, if it tells) is given whole. A slot is emptied
 * late, too: after a dlclose, threads keep the block of a module whose number the next dlopen gives to another one, with another size; and a thread
 * may stand still in the middle of replacing it. So of other blocks only what can be read is given. A module loaded with dlmopen in a name space of
 * its own is not seen. */
#include "os/loader.h"
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <string.h>
#include "base/offheap.h"
#include "os/vm.h"
#if defined(W_ASAN) || defined(W_TSAN)
#include <sanitizer/common_interface_defs.h>
#endif

#define MODULES_MAX 100000u
#define PIECE_WORDS 2048u

static struct loader {
    struct loader_range *data; /* sorted by nothing */
    size_t ndata, cap;
    size_t *tls_bytes;         /* by module id */
    size_t ntls, tls_cap;
    uint64_t print;
    unsigned long long adds, subs;
    bool known;                /* adds and subs are */
    bool failed;
    size_t tls_static_bytes, tcb_bytes; /* 0: unknown */
    struct loader_range excluded[8];
    unsigned nexcluded;
} loader;

/* ---- fingerprint ----------------------------------------------------------------------------------------- */

/* Of the list as it may be just now, while threads are stopped anywhere and others change it: no lock. The end of a list that is being changed is
 * found too. */
static w_no_sanitize uint64_t fingerprint(void)
{
    uint64_t h = 1;
    struct link_map copy, *m = _r_debug.r_map;
    for (unsigned i = 0; m != NULL && i < MODULES_MAX; i++, m = copy.l_next) {
        if (os_vm_peek(&copy, m, sizeof copy) != sizeof copy)
            return 0;
        h = (h ^ (uintptr_t)m ^ (uintptr_t)copy.l_ld << 17 ^ copy.l_addr) * 0x9e3779b97f4a7c15ull + 1;
    }
    return h;
}

w_no_sanitize bool loader_current_stw(void)
{
    return loader.known && (_r_debug.r_map == NULL || (_r_debug.r_state == RT_CONSISTENT && fingerprint() == loader.print));
}

/* ---- asking the loader -------------------------------------------------------------------------------------- */

static void add_data(uintptr_t lo, uintptr_t hi, bool stays)
{
    if (lo >= hi)
        return;
    if (loader.ndata == loader.cap) {
        size_t cap = loader.cap != 0 ? 2 * loader.cap : 64;
        struct loader_range *d = off_realloc(OFF_GC, loader.data, cap * sizeof *d);
        if (d == NULL) {
            loader.failed = true;
            return;
        }
        loader.data = d;
        loader.cap = cap;
    }
    loader.data[loader.ndata++] = (struct loader_range){ lo, hi, stays };
}

/* Adds [lo, hi) without what is excluded, from the i-th on. */
static void add_included(uintptr_t lo, uintptr_t hi, bool stays, unsigned i)
{
    for (; i < loader.nexcluded; i++) {
        struct loader_range x = loader.excluded[i];
        if (x.lo < hi && lo < x.hi) {
            if (lo < x.lo)
                add_included(lo, x.lo, stays, i + 1);
            lo = x.hi;
            if (lo >= hi)
                return;
        }
    }
    add_data(lo, hi, stays);
}

static void add_tls(size_t id, size_t bytes)
{
    if (id >= loader.tls_cap) {
        size_t cap = w_max(id + 1, 2 * loader.tls_cap);
        size_t *t = off_realloc(OFF_GC, loader.tls_bytes, cap * sizeof *t);
        if (t == NULL) {
            loader.failed = true;
            return;
        }
        memset(t + loader.tls_cap, 0, (cap - loader.tls_cap) * sizeof *t);
        loader.tls_bytes = t;
        loader.tls_cap = cap;
    }
    loader.tls_bytes[id] = bytes;
    loader.ntls = w_max(loader.ntls, id + 1);
}

static bool holds(const struct dl_phdr_info *info, uintptr_t at)
{
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
        if (ph->p_type == PT_LOAD && at - (info->dlpi_addr + ph->p_vaddr) < ph->p_memsz)
            return true;
    }
    return false;
}

/* The program, and the module that we are part of. */
static bool cannot_go(const struct dl_phdr_info *info)
{
    return info->dlpi_name == NULL || info->dlpi_name[0] == 0 || holds(info, (uintptr_t)&loader);
}

/* A sanitizer's library: tables of up to 50 MB, without a pointer of the program. clang links it into the program, where they stay in. */
static bool is_sanitizer(const struct dl_phdr_info *info)
{
#if defined(W_ASAN) || defined(W_TSAN)
    return holds(info, (uintptr_t)__sanitizer_print_stack_trace);
#else
    return (void)info, false;
#endif
}

static int visit(struct dl_phdr_info *info, size_t size, void *arg)
{
    bool *first = arg;
    (void)size;
    if (*first) {
        if (loader.known && loader.adds == info->dlpi_adds && loader.subs == info->dlpi_subs &&
            loader.print == fingerprint())
            return 1;
        *first = false;
        loader.ndata = loader.ntls = 0;
        if (loader.tls_bytes != NULL)
            memset(loader.tls_bytes, 0, loader.tls_cap * sizeof *loader.tls_bytes);
        loader.failed = false;
        loader.known = true;
        loader.adds = info->dlpi_adds;
        loader.subs = info->dlpi_subs;
        loader.print = fingerprint(); /* under the loader's lock: the list stands still */
    }
    const ElfW(Phdr) *relro = NULL, *ph = info->dlpi_phdr;
    bool stays = cannot_go(info), left_out = !stays && is_sanitizer(info);
    for (size_t i = 0; i < info->dlpi_phnum; i++)
        if (ph[i].p_type == PT_GNU_RELRO)
            relro = &ph[i];
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        uintptr_t lo = info->dlpi_addr + ph[i].p_vaddr, hi = lo + ph[i].p_memsz;
        if (ph[i].p_type == PT_TLS && info->dlpi_tls_modid != 0)
            add_tls(info->dlpi_tls_modid, ph[i].p_memsz);
        if (ph[i].p_type != PT_LOAD || !(ph[i].p_flags & PF_W) || left_out)
            continue;
        if (relro != NULL && relro->p_vaddr >= ph[i].p_vaddr && relro->p_vaddr < ph[i].p_vaddr + ph[i].p_memsz) {
            uintptr_t rlo = info->dlpi_addr + relro->p_vaddr, rhi = w_align_down(rlo + relro->p_memsz, 4096);
            add_included(lo, w_min(rlo, hi), stays, 0);
            lo = w_max(lo, w_max(rlo, rhi));
        }
        add_included(lo, hi, stays, 0);
    }
    return 0;
}

int loader_refresh(void)
{
    bool first = true;
    dl_iterate_phdr(visit, &first);
    if (loader.failed)
        loader.known = false; /* ask again next time */
    return loader.failed ? -ENOMEM : 0;
}

void loader_exclude(const void *p, size_t bytes)
{
    w_assert(loader.nexcluded < w_countof(loader.excluded));
    loader.excluded[loader.nexcluded++] = (struct loader_range){ (uintptr_t)p, (uintptr_t)p + bytes, true };
}

/* Names private to glibc, which its debugger library and the sanitizers use as well. */
static void ask_sizes(void)
{
    union { void *p; void (*fn)(size_t *, size_t *); } info = { dlsym(RTLD_DEFAULT, "_dl_get_tls_static_info") };
    const uint32_t *tcb = dlsym(RTLD_DEFAULT, "_thread_db_sizeof_pthread");
    size_t align;
    if (info.p != NULL && tcb != NULL) {
        info.fn(&loader.tls_static_bytes, &align);
        loader.tcb_bytes = *tcb;
    }
}

int loader_start(void)
{
    loader_exclude(&loader, sizeof loader);
    ask_sizes();
    return loader_refresh();
}

void loader_stop(void)
{
    off_free(OFF_GC, loader.data);
    off_free(OFF_GC, loader.tls_bytes);
    memset(&loader, 0, sizeof loader);
}

const struct loader_range *loader_data(size_t *n)
{
    *n = loader.ndata;
    return loader.data;
}

void loader_read(uintptr_t lo, uintptr_t hi, loader_range_fn *fn, void *arg)
{
    uintptr_t buf[PIECE_WORDS];
    lo = w_align_up(lo, sizeof *buf);
    while (lo + sizeof *buf <= hi) {
        size_t want = w_min(hi - lo, sizeof buf), got = w_align_down(os_vm_peek(buf, (void *)lo, want), sizeof *buf);
        fn(arg, buf, (char *)buf + got);
        lo = got == want ? lo + got : w_align_down(lo + got, 4096) + 4096;
    }
}

/* ---- thread-local storage -------------------------------------------------------------------------------------- */

union dtv { size_t counter; struct { void *at, *to_free; } block; };
#define DTV_UNALLOCATED ((void *)-1l)
#define DTV_PIECE 64u

#if defined(__x86_64__)
#define DTV_OFFSET 8 /* blocks below the thread pointer, the thread's control block above it */
#elif defined(__aarch64__)
#define DTV_OFFSET 0 /* the control block below, blocks above */
#endif

/* The control block and the blocks that lie beside it. They live as long as the thread. */
static struct loader_range static_area(uintptr_t tp)
{
    if (loader.tcb_bytes == 0)
        return (struct loader_range){ 0, 0, true };
#if defined(__x86_64__) /* the size includes the control block */
    uintptr_t hi = tp + loader.tcb_bytes;
    return (struct loader_range){ hi - w_max(loader.tls_static_bytes, loader.tcb_bytes), hi, true };
#elif defined(__aarch64__)
    return (struct loader_range){ tp - loader.tcb_bytes, tp + loader.tls_static_bytes, true };
#endif
}

bool loader_beside(uintptr_t tp, const void *at)
{
    struct loader_range r = static_area(tp);
    return (uintptr_t)at >= r.lo && (uintptr_t)at < r.hi;
}

/* Blocks of the modules from first on, as many as dtv has. */
static void blocks(const union dtv *dtv, size_t first, size_t n, struct loader_range beside, loader_range_fn *fn, void *arg)
{
    for (size_t i = 0; i < n; i++) {
        uintptr_t at = (uintptr_t)dtv[i].block.at;
        size_t bytes = loader.tls_bytes[first + i];
        if (at != 0 && at != (uintptr_t)DTV_UNALLOCATED && (at < beside.lo || at >= beside.hi))
            loader_read(at, at + bytes, fn, arg);
    }
}

w_no_sanitize void loader_tls(uintptr_t tp, loader_range_fn *fn, void *arg)
{
    struct loader_range beside = static_area(tp);
    if (beside.lo != beside.hi)
        fn(arg, (void *)beside.lo, (void *)beside.hi);
    const union dtv *dtv = *(const union dtv **)(tp + DTV_OFFSET);
    union dtv copy[DTV_PIECE];
    if (dtv == NULL || os_vm_peek(copy, dtv - 1, sizeof *copy) != sizeof *copy) /* a thread that runs may get a larger one just now */
        return;
    size_t n = w_min(copy[0].counter + 1, loader.ntls);
    for (size_t id = 1; id < n; id += DTV_PIECE) {
        size_t some = w_min(n - id, DTV_PIECE);
        blocks(copy, id, os_vm_peek(copy, dtv + id, some * sizeof *copy) / sizeof *copy, beside, fn, arg);
    }
}
