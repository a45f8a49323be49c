/* The question of ../scheme.c to the interpreter on Boehm's collector: make scheme-boehm. run.sh sets GC_MARKERS. */
#define IMPL "boehm"
#define INTERPRETER "scheme-boehm"
#include "../scheme.c"
