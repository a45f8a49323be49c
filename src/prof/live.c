/* A profile that is written while it is taken.
 *
 * Two helpers. The sampler's own collects samples and makes pieces ([PIECES] in pprof.c): it needs files of its own for libdw. The other calls the
 * host's writer, which needs the host's descriptors ([FILES] in helper.h). The first hands over what it has made whenever the second is done with what
 * it had, so a writer that is slow or stuck holds up neither samples nor the threads that are sampled; what it does not take in time is kept, up to
 * HELD_MAX, and counted as lost beyond.
 *
 *      turn      EMPTY: the first's, which fills `bytes` and says FULL, or END; FULL: the second's, which writes them and says EMPTY
 *
 * What is handed over lies in one piece and is whole members. So of a program that is killed the file ends where a member does, unless the kill comes
 * in the microsecond in which the kernel copies it.
 *
 * Limits: what would exceed the bytes is not written at all, and the profile closed, so it never has more. */
#include "prof/live.h"
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>
#include "base/fmt.h"
#include "base/offheap.h"
#include "base/probe.h"
#include "base/syscall.h"
#include "os/clock.h"
#include "os/futex.h"
#include "prof/helper.h"
#include "prof/loaded.h"
#include "prof/pseudo.h"
#include "sched/report.h"

#define PIECE_BYTES (4u << 20)
#define HELD_MAX (16u << 20)

enum turn { EMPTY, FULL, END };

struct live {
    struct live_opts o;
    struct pprof *pprof;
    uint32_t values;
    int64_t period;
    int64_t begun_ns, flush_ns, encoded_ns; /* flush_ns: the next one. encoded_ns: duration as of the last piece */
    int64_t lost;
    w_u64 handed;           /* bytes. One writer; rlx: others show it */
    bool over;              /* said that it is beyond what others may have */
    bool dirty;             /* samples were added since the last piece */
    int why;                /* WEFT_PROFILE_*, once it is to be closed; 0: it goes on, or was asked to stop */
    struct symbol scratch[SYMBOLS_INLINED_MAX];
    /* the writer's, and whose turn it is */
    struct helper writer;
    w_u32 turn;             /* enum turn; futex; rel: what follows; acq on the other side */
    struct gzip_bytes bytes;
    int err;
};

static __thread const struct live *writes __attribute__((tls_model("initial-exec"))); /* the one that this thread is the writer of */

/* ---- the host's writer ------------------------------------------------------------------------------------- */

static const char *why_text(int why)
{
    return why == WEFT_PROFILE_BYTES ? "its limit of bytes (max_bytes) is reached"
           : why == WEFT_PROFILE_TIME ? "its limit of time (max_ns) is reached" : "its writer failed";
}

static void tell(const struct live *l)
{
    if (l->o.closed != NULL)
        l->o.closed(l->o.closed_arg, l->why, l->err);
    else
        sched_logf("weft: the %s was closed: %s; what was written is complete%s%s", l->o.what, why_text(l->why),
                   l->err != 0 ? ": " : "; stop profiles when they have served, or start them with other limits",
                   l->err != 0 ? weft_strerror(l->err) : "");
}

static void writer_main(void *arg)
{
    struct live *l = arg;
    uint32_t turn;
    writes = l;
    for (;;) {
        while ((turn = load_acq(&l->turn)) == EMPTY) /* acq: sees the bytes; rel in give_turn */
            os_futex_wait(&l->turn, EMPTY, -1);
        if (turn == END)
            break;
        if (l->err == 0)
            l->err = gzip_write(&l->bytes, l->o.w, l->o.ctx);
        store_rel(&l->turn, EMPTY); /* rel: publishes err; acq in its_our_turn */
        os_futex_wake(&l->turn, 1);
    }
    int fd = l->o.fd;
    l->o.fd = -1; /* before: its number may be the host's at once, which the child of a fork must not close */
    if (fd >= 0 && close(fd) != 0 && l->err == 0)
        l->err = -errno;
    if (l->why != 0)
        tell(l);
}

static bool its_our_turn(const struct live *l) { return load_acq(&l->turn) == EMPTY; } /* acq: sees err; rel in writer_main */

static void await_turn(struct live *l)
{
    while (!its_our_turn(l))
        os_futex_wait(&l->turn, FULL, -1);
    gzip_free(&l->bytes);
}

static void give_turn(struct live *l, enum turn turn)
{
    store_rel(&l->turn, turn); /* rel: publishes bytes or why; acq in writer_main */
    os_futex_wake(&l->turn, 1);
}

bool live_is_writer(const struct live *l) { return writes == l; }

void live_state(const struct live *l, struct live_state *out)
{
    *out = (struct live_state){ l->begun_ns, l->o.max_ns, load_rlx(&l->handed), l->o.max_bytes }; /* rlx: see struct live */
}

/* ---- pieces -------------------------------------------------------------------------------------------------- */

/* What was made, and is not with the writer. False: it would be too much. */
static bool hand_over(struct live *l)
{
    struct gzip_bytes out = pprof_take(l->pprof);
    if (out.bytes == 0)
        return true;
    gzip_join(&out);
    store_rlx(&l->handed, load_rlx(&l->handed) + out.bytes); /* rlx, here and below: see struct live */
    if (l->o.max_bytes != 0 && load_rlx(&l->handed) > l->o.max_bytes) {
        gzip_free(&out);
        l->why = WEFT_PROFILE_BYTES;
        return false;
    }
    l->bytes = out;
    give_turn(l, FULL);
    return true;
}

static void encode(struct live *l, int64_t now_ns)
{
    struct loaded names;
    const struct maps *t = maps_begin(symbols_gone);
    if (t != NULL)
        loaded_init(&names, t, l->scratch);
    if (pprof_encode(l->pprof, t != NULL ? &names.symbolizer : NULL, now_ns - l->begun_ns) == 0)
        l->dirty = false;
    if (t != NULL)
        maps_end();
}

