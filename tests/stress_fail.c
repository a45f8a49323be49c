/* failmem, failthread, failfd, faildirty: every request that a set of programs makes is refused once, alone (failrun=1) and with all that follow.
 * Each run ends with an error from the headers, or with the line that says what there is no memory for; none crashes or hangs, nothing is left
 * behind, and the next start works. WEFT_TEST_SWEEP=all takes every request (tools/check.sh), else a part of them; what fails is named by the
 * program's number in the table, and the keys. */
#include "base/fail.h"
#include "base/offheap.h"
#include "sched/sched.h"
#include "test.h"
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* ---- programs: each stops at the first error, and says which ------------------------------------------------ */

static int result; /* the first error; positive: it is none that the header knows */
#define WRONG 1000 /* + line */

static void failed(int err)
{
    int none = 0;
    __atomic_compare_exchange_n(&result, &none, err, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}
#define must(cond) ((cond) ? (void)0 : failed(WRONG + __LINE__))
/* For calls that may fail: true, or the error is noted. */
static bool ok(int err)
{
    if (err < 0)
        failed(err);
    return err >= 0;
}
static bool got(const void *p)
{
    return ok(p != NULL ? 0 : -ENOMEM);
}

static void send_one(void *arg) { must(weft_chan_send(arg, &(int){ 1 }) == 0); }

static void fibers(void *arg)
{
    weft_chan *c = weft_chan_make(sizeof(int), 0);
    int n = 0, v;
    (void)arg;
    if (!got(c))
        return;
    for (int i = 0; i < 300; i++)
        n += ok(weft_go(send_one, c));
    weft_go_opts opts = WEFT_GO_OPTS_INIT;
    opts.stack_size = 256 << 10;
    n += ok(weft_go_opts_run(send_one, c, &opts));
    for (; n > 0; n--)
        must(weft_chan_recv(c, &v) == 1 && v == 1);
}

struct node { struct node *next; uintptr_t n; char fill[100]; };
static struct node *kept;

static void gone(void *obj, void *ctx) { (void)obj, (void)ctx; }

static void heap(void *arg)
{
    uintptr_t n = 0;
    int refused = 0; /* each costs a collection */
    (void)arg;
    kept = NULL;
    for (int i = 0; i < 3000 && refused < 30; i++) {
        struct node *p = i % 3 != 0 ? weft_alloc(sizeof *p) : weft_alloc_typed(WEFT_TYPE(struct node, next));
        if (!got(p)) {
            refused++;
            continue;
        }
        must(p->n == 0 && p->next == NULL);
        *p = (struct node){ kept, ++n, { 0 } };
        kept = p;
        if (i % 10 == 0)
            ok(weft_set_finalizer(p, gone, NULL));
        char *large = i % 500 == 0 ? weft_alloc_noscan(100000) : NULL;
        if (large != NULL)
            memset(large, 1, 100000);
        if (i % 1000 == 999)
            weft_gc();
    }
    for (struct node *p = kept; p != NULL; p = p->next)
        must(p->n == n--);
    must(n == 0);
    int root[4];
    if (ok(weft_root_add(root, sizeof root)))
        must(weft_root_remove(root) == 0);
    weft_handle h = weft_handle_new(kept);
    if (ok(h != 0 ? 0 : -ENOMEM))
        must(weft_handle_get(h) == kept && weft_handle_free(h) == 0);
    kept = NULL;
    weft_gc();
    weft_free_os_memory();
}

static struct { weft_mutex m; weft_cond c; weft_sema s; weft_waitgroup g; int n; } shared;

static void wait_and_go(void *arg)
{
    (void)arg;
    weft_mutex_lock(&shared.m);
    must(weft_cond_wait_until(&shared.c, &shared.m, weft_now() + 50 * WEFT_MICROSECOND) == -ETIMEDOUT);
    shared.n++;
    weft_mutex_unlock(&shared.m);
    weft_sema_release(&shared.s, 1);
}

static void deferred(void *arg) { ++*(int *)arg; }

static void waits(void *arg)
{
    int n = 0, defers = 0;
    (void)arg;
    memset(&shared, 0, sizeof shared);
    for (int i = 0; i < 40; i++)
        n += ok(weft_waitgroup_go(&shared.g, wait_and_go, NULL));
    weft_waitgroup_wait(&shared.g);
    must(shared.n == n);
    for (int i = 0; i < n; i++)
        must(weft_sema_acquire_until(&shared.s, weft_now() + 20 * WEFT_SECOND) == 0);
    if (weft_fiber_id() != 0) /* not a thread of the host */
        ok(weft_defer(deferred, &defers));
    weft_chan *c[20];
    weft_case cs[20];
    for (int i = 0; i < 20; i++) {
        c[i] = weft_chan_make(8, 1);
        if (!got(c[i]))
            return;
        cs[i] = (weft_case){ .op = WEFT_RECV, .chan = c[i] };
    }
    int r = weft_select_until(cs, 20, weft_now() + 50 * WEFT_MICROSECOND);
    must(r == -ETIMEDOUT || r == -ENOMEM);
    ok(r == -ETIMEDOUT ? 0 : r);
    weft_timer *t = weft_timer_new(WEFT_MICROSECOND, 0);
    if (got(t))
        must(weft_chan_recv(weft_timer_chan(t), NULL) == 1);
    t = weft_timer_func(WEFT_SECOND, 0, deferred, &defers);
    if (got(t))
        must(weft_timer_stop(t));
}

static void in_its_thread(void *arg)
{
    must(weft_lock_os_thread() == 0);
    for (int i = 0; i < 5; i++)
        weft_yield();
    send_one(arg);
}

static void blocks(void *arg)
{
    weft_blocking_begin();
    usleep(100);
    weft_blocking_end();
    send_one(arg);
}

static void *from_outside(void *arg)
{
    int err = weft_attach();
    if (err == 0) {
        send_one(arg);
        weft_detach();
    }
    return (void *)(intptr_t)err;
}

static void threads(void *arg)
{
    weft_chan *c = weft_chan_make(sizeof(int), 100);
    int n = 0, v;
    void *err;
    pthread_t t;
    (void)arg;
    if (!got(c))
        return;
    must(weft_lock_os_thread() == 0);
    for (int i = 0; i < 6; i++) {
        n += ok(weft_go(in_its_thread, c));
        n += ok(weft_go(blocks, c));
    }
    if (pthread_create(&t, NULL, from_outside, c) == 0) {
        weft_blocking_begin();
        pthread_join(t, &err);
        weft_blocking_end();
        n += ok((int)(intptr_t)err);
    }
    for (; n > 0; n--)
        must(weft_chan_recv(c, &v) == 1 && v == 1);
    weft_gc();
    weft_unlock_os_thread();
}

static void serve(void *arg)
{
    weft_fd *l = arg, *f;
    int err;
    while ((err = weft_accept(l, &f, NULL, NULL)) != -ECANCELED) {
        if (!ok(err))
            continue;
        char b;
        if (weft_read(f, &b, 1) == 1)
            must(weft_write(f, &b, 1) == 1);
        must(weft_fd_close(f) == 0);
    }
    weft_waitgroup_done(&shared.g);
}

/* The server may not have been able to take it, and has noted why. */
static ssize_t answer(weft_fd *f)
{
    char b;
    ssize_t n;
    int64_t last = weft_now() + 10 * WEFT_SECOND;
    do {
        weft_fd_set_deadline(f, weft_now() + 200 * WEFT_MILLISECOND, 0);
        n = weft_read(f, &b, 1);
    } while (n == -ETIMEDOUT && __atomic_load_n(&result, __ATOMIC_RELAXED) == 0 && weft_now() < last);
    return n;
}

static void descriptors(void *arg)
{
    weft_fd *l, *f;
    char address[40], b = 'x';
    (void)arg;
    memset(&shared, 0, sizeof shared);
    if (!ok(weft_listen("127.0.0.1:0", 0, &l)))
        return;
    snprintf(address, sizeof address, "127.0.0.1:%d", weft_fd_port(l));
    must(weft_waitgroup_add(&shared.g, 1) == 0);
    if (!ok(weft_go(serve, l)))
        weft_waitgroup_done(&shared.g);
    else
        for (int i = 0; i < 4; i++) {
            if (!ok(weft_dial(address, weft_now() + 5 * WEFT_SECOND, &f)))
                continue;
            must(weft_write(f, &b, 1) == 1);
            ok(answer(f) >= 0 ? 0 : -EMFILE);
            must(weft_fd_close(f) == 0);
        }
    int p[2];
    if (pipe2(p, O_CLOEXEC) == 0) {
        if (ok(weft_fd_open(p[0], &f)))
            weft_fd_close(f);
        else
            close(p[0]);
        close(p[1]);
    }
    char text[4096];
    must(weft_stack(text, sizeof text, true) != 0);
    must(weft_fd_close(l) == 0);
    weft_waitgroup_wait(&shared.g);
}

static const struct { const char *name; weft_fn *fn; int procs; bool host; } programs[] = {
    { "fibers", fibers, 1, false },   { "fibers", fibers, 3, false },   { "heap", heap, 1, false },
    { "heap", heap, 2, false },       { "waits", waits, 2, false },     { "waits", waits, 1, true },
    { "threads", threads, 1, false }, { "threads", threads, 3, false }, { "descriptors", descriptors, 2, false },
};

/* ---- one run, in a process of its own -------------------------------------------------------------------------- */

enum { FINE = 0, NOTHING_FAILED = 10, BAD = 11 };

struct trial { size_t program; enum fail_kind kind; uint64_t nth, run; };

static void say_nothing(void *arg, const char *line) { (void)arg, (void)line; }

static int run_config(size_t k, weft_config *cfg)
{
    cfg->maxprocs = programs[k].procs;
    cfg->heap_reserve = 64 << 20;
    cfg->stop_timeout_ms = TEST_STOP_MS;
    cfg->log = say_nothing;
    result = 0;
    if (!programs[k].host)
        return weft_run(programs[k].fn, NULL, cfg);
    int err = weft_start(cfg);
    if (err == 0) {
        programs[k].fn(NULL);
        err = weft_stop();
    }
    return err;
}

static uint64_t off_in_use(void)
{
    struct off_stats st;
    uint64_t sum = 0;
    for (int i = 0; i < OFF_PURPOSES; i++) {
        off_stats((enum off_purpose)i, &st);
        sum += st.in_use_bytes;
    }
    return sum;
}

static const char *const keys[FAIL_KINDS] = { "failmem", "failthread", "failfd", "faildirty" };
/* Errors that the headers promise; -EMFILE and -ENFILE come from system calls, -ETIMEDOUT from a deadline that passed since nobody could answer. */
static bool documented(enum fail_kind kind, int err)
{
    return err == 0 || (kind == FAIL_MEM && err == -ENOMEM) || (kind == FAIL_THREAD && (err == -EAGAIN || err == -ENOMEM)) ||
           (kind == FAIL_FD && (err == -EMFILE || err == -ETIMEDOUT));
}

static int complain(const struct trial *t, const char *what, int v)
{
    fprintf(stderr, "program %zu, %s=%lu,failrun=%lu (%s): %s: %d\n", t->program, keys[t->kind], (unsigned long)t->nth, (unsigned long)t->run,
            programs[t->program].name, what, v);
    return BAD;
}

static int wait_for_threads(int n)
{
    for (int i = 0; i < 2000 && test_threads() != n; i++)
        usleep(1000);
    return test_threads();
}

static int try_once(const struct trial *t)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    char debug[80];
    int nthreads = test_threads();
    int err = run_config(t->program, &cfg); /* what is made once per process is there then */
    if (err != 0 || result != 0)
        return complain(t, "undisturbed", err != 0 ? err : result);
    if (programs[t->program].host)
        weft_detach();
    wait_for_threads(nthreads);
    uint64_t off = off_in_use();
    int fds = test_fds(), maps = test_maps();
    long kib = test_status("VmSize");
    snprintf(debug, sizeof debug, "%s=%lu,failrun=%lu", keys[t->kind], (unsigned long)t->nth, (unsigned long)t->run);
    cfg.debug = debug;
    err = run_config(t->program, &cfg);
    bool some = fail_failed(t->kind) != 0;
    if (!documented(t->kind, err))
        return complain(t, "result of weft_run", err);
    if (!documented(t->kind, result))
        return complain(t, "result of the program", result);
    if (wait_for_threads(nthreads) != nthreads)
        return complain(t, "threads left", test_threads() - nthreads);
    if (test_fds() != fds)
        return complain(t, "descriptors left", test_fds() - fds);
    cfg.debug = NULL;
    err = run_config(t->program, &cfg);
    if (err != 0 || result != 0)
        return complain(t, "afterwards", err != 0 ? err : result);
    if (programs[t->program].host)
        weft_detach();
    wait_for_threads(nthreads);
    if (off_in_use() > off)
        return complain(t, "bytes of off-heap memory left", (int)(off_in_use() - off));
#ifdef W_TSAN /* which maps what it likes */
    maps = test_maps();
    kib = test_status("VmSize");
#endif
    /* libc keeps stacks of threads; one of our mappings is larger than those */
    if (test_maps() > maps + 60 || test_status("VmSize") > kib + (24 << 10))
        return complain(t, "mappings left, or MiB of address space", test_maps() - maps);
    return some ? FINE : NOTHING_FAILED;
}

