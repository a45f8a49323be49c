/* kv_protocol - the protocol of examples/kv at its edges: what is malformed or too large, input in crumbs, long
 * pipelines, clients that misbehave, and the clean end. */
#include "kv_client.h"

static struct kv server;

static void start(void) { server = kv_start(NULL, NULL); }
static void stop(void)
{
    if (server.pid)
        cr_expect(kv_stop(&server, SIGTERM) == 0, "the end is clean");
}
TestSuite(kv_protocol, .init = start, .fini = stop, .timeout = 60);

/* Everything the server says to these bytes until it closes; with half, we say that we are done after sending them. */
static struct text talk(const char *bytes, size_t n, bool half)
{
    struct conn c;
    struct text all = { 0 };
    conn_tcp(&c, &server);
    cr_assert(c.fd >= 0);
    cr_assert(conn_send(&c, bytes, n));
    if (half)
        shutdown(c.fd, SHUT_WR);
    text_add(&all, "", 0);
    while (conn_peek(&c) >= 0)
        conn_take(&c, c.in.n - c.head, &all);
    conn_close(&c);
    return all;
}

static void expect_talk(const char *bytes, size_t n, bool half, const char *want)
{
    struct text got = talk(bytes, n, half);
    cr_expect_str_eq(got.p, want, "to %.60s: got %.200s, wanted %.200s", bytes, got.p, want);
    text_free(&got);
}
#define SAYS(bytes, want) expect_talk(bytes, sizeof(bytes) - 1, true, want)
#define CLOSES(bytes, want) expect_talk(bytes, sizeof(bytes) - 1, false, want) /* by itself */

Test(kv_protocol, inline_requests)
{
    SAYS("PING\r\n", "+PONG\r\n");
    SAYS("ping\n", "+PONG\r\n");
    SAYS("\r\n\r\n  \nPING\r\n", "+PONG\r\n");
    SAYS("  echo   hi  \r\n", "$2\r\nhi\r\n");
    SAYS("SET k \"a b\\r\\n\\x41\\\"\"\r\nGET k\r\n", "+OK\r\n$7\r\na b\r\nA\"\r\n");
    SAYS("echo 'it\\'s'\r\necho \"\"\r\n", "$4\r\nit's\r\n$0\r\n\r\n");
    CLOSES("echo \"open\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n");
    CLOSES("echo 'a'b\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n");
}

Test(kv_protocol, malformed)
{
    SAYS("*0\r\n*-1\r\nPING\r\n", "+PONG\r\n");
    CLOSES("*x\r\n", "-ERR Protocol error: invalid multibulk length\r\n");
    CLOSES("*\r\n", "-ERR Protocol error: invalid multibulk length\r\n");
    CLOSES("*01\r\n", "-ERR Protocol error: invalid multibulk length\r\n");
    CLOSES("*1048577\r\n", "-ERR Protocol error: invalid multibulk length\r\n");
    CLOSES("*99999999999999999999\r\n", "-ERR Protocol error: invalid multibulk length\r\n");
    CLOSES("*1\r\nPING\r\n", "-ERR Protocol error: expected '$', got 'P'\r\n");
    CLOSES("*1\r\n\x01", "-ERR Protocol error: expected '$', got ' '\r\n");
    CLOSES("*1\r\n$-1\r\n", "-ERR Protocol error: invalid bulk length\r\n");
    CLOSES("*1\r\n$x\r\n", "-ERR Protocol error: invalid bulk length\r\n");
    CLOSES("*1\r\n$67108865\r\n", "-ERR Protocol error: invalid bulk length\r\n");
    CLOSES("*1\r\n$9223372036854775808\r\n", "-ERR Protocol error: invalid bulk length\r\n");
    /* What came before is answered, what comes after is not looked at. */
    CLOSES("PING\r\n*1\r\n$4\r\nPING\r\n*1\r\n!\r\nPING\r\n",
           "+PONG\r\n+PONG\r\n-ERR Protocol error: expected '$', got '!'\r\n");
    SAYS("*2\r\n$4\r\nECHO\r\n$10\r\nshort", ""); /* the end in the middle of a request */
    SAYS("*1\r\n$4\r\nQUIT\r\n*1\r\n$4\r\nPING\r\n", "+OK\r\n");
}

