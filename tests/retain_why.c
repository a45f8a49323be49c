/* weft_why_alive and weft_heap_dump as a program sees them: every kind of root is named, types and places too, errors are as promised, and a busy
 * program goes on. */
#include "heap_test.h"
#include "retain_test.h"
#include <errno.h>
#include <pthread.h>

struct inner { uint64_t n; void *leaf; };
struct outer { uint64_t n[3]; struct inner *inner; };
static void *table[16];
static __thread void *volatile of_thread; /* nobody reads it */

static void why(void *obj, struct sink *s, const char *wanted)
{
    sink_free(s);
    cr_assert_eq(weft_why_alive(obj, sink_write, s, WEFT_FORM_TEXT), 0);
    cr_assert(strstr(s->text, wanted) != NULL, "no \"%s\" in\n%s", wanted, s->text);
    struct sink j = { 0 };
    cr_assert_eq(weft_why_alive(obj, sink_write, &j, WEFT_FORM_JSON), 0);
    js_parse(j.text);
    sink_free(&j);
}

/* The object's address as a number that no stack holds. */
static __attribute__((noinline)) uintptr_t chain(void)
{
    struct outer *o = weft_alloc_typed(WEFT_TYPE(struct outer, inner));
    struct inner *in = weft_alloc_typed(WEFT_TYPE(struct inner, leaf));
    void **list = weft_alloc(20 * sizeof *list);
    o->inner = in;
    in->leaf = weft_alloc_noscan(100);
    list[7] = o;
    table[3] = list;
    return ~(uintptr_t)in->leaf;
}

static void tells_the_way(void *arg)
{
    (void)arg;
    struct sink s = { 0 };
    uintptr_t leaf = chain();
    test_wipe_stack();
    why((void *)~leaf, &s, "is kept by table in retain_why, +24\n");
    const char *p = strstr(s.text, "\n  -> ");
    cr_assert(p != NULL && (p = strstr(p, "bytes, conservative")) != NULL && (p = strstr(p, "field at 56\n  -> ")) != NULL &&
              (p = strstr(p, "32 bytes, struct outer")) != NULL && (p = strstr(p, "field at 24\n  -> ")) != NULL &&
              (p = strstr(p, "16 bytes, struct inner")) != NULL && (p = strstr(p, "field at 8\n  -> ")) != NULL &&
              (p = strstr(p, "104 bytes, noscan")) != NULL, "%s", s.text);
    cr_assert(strstr(s.text, "allocated by chain at retain_why.c:") != NULL, "%s", s.text);
    sink_free(&s);
    cr_assert_eq(weft_why_alive((char *)~leaf + 5, sink_write, &s, WEFT_FORM_JSON), 0);
    cr_assert_eq(json_number(s.text, "\"object\"", "offset"), 5);
    cr_assert_eq(json_number(s.text, "\"path\"", "field"), 56);
    cr_assert(strstr(s.text, "\"symbol\":\"table\"") != NULL && strstr(s.text, "\"kind\":\"data\"") != NULL, "%s", s.text);
    sink_free(&s);
}
Test(retain_why, tells_the_way_object_by_object) { test_run_debug(0, "memprofilerate=1", tells_the_way, NULL); }

/* ---- kinds of roots --------------------------------------------------------------------------------------------- */

static void nothing(void *obj, void *ctx) { (void)obj, (void)ctx; }
static void nothing_more(void *arg) { (void)arg; }
static __attribute__((noinline)) uintptr_t hidden_object(void) { return ~(uintptr_t)weft_alloc_noscan(64); }

