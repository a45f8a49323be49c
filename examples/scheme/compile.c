/* compile.c - forms -> code, in one pass.
 *
 * A form is compiled so that its value ends up in the accumulator; in tail position code that returns or calls follows at once. The depth of
 * the stack is known at every instruction, so a local is a number of its slot, let is a push, and do is a jump.
 *
 * Closures catch values, not variables: what a closure needs is copied into it when it is made. That is right as long as the variable does not
 * change afterwards, so
 *
 *   - a variable that somebody sets lives in a box, and the box is copied. Whether somebody does is looked up in the text: sets();
 *   - a procedure that calls itself finds itself in the machine's register (SELF), and needs to catch nothing;
 *   - procedures defined in a row, which call each other, are made one by one; when the later ones exist they are put into the earlier ones (PATCH);
 *   - any other variable that a definition before it mentions is boxed, and its use is checked.
 *
 * Builtins are compiled to instructions or direct calls if their name is not bound here and has not been redefined so far. Then it cannot be
 * redefined any more: to do so is an error, not a silent change of half the program (symbol.used).
 *
 * To add a form: a name in FORMS, a case in compile_form; if others express it, a function that returns them. Forms are not hygienic: what
 * they expand to uses names like cons and if as the program sees them. */
#include "vm.h"

#include <string.h>

#define FORMS(X)                                                                                                             \
    X(QUOTE, "quote") X(IF, "if") X(DEFINE, "define") X(SET, "set!") X(LAMBDA, "lambda") X(LET, "let") X(LET_STAR, "let*")  \
    X(LETREC, "letrec") X(LETREC_STAR, "letrec*") X(BEGIN, "begin") X(AND, "and") X(OR, "or") X(WHEN, "when")               \
    X(UNLESS, "unless") X(COND, "cond") X(CASE, "case") X(DO, "do") X(QUASIQUOTE, "quasiquote") X(GUARD, "guard")           \
    X(DEFINE_RECORD, "define-record-type") X(ELSE, "else") X(ARROW, "=>") X(UNQUOTE, "unquote") X(SPLICE, "unquote-splicing")
#define FORM_ENUM(id, name) F_##id,
#define FORM_NAME(id, name) name,
enum form { F_NONE, FORMS(FORM_ENUM) };
static const char *const form_names[] = { "", FORMS(FORM_NAME) };

struct var {
    struct var *next;
    value name;
    int slot;
    bool boxed, made;   /* made: the slot has its value (or box), so that it can be caught */
};
/* A closure that was made before a procedure it needs. */
struct patch { struct patch *next; struct var *closure, *needs; int index; };

struct func {
    struct vm *vm;
    struct func *outer;
    struct var *vars, *self; /* innermost first; the variable of outer that this closure will be the value of, for good */
    struct var **caught;
    int32_t *where;          /* of each that is caught, in outer: enum where, and an index above two bits */
    struct patch *patches;
    int32_t *code, *lines;
    value *consts;
    value name;
    int ncaught, ncode, nconsts, ncaught_room, ncode_room, nconsts_room;
    int depth, need, line;
};

static void compile_expr(struct func *f, value x, bool tail);
static void compile_body(struct func *f, value body, bool tail);

/* ---- small helpers ----------------------------------------------------------------------------------- */

static value form_line(struct func *f, value x)
{
    return is(f->vm->lines, T_TABLE) ? table_get(f->vm, (struct table *)f->vm->lines, x, V_FALSE) : V_FALSE;
}

static _Noreturn void bad(struct func *f, const char *message, value form)
{
    value line = is_pair(form) ? form_line(f, form) : V_FALSE;
    vm_error_at(f->vm, cons(f->vm, f->vm->file, is_fix(line) ? line : make_fix(f->line)), message, form);
}

static bool is_symbol(value v) { return is(v, T_SYMBOL); }

/* The nth element of a form, an error if there is none. */
static value nth(struct func *f, value form, int n)
{
    value v = form;
    while (n-- > 0 && is_pair(v))
        v = cdr(v);
    if (!is_pair(v))
        bad(f, "bad syntax:", form);
    return car(v);
}

static value rest(struct func *f, value form, int n)
{
    value v = form;
    for (; n > 0; n--) {
        if (!is_pair(v))
            bad(f, "bad syntax:", form);
        v = cdr(v);
    }
    if (list_length(v) < 0)
        bad(f, "bad syntax:", form);
    return v;
}

static value sym(struct func *f, const char *name) { return symbol(f->vm, name); }

static void *grown(struct func *f, void *old, int n, int *room, size_t size, bool values)
{
    if (n < *room)
        return old;
    int more = *room ? 2 * *room : 16;
    void *fresh = values ? mem_words((size_t)more * size) : mem_bytes((size_t)more * size);
    check_memory(f->vm, fresh);
    if (n)
        memcpy(fresh, old, (size_t)n * size);
    *room = more;
    return fresh;
}

/* ---- emitting ---------------------------------------------------------------------------------------- */

