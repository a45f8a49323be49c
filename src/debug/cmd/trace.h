/* Execution traces of Go 1.22 to 1.27 and of weft, read event by event in the order of their times.
 *
 * Go's own reader puts events in the order that causes demand, by the sequence numbers of fibers and processors, and refuses what has none. Here times
 * will do: what is looked for are durations and rates, and a clock that differs between processors by a microsecond changes none. Numbers are used
 * to leave out what comes too late: an event of a fiber that is older than one that has been seen. So nothing is refused, and whatever the bytes are,
 * memory is a small multiple of the file. */
#ifndef WEFT_CMD_TRACE_H
#define WEFT_CMD_TRACE_H

#include "debug/cmd/map.h"
#include "debug/cmd/report.h"
#include "trace/format.h"

struct trace_text { const char *at; size_t n; }; /* in the file, without a zero behind it */

struct trace_event {
    int64_t ns;             /* since the first event */
    uint64_t m;             /* thread or TRACE_NONE */
    struct trace_record rec;
};

struct trace;
/* NULL: it is none, or of a form that is not known; *why says why. data stays where it is. */
struct trace *trace_open(const uint8_t *data, size_t n, const char **why);
void trace_close(struct trace *t);
/* False: that was the last one. */
bool trace_next(struct trace *t, struct trace_event *ev);

int trace_version(const struct trace *t);         /* 22 to 27 */
uint64_t trace_generations(const struct trace *t); /* complete ones, so far */
uint64_t trace_number(const struct trace *t);     /* of the generation that is read */
/* Behind the last event: bytes that belong to no complete generation, and batches with something in them that no event is. */
size_t trace_cut_bytes(const struct trace *t);
uint64_t trace_bad_batches(const struct trace *t);

/* Of the event that was read last: a text by its number. */
struct trace_text trace_text(const struct trace *t, uint64_t id);
bool trace_text_is(struct trace_text s, const char *what);
/* Stacks by numbers that hold for the whole file, and are the same for the same frames; 0: none. */
uint32_t trace_stack_of(struct trace *t, uint64_t id);
void trace_stack_show(const struct trace *t, uint32_t stack, struct text *out);
/* A frame with a function of that name. */
bool trace_stack_has(const struct trace *t, uint32_t stack, const char *function);

#endif
