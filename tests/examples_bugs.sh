#!/bin/sh
# examples_bugs - the programs in examples/bugs whose verdict is a matter of counts reproduce their bug, have it found by the doctor, and show that its fix
# and its guard hold. 04, 06, 10 and 12 compare times
# and 13 resident memory, which a sanitizer or an emulator changes, and 05 needs a compiler that forgets a variable after its last use, which a
# sanitizer's may not: they run where neither is in the way.
B=${B:?output directory}
bad=0
unset WEFT_DEBUG WEFT_MAXPROCS # they measure, as their users run them
check() { # name, words expected at the end, command...
    name=$1 want=$2; shift 2
    got=$(timeout 150 "$@" 2>&1)
    code=$?
    case $code$got in
    0*"$want") echo "ok $name" ;;
    *) echo "not ok $name: exit code $code"; echo "$got"; bad=1 ;;
    esac
}
check hello "100 fibers grew 1638400 leaves" "$B/examples/hello"
for program in examples/bugs/[0-9]*.c; do
    name=$(basename "$program" .c)
    number=${name%%_*}
    case $number in
    07) [ "$SAN" != thread ] || continue ;; # it puts signals off to the next call that it knows
    04 | 05 | 06 | 10 | 12 | 13) [ -z "$SAN" ] && [ -z "$TEST_WRAP" ] || continue ;;
    14) [ -x "$B/examples/bugs/$name" ] || continue ;; # without the endpoint (SERVE=) there is none
    11) [ "$SAN" != thread ] || continue ;; # ten thousand fibers are threads to it, of which it allows 8128
    esac
    check "$name" "bug $number: reproduced, found, fix and guard hold" "$B/examples/bugs/$name"
done
[ "$("$B/examples/bugs/01_finalizer_capture" nonsense 2>&1 | cut -c1-6)" = usage: ] || { echo "not ok usage"; bad=1; }
exit $bad
