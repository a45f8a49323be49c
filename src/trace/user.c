/* What the program says itself: tasks, regions, logs. Contract: Go's runtime/trace/annotation.go.
 *
 * A task is its number, which the reader knows it by; nothing is kept of it here. In Go a task, and so what a region belongs to, travels in a context;
 * here each fiber has a word for it. It is not inherited, as that would cost every queued fiber a word.
 *
 * Regions. The reader keeps a stack of those of each fiber, and refuses a trace in which one ends that is not on top, by task and name; one that ends
 * on an empty stack began before the trace, which is fine. So the fiber has the same stack, of those that the trace was told of, linked through
 * structs in the frames of whoever began them. As they end in the order of that stack, it does not matter which of them a reader has missed the
 * beginnings of. A name for which a full table has no room would not fit the other end: then the generation is lost (and a gap ends all stacks). */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <weft/trace.h>
#include "prof/walk.h"
#include "sched/machine.h"
#include "sched/sched.h"
#include "base/text.h"
#include "trace/hooks.h"
#include "trace/user.h"

#define STACK_MAX 64u
#define OWN_FRAMES 1u /* the public call */

static w_u64 tasks; /* numbers given */

bool weft_trace_enabled(void) { return trace_on(); }

/* The calling fiber's word with the trace. Inlined into the public call. */
struct say { struct m *m; struct trace_emitter *e; uint64_t stack; };

static inline __attribute__((always_inline)) bool say_begin(struct say *s)
{
    uintptr_t pcs[STACK_MAX + OWN_FRAMES];
    if (likely(!trace_on()) || (s->m = rt_enter_if_running()) == NULL)
        return false;
    if ((s->e = hooks_enter(s->m)) == NULL) {
        rt_leave(s->m);
        return false;
    }
    uint32_t n = walk_self(s->m, pcs, w_countof(pcs));
    s->stack = n > OWN_FRAMES ? trace_stack(s->e, pcs + OWN_FRAMES, n - OWN_FRAMES) : 0;
    return true;
}

static inline void say_end(struct say *s)
{
    trace_leave(s->e);
    rt_leave(s->m);
}

static uint64_t text(struct say *s, const char *t) { return t != NULL ? trace_text(s->e, t, strnlen(t, TRACE_TEXT_MAX)) : 0; }

/* The same at both ends of a region. */
static uint64_t region_name(struct say *s, const weft_region *r)
{
    uint64_t id = text(s, r->name);
    if (unlikely(id == 0 && r->name != NULL && r->name[0] != 0))
        trace_lose(s->e);
    return id;
}

/* ---- tasks ------------------------------------------------------------------------------------------------------ */

weft_task weft_task_begin(const char *name, weft_task parent)
{
    weft_task task = add_rlx(&tasks, 1) + 1; /* rlx: only uniqueness matters */
    struct say s;
    if (say_begin(&s)) {
        trace_event(s.e, USER_TASK_BEGIN, task, parent, text(&s, name), s.stack);
        say_end(&s);
    }
    return task;
}

void weft_task_end(weft_task task)
{
    struct say s;
    if (task != 0 && say_begin(&s)) {
        trace_event(s.e, USER_TASK_END, task, s.stack);
        say_end(&s);
    }
}

weft_task weft_task_use(weft_task task)
{
    struct m *m = rt_enter_if_running();
    if (m == NULL)
        return 0;
    weft_task was = m->cur->user_task;
    if (task != WEFT_TASK_ASK)
        m->cur->user_task = task;
    rt_leave(m);
    return was;
}

/* ---- regions ------------------------------------------------------------------------------------------------------ */

void weft_region_begin(weft_region *r, const char *name)
{
    struct say s;
    *r = (weft_region){ .name = name };
    if (!say_begin(&s))
        return;
    struct fiber *f = s.m->cur;
    r->shown = true;
    r->task = f->user_task;
    r->outer = f->regions;
    f->regions = r;
    trace_event(s.e, USER_REGION_BEGIN, r->task, region_name(&s, r), s.stack);
    say_end(&s);
}

/* Off the fiber's stack, told of or not. */
static int region_pop(struct m *m, weft_region *r)
{
    if (m->cur->regions != r)
        return -EINVAL;
    m->cur->regions = r->outer;
    r->shown = false;
    return 0;
}

int weft_region_end(weft_region *r)
{
    struct say s;
    if (!r->shown)
        return 0;
    if (!say_begin(&s)) { /* the trace has ended meanwhile */
        struct m *m = rt_enter_if_running();
        if (m == NULL)
            return 0;
        int err = region_pop(m, r);
        rt_leave(m);
        return err;
    }
    int err = region_pop(s.m, r);
    if (err == 0)
        trace_event(s.e, USER_REGION_END, r->task, region_name(&s, r), s.stack);
    say_end(&s);
    return err;
}

int weft_with_region(const char *name, weft_fn *fn, void *arg)
{
    if (fn == NULL)
        return -EINVAL;
    WEFT_REGION(name);
    fn(arg);
    return 0;
}

/* ---- logs ------------------------------------------------------------------------------------------------------------- */

void weft_trace_log(const char *category, const char *message)
{
    struct say s;
    if (say_begin(&s)) {
        trace_event(s.e, USER_LOG, s.m->cur->user_task, text(&s, category), text(&s, message), s.stack);
        say_end(&s);
    }
}

void weft_trace_logf(const char *category, const char *fmt, ...)
{
    char message[TRACE_TEXT_MAX + 1];
    struct say s;
    va_list ap;
    if (likely(!trace_on()))
        return;
    va_start(ap, fmt); /* before it enters the runtime: this is libc's */
    vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    if (say_begin(&s)) {
        trace_event(s.e, USER_LOG, s.m->cur->user_task, text(&s, category), text(&s, message), s.stack);
        say_end(&s);
    }
}

bool trace_log_inside(struct m *m, const char *category, const char *message)
{
    uintptr_t pcs[STACK_MAX];
    struct say s = { .m = m };
    if (likely(!trace_on()) || m->cur == NULL || !m_has_p(m) || (s.e = hooks_enter_known(m)) == NULL)
        return false;
    uint32_t n = walk_self(m, pcs, w_countof(pcs)), own = text_own_frames(pcs, n);
    s.stack = own < n ? trace_stack(s.e, pcs + own, n - own) : 0;
    trace_event(s.e, USER_LOG, m->cur->user_task, text(&s, category), text(&s, message), s.stack);
    trace_leave(s.e);
    return true;
}
