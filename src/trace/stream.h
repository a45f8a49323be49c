/* Generations that are complete, and who reads them. See stream.c. */
#ifndef WEFT_TRACE_STREAM_H
#define WEFT_TRACE_STREAM_H

#include "base/atomic.h"
#include "base/base.h"
#include "trace/buffer.h"
#include <weft/base.h>

#define TRACE_READERS 8

/* Function, file and line of a return address: what was inlined there, innermost first, and last the function that the code belongs to. Returns how
 * many, at most max; 0: not known. Texts hold until the next call. The switcher calls it. */
struct trace_frame { const char *function, *file; unsigned line; };
struct trace_symbols {
    unsigned (*frames)(void *arg, uintptr_t pc, struct trace_frame *out, unsigned max);
    void *arg;
    unsigned (*inner)(void *arg, const uintptr_t *pc, unsigned n); /* so many in front are to go, of a stack that begins in the runtime; NULL: none */
};

/* ---- the switcher's side ------------------------------------------------------------------------------- */

/* Waits until the generation should end (trace.due), at most so long. True: it should. */
bool trace_wait_due(int64_t timeout_ns);
/* After trace_switch: the generation gets its tables and clock, and goes to all readers. symbols NULL: addresses are shown as such. */
void trace_finish(const struct trace_symbols *symbols);

/* In a signal handler, of the generation that trace_take_sigsafe has given: all of it, for trace_bufs_free. NULL: it was lost. */
struct trace_buf *trace_assemble_sigsafe(uint32_t gen, const struct trace_symbols *symbols);

struct trace_stats {
    uint64_t generations, lost;        /* finished; of them lost, because the buffers did not suffice */
    uint64_t texts_lost, stacks_lost;  /* that became empty, because a table was full */
};
struct trace_stats trace_stats(void);

/* A generation that is complete. Nobody changes it. */
struct generation {
    uint32_t number, nbufs;
    w_u32 refs;
    struct trace_buf *bufs;
    struct trace_clock began;
    uint64_t gc_before, gc_after; /* as trace.gc, of all generations until its begin, and until its end */
    bool gc_events;
};

/* From now on fn sees each generation that is finished, on the switcher's thread, before the next one is switched to; it copies what it wants to
 * keep, and so holds nothing of the pool. g NULL: that one was lost. There is one such function; NULL: none. The caller sees to it that fn can be
 * called for a while after it is no longer wanted. */
typedef void trace_tap(const struct generation *g, const struct trace_clock *began);
void trace_set_tap(trace_tap *fn);

/* ---- readers --------------------------------------------------------------------------------------------- */

struct trace_reader;
struct trace_reader_stats {
    uint64_t generations, bytes; /* written */
    uint64_t dropped;            /* generations: the writer was too slow, or has failed, or there were too few buffers or too little memory */
    int err;                     /* the writer's */
};

/* A reader of all generations that are finished from now on. 0, -EALREADY (one with the same writer and ctx is open), -ENOSPC (there are
 * TRACE_READERS), -ENOMEM. Any thread; takes memory. */
int trace_reader_open(weft_writer *w, void *ctx, struct trace_reader **out);
/* On a thread of the reader's own, once: writes whatever comes, and returns when the reader is closed and all that came before is written: 0; or the
 * writer's error, at once. */
int trace_reader_pump(struct trace_reader *r);
/* Nothing comes after what is finished. Any thread. */
void trace_reader_close(struct trace_reader *r);
struct trace_reader_stats trace_reader_stats(struct trace_reader *r);
/* After the pump has returned, or if it never ran. Closes it, too. */
void trace_reader_free(struct trace_reader *r);

/* In the child of a fork, alone: nothing is open, nobody is an emitter or a reader. Readers and what they held are lost: a writer may have
 * forked, in the middle of one. */
void trace_after_fork(void);

#endif
