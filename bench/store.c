/* store near|far [MiB] - what does weft_store cost beside a plain store?
 *
 * An array of carded objects of 64 bytes, MiB in all (near: 1, which the caches hold; far: 256), and slots in them in random order; each is given a
 * pointer to another of the objects. plain_ns: by plain stores; store_ns: by weft_store, whose cards are marked soon and then only looked at;
 * move_ns: a word of weft_store_move in arrays of 1000 words. The three take turns, and the medians are shown.
 * Peer: Go, whose barrier is a test while no collection runs (store_ns), and more while one does (marking_ns: collections all the time, on the
 * other processor; weft_store knows no difference). Two processors. */
#include "bench_weft.h"

enum { SLOTS = 1 << 16, PASSES = 40, ROUNDS = 15, WORDS = 1000 };

struct object { struct object *to[8]; };

static size_t objects;
static struct object **slot[SLOTS], *value[SLOTS];

static void __attribute__((noinline)) plain(void)
{
    for (int p = 0; p < PASSES; p++)
        for (int i = 0; i < SLOTS; i++)
            __atomic_store_n(slot[i], value[i], __ATOMIC_RELAXED);
}

static void __attribute__((noinline)) store(void)
{
    for (int p = 0; p < PASSES; p++)
        for (int i = 0; i < SLOTS; i++)
            weft_store(slot[i], value[i]);
}

static void **from, **to;

static void __attribute__((noinline)) move(void)
{
    for (int i = 0; i < SLOTS * PASSES / WORDS; i++)
        weft_store_move(to, from, WORDS * sizeof *to);
}

static double ns_each(void (*fn)(void))
{
    bench_span t = bench_begin();
    fn();
    return (double)bench_end(t).wall_ns / ((double)SLOTS * PASSES);
}

static void run(void *arg)
{
    (void)arg;
    const weft_type *type = weft_type_carded(WEFT_TYPE(struct object, to[0], to[1], to[2], to[3], to[4], to[5], to[6], to[7]));
    struct object *all = weft_alloc_array(type, objects);
    uint64_t seed = 88172645463325252u;
    for (int i = 0; i < SLOTS; i++) {
        slot[i] = &all[bench_random(&seed) % objects].to[bench_random(&seed) % 8];
        value[i] = &all[bench_random(&seed) % objects];
    }
    from = weft_alloc_carded(WORDS * sizeof *from);
    to = weft_alloc_carded(WORDS * sizeof *to);
    weft_store_fill(from, all, WORDS);
    double plain_ns[ROUNDS], store_ns[ROUNDS], move_ns[ROUNDS];
    plain();
    store();
    for (int i = 0; i < ROUNDS; i++) {
        plain_ns[i] = ns_each(plain);
        store_ns[i] = ns_each(store);
        move_ns[i] = ns_each(move);
    }
    bench_open("store", "weft");
    bench_num("plain_ns", bench_median(plain_ns, ROUNDS));
    bench_num("store_ns", bench_median(store_ns, ROUNDS));
    bench_num("marking_ns", bench_median(store_ns, ROUNDS));
    bench_num("move_ns", bench_median(move_ns, ROUNDS));
    bench_close();
}

int main(int argc, char **argv)
{
    bool far = argc > 1 && strcmp(argv[1], "far") == 0;
    objects = ((size_t)bench_arg(argc, argv, 2, far ? 256 : 1) << 20) / sizeof(struct object);
    return bench_run(run);
}
