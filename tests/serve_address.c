/* Where it listens, and that it refuses to where others could reach it. */
#include "serve_test.h"
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

static int refused(weft_serve_opts o, const char **why)
{
    weft_debug_server *s = NULL;
    o.log = serve_log;
    o.why = why;
    int err = weft_debug_serve(&o, &s);
    if (err == 0)
        weft_debug_serve_stop(s);
    return err;
}

/* No runtime is needed for any of this. */
Test(serve_address, by_default_this_machine_only)
{
    weft_debug_server *s = serve_begin(serve_opts());
    int port = weft_debug_port(s);
    cr_assert(port > 0 && port < 65536, "%d", port);
    cr_assert_eq(status_of(port, "/debug/pprof/"), 200);
    cr_assert(log_has("serves http://127.0.0.1:"));
    cr_assert_eq(weft_debug_serve_stop(s), 0);
    cr_assert_eq(connect_to(port), -1, "somebody still listens");
}

Test(serve_address, what_others_reach_is_refused)
{
    static const char *const open[] = { "0.0.0.0", "::", "10.1.2.3", "192.168.0.1", "8.8.8.8", "169.254.1.1", "fe80::1", "2001:db8::1", "::ffff:10.0.0.1",
                                        "::ffff:0.0.0.0", "128.0.0.1", "126.255.255.255" };
    for (size_t i = 0; i < w_countof(open); i++) {
        weft_serve_opts o = serve_opts();
        const char *why = NULL;
        o.address = open[i];
        cr_assert_eq(refused(o, &why), -EPERM, "%s", open[i]);
        cr_assert(strstr(why, "set a token") != NULL, "%s", why);
        o.cmdline = true; /* nothing else opens it */
        o.tls_cert = o.tls_key = "/dev/null";
        cr_assert_eq(refused(o, &why), -EPERM, "%s: TLS without client certificates", open[i]);
    }
    cr_assert(log_has("refused: others than this machine can reach the address") >= 24);
    static const char *const own[] = { "127.0.0.1", "127.1.2.3" };
    for (size_t i = 0; i < w_countof(own); i++) {
        weft_serve_opts o = serve_opts();
        const char *why;
        o.address = own[i];
        cr_assert_eq(refused(o, &why), 0, "%s", own[i]);
    }
}

/* The doctor tells where it was asked for. */
static struct { char what[300], cure[300], stack[4000]; int n; } told;

static void on_finding(void *arg, const weft_finding *f)
{
    (void)arg;
    if (f->code != WEFT_W14)
        return;
    snprintf(told.what, sizeof told.what, "%s", f->what);
    snprintf(told.cure, sizeof told.cure, "%s", f->cure);
    snprintf(told.stack, sizeof told.stack, "%s", f->stack);
    told.n++;
}

__attribute__((noinline)) static void asks_for_a_public_port(void)
{
    weft_serve_opts o = serve_opts();
    const char *why;
    o.address = "0.0.0.0";
    cr_assert_eq(refused(o, &why), -EPERM);
    o.address = "127.0.0.1";
    cr_assert_eq(refused(o, &why), 0);
}

static void in_a_runtime(void *arg)
{
    (void)arg;
    asks_for_a_public_port();
    cr_assert_eq(weft_doctor_flush(), 0);
    cr_assert_eq(weft_doctor_count(WEFT_W14), 1);
    cr_assert_eq(told.n, 1);
    cr_assert(strstr(told.what, "others than this machine can reach the address") != NULL, "%s", told.what);
    cr_assert(strstr(told.cure, "127.0.0.1") != NULL && strstr(told.cure, "token") != NULL, "%s", told.cure);
    cr_assert(strstr(told.stack, "asks_for_a_public_port at ") != NULL, "%s", told.stack);
}

Test(serve_address, the_doctor_tells_of_a_refusal)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.finding = on_finding;
    test_run_config(&cfg, in_a_runtime, NULL);
}

Test(serve_address, with_a_token_it_may_be_any)
{
    weft_serve_opts o = serve_opts();
    o.address = "0.0.0.0";
    o.token = "0123456789abcdef";
    weft_debug_server *s = serve_begin(o);
    cr_assert_eq(status_of(weft_debug_port(s), "/debug/pprof/"), 401);
    cr_assert(log_has("who has the token may ask"));
    weft_debug_serve_stop(s);
}