static int emit(struct func *f, int32_t word)
{
    int room = f->ncode_room;
    f->code = grown(f, f->code, f->ncode, &room, sizeof *f->code, false);
    f->lines = grown(f, f->lines, f->ncode, &f->ncode_room, sizeof *f->lines, false);
    f->lines[f->ncode] = f->line;
    f->code[f->ncode] = word;
    return f->ncode++;
}
static void emit1(struct func *f, enum op op, int a) { emit(f, op), emit(f, a); }
static void emit2(struct func *f, enum op op, int a, int b) { emit(f, op), emit(f, a), emit(f, b); }

static int constant(struct func *f, value v)
{
    for (int i = f->nconsts; i-- > 0 && i > f->nconsts - 64;)
        if (f->consts[i] == v)
            return i;
    f->consts = grown(f, f->consts, f->nconsts, &f->nconsts_room, sizeof v, true);
    f->consts[f->nconsts] = v;
    return f->nconsts++;
}

static void adjust(struct func *f, int slots)
{
    f->depth += slots;
    if (f->depth > f->need)
        f->need = f->depth;
}

static int emit_jump(struct func *f, enum op op) { emit(f, op); return emit(f, 0); }
static void jump_here(struct func *f, int at) { f->code[at] = f->ncode - at; }

/* Jumps to one place, which is not known yet: a list through their operands. */
static void emit_jump_to(struct func *f, enum op op, int *list)
{
    int at = emit_jump(f, op);
    f->code[at] = *list;
    *list = at;
}
static void jumps_here(struct func *f, int list)
{
    for (int next; list; list = next) {
        next = f->code[list];
        jump_here(f, list);
    }
}

static void finish(struct func *f, bool tail)
{
    if (tail)
        emit(f, OP_RETURN);
}

static void emit_push(struct func *f)
{
    emit(f, OP_PUSH);
    adjust(f, 1);
}

static void emit_pop(struct func *f, int n, bool tail)
{
    if (n && !tail)
        emit1(f, OP_POP, n);
    f->depth -= n;
}

static void emit_const(struct func *f, value v, bool tail)
{
    emit1(f, OP_CONST, constant(f, v));
    finish(f, tail);
}

/* ---- variables --------------------------------------------------------------------------------------- */

static struct var *bind_name(struct func *f, value name, int slot, bool boxed)
{
    struct var *v = (struct var *)check_memory(f->vm, mem_words(sizeof *v));
    *v = (struct var){ f->vars, name, slot, boxed, true };
    return f->vars = v;
}

static int catch_var(struct func *f, struct var *v, int where)
{
    for (int i = 0; i < f->ncaught; i++)
        if (f->caught[i] == v)
            return i;
    int room = f->ncaught_room;
    f->caught = grown(f, f->caught, f->ncaught, &room, sizeof *f->caught, true);
    f->where = grown(f, f->where, f->ncaught, &f->ncaught_room, sizeof *f->where, false);
    f->caught[f->ncaught] = v;
    f->where[f->ncaught] = where;
    return f->ncaught++;
}

/* enum where, and an index above two bits; *out: the variable. Functions between it and f catch it. */
static int resolve(struct func *f, value name, struct var **out)
{
    for (struct var *v = f->vars; v; v = v->next)
        if (v->name == name) {
            *out = v;
            return v->slot << 2 | IN_LOCAL;
        }
    int where = f->outer ? resolve(f->outer, name, out) : IN_GLOBAL;
    if (where == IN_GLOBAL)
        return IN_GLOBAL;
    return *out == f->self ? IN_SELF : catch_var(f, *out, where) << 2 | IN_FREE;
}

static bool mentions(struct vm *vm, value x, value name)
{
    vm_check_depth(vm);
    for (; is_pair(x); x = cdr(x))
        if (mentions(vm, car(x), name))
            return true;
    return x == name;
}

/* Does the text have (set! name ...)? Also where it means something else, which costs a box. */
static bool sets(struct vm *vm, value x, value name)
{
    vm_check_depth(vm);
    for (; is_pair(x); x = cdr(x)) {
        value head = car(x);
        if (is_symbol(head) && ((struct symbol *)head)->form == F_SET && is_pair(cdr(x)) && car(cdr(x)) == name)
            return true;
        if (is_pair(head) && sets(vm, head, name))
            return true;
    }
    return false;
}

static void emit_variable(struct func *f, value name)
{
    static const enum op ops[] = { OP_LOCAL, OP_FREE };
    struct var *v;
    int where = resolve(f, name, &v);
    if (where == IN_GLOBAL) {
        emit1(f, OP_GLOBAL, constant(f, name));
        return;
    }
    if (where == IN_SELF)
        emit(f, OP_SELF);
    else
        emit1(f, ops[where & 3], where >> 2);
    if (v->boxed)
        emit1(f, OP_UNBOX, constant(f, name));
}

