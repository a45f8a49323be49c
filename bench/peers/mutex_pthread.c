/* The question of ../mutex.c to glibc: pthread_mutex_t, and a thread for each fiber. The process has had a
 * second thread before, so that glibc's way around atomics in single-threaded programs is not what is measured. */
#include "../bench.h"
#include <pthread.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static volatile int64_t counter;

static void alone(long n)
{
    for (long i = 0; i < n; i++) {
        pthread_mutex_lock(&mutex);
        counter = counter + 1;
        pthread_mutex_unlock(&mutex);
    }
}

static void *contender(void *arg)
{
    uint64_t x = (uintptr_t)arg;
    for (long n = *(long *)arg; n > 0; n--) {
        pthread_mutex_lock(&mutex);
        counter = counter + 1;
        pthread_mutex_unlock(&mutex);
        for (int k = 0; k < 20; k++)
            bench_random(&x);
        bench_use((void *)x);
    }
    return NULL;
}

static void run_all(long threads, long n)
{
    pthread_t t[64];
    if (threads == 1) {
        alone(n);
        return;
    }
    for (long i = 0; i < threads; i++)
        if (pthread_create(&t[i], NULL, contender, &n) != 0)
            abort();
    for (long i = 0; i < threads; i++)
        pthread_join(t[i], NULL);
}

static void *sleeper(void *arg) { pause(); return arg; }

int main(int argc, char **argv)
{
    long threads = bench_arg(argc, argv, 1, 1);
    long locks = bench_arg(argc, argv, 2, threads == 1 ? 50000000 : 4000000 / threads);
    pthread_t t;
    if (threads > 64 || pthread_create(&t, NULL, sleeper, NULL) != 0)
        return 1;
    run_all(threads, locks / 10);
    bench_span s = bench_begin();
    run_all(threads, locks);
    bench_report("mutex", "pthread", (double)locks * (double)threads, bench_end(s));
    return 0;
}
