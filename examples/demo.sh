#!/bin/sh
# demo.sh - the tour that `make demo` gives: the classic misuses of a managed runtime, each as it is, fixed, and with weft's guards on, with what the
# doctor finds; then a key-value server under redis-benchmark, with what the collector did meanwhile. All of it goes into a page as well. Exit 0: every
# bug was reproduced and found, and every fix and guard holds.
#   B=dir  where the programs are (make sets it)     DEMO_REQUESTS=200000     DEMO_PAGE=demo-report.html
cd "$(dirname "$0")/.." || exit 1
B=${B:-build/gcc-release}
REQUESTS=${DEMO_REQUESTS:-200000}
PAGE=${DEMO_PAGE:-demo-report.html}
TMP=$(mktemp -d) || exit 1
SERVER=
trap '[ -n "$SERVER" ] && kill "$SERVER" 2>/dev/null; rm -rf "$TMP"' EXIT
trap 'exit 130' INT TERM
failed=0

line() { printf '%s\n' "----------------------------------------------------------------------------------------------------------"; }

# ---- the bugs --------------------------------------------------------------------------------------------
# What goes wrong is in the head of each program; the words after "What goes wrong:" up to "Instead:" are shown.
what_goes_wrong() {
    sed -n '/^ \* What goes wrong:/,/^ \* Instead:/{/^ \* Instead:/d;s/^ \* *//;s/^What goes wrong: *//;p}' "$1" | tr '\n' ' ' |
        awk '{ print toupper(substr($0, 1, 1)) substr($0, 2) }' | fold -s -w 104 | sed 's/ *$//;s/^/  /'
}

echo "weft: what goes wrong with a managed runtime, and what to write instead"
export BUG_TABLE="$TMP/table" BUG_REPORT="$TMP/report"
: > "$BUG_TABLE"
printf 'machine\t%s processors, %s, Linux %s\n' "$(nproc)" "$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | sed -n 1p)" "$(uname -r)" > "$BUG_REPORT"
printf 'date\t%s\n' "$(LC_ALL=C date '+%e %B %Y' | sed 's/^ //')" >> "$BUG_REPORT"
for source in examples/bugs/[0-9]*.c; do
    program=$B/examples/bugs/$(basename "$source" .c)
    line
    "$program" > "$TMP/out" 2> "$TMP/err" || { failed=$((failed + 1)); cat "$TMP/err"; }
    sed -n 1p "$TMP/out"
    what_goes_wrong "$source"
    sed 1d "$TMP/out"
    [ -s "$TMP/out" ] || echo "$program did not run"
done
line
printf '%-3s %-38s %-29s %-30s %-30s %s\n' bug what buggy fixed guarded verdict
awk -F '\t' '{ printf "%-3s %-38s %-29s %-30s %-30s %s\n", $1, $2, $3, $4, $5, $6 }' "$BUG_TABLE"
line

# ---- the server ------------------------------------------------------------------------------------------
run_server() {
    : > "$TMP/kv"
    "$B/examples/kv/kv" --port 0 > "$TMP/kv" 2> "$TMP/kv.err" &
    SERVER=$!
    n=0
    while ! grep -q ready "$TMP/kv" && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
    port=$(sed -n 's/^kv: ready on 127.0.0.1:\([0-9]*\).*/\1/p' "$TMP/kv")
    [ -n "$port" ] || { echo "the server did not start:"; cat "$TMP/kv.err"; return 1; }
    echo "kv, a server that speaks the Redis protocol: one fiber per connection, all data in the collected heap; port $port"
    echo "redis-benchmark, 50 connections, 100000 keys, values of 64 bytes; $REQUESTS requests in pipelines of 16, a quarter of that one by one:"
    for pipeline in 1 16; do
        for test in set get incr lpush lpop hset; do
            count=$((pipeline == 1 ? REQUESTS / 4 : REQUESTS))
            timeout 120 redis-benchmark -p "$port" -t $test -n "$count" -c 50 -P $pipeline -r 100000 -d 64 --csv 2>/dev/null |
                tail -n 1 | tr -d '"' |
                awk -F, -v p=$pipeline '{ printf "  %-6s pipeline %2d  %9.0f requests/s   p50 %6.2f ms   p99 %6.2f ms\n", $1, p, $2, $5, $7 }'
        done
    done | tee "$TMP/rates"
    [ "$(wc -l < "$TMP/rates")" -eq 12 ] || { echo "redis-benchmark did not finish"; return 1; }
    awk '{ printf "command\t%s %s %s %s %s\n", $1, $3, $4, $7, $10 }' "$TMP/rates" >> "$BUG_REPORT"
    sleep 1.1 # the server keeps its figures for a second
    echo "Meanwhile the collector:"
    redis-cli -p "$port" info > "$TMP/info" || return 1
    tr -d '\r' < "$TMP/info" | awk -F: '{ v[$1] = $2 } END {
        printf "  %d commands allocated %.1f million objects, %.0f MiB in all; %.1f MiB live, %.0f MiB resident\n",
            v["total_commands_processed"], v["allocated_objects"] / 1e6, v["allocated_bytes"] / 1048576, v["used_memory"] / 1048576,
            v["used_memory_rss"] / 1048576
        printf "  %d collections stopped the world for %.1f ms in all: half of them at most %.2f ms, the longest %.2f ms; %.2f %% of CPU time\n",
            v["gc_cycles"], v["gc_stop_total_us"] / 1000, v["gc_stop_p50_us"] / 1000, v["gc_stop_max_us"] / 1000, v["gc_cpu_percent"]
    }' | tee "$TMP/meanwhile"
    sed 's/^ */note\t/' "$TMP/meanwhile" >> "$BUG_REPORT"
    kill -TERM "$SERVER"
    wait "$SERVER"
    code=$?
    SERVER=
    sed -n '2,$s/^/  /p' "$TMP/kv"
    [ $code = 0 ] || { echo "the server ended with code $code:"; cat "$TMP/kv.err"; return 1; }
}

if command -v redis-benchmark > /dev/null && command -v redis-cli > /dev/null; then
    run_server || failed=$((failed + 1))
else
    echo "The server was not shown: redis-benchmark is missing. Debian and Ubuntu: apt-get install redis-tools"
    failed=$((failed + 1))
fi
line
if "$B/examples/bugs/report" "$BUG_REPORT" examples/bugs/[0-9]*.c > "$TMP/page" && mv "$TMP/page" "$PAGE"; then
    echo "The same as a page, with plots: $PAGE"
else
    failed=$((failed + 1))
fi
if [ $failed = 0 ]; then
    echo "demo: every bug reproduced and found, every fix and guard holds, the server served"
else
    echo "demo: $failed part(s) did not hold, see above"
    exit 1
fi
