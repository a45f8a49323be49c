/* vm.c - the loop that runs code; its stack; errors.
 *
 * Why a machine with an accumulator, and a stack of its own? The Scheme stack must not be the C stack: a fiber has 256 KiB of that, and a
 * recursion a million deep is nothing unusual in Scheme. Frames as heap objects would serve, but cost an allocation a call; here a call is
 * three stores. And one register saves most pushes: the last thing computed is the next thing used.
 *
 * [CHUNKS] The stack is a list of chunks, collected objects that are scanned conservatively: values, caught registers and pointers into the
 * stack itself lie in it as they come. When a call finds no room it goes on in a new chunk, with its arguments, over a frame that returns to
 * UNDERFLOW; that instruction drops the chunk and returns again. So pointers into the stack stay good, deep recursion is bounded by memory
 * (MAX_SLOTS) and ends in an error, and nothing is copied or freed. The chunk dropped last is kept, lest a loop at its edge makes one each
 * time.
 *
 * [ESCAPE] Continuations only go up: call/cc remembers chunk and sp, and a call of k drops what is above. Each is in vm->conts from its
 * beginning to the return of the call that made it (END_CONT); after that it is dead, and calling it an error. Handlers (%try) are the same
 * with a procedure to call: raise cuts the stack back to the innermost and calls it there. A builtin raises by longjmp out of execute(), into
 * vm_call, which enters it anew: all that the loop needs is in the cont. */
#include "vm.h"

#include <stdio.h>
#include <string.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

enum {
    FRAME_SLOTS = 3,
    SLACK_SLOTS = 8,            /* above limit: for what the machine itself pushes */
    MIN_CHUNK = 128, MAX_CHUNK = 8192,
    MAX_SLOTS = 16 << 20,       /* of one fiber: 128 MiB */
};

struct chunk {
    struct chunk *below;
    size_t slots, total;        /* total: with all those below */
    value at[];
};

static const int32_t code_halt[] = { OP_HALT }, code_end_cont[] = { OP_END_CONT }, code_underflow[] = { OP_UNDERFLOW };

/* ---- the stack [CHUNKS] ------------------------------------------------------------------------------ */

static void use_chunk(struct vm *vm, struct chunk *c)
{
    vm->chunk = c;
    vm->limit = c->at + c->slots - SLACK_SLOTS;
}

static value *push_frame(value *sp, struct closure *closure, value *fp, const int32_t *pc)
{
    sp[0] = (value)closure;
    sp[1] = (value)fp;
    sp[2] = (value)pc;
    return sp + FRAME_SLOTS;
}

/* The n arguments at args go on in a new chunk with room for need slots: their new place. */
static value *push_chunk(struct vm *vm, value *args, int n, size_t need)
{
    struct chunk *c = vm->spare, *below = vm->chunk;
    size_t least = need + FRAME_SLOTS + SLACK_SLOTS, slots = below ? 2 * below->slots : MIN_CHUNK;
    slots = slots > MAX_CHUNK ? MAX_CHUNK : slots;
    slots = slots < least ? least : slots;
    size_t total = slots + (below ? below->total : 0);
    if (total > MAX_SLOTS)
        vm_error(vm, "recursion too deep", V_UNDEF);
    if (!c || c->slots < slots) {
        c = (struct chunk *)check_memory(vm, mem_words(sizeof *c + slots * sizeof(value)));
        c->slots = slots;
    }
    vm->spare = NULL;
    c->below = below;
    c->total = total;
    use_chunk(vm, c);
    value *to = push_frame(c->at, NULL, args, below ? code_underflow : code_halt);
    if (n)
        memcpy(to, args, (size_t)n * sizeof(value));
    return to + n;
}

/* Dead values above sp would keep what they point to; also those that execute() has left on the C stack, where it will have its frame again. */
static __attribute__((noinline)) void forget_above(struct vm *vm, value *sp)
{
    char frames[1024];
    memset(frames, 0, sizeof frames);
    __asm__ volatile("" : : "r"(frames) : "memory");
    memset(sp, 0, (size_t)(vm->chunk->at + vm->chunk->slots - sp) * sizeof *sp);
    vm->spare = NULL;
}

