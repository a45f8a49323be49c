/* Members of a gzip file, by zlib.
 *
 * zlib is loaded when the first member is made, as libdw is when the first address is looked up: a program that writes no profile does not carry
 * it. Where it is not installed, members hold what deflate calls stored blocks: larger, and just as good to whoever reads them.
 *
 * Each member is complete: header, data, checksum. A file that ends with one is whole, and more may be appended; that readers take several
 * members for one stream is what the format says. */
#include "prof/gzip.h"
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <zlib.h>
#include "base/offheap.h"

#define CHUNK_BYTES (64u << 10)

struct gzip_chunk {
    struct gzip_chunk *next;
    uint32_t used;
    uint8_t bytes[];
};
#define CHUNK_ROOM (CHUNK_BYTES - (uint32_t)sizeof(struct gzip_chunk))

struct gzip {
    struct gzip_bytes out;
    int err;
    bool stored;    /* no zlib: the two below instead of z */
    uint32_t crc, size;
    z_stream z;
};

/* ---- zlib ------------------------------------------------------------------------------------------------ */

#define Z_FUNCTIONS(X) X(deflateInit2_) X(deflate) X(deflateEnd)

static struct {
#define X(function) __typeof__(function) *function;
    Z_FUNCTIONS(X)
#undef X
} zlib;

static pthread_once_t zlib_once = PTHREAD_ONCE_INIT;
static bool zlib_there; /* and zlib: fixed by zlib_once */
bool gzip_without_zlib;

