/* Labels of fibers: what they are, who inherits them, and that no set outlives those who have it. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/offheap.h"
#include "base/probe.h"
#include "sched/labels.h"
#include "sched/sched.h"
#include "test.h"

#define L(...) (weft_label[]){ __VA_ARGS__ }, sizeof((weft_label[]){ __VA_ARGS__ }) / sizeof(weft_label)

/* The caller's, as "key=value key=value". */
static const char *mine(void)
{
    static __thread char buf[1024];
    const struct labels *l = m_self()->cur->labels;
    size_t len = 0;
    buf[0] = 0;
    for (uint32_t i = 0; l != NULL && i < l->n; i++)
        len += (size_t)snprintf(buf + len, sizeof buf - len, "%s%s=%s", i > 0 ? " " : "", l->at[i].key, l->at[i].value);
    return buf;
}

static uint64_t held(void)
{
    struct off_stats s;
    off_stats(OFF_PROF, &s);
    return s.in_use_bytes;
}

static int joined;
static const char *seen_by_child;
static weft_waitgroup wg;

static void child(void *arg)
{
    (void)arg;
    seen_by_child = strdup(mine());
    joined++;
}

static void spawn_and_wait(void)
{
    weft_waitgroup_go(&wg, child, NULL);
    weft_waitgroup_wait(&wg);
}

static void nothing(void *arg) { (void)arg; }

static void sets(void *arg)
{
    (void)arg;
    cr_assert_str_eq(mine(), "");
    cr_assert_null(weft_label_get("tenant"));
    char value[] = "acme";
    cr_assert_eq(weft_set_labels(L({ "tenant", value }, { "path", "/x" }, { "tenant", "later" })), 0);
    value[0] = 'X'; /* texts are copied */
    cr_assert_str_eq(mine(), "path=/x tenant=later");
    cr_assert_str_eq(weft_label_get("tenant"), "later");
    cr_assert_null(weft_label_get("tenan"));
    cr_assert_eq(weft_set_labels(L({ "b", "" }, { "a", value })), 0);
    cr_assert_str_eq(mine(), "a=Xcme b=");
    cr_assert_eq(weft_set_labels(L({ "c", NULL })), -EINVAL);
    cr_assert_eq(weft_set_labels(L({ NULL, "v" })), -EINVAL);
    cr_assert_eq(weft_set_labels(L({ "", "v" })), -EINVAL);
    cr_assert_eq(weft_set_labels(NULL, 1), -EINVAL);
    cr_assert_eq(weft_with_labels(L({ "c", "d" }), NULL, NULL), -EINVAL);
    cr_assert_str_eq(mine(), "a=Xcme b=");
    weft_label many[WEFT_LABELS_MAX + 1];
    char key[WEFT_LABELS_MAX + 1][8];
    for (int i = 0; i <= WEFT_LABELS_MAX; i++) {
        snprintf(key[i], sizeof key[i], "k%03d", i);
        many[i] = (weft_label){ key[i], "v" };
    }
    cr_assert_eq(weft_set_labels(many, WEFT_LABELS_MAX + 1), -EINVAL);
    cr_assert_eq(weft_set_labels(many, WEFT_LABELS_MAX), 0);
    cr_assert_str_eq(weft_label_get(key[WEFT_LABELS_MAX - 1]), "v");
    cr_assert_eq(weft_with_labels(&many[WEFT_LABELS_MAX], 1, nothing, NULL), -EINVAL, "together too many");
    cr_assert_eq(weft_with_labels(many, WEFT_LABELS_MAX, nothing, NULL), 0, "the same ones are no more");
    cr_assert_eq(weft_set_labels(NULL, 0), 0);
    cr_assert_str_eq(mine(), "");
    cr_assert_eq(held(), 0u);
}

Test(prof_labels, are_set_replaced_and_refused) { test_run_each(sets, NULL); }