/* A form's number, if name is not a variable here. */
static enum form form_of(struct func *f, value name)
{
    struct var *v;
    if (!is_symbol(name) || ((struct symbol *)name)->form == F_NONE || resolve(f, name, &v) != IN_GLOBAL)
        return F_NONE;
    return ((struct symbol *)name)->form;
}

static bool is_form(struct func *f, value x, enum form form) { return is_pair(x) && form_of(f, car(x)) == form; }

/* Slot of a local that can be read as it is; -1: x is none. */
static int plain_local(struct func *f, value x)
{
    for (struct var *v = is_symbol(x) ? f->vars : NULL; v; v = v->next)
        if (v->name == x)
            return v->boxed ? -1 : v->slot;
    return -1;
}

static bool is_constant(struct func *f, value x, value *v)
{
    *v = is_form(f, x, F_QUOTE) ? nth(f, x, 1) : x;
    return *v != x || (!is_pair(x) && !is_symbol(x) && x != V_NIL);
}

static void compile_push(struct func *f, value x)
{
    value v;
    int slot = plain_local(f, x);
    if (slot >= 0) {
        emit1(f, OP_PUSH_LOCAL, slot);
        adjust(f, 1);
    } else if (is_constant(f, x, &v)) {
        emit1(f, OP_PUSH_CONST, constant(f, v));
        adjust(f, 1);
    } else {
        compile_expr(f, x, false);
        emit_push(f);
    }
}

/* ---- calls ------------------------------------------------------------------------------------------- */

/* What x is the name of, if it is a builtin here and will remain one. */
static const struct builtin_def *builtin_of(struct func *f, value x)
{
    struct var *v;
    if (!is_symbol(x) || !is(((struct symbol *)x)->v, T_BUILTIN) || resolve(f, x, &v) != IN_GLOBAL)
        return NULL;
    return ((struct builtin *)((struct symbol *)x)->v)->def;
}

/* (op x y) with an instruction of three forms. */
static void compile_binary(struct func *f, enum op op, value x, value y)
{
    value v;
    int slot = plain_local(f, y);
    bool is_const = is_constant(f, y, &v);
    if (is_const && (v & 7) != 0 && (v & 7) != 2 && (int64_t)v == (int32_t)v) {
        compile_expr(f, x, false);
        emit1(f, op + 2, (int32_t)v);
    } else if (is_const && op == OP_EQ) {
        compile_expr(f, x, false);
        emit1(f, OP_EQ_K, constant(f, v));
    } else if (slot >= 0) {
        compile_expr(f, x, false);
        emit1(f, op + 1, slot);
    } else {
        compile_push(f, x);
        compile_expr(f, y, false);
        emit(f, op);
        f->depth--;
    }
}

static bool compile_builtin(struct func *f, value x, int n, bool tail)
{
    const struct builtin_def *def = builtin_of(f, car(x));
    if (!def || !def->fn || n < def->min || (n > def->max && def->max >= 0))
        return false;
    struct symbol *name = (struct symbol *)car(x);
    name->used = true;
    if (def->op && n == op_arguments(def->op)) {
        if (n == 2) {
            compile_binary(f, def->op, nth(f, x, 1), nth(f, x, 2));
        } else {
            for (int i = 1; i < n; i++)
                compile_push(f, nth(f, x, i));
            compile_expr(f, nth(f, x, n), false);
            emit(f, def->op);
            f->depth -= n - 1;
        }
    } else {
        for (value l = cdr(x); is_pair(l); l = cdr(l))
            compile_push(f, car(l));
        for (; n < def->max; n++)
            compile_push(f, V_UNDEF);
        emit2(f, OP_PRIM, constant(f, name->v), n);
        f->depth -= n;
    }
    finish(f, tail);
    return true;
}

static void compile_call(struct func *f, value x, bool tail)
{
    struct var *v;
    int64_t n = list_length(cdr(x));
    if (n < 0 || n > INT16_MAX)
        bad(f, "bad call:", x);
    if (compile_builtin(f, x, (int)n, tail))
        return;
    int back = 0, depth = f->depth;
    if (!tail) {
        back = emit_jump(f, OP_FRAME);
        adjust(f, 3);
    }
    for (value l = cdr(x); is_pair(l); l = cdr(l))
        compile_push(f, car(l));
    if (is_symbol(car(x)) && resolve(f, car(x), &v) == IN_GLOBAL) {
        emit2(f, tail ? OP_TAIL_CALL_GLOBAL : OP_CALL_GLOBAL, constant(f, car(x)), (int)n);
    } else {
        compile_expr(f, car(x), false);
        emit1(f, tail ? OP_TAIL_CALL : OP_CALL, (int)n);
    }
    if (!tail)
        jump_here(f, back);
    f->depth = depth;
}

/* ---- lambda ------------------------------------------------------------------------------------------ */

