/* The question of ../chan_unbuf.c to State Threads, which has no channel: a slot with two condition variables,
 * a send that waits until its item is taken. One thread, so no lock is needed. */
#include "../bench.h"
#include <st.h>

typedef struct slot { int64_t value; int full; st_cond_t filled, emptied; } slot;

static slot there, back;

static void slot_send(slot *s, int64_t v)
{
    while (s->full)
        st_cond_wait(s->emptied);
    s->value = v;
    s->full = 1;
    st_cond_signal(s->filled);
    while (s->full)
        st_cond_wait(s->emptied);
}

static int64_t slot_recv(slot *s)
{
    while (!s->full)
        st_cond_wait(s->filled);
    s->full = 0;
    st_cond_signal(s->emptied);
    return s->value;
}

static void *echo(void *arg)
{
    (void)arg;
    for (;;)
        slot_send(&back, slot_recv(&there));
    return NULL;
}

static void ask(long n)
{
    for (int64_t i = 0; i < n; i++) {
        slot_send(&there, i);
        if (slot_recv(&back) != i)
            abort();
    }
}

int main(int argc, char **argv)
{
    long trips = bench_arg(argc, argv, 1, 2000000);
    if (st_init() != 0)
        return 1;
    slot *slots[] = { &there, &back };
    for (int i = 0; i < 2; i++) {
        slots[i]->filled = st_cond_new();
        slots[i]->emptied = st_cond_new();
    }
    st_thread_create(echo, NULL, 0, 0);
    ask(trips / 10);
    bench_span t = bench_begin();
    ask(trips);
    bench_report("chan_unbuf", "st", (double)trips, bench_end(t));
    return 0;
}
