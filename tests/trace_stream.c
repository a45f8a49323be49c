/* Generations, buffers and readers, each contract by itself; traces through Go's own tool. */
#include "base/fail.h"
#include "trace_test.h"

static const char *const fixed[] = { "chan receive", "sleep" };
enum { RECEIVE = 1, SLEEP };

static void open_trace(size_t pool_bytes, size_t table_bytes)
{
    struct trace_setup s = { .pool_bytes = pool_bytes, .table_bytes = table_bytes, .fixed = fixed, .nfixed = w_countof(fixed) };
    cr_assert_eq(off_init(), 0);
    cr_assert_eq(trace_open(&s), 0);
}

/* One thread that runs fiber id on processor id; they are told of in each generation. */
struct one { struct trace_emitter *e; uint64_t id; struct trace_resource p, g; };

static struct one one_fenced(uint64_t id, bool fenced)
{
    struct one o = { .e = trace_emitter_get(100 + id, fenced), .id = id };
    cr_assert_not_null(o.e);
    return o;
}
static struct one one_new(uint64_t id) { return one_fenced(id, false); }

static bool enter(struct one *o)
{
    if (!trace_enter(o->e))
        return false;
    if (trace_first(&o->p, o->e->gen))
        trace_event(o->e, PROC_STATUS, o->id, TRACE_PROC_RUNNING);
    if (trace_first(&o->g, o->e->gen))
        trace_event(o->e, GO_STATUS, o->id, o->e->m, TRACE_GO_RUNNING);
    return true;
}

static void say(struct one *o, const char *text)
{
    if (enter(o)) {
        trace_event(o->e, USER_LOG, 0, trace_text(o->e, "k", 1), trace_text(o->e, text, strlen(text)), 0);
        trace_leave(o->e);
    }
}

static void end_generation(bool stop)
{
    trace_switch(stop);
    trace_finish(NULL);
}

/* The end of the trace: everything is given back. */
static void close_trace(void)
{
    uint64_t was = off_in_use_bytes();
    cr_assert_eq(trace_bufs_used(), 0u);
    trace_close();
    cr_assert_lt(off_in_use_bytes(), was);
}

static size_t count_lines(const struct lines *l, uint64_t m, const char *text)
{
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++)
        n += l->at[i].m == m && (text == NULL || strstr(l->at[i].text, text) != NULL);
    return n;
}

/* ---- contents ---------------------------------------------------------------------------------------------------- */

Test(trace_stream, three_generations_hold_exactly_what_was_told)
{
    static const char *const want[] = { /* of each generation */
        "StateTransition GoID=2 Running->Waiting Reason=\"sleep\" Stack=0x10,0x20,0x30",
        "StateTransition GoID=1 Runnable->Running Reason=\"\"",
        "Log Task=0 Category=\"k\" Message=\"hello\"",
        "StateTransition GoID=2 Waiting->Runnable Reason=\"\" Stack=0x20",
        "StateTransition GoID=1 Running->Runnable Reason=\"chan receive\"",
        "StateTransition GoID=2 Runnable->Running Reason=\"\"",
    };
    struct sink s = { 0 };
    go_trace();
    open_trace(0, 0);
    struct trace_emitter *e = trace_emitter_get(7, false);
    struct trace_resource p = { 0 }, a = { 0 }, b = { 0 };
    uintptr_t pcs[] = { 0x10, 0x20, 0x30 };
    trace_begin();
    sink_open(&s);
    for (int i = 0; i < 3; i++) {
        cr_assert(trace_enter(e));
        cr_assert(trace_first(&p, e->gen) && trace_first(&a, e->gen) && trace_first(&b, e->gen) && !trace_first(&p, e->gen));
        trace_event(e, PROC_STATUS, 0, TRACE_PROC_RUNNING);
        trace_event(e, GO_STATUS, 2, 7, TRACE_GO_RUNNING);
        trace_event(e, GO_STATUS, 1, TRACE_NONE, TRACE_GO_RUNNABLE);
        trace_event(e, GO_BLOCK, SLEEP, trace_stack(e, pcs, 3));
        trace_event(e, GO_START, 1, trace_next(&a, e->gen));
        trace_event(e, USER_LOG, 0, trace_text(e, "k", 1), trace_text(e, "hello", 5), 0);
        trace_leave(e);
        cr_assert(trace_enter(e));
        trace_event(e, GO_UNBLOCK, 2, trace_next(&b, e->gen), trace_stack(e, pcs + 1, 1));
        trace_event(e, GO_STOP, RECEIVE, 0);
        trace_event(e, GO_START, 2, trace_next(&b, e->gen));
        trace_leave(e);
        end_generation(i == 2);
    }
    cr_assert(!trace_enter(e), "the trace has ended");
    sink_close(&s);
    cr_assert_eq(s.result, 0);
    cr_assert_eq(s.stats.generations, 3u);
    struct lines got = go_parse(s.path);
    cr_assert_eq(got.n, 3 * w_countof(want));
    for (size_t i = 0; i < got.n; i++) {
        cr_expect_str_eq(got.at[i].text, want[i % w_countof(want)]);
        cr_expect_eq(got.at[i].gen, i / w_countof(want) + 1);
        cr_expect_eq(got.at[i].m, 7u);
    }
    trace_emitter_put(e);
    close_trace();
    unlink(s.path);
}

