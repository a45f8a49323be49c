/* read.c - the reader: text of a port -> data.
 *
 * Read by recursive descent, one character of look-ahead. Where a list began is remembered in a table from pair to line for as long as a form is
 * compiled: no pair carries its line around afterwards. A line of 0 means unknown. */
#include "scheme.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { CLOSE = V_UNDEF, DOT = V_VOID, MAX_TOKEN = 4096 }; /* a ")" and a "." are no data */

static const struct { const char *name; unsigned char c; } char_names[] = {
    { "space", ' ' }, { "newline", '\n' }, { "tab", '\t' }, { "return", '\r' }, { "nul", 0 }, { "null", 0 }, { "delete", 127 }, { "escape", 27 },
};

static value where(struct vm *vm, struct port *p) { return cons(vm, p->name, make_fix(p->line)); }

static _Noreturn void bad(struct vm *vm, struct port *p, const char *message, value irritant)
{
    vm_error_at(vm, where(vm, p), message, irritant);
}

static bool is_delimiter(int c) { return c == -1 || strchr(" \t\r\n\f()\";'`,", c); }

static void skip_block_comment(struct vm *vm, struct port *p)
{
    for (int depth = 1, c = port_getc(vm, p), next; depth > 0; c = next) {
        if (c == -1)
            bad(vm, p, "end of file in a block comment", V_UNDEF);
        next = port_getc(vm, p);
        if ((c == '|' && next == '#') || (c == '#' && next == '|')) {
            depth += c == '#' ? 1 : -1;
            next = depth > 0 ? port_getc(vm, p) : ' ';
        }
    }
}

bool parse_number(struct vm *vm, const char *s, int base, value *out)
{
    const char *digits = s + (*s == '-' || *s == '+');
    if (!*digits || !(strchr("0123456789.", *digits) || (base == 16 && strchr("abcdefABCDEF", *digits))))
        return false;
    char *end;
    errno = 0;
    long long n = strtoll(s, &end, base);
    if (end != s && !*end && errno == 0 && n >= FIX_MIN && n <= FIX_MAX) {
        *out = make_fix(n);
        return true;
    }
    if (base != 10 || strpbrk(s, "xXpP"))
        return false;
    double d = strtod(s, &end);
    if (end == s || *end)
        return false;
    *out = make_flonum(vm, d);
    return true;
}

static size_t read_token(struct vm *vm, struct port *p, int first, char *token)
{
    size_t n = 0;
    for (int c = first;; c = port_getc(vm, p)) {
        if (n == MAX_TOKEN)
            bad(vm, p, "a name or number is too long", V_UNDEF);
        token[n++] = (char)c;
        if (is_delimiter(port_peekc(vm, p)))
            break;
    }
    token[n] = 0;
    return n;
}

static value read_char(struct vm *vm, struct port *p, char *token)
{
    size_t n = read_token(vm, p, port_getc(vm, p), token); /* the first may be a delimiter */
    if (n == 1)
        return make_char((unsigned char)token[0]);
    for (size_t i = 0; i < sizeof char_names / sizeof *char_names; i++)
        if (strcmp(char_names[i].name, token) == 0)
            return make_char(char_names[i].c);
    char *end;
    unsigned long code = token[0] == 'x' ? strtoul(token + 1, &end, 16) : 256;
    if (code > 255 || *end)
        bad(vm, p, "unknown character name, or not a byte", make_string(vm, token, n));
    return make_char((unsigned char)code);
}

static value read_string(struct vm *vm, struct port *p)
{
    struct text t = { 0 };
    int start = p->line;
    for (int c; (c = port_getc(vm, p)) != '"';) {
        if (c == '\\') {
            c = port_getc(vm, p);
            if (c == '\n') {
                while (port_peekc(vm, p) == ' ' || port_peekc(vm, p) == '\t')
                    port_getc(vm, p);
                continue;
            }
            c = c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c == '0' ? 0 : c;
        }
        if (c == -1) {
            p->line = start;
            bad(vm, p, "a string that begins here has no end", V_UNDEF);
        }
        text_add(vm, &t, &(char){ (char)c }, 1);
    }
    return make_string(vm, t.b, t.n);
}

static value read_any(struct vm *vm, struct port *p);

