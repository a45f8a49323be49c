/* A program that knows nothing of the library and loads it: uses it, lets go of it while it runs and after, and loads it again. It stays where it
 * is, so nothing of it dangles: the handlers of fork, the destructors of threads that called in. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <weft.h> /* types only */

#define CHECK(c) ((c) ? (void)0 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #c), _exit(1)))
#define CALL(name) ((__typeof__(name) *)must(#name))

static void *so;
static void *must(const char *name)
{
    void *p = dlsym(so, name);
    CHECK(p != NULL);
    return p;
}

/* It needs more static thread-local storage than libc keeps for those who come late: the loader says so, and the process must have been started
 * with more. */
static void start_with_room(void)
{
    if (getenv("GLIBC_TUNABLES") != NULL)
        return;
    void *late = dlopen(TEST_BUILD "/libweft.so", RTLD_NOW | RTLD_LOCAL);
    CHECK(late != NULL || strstr(dlerror(), "static TLS") != NULL);
    setenv("GLIBC_TUNABLES", "glibc.rtld.optional_static_tls=4096", 1);
    execl("/proc/self/exe", "loads", "by_dlopen", (char *)NULL);
    CHECK(0);
}

static void load(void)
{
    so = dlopen(TEST_BUILD "/libweft.so", RTLD_NOW | RTLD_LOCAL);
    if (so == NULL)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(so != NULL);
}

static __typeof__(weft_alloc) *alloc;
static void *calls_in(void *arg)
{
    for (int i = 0; i < 1000; i++)
        CHECK(alloc(100) != NULL);
    return arg;
}

static void *calls_and_waits(void *arg)
{
    calls_in(NULL);
    pthread_barrier_wait(arg);
    pthread_barrier_wait(arg); /* attached, and ends when the library has been let go of */
    return NULL;
}

int main(int argc, char **argv)
{
    CHECK(argc == 2 && strcmp(argv[1], "by_dlopen") == 0);
    start_with_room();
    pthread_barrier_t b;
    pthread_barrier_init(&b, NULL, 2);
    for (int i = 0; i < 5; i++) {
        load();
        alloc = CALL(weft_alloc);
        CHECK(CALL(weft_start)(NULL) == 0);
        pthread_t t, waits;
        CHECK(pthread_create(&t, NULL, calls_in, NULL) == 0 && pthread_create(&waits, NULL, calls_and_waits, &b) == 0);
        pthread_join(t, NULL);
        pthread_barrier_wait(&b);
        dlclose(so);
        calls_in(NULL);
        load();
        CHECK(CALL(weft_running)());
        CALL(weft_gc)();
        CHECK(CALL(weft_stop)() == 0);
        dlclose(so);
        pthread_barrier_wait(&b);
        pthread_join(waits, NULL);
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        CHECK(waitpid(pid, NULL, 0) == pid);
    }
    puts("ok");
    return 0;
}