/* Each keeps the object for `by`, alone, and gives its number. */
static __attribute__((noinline)) uintptr_t kept_by(const char *by)
{
    uintptr_t h = hidden_object();
    void *p = (void *)~h;
    if (strcmp(by, "handle") == 0) {
        weft_handle_new(p);
    } else if (strcmp(by, "range") == 0) {
        void **mem = calloc(4, sizeof *mem);
        mem[2] = p;
        weft_root_add(mem, 4 * sizeof *mem);
    } else if (strcmp(by, "ctx") == 0) {
        table[0] = weft_alloc_noscan(16);
        weft_set_finalizer(table[0], nothing, p);
    } else if (strcmp(by, "cleanup") == 0) {
        table[0] = weft_alloc_noscan(16);
        weft_add_cleanup(table[0], nothing_more, p, NULL);
    } else if (strcmp(by, "pin") == 0) {
        static weft_pinner pinner;
        weft_pin(&pinner, p);
    } else if (strcmp(by, "thread") == 0) {
        of_thread = p;
    }
    return h;
}

static void kinds(void *arg)
{
    static const struct { const char *by, *text; } of[] = {
        { "handle", "is kept by handle or pin 0x" }, { "pin", "is kept by handle or pin 0x" },
        { "range", " of weft_root_add\n" }, { "ctx", "is kept by ctx of the finalizer of 0x" }, { "cleanup", "is kept by arg of a cleanup of 0x" },
        { "thread", "is kept by thread-local storage of thread " },
    };
    (void)arg;
    struct sink s = { 0 };
    weft_lock_os_thread();
    for (size_t i = 0; i < w_countof(of); i++) {
        uintptr_t h = kept_by(of[i].by);
        test_wipe_stack();
        why((void *)~h, &s, of[i].text);
    }
    sink_free(&s);
}
Test(retain_why, names_the_kind_of_root) { test_run_procs(2, kinds, NULL); }

static weft_chan *gate;
static uintptr_t of_other;
static uint64_t other_id;

static void holds(void *arg)
{
    (void)arg;
    void *volatile mine = weft_alloc_noscan(64);
    __atomic_store_n(&of_other, ~(uintptr_t)mine, __ATOMIC_RELEASE); /* acq in on_stacks */
    int v;
    weft_chan_recv(gate, &v);
    weft_keep_alive(mine);
}

static void on_stacks(void *arg)
{
    (void)arg;
    struct sink s = { 0 };
    char text[80];
    weft_go_opts opts = WEFT_GO_OPTS_INIT;
    opts.id = &other_id;
    gate = weft_chan_make(sizeof(int), 0);
    cr_assert_eq(weft_go_opts_run(holds, NULL, &opts), 0);
    while (__atomic_load_n(&of_other, __ATOMIC_ACQUIRE) == 0)
        weft_yield();
    snprintf(text, sizeof text, " of fiber %lu\n", (unsigned long)other_id);
    why((void *)~of_other, &s, text);
    cr_assert(strstr(s.text, "is kept by word at stack depth ") != NULL, "%s", s.text);
    /* Of another span, since an allocation leaves the address of the next on the stack; and not its first, for the other fiber's has the end of its
     * own span, where this one may begin. */
    void *volatile mine = NULL;
    for (int i = 0; i < 3; i++)
        mine = weft_alloc_noscan(6000);
    snprintf(text, sizeof text, " of fiber %lu, which asks\n", (unsigned long)weft_fiber_id());
    why(mine, &s, text);
    sink_free(&s);
    weft_chan_close(gate);
}
Test(retain_why, what_lies_on_stacks_comes_last) { test_run(on_stacks, NULL); }

struct pair { struct pair *other; uint64_t n; };
static __attribute__((noinline)) uintptr_t finalizers_in_a_circle(void)
{
    struct pair *a = weft_alloc(sizeof *a), *b = weft_alloc(sizeof *b);
    a->other = b;
    b->other = a;
    weft_set_finalizer(a, nothing, NULL);
    weft_set_finalizer(b, nothing, NULL);
    return ~(uintptr_t)a;
}

static void circle(void *arg)
{
    (void)arg;
    struct sink s = { 0 };
    uintptr_t h = finalizers_in_a_circle();
    test_wipe_stack();
    why((void *)~h, &s, "which has a finalizer\n");
    sink_free(&s);
}
Test(retain_why, a_circle_of_finalizers) { test_run(circle, NULL); }

