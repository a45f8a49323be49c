/* cmd.h - the commands: a table, and what runs a request through it. */
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

void cmd_init(void);
/* Runs the request in c->in. */
void cmd_run(struct client *c);

/* For admin.c. */
extern const struct cmd cmd_table[];
extern const size_t cmd_count;
const struct cmd *cmd_find(struct slice name);
bool cmd_is(struct slice word, const char *lower);
cmd_fn cmd_info, cmd_config, cmd_client, cmd_command; /* in admin.c */

#endif
