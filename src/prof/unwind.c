/* Walking a stack that does not run: that of a parked fiber, of one that waits for us, or a copy of one.
 *
 * libunwind does it in its "remote" form: registers, memory and tables are what our accessors say. So one way serves all cases, nothing
 * outside of the given bytes is ever read however broken the stack is, and the loader is not asked during the walk
 * (the local form would take its lock for each new address).
 *
 * [PRIVATE] libunwind is loaded at the first walk, into a scope of its own, and not linked: it exports the functions by which C++
 * throws exceptions (_Unwind_RaiseException), and a host must keep its own. It also saves the memory in programs that never look.
 * Where it is not installed, frame pointers are followed.
 *
 * Most stacks of a program with many fibers look the same. A walk is a function of the words that it reads, so each walk notes what
 * it read (pointers into the stack as distances); a stack where all of that reads the same has the same return addresses, and need not be walked. */
#include "prof/unwind.h"
#include <dlfcn.h>
#include <libunwind.h>
#include <string.h>
#include "base/atomic.h"
#include "os/vm.h"

/* ---- libunwind ------------------------------------------------------------------------------------- */

int UNW_OBJ(dwarf_search_unwind_table)(unw_addr_space_t, unw_word_t, unw_dyn_info_t *, unw_proc_info_t *, int, void *);

#define STR2(x) #x
#define STR(x) STR2(x)
#define UNWIND_FUNCTIONS(X)                                  \
    X(create, unw_create_addr_space)                         \
    X(caching, unw_set_caching_policy)                       \
    X(flush, unw_flush_cache)                                \
    X(init, unw_init_remote)                                 \
    X(step, unw_step)                                        \
    X(get_reg, unw_get_reg)                                  \
    X(is_signal, unw_is_signal_frame)                        \
    X(search, UNW_OBJ(dwarf_search_unwind_table))

#if defined(__x86_64__)
#define LIBUNWIND "libunwind-x86_64.so.8"
#elif defined(__aarch64__)
#define LIBUNWIND "libunwind-aarch64.so.8"
#endif

/* Guarded by the table of modules (maps_begin), like all that follows. */
static struct {
    bool tried, ready;
#define X(name, function) __typeof__(function) *name;
    UNWIND_FUNCTIONS(X)
#undef X
    unw_addr_space_t space;
    uint32_t generation; /* of the modules that its cache knows */
} lib;

struct walk {
    const struct maps *maps;
    bool all_there; /* of those modules */
    const struct unwind_from *from;
    struct note *note; /* being written; NULL: too long */
};

/* ---- what a walk has read ------------------------------------------------------------------------------ */

#define NOTES 32u
#define NOTE_READS 96u

/* where: the number of a register, or READ_MEM and the distance from lo. value: as it is, or with READ_REL less lo. */
#define READ_MEM 0x80000000u
#define READ_REL 0x40000000u
struct read { uint32_t where; uintptr_t value; };
struct note {
    uint32_t nreads; /* 0: unused */
    bool exact, good;
    uintptr_t bytes; /* of the stack */
    struct read read[NOTE_READS];
    struct unwind_trace trace;
};
static struct note notes[NOTES];

static struct note *note_slot(const struct unwind_from *u)
{
    return &notes[((u->reg[UNW_TDEP_IP] ^ (u->hi - u->lo) << 32) * 0x9e3779b97f4a7c15ull >> 40) % NOTES];
}

static uintptr_t word_at(const struct unwind_from *u, size_t offset)
{
    uintptr_t v;
    memcpy(&v, u->bytes + offset, sizeof v);
    return v;
}

static bool note_fits(const struct note *nt, const struct unwind_from *u)
{
    if (nt->nreads == 0 || nt->bytes != u->hi - u->lo || nt->exact != u->exact)
        return false;
    for (uint32_t i = 0; i < nt->nreads; i++) {
        uint32_t w = nt->read[i].where, at = w & ~(READ_MEM | READ_REL);
        uintptr_t v = w & READ_MEM ? word_at(u, at) : u->reg[at];
        if (v != nt->read[i].value + (w & READ_REL ? u->lo : 0))
            return false;
    }
    return true;
}

static void note_read(struct walk *k, uint32_t where, uintptr_t value)
{
    struct note *nt = k->note;
    const struct unwind_from *u = k->from;
    if (!nt->good)
        return;
    if (nt->nreads == NOTE_READS) {
        nt->good = false;
        return;
    }
    bool rel = value >= u->lo && value <= u->hi;
    nt->read[nt->nreads++] = (struct read){ where | (rel ? READ_REL : 0), rel ? value - u->lo : value };
}

/* ---- accessors ----------------------------------------------------------------------------------------------- */

/* Of a module: code and tables, the same in each walk. What is written meanwhile is no table of anybody's. (No sanitizer understands that.) */
static w_no_sanitize bool read_module(const struct walk *k, void *to, uintptr_t addr, size_t bytes)
{
    if (!k->all_there)
        return os_vm_peek(to, (const void *)addr, bytes) == bytes;
    memcpy(to, (const void *)addr, bytes);
    return true;
}

