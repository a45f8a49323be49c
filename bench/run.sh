#!/bin/sh
# run.sh [-l] [-n rounds] [question...] - runs the questions (all, or those whose name starts with one of the words;
# kv is one) for weft and the peers that are present, alternating, and prints medians and ratios. -l lists them.
#
#   B=dir          where libweft.so is (make sets it)         LINK=static  against libweft.a instead
#   BENCH_OUT=dir  programs, and <question>.jsonl with every line that was printed; by default build/bench
#   ROUNDS=5  ONLY="yield alloc"   the same as the arguments, for make bench
#
# A row is one figure: weft's median, then each peer's with the ratio peer/weft (above 1: weft is better), then the
# goal: "go 3x" asks for a ratio of three, "max 4.5" for weft's figure itself. Peers: bench/go/<program> (Go),
# bench/peers/<program>_<peer>.c; a peer whose package is missing is left out.
cd "$(dirname "$0")/.." || exit 1

# ---- the questions: name | program, arguments | processors | most rounds | peers | figure goal...; figure... ------
questions() {
    cat <<'TABLE'
yield           | yield 2            | 1 | 5 | go st boost    | ns_per_op go=3
yield-1000      | yield 1000         | 1 | 5 | go st boost    | ns_per_op go=1
chan-unbuffered | chan_unbuf         | 1 | 5 | go st boost    | ns_per_op go=2.5
spawn-join      | spawn_join 1       | 1 | 5 | go st boost    | ns_per_op go=3
spawn-batch     | spawn_join 1000    | 1 | 5 | go st boost    | ns_per_op go=3
mutex           | mutex 1            | 1 | 5 | go pthread     | ns_per_op go=1
chan-buffered   | chan_buf           | 1 | 5 | go boost       | ns_per_op go=1
select-wait     | select wait        | 1 | 5 | go             | ns_per_op go=1
select-ready    | select ready       | 1 | 5 | go             | ns_per_op go=1
parked          | parked 1000000     | 2 | 5 | go             | kib_each max=4.5; ns_per_op go=1; wake_ns go=1
TABLE
    for threads in 1 2; do
        for size in 16 32 64 128 256 512; do
            objects=$([ $size -lt 128 ] && echo 10000000 || echo 4000000)
            printf '%s|' "alloc-$size-$threads" "alloc $size $threads scan $objects" "$threads" 5
            printf '%s|' "go boehm malloc jemalloc"
            echo "ns_per_op go=1.5 boehm=2"
        done
    done
    for size in 16 64 512; do
        echo "alloc-noscan-$size | alloc $size 1 noscan | 1 | 5 | go boehm | ns_per_op go=1.5 boehm=2"
    done
    cat <<'TABLE'
binary-trees-18 | binary_trees 18    | 2 | 5 | go boehm malloc | wall_s go=1.5 boehm=1; cpu_s go=1.5 boehm=1; peak_kib
binary-trees-21 | binary_trees 21    | 2 | 3 | go boehm        | wall_s go=1.5 boehm=1; cpu_s go=1.5 boehm=1; peak_kib
live-nodes      | live_nodes 8388608 3 | 2 | 3 | go boehm      | p50_ns go=7; cpu_s; peak_kib
live-typed      | live_nodes 8388608 3 typed | 2 | 3 | go      | p50_ns go=7; cpu_s; peak_kib
TABLE
    ours="stop_p50_ns max=300000; stop_p99_ns max=1000000"
    rest="late_p999_ns; stop_max_ns; cpu_ns_per_op; stops; cycles; peak_kib"
    echo "live-heap | live_heap 500 60 | 2 | 3 | go boehm boehminc | $ours; late_p99_ns go=1; ns_per_op go=1; $rest"
    echo "live-heap-4096 | live_heap 4096 60 | 2 | 1 | go boehm | stop_p99_ns max=2000000; stop_p50_ns; late_p99_ns; ns_per_op; $rest"
    echo "live-heap-anywhere | live_heap 500 60 0 | 2 | 1 | go boehm boehminc | stop_p50_ns; stop_p99_ns; late_p99_ns; ns_per_op; $rest"
    echo "live-heap-idle | live_heap 500 20 idle | 2 | 3 | go boehm boehminc | $ours; late_p99_ns go=1; late_p999_ns; stop_max_ns; cycles; cpu_s"
    cat <<'TABLE'
parked-stop-100000 | parked_stop 100000 | 2 | 3 | go          | stop_max_ns max=1000000; stop_p50_ns; stop_stack_bytes; stack_bytes; gc_ns; cpu_s
parked-stop     | parked_stop 1000000 | 2 | 3 | go            | stop_max_ns max=3000000; stop_p50_ns; stop_stack_bytes; stack_bytes; gc_ns; cpu_s
free-os         | free_os            | 2 | 3 | go             | p50_ns go=1; left_kib max=12288; cpu_s
free-os-large   | free_os 1024 1048576 | 2 | 3 | go           | p50_ns go=1; left_kib max=12288
idle            | idle 10            | 2 | 3 | go             | rss_kib max=3072; threads max=4; cpu_percent max=0.2
skynet          | skynet 1000000     | 2 | 5 | go             | ns_per_op go=5; peak_kib
prodcons        | prodcons 8 8       | 2 | 5 | go             | ns_per_op go=1
mutex-contended | mutex 8            | 2 | 5 | go pthread     | ns_per_op go=1
timers          | timers 100000      | 2 | 5 | go             | ns_per_op go=1; p99_ns go=1; cpu_s
mem-stats-1     | mem_stats 1        | 2 | 5 | go             | p50_ns go=1; p99_ns
mem-stats-1000  | mem_stats 1000     | 2 | 5 | go             | p50_ns go=1; p99_ns
mem-stats-100000 | mem_stats 100000 1000 | 2 | 5 | go          | p50_ns go=1; p99_ns
finalizer       | specials finalizer | 2 | 5 | go             | ns_per_op go=1; run_ns go=1
cleanup         | specials cleanup   | 2 | 5 | go             | ns_per_op go=1; run_ns go=1
weak            | specials weak      | 2 | 5 | go             | ns_per_op go=1; again_ns go=1; get_ns go=1
metrics-heap    | metrics heap       | 2 | 5 | go             | ns_per_op go=3
metrics-memory  | metrics memory     | 2 | 5 | go             | ns_per_op go=3
metrics-pauses  | metrics pauses     | 2 | 5 | go             | ns_per_op go=3
metrics-page    | metrics_page 1000  | 2 | 3 |                | cpu_ns max=2000000; ns_per_op; procs_ns; fibers_ns; heap_ns; memory_ns
locked          | chan_unbuf 50000 locked | 2 | 5 | go             | ns_per_op go=1
echo            | echo 1000 300      | 2 | 5 | go             | ns_per_op go=1; p99_ns go=1; cpu_s
foreign         | foreign            | 2 | 5 | go             | ns_per_op go=1; chan_ns go=1; attach_ns
heap-dump       | heap_dump          | 2 | 3 |                | stop_ns; gc_stop_ns; wall_ns max=3000000000; why_ns; peak_kib
dump-10000      | dump 10000 2       | 2 | 3 | go             | stall_ns go=1; wall_ns
dump-100000     | dump 100000 2      | 2 | 3 | go             | stall_ns go=1; wall_ns
fibers-10000    | dump 10000 0       | 2 | 3 | go             | stall_ns go=1; wall_ns
fibers-100000   | dump 100000 0      | 2 | 3 | go             | stall_ns go=1; wall_ns
probes-yield    | yield 1000         | 1 | 7 | noprobes       | ns_per_op noprobes=0.95
probes-chan     | chan_unbuf         | 1 | 7 | noprobes       | ns_per_op noprobes=0.95
probes-spawn    | spawn_join 1       | 1 | 7 | noprobes       | ns_per_op noprobes=0.95
trace-event     | trace_event 1      | 2 | 5 |                | ns_per_op; switch_ns; stack_ns; bytes
trace-pingpong  | trace_pingpong     | 1 | 5 | go             | event_ns go=1; bytes go=1; slowdown go=1; on_ns; off_ns
heap-sample     | heap_sample 64     | 1 | 3 | go             | slower_percent max=2; on_ns go=1.5; off_ns
block-profile   | block_profile      | 1 | 5 | go             | slowdown go=1; added_ns go=1; ns_per_op
block-budget    | block_profile 200000 10 | 1 | 5 |             | slowdown; added_ns
doctor-chan     | doctor_cost chan   | 1 | 1 |                | slower_percent max=1; off_ns
doctor-alloc    | doctor_cost alloc  | 1 | 1 |                | slower_percent max=1; off_ns
profile-write   | profile_write 100000 | 1 | 3 |               | p50_ns max=3000000000; memory_ratio max=3; bytes
profile-text    | profile_write 100000 1 | 1 | 3 |             | p50_ns max=3000000000; memory_ratio max=3; bytes
walk            | walk               | 1 | 5 |                | ns_per_op max=10; ten_ns; miss_ns; miss_other_ns; parked_ns; libunwind_ns; backtrace_ns
dirty-small     | dirty_pages uffd 512 small | 1 | 3 |         | first_ns max=1500; next_ns; arm_us; span_ns; take_0_us; rearm_1000_us; rearm_30000_us
dirty-huge      | dirty_pages uffd 512 huge  | 1 | 3 |         | split_ns; first_ns; arm_us; take_0_us; collapse_us; read_huge_ns; read_split_ns
dirty-mprotect  | dirty_pages mprotect 512 small | 1 | 3 |     | first_ns; next_ns; arm_us; take_0_us; rearm_1000_us; rearm_30000_us
cpu-profile     | cpu_profile        | 2 | 3 | go             | slower_percent max=1; helpers_percent; on_ms go=0.5
store-near      | store near         | 2 | 5 | go             | store_ns go=1; marking_ns go=1; plain_ns; move_ns
store-far       | store far          | 2 | 5 | go             | store_ns go=1; marking_ns go=1; plain_ns; move_ns
scheme-gc       | scheme gcbench     | 2 | 5 | boehm store    | wall_s boehm=1; cpu_s boehm=1; peak_kib
scheme-live     | scheme bench/scheme_live.scm | 2 | 3 | boehm store | wall_s boehm=1; cpu_s boehm=1; peak_kib
TABLE
}

