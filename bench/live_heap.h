/* live_heap.h - the graph of live_heap.c and what is done to it, the same for weft and its peers in C. Who includes it says how a node is made.
 *
 * Half a gigabyte of nodes of 32 to 256 bytes, mixed, which are pointers but for one word. A quarter are hubs: all of their links lead to other hubs,
 * drawn at random, and they stay. Each has a chain of three more nodes, in the order of a stride through the hubs, whose links lead to hubs too;
 * these come and go, and as only their hub leads to them what is live stays the same.
 *
 * An operation takes a hub, follows four links from it, makes a node with links as those of the hub where that ends, puts it in front of the first
 * hub's chain, cuts the chain behind the third, and sends one of the first hub's links elsewhere. On the way it makes three more nodes, which it uses
 * and drops. So it reads some eight nodes, allocates four, and writes to two old ones: the hub, the end of the chain.
 *
 * Which hub: of 100 operations, `hot` draw theirs from a 64th of the hubs, a window that moves on by half its length with each 65536 operations;
 * the others from all. Programs have such a locality, more or less; hot = 0 is the worst there is. Each of two mutators takes hubs of its own, so
 * that they need no lock; both read all. They let others run after each sixteen operations. */
#ifndef LIVE_HEAP_H
#define LIVE_HEAP_H

#include "bench.h"

#define LIVE_CHAIN 3
#define LIVE_STEPS 4
#define LIVE_DROPPED 3
#define LIVE_TURN 16
#define LIVE_MUTATORS 2
#define LIVE_MEAN 122 /* bytes of a node */

typedef struct live_node {
    uint64_t links;
    struct live_node *next;
    struct live_node *link[];
} live_node;

static live_node *live_alloc(size_t bytes); /* zeroed */

static struct {
    live_node **hub; /* allocated by who includes this, from where live_hubs says how many; never written after the build */
    uint64_t n, hot;
    int over;        /* atomic */
    struct { uint64_t ops, sum; char pad[48]; } done[LIVE_MUTATORS];
} live;

static inline uint64_t live_hubs(long mb) { return ((uint64_t)mb * 1000000 / (LIVE_MEAN * (LIVE_CHAIN + 1) + 8)) & ~UINT64_C(1); }

static inline live_node *live_make(uint64_t random)
{
    static const uint16_t sizes[8] = { 32, 48, 64, 96, 128, 160, 192, 256 };
    size_t bytes = sizes[random & 7];
    live_node *n = live_alloc(bytes);
    if (!n)
        abort();
    n->links = bytes / 8 - 2;
    return n;
}

/* In front of the chain of hub h, with links as those of `as`. */
static inline void live_push(live_node *h, const live_node *as, uint64_t random)
{
    live_node *c = live_make(random);
    for (uint64_t i = 0, j = 0; i < c->links; i++) {
        c->link[i] = as->link[j];
        if (++j == as->links)
            j = 0;
    }
    c->next = h->next;
    h->next = c;
}

/* live.hub and live.n are set. */
static void live_build(void)
{
    uint64_t seed = 88172645463325252u, n = live.n;
    for (uint64_t i = 0; i < n; i++)
        live.hub[i] = live_make(bench_random(&seed) >> 32);
    for (uint64_t i = 0; i < n; i++)
        for (uint64_t j = 0; j < live.hub[i]->links; j++)
            live.hub[i]->link[j] = live.hub[bench_random(&seed) % n];
    uint64_t stride = n / 8 * 5 | 1, a, b, t;
    for (;; stride += 2) { /* to one that comes to all */
        for (a = n, b = stride; b != 0; t = a % b, a = b, b = t)
            ;
        if (a == 1)
            break;
    }
    for (int round = 0; round < LIVE_CHAIN; round++)
        for (uint64_t i = 0, at = 0; i < n; i++, at = (at + stride) % n) {
            uint64_t r = bench_random(&seed);
            live_push(live.hub[at], live.hub[r % n], r >> 32);
        }
}

static inline uint64_t live_operation(unsigned who, uint64_t *seed, uint64_t op)
{
    uint64_t r = bench_random(seed), s = bench_random(seed), n = live.n, window = n / 64;
    uint64_t at = r % n;
    if ((r >> 40) % 100 < live.hot)
        at = ((op >> 16) * (window / 2) + r % window) % n;
    live_node *h = live.hub[(at & ~UINT64_C(1)) | who], *to = h, *dropped = NULL;
    for (unsigned k = 0; k < LIVE_STEPS; k++)
        to = to->link[(s >> 5 * k & 31) % to->links];
    if (to->links > 30)
        abort();
    for (unsigned k = 0; k < LIVE_DROPPED; k++) {
        live_node *d = live_make(s >> (50 + 3 * k));
        d->link[0] = to;
        d->next = dropped;
        dropped = d;
    }
    live_push(h, to, s >> 61);
    live_node *last = h;
    for (int i = 0; i < LIVE_CHAIN; i++)
        last = last->next;
    last->next = NULL;
    h->link[(s >> 40 & 255) % h->links] = live.hub[bench_random(seed) % n];
    return dropped->next->link[0]->links;
}

