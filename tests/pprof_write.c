/* The writer of profiles: what is in the file, byte by byte. Code and symbols are made up, see pprof_fake.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/fail.h"
#include "base/offheap.h"
#include "base/rng.h"
#include "pprof_fake.h"
#include "prof/gzip.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static uint64_t in_use(void)
{
    struct off_stats s;
    off_stats(OFF_PROF, &s);
    return s.in_use_bytes;
}

static int add(struct pprof *p, const uintptr_t *pc, uint32_t n, int64_t samples)
{
    int64_t value[2] = { samples, samples * 10000000 };
    return pprof_add(p, pc, n, value, NULL, 0);
}

/* ---- what a profile says ------------------------------------------------------------------------------------ */

Test(pprof_write, everything_there_is)
{
    struct fake f = FAKE_INIT;
    struct sink to = { 0 };
    struct pprof_kind kind = {
        .value = { { "alloc_objects", "count" }, { "alloc_space", "bytes" }, { "inuse_objects", "count" }, { "inuse_space", "bytes" } },
        .values = 4,
        .period_type = { "space", "bytes" },
        .period = 524288,
        .default_type = "alloc_space",
        .drop_frames = "weft_.*",
        .keep_frames = "weft_blocking_.*",
        .doc_url = "https://example.org/heap",
    };
    struct pprof *p = pprof_open(&kind, 1700000000123456789);
    int64_t value[4] = { 3, -1, INT64_MIN, INT64_MAX };
    struct pprof_label label[3] = { { .key = "bytes", .num = 1 << 20, .unit = "bytes" }, { .key = "tenant", .text = "acme" },
                                    { .key = "delta", .num = -5 } };
    cr_assert_eq(pprof_add(p, (uintptr_t[]){ AT_I(1), AT_P(2), AT_F(3) }, 3, value, label, 3), 0);
    cr_assert_eq(pprof_add(p, NULL, 0, (int64_t[]){ 0, 0, 7, 0 }, NULL, 0), 0);
    cr_assert_eq(pprof_comment(p, "one"), 0);
    cr_assert_eq(pprof_comment(p, "two"), 0);
    fake_flush(p, &f, &to, 5000000000);
    pprof_close(p);

    struct pp *d = pp_decode(to.bytes, to.len);
    cr_assert_eq(d->types, 4u);
    for (int i = 0; i < 4; i++) {
        cr_expect_str_eq(d->type[i].type, kind.value[i].type);
        cr_expect_str_eq(d->type[i].unit, kind.value[i].unit);
    }
    cr_expect_str_eq(d->period_type.type, "space");
    cr_expect_str_eq(d->period_type.unit, "bytes");
    cr_expect_eq(d->period, 524288);
    cr_expect_eq(d->time, 1700000000123456789);
    cr_expect_eq(d->duration, 5000000000);
    cr_expect_str_eq(d->default_type, "alloc_space");
    cr_expect_str_eq(d->drop_frames, "weft_.*");
    cr_expect_str_eq(d->keep_frames, "weft_blocking_.*");
    cr_expect_str_eq(d->doc_url, "https://example.org/heap");
    cr_assert_eq(d->comments, 2u);
    cr_expect_str_eq(d->comment[0], "one");
    cr_expect_str_eq(d->comment[1], "two");
    cr_assert_eq(d->samples, 2u);
    cr_expect_str_eq(pp_text(&d->sample[0]), "(i1);p1;p2;f3 bytes=1048576bytes tenant=acme delta=-5");
    cr_expect_arr_eq(d->sample[0].value, value, sizeof value);
    cr_expect_eq(d->sample[1].locations, 0u);
    cr_expect_eq(d->sample[1].value[2], 7);

    struct pp_location *l = d->sample[0].location[0];
    cr_expect_eq(l->address, AT_I(1) - 1, "the call, not what follows it");
    cr_expect_eq(l->line[0].line, 7);
    cr_expect_str_eq(l->line[0].function->system, "_ZN3inlE");
    cr_expect_str_eq(l->line[0].function->file, "/src/inl.h");
    cr_expect_eq(l->line[1].line, 11);
    cr_expect_eq(l->line[1].function->start, 10);
    cr_expect_str_eq(l->line[1].function->system, "p1");
    cr_expect_eq(l->mapping->lo, (uint64_t)FAKE_PROG);
    cr_expect_eq(l->mapping->hi, (uint64_t)FAKE_F);
    cr_expect_eq(l->mapping->id, 1u, "the program's mapping is the first");
    cr_expect_str_eq(l->mapping->file, "/bin/prog");
    cr_expect_str_eq(l->mapping->build_id, "dead0001");
    cr_expect_eq(d->sample[0].location[2]->mapping->offset, 0x1000u);
}

