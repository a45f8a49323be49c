/* Descriptors as objects: who may use one, when it is closed, when its waiters give up.
 *
 * [FD] word holds the number of references and five flags. A call takes its turn in one direction, BUSY, and a reference, by one compare-and-swap,
 * and gives both back by another. If somebody has the turn, the caller queues behind him under the lock and sets QUEUED; who ends his turn with
 * QUEUED set passes it to the first in the queue: BUSY stays set, so nobody can come between. CLOSED is set once. It keeps new callers out; the
 * closer wakes who waits for his turn and who waits for the descriptor, and all of them leave with -ECANCELED. The reference that goes last, with
 * CLOSED set, closes the descriptor: so its number is not used anew while another thread is between reading it and its system call.
 *
 * A weft_fd * is not the address of the struct fd but its tag: the address with a generation, which the word holds too, so that taking a turn
 * compares both at once. What is freed goes to a pool, not to the allocator (see [POLL]), with CLOSED set; when it is used anew the generation goes
 * up. So a call with a weft_fd that was closed before, as it cannot be avoided if one fiber closes what another reads, gets -ECANCELED and never
 * meets another descriptor; unless the same memory was used anew a multiple of four million times in between.
 *
 * Deadlines. Servers set a new deadline for each request, so that must be cheap, and it is a store, unless somebody waits. The timer is only looked
 * after by who is about to wait: if it runs and would end no later than the deadline, it is left alone. Its callback compares the deadline with the
 * clock: past: the waiter is unblocked; ahead and somebody waits: the timer is started again; nobody waits: it stays off. Everything about it happens
 * under the lock, which the callback takes; therefore changing it uses timer_cancel: if that fails, the callback is waiting for our lock and will do
 * what is to be done, by what it finds then. Only the last reference uses timer_stop, when nothing holds the lock. */
#include "sched/fd.h"
#include "base/offheap.h"
#include "base/syscall.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <unistd.h>

#ifdef W_TSAN
/* ThreadSanitizer keeps book of descriptors by their number. What it does not see closed is to it the same one when the number is used anew, and that
 * two threads open it a race. Its close is libc's; errno is not to be looked for across a park, so never inline. */
static w_noinline void close_number(int fd)
{
    int err = errno;
    close(fd);
    errno = err;
}
#else
static inline void close_number(int fd) { sys_call1(SYS_close, fd); }
#endif

/* ---- the pool --------------------------------------------------------------------------------------------- */

static struct {
    struct lock lock;
    struct fd *free;
    struct fd *made; /* all of them */
    uint32_t used;   /* read relaxed by fd_count */
} pool;

static void deadline_passed(void *arg, int64_t now_ns);

static void fd_init(struct fd *f)
{
    f->fd = -1;
    f->flags = 0;
    for (int d = 0; d < 2; d++) {
        struct fd_side *s = &f->side[d];
        *s = (struct fd_side){ .fd = f, .timer = { .fn = deadline_passed, .arg = s } };
    }
    uint64_t generation = (load_rlx(&f->word) >> 32) + 1; /* rlx: nobody else writes, and whoever gets to know f is told by the caller */
    store_rlx(&f->word, generation % TAG_GENERATIONS << 32);
}

/* rlx: under the lock. */
static void count_used(int by) { __atomic_store_n(&pool.used, pool.used + (uint32_t)by, __ATOMIC_RELAXED); }

uint32_t fd_count(void) { return __atomic_load_n(&pool.used, __ATOMIC_RELAXED); } /* rlx: a figure */

struct fd *fd_new(void)
{
    lock_take(&pool.lock);
    struct fd *f = pool.free;
    if (f != NULL) {
        pool.free = f->next_free;
        count_used(1);
    }
    lock_drop(&pool.lock);
    if (f == NULL) {
        f = off_alloc_aligned(OFF_SCHED, sizeof *f, W_CACHELINE);
        if (f == NULL)
            return NULL;
        lock_init(&f->lock, RANK_FD);
        lock_take(&pool.lock);
        f->next_made = pool.made;
        pool.made = f;
        count_used(1);
        lock_drop(&pool.lock);
    }
    fd_init(f);
    return f;
}

static void fd_put(struct fd *f)
{
    lock_take(&pool.lock);
    f->next_free = pool.free;
    pool.free = f;
    count_used(-1);
    lock_drop(&pool.lock);
}

void fd_pool_init(void)
{
    lock_init(&pool.lock, RANK_LEAF);
    pool.free = pool.made = NULL;
    pool.used = 0;
}

