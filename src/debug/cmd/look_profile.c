/* What a profile shows, by its kind: where processor time went, which locks held up others, how many fibers there are. */
#include "debug/cmd/rules.h"
#include <inttypes.h>
#include <string.h>
#include "debug/cmd/profile.h"

/* ---- CPU profiles: whose samples ----------------------------------------------------------------------------------- */

enum of { OF_PROFILER, OF_GC, OF_LOST, OF_FORCED, OF_STATS, OF_COUNT };

/* Functions by which a sample is known; a name that ends in '*' stands for all that begin so. */
static const struct { const char *name; enum of of; } known[] = {
    /* weft: frames that are no code (prof/pseudo.h), and public calls. Not runtime.profiler: the CPU profile's own work, most of it done once */
    { "runtime.gc", OF_GC }, { "runtime.lostSamples", OF_LOST }, { "weft_gc", OF_FORCED },
    { "weft_free_os_memory", OF_FORCED }, { "weft_read_mem_stats", OF_STATS },
    /* Go */
    { "runtime.blockevent", OF_PROFILER }, { "runtime.mutexevent", OF_PROFILER }, { "runtime.saveblockevent", OF_PROFILER },
    { "runtime.(*mLockProfile).*", OF_PROFILER }, { "runtime.profilealloc", OF_PROFILER },
    { "runtime.gcBgMarkWorker*", OF_GC }, { "runtime.gcAssistAlloc*", OF_GC }, { "runtime.bgsweep", OF_GC }, { "runtime.gcStart*", OF_GC },
    { "runtime.gcMarkTermination*", OF_GC }, { "runtime.deductSweepCredit", OF_GC }, { "runtime._GC", OF_GC },
    { "runtime.GC", OF_FORCED }, { "runtime/debug.FreeOSMemory", OF_FORCED }, { "runtime.ReadMemStats", OF_STATS },
};
/* Files of weft in which waits, contentions and samples of the heap are recorded. */
static const char *const recorders[] = { "/src/prof/block.c", "/src/prof/buckets.c", "/src/prof/heap.c" };

static bool is(const char *name, const char *pattern)
{
    size_t n = strlen(pattern);
    return n > 0 && pattern[n - 1] == '*' ? strncmp(name, pattern, n - 1) == 0 : strcmp(name, pattern) == 0;
}

static bool ends(const char *s, const char *tail)
{
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && strcmp(s + n - k, tail) == 0;
}

static bool whose(void *arg, const struct profile_frame *f)
{
    bool *has = arg;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (is(f->function, known[i].name))
            has[known[i].of] = true;
    for (size_t i = 0; i < sizeof recorders / sizeof *recorders; i++)
        if (ends(f->file, recorders[i]))
            has[OF_PROFILER] = true;
    return true;
}

struct share { int64_t samples, most; const struct profile_sample *at; };

static int64_t plus(int64_t a, int64_t b)
{
    int64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? (a < 0 ? INT64_MIN : INT64_MAX) : sum;
}

/* of: all samples. False: too few, or too small a share. */
static bool counts(const struct share *s, int64_t of, double least)
{
    return of >= R_SAMPLES_ALL && s->samples >= R_SAMPLES && (double)s->samples >= least * (double)of;
}

static void add(struct report *r, enum rule rule, const struct profile *p, const struct profile_sample *s, const char *what)
{
    struct text t = { 0 };
    if (s != NULL)
        profile_stack(p, s, &t);
    report_add(r, rule, t.at != NULL ? t.at : "", "%s", what);
    text_free(&t);
}

static void share_of(struct report *r, enum rule rule, const struct profile *p, const struct share *s, int64_t all, const char *what)
{
    char text[200];
    snprintf(text, sizeof text, "%.0f %% of the processor time (%" PRId64 " of %" PRId64 " samples) %s", 100 * (double)s->samples / (double)all,
             s->samples, all, what);
    add(r, rule, p, s->at, text);
}

