/* Findings are told, by a thread of the doctor's.
 *
 *   the doctor's thread   sleeps on the bell; looks which findings are new, has their stacks made into text, and hands them to the host's function or
 *                         the log. It has the host's descriptors, so what reads files of symbols is another helper ([FILES] in prof/helper.h).
 *   reporter              of weft_doctor_report: a helper while the caller waits, outside the runtime
 *   flusher               waits until `told` has come to what was there when it began
 *
 * `told` counts findings in the order of the table, those that are only counted included. Texts of stacks are made once, under `texts`, by whoever
 * needs them first; neither side is ever inside the runtime when it takes that lock. What else a finding says is made anew each time, of its numbers
 * as of then. The thread is started by the monitor, by a flusher, or at the end; `starting` says who. Should there be none to be had, the next
 * sighting asks again, and at the end they are told on the thread that ends the runtime. */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <weft/sched.h>
#include <weft/trace.h>
#include "base/fmt.h"
#include "base/offheap.h"
#include "debug/findings.h"
#include "debug/json.h"
#include "os/clock.h"
#include "os/futex.h"
#include "prof/helper.h"
#include "prof/symbols.h"
#include "prof/trim.h"
#include "prof/unwind.h"
#include "sched/report.h"
#include "sched/sched.h"
#include "sched/switch.h"
#include "sched/sysmon.h"

#define LOG_FRAMES 8u
#define LINE_BYTES 1000u

enum { TRACE_NOTHING, TRACE_WISH, TRACE_TEXT, TRACE_FIBER }; /* to_trace */

static struct {
    pthread_mutex_t starting;  /* runs */
    w_u32 runs;                /* rel: publishes thread; acq by others */
    struct helper thread;
    w_u32 bell, ends;          /* futexes */
    w_u32 told;                /* futex: findings that have been told, or need not be. rel by the thread; acq by flushers */
    pthread_mutex_t texts;     /* resolved and what goes with it, of all findings */
    w_u32 symbols;             /* some were read in this life */
} tell = { .starting = PTHREAD_MUTEX_INITIALIZER, .texts = PTHREAD_MUTEX_INITIALIZER };

/* ---- texts of stacks, on a helper that may read symbols, with `texts` ---------------------------------------------------------- */

static int append(void *ctx, const void *data, size_t n)
{
    char **to = ctx;
    memcpy(*to, data, n);
    *to += n;
    return 0;
}

/* Off-heap; NULL: no memory. */
static char *flat(const struct text *t)
{
    char *s = t->nomem ? NULL : off_alloc(OFF_PROF, t->bytes + 1), *end = s;
    if (s == NULL)
        return NULL;
    text_write(t, append, &end);
    *end = 0;
    return s;
}

struct making {
    const struct maps *maps;
    struct trim trim;
    struct unwind_from from;
    struct unwind_trace walked;
    struct symbol sym[SYMBOLS_INLINED_MAX];
    struct text lines, json;
};

static void put_frame(struct making *k, const struct symbol *s, uintptr_t pc)
{
    char unknown[40];
    w_fmt(unknown, sizeof unknown, "0x%lx", (unsigned long)pc - 1);
    const char *func = s->func != NULL ? s->func : unknown, *file = s->file != NULL ? s->file : "";
    text_puts(&k->lines, func);
    if (s->file != NULL && s->line != 0) {
        text_puts(&k->lines, " at ");
        text_puts(&k->lines, s->func != NULL ? symbols_base_name(file) : file);
        text_putf(&k->lines, ":%u", s->line);
    } else if (s->file != NULL) {
        text_puts(&k->lines, " in ");
        text_puts(&k->lines, symbols_base_name(file));
    }
    text_puts(&k->lines, "\n");
    text_puts(&k->json, k->json.bytes == 0 ? "{\"function\":" : ",{\"function\":");
    json_string(&k->json, func);
    text_puts(&k->json, ",\"file\":");
    json_string(&k->json, file);
    text_putf(&k->json, ",\"line\":%u}", s->line);
}

