#!/bin/sh
# serve_viewers - the endpoint of examples/kv under load, asked by those that it is for: curl, go tool pprof, go tool trace; and by scrapers, as Parca and
# Grafana Alloy ask by default; and beside a Go program that serves net/http/pprof: the same questions have the same answers.
B=${B:?output directory}
. "$(dirname "$0")/support/script.sh"
HERE=$(cd "$(dirname "$0")/.." && pwd)
TMP=$(mktemp -d) || exit 1
SERVER=
GO=
VIEWER=
trap 'for p in $SERVER $GO $VIEWER; do kill "$p" 2>/dev/null; done; rm -rf "$TMP"' EXIT
export PPROF_TMPDIR="$TMP" HOME="$TMP" # no settings of the user's
ok() { echo "ok $1"; }
wrong() { echo "not ok $1: $2"; bad=1; }
for tool in curl redis-benchmark; do
    command -v $tool > /dev/null || { echo "not ok serve_viewers: $tool is missing (Debian: redis-tools, curl)"; exit 1; }
done

kv_start --procs 2 --debug-port 0
U=$(sed -n 's|.*\(http://127.0.0.1:[0-9]*\)/debug/.*|\1|p' "$TMP/err")
timeout 100 redis-benchmark -p "$port" -t set,lpush -l -n 100000 -c 20 -P 16 -r 10000 -d 64 -q > /dev/null 2>&1 &
LOAD=$!

# get NAME PATH WORD: 200, and the type
fetch() {
    name=$1 path=$2 type=$3
    code=$(curl -s -m 30 -o "$TMP/body" -D "$TMP/head" -w '%{http_code}' "$U$path")
    if [ "$code" = 200 ] && grep -qi "^content-type: $type" "$TMP/head" && [ -s "$TMP/body" ]; then ok "$name"; else wrong "$name" "$code $(cat "$TMP/head")"; fi
}
# What these ask for when nothing else is set. (Parca: scrape config's default profiling config; Alloy: pyroscope.scrape's.)
for name in allocs block goroutine mutex; do
    fetch "Parca, Alloy: $name" "/debug/pprof/$name" application/octet-stream
    gzip -t "$TMP/body" 2> /dev/null || wrong "$name is a gzip file" "$(head -c 100 "$TMP/body")"
done
fetch "Parca, Alloy: process_cpu" "/debug/pprof/profile?seconds=1" application/octet-stream
fetch "Alloy: memory as a window" "/debug/pprof/allocs?seconds=1" application/octet-stream
fetch "Alloy, Parca: fgprof" "/debug/fgprof?seconds=1" application/octet-stream

# ---- Go's tools
PPROF=$HERE/build/go/pprof
GOTRACE=$HERE/build/go/trace
[ -x "$PPROF" ] && [ -x "$GOTRACE" ] || skip "no Go"
says() { # name, file, words
    name=$1 file=$2; shift 2
    for word in "$@"; do
        grep -q -- "$word" "$file" || { wrong "$name" "no '$word' in"; head -n 25 "$file"; return; }
    done
    ok "$name"
}
view() { # name, options, url, words
    name=$1 options=$2 url=$3; shift 3
    # shellcheck disable=SC2086
    timeout 60 "$PPROF" $options "$url" > "$TMP/report" 2>&1 || echo "exit code $?" >> "$TMP/report"
    says "$name" "$TMP/report" "$@"
}
view "go tool pprof .../profile?seconds=1" -top "$U/debug/pprof/profile?seconds=1" "^Type: cpu" "Total samples = " "flat%"
view "go tool pprof -seconds 1 .../profile" "-top -seconds 1" "$U/debug/pprof/profile" "^Type: cpu"
view "go tool pprof .../heap" -top "$U/debug/pprof/heap" "^Type: inuse_space" "flat%"
view "go tool pprof .../heap?gc=1" "-top -sample_index=alloc_space" "$U/debug/pprof/heap?gc=1" "^Type: alloc_space"
view "go tool pprof .../heap?seconds=1" "-top -sample_index=alloc_space" "$U/debug/pprof/heap?seconds=1" "^Type: alloc_space"
view "go tool pprof .../goroutine" -top "$U/debug/pprof/goroutine" "^Type: goroutine"
view "go tool pprof, host alone" -top "${U#http://}" "^Type: cpu\|Fetching profile over HTTP\|seconds"
curl -s -m 30 -o "$TMP/trace" "$U/debug/pprof/trace?seconds=1"
timeout 60 "$GOTRACE" -d=parsed "$TMP/trace" > "$TMP/parsed" 2>&1
says "go tool trace reads .../trace?seconds=1" "$TMP/parsed" "StateTransition" "GoID="
timeout 60 "$GOTRACE" -pprof=sched "$TMP/trace" > "$TMP/sched" 2> "$TMP/sched.err"
view "go tool trace -pprof=sched" -top "$TMP/sched" "^Type: delay"
kill $LOAD 2> /dev/null

