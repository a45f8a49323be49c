/* Bug 14: profiles served on a public port.
 *
 * What the call promises: weft_debug_serve answers whoever reaches its port: with stacks, types, labels, the command line,
 *                         and with work that it does for them. It refuses an address that others than this machine reach,
 *                         unless they must show a token or a certificate.
 * What the bug assumes:   that nobody asks who has no business there, and that there is nothing to see but numbers.
 * What goes wrong:        names of functions tell what the firm is about to sell, labels tell whose request it is and with
 *                         which session, the command line tells the database's password. And everybody can make the program
 *                         work: a collection for each request, a profile for as long as they like. (Elsewhere linking with
 *                         the package is enough for it, and there are search engines for such ports.)
 * Instead:                serve on loopback or a unix socket, and come by ssh; or set a token, and TLS. The password is no part
 *                         of the command line, and that is not served unless switched on. One heavy job at a time, for so many
 *                         seconds at most.
 * Guarded:                there is no guard to switch on: the rule is always there. For the buggy mode alone it is switched
 *                         off, in objects of the endpoint that are compiled for this program (-DWEFT_SERVE_UNSAFE_DEMO) and
 *                         are in no library.
 *
 * The server is a process of its own, at an address that is not of loopback. All of it stays on this machine: where the kernel
 * lets us, in a network of its own, whose only link is to itself; else at an address that the machine has. */
#include "bug.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <weft/serve.h>

enum { CLIENTS = 4, BURN_MS = 1000, PRICES = 400000, MAX_SECONDS = 30 };

static const char password[] = "correct-horse-battery-staple", session[] = "c0ffee5e551011", token[] = "4f1d7c0a9b3e62580d1c";
static const char unannounced[] = "price_list_of_the_merger"; /* what nobody should hear of yet */

/* ---- the server ---------------------------------------------------------------------------------------------------- */

struct price { struct price *next; long cents[6]; };

__attribute__((noinline)) static struct price *price_list_of_the_merger(void)
{
    struct price *list = NULL;
    for (int i = 0; i < PRICES; i++) {
        struct price *p = weft_alloc_typed(WEFT_TYPE(struct price, next));
        p->next = list;
        list = p;
    }
    return list;
}

static void a_request(void *arg)
{
    weft_set_labels(&(weft_label){ "session", session }, 1);
    weft_chan_recv(arg, NULL); /* of a customer, who waits for something */
}

static const char *address; /* "10.0.0.7" */

static weft_serve_opts options(const char *secret)
{
    weft_serve_opts o = WEFT_SERVE_OPTS_INIT;
    o.address = address; /* here it happens: not loopback, */
    o.token = secret;    /* and no token */
    o.max_seconds = MAX_SECONDS;
    return o;
}

static void log_nothing(void *arg, const char *line) { (void)arg, (void)line; }

static struct price *live;

/* Serves until stdin ends. Its answer, on stdout: "port N" or "refused -1 why". */
static void serve(void *arg)
{
    const char *how = arg, *why = "";
    weft_debug_server *server;
    live = price_list_of_the_merger();
    weft_go(a_request, weft_chan_make(0, 0));
    weft_yield();
    weft_serve_opts o = options(strcmp(how, "token") == 0 ? token : NULL);
    o.cmdline = strcmp(how, "token") != 0;
    o.unsafe_demo = strcmp(how, "open") == 0;
    o.log = log_nothing;
    o.why = &why;
    int err = weft_debug_serve(&o, &server);
    if (err == 0)
        printf("port %d\n", weft_debug_port(server));
    else
        printf("refused %d %s\n", err, why);
    fflush(stdout);
    weft_blocking_begin();
    while (getchar() != EOF)
        ;
    weft_blocking_end();
    if (err == 0)
        weft_debug_serve_stop(server);
    weft_keep_alive(live);
}