/* pprof wants the first string to be empty, and a profile of nothing is one. */
Test(pprof_write, nothing_at_all)
{
    struct sink to = { 0 };
    struct pprof *p = pprof_open(&fake_cpu, 0);
    cr_assert_eq(pprof_encode(p, NULL, 0), 0);
    cr_assert_eq(pprof_write(p, sink_write, &to), 0);
    struct pp *d = pp_decode(to.bytes, to.len);
    cr_expect_eq(d->samples, 0u);
    cr_expect_eq(d->types, 2u);
    cr_expect_eq(d->time, 0);
    size_t len = to.len;
    cr_assert_eq(pprof_encode(p, NULL, 0), 0);
    cr_assert_eq(pprof_write(p, sink_write, &to), 0);
    cr_expect_eq(to.len, len, "there was nothing new to say");
    cr_expect_eq(to.calls, 1u);
    pprof_close(p);
}

Test(pprof_write, equal_samples_are_added_up)
{
    struct fake f = FAKE_INIT;
    struct sink to = { 0 };
    struct pprof *p = pprof_open(&fake_cpu, 0);
    int64_t one[2] = { 1, 100 };
    uintptr_t pc[2] = { AT_P(1), AT_P(2) };
    struct pprof_label a = { .key = "k", .text = "a" }, b = { .key = "k", .text = "b" }, n1 = { .key = "k", .num = 1, .unit = "u" },
                       n2 = { .key = "k", .num = 2, .unit = "u" }, n3 = { .key = "k", .num = 1, .unit = "v" };
    struct pprof_label *labels[] = { NULL, &a, &b, &n1, &n2, &n3 };
    for (int round = 0; round < 3; round++)
        for (size_t i = 0; i < COUNT(labels); i++)
            for (uint32_t depth = 0; depth <= 2; depth++)
                cr_assert_eq(pprof_add(p, pc, depth, one, labels[i], labels[i] != NULL), 0);
    cr_assert_eq(pprof_add(p, pc, 1, (int64_t[]){ INT64_MAX, 0 }, NULL, 0), 0);
    fake_flush(p, &f, &to, 0);
    struct pp *d = pp_decode(to.bytes, to.len);
    cr_assert_eq(d->samples, 3 * COUNT(labels));
    cr_expect_eq(pp_sum(d, "p1;p2 k=b", 1), 300);
    cr_expect_eq(pp_sum(d, "p1 k=1u", 0), 3);
    cr_expect_eq(pp_sum(d, "p1 k=1v", 0), 3);
    cr_expect_eq(pp_sum(d, " k=2u", 0), 3);
    cr_expect_eq(pp_sum(d, "p1", 0), INT64_MAX, "no sum wraps");
    cr_expect_eq(d->locations, 2u);
    pprof_close(p);
}

/* What ends with which id is pprof's business; that nothing is said twice is ours. */
Test(pprof_write, a_piece_holds_only_what_is_new)
{
    struct fake f = FAKE_INIT;
    struct sink to = { 0 };
    struct pprof *p = pprof_open(&fake_cpu, 1700000000000000000);
    size_t len, members;
    add(p, (uintptr_t[]){ AT_P(1), AT_P(2) }, 2, 1);
    fake_flush(p, &f, &to, 1000);
    size_t first = to.len;
    unsigned asked = f.asked;

    add(p, (uintptr_t[]){ AT_P(1), AT_P(2) }, 2, 2);
    fake_flush(p, &f, &to, 2000);
    cr_expect_eq(f.asked, asked, "known addresses are not asked for again");
    /* sample { locations 1, 2; values 2, 20000000 } and the duration. */
    static const uint8_t second[] = { 0x12, 11, 8, 1, 8, 2, 16, 2, 16, 0x80, 0xda, 0xc4, 0x09, 0x50, 0xd0, 0x0f };
    uint8_t *piece = pp_gunzip(to.bytes + first, to.len - first, &len, NULL, NULL);
    cr_assert_eq(len, sizeof second);
    cr_expect_arr_eq(piece, second, sizeof second);

    add(p, (uintptr_t[]){ AT_P(3), AT_P(2) }, 2, 4);
    fake_flush(p, &f, &to, 3000);
    struct pp *d = pp_decode(to.bytes, to.len);
    pp_gunzip(to.bytes, to.len, &len, &members, NULL);
    cr_expect_eq(members, 3u);
    cr_expect_eq(d->samples, 3u);
    cr_expect_eq(d->locations, 3u);
    cr_expect_eq(d->functions, 3u);
    cr_expect_eq(d->mappings, 1u);
    cr_expect_eq(d->types, 2u);
    cr_expect_eq(d->duration, 3000, "the last one counts");
    cr_expect_eq(pp_sum(d, "p1;p2", 0), 3);
    cr_expect_eq(pp_sum(d, "p3;p2", 0), 4);
    for (size_t i = 0; i < d->strings; i++)
        for (size_t k = 0; k < i; k++)
            cr_expect_str_neq(d->string[i], d->string[k]);
    pprof_close(p);
}

