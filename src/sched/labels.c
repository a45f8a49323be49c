/* Labels of fibers.
 *
 * A fiber holds a reference to a set that never changes. To have other labels is to hold another set; to start a fiber is to count one more; and
 * a sample of a profile holds the set as it was. Only the fiber itself changes what it holds, so a signal handler on its thread finds a set that lives:
 * the new one is stored before the old one is let go.
 *
 * weft_with_labels remembers the set before in a scope, off the heap and not on its own stack, since fn may be left by longjmp or an exception. Then
 * the scope stays, and is found by its place: stacks grow down, so a scope that was opened at or below the frame of who opens the next one, or of one
 * that ends, is over. What remains at the end of the fiber goes with it. */
#include "sched/labels.h"
#include <errno.h>
#include <string.h>
#include "sched/sched.h"

struct label_scope {
    struct label_scope *outer;
    struct labels *before;
    uintptr_t frame;
};

/* ---- sets ------------------------------------------------------------------------------------------------- */

static int check(const weft_label *l, size_t n)
{
    if (n > WEFT_LABELS_MAX || (n > 0 && l == NULL))
        return -EINVAL;
    for (size_t i = 0; i < n; i++)
        if (l[i].key == NULL || l[i].value == NULL || l[i].key[0] == 0)
            return -EINVAL;
    return 0;
}

/* Into its place by key, or in the place of the one with that key. */
static uint32_t insert(weft_label *to, uint32_t n, weft_label l)
{
    uint32_t i = n;
    while (i > 0 && strcmp(to[i - 1].key, l.key) > 0)
        i--;
    if (i > 0 && strcmp(to[i - 1].key, l.key) == 0) {
        to[i - 1].value = l.value;
        return n;
    }
    memmove(&to[i + 1], &to[i], (n - i) * sizeof *to);
    to[i] = l;
    return n + 1;
}

static const char *copy_text(char **to, const char *s)
{
    size_t n = strlen(s) + 1;
    char *at = memcpy(*to, s, n);
    *to += n;
    return at;
}

/* base's, and these. Inside. 0, -ENOMEM, -EINVAL (too many together); *out is NULL if there are none. */
static int make(const struct labels *base, const weft_label *l, size_t n, struct labels **out)
{
    weft_label all[2 * WEFT_LABELS_MAX];
    uint32_t count = 0;
    size_t bytes = sizeof(struct labels);
    for (; base != NULL && count < base->n; count++)
        all[count] = (weft_label){ base->at[count].key, base->at[count].value };
    for (size_t i = 0; i < n; i++)
        count = insert(all, count, l[i]);
    *out = NULL;
    if (count > WEFT_LABELS_MAX)
        return -EINVAL;
    if (count == 0)
        return 0;
    for (uint32_t i = 0; i < count; i++)
        bytes += sizeof (*out)->at[0] + strlen(all[i].key) + 1 + strlen(all[i].value) + 1;
    struct labels *new = off_alloc(OFF_PROF, bytes);
    if (new == NULL)
        return -ENOMEM;
    char *text = (char *)&new->at[count];
    store_rlx(&new->refs, 1); /* rlx: nobody else knows it */
    new->n = count;
    for (uint32_t i = 0; i < count; i++) {
        new->at[i].key = copy_text(&text, all[i].key);
        new->at[i].value = copy_text(&text, all[i].value);
    }
    *out = new;
    return 0;
}

/* ---- what a fiber has --------------------------------------------------------------------------------------- */

/* l is f's from now on, with the caller's reference. f runs here, or nowhere any more. */
static void have(struct fiber *f, struct labels *l)
{
    struct labels *old = f->labels;
    f->labels = l;
    fence_compiler(); /* a handler of a signal finds the new one, or the old one while it still counts */
    labels_unref(old);
}

static void scope_close(struct fiber *f)
{
    struct label_scope *s = f->label_scopes;
    f->label_scopes = s->outer;
    have(f, s->before);
    off_free(OFF_PROF, s);
}

/* Those at or below that frame are over. */
static void scopes_close(struct fiber *f, uintptr_t frame)
{
    while (f->label_scopes != NULL && f->label_scopes->frame <= frame)
        scope_close(f);
}

void labels_drop_slow(struct fiber *f)
{
    scopes_close(f, UINTPTR_MAX);
    have(f, NULL);
}

/* ---- the public side ------------------------------------------------------------------------------------------ */

int weft_set_labels(const weft_label *labels, size_t n)
{
    int err = check(labels, n);
    if (err != 0)
        return err;
    struct m *m = rt_enter_if_running();
    if (m == NULL)
        return -ESRCH;
    struct labels *l;
    struct fiber *f = m->cur;
    err = make(NULL, labels, n, &l);
    if (err == 0) {
        have(f, l);
        PROBE(fiber_labels, f, l, 0);
    }
    rt_leave(m);
    return err;
}

static int scope_open(struct fiber *f, const weft_label *labels, size_t n, uintptr_t frame)
{
    scopes_close(f, frame);
    struct labels *l;
    int err = make(f->labels, labels, n, &l);
    if (err != 0)
        return err;
    struct label_scope *s = off_alloc(OFF_PROF, sizeof *s);
    if (s == NULL) {
        labels_unref(l);
        return -ENOMEM;
    }
    *s = (struct label_scope){ f->label_scopes, labels_ref(f->labels), frame };
    f->label_scopes = s;
    have(f, l);
    PROBE(fiber_labels, f, l, 0);
    return 0;
}

int weft_with_labels(const weft_label *labels, size_t n, weft_fn *fn, void *arg)
{
    uintptr_t frame = (uintptr_t)__builtin_frame_address(0);
    int err = fn == NULL ? -EINVAL : check(labels, n);
    if (err != 0)
        return err;
    struct m *m = rt_enter_if_running();
    if (m == NULL)
        return -ESRCH;
    err = scope_open(m->cur, labels, n, frame);
    rt_leave(m);
    if (err != 0)
        return err;
    fn(arg);
    m = rt_enter_if_running(); /* of a thread of the host, the runtime may have ended meanwhile, and taken the scopes along */
    if (m == NULL)
        return 0;
    scopes_close(m->cur, frame);
    PROBE(fiber_labels, m->cur, m->cur->labels, 0);
    rt_leave(m);
    return 0;
}

const char *weft_label_get(const char *key)
{
    struct m *m = key != NULL ? rt_enter_if_running() : NULL;
    if (m == NULL)
        return NULL;
    const struct labels *l = m->cur->labels;
    const char *value = NULL;
    for (uint32_t i = 0; l != NULL && i < l->n; i++)
        if (strcmp(l->at[i].key, key) == 0)
            value = l->at[i].value;
    rt_leave(m);
    return value;
}
