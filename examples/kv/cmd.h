/* cmd.h - commands: what one is, what runs a request through it, what the functions of commands have in common.
 *
 * To add a command: a function that replies exactly once, and a line for it in the table at the end of the same file:
 *
 *      cmd_strings.c  cmd_lists.c  cmd_hashes.c    by the kind of value
 *      cmd_keys.c                                  any kind
 *      cmd_server.c                                the connection and the server itself
 *
 * What is stored is allocated; what is replaced or removed is just no longer pointed to.
 *
 * Where we differ from Redis 7 on purpose: there is one database, and RESP2 only (no HELLO); SET knows EX, PX, NX and XX, EXPIRE no option;
 * CONFIG reads and does not set; COMMAND describes commands in six fields, as Redis 6 did, and has no documentation. */
#ifndef KV_CMD_H
#define KV_CMD_H

#include "db.h"
#include "server.h"

enum { CMD_READ = 1, CMD_WRITE = 2, CMD_FAST = 4, CMD_ADMIN = 8, CMD_LOCK_ALL = 16 };

typedef void cmd_fn(struct client *c, struct slice *argv, uint32_t argc);

struct cmd {
    const char *name;       /* lower case */
    cmd_fn *run;            /* replies exactly once */
    int arity;              /* words with the name; negative: at least so many */
    int flags;
    int first, last, step;  /* which words are keys; last counts from the end if negative; first 0: none */
};

struct subcmd {
    const char *name;
    cmd_fn *run;
    int arity; /* words with both names */
};

/* Each ends with a nameless one. */
extern const struct cmd cmd_strings[], cmd_keys[], cmd_lists[], cmd_hashes[], cmd_server[];

void cmd_init(void);
/* Runs the request in c->in. */
void cmd_run(struct client *c);
/* Runs argv[1] as one of the subcommands of argv[0], whose name is `of`. */
void cmd_run_sub(struct client *c, struct slice *argv, uint32_t argc, const char *of, const struct subcmd *subs);

/* All of them, numbered: cmd_at(i) is NULL behind the last. */
const struct cmd *cmd_at(size_t i);
const struct cmd *cmd_find(struct slice name);
cmd_fn cmd_info; /* in a file of its own */

/* ---- for the functions of commands ---------------------------------------------------------------- */

bool cmd_is(struct slice word, const char *lower);
void reply_oom(struct client *c);
void reply_arity(struct client *c, const char *name);
void reply_syntax(struct client *c);
void reply_str(struct client *c, const struct str *s);

/* These three reply what is wrong if they return false.
 * The entry of a key that is to be of a kind; *e NULL: no such key. */
bool cmd_entry(struct client *c, struct slice key, enum kind kind, struct entry **e);
bool cmd_int(struct client *c, struct slice word, int64_t *out);
/* now + amount * unit. `name`: of the command. */
bool cmd_expiry(struct client *c, struct slice amount, int64_t unit_ms, const char *name, int64_t *at_ms);

#endif
