/* Tells AddressSanitizer and ThreadSanitizer of every switch of stacks; empty in ordinary builds. */
#ifndef WEFT_SCHED_SANITIZE_H
#define WEFT_SCHED_SANITIZE_H

#include "sched/sched.h"

#if !defined(W_ASAN) && !defined(W_TSAN)

#define SANITIZE_STACKS 0
static inline void sanitize_memory_new(void *base, size_t bytes) { (void)base; (void)bytes; }
static inline void sanitize_fiber_new(struct fiber *f) { (void)f; }
static inline void sanitize_fiber_free(struct fiber *f) { (void)f; }
static inline void sanitize_switch_begin(struct fiber *from, struct fiber *to, bool dead) { (void)from; (void)to; (void)dead; }
static inline void sanitize_switch_to_g0(struct fiber *from, struct m *m, bool dead) { (void)from; (void)m; (void)dead; }
static inline void sanitize_switch_end(struct fiber *f) { (void)f; }
static inline void sanitize_switch_from_g0(struct m *m, struct fiber *to) { (void)m; (void)to; }
static inline void sanitize_switch_end_g0(struct m *m) { (void)m; }
static inline void sanitize_thread(struct m *m) { (void)m; }

#else

#define SANITIZE_STACKS 1

void __sanitizer_start_switch_fiber(void **fake, const void *lo, size_t bytes) __attribute__((weak));
void __sanitizer_finish_switch_fiber(void *fake, const void **lo, size_t *bytes) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void *p, size_t n) __attribute__((weak));
void *__tsan_get_current_fiber(void) __attribute__((weak));
void *__tsan_create_fiber(unsigned flags) __attribute__((weak));
void __tsan_destroy_fiber(void *fiber) __attribute__((weak));
void __tsan_switch_to_fiber(void *fiber, unsigned flags) __attribute__((weak));

/* The thread's own stack and TSan's idea of it, for the way back to g0. */
static inline void sanitize_thread(struct m *m)
{
    pthread_attr_t attr;
    void *lo = NULL;
    size_t bytes = 0;
    if (pthread_getattr_np(pthread_self(), &attr) == 0) {
        pthread_attr_getstack(&attr, &lo, &bytes);
        pthread_attr_destroy(&attr);
    }
    m->g0_lo = lo;
    m->g0_bytes = bytes;
#ifdef W_TSAN
    m->g0_tsan = __tsan_get_current_fiber();
#endif
}

/* Memory for stacks where other stacks may have been. */
static inline void sanitize_memory_new(void *base, size_t bytes)
{
    (void)base, (void)bytes;
#ifdef W_ASAN
    __asan_unpoison_memory_region(base, bytes);
#endif
}

static inline void sanitize_fiber_new(struct fiber *f)
{
    f->asan_fake = NULL;
#ifdef W_ASAN
    __asan_unpoison_memory_region(f->stack_lo, (size_t)(f->stack_hi - f->stack_lo));
#endif
#ifdef W_TSAN
    f->tsan_fiber = __tsan_create_fiber(0);
#endif
}

static inline void sanitize_fiber_free(struct fiber *f)
{
#ifdef W_TSAN
    if (f->tsan_fiber != NULL)
        __tsan_destroy_fiber(f->tsan_fiber);
#endif
    f->tsan_fiber = NULL;
}

static inline void sanitize_switch_begin(struct fiber *from, struct fiber *to, bool dead)
{
#ifdef W_ASAN
    __sanitizer_start_switch_fiber(dead ? NULL : &from->asan_fake, to->stack_lo, (size_t)(to->stack_hi - to->stack_lo));
#endif
#ifdef W_TSAN
    (void)from, (void)dead;
    __tsan_switch_to_fiber(to->tsan_fiber, 0);
#endif
}

static inline void sanitize_switch_to_g0(struct fiber *from, struct m *m, bool dead)
{
#ifdef W_ASAN
    __sanitizer_start_switch_fiber(dead ? NULL : &from->asan_fake, m->g0_lo, m->g0_bytes);
#endif
#ifdef W_TSAN
    (void)from, (void)dead;
    __tsan_switch_to_fiber(m->g0_tsan, 0);
#endif
}

static inline void sanitize_switch_end(struct fiber *f)
{
    (void)f;
#ifdef W_ASAN
    __sanitizer_finish_switch_fiber(f->asan_fake, NULL, NULL);
#endif
}

static inline void sanitize_switch_from_g0(struct m *m, struct fiber *to)
{
#ifdef W_ASAN
    __sanitizer_start_switch_fiber(&m->g0_fake, to->stack_lo, (size_t)(to->stack_hi - to->stack_lo));
#endif
#ifdef W_TSAN
    (void)m;
    __tsan_switch_to_fiber(to->tsan_fiber, 0);
#endif
}

static inline void sanitize_switch_end_g0(struct m *m)
{
    (void)m;
#ifdef W_ASAN
    __sanitizer_finish_switch_fiber(m->g0_fake, NULL, NULL);
#endif
}

#endif
#endif
