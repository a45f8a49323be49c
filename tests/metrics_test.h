/* One metric at a time, by name. */
#ifndef WEFT_METRICS_TEST_H
#define WEFT_METRICS_TEST_H

#include "test.h"
#include <string.h>

static inline weft_metric metric_read(const char *name, int kind, uint64_t *counts)
{
    weft_metric m = { .name = name, .counts = counts, .room = counts != NULL ? WEFT_METRIC_BUCKETS : 0 };
    cr_assert_eq(weft_metrics_read(&m, 1), 0);
    cr_assert_eq(m.kind, kind, "%s has kind %d", name, m.kind);
    return m;
}

static inline uint64_t metric_u64(const char *name) { return metric_read(name, WEFT_METRIC_U64, NULL).u64; }
static inline double metric_f64(const char *name) { return metric_read(name, WEFT_METRIC_F64, NULL).f64; }

/* Cycles that marked beside the program: each is two stops, where others are one. */
static inline uint64_t metric_beside(void) { return metric_u64("/weft/gc/beside/cycles:gc-cycles"); }

/* The counts, if counts is not NULL, and their sum. */
static inline uint64_t metric_hist(const char *name, uint64_t *counts)
{
    uint64_t own[WEFT_METRIC_BUCKETS], *c = counts != NULL ? counts : own, sum = 0;
    weft_metric m = metric_read(name, WEFT_METRIC_HIST, c);
    for (uint32_t i = 0; i < m.buckets; i++)
        sum += c[i];
    return sum;
}

/* Samples for all there are, histograms with room. */
struct metric_all {
    const weft_metric_desc *desc;
    size_t n;
    weft_metric m[256];
    uint64_t counts[64][WEFT_METRIC_BUCKETS];
};

static inline void metric_all_init(struct metric_all *a)
{
    size_t hists = 0;
    memset(a, 0, sizeof *a);
    a->n = weft_metrics_all(&a->desc);
    cr_assert(a->n <= 256);
    for (size_t i = 0; i < a->n; i++) {
        a->m[i].name = a->desc[i].name;
        if (a->desc[i].kind != WEFT_METRIC_HIST)
            continue;
        cr_assert(hists < 64);
        a->m[i].counts = a->counts[hists++];
        a->m[i].room = WEFT_METRIC_BUCKETS;
    }
}

static inline void metric_all_read(struct metric_all *a)
{
    cr_assert_eq(weft_metrics_read(a->m, a->n), 0);
    for (size_t i = 0; i < a->n; i++)
        cr_assert_eq(a->m[i].kind, a->desc[i].kind);
}

static inline const weft_metric *metric_of(const struct metric_all *a, const char *name)
{
    for (size_t i = 0; i < a->n; i++)
        if (strcmp(a->desc[i].name, name) == 0)
            return &a->m[i];
    cr_assert_fail("no metric %s", name);
    return NULL;
}

static inline uint64_t metric_sum(const weft_metric *m)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < m->buckets; i++)
        sum += m->counts[i];
    return sum;
}

#endif
