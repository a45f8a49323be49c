/* A profile on its way from samples to bytes.
 *
 * For pprof, samples go into the stream of pprof.c at once, which adds up equal ones and orders them. Text, and what has changed between two
 * collections, need sums that can still change: a bucket per stack and set of labels, as samplers use them. */
#include "prof/out.h"
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include "base/offheap.h"
#include "os/clock.h"

/* ---- sets of labels -------------------------------------------------------------------------------------------- */

/* With its texts behind it. */
struct label_set { uint32_t n, hash; struct pprof_label at[]; };
struct set_key { const struct pprof_label *at; uint32_t n, hash; };

static struct label_set *set_at(const struct profile_out *o, uint32_t i) { return *(struct label_set **)store_at(&o->sets, i); }
static uint32_t set_hash(const void *o, uint32_t i) { return set_at(o, i)->hash; }

static bool text_same(const char *a, const char *b) { return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0); }

static bool set_same(const void *o, uint32_t i, const void *key)
{
    const struct label_set *s = set_at(o, i);
    const struct set_key *k = key;
    bool same = s->hash == k->hash && s->n == k->n;
    for (uint32_t l = 0; l < k->n && same; l++)
        same = text_same(s->at[l].key, k->at[l].key) && text_same(s->at[l].text, k->at[l].text) && text_same(s->at[l].unit, k->at[l].unit) &&
               s->at[l].num == k->at[l].num;
    return same;
}

static uint64_t hash_text(uint64_t h, const char *s)
{
    for (; s != NULL && *s != 0; s++)
        h = (h ^ (uint8_t)*s) * 0x9e3779b97f4a7c15ull;
    return (h ^ (h >> 29)) * 0x9e3779b97f4a7c15ull;
}

static size_t text_bytes(const char *s) { return s != NULL ? strlen(s) + 1 : 0; }

static const char *text_copy(char **to, const char *s)
{
    if (s == NULL)
        return NULL;
    char *at = *to;
    *to += text_bytes(s);
    return memcpy(at, s, text_bytes(s));
}

static struct label_set *set_copy(const struct set_key *k)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < k->n; i++)
        bytes += text_bytes(k->at[i].key) + text_bytes(k->at[i].text) + text_bytes(k->at[i].unit);
    struct label_set *s = off_alloc(OFF_PROF, sizeof *s + k->n * sizeof s->at[0] + bytes);
    if (s == NULL)
        return NULL;
    s->n = k->n;
    s->hash = k->hash;
    char *to = (char *)&s->at[k->n];
    for (uint32_t i = 0; i < k->n; i++) {
        s->at[i] = k->at[i];
        s->at[i].key = text_copy(&to, k->at[i].key);
        s->at[i].text = text_copy(&to, k->at[i].text);
        s->at[i].unit = text_copy(&to, k->at[i].unit);
    }
    return s;
}

/* Its number + 1; 0: of no labels. False: no memory. */
static bool set_number(struct profile_out *o, const struct pprof_label *label, uint32_t n, uint64_t *number)
{
    struct set_key k = { .at = label, .n = n };
    uint64_t h = n;
    *number = 0;
    if (n == 0)
        return true;
    for (uint32_t i = 0; i < n; i++)
        h = hash_text(hash_text(hash_text(h, label[i].key), label[i].text), label[i].unit) ^ (uint64_t)label[i].num;
    k.hash = (uint32_t)((h * 0x9e3779b97f4a7c15ull) >> 32);
    if (!table_reserve(&o->set_table, o, set_hash))
        return false;
    uint32_t *slot = table_find(&o->set_table, o, k.hash, set_same, &k), i;
    if (*slot == 0) {
        struct label_set *s = set_copy(&k), **at = s != NULL ? store_take(&o->sets, 1, &i) : NULL;
        if (at == NULL) {
            off_free(OFF_PROF, s);
            return false;
        }
        *at = s;
        table_fill(&o->set_table, slot, i);
    }
    *number = *slot;
    return true;
}

static const struct label_set *set_of(const struct profile_out *o, const struct bucket *b)
{
    static const struct label_set none;
    return b->tag != 0 ? set_at(o, (uint32_t)b->tag - 1) : &none;
}

/* ---- samples ---------------------------------------------------------------------------------------------------- */

