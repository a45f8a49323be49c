/* Atomics with the memory order in the name.
 *
 * A shared field is declared with one of the w_* types below, so that a bare `=` or `++` on it (a silent
 * seq_cst) does not compile: the value sits in a struct. Rules for comments at the call sites:
 *   rel   says what it publishes and names its acq partner, which names it back;
 *   rlx   says why it is enough (counter; only writer; checked again under the lock);
 *   seq   says which store goes before which load, on both sides. */
#ifndef WEFT_BASE_ATOMIC_H
#define WEFT_BASE_ATOMIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct { uint8_t v; } w_u8;
typedef struct { uint32_t v; } w_u32;
typedef struct { uint64_t v; } w_u64;
typedef struct { int32_t v; } w_i32;
typedef struct { int64_t v; } w_i64;
typedef struct { uintptr_t v; } w_uptr;
/* A pointer slot: declare as W_PTR(struct fiber) head; */
#define W_PTR(type) struct { type *v; }

#define load_rlx(a) __atomic_load_n(&(a)->v, __ATOMIC_RELAXED)
#define load_acq(a) __atomic_load_n(&(a)->v, __ATOMIC_ACQUIRE)
#define load_seq(a) __atomic_load_n(&(a)->v, __ATOMIC_SEQ_CST)
#define store_rlx(a, x) __atomic_store_n(&(a)->v, (x), __ATOMIC_RELAXED)
#define store_rel(a, x) __atomic_store_n(&(a)->v, (x), __ATOMIC_RELEASE)
#define store_seq(a, x) __atomic_store_n(&(a)->v, (x), __ATOMIC_SEQ_CST)

/* Each returns the value before the operation. */
#define add_rlx(a, x) __atomic_fetch_add(&(a)->v, (x), __ATOMIC_RELAXED)
#define add_acq_rel(a, x) __atomic_fetch_add(&(a)->v, (x), __ATOMIC_ACQ_REL)
#define add_seq(a, x) __atomic_fetch_add(&(a)->v, (x), __ATOMIC_SEQ_CST)
#define sub_rlx(a, x) __atomic_fetch_sub(&(a)->v, (x), __ATOMIC_RELAXED)
#define sub_acq_rel(a, x) __atomic_fetch_sub(&(a)->v, (x), __ATOMIC_ACQ_REL)
#define sub_seq(a, x) __atomic_fetch_sub(&(a)->v, (x), __ATOMIC_SEQ_CST)
#define or_rlx(a, x) __atomic_fetch_or(&(a)->v, (x), __ATOMIC_RELAXED)
#define or_acq_rel(a, x) __atomic_fetch_or(&(a)->v, (x), __ATOMIC_ACQ_REL)
#define and_rlx(a, x) __atomic_fetch_and(&(a)->v, (x), __ATOMIC_RELAXED)
#define and_acq_rel(a, x) __atomic_fetch_and(&(a)->v, (x), __ATOMIC_ACQ_REL)
#define xchg_acq(a, x) __atomic_exchange_n(&(a)->v, (x), __ATOMIC_ACQUIRE)
#define xchg_rel(a, x) __atomic_exchange_n(&(a)->v, (x), __ATOMIC_RELEASE)
#define xchg_acq_rel(a, x) __atomic_exchange_n(&(a)->v, (x), __ATOMIC_ACQ_REL)

/* True if *a was old and is now x. The _acq_rel form orders as acquire when it fails. */
#define cas_rlx(a, old, x)                                                                                    \
    ({ __typeof__((a)->v) w_old_ = (old);                                                                     \
       __atomic_compare_exchange_n(&(a)->v, &w_old_, (x), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED); })
#define cas_acq(a, old, x)                                                                                    \
    ({ __typeof__((a)->v) w_old_ = (old);                                                                     \
       __atomic_compare_exchange_n(&(a)->v, &w_old_, (x), false, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE); })
#define cas_rel(a, old, x)                                                                                    \
    ({ __typeof__((a)->v) w_old_ = (old);                                                                     \
       __atomic_compare_exchange_n(&(a)->v, &w_old_, (x), false, __ATOMIC_RELEASE, __ATOMIC_RELAXED); })
#define cas_acq_rel(a, old, x)                                                                                \
    ({ __typeof__((a)->v) w_old_ = (old);                                                                     \
       __atomic_compare_exchange_n(&(a)->v, &w_old_, (x), false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE); })
#define cas_seq(a, old, x)                                                                                    \
    ({ __typeof__((a)->v) w_old_ = (old);                                                                     \
       __atomic_compare_exchange_n(&(a)->v, &w_old_, (x), false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); })

#define fence_seq() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define fence_acq() __atomic_thread_fence(__ATOMIC_ACQUIRE)
/* Orders against a signal handler or a membarrier(2) of another thread; no instruction. */
#define fence_compiler() __atomic_signal_fence(__ATOMIC_SEQ_CST)

static inline void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

#endif
