/* Fibers that wait for ever, proved by a collection ([LEAKED]): each kind of wait is found when nobody can end it, and nothing is found that somebody can
 * still come to, by whatever way. */
#include "leak_test.h"
#include "base/probe.h"
#include "sched/mutator.h"
#include <errno.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static struct node *volatile global;

/* ---- found -------------------------------------------------------------------------------------------------- */

static NOINLINE void leak_each(uint64_t *id)
{
    for (int w = 0; w < WAITS_COUNT; w++) {
        struct job j = { .wait = (enum wait)w, .on = node_new(), .and = node_new() };
        id[w] = start_waiting(j);
        if (w == GROUP_SECOND) /* the first one of a group waits elsewhere than the rest */
            id[WAITS_COUNT] = start_waiting(j);
    }
}

static void each_wait(void *arg)
{
    (void)arg;
    static const char *const name[] = {
#define X(n) #n,
        WAITS(X)
#undef X
        "second of a group",
    };
    uint64_t id[WAITS_COUNT + 1];
    leak_each(id);
    all_wait(WAITS_COUNT + 1);
    long n = look();
    for (int w = 0; w <= WAITS_COUNT; w++)
        cr_expect(is_leaked(id[w]) || n < WAITS_COUNT + 1, "%s", name[w]);
    cr_assert(all_found(n, WAITS_COUNT + 1), "%ld", n);
    cr_assert(all_found(n = look(), WAITS_COUNT + 1), "and again: %ld", n);
    bool first = is_leaked(id[0]);
    weft_gc();
    cr_assert_eq(is_leaked(id[0]), first, "till the next look");
}

Test(leak_proof, every_wait_that_nobody_can_end_is_found) { test_run_each(each_wait, NULL); }

static void recv_nil(void *arg) { weft_chan_recv(arg, NULL); }
static void send_nil(void *arg) { weft_chan_send(arg, NULL); }
static void select_none(void *arg)
{
    (void)arg;
    weft_select(NULL, 0);
}
static void select_nil(void *arg)
{
    weft_case none[2] = { { .op = WEFT_RECV, .chan = arg }, { .op = WEFT_SEND, .chan = arg } };
    weft_select(none, 2);
}

static void nil_channels(void *arg)
{
    (void)arg;
    weft_fn *fn[] = { recv_nil, send_nil, select_none, select_nil };
    weft_go_opts opts = { .size = sizeof opts, .name = "waits" };
    for (int i = 0; i < 4; i++)
        cr_assert_eq(weft_go_opts_run(fn[i], NULL, &opts), 0);
    all_wait(4);
    cr_assert_eq(look(), 4, "whatever lies on stacks");
}

Test(leak_proof, who_waits_for_nothing_is_found) { test_run(nil_channels, NULL); }

#ifndef W_TSAN /* which ends a child that starts threads */
/* A main function that has started all else, and is not to return. What it holds is held for nobody: see the other one. */
static void main_waits(struct fiber *f, void *yes)
{
    *(bool *)yes |= (f->flags & FIBER_MAIN) && load_acq(&f->state) == FIBER_WAITING && f->why == WAIT_SELECT_EMPTY;
}

static void looks_at_main(void *arg)
{
    (void)arg;
    for (bool yes = false; !yes || waiting() != 1; weft_sleep(WEFT_MILLISECOND))
        stack_each(0, 1, main_waits, &yes);
    _exit(all_found(look(), 1) ? 0 : 1);
}

static void main_of_all(void *arg)
{
    (void)arg;
    weft_chan *held = weft_chan_make(0, 0);
    weft_go_opts opts = { .size = sizeof opts, .name = "waits" };
    if (weft_go_opts_run(recv_nil, held, &opts) != 0)
        _exit(4);
    weft_go(looks_at_main, NULL);
    weft_select(NULL, 0);
    weft_keep_alive(held);
}

