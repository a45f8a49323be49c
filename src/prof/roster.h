/* Who there is and where: all fibers, and the host's threads that are attached, each with its stack, listed and captured without a stop. For
 * dumps as text, profiles of fibers, and leak.c. See roster.c ([DUMP]). */
#ifndef WEFT_PROF_ROSTER_H
#define WEFT_PROF_ROSTER_H

#include "base/base.h"
#include "prof/unwind.h"
#include "sched/sched.h"

/* How a trace is trimmed. */
enum view {
    VIEW_PARKED,  /* begins with the public call that waits */
    VIEW_RUNNING, /* as it is */
    VIEW_SELF,    /* begins with the caller of the call that asked */
};

/* Equal ones are kept once. text and len are the user's. */
struct trace { struct trace *next; uint32_t n, elided; enum view view; bool cut; const char *text; size_t len; uintptr_t pc[]; };

enum kind { KIND_FIBER, KIND_TASK, KIND_THREAD }; /* in this order for equal ids: the fiber is newer than its task */

struct rec {
    uint64_t id;            /* of a thread: its number in the kernel */
    struct fiber *f;        /* NULL: a task */
    struct m *m;            /* a thread's */
    struct trace *trace;    /* NULL: none */
    const void *site;
    weft_fn *fn;            /* a task's */
    struct labels *labels;  /* the record holds a reference, but a task's has a copy */
    uint64_t parent;
    const char *name, *status;
    int64_t minutes, since_ns; /* since_ns: of one that waits, listed only: since when, by the coarse clock; 0: not known; -1: it does not */
    uint8_t kind;
    bool locked, leaked, no_answer, gone;
};

#define ROSTER_TRACES 4096u

/* The first member of what its user needs besides. */
struct roster {
    /* what is wanted: set between roster_begin and roster_take */
    bool all;
    bool list_only;         /* no stacks; status is a hint */
    bool nobody;            /* with list_only: no fibers either, just `then` on the helper */
    bool leaked_only;       /* fibers that the last look found, perhaps */
    bool (*wanted)(uint64_t id, void *arg); /* of those listed; NULL: all. On the helper: it must not call weft */
    void *wanted_arg;
    void (*listed)(struct roster *c); /* with list_only: on the helper, while the runtime cannot end; NULL: nothing */
    void (*then)(struct roster *c); /* on the helper, when all is captured, with maps still held; NULL: nothing. */
    /* the caller */
    struct fiber *self;     /* NULL: none, in a deadlock */
    struct m *self_m;
    void *sp;               /* of self */
    struct m *away;         /* a thread of the host, which the end of the runtime waits for; else NULL */
    uint64_t total;         /* fibers that there were at the beginning */
    /* what was found; the helper's until it has ended. By id, the caller in front, threads last */
    struct rec *rec;
    size_t n, room;
    uint64_t lost;          /* no memory for them */
    int err;
    struct trace *traces[ROSTER_TRACES]; /* hashed */
    struct chunk *chunks;
    char *copy;
    const struct maps *maps;
    struct unwind_from from;
    struct unwind_trace walked;
};

/* bytes of zeroed memory that begins with a roster. all: every fiber, or the caller only; self: the caller, too. From user code. NULL: *err is
 * -ESRCH (the runtime does not run) or -ENOMEM. */
void *roster_begin(size_t bytes, bool all, bool self, int *err);
/* The second half of it, for who has roster_new's memory. From here on till roster_take a thread of the host must not come into the runtime: its end
 * may be waiting for it. 0, -ESRCH. */
int roster_open(struct roster *c, bool all, bool self);
/* Blocks. What went wrong is in c->err then; what was found before counts. */
void roster_take(struct roster *c);
void roster_drop(struct roster *c);

/* The name and the parent of one that was listed only, if it is still there. In `listed`. */
void roster_more(struct roster *c, struct rec *r);
/* A name that its fiber may take away at any moment. False: nothing could be read. */
#define ROSTER_NAME 64u
bool roster_name(const char *from, char to[ROSTER_NAME]);

/* For who is on a helper already, between maps_begin and maps_end: in place of take. then is not called. 0, -ENOMEM. */
int roster_fill(struct roster *c, const struct maps *maps);

/* When no fiber can run, for any thread: in place of begin, take and drop. */
void *roster_new(size_t bytes);
int roster_collect(struct roster *c);
void roster_free(struct roster *c);

/* Lives as long as c. NULL: no memory, and c->err says so. Not between the steps above. */
void *roster_mem(struct roster *c, size_t bytes);
const char *roster_text(struct roster *c, const char *s, size_t n);

/* From user code; may block. 0, -ESRCH, -ENOMEM. Every fiber but the runtime's own, the caller's included, once each and by id, in user code again.
 * The site of one that ends at this moment may be another's. */
int roster_each(void (*each)(uint64_t id, const void *site, void *arg), void *arg);

#endif
