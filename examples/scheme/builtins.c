/* builtins.c - lists, symbols, characters, strings, vectors, tables, records, errors; and the prelude, which is written in Scheme.
 *
 * To add a builtin: BUILTIN(name) { ... } with its arguments in a[0..n), and a line in a table at the end. What is not given of optional
 * arguments is V_UNDEF. A builtin that would call a procedure belongs into the prelude: C never calls Scheme, so the C stack stays flat. */
#include "vm.h"

#include <ctype.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct vector *arg_vector(struct vm *vm, value v)
{
    if (!is(v, T_VECTOR))
        vm_bad(vm, "not a vector", v);
    return (struct vector *)v;
}
static struct table *arg_table(struct vm *vm, value v)
{
    if (!is(v, T_TABLE))
        vm_bad(vm, "not a hash table", v);
    return (struct table *)v;
}
static unsigned char arg_char(struct vm *vm, value v)
{
    if (!is_char(v))
        vm_bad(vm, "not a character", v);
    return char_of(v);
}
static value arg_pair(struct vm *vm, value v)
{
    if (!is_pair(v))
        vm_bad(vm, "not a pair", v);
    return v;
}
/* An integer from low to end - 1; V_UNDEF is otherwise. */
static size_t arg_index(struct vm *vm, value v, size_t low, size_t end, size_t otherwise)
{
    if (v == V_UNDEF)
        return otherwise;
    if (!is_fix(v) || fix(v) < (int64_t)low || (size_t)fix(v) >= end)
        vm_bad(vm, "no such index", v);
    return (size_t)fix(v);
}

/* ---- equality, kinds ------------------------------------------------------------------------------------ */

BUILTIN(eq) { return make_bool(a[0] == a[1]); }
BUILTIN(eqv) { return make_bool(eqv(a[0], a[1])); }
BUILTIN(equal) { return make_bool(equal(vm, a[0], a[1])); }
BUILTIN(not) { return make_bool(a[0] == V_FALSE); }
BUILTIN(is_boolean) { return make_bool(a[0] == V_TRUE || a[0] == V_FALSE); }
BUILTIN(is_null) { return make_bool(a[0] == V_NIL); }
BUILTIN(is_pair) { return make_bool(is_pair(a[0])); }
BUILTIN(is_list) { return make_bool(list_length(a[0]) >= 0); }
BUILTIN(is_symbol) { return make_bool(is(a[0], T_SYMBOL)); }
BUILTIN(is_string) { return make_bool(is(a[0], T_STRING)); }
BUILTIN(is_char) { return make_bool(is_char(a[0])); }
BUILTIN(is_vector) { return make_bool(is(a[0], T_VECTOR)); }
BUILTIN(is_table) { return make_bool(is(a[0], T_TABLE)); }
BUILTIN(is_procedure) { return make_bool(is(a[0], T_CLOSURE) || is(a[0], T_BUILTIN) || is(a[0], T_CONT)); }

/* ---- lists ------------------------------------------------------------------------------------------------ */

BUILTIN(cons) { return cons(vm, a[0], a[1]); }
BUILTIN(set_car) { mem_store(&pair_of(arg_pair(vm, a[0]))->car, a[1]); return V_VOID; }
BUILTIN(set_cdr) { mem_store(&pair_of(arg_pair(vm, a[0]))->cdr, a[1]); return V_VOID; }

/* The path is that of the name, read from the right: cadr is d, then a. */
BUILTIN(cxr)
{
    const char *name = vm->def->name, *p = name + strlen(name) - 1;
    value v = a[0];
    while (*--p != 'c')
        v = *p == 'a' ? car(arg_pair(vm, v)) : cdr(arg_pair(vm, v));
    return v;
}
BUILTIN(list)
{
    value r = V_NIL;
    while (n > 0)
        r = cons(vm, a[--n], r);
    return r;
}
BUILTIN(length)
{
    int64_t length = list_length(a[0]);
    if (length < 0)
        vm_bad(vm, "not a list", a[0]);
    return make_fix(length);
}
/* All but the last are copied. */
BUILTIN(append)
{
    value r = n ? a[n - 1] : V_NIL;
    for (int i = n - 2; i >= 0; i--) {
        value head = V_NIL, last = V_NIL;
        for (value l = a[i]; l != V_NIL; l = cdr(l)) {
            value next = cons(vm, car(arg_pair(vm, l)), V_NIL);
            if (head == V_NIL)
                head = next;
            else
                mem_store(&pair_of(last)->cdr, next);
            last = next;
        }
        if (head != V_NIL) {
            mem_store(&pair_of(last)->cdr, r);
            r = head;
        }
    }
    return r;
}
BUILTIN(reverse)
{
    if (list_length(a[0]) < 0)
        vm_bad(vm, "not a list", a[0]);
    return list_reverse(vm, a[0]);
}
BUILTIN(list_tail)
{
    value v = a[0];
    for (size_t i = arg_index(vm, a[1], 0, SIZE_MAX / 4, 0); i > 0; i--)
        v = cdr(arg_pair(vm, v));
    return v;
}
BUILTIN(list_ref) { return car(arg_pair(vm, b_list_tail(vm, n, a))); }

