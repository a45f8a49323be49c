/* See cards.h.
 *
 * [CARDS] How a store is told, and why none is missed. A card is clear (0), marked (1) or closed (2).
 *
 *        weft_store                                        who takes
 *        slot = value              (V)                     1 -> 2                     (K)   cards_close, of all spans
 *        compiler barrier                                  membarrier(2)              (B)   cards_settle, once
 *        if (card != 1)            (L)                     2 -> 0, read the slots     (R)   cards_take
 *            card = 1, release     (C)
 *        value is still in a register
 *
 * What has to hold: when the final stop is over, each slot that was stored to since its object was scanned has been read by R after the store. Say
 * the object was scanned, or passed over since it was born marked, before V was visible.
 *
 *   - L finds 0 or 2, and C marks. The next close that finds the mark closes it, and R reads after B. V comes before C in the order in which
 *     others see them: x86 keeps the order of stores, on aarch64 C is a release (stlrb). So who sees the mark sees V. And nobody loses a mark: the
 *     close is a read-modify-write of those bytes only that it has found marked, which nobody else changes then; a take changes a 2 to 0 by a
 *     compare-and-exchange, which fails if C has made a 1 of it; that 1 is the next round's, and stands for what was stored before the close, too.
 *   - L finds 1, and nothing is written. That mark is closed later than L, at some K: so B comes after L. When B returns, each thread that runs
 *     has executed a full fence at an instruction after K, and those that do not run executed one when they were switched off. If that is after L,
 *     so it is after V, and R sees V. If it is before L in program order, L cannot have found a mark which was closed before that fence. This is
 *     why L may be a plain load although it stands behind a store: the fence between is paid for by who takes, as in [ENTRY]. Without the look
 *     each thread would write to the line of cards of its neighbours at each store, and 64 cards, 32 KiB of the heap, share one.
 *   - The thread is stopped between V and C by the final stop, so that nobody sees the mark in time. The value is in a register or on the stack
 *     still, as the empty asm behind C wants it as its input; the thread has run since its stack was scanned, hence registers and stack are
 *     scanned in that stop, and what the value points to is marked. That the fiber has lost its processor meanwhile changes nothing: it ran. The
 *     mark comes after the stop and tells the next cycle of a slot that is no news; that costs a card.
 *   - The thread is stopped between L, which found 1, and the end: V is visible, as a stop is a full fence, and the card was marked or closed at L
 *     and is taken in this stop at the latest.
 *   - Bulk: weft_store_fill keeps its value in the same way. The values of weft_store_move lie nowhere but in the slots when they have been
 *     copied, so it is inside the runtime from the first copied word to the last mark: no stop comes between.
 *
 * The beginning of a cycle: cards_clear writes zeros over everything, marks that come in the same moment included; B follows, and nothing was
 * scanned yet. A store whose C or L came before that is visible to the first scan (C before the zero in the order of that byte, V before C; or L
 * before B). What was born marked has no first scan: hence [BORN] in conc.c.
 *
 * New objects: those born while marking goes on are born marked, so what is stored into them is seen by their cards only: the first stores into a
 * new object go through weft_store as any others do. To let them be plain, the runtime would have to know when an object is finished, of which no
 * call tells it: whoever has an object might store into it for the first time after the last look that preclean has at its page. The price is that
 * of a store to a card that is marked already, but for the first object on it. That objects are zeroed needs no mark, and no more does any store
 * that only removes a pointer: what is reachable in the final stop counts, by roots read there and objects whose last stores are known.
 *
 * Others that write: who marks cards of spans that are not carded, or that are free, does no harm. Threads that are not attached are not stopped,
 * and their stacks not scanned: they may not store pointers into the heap by any means. A signal handler of the host may use weft_store: it has no
 * state. In the child of a fork the table is a copy, and so is the heap.
 *
 * The orders above are those of x86 and of ARMv8, whose stores become visible to all others at once; C11 does not know bytes and words as parts of
 * each other, nor that a release is honoured through a store that overwrites it.
 *
 * Without membarrier(2), L might find a mark that is about to be closed. So there nothing is closed or cleared outside of a stop.
 *
 * The size of a card: 512 bytes, some ten objects; so the table stays in the second-level cache while the program stores about in hundreds of
 * megabytes. Tried with bench/scheme_live.scm, two processors: of 256 bytes, cards of 10 to 45 MB are left to the final stop, which takes 13 to 22 ms;
 * of 512, 20 to 60 MB and 15 to 30 ms; of 1024, 30 to 80 MB and 14 to 39 ms. The whole takes 4.1, 3.8 and 4.1 s. */
#include "gc/cards.h"
#include <errno.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include "base/syscall.h"
#include "os/vm.h"

enum { CARD_CLEAR, CARD_MARKED = WEFT_CARD_MARKED_, CARD_CLOSED };
#define CARDS_A_WORD 8u
#define EACH_CARD UINT64_C(0x0101010101010101)
_Static_assert(HEAP_PAGE / CARD_BYTES % CARDS_A_WORD == 0, "pages share no word of cards");
_Static_assert(CARD_MARKED == 1 && CARD_CLOSED == 2, "marked() and closed()");

