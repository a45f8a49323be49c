/* Heap profiles: exact by rate 1, right on average by others, as the last collection found the heap; with stacks that begin where users look. */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/offheap.h"
#include "base/real.h"
#include "heap_test.h"
#include "pprof_test.h"

enum { ALLOC_OBJECTS, ALLOC_SPACE, INUSE_OBJECTS, INUSE_SPACE };

static struct pp *profile(const char *name)
{
    struct sink to = { 0 };
    cr_assert_eq(weft_profile_write(weft_profile_lookup(name), sink_write, &to, 0), 0);
    return pp_decode(to.bytes, to.len);
}
static struct pp *heap(void) { return profile("heap"); }

/* frame 0: the innermost. */
static bool is_frame(const struct pp_sample *s, size_t frame, const char *func)
{
    return frame < s->locations && s->location[frame]->lines > 0 && strcmp(s->location[frame]->line[0].function->name, func) == 0;
}

/* Of samples whose stacks begin with func, which is called by caller (NULL: by anybody). */
static int64_t sum(const struct pp *p, int value, const char *func, const char *caller)
{
    int64_t all = 0;
    for (size_t i = 0; i < p->samples; i++)
        if (is_frame(&p->sample[i], 0, func) && (caller == NULL || is_frame(&p->sample[i], 1, caller)))
            all += p->sample[i].value[value];
    return all;
}

static void run_at(int64_t rate, weft_fn *fn)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.mem_profile_rate = rate;
    cfg.debug = "gcstress=0"; /* a profile is as of the last mark */
    test_run_config(&cfg, fn, NULL);
}

/* ---- sites --------------------------------------------------------------------------------------------------- */

#define USE(p) __asm__ volatile("" : : "r"(p) : "memory")
#define SITE static __attribute__((noinline))

SITE void *site_a(size_t n) { void *p = weft_alloc(n); USE(p); return p; }
SITE void *site_b(size_t n) { void *p = weft_alloc_noscan(n); USE(p); return p; }
SITE void *site_c(void) { void *p = weft_alloc_typed(WEFT_TYPE(struct busy_pair, a, b)); USE(p); return p; }
SITE void *by_one_way(size_t n) { void *p = site_a(n); USE(p); return p; }
SITE void *by_another(size_t n) { void *p = site_a(n); USE(&n); return p; } /* not the same code */

static void *volatile kept[4096]; /* volatile: only the collector reads it */

static __attribute__((noinline)) void drop_kept(size_t n)
{
    for (size_t i = 0; i < n; i++)
        kept[i] = NULL;
}

/* ---- by rate 1 --------------------------------------------------------------------------------------------------- */

static void exact(void *arg)
{
    (void)arg;
    size_t n = 0;
    for (int i = 0; i < 600; i++)
        kept[n++] = by_one_way(60);
    for (int i = 0; i < 300; i++)
        kept[n++] = by_another(60);
    for (int i = 0; i < 100; i++)
        kept[n++] = site_b(1000);
    for (int i = 0; i < 7; i++)
        kept[n++] = site_c();
    kept[n++] = site_b(100001);
    struct pp *p = heap();
    cr_assert_eq(sum(p, ALLOC_OBJECTS, "site_a", NULL), 900);
    cr_assert_eq(sum(p, ALLOC_OBJECTS, "site_a", "by_one_way"), 600);
    cr_assert_eq(sum(p, ALLOC_OBJECTS, "site_a", "by_another"), 300);
    cr_assert_eq(sum(p, ALLOC_SPACE, "site_a", NULL), 900 * 64);
    cr_assert_eq(sum(p, INUSE_SPACE, "site_a", NULL), 900 * 64);
    cr_assert_eq(sum(p, ALLOC_OBJECTS, "site_b", "exact"), 101);
    cr_assert_eq(sum(p, INUSE_SPACE, "site_b", NULL), 100 * 1024 + 13 * 8192);
    cr_assert_eq(sum(p, ALLOC_OBJECTS, "site_c", NULL), 7);
    cr_assert_eq(p->types, 4);
    cr_assert_str_eq(p->type[0].type, "alloc_objects");
    cr_assert_str_eq(p->type[1].type, "alloc_space");
    cr_assert_str_eq(p->type[2].type, "inuse_objects");
    cr_assert_str_eq(p->type[3].type, "inuse_space");
    cr_assert_str_eq(p->type[3].unit, "bytes");
    cr_assert_str_eq(p->period_type.type, "space");
    cr_assert_eq(p->period, 1);
    for (size_t i = 0; i < p->samples; i++) {
        struct pp_sample *s = &p->sample[i];
        cr_assert_eq(s->labels, 1);
        cr_assert_str_eq(s->label[0].key, "bytes");
        cr_assert_eq(s->value[ALLOC_SPACE], s->value[ALLOC_OBJECTS] * s->label[0].num);
        cr_assert_eq(s->value[INUSE_SPACE], s->value[INUSE_OBJECTS] * s->label[0].num);
    }
    cr_assert_str_eq(profile("allocs")->default_type, "alloc_space");
}