enum same { SAME_EQ, SAME_EQV, SAME_EQUAL };
static bool same(struct vm *vm, value x, value y, enum same how)
{
    return x == y || (how == SAME_EQV ? eqv(x, y) : how == SAME_EQUAL ? equal(vm, x, y) : false);
}
static value member(struct vm *vm, value x, value l, enum same how)
{
    for (; l != V_NIL; l = cdr(l))
        if (same(vm, x, car(arg_pair(vm, l)), how))
            return l;
    return V_FALSE;
}
static value assoc(struct vm *vm, value x, value l, enum same how)
{
    for (; l != V_NIL; l = cdr(l))
        if (same(vm, x, car(arg_pair(vm, car(arg_pair(vm, l)))), how))
            return car(l);
    return V_FALSE;
}
BUILTIN(memq) { return member(vm, a[0], a[1], SAME_EQ); }
BUILTIN(memv) { return member(vm, a[0], a[1], SAME_EQV); }
BUILTIN(member) { return member(vm, a[0], a[1], SAME_EQUAL); }
BUILTIN(assq) { return assoc(vm, a[0], a[1], SAME_EQ); }
BUILTIN(assv) { return assoc(vm, a[0], a[1], SAME_EQV); }
BUILTIN(assoc) { return assoc(vm, a[0], a[1], SAME_EQUAL); }

/* ---- symbols, characters ------------------------------------------------------------------------------------ */

BUILTIN(symbol_to_string)
{
    if (!is(a[0], T_SYMBOL))
        vm_bad(vm, "not a symbol", a[0]);
    struct string *s = (struct string *)((struct symbol *)a[0])->name;
    return make_string(vm, s->b, length_of((value)s)); /* a copy: strings can be changed */
}
BUILTIN(string_to_symbol) { return intern(vm, arg_string(vm, a[0])->b, length_of(a[0])); }

BUILTIN(char_to_integer) { return make_fix(arg_char(vm, a[0])); }
BUILTIN(integer_to_char) { return make_char((unsigned char)arg_index(vm, a[0], 0, 256, 0)); }
BUILTIN(char_upcase) { return make_char((unsigned char)toupper(arg_char(vm, a[0]))); }
BUILTIN(char_downcase) { return make_char((unsigned char)tolower(arg_char(vm, a[0]))); }
BUILTIN(is_alphabetic) { return make_bool(isalpha(arg_char(vm, a[0]))); }
BUILTIN(is_numeric) { return make_bool(isdigit(arg_char(vm, a[0]))); }
BUILTIN(is_whitespace) { return make_bool(isspace(arg_char(vm, a[0]))); }
BUILTIN(char_eq) { return make_bool(arg_char(vm, a[0]) == arg_char(vm, a[1])); }
BUILTIN(char_lt) { return make_bool(arg_char(vm, a[0]) < arg_char(vm, a[1])); }

/* ---- strings -------------------------------------------------------------------------------------------------- */