Test(kv_protocol, errors_of_commands)
{
    SAYS("NOSUCH a b\r\n", "-ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b' \r\n");
    SAYS("GET\r\n", "-ERR wrong number of arguments for 'get' command\r\n");
    SAYS("get a b\r\n", "-ERR wrong number of arguments for 'get' command\r\n");
    SAYS("SET a\r\n", "-ERR wrong number of arguments for 'set' command\r\n");
    SAYS("MSET a 1 b\r\n", "-ERR wrong number of arguments for 'mset' command\r\n");
    SAYS("HSET h f\r\n", "-ERR wrong number of arguments for 'hset' command\r\n");
    SAYS("PING a b\r\n", "-ERR wrong number of arguments for 'ping' command\r\n");
    SAYS("SET a 1 EX\r\nSET a 1 FOO\r\nSET a 1 NX XX\r\nSET a 1 EX 5 PX 5\r\n",
         "-ERR syntax error\r\n-ERR syntax error\r\n-ERR syntax error\r\n-ERR syntax error\r\n");
    SAYS("SET a 1 EX 0\r\nSET a 1 PX -5\r\nSET a 1 EX x\r\n",
         "-ERR invalid expire time in 'set' command\r\n-ERR invalid expire time in 'set' command\r\n"
         "-ERR value is not an integer or out of range\r\n");
    SAYS("SET a 1 EX 9223372036854775807\r\nEXPIRE a 9223372036854775807\r\n",
         "-ERR invalid expire time in 'set' command\r\n-ERR invalid expire time in 'expire' command\r\n");
    SAYS("SET n 9223372036854775807\r\nINCR n\r\nDECRBY n -1\r\nDECRBY n -9223372036854775808\r\nGET n\r\n",
         "+OK\r\n-ERR increment or decrement would overflow\r\n-ERR increment or decrement would overflow\r\n"
         "-ERR decrement would overflow\r\n$19\r\n9223372036854775807\r\n");
    SAYS("SET n \" 1\"\r\nINCR n\r\nSET n 1.5\r\nINCR n\r\nINCRBY m x\r\n",
         "+OK\r\n-ERR value is not an integer or out of range\r\n"
         "+OK\r\n-ERR value is not an integer or out of range\r\n"
         "-ERR value is not an integer or out of range\r\n");
    SAYS("LPOP l -1\r\nLPOP l x\r\nLRANGE l a b\r\n",
         "-ERR value is out of range, must be positive\r\n-ERR value is out of range, must be positive\r\n"
         "-ERR value is not an integer or out of range\r\n");
    SAYS("SELECT 0\r\nSELECT 1\r\nSELECT x\r\n",
         "+OK\r\n-ERR DB index is out of range\r\n-ERR value is not an integer or out of range\r\n");
    SAYS("CLIENT FOO\r\nCONFIG FOO\r\n",
         "-ERR unknown subcommand 'FOO'. Try CLIENT HELP.\r\n-ERR unknown subcommand 'FOO'. Try CONFIG HELP.\r\n");
    SAYS("RPUSH w a\r\nGET w\r\nINCR w\r\nHGET w f\r\nSET w 1\r\nRPUSH w a\r\n",
         ":1\r\n-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
         "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
         "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n+OK\r\n"
         "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n");
    SAYS("CLIENT ID x\r\nCONFIG GET\r\nCOMMAND COUNT x\r\n",
         "-ERR wrong number of arguments for 'client|id' command\r\n-ERR wrong number of arguments for 'config|get' command\r\n"
         "-ERR wrong number of arguments for 'command|count' command\r\n");
    /* Options are understood before their values are looked at; the last of several values counts. */
    SAYS("SET a 1 EX x FOO\r\nSET a 1 EX 0 EX 100\r\nTTL a\r\nSET a 2 NX PX x\r\nSET a 2 NX PX 5\r\nSET none 2 XX\r\n",
         "-ERR syntax error\r\n+OK\r\n:100\r\n-ERR value is not an integer or out of range\r\n$-1\r\n$-1\r\n");
    /* A name with line ends in it does not break the reply in two. */
    SAYS("*1\r\n$3\r\na\r\n\r\n", "-ERR unknown command 'a  ', with args beginning with: \r\n");
}