/* Times are the monotonic clock's, to the unit; events of one enter have one time, which Go's reader spreads by a nanosecond each. */
Test(trace_stream, times_are_kept)
{
    struct sink s = { 0 };
    go_trace();
    open_trace(0, 0);
    struct one o = one_new(1);
    trace_begin();
    sink_open(&s);
    int64_t before = os_now_ns();
    say(&o, "now");
    int64_t after = os_now_ns();
    uint64_t t0 = (uint64_t)after / TRACE_UNIT_NS + 1000;
    for (uint64_t i = 0; i < 5; i++) { /* the fourth is earlier than the third */
        static const uint64_t at[] = { 0, 1, 100000, 50000, 100001 };
        cr_assert(trace_enter_at(o.e, t0 + at[i]));
        trace_event(o.e, HEAP_ALLOC, i);
        trace_leave(o.e);
    }
    end_generation(true);
    sink_close(&s);
    char command[700];
    snprintf(command, sizeof command, "%s -d=parsed %s | grep -v ' Sync \\| StateTransition '", go_trace(), s.path);
    struct test_output *out = malloc(sizeof *out);
    test_shell(out, command);
    long t[6];
    const char *at = out->text;
    for (int i = 0; i < 6; i++) {
        at = strstr(at, "Time=");
        cr_assert_not_null(at);
        t[i] = strtol(at += 5, NULL, 10);
    }
    cr_expect(t[0] >= before - 1000 && t[0] <= after + 1000, "%ld is not within [%ld, %ld]", t[0], (long)before, (long)after);
    long first = (long)(t0 * TRACE_UNIT_NS);
    cr_expect_eq(t[1], first);
    cr_expect_eq(t[2], first + 8);
    cr_expect_eq(t[3], first + 800000);
    cr_expect_eq(t[4], first + 800001, "time that runs backwards stands still");
    cr_expect_eq(t[5], first + 800008);
    free(out);
    trace_emitter_put(o.e);
    close_trace();
    unlink(s.path);
}

/* Records of one kind in the tables of a file. */
static size_t table_records(const char *path, uint8_t kind)
{
    static uint8_t data[8 << 20];
    FILE *f = fopen(path, "r");
    size_t len = fread(data, 1, sizeof data, f), n = 0;
    fclose(f);
    const uint8_t *p = data + TRACE_HEADER_BYTES, *end = data + len;
    for (struct trace_batch b; p < end && (*p == TRACE_END_OF_GENERATION ? (p++, b.length = 0, true) : trace_get_batch(&p, end, &b)); p += b.length) {
        const uint8_t *at = p, *until = p + b.length;
        uint64_t id, m, v;
        if (b.length == 0 || (*at != TRACE_STRINGS && *at != TRACE_STACKS))
            continue;
        for (bool texts = *at++ == TRACE_STRINGS; at < until;) {
            n += *at++ == kind;
            cr_assert(trace_get(&at, until, &id) && trace_get(&at, until, &m));
            for (uint64_t i = 0; !texts && i < m * 4; i++)
                cr_assert(trace_get(&at, until, &v));
            at += texts ? m : 0;
        }
    }
    return n;
}

static unsigned inlined(void *arg, uintptr_t pc, struct trace_frame *out, unsigned max)
{
    (void)arg;
    (void)max;
    if (pc == 0x99)
        return 0;
    out[0] = (struct trace_frame){ "inner", "a.h", (unsigned)pc };
    out[1] = (struct trace_frame){ "middle", "a.h", 2 };
    out[2] = (struct trace_frame){ "outer", "a.c", 3 };
    return 3;
}

Test(trace_stream, strings_and_stacks_are_written_once_and_inlined_frames_are_told_apart)
{
    struct sink s = { 0 };
    go_trace();
    open_trace(0, 0);
    struct one o = one_new(1);
    trace_begin();
    sink_open(&s);
    for (int i = 0; i < 1000; i++) {
        uintptr_t pcs[] = { 0x10 + (uintptr_t)i % 5, 0x99 };
        cr_assert(enter(&o));
        trace_event(o.e, USER_LOG, 0, trace_text(o.e, "key", 3), trace_text(o.e, i % 2 ? "odd" : "even", i % 2 ? 3 : 4), trace_stack(o.e, pcs, 2));
        trace_leave(o.e);
    }
    trace_switch(false);
    trace_finish(&(struct trace_symbols){ .frames = inlined });
    test_until(trace_reader_stats(s.reader).generations == 1);
    fflush(s.file);
    cr_expect_eq(table_records(s.path, TRACE_STACK), 5u);
    /* "chan receive", "sleep", "key", "odd", "even"; inner, middle, outer, 0x99, a.h, a.c */
    cr_expect_eq(table_records(s.path, TRACE_STRING), 11u);
    say(&o, "new");
    end_generation(false);
    say(&o, "new");
    end_generation(true);
    sink_close(&s);
    cr_expect_eq(table_records(s.path, TRACE_STACK), 5u);
    cr_expect_eq(table_records(s.path, TRACE_STRING), 11u + 2 * 4, "the next generations have what they use");
    struct lines got = go_parse(s.path);
    cr_expect_eq(count_lines(&got, 101, "Message=\"odd\" Stack=inner,middle,outer,0x99"), 500u);
    cr_expect_eq(count_lines(&got, 101, "Message=\"even\" Stack=inner,middle,outer,0x99"), 500u);
    trace_emitter_put(o.e);
    close_trace();
    unlink(s.path);
}

Test(trace_stream, long_texts_and_stacks_are_cut)
{
    struct sink s = { 0 };
    char text[3000];
    uintptr_t pcs[300];
    go_trace();
    open_trace(0, 0);
    struct one o = one_new(1);
    memset(text, 'x', sizeof text);
    for (size_t i = 0; i < w_countof(pcs); i++)
        pcs[i] = 0x1000 + i;
    trace_begin();
    sink_open(&s);
    cr_assert(enter(&o));
    trace_event(o.e, USER_LOG, 0, trace_text(o.e, "k", 1), trace_text(o.e, text, sizeof text), trace_stack(o.e, pcs, w_countof(pcs)));
    trace_leave(o.e);
    end_generation(true);
    sink_close(&s);
    struct lines got = go_parse(s.path);
    cr_assert_eq(got.n, 1u);
    cr_expect_eq(strspn(strstr(got.at[0].text, "Message=\"") + 9, "x"), (size_t)TRACE_TEXT_MAX);
    size_t frames = 1;
    for (const char *c = strstr(got.at[0].text, "Stack="); *c != 0; c++)
        frames += *c == ',';
    cr_expect_eq(frames, (size_t)TRACE_FRAMES_MAX);
    trace_emitter_put(o.e);
    close_trace();
    unlink(s.path);
}

