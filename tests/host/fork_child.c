/* A host that forks, and whose children go on using the runtime ([FORK] in src/sched/fork.c): from fibers on all processors, from threads that
 * are attached or not, while others allocate, wait, sleep and collect. */
#include "host.h"
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

/* ---- a parent that is busy ---------------------------------------------------------------------------------- */

static int stop_noise;
static long steps;
static weft_chan *idle_chan;
static weft_mutex lock;

static void noise(void *arg)
{
    long kind = (long)arg;
    struct node *list = NULL;
    weft_fd *end[2] = { NULL, NULL };
    static char dumped[65536];
    if (kind == 3) {
        int sv[2];
        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sv) == 0);
        for (int i = 0; i < 2; i++)
            OK(weft_fd_open(sv[i], &end[i]));
    }
    while (GET(stop_noise) == 0) {
        char c = 'x';
        switch (kind) {
        case 0: list = list_make(300); list_check(list, 300); break;
        case 1: weft_sleep(200 * WEFT_MICROSECOND); break;
        case 2: weft_mutex_lock(&lock); weft_yield(); weft_mutex_unlock(&lock); break;
        case 3: CHECK(weft_write(end[0], &c, 1) == 1 && weft_read(end[1], &c, 1) == 1); break;
        case 4: weft_chan_recv_until(idle_chan, NULL, weft_now() + WEFT_MILLISECOND); break;
        case 5: weft_gc(); break;
        case 6: /* its thread reads files and symbols: AddressSanitizer's malloc does not come through a fork in the middle of that */
            if (!SANITIZED)
                CHECK(weft_stack(dumped, sizeof dumped, true) > 0);
            else
                weft_yield();
            break;
        default: for (volatile int i = 0; i < 100000; i++) {} /* user code */
            if (SANITIZED)
                usleep(1); /* ThreadSanitizer keeps signals back till then */
        }
        ADD(steps, 1);
    }
    for (int i = 0; i < 2; i++)
        if (end[i] != NULL)
            weft_fd_close(end[i]);
}

static void wait_for_ever(void *arg) { (void)arg, weft_chan_recv(idle_chan, NULL); }

static weft_waitgroup noisy;
static void noise_start(void)
{
    SET(stop_noise, 0);
    idle_chan = weft_chan_make(0, 0);
    for (long i = 0; i < 8; i++)
        OK(weft_waitgroup_go(&noisy, noise, (void *)i));
    for (int i = 0; i < 50; i++)
        OK(weft_go(wait_for_ever, NULL));
}

static void noise_stop(void)
{
    SET(stop_noise, 1);
    weft_waitgroup_wait(&noisy);
}

/* What each parent asserts in the end: all is as it was. */
static void parent_unharmed(struct node *kept)
{
    list_check(kept, 1000);
    work(20);
}

/* ---- what children do ------------------------------------------------------------------------------------------- */

static void child_collects(void)
{
    for (int i = 0; i < 3; i++)
        weft_gc();
    work(0);
}
static void child_spawns(void) { work(30); }
static void child_sleeps(void)
{
    int64_t before = weft_now();
    weft_sleep(3 * WEFT_MILLISECOND);
    CHECK(weft_now() - before >= 3 * WEFT_MILLISECOND);
}
static void child_only_exits(void) {}
static void child_forks(void)
{
    for (int i = 0; i < 2; i++) { /* before its own first use, and after it */
        pid_t pid = fork();
        if (pid == 0) {
            work(5);
            _exit(0);
        }
        expect_status(pid, 0);
        work(5);
    }
}

static int64_t counted;
static void count(void *arg) { (void)arg, ADD(counted, 1); }
static void child_counts(void)
{
    int64_t n = weft_num_fibers();
    CHECK(n == (weft_fiber_id() != 0), "%ld fibers", (long)n);
    char text[4096];
    weft_stack(text, sizeof text, true);
    CHECK(strstr(text, "wait_for_ever") == NULL && strstr(text, "noise") == NULL, "%s", text);
    for (int i = 0; i < 10; i++)
        OK(weft_go(count, NULL));
    UNTIL(GET(counted) == 10);
    CHECK(weft_maxprocs(3) >= 1 && weft_maxprocs(0) == 3);
    work(10);
}

static void *host_thread(void *arg)
{
    (void)arg;
    work(5);
    return NULL;
}
static void child_has_threads(void)
{
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&t[i], NULL, host_thread, NULL) == 0);
    weft_blocking_begin();
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    weft_blocking_end();
    work(5);
}

