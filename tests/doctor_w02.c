/* W02: finalizers as the way to close; what collects because of it, and what is sound. */
#include "doctor_test.h"
#include "gc/gc.h"
#include "sched/mutator.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <weft/debug.h>
#include <weft/io.h>

enum { DESCRIPTORS = 128, REQUESTS = 8000, WORK_BYTES = 2048 };

struct file { const char *path; int fd, lines; };

static int emfile;
static bool close_by_hand, try_again;

static void few_descriptors(void)
{
    struct rlimit l = { DESCRIPTORS, DESCRIPTORS };
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &l), 0);
}

static void close_late(void *obj, void *ctx)
{
    (void)ctx;
    close(((struct file *)obj)->fd);
}

NOINLINE static struct file *file_open(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == EMFILE && try_again && weft_reclaim() > 0)
        fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    struct file *f = weft_alloc_noscan(sizeof *f);
    f->path = path;
    f->fd = fd;
    weft_set_finalizer(f, close_late, NULL);
    __asm__ volatile("");
    return f;
}

NOINLINE static void request(void)
{
    struct file *f = file_open("/dev/null");
    emfile += f == NULL;
    weft_alloc_noscan(WORK_BYTES);
    if (f != NULL && close_by_hand) {
        weft_set_finalizer(f, NULL, NULL);
        close(f->fd);
    }
    weft_keep_alive(f);
}

static void requests(void *arg)
{
    (void)arg;
    few_descriptors();
    for (int i = 0; i < REQUESTS; i++) {
        request();
        if (i % 16 == 0)
            weft_yield();
    }
    cr_assert_eq(weft_doctor_flush(), 0);
}

static void run(weft_fn *fn, int procs, int guards)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.finding = note_finding;
    cfg.log = note_line;
    cfg.maxprocs = procs;
    cfg.guards = guards;
    cfg.debug = "gcstress=0";
    test_run_config(&cfg, fn, NULL);
}

static void is_found(void)
{
    const struct told *t = NULL;
    cr_expect_gt(emfile, 0);
    cr_assert_eq(told_of(WEFT_W02, &t), 1, "%d times EMFILE, and nothing was said", emfile);
    cr_expect_not_null(strstr(t->what, "three quarters of the 128 that"), "%s", t->what);
    cr_expect(strncmp(t->stack, "file_open at doctor_w02.c:", 26) == 0, "%s", t->stack);
    cr_expect_not_null(strstr(t->cure, "weft_reclaim"));
}

Test(doctor_w02, finalizers_close) { run(requests, 1, WEFT_GUARD_NONE); is_found(); }
Test(doctor_w02, finalizers_close_on_another_processor) { run(requests, 2, WEFT_GUARD_NONE); is_found(); }

Test(doctor_w02, sound_when_closed_by_hand)
{
    close_by_hand = true;
    run(requests, 2, WEFT_GUARD_NONE);
    cr_expect_eq(emfile, 0);
    cr_expect_eq(weft_doctor_count(WEFT_W02), 0);
}

Test(doctor_w02, a_guard_collects_in_time)
{
    run(requests, 2, WEFT_GUARD_DESCRIPTORS);
    cr_expect_eq(emfile, 0);
}

Test(doctor_w02, who_meets_it_reclaims)
{
    try_again = true;
    run(requests, 2, WEFT_GUARD_NONE);
    cr_expect_eq(emfile, 0);
}

/* ---- sound: descriptors are short, and finalizers are not to blame -------------------------------------------------- */

static int ran;
static void closes_nothing(void *obj, void *ctx) { (void)obj, (void)ctx; __atomic_fetch_add(&ran, 1, __ATOMIC_RELAXED); }

static void short_by_itself(void *arg)
{
    int open_ones[DESCRIPTORS], n = 0;
    (void)arg;
    few_descriptors();
    while (n < DESCRIPTORS && (open_ones[n] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        n++;
    for (int round = 0; round < 6; round++) {
        for (int i = 0; i < 200; i++) { /* they name descriptors, and do not close them */
            struct file *f = weft_alloc_noscan(sizeof *f);
            f->fd = open_ones[i % n];
            weft_set_finalizer(f, closes_nothing, NULL);
        }
        test_wipe_stack();
        weft_gc();
        test_until(mutator_calls_executed(GC_FINALIZER) == gc_calls_queued(GC_FINALIZER)); /* the end of the runtime runs none */
    }
    for (int i = 0; i < n; i++)
        close(open_ones[i]);
    cr_assert_eq(weft_doctor_flush(), 0);
}

Test(doctor_w02, sound_when_others_have_them)
{
    run(short_by_itself, 2, WEFT_GUARD_NONE);
    cr_expect_gt(ran, 500);
    cr_expect_eq(weft_doctor_count(WEFT_W02), 0, "%s", said.at[0].what);
}

Test(doctor_w02, and_the_guard_gives_up_for_a_while)
{
    run(short_by_itself, 2, WEFT_GUARD_DESCRIPTORS);
    cr_expect_gt(ran, 500);
}

/* ---- counted resources ------------------------------------------------------------------------------------------------- */

static weft_resource licences = { .name = "licences", .limit = 64 };
static int64_t most;

static void gives(void *obj, void *ctx) { (void)obj, (void)ctx; weft_resource_give(&licences); }

NOINLINE static void takes_one(void)
{
    int64_t held = weft_resource_take(&licences);
    most = held > most ? held : most;
    weft_set_finalizer(weft_alloc(32), gives, NULL);
    __asm__ volatile("");
}

static void counted(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2000; i++) {
        takes_one();
        test_wipe_stack();
    }
    cr_assert_eq(weft_doctor_flush(), 0);
}

Test(doctor_w02, a_counted_resource)
{
    const struct told *t = NULL;
    run(counted, 2, WEFT_GUARD_NONE);
    cr_expect_leq(most, 64, "%ld of 64 at a time", (long)most);
    cr_expect_eq(told_of(WEFT_W02, &t), 1);
    cr_expect_not_null(strstr(t->what, "licences"), "%s", t->what);
    cr_expect_not_null(strstr(t->what, " of at most 64 were held here"), "%s", t->what);
    cr_expect(strncmp(t->stack, "takes_one at doctor_w02.c:", 26) == 0, "%s", t->stack);
}

static void given_by_hand(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2000; i++) {
        weft_resource_take(&licences);
        cr_assert_leq(weft_resource_give(&licences), 0);
    }
    for (int i = 0; i < 80; i++) /* more than there are: nobody else gives any back */
        cr_assert_eq(weft_resource_take(&licences), i + 1);
    cr_assert_eq(weft_doctor_flush(), 0);
}

