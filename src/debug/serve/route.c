/* The paths. route.h says how to add one. */
#include "debug/serve/route.h"
#include "debug/serve/api.h"
#include "debug/serve/metrics.h"
#include "debug/serve/page.h"
#include "debug/serve/pprof.h"
#include <string.h>

static const struct route routes[] = {
    { "/debug/", 0, page_root },
    { "/debug/page/", ROUTE_PREFIX, page_file },
    { "/debug/pprof/", ROUTE_PREFIX, pprof_index },
    { "/debug/pprof/cmdline", 0, pprof_cmdline },
    { "/debug/pprof/profile", 0, pprof_profile },
    { "/debug/pprof/symbol", ROUTE_POST, pprof_symbol },
    { "/debug/pprof/trace", 0, pprof_trace },
    { "/debug/fgprof", 0, pprof_wall },
    { "/debug/api/", ROUTE_PREFIX, api_document },
    { "/debug/doctor", 0, api_text },
    { "/debug/fibers", 0, api_text },
    { "/debug/flight", ROUTE_HEAVY, api_flight },
    { "/debug/heap", 0, api_heap },
    { "/debug/info", 0, api_text },
    { "/debug/memory", 0, api_text },
    { "/debug/procs", 0, api_text },
    { "/debug/profiles", 0, api_text },
    { "/debug/stops", 0, api_text },
    { "/metrics", 0, metrics_answer },
};

const struct route *route_find(const char *path)
{
    const struct route *best = NULL;
    size_t best_n = 0;
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        const struct route *r = &routes[i];
        size_t n = strlen(r->path);
        if (strcmp(path, r->path) == 0)
            return r;
        if (r->flags & ROUTE_PREFIX && n > best_n && strncmp(path, r->path, n) == 0) {
            best = r;
            best_n = n;
        }
    }
    return best;
}