B=${B:-build/gcc-release}
OUT=${BENCH_OUT:-build/bench}
ROUNDS=${ROUNDS:-5}
CC=${CC:-cc}
CXX=${CXX:-c++}
while [ $# -gt 0 ]; do
    case $1 in
    -l) questions | sed 's/ *|.*//'; echo kv; exit ;;
    -n) ROUNDS=$2; shift ;;
    -*) sed -n '2,3s/^# //p' "$0"; exit 2 ;;
    *) ONLY="$ONLY $1" ;;
    esac
    shift
done
B=$(cd "$B" 2>/dev/null && pwd) || { echo "bench: no library in ${B:-build}: make lib, or set B" >&2; exit 1; }
# The cache holds what the linker just wrote in large folios, of which the kernel maps all when one page is touched; for
# resident memory as users see it the library is read from the disk once.
dd of="$(readlink -f "$B/libweft.so")" oflag=nocache conv=notrunc,fdatasync count=0 2> /dev/null
export B
mkdir -p "$OUT/weft" "$OUT/go" "$OUT/peers" || exit 1
OUT=$(cd "$OUT" && pwd)

asked() { # name
    [ -z "$ONLY" ] && return 0
    for word in $ONLY; do
        case $1 in "$word"*) return 0 ;; esac
    done
    return 1
}

