#!/bin/sh
# kv.sh - how many requests per second does examples/kv serve, against the same server in Go with a goroutine per connection (bench/go/kv)?
# redis-benchmark with 50 clients, without and with pipelines of 16, alternating between the servers; medians of ROUNDS rounds.
#   B=dir  where examples/kv/kv is    BENCH_OUT=dir    ROUNDS=5    REQUESTS=60000 (ten times as many with pipelines)
cd "$(dirname "$0")/.." || exit 1
B=${B:-build/gcc-release}
OUT=${BENCH_OUT:-build/bench}
ROUNDS=${ROUNDS:-5}
REQUESTS=${REQUESTS:-60000}
TESTS="set get incr lpush lpop"
command -v redis-benchmark > /dev/null || { echo "bench: kv: redis-benchmark is missing (Debian: redis-tools)" >&2; exit 1; }
mkdir -p "$OUT/go" || exit 1
OUT=$(cd "$OUT" && pwd)
impls=weft
[ -x "$B/examples/kv/kv" ] || ${MAKE:-make} --no-print-directory B="$B" examples > /dev/null || exit 1
if command -v go > /dev/null; then
    (cd bench/go && go build -o "$OUT/go/kv" ./kv) && impls="weft go"
fi

SERVER=
trap '[ -n "$SERVER" ] && kill "$SERVER" 2>/dev/null' EXIT
start() { # impl
    ready=$OUT/kv.$1.ready
    : > "$ready"
    case $1 in
    weft) "$B/examples/kv/kv" --port 0 > "$ready" 2>> "$OUT/run.log" & ;;
    go) "$OUT/go/kv" -addr 127.0.0.1:0 > "$ready" 2>> "$OUT/run.log" & ;;
    esac
    SERVER=$!
    n=0
    while ! grep -q ready "$ready" && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
    port=$(sed -n 's/.*127.0.0.1:\([0-9]*\).*/\1/p' "$ready")
}

: > "$OUT/kv.jsonl"
round=0
while [ $round -lt "$ROUNDS" ]; do
    for impl in $impls; do
        start "$impl"
        for pipeline in 1 16; do
            for test in $TESTS; do
                count=$((pipeline == 1 ? REQUESTS : REQUESTS * 10))
                timeout 120 redis-benchmark -p "$port" -t "$test" -n $count -c 50 -P $pipeline -r 100000 -d 64 --csv 2>> "$OUT/run.log" |
                    tail -n 1 | tr -d '"' | awk -F, -v i="$impl" -v t="$test" -v p=$pipeline \
                    '{ printf "{\"bench\":\"kv\",\"impl\":\"%s\",\"test\":\"%s\",\"pipeline\":%d,\"rps\":%s,\"p50_ms\":%s,\"p99_ms\":%s}\n", i, t, p, $2, $5, $7 }' \
                    >> "$OUT/kv.jsonl"
            done
        done
        kill "$SERVER" && wait "$SERVER" 2> /dev/null
        SERVER=
    done
    round=$((round + 1))
done

# A row per command and pipeline: medians, and how many times Go's rate is ours; the goal is once.
tr -d '{}"' < "$OUT/kv.jsonl" | awk -F '[:,]' '
function median(list,   n, v, i, j, t) {
    n = split(list, v, " ")
    for (i = 2; i <= n; i++)
        for (j = i; j > 1 && v[j - 1] + 0 > v[j] + 0; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
    return n % 2 ? v[(n + 1) / 2] + 0 : (v[n / 2] + v[n / 2 + 1]) / 2
}
{
    key = $6 "-" $8
    if (!(key in seen)) { seen[key] = 1; order[++keys] = key }
    rps[key, $4] = rps[key, $4] " " $10
    p99[key, $4] = p99[key, $4] " " $14
}
END {
    for (k = 1; k <= keys; k++) {
        key = order[k]
        w = median(rps[key, "weft"])
        text = sprintf("kv-%-14s rps         weft %11.0f", key, w)
        if ((key, "go") in rps) {
            g = median(rps[key, "go"])
            text = text sprintf("  go       %9.0f (weft %.2fx) p99 %.2f ms, go %.2f ms |  go 1x: %s", g, g > 0 ? w / g : 0,
                median(p99[key, "weft"]), median(p99[key, "go"]), w >= g ? "ok" : "MISSED")
        }
        print text
    }
}'