static int access_mem(unw_addr_space_t as, unw_word_t addr, unw_word_t *val, int write, void *arg)
{
    struct walk *k = arg;
    const struct unwind_from *u = k->from;
    (void)as;
    if (write)
        return -UNW_EINVAL;
    if (addr >= u->lo && addr < u->hi && u->hi - addr >= sizeof *val) {
        *val = word_at(u, addr - u->lo);
        note_read(k, READ_MEM | (uint32_t)(addr - u->lo), *val);
        return 0;
    }
    const struct maps_module *m = maps_find(k->maps, addr);
    if (m != NULL && maps_readable(m, addr, sizeof *val) && read_module(k, val, addr, sizeof *val))
        return 0;
    k->note->good = false;
    return -UNW_EUNSPEC;
}

static int access_reg(unw_addr_space_t as, unw_regnum_t reg, unw_word_t *val, int write, void *arg)
{
    struct walk *k = arg;
    (void)as;
    if (write || (unsigned)reg >= UNWIND_REGS)
        return -UNW_EBADREG;
    *val = k->from->reg[reg];
    note_read(k, (uint32_t)reg, *val);
    return 0;
}

static int access_fpreg(unw_addr_space_t as, unw_regnum_t reg, unw_fpreg_t *val, int write, void *arg)
{
    (void)as, (void)reg, (void)val, (void)write, (void)arg;
    return -UNW_EBADREG;
}

/* The head of .eh_frame_hdr as all linkers write it: a sorted table of pairs of 32-bit distances. */
struct eh_hdr { uint8_t version, frame_enc, count_enc, table_enc; int32_t frame; uint32_t count; };

static int find_proc_info(unw_addr_space_t as, unw_word_t ip, unw_proc_info_t *pi, int need, void *arg)
{
    struct walk *k = arg;
    const struct maps_module *m = maps_find(k->maps, ip);
    struct eh_hdr h;
    if (m == NULL || m->eh_hdr == 0 || m->eh_hdr_bytes < sizeof h)
        return -UNW_ENOINFO;
    if (!read_module(k, &h, m->eh_hdr, sizeof h))
        return -UNW_ENOINFO;
    if (h.version != 1 || h.frame_enc != 0x1b || h.count_enc != 0x03 || h.table_enc != 0x3b ||
        h.count > (m->eh_hdr_bytes - sizeof h) / 8)
        return -UNW_ENOINFO;
    unw_dyn_info_t di = { .start_ip = m->lo, .end_ip = m->hi, .format = UNW_INFO_FORMAT_REMOTE_TABLE };
    di.u.rti.segbase = m->eh_hdr;
    di.u.rti.table_data = m->eh_hdr + sizeof h;
    di.u.rti.table_len = h.count * 8ul / sizeof(unw_word_t);
    return lib.search(as, ip, &di, pi, need, arg);
}

static void put_unwind_info(unw_addr_space_t as, unw_proc_info_t *pi, void *arg) { (void)as, (void)pi, (void)arg; }

static int no_dyn_info(unw_addr_space_t as, unw_word_t *addr, void *arg)
{
    (void)as, (void)addr, (void)arg;
    return -UNW_ENOINFO;
}

static int no_resume(unw_addr_space_t as, unw_cursor_t *c, void *arg)
{
    (void)as, (void)c, (void)arg;
    return -UNW_EINVAL;
}

bool unwind_load(void)
{
    static unw_accessors_t accessors = {
        .find_proc_info = find_proc_info,
        .put_unwind_info = put_unwind_info,
        .get_dyn_info_list_addr = no_dyn_info,
        .access_mem = access_mem,
        .access_reg = access_reg,
        .access_fpreg = access_fpreg,
        .resume = no_resume,
    };
    if (lib.tried)
        return lib.ready;
    lib.tried = true;
    void *so = dlopen(LIBUNWIND, RTLD_NOW | RTLD_LOCAL);
    if (so == NULL)
        return false;
    bool all = true;
#define X(name, function)                                              \
    lib.name = (__typeof__(lib.name))dlsym(so, STR(function));         \
    all = all && lib.name != NULL;
    UNWIND_FUNCTIONS(X)
#undef X
    if (all)
        lib.space = lib.create(&accessors, 0);
    if (lib.space != NULL)
        lib.caching(lib.space, UNW_CACHE_GLOBAL);
    lib.ready = lib.space != NULL;
    return lib.ready;
}

/* ---- the walk --------------------------------------------------------------------------------------------------- */

/* Keeps the first UNWIND_INNER and the last UNWIND_OUTER: these in a ring, which trace_end turns into order. */
static void trace_add(struct unwind_trace *t, uintptr_t pc)
{
    if (t->n < w_countof(t->pc))
        t->pc[t->n++] = pc;
    else
        t->pc[UNWIND_INNER + t->elided++ % UNWIND_OUTER] = pc;
}