/* A page in a browser can send us a request of this kind, with commands in its body. */
Test(kv_protocol, http)
{
    CLOSES("POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET http 1\r\n", "");
    CLOSES("PING\r\nHost: localhost\r\nSET http 1\r\n", "+PONG\r\n");
    SAYS("EXISTS http\r\n", ":0\r\n");
}

Test(kv_protocol, lines_without_end)
{
    size_t n = 70000;
    char *line = malloc(n);
    memset(line, 'a', n);
    expect_talk(line, n, false, "-ERR Protocol error: too big inline request\r\n");
    line[0] = '*';
    expect_talk(line, n, false, "-ERR Protocol error: too big mbulk count string\r\n");
    memcpy(line, "*1\r\n$", 5);
    expect_talk(line, n, false, "-ERR Protocol error: too big bulk count string\r\n");
    free(line);
}

Test(kv_protocol, byte_by_byte)
{
    static const char request[] = "*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$12\r\nhello\r\nworld\r\n"
                                  "*2\r\n$3\r\nGET\r\n$3\r\nkey\r\nPING\r\n"
                                  "*2\r\n$4\r\nECHO\r\n$0\r\n\r\n";
    struct conn c;
    struct text got = { 0 };
    conn_tcp(&c, &server);
    for (size_t i = 0; i + 1 < sizeof request; i++) {
        cr_assert(conn_send(&c, request + i, 1));
        if (i % 8 == 0)
            usleep(300); /* else TCP joins them again */
    }
    for (int i = 0; i < 4; i++)
        cr_assert(conn_reply(&c, &got));
    cr_expect_str_eq(got.p, "+OK\r\n$12\r\nhello\r\nworld\r\n+PONG\r\n$0\r\n\r\n");
    conn_close(&c);
}

/* A value of many megabytes goes in in pieces and comes out as it was, also while the key is overwritten. */
Test(kv_protocol, large_values)
{
    enum { N = 12 << 20 };
    char *v = malloc(N), head[64];
    struct conn c, other;
    struct text got = { 0 }, t = { 0 };
    for (size_t i = 0; i < N; i++)
        v[i] = (char)(i * 2654435761u >> 13);
    conn_tcp(&c, &server);
    conn_unix(&other, &server);
    int n = snprintf(head, sizeof head, "*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$%d\r\n", N);
    cr_assert(conn_send(&c, head, (size_t)n) && conn_send(&c, v, N) && conn_send(&c, "\r\n", 2));
    cr_assert(conn_reply(&c, &got));
    cr_expect_str_eq(got.p, "+OK\r\n");
    for (int i = 0; i < 3; i++)
        cr_assert(conn_send(&c, "GET big\r\n", 9)); /* the third is answered after the key has gone, or before */
    cr_expect_str_eq(conn_ask(&other, &t, "STRLEN", "big", NULL), ":12582912\r\n");
    for (int i = 0; i < 2; i++) {
        text_clear(&got);
        cr_assert(conn_reply(&c, &got));
        if (i == 0)
            cr_expect_str_eq(conn_ask(&other, &t, "SET", "big", "small", NULL), "+OK\r\n");
        cr_expect(got.n == N + 13 && memcmp(got.p + 11, v, N) == 0, "reply %d has %zu bytes", i, got.n);
    }
    conn_close(&c);
    conn_close(&other);
    free(v);
}

