#include "trace/format.h"
#include <string.h>

const uint8_t trace_args[TRACE_TYPES] = {
#define X(number, name, args) [number] = 1 + args,
    TRACE_EVENTS(X)
#undef X
};

const char *trace_type_name(enum trace_type type)
{
    static const char *const name[TRACE_TYPES] = {
#define X(number, name, args) [number] = #name,
        TRACE_EVENTS(X)
#undef X
    };
    return (unsigned)type < TRACE_TYPES && name[type] != NULL ? name[type] : "?";
}

/* Go 1.27 writes this, too. */
void trace_put_header(uint8_t out[TRACE_HEADER_BYTES])
{
    memcpy(out, "go 1.26 trace\0\0\0", TRACE_HEADER_BYTES);
}

uint8_t *trace_batch_open(uint8_t *p, uint64_t gen, uint64_t m, uint64_t time)
{
    *p++ = TRACE_EVENT_BATCH;
    p = trace_put(p, gen);
    p = trace_put(p, m);
    p = trace_put(p, time);
    return p + TRACE_LENGTH_BYTES;
}

void trace_batch_close(uint8_t *data, const uint8_t *end)
{
    size_t n = (size_t)(end - data);
    w_debug_assert(n <= TRACE_BATCH_MAX);
    data[-3] = (uint8_t)n | 0x80; /* longer than it need be, which is legal */
    data[-2] = (uint8_t)(n >> 7) | 0x80;
    data[-1] = (uint8_t)(n >> 14);
}

uint8_t *trace_put_sync(uint8_t *p, uint64_t units_per_second, uint64_t mono_ns, uint64_t wall_ns)
{
    *p++ = TRACE_FREQUENCY;
    p = trace_put(p, units_per_second);
    *p++ = TRACE_CLOCK_SNAPSHOT;
    p = trace_put(p, 0);
    p = trace_put(p, mono_ns);
    p = trace_put(p, wall_ns / 1000000000);
    return trace_put(p, wall_ns % 1000000000);
}

bool trace_get(const uint8_t **p, const uint8_t *end, uint64_t *v)
{
    uint64_t x = 0;
    for (unsigned shift = 0; *p < end && shift < 64; shift += 7) {
        uint8_t b = *(*p)++;
        if (shift == 63 && b > 1)
            return false;
        x |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80) {
            *v = x;
            return true;
        }
    }
    return false;
}

bool trace_get_event(const uint8_t **p, const uint8_t *end, struct trace_record *ev)
{
    if (*p >= end || **p >= TRACE_TYPES || trace_args[**p] == 0)
        return false;
    ev->type = *(*p)++;
    if (!trace_get(p, end, &ev->time))
        return false;
    for (unsigned i = 0; i + 1 < trace_args[ev->type]; i++)
        if (!trace_get(p, end, &ev->args[i]))
            return false;
    return true;
}

bool trace_get_batch(const uint8_t **p, const uint8_t *end, struct trace_batch *b)
{
    if (*p >= end || **p != TRACE_EVENT_BATCH)
        return false;
    ++*p;
    return trace_get(p, end, &b->gen) && trace_get(p, end, &b->m) && trace_get(p, end, &b->time) && trace_get(p, end, &b->length) &&
        b->length <= (size_t)(end - *p);
}
