/* Profiles of a program's own: things are added by who adds them, and taken out again. */
#include "prof_test.h"
#include <errno.h>
#include <pthread.h>
#include "base/rng.h"
#include "prof/walk.h"

static weft_profile *files;

static void make(void) { cr_assert_eq(weft_profile_new("files", &files), 0); }

static char things[100000];

NOINLINE static void open_file(int i, int skip)
{
    cr_assert_eq(weft_profile_add(files, &things[i], skip), 0);
    NO_TAIL_CALL();
}
NOINLINE static void server(int i, int skip) { open_file(i, skip); NO_TAIL_CALL(); }
NOINLINE static void client(int i, int skip) { open_file(i, skip); NO_TAIL_CALL(); }

static void by_caller(void *arg)
{
    (void)arg;
    make();
    for (volatile int i = 0; i < 3; i++) /* one call: not unrolled */
        server(i, 0);
    client(3, 0);
    cr_expect_eq(weft_profile_count(files), 4);
    struct pp *p = prof_read(files);
    cr_assert_eq(p->types, 1);
    cr_expect_str_eq(p->type[0].type, "files");
    cr_expect_str_eq(p->type[0].unit, "count");
    cr_expect_str_eq(p->period_type.type, "files");
    cr_expect_eq(p->period, 1);
    cr_expect_eq(p->samples, 2);
    cr_expect_eq(prof_sum(p, "open_file;server;by_caller").value[0], 3);
    cr_expect_eq(prof_sum(p, "open_file;client;by_caller").value[0], 1);
    cr_expect_eq(p->sample[0].value[0], 3); /* the highest first */
    cr_expect_eq(weft_profile_remove(files, &things[0]), 0);
    cr_expect_eq(weft_profile_remove(files, &things[0]), 0);
    cr_expect_eq(weft_profile_remove(files, &things[1]), 0);
    cr_expect_eq(weft_profile_remove(files, &things[2]), 0);
    cr_expect_eq(weft_profile_count(files), 1);
    p = prof_read(files);
    cr_expect_eq(p->samples, 1); /* nothing of who has nothing left */
    cr_expect_eq(prof_sum(p, "open_file;client;by_caller").value[0], 1);
}

Test(prof_custom, by_caller) { test_run(by_caller, NULL); }

static void skips(void *arg)
{
    (void)arg;
    make();
    server(0, 1);
    client(1, 2);
    client(2, 1000);
    struct pp *p = prof_read(files);
    cr_expect_eq(prof_sum(p, "server;skips").value[0], 1);
    cr_expect_eq(prof_sum(p, "skips").value[0], 1);
    cr_expect_eq(prof_sum(p, "runtime.lostSamples").value[0], 1);
    cr_expect_eq(p->samples, 3);
}

Test(prof_custom, skips) { test_run(skips, NULL); }

static void refused(void *arg)
{
    weft_profile *other = NULL;
    (void)arg;
    make();
    cr_expect_eq(weft_profile_add(files, &things[0], 0), 0);
    cr_expect_eq(weft_profile_add(files, &things[0], 0), -EEXIST);
    cr_expect_eq(weft_profile_count(files), 1);
    cr_expect_eq(weft_profile_add(files, &things[1], -1), -EINVAL);
    cr_expect_eq(weft_profile_add(NULL, &things[1], 0), -EINVAL);
    cr_expect_eq(weft_profile_remove(NULL, &things[1]), -EINVAL);
    cr_expect_eq(weft_profile_count(NULL), -EINVAL);
    cr_expect_eq(weft_profile_add(weft_profile_lookup("block"), &things[1], 0), -EPERM);
    cr_expect_eq(weft_profile_remove(weft_profile_lookup("mutex"), &things[1]), -EPERM);
    cr_expect_eq(weft_profile_new("files", &other), -EEXIST);
    cr_expect_eq(weft_profile_new("block", &other), -EEXIST);
    cr_expect_eq(weft_profile_new("", &other), -EINVAL);
    cr_expect_eq(weft_profile_new(NULL, &other), -EINVAL);
    cr_expect_eq(weft_profile_new("sockets", NULL), -EINVAL);
    cr_expect_null(other);
    weft_profile_delta *d;
    cr_expect_eq(weft_profile_delta_begin(files, &d), -ENOTSUP);
}

