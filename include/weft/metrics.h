/* weft/metrics.h - figures by name, read without stopping anything. Contract: Go's runtime/metrics.
 *
 *     weft_metric m[2] = { { .name = "/sched/goroutines:goroutines" }, { .name = "/memory/classes/heap/objects:bytes" } };
 *     if (weft_metrics_read(m, 2) == 0)
 *         printf("%llu fibers, %llu bytes\n", (unsigned long long)m[0].u64, (unsigned long long)m[1].u64);
 *
 * A name is a path and a unit. All of Go's that have a meaning here are there under exactly Go's names, kinds and units, "goroutines" for fibers
 * included, so that what knows those knows these; what weft has beyond that begins with /weft/. A name never changes its meaning. Left out are
 * /cgo/... and /godebug/...; what a collector that marks in a stop does not do, and what no object of weft is, reads 0 and says so in its
 * description.
 *
 * Cumulative figures count from the start of the runtime and never fall. */
#ifndef WEFT_METRICS_H
#define WEFT_METRICS_H

#include <weft/base.h>

WEFT_BEGIN_DECLS

enum { WEFT_METRIC_BAD = 0, WEFT_METRIC_U64, WEFT_METRIC_F64, WEFT_METRIC_HIST };

typedef struct weft_metric_desc {
    const char *name;
    const char *description;
    int kind;                 /* WEFT_METRIC_* */
    bool cumulative;          /* of a histogram: each count */
    uint32_t buckets;         /* of a histogram: how many counts; else 0 */
    const double *bounds;     /* of a histogram: buckets + 1, rising; count i is of values in [bounds[i], bounds[i+1]); may begin with -inf, end with
                                 +inf */
} weft_metric_desc;

/* All there are, sorted by name; returns how many. *list is the library's and never changes. Any time, by anyone, also while the runtime does not
 * run. */
WEFT_API size_t weft_metrics_all(const weft_metric_desc **list);

#define WEFT_METRIC_BUCKETS 162 /* no histogram of this version has more counts */

typedef struct weft_metric {
    const char *name;         /* in. A read makes it point to the library's own copy, by which the next one finds it at once */
    int kind;                 /* out: tells which of the following holds. WEFT_METRIC_BAD: nothing has this name */
    uint32_t id_;             /* private; any value will do */
    union { uint64_t u64; double f64; }; /* out */
    uint64_t *counts;         /* in: where the counts of a histogram go */
    uint32_t room;            /* in: so many fit there; 0: they are not wanted */
    uint32_t buckets;         /* out: so many there are; if that is more than room, none was written */
    const double *bounds;     /* out: as in the description */
} weft_metric;

/* Fills n samples by their names. Nothing is stopped, nothing allocated. Values of one call about the heap are of one moment, and so are those about
 * cycles, those about CPU time, and those about fibers' states as far as these can be told while they change; /memory/classes/total is always the
 * exact sum of the others. When nothing else runs they agree with weft_read_mem_stats to the byte. Calls with samples of their own may overlap.
 * 0 (n = 0: does nothing), -EINVAL (samples NULL), -ESRCH (runtime not running). May wait for a processor, and so move. Takes 6 KiB of the stack at
 * most. */
WEFT_API int weft_metrics_read(weft_metric *samples, size_t n);

WEFT_END_DECLS
#endif
