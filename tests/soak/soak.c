/* soak [options] - see soak.h.
 *
 *   -s seconds   10           -r seed     by the clock
 *   -p procs     as weft_config.maxprocs; without it they change now and then
 *   -d keys      as WEFT_DEBUG, and stronger        -n objects   of each mutator, some 4000
 *   -g percent   as weft_config.gc_percent: few, for more collections
 *   -f           no forks              -k           weft_read only, no read(2) into objects
 *
 * 0: nothing was lost; 1: something was, and is described; 2: usage; 77: the runtime refuses a key, so there is nothing to run. */
#include "soak.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1 /* a sanitizer's malloc or locks do not come through a fork among threads */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

int soak_over;
static uint64_t seed;
static int64_t seconds = 10;
static uint32_t objects = 4000;
static bool forks = !SANITIZED, vary_procs = true;
static struct world worlds[WORLDS];
static uint64_t parcels, lost_fibers;

/* ---- parcels -------------------------------------------------------------------------------------------------------------------- */

struct parcel { uint64_t number; struct parcel *left, *right; void **leaf; };

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 31) * UINT64_C(0x7fb5d329728ea185);
    return x ^ x >> 29;
}

static struct parcel *parcel_new(uint64_t number, int depth)
{
    struct parcel *t = weft_alloc_typed(WEFT_TYPE(struct parcel, left, right, leaf));
    size_t bytes = 16 + number % 300;
    unsigned char *payload = weft_alloc_noscan(bytes);
    MUST(t != NULL && payload != NULL);
    t->number = number;
    memset(payload, (int)(mix(number) & 0xff), bytes);
    MUST((t->leaf = weft_alloc(24)) != NULL);
    t->leaf[number % 3] = payload + bytes / 2;
    payload = NULL;
    if (depth > 0) {
        t->left = parcel_new(mix(number), depth - 1);
        t->right = parcel_new(mix(number) + 1, depth - 1);
    }
    return t;
}

static void parcel_check(const struct parcel *t, uint64_t number, int depth, const char *where)
{
    MUST(weft_object_base(t) == t && t->number == number, "parcel 0x%llx, %s, is gone: 0x%llx, cycle %llu", (unsigned long long)number, where,
        (unsigned long long)t->number, (unsigned long long)soak_cycles());
    const unsigned char *inner = t->leaf[number % 3];
    size_t bytes = 16 + number % 300;
    MUST(inner != NULL, "parcel 0x%llx, %s: its leaf is empty", (unsigned long long)number, where);
    for (size_t i = 0; i < bytes; i += 7)
        MUST(*(inner - bytes / 2 + i) == (mix(number) & 0xff), "payload of parcel 0x%llx, %s", (unsigned long long)number, where);
    MUST((depth > 0) == (t->left != NULL), "parcel 0x%llx, %s: its child", (unsigned long long)number, where);
    if (depth > 0) {
        parcel_check(t->left, mix(number), depth - 1, where);
        parcel_check(t->right, mix(number) + 1, depth - 1, where);
    }
}

#define DEPTH(number) ((int)((number) % 5))
static struct parcel *some_parcel(struct world *w)
{
    uint64_t number = rng_next(&w->rng);
    ADD(parcels, 1);
    return parcel_new(number, DEPTH(number));
}

static void parcel_ok(const struct parcel *t, const char *where) { parcel_check(t, t->number, DEPTH(t->number), where); }

static weft_chan *belt[4], *gate; /* between mutators; closed in the end */

/* Fibers that are started with one, which nothing else leads to, and some that make one and hold it on their stack. */
static void begin_and_end(void *arg) { parcel_ok(arg, "argument of a fiber"); }

static void wait_a_little(void *arg)
{
    weft_yield();
    parcel_ok(arg, "argument of a fiber that yielded");
    weft_sleep((int64_t)(((struct parcel *)arg)->number >> 40) % 20 * WEFT_MILLISECOND);
    parcel_ok(arg, "argument of a fiber that slept");
    weft_exit();
}

static struct parcel *own_parcel(void)
{
    uint64_t number = mix(weft_fiber_id());
    ADD(parcels, 1);
    return parcel_new(number, DEPTH(number));
}

static void hold_on_stack(void *none)
{
    (void)none;
    struct parcel *volatile mine = own_parcel();
    weft_sleep((int64_t)(mine->number >> 40) % 20 * WEFT_MILLISECOND);
    parcel_ok(mine, "stack of a fiber that slept");
    weft_yield();
    parcel_ok(mine, "stack of a fiber that yielded");
}