Test(prof_heap, by_rate_1_all_is_counted) { run_at(1, exact); }

static void falls(void *arg)
{
    (void)arg;
    for (int i = 0; i < 1000; i++)
        kept[i] = site_a(100);
    collect();
    struct pp *p = heap();
    cr_assert_eq(sum(p, ALLOC_OBJECTS, "site_a", NULL), 1000);
    cr_assert_eq(sum(p, INUSE_OBJECTS, "site_a", NULL), 1000);
    drop_kept(750);
    collect();
    p = heap();
    cr_assert_eq(sum(p, ALLOC_OBJECTS, "site_a", NULL), 1000);
    cr_assert_eq(sum(p, INUSE_OBJECTS, "site_a", NULL), 250, "%ld in use", (long)sum(p, INUSE_OBJECTS, "site_a", NULL));
    cr_assert_eq(sum(p, INUSE_SPACE, "site_a", NULL), 250 * 104);
    drop_kept(1000);
    collect();
    p = heap();
    cr_assert_eq(sum(p, ALLOC_OBJECTS, "site_a", NULL), 1000);
    cr_assert_eq(sum(p, INUSE_OBJECTS, "site_a", NULL), 0);
}

Test(prof_heap, what_is_dropped_is_not_in_use_after_a_collection) { run_at(1, falls); }

/* ---- [PUBLISH] ------------------------------------------------------------------------------------------------ */

static void published(void *arg)
{
    (void)arg;
    weft_set_gc_percent(-1);
    for (int i = 0; i < 100; i++)
        kept[i] = site_a(100);
    cr_assert_eq(sum(heap(), ALLOC_OBJECTS, "site_a", NULL), 100, "before the first collection all is shown");
    collect();
    drop_kept(40);
    for (int i = 100; i < 150; i++)
        kept[i] = site_a(100);
    struct pp *p = heap();
    cr_assert_eq(sum(p, ALLOC_OBJECTS, "site_a", NULL), 100, "what came after the collection is not in its picture");
    cr_assert_eq(sum(p, INUSE_OBJECTS, "site_a", NULL), 100, "nor what was dropped since");
    collect();
    p = heap();
    cr_assert_eq(sum(p, ALLOC_OBJECTS, "site_a", NULL), 150);
    cr_assert_eq(sum(p, INUSE_OBJECTS, "site_a", NULL), 110);
}

Test(prof_heap, shows_the_heap_as_the_last_collection_found_it) { run_at(1, published); }

static void window(void *arg)
{
    (void)arg;
    weft_profile_delta *d;
    struct sink to = { 0 };
    for (int i = 0; i < 100; i++)
        kept[i] = site_a(100);
    collect();
    cr_assert_eq(weft_profile_delta_begin(weft_profile_lookup("heap"), &d), 0);
    drop_kept(30);
    for (int i = 100; i < 110; i++)
        kept[i] = site_a(100);
    collect();
    cr_assert_eq(weft_profile_delta_end(d, sink_write, &to), 0);
    struct pp *p = pp_decode(to.bytes, to.len);
    cr_assert_eq(sum(p, ALLOC_OBJECTS, "site_a", NULL), 10);
    cr_assert_eq(sum(p, INUSE_OBJECTS, "site_a", NULL), -20);
}

Test(prof_heap, of_a_window) { run_at(1, window); }

static void writer(void *arg)
{
    int *profiles = arg;
    int64_t before = 0;
    for (; *profiles < 30; ++*profiles) {
        struct pp *p = heap();
        int64_t all = 0;
        for (size_t i = 0; i < p->samples; i++) {
            struct pp_sample *s = &p->sample[i];
            cr_assert(s->value[INUSE_OBJECTS] >= 0 && s->value[INUSE_OBJECTS] <= s->value[ALLOC_OBJECTS]);
            all += s->value[ALLOC_OBJECTS];
        }
        cr_assert(all >= before, "%ld objects after %ld", (long)all, (long)before);
        before = all;
    }
    __atomic_store_n(&busy_stop, 1, __ATOMIC_RELEASE);
}