/* ---- from outside, and errors ------------------------------------------------------------------------------------ */

static void *from_thread(void *h)
{
    struct sink s = { 0 };
    cr_assert_eq(weft_why_alive((void *)~(uintptr_t)h, sink_write, &s, WEFT_FORM_TEXT), 0);
    cr_assert(strstr(s.text, "is kept by table in ") != NULL, "%s", s.text);
    sink_free(&s);
    cr_assert_eq(weft_heap_dump(sink_write, &s), 0);
    js_parse(s.text);
    sink_free(&s);
    return NULL;
}

static void threads(void *arg)
{
    (void)arg;
    uintptr_t leaf = chain();
    pthread_t t;
    pthread_create(&t, NULL, from_thread, (void *)leaf);
    weft_blocking_begin();
    pthread_join(t, NULL);
    weft_blocking_end();
}
Test(retain_why, a_thread_of_the_host_asks) { test_run(threads, NULL); }

static int refuse(void *ctx, const void *data, size_t n) { (void)ctx, (void)data, (void)n; return -EPIPE; }

static void errors(void *arg)
{
    (void)arg;
    struct sink s = { 0 };
    int local;
    void *obj = weft_alloc(16);
    cr_expect_eq(weft_why_alive(obj, NULL, NULL, WEFT_FORM_TEXT), -EINVAL);
    cr_expect_eq(weft_why_alive(obj, sink_write, &s, 7), -EINVAL);
    cr_expect_eq(weft_why_alive(&local, sink_write, &s, WEFT_FORM_TEXT), -ENOENT);
    cr_expect_eq(weft_why_alive(NULL, sink_write, &s, WEFT_FORM_TEXT), -ENOENT);
    cr_expect_eq(weft_why_alive(obj, refuse, NULL, WEFT_FORM_JSON), -EPIPE);
    cr_expect_eq(weft_heap_dump(NULL, NULL), -EINVAL);
    cr_expect_eq(weft_heap_dump(refuse, NULL), -EPIPE);
    cr_expect_eq(weft_type_name(NULL, "x"), -EINVAL);
    cr_expect_eq(weft_type_name(WEFT_TYPE(struct inner, leaf), ""), -EINVAL);
    cr_expect_eq(s.len, 0);
}
Test(retain_why, errors)
{
    cr_expect_eq(weft_why_alive(&table, sink_write, NULL, WEFT_FORM_TEXT), -ESRCH);
    cr_expect_eq(weft_heap_dump(sink_write, NULL), -ESRCH);
    test_run(errors, NULL);
}

static void every_refusal(void *arg)
{
    (void)arg;
    int err;
    struct sink s = { 0 };
    uintptr_t leaf = chain();
    err = weft_why_alive((void *)~leaf, sink_write, &s, WEFT_FORM_JSON);
    cr_assert(err == 0 || ((err == -ENOMEM || err == -EAGAIN) && s.len == 0), "%d", err);
    if (err == 0)
        js_parse(s.text);
    sink_free(&s);
    err = weft_heap_dump(sink_write, &s);
    cr_assert(err == 0 || err == -ENOMEM || err == -EAGAIN, "%d", err);
    if (err == 0)
        js_parse(s.text);
    sink_free(&s);
}

/* From the nth request of memory on, all fail. */
Test(retain_why, without_memory, .timeout = 60)
{
    for (int n = 1; n < 200; n += 3) {
        char debug[64];
        snprintf(debug, sizeof debug, "failmem=%d,failrun=1000000,gcstress=0", n);
        weft_config c = { .size = sizeof c, .debug = debug };
        int err = weft_run(n < 60 ? nothing_more : every_refusal, NULL, &c);
        cr_assert(err == 0 || err == -ENOMEM || err == -EAGAIN, "%d", err);
    }
}

