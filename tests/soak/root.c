/* Where graphs begin: every kind of root there is, a pointer each. What only such a root leads to must live as long as it is there. */
#include "soak.h"

enum { DATA, ZERO_DATA, LOCAL, RANGE, HANDLE, STACK, FIBER, CHANNEL, TIMER, PIN, CTX, ARG, ROOT_KINDS };
static const char *const kind_names[] = { "initialized data", "zero data", "thread-local variable", "range", "handle", "stack of the mutator",
    "stack of a fiber that waits", "buffer of a channel", "argument of a timer", "pin", "finalizer's ctx", "cleanup's arg" };
#define EACH ((ROOTS + ROOT_KINDS - 1) / ROOT_KINDS)

static void *data_root[WORLDS][EACH] = { { (void *)1 } }, *zero_root[WORLDS][EACH];
static __thread void *local_root[EACH];
static weft_chan *to_keeper[WORLDS][EACH], *from_keeper[WORLDS][EACH], *buffer[WORLDS][EACH];
static weft_pinner pinner[WORLDS][EACH];
static void *anchor[WORLDS][EACH][2]; /* an object with a finalizer, and one with a cleanup, whose arguments are roots */
static weft_cleanup *cleanup[WORLDS]; /* malloc's */

/* Not inlined: the thread changes at a wait, but for who is locked to it. */
static __attribute__((noinline)) void **local(unsigned at) { return &local_root[at]; }

static void never(void *arg) { MUST(arg == NULL, "a timer or a cleanup that is far off ran"); }
static void never_finalizer(void *obj, void *ctx) { MUST(obj == NULL && ctx == NULL, "the finalizer of a reachable object ran"); }

/* Holds what it is sent until it is sent something else, and then sends it back; on its stack, where the runtime itself writes it. */
static void keeper(void *arg)
{
    weft_chan **pair = arg, *to = pair[0], *from = pair[1];
    void *volatile held = NULL;
    void *p = NULL;
    free(pair);
    while (weft_chan_recv(to, &p) == 1) {
        void *old = held;
        held = p;
        p = NULL;
        __asm__ volatile("" : : "r"(&p) : "memory");
        MUST(weft_chan_send(from, &old) == 0);
        old = NULL;
        __asm__ volatile("" : : "r"(&old) : "memory");
    }
}

const char *root_kind(const struct root *r) { return kind_names[r->kind]; }

void roots_init(struct world *w)
{
    unsigned n = w->number;
    MUST((w->range = calloc(EACH, sizeof *w->range)) != NULL && (cleanup[n] = calloc(EACH, sizeof **cleanup)) != NULL);
    MUST(weft_root_add(w->range, EACH * sizeof *w->range) == 0);
    data_root[n][0] = NULL;
    for (unsigned k = 0; k < EACH; k++) {
        MUST((buffer[n][k] = weft_chan_make(8, 1)) != NULL);
        MUST((to_keeper[n][k] = weft_chan_make(8, 0)) != NULL && (from_keeper[n][k] = weft_chan_make(8, 0)) != NULL);
        MUST((anchor[n][k][0] = weft_alloc(16)) != NULL && (anchor[n][k][1] = weft_alloc(16)) != NULL);
        weft_chan **pair = malloc(2 * sizeof *pair);
        MUST(pair != NULL);
        pair[0] = to_keeper[n][k];
        pair[1] = from_keeper[n][k];
        MUST(weft_go(keeper, pair) == 0);
    }
    for (unsigned i = 0; i < ROOTS; i++)
        w->root[i] = (struct root){ (uint8_t)(i % ROOT_KINDS), (uint8_t)(i / ROOT_KINDS), { -1, 0 }, 0 };
}

void roots_end(struct world *w)
{
    for (unsigned k = 0; k < EACH; k++)
        weft_chan_close(to_keeper[w->number][k]);
    MUST(weft_root_remove(w->range) == 0);
    free(w->range);
}

bool root_can(struct world *w, const struct root *r)
{
    return r->kind == LOCAL ? w->locked : !w->child || (r->kind != FIBER && r->kind != TIMER);
}

