/* Samples of the CPU profile, in the trace while both run: the trace says that a fiber ran, the samples what it did then.
 *
 *      handler --> ring of the thread --> profile's helper --> here --> switcher, at the end of the generation
 *
 * They come late, for the helper looks into the rings every tenth of a second only. Go's reader would move one that lies before its generation to the
 * beginning of that; so the switcher, when it has ended a generation, has the helper look at once, and leaves for the next one what was taken since. What comes too late
 * all the same, or was taken before the trace began, is left out. */
#include "trace/samples.h"
#include <string.h>
#include "base/lock.h"
#include "base/offheap.h"
#include "prof/cpu.h"
#include "sched/sched.h"
#include "trace/buffer.h"

#define BYTES_MAX ((size_t)8 << 20) /* of those that wait; others are dropped */
#define PATIENCE_NS 50000000

struct sample {
    uint64_t time, m, p, g; /* as of the trace */
    uint64_t n;
    uintptr_t pc[];
};

static struct {
    struct lock lock; /* all below */
    bool open;
    char *at;
    size_t used, room;
} samples = { .lock = LOCK_INIT(RANK_LEAF) };

static size_t sample_bytes(uint64_t n) { return sizeof(struct sample) + n * sizeof(uintptr_t); }

/* The thread, as the trace knows it. */
static uint64_t thread_of(uint32_t machine)
{
    for (struct m *m = load_acq(&sched.all_m); m != NULL && machine != 0; m = m->all_next) /* acq: sees the machines; rel in m_publish_locked */
        if (m->id == machine)
            return (uint64_t)__atomic_load_n(&m->tid, __ATOMIC_RELAXED); /* rlx: it is not used again so soon */
    return TRACE_NONE;
}

static struct sample *room_for(uint64_t n)
{
    size_t need = samples.used + sample_bytes(n);
    if (need > samples.room) {
        size_t room = w_max(need, w_max(samples.room * 2, (size_t)65536));
        char *p = room <= BYTES_MAX ? off_realloc(OFF_TRACE, samples.at, room) : NULL;
        if (p == NULL)
            return NULL;
        samples.at = p;
        samples.room = room;
    }
    struct sample *s = (struct sample *)(samples.at + samples.used);
    samples.used = need;
    return s;
}

static void taken(void *arg, const struct cpu_sample *c)
{
    (void)arg;
    uint64_t m = thread_of(c->machine);
    lock_take(&samples.lock);
    struct sample *s = samples.open ? room_for(c->n) : NULL;
    if (s != NULL) {
        *s = (struct sample){ (uint64_t)c->time_ns / TRACE_UNIT_NS, m, c->proc < 0 ? TRACE_NONE : (uint64_t)c->proc, c->fiber, c->n };
        memcpy(s->pc, c->pc, c->n * sizeof *c->pc);
    }
    lock_drop(&samples.lock);
}

void samples_write(uint64_t from, uint64_t until)
{
    size_t kept = 0;
    cpu_samples_now(PATIENCE_NS);
    lock_take(&samples.lock);
    for (size_t at = 0, bytes; at < samples.used; at += bytes) {
        struct sample *s = (struct sample *)(samples.at + at);
        bytes = sample_bytes(s->n);
        if (s->time >= until) {
            memmove(samples.at + kept, s, bytes);
            kept += bytes;
        } else if (s->time >= from)
            trace_sample(s->time, s->m, s->p, s->g, s->pc, s->n);
    }
    samples.used = kept;
    lock_drop(&samples.lock);
}

static void set_open(bool open)
{
    lock_take(&samples.lock);
    samples.open = open;
    off_free(OFF_TRACE, samples.at);
    samples.at = NULL;
    samples.used = samples.room = 0;
    lock_drop(&samples.lock);
}

void samples_open(void)
{
    set_open(true);
    cpu_sample_listen(taken, NULL);
}

void samples_close(void)
{
    cpu_sample_listen(NULL, NULL);
    set_open(false);
}

/* The helper may have been in the middle of it: what there is is left where it lies. */
void samples_after_fork(void)
{
    memset(&samples, 0, sizeof samples);
    lock_init(&samples.lock, RANK_LEAF);
}
