/* Real code in profiles: mappings as the kernel shows them, functions and lines as the compiler knows them. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>
#include "prof/loaded.h"
#include "prof/pseudo.h"
#include "pprof_test.h"

static struct loaded loaded;
static struct symbol scratch[SYMBOLS_INLINED_MAX];

/* Till the end of the test. */
static const struct pprof_symbolizer *begin(void)
{
    const struct maps *t = maps_begin(symbols_gone);
    cr_assert_not_null(t);
    loaded_init(&loaded, t, scratch);
    return &loaded.symbolizer;
}

/* ---- mappings ------------------------------------------------------------------------------------------------- */

struct shown { unsigned long lo, hi, offset; char perms[8], path[512]; };

static bool kernel_shows(uintptr_t addr, struct shown *out)
{
    FILE *f = fopen("/proc/self/maps", "re");
    char line[1024];
    bool found = false;
    cr_assert_not_null(f);
    while (!found && fgets(line, sizeof line, f) != NULL) {
        out->path[0] = 0;
        sscanf(line, "%lx-%lx %7s %lx %*s %*s %511[^\n]", &out->lo, &out->hi, out->perms, &out->offset, out->path);
        found = addr >= out->lo && addr < out->hi;
    }
    fclose(f);
    return found;
}

Test(pprof_loaded, mappings_are_those_of_the_kernel)
{
    const struct pprof_symbolizer *s = begin();
    const uintptr_t at[] = { (uintptr_t)kernel_shows, (uintptr_t)qsort, (uintptr_t)begin };
    for (size_t i = 0; i < w_countof(at); i++) {
        struct pprof_module m;
        struct shown k;
        cr_assert(s->module(s, at[i], &m));
        cr_assert(kernel_shows(at[i], &k));
        cr_expect_eq(k.perms[2], 'x');
        cr_expect_eq(m.lo, k.lo);
        cr_expect_eq(m.hi, k.hi, "%s: 0x%lx, the kernel has 0x%lx", m.path, (unsigned long)m.hi, k.hi);
        cr_expect_eq(m.offset, k.offset);
        if (!test_is_emulated()) { /* /proc/self/exe is the emulator */
            char *a = realpath(m.path, NULL), *b = realpath(k.path, NULL);
            cr_assert(a != NULL && b != NULL, "%s", m.path);
            cr_expect_str_eq(a, b);
        }
    }
    maps_end();
}

Test(pprof_loaded, what_is_no_code_of_a_module_is_in_none)
{
    const struct pprof_symbolizer *s = begin();
    static int data;
    char stack;
    void *page = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const uintptr_t at[] = { PSEUDO_COUNT, PSEUDO_END - 2, (uintptr_t)&data, (uintptr_t)&stack, (uintptr_t)page, UINTPTR_MAX };
    for (size_t i = 0; i < w_countof(at); i++) {
        struct pprof_module m;
        struct pprof_frame f[PPROF_FRAMES_MAX];
        cr_expect(!s->module(s, at[i], &m), "0x%lx", (unsigned long)at[i]);
        if (at[i] != (uintptr_t)&data)
            cr_expect_eq(s->frames(s, at[i] + 1, f), 0u);
    }
    maps_end();
}

/* As readelf tells it. */
Test(pprof_loaded, the_build_id_is_the_files)
{
    const uintptr_t at[] = { (uintptr_t)begin, (uintptr_t)qsort };
    for (size_t i = 0; i < w_countof(at); i++) {
        const struct pprof_symbolizer *s = begin();
        struct pprof_module m;
        struct test_output out;
        char command[700], hex[2 * 64 + 1] = "";
        cr_assert(s->module(s, at[i], &m));
        snprintf(command, sizeof command, "readelf -n '%s' 2>/dev/null | sed -n 's/.*Build ID: //p'", m.path);
        for (uint32_t k = 0; k < m.build_id_bytes; k++)
            sprintf(hex + 2 * k, "%02x", m.build_id[k]);
        maps_end(); /* a fork waits for it */
        cr_assert_eq(test_shell(&out, command), 0);
        out.text[strcspn(out.text, "\n")] = 0;
        cr_expect_str_eq(hex, out.text);
    }
}

