#include "debug/cmd/trace.h"
#include <inttypes.h>
#include <string.h>

#define FRAMES_SHOWN 24
#define EXPERIMENTAL_BATCH 49 /* a table of an experiment of Go's: passed over */
#define EXPERIMENTAL_FIRST 128 /* and its events */
static const uint8_t experimental_args[] = { 3, 3, 1, 2, 2, 1, 2, 2, 1 };

/* What a thread tells in a generation: its batches, linked, and the event at hand. */
struct batch { const uint8_t *data, *end; uint64_t time; uint32_t next; /* number + 1 */ };
struct cursor { uint64_t m, time; uint32_t batch, last; /* numbers + 1 */ const uint8_t *at; struct trace_record rec; };
struct frame { struct trace_text function, file; uint64_t line; };
struct stack { size_t frame; uint32_t frames; };
struct raw_stack { const uint8_t *at, *end; uint32_t frames, known; /* its number in the file; 0: not looked up */ };

struct trace {
    const uint8_t *at, *end;
    int version;
    uint64_t gen, generations, bad;
    bool over;
    size_t cut;
    /* of the generation */
    struct batch *batch;
    struct cursor *cursor;
    uint32_t *heap; /* cursors that have an event, the earliest first */
    struct trace_text *text;
    struct raw_stack *raw;
    size_t nbatches, batches_room, ncursors, cursors_room, nheap, ntexts, texts_room, nraw, raw_room;
    struct map threads, texts, raws;
    /* ticks are counted from the beginning of the generation, so that one clock's rate does not move another's times */
    uint64_t units, origin;
    int64_t origin_ns;
    bool begun, popped; /* an event was read; the first cursor is to move on */
    /* of the file; number 0 is no stack */
    struct frame *frame;
    struct stack *stack;
    size_t nframes, frames_room, nstacks, stacks_room;
    struct map known;
};

/* ---- tables ------------------------------------------------------------------------------------------------------ */

static bool read_strings(struct trace *t, const uint8_t *p, const uint8_t *end)
{
    while (p < end) {
        uint64_t id, n;
        if (*p++ != TRACE_STRING || !trace_get(&p, end, &id) || !trace_get(&p, end, &n) || n > (size_t)(end - p))
            return false;
        MUST_ROOM(t->text, t->ntexts, t->texts_room);
        map_put(&t->texts, id, (uint32_t)t->ntexts);
        t->text[t->ntexts++] = (struct trace_text){ (const char *)p, (size_t)n };
        p += n;
    }
    return true;
}

static bool read_stacks(struct trace *t, const uint8_t *p, const uint8_t *end)
{
    while (p < end) {
        uint64_t id, n, v;
        if (*p++ != TRACE_STACK || !trace_get(&p, end, &id) || !trace_get(&p, end, &n) || n > (size_t)(end - p) / 4)
            return false;
        const uint8_t *from = p;
        for (uint64_t i = 0; i < 4 * n; i++)
            if (!trace_get(&p, end, &v))
                return false;
        MUST_ROOM(t->raw, t->nraw, t->raw_room);
        map_put(&t->raws, id, (uint32_t)t->nraw);
        t->raw[t->nraw++] = (struct raw_stack){ from, p, (uint32_t)n, 0 };
    }
    return true;
}

static bool read_clock(struct trace *t, const uint8_t *p, const uint8_t *end)
{
    uint64_t units;
    if (p < end && *p == TRACE_SYNC)
        p++;
    if (p == end || *p++ != TRACE_FREQUENCY || !trace_get(&p, end, &units) || units == 0)
        return false;
    t->units = units;
    return true;
}

/* ---- a generation --------------------------------------------------------------------------------------------------- */

static bool get_event(const uint8_t **p, const uint8_t *end, struct trace_record *rec)
{
    unsigned x = *p < end ? **p - (unsigned)EXPERIMENTAL_FIRST : UINT32_MAX;
    uint64_t v;
    if (x >= sizeof experimental_args)
        return trace_get_event(p, end, rec);
    ++*p;
    *rec = (struct trace_record){ 0 };
    if (!trace_get(p, end, &rec->time))
        return false;
    for (unsigned i = 0; i < experimental_args[x]; i++)
        if (!trace_get(p, end, &v))
            return false;
    return true;
}

/* The next event of the thread, if there is one. */
static bool cursor_step(struct trace *t, struct cursor *c)
{
    while (c->batch != 0) {
        struct batch *b = &t->batch[c->batch - 1];
        if (c->at == NULL) {
            c->at = b->data;
            c->time = b->time;
        }
        if (c->at < b->end && get_event(&c->at, b->end, &c->rec)) {
            c->time += c->rec.time;
            return true;
        }
        t->bad += c->at < b->end;
        c->batch = b->next;
        c->at = NULL;
    }
    return false;
}

static bool earlier(const struct trace *t, uint32_t a, uint32_t b)
{
    const struct cursor *x = &t->cursor[a], *y = &t->cursor[b];
    return x->time != y->time ? x->time < y->time : a < b;
}

