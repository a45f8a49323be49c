/* See finalize.h. The queue is a list of blocks, first in first out; its entries are roots. */
#include "gc/finalize.h"
#include <errno.h>
#include <string.h>
#include "gc/special.h"

#define BLOCK_CALLS 170u /* a block fills 4 KiB */

struct block {
    struct block *next;
    uint32_t from, to;
    struct gc_finalizer_call call[BLOCK_CALLS];
};

static struct {
    struct lock lock; /* all; in a stop nobody else is here */
    struct block *head, *tail;
    w_u64 waiting;    /* rlx: a hint outside of the lock */
} queue = { .lock = LOCK_INIT(RANK_FIN) };

void finalize_stop(void)
{
    for (struct block *b = queue.head, *next; b != NULL; b = next) {
        next = b->next;
        off_free(OFF_SPECIAL, b);
    }
    memset(&queue, 0, sizeof queue);
    lock_init(&queue.lock, RANK_FIN);
}

void finalize_roots_stw(struct marker *m)
{
    for (struct block *b = queue.head; b != NULL; b = b->next)
        for (uint32_t i = b->from; i < b->to; i++) {
            mark_word(m, (uintptr_t)b->call[i].obj);
            mark_word(m, (uintptr_t)b->call[i].ctx);
        }
}

bool finalize_queue_stw(void *obj, weft_finalizer *fn, void *ctx)
{
    struct block *b = queue.tail;
    if (b == NULL || b->to == BLOCK_CALLS) {
        b = off_alloc(OFF_SPECIAL, sizeof *b);
        if (b == NULL)
            return false;
        b->next = NULL;
        b->from = b->to = 0;
        if (queue.tail != NULL)
            queue.tail->next = b;
        else
            queue.head = b;
        queue.tail = b;
    }
    b->call[b->to++] = (struct gc_finalizer_call){ fn, obj, ctx };
    add_rlx(&queue.waiting, 1); /* rlx: a hint */
    return true;
}

bool finalize_pending(void) { return load_rlx(&queue.waiting) != 0; } /* rlx: a hint; checked again under the lock */

bool gc_finalizer_take(struct gc_finalizer_call *out)
{
    if (!finalize_pending())
        return false;
    lock_take(&queue.lock);
    struct block *b = queue.head;
    bool got = b != NULL && b->from < b->to;
    if (got) {
        *out = b->call[b->from++];
        sub_rlx(&queue.waiting, 1); /* rlx: a hint */
        if (b->from == b->to) {
            queue.head = b->next;
            if (queue.head == NULL)
                queue.tail = NULL;
            off_free(OFF_SPECIAL, b);
        }
    }
    lock_drop(&queue.lock);
    return got;
}

int gc_finalizer_set(void *obj, weft_finalizer *fn, void *ctx)
{
    struct span *s;
    size_t i;
    if (obj == NULL || !heap_find(obj, &s, &i) || span_object(s, i) != obj)
        return -EINVAL;
    if (fn == NULL) {
        special_remove(s, i, SPECIAL_FINALIZER);
        return 0;
    }
    return special_add(s, (struct special){ (uint32_t)i, SPECIAL_FINALIZER, fn, ctx });
}
