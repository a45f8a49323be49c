/* Ends a test that hangs, by SIGALRM, after TEST_CASE_TIMEOUT seconds (60), which Criterion shows as a crash. Its own --timeout does not reach
 * tests without a timeout of their own; and a longer one of their own is told here by test_may_take. The Makefile links this file into every test
 * (-u test_limit). */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

void test_limit(void);
void test_may_take(unsigned seconds); /* test.h */

static void say_and_end(int sig)
{
    static const char text[] = "test: time is over (TEST_CASE_TIMEOUT)\n";
    ssize_t n = write(2, text, sizeof text - 1);
    (void)n;
    raise(sig); /* SA_RESETHAND: ends the process */
}

static unsigned limit(void)
{
    const char *s = getenv("TEST_CASE_TIMEOUT");
    return s != NULL ? (unsigned)atoi(s) : 60;
}

void test_may_take(unsigned seconds) { alarm(seconds > limit() ? seconds : limit()); }

__attribute__((constructor)) void test_limit(void)
{
    if (getenv("BXFI_MAP") == NULL)
        return; /* the runner, not a test */
    struct sigaction sa = { .sa_handler = say_and_end, .sa_flags = SA_RESETHAND | SA_ONSTACK };
    sigaction(SIGALRM, &sa, NULL);
    alarm(limit());
}
