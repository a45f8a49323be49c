/* Size classes: the tables obey the rules written over them in gc/class.c. */
#include <criterion/criterion.h>
#include "gc/heap.h"

Test(gc_class, smallest_class_that_fits)
{
    for (size_t n = 0; n <= GC_MAX_SMALL; n++) {
        unsigned c = gc_class_of(n);
        cr_assert(c >= 1 && c < GC_CLASSES, "%zu", n);
        cr_assert(gc_class_size[c] >= n);
        if (c > 1)
            cr_assert(gc_class_size[c - 1] < n, "%zu bytes fit class %u too", n, c - 1);
        cr_assert_eq(class_info[c].size, gc_class_size[c]);
    }
}

Test(gc_class, little_waste_and_alignment)
{
    for (size_t n = 49; n <= GC_MAX_SMALL; n += 8) { /* 49: from 8-byte steps on */
        size_t got = gc_class_size[gc_class_of(n)];
        cr_assert((got - n) * 8 <= got, "%zu bytes in a slot of %zu", n, got);
    }
    for (size_t n = 16; n <= GC_MAX_SMALL; n += 16)
        cr_assert(gc_class_size[gc_class_of(n)] % 16 == 0, "%zu", n);
}

Test(gc_class, reciprocal_divides_every_offset)
{
    for (unsigned c = 1; c < GC_CLASSES; c++) {
        const struct class_info *ci = &class_info[c];
        size_t bytes = (size_t)ci->npages * HEAP_PAGE;
        cr_assert_eq(ci->nobj, bytes / ci->size);
        cr_assert(ci->nwords * 64u >= ci->nobj && ci->nwords <= 8);
        for (size_t off = 0; off < bytes; off++)
            cr_assert(off * ci->magic >> 32 == off / ci->size, "class %u offset %zu", c, off);
    }
    for (size_t off = 0; off < (size_t)1 << 40; off += ((size_t)1 << 33) + 12345)
        cr_assert_eq(off * class_info[CLASS_LARGE].magic >> 32, 0);
}

Test(gc_class, bits_of_a_span_are_one_line)
{
    cr_assert_eq(sizeof(struct span_bits), 64);
    for (unsigned c = 1; c < GC_CLASSES; c++)
        if (gc_class_size[c] >= 32)
            cr_assert(2 * 8 * class_info[c].nwords <= 64, "class %u", c);
    /* what is left behind the last object has an index, too, whose allocation bit is in the same line and never set */
    for (unsigned c = 1; c < GC_CLASSES; c++) {
        const struct class_info *ci = &class_info[c];
        size_t last = ((size_t)ci->npages * HEAP_PAGE - 1) * ci->magic >> 32, word = last / 64;
        bool wide = 2 * ci->nwords > SPAN_WORDS;
        cr_assert(last <= ci->nobj && last < 512 && (wide ? word : word + ci->nwords) < SPAN_WORDS, "class %u", c);
    }
}