/* The caller of fork is in user code, so it has neither a turn nor a reference. What was closed, and is now nobody's, is closed here. */
static void fd_after_fork(struct fd *f)
{
    uint64_t w = load_rlx(&f->word); /* rlx: nobody else runs; and below */
    bool held = (w & FD_REFS) != 0;
    store_rlx(&f->word, w & (FD_GENERATION | FD_CLOSED));
    lock_init(&f->lock, RANK_FD);
    for (int d = 0; d < 2; d++) {
        f->side[d].first = f->side[d].last = NULL;
        f->side[d].drained = false;
        store_rlx(&f->poll.slot[d], SLOT_NIL);
    }
    if (!(w & FD_CLOSED)) {
        uint64_t tag = load_rlx(&f->poll.tag);
        if (f->fd >= 0 && tag != 0 && netpoll_add(&f->poll, f->fd, f->poll.write_watched, tag) != 0)
            store_rlx(&f->poll.tag, 0); /* whoever waits gets no event: the host has closed the number behind our back */
    } else if (!held) {
        f->fd = -1; /* if there was one another thread was closing it: the number may be somebody else's by now */
    } else {
        if (f->fd >= 0)
            close_number(f->fd);
        f->fd = -1;
        store_rlx(&f->poll.tag, 0);
        for (int d = 0; d < 2; d++)
            timer_cancel(&f->side[d].timer);
        fd_put(f);
    }
}

void fd_pool_after_fork(void)
{
    for (struct fd *f = pool.made; f != NULL; f = f->next_made)
        fd_after_fork(f);
}

void fd_pool_end(void)
{
    for (struct fd *f = pool.made, *next; f != NULL; f = next) {
        next = f->next_made;
        if (f->fd >= 0)
            close_number(f->fd);
        off_free(OFF_SCHED, f);
    }
    pool.free = pool.made = NULL;
}

/* ---- references and turns ----------------------------------------------------------------------------------- */

/* Nobody else knows f. The descriptor is closed outside of the runtime, for close(2) may take its time (SO_LINGER); a fiber that is ended there, as
 * the runtime ends, has left its number to fd_pool_end. */
static void fd_destroy(struct fd *f)
{
    for (int d = 0; d < 2; d++)
        timer_stop(&f->side[d].timer);
    if (f->fd >= 0) {
        if (!(f->flags & FD_IS_FILE))
            netpoll_remove(&f->poll, f->fd);
        rt_leave(m_self());
        close_number(f->fd);
        f->fd = -1;
        rt_enter();
    }
    fd_put(f);
}

void fd_discard(struct fd *f)
{
    or_rlx(&f->word, FD_CLOSED); /* rlx: nobody else knows f */
    fd_destroy(f);
}

/* True of the word w of what h names: it is open, and still the same. */
static inline bool is_open(uint64_t w, const weft_fd *h)
{
    return ((w ^ fd_generation(h)) & (FD_GENERATION | FD_CLOSED)) == 0;
}

int fd_hold(const weft_fd *h)
{
    struct fd *f = fd_at(h);
    for (;;) {
        uint64_t w = load_rlx(&f->word); /* rlx: checked by the exchange */
        if (!is_open(w, h))
            return -ECANCELED;
        if (cas_rlx(&f->word, w, w + FD_REF)) /* rlx: a reference guards no data of its own */
            return 0;
    }
}

void fd_drop(struct fd *f)
{
    uint64_t w = sub_acq_rel(&f->word, FD_REF) - FD_REF; /* rel: our use of f; acq: that of the others, if we are the last */
    if ((w & FD_REFS) == 0 && (w & FD_CLOSED))
        fd_destroy(f);
}

int fd_begin_slow(weft_fd *h, enum fd_dir dir)
{
    struct fd *f = fd_at(h);
    struct fd_side *s = &f->side[dir];
    struct fd_waiter me = { .fiber = m_self()->cur };
    lock_take(&f->lock);
    for (;;) {
        uint64_t w = load_rlx(&f->word); /* rlx: checked by the exchange */
        if (!is_open(w, h)) {
            lock_drop(&f->lock);
            return -ECANCELED;
        }
        if (!(w & FD_BUSY(dir))) {
            if (cas_acq(&f->word, w, (w | FD_BUSY(dir)) + FD_REF)) { /* acq: as in fd_begin */
                lock_drop(&f->lock);
                return 0;
            }
        } else if (cas_rlx(&f->word, w, (w | FD_QUEUED(dir)) + FD_REF)) /* rlx: the queue is guarded by the lock */
            break;
    }
    if (s->first == NULL)
        s->first = &me;
    else
        s->last->next = &me;
    s->last = &me;
    sched_park(park_unlock, &f->lock, WAIT_IO);
    if (me.result < 0)
        fd_drop(f);
    return me.result;
}