/* In the server's process: 14_... serve HOW ADDRESS MODE FD --database-password=... */
static int serve_main(char **argv)
{
    address = argv[3];
    bug_join((enum bug_mode)atoi(argv[4]), atoi(argv[5]));
    weft_config config = bug_config();
    if (bug_mode_ == FIXED && strcmp(argv[2], "refused") == 0)
        config.doctor = "w14=off"; /* it is to be seen that it is refused; the fixed program does not do that */
    config.mem_profile_rate = 4096;
    return weft_run(serve, argv[2], &config) != 0;
}

/* ---- the other side ------------------------------------------------------------------------------------------------- */

struct server { pid_t pid; int in, port, err; char why[256]; };

static struct server start(const char *how)
{
    struct server s = { .pid = -1 };
    int in[2], out[2];
    char mode[16], fd[16], secret[64], line[300] = "";
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0)
        return s;
    snprintf(mode, sizeof mode, "%d", bug_mode_);
    snprintf(fd, sizeof fd, "%d", bug_share());
    snprintf(secret, sizeof secret, "--database-password=%s", password);
    fflush(NULL);
    s.pid = fork();
    if (s.pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        execl("/proc/self/exe", "server", "serve", how, address, mode, fd, secret, NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    s.in = in[1];
    for (size_t n = 0; n + 1 < sizeof line && read(out[0], line + n, 1) == 1 && line[n] != '\n'; n++)
        ;
    close(out[0]);
    if (sscanf(line, "port %d", &s.port) != 1 && sscanf(line, "refused %d %255[^\n]", &s.err, s.why) < 1)
        s.err = -EIO;
    return s;
}

static bool stop(struct server *s)
{
    int status = -1;
    close(s->in);
    waitpid(s->pid, &status, 0);
    return status == 0;
}

/* The status of a GET; what came, its head included, is in body. 0: no answer. */
static int get(int port, const char *path, const char *bearer, char *body, size_t room)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    char request[512];
    size_t n = 0;
    int status = 0, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    inet_pton(AF_INET, address, &to.sin_addr);
    int len = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s%s%s\r\n", path, address,
                       bearer ? "Authorization: Bearer " : "", bearer ? bearer : "", bearer ? "\r\n" : "");
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0 || write(fd, request, (size_t)len) != len)
        len = 0;
    for (ssize_t got; len != 0 && n + 1 < room && (got = read(fd, body + n, room - 1 - n)) > 0; n += (size_t)got)
        ;
    body[n] = 0;
    for (size_t i = 0; i < n; i++) /* the command line has its words apart */
        body[i] = body[i] != 0 ? body[i] : ' ';
    if (fd >= 0)
        close(fd);
    return sscanf(body, "HTTP/1.1 %d", &status) == 1 ? status : 0;
}

static char page[1 << 20];
static int ask(struct server *s, const char *path, const char *bearer) { return get(s->port, path, bearer, page, sizeof page); }
static bool leaks(struct server *s, const char *path, const char *secret) { return ask(s, path, NULL) == 200 && strstr(page, secret) != NULL; }

static double cpu_seconds(pid_t pid)
{
    clockid_t clock;
    struct timespec t = { 0 };
    if (clock_getcpuclockid(pid, &clock) == 0)
        clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

struct burnt { int collections; double cpu_percent; };

/* Some who have no token ask for collections, as fast as they are answered. How many they got, and how much of a processor that took. */
static struct burnt burn(struct server *s)
{
    pid_t clients[CLIENTS];
    struct burnt b = { 0 };
    double cpu = cpu_seconds(s->pid), from = now_seconds();
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = fork();
        if (clients[i] == 0) {
            int got = 0;
            for (double end = now_seconds() + BURN_MS / 1e3; now_seconds() < end && got < 255;)
                if (ask(s, "/debug/pprof/heap?gc=1", NULL) == 200)
                    got++;
                else
                    usleep(1000);
            _exit(got);
        }
    }
    for (int i = 0, status; i < CLIENTS; i++)
        b.collections += waitpid(clients[i], &status, 0) == clients[i] && WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    b.cpu_percent = 100 * (cpu_seconds(s->pid) - cpu) / (now_seconds() - from);
    return b;
}

