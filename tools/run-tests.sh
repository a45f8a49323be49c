#!/bin/sh
# Runs test programs and test scripts, two at a time, and adds up their results.  run-tests.sh FILE...
# A test program is a Criterion runner: it prints its failures and a line "Synthesis: Tested: N | Passing: ...". A test script prints
# "ok NAME" or "not ok NAME: why" per case. What a test did not try, and why, is shown. Output of what passes is
# kept in $B/tests/log. TEST_TIMEOUT: seconds for one file (default 240).
set -u
B=${B:?output directory}
log=$B/tests/log
rm -rf "$log"
mkdir -p "$log"
export B CC CXX SAN MAKE
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0:detect_stack_use_after_return=0}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"
export TSAN_OPTIONS="${TSAN_OPTIONS:-second_deadlock_stack=1:suppressions=$PWD/tests/tsan.supp}"

one='
    name=$(basename "$1"); out='"$log"'/$name
    start=$(date +%s)
    case $1 in
    *.sh) timeout -k 5 ${TEST_TIMEOUT:-240} sh "$1" >"$out" 2>&1 ;;
    *) timeout -k 5 ${TEST_TIMEOUT:-240} $TEST_WRAP "$1" --jobs 2 $verbose --timeout ${TEST_CASE_TIMEOUT:-60} >"$out" 2>&1 ;;
    esac
    rc=$?
    echo "$rc $(($(date +%s) - start))" >"$out.rc"
'
TEST_WRAP=${TEST_WRAP:-}
verbose=--verbose=1 # names what runs: what hung can be seen
export TEST_WRAP verbose
printf '%s\n' "$@" | xargs -P "${TEST_JOBS:-2}" -I{} sh -c "$one" sh {}

passed=0 failed=0 files=0
for t in "$@"; do
    name=$(basename "$t")
    out=$log/$name
    read -r rc secs <"$out.rc" || { rc=1 secs=0; }
    files=$((files + 1))
    case $t in
    *.sh)
        p=$(grep -c '^ok ' "$out")
        f=$(grep -c '^not ok ' "$out")
        ;;
    *)
        counts=$(sed 's/\x1b\[[0-9;]*m//g' "$out" | sed -n 's/.*Synthesis: Tested: \([0-9]*\) | Passing: \([0-9]*\).*/\1 \2/p')
        p=$(echo "$counts" | cut -d' ' -f2)
        f=$((${counts%% *} - ${p:-0}))
        ;;
    esac
    p=${p:-0}
    # A file that ends badly has failed even if it did not come to say so.
    [ "$rc" = 0 ] || [ "$f" -gt 0 ] || f=1
    passed=$((passed + p))
    failed=$((failed + f))
    if [ "$f" -gt 0 ]; then
        printf 'FAIL  %-28s %3d passed, %d failed, exit %d, %d s\n' "$name" "$p" "$f" "$rc" "$secs"
        hide='^ok |\[PASS\]|\[SKIP\]|\[RUN \]'
        [ "$rc" != 124 ] || hide='^ok |\[PASS\]|\[SKIP\]' # ended from outside: what ran is among those that began
        grep -vE "$hide" "$out" | tail -n 60 | sed 's/^/      /'
    else
        printf 'ok    %-28s %3d passed, %d s\n' "$name" "$p" "$secs"
    fi
    sed -n 's/\x1b\[[0-9;]*m//g; s/^\[SKIP\] /SKIP  /p' "$out"
done
echo "$passed passed, $failed failed ($files files)"
[ "$failed" = 0 ]