/* Announcing costs the client nothing, so it must cost the server nothing. */
Test(kv_protocol, announced_is_not_allocated)
{
    struct conn c[32];
    char path[64];
    for (int i = 0; i < 32; i++) {
        conn_tcp(&c[i], &server);
        cr_assert(conn_send(&c[i], "*1000000\r\n$67108864\r\nx", 22));
    }
    struct conn other;
    struct text t = { 0 };
    conn_tcp(&other, &server);
    cr_expect_str_eq(conn_ask(&other, &t, "PING", NULL), "+PONG\r\n");
    snprintf(path, sizeof path, "/proc/%d/statm", (int)server.pid);
    long pages = 0;
    FILE *f = fopen(path, "r");
    cr_assert(f && fscanf(f, "%*d %ld", &pages) == 1);
    fclose(f);
    if (!test_is_slow())
        cr_expect(pages * 4096 < 100 << 20, "%ld MiB resident", pages * 4096 >> 20);
    for (int i = 0; i < 32; i++)
        conn_close(&c[i]);
    conn_close(&other);
}

/* Far more requests in flight than any buffer holds. */
Test(kv_protocol, huge_pipeline)
{
    enum { N = 200000 };
    struct conn c;
    struct text requests = { 0 }, got = { 0 };
    for (int i = 0; i < N; i++)
        text_printf(&requests, i % 2 ? "*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n" : "ECHO %d\r\n", i);
    conn_tcp(&c, &server);
    cr_assert(conn_send(&c, requests.p, requests.n));
    for (int i = 0; i < N; i++) {
        char want[32];
        text_clear(&got);
        cr_assert(conn_reply(&c, &got), "reply %d", i);
        if (i % 2)
            snprintf(want, sizeof want, ":%d\r\n", i / 2 + 1);
        else
            snprintf(want, sizeof want, "$%d\r\n%d\r\n", snprintf(NULL, 0, "%d", i), i);
        cr_assert_str_eq(got.p, want);
    }
    conn_close(&c);
}

/* A client that asks for megabytes and does not read them keeps only itself waiting. */
Test(kv_protocol, one_who_does_not_read)
{
    struct conn deaf, other;
    struct text t = { 0 };
    char *v = malloc(1 << 20);
    memset(v, 'v', 1 << 20);
    v[(1 << 20) - 1] = 0;
    conn_tcp(&other, &server);
    cr_expect_str_eq(conn_ask(&other, &t, "SET", "big", v, NULL), "+OK\r\n");
    conn_tcp(&deaf, &server);
    for (int i = 0; i < 64; i++)
        send(deaf.fd, "GET big\r\n", 9, MSG_NOSIGNAL | MSG_DONTWAIT);
    for (int i = 0; i < 1000; i++)
        cr_assert_str_eq(conn_ask(&other, &t, "PING", NULL), "+PONG\r\n");
    conn_close(&deaf);
    conn_close(&other);
    free(v);
}