Test(trace_stream, samples_are_shown_where_they_were_taken)
{
    struct sink s = { 0 };
    go_trace();
    open_trace(0, 0);
    struct one o = one_new(1);
    trace_begin();
    sink_open(&s);
    say(&o, "before");
    uint64_t t = trace_now(&trace.clock[1]);
    say(&o, "after");
    trace_switch(true);
    for (uintptr_t i = 0; i < 2000; i++)
        trace_sample(t, 101, 1, i % 2, &(uintptr_t){ 0x10 + i % 3 }, 1);
    trace_sample(t, 555, TRACE_NONE, 0, NULL, 0);
    trace_finish(NULL);
    sink_close(&s);
    struct lines got = go_parse(s.path);
    cr_expect_eq(count_lines(&got, 101, "StackSample"), 2000u);
    cr_expect_eq(count_lines(&got, 101, "Stack=0x11"), 667u);
    cr_expect_eq(count_lines(&got, 555, "StackSample"), 1u);
    trace_emitter_put(o.e);
    close_trace();
    unlink(s.path);
}

/* ---- buffers ---------------------------------------------------------------------------------------------------------- */

#define MANY 60000 /* some 36 buffers */

Test(trace_stream, many_buffers_keep_their_order)
{
    struct sink s = { 0 };
    go_trace();
    open_trace(8 << 20, 0);
    struct one o = one_new(1);
    trace_begin();
    sink_open(&s);
    cr_expect_eq(load_rlx(&trace.due), 0u);
    for (uint64_t i = 0; i < MANY; i++) {
        cr_assert(enter(&o));
        trace_event(o.e, HEAP_ALLOC, i << 40);
        trace_leave(o.e);
    }
    cr_expect(trace_wait_due(0), "the generation is not due at a sixteenth of the pool");
    end_generation(true);
    sink_close(&s);
    struct lines got = go_parse(s.path);
    cr_assert_eq(got.n, (size_t)MANY);
    for (uint64_t i = 0; i < MANY; i++)
        cr_assert_eq(strtoul(strstr(got.at[i].text, "Uint64(") + 7, NULL, 10), i << 40);
    trace_emitter_put(o.e);
    close_trace();
    unlink(s.path);
}

Test(trace_stream, a_generation_for_which_the_buffers_do_not_suffice_is_lost_whole_and_the_next_is_not)
{
    struct sink s = { 0 };
    go_trace();
    open_trace(1 << 20, 0);
    struct one o = one_new(1), other = one_new(2);
    trace_begin();
    sink_open(&s);
    for (int i = 0; i < 4; i++) {
        say(&o, "first");
        say(&other, "second");
        for (uint64_t k = 0; i % 2 == 1 && k < MANY * 4; k++) {
            cr_assert(enter(&o));
            trace_event(o.e, HEAP_ALLOC, k << 40);
            trace_leave(o.e);
        }
        end_generation(i == 3);
        test_until(trace_reader_stats(s.reader).generations + trace_reader_stats(s.reader).dropped == (uint64_t)i + 1);
    }
    sink_close(&s);
    cr_expect_eq(trace_stats().generations, 4u);
    cr_expect_eq(trace_stats().lost, 2u);
    cr_expect_eq(s.stats.generations, 2u);
    cr_expect_eq(s.stats.dropped, 2u);
    struct lines got = go_parse(s.path);
    cr_expect_eq(count_lines(&got, 101, "first"), 2u);
    cr_expect_eq(count_lines(&got, 102, "second"), 2u);
    cr_expect_eq(count_lines(&got, 101, "Metric"), 0u);
    cr_expect_eq(count_lines(&got, 0, "1 generations of the trace are missing here"), 1u); /* the last is at the end */
    trace_emitter_put(o.e);
    trace_emitter_put(other.e);
    close_trace();
    unlink(s.path);
}

/* Events of the collector are numbered through all generations, those that nobody sees included. */
Test(trace_stream, what_the_collector_did_in_a_lost_generation_is_known)
{
    struct sink s = { 0 };
    go_trace();
    open_trace(1 << 20, 0);
    struct one o = one_new(1);
    trace_begin();
    sink_open(&s);
    for (uint64_t i = 1; i <= 3; i++) {
        for (uint64_t k = 0; i == 2 && load_rlx(&trace.lost[0]) == 0; k++) {
            cr_assert(enter(&o));
            trace_event(o.e, HEAP_ALLOC, k << 40);
            trace_leave(o.e);
        }
        cr_assert(enter(&o));
        if (i == 2)
            trace_event(o.e, GC_END, i);
        else
            trace_event(o.e, GC_BEGIN, i, 0);
        trace_leave(o.e);
        end_generation(i == 3);
        test_until(trace_reader_stats(s.reader).generations + trace_reader_stats(s.reader).dropped == i);
    }
    sink_close(&s);
    cr_expect_eq(s.stats.dropped, 1u);
    struct lines got = go_parse(s.path);
    cr_expect_eq(count_lines(&got, 101, "RangeBegin Name=\"GC concurrent mark phase\""), 2u);
    cr_expect_eq(count_lines(&got, 0, "RangeEnd Name=\"GC concurrent mark phase\""), 1u);
    trace_emitter_put(o.e);
    close_trace();
    unlink(s.path);
}

