/* A program with the library inside that loads it once more: of the two copies one runs at a time, the other says why it does not, and neither
 * calls into the other. */
#include "host.h"
#include <dlfcn.h>

static int lines;
static void count_lines(void *arg, const char *line)
{
    (void)arg;
    lines += strstr(line, "another copy") != NULL;
}

/* The other copy's. */
static __typeof__(weft_start) *start2;
static __typeof__(weft_stop) *stop2;
static __typeof__(weft_running) *running2;
static __typeof__(weft_alloc) *alloc2;
static __typeof__(weft_gc) *gc2;
static __typeof__(weft_go) *go2;
static __typeof__(weft_yield) *yield2;

static int ran;
static void fiber2(void *arg)
{
    for (int i = 0; i < 100; i++) {
        void **p = alloc2(64);
        CHECK(p != NULL && p[0] == NULL);
        p[0] = arg;
        yield2();
    }
    gc2();
    ADD(ran, 1);
}

static void two_copies(void)
{
    if (getenv("GLIBC_TUNABLES") == NULL) { /* weft/base.h */
        setenv("GLIBC_TUNABLES", "glibc.rtld.optional_static_tls=4096", 1);
        execl("/proc/self/exe", "twice", "two_copies", (char *)NULL);
    }
    void *so = dlopen(TEST_BUILD "/libweft.so", RTLD_NOW | RTLD_LOCAL);
    CHECK(so != NULL, "%s", dlerror());
    start2 = (__typeof__(start2))dlsym(so, "weft_start");
    stop2 = (__typeof__(stop2))dlsym(so, "weft_stop");
    running2 = (__typeof__(running2))dlsym(so, "weft_running");
    alloc2 = (__typeof__(alloc2))dlsym(so, "weft_alloc");
    gc2 = (__typeof__(gc2))dlsym(so, "weft_gc");
    go2 = (__typeof__(go2))dlsym(so, "weft_go");
    yield2 = (__typeof__(yield2))dlsym(so, "weft_yield");
    CHECK(start2 != weft_start && stop2 != NULL && running2 != NULL && alloc2 != NULL && gc2 != NULL && go2 != NULL && yield2 != NULL);
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.log = count_lines;
    for (int i = 0; i < 3; i++) {
        OK(weft_start(&cfg));
        CHECK(!running2());
        CHECK(start2(&cfg) == -EALREADY && lines == 2 * i + 1);
        work(10);
        OK(weft_stop());
        OK(start2(&cfg));
        CHECK(running2() && !weft_running());
        CHECK(weft_start(&cfg) == -EALREADY && lines == 2 * i + 2);
        SET(ran, 0);
        for (int k = 0; k < 10; k++)
            OK(go2(fiber2, NULL));
        while (GET(ran) < 10)
            usleep(100);
        OK(stop2());
    }
}

int main(int argc, char **argv)
{
    static const struct host_case cases[] = { { "two_copies", two_copies } };
    return host_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
