#include "debug/serve/access.h"
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

const char *token_wrong(const char *token)
{
    size_t n = strlen(token);
    if (n < TOKEN_MIN)
        return "the token is too short: at least 16 bytes, of a random number (head -c 24 /dev/urandom | base64)";
    if (n > TOKEN_MAX)
        return "the token is too long: at most 512 bytes";
    for (size_t i = 0; i < n; i++)
        if (token[i] <= ' ' || token[i] > '~')
            return "the token has a space, or what cannot be printed: clients cannot send it";
    return NULL;
}

/* Every byte of the token is looked at, whatever was given. Only its length shows in the time. */
static bool same(const char *given, size_t n, const char *token)
{
    size_t want = strlen(token);
    unsigned char differ = n != want;
    for (size_t i = 0; i < want; i++)
        differ |= (unsigned char)(token[i] ^ (i < n ? given[i] : 0));
    __asm__ volatile("" : "+r"(differ)); /* the compiler does not look for a way to end the loop early */
    return differ == 0;
}

static int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

#define BASIC_MAX (TOKEN_MAX + 256) /* user and password */

/* Up to the padding. False: something else stands in it, or it is longer than what we may be sent. */
static bool base64_decode(const char *text, char *out, size_t *n)
{
    uint32_t bits = 0;
    unsigned have = 0;
    *n = 0;
    for (; *text != 0 && *text != '='; text++) {
        int d = base64_digit(*text);
        if (d < 0 || *n == BASIC_MAX)
            return false;
        bits = bits << 6 | (uint32_t)d;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[(*n)++] = (char)(bits >> have);
        }
    }
    return text[strspn(text, "=")] == 0;
}

bool token_shown(const char *authorization, const char *token)
{
    char plain[BASIC_MAX];
    size_t n;
    if (authorization == NULL)
        return false;
    if (strncasecmp(authorization, "Bearer ", 7) == 0) {
        const char *given = authorization + 7 + strspn(authorization + 7, " ");
        return same(given, strlen(given), token);
    }
    if (strncasecmp(authorization, "Basic ", 6) != 0)
        return false;
    bool good = base64_decode(authorization + 6 + strspn(authorization + 6, " "), plain, &n);
    const char *colon = good ? memchr(plain, ':', n) : NULL;
    good = colon != NULL && same(colon + 1, n - (size_t)(colon + 1 - plain), token);
    explicit_bzero(plain, sizeof plain);
    return good;
}

/* The name in front of ":port", without brackets, into out. */
static bool host_name(const char *host, char *out, size_t room)
{
    const char *end = host[0] == '[' ? strchr(host, ']') : strchrnul(host, ':');
    host += host[0] == '[';
    if (end == NULL || (size_t)(end - host) >= room)
        return false;
    memcpy(out, host, (size_t)(end - host));
    out[end - host] = 0;
    const char *port = *end == ']' ? end + 1 : end;
    return *port == 0 || (*port == ':' && strspn(port + 1, "0123456789") == strlen(port + 1));
}

static bool ends_in(const char *text, const char *tail)
{
    size_t n = strlen(text), m = strlen(tail);
    return n >= m && strcasecmp(text + n - m, tail) == 0;
}

bool host_is_local(const char *host)
{
    char name[256];
    unsigned char binary[16];
    if (host == NULL)
        return true;
    if (!host_name(host, name, sizeof name))
        return false;
    if (inet_pton(AF_INET, name, binary) == 1 || inet_pton(AF_INET6, name, binary) == 1)
        return true;
    return strcasecmp(name, "localhost") == 0 || ends_in(name, ".localhost");
}

bool asked_by_other_site(const char *sec_fetch_site, const char *origin, const char *host, bool tls)
{
    char ours[300];
    if (sec_fetch_site != NULL)
        return strcmp(sec_fetch_site, "same-origin") != 0 && strcmp(sec_fetch_site, "none") != 0;
    if (origin == NULL)
        return false;
    if (host == NULL || snprintf(ours, sizeof ours, "%s://%s", tls ? "https" : "http", host) >= (int)sizeof ours)
        return true;
    return strcasecmp(origin, ours) != 0;
}

bool is_navigation(const char *sec_fetch_mode) { return sec_fetch_mode != NULL && strcmp(sec_fetch_mode, "navigate") == 0; }
