/* The server beside what happens to the runtime, to its clients, and to the process. */
#include "sched/world.h"
#include "serve_test.h"
#include "pprof_test.h"
#include <dirent.h>
#include <malloc.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define COUNT(x) __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define SET(x, v) __atomic_store_n(&(x), (v), __ATOMIC_RELEASE)

/* ---- the runtime is busy ---------------------------------------------------------------------------------------------- */

static volatile int spin_on = 1; /* no bool: gcc's check of those under -fsanitize=undefined reads it once, before the loop */
static int spinning;

static void spins(void *arg)
{
    (void)arg;
    __atomic_fetch_add(&spinning, 1, __ATOMIC_ACQ_REL);
    while (spin_on)
        ;
}

static const char *const every_kind[] = { "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/goroutine", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?gc=1",
                                          "/debug/pprof/goroutineleak", "/debug/pprof/threadcreate?debug=1", "/debug/pprof/profile?seconds=1", "/debug/pprof/trace?seconds=0.2",
                                          "/debug/pprof/heap?seconds=1", "/debug/pprof/symbol" };

static void *asks_all(void *arg)
{
    static int status[w_countof(every_kind)];
    for (size_t i = 0; i < w_countof(every_kind); i++)
        status[i] = status_of(*(int *)arg, every_kind[i]);
    spin_on = 0;
    return status;
}

static void beside_spinning(void *arg)
{
    weft_debug_server *s = serve_begin(serve_opts());
    int port = weft_debug_port(s), *status;
    pthread_t thread;
    (void)arg;
    for (int i = 0; i < 8; i++)
        cr_assert_eq(weft_go(spins, NULL), 0);
    test_until(COUNT(spinning) >= 2); /* all processors; the others get theirs by [HANDOFF] */
    pthread_create(&thread, NULL, asks_all, &port);
    while (spin_on) /* so does the main fiber */
        ;
    pthread_join(thread, (void **)&status);
    for (size_t i = 0; i < w_countof(every_kind); i++)
        cr_expect_eq(status[i], 200, "%s: %d", every_kind[i], status[i]);
    weft_debug_serve_stop(s);
}

Test(serve_life, answers_while_fibers_hold_every_processor, SIGNALS_AT_ONCE) { test_run_procs(2, beside_spinning, NULL); }

/* All that is not the runtime's to tell is answered during a collection; the rest, after it. */
struct in_stop { int port; int stopped, answered; int status[6], late; };