/* [FLAGS] */
Test(pprof_write, mappings_promise_what_their_locations_have)
{
    struct fake f = FAKE_INIT;
    struct sink to = { 0 };
    struct pprof *p = pprof_open(&fake_cpu, 0);
    add(p, (uintptr_t[]){ AT_P(1), AT_I(2), AT_F(1), AT_F(2), AT_N(1), AT_N(2), 0x50001, 0x7fff00000001 }, 8, 1);
    fake_flush(p, &f, &to, 0);
    struct pp *d = pp_decode(to.bytes, to.len);
    cr_expect_str_eq(pp_text(&d->sample[0]), "p1;(i2);p2;f1;f2;0x30110;0x30210;0x50000;0x7fff00000000");
    cr_expect_eq(d->mappings, 3u);
    for (size_t i = 0; i < 8; i++) {
        struct pp_location *l = d->sample[0].location[i];
        struct pp_mapping *m = l->mapping;
        if (i >= 6) {
            cr_expect_null(m);
            continue;
        }
        cr_assert_not_null(m);
        cr_expect(l->address >= m->lo && l->address < m->hi);
        cr_expect_eq(m->functions, i < 4);
        cr_expect_eq(m->files, i < 2);
        cr_expect_eq(m->lines, i < 2);
        cr_expect_eq(m->inlined, i < 2);
    }
    pprof_close(p);
}

/* The same module, of whose functions some have lines and some do not. */
static uint32_t half_frames(const struct pprof_symbolizer *s, uintptr_t return_pc, struct pprof_frame *out)
{
    uint32_t n = fake_frames(s, return_pc, out);
    unsigned k = return_pc % 0x10000 / 0x100;
    if (k % 4 == 1)
        out[0].line = 0;
    if (k % 4 == 2)
        out[0].file = NULL, out[0].line = 0;
    return k % 4 == 3 ? 0 : n;
}

Test(pprof_write, a_module_has_an_entry_per_promise)
{
    struct fake f = FAKE_INIT;
    struct sink to = { 0 };
    f.symbolizer.frames = half_frames;
    struct pprof *p = pprof_open(&fake_cpu, 0);
    for (int round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 12; i++)
            add(p, (uintptr_t[]){ AT_P((unsigned)round * 12 + i) }, 1, 1);
        fake_flush(p, &f, &to, 0);
    }
    struct pp *d = pp_decode(to.bytes, to.len);
    cr_assert_eq(d->mappings, 4u);
    for (size_t i = 0; i < d->locations; i++) {
        struct pp_location *l = &d->location[i];
        cr_expect_eq(l->mapping->lo, (uint64_t)FAKE_PROG);
        cr_expect_eq(l->mapping->functions, l->lines > 0);
        cr_expect_eq(l->mapping->lines, l->lines > 0 && l->line[0].line != 0);
        cr_expect_eq(l->mapping->files, l->lines > 0 && l->line[0].function->file[0] != 0);
    }
    pprof_close(p);
}

/* At the addresses of a module that was unloaded there is another one, or nothing, or it again. */
Test(pprof_write, modules_come_and_go)
{
    struct fake f = FAKE_INIT;
    struct sink to = { 0 };
    struct pprof *p = pprof_open(&fake_cpu, 0);
    static const struct { bool gone; unsigned version; } life[] = { { false, 0 }, { false, 1 }, { true, 0 }, { false, 0 }, { false, 0 } };
    for (unsigned i = 0; i < COUNT(life); i++) {
        f.f_gone = life[i].gone;
        f.f_version = life[i].version;
        f.symbolizer.generation++;
        add(p, (uintptr_t[]){ AT_F(5), AT_P(1) }, 2, 1 << i);
        fake_flush(p, &f, &to, 0);
    }
    struct pp *d = pp_decode(to.bytes, to.len);
    cr_expect_eq(pp_sum(d, "f5;p1", 0), 1 + 8 + 16);
    cr_expect_eq(pp_sum(d, "g5;p1", 0), 2);
    cr_expect_eq(pp_sum(d, "0x20510;p1", 0), 4);
    cr_expect_eq(d->mappings, 3u, "the one that came back has its entry");
    cr_expect_eq(d->locations, 1u + 4u);
    for (size_t i = 0; i < d->samples; i++) {
        struct pp_location *l = d->sample[i].location[0];
        cr_expect_eq(l->mapping == NULL, life[i].gone);
        if (l->mapping != NULL)
            cr_expect_str_eq(l->mapping->build_id, life[i].version != 0 ? "beef0003" : "beef0002");
    }
    pprof_close(p);
}

