/* Rules say the same as libunwind, in every function of the libraries at hand: stacks and registers are made up, so that what comes out tells from where
 * it was read. */
#include "test.h"
#include <dlfcn.h>
#include <libunwind.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/offheap.h"
#include "os/vm.h"
#include "prof/rules.h"

#if defined(__x86_64__)
#define LIBUNWIND "libunwind-x86_64.so.8"
#define FP 6
#define SP 7
#define PC 16
#define LR 30
#else
#define LIBUNWIND "libunwind-aarch64.so.8"
#define FP 29
#define SP 31
#define PC 32
#define LR 30
#endif

#define SP_AT 0x7ff000100000ull
#define FP_AT 0x7ff000200000ull
#define LR_AT 0x7ff000300000ull

/* Of made-up memory: different at each address, and an address of such memory itself. */
static uintptr_t made_up(uintptr_t addr) { return 0x7ff100000000ull + (addr * 0x9e3779b1 & 0xfffffff8); }

struct probe { const struct rules_modules *t; uintptr_t pc; };

/* ---- libunwind ------------------------------------------------------------------------------------------- */

static struct {
    unw_addr_space_t (*create)(unw_accessors_t *, int);
    int (*caching)(unw_addr_space_t, unw_caching_policy_t);
    int (*init)(unw_cursor_t *, unw_addr_space_t, void *);
    int (*step)(unw_cursor_t *);
    int (*reg)(unw_cursor_t *, unw_regnum_t, unw_word_t *);
    int (*search)(unw_addr_space_t, unw_word_t, unw_dyn_info_t *, unw_proc_info_t *, int, void *);
    unw_addr_space_t space;
} lib;

static int access_mem(unw_addr_space_t as, unw_word_t addr, unw_word_t *val, int write, void *arg)
{
    const struct probe *p = arg;
    (void)as;
    if (write)
        return -UNW_EINVAL;
    const struct rules_module *m = rules_module_at(p->t, addr);
    if (m != NULL && addr >= m->data_lo && addr + sizeof *val <= m->data_hi) {
        memcpy(val, (void *)addr, sizeof *val);
        return 0;
    }
    if (m != NULL)
        return os_vm_peek(val, (void *)addr, sizeof *val) == sizeof *val ? 0 : -UNW_EINVAL;
    *val = made_up(addr);
    return 0;
}

static int access_reg(unw_addr_space_t as, unw_regnum_t reg, unw_word_t *val, int write, void *arg)
{
    const struct probe *p = arg;
    (void)as;
    *val = reg == SP ? SP_AT : reg == FP ? FP_AT : reg == PC ? p->pc : reg == LR ? LR_AT : 0x1234;
    return write ? -UNW_EINVAL : 0;
}

static int find_proc_info(unw_addr_space_t as, unw_word_t ip, unw_proc_info_t *pi, int need, void *arg)
{
    const struct probe *p = arg;
    const struct rules_module *m = rules_module_at(p->t, ip);
    if (m == NULL || m->count == 0)
        return -UNW_ENOINFO;
    unw_dyn_info_t di = { .start_ip = m->lo, .end_ip = m->hi, .format = UNW_INFO_FORMAT_REMOTE_TABLE };
    di.u.rti.segbase = m->head;
    di.u.rti.table_data = m->head + 12;
    di.u.rti.table_len = m->count * 8ul / sizeof(unw_word_t);
    return lib.search(as, ip, &di, pi, need, arg);
}

static void put_info(unw_addr_space_t as, unw_proc_info_t *pi, void *arg) { (void)as, (void)pi, (void)arg; }
static int no_list(unw_addr_space_t as, unw_word_t *addr, void *arg) { return (void)as, (void)addr, (void)arg, -UNW_ENOINFO; }

#define STR2(x) #x
#define STR(x) STR2(x)