static void echo(void *arg)
{
    char c;
    while (weft_read((weft_fd *)arg, &c, 1) == 1)
        CHECK(weft_write((weft_fd *)arg, &c, 1) == 1);
}
static void child_talks(void)
{
    int sv[2];
    weft_fd *end[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sv) == 0);
    for (int i = 0; i < 2; i++)
        OK(weft_fd_open(sv[i], &end[i]));
    OK(weft_go(echo, end[1]));
    for (int i = 0; i < 50; i++) {
        char c = (char)i;
        CHECK(weft_write(end[0], &c, 1) == 1 && weft_read(end[0], &c, 1) == 1 && c == (char)i);
    }
    OK(weft_fd_close(end[0]));
}

static void (*const what[])(void) = { child_collects, child_spawns, child_only_exits, child_sleeps, child_forks, child_counts, child_has_threads, child_talks };
#define KINDS ((int)(sizeof what / sizeof *what))

static void fork_one(int kind)
{
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60); /* what hangs has failed */
        what[kind]();
        _exit(0);
    }
    weft_blocking_begin();
    expect_status(pid, 0);
    weft_blocking_end();
}

/* ---- who forks --------------------------------------------------------------------------------------------------- */

/* How often all that takes long is done: HOST_ROUNDS=100 for a night. */
static int rounds(void)
{
    const char *s = getenv("HOST_ROUNDS");
    return s != NULL ? atoi(s) : 1;
}

static void forker(void *arg)
{
    for (int i = 0; i < KINDS; i++)
        fork_one((int)((i + (long)arg) % KINDS));
}

static void storm_main(void *arg)
{
    (void)arg;
    struct node *kept = list_make(1000);
    int procs = weft_maxprocs(0);
    weft_maxprocs(procs + 2);
    work(100);
    weft_maxprocs(procs); /* so there are processors that have had fibers and are no more */
    noise_start();
    for (int r = 0; r < rounds(); r++) {
        weft_waitgroup wg = { 0, NULL };
        for (long i = 0; i < 2; i++)
            OK(weft_waitgroup_go(&wg, forker, (void *)i));
        weft_waitgroup_wait(&wg);
    }
    noise_stop();
    parent_unharmed(kept);
}

static void run_with(int procs, weft_fn *fn)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = procs;
    cfg.stop_timeout_ms = 30000; /* for threads that have yet to get their turn */
    OK(weft_run(fn, NULL, &cfg));
}

static void storm(void)
{
    run_with(1, storm_main);
    run_with(4, storm_main);
}

static void *attached_forker(void *arg)
{
    OK(weft_attach());
    for (int i = 0; i < KINDS; i++)
        fork_one((int)((i + (long)arg) % KINDS));
    return NULL;
}

static void *stranger(void *arg) /* never calls weft, but its children do */
{
    for (int i = 0; i < KINDS; i++) {
        int kind = (int)((i + (long)arg) % KINDS);
        pid_t pid = fork();
        if (pid == 0) {
            alarm(60);
            what[kind]();
            _exit(0);
        }
        expect_status(pid, 0);
    }
    return NULL;
}

static void *parked(void *arg) { (void)arg, weft_chan_recv(idle_chan, NULL); return NULL; }
static void *selecting(void *arg)
{
    weft_chan *other = weft_chan_make(0, 0);
    weft_case cases[20];
    for (int i = 0; i < 20; i++)
        cases[i] = (weft_case){ .op = WEFT_RECV, .chan = i == 7 ? idle_chan : other };
    weft_select(cases, arg != NULL ? 20 : 8);
    return NULL;
}

static void threads(void)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 2;
    OK(weft_start(&cfg));
    struct node *kept = list_make(1000);
    noise_start();
    pthread_t t[4], waiting[6];
    for (int i = 0; i < 6; i++)
        CHECK(pthread_create(&waiting[i], NULL, i < 2 ? parked : selecting, i < 4 ? NULL : waiting) == 0);
    for (int r = 0; r < rounds(); r++) {
        for (long i = 0; i < 4; i++)
            CHECK(pthread_create(&t[i], NULL, i < 2 ? attached_forker : stranger, (void *)i) == 0);
        weft_blocking_begin();
        for (int i = 0; i < 4; i++)
            pthread_join(t[i], NULL);
        weft_blocking_end();
    }
    noise_stop();
    OK(weft_chan_close(idle_chan));
    weft_blocking_begin();
    for (int i = 0; i < 6; i++)
        pthread_join(waiting[i], NULL);
    weft_blocking_end();
    parent_unharmed(kept);
    OK(weft_stop());
}

