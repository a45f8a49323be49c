/* weft_leak_check: fibers that are left behind, found by comparing two censuses.
 *
 * A census is a list of (id, creation site), sorted by id, of all fibers but the runtime's own: see [DUMP] for how it is taken with no stop. Ids
 * are never used twice, so walking both lists side by side tells who is new and who is gone. (That an id is higher does not: processors reserve ids
 * in blocks.) Both are counted by site, and a site with more new ones than gone ones has leaked the difference. So a service that replaces its
 * fiber, or a pool whose fibers come and go, has leaked nothing.
 *
 * What the list says of a fiber that ends at that moment may be wrong. It is never the last word: a leak is looked for again until the wait is
 * over, and what has ended is gone by then.
 *
 * The negative control. A check that cannot fail is worse than none, and such checks have passed for years (a baseline that is read from the wrong
 * variable, a list that comes back empty). So before each look a fiber is left behind on purpose; if the comparison does not tell that it is new,
 * there is no verdict.
 *
 * The end of the runtime. A fiber that is in a check ends with it. A thread of the host goes on: so it enters by rt_enter_try, a check of another
 * life is given up, and it waits for its control, and before each further look, outside of the runtime, where the end finds it gone. A control that
 * has not ended by then never runs again. */
#include "base/fmt.h"
#include "base/offheap.h"
#include "prof/dump.h"
#include "prof/roster.h"
#include "sched/sched.h"
#include <errno.h>
#include <unistd.h>
#include <weft/sync.h>

struct seen { uint64_t id; const void *site; };
struct census { struct seen *at; size_t n, room; bool lost; };
struct site { const void *pc; int64_t surplus; };
struct weft_leak_check {
    struct census before, now;
    struct site *site;
    size_t nsites, site_room;
    uint64_t run; /* the life in which it began */
};

/* Inside the runtime, in this life of it; NULL: that is over. */
static struct m *enter(uint64_t run)
{
    struct m *m = rt_enter_try();
    if (m == NULL || m->run == run)
        return m;
    rt_leave(m);
    return NULL;
}

static bool is_over(uint64_t run)
{
    struct m *m = enter(run);
    if (m != NULL)
        rt_leave(m);
    return m == NULL;
}

/* Off-heap memory, from user code. NULL: none, or the runtime has ended. */
static void *grow(void *old, size_t bytes)
{
    struct m *m = rt_enter_try();
    void *p = m != NULL ? off_realloc(OFF_PROF, old, bytes) : NULL;
    if (m != NULL)
        rt_leave(m);
    return p;
}

static void drop(void *p)
{
    struct m *m = rt_enter_try(); /* NULL: the runtime has ended meanwhile */
    off_free(OFF_PROF, p);
    if (m != NULL)
        rt_leave(m);
}

/* ---- a census ----------------------------------------------------------------------------------------- */

static void note(uint64_t id, const void *site, void *arg)
{
    struct census *c = arg;
    if (c->n == c->room) {
        size_t room = c->room == 0 ? 256 : c->room * 2;
        struct seen *more = grow(c->at, room * sizeof *more);
        if (more == NULL) {
            c->lost = true;
            return;
        }
        c->at = more;
        c->room = room;
    }
    c->at[c->n++] = (struct seen){ id, site };
}

static int census_take(struct census *c)
{
    c->n = 0;
    c->lost = false;
    int err = roster_each(note, c);
    return err != 0 ? err : c->lost ? -ENOMEM : 0;
}

