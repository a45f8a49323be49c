/* See poison.h. */
#include "gc/poison.h"
#include <string.h>
#include "base/probe.h"

void poison_fill(void *p, size_t bytes) { memset(p, POISON_BYTE, bytes); }

static w_no_sanitize bool is_poison(const unsigned char *p, size_t bytes, size_t *at)
{
    for (size_t i = 0; i < bytes; i++)
        if (p[i] != POISON_BYTE) {
            *at = i;
            return false;
        }
    return true;
}

void poison_check(const void *p, size_t bytes, size_t elem)
{
    size_t at;
    if (is_poison(p, bytes, &at))
        return;
    const char *slot = (const char *)p + at / elem * elem;
    uint64_t word;
    memcpy(&word, slot + w_align_down(at % elem, 8), sizeof word);
    PROBE(poison_broken, slot, elem, w_align_down(at % elem, 8));
    w_fatal("freed object %p (%zu bytes) was written to after it was freed: word at offset %zu is 0x%llx",
            (const void *)slot, elem, (size_t)w_align_down(at % elem, 8), (unsigned long long)word);
}

void poison_new_span(struct span *s)
{
    char *base = span_base(s);
    size_t bytes = span_bytes(s), elem = s->cls == CLASS_LARGE ? bytes : class_info[s->cls].size;
    size_t at;
    if (s->needzero) { /* dirty and clean pages of the system may be mixed (MADV_FREE): a clean one is all zero */
        const size_t page = 4096;
        for (size_t i = 0; i < bytes; i += page)
            if (!is_poison((unsigned char *)base + i, page, &at) && (at != 0 || base[i] != 0))
                poison_check(base + i, page, w_min(elem, page));
    }
    poison_fill(base, bytes);
    s->needzero = true;
}
