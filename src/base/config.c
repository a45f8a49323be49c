/* Settings. Two tables, SETTINGS and DEBUG_KEYS; their rules:
 *
 *  - A setting has a field in struct config, and a field in weft_config, an environment variable, or both. The value
 *    is that of weft_config if it is not 0, else that of the variable if it is set and not empty, else the default.
 *  - Values are kept as int64_t, in the unit of the field. `kind` says how text is read: a NUMBER; BYTES (digits with
 *    B, KiB, MiB, GiB, TiB or nothing, or `off`); a PERCENT (digits or `off`). Range and `off` value are columns.
 *    Numbers of weft_config pass the same range.
 *  - A debug key is `key=value` in WEFT_DEBUG or weft_config.debug, separated by commas; the latter is read last and
 *    so wins. A SWITCH is 0 or 1, a WORD one of a list, a PATH a text; a key without value is reported.
 *  - What cannot be understood is reported, all of it in one go, and the start fails: a runtime that ignores
 *    `gcstres=1` wastes an afternoon. A variable whose name is only close to one of ours (WEFT_MAXPROC) may be the
 *    host's own: it is reported and nothing more.
 *
 * To add a setting: a line in SETTINGS, a field in struct config. To add a debug key: a line in DEBUG_KEYS, a field. */
#include "base/config.h"
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>
#include "base/bits.h"
#include "base/fmt.h"

enum kind { NUMBER, BYTES, PERCENT, SWITCH, WORD, PATH };

/* Type of the field in weft_config. */
enum repr { NONE, INT, LONG, SIZE };

#define KIB 1024ll
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define TIB (1024 * GIB)
#define NO_OFF INT64_MIN /* `off` is not allowed */

struct setting {
    const char *env;   /* NULL: none */
    const char *field; /* of weft_config */
    enum kind kind;
    enum repr repr;
    size_t from, to; /* offsets in weft_config and struct config */
    int64_t dflt, min, max, off;
};