/* ---- how children end ---------------------------------------------------------------------------------------------- */

/* The child is a copy of a thread of the host: it may stop the runtime, and start it again. */
static void stops(void)
{
    OK(weft_start(NULL));
    noise_start();
    for (int i = 0; i < 4 * rounds(); i++) {
        pid_t pid = fork();
        if (pid == 0) {
            alarm(60);
            if (i % 2 == 0)
                work(5);
            OK(weft_stop());
            CHECK(!weft_running());
            OK(weft_start(NULL));
            work(5);
            OK(weft_stop());
            _exit(0);
        }
        expect_status(pid, 0);
    }
    noise_stop();
    work(20);
    OK(weft_stop());
}

static void returns_main(void *arg)
{
    (void)arg;
    weft_lock_os_thread();
    noise_start();
    pid_t pid = fork();
    if (pid == 0) {
        work(10);
        *(int *)arg = 1;
        return;
    }
    weft_blocking_begin();
    expect_status(pid, 7);
    weft_blocking_end();
    noise_stop();
}

/* main_fn is locked to the thread that called weft_run: so weft_run returns in the child, too. */
static void returns(void)
{
    int child = 0;
    alarm(60);
    OK(weft_run(returns_main, &child, NULL));
    if (child)
        exit(7);
}

static void ends_fork(void *arg)
{
    int *status = arg;
    weft_lock_os_thread(); /* so it is not on the main thread, where main waits locked */
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60);
        OK(weft_go(work_fiber, weft_chan_make(sizeof(long), 1)));
        if (*status != 0)
            weft_chan_recv(weft_chan_make(0, 0), NULL);
        return; /* on a thread of the runtime, which is all that the child has */
    }
    weft_blocking_begin();
    expect_status(pid, *status);
    weft_blocking_end();
    weft_unlock_os_thread();
}

static void ends_main(void *arg)
{
    weft_lock_os_thread();
    noise_start();
    for (int status = 0; status < 2; status++) {
        weft_waitgroup wg = { 0, NULL };
        OK(weft_waitgroup_go(&wg, ends_fork, &status));
        weft_waitgroup_wait(&wg);
    }
    noise_stop();
    (void)arg;
}

/* The child's last fiber ends its process, with 0; a deadlock with 1. */
static void ends(void)
{
    run_with(2, ends_main);
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 2;
    OK(weft_start(&cfg));
    noise_start();
    int status = 0;
    weft_waitgroup wg = { 0, NULL };
    OK(weft_waitgroup_go(&wg, ends_fork, &status));
    weft_waitgroup_wait(&wg);
    noise_stop();
    OK(weft_stop());
}

/* ---- what is and what is not in the child --------------------------------------------------------------------------- */

static int runs;
static void ran(void *arg) { (void)arg, ADD(runs, 1); }
static int finalized;
static void finalizer(void *obj, void *ctx) { (void)obj, (void)ctx, ADD(finalized, 1); }
struct shared { struct node *list; weft_chan *ready; };
static void reads_parents_stack(void *arg)
{
    struct shared *s = arg;
    weft_chan_send(s->ready, NULL);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60);
        weft_gc();
        work(10);
        list_check(s->list, 3000); /* what the parent of this fiber holds is alive */
        weft_gc();
        CHECK(GET(finalized) == 0, "%d", GET(finalized)); /* so is what other fibers hold */
        _exit(0);
    }
    weft_blocking_begin();
    expect_status(pid, 0);
    weft_blocking_end();
    weft_chan_send(s->ready, NULL);
}

static void holds_finalizable(void *arg)
{
    struct node *objects[50];
    for (int i = 0; i < 50; i++) {
        objects[i] = weft_alloc(sizeof *objects[i]);
        OK(weft_set_finalizer(objects[i], finalizer, NULL));
    }
    weft_waitgroup_done(arg);
    weft_chan_recv(idle_chan, NULL);
    for (int i = 0; i < 50; i++)
        weft_keep_alive(objects[i]);
}

