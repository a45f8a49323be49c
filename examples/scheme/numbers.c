/* numbers.c - integers of 63 bits and doubles. What does not fit into an integer becomes a double: there are no big integers, and no fractions. */
#include "vm.h"

#include <math.h>

static double to_double(struct vm *vm, value v, const char *who)
{
    if (is_fix(v))
        return (double)fix(v);
    if (!is(v, T_FLONUM))
        vm_wrong(vm, who, "not a number", v);
    return ((struct flonum *)v)->d;
}

static double arg_double(struct vm *vm, value v) { return to_double(vm, v, vm->def->name); }

static int64_t arg_fix(struct vm *vm, value v)
{
    if (is(v, T_FLONUM) && ((struct flonum *)v)->d == nearbyint(((struct flonum *)v)->d) && fabs(((struct flonum *)v)->d) < 0x1p62)
        return (int64_t)((struct flonum *)v)->d;
    if (!is_fix(v))
        vm_bad(vm, "not an integer", v);
    return fix(v);
}

static value integer(struct vm *vm, int64_t n) { return n >= FIX_MIN && n <= FIX_MAX ? make_fix(n) : make_flonum(vm, (double)n); }

value num_add(struct vm *vm, value a, value b)
{
    return is_fix(a) && is_fix(b) ? integer(vm, fix(a) + fix(b)) : make_flonum(vm, to_double(vm, a, "+") + to_double(vm, b, "+"));
}
value num_sub(struct vm *vm, value a, value b)
{
    return is_fix(a) && is_fix(b) ? integer(vm, fix(a) - fix(b)) : make_flonum(vm, to_double(vm, a, "-") - to_double(vm, b, "-"));
}
value num_mul(struct vm *vm, value a, value b)
{
    int64_t n;
    if (is_fix(a) && is_fix(b) && !__builtin_mul_overflow(fix(a), fix(b), &n))
        return integer(vm, n);
    return make_flonum(vm, to_double(vm, a, "*") * to_double(vm, b, "*"));
}
int num_compare(struct vm *vm, value a, value b, const char *who)
{
    if (is_fix(a) && is_fix(b))
        return (fix(a) > fix(b)) - (fix(a) < fix(b));
    double x = to_double(vm, a, who), y = to_double(vm, b, who);
    return x < y ? -1 : x > y ? 1 : x == y ? 0 : 2;
}

/* ---- arithmetic -------------------------------------------------------------------------------------- */

BUILTIN(add)
{
    value r = make_fix(0);
    for (int i = 0; i < n; i++)
        r = num_add(vm, r, a[i]);
    return r;
}
BUILTIN(mul)
{
    value r = make_fix(1);
    for (int i = 0; i < n; i++)
        r = num_mul(vm, r, a[i]);
    return r;
}
BUILTIN(sub)
{
    value r = n == 1 ? num_sub(vm, make_fix(0), a[0]) : a[0];
    for (int i = 1; i < n; i++)
        r = num_sub(vm, r, a[i]);
    return r;
}
static value divide(struct vm *vm, value a, value b)
{
    if (b == make_fix(0))
        vm_bad(vm, "division by zero", a);
    if (is_fix(a) && is_fix(b) && fix(a) % fix(b) == 0)
        return integer(vm, fix(a) / fix(b));
    return make_flonum(vm, arg_double(vm, a) / arg_double(vm, b));
}
BUILTIN(div)
{
    value r = n == 1 ? divide(vm, make_fix(1), a[0]) : a[0];
    for (int i = 1; i < n; i++)
        r = divide(vm, r, a[i]);
    return r;
}

static int64_t divisor(struct vm *vm, value *a)
{
    if (arg_fix(vm, a[1]) == 0)
        vm_bad(vm, "division by zero", a[0]);
    return arg_fix(vm, a[1]);
}
BUILTIN(quotient) { return integer(vm, arg_fix(vm, a[0]) / divisor(vm, a)); }
BUILTIN(remainder) { return make_fix(arg_fix(vm, a[0]) % divisor(vm, a)); }
BUILTIN(modulo)
{
    int64_t d = divisor(vm, a), r = arg_fix(vm, a[0]) % d;
    return make_fix(r != 0 && (r < 0) != (d < 0) ? r + d : r);
}

/* ---- comparing: (< a b c) ------------------------------------------------------------------------------ */

