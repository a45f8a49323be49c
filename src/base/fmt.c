/* See fmt.h. Everything goes through put(), which counts on after the buffer is full. */
#include "base/fmt.h"
#include <errno.h>
#include <string.h>
#include "base/syscall.h"

struct out { char *buf; size_t room, len; };

static void put(struct out *o, char c)
{
    if (o->len < o->room)
        o->buf[o->len] = c;
    o->len++;
}

struct spec { bool left, zero; size_t width; int precision; };

static void put_padded(struct out *o, const char *s, size_t n, const struct spec *sp, bool number)
{
    size_t pad = sp->width > n ? sp->width - n : 0;
    bool zero = sp->zero && number && !sp->left;
    if (zero && n > 0 && *s == '-') {
        put(o, *s++);
        n--;
    }
    for (; !sp->left && pad > 0; pad--)
        put(o, zero ? '0' : ' ');
    for (size_t i = 0; i < n; i++)
        put(o, s[i]);
    for (; pad > 0; pad--)
        put(o, ' ');
}

static void put_number(struct out *o, uint64_t v, unsigned base, bool negative, const char *prefix,
                       const struct spec *sp)
{
    char digits[32], *p = digits + sizeof digits;
    do {
        *--p = "0123456789abcdef"[v % base];
        v /= base;
    } while (v != 0);
    for (size_t i = strlen(prefix); i > 0; i--)
        *--p = prefix[i - 1];
    if (negative)
        *--p = '-';
    put_padded(o, p, (size_t)(digits + sizeof digits - p), sp, true);
}

/* One wide length for l, ll, z, j and t. */
_Static_assert(sizeof(long) == sizeof(long long) && sizeof(long) == sizeof(size_t), "LP64");

static int64_t take_signed(va_list *ap, bool wide)
{
    return wide ? va_arg(*ap, long) : va_arg(*ap, int);
}

static uint64_t take_unsigned(va_list *ap, bool wide)
{
    return wide ? va_arg(*ap, unsigned long) : va_arg(*ap, unsigned);
}

size_t w_vfmt(char *buf, size_t n, const char *fmt, va_list args)
{
    struct out o = { buf, n > 0 ? n - 1 : 0, 0 };
    va_list ap;
    va_copy(ap, args);
    for (; *fmt != 0; fmt++) {
        if (*fmt != '%') {
            put(&o, *fmt);
            continue;
        }
        struct spec sp = { .precision = -1 };
        for (fmt++; *fmt == '0' || *fmt == '-'; fmt++)
            *(*fmt == '0' ? &sp.zero : &sp.left) = true;
        for (; *fmt >= '0' && *fmt <= '9'; fmt++)
            sp.width = sp.width * 10 + (size_t)(*fmt - '0');
        if (*fmt == '.') {
            sp.precision = 0;
            if (fmt[1] == '*') {
                sp.precision = va_arg(ap, int);
                fmt++;
            }
            for (fmt++; *fmt >= '0' && *fmt <= '9'; fmt++)
                sp.precision = sp.precision * 10 + (*fmt - '0');
        }
        bool wide = false;
        for (; *fmt != 0 && strchr("lzjt", *fmt) != NULL; fmt++)
            wide = true;
        switch (*fmt) {
        case 'c': {
            char c = (char)va_arg(ap, int);
            put_padded(&o, &c, 1, &sp, false);
            break;
        }
        case 's': {
            const char *s = va_arg(ap, const char *);
            if (s == NULL)
                s = "(null)";
            put_padded(&o, s, sp.precision >= 0 ? strnlen(s, (size_t)sp.precision) : strlen(s), &sp, false);
            break;
        }
        case 'd':
        case 'i': {
            int64_t v = take_signed(&ap, wide);
            put_number(&o, v < 0 ? -(uint64_t)v : (uint64_t)v, 10, v < 0, "", &sp);
            break;
        }
        case 'u':
            put_number(&o, take_unsigned(&ap, wide), 10, false, "", &sp);
            break;
        case 'x':
            put_number(&o, take_unsigned(&ap, wide), 16, false, "", &sp);
            break;
        case 'p':
            put_number(&o, (uintptr_t)va_arg(ap, void *), 16, false, "0x", &sp);
            break;
        case 0:
            fmt--;
            break;
        default:
            put(&o, *fmt);
        }
    }
    va_end(ap);
    if (n > 0)
        buf[w_min(o.len, o.room)] = 0;
    return o.len;
}

size_t w_fmt(char *buf, size_t n, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    size_t len = w_vfmt(buf, n, fmt, ap);
    va_end(ap);
    return len;
}

void w_write_all(int fd, const char *s, size_t n)
{
    while (n > 0) {
        long r = sys_call3(SYS_write, fd, s, n);
        if (r == -EINTR)
            continue;
        if (r <= 0)
            return;
        s += r;
        n -= (size_t)r;
    }
}