static void zlib_find(void)
{
    void *so = dlopen("libz.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (so == NULL)
        return;
#define X(function)                                  \
    *(void **)&zlib.function = dlsym(so, #function); \
    if (zlib.function == NULL)                       \
        return;
    Z_FUNCTIONS(X)
#undef X
    zlib_there = true;
}

static bool zlib_load(void)
{
    pthread_once(&zlib_once, zlib_find);
    return zlib_there;
}

static void *z_alloc(void *arg, unsigned n, unsigned size) { return (void)arg, off_alloc(OFF_PROF, (size_t)n * size); }
static void z_free(void *arg, void *p) { (void)arg, off_free(OFF_PROF, p); }

/* ---- bytes -------------------------------------------------------------------------------------------------- */

/* A chunk with room; NULL: no memory. */
static struct gzip_chunk *chunk_get(struct gzip *g)
{
    struct gzip_chunk *c = g->out.last;
    if (c != NULL && c->used < CHUNK_ROOM)
        return c;
    c = off_alloc(OFF_PROF, CHUNK_BYTES);
    if (c == NULL) {
        g->err = -ENOMEM;
        return NULL;
    }
    c->next = NULL;
    c->used = 0;
    if (g->out.last != NULL)
        g->out.last->next = c;
    else
        g->out.first = c;
    return g->out.last = c;
}

static void put(struct gzip *g, const void *data, size_t n)
{
    for (const uint8_t *from = data; n > 0 && g->err == 0;) {
        struct gzip_chunk *c = chunk_get(g);
        if (c == NULL)
            return;
        size_t k = w_min(n, (size_t)(CHUNK_ROOM - c->used));
        memcpy(c->bytes + c->used, from, k);
        c->used += (uint32_t)k;
        g->out.bytes += k;
        from += k;
        n -= k;
    }
}

void gzip_free(struct gzip_bytes *b)
{
    for (struct gzip_chunk *c = b->first, *next; c != NULL; c = next) {
        next = c->next;
        off_free(OFF_PROF, c);
    }
    *b = (struct gzip_bytes){ 0 };
}

bool gzip_join(struct gzip_bytes *b)
{
    if (b->first == b->last)
        return true;
    struct gzip_chunk *all = b->bytes <= UINT32_MAX ? off_alloc(OFF_PROF, sizeof *all + b->bytes) : NULL;
    if (all == NULL)
        return false;
    *all = (struct gzip_chunk){ 0 };
    for (const struct gzip_chunk *c = b->first; c != NULL; all->used += c->used, c = c->next)
        memcpy(all->bytes + all->used, c->bytes, c->used);
    gzip_free(b);
    *b = (struct gzip_bytes){ all, all, all->used };
    return true;
}

int gzip_write(const struct gzip_bytes *b, weft_writer *w, void *ctx)
{
    int err = 0;
    for (const struct gzip_chunk *c = b->first; c != NULL && err == 0; c = c->next)
        err = w(ctx, c->bytes, c->used);
    return err;
}

/* ---- stored blocks ----------------------------------------------------------------------------------------- */

/* Four bits at a time. */
static uint32_t crc_add(uint32_t crc, const uint8_t *p, size_t n)
{
    static const uint32_t table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    for (crc = ~crc; n > 0; n--) {
        crc ^= *p++;
        crc = table[crc & 15] ^ (crc >> 4);
        crc = table[crc & 15] ^ (crc >> 4);
    }
    return ~crc;
}

static void stored_block(struct gzip *g, const uint8_t *data, size_t n, bool last)
{
    uint8_t head[5] = { last, (uint8_t)n, (uint8_t)(n >> 8), (uint8_t)~n, (uint8_t)(~n >> 8) };
    put(g, head, sizeof head);
    put(g, data, n);
}

static void stored_put(struct gzip *g, const uint8_t *data, size_t n)
{
    g->crc = crc_add(g->crc, data, n);
    g->size += (uint32_t)n;
    for (size_t k; n > 0; data += k, n -= k) {
        k = w_min(n, (size_t)UINT16_MAX);
        stored_block(g, data, k, false);
    }
}

static void stored_end(struct gzip *g)
{
    uint32_t tail[2] = { g->crc, g->size }; /* little-endian, as we are */
    stored_block(g, NULL, 0, true);
    put(g, tail, sizeof tail);
}

/* ---- deflated ones ------------------------------------------------------------------------------------------ */

static void z_run(struct gzip *g, int flush)
{
    int rc = Z_OK;
    while (g->err == 0 && (g->z.avail_in > 0 || (flush == Z_FINISH && rc != Z_STREAM_END))) {
        struct gzip_chunk *c = chunk_get(g);
        if (c == NULL)
            return;
        uint32_t room = CHUNK_ROOM - c->used;
        g->z.next_out = c->bytes + c->used;
        g->z.avail_out = room;
        rc = zlib.deflate(&g->z, flush);
        w_assert(rc == Z_OK || rc == Z_STREAM_END);
        c->used += room - g->z.avail_out;
        g->out.bytes += room - g->z.avail_out;
    }
}

/* ---- a member ------------------------------------------------------------------------------------------------- */

struct gzip *gzip_begin(void)
{
    static const uint8_t head[10] = { 0x1f, 0x8b, Z_DEFLATED, 0, 0, 0, 0, 0, 0, 3 }; /* no time, no name, Unix */
    struct gzip *g = off_zalloc(OFF_PROF, sizeof *g);
    if (g == NULL)
        return NULL;
    g->stored = gzip_without_zlib || !zlib_load();
    if (g->stored) {
        put(g, head, sizeof head);
        return g;
    }
    g->z.zalloc = z_alloc;
    g->z.zfree = z_free;
    /* The fastest: of what profiles hold it leaves a third. 16 + the window: with gzip's header. */
    if (zlib.deflateInit2_(&g->z, 1, Z_DEFLATED, 16 + 15, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION, (int)sizeof g->z) != Z_OK) {
        off_free(OFF_PROF, g);
        return NULL;
    }
    return g;
}

void gzip_put(struct gzip *g, const void *data, size_t n)
{
    if (g->stored) {
        stored_put(g, data, n);
        return;
    }
    for (size_t k; n > 0; data = (const uint8_t *)data + k, n -= k) {
        k = w_min(n, (size_t)INT32_MAX);
        g->z.next_in = (Bytef *)(uintptr_t)data;
        g->z.avail_in = (unsigned)k;
        z_run(g, Z_NO_FLUSH);
    }
}

void gzip_drop(struct gzip *g)
{
    if (!g->stored)
        zlib.deflateEnd(&g->z);
    gzip_free(&g->out);
    off_free(OFF_PROF, g);
}

int gzip_end(struct gzip *g, struct gzip_bytes *to)
{
    if (g->stored)
        stored_end(g);
    else
        z_run(g, Z_FINISH);
    int err = g->err;
    if (err == 0) {
        if (to->last != NULL)
            to->last->next = g->out.first;
        else
            to->first = g->out.first;
        to->last = g->out.last;
        to->bytes += g->out.bytes;
        g->out = (struct gzip_bytes){ 0 };
    }
    gzip_drop(g);
    return err;
}