BUILTIN(make_string)
{
    size_t length = arg_index(vm, a[0], 0, PTRDIFF_MAX / 2, 0);
    struct string *s = (struct string *)make_string(vm, NULL, length);
    memset(s->b, a[1] == V_UNDEF ? ' ' : arg_char(vm, a[1]), length);
    return (value)s;
}
BUILTIN(string)
{
    struct string *s = (struct string *)make_string(vm, NULL, (size_t)n);
    for (int i = 0; i < n; i++)
        s->b[i] = (char)arg_char(vm, a[i]);
    return (value)s;
}
BUILTIN(string_length) { return make_fix((int64_t)length_of((value)arg_string(vm, a[0]))); }
BUILTIN(string_ref)
{
    struct string *s = arg_string(vm, a[0]);
    return make_char((unsigned char)s->b[arg_index(vm, a[1], 0, length_of(a[0]), 0)]);
}
BUILTIN(string_set)
{
    struct string *s = arg_string(vm, a[0]);
    s->b[arg_index(vm, a[1], 0, length_of(a[0]), 0)] = (char)arg_char(vm, a[2]);
    return V_VOID;
}
BUILTIN(substring)
{
    struct string *s = arg_string(vm, a[0]);
    size_t end = length_of(a[0]) + 1, from = arg_index(vm, a[1], 0, end, 0), to = arg_index(vm, a[2], from, end, end - 1);
    return make_string(vm, s->b + from, to - from);
}
BUILTIN(string_append)
{
    size_t length = 0;
    for (int i = 0; i < n; i++)
        length += length_of((value)arg_string(vm, a[i]));
    struct string *s = (struct string *)make_string(vm, NULL, length);
    char *to = s->b;
    for (int i = 0; i < n; to += length_of(a[i]), i++)
        memcpy(to, ((struct string *)a[i])->b, length_of(a[i]));
    return (value)s;
}
static int string_order(struct vm *vm, value *a)
{
    struct string *x = arg_string(vm, a[0]), *y = arg_string(vm, a[1]);
    size_t m = length_of(a[0]), n = length_of(a[1]);
    int r = memcmp(x->b, y->b, m < n ? m : n);
    return r ? r : (m > n) - (m < n);
}
BUILTIN(string_eq) { return make_bool(string_order(vm, a) == 0); }
BUILTIN(string_lt) { return make_bool(string_order(vm, a) < 0); }
BUILTIN(string_gt) { return make_bool(string_order(vm, a) > 0); }
BUILTIN(string_to_list)
{
    struct string *s = arg_string(vm, a[0]);
    value r = V_NIL;
    for (size_t i = length_of(a[0]); i-- > 0;)
        r = cons(vm, make_char((unsigned char)s->b[i]), r);
    return r;
}
BUILTIN(list_to_string)
{
    struct text t = { 0 };
    for (value l = a[0]; l != V_NIL; l = cdr(l))
        text_add(vm, &t, &(char){ (char)arg_char(vm, car(arg_pair(vm, l))) }, 1);
    return make_string(vm, t.b, t.n);
}

/* ---- vectors ---------------------------------------------------------------------------------------------------- */

BUILTIN(make_vector) { return make_vector(vm, arg_index(vm, a[0], 0, SIZE_MAX / 4, 0), a[1] == V_UNDEF ? make_fix(0) : a[1]); }
BUILTIN(vector)
{
    struct vector *v = new_vector(vm, (size_t)n);
    for (int i = 0; i < n; i++)
        mem_store(&v->at[i], a[i]);
    return (value)v;
}
BUILTIN(vector_length) { return make_fix((int64_t)length_of((value)arg_vector(vm, a[0]))); }
BUILTIN(vector_ref)
{
    struct vector *v = arg_vector(vm, a[0]);
    return v->at[arg_index(vm, a[1], 0, length_of(a[0]), 0)];
}
BUILTIN(vector_set)
{
    struct vector *v = arg_vector(vm, a[0]);
    mem_store(&v->at[arg_index(vm, a[1], 0, length_of(a[0]), 0)], a[2]);
    return V_VOID;
}
BUILTIN(vector_fill)
{
    struct vector *v = arg_vector(vm, a[0]);
    for (size_t i = 0; i < length_of(a[0]); i++)
        mem_store(&v->at[i], a[1]);
    return V_VOID;
}
BUILTIN(vector_to_list)
{
    struct vector *v = arg_vector(vm, a[0]);
    value r = V_NIL;
    for (size_t i = length_of(a[0]); i-- > 0;)
        r = cons(vm, v->at[i], r);
    return r;
}
BUILTIN(list_to_vector)
{
    int64_t length = list_length(a[0]);
    if (length < 0)
        vm_bad(vm, "not a list", a[0]);
    struct vector *v = (struct vector *)make_vector(vm, (size_t)length, V_NIL);
    value l = a[0];
    for (int64_t i = 0; i < length && is_pair(l); i++, l = cdr(l))
        mem_store(&v->at[i], car(l));
    return (value)v;
}

