/* The live page at /debug/: static files, which ask the other paths for all that they show.
 *
 * What is where. page/src holds the sources; page/build.sh makes page/dist of them, which is committed, as whoever builds weft need not have node;
 * page/embed.sh makes C of dist at each build. To add a view: a file in page/src, its line in the table of main.jsx, and build.sh.
 *
 * The page is to show what a process holds, so nothing may come in between: the policy lets it load scripts and styles from here, ask here, and
 * nothing else; no inline script, no other host, no frame around it. What is told as text reaches the document as text. */
#include "debug/serve/page.h"
#include <string.h>
#include <strings.h>

#define POLICY                                                                                                                \
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; "   \
    "form-action 'none'; frame-ancestors 'none'"

/* Whether the client takes gzip: a word of the list, and not with q=0. */
static bool takes_gzip(const struct request *r)
{
    const char *p = request_header(r, "Accept-Encoding");
    while (p != NULL && *p != 0) {
        p += strspn(p, " \t,");
        size_t name = strcspn(p, " \t,;"), all = strcspn(p, ",");
        if ((name == 4 && strncasecmp(p, "gzip", 4) == 0) || (name == 1 && *p == '*')) {
            const char *q = memchr(p, '=', all);
            return q == NULL || strspn(q + 1, " \t0.") < (size_t)(p + all - q - 1);
        }
        p += all;
    }
    return false;
}

static int send_file(struct request *r, const struct page_file *f)
{
    bool gzip = takes_gzip(r);
    char tag[40] = "\"";
    strcat(tag, f->tag);
    strcat(tag, gzip ? "-gz\"" : "\"");
    request_set_header(r, "ETag", tag);
    request_set_header(r, "Vary", "Accept-Encoding");
    /* Kept by the browser, and asked about each time: another process may serve another version at this address. */
    request_set_header(r, "Cache-Control", "private, no-cache");
    request_set_header(r, "Content-Security-Policy", POLICY);
    request_set_header(r, "Cross-Origin-Opener-Policy", "same-origin");
    request_type(r, f->type);
    const char *known = request_header(r, "If-None-Match");
    if (known != NULL && strstr(known, tag) != NULL) {
        request_status(r, 304);
        return 0;
    }
    if (gzip)
        request_set_header(r, "Content-Encoding", "gzip");
    return gzip ? request_write(r, f->gzipped, f->gzipped_n) : request_write(r, f->plain, f->plain_n);
}

static int send_name(struct request *r, const char *name)
{
    for (unsigned i = 0; i < page_files_n; i++)
        if (strcmp(name, page_files[i].name) == 0)
            return send_file(r, &page_files[i]);
    return request_fail(r, 404, "The page has no such file.");
}

int page_root(struct request *r) { return send_name(r, "index.html"); }
int page_file(struct request *r) { return send_name(r, request_rest(r)); }
