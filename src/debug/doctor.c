/* The doctor: what it looks for, and what it has found.
 *
 *      probe point --> detector --> doctor_sight --> table of findings --> the doctor's thread: host's callback or log (tell.c)
 *      API call ----------^              |      \--> weft_doctor_report
 *                                        +--> trace, counters
 *
 * Actors. Detectors run where something happens: in a probe, on any thread inside the runtime, perhaps in a stop. All they may do there is to count
 * (rates.c) and to make a sighting. Equal sightings are one finding, so however often it happens there is a bounded table to be looked at, each of
 * whose entries is told once. All that takes time, symbols above all, is for a thread of the doctor's, which is made when there is something to
 * tell.
 *
 * Costs. While nothing is found there is no thread, no memory and no listener but on rare probes. Whoever makes the first sighting maps the table;
 * pages of it become memory as entries are written. Who is inside the runtime must make no thread: the monitor makes it (sysmon_call).
 *
 * Stacks. Tables to walk exactly (walk.h) cost a thread, so there are none here. The library keeps frame pointers, so the place of the public call
 * is found by them, and that is what findings are told apart by. The first time the bytes of the stack from there on are kept, and walked later by
 * the unwind tables.
 *
 * In a child of a fork it begins anew, with its own findings. */
#include "debug/doctor.h"
#include <errno.h>
#include <string.h>
#include "base/fmt.h"
#include "base/text.h"
#include "debug/findings.h"
#include "os/clock.h"
#include "sched/report.h"
#include "sched/sched.h"
#include "trace/user.h"
#include <weft/trace.h>

#define FIND_OWN_FRAMES 24u /* of the library, between a detector and the public call */

struct doctor doctor = { .lock = LOCK_INIT(RANK_LEAF) };
const char *const doctor_mode_names[] = { "off", "count", "report", "abort" };
_Static_assert((int)CONFIG_DOCTOR_CODES == (int)WEFT_DOCTOR_CODES, "base/config.h");

/* ---- the detectors -------------------------------------------------------------------------------------------------- */

/* To add one: a line here, in both lists. */
extern const struct detector w01_capture, w02_late_close, w03_locked_end, w04_forced_gc, w05_used_after, w06_mem_stats, w07_profile, w08_fibers,
    w09_trace, w10_rates, w11_dump, w12_procs, w13_kept, w14_public, w15_held, w16_stop, w17_held_lock, w18_thread_local;

const struct detector *const doctor_detectors[WEFT_DOCTOR_CODES] = {
    [WEFT_W01] = &w01_capture,
    [WEFT_W02] = &w02_late_close,
    [WEFT_W03] = &w03_locked_end,
    [WEFT_W04] = &w04_forced_gc,
    [WEFT_W05] = &w05_used_after,
    [WEFT_W06] = &w06_mem_stats,
    [WEFT_W07] = &w07_profile,
    [WEFT_W08] = &w08_fibers,
    [WEFT_W09] = &w09_trace,
    [WEFT_W10] = &w10_rates,
    [WEFT_W11] = &w11_dump,
    [WEFT_W12] = &w12_procs,
    [WEFT_W13] = &w13_kept,
    [WEFT_W14] = &w14_public,
    [WEFT_W15] = &w15_held,
    [WEFT_W16] = &w16_stop,
    [WEFT_W17] = &w17_held_lock,
    [WEFT_W18] = &w18_thread_local,
};

static void heard(void *arg, enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t c)
{
    (void)arg;
    for (int i = 1; i < WEFT_DOCTOR_CODES; i++)
        if ((doctor_detectors[i]->probes >> id & 1) != 0 && doctor.mode[i] != DOCTOR_OFF)
            doctor_detectors[i]->probe(id, a, b, c);
}

bool doctor_wants(int code)
{
    return load_acq(&doctor.on) != 0 && doctor.mode[code] != DOCTOR_OFF; /* acq: rel in doctor_begin */
}

/* ---- stacks --------------------------------------------------------------------------------------------------------------- */

/* The end of the stack on which that lies, if it is the fiber's own, or the host's of its thread. */
static uintptr_t stack_end(const struct m *m, uintptr_t sp)
{
    const struct fiber *f = m != NULL ? m->cur : NULL;
    if (f != NULL && sp >= (uintptr_t)f->stack_lo && sp < (uintptr_t)f->stack_hi)
        return (uintptr_t)f->stack_hi;
    return 0;
}

w_noinline w_no_sanitize void doctor_stack(struct sighting *s)
{
    const struct m *m = m_self();
    uintptr_t fp = (uintptr_t)__builtin_frame_address(0), end = stack_end(m, fp);
    if (m != NULL && m->cur != NULL && !(m->cur->flags & FIBER_THREAD))
        s->fiber = m->cur->id;
    for (uint32_t i = 0; i < FIND_OWN_FRAMES && fp % sizeof(uintptr_t) == 0 && fp + 16 <= end; i++) {
        const volatile uintptr_t *at = (const volatile uintptr_t *)fp;
        uintptr_t caller = at[0], pc = at[1];
        if (!text_is_own(pc)) {
            s->frame = (const uintptr_t *)fp;
            s->stack[0] = pc;
            s->nstack = 1;
            return;
        }
        if (caller <= fp)
            return;
        fp = caller;
    }
}