void fd_end_slow(struct fd *f, enum fd_dir dir)
{
    struct fd_side *s = &f->side[dir];
    lock_take(&f->lock);
    struct fd_waiter *next = s->first;
    if (next != NULL) {
        s->first = next->next;
        if (s->first == NULL)
            and_rlx(&f->word, ~FD_QUEUED(dir)); /* rlx: changed under the lock only */
    } else {
        /* rel: as in fd_end_try. Closing has emptied the queue, or there never was one: while we hold the lock nobody can join it. */
        and_acq_rel(&f->word, ~FD_BUSY(dir));
    }
    lock_drop(&f->lock);
    if (next != NULL)
        sched_ready(next->fiber); /* with result 0; the lock has published what we wrote */
    fd_drop(f);
}

/* ---- deadlines and waiting ------------------------------------------------------------------------------------ */

/* Under the lock: the timer runs out at deadline_ns at the latest. */
static void arm_locked(struct fd_side *s, int64_t deadline_ns)
{
    if (s->armed) {
        if (s->armed_ns <= deadline_ns || !timer_cancel(&s->timer))
            return;
    }
    s->armed = true;
    s->armed_ns = deadline_ns;
    timer_start(&s->timer, deadline_ns);
}

static void deadline_passed(void *arg, int64_t now_ns)
{
    struct fd_side *s = arg;
    struct fd *f = s->fd;
    enum fd_dir dir = s == &f->side[FD_READ] ? FD_READ : FD_WRITE;
    struct fiber *waiter = NULL;
    lock_take(&f->lock);
    int64_t deadline_ns = load_rlx(&s->deadline_ns); /* rlx: under the lock */
    s->armed = deadline_ns != 0 && deadline_ns > now_ns && netpoll_waited_for(&f->poll, dir);
    if (s->armed) {
        s->armed_ns = deadline_ns;
        timer_again(&s->timer, deadline_ns);
    } else if (deadline_ns != 0 && deadline_ns <= now_ns)
        waiter = netpoll_unblock(&f->poll, dir);
    lock_drop(&f->lock);
    if (waiter != NULL)
        sched_ready_tail(waiter);
}

bool fd_late(struct fd *f, enum fd_dir dir)
{
    int64_t deadline_ns = load_rlx(&f->side[dir].deadline_ns); /* rlx: a value of its own */
    return unlikely(deadline_ns != 0) && sched_now_ns() >= deadline_ns;
}

int fd_wait(struct fd *f, enum fd_dir dir)
{
    struct fd_side *s = &f->side[dir];
    s->drained = false;
    if (dir == FD_WRITE) {
        int r = netpoll_watch_write(&f->poll, f->fd);
        if (r < 0)
            return r;
    }
    for (;;) {
        lock_take(&f->lock);
        /* rlx: who closes takes the lock next, and then unblocks */
        int r = load_rlx(&f->word) & FD_CLOSED ? -ECANCELED : fd_late(f, dir) ? -ETIMEDOUT : 0;
        if (r < 0 || !netpoll_prepare(&f->poll, dir)) {
            lock_drop(&f->lock);
            return r;
        }
        int64_t deadline_ns = load_rlx(&s->deadline_ns); /* rlx: under the lock */
        if (deadline_ns != 0)
            arm_locked(s, deadline_ns);
        lock_drop(&f->lock);
        if (netpoll_park(&f->poll, dir))
            return 0;
    }
}

/* Under the lock. Who waits is unblocked if it is too late already. */
static struct fiber *set_deadline_locked(struct fd *f, enum fd_dir dir, int64_t deadline_ns)
{
    struct fd_side *s = &f->side[dir];
    store_rlx(&s->deadline_ns, deadline_ns); /* rlx: a value of its own; waiters look under the lock */
    if (deadline_ns == 0 || !netpoll_waited_for(&f->poll, dir))
        return NULL;
    if (sched_now_ns() >= deadline_ns)
        return netpoll_unblock(&f->poll, dir);
    arm_locked(s, deadline_ns);
    return NULL;
}