static const struct seen *census_find(const struct census *c, uint64_t id)
{
    size_t lo = 0, hi = c->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (c->at[mid].id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < c->n && c->at[lo].id == id ? &c->at[lo] : NULL;
}

/* ---- the control ---------------------------------------------------------------------------------------- */

struct control {
    uint64_t id;
    weft_sema release;
    bool of_thread;       /* of the host; it looks at done, a fiber waits for ended */
    w_u32 done;           /* rel: nothing of this is used any more; acq in control_end */
    weft_waitgroup ended;
};

static void control_fiber(void *arg)
{
    struct control *c = arg;
    weft_sema_acquire(&c->release);
    if (c->of_thread)
        store_rel(&c->done, 1); /* rel: acq in control_end */
    else
        weft_waitgroup_done(&c->ended);
}

/* By this site checks know the controls of others. */
#define CONTROL_SITE ((const void *)control_fiber)

static int control_start(struct control *c, uint64_t run)
{
    *c = (struct control){ .of_thread = weft_fiber_id() == 0 };
    weft_go_opts opts = { .size = sizeof opts, .name = "leak check", .id = &c->id };
    if (!c->of_thread)
        weft_waitgroup_add(&c->ended, 1);
    struct m *m = enter(run);
    if (m == NULL)
        return -ESRCH;
    int err = sched_spawn(control_fiber, c, &opts, CONTROL_SITE, 0);
    rt_leave(m_self());
    return err;
}

/* 0, or -ESRCH. */
static int control_end(struct control *c, uint64_t run)
{
    struct m *m = enter(run);
    if (m == NULL)
        return -ESRCH;
    weft_sema_release(&c->release, 1); /* from inside, so that it does not find the runtime ended */
    rt_leave(m_self()); /* release has left already, if the control waited; to leave twice does no harm */
    if (!c->of_thread) {
        weft_waitgroup_wait(&c->ended);
        return 0;
    }
    for (unsigned us = 20; load_acq(&c->done) == 0; us = w_min(2 * us, 1000u)) { /* acq: rel in control_fiber */
        usleep(us);
        if (load_acq(&c->done) == 0 && is_over(run))
            return -ESRCH;
    }
    return 0;
}

/* ---- the comparison --------------------------------------------------------------------------------------- */

static bool surplus_add(weft_leak_check *c, const void *pc, int64_t n)
{
    size_t i = 0;
    while (i < c->nsites && c->site[i].pc != pc)
        i++;
    if (i == c->nsites) {
        if (c->nsites == c->site_room) {
            size_t room = c->site_room == 0 ? 64 : c->site_room * 2;
            struct site *more = grow(c->site, room * sizeof *more);
            if (more == NULL)
                return false;
            c->site = more;
            c->site_room = room;
        }
        c->site[c->nsites++] = (struct site){ pc, 0 };
    }
    c->site[i].surplus += n;
    return true;
}

static int64_t surplus_of(const weft_leak_check *c, const void *pc)
{
    for (size_t i = 0; i < c->nsites; i++)
        if (c->site[i].pc == pc)
            return c->site[i].surplus;
    return 0;
}

/* Walks both lists. False: no memory. */
static bool compare(weft_leak_check *c, uint64_t caller)
{
    const struct census *b = &c->before, *n = &c->now;
    size_t i = 0, k = 0;
    bool ok = true;
    c->nsites = 0;
    while (ok && (i < b->n || k < n->n)) {
        if (k == n->n || (i < b->n && b->at[i].id < n->at[k].id)) {
            ok = b->at[i].site == CONTROL_SITE || surplus_add(c, b->at[i].site, -1);
            i++;
        } else if (i == b->n || n->at[k].id < b->at[i].id) {
            ok = n->at[k].id == caller || surplus_add(c, n->at[k].site, 1);
            k++;
        } else {
            i++;
            k++;
        }
    }
    return ok;
}

/* One look: how many are leaked, or -EIO, -ENOMEM, -ESRCH. */
static ssize_t look(weft_leak_check *c, uint64_t caller)
{
    struct control control;
    int err = control_start(&control, c->run);
    if (err != 0)
        return err;
    err = census_take(&c->now);
    if (err == 0 && !compare(c, caller))
        err = -ENOMEM;
    if (control_end(&control, c->run) != 0)
        err = -ESRCH;
    if (err != 0)
        return err;
    if (census_find(&c->now, control.id) == NULL || census_find(&c->before, control.id) != NULL || surplus_of(c, CONTROL_SITE) <= 0)
        return -EIO;
    ssize_t leaked = 0;
    for (size_t s = 0; s < c->nsites; s++)
        if (c->site[s].pc != CONTROL_SITE && c->site[s].surplus > 0)
            leaked += (ssize_t)c->site[s].surplus;
    return leaked;
}

/* Looks again while some are left, less and less often. */
static ssize_t look_until(weft_leak_check *c, int64_t wait_ns)
{
    uint64_t caller = weft_fiber_id();
    int64_t deadline = timer_after(weft_now(), w_max(wait_ns, (int64_t)0));
    for (int64_t pause_ns = 100000;; pause_ns = w_min(2 * pause_ns, INT64_C(50000000))) {
        ssize_t leaked = look(c, caller);
        int64_t left = deadline - weft_now();
        if (leaked <= 0 || left <= 0)
            return leaked;
        left = w_min(pause_ns, left);
        if (caller != 0)
            weft_sleep(left);
        else
            usleep((useconds_t)(left / 1000));
    }
}

/* Made since, at a place that has more. */
static bool suspect(uint64_t id, void *arg)
{
    const weft_leak_check *c = arg;
    const struct seen *s = census_find(&c->now, id);
    return s != NULL && census_find(&c->before, id) == NULL && s->site != CONTROL_SITE && surplus_of(c, s->site) > 0;
}

static int report(weft_leak_check *c, ssize_t leaked, weft_writer *w, void *ctx)
{
    char line[128];
    size_t n = w_fmt(line, sizeof line, "leak check: %ld fiber%s more than at its beginning; made since at the same places:\n\n",
                     (long)leaked, leaked == 1 ? "" : "s");
    int err = w(ctx, line, n);
    return err != 0 ? err : dump_some(w, ctx, suspect, c);
}

/* ---- the public side ------------------------------------------------------------------------------------------ */

static void check_free(weft_leak_check *c)
{
    drop(c->before.at);
    drop(c->now.at);
    drop(c->site);
    drop(c);
}

int weft_leak_check_begin(weft_leak_check **out)
{
    struct m *m = rt_enter_try();
    if (m == NULL)
        return -ESRCH;
    weft_leak_check *c = off_zalloc(OFF_PROF, sizeof *c);
    uint64_t run = m->run;
    rt_leave(m);
    if (c == NULL)
        return -ENOMEM;
    c->run = run;
    int err = census_take(&c->before);
    if (is_over(run)) /* perhaps it is of the next */
        err = -ESRCH;
    if (err == 0)
        *out = c;
    else
        check_free(c);
    return err;
}

ssize_t weft_leak_check_end(weft_leak_check *c, int64_t wait_ns, weft_writer *w, void *ctx)
{
    ssize_t leaked = look_until(c, wait_ns);
    int err = leaked > 0 && w != NULL ? report(c, leaked, w, ctx) : 0;
    check_free(c);
    return err != 0 ? err : leaked;
}