static void put_stack(struct making *k, const uintptr_t *pc, uint32_t n)
{
    n = trim_outer(pc, n);
    uint32_t first = trim_inner(&k->trim, TRIM_TO_CALLER, pc, n);
    for (uint32_t i = first; i < n; i++) {
        uint32_t in = symbols_at(k->maps, pc[i], k->sym), strip = i == first ? trim_functions(&k->trim, pc[i]) : 0;
        for (uint32_t j = strip < in ? strip : 0; j < in; j++)
            put_frame(k, &k->sym[j], pc[i]);
    }
}

static void walk(void *arg, bool all_there)
{
    struct making *k = arg;
    unwind_walk(k->maps, all_there, &k->from, &k->walked);
}

/* From the bytes that were kept: all the frames. */
static void walk_kept(struct making *k, const struct finding *f)
{
    k->from = f->raw;
#if defined(__aarch64__)
    if (f->raw_frame) { /* the frame's stack pointer is not known, but code of this architecture keeps frame pointers */
        uintptr_t fp = f->raw.reg[29], sp = f->raw.lo;
        k->walked = (struct unwind_trace){ .n = 1, .pc = { f->raw.reg[32] } };
        while (k->walked.n < w_countof(k->walked.pc) && fp >= sp && fp + 16 <= f->raw.hi && fp % 16 == 0) {
            uintptr_t at[2];
            memcpy(at, f->raw_bytes + (fp - f->raw.lo), sizeof at);
            k->walked.pc[k->walked.n++] = at[1];
            sp = fp + 16;
            fp = at[0];
        }
        return;
    }
#endif
    maps_hold(walk, k);
}

/* In the child of a fork it was the parent's, who may have been here at that moment: at worst it is lost. */
static void forget_text(char **at)
{
    char *was = *at;
    *at = NULL;
    fence_seq(); /* the store before those of off_free, for a fork */
    off_free(OFF_PROF, was);
}

static void stack_text(struct making *k, struct finding *f, int which)
{
    if (which == 0 && f->raw.hi != 0) {
        walk_kept(k, f);
        put_stack(k, k->walked.pc, k->walked.n);
    } else {
        put_stack(k, which == 0 ? f->s.stack : f->s.made, which == 0 ? f->s.nstack : f->s.nmade);
    }
    forget_text(&f->lines[which]);
    forget_text(&f->json[which]);
    f->lines[which] = flat(&k->lines);
    f->json[which] = flat(&k->json);
    text_free(&k->lines);
    text_free(&k->json);
}

static void texts_make(void *arg)
{
    struct making *k = off_zalloc(OFF_PROF, sizeof *k);
    struct finding *t = load_acq(&doctor.table); /* acq: with n */
    (void)arg;
    if (k == NULL || (k->maps = maps_begin(symbols_gone)) == NULL) {
        off_free(OFF_PROF, k);
        return;
    }
    unwind_load();
    store_rlx(&tell.symbols, 1); /* rlx: read when nobody makes any more */
    trim_init(&k->trim, k->maps);
    for (uint32_t i = 0, n = findings(); i < n; i++) {
        if (t[i].resolved)
            continue;
        stack_text(k, &t[i], 0);
        stack_text(k, &t[i], 1);
        t[i].resolved = true;
    }
    trim_free(&k->trim);
    maps_end();
    off_free(OFF_PROF, k);
}

/* ---- a finding as it is now ------------------------------------------------------------------------------------------------------- */

struct now { struct sighting s; int mode; uint64_t count; int64_t first, last; const char *title, *cure; };

static void look(const struct finding *f, struct now *out)
{
    const struct detector *d = doctor_detectors[f->s.code];
    lock_take(&doctor.lock);
    *out = (struct now){ f->s, f->mode, f->count, f->first, f->last, d->title, d->cure };
    lock_drop(&doctor.lock);
}