/* Operates until it is over; pause lets others run. */
static inline void live_mutate(unsigned who, void (*pause)(void))
{
    uint64_t seed = 1234567 + who, op = 0, sum = 0;
    do {
        for (int i = 0; i < LIVE_TURN; i++)
            sum += live_operation(who, &seed, op++);
        pause();
    } while (!__atomic_load_n(&live.over, __ATOMIC_RELAXED));
    live.done[who].ops = op;
    live.done[who].sum = sum;
}

/* ---- the ticker: each millisecond, and how late. A tick that comes when further ones are due already does not excuse them. ---- */

static int64_t *live_late;
static size_t live_ticks, live_room;

static inline void live_tick(void (*sleep_ns)(int64_t))
{
    int64_t due = bench_clock_ns(CLOCK_MONOTONIC);
    while (!__atomic_load_n(&live.over, __ATOMIC_RELAXED) && live_ticks < live_room) {
        due += 1000000;
        int64_t now = bench_clock_ns(CLOCK_MONOTONIC);
        if (now < due) {
            sleep_ns(due - now);
            now = bench_clock_ns(CLOCK_MONOTONIC);
        }
        live_late[live_ticks++] = now - due;
    }
}

static inline void live_ticker_init(long seconds)
{
    live_room = (size_t)seconds * 1000 + 5000;
    live_late = malloc(live_room * sizeof *live_late);
    if (!live_late)
        abort();
    memset(live_late, 0, live_room * sizeof *live_late); /* resident now, not while it runs */
}

/* ---- the line ---- */

struct live_stops { double count, p50_ns, p99_ns, max_ns; };

static inline struct live_stops live_stops_of(int64_t *ns, size_t n)
{
    struct live_stops s = { (double)n, 0, 0, 0 };
    if (n == 0)
        return s;
    qsort(ns, n, sizeof *ns, bench_compare_i64);
    s.p50_ns = (double)ns[(n - 1) / 2];
    s.p99_ns = (double)ns[(n - 1) * 99 / 100];
    s.max_ns = (double)ns[n - 1];
    return s;
}

static inline void live_report(const char *impl, bench_span t, const struct live_stops *s, uint64_t cycles)
{
    double ops = 0;
    for (int i = 0; i < LIVE_MUTATORS; i++)
        ops += (double)live.done[i].ops;
    bench_open("live_heap", impl);
    if (ops > 0) {
        bench_num("ns_per_op", (double)t.wall_ns / ops);
        bench_num("ops_per_s", ops * 1e9 / (double)t.wall_ns);
        bench_num("cpu_ns_per_op", (double)t.cpu_ns / ops);
    }
    bench_num("stops", s->count);
    bench_num("stop_p50_ns", s->p50_ns);
    bench_num("stop_p99_ns", s->p99_ns);
    bench_num("stop_max_ns", s->max_ns);
    size_t n = live_ticks;
    qsort(live_late, n, sizeof *live_late, bench_compare_i64);
    bench_num("late_p50_ns", (double)live_late[(n - 1) / 2]);
    bench_num("late_p99_ns", (double)live_late[(n - 1) * 99 / 100]);
    bench_num("late_p999_ns", (double)live_late[(n - 1) * 999 / 1000]);
    bench_num("late_max_ns", (double)live_late[n - 1]);
    bench_num("cycles", (double)cycles);
    bench_num("wall_s", (double)t.wall_ns / 1e9);
    bench_num("cpu_s", (double)t.cpu_ns / 1e9);
}

/* [MB] [seconds] [hot percent, or idle]. false: not understood. */
static inline int live_arguments(int argc, char **argv, long *mb, long *seconds, int *idle)
{
    *mb = bench_arg(argc, argv, 1, 500);
    *seconds = bench_arg(argc, argv, 2, 60);
    *idle = argc > 3 && strcmp(argv[3], "idle") == 0;
    live.hot = *idle ? 0 : (uint64_t)bench_arg(argc, argv, 3, 90);
    live.n = live_hubs(*mb);
    return *mb >= 1 && *seconds >= 1 && live.hot <= 100;
}

#endif