/* Back to the chunk of k, and no continuation further in lives on. [ESCAPE] */
static void unwind(struct vm *vm, struct cont *k)
{
    struct cont *c;
    do {
        c = vm->conts;
        c->live = false;
        vm->conts = c->outer;
    } while (c != k);
    use_chunk(vm, k->chunk);
}

static struct cont *make_cont(struct vm *vm, value *sp, value handler)
{
    struct cont *k = (struct cont *)check_memory(vm, mem_new(types.cont));
    *k = (struct cont){ make_head(T_CONT, 0), vm->conts, vm->chunk, sp, handler, vm, true };
    return vm->conts = k;
}

/* ---- errors ------------------------------------------------------------------------------------------ */

value vm_where(struct vm *vm)
{
    if (!vm->closure)
        return V_FALSE;
    struct proto *p = vm->closure->proto;
    ptrdiff_t i = vm->pc - p->code;
    return cons(vm, p->file, make_fix(i > 0 && i <= p->length ? p->lines[i - 1] : 0));
}

_Noreturn void vm_raise(struct vm *vm, value v)
{
    vm->raised = v;
    longjmp(vm->escape, 1);
}

_Noreturn void vm_error_at(struct vm *vm, value where, const char *message, value irritant)
{
    value irritants = irritant == V_UNDEF ? V_NIL : cons(vm, irritant, V_NIL);
    vm_raise(vm, make_error(vm, make_string(vm, message, strlen(message)), irritants, where));
}

_Noreturn void vm_error(struct vm *vm, const char *message, value irritant) { vm_error_at(vm, vm_where(vm), message, irritant); }

_Noreturn void vm_wrong(struct vm *vm, const char *who, const char *what, value got)
{
    char message[200];
    snprintf(message, sizeof message, "%s: %s:", who, what);
    vm_error(vm, message, got);
}

_Noreturn void vm_bad(struct vm *vm, const char *what, value got) { vm_wrong(vm, vm->def->name, what, got); }

_Noreturn void vm_no_memory(struct vm *vm) { vm_raise(vm, vm->world->no_memory); }

bool vm_too_deep(struct vm *vm) { return (size_t)(vm->c_stack - (char *)__builtin_frame_address(0)) > vm->c_stack_bytes; }

void vm_check_depth(struct vm *vm)
{
    if (vm_too_deep(vm))
        vm_error(vm, "nested too deeply", V_UNDEF);
}

static _Noreturn void wrong_count(struct vm *vm, value callee, int got, int min, bool more)
{
    const char *name = "procedure";
    char message[200];
    if (is(callee, T_BUILTIN))
        name = ((struct builtin *)callee)->def->name;
    else if (is(callee, T_CLOSURE) && is(((struct closure *)callee)->proto->name, T_SYMBOL))
        name = ((struct string *)((struct symbol *)((struct closure *)callee)->proto->name)->name)->b;
    snprintf(message, sizeof message, "%.100s: expects %s%d argument%s, got %d", name, more ? "at least " : "", min, min == 1 ? "" : "s", got);
    vm_error(vm, message, V_UNDEF);
}

/* Cuts the stack back to the innermost handler and makes it what execute() calls next. */
static bool to_handler(struct vm *vm)
{
    struct cont *k = vm->conts;
    while (k && k->handler == V_UNDEF)
        k = k->outer;
    if (!k)
        return false;
    unwind(vm, k);
    forget_above(vm, k->sp); /* what made the memory run out may hang there */
    k->sp[0] = vm->raised;
    vm->sp = k->sp + 1;
    vm->callee = k->handler;
    vm->argc = 1;
    vm->closure = NULL;
    vm->raised = V_UNDEF;
    return true;
}

/* ---- the loop ---------------------------------------------------------------------------------------- */

/* A closure is called with other than its number of parameters, or collects the rest of them. The new sp. */
static value *fit_arguments(struct vm *vm, value callee, value *sp, int n)
{
    struct proto *p = ((struct closure *)callee)->proto;
    int required = p->params - p->rest;
    if (n < required || (n > required && !p->rest))
        wrong_count(vm, callee, n, required, p->rest);
    value rest = V_NIL;
    for (; n > required; n--)
        rest = cons(vm, *--sp, rest);
    *sp = rest;
    return sp + 1;
}