Test(leak_proof, the_main_fiber_may_wait_for_nothing)
{
    int status = -1;
    pid_t pid = fork();
    if (pid == 0)
        _exit(weft_run(main_of_all, NULL, NULL) != 0 ? 2 : 3);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0);
}
#endif

/* Each holds what the next one waits for; the last, what the first does. */
static NOINLINE void leak_ring(int n)
{
    struct node *first = node_new(), *at = first;
    for (int i = 0; i < n; i++) {
        struct node *next = i + 1 < n ? node_new() : first;
        start_waiting((struct job){ .wait = (enum wait)(i % WAITS_COUNT), .on = at, .and = at, .holds = { next } });
        at = next;
    }
}

static void rings(void *arg)
{
    (void)arg;
    leak_ring(1);
    leak_ring(2);
    leak_ring(50);
    all_wait(53);
    cr_assert(all_found(look(), 53));
}

Test(leak_proof, fibers_that_could_only_end_each_other_are_found) { test_run_each(rings, NULL); }

/* ---- what is found stays as it is ---------------------------------------------------------------------------------- */

static w_u32 finalized;
static void finalize(void *obj, void *ctx)
{
    (void)obj;
    (void)ctx;
    store_rlx(&finalized, 1);
}

static NOINLINE uint64_t leak_with_finalizer(weft_weak **weak)
{
    struct node *on = node_new(), *held = node_new();
    held->to[0] = node_new();
    weft_set_finalizer(held, finalize, NULL);
    *weak = weft_weak_make(held->to[0]);
    return start_waiting((struct job){ .wait = RECV, .on = on, .holds = { held } });
}

static void stays(void *arg)
{
    (void)arg;
    weft_weak *weak;
    uint64_t id = leak_with_finalizer(&weak);
    all_wait(1);
    for (int i = 0; i < 3; i++) {
        cr_assert(all_found(look(), 1));
        weft_gc();
        weft_sleep(WEFT_MILLISECOND);
    }
    cr_assert_eq(is_leaked(id), leaked_count() == 1);
    cr_assert_eq(load_rlx(&finalized), 0, "what it holds is not finalized");
    cr_assert_not_null(weft_weak_get(weak), "nor freed");
}

Test(leak_proof, what_a_leaked_fiber_holds_is_kept) { test_run(stays, NULL); }

/* The address of the channel is hidden, against the rules; then the fiber goes on like any other. */
static NOINLINE uint64_t leak_hidden(uintptr_t *hidden)
{
    struct node *on = node_new();
    *hidden = ~(uintptr_t)on;
    return start_waiting((struct job){ .wait = RECV, .on = on });
}

static void back_again(void *arg)
{
    (void)arg;
    uintptr_t hidden;
    uint64_t id = leak_hidden(&hidden);
    all_wait(1);
    cr_assert(all_found(look(), 1));
    struct node *on = (struct node *)~hidden;
    int v = 1;
    cr_assert_eq(weft_chan_send(on->chan, &v), 0);
    test_until(waiting() == 0);
    cr_assert_not(is_leaked(id));
    cr_assert_eq(look(), 0);
}

Test(leak_proof, who_is_woken_all_the_same_goes_on) { test_run(back_again, NULL); }

/* ---- not found: somebody can come to it ------------------------------------------------------------------------------- */

/* For each way an object is made that all kinds of waits wait for; kept lets it be reached, and cr_expects nothing found; after let_go it is. */
struct way { const char *name; void (*keep)(struct node *n); void (*let_go)(void); };

static void keep_global(struct node *n) { global = n; }
static void drop_global(void) { global = NULL; }

static void keep_interior(struct node *n) { global = (struct node *)((char *)n + sizeof *n - 8); }

static weft_handle handle;
static void keep_handle(struct node *n) { handle = weft_handle_new(n); }
static void drop_handle(void) { weft_handle_free(handle); }

static void **root;
static void keep_root(struct node *n)
{
    root = malloc(sizeof *root);
    *root = n;
    weft_root_add(root, sizeof *root);
}
static void drop_root(void)
{
    weft_root_remove(root);
    free(root);
}