Test(prof_custom, refused) { test_run(refused, NULL); }

/* Go's form, byte by byte but for addresses. */
NOINLINE static void a_function_with_a_rather_long_name(int i) { open_file(i, 0); NO_TAIL_CALL(); }

static void as_text(void *arg)
{
    (void)arg;
    make();
    for (volatile int i = 0; i < 2; i++)
        a_function_with_a_rather_long_name(i);
    const char *text = prof_text(files);
    unsigned long pc[3], line[3], off[2];
    int end = 0;
    int n = sscanf(text, "files profile: total 2\n2 @ 0x%lx 0x%lx 0x%lx\n#\t0x%lx\topen_file+0x%lx\t\t\t\t%*s\n#\t0x%lx\t"
                         "a_function_with_a_rather_long_name+0x%lx\t%n", &pc[0], &pc[1], &pc[2], &line[0], &off[0], &line[1], &off[1], &end);
    cr_assert(n == 7 && end > 0, "%d\n%s", n, text);
    for (int i = 0; i < 2; i++) {
        cr_expect_eq(line[i], pc[i] - 1);
        cr_expect_lt(off[i], 65536, "%s", text);
    }
    cr_expect_not_null(strstr(text, "/tests/prof_custom.c:"));
    /* Cells go up to a multiple of eight: all lines of a record have their last column at the same place. */
    int at[3] = { 0 }, k = 0;
    for (const char *s = strstr(text, "\n#") + 1; k < 3; s = strchr(s, '\n') + 1, k++) {
        const char *last = s;
        for (const char *c = s; *c != '\n'; c++)
            last = *c == '\t' ? c : last;
        for (const char *c = s; c <= last; c++)
            at[k] = *c == '\t' ? (at[k] + 8) & ~7 : at[k] + 1;
    }
    cr_expect(at[0] == at[1] && at[1] == at[2], "%d %d %d", at[0], at[1], at[2]);
    cr_expect_str_eq(text + strlen(text) - 2, "\n\n"); /* a blank line behind each record */
    cr_expect_str_eq((const char *)prof_write(files, 2).bytes, text);
    cr_expect_eq(memcmp(prof_write(files, -1).bytes, "\x1f\x8b", 2), 0);
}

Test(prof_custom, as_text) { test_run(as_text, NULL); }

/* At most 32 frames, the innermost ones. */
NOINLINE static void deep(int n)
{
    if (n > 0)
        deep(n - 1);
    else
        cr_assert_eq(weft_profile_add(files, &things[0], 0), 0);
    NO_TAIL_CALL();
}

static void depth(void *arg)
{
    (void)arg;
    make();
    deep(50);
    struct pp *p = prof_read(files);
    cr_assert_eq(p->samples, 1);
    cr_expect_eq(p->sample[0].locations, 32);
    cr_expect_eq(strncmp(pp_text(&p->sample[0]), "deep;deep;", 10), 0);
    cr_expect_null(strstr(pp_text(&p->sample[0]), "depth"));
}

Test(prof_custom, depth) { test_run(depth, NULL); }

