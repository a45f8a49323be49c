/* Strings and stacks: each once, from all threads, until the table is full. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/offheap.h"
#include "base/rng.h"
#include "test.h"
#include "trace/tables.h"

#define KEYS 3000
#define THREADS 4

static struct trace_table t;

static size_t key_of(uint32_t k, char *buf)
{
    return (size_t)sprintf(buf, "%u%.*s", k, (int)(k % 50), ".................................................");
}

static void *puts_all(void *arg)
{
    struct rng r;
    uint32_t *ids = arg;
    rng_seed(&r, (uintptr_t)arg);
    for (int i = 0; i < KEYS * 4; i++) {
        char buf[80];
        uint32_t k = i < KEYS ? (uint32_t)i : rng_below(&r, KEYS);
        uint32_t id = table_put(&t, buf, key_of(k, buf));
        if (id == 0 || (ids[k] != 0 && ids[k] != id))
            return (void *)"a key has two ids";
        ids[k] = id;
    }
    return NULL;
}

struct check { uint32_t n; uint32_t id[KEYS]; };

static bool see(void *arg, const struct table_entry *e)
{
    struct check *c = arg;
    char buf[80] = "";
    memcpy(buf, e->data, w_min((size_t)e->len, sizeof buf - 1));
    uint32_t k = (uint32_t)strtoul(buf, NULL, 10);
    if (k >= KEYS || key_of(k, buf) != e->len || memcmp(buf, e->data, e->len) != 0)
        return false;
    c->n++;
    c->id[k] = e->id;
    return true;
}

Test(trace_tables, threads_get_the_same_id_for_the_same_bytes)
{
    static uint32_t ids[THREADS][KEYS];
    static struct check c;
    static bool seen[KEYS * THREADS * 2];
    cr_assert_eq(off_init(), 0);
    cr_assert_eq(table_open(&t, 1 << 20), 0);
    for (int round = 0; round < 20; round++) {
        pthread_t th[THREADS];
        table_reset(&t, 10);
        memset(ids, 0, sizeof ids);
        memset(&c, 0, sizeof c);
        memset(seen, 0, sizeof seen);
        for (int i = 0; i < THREADS; i++)
            pthread_create(&th[i], NULL, puts_all, ids[i]);
        for (int i = 0; i < THREADS; i++) {
            void *wrong;
            pthread_join(th[i], &wrong);
            cr_assert_null(wrong, "%s", (char *)wrong);
        }
        cr_assert(table_each(&t, see, &c));
        cr_assert_eq(c.n, (uint32_t)KEYS);
        for (int k = 0; k < KEYS; k++) {
            cr_assert_gt(c.id[k], 10u);
            cr_assert_lt(c.id[k], (uint32_t)w_countof(seen));
            cr_assert(!seen[c.id[k]], "two keys have id %u", c.id[k]);
            seen[c.id[k]] = true;
            for (int i = 0; i < THREADS; i++)
                cr_assert_eq(ids[i][k], c.id[k]);
        }
    }
    table_close(&t);
}

static bool count(void *arg, const struct table_entry *e)
{
    (void)e;
    ++*(uint32_t *)arg;
    return true;
}

Test(trace_tables, a_full_one_gives_0_and_counts_and_knows_what_it_has)
{
    char buf[80];
    uint32_t kept = 0, lost = 0, n = 0;
    cr_assert_eq(off_init(), 0);
    cr_assert_eq(table_open(&t, 8192), 0);
    cr_expect(!table_fills(&t));
    for (uint32_t k = 0; k < KEYS; k++)
        if (table_put(&t, buf, key_of(k, buf)) != 0)
            kept++;
        else
            lost++;
    cr_expect(table_fills(&t));
    cr_expect(kept > 8192 / 120 && kept < 8192 / 20, "%u kept", kept);
    cr_expect_eq(load_rlx(&t.lost), lost);
    cr_expect_neq(table_put(&t, buf, key_of(0, buf)), 0u);
    table_each(&t, count, &n);
    cr_expect_eq(n, kept);
    table_reset(&t, 0);
    n = 0;
    table_each(&t, count, &n);
    cr_expect_eq(n, 0u);
    cr_expect_eq(table_put(&t, "x", 1), 1u);
    table_close(&t);
}

Test(trace_tables, lengths_that_share_a_beginning_are_different)
{
    static const char zeros[40];
    uint32_t id[41];
    cr_assert_eq(off_init(), 0);
    cr_assert_eq(table_open(&t, 65536), 0);
    for (size_t n = 1; n <= 40; n++) {
        id[n] = table_put(&t, zeros, n);
        for (size_t k = 1; k < n; k++)
            cr_assert_neq(id[k], id[n]);
    }
    table_close(&t);
}
