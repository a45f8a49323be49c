/* Lists, bits, random numbers, text without stdio. */
#include <stdio.h>
#include <string.h>
#include "base/bits.h"
#include "base/fmt.h"
#include "base/list.h"
#include "base/real.h"
#include "base/rng.h"
#include "test.h"

struct item { int v; struct list link; };

static int sum_in_order(struct list *head)
{
    int s = 0;
    list_each(n, head)
        s = s * 10 + list_entry(n, struct item, link)->v;
    return s;
}

Test(list, keeps_order_and_forgets_what_is_removed)
{
    struct list head, other;
    struct item it[6];
    list_init(&head);
    list_init(&other);
    for (int i = 0; i < 6; i++)
        it[i].v = i + 1;
    cr_expect(list_empty(&head));
    cr_expect_null(list_pop_front(&head));
    list_add_back(&head, &it[1].link);
    list_add_back(&head, &it[2].link);
    list_add_front(&head, &it[0].link);
    cr_expect_eq(sum_in_order(&head), 123);
    list_del(&it[1].link);
    cr_expect(!list_linked(&it[1].link));
    cr_expect(list_linked(&it[2].link));
    cr_expect_eq(sum_in_order(&head), 13);
    list_add_back(&other, &it[3].link);
    list_add_back(&other, &it[4].link);
    list_splice_back(&head, &other);
    cr_expect(list_empty(&other));
    cr_expect_eq(sum_in_order(&head), 1345);
    list_splice_back(&head, &other);
    cr_expect_eq(sum_in_order(&head), 1345);
    list_each(n, &head)
        list_del(n);
    cr_expect(list_empty(&head));
}

Test(bits, next_finds_each_set_bit_once)
{
    uint64_t map[5];
    struct rng r;
    uint64_t seed = test_seed();
    rng_seed(&r, seed);
    for (int round = 0; round < 500; round++) {
        size_t n = 1 + rng_below(&r, 300), want = 0, got = 0;
        memset(map, 0, sizeof map);
        for (uint32_t k = rng_below(&r, 20); k > 0; k--)
            bits_set(map, rng_below(&r, 320));
        for (size_t i = 0; i < n; i++)
            want += bits_get(map, i);
        for (size_t i = bits_next(map, n, 0); i < n; i = bits_next(map, n, i + 1), got++)
            cr_assert(bits_get(map, i));
        cr_assert_eq(got, want, "n %zu, round %d", n, round);
        cr_assert_eq(bits_next(map, n, n), n);
    }
}

Test(bits, powers)
{
    cr_expect_eq(bits_pow2_up(0), 1u);
    cr_expect_eq(bits_pow2_up(1), 1u);
    cr_expect_eq(bits_pow2_up(65), 128u);
    cr_expect_eq(bits_pow2_up(1ull << 63), 1ull << 63);
    cr_expect_eq(bits_pow2_up((1ull << 63) + 1), 0u);
    cr_expect_eq(bits_log2(1), 0u);
    cr_expect_eq(bits_log2(~0ull), 63u);
    cr_expect_eq(bits_mask(0), 0u);
    cr_expect_eq(bits_mask(64), ~0ull);
    cr_expect(!bits_is_pow2(0) && bits_is_pow2(4096) && !bits_is_pow2(4097));
}

Test(rng, is_uniform_and_neighbouring_seeds_differ)
{
    unsigned count[10] = { 0 }, same = 0;
    struct rng a, b;
    rng_seed(&a, 1);
    rng_seed(&b, 2);
    double sum = 0;
    for (int i = 0; i < 100000; i++) {
        uint32_t x = rng_below(&a, 10);
        cr_assert_lt(x, 10u);
        count[x]++;
        same += x == rng_below(&b, 10);
        double u = rng_unit(&a);
        cr_assert(u >= 0 && u < 1);
        sum += u;
    }
    for (int i = 0; i < 10; i++) /* 5 standard deviations are 475 */
        cr_expect(count[i] > 9500 && count[i] < 10500, "%d: %u", i, count[i]);
    cr_expect(same > 9500 && same < 10500);
    cr_expect(sum > 49500 && sum < 50500);
}

/* Against the real one, wherever both know the format. */
#define SAME(...)                                                          \
    do {                                                                   \
        char a_[200], b_[200];                                             \
        size_t n_ = w_fmt(a_, sizeof a_, __VA_ARGS__);                     \
        int m_ = snprintf(b_, sizeof b_, __VA_ARGS__);                     \
        cr_expect_str_eq(a_, b_);                                          \
        cr_expect_eq(n_, (size_t)m_);                                      \
    } while (0)

Test(fmt, writes_as_printf_does)
{
    SAME("plain, 100%%");
    SAME("%s|%10s|%-10s|%.3s|%.*s", "abc", "abc", "abc", "abcdef", 2, "xyz");
    SAME("%d %d %d %i", 0, -1, INT32_MAX, INT32_MIN);
    SAME("%5d|%-5d|%05d|%05d|%3d", 42, 42, 42, -42, 123456);
    SAME("%u %x %08x", UINT32_MAX, 0xdeadbeefu, 0xbeefu);
    SAME("%ld %lld %zu %lu %llx %zd", INT64_MIN, (long long)INT64_MAX, SIZE_MAX, 7ul, ~0ull, (ssize_t)-3);
    SAME("%c%c", 'o', 'k');
    SAME("%p", (void *)0x1234abcd);
}

Test(fmt, cuts_and_tells_the_whole_length)
{
    char buf[8];
    memset(buf, '#', sizeof buf);
    cr_expect_eq(w_fmt(buf, 5, "%s", "abcdefgh"), 8u);
    cr_expect_str_eq(buf, "abcd");
    cr_expect_eq(buf[5], '#');
    cr_expect_eq(w_fmt(NULL, 0, "%d", 123), 3u);
    cr_expect_eq(w_fmt(buf, 1, "x"), 1u);
    cr_expect_str_eq(buf, "");
}

static bool near(double got, double want)
{
    double off = got < want ? want - got : got - want;
    return off <= 1e-13 * (want < 0 ? -want : want);
}

Test(real, log_and_exp_are_those_of_the_books)
{
    static const struct { double x, log; } l[] = {
        { 1, 0 }, { 2, 0.69314718055994530942 }, { 10, 2.3025850929940456840 }, { 0.5, -0.69314718055994530942 },
        { 1e-16, -36.841361487904730944 }, { 1e300, 690.77552789821370521 }, { 1.41421, 0.34657107129862738 }, { 1.41422, 0.34657814235925119 },
        { 0.999999, -1.0000005000003333335e-06 },
    };
    static const struct { double x, exp; } e[] = {
        { 0, 1 }, { -1, 0.36787944117144232160 }, { -1e-9, 0.99999999900000000050 }, { -0.34657359027997264, 0.70710678118654757 },
        { -10, 4.5399929762484851536e-05 }, { -100, 3.7200759760208359630e-44 }, { -699, 2.6801379583386070e-304 }, { -1000, 0 },
    };
    for (size_t i = 0; i < w_countof(l); i++) /* near 1 the logarithm is small, and its error relative to x */
        cr_expect(near(real_log(l[i].x), l[i].log) || (l[i].x > 0.99 && l[i].x < 1.01 && near(1 + real_log(l[i].x), 1 + l[i].log)), "log %g: %.17g",
                  l[i].x, real_log(l[i].x));
    for (size_t i = 0; i < w_countof(e); i++)
        cr_expect(near(real_exp(e[i].x), e[i].exp), "exp %g: %.17g, not %.17g", e[i].x, real_exp(e[i].x), e[i].exp);
}