/* Random, against a plain table of who is in. */
static void as_the_model(void *arg)
{
    static bool in[2000];
    struct rng r;
    int64_t n = 0;
    (void)arg;
    rng_seed(&r, test_seed());
    make();
    for (int i = 0; i < 200000; i++) {
        uint32_t k = rng_below(&r, w_countof(in)), most = i / 50000 % 2 == 0 ? 3 : 1; /* mostly full, mostly empty */
        if (rng_below(&r, 4) < most) {
            cr_assert_eq(weft_profile_add(files, &things[k * 16], 0), in[k] ? -EEXIST : 0);
            n += !in[k];
            in[k] = true;
        } else {
            cr_assert_eq(weft_profile_remove(files, &things[k * 16]), 0);
            n -= in[k];
            in[k] = false;
        }
        if (i % 1000 == 0)
            cr_assert_eq(weft_profile_count(files), n);
    }
    struct pp *p = prof_read(files);
    cr_expect_eq(p->samples, n > 0);
    cr_expect_eq(prof_sum(p, "as_the_model").value[0], n);
}

Test(prof_custom, as_the_model) { test_run(as_the_model, NULL); }

/* Fibers and threads of the host at once, and somebody who writes it meanwhile: never more than there are. */
static weft_waitgroup done;
static bool over;

NOINLINE static void busy(void *arg)
{
    int base = (int)(intptr_t)arg * 1000;
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 500; i++)
            server(base + i, 0);
        weft_yield();
        for (int i = 0; i < 500; i++)
            weft_profile_remove(files, &things[base + i]);
    }
    for (int i = 0; i < 100; i++)
        client(base + i, 0);
}

static void *busy_thread(void *arg) { return busy(arg), NULL; }

static void writer(void *arg)
{
    (void)arg;
    while (!__atomic_load_n(&over, __ATOMIC_ACQUIRE)) {
        struct pp *p = prof_read(files);
        int64_t n = prof_sum(p, "open_file;server;busy").value[0];
        cr_expect(n >= 0 && n <= 12 * 500, "%ld", (long)n);
        weft_yield();
    }
}

static void all_at_once(void *arg)
{
    pthread_t t[4];
    (void)arg;
    make();
    weft_waitgroup writers = { 0 };
    weft_waitgroup_go(&writers, writer, NULL);
    for (intptr_t i = 0; i < 8; i++)
        weft_waitgroup_go(&done, busy, (void *)i);
    for (intptr_t i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, busy_thread, (void *)(8 + i)), 0);
    weft_waitgroup_wait(&done);
    weft_blocking_begin();
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    weft_blocking_end();
    __atomic_store_n(&over, true, __ATOMIC_RELEASE);
    weft_waitgroup_wait(&writers);
    cr_expect_eq(weft_profile_count(files), 1200);
    struct pp *p = prof_read(files);
    cr_expect_eq(prof_sum(p, "open_file;client;busy").value[0], 1200);
    cr_expect_eq(prof_sum(p, "open_file;server;busy").samples, 0);
}

Test(prof_custom, all_at_once) { test_run_procs(4, all_at_once, NULL); }

/* It outlives the runtime, and goes on in the next life. */
static void first_life(void *arg)
{
    (void)arg;
    server(0, 0);
    server(1, 0);
    NO_TAIL_CALL();
}

static void second_life(void *arg)
{
    (void)arg;
    client(2, 0);
    struct pp *p = prof_read(files);
    cr_expect_eq(prof_sum(p, "open_file;server;first_life").value[0], 1);
    cr_expect_eq(prof_sum(p, "open_file;client;second_life").value[0], 1);
}

Test(prof_custom, over_the_end_of_the_runtime)
{
    make();
    cr_expect_eq(weft_profile_add(files, &things[0], 0), -ESRCH);
    test_run(first_life, NULL);
    cr_expect_eq(weft_profile_count(files), 2);
    cr_expect_eq(weft_profile_add(files, &things[2], 0), -ESRCH);
    cr_expect_eq(weft_profile_write(files, sink_write, &(struct sink){ 0 }, 0), -ESRCH);
    cr_expect_eq(weft_profile_remove(files, &things[0]), 0);
    cr_expect_eq(weft_profile_count(files), 1);
    test_run(second_life, NULL);
}
