/* Bug 03: weft_lock_os_thread without unlock.
 *
 * What the call promises: the fiber is wired to its thread, and the thread to the fiber, until it is unlocked. A
 *                         fiber that ends while locked takes its thread with it: nobody knows what state it left
 *                         there.
 * What the bug assumes:   that the lock ends with the section that needs it.
 * What goes wrong:        every call costs a thread: while the fiber waits for something else its thread waits with
 *                         it, and when it ends the thread ends, so the next call has a new one made. Many at a time,
 *                         and the process meets its limit of threads.
 * Instead:                unlock where the section ends; where the section may end the fiber (weft_exit), weft_defer
 *                         the unlock.
 * Guarded:                sixteen fibers may be locked at a time; beyond that they are let in one by one, and threads are made ahead. Each call
 *                         still costs a thread, but not many at a time. */
#include "bug.h"

#include <sys/prctl.h>
#include <sys/syscall.h>

enum { ROUNDS = 8, CALLS = 64 };

/* Of each call: the thread that carried it, and how many there were. */
static struct { pid_t tid; long threads; } noted[ROUNDS * CALLS];
static int calls;

/* Takes no lock: who waits for one while it is wired to its thread keeps the thread waiting, too, and another has to be made. */
static void note_thread(void)
{
    int i = __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
    noted[i].tid = (pid_t)syscall(SYS_gettid);
    noted[i].threads = bug_threads();
}

static int threads_in_all(void)
{
    int n = 0;
    for (int i = 0; i < calls; i++) {
        int first = 0;
        while (noted[first].tid != noted[i].tid)
            first++;
        n += first == i;
    }
    return n;
}

static long threads_at_the_peak(void)
{
    long most = 0;
    for (int i = 0; i < calls; i++)
        most = noted[i].threads > most ? noted[i].threads : most;
    return most;
}

/* Something that belongs to the thread: a name here; a GL context, a namespace, a locale elsewhere. */
static void set_thread_state(void)
{
    char old[16];
    prctl(PR_GET_NAME, old);
    prctl(PR_SET_NAME, "special");
    note_thread();
    prctl(PR_SET_NAME, old);
}

static void call_buggy(void *arg)
{
    (void)arg;
    weft_lock_os_thread();
    set_thread_state();
    weft_sleep(5 * WEFT_MILLISECOND); /* the rest of the call: waits for a reply */
}

static void call_fixed(void *arg)
{
    (void)arg;
    weft_lock_os_thread();
    set_thread_state();
    weft_unlock_os_thread();
    weft_sleep(5 * WEFT_MILLISECOND);
}

static void measure(weft_fn *call)
{
    long before = bug_threads();
    for (int i = 0; i < ROUNDS; i++) {
        weft_waitgroup wg = { 0 };
        for (int j = 0; j < CALLS; j++)
            weft_waitgroup_go(&wg, call, NULL);
        weft_waitgroup_wait(&wg);
    }
    int threads = threads_in_all();
    long peak = threads_at_the_peak();
    bug_value("threads", threads);
    bug_value("peak", (double)peak);
    bug_say("%d calls, %d at a time, on %d threads (%.2f per call); %ld threads at the start, %ld at the peak",
            ROUNDS * CALLS, CALLS, threads, (double)threads / (ROUNDS * CALLS), before, peak);
    bug_cell("%.2f threads/call, peak %ld", (double)threads / (ROUNDS * CALLS), peak);
}

static void buggy(void *arg) { (void)arg, measure(call_buggy); }
static void fixed(void *arg) { (void)arg, measure(call_fixed); }

static const char *verdict(const struct bug_result *r)
{
    const struct bug_result *b = &r[BUGGY], *f = &r[FIXED], *g = &r[GUARDED];
    if (bug_get(b, "threads") < ROUNDS * CALLS * 0.9)
        return "threads were used again although their fibers ended locked";
    if (bug_get(b, "peak") < CALLS)
        return "waiting locked fibers did not hold a thread each";
    if (bug_get(f, "threads") > ROUNDS * CALLS * 0.1 || bug_get(f, "peak") > CALLS / 2)
        return "threads grow with the calls although they are unlocked";
    /* Sixteen, as many as were made ahead, what the machine's pace let in besides, and the runtime's own. */
    if (bug_get(g, "peak") > 0.75 * bug_get(b, "peak") || bug_get(g, "threads") < ROUNDS * CALLS * 0.9)
        return "guarded, as many threads are there at a time, or threads that fibers had locked are used again";
    return NULL;
}

int main(int argc, char **argv)
{
    static const struct bug bug = {
        .number = "03",
        .title = "lock_os_thread without unlock",
        .buggy = buggy,
        .fixed = fixed,
        .instead = "weft_lock_os_thread(); section(); weft_unlock_os_thread();   /* or defer the unlock */",
        .code = WEFT_W03,
        .guard = "WEFT_GUARD_THREADS: sixteen locked fibers at a time, then one more every 10 ms; threads are made ahead",
        .verdict = verdict,
        .plots = { { "peak", "threads at the peak", "", false }, { "threads", "threads made for 512 calls", "", false } },
    };
    return bug_main(argc, argv, &bug);
}
