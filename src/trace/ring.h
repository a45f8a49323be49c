/* The last generations, kept in memory for the flight recorder. See ring.c. */
#ifndef WEFT_TRACE_RING_H
#define WEFT_TRACE_RING_H

#include "base/base.h"
#include "trace/stream.h"

struct kept; /* one generation, and what bridges the gap before it */
struct ring_view {
    struct ring_view *retired; /* ring.c's; and the next */
    uint32_t refs;
    uint32_t n;
    struct kept *at[]; /* oldest first; n > 0 */
};

struct ring_stats {
    uint64_t bytes;       /* kept now */
    uint64_t most_bytes;  /* ever since ring_open, with those that are held */
    uint32_t generations; /* kept now */
    uint64_t lost;        /* generations that never came, or for which there was no memory */
};

/* Keeps what is finished from now on: the last generation, and older ones as long as those after them are no larger than bytes together, and reach back
 * no longer than age_ns. bell: a futex that
 * grows with each that comes; NULL: none. 0, -EALREADY. Any thread. */
int ring_open(size_t bytes, int64_t age_ns, w_u32 *bell);
/* Drops all. What is held stays until it is put. */
void ring_close(void);
struct ring_stats ring_stats(void);
/* In the child of a fork, alone: nothing is kept. */
void ring_after_fork(void);

/* What is kept now; NULL: no memory, or the ring is closed. */
struct ring_view *ring_hold(void);
void ring_put(struct ring_view *v);

/* Of what is held: number and batches of one generation. In handlers, too. */
uint32_t ring_number(const struct ring_view *v, uint32_t i);
const struct trace_buf *ring_bufs(const struct ring_view *v, uint32_t i);

/* In a signal handler, which may have interrupted anybody: what is kept, until ring_unpeek. NULL: nothing, then there is no unpeek. */
const struct ring_view *ring_peek_sigsafe(void);
void ring_unpeek_sigsafe(void);

/* Header and generations; adds what was written to *bytes. 0, or the writer's error, at once. Takes no lock and no memory: is as safe as the writer. */
int ring_write(const struct ring_view *v, weft_writer *w, void *ctx, uint64_t *bytes);

#endif