#define S(env, name, kind, repr, dflt, min, max, off) \
    { env, #name, kind, repr, offsetof(weft_config, name), offsetof(struct config, name), dflt, min, max, off }

static const struct setting settings[] = {
    /* variable         field            kind     in     default    min        max        off */
    S("WEFT_MAXPROCS",  maxprocs,        NUMBER,  INT,   0,         1,         4096,      NO_OFF),
    S("WEFT_GC",        gc_percent,      PERCENT, INT,   100,       0,         INT_MAX,   -1),
    S("WEFT_MEMLIMIT",  memory_limit,    BYTES,   LONG,  INT64_MAX, 0,         INT64_MAX, INT64_MAX),
    S("WEFT_STACK",     stack_size,      BYTES,   SIZE,  64 * KIB,  16 * KIB,  1 * GIB,   NO_OFF),
    S(NULL,             main_stack_size, BYTES,   SIZE,  1 * MIB,   16 * KIB,  1 * GIB,   NO_OFF),
    S(NULL,             heap_reserve,    BYTES,   SIZE,  0,         1 * MIB,   128 * TIB, NO_OFF),
    S(NULL,             max_threads,     NUMBER,  INT,   10000,     1,         INT_MAX,   NO_OFF),
    S(NULL,             stop_signal,     NUMBER,  INT,   SIGURG,    1,         64,        NO_OFF),
    S(NULL,             stop_timeout_ms, NUMBER,  INT,   1000,      INT_MIN,   INT_MAX,   NO_OFF),
    S(NULL,             mem_profile_rate, BYTES,  LONG,  0,         1,         INT64_MAX, -1), /* else that of memprofilerate */
    S(NULL,             guards,          NUMBER,  INT,   0,         WEFT_GUARD_NONE, WEFT_GUARD_ALL, NO_OFF), /* else that of guard */
};

struct debug_key {
    const char *key;
    enum kind kind; /* NUMBER, SWITCH, WORD or PATH */
    size_t to;
    int64_t dflt, max; /* max: of a PATH, bytes with the end */
    const char *words; /* of a WORD, separated by '|'; its value is the index */
};

#define D(key, kind, dflt, max, words) { #key, kind, offsetof(struct config, key), dflt, max, words }
#define MODES "off|count|report|abort"
#define CODE(key, code) { #key, WORD, offsetof(struct config, doctor_code) + (code) * sizeof(int64_t), DOCTOR_AS_ALL, 0, MODES }

static const struct debug_key debug_keys[] = {
    /* key          kind    default        max        words */
    D(gctrace,      SWITCH, 0,             1,         NULL),  /* a line per collection */
    D(scavtrace,    SWITCH, 0,             1,         NULL),  /* a line per collection about memory given back */
    D(schedtrace,   NUMBER, 0,             86400000,  NULL),  /* a line about the scheduler every N ms */
    D(scheddetail,  SWITCH, 0,             1,         NULL),  /* and with it lines about each processor, machine and fiber: see sched/schedtrace.c */
    D(gcstress,     NUMBER, 0,             INT64_MAX, NULL),  /* collect every N allocations */
    D(gcpoison,     SWITCH, 0,             1,         NULL),  /* fill what is freed, check it when it is used again */
    D(gcverify,     SWITCH, 0,             1,         NULL),  /* mark twice, independently, and compare */
    D(madvdontneed, SWITCH, 1,             1,         NULL),  /* 0: give memory back by MADV_FREE */
    D(membarrier,   SWITCH, 1,             1,         NULL),  /* 0: as on a kernel without membarrier(2) */
    D(gc,           WORD,   CONFIG_GC_AUTO, 0,        "auto|uffd|mprotect|stw"), /* how marking is done */
    D(memprofilerate, NUMBER, CONFIG_MEM_PROFILE_RATE, INT64_MAX, NULL),  /* bytes allocated between two samples of heap profiles; 1: all, 0: none */
    D(migrate,      SWITCH, 0,             1,         NULL),  /* a fiber that waited or yielded goes on on another thread than before */
    D(schedseed,    NUMBER, 0,             INT64_MAX, NULL),  /* one processor; what runs next, and when, is drawn from this seed: see sched/seed.c */
    D(failmem,      NUMBER, 0,             INT64_MAX, NULL),  /* the Nth request for memory fails: see base/fail.h. And the next three */
    D(failthread,   NUMBER, 0,             INT64_MAX, NULL),  /* the Nth request for a thread */
    D(failfd,       NUMBER, 0,             INT64_MAX, NULL),  /* the Nth system call that makes a descriptor */
    D(faildirty,    NUMBER, 0,             INT64_MAX, NULL),  /* the Nth call that asks which pages were written to */
    D(failrun,      NUMBER, 1,             INT64_MAX, NULL),  /* so many requests in a row fail, from the Nth on */
    D(containermaxprocs, SWITCH, 1,        1,         NULL),  /* 0: the quota of the control group is not looked at */
    D(updatemaxprocs, SWITCH, 1,           1,         NULL),  /* 0: the default number of processors is that of the start */
    D(cpus,         NUMBER, 0,             4096,      NULL),  /* as on a machine with so many CPUs */
    D(cpuquota,     NUMBER, 0,             1000000,   NULL),  /* as in a control group that may use so many percent of a CPU */
    D(cgrouproot,   PATH,   0,             CONFIG_PATH, NULL), /* as in the control group of a tree below there, with files as in /proc and /sys */
    D(guard,        SWITCH, 0,             1,         NULL),  /* all guards: what makes known misuses harmless, see weft/sched.h */
    D(slowfiber,    NUMBER, 0,             86400000,  NULL),  /* the doctor tells of a fiber that runs for N ms without a wait or a yield (W15) */
    D(slowstop,     NUMBER, 100,           86400000,  NULL),  /* and of a stop that waits N ms for a thread, or takes ten times as long (W16); 0: of none */
    D(doctor,       WORD,   DOCTOR_REPORT, 0,         MODES), /* what the doctor does with what it finds; and for one code: */
    CODE(w01, 1), CODE(w02, 2), CODE(w03, 3), CODE(w04, 4), CODE(w05, 5), CODE(w06, 6), CODE(w07, 7), CODE(w08, 8), CODE(w09, 9), CODE(w10, 10),
    CODE(w11, 11), CODE(w12, 12), CODE(w13, 13), CODE(w14, 14), CODE(w15, 15), CODE(w16, 16), CODE(w17, 17), CODE(w18, 18),
};

struct load {
    struct config *out;
    void (*say)(void *, const char *);
    void *arg;
    int err;
};

static w_printf(2, 3) void complain(struct load *l, const char *fmt, ...)
{
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    w_vfmt(line, sizeof line, fmt, ap);
    va_end(ap);
    if (l->say != NULL)
        l->say(l->arg, line);
    l->err = -EINVAL;
}

/* ---- reading text ----------------------------------------------------------------------------------- */

/* Reads digits; false: there are none, or the number does not fit. */
static bool read_digits(const char **s, const char *end, int64_t *v)
{
    const char *p = *s;
    int64_t x = 0;
    for (; p < end && *p >= '0' && *p <= '9'; p++)
        if (__builtin_mul_overflow(x, 10, &x) || __builtin_add_overflow(x, *p - '0', &x))
            return false;
    if (p == *s)
        return false;
    *s = p;
    *v = x;
    return true;
}

static bool is_word(const char *s, const char *end, const char *word)
{
    size_t n = strlen(word);
    return (size_t)(end - s) == n && memcmp(s, word, n) == 0;
}

static bool read_number(const char *s, const char *end, int64_t *v)
{
    return read_digits(&s, end, v) && s == end;
}

static bool read_bytes(const char *s, const char *end, int64_t *v)
{
    static const struct { const char *name; int64_t bytes; } units[] = {
        { "", 1 }, { "B", 1 }, { "KiB", KIB }, { "MiB", MIB }, { "GiB", GIB }, { "TiB", TIB },
    };
    if (!read_digits(&s, end, v))
        return false;
    for (size_t i = 0; i < w_countof(units); i++)
        if (is_word(s, end, units[i].name))
            return !__builtin_mul_overflow(*v, units[i].bytes, v);
    return false;
}

static bool read_word(const char *s, const char *end, const char *words, int64_t *v)
{
    *v = 0;
    for (const char *w = words; *w != 0; (*v)++) {
        size_t n = strcspn(w, "|");
        if ((size_t)(end - s) == n && memcmp(s, w, n) == 0)
            return true;
        w += n + (w[n] != 0);
    }
    return false;
}

/* ---- near misses -------------------------------------------------------------------------------------- */

/* Letters to insert, delete or change to get from a to b; at least 99 for long words. */
static unsigned distance(const char *a, size_t na, const char *b, size_t nb)
{
    unsigned row[33];
    if (na > 32 || nb > 32)
        return 99;
    for (size_t j = 0; j <= nb; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= na; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= nb; j++) {
            unsigned change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = w_min(w_min(row[j], row[j - 1]) + 1, change);
        }
    }
    return row[nb];
}

