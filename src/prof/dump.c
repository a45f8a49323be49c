/* Stacks of all fibers, as text: weft_stack, weft_stack_write, and what sched reports of a deadlock or an overflow. How they are listed and captured:
 * roster.c, [DUMP]. The symbols of each distinct stack are looked up on the helper, and its text made once; the caller writes. The last line counts
 * those that are shown, and those that there were: fewer are shown only if memory ran out. */
#include "prof/dump.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/fail.h"
#include "base/fmt.h"
#include "base/syscall.h"
#include "os/vm.h"
#include "prof/roster.h"
#include "prof/symbols.h"
#include "prof/trim.h"
#include "sched/guard.h"
#include "sched/labels.h"
#include "sched/report.h"

#define DESCRIBE_STACK_BYTES (1u << 20)
#define PLACES 4096u

struct place { struct place *next; uintptr_t pc; uint32_t n; struct symbol sym[]; };

struct dump {
    struct roster r;
    struct place *places[PLACES];
    struct symbol scratch[SYMBOLS_INLINED_MAX];
    /* writing */
    weft_writer *w;
    void *ctx;
    int werr;
    size_t len;
    char buf[16384];
};

/* ---- symbols ------------------------------------------------------------------------------------------ */

static uint32_t place_slot(uintptr_t pc) { return (uint32_t)((pc * 0x9e3779b97f4a7c15ull) >> 32) % PLACES; }

static const struct place *place_find(struct dump *d, const void *pc)
{
    const struct place *p = d->places[place_slot((uintptr_t)pc)];
    while (p != NULL && p->pc != (uintptr_t)pc)
        p = p->next;
    return p;
}

static const struct place *place_get(struct dump *d, uintptr_t pc)
{
    const struct place *known = place_find(d, (const void *)pc);
    if (known != NULL)
        return known;
    uint32_t n = symbols_at(d->r.maps, pc, d->scratch);
    struct place *p = roster_mem(&d->r, sizeof *p + n * sizeof p->sym[0]);
    if (p == NULL)
        return NULL;
    p->pc = pc;
    p->n = n;
    memcpy(p->sym, d->scratch, n * sizeof p->sym[0]);
    for (uint32_t i = 0; i < n; i++) { /* they end with the table of modules */
        struct symbol *s = &p->sym[i];
        s->func = s->func != NULL ? roster_text(&d->r, s->func, strlen(s->func)) : NULL;
        s->file = s->file != NULL ? roster_text(&d->r, s->file, strlen(s->file)) : NULL;
    }
    struct place **at = &d->places[place_slot(pc)];
    p->next = *at;
    *at = p;
    return p;
}

static size_t put_place(char *buf, size_t room, const struct place *p, const struct symbol *s)
{
    size_t len = w_fmt(buf, room, "\t%s", s->file != NULL ? s->file : "?");
    if (s->line != 0)
        len += w_fmt(buf + w_min(len, room), room - w_min(len, room), ":%u", s->line);
    if (!s->inlined && (s->file != NULL || s->func != NULL))
        len += w_fmt(buf + w_min(len, room), room - w_min(len, room), " +0x%lx", (unsigned long)s->offset);
    len += w_fmt(buf + w_min(len, room), room - w_min(len, room), "\n");
    (void)p;
    return len;
}

static size_t put_name(char *buf, size_t room, const struct place *p, const struct symbol *s)
{
    return s->func != NULL ? w_fmt(buf, room, "%s", s->func) : w_fmt(buf, room, "0x%lx", (unsigned long)p->pc - 1);
}

/* Frames of the runtime in front: what comes before the outermost of the first run of public functions. *inner is the number of functions inlined
 * there that go too. */
static uint32_t inner_frames(struct dump *d, const struct trace *t, uint32_t *inner)
{
    uint32_t frame = 0, fn = 0;
    bool in_run = false;
    *inner = 0;
    if (t->view == VIEW_RUNNING)
        return 0;
    for (uint32_t i = 0; i < t->n && i < 24; i++) {
        const struct place *p = place_get(d, t->pc[i]);
        for (uint32_t k = 0; p != NULL && k < p->n; k++) {
            bool public = trim_is_public(p->sym[k].func);
            if (in_run && !public) { /* what follows the run */
                *inner = t->view == VIEW_SELF ? k : fn;
                return t->view == VIEW_SELF ? i : frame;
            }
            if (public) {
                in_run = true;
                frame = i;
                fn = k;
            }
        }
    }
    return 0;
}