#define COMPARISON(id, who, op)                                                                                              \
    BUILTIN(id)                                                                                                              \
    {                                                                                                                        \
        bool r = true;                                                                                                       \
        for (int i = 0; i + 1 < n; i++) {                                                                                    \
            int order = num_compare(vm, a[i], a[i + 1], who);                                                                \
            r = r && order != 2 && order op 0;                                                                               \
        }                                                                                                                    \
        return make_bool(r);                                                                                                 \
    }
COMPARISON(lt, "<", <)
COMPARISON(gt, ">", >)
COMPARISON(le, "<=", <=)
COMPARISON(ge, ">=", >=)
COMPARISON(num_eq, "=", ==)

static value extreme(struct vm *vm, int n, value *a, int want)
{
    value r = a[0];
    bool inexact = !is_fix(r);
    arg_double(vm, r);
    for (int i = 1; i < n; i++) {
        inexact |= !is_fix(a[i]);
        if (num_compare(vm, a[i], r, vm->def->name) == want)
            r = a[i];
    }
    return inexact && is_fix(r) ? make_flonum(vm, (double)fix(r)) : r;
}
BUILTIN(min) { return extreme(vm, n, a, -1); }
BUILTIN(max) { return extreme(vm, n, a, 1); }

BUILTIN(zero) { return make_bool(arg_double(vm, a[0]) == 0); }
BUILTIN(positive) { return make_bool(arg_double(vm, a[0]) > 0); }
BUILTIN(negative) { return make_bool(arg_double(vm, a[0]) < 0); }
BUILTIN(odd) { return make_bool(arg_fix(vm, a[0]) & 1); }
BUILTIN(even) { return make_bool(!(arg_fix(vm, a[0]) & 1)); }

static bool is_number(value v) { return is_fix(v) || is(v, T_FLONUM); }
BUILTIN(is_number) { return make_bool(is_number(a[0])); }
BUILTIN(is_integer)
{
    return make_bool(is_fix(a[0]) || (is(a[0], T_FLONUM) && ((struct flonum *)a[0])->d == floor(((struct flonum *)a[0])->d)));
}
BUILTIN(is_exact) { arg_double(vm, a[0]); return make_bool(is_fix(a[0])); }

/* ---- doubles ------------------------------------------------------------------------------------------- */

BUILTIN(exact)
{
    double d = arg_double(vm, a[0]);
    if (is_fix(a[0]))
        return a[0];
    if (!(fabs(d) < 0x1p62))
        vm_bad(vm, "too large for an exact integer", a[0]);
    return make_fix((int64_t)d);
}
BUILTIN(inexact) { return make_flonum(vm, arg_double(vm, a[0])); }
BUILTIN(abs)
{
    return is_fix(a[0]) ? integer(vm, fix(a[0]) < 0 ? -fix(a[0]) : fix(a[0])) : make_flonum(vm, fabs(arg_double(vm, a[0])));
}
#define ROUNDING(id, fn) \
    BUILTIN(id) { return is_fix(a[0]) ? a[0] : make_flonum(vm, fn(arg_double(vm, a[0]))); }
ROUNDING(floor, floor)
ROUNDING(ceiling, ceil)
ROUNDING(round, nearbyint)
ROUNDING(truncate, trunc)
#define FUNCTION(id) BUILTIN(id) { return make_flonum(vm, id(arg_double(vm, a[0]))); }
FUNCTION(exp)
FUNCTION(sin)
FUNCTION(cos)
FUNCTION(log)
BUILTIN(atan)
{
    return make_flonum(vm, a[1] == V_UNDEF ? atan(arg_double(vm, a[0])) : atan2(arg_double(vm, a[0]), arg_double(vm, a[1])));
}
BUILTIN(sqrt)
{
    double r = sqrt(arg_double(vm, a[0]));
    return is_fix(a[0]) && r == floor(r) ? make_fix((int64_t)r) : make_flonum(vm, r);
}
BUILTIN(expt)
{
    if (!is_fix(a[0]) || !is_fix(a[1]) || fix(a[1]) < 0)
        return make_flonum(vm, pow(arg_double(vm, a[0]), arg_double(vm, a[1])));
    value r = make_fix(1), base = a[0];
    for (int64_t e = fix(a[1]); e > 0; e >>= 1) {
        if (e & 1)
            r = num_mul(vm, r, base);
        if (e > 1)
            base = num_mul(vm, base, base);
    }
    return r;
}

/* ---- text ---------------------------------------------------------------------------------------------- */