/* The file may be replaced while the program runs; its name stays. */
Test(pprof_loaded, the_name_of_a_program_that_was_deleted)
{
    const char *child = getenv("WEFT_TEST_DELETED");
    if (child != NULL) {
        cr_assert_eq(unlink(child), 0);
        const struct pprof_symbolizer *s = begin();
        struct pprof_module m;
        cr_assert(s->module(s, (uintptr_t)begin, &m));
        cr_assert_str_eq(m.path, child);
        maps_end();
        return;
    }
    char exe[512], command[1400];
    struct test_output out;
    test_needs_a_kernel();
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    cr_assert_gt(n, 0);
    exe[n] = 0;
    snprintf(command, sizeof command,
             "unset BXFI_MAP; f=" TEST_BUILD "/tests/deleted.$$ && cp '%s' $f && WEFT_TEST_DELETED=$f $f --filter 'pprof_loaded/the_name*'; "
             "e=$?; rm -f $f; exit $e",
             exe);
    int e = test_shell(&out, command);
    char *counts = strstr(out.text, "Synthesis:");
    bool passed = counts != NULL && strstr(counts, "Passing: 1") != NULL;
    if (counts != NULL)
        *counts = 0; /* they are not ours */
    cr_expect(e == 0 && passed, "%d: %s", e, out.text);
}

/* The loader knows it by the name it was given, from a directory in which the program no longer is. */
Test(pprof_loaded, a_module_that_was_loaded_by_a_relative_name)
{
    char dir[] = TEST_MOD("caller");
    *strrchr(dir, '/') = 0;
    struct shown k;
    struct pprof_module m;
    struct pprof_frame f[PPROF_FRAMES_MAX];
    cr_assert_eq(chdir(dir), 0);
    void *so = dlopen("./caller.so", RTLD_NOW);
    cr_assert_not_null(so, "%s", dlerror());
    uintptr_t at = (uintptr_t)dlsym(so, "mod_call");
    cr_assert_eq(chdir("/"), 0);
    for (int i = 0; i < 2; i++) { /* once more when the table was read again, from elsewhere */
        const struct pprof_symbolizer *s = begin();
        cr_assert(s->module(s, at, &m) && kernel_shows(at, &k));
        cr_expect_str_eq(m.path, k.path);
        cr_assert_eq(s->frames(s, at + 1, f), 1u);
        cr_expect_str_eq(f[0].func, "mod_call");
        maps_end();
        cr_assert_not_null(dlopen(TEST_MOD("holder"), RTLD_NOW));
    }
    dlclose(so);
}

/* ---- functions and lines -------------------------------------------------------------------------------------------- */

/* A module without debug information, which lies in a file that the module names: beside it, or in .debug there; or there is another file of that name. */
static void with_a_link(const char *place, bool right)
{
    char dir[] = "/tmp/weft-link-XXXXXX", command[1200], path[300];
    struct test_output out;
    struct pprof_frame f[PPROF_FRAMES_MAX];
    cr_assert_not_null(mkdtemp(dir));
    snprintf(command, sizeof command,
             "cd %s && mkdir .debug && objcopy --only-keep-debug " TEST_MOD("caller") " %scaller.dbg && objcopy --strip-debug --add-gnu-debuglink=%scaller.dbg "
             TEST_MOD("caller") " caller.so%s", dir, place, place, right ? "" : " && echo >> caller.dbg");
    cr_assert_eq(test_shell(&out, command), 0, "%s", out.text);
    snprintf(path, sizeof path, "%s/caller.so", dir);
    void *so = dlopen(path, RTLD_NOW);
    cr_assert_not_null(so, "%s", dlerror());
    const struct pprof_symbolizer *s = begin();
    cr_assert_eq(s->frames(s, (uintptr_t)dlsym(so, "mod_call") + 1, f), 1u);
    cr_expect_str_eq(f[0].func, "mod_call");
    if (right) {
        cr_assert_not_null(f[0].file, "%s", dir);
        cr_expect_str_eq(strrchr(f[0].file, '/'), "/caller.c");
        cr_expect_gt(f[0].line, 0u);
    } else {
        cr_expect_eq(f[0].line, 0u);
    }
    maps_end();
    dlclose(so);
    snprintf(command, sizeof command, "rm -r %s", dir);
    test_shell(&out, command);
}