static void hold_to_the_end(void *none)
{
    (void)none;
    struct parcel *volatile mine = own_parcel();
    weft_chan_recv(gate, NULL);
    parcel_ok(mine, "stack of a fiber that waited all the time");
}

static void deferred(void *arg) { parcel_ok(arg, "argument of a deferred call"); }
static __attribute__((noinline)) void defer_own(void) { MUST(weft_defer(deferred, own_parcel()) == 0); }

static void defer(void *none)
{
    (void)none;
    defer_own();
    wipe_stack();
    weft_sleep(10 * WEFT_MILLISECOND);
}

static void leak(void *arg)
{
    weft_chan *never = weft_chan_make(0, 0);
    weft_chan_recv(never, NULL);
    parcel_ok(arg, "argument of a fiber that is lost");
}

static void send_parcel(struct world *w)
{
    static weft_fn *const fns[] = { begin_and_end, wait_a_little, begin_and_end, defer, hold_on_stack, hold_on_stack, hold_to_the_end, leak };
    uint32_t way = rng_below(&w->rng, 16);
    struct parcel *t = some_parcel(w);
    if (way < 8) {
        weft_fn *fn = fns[way];
        if ((fn == leak || fn == hold_to_the_end) && ADD(lost_fibers, 1) > 300)
            fn = begin_and_end;
        MUST(weft_go(fn, t) == 0);
    } else if (!w->child) /* there, nobody holds what others have taken */
        weft_chan_try_send(belt[way % 4], &t);
    t = NULL;
    if (!w->child && weft_chan_try_recv(belt[rng_below(&w->rng, 4)], &t) == 1)
        parcel_ok(t, "from another mutator");
}

/* ---- walking ---------------------------------------------------------------------------------------------------------------------- */

static bool filled_slot(struct world *w, int32_t i, uint32_t *slot)
{
    struct node *n = &w->node[i];
    for (int tries = 0; n->slots != 0 && tries < 6; tries++) {
        *slot = rng_below(&w->rng, n->slots);
        if (n->edge[*slot].to >= 0)
            return true;
    }
    return false;
}

/* Some object that can be reached, by pointers that are compared on the way. NULL: there is none. */
static void *walk(struct world *w, int32_t *i)
{
    struct root *r = &w->root[rng_below(&w->rng, ROOTS)];
    for (int tries = 0; r->e.to < 0 && tries < 2 * ROOTS; tries++)
        r = &w->root[rng_below(&w->rng, ROOTS)];
    if (r->e.to < 0)
        return NULL;
    struct edge e = r->e;
    char *p = root_look(w, r);
    for (uint32_t steps = rng_below(&w->rng, 16), slot;; steps--) {
        p -= e.off;
        *i = e.to;
        if (*(uint64_t *)(void *)p != w->node[*i].id)
            soak_differs(w, *i, "the first word", 0, *(uint64_t *)(void *)p, w->node[*i].id);
        if (steps == 0 || !filled_slot(w, *i, &slot))
            return p;
        p = node_load(w, *i, slot, &e);
    }
}

/* An object that may be written to, and one of its slots, mostly an empty one: else more is lost than made. */
static void *writable(struct world *w, int32_t *i, uint32_t *slot)
{
    for (int tries = 0; tries < 8; tries++) {
        void *p = walk(w, i);
        struct node *n = &w->node[*i];
        if (p != NULL && n->slots != 0 && (n->flags & FROZEN) == 0) {
            bool any = rng_below(&w->rng, 8) == 0;
            for (int at = 0; at < 6; at++) {
                *slot = rng_below(&w->rng, n->slots);
                if (any || n->edge[*slot].to < 0)
                    return p;
            }
        }
    }
    return NULL;
}

static struct edge edge_to(struct world *w, int32_t i)
{
    uint32_t bytes = 8 * w->node[i].words;
    return (struct edge){ i, rng_below(&w->rng, 3) != 0 ? 0 : rng_below(&w->rng, bytes) };
}

static struct root *some_root(struct world *w)
{
    for (;;) {
        struct root *r = &w->root[rng_below(&w->rng, ROOTS)];
        if (root_can(w, r))
            return r;
    }
}

/* ---- operations --------------------------------------------------------------------------------------------------------------------- */

