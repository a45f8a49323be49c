/* Profiles in the viewer that they are for: go tool pprof, which the build puts into build/go. Without Go these tests are skipped. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>
#include "prof/gzip.h"
#include "prof/loaded.h"
#include "pprof_fake.h"

#define TOOL TEST_SRC "/build/go/pprof"

static struct test_output out; /* of the last call */

/* pprof options... file; returns its exit code. */
static int pprof(const char *file, ...)
{
    const char *argv[16] = { TOOL };
    int n = 1;
    va_list ap;
    va_start(ap, file);
    for (const char *s; (s = va_arg(ap, const char *)) != NULL;)
        argv[n++] = s;
    va_end(ap);
    argv[n] = file;
    return test_child(&out, argv, NULL);
}

#define PPROF_OK(file, ...) cr_assert_eq(pprof(file, __VA_ARGS__, NULL), 0, "%s", out.text)
#define SAYS(this) cr_expect(strstr(out.text, this) != NULL, "no \"%s\" in\n%s", this, out.text)
#define SAYS_NOT(this) cr_expect(strstr(out.text, this) == NULL, "\"%s\" in\n%s", this, out.text)

static void needs_go(void)
{
    if (access(TOOL, X_OK) != 0)
        cr_skip_test("go tool pprof is not there: install Go");
}

/* The first n bytes, in a file of the test's own. */
static const char *file_of(const char *name, const void *bytes, size_t n)
{
    static char path[4][64];
    static int i;
    char *p = path[i++ % 4];
    snprintf(p, sizeof path[0], "/tmp/weft-pprof-%d-%s", (int)getpid(), name);
    FILE *f = fopen(p, "we");
    cr_assert_not_null(f);
    cr_assert_eq(fwrite(bytes, 1, n, f), n);
    cr_assert_eq(fclose(f), 0);
    return p;
}

static void drop_files(void) { test_shell(&(struct test_output){ 0 }, "rm -f /tmp/weft-pprof-$PPID-*"); }

static struct sink to;
static struct fake fake = FAKE_INIT;

static void add(struct pprof *p, const uintptr_t *pc, uint32_t n, int64_t samples, const char *tenant)
{
    int64_t value[2] = { samples, samples * 10000000 };
    struct pprof_label l[2] = { { .key = "tenant", .text = tenant }, { .key = "request", .num = 4096, .unit = "bytes" } };
    cr_assert_eq(pprof_add(p, pc, n, value, l, tenant != NULL ? 2 : 0), 0);
}

/* Three pieces; end[i]: where they end. In tens of milliseconds: p1 60, p2 by way of the inlined i2 30, f3 10. */
static void make_cpu(size_t *end)
{
    struct pprof *p = pprof_open(&fake_cpu, 1700000000000000000);
    for (int i = 0; i < 3; i++) {
        add(p, (uintptr_t[]){ AT_P(1), AT_P(9) }, 2, 20, NULL);
        add(p, (uintptr_t[]){ AT_I(2), AT_P(9) }, 2, i == 0 ? 30 : 0, "acme");
        if (i == 2)
            add(p, (uintptr_t[]){ AT_F(3), AT_N(4), AT_P(9) }, 3, 10, "other");
        fake_flush(p, &fake, &to, (i + 1) * 400000000);
        end[i] = to.len;
    }
    pprof_close(p);
}

Test(pprof_go, top_raw_traces_tree, .fini = drop_files)
{
    size_t end[3];
    needs_go();
    make_cpu(end);
    const char *file = file_of("cpu", to.bytes, to.len);
    PPROF_OK(file, "-top", "-unit=ms");
    SAYS("File: prog\n");
    SAYS("Build ID: dead0001\n");
    SAYS("Type: cpu\n");
    SAYS("Duration: 1.20s, Total samples = 1000ms (83.33%)\n");
    SAYS(" 600ms 60.00% 60.00%      600ms 60.00%  p1\n");
    SAYS(" 300ms 30.00% 90.00%      300ms 30.00%  i2 (inline)\n");
    SAYS(" 100ms 10.00%   100%      100ms 10.00%  f3\n");
    SAYS(" 0     0%   100%     1000ms   100%  p9\n");
    PPROF_OK(file, "-raw");
    SAYS("PeriodType: cpu nanoseconds\nPeriod: 10000000\n");
    SAYS("samples/count cpu/nanoseconds\n");
    SAYS(" /bin/prog dead0001 [FN][FL][LN][IN]\n");
    SAYS(" /lib/libf.so beef0002 [FN]\n");
    SAYS(" /lib/libn.so  \n");
    PPROF_OK(file, "-traces");
    SAYS("tenant:  acme\n");
    SAYS("request:  4kB\n");
    PPROF_OK(file, "-tree");
    SAYS("p9\n");
    PPROF_OK(file, "-tags");
    SAYS("300ms (30.00%): acme");
    PPROF_OK(file, "-top", "-sample_index=samples", "-tagfocus=tenant=other");
    SAYS("        10 10.00% 10.00%         10 10.00%  f3\n");
}