static void lib_load(void)
{
    static unw_accessors_t accessors = { .find_proc_info = find_proc_info, .put_unwind_info = put_info, .get_dyn_info_list_addr = no_list,
                                         .access_mem = access_mem, .access_reg = access_reg };
    void *so = dlopen(LIBUNWIND, RTLD_NOW | RTLD_LOCAL);
    if (so == NULL)
        cr_skip_test("no " LIBUNWIND);
    *(void **)&lib.create = dlsym(so, STR(unw_create_addr_space));
    *(void **)&lib.caching = dlsym(so, STR(unw_set_caching_policy));
    *(void **)&lib.init = dlsym(so, STR(unw_init_remote));
    *(void **)&lib.step = dlsym(so, STR(unw_step));
    *(void **)&lib.reg = dlsym(so, STR(unw_get_reg));
    *(void **)&lib.search = dlsym(so, STR(UNW_OBJ(dwarf_search_unwind_table)));
    lib.space = lib.create(&accessors, 0);
    lib.caching(lib.space, UNW_CACHE_NONE);
}

/* ---- the two ---------------------------------------------------------------------------------------------------- */

struct caller { uintptr_t pc, sp, fp; };

/* False: it says that there is none. */
static bool by_libunwind(struct probe *p, struct caller *c)
{
    unw_cursor_t cur;
    unw_word_t v[3];
    cr_assert_geq(lib.init(&cur, lib.space, p), 0);
    if (lib.step(&cur) <= 0)
        return false;
    for (int i = 0; i < 3; i++)
        if (lib.reg(&cur, i == 0 ? UNW_REG_IP : i == 1 ? UNW_REG_SP : FP, &v[i]) < 0)
            return false;
    *c = (struct caller){ v[0], v[1], v[2] };
    return true;
}

static void by_rule(rule r, struct caller *c)
{
    enum rule_kind k = rule_kind(r);
    uintptr_t cfa = (k == RULE_SP || k == RULE_SP_AT ? SP_AT : FP_AT) + (uintptr_t)rule_cfa_bytes(r);
    unsigned slot = rule_fp(r);
    if (k == RULE_SP_AT || k == RULE_FP_AT)
        cfa = made_up(cfa) + 8 * rule_ra(r);
    c->sp = cfa;
    c->fp = slot == 0 ? FP_AT : made_up(slot == RULE_FP_IN_PLACE ? FP_AT : cfa - 8 * slot);
#if defined(__x86_64__)
    c->pc = made_up(cfa - 8);
#else
    c->pc = rule_ra(r) == RA_REGISTER ? LR_AT : made_up(cfa - 8 * slot + (rule_ra(r) == RA_ABOVE_FP ? 8 : 0));
    if (rule_ra(r) == RA_INSTEAD_OF_FP)
        c->fp = FP_AT;
#endif
}

/* Where the table's functions begin. */
static uintptr_t function_at(const struct rules_module *m, uint32_t i) { return m->head + (intptr_t)((const int32_t *)(m->head + 12))[2 * i]; }

struct tally { unsigned long places, same, end, hard, signals, none; };

/* Places in the function at lo: all in a short one. */
static void compare_function(const struct rules_modules *t, uintptr_t lo, uintptr_t hi, uintptr_t step, struct tally *n)
{
    for (uintptr_t pc = lo; pc < hi; pc += step) {
        struct probe p = { t, pc };
        struct caller a, b;
        rule r = rules_at(t, pc + 1);
        n->places++;
        cr_assert_neq(rule_kind(r), RULE_NONE);
        if (rule_kind(r) == RULE_OTHER) {
            n->hard += rule_other_why(r) == OTHER_TOO_HARD;
            unw_proc_info_t pi;
            if (rule_other_why(r) == OTHER_NO_TABLE) {
                n->none++;
                cr_assert_lt(find_proc_info(lib.space, pc, &pi, 0, &p), 0, "at %#lx libunwind knows the function", pc);
            }
            cr_assert_neq(rule_other_why(r), OTHER_NO_MODULE);
            continue;
        }
        if (rule_kind(r) == RULE_SIGNAL) {
            n->signals++;
            continue;
        }
        bool caller = by_libunwind(&p, &a);
        if (rule_kind(r) == RULE_END) {
            n->end++;
            continue;
        }
        by_rule(r, &b);
        cr_assert(caller, "at %#lx: libunwind finds no caller, the rule is %#x", pc, r);
        if (a.pc != b.pc || a.sp != b.sp || a.fp != b.fp) {
            Dl_info info = { 0 };
            dladdr((void *)pc, &info);
            cr_assert_fail("%s+%#lx (%s): libunwind says pc %#lx sp %#lx fp %#lx, the rule %#x says pc %#lx sp %#lx fp %#lx", info.dli_fname,
                           pc - (uintptr_t)info.dli_fbase, info.dli_sname, a.pc, a.sp, a.fp, r, b.pc, b.sp, b.fp);
        }
        n->same++;
    }
}