/* Of the whole reserved heap and not of what is usable now, lest a thread that got a pointer into new memory has an old end of it. */
struct weft_card_table_ weft_card_table_;

static bool concurrent; /* fixed after the start */

/* ---- the table ------------------------------------------------------------------------------------------------ */

size_t cards_bytes(size_t heap_bytes) { return heap_bytes >> WEFT_CARD_SHIFT_; }

/* As the other tables: pages_ranges. */
static size_t reserved_bytes(size_t heap_bytes) { return w_align_up(cards_bytes(heap_bytes), OS_HUGE_PAGE); }

static bool membarrier_ready(void)
{
    return !heap.fenced && sys_call3(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0; /* any number of times */
}

int cards_start(void)
{
    size_t bytes = reserved_bytes(heap.reserved);
    uint8_t *table = os_vm_reserve(bytes, OS_HUGE_PAGE);
    if (table == NULL)
        return -ENOMEM;
    os_vm_name(table, bytes, "weft: cards");
    concurrent = membarrier_ready();
    weft_card_table_ = (struct weft_card_table_){ table, -(uintptr_t)heap.base, heap.reserved };
    return 0;
}

void cards_stop(void)
{
    struct weft_card_table_ was = weft_card_table_;
    weft_card_table_ = (struct weft_card_table_){ 0 };
    if (was.table != NULL)
        os_vm_free(was.table, reserved_bytes(was.bytes));
}

void cards_after_fork_child(void) { concurrent = concurrent && membarrier_ready(); }

int cards_commit(size_t from, size_t to)
{
    size_t page = os_page_bytes();
    from = w_align_up(cards_bytes(from), page);
    to = w_align_up(cards_bytes(to), page);
    return from < to ? os_vm_commit(weft_card_table_.table + from, to - from) : 0;
}

/* ---- taking ---------------------------------------------------------------------------------------------------- */

bool cards_concurrent(void) { return concurrent; }

static inline uint64_t marked(uint64_t word) { return word & EACH_CARD; }
static inline uint64_t closed(uint64_t word) { return word >> 1 & EACH_CARD; }

static inline uint64_t *word_of(uintptr_t p) { return (uint64_t *)(weft_card_table_.table + cards_bytes(p + weft_card_table_.minus_base)); }

void cards_clear(uintptr_t lo, uintptr_t hi)
{
    for (uint64_t *w = word_of(lo), *end = word_of(hi); w < end; w++)
        if (__atomic_load_n(w, __ATOMIC_RELAXED) != 0) /* rlx: what comes after this look may stay */
            __atomic_store_n(w, 0, __ATOMIC_RELAXED);  /* rlx: cards_settle is behind all, [CARDS] */
}

void cards_close(uintptr_t lo, uintptr_t hi)
{
    for (uint64_t *w = word_of(lo), *end = word_of(hi); w < end; w++) {
        uint64_t m = marked(__atomic_load_n(w, __ATOMIC_RELAXED)); /* rlx: what comes after this look is the next round's */
        if (m != 0) /* acq: sees what was stored before the mark; rel in weft_stored */
            __atomic_fetch_xor(w, m * (CARD_MARKED ^ CARD_CLOSED), __ATOMIC_ACQ_REL);
    }
}

/* [CARDS], B */
void cards_settle(void)
{
    w_assert(concurrent);
    fence_seq(); /* of this thread, which may not be told */
    sys_call3(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}

/* Clears the closed cards of a word, and the marked ones in a stop. Returns which. */
static uint64_t clear_word(uint64_t *w, bool stw)
{
    uint64_t old = __atomic_load_n(w, __ATOMIC_RELAXED), take; /* rlx: the exchange looks again */
    do {
        take = stw ? marked(old) | closed(old) : closed(old);
        if (take == 0)
            return 0;
        /* acq_rel: no read of a slot before it; marks that come in between make it fail */
    } while (!__atomic_compare_exchange_n(w, &old, old & ~(take * 3), false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
    return take;
}

static void take(uintptr_t lo, uintptr_t hi, bool stw, cards_fn *fn, void *arg)
{
    uint64_t *first = word_of(lo), *end = word_of(hi);
    uintptr_t from = 0, to = 0; /* the run so far */
    for (uint64_t *w = first; w < end; w++)
        for (uint64_t t = clear_word(w, stw); t != 0; t &= t - 1) {
            uintptr_t at = lo + ((size_t)(w - first) * CARDS_A_WORD + bits_ctz(t) / 8) * CARD_BYTES;
            if (at != to) {
                if (from != to)
                    fn(arg, from, to);
                from = at;
            }
            to = at + CARD_BYTES;
        }
    if (from != to)
        fn(arg, from, to);
}

void cards_take(uintptr_t lo, uintptr_t hi, cards_fn *fn, void *arg) { take(lo, hi, false, fn, arg); }
void cards_take_stw(uintptr_t lo, uintptr_t hi, cards_fn *fn, void *arg) { take(lo, hi, true, fn, arg); }
