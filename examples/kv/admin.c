/* admin.c - INFO, CONFIG, CLIENT, COMMAND: what operators and client libraries ask about the server itself.
 *
 * INFO shows what the collector does. weft_read_mem_stats stops the world, and anyone may poll INFO, so its figures
 * are read once a second at most and kept (examples/bugs/06 shows what happens otherwise). */
#include "cmd.h"

#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct text {
    char *b;
    size_t n, cap;
};

static void text_add(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void text_add(struct text *t, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    size_t room = t->cap - t->n;
    int n = vsnprintf(t->b + t->n, room, format, ap);
    va_end(ap);
    if (n > 0)
        t->n += (size_t)n < room ? (size_t)n : room - 1;
}

static void reply_subcommand(struct client *c, const char *of, struct slice word)
{
    resp_error(&c->out, "ERR unknown subcommand '%.*s'. Try %s HELP.", word.n < 128 ? (int)word.n : 128, word.p, of);
}

/* ---- INFO ---------------------------------------------------------------------------------------- */

static weft_mutex stats_lock;
static weft_mem_stats stats_kept;
static int64_t stats_read_ms;

static void mem_stats(weft_mem_stats *out, int64_t now_ms)
{
    weft_mutex_lock(&stats_lock);
    if (stats_read_ms == 0 || now_ms - stats_read_ms >= 1000) {
        stats_kept.size = sizeof stats_kept;
        (void)weft_read_mem_stats(&stats_kept);
        stats_read_ms = now_ms;
    }
    *out = stats_kept;
    weft_mutex_unlock(&stats_lock);
}

/* "VmRSS:  123 kB" and the like, of /proc/self/status; 0 if it is not there. */
static unsigned long proc_status(const char *key)
{
    char line[256];
    unsigned long v = 0;
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, key, strlen(key)) == 0)
            sscanf(line + strlen(key), ": %lu", &v);
    if (f)
        fclose(f);
    return v;
}

/* The time below which `percent` of the stops stayed: the upper end of a bucket. */
static uint64_t stop_percentile_us(const weft_stop_stats *s, uint64_t percent)
{
    uint64_t seen = 0;
    for (int i = 0; i < WEFT_STOP_BUCKETS; i++) {
        seen += s->stopped[i];
        if (s->count > 0 && seen * 100 >= s->count * percent) {
            uint64_t ns = UINT64_C(2) << i;
            return (ns < s->stopped_max_ns ? ns : s->stopped_max_ns) / 1000;
        }
    }
    return 0;
}

static void line(struct text *t, const char *name, uint64_t v)
{
    text_add(t, "%s:%llu\r\n", name, (unsigned long long)v);
}

static uint64_t counter(const uint64_t *c) { return __atomic_load_n(c, __ATOMIC_RELAXED); }

static void info_server(struct text *t, const weft_mem_stats *m, int64_t now_ms)
{
    (void)m;
    text_add(t, "# Server\r\nserver_name:weft-kv\r\nweft_version:%s\r\n", weft_version());
    line(t, "process_id", (uint64_t)getpid());
    line(t, "tcp_port", (uint64_t)server.port);
    line(t, "uptime_in_seconds", (uint64_t)(now_ms - server.start_ms) / 1000);
    line(t, "processors", (uint64_t)weft_maxprocs(0));
    line(t, "fibers", (uint64_t)weft_num_fibers());
    line(t, "threads", proc_status("Threads"));
}

static void info_clients(struct text *t, const weft_mem_stats *m, int64_t now_ms)
{
    (void)m, (void)now_ms;
    text_add(t, "# Clients\r\n");
    line(t, "connected_clients", server.n_clients);
    line(t, "maxclients", (uint64_t)server.options.max_clients);
}

static void info_memory(struct text *t, const weft_mem_stats *m, int64_t now_ms)
{
    (void)now_ms;
    int64_t limit = weft_set_memory_limit(-1);
    text_add(t, "# Memory\r\n");
    line(t, "used_memory", m->heap_alloc);
    line(t, "used_memory_rss", proc_status("VmRSS") * 1024ull);
    line(t, "used_memory_peak_rss", proc_status("VmHWM") * 1024ull);
    line(t, "runtime_memory", m->sys - m->heap_released);
    line(t, "maxmemory", limit == INT64_MAX ? 0 : (uint64_t)limit);
}

static void info_stats(struct text *t, const weft_mem_stats *m, int64_t now_ms)
{
    (void)m, (void)now_ms;
    struct db_stats d;
    db_stats_read(&d);
    text_add(t, "# Stats\r\n");
    line(t, "total_connections_received", counter(&server.accepted));
    line(t, "rejected_connections", counter(&server.rejected));
    line(t, "total_commands_processed", counter(&server.commands));
    line(t, "protocol_errors", counter(&server.protocol_errors));
    line(t, "keyspace_hits", d.hits);
    line(t, "keyspace_misses", d.misses);
    line(t, "expired_keys", d.expired);
}

