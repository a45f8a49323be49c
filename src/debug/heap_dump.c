/* weft_heap_dump: what the heap is made of, and what keeps how much of it.
 *
 * As of the end of a collection that the call runs. Objects and bytes by type and by size are counts; by allocation site they are estimates from the
 * heap profile's samples, of which there is one in 512 KiB unless the rate says otherwise.
 *
 * What an object keeps is what would go with it: all that it dominates, reckoned over everything that refers to anything, stacks and data read
 * conservatively. Of a list each element keeps nearly what the one before keeps; so an object is shown if it keeps less than nine tenths of
 * what its own dominator keeps, and of those the largest. Above GRAPH_MOST objects (graph.h), and if there is no memory to reckon it,
 * nothing of it is told, and "done" is false; the rest of the document is there in any case.
 *
 * JSON:
 *   {"at_ms":1764172800123,"cycle":7,"stop_ns":9100000,
 *    "heap":{"objects":1000321,"bytes":64020544,"spans":7816,"references":2000001,"address_space_bytes":67108864},
 *    "types":{"all":3,"shown":3,"list":[{"type":"struct node","kind":"typed","objects":1000000,"bytes":64000000},...]},
 *    "sizes":{"all":5,"shown":5,"list":[{"bytes_each":64,"kind":"typed","objects":1000000,"bytes":64000000},...]},
 *    "sites":{"rate_bytes":524288,"all":2,"shown":2,"list":[{"objects":998000,"bytes":63900000,"samples":122,
 *      "stack":["grow at tree.c:31",...]},...]},
 *    "retained":{"done":true,"unreached":0,"all":12,"shown":12,"list":[{"address":"0x7f..","type":"struct tree","kind":"typed","bytes":32,
 *      "retained_bytes":64000032,"retained_objects":1000001,"site":"","inside":null},...]},
 *    "roots":{"words":120,"list":[{"kind":"data","words":12,"objects":9,"reached_bytes":64000000},...]}}
 * All lists: most bytes first; cut at 64 (shown of all). sites: "stack" is up to 8 places, innermost first; only what was sampled counts. retained:
 * inside is the address of the nearest dominator that is in the list, too, or null. unreached: objects that lived and are not reached by what was
 * recorded; 0, unless a thread that is not stopped changed something meanwhile. roots: words that lead to an object, the objects they lead to, and
 * bytes of all that is reached by this kind and none before it; in the order in which they are tried, not by bytes; "caller's stack" is that of who
 * called. */
#include "debug/json.h"
#include "debug/retain.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <weft/debug.h>
#include "base/fmt.h"
#include "prof/heap.h"
#include "sched/sched.h"

#define SHOWN 64u
#define FRAMES_SHOWN 8u
#define KEPT_SHARE(x) ((x) / 10 * 9)

/* A line of a list: what it is, how much. */
struct line { uint64_t key, bytes, objects, samples; };
struct lines { struct line *at; uint32_t n, room; bool nomem; };

struct dump {
    struct retain r;
    uint32_t *dom;
    struct graph_kept *kept;
    char type[512], place[RETAIN_PLACE_BYTES];
};

/* ---- lists ------------------------------------------------------------------------------------------------- */

/* By key; few are new. */
static struct line *line_of(struct lines *l, uint64_t key)
{
    uint32_t lo = 0, hi = l->n;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (l->at[mid].key < key)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo < l->n && l->at[lo].key == key)
        return &l->at[lo];
    if (l->n == l->room) {
        uint32_t room = w_max(2 * l->room, 64u);
        struct line *more = l->nomem ? NULL : off_realloc(OFF_PROF, l->at, room * sizeof *more);
        if (more == NULL) {
            l->nomem = true;
            return NULL;
        }
        l->at = more;
        l->room = room;
    }
    memmove(&l->at[lo + 1], &l->at[lo], (l->n - lo) * sizeof *l->at);
    l->n++;
    l->at[lo] = (struct line){ .key = key };
    return &l->at[lo];
}

static void add(struct lines *l, uint64_t key, uint64_t objects, uint64_t bytes)
{
    struct line *at = line_of(l, key);
    if (at == NULL)
        return;
    at->objects += objects;
    at->bytes += bytes;
    at->samples++;
}