int weft_fd_set_deadline(weft_fd *h, int64_t read_deadline, int64_t write_deadline)
{
    struct fd *f = fd_at(h);
    rt_enter();
    int r = fd_hold(h);
    if (r == 0) {
        lock_take(&f->lock);
        struct fiber *reader = set_deadline_locked(f, FD_READ, read_deadline);
        struct fiber *writer = set_deadline_locked(f, FD_WRITE, write_deadline);
        lock_drop(&f->lock);
        if (reader != NULL)
            sched_ready(reader);
        if (writer != NULL)
            sched_ready(writer);
        fd_drop(f);
    }
    rt_leave(m_self());
    return r;
}

/* ---- opening and closing ---------------------------------------------------------------------------------------- */

/* What fd is, as far as we care. */
static uint8_t flags_of(int fd)
{
    int protocol = 0;
    socklen_t len = sizeof protocol;
    long r = sys_call6(SYS_getsockopt, fd, SOL_SOCKET, SO_PROTOCOL, (long)&protocol, (long)&len, 0);
    if (r == -ENOTSOCK)
        return 0;
    return FD_IS_SOCKET | (r == 0 && protocol == IPPROTO_TCP ? FD_IS_TCP : 0);
}

int weft_fd_open(int fd, weft_fd **out)
{
    struct m *m = rt_enter_try();
    if (m == NULL)
        return -ESRCH;
    long had = sys_call2(SYS_fcntl, fd, F_GETFL);
    if (had < 0) {
        rt_leave(m);
        return (int)had;
    }
    struct fd *f = fd_new();
    int r = f == NULL ? -ENOMEM : 0;
    if (r == 0 && !(had & O_NONBLOCK))
        r = (int)sys_call3(SYS_fcntl, fd, F_SETFL, had | O_NONBLOCK);
    if (r == 0) {
        f->flags = flags_of(fd);
        r = netpoll_add(&f->poll, fd, false, fd_tag(f));
        if (r < 0 && !(had & O_NONBLOCK))
            sys_call3(SYS_fcntl, fd, F_SETFL, had);
        if (r == -EPERM) {
            f->flags |= FD_IS_FILE;
            r = 0;
        }
    }
    if (r == 0) {
        f->fd = fd;
        *out = fd_handle(f);
    } else if (f != NULL)
        fd_discard(f);
    rt_leave(m_self());
    return r;
}

static void cancel_all(struct fd_waiter *w)
{
    for (struct fd_waiter *next; w != NULL; w = next) {
        next = w->next;
        w->result = -ECANCELED;
        sched_ready_tail(w->fiber); /* w is gone */
    }
}

int weft_fd_close(weft_fd *h)
{
    struct fd *f = fd_at(h);
    rt_enter();
    for (;;) {
        uint64_t w = load_rlx(&f->word); /* rlx: checked by the exchange */
        if (!is_open(w, h)) {
            rt_leave(m_self());
            return -ECANCELED;
        }
        if (cas_rlx(&f->word, w, (w | FD_CLOSED) + FD_REF)) /* rlx: the lock orders it for waiters, the last reference for its owner */
            break;
    }
    lock_take(&f->lock);
    struct fd_waiter *turns[2];
    struct fiber *waiting[2];
    for (int d = 0; d < 2; d++) {
        turns[d] = f->side[d].first;
        f->side[d].first = NULL;
        waiting[d] = netpoll_unblock(&f->poll, d);
    }
    and_rlx(&f->word, ~(FD_QUEUED(FD_READ) | FD_QUEUED(FD_WRITE))); /* rlx: changed under the lock only */
    lock_drop(&f->lock);
    for (int d = 0; d < 2; d++) {
        if (waiting[d] != NULL)
            sched_ready_tail(waiting[d]);
        cancel_all(turns[d]);
    }
    fd_drop(f);
    rt_leave(m_self());
    return 0;
}

int weft_fd_shutdown(weft_fd *h, int how)
{
    struct fd *f = fd_at(h);
    rt_enter();
    int r = fd_hold(h);
    if (r == 0) {
        r = (int)sys_call2(SYS_shutdown, f->fd, how); /* who waits is woken by the event that it causes */
        fd_drop(f);
    }
    rt_leave(m_self());
    return r;
}

int weft_fd_number(const weft_fd *h)
{
    return is_open(load_rlx(&fd_at(h)->word), h) ? fd_at(h)->fd : -1; /* rlx: a value of its own */
}
