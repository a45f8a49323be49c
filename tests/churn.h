/* Much that goes on while a test looks: fibers that start others, wait for them, and allocate. */
#ifndef WEFT_TEST_CHURN_H
#define WEFT_TEST_CHURN_H

#include "test.h"
#include "base/atomic.h"

static w_u32 churn_over;

static inline void churn_nothing(void *arg) { (void)arg; }

static inline void churn(void *arg)
{
    (void)arg;
    weft_set_name("churns");
    while (load_acq(&churn_over) == 0) {
        weft_waitgroup g = { 0 };
        for (int i = 0; i < 50; i++)
            weft_waitgroup_go(&g, churn_nothing, NULL);
        weft_waitgroup_wait(&g);
        weft_alloc(100);
    }
}

static inline void churn_begin(void)
{
    store_rel(&churn_over, 0);
    for (int i = 0; i < 4; i++)
        weft_go(churn, NULL);
}

/* When it returns the caller is the only fiber. */
static inline void churn_end(void)
{
    store_rel(&churn_over, 1);
    test_until(weft_num_fibers() == 1);
}

#endif