/* The code of f, whose parameters are given. */
static value make_proto(struct func *f, int params, bool has_rest)
{
    struct proto *p = (struct proto *)check_memory(f->vm, mem_new(types.proto));
    *p = (struct proto){ make_head(T_PROTO, 0), f->code, f->lines, f->consts, f->name, f->vm->file, params, f->need, has_rest ? -1 : params,
                         f->ncode, has_rest };
    return (value)p;
}

static value make_closure(struct func *f, value proto)
{
    struct closure *c = (struct closure *)check_memory(f->vm, mem_slots(sizeof *c));
    c->head = make_head(T_CLOSURE, 0);
    mem_store(&c->proto, (struct proto *)proto);
    return (value)c;
}

/* holder: the local variable that this is the definition of, or NULL. */
static void compile_lambda(struct func *f, value params, value body, value name, struct var *holder, bool tail)
{
    vm_check_depth(f->vm);
    struct func *g = (struct func *)check_memory(f->vm, mem_words(sizeof *g));
    *g = (struct func){ .vm = f->vm, .outer = f, .self = holder && !holder->boxed ? holder : NULL, .name = name, .line = f->line };
    int n = 0;
    for (value l = params; l != V_NIL; n++) {
        value p = is_pair(l) ? car(l) : l;
        if (!is_symbol(p))
            bad(f, "bad parameters:", params);
        struct var *v = bind_name(g, p, n, sets(f->vm, body, p));
        if (v->boxed)
            emit1(g, OP_BOX, n);
        l = is_pair(l) ? cdr(l) : V_NIL;
    }
    g->depth = g->need = n;
    if (list_length(body) < 1)
        bad(f, "a procedure without a body:", name);
    compile_body(g, body, true);
    value proto = make_proto(g, n, list_length(params) < 0);
    if (g->ncaught == 0) {
        emit_const(f, make_closure(f, proto), tail);
        return;
    }
    emit2(f, OP_CLOSURE, constant(f, proto), g->ncaught);
    for (int i = 0; i < g->ncaught; i++) {
        emit(f, g->where[i]);
        if ((g->where[i] & 3) == IN_LOCAL && !g->caught[i]->made) {
            struct patch *p = (struct patch *)check_memory(f->vm, mem_words(sizeof *p));
            *p = (struct patch){ f->patches, holder, g->caught[i], i };
            f->patches = p;
        }
    }
    finish(f, tail);
}

/* ---- bodies and definitions -------------------------------------------------------------------------- */

/* (define (name . params) body...) and the curried form -> name, and the expression in *init. */
static value definition(struct func *f, value x, value *init)
{
    value target = nth(f, x, 1), body = rest(f, x, 2);
    if (!is_pair(target)) {
        if (!is_symbol(target) || list_length(body) > 1)
            bad(f, "bad definition:", x);
        *init = body == V_NIL ? V_VOID : car(body);
        return target;
    }
    value lambda = cons(f->vm, sym(f, "lambda"), cons(f->vm, cdr(target), body));
    return definition(f, list(f->vm, 3, sym(f, "define"), car(target), lambda), init);
}

static value expand_record(struct func *f, value x);

/* The forms of a body, those of begin spliced in, reversed before what is done already. */
static value flatten(struct func *f, value body, value done)
{
    for (; is_pair(body); body = cdr(body)) {
        value x = car(body);
        if (is_form(f, x, F_DEFINE_RECORD))
            x = expand_record(f, x);
        done = is_form(f, x, F_BEGIN) ? flatten(f, rest(f, x, 1), done) : cons(f->vm, x, done);
    }
    return done;
}

static void compile_sequence(struct func *f, value body, bool tail)
{
    if (body == V_NIL)
        emit_const(f, V_VOID, tail);
    for (; is_pair(body); body = cdr(body))
        compile_expr(f, car(body), tail && cdr(body) == V_NIL);
}

/* May the variable of the definition body[at] be caught as it is? Not if somebody sets it, or if what comes before its value can see it; but
 * procedures in a row up to it are patched. */
static bool must_box(struct func *f, value forms, value at, value name)
{
    if (sets(f->vm, forms, name))
        return true;
    for (bool row = false;; forms = cdr(forms)) {
        value init = V_VOID, x = car(forms);
        bool lambda = is_form(f, x, F_DEFINE) && (definition(f, x, &init), is_form(f, init, F_LAMBDA));
        if (!row && lambda) { /* do only procedures follow, up to at? */
            row = true;
            for (value l = forms; row; l = cdr(l)) {
                row = is_form(f, car(l), F_DEFINE) && (definition(f, car(l), &init), is_form(f, init, F_LAMBDA));
                if (l == at)
                    break;
            }
        }
        if (row)
            return false;
        if (mentions(f->vm, x == car(at) ? init : x, name))
            return true;
        if (forms == at)
            return false;
    }
}