static void inherits_main(void *arg)
{
    (void)arg;
    idle_chan = weft_chan_make(0, 0);
    weft_waitgroup wg = { 0, NULL };
    OK(weft_waitgroup_add(&wg, 1));
    OK(weft_go(holds_finalizable, &wg));
    weft_waitgroup_wait(&wg);
    struct shared s = { list_make(3000), weft_chan_make(0, 0) };
    OK(weft_go(reads_parents_stack, &s));
    CHECK(weft_chan_recv(s.ready, NULL) == 1);
    CHECK(weft_chan_recv(s.ready, NULL) == 1);
    weft_timer *once = weft_timer_func(50 * WEFT_MILLISECOND, 0, ran, NULL), *ticker = weft_timer_new(WEFT_MILLISECOND, WEFT_MILLISECOND);
    weft_fd *end[2];
    int sv[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv) == 0);
    for (int i = 0; i < 2; i++)
        OK(weft_fd_open(sv[i], &end[i]));
    char c = 0;
    pid_t pid = fork();
    if (pid == 0) { /* the other end is the parent's, and of what happens to our registrations it notices nothing */
        alarm(60);
        int had = GET(runs);
        CHECK(!weft_timer_stop(once)); /* timers with a function run in the parent */
        int64_t tick;
        for (int i = 0; i < 3; i++)
            CHECK(weft_chan_recv(weft_timer_chan(ticker), &tick) == 1);
        CHECK(weft_read(end[1], &c, 1) == 1 && c == 'p');
        CHECK(weft_write(end[1], "c", 1) == 1);
        OK(weft_fd_set_deadline(end[1], weft_now() + WEFT_MILLISECOND, 0));
        CHECK(weft_read(end[1], &c, 1) == -ETIMEDOUT);
        OK(weft_fd_close(end[0]));
        OK(weft_fd_close(end[1]));
        CHECK(GET(runs) == had);
        _exit(0);
    }
    weft_sleep(5 * WEFT_MILLISECOND); /* most likely it waits by now; if not, what is tested is only simpler */
    CHECK(weft_write(end[0], "p", 1) == 1);
    OK(weft_fd_set_deadline(end[0], weft_now() + 10 * WEFT_SECOND, 0));
    CHECK(weft_read(end[0], &c, 1) == 1 && c == 'c');
    weft_blocking_begin();
    expect_status(pid, 0);
    weft_blocking_end();
    CHECK(weft_write(end[0], "q", 1) == 1 && weft_read(end[1], &c, 1) == 1 && c == 'q');
    CHECK(weft_write(end[1], "r", 1) == 1 && weft_read(end[0], &c, 1) == 1 && c == 'r');
    UNTIL(GET(runs) == 1);
    weft_keep_alive(once);
}

static void inherits(void)
{
    run_with(1, inherits_main);
    SET(runs, 0);
    run_with(4, inherits_main);
}

static int fork_no_more, forks_begun, forks_done; /* a fork at the end of weft_run gives a child without the runtime */
static void forks_in_finalizer(void *obj, void *ctx)
{
    (void)obj, (void)ctx;
    ADD(forks_begun, 1);
    if (GET(fork_no_more)) {
        ADD(forks_done, 1);
        return;
    }
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60);
        work(5);
        for (int i = 0; i < 200; i++)
            OK(weft_set_finalizer(weft_alloc(64), finalizer, NULL));
        weft_gc();
        SET(runs, 1); /* the rest is done by the next finalizer, on this same fiber */
        return;
    }
    expect_status(pid, 5);
    ADD(finalized, 1);
    ADD(forks_done, 1);
}
static void ends_child(void *obj, void *ctx)
{
    (void)obj, (void)ctx;
    if (GET(runs) != 0)
        _exit(5);
    ADD(finalized, 1);
}
static __attribute__((noinline)) void make_finalizers(void)
{
    OK(weft_set_finalizer(weft_alloc(64), forks_in_finalizer, NULL));
    for (int i = 0; i < 50; i++)
        OK(weft_set_finalizer(weft_alloc(64), ends_child, NULL));
}
static void finalizers_main(void *arg)
{
    (void)arg;
    for (int i = 0; i < 5; i++)
        make_finalizers();
    UNTIL((weft_gc(), GET(finalized) > 100 && GET(forks_done) > 0));
    SET(fork_no_more, 1);
    UNTIL(GET(forks_done) == GET(forks_begun));
}
static void finalizers(void) { run_with(2, finalizers_main); }