static void trace_end(struct unwind_trace *t)
{
    uintptr_t ring[UNWIND_OUTER];
    if (t->elided == 0)
        return;
    memcpy(ring, t->pc + UNWIND_INNER, sizeof ring);
    for (uint32_t i = 0; i < UNWIND_OUTER; i++)
        t->pc[UNWIND_INNER + i] = ring[(t->elided + i) % UNWIND_OUTER];
}

static void walk_tables(struct walk *k, struct unwind_trace *out)
{
    unw_cursor_t c;
    unw_word_t ip, sp, last_sp = 0;
    bool exact = k->from->exact;
    size_t left = (k->from->hi - k->from->lo) / sizeof(uintptr_t) + 2; /* frames cannot be smaller, so more would be a circle */
    if (lib.init(&c, lib.space, k) < 0)
        return;
    do {
        if (lib.get_reg(&c, UNW_REG_IP, &ip) < 0 || lib.get_reg(&c, UNW_REG_SP, &sp) < 0 || ip == 0 || sp < last_sp)
            return;
        trace_add(out, exact ? ip + 1 : ip);
        exact = lib.is_signal(&c) > 0;
        last_sp = sp;
    } while (--left > 0 && lib.step(&c) > 0);
}

/* Both ABIs: the frame pointer points to that of the caller, and the return address lies above it. */
static void walk_frame_pointers(const struct unwind_from *u, struct unwind_trace *out)
{
#if defined(__x86_64__)
    uintptr_t fp = u->reg[6];
#else
    uintptr_t fp = u->reg[29];
#endif
    uintptr_t pc = u->reg[UNW_TDEP_IP] + u->exact, low = u->lo;
    while (pc != 0) {
        trace_add(out, pc);
        if (fp < low || fp % sizeof fp != 0 || fp + 16 > u->hi)
            return;
        low = fp + 16;
        pc = word_at(u, fp + 8 - u->lo);
        fp = word_at(u, fp - u->lo);
    }
}

void unwind_walk(const struct maps *t, bool all_there, const struct unwind_from *u, struct unwind_trace *out)
{
    if (lib.generation != t->generation) {
        lib.generation = t->generation;
        for (unsigned i = 0; i < NOTES; i++)
            notes[i].nreads = 0;
        if (lib.ready)
            lib.flush(lib.space, 0, 0);
    }
    struct note *nt = note_slot(u);
    if (note_fits(nt, u)) {
        *out = nt->trace;
        return;
    }
    nt->nreads = 0;
    nt->good = all_there;
    out->n = out->elided = 0;
    if (lib.ready) {
        struct walk k = { t, all_there, u, nt };
        walk_tables(&k, out);
    }
    if (out->n <= 1) {
        nt->good = false;
        out->n = 0;
        walk_frame_pointers(u, out);
    }
    trace_end(out);
    if (!nt->good) {
        nt->nreads = 0;
        return;
    }
    nt->exact = u->exact;
    nt->bytes = u->hi - u->lo;
    nt->trace = *out;
}

/* ---- registers ----------------------------------------------------------------------------------------------------- */

w_no_sanitize void unwind_from_frame(struct unwind_from *u, const void *sp, const void *hi)
{
    const struct arch_frame *fr = sp;
    *u = (struct unwind_from){ .lo = (uintptr_t)(fr + 1), .hi = (uintptr_t)hi, .bytes = (const char *)(fr + 1) };
#if defined(__x86_64__)
    u->reg[3] = fr->rbx;
    u->reg[6] = fr->rbp;
    u->reg[7] = u->lo;
    u->reg[12] = fr->r12;
    u->reg[13] = fr->r13;
    u->reg[14] = fr->r14;
    u->reg[15] = fr->r15;
    u->reg[16] = fr->rip;
#else
    memcpy(&u->reg[19], &fr->x19, 12 * sizeof fr->x19); /* x19 to x30 */
    u->reg[31] = u->lo;
    u->reg[32] = fr->x30;
#endif
}

void unwind_from_signal(struct unwind_from *u, const ucontext_t *uc, const void *hi)
{
    uintptr_t lo = arch_uc_sp(uc);
    *u = (struct unwind_from){ .lo = lo, .hi = (uintptr_t)hi, .bytes = (const char *)lo, .exact = true };
#if defined(__x86_64__)
    static const uint8_t of[UNWIND_REGS] = { REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI, REG_RBP, REG_RSP, REG_R8,
                                             REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP };
    for (unsigned i = 0; i < UNWIND_REGS; i++)
        u->reg[i] = (uintptr_t)uc->uc_mcontext.gregs[of[i]];
#else
    memcpy(u->reg, uc->uc_mcontext.regs, 31 * sizeof u->reg[0]);
    u->reg[31] = uc->uc_mcontext.sp;
    u->reg[32] = uc->uc_mcontext.pc;
#endif
}
