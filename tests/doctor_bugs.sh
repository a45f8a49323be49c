#!/bin/sh
# doctor_bugs - the doctor finds in each example the bug that it shows, and no other; in its fixed form nothing; and nothing in programs that are sound:
# hello, the interpreter, the server under load with a client that polls, profiles and a trace. (Programs for stress: doctor_healthy.c.)
B=${B:?output directory}
. "$(dirname "$0")/support/script.sh"
TMP=$(mktemp -d) || exit 1
SERVER=
trap '[ -n "$SERVER" ] && kill "$SERVER" 2>/dev/null; rm -rf "$TMP"' EXIT
unset WEFT_DEBUG WEFT_MAXPROCS # they run as their users run them

# The codes in a program's output, each once: lines of the log, or of the examples' own.
codes() { sed -n 's/^weft: doctor: \(W[0-9]*\): .*/\1/p; s/^  doctor  *\(W[0-9]*\): .*/\1/p' "$1" | sort -u | tr '\n' ' ' | sed 's/ $//'; }
found() { # wanted codes, name, command...
    want=$1 name=$2; shift 2
    timeout 150 "$@" > "$TMP/$name" 2>&1
    code=$? got=$(codes "$TMP/$name") wrong=
    [ $code = 0 ] || wrong="exit code $code"
    [ "$got" = "$want" ] || wrong="$wrong found: ${got:-nothing}, wanted: ${want:-nothing}"
    [ -z "$wrong" ] || wrong="$wrong
$(tail -n 30 "$TMP/$name")"
    report "$name" "$wrong"
}

# ---- the examples ------------------------------------------------------------------------------------------------------------------------
# Where what they show is a matter of time, resident memory, or what a compiler does, they run without a sanitizer; as in examples_bugs.sh.
for program in examples/bugs/[0-9]*.c; do
    bug=$(basename "$program" .c)
    number=${bug%%_*}
    grep -q "WEFT_W$number\>" src/debug/*.c src/debug/serve/*.c || continue # nobody looks for it
    but=
    case $number in
    07 | 11) [ "$SAN" != thread ] || continue ;;
    04 | 05 | 06 | 10 | 12 | 13) [ -z "$SAN" ] || continue ;;
    14)
        [ -x "$B/examples/bugs/$bug" ] || continue # without the endpoint (SERVE=) there is none
        but=w04=off                                # strangers have collections made: as many as they get, which is another bug
        ;;
    esac
    found "W$number" "${bug}_buggy" env WEFT_DEBUG=$but "$B/examples/bugs/$bug" buggy
    found "" "${bug}_fixed" "$B/examples/bugs/$bug" fixed
done

# ---- sound programs ------------------------------------------------------------------------------------------------------------------------
found "" hello "$B/examples/hello"
for program in examples/scheme/bench/*.scm; do
    found "" "scheme_$(basename "$program" .scm)" "$B/examples/scheme/scheme" "$program"
done

stop() {
    kv_stop
    [ $code = 0 ] || wrong="$wrong exit code $code"
    got=$(codes "$TMP/err")
    [ -z "$got" ] || wrong="$wrong found: $got: $(grep -A 12 '^weft: doctor' "$TMP/err")"
}
load() { # name, options of the server
    name=$1; shift
    wrong=
    kv_start "$@"
    (while kill -0 "$SERVER" 2> /dev/null; do timeout 20 redis-cli -p "$port" info > /dev/null 2>&1; sleep 0.05; done) & # as a monitor polls
    poller=$!
    timeout 60 redis-benchmark -p "$port" -n 20000 -t ping_mbulk,set,get,incr,lpush,lpop,hset,lrange_100,mset -r 10000 -c 50 --csv > "$TMP/bench" 2>&1 ||
        wrong=" redis-benchmark: $(tail -n 1 "$TMP/bench")"
    timeout 60 redis-benchmark -p "$port" -n 100000 -t set,get,lpush,lpop -r 10000 -d 100 -c 200 -P 16 --csv > "$TMP/bench" 2>&1 ||
        wrong="$wrong redis-benchmark: $(tail -n 1 "$TMP/bench")"
    stop
    wait "$poller"
    report "$name" "$wrong"
}
if command -v redis-cli > /dev/null && command -v redis-benchmark > /dev/null; then
    load kv
    load kv_profiled --cpu-profile "$TMP/cpu" --wall-profile "$TMP/wall" --trace "$TMP/trace"
elif [ "$CI" = true ]; then
    report kv "redis-tools is missing (Debian: redis-tools)"
else
    echo "ok kv # skipped: redis-tools is missing (Debian: redis-tools)"
fi
exit $bad