static void put_in_root(struct world *w, struct edge e, void *base)
{
    struct root *r = some_root(w);
    root_take(w, r);
    root_put(w, r, e, (char *)base + e.off);
}

static void make(struct world *w)
{
    int32_t to, from;
    uint32_t slot;
    void *p = node_new(w, KINDS, &to);
    if (p == NULL)
        return;
    struct edge e = edge_to(w, to);
    if (rng_below(&w->rng, 30) == 0 || writable(w, &from, &slot) == NULL)
        put_in_root(w, e, p);
    else
        node_store(w, from, slot, e, (char *)p + e.off);
}

static void join(struct world *w)
{
    int32_t to, from;
    uint32_t slot;
    char *p = walk(w, &to);
    if (p == NULL || writable(w, &from, &slot) == NULL)
        return;
    struct edge e = edge_to(w, to);
    node_store(w, from, slot, e, p + e.off);
}

/* Takes the pointer out of the slot; it is to be nowhere but in the complement that is returned. */
static __attribute__((noinline)) uintptr_t take_hidden(struct world *w, int32_t i, uint32_t slot)
{
    struct edge e;
    uintptr_t hidden = ~(uintptr_t)node_load(w, i, slot, &e);
    __asm__ volatile("" : "+r"(hidden));
    return hidden;
}

/* Clears the slot: for n rounds the pointer is in a register and nowhere else. */
static __attribute__((noinline)) void *in_a_register(void **slot, uintptr_t hidden, uint64_t n)
{
    wipe_stack();
    void *p = (void *)~hidden;
#if defined(__x86_64__)
    __asm__ volatile("movq $0, (%2)\n 1: subq $1, %1\n jnz 1b" : "+r"(p), "+r"(n) : "r"(slot) : "cc", "memory");
#elif defined(__aarch64__)
    __asm__ volatile("str xzr, [%2]\n 1: subs %1, %1, #1\n b.ne 1b" : "+r"(p), "+r"(n) : "r"(slot) : "cc", "memory");
#else
    *(void *volatile *)slot = NULL;
#endif
    return p;
}

/* The pointer is in one place only before and after. What is overwritten first may have led to the object that is written to next. */
static void move(struct world *w)
{
    int32_t a, b;
    uint32_t from, to;
    struct edge e;
    void *pb = writable(w, &b, &to), *pa = pb == NULL ? NULL : walk(w, &a);
    if (pa == NULL || (w->node[a].flags & FROZEN) || !filled_slot(w, a, &from) || (a == b && from == to))
        return;
    uint32_t how = rng_below(&w->rng, 100);
    if (how < 4) {
        uintptr_t hidden = take_hidden(w, a, from);
        e = w->node[a].edge[from];
        w->node[a].edge[from].to = -1;
        node_store(w, b, to, e, in_a_register(node_slot(w, a, from), hidden, UINT64_C(1) << rng_below(&w->rng, 22)));
    } else {
        void *p = node_load(w, a, from, &e);
        if (how < 50) {
            node_store(w, b, to, e, p);
            node_store(w, a, from, (struct edge){ -1, 0 }, NULL);
        } else { /* for a moment it is here only */
            node_store(w, a, from, (struct edge){ -1, 0 }, NULL);
            if (how == 99)
                weft_yield();
            node_store(w, b, to, e, p);
        }
    }
    weft_keep_alive(pa);
    weft_keep_alive(pb);
}

/* What one object leads to, a new one does, and then that one only. */
static void copy(struct world *w)
{
    int32_t old, new, from;
    uint32_t slot;
    char *p = walk(w, &old), *q = p == NULL ? NULL : node_copy(w, old, &new);
    if (q == NULL)
        return;
    for (uint32_t k = 0; (w->node[old].flags & FROZEN) == 0 && k < w->node[old].slots; k++)
        if (w->node[old].edge[k].to >= 0)
            node_store(w, old, k, (struct edge){ -1, 0 }, NULL);
    struct edge e = edge_to(w, new);
    if (writable(w, &from, &slot) == NULL)
        put_in_root(w, e, q);
    else
        node_store(w, from, slot, e, q + e.off);
    weft_keep_alive(p);
}

