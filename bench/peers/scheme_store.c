/* The question of ../scheme.c to the interpreter whose stores tell the collector: make scheme-store. */
#define IMPL "store"
#define INTERPRETER "scheme-store"
#include "../scheme.c"
