/* Text from a format without libc's stdio: for w_fatal, signal handlers and stops, where stdio's locks may be held by a
 * stopped thread.
 *
 * Knows %% %c %s %d %i %u %x %p, the lengths l ll z j t, a width (with 0 or - before it) and, for %s, a precision. */
#ifndef WEFT_BASE_FMT_H
#define WEFT_BASE_FMT_H

#include <stdarg.h>
#include "base/base.h"

/* As snprintf: writes at most n - 1 bytes and a NUL (nothing if n is 0), returns the length of the whole text. */
size_t w_fmt(char *buf, size_t n, const char *fmt, ...) w_printf(3, 4);
size_t w_vfmt(char *buf, size_t n, const char *fmt, va_list ap);

/* Writes all bytes to a descriptor by write(2); gives up on an error. errno is left alone. */
void w_write_all(int fd, const char *s, size_t n);

#endif