static void look_cpu(struct report *r, const struct profile *p)
{
    struct share of[OF_COUNT] = { { 0, 0, NULL } };
    int64_t all = 0;
    int count = profile_type(p, "samples");
    for (size_t i = 0; i < p->nsamples; i++) {
        const struct profile_sample *s = &p->sample[i];
        int64_t n = profile_value(p, s, count);
        bool has[OF_COUNT] = { false };
        all = plus(all, n);
        profile_frames(p, s, whose, has);
        for (int k = 0; k < OF_COUNT; k++) {
            if (!has[k])
                continue;
            of[k].samples = plus(of[k].samples, n);
            if (n > of[k].most) {
                of[k].most = n;
                of[k].at = s;
            }
        }
    }
    if (counts(&of[OF_PROFILER], all, R_W10_SHARE))
        share_of(r, RULE_W10, p, &of[OF_PROFILER], all, "went into recording waits, contentions and allocations for profiles; most of it here");
    if (counts(&of[OF_FORCED], all, R_CALLS_SHARE))
        share_of(r, RULE_W04, p, &of[OF_FORCED], all, "went into collections that the program asks for; most of it here");
    if (counts(&of[OF_STATS], all, R_CALLS_SHARE))
        share_of(r, RULE_W06, p, &of[OF_STATS], all, "went into memory statistics that stop the world; most of it here");
    if (counts(&of[OF_GC], all, R_P01_SHARE) && !report_has(r, RULE_W04)) {
        of[OF_GC].at = NULL; /* the collector's own stacks tell nobody anything */
        share_of(r, RULE_P01, p, &of[OF_GC], all, "went into collecting");
    }
    if (counts(&of[OF_LOST], all, R_P05_SHARE))
        share_of(r, RULE_P05, p, &of[OF_LOST], all, "is known by number only: there was no room for these samples");
}

/* ---- locks ------------------------------------------------------------------------------------------------------------ */

static bool first_unlocks(void *arg, const struct profile_frame *f)
{
    static const char *const names[] = { "sync.(*Mutex).Unlock", "sync.(*RWMutex).Unlock", "sync.(*RWMutex).RUnlock", "sync.(*Mutex).unlockSlow",
                                         "internal/sync.(*Mutex).Unlock", "weft_mutex_unlock", "weft_rwmutex_unlock", "weft_rwmutex_runlock" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(f->function, names[i]) == 0)
            *(bool *)arg = true;
    return false;
}

/* The profile of waits has the same types: its stacks are of who waits. There to wait is no fault. */
static void look_locks(struct report *r, const struct profile *p)
{
    int number = profile_type(p, "contentions"), delay = profile_type(p, "delay");
    int64_t all = 0, most = 0, most_n = 0;
    const struct profile_sample *at = NULL;
    for (size_t i = 0; i < p->nsamples; i++) {
        const struct profile_sample *s = &p->sample[i];
        bool unlocks = false;
        profile_frames(p, s, first_unlocks, &unlocks);
        if (!unlocks)
            continue;
        int64_t ns = profile_value(p, s, delay);
        all = plus(all, ns);
        if (ns > most) {
            most = ns;
            most_n = profile_value(p, s, number);
            at = s;
        }
    }
    int64_t least = p->duration_ns > 0 ? (int64_t)(R_P04_SHARE * (double)p->duration_ns) : R_P04_NS;
    if (at == NULL || most < least || most_n <= 0 || most / most_n < R_P04_MEAN_NS)
        return;
    char what[240];
    snprintf(what, sizeof what, "others waited %.1f s in %" PRId64 " waits, %.1f ms on average, for the lock that is released here: %.0f %% of all such "
             "waiting", (double)most / 1e9, most_n, (double)(most / most_n) / 1e6, 100 * (double)most / (double)all);
    add(r, RULE_P04, p, at, what);
}

/* ---- fibers ------------------------------------------------------------------------------------------------------------- */

static bool hash_frame(void *arg, const struct profile_frame *f)
{
    uint64_t *key = arg;
    *key = map_key(map_key(*key, f->function, strlen(f->function)), &f->line, sizeof f->line);
    return true;
}

/* Fibers by stack. */
struct crowd { uint64_t key; int64_t n; const struct profile_sample *at; };
struct crowds { struct crowd *at; size_t n, room; struct map by; };

