/* The explanation of resident memory: that it adds up, and that what the program does shows in the part where it belongs. */
#include "json_test.h"
#include "waiting.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
#include <weft/trace.h>

#define MIB (1 << 20)
#define KIB 1024.0

static double resident(const struct js *memory, const char *part)
{
    const struct js *p = js_with(js_at(memory, "parts"), "id", part);
    cr_assert_not_null(p, "%s", part);
    return js_num(p, "resident_bytes");
}

/* What is ours and small changes from look to look: text of the documents before, the stack of the helper, symbols. */
#define ABOUT (1.0 * MIB)

#define grew(now, was, part, bytes) \
    do { \
        double by_ = resident(now, part) - resident(was, part); \
        cr_expect(by_ > (bytes) - ABOUT && by_ < (bytes) + ABOUT, "%s grew by %.0f KiB, not %.0f", part, by_ / KIB, (bytes) / KIB); \
    } while (0)

static void touch(volatile char *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 4096)
        p[i] = 1;
}

/* The sum of all there is in smaps, which is another way in the kernel to count the same. */
static double smaps_rss(void)
{
    char line[256];
    double sum = 0, kib;
    FILE *f = fopen("/proc/self/smaps", "r");
    cr_assert_not_null(f);
    while (fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "Rss: %lf kB", &kib) == 1)
            sum += kib * 1024;
    fclose(f);
    return sum;
}

static struct js *look(void) { return js_document("memory"); }

/* A sanitizer's allocator takes its memory as it likes, in megabytes, keeps what is freed, and has a shadow of all that is touched. */
static bool host_is_as_we_know_it(void) { return !test_is_slow(); }

/* The parts are counted from the page tables, mapping by mapping, so their sum is exact but for what changes meanwhile: the helper's stack grows, text is
 * written. The kernel's number in /proc/self/status lags by 64 pages per CPU before Linux 6.16, 256 KiB each. A page of the kernel's that is mapped
 * specially (vdso) may count in one and not in the other. */
static void adds_up(void *arg)
{
    (void)arg;
    look();
    double before = smaps_rss();
    struct js *m = look();
    double sum = 0, most = 256 * KIB * (double)sysconf(_SC_NPROCESSORS_ONLN) + 256 * KIB, after = smaps_rss(); /* with what reading it has taken */
    for (const struct js *p = js_at(m, "parts")->first; p != NULL; p = p->next) {
        sum += js_num(p, "resident_bytes");
        cr_expect_gt(strlen(js_str(p, "falls")), 2);
    }
    cr_expect_eq(sum, js_num(m, "sum_bytes"));
    cr_expect(sum - js_num(m, "rss_bytes") < most && js_num(m, "rss_bytes") - sum < most, "%.0f of %.0f KiB", sum / KIB, js_num(m, "rss_bytes") / KIB);
    if (js_true(m, "exact") && host_is_as_we_know_it())
        cr_expect(sum - after < 512 * KIB && before - sum < 512 * KIB, "%.0f of %.0f to %.0f KiB", sum / KIB, before / KIB, after / KIB);
}

Test(debug_memory, the_parts_add_up_to_what_is_resident)
{
    test_needs_a_kernel();
    test_run_each(adds_up, NULL);
}

