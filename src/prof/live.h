/* A profile that is written while it is taken: collects samples, and hands a piece of the file to the host's writer every now and then. See live.c.
 *
 * All calls by one thread, a helper with files of its own (helper.h), but live_open and what is said to be for others. */
#ifndef WEFT_PROF_LIVE_H
#define WEFT_PROF_LIVE_H

#include "prof/pprof.h"
#include <weft/prof.h>

struct live;

/* Limits that profiles have unless told otherwise. */
#define LIVE_BYTES (64u << 20)
#define LIVE_NS (3600 * INT64_C(1000000000))

struct live_opts {
    const char *what;           /* for the log: "CPU profile" */
    weft_writer *w;
    void *ctx;
    int fd;                     /* to be closed at the end; -1: none */
    int64_t flush_ns, max_ns;   /* max_ns 0: no limit */
    uint64_t max_bytes;         /* 0: no limit */
    weft_profile_closed *closed; /* NULL: a line in the log */
    void *closed_arg;
};

static inline bool live_unlimited(const struct live_opts *o) { return o->max_ns == 0 && o->max_bytes == 0; }

/* Starts the thread that calls the writer. Outside the runtime. 0, -ENOMEM, -EAGAIN. On an error the descriptor is still open. */
int live_open(const struct pprof_kind *kind, const struct live_opts *o, struct live **out);

/* A sample as for pprof_add; one that finds no memory is counted as lost: its first value. pc NULL: value[0] samples were lost elsewhere. */
void live_add(struct live *l, const uintptr_t *pc, uint32_t n, const int64_t *value, const struct pprof_label *label, uint32_t labels);
int64_t live_due_ns(const struct live *l);  /* when live_look has something to do */
struct live_state { int64_t begun_ns, max_ns; uint64_t bytes, max_bytes; }; /* limits 0: none */
void live_state(const struct live *l, struct live_state *out); /* anybody, for show, until live_free */
/* Writes what there is, if it is time. False: it is to be closed, since a limit was reached or the writer failed. */
bool live_look(struct live *l, int64_t now_ns);
/* Writes the rest, with the duration, and a remark unless NULL; waits for the writer; closes the descriptor. 0, or the first error there was: the
 * writer's or the descriptor's. The host's function is called, or a line logged, if it was not asked for. After it only live_free and
 * live_is_writer. */
int live_close(struct live *l, const char *remark);
uint64_t live_bytes(const struct live *l);  /* handed to the writer so far */
void live_free(struct live *l);             /* anybody, outside the runtime */
bool live_is_writer(const struct live *l);  /* the calling thread is the one that calls the writer. l is not looked into */

/* Instead of closing it, when nothing has been added: nothing is written, the descriptor stays open. Outside the runtime, by anybody. */
void live_abandon(struct live *l);
/* In the child of a fork: lets the descriptor go. Nothing is written, and the rest stays where it lies (sampler.c). */
void live_after_fork(struct live *l);

#endif
