/* scheme.h - values, objects, and what the files of the interpreter have of each other.
 *
 * A value is one word. Small integers and constants lie in it, all else is a pointer to a collected object; the low three bits tell:
 *
 *      ......1   an integer of 63 bits
 *      ....010   a pair: two words without a header, so a cons is 16 bytes, and pair? looks at no memory
 *      ....000   any other object; its first word, the head, has the type in the low byte and a length above
 *      ....110   #t, #f, (), eof, characters and a few more
 *
 * Fibers run the program in parallel, so what they share is safe to use, though not to use unwisely: tables, ports and the table of symbols
 * have locks; vectors, strings and variables are written without one and give the old or the new value. Channels order one fiber's doings
 * before another's.
 *
 * A function that can fail does not return then: vm_error unwinds to the handler (vm.c). No lock is held over a call that can fail. */
#ifndef SCHEME_H
#define SCHEME_H

#include "mem.h"

#include <setjmp.h>

typedef uintptr_t value;

enum {
    V_FALSE = 0x06, V_TRUE = 0x0e, V_NIL = 0x16, V_EOF = 0x1e,
    V_VOID = 0x26,  /* what set!, for-each and the like return */
    V_UNDEF = 0x2e, /* in a variable: not defined yet; as an optional argument: not given */
    V_CHAR = 0x7e,  /* the low byte; the character, a byte, above */
};
#define FIX_MAX (INT64_MAX / 2)
#define FIX_MIN (INT64_MIN / 2)

static inline bool is_fix(value v) { return v & 1; }
static inline bool is_pair(value v) { return (v & 7) == 2; }
static inline bool is_object(value v) { return (v & 7) == 0; }
static inline bool is_char(value v) { return (v & 0xff) == V_CHAR; }
static inline int64_t fix(value v) { return (int64_t)v >> 1; }
static inline value make_fix(int64_t n) { return (value)n << 1 | 1; }
static inline value make_char(unsigned char c) { return (value)c << 8 | V_CHAR; }
static inline unsigned char char_of(value v) { return (unsigned char)(v >> 8); }
static inline value make_bool(bool b) { return b ? V_TRUE : V_FALSE; }

enum type {
    T_STRING = 1, T_SYMBOL, T_FLONUM, T_VECTOR, T_CLOSURE, T_PROTO, T_BUILTIN, T_CONT, T_TABLE, T_PORT, T_CHANNEL, T_RECORD, T_ERROR,
};
static inline uint64_t make_head(enum type t, size_t length) { return (uint64_t)length << 8 | t; }
static inline bool is(value v, enum type t) { return is_object(v) && (*(uint8_t *)v) == t; }
static inline size_t length_of(value v) { return *(uint64_t *)v >> 8; }

/* ---- objects --------------------------------------------------------------------------------------- */

struct pair { value car, cdr; };
struct box { value v; };                        /* a variable that closures share and somebody sets */
struct string { uint64_t head; char b[]; };     /* bytes, with a NUL behind them */
struct flonum { uint64_t head; double d; };
struct vector { uint64_t head; value at[]; };   /* a record, too: at[0] is its type, a vector #(name size) */
struct symbol {
    uint64_t head;
    struct symbol *next;    /* in the table of symbols */
    value name, v;          /* v: of the global variable */
    uint8_t form;           /* enum form of compile.c; 0: none */
    bool used;              /* compiled code relies on v being a builtin */
};
/* A procedure's code. */
struct proto {
    uint64_t head;
    int32_t *code, *lines;  /* a line for each word of code */
    value *consts;
    value name, file;
    int32_t params, need;   /* need: slots of the stack, parameters included */
    int32_t exact;          /* params; -1 with rest */
    int32_t length;
    bool rest;              /* further arguments in a list, which is counted in params */
};
struct closure { uint64_t head; struct proto *proto; value free[]; };

struct vm;
typedef value builtin_fn(struct vm *vm, int n, value *a);
struct builtin_def {
    const char *name;
    builtin_fn *fn;
    int16_t min, max;       /* arguments; max -1: any number. Those not given are V_UNDEF, up to max */
    uint8_t op;             /* the instruction that does it; for fn NULL: enum control of vm.h */
};
#define UNUSED __attribute__((unused))
#define BUILTIN(id) static value b_##id(UNUSED struct vm *vm, UNUSED int n, UNUSED value *a)
struct builtin { uint64_t head; const struct builtin_def *def; };
struct error { uint64_t head; value message, irritants, where; };

struct entry { struct entry *next; value key, v; uint64_t hash; }; /* key: a mem_weak * in a weak table, if the key is an object */
enum table_kind { TABLE_EQ, TABLE_EQUAL, TABLE_WEAK };
struct table { uint64_t head; struct entry **slots; size_t mask, count; enum table_kind kind; mem_lock lock; };

struct port {
    uint64_t head;
    char *buf;              /* noscan */
    value name;
    size_t at, n, cap;      /* input: [at, n) is to be read; output: [0, n) is to be written */
    int fd, line;           /* -1: a string port, or closed */
    bool out, open, eager;  /* eager: a terminal, written at each end of line */
    mem_lock lock;
};

/* One for the program, shared by its fibers; reached from each vm. */
struct world {
    struct symbol **symbols;
    size_t symbol_mask, symbol_count;
    mem_lock symbol_lock;
    value in, out, err;     /* ports */
    value no_memory;        /* the error that needs no memory */
    int failed;             /* fibers that ended with an error; atomic */
};

