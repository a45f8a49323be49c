/* weft_stack and weft_stack_write: what they say of each kind of fiber, that nobody is missing, and that they may be called at any time. */
#include "test.h"
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/atomic.h"
#include "os/maps.h"
#include "prof/dump.h"
#include "sched/sched.h"
#include "sched/stack.h"

#define NOINLINE __attribute__((noinline))
#define NO_TAIL_CALL() __asm__ volatile("")
#define HERE TEST_SRC "/tests/dump_stack.c"

/* ---- reading a dump ----------------------------------------------------------------------------------- */

/* The whole text, freed by the caller. */
static char *dump_text(bool all)
{
    size_t room = 1 << 16;
    for (;;) {
        char *buf = malloc(room);
        ssize_t n = weft_stack(buf, room, all);
        cr_assert_gt(n, 0, "weft_stack: %zd", n);
        if ((size_t)n < room) {
            cr_assert_eq(strlen(buf), (size_t)n);
            return buf;
        }
        free(buf);
        room = (size_t)n * 2;
    }
}

/* The part about one fiber: from its head, which begins with `head`, to the empty line. Freed by the caller; fails if there is none. */
static char *part(const char *text, const char *head)
{
    for (const char *at = text; (at = strstr(at, head)) != NULL; at++)
        if (at == text || at[-1] == '\n') {
            const char *end = strstr(at, "\n\n");
            cr_assert_not_null(end, "no empty line after %s", head);
            return strndup(at, (size_t)(end + 1 - at));
        }
    cr_assert_fail("no \"%s\" in:\n%s", head, text);
    return NULL;
}

static char *part_of(const char *text, uint64_t id)
{
    char head[32];
    snprintf(head, sizeof head, "fiber %lu ", (unsigned long)id);
    return part(text, head);
}

/* what, formatted, occurs in p. */
#define expect_in(p, ...)                                                                 \
    do {                                                                                  \
        char want_[512];                                                                  \
        snprintf(want_, sizeof want_, __VA_ARGS__);                                       \
        cr_expect_not_null(strstr(p, want_), "no \"%s\" in:\n%s", want_, p);              \
    } while (0)

/* Checks the form of the whole text and returns the number of fibers in it. */
static unsigned long check_form(const char *text, bool all)
{
    unsigned long heads = 0, shown = 0, total = 0, last = 0, id;
    const char *line = text, *final = NULL;
    for (const char *next; *line != 0; line = next) {
        next = strchr(line, '\n');
        cr_assert_not_null(next, "the last line has no end");
        next++;
        final = line;
        if (strncmp(line, "fiber ", 6) != 0)
            continue;
        cr_assert_eq(sscanf(line, "fiber %lu ", &id), 1);
        cr_assert_eq(strncmp(next - 3, "]:\n", 3), 0, "head of fiber %lu: %.60s", id, line);
        if (heads++ > 0) {
            cr_assert_gt(id, last, "fiber %lu comes after %lu", id, last);
            last = id;
        }
    }
    cr_assert_eq(sscanf(final, "%lu of %lu fibers\n", &shown, &total), 2, "last line: %s", final);
    cr_assert_eq(shown, heads);
    if (all)
        cr_assert_eq(total, heads);
    return heads;
}

/* ---- fibers that wait ------------------------------------------------------------------------------------ */

static weft_chan *never;
static weft_mutex held;
static weft_waitgroup open_group;
static int recv_line, spawn_line;

NOINLINE static void waits_here(void)
{
    __atomic_store_n(&recv_line, __LINE__ + 1, __ATOMIC_RELAXED);
    weft_chan_recv(never, NULL);
    NO_TAIL_CALL();
}

NOINLINE static void recv_outer(void)
{
    waits_here();
    NO_TAIL_CALL();
}