/* (apply f a b '(c d)): the arguments at base become those of the call; the new sp. */
static value *spread(struct vm *vm, value *base, int *count)
{
    int n = *count;
    value l = base[n - 1];
    int64_t length = list_length(l);
    if (length < 0 || length > INT32_MAX / 2)
        vm_wrong(vm, "apply", "the last argument is not a list", l);
    size_t total = (size_t)(n - 2) + (size_t)length;
    *count = (int)total;
    value *to = base + total <= vm->limit ? base : push_chunk(vm, base, 0, total);
    memmove(to, base + 1, (size_t)(n - 2) * sizeof(value));
    for (to += n - 2; is_pair(l); l = cdr(l))
        *to++ = car(l);
    return to;
}

static value box(struct vm *vm, value v)
{
    struct box *b = (struct box *)check_memory(vm, mem_new(types.box));
    mem_store(&b->v, v);
    return (value)b;
}

static _Noreturn void undefined(struct vm *vm, value name) { vm_error(vm, "undefined variable:", name); }

#define SAVE (vm->closure = cl, vm->pc = pc)
#define NEXT goto *labels[*pc++]
#define K(i) (cl->proto->consts[i])
#define BOTH_FIX(x, y) likely((x) & (y) & 1)
#define BRANCH(r)                                                                                                            \
    do {                                                                                                                     \
        bool r_ = (r);                                                                                                       \
        a = make_bool(r_);                                                                                                   \
        if (likely(*pc == OP_JF))                                                                                            \
            pc = r_ ? pc + 2 : pc + 1 + pc[1];                                                                               \
    } while (0)
#define BINARY(name, body)                                                                                                   \
    L_##name: { value x = *--sp, y = a; body; } NEXT;                                                                        \
    L_##name##_L: { value x = a, y = fp[*pc++]; body; } NEXT;                                                                \
    L_##name##_I: { value x = a, y = (value)(int64_t)*pc++; body; } NEXT
#define COMPARE(name, op, who)                                                                                               \
    BINARY(name, {                                                                                                           \
        bool r;                                                                                                              \
        if (BOTH_FIX(x, y)) {                                                                                                \
            r = (int64_t)x op (int64_t)y;                                                                                    \
        } else {                                                                                                             \
            SAVE;                                                                                                            \
            int order = num_compare(vm, x, y, who);                                                                          \
            r = order != 2 && order op 0;                                                                                    \
        }                                                                                                                    \
        BRANCH(r);                                                                                                           \
    })

