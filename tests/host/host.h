/* What the hosts of tests/host have in common. Each is a program of its own, linked with the library as a user would link it; its first argument
 * says which of its cases to run. It ends with "ok" and 0, or with a line that names what did not hold. tests/host_programs.c runs them all. */
#ifndef TEST_HOST_H
#define TEST_HOST_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <weft.h>

#define CHECK(c, ...) ((c) ? (void)0 : (fprintf(stderr, "%s:%d: %s", __FILE__, __LINE__, #c), fprintf(stderr, " " __VA_ARGS__), fputc('\n', stderr), _exit(1)))
#define OK(call) do { int err_ = (call); CHECK(err_ == 0, "%d: %s", err_, weft_strerror(err_)); } while (0)

/* A sanitizer has wants of its own, which it does not get in the cases that ask. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* Waits, giving way, until cond holds, at most ten seconds. */
#define UNTIL(cond) do { \
    int64_t end_ = weft_now() + 10 * WEFT_SECOND; \
    for (;;) { /* the clock first: time that passes after the condition was looked at says nothing */ \
        bool late_ = weft_now() >= end_; \
        if (cond) \
            break; \
        CHECK(!late_, "not within 10 s"); \
        if (weft_fiber_id() != 0) \
            weft_sleep(100 * WEFT_MICROSECOND); \
        else \
            usleep(100); \
    } \
} while (0)

#define GET(v) __atomic_load_n(&(v), __ATOMIC_ACQUIRE)
#define SET(v, to) __atomic_store_n(&(v), to, __ATOMIC_RELEASE)
#define ADD(v, n) __atomic_add_fetch(&(v), n, __ATOMIC_ACQ_REL)

/* The child has ended, and so. */
__attribute__((unused)) static void expect_status(pid_t pid, int want)
{
    int status = 0;
    CHECK(pid > 0);
    while (waitpid(pid, &status, 0) < 0)
        CHECK(errno == EINTR);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == want, "status 0x%x", (unsigned)status);
}

/* Runs fn(arg) in a child, for at most twenty seconds: its status. What it wrote to stderr is in said. */
__attribute__((unused)) static char said[4096];
__attribute__((unused)) static int in_child(void (*fn)(long), long arg)
{
    int p[2];
    fflush(NULL);
    CHECK(pipe(p) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(20);
        dup2(p[1], 2);
        close(p[0]);
        close(p[1]);
        fn(arg);
        _exit(0);
    }
    close(p[1]);
    size_t len = 0;
    ssize_t n;
    while ((n = read(p[0], said + len, sizeof said - 1 - len)) > 0)
        len += (size_t)n;
    said[len] = 0;
    close(p[0]);
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

/* ---- work for the heap ------------------------------------------------------------------------------------ */

struct node { struct node *next; size_t number; };

__attribute__((unused)) static struct node *list_make(size_t n)
{
    struct node *list = NULL;
    for (size_t i = 0; i < n; i++) {
        struct node *p = (struct node *)weft_alloc(sizeof *p);
        CHECK(p != NULL);
        p->next = list;
        p->number = i;
        list = p;
    }
    return list;
}

__attribute__((unused)) static void list_check(struct node *list, size_t n)
{
    for (; list != NULL; list = list->next)
        CHECK(list->number == --n);
    CHECK(n == 0);
}

/* Garbage, objects that stay, a collection, fibers that do the same and answer. */
__attribute__((unused)) static void work_fiber(void *arg)
{
    struct node *list = list_make(500);
    weft_yield();
    list_check(list, 500);
    long n = 500;
    weft_chan_send((weft_chan *)arg, &n);
}

__attribute__((unused)) static void work(int fibers)
{
    struct node *list = list_make(2000);
    weft_chan *c = weft_chan_make(sizeof(long), 0);
    CHECK(c != NULL);
    for (int i = 0; i < fibers; i++)
        OK(weft_go(work_fiber, c));
    weft_gc();
    long sum = 0, n;
    for (int i = 0; i < fibers; i++) {
        CHECK(weft_chan_recv(c, &n) == 1);
        sum += n;
    }
    CHECK(sum == 500L * fibers);
    weft_sleep(WEFT_MILLISECOND);
    weft_gc();
    list_check(list, 2000);
}

/* ---- cases ---------------------------------------------------------------------------------------------------- */

struct host_case { const char *name; void (*run)(void); };

/* Runs the case that the command line names. */
__attribute__((unused)) static int host_main(int argc, char **argv, const struct host_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (argc > 1 && strcmp(argv[1], cases[i].name) == 0) {
            cases[i].run();
            puts("ok");
            return 0;
        }
    fprintf(stderr, "%s: which case?\n", argv[0]);
    return 2;
}

#endif