/* The length of the text, of which buf gets what there is room for. */
static size_t trace_text(struct dump *d, struct trace *t, char *buf, size_t room)
{
    uint32_t inner, from = inner_frames(d, t, &inner), to = trim_outer(t->pc, t->n);
    size_t len = 0;
#define REST buf + w_min(len, room), room - w_min(len, room)
    for (uint32_t i = from; i < to; i++) {
        const struct place *p = place_get(d, t->pc[i]);
        if (t->elided > 0 && i == UNWIND_INNER)
            len += w_fmt(REST, "...%u frames elided...\n", t->elided);
        for (uint32_t k = i == from ? inner : 0; p != NULL && k < p->n; k++) {
            len += put_name(REST, p, &p->sym[k]);
            len += w_fmt(REST, "(...)\n");
            len += put_place(REST, p, &p->sym[k]);
        }
    }
    if (t->cut)
        len += w_fmt(REST, "...additional frames elided...\n");
#undef REST
    return len;
}

static void trace_render(struct dump *d, struct trace *t)
{
    char none;
    size_t len = trace_text(d, t, &none, 0);
    char *buf = roster_mem(&d->r, len + 1);
    if (buf != NULL)
        t->len = trace_text(d, t, buf, len + 1);
    t->text = buf != NULL ? buf : "";
}

static void symbols(struct roster *r)
{
    struct dump *d = (struct dump *)r;
    for (uint32_t i = 0; i < ROSTER_TRACES; i++)
        for (struct trace *t = r->traces[i]; t != NULL; t = t->next)
            trace_render(d, t);
    for (size_t i = 0; i < d->r.n; i++)
        if (d->r.rec[i].site != NULL)
            place_get(d, (uintptr_t)d->r.rec[i].site);
}

/* ---- writing --------------------------------------------------------------------------------------------- */

static void flush(struct dump *d)
{
    if (d->werr == 0 && d->len > 0)
        d->werr = d->w(d->ctx, d->buf, d->len);
    d->len = 0;
}

static void put(struct dump *d, const char *s, size_t n)
{
    while (n > 0 && d->werr == 0) {
        size_t k = w_min(n, sizeof d->buf - d->len);
        memcpy(d->buf + d->len, s, k);
        d->len += k;
        s += k;
        n -= k;
        if (d->len == sizeof d->buf)
            flush(d);
    }
}

static void putf(struct dump *d, const char *fmt, ...) w_printf(2, 3);
static void putf(struct dump *d, const char *fmt, ...)
{
    char line[256];
    va_list ap;
    va_start(ap, fmt);
    size_t n = w_vfmt(line, sizeof line, fmt, ap);
    va_end(ap);
    put(d, line, w_min(n, sizeof line - 1));
}

/* A name must not look like something else. */
static void put_quoted(struct dump *d, const char *name)
{
    put(d, "\"", 1);
    for (; *name != 0; name++) {
        char c = *name;
        put(d, (unsigned char)c < ' ' || c == '"' || c == 0x7f ? "?" : &c, 1);
    }
    put(d, "\"", 1);
}

