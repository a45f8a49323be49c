/* JSON, as it goes into a growing text. A document is opened, filled and closed in order; commas come by themselves.
 *
 * Numbers: who reads JSON mostly has doubles, in which integers beyond 2^53 are not exact. Such a one is written as a string of its digits. */
#ifndef WEFT_DEBUG_JSON_H
#define WEFT_DEBUG_JSON_H

#include "prof/text.h"

struct json {
    struct text *t;
    uint64_t more;  /* by depth: something was put there already */
    unsigned depth;
};

/* key NULL: in a list, or the document itself. kind: '{' or '['. */
void json_open(struct json *j, const char *key, char kind);
void json_close(struct json *j, char kind); /* '}' or ']' */
void json_u64(struct json *j, const char *key, uint64_t v);
void json_i64(struct json *j, const char *key, int64_t v);
void json_f64(struct json *j, const char *key, double v); /* six decimals at most; null if it is no number */
void json_bool(struct json *j, const char *key, bool v);
void json_null(struct json *j, const char *key);
void json_str(struct json *j, const char *key, const char *s); /* any bytes: what is no UTF-8 becomes U+FFFD. NULL: null */
/* A figure of which the highest value, or a negative one, stands for "none": null then. */
void json_limit(struct json *j, const char *key, uint64_t v);
/* A string alone, in quotation marks, for who writes the rest of the document himself. Any bytes, as above. */
void json_string(struct text *t, const char *s);

#endif
