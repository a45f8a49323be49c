/* Protocol buffers, as much of them as profiles are made of: fields that are numbers (varints; negative ones as 64 bits) and fields that hold bytes,
 * which may be messages. Each put returns where the next one goes; that there is room is the caller's care. */
#ifndef WEFT_PROF_PROTO_H
#define WEFT_PROF_PROTO_H

#include <string.h>
#include "base/base.h"

#define PROTO_VARINT_MAX 10u

static inline uint8_t *proto_varint(uint8_t *at, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        *at++ = (uint8_t)(v | 0x80);
    *at++ = (uint8_t)v;
    return at;
}

/* One that was put; *at goes behind it. */
static inline uint64_t proto_read(const uint8_t **at)
{
    uint64_t v = 0;
    for (unsigned shift = 0;; shift += 7) {
        uint8_t b = *(*at)++;
        v |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80)
            return v;
    }
}

static inline uint8_t *proto_num(uint8_t *at, unsigned field, uint64_t v)
{
    return proto_varint(proto_varint(at, field << 3), v);
}

/* Nothing for zero, which is what readers take a missing field for. */
static inline uint8_t *proto_opt(uint8_t *at, unsigned field, uint64_t v)
{
    return v != 0 ? proto_num(at, field, v) : at;
}

/* The head of a field of n bytes. */
static inline uint8_t *proto_bytes(uint8_t *at, unsigned field, size_t n)
{
    return proto_varint(proto_varint(at, field << 3 | 2), n);
}

/* A message, or numbers without their heads: what is put between begin and end. A length of more than one byte moves what is there already. */
static inline uint8_t *proto_begin(uint8_t *at, unsigned field)
{
    return proto_bytes(at, field, 0);
}

static inline uint8_t *proto_end(uint8_t *begun, uint8_t *at)
{
    size_t n = (size_t)(at - begun);
    uint8_t len[PROTO_VARINT_MAX];
    size_t bytes = (size_t)(proto_varint(len, n) - len);
    if (bytes > 1)
        memmove(begun - 1 + bytes, begun, n);
    memcpy(begun - 1, len, bytes);
    return at + bytes - 1;
}

#endif