# ---- building: only what is older than its source -------------------------------------------------------------------
older() { # target source...
    target=$1; shift
    [ -e "$target" ] || return 0
    [ -n "$(find "$@" -newer "$target" -print 2>/dev/null)" ]
}

build_weft() { # program
    LIB="-L$B -lweft -Wl,-rpath,$B"
    [ "$LINK" = static ] && LIB="$B/libweft.a -Wl,--as-needed -lm -ldl"
    if grep -q '^#include "\(trace\|prof\|os\)/' "bench/$1.c"; then # looks inside
        LIB="$B/all.o -Isrc -ldl"
        [ "$B/all.o" -nt "$OUT/weft/$1" ] && rm -f "$OUT/weft/$1"
    fi
    if grep -q '^#include <weft/serve.h>' "bench/$1.c"; then
        [ -e "$B/libweft-debug.so" ] || { echo "bench: $1: built without libmicrohttpd" >> "$OUT/build.log"; return 1; }
        LIB="-L$B -lweft-debug -lweft -Wl,-rpath,$B"
    fi
    how="$OUT/weft/$1.how" # a program linked otherwise is made again; a static one also when the library is newer
    [ "$(cat "$how" 2>/dev/null)" = "$LIB" ] || rm -f "$OUT/weft/$1"
    [ "$LINK" = static ] && [ "$B/libweft.a" -nt "$OUT/weft/$1" ] && rm -f "$OUT/weft/$1"
    if older "$OUT/weft/$1" "bench/$1.c" bench/*.h include; then
        # shellcheck disable=SC2086
        $CC -std=gnu11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Iinclude -pthread "bench/$1.c" -o "$OUT/weft/$1" $LIB &&
            echo "$LIB" > "$how"
    fi
}

build_go() { # program
    command -v go > /dev/null || return 1
    if older "$OUT/go/$1" "bench/go/$1" bench/go/internal bench/go/go.mod; then
        (cd bench/go && go build -o "$OUT/go/$1" "./$1") >> "$OUT/build.log" 2>&1
    fi
}

has_header() { echo "#include <$1>" | $CC -E -x c - > /dev/null 2>&1; }

build_peer() { # program peer
    source=bench/peers/$1_$2.c
    case $2 in
    st) has_header st.h || return 1; flags=-lst ;;
    boehm) has_header gc.h || return 1; flags=-lgc ;;
    boost) source=bench/peers/$1_boost.cpp; flags="-lboost_fiber -lboost_context" ;;
    boehminc) has_header gc.h || return 1; source=bench/peers/$1_boehm.c; flags="-DINCREMENTAL -lgc" ;;
    jemalloc) source=bench/peers/$1_malloc.c; flags="-DIMPL=\"jemalloc\" -ljemalloc" ;;
    *) flags= ;;
    esac
    older "$OUT/peers/$1_$2" "$source" bench/*.h || return 0
    compile="$CC -std=gnu11 -D_GNU_SOURCE"
    case $source in *.cpp) compile="$CXX -std=gnu++17" ;; esac
    # shellcheck disable=SC2086
    $compile -O2 -pthread "$source" -o "$OUT/peers/$1_$2" $flags >> "$OUT/build.log" 2>&1
}

build_scheme() { # impl: the interpreter, which bench/scheme.c runs
    target=$([ "$1" = weft ] && echo scheme || echo "scheme-$1")
    [ bench/scheme.c -nt "$OUT/peers/scheme_$1" ] && rm -f "$OUT/peers/scheme_$1" # includes it
    ${MAKE:-make} --no-print-directory B="$B" "$B/examples/scheme/$target" >> "$OUT/build.log" 2>&1
}

build_noprobes() { # program: the same on a library without any probe point
    noprobes=$(dirname "$B")/noprobes
    ${MAKE:-make} --no-print-directory -s lib B="$noprobes" EXTRA_CFLAGS=-DWEFT_NO_PROBES >> "$OUT/build.log" 2>&1 || return 1
    mkdir -p "$OUT/peers"
    $CC -std=gnu11 -D_GNU_SOURCE -O2 -g -Iinclude -pthread "bench/$1.c" -o "$OUT/peers/$1_noprobes" -L"$noprobes" -lweft -Wl,-rpath,"$noprobes" \
        >> "$OUT/build.log" 2>&1
}

build() { # impl program
    [ "$2" != scheme ] || build_scheme "$1" || return 1
    case $1 in
    weft) build_weft "$2" ;;
    noprobes) build_noprobes "$2" ;;
    go) build_go "$2" ;;
    *) build_peer "$2" "$1" ;;
    esac
}

# ---- running --------------------------------------------------------------------------------------------------------
run_one() { # impl processors program args...
    impl=$1; procs=$2; program=$3; shift 3
    case $impl in
    weft) program=$OUT/weft/$program ;;
    go) program=$OUT/go/$program ;;
    *) program=$OUT/peers/${program}_$impl ;;
    esac
    lines=$(WEFT_MAXPROCS=$procs GOMAXPROCS=$procs GC_MARKERS=$procs timeout 300 "$program" "$@" < /dev/null 2>> "$OUT/run.log") || return 1
    echo "$lines" | sed "$([ "$impl" = noprobes ] && echo 's/"impl":"weft"/"impl":"noprobes"/')"
}

# Lines of JSON -> rows of the table. figures: "field goal... ; field ..."
rows() { # question figures
    awk -v question="$1" -v figures="$2" '
    function median(list,   n, v, i, j, t) {
        n = split(list, v, " ")
        for (i = 2; i <= n; i++)
            for (j = i; j > 1 && v[j - 1] + 0 > v[j] + 0; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
        return n % 2 ? v[(n + 1) / 2] + 0 : (v[n / 2] + v[n / 2 + 1]) / 2
    }
    function ratio(x) { return "weft" in m && m["weft"] > 0 ? sprintf("(%.2fx)", x / m["weft"]) : "" }
    function show(x) { return x >= 1e6 ? sprintf("%.0f", x) : x >= 100 ? sprintf("%.1f", x) : sprintf("%.3g", x) }
    {
        line = $0
        gsub(/[{}" ]/, "", line)
        n = split(line, part, ",")
        impl = ""
        for (i = 1; i <= n; i++) {
            split(part[i], pair, ":")
            if (pair[1] == "impl") {
                impl = pair[2]
                if (!(impl in seen)) { seen[impl] = 1; order[++impls] = impl }
            } else if (impl != "")
                value[impl, pair[1]] = value[impl, pair[1]] " " pair[2]
        }
    }
    END {
        figure_count = split(figures, figure, / *; */)
        for (f = 1; f <= figure_count; f++) {
            words = split(figure[f], word, " ")
            field = word[1]
            text = ""
            for (i = 1; i <= impls; i++) {
                if (!((order[i], field) in value)) continue
                m[order[i]] = median(value[order[i], field])
                if (order[i] != "weft")
                    text = text sprintf("  %-8s %9s %-8s", order[i], show(m[order[i]]), ratio(m[order[i]]))
            }
            goals = ""
            for (w = 2; w <= words; w++) {
                split(word[w], goal, "=")
                if (!("weft" in m)) verdict = "no figure"
                else if (goal[1] == "max") verdict = m["weft"] <= goal[2] ? "ok" : "MISSED"
                else if (!(goal[1] in m)) verdict = "no peer"
                else verdict = m[goal[1]] >= goal[2] * m["weft"] ? "ok" : "MISSED"
                goals = goals sprintf("  %s %s%s: %s", goal[1], goal[2], goal[1] == "max" ? "" : "x", verdict)
            }
            printf "%-18s %-13s weft %11s%s |%s\n", question, field,
                "weft" in m ? show(m["weft"]) : "failed", text, goals
            delete m
        }
    }' "$OUT/$1.jsonl"
}