static void put_what(struct text *t, const struct now *n)
{
    const struct detector *d = doctor_detectors[n->s.code];
    if (n->s.noted) {
        text_puts(t, n->s.text);
        return;
    }
    if (d->say != NULL) {
        d->say(t, &n->s);
        return;
    }
    text_puts(t, n->title);
    if (n->s.text != NULL) {
        text_puts(t, ": ");
        text_puts(t, n->s.text);
    }
}

static const char *or_empty(const char *s) { return s != NULL ? s : ""; }

/* ---- telling ------------------------------------------------------------------------------------------------------------------------ */

static void log_stack(const char *title, const char *lines)
{
    char line[LINE_BYTES];
    if (lines[0] != 0 && title != NULL)
        sched_log(title);
    for (uint32_t i = 0; *lines != 0 && i < LOG_FRAMES; i++) {
        size_t n = strcspn(lines, "\n");
        w_fmt(line, sizeof line, "      %.*s", (int)w_min(n, sizeof line - 16), lines);
        sched_log(line);
        lines += n + (lines[n] == '\n');
    }
}

static void log_finding(const weft_finding *f)
{
    char line[LINE_BYTES];
    w_fmt(line, sizeof line, "weft: doctor: W%02d: %s.", f->code, f->what);
    sched_log(line);
    log_stack(NULL, f->stack);
    log_stack("    made by", f->made);
    if (f->cure[0] != 0) {
        w_fmt(line, sizeof line, "    cure: %s", f->cure);
        sched_log(line);
    }
}

static void tell_one(const struct finding *f)
{
    struct now n;
    struct text t = { 0 };
    look(f, &n);
    put_what(&t, &n);
    char *what = flat(&t);
    weft_finding out = { sizeof out, n.s.code, what != NULL ? what : n.title, n.cure, or_empty(f->lines[0]), or_empty(f->lines[1]), n.count, n.first,
                         n.last };
    if (sched.cfg.finding != NULL)
        sched.cfg.finding(sched.cfg.finding_arg, &out);
    else
        log_finding(&out);
    if (n.mode == DOCTOR_ABORT)
        w_fatal("the doctor has found W%02d, and its mode is abort: %s", n.s.code, out.what);
    text_free(&t);
    off_free(OFF_PROF, what);
}

/* Those of that mode or a stronger one. */
static bool all_resolved(uint32_t from, uint32_t n, int mode)
{
    const struct finding *t = load_acq(&doctor.table); /* acq: with n */
    for (uint32_t i = from; i < n; i++)
        if (!t[i].resolved && t[i].mode >= mode)
            return false;
    return true;
}

/* The texts of what is to be told; without a thread for that there are none. */
static void tell_new(void)
{
    for (;;) {
        uint32_t from = load_rlx(&tell.told), n = findings(); /* rlx: ours */
        const struct finding *t = load_acq(&doctor.table); /* acq: with n */
        if (from == n)
            return;
        pthread_mutex_lock(&tell.texts);
        if (!all_resolved(from, n, DOCTOR_REPORT))
            helper_run(texts_make, NULL);
        pthread_mutex_unlock(&tell.texts);
        for (uint32_t i = from; i < n; i++) {
            if (t[i].mode >= DOCTOR_REPORT)
                tell_one(&t[i]);
            store_rel(&tell.told, i + 1); /* rel: it has been told; acq in tell_flush */
            os_futex_wake(&tell.told, INT_MAX);
        }
    }
}

static void texts_for_trace(void);

static void tell_main(void *arg)
{
    (void)arg;
    for (;;) {
        uint32_t seen = load_acq(&tell.bell); /* acq: sees what it was rung for; rel in ring */
        bool ends = load_rlx(&tell.ends) != 0; /* rlx: the same bell */
        tell_new();
        texts_for_trace();
        if (ends)
            return;
        os_futex_wait(&tell.bell, seen, -1);
    }
}

