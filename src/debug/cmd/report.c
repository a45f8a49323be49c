#include "debug/cmd/report.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory and text ----------------------------------------------------------------------------------------- */

static void *or_end(void *p)
{
    if (p == NULL) {
        fputs("weft-doctor: out of memory\n", stderr);
        exit(2);
    }
    return p;
}

void *must_alloc(size_t n) { return or_end(calloc(1, n + (n == 0))); }
void *must_grow(void *p, size_t n) { return or_end(realloc(p, n)); }

char *must_dup(const char *s, size_t n)
{
    char *copy = must_alloc(n + 1);
    memcpy(copy, s, n);
    return copy;
}

static void text_vadd(struct text *t, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (n < 0)
        return;
    if (t->n + (size_t)n + 1 > t->room)
        t->at = must_grow(t->at, t->room = 2 * (t->n + (size_t)n + 1));
    vsnprintf(t->at + t->n, (size_t)n + 1, fmt, ap);
    t->n += (size_t)n;
}

void text_add(struct text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    text_vadd(t, fmt, ap);
    va_end(ap);
}

void text_free(struct text *t)
{
    free(t->at);
    *t = (struct text){ 0 };
}

/* ---- what was found -------------------------------------------------------------------------------------------- */

static const struct { const char *code, *title, *cure; } rules[] = {
#define X(id, title, cure) { #id, title, cure },
    RULES(X)
#undef X
};

struct finding { enum rule rule; char *code /* NULL: the rule's */, *what, *stack; };
struct file {
    char *name, *kind, *error;
    struct finding *finding;
    size_t n, room;
};
struct report {
    struct file *file;
    size_t n, room;
};

struct report *report_new(void) { return must_alloc(sizeof(struct report)); }

void report_free(struct report *r)
{
    for (size_t i = 0; i < r->n; i++) {
        struct file *f = &r->file[i];
        for (size_t k = 0; k < f->n; k++) {
            free(f->finding[k].code);
            free(f->finding[k].what);
            free(f->finding[k].stack);
        }
        free(f->finding);
        free(f->name);
        free(f->kind);
        free(f->error);
    }
    free(r->file);
    free(r);
}

void report_file(struct report *r, const char *name)
{
    MUST_ROOM(r->file, r->n, r->room);
    r->file[r->n++] = (struct file){ .name = must_dup(name, strlen(name)) };
}

static struct file *now(const struct report *r) { return &r->file[r->n - 1]; }

static void set(char **to, const char *fmt, va_list ap)
{
    struct text t = { 0 };
    text_vadd(&t, fmt, ap);
    free(*to);
    *to = t.at;
}

void report_kind(struct report *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    set(&now(r)->kind, fmt, ap);
    va_end(ap);
}

void report_error(struct report *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    set(&now(r)->error, fmt, ap);
    va_end(ap);
}

void report_add(struct report *r, enum rule rule, const char *stack, const char *fmt, ...)
{
    struct file *f = now(r);
    struct finding x = { .rule = rule, .stack = must_dup(stack, strlen(stack)) };
    va_list ap;
    va_start(ap, fmt);
    set(&x.what, fmt, ap);
    va_end(ap);
    MUST_ROOM(f->finding, f->n, f->room);
    f->finding[f->n++] = x;
}

void report_as(struct report *r, const char *code)
{
    struct finding *x = &now(r)->finding[now(r)->n - 1];
    free(x->code);
    x->code = must_dup(code, strlen(code));
}

size_t report_count(const struct report *r)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++)
        n += r->file[i].n;
    return n;
}

bool report_has(const struct report *r, enum rule rule)
{
    for (size_t i = 0; i < now(r)->n; i++)
        if (now(r)->finding[i].rule == rule)
            return true;
    return false;
}

enum rule report_rule(const char *code)
{
    for (unsigned i = 0; i < RULE_COUNT; i++)
        if (strcmp(rules[i].code, code) == 0)
            return (enum rule)i;
    return RULE_WXX;
}

bool report_failed(const struct report *r)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->file[i].error != NULL)
            return true;
    return false;
}

/* ---- how it is said --------------------------------------------------------------------------------------------- */

/* Names come from files: what a terminal would take for a command is shown as a question mark. */
static void put_plain(FILE *out, const char *s)
{
    for (; *s != 0; s++)
        putc((unsigned char)*s < ' ' || *s == 127 ? '?' : *s, out);
}