static void inherits(void *arg)
{
    (void)arg;
    spawn_and_wait();
    cr_assert_str_eq(seen_by_child, "");
    cr_assert_eq(weft_set_labels(L({ "who", "parent" })), 0);
    weft_waitgroup_go(&wg, child, NULL);
    for (int i = 0; i < 4; i++) /* before the child has begun, on one processor; in the memory of the first, if that were free */
        cr_assert_eq(weft_set_labels(L({ "who", i < 3 ? "others" : "changed" })), 0);
    weft_waitgroup_wait(&wg);
    cr_assert_str_eq(seen_by_child, "who=parent");
    spawn_and_wait();
    cr_assert_str_eq(seen_by_child, "who=changed");
    cr_assert_eq(weft_set_labels(NULL, 0), 0);
    test_until(held() == 0); /* a child has told the group before its end is over */
}

Test(prof_labels, a_fiber_begins_with_those_of_who_made_it) { test_run_procs(1, inherits, NULL); }

/* ---- for the time of a call --------------------------------------------------------------------------------- */

static void inner(void *arg)
{
    cr_assert_str_eq(mine(), "a=2 b=3");
    cr_assert_eq(weft_set_labels(L({ "other", "o" })), 0);
    spawn_and_wait();
    cr_assert_str_eq(seen_by_child, "other=o");
    *(int *)arg += 1;
}

static void outer(void *arg)
{
    cr_assert_str_eq(mine(), "a=1 b=3");
    cr_assert_eq(weft_with_labels(L({ "a", "2" }), inner, arg), 0);
    cr_assert_str_eq(mine(), "a=1 b=3");
    *(int *)arg += 1;
}

static jmp_buf away;
static void leaves(void *arg) { (void)arg, longjmp(away, 1); }

static void scopes(void *arg)
{
    (void)arg;
    int calls = 0;
    cr_assert_eq(weft_set_labels(L({ "a", "1" })), 0);
    cr_assert_eq(weft_with_labels(L({ "b", "3" }), outer, &calls), 0);
    cr_assert_eq(calls, 2);
    cr_assert_str_eq(mine(), "a=1");
    uint64_t before = held();
    for (volatile int i = 0; i < 100; i++)
        if (setjmp(away) == 0)
            (void)!weft_with_labels(L({ "left", "behind" }), leaves, NULL);
    cr_assert_str_eq(mine(), "a=1 left=behind");
    cr_assert_eq(weft_with_labels(L({ "b", "3" }), outer, &calls), 0); /* by now the runtime knows that they were left */
    cr_assert_str_eq(mine(), "a=1");
    cr_assert_eq(held(), before);
    cr_assert_eq(weft_set_labels(NULL, 0), 0);
}

Test(prof_labels, of_a_call_end_with_it) { test_run_each(scopes, NULL); }

static void exits(void *arg) { (void)arg, weft_exit(); }
static void exits_labelled(void *arg) { (void)!weft_with_labels(L({ "x", "y" }), exits, arg); }
static void sets_and_ends(void *arg) { (void)arg, (void)!weft_set_labels(L({ "x", "y" })); }

static void ends(void *arg)
{
    (void)arg;
    for (int i = 0; i < 300; i++) {
        weft_waitgroup_go(&wg, i % 2 ? exits_labelled : sets_and_ends, NULL);
        if (i % 20 == 0)
            weft_waitgroup_wait(&wg);
    }
    weft_waitgroup_wait(&wg);
    test_until(held() == 0);
}

Test(prof_labels, end_with_the_fiber) { test_run_each(ends, NULL); }

/* ---- what is left when the runtime ends ----------------------------------------------------------------------- */

static void waits_for_ever(void *arg)
{
    weft_set_labels(L({ "waits", "for ever" }));
    weft_chan_recv(arg, NULL);
}

static void leaves_some(void *arg)
{
    (void)arg;
    weft_chan *c = weft_chan_make(0, 0);
    for (int i = 0; i < 20; i++)
        weft_go(waits_for_ever, c);
    test_until(held() > 0);
    cr_assert_eq(weft_set_labels(L({ "mine", "m" })), 0);
    for (int i = 0; i < 20; i++) /* never begun */
        weft_go(child, NULL);
}