static int64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Moves pointers between a few objects without a call into the runtime, for so long that a fiber loses its processor and goes on without one. */
static void move_without_calls(struct world *w)
{
    void *held[6];
    int32_t i[6];
    uint32_t slot[2], n = 0;
    while (n < 6 && (held[n] = writable(w, &i[n], slot)) != NULL)
        n++;
    if (n < 2)
        return;
    int64_t end = clock_ns() + (1 + rng_below(&w->rng, 25)) * WEFT_MILLISECOND;
    do
        for (int k = 0; k < 100; k++) {
            int32_t a = i[rng_below(&w->rng, n)], b = i[rng_below(&w->rng, n)];
            struct edge e;
            if (!filled_slot(w, a, &slot[0]))
                continue;
            slot[1] = rng_below(&w->rng, w->node[b].slots);
            if (w->node[b].edge[slot[1]].to >= 0)
                continue;
            *(void *volatile *)node_slot(w, b, slot[1]) = node_load(w, a, slot[0], &e);
            *(void *volatile *)node_slot(w, a, slot[0]) = NULL;
            w->node[a].edge[slot[0]].to = -1;
            w->node[b].edge[slot[1]] = e;
        }
    while (clock_ns() < end);
    weft_keep_alive(held);
}

static void drop(struct world *w)
{
    int32_t i;
    uint32_t slot;
    if (rng_below(&w->rng, 40) == 0)
        root_take(w, some_root(w));
    else if (walk(w, &i) != NULL && (w->node[i].flags & FROZEN) == 0 && filled_slot(w, i, &slot))
        node_store(w, i, slot, (struct edge){ -1, 0 }, NULL);
}

static void root_to_root(struct world *w)
{
    struct root *from = some_root(w), *to = some_root(w);
    struct edge e = from->e;
    void *p = from == to ? NULL : root_take(w, from);
    if (p == NULL)
        return;
    root_take(w, to);
    root_put(w, to, e, p);
}

static void object_to_root(struct world *w)
{
    int32_t i;
    uint32_t slot;
    struct edge e;
    if (walk(w, &i) == NULL || (w->node[i].flags & FROZEN) || !filled_slot(w, i, &slot))
        return;
    void *p = node_load(w, i, slot, &e);
    node_store(w, i, slot, (struct edge){ -1, 0 }, NULL);
    struct root *r = some_root(w);
    root_take(w, r);
    root_put(w, r, e, p);
}

static void root_to_object(struct world *w)
{
    int32_t i;
    uint32_t slot;
    struct root *r = some_root(w);
    struct edge e = r->e;
    if (e.to < 0 || writable(w, &i, &slot) == NULL)
        return;
    void *p = root_take(w, r); /* leads to the object, if nothing else does */
    node_store(w, i, slot, e, p);
}

/* An object with a finalizer, and what it leads to; nobody writes to these later, so it never leads to itself. */
static void make_finalized(struct world *w)
{
    int32_t i, leaf, from;
    uint32_t slot;
    if (w->nfree < 8)
        return;
    char *p = node_new(w, rng_below(&w->rng, 2) == 0 ? TYPED : CONS, &i), *q;
    struct node *n = &w->node[i];
    for (uint32_t k = 0; k < n->slots && k < 3; k++) {
        q = node_new(w, k == 0 ? CONS : k == 1 ? NOSCAN : TYPED, &leaf);
        struct edge e = edge_to(w, leaf);
        node_store(w, i, k, e, q + e.off);
        w->node[leaf].flags |= FROZEN;
    }
    n->flags |= FROZEN;
    node_finalize(w, i);
    struct edge e = edge_to(w, i);
    if (writable(w, &from, &slot) != NULL)
        node_store(w, from, slot, e, p + e.off);
    else
        put_in_root(w, e, p);
}

/* Memory that was freed is used for something else. */
static void junk(struct world *w)
{
    for (uint32_t n = rng_below(&w->rng, 20); n > 0; n--) {
        size_t bytes = 8 + rng_below(&w->rng, rng_below(&w->rng, 50) == 0 ? 100000 : 500);
        void *p = rng_below(&w->rng, 2) ? weft_alloc(bytes) : weft_alloc_noscan(bytes);
        MUST(p != NULL);
        memset(p, 0xee, bytes);
    }
}

static void pause_a_little(struct world *w)
{
    switch (rng_below(&w->rng, 8)) {
    case 0: weft_sleep(rng_below(&w->rng, 1000) * WEFT_MICROSECOND); break;
    case 1: weft_blocking_begin(); usleep(rng_below(&w->rng, 300)); weft_blocking_end(); break;
    case 2: /* a long time without a call */
        for (volatile uint32_t i = rng_below(&w->rng, 100000); i > 0; i--) {}
        break;
    default: weft_yield();
    }
}