static weft_pinner pinner;
static void keep_pin(struct node *n) { weft_pin(&pinner, n); }
static void drop_pin(void) { weft_unpin(&pinner); }

static weft_weak *weak;
static void keep_weak(struct node *n) { weak = weft_weak_make(n); }
static void drop_weak(void) { cr_assert_not_null(weft_weak_get(weak), "a fiber holds it"); }

/* The object that has the finalizer is garbage at the look; its finalizer can come to n. */
static uint64_t finalizers_before;
static NOINLINE void keep_finalizer(struct node *n)
{
    struct node *other = node_new();
    other->to[0] = n;
    finalizers_before = mutator_calls_executed(GC_FINALIZER);
    weft_set_finalizer(other, finalize, NULL);
}
static void drop_finalizer(void)
{
    test_until(mutator_calls_executed(GC_FINALIZER) > finalizers_before); /* while it runs, the object is in its frame */
    weft_gc();
}

static void cleanup(void *arg) { (void)arg; }
static struct node *volatile cleaned;
static NOINLINE void keep_cleanup(struct node *n)
{
    cleaned = node_new();
    weft_add_cleanup((void *)cleaned, cleanup, n, NULL);
}
static void drop_cleanup(void)
{
    uint64_t before = mutator_calls_executed(GC_CLEANUP);
    cleaned = NULL;
    test_until((weft_gc(), mutator_calls_executed(GC_CLEANUP) > before));
    weft_gc();
}

static w_u32 holder_may_go;
static void sleeps(void *arg)
{
    while (load_rlx(&holder_may_go) == 0)
        weft_sleep(100 * WEFT_MICROSECOND);
    weft_keep_alive(arg);
}
static void keep_sleeper(struct node *n) { cr_assert_eq(weft_go(sleeps, n), 0); }
static void runs(void *arg)
{
    while (load_rlx(&holder_may_go) == 0)
        __asm__ volatile("" : : "r"(arg));
}
static void keep_runner(struct node *n) { cr_assert_eq(weft_go(runs, n), 0); }
static void drop_holder(void)
{
    store_rlx(&holder_may_go, 1);
    test_until(weft_num_fibers() == 2 + WAITS_COUNT);
}

static w_u32 attached;
static void *thread_holds(void *arg)
{
    struct node *volatile n = *(struct node **)arg;
    weft_attach();
    store_rel(&attached, 1);
    while (load_rlx(&holder_may_go) == 0)
        test_pause();
    weft_detach();
    (void)n;
    return NULL;
}
static pthread_t thread;
static struct node *volatile passed;
static void keep_thread(struct node *n)
{
    passed = n;
    cr_assert_eq(pthread_create(&thread, NULL, thread_holds, (void *)&passed), 0);
    test_until(load_acq(&attached));
    passed = NULL;
}
static void drop_thread(void)
{
    store_rlx(&holder_may_go, 1);
    weft_blocking_begin();
    pthread_join(thread, NULL);
    weft_blocking_end();
}

static void nothing(void *arg) { (void)arg; }
static weft_timer *volatile timer;
static void keep_timer(struct node *n) { timer = weft_timer_func(3600 * WEFT_SECOND, 0, nothing, n); }
static void drop_timer(void)
{
    weft_timer_stop((weft_timer *)timer);
    timer = NULL;
}

static weft_pool *volatile pool;
static void keep_pool(struct node *n)
{
    pool = weft_pool_new(NULL, NULL);
    weft_pool_put((weft_pool *)pool, n);
}
static void drop_pool(void)
{
    weft_gc();
    weft_gc();
}

static weft_ctx *volatile ctx;
static void keep_ctx(struct node *n)
{
    static char key;
    ctx = weft_ctx_with(weft_ctx_cancellable(NULL), &key, n);
}
static void drop_ctx(void) { ctx = NULL; }

