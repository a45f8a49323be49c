/* Records of fibers that have not started.
 *
 * They lie in slabs which stay mapped as long as the runtime runs, and a record stays in its place while it is queued, whatever queue it moves
 * through. So who wants to see all of them (a dump) walks the slabs, without a lock and without a stop; queues could not be walked that way, since a
 * task that is stolen moves from one not yet seen to one already seen.
 *
 * [TASK] id tells whether a record is in use, and serves as its sequence number, since ids are never used twice. Writer: id = 0, fence, fields, id
 * (release). Reader: id (acquire), fields, fence, id again: the same and not 0 means that the fields belong together.
 *
 * Free records: a cache per processor, then a list per slab under the lock. The pages of slabs that are wholly free go back to the kernel, but for a
 * few: they read as zeroes then, that is as free records. */
#include "sched/task.h"
#include "base/list.h"
#include <string.h>
#include <sys/mman.h>

#define SLAB_BYTES (64u << 10)
#define CACHE_MAX 256u   /* records kept by a processor; half goes when it is full */
#define SLABS_KEPT 8u    /* wholly free ones that keep their pages */

struct slab {
    struct list partial; /* in tasks.partial if it has a free record */
    struct slab *next;   /* fixed once it is published */
    struct task *free;
    uint32_t nfree, fresh; /* on the list; the first record that was never handed out */
    struct task task[];
};
#define SLAB_TASKS ((uint32_t)((SLAB_BYTES - sizeof(struct slab)) / sizeof(struct task)))

static struct {
    struct lock lock;    /* RANK_LEAF: all below, and the slabs' heads */
    W_PTR(struct slab) all; /* rel: publishes a slab; acq in tasks_each */
    struct list partial;
    uint32_t nwhole;     /* wholly free, with their pages */
} tasks;

int task_start(void)
{
    lock_init(&tasks.lock, RANK_LEAF);
    store_rlx(&tasks.all, NULL); /* rlx: nobody else runs yet */
    list_init(&tasks.partial);
    tasks.nwhole = 0;
    return 0;
}

void task_end(void)
{
    for (struct slab *s = load_rlx(&tasks.all), *next; s != NULL; s = next) { /* rlx: nobody else runs any more */
        next = s->next;
        off_unmap(OFF_FIBER, s, SLAB_BYTES);
    }
    store_rlx(&tasks.all, NULL);
}

static struct slab *slab_of(struct task *t) { return (struct slab *)w_align_down((uintptr_t)t, SLAB_BYTES); }

static struct slab *slab_new(void)
{
    struct slab *s = off_map(OFF_FIBER, SLAB_BYTES, SLAB_BYTES);
    if (s == NULL)
        return NULL;
    s->next = load_rlx(&tasks.all); /* rlx: changes under the lock, which we hold */
    list_add_back(&tasks.partial, &s->partial);
    store_rel(&tasks.all, s); /* rel: publishes the slab; acq in tasks_each */
    return s;
}

static bool slab_whole(const struct slab *s) { return s->nfree == s->fresh; }

/* Under the lock. */
static struct task *shared_get(void)
{
    struct list *l = list_first(&tasks.partial);
    struct slab *s = l != NULL ? list_entry(l, struct slab, partial) : slab_new();
    if (s == NULL)
        return NULL;
    if (slab_whole(s) && s->fresh > 0)
        tasks.nwhole--;
    struct task *t = s->free;
    if (t != NULL) {
        s->free = (struct task *)t->link.next;
        s->nfree--;
    } else {
        t = &s->task[s->fresh++];
    }
    if (s->free == NULL && s->fresh == SLAB_TASKS)
        list_del(&s->partial);
    return t;
}

/* Under the lock. */
static void shared_put(struct task *t)
{
    struct slab *s = slab_of(t);
    t->link.next = (runnable)s->free;
    s->free = t;
    s->nfree++;
    if (!list_linked(&s->partial))
        list_add_front(&tasks.partial, &s->partial);
    if (!slab_whole(s))
        return;
    list_del(&s->partial);
    list_add_back(&tasks.partial, &s->partial); /* the others first, so that this one stays whole */
    if (tasks.nwhole < SLABS_KEPT) {
        tasks.nwhole++;
        return;
    }
    uintptr_t lo = w_align_up((uintptr_t)s->task, 4096);
    memset(s->task, 0, lo - (uintptr_t)s->task);
    if (madvise((void *)lo, (uintptr_t)s + SLAB_BYTES - lo, MADV_DONTNEED) != 0)
        return;
    s->free = NULL;
    s->nfree = s->fresh = 0;
}

struct task *task_new(struct p *p)
{
    struct task *t;
    if (p != NULL && p->free_tasks != NULL) {
        t = p->free_tasks;
        p->free_tasks = (struct task *)t->link.next;
        p->nfree_tasks--;
    } else {
        lock_take(&tasks.lock);
        t = shared_get();
        lock_drop(&tasks.lock);
    }
    __atomic_thread_fence(__ATOMIC_RELEASE); /* [TASK] id = 0 before the fields */
    return t;
}

static void cache_drop(struct p *p, uint32_t keep)
{
    lock_take(&tasks.lock);
    while (p->nfree_tasks > keep) {
        struct task *t = p->free_tasks;
        p->free_tasks = (struct task *)t->link.next;
        p->nfree_tasks--;
        shared_put(t);
    }
    lock_drop(&tasks.lock);
}

void task_free(struct p *p, struct task *t)
{
    __atomic_store_n(&t->id, 0, __ATOMIC_RELAXED); /* rlx: ordered by the fence of the next task_new */
    t->link.next = (runnable)p->free_tasks;
    p->free_tasks = t;
    if (++p->nfree_tasks >= CACHE_MAX)
        cache_drop(p, CACHE_MAX / 2);
}

void task_flush(struct p *p) { cache_drop(p, 0); }

/* Reads what others may be writing; told apart by the id, so no sanitizer may look. */
static w_no_sanitize bool task_copy(struct task *t, struct task *copy)
{
    uint64_t id = __atomic_load_n(&t->id, __ATOMIC_ACQUIRE); /* acq: sees the fields; rel in task_publish */
    if (id == 0)
        return false;
    const uintptr_t *from = (const uintptr_t *)t;
    uintptr_t *to = (uintptr_t *)copy;
    for (size_t i = 0; i < sizeof *t / sizeof *to; i++)
        to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED); /* rlx: void if the id has changed */
    fence_acq();
    return __atomic_load_n(&t->id, __ATOMIC_RELAXED) == id; /* rlx: after the fields by the fence */
}

void tasks_each(void (*fn)(const struct task *copy, const struct task *at, void *arg), void *arg)
{
    struct task copy;
    for (struct slab *s = load_acq(&tasks.all); s != NULL; s = s->next) /* acq: sees the slab; rel in slab_new */
        for (uint32_t i = 0; i < SLAB_TASKS; i++)
            if (task_copy(&s->task[i], &copy))
                fn(&copy, &s->task[i], arg);
}
