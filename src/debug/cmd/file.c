#include "debug/cmd/file.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include "debug/cmd/profile.h"
#include "debug/cmd/rules.h"
#include "debug/cmd/trace.h"

uint8_t *file_read(const char *path, size_t *n)
{
    int fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC), err = 0;
    if (fd < 0)
        return NULL;
    size_t room = 1 << 16;
    uint8_t *data = must_grow(NULL, room);
    *n = 0;
    for (;;) {
        ssize_t got = read(fd, data + *n, room - *n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            err = errno;
        if (got <= 0)
            break;
        *n += (size_t)got;
        if (*n == room)
            data = must_grow(data, room *= 2);
    }
    if (fd != STDIN_FILENO)
        close(fd);
    if (err == 0)
        return data;
    free(data);
    errno = err;
    return NULL;
}

/* One member at *at, appended to out; false: there is none, or it is not whole. */
static bool member(const uint8_t *data, size_t size, size_t *at, uint8_t **out, size_t *n, size_t *room, size_t limit)
{
    z_stream z = { 0 };
    size_t from = *at, got = *n;
    int rc = Z_OK;
    if (inflateInit2(&z, 16 + 15) != Z_OK)
        return false;
    while (rc == Z_OK && (z.avail_in > 0 || from < size)) {
        if (z.avail_in == 0) {
            size_t some = size - from < 1u << 30 ? size - from : 1u << 30;
            z.next_in = (Bytef *)(uintptr_t)(data + from);
            z.avail_in = (uInt)some;
            from += some;
        }
        if (got == *room)
            *out = must_grow(*out, *room *= 2);
        size_t free_bytes = *room - got < 1u << 30 ? *room - got : 1u << 30;
        z.next_out = *out + got;
        z.avail_out = (uInt)free_bytes;
        rc = inflate(&z, Z_NO_FLUSH);
        got += free_bytes - z.avail_out;
        if (rc == Z_BUF_ERROR && z.avail_out == 0)
            rc = Z_OK;
        if (got > limit)
            rc = Z_MEM_ERROR;
    }
    *at = from - z.avail_in;
    inflateEnd(&z);
    if (rc != Z_STREAM_END)
        return false;
    *n = got;
    return true;
}

uint8_t *file_gunzip(const uint8_t *data, size_t size, size_t limit, size_t *n, bool *cut)
{
    size_t at = 0, room = 1 << 16;
    uint8_t *out = must_grow(NULL, room);
    *n = 0;
    *cut = size == 0;
    while (at < size && !*cut)
        *cut = !member(data, size, &at, &out, n, &room, limit);
    return out;
}

static bool zipped(const uint8_t *data, size_t n) { return n >= 2 && data[0] == 0x1f && data[1] == 0x8b; }

static bool is_trace(const uint8_t *data, size_t n) { return n >= 5 && memcmp(data, "go 1.", 5) == 0; }

struct profile *file_profile(struct report *r, const uint8_t *data, size_t n, size_t limit)
{
    uint8_t *plain = NULL;
    bool cut;
    if (zipped(data, n))
        data = plain = file_gunzip(data, n, limit, &n, &cut);
    const char *why = n == 0 ? "empty, or cut before anything in it is complete" : "a trace, where a profile is needed";
    struct profile *p = n > 0 && !is_trace(data, n) ? profile_read(data, n, &why) : NULL;
    if (p == NULL)
        report_error(r, "%s", why);
    free(plain);
    return p;
}

void file_look(struct report *r, const uint8_t *data, size_t n, const struct profile *base, size_t limit)
{
    uint8_t *plain = NULL;
    bool cut = false;
    const char *why = "empty: a profile or trace that was not stopped, or could not be written";
    struct profile *p = NULL;
    if (zipped(data, n)) {
        why = "cut before the end of its first gzip member: a profile that was not stopped, or no such file";
        data = plain = file_gunzip(data, n, limit, &n, &cut);
    }
    if (n > 0 && is_trace(data, n))
        look_trace(r, data, n);
    else if (n > 0 && (p = profile_read(data, n, &why)) != NULL)
        look_profile(r, p, base, cut);
    else
        report_error(r, "%s", why);
    profile_free(p);
    free(plain);
}