static int most_bytes(const void *a, const void *b)
{
    const struct line *x = a, *y = b;
    return x->bytes != y->bytes ? (x->bytes > y->bytes ? -1 : 1) : x->key < y->key ? -1 : x->key > y->key;
}

/* Puts what stands before the lines, and says how many follow. */
static uint32_t list_begin(struct text *t, const char *name, const char *more, struct lines *l)
{
    uint32_t shown = w_min(l->n, SHOWN);
    if (l->n > 0)
        qsort(l->at, l->n, sizeof *l->at, most_bytes);
    text_putf(t, ",\n\"%s\":{%s\"all\":%u,\"shown\":%u,\"list\":[", name, more, l->n, shown);
    return shown;
}

static int list_end(struct text *t, struct lines *l)
{
    text_puts(t, "]}");
    off_free(OFF_PROF, l->at);
    return l->nomem ? -ENOMEM : 0;
}

/* ---- types, sizes, sites ------------------------------------------------------------------------------------ */

static int put_types(struct dump *d)
{
    struct text *t = &d->r.text;
    struct lines l = { 0 };
    for (uint32_t j = 0; j < d->r.t.nspans; j++) {
        uint64_t n = d->r.t.first[j + 1] - d->r.t.first[j];
        if (n > 0)
            add(&l, d->r.t.span[j].shape, n, n * trail_bytes(&d->r.t.span[j]));
    }
    for (uint32_t i = 0, n = list_begin(t, "types", "", &l); i < n; i++) {
        retain_type(d->type, sizeof d->type, (uint32_t)l.at[i].key);
        text_puts(t, i == 0 ? "\n{\"type\":" : ",\n{\"type\":");
        json_string(t, d->type);
        text_putf(t, ",\"kind\":\"%s\",\"objects\":%lu,\"bytes\":%lu}", retain_kind((uint32_t)l.at[i].key), (unsigned long)l.at[i].objects,
                  (unsigned long)l.at[i].bytes);
    }
    return list_end(t, &l);
}

static int put_sizes(struct dump *d)
{
    struct text *t = &d->r.text;
    struct lines l = { 0 };
    for (uint32_t j = 0; j < d->r.t.nspans; j++) {
        uint64_t n = d->r.t.first[j + 1] - d->r.t.first[j], each = trail_bytes(&d->r.t.span[j]);
        if (n > 0)
            add(&l, each << 2 | w_min(d->r.t.span[j].shape, (uint32_t)SHAPE_TYPED), n, n * each);
    }
    for (uint32_t i = 0, n = list_begin(t, "sizes", "", &l); i < n; i++)
        text_putf(t, "%s{\"bytes_each\":%lu,\"kind\":\"%s\",\"objects\":%lu,\"bytes\":%lu}", i == 0 ? "\n" : ",\n", (unsigned long)(l.at[i].key >> 2),
                  retain_kind((uint32_t)(l.at[i].key & 3)), (unsigned long)l.at[i].objects, (unsigned long)l.at[i].bytes);
    return list_end(t, &l);
}

static void put_stack(struct dump *d, uintptr_t word)
{
    const uintptr_t *pc;
    uint32_t n = w_min(heap_site(d->r.maps, word, &pc), FRAMES_SHOWN);
    for (uint32_t i = 0; i < n; i++) {
        retain_place(&d->r, pc[i], d->place);
        if (i > 0)
            text_puts(&d->r.text, ",");
        json_string(&d->r.text, d->place);
    }
}

static int put_sites(struct dump *d)
{
    struct text *t = &d->r.text;
    struct lines l = { 0 };
    char more[64];
    for (uint32_t i = 0; i < d->r.t.nsamples; i++) {
        uintptr_t word = d->r.t.sample[i].word;
        struct line *at = line_of(&l, word);
        if (at != NULL)
            at->samples++;
    }
    for (uint32_t i = 0; i < l.n; i++) {
        uint64_t each = heap_site_bytes(l.at[i].key);
        double n = (double)l.at[i].samples * heap_site_scale(each);
        l.at[i].objects = (uint64_t)n;
        l.at[i].bytes = (uint64_t)(n * (double)each);
    }
    w_fmt(more, sizeof more, "\"rate_bytes\":%lu,", (unsigned long)gc_sample_rate());
    for (uint32_t i = 0, n = list_begin(t, "sites", more, &l); i < n; i++) {
        text_putf(t, "%s{\"objects\":%lu,\"bytes\":%lu,\"samples\":%lu,\"stack\":[", i == 0 ? "\n" : ",\n", (unsigned long)l.at[i].objects,
                  (unsigned long)l.at[i].bytes, (unsigned long)l.at[i].samples);
        put_stack(d, l.at[i].key);
        text_puts(t, "]}");
    }
    return list_end(t, &l);
}