/* Somebody takes a CPU profile; what does another one get who wants one, too? */
static int second_of_two(struct server *s, const char *bearer)
{
    pid_t first = fork();
    int status = 0;
    if (first == 0) {
        while (ask(s, "/debug/pprof/profile?seconds=20", bearer) == 409) /* the other one was there first */
            usleep(1000);
        _exit(0);
    }
    for (int i = 0; i < 1000 && status != 409; i++) { /* until the first one has begun */
        usleep(5000);
        status = ask(s, "/debug/pprof/goroutine?debug=2", bearer);
    }
    kill(first, SIGKILL);
    waitpid(first, NULL, 0);
    return status;
}

/* ---- where all of this is ------------------------------------------------------------------------------------------------ */

/* A network with nothing in it but an address of documentation's, on its own loopback interface. */
static bool own_network(void)
{
    struct ifreq lo = { .ifr_name = "lo" }, more = { .ifr_name = "lo:1" };
    if (unshare(CLONE_NEWNET) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
        return false;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = { .sin_family = AF_INET };
    inet_pton(AF_INET, "192.0.2.14", &a.sin_addr);
    memcpy(&more.ifr_addr, &a, sizeof a);
    lo.ifr_flags = IFF_UP | IFF_LOOPBACK;
    bool up = fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &lo) == 0 && ioctl(fd, SIOCSIFADDR, &more) == 0;
    if (fd >= 0)
        close(fd);
    return up;
}

/* The first address of the machine that is not loopback. */
static bool own_address(char *to, size_t room)
{
    struct ifaddrs *all = NULL;
    bool found = false;
    if (getifaddrs(&all) != 0)
        return false;
    for (struct ifaddrs *i = all; i && !found; i = i->ifa_next)
        if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET && !(i->ifa_flags & IFF_LOOPBACK) && i->ifa_flags & IFF_UP)
            found = inet_ntop(AF_INET, &((struct sockaddr_in *)(void *)i->ifa_addr)->sin_addr, to, (socklen_t)room) != NULL;
    freeifaddrs(all);
    return found;
}

static const char *find_address(void)
{
    static char own[64];
    if (own_network()) {
        address = "192.0.2.14";
        return "in a network of its own";
    }
    address = own_address(own, sizeof own) ? own : "0.0.0.0";
    return address == own ? "an address of this machine" : "every address of this machine, which has none but loopback";
}

/* ---- the modes -------------------------------------------------------------------------------------------------------------- */

static void buggy(void *arg)
{
    (void)arg;
    const char *where = find_address();
    struct server s = start(bug_guarded() ? "refused" : "open");
    if (s.port == 0) {
        stop(&s);
        bug_value("refused", s.err == -EPERM);
        bug_value("leaks", 0);
        bug_value("collections", 0);
        bug_value("cpu", 0);
        bug_say("%s, %s: refused at the start (%d). %s", address, where, s.err, s.why);
        bug_cell("refused at start");
        return;
    }
    bool cmdline = leaks(&s, "/debug/pprof/cmdline", password), heap = leaks(&s, "/debug/pprof/heap?debug=1", unannounced),
         labels = leaks(&s, "/debug/pprof/goroutine?debug=1", session);
    struct burnt burnt = burn(&s);
    int profile = ask(&s, "/debug/pprof/profile?seconds=1", NULL);
    bool ended = stop(&s);
    bug_value("leaks", cmdline + heap + labels);
    bug_value("collections", burnt.collections);
    bug_value("cpu", burnt.cpu_percent);
    bug_value("profile", profile);
    bug_value("ended", ended);
    bug_say("%s, %s: anybody reads %s in the command line, %s in the heap profile, %s among the labels of fibers;\n"
            "%d strangers have %d collections made in a second, for %.0f %% of a processor; a profile as long as they like: %d", address, where,
            cmdline ? "the password" : "nothing", heap ? "the unannounced merger" : "nothing", labels ? "a customer's session" : "nothing", CLIENTS,
            burnt.collections, burnt.cpu_percent, profile);
    bug_cell("%d secrets out, %.0f %% CPU", cmdline + heap + labels, burnt.cpu_percent);
}

