/* Resident memory, explained. See memory.h.
 *
 * What people see is one number, the process's RSS, and after a collection it has not fallen. This says who has it, and when each part falls.
 *
 * The kernel knows which pages are in memory (resident.h), the runtime knows where its own lie: the heap and its tables, arenas of stacks, ranges of
 * off-heap memory. So each mapping of the process is cut at the ends of those, and what is resident in each piece is counted for whose it is; what is
 * left over is the host's, by what the mapping is called. Thus the parts add up to what is resident, as of some moments during the look; they differ
 * from the process's RSS by what came and went meanwhile, and the kernel's own number is late by up to 64 pages per CPU before Linux 6.16.
 *
 * Within the heap pages are not asked one by one whose they are: objects, the gaps between them, and free pages share what is resident in the order
 * in which they are sure to have been touched. A large object that its owner has not written yet makes objects seem fewer, or free pages. Slabs of
 * less than RANGE_MIN in offheap.c are taken from what is left over by their own count.
 *
 * Before Linux 6.7 the page tables tell of private anonymous memory only. Of files, the process's totals count then, as code.
 *
 *   {"at_ms":1764172800123,"rss_bytes":190000000,"swap_bytes":0,"limit_bytes":null,"cgroup_bytes":300000000,"cgroup_limit_bytes":2147483648,
 *    "sum_bytes":189996544,"exact":true,"heap":{"in_use_bytes":100000000,"free_bytes":20000000,"released_bytes":5000000,"keep_bytes":110000000},
 *    "scavenger":{"state":"at goal","retained_bytes":100000000,"keep_bytes":110000000,"excess_bytes":0,"bytes_per_s":170000000,
 *     "returned_background_bytes":5000000,"returned_eager_bytes":0,"worked_ns":1000000},
 *    "parts":[{"id":"heap.objects","group":"heap","name":"objects of the heap","held_bytes":73400320,"resident_bytes":73400320,
 *     "falls":"when they are dead and a collection has found it so: ..."},...]}
 *
 * state: "no goal yet" (before the first collection nothing is given back), "at goal", "gives back" (excess_bytes are on their way), "by the limit"
 * (the same, faster goal: the memory limit's). keep_bytes: of the heap's pages, null before the first collection. The parts are those of memory.h;
 * held_bytes: by the runtime's own books, null where it has none. sum_bytes is the sum of resident_bytes. exact: false before Linux 6.7.
 * cgroup_bytes: what the kernel counts against the limit of the control group; null: there is none. */
#include "debug/memory.h"
#include <errno.h>
#include <string.h>
#include <weft/debug.h>
#include "base/fmt.h"
#include "base/text.h"
#include "debug/json.h"
#include "gc/pages.h"
#include "os/cgroup.h"
#include "os/vm.h"
#include "sched/stack.h"

enum { RANGE_HEAP = PARTS, RANGE_STACK }; /* other kinds are parts */
struct memory_range { uintptr_t lo, hi; uint32_t kind, arena; };

static const struct { const char *id, *group, *name; } parts[PARTS] = {
#define X(id, name, group, text) { name, group, text },
    MEMORY_PARTS(X)
#undef X
};

/* ---- whose is it ------------------------------------------------------------------------------------------------- */

static void add_range(struct memory *mem, uintptr_t lo, uintptr_t hi, uint32_t kind, uint32_t arena)
{
    lo = w_align_up(lo, os_page_bytes()); /* the kernel counts whole pages: one that two have is the first one's */
    hi = w_align_up(hi, os_page_bytes());
    if (lo >= hi)
        return;
    if (mem->ranges == mem->room) {
        uint32_t room = mem->room == 0 ? 256 : 2 * mem->room;
        struct memory_range *more = roster_mem(&mem->look->r, room * sizeof *more);
        if (more == NULL)
            return; /* it is the host's then, and the error is told */
        if (mem->ranges != 0)
            memcpy(more, mem->range, mem->ranges * sizeof *more);
        mem->range = more;
        mem->room = room;
    }
    mem->range[mem->ranges++] = (struct memory_range){ lo, hi, kind, arena };
}

static void add_pages(void *arg, bool table, uintptr_t lo, uintptr_t hi) { add_range(arg, lo, hi, table ? PART_TABLES : RANGE_HEAP, 0); }
static void add_off(void *arg, enum off_purpose why, uintptr_t lo, uintptr_t hi) { add_range(arg, lo, hi, PART_SCHED + (why - OFF_SCHED), 0); }