static void compile_define(struct func *f, struct var *v, value init)
{
    if (is_form(f, init, F_LAMBDA))
        compile_lambda(f, nth(f, init, 1), rest(f, init, 2), v->name, v, false);
    else
        compile_expr(f, init, false);
    emit1(f, v->boxed ? OP_SET_BOX : OP_SET_LOCAL, v->slot);
    v->made = true;
    for (struct patch **at = &f->patches; *at;) {
        struct patch *p = *at;
        if (p->needs != v) {
            at = &p->next;
            continue;
        }
        emit1(f, OP_LOCAL, p->closure->slot);
        if (p->closure->boxed)
            emit1(f, OP_UNBOX, constant(f, p->closure->name));
        emit2(f, OP_PATCH, p->index, v->slot);
        *at = p->next;
    }
}

static void compile_body(struct func *f, value body, bool tail)
{
    value forms = list_reverse(f->vm, flatten(f, body, V_NIL)), init;
    struct var *outside = f->vars;
    int defined = 0;
    for (value l = forms; is_pair(l); l = cdr(l))
        if (is_form(f, car(l), F_DEFINE)) {
            value name = definition(f, car(l), &init);
            struct var *v = bind_name(f, name, f->depth, must_box(f, forms, l, name));
            if (v->boxed)
                emit(f, OP_PUSH_BOX);
            else
                emit1(f, OP_PUSH_CONST, constant(f, V_UNDEF));
            v->made = v->boxed;
            adjust(f, 1);
            defined++;
        }
    if (!defined) {
        compile_sequence(f, forms, tail);
        return;
    }
    for (value l = forms; is_pair(l); l = cdr(l)) {
        bool last = cdr(l) == V_NIL;
        value line = form_line(f, car(l));
        if (is_fix(line))
            f->line = (int)fix(line);
        if (!is_form(f, car(l), F_DEFINE)) {
            compile_expr(f, car(l), tail && last);
            continue;
        }
        value name = definition(f, car(l), &init);
        struct var *v = f->vars;
        while (v->name != name)
            v = v->next;
        compile_define(f, v, init);
        if (last)
            emit_const(f, V_VOID, tail);
    }
    f->vars = outside;
    emit_pop(f, defined, tail);
}

/* ---- forms that expand to others ----------------------------------------------------------------------- */

#define LIST(...) list(f->vm, COUNT(__VA_ARGS__), __VA_ARGS__)
#define COUNT(...) (int)(sizeof((value[]){ __VA_ARGS__ }) / sizeof(value))
#define CONS(a, b) cons(f->vm, a, b)
#define SYM(name) sym(f, name)

static value expand_let_star(struct func *f, value x)
{
    value bindings = nth(f, x, 1), body = rest(f, x, 2);
    if (bindings == V_NIL || (is_pair(bindings) && cdr(bindings) == V_NIL))
        return CONS(SYM("let"), CONS(bindings, body));
    if (!is_pair(bindings))
        bad(f, "bad bindings:", x);
    return LIST(SYM("let"), LIST(car(bindings)), CONS(SYM("let*"), CONS(cdr(bindings), body)));
}

static value expand_letrec(struct func *f, value x)
{
    value forms = LIST(CONS(SYM("let"), CONS(V_NIL, rest(f, x, 2))));
    for (value l = list_reverse(f->vm, nth(f, x, 1)); is_pair(l); l = cdr(l))
        forms = CONS(CONS(SYM("define"), car(l)), forms);
    return CONS(SYM("let"), CONS(V_NIL, forms));
}

/* (let name ((v init) ...) body...) -> ((let () (define name (lambda (v ...) body...)) name) init ...) */
static value expand_named_let(struct func *f, value x)
{
    value names = V_NIL, inits = V_NIL, name = nth(f, x, 1);
    for (value l = list_reverse(f->vm, nth(f, x, 2)); is_pair(l); l = cdr(l)) {
        names = CONS(nth(f, car(l), 0), names);
        inits = CONS(nth(f, car(l), 1), inits);
    }
    value loop = LIST(SYM("define"), name, CONS(SYM("lambda"), CONS(names, rest(f, x, 3))));
    return CONS(LIST(SYM("let"), V_NIL, loop, name), inits);
}

static value expand_quasi(struct func *f, value x, int level)
{
    vm_check_depth(f->vm);
    if (is(x, T_VECTOR)) {
        value l = V_NIL;
        for (size_t i = length_of(x); i-- > 0;)
            l = CONS(((struct vector *)x)->at[i], l);
        return LIST(SYM("list->vector"), expand_quasi(f, l, level));
    }
    if (!is_pair(x))
        return LIST(SYM("quote"), x);
    enum form form = form_of(f, car(x));
    if (form == F_UNQUOTE || form == F_QUASIQUOTE) {
        int inner = form == F_UNQUOTE ? level - 1 : level + 1;
        if (inner == 0)
            return nth(f, x, 1);
        return LIST(SYM("list"), LIST(SYM("quote"), car(x)), expand_quasi(f, nth(f, x, 1), inner));
    }
    if (level == 1 && is_form(f, car(x), F_SPLICE))
        return LIST(SYM("append"), nth(f, car(x), 1), expand_quasi(f, cdr(x), level));
    return LIST(SYM("cons"), expand_quasi(f, car(x), level), expand_quasi(f, cdr(x), level));
}