/* Gives the keeper p, gets back what it held. */
static void *swap(struct world *w, const struct root *r, void *p)
{
    MUST(weft_chan_send(to_keeper[w->number][r->at], &p) == 0);
    p = NULL;
    MUST(weft_chan_recv(from_keeper[w->number][r->at], &p) == 1);
    return p;
}

void root_put(struct world *w, struct root *r, struct edge e, void *p)
{
    unsigned n = w->number, at = r->at;
    void *old = NULL;
    switch (r->kind) {
    case DATA: data_root[n][at] = p; break;
    case ZERO_DATA: zero_root[n][at] = p; break;
    case LOCAL: *local(at) = p; break;
    case RANGE: w->range[at] = p; break;
    case HANDLE: MUST((r->name = weft_handle_new(p)) != 0); break;
    case STACK: w->stack[at] = p; break;
    case FIBER: old = swap(w, r, p); break;
    case CHANNEL: MUST(weft_chan_try_send(buffer[n][at], &p) == 0); break;
    case TIMER: /* nothing else holds it: it is a root while it waits */
        MUST((r->name = ~(uint64_t)weft_timer_func(100000 * WEFT_SECOND, 0, never, p)) != ~UINT64_C(0));
        break;
    case PIN: MUST(weft_pin(&pinner[n][at], p) == 0); break;
    case CTX: MUST(weft_set_finalizer(anchor[n][at][0], never_finalizer, p) == 0); break;
    default: MUST(weft_add_cleanup(anchor[n][at][1], never, p, &cleanup[n][at]) == 0);
    }
    MUST(old == NULL, "a root that was empty holds %p", old);
    r->e = e;
}

static void *shadow_of(struct world *w, const struct root *r) { return (char *)node_at(&w->node[r->e.to]) + r->e.off; }

void *root_take(struct world *w, struct root *r)
{
    unsigned n = w->number, at = r->at;
    if (r->e.to < 0)
        return NULL;
    void *want = shadow_of(w, r), *p = want;
    switch (r->kind) {
    case DATA: p = data_root[n][at]; data_root[n][at] = NULL; break;
    case ZERO_DATA: p = zero_root[n][at]; zero_root[n][at] = NULL; break;
    case LOCAL: p = *local(at); *local(at) = NULL; break;
    case RANGE: p = w->range[at]; w->range[at] = NULL; break;
    case HANDLE: p = weft_handle_get(r->name); MUST(weft_handle_free(r->name) == 0); break;
    case STACK: p = w->stack[at]; w->stack[at] = NULL; break;
    case FIBER: p = swap(w, r, NULL); break;
    case CHANNEL: MUST(weft_chan_try_recv(buffer[n][at], &p) == 1); break;
    case TIMER: MUST(weft_timer_stop((weft_timer *)~r->name)); break;
    case PIN: weft_unpin(&pinner[n][at]); break;
    case CTX: MUST(weft_set_finalizer(anchor[n][at][0], NULL, NULL) == 0); break;
    default: MUST(weft_cleanup_stop(cleanup[n][at]));
    }
    if (p != want)
        soak_differs(w, r->e.to, root_kind(r), 0, (uint64_t)p, (uint64_t)want);
    r->e.to = -1;
    return p;
}

void *root_look(struct world *w, struct root *r)
{
    unsigned n = w->number, at = r->at;
    void *want = shadow_of(w, r), *p = want;
    switch (r->kind) {
    case DATA: p = data_root[n][at]; break;
    case ZERO_DATA: p = zero_root[n][at]; break;
    case LOCAL: p = *local(at); break;
    case RANGE: p = w->range[at]; break;
    case HANDLE: p = weft_handle_get(r->name); break;
    case STACK: p = w->stack[at]; break;
    case FIBER:
        if (root_can(w, r) && rng_below(&w->rng, 4) == 0) {
            p = swap(w, r, NULL);
            MUST(swap(w, r, p) == NULL);
        }
        break;
    default: break;
    }
    if (p != want)
        soak_differs(w, r->e.to, root_kind(r), 0, (uint64_t)p, (uint64_t)want);
    return p;
}

/* The child does not run the functions of timers, nor keeps their arguments. */
void roots_before_fork(struct world *w)
{
    for (unsigned i = 0; i < ROOTS; i++)
        if (w->root[i].kind == TIMER)
            root_take(w, &w->root[i]);
}