static struct pprof *pprof_of(const struct profile_out *o)
{
    const struct profile_kind *k = o->kind;
    struct pprof_kind to = { .values = k->values, .period_type = k->period_type, .period = 1, .default_type = k->default_type };
    memcpy(to.value, k->value, sizeof to.value);
    if (k->style == PROFILE_HEAP)
        to.period = k->period();
    else
        to.highest_first = k->style == PROFILE_WAITS ? 2 : 1;
    return pprof_open(&to, o->wall_ns);
}

static bool all_zero(const int64_t *value, uint32_t n)
{
    int64_t any = 0;
    for (uint32_t i = 0; i < n; i++)
        any |= value[i];
    return any == 0;
}

int profile_sample(struct profile_out *o, const uintptr_t *pc, uint32_t n, const int64_t *value, const struct pprof_label *label, uint32_t labels)
{
    if (all_zero(value, o->kind->values))
        return 0;
    n = trim_outer(pc, n);
    uint32_t inner = 0;
    if (o->kind->flags & (PROFILE_FROM_CALL | PROFILE_FROM_CALLER))
        inner = trim_inner(&o->trim, o->kind->flags & PROFILE_FROM_CALL ? TRIM_TO_CALL : TRIM_TO_CALLER, pc, n);
    pc += inner;
    n -= inner;
    if (o->form == OUT_PROTO)
        return pprof_add(o->pprof, pc, n, value, label, labels);
    uint64_t set;
    struct bucket *b = set_number(o, label, labels, &set) ? bucket_get(&o->sums, pc, n, set) : NULL;
    if (b == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < o->kind->values; i++)
        add_rlx(&b->v[i], (uint64_t)(o->sign * value[i])); /* rlx: they are ours alone */
    return 0;
}

bool profile_is_text(const struct profile_out *o) { return o->form == OUT_TEXT; }
const struct maps *profile_maps(const struct profile_out *o) { return o->maps; }

int out_collect(struct profile_out *o, const struct maps *maps)
{
    trim_free(&o->trim);
    trim_init(&o->trim, maps);
    o->maps = maps;
    o->wall_ns = os_wall_ns();
    if (o->form == OUT_DELTA && o->began_ns == 0) {
        o->sign = -1;
        o->began_ns = os_now_ns();
    } else {
        o->sign = 1;
    }
    if (o->form == OUT_PROTO && (o->pprof = pprof_of(o)) == NULL)
        return -ENOMEM;
    int err = o->kind->collect(o);
    return err == 0 && o->trim.nomem ? -ENOMEM : err;
}

/* ---- sums in order ------------------------------------------------------------------------------------------------- */

struct list { struct bucket **at; size_t n; };

static int64_t value_of(const struct bucket *b, uint32_t i) { return (int64_t)load_rlx(&b->v[i]); } /* rlx: they are ours alone */

static void list_add(struct bucket *b, void *arg)
{
    struct list *l = arg;
    l->at[l->n++] = b;
}

/* Two addresses as their hexadecimal texts compare. */
static int text_order(uintptr_t a, uintptr_t b)
{
    unsigned za = a != 0 ? (unsigned)__builtin_clzll(a) & ~3u : 60, zb = b != 0 ? (unsigned)__builtin_clzll(b) & ~3u : 60;
    uint64_t x = (uint64_t)a << za, y = (uint64_t)b << zb;
    return x != y ? (x < y ? -1 : 1) : za != zb ? (za > zb ? -1 : 1) : 0;
}

static int key_order(const struct bucket *a, const struct bucket *b)
{
    int r = 0;
    for (uint32_t i = 0; i < a->n && i < b->n && r == 0; i++)
        r = text_order(a->pc[i], b->pc[i]);
    return r != 0 ? r : a->n != b->n ? (a->n < b->n ? -1 : 1) : a->tag != b->tag ? (a->tag < b->tag ? -1 : 1) : 0;
}

/* Go's order; below 0: a comes first. */
static int order(const struct profile_out *o, const struct bucket *a, const struct bucket *b)
{
    uint32_t by = o->kind->style == PROFILE_HEAP ? 3 : o->kind->style == PROFILE_WAITS ? 1 : 0;
    int64_t x = value_of(a, by), y = value_of(b, by);
    if (x != y)
        return (x > y) == (o->kind->style != PROFILE_HEAP) ? -1 : 1;
    return key_order(a, b);
}