BUILTIN(number_to_string)
{
    struct text t = { 0 };
    char digits[70];
    int64_t base = a[1] == V_UNDEF ? 10 : arg_fix(vm, a[1]);
    arg_double(vm, a[0]);
    if (base < 2 || base > 36)
        vm_bad(vm, "no such base", a[1]);
    if (base == 10 || !is_fix(a[0])) {
        print(vm, &t, a[0], false);
        return make_string(vm, t.b, t.n);
    }
    size_t at = sizeof digits;
    uint64_t u = fix(a[0]) < 0 ? -(uint64_t)fix(a[0]) : (uint64_t)fix(a[0]);
    do
        digits[--at] = "0123456789abcdefghijklmnopqrstuvwxyz"[u % (uint64_t)base];
    while (u /= (uint64_t)base);
    if (fix(a[0]) < 0)
        digits[--at] = '-';
    return make_string(vm, digits + at, sizeof digits - at);
}
BUILTIN(string_to_number)
{
    value r;
    struct string *s = arg_string(vm, a[0]);
    int64_t base = a[1] == V_UNDEF ? 10 : arg_fix(vm, a[1]);
    if (base < 2 || base > 36)
        vm_bad(vm, "no such base", a[1]);
    return parse_number(vm, s->b, (int)base, &r) ? r : V_FALSE;
}

/* xorshift64*, one sequence for all fibers, the same in every run. */
BUILTIN(random)
{
    static uint64_t state = 88172645463325252u;
    int64_t below = arg_fix(vm, a[0]);
    if (below <= 0)
        vm_bad(vm, "not positive", a[0]);
    uint64_t x = __atomic_load_n(&state, __ATOMIC_RELAXED); /* relaxed: two fibers may get the same number, which is as random */
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    __atomic_store_n(&state, x, __ATOMIC_RELAXED);
    return make_fix((int64_t)((x * UINT64_C(2685821657736338717)) >> 2) % below);
}

const struct builtin_def builtins_numbers[] = {
    { "+", b_add, 0, -1, OP_ADD },             { "-", b_sub, 1, -1, OP_SUB },          { "*", b_mul, 0, -1, 0 },
    { "/", b_div, 1, -1, 0 },             { "<", b_lt, 1, -1, OP_LT },           { ">", b_gt, 1, -1, OP_GT },
    { "<=", b_le, 1, -1, OP_LE },             { ">=", b_ge, 1, -1, OP_GE },          { "=", b_num_eq, 1, -1, OP_NUM_EQ },
    { "quotient", b_quotient, 2, 2, 0 },  { "remainder", b_remainder, 2, 2, 0 }, { "modulo", b_modulo, 2, 2, 0 },
    { "min", b_min, 1, -1, 0 },           { "max", b_max, 1, -1, 0 },        { "abs", b_abs, 1, 1, 0 },
    { "zero?", b_zero, 1, 1, OP_ZEROP },  { "positive?", b_positive, 1, 1, 0 }, { "negative?", b_negative, 1, 1, 0 },
    { "odd?", b_odd, 1, 1, 0 },           { "even?", b_even, 1, 1, 0 },      { "number?", b_is_number, 1, 1, 0 },
    { "integer?", b_is_integer, 1, 1, 0 }, { "exact?", b_is_exact, 1, 1, 0 }, { "exact", b_exact, 1, 1, 0 },
    { "inexact", b_inexact, 1, 1, 0 },    { "inexact->exact", b_exact, 1, 1, 0 }, { "exact->inexact", b_inexact, 1, 1, 0 },
    { "floor", b_floor, 1, 1, 0 },        { "ceiling", b_ceiling, 1, 1, 0 }, { "round", b_round, 1, 1, 0 },
    { "truncate", b_truncate, 1, 1, 0 },  { "sqrt", b_sqrt, 1, 1, 0 },       { "expt", b_expt, 2, 2, 0 },
    { "exp", b_exp, 1, 1, 0 },            { "log", b_log, 1, 1, 0 },         { "sin", b_sin, 1, 1, 0 },
    { "cos", b_cos, 1, 1, 0 },            { "atan", b_atan, 1, 2, 0 },       { "number->string", b_number_to_string, 1, 2, 0 },
    { "string->number", b_string_to_number, 1, 2, 0 }, { "random", b_random, 1, 1, 0 },
    { NULL, NULL, 0, 0, 0 },
};