/* The fiber that runs calls is the runtime's own, in a child too: when the call is over, the last of the program's fibers has ended. */
static int last_call;
static void forks_and_returns(void *arg)
{
    (void)arg;
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60);
        work(5);
        UNTIL(weft_num_fibers() == 0); /* whoever told that its work is done ends in a moment */
        return;
    }
    weft_blocking_begin();
    expect_status(pid, 0);
    weft_blocking_end();
    ADD(last_call, 1);
}
static void finalizer_forks(void *obj, void *ctx) { (void)obj, forks_and_returns(ctx); }
static __attribute__((noinline)) void make_calls(void)
{
    OK(weft_set_finalizer(weft_alloc(64), finalizer_forks, NULL));
    OK(weft_add_cleanup(weft_alloc(64), forks_and_returns, NULL, NULL));
}
static void last_call_main(void *arg)
{
    (void)arg;
    make_calls();
    UNTIL((weft_gc(), GET(last_call) == 2));
}
static void call_is_last(void) { run_with(4, last_call_main); }

/* ---- who comes first in the child ---------------------------------------------------------------------------------- */

static int first_done;
static void *comes_first(void *arg)
{
    (void)arg;
    for (int i = 0; i < 3; i++) {
        list_check(list_make(1000), 1000);
        weft_gc();
    }
    SET(first_done, 1);
    return NULL;
}

/* A thread that the child makes uses the runtime before the one that forked does, and stops it, in user code, for its collections. */
static void first_main(void *arg)
{
    (void)arg;
    struct node *kept = list_make(1000);
    for (int i = 0; i < 5; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            alarm(60);
            pthread_t t;
            CHECK(pthread_create(&t, NULL, comes_first, NULL) == 0);
            while (GET(first_done) == 0)
                usleep(100);
            pthread_join(t, NULL);
            list_check(kept, 1000);
            work(5);
            _exit(0);
        }
        expect_status(pid, 0);
    }
}
static void *first_thread(void *arg)
{
    OK(weft_attach());
    first_main(arg);
    return NULL;
}
static void another_first(void)
{
    run_with(2, first_main);
    OK(weft_start(NULL));
    pthread_t t;
    CHECK(pthread_create(&t, NULL, first_thread, NULL) == 0);
    weft_blocking_begin();
    pthread_join(t, NULL);
    weft_blocking_end();
    OK(weft_stop());
}

/* ---- where it cannot work ------------------------------------------------------------------------------------------ */

/* The first list of stacks of a process, by another thread, is under way at the fork. Each round is a process of its own. */
static void *lists_stacks(void *arg)
{
    static char text[65536];
    SET(*(int *)arg, 1);
    CHECK(weft_stack(text, sizeof text, true) > 0);
    return NULL;
}
static void lists_while_forking(int round)
{
    int begun = 0;
    pthread_t t;
    OK(weft_start(NULL));
    CHECK(pthread_create(&t, NULL, lists_stacks, &begun) == 0);
    while (GET(begun) == 0) {}
    for (volatile int i = 0; i < round * 12000; i++) {}
    pid_t pid = fork();
    if (pid == 0) {
        int again;
        alarm(20);
        lists_stacks(&again);
        _exit(0);
    }
    expect_status(pid, 0);
    pthread_join(t, NULL);
    OK(weft_stop());
}
static void first_list(void)
{
    for (int i = 0; i < 16 * rounds(); i++) {
        pid_t pid = fork();
        if (pid == 0) {
            alarm(60);
            lists_while_forking(i % 16);
            _exit(0);
        }
        expect_status(pid, 0);
    }
}

static void forks_in_log(void *arg, const char *line)
{
    (void)line;
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(!weft_running());
        execl("/bin/true", "true", (char *)NULL);
        _exit(9);
    }
    expect_status(pid, 0);
    ADD(*(int *)arg, 1);
}

static void collects(void *arg)
{
    (void)arg;
    for (int i = 0; i < 5; i++)
        weft_gc();
}

/* In the host's log: inside the runtime. */
static void in_log(void)
{
    int lines = 0;
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.debug = "gctrace=1";
    cfg.log = forks_in_log;
    cfg.log_arg = &lines;
    OK(weft_run(collects, NULL, &cfg));
    CHECK(lines >= 5);
}