static void ring(void)
{
    add_acq_rel(&tell.bell, 1); /* rel: acq in tell_main */
    os_futex_wake(&tell.bell, 1);
}

/* Outside the runtime, or on the monitor. 0, -ENOMEM, -EAGAIN. */
static int start(void)
{
    pthread_mutex_lock(&tell.starting);
    int err = 0;
    if (load_rlx(&tell.runs) == 0) { /* rlx: under the lock */
        tell.thread = (struct helper){ .fn = tell_main, .flags = HELPER_HOSTS_FILES };
        err = helper_start(&tell.thread);
        store_rel(&tell.runs, err == 0); /* rel: acq in on_thread */
    }
    pthread_mutex_unlock(&tell.starting);
    return err;
}

static void trace_fiber(void *arg)
{
    struct finding *f = arg;
    weft_trace_log("weft.doctor", f->trace_text);
    store_rlx(&f->to_trace, TRACE_NOTHING); /* rlx: who finds it so writes nothing before the next wish */
}

/* Of all that the doctor may ask the monitor for. No thread to be had: the next sighting asks again. */
static void by_monitor(void)
{
    struct finding *t = load_acq(&doctor.table); /* acq: with n */
    uint32_t n = findings();
    bool waits = n > load_rlx(&tell.told); /* rlx: a hint, as it was asked for */
    for (uint32_t i = 0; i < n; i++) {
        waits = waits || load_rlx(&t[i].to_trace) == TRACE_WISH; /* rlx: likewise */
        weft_go_opts opts = { .size = sizeof opts, .name = "doctor" };
        if (cas_acq(&t[i].to_trace, TRACE_TEXT, TRACE_FIBER) && /* acq: sees the text; rel in texts_for_trace */
            sched_spawn(trace_fiber, &t[i], &opts, (const void *)trace_fiber, FIBER_SYSTEM) != 0)
            store_rlx(&t[i].to_trace, TRACE_NOTHING); /* rlx: as in trace_fiber */
    }
    if (waits)
        start();
}

void tell_poke(void)
{
    ring();
    if (load_rlx(&tell.runs) == 0) /* rlx: a hint; one that is there is not started again */
        sysmon_call(by_monitor);
}

void tell_trace(struct finding *f)
{
    if (cas_acq(&f->to_trace, TRACE_NOTHING, TRACE_WISH)) /* acq: the fiber is done with the text */
        tell_poke();
}

/* Traces have what happened on a fiber; what was seen elsewhere (by the collector, the monitor) is told in them by a fiber of ours, which the monitor
 * starts, as this thread must not enter the runtime. */
static void texts_for_trace(void)
{
    struct finding *t = load_acq(&doctor.table); /* acq: with n */
    bool some = false;
    for (uint32_t i = 0, n = findings(); i < n; i++) {
        if (load_acq(&t[i].to_trace) != TRACE_WISH) /* acq: as in tell_trace */
            continue;
        struct now now;
        struct text what = { 0 };
        look(&t[i], &now);
        put_what(&what, &now);
        char *s = flat(&what);
        w_fmt(t[i].trace_text, sizeof t[i].trace_text, "W%02d %s", now.s.code, s != NULL ? s : now.title);
        text_free(&what);
        off_free(OFF_PROF, s);
        store_rel(&t[i].to_trace, TRACE_TEXT); /* rel: publishes the text; acq in by_monitor */
        some = true;
    }
    if (some)
        sysmon_call(by_monitor);
}

int tell_flush(int64_t most_ns)
{
    uint32_t target = findings(), told;
    int64_t until = most_ns >= 0 ? os_now_ns() + most_ns : INT64_MAX, left;
    if (load_acq(&tell.told) >= target) /* acq: rel in tell_new */
        return 0;
    int err = start();
    if (err != 0)
        return err;
    ring();
    while ((told = load_acq(&tell.told)) < target && (left = until - os_now_ns()) > 0) /* acq: likewise */
        os_futex_wait(&tell.told, told, most_ns >= 0 ? left : -1);
    return told < target ? -ETIMEDOUT : 0;
}