/* Calls vm->callee with vm->argc arguments below vm->sp, and returns what the bottom of the stack gets. */
static value execute(struct vm *vm)
{
#define LABEL(name) &&L_##name,
    static const void *const labels[] = { OPS(LABEL) };
    value *sp = vm->sp, *fp = NULL, a = vm->callee;
    struct closure *cl = NULL;
    const int32_t *pc = code_halt;
    int n = vm->argc;

call: /* a, with the n arguments on top of the stack, over a frame */
    if (likely(is(a, T_CLOSURE))) {
        struct proto *p = ((struct closure *)a)->proto;
        if (unlikely(n != p->exact)) {
            SAVE;
            sp = fit_arguments(vm, a, sp, n);
            n = p->params;
        }
        fp = sp - n;
        if (unlikely(fp + p->need > vm->limit)) {
            SAVE;
            sp = push_chunk(vm, fp, n, (size_t)p->need);
            fp = sp - n;
        }
        cl = (struct closure *)a;
        pc = p->code;
        NEXT;
    }
    SAVE;
    if (is(a, T_BUILTIN)) {
        const struct builtin_def *def = ((struct builtin *)a)->def;
        if (unlikely(n < def->min || (n > def->max && def->max >= 0)))
            wrong_count(vm, a, n, def->min, def->max != def->min);
        for (; n < def->max; n++)
            *sp++ = V_UNDEF;
        if (likely(def->fn != NULL)) {
            vm->def = def;
            a = def->fn(vm, n, sp - n);
            sp -= n;
            goto pop_frame;
        }
        value *base = sp - n;
        struct cont *k;
        a = base[0];
        switch ((enum control)def->op) {
        case CONTROL_APPLY:
            sp = spread(vm, base, &n);
            goto call;
        case CONTROL_CALL_CC:
            k = make_cont(vm, base, V_UNDEF);
            sp = push_frame(base, cl, fp, code_end_cont);
            *sp++ = (value)k;
            n = 1;
            goto call;
        case CONTROL_TRY:
            make_cont(vm, base, base[1]);
            sp = push_frame(base, cl, fp, code_end_cont);
            n = 0;
            goto call;
        case CONTROL_EVAL:
            a = compile(vm, a, 0);
            sp = base;
            n = 0;
            goto call;
        }
    }
    if (is(a, T_CONT)) {
        struct cont *k = (struct cont *)a;
        if (k->vm != vm || !k->live)
            vm_error(vm, "the call/cc that gave this continuation has returned, or is another fiber's", V_UNDEF);
        a = n ? sp[-n] : V_VOID;
        unwind(vm, k);
        sp = k->sp;
        goto pop_frame;
    }
    vm_error(vm, "not a procedure:", a);

L_END_CONT:
    vm->conts->live = false;
    vm->conts = vm->conts->outer;
    goto pop_frame;
L_UNDERFLOW: /* fp: where the arguments began in the chunk below */
    vm->spare = vm->chunk;
    use_chunk(vm, vm->chunk->below);
    sp = fp;
    goto pop_frame;
L_RETURN:
    sp = fp;
pop_frame:
    sp -= FRAME_SLOTS;
    cl = (struct closure *)sp[0];
    fp = (value *)sp[1];
    pc = (const int32_t *)sp[2];
    NEXT;
L_HALT:
    return a;

L_CONST: a = K(*pc++); NEXT;
L_LOCAL: a = fp[*pc++]; NEXT;
L_FREE: a = cl->free[*pc++]; NEXT;
L_SELF: a = (value)cl; NEXT;
L_GLOBAL: {
        struct symbol *s = (struct symbol *)K(*pc++);
        a = s->v;
        if (unlikely(a == V_UNDEF)) {
            SAVE;
            undefined(vm, (value)s);
        }
        NEXT;
    }
L_UNBOX:
    a = ((struct box *)a)->v;
    pc++;
    if (unlikely(a == V_UNDEF)) {
        SAVE;
        vm_error(vm, "used before its definition:", K(pc[-1]));
    }
    NEXT;
L_PUSH: *sp++ = a; NEXT;
L_PUSH_CONST: *sp++ = K(*pc++); NEXT;
L_PUSH_LOCAL: *sp++ = fp[*pc++]; NEXT;
L_PUSH_BOX: SAVE; *sp++ = box(vm, V_UNDEF); NEXT;
L_BOX: SAVE; fp[*pc] = box(vm, fp[*pc]); pc++; NEXT;
L_SET_LOCAL: fp[*pc++] = a; NEXT;
L_SET_BOX: mem_store(&((struct box *)fp[*pc++])->v, a); NEXT;
L_SET_FREE: mem_store(&((struct box *)cl->free[*pc++])->v, a); NEXT;
L_SET_GLOBAL: {
        struct symbol *s = (struct symbol *)K(*pc++);
        if (unlikely(s->v == V_UNDEF)) {
            SAVE;
            undefined(vm, (value)s);
        }
    }
    pc--; /* fall through */
L_DEFINE: {
        struct symbol *s = (struct symbol *)K(*pc++);
        if (unlikely(s->used)) {
            SAVE;
            vm_error(vm, "cannot be changed, code that uses the builtin was compiled:", (value)s);
        }
        mem_store(&s->v, a);
        NEXT;
    }
L_POP_LOCAL: fp[*pc++] = *--sp; NEXT;
L_POP: sp -= *pc++; NEXT;
L_JUMP: pc += *pc; NEXT;
L_JF: pc += a == V_FALSE ? *pc : 1; NEXT;
L_JT: pc += a != V_FALSE ? *pc : 1; NEXT;
L_FRAME: sp = push_frame(sp, cl, fp, pc + *pc); pc++; NEXT;
L_CALL_GLOBAL:
    a = ((struct symbol *)K(*pc++))->v;
    n = *pc++;
    if (likely(a != V_UNDEF))
        goto call;
    SAVE;
    undefined(vm, K(pc[-2]));
L_CALL: n = *pc++; goto call;
L_TAIL_CALL_GLOBAL: {
        struct symbol *s = (struct symbol *)K(*pc++);
        a = s->v;
        if (unlikely(a == V_UNDEF)) {
            SAVE;
            undefined(vm, (value)s);
        }
    } /* fall through */
L_TAIL_CALL: {
        n = *pc++;
        value *from = sp - n;
        for (int i = 0; i < n; i++)
            fp[i] = from[i];
        sp = fp + n;
        goto call;
    }
L_CLOSURE: {
        int caught = pc[1];
        SAVE;
        struct closure *c = (struct closure *)check_memory(vm, mem_slots(sizeof *c + (size_t)caught * sizeof(value)));
        c->head = make_head(T_CLOSURE, (size_t)caught);
        mem_store(&c->proto, (struct proto *)K(pc[0]));
        pc += 2;
        for (int i = 0; i < caught; i++, pc++)
            mem_store(&c->free[i], (*pc & 3) == IN_LOCAL ? fp[*pc >> 2] : (*pc & 3) == IN_FREE ? cl->free[*pc >> 2] : (value)cl);
        a = (value)c;
        NEXT;
    }
L_PATCH: mem_store(&((struct closure *)a)->free[pc[0]], fp[pc[1]]); pc += 2; NEXT;
L_PRIM: {
        const struct builtin_def *def = ((struct builtin *)K(pc[0]))->def;
        n = pc[1];
        pc += 2;
        SAVE;
        vm->def = def;
        a = def->fn(vm, n, sp - n);
        sp -= n;
        NEXT;
    }

#define NOT_A(who, what) do { SAVE; vm_wrong(vm, who, "not a " what, a); } while (0)
L_CAR:
    if (unlikely(!is_pair(a)))
        NOT_A("car", "pair");
    a = car(a);
    NEXT;
L_CDR:
    if (unlikely(!is_pair(a)))
        NOT_A("cdr", "pair");
    a = cdr(a);
    NEXT;
L_CADR:
    if (unlikely(!is_pair(a) || !is_pair(cdr(a))))
        NOT_A("cadr", "list of two");
    a = car(cdr(a));
    NEXT;
L_NULLP: BRANCH(a == V_NIL); NEXT;
L_PAIRP: BRANCH(is_pair(a)); NEXT;
L_NOT: BRANCH(a == V_FALSE); NEXT;
L_ZEROP: {
        bool r = a == make_fix(0);
        if (unlikely(!is_fix(a))) {
            SAVE;
            r = num_compare(vm, a, make_fix(0), "zero?") == 0;
        }
        BRANCH(r);
        NEXT;
    }
L_EQ_K: BRANCH(a == K(pc++[0])); NEXT;
L_VECTOR_SET: {
        struct vector *v = (struct vector *)sp[-2];
        value i = sp[-1];
        SAVE;
        if (unlikely(!is((value)v, T_VECTOR)))
            vm_wrong(vm, "vector-set!", "not a vector", (value)v);
        if (unlikely(!is_fix(i) || (size_t)fix(i) >= length_of((value)v)))
            vm_wrong(vm, "vector-set!", "no such index", i);
        mem_store(&v->at[fix(i)], a);
        a = V_VOID;
        sp -= 2;
        NEXT;
    }
    BINARY(VECTOR_REF, {
        if (unlikely(!is(x, T_VECTOR) || !is_fix(y) || (size_t)fix(y) >= length_of(x))) {
            SAVE;
            vm_wrong(vm, "vector-ref", is(x, T_VECTOR) ? "no such index" : "not a vector", is(x, T_VECTOR) ? y : x);
        }
        a = ((struct vector *)x)->at[fix(y)];
    });
    BINARY(CONS, SAVE; a = cons(vm, x, y));
    BINARY(EQ, BRANCH(x == y));
    BINARY(ADD, {
        int64_t r;
        if (BOTH_FIX(x, y) && likely(!__builtin_add_overflow((int64_t)x, (int64_t)(y - 1), &r))) {
            a = (value)r;
        } else {
            SAVE;
            a = num_add(vm, x, y);
        }
    });
    BINARY(SUB, {
        int64_t r;
        if (BOTH_FIX(x, y) && likely(!__builtin_sub_overflow((int64_t)x, (int64_t)(y - 1), &r))) {
            a = (value)r;
        } else {
            SAVE;
            a = num_sub(vm, x, y);
        }
    });
    COMPARE(LT, <, "<");
    COMPARE(GT, >, ">");
    COMPARE(LE, <=, "<=");
    COMPARE(GE, >=, ">=");
    COMPARE(NUM_EQ, ==, "=");
}