static void sort_ranges(struct memory_range *r, uint32_t n)
{
    for (uint32_t gap = n / 2; gap > 0; gap /= 2)
        for (uint32_t i = gap; i < n; i++) {
            struct memory_range x = r[i];
            uint32_t k = i;
            for (; k >= gap && r[k - gap].lo > x.lo; k -= gap)
                r[k] = r[k - gap];
            r[k] = x;
        }
}

extern char off_jem_bss[], off_jem_bss_end[]; /* set by the Makefile */

static void find_ranges(struct memory *mem)
{
    struct stack_arena a;
    uintptr_t page = os_page_bytes();
    pages_ranges(add_pages, mem);
    off_ranges(add_off, mem);
    for (uint32_t i = 0; stack_arena(i, &a); i++)
        add_range(mem, a.lo, a.hi, RANGE_STACK, i);
    add_range(mem, w_align_down((uintptr_t)base_text_first, page), w_align_up((uintptr_t)base_text_last, page), PART_WEFT, 0);
    add_range(mem, w_align_up((uintptr_t)off_jem_bss, page), w_align_down((uintptr_t)off_jem_bss_end, page), PART_WEFT, 0);
    sort_ranges(mem->range, mem->ranges);
}

/* ---- what is resident ---------------------------------------------------------------------------------------------- */

struct piece { struct memory *mem; uint32_t kind; uint64_t bytes; struct stack_arena arena; };

static void count(void *arg, uintptr_t lo, uintptr_t hi) { ((struct piece *)arg)->bytes += hi - lo; }

/* Whose a stack is, its descriptor says. If that is not in memory nobody has it. */
static void count_stack(void *arg, uintptr_t lo, uintptr_t hi)
{
    struct piece *p = arg;
    uintptr_t size = (uintptr_t)1 << p->arena.log2;
    for (uintptr_t slot = w_align_down(lo - p->arena.lo, size) + p->arena.lo; slot < hi; slot += size) {
        uintptr_t from = w_max(slot, lo), to = w_min(slot + size, hi), at = stack_descriptor(&p->arena, slot);
        bool unused = at < from || at >= to ? to == slot + size : stack_slot_free(&p->arena, slot);
        p->mem->resident[unused ? PART_STACKS_FREE : PART_STACKS] += to - from;
    }
}

static uint64_t count_piece(struct memory *mem, uintptr_t lo, uintptr_t hi, const struct memory_range *r)
{
    struct piece p = { .mem = mem };
    int err;
    if (r != NULL && r->kind == RANGE_STACK && stack_arena(r->arena, &p.arena)) {
        err = resident_runs(&mem->pages, lo, hi, count_stack, &p);
    } else {
        err = resident_runs(&mem->pages, lo, hi, count, &p);
    }
    if (err != 0 && err != -ENOMEM && err != -EFAULT) /* those two: it was unmapped meanwhile */
        mem->err = err;
    return p.bytes;
}

/* Bytes of heap are shared out at the end. */
static void count_range(struct memory *mem, uintptr_t lo, uintptr_t hi, const struct memory_range *r)
{
    uint64_t bytes = count_piece(mem, lo, hi, r);
    if (r->kind != RANGE_STACK)
        mem->resident[r->kind == RANGE_HEAP ? PART_OBJECTS : r->kind] += bytes;
}

static void end_path(struct memory *mem)
{
    mem->resident[mem->path_code ? PART_CODE : PART_FILES] += mem->path_bytes;
    mem->path[0] = 0;
    mem->path_bytes = 0;
    mem->path_code = false;
}

static bool begins(const char *s, const char *with) { return strncmp(s, with, strlen(with)) == 0; }

/* What of a mapping is nobody's whom we know. A module's mappings follow each other. */
static void count_rest(struct memory *mem, const struct mapping *m, uint64_t bytes)
{
    if (begins(m->path, "/dev/shm/") || begins(m->path, "/memfd:") || begins(m->path, "/SYSV") || (m->shared && begins(m->path, "/dev/zero"))) {
        mem->resident[PART_SHARED] += bytes;
    } else if (m->path[0] == '/') {
        if (strncmp(mem->path, m->path, sizeof mem->path - 1) != 0) {
            end_path(mem);
            memccpy(mem->path, m->path, 0, sizeof mem->path - 1);
        }
        mem->path_bytes += bytes;
        mem->path_code |= m->exec;
    } else if (strcmp(m->path, "[vdso]") == 0) {
        mem->resident[PART_CODE] += bytes;
    } else if (strcmp(m->path, "[heap]") == 0) {
        mem->resident[PART_BRK] += bytes;
    } else {
        mem->resident[begins(m->path, "[stack") ? PART_STACK : PART_ANON] += bytes;
    }
}