/* As Go's: in quotation marks where they are needed. */
static void put_plain(struct dump *d, const char *s)
{
    bool plain = *s != 0;
    for (const char *c = s; *c != 0 && plain; c++)
        plain = (*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || strchr("-_./", *c) != NULL || (*c & 0x80) != 0;
    if (plain)
        put(d, s, strlen(s));
    else
        put_quoted(d, s);
}

static void put_labels(struct dump *d, const struct labels *l)
{
    for (uint32_t i = 0; l != NULL && i < l->n; i++) {
        put(d, i == 0 ? " {" : ", ", 2);
        put_plain(d, l->at[i].key);
        put(d, ": ", 2);
        put_plain(d, l->at[i].value);
    }
    if (l != NULL)
        put(d, "}", 1);
}

static void write_site(struct dump *d, const struct rec *r)
{
    const struct place *p = r->site != NULL ? place_find(d, r->site) : NULL;
    if (p == NULL)
        return;
    char buf[512];
    const struct symbol *s = &p->sym[0];
    put(d, "created by ", 11);
    put(d, buf, w_min(put_name(buf, sizeof buf, p, s), sizeof buf - 1));
    if (r->parent != 0)
        putf(d, " in fiber %lu", (unsigned long)r->parent);
    put(d, "\n", 1);
    size_t n = put_place(buf, sizeof buf, p, s);
    if (n < sizeof buf)
        put(d, buf, n);
}

static void write_rec(struct dump *d, const struct rec *r)
{
    putf(d, "%s %lu", r->kind == KIND_THREAD ? "thread" : "fiber", (unsigned long)r->id);
    if (r->name != NULL && r->name[0] != 0) {
        put(d, " ", 1);
        put_quoted(d, r->name);
    }
    putf(d, " [%s%s", r->status, r->leaked ? " (leaked)" : "");
    if (r->minutes >= 1)
        putf(d, ", %ld minutes", (long)r->minutes);
    putf(d, "%s]", r->locked ? ", locked to thread" : "");
    put_labels(d, r->labels);
    put(d, ":\n", 2);
    if (r->trace != NULL)
        put(d, r->trace->text, r->trace->len);
    else if (r->kind != KIND_TASK)
        putf(d, "\t%s; stack unavailable\n", r->no_answer ? "its thread did not answer" : "running");
    write_site(d, r);
    put(d, "\n", 1);
}

static int dump_write(struct dump *d, uint64_t total)
{
    uint64_t shown = 0;
    for (size_t i = 0; i < d->r.n; i++) {
        write_rec(d, &d->r.rec[i]);
        shown += d->r.rec[i].kind != KIND_THREAD;
    }
    if (d->r.all)
        total = shown + d->r.lost;
    putf(d, "%lu of %lu fibers\n", (unsigned long)shown, (unsigned long)total);
    flush(d);
    return d->werr;
}

/* ---- the public side ------------------------------------------------------------------------------------------ */

static struct dump *dump_begin(weft_writer *w, void *ctx, bool all, bool self, int *err)
{
    struct dump *d = roster_begin(sizeof *d, all, self, err);
    if (d != NULL) {
        d->r.then = symbols;
        d->w = w;
        d->ctx = ctx;
    }
    return d;
}

static w_noinline int dump_stacks(weft_writer *w, void *ctx, bool all)
{
    int saved = errno, err;
    struct dump *d = dump_begin(w, ctx, all, true, &err);
    if (d == NULL)
        return err;
    roster_take(&d->r);
    /* Whoever asks has a stack at least: none, then there was no memory for its record. */
    err = d->r.n != 0 ? dump_write(d, d->r.total) : d->r.err != 0 ? d->r.err : -ENOMEM;
    roster_drop(&d->r);
    errno = saved;
    return err;
}

int weft_stack_write(weft_writer *w, void *ctx, bool all)
{
    return dump_stacks(w, ctx, all);
}

struct into { char *buf; size_t room, len; };

static int into_buffer(void *ctx, const void *data, size_t n)
{
    struct into *to = ctx;
    if (to->len < to->room)
        memcpy(to->buf + to->len, data, w_min(n, to->room - to->len));
    to->len += n;
    return 0;
}

/* Instead of the last lines, as many as it takes. */
static void say_cut(struct into *to)
{
    char line[128];
    size_t n = w_fmt(line, sizeof line, "... cut here: the whole text has %zu bytes\n", to->len), at = to->room > n ? to->room - n : 0;
    while (at > 0 && to->buf[at - 1] != '\n')
        at--;
    if (n <= to->room)
        memcpy(to->buf + at, line, n + 1);
}

static w_noinline void tell(const struct into *to, bool all)
{
    struct m *m = rt_enter_try();
    if (m == NULL)
        return;
    PROBE(stack_dumped, to->len, to->room, all);
    rt_leave(m);
}

ssize_t weft_stack(char *buf, size_t len, bool all)
{
    struct into to = { buf, len > 0 ? len - 1 : 0, 0 };
    int err = dump_stacks(into_buffer, &to, all);
    if (len > 0)
        buf[w_min(to.len, to.room)] = 0;
    if (to.len > to.room && guarded(WEFT_GUARD_STACKS))
        say_cut(&to);
    if (err == 0 && PROBE_WANTED(stack_dumped))
        tell(&to, all);
    return err != 0 ? err : (ssize_t)to.len;
}

w_noinline int dump_some(weft_writer *w, void *ctx, bool (*wanted)(uint64_t id, void *arg), void *arg)
{
    int saved = errno, err;
    struct dump *d = dump_begin(w, ctx, true, false, &err);
    if (d == NULL)
        return err;
    d->r.wanted = wanted;
    d->r.wanted_arg = arg;
    roster_take(&d->r);
    err = d->r.n == 0 && d->r.err != 0 ? d->r.err : dump_write(d, 0);
    roster_drop(&d->r);
    errno = saved;
    return err;
}

/* ---- for sched ------------------------------------------------------------------------------------------------- */

struct lines { void (*line)(const char *); size_t len; char text[1024]; };

static int into_lines(void *ctx, const void *data, size_t n)
{
    struct lines *l = ctx;
    for (const char *s = data; n > 0; s++, n--) {
        if (*s != '\n') {
            if (l->len < sizeof l->text - 1)
                l->text[l->len++] = *s;
            continue;
        }
        l->text[l->len] = 0;
        l->line(l->text);
        l->len = 0;
    }
    return 0;
}

void dump_all_lines(void (*line)(const char *text))
{
    struct lines l = { .line = line };
    struct dump *d = roster_new(sizeof *d);
    if (d == NULL)
        return;
    d->r.all = true;
    d->r.then = symbols;
    d->w = into_lines;
    d->ctx = &l;
    if (roster_collect(&d->r) == 0)
        dump_write(d, 0);
    roster_free(&d->r);
}

struct describe { const void *pc; int fd; };

/* In the child. Whatever it needs may be locked for ever; then it is killed. (A sanitizer would say, on stderr, that it does not know this stack.) */
static w_no_sanitize int describe_child(void *arg)
{
    struct describe *a = arg;
    struct symbol sym[SYMBOLS_INLINED_MAX];
    char text[512];
    signal(SIGSEGV, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
    maps_forget_lock();
    const struct maps *t = maps_begin(symbols_gone);
    if (t == NULL || symbols_at(t, (uintptr_t)a->pc, sym) == 0 || sym[0].file == NULL)
        _exit(1);
    size_t n = sym[0].func != NULL && sym[0].line != 0
                   ? w_fmt(text, sizeof text, "%s at %s:%u", sym[0].func, sym[0].file, sym[0].line)
                   : w_fmt(text, sizeof text, "%s in %s +0x%lx", sym[0].func != NULL ? sym[0].func : "code", sym[0].file,
                           (unsigned long)sym[0].offset);
    w_write_all(a->fd, text, w_min(n, sizeof text - 1));
    _exit(0);
}

#define PATIENCE_MS 2000
#define PATIENCE_MOST 15 /* times that; then it goes round in circles */

static int64_t cpu_time_of(pid_t pid)
{
    clockid_t clock;
    struct timespec ts;
    return clock_getcpuclockid(pid, &clock) == 0 && clock_gettime(clock, &ts) == 0 ? (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec : 0;
}

/* False: nothing will come. On a slow machine, or an emulator, it takes long; but who has had no time of a processor waits for a lock. */
static bool describe_wait(int fd, pid_t pid)
{
    struct pollfd p = { fd, POLLIN, 0 };
    int64_t used_ns = 0, before_ns;
    int came;
    for (int i = 0; (came = poll(&p, 1, PATIENCE_MS)) == 0 && i < PATIENCE_MOST; i++) {
        before_ns = used_ns;
        used_ns = cpu_time_of(pid);
        if (used_ns == before_ns)
            return false;
    }
    return came > 0;
}

bool dump_describe_pc(const void *pc, char *buf, size_t n)
{
    int fd[2], saved = errno;
    size_t len = 0;
    char *stack = os_vm_map_stack(DESCRIBE_STACK_BYTES);
    if (stack == NULL)
        return false;
    if (!fail_now(FAIL_FD) && pipe2(fd, O_CLOEXEC) == 0) {
        struct describe a = { pc, fd[1] };
        /* No signal when it ends: the host did not ask for a child. */
        pid_t pid = clone(describe_child, stack + DESCRIBE_STACK_BYTES, 0, &a);
        if (pid < 0 && errno == EINVAL) /* an emulator */
            pid = clone(describe_child, stack + DESCRIBE_STACK_BYTES, SIGCHLD, &a);
        close(fd[1]);
        while (pid > 0 && len + 1 < n && describe_wait(fd[0], pid)) {
            ssize_t got = read(fd[0], buf + len, n - 1 - len);
            if (got <= 0)
                break;
            len += (size_t)got;
        }
        close(fd[0]);
        if (pid > 0) {
            kill(pid, SIGKILL);
            waitpid(pid, NULL, __WALL);
        }
    }
    munmap(stack, DESCRIBE_STACK_BYTES);
    if (n > 0)
        buf[w_min(len, n - 1)] = 0;
    errno = saved;
    return len > 0;
}

static void __attribute__((constructor)) dump_init(void)
{
    sched_reports.dump_all = dump_all_lines;
    sched_reports.describe_pc = dump_describe_pc;
}