/* Cut where a member ends, it is a profile of what was written up to there. Elsewhere it is none, and pprof says so. */
Test(pprof_go, cut_after_each_member, .fini = drop_files)
{
    static const char *const total[3] = { "Duration: 400ms, Total samples = 500ms", "Duration: 800ms, Total samples = 700ms",
                                          "Duration: 1.20s, Total samples = 1000ms" };
    size_t end[3];
    needs_go();
    make_cpu(end);
    for (int i = 0; i < 3; i++) {
        PPROF_OK(file_of("whole", to.bytes, end[i]), "-top", "-unit=ms");
        SAYS(total[i]);
        size_t begin = i > 0 ? end[i - 1] : 0;
        for (size_t cut = begin + 1; cut < end[i]; cut += (end[i] - begin) / 2) {
            cr_expect_neq(pprof(file_of("cut", to.bytes, cut), "-top", NULL), 0);
            cr_expect(strstr(out.text, "decompressing profile: unexpected EOF") != NULL || cut < 10, "%s", out.text);
        }
    }
    const char *all = file_of("all", to.bytes, end[2]);
    char base[128];
    snprintf(base, sizeof base, "-diff_base=%s", file_of("base", to.bytes, end[0]));
    PPROF_OK(all, "-top", "-unit=ms", base);
    SAYS(" 400ms 80.00% 80.00%      400ms 80.00%  p1\n");
    SAYS(" 100ms 20.00%   100%      100ms 20.00%  f3\n");
}

Test(pprof_go, nothing_at_all, .fini = drop_files)
{
    needs_go();
    struct pprof *p = pprof_open(&fake_cpu, 1700000000000000000);
    fake_flush(p, &fake, &to, 1000000000);
    PPROF_OK(file_of("empty", to.bytes, to.len), "-top");
    SAYS("Duration: 1s, Total samples = 0");
    pprof_close(p);
}

/* The kind's other words, members without zlib, and names of C++. */
static uint32_t cxx_frames(const struct pprof_symbolizer *s, uintptr_t return_pc, struct pprof_frame *to_frame)
{
    uint32_t n = fake_frames(s, return_pc, to_frame);
    to_frame[0].func = "_ZN4shop4cart3addEi";
    to_frame[0].system = NULL;
    return n;
}

Test(pprof_go, heap_of_a_program_in_cxx, .fini = drop_files)
{
    needs_go();
    struct pprof_kind kind = {
        .value = { { "alloc_objects", "count" }, { "alloc_space", "bytes" }, { "inuse_objects", "count" }, { "inuse_space", "bytes" } },
        .values = 4,
        .period_type = { "space", "bytes" },
        .period = 524288,
        .default_type = "alloc_space",
        .drop_frames = "p8",
    };
    gzip_without_zlib = true;
    struct pprof *p = pprof_open(&kind, 1700000000000000000);
    int64_t value[4] = { 100, 100 << 20, 10, 10 << 20 };
    fake.symbolizer.frames = cxx_frames;
    cr_assert_eq(pprof_add(p, (uintptr_t[]){ AT_P(1) }, 1, value, NULL, 0), 0);
    fake_flush(p, &fake, &to, 0);
    fake.symbolizer.frames = fake_frames;
    cr_assert_eq(pprof_comment(p, "made by a test"), 0);
    for (int i = 0; i < 4; i++)
        value[i] *= 3;
    cr_assert_eq(pprof_add(p, (uintptr_t[]){ AT_P(8), AT_P(9) }, 2, value, NULL, 0), 0);
    fake_flush(p, &fake, &to, 0);
    pprof_close(p);
    const char *file = file_of("heap", to.bytes, to.len);
    PPROF_OK(file, "-top");
    SAYS("Type: alloc_space\n");
    SAYS(" 100MB 25.00%   100%      100MB 25.00%  shop::cart::add\n");
    SAYS(" 300MB 75.00% 75.00%      300MB 75.00%  p9\n");
    SAYS_NOT("p8\n");
    PPROF_OK(file, "-comments");
    SAYS("made by a test");
    PPROF_OK(file, "-top", "-sample_index=inuse_objects");
    SAYS(" 10 25.00%   100%         10 25.00%  shop::cart::add\n");
}

/* Addresses without names: pprof finds them in the file, for which mapping and offset must be right. */
static uint32_t no_frames(const struct pprof_symbolizer *s, uintptr_t return_pc, struct pprof_frame *to_frame)
{
    return (void)s, (void)return_pc, (void)to_frame, 0;
}

void pprof_go_marked(void) {}

Test(pprof_go, names_that_pprof_finds_itself, .fini = drop_files)
{
    needs_go();
    struct symbol scratch[SYMBOLS_INLINED_MAX];
    struct loaded l;
    const struct maps *t = maps_begin(symbols_gone);
    cr_assert_not_null(t);
    loaded_init(&l, t, scratch);
    l.symbolizer.frames = no_frames;
    struct pprof *p = pprof_open(&fake_cpu, 1700000000000000000);
    add(p, (uintptr_t[]){ (uintptr_t)pprof_go_marked + 1 }, 1, 1, NULL);
    cr_assert_eq(pprof_encode(p, &l.symbolizer, 0), 0);
    maps_end();
    cr_assert_eq(pprof_write(p, sink_write, &to), 0);
    pprof_close(p);
    PPROF_OK(file_of("bare", to.bytes, to.len), "-top");
    SAYS("File: pprof_go\n");
    SAYS("  pprof_go_marked");
}
