#!/bin/sh
# kv_doctor.sh - how much slower is examples/kv under load with the doctor on (as by default) than with it off? redis-benchmark with 50 clients and
# pipelines of 16, in pairs of servers; medians over the pairs of what it loses in requests per second, and of what a request costs the server in
# processor time (which says it with less noise: client and server share the machine). A finding would be shown: there is none.
#   B=dir  where examples/kv/kv is    BENCH_OUT=dir    ROUNDS=7    REQUESTS=1500000
cd "$(dirname "$0")/.." || exit 1
B=${B:-build/gcc-release}
OUT=${BENCH_OUT:-build/bench}
ROUNDS=${ROUNDS:-7}
REQUESTS=${REQUESTS:-1500000}
command -v redis-benchmark > /dev/null || { echo "bench: kv_doctor: redis-benchmark is missing (Debian: redis-tools)" >&2; exit 1; }
mkdir -p "$OUT" || exit 1
[ -x "$B/examples/kv/kv" ] || ${MAKE:-make} --no-print-directory B="$B" examples > /dev/null || exit 1

SERVER=
trap '[ -n "$SERVER" ] && kill "$SERVER" 2>/dev/null' EXIT
used_ns() { cat /proc/"$SERVER"/task/*/schedstat | awk '{ s += $1 } END { printf "%.0f", s }'; }
once() { # mode of the doctor; prints requests per second, and ns of processor time per request
    : > "$OUT/kv.ready"
    WEFT_DEBUG=doctor=$1 "$B/examples/kv/kv" --port 0 > "$OUT/kv.ready" 2> "$OUT/kv.err" &
    SERVER=$!
    n=0
    while ! grep -q ready "$OUT/kv.ready" && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
    port=$(sed -n 's/.*127.0.0.1:\([0-9]*\).*/\1/p' "$OUT/kv.ready")
    timeout 60 redis-benchmark -p "$port" -t set -n 1000000 -c 50 -P 16 -r 100000 -d 64 -q > /dev/null 2>&1
    before=$(used_ns)
    rps=$(timeout 60 redis-benchmark -p "$port" -t set -n "$REQUESTS" -c 50 -P 16 -r 100000 -d 64 --csv 2>> "$OUT/run.log" | tail -n 1 |
        tr -d '"' | cut -d, -f2)
    after=$(used_ns)
    kill "$SERVER" && wait "$SERVER" 2> /dev/null
    SERVER=
    cat "$OUT/kv.err" >> "$OUT/run.log"
    grep 'weft: doctor' "$OUT/kv.err" >&2
    echo "$rps $(((after - before) / REQUESTS))"
}

: > "$OUT/kv_doctor"
round=0
while [ $round -lt "$ROUNDS" ]; do
    if [ $((round % 2)) = 0 ]; then
        off=$(once off) on=$(once report)
    else
        on=$(once report) off=$(once off)
    fi
    echo "$off $on" >> "$OUT/kv_doctor"
    round=$((round + 1))
done
awk '
function median(v, n,   i, j, t) {
    for (i = 2; i <= n; i++)
        for (j = i; j > 1 && v[j - 1] > v[j]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
    return v[int((n + 1) / 2)]
}
{ rps[NR] = ($1 / $3 - 1) * 100; cpu[NR] = ($4 / $2 - 1) * 100; ns[NR] = $2 }
END {
    printf "kv-doctor          slower      weft %6.2f %% by requests, %.2f %% by processor time of a request (%d ns) | max 1: %s\n",
        median(rps, NR), c = median(cpu, NR), median(ns, NR), c <= 1 ? "ok" : "MISSED"
}' "$OUT/kv_doctor"