/* (guard (e clause...) body...) -> (%try (lambda () body...) (lambda (e) (cond clause... (else (raise e))))) */
static value expand_guard(struct func *f, value x)
{
    value name = nth(f, nth(f, x, 1), 0), clauses = LIST(LIST(SYM("else"), LIST(SYM("raise"), name)));
    for (value l = list_reverse(f->vm, rest(f, nth(f, x, 1), 1)); is_pair(l); l = cdr(l))
        clauses = is_form(f, car(l), F_ELSE) ? LIST(car(l)) : CONS(car(l), clauses);
    return LIST(SYM("%try"), CONS(SYM("lambda"), CONS(V_NIL, rest(f, x, 2))), LIST(SYM("lambda"), LIST(name), CONS(SYM("cond"), clauses)));
}

/* (define-record-type name (make field...) pred (field get [set])...) -> definitions over %record and its like. */
static value expand_record(struct func *f, value x)
{
    value name = nth(f, x, 1), make = nth(f, x, 2), fields = rest(f, x, 4), values = V_NIL;
    value type = is_pair(name) ? car(name) : name, quoted = LIST(SYM("quote"), type);
    value done = LIST(LIST(SYM("define"), type, LIST(SYM("vector"), quoted, make_fix(list_length(fields)))));
    int64_t i = list_length(fields);
    for (value l = list_reverse(f->vm, fields); is_pair(l); l = cdr(l), i--) {
        value field = nth(f, car(l), 0), given = is_pair(make) ? cdr(make) : V_NIL;
        while (is_pair(given) && car(given) != field)
            given = cdr(given);
        values = CONS(is_pair(given) ? field : V_FALSE, values);
        for (value access = cdr(car(l)), set = V_FALSE; is_pair(access); access = cdr(access), set = V_TRUE) {
            value params = set == V_TRUE ? LIST(SYM("r"), SYM("v")) : LIST(SYM("r"));
            value body = CONS(SYM(set == V_TRUE ? "%record-set!" : "%record-ref"), CONS(SYM("r"), CONS(type, CONS(make_fix(i), cdr(params)))));
            done = CONS(LIST(SYM("define"), CONS(car(access), params), body), done);
        }
    }
    if (is_pair(make))
        done = CONS(LIST(SYM("define"), make, CONS(SYM("%record"), CONS(type, values))), done);
    done = CONS(LIST(SYM("define"), LIST(nth(f, x, 3), SYM("r")), LIST(SYM("%record?"), SYM("r"), type)), done);
    return CONS(SYM("begin"), list_reverse(f->vm, done));
}

/* ---- forms that become code ---------------------------------------------------------------------------- */

static void compile_if(struct func *f, value test, value then, value other, bool tail)
{
    if (builtin_of(f, is_pair(test) ? car(test) : V_NIL) && list_length(test) == 2 &&
        strcmp(builtin_of(f, car(test))->name, "not") == 0) {
        compile_if(f, car(cdr(test)), other, then, tail);
        return;
    }
    compile_expr(f, test, false);
    int to_other = emit_jump(f, OP_JF), to_end = 0;
    compile_expr(f, then, tail);
    if (!tail)
        to_end = emit_jump(f, OP_JUMP);
    jump_here(f, to_other);
    compile_expr(f, other, tail);
    if (!tail)
        jump_here(f, to_end);
}

static void compile_and_or(struct func *f, value x, enum op jump, bool tail)
{
    int out = 0;
    value l = rest(f, x, 1);
    if (l == V_NIL)
        emit_const(f, make_bool(jump == OP_JF), tail);
    for (; is_pair(l); l = cdr(l)) {
        compile_expr(f, car(l), tail && cdr(l) == V_NIL);
        if (cdr(l) != V_NIL)
            emit_jump_to(f, jump, &out);
    }
    if (out) {
        jumps_here(f, out);
        finish(f, tail);
    }
}

/* (test => receiver): the value of the test is in the accumulator. */
static void compile_receiver(struct func *f, value receiver, bool tail)
{
    int slot = f->depth, back = 0;
    emit_push(f);
    if (!tail) {
        back = emit_jump(f, OP_FRAME);
        adjust(f, 3);
    }
    emit1(f, OP_PUSH_LOCAL, slot);
    adjust(f, 1);
    compile_expr(f, receiver, false);
    emit1(f, tail ? OP_TAIL_CALL : OP_CALL, 1);
    if (!tail) {
        jump_here(f, back);
        emit1(f, OP_POP, 1);
    }
    f->depth = slot;
}

/* Of cond and case: on to what follows all of them, unless it has returned; the next one begins here. */
static void end_clause(struct func *f, int next, int *out, bool tail)
{
    if (!tail)
        emit_jump_to(f, OP_JUMP, out);
    if (next)
        jump_here(f, next);
}

