/* kv - a key-value server that speaks the Redis protocol, written on weft: a fiber per connection, all data in the
 * collected heap, nothing freed by hand. Try it:   kv --port 6379 &   redis-cli set greeting hello   redis-benchmark
 * -t set,get -P 16
 *
 * Where things are, from inside to outside; each file's head says more:
 *
 *      resp    the protocol: requests in, replies out
 *      table   strings, and the hash table of keys and of fields
 *      list    lists
 *      db      shards with their locks, expiry
 *      cmd     runs a request; cmd.h says how to add a command
 *      cmd_*   the commands, by kind
 *      server  listeners, connections, the clean end
 *
 * It keeps nothing on disk. cmd.h also says where it differs from Redis. */
#include "cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>
#include <weft/serve.h>

static const char usage[] =
    "usage: kv [options]\n"
    "  --bind ADDR          address to listen on (127.0.0.1); \"none\": no TCP\n"
    "  --port N             TCP port (6379); 0: any free one, see the ready line\n"
    "  --unix PATH          listen on a unix socket as well\n"
    "  --maxclients N       connections at a time (10000)\n"
    "  --max-bulk BYTES     longest argument (67108864)\n"
    "  --max-reply BYTES    longest reply, large strings not counted (268435456)\n"
    "  --memory-limit BYTES soft limit of the collected heap and all around it\n"
    "  --procs N            processors (from affinity and cgroup)\n"
    "  --grace MS           on SIGTERM: time for connections to finish (5000)\n"
    "  --trace FILE         what it does, for go tool trace\n"
    "  --cpu-profile FILE   where CPU time goes, for go tool pprof; up to 64 MiB, an hour\n"
    "  --wall-profile FILE  where fibers are and what they wait for; likewise\n"
    "  --debug-port N       a page about it, metrics, profiles at http://127.0.0.1:N/debug/; 0: any free one, see the debug line\n"
    "  --debug-unix PATH    the same on a unix socket that only this user can open\n";

struct program {
    struct server_options server;
    int procs;
    const char *trace, *cpu_profile, *wall_profile;
    bool debug;
    int debug_port;
    const char *debug_unix;
    weft_debug_server *debug_server;
    int trace_fd;
    int status;
};

__attribute__((noreturn, format(printf, 1, 2))) static void refuse(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    fputs("kv: ", stderr);
    vfprintf(stderr, format, ap);
    fputs("; kv --help shows the options\n", stderr);
    va_end(ap);
    exit(2);
}

static const char *text(const char *option, const char *value)
{
    if (!*value)
        refuse("--%s needs a value", option);
    return value;
}

static long long number(const char *option, const char *value, long long min, long long max)
{
    int64_t v;
    if (!resp_parse_int(value, strlen(value), &v) || v < min || v > max)
        refuse("--%s: \"%s\" is not a number from %lld to %lld", option, value, min, max);
    return v;
}

static void parse_options(struct program *p, int argc, char **argv)
{
    enum { MIB = 1 << 20 };
    static const struct option options[] = {
        { "bind", 1, NULL, 'b' },         { "port", 1, NULL, 'p' },     { "unix", 1, NULL, 'u' },
        { "maxclients", 1, NULL, 'c' },   { "max-bulk", 1, NULL, 'B' }, { "max-reply", 1, NULL, 'R' },
        { "memory-limit", 1, NULL, 'm' }, { "procs", 1, NULL, 'P' },    { "grace", 1, NULL, 'g' },
        { "trace", 1, NULL, 't' },        { "cpu-profile", 1, NULL, 'C' }, { "wall-profile", 1, NULL, 'W' },
        { "debug-port", 1, NULL, 'd' },   { "debug-unix", 1, NULL, 'D' },
        { "help", 0, NULL, 'h' },         { NULL, 0, NULL, 0 },
    };
    struct server_options *s = &p->server;
    for (int o, i = 0; (o = getopt_long(argc, argv, ":", options, &i)) != -1;) {
        const char *name = options[i].name;
        switch (o) {
        case 'b': s->bind = strcmp(optarg, "none") == 0 ? NULL : text(name, optarg); break;
        case 'p': s->port = (int)number(name, optarg, 0, 65535); break;
        case 'u': s->unix_path = text(name, optarg); break;
        case 'c': s->max_clients = (int)number(name, optarg, 1, 10000000); break;
        case 'B': resp_max_bulk_bytes = (size_t)number(name, optarg, 1024, 512ll * MIB); break;
        case 'R': resp_max_reply_bytes = (size_t)number(name, optarg, RESP_BASE_BYTES, 16384ll * MIB); break;
        case 'm': s->memory_limit = number(name, optarg, MIB, INT64_MAX); break;
        case 'P': p->procs = (int)number(name, optarg, 1, 1024); break;
        case 'g': s->grace_ms = (int)number(name, optarg, 0, 3600000); break;
        case 't': p->trace = text(name, optarg); break;
        case 'C': p->cpu_profile = text(name, optarg); break;
        case 'W': p->wall_profile = text(name, optarg); break;
        case 'd': p->debug = true; p->debug_port = (int)number(name, optarg, 0, 65535); break;
        case 'D': p->debug = true; p->debug_unix = text(name, optarg); break;
        case 'h': fputs(usage, stdout); exit(0);
        case ':': refuse("%s needs a value", argv[optind - 1]);
        default: refuse("%s is not an option", argv[optind - 1]);
        }
    }
    if (optind < argc)
        refuse("%s is one argument too many", argv[optind]);
    if (!s->bind && !s->unix_path)
        refuse("there is nothing to listen on: neither TCP nor a unix socket");
    if (resp_max_request_bytes < 2 * resp_max_bulk_bytes)
        resp_max_request_bytes = 2 * resp_max_bulk_bytes;
}

