/* Where something was begun that may turn out to be a misuse later: kept by detectors until then.
 *
 * Found by frame pointers, or exactly while a profile or a trace is under way (prof/walk.h): of a program without frame pointers only the first
 * frame is certain. */
#ifndef WEFT_DEBUG_PLACE_H
#define WEFT_DEBUG_PLACE_H

#include <string.h>
#include "base/text.h"
#include "debug/doctor.h"
#include "prof/walk.h"
#include "sched/sched.h"

struct place {
    uint64_t fiber; /* 0: a thread of the host */
    uint32_t n;     /* 0: not known */
    uintptr_t pc[DOCTOR_FRAMES];
};

/* Inside the runtime: the call from outside that the thread is in. */
static inline void place_here(struct place *p)
{
    uintptr_t pc[2 * DOCTOR_FRAMES];
    struct m *m = m_self();
    uint32_t n = m != NULL && m->cur != NULL ? walk_self(m, pc, 2 * DOCTOR_FRAMES) : 0, own = text_own_frames(pc, n);
    p->n = w_min(n - own, DOCTOR_FRAMES);
    memcpy(p->pc, pc + own, p->n * sizeof *pc);
    p->fiber = m != NULL && m->cur != NULL && !(m->cur->flags & FIBER_THREAD) ? m->cur->id : 0;
}

static inline void place_stack(struct sighting *s, const struct place *p)
{
    s->fiber = p->fiber;
    s->nstack = p->n;
    memcpy(s->stack, p->pc, p->n * sizeof *p->pc);
}

static inline void place_made(struct sighting *s, const struct place *p)
{
    s->nmade = p->n;
    memcpy(s->made, p->pc, p->n * sizeof *p->pc);
}

#endif
