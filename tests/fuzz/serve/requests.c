/* Any bytes, as a request. Even first byte: the functions that read what stands in one (targets, parameters, numbers, tokens, names), each of which may be given
 * whatever text; odd: the whole server, over a unix socket, with a runtime behind it and a client that closes its side (so nothing waits).
 * tools/fuzz_serve.sh has libFuzzer make the bytes. */
#include "debug/serve/access.h"
#include "debug/serve/uri.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <weft.h>
#include <weft/serve.h>

#define TOKEN "0123456789abcdef"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct sockaddr_un address = { .sun_family = AF_UNIX };
static weft_debug_server *server;

static void quiet(void *arg, const char *line) { (void)arg, (void)line; }
static void end(void) { weft_debug_serve_stop(server); }

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static weft_profile *own;
    weft_config cfg = WEFT_CONFIG_INIT;
    weft_serve_opts o = WEFT_SERVE_OPTS_INIT;
    (void)argc, (void)argv;
    snprintf(address.sun_path, sizeof address.sun_path, "/tmp/weft-fuzz-%d", (int)getpid());
    o.unix_path = address.sun_path;
    o.log = quiet;
    o.max_seconds = 1;
    o.cmdline = true;
    cfg.maxprocs = 2;
    if (weft_start(&cfg) != 0 || weft_profile_new("own", &own) != 0 || weft_debug_serve(&o, &server) != 0)
        abort();
    atexit(end);
    return 0;
}

/* What each of them says must at least be possible. */
static void read_text(char *text, size_t n)
{
    struct uri u;
    char out[32];
    int64_t i;
    double d;
    uint64_t v;
    size_t count = 0, left = n;
    const char *at = text;
    while (uri_address(&at, &left, &v))
        count++;
    if (count > n + 1)
        abort();
    if (uri_int(text, &i) && uri_atoi(text) != i)
        abort();
    uri_float(text, &d);
    uri_param(text, "seconds", out, sizeof out);
    if (strlen(out) >= sizeof out)
        abort();
    if (token_shown(text, TOKEN) && strstr(text, TOKEN) == NULL && strncasecmp(text, "Basic ", 6) != 0)
        abort();
    if (host_is_local(text) && strstr(text, "evil") != NULL && strcasestr(text, ".localhost") == NULL)
        abort();
    asked_by_other_site(text, text, text, false);
    if (!asked_by_other_site(NULL, text, "localhost", false) && strcasecmp(text, "http://localhost") != 0)
        abort();
    token_wrong(text);
    if (uri_split(text, &u) && (u.path[0] == 0 || strlen(u.path) > n || strlen(u.query) > n))
        abort();
}

static void ask_server(const uint8_t *data, size_t n)
{
    char buf[8192];
    ssize_t k;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        abort(); /* it serves no more */
    if (n > 0)
        (void)!send(fd, data, n, MSG_NOSIGNAL);
    shutdown(fd, SHUT_WR);
    while ((k = recv(fd, buf, sizeof buf, 0)) > 0 || (k < 0 && errno == EINTR))
        ;
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    if (data[0] & 1) {
        ask_server(data + 1, n - 1);
        return 0;
    }
    char *text = malloc(n); /* of its own size, so that what reads too far is seen */
    memcpy(text, data + 1, n - 1);
    text[n - 1] = 0;
    read_text(text, n - 1);
    free(text);
    return 0;
}