static void recv_fiber(void *arg) { (void)arg; recv_outer(); NO_TAIL_CALL(); }
static void send_fiber(void *arg) { (void)arg; weft_chan_send(never, NULL); NO_TAIL_CALL(); }
static void nil_fiber(void *arg) { (void)arg; weft_chan_recv(NULL, NULL); NO_TAIL_CALL(); }
static void select_fiber(void *arg) { (void)arg; weft_select(NULL, 0); NO_TAIL_CALL(); }
static void mutex_fiber(void *arg) { (void)arg; weft_mutex_lock(&held); NO_TAIL_CALL(); }
static void group_fiber(void *arg) { (void)arg; weft_waitgroup_wait(&open_group); NO_TAIL_CALL(); }
static void sleep_fiber(void *arg) { (void)arg; weft_sleep(1000 * WEFT_SECOND); NO_TAIL_CALL(); }

/* Started and waiting. */
static uint64_t start_named(weft_fn *fn, void *arg, const char *name, size_t stack)
{
    weft_go_opts o = WEFT_GO_OPTS_INIT;
    uint64_t id = 0;
    o.id = &id;
    o.name = name;
    o.stack_size = stack;
    cr_assert_eq(weft_go_opts_run(fn, arg, &o), 0);
    return id;
}

struct wanted { uint64_t id; bool parked; };

static void look_if_parked(struct fiber *f, void *arg)
{
    struct wanted *w = arg;
    if (load_acq(&f->state) == FIBER_WAITING && f->id == w->id)
        w->parked = true;
}

static bool is_parked(uint64_t id)
{
    struct wanted w = { id, false };
    stack_each(0, 1, look_if_parked, &w);
    return w.parked;
}

static uint64_t start_parked(weft_fn *fn, void *arg)
{
    uint64_t id = start_named(fn, arg, NULL, 0);
    test_until(is_parked(id));
    return id;
}

static void reasons_main(void *arg)
{
    (void)arg;
    never = weft_chan_make(0, 0);
    weft_mutex_lock(&held);
    weft_waitgroup_add(&open_group, 1);
    weft_chan *other = never;
    static const struct { weft_fn *fn; const char *status, *call; } kinds[] = {
        { recv_fiber, "chan receive", "weft_chan_recv" },
        { nil_fiber, "chan receive (nil chan)", "weft_chan_recv" },
        { select_fiber, "select (no cases)", "weft_select" },
        { mutex_fiber, "sync.Mutex.Lock", "weft_mutex_lock" },
        { group_fiber, "sync.WaitGroup.Wait", "weft_waitgroup_wait" },
        { sleep_fiber, "sleep", "weft_sleep" },
        { send_fiber, "chan send", "weft_chan_send" },
    };
    uint64_t id[7];
    for (unsigned i = 0; i < 7; i++) {
        if (kinds[i].fn == send_fiber)
            never = weft_chan_make(0, 0); /* or it would wake the receiver */
        id[i] = start_parked(kinds[i].fn, NULL);
    }
    char *text = dump_text(true);
    check_form(text, true);
    for (unsigned i = 0; i < 7; i++) {
        char *p = part_of(text, id[i]);
        char want[200];
        snprintf(want, sizeof want, "fiber %lu [%s]:\n%s(...)\n\t", (unsigned long)id[i], kinds[i].status, kinds[i].call);
        cr_expect_eq(strncmp(p, want, strlen(want)), 0, "wanted \"%s\" at the start of:\n%s", want, p);
        expect_in(p, "\ncreated by start_named in fiber 1\n\t" HERE ":");
        cr_expect_null(strstr(p, "fiber_start"), "%s", p);
        free(p);
    }
    free(text);
    weft_keep_alive(other);
}

Test(dump_stack, waiting_fibers_are_shown_with_reason_and_public_call) { test_run(reasons_main, NULL); }

