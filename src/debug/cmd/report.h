/* What weft-doctor has found, file by file, and how it says so. Nothing is printed before all files are read. */
#ifndef WEFT_CMD_REPORT_H
#define WEFT_CMD_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Codes: those of the library's doctor where it is the same misuse, P and T for what only a profile or trace shows. To add one: a line here, its
 * threshold in rules.h, and where it is found, in look_trace.c or look_profile.c. */
#define RULES(X)                                                                                                                               \
    X(W03, "threads end with their fibers", "unlock the fiber from its thread before it ends, in a deferred call")                            \
    X(W04, "collections forced in a row", "leave it to the pacer; to collect more often, lower the percentage or set a memory limit")         \
    X(W06, "memory statistics read by stopping the world", "read metrics instead (weft_metrics_read, runtime/metrics), which stops nothing")  \
    X(W07, "a profile that was not ended", "stop the profile before the program ends, on every way out")                                      \
    X(W10, "profiling costs too much", "record less: a rate of 10000 or more nanoseconds, one in 100 unlocks, or a budget in percent")        \
    X(W15, "runnable, but kept waiting", "look at what held the processors then: long computations, blocking calls, or too few of them")      \
    X(W16, "long stop of the world", "have less to mark (pointer-free objects, smaller caches), or more memory to do it rarely")              \
    X(WXX, "reported by the doctor while the program ran", "see the finding's own text, or the program's log")                                \
    X(P01, "collecting takes much of the processor time", "allocate less, or give the collector room: raise the percentage or the limit")     \
    X(P02, "fibers have become more", "end them: close the channel they wait for, or cancel their context")                                   \
    X(P03, "fibers that wait for ever", "nothing can wake them any more: end them before the last reference to what they wait for is gone")   \
    X(P04, "one lock holds up much", "hold it for shorter, split it, or let readers share it")                                                \
    X(P05, "samples are missing", "sample less often, or raise the limit that the profile's remark names")                                    \
    X(T01, "a part of the trace is missing", "trace into something faster, or with a larger buffer; stop the trace before the program ends")

enum rule {
#define X(id, title, cure) RULE_##id,
    RULES(X)
#undef X
    RULE_COUNT
};

struct report;
struct report *report_new(void);
void report_free(struct report *r);

/* What follows is about this file. */
void report_file(struct report *r, const char *name);
/* What it is: "trace, Go 1.26"; once per file that can be read. */
void report_kind(struct report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Why it cannot be read. */
void report_error(struct report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A finding; stack: a frame a line, "" for none. */
void report_add(struct report *r, enum rule rule, const char *stack, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* The last one has another code: it was told by the program's own doctor. */
void report_as(struct report *r, const char *code);

size_t report_count(const struct report *r); /* findings, of all files */
bool report_has(const struct report *r, enum rule rule); /* in this file */
enum rule report_rule(const char *code); /* the rule with that code, or RULE_WXX */
bool report_failed(const struct report *r); /* a file could not be read */
void report_print(const struct report *r, FILE *out, bool json);
void report_print_rules(FILE *out);

/* Text that grows. */
struct text { char *at; size_t n, room; };
void text_add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void text_free(struct text *t);

/* Memory, or the end of the program. */
void *must_alloc(size_t n); /* zeroed */
void *must_grow(void *p, size_t n);
char *must_dup(const char *s, size_t n);
/* Room for one more of an array that grows by doubling. */
#define MUST_ROOM(array, n, room)                                                                                   \
    ((n) < (room) ? (void)0 : (void)((array) = must_grow((array), ((room) = (room) ? 2 * (room) : 16) * sizeof *(array))))

#endif
