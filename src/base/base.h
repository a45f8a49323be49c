/* What every file of the library may use: macros, the fatal line, and nothing that has state.
 * To add an error text: src/base/err.c. To add a setting: src/base/config.c. */
#ifndef WEFT_BASE_BASE_H
#define WEFT_BASE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define w_noinline __attribute__((noinline))
#define w_cold __attribute__((noinline, cold))
#define w_startup __attribute__((noinline, section(".text.startup"))) /* runs when the library is loaded, or the runtime starts: lies away from what may never run */
#define w_noreturn __attribute__((noreturn))
#define w_aligned(n) __attribute__((aligned(n)))
#define w_printf(f, a) __attribute__((format(printf, f, a)))
#define w_countof(a) (sizeof(a) / sizeof((a)[0]))
#define w_containerof(p, type, member) ((type *)((char *)(p) - offsetof(type, member)))
#define W_CACHELINE 64

/* Conservative scans read words that belong to others, on purpose: no sanitizer may look at them. */
#ifndef __has_feature
#define __has_feature(x) 0 /* clang has it, gcc not yet */
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define W_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define W_TSAN 1
#endif
#define w_no_sanitize __attribute__((no_sanitize("address", "thread", "undefined")))

static inline uintptr_t w_align_up(uintptr_t x, uintptr_t a) { return (x + a - 1) & ~(a - 1); }
static inline uintptr_t w_align_down(uintptr_t x, uintptr_t a) { return x & ~(a - 1); }
#define w_min(a, b) ({ __typeof__(a) a_ = (a); __typeof__(b) b_ = (b); a_ < b_ ? a_ : b_; })
#define w_max(a, b) ({ __typeof__(a) a_ = (a); __typeof__(b) b_ = (b); a_ > b_ ? a_ : b_; })

/* A broken invariant of weft itself: one clear line on stderr ("weft: fatal: …"), then abort().
 * Takes no lock and allocates nothing, so it may be called in a stop and from a signal handler. */
void w_fatal(const char *fmt, ...) w_printf(1, 2) w_noreturn w_cold;

#define w_assert(c) ((c) ? (void)0 : w_fatal("%s:%d: %s", __FILE__, __LINE__, #c))
#ifdef WEFT_CHECKS /* BUILD=debug */
#define w_debug_assert(c) w_assert(c)
#else
#define w_debug_assert(c) ((void)sizeof(c))
#endif

#endif
