/* See finalize.h. Two queues, one of finalizers and one of cleanups: each a list of blocks, first in first out; what their entries name is a root
 * until taken. That finalizers run one after the other, and cleanups side by side, is up to those who take. */
#include "gc/finalize.h"
#include <errno.h>
#include <string.h>
#include "gc/special.h"

#define BLOCK_CALLS 102u /* a block fills 4 KiB */

struct block {
    struct block *next;
    uint32_t from, to;
    struct gc_call call[BLOCK_CALLS];
};

static struct queue {
    struct lock lock; /* RANK_FIN; all; in a stop nobody else is here */
    struct block *head, *tail;
    w_u64 queued, taken; /* written under the lock or in a stop; rlx: figures, and a hint outside of the lock */
} queues[GC_CALLS] = { { .lock = LOCK_INIT(RANK_FIN) }, { .lock = LOCK_INIT(RANK_FIN) } };

static w_u64 cleanup_ids; /* the last one given out; rlx: only has to differ */

void finalize_stop(void)
{
    for (unsigned k = 0; k < GC_CALLS; k++) {
        for (struct block *b = queues[k].head, *next; b != NULL; b = next) {
            next = b->next;
            off_free(OFF_SPECIAL, b);
        }
        memset(&queues[k], 0, sizeof queues[k]);
        lock_init(&queues[k].lock, RANK_FIN);
    }
}

void finalize_roots_stw(struct marker *m)
{
    for (unsigned k = 0; k < GC_CALLS; k++)
        for (struct block *b = queues[k].head; b != NULL; b = b->next)
            for (uint32_t i = b->from; i < b->to; i++) {
                mark_word(m, (uintptr_t)b->call[i].obj);
                mark_word(m, (uintptr_t)b->call[i].arg);
            }
}

void finalize_each_stw(root_fn *fn, void *arg)
{
    for (unsigned k = 0; k < GC_CALLS; k++)
        for (struct block *b = queues[k].head; b != NULL; b = b->next)
            for (uint32_t i = b->from; i < b->to; i++) {
                fn(arg, GC_ROOT_QUEUED, 0, 0, (uintptr_t)b->call[i].obj);
                fn(arg, GC_ROOT_QUEUED, 0, 0, (uintptr_t)b->call[i].arg);
            }
}

static bool put_stw(struct queue *q, struct gc_call call)
{
    struct block *b = q->tail;
    if (b == NULL || b->to == BLOCK_CALLS) {
        b = off_alloc(OFF_SPECIAL, sizeof *b);
        if (b == NULL)
            return false;
        b->next = NULL;
        b->from = b->to = 0;
        if (q->tail != NULL)
            q->tail->next = b;
        else
            q->head = b;
        q->tail = b;
    }
    call.cycle = gc_cycles_begun();
    b->call[b->to++] = call;
    add_rlx(&q->queued, 1);
    return true;
}

bool finalize_queue_stw(void *obj, weft_finalizer *fn, void *ctx, const void *pc)
{
    return put_stw(&queues[GC_FINALIZER], (struct gc_call){ .finalizer = fn, .obj = obj, .arg = ctx, .pc = pc });
}

bool cleanup_queue_stw(weft_fn *fn, void *arg)
{
    return put_stw(&queues[GC_CLEANUP], (struct gc_call){ .cleanup = fn, .arg = arg });
}

/* taken first: it never overtakes queued. */
uint64_t gc_calls_waiting(enum gc_call_kind kind)
{
    uint64_t taken = load_acq(&queues[kind].taken); /* acq: rel in gc_call_take */
    return load_rlx(&queues[kind].queued) - taken;
}

uint64_t gc_calls_queued(enum gc_call_kind kind) { return load_rlx(&queues[kind].queued); }

bool gc_call_take(enum gc_call_kind kind, struct gc_call *out)
{
    struct queue *q = &queues[kind];
    if (gc_calls_waiting(kind) == 0)
        return false;
    lock_take(&q->lock);
    struct block *b = q->head;
    if (b != NULL) {
        *out = b->call[b->from++];
        store_rel(&q->taken, load_rlx(&q->taken) + 1); /* rel: after what queued it; acq in gc_calls_waiting */
        if (b->from == b->to) {
            q->head = b->next;
            if (q->head == NULL)
                q->tail = NULL;
            off_free(OFF_SPECIAL, b);
        }
    }
    lock_drop(&q->lock);
    return b != NULL;
}

/* ---- setting them ----------------------------------------------------------------------------------------------- */

int gc_finalizer_set(void *obj, weft_finalizer *fn, void *ctx, const void *pc)
{
    struct span *s;
    size_t i;
    if (obj == NULL || !heap_find(obj, &s, &i) || span_object(s, i) != obj)
        return -EINVAL;
    if (fn == NULL) {
        special_remove(s, i, SPECIAL_FINALIZER);
        return 0;
    }
    return special_add_only(s, (struct special){ .index = (uint32_t)i, .kind = SPECIAL_FINALIZER, .finalizer = { fn, ctx, pc } });
}

int gc_cleanup_add(void *p, weft_fn *fn, void *arg, weft_cleanup *out)
{
    struct span *s;
    size_t i;
    if (p == NULL || fn == NULL || !heap_find(p, &s, &i))
        return -EINVAL;
    uintptr_t obj = (uintptr_t)span_object(s, i);
    if ((uintptr_t)arg - obj < span_elem(s))
        return -ELOOP;
    uint64_t id = add_rlx(&cleanup_ids, 1) + 1;
    int err = special_add(s, (struct special){ .index = (uint32_t)i, .kind = SPECIAL_CLEANUP, .cleanup = { fn, arg, id } });
    if (err == 0 && out != NULL)
        *out = (weft_cleanup){ id, ~obj };
    return err;
}

bool gc_cleanup_stop(weft_cleanup c) { return c.id_ != 0 && special_cleanup_remove((void *)~c.at_, c.id_); }