static const char *nearest_key(const char *s, size_t n)
{
    const char *best = NULL;
    unsigned best_d = (unsigned)w_min(n / 2, (size_t)3) + 1; /* what is further away is not a misspelling */
    for (size_t i = 0; i < w_countof(debug_keys); i++) {
        unsigned d = distance(s, n, debug_keys[i].key, strlen(debug_keys[i].key));
        if (d < best_d) {
            best_d = d;
            best = debug_keys[i].key;
        }
    }
    return best;
}

/* A variable that starts with WEFT_, is not ours, and looks like one of ours. */
static void check_variable(struct load *l, const char *entry)
{
    size_t n = strcspn(entry, "=");
    const char *near = NULL;
    static const char debug_env[] = "WEFT_DEBUG";
    for (size_t i = 0; i <= w_countof(settings); i++) {
        const char *name = i < w_countof(settings) ? settings[i].env : debug_env;
        unsigned d = name != NULL ? distance(entry, n, name, strlen(name)) : 99;
        if (d == 0)
            return;
        if (d <= 2)
            near = name;
    }
    if (near != NULL) {
        int err = l->err;
        complain(l, "%.*s is not a setting of weft and is not read: did you mean %s?", (int)n, entry, near);
        l->err = err; /* it may be the host's own */
    }
}

/* ---- the two tables --------------------------------------------------------------------------------------- */

static int64_t *slot(struct config *c, size_t offset) { return (int64_t *)(void *)((char *)c + offset); }

static const char *const formats[] = {
    [NUMBER] = "a number",
    [BYTES] = "a number with B, KiB, MiB, GiB or TiB",
    [PERCENT] = "a number",
};

/* Of weft_config; 0: not set. false: does not fit. */
static bool field_value(const weft_config *cfg, const struct setting *s, int64_t *v)
{
    const void *p = (const char *)cfg + s->from;
    switch (s->repr) {
    case INT:
        *v = *(const int *)p;
        return true;
    case LONG:
        *v = *(const int64_t *)p;
        return true;
    case SIZE:
        *v = (int64_t)*(const size_t *)p;
        return *v >= 0;
    case NONE:
        break;
    }
    *v = 0;
    return true;
}

