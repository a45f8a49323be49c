/* The server's life: what it is told, whether it may, its start and stop, and forks. */
#include "debug/serve/server.h"
#include "debug/serve/access.h"
#include "debug/serve/api.h"
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <weft/debug.h>
#include <weft/sched.h>

/* ---- forks ---------------------------------------------------------------------------------------------------------------------- */

static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER; /* before each conns_lock */
static weft_debug_server *all;

static void fork_begins(void)
{
    pthread_mutex_lock(&all_lock);
    for (weft_debug_server *s = all; s != NULL; s = s->all_next)
        pthread_mutex_lock(&s->conns_lock);
}

static void fork_parent(void)
{
    for (weft_debug_server *s = all; s != NULL; s = s->all_next)
        pthread_mutex_unlock(&s->conns_lock);
    pthread_mutex_unlock(&all_lock);
}

/* No thread serves here. What the parent serves ends when the parent ends it, as nobody else holds its descriptors. */
static void fork_child(void)
{
    for (weft_debug_server *s = all; s != NULL; s = s->all_next) {
        int own[] = { s->listener.fd, s->poll_fd, s->mhd_fd, s->wake_fd };
        for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
            close(own[i]);
        for (struct conn *c = s->conns; c != NULL; c = c->next)
            close(c->fd);
        s->listener.fd = -1;
    }
    all = NULL;
    all_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    api_after_fork();
}

static void forks_once(void) { pthread_atfork(fork_begins, fork_parent, fork_child); }

static void all_add(weft_debug_server *s)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, forks_once);
    pthread_mutex_lock(&all_lock);
    s->all_next = all;
    all = s;
    pthread_mutex_unlock(&all_lock);
}

static void all_remove(weft_debug_server *s)
{
    pthread_mutex_lock(&all_lock);
    for (weft_debug_server **at = &all; *at != NULL; at = &(*at)->all_next)
        if (*at == s) {
            *at = s->all_next;
            break;
        }
    pthread_mutex_unlock(&all_lock);
}

/* ---- its life --------------------------------------------------------------------------------------------------------------------- */

static char *file_text(const char *path)
{
    char *text = NULL;
    size_t n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    FILE *f = fd >= 0 ? fdopen(fd, "r") : NULL;
    if (f == NULL && fd >= 0)
        close(fd);
    if (f == NULL || getdelim(&text, &n, 0, f) <= 0) {
        free(text);
        text = NULL;
    }
    if (f != NULL)
        fclose(f);
    return text;
}

static void wipe(char *text)
{
    if (text != NULL)
        explicit_bzero(text, strlen(text));
    free(text);
}

