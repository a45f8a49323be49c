/* Names of addresses, out of generations that are kept, for a signal handler, in which nothing can be symbolised.
 *
 * A generation that was finished in peace has its stacks and strings in it, with each address's function, file and line; those inlined there come first,
 * with a number in the highest byte (stream.c). They are looked for from the newest generation backwards, by reading the tables, and where an address
 * was found is remembered. That is work, so there is a limit to how much is read altogether; what comes then has no name. */
#include "trace/names.h"
#include <string.h>
#include "trace/ring.h"

#define SLOTS 1024u             /* addresses remembered */
#define READ_MAX ((size_t)1 << 30) /* bytes */
#define FRAMES_MAX 16u
#define PC_BITS 56

static struct {
    struct slot { uintptr_t pc; const uint8_t *frames, *end; uint32_t gen, n; } slot[SLOTS]; /* n 0: it has no name */
    size_t read;
    char text[FRAMES_MAX][2][256];
} names;

/* Calls fn for each batch of that kind until it returns true: with its contents, behind the byte. */
static bool each_table(const struct trace_buf *bufs, uint8_t kind, bool (*fn)(void *arg, const uint8_t *p, const uint8_t *end), void *arg)
{
    for (const struct trace_buf *b = bufs; b != NULL; b = b->next) {
        const uint8_t *p = b->data;
        struct trace_batch batch;
        if (!trace_get_batch(&p, b->data + b->len, &batch) || batch.length == 0 || *p != kind)
            continue;
        names.read += batch.length;
        if (fn(arg, p + 1, p + batch.length))
            return true;
    }
    return false;
}

struct frame { uint64_t pc, func, file, line; };

static bool get_frame(const uint8_t **p, const uint8_t *end, struct frame *f)
{
    return trace_get(p, end, &f->pc) && trace_get(p, end, &f->func) && trace_get(p, end, &f->file) && trace_get(p, end, &f->line);
}

static bool find_in_stacks(void *arg, const uint8_t *p, const uint8_t *end)
{
    struct slot *s = arg;
    uint64_t id, n;
    while (p < end && *p++ == TRACE_STACK && trace_get(&p, end, &id) && trace_get(&p, end, &n))
        for (; n > 0; n--) {
            const uint8_t *at = p;
            struct frame f;
            if (!get_frame(&p, end, &f))
                return false;
            if ((f.pc & ((1ull << PC_BITS) - 1)) == s->pc) { /* the first of those that are there */
                s->frames = at;
                s->end = end;
                s->n = (uint32_t)(f.pc >> PC_BITS) + 1;
                return true;
            }
        }
    return false;
}

struct text { uint64_t id; char *out; size_t room; };

static bool find_in_strings(void *arg, const uint8_t *p, const uint8_t *end)
{
    struct text *t = arg;
    uint64_t id, n;
    while (p < end && *p++ == TRACE_STRING && trace_get(&p, end, &id) && trace_get(&p, end, &n) && n <= (size_t)(end - p)) {
        if (id == t->id) {
            size_t over = n >= t->room ? n - (t->room - 1) : 0; /* the end of a long one tells more */
            memcpy(t->out, p + over, n - over);
            t->out[n - over] = 0;
            return true;
        }
        p += n;
    }
    return false;
}

/* NULL: none. */
static const char *text_of(const struct trace_buf *bufs, uint64_t id, char *out, size_t room)
{
    struct text t = { id, out, room };
    return id != 0 && each_table(bufs, TRACE_STRINGS, find_in_strings, &t) ? out : NULL;
}

static struct slot *look_up(const struct ring_view *v, uintptr_t pc)
{
    struct slot *s = &names.slot[(pc * 0x9e3779b97f4a7c15) >> 54];
    if (s->pc == pc)
        return s;
    *s = (struct slot){ .pc = pc };
    for (uint32_t i = v->n; i-- > 0 && s->n == 0 && names.read < READ_MAX;)
        if (each_table(ring_bufs(v, i), TRACE_STACKS, find_in_stacks, s))
            s->gen = i;
    return s;
}

unsigned names_frames_sigsafe(void *arg, uintptr_t pc, struct trace_frame *out, unsigned max)
{
    const struct ring_view *v = arg;
    const struct slot *s = look_up(v, pc);
    const uint8_t *p = s->frames;
    unsigned n = 0;
    for (struct frame f; n < w_min(s->n, w_min(max, FRAMES_MAX)) && get_frame(&p, s->end, &f); n++) {
        const struct trace_buf *bufs = ring_bufs(v, s->gen);
        out[n].function = text_of(bufs, f.func, names.text[n][0], sizeof names.text[n][0]);
        out[n].file = text_of(bufs, f.file, names.text[n][1], sizeof names.text[n][1]);
        out[n].line = (unsigned)f.line;
    }
    return n;
}