struct chunk;
struct cont;
/* One per fiber, on its C stack: from here the collector finds all that the fiber has. */
struct vm {
    struct world *world;
    struct chunk *chunk, *spare;    /* of the Scheme stack: see vm.c */
    value *limit;
    struct cont *conts;             /* live continuations and handlers, innermost first */
    struct closure *closure;        /* where the program was when it called a builtin */
    const int32_t *pc;
    const struct builtin_def *def;  /* which */
    value *sp, callee;              /* what execute() is to call, and with */
    int argc;
    value raised;
    char *c_stack;                  /* where the C stack began, and how much of it may be used */
    size_t c_stack_bytes;
    value lines, file;              /* while a file is read and compiled: pair -> line; name */
    jmp_buf escape;
};

/* ---- vm.c: running --------------------------------------------------------------------------------- */

void vm_init(struct vm *vm, struct world *world, size_t c_stack_bytes);
/* Calls proc without arguments. False: an error that nobody caught, in vm->raised. */
bool vm_call(struct vm *vm, value proc, value *result);
/* Compiles and runs what the port has, form by form; show: prints what each gives. */
bool vm_load(struct vm *vm, value port, bool show);
_Noreturn void vm_raise(struct vm *vm, value v);
value vm_where(struct vm *vm); /* (file . line) of what runs, or #f */
_Noreturn void vm_error(struct vm *vm, const char *message, value irritant); /* V_UNDEF: none */
_Noreturn void vm_error_at(struct vm *vm, value where, const char *message, value irritant);
_Noreturn void vm_wrong(struct vm *vm, const char *who, const char *what, value got); /* "car: not a pair: 5" */
_Noreturn void vm_bad(struct vm *vm, const char *what, value got);                    /* the same, by the builtin that runs */
_Noreturn void vm_no_memory(struct vm *vm);
/* The C stack is nearly used up: for functions that call themselves. check: an error if so. */
bool vm_too_deep(struct vm *vm);
void vm_check_depth(struct vm *vm);
void vm_report(struct vm *vm, value raised); /* to the error port: "file:line: message irritants" */

/* ---- compile.c ------------------------------------------------------------------------------------- */

value compile(struct vm *vm, value form, int line); /* a closure without parameters; line: for what has none of its own */
void compile_init(struct vm *vm);                   /* names of forms */

/* ---- read.c ---------------------------------------------------------------------------------------- */

value read_datum(struct vm *vm, struct port *p); /* V_EOF at the end; lines of pairs go to vm->lines, if that is a table */
bool parse_number(struct vm *vm, const char *s, int base, value *out);

/* ---- data.c ---------------------------------------------------------------------------------------- */

extern struct types { mem_type pair, symbol, proto, error, entry, table, port, cont, box; } types;

void data_init(void);
static inline value check_memory(struct vm *vm, void *p)
{
    if (__builtin_expect(p == NULL, 0))
        vm_no_memory(vm);
    return (value)p;
}
static inline value cons(struct vm *vm, value car, value cdr)
{
    struct pair *p = (struct pair *)check_memory(vm, mem_new(types.pair));
    mem_store(&p->car, car);
    mem_store(&p->cdr, cdr);
    return (value)p | 2;
}
static inline struct pair *pair_of(value v) { return (struct pair *)(v - 2); }
static inline value car(value v) { return pair_of(v)->car; }
static inline value cdr(value v) { return pair_of(v)->cdr; }

value make_flonum(struct vm *vm, double d);
value make_string(struct vm *vm, const char *s, size_t n); /* s NULL: zeroes */
struct vector *new_vector(struct vm *vm, size_t n); /* what is in it must be set before anything else is done */
value make_vector(struct vm *vm, size_t n, value fill);
value make_error(struct vm *vm, value message, value irritants, value where);
value intern(struct vm *vm, const char *s, size_t n);
value symbol(struct vm *vm, const char *s);
value list(struct vm *vm, int n, ...);
int64_t list_length(value v); /* -1: not a proper list, or a circular one */
value list_reverse(struct vm *vm, value v);

bool eqv(value a, value b);
bool equal(struct vm *vm, value a, value b);

value make_table(struct vm *vm, enum table_kind kind);
value table_get(struct vm *vm, struct table *t, value key, value otherwise);
void table_set(struct vm *vm, struct table *t, value key, value v);
void table_delete(struct vm *vm, struct table *t, value key);
value table_to_list(struct vm *vm, struct table *t); /* of pairs (key . value) */
size_t table_count(struct table *t);                 /* of a weak table: of keys that live */

/* ---- port.c ---------------------------------------------------------------------------------------- */

struct text { char *b; size_t n, cap; }; /* a growing string, on the C stack of its maker */
void text_add(struct vm *vm, struct text *t, const char *s, size_t n);
void print(struct vm *vm, struct text *t, value v, bool write);

value make_port(struct vm *vm, int fd, bool out, value name);
value port_open(struct vm *vm, value name, bool out);
value port_open_string(struct vm *vm, const char *s, size_t n, const char *name);
int port_getc(struct vm *vm, struct port *p); /* -1: the end */
int port_peekc(struct vm *vm, struct port *p);
void port_write(struct vm *vm, struct port *p, const char *s, size_t n);
void port_flush(struct vm *vm, struct port *p);
void port_close(struct vm *vm, struct port *p);

/* ---- builtins: a table each, ended by a name of NULL ------------------------------------------------- */

static inline struct string *arg_string(struct vm *vm, value v)
{
    if (!is(v, T_STRING))
        vm_bad(vm, "not a string", v);
    return (struct string *)v;
}

extern const struct builtin_def builtins_control[], builtins_data[], builtins_numbers[], builtins_ports[], builtins_fibers[];
extern const char prelude[]; /* what is written in Scheme itself */
value num_add(struct vm *vm, value a, value b);
value num_sub(struct vm *vm, value a, value b);
value num_mul(struct vm *vm, value a, value b);
int num_compare(struct vm *vm, value a, value b, const char *who); /* -1, 0, 1; 2: one is not a number of the line (nan) */

#endif