static void print_text(const struct report *r, FILE *out)
{
    for (size_t i = 0; i < r->n; i++) {
        const struct file *f = &r->file[i];
        put_plain(out, f->name);
        fputs(": ", out);
        put_plain(out, f->error != NULL ? f->error : f->kind != NULL ? f->kind : "");
        fputs(f->error == NULL && f->n == 0 ? ": nothing found\n" : "\n", out);
        for (size_t k = 0; k < f->n; k++) {
            const struct finding *x = &f->finding[k];
            fprintf(out, "  %s  ", x->code != NULL ? x->code : rules[x->rule].code);
            put_plain(out, x->what);
            putc('\n', out);
            for (const char *s = x->stack, *end; *s != 0; s = *end == 0 ? end : end + 1) {
                end = s + strcspn(s, "\n");
                char *line = must_dup(s, (size_t)(end - s));
                fputs("         ", out);
                put_plain(out, line);
                putc('\n', out);
                free(line);
            }
            fputs("       cure: ", out);
            put_plain(out, rules[x->rule].cure);
            putc('\n', out);
        }
    }
    size_t n = report_count(r);
    fprintf(out, "%zu finding%s in %zu file%s\n", n, n == 1 ? "" : "s", r->n, r->n == 1 ? "" : "s");
}

/* Length of the character in UTF-8 at s; 0: there is none. */
static unsigned utf8(const unsigned char *s)
{
    unsigned n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    for (unsigned i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

static void put_json(FILE *out, const char *s)
{
    putc('"', out);
    for (const unsigned char *c = (const unsigned char *)s; *c != 0;) {
        unsigned n = utf8(c);
        if (n == 0) {
            fputs("\\ufffd", out);
            n = 1;
        } else if (*c < ' ' || *c == 127) {
            fprintf(out, "\\u%04x", *c);
        } else {
            if (*c == '"' || *c == '\\')
                putc('\\', out);
            fwrite(c, 1, n, out);
        }
        c += n;
    }
    putc('"', out);
}

static void put_pair(FILE *out, const char *key, const char *value)
{
    fprintf(out, "\"%s\": ", key);
    put_json(out, value);
}

static void put_lines(FILE *out, const char *key, const char *text)
{
    fprintf(out, "\"%s\": [", key);
    for (const char *s = text, *end; *s != 0; s = *end == 0 ? end : end + 1) {
        end = s + strcspn(s, "\n");
        char *line = must_dup(s, (size_t)(end - s));
        fputs(s == text ? "" : ", ", out);
        put_json(out, line);
        free(line);
    }
    putc(']', out);
}

static void print_json(const struct report *r, FILE *out)
{
    fprintf(out, "{\"version\": 1, \"findings\": %zu, \"files\": [", report_count(r));
    for (size_t i = 0; i < r->n; i++) {
        const struct file *f = &r->file[i];
        fputs(i == 0 ? "\n  {" : ",\n  {", out);
        put_pair(out, "file", f->name);
        fputs(", ", out);
        put_pair(out, f->error != NULL ? "error" : "kind", f->error != NULL ? f->error : f->kind != NULL ? f->kind : "");
        fputs(", \"findings\": [", out);
        for (size_t k = 0; k < f->n; k++) {
            const struct finding *x = &f->finding[k];
            fputs(k == 0 ? "\n    {" : ",\n    {", out);
            put_pair(out, "code", x->code != NULL ? x->code : rules[x->rule].code);
            fputs(", ", out);
            put_pair(out, "title", rules[x->rule].title);
            fputs(", ", out);
            put_pair(out, "what", x->what);
            fputs(", ", out);
            put_lines(out, "stack", x->stack);
            fputs(", ", out);
            put_pair(out, "cure", rules[x->rule].cure);
            putc('}', out);
        }
        fputs(f->n == 0 ? "]}" : "\n  ]}", out);
    }
    fputs("\n]}\n", out);
}

void report_print(const struct report *r, FILE *out, bool json) { (json ? print_json : print_text)(r, out); }

void report_print_rules(FILE *out)
{
    for (unsigned i = 0; i < RULE_COUNT; i++)
        fprintf(out, "%s  %s: %s\n", rules[i].code, rules[i].title, rules[i].cure);
}
