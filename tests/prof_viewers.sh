#!/bin/sh
# prof_viewers - profiles of examples/kv under load, in the viewer that they are for: go tool pprof (built to build/go), its reports and its web pages.
B=${B:?output directory}
. "$(dirname "$0")/support/script.sh"
PPROF=$(pwd)/build/go/pprof
[ -x "$PPROF" ] || PPROF=$(dirname "$0")/../build/go/pprof
TMP=$(mktemp -d) || exit 1
SERVER=
VIEWER=
trap '[ -n "$SERVER" ] && kill "$SERVER" 2>/dev/null; [ -n "$VIEWER" ] && kill "$VIEWER" 2>/dev/null; rm -rf "$TMP"' EXIT
export PPROF_TMPDIR="$TMP"

for tool in redis-benchmark curl; do
    command -v $tool > /dev/null || { echo "not ok prof_viewers: $tool is missing (Debian: redis-tools, curl)"; exit 1; }
done
[ -x "$PPROF" ] || { echo "skipped: go tool pprof is not there: install Go"; exit 0; }

says() { # name, file, words...
    name=$1 file=$2; shift 2
    wrong=
    for word in "$@"; do
        grep -q -- "$word" "$file" || wrong="$wrong [no '$word']"
    done
    if [ -z "$wrong" ]; then echo "ok $name"; else echo "not ok $name:$wrong"; head -n 25 "$file"; bad=1; fi
}
view() { # name, profile, options: then words that the report has
    name=$1 profile=$2 options=$3; shift 3
    # shellcheck disable=SC2086
    timeout 60 "$PPROF" $options "$profile" > "$TMP/report" 2>&1 || echo "exit code $?" >> "$TMP/report"
    says "$name" "$TMP/report" "$@"
}

kv_start --procs 2 --cpu-profile "$TMP/cpu.pb.gz" --wall-profile "$TMP/wall.pb.gz"
load() { timeout 60 redis-benchmark -p "$port" -t set,lpush -n 100000 -c 20 -P 16 -r 10000 -d 64 -q > /dev/null 2>&1; }
load
cp "$TMP/cpu.pb.gz" "$TMP/middle.pb.gz" # while it is being taken: what has been flushed is a profile, unless a piece is just being written
load
kv_stop
[ $code = 0 ] && [ ! -s "$TMP/err" ] || { echo "not ok server: exit code $code: $(cat "$TMP/err")"; bad=1; }

view top "$TMP/cpu.pb.gz" -top "^File: kv$" "^Type: cpu$" "^Duration: " "Total samples = " "flat%"
view cum "$TMP/cpu.pb.gz" "-top -cum" "cmd_execute\|conn\|serve\|handle\|cmd_" "weft_"
view lines "$TMP/cpu.pb.gz" "-top -lines" "examples/kv/[a-z_]*\.c:[0-9]"
view raw "$TMP/cpu.pb.gz" -raw "PeriodType: cpu nanoseconds" "^Period: 10000000$" "samples/count cpu/nanoseconds" "/kv " "\[FN\]"
view tree "$TMP/cpu.pb.gz" -tree "calls%"
view traces "$TMP/cpu.pb.gz" -traces "-----------+"
view peek "$TMP/cpu.pb.gz" "-peek=runtime" "runtime\.\(sched\|gc\|profiler\)"
view middle "$TMP/middle.pb.gz" -top "^Type: cpu$"
view difference "$TMP/cpu.pb.gz" "-top -diff_base=$TMP/middle.pb.gz" "^Type: cpu$" "Total samples = "
view wall "$TMP/wall.pb.gz" -top "^Type: wall$"
view states "$TMP/wall.pb.gz" -tags "state: Total" "IO wait"

"$PPROF" -no_browser -http 127.0.0.1: "$TMP/cpu.pb.gz" > "$TMP/http" 2>&1 &
VIEWER=$!
serves_or_ended() {
    url=$(sed -n 's|.*Serving web UI on \(http://[^ /]*\).*|\1|p' "$TMP/http")
    [ -n "$url" ] || ! kill -0 $VIEWER 2> /dev/null
}
until_it 60 serves_or_ended
page() { timeout 60 curl -sf --retry 20 --retry-connrefused "$url/ui/$1" > "$TMP/page" || cat "$TMP/http" >> "$TMP/page"; }
page top
says "http top" "$TMP/page" "<title>kv cpu" "TopTable\|viewer("
page flamegraph
says "http flamegraph" "$TMP/page" "stackViewer\|stack-chart" "weft_"
page peek
says "http peek" "$TMP/page" "calls%"
exit $bad