static void kinds(void *arg)
{
    (void)arg;
    look();
    struct js *m = look(), *was = m;
    char *p = malloc(32 * MIB);
    touch(p, 32 * MIB);
    m = look();
    grew(m, was, "host.anonymous", 32 * MIB);
    grew(m, was, "heap.objects", 0);
    grew(m, was, "runtime.sched", 0);
    was = m;

    char *objects = weft_alloc_noscan(24 * MIB), *unused = weft_alloc(40 * MIB);
    touch(objects, 24 * MIB);
    weft_gc(); /* it reads the other one, which is nobody's memory for that */
    m = look();
    grew(m, was, "heap.objects", 24 * MIB);
    grew(m, was, "host.anonymous", 0);
    cr_expect_geq(js_num(js_with(js_at(m, "parts"), "id", "heap.objects"), "held_bytes"), 64 * MIB);
    was = m;

    char *shared = mmap(NULL, 8 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    touch(shared, 8 * MIB);
    char path[] = "/tmp/weft-memory-XXXXXX";
    int fd = mkstemp(path);
    unlink(path);
    cr_assert_eq(ftruncate(fd, 4 * MIB), 0);
    char *file = mmap(NULL, 4 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert(shared != MAP_FAILED && file != MAP_FAILED);
    touch(file, 4 * MIB);
    m = look();
    if (js_true(m, "exact")) {
        grew(m, was, "host.shared", 8 * MIB);
        grew(m, was, "host.files", 4 * MIB);
    }
    grew(m, was, "host.anonymous", 0);
    munmap(shared, 8 * MIB);
    munmap(file, 4 * MIB);
    close(fd);
    free(p);
    m = look();
    grew(m, was, "host.anonymous", -32 * MIB);
    weft_keep_alive(objects);
    weft_keep_alive(unused);
}

Test(debug_memory, each_kind_of_memory_has_its_part)
{
    test_needs_a_kernel();
    if (host_is_as_we_know_it())
        test_run_procs(2, kinds, NULL);
}

/* ---- the heap falls as it is said ------------------------------------------------------------------------------------ */

static __attribute__((noinline)) void make_garbage(void)
{
    for (int i = 0; i < 64; i++)
        touch(weft_alloc_noscan(MIB), MIB);
}

static void scavenger(void *arg)
{
    (void)arg;
    struct js *m = look();
    cr_expect_str_eq(js_str(m, "scavenger.state"), "no goal yet");
    cr_expect(js_is_null(m, "scavenger.keep_bytes"));
    weft_set_gc_percent(-1);
    make_garbage();
    test_wipe_stack();
    m = look();
    double full = resident(m, "heap.objects");
    cr_expect_geq(full, 60 * MIB);
    cr_expect(strstr(js_str(js_with(js_at(m, "parts"), "id", "heap.objects"), "falls"), "off") != NULL);
    weft_gc();
    m = look(); /* dead, swept, and still there */
    cr_expect_leq(resident(m, "heap.objects"), 8 * MIB);
    cr_expect_geq(resident(m, "heap.free"), full - 8 * MIB);
    cr_expect_geq(js_num(m, "scavenger.keep_bytes"), 1);
    double before = js_num(m, "rss_bytes");
    weft_free_os_memory();
    m = look();
    cr_expect_leq(resident(m, "heap.free"), 4 * MIB);
    cr_expect_leq(js_num(m, "rss_bytes"), before - 50 * MIB);
    weft_set_gc_percent(100);
}

Test(debug_memory, free_pages_stay_until_they_are_given_back)
{
    test_needs_a_kernel();
    test_run_procs(1, scavenger, NULL);
}

/* ---- stacks ----------------------------------------------------------------------------------------------------------- */

static weft_chan *gate;

static void deep(void *arg)
{
    volatile char frame[32 << 10];
    (void)arg;
    touch(frame, sizeof frame);
    weft_chan_recv(gate, NULL);
    touch(frame, 1);
}

static void stacks(void *arg)
{
    (void)arg;
    gate = weft_chan_make(0, 0);
    look();
    struct js *was = look(), *m;
    for (int i = 0; i < 500; i++)
        cr_assert_eq(weft_go(deep, NULL), 0);
    test_until(receivers(gate) == 500);
    m = look();
    grew(m, was, "stacks.used", 500 * 36.0 * KIB);
    grew(m, was, "host.anonymous", 0);
    was = m;
    weft_chan_close(gate);
    test_until(weft_num_fibers() == 1);
    m = look();
    grew(m, was, "stacks.used", -500 * 36.0 * KIB);
    grew(m, was, "stacks.free", 500 * 36.0 * KIB);
    was = m;
    weft_free_os_memory();
    m = look();
    grew(m, was, "stacks.free", -500 * 36.0 * KIB);
}

Test(debug_memory, stacks_are_told_apart_from_the_rest)
{
    test_needs_a_kernel();
    if (!test_is_slow()) /* a sanitizer's frames are larger */
        test_run_procs(2, stacks, NULL);
}

static int drop(void *ctx, const void *data, size_t n) { return (void)ctx, (void)data, (void)n, 0; }

static void traces(void *arg)
{
    (void)arg;
    weft_flight_opts o = WEFT_FLIGHT_OPTS_INIT;
    look();
    struct js *was = look();
    o.bytes = 2 * MIB;
    cr_assert_eq(weft_flight_recorder_start(&o), 0);
    for (int i = 0; i < 30000; i++)
        weft_trace_logf("test", "%d: a text of its own, so that the trace needs some room", i);
    cr_assert_eq(weft_flight_recorder_snapshot(drop, NULL), 0);
    struct js *m = look();
    cr_expect_gt(resident(m, "runtime.trace") - resident(was, "runtime.trace"), 1 * MIB);
    cr_expect(!host_is_as_we_know_it() || resident(m, "host.anonymous") - resident(was, "host.anonymous") < 1 * MIB);
    cr_assert_eq(weft_flight_recorder_stop(), 0);
    weft_free_os_memory(); /* else it takes a second */
    m = look();
    cr_expect_lt(resident(m, "runtime.trace"), 1 * MIB, "%.0f KiB", resident(m, "runtime.trace") / KIB);
}

Test(debug_memory, traces_show_while_they_are_made)
{
    test_needs_a_kernel();
    test_run_procs(2, traces, NULL);
}

/* ---- the page ----------------------------------------------------------------------------------------------------------- */

static void page(void *arg)
{
    (void)arg;
    struct sink s = { 0 };
    cr_assert_eq(weft_memory_explain(sink_write, &s), 0);
    unsigned long rss, sum = 0, kib, told = 0;
    char *text = s.text, *at = strstr(text, "\n\n"), *line;
    cr_assert_eq(sscanf(text, "%lu KiB  resident", &rss), 1);
    for (line = at + 2; *line != '\n'; line = strchr(line, '\n') + 1)
        if (sscanf(line, "%lu KiB", &kib) == 1)
            sum += kib;
        else
            cr_expect(strncmp(line, "               falls ", 21) == 0, "%.40s", line);
    cr_assert_eq(sscanf(line, " %lu KiB  their sum", &told), 1);
    cr_expect(told - sum < 20, "rounded down, part by part");
    cr_expect(strstr(text, "the host's: other arenas of malloc") != NULL && strstr(text, "weft's code") != NULL, "%s", text);
}

Test(debug_memory, a_page_for_people)
{
    test_needs_a_kernel();
    test_run(page, NULL);
}