static void info_collector(struct text *t, const weft_mem_stats *m, int64_t now_ms)
{
    (void)now_ms;
    weft_stop_stats s = { 0 };
    (void)weft_read_stop_stats(WEFT_STOP_GC, &s);
    text_add(t, "# Collector\r\n");
    line(t, "gc_cycles", m->num_gc);
    line(t, "gc_forced", m->num_forced_gc);
    line(t, "gc_stops", s.count);
    line(t, "gc_stop_total_us", s.stopped_total_ns / 1000);
    line(t, "gc_stop_p50_us", stop_percentile_us(&s, 50));
    line(t, "gc_stop_p99_us", stop_percentile_us(&s, 99));
    line(t, "gc_stop_max_us", s.stopped_max_ns / 1000);
    text_add(t, "gc_cpu_percent:%.2f\r\n", m->gc_cpu_fraction * 100);
    line(t, "heap_objects", m->heap_objects);
    line(t, "heap_goal", m->next_gc);
    line(t, "allocated_objects", m->mallocs);
    line(t, "allocated_bytes", m->total_alloc);
}

static void info_keyspace(struct text *t, const weft_mem_stats *m, int64_t now_ms)
{
    (void)m, (void)now_ms;
    struct db_stats d;
    db_stats_read(&d);
    text_add(t, "# Keyspace\r\n");
    if (d.keys > 0)
        text_add(t, "db0:keys=%zu,expires=%zu,avg_ttl=0\r\n", d.keys, d.volatiles);
}

/* To add a section: a line here. */
static const struct section {
    const char *name;
    void (*add)(struct text *t, const weft_mem_stats *m, int64_t now_ms);
} sections[] = {
    { "server", info_server },       { "clients", info_clients },   { "memory", info_memory },
    { "stats", info_stats },         { "collector", info_collector }, { "keyspace", info_keyspace },
};

void cmd_info(struct client *c, struct slice *argv, uint32_t argc)
{
    enum { INFO_BYTES = 8192 };
    struct text t = { .b = weft_alloc_noscan(INFO_BYTES), .cap = INFO_BYTES };
    weft_mem_stats *m = weft_alloc_noscan(sizeof *m); /* 8 KiB: not on a fiber's stack */
    if (!t.b || !m) {
        resp_error(&c->out, "OOM out of memory");
        return;
    }
    mem_stats(m, c->now_ms);
    for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++) {
        bool wanted = argc == 1;
        for (uint32_t j = 1; j < argc; j++)
            wanted |= cmd_is(argv[j], sections[i].name) || cmd_is(argv[j], "all") || cmd_is(argv[j], "everything") ||
                      cmd_is(argv[j], "default");
        if (!wanted)
            continue;
        if (t.n > 0)
            text_add(&t, "\r\n");
        sections[i].add(&t, m, c->now_ms);
    }
    resp_bulk(&c->out, t.b, t.n);
}

/* ---- CONFIG -------------------------------------------------------------------------------------- */

static long long config_maxclients(void) { return server.options.max_clients; }
static long long config_maxmemory(void)
{
    int64_t limit = weft_set_memory_limit(-1);
    return limit == INT64_MAX ? 0 : limit;
}
static long long config_bulk(void) { return (long long)resp_max_bulk_bytes; }
static long long config_port(void) { return server.port; }
static long long config_procs(void) { return weft_maxprocs(0); }

/* To add a parameter: a line here. What we have no such thing of has the text that tells clients so. */
static const struct parameter {
    const char *name, *text;
    long long (*number)(void); /* instead of text */
} parameters[] = {
    { "appendonly", "no", NULL },
    { "databases", "1", NULL },
    { "io-threads", NULL, config_procs },
    { "maxclients", NULL, config_maxclients },
    { "maxmemory", NULL, config_maxmemory },
    { "maxmemory-policy", "noeviction", NULL },
    { "port", NULL, config_port },
    { "proto-max-bulk-len", NULL, config_bulk },
    { "save", "", NULL },
    { "timeout", "0", NULL },
};

static bool matches_any(const char *name, const struct slice *argv, uint32_t argc)
{
    char pattern[128];
    for (uint32_t i = 2; i < argc; i++) {
        snprintf(pattern, sizeof pattern, "%.*s", argv[i].n < sizeof pattern ? (int)argv[i].n : 0, argv[i].p);
        if (fnmatch(pattern, name, FNM_CASEFOLD) == 0)
            return true;
    }
    return false;
}

static void config_get(struct client *c, const struct slice *argv, uint32_t argc)
{
    enum { N = sizeof parameters / sizeof parameters[0] };
    bool wanted[N];
    size_t n = 0;
    for (int i = 0; i < N; i++)
        n += wanted[i] = matches_any(parameters[i].name, argv, argc);
    resp_array(&c->out, 2 * n);
    for (int i = 0; i < N; i++) {
        char digits[24];
        if (!wanted[i])
            continue;
        resp_text(&c->out, parameters[i].name);
        if (parameters[i].number)
            resp_bulk(&c->out, digits, resp_print_int(digits, parameters[i].number()));
        else
            resp_text(&c->out, parameters[i].text);
    }
}