static void cut(void *arg, const struct mapping *m)
{
    struct memory *mem = arg;
    uint64_t rest = 0;
    bool anonymous = m->path[0] == 0 || begins(m->path, "[heap]") || begins(m->path, "[stack") || begins(m->path, "[anon");
    if (!(m->read || m->write || m->exec) || begins(m->path, "[vv") || begins(m->path, "[vs") || (!mem->pages.exact && (!anonymous || m->shared)))
        return; /* no memory can be there; not the process's; not known */
    uintptr_t at = m->lo;
    for (uint32_t i = 0; i < mem->ranges && mem->range[i].lo < m->hi; i++) {
        const struct memory_range *r = &mem->range[i];
        if (r->hi <= at)
            continue;
        if (r->lo > at)
            rest += count_piece(mem, at, r->lo, NULL);
        at = w_max(at, r->lo);
        count_range(mem, at, w_min(r->hi, m->hi), r);
        at = w_min(r->hi, m->hi);
    }
    if (at < m->hi)
        rest += count_piece(mem, at, m->hi, NULL);
    count_rest(mem, m, rest);
}

/* ---- shared out ----------------------------------------------------------------------------------------------------- */

/* So much of what was counted for one is another's. */
static void move(struct memory *mem, enum memory_part from, enum memory_part to, uint64_t bytes)
{
    bytes = w_min(bytes, mem->resident[from]);
    mem->resident[from] -= bytes;
    mem->resident[to] += bytes;
}

static void share_out(struct memory *mem)
{
    const struct look *l = mem->look;
    uint64_t objects = look_num(l, MEM_OBJECTS), gaps = look_num(l, MEM_UNUSED), all = mem->resident[PART_OBJECTS];
    move(mem, PART_OBJECTS, PART_FREE, all - w_min(all, objects + gaps));
    all = mem->resident[PART_OBJECTS];
    move(mem, PART_OBJECTS, PART_GAPS, all - w_min(all, objects));
    for (unsigned i = 0; i < OFF_PURPOSES; i++) {
        struct off_stats s;
        off_stats((enum off_purpose)i, &s);
        mem->held[PART_SCHED + i] = s.in_use_bytes;
        move(mem, PART_ANON, (enum memory_part)(PART_SCHED + i), s.loose_bytes);
    }
    if (mem->resident[PART_GC] == 0) /* they share an arena */
        move(mem, PART_SCHED, PART_GC, mem->held[PART_GC]);
    mem->held[PART_OBJECTS] = objects;
    mem->held[PART_GAPS] = gaps;
    mem->held[PART_FREE] = look_num(l, MEM_FREE);
}

static void without_page_tables(struct memory *mem)
{
    uint64_t anon = 0;
    for (unsigned i = 0; i < PARTS; i++)
        anon += mem->resident[i];
    mem->resident[PART_CODE] += mem->totals.file + (mem->totals.anon - w_min(mem->totals.anon, anon)); /* data of modules, once written */
    mem->resident[PART_SHARED] += mem->totals.shared;
}

void memory_look(struct look *l)
{
    struct memory *mem = l->arg;
    *mem = (struct memory){ .look = l, .scavenged = l->scavenged, .limit = look_num(l, LIMIT) };
    for (unsigned i = 0; i < PARTS; i++)
        mem->held[i] = UINT64_MAX;
    resident_open(&mem->pages);
    mem->exact = mem->pages.exact;
    find_ranges(mem);
    int err = resident_mappings(cut, mem);
    end_path(mem);
    resident_close(&mem->pages);
    if (err == 0)
        err = mem->err;
    if (err == 0)
        err = resident_totals(&mem->totals);
    if (err == 0 && !mem->exact)
        without_page_tables(mem);
    if (cgroup_memory(sched.cfg.cgrouproot, &mem->group_used, &mem->group_limit) != 0)
        mem->group_used = mem->group_limit = UINT64_MAX;
    share_out(mem);
    for (unsigned i = 0; i < PARTS; i++)
        mem->sum += mem->resident[i];
    if (l->r.err == 0)
        l->r.err = err;
}

/* ---- when it falls ---------------------------------------------------------------------------------------------------- */

