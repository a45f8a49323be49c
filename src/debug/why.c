/* weft_why_alive: the way from a root to an object.
 *
 * Whoever asks holds the object, on his own stack at least: that is the last thing to be said. What was declared (handles, ranges, finalizers) comes
 * before what is read conservatively, since a word of that may be there by chance; of one kind of roots the way is a shortest one.
 *
 * JSON:
 *   {"at_ms":1764172800123,"cycle":7,"stop_ns":210000,
 *    "object":{"address":"0x7f..","offset":0,"type":"struct node","kind":"typed","bytes":48,"site":"grow at tree.c:31"},
 *    "root":{"kind":"data","text":"table in kv, +16","fiber":0,"thread":0,"depth":null,"address":"0x55..","symbol":"table","conservative":true},
 *    "path":[{"address":"0x7f..","type":"conservative","kind":"conservative","bytes":8192,"site":"","field":128}, ...,
 *            {"address":"0x7f..",...,"field":null}]}
 * at_ms, as everywhere: of when it was made. root.kind: the words of retain.c; address: where the word lies, null where that means nothing; depth: on
 * a stack, words from its top, else null; symbol: "" if none is known. path: from what the root leads to, to the object itself; field: the offset of
 * the word in it that leads to the next, null of the last. offset: of the pointer asked for, in the object. site: "" if it was not sampled. Where
 * nothing but its own cycle of finalizers keeps it, root.kind is "cycle of finalizers" and path ends and begins with the object. */
#include "debug/json.h"
#include "debug/retain.h"
#include <errno.h>
#include <weft/debug.h>
#include "base/fmt.h"
#include "sched/sched.h"

#define STEPS_SHOWN 200u /* of a longer way, that many from either end */

struct why {
    struct retain r;
    const void *obj;
    int form;
    uint32_t target;
    uint32_t *way, n;      /* objects, from the root on */
    const struct trail_root *root;
    char root_text[256], place[RETAIN_PLACE_BYTES], type[512];
    const char *symbol;
    uint64_t symbol_offset;
};

/* The object in [0, n) of the way, from what a walk has found. False: no memory. */
static bool follow(struct why *w, const uint32_t *parent)
{
    uint32_t n = 1;
    for (uint32_t i = w->target; (parent[i] & GRAPH_ROOT) == 0; i = parent[i])
        n++;
    w->way = off_alloc(OFF_PROF, n * sizeof *w->way);
    if (w->way == NULL)
        return false;
    w->n = n;
    uint32_t i = w->target;
    for (uint32_t k = n; k-- > 0; i = parent[i])
        w->way[k] = i;
    w->root = &w->r.t.root[parent[w->way[0]] & ~GRAPH_ROOT];
    return true;
}

/* The word of a that leads to b. The records of one object may come in any order: so the least. */
static uint64_t field_of(const struct trail *t, uint32_t a, uint32_t b)
{
    uint64_t least = UINT64_MAX;
    for (uint32_t e = t->off[a]; e < t->off[a + 1]; e++)
        if (t->to[e] == b)
            least = w_min(least, (uint64_t)t->at[e] * 8);
    return least;
}

static bool is_conservative(const struct trail_root *r) { return r->kind >= GC_ROOT_DATA || r->kind == GC_ROOT_RANGE || r->kind == GC_ROOT_ARGUMENT; }