static void load_setting(struct load *l, const struct setting *s, const weft_config *cfg, const char *text)
{
    int64_t v = s->dflt, given;
    if (!field_value(cfg, s, &given) || (given != 0 && given != s->off && (given < s->min || given > s->max)))
        complain(l, "weft_config.%s is %lld: it must be in %lld..%lld", s->field, (long long)given, (long long)s->min,
                 (long long)s->max);
    else if (given != 0)
        v = given;
    else if (text != NULL && *text != 0) {
        const char *end = text + strlen(text);
        if (s->off != NO_OFF && is_word(text, end, "off"))
            v = s->off;
        else if ((s->kind == BYTES ? read_bytes : read_number)(text, end, &given) && given >= s->min && given <= s->max)
            v = given;
        else
            complain(l, "%s=%s cannot be used: it must be %s in %lld..%lld%s", s->env, text, formats[s->kind],
                     (long long)s->min, (long long)s->max, s->off != NO_OFF ? ", or off" : "");
    }
    *slot(l->out, s->to) = v;
}

static void complain_unknown(struct load *l, const char *where, const char *key, size_t n)
{
    const char *near = nearest_key(key, n);
    char known[384];
    size_t len = 0;
    for (size_t i = 0; i < w_countof(debug_keys) && len < sizeof known; i++)
        len += w_fmt(known + len, sizeof known - len, " %s", debug_keys[i].key);
    if (near != NULL)
        complain(l, "%s: unknown key \"%.*s\", did you mean \"%s\"? All keys:%s", where, (int)n, key, near, known);
    else
        complain(l, "%s: unknown key \"%.*s\". All keys:%s", where, (int)n, key, known);
}

static void load_path(struct load *l, const char *where, const struct debug_key *k, const char *value, const char *end)
{
    char *to = (char *)l->out + k->to;
    if (end == value || end - value >= k->max)
        complain(l, "%s: %s=%.*s cannot be used: it must be a path of at most %d bytes", where, k->key, (int)(end - value), value, (int)k->max - 1);
    else
        w_fmt(to, (size_t)k->max, "%.*s", (int)(end - value), value);
}

static void load_pair(struct load *l, const char *where, const char *s, const char *end)
{
    const char *eq = memchr(s, '=', (size_t)(end - s));
    size_t n = (size_t)((eq != NULL ? eq : end) - s);
    const struct debug_key *k = NULL;
    for (size_t i = 0; i < w_countof(debug_keys); i++)
        if (is_word(s, s + n, debug_keys[i].key))
            k = &debug_keys[i];
    if (k == NULL) {
        complain_unknown(l, where, s, n);
        return;
    }
    int64_t v;
    const char *value = eq != NULL ? eq + 1 : end;
    if (k->kind == PATH) {
        load_path(l, where, k, value, end);
        return;
    }
    bool ok = k->kind == WORD ? read_word(value, end, k->words, &v) : read_number(value, end, &v) && v <= k->max;
    if (ok)
        *slot(l->out, k->to) = v;
    else
        complain(l, "%s: %s=%.*s cannot be used: it must be %s", where, k->key, (int)(end - value), value,
                 k->kind == WORD ? k->words : k->kind == SWITCH ? "0 or 1" : "a number");
}

/* weft_config.doctor: modes as in WEFT_DEBUG, "doctor=" left out. */
static void load_doctor(struct load *l, const char *text)
{
    static const char where[] = "weft_config.doctor";
    while (text != NULL && *text != 0) {
        const char *end = text + strcspn(text, ",");
        int64_t mode;
        if (read_word(text, end, MODES, &mode))
            l->out->doctor = mode;
        else if (end - text >= 4 && text[0] == 'w' && text[3] == '=')
            load_pair(l, where, text, end);
        else if (end != text)
            complain(l, "%s: \"%.*s\" cannot be used: it must be " MODES ", or wNN= one of them", where, (int)(end - text), text);
        text = end + (*end == ',');
    }
}

static void load_debug(struct load *l, const char *where, const char *text)
{
    while (text != NULL && *text != 0) {
        const char *end = text + strcspn(text, ",");
        if (end != text) /* a comma too many is fine */
            load_pair(l, where, text, end);
        text = end + (*end == ',');
    }
}

/* Copies what the caller's version of the struct has; a later version's fields must be zero, since we cannot honour
 * them. */