static uint64_t excess(const struct memory *mem)
{
    const struct gc_scavenge_stats *s = &mem->scavenged;
    return s->retained_bytes - w_min(s->retained_bytes, s->keep_bytes);
}

static const char *state(const struct memory *mem)
{
    if (mem->scavenged.by_limit)
        return "by the limit";
    return mem->scavenged.keep_bytes == UINT64_MAX ? "no goal yet" : excess(mem) != 0 ? "gives back" : "at goal";
}

#define KIB(bytes) ((unsigned long)((bytes) >> 10))

static void falls_objects(const struct memory *mem, char *to, size_t n)
{
    uint64_t goal = look_num(mem->look, GOAL);
    if (goal >= (uint64_t)INT64_MAX)
        w_fmt(to, n, "when they are dead and weft_gc is called: collecting by growth is off");
    else
        w_fmt(to, n, "when they are dead and a collection has found it so: the next one is due when there are %lu KiB of them, or after two minutes; "
                     "their pages are free then, see below", KIB(goal));
}

static void falls_free(const struct memory *mem, char *to, size_t n)
{
    const struct gc_scavenge_stats *s = &mem->scavenged;
    uint64_t over = excess(mem);
    if (s->keep_bytes == UINT64_MAX)
        w_fmt(to, n, "after the first collection, which sets a goal for what may stay; at once by weft_free_os_memory");
    else if (over == 0)
        w_fmt(to, n, "not by itself: the heap has %lu KiB of pages, and may keep %lu KiB, as the last collection saw it used them; less after "
                     "collections that find less; at once by weft_free_os_memory", KIB(s->retained_bytes), KIB(s->keep_bytes));
    else
        w_fmt(to, n, "in the background: the heap has %lu KiB of pages, and may keep %lu KiB%s; the rest goes in some %lu ms, since that "
                     "may take 1 %% of the processors' time; at once by weft_free_os_memory", KIB(s->retained_bytes), KIB(s->keep_bytes),
              s->by_limit ? " by the memory limit" : "", (unsigned long)(over / (s->bytes_per_s / 1000 + 1) + 1));
}

static void falls(const struct memory *mem, enum memory_part part, char *to, size_t n)
{
    static const char *const say[PARTS] = {
        [PART_GAPS] = "when the objects around are dead, too, and collected: a page goes as a whole",
        [PART_TABLES] = "with weft_free_os_memory, where the heap was larger once; else it does not",
        [PART_STACKS] = "when the fiber ends: a stack is not made smaller while a fiber has it, however deep it was once",
        [PART_STACKS_FREE] = "when it was not needed from one collection to the next; at once by weft_free_os_memory",
        [PART_SCHED] = "hardly: what ends is kept for what comes",
        [PART_FIBER] = "when these fibers have started, and a second after that",
        [PART_GC] = "a second after it was needed last; what the heap's size asks for stays",
        [PART_SPECIAL] = "when the objects they belong to are gone",
        [PART_PROF] = "a second after a profile or dump was written; what is counted so far, and symbols, stay until the runtime ends",
        [PART_TRACE] = "when the last trace or flight recorder has ended",
        [PART_OTHER] = "a second after it was needed last",
        [PART_WEFT] = "when the kernel needs the memory: code is read from the file again",
        [PART_CODE] = "when the kernel needs the memory: what was not written is read from the files again",
        [PART_FILES] = "when the kernel needs the memory, or the host unmaps them",
        [PART_BRK] = "when the host frees what lies at its end, or calls malloc_trim; weft does not touch it",
        [PART_STACK] = "not",
        [PART_ANON] = "when the host frees it (malloc_trim for malloc's part), or threads end; weft does not touch it",
        [PART_SHARED] = "when the host unmaps it",
    };
    if (part == PART_OBJECTS)
        falls_objects(mem, to, n);
    else if (part == PART_FREE)
        falls_free(mem, to, n);
    else
        w_fmt(to, n, "%s", say[part]);
}

/* ---- documents ------------------------------------------------------------------------------------------------------- */

static void put_part(struct json *j, const struct memory *mem, enum memory_part i)
{
    char text[320];
    falls(mem, i, text, sizeof text);
    json_open(j, NULL, '{');
    json_str(j, "id", parts[i].id);
    json_str(j, "group", parts[i].group);
    json_str(j, "name", parts[i].name);
    json_limit(j, "held_bytes", mem->held[i]);
    json_u64(j, "resident_bytes", mem->resident[i]);
    json_str(j, "falls", text);
    json_close(j, '}');
}

