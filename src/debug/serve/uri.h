/* What stands in a request: its target, parameters, numbers. Pure functions on text that anybody may have sent; as Go's net/url and strconv read it.
 * See uri.c. */
#ifndef WEFT_SERVE_URI_H
#define WEFT_SERVE_URI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct uri {
    char *path;       /* decoded, begins with '/', has no NUL inside */
    const char *query; /* raw, "" if there is none */
};

/* Takes raw ("/a/b?c", or "http://host/a/b?c", as to a proxy) apart, in place. False: it is no path. */
bool uri_split(char *raw, struct uri *out);

/* The value of the first parameter of that name whose escapes are right, decoded into out, cut to room - 1 bytes. False: there is none (out is ""). */
bool uri_param(const char *query, const char *name, char *out, size_t room);

/* The whole text as a decimal number with an optional sign. False: it is none; or beyond 64 bits, and then *out is the nearest there is. (Go: ParseInt) */
bool uri_int(const char *text, int64_t *out);
/* The same or 0 for what is none: Go's `n, _ := Atoi(text)`. */
int64_t uri_atoi(const char *text);
/* Decimal fraction with an optional exponent, "inf", "nan". Beyond the range of double: false. (Go: ParseFloat; no hexadecimal) */
bool uri_float(const char *text, double *out);

/* The next of the numbers in text[0..n) that stand between '+', base by prefix; 0: one that is none. False: no more. (Go: ParseUint(…, 0, 64)) */
bool uri_address(const char **text, size_t *n, uint64_t *out);

#endif
