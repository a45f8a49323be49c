/* Failures on demand (WEFT_DEBUG=failmem=N,failthread=N,failfd=N,faildirty=N): of the requests of a kind that the runtime makes, counted from its
 * start, the Nth fails as if the system had refused it; with failrun=K that one and the next K - 1. So a test can walk through all of them, one
 * after the other.
 *
 * To add a request: ask fail_now() where it is made, and go the way of a refusal if it says so. While nothing is to fail this costs one predictable
 * branch, on paths that make a system call or take a lock. */
#ifndef WEFT_BASE_FAIL_H
#define WEFT_BASE_FAIL_H

#include "base/atomic.h"
#include "base/base.h"

/* To add a kind: a line here, a key in config.c that runtime.c passes to fail_arm. */
enum fail_kind {
    FAIL_MEM,    /* memory: off-heap, pages of the heap, address space */
    FAIL_THREAD, /* pthread_create */
    FAIL_FD,     /* system calls that make a descriptor */
    FAIL_DIRTY,  /* asking which pages were written to: os/dirty.c */
    FAIL_KINDS
};

extern w_u32 fail_armed; /* a bit per kind. Read relaxed: changes while no runtime runs */
bool fail_count(enum fail_kind kind);

static inline bool fail_now(enum fail_kind kind)
{
    return unlikely(load_rlx(&fail_armed) & (1u << kind)) && fail_count(kind); /* rlx: as above */
}

/* From now on the nth request fails, and run - 1 after it; nth 0: none. Requests are counted anew. */
void fail_arm(enum fail_kind kind, uint64_t nth, uint64_t run);
/* Nothing fails any more; the counts stay. */
void fail_disarm(void);
/* Requests since fail_arm, and how many of them have failed. */
uint64_t fail_requests(enum fail_kind kind);
uint64_t fail_failed(enum fail_kind kind);

#endif
