/* Loaded modules.
 *
 * The loader tells what there is (dl_iterate_phdr) and counts its changes, so asking whether anything changed costs one call. The table
 * is one for all, under a mutex of the host's kind: its users are user code that may be stopped at any time, which a
 * lock of the runtime must never be. A fork waits for it, so a child finds it whole. */
#include "os/maps.h"
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdlib.h> /* qsort */
#include <string.h>
#include <unistd.h>
#include "base/fail.h"
#include "base/offheap.h"

static struct {
    pthread_mutex_t lock;
    struct maps table;
    unsigned long long adds, subs;
} g = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void fork_prepare(void) { pthread_mutex_lock(&g.lock); }
static void fork_done(void) { pthread_mutex_unlock(&g.lock); }

/* Before anybody has the lock, or a fork that has begun would not wait for him; and after that of sched/fork.c (103), which runs after it then: who has
 * the lock may need answers of threads, so the world is not stopped yet. */
__attribute__((constructor(104))) static void fork_register(void) { pthread_atfork(fork_prepare, fork_done, fork_done); }

/* ---- reading the loader's list --------------------------------------------------------------------- */

struct reading { struct maps_module *mod; uint32_t n, room; unsigned long long adds, subs; bool failed; };

static void read_notes(struct maps_module *m, uintptr_t at, size_t bytes, size_t align)
{
    if (align < 4)
        align = 4;
    while (bytes >= sizeof(ElfW(Nhdr))) {
        const ElfW(Nhdr) *nh = (const void *)at;
        size_t name = sizeof *nh, desc = name + w_align_up(nh->n_namesz, align);
        size_t next = desc + w_align_up(nh->n_descsz, align);
        if (next > bytes)
            return;
        if (nh->n_type == NT_GNU_BUILD_ID && nh->n_namesz == 4 && memcmp((const char *)at + name, "GNU", 4) == 0 &&
            nh->n_descsz <= MAPS_BUILD_ID_MAX) {
            memcpy(m->build_id, (const char *)at + desc, nh->n_descsz);
            m->build_id_bytes = nh->n_descsz;
            return;
        }
        at += next;
        bytes -= next;
    }
}

static void read_segments(struct maps_module *m, const struct dl_phdr_info *info)
{
    m->lo = UINTPTR_MAX;
    m->bias = info->dlpi_addr;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
        uintptr_t at = info->dlpi_addr + ph->p_vaddr;
        if (ph->p_type == PT_LOAD) {
            m->lo = w_min(m->lo, at);
            m->hi = w_max(m->hi, at + ph->p_memsz);
            if ((ph->p_flags & PF_R) != 0 && m->nseg < MAPS_SEGMENTS) {
                m->seg[m->nseg].lo = at;
                m->seg[m->nseg].offset = ph->p_offset;
                m->seg[m->nseg].code = (ph->p_flags & PF_X) != 0;
                m->seg[m->nseg++].hi = at + ph->p_memsz;
            }
        } else if (ph->p_type == PT_GNU_EH_FRAME) {
            m->eh_hdr = at;
            m->eh_hdr_bytes = ph->p_memsz;
        } else if (ph->p_type == PT_NOTE && m->build_id_bytes == 0) {
            read_notes(m, at, ph->p_memsz, ph->p_align);
        }
    }
}

static char *copy_path(const char *path)
{
    size_t n = strlen(path) + 1;
    char *copy = off_alloc(OFF_PROF, n);
    return copy != NULL ? memcpy(copy, path, n) : NULL;
}

/* As the kernel tells it, which says of what is no longer there " (deleted)"; no name ends so. */
static char *copy_kernels_path(char *path)
{
    static const char deleted[] = " (deleted)";
    size_t n = strlen(path), less = sizeof deleted - 1;
    if (n > less && strcmp(path + n - less, deleted) == 0)
        path[n - less] = 0;
    return copy_path(path);
}

static char *program_path(void)
{
    char buf[4096];
    ssize_t n = readlink("/proc/self/exe", buf, sizeof buf - 1);
    if (n <= 0)
        return copy_path("/proc/self/exe");
    buf[n] = 0;
    return copy_kernels_path(buf);
}

/* The loader knows a module by the name that dlopen was given. If that led from a directory of then to it, only the kernel can tell where it lies. */
static bool is_relative(const char *path) { return path[0] != '/' && strchr(path, '/') != NULL; }

/* lo-hi permissions offset device inode path; only the path has a slash. */
static void line_of_maps(struct reading *r, char *line)
{
    char *end, *path = strchr(line, '/');
    uintptr_t lo = strtoul(line, &end, 16), hi = *end == '-' ? strtoul(end + 1, NULL, 16) : 0;
    for (struct maps_module *m = r->mod; path != NULL && m < r->mod + r->n; m++) {
        char *copy = m->lo >= lo && m->lo < hi && is_relative(m->path) ? copy_kernels_path(path) : NULL;
        if (copy != NULL) {
            off_free(OFF_PROF, (char *)(uintptr_t)m->path);
            m->path = m->open_path = copy;
        }
    }
}