Test(pprof_write, without_symbols_there_are_addresses)
{
    struct sink to = { 0 };
    struct pprof *p = pprof_open(&fake_cpu, 0);
    add(p, (uintptr_t[]){ AT_P(1), UINTPTR_MAX, 0 }, 3, 1);
    cr_assert_eq(pprof_encode(p, NULL, 0), 0);
    cr_assert_eq(pprof_write(p, sink_write, &to), 0);
    struct pp *d = pp_decode(to.bytes, to.len);
    cr_expect_str_eq(pp_text(&d->sample[0]), "0x10110;0xfffffffffffffffe;0x0");
    cr_expect_eq(d->mappings, 0u);
    pprof_close(p);
}

/* ---- texts -------------------------------------------------------------------------------------------------------- */

Test(pprof_write, any_text_will_do)
{
    static const struct { const char *is, *becomes; } texts[] = {
        { "", "" }, { "plain", "plain" }, { "gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f" }, { "\xe2\x82\xac", "\xe2\x82\xac" },
        { "\xf0\x9f\x90\x91 sheep", "\xf0\x9f\x90\x91 sheep" }, { "\xff", "?" }, { "cut\xc3", "cut?" }, { "\xe2\x82", "??" },
        { "\xc0\xaf long", "?? long" }, { "\xed\xa0\x80", "???" }, { "\xf4\x90\x80\x80", "????" }, { "a\xffz\xfe", "a?z?" },
        { "line\nline\t\"", "line\nline\t\"" },
    };
    enum { LONG = 300000 };
    char *longest = malloc(LONG + 1);
    memset(longest, 'x', LONG);
    longest[LONG] = 0;
    struct fake f = FAKE_INIT;
    struct sink to = { 0 };
    struct pprof *p = pprof_open(&fake_cpu, 0);
    int64_t one[2] = { 1, 1 };
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < COUNT(texts); i++) {
            struct pprof_label l = { .key = "is", .text = texts[i].is };
            cr_assert_eq(pprof_add(p, &(uintptr_t){ AT_P(i) }, 1, one, &l, 1), 0);
        }
        struct pprof_label l = { .key = "long", .text = longest };
        cr_assert_eq(pprof_add(p, NULL, 0, one, &l, 1), 0);
        fake_flush(p, &f, &to, 0);
    }
    struct pp *d = pp_decode(to.bytes, to.len);
    cr_assert_eq(d->samples, 3 * (COUNT(texts) + 1));
    for (size_t i = 0; i < COUNT(texts); i++)
        cr_expect_str_eq(d->sample[i].label[0].text != NULL ? d->sample[i].label[0].text : "", texts[i].becomes);
    cr_expect_str_eq(d->sample[COUNT(texts)].label[0].text, longest);
    for (size_t i = 0; i < d->strings; i++)
        for (size_t k = 0; k < i; k++)
            cr_expect_str_neq(d->string[i], d->string[k], "also what was mended is there once");
    pprof_close(p);
}

/* ---- limits --------------------------------------------------------------------------------------------------------- */

Test(pprof_write, the_largest_sample)
{
    struct fake f = FAKE_INIT;
    struct sink to = { 0 };
    struct pprof_kind kind = fake_cpu;
    kind.values = PPROF_VALUES_MAX;
    struct pprof *p = pprof_open(&kind, 0);
    static uintptr_t pc[PPROF_DEPTH_MAX + 1];
    static struct pprof_label label[PPROF_LABELS_MAX + 1];
    int64_t value[PPROF_VALUES_MAX] = { -1, -2, -3, -4 };
    for (unsigned i = 0; i <= PPROF_DEPTH_MAX; i++)
        pc[i] = AT_P(0) + i;
    for (unsigned i = 0; i <= PPROF_LABELS_MAX; i++)
        label[i] = (struct pprof_label){ .key = "number", .num = -1 - (int64_t)i, .unit = "units" };
    for (int i = 0; i < 20; i++) {
        value[0] = -1 - i;
        cr_assert_eq(pprof_add(p, pc, PPROF_DEPTH_MAX - (unsigned)i, value, label, PPROF_LABELS_MAX), 0);
    }
    cr_expect_eq(pprof_add(p, pc, PPROF_DEPTH_MAX + 1, value, NULL, 0), -EINVAL);
    cr_expect_eq(pprof_add(p, pc, 1, value, label, PPROF_LABELS_MAX + 1), -EINVAL);
    fake_flush(p, &f, &to, 0);
    struct pp *d = pp_decode(to.bytes, to.len);
    cr_assert_eq(d->samples, 20u);
    for (size_t i = 0; i < 20; i++) {
        cr_assert_eq(d->sample[i].locations, PPROF_DEPTH_MAX - i);
        cr_assert_eq(d->sample[i].labels, (size_t)PPROF_LABELS_MAX);
        cr_expect_eq(d->sample[i].value[0], -1 - (int64_t)i);
        cr_expect_eq(d->sample[i].value[3], -4);
        for (size_t k = 0; k < d->sample[i].locations; k++)
            cr_expect_eq(d->sample[i].location[k]->address, pc[k] - 1);
    }
    pprof_close(p);
}