static void while_busy(void *arg)
{
    (void)arg;
    int profiles = 0;
    weft_gc();
    busy_begin(busy_alloc, 4);
    writer(&profiles);
    busy_end();
}

Test(prof_heap, while_the_program_allocates_and_collects) { test_run_debug(4, "memprofilerate=500", while_busy, NULL); }
Test(prof_heap, under_stress) { test_run_debug(2, "memprofilerate=1,gcstress=300,gcpoison=1,gcverify=1,migrate=1", while_busy, NULL); }

static int writers;

static void many_writers(void *arg)
{
    static const char *const name[] = { "heap", "allocs" };
    for (int i = 0; i < 10; i++) {
        struct pp *p = profile(name[(i + (intptr_t)arg) % 2]);
        for (size_t k = 0; k < p->samples; k++)
            cr_assert(p->sample[k].value[INUSE_OBJECTS] >= 0 && p->sample[k].value[INUSE_OBJECTS] <= p->sample[k].value[ALLOC_OBJECTS]);
        weft_set_mem_profile_rate(1 + 700 * ((i + (intptr_t)arg) % 3));
    }
    count_up(&writers);
}

static void together(void *arg)
{
    (void)arg;
    writers = 0;
    busy_begin(busy_alloc, 3);
    for (intptr_t i = 0; i < 3; i++)
        cr_assert_eq(weft_go(many_writers, (void *)i), 0);
    test_until(count_now(&writers) == 3);
    busy_end();
}

Test(prof_heap, several_are_written_while_the_rate_changes) { test_run_procs(4, together, NULL); }

#define MANY 200000 /* samples, through which each mark walks while it changes the numbers */

static void collect_always(void *arg)
{
    (void)arg;
    while (busy_on())
        weft_gc();
    busy_done();
}

static void must_have_all(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20; i++)
        cr_assert_eq(sum(heap(), INUSE_OBJECTS, "site_b", NULL), MANY);
    count_up(&writers);
}

/* Several, since one waits for another between leaving the runtime and reading the numbers, so that it reads them in any part of a collection. */
static void never_empty(void *arg)
{
    (void)arg;
    void **all = weft_alloc(MANY * sizeof *all);
    for (int i = 0; i < MANY; i++)
        all[i] = site_b(16);
    collect();
    writers = 0;
    busy_begin(collect_always, 1);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(weft_go(must_have_all, NULL), 0);
    test_until(count_now(&writers) == 3);
    busy_end();
    weft_keep_alive(all);
}

Test(prof_heap, a_mark_that_takes_long_is_waited_for) { run_at(1, never_empty); }

/* ---- right on average -------------------------------------------------------------------------------------------- */

static const size_t sizes[] = { 16, 64, 400, 3000, 20000, 100000 };
#define RATE 20000

SITE void alloc_some(size_t size, int n)
{
    for (int i = 0; i < n; i++)
        kept[i % 64] = site_b(size);
}

/* An estimate of n objects, each taken with probability p and then counted for 1 / p, has the variance n (1 - p) / p; what is rounded down is less
 * than one per stack and size. Within 6 standard deviations, which chance leaves once in 10^9. */
static void unbiased(void *arg)
{
    (void)arg;
    for (size_t k = 0; k < w_countof(sizes); k++)
        alloc_some(sizes[k], 20000000 / (int)(sizes[k] + 1000));
    collect();
    struct pp *p = heap();
    cr_assert_eq(p->period, RATE);
    for (size_t k = 0; k < w_countof(sizes); k++) {
        void *one = weft_alloc_noscan(sizes[k]);
        int64_t class = (int64_t)weft_object_size(one), got = 0, bytes = 0;
        for (size_t i = 0; i < p->samples; i++)
            if (is_frame(&p->sample[i], 0, "site_b") && p->sample[i].label[0].num == class) {
                got += p->sample[i].value[ALLOC_OBJECTS];
                bytes += p->sample[i].value[ALLOC_SPACE];
            }
        double n = 20000000 / (int)(sizes[k] + 1000), prob = 1 - real_exp(-(double)class / RATE), off = (double)got - n;
        cr_assert(off * off <= 36 * n * (1 - prob) / prob + 4, "%zu bytes: %ld objects estimated, %.0f there were", sizes[k], (long)got, n);
        cr_assert(bytes >= got * class && bytes <= (got + 2) * class);
    }
}

