/* Numbers, events and batches as bytes, and Go's own table of them. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "test.h"
#include "trace/format.h"

Test(trace_format, numbers_come_back)
{
    struct rng r;
    uint64_t seed = test_seed();
    rng_seed(&r, seed);
    for (int i = 0; i < 20000; i++) {
        uint64_t v = i < 64 ? 1ull << i : i < 128 ? (1ull << (i - 64)) - 1 : i == 128 ? ~0ull : rng_next(&r) >> rng_below(&r, 64), got = 0;
        uint8_t buf[TRACE_NUMBER_MAX];
        const uint8_t *p = buf, *end = trace_put(buf, v);
        size_t bits = v == 0 ? 1 : 64 - (size_t)__builtin_clzll(v);
        cr_assert_eq((size_t)(end - buf), (bits + 6) / 7);
        cr_assert(trace_get(&p, end, &got));
        cr_assert_eq(got, v);
        cr_assert_eq(p, end);
        p = buf;
        cr_assert(!trace_get(&p, end - 1, &got), "%lu is cut and accepted", (unsigned long)v);
    }
}

Test(trace_format, a_number_beyond_64_bits_is_refused)
{
    uint8_t ten[] = { 255, 255, 255, 255, 255, 255, 255, 255, 255, 2 }, eleven[] = { 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0 };
    const uint8_t *p = ten;
    uint64_t v;
    cr_expect(!trace_get(&p, ten + sizeof ten, &v));
    p = eleven;
    cr_expect(!trace_get(&p, eleven + sizeof eleven, &v));
}

Test(trace_format, batches_and_events_come_back)
{
    uint8_t buf[200], *data = trace_batch_open(buf, 300, TRACE_NONE, 1ull << 40), *at = data;
    *at++ = TRACE_USER_LOG;
    for (uint64_t v = 1; v <= 5; v++)
        at = trace_put(at, v * 1000);
    *at++ = TRACE_GO_DESTROY;
    at = trace_put(at, 7);
    trace_batch_close(data, at);
    const uint8_t *p = buf;
    struct trace_batch b;
    struct trace_record ev;
    cr_assert(trace_get_batch(&p, at, &b));
    cr_expect(b.gen == 300 && b.m == TRACE_NONE && b.time == 1ull << 40 && b.length == (size_t)(at - data));
    cr_assert(trace_get_event(&p, at, &ev));
    cr_expect(ev.type == TRACE_USER_LOG && ev.time == 1000 && ev.args[0] == 2000 && ev.args[3] == 5000);
    cr_assert(trace_get_event(&p, at, &ev));
    cr_expect(ev.type == TRACE_GO_DESTROY && ev.time == 7);
    cr_expect(!trace_get_event(&p, at, &ev));
    p = buf;
    cr_expect(!trace_get_batch(&p, at - 1, &b), "a batch that is cut is accepted");
}

/* GO_START is GoStart, STW_END is STWEnd. */
static bool same_name(const char *ours, const char *go)
{
    for (; *ours != 0; ours++)
        if (*ours != '_' && toupper((unsigned char)*go++) != *ours)
            return false;
    return *go == 0;
}

Test(trace_format, the_table_is_go_s)
{
    FILE *f = popen("cat \"$(go env GOROOT 2>/dev/null)/src/internal/trace/tracev2/events.go\" 2>/dev/null", "r");
    char *row = NULL, names[256][40], key[64] = "";
    size_t room = 0;
    int number = -1, found = 0;
    memset(names, 0, sizeof names);
    /* First the constants, counted from EvNone = iota; then a block for each with its arguments. */
    while (getline(&row, &room, f) > 0) {
        char word[64];
        const char *args;
        if (sscanf(row, " Ev%39[A-Za-z]", word) == 1 && strstr(row, ": {") == NULL) {
            if (strcmp(word, "None") == 0)
                number = 0;
            if (number >= 0 && number < TRACE_TYPES)
                strcpy(names[number++], word);
        } else if (sscanf(row, " Ev%39[A-Za-z]: {", word) == 1 && strchr(row, '{') != NULL)
            strcpy(key, word);
        else if (key[0] != 0 && (args = strstr(row, "Args:")) != NULL && strstr(row, "\"dt\"") != NULL) {
            int n = 0;
            for (const char *c = args; *c != 0; c++)
                n += *c == '"';
            for (int t = 0; t < TRACE_TYPES; t++) {
                if (trace_args[t] != 0 && same_name(trace_type_name((enum trace_type)t), key)) {
                    cr_expect_str_eq(names[t], key, "number %d is %s, not %s", t, names[t], key);
                    cr_expect_eq(n / 2, (int)trace_args[t], "%s: %d arguments, time included", key, n / 2);
                    found++;
                }
            }
            key[0] = 0;
        }
    }
    free(row);
    if (pclose(f) != 0 || number < 0)
        cr_skip_test("no sources of Go");
    cr_expect_eq(found, 40, "%d of our events are Go's", found);
}
