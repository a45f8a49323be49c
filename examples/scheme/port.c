/* port.c - ports, the printer, and their builtins.
 *
 * A file port owns a descriptor and is closed by its finalizer if the program does not do it: what is still in the buffer is written then,
 * since all that a port reaches lives until its finalizer has run. Descriptors are scarcer than memory, so an open that finds none left
 * collects first, and closes what was dropped. A program that ends does not wait for finalizers: close what must be on disk.
 *
 * A read that waits holds up its own fiber only. What is printed goes into a text first and then to the port in one piece, so no lock is held
 * where an error may be raised, and lines of two fibers do not mix. */
#include "scheme.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER_BYTES = 4096, OPEN_TRIES = 12 };

/* ---- text ------------------------------------------------------------------------------------------- */

void text_add(struct vm *vm, struct text *t, const char *s, size_t n)
{
    if (t->n + n > t->cap) {
        size_t cap = 2 * t->cap > t->n + n ? 2 * t->cap : t->n + n + 64;
        char *b = (char *)check_memory(vm, mem_bytes(cap));
        if (t->n)
            memcpy(b, t->b, t->n);
        t->b = b;
        t->cap = cap;
    }
    if (n)
        memcpy(t->b + t->n, s, n);
    t->n += n;
}

static void add(struct vm *vm, struct text *t, const char *s) { text_add(vm, t, s, strlen(s)); }

static void print_double(struct vm *vm, struct text *t, double d)
{
    char b[40];
    for (int digits = 15; digits <= 17; digits++) { /* the shortest that reads back as the same */
        snprintf(b, sizeof b, "%.*g", digits, d);
        if (strtod(b, NULL) == d)
            break;
    }
    add(vm, t, b);
    if (!strpbrk(b, ".en"))
        add(vm, t, ".0");
}

static void print_quoted(struct vm *vm, struct text *t, struct string *s)
{
    add(vm, t, "\"");
    for (size_t i = 0; i < length_of((value)s); i++) {
        char c = s->b[i];
        if (c == '"' || c == '\\')
            text_add(vm, t, (char[]){ '\\', c }, 2);
        else if (c == '\n' || c == '\t' || c == '\r')
            text_add(vm, t, c == '\n' ? "\\n" : c == '\t' ? "\\t" : "\\r", 2);
        else
            text_add(vm, t, &c, 1);
    }
    add(vm, t, "\"");
}

static void print_char(struct vm *vm, struct text *t, unsigned char c)
{
    char b[16];
    if (c == ' ' || c == '\n' || c == '\t')
        add(vm, t, c == ' ' ? "#\\space" : c == '\n' ? "#\\newline" : "#\\tab");
    else
        text_add(vm, t, b, (size_t)snprintf(b, sizeof b, c > ' ' && c < 127 ? "#\\%c" : "#\\x%x", c));
}

static void print_items(struct vm *vm, struct text *t, value *at, size_t n, bool write)
{
    for (size_t i = 0; i < n; i++) {
        if (i)
            add(vm, t, " ");
        print(vm, t, at[i], write);
    }
}

static void print_list(struct vm *vm, struct text *t, value v, bool write)
{
    add(vm, t, "(");
    print(vm, t, car(v), write);
    while (is_pair(v = cdr(v))) {
        add(vm, t, " ");
        print(vm, t, car(v), write);
    }
    if (v != V_NIL) {
        add(vm, t, " . ");
        print(vm, t, v, write);
    }
    add(vm, t, ")");
}

static void print_named(struct vm *vm, struct text *t, const char *what, value name)
{
    add(vm, t, what);
    if (name != V_FALSE) {
        add(vm, t, " ");
        print(vm, t, name, false);
    }
    add(vm, t, ">");
}