Test(pprof_write, a_full_piece_says_so)
{
    struct fake f = FAKE_INIT;
    struct sink to = { 0 };
    struct pprof_kind kind = fake_cpu;
    struct pprof_stats s;
    kind.piece_bytes = 64 << 10;
    struct pprof *p = pprof_open(&kind, 0);
    unsigned full = 0;
    for (uintptr_t i = 0; i < 10000; i++) {
        uintptr_t pc[6] = { AT_F(0), AT_F(1), AT_F(2), AT_F(3), AT_P(i % 100), AT_P(i / 100) }; /* they differ at the end only */
        int err = add(p, pc, 6, 1);
        if (err == -ENOSPC) {
            full++;
            pc[4] = AT_P((i - 1) % 100);
            pc[5] = AT_P((i - 1) / 100);
            cr_expect_eq(add(p, pc, 6, 0), 0, "what is there is added to");
            fake_flush(p, &f, &to, 0);
            pc[4] = AT_P(i % 100);
            pc[5] = AT_P(i / 100);
            err = add(p, pc, 6, 1);
        }
        cr_assert_eq(err, 0);
    }
    fake_flush(p, &f, &to, 0);
    cr_expect_geq(full, 4u);
    cr_expect_leq(full, 20u);
    pprof_stats(p, &s);
    cr_expect_eq(s.pieces, full + 1);
    cr_expect_eq(s.samples, 0u);
    cr_expect_eq(s.gzip_bytes, to.len);
    cr_expect_eq(s.written_bytes, to.len);
    struct pp *d = pp_decode(to.bytes, to.len);
    cr_expect_eq(d->bytes, s.proto_bytes);
    cr_expect_eq(d->samples, 10000u);
    pprof_close(p);
}

/* ---- random ones, against a model ------------------------------------------------------------------------------------ */

enum { MODEL_STACKS = 60, MODEL_LABELS = 8 };

/* Sums per stack and label set, in the order of numbers. */
struct model { int64_t sum[MODEL_STACKS][MODEL_LABELS]; };

struct world {
    uintptr_t pc[MODEL_STACKS][12];
    uint32_t n[MODEL_STACKS];
    struct pprof_label label[MODEL_LABELS][3];
    uint32_t labels[MODEL_LABELS];
    char text[MODEL_STACKS][MODEL_LABELS][400];
};

static void world_stack(struct world *w, struct rng *r, int i)
{
    static const char *const what = "PIFNX";
    char *at = w->text[i][0];
    w->pc[i][0] = AT_P(i); /* none is another's */
    w->n[i] = 1 + rng_below(r, 11);
    at += sprintf(at, "p%d", i);
    for (uint32_t k = 1; k < w->n[i]; k++) {
        unsigned fn = rng_below(r, 40);
        switch (what[rng_below(r, 5)]) {
        case 'P': w->pc[i][k] = AT_P(fn); at += sprintf(at, ";p%u", fn); break;
        case 'I': w->pc[i][k] = AT_I(fn); at += sprintf(at, ";(i%u);p%u", fn, fn); break;
        case 'F': w->pc[i][k] = AT_F(fn); at += sprintf(at, ";f%u", fn); break;
        case 'N': w->pc[i][k] = AT_N(fn); at += sprintf(at, ";0x%lx", (unsigned long)AT_N(fn) - 1); break;
        default: w->pc[i][k] = 0x100000 + fn; at += sprintf(at, ";0x%x", 0x100000 + fn - 1); break;
        }
    }
}

static void world_make(struct world *w, struct rng *r)
{
    for (int i = 0; i < MODEL_STACKS; i++)
        world_stack(w, r, i);
    for (int k = 0; k < MODEL_LABELS; k++) {
        char text[200] = "", *at = text;
        w->labels[k] = (uint32_t)k % 4;
        for (uint32_t j = 0; j < w->labels[k]; j++) {
            static char keys[MODEL_LABELS][3][8];
            sprintf(keys[k][j], "k%d%u", k, j);
            w->label[k][j] = (struct pprof_label){ .key = keys[k][j] };
            if (rng_below(r, 2) == 0) {
                w->label[k][j].text = keys[k][j] + 1;
                at += sprintf(at, " %s=%s", keys[k][j], keys[k][j] + 1);
            } else {
                w->label[k][j].num = (int64_t)(rng_next(r) >> rng_below(r, 64));
                w->label[k][j].unit = "u";
                at += sprintf(at, " %s=%ldu", keys[k][j], (long)w->label[k][j].num);
            }
        }
        if (k >= 4) /* the same number of labels, and others */
            cr_assert(w->labels[k] == 0 || strcmp(w->label[k][0].key, w->label[k - 4][0].key) != 0);
        for (int i = 0; i < MODEL_STACKS; i++) {
            if (k > 0)
                strcpy(w->text[i][k], w->text[i][0]);
        }
        for (int i = 0; i < MODEL_STACKS && k > 0; i++)
            strcat(w->text[i][k], text);
    }
}