Test(doctor_w02, sound_when_given_by_hand)
{
    run(given_by_hand, 2, WEFT_GUARD_NONE);
    cr_expect_eq(weft_doctor_count(WEFT_W02), 0);
}

NOINLINE static void drop(weft_finalizer *fn, int n)
{
    for (int i = 0; i < n; i++)
        weft_set_finalizer(weft_alloc(32), fn, NULL);
    __asm__ volatile("");
}

/* While somebody collects since most are held, others give some back by hand, as they would have done anyway. */
static weft_sema asked, answered;

static void has_others_give(void *obj, void *ctx)
{
    (void)obj, (void)ctx;
    weft_sema_release(&asked, 1);
    weft_sema_acquire(&answered);
}

static void gives_when_asked(void *arg)
{
    (void)arg;
    weft_sema_acquire(&asked);
    for (int i = 0; i < 20; i++)
        weft_resource_give(&licences);
    weft_sema_release(&answered, 100);
}

static void given_by_hand_meanwhile(void *arg)
{
    weft_waitgroup wg = { 0 };
    cr_assert_eq(weft_waitgroup_go(&wg, gives_when_asked, arg), 0);
    drop(has_others_give, 16);
    test_wipe_stack();
    for (int i = 0; i < 56; i++) /* the last one collects */
        weft_resource_take(&licences);
    weft_waitgroup_wait(&wg);
    cr_assert_eq(weft_doctor_flush(), 0);
}

Test(doctor_w02, sound_when_others_give_by_hand_meanwhile)
{
    run(given_by_hand_meanwhile, 2, WEFT_GUARD_NONE);
    cr_expect_eq(weft_doctor_count(WEFT_W02), 0, "%s", said.at[0].what);
}

/* ---- weft_reclaim ------------------------------------------------------------------------------------------------------ */

static int64_t inside = -1;
static void reclaims(void *obj, void *ctx) { (void)obj, (void)ctx; __atomic_store_n(&inside, weft_reclaim(), __ATOMIC_RELEASE); }

static void *of_the_host(void *arg)
{
    (void)arg;
    drop(closes_nothing, 100);
    test_wipe_stack();
    cr_expect_geq(weft_reclaim(), 90);
    return NULL;
}

static void reclaim(void *arg)
{
    (void)arg;
    cr_expect_eq(weft_reclaim(), 0);
    drop(closes_nothing, 100);
    test_wipe_stack();
    int64_t n = weft_reclaim();
    cr_expect(n >= 90 && n <= 100 && n == ran, "%ld", (long)n);
    drop(reclaims, 1);
    test_wipe_stack();
    weft_reclaim();
    test_until(__atomic_load_n(&inside, __ATOMIC_ACQUIRE) >= 0);
    pthread_t t;
    pthread_create(&t, NULL, of_the_host, NULL);
    weft_blocking_begin();
    pthread_join(t, NULL);
    weft_blocking_end();
}

Test(doctor_w02, reclaim_waits_for_finalizers)
{
    cr_expect_eq(weft_reclaim(), -ESRCH);
    run(reclaim, 2, WEFT_GUARD_NONE);
}

/* ---- accepting ---------------------------------------------------------------------------------------------------------- */

static void accepts(void *arg)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    weft_fd *listener, *got;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), mine = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)arg;
    few_descriptors();
    snprintf(at.sun_path + 1, sizeof at.sun_path - 1, "weft-w02-%d", getpid());
    cr_assert(bind(fd, (void *)&at, sizeof at) == 0 && listen(fd, 5) == 0 && connect(mine, (void *)&at, sizeof at) == 0);
    cr_assert_eq(weft_fd_open(fd, &listener), 0);
    for (int i = 0; i < DESCRIPTORS / 2; i++)
        file_open("/dev/null");
    while (dup(fd) >= 0)
        ;
    test_wipe_stack();
    cr_expect_eq(weft_accept(listener, &got, NULL, NULL), *(int *)arg);
}

Test(doctor_w02, accept_has_the_guard_too)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    int none = 0;
    cfg.guards = WEFT_GUARD_DESCRIPTORS;
    cfg.gc_percent = WEFT_GC_OFF;
    test_run_config(&cfg, accepts, &none);
}

Test(doctor_w02, and_without_it_the_error)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    int error = -EMFILE;
    cfg.guards = WEFT_GUARD_NONE;
    cfg.gc_percent = WEFT_GC_OFF;
    cfg.debug = "gcstress=0";
    test_run_config(&cfg, accepts, &error);
}
