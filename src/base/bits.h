/* Bits of words and bitmaps of 64-bit words. Nothing here is atomic. */
#ifndef WEFT_BASE_BITS_H
#define WEFT_BASE_BITS_H

#include "base/base.h"

/* Undefined for 0, as the instructions are. */
static inline unsigned bits_ctz(uint64_t x) { return (unsigned)__builtin_ctzll(x); }
static inline unsigned bits_log2(uint64_t x) { return 63u - (unsigned)__builtin_clzll(x); } /* rounded down */

/* In groups of 2, 4 and 8 bits, and the sum of the bytes: where the instruction cannot be taken for granted, the compiler's is a call into libgcc. */
static inline unsigned bits_count(uint64_t x)
{
    x -= x >> 1 & 0x5555555555555555;
    x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0f;
    return (unsigned)(x * 0x0101010101010101 >> 56);
}

static inline bool bits_is_pow2(uint64_t x) { return x != 0 && (x & (x - 1)) == 0; }
/* The smallest power of two >= x; 1 for 0; 0 if it does not fit. */
static inline uint64_t bits_pow2_up(uint64_t x)
{
    if (x <= 1)
        return 1;
    unsigned l = bits_log2(x - 1) + 1;
    return l < 64 ? 1ull << l : 0;
}
/* n low bits set; n up to 64. */
static inline uint64_t bits_mask(unsigned n) { return n < 64 ? (1ull << n) - 1 : ~0ull; }

static inline bool bits_get(const uint64_t *map, size_t i) { return map[i / 64] >> (i % 64) & 1; }
static inline void bits_set(uint64_t *map, size_t i) { map[i / 64] |= 1ull << (i % 64); }
static inline void bits_clear(uint64_t *map, size_t i) { map[i / 64] &= ~(1ull << (i % 64)); }

/* Index of the first set bit at or after from; n if there is none below n. */
static inline size_t bits_next(const uint64_t *map, size_t n, size_t from)
{
    for (size_t w = from / 64; from < n; from = ++w * 64) {
        uint64_t x = map[w] & ~bits_mask(from % 64);
        if (x != 0) {
            size_t i = w * 64 + bits_ctz(x);
            return i < n ? i : n;
        }
    }
    return n;
}

#endif