Test(prof_heap, estimates_are_right_on_average) { run_at(RATE, unbiased); }

SITE void share_60(void) { kept[0] = weft_alloc(600); }
SITE void share_30(void) { kept[1] = weft_alloc_noscan(200); kept[2] = weft_alloc_noscan(104); }
SITE void share_10(void) { kept[3] = weft_alloc(96); }

static void shares(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20000; i++) {
        share_60();
        share_30();
        share_10();
    }
    collect();
    struct pp *p = heap();
    double a = (double)sum(p, ALLOC_SPACE, "share_60", NULL), b = (double)sum(p, ALLOC_SPACE, "share_30", NULL),
           c = (double)sum(p, ALLOC_SPACE, "share_10", NULL), all = 20000.0 * (640 + 208 + 104 + 96);
    cr_assert(a + b + c > 0.95 * all && a + b + c < 1.05 * all);
    cr_assert(a / all > 640.0 / 1048 - 0.03 && a / all < 640.0 / 1048 + 0.03);
    cr_assert(b / all > 312.0 / 1048 - 0.03 && b / all < 312.0 / 1048 + 0.03);
    cr_assert(c / all > 96.0 / 1048 - 0.03 && c / all < 96.0 / 1048 + 0.03);
}

Test(prof_heap, shares_of_three_sites) { run_at(2000, shares); } /* 10000 samples: a point is two standard deviations */

/* ---- who allocates --------------------------------------------------------------------------------------------- */

SITE void uses_all(void)
{
    static const char text[] = "a text";
    char *s = weft_strdup(text);
    s = weft_realloc(s, 2000);
    kept[0] = s;
    kept[1] = weft_chan_make(8, 100);
    kept[2] = weft_alloc_array(WEFT_TYPE(struct busy_pair, a, b), 30);
    kept[3] = weft_realloc_array(WEFT_TYPE(struct busy_pair, a, b), kept[2], 60);
    kept[4] = weft_weak_make(kept[2]);
    USE(s);
}

SITE void from_inside(void) { kept[10] = weft_alloc(16); }
SITE void calls_back(void *arg) { from_inside(); USE(arg); }

static void leaves(void *arg)
{
    static weft_once once;
    (void)arg;
    uses_all();
    weft_once_do(&once, calls_back, NULL);
    struct pp *p = heap();
    cr_assert(sum(p, ALLOC_OBJECTS, "uses_all", "leaves") >= 6);
    cr_assert_eq(sum(p, ALLOC_OBJECTS, "from_inside", "calls_back"), 1, "a function of the program that the runtime calls is not the runtime's");
    for (size_t i = 0; i < p->samples; i++) {
        struct pp_sample *s = &p->sample[i];
        const char *func = s->location[0]->lines > 0 ? s->location[0]->line[0].function->name : "";
        cr_assert(strncmp(func, "weft_", 5) != 0 && strcmp(func, "alloc_slow") != 0, "%s", pp_text(s));
    }
}

Test(prof_heap, stacks_begin_with_the_programs_own) { run_at(1, leaves); }

/* ---- through code without frame pointers: see tests/mod/nofp.c ------------------------------------------------------ */

static void (*nofp_top)(void (*fn)(void *), void *arg, unsigned n), (*nofp_no_frame)(void (*fn)(void *), void *arg, unsigned n);

static void nofp_load(void)
{
    void *so = dlopen(TEST_MOD("nofp"), RTLD_NOW);
    cr_assert_not_null(so);
    *(void **)&nofp_top = dlsym(so, "nofp_top");
    *(void **)&nofp_no_frame = dlsym(so, "nofp_no_frame");
}

SITE void from_nofp(void *size) { kept[0] = weft_alloc_noscan((size_t)size); USE(size); }

