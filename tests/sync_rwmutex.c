/* The read-write lock. */
#include "waiting.h"
#include "base/rng.h"
#include <errno.h>
#include <signal.h>
#include <string.h>

struct shared { weft_rwmutex rw; weft_waitgroup wg; int readers, writers, most, each; uint64_t a, b, timeouts, seed; };

static void read_it(struct shared *s)
{
    int n = __atomic_add_fetch(&s->readers, 1, __ATOMIC_RELAXED);
    cr_assert_eq(__atomic_load_n(&s->writers, __ATOMIC_RELAXED), 0, "a reader beside a writer");
    if (n > __atomic_load_n(&s->most, __ATOMIC_RELAXED))
        __atomic_store_n(&s->most, n, __ATOMIC_RELAXED);
    uint64_t a = s->a;
    weft_yield();
    cr_assert_eq(a, s->b, "the data changed under a reader");
    __atomic_sub_fetch(&s->readers, 1, __ATOMIC_RELAXED);
}

static void write_it(struct shared *s)
{
    cr_assert_eq(__atomic_add_fetch(&s->writers, 1, __ATOMIC_RELAXED), 1, "two writers");
    cr_assert_eq(__atomic_load_n(&s->readers, __ATOMIC_RELAXED), 0, "a writer beside readers");
    s->a++;
    weft_yield();
    s->b++;
    __atomic_sub_fetch(&s->writers, 1, __ATOMIC_RELAXED);
}

static void user(void *arg)
{
    struct shared *s = arg;
    struct rng r;
    rng_seed(&r, s->seed ^ weft_fiber_id());
    for (int i = 0; i < s->each; i++) {
        int64_t soon = weft_now() + rng_below(&r, 50000);
        switch (rng_below(&r, 8)) {
        case 0:
            weft_rwmutex_lock(&s->rw);
            break;
        case 1:
            if (weft_rwmutex_lock_until(&s->rw, soon) == 0)
                break;
            __atomic_fetch_add(&s->timeouts, 1, __ATOMIC_RELAXED);
            continue;
        case 2:
            if (weft_rwmutex_trylock(&s->rw))
                break;
            continue;
        case 3:
            if (!weft_rwmutex_tryrlock(&s->rw))
                continue;
            goto reading;
        case 4:
            if (weft_rwmutex_rlock_until(&s->rw, soon) != 0) {
                __atomic_fetch_add(&s->timeouts, 1, __ATOMIC_RELAXED);
                continue;
            }
            goto reading;
        default:
            weft_rwmutex_rlock(&s->rw);
        reading:
            read_it(s);
            weft_rwmutex_runlock(&s->rw);
            continue;
        }
        write_it(s);
        weft_rwmutex_unlock(&s->rw);
    }
}

static void everything(void *arg)
{
    struct shared s = { .each = 2000, .seed = *(uint64_t *)arg };
    do { /* until somebody has waited in vain, too */
        for (int i = 0; i < 10; i++)
            cr_assert_eq(weft_waitgroup_go(&s.wg, user, &s), 0);
        weft_waitgroup_wait(&s.wg);
    } while (s.timeouts == 0);
    cr_assert_gt(s.most, 1, "readers share it");
    cr_assert_eq(s.rw.state_, 0, "nothing is left in the word: %x", s.rw.state_);
}

Test(rwmutex, one_writer_or_many_readers)
{
    uint64_t seed = test_seed();
    for (int procs = 1; procs <= 8; procs *= 2)
        test_run_procs(procs, everything, &seed);
}

/* ---- who comes first ----------------------------------------------------------------------------------------------------- */

struct turns { weft_rwmutex rw; weft_waitgroup wg; char log[16]; int n; };

static void say(struct turns *t, char c) { t->log[__atomic_fetch_add(&t->n, 1, __ATOMIC_RELAXED)] = c; }

static void reader(void *arg)
{
    struct turns *t = arg;
    weft_rwmutex_rlock(&t->rw);
    say(t, 'r');
    weft_rwmutex_runlock(&t->rw);
}

static void writer(void *arg)
{
    struct turns *t = arg;
    weft_rwmutex_lock(&t->rw);
    say(t, 'W');
    weft_rwmutex_unlock(&t->rw);
}

static void start(struct turns *t, weft_fn *fn)
{
    size_t n = parked_as(&t->rw, fn == writer ? LOT_WRITER : LOT_READER);
    cr_assert_eq(weft_waitgroup_go(&t->wg, fn, t), 0);
    test_until(parked_as(&t->rw, fn == writer ? LOT_WRITER : LOT_READER) == n + 1);
}

