/* W05: memory that belongs to an object is in use when its finalizer runs; memory that was freed is written to. */
#include "doctor_test.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <weft/debug.h>
#include <weft/io.h>

#define STRESS "gcstress=50,gcpoison=1"
enum { BYTES = 200000, N = 8 };

struct packet { uint64_t number; char *bytes; };

static int given_back;
static void give_back(void *obj, void *ctx) { (void)obj, (void)ctx; __atomic_fetch_add(&given_back, 1, __ATOMIC_RELAXED); }
static void give_back_arg(void *arg) { (void)arg; __atomic_fetch_add(&given_back, 1, __ATOMIC_RELAXED); }

static struct { int end[2]; weft_fd *in, *out; } pipes[N];
static bool keep, by_cleanup, by_vector, in_heap;

NOINLINE static struct packet *packet_new(int i)
{
    struct packet *p = weft_alloc(sizeof *p);
    p->bytes = in_heap ? weft_alloc_noscan(BYTES) : malloc(BYTES);
    memset(p->bytes, i, BYTES);
    if (by_cleanup)
        weft_add_cleanup(p, give_back_arg, p->bytes, NULL);
    else
        weft_set_finalizer(p, give_back, NULL);
    return p;
}

NOINLINE static void send_bytes(int i, char *bytes)
{
    struct iovec iov[2] = { { bytes, BYTES / 2 }, { bytes + BYTES / 2, BYTES / 2 } };
    if (by_vector)
        weft_writev(pipes[i].in, iov, 2);
    else
        weft_write(pipes[i].in, bytes, BYTES);
    __asm__ volatile("");
}

/* In the frame of who sends there is nothing of the packet; a sanitizer's compiler would keep it there. */
NOINLINE static char *bytes_of_new(int i)
{
    char *bytes = packet_new(i)->bytes;
    __asm__ volatile("");
    return bytes;
}

NOINLINE static void send_one(void *arg)
{
    char *bytes = bytes_of_new((int)(intptr_t)arg);
    test_wipe_stack();
    send_bytes((int)(intptr_t)arg, bytes);
    __asm__ volatile("");
}

NOINLINE static void send_and_keep(void *arg)
{
    struct packet *p = packet_new((int)(intptr_t)arg);
    send_bytes((int)(intptr_t)arg, p->bytes);
    weft_keep_alive(p);
}

NOINLINE static void allocate_something(void)
{
    for (int i = 0; i < 400; i++)
        weft_alloc(24);
    test_wipe_stack();
}

static void senders(void *arg)
{
    static char got[BYTES];
    weft_waitgroup wg = { 0 };
    (void)arg;
    for (int i = 0; i < N; i++) {
        cr_assert_eq(pipe2(pipes[i].end, O_CLOEXEC), 0);
        cr_assert_eq(weft_fd_open(pipes[i].end[1], &pipes[i].in), 0);
        cr_assert_eq(weft_fd_open(pipes[i].end[0], &pipes[i].out), 0);
        weft_waitgroup_go(&wg, keep ? send_and_keep : send_one, (void *)(intptr_t)i);
    }
    for (int i = 0; i < 20; i++) {
        weft_yield();
        allocate_something();
    }
    for (int i = 0; i < N; i++)
        cr_assert_eq(weft_read_full(pipes[i].out, got, BYTES), BYTES);
    weft_waitgroup_wait(&wg);
    for (int i = 0; i < 20; i++) {
        weft_yield();
        allocate_something();
    }
    cr_assert_eq(weft_doctor_flush(), 0);
}

static void is_found(const char *what)
{
    const struct told *t = NULL;
    doctor_run(senders, NULL, NULL, STRESS);
    int n = told_of(WEFT_W05, &t);
    cr_assert_geq(n, 1, "of %d packets %d were given back early, and nothing was said", N, given_back);
    cr_expect_not_null(strstr(t->what, what), "no \"%s\" in: %s", what, t->what);
    cr_expect_not_null(strstr(t->stack, "allocate_something at doctor_w05.c:"), "who ran the collection: %s", t->stack);
    if (!by_cleanup) {
        cr_expect_not_null(strstr(t->made, "packet_new at doctor_w05.c:"), "who allocated it: %s", t->made);
        cr_expect_not_null(strstr(t->made, "send_one at doctor_w05.c:"), "%s", t->made);
    }
    cr_expect_not_null(strstr(t->cure, "weft_keep_alive"));
}

