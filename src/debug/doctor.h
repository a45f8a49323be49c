/* The doctor: what detectors see becomes findings, which are told. See doctor.c.
 *
 * To add a detector: a file src/debug/wNN_what.c with a `const struct detector`, its line in the table of doctor.c, its thresholds with the reasons
 * for them in thresholds.h. What it must learn from below comes through a probe point that states a fact, on a rare path (base/probe.h); or the
 * public call is in src/debug or higher and says it by doctor_sight. No false alarm is the first virtue. */
#ifndef WEFT_DEBUG_DOCTOR_H
#define WEFT_DEBUG_DOCTOR_H

#include <weft/debug.h>
#include "base/probe.h"
#include "os/arch/arch.h"
#include "prof/text.h"
#include "prof/unwind.h"

#define DOCTOR_FRAMES 32u

/* What a detector has seen. Zeroed first, then filled in. */
struct sighting {
    int code;
    uint64_t n[4];           /* the detector's, for its sentence; a finding has those of its last sighting */
    uint64_t fiber;          /* id of the one it is about; 0: none, doctor_stack sets it */
    const char *text;        /* part of what makes findings different; 255 bytes are kept; NULL */
    bool noted;              /* by weft_doctor_note: text is the sentence, and n nothing of the detector's */
    uint32_t nstack, nmade;
    uintptr_t stack[DOCTOR_FRAMES]; /* return addresses, innermost first: of the offending call */
    uintptr_t made[DOCTOR_FRAMES];  /* the same of what made the thing it is about: a creation site, an allocation's stack */
    const uintptr_t *frame;  /* doctor_stack's */
    const struct unwind_from *from; /* another's stack, walked later; its bytes are copied. Findings are not told apart by it: nstack is 0. NULL */
};

/* Inside the runtime, on a probe or in an API call; also while the world is stopped. Takes a short lock that holds nothing else inside (RANK_LEAF),
 * so the caller holds no leaf; never in a signal handler. Sightings of one code and place (stack, or its call site if doctor_stack has filled it in;
 * made; text) are one finding. */
void doctor_sight(const struct sighting *s);

/* Fills in stack and fiber: where the calling thread, inside the runtime, is, from the caller of the public call outwards. What is found at once is
 * only the place of that call; the frames beyond are, by the doctor_sight that follows, before the public call returns. On the caller's own stack
 * (not on the scheduler's or the collector's): else there is none. */
void doctor_stack(struct sighting *s);

/* Whether a code is looked for: for API calls that are no probe's listeners, and before anything that costs. Anybody. */
bool doctor_wants(int code);

struct detector {
    int code;
    const char *title;       /* a few words: "weft_gc in a hot loop" */
    const char *cure;        /* a sentence */
    uint64_t probes;         /* DOCTOR_PROBE(a) | ...; 0: none */
    /* Called for those, where they happen; inside the runtime, as said in base/probe.h. */
    void (*probe)(enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t c);
    /* The runtime begins and ends, in user code, and only if the code is not off. May be NULL. begin is called in later lives only, to undo what was left,
       unless it is to be called always: in an idle program its page would be touched for nothing. */
    bool always;
    void (*begin)(void), (*end)(void);
    void (*after_fork)(void); /* alone, in the child, in a handler of fork; NULL: nothing to do */
    /* The sentence with its numbers, without a full stop. On a thread of the doctor's. NULL: the title, and text behind a colon. Not called for
       what was noted. */
    void (*say)(struct text *t, const struct sighting *s);
};
#define DOCTOR_PROBE(name) (1ull << PROBE_##name)

extern const struct detector *const doctor_detectors[WEFT_DOCTOR_CODES]; /* by code; 0 is none */

/* ---- how often in a second, by place ---- */

struct rate_limit {
    int64_t window_ns;
    uint32_t count;          /* so many in a window */
    uint32_t slots;          /* of the eighths of a window, so many have seen one: 0: as soon as there are so many */
    uint32_t share_percent;  /* of the window was spent on them; 0: does not matter */
};
/* One more by this sighting's place, which cost so much. True: the limit is reached, and a new window begins. n[0] is how many there were in it,
 * n[1] its length in ns, n[2] what was spent. As doctor_sight. */
bool doctor_rate(struct sighting *s, const struct rate_limit *limit, int64_t cost_ns);

#endif