static void describe_root(struct why *w)
{
    const struct trail_root *r = w->root;
    char *to = w->root_text;
    const char *module = NULL;
    size_t n = sizeof w->root_text;
    unsigned long owner = (unsigned long)r->owner;
    switch ((enum gc_root_kind)r->kind) {
    case GC_ROOT_HANDLE:
        w_fmt(to, n, "handle or pin 0x%lx", owner);
        break;
    case GC_ROOT_RANGE:
        w_fmt(to, n, "word at 0x%lx of the range 0x%lx of weft_root_add", (unsigned long)r->at, owner);
        break;
    case GC_ROOT_QUEUED:
        w_fmt(to, n, "a finalizer or cleanup that is due is called with it");
        break;
    case GC_ROOT_CTX:
        w_fmt(to, n, "ctx of the finalizer of 0x%lx", owner);
        break;
    case GC_ROOT_CLEANUP:
        w_fmt(to, n, "arg of a cleanup of 0x%lx", owner);
        break;
    case GC_ROOT_FINALIZABLE:
        w_fmt(to, n, "what 0x%lx refers to, which has a finalizer", owner);
        break;
    case GC_ROOT_WEAK:
        w_fmt(to, n, "weak pointer to 0x%lx", owner);
        break;
    case GC_ROOT_POOL:
        w_fmt(to, n, "pool 0x%lx keeps it for a cycle longer", owner);
        break;
    case GC_ROOT_TIMER:
        w_fmt(to, n, "a timer that is armed");
        break;
    case GC_ROOT_ARGUMENT:
        w_fmt(to, n, "argument, descriptor or deferred call of fiber %lu", owner);
        break;
    case GC_ROOT_TLS:
        w_fmt(to, n, "thread-local storage of thread %d", r->thread);
        break;
    case GC_ROOT_REGISTERS:
        w_fmt(to, n, "registers of %s %lu", r->thread != 0 ? "thread" : "fiber", r->thread != 0 ? (unsigned long)r->thread : owner);
        break;
    case GC_ROOT_STACK:
        w_fmt(to, n, "word at stack depth %lu of %s %lu%s", (unsigned long)r->at, r->thread != 0 ? "thread" : "fiber",
              r->thread != 0 ? (unsigned long)r->thread : owner, r->caller ? ", which asks" : "");
        break;
    case GC_ROOT_DATA:
        if (!symbols_data(w->r.maps, r->at, &w->symbol, &w->symbol_offset, &module))
            w->symbol = NULL;
        module = module != NULL ? symbols_base_name(module) : "?";
        if (w->symbol == NULL)
            w_fmt(to, n, "data of %.80s, at 0x%lx", module, (unsigned long)r->at);
        else
            w_fmt(to, n, "%.120s in %.80s, +%lu", w->symbol, module, (unsigned long)w->symbol_offset);
        break;
    case GC_ROOT_KINDS:
        break;
    }
}

/* ---- the two forms ------------------------------------------------------------------------------------------ */

static void json_object(struct why *w, uint32_t i)
{
    struct text *t = &w->r.text;
    const struct span *s = trail_span(&w->r.t, i);
    retain_type(w->type, sizeof w->type, s->shape);
    retain_site(&w->r, i, w->place);
    text_puts(t, "\"address\":");
    retain_address(t, (uintptr_t)trail_address(&w->r.t, i));
    text_puts(t, ",\"type\":");
    json_string(t, w->type);
    text_putf(t, ",\"kind\":\"%s\",\"bytes\":%lu,\"site\":", retain_kind(s->shape), (unsigned long)trail_bytes(s));
    json_string(t, w->place);
}

static void json_root(struct why *w)
{
    struct text *t = &w->r.text;
    const struct trail_root *r = w->root;
    text_puts(t, "},\n\"root\":{\"kind\":");
    if (r == NULL) {
        text_puts(t, "\"cycle of finalizers\",\"text\":\"nothing but objects with finalizers, which lead to it and to which it leads\","
                     "\"fiber\":0,\"thread\":0,\"depth\":null,\"address\":null,\"symbol\":\"\",\"conservative\":false}");
        return;
    }
    bool fiber = r->kind == GC_ROOT_STACK || r->kind == GC_ROOT_REGISTERS || r->kind == GC_ROOT_ARGUMENT;
    json_string(t, retain_root_kind(r->caller ? GC_ROOT_KINDS : r->kind));
    text_puts(t, ",\"text\":");
    json_string(t, w->root_text);
    text_putf(t, ",\"fiber\":%lu,\"thread\":%d,\"depth\":", fiber ? (unsigned long)r->owner : 0ul, r->thread);
    if (r->kind == GC_ROOT_STACK)
        text_putf(t, "%lu,\"address\":", (unsigned long)r->at);
    else
        text_puts(t, "null,\"address\":");
    if (r->kind == GC_ROOT_DATA || r->kind == GC_ROOT_RANGE)
        retain_address(t, r->at);
    else
        text_puts(t, "null");
    text_puts(t, ",\"symbol\":");
    json_string(t, w->symbol != NULL ? w->symbol : "");
    text_putf(t, ",\"conservative\":%s}", is_conservative(r) ? "true" : "false");
}

