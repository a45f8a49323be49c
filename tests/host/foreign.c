/* A host whose threads come, call in once, and die without a word: by return, pthread_exit, cancellation or the bare system call, some while the
 * world is stopped. */
#include "host.h"
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>

static int finalized, stop_collecting;
static weft_chan *results;
static void count_final(void *obj, void *ctx) { (void)obj, (void)ctx, ADD(finalized, 1); }

static void collect_all_the_time(void *arg)
{
    while (GET(stop_collecting) == 0) {
        weft_gc();
        weft_sleep(100 * WEFT_MICROSECOND);
    }
    weft_waitgroup_done(arg);
}

static void send_one(void *arg)
{
    long v = (long)arg;
    weft_chan_send(results, &v);
}

static __attribute__((noinline)) void hold_objects(void)
{
    void *held[8];
    for (int i = 0; i < 8; i++) {
        CHECK((held[i] = weft_alloc(40)) != NULL);
        OK(weft_set_finalizer(held[i], count_final, NULL));
    }
    __asm__ volatile("" : : "r"(held) : "memory");
}

static void first_call(long i)
{
    long v = 1;
    switch (i % 5) {
    case 0: break; /* hold_objects is it */
    case 1: OK(weft_go(send_one, (void *)1)); break;
    case 2: CHECK(weft_chan_send(results, &v) == 0); break;
    case 3: weft_yield(); break;
    case 4: weft_gc(); break;
    }
}

/* ---- the ends ------------------------------------------------------------------------------------------------- */

static void *dies(void *arg)
{
    long i = (long)arg;
    first_call(i);
    hold_objects();
    if (i % 4 == 1)
        pthread_exit(NULL);
    if (i % 4 == 2 && !SANITIZED) { /* ThreadSanitizer loses count of what is cancelled in a call it knows */
        pthread_cancel(pthread_self());
        for (;;)
            pause(); /* a cancellation point */
    }
    if (i % 4 == 3) {
        weft_blocking_begin();
        pthread_exit(NULL);
    }
    return NULL;
}

#define THREADS 1000
#define WAVE 50

static void thousand(void)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 4;
    OK(weft_start(&cfg));
    results = weft_chan_make(sizeof(long), THREADS);
    weft_waitgroup wg = { 0, NULL };
    OK(weft_waitgroup_add(&wg, 1));
    OK(weft_go(collect_all_the_time, &wg));
    int threads = SANITIZED || getenv("WEFT_TEST_SLOW") != NULL ? THREADS / 5 : THREADS;
    for (int i = 0; i < threads; i += WAVE) {
        pthread_t t[WAVE];
        for (long k = 0; k < WAVE; k++)
            CHECK(pthread_create(&t[k], NULL, dies, (void *)(i + k)) == 0);
        weft_blocking_begin();
        for (int k = 0; k < WAVE; k++)
            CHECK(pthread_join(t[k], NULL) == 0);
        weft_blocking_end();
    }
    long sum = 0, v;
    for (int i = 0; i < 2 * threads / 5; i++) {
        CHECK(weft_chan_recv(results, &v) == 1);
        sum += v;
    }
    CHECK(sum == 2 * threads / 5);
    SET(stop_collecting, 1);
    weft_waitgroup_wait(&wg);
    UNTIL((weft_gc(), GET(finalized) > 8 * threads * 95 / 100)); /* their stacks keep nothing alive */
    work(10);
    OK(weft_stop());
}

/* ---- without the C library's knowing ---------------------------------------------------------------------------- */

static int arrived, tid;

/* The library cannot hear of it; the next stop finds nobody at that address. */
static void *dies_bare(void *arg)
{
    (void)arg;
    hold_objects();
    SET(tid, gettid());
    ADD(arrived, 1);
    syscall(SYS_exit, 0);
    return NULL;
}

/* A stop is under way, as its collections never cease, and gets no answer from a thread that blocks its signal: then the thread is no more. */
static void *dies_in_a_stop(void *arg)
{
    (void)arg;
    hold_objects();
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    SET(tid, gettid());
    ADD(arrived, 1);
    sigset_t waiting;
    int stop_signal = SIGURG;
    do /* until a stop wants us */
        sigpending(&waiting);
    while (!sigismember(&waiting, stop_signal));
    syscall(SYS_exit, 0);
    return NULL;
}

static void bare_with(void *(*fn)(void *), int n)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 2;
    OK(weft_start(&cfg));
    weft_waitgroup wg = { 0, NULL };
    OK(weft_waitgroup_add(&wg, 1));
    SET(stop_collecting, 0);
    SET(arrived, 0);
    OK(weft_go(collect_all_the_time, &wg));
    for (int i = 0; i < n; i++) {
        pthread_t t; /* never joined: others, such as allocators, have lists that go through its thread-local storage, which so stays where it is */
        CHECK(pthread_create(&t, NULL, fn, NULL) == 0);
        UNTIL(GET(arrived) == i + 1 && syscall(SYS_tgkill, getpid(), GET(tid), 0) != 0);
    }
    CHECK(GET(arrived) == n);
    SET(stop_collecting, 1);
    weft_waitgroup_wait(&wg);
    work(10);
    OK(weft_stop());
}

static void bare(void)
{
    bare_with(dies_bare, 100);
    bare_with(dies_in_a_stop, 10);
}

/* ---- inside a call when the runtime ends ------------------------------------------------------------------------- */

static int inside, inside_tid;
static void *waits_for_ever(void *arg)
{
    weft_chan *c = arg;
    OK(weft_attach());
    SET(inside_tid, gettid());
    ADD(inside, 1);
    weft_chan_recv(c, NULL);
    CHECK(0, "came back");
    return NULL;
}
static void *gets_one(void *arg)
{
    int v = 0;
    OK(weft_attach());
    ADD(inside, 1);
    CHECK(weft_chan_recv(arg, &v) == 1 && v == 7);
    ADD(inside, 1);
    return NULL;
}

/* In the kernel, which that thread does nowhere but in its call. */
static bool sleeps(int tid)
{
    char path[64], state = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
    FILE *f = fopen(path, "r");
    CHECK(f != NULL && fscanf(f, "%*[^)]) %c", &state) == 1);
    fclose(f);
    return state == 'S';
}

static pthread_t waiting;
static void main_with_thread(void *arg)
{
    int v = 7;
    weft_chan *c = weft_chan_make(sizeof v, 0);
    CHECK(pthread_create(&waiting, NULL, arg != NULL ? waits_for_ever : gets_one, c) == 0);
    UNTIL(GET(inside) == 1);
    if (arg == NULL)
        OK(weft_chan_send(c, &v)); /* and returns at once, when the thread may not have come out of its call yet */
    else
        UNTIL(sleeps(GET(inside_tid)));
}

static void parked(void)
{
    for (int i = 0; i < 50; i++) {
        SET(inside, 0);
        weft_config some = WEFT_CONFIG_INIT;
        some.maxprocs = 1 + i % 3;
        OK(weft_run(main_with_thread, NULL, &some));
        CHECK(pthread_join(waiting, NULL) == 0 && GET(inside) == 2);
    }
    SET(inside, 0);
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.stop_timeout_ms = 200;
    int err = weft_run(main_with_thread, &cfg, &cfg);
    CHECK(err == -EBUSY, "%d", err);
    CHECK(weft_start(NULL) == -EBUSY);
}

int main(int argc, char **argv)
{
    static const struct host_case cases[] = { { "thousand", thousand }, { "bare", bare }, { "parked", parked } };
    return host_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
