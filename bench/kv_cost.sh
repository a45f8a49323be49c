#!/bin/sh
# kv_cost.sh profile|doctor - how much slower is examples/kv under load
#   profile   while it takes a CPU profile, at 100 Hz, of itself? Before that there is load for more than a second, in which a profile reads the symbols
#             of the program and of libc, once, for some 50 ms.
#   doctor    with the doctor on (as by default) than with it off? A finding would be shown: there is none.
# redis-benchmark with 50 clients and pipelines of 16, in pairs of servers, one without and one with; medians over the pairs of what it loses in requests
# per second, and of what a request costs the server in processor time (which says it with less noise: client and server share the machine).
#   B=dir  where examples/kv/kv is    BENCH_OUT=dir    ROUNDS=7    REQUESTS=1500000
cd "$(dirname "$0")/.." || exit 1
B=${B:-build/gcc-release}
OUT=${BENCH_OUT:-build/bench}
ROUNDS=${ROUNDS:-7}
REQUESTS=${REQUESTS:-1500000}
case $1 in
profile) name=kv-cpu-profile most=2 ;;
doctor) name=kv-doctor most=1 ;;
*) echo "kv_cost.sh profile|doctor" >&2; exit 2 ;;
esac
what=$1
command -v redis-benchmark > /dev/null || { echo "bench: kv_cost: redis-benchmark is missing (Debian: redis-tools)" >&2; exit 1; }
mkdir -p "$OUT" || exit 1
[ -x "$B/examples/kv/kv" ] || ${MAKE:-make} --no-print-directory B="$B" examples > /dev/null || exit 1

SERVER=
trap '[ -n "$SERVER" ] && kill "$SERVER" 2>/dev/null' EXIT
used_ns() { cat /proc/"$SERVER"/task/*/schedstat | awk '{ s += $1 } END { printf "%.0f", s }'; }
once() { # off or on; prints requests per second, and ns of processor time per request
    : > "$OUT/kv.ready"
    doctor=report profile=
    case $what-$1 in
    doctor-off) doctor=off ;;
    profile-on) profile="--cpu-profile /dev/null" ;;
    esac
    WEFT_DEBUG=doctor=$doctor "$B/examples/kv/kv" --port 0 $profile > "$OUT/kv.ready" 2> "$OUT/kv.err" &
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

: > "$OUT/kv_$what"
round=0
while [ $round -lt "$ROUNDS" ]; do
    if [ $((round % 2)) = 0 ]; then
        off=$(once off) on=$(once on)
    else
        on=$(once on) off=$(once off)
    fi
    echo "$off $on" >> "$OUT/kv_$what"
    round=$((round + 1))
done
awk -v name=$name -v most=$most '
function median(v, n,   i, j, t) {
    for (i = 2; i <= n; i++)
        for (j = i; j > 1 && v[j - 1] > v[j]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
    return v[int((n + 1) / 2)]
}
{ rps[NR] = ($1 / $3 - 1) * 100; cpu[NR] = ($4 / $2 - 1) * 100; ns[NR] = $2 }
END {
    printf "%-18s slower      weft %6.2f %% by requests, %.2f %% by processor time of a request (%d ns) | max %d: %s\n",
        name, median(rps, NR), c = median(cpu, NR), median(ns, NR), most, c <= most ? "ok" : "MISSED"
}' "$OUT/kv_$what"