static int add(struct live *l, const uintptr_t *pc, uint32_t n, const int64_t *value, const struct pprof_label *label, uint32_t labels)
{
    int err = pprof_add(l->pprof, pc, n, value, label, labels);
    if (err == -ENOSPC) {
        struct pprof_stats st;
        pprof_stats(l->pprof, &st);
        if (st.gzip_bytes - load_rlx(&l->handed) > HELD_MAX)
            return err;
        encode(l, os_now_ns());
        err = pprof_add(l->pprof, pc, n, value, label, labels);
    }
    l->dirty |= err == 0;
    return err;
}

static void add_lost(struct live *l)
{
    const uintptr_t pc = PSEUDO_LOST;
    int64_t value[PPROF_VALUES_MAX] = { l->lost, l->lost * l->period };
    if (l->lost != 0 && add(l, &pc, 1, value, NULL, 0) == 0)
        l->lost = 0;
}

void live_add(struct live *l, const uintptr_t *pc, uint32_t n, const int64_t *value, const struct pprof_label *label, uint32_t labels)
{
    if (pc == NULL || add(l, pc, n, value, label, labels) != 0)
        l->lost += value[0];
}

int64_t live_due_ns(const struct live *l)
{
    return l->o.max_ns != 0 ? w_min(l->flush_ns, l->begun_ns + l->o.max_ns) : l->flush_ns;
}

/* The writer is asked for nothing more after an error; what it says of the last bytes shows here. */
static bool writer_failed(struct live *l)
{
    if (l->err != 0)
        l->why = WEFT_PROFILE_ERROR;
    return l->err != 0;
}

/* Without limits: what others have is reached. Once. */
static void look_over(struct live *l, int64_t now_ns)
{
    if (l->over || !live_unlimited(&l->o) || (now_ns - l->begun_ns < LIVE_NS && load_rlx(&l->handed) < LIVE_BYTES))
        return;
    l->over = true;
    PROBE(profile_over, l->o.what, load_rlx(&l->handed), now_ns - l->begun_ns);
}

bool live_look(struct live *l, int64_t now_ns)
{
    look_over(l, now_ns);
    if (its_our_turn(l)) {
        gzip_free(&l->bytes);
        if (writer_failed(l))
            return false;
    }
    if (l->o.max_ns != 0 && now_ns - l->begun_ns >= l->o.max_ns) {
        l->why = WEFT_PROFILE_TIME;
        return false;
    }
    if (now_ns < l->flush_ns)
        return true;
    l->flush_ns = w_max(l->flush_ns + l->o.flush_ns, now_ns);
    add_lost(l);
    if (!its_our_turn(l))
        return true;
    if (l->dirty || load_rlx(&l->handed) == 0)
        encode(l, now_ns);
    return hand_over(l);
}

/* ---- open, close ---------------------------------------------------------------------------------------------- */

static void contents_free(struct live *l)
{
    gzip_free(&l->bytes);
    pprof_close(l->pprof);
    l->pprof = NULL;
}

uint64_t live_bytes(const struct live *l) { return load_rlx(&l->handed); } /* rlx: see struct live */

void live_free(struct live *l) { off_free(OFF_PROF, l); }

int live_open(const struct pprof_kind *kind, const struct live_opts *o, struct live **out)
{
    struct live *l = off_zalloc(OFF_PROF, sizeof *l);
    if (l == NULL)
        return -ENOMEM;
    struct pprof_kind bounded = *kind;
    bounded.piece_bytes = PIECE_BYTES;
    l->o = *o;
    l->values = kind->values;
    l->period = kind->period;
    l->begun_ns = os_now_ns();
    l->flush_ns = l->begun_ns; /* at once: from then on it is a profile */
    l->writer = (struct helper){ .fn = writer_main, .arg = l, .flags = HELPER_HOSTS_FILES };
    l->pprof = pprof_open(&bounded, os_wall_ns());
    int err = l->pprof == NULL ? -ENOMEM : helper_start(&l->writer);
    if (err != 0) {
        contents_free(l);
        live_free(l);
        return err;
    }
    *out = l;
    return 0;
}

int live_close(struct live *l, const char *remark)
{
    await_turn(l);
    if (!writer_failed(l) && l->why != WEFT_PROFILE_BYTES) {
        add_lost(l);
        if (remark != NULL)
            pprof_comment(l->pprof, remark);
        encode(l, os_now_ns());
        if (hand_over(l))
            await_turn(l);
        writer_failed(l);
    }
    give_turn(l, END);
    helper_join(&l->writer);
    contents_free(l);
    return l->err;
}

void live_abandon(struct live *l)
{
    l->o.fd = -1;
    give_turn(l, END);
    helper_join(&l->writer);
    contents_free(l);
    live_free(l);
}

void live_after_fork(struct live *l)
{
    if (l->o.fd >= 0)
        sys_call1(SYS_close, l->o.fd);
}

/* ---- a writer for a descriptor ------------------------------------------------------------------------------------ */

int weft_fd_writer(void *ctx, const void *data, size_t n)
{
    int fd = (int)(intptr_t)ctx;
    for (const char *s = data; n > 0;) {
        long k = sys_call3(SYS_write, fd, s, n);
        if (k == -EAGAIN) {
            struct pollfd p = { fd, POLLOUT, 0 };
            k = sys_call4(SYS_ppoll, &p, 1, NULL, NULL);
            if (k > 0)
                continue;
        }
        if (k < 0 && k != -EINTR)
            return (int)k;
        if (k > 0) {
            s += k;
            n -= (size_t)k;
        }
    }
    return 0;
}
