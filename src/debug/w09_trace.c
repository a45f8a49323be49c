/* W09: a trace is started twice, and the refusal is not looked at; or two are written to one file.
 *
 * A refused start alone is no misuse: who looks at the error stops the old one first, or goes without. Whoever did not look stops "his" later, and
 * so the other's: then one stop more comes than there were starts. So what is looked for is a stop that finds nothing, of a writer and ctx with
 * which a start was refused since the last one that was not.
 *
 * Two traces may have one descriptor's file by different names: those of weft_fd_writer are compared by what they are open on. */
#include <errno.h>
#include <sys/stat.h>
#include <weft/trace.h>
#include "base/lock.h"
#include "debug/place.h"
#include "os/clock.h"

#define KNOWN 16u /* writers: those that are on, of which there are at most eight, and some that were */

static struct writer {
    uintptr_t w, ctx;    /* w 0: free */
    bool on;
    uint32_t refused;    /* starts, since the last that was not */
    int64_t refused_ns;  /* the last of them */
    dev_t dev;           /* regular: what it writes to */
    ino_t ino;
    bool regular;
    struct place started, refused_at;
} known[KNOWN];
static struct lock lock = LOCK_INIT(RANK_LEAF);

enum { SAME_FILE = 1 }; /* n[3] */

static struct writer *find(uintptr_t w, uintptr_t ctx)
{
    for (struct writer *k = known; k < known + KNOWN; k++)
        if (k->w == w && (w == 0 || k->ctx == ctx))
            return k;
    return NULL;
}

/* NULL: all are on, which cannot be. */
static struct writer *find_or_add(uintptr_t w, uintptr_t ctx)
{
    struct writer *k = find(w, ctx);
    for (uint32_t i = 0; k == NULL && i < KNOWN; i++)
        if (!known[i].on)
            k = &known[i];
    if (k != NULL && (k->w != w || k->ctx != ctx))
        *k = (struct writer){ .w = w, .ctx = ctx };
    return k;
}

static void look_at_file(struct writer *n)
{
    struct stat st;
    int saved = errno;
    n->regular = n->w == (uintptr_t)weft_fd_writer && fstat((int)(intptr_t)n->ctx, &st) == 0 && S_ISREG(st.st_mode);
    if (n->regular) {
        n->dev = st.st_dev;
        n->ino = st.st_ino;
    }
    errno = saved;
}

static bool same_file(const struct writer *a, const struct writer *b)
{
    return a != b && a->on && b->on && a->regular && b->regular && a->dev == b->dev && a->ino == b->ino;
}

static void started(uintptr_t w, uintptr_t ctx)
{
    struct sighting s = { .code = WEFT_W09, .n = { 0, 0, 0, SAME_FILE } };
    struct writer n = { .w = w, .ctx = ctx, .on = true };
    bool twice = false;
    place_here(&n.started);
    look_at_file(&n);
    lock_take(&lock);
    struct writer *k = find_or_add(w, ctx);
    if (k != NULL)
        *k = n;
    for (const struct writer *o = known; k != NULL && o < known + KNOWN; o++)
        if (same_file(k, o)) {
            twice = true;
            place_made(&s, &o->started);
        }
    lock_drop(&lock);
    if (twice) {
        place_stack(&s, &n.started);
        doctor_sight(&s);
    }
}

static void refused(uintptr_t w, uintptr_t ctx)
{
    struct place p;
    place_here(&p);
    lock_take(&lock);
    struct writer *k = find(w, ctx);
    if (k != NULL) {
        k->refused++;
        k->refused_ns = os_now_ns();
        k->refused_at = p;
    }
    lock_drop(&lock);
}

static void stopped(uintptr_t w, uintptr_t ctx, int err)
{
    struct sighting s = { .code = WEFT_W09 };
    lock_take(&lock);
    struct writer *k = find(w, ctx);
    bool one_too_many = k != NULL && err == -ENOENT && k->refused != 0;
    if (k != NULL)
        k->on = false;
    if (one_too_many) {
        s.n[0] = k->refused;
        s.n[1] = (uint64_t)(os_now_ns() - k->refused_ns);
        place_stack(&s, &k->refused_at);
        place_made(&s, &k->started);
        k->refused = 0;
    }
    lock_drop(&lock);
    if (one_too_many)
        doctor_sight(&s);
}

static void told(enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t c)
{
    if (id == PROBE_trace_stopped)
        stopped(a, b, (int)c);
    else if ((int)c == 0)
        started(a, b);
    else if ((int)c == -EALREADY)
        refused(a, b);
}

static void forget(void)
{
    if (known[0].w != 0) /* what was never touched takes no memory */
        memset(known, 0, sizeof known);
    lock_init(&lock, RANK_LEAF);
}

static void say(struct text *t, const struct sighting *s)
{
    if (s->n[3] == SAME_FILE)
        text_puts(t, "the trace that was started here is written into a file into which another one is written already: neither can be read");
    else
        text_putf(t, "the trace that was to start here was refused (-EALREADY), and %lu ms later came one stop more than there were starts: the one "
                     "before it stopped the other trace, and this one got nothing", (unsigned long)(s->n[1] / 1000000));
}

const struct detector w09_trace = {
    .code = WEFT_W09,
    .title = "trace started twice",
    .cure = "Look at what weft_trace_start returns; give each trace a writer or ctx, and a file, of its own: there may be several at a time.",
    .probes = DOCTOR_PROBE(trace_started) | DOCTOR_PROBE(trace_stopped),
    .probe = told,
    .end = forget,
    .after_fork = forget,
    .say = say,
};