static void *starts_and_stops(void *arg)
{
    for (int i = 0; GET(*(int *)arg) == 0; i++) {
        OK(weft_start(NULL));
        work(2);
        OK(weft_stop());
    }
    return NULL;
}

/* While another thread starts and stops the runtime: the child has it, or is told that it has not. */
static void while_starting(void)
{
    int over = 0, with = 0, without = 0, none = 0;
    pthread_t t;
    CHECK(pthread_create(&t, NULL, starts_and_stops, &over) == 0);
    for (int i = 0; i < 50 * rounds(); i++) {
        pid_t pid = fork();
        if (pid == 0) {
            alarm(60);
            int err = weft_attach();
            if (err == 0) {
                work(2);
                OK(weft_stop());
                OK(weft_start(NULL));
                work(2);
                _exit(10);
            }
            CHECK(err == -ESRCH, "%d", err);
            err = weft_start(NULL);
            if (err == -EBUSY)
                _exit(11);
            OK(err);
            work(2);
            OK(weft_stop());
            _exit(12);
        }
        int status;
        CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) >= 10 && WEXITSTATUS(status) <= 12, "0x%x", (unsigned)status);
        (WEXITSTATUS(status) == 10 ? &with : WEXITSTATUS(status) == 11 ? &without : &none)[0]++;
    }
    SET(over, 1);
    pthread_join(t, NULL);
    printf("%d children had it running, %d could start it, %d could not\n", with, none, without);
}

/* ---- vfork ------------------------------------------------------------------------------------------------------------ */

extern char **environ;
static char *const true_argv[] = { (char *)(uintptr_t)"true", NULL };

static __attribute__((noinline)) pid_t vfork_true(void)
{
    pid_t pid = vfork();
    if (pid == 0) {
        execve("/bin/true", true_argv, environ);
        _exit(9);
    }
    return pid;
}

/* By a fiber in user code that the end of weft_run waits for: its child has no runtime. */
static int end_begins, end_forked;
static void forks_at_the_end(void *arg)
{
    (void)arg;
    ADD(end_begins, 1);
    usleep(200000); /* in user code: meanwhile the main function has returned */
    pid_t pid = fork();
    if (pid == 0) {
        static weft_waitgroup wg;
        weft_metric m = { .name = "/sched/gomaxprocs:threads" };
        weft_mem_stats st = { .size = sizeof st };
        CHECK(!weft_running());
        CHECK(weft_go(count, NULL) == -ESRCH && weft_waitgroup_go(&wg, count, NULL) == -ESRCH);
        CHECK(weft_metrics_read(&m, 1) == -ESRCH && weft_read_mem_stats(&st) == -ESRCH);
        _exit(0);
    }
    expect_status(pid, 0);
    ADD(end_forked, 1);
}
static void end_main(void *arg)
{
    (void)arg;
    weft_lock_os_thread();
    OK(weft_go(forks_at_the_end, NULL));
    UNTIL(GET(end_begins) == 1);
}
static void at_the_end(void)
{
    run_with(2, end_main);
    CHECK(GET(end_forked) == 1);
    weft_waitgroup wg = { 0 };
    CHECK(weft_go(count, NULL) == -ESRCH && weft_waitgroup_go(&wg, count, NULL) == -ESRCH);
}

static void vforker(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20 * rounds(); i++) {
        weft_alloc(100);
        pid_t pid = vfork_true();
        weft_blocking_begin();
        expect_status(pid, 0);
        weft_blocking_end();
    }
}

static void vfork_main(void *arg)
{
    (void)arg;
    struct node *kept = list_make(1000);
    noise_start();
    weft_waitgroup wg = { 0, NULL };
    for (int i = 0; i < 3; i++)
        OK(weft_waitgroup_go(&wg, vforker, NULL));
    weft_waitgroup_wait(&wg);
    noise_stop();
    parent_unharmed(kept);
}

static void vforks(void) { run_with(4, vfork_main); }

int main(int argc, char **argv)
{
    static const struct host_case cases[] = {
        { "storm", storm }, { "threads", threads }, { "stops", stops }, { "returns", returns }, { "ends", ends }, { "inherits", inherits },
        { "finalizers", finalizers }, { "call_is_last", call_is_last }, { "another_first", another_first }, { "first_list", first_list }, { "in_log", in_log }, { "while_starting", while_starting }, { "at_the_end", at_the_end }, { "vfork", vforks },
    };
    return host_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