/* ---- tables ------------------------------------------------------------------------------------------------------- */

BUILTIN(make_table) { return make_table(vm, TABLE_EQUAL); }
BUILTIN(make_eq_table) { return make_table(vm, TABLE_EQ); }
BUILTIN(make_weak_table) { return make_table(vm, TABLE_WEAK); }
BUILTIN(table_ref)
{
    value v = table_get(vm, arg_table(vm, a[0]), a[1], a[2]);
    if (v == V_UNDEF)
        vm_bad(vm, "no such key", a[1]);
    return v;
}
BUILTIN(table_set) { table_set(vm, arg_table(vm, a[0]), a[1], a[2]); return V_VOID; }
BUILTIN(table_delete) { table_delete(vm, arg_table(vm, a[0]), a[1]); return V_VOID; }
BUILTIN(table_contains) { return make_bool(table_get(vm, arg_table(vm, a[0]), a[1], V_UNDEF) != V_UNDEF); }
BUILTIN(table_count) { return make_fix((int64_t)table_count(arg_table(vm, a[0]))); }
BUILTIN(table_to_list) { return table_to_list(vm, arg_table(vm, a[0])); }

/* ---- records: what define-record-type expands to ------------------------------------------------------------------ */

BUILTIN(record)
{
    struct vector *r = (struct vector *)b_vector(vm, n, a);
    r->head = make_head(T_RECORD, (size_t)n);
    return (value)r;
}
BUILTIN(is_record) { return make_bool(is(a[0], T_RECORD) && ((struct vector *)a[0])->at[0] == a[1]); }
static struct vector *arg_record(struct vm *vm, value *a)
{
    if (!is(a[0], T_RECORD) || ((struct vector *)a[0])->at[0] != a[1])
        vm_wrong(vm, "not a record of this type", ((struct string *)((struct symbol *)arg_vector(vm, a[1])->at[0])->name)->b, a[0]);
    return (struct vector *)a[0];
}
BUILTIN(record_ref) { return arg_record(vm, a)->at[fix(a[2])]; }
BUILTIN(record_set) { mem_store(&arg_record(vm, a)->at[fix(a[2])], a[3]); return V_VOID; }

/* ---- control ---------------------------------------------------------------------------------------------------------- */

BUILTIN(raise) { vm_raise(vm, a[0]); }
BUILTIN(error)
{
    struct text t = { 0 };
    print(vm, &t, a[0], false);
    vm_raise(vm, make_error(vm, make_string(vm, t.b, t.n), b_list(vm, n - 1, a + 1), vm_where(vm)));
}
BUILTIN(is_error) { return make_bool(is(a[0], T_ERROR)); }
BUILTIN(error_message) { return is(a[0], T_ERROR) ? ((struct error *)a[0])->message : V_FALSE; }
BUILTIN(error_irritants) { return is(a[0], T_ERROR) ? ((struct error *)a[0])->irritants : V_NIL; }
/* Fibers go on running and are cut off. */
BUILTIN(exit)
{
    port_flush(vm, (struct port *)vm->world->out);
    _exit(a[0] == V_UNDEF || a[0] == V_TRUE ? 0 : is_fix(a[0]) ? (int)fix(a[0]) & 0xff : 1);
}
BUILTIN(gc) { mem_collect(); return V_VOID; }
BUILTIN(run_finalizers) { mem_run_finalizers(1); return V_VOID; }
BUILTIN(runtime) /* seconds */
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return make_flonum(vm, (double)t.tv_sec + (double)t.tv_nsec / 1e9);
}

const struct builtin_def builtins_control[] = {
    { "apply", NULL, 2, -1, CONTROL_APPLY },               { "call/cc", NULL, 1, 1, CONTROL_CALL_CC },
    { "call-with-current-continuation", NULL, 1, 1, CONTROL_CALL_CC }, { "%try", NULL, 2, 2, CONTROL_TRY },
    { "eval", NULL, 1, 1, CONTROL_EVAL },                  { "raise", b_raise, 1, 1, 0 },
    { "error", b_error, 1, -1, 0 },                        { "error-object?", b_is_error, 1, 1, 0 },
    { "error-object-message", b_error_message, 1, 1, 0 },  { "error-object-irritants", b_error_irritants, 1, 1, 0 },
    { "exit", b_exit, 0, 1, 0 },                           { "gc", b_gc, 0, 0, 0 },
    { "run-finalizers", b_run_finalizers, 0, 0, 0 },       { "runtime", b_runtime, 0, 0, 0 },
    { NULL, NULL, 0, 0, 0 },
};

