/* What the parts of the doctor share: the table of findings. See doctor.c. */
#ifndef WEFT_DEBUG_FINDINGS_H
#define WEFT_DEBUG_FINDINGS_H

#include "base/lock.h"
#include "debug/doctor.h"

#define FINDINGS_MAX 64u
#define RAW_BYTES (16u << 10)  /* of a stack that is kept to be walked later; what is deeper is not shown */
#define FINDING_TEXT 256u

struct finding {
    /* fixed once it counts in doctor.n */
    struct sighting s;         /* the first; but n, under the lock, is that of the last */
    uint64_t key;
    int mode;
    int64_t first;
    char text[FINDING_TEXT];   /* s.text points here */
    struct unwind_from raw;    /* the stack to be walked, in raw_bytes; lo = hi: none */
    bool raw_frame;            /* it begins with a frame of doctor_stack's: of the registers only those that it needs are known */
    /* the lock's */
    uint64_t count;
    int64_t last;
    /* tell.c's */
    w_u32 to_trace;            /* rel: publishes trace_text; acq by who starts the fiber that tells it */
    char trace_text[FINDING_TEXT];
    bool resolved;
    char *lines[2], *json[2];  /* stack, made; off-heap. NULL: no memory */
    char raw_bytes[RAW_BYTES];
};

extern struct doctor {
    w_u32 on;                  /* rel: publishes modes; acq in doctor_wants. 0: the runtime does not run, or all is off */
    uint8_t mode[WEFT_DOCTOR_CODES]; /* fixed while on */
    w_u64 count[WEFT_DOCTOR_CODES];  /* grows under the lock, after n: who has seen n and then takes the lock finds it counted. rel; acq in weft_doctor_count */
    struct lock lock;          /* RANK_LEAF: what says so, and adding */
    W_PTR(struct finding) table; /* made at the first sighting; written under the lock. rel, acq with n */
    w_u32 n;                   /* of table. rel: publishes what is fixed of it; acq by readers */
    w_u64 lost;                /* rlx: a counter */
} doctor;

static inline uint32_t findings(void) { return load_acq(&doctor.n); } /* acq: rel in doctor_sight */

extern const char *const doctor_mode_names[];

/* The bytes of the stack that u tells of, RAW_BYTES at most, to `to`, from where it is walked then. Async-signal-safe. */
void keep_bytes(struct unwind_from *u, char to[RAW_BYTES]);

/* tell.c */
void tell_poke(void);         /* there is something to tell. Inside the runtime */
/* Waits until all findings that there are have been told, but no longer than that; negative: for ever. Outside the runtime, not on the doctor's
 * thread. 0, -ETIMEDOUT, -ENOMEM, -EAGAIN (no thread). */
int tell_flush(int64_t most_ns);
void tell_trace(struct finding *f); /* in traces. Inside the runtime */
void tell_end(void);          /* tells the rest; nobody sees anything any more */
void tell_after_fork(void);
void rates_reset(void);       /* rates.c; nobody else runs, or listens */

#endif