static void sift_down(struct trace *t, size_t i)
{
    uint32_t top = t->heap[i];
    for (size_t child; (child = 2 * i + 1) < t->nheap; i = child) {
        child += child + 1 < t->nheap && earlier(t, t->heap[child + 1], t->heap[child]);
        if (!earlier(t, t->heap[child], top))
            break;
        t->heap[i] = t->heap[child];
    }
    t->heap[i] = top;
}

static void add_batch(struct trace *t, const struct trace_batch *b, const uint8_t *data)
{
    uint32_t at = map_get(&t->threads, b->m);
    if (at == MAP_NONE) {
        at = (uint32_t)t->ncursors;
        map_put(&t->threads, b->m, at);
        MUST_ROOM(t->cursor, t->ncursors, t->cursors_room);
        t->cursor[t->ncursors++] = (struct cursor){ .m = b->m };
    }
    MUST_ROOM(t->batch, t->nbatches, t->batches_room);
    t->batch[t->nbatches++] = (struct batch){ data, data + b->length, b->time, 0 };
    struct cursor *c = &t->cursor[at];
    *(c->last != 0 ? &t->batch[c->last - 1].next : &c->batch) = (uint32_t)t->nbatches;
    c->last = (uint32_t)t->nbatches;
}

static void take_batch(struct trace *t, const struct trace_batch *b, const uint8_t *p)
{
    const uint8_t *end = p + b->length;
    bool fine = true;
    switch (p < end ? *p : 0) {
    case 0: break;
    case TRACE_STRINGS: fine = read_strings(t, p + 1, end); break;
    case TRACE_STACKS: fine = read_stacks(t, p + 1, end); break;
    case TRACE_SYNC: case TRACE_FREQUENCY: fine = read_clock(t, p, end); break;
    case TRACE_CPU_SAMPLES: break;
    default: add_batch(t, b, p);
    }
    t->bad += !fine;
}

/* The head of the batch at *p; *p goes to its contents. False: there is none. */
static bool get_batch(const uint8_t **p, const uint8_t *end, struct trace_batch *b, bool *experimental)
{
    *experimental = end - *p > 2 && **p == EXPERIMENTAL_BATCH;
    if (!*experimental)
        return trace_get_batch(p, end, b);
    *p += 2; /* the experiment's number */
    return trace_get(p, end, &b->gen) && trace_get(p, end, &b->m) && trace_get(p, end, &b->time) && trace_get(p, end, &b->length) &&
        b->length <= (size_t)(end - *p);
}

static void forget(struct trace *t)
{
    t->nbatches = t->ncursors = t->nheap = t->ntexts = t->nraw = 0;
    map_free(&t->threads);
    map_free(&t->texts);
    map_free(&t->raws);
}

static int64_t ns_between(const struct trace *t, uint64_t from, uint64_t to)
{
    double ns = (double)(int64_t)(to - from) * 1e9 / (double)t->units;
    return ns > 9e17 ? INT64_C(900000000000000000) : ns < 0 ? 0 : (int64_t)ns;
}

static void begin(struct trace *t, uint64_t units_before)
{
    uint64_t first = t->cursor[t->heap[0]].time, units = t->units;
    if (t->begun) {
        t->units = units_before;
        int64_t ns = ns_between(t, t->origin, first);
        t->origin_ns = t->origin_ns > INT64_MAX / 2 ? t->origin_ns : t->origin_ns + ns;
        t->units = units;
    }
    t->origin = first;
    t->begun = true;
}

/* Reads the next one that has events and is complete. */
static bool next_generation(struct trace *t)
{
    while (!t->over) {
        const uint8_t *from = t->at;
        uint64_t units = t->units;
        bool whole = false, any = false;
        forget(t);
        while (t->at < t->end) {
            const uint8_t *p = t->at;
            struct trace_batch b;
            bool experimental;
            if (*p == TRACE_END_OF_GENERATION) {
                t->at = p + 1;
                if (!any)
                    continue;
                whole = true;
                break;
            }
            if (!get_batch(&p, t->end, &b, &experimental))
                break;
            if (any && b.gen != t->gen) { /* how Go 1.25 and older end one */
                whole = true;
                break;
            }
            t->gen = b.gen;
            any = true;
            if (!experimental)
                take_batch(t, &b, p);
            t->at = p + b.length;
        }
        whole = whole || (any && t->at == t->end && t->version < 26);
        if (!whole) {
            t->cut = (size_t)(t->end - from);
            t->over = true;
            return false;
        }
        t->generations++;
        t->heap = must_grow(t->heap, (t->ncursors + 1) * sizeof *t->heap);
        for (size_t i = 0; i < t->ncursors; i++)
            if (cursor_step(t, &t->cursor[i]))
                t->heap[t->nheap++] = (uint32_t)i;
        for (size_t i = t->nheap / 2; i-- > 0;)
            sift_down(t, i);
        t->over = t->at == t->end;
        if (t->nheap > 0) {
            begin(t, units);
            return true;
        }
    }
    return false;
}