static const struct way ways[] = {
    { "a global variable", keep_global, drop_global },
    { "a pointer into it", keep_interior, drop_global },
    { "a handle", keep_handle, drop_handle },
    { "a range of roots", keep_root, drop_root },
    { "a pin", keep_pin, drop_pin },
    { "a weak pointer", keep_weak, drop_weak },
    { "a finalizer that is due", keep_finalizer, drop_finalizer },
    { "a cleanup", keep_cleanup, drop_cleanup },
    { "a fiber that sleeps", keep_sleeper, drop_holder },
    { "a fiber that runs", keep_runner, drop_holder },
    { "a thread of the host", keep_thread, drop_thread },
    { "a timer", keep_timer, drop_timer },
    { "a pool", keep_pool, drop_pool },
    { "a context", keep_ctx, drop_ctx },
};

static NOINLINE void all_kinds_wait_for(const struct way *w)
{
    struct node **on = weft_alloc((WAITS_COUNT + 1) * sizeof *on), *n = node_new();
    for (int k = 0; k < WAITS_COUNT; k++)
        start_waiting((struct job){ .wait = (enum wait)k, .on = on[k] = node_new(), .and = node_new() });
    start_waiting((struct job){ .wait = SEMA, .on = n }); /* the object itself */
    n->to[0] = (struct node *)on;
    w->keep(n);
}

static void one_way(void *arg)
{
    const struct way *w = arg;
    all_kinds_wait_for(w);
    all_wait(WAITS_COUNT + 1);
    long found = look();
    if (load_rlx(&finalized) == 0) /* a collection before the look has found it due, and it has run */
        cr_expect_eq(found, 0, "%s", w->name);
    w->let_go();
    if (w->keep != keep_weak) /* whoever has the pointer can still ask */
        cr_expect(all_found(look(), WAITS_COUNT + 1), "%s, and it is gone", w->name);
    else
        cr_expect_eq(look(), 0);
}

Test(leak_proof, who_can_still_be_reached_is_not_found)
{
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        store_rlx(&holder_may_go, 0);
        store_rlx(&finalized, 0);
        pool = NULL;
        weak = NULL; /* of a heap that is no more */
        pinner = (weft_pinner){ 0 };
        test_run_procs(1 + (int)i % 3, one_way, (void *)&ways[i]);
    }
}

/* A task holds nothing but its argument. From before it is made till after the look its maker is inside, where nobody takes the only processor from it:
 * so it does not start. */
static NOINLINE uintptr_t wait_for_queued(void)
{
    struct node *n = node_new();
    start_waiting((struct job){ .wait = SEMA, .on = n });
    all_wait(1);
    return ~(uintptr_t)n;
}

static NOINLINE void queue_inside(uintptr_t hidden)
{
    weft_go_opts opts = { .size = sizeof opts };
    cr_assert_eq(sched_spawn(nothing, (void *)~hidden, &opts, __builtin_return_address(0), 0), 0);
}

static NOINLINE long look_at_queued(uintptr_t hidden)
{
    uint64_t n = 12345;
    test_wipe_stack();
    rt_enter();
    queue_inside(hidden);
    int err = leaked_find(&n);
    rt_leave(m_self());
    cr_assert_eq(err, 0);
    return (long)n;
}

static void not_started(void *arg)
{
    (void)arg;
    cr_assert_eq(look_at_queued(wait_for_queued()), 0);
    while (weft_num_fibers() != 2)
        weft_yield();
    cr_assert(all_found(look(), 1));
}

Test(leak_proof, what_a_task_is_started_with_can_be_reached) { test_run_procs(1, not_started, NULL); }