static void trial_main(void *arg)
{
    mallopt(M_ARENA_MAX, 1); /* libc's would count as mappings left */
    setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
    _exit(try_once(arg));
}

/* ---- the sweeps --------------------------------------------------------------------------------------------------- */

static struct test_output out;

/* True: there are no more requests. */
static bool refuse(const struct trial *t, int *fatal)
{
    int code = test_fork(&out, trial_main, (void *)(uintptr_t)t);
    if (out.term_signal == SIGABRT && (strstr(out.text, "weft: fatal: no memory") != NULL || strstr(out.text, "weft: fatal: cannot make a thread") != NULL)) {
        if (++*fatal < 4)
            cr_log_info("%s=%lu,failrun=%lu, %s: %s", keys[t->kind], (unsigned long)t->nth, (unsigned long)t->run, programs[t->program].name, out.text);
        return false;
    }
    cr_assert(code == FINE || code == NOTHING_FAILED, "program %zu, %s=%lu,failrun=%lu (%s, %d processors): exit %d, signal %d: %s", t->program, keys[t->kind],
              (unsigned long)t->nth, (unsigned long)t->run, programs[t->program].name, programs[t->program].procs, code, out.term_signal, out.text);
    return code == NOTHING_FAILED;
}

static void sweep(size_t k, enum fail_kind kind, uint64_t run, int most_fatal)
{
    const char *all = getenv("WEFT_TEST_SWEEP");
    test_needs_a_kernel(); /* an emulator has threads and mappings of its own */
    bool each = all != NULL && strcmp(all, "all") == 0;
    uint64_t step = each ? 1 : kind != FAIL_MEM ? (run > 1 || kind == FAIL_DIRTY ? 7 : 1) : test_is_slow() ? 47 : run > 1 ? 23 : 7;
    int fatal = 0;
    struct trial t = { k, kind, 1, run };
    for (; t.nth < 3000; t.nth += t.nth > 30 ? step : 1 + step / 3)
        if (refuse(&t, &fatal))
            break;
    cr_expect_leq(fatal, most_fatal, "%d runs ended by a fatal line", fatal);
    cr_log_info("%s: %lu requests", programs[k].name, (unsigned long)t.nth);
}

