/* The paths of Go's net/http/pprof. See pprof.c. */
#ifndef WEFT_SERVE_PPROF_H
#define WEFT_SERVE_PPROF_H

#include "debug/serve/route.h"

int pprof_index(struct request *r);
int pprof_cmdline(struct request *r);
int pprof_profile(struct request *r);
int pprof_symbol(struct request *r);
int pprof_trace(struct request *r);
int pprof_wall(struct request *r);

#endif
