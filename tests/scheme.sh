#!/bin/sh
# scheme - examples/scheme: the language, the benchmark programs; the same with another collector, and while collections come all the time and what is
# freed is poisoned.
. tests/support/scheme.sh

language
report language
ports
report ports
tables
report tables
errors
report errors
fibers
report fibers

for name in tak deriv nqueens gcbench strings tables sieve; do
    program $name
    report bench_$name
done

# The same programs on Boehm's collector, which has no fibers.
if [ -n "$SAN" ]; then
    : # is in that collector's way
elif echo '#include <gc.h>' | ${CC:-cc} -E - > /dev/null 2>&1; then
    use scheme-boehm
    for name in nqueens gcbench strings tables; do program $name; done
    ports
    tables
    S=$B/examples/scheme/scheme
    report boehm
elif [ "${CI:-}" = true ]; then
    wrong=" its collector is missing (Debian: libgc-dev)"
    report boehm
fi

# ---- the rare path at every chance ------------------------------------------------------------------------------------------------------
not_under_tsan
export WEFT_DEBUG=gcstress=20,gcpoison=1
ports
tables
fibers
report stress_parts
for pair in nqueens,1000 strings,5000 tables,5000 sieve,1000 gcbench,200000; do
    export WEFT_DEBUG="gcstress=${pair#*,},gcpoison=1"
    program "${pair%,*}"
done
report stress_programs
exit $bad
