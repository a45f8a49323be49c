/* The bytes of Go's execution trace, version 2 as of Go 1.26: numbers, and functions from values to bytes. Nothing here has state, allocates or
 * takes a lock, so that whoever emits may use it.
 *
 *      file        header, then generations
 *      generation  batches, then the byte 52
 *      batch       1, generation, thread, base time, length, and so many bytes: timed events of one thread in the order in which they happened, each
 *                  number, time since the one before (the first: since the base time), arguments;
 *                  or, with another first byte, a table: strings, stacks, samples, or the clock
 *
 * All numbers but those of events are LEB128: seven bits a byte, lowest first. Identifiers of strings and stacks hold in one generation only, 0 is
 * the empty one and is never written. Which events may follow which is said in buffer.c, [RULES]. */
#ifndef WEFT_TRACE_FORMAT_H
#define WEFT_TRACE_FORMAT_H

#include "base/base.h"

/* Timed events: number, name, arguments behind the time. A stack is an id of trace_stack, a text one of trace_text.
 * To add one that Go has: a line here. */
#define TRACE_EVENTS(X)                                                                            \
    X(9, PROCS_CHANGE, 2)          /* processors, stack */                                         \
    X(10, PROC_START, 2)           /* processor, its sequence */                                   \
    X(11, PROC_STOP, 0)                                                                            \
    X(12, PROC_STEAL, 3)           /* processor, its sequence, thread that loses it */             \
    X(13, PROC_STATUS, 2)          /* processor, enum trace_proc_status */                         \
    X(14, GO_CREATE, 3)            /* new fiber, stack it will have, stack */                      \
    X(15, GO_CREATE_SYSCALL, 1)    /* new fiber, outside the runtime on this thread */             \
    X(16, GO_START, 2)             /* fiber, its sequence */                                       \
    X(17, GO_DESTROY, 0)                                                                           \
    X(18, GO_DESTROY_SYSCALL, 0)                                                                   \
    X(19, GO_STOP, 2)              /* why, stack: it stays runnable */                             \
    X(20, GO_BLOCK, 2)             /* why, stack */                                                \
    X(21, GO_UNBLOCK, 3)           /* fiber, its sequence, stack of who does it */                 \
    X(22, GO_SYSCALL_BEGIN, 2)     /* the processor's sequence, stack */                           \
    X(23, GO_SYSCALL_END, 0)       /* with the processor it had */                                 \
    X(24, GO_SYSCALL_END_BLOCKED, 0) /* without */                                                 \
    X(25, GO_STATUS, 3)            /* fiber, thread or TRACE_NONE, enum trace_go_status */         \
    X(26, STW_BEGIN, 2)            /* kind, stack */                                               \
    X(27, STW_END, 0)                                                                              \
    X(28, GC_ACTIVE, 1)            /* the collector's sequence */                                  \
    X(29, GC_BEGIN, 2)             /* the collector's sequence, stack */                           \
    X(30, GC_END, 1)               /* the collector's sequence */                                  \
    X(31, GC_SWEEP_ACTIVE, 1)      /* processor */                                                 \
    X(32, GC_SWEEP_BEGIN, 1)       /* stack */                                                     \
    X(33, GC_SWEEP_END, 2)         /* bytes swept, bytes freed */                                  \
    X(34, GC_MARK_ASSIST_ACTIVE, 1) /* fiber */                                                    \
    X(35, GC_MARK_ASSIST_BEGIN, 1) /* stack */                                                     \
    X(36, GC_MARK_ASSIST_END, 0)                                                                   \
    X(37, HEAP_ALLOC, 1)           /* live bytes */                                                \
    X(38, HEAP_GOAL, 1)            /* bytes; 0: none */                                            \
    X(39, GO_LABEL, 1)             /* text */                                                      \
    X(40, USER_TASK_BEGIN, 4)      /* task, parent or 0, name, stack */                            \
    X(41, USER_TASK_END, 2)        /* task, stack */                                               \
    X(42, USER_REGION_BEGIN, 3)    /* task or 0, name, stack */                                    \
    X(43, USER_REGION_END, 3)      /* task or 0, name, stack */                                    \
    X(44, USER_LOG, 4)             /* task or 0, key, value, stack */                              \
    X(45, GO_SWITCH, 2)            /* next fiber, its sequence */                                  \
    X(46, GO_SWITCH_DESTROY, 2)    /* next fiber, its sequence */                                  \
    X(47, GO_CREATE_BLOCKED, 3)    /* as GO_CREATE */                                              \
    X(48, GO_STATUS_STACK, 4)      /* as GO_STATUS, stack */