/* ---- from user code ----------------------------------------------------------------------------------------------------------------- */

static bool on_thread(void) { return load_acq(&tell.runs) != 0 && pthread_equal(pthread_self(), tell.thread.thread); } /* acq: rel in start */

/* Out of the runtime, and fn(arg) there. */
static int outside(int (*fn)(void *arg), void *arg)
{
    struct m *m = rt_enter_try();
    return m != NULL ? helper_outside(m, fn, arg) : -ESRCH;
}

static int flush_outside(void *arg)
{
    (void)arg;
    return tell_flush(-1);
}

int weft_doctor_flush(void)
{
    if (on_thread())
        return -EDEADLK;
    int saved = errno, err = outside(flush_outside, NULL);
    errno = saved;
    return err;
}

struct report { struct text text; int form; };

static void report_text(struct text *t, const struct finding *f, const struct now *n)
{
    text_putf(t, "\nW%02d %s: seen %lu time%s, ", n->s.code, n->title, (unsigned long)n->count, n->count != 1 ? "s" : "");
    text_putf(t, "first after %lu ms, last after %lu ms\n  ", (unsigned long)((n->first - sched.start_ns) / 1000000),
              (unsigned long)((n->last - sched.start_ns) / 1000000));
    put_what(t, n);
    text_puts(t, ".\n");
    const char *at[2] = { or_empty(f->lines[0]), or_empty(f->lines[1]) };
    for (int i = 0; i < 2; i++) {
        text_puts(t, i == 1 && at[i][0] != 0 ? "  made by\n" : "");
        for (const char *line = at[i]; *line != 0;) {
            size_t len = strcspn(line, "\n") + 1;
            text_puts(t, "    ");
            text_put(t, line, len);
            line += len;
        }
    }
    text_puts(t, n->cure[0] != 0 ? "  cure: " : "");
    text_puts(t, n->cure);
    text_puts(t, n->cure[0] != 0 ? "\n" : "");
}

static void report_json(struct text *t, const struct finding *f, const struct now *n)
{
    struct text what = { 0 };
    put_what(&what, n);
    char *s = flat(&what);
    text_putf(t, "{\"code\":\"W%02d\",\"mode\":\"%s\",\"title\":", n->s.code, doctor_mode_names[n->mode]);
    json_string(t, n->title);
    text_puts(t, ",\"what\":");
    json_string(t, s != NULL ? s : n->title);
    text_puts(t, ",\"cure\":");
    json_string(t, n->cure);
    text_puts(t, ",\"stack\":[");
    text_puts(t, or_empty(f->json[0]));
    text_puts(t, "],\"made\":[");
    text_puts(t, or_empty(f->json[1]));
    text_putf(t, "],\"fiber\":%lu,\"count\":%lu,", (unsigned long)n->s.fiber, (unsigned long)n->count);
    text_putf(t, "\"first_ns\":%ld,\"last_ns\":%ld}", (long)n->first, (long)n->last);
    text_free(&what);
    off_free(OFF_PROF, s);
}

