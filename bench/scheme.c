/* How long does the garbage benchmark of examples/scheme take, and how much memory, beside the same interpreter on Boehm's collector (peers/scheme_boehm.c)?
 * scheme NAME: runs examples/scheme/bench/NAME.scm, or the file if there is a / in it, in a process of its own; $B is where the interpreter was built.
 * Another peer: the interpreter whose stores tell the collector (peers/scheme_store.c). */
#include "bench.h"
#include <fcntl.h>
#include <sys/wait.h>

#ifndef IMPL
#define IMPL "weft"
#define INTERPRETER "scheme"
#endif

int main(int argc, char **argv)
{
    const char *build = getenv("B"), *name = argc > 1 ? argv[1] : "gcbench";
    char interpreter[4096], program[4096];
    snprintf(interpreter, sizeof interpreter, "%s/examples/scheme/%s", build ? build : "build/gcc-release", INTERPRETER);
    snprintf(program, sizeof program, strchr(name, '/') ? "%s" : "examples/scheme/bench/%s.scm", name);
    bench_span t = bench_begin();
    pid_t child = fork();
    if (child == 0) {
        dup2(open("/dev/null", O_WRONLY), 1);
        execl(interpreter, interpreter, program, (char *)NULL);
        _exit(127);
    }
    int status;
    struct rusage u;
    if (child < 0 || wait4(child, &status, 0, &u) != child || status != 0)
        return 1;
    t = bench_end(t);
    bench_open("scheme", IMPL);
    bench_num("wall_s", (double)t.wall_ns / 1e9);
    bench_num("cpu_s", (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
    bench_num("peak_kib", (double)u.ru_maxrss);
    printf("}\n");
    return 0;
}
