/* cmd_server.c - commands on the connection and on the server itself: what operators and client libraries ask. INFO is in cmd_info.c. */
#include "cmd.h"
#include "text.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

/* ---- connection ---------------------------------------------------------------------------------- */

static void cmd_ping(struct client *c, struct slice *argv, uint32_t argc)
{
    if (argc > 2)
        reply_arity(c, "ping");
    else if (argc == 2)
        resp_bulk(&c->out, argv[1].p, argv[1].n);
    else
        resp_simple(&c->out, "PONG");
}

static void cmd_echo(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    resp_bulk(&c->out, argv[1].p, argv[1].n);
}

static void cmd_quit(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argv, (void)argc;
    c->closing = true;
    resp_simple(&c->out, "OK");
}

static void cmd_select(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    int64_t index;
    if (!cmd_int(c, argv[1], &index))
        return;
    if (index == 0)
        resp_simple(&c->out, "OK");
    else
        resp_error(&c->out, "ERR DB index is out of range");
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

static void config_get(struct client *c, struct slice *argv, uint32_t argc)
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

static void config_resetstat(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argv, (void)argc;
    db_stats_reset();
    server_stats_reset();
    resp_simple(&c->out, "OK");
}

static const struct subcmd config_subs[] = {
    { "get", config_get, -3 },
    { "resetstat", config_resetstat, 2 },
    { 0 },
};

static void cmd_config(struct client *c, struct slice *argv, uint32_t argc)
{
    cmd_run_sub(c, argv, argc, "config", config_subs);
}

/* ---- CLIENT -------------------------------------------------------------------------------------- */

static void client_line(struct text *t, const struct client *c, int64_t now_ms)
{
    text_add(t, "id=%llu addr=%s fd=%d name=%s age=%lld db=0\n", (unsigned long long)c->id, c->peer,
             weft_fd_number(c->fd), c->name, (long long)(now_ms - c->since_ms) / 1000);
}

static void client_lines(struct client *c, bool all)
{
    weft_mutex_lock(&server.clients_lock);
    size_t cap = (all ? clients_count() : 1) * (sizeof c->peer + sizeof c->name + 100);
    struct text t = { .b = weft_alloc_noscan(cap), .cap = cap };
    if (t.b && !all)
        client_line(&t, c, c->now_ms);
    for (struct client *each = server.clients; t.b && all && each; each = each->next)
        client_line(&t, each, c->now_ms);
    weft_mutex_unlock(&server.clients_lock);
    if (t.b)
        resp_bulk(&c->out, t.b, t.n);
    else
        reply_oom(c);
}

static void client_list(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argv, (void)argc;
    client_lines(c, true);
}

static void client_info(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argv, (void)argc;
    client_lines(c, false);
}

static void client_id(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argv, (void)argc;
    resp_int(&c->out, (int64_t)c->id);
}

static void client_getname(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argv, (void)argc;
    c->name[0] ? resp_text(&c->out, c->name) : resp_nil(&c->out);
}

static void client_setname(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    struct slice name = argv[2];
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

/* Libraries introduce themselves with it, and do not mind that nobody listens. */
static void client_setinfo(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argv, (void)argc;
    resp_simple(&c->out, "OK");
}

static const struct subcmd client_subs[] = {
    { "getname", client_getname, 2 },
    { "id", client_id, 2 },
    { "info", client_info, 2 },
    { "list", client_list, 2 },
    { "setinfo", client_setinfo, 4 },
    { "setname", client_setname, 3 },
    { 0 },
};

static void cmd_client(struct client *c, struct slice *argv, uint32_t argc)
{
    cmd_run_sub(c, argv, argc, "client", client_subs);
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

static size_t cmd_number(void)
{
    size_t n = 0;
    while (cmd_at(n))
        n++;
    return n;
}

static void command_all(struct client *c)
{
    resp_array(&c->out, cmd_number());
    for (size_t i = 0; cmd_at(i); i++)
        describe(&c->out, cmd_at(i));
}

static void command_info(struct client *c, struct slice *argv, uint32_t argc)
{
    if (argc == 2) {
        command_all(c);
        return;
    }
    resp_array(&c->out, argc - 2);
    for (uint32_t i = 2; i < argc; i++) {
        const struct cmd *cmd = cmd_find(argv[i]);
        cmd ? describe(&c->out, cmd) : resp_nil_array(&c->out);
    }
}

static void command_count(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argv, (void)argc;
    resp_int(&c->out, (int64_t)cmd_number());
}

static void command_list(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argv, (void)argc;
    resp_array(&c->out, cmd_number());
    for (size_t i = 0; cmd_at(i); i++)
        resp_text(&c->out, cmd_at(i)->name);
}

static void command_docs(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argv, (void)argc;
    resp_array(&c->out, 0);
}

static const struct subcmd command_subs[] = {
    { "count", command_count, 2 },
    { "docs", command_docs, -2 },
    { "info", command_info, -2 },
    { "list", command_list, 2 },
    { 0 },
};

static void cmd_command(struct client *c, struct slice *argv, uint32_t argc)
{
    if (argc == 1)
        command_all(c);
    else
        cmd_run_sub(c, argv, argc, "command", command_subs);
}

/* ---- the table ----------------------------------------------------------------------------------- */

const struct cmd cmd_server[] = {
    /* name      function     words flags    no keys */
    { "ping",    cmd_ping,    -1, CMD_FAST,  0, 0, 0 },
    { "echo",    cmd_echo,     2, CMD_FAST,  0, 0, 0 },
    { "quit",    cmd_quit,    -1, CMD_FAST,  0, 0, 0 },
    { "select",  cmd_select,   2, CMD_FAST,  0, 0, 0 },
    { "info",    cmd_info,    -1, CMD_ADMIN, 0, 0, 0 },
    { "config",  cmd_config,  -2, CMD_ADMIN, 0, 0, 0 },
    { "client",  cmd_client,  -2, CMD_ADMIN, 0, 0, 0 },
    { "command", cmd_command, -1, CMD_ADMIN, 0, 0, 0 },
    { 0 },
};