Test(doctor_w05, a_buffer_is_written_when_its_object_dies, .timeout = 60) { is_found("whose address the object has at offset 8"); }
Test(doctor_w05, by_vectors, .timeout = 60) { by_vector = true; is_found("still waits in a call that uses 100000 bytes"); }
Test(doctor_w05, of_a_cleanup, .timeout = 60) { by_cleanup = true; is_found("which it is called with"); }

Test(doctor_w05, sound_with_keep_alive, .timeout = 60)
{
    keep = true;
    doctor_run(senders, NULL, NULL, STRESS);
    cr_expect_eq(weft_doctor_count(WEFT_W05), 0);
    cr_expect_geq(given_back, N / 2, "%d: objects were collected in the end", given_back);
}

/* Whoever waits keeps it. */
Test(doctor_w05, sound_when_the_buffer_is_of_the_heap, .timeout = 60)
{
    in_heap = true;
    doctor_run(senders, NULL, NULL, STRESS);
    cr_expect_eq(weft_doctor_count(WEFT_W05), 0, "%s", said.at[0].what);
    cr_expect_gt(given_back, 0);
}

/* Without the mode nothing is looked at. */
Test(doctor_w05, not_without_stress, .timeout = 60)
{
    doctor_run(senders, NULL, NULL, "gcstress=20");
    cr_expect_eq(weft_doctor_count(WEFT_W05), 0);
}

/* ---- freed memory ---------------------------------------------------------------------------------------------------- */

enum { LATE = 64 };
static void *held[LATE];
static uintptr_t hidden[LATE];

NOINLINE static void *make_one(void)
{
    void *p = weft_alloc(96);
    __asm__ volatile("");
    return p;
}

#define PAGE(p) ((uintptr_t)(p) >> 13)

/* The first of each page of the heap is held for good, lest the page is used for another size. */
static bool is_kept(int i)
{
    for (int j = 0; j < i; j++)
        if (PAGE(~hidden[j]) == PAGE(~hidden[i]))
            return false;
    return true;
}

/* All are held till all are there, lest an allocation of one frees another. */
NOINLINE static void make_and_drop(void)
{
    for (int i = 0; i < LATE; i++) {
        held[i] = make_one();
        hidden[i] = ~(uintptr_t)held[i];
    }
    for (int i = 0; i < LATE; i++)
        if (!is_kept(i))
            held[i] = NULL;
}

static void writes_late(void *arg)
{
    (void)arg;
    make_and_drop();
    allocate_something();
    for (int i = 0; i < LATE; i++)
        if (held[i] == NULL)
            memcpy((char *)~hidden[i] + 40, "oops", 4);
    for (int i = 0; i < 4000; i++)
        weft_alloc(96);
}

static void late_program(void *arg)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    (void)arg;
    cfg.debug = STRESS;
    int err = weft_run(writes_late, NULL, &cfg);
    printf("not noticed: %d\n", err);
}

Test(doctor_w05, freed_memory_is_written_to, .timeout = 60)
{
    static struct test_output out;
    test_fork(&out, late_program, NULL);
    cr_expect_eq(out.term_signal, SIGABRT, "%s", out.text);
    cr_expect_not_null(strstr(out.text, "W05: memory of an object of 96 bytes was written to, at offset 40, after collection "), "%s", out.text);
    cr_expect_not_null(strstr(out.text, "make_one at doctor_w05.c:"), "who allocated it: %s", out.text);
    cr_expect_not_null(strstr(out.text, "allocate_something at doctor_w05.c:"), "who freed it: %s", out.text);
    cr_expect_not_null(strstr(out.text, "was written to after it was freed: word at offset 40"), "%s", out.text);
}