/* The same large string a great many times in one reply is neither copied nor collected. */
Test(kv_protocol, one_large_value_many_times)
{
    enum { N = 1 << 20, TIMES = 3000 };
    char *v = malloc(N), path[64];
    struct conn c, other;
    struct text request = { 0 }, got = { 0 }, t = { 0 };
    memset(v, 'v', N);
    v[N - 1] = 0;
    conn_tcp(&c, &server);
    conn_tcp(&other, &server);
    cr_expect_str_eq(conn_ask(&c, &t, "SET", "big", v, NULL), "+OK\r\n");
    text_printf(&request, "*%d\r\n$4\r\nMGET\r\n", TIMES + 1);
    for (int i = 0; i < TIMES; i++)
        text_printf(&request, "$3\r\nbig\r\n");
    cr_assert(conn_send(&c, request.p, request.n));
    cr_assert(conn_line(&c, &got)); /* the server has begun to send what would be three gigabytes */
    cr_expect_str_eq(got.p, "*3000\r\n");
    for (int i = 0; i < 40; i++) { /* more than goes out in one write */
        text_clear(&got);
        cr_assert(conn_reply(&c, &got) && got.n == N - 1 + 12);
    }
    cr_expect_str_eq(conn_ask(&other, &t, "PING", NULL), "+PONG\r\n");
    snprintf(path, sizeof path, "/proc/%d/statm", (int)server.pid);
    long pages = 0;
    FILE *f = fopen(path, "r");
    cr_assert(f && fscanf(f, "%*d %ld", &pages) == 1);
    fclose(f);
    if (!test_is_slow())
        cr_expect(pages * 4096 < 100 << 20, "%ld MiB resident", pages * 4096 >> 20);
    conn_close(&c);
    conn_close(&other);
    free(v);
}

/* Tables grow and shrink a step at a time; nothing is lost on the way. */
Test(kv_protocol, grows_and_shrinks)
{
    enum { N = 100000 };
    struct conn c;
    struct text requests = { 0 }, got = { 0 }, t = { 0 };
    conn_unix(&c, &server);
    for (int phase = 0; phase < 3; phase++) {
        text_clear(&requests);
        for (int i = 0; i < N; i++)
            text_printf(&requests, phase == 0 ? "SET key:%d %d\r\nHSET h f%d %d\r\n"
                                   : phase == 1 ? "GET key:%d %.0d\r\nHGET h f%d %.0d\r\n"
                                                : "DEL key:%d %.0d\r\nHDEL h f%d %.0d\r\n",
                        i, phase ? 0 : i, i, phase ? 0 : i);
        cr_assert(conn_send(&c, requests.p, requests.n));
        for (int i = 0; i < 2 * N; i++) {
            text_clear(&got);
            cr_assert(conn_reply(&c, &got));
            int v = phase == 1 ? atoi(strchr(got.p, '\n') + 1) : 0;
            bool right = phase == 0 ? got.p[0] != '-' : phase == 1 ? v == i / 2 : got.p[1] == '1';
            cr_assert(right, "phase %d, reply %d: %s", phase, i, got.p);
        }
        cr_expect_str_eq(conn_ask(&c, &t, "DBSIZE", NULL), phase < 2 ? ":100001\r\n" : ":0\r\n");
        cr_expect_str_eq(conn_ask(&c, &t, "HLEN", "h", NULL), phase < 2 ? ":100000\r\n" : ":0\r\n");
    }
    conn_close(&c);
}

/* The sweeper removes what nobody asks for. */
Test(kv_protocol, keys_expire)
{
    struct conn c;
    struct text t = { 0 };
    conn_tcp(&c, &server);
    for (int i = 0; i < 3000; i++) {
        char key[32];
        snprintf(key, sizeof key, "key:%d", i);
        cr_assert_str_eq(conn_ask(&c, &t, "SET", key, "v", "PX", i % 3 ? "1" : "1000000", NULL), "+OK\r\n");
    }
    test_until(strcmp(conn_ask(&c, &t, "DBSIZE", NULL), ":1000\r\n") == 0);
    cr_expect_str_eq(conn_ask(&c, &t, "GET", "key:1", NULL), "$-1\r\n");
    long long left = atoll(conn_ask(&c, &t, "PTTL", "key:0", NULL) + 1);
    cr_expect(left > 900000 && left <= 1000000, "%lld ms left", left);
    cr_expect_str_eq(conn_ask(&c, &t, "SET", "key:0", "v", NULL), "+OK\r\n");
    cr_expect_str_eq(conn_ask(&c, &t, "TTL", "key:0", NULL), ":-1\r\n");
    cr_expect_str_eq(conn_ask(&c, &t, "FLUSHALL", NULL), "+OK\r\n");
    cr_expect_str_eq(conn_ask(&c, &t, "DBSIZE", NULL), ":0\r\n");
    conn_close(&c);
}