static void compare_module(const struct rules_modules *t, const struct rules_module *m, struct tally *n)
{
    uint32_t each = w_max(m->count / 500, 1u);
    for (uint32_t i = 0; i < m->count; i += each) {
        uintptr_t lo = function_at(m, i), hi = i + 1 < m->count ? function_at(m, i + 1) : lo + 16;
        hi = w_min(hi, lo + 4096);
        compare_function(t, lo, hi, w_max((hi - lo) / 16, (uintptr_t)1), n);
    }
}

Test(walk_rules, as_libunwind)
{
    static const char *const more[] = { "libstdc++.so.6", "libcrypto.so.3", "libdw.so.1", "libgcc_s.so.1" };
    for (unsigned i = 0; i < w_countof(more); i++)
        dlopen(more[i], RTLD_NOW);
    lib_load();
    cr_assert_eq(off_init(), 0);
    struct rules_modules *t = rules_modules_new();
    cr_assert_not_null(t);
    cr_assert(rules_modules_current(t));
    struct tally all = { 0 };
    for (uint32_t i = 0; i < t->n; i++) {
        struct tally n = { 0 };
        Dl_info info = { 0 };
        compare_module(t, &t->mod[i], &n);
        dladdr((void *)t->mod[i].code_lo, &info);
        printf("%s: %lu places in %u functions: %lu the same, %lu ends, %lu too hard, %lu of signals, %lu without a table\n",
               info.dli_fname != NULL ? info.dli_fname : "?", n.places, t->mod[i].count, n.same, n.end, n.hard, n.signals, n.none);
        cr_expect_leq(n.hard * 50, n.places, "%s: %lu of %lu", info.dli_fname, n.hard, n.places);
        all.same += n.same;
        all.signals += n.signals;
    }
    cr_assert_gt(all.same, 10000ul);
    cr_assert_gt(all.signals, 0ul, "the kernel's return from handlers");
    rules_modules_free(t);
}

/* What stays is read directly; what was loaded later, with what it needs, is not. */
Test(walk_rules, what_stays)
{
    void *so = dlopen(TEST_MOD("throws"), RTLD_NOW);
    cr_assert_not_null(so, "%s", dlerror());
    cr_assert_eq(off_init(), 0);
    struct rules_modules *t = rules_modules_new();
    cr_assert_not_null(t);
    const struct rules_module *own = rules_module_at(t, (uintptr_t)by_rule), *libc = rules_module_at(t, (uintptr_t)dlsym(RTLD_DEFAULT, "qsort"));
    const struct rules_module *later = rules_module_at(t, (uintptr_t)dlsym(so, "mod_throw"));
    cr_assert(own != NULL && own->stays);
    cr_assert(libc != NULL && libc->stays);
    cr_assert(later != NULL && !later->stays && later->begins != NULL);
    cr_assert_lt(rule_kind(rules_at(t, (uintptr_t)dlsym(so, "mod_throw") + 1)), RULE_SIGNAL);
    dlclose(so);
    cr_assert_not(rules_modules_current(t));
    cr_assert_eq(rule_kind(rules_at(t, (uintptr_t)later->code_lo + 16)), RULE_OTHER, "it is gone: nothing is read there");
    rules_modules_free(t);
}