/* ---- entry ------------------------------------------------------------------------------------------- */

void vm_init(struct vm *vm, struct world *world, size_t c_stack_bytes)
{
    *vm = (struct vm){ .world = world, .raised = V_UNDEF, .lines = V_UNDEF, .file = V_FALSE };
    vm->c_stack = __builtin_frame_address(0);
    vm->c_stack_bytes = c_stack_bytes - c_stack_bytes / 4;
}

/* An empty stack, but for the bottom frame. */
static void reset_stack(struct vm *vm)
{
    vm->closure = NULL;
    vm->conts = NULL;
    while (vm->chunk && vm->chunk->below)
        vm->chunk = vm->chunk->below;
    if (vm->chunk)
        use_chunk(vm, vm->chunk);
    vm->sp = vm->chunk ? vm->chunk->at + FRAME_SLOTS : push_chunk(vm, NULL, 0, 0);
    forget_above(vm, vm->sp);
}

bool vm_call(struct vm *vm, value proc, value *result)
{
    vm->callee = proc;
    vm->argc = 0;
    /* What is raised comes here again, and again goes on with the handler. */
    if (setjmp(vm->escape) != 0) {
        if (!to_handler(vm)) {
            reset_stack(vm);
            return false;
        }
    } else {
        reset_stack(vm);
    }
    *result = execute(vm);
    return true;
}

