/* A back-end of dirty.h: a struct in a file dirty_<name>.c, and a line in the table of dirty.c. */
#ifndef WEFT_OS_DIRTY_WAY_H
#define WEFT_OS_DIRTY_WAY_H

#include "os/dirty.h"

struct dirty_way {
    enum dirty_backend id;
    const char *does;  /* the end of a sentence that begins with "written pages are" */
    bool holds;        /* dirty_hold is needed */
    /* As in dirty.h. start: *why is the end of a sentence that says what was refused, if something was. */
    int (*start)(uintptr_t lo, uintptr_t hi, const char **why);
    void (*stop)(void);
    int (*committed)(uintptr_t lo, uintptr_t hi);
    int (*watch)(uintptr_t lo, uintptr_t hi); /* NULL: only the heap */
    int (*arm)(uintptr_t lo, uintptr_t hi);
    int (*disarm)(uintptr_t lo, uintptr_t hi);
    ptrdiff_t (*take)(uintptr_t lo, uintptr_t hi, bool arm, struct dirty_range *out, size_t n, uintptr_t *next);
    ptrdiff_t (*mend)(uintptr_t lo, uintptr_t hi); /* NULL: -ENOSYS */
    void (*hold)(uintptr_t lo, uintptr_t hi, bool hold);
    bool (*fault)(uintptr_t addr);
    void (*forked)(void);
    int (*after_fork_child)(void);
};

extern const struct dirty_way dirty_uffd, dirty_mprotect;

/* Adds [lo, hi) to the k ranges in out, whose last one it may lengthen: how many there are now; 0: there is no room. */
static inline size_t dirty_put(struct dirty_range *out, size_t k, size_t n, uintptr_t lo, uintptr_t hi)
{
    if (k > 0 && out[k - 1].hi == lo) {
        out[k - 1].hi = hi;
        return k;
    }
    if (k == n)
        return 0;
    out[k] = (struct dirty_range){ lo, hi };
    return k + 1;
}

#endif