static void lines_main(void *arg)
{
    (void)arg;
    never = weft_chan_make(0, 0);
    uint64_t id = 0;
    weft_go_opts o = WEFT_GO_OPTS_INIT;
    o.id = &id;
    spawn_line = __LINE__ + 1;
    cr_assert_eq(weft_go_opts_run(recv_fiber, NULL, &o), 0);
    test_until(is_parked(id));
    char *text = dump_text(true), *p = part_of(text, id);
    expect_in(p, "\nwaits_here(...)\n\t" HERE ":%d +0x", recv_line);
    expect_in(p, "\nrecv_outer(...)\n\t" HERE ":");
    expect_in(p, "\nrecv_fiber(...)\n\t" HERE ":");
    expect_in(p, "created by lines_main in fiber 1\n\t" HERE ":%d +0x", spawn_line);
    cr_expect_lt(strstr(p, "waits_here"), strstr(p, "recv_outer"));
    cr_expect_lt(strstr(p, "recv_outer"), strstr(p, "recv_fiber"));
    free(p);
    free(text);
}

Test(dump_stack, frames_have_function_file_and_line) { test_run(lines_main, NULL); }

/* ---- the calling fiber -------------------------------------------------------------------------------------- */

static int self_line;

NOINLINE static char *dump_from_here(bool all)
{
    char *buf = malloc(1 << 20);
    self_line = __LINE__ + 1;
    ssize_t n = weft_stack(buf, 1 << 20, all);
    cr_assert_gt(n, 0);
    return buf;
}

static void self_main(void *arg)
{
    (void)arg;
    never = weft_chan_make(0, 0);
    start_parked(recv_fiber, NULL);
    errno = 4711;
    char *text = dump_from_here(false);
    cr_expect_eq(errno, 4711);
    char want[300];
    snprintf(want, sizeof want, "fiber 1 [running]:\ndump_from_here(...)\n\t" HERE ":%d +0x", self_line);
    cr_expect_eq(strncmp(text, want, strlen(want)), 0, "wanted \"%s\" at the start of:\n%s", want, text);
    expect_in(text, "\nself_main(...)\n");
    expect_in(text, "\n\n1 of 2 fibers\n");
    cr_expect_null(strstr(text, "fiber 2"));
    free(text);
    text = dump_from_here(true);
    cr_expect_eq(strncmp(text, want, strlen(want)), 0, "the caller is not first:\n%s", text);
    expect_in(text, "\n\n2 of 2 fibers\n");
    free(text);
}

Test(dump_stack, calling_fiber_comes_first_and_starts_with_the_caller) { test_run(self_main, NULL); }

static void small_main(void *arg)
{
    (void)arg;
    free(dump_text(true));
    store_rel((w_u32 *)arg, 1);
}

static void small_stack_main(void *arg)
{
    start_named(small_main, arg, NULL, 16384);
    test_until(load_acq((w_u32 *)arg) == 1);
}

Test(dump_stack, a_fiber_with_the_smallest_stack_may_call_it)
{
    w_u32 done = { 0 };
    test_run(small_stack_main, &done);
}

/* ---- names ------------------------------------------------------------------------------------------------------ */

static void names_main(void *arg)
{
    (void)arg;
    never = weft_chan_make(0, 0);
    uint64_t a = start_named(recv_fiber, NULL, "acceptor", 0), b = start_named(recv_fiber, NULL, "x\"\n[fake]:", 0);
    test_until(is_parked(a) && is_parked(b));
    weft_set_name("boss");
    char *text = dump_text(true);
    check_form(text, true);
    expect_in(text, "fiber 1 \"boss\" [running]:\n");
    expect_in(text, "fiber %lu \"acceptor\" [chan receive]:\n", (unsigned long)a);
    expect_in(text, "fiber %lu \"x??[fake]:\" [chan receive]:\n", (unsigned long)b);
    free(text);
}

Test(dump_stack, names_are_shown_and_cannot_imitate_a_head) { test_run(names_main, NULL); }

/* ---- long waits -------------------------------------------------------------------------------------------------- */

static void make_older(struct fiber *f, void *arg)
{
    if (f->id == *(uint64_t *)arg)
        f->since_ns -= 150000000000; /* 2.5 minutes */
}