Test(pprof_loaded, debug_information_in_a_file_of_its_own)
{
    with_a_link("", true);
    with_a_link(".debug/", true);
    with_a_link("", false);
}

static const void *called_from;

static w_noinline void note_caller(void)
{
    called_from = __builtin_return_address(0);
    __asm__ volatile("" : : : "memory");
}

static inline __attribute__((always_inline)) void inner(void) { note_caller(); __asm__ volatile(""); }
enum { INNER_LINE = __LINE__ - 1 };

static w_noinline void outer(void)
{
    inner();
    __asm__ volatile("" : : : "memory");
}
enum { OUTER_LINE = __LINE__ - 3 };

Test(pprof_loaded, functions_files_lines_and_what_is_inlined)
{
    const struct pprof_symbolizer *s = begin();
    struct pprof_frame f[PPROF_FRAMES_MAX];
    outer();
    cr_assert_eq(s->frames(s, (uintptr_t)called_from, f), 2u);
    cr_expect_str_eq(f[0].func, "inner");
    cr_expect_eq(f[0].line, (uint32_t)INNER_LINE);
    cr_expect_str_eq(f[1].func, "outer");
    cr_expect_eq(f[1].line, (uint32_t)OUTER_LINE);
    for (int i = 0; i < 2; i++)
        cr_expect(f[i].file != NULL && f[i].file[0] == '/' && strstr(f[i].file, "tests/pprof_loaded.c") != NULL, "%s", f[i].file);
    maps_end();
}

/* libc, and what starts a program, have a symbol table and, usually, no more: no file is claimed then. */
Test(pprof_loaded, a_file_is_told_only_with_a_line)
{
    const struct pprof_symbolizer *s = begin();
    const uintptr_t at[] = { (uintptr_t)qsort, s->program, (uintptr_t)begin };
    for (size_t k = 0; k < w_countof(at); k++) {
        struct pprof_frame f[PPROF_FRAMES_MAX];
        uint32_t n = s->frames(s, at[k] + 1, f);
        cr_expect(n >= 1 || (k == 1 && test_is_emulated()), "0x%lx", (unsigned long)at[k]);
        for (uint32_t i = 0; i < n; i++) {
            cr_expect_not_null(f[i].func);
            cr_expect_eq(f[i].file != NULL, f[i].line != 0, "%s at %s:%u", f[i].func, f[i].file, f[i].line);
        }
    }
    maps_end();
}

/* All of it, in a file. */
Test(pprof_loaded, a_profile_of_this_program)
{
    static const struct pprof_kind kind = { .value = { { "calls", "count" } }, .values = 1 };
    const struct pprof_symbolizer *s = begin();
    struct sink to = { 0 };
    outer();
    uintptr_t pc[3] = { (uintptr_t)qsort + 1, (uintptr_t)called_from, (uintptr_t)begin + 1 };
    struct pprof *p = pprof_open(&kind, 1);
    cr_assert_eq(pprof_add(p, pc, 3, (int64_t[]){ 1 }, NULL, 0), 0);
    cr_assert_eq(pprof_encode(p, s, 0), 0);
    maps_end();
    cr_assert_eq(pprof_write(p, sink_write, &to), 0);
    pprof_close(p);
    struct pp *d = pp_decode(to.bytes, to.len);
    const struct pp_sample *it = &d->sample[0];
    cr_expect(strstr(pp_text(it), ";(inner);outer;begin") != NULL, "%s", pp_text(it));
    cr_expect_not_null(it->location[0]->mapping);
    cr_expect_eq(it->location[1]->mapping->lo, it->location[2]->mapping->lo);
    cr_expect(it->location[1]->mapping->lines && it->location[1]->mapping->inlined);
    struct pprof_module m;
    s = begin();
    cr_assert(s->module(s, (uintptr_t)getauxval(AT_ENTRY), &m) || test_is_emulated());
    cr_expect_str_eq(d->mapping[0].file, m.path, "the program comes first");
    maps_end();
}
