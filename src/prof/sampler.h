/* What profiles have in common that are taken over time: starting and stopping, the helper, limits, the end of the runtime, forks, exit. See
 * sampler.c. */
#ifndef WEFT_PROF_SAMPLER_H
#define WEFT_PROF_SAMPLER_H

#include "base/atomic.h"
#include "prof/helper.h"
#include "prof/live.h"

/* Who has ended one: nobody (a limit, its writer), who is to; or nobody did, and the runtime has ended, or the process did by exit(3). */
enum profile_end { PROFILE_END_ITSELF, PROFILE_END_STOPPED, PROFILE_END_RUNTIME, PROFILE_END_EXIT };

/* To add a kind: one of these, static, and sampler_add for it by a constructor. */
struct sampler {
    const char *what;             /* for the log: "CPU profile" */
    struct pprof_value value[2], period_type;
    int hz;                       /* by default */
    /* In user code, where no stop stops us; period_ns is set. begin: from here on samples may come. 0 or an error. undo: what it did, as the helper
     * could not be started. NULL: nothing. */
    int (*begin)(struct sampler *s);
    void (*undo)(struct sampler *s);
    /* On the helper: takes what there is to s->live; when to come again at the latest. */
    int64_t (*round)(struct sampler *s, int64_t now_ns);
    /* On the helper: nothing more comes after this. A remark for the profile and the log, or NULL. */
    const char *(*end)(struct sampler *s);
    void (*freed)(struct sampler *s);  /* on the helper, after all is written. NULL: nothing */
    void (*forked)(struct sampler *s); /* in the child of a fork, alone: it is off, and frees nothing. Takes no lock. NULL: nothing */
    void (*gone)(struct sampler *s);   /* the runtime ends, and all kinds are off. NULL: nothing */

    /* sampler.c */
    struct sampler *next;
    pthread_mutex_t control;      /* the next group. Taken in user code */
    bool on;                      /* was started, and nobody has stopped it; it may have ended by itself (done) */
    struct helper helper;
    void *ctx;                    /* the writer's: here it is a root */
    /* fixed while it is on */
    int64_t period_ns;
    uint32_t arg;                 /* the kind's own option */
    struct live *live;
    bool unlimited;
    enum profile_end ended_by;    /* once stop is set, which publishes it */
    w_u32 wake;                   /* futex: 1: there is something to do */
    w_u32 stop;                   /* a wish */
    w_u32 done;                   /* futex; rel: all is written, err; acq in those who wait */
    int err;
};

/* What is under way, for show: false: it is not, or is just being started or stopped. Outside the runtime. */
struct sampler_state { int64_t age_ns; struct live_state live; };
bool sampler_state(const char *what, struct sampler_state *out);

/* The public options, checked. */
struct sampler_opts { int hz; uint32_t arg; struct live_opts live; };
int sampler_opts(struct sampler_opts *to, int hz, int flush_ms, int64_t max_bytes, int64_t max_ns, bool unlimited, weft_profile_closed *closed,
                 void *closed_arg);

/* The public calls: see weft/prof.h. path NULL: w and ctx. */
int sampler_start(struct sampler *s, struct sampler_opts *o, weft_writer *w, void *ctx, const char *path);
int sampler_stop(struct sampler *s);

void sampler_add(struct sampler *s);
void sampler_wake(struct sampler *s); /* the helper comes at once; async-signal-safe */

#endif