static void list_sort(const struct profile_out *o, struct list *l)
{
    struct bucket **at = l->at;
    for (size_t start = l->n / 2, end = l->n; end > 1;) {
        struct bucket *top;
        if (start > 0) {
            top = at[--start];
        } else {
            top = at[--end];
            at[end] = at[0];
        }
        size_t i = start, child;
        for (; (child = 2 * i + 1) < end; i = child) {
            if (child + 1 < end && order(o, at[child], at[child + 1]) < 0)
                child++;
            if (order(o, top, at[child]) >= 0)
                break;
            at[i] = at[child];
        }
        at[i] = top;
    }
}

/* ---- text --------------------------------------------------------------------------------------------------------- */

static void put_pcs(struct text *t, const struct bucket *b)
{
    text_puts(t, " @");
    for (uint32_t i = 0; i < b->n; i++)
        text_putf(t, " 0x%lx", (unsigned long)b->pc[i]);
    text_puts(t, "\n");
}

static void put_labels(struct text *t, const struct label_set *s)
{
    const char *before = "# labels: {";
    for (uint32_t i = 0; i < s->n; i++) {
        if (s->at[i].text == NULL)
            continue; /* a number */
        text_puts(t, before);
        text_quoted(t, s->at[i].key);
        text_puts(t, ":");
        text_quoted(t, s->at[i].text);
        before = ", ";
    }
    if (before[0] == ',')
        text_puts(t, "}\n");
}

static void put_record(struct profile_out *o, const struct bucket *b)
{
    struct text *t = &o->text;
    long v[PPROF_VALUES_MAX];
    for (uint32_t i = 0; i < PPROF_VALUES_MAX; i++)
        v[i] = (long)value_of(b, i);
    if (o->kind->style == PROFILE_HEAP)
        text_putf(t, "%ld: %ld [%ld: %ld]", v[2], v[3], v[0], v[1]);
    else if (o->kind->style == PROFILE_WAITS)
        text_putf(t, "%ld %ld", v[1], v[0]);
    else
        text_putf(t, "%ld", v[0]);
    put_pcs(t, b);
    if (o->kind->style == PROFILE_COUNTS)
        put_labels(t, set_of(o, b));
}

static void put_head(struct profile_out *o, const struct list *l)
{
    struct text *t = &o->text;
    const struct profile_kind *k = o->kind;
    long sum[PPROF_VALUES_MAX] = { 0 }, period = k->period != NULL ? (long)k->period() : 1;
    for (size_t i = 0; i < l->n; i++)
        for (uint32_t v = 0; v < k->values; v++)
            sum[v] += (long)value_of(l->at[i], v);
    switch (k->style) {
    case PROFILE_HEAP: /* pprof takes equal sums for a profile of another kind */
        text_putf(t, "heap profile: %ld: %ld [%ld: %ld] @ heap/%ld\n", sum[2], sum[3], sum[0], sum[1] + (sum[1] == sum[3]), 2 * period);
        break;
    case PROFILE_WAITS:
        text_putf(t, "--- %s:\ncycles/second=1000000000\n", k->period != NULL ? k->name : "contention");
        if (k->period != NULL)
            text_putf(t, "sampling period=%ld\n", period);
        break;
    case PROFILE_COUNTS:
        text_putf(t, "%s profile: total %ld\n", k->name, sum[0]);
        break;
    }
}

static void put_ring(struct text *t, const char *name, const uint64_t *ring, size_t n)
{
    text_putf(t, "# %s = [", name);
    for (size_t i = 0; i < n; i++)
        text_putf(t, "%s%lu", i > 0 ? " " : "", (unsigned long)ring[i]);
    text_puts(t, "]\n");
}