static void minutes_main(void *arg)
{
    (void)arg;
    never = weft_chan_make(0, 0);
    uint64_t id = start_parked(recv_fiber, NULL);
    stack_each(0, 1, make_older, &id);
    char *text = dump_text(true);
    expect_in(text, "fiber %lu [chan receive, 2 minutes]:\n", (unsigned long)id);
    free(text);
}

Test(dump_stack, long_waits_are_shown_in_minutes) { test_run(minutes_main, NULL); }

/* ---- fibers that run --------------------------------------------------------------------------------------------- */

static w_u32 spinning, stop_spinning;

NOINLINE static void spins_here(void)
{
    add_seq(&spinning, 1);
    while (load_acq(&stop_spinning) == 0)
        ;
    NO_TAIL_CALL();
}

static void spin_fiber(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_lock_os_thread(), 0);
    spins_here();
    weft_unlock_os_thread();
}

static int pipe_fd[2];

static void read_fiber(void *arg)
{
    char c;
    weft_blocking_begin();
    store_rel((w_u32 *)arg, 1);
    ssize_t n = read(pipe_fd[0], &c, 1);
    weft_blocking_end();
    cr_expect_eq(n, 1, "the read was disturbed: %zd", n);
}

static void running_main(void *arg)
{
    (void)arg;
    w_u32 reading = { 0 };
    cr_assert_eq(pipe(pipe_fd), 0);
    uint64_t spin = start_named(spin_fiber, NULL, "spinner", 0), in_read = start_named(read_fiber, &reading, NULL, 0);
    test_until(load_acq(&spinning) != 0 && load_acq(&reading) != 0);
    char *text = dump_text(true);
    check_form(text, true);
    char *p = part_of(text, spin), *q = part_of(text, in_read);
    expect_in(p, "fiber %lu \"spinner\" [running, locked to thread]:\n", (unsigned long)spin);
    expect_in(q, "fiber %lu [syscall]:\n", (unsigned long)in_read);
#ifndef W_TSAN /* holds signals back until a thread calls it */
    expect_in(p, "spins_here(...)\n\t" HERE ":");
    expect_in(p, "\nspin_fiber(...)\n\t" HERE ":");
    expect_in(q, "\nread_fiber(...)\n\t" HERE ":");
#endif
    expect_in(p, "\ncreated by start_named in fiber 1\n");
    free(p);
    free(q);
    free(text);
    store_rel(&stop_spinning, 1);
    cr_assert_eq(write(pipe_fd[1], "x", 1), 1);
    test_until(weft_num_fibers() == 1);
}

Test(dump_stack, running_fibers_are_shown_with_their_frames) { test_run_procs(2, running_main, NULL); }

/* ---- fibers that have not started ----------------------------------------------------------------------------------- */

static w_u32 holding, release_it;

static void unborn_fiber(void *arg) { (void)arg; }

NOINLINE static uint64_t spawn_inside(weft_fn *fn, const char *name)
{
    uint64_t id = 0;
    weft_go_opts opts = { .size = sizeof opts, .name = name, .id = &id };
    cr_assert_eq(sched_spawn(fn, NULL, &opts, __builtin_return_address(0), 0), 0);
    return id;
}

/* Keeps the only processor: nobody takes it from a machine that is inside. So what it has started does not run. */
static void hold_fiber(void *arg)
{
    struct m *m = rt_enter();
    *(uint64_t *)arg = spawn_inside(unborn_fiber, "unborn");
    store_rel(&holding, 1);
    while (load_acq(&release_it) == 0)
        cpu_relax();
    rt_leave(m);
}

static char lines_seen[16384];

static void keep_line(const char *line)
{
    size_t n = strlen(lines_seen);
    snprintf(lines_seen + n, sizeof lines_seen - n, "%s\n", line);
}

static void *dump_by_stranger(void *arg)
{
    (void)arg;
    while (load_acq(&holding) == 0)
        usleep(100);
    dump_all_lines(keep_line);
    store_rel(&release_it, 1);
    return NULL;
}

