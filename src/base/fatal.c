/* The end of the program on a broken invariant: one line, then abort(), so that the host's core dump or SIGABRT
 * handler sees it. */
#include <stdlib.h>
#include "base/base.h"
#include "base/fmt.h"

void w_fatal(const char *fmt, ...)
{
    static const char head[] = "weft: fatal: ";
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    size_t at = sizeof head - 1;
    __builtin_memcpy(line, head, at);
    size_t len = at + w_vfmt(line + at, sizeof line - at - 1, fmt, ap); /* one byte is kept for the newline */
    va_end(ap);
    len = w_min(len, sizeof line - 2);
    line[len] = '\n';
    w_write_all(2, line, len + 1); /* one write: lines of several threads do not mix */
    abort();
}
