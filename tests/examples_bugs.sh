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
# The page of two of them: what was found, measured and written is in it, and nothing that a browser would have to fetch or run.
TMP=$(mktemp -d) || exit 1
trap 'rm -rf "$TMP"' EXIT
for name in 08_leak_check_by_number 09_trace_started_twice; do
    BUG_REPORT="$TMP/records" timeout 150 "$B/examples/bugs/$name" > "$TMP/said" 2>&1 || { echo "not ok page: $name failed"; cat "$TMP/said"; bad=1; }
done
printf 'command\tSET 1 75758 0.34 0.51\nnote\t3 < 4 & "5"\n' >> "$TMP/records"
"$B/examples/bugs/report" "$TMP/records" examples/bugs/[0-9]*.c > "$TMP/page" || { echo "not ok page: exit code $?"; bad=1; }
wrong=
in_page() { grep -qF "$1" "$TMP/page" || wrong="$wrong
lacks: $1"; }
for number in 08 09; do
    in_page "<section id=\"bug$number\">"
    in_page "<b>W$number</b>"
    in_page "stopped by the doctor: W$number"
done
in_page 'That it always starts.'                                     # what 09 assumes, from its head
in_page '5 leaks found, 0 real'                                      # a cell
in_page '<rect class="buggy"'
in_page "$(printf '75\342\200\257758/s')"
in_page '3 &lt; 4 &amp; &quot;5&quot;'
got=$(grep -oE '<script|https?:|url\(|@import|src=' "$TMP/page" | sort -u)
[ -z "$got" ] || wrong="$wrong
fetches or runs: $got"
[ "$(grep -o '<section' "$TMP/page" | wc -l)" = "$(grep -o '</section' "$TMP/page" | wc -l)" ] || wrong="$wrong
sections are not closed"
if [ -z "$wrong" ]; then echo "ok page"; else echo "not ok page:$wrong"; bad=1; fi
[ "$("$B/examples/bugs/01_finalizer_capture" nonsense 2>&1 | cut -c1-6)" = usage: ] || { echo "not ok usage"; bad=1; }
exit $bad
