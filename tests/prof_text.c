/* Profiles as text, and where their stacks begin, when memory runs out in the middle. */
#include "base/fail.h"
#include "base/offheap.h"
#include "prof/text.h"
#include "test.h"
#include <weft/sync.h>

#define FULL 192u /* places in a table before it has to grow */

static struct trim trim;
static uintptr_t pc[FULL + 64];

/* Different addresses of code. */
static void addresses(void)
{
    for (uint32_t i = 0; i < w_countof(pc); i++)
        pc[i] = (uintptr_t)test_run_each + 1 + i;
}

/* From here on there is no memory for a larger table. */
static void memory_ends(void)
{
    fail_arm(FAIL_MEM, 1, UINT64_MAX);
    for (void *p; (p = off_alloc(OFF_PROF, FULL * 2 * sizeof(uint32_t))) != NULL;)
        *(void *volatile *)p = NULL;
}

static void begin(void)
{
    const struct maps *maps = maps_begin(symbols_gone);
    cr_assert_not_null(maps);
    trim_init(&trim, maps);
    addresses();
}

Test(prof_text, what_was_found_once_is_found_without_memory)
{
    struct text t = { 0 };
    struct text_places places;
    begin();
    text_places_init(&places, &trim);
    text_stack(&t, &places, pc, FULL - 2);
    cr_assert_eq(places.table.used, FULL - 2);
    memory_ends();
    text_stack(&t, &places, pc + FULL - 4, 10);
    fail_disarm();
    cr_expect_eq(places.table.used, FULL);
    cr_expect(t.nomem, "what was not found is not passed over in silence");
}

Test(prof_text, a_stack_begins_where_it_should_without_memory)
{
    begin();
    for (uint32_t i = 0; i < FULL - 2; i++)
        trim_inner(&trim, TRIM_TO_CALL, pc + i, 1);
    cr_assert_eq(trim.table.used, FULL - 2);
    uintptr_t stack[] = { (uintptr_t)weft_sema_acquire + 4, (uintptr_t)begin + 4 };
    memory_ends();
    cr_expect_eq(trim_inner(&trim, TRIM_TO_CALLER, stack, 2), 1);
    fail_disarm();
    cr_expect_eq(trim.table.used, FULL);
}
