/* What tests of profiles share: writing them, and looking at what was written. */
#ifndef WEFT_PROF_TEST_H
#define WEFT_PROF_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "pprof_test.h"

/* Functions that are to be found on stacks: not inlined, the last call in them no jump, and none the same as another. */
#define NOINLINE __attribute__((noinline))
#define NO_TAIL_CALL() __asm__ volatile("" : : "i"(__LINE__))

/* As debug says. */
static inline struct sink prof_write(weft_profile *p, int debug)
{
    struct sink s = { 0 };
    cr_assert_not_null(p);
    int err = weft_profile_write(p, sink_write, &s, debug);
    cr_assert_eq(err, 0, "%s: %s", weft_profile_name(p), weft_strerror(err));
    return s;
}

static inline const char *prof_text(weft_profile *p) { return prof_write(p, 1).text; }

static inline struct pp *prof_read(weft_profile *p)
{
    struct sink s = prof_write(p, 0);
    return pp_decode(s.bytes, s.len);
}

static inline struct pp *prof_named(const char *name) { return prof_read(weft_profile_lookup(name)); }

/* Samples with a stack of that text, of which more frames may follow: how many, and the sum of a value. */
struct prof_sum { int samples; int64_t value[4]; };
static inline struct prof_sum prof_sum(const struct pp *p, const char *begin)
{
    struct prof_sum s = { 0 };
    size_t n = strlen(begin);
    for (size_t i = 0; i < p->samples; i++) {
        const char *text = pp_text(&p->sample[i]);
        if (strncmp(text, begin, n) != 0 || (text[n] != 0 && text[n] != ';' && text[n] != ' '))
            continue;
        s.samples++;
        for (size_t v = 0; v < p->types; v++)
            s.value[v] += p->sample[i].value[v];
    }
    return s;
}

static inline void prof_show(const struct pp *p)
{
    for (size_t i = 0; i < p->samples; i++) {
        for (size_t v = 0; v < p->types; v++)
            fprintf(stderr, "%ld ", (long)p->sample[i].value[v]);
        fprintf(stderr, "%s\n", pp_text(&p->sample[i]));
    }
}

/* go tool pprof with an option or two, on what was written; skips the test without it. What it says is in out. */
static inline void prof_tool(struct test_output *out, struct sink s, const char *option, const char *other)
{
    static const char tool[] = TEST_SRC "/build/go/pprof";
    char file[64];
    if (access(tool, X_OK) != 0)
        cr_skip_test("go tool pprof is not there: install Go");
    snprintf(file, sizeof file, "/tmp/weft-prof-%d", (int)getpid());
    FILE *f = fopen(file, "we");
    cr_assert_not_null(f);
    cr_assert_eq(fwrite(s.bytes, 1, s.len, f), s.len);
    cr_assert_eq(fclose(f), 0);
    const char *argv[] = { tool, option, other != NULL ? other : file, other != NULL ? file : NULL, NULL };
    test_child(out, argv, NULL);
    unlink(file);
    cr_assert_eq(out->exit_code, 0, "%s", out->text);
}

#endif
