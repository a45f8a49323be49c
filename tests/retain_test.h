/* What tests of weft_why_alive and weft_heap_dump share: a look into what was written, without reading all of it. */
#ifndef WEFT_RETAIN_TEST_H
#define WEFT_RETAIN_TEST_H

#include "json_test.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The number behind the first key of that name behind `after`, which is itself looked for; "" or NULL: from the beginning. -1: none. */
static inline double json_number(const char *text, const char *after, const char *key)
{
    char name[80];
    snprintf(name, sizeof name, "\"%s\":", key);
    const char *p = after != NULL && *after != 0 ? strstr(text, after) : text;
    p = p != NULL ? strstr(p, name) : NULL;
    return p != NULL ? strtod(p + strlen(name), NULL) : -1;
}

#endif
