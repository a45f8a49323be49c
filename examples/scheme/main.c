/* scheme - an interpreter for Scheme, written on weft: an example for authors of interpreters. Every object is collected, nothing is freed by
 * hand, no root is registered; fibers run in parallel. Try it:
 *
 *      scheme -e '(map (lambda (x) (* x x)) (iota 10))'     scheme bench/nqueens.scm     scheme < program
 *
 * Where things are, from inside to outside; each file's head says more:
 *
 *      mem.h      what is asked of the collector: the only file that knows which one it is
 *      scheme.h   values and objects
 *      data       making and comparing objects, symbols, hash tables (also weak ones)
 *      read       text -> data
 *      compile    data -> code
 *      vm         runs code; errors; how deep recursion and call/cc work
 *      port       files, strings, printing; a finalizer closes what was dropped
 *      numbers, builtins, fiber    procedures
 *
 * The language: R7RS's core without macros, call/cc that escapes upwards only (guard, raise and error are built on the same), integers of 63
 * bits and doubles, strings of bytes. define-record-type, hash tables in the manner of SRFI 69; spawn, channels.
 *
 * With -DSCHEME_BOEHM and -lgc the same sources run on Boehm's collector, without fibers: make scheme-boehm. */
#include "scheme.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAIN_STACK_BYTES = 4 << 20 };

static const char usage[] = "usage: scheme [-m MIB] [file | -]               runs a file, or what stdin has\n"
                            "       scheme [-m MIB] -e expression [-e ...]   prints what each gives\n"
                            "  -m MIB  heap at most\n";

struct program { char **argv; bool expressions; int status; };

static void define_builtins(struct vm *vm, const struct builtin_def *def)
{
    for (; def->name; def++) {
        struct builtin *b = (struct builtin *)check_memory(vm, mem_bytes(sizeof *b));
        *b = (struct builtin){ make_head(T_BUILTIN, 0), def };
        mem_store(&((struct symbol *)symbol(vm, def->name))->v, (value)b);
    }
}

/* False: no memory for it. */
static bool start(struct vm *vm, struct world *w)
{
    vm_init(vm, w, MAIN_STACK_BYTES);
    if (setjmp(vm->escape) != 0)
        return false;
    data_init();
    w->no_memory = make_error(vm, make_string(vm, "out of memory", 13), V_NIL, V_FALSE);
    w->in = make_port(vm, 0, false, make_string(vm, "stdin", 5));
    w->out = make_port(vm, 1, true, make_string(vm, "stdout", 6));
    w->err = make_port(vm, 2, true, make_string(vm, "stderr", 6));
    ((struct port *)w->out)->eager = isatty(1);
    ((struct port *)w->err)->eager = true;
    define_builtins(vm, builtins_control);
    define_builtins(vm, builtins_data);
    define_builtins(vm, builtins_numbers);
    define_builtins(vm, builtins_ports);
    define_builtins(vm, builtins_fibers);
    compile_init(vm);
    value port = port_open_string(vm, prelude, strlen(prelude), "prelude");
    if (!vm_load(vm, port, false))
        return false;
    for (size_t i = 0; i <= w->symbol_mask; i++)
        for (struct symbol *s = w->symbols[i]; s; s = s->next)
            s->used = false; /* the program may redefine what the prelude uses: that is compiled */
    return true;
}

static bool load(struct vm *vm, const char *name, const char *text)
{
    value port;
    vm->closure = NULL;
    if (setjmp(vm->escape) != 0)
        return false;
    if (text)
        port = port_open_string(vm, text, strlen(text), name);
    else
        port = strcmp(name, "-") == 0 ? vm->world->in : port_open(vm, make_string(vm, name, strlen(name)), false);
    return vm_load(vm, port, text != NULL);
}

static void run(void *arg)
{
    struct program *p = arg;
    struct world w = { .failed = 0 };
    struct vm vm;
    if (!start(&vm, &w)) {
        fputs("scheme: no memory to start with\n", stderr);
        return;
    }
    bool ok = true;
    if (p->expressions)
        for (; ok && *p->argv; p->argv++)
            ok = load(&vm, "-e", *p->argv);
    else
        ok = load(&vm, *p->argv, NULL);
    if (!ok)
        vm_report(&vm, vm.raised);
    if (setjmp(vm.escape) == 0)
        port_flush(&vm, (struct port *)w.out);
    else
        ok = false;
    p->status = !ok || __atomic_load_n(&w.failed, __ATOMIC_RELAXED) != 0; /* relaxed: fibers that are not waited for may fail later */
}

int main(int argc, char **argv)
{
    char *expressions[argc + 1];
    struct program p = { expressions, false, 1 };
    size_t mib = 0;
    int o, n = 0;
    while ((o = getopt(argc, argv, "+e:m:h")) != -1)
        switch (o) {
        case 'e': expressions[n++] = optarg; break;
        case 'm': mib = strtoul(optarg, NULL, 10); break;
        case 'h': fputs(usage, stdout); return 0;
        default: fputs(usage, stderr); return 2;
        }
    if (argc - optind + (n > 0) > 1) {
        fputs(usage, stderr);
        return 2;
    }
    p.expressions = n > 0;
    if (!p.expressions)
        expressions[n++] = optind < argc ? argv[optind] : "-";
    expressions[n] = NULL;
    const char *wrong = mem_run(run, &p, MAIN_STACK_BYTES, mib << 20);
    if (wrong) {
        fprintf(stderr, "scheme: %s\n", wrong);
        return 1;
    }
    return p.status;
}
