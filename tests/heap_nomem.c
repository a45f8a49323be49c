/* Out of memory: NULL after a collection was tried, everything else works on, and what is dropped comes back. In child programs, whose address space
 * is limited. */
#include "test.h"
#include <string.h>
#include "base/base.h"

static struct test_output out;

static void survives(const char *what, const char *procs)
{
    test_child(&out, (const char *const[]){ TEST_PROG("nomem"), what, procs, NULL }, (const char *const[]){ "WEFT_DEBUG=gcstress=0", NULL });
    cr_assert(out.exit_code == 0 && strstr(out.text, "ok\n") != NULL, "nomem %s %s: exit %d, signal %d: %s", what, procs, out.exit_code, out.term_signal, out.text);
}

Test(heap_nomem, the_reserved_range_is_full)
{
    survives("reserve", "1");
    survives("reserve", "3");
}

/* Sanitizers need more address space than any limit here. */
#if !defined(W_ASAN) && !defined(W_TSAN)
Test(heap_nomem, the_address_space_is_limited)
{
    test_needs_a_kernel();
    survives("limit", "1");
    survives("limit", "3");
}

Test(heap_nomem, a_collection_that_gets_no_memory)
{
    survives("cycle", "1");
    survives("cycle", "2");
}
#endif