static void unborn_main(void *arg)
{
    (void)arg;
    pthread_t t;
    uint64_t id = 0;
    cr_assert_eq(pthread_create(&t, NULL, dump_by_stranger, NULL), 0);
    start_named(hold_fiber, &id, NULL, 0);
    pthread_join(t, NULL);
    check_form(lines_seen, true);
    char *p = part_of(lines_seen, id);
    char want[300];
    const char *name = test_is_emulated() ? "" : " \"unborn\""; /* which is read with process_vm_readv(2), if there is such a call */
    snprintf(want, sizeof want, "fiber %lu%s [runnable, not started]:\ncreated by hold_fiber in fiber 2\n\t" HERE ":", (unsigned long)id, name);
    cr_expect_eq(strncmp(p, want, strlen(want)), 0, "wanted \"%s\" at the start of:\n%s", want, p);
    expect_in(lines_seen, "\n\n3 of 3 fibers\n");
    free(p);
}

Test(dump_stack, tasks_that_wait_for_a_processor_are_shown) { test_run_procs(1, unborn_main, NULL); }

/* ---- many ---------------------------------------------------------------------------------------------------------------- */

static void many_main(void *arg)
{
    long n = *(long *)arg;
    never = weft_chan_make(0, 0);
    for (long i = 0; i < n; i++)
        cr_assert_eq(weft_go(recv_fiber, NULL), 0);
    for (int round = 0; round < 2; round++) { /* while they start, and when all wait */
        char *text = dump_text(true), footer[64];
        cr_expect_eq(check_form(text, true), (unsigned long)n + 1);
        snprintf(footer, sizeof footer, "\n%ld of %ld fibers\n", n + 1, n + 1);
        cr_expect_str_eq(text + strlen(text) - strlen(footer), footer);
        free(text);
        test_until(weft_num_fibers() == n + 1);
        weft_sleep(20 * WEFT_MILLISECOND);
    }
}

Test(dump_stack, all_of_thousands)
{
    long n = test_is_slow() ? 5000 : 10000; /* TSan takes fibers for threads, of which it allows 8128 */
    test_run(many_main, &n);
}

NOINLINE static void deep(int n)
{
    volatile char frame[32];
    frame[0] = (char)n;
    if (n == 0)
        weft_chan_recv(never, NULL);
    else
        deep(n - 1);
    frame[1] = frame[0];
}

static void deep_fiber(void *arg) { deep(*(int *)arg); NO_TAIL_CALL(); }

static void deep_main(void *arg)
{
    (void)arg;
    never = weft_chan_make(0, 0);
    static int levels = 300;
    uint64_t id = start_parked(deep_fiber, &levels);
    char *text = dump_text(true), *p = part_of(text, id);
    int frames = 0, elided = 0;
    for (char *s = p; (s = strstr(s, "(...)\n")) != NULL; s++)
        frames++;
    char *e = strstr(p, "\n...");
    cr_assert_not_null(e, "nothing was left out:\n%s", p);
    cr_assert_eq(sscanf(e, "\n...%d frames elided...", &elided), 1);
    cr_expect_leq(frames, 100);
    cr_expect_geq(frames, 90);
    /* weft_chan_recv, 301 times deep, deep_fiber; some of the runtime's own are hidden at both ends */
    cr_expect_geq(frames + elided, 303);
    cr_expect_leq(frames + elided, 303);
    expect_in(p, "]:\nweft_chan_recv(...)\n");
    expect_in(p, "\ndeep_fiber(...)\n");
    free(p);
    free(text);
}

Test(dump_stack, deep_stacks_keep_both_ends) { test_run(deep_main, NULL); }

/* ---- buffers and writers ------------------------------------------------------------------------------------------------- */