void memory_json(struct look *l)
{
    const struct memory *mem = l->arg;
    const struct gc_scavenge_stats *s = &mem->scavenged;
    struct json j = { .t = &l->text };
    json_open(&j, NULL, '{');
    json_u64(&j, "at_ms", (uint64_t)l->wall_ns / 1000000);
    json_u64(&j, "rss_bytes", mem->totals.rss);
    json_u64(&j, "swap_bytes", mem->totals.swap);
    json_limit(&j, "limit_bytes", mem->limit);
    json_limit(&j, "cgroup_bytes", mem->group_used);
    json_limit(&j, "cgroup_limit_bytes", mem->group_limit);
    json_u64(&j, "sum_bytes", mem->sum);
    json_bool(&j, "exact", mem->exact);
    json_open(&j, "heap", '{');
    json_u64(&j, "in_use_bytes", s->retained_bytes - w_min(s->retained_bytes, look_num(l, MEM_FREE)));
    json_u64(&j, "free_bytes", look_num(l, MEM_FREE));
    json_u64(&j, "released_bytes", look_num(l, MEM_RELEASED));
    json_limit(&j, "keep_bytes", s->keep_bytes);
    json_close(&j, '}');
    json_open(&j, "scavenger", '{');
    json_str(&j, "state", state(mem));
    json_u64(&j, "retained_bytes", s->retained_bytes);
    json_limit(&j, "keep_bytes", s->keep_bytes);
    json_u64(&j, "excess_bytes", excess(mem));
    json_u64(&j, "bytes_per_s", s->bytes_per_s);
    json_u64(&j, "returned_background_bytes", s->background_bytes);
    json_u64(&j, "returned_eager_bytes", s->eager_bytes);
    json_u64(&j, "worked_ns", s->background_ns + s->assist_ns);
    json_close(&j, '}');
    json_open(&j, "parts", '[');
    for (unsigned i = 0; i < PARTS; i++)
        put_part(&j, mem, (enum memory_part)i);
    json_close(&j, ']');
    json_close(&j, '}');
    text_puts(&l->text, "\n");
}

static void text_part(struct text *t, const struct memory *mem, enum memory_part i)
{
    char text[320];
    if (mem->resident[i] == 0)
        return;
    falls(mem, i, text, sizeof text);
    text_putf(t, "%9lu KiB  %s", KIB(mem->resident[i]), parts[i].name);
    if (mem->held[i] != UINT64_MAX && KIB(mem->held[i]) != KIB(mem->resident[i]))
        text_putf(t, " (%lu KiB by weft's books)", KIB(mem->held[i]));
    text_puts(t, "\n               falls ");
    text_puts(t, text);
    text_puts(t, "\n");
}

static void memory_text(struct look *l)
{
    const struct memory *mem = l->arg;
    struct text *t = &l->text;
    text_putf(t, "%9lu KiB  resident, by the kernel's count; it falls as its parts do:\n\n", KIB(mem->totals.rss));
    for (unsigned i = 0; i < PARTS; i++)
        text_part(t, mem, (enum memory_part)i);
    text_putf(t, "\n%9lu KiB  their sum; what differs came or went while this was made\n", KIB(mem->sum));
    if (mem->totals.swap != 0)
        text_putf(t, "%9lu KiB  more lie in swap space\n", KIB(mem->totals.swap));
    if (mem->limit < (uint64_t)INT64_MAX)
        text_putf(t, "%9lu KiB  is the memory limit, for all of weft's\n", KIB(mem->limit));
    if (mem->group_limit < (uint64_t)INT64_MAX)
        text_putf(t, "%9lu KiB  is the limit of the control group, against which %lu KiB count\n", KIB(mem->group_limit), KIB(mem->group_used));
    text_putf(t, "given back so far: %lu KiB in the background, %lu KiB by allocations, in %lu ms\n", KIB(mem->scavenged.background_bytes),
              KIB(mem->scavenged.eager_bytes), (unsigned long)((mem->scavenged.background_ns + mem->scavenged.assist_ns) / 1000000));
    if (!mem->exact)
        text_puts(t, "(This kernel does not tell which pages of files are resident: they are all counted as code.)\n");
}

int weft_memory_explain(weft_writer *w, void *ctx)
{
    struct memory mem;
    return look_run(0, memory_look, memory_text, &mem, w, ctx);
}
