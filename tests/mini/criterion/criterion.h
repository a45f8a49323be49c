/* What our tests use of Criterion, in one header, for builds where Criterion itself cannot run: under TSan (its workers
 * map memory where TSan does not allow any) and under emulation. Same names, same last line ("Synthesis: ..."), each test in
 * a process of its own; a failed assertion ends the test at once, on whatever stack and thread it happens.
 * The Makefile chooses it for SAN=thread and CROSS; MINI=1 asks for it. */
#ifndef MINI_CRITERION_H
#define MINI_CRITERION_H

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mini_options {
    void (*init)(void);
    void (*fini)(void);
    int signal;    /* the test is expected to end by it */
    int exit_code; /* ... or with it */
    double timeout; /* s; 0: 60 */
    bool disabled;
    const char *description;
};

struct mini_test {
    const char *suite, *name; /* name NULL: options of the suite */
    void (*fn)(void);
    struct mini_options opt;
    struct mini_test *next;
};

void mini_register(struct mini_test *t);
/* Counts the failure and prints where; ends the test if fatal. */
__attribute__((format(printf, 5, 6))) void mini_failed(bool fatal, const char *file, int line, const char *what,
                                                       const char *fmt, ...);
__attribute__((noreturn)) void mini_end(int code);
__attribute__((noreturn, format(printf, 1, 2))) void mini_skip(const char *why, ...);

#ifdef __cplusplus
}
#endif