static void compile_cond(struct func *f, value x, bool tail)
{
    int out = 0;
    bool has_else = false;
    for (value l = rest(f, x, 1); is_pair(l) && !has_else; l = cdr(l)) {
        value clause = car(l), body = rest(f, clause, 1);
        int next = 0;
        has_else = is_form(f, clause, F_ELSE);
        if (!has_else) {
            compile_expr(f, nth(f, clause, 0), false);
            if (body == V_NIL) {
                emit_jump_to(f, OP_JT, &out);
                continue;
            }
            next = emit_jump(f, OP_JF);
        }
        if (is_pair(body) && form_of(f, car(body)) == F_ARROW)
            compile_receiver(f, nth(f, body, 1), tail);
        else
            compile_sequence(f, body, tail);
        end_clause(f, next, &out, tail);
    }
    if (!has_else)
        emit_const(f, V_VOID, tail);
    if (out) {
        jumps_here(f, out);
        finish(f, tail);
    }
}

static void compile_case(struct func *f, value x, bool tail)
{
    int out = 0, slot = f->depth;
    bool has_else = false;
    compile_push(f, nth(f, x, 1));
    for (value l = rest(f, x, 2); is_pair(l) && !has_else; l = cdr(l)) {
        int body = 0, next = 0;
        has_else = is_form(f, car(l), F_ELSE);
        for (value d = has_else ? V_NIL : nth(f, car(l), 0); is_pair(d); d = cdr(d)) {
            emit1(f, OP_LOCAL, slot);
            emit1(f, OP_EQ_K, constant(f, car(d)));
            emit_jump_to(f, OP_JT, &body);
        }
        if (!has_else)
            next = emit_jump(f, OP_JUMP);
        jumps_here(f, body);
        compile_sequence(f, rest(f, car(l), 1), tail);
        end_clause(f, next, &out, tail);
    }
    if (!has_else)
        emit_const(f, V_VOID, tail);
    jumps_here(f, out);
    emit_pop(f, 1, tail);
}

/* Values are on the stack from slot first on: they become variables. */
static void bind_pushed(struct func *f, value bindings, int first, value scope)
{
    for (; is_pair(bindings); bindings = cdr(bindings), first++) {
        value name = nth(f, car(bindings), 0);
        if (!is_symbol(name))
            bad(f, "bad binding:", car(bindings));
        if (bind_name(f, name, first, sets(f->vm, scope, name))->boxed)
            emit1(f, OP_BOX, first);
    }
}

static int push_inits(struct func *f, value x, value bindings)
{
    int n = 0;
    for (; is_pair(bindings); bindings = cdr(bindings), n++)
        compile_push(f, nth(f, car(bindings), 1));
    if (bindings != V_NIL)
        bad(f, "bad bindings:", x);
    return n;
}

static void compile_let(struct func *f, value x, bool tail)
{
    value bindings = nth(f, x, 1), body = rest(f, x, 2);
    if (is_symbol(bindings)) {
        compile_expr(f, expand_named_let(f, x), tail);
        return;
    }
    if (body == V_NIL)
        bad(f, "a let without a body:", x);
    struct var *outside = f->vars;
    int first = f->depth, n = push_inits(f, x, bindings);
    bind_pushed(f, bindings, first, body);
    compile_body(f, body, tail);
    f->vars = outside;
    emit_pop(f, n, tail);
}

/* (do ((v init [step])...) (test result...) body...). A turn has variables of its own: values are copied, boxes made anew. */
static void compile_do(struct func *f, value x, bool tail)
{
    value bindings = nth(f, x, 1), end = nth(f, x, 2), results = rest(f, end, 1);
    struct var *outside = f->vars;
    int first = f->depth, n = push_inits(f, x, bindings), stepped = 0, slot = 0;
    bind_pushed(f, bindings, first, rest(f, x, 1));
    int start = f->ncode;
    compile_expr(f, nth(f, end, 0), false);
    int to_body = emit_jump(f, OP_JF), to_end = 0;
    compile_sequence(f, results, tail);
    if (!tail)
        to_end = emit_jump(f, OP_JUMP);
    jump_here(f, to_body);
    for (value l = rest(f, x, 3); is_pair(l); l = cdr(l))
        compile_expr(f, car(l), false);
    for (value l = bindings; is_pair(l); l = cdr(l))
        if (is_pair(cdr(cdr(car(l))))) {
            compile_push(f, car(cdr(cdr(car(l)))));
            stepped++;
        }
    f->depth -= stepped;
    for (value l = list_reverse(f->vm, bindings); is_pair(l); l = cdr(l)) {
        slot++;
        if (!is_pair(cdr(cdr(car(l)))))
            continue;
        emit1(f, OP_POP_LOCAL, first + n - slot);
        if (sets(f->vm, rest(f, x, 1), car(car(l))))
            emit1(f, OP_BOX, first + n - slot);
    }
    int back = emit_jump(f, OP_JUMP);
    f->code[back] = start - back;
    if (!tail)
        jump_here(f, to_end);
    f->vars = outside;
    emit_pop(f, n, tail);
}