static void copy_config(struct load *l, const weft_config *cfg, weft_config *to)
{
    *to = (weft_config)WEFT_CONFIG_INIT;
    if (cfg == NULL)
        return;
    if (cfg->size < sizeof cfg->size || cfg->size > 4096) {
        complain(l, "weft_config.size is %zu: initialise the struct with WEFT_CONFIG_INIT", cfg->size);
        return;
    }
    memcpy(to, cfg, w_min(cfg->size, sizeof *to));
    for (size_t i = sizeof *to; i < cfg->size; i++) {
        if (((const char *)cfg)[i] != 0) {
            complain(l, "weft_config has a field set that this library (%s) does not know: link a newer one",
                     WEFT_VERSION);
            return;
        }
    }
}

int config_load(const weft_config *cfg, struct config *out, void (*say)(void *arg, const char *line), void *arg)
{
    struct load l = { out, say, arg, 0 };
    weft_config c;
    memset(out, 0, sizeof *out);
    copy_config(&l, cfg, &c);
    if (c.gc_percent < 0)
        c.gc_percent = WEFT_GC_OFF;
    if (c.mem_profile_rate < 0)
        c.mem_profile_rate = -1;
    bool trusted = getauxval(AT_SECURE) == 0; /* a setuid program does not take settings from its user */

    for (size_t i = 0; i < w_countof(settings); i++)
        load_setting(&l, &settings[i], &c, trusted && settings[i].env != NULL ? getenv(settings[i].env) : NULL);
    out->stack_size = (int64_t)bits_pow2_up((uint64_t)out->stack_size);
    out->main_stack_size = (int64_t)bits_pow2_up((uint64_t)out->main_stack_size);
    int64_t sig = out->stop_signal;
    if (sig == SIGKILL || sig == SIGSTOP || sig == SIGSEGV || sig == SIGBUS)
        complain(&l, "weft_config.stop_signal is %lld: this signal cannot be used, SIGURG or a real-time signal can",
                 (long long)sig);
    out->log = c.log;
    out->log_arg = c.log_arg;
    out->finding = c.finding;
    out->finding_arg = c.finding_arg;

    for (size_t i = 0; i < w_countof(debug_keys); i++)
        *slot(out, debug_keys[i].to) = debug_keys[i].dflt;
    load_debug(&l, "WEFT_DEBUG", trusted ? getenv("WEFT_DEBUG") : NULL);
    load_debug(&l, "weft_config.debug", c.debug);
    out->guards = out->guards == WEFT_GUARD_NONE ? 0 : out->guards != 0 ? out->guards : out->guard != 0 ? WEFT_GUARD_ALL : 0;
    load_doctor(&l, c.doctor);
    for (char **e = environ; trusted && e != NULL && *e != NULL; e++)
        if (strncmp(*e, "WEFT_", 5) == 0)
            check_variable(&l, *e);
    return l.err;
}

/* ---- for who shows them ------------------------------------------------------------------------------ */

static void show_word(const char *words, int64_t at, char *to, size_t n)
{
    for (; at > 0 && *words != 0; words++)
        at -= *words == '|';
    w_fmt(to, n, "%.*s", (int)strcspn(words, "|"), words);
}

bool config_item(const struct config *c, unsigned i, struct config_item *out)
{
    *out = (struct config_item){ 0 };
    if (i < w_countof(settings)) {
        const struct setting *s = &settings[i];
        int64_t v = *(const int64_t *)(const void *)((const char *)c + s->to);
        out->name = s->field;
        out->env = s->env;
        out->is_default = v == s->dflt;
        w_fmt(out->value, sizeof out->value, s->off != NO_OFF && v == s->off ? "off" : "%lld", (long long)v);
        return true;
    }
    i -= (unsigned)w_countof(settings);
    if (i >= w_countof(debug_keys))
        return false;
    const struct debug_key *k = &debug_keys[i];
    out->name = k->key;
    out->debug = true;
    if (k->kind == PATH) {
        w_fmt(out->value, sizeof out->value, "%s", (const char *)c + k->to);
        out->is_default = out->value[0] == 0;
        return true;
    }
    int64_t v = *(const int64_t *)(const void *)((const char *)c + k->to);
    out->is_default = v == k->dflt;
    if (k->kind == WORD && v < 0) /* no word of its own */
        w_fmt(out->value, sizeof out->value, "as all");
    else if (k->kind == WORD)
        show_word(k->words, v, out->value, sizeof out->value);
    else
        w_fmt(out->value, sizeof out->value, "%lld", (long long)v);
    return true;
}