/* ---- what is kept ------------------------------------------------------------------------------------------- */

static bool is_shown(const struct dump *d, uint32_t i)
{
    uint32_t by = d->dom[i];
    return by != TRAIL_NONE && (by == d->r.t.n || d->kept[i].bytes < KEPT_SHARE(d->kept[by].bytes));
}

/* The largest, in a heap of them whose least is on top. */
struct largest { uint32_t at[SHOWN], n; uint64_t all; };

static void largest_add(struct largest *l, const struct graph_kept *kept, uint32_t i)
{
    uint32_t k;
    l->all++;
    if (l->n < SHOWN) {
        for (k = l->n++; k > 0 && kept[l->at[(k - 1) / 2]].bytes > kept[i].bytes; k = (k - 1) / 2)
            l->at[k] = l->at[(k - 1) / 2];
        l->at[k] = i;
        return;
    }
    if (kept[i].bytes <= kept[l->at[0]].bytes)
        return;
    for (k = 0; 2 * k + 1 < SHOWN;) {
        uint32_t c = 2 * k + 1;
        c += c + 1 < SHOWN && kept[l->at[c + 1]].bytes < kept[l->at[c]].bytes;
        if (kept[l->at[c]].bytes >= kept[i].bytes)
            break;
        l->at[k] = l->at[c];
        k = c;
    }
    l->at[k] = i;
}

static bool in_list(const struct lines *l, uint32_t i)
{
    for (uint32_t k = 0; k < w_min(l->n, SHOWN); k++)
        if (l->at[k].key == i)
            return true;
    return false;
}

static void put_kept(struct dump *d, const struct lines *l, uint32_t i)
{
    struct text *t = &d->r.text;
    const struct trail *tr = &d->r.t;
    const struct span *s = trail_span(tr, i);
    uint32_t by = d->dom[i];
    while (by != tr->n && !in_list(l, by))
        by = d->dom[by];
    retain_type(d->type, sizeof d->type, s->shape);
    retain_site(&d->r, i, d->place);
    text_puts(t, "{\"address\":");
    retain_address(t, (uintptr_t)trail_address(tr, i));
    text_puts(t, ",\"type\":");
    json_string(t, d->type);
    text_putf(t, ",\"kind\":\"%s\",\"bytes\":%lu,\"retained_bytes\":%lu,\"retained_objects\":%u,\"site\":", retain_kind(s->shape),
              (unsigned long)trail_bytes(s), (unsigned long)d->kept[i].bytes, d->kept[i].objects);
    json_string(t, d->place);
    text_puts(t, ",\"inside\":");
    if (by == tr->n)
        text_puts(t, "null}");
    else {
        retain_address(t, (uintptr_t)trail_address(tr, by));
        text_puts(t, "}");
    }
}

static void put_retained(struct dump *d)
{
    struct text *t = &d->r.text;
    uint32_t n = d->r.t.n;
    d->dom = off_alloc(OFF_PROF, ((size_t)n + 1) * sizeof *d->dom);
    d->kept = off_alloc(OFF_PROF, ((size_t)n + 1) * sizeof *d->kept);
    if (d->dom == NULL || d->kept == NULL || graph_dominators(&d->r.t, d->dom, d->kept) != 0) {
        text_puts(t, ",\n\"retained\":{\"done\":false,\"unreached\":0,\"all\":0,\"shown\":0,\"list\":[]}");
        return;
    }
    struct largest big = { .n = 0 };
    struct line at[SHOWN];
    uint32_t unreached = 0;
    for (uint32_t i = 0; i < n; i++) {
        unreached += d->dom[i] == TRAIL_NONE;
        if (is_shown(d, i))
            largest_add(&big, d->kept, i);
    }
    for (uint32_t k = 0; k < big.n; k++)
        at[k] = (struct line){ .key = big.at[k], .bytes = d->kept[big.at[k]].bytes };
    struct lines l = { .at = at, .n = big.n };
    qsort(at, big.n, sizeof *at, most_bytes);
    text_putf(t, ",\n\"retained\":{\"done\":true,\"unreached\":%u,\"all\":%lu,\"shown\":%u,\"list\":[", unreached, (unsigned long)big.all, big.n);
    for (uint32_t k = 0; k < big.n; k++) {
        text_puts(t, k == 0 ? "\n" : ",\n");
        put_kept(d, &l, (uint32_t)at[k].key);
    }
    text_puts(t, "]}");
}