/* A sanitizer's red zones are among them. */
w_no_sanitize void keep_bytes(struct unwind_from *u, char to_bytes[RAW_BYTES])
{
    volatile uintptr_t *to = (volatile uintptr_t *)(void *)to_bytes;
    const volatile uintptr_t *from = (const volatile uintptr_t *)(const void *)u->bytes;
    size_t words = w_min(u->hi - u->lo, (uintptr_t)RAW_BYTES) / sizeof *to;
    for (size_t i = 0; i < words; i++)
        to[i] = from[i];
    u->hi = u->lo + words * sizeof *to;
    u->bytes = to_bytes;
}

static void keep_stack(struct finding *f, const struct unwind_from *u)
{
    f->raw = *u;
    keep_bytes(&f->raw, f->raw_bytes);
}

/* As if the function returned that has this frame. */
static w_no_sanitize void keep_frame(struct finding *f, const uintptr_t *frame)
{
    const volatile uintptr_t *at = frame;
    uintptr_t sp = (uintptr_t)(frame + 2);
    struct unwind_from u = { .lo = sp, .hi = stack_end(m_self(), sp), .bytes = (const char *)sp };
    if (u.hi == 0)
        return;
#if defined(__x86_64__)
    u.reg[6] = at[0];
    u.reg[7] = sp;
    u.reg[16] = at[1];
#else
    u.reg[29] = at[0];
    u.reg[31] = sp;
    u.reg[32] = at[1];
#endif
    f->raw_frame = true;
    keep_stack(f, &u);
}

/* ---- findings ------------------------------------------------------------------------------------------------------------------ */

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15ull;
    return h ^ h >> 29;
}

static uint64_t key_of(const struct sighting *s)
{
    uint64_t h = mix((uint64_t)s->code | (uint64_t)s->noted << 32, s->nstack);
    for (uint32_t i = 0; i < s->nstack; i++)
        h = mix(h, s->stack[i]);
    for (uint32_t i = 0; i < s->nmade; i++)
        h = mix(h, s->made[i] + 1);
    for (const char *c = s->text; c != NULL && *c != 0 && c < s->text + FINDING_TEXT - 1; c++)
        h = mix(h, (unsigned char)*c);
    return h;
}

/* Under the lock. NULL: no memory. */
static struct finding *table_made(void)
{
    struct finding *t = load_rlx(&doctor.table); /* rlx: under the lock */
    if (t == NULL && (t = off_map(OFF_PROF, FINDINGS_MAX * sizeof *t, 4096)) != NULL)
        store_rel(&doctor.table, t); /* rel: with n */
    return t;
}

/* The same. NULL: it is lost. */
static struct finding *finding_of(const struct sighting *s, int64_t now, bool *fresh)
{
    struct finding *t = table_made();
    uint64_t key = key_of(s);
    uint32_t n = load_rlx(&doctor.n); /* rlx: under the lock */
    *fresh = false;
    for (uint32_t i = 0; t != NULL && i < n; i++)
        if (t[i].key == key)
            return &t[i];
    if (t == NULL || n == FINDINGS_MAX)
        return NULL;
    struct finding *f = &t[n];
    f->s = *s;
    f->key = key;
    f->mode = doctor.mode[s->code];
    f->first = now;
    f->text[0] = 0;
    f->count = 0;
    f->raw.lo = f->raw.hi = 0;
    f->raw_frame = false;
    f->resolved = false;
    store_rlx(&f->to_trace, 0); /* rlx: nobody knows it yet */
    if (s->text != NULL)
        w_fmt(f->text, sizeof f->text, "%s", s->text);
    f->s.text = s->text != NULL ? f->text : NULL;
    if (s->frame != NULL)
        keep_frame(f, s->frame);
    else if (s->from != NULL)
        keep_stack(f, s->from);
    *fresh = true;
    return f;
}

/* In traces it is where it happened, told shortly; the first time, and then whenever it is twice as often. False: not told here, as no fiber
 * runs: by the collector, the monitor, in a stop. */
static bool trace_it(const struct sighting *s, uint64_t count)
{
    struct m *m = m_self();
    char line[192];
    if (!weft_trace_enabled() || (count & (count - 1)) != 0)
        return true;
    if (m == NULL)
        return false;
    w_fmt(line, sizeof line, "W%02d %s (%lu)", s->code, s->noted ? s->text : doctor_detectors[s->code]->title, (unsigned long)count);
    return trace_log_inside(m, "weft.doctor", line);
}

