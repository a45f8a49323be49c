/* /metrics, for Prometheus. See metrics.c. */
#ifndef WEFT_SERVE_METRICS_H
#define WEFT_SERVE_METRICS_H

#include "debug/serve/route.h"
#include "debug/serve/buf.h"

int metrics_answer(struct request *r);

/* The same into a text, for tests. openmetrics: that form, else Prometheus' text. go: with Go's names beside. 0, -ENOMEM, or what weft_metrics_read
 * says. */
int metrics_make(struct buf *t, bool openmetrics, bool go);

#endif
