/* Who may ask. Pure functions on text that anybody may have sent. See access.c. */
#ifndef WEFT_SERVE_ACCESS_H
#define WEFT_SERVE_ACCESS_H

#include <stdbool.h>
#include <stddef.h>

#define TOKEN_MIN 16
#define TOKEN_MAX 512

/* NULL: it will do; else what is wrong, in a sentence, static. */
const char *token_wrong(const char *token);
/* The header Authorization shows the token. Takes as long whatever is wrong with it. */
bool token_shown(const char *authorization, const char *token);

/* The name in Host is a number, localhost or below it, or missing (browsers send it). */
bool host_is_local(const char *host);

/* What a browser says about who asks (NULL: nothing): the page of another site. navigation: that follows a link, or somebody typed the address. */
bool asked_by_other_site(const char *sec_fetch_site, const char *origin, const char *host, bool tls);
bool is_navigation(const char *sec_fetch_mode);

#endif