Test(kv_protocol, five_hundred_connections)
{
    enum { N = 500 };
    static struct conn c[N];
    struct text t = { 0 };
    char number[16];
    for (int i = 0; i < N; i++) {
        conn_tcp(&c[i], &server);
        cr_assert(c[i].fd >= 0);
    }
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N; i++)
            cr_assert(conn_send(&c[i], "INCR n\r\n", 8));
        for (int i = 0; i < N; i++) {
            text_clear(&t);
            cr_assert(conn_reply(&c[i], &t));
        }
    }
    snprintf(number, sizeof number, "$4\r\n%d\r\n", 3 * N);
    cr_expect_str_eq(conn_ask(&c[0], &t, "GET", "n", NULL), number);
    for (int i = 0; i < N; i++)
        conn_close(&c[i]);
}

static void *add_up(void *wrong)
{
    enum { N = 20000 };
    struct conn c;
    struct text requests = { 0 }, got = { 0 };
    conn_tcp(&c, &server);
    for (int i = 0; i < N; i++)
        text_printf(&requests, "INCR n\r\nRPUSH l x\r\nHSET h f%d-%d v\r\n", c.fd, i);
    bool ok = c.fd >= 0 && conn_send(&c, requests.p, requests.n);
    for (int i = 0; ok && i < 3 * N; i++) {
        text_clear(&got);
        ok = conn_reply(&c, &got) && got.p[0] == ':';
    }
    *(bool *)wrong = !ok;
    conn_close(&c);
    text_free(&requests);
    text_free(&got);
    return NULL;
}

/* Commands are atomic: what four do to the same keys at the same time adds up. */
Test(kv_protocol, same_keys)
{
    pthread_t threads[4];
    bool wrong[4];
    struct conn c;
    struct text t = { 0 };
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, add_up, &wrong[i]);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 4; i++)
        cr_expect(!wrong[i]);
    conn_tcp(&c, &server);
    cr_expect_str_eq(conn_ask(&c, &t, "GET", "n", NULL), "$5\r\n80000\r\n");
    cr_expect_str_eq(conn_ask(&c, &t, "LLEN", "l", NULL), ":80000\r\n");
    cr_expect_str_eq(conn_ask(&c, &t, "HLEN", "h", NULL), ":80000\r\n");
    conn_close(&c);
}

Test(kv_protocol, client_and_command)
{
    struct conn c;
    struct text t = { 0 };
    conn_unix(&c, &server);
    cr_expect_str_eq(conn_ask(&c, &t, "CLIENT", "GETNAME", NULL), "$-1\r\n");
    cr_expect_str_eq(conn_ask(&c, &t, "CLIENT", "SETNAME", "me", NULL), "+OK\r\n");
    cr_expect_str_eq(conn_ask(&c, &t, "CLIENT", "GETNAME", NULL), "$2\r\nme\r\n");
    cr_expect(strstr(conn_ask(&c, &t, "CLIENT", "LIST", NULL), "addr=unix:0") && strstr(t.p, "name=me"));
    cr_expect_str_eq(conn_ask(&c, &t, "COMMAND", "INFO", "get", NULL),
                     "*1\r\n*6\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n");
    cr_expect_str_eq(conn_ask(&c, &t, "CONFIG", "GET", "save", NULL), "*2\r\n$4\r\nsave\r\n$0\r\n\r\n");
    cr_expect(strstr(conn_ask(&c, &t, "INFO", "collector", NULL), "gc_cycles:") && !strstr(t.p, "# Server"));
    cr_expect(strstr(conn_ask(&c, &t, "INFO", NULL), "# Keyspace") && strstr(t.p, "connected_clients:1\r\n"));
    conn_close(&c);
}

