#!/bin/sh
# page_read - the live page's decoders of profiles and traces (src/debug/serve/page/src/pprof.js, trace.js), on those of examples/kv under load,
# against what Go's own tools say of the same files.
B=${B:?output directory}
. "$(dirname "$0")/support/script.sh"
PPROF=$(pwd)/build/go/pprof TOOL=$(pwd)/build/go/trace
TMP=$(mktemp -d) || exit 1
SERVER=
trap '[ -n "$SERVER" ] && kill "$SERVER" 2>/dev/null; rm -rf "$TMP"' EXIT
export PPROF_TMPDIR="$TMP"
command -v node > /dev/null || skip "no node (Debian: nodejs)"
[ -x "$PPROF" ] && [ -x "$TOOL" ] || skip "no Go"
command -v redis-benchmark > /dev/null || { echo "not ok page_read: redis-benchmark is missing (Debian: redis-tools)"; exit 1; }

kv_start --procs 2 --cpu-profile "$TMP/cpu.pb.gz" --trace "$TMP/kv.trace"
timeout 60 redis-benchmark -p "$port" -t set,lpush -n 60000 -c 20 -P 16 -r 10000 -d 64 -q > /dev/null 2>&1 ||
    { echo "not ok kv: the load failed"; exit 1; }
kv_stop
# -symbolize=none: with the names that are in the profile. Else it makes others of C++'s, which sanitizers bring.
"$PPROF" -symbolize=none -top -unit=ns -nodefraction=0 -edgefraction=0 -nodecount=1000000 "$TMP/cpu.pb.gz" > "$TMP/top" 2> /dev/null
"$TOOL" -d=parsed "$TMP/kv.trace" > "$TMP/parsed" 2> "$TMP/err" || { echo "not ok trace: $(head -n 3 "$TMP/err")"; exit 1; }
node --no-warnings tests/page_read.mjs src/debug/serve/page/src "$TMP/cpu.pb.gz" "$TMP/top" "$TMP/kv.trace" "$TMP/parsed"