static void print_object(struct vm *vm, struct text *t, value v, bool write)
{
    struct vector *r = (struct vector *)v;
    switch ((enum type)(*(uint8_t *)v)) {
    case T_STRING:
        if (write)
            print_quoted(vm, t, (struct string *)v);
        else
            text_add(vm, t, ((struct string *)v)->b, length_of(v));
        break;
    case T_SYMBOL: print(vm, t, ((struct symbol *)v)->name, false); break;
    case T_FLONUM: print_double(vm, t, ((struct flonum *)v)->d); break;
    case T_VECTOR:
        add(vm, t, "#(");
        print_items(vm, t, r->at, length_of(v), write);
        add(vm, t, ")");
        break;
    case T_RECORD:
        add(vm, t, "#<");
        print(vm, t, ((struct vector *)r->at[0])->at[0], false);
        add(vm, t, " ");
        print_items(vm, t, r->at + 1, length_of(v) - 1, write);
        add(vm, t, ">");
        break;
    case T_CLOSURE: print_named(vm, t, "#<procedure", ((struct closure *)v)->proto->name); break;
    case T_BUILTIN:
        add(vm, t, "#<builtin ");
        add(vm, t, ((struct builtin *)v)->def->name);
        add(vm, t, ">");
        break;
    case T_ERROR: print_named(vm, t, "#<error", ((struct error *)v)->message); break;
    case T_PORT: print_named(vm, t, "#<port", ((struct port *)v)->name); break;
    case T_CONT: add(vm, t, "#<continuation>"); break;
    case T_TABLE: add(vm, t, "#<hash-table>"); break;
    case T_CHANNEL: add(vm, t, "#<channel>"); break;
    case T_PROTO: add(vm, t, "#<code>"); break;
    }
}

void print(struct vm *vm, struct text *t, value v, bool write)
{
    vm_check_depth(vm);
    if (is_fix(v)) {
        char b[24];
        text_add(vm, t, b, (size_t)snprintf(b, sizeof b, "%lld", (long long)fix(v)));
    } else if (is_pair(v)) {
        print_list(vm, t, v, write);
    } else if (is_object(v)) {
        print_object(vm, t, v, write);
    } else if (!is_char(v)) {
        add(vm, t, v == V_TRUE ? "#t" : v == V_FALSE ? "#f" : v == V_NIL ? "()" : v == V_EOF ? "#<eof>" : "#<void>");
    } else if (write) {
        print_char(vm, t, char_of(v));
    } else {
        text_add(vm, t, &(char){ (char)char_of(v) }, 1);
    }
}

/* ---- files ------------------------------------------------------------------------------------------- */

/* Under the lock, or in the finalizer. 0 or errno; what could not be written is dropped. */
static int flush_locked(struct port *p)
{
    size_t at = 0;
    int error = 0;
    while (p->fd >= 0 && at < p->n && error == 0) {
        ssize_t r = write(p->fd, p->buf + at, p->n - at);
        if (r >= 0)
            at += (size_t)r;
        else if (errno != EINTR)
            error = errno;
    }
    if (p->fd >= 0)
        p->n = 0;
    return error;
}

static int close_locked(struct port *p)
{
    int error = p->out ? flush_locked(p) : 0;
    if (p->fd > 2)
        close(p->fd);
    p->open = false;
    p->fd = -1;
    return error;
}

static void finalize(void *obj, void *ctx)
{
    (void)ctx;
    close_locked(obj); /* nobody else has it */
}

value make_port(struct vm *vm, int fd, bool out, value name)
{
    char *buf = (char *)check_memory(vm, mem_bytes(BUFFER_BYTES));
    struct port *p = (struct port *)check_memory(vm, mem_new(types.port));
    *p = (struct port){ .head = make_head(T_PORT, 0), .buf = buf, .name = name, .cap = BUFFER_BYTES, .fd = fd, .line = 1, .out = out, .open = true };
    return (value)p;
}

value port_open(struct vm *vm, value name, bool out)
{
    const char *path = ((struct string *)name)->b;
    struct port *p = (struct port *)make_port(vm, -1, out, name);
    if (mem_finalizer(p, finalize) != 0)
        vm_no_memory(vm);
    for (int i = 0; i < OPEN_TRIES; i++) {
        p->fd = open(path, (out ? O_WRONLY | O_CREAT | O_TRUNC : O_RDONLY) | O_CLOEXEC, 0666);
        if (p->fd >= 0 || (errno != EMFILE && errno != ENFILE))
            break;
        mem_collect(); /* ports that were dropped */
        mem_run_finalizers(1u << i); /* longer and longer: they write, and others may want the processors */
    }
    if (p->fd < 0) {
        int error = errno;
        p->open = false;
        char message[100];
        snprintf(message, sizeof message, "cannot open, %s:", strerrordesc_np(error));
        vm_error(vm, message, name);
    }
    return (value)p;
}