static void watch(struct world *w)
{
    int32_t i;
    if (walk(w, &i) == NULL)
        return;
    if (rng_below(&w->rng, 2) == 0)
        node_watch(w, i);
    else
        node_clean(w, i);
}

static void rotate(struct world *w)
{
    int32_t i;
    uint32_t slot;
    if (writable(w, &i, &slot) != NULL)
        nodes_rotate(w, i);
}

static const struct { uint32_t weight; void (*fn)(struct world *w); } operations[] = {
    { 250, make }, { 150, join }, { 200, move }, { 60, drop }, { 30, root_to_root }, { 30, object_to_root }, { 30, root_to_object },
    { 4, make_finalized }, { 30, junk }, { 20, pause_a_little }, { 8, watch }, { 20, rotate }, { 4, send_parcel },
    { 40, copy }, { 1, move_without_calls },
};

static void operate(struct world *w)
{
    static uint32_t sum;
    uint32_t all = sum, k = 0;
    if (all == 0) {
        for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
            all += operations[i].weight;
        __atomic_store_n(&sum, all, __ATOMIC_RELAXED);
    }
    w->ops++;
    uint32_t r = rng_below(&w->rng, all);
    while (r >= operations[k].weight)
        r -= operations[k++].weight;
    void (*fn)(struct world *) = operations[k].fn;
    if (fn == make && w->nodes > w->target) /* dead ones are counted until the next check */
        fn = w->nodes > 2 * w->target ? drop : move;
    fn(w);
}

/* ---- mutators ---------------------------------------------------------------------------------------------------------------------------- */

static void child(struct world *w)
{
    alarm(120);
    w->child = true;
    for (int round = 0; round < 3; round++) {
        weft_gc();
        for (int i = 0; i < 300; i++)
            operate(w);
        graph_check(w);
    }
    _exit(0);
}

