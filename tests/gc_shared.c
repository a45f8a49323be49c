/* The heap in the hands of several processors and threads at once. */
#include <pthread.h>
#include <stdatomic.h>
#include "test.h"

enum { OBJECTS = 20000, SLOTS = 64, BYTES = 1152 }; /* a class whose spans are given out in several runs */

/* A ring of objects: one fiber fills it, a thread of the host looks at what it finds, in the same spans and at the same time. */
static _Atomic(char *) slot[SLOTS];
static atomic_int made, looked;

static void *look_main(void *arg)
{
    (void)arg;
    int bad = 0;
    cr_assert_eq(weft_attach(), 0); /* from then on what it holds is seen */
    for (unsigned i = 0; made < OBJECTS; i++) {
        char *p = slot[i % SLOTS];
        if (p != NULL)
            bad += weft_object_base(p + i % BYTES) != p || weft_object_size(p) != BYTES;
        looked++;
    }
    return (void *)(intptr_t)bad;
}

static void ask_and_allocate(void *arg)
{
    (void)arg;
    pthread_t t;
    void *bad;
    pthread_create(&t, NULL, look_main, NULL);
    test_until(looked != 0);
    while (made < OBJECTS) {
        slot[made % SLOTS] = weft_alloc(BYTES);
        made++;
    }
    pthread_join(t, &bad);
    cr_assert_eq(bad, NULL);
}

Test(gc_shared, neighbours_of_objects_being_made_can_be_asked_for)
{
    test_run_debug(2, "gcpoison=1", ask_and_allocate, NULL);
}