value port_open_string(struct vm *vm, const char *s, size_t n, const char *name)
{
    struct port *p = (struct port *)make_port(vm, -1, false, make_string(vm, name, strlen(name)));
    p->buf = (char *)check_memory(vm, mem_bytes(n + 1));
    memcpy(p->buf, s, n);
    p->n = n;
    return (value)p;
}

/* Under the lock: is there a character? Waits for one. */
static bool fill_locked(struct port *p)
{
    ssize_t r = 0;
    if (p->at < p->n)
        return true;
    while (p->fd >= 0 && (r = read(p->fd, p->buf, p->cap)) < 0 && errno == EINTR)
        ;
    if (p->fd >= 0) {
        p->at = 0;
        p->n = r > 0 ? (size_t)r : 0;
    }
    return r > 0;
}

static int next_char(struct vm *vm, struct port *p, bool take)
{
    int c = -1;
    mem_lock_take(&p->lock);
    bool open = p->open;
    if (open && fill_locked(p)) {
        c = (unsigned char)p->buf[p->at];
        p->at += take;
        p->line += take && c == '\n';
    }
    mem_lock_drop(&p->lock);
    if (!open)
        vm_error(vm, "the port is closed:", (value)p);
    return c;
}
int port_getc(struct vm *vm, struct port *p) { return next_char(vm, p, true); }
int port_peekc(struct vm *vm, struct port *p) { return next_char(vm, p, false); }

/* Under the lock. */
static int write_locked(struct port *p, const char *s, size_t n)
{
    int error = p->open ? 0 : EBADF;
    bool whole_line = p->eager && memchr(s, '\n', n);
    while (n > 0 && error == 0) {
        if (p->n == p->cap && p->fd >= 0) {
            error = flush_locked(p);
        } else if (p->n == p->cap) {
            char *buf = mem_bytes(2 * p->cap);
            if (!buf)
                return ENOMEM;
            memcpy(buf, p->buf, p->n);
            p->buf = buf;
            p->cap *= 2;
        }
        size_t part = n < p->cap - p->n ? n : p->cap - p->n;
        memcpy(p->buf + p->n, s, part);
        p->n += part;
        s += part;
        n -= part;
    }
    return whole_line && error == 0 ? flush_locked(p) : error;
}

static void check(struct vm *vm, struct port *p, int error)
{
    char message[100];
    if (error == 0)
        return;
    snprintf(message, sizeof message, "cannot write, %s:", error == EBADF ? "the port is closed" : strerrordesc_np(error));
    vm_error(vm, message, (value)p);
}

void port_write(struct vm *vm, struct port *p, const char *s, size_t n)
{
    mem_lock_take(&p->lock);
    int error = write_locked(p, s, n);
    mem_lock_drop(&p->lock);
    check(vm, p, error);
}

void port_flush(struct vm *vm, struct port *p)
{
    mem_lock_take(&p->lock);
    int error = flush_locked(p);
    mem_lock_drop(&p->lock);
    check(vm, p, error);
}

void port_close(struct vm *vm, struct port *p)
{
    mem_lock_take(&p->lock);
    int error = p->open ? close_locked(p) : 0;
    mem_lock_drop(&p->lock);
    check(vm, p, error);
}

/* ---- builtins ------------------------------------------------------------------------------------------ */

static struct port *arg_port(struct vm *vm, value v, bool out)
{
    if (v == V_UNDEF)
        v = out ? vm->world->out : vm->world->in;
    if (!is(v, T_PORT) || ((struct port *)v)->out != out)
        vm_bad(vm, out ? "not an output port" : "not an input port", v);
    return (struct port *)v;
}
static void print_to(struct vm *vm, value v, value port, bool write)
{
    struct text t = { 0 };
    struct port *p = arg_port(vm, port, true);
    print(vm, &t, v, write);
    port_write(vm, p, t.b, t.n);
}