static void buffer_main(void *arg)
{
    (void)arg;
    never = weft_chan_make(0, 0);
    for (int i = 0; i < 20; i++)
        start_parked(recv_fiber, NULL);
    char *whole = NULL, *buf = malloc(1 << 20);
    size_t sizes[] = { 1 << 20, 1, 2, 100, 999, 0, 0, 0 }, n = 0;
    for (unsigned i = 0; i < 8; i++) { /* from one place, so that the text is the same each time */
        memset(buf, 'Z', 1 << 20);
        ssize_t r = weft_stack(sizes[i] > 0 ? buf : NULL, sizes[i], true);
        cr_assert_gt(r, 1000);
        if (i == 0) {
            n = (size_t)r;
            whole = strdup(buf);
            sizes[6] = n;     /* one less than enough */
            sizes[7] = n + 1; /* just enough */
            cr_expect_str_eq(whole + n - 16, "21 of 21 fibers\n");
        }
        cr_expect_eq((size_t)r, n, "buffer of %zu: %zd", sizes[i], r);
        if (sizes[i] == 0)
            continue;
        size_t len = sizes[i] > n ? n : sizes[i] - 1;
        cr_expect_eq(strlen(buf), len);
        cr_expect_eq(buf[len + 1], 'Z', "written beyond a buffer of %zu", sizes[i]);
        cr_expect_eq(memcmp(buf, whole, len), 0);
    }
    free(whole);
    free(buf);
}

Test(dump_stack, a_small_buffer_gets_the_front_and_the_size_of_the_whole) { test_run(buffer_main, NULL); }

struct sink { size_t bytes; int calls, fail_at; char last; };

/* What a writer to a socket does: waits, allocates, starts fibers. */
static int busy_writer(void *ctx, const void *data, size_t n)
{
    struct sink *s = ctx;
    weft_sleep(100 * WEFT_MICROSECOND);
    cr_assert_eq(weft_go(unborn_fiber, NULL), 0);
    char *nested = dump_text(false);
    free(nested);
    s->bytes += n;
    s->last = ((const char *)data)[n - 1];
    return ++s->calls == s->fail_at ? -EIO : 0;
}

static void writer_main(void *arg)
{
    (void)arg;
    never = weft_chan_make(0, 0);
    for (int i = 0; i < 500; i++)
        weft_go(recv_fiber, NULL);
    struct sink s = { 0 };
    cr_expect_eq(weft_stack_write(busy_writer, &s, true), 0);
    cr_expect_gt(s.bytes, 500u * 100);
    cr_expect_gt(s.calls, 1);
    cr_expect_eq(s.last, '\n');
    s = (struct sink){ .fail_at = 2 };
    cr_expect_eq(weft_stack_write(busy_writer, &s, true), -EIO);
    cr_expect_eq(s.calls, 2, "called again after it failed");
}

Test(dump_stack, the_writer_may_block_and_its_error_comes_back) { test_run(writer_main, NULL); }

/* ---- at any time --------------------------------------------------------------------------------------------------------- */

static w_u32 storm_over;

static void short_life(void *arg)
{
    if (arg != NULL)
        weft_yield();
}

static void storm_fiber(void *arg)
{
    for (uintptr_t i = (uintptr_t)arg; load_acq(&storm_over) == 0; i++) {
        weft_go(short_life, i % 3 == 0 ? arg : NULL);
        if (i % 16 == 0)
            weft_yield();
        else if (i % 257 == 0)
            weft_sleep(50 * WEFT_MICROSECOND);
    }
}

static void storm_main(void *arg)
{
    enum { STAY = 50 };
    uint64_t stay[STAY];
    never = weft_chan_make(0, 0);
    int rounds = *(int *)arg;
    for (int i = 0; i < STAY; i++)
        stay[i] = start_parked(recv_fiber, NULL);
    for (uintptr_t i = 1; i <= 4; i++)
        weft_go(storm_fiber, (void *)(i * 8));
    for (int r = 0; r < rounds; r++) {
        char *text = dump_text(true);
        cr_expect_geq(check_form(text, true), STAY + 1u);
        for (int i = 0; i < STAY; i++) {
            char *p = part_of(text, stay[i]);
            expect_in(p, "\nwaits_here(...)\n");
            free(p);
        }
        free(text);
    }
    store_rel(&storm_over, 1);
    test_until(weft_num_fibers() == STAY + 1);
}