static void same_as_model(const struct pp *d, const struct world *w, const struct model *m)
{
    int64_t total = 0, seen = 0;
    for (int i = 0; i < MODEL_STACKS; i++)
        for (int k = 0; k < MODEL_LABELS; k++)
            total += m->sum[i][k];
    struct model got = { 0 };
    for (size_t s = 0; s < d->samples; s++) {
        const char *text = pp_text(&d->sample[s]);
        for (int i = 0; i < MODEL_STACKS; i++)
            for (int k = 0; k < MODEL_LABELS; k++)
                if (strcmp(text, w->text[i][k]) == 0 && !(k == 4))
                    got.sum[i][k] += d->sample[s].value[0];
        seen += d->sample[s].value[0];
        cr_assert_eq(d->sample[s].value[1], d->sample[s].value[0] * 10000000);
    }
    cr_assert_eq(seen, total);
    for (int i = 0; i < MODEL_STACKS; i++)
        for (int k = 0; k < MODEL_LABELS; k++)
            if (k != 4) /* has no labels, as 0 */
                cr_assert_eq(got.sum[i][k], m->sum[i][k] + (k == 0 ? m->sum[i][4] : 0), "%s: %ld", w->text[i][k], (long)got.sum[i][k]);
}

/* Cut after any member, the file holds all samples up to there, and no other. */
Test(pprof_write, complete_after_each_piece)
{
    static struct world w;
    static struct model model[30];
    struct rng r;
    rng_seed(&r, test_seed());
    world_make(&w, &r);
    struct fake f = FAKE_INIT;
    struct sink to = { 0 };
    struct pprof *p = pprof_open(&fake_cpu, 1700000000000000000);
    size_t end[30];
    for (unsigned piece = 0; piece < COUNT(model); piece++) {
        if (piece > 0)
            model[piece] = model[piece - 1];
        for (uint32_t i = 0, n = rng_below(&r, 200); i < n; i++) {
            uint32_t s = rng_below(&r, MODEL_STACKS), l = rng_below(&r, MODEL_LABELS);
            int64_t v = 1 + rng_below(&r, 5), value[2] = { v, v * 10000000 };
            cr_assert_eq(pprof_add(p, w.pc[s], w.n[s], value, w.label[l], w.labels[l]), 0);
            model[piece].sum[s][l] += v;
        }
        fake_flush(p, &f, &to, (int64_t)piece * 1000000);
        end[piece] = to.len;
    }
    pprof_close(p);
    for (unsigned piece = 0; piece < COUNT(model); piece++) {
        struct pp *d = pp_decode(to.bytes, end[piece]);
        cr_assert_eq(d->duration, (int64_t)piece * 1000000);
        same_as_model(d, &w, &model[piece]);
    }
}

/* ---- errors -------------------------------------------------------------------------------------------------------- */

Test(pprof_write, after_an_error_of_the_writer_nothing_follows)
{
    struct fake f = FAKE_INIT;
    struct sink to = { .err = -EIO, .fail_at = 2 };
    struct pprof *p = pprof_open(&fake_cpu, 0);
    for (unsigned i = 0; i < 2; i++) {
        add(p, &(uintptr_t){ AT_P(1) }, 1, 1);
        fake_flush(p, &f, &to, 0);
    }
    size_t whole = to.len;
    add(p, &(uintptr_t){ AT_P(2) }, 1, 1);
    cr_assert_eq(pprof_encode(p, &f.symbolizer, 0), 0);
    cr_expect_eq(pprof_write(p, sink_write, &to), -EIO);
    to.err = 0; /* it would go on */
    cr_expect_eq(add(p, &(uintptr_t){ AT_P(2) }, 1, 1), -EIO);
    cr_expect_eq(pprof_comment(p, "late"), -EIO);
    cr_expect_eq(pprof_encode(p, &f.symbolizer, 1), -EIO);
    cr_expect_eq(pprof_write(p, sink_write, &to), -EIO);
    cr_expect_eq(to.len, whole);
    cr_expect_eq(to.calls, 3u);
    struct pp *d = pp_decode(to.bytes, to.len);
    cr_expect_eq(pp_sum(d, "p1", 0), 2);
    cr_expect_eq(d->samples, 2u);
    pprof_close(p);
}