#define MINI_REGISTER(Id, Suite, Name, Fn, ...)                                                                     \
    static struct mini_test mini_test_##Id;                                                                         \
    __attribute__((constructor)) static void mini_reg_##Id(void)                                                    \
    {                                                                                                               \
        mini_test_##Id.suite = #Suite;                                                                              \
        mini_test_##Id.name = Name;                                                                                 \
        mini_test_##Id.fn = Fn;                                                                                     \
        mini_test_##Id.opt = MINI_OPTIONS(__VA_ARGS__);                                                             \
        mini_register(&mini_test_##Id);                                                                             \
    }                                                                                                               \
    static struct mini_test mini_test_##Id
#ifdef __cplusplus
#define MINI_OPTIONS(...) mini_options{ __VA_ARGS__ }
#else
#define MINI_OPTIONS(...) (struct mini_options){ __VA_ARGS__ }
#endif

#define Test(Suite, Name, ...)                                                                                      \
    static void Suite##_##Name##_test(void);                                                                        \
    MINI_REGISTER(Suite##_##Name, Suite, #Name, Suite##_##Name##_test, __VA_ARGS__);                                \
    static void Suite##_##Name##_test(void)
#define TestSuite(Suite, ...) MINI_REGISTER(Suite##_suite_options, Suite, NULL, NULL, __VA_ARGS__)

/* The message may be left out. */
#pragma GCC diagnostic ignored "-Wformat-zero-length"
#define MINI_CHECK(fatal, ok, what, ...)                                                                            \
    do {                                                                                                            \
        if (!(ok))                                                                                                  \
            mini_failed(fatal, __FILE__, __LINE__, what, "" __VA_ARGS__);                                           \
    } while (0)

#define cr_assert(c, ...) MINI_CHECK(true, c, #c, __VA_ARGS__)
#define cr_expect(c, ...) MINI_CHECK(false, c, #c, __VA_ARGS__)
#define cr_assert_not(c, ...) MINI_CHECK(true, !(c), "not " #c, __VA_ARGS__)
#define cr_expect_not(c, ...) MINI_CHECK(false, !(c), "not " #c, __VA_ARGS__)
#define cr_fatal(...) mini_failed(true, __FILE__, __LINE__, "failed", "" __VA_ARGS__)
#define cr_assert_fail(...) mini_failed(true, __FILE__, __LINE__, "failed", "" __VA_ARGS__)
#define cr_fail(...) mini_failed(false, __FILE__, __LINE__, "failed", "" __VA_ARGS__)
#define cr_expect_fail(...) cr_fail(__VA_ARGS__)
#define cr_skip(...) mini_skip("" __VA_ARGS__)
#define cr_skip_test(...) mini_skip("" __VA_ARGS__)
#define cr_log_info(...) (fprintf(stderr, __VA_ARGS__), fputc('\n', stderr))
#define cr_log_warn(...) cr_log_info(__VA_ARGS__)
#define cr_log_error(...) cr_log_info(__VA_ARGS__)

#define cr_assert_eq(a, b, ...) MINI_CHECK(true, (a) == (b), #a " == " #b, __VA_ARGS__)
#define cr_assert_neq(a, b, ...) MINI_CHECK(true, (a) != (b), #a " != " #b, __VA_ARGS__)
#define cr_assert_lt(a, b, ...) MINI_CHECK(true, (a) < (b), #a " < " #b, __VA_ARGS__)
#define cr_assert_leq(a, b, ...) MINI_CHECK(true, (a) <= (b), #a " <= " #b, __VA_ARGS__)
#define cr_assert_gt(a, b, ...) MINI_CHECK(true, (a) > (b), #a " > " #b, __VA_ARGS__)
#define cr_assert_geq(a, b, ...) MINI_CHECK(true, (a) >= (b), #a " >= " #b, __VA_ARGS__)
#define cr_assert_null(a, ...) MINI_CHECK(true, (a) == NULL, #a " == NULL", __VA_ARGS__)
#define cr_assert_not_null(a, ...) MINI_CHECK(true, (a) != NULL, #a " != NULL", __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...) MINI_CHECK(true, strcmp(a, b) == 0, #a " is " #b, __VA_ARGS__)
#define cr_assert_str_neq(a, b, ...) MINI_CHECK(true, strcmp(a, b) != 0, #a " is not " #b, __VA_ARGS__)
#define cr_assert_arr_eq(a, b, n, ...) MINI_CHECK(true, memcmp(a, b, n) == 0, #a " is " #b, __VA_ARGS__)
#define cr_assert_float_eq(a, b, e, ...) MINI_CHECK(true, fabs((a) - (b)) <= (e), #a " is about " #b, __VA_ARGS__)
#define cr_expect_eq(a, b, ...) MINI_CHECK(false, (a) == (b), #a " == " #b, __VA_ARGS__)
#define cr_expect_neq(a, b, ...) MINI_CHECK(false, (a) != (b), #a " != " #b, __VA_ARGS__)
#define cr_expect_lt(a, b, ...) MINI_CHECK(false, (a) < (b), #a " < " #b, __VA_ARGS__)
#define cr_expect_leq(a, b, ...) MINI_CHECK(false, (a) <= (b), #a " <= " #b, __VA_ARGS__)
#define cr_expect_gt(a, b, ...) MINI_CHECK(false, (a) > (b), #a " > " #b, __VA_ARGS__)
#define cr_expect_geq(a, b, ...) MINI_CHECK(false, (a) >= (b), #a " >= " #b, __VA_ARGS__)
#define cr_expect_null(a, ...) MINI_CHECK(false, (a) == NULL, #a " == NULL", __VA_ARGS__)
#define cr_expect_not_null(a, ...) MINI_CHECK(false, (a) != NULL, #a " != NULL", __VA_ARGS__)
#define cr_expect_str_eq(a, b, ...) MINI_CHECK(false, strcmp(a, b) == 0, #a " is " #b, __VA_ARGS__)
#define cr_expect_str_neq(a, b, ...) MINI_CHECK(false, strcmp(a, b) != 0, #a " is not " #b, __VA_ARGS__)
#define cr_expect_arr_eq(a, b, n, ...) MINI_CHECK(false, memcmp(a, b, n) == 0, #a " is " #b, __VA_ARGS__)
#define cr_expect_float_eq(a, b, e, ...) MINI_CHECK(false, fabs((a) - (b)) <= (e), #a " is about " #b, __VA_ARGS__)

#endif