/* As many descriptors as we are allowed; the default of 1024 is for programs that use select(2). */
static void raise_descriptor_limit(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
    }
}

/* Before any other thread exists, so that all of them inherit it: these signals are read from a descriptor. */
static void block_signals(void)
{
    sigset_t s;
    sigemptyset(&s);
    sigaddset(&s, SIGTERM);
    sigaddset(&s, SIGINT);
    sigprocmask(SIG_BLOCK, &s, NULL);
}

static int trace_start(struct program *p)
{
    if (p->trace == NULL)
        return 0;
    p->trace_fd = open(p->trace, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    return p->trace_fd < 0 ? -errno : weft_trace_start(weft_fd_writer, (void *)(intptr_t)p->trace_fd, NULL);
}

static int trace_stop(struct program *p)
{
    if (p->trace == NULL)
        return 0;
    int err = weft_trace_stop(weft_fd_writer, (void *)(intptr_t)p->trace_fd, NULL);
    return close(p->trace_fd) != 0 && err == 0 ? -errno : err;
}

/* Profiles end with the runtime. */
static int profiles_start(const struct program *p)
{
    int err = p->cpu_profile != NULL ? weft_cpu_profile_start_file(p->cpu_profile, NULL) : 0;
    return err == 0 && p->wall_profile != NULL ? weft_wall_profile_start_file(p->wall_profile, NULL) : err;
}

#ifdef WITHOUT_ENDPOINT /* built where libmicrohttpd is not: see the Makefile's SERVE */
int weft_debug_serve(const weft_serve_opts *opts, weft_debug_server **out) { return opts != NULL && out != NULL ? -ENOTSUP : -EINVAL; }
int weft_debug_serve_stop(weft_debug_server *server) { return server == NULL ? 0 : -EINVAL; }
int weft_debug_port(const weft_debug_server *server) { return server == NULL ? 0 : -EINVAL; }
#endif

/* It serves until the last connection has ended, and keeps the last seconds in memory, for /debug/flight. */
static int debug_start(struct program *p)
{
    if (!p->debug)
        return 0;
    weft_serve_opts o = WEFT_SERVE_OPTS_INIT;
    const char *why = "";
    o.port = p->debug_port;
    o.unix_path = p->debug_unix;
    o.cmdline = true; /* no secret is given on it */
    o.why = &why;
    int err = weft_debug_serve(&o, &p->debug_server);
    if (err != 0) {
        fprintf(stderr, "kv: the debug endpoint: %s\n", *why != 0 ? why : weft_strerror(err));
        return err;
    }
    if (p->debug_unix == NULL)
        printf("kv: debug endpoint at http://127.0.0.1:%d/debug/\n", weft_debug_port(p->debug_server));
    else
        printf("kv: debug endpoint at %s\n", p->debug_unix);
    fflush(stdout);
    return weft_flight_recorder_start(NULL);
}

static void run(void *arg)
{
    struct program *p = arg;
    int err = profiles_start(p);
    if (err == 0)
        err = debug_start(p);
    if (err == 0)
        err = trace_start(p);
    if (err == 0) {
        p->status = server_run(&p->server);
        err = trace_stop(p);
    }
    if (err != 0) {
        fprintf(stderr, "kv: profiles, trace and debug endpoint: %s\n", weft_strerror(err));
        p->status = 1;
    }
    if (p->debug_server != NULL)
        weft_debug_serve_stop(p->debug_server);
}

int main(int argc, char **argv)
{
    struct program p = { .server = { .bind = "127.0.0.1", .port = 6379, .max_clients = 10000, .grace_ms = 5000 } };
    uint64_t seed[2];
    parse_options(&p, argc, argv);
    raise_descriptor_limit();
    block_signals();
    if (getrandom(seed, sizeof seed, 0) == sizeof seed)
        table_hash_seed(seed);
    weft_config config = WEFT_CONFIG_INIT;
    config.maxprocs = p.procs;
    config.memory_limit = p.server.memory_limit;
    int r = weft_run(run, &p, &config);
    if (r < 0) {
        fprintf(stderr, "kv: %s\n", weft_strerror(r));
        return 1;
    }
    return p.status;
}