const struct builtin_def builtins_data[] = {
    { "eq?", b_eq, 2, 2, OP_EQ },                { "eqv?", b_eqv, 2, 2, 0 },                  { "equal?", b_equal, 2, 2, 0 },
    { "not", b_not, 1, 1, OP_NOT },              { "boolean?", b_is_boolean, 1, 1, 0 },       { "null?", b_is_null, 1, 1, OP_NULLP },
    { "pair?", b_is_pair, 1, 1, OP_PAIRP },      { "list?", b_is_list, 1, 1, 0 },             { "symbol?", b_is_symbol, 1, 1, 0 },
    { "string?", b_is_string, 1, 1, 0 },         { "char?", b_is_char, 1, 1, 0 },             { "vector?", b_is_vector, 1, 1, 0 },
    { "hash-table?", b_is_table, 1, 1, 0 },      { "procedure?", b_is_procedure, 1, 1, 0 },   { "cons", b_cons, 2, 2, OP_CONS },
    { "set-car!", b_set_car, 2, 2, 0 },          { "set-cdr!", b_set_cdr, 2, 2, 0 },          { "car", b_cxr, 1, 1, OP_CAR },
    { "cdr", b_cxr, 1, 1, OP_CDR },              { "cadr", b_cxr, 1, 1, OP_CADR },            { "caar", b_cxr, 1, 1, 0 },
    { "cdar", b_cxr, 1, 1, 0 },                  { "cddr", b_cxr, 1, 1, 0 },                  { "caddr", b_cxr, 1, 1, 0 },
    { "cdddr", b_cxr, 1, 1, 0 },                 { "cadddr", b_cxr, 1, 1, 0 },                { "list", b_list, 0, -1, 0 },
    { "length", b_length, 1, 1, 0 },             { "append", b_append, 0, -1, 0 },            { "reverse", b_reverse, 1, 1, 0 },
    { "list-tail", b_list_tail, 2, 2, 0 },       { "list-ref", b_list_ref, 2, 2, 0 },         { "memq", b_memq, 2, 2, 0 },
    { "memv", b_memv, 2, 2, 0 },                 { "member", b_member, 2, 2, 0 },             { "assq", b_assq, 2, 2, 0 },
    { "assv", b_assv, 2, 2, 0 },                 { "assoc", b_assoc, 2, 2, 0 },
    { "symbol->string", b_symbol_to_string, 1, 1, 0 },       { "string->symbol", b_string_to_symbol, 1, 1, 0 },
    { "char->integer", b_char_to_integer, 1, 1, 0 },         { "integer->char", b_integer_to_char, 1, 1, 0 },
    { "char-upcase", b_char_upcase, 1, 1, 0 },               { "char-downcase", b_char_downcase, 1, 1, 0 },
    { "char-alphabetic?", b_is_alphabetic, 1, 1, 0 },        { "char-numeric?", b_is_numeric, 1, 1, 0 },
    { "char-whitespace?", b_is_whitespace, 1, 1, 0 },        { "char=?", b_char_eq, 2, 2, 0 },
    { "char<?", b_char_lt, 2, 2, 0 },
    { "make-string", b_make_string, 1, 2, 0 },               { "string", b_string, 0, -1, 0 },
    { "string-length", b_string_length, 1, 1, 0 },           { "string-ref", b_string_ref, 2, 2, 0 },
    { "string-set!", b_string_set, 3, 3, 0 },                { "substring", b_substring, 2, 3, 0 },
    { "string-append", b_string_append, 0, -1, 0 },          { "string=?", b_string_eq, 2, 2, 0 },
    { "string<?", b_string_lt, 2, 2, 0 },                    { "string>?", b_string_gt, 2, 2, 0 },
    { "string->list", b_string_to_list, 1, 1, 0 },           { "list->string", b_list_to_string, 1, 1, 0 },
    { "make-vector", b_make_vector, 1, 2, 0 },               { "vector", b_vector, 0, -1, 0 },
    { "vector-length", b_vector_length, 1, 1, 0 },           { "vector-ref", b_vector_ref, 2, 2, OP_VECTOR_REF },
    { "vector-set!", b_vector_set, 3, 3, OP_VECTOR_SET },    { "vector-fill!", b_vector_fill, 2, 2, 0 },
    { "vector->list", b_vector_to_list, 1, 1, 0 },           { "list->vector", b_list_to_vector, 1, 1, 0 },
    { "make-hash-table", b_make_table, 0, 0, 0 },            { "make-eq-hash-table", b_make_eq_table, 0, 0, 0 },
    { "make-weak-hash-table", b_make_weak_table, 0, 0, 0 },  { "hash-table-ref", b_table_ref, 2, 3, 0 },
    { "hash-table-set!", b_table_set, 3, 3, 0 },             { "hash-table-delete!", b_table_delete, 2, 2, 0 },
    { "hash-table-contains?", b_table_contains, 2, 2, 0 },   { "hash-table-count", b_table_count, 1, 1, 0 },
    { "hash-table->alist", b_table_to_list, 1, 1, 0 },       { "%record", b_record, 1, -1, 0 },
    { "%record?", b_is_record, 2, 2, 0 },                    { "%record-ref", b_record_ref, 3, 3, 0 },
    { "%record-set!", b_record_set, 4, 4, 0 },
    { NULL, NULL, 0, 0, 0 },
};