static void turns(void *arg)
{
    (void)arg;
    /* Readers own it: a waiting writer keeps new readers out, and comes before them. */
    struct turns t = { 0 };
    weft_rwmutex_rlock(&t.rw);
    weft_rwmutex_rlock(&t.rw);
    start(&t, writer);
    cr_assert(!weft_rwmutex_tryrlock(&t.rw));
    cr_assert(!weft_rwmutex_trylock(&t.rw));
    start(&t, reader);
    start(&t, writer);
    start(&t, reader);
    weft_rwmutex_runlock(&t.rw);
    cr_assert_eq(t.n, 0);
    weft_rwmutex_runlock(&t.rw);
    weft_waitgroup_wait(&t.wg);
    cr_assert_str_eq(t.log, "WrrW");

    /* A writer owns it: all readers who wait come before the next writer. */
    t = (struct turns){ 0 };
    weft_rwmutex_lock(&t.rw);
    start(&t, writer);
    start(&t, reader);
    start(&t, reader);
    start(&t, writer);
    weft_rwmutex_unlock(&t.rw);
    weft_waitgroup_wait(&t.wg);
    cr_assert_str_eq(t.log, "rrWW");
}

Test(rwmutex, readers_and_writers_take_turns) { test_run_procs(1, turns, NULL); }

/* A writer that gives up lets the readers in that it kept out. */
static void hasty_writer(void *arg)
{
    struct turns *t = arg;
    cr_assert_eq(weft_rwmutex_lock_until(&t->rw, weft_now() + 50 * WEFT_MILLISECOND), -ETIMEDOUT);
    say(t, 't');
}

static void given_up(void *arg)
{
    (void)arg;
    struct turns t = { 0 };
    weft_rwmutex_rlock(&t.rw);
    cr_assert_eq(weft_waitgroup_go(&t.wg, hasty_writer, &t), 0);
    test_until(parked_as(&t.rw, LOT_WRITER) == 1 || __atomic_load_n(&t.n, __ATOMIC_RELAXED) == 1);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(weft_waitgroup_go(&t.wg, reader, &t), 0);
    weft_waitgroup_wait(&t.wg); /* we still read */
    cr_assert_eq(t.n, 4);
    cr_assert(weft_rwmutex_tryrlock(&t.rw));
    weft_rwmutex_runlock(&t.rw);
    weft_rwmutex_runlock(&t.rw);
    cr_assert_eq(t.rw.state_, 0);

    weft_rwmutex_lock(&t.rw);
    cr_assert_eq(weft_rwmutex_rlock_until(&t.rw, weft_now() + WEFT_MILLISECOND), -ETIMEDOUT);
    cr_assert_eq(weft_rwmutex_lock_until(&t.rw, weft_now() + WEFT_MILLISECOND), -ETIMEDOUT);
    weft_rwmutex_unlock(&t.rw);
    cr_assert_eq(t.rw.state_, 0);
    cr_assert_eq(weft_rwmutex_lock_until(&t.rw, 1), 0);
    weft_rwmutex_unlock(&t.rw);
    cr_assert_eq(weft_rwmutex_rlock_until(&t.rw, 1), 0);
    weft_rwmutex_runlock(&t.rw);
}

Test(rwmutex, a_writer_that_gives_up_lets_readers_in)
{
    test_run_procs(1, given_up, NULL);
    test_run_procs(2, given_up, NULL);
}

/* ---- misuse ------------------------------------------------------------------------------------------------------------------ */

static weft_rwmutex wrong;
static void runlock_free(void *arg) { (void)arg; weft_rwmutex_runlock(&wrong); }
static void unlock_free(void *arg) { (void)arg; weft_rwmutex_unlock(&wrong); }
static void runlock_written(void *arg) { (void)arg; weft_rwmutex_lock(&wrong); weft_rwmutex_runlock(&wrong); }
static void unlock_read(void *arg) { (void)arg; weft_rwmutex_rlock(&wrong); weft_rwmutex_unlock(&wrong); }
static void run_it(void *arg) { test_run(*(weft_fn **)arg, NULL); }

Test(rwmutex, unlocking_what_is_not_locked_is_fatal)
{
    static struct test_output out;
    weft_fn *fn[] = { runlock_free, unlock_free, runlock_written, unlock_read };
    for (int i = 0; i < 4; i++) {
        test_fork(&out, run_it, &fn[i]);
        cr_assert_eq(out.term_signal, SIGABRT);
        cr_assert_not_null(strstr(out.text, i % 2 ? "weft: fatal: unlock of rwmutex" : "weft: fatal: runlock of rwmutex"), "%s", out.text);
    }
}
