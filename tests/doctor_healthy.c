/* The doctor is silent on sound programs: those of the stress modes, on one processor and several. Examples and the server:
 * doctor_bugs.sh. WEFT_TEST_SEED=N repeats a run. */
#include "doctor_test.h"
#include "stress_programs.h"

enum { SHAPES = 8 };

static void run_all(int procs, const char *debug)
{
    struct rng shape;
    weft_config cfg = { .size = sizeof cfg, .maxprocs = procs, .debug = debug, .finding = note_finding };
    rng_seed(&shape, test_seed());
    long_nap_ns = WEFT_MILLISECOND;
    for (size_t i = 0; i < SHAPES * w_countof(programs); i++) {
        const struct program *p = &programs[i % w_countof(programs)];
        test_run_config(&cfg, p->fn, &shape);
        cr_expect_eq(said.n, 0, "%s: W%02d: %s\n%s", p->name, said.at[0].code, said.at[0].what, said.at[0].stack);
        for (int code = 1; code < WEFT_DOCTOR_CODES; code++)
            cr_expect_eq(weft_doctor_count(code), 0, "%s: W%02d", p->name, code);
        said.n = 0;
    }
    cr_expect_eq(stress_wrong[0], 0, "%s", stress_wrong);
}

Test(doctor_healthy, one_processor) { run_all(1, NULL); }
Test(doctor_healthy, several_processors) { run_all(4, NULL); }
Test(doctor_healthy, as_many_as_by_default) { run_all(0, NULL); }
Test(doctor_healthy, each_wait_changes_the_thread) { run_all(2, "migrate=1"); }
