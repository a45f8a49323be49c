/* Texts of errors, and the version. */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include "test.h"

Test(base_err, known_errors_say_what_to_do)
{
    static const int returned[] = { EINVAL, ENOMEM, EPIPE, ETIMEDOUT, EAGAIN, EDEADLK, EALREADY, ESRCH, EBUSY,
                                    EPERM, EEXIST, ELOOP, ENOENT, EOVERFLOW, ERANGE, ECANCELED, ENOSPC, EXDEV, E2BIG, EIO, EACCES, EADDRINUSE,
                                    EADDRNOTAVAIL, EMFILE };
    for (size_t i = 0; i < sizeof returned / sizeof returned[0]; i++) {
        const char *text = weft_strerror(-returned[i]);
        cr_expect_not_null(strchr(text, ':'), "%d: \"%s\" has no advice", returned[i], text);
        cr_expect_str_neq(text, strerror(returned[i]));
        cr_expect_eq(text, weft_strerror(returned[i]), "sign should not matter");
    }
}

/* It is what weft_debug_serve returns for an address that others can reach. */
Test(base_err, eperm_speaks_of_the_address_too) { cr_expect_not_null(strstr(weft_strerror(-EPERM), "address"), "%s", weft_strerror(-EPERM)); }

Test(base_err, any_number_has_a_text)
{
    static const int odd[] = { 0, -ENOTDIR, -100000, 100000, INT_MIN, INT_MAX };
    errno = 77;
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++)
        cr_expect_gt(strlen(weft_strerror(odd[i])), 3u);
    cr_expect_eq(errno, 77);
    cr_expect_str_eq(weft_strerror(-ENOTDIR), strerror(ENOTDIR));
}

Test(base_err, version_of_library_is_that_of_header)
{
    cr_expect_str_eq(weft_version(), WEFT_VERSION);
}