enum trace_type {
    TRACE_EVENT_BATCH = 1, TRACE_STACKS, TRACE_STACK, TRACE_STRINGS, TRACE_STRING, TRACE_CPU_SAMPLES, TRACE_CPU_SAMPLE, TRACE_FREQUENCY,
#define X(number, name, args) TRACE_##name = number,
    TRACE_EVENTS(X)
#undef X
    TRACE_SYNC = 50, TRACE_CLOCK_SNAPSHOT, TRACE_END_OF_GENERATION,
    TRACE_TYPES
};
enum { /* arguments: TRACE_GO_START_ARGS */
#define X(number, name, args) TRACE_##name##_ARGS = args,
    TRACE_EVENTS(X)
#undef X
};
enum trace_proc_status { TRACE_PROC_RUNNING = 1, TRACE_PROC_IDLE, TRACE_PROC_SYSCALL, TRACE_PROC_ABANDONED /* was in a syscall; nobody knows where */
};
enum trace_go_status { TRACE_GO_RUNNABLE = 1, TRACE_GO_RUNNING, TRACE_GO_SYSCALL, TRACE_GO_WAITING };

#define TRACE_NONE (~0ull) /* no thread, no processor; no fiber is 0 */
#define TRACE_HEADER_BYTES 16
#define TRACE_NUMBER_MAX 10 /* bytes of one number */
#define TRACE_ARGS_MAX 4
#define TRACE_EVENT_MAX (1 + (1 + TRACE_ARGS_MAX) * TRACE_NUMBER_MAX)
#define TRACE_TEXT_MAX 1024  /* bytes of a string */
#define TRACE_FRAMES_MAX 128
#define TRACE_BATCH_MAX 65536 /* bytes of a batch behind its length */
#define TRACE_BATCH_HEADER_MAX (1 + 3 * TRACE_NUMBER_MAX + TRACE_LENGTH_BYTES)
#define TRACE_LENGTH_BYTES 3 /* what the length of a batch takes, whatever it is: it is written last */

extern const uint8_t trace_args[TRACE_TYPES]; /* 1 + arguments of a timed event; 0: it is none */
const char *trace_type_name(enum trace_type type); /* for reports: "GO_START"; of timed events */

static inline uint8_t *trace_put(uint8_t *p, uint64_t v)
{
    while (unlikely(v >= 0x80)) {
        *p++ = (uint8_t)v | 0x80;
        v >>= 7;
    }
    *p++ = (uint8_t)v;
    return p;
}

void trace_put_header(uint8_t out[TRACE_HEADER_BYTES]);
/* A batch from here on; the bytes of its length lie before what is returned, for trace_batch_close. m: thread or TRACE_NONE. */
uint8_t *trace_batch_open(uint8_t *p, uint64_t gen, uint64_t m, uint64_t time);
/* data: what trace_batch_open returned. */
void trace_batch_close(uint8_t *data, const uint8_t *end);
/* Behind the byte TRACE_SYNC, in a batch that each generation has once: units of time per second, and the other clocks at the batch's time. */
uint8_t *trace_put_sync(uint8_t *p, uint64_t units_per_second, uint64_t mono_ns, uint64_t wall_ns);
#define TRACE_SYNC_MAX (2 + 1 + TRACE_NUMBER_MAX * 5)

/* A number at *p, which moves behind it. False: there is none before end, or it is longer than 64 bits. */
bool trace_get(const uint8_t **p, const uint8_t *end, uint64_t *v);
/* A timed event at *p, likewise; time: what is added to that of the one before. False: there is none. */
struct trace_record { enum trace_type type; uint64_t time, args[TRACE_ARGS_MAX]; };
bool trace_get_event(const uint8_t **p, const uint8_t *end, struct trace_record *ev);
/* The head of a batch at *p, likewise; its contents are [*p, *p + length). False also for TRACE_END_OF_GENERATION. */
struct trace_batch { uint64_t gen, m, time, length; };
bool trace_get_batch(const uint8_t **p, const uint8_t *end, struct trace_batch *b);

#endif
