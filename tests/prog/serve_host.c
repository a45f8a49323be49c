/* A program with the endpoint, for scripts: serve_host [NAME=VALUE ...]. Prints "port N" (or "unix"), or "refused ERROR: SENTENCE", then works a little,
 * with fibers that wait, allocate, use locks and the processor, until its standard input ends. Names are those of weft_serve_opts; also procs, and
 * spin=N: so many fibers that never call weft; own=1: a profile of that name;
 * finding=TEXT: for the doctor. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <weft.h>
#include <weft/serve.h>

static weft_serve_opts opts = WEFT_SERVE_OPTS_INIT;
static int spinning;
static const char *finding;
static bool own;
static weft_mutex lock;
static volatile unsigned long sink;

static void line_out(void *arg, const char *line)
{
    (void)arg;
    fprintf(stderr, "%s\n", line);
}

static bool option(const char *text, const char *name, const char **value)
{
    size_t n = strlen(name);
    if (strncmp(text, name, n) != 0 || text[n] != '=')
        return false;
    *value = text + n + 1;
    return true;
}

static void work(void *arg)
{
    (void)arg;
    for (;;) {
        void *keep = NULL;
        weft_mutex_lock(&lock);
        for (int i = 0; i < 100; i++) {
            void **p = weft_alloc(1000);
            if (p != NULL)
                *p = keep;
            keep = p;
        }
        for (int i = 0; i < 100000; i++)
            sink += (unsigned long)i;
        weft_mutex_unlock(&lock);
        weft_sleep(WEFT_MILLISECOND);
    }
}

static void spin(void *arg)
{
    (void)arg;
    for (;;)
        sink++;
}

static void waits(void *chan)
{
    weft_chan_recv(chan, NULL);
}

static void main_fiber(void *arg)
{
    weft_debug_server *server;
    const char *why;
    char c;
    (void)arg;
    opts.why = &why;
    opts.log = line_out;
    weft_profile *p;
    if (own && weft_profile_new("own", &p) != 0)
        exit(2);
    weft_set_block_profile_rate(1);
    weft_set_mutex_profile_fraction(1);
    int err = weft_debug_serve(&opts, &server);
    if (err != 0) {
        printf("refused %d: %s\n", -err, why);
        return;
    }
    for (int i = 0; i < 4; i++)
        if (weft_go(work, NULL) != 0)
            exit(2);
    weft_chan *chan = weft_chan_make(0, 0);
    for (int i = 0; i < 10; i++)
        if (weft_go(waits, chan) != 0)
            exit(2);
    for (int i = 0; i < spinning; i++)
        if (weft_go(spin, NULL) != 0)
            exit(2);
    if (finding != NULL && weft_doctor_note(WEFT_W14, finding) != 0)
        exit(2);
    if (opts.unix_path != NULL)
        puts("unix");
    else
        printf("port %d\n", weft_debug_port(server));
    fflush(stdout);
    weft_blocking_begin();
    while (read(0, &c, 1) > 0)
        ;
    weft_blocking_end();
    weft_debug_serve_stop(server);
    if (spinning > 0)
        _exit(0);
}

int main(int argc, char **argv)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    const char *v;
    alarm(900); /* where the test was ended, it ends itself */
    for (int i = 1; i < argc; i++)
        if (option(argv[i], "address", &v)) opts.address = v;
        else if (option(argv[i], "port", &v)) opts.port = atoi(v);
        else if (option(argv[i], "unix_path", &v)) opts.unix_path = v;
        else if (option(argv[i], "token", &v)) opts.token = v;
        else if (option(argv[i], "tls_cert", &v)) opts.tls_cert = v;
        else if (option(argv[i], "tls_key", &v)) opts.tls_key = v;
        else if (option(argv[i], "tls_client_ca", &v)) opts.tls_client_ca = v;
        else if (option(argv[i], "cmdline", &v)) opts.cmdline = atoi(v) != 0;
        else if (option(argv[i], "max_seconds", &v)) opts.max_seconds = atoi(v);
        else if (option(argv[i], "max_connections", &v)) opts.max_connections = atoi(v);
        else if (option(argv[i], "header_ms", &v)) opts.header_ms = atoi(v);
        else if (option(argv[i], "procs", &v)) cfg.maxprocs = atoi(v);
        else if (option(argv[i], "spin", &v)) spinning = atoi(v);
        else if (option(argv[i], "finding", &v)) finding = v;
        else if (option(argv[i], "own", &v)) own = atoi(v) != 0;
        else { fprintf(stderr, "%s?\n", argv[i]); return 2; }
    int err = weft_run(main_fiber, NULL, &cfg);
    return err == 0 ? 0 : 1;
}