/* Without stdio, which would ask the host's malloc. */
static void make_absolute(struct reading *r)
{
    char buf[2 * 4096];
    size_t have = 0;
    bool some = false;
    for (uint32_t i = 0; i < r->n; i++)
        some |= is_relative(r->mod[i].path);
    int fd = some && !fail_now(FAIL_FD) ? open("/proc/self/maps", O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    for (ssize_t got; have < sizeof buf && (got = read(fd, buf + have, sizeof buf - have)) > 0;) {
        char *line = buf, *end;
        have += (size_t)got;
        for (; (end = memchr(line, '\n', have - (size_t)(line - buf))) != NULL; line = end + 1) {
            *end = 0;
            line_of_maps(r, line);
        }
        have -= (size_t)(line - buf);
        memmove(buf, line, have);
    }
    close(fd);
}

static int read_module(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct reading *r = arg;
    (void)size;
    if (r->n == r->room) {
        uint32_t room = r->room == 0 ? 32 : r->room * 2;
        struct maps_module *more = off_realloc(OFF_PROF, r->mod, room * sizeof *more);
        if (more == NULL) {
            r->failed = true;
            return 1;
        }
        r->mod = more;
        r->room = room;
    }
    struct maps_module *m = &r->mod[r->n];
    *m = (struct maps_module){ 0 };
    read_segments(m, info);
    if (m->lo >= m->hi)
        return 0;
    bool program = info->dlpi_name == NULL || info->dlpi_name[0] == 0;
    m->path = program ? program_path() : copy_path(info->dlpi_name);
    m->open_path = program ? "/proc/self/exe" : m->path;
    if (m->path == NULL) {
        r->failed = true;
        return 1;
    }
    r->n++;
    r->adds = info->dlpi_adds;
    r->subs = info->dlpi_subs;
    return 0;
}

static int read_counters(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct reading *r = arg;
    (void)size;
    r->adds = info->dlpi_adds;
    r->subs = info->dlpi_subs;
    return 1;
}

/* ---- the table ----------------------------------------------------------------------------------------- */

static int by_address(const void *a, const void *b)
{
    const struct maps_module *x = a, *y = b;
    return x->lo < y->lo ? -1 : x->lo > y->lo;
}

static bool same_module(const struct maps_module *a, const struct maps_module *b)
{
    return a->lo == b->lo && a->hi == b->hi && a->build_id_bytes == b->build_id_bytes && strcmp(a->path, b->path) == 0 &&
           memcmp(a->build_id, b->build_id, a->build_id_bytes) == 0;
}

static void modules_free(struct maps_module *mod, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        off_free(OFF_PROF, (char *)mod[i].path);
    off_free(OFF_PROF, mod);
}

static void table_replace(struct reading *r, void (*gone)(struct maps_module *))
{
    qsort(r->mod, r->n, sizeof *r->mod, by_address);
    struct maps now = { r->mod, r->n, g.table.generation + 1 };
    for (uint32_t i = 0; i < g.table.n; i++) {
        struct maps_module *old = &g.table.mod[i], *new = maps_find(&now, old->lo);
        if (new != NULL && same_module(old, new))
            new->user = old->user;
        else
            gone(old);
    }
    modules_free(g.table.mod, g.table.n);
    g.table = now;
    g.adds = r->adds;
    g.subs = r->subs;
}

const struct maps *maps_begin(void (*gone)(struct maps_module *m))
{
    pthread_mutex_lock(&g.lock);
    struct reading r = { 0 };
    dl_iterate_phdr(read_counters, &r);
    if (g.table.n != 0 && r.adds == g.adds && r.subs == g.subs)
        return &g.table;
    dl_iterate_phdr(read_module, &r);
    if (r.failed || r.n == 0) {
        modules_free(r.mod, r.n);
        pthread_mutex_unlock(&g.lock);
        return NULL;
    }
    make_absolute(&r); /* no longer under the loader's lock, for it reads a file */
    table_replace(&r, gone);
    return &g.table;
}

void maps_end(void)
{
    pthread_mutex_unlock(&g.lock);
}

struct maps_module *maps_find(const struct maps *t, uintptr_t addr)
{
    uint32_t lo = 0, hi = t->n;
    while (lo < hi) { /* the last module that begins at or below addr */
        uint32_t mid = lo + (hi - lo) / 2;
        if (t->mod[mid].lo <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo > 0 && addr < t->mod[lo - 1].hi ? &t->mod[lo - 1] : NULL;
}

bool maps_readable(const struct maps_module *m, uintptr_t addr, size_t bytes)
{
    for (unsigned i = 0; i < m->nseg; i++)
        if (addr >= m->seg[i].lo && addr < m->seg[i].hi)
            return m->seg[i].hi - addr >= bytes;
    return false;
}

struct hold { void (*fn)(void *, bool); void *arg; };

static int hold_call(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct hold *h = arg;
    (void)size;
    h->fn(h->arg, info->dlpi_subs == g.subs);
    return 1;
}

void maps_hold(void (*fn)(void *arg, bool all_there), void *arg)
{
    dl_iterate_phdr(hold_call, &(struct hold){ fn, arg });
}

void maps_close(void (*gone)(struct maps_module *m))
{
    pthread_mutex_lock(&g.lock);
    for (uint32_t i = 0; i < g.table.n; i++)
        gone(&g.table.mod[i]);
    modules_free(g.table.mod, g.table.n);
    g.table = (struct maps){ .generation = g.table.generation + 1 };
    pthread_mutex_unlock(&g.lock);
}

void maps_forget_lock(void)
{
    if (pthread_mutex_trylock(&g.lock) != 0)
        g.table = (struct maps){ .generation = g.table.generation + 1 }; /* half changed, perhaps: read anew, the old one is left to the end */
    g.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}