question() { # name command processors most peers figures
    name=$1 most=$4 peers=$5 figures=$6 procs=$3
    # shellcheck disable=SC2086
    set -- $2
    impls=
    for impl in weft $peers; do
        if build "$impl" "$1"; then impls="$impls $impl"; else echo "bench: $name: no $impl" >&2; fi
    done
    : > "$OUT/$name.jsonl"
    [ "$ROUNDS" -lt "$most" ] && most=$ROUNDS
    round=0
    while [ $round -lt "$most" ]; do
        for impl in $impls; do
            run_one "$impl" "$procs" "$@" >> "$OUT/$name.jsonl" ||
                echo "bench: $name: $impl failed ($?), see $OUT/run.log" >&2
        done
        round=$((round + 1))
    done
    rows "$name" "$figures" | tee -a "$OUT/table.txt"
}

: > "$OUT/table.txt"
: > "$OUT/run.log"
: > "$OUT/build.log"
questions > "$OUT/questions"
while IFS='|' read -r name command procs most peers figures <&3; do
    name=$(echo $name)
    asked "$name" && question "$name" "$command" $procs $most "$peers" "$(echo $figures)"
done 3< "$OUT/questions"
if asked kv && [ -e bench/kv.sh ]; then
    B=$B BENCH_OUT=$OUT ROUNDS=$ROUNDS sh bench/kv.sh | tee -a "$OUT/table.txt"
    B=$B BENCH_OUT=$OUT sh bench/kv_cost.sh profile | tee -a "$OUT/table.txt"
    B=$B BENCH_OUT=$OUT sh bench/kv_cost.sh doctor | tee -a "$OUT/table.txt"
fi
echo
awk '/MISSED|no figure/ { missed++; print "missed: " $0; next }
     /: ok/ { ok++ }
     END { printf "rows that meet their goals: %d, that miss one: %d\n", ok, missed }' "$OUT/table.txt"