const char prelude[] =
    "(define (map f l . more)"
    "  (define (map1 f l) (if (pair? l) (let ((x (f (car l)))) (cons x (map1 f (cdr l)))) '()))"
    "  (define (all-pairs? ls) (or (null? ls) (and (pair? (car ls)) (all-pairs? (cdr ls)))))"
    "  (if (null? more) (map1 f l)"
    "    (let loop ((ls (cons l more)))"
    "      (if (all-pairs? ls) (let ((x (apply f (map1 car ls)))) (cons x (loop (map1 cdr ls)))) '()))))"
    "(define (for-each f l . more)"
    "  (if (null? more)"
    "    (let loop ((l l)) (when (pair? l) (f (car l)) (loop (cdr l))))"
    "    (let loop ((l l) (m (car more))) (when (and (pair? l) (pair? m)) (f (car l) (car m)) (loop (cdr l) (cdr m))))))"
    "(define (filter p l) (let loop ((l l)) (cond ((null? l) '()) ((p (car l)) (cons (car l) (loop (cdr l)))) (else (loop (cdr l))))))"
    "(define (reduce f start l) (let loop ((r start) (l l)) (if (null? l) r (loop (f r (car l)) (cdr l)))))"
    "(define (iota n) (do ((i (- n 1) (- i 1)) (l '() (cons i l))) ((< i 0) l)))"
    "(define (vector-map f v) (let* ((n (vector-length v)) (r (make-vector n)))"
    "  (do ((i 0 (+ i 1))) ((= i n) r) (vector-set! r i (f (vector-ref v i))))))"
    "(define (vector-for-each f v) (do ((i 0 (+ i 1))) ((= i (vector-length v))) (f (vector-ref v i))))"
    "(define (sort l less?)"
    "  (define (merge a b) (let loop ((a a) (b b) (r '()))"
    "    (cond ((null? a) (%onto r b)) ((null? b) (%onto r a))"
    "          ((less? (car b) (car a)) (loop a (cdr b) (cons (car b) r))) (else (loop (cdr a) b (cons (car a) r))))))"
    "  (define (step l n) (if (= n 1) (list (car l))"
    "    (let ((half (quotient n 2))) (merge (step l half) (step (list-tail l half) (- n half))))))"
    "  (if (null? l) '() (step l (length l))))"
    "(define (%onto r l) (if (null? r) l (%onto (cdr r) (cons (car r) l))))"
    "(define (hash-table-keys t) (map car (hash-table->alist t)))"
    "(define (hash-table-values t) (map cdr (hash-table->alist t)))"
    "(define (hash-table-walk t f) (for-each (lambda (p) (f (car p) (cdr p))) (hash-table->alist t)))"
    "(define (hash-table-update! t k f default) (hash-table-set! t k (f (hash-table-ref t k default))))"
    "(define (call-with-output-string f) (let ((p (open-output-string))) (f p) (get-output-string p)))"
    "(define (%with-port p f) (let ((r (f p))) (close-port p) r))"
    "(define (call-with-input-file name f) (%with-port (open-input-file name) f))"
    "(define (call-with-output-file name f) (%with-port (open-output-file name) f))";
