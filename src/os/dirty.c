/* See dirty.h: which back-end, and the way to it. Each has an essay of its own.
 *
 * Only what needs no care is chosen without being asked for. Write protection does: EFAULT from a read(2) that the host makes into an object with
 * pointers, now and then, while a cycle is under way, is the kind of error that takes weeks to find, and a longer stop is not. Of the soft-dirty
 * bits of older kernels (/proc/self/clear_refs) nothing comes of it either: to read and to clear them are two steps, and a write between them is
 * lost. */
#include "os/dirty_way.h"
#include <errno.h>
#include "base/fail.h"
#include "base/fmt.h"

static const struct dirty_way *const ways[] = { &dirty_uffd, &dirty_mprotect }; /* the best one first */

w_u32 dirty_holds;

static struct {
    const struct dirty_way *way; /* NULL: none. Fixed while the runtime runs; handlers read it */
    char why[256];
} dirty;

/* ---- start ------------------------------------------------------------------------------------------------------------ */

static void choose(const struct dirty_way *w)
{
    __atomic_store_n(&dirty.way, w, __ATOMIC_RELEASE); /* rel: publishes what it has set up; acq in dirty_fault */
    store_rlx(&dirty_holds, w != NULL && w->holds);    /* rlx: see dirty.h */
}

static void say(const char *what, const char *why, int err)
{
    w_fmt(dirty.why, sizeof dirty.why, err != 0 ? "%s: %s (error %d)" : "%s", what, why, -err);
}

int dirty_start(enum dirty_backend want, bool any, uintptr_t lo, uintptr_t hi)
{
    choose(NULL);
    say("written pages are not looked for", "", 0);
    for (unsigned i = 0; i < w_countof(ways); i++) {
        const struct dirty_way *w = ways[i];
        const char *why = "";
        if (any ? w->holds : w->id != want)
            continue;
        int err = w->start(lo, hi, &why);
        if (err != 0) {
            say("written pages cannot be told", why, err);
            if (!any)
                return err;
            continue;
        }
        w_fmt(dirty.why, sizeof dirty.why, "written pages are %s", w->does);
        choose(w);
        break;
    }
    return 0;
}

static void none(void)
{
    const struct dirty_way *w = dirty.way;
    choose(NULL);
    if (w != NULL)
        w->stop();
}

void dirty_stop(void)
{
    none();
    dirty.why[0] = 0;
}

enum dirty_backend dirty_backend(void) { return dirty.way != NULL ? dirty.way->id : DIRTY_NONE; }

const char *dirty_why(void) { return dirty.why; }

/* ---- ranges ------------------------------------------------------------------------------------------------------------ */

static bool refused(void) { return dirty.way == NULL || fail_now(FAIL_DIRTY); }
static int refusal(void) { return dirty.way == NULL ? -ENOSYS : -EAGAIN; }

int dirty_committed(uintptr_t lo, uintptr_t hi) { return refused() ? refusal() : dirty.way->committed(lo, hi); }
int dirty_watch(uintptr_t lo, uintptr_t hi) { return refused() ? refusal() : dirty.way->watch == NULL ? -ENOSYS : dirty.way->watch(lo, hi); }
int dirty_arm(uintptr_t lo, uintptr_t hi) { return refused() ? refusal() : dirty.way->arm(lo, hi); }
int dirty_disarm(uintptr_t lo, uintptr_t hi) { return refused() ? refusal() : dirty.way->disarm(lo, hi); }

ptrdiff_t dirty_take(uintptr_t lo, uintptr_t hi, bool arm, struct dirty_range *out, size_t n, uintptr_t *next)
{
    return refused() ? refusal() : dirty.way->take(lo, hi, arm, out, n, next);
}

ptrdiff_t dirty_mend(uintptr_t lo, uintptr_t hi)
{
    return refused() ? refusal() : dirty.way->mend == NULL ? -ENOSYS : dirty.way->mend(lo, hi);
}

/* ---- writes ------------------------------------------------------------------------------------------------------------ */

void dirty_hold_slow(const void *p, size_t bytes, bool hold)
{
    if (bytes != 0)
        dirty.way->hold((uintptr_t)p, (uintptr_t)p + bytes, hold);
}

/* An instruction may lie on two pages: 16 bytes are the longest. */
bool dirty_fault(uintptr_t addr, uintptr_t pc)
{
    const struct dirty_way *w = __atomic_load_n(&dirty.way, __ATOMIC_ACQUIRE); /* acq: rel in choose */
    return w != NULL && w->fault != NULL && addr - pc >= 16 && w->fault(addr);
}

/* ---- fork -------------------------------------------------------------------------------------------------------------- */

void dirty_forked(void)
{
    if (dirty.way != NULL && dirty.way->forked != NULL)
        dirty.way->forked();
}

int dirty_after_fork_child(void)
{
    int err = dirty.way != NULL ? dirty.way->after_fork_child() : 0;
    if (err != 0) {
        say("written pages cannot be told in the child of a fork", "userfaultfd is refused", err);
        none();
    }
    return err;
}