/* Pieces may wait for the writer, and none is written twice. */
Test(pprof_write, pieces_wait_for_the_writer)
{
    struct fake f = FAKE_INIT;
    struct sink to = { 0 };
    struct pprof *p = pprof_open(&fake_cpu, 0);
    for (unsigned i = 0; i < 10; i++) {
        add(p, &(uintptr_t){ AT_P(i) }, 1, 1);
        cr_assert_eq(pprof_encode(p, &f.symbolizer, 0), 0);
        for (unsigned k = 0; k < i % 3; k++)
            cr_assert_eq(pprof_write(p, sink_write, &to), 0);
    }
    cr_assert_eq(pprof_write(p, sink_write, &to), 0);
    struct pp *d = pp_decode(to.bytes, to.len);
    cr_expect_eq(d->samples, 10u);
    for (unsigned i = 0; i < 10; i++)
        cr_expect_eq(d->sample[i].value[0], 1);
    pprof_close(p);
}

/* Too long for one block of what is written, also when it is compressed. */
static const char *noise(void)
{
    static char text[200001];
    struct rng r;
    rng_seed(&r, 1);
    for (size_t i = 0; i + 1 < sizeof text; i++)
        text[i] = (char)(' ' + rng_below(&r, 95));
    return text;
}

/* [RETRY] Each request for memory is refused once: the call says so, and the second try does what the first should have done. */
static void profile_with_refusals(struct sink *to, uint64_t nth, unsigned *refused)
{
    struct fake f = FAKE_INIT;
    struct pprof *p;
    int err;
#define AGAIN(call)                        \
    do {                                   \
        err = (call);                      \
        *refused += err != 0;              \
        cr_assert(err == 0 || err == -ENOMEM); \
    } while (err != 0)
    fail_arm(FAIL_MEM, nth, 1);
    while ((p = pprof_open(&fake_cpu, 1)) == NULL)
        ++*refused;
    for (unsigned piece = 0; piece < 3; piece++) {
        f.symbolizer.generation++;
        for (unsigned i = 0; i < 400; i++) {
            uintptr_t pc[4] = { AT_I(i % 200), AT_F(i % 7 + 10 * piece), AT_N(piece), AT_P(i / 2 + piece) };
            int64_t value[2] = { 1, 10000000 };
            struct pprof_label l[2] = { { .key = "piece", .num = piece, .unit = "th" }, { .key = "kind", .text = i % 2 ? "odd" : "even" } };
            AGAIN(pprof_add(p, pc, 4, value, l, 2));
        }
        AGAIN(pprof_comment(p, piece == 2 ? noise() : "a piece"));
        AGAIN(pprof_encode(p, &f.symbolizer, piece + 1));
        cr_assert_eq(pprof_write(p, sink_write, to), 0);
    }
    fail_disarm();
    pprof_close(p);
}

static uint64_t refusals_change_nothing(void)
{
    struct sink wanted = { 0 };
    unsigned refused = 0;
    uint64_t before = in_use();
    profile_with_refusals(&wanted, UINT64_MAX / 2, &refused);
    uint64_t requests = fail_requests(FAIL_MEM);
    cr_assert_eq(refused, 0u);
    cr_assert_eq(in_use(), before, "all memory is given back");
    struct pp *d = pp_decode(wanted.bytes, wanted.len);
    cr_assert_eq(d->samples, 1200u);
    for (uint64_t nth = 1; nth <= requests; nth++) {
        struct sink to = { 0 };
        refused = 0;
        profile_with_refusals(&to, nth, &refused);
        cr_assert_eq(refused, 1u, "request %lu of %lu", (unsigned long)nth, (unsigned long)requests);
        struct pp *e = pp_decode(to.bytes, to.len);
        cr_assert_eq(e->samples, d->samples);
        cr_assert_eq(e->comments, 3u);
        cr_assert_eq(e->locations, d->locations);
        cr_assert_eq(e->mappings, d->mappings);
        cr_assert_eq(e->functions, d->functions);
        for (size_t i = 0; i < e->samples; i++) {
            cr_assert_str_eq(pp_text(&e->sample[i]), pp_text(&d->sample[i]), "request %lu", (unsigned long)nth);
            cr_assert_eq(e->sample[i].value[0], d->sample[i].value[0]);
        }
        cr_assert_eq(in_use(), before, "request %lu", (unsigned long)nth);
        free(to.bytes);
    }
    return requests;
}

Test(pprof_write, a_piece_that_found_no_memory_is_made_again) { cr_expect_gt(refusals_change_nothing(), 40u); }

/* ---- without zlib ------------------------------------------------------------------------------------------------- */

