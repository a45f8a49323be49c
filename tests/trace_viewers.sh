#!/bin/sh
# trace_viewers - what a person sees of a trace: the pages of `go tool trace`, fetched with curl, and the profiles it makes of it; of a program
# with tasks, regions and logs, and of examples/kv under load. Links are followed as a person would.
B=${B:?output directory}
. "$(dirname "$0")/support/script.sh"
TOOL=$(pwd)/build/go/trace PPROF=$(pwd)/build/go/pprof
TMP=$(mktemp -d) || exit 1
SERVER=
trap '[ -n "$SERVER" ] && kill "$SERVER" 2>/dev/null; rm -rf "$TMP"' EXIT

for tool in "$TOOL" "$PPROF"; do
    [ -x "$tool" ] || { echo "[SKIP] trace_viewers: no Go"; exit 0; }
done
for tool in curl redis-benchmark; do
    command -v $tool > /dev/null || { echo "not ok trace_viewers: $tool is missing (Debian: curl, redis-tools)"; exit 1; }
done

# ---- the traces ---------------------------------------------------------------------------------------------------
"$B/tests/prog/trace_tasks" "$TMP/tasks.trace" || { echo "not ok trace_tasks: exit code $?"; exit 1; }

kv_start --trace "$TMP/kv.trace"
timeout 60 redis-benchmark -p "$port" -t set,get,lpush,hset -n 5000 -c 20 -P 2 -r 1000 > /dev/null 2>&1 || { echo "not ok kv: the load failed"; bad=1; }
kv_stop
[ $code = 0 ] || { echo "not ok kv: exit code $code: $(tail -n 3 "$TMP/err")"; exit 1; }

# ---- as text -------------------------------------------------------------------------------------------------------
parsed() { # name
    "$TOOL" -d=parsed "$TMP/$1.trace" > "$TMP/$1.txt" 2> "$TMP/err"
    report "$1_is_accepted" "$(cat "$TMP/err")"
}
count() { # name, how many at least, pattern
    n=$(grep -c -- "$3" "$TMP/$1.txt")
    [ "$n" -ge "$2" ] || wrong="$wrong [$3: $n, not $2]"
}
parsed tasks
parsed kv
wrong=
count tasks 20 ' TaskBegin .*Type="request"'
count tasks 40 ' TaskBegin .*Type="part"'
count tasks 60 ' TaskEnd '
count tasks 20 ' RegionBegin .*Type="whole"'
count tasks 40 ' RegionEnd .*Type="read"'
count tasks 40 ' RegionEnd .*Type="compute"'
count tasks 20 ' Log .*Category="progress" Message="request [0-9]* is answered"'
report tasks_regions_and_logs_are_shown "$wrong"
wrong=
count kv 20 'StateTransition .*NotExist->Runnable'
count kv 100 'Running->Waiting Reason="network"'
report connections_of_the_server_are_shown "$wrong"

# ---- the pages -----------------------------------------------------------------------------------------------------
get() { # path: into $TMP/page
    code=$(curl -s -m 60 -o "$TMP/page" -w '%{http_code}' "$url$1")
    [ "$code" = 200 ] || wrong="$wrong [$1: $code]"
}
links() { grep -o 'href="/[^"#]*' "$TMP/page" | sed 's/^href="//; s/&amp;/\&/g' | sort -u; }

pages() { # name, function of a fiber, paths...
    name=$1 fiber=$2
    shift 2
    : > "$TMP/http"
    BROWSER=true DISPLAY= "$TOOL" -http=127.0.0.1:0 "$TMP/$name.trace" > "$TMP/http" 2>&1 &
    SERVER=$!
    until_it 30 grep -q listening "$TMP/http"
    url=$(sed -n 's/.*listening on //p' "$TMP/http")
    wrong=
    for path in / /trace /jsontrace /goroutines "/goroutine?name=$fiber" /usertasks /userregions /mmu '/io?raw=1' '/block?raw=1' '/syscall?raw=1' '/sched?raw=1' "$@"; do
        get "$path"
        [ -s "$TMP/page" ] || wrong="$wrong [$path: empty]"
    done
    # links of the pages that lead on; those to pictures need graphviz
    for page in / /goroutines "/goroutine?name=$fiber" /usertasks /userregions; do
        get "$page"
        for path in $(links | awk '!/^\/(region)?(io|block|sched|syscall)/ || /raw=1/' | head -n 20); do
            get "$path"
        done
    done
    report "pages_of_$name" "$wrong"
    wrong=
    get /jsontrace
    grep -q "$fiber" "$TMP/page" || wrong="$wrong [no $fiber in the timeline]"
    get /goroutines
    grep -q "name=.*$fiber" "$TMP/page" || wrong="$wrong [no $fiber among the fibers]"
    report "fibers_of_${name}_have_names" "$wrong"
    kill "$SERVER"
    wait "$SERVER" 2> /dev/null
    SERVER=
}
pages tasks part '/usertask?type=request' '/usertask?type=part' '/userregion?type=read' '/userregion?type=whole' '/regionblock?type=compute&raw=1'
pages kv connection

# ---- profiles -------------------------------------------------------------------------------------------------------
profile() { # name, kind, a function that must be in it ("": there may be nothing)
    "$TOOL" -pprof="$2" "$TMP/$1.trace" > "$TMP/prof" 2> "$TMP/err" || { wrong="$wrong [$1 $2: $(tail -n 1 "$TMP/err")]"; return; }
    "$PPROF" -top -nodecount=200 "$TMP/prof" > "$TMP/top" 2>&1 || wrong="$wrong [$1 $2: $(tail -n 1 "$TMP/top")]"
    [ -z "$3" ] || grep -q " $3\$" "$TMP/top" || wrong="$wrong [$1 $2: no $3]"
}
wrong=
profile tasks net weft_read
profile tasks sync weft_mutex_lock
profile tasks syscall ''
profile tasks sched ''
profile kv net ''
profile kv sync ''
profile kv syscall ''
profile kv sched ''
report profiles_of_traces "$wrong"
exit $bad
