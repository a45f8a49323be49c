/* A host that starts and stops the runtime from whatever thread is at hand, and from several at once. */
#include "host.h"
#include <pthread.h>

static void *start(void *arg)
{
    *(int *)arg = weft_start(NULL);
    if (*(int *)arg == 0)
        work(3);
    return NULL;
}

static void *stop(void *arg)
{
    *(int *)arg = weft_stop();
    return NULL;
}

static void *use_and_stop(void *arg)
{
    work(3);
    return stop(arg);
}

static void on_thread(void *(*fn)(void *), void *arg)
{
    pthread_t t;
    CHECK(pthread_create(&t, NULL, fn, arg) == 0);
    CHECK(pthread_join(t, NULL) == 0);
}

static int rounds(void) { return getenv("WEFT_TEST_SLOW") != NULL ? 5 : 30; }

/* Started by one that has ended since, stopped by one that never called, or that did. */
static void other_threads(void)
{
    for (int i = 0; i < rounds(); i++) {
        int err = 1;
        on_thread(start, &err);
        OK(err);
        CHECK(weft_running());
        if (i % 3 != 0)
            work(3);
        on_thread(i % 2 == 0 ? stop : use_and_stop, &err);
        OK(err);
        CHECK(!weft_running());
    }
}

#define MANY 8
static pthread_barrier_t together;
static void *start_together(void *arg)
{
    pthread_barrier_wait(&together);
    return start(arg);
}
static void *stop_together(void *arg)
{
    pthread_barrier_wait(&together);
    return stop(arg);
}

/* Exactly one of them does it. */
static void at_once(void)
{
    for (int r = 0; r < rounds(); r++) {
        int err[MANY], done = 0;
        pthread_t t[MANY];
        pthread_barrier_init(&together, NULL, MANY);
        for (int i = 0; i < MANY; i++)
            CHECK(pthread_create(&t[i], NULL, start_together, &err[i]) == 0);
        for (int i = 0; i < MANY; i++) {
            pthread_join(t[i], NULL);
            CHECK(err[i] == 0 || err[i] == -EALREADY, "%d", err[i]);
            done += err[i] == 0;
        }
        CHECK(done == 1, "%d", done);
        done = 0;
        for (int i = 0; i < MANY; i++)
            CHECK(pthread_create(&t[i], NULL, stop_together, &err[i]) == 0);
        for (int i = 0; i < MANY; i++) {
            pthread_join(t[i], NULL);
            CHECK(err[i] == 0 || err[i] == -ESRCH, "%d", err[i]);
            done += err[i] == 0;
        }
        CHECK(done == 1, "%d", done);
        pthread_barrier_destroy(&together);
    }
}

static void main_fn(void *arg) { (void)arg, work(5); }
static void *runs(void *arg)
{
    *(int *)arg = weft_run(main_fn, NULL, NULL);
    return NULL;
}

/* weft_run on a small thread that is not the process's first, one life after the other, with the first thread attached to some of them. */
static void run_anywhere(void)
{
    for (int i = 0; i < rounds(); i++) {
        int err = 1;
        pthread_t t;
        pthread_attr_t attr;
        pthread_attr_init(&attr);
        pthread_attr_setstacksize(&attr, 128 << 10);
        CHECK(pthread_create(&t, &attr, runs, &err) == 0);
        CHECK(pthread_join(t, NULL) == 0);
        OK(err);
        if (i % 3 == 0) {
            OK(weft_start(NULL));
            work(3);
            OK(weft_stop());
        }
    }
}

int main(int argc, char **argv)
{
    static const struct host_case cases[] = { { "other_threads", other_threads }, { "at_once", at_once }, { "run_anywhere", run_anywhere } };
    return host_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
