/* cmd_keys.c - commands on keys of any kind. */
#include "cmd.h"

static void cmd_del(struct client *c, struct slice *argv, uint32_t argc)
{
    int64_t n = 0;
    for (uint32_t i = 1; i < argc; i++) {
        struct entry *e = db_find(argv[i], c->now_ms);
        if (e)
            db_remove(e);
        n += e != NULL;
    }
    resp_int(&c->out, n);
}

static void cmd_exists(struct client *c, struct slice *argv, uint32_t argc)
{
    int64_t n = 0;
    for (uint32_t i = 1; i < argc; i++)
        n += db_find(argv[i], c->now_ms) != NULL;
    resp_int(&c->out, n);
}

static void cmd_expire(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    int64_t at;
    if (!cmd_expiry(c, argv[2], 1000, "expire", &at))
        return;
    struct entry *e = db_find(argv[1], c->now_ms);
    if (e && at <= c->now_ms)
        db_remove(e);
    else if (e)
        db_set_expiry(e, at);
    resp_int(&c->out, e != NULL);
}

/* Milliseconds to live; -2: no such key; -1: for ever. */
static int64_t time_to_live(struct client *c, struct slice key)
{
    struct entry *e = db_find(key, c->now_ms);
    return !e ? -2 : e->expires_ms == 0 ? -1 : e->expires_ms - c->now_ms;
}

static void cmd_ttl(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    int64_t ms = time_to_live(c, argv[1]);
    resp_int(&c->out, ms < 0 ? ms : ms / 1000 + (ms % 1000 >= 500));
}

static void cmd_pttl(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    resp_int(&c->out, time_to_live(c, argv[1]));
}

static void cmd_flushall(struct client *c, struct slice *argv, uint32_t argc)
{
    if (argc > 2 || (argc == 2 && !cmd_is(argv[1], "async") && !cmd_is(argv[1], "sync"))) {
        reply_syntax(c);
        return;
    }
    db_clear();
    resp_simple(&c->out, "OK");
}

static void cmd_dbsize(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argv, (void)argc;
    resp_int(&c->out, (int64_t)db_count());
}

const struct cmd cmd_keys[] = {
    /* name      function      words flags                     keys: first, last, step */
    { "del",      cmd_del,      -2, CMD_WRITE,                1, -1, 1 },
    { "exists",   cmd_exists,   -2, CMD_READ | CMD_FAST,      1, -1, 1 },
    { "expire",   cmd_expire,    3, CMD_WRITE | CMD_FAST,     1, 1, 1 },
    { "ttl",      cmd_ttl,       2, CMD_READ | CMD_FAST,      1, 1, 1 },
    { "pttl",     cmd_pttl,      2, CMD_READ | CMD_FAST,      1, 1, 1 },
    { "dbsize",   cmd_dbsize,    1, CMD_READ | CMD_FAST,      0, 0, 0 },
    { "flushall", cmd_flushall, -1, CMD_WRITE | CMD_LOCK_ALL, 0, 0, 0 },
    { 0 },
};