Test(dump_stack, fibers_that_come_and_go_meanwhile)
{
    int rounds = test_is_slow() ? 5 : 30;
    test_run_procs(4, storm_main, &rounds);
}

static w_u32 dumps_done;

static void dumping_fiber(void *arg)
{
    (void)arg;
    for (int i = 0; i < 10; i++) {
        char *text = dump_text(true);
        check_form(text, true);
        free(text);
    }
    add_seq(&dumps_done, 1);
}

static void together_main(void *arg)
{
    (void)arg;
    for (int i = 0; i < 6; i++)
        weft_go(dumping_fiber, NULL);
    for (int i = 0; i < 10; i++)
        weft_gc();
    test_until(load_acq(&dumps_done) == 6);
}

Test(dump_stack, several_at_once_and_beside_collections) { test_run_procs(4, together_main, NULL); }

static void no_stop_main(void *arg)
{
    (void)arg;
    never = weft_chan_make(0, 0);
    for (int i = 0; i < 100; i++)
        weft_go(recv_fiber, NULL);
    weft_go(spin_fiber, NULL);
    test_until(load_acq(&spinning) != 0);
    uint64_t before = test_stops();
    for (int i = 0; i < 5; i++)
        free(dump_text(true));
    cr_expect_eq(test_stops(), before);
    store_rel(&stop_spinning, 1);
}

Test(dump_stack, the_world_is_not_stopped)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 2;
    cfg.gc_percent = WEFT_GC_OFF;
    test_run_config(&cfg, no_stop_main, NULL);
}

/* ---- modules --------------------------------------------------------------------------------------------------------------- */

static void in_module(void *arg)
{
    if (arg == NULL)
        weft_chan_recv(never, NULL);
    else
        for (int i = 0; i < 3; i++)
            weft_yield();
    NO_TAIL_CALL();
}

static void module_fiber(void *arg)
{
    do {
        void *so = dlopen(TEST_MOD("caller"), RTLD_NOW | RTLD_LOCAL);
        cr_assert_not_null(so, "%s", dlerror());
        void (*call)(void (*)(void *), void *) = (void (*)(void (*)(void *), void *))dlsym(so, "mod_call");
        call(in_module, arg);
        dlclose(so);
    } while (load_acq(&storm_over) == 0);
}

static void modules_main(void *arg)
{
    never = weft_chan_make(0, 0);
    (void)arg;
    for (uintptr_t i = 1; i <= 3; i++)
        start_named(module_fiber, (void *)i, NULL, 1 << 18);
    for (int i = 0; i < 20; i++) {
        char *text = dump_text(true);
        check_form(text, true);
        free(text);
    }
    store_rel(&storm_over, 1);
    test_until(weft_num_fibers() == 1);
    uint64_t id = start_named(module_fiber, NULL, NULL, 1 << 18);
    test_until(is_parked(id));
    char *text = dump_text(true), *p = part_of(text, id);
    expect_in(p, "\nin_module(...)\n");
    expect_in(p, "\nmod_call(...)\n\t" TEST_SRC "/tests/mod/caller.c:");
    expect_in(p, "\nmodule_fiber(...)\n");
    free(p);
    free(text);
}

Test(dump_stack, modules_may_come_and_go) { test_run_procs(4, modules_main, NULL); }

static void exceptions_main(void *arg)
{
    (void)arg;
    free(dump_text(true));
    Dl_info where;
    void *raise = dlsym(RTLD_DEFAULT, "_Unwind_RaiseException");
    if (raise != NULL && dladdr(raise, &where) != 0)
        cr_expect_null(strstr(where.dli_fname, "libunwind"), "%s would throw the host's exceptions", where.dli_fname);
}

Test(dump_stack, exceptions_of_the_host_stay_with_its_own_library) { test_run(exceptions_main, NULL); }

/* ---- threads of the host ----------------------------------------------------------------------------------------------------- */