static void fork_once(struct world *w)
{
    int status;
    roots_before_fork(w);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        child(w);
    MUST(pid > 0, "fork: %s", strerror(errno));
    weft_blocking_begin();
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    weft_blocking_end();
    MUST(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child ended with status 0x%x", (unsigned)status);
    w->forks++;
}

static void mutate(struct world *w)
{
    void *volatile stack[4] = { NULL };
    int64_t next_fork = weft_now() + (1 + rng_below(&w->rng, 4)) * WEFT_SECOND;
    uint32_t every = objects / 2 + rng_below(&w->rng, objects);
    w->stack = stack;
    roots_init(w);
    checks_init(w);
    while (!GET(soak_over)) {
        for (uint32_t i = 0; i < every && !GET(soak_over); i++)
            operate(w);
        graph_check(w);
        if (rng_below(&w->rng, 16) == 0)
            weft_gc();
        if (forks && weft_now() > next_fork) {
            fork_once(w);
            next_fork = weft_now() + (2 + rng_below(&w->rng, 6)) * WEFT_SECOND;
        }
    }
    graph_end(w);
    roots_end(w);
}

static void in_fiber(void *arg) { mutate(arg); }

static void in_locked_fiber(void *arg)
{
    MUST(weft_lock_os_thread() == 0);
    mutate(arg);
    weft_unlock_os_thread();
}

static void *in_thread(void *arg)
{
    MUST(weft_attach() == 0);
    mutate(arg);
    return NULL;
}

/* ---- the whole --------------------------------------------------------------------------------------------------------------------------- */

static void tell(const char *when, int64_t since)
{
    uint64_t ops = 0, compared = 0, forked = 0, dead = 0, finalized = 0, cleaned = 0, revived = 0;
    for (int i = 0; i < WORLDS; i++) { /* while they run: figures, more or less */
        struct world *w = &worlds[i];
        ops += w->ops, compared += w->compared, forked += w->forks, dead += w->dead, finalized += w->finalized, cleaned += w->cleaned,
            revived += w->revived;
    }
    double s = (double)(weft_now() - since) / 1e9;
    printf("soak: %s: %s: %.0f s, %llu operations (%.0f/s), %llu objects compared, %llu cycles, %llu parcels, %llu forks; dropped and dead %llu, "
           "finalized %llu, cleaned %llu, revived %llu\n", soak_run, when, s, (unsigned long long)ops, (double)ops / s, (unsigned long long)compared,
           (unsigned long long)soak_cycles(), (unsigned long long)GET(parcels), (unsigned long long)forked, (unsigned long long)dead,
           (unsigned long long)finalized, (unsigned long long)cleaned, (unsigned long long)revived);
    fflush(stdout);
}

static void disturb(struct rng *rng)
{
    static weft_mem_stats st = { .size = sizeof st };
    if (rng_below(rng, 40) == 0)
        weft_gc();
    if (rng_below(rng, 200) == 0)
        weft_free_os_memory();
    if (rng_below(rng, 100) == 0)
        MUST(weft_read_mem_stats(&st) == 0);
    if (vary_procs && rng_below(rng, 50) == 0)
        weft_maxprocs((int)(1 + rng_below(rng, 8)));
}

static void run(void *arg)
{
    static weft_waitgroup fibers;
    pthread_t threads[2];
    struct rng rng;
    uint32_t watched, left;
    (void)arg;
    rng_seed(&rng, seed);
    MUST((gate = weft_chan_make(0, 0)) != NULL);
    for (int i = 0; i < 4; i++)
        MUST((belt[i] = weft_chan_make(8, 16)) != NULL);
    for (unsigned i = 0; i < WORLDS; i++) {
        struct world *w = &worlds[i];
        w->number = i;
        rng_seed(&w->rng, seed + 1 + i);
        nodes_init(w, objects);
        MUST(pipe2(w->pipe, O_NONBLOCK | O_CLOEXEC) == 0 && weft_fd_open(w->pipe[0], &w->reader) == 0);
        w->locked = i >= WORLDS - 3;
        w->what = i >= WORLDS - 2 ? "a thread of the host" : w->locked ? "a fiber locked to its thread" : "a fiber";
        if (i >= WORLDS - 2)
            MUST(pthread_create(&threads[i - (WORLDS - 2)], NULL, in_thread, w) == 0);
        else
            MUST(weft_waitgroup_go(&fibers, w->locked ? in_locked_fiber : in_fiber, w) == 0);
    }
    int64_t begin = weft_now(), next = begin + 60 * WEFT_SECOND;
    while (weft_now() < begin + seconds * WEFT_SECOND) {
        weft_sleep(20 * WEFT_MILLISECOND);
        disturb(&rng);
        if (weft_now() > next) {
            tell("so far", begin);
            next += 60 * WEFT_SECOND;
        }
    }
    SET(soak_over, 1);
    weft_waitgroup_wait(&fibers);
    weft_blocking_begin();
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    weft_blocking_end();
    weft_chan_close(gate);
    graphs_count(worlds, &watched, &left);
    tell("nothing lost", begin);
    MUST(left <= watched / 8 + 8, "of %u objects that were dropped in the end %u are still there", watched, left);
}

int main(int argc, char **argv)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    const char *keys = "";
    static char debug[512], how[640];
    seed = (uint64_t)weft_now() ^ (uint64_t)getpid() << 32;
    for (int c; (c = getopt(argc, argv, "s:r:p:d:n:g:fk")) != -1;)
        switch (c) {
        case 's': seconds = atoll(optarg); break;
        case 'r': seed = strtoull(optarg, NULL, 0); break;
        case 'p': cfg.maxprocs = atoi(optarg); vary_procs = false; break;
        case 'd': keys = optarg; break;
        case 'n': objects = (uint32_t)atoi(optarg); break;
        case 'g': cfg.gc_percent = atoi(optarg); break;
        case 'f': forks = false; break;
        case 'k': soak_bare_reads = false; break;
        default: return 2;
        }
    if (optind != argc || objects < 100 || objects > 1000000)
        return 2;
    snprintf(debug, sizeof debug, "doctor=off%s%s", *keys ? "," : "", keys);
    cfg.debug = debug;
    const char *env = getenv("WEFT_DEBUG");
    snprintf(how, sizeof how, "seed 0x%llx, procs %d, %s%s%s", (unsigned long long)seed, cfg.maxprocs, env ? env : "", env ? " " : "", debug);
    soak_run = how;
    int rc = weft_run(run, NULL, &cfg);
    if (rc == -EINVAL)
        return 77;
    if (rc < 0 && rc != -EBUSY) {
        fprintf(stderr, "soak: %s: weft_run: %s\n", how, weft_strerror(rc));
        return 1;
    }
    return 0;
}