/* Whether something was left out is settled when it is, not by how much room there is later. */
Test(trace_stream, what_was_left_out_is_not_mended_by_room_that_comes_later)
{
    struct sink first = { 0 }, second = { 0 };
    open_trace(1 << 20, 0); /* 64 buffers */
    struct one o = one_new(1);
    trace_begin();
    sink_open(&first);
    for (int i = 0; i < 2; i++) {
        for (uint64_t k = 0; i == 0 ? trace_bufs_used() < 40 : load_rlx(&trace.lost[0]) == 0; k++) {
            cr_assert(enter(&o));
            trace_event(o.e, HEAP_ALLOC, k << 40);
            trace_leave(o.e);
        }
        if (i == 0) { /* its reader keeps it */
            end_generation(false);
            sink_open(&second);
            test_until(trace_reader_stats(first.reader).generations == 1);
        }
    }
    sink_close(&first);
    cr_assert_lt(trace_bufs_used(), 40u);
    end_generation(true);
    sink_close(&second);
    cr_expect_eq(trace_stats().lost, 1u);
    cr_expect_eq(second.stats.generations, 0u);
    trace_emitter_put(o.e);
    close_trace();
    unlink(first.path);
    unlink(second.path);
}

Test(trace_stream, a_full_table_costs_texts_and_not_the_trace)
{
    struct sink s = { 0 };
    go_trace();
    open_trace(0, 65536);
    struct one o = one_new(1);
    trace_begin();
    sink_open(&s);
    for (unsigned i = 0; i < 5000; i++) {
        char text[40];
        sprintf(text, "this is the text of number %u", i);
        say(&o, text);
    }
    cr_expect(trace_wait_due(0), "the generation is not due");
    end_generation(true);
    sink_close(&s);
    struct lines got = go_parse(s.path);
    size_t kept = count_lines(&got, 101, "this is the text of number");
    cr_expect_eq(got.n, 5000u);
    cr_expect(kept > 800 && kept < 1500, "%zu kept", kept);
    cr_expect_eq(trace_stats().texts_lost, 5000 - kept);
    trace_emitter_put(o.e);
    close_trace();
    unlink(s.path);
}

/* ---- generations --------------------------------------------------------------------------------------------------------- */

static w_u32 switched;

static void *switch_thread(void *arg)
{
    trace_switch(false);
    store_rel(&switched, 1);
    return arg;
}

/* An event that has begun in a generation ends in it, though others are in the next one already. */
Test(trace_stream, the_switch_waits_for_who_is_in_the_middle_of_an_event)
{
    struct sink s = { 0 };
    pthread_t th;
    go_trace();
    open_trace(0, 0);
    struct one o = one_new(1), other = one_new(2);
    trace_begin();
    sink_open(&s);
    say(&other, "other, in the old one");
    cr_assert(enter(&o));
    uint32_t gen = o.e->gen;
    pthread_create(&th, NULL, switch_thread, NULL);
    test_until(load_acq(&trace.gen) != gen);
    say(&other, "other, in the new one");
    for (int i = 0; i < 100; i++) {
        usleep(100);
        cr_assert_eq(load_acq(&switched), 0u, "the old generation was taken from an emitter that is in it");
    }
    trace_event(o.e, USER_LOG, 0, trace_text(o.e, "k", 1), trace_text(o.e, "in the old one", 14), 0);
    trace_leave(o.e);
    say(&o, "in the new one");
    pthread_join(th, NULL);
    trace_finish(NULL);
    end_generation(true);
    sink_close(&s);
    struct lines got = go_parse(s.path);
    cr_assert_eq(got.n, 4u);
    for (size_t i = 0; i < got.n; i++)
        cr_expect_eq(got.at[i].gen, strstr(got.at[i].text, "old") ? 1u : 2u, "%s is in generation %u", got.at[i].text, got.at[i].gen);
    trace_emitter_put(o.e);
    trace_emitter_put(other.e);
    close_trace();
    unlink(s.path);
}

static w_u32 stop, settled;
static w_u64 entered;

static void *enters_and_leaves(void *arg)
{
    struct trace_emitter *e = arg;
    char *wrong = NULL;
    while (load_rlx(&stop) == 0) {
        cr_assert(trace_enter_at(e, 0));
        uint32_t gen = e->gen;
        for (int i = 0; i < 20; i++)
            if (load_acq(&settled) == gen)
                wrong = "the switcher has gone on, though somebody is in that generation";
        trace_leave(e);
        store_rlx(&entered, load_rlx(&entered) + 1);
    }
    return wrong;
}

/* The two sides of [GEN] against each other, as often as can be. */
static void settle_often(bool fenced)
{
    pthread_t th;
    void *wrong;
    test_may_take(180); /* each switch waits for the thread, which may have to share a processor with it */
    open_trace(1 << 20, 65536);
    struct trace_emitter *e = trace_emitter_get(1, fenced);
    trace_begin();
    cr_assert_eq(pthread_create(&th, NULL, enters_and_leaves, e), 0);
    for (int i = 0, n = test_is_slow() ? 20000 : 300000; i < n || load_rlx(&entered) < 1000; i++) /* the thread may start late */
        store_rel(&settled, trace_switch(false));
    store_rlx(&stop, 1);
    pthread_join(th, &wrong);
    cr_expect_null(wrong, "%s", (char *)wrong);
    cr_expect_gt(load_rlx(&entered), 0u);
    trace_switch(true);
    trace_emitter_put(e);
    trace_close();
}