/* Its callers are not few: some of these ways lead through qsort. */
static void exactly(void *arg)
{
    (void)arg;
    nofp_top(from_nofp, (void *)100, 4);
    struct pp *p = heap();
    size_t found = 0;
    for (size_t i = 0; i < p->samples; i++)
        if (is_frame(&p->sample[i], 0, "from_nofp")) {
            const char *text = pp_text(&p->sample[i]), *end = strstr(text, ";nofp_top;exactly bytes=104");
            cr_assert(strncmp(text, "from_nofp;nofp_registers;", 25) == 0 && end != NULL, "%s", text);
            found += strncmp(text, "from_nofp;nofp_registers;nofp_big;nofp_aligned;nofp_alloca;nofp_top;exactly", 74) == 0;
        }
    cr_assert_eq(found, 1);
}

Test(prof_heap, stacks_are_exact_if_a_rate_was_given, .init = nofp_load) { run_at(1, exactly); }

/* Nobody had asked, and registers are full of what looks like frames: who allocates is certain, and nothing is made up. */
static void unasked(void *arg)
{
    (void)arg;
    for (int i = 0; i < 50; i++) /* each is sampled with probability 0.98 */
        nofp_top(from_nofp, (void *)(2 << 20), 4);
    for (int round = 0; round < 2; round++) {
        struct pp *p = heap();
        int found = 0, exact = 0;
        for (size_t i = 0; i < p->samples; i++) {
            const struct pp_sample *s = &p->sample[i];
            found += is_frame(s, 0, "from_nofp");
            exact += is_frame(s, 0, "from_nofp") && strstr(pp_text(s), ";nofp_top;unasked ") != NULL;
            for (size_t k = 0; k < s->locations; k++)
                cr_assert_not_null(s->location[k]->mapping, "%s", pp_text(s));
        }
        cr_assert(found > 0);
        cr_assert(round == 0 || exact > 0, "after the first profile stacks are exact");
        for (int i = 0; i < 50; i++)
            nofp_top(from_nofp, (void *)(2 << 20), 4);
        collect();
    }
}

Test(prof_heap, stacks_are_honest_if_nobody_had_asked, .init = nofp_load) { test_run(unasked, NULL); }

/* What looks like a frame is another one each time: it must not fill the memory. */
static void made_up(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < 120000; i++)
        nofp_no_frame(from_nofp, (void *)(64 << 10), i);
    int64_t n = weft_profile_count(weft_profile_lookup("heap"));
    cr_expect_leq(n, 8200, "%ld stacks", (long)n);
    cr_expect(sum(heap(), ALLOC_OBJECTS, "from_nofp", NULL) > 100000);
}

Test(prof_heap, stacks_that_are_made_up_are_few, .init = nofp_load) { test_run(made_up, NULL); }

SITE void *thread_of_the_host(void *arg)
{
    for (int i = 0; i < 50; i++)
        kept[i] = weft_alloc(40);
    kept[50] = weft_alloc(50000);
    USE(arg);
    return NULL;
}

static void host_thread(void *arg)
{
    (void)arg;
    pthread_t t;
    weft_blocking_begin();
    cr_assert_eq(pthread_create(&t, NULL, thread_of_the_host, NULL), 0);
    pthread_join(t, NULL);
    weft_blocking_end();
    collect();
    struct pp *p = heap();
    cr_assert_eq(sum(p, INUSE_OBJECTS, "thread_of_the_host", NULL), 51);
    drop_kept(64);
    collect();
    p = heap();
    cr_assert_eq(sum(p, ALLOC_OBJECTS, "thread_of_the_host", NULL), 51);
    cr_assert_eq(sum(p, INUSE_OBJECTS, "thread_of_the_host", NULL), 0);
}

Test(prof_heap, of_threads_of_the_host) { run_at(1, host_thread); }

static int finalized;
static void resurrect(void *obj, void *ctx)
{
    (void)ctx;
    kept[count_now(&finalized)] = obj;
    count_up(&finalized);
}

enum { BROUGHT_BACK = 100, STALE = 5 /* of which words on stacks may be left */ };
SITE void make_finalized(void)
{
    for (int i = 0; i < BROUGHT_BACK; i++)
        cr_assert_eq(weft_set_finalizer(site_a(200), resurrect, NULL), 0);
}

static void brought_back(void *arg)
{
    (void)arg;
    make_finalized();
    collect();
    test_until(count_now(&finalized) >= BROUGHT_BACK - STALE);
    cr_assert_eq(sum(heap(), INUSE_OBJECTS, "site_a", NULL), BROUGHT_BACK, "they waited for their finalizers");
    collect();
    cr_assert_eq(sum(heap(), INUSE_OBJECTS, "site_a", NULL), BROUGHT_BACK, "these have brought them back");
    test_until(count_now(&finalized) >= BROUGHT_BACK - STALE);
    drop_kept(BROUGHT_BACK);
    collect();
    cr_assert_leq(sum(heap(), INUSE_OBJECTS, "site_a", NULL), STALE);
}

