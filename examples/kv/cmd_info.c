/* cmd_info.c - INFO: what the server does, and what the collector does meanwhile.
 *
 * weft_read_mem_stats stops the world, and anyone may poll INFO, so its figures are read once a second at most and
 * kept (examples/bugs/06 shows what happens otherwise). */
#include "cmd.h"
#include "text.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

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
    line(t, "connected_clients", clients_count());
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
    line(t, "client_output_buffer_limit_disconnections", counter(&server.reply_too_large));
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
        reply_oom(c);
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
