/* weft_symbols_write: functions of addresses that somebody else has, such as a viewer of profiles on another machine. A helper looks them up and makes
 * the text; the caller hands it to the user's writer. */
#include <weft/prof.h>
#include <errno.h>
#include "prof/helper.h"
#include "prof/symbols.h"
#include "prof/text.h"
#include "sched/mutator.h"
#include "sched/report.h"
#include "sched/sched.h"

struct lookup {
    const uint64_t *pc;
    size_t n;
    struct text text;
    int err;
    struct symbol found[SYMBOLS_INLINED_MAX];
};

static w_u32 kept; /* something has been looked up in this life of the runtime */

/* The function that an address lies in, not one that is inlined there: as Go does. */
static void look_up(struct lookup *l, const struct maps *maps, uint64_t pc)
{
    unsigned n = symbols_at(maps, (uintptr_t)pc + 1, l->found); /* it takes return addresses */
    const char *func = n > 0 ? l->found[n - 1].func : NULL;
    if (func == NULL || pc == UINT64_MAX)
        return;
    text_putf(&l->text, "0x%lx ", (unsigned long)pc);
    text_puts(&l->text, func);
    text_puts(&l->text, "\n");
}

static void work(void *arg)
{
    struct lookup *l = arg;
    const struct maps *maps = maps_begin(symbols_gone);
    if (maps == NULL) {
        l->err = -ENOMEM;
        return;
    }
    for (size_t i = 0; i < l->n; i++)
        look_up(l, maps, l->pc[i]);
    maps_end();
    l->err = l->text.nomem ? -ENOMEM : 0;
}

static int work_outside(void *arg)
{
    struct lookup *l = arg;
    int err = helper_run(work, l);
    return err != 0 ? err : l->err;
}

int weft_symbols_write(const uint64_t *pc, size_t n, weft_writer *w, void *ctx)
{
    struct lookup l = { .pc = pc, .n = n };
    int saved = errno;
    if (w == NULL || (pc == NULL && n > 0))
        return -EINVAL;
    struct m *m = rt_enter_try();
    if (m == NULL)
        return -ESRCH;
    store_rlx(&kept, 1); /* rlx: read when nobody looks up any more */
    int err = helper_outside(m, work_outside, &l);
    if (err == 0)
        err = text_write(&l.text, w, ctx);
    m = rt_enter_try(); /* NULL: no stop waits for who holds a lock of the memory's */
    text_free(&l.text);
    if (m != NULL)
        rt_leave(m);
    errno = saved;
    return err;
}

static void lookup_end(void) { symbols_end(&kept); }

static struct sched_guest guest = { .end = lookup_end };

static void __attribute__((constructor)) lookup_init(void) { sched_guest_add(&guest); }