Test(prof_heap, freed_is_what_is_really_freed) { run_at(1, brought_back); }

/* ---- rates ------------------------------------------------------------------------------------------------------- */

static void rates(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_set_mem_profile_rate(-1), 524288);
    cr_assert_eq(weft_set_mem_profile_rate(1), 524288);
    cr_assert_eq(weft_set_mem_profile_rate(-1), 1);
    collect();
    struct pp *p = heap();
    int64_t before = sum(p, ALLOC_OBJECTS, "site_a", NULL);
    for (int i = 0; i < 100; i++)
        kept[i] = site_a(100);
    collect();
    cr_assert_eq(sum(heap(), ALLOC_OBJECTS, "site_a", NULL), before + 100);
    cr_assert_eq(weft_set_mem_profile_rate(0), 1);
    for (int i = 0; i < 1000; i++)
        kept[i] = site_a(100);
    collect();
    cr_assert_eq(sum(heap(), ALLOC_OBJECTS, "site_a", NULL), before + 100);
}

Test(prof_heap, the_rate_can_be_set)
{
    cr_assert_eq(weft_set_mem_profile_rate(1), -ESRCH);
    test_run(rates, NULL);
    cr_assert_eq(weft_set_mem_profile_rate(-1), -ESRCH);
}

static void nothing(void *arg)
{
    (void)arg;
    struct off_stats before, now;
    off_stats(OFF_PROF, &before);
    for (int i = 0; i < 100000; i++)
        kept[i % 100] = site_a(100);
    off_stats(OFF_PROF, &now);
    cr_assert_eq(now.mapped_bytes, before.mapped_bytes);
    collect();
    cr_assert_eq(heap()->samples, 0);
}

Test(prof_heap, by_rate_0_there_is_nothing) { run_at(-1, nothing); }
static void key_of_old(void *arg) { (void)arg; cr_assert_eq(weft_set_mem_profile_rate(-1), 4711); }
Test(prof_heap, the_rate_is_a_debug_key) { test_run_debug(0, "memprofilerate=4711", key_of_old, NULL); }

/* A new life begins with nothing, and the end leaves nothing. */
Test(prof_heap, lives)
{
    struct off_stats before, now;
    off_stats(OFF_PROF, &before);
    for (int i = 0; i < 3; i++) {
        run_at(1, exact);
        off_stats(OFF_PROF, &now);
        cr_assert_eq(now.in_use_bytes, before.in_use_bytes);
    }
}

static void in_child(void *arg)
{
    (void)arg;
    for (int i = 0; i < 10; i++)
        kept[i] = site_a(100);
    pid_t pid = fork();
    if (pid == 0) {
        for (int i = 10; i < 15; i++)
            kept[i] = site_a(100);
        collect();
        _exit(sum(heap(), INUSE_OBJECTS, "site_a", NULL) == 15 ? 0 : 1);
    }
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0);
    collect();
    cr_assert_eq(sum(heap(), INUSE_OBJECTS, "site_a", NULL), 10);
}

Test(prof_heap, of_a_child, CHILD_GOES_ON) { run_at(1, in_child); }

/* What walks exactly is a thread, and the child has none: whoever asks there makes another. */
SITE int child_asks(void)
{
    heap();
    nofp_top(from_nofp, (void *)200, 4);
    struct pp *p = heap();
    int found = 0;
    for (size_t i = 0; i < p->samples; i++)
        found += is_frame(&p->sample[i], 0, "from_nofp") && strstr(pp_text(&p->sample[i]), ";nofp_top;child_asks;exactly_in_child bytes=208") != NULL;
    return found;
}

static void exactly_in_child(void *arg)
{
    (void)arg;
    pid_t pid = fork();
    if (pid == 0)
        _exit(child_asks() > 1 ? 0 : 1);
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0);
}

Test(prof_heap, stacks_are_exact_in_a_child, CHILD_GOES_ON, .init = nofp_load) { run_at(1, exactly_in_child); }

/* ---- text and statistics -------------------------------------------------------------------------------------------- */