Test(trace_stream, who_is_in_a_generation_is_seen) { settle_often(false); }
Test(trace_stream, who_is_in_a_generation_is_seen_without_membarrier) { settle_often(true); }

/* As fast as it can, but no generation gets too large for a machine that is busy with other things. */
static void *busy(void *arg)
{
    struct one *o = arg;
    uint64_t n = 0, in_gen = 0;
    for (uint32_t gen = 0; load_rlx(&stop) == 0; n++) {
        while (in_gen > 200 && load_rlx(&trace.gen) == gen && load_rlx(&stop) == 0)
            usleep(100);
        cr_assert(enter(o));
        trace_event(o->e, HEAP_ALLOC, n);
        in_gen = o->e->gen == gen ? in_gen + 1 : 0;
        gen = o->e->gen;
        trace_leave(o->e);
    }
    return (void *)n;
}

/* Emitters that do nothing but emit, with and without membarrier; each number is there once, in order. */
static void storm(bool fenced)
{
    struct sink s = { 0 };
    struct one o[3];
    pthread_t th[3];
    go_trace();
    open_trace(64 << 20, 0);
    for (int i = 0; i < 3; i++)
        o[i] = one_fenced((uint64_t)i + 1, fenced);
    trace_begin();
    sink_open(&s);
    for (int i = 0; i < 3; i++) {
        say(&o[i], "is there from the beginning");
        pthread_create(&th[i], NULL, busy, &o[i]);
    }
    for (int i = 0; i < 100; i++) {
        test_until(load_rlx(&trace.bufs[load_rlx(&trace.gen) % 2]) >= 3); /* each has begun */
        end_generation(false);
        test_until(trace_reader_stats(s.reader).generations + trace_reader_stats(s.reader).dropped == trace_stats().generations);
    }
    store_rlx(&stop, 1);
    uint64_t n[3];
    for (int i = 0; i < 3; i++)
        pthread_join(th[i], (void **)&n[i]);
    end_generation(true);
    sink_close(&s);
    cr_assert_eq(s.stats.dropped, 0u);
    struct lines got = go_parse(s.path);
    uint64_t next[3] = { 0 };
    for (size_t i = 0; i < got.n; i++) {
        uint64_t k = got.at[i].m - 101;
        if (strstr(got.at[i].text, "Metric") == NULL)
            continue;
        cr_assert_lt(k, 3u);
        cr_assert_eq(strtoul(strstr(got.at[i].text, "Uint64(") + 7, NULL, 10), next[k]);
        next[k]++;
    }
    for (int i = 0; i < 3; i++) {
        cr_expect_eq(next[i], n[i]);
        trace_emitter_put(o[i].e);
    }
    close_trace();
    unlink(s.path);
}

Test(trace_stream, nothing_is_lost_between_generations) { storm(false); }
Test(trace_stream, nothing_is_lost_between_generations_without_membarrier) { storm(true); }

/* A fiber that is in a syscall from the beginning, and a processor that is stolen from it in the second generation. */
Test(trace_stream, what_nobody_touched_is_told_as_its_thread_s)
{
    struct sink s = { 0 };
    go_trace();
    open_trace(0, 0);
    struct one o = one_new(1), other = one_new(2);
    trace_begin();
    sink_open(&s);
    say(&o, "first");
    uint32_t gen = trace_switch(false);
    cr_assert(trace_first(&other.p, gen) && trace_first(&other.g, gen) && !trace_first(&o.p, gen));
    trace_event(trace_late(102), PROC_STATUS, 2, TRACE_PROC_SYSCALL);
    trace_event(trace_late(102), GO_STATUS, 2, 102, TRACE_GO_SYSCALL);
    trace_finish(NULL);
    cr_assert(enter(&o) && trace_first(&other.p, o.e->gen));
    trace_event(o.e, PROC_STATUS, 2, TRACE_PROC_ABANDONED);
    trace_event(o.e, PROC_STEAL, 2, trace_next(&other.p, o.e->gen), 102);
    trace_leave(o.e);
    cr_assert(trace_enter(other.e) && trace_first(&other.g, other.e->gen));
    trace_event(other.e, GO_STATUS, 2, 102, TRACE_GO_SYSCALL);
    trace_event(other.e, GO_SYSCALL_END_BLOCKED);
    trace_leave(other.e);
    end_generation(true);
    sink_close(&s);
    struct lines got = go_parse(s.path);
    cr_expect_eq(count_lines(&got, 102, "GoID=2 Syscall->Runnable"), 1u);
    trace_emitter_put(o.e);
    trace_emitter_put(other.e);
    close_trace();
    unlink(s.path);
}

/* They belong to what has ended: the next generation is not due because of them. */
Test(trace_stream, states_of_many_fibers_do_not_end_the_next_generation)
{
    struct sink s = { 0 };
    go_trace();
    open_trace(4 << 20, 0); /* 16 buffers are a generation */
    struct one o = one_new(1);
    trace_begin();
    sink_open(&s);
    for (int i = 0; i < 3; i++) {
        say(&o, "hello");
        trace_switch(i == 2);
        for (uint64_t f = 1000; f < 41000; f++)
            trace_event(trace_late(TRACE_NONE), GO_STATUS, f, TRACE_NONE, TRACE_GO_WAITING);
        cr_assert_gt(load_rlx(&trace.bufs[trace.late.gen % 2]), trace.soft_bufs);
        trace_finish(NULL);
        cr_expect(!trace_wait_due(0), "the next one is due");
        test_until(trace_reader_stats(s.reader).generations == (uint64_t)i + 1);
    }
    sink_close(&s);
    struct lines got = go_parse(s.path);
    cr_expect_eq(count_lines(&got, 101, "hello"), 3u);
    trace_emitter_put(o.e);
    close_trace();
    unlink(s.path);
}