/* ---- roots --------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int put_roots(struct dump *d)
{
    struct text *t = &d->r.text;
    const struct trail *tr = &d->r.t;
    uint64_t reached[GC_ROOT_KINDS + 1], words[GC_ROOT_KINDS + 1] = { 0 }, objects[GC_ROOT_KINDS + 1] = { 0 };
    uint64_t *by = off_alloc(OFF_PROF, ((size_t)tr->nroots + 1) * sizeof *by); /* kind and object: those that are equal lie side by side */
    uint32_t *ways = graph_ways(tr, TRAIL_NONE, reached);
    off_free(OFF_PROF, ways);
    if (by == NULL || ways == NULL) {
        off_free(OFF_PROF, by);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < tr->nroots; i++)
        by[i] = (uint64_t)(tr->root[i].caller ? GC_ROOT_KINDS : tr->root[i].kind) << 32 | tr->root[i].node;
    qsort(by, tr->nroots, sizeof *by, by_value);
    for (uint32_t i = 0; i < tr->nroots; i++) {
        words[by[i] >> 32]++;
        objects[by[i] >> 32] += i == 0 || by[i] != by[i - 1];
    }
    off_free(OFF_PROF, by);
    text_putf(t, ",\n\"roots\":{\"words\":%u,\"list\":[", tr->nroots);
    for (unsigned k = 0, n = 0; k <= GC_ROOT_KINDS; k++)
        if (words[k] > 0)
            text_putf(t, "%s{\"kind\":\"%s\",\"words\":%lu,\"objects\":%lu,\"reached_bytes\":%lu}", n++ == 0 ? "\n" : ",\n", retain_root_kind(k),
                      (unsigned long)words[k], (unsigned long)objects[k], (unsigned long)reached[k]);
    text_puts(t, "]}}\n");
    return 0;
}

static int make(struct retain *r)
{
    struct dump *d = (struct dump *)r;
    const struct trail *tr = &r->t;
    text_putf(&r->text, "{\"at_ms\":%lld,\"cycle\":%lu,\"stop_ns\":%lld,\n", (long long)(r->wall_ns / 1000000),
              (unsigned long)tr->cycle, (long long)tr->look_ns);
    text_putf(&r->text, "\"heap\":{\"objects\":%u,\"bytes\":%lu,\"spans\":%u,\"references\":%u,\"address_space_bytes\":%lu}",
              tr->n, (unsigned long)tr->bytes, tr->nspans, tr->off[tr->n], (unsigned long)tr->heap_bytes);
    int err = put_types(d);
    if (err == 0)
        err = put_sizes(d);
    if (err == 0)
        err = put_sites(d);
    if (err == 0)
        put_retained(d);
    if (err == 0)
        err = put_roots(d);
    off_free(OFF_PROF, d->dom);
    off_free(OFF_PROF, d->kept);
    return err;
}

int weft_heap_dump(weft_writer *w, void *ctx)
{
    if (w == NULL)
        return -EINVAL;
    struct m *m = rt_enter_try();
    if (m == NULL)
        return -ESRCH;
    struct dump *d = off_zalloc(OFF_PROF, sizeof *d);
    rt_leave(m);
    if (d == NULL)
        return -ENOMEM;
    d->r.make = make;
    int err = retain_run(&d->r, w, ctx);
    m = rt_enter_try();
    off_free(OFF_PROF, d);
    if (m != NULL)
        rt_leave(m);
    return err;
}