/* ---- limits and the end: servers of their own ------------------------------------------------------- */

Test(kv_end, too_many_clients)
{
    struct kv kv = kv_start(NULL, (const char *[]){ "--maxclients", "3", NULL });
    struct conn c[4];
    struct text t = { 0 };
    for (int i = 0; i < 4; i++) {
        conn_tcp(&c[i], &kv);
        if (i < 3)
            cr_expect_str_eq(conn_ask(&c[i], &t, "PING", NULL), "+PONG\r\n");
    }
    text_clear(&t);
    cr_expect(conn_reply(&c[3], &t) && strcmp(t.p, "-ERR max number of clients reached\r\n") == 0, "%s", t.p);
    for (int i = 0; i < 4; i++)
        conn_close(&c[i]);
    cr_expect(kv_stop(&kv, SIGTERM) == 0);
}

/* A reply of many small strings is collected before it is sent, and who asks for too large a one is cut off; the others never notice. */
Test(kv_end, reply_too_large)
{
    struct kv kv = kv_start(NULL, (const char *[]){ "--max-reply", "1000000", NULL });
    struct conn c, other;
    struct text request = { 0 }, got = { 0 }, t = { 0 };
    static char v[10001];
    memset(v, 'v', sizeof v - 1);
    conn_tcp(&other, &kv);
    conn_tcp(&c, &kv);
    for (int i = 0; i < 110; i++) {
        text_printf(&request, "*3\r\n$5\r\nRPUSH\r\n$1\r\nl\r\n$%zu\r\n", sizeof v - 1);
        text_add(&request, v, sizeof v - 1);
        text_printf(&request, "\r\n");
    }
    cr_assert(conn_send(&c, request.p, request.n));
    for (int i = 0; i < 110; i++) {
        text_clear(&got);
        cr_assert(conn_reply(&c, &got));
    }
    text_clear(&got);
    cr_assert(conn_send(&c, "LRANGE l 0 89\r\n", 15));
    cr_expect(conn_reply(&c, &got) && got.n > 900000);
    cr_assert(conn_send(&c, "LRANGE l 0 -1\r\n", 15));
    text_clear(&got);
    cr_expect(!conn_reply(&c, &got) && got.n == 0, "got %zu bytes", got.n);
    cr_expect(strstr(conn_ask(&other, &t, "INFO", "stats", NULL), "client_output_buffer_limit_disconnections:1\r\n"));
    conn_close(&c);
    conn_close(&other);
    cr_expect(kv_stop(&kv, SIGTERM) == 0);
}

/* What was sent before the signal is answered; then the connection ends, the server with code 0, and its socket file
 * is gone. */
static void expect_clean_end(int sig)
{
    enum { CLIENTS = 20, REQUESTS = 500 };
    struct kv kv = kv_start(NULL, NULL);
    static struct conn c[CLIENTS];
    struct text t = { 0 };
    for (int i = 0; i < CLIENTS; i++) {
        (i % 2 ? conn_tcp : conn_unix)(&c[i], &kv);
        cr_expect_str_eq(conn_ask(&c[i], &t, "PING", NULL), "+PONG\r\n");
        for (int j = 0; j < REQUESTS; j++)
            cr_assert(conn_send(&c[i], "INCR n\r\n", 8));
    }
    kill(kv.pid, sig);
    for (int i = 0; i < CLIENTS; i++) {
        for (int j = 0; j < REQUESTS; j++)
            cr_assert(conn_reply(&c[i], &t), "client %d, reply %d", i, j);
        cr_expect(conn_peek(&c[i]) < 0, "the stream ends");
        conn_close(&c[i]);
    }
    int status;
    cr_assert(waitpid(kv.pid, &status, 0) == kv.pid);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
    conn_tcp(&c[0], &kv);
    cr_expect(c[0].fd < 0, "nobody listens");
    cr_expect(access(kv.path, F_OK) < 0, "the socket file is removed");
}

