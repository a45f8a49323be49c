#!/bin/sh
# shots.sh - what a person sees: the live page of a server under load (tests/page_browser.sh), a CPU profile in speedscope and in `go tool pprof`, a
# trace in `go tool trace`, each opened in headless Chromium. Leaves pictures in build/shots, and checks that speedscope shows the hot function first.
# `make shots` calls it.
#   B=dir  where the programs are
# Needs npm (speedscope and playwright-core are fetched into build/browser), Go, and Chromium (Debian: chromium-headless-shell, or chromium);
# where one is missing it says so, and shows nothing.
set -eu
cd "$(dirname "$0")/.."
B=${B:?output directory}
OUT=$(pwd)/build/shots
skip() { echo "[SKIP] shots: $1"; exit 0; }
. tests/support/browser.sh

mkdir -p "$OUT"
SHOTS=$OUT tests/page_browser.sh
command -v go > /dev/null || skip "no Go: pictures of the page only"
fetched speedscope@1 playwright-core@1
"$B/tests/prog/shown" "$OUT/cpu.pb.gz" "$OUT/run.trace"
# The file is a sequence of gzip members, of which speedscope reads the first one only: so it gets it unpacked.
gzip -dc "$OUT/cpu.pb.gz" > "$OUT/cpu.pb"

pids=
trap 'kill $pids 2> /dev/null || true' EXIT
serve() { # name, words: a viewer with a web server; its address is left in $url
    name=$1
    shift
    : > "$OUT/$name.log"
    BROWSER=true DISPLAY='' "$@" > "$OUT/$name.log" 2>&1 &
    pids="$pids $!"
    n=0
    url=
    while [ -z "$url" ] && [ $n -lt 300 ]; do
        sleep 0.1
        n=$((n + 1))
        url=$(grep -o 'http://[^ ]*' "$OUT/$name.log" | tail -n 1)
    done
    [ -n "$url" ] || { echo "not ok $name: it does not serve:"; cat "$OUT/$name.log"; exit 1; }
}
serve trace build/go/trace -http=127.0.0.1:0 "$OUT/run.trace"
trace=$url
port=$(node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close() })')
serve pprof build/go/pprof -no_browser -http="127.0.0.1:$port" "$OUT/cpu.pb.gz" # which does not tell a port of the system's choice
pprof=$url
OUT=$OUT CHROMIUM=$chromium TRACE=$trace PPROF=$pprof NODE_PATH="$NODE/node_modules" node tools/shots.cjs
echo "shots: pictures are in build/shots"
