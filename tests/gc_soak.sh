#!/bin/sh
# gc_soak - the long random run against the collector (tests/soak/soak.h; make soak), for some seconds.
. tests/support/script.sh
B=${B:?output directory} SAN=${SAN:-}

case ,${WEFT_DEBUG:-}, in
*,gc=mprotect,*) keep=-k ;; # a read(2) into an armed page fails there, as is said of it
*) keep= ;;
esac

soak() { # name, options
    name=$1
    shift
    # shellcheck disable=SC2086
    got=$(timeout 200 "$B/tests/soak/soak" "$@" $keep 2>&1)
    code=$?
    case $code in
    77) echo "[SKIP] gc_soak: $name: $got" ;;
    *) report "$name" "$([ $code = 0 ] || echo "exit code $code: $got")" ;;
    esac
}

if [ "$SAN" = thread ]; then # each stop waits for who runs without a call that ThreadSanitizer knows
    soak a_smaller_heap -s 3 -n 1000
    exit $bad
fi
soak one_processor -s 3 -p 1
soak several_processors -s 3
soak a_larger_heap -s 4 -n 20000
soak many_collections -s 4 -p 2 -g 20 -n 10000
soak each_mark_is_verified -s 4 -p 4 -d gcverify=1,gcpoison=1
soak every_500th_allocation_collects -s 3 -p 2 -d gcstress=500,gcpoison=1
soak each_wait_changes_the_thread -s 3 -d migrate=1,gcpoison=1
exit $bad
