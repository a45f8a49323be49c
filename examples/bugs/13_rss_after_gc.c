/* Bug 13: expecting resident memory to fall after a collection.
 *
 * What the call promises: weft_gc finds what is unreachable and makes it free for further allocations. It says
 *                         nothing about the operating system.
 * What the bug assumes:   that free in the heap is free in the machine: "I dropped it, I collected, and top still
 *                         shows it: a leak".
 * What goes wrong:        the reading, nothing else: the pages stay with the process, which may well need them again,
 *                         and somebody hunts a leak that is none.
 * Instead:                weft_free_os_memory after a peak that will not come back; and read the right figure. With
 *                         madvdontneed=0 (MADV_FREE) the kernel takes the pages only when it needs them: until then
 *                         they count in VmRSS, and as LazyFree in /proc/self/smaps_rollup. VmRSS minus LazyFree is
 *                         what the process really holds.
 * Guarded:                weft_gc gives free memory back, too. */
#include "bug.h"

enum { CHUNKS = 3072, CHUNK_BYTES = 64 * 1024 }; /* 192 MiB */

struct moment { double rss, lazy; };

static struct moment look(void)
{
    return (struct moment){ bug_rss_mib(), (double)bug_proc("/proc/self/smaps_rollup", "LazyFree") / 1024 };
}

struct run {
    bool fixed;
    struct moment before, after_gc, after_free;
    double heap_after_gc;
};

static void fill_and_look(void *arg)
{
    struct run *r = arg;
    char **chunks = weft_alloc(CHUNKS * sizeof *chunks);
    for (int i = 0; i < CHUNKS; i++) {
        chunks[i] = weft_alloc_noscan(CHUNK_BYTES);
        memset(chunks[i], 1, CHUNK_BYTES);
    }
    r->before = look();
    weft_keep_alive(chunks);
}

static void program(void *arg)
{
    struct run *r = arg;
    weft_waitgroup wg = { 0 };
    weft_waitgroup_go(&wg, fill_and_look, r); /* its stack is gone afterwards, with the last pointer to the chunks */
    weft_waitgroup_wait(&wg);
    weft_gc();
    r->after_gc = look();
    weft_mem_stats *m = weft_alloc_noscan(sizeof *m);
    m->size = sizeof *m;
    weft_read_mem_stats(m);
    r->heap_after_gc = (double)m->heap_alloc / (1 << 20);
    if (r->fixed)
        weft_free_os_memory();
    r->after_free = look();
}

/* Runs the program with a setting and notes what it saw under the setting's name. */
static struct run run_with(bool fixed, const char *debug, const char *name)
{
    struct run r = { .fixed = fixed };
    weft_config config = bug_config();
    config.debug = debug;
    int error = weft_run(program, &r, &config);
    if (error < 0) {
        fprintf(stderr, "bug 13: %s\n", weft_strerror(error));
        exit(1);
    }
    char key[24];
    snprintf(key, sizeof key, "%s_rss", name);
    bug_value(key, r.after_free.rss / r.before.rss);
    snprintf(key, sizeof key, "%s_held", name);
    bug_value(key, (r.after_free.rss - r.after_free.lazy) / r.before.rss);
    snprintf(key, sizeof key, "%s_heap", name);
    bug_value(key, r.heap_after_gc / r.before.rss);
    return r;
}

static void buggy(void *arg)
{
    (void)arg;
    struct run d = run_with(false, "madvdontneed=1", "dontneed"), f = run_with(false, "madvdontneed=0", "free");
    bug_say("madvdontneed=1: %.0f MiB resident, after weft_gc %.0f MiB, though the heap's objects are %.1f MiB\n"
            "madvdontneed=0: %.0f MiB resident, after weft_gc %.0f MiB",
            d.before.rss, d.after_gc.rss, d.heap_after_gc, f.before.rss, f.after_gc.rss);
    bug_value("left", d.after_gc.rss);
    bug_cell("%.0f -> %.0f MiB resident", d.before.rss, d.after_gc.rss);
}

static void fixed(void *arg)
{
    (void)arg;
    struct run d = run_with(true, "madvdontneed=1", "dontneed"), f = run_with(true, "madvdontneed=0", "free");
    bug_say("madvdontneed=1: %.0f MiB resident, after weft_gc %.0f, after weft_free_os_memory %.0f MiB\n"
            "madvdontneed=0: %.0f MiB resident, after weft_gc %.0f, after weft_free_os_memory %.0f MiB"
            " (%.0f of it LazyFree)",
            d.before.rss, d.after_gc.rss, d.after_free.rss, f.before.rss, f.after_gc.rss, f.after_free.rss,
            f.after_free.lazy);
    bug_value("left", d.after_free.rss);
    bug_cell("%.0f -> %.0f MiB resident", d.before.rss, d.after_free.rss);
}

static const char *verdict(const struct bug_result *r)
{
    const struct bug_result *b = &r[BUGGY], *f = &r[FIXED], *g = &r[GUARDED];
    if (bug_get(b, "dontneed_heap") > 0.1 || bug_get(b, "free_heap") > 0.1)
        return "the collection did not find the dropped objects";
    if (bug_get(b, "dontneed_rss") < 0.8 || bug_get(b, "free_rss") < 0.8)
        return "resident memory fell by weft_gc alone";
    if (bug_get(f, "dontneed_rss") > 0.3)
        return "resident memory did not fall after weft_free_os_memory";
    if (bug_get(f, "free_held") > 0.3)
        return "with madvdontneed=0 the pages are not LazyFree";
    if (bug_get(g, "dontneed_rss") > 0.3)
        return "guarded, resident memory did not fall";
    return NULL;
}

int main(int argc, char **argv)
{
    static const struct bug bug = {
        .number = "13",
        .title = "resident memory after a collection",
        .buggy = buggy,
        .fixed = fixed,
        .own_run = true,
        .instead = "weft_free_os_memory();   /* after a peak; and read VmRSS - LazyFree when madvdontneed=0 */",
        .code = WEFT_W13,
        .guard = "WEFT_GUARD_GC: a forced collection gives free memory back, as its caller expects",
        .verdict = verdict,
        .plots = { { "left", "resident memory afterwards", "MiB", false } },
    };
    return bug_main(argc, argv, &bug);
}