/* Reads and compiles the next form of a port: a builtin, so that errors in it are raised like any. */
static value next_form(struct vm *vm, value port)
{
    vm->file = ((struct port *)port)->name;
    vm->lines = make_table(vm, TABLE_EQ);
    value form = read_datum(vm, (struct port *)port), r = form == V_EOF ? V_EOF : compile(vm, form, ((struct port *)port)->line);
    vm->lines = V_UNDEF;
    return r;
}

bool vm_load(struct vm *vm, value port, bool show)
{
    for (;;) {
        value v;
        vm->closure = NULL;
        if (setjmp(vm->escape) != 0)
            return false;
        value form = next_form(vm, port);
        if (form == V_EOF)
            return true;
        if (!vm_call(vm, form, &v))
            return false;
        if (show && v != V_VOID) {
            if (setjmp(vm->escape) != 0)
                return false;
            struct text t = { 0 };
            print(vm, &t, v, true);
            text_add(vm, &t, "\n", 1);
            port_write(vm, (struct port *)vm->world->out, t.b, t.n);
        }
    }
}

static void report(struct vm *vm, value raised)
{
    struct text t = { 0 };
    struct error *e = is(raised, T_ERROR) ? (struct error *)raised : NULL;
    port_flush(vm, (struct port *)vm->world->out); /* what was printed before comes first */
    if (e && is_pair(e->where) && is(car(e->where), T_STRING)) {
        char line[32];
        print(vm, &t, car(e->where), false);
        text_add(vm, &t, line, (size_t)snprintf(line, sizeof line, ":%d: ", (int)fix(cdr(e->where))));
    }
    if (e) {
        print(vm, &t, e->message, false);
        for (value l = e->irritants; is_pair(l); l = cdr(l)) {
            text_add(vm, &t, " ", 1);
            print(vm, &t, car(l), true);
        }
    } else {
        text_add(vm, &t, "raised: ", 8);
        print(vm, &t, raised, true);
    }
    text_add(vm, &t, "\n", 1);
    port_write(vm, (struct port *)vm->world->err, t.b, t.n);
}

void vm_report(struct vm *vm, value raised)
{
    vm->closure = NULL;
    if (setjmp(vm->escape) == 0)
        report(vm, raised);
}