/* ---- the dump ------------------------------------------------------------------------------------------------------- */

static void names(void *arg)
{
    enum { N = 3000 };
    struct node { struct node *next; uint64_t a, b; };
    (void)arg;
    size_t at = 8;
    const weft_type *t = weft_type_make(40, &at, 1);
    struct sink s = { 0 };
    cr_assert_eq(weft_type_name(t, "a \"quoted\" name"), 0);
    cr_assert_eq(weft_type_name(t, "another"), 0);
    cr_assert_eq(weft_type_name(t, "another"), 0);
    for (int i = 0; i < N; i++) {
        struct node *n = weft_alloc_typed(WEFT_TYPE(struct node, next));
        n->next = table[0];
        table[0] = n;
        void **o = weft_alloc_typed(t);
        o[1] = table[1];
        table[1] = o;
    }
    cr_assert_eq(weft_heap_dump(sink_write, &s), 0);
    js_parse(s.text);
    cr_assert_eq(json_number(s.text, "\"type\":\"struct node\"", "objects"), N);
    cr_assert_eq(json_number(s.text, "\"type\":\"another | a \\\"quoted\\\" name\"", "objects"), N, "%s", s.text);
    double objects = json_number(s.text, "\"heap\"", "objects"), bytes = json_number(s.text, "\"heap\"", "bytes");
    cr_assert(objects >= 2 * N && objects < 2 * N + 300 && bytes >= N * (24 + 40), "%.0f objects, %.0f bytes", objects, bytes);
    cr_assert_eq(json_number(s.text, "\"retained\"", "unreached"), 0);
    double kept = json_number(s.text, "\"kind\":\"typed\",\"bytes\":40,\"retained_bytes\"", "retained_objects");
    cr_assert(kept > N - 20 && kept <= N, "some of the last are on the stack, too: %s", s.text);
    /* every object is sampled: estimates are counts */
    cr_assert_eq(json_number(s.text, "\"sites\"", "objects"), N, "%s", s.text);
    cr_assert(strstr(s.text, "\"stack\":[\"names at retain_why.c:") != NULL, "%s", s.text);
    sink_free(&s);
}
Test(retain_why, the_dump_counts_and_names) { test_run_debug(0, "memprofilerate=1", names, NULL); }

static void estimates(void *arg)
{
    enum { N = 400000 };
    (void)arg;
    for (int i = 0; i < N; i++) {
        void **o = weft_alloc(64);
        o[0] = table[0];
        table[0] = o;
    }
    struct sink s = { 0 };
    cr_assert_eq(weft_heap_dump(sink_write, &s), 0);
    double n = json_number(s.text, "\"sites\"", "objects"), bytes = json_number(s.text, "\"sites\"", "bytes");
    cr_assert(n > N * 0.7 && n < N * 1.3 && bytes > N * 64 * 0.7 && bytes < N * 64 * 1.3, "%.0f objects of %d: %s", n, N, s.text);
    sink_free(&s);
}
Test(retain_why, sites_are_estimates) { test_run_debug(0, "memprofilerate=65536,schedseed=7", estimates, NULL); }

static void while_busy(void *arg)
{
    (void)arg;
    busy_begin(busy_alloc, 6);
    for (int i = 0; i < 20; i++) {
        struct sink s = { 0 };
        cr_assert_eq(weft_heap_dump(sink_write, &s), 0);
        js_parse(s.text);
        cr_assert_eq(json_number(s.text, "\"retained\"", "unreached"), 0, "%s", s.text);
        sink_free(&s);
        uintptr_t leaf = chain();
        cr_assert_eq(weft_why_alive((void *)~leaf, sink_write, &s, WEFT_FORM_TEXT), 0);
        sink_free(&s);
    }
    busy_end();
}
Test(retain_why, of_a_busy_program_nothing_is_missed, .timeout = 60) { test_run_procs(3, while_busy, NULL); }