Test(trace_stream, a_thread_that_ends_leaves_its_emitter_to_another_in_the_same_generation)
{
    struct sink s = { 0 };
    go_trace();
    open_trace(0, 0);
    trace_begin();
    sink_open(&s);
    struct trace_emitter *first = NULL;
    for (uint64_t i = 1; i <= 10; i++) {
        struct one o = one_new(i);
        first = first != NULL ? first : o.e;
        cr_expect_eq(o.e, first, "the record is not used again");
        cr_assert(trace_enter(o.e));
        trace_event(o.e, PROC_STATUS, i, TRACE_PROC_RUNNING);
        trace_event(o.e, HEAP_ALLOC, i);
        trace_event(o.e, PROC_STOP);
        trace_leave(o.e);
        trace_emitter_put(o.e);
        if (i == 5)
            end_generation(false);
    }
    end_generation(true);
    sink_close(&s);
    struct lines got = go_parse(s.path);
    cr_expect_eq(got.n, 10u);
    for (uint64_t i = 1; i <= 10; i++)
        cr_expect_eq(count_lines(&got, 100 + i, "Metric"), 1u);
    close_trace();
    unlink(s.path);
}

Test(trace_stream, tracing_begins_anew_with_higher_numbers)
{
    uint32_t numbers[10], last = 0;
    go_trace();
    for (int i = 0; i < 5; i++) {
        struct sink s = { 0 };
        open_trace(0, 0);
        struct one o = one_new(1);
        say(&o, "nobody hears this");
        trace_begin();
        sink_open(&s);
        say(&o, "hello");
        end_generation(true);
        say(&o, "nor this");
        sink_close(&s);
        struct lines got = go_parse(s.path);
        cr_expect_eq(got.n, 1u);
        cr_expect_eq(file_generations(s.path, numbers, 10), 1u);
        cr_expect_gt(numbers[0], last);
        last = numbers[0];
        trace_emitter_put(o.e);
        close_trace();
        unlink(s.path);
    }
}

/* ---- readers --------------------------------------------------------------------------------------------------------------- */

static bool same_bytes(const char *a, const char *b)
{
    FILE *f = fopen(a, "r"), *g = fopen(b, "r");
    int x, y;
    do {
        x = getc(f);
        y = getc(g);
    } while (x == y && x != EOF);
    fclose(f);
    fclose(g);
    return x == y;
}

Test(trace_stream, readers_get_what_is_finished_while_they_are_open)
{
    struct sink s[3] = { 0 };
    go_trace();
    open_trace(0, 0);
    struct one o = one_new(1);
    trace_begin();
    sink_open(&s[0]);
    sink_open(&s[1]);
    for (int i = 0; i < 6; i++) {
        if (i == 3)
            sink_open(&s[2]); /* comes later; what it begins with stands by itself */
        char text[20];
        sprintf(text, "generation %d", i);
        say(&o, text);
        end_generation(i == 5);
        if (i == 3)
            sink_close(&s[1]); /* leaves earlier */
    }
    sink_close(&s[0]);
    sink_close(&s[2]);
    static const int from[] = { 0, 0, 3 }, to[] = { 6, 4, 6 };
    for (int k = 0; k < 3; k++) {
        struct lines got = go_parse(s[k].path);
        cr_expect_eq(s[k].result, 0);
        cr_expect_eq(s[k].stats.generations, (uint64_t)(to[k] - from[k]));
        cr_expect_eq(s[k].stats.dropped, 0u);
        cr_assert_eq(got.n, (size_t)(to[k] - from[k]));
        for (int i = from[k]; i < to[k]; i++)
            cr_expect_eq(strstr(got.at[i - from[k]].text, "generation ")[11], '0' + i);
    }
    trace_emitter_put(o.e);
    close_trace();
    for (int k = 0; k < 3; k++)
        unlink(s[k].path);
}

Test(trace_stream, one_that_fails_in_the_middle_of_a_generation_ends_and_the_other_does_not)
{
    struct sink bad = { .room = 40000 }, good = { 0 }, again = { 0 };
    go_trace();
    open_trace(0, 0);
    struct one o = one_new(1);
    trace_begin();
    sink_open(&bad);
    sink_open(&good);
    sink_open(&again);
    for (uint64_t i = 0; i < MANY; i++) {
        cr_assert(enter(&o));
        trace_event(o.e, HEAP_ALLOC, i);
        trace_leave(o.e);
        if (i % (MANY / 10) == 0)
            end_generation(false);
    }
    test_until(trace_reader_stats(bad.reader).err != 0);
    say(&o, "it has failed");
    end_generation(true);
    sink_close(&bad);
    sink_close(&good);
    sink_close(&again);
    cr_expect_eq(bad.result, -EIO);
    cr_expect_eq(bad.stats.err, -EIO);
    cr_expect_eq(bad.stats.generations + bad.stats.dropped, 11u);
    cr_expect_gt(bad.stats.dropped, 1u);
    cr_expect_eq(good.result, 0);
    struct lines got = go_parse(good.path);
    cr_expect_eq(count_lines(&got, 101, "Metric"), (size_t)MANY);
    cr_expect_eq(count_lines(&got, 101, "it has failed"), 1u);
    cr_expect(same_bytes(good.path, again.path), "two readers of the same generations were given different ones");
    trace_emitter_put(o.e);
    close_trace();
    unlink(bad.path);
    unlink(good.path);
    unlink(again.path);
}

