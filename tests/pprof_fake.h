/* Code that is not there, for tests of profiles: three modules of 64 KiB, with a function in each 256 bytes.
 *
 *     0x10000  "prog": function pN at prog.c, line 10 * N + 1; in the upper half of it the function iN of inl.h, line 7, is inlined
 *     0x20000  "libf.so": function fN, no files
 *     0x30000  "libn.so": no functions
 * Elsewhere there is nothing. */
#ifndef WEFT_PPROF_FAKE_H
#define WEFT_PPROF_FAKE_H

#include <stdio.h>
#include "prof/pprof.h"
#include "pprof_test.h"

enum { FAKE_PROG = 0x10000, FAKE_F = 0x20000, FAKE_N = 0x30000, FAKE_END = 0x40000 };

struct fake {
    struct pprof_symbolizer symbolizer;
    bool f_gone;         /* libf.so is not loaded */
    unsigned f_version;  /* another one is: its functions are gN */
    char func[2][32];
    unsigned asked;      /* for frames */
};

static inline bool fake_module(const struct pprof_symbolizer *s, uintptr_t addr, struct pprof_module *out)
{
    static const uint8_t ids[3][4] = { { 0xde, 0xad, 0x00, 0x01 }, { 0xbe, 0xef, 0x00, 0x02 }, { 0 } };
    static const uint8_t other[4] = { 0xbe, 0xef, 0x00, 0x03 };
    static const char *const paths[3] = { "/bin/prog", "/lib/libf.so", "/lib/libn.so" };
    const struct fake *f = w_containerof(s, struct fake, symbolizer);
    if (addr < FAKE_PROG || addr >= FAKE_END)
        return false;
    unsigned k = (unsigned)(addr / 0x10000 - 1);
    if (k == 1 && f->f_gone)
        return false;
    *out = (struct pprof_module){ .lo = (k + 1) * 0x10000, .hi = (k + 2) * 0x10000, .offset = k * 0x1000, .path = paths[k],
                                  .build_id = k == 1 && f->f_version != 0 ? other : ids[k], .build_id_bytes = k < 2 ? 4 : 0 };
    return true;
}

static inline uint32_t fake_frames(const struct pprof_symbolizer *s, uintptr_t return_pc, struct pprof_frame *out)
{
    struct fake *f = (struct fake *)(uintptr_t)w_containerof(s, struct fake, symbolizer);
    uintptr_t addr = return_pc - 1;
    unsigned n = addr % 0x10000 / 0x100;
    f->asked++;
    if (addr >= FAKE_PROG && addr < FAKE_F) {
        bool inlined = addr % 0x100 >= 0x80;
        snprintf(f->func[0], sizeof f->func[0], "p%u", n);
        snprintf(f->func[1], sizeof f->func[1], "i%u", n);
        out[inlined] = (struct pprof_frame){ .func = f->func[0], .file = "/src/prog.c", .line = 10 * n + 1, .start = 10 * n };
        if (inlined)
            out[0] = (struct pprof_frame){ .func = f->func[1], .system = "_ZN3inlE", .file = "/src/inl.h", .line = 7 };
        return 1 + inlined;
    }
    if (addr >= FAKE_F && addr < FAKE_N && !f->f_gone) {
        snprintf(f->func[0], sizeof f->func[0], "%c%u", f->f_version != 0 ? 'g' : 'f', n);
        out[0] = (struct pprof_frame){ .func = f->func[0] };
        return 1;
    }
    return 0;
}

#define FAKE_INIT { .symbolizer = { .module = fake_module, .frames = fake_frames, .program = FAKE_PROG, .generation = 1 } }

/* Return addresses of frames in function n: as it is, or with the inlined one. */
#define AT_P(n) ((uintptr_t)FAKE_PROG + 0x100 * (n) + 0x11)
#define AT_I(n) ((uintptr_t)FAKE_PROG + 0x100 * (n) + 0x91)
#define AT_F(n) ((uintptr_t)FAKE_F + 0x100 * (n) + 0x11)
#define AT_N(n) ((uintptr_t)FAKE_N + 0x100 * (n) + 0x11)

static const struct pprof_kind fake_cpu = {
    .value = { { "samples", "count" }, { "cpu", "nanoseconds" } },
    .values = 2,
    .period_type = { "cpu", "nanoseconds" },
    .period = 10000000,
};

/* Encodes and writes what there is. */
static inline void fake_flush(struct pprof *p, struct fake *f, struct sink *to, int64_t duration)
{
    cr_assert_eq(pprof_encode(p, &f->symbolizer, duration), 0);
    cr_assert_eq(pprof_write(p, sink_write, to), 0);
}

#endif