Test(serve_address, a_token_must_be_worth_something)
{
    static const char *const bad[] = { "", "x", "0123456789abcde", "0123456789 abcdef", "0123456789abcdef\n", "0123456789abcd\xc3\xa9" };
    for (size_t i = 0; i < w_countof(bad); i++) {
        weft_serve_opts o = serve_opts();
        const char *why = NULL;
        o.address = "0.0.0.0";
        o.token = bad[i];
        cr_assert_eq(refused(o, &why), -EINVAL, "'%s'", bad[i]);
        cr_assert(strstr(why, "token") != NULL, "%s", why);
    }
    cr_assert_eq(log_has("0123456789"), 0, "a token is in the log");
}

Test(serve_address, wrong_options_are_told_apart)
{
    const char *why;
    weft_debug_server *s;
    weft_serve_opts o = serve_opts();
    cr_assert_eq(weft_debug_serve(&o, NULL), -EINVAL);
    o.size = 0;
    cr_assert_eq(weft_debug_serve(&o, &s), -EINVAL);
    o.size = sizeof o + 8;
    cr_assert_eq(weft_debug_serve(&o, &s), -EINVAL);
    static const struct { const char *address; int port; const char *unix_path; int max_seconds, max_connections; const char *says; } wrong[] = {
        { "localhost", 0, NULL, 0, 0, "no number" }, { "127.0.0.1:80", 0, NULL, 0, 0, "no number" }, { "127.1", 0, NULL, 0, 0, "no number" },
        { NULL, -1, NULL, 0, 0, "port" },            { NULL, 65536, NULL, 0, 0, "port" },            { "127.0.0.1", 0, "/tmp/x", 0, 0, "choose one" },
        { NULL, 1, "/tmp/x", 0, 0, "choose one" },   { NULL, 0, "", 0, 0, "unix_path" },             { NULL, 0, NULL, -1, 0, "max_seconds" },
        { NULL, 0, NULL, 0, 5000, "max_connections" },
    };
    for (size_t i = 0; i < w_countof(wrong); i++) {
        weft_serve_opts w = serve_opts();
        w.address = wrong[i].address;
        w.port = wrong[i].port;
        w.unix_path = wrong[i].unix_path;
        w.max_seconds = wrong[i].max_seconds;
        w.max_connections = wrong[i].max_connections;
        cr_assert_eq(refused(w, &why), -EINVAL, "%zu", i);
        cr_assert(strstr(why, wrong[i].says) != NULL, "%zu: %s", i, why);
    }
    cr_assert_eq(weft_debug_serve_stop(NULL), -EINVAL);
    cr_assert_eq(weft_debug_port(NULL), -EINVAL);
}

Test(serve_address, a_port_that_is_taken)
{
    weft_debug_server *s = serve_begin(serve_opts());
    weft_serve_opts o = serve_opts();
    const char *why;
    o.port = weft_debug_port(s);
    cr_assert_eq(refused(o, &why), -EADDRINUSE);
    cr_assert(strstr(why, "another program") != NULL);
    weft_debug_serve_stop(s);
    cr_assert_eq(refused(o, &why), 0, "it is free again");
}

/* ---- unix sockets -------------------------------------------------------------------------------------------------- */

static char folder[64], path[100];

static void folder_new(void)
{
    strcpy(folder, "/tmp/weft-serve-XXXXXX");
    cr_assert(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/socket", folder);
}

static void folder_remove(void)
{
    unlink(path);
    cr_assert_eq(rmdir(folder), 0, "something is left in %s", folder);
}

static weft_serve_opts at_path(void)
{
    weft_serve_opts o = serve_opts();
    o.unix_path = path;
    return o;
}

static int status_at_path(void)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    strcpy(a.sun_path, path);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        close(fd);
        return -1;
    }
    send_text(fd, "GET /debug/pprof/ HTTP/1.1\r\nHost: whatever.example\r\nConnection: close\r\n\r\n");
    struct answer r = read_answer(fd);
    free(r.body);
    close(fd);
    return r.status;
}

Test(serve_address, unix_socket_of_this_user_only)
{
    struct stat st;
    folder_new();
    umask(0);
    weft_debug_server *s = serve_begin(at_path());
    cr_assert_eq(weft_debug_port(s), 0);
    cr_assert_eq(lstat(path, &st), 0);
    cr_assert(S_ISSOCK(st.st_mode));
    cr_assert_eq(st.st_mode & 0777, 0600, "%o", st.st_mode);
    cr_assert_eq(status_at_path(), 200, "no browser reaches it: any name in Host will do");
    weft_debug_serve_stop(s);
    cr_assert_eq(lstat(path, &st), -1, "it is removed");
    folder_remove();
}

