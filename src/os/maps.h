/* Loaded modules: where the program and its shared libraries lie, their unwind tables and their files. See maps.c.
 *
 * For threads that no stop ever stops (the helper of a dump or of a writer of profiles): they take the loader's lock, off-heap memory and, in
 * libdw, the host's malloc. Never inside the runtime, in a stop, or in a signal handler. */
#ifndef WEFT_OS_MAPS_H
#define WEFT_OS_MAPS_H

#include "base/base.h"

#define MAPS_BUILD_ID_MAX 32
#define MAPS_SEGMENTS 8

struct maps_module {
    uintptr_t lo, hi;        /* its segments lie in here */
    struct { uintptr_t lo, hi; uint64_t offset; bool code; } seg[MAPS_SEGMENTS]; /* those that can be read, and where in the file they begin */
    unsigned nseg;
    uintptr_t bias;          /* address = bias + what the file says */
    uintptr_t eh_hdr;        /* .eh_frame_hdr; 0: none */
    size_t eh_hdr_bytes;
    const char *path;        /* for people; "linux-vdso.so.1" has no file */
    const char *open_path;   /* for open(2); that of the program works even if it was deleted */
    uint8_t build_id[MAPS_BUILD_ID_MAX];
    unsigned build_id_bytes; /* 0: none */
    void *user;              /* of src/prof/symbols.c; carried over as long as the module stays */
};

struct maps {
    struct maps_module *mod; /* by address */
    uint32_t n;
    uint32_t generation;     /* grows with every change */
};

/* The table as of now; nobody else uses it until maps_end. gone is called for each module that is no longer there. NULL: no memory. */
const struct maps *maps_begin(void (*gone)(struct maps_module *m));
void maps_end(void);
struct maps_module *maps_find(const struct maps *t, uintptr_t addr);
bool maps_readable(const struct maps_module *m, uintptr_t addr, size_t bytes);

/* Calls fn(arg, ...) while no module can be unloaded (under the loader's lock: short, and no call that may wait). all_there: none has been since the
 * table was made; else what lies at the addresses of one may be gone. */
void maps_hold(void (*fn)(void *arg, bool all_there), void *arg);

/* Forgets the table and all that hangs on it. */
void maps_close(void (*gone)(struct maps_module *m));

/* In a child made without the usual fork handlers, for one look before it ends: whoever held the table is not there. */
void maps_forget_lock(void);

#endif
