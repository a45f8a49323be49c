/* cmd.c - the dispatcher.
 *
 * The table of a command tells which words are keys. They are hashed and their shards are locked before the function runs,
 * so a function never locks, and is atomic. Replies go to a buffer and never wait for the client: nobody sends under a lock. */
#include "cmd.h"

#include <stdio.h>
#include <string.h>

/* ---- replies and arguments ----------------------------------------------------------------------- */

static const char wrong_type[] = "WRONGTYPE Operation against a key holding the wrong kind of value";
static const char not_an_int[] = "ERR value is not an integer or out of range";

void reply_oom(struct client *c) { resp_error(&c->out, "OOM out of memory"); }
void reply_syntax(struct client *c) { resp_error(&c->out, "ERR syntax error"); }

void reply_arity(struct client *c, const char *name)
{
    resp_error(&c->out, "ERR wrong number of arguments for '%s' command", name);
}

void reply_str(struct client *c, const struct str *s) { resp_bulk_ref(&c->out, s->b, s->n); }

bool cmd_is(struct slice word, const char *lower)
{
    return strlen(lower) == word.n && strncasecmp(word.p, lower, word.n) == 0;
}

bool cmd_int(struct client *c, struct slice word, int64_t *out)
{
    if (resp_parse_int(word.p, word.n, out))
        return true;
    resp_error(&c->out, not_an_int);
    return false;
}

bool cmd_entry(struct client *c, struct slice key, enum kind kind, struct entry **e)
{
    *e = db_find(key, c->now_ms);
    if (!*e || (*e)->kind == kind)
        return true;
    resp_error(&c->out, wrong_type);
    return false;
}

bool cmd_expiry(struct client *c, struct slice word, int64_t unit_ms, const char *name, int64_t *at)
{
    int64_t amount;
    if (!cmd_int(c, word, &amount))
        return false;
    if (!__builtin_mul_overflow(amount, unit_ms, at) && !__builtin_add_overflow(*at, c->now_ms, at))
        return true;
    resp_error(&c->out, "ERR invalid expire time in '%s' command", name);
    return false;
}

/* ---- all commands -------------------------------------------------------------------------------- */

enum { MAX_COMMANDS = 128, INDEX_SLOTS = 256 }; /* a power of two, well above the number of commands */
static const struct cmd *all[MAX_COMMANDS + 1];
static uint8_t index_[INDEX_SLOTS]; /* 1 + place in all; 0: free. A hash table that is filled once */

static uint32_t name_hash(const char *p, size_t n)
{
    uint32_t h = (uint32_t)n;
    for (size_t i = 0; i < n; i++)
        h = h * 31 + ((unsigned char)p[i] | 0x20);
    return h ^ h >> 8;
}

void cmd_init(void)
{
    static const struct cmd *const groups[] = { cmd_server, cmd_keys, cmd_strings, cmd_lists, cmd_hashes };
    size_t n = 0;
    for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++)
        for (const struct cmd *cmd = groups[g]; cmd->name && n < MAX_COMMANDS; cmd++) {
            uint32_t h = name_hash(cmd->name, strlen(cmd->name));
            while (index_[h % INDEX_SLOTS])
                h++;
            all[n++] = cmd;
            index_[h % INDEX_SLOTS] = (uint8_t)n;
        }
}

const struct cmd *cmd_at(size_t i) { return all[i]; }

const struct cmd *cmd_find(struct slice name)
{
    for (uint32_t h = name_hash(name.p, name.n < 32 ? name.n : 0);; h++) {
        uint8_t i = index_[h % INDEX_SLOTS];
        if (i == 0)
            return NULL;
        if (cmd_is(name, all[i - 1]->name))
            return all[i - 1];
    }
}

/* ---- running one --------------------------------------------------------------------------------- */

static int at_most(size_t n, size_t max) { return (int)(n < max ? n : max); }

static bool arity_fits(int arity, uint32_t argc) { return arity < 0 ? argc >= (uint32_t)-arity : argc == (uint32_t)arity; }

static void reply_unknown(struct client *c, const struct slice *argv, uint32_t argc)
{
    char words[160];
    size_t n = 0;
    for (uint32_t i = 1; i < argc && n < 128; i++)
        n += (size_t)snprintf(words + n, sizeof words - n, "'%.*s' ", at_most(argv[i].n, 128 - n), argv[i].p);
    words[n] = 0;
    resp_error(&c->out, "ERR unknown command '%.*s', with args beginning with: %s", at_most(argv[0].n, 128), argv[0].p,
               words);
}

/* The start of an HTTP request: a page in somebody's browser tries to make it talk to us, with commands in the body. */
static bool is_http(struct slice word) { return cmd_is(word, "post") || cmd_is(word, "host:"); }

/* Hashes the keys and tells which shards they are in. */
static uint64_t shards_of(const struct cmd *cmd, struct slice *argv, uint32_t argc)
{
    uint64_t set = cmd->flags & CMD_LOCK_ALL ? DB_ALL : 0;
    if (cmd->first == 0)
        return set;
    int last = cmd->last < 0 ? (int)argc + cmd->last : cmd->last;
    for (int i = cmd->first; i <= last; i += cmd->step) {
        argv[i].hash = table_hash(argv[i].p, argv[i].n);
        set |= db_shard_bit(argv[i].hash);
    }
    return set;
}

void cmd_run(struct client *c)
{
    struct slice *argv = c->in.args;
    uint32_t argc = c->in.argc;
    const struct cmd *cmd = cmd_find(argv[0]);
    c->commands++;
    if (!cmd && is_http(argv[0])) {
        c->closing = true;
    } else if (!cmd) {
        reply_unknown(c, argv, argc);
    } else if (!arity_fits(cmd->arity, argc)) {
        reply_arity(c, cmd->name);
    } else {
        uint64_t shards = shards_of(cmd, argv, argc);
        db_lock(shards);
        cmd->run(c, argv, argc);
        db_unlock(shards);
    }
}

static void reply_help(struct client *c, const struct subcmd *subs)
{
    size_t n = 0;
    while (subs[n].name)
        n++;
    resp_array(&c->out, n);
    for (size_t i = 0; i < n; i++)
        resp_simple(&c->out, subs[i].name);
}

static const char *upper(const char *name, char to[16])
{
    for (int i = 0; name[i] && i < 15; i++)
        to[i] = (char)(name[i] - 'a' + 'A');
    return to;
}

void cmd_run_sub(struct client *c, struct slice *argv, uint32_t argc, const char *of, const struct subcmd *subs)
{
    const struct subcmd *sub = subs;
    while (sub->name && !cmd_is(argv[1], sub->name))
        sub++;
    if (sub->name && arity_fits(sub->arity, argc))
        sub->run(c, argv, argc);
    else if (sub->name)
        resp_error(&c->out, "ERR wrong number of arguments for '%s|%s' command", of, sub->name);
    else if (cmd_is(argv[1], "help"))
        reply_help(c, subs);
    else
        resp_error(&c->out, "ERR unknown subcommand '%.*s'. Try %s HELP.", at_most(argv[1].n, 128), argv[1].p, upper(of, (char[16]){ 0 }));
}
