/* vm.h - the machine: its instructions, and what its parts know of each other.
 *
 * Code is an array of 32-bit words, an instruction and then its operands. One register, the accumulator, has the value last computed; the
 * stack grows up, fp points to the first parameter, locals and what waits follow. A frame lies below its parameters:
 *
 *      ... | closure fp pc | parameters, locals, temporaries ... |      free
 *             of the caller  ^fp                                  ^sp
 *
 * (x op y) comes in three forms: x on the stack and y in the accumulator; _L, x in the accumulator and y a local; _I, y a value that fits into
 * an operand. A test that is followed by JF branches at once. */
#ifndef SCHEME_VM_H
#define SCHEME_VM_H

#include "scheme.h"

#define BINARY_OPS(X, name) X(name) X(name##_L) X(name##_I)
#define OPS(X)                                                                                                               \
    X(HALT) X(END_CONT) X(UNDERFLOW)                                                                                         \
    X(CONST)       /* k: a = constant k */                                                                                   \
    X(LOCAL)       /* i: a = fp[i] */                                                                                        \
    X(FREE)        /* i: a = what the closure caught */                                                                      \
    X(SELF)        /* a = the closure itself */                                                                              \
    X(GLOBAL)      /* k: a = value of the symbol k */                                                                        \
    X(UNBOX)       /* k: a = what is in the box a; k names it */                                                             \
    X(PUSH) X(PUSH_CONST) X(PUSH_LOCAL)                                                                                      \
    X(PUSH_BOX)    /* a new box */                                                                                           \
    X(BOX)         /* i: fp[i] goes into a box */                                                                            \
    X(SET_LOCAL)   /* i: fp[i] = a */                                                                                        \
    X(SET_BOX)     /* i: the box fp[i] gets a */                                                                             \
    X(SET_FREE)    /* i: the box that the closure caught gets a */                                                           \
    X(SET_GLOBAL) X(DEFINE) /* k */                                                                                          \
    X(POP_LOCAL)   /* i: fp[i] = what is on top */                                                                           \
    X(POP)         /* n */                                                                                                   \
    X(JUMP) X(JF) X(JT) /* to: counted from this operand */                                                                  \
    X(FRAME)       /* to: where the call that is prepared returns to */                                                      \
    X(CALL)        /* n: calls a with n arguments */                                                                         \
    X(TAIL_CALL) X(CALL_GLOBAL) X(TAIL_CALL_GLOBAL) /* n; _GLOBAL: k n */                                                    \
    X(RETURN)                                                                                                                \
    X(CLOSURE)     /* k n, then n words that say what is caught: kind of where in the low bits, index above */               \
    X(PATCH)       /* i j: the closure a catches fp[j] as its ith */                                                         \
    X(PRIM)        /* k n: calls the builtin k */                                                                            \
    X(CAR) X(CDR) X(CADR) X(NULLP) X(PAIRP) X(NOT) X(ZEROP) X(VECTOR_SET) X(EQ_K)                                            \
    BINARY_OPS(X, ADD) BINARY_OPS(X, SUB) BINARY_OPS(X, LT) BINARY_OPS(X, GT) BINARY_OPS(X, LE) BINARY_OPS(X, GE)            \
    BINARY_OPS(X, NUM_EQ) BINARY_OPS(X, EQ) BINARY_OPS(X, CONS) BINARY_OPS(X, VECTOR_REF)

#define OP_ENUM(name) OP_##name,
enum op { OPS(OP_ENUM) };

/* Arguments of an instruction that does what a builtin does. */
static inline int op_arguments(int op) { return op == OP_VECTOR_SET ? 3 : op < OP_VECTOR_SET ? 1 : 2; }

/* Where a variable is. */
enum where { IN_LOCAL, IN_FREE, IN_SELF, IN_GLOBAL };

/* Builtins that change what runs next. */
enum control { CONTROL_APPLY, CONTROL_CALL_CC, CONTROL_TRY, CONTROL_EVAL };

/* A continuation that call/cc gave out, or the place of a handler. It can be used while the call that made it lasts. */
struct cont {
    uint64_t head;
    struct cont *outer;
    struct chunk *chunk;
    value *sp;          /* just above the frame to return to */
    value handler;      /* called with what was raised; V_UNDEF: this is call/cc's */
    struct vm *vm;      /* not a pointer to an object: of the fiber's stack */
    bool live;
};

#endif
