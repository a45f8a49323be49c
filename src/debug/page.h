/* Pages of text for people. See page.c. */
#ifndef WEFT_DEBUG_PAGE_H
#define WEFT_DEBUG_PAGE_H

#include "debug/look.h"

/* Parts of it by name; the last one has none. */
struct page_part { const char *what; unsigned wants; void (*make)(struct look *l); };
extern const struct page_part page_parts[];

#endif