void doctor_sight(const struct sighting *s)
{
    if (!doctor_wants(s->code))
        return;
    bool fresh;
    uint64_t count = 0;
    int64_t now = os_now_ns();
    lock_take(&doctor.lock);
    struct finding *f = finding_of(s, now, &fresh);
    if (f != NULL) {
        memcpy(f->s.n, s->n, sizeof f->s.n);
        f->last = now;
        count = ++f->count;
    }
    if (f != NULL && fresh)
        store_rel(&doctor.n, load_rlx(&doctor.n) + 1); /* rel: publishes it; acq in findings. rlx: under the lock */
    add_acq_rel(&doctor.count[s->code], 1); /* rel: who sees it counted finds the finding; acq in weft_doctor_count */
    lock_drop(&doctor.lock);
    if (f == NULL) {
        add_rlx(&doctor.lost, 1); /* rlx: a counter */
        return;
    }
    if (!trace_it(s, count))
        tell_trace(f);
    if ((count & (count - 1)) == 0 && f->mode >= DOCTOR_REPORT) /* more than once: there may have been no thread */
        tell_poke();
}

/* ---- the public side ---------------------------------------------------------------------------------------------------------------- */

uint64_t weft_doctor_count(int code)
{
    return code > 0 && code < WEFT_DOCTOR_CODES ? load_acq(&doctor.count[code]) : 0; /* acq: rel in doctor_sight */
}

w_noinline int weft_doctor_note(int code, const char *what)
{
    if (code <= 0 || code >= WEFT_DOCTOR_CODES || what == NULL)
        return -EINVAL;
    struct m *m = rt_enter_try();
    if (m == NULL)
        return -ESRCH;
    if (doctor_wants(code)) {
        struct sighting s = { .code = code, .text = what, .noted = true };
        doctor_stack(&s);
        doctor_sight(&s);
    }
    rt_leave(m);
    return 0;
}

/* ---- life ------------------------------------------------------------------------------------------------------------------------------ */

static uint32_t lives;

static void doctor_begin(void)
{
    uint64_t probes = 0;
    bool any = false;
    for (int i = 1; i < WEFT_DOCTOR_CODES; i++) {
        const struct detector *d = doctor_detectors[i];
        int64_t own = sched.cfg.doctor_code[i];
        doctor.mode[i] = (uint8_t)(own != DOCTOR_AS_ALL ? own : sched.cfg.doctor);
        any = any || doctor.mode[i] != DOCTOR_OFF;
        probes |= doctor.mode[i] != DOCTOR_OFF ? d->probes : 0;
        if (load_rlx(&doctor.count[i]) != 0) /* of an earlier life; what was never touched takes no memory */
            store_rlx(&doctor.count[i], 0); /* rlx: nobody counts yet */
    }
    if (!any)
        return;
    store_rel(&doctor.on, 1); /* rel: publishes modes; acq in doctor_wants */
    for (int i = 1; i < WEFT_DOCTOR_CODES; i++)
        if (doctor_detectors[i]->begin != NULL && doctor.mode[i] != DOCTOR_OFF &&
            (lives > 0 || doctor_detectors[i]->always))
            doctor_detectors[i]->begin();
    lives++;
    if (probes != 0)
        probe_listen(probes, heard, NULL);
}

static void doctor_end(void)
{
    if (load_rlx(&doctor.on) == 0) /* rlx: nobody else is inside */
        return;
    probe_unlisten(heard, NULL);
    for (int i = 1; i < WEFT_DOCTOR_CODES; i++)
        if (doctor_detectors[i]->end != NULL && doctor.mode[i] != DOCTOR_OFF)
            doctor_detectors[i]->end();
    store_rlx(&doctor.on, 0); /* rlx: as above */
    tell_end();
    rates_reset();
    struct finding *t = load_rlx(&doctor.table); /* rlx: as above, and below */
    store_rlx(&doctor.n, 0);
    store_rlx(&doctor.lost, 0);
    store_rlx(&doctor.table, NULL);
    if (t != NULL)
        off_unmap(OFF_PROF, t, FINDINGS_MAX * sizeof *t);
}

/* The table stays, for memory is not freed here. */
static void doctor_after_fork(void)
{
    if (load_rlx(&doctor.on) == 0) /* rlx: alone, here and below */
        return;
    lock_init(&doctor.lock, RANK_LEAF);
    store_rlx(&doctor.n, 0);
    store_rlx(&doctor.lost, 0);
    for (int i = 1; i < WEFT_DOCTOR_CODES; i++) {
        store_rlx(&doctor.count[i], 0);
        if (doctor_detectors[i]->after_fork != NULL && doctor.mode[i] != DOCTOR_OFF)
            doctor_detectors[i]->after_fork();
    }
    rates_reset();
    tell_after_fork();
}

static struct sched_guest doctor_guest = { .begin = doctor_begin, .end = doctor_end, .after_fork = doctor_after_fork };
static void __attribute__((constructor)) doctor_init(void)
{
    sched_guest_add(&doctor_guest);
    sched_reports.found = doctor.count;
}