static void compile_set(struct func *f, value x, bool tail)
{
    struct var *v;
    value name = nth(f, x, 1);
    if (!is_symbol(name))
        bad(f, "bad set!:", x);
    compile_expr(f, nth(f, x, 2), false);
    int where = resolve(f, name, &v);
    if (where == IN_GLOBAL)
        emit1(f, OP_SET_GLOBAL, constant(f, name));
    else
        emit1(f, (where & 3) == IN_LOCAL ? OP_SET_BOX : OP_SET_FREE, where >> 2);
    emit_const(f, V_VOID, tail);
}

static void compile_form(struct func *f, enum form form, value x, bool tail)
{
    switch (form) {
    case F_QUOTE: emit_const(f, nth(f, x, 1), tail); break;
    case F_IF: compile_if(f, nth(f, x, 1), nth(f, x, 2), rest(f, x, 3) == V_NIL ? V_VOID : nth(f, x, 3), tail); break;
    case F_SET: compile_set(f, x, tail); break;
    case F_LAMBDA: compile_lambda(f, nth(f, x, 1), rest(f, x, 2), V_FALSE, NULL, tail); break;
    case F_LET: compile_let(f, x, tail); break;
    case F_LET_STAR: compile_expr(f, expand_let_star(f, x), tail); break;
    case F_LETREC: case F_LETREC_STAR: compile_expr(f, expand_letrec(f, x), tail); break;
    case F_BEGIN: compile_sequence(f, rest(f, x, 1), tail); break;
    case F_AND: compile_and_or(f, x, OP_JF, tail); break;
    case F_OR: compile_and_or(f, x, OP_JT, tail); break;
    case F_WHEN: compile_if(f, nth(f, x, 1), CONS(SYM("begin"), rest(f, x, 2)), V_VOID, tail); break;
    case F_UNLESS: compile_if(f, nth(f, x, 1), V_VOID, CONS(SYM("begin"), rest(f, x, 2)), tail); break;
    case F_COND: compile_cond(f, x, tail); break;
    case F_CASE: compile_case(f, x, tail); break;
    case F_DO: compile_do(f, x, tail); break;
    case F_QUASIQUOTE: compile_expr(f, expand_quasi(f, nth(f, x, 1), 1), tail); break;
    case F_GUARD: compile_expr(f, expand_guard(f, x), tail); break;
    case F_DEFINE: case F_DEFINE_RECORD: bad(f, "a definition where an expression is expected:", x);
    default: bad(f, "does not stand by itself:", x);
    }
}

static void compile_expr(struct func *f, value x, bool tail)
{
    vm_check_depth(f->vm);
    if (is_symbol(x)) {
        if (form_of(f, x) != F_NONE)
            bad(f, "the name of a form is not an expression:", x);
        emit_variable(f, x);
        finish(f, tail);
        return;
    }
    if (!is_pair(x)) {
        if (x == V_NIL)
            bad(f, "bad syntax:", x);
        emit_const(f, x, tail);
        return;
    }
    int line = f->line;
    value own = form_line(f, x);
    if (is_fix(own))
        f->line = (int)fix(own);
    enum form form = form_of(f, car(x));
    if (form != F_NONE)
        compile_form(f, form, x, tail);
    else
        compile_call(f, x, tail);
    f->line = line;
}

/* ---- the outermost level ------------------------------------------------------------------------------- */

static void compile_toplevel(struct func *f, value x)
{
    value line = is_pair(x) ? form_line(f, x) : V_FALSE, init;
    if (is_fix(line))
        f->line = (int)fix(line);
    if (is_form(f, x, F_DEFINE_RECORD))
        x = expand_record(f, x);
    if (is_form(f, x, F_BEGIN)) {
        emit_const(f, V_VOID, false);
        for (value l = rest(f, x, 1); is_pair(l); l = cdr(l))
            compile_toplevel(f, car(l));
    } else if (is_form(f, x, F_DEFINE)) {
        value name = definition(f, x, &init);
        if (is_form(f, init, F_LAMBDA))
            compile_lambda(f, nth(f, init, 1), rest(f, init, 2), name, NULL, false);
        else
            compile_expr(f, init, false);
        emit1(f, OP_DEFINE, constant(f, name));
        emit_const(f, V_VOID, false);
    } else {
        compile_expr(f, x, false);
    }
}

value compile(struct vm *vm, value form, int line)
{
    struct func f = { .vm = vm, .name = V_FALSE, .line = line };
    compile_toplevel(&f, form);
    emit(&f, OP_RETURN);
    return make_closure(&f, make_proto(&f, 0, false));
}

void compile_init(struct vm *vm)
{
    for (int i = 1; i < (int)(sizeof form_names / sizeof *form_names); i++)
        ((struct symbol *)symbol(vm, form_names[i]))->form = (uint8_t)i;
}