BUILTIN(open_input_file) { return port_open(vm, (value)arg_string(vm, a[0]), false); }
BUILTIN(open_output_file) { return port_open(vm, (value)arg_string(vm, a[0]), true); }
BUILTIN(open_input_string) { return port_open_string(vm, arg_string(vm, a[0])->b, length_of(a[0]), "string"); }
BUILTIN(open_output_string) { return make_port(vm, -1, true, make_string(vm, "string", 6)); }
BUILTIN(get_output_string)
{
    struct port *p = arg_port(vm, a[0], true);
    mem_lock_take(&p->lock);
    char *b = p->buf; /* bytes that are there do not change */
    size_t bytes = p->fd < 0 ? p->n : 0;
    mem_lock_drop(&p->lock);
    return make_string(vm, b, bytes);
}
BUILTIN(close_port)
{
    if (!is(a[0], T_PORT))
        vm_bad(vm, "not a port", a[0]);
    port_close(vm, (struct port *)a[0]);
    return V_VOID;
}
BUILTIN(flush) { port_flush(vm, arg_port(vm, a[0], true)); return V_VOID; }
BUILTIN(current_output) { return vm->world->out; }
BUILTIN(current_input) { return vm->world->in; }
BUILTIN(current_error) { return vm->world->err; }
BUILTIN(is_port) { return make_bool(is(a[0], T_PORT)); }

static value char_or_eof(int c) { return c < 0 ? V_EOF : make_char((unsigned char)c); }
BUILTIN(read_char) { return char_or_eof(port_getc(vm, arg_port(vm, a[0], false))); }
BUILTIN(peek_char) { return char_or_eof(port_peekc(vm, arg_port(vm, a[0], false))); }
BUILTIN(read_line)
{
    struct port *p = arg_port(vm, a[0], false);
    struct text t = { 0 };
    int c;
    while ((c = port_getc(vm, p)) != -1 && c != '\n')
        text_add(vm, &t, &(char){ (char)c }, 1);
    return c == -1 && t.n == 0 ? V_EOF : make_string(vm, t.b, t.n);
}
BUILTIN(read) { return read_datum(vm, arg_port(vm, a[0], false)); }
BUILTIN(is_eof) { return make_bool(a[0] == V_EOF); }
BUILTIN(eof_object) { return V_EOF; }

BUILTIN(display) { print_to(vm, a[0], a[1], false); return V_VOID; }
BUILTIN(write) { print_to(vm, a[0], a[1], true); return V_VOID; }
BUILTIN(newline) { port_write(vm, arg_port(vm, a[0], true), "\n", 1); return V_VOID; }
BUILTIN(write_char)
{
    if (!is_char(a[0]))
        vm_bad(vm, "not a character", a[0]);
    port_write(vm, arg_port(vm, a[1], true), &(char){ (char)char_of(a[0]) }, 1);
    return V_VOID;
}
BUILTIN(write_string) { return b_display(vm, n, (arg_string(vm, a[0]), a)); }
BUILTIN(file_exists) { return make_bool(access(arg_string(vm, a[0])->b, F_OK) == 0); }
BUILTIN(delete_file)
{
    if (unlink(arg_string(vm, a[0])->b) != 0)
        vm_bad(vm, "cannot delete", a[0]);
    return V_VOID;
}

const struct builtin_def builtins_ports[] = {
    { "open-input-file", b_open_input_file, 1, 1, 0 },     { "open-output-file", b_open_output_file, 1, 1, 0 },
    { "open-input-string", b_open_input_string, 1, 1, 0 }, { "open-output-string", b_open_output_string, 0, 0, 0 },
    { "get-output-string", b_get_output_string, 1, 1, 0 }, { "close-port", b_close_port, 1, 1, 0 },
    { "close-input-port", b_close_port, 1, 1, 0 },         { "close-output-port", b_close_port, 1, 1, 0 },
    { "flush-output-port", b_flush, 0, 1, 0 },             { "current-output-port", b_current_output, 0, 0, 0 },
    { "current-input-port", b_current_input, 0, 0, 0 },    { "current-error-port", b_current_error, 0, 0, 0 },
    { "port?", b_is_port, 1, 1, 0 },                       { "read-char", b_read_char, 0, 1, 0 },
    { "peek-char", b_peek_char, 0, 1, 0 },                 { "read-line", b_read_line, 0, 1, 0 },
    { "read", b_read, 0, 1, 0 },                           { "eof-object?", b_is_eof, 1, 1, 0 },
    { "eof-object", b_eof_object, 0, 0, 0 },               { "display", b_display, 1, 2, 0 },
    { "write", b_write, 1, 2, 0 },                         { "newline", b_newline, 0, 1, 0 },
    { "write-char", b_write_char, 1, 2, 0 },               { "write-string", b_write_string, 1, 2, 0 },
    { "file-exists?", b_file_exists, 1, 1, 0 },            { "delete-file", b_delete_file, 1, 1, 0 },
    { NULL, NULL, 0, 0, 0 },
};