enum { FOR_GOOD = 1000000000, ANY = 100000 };

/* With one request refused the program goes on, or says so with an error. When there is nothing more at all, fibers that were started already may
 * not get their stacks, and machines no threads. */
#define SWEEPS(name, k)                                                                     \
    Test(stress_fail, name##_one_request_for_memory) { sweep(k, FAIL_MEM, 1, 0); }           \
    Test(stress_fail, name##_no_more_memory) { sweep(k, FAIL_MEM, FOR_GOOD, ANY); }          \
    Test(stress_fail, name##_one_thread) { sweep(k, FAIL_THREAD, 1, 0); }                    \
    Test(stress_fail, name##_no_more_threads) { sweep(k, FAIL_THREAD, FOR_GOOD, ANY); }      \
    Test(stress_fail, name##_one_descriptor) { sweep(k, FAIL_FD, 1, 0); }                    \
    Test(stress_fail, name##_no_more_descriptors) { sweep(k, FAIL_FD, FOR_GOOD, 0); }         \
    Test(stress_fail, name##_one_look_at_pages) { sweep(k, FAIL_DIRTY, 1, 0); }              \
    Test(stress_fail, name##_no_more_looks_at_pages) { sweep(k, FAIL_DIRTY, FOR_GOOD, 0); }
SWEEPS(fibers_1, 0)
SWEEPS(fibers_3, 1)
SWEEPS(heap_1, 2)
SWEEPS(heap_2, 3)
SWEEPS(waits_2, 4)
SWEEPS(waits_host, 5)
SWEEPS(threads_1, 6)
SWEEPS(threads_3, 7)
SWEEPS(descriptors_2, 8)