static void as_text(void *arg)
{
    (void)arg;
    struct sink to = { 0 };
    for (int i = 0; i < 60; i++)
        kept[i] = site_a(100);
    for (int i = 60; i < 70; i++)
        kept[i] = site_b(10000);
    collect();
    cr_assert_eq(weft_profile_write(weft_profile_lookup("heap"), sink_write, &to, 1), 0);
    const char *text = to.text;
    long in_use, in_use_bytes, all, all_bytes, rate;
    cr_assert_eq(sscanf(text, "heap profile: %ld: %ld [%ld: %ld] @ heap/%ld\n", &in_use, &in_use_bytes, &all, &all_bytes, &rate), 5, "%s", text);
    cr_assert(in_use >= 70 && in_use_bytes >= 60 * 104 + 10 * 10240 && all >= in_use);
    cr_assert_eq(rate, 2);
    const char *a = strstr(text, "\n60: 6240 [60: 6240] @ 0x"), *b = strstr(text, "\n10: 102400 [10: 102400] @ 0x");
    cr_assert(a != NULL && b != NULL, "%s", text);
    cr_assert(a < b, "by bytes in use");
    cr_assert_not_null(strstr(a, "\tsite_a+0x"));
    cr_assert_not_null(strstr(text, "\n# runtime.MemStats\n# Alloc = "));
    unsigned long buck = 0;
    cr_assert_eq(sscanf(strstr(text, "# BuckHashSys = "), "# BuckHashSys = %lu", &buck), 1);
    cr_assert(buck > 0);
}

Test(prof_heap, as_text) { run_at(1, as_text); }

static void counted(void *arg)
{
    (void)arg;
    static weft_mem_stats st = { .size = sizeof st };
    cr_assert_eq(weft_read_mem_stats(&st), 0);
    uint64_t before = st.buck_hash_sys;
    for (size_t i = 16; i < 4000; i += 16)
        kept[0] = site_a(i);
    cr_assert_eq(weft_read_mem_stats(&st), 0);
    cr_assert(st.buck_hash_sys > before);
    cr_assert_eq(st.sys, st.heap_sys + st.stack_sys + st.mspan_sys + st.mcache_sys + st.buck_hash_sys + st.gc_sys + st.other_sys);
    cr_assert(weft_profile_count(weft_profile_lookup("heap")) >= 40);
}

Test(prof_heap, its_memory_is_in_the_statistics) { run_at(1, counted); }

/* ---- the viewer ---------------------------------------------------------------------------------------------------- */

#define TOOL TEST_SRC "/build/go/pprof"

static struct test_output out;
static char path[64];

static const char *top(const char *name, const char *option)
{
    struct sink to = { 0 };
    snprintf(path, sizeof path, "/tmp/weft-heap-%d", (int)getpid());
    cr_assert_eq(weft_profile_write(weft_profile_lookup(name), sink_write, &to, 0), 0);
    FILE *f = fopen(path, "we");
    cr_assert(f != NULL && fwrite(to.bytes, 1, to.len, f) == to.len && fclose(f) == 0);
    const char *argv[] = { TOOL, "-top", "-nodecount=5", option, path, NULL };
    weft_blocking_begin();
    int code = test_child(&out, argv, NULL);
    weft_blocking_end();
    cr_assert_eq(code, 0, "%s", out.text);
    unlink(path);
    return out.text;
}

#define SAYS(this) cr_assert(strstr(out.text, this) != NULL, "no \"%s\" in\n%s", this, out.text)

static void viewed(void *arg)
{
    (void)arg;
    for (int i = 0; i < 1024; i++)
        kept[i] = site_a(1024);
    for (int i = 1024; i < 1024 + 128; i++)
        kept[i] = site_b(65536);
    collect();
    drop_kept(2000);
    collect();
    for (int i = 0; i < 64; i++)
        kept[i] = site_b(65536);
    collect();
    top("heap", "-sample_index=inuse_space");
    SAYS("Type: inuse_space");
    SAYS("4MB   100%   100%        4MB   100%  site_b");
    top("heap", "-sample_index=alloc_objects");
    SAYS("1024");
    top("allocs", "-flat");
    SAYS("Type: alloc_space");
    SAYS("12MB");
    SAYS("site_a");
}

Test(prof_heap, in_go_tool_pprof)
{
    if (access(TOOL, X_OK) != 0)
        cr_skip_test("go tool pprof is not there: install Go");
    run_at(1, viewed);
}