bool trace_next(struct trace *t, struct trace_event *ev)
{
    if (t->popped) {
        if (!cursor_step(t, &t->cursor[t->heap[0]]))
            t->heap[0] = t->heap[--t->nheap];
        if (t->nheap > 0)
            sift_down(t, 0);
    }
    t->popped = t->nheap > 0 || next_generation(t);
    if (!t->popped)
        return false;
    struct cursor *c = &t->cursor[t->heap[0]];
    ev->m = c->m;
    ev->rec = c->rec;
    ev->ns = t->origin_ns + ns_between(t, t->origin, c->time);
    return true;
}

/* ---- life ------------------------------------------------------------------------------------------------------------ */

struct trace *trace_open(const uint8_t *data, size_t n, const char **why)
{
    static const char tail[] = " trace\0\0\0"; /* behind "go 1.22" */
    *why = n < TRACE_HEADER_BYTES || memcmp(data, "go 1.", 5) != 0 || data[5] < '0' || data[5] > '9' || data[6] < '0' || data[6] > '9' ||
        memcmp(data + 7, tail, TRACE_HEADER_BYTES - 7) != 0 ? "neither a trace nor a profile" : NULL;
    int version = *why == NULL ? (data[5] - '0') * 10 + data[6] - '0' : 0;
    if (version != 0 && (version < 22 || version > 27))
        *why = version < 22 ? "a trace of before Go 1.22, whose form is another" : "a trace of a form that is newer than this program";
    if (*why != NULL)
        return NULL;
    struct trace *t = must_alloc(sizeof *t);
    t->at = data + TRACE_HEADER_BYTES;
    t->end = data + n;
    t->version = version;
    t->units = 1000000000;
    t->nstacks = t->stacks_room = 1;
    t->stack = must_alloc(sizeof *t->stack);
    return t;
}

void trace_close(struct trace *t)
{
    if (t == NULL)
        return;
    forget(t);
    void *all[] = { t->batch, t->cursor, t->heap, t->text, t->raw, t->frame, t->stack };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    map_free(&t->known);
    free(t);
}

int trace_version(const struct trace *t) { return t->version; }
uint64_t trace_generations(const struct trace *t) { return t->generations; }
uint64_t trace_number(const struct trace *t) { return t->gen; }
size_t trace_cut_bytes(const struct trace *t) { return t->cut; }
uint64_t trace_bad_batches(const struct trace *t) { return t->bad; }

/* ---- texts and stacks --------------------------------------------------------------------------------------------------- */

struct trace_text trace_text(const struct trace *t, uint64_t id)
{
    uint32_t at = map_get(&t->texts, id);
    return at == MAP_NONE ? (struct trace_text){ "", 0 } : t->text[at];
}

bool trace_text_is(struct trace_text s, const char *what) { return s.n == strlen(what) && memcmp(s.at, what, s.n) == 0; }

uint32_t trace_stack_of(struct trace *t, uint64_t id)
{
    uint32_t at = map_get(&t->raws, id);
    if (id == 0 || at == MAP_NONE)
        return 0;
    struct raw_stack *r = &t->raw[at];
    if (r->known != 0)
        return r->known;
    size_t from = t->nframes;
    uint64_t key = MAP_KEY;
    const uint8_t *p = r->at;
    for (uint32_t i = 0; i < r->frames; i++) {
        uint64_t pc = 0, function = 0, file = 0, line = 0;
        (void)(trace_get(&p, r->end, &pc) && trace_get(&p, r->end, &function) && trace_get(&p, r->end, &file) && trace_get(&p, r->end, &line));
        struct frame f = { trace_text(t, function), trace_text(t, file), line };
        key = map_key(map_key(map_key(key, f.function.at, f.function.n), "", 1), f.file.at, f.file.n);
        key = map_key(key, &line, sizeof line);
        MUST_ROOM(t->frame, t->nframes, t->frames_room);
        t->frame[t->nframes++] = f;
    }
    uint32_t known = map_get(&t->known, key);
    if (known != MAP_NONE) {
        t->nframes = from;
        return r->known = known;
    }
    MUST_ROOM(t->stack, t->nstacks, t->stacks_room);
    t->stack[t->nstacks] = (struct stack){ from, r->frames };
    map_put(&t->known, key, (uint32_t)t->nstacks);
    return r->known = (uint32_t)t->nstacks++;
}

void trace_stack_show(const struct trace *t, uint32_t stack, struct text *out)
{
    const struct stack *s = &t->stack[stack];
    text_add(out, "%s", "");
    for (uint32_t i = 0; i < s->frames; i++) {
        const struct frame *f = &t->frame[s->frame + i];
        if (i == FRAMES_SHOWN) {
            text_add(out, "\n...");
            return;
        }
        text_add(out, out->n > 0 ? "\n%.*s" : "%.*s", (int)(f->function.n & INT16_MAX), f->function.at);
        if (f->file.n > 0)
            text_add(out, " at %.*s:%" PRIu64, (int)(f->file.n & INT16_MAX), f->file.at, f->line);
    }
}

bool trace_stack_has(const struct trace *t, uint32_t stack, const char *function)
{
    const struct stack *s = &t->stack[stack];
    for (uint32_t i = 0; i < s->frames; i++)
        if (trace_text_is(t->frame[s->frame + i].function, function))
            return true;
    return false;
}
