/* From unwind tables to rules: see rules.h.
 *
 * Compilers write for every instruction how the caller's registers are found (.eh_frame, for exceptions): a program per function, in a small language of
 * its own, and a sorted table of functions (.eh_frame_hdr). Of all that we want three things only: where the frame ends (the cfa), where the return
 * address is, and where the caller's frame pointer is, as other frames may be told from it. With these, in nearly all functions, come few constants.
 *
 * Why this is not left to libunwind, which walks stacks elsewhere (unwind.c): each of its steps takes locks and memory pools of its own, and reads as
 * many tables again; its remote form keeps the memory of each function that it has looked up; and its stack is some 4 KiB deep, more than a host's
 * alternate stack may have left. What is here can be read, takes a kilobyte of stack, no lock and no memory. A test compares the two over all functions of the
 * libraries that it has at hand.
 *
 * A module may be unloaded while its tables are read. So where it may (what stays is told below), they are read through the kernel (os_vm_peek), which does
 * not mind, in three pieces: the entries of some functions, what the function has in common with others, and its own. What is found there instead
 * gives wrong rules, which walks do not trust (walk.c).
 *
 * What cannot be said in a rule (OTHER_TOO_HARD): frames that end at a register other than sp and fp, as in the first instructions of functions that align
 * their stack, or in hand-written code. */
#include "prof/rules.h"
#include <elf.h>
#include <link.h>
#include <pthread.h>
#include <stdlib.h> /* qsort */
#include <string.h>
#include "base/offheap.h"
#include "os/vm.h"

#if defined(__x86_64__)
#define REG_FP 6u
#define REG_SP 7u
#define REG_RA 16u
#define REG_PC 16u
#else
#define REG_FP 29u
#define REG_SP 31u
#define REG_RA 30u
#define REG_PC ~0u
#endif

/* ---- modules --------------------------------------------------------------------------------------------- */

/* Held while the loader is asked: a child of a fork would find the loader's lock taken for ever. */
static pthread_mutex_t asking = PTHREAD_MUTEX_INITIALIZER;

static void fork_prepare(void) { pthread_mutex_lock(&asking); }
static void fork_done(void) { pthread_mutex_unlock(&asking); }

/* As in maps.c: after that of sched/fork.c, so it runs before the world is stopped. */
__attribute__((constructor(105))) static void fork_register(void) { pthread_atfork(fork_prepare, fork_done, fork_done); }

struct eh_head { uint8_t version, frame_enc, count_enc, table_enc; int32_t frame; uint32_t count; };
struct eh_entry { int32_t code, fde; }; /* from eh_head */

/* The form that all linkers write. */
static bool head_is_known(const struct eh_head *h, size_t bytes)
{
    return bytes >= sizeof *h && h->version == 1 && h->frame_enc == 0x1b && h->count_enc == 0x03 && h->table_enc == 0x3b &&
           h->count <= (bytes - sizeof *h) / sizeof(struct eh_entry);
}

static void read_segments(struct rules_module *m, const struct dl_phdr_info *info)
{
    uintptr_t head = 0;
    size_t head_bytes = 0;
    *m = (struct rules_module){ .lo = UINTPTR_MAX, .code_lo = UINTPTR_MAX };
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
        uintptr_t at = info->dlpi_addr + ph->p_vaddr;
        if (ph->p_type == PT_GNU_EH_FRAME) {
            head = at;
            head_bytes = ph->p_memsz;
        } else if (ph->p_type == PT_LOAD) {
            m->lo = w_min(m->lo, at);
            m->hi = w_max(m->hi, at + ph->p_memsz);
            if (ph->p_flags & PF_X) {
                m->code_lo = w_min(m->code_lo, at);
                m->code_hi = w_max(m->code_hi, at + ph->p_memsz);
            }
        }
    }
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
        uintptr_t at = info->dlpi_addr + ph->p_vaddr;
        if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_R) || head < at || head >= at + ph->p_memsz)
            continue;
        if (head_is_known((const struct eh_head *)head, w_min(head_bytes, at + ph->p_memsz - head))) {
            m->head = head;
            m->count = ((const struct eh_head *)head)->count;
            m->data_lo = at;
            m->data_hi = at + ph->p_memsz;
        }
    }
}