/* Nobody holds it, but it ends by itself. */
static NOINLINE void wait_by_clock(void)
{
    int64_t later = weft_now() + 3600 * WEFT_SECOND;
    for (int k = 0; k < WAITS_COUNT; k++)
        start_waiting((struct job){ .wait = (enum wait)k, .on = node_new(), .and = node_new(), .deadline = later });
    struct node *n = node_new();
    n->chan = weft_timer_chan(weft_timer_new(3600 * WEFT_SECOND, 0));
    start_waiting((struct job){ .wait = RECV, .on = n });
    n = node_new();
    n->chan = weft_ctx_done(weft_ctx_until(NULL, later));
    start_waiting((struct job){ .wait = RECV, .on = n });
}

static NOINLINE void wait_for_stopped_timer(void)
{
    struct node *n = node_new();
    weft_timer *t = weft_timer_new(3600 * WEFT_SECOND, 0);
    n->chan = weft_timer_chan(t);
    weft_timer_stop(t);
    start_waiting((struct job){ .wait = RECV, .on = n });
}

static void by_clock(void *arg)
{
    (void)arg;
    wait_by_clock();
    all_wait(WAITS_COUNT + 2);
    cr_assert_eq(look(), 0);
    wait_for_stopped_timer();
    all_wait(WAITS_COUNT + 3);
    cr_assert(all_found(look(), 1));
}

Test(leak_proof, who_has_a_deadline_or_a_timer_is_not_found) { test_run_each(by_clock, NULL); }

/* What they wait for is no object. */
static weft_mutex outside;
static void wait_outside(void *arg)
{
    weft_sema own = { 0 };
    if (arg != NULL)
        weft_sema_acquire(&own);
    else
        weft_mutex_lock(&outside);
}

static void no_objects(void *arg)
{
    (void)arg;
    weft_go_opts opts = { .size = sizeof opts, .name = "waits" };
    weft_mutex_lock(&outside);
    cr_assert_eq(weft_go_opts_run(wait_outside, NULL, &opts), 0);
    cr_assert_eq(weft_go_opts_run(wait_outside, &opts, &opts), 0);
    all_wait(2);
    cr_assert_eq(look(), 0);
}

Test(leak_proof, who_waits_for_what_is_no_object_is_not_found) { test_run(no_objects, NULL); }

/* ---- chains ----------------------------------------------------------------------------------------------------------- */

/* Who waits at one node holds the next. A chain made in either direction, and one in no order. */
static NOINLINE void chain_make(long n, int order)
{
    struct node **all = weft_alloc((size_t)(n + 1) * sizeof *all);
    long *at = malloc((size_t)n * sizeof *at);
    for (long i = 0; i <= n; i++)
        all[i] = node_new();
    for (long i = 0; i < n; i++)
        at[i] = order == 0 ? i : n - 1 - i;
    for (long i = n - 1; order == 2 && i > 0; i--) {
        long k = rand() % (i + 1), t = at[i];
        at[i] = at[k];
        at[k] = t;
    }
    for (long i = 0; i < n; i++) {
        enum wait w = (enum wait)(i % WAITS_COUNT);
        if (w == SELECT_MANY) /* which allocates, and so has old addresses on its stack */
            w = SELECT;
        start_waiting((struct job){ .wait = w, .on = all[at[i]], .and = all[at[i]], .holds = { all[at[i] + 1] } });
    }
    free(at);
    global = all[0];
    memset(all, 0, (size_t)(n + 1) * sizeof *all);
}

static void chains(void *arg)
{
    long n = *(long *)arg;
    for (int order = 0; order < 3; order++) {
        chain_make(n, order);
        all_wait((order + 1) * n);
        long before = order * n;
        long found = look();
        cr_expect(all_found(found, before), "a chain of order %d hangs on one end: %ld of %ld", order, found, before);
        global = NULL;
        cr_expect(all_found(found = look(), before + n), "and on nothing, order %d: %ld", order, found);
    }
}

Test(leak_proof, chains_of_whatever_order)
{
#ifdef W_TSAN
    long n = 200; /* it has room for 8128 fibers, in the whole test */
#else
    long n = 2000;
#endif
    test_run_each(chains, &n);
}