static int tls_read(struct tls_files *t, const weft_serve_opts *o, const char **why)
{
    bool some = o->tls_cert != NULL || o->tls_key != NULL || o->tls_client_ca != NULL;
    *why = "tls_cert and tls_key belong together, and tls_client_ca needs both";
    if (some && (o->tls_cert == NULL || o->tls_key == NULL))
        return -EINVAL;
    *why = "this libmicrohttpd was built without TLS";
    if (some && MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
        return -EIO;
    *why = "tls_cert, tls_key or tls_client_ca cannot be read";
    if (some && ((t->cert = file_text(o->tls_cert)) == NULL || (t->key = file_text(o->tls_key)) == NULL))
        return -EIO;
    if (o->tls_client_ca != NULL && (t->client_ca = file_text(o->tls_client_ca)) == NULL)
        return -EIO;
    return 0;
}

static void tls_wipe(struct tls_files *t)
{
    wipe(t->cert);
    wipe(t->key);
    wipe(t->client_ca);
}

static int range(int value, int zero, int most, const char *text, const char **why)
{
    if (value < 0 || value > most)
        *why = text;
    return value != 0 ? value : zero;
}

static int settings_make(struct settings *set, const weft_serve_opts *o, const char **why)
{
    *why = o->token != NULL ? token_wrong(o->token) : NULL;
    set->max_seconds = range(o->max_seconds, 300, 86400, "max_seconds is not one of 0 to 86400", why);
    set->max_connections = range(o->max_connections, 64, 1024, "max_connections is not one of 0 to 1024", why);
    set->max_per_address = range(o->max_per_address, (set->max_connections + 1) / 2, 1024, "max_per_address is not one of 0 to 1024", why);
    set->header_ms = range(o->header_ms, 10000, 600000, "header_ms is not one of 0 to 600000", why);
    if (*why != NULL)
        return -EINVAL;
    set->tls = o->tls_cert != NULL;
    set->client_certs = o->tls_client_ca != NULL;
    set->cmdline = o->cmdline;
    set->token = o->token != NULL ? strdup(o->token) : NULL;
    set->open = o->token == NULL && !set->client_certs && o->unix_path == NULL;
    *why = "no memory";
    return o->token != NULL && set->token == NULL ? -ENOMEM : 0;
}

/* What others can reach shows what the program holds, and lets them make it work. */
static int address_allowed(weft_debug_server *s, const weft_serve_opts *o, const char **why)
{
    s->listener.local = address_is_local(o, why);
    if (*why != NULL)
        return -EINVAL;
    if (s->listener.local || s->set.token != NULL || s->set.client_certs)
        return 0;
#ifdef WEFT_SERVE_UNSAFE_DEMO /* an object of examples/bugs/14 alone */
    if (o->unsafe_demo) {
        weft_doctor_note(WEFT_W14, "others than this machine can reach the address, and nobody has to show that he may: they see what the program holds, "
                                   "and make it work");
        return 0;
    }
#endif
#define REFUSED "refused: others than this machine can reach the address, and would see what the program holds and make it work"
    *why = REFUSED "; set a token of at least 16 bytes, or tls_cert, tls_key and tls_client_ca, or listen at 127.0.0.1 or a unix socket";
    weft_doctor_note(WEFT_W14, REFUSED); /* while no runtime runs, only the log is told */
    return -EPERM;
}

static void server_free(weft_debug_server *s)
{
    listener_close(&s->listener);
    if (s->poll_fd >= 0)
        close(s->poll_fd);
    if (s->wake_fd >= 0)
        close(s->wake_fd);
    wipe(s->set.token);
    api_forget();
    free(s);
}

static int server_start(weft_debug_server *s, const weft_serve_opts *o, const char **why)
{
    struct tls_files t = { NULL, NULL, NULL };
    int err = settings_make(&s->set, o, why);
    if (err == 0)
        err = address_allowed(s, o, why);
    if (err == 0)
        err = tls_read(&t, o, why);
    if (err == 0)
        err = listener_open(&s->listener, o, why);
    if (err == 0 && (err = server_prepare(s, &t, why)) == 0) {
        all_add(s);
        *why = "no thread can be had";
        err = -server_thread_start(&s->thread, server_main, s);
        if (err != 0)
            all_remove(s);
    }
    if (err != 0 && s->mhd != NULL)
        MHD_stop_daemon(s->mhd);
    tls_wipe(&t);
    return err;
}

static void say_where(const weft_debug_server *s, const weft_serve_opts *o)
{
    const char *who = s->set.client_certs ? "who has a client certificate" : s->set.token != NULL ? "who has the token" : s->listener.port == 0 ? "this user" :
                      s->listener.local ? "everybody on this machine" : "everybody";
    if (o->unix_path != NULL) {
        server_log(s, "serves at %s; %s may ask", o->unix_path, who);
        return;
    }
    const char *address = o->address != NULL ? o->address : "127.0.0.1";
    bool v6 = strchr(address, ':') != NULL;
    server_log(s, "serves http%s://%s%s%s:%d/debug/; %s may ask", s->set.tls ? "s" : "", v6 ? "[" : "", address, v6 ? "]" : "", s->listener.port, who);
}

int weft_debug_serve(const weft_serve_opts *opts, weft_debug_server **out)
{
    weft_serve_opts o = WEFT_SERVE_OPTS_INIT;
    int saved = errno;
    if (opts != NULL && (opts->size == 0 || opts->size > sizeof o))
        return -EINVAL;
    if (opts != NULL)
        memcpy(&o, opts, opts->size);
    const char *why = "out is NULL";
    weft_debug_server *s = out != NULL ? calloc(1, sizeof *s) : NULL;
    int err = out == NULL ? -EINVAL : -ENOMEM;
    if (s != NULL) {
        s->listener.fd = s->poll_fd = s->wake_fd = -1;
        s->pid = getpid();
        pthread_mutex_init(&s->jobs.lock, NULL);
        pthread_mutex_init(&s->conns_lock, NULL);
        s->set.log = o.log;
        s->set.log_arg = o.log_arg;
        err = server_start(s, &o, &why);
        if (err == 0) {
            *out = s;
            say_where(s, &o);
        } else {
            bool ours = err == -EPERM || err == -EINVAL; /* the sentence says all; else the system does */
            server_log(s, "does not serve: %s%s%s", why, ours ? "" : ": ", ours ? "" : weft_strerror(err));
            server_free(s);
        }
    }
    if (o.why != NULL)
        *o.why = err == 0 ? "" : why;
    errno = saved;
    return err;
}

int weft_debug_port(const weft_debug_server *server) { return server != NULL ? server->listener.port : -EINVAL; }

/* A fiber gives its processor away meanwhile: workers may need it to come back. */
static void join(pthread_t thread)
{
    bool fiber = weft_running() && weft_fiber_id() != 0;
    if (fiber)
        weft_blocking_begin();
    pthread_join(thread, NULL);
    if (fiber)
        weft_blocking_end();
}

int weft_debug_serve_stop(weft_debug_server *s)
{
    if (s == NULL)
        return -EINVAL;
    if (server_is_mine(s))
        return -EDEADLK;
    if (s->pid != getpid()) { /* the child of a fork: threads, and what they had, are no more */
        wipe(s->set.token);
        s->set.token = NULL;
        return 0;
    }
    int saved = errno;
    store_rel(&s->stopping, 1); /* rel: publishes nothing, for symmetry; acq in server_main */
    server_wake(s);
    join(s->thread);
    all_remove(s);
    server_log(s, "serves no more");
    server_free(s);
    errno = saved;
    return 0;
}