static void *waiting_thread(void *arg)
{
    store_rel((w_u32 *)arg, (uint32_t)gettid());
    recv_outer();
    NO_TAIL_CALL();
    return NULL;
}

Test(dump_stack, from_a_thread_of_the_host_with_other_threads)
{
    int threads = test_threads();
    cr_assert_eq(weft_start(NULL), 0);
    cr_assert_eq(weft_stop(), 0); /* what is made once is there now */
    int fds = test_fds();
    cr_assert_eq(weft_start(NULL), 0);
    never = weft_chan_make(0, 0);
    uint64_t id = start_parked(recv_fiber, NULL);
    w_u32 tid = { 0 };
    pthread_t t;
    cr_assert_eq(pthread_create(&t, NULL, waiting_thread, &tid), 0);
    char head[64], *text = NULL;
    test_until(load_acq(&tid) != 0);
    snprintf(head, sizeof head, "\nthread %u [chan receive]:\nweft_chan_recv(...)\n", load_acq(&tid));
    do {
        free(text);
        text = dump_text(true);
    } while (strstr(text, head) == NULL && usleep(1000) == 0);
    check_form(text, true);
    char *p = part_of(text, id), *q = part(text, head + 1);
    expect_in(p, "\nwaits_here(...)\n");
    expect_in(q, "\nwaiting_thread(...)\n\t" HERE ":");
    expect_in(text, "\n\n1 of 1 fibers\n");
    snprintf(head, sizeof head, "thread %d [running]:\ndump_text(...)\n", (int)gettid());
    cr_expect_eq(strncmp(text, head, strlen(head)), 0, "the caller is not first:\n%s", text);
    free(p);
    free(q);
    free(text);
    weft_chan_close(never);
    pthread_join(t, NULL);
    cr_expect_eq(weft_stop(), 0);
    cr_expect_eq(test_fds(), fds, "files stay open");
    test_until(test_threads() == threads); /* the kernel shows them a little longer */
}

Test(dump_stack, without_a_runtime_there_is_an_error)
{
    char c[10] = "full";
    cr_expect_eq(weft_stack(c, sizeof c, true), -ESRCH);
    cr_expect_str_eq(c, "");
}

/* ---- reports of sched ----------------------------------------------------------------------------------------------------------- */

static void deadlock_main(void *arg)
{
    (void)arg;
    never = weft_chan_make(0, 0);
    weft_go(recv_fiber, NULL);
    waits_here();
}

static void deadlock_child(void *arg)
{
    (void)arg;
    _exit(weft_run(deadlock_main, NULL, NULL) == -EDEADLK ? 42 : 1);
}

Test(dump_stack, a_deadlock_lists_the_fibers)
{
    test_needs_a_kernel();
    static struct test_output out;
    cr_assert_eq(test_fork(&out, deadlock_child, NULL), 42, "%s", out.text);
    expect_in(out.text, "fiber 1 [chan receive]:\nweft_chan_recv(...)\n");
    expect_in(out.text, "\nrecv_fiber(...)\n\t" HERE ":");
    expect_in(out.text, "\ncreated by deadlock_main in fiber 1\n");
    expect_in(out.text, "\n2 of 2 fibers\n");
}

NOINLINE static void *return_address(void) { return __builtin_return_address(0); }

static void no_symbols(struct maps_module *m) { (void)m; }

Test(dump_stack, an_address_is_described_though_locks_are_held)
{
    char text[300], want[300];
    int line = __LINE__ + 1;
    void *pc = return_address();
    snprintf(want, sizeof want, " at " HERE ":%d", line);
    cr_assert(dump_describe_pc(pc, text, sizeof text));
    cr_expect_not_null(strstr(text, want), "%s", text);
    cr_assert_not_null(maps_begin(no_symbols));
    cr_assert(dump_describe_pc(pc, text, sizeof text));
    cr_expect_not_null(strstr(text, want), "%s", text);
    maps_end();
    cr_expect_not(dump_describe_pc((void *)16, text, sizeof text));
}
