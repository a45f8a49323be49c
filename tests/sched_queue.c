/* Run queues beyond what a processor's ring holds, and processors that change hands between threads that fibers are locked to. */
#include "sched/runq.h"
#include "test.h"
#include <stdlib.h>
#include <sys/resource.h>

/* ---- the global queue ------------------------------------------------------------------------------------------------ */

#define MANY 600000u /* more than fit into the batches of the queue: the last one takes what is too much */

static struct task *tasks_new(uint32_t n)
{
    struct task *t = calloc(n, sizeof *t);
    cr_assert_not_null(t);
    return t;
}

static runnable as_runnable(struct task *t) { return (runnable)t | RUNNABLE_TASK; }

static void put_global(runnable r)
{
    lock_take(&sched.lock);
    globq_put(r);
    lock_drop(&sched.lock);
}

/* The next of p's queues, as a processor without other work takes it; at most max at a time from the global queue. */
static runnable take(struct p *p, uint32_t max)
{
    runnable r = runq_local(p);
    return r != 0 ? r : globq_take(p, max);
}

Test(sched_queue, the_global_queue_keeps_the_order)
{
    struct task *t = tasks_new(MANY);
    struct p *p = calloc(1, sizeof *p);
    for (uint32_t i = 0; i < MANY; i++)
        put_global(as_runnable(&t[i]));
    cr_assert_eq(load_rlx(&sched.global_len), MANY);
    const uint32_t max[] = { 1, RUNQ_SIZE, 7 };
    for (uint32_t i = 0; i < MANY; i++)
        cr_assert_eq(take(p, max[i % 3]), as_runnable(&t[i]), "%u", i);
    cr_assert_eq(take(p, 1), 0);
    cr_assert_eq(load_rlx(&sched.global_len), 0);
}

static void note(runnable r, void *arg)
{
    (void)arg;
    run_task(r)->id++;
}

Test(sched_queue, what_overflows_a_ring_is_neither_lost_nor_run_twice)
{
    struct task *t = tasks_new(MANY);
    struct p *p = calloc(1, sizeof *p), *other = calloc(1, sizeof *other);
    for (uint32_t i = 0; i < MANY; i++)
        runq_put_next(p, as_runnable(&t[i]));
    lock_take(&sched.lock);
    globq_each(note, NULL);
    lock_drop(&sched.lock);
    uint32_t in_global = 0, taken = 0;
    for (uint32_t i = 0; i < MANY; i++)
        in_global += t[i].id == 1;
    cr_assert_eq(in_global, load_rlx(&sched.global_len));
    cr_assert_geq(in_global, MANY - RUNQ_SIZE - 1);
    for (runnable r; (r = take(taken % 2 ? p : other, RUNQ_SIZE)) != 0 || (r = take(p, 1)) != 0 || (r = take(other, 1)) != 0; taken++)
        run_task(r)->parent++;
    cr_assert_eq(taken, MANY);
    for (uint32_t i = 0; i < MANY; i++)
        cr_assert_eq(t[i].parent, 1, "%u", i);
}

/* ---- from one locked thread to another --------------------------------------------------------------------------------- */

#define TURNS 4000

static weft_chan *ping, *pong;

static void answers(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_lock_os_thread(), 0);
    while (weft_chan_recv(ping, NULL) == 1)
        weft_chan_send(pong, NULL);
}

static long waits(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_nvcsw;
}

static void to_and_fro(void *arg)
{
    (void)arg;
    ping = weft_chan_make(0, 0);
    pong = weft_chan_make(0, 0);
    cr_assert_eq(weft_lock_os_thread(), 0);
    weft_waitgroup wg = { 0 };
    cr_assert_eq(weft_waitgroup_go(&wg, answers, NULL), 0);
    long before = waits();
    for (int i = 0; i < TURNS; i++) {
        weft_chan_send(ping, NULL);
        weft_chan_recv(pong, NULL);
    }
    double each = (double)(waits() - before) / (2 * TURNS);
    weft_chan_close(ping);
    weft_waitgroup_wait(&wg);
    /* The one that waits; with a machine in between it is two. An emulator counts no threads; migrate puts a machine in between on purpose. */
    if (!test_is_emulated() && !(sched.modes & POLL_MIGRATE))
        cr_expect_lt(each, 1.6, "%.2f waits of threads for each hand-over", each);
}

/* On one processor: where another idles, a machine that looks for work may come and go meanwhile. */
Test(sched_queue, a_locked_thread_hands_its_processor_to_the_other) { test_run_procs(1, to_and_fro, NULL); }