Test(pprof_write, without_zlib_members_are_stored)
{
    struct fake f = FAKE_INIT;
    struct sink small = { 0 }, large = { 0 };
    for (int stored = 0; stored < 2; stored++) {
        gzip_without_zlib = stored;
        struct pprof *p = pprof_open(&fake_cpu, 0);
        for (unsigned piece = 0; piece < 3; piece++) {
            for (uintptr_t i = 0; i < 20000; i++)
                add(p, (uintptr_t[]){ AT_P(i % 100), AT_P(i / 100), AT_F(piece) }, 3, 1);
            fake_flush(p, &f, stored ? &large : &small, 0);
        }
        pprof_close(p);
    }
    size_t n, m, members;
    uint8_t *a = pp_gunzip(small.bytes, small.len, &n, NULL, NULL), *b = pp_gunzip(large.bytes, large.len, &m, &members, NULL);
    cr_expect_eq(members, 3u);
    cr_assert_eq(n, m);
    cr_expect(memcmp(a, b, n) == 0);
    cr_expect_lt(small.len, large.len / 2);
    cr_expect_eq(pp_decode(large.bytes, large.len)->samples, 60000u);
    cr_expect_leq(small.calls, 3 + small.len / 65000, "in few calls");
}

/* ---- memory ------------------------------------------------------------------------------------------------------- */

/* How many times the output before compression is held at most, while 100 000 distinct stacks are collected and encoded. Counted too much: what is
 * held before a piece is made, and all that it adds. */
static double memory_per_output(uint32_t depth, uint32_t values, uint32_t functions)
{
    struct fake f = FAKE_INIT;
    struct sink to = { 0 };
    struct pprof_kind kind = fake_cpu;
    kind.values = values;
    struct rng r;
    rng_seed(&r, 1);
    uint64_t before = in_use(), most = 0;
    struct pprof *p = pprof_open(&kind, 0);
    struct pprof_stats s = { 0 };
    for (uint32_t i = 0; s.samples < 100000; i++) {
        uintptr_t pc[64];
        int64_t value[4] = { 1 + rng_below(&r, 3), 10000000, 3, 4096 };
        for (uint32_t k = 0; k < depth; k++)
            pc[k] = FAKE_PROG + 1 + (uintptr_t)rng_below(&r, functions);
        cr_assert_eq(pprof_add(p, pc, depth, value, NULL, 0), 0);
        if (i % 100 == 0)
            most = w_max(most, in_use() - before);
        if (i >= 99999)
            pprof_stats(p, &s);
    }
    uint64_t collected = in_use() - before;
    cr_assert_eq(pprof_encode(p, &f.symbolizer, 0), 0);
    pprof_stats(p, &s);
    uint64_t zlib = 280 << 10;
    most = w_max(most, collected + s.gzip_bytes + zlib);
    cr_assert_eq(pprof_write(p, sink_write, &to), 0);
    cr_assert_eq(to.len, s.gzip_bytes);
    cr_expect_eq(pp_decode(to.bytes, to.len)->samples, 100000u);
    pprof_close(p);
    cr_expect_eq(in_use(), before);
    double ratio = (double)most / (double)s.proto_bytes;
    fprintf(stderr, "depth %u, %u values, %u places: %.2f times %lu bytes, of which %.0f %% are left when compressed\n", depth, values, functions,
            ratio, (unsigned long)s.proto_bytes, 100.0 * (double)s.gzip_bytes / (double)s.proto_bytes);
    return ratio;
}

Test(pprof_write, memory_for_100000_stacks_is_below_three_times_the_output)
{
    cr_expect_lt(memory_per_output(20, 2, 3000), 3.0);
    cr_expect_lt(memory_per_output(50, 4, 20000), 3.0);
    cr_expect_lt(memory_per_output(4, 1, 60000), 3.0);
    cr_expect_lt(memory_per_output(3, 2, 100), 3.0);
}

/* A stream of an hour: what is held does not grow with the samples. */
Test(pprof_write, a_stream_does_not_grow_with_its_samples)
{
    struct fake f = FAKE_INIT;
    struct sink to = { 0 };
    struct pprof *p = pprof_open(&fake_cpu, 0);
    uint64_t held = 0;
    for (unsigned piece = 0; piece < 1000; piece++) {
        for (unsigned i = 0; i < 100; i++)
            add(p, (uintptr_t[]){ AT_P(i), AT_P((piece + i) % 256), AT_P(piece % 7) }, 3, 1);
        fake_flush(p, &f, &to, piece);
        if (piece == 300)
            held = in_use();
    }
    cr_expect_leq(in_use(), held);
    cr_expect_eq(pp_decode(to.bytes, to.len)->samples, 100000u);
    pprof_close(p);
}