static struct crowd *crowd_of(struct crowds *c, uint64_t key)
{
    uint32_t i = map_get(&c->by, key);
    if (i == MAP_NONE) {
        i = (uint32_t)c->n;
        map_put(&c->by, key, i);
        MUST_ROOM(c->at, c->n, c->room);
        c->at[c->n++] = (struct crowd){ key, 0, NULL };
    }
    return &c->at[i];
}

static int64_t gather(struct crowds *c, const struct profile *p, int type)
{
    int64_t all = 0;
    for (size_t i = 0; i < p->nsamples; i++) {
        uint64_t key = MAP_KEY;
        profile_frames(p, &p->sample[i], hash_frame, &key);
        struct crowd *x = crowd_of(c, key);
        int64_t n = profile_value(p, &p->sample[i], type);
        x->n = plus(x->n, n);
        x->at = &p->sample[i];
        all = plus(all, n);
    }
    return all;
}

static void look_growth(struct report *r, const struct profile *p, const struct profile *base, int type)
{
    struct crowds now = { 0 }, then = { 0 };
    int64_t n = gather(&now, p, type), before = gather(&then, base, profile_type(base, "goroutine"));
    for (size_t i = 0; i < now.n; i++) {
        struct crowd *x = &now.at[i];
        int64_t was = crowd_of(&then, x->key)->n;
        if (was < 0 || x->n < was / 2 || (double)x->n - (double)was < R_P02_MORE || (double)x->n < R_P02_TIMES * (double)was)
            continue;
        char what[200];
        snprintf(what, sizeof what, "%" PRId64 " fibers are here, which were %" PRId64 " in the first profile; in all %" PRId64 ", which were %" PRId64,
                 x->n, was, n, before);
        add(r, RULE_P02, p, x->at, what);
    }
    free(now.at);
    free(then.at);
    map_free(&now.by);
    map_free(&then.by);
}

static void look_leaked(struct report *r, const struct profile *p, int type)
{
    for (size_t i = 0; i < p->nsamples; i++) {
        int64_t n = profile_value(p, &p->sample[i], type);
        if (n <= 0)
            continue;
        char what[120];
        snprintf(what, sizeof what, "%" PRId64 " fiber%s wait%s here for what nobody can do any more", n, n == 1 ? "" : "s", n == 1 ? "s" : "");
        add(r, RULE_P03, p, &p->sample[i], what);
    }
}

/* ---- all of it ------------------------------------------------------------------------------------------------------------ */

static const char *what_it_is(const struct profile *p)
{
    static const char *const kinds[][2] = { { "cpu", "CPU profile" }, { "wall", "wall-clock profile" }, { "inuse_space", "heap profile" },
        { "delay", "profile of waits or locks" }, { "goroutineleak", "profile of leaked fibers" }, { "goroutine", "profile of fibers" },
        { "threadcreate", "profile of threads" } };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (profile_type(p, kinds[i][0]) >= 0)
            return kinds[i][1];
    return "profile";
}

void look_profile(struct report *r, const struct profile *p, const struct profile *base, bool cut)
{
    int fibers = profile_type(p, "goroutine"), leaked = profile_type(p, "goroutineleak");
    report_kind(r, "%s, %zu stacks%s", what_it_is(p), p->nsamples, p->duration_ns > 0 ? "" : ", no duration");
    if (p->duration_ns > 0)
        report_kind(r, "%s, %zu stacks, %.2f s", what_it_is(p), p->nsamples, (double)p->duration_ns / 1e9);
    if (profile_type(p, "cpu") >= 0)
        look_cpu(r, p);
    if (profile_type(p, "contentions") >= 0)
        look_locks(r, p);
    if (leaked >= 0)
        look_leaked(r, p, leaked);
    if (fibers >= 0 && base != NULL)
        look_growth(r, p, base, fibers);
    if (cut)
        report_add(r, RULE_W07, "", "the file ends in the middle of a piece: the profile was not stopped, or its file was cut; what comes before is complete");
    for (size_t i = 0; i < p->ncomments; i++)
        if (strncmp(profile_string(p, p->comment[i]), "weft: ", 6) == 0)
            report_add(r, RULE_P05, "", "the profile says of itself: %s", profile_string(p, p->comment[i]) + 6);
}