/* A writer that hangs holds up nobody, and what it holds is bounded. */
Test(trace_stream, one_that_hangs_loses_generations_and_holds_up_nobody)
{
    struct sink slow = { 0 }, quick = { 0 };
    go_trace();
    open_trace(8 << 20, 0); /* 512 buffers; a share is 32 */
    struct one o = one_new(1);
    trace_begin();
    store_rlx(&slow.stuck, 1);
    sink_open(&slow);
    sink_open(&quick);
    for (uint64_t i = 0; i < 100; i++) {
        for (uint64_t k = 0; k < 5000; k++) {
            cr_assert(enter(&o));
            trace_event(o.e, HEAP_ALLOC, i);
            trace_leave(o.e);
        }
        end_generation(false);
        test_until(trace_reader_stats(quick.reader).generations == i + 1);
        cr_assert_lt(trace_bufs_used(), 80u);
    }
    store_rel(&slow.stuck, 0);
    test_until(trace_reader_stats(slow.reader).generations + trace_reader_stats(slow.reader).dropped == 100);
    say(&o, "at last");
    end_generation(true);
    sink_close(&slow);
    sink_close(&quick);
    cr_expect_eq(slow.result, 0);
    cr_expect_eq(slow.stats.generations + slow.stats.dropped, 101u);
    cr_expect(slow.stats.dropped > 50 && slow.stats.dropped < 99, "%lu dropped", (unsigned long)slow.stats.dropped);
    cr_expect_eq(quick.stats.dropped, 0u);
    struct lines got = go_parse(slow.path);
    char missing[60];
    sprintf(missing, "%lu generations of the trace are missing here", (unsigned long)slow.stats.dropped);
    cr_expect_eq(count_lines(&got, 0, missing), 1u);
    cr_expect_eq(count_lines(&got, 101, "Metric"), (slow.stats.generations - 1) * 5000);
    cr_expect_eq(count_lines(&got, 101, "at last"), 1u);
    got = go_parse(quick.path);
    cr_expect_eq(count_lines(&got, 101, "Metric"), 500000u);
    trace_emitter_put(o.e);
    close_trace();
    unlink(slow.path);
    unlink(quick.path);
}

static int no_writer(void *ctx, const void *data, size_t n) { return (void)ctx, (void)data, (void)n, 0; }

Test(trace_stream, the_same_writer_twice_and_too_many_are_refused)
{
    struct trace_reader *r[TRACE_READERS], *other;
    int ctx[TRACE_READERS + 1];
    open_trace(0, 0);
    cr_expect_eq(trace_open(NULL), -EALREADY);
    for (int i = 0; i < TRACE_READERS; i++)
        cr_assert_eq(trace_reader_open(no_writer, &ctx[i], &r[i]), 0);
    cr_expect_eq(trace_reader_open(no_writer, &ctx[3], &other), -EALREADY);
    cr_expect_eq(trace_reader_open(no_writer, &ctx[TRACE_READERS], &other), -ENOSPC);
    trace_reader_free(r[3]);
    cr_expect_eq(trace_reader_open(no_writer, &ctx[3], &r[3]), 0);
    for (int i = 0; i < TRACE_READERS; i++)
        trace_reader_free(r[i]);
    close_trace();
}

/* Eight that hang, each in the middle of another generation and behind yet another, leave enough for the next one. */
Test(trace_stream, readers_that_hang_hold_half_of_the_pool_at_most)
{
    struct sink s[TRACE_READERS] = { 0 };
    open_trace(8 << 20, 0);
    struct one o = one_new(1);
    trace_begin();
    for (int i = 0; i < TRACE_READERS; i++)
        sink_open(&s[i]);
    for (int i = 0, hang = 0; i < 4 * TRACE_READERS; i++) {
        while (load_rlx(&trace.due) == 0) {
            cr_assert(enter(&o));
            trace_event(o.e, HEAP_ALLOC, 1);
            trace_leave(o.e);
        }
        if (i % 2 != 0 && hang < TRACE_READERS) {
            struct sink *it = &s[hang++];
            store_rlx(&it->stuck, 1); /* with this one */
            uint32_t calls = load_rlx(&it->calls);
            end_generation(false);
            test_until(load_rlx(&it->calls) > calls);
        } else
            end_generation(false);
        for (int k = hang; k < TRACE_READERS; k++)
            test_until(trace_reader_stats(s[k].reader).generations == (uint64_t)i + 1);
        cr_assert_leq(trace_bufs_used(), 512u / 2 + 64, "round %d: %u", i, trace_bufs_used());
    }
    cr_expect_eq(trace_stats().lost, 0u);
    for (int i = 0; i < TRACE_READERS; i++)
        store_rel(&s[i].stuck, 0);
    end_generation(true);
    for (int i = 0; i < TRACE_READERS; i++) {
        sink_close(&s[i]);
        cr_expect_eq(s[i].result, 0);
        unlink(s[i].path);
    }
    trace_emitter_put(o.e);
    close_trace();
}

