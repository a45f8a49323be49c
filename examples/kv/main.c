/* kv - a key-value server that speaks the Redis protocol, written on weft: a fiber per connection, all data in the
 * collected heap, nothing freed by hand. Try it:   kv --port 6379 &   redis-cli set greeting hello   redis-benchmark
 * -t set,get -P 16
 *
 * Where things are: resp.c the protocol, table.c strings and hash tables, db.c shards, expiry and lists, cmd.c and
 * admin.c the commands, server.c connections and the clean end. It keeps nothing on disk. */
#include "cmd.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>

static const char usage[] =
    "usage: kv [options]\n"
    "  --bind ADDR          numeric address to listen on (127.0.0.1); \"none\": no TCP\n"
    "  --port N             TCP port (6379); 0: any free one, see the ready line\n"
    "  --unix PATH          listen on a unix socket as well\n"
    "  --maxclients N       connections at a time (10000)\n"
    "  --max-bulk BYTES     longest argument (67108864)\n"
    "  --memory-limit BYTES soft limit of the collected heap and all around it\n"
    "  --procs N            processors (from affinity and cgroup)\n"
    "  --grace MS           on SIGTERM: time for connections to finish (5000)\n";

struct program {
    struct server_options server;
    int procs;
    int status;
};

static long long number(const char *text, long long max)
{
    int64_t v;
    if (resp_parse_int(text, strlen(text), &v) && v >= 0 && v <= max)
        return v;
    fprintf(stderr, "kv: %s is not a number from 0 to %lld\n%s", text, max, usage);
    exit(2);
}

static void parse_options(struct program *p, int argc, char **argv)
{
    static const struct option options[] = {
        { "bind", 1, NULL, 'b' },         { "port", 1, NULL, 'p' },     { "unix", 1, NULL, 'u' },
        { "maxclients", 1, NULL, 'c' },   { "max-bulk", 1, NULL, 'B' }, { "procs", 1, NULL, 'P' },
        { "memory-limit", 1, NULL, 'm' }, { "grace", 1, NULL, 'g' },    { "help", 0, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (o) {
        case 'b': p->server.bind = strcmp(optarg, "none") == 0 ? NULL : optarg; break;
        case 'p': p->server.port = (int)number(optarg, 65535); break;
        case 'u': p->server.unix_path = optarg; break;
        case 'c': p->server.max_clients = (int)number(optarg, 10000000); break;
        case 'B': resp_max_bulk_bytes = (size_t)number(optarg, 512ll << 20); break;
        case 'm': p->server.memory_limit = number(optarg, INT64_MAX); break;
        case 'P': p->procs = (int)number(optarg, 1024); break;
        case 'g': p->server.grace_ms = (int)number(optarg, 3600000); break;
        case 'h': fputs(usage, stdout); exit(0);
        default: fputs(usage, stderr); exit(2);
        }
    if (optind < argc || (!p->server.bind && !p->server.unix_path)) {
        fputs(usage, stderr);
        exit(2);
    }
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

static void run(void *arg)
{
    struct program *p = arg;
    p->status = server_run(&p->server);
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
