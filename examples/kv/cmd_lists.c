/* cmd_lists.c - commands on lists. */
#include "cmd.h"
#include "list.h"

static void push(struct client *c, struct slice *argv, uint32_t argc, bool front)
{
    struct entry *e;
    if (!cmd_entry(c, argv[1], KIND_LIST, &e))
        return;
    struct list *l = e ? e->value : list_make();
    bool ok = l != NULL;
    for (uint32_t i = 2; ok && i < argc; i++) {
        struct str *s = str_make(argv[i].p, argv[i].n);
        ok = s && list_push(l, front, s);
    }
    if (ok && !e) {
        e = db_put(argv[1], c->now_ms);
        if (e) {
            e->value = l;
            e->kind = KIND_LIST;
        }
    }
    if (ok && e)
        resp_int(&c->out, (int64_t)l->count);
    else
        reply_oom(c);
}

static void cmd_lpush(struct client *c, struct slice *argv, uint32_t argc) { push(c, argv, argc, true); }
static void cmd_rpush(struct client *c, struct slice *argv, uint32_t argc) { push(c, argv, argc, false); }

static void pop(struct client *c, struct slice *argv, uint32_t argc, bool front)
{
    struct entry *e;
    int64_t n = 1;
    if (argc > 3) {
        reply_arity(c, front ? "lpop" : "rpop");
        return;
    }
    if (argc == 3 && (!resp_parse_int(argv[2].p, argv[2].n, &n) || n < 0)) {
        resp_error(&c->out, "ERR value is out of range, must be positive");
        return;
    }
    if (!cmd_entry(c, argv[1], KIND_LIST, &e))
        return;
    if (!e) {
        argc == 3 ? resp_nil_array(&c->out) : resp_nil(&c->out);
        return;
    }
    struct list *l = e->value;
    if ((uint64_t)n > l->count)
        n = (int64_t)l->count;
    if (argc == 3)
        resp_array(&c->out, (size_t)n);
    while (n-- > 0)
        reply_str(c, list_pop(l, front));
    if (l->count == 0)
        db_remove(e);
}

static void cmd_lpop(struct client *c, struct slice *argv, uint32_t argc) { pop(c, argv, argc, true); }
static void cmd_rpop(struct client *c, struct slice *argv, uint32_t argc) { pop(c, argv, argc, false); }

static void cmd_llen(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    struct entry *e;
    if (cmd_entry(c, argv[1], KIND_LIST, &e))
        resp_int(&c->out, e ? (int64_t)((struct list *)e->value)->count : 0);
}

static void cmd_lrange(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    struct entry *e;
    int64_t from, to;
    if (!cmd_int(c, argv[2], &from) || !cmd_int(c, argv[3], &to) || !cmd_entry(c, argv[1], KIND_LIST, &e))
        return;
    struct list *l = e ? e->value : NULL;
    int64_t count = l ? (int64_t)l->count : 0;
    from = from < 0 ? (from + count < 0 ? 0 : from + count) : from;
    to = to < 0 ? to + count : to >= count ? count - 1 : to;
    if (from > to || from >= count) {
        resp_array(&c->out, 0);
        return;
    }
    resp_array(&c->out, (size_t)(to - from + 1));
    struct list_cursor at = list_at(l, (size_t)from);
    for (; from <= to; from++)
        reply_str(c, list_next(&at));
}

const struct cmd cmd_lists[] = {
    /* name    function    words flags                 keys: first, last, step */
    { "lpush",  cmd_lpush,  -3, CMD_WRITE | CMD_FAST, 1, 1, 1 },
    { "rpush",  cmd_rpush,  -3, CMD_WRITE | CMD_FAST, 1, 1, 1 },
    { "lpop",   cmd_lpop,   -2, CMD_WRITE | CMD_FAST, 1, 1, 1 },
    { "rpop",   cmd_rpop,   -2, CMD_WRITE | CMD_FAST, 1, 1, 1 },
    { "lrange", cmd_lrange,  4, CMD_READ,             1, 1, 1 },
    { "llen",   cmd_llen,    2, CMD_READ | CMD_FAST,  1, 1, 1 },
    { 0 },
};