/* What Go puts at the end of a heap profile. */
static void put_stats(struct text *t, const weft_mem_stats *s)
{
    struct rusage use = { 0 };
    text_puts(t, "\n# runtime.MemStats\n");
#define LINE(name, v) text_putf(t, "# " name " = %lu\n", (unsigned long)(v))
#define PAIR(name, a, b) text_putf(t, "# " name " = %lu / %lu\n", (unsigned long)(a), (unsigned long)(b))
    LINE("Alloc", s->alloc);
    LINE("TotalAlloc", s->total_alloc);
    LINE("Sys", s->sys);
    LINE("Lookups", 0);
    LINE("Mallocs", s->mallocs);
    LINE("Frees", s->frees);
    LINE("HeapAlloc", s->heap_alloc);
    LINE("HeapSys", s->heap_sys);
    LINE("HeapIdle", s->heap_idle);
    LINE("HeapInuse", s->heap_inuse);
    LINE("HeapReleased", s->heap_released);
    LINE("HeapObjects", s->heap_objects);
    PAIR("Stack", s->stack_inuse, s->stack_sys);
    PAIR("MSpan", s->mspan_inuse, s->mspan_sys);
    PAIR("MCache", s->mcache_inuse, s->mcache_sys);
    LINE("BuckHashSys", s->buck_hash_sys);
    LINE("GCSys", s->gc_sys);
    LINE("OtherSys", s->other_sys);
    LINE("NextGC", s->next_gc);
    LINE("LastGC", s->last_gc);
    put_ring(t, "PauseNs", s->pause_ns, w_countof(s->pause_ns));
    put_ring(t, "PauseEnd", s->pause_end, w_countof(s->pause_end));
    LINE("NumGC", s->num_gc);
    LINE("NumForcedGC", s->num_forced_gc);
    text_putf(t, "# GCCPUFraction = 0.%09lu\n", (unsigned long)(w_min(s->gc_cpu_fraction, 0.999999999) * 1e9));
    text_puts(t, "# DebugGC = false\n");
    getrusage(RUSAGE_SELF, &use);
    LINE("MaxRSS", (uint64_t)use.ru_maxrss << 10);
#undef LINE
#undef PAIR
}

static int make_text(struct profile_out *o)
{
    struct list l = { .at = off_alloc(OFF_PROF, load_rlx(&o->sums.count) * sizeof *l.at) }; /* rlx: it is ours alone */
    if (l.at == NULL)
        return -ENOMEM;
    struct text_places places;
    text_places_init(&places, &o->trim);
    buckets_each(&o->sums, list_add, &l);
    list_sort(o, &l);
    put_head(o, &l);
    for (size_t i = 0; i < l.n; i++) {
        put_record(o, l.at[i]);
        text_stack(&o->text, &places, l.at[i]->pc, l.at[i]->n);
    }
    if (o->stats != NULL)
        put_stats(&o->text, o->stats);
    text_places_free(&places);
    off_free(OFF_PROF, l.at);
    return o->text.nomem ? -ENOMEM : 0;
}

/* ---- all of it ------------------------------------------------------------------------------------------------------- */

static void add_change(struct bucket *b, void *arg)
{
    struct profile_out *o = arg;
    const struct label_set *s = set_of(o, b);
    int64_t value[PPROF_VALUES_MAX];
    for (uint32_t i = 0; i < o->kind->values; i++)
        value[i] = value_of(b, i);
    if (o->err == 0 && !all_zero(value, o->kind->values))
        o->err = pprof_add(o->pprof, b->pc, b->n, value, s->at, s->n);
}

int out_make(struct profile_out *o)
{
    if (o->form == OUT_TEXT)
        return make_text(o);
    int64_t duration_ns = 0;
    if (o->form == OUT_DELTA) {
        duration_ns = os_now_ns() - o->began_ns;
        o->pprof = pprof_of(o);
        if (o->pprof == NULL)
            return -ENOMEM;
        buckets_each(&o->sums, add_change, o);
        buckets_free(&o->sums);
    }
    return o->err != 0 ? o->err : pprof_encode(o->pprof, trim_symbolizer(&o->trim), duration_ns);
}

int out_write(struct profile_out *o, weft_writer *w, void *ctx)
{
    return o->form == OUT_TEXT ? text_write(&o->text, w, ctx) : pprof_write(o->pprof, w, ctx);
}

struct profile_out *out_new(const struct profile_kind *kind, enum out_form form, void *owner)
{
    struct profile_out *o = off_zalloc(OFF_PROF, sizeof *o);
    if (o == NULL)
        return NULL;
    o->kind = kind;
    o->form = form;
    o->owner = owner;
    store_init(&o->sets, sizeof(struct label_set *));
    return o;
}

void out_free(struct profile_out *o)
{
    if (o == NULL)
        return;
    for (uint32_t i = 0; i < o->sets.n; i++)
        off_free(OFF_PROF, set_at(o, i));
    store_free(&o->sets);
    table_free(&o->set_table);
    buckets_free(&o->sums);
    text_free(&o->text);
    trim_free(&o->trim);
    pprof_close(o->pprof);
    off_free(OFF_PROF, o->stats);
    off_free(OFF_PROF, o);
}
