/* The live page: its files lie in the library. See page.c. */
#ifndef WEFT_SERVE_PAGE_H
#define WEFT_SERVE_PAGE_H

#include "debug/serve/route.h"

/* Written by page/embed.sh out of page/dist. */
struct page_file {
    const char *name, *type, *tag;
    const unsigned char *plain;
    size_t plain_n;
    const unsigned char *gzipped;
    size_t gzipped_n;
};
extern const struct page_file page_files[];
extern const unsigned page_files_n;

int page_root(struct request *r);  /* /debug/: index.html */
int page_file(struct request *r);  /* /debug/page/NAME */

#endif