static value read_list(struct vm *vm, struct port *p)
{
    vm_check_depth(vm);
    value head = V_NIL, last = V_NIL;
    int start = p->line;
    for (;;) {
        value v = read_any(vm, p);
        if (v == V_EOF) {
            p->line = start;
            bad(vm, p, "a list that begins here has no end", V_UNDEF);
        }
        if (v == CLOSE)
            return head;
        if (v == DOT) {
            if (head == V_NIL || (v = read_any(vm, p)) == CLOSE || v == DOT || v == V_EOF || read_any(vm, p) != CLOSE)
                bad(vm, p, "a dot must stand before the last element of a list", V_UNDEF);
            mem_store(&pair_of(last)->cdr, v);
            return head;
        }
        value next = cons(vm, v, V_NIL);
        if (head == V_NIL) {
            head = next;
            if (is(vm->lines, T_TABLE))
                table_set(vm, (struct table *)vm->lines, head, make_fix(start));
        } else {
            mem_store(&pair_of(last)->cdr, next);
        }
        last = next;
    }
}

static value read_datum_after(struct vm *vm, struct port *p, const char *prefix)
{
    int start = p->line;
    value v = read_any(vm, p);
    if (v == CLOSE || v == DOT || v == V_EOF)
        bad(vm, p, "nothing to quote", V_UNDEF);
    v = list(vm, 2, symbol(vm, prefix), v);
    if (is(vm->lines, T_TABLE))
        table_set(vm, (struct table *)vm->lines, v, make_fix(start));
    return v;
}

/* After a "#" that begins no comment. */
static value read_hash(struct vm *vm, struct port *p, char *token)
{
    switch (port_peekc(vm, p)) {
    case '\\':
        port_getc(vm, p);
        return read_char(vm, p, token);
    case '(': {
        port_getc(vm, p);
        value l = read_list(vm, p);
        int64_t n = list_length(l);
        if (n < 0)
            bad(vm, p, "a dot in a vector", V_UNDEF);
        struct vector *v = (struct vector *)make_vector(vm, (size_t)n, V_NIL);
        for (int64_t i = 0; i < n; i++, l = cdr(l))
            mem_store(&v->at[i], car(l));
        return (value)v;
    }
    }
    size_t n = read_token(vm, p, '#', token);
    value v;
    if (strcmp(token, "#t") == 0 || strcmp(token, "#true") == 0)
        return V_TRUE;
    if (strcmp(token, "#f") == 0 || strcmp(token, "#false") == 0)
        return V_FALSE;
    int base = token[1] == 'x' ? 16 : token[1] == 'b' ? 2 : token[1] == 'o' ? 8 : token[1] == 'd' ? 10 : 0;
    if (base && parse_number(vm, token + 2, base, &v))
        return v;
    bad(vm, p, "unknown syntax", make_string(vm, token, n));
}

static value read_atom(struct vm *vm, struct port *p, int c)
{
    char token[MAX_TOKEN + 1];
    if (c == '#')
        return read_hash(vm, p, token);
    size_t n = read_token(vm, p, c, token);
    value v;
    if (parse_number(vm, token, 10, &v))
        return v;
    return strcmp(token, ".") == 0 ? DOT : intern(vm, token, n);
}

static value read_any(struct vm *vm, struct port *p)
{
    for (;;) {
        int c = port_getc(vm, p);
        switch (c) {
        case -1: return V_EOF;
        case ' ': case '\t': case '\r': case '\n': case '\f': continue;
        case ';':
            while ((c = port_getc(vm, p)) != '\n' && c != -1)
                ;
            continue;
        case '(': return read_list(vm, p);
        case ')': return CLOSE;
        case '"': return read_string(vm, p);
        case '\'': return read_datum_after(vm, p, "quote");
        case '`': return read_datum_after(vm, p, "quasiquote");
        case ',':
            if (port_peekc(vm, p) != '@')
                return read_datum_after(vm, p, "unquote");
            port_getc(vm, p);
            return read_datum_after(vm, p, "unquote-splicing");
        case '#':
            if (port_peekc(vm, p) == ';') {
                port_getc(vm, p);
                read_datum_after(vm, p, "quote");
                continue;
            }
            if (port_peekc(vm, p) == '|') {
                port_getc(vm, p);
                skip_block_comment(vm, p);
                continue;
            }
        }
        return read_atom(vm, p, c);
    }
}

value read_datum(struct vm *vm, struct port *p)
{
    value v = read_any(vm, p);
    if (v == CLOSE)
        bad(vm, p, "a ) too many", V_UNDEF);
    if (v == DOT)
        bad(vm, p, "a dot outside of a list", V_UNDEF);
    return v;
}