Test(kv_end, sigterm) { expect_clean_end(SIGTERM); }
Test(kv_end, sigint) { expect_clean_end(SIGINT); }

/* Idle connections do not hold up the end, nor does one that never stops sending. */
Test(kv_end, busy_clients)
{
    struct kv kv = kv_start(NULL, (const char *[]){ "--grace", "500", NULL });
    struct conn idle, deaf;
    struct text t = { 0 };
    char *v = malloc(1 << 20);
    memset(v, 'v', 1 << 20);
    v[(1 << 20) - 1] = 0;
    conn_tcp(&idle, &kv);
    cr_expect_str_eq(conn_ask(&idle, &t, "SET", "big", v, NULL), "+OK\r\n");
    conn_tcp(&deaf, &kv);
    for (int i = 0; i < 64; i++)
        send(deaf.fd, "GET big\r\n", 9, MSG_NOSIGNAL | MSG_DONTWAIT);
    cr_expect(kv_stop(&kv, SIGTERM) == 0);
    conn_close(&idle);
    conn_close(&deaf);
    free(v);
}

/* A socket file left by a server that was killed is no obstacle for the next. */
Test(kv_end, stale_socket_file)
{
    struct kv kv = kv_start(NULL, NULL);
    cr_expect(kv_stop(&kv, SIGKILL) == -1);
    cr_expect(access(kv.path, F_OK) == 0);
    kv = kv_start(NULL, NULL);
    struct conn c;
    struct text t = { 0 };
    conn_unix(&c, &kv);
    cr_expect_str_eq(conn_ask(&c, &t, "PING", NULL), "+PONG\r\n");
    conn_close(&c);
    cr_expect(kv_stop(&kv, SIGTERM) == 0);
}

/* The exit code of a server that does not come to serve, and what it says. */
static int refused(struct text *says, const char *const *options)
{
    const char *argv[16] = { KV_PROGRAM };
    int out[2], status;
    char b[4096];
    for (int n = 1; *options && n < 15; n++)
        argv[n] = *options++;
    cr_assert(pipe(out) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(out[1], 2);
        test_exec(argv);
        _exit(127);
    }
    close(out[1]);
    text_clear(says);
    for (ssize_t n; (n = read(out[0], b, sizeof b)) > 0;)
        text_add(says, b, (size_t)n);
    close(out[0]);
    cr_assert(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
#define REFUSED(code, word, ...)                                                                 \
    cr_expect(refused(&says, (const char *[]){ __VA_ARGS__, NULL }) == code && strstr(says.p, word), "%s", says.p)

Test(kv_end, refuses_to_start)
{
    struct kv kv = kv_start(NULL, NULL);
    struct text says = { 0 };
    char port[16], path[64];
    snprintf(port, sizeof port, "%d", kv.port);
    text_add(&says, "", 0);
    REFUSED(1, "in use", "--port", port);
    REFUSED(1, "in use", "--bind", "none", "--unix", kv.path);
    REFUSED(2, "--port: \"x\" is not a number", "--port", "x");
    REFUSED(2, "65536", "--port", "65536");
    REFUSED(2, "--port needs a value", "--port");
    REFUSED(2, "--nosuch is not an option", "--nosuch");
    REFUSED(2, "nothing to listen on", "--bind", "none");
    REFUSED(2, "too many", "--port", "0", "more");
    /* A file that is no socket is somebody's, and stays. */
    snprintf(path, sizeof path, "/tmp/weft-kv-%d.txt", (int)getpid());
    FILE *f = fopen(path, "w");
    cr_assert(f && fclose(f) == 0);
    REFUSED(1, "in use", "--bind", "none", "--unix", path);
    cr_expect(unlink(path) == 0);
    text_free(&says);
    cr_expect(kv_stop(&kv, SIGTERM) == 0);
}