Test(prof_labels, nothing_is_left_of_fibers_that_did_not_end)
{
    test_run_procs(1, leaves_some, NULL);
    cr_assert_eq(held(), 0u);
    test_run_procs(1, nothing, NULL);
    cr_assert_eq(held(), 0u);
}

/* ---- threads of the host, forks ---------------------------------------------------------------------------------- */

static void *host_thread(void *arg)
{
    cr_assert_eq(weft_set_labels(L({ "thread", "host" })), 0);
    int calls = 0;
    cr_assert_str_eq(mine(), "thread=host");
    cr_assert_eq(weft_set_labels(NULL, 0), 0);
    cr_assert_eq(weft_with_labels(L({ "a", "1" }, { "b", "3" }), outer, &calls), 0);
    cr_assert_eq(weft_set_labels(L({ "thread", "host" })), 0);
    *(int *)arg = calls;
    return NULL;
}

Test(prof_labels, of_a_thread_of_the_host_end_with_it)
{
    cr_assert_eq(weft_set_labels(L({ "a", "b" })), -ESRCH);
    cr_assert_eq(weft_with_labels(L({ "a", "b" }), nothing, NULL), -ESRCH);
    cr_assert_null(weft_label_get("a"));
    for (int life = 0; life < 2; life++) {
        cr_assert_eq(weft_start(NULL), 0);
        for (int i = 0; i < 3; i++) {
            pthread_t t;
            int calls = 0;
            pthread_create(&t, NULL, host_thread, &calls);
            pthread_join(t, NULL);
            cr_assert_eq(calls, 2);
        }
        test_until(held() == 0);
        cr_assert_eq(weft_set_labels(L({ "main", "thread" })), 0);
        cr_assert_eq(weft_stop(), 0);
        cr_assert_eq(held(), 0u);
    }
}

static void forks(void *arg)
{
    (void)arg;
    weft_chan *c = weft_chan_make(0, 0);
    for (int i = 0; i < 20; i++)
        weft_go(waits_for_ever, c);
    cr_assert_eq(weft_set_labels(L({ "parent", "p" })), 0);
    weft_yield();
    for (int i = 0; i < 20; i++)
        weft_go(waits_for_ever, c);
    pid_t pid = fork();
    if (pid == 0) {
        bool kept = strcmp(mine(), "parent=p") == 0;
        weft_set_labels(NULL, 0);
        _exit(kept && held() == 0 ? 0 : 1);
    }
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0, "%x", status);
}

/* Without the heap profiler: if the channel were one of its samples, what it keeps of that would be held, too. */
Test(prof_labels, a_child_of_a_fork_has_those_of_the_caller_alone, CHILD_GOES_ON) { test_run_debug(1, "memprofilerate=0", forks, NULL); }

/* ---- a listener ---------------------------------------------------------------------------------------------------- */

static char told[256];

static void listener(void *arg, enum probe_id id, uintptr_t fiber, uintptr_t labels, uintptr_t c)
{
    const struct labels *l = (const struct labels *)labels;
    (void)arg, (void)id, (void)c;
    cr_assert_eq(((struct fiber *)fiber)->id, weft_fiber_id());
    snprintf(told + strlen(told), sizeof told - strlen(told), "%u%s ", l != NULL ? l->n : 0, l != NULL ? l->at[0].value : "");
}

static void changes(void *arg)
{
    cr_assert_eq(probe_listen(1ull << PROBE_fiber_labels, listener, NULL), 0);
    weft_set_labels(L({ "a", "x" }));
    cr_assert_eq(weft_with_labels(L({ "b", "y" }), nothing, arg), 0);
    weft_set_labels(NULL, 0);
    probe_unlisten(listener, NULL);
    weft_set_labels(L({ "a", "z" }));
    cr_assert_str_eq(told, "1x 2x 1x 0 ");
}

Test(prof_labels, changes_are_told) { test_run_procs(1, changes, NULL); }