/* ---- while it looks --------------------------------------------------------------------------------------------------- */

/* Who makes a dump or a profile is a thread that no stop stops. It may come by in the middle of another's look. */
static w_u32 watching, watched, accused, missed;
static void count_leaked(struct fiber *f, void *n) { *(long *)n += load_acq(&f->state) == FIBER_WAITING && leaked_is(f); }
static void *watch(void *leaked)
{
    while (load_rlx(&watching) != 0) {
        long n = 0;
        stack_each(0, 1, count_leaked, &n);
        store_rlx(&accused, load_rlx(&accused) + (n > (long)leaked));
        store_rlx(&missed, load_rlx(&missed) + (n < (long)leaked));
        store_rlx(&watched, load_rlx(&watched) + 1);
    }
    return NULL;
}

static NOINLINE void wait_for_global(long n)
{
    struct node **all = weft_alloc((size_t)n * sizeof *all);
    global = (struct node *)all;
    for (long i = 0; i < n; i++)
        start_waiting((struct job){ .wait = RECV, .on = all[i] = node_new() });
}

static void watched_looks(void *arg)
{
    (void)arg;
    pthread_t watcher;
    wait_for_global(1000);
    leak_ring(50);
    all_wait(1050);
    long leaked = look();
    cr_assert(all_found(leaked, 50));
    store_rlx(&watching, 1);
    cr_assert_eq(pthread_create(&watcher, NULL, watch, (void *)leaked), 0);
    for (int i = 0; i < 100; i++) {
        uint32_t before = load_rlx(&watched);
        cr_assert_eq(look_now(), leaked);
        test_until(load_rlx(&watched) != before);
    }
    store_rlx(&watching, 0);
    pthread_join(watcher, NULL);
    cr_assert_eq(load_rlx(&accused), 0, "who waits for what can be reached never seems to have leaked");
    cr_assert_eq(load_rlx(&missed), 0, "and who has leaked always does");
}

Test(leak_proof, who_watches_a_look_sees_what_the_one_before_found) { test_run_procs(2, watched_looks, NULL); }

/* Profiles of processor time ask for it. */
static w_u32 phases, unsaid;
static void told_phase(void *arg, enum probe_id id, uintptr_t cycle, uintptr_t phase, uintptr_t c)
{
    (void)arg, (void)id, (void)cycle, (void)phase, (void)c;
    add_rlx(&phases, 1);
    add_rlx(&unsaid, !m_self()->collects);
}

static void looks_once(void *arg)
{
    (void)arg;
    store_rlx(&phases, 0);
    cr_assert_eq(probe_listen(1ull << PROBE_gc_phase, told_phase, NULL), 0);
    look();
    probe_unlisten(told_phase, NULL);
    cr_expect_gt(load_rlx(&phases), 0);
    cr_expect_eq(load_rlx(&unsaid), 0);
}

Test(leak_proof, a_look_counts_as_a_collection) { test_run(looks_once, NULL); }

/* ---- without memory ------------------------------------------------------------------------------------------------- */

/* The mark drops what it has no room for, and comes back for it: before the verdict. */
extern size_t mark_max_chunks;
static NOINLINE void hang_wide(long n)
{
    struct node **wide = weft_alloc((size_t)n * sizeof *wide);
    global = (struct node *)wide;
    for (long i = 0; i < n; i++) {
        wide[i] = weft_alloc(sizeof **wide);
        if (i % (n / 50) == 0) {
            wide[i]->to[0] = node_new();
            start_waiting((struct job){ .wait = COND, .on = wide[i]->to[0] });
        }
    }
}

static void no_room(void *arg)
{
    (void)arg;
    hang_wide(20000);
    all_wait(50);
    mark_max_chunks = 0;
    cr_assert_eq(look(), 0);
    global = NULL;
    cr_assert(all_found(look(), 50));
}

Test(leak_proof, a_mark_that_runs_out_of_memory_accuses_nobody) { test_run_each(no_room, NULL); }