static void report_head(struct text *t, int form, uint32_t n)
{
    if (form == WEFT_FORM_TEXT) {
        text_putf(t, "doctor: %u finding%s", n, n != 1 ? "s" : "");
        if (load_rlx(&doctor.lost) != 0) /* rlx: a counter */
            text_putf(t, "; %lu sightings had no room", (unsigned long)load_rlx(&doctor.lost));
        text_puts(t, "\n");
        return;
    }
    text_puts(t, "{\"modes\":{");
    for (int i = 1; i < WEFT_DOCTOR_CODES; i++)
        text_putf(t, "%s\"w%02d\":\"%s\"", i > 1 ? "," : "", i, doctor_mode_names[doctor.mode[i]]);
    text_puts(t, "},\"counts\":{");
    for (int i = 1; i < WEFT_DOCTOR_CODES; i++)
        text_putf(t, "%s\"w%02d\":%lu", i > 1 ? "," : "", i, (unsigned long)weft_doctor_count(i));
    text_putf(t, "},\"lost\":%lu,", (unsigned long)load_rlx(&doctor.lost)); /* rlx: a counter */
    text_putf(t, "\"now_ns\":%ld,\"findings\":[", (long)os_now_ns());
}

static void report_make(void *arg)
{
    struct report *r = arg;
    lock_take(&doctor.lock); /* what is among them has been counted */
    uint32_t n = findings();
    lock_drop(&doctor.lock);
    const struct finding *t = load_acq(&doctor.table); /* acq: with n */
    report_head(&r->text, r->form, n);
    pthread_mutex_lock(&tell.texts);
    if (!all_resolved(0, n, DOCTOR_COUNT))
        texts_make(NULL);
    for (uint32_t i = 0; i < n; i++) {
        struct now now;
        look(&t[i], &now);
        text_puts(&r->text, r->form == WEFT_FORM_JSON && i > 0 ? "," : "");
        (r->form == WEFT_FORM_JSON ? report_json : report_text)(&r->text, &t[i], &now);
    }
    pthread_mutex_unlock(&tell.texts);
    text_puts(&r->text, r->form == WEFT_FORM_JSON ? "]}\n" : "");
}

static int report_outside(void *arg) { return helper_run(report_make, arg); }

int weft_doctor_report(weft_writer *w, void *ctx, int form)
{
    struct report r = { .form = form };
    if (w == NULL || (form != WEFT_FORM_TEXT && form != WEFT_FORM_JSON))
        return -EINVAL;
    int saved = errno, err = outside(report_outside, &r);
    if (err == 0)
        err = r.text.nomem ? -ENOMEM : text_write(&r.text, w, ctx);
    struct m *m = rt_enter_try(); /* as in roster_drop */
    text_free(&r.text);
    if (m != NULL)
        rt_leave(m);
    errno = saved;
    return err;
}

/* ---- life ----------------------------------------------------------------------------------------------------------------------------- */

void tell_end(void)
{
    uint32_t n = findings();
    if (n > load_rlx(&tell.told)) /* rlx: looked at again by who tells */
        start();
    if (load_acq(&tell.runs) != 0) { /* acq: rel in start */
        store_rlx(&tell.ends, 1); /* rlx: the bell publishes it */
        ring();
        helper_join(&tell.thread);
    }
    tell_new(); /* no thread was to be had */
    struct finding *t = load_rlx(&doctor.table); /* rlx: nobody else is inside */
    for (uint32_t i = 0; t != NULL && i < FINDINGS_MAX; i++) /* in the child of a fork there may be more than n */
        for (int k = 0; k < 2; k++) {
            off_free(OFF_PROF, t[i].lines[k]);
            off_free(OFF_PROF, t[i].json[k]);
        }
    symbols_end(&tell.symbols);
    store_rlx(&tell.runs, 0); /* rlx: as above */
    store_rlx(&tell.ends, 0);
    store_rlx(&tell.told, 0);
}

void tell_after_fork(void)
{
    bool own = (uintptr_t)__builtin_frame_address(0) - (uintptr_t)tell.thread.stack < HELPER_STACK_BYTES; /* the host's function has forked */
    if (load_rlx(&tell.runs) != 0 && !own) /* rlx: alone, here and below */
        munmap(tell.thread.stack, HELPER_STACK_BYTES);
    tell.starting = tell.texts = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    store_rlx(&tell.runs, 0);
    store_rlx(&tell.ends, 0);
    store_rlx(&tell.told, 0);
}
