/* Bug 01: a finalizer whose ctx reaches its own object.
 *
 * What the call promises: weft_set_finalizer(obj, fn, ctx) runs fn(obj, ctx) once obj is unreachable. ctx is a root:
 *                         fn may need it, so it lives.
 * What the bug assumes:   that ctx may be anything, also something that points back to the object.
 * What goes wrong:        ctx, a root, reaches the object, so the object is never unreachable. No finalizer runs, no
 *                         descriptor is closed, and nothing reports an error: the program leaks until it meets its
 *                         limit.
 * Instead:                give fn what it needs by value (here nothing at all: the object comes as fn's first
 *                         argument).
 * Guarded:                nothing can make it harmless. The doctor follows what ctx reaches, and with w01=abort the program ends
 *                         after a collection or two, with the way from ctx to the object, and not when the last descriptor is
 *                         gone. */
#include "bug.h"

#include <sys/eventfd.h>

enum { FILES = 400, CYCLES = 10, GUARDED_CYCLES = 1000 };

struct file { int fd; };

/* What closing a file needs, the author thought. */
struct closing {
    struct file *file;
    const char *why;
};

static int closed; /* by finalizers, which run on one fiber */

static void close_buggy(void *obj, void *ctx)
{
    struct closing *c = ctx;
    (void)obj;
    close(c->file->fd);
    __atomic_fetch_add(&closed, 1, __ATOMIC_RELAXED);
}

static void close_fixed(void *obj, void *ctx)
{
    struct file *f = obj;
    (void)ctx; /* at most a value: (void *)(intptr_t)f->fd */
    close(f->fd);
    __atomic_fetch_add(&closed, 1, __ATOMIC_RELAXED);
}

static void open_one(bool buggy)
{
    struct file *f = weft_alloc_noscan(sizeof *f);
    f->fd = eventfd(0, EFD_CLOEXEC);
    if (buggy) {
        struct closing *c = weft_alloc(sizeof *c);
        c->file = f; /* here it happens */
        c->why = "forgotten";
        weft_set_finalizer(f, close_buggy, c);
    } else {
        weft_set_finalizer(f, close_fixed, NULL);
    }
}

/* On a fiber of its own, so that no pointer is left on the stack of the one that looks. */
static void open_and_forget(void *buggy)
{
    for (int i = 0; i < FILES; i++)
        open_one(buggy != NULL);
}

/* An eventfd has no other name than this. */
static int open_descriptors(void)
{
    int n = 0;
    char path[32], name[64];
    for (int fd = 0; fd < 2 * FILES; fd++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t len = readlink(path, name, sizeof name);
        n += len > 0 && memmem(name, (size_t)len, "eventfd", 7) != NULL;
    }
    return n;
}

static void measure(bool buggy)
{
    weft_waitgroup wg = { 0 };
    int before = open_descriptors(); /* the runtime may have some */
    weft_waitgroup_go(&wg, open_and_forget, buggy ? &closed : NULL);
    weft_waitgroup_wait(&wg);
    for (int i = 0; i < (bug_guarded() ? GUARDED_CYCLES : CYCLES); i++) { /* guarded, most of the calls rest */
        weft_gc();
        weft_sleep(10 * WEFT_MILLISECOND); /* finalizers are queued by the cycle and run after it */
    }
    int open = open_descriptors() - before;
    bug_value("closed", closed);
    bug_value("open", open);
    bug_say("after %d collections %d of %d finalizers have run, %d descriptors are open", CYCLES, closed, FILES, open);
    bug_cell("%d of %d closed", closed, FILES);
}

static void buggy(void *arg) { (void)arg, measure(true); }
static void fixed(void *arg) { (void)arg, measure(false); }

static const char *verdict(const struct bug_result *r)
{
    const struct bug_result *b = &r[BUGGY], *f = &r[FIXED];
    if (bug_get(b, "closed") != 0 || bug_get(b, "open") != FILES)
        return "a finalizer ran although its ctx reaches the object";
    /* Stacks are read conservatively: a stale word may keep an object or two. */
    if (bug_get(f, "closed") < FILES * 0.98 || bug_get(f, "open") > FILES * 0.02)
        return "descriptors stay open with a ctx that does not reach the object";
    return NULL;
}

int main(int argc, char **argv)
{
    static const struct bug bug = {
        .number = "01",
        .title = "finalizer's ctx reaches its own object",
        .buggy = buggy,
        .fixed = fixed,
        .instead = "weft_set_finalizer(file, close_file, NULL);   /* it gets the object anyway; ctx: values only */",
        .code = WEFT_W01,
        .doctor = "w01=abort",
        .guard = "the doctor ends the program after a collection or two (w01=abort), before the descriptors are gone",
        .verdict = verdict,
        .plots = { { "closed", "files closed, of 400", "", true }, { "open", "descriptors still open", "", false } },
    };
    return bug_main(argc, argv, &bug);
}