static void fixed(void *arg)
{
    (void)arg;
    const char *where = find_address();
    struct server none = start("refused");
    bool refused = none.port == 0 && none.err == -EPERM;
    stop(&none);
    struct server s = start("token");
    static const char *const paths[] = { "/debug/pprof/heap?debug=1", "/debug/pprof/cmdline", "/debug/pprof/profile?seconds=1", "/debug/pprof/" };
    int closed = 0, open = 0, wrong = ask(&s, paths[0], "not-the-token-but-as-long");
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        closed += ask(&s, paths[i], NULL) == 401;
    open = ask(&s, paths[0], token);
    int cmdline = ask(&s, "/debug/pprof/cmdline", token), endless = ask(&s, "/debug/pprof/profile?seconds=86400", token);
    struct burnt burnt = burn(&s);
    int second = second_of_two(&s, token);
    bool ended = stop(&s);
    bug_value("refused", refused);
    bug_value("closed", closed);
    bug_value("wrong", wrong);
    bug_value("open", open);
    bug_value("cmdline", cmdline);
    bug_value("endless", endless);
    bug_value("second", second);
    bug_value("collections", burnt.collections);
    bug_value("cpu", burnt.cpu_percent);
    bug_value("leaks", 0);
    bug_value("ended", ended);
    bug_say("%s, %s: without a token %s; with one, %d of 4 paths are 401 to who does not show it, and a wrong one is %d;\n"
            "to who does, the heap is %d, the command line %d, a profile for a day %d, a second heavy job %d;"
            " %d strangers have %d collections made, for %.0f %%",
            address, where, refused ? "refused at the start" : "NOT REFUSED", closed, wrong, open, cmdline, endless, second, CLIENTS,
            burnt.collections, burnt.cpu_percent);
    bug_cell("401, 403, 409; %.0f %% CPU", burnt.cpu_percent);
}

static const char *verdict(const struct bug_result *r)
{
    const struct bug_result *b = &r[BUGGY], *f = &r[FIXED], *g = &r[GUARDED];
    if (bug_get(b, "leaks") != 3 || bug_get(b, "profile") != 200)
        return "what nobody should see was not told to everybody";
    if (bug_get(b, "collections") < CLIENTS)
        return "nobody could make it work";
    if (bug_get(f, "refused") != 1 || bug_get(g, "refused") != 1)
        return "an address that others reach was not refused";
    if (bug_get(f, "closed") != 4 || bug_get(f, "wrong") != 401 || bug_get(f, "open") != 200)
        return "the token does not decide who may ask";
    if (bug_get(f, "cmdline") != 403 || bug_get(f, "endless") != 400 || bug_get(f, "second") != 409)
        return "the command line is told, or heavy jobs have no limits";
    if (bug_get(f, "collections") != 0 || bug_get(f, "cpu") > bug_get(b, "cpu"))
        return "who has no token can make it work";
    if (bug_get(b, "ended") != 1 || bug_get(f, "ended") != 1)
        return "a server did not end as it should";
    return NULL;
}

int main(int argc, char **argv)
{
    static const struct bug bug = {
        .number = "14",
        .title = "profiles on a public port",
        .buggy = buggy,
        .fixed = fixed,
        .own_run = true,
        .code = WEFT_W14,
        .guard = "the rule itself: an address that others reach is refused at the start, unless a token or client certificates are set",
        .instead = "opts.address = \"127.0.0.1\";   /* or opts.token = ..., at least 16 bytes, and TLS */",
        .verdict = verdict,
        .plots = { { "leaks", "secrets that anybody can read", "", false }, { "cpu", "of a processor, taken by four strangers", "%", false } },
    };
    if (argc == 7 && strcmp(argv[1], "serve") == 0) {
        bug_ = &bug;
        return serve_main(argv);
    }
    return bug_main(argc, argv, &bug);
}