Test(serve_address, unix_socket_that_nobody_serves_is_replaced)
{
    folder_new();
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    strcpy(a.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    cr_assert_eq(listen(fd, 1), 0);
    close(fd); /* as a program that crashed leaves it */
    weft_debug_server *s = serve_begin(at_path());
    cr_assert_eq(status_at_path(), 200);
    weft_debug_serve_stop(s);
    folder_remove();
}

Test(serve_address, unix_socket_that_is_served_stays)
{
    const char *why;
    folder_new();
    weft_debug_server *s = serve_begin(at_path());
    cr_assert_eq(refused(at_path(), &why), -EADDRINUSE);
    cr_assert(strstr(why, "another program") != NULL, "%s", why);
    cr_assert_eq(status_at_path(), 200);
    weft_debug_serve_stop(s);
    folder_remove();
}

Test(serve_address, what_is_no_socket_stays)
{
    const char *why;
    char target[120];
    folder_new();
    close(open(path, O_CREAT | O_WRONLY, 0600));
    cr_assert_eq(refused(at_path(), &why), -EEXIST);
    unlink(path);
    snprintf(target, sizeof target, "%s/elsewhere", folder); /* a link is not followed */
    cr_assert_eq(symlink(target, path), 0);
    cr_assert_eq(refused(at_path(), &why), -EEXIST);
    cr_assert_eq(access(target, F_OK), -1);
    folder_remove();
}

Test(serve_address, what_has_taken_the_place_of_the_socket_stays)
{
    folder_new();
    weft_debug_server *s = serve_begin(at_path());
    unlink(path);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    weft_debug_serve_stop(s);
    cr_assert_eq(access(path, F_OK), 0, "the file of somebody else is gone");
    folder_remove();
}

Test(serve_address, folder_that_is_locked_or_missing)
{
    const char *why;
    weft_serve_opts o = serve_opts();
    folder_new();
    int dir = open(folder, O_RDONLY | O_DIRECTORY);
    cr_assert_eq(flock(dir, LOCK_EX), 0);
    cr_assert_eq(refused(at_path(), &why), -EBUSY);
    close(dir);
    folder_remove();
    cr_assert_eq(refused(at_path(), &why), -ENOENT);
    char deep[200];
    memset(deep, 'x', sizeof deep - 1);
    deep[sizeof deep - 1] = 0;
    o.unix_path = deep;
    cr_assert_eq(refused(o, &why), -EINVAL);
}

/* Many programs that start at once at one path: exactly one serves. */
static void *starts(void *arg)
{
    weft_debug_server **out = arg;
    weft_serve_opts o = at_path();
    o.log = serve_log;
    if (weft_debug_serve(&o, out) != 0)
        *out = NULL;
    return NULL;
}

Test(serve_address, of_many_that_start_at_once_one_serves)
{
    folder_new();
    for (int round = 0; round < 20; round++) {
        pthread_t thread[8];
        weft_debug_server *s[8];
        int n = 0;
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        strcpy(a.sun_path, path);
        int stale = socket(AF_UNIX, SOCK_STREAM, 0);
        cr_assert_eq(bind(stale, (struct sockaddr *)&a, sizeof a), 0);
        close(stale);
        for (int i = 0; i < 8; i++)
            pthread_create(&thread[i], NULL, starts, &s[i]);
        for (int i = 0; i < 8; i++)
            pthread_join(thread[i], NULL);
        cr_assert_eq(status_at_path(), 200);
        for (int i = 0; i < 8; i++)
            n += s[i] != NULL;
        cr_assert_eq(n, 1, "%d serve", n);
        for (int i = 0; i < 8; i++)
            if (s[i] != NULL)
                weft_debug_serve_stop(s[i]);
    }
    folder_remove();
}

/* One starts while another ends, again and again: what has taken the place is not removed by who leaves it. */
static void *starts_until_it_serves(void *arg)
{
    weft_serve_opts o = at_path();
    o.log = serve_log;
    while (weft_debug_serve(&o, arg) != 0)
        ;
    return NULL;
}

Test(serve_address, one_starts_while_another_ends)
{
    folder_new();
    weft_debug_server *s = serve_begin(at_path()), *next;
    for (int round = 0; round < 300; round++) {
        pthread_t thread;
        pthread_create(&thread, NULL, starts_until_it_serves, &next);
        weft_debug_serve_stop(s);
        pthread_join(thread, NULL);
        cr_assert_eq(access(path, F_OK), 0, "round %d: it is gone", round);
        s = next;
    }
    cr_assert_eq(status_at_path(), 200);
    weft_debug_serve_stop(s);
    folder_remove();
}