static void json(struct why *w)
{
    struct text *t = &w->r.text;
    const struct trail *tr = &w->r.t;
    text_putf(t, "{\"at_ms\":%lld,\"cycle\":%lu,\"stop_ns\":%lld,\n\"object\":{\"offset\":%lu,", (long long)(w->r.wall_ns / 1000000),
              (unsigned long)tr->cycle, (long long)tr->look_ns, (unsigned long)((const char *)w->obj - trail_address(tr, w->target)));
    json_object(w, w->target);
    json_root(w);
    text_puts(t, ",\n\"path\":[");
    for (uint32_t k = 0; k < w->n; k++) {
        text_puts(t, k == 0 ? "{" : ",\n{");
        json_object(w, w->way[k]);
        if (k + 1 < w->n)
            text_putf(t, ",\"field\":%lu}", (unsigned long)field_of(tr, w->way[k], w->way[k + 1]));
        else
            text_puts(t, ",\"field\":null}");
    }
    text_puts(t, "]}\n");
}

static void text_object(struct why *w, uint32_t i)
{
    struct text *t = &w->r.text;
    const struct span *s = trail_span(&w->r.t, i);
    retain_type(w->type, sizeof w->type, s->shape);
    retain_site(&w->r, i, w->place);
    text_putf(t, "0x%lx, %lu bytes, ", (unsigned long)(uintptr_t)trail_address(&w->r.t, i), (unsigned long)trail_bytes(s));
    text_puts(t, w->type);
    if (w->place[0] != 0) {
        text_puts(t, ", allocated by ");
        text_puts(t, w->place);
    }
}

static void as_text(struct why *w)
{
    struct text *t = &w->r.text;
    text_puts(t, "object ");
    text_object(w, w->target);
    text_puts(t, "\nis kept by ");
    text_puts(t, w->root != NULL ? w->root_text
                                 : "nothing but objects with finalizers, which lead to it and to which it leads: none of these will ever run");
    text_puts(t, "\n");
    for (uint32_t k = 0; k < w->n; k++) {
        if (w->n > 2 * STEPS_SHOWN && k == STEPS_SHOWN) {
            k = w->n - STEPS_SHOWN;
            text_putf(t, "  ... %u others ...\n", w->n - 2 * STEPS_SHOWN);
        }
        text_puts(t, "  -> ");
        text_object(w, w->way[k]);
        if (k + 1 < w->n)
            text_putf(t, ", field at %lu", (unsigned long)field_of(&w->r.t, w->way[k], w->way[k + 1]));
        text_puts(t, "\n");
    }
}

static int make(struct retain *r)
{
    struct why *w = (struct why *)r;
    w->target = trail_find(&r->t, w->obj);
    if (w->target == TRAIL_NONE)
        return -ENOENT;
    uint32_t *parent = graph_ways(&r->t, w->target, NULL);
    if (parent == NULL)
        return -ENOMEM;
    bool ok = parent[w->target] == TRAIL_NONE || follow(w, parent);
    off_free(OFF_PROF, parent);
    if (!ok)
        return -ENOMEM;
    if (w->root != NULL)
        describe_root(w);
    if (w->form == WEFT_FORM_JSON)
        json(w);
    else
        as_text(w);
    off_free(OFF_PROF, w->way);
    w->way = NULL;
    return 0;
}

int weft_why_alive(const void *obj, weft_writer *w, void *ctx, int form)
{
    if (w == NULL || (form != WEFT_FORM_TEXT && form != WEFT_FORM_JSON))
        return -EINVAL;
    struct m *m = rt_enter_try();
    if (m == NULL)
        return -ESRCH;
    bool lives = gc_object_base(obj) != NULL;
    struct why *y = lives ? off_zalloc(OFF_PROF, sizeof *y) : NULL;
    rt_leave(m);
    if (!lives)
        return -ENOENT;
    if (y == NULL)
        return -ENOMEM;
    y->r.make = make;
    y->r.fields = true;
    y->obj = obj;
    y->form = form;
    int err = retain_run(&y->r, w, ctx);
    m = rt_enter_try();
    off_free(OFF_PROF, y);
    if (m != NULL)
        rt_leave(m);
    return err;
}