# ---- beside Go's own
"$HERE/build/go/served" > "$TMP/go.out" &
GO=$!
mkfifo "$TMP/in"
"$B/tests/prog/serve_host" own=1 cmdline=1 < "$TMP/in" > "$TMP/host.out" 2> "$TMP/host.err" &
HOST=$!
exec 9> "$TMP/in" # it serves until this is closed
both_serve() { grep -q port "$TMP/host.out" && [ -s "$TMP/go.out" ]; }
until_it 10 both_serve
G=http://$(cat "$TMP/go.out")
W=http://127.0.0.1:$(sed -n 's/port //p' "$TMP/host.out")

# Status and the headers that the contract is about, and the body of what is not 200.
ask() { # base, method, path, data
    if [ -n "$4" ]; then set -- "$1" "$2" "$3" "--data-binary $4"; fi
    # shellcheck disable=SC2086
    code=$(curl -s -m 20 -X "$2" $([ "$2" != HEAD ] || echo --head) $4 -o "$TMP/b" -D "$TMP/h" -w '%{http_code}' "$1$3")
    echo "$code"
    tr -d '\r' < "$TMP/h" | grep -iE '^(content-type|content-disposition|x-go-pprof|x-content-type-options|allow):' | tr 'A-Z' 'a-z' | sort
    [ "$code" = 000 ] || [ "$code" = 200 ] || [ "$2" = HEAD ] || [ "$code" = 301 ] || [ "$code" = 307 ] || cat "$TMP/b"
}
differ=0 asked=0
beside() {
    ask "$G" "$@" > "$TMP/theirs"
    ask "$W" "$@" > "$TMP/ours"
    asked=$((asked + 1))
    cmp -s "$TMP/theirs" "$TMP/ours" || { wrong "as Go: $1 $2" "Go says (<), we say (>)"; diff -a "$TMP/theirs" "$TMP/ours" | head -n 20; differ=1; }
}
for name in allocs block mutex threadcreate; do beside GET "/debug/pprof/$name?debug=1" ""; done
for name in heap goroutine own; do
    for query in "" "?debug=0" "?debug=1" "?debug=2" "?debug=x" "?debug=99999999999999999999" "?seconds=x" "?seconds=0" "?seconds=-1" "?seconds=1.5" "?seconds=1&debug=1" \
        "?seconds=%31&debug=1" "?seconds=1;debug=1" "?gc=1" "?x=y" "?seconds=&debug=1"; do
        beside GET "/debug/pprof/$name$query" ""
    done
    beside HEAD "/debug/pprof/$name" ""
    beside POST "/debug/pprof/$name" ""
done
for name in heap block goroutine; do beside GET "/debug/pprof/$name?seconds=1" ""; done
beside GET /debug/pprof/own?seconds=1 ""
beside GET /debug/pprof/nothing ""
beside GET /debug/pprof/nothing?seconds=x ""
beside GET /debug/pprof/heap/ ""
beside GET /debug/pprof/%3Cb%3E ""
beside HEAD /debug/pprof/nothing ""
beside GET /debug/pprof/ ""
beside HEAD /debug/pprof/ ""
beside PUT /debug/pprof/ ""
beside GET /debug/pprof/cmdline ""
beside GET /debug/pprof/symbol ""
beside GET "/debug/pprof/symbol?0x1+junk" ""
beside PUT /debug/pprof/profile ""
beside GET "/debug/pprof/profile?seconds=1" ""
beside GET "/debug/pprof/trace?seconds=0.1" ""
beside GET "/debug/pprof/trace?seconds=-1" ""
beside GET /nothing ""
[ $differ != 0 ] || ok "as Go: $asked questions"
exec 9>&-
wait $HOST

kv_stop
[ $code = 0 ] || wrong "kv ends well" "exit code $code"
exit $bad