/* What cannot go: the program, our own (which is linked so), what these need, what that needs; and what the kernel gives. Each is known by its name, of
 * which there is only one in a process. Names stay as long as the loader is being asked. (Under its lock, of which no sanitizer knows.) */
struct need { const char *name; uintptr_t strings; const ElfW(Dyn) *dynamic; };

static w_no_sanitize struct need needs_read(const struct rules_module *m, const struct dl_phdr_info *info)
{
    struct need d = { .name = info->dlpi_name };
    size_t soname = 0;
    if (d.name == NULL)
        d.name = "";
    for (const char *c = d.name; *c != 0; c++)
        if (*c == '/')
            d.name = c + 1;
    for (unsigned i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
            d.dynamic = (const void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    for (const ElfW(Dyn) *e = d.dynamic; e != NULL && e->d_tag != DT_NULL; e++) {
        if (e->d_tag == DT_STRTAB)
            d.strings = e->d_un.d_ptr + (e->d_un.d_ptr < m->lo ? info->dlpi_addr : 0); /* most loaders have added it themselves */
        else if (e->d_tag == DT_SONAME)
            soname = e->d_un.d_val;
    }
    if (soname != 0 && d.strings != 0)
        d.name = (const char *)d.strings + soname;
    return d;
}

static bool stays_by_itself(const struct rules_module *m, const struct dl_phdr_info *info)
{
    uintptr_t here = (uintptr_t)&asking;
    const char *name = info->dlpi_name;
    return name == NULL || name[0] == 0 || (here >= m->lo && here < m->hi) || strncmp(name, "linux-vdso", 10) == 0;
}

struct reading { struct rules_modules *t; struct need *need; uint32_t room; bool failed; };

static int read_module(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct reading *r = arg;
    (void)size;
    uint32_t n = r->t != NULL ? r->t->n : 0;
    if (n == r->room) {
        uint32_t room = n == 0 ? 32 : 2 * n;
        struct rules_modules *more = off_realloc(OFF_PROF, r->t, sizeof *more + room * sizeof more->mod[0]);
        struct need *need = more != NULL ? off_realloc(OFF_PROF, r->need, room * sizeof *need) : NULL;
        if (more != NULL) {
            more->n = n;
            r->t = more;
        }
        if (need == NULL) {
            r->failed = true;
            return 1;
        }
        r->need = need;
        r->room = room;
    }
    r->t->adds = info->dlpi_adds;
    r->t->subs = info->dlpi_subs;
    struct rules_module *m = &r->t->mod[n];
    read_segments(m, info);
    if (m->lo >= m->hi)
        return 0;
    r->need[n] = needs_read(m, info);
    m->stays = stays_by_itself(m, info);
    r->t->n++;
    return 0;
}

static void find_what_stays(struct reading *r)
{
    for (bool more = true; more;) {
        more = false;
        for (uint32_t i = 0; i < r->t->n; i++) {
            const struct need *d = &r->need[i];
            for (const ElfW(Dyn) *e = d->dynamic; r->t->mod[i].stays && d->strings != 0 && e->d_tag != DT_NULL; e++)
                for (uint32_t k = 0; e->d_tag == DT_NEEDED && k < r->t->n; k++)
                    if (strcmp(r->need[k].name, (const char *)d->strings + e->d_un.d_val) == 0) {
                        more |= !r->t->mod[k].stays;
                        r->t->mod[k].stays = true;
                        break;
                    }
        }
    }
}

/* So that to find a function in tables that may go takes one look at them. */
static bool find_beginnings(struct rules_module *m)
{
    const struct eh_entry *e = (const void *)(m->head + sizeof(struct eh_head));
    m->begins = off_alloc(OFF_PROF, (m->count / RULES_EACH + 1) * sizeof m->begins[0]);
    for (uint32_t i = 0; m->begins != NULL && i < m->count; i += RULES_EACH)
        m->begins[i / RULES_EACH] = e[i].code;
    return m->begins != NULL;
}

/* Once, with the loader's lock, which may be taken again by its holder: so nothing is unloaded in between. */
static int read_all(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct reading *r = arg;
    (void)info, (void)size;
    dl_iterate_phdr(read_module, r);
    if (r->failed || r->t == NULL)
        return 1;
    find_what_stays(r);
    for (uint32_t i = 0; i < r->t->n && !r->failed; i++)
        if (!r->t->mod[i].stays && r->t->mod[i].count != 0)
            r->failed = !find_beginnings(&r->t->mod[i]);
    return 1;
}

static int by_address(const void *a, const void *b)
{
    const struct rules_module *x = a, *y = b;
    return x->lo < y->lo ? -1 : x->lo > y->lo;
}

struct rules_modules *rules_modules_new(void)
{
    struct reading r = { 0 };
    pthread_mutex_lock(&asking);
    dl_iterate_phdr(read_all, &r);
    pthread_mutex_unlock(&asking);
    off_free(OFF_PROF, r.need);
    if (r.failed) {
        rules_modules_free(r.t);
        return NULL;
    }
    if (r.t != NULL)
        qsort(r.t->mod, r.t->n, sizeof r.t->mod[0], by_address);
    return r.t;
}

void rules_modules_free(struct rules_modules *t)
{
    for (uint32_t i = 0; t != NULL && i < t->n; i++)
        off_free(OFF_PROF, t->mod[i].begins);
    off_free(OFF_PROF, t);
}

static int read_counters(struct dl_phdr_info *info, size_t size, void *arg)
{
    const struct rules_modules *t = arg;
    (void)size;
    return info->dlpi_adds == t->adds && info->dlpi_subs == t->subs ? 1 : 2;
}

bool rules_modules_current(const struct rules_modules *t)
{
    pthread_mutex_lock(&asking);
    int is = dl_iterate_phdr(read_counters, (void *)t);
    pthread_mutex_unlock(&asking);
    return is != 2;
}

w_no_sanitize const struct rules_module *rules_module_at(const struct rules_modules *t, uintptr_t addr)
{
    uint32_t lo = 0, hi = t->n;
    while (lo < hi) { /* the last module that begins at or below addr */
        uint32_t mid = lo + (hi - lo) / 2;
        if (t->mod[mid].lo <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo > 0 && addr < t->mod[lo - 1].hi ? &t->mod[lo - 1] : NULL;
}

/* ---- reading tables ------------------------------------------------------------------------------------------ */

#define WINDOW 128u

/* Bytes of a module's tables, in order. What lies behind the end, or cannot be read, is zero and bad. */
struct bytes {
    uintptr_t at, end;
    uintptr_t limit;  /* what may be read along with it, for what comes next */
    bool direct, bad;
    uintptr_t lo; /* of the window */
    uint32_t n;
    uint8_t window[WINDOW];
};

static w_no_sanitize bool is_direct(const struct rules_module *m, uintptr_t at, size_t n)
{
    return m->stays && at >= m->data_lo && at < m->data_hi && m->data_hi - at >= n;
}

static w_no_sanitize void bytes_init(struct bytes *b, const struct rules_module *m, uintptr_t at, size_t n)
{
    b->at = at;
    b->end = at + n;
    b->limit = at >= m->data_lo && b->end <= m->data_hi ? m->data_hi : b->end;
    b->direct = is_direct(m, at, n);
    b->bad = b->end < at;
    b->lo = at;
    b->n = 0;
}

static w_no_sanitize uint8_t take8(struct bytes *b)
{
    if (b->at >= b->end || b->bad) {
        b->bad = true;
        return 0;
    }
    if (b->direct)
        return *(const volatile uint8_t *)b->at++;
    if (b->at - b->lo >= b->n) {
        b->lo = b->at;
        b->n = (uint32_t)os_vm_peek(b->window, (const void *)b->at, w_min((uintptr_t)WINDOW, b->limit - b->at));
        if (b->n == 0) {
            b->bad = true;
            return 0;
        }
    }
    return b->window[b->at++ - b->lo];
}

static w_no_sanitize uint64_t take(struct bytes *b, unsigned n)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < n; i++)
        v |= (uint64_t)take8(b) << 8 * i;
    return v;
}

static w_no_sanitize int64_t take_signed(struct bytes *b, unsigned n)
{
    return (int64_t)(take(b, n) << (64 - 8 * n)) >> (64 - 8 * n);
}

static w_no_sanitize uint64_t take_leb(struct bytes *b, bool is_signed)
{
    uint64_t v = 0;
    uint8_t c;
    unsigned shift = 0;
    do {
        c = take8(b);
        if (shift < 64)
            v |= (uint64_t)(c & 127) << shift;
        shift += 7;
    } while (c & 128 && !b->bad);
    if (is_signed && c & 64 && shift < 64)
        v |= ~UINT64_C(0) << shift;
    return v;
}

static w_no_sanitize uint64_t uleb(struct bytes *b) { return take_leb(b, false); }
static w_no_sanitize int64_t sleb(struct bytes *b) { return (int64_t)take_leb(b, true); }

static w_no_sanitize void skip(struct bytes *b, uint64_t n)
{
    if (n > b->end - b->at)
        b->bad = true;
    else
        b->at += n;
}

#define ENC_ABSENT 0xffu

/* An address, in one of the ways that say how long it is and from where it counts. */
static w_no_sanitize uintptr_t take_address(struct bytes *b, uint8_t enc)
{
    uintptr_t from = b->at;
    uint64_t v;
    switch (enc & 0x0f) {
    case 0x00:
    case 0x04:
    case 0x0c: v = take(b, 8); break;
    case 0x02: v = take(b, 2); break;
    case 0x03: v = take(b, 4); break;
    case 0x0a: v = (uint64_t)take_signed(b, 2); break;
    case 0x0b: v = (uint64_t)take_signed(b, 4); break;
    case 0x01: v = uleb(b); break;
    case 0x09: v = (uint64_t)sleb(b); break;
    default: b->bad = true; return 0;
    }
    if ((enc & 0x70) == 0x10)
        v += from;
    else if ((enc & 0x70) != 0)
        b->bad = true;
    return v;
}

/* ---- the function ------------------------------------------------------------------------------------------------ */

/* The last of n entries whose code begins at or below want; -1: none. */
static w_no_sanitize int64_t last_entry(const volatile struct eh_entry *e, uint32_t n, intptr_t want)
{
    uint32_t lo = 0, hi = n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (e[mid].code <= want)
            lo = mid + 1;
        else
            hi = mid;
    }
    return (int64_t)lo - 1;
}

/* What describes the function at pc; 0: none does. */
static w_no_sanitize uintptr_t function_find(const struct rules_module *m, uintptr_t pc)
{
    intptr_t want = (intptr_t)(pc - m->head);
    uintptr_t first = m->head + sizeof(struct eh_head);
    if (m->stays) {
        const volatile struct eh_entry *e = (const volatile struct eh_entry *)first;
        int64_t i = last_entry(e, m->count, want);
        return i >= 0 ? m->head + (uintptr_t)(intptr_t)e[i].fde : 0;
    }
    struct eh_entry e[RULES_EACH];
    uint32_t lo = 0, hi = (m->count + RULES_EACH - 1) / RULES_EACH;
    while (lo < hi) { /* as above, over each RULES_EACH-th */
        uint32_t mid = lo + (hi - lo) / 2;
        if (m->begins[mid] <= want)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == 0)
        return 0;
    uint32_t at = (lo - 1) * RULES_EACH, n = w_min(RULES_EACH, m->count - at);
    if (os_vm_peek(e, (const void *)(first + at * sizeof e[0]), n * sizeof e[0]) != n * sizeof e[0])
        return 0;
    int64_t i = last_entry(e, n, want);
    return i >= 0 ? m->head + (uintptr_t)(intptr_t)e[i].fde : 0;
}

/* What functions have in common. */
struct common {
    uint64_t code_align;
    int64_t data_align;
    uint8_t enc;              /* of addresses */
    bool sized;               /* functions have data of their own before their program */
    bool signal;
};

/* No record is longer; but what is read where a module has just gone may say so, and a signal handler should not be busy with that. */
#define RECORD_MAX (128u << 10)

/* The head of a record: b's bytes are the rest of it. False: none. */
static w_no_sanitize bool record_open(struct bytes *b, const struct rules_module *m, uintptr_t at)
{
    bytes_init(b, m, at, 4);
    uint32_t len = (uint32_t)take(b, 4);
    if (b->bad || len == 0 || len > RECORD_MAX || len > m->hi - m->lo || at < m->lo || at >= m->hi)
        return false;
    b->end = b->at + len;
    b->limit = w_max(b->limit, b->end);
    b->direct = b->direct && is_direct(m, at, len + 4ul);
    return true;
}

/* b is at the program that runs before each function's then. */
static w_no_sanitize bool common_read(struct bytes *b, const struct rules_module *m, uintptr_t at, struct common *c)
{
    if (!record_open(b, m, at) || take(b, 4) != 0)
        return false;
    uint8_t version = take8(b);
    if (version != 1 && version != 3)
        return false;
    char letters[8];
    unsigned n = 0;
    while ((letters[n] = (char)take8(b)) != 0)
        if (++n == sizeof letters)
            return false;
    c->code_align = uleb(b);
    c->data_align = sleb(b);
    if ((version == 1 ? take8(b) : uleb(b)) != REG_RA)
        return false;
    c->enc = 0;
    c->signal = false;
    c->sized = letters[0] == 'z';
    uint64_t own = c->sized ? uleb(b) : 0;
    uintptr_t after = b->at + own;
    for (unsigned i = c->sized; letters[i] != 0; i++) {
        switch (letters[i]) {
        case 'R': c->enc = take8(b); break;
        case 'L': take8(b); break;
        case 'P': take_address(b, take8(b) & 0x7f & ~0x70); break; /* from where it counts is all the same */
        case 'S': c->signal = true; break;
        case 'B': break;
        default: return false;
        }
    }
    if (c->sized)
        b->at = after;
    return !b->bad && b->at <= b->end;
}

/* ---- expressions ---------------------------------------------------------------------------------------------------- */

/* A value that is known but for a register, or for the word that lies at one. */
enum base { BASE_NUMBER, BASE_SP, BASE_FP, BASE_SP_AT, BASE_FP_AT };
struct value { enum base base; int64_t off, add; }; /* add: to the word */

#define VALUES 8u

static w_no_sanitize bool is_number(const struct value *v) { return v->base == BASE_NUMBER; }

static w_no_sanitize void value_add(struct value *v, int64_t n)
{
    *(v->base == BASE_SP_AT || v->base == BASE_FP_AT ? &v->add : &v->off) += n;
}

/* Of two numbers, but that one may be added to anything. False: it cannot be said. */
static w_no_sanitize bool two(uint8_t op, struct value *x, const struct value *y)
{
    if (op == 0x22 && is_number(x) && !is_number(y)) {
        int64_t n = x->off;
        *x = *y;
        value_add(x, n);
        return true;
    }
    if (!is_number(y))
        return false;
    if (op == 0x22 || op == 0x1c) {
        value_add(x, op == 0x22 ? y->off : -y->off);
        return true;
    }
    if (!is_number(x))
        return false;
    int64_t a = x->off, b = y->off;
    switch (op) {
    case 0x1a: x->off = a & b; break;
    case 0x1e: x->off = (int64_t)((uint64_t)a * (uint64_t)b); break;
    case 0x21: x->off = a | b; break;
    case 0x24: x->off = b >= 0 && b < 64 ? (int64_t)((uint64_t)a << b) : 0; break;
    case 0x25: x->off = b >= 0 && b < 64 ? (int64_t)((uint64_t)a >> b) : 0; break;
    case 0x27: x->off = a ^ b; break;
    case 0x29: x->off = a == b; break;
    case 0x2a: x->off = a >= b; break;
    case 0x2b: x->off = a > b; break;
    case 0x2c: x->off = a <= b; break;
    case 0x2d: x->off = a < b; break;
    case 0x2e: x->off = a != b; break;
    default: return false;
    }
    return true;
}

/* pc is known: code between modules (.plt) says how deep it is by where in it one is. */
static w_no_sanitize bool expression(const struct rules_module *m, uintptr_t at, size_t len, uintptr_t pc, struct value *out)
{
    struct bytes b;
    struct value v[VALUES];
    unsigned n = 0;
    bytes_init(&b, m, at, len);
    while (b.at < b.end && !b.bad) {
        uint8_t op = take8(&b);
        if (op >= 0x70 && op <= 0x8f) { /* a register, plus */
            unsigned reg = op - 0x70u;
            int64_t off = sleb(&b);
            if (n == VALUES || (reg != REG_SP && reg != REG_FP && reg != REG_PC))
                return false;
            v[n++] = (struct value){ reg == REG_SP ? BASE_SP : reg == REG_FP ? BASE_FP : BASE_NUMBER, off + (reg == REG_PC ? (int64_t)pc : 0), 0 };
        } else if ((op >= 0x30 && op <= 0x4f) || (op >= 0x08 && op <= 0x11)) { /* a number */
            int64_t x = op >= 0x30 ? op - 0x30 : op == 0x10 ? (int64_t)uleb(&b) : op == 0x11 ? sleb(&b) : 0;
            if (op >= 0x08 && op <= 0x0f) {
                unsigned size = 1u << (op - 0x08) / 2;
                x = op & 1 ? take_signed(&b, size) : (int64_t)take(&b, size);
            }
            if (n == VALUES)
                return false;
            v[n++] = (struct value){ BASE_NUMBER, x, 0 };
        } else if (op == 0x06) { /* the word there */
            if (n == 0 || (v[n - 1].base != BASE_SP && v[n - 1].base != BASE_FP))
                return false;
            v[n - 1].base = v[n - 1].base == BASE_SP ? BASE_SP_AT : BASE_FP_AT;
        } else if (op == 0x23) {
            int64_t x = (int64_t)uleb(&b);
            if (n == 0)
                return false;
            value_add(&v[n - 1], x);
        } else {
            if (n < 2 || !two(op, &v[n - 2], &v[n - 1]))
                return false;
            n--;
        }
    }
    if (b.bad || n != 1)
        return false;
    *out = v[0];
    return true;
}

/* ---- the program ------------------------------------------------------------------------------------------------------ */

/* How a register of the caller's is found. */
enum where { WHERE_SAME, WHERE_OFFSET, WHERE_EXPRESSION, WHERE_UNDEFINED, WHERE_OTHER };
struct saved { enum where where; int64_t off; }; /* off: from the cfa; or where the expression lies */

struct row {
    bool by_expression;
    uint64_t reg;
    int64_t off;   /* from reg; or where the expression lies */
    struct saved fp, ra;
};

#define ROWS 6u /* remembered at a time */

struct machine {
    const struct rules_module *m;
    const struct common *common;
    struct row row, first, kept[ROWS];
    unsigned nkept;
};

static w_no_sanitize void set(struct machine *k, uint64_t reg, enum where where, int64_t off)
{
    if (reg == REG_FP)
        k->row.fp = (struct saved){ where, off };
    else if (reg == REG_RA)
        k->row.ra = (struct saved){ where, off };
}

static w_no_sanitize void restore(struct machine *k, uint64_t reg)
{
    if (reg == REG_FP)
        k->row.fp = k->first.fp;
    else if (reg == REG_RA)
        k->row.ra = k->first.ra;
}

/* Until the row of pc is there, or its end. loc: of the first row. */
static w_no_sanitize bool run(struct machine *k, struct bytes *b, uintptr_t loc, uintptr_t pc)
{
    const struct common *c = k->common;
    while (b->at < b->end && !b->bad) {
        uint8_t op = take8(b), low = op & 0x3f;
        uint64_t reg, n;
        switch (op & 0xc0) {
        case 0x40:
            loc += low * c->code_align;
            if (loc > pc)
                return true;
            continue;
        case 0x80: set(k, low, WHERE_OFFSET, (int64_t)uleb(b) * c->data_align); continue;
        case 0xc0: restore(k, low); continue;
        }
        switch (op) {
        case 0x00: break;
        case 0x01: loc = take_address(b, c->enc); goto advanced;
        case 0x02: loc += take(b, 1) * c->code_align; goto advanced;
        case 0x03: loc += take(b, 2) * c->code_align; goto advanced;
        case 0x04: loc += take(b, 4) * c->code_align; goto advanced;
        advanced:
            if (loc > pc)
                return !b->bad;
            break;
        case 0x05: reg = uleb(b); set(k, reg, WHERE_OFFSET, (int64_t)uleb(b) * c->data_align); break;
        case 0x06: restore(k, uleb(b)); break;
        case 0x07: set(k, uleb(b), WHERE_UNDEFINED, 0); break;
        case 0x08: set(k, uleb(b), WHERE_SAME, 0); break;
        case 0x09: reg = uleb(b); uleb(b); set(k, reg, WHERE_OTHER, 0); break;
        case 0x0a:
            if (k->nkept == ROWS)
                return false;
            k->kept[k->nkept++] = k->row;
            break;
        case 0x0b:
            if (k->nkept == 0)
                return false;
            k->row = k->kept[--k->nkept];
            break;
        case 0x0c:
        case 0x12:
            k->row.by_expression = false;
            k->row.reg = uleb(b);
            k->row.off = op == 0x0c ? (int64_t)uleb(b) : sleb(b) * c->data_align;
            break;
        case 0x0d: k->row.by_expression = false; k->row.reg = uleb(b); break;
        case 0x0e: k->row.off = (int64_t)uleb(b); break;
        case 0x13: k->row.off = sleb(b) * c->data_align; break;
        case 0x0f:
            k->row.by_expression = true;
            k->row.off = (int64_t)b->at;
            skip(b, uleb(b));
            break;
        case 0x10:
            reg = uleb(b);
            set(k, reg, WHERE_EXPRESSION, (int64_t)b->at);
            skip(b, uleb(b));
            break;
        case 0x11: reg = uleb(b); set(k, reg, WHERE_OFFSET, sleb(b) * c->data_align); break;
        case 0x14:
        case 0x15: reg = uleb(b); op == 0x14 ? (void)uleb(b) : (void)sleb(b); set(k, reg, WHERE_OTHER, 0); break;
        case 0x16: reg = uleb(b); set(k, reg, WHERE_OTHER, 0); n = uleb(b); skip(b, n); break;
        case 0x2d: break; /* aarch64: the return address is signed from here on, or no more; who reads it cuts the signature off */
        case 0x2e: uleb(b); break; /* bytes of arguments */
        case 0x2f: reg = uleb(b); set(k, reg, WHERE_OFFSET, -(int64_t)uleb(b) * c->data_align); break;
        default: return false;
        }
    }
    return !b->bad;
}

/* ---- the rule ------------------------------------------------------------------------------------------------------------- */

static w_no_sanitize bool expression_at(struct machine *k, uintptr_t at, uintptr_t pc, struct value *v)
{
    struct bytes b;
    bytes_init(&b, k->m, at, 8);
    size_t len = uleb(&b);
    return !b.bad && len < 256 && expression(k->m, b.at, len, pc, v);
}

/* 0: it does not fit. */
static w_no_sanitize rule pack(enum rule_kind kind, unsigned ra, int64_t cfa, int64_t fp)
{
    if (cfa % 8 != 0 || cfa / 8 < -(1 << 14) || cfa / 8 >= 1 << 14 || fp < 0 || fp > RULE_FP_IN_PLACE || ra > 3)
        return 0;
    return (rule)kind | ra << 3 | ((uint32_t)(cfa / 8) & 0x7fff) << 5 | (uint32_t)fp << 20;
}

/* In words below the cfa; -1: not said by a word of the frame. */
static w_no_sanitize int64_t slot(const struct saved *s)
{
    return s->where == WHERE_OFFSET && s->off < 0 && s->off % 8 == 0 && -s->off / 8 < RULE_FP_IN_PLACE ? -s->off / 8 : -1;
}

static w_no_sanitize rule rule_of(struct machine *k, uintptr_t pc)
{
    const struct row *r = &k->row;
    struct value cfa = { BASE_NUMBER, r->off, 0 }, at;
    if (r->ra.where == WHERE_UNDEFINED)
        return RULE_END;
    if (r->by_expression) {
        if (!expression_at(k, (uintptr_t)r->off, pc, &cfa))
            return 0;
    } else if (r->reg == REG_SP || r->reg == REG_FP) {
        cfa.base = r->reg == REG_SP ? BASE_SP : BASE_FP;
    }
    if (cfa.base == BASE_NUMBER || cfa.add % 8 != 0 || cfa.add < 0)
        return 0;
    enum rule_kind kind = cfa.base == BASE_SP ? RULE_SP : cfa.base == BASE_FP ? RULE_FP : cfa.base == BASE_SP_AT ? RULE_SP_AT : RULE_FP_AT;
    int64_t fp = 0;
    if (r->fp.where == WHERE_OFFSET)
        fp = slot(&r->fp);
    else if (r->fp.where == WHERE_EXPRESSION)
        fp = expression_at(k, (uintptr_t)r->fp.off, pc, &at) && at.base == BASE_FP && at.off == 0 ? (int64_t)RULE_FP_IN_PLACE : -1;
    else if (r->fp.where != WHERE_SAME && r->fp.where != WHERE_UNDEFINED)
        fp = -1;
    if (fp < 0)
        return 0;
#if defined(__x86_64__)
    if (r->ra.where != WHERE_OFFSET || r->ra.off != -8)
        return 0;
    return pack(kind, (unsigned)(cfa.add / 8), cfa.off, fp);
#else
    if (cfa.add != 0)
        return 0;
    if (r->ra.where == WHERE_SAME)
        return fp == 0 ? pack(kind, RA_REGISTER, cfa.off, 0) : 0;
    int64_t ra = slot(&r->ra);
    if (ra < 0)
        return 0;
    return fp == 0 ? pack(kind, RA_INSTEAD_OF_FP, cfa.off, ra) : fp == ra + 1 ? pack(kind, RA_ABOVE_FP, cfa.off, fp) : 0;
#endif
}

/* The program that is common to many functions, then the function's own, up to pc. */
static w_no_sanitize rule rule_in(const struct rules_module *m, uintptr_t pc)
{
    uintptr_t at = m->count != 0 ? function_find(m, pc) : 0;
    struct bytes own, b;
    struct common c;
    struct machine k = { .m = m, .common = &c, .row = { .reg = ~0ull } };
    if (at == 0 || !record_open(&own, m, at))
        return rule_other(OTHER_NO_TABLE);
    uintptr_t back = own.at;
    back -= (uintptr_t)take(&own, 4);
    if (own.bad || !common_read(&b, m, back, &c))
        return rule_other(OTHER_TOO_HARD);
    uintptr_t lo = take_address(&own, c.enc), bytes = take_address(&own, c.enc & 0x0f);
    if (own.bad)
        return rule_other(OTHER_TOO_HARD);
    if (pc - lo >= bytes)
        return rule_other(OTHER_NO_TABLE);
    if (c.signal)
        return RULE_SIGNAL;
    if (c.sized)
        skip(&own, uleb(&own));
    if (!run(&k, &b, 0, UINTPTR_MAX))
        return rule_other(OTHER_TOO_HARD);
    k.first = k.row;
    if (!run(&k, &own, lo, pc))
        return rule_other(OTHER_TOO_HARD);
    rule r = rule_of(&k, pc);
    return r != 0 ? r : rule_other(OTHER_TOO_HARD);
}

w_no_sanitize rule rules_at(const struct rules_modules *t, uintptr_t return_pc)
{
    const struct rules_module *m = rules_module_at(t, return_pc - 1);
    return m != NULL ? rule_in(m, return_pc - 1) : rule_other(OTHER_NO_MODULE);
}