void cmd_config(struct client *c, struct slice *argv, uint32_t argc)
{
    if (cmd_is(argv[1], "get") && argc > 2) {
        config_get(c, argv, argc);
    } else if (cmd_is(argv[1], "resetstat") && argc == 2) {
        db_stats_reset();
        __atomic_store_n(&server.commands, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&server.accepted, 0, __ATOMIC_RELAXED);
        resp_simple(&c->out, "OK");
    } else {
        reply_subcommand(c, "CONFIG", argv[1]);
    }
}

/* ---- CLIENT -------------------------------------------------------------------------------------- */

static void client_line(struct text *t, const struct client *c, int64_t now_ms)
{
    text_add(t, "id=%llu addr=%s fd=%d name=%s age=%lld db=0\n", (unsigned long long)c->id, c->peer,
             weft_fd_number(c->fd), c->name, (long long)(now_ms - c->since_ms) / 1000);
}

static void client_list(struct client *c, bool all)
{
    weft_mutex_lock(&server.clients_lock);
    size_t cap = (all ? server.n_clients : 1) * (sizeof c->peer + sizeof c->name + 100);
    struct text t = { .b = weft_alloc_noscan(cap), .cap = cap };
    if (t.b && !all)
        client_line(&t, c, c->now_ms);
    for (struct client *each = server.clients; t.b && all && each; each = each->next)
        client_line(&t, each, c->now_ms);
    weft_mutex_unlock(&server.clients_lock);
    if (t.b)
        resp_bulk(&c->out, t.b, t.n);
    else
        resp_error(&c->out, "OOM out of memory");
}

static void client_setname(struct client *c, struct slice name)
{
    bool plain = name.n < sizeof c->name;
    for (uint32_t i = 0; i < name.n && plain; i++)
        plain = name.p[i] > ' ' && name.p[i] <= '~';
    if (!plain) {
        resp_error(&c->out, "ERR Client names cannot contain spaces, newlines or special characters.");
        return;
    }
    weft_mutex_lock(&server.clients_lock);
    memcpy(c->name, name.p, name.n);
    c->name[name.n] = 0;
    weft_mutex_unlock(&server.clients_lock);
    resp_simple(&c->out, "OK");
}

void cmd_client(struct client *c, struct slice *argv, uint32_t argc)
{
    if (cmd_is(argv[1], "id") && argc == 2) {
        resp_int(&c->out, (int64_t)c->id);
    } else if (cmd_is(argv[1], "getname") && argc == 2) {
        c->name[0] ? resp_text(&c->out, c->name) : resp_nil(&c->out);
    } else if (cmd_is(argv[1], "setname") && argc == 3) {
        client_setname(c, argv[2]);
    } else if (cmd_is(argv[1], "setinfo") && argc == 4) {
        resp_simple(&c->out, "OK");
    } else if (cmd_is(argv[1], "list") || (cmd_is(argv[1], "info") && argc == 2)) {
        client_list(c, cmd_is(argv[1], "list"));
    } else {
        reply_subcommand(c, "CLIENT", argv[1]);
    }
}

/* ---- COMMAND ------------------------------------------------------------------------------------- */

static void describe(struct resp_out *o, const struct cmd *cmd)
{
    static const struct { int flag; const char *name; } names[] = {
        { CMD_READ, "readonly" }, { CMD_WRITE, "write" }, { CMD_FAST, "fast" }, { CMD_ADMIN, "admin" },
    };
    resp_array(o, 6);
    resp_text(o, cmd->name);
    resp_int(o, cmd->arity);
    size_t n = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        n += (cmd->flags & names[i].flag) != 0;
    resp_array(o, n);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (cmd->flags & names[i].flag)
            resp_simple(o, names[i].name);
    resp_int(o, cmd->first);
    resp_int(o, cmd->last);
    resp_int(o, cmd->step);
}

void cmd_command(struct client *c, struct slice *argv, uint32_t argc)
{
    if (argc == 1 || (argc == 2 && cmd_is(argv[1], "info"))) {
        resp_array(&c->out, cmd_count);
        for (size_t i = 0; i < cmd_count; i++)
            describe(&c->out, &cmd_table[i]);
    } else if (cmd_is(argv[1], "info")) {
        resp_array(&c->out, argc - 2);
        for (uint32_t i = 2; i < argc; i++) {
            const struct cmd *cmd = cmd_find(argv[i]);
            cmd ? describe(&c->out, cmd) : resp_nil_array(&c->out);
        }
    } else if (cmd_is(argv[1], "count") && argc == 2) {
        resp_int(&c->out, (int64_t)cmd_count);
    } else if (cmd_is(argv[1], "list") && argc == 2) {
        resp_array(&c->out, cmd_count);
        for (size_t i = 0; i < cmd_count; i++)
            resp_text(&c->out, cmd_table[i].name);
    } else if (cmd_is(argv[1], "docs")) {
        resp_array(&c->out, 0);
    } else {
        reply_subcommand(c, "COMMAND", argv[1]);
    }
}