/* Each request for memory of a bridge is refused once. */
Test(trace_stream, a_gap_that_finds_no_memory_is_longer_and_the_reader_goes_on)
{
    struct sink s = { 0 };
    uint64_t done = 0, skipped = 0;
    go_trace();
    open_trace(1 << 20, 0); /* a share is 4 buffers, and each generation has 3 */
    struct one o = one_new(1);
    trace_begin();
    sink_open(&s);
    test_until(load_rlx(&s.calls) == 1); /* the header */
    for (uint64_t nth = 1; nth <= 6; nth++) {
        store_rlx(&s.stuck, 1);
        for (int i = 0; i < 3; i++) {
            say(&o, "some are dropped");
            uint32_t calls = load_rlx(&s.calls);
            end_generation(false);
            done++;
            if (i == 0)
                test_until(load_rlx(&s.calls) > calls);
        }
        store_rel(&s.stuck, 0);
        test_until(trace_reader_stats(s.reader).generations + trace_reader_stats(s.reader).dropped == done);
        uint64_t dropped = trace_reader_stats(s.reader).dropped;
        say(&o, "behind a gap");
        fail_arm(FAIL_MEM, nth + 1, 1); /* the first is for the generation */
        end_generation(false);
        done++;
        test_until(trace_reader_stats(s.reader).generations + trace_reader_stats(s.reader).dropped == done);
        fail_disarm();
        skipped += trace_reader_stats(s.reader).dropped - dropped;
        say(&o, "behind the gap, in any case");
        end_generation(nth == 6);
        done++;
        test_until(trace_reader_stats(s.reader).generations + trace_reader_stats(s.reader).dropped == done);
    }
    sink_close(&s);
    cr_expect_eq(s.result, 0);
    cr_expect_eq(s.stats.dropped, 6 * 2 + skipped, "%lu dropped, %lu skipped", (unsigned long)s.stats.dropped, (unsigned long)skipped);
    cr_expect(skipped >= 4 && skipped < 6, "%lu skipped", (unsigned long)skipped);
    struct lines got = go_parse(s.path);
    cr_expect_eq(count_lines(&got, 101, "in any case"), 6u);
    cr_expect_eq(count_lines(&got, 101, "behind a gap"), 6 - skipped);
    cr_expect_eq(count_lines(&got, 0, "3 generations of the trace are missing here"), skipped);
    cr_expect_eq(count_lines(&got, 0, "2 generations of the trace are missing here"), 6 - skipped);
    trace_emitter_put(o.e);
    close_trace();
    unlink(s.path);
}

Test(trace_stream, a_reader_without_generations_writes_a_trace_of_nothing)
{
    struct sink s = { 0 };
    go_trace();
    open_trace(0, 0);
    sink_open(&s);
    sink_close(&s);
    cr_expect_eq(s.result, 0);
    struct lines got = go_parse(s.path);
    cr_expect_eq(got.n, 0u);
    close_trace();
    unlink(s.path);
}

/* ---- fork ------------------------------------------------------------------------------------------------------------------ */

static char childs_path[80];

/* The same writer and context as its parent has. */
static void trace_in_child(void *arg)
{
    struct sink *s = arg;
    trace_after_fork();
    store_rlx(&s->stuck, 0);
    s->file = fopen(childs_path, "w");
    cr_assert(!trace_on() && s->file != NULL);
    open_trace(1 << 20, 65536);
    cr_assert_eq(trace_reader_open(sink_write, s, &s->reader), 0);
    struct one o = one_new(5);
    trace_begin();
    say(&o, "in the child");
    end_generation(true);
    trace_reader_close(s->reader);
    cr_assert_eq(trace_reader_pump(s->reader), 0); /* here: AddressSanitizer has lost a lock of its own for threads of a child */
    s->stats = trace_reader_stats(s->reader);
    trace_reader_free(s->reader);
    fclose(s->file);
    trace_emitter_put(o.e);
    close_trace();
    printf("%lu written", (unsigned long)s->stats.generations);
}

static void *asks(void *arg)
{
    while (load_rlx(&stop) == 0)
        trace_stats();
    return arg;
}

/* While a writer is in the middle of a generation, another thread in the middle of an event, and a third one has the lock, as often as not. */
Test(trace_stream, a_child_begins_anew_and_its_parent_goes_on)
{
    struct sink s = { 0 };
    struct test_output *out = malloc(sizeof *out);
    pthread_t th;
    go_trace();
    open_trace(0, 0);
    struct one o = one_new(1), other = one_new(2);
    trace_begin();
    sink_open(&s);
    test_until(load_rlx(&s.calls) == 1); /* the header */
    snprintf(childs_path, sizeof childs_path, "%s-child", s.path);
    store_rlx(&s.stuck, 1);
    say(&o, "before");
    say(&other, "before");
    uint32_t calls = load_rlx(&s.calls);
    end_generation(false);
    test_until(load_rlx(&s.calls) > calls);
    cr_assert(enter(&other));
    cr_assert_eq(pthread_create(&th, NULL, asks, NULL), 0);
    for (int i = 0; i < 20; i++) {
        test_fork(out, trace_in_child, &s);
        cr_assert(out->exit_code == 0 && strcmp(out->text, "1 written") == 0, "exit code %d, signal %d: %s", out->exit_code, out->term_signal,
            out->text);
    }
    store_rlx(&stop, 1);
    pthread_join(th, NULL);
    trace_leave(other.e);
    say(&o, "after");
    store_rel(&s.stuck, 0);
    end_generation(true);
    sink_close(&s);
    struct lines got = go_parse(s.path);
    cr_expect_eq(count_lines(&got, 101, "before"), 1u);
    cr_expect_eq(count_lines(&got, 101, "after"), 1u);
    got = go_parse(childs_path);
    cr_expect_eq(got.n, 1u);
    cr_expect_eq(count_lines(&got, 105, "in the child"), 1u);
    trace_emitter_put(o.e);
    trace_emitter_put(other.e);
    close_trace();
    unlink(s.path);
    unlink(childs_path);
    free(out);
}

/* With less address space than was asked for it makes do with less, or says so. */
Test(trace_stream, open_takes_what_there_is)
{
    struct trace_setup s = { .pool_bytes = (size_t)1 << 30, .table_bytes = (size_t)1 << 30 };
    cr_assert_eq(off_init(), 0);
    fail_arm(FAIL_MEM, 1, 3);
    cr_assert_eq(trace_open(&s), 0);
    fail_disarm();
    cr_expect_eq(trace.pool_bufs, 65535u / 8);
    trace_close();
    fail_arm(FAIL_MEM, 1, 1000);
    cr_expect_eq(trace_open(&s), -ENOMEM);
    fail_disarm();
    cr_expect_eq(trace_open(&s), 0);
    trace_close();
}