static void *asks_in_stop(void *arg)
{
    struct in_stop *t = arg;
    while (COUNT(t->stopped) == 0)
        usleep(100);
    int fd = connect_to(t->port);
    send_text(fd, "GET /debug/pprof/heap HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    t->status[0] = status_of(t->port, "/nothing");
    t->status[1] = status_of(t->port, "/debug/pprof/cmdline");
    t->status[2] = status_of(t->port, "/debug/pprof");
    struct answer a = ask_with(t->port, "PUT", "/debug/pprof/heap", "", NULL);
    t->status[3] = a.status;
    a = ask_with(t->port, "GET", "/debug/pprof/heap", "Host: evil.example\r\n", NULL);
    t->status[4] = a.status;
    char c;
    t->status[5] = recv(fd, &c, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
    SET(t->answered, 1);
    a = read_answer(fd);
    t->late = a.status;
    return NULL;
}

static void stopped(void *arg)
{
    struct in_stop *t = arg;
    world_stop(WEFT_STOP_GC, true);
    SET(t->stopped, 1);
    while (COUNT(t->answered) == 0)
        usleep(100);
    world_start();
}

static void in_a_stop(void *arg)
{
    weft_serve_opts o = serve_opts();
    o.cmdline = true;
    weft_debug_server *s = serve_begin(o);
    static struct in_stop t;
    pthread_t thread;
    (void)arg;
    t.port = weft_debug_port(s);
    cr_assert_eq(status_of(t.port, "/debug/pprof/heap"), 200);
    pthread_create(&thread, NULL, asks_in_stop, &t);
    rt_enter();
    sched_on_big_stack(stopped, &t);
    rt_leave(m_self());
    weft_blocking_begin();
    pthread_join(thread, NULL);
    weft_blocking_end();
    static const int want[] = { 404, 200, 301, 405, 403, 1 };
    for (size_t i = 0; i < w_countof(want); i++)
        cr_expect_eq(t.status[i], want[i], "%zu: %d", i, t.status[i]);
    cr_expect_eq(t.late, 200);
    weft_debug_serve_stop(s);
}

Test(serve_life, answers_during_a_collection) { test_run_procs(2, in_a_stop, NULL); }

/* ---- one life after the other ------------------------------------------------------------------------------------------- */

/* A document that is slow to make, since the world stands still, is kept for a while. */
struct slow { int port, stopped, asking; struct answer got; };

static void *asks_for_info(void *arg)
{
    struct slow *t = arg;
    while (COUNT(t->stopped) == 0)
        usleep(100);
    SET(t->asking, 1);
    t->got = get(t->port, "/debug/api/info");
    return NULL;
}

static void stands_still(void *arg)
{
    struct slow *t = arg;
    world_stop(WEFT_STOP_GC, true);
    SET(t->stopped, 1);
    while (COUNT(t->asking) == 0)
        usleep(100);
    usleep(300000);
    world_start();
}

static void has_one_kept(void *arg)
{
    for (bool kept = false; !kept;) { /* the request may come only after the stop */
        struct slow t = { .port = *(int *)arg };
        pthread_t thread;
        pthread_create(&thread, NULL, asks_for_info, &t);
        rt_enter();
        sched_on_big_stack(stands_still, &t);
        rt_leave(m_self());
        weft_blocking_begin();
        pthread_join(thread, NULL);
        struct answer again = get(t.port, "/debug/api/info");
        weft_blocking_end();
        cr_assert_not_null(strstr(again.body, "\"procs\":2,"), "%s", again.body);
        kept = strcmp(t.got.body, again.body) == 0;
        free(t.got.body);
        free(again.body);
    }
}

static void has_its_own(void *arg)
{
    weft_blocking_begin();
    struct answer a = get(*(int *)arg, "/debug/api/info");
    weft_blocking_end();
    cr_assert_not_null(strstr(a.body, "\"procs\":3,"), "%s", a.body);
    free(a.body);
}

Test(serve_life, what_is_kept_is_not_of_a_life_before)
{
    weft_debug_server *s = serve_begin(serve_opts());
    int port = weft_debug_port(s);
    test_run_procs(2, has_one_kept, &port);
    test_run_procs(3, has_its_own, &port);
    cr_expect_eq(weft_debug_serve_stop(s), 0);
}

/* ---- clients go away --------------------------------------------------------------------------------------------------- */

static void gone(void *arg)
{
    static const char *const paths[] = { "/debug/pprof/profile?seconds=200", "/debug/pprof/trace?seconds=200", "/debug/fgprof?seconds=200", "/debug/pprof/heap?seconds=200",
                                         "/debug/pprof/goroutineleak?seconds=200" };
    weft_debug_server *s = serve_begin(serve_opts());
    (void)arg;
    for (size_t i = 0; i < w_countof(paths); i++)
        for (int reset = 0; reset < 2; reset++) {
            char line[100];
            int fd = connect_to(weft_debug_port(s)), ended = log_has("has ended");
            struct linger l = { 1, 0 };
            dprintf(fd, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", paths[i]);
            snprintf(line, sizeof line, "%s for ", paths[i]);
            test_until(log_has(line) == 1 + 2 * reset);
            if (reset)
                setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
            close(fd);
            test_until(log_has("has ended") == ended + 1);
        }
    cr_assert_eq(status_of(weft_debug_port(s), "/debug/pprof/profile?seconds=1"), 200);
    weft_debug_serve_stop(s);
}

Test(serve_life, job_ends_when_its_client_goes_away) { test_run_procs(2, gone, NULL); }

/* A client that closes its side, and still reads, gets what there is. */
static void half_closed(void *arg)
{
    weft_debug_server *s = serve_begin(serve_opts());
    static const char *const paths[] = { "/debug/pprof/heap", "/debug/pprof/profile?seconds=200", "/debug/pprof/goroutine?debug=2" };
    (void)arg;
    for (size_t i = 0; i < w_countof(paths); i++) {
        int fd = connect_to(weft_debug_port(s));
        dprintf(fd, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", paths[i]);
        shutdown(fd, SHUT_WR);
        struct answer a = read_answer(fd);
        cr_assert_eq(a.status, 200, "%s: %d", paths[i], a.status);
        cr_assert(a.whole && a.len > 0);
        free(a.body);
        close(fd);
    }
    weft_debug_serve_stop(s);
}

Test(serve_life, client_that_closes_its_side_is_answered) { test_run_procs(2, half_closed, NULL); }

/* ---- the runtime ends ---------------------------------------------------------------------------------------------------- */

static int starts(void)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.stop_timeout_ms = TEST_STOP_MS;
    return weft_start(&cfg);
}

Test(serve_life, outlives_the_runtime)
{
    weft_debug_server *s = serve_begin(serve_opts());
    int port = weft_debug_port(s);
    for (int life = 0; life < 3; life++) {
        cr_assert_eq(status_of(port, "/debug/pprof/heap"), 503);
        cr_assert_eq(starts(), 0);
        int fd = connect_to(port);
        send_text(fd, "GET /debug/pprof/profile?seconds=200 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        test_until(log_has("profile?seconds=200 for ") == 1 + 2 * life);
        int unread = connect_to(port); /* one that does not read */
        send_text(unread, "GET /debug/pprof/heap?seconds=100 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        test_until(log_has("heap?seconds=100 for ") == 1 + 2 * life);
        for (int i = 0; i < 100; i++)
            (void)!weft_alloc(10000);
        cr_assert_eq(weft_stop(), 0);
        struct answer a = read_answer(fd); /* what there was is complete */
        cr_assert(a.whole && (a.status == 200 || a.status == 503), "%d", a.status);
        if (a.status == 200)
            pp_decode(a.body, a.len);
        free(a.body);
        close(fd);
        close(unread);
        test_until(log_has("heap?seconds=100 for ") == 2 + 2 * life);
    }
    weft_debug_serve_stop(s);
}

/* Of a job that the end of the runtime has ended next to nothing stays. */
Test(serve_life, jobs_that_the_end_of_the_runtime_ends_leave_no_memory)
{
    enum { WARM = 2, LIVES = 6 };
    weft_debug_server *s = serve_begin(serve_opts());
    size_t before = 0;
    for (int life = 0; life < LIVES; life++) {
        char c;
        if (life == WARM)
            before = mallinfo2().uordblks + mallinfo2().hblkhd;
        cr_assert_eq(starts(), 0);
        int fd = connect_to(weft_debug_port(s));
        send_text(fd, "GET /debug/pprof/profile?seconds=200 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        while (recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) != 1) /* until its first piece has come, which needs something to tell of */
            (void)!weft_alloc(1000);
        cr_assert_eq(weft_stop(), 0);
        test_until(log_has("profile?seconds=200 for ") == 2 * (life + 1));
        struct answer a = read_answer(fd);
        free(a.body);
        close(fd);
    }
    weft_debug_serve_stop(s);
    size_t after = mallinfo2().uordblks + mallinfo2().hblkhd;
    cr_assert(after < before + (LIVES - WARM) * (64 << 10), "%zu bytes more", after - before);
}

/* A client that does not read holds up nobody: neither the end of the runtime, which waits for the writer of a trace, nor others meanwhile. */
static void hands_over(void *arg)
{
    for (int i = 0; i < 100000; i++)
        weft_yield();
    __atomic_fetch_add((int *)arg, 1, __ATOMIC_ACQ_REL);
}

Test(serve_life, client_that_does_not_read_holds_up_nobody)
{
    weft_debug_server *s = serve_begin(serve_opts());
    int port = weft_debug_port(s), done = 0, small = 4096;
    cr_assert_eq(starts(), 0);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    cr_assert_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    send_text(fd, "GET /debug/pprof/trace?seconds=200 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    test_until(log_has("trace?seconds=200 for ") == 1);
    for (int i = 0; i < 40; i++) /* events for more MiB than the kernel and the ring take */
        cr_assert_eq(weft_go(hands_over, &done), 0);
    for (int i = 0; i < 600 && COUNT(done) < 40; i++)
        usleep(100000);
    cr_assert_eq(COUNT(done), 40);
    cr_assert_eq(status_of(port, "/debug/pprof/heap"), 200);
    cr_assert_eq(weft_stop(), 0);
    test_until(log_has("trace?seconds=200 for ") == 2);
    cr_assert_eq(log_has("cut off: nobody reads it any more"), 1, "%s", serve_said.text);
    close(fd);
    weft_debug_serve_stop(s);
}

/* ---- the server ends -------------------------------------------------------------------------------------------------------- */

static int load_port, load_on = 1;

static void *asks_and_leaves(void *arg)
{
    uintptr_t i = (uintptr_t)arg;
    for (; COUNT(load_on) != 0; i++) {
        int fd = connect_to(COUNT(load_port));
        if (fd < 0)
            continue;
        char buf[4096];
        bool sent = dprintf(fd, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", every_kind[i % w_countof(every_kind)]) >= 0;
        if (sent && i % 3 != 0)
            (void)!recv(fd, buf, sizeof buf, 0);
        close(fd);
    }
    return NULL;
}

static void under_load(void *arg)
{
    pthread_t thread[8];
    (void)arg;
    signal(SIGPIPE, SIG_IGN);
    weft_debug_serve_stop(serve_begin(serve_opts())); /* what is made once is there */
    int fds = test_fds();
    for (uintptr_t i = 0; i < w_countof(thread); i++)
        pthread_create(&thread[i], NULL, asks_and_leaves, (void *)i);
    for (int i = 0; i < 30; i++) {
        weft_debug_server *s = serve_begin(serve_opts());
        SET(load_port, weft_debug_port(s));
        weft_sleep((1 + i % 10) * 5 * WEFT_MILLISECOND);
        cr_assert_eq(weft_debug_serve_stop(s), 0);
    }
    SET(load_on, 0);
    for (size_t i = 0; i < w_countof(thread); i++)
        pthread_join(thread[i], NULL);
    test_until(test_fds() <= fds + 1); /* one of the runtime's */
}

Test(serve_life, stops_under_load) { test_run_procs(2, under_load, NULL); }

static weft_debug_server *own;
static int from_log = 1;

static void stops_it(void *arg, const char *line)
{
    (void)arg;
    if (strstr(line, "begins") != NULL)
        SET(from_log, weft_debug_serve_stop(own));
}

static void from_its_log(void *arg)
{
    weft_serve_opts o = serve_opts();
    (void)arg;
    o.log = stops_it;
    cr_assert_eq(weft_debug_serve(&o, &own), 0);
    cr_assert_eq(status_of(weft_debug_port(own), "/debug/pprof/heap?gc=1"), 200);
    cr_assert_eq(COUNT(from_log), -EDEADLK);
    cr_assert_eq(weft_debug_serve_stop(own), 0);
}

Test(serve_life, cannot_be_stopped_by_its_own_thread) { test_run(from_its_log, NULL); }

Test(serve_life, several_servers)
{
    weft_debug_server *s[5];
    int before = test_threads();
    for (int i = 0; i < 5; i++)
        s[i] = serve_begin(serve_opts());
    for (int i = 0; i < 5; i++)
        cr_assert_eq(status_of(weft_debug_port(s[i]), "/debug/pprof/"), 200);
    for (int i = 0; i < 5; i++)
        weft_debug_serve_stop(s[i]);
    test_until(test_threads() <= before);
}

/* Nobody asks: its thread sleeps, without a time-out. The kernel tells: by the call that it is in, and its fourth argument. */
#ifdef SYS_epoll_wait
#define IS_EPOLL(call) ((call) == SYS_epoll_wait || (call) == SYS_epoll_pwait)
#else
#define IS_EPOLL(call) ((call) == SYS_epoll_pwait)
#endif

static bool sleeps_for_good(const char *task)
{
    char text[300];
    unsigned long call = 0, arg[4] = { 0 };
    snprintf(text, sizeof text, "/proc/self/task/%s/syscall", task);
    FILE *f = fopen(text, "r");
    bool is = f != NULL && fgets(text, sizeof text, f) != NULL && sscanf(text, "%lu %lx %lx %lx %lx", &call, &arg[0], &arg[1], &arg[2], &arg[3]) == 5;
    if (f != NULL)
        fclose(f);
    return is && IS_EPOLL(call) && (int)arg[3] == -1;
}

static bool server_sleeps_for_good(void)
{
    char name[300];
    bool found = false;
    DIR *tasks = opendir("/proc/self/task");
    for (const struct dirent *e; (e = readdir(tasks)) != NULL && !found;) {
        snprintf(name, sizeof name, "/proc/self/task/%s/comm", e->d_name);
        FILE *f = fopen(name, "r");
        found = f != NULL && fgets(name, sizeof name, f) != NULL && strcmp(name, "weft-debug\n") == 0 && sleeps_for_good(e->d_name);
        if (f != NULL)
            fclose(f);
    }
    closedir(tasks);
    return found;
}

Test(serve_life, idle_server_does_nothing)
{
    weft_debug_server *s = serve_begin(serve_opts());
    cr_assert_eq(status_of(weft_debug_port(s), "/debug/pprof/"), 200);
    if (access("/proc/self/syscall", R_OK) != 0)
        cr_skip_test("the kernel does not tell what threads wait for");
    test_until(server_sleeps_for_good()); /* the connection may still be being closed */
    weft_debug_serve_stop(s);
}

/* ---- forks ---------------------------------------------------------------------------------------------------------------------- */

static void forks(void *arg)
{
    weft_debug_server *s = serve_begin(serve_opts());
    int port = weft_debug_port(s), go[2], forked[2], fd = connect_to(port), status;
    char c;
    (void)arg;
    cr_assert(pipe(go) == 0 && pipe(forked) == 0);
    send_text(fd, "GET /debug/pprof/profile?seconds=200 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    test_until(log_has("profile?seconds=200 for ") == 1);
    pid_t child = fork();
    if (child == 0) {
        bool good = write(forked[1], "", 1) == 1 && weft_debug_serve_stop(s) == 0;
        weft_debug_server *mine;
        weft_serve_opts o = serve_opts();
        o.log = serve_log;
        good = good && weft_debug_serve(&o, &mine) == 0 && status_of(weft_debug_port(mine), "/debug/pprof/heap") == 200 && weft_debug_serve_stop(mine) == 0;
        close(go[1]);
        ssize_t n = read(go[0], &c, 1); /* lives on, with whatever it has inherited */
        _exit(good && n == 0 ? 7 : 1);
    }
    close(go[0]);
    while (read(forked[0], &c, 1) < 0 && errno == EINTR) /* until the child has come out of fork(2), where it closes what is not its */
        ;
    cr_assert_eq(status_of(port, "/debug/pprof/heap"), 200, "the parent serves as before");
    cr_assert_eq(weft_debug_serve_stop(s), 0);
    cr_assert_eq(connect_to(port), -1, "the child keeps the port");
    ssize_t n;
    do
        n = recv(fd, &c, 1, 0);
    while (n > 0 || (n < 0 && errno == EINTR));
    cr_assert(n == 0 || errno == ECONNRESET, "the child keeps the connection: %s", strerror(errno));
    close(go[1]);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 7, "%x", status);
}

Test(serve_life, child_of_a_fork_serves_nothing_and_keeps_nothing, CHILD_GOES_ON) { test_run_procs(2, forks, NULL); }

/* Documents are made all the time, under locks of theirs, when the process forks: the child's own server has them, too. So is the time told, under a lock of
 * libc's that the child never gets. */
static void *tells_the_time(void *arg)
{
    struct tm tm;
    (void)arg;
    while (COUNT(load_on) != 0) {
        time_t now = time(NULL);
        (void)gmtime_r(&now, &tm);
    }
    return NULL;
}

static void *asks_for_a_document(void *arg)
{
    while (COUNT(load_on) != 0)
        cr_assert_eq(status_of(*(int *)arg, "/debug/api/fibers"), 200);
    return NULL;
}

static void says_nothing(void *arg, const char *line) { (void)arg, (void)line; }

static bool serves_a_document(void)
{
    weft_debug_server *mine;
    weft_serve_opts o = WEFT_SERVE_OPTS_INIT;
    o.log = says_nothing;
    alarm(20); /* or it hangs */
    return weft_debug_serve(&o, &mine) == 0 && status_of(weft_debug_port(mine), "/debug/api/fibers") == 200 && weft_debug_serve_stop(mine) == 0;
}

static void forks_beside_documents(void *arg)
{
    weft_debug_server *s = serve_begin(serve_opts());
    int port = weft_debug_port(s), status;
    pthread_t thread[5];
    (void)arg;
    for (size_t i = 0; i < w_countof(thread); i++)
        pthread_create(&thread[i], NULL, i == 0 ? tells_the_time : asks_for_a_document, &port);
    for (int i = 0; i < 10; i++) {
        pid_t child = fork();
        if (child == 0)
            _exit(serves_a_document() ? 7 : 1);
        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
            ;
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 7, "%x", status);
    }
    SET(load_on, 0);
    for (size_t i = 0; i < w_countof(thread); i++)
        pthread_join(thread[i], NULL);
    weft_debug_serve_stop(s);
}

Test(serve_life, child_of_a_fork_can_serve_what_is_being_made, CHILD_GOES_ON) { test_run_procs(2, forks_beside_documents, NULL); }
