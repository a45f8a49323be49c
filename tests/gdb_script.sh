#!/bin/sh
# gdb_script - the gdb script on a program with fibers in all states: live, and as a core file; before the runtime's life, and without weft.
B=${B:?output directory}
. "$(dirname "$0")/support/script.sh"
if [ -n "${SAN:-}" ]; then
    echo "[SKIP] gdb_script: a sanitizer's memory is no place for a debugger"
    exit 0
fi
command -v gdb > /dev/null || skip "no gdb"
script=$(cd "$(dirname "$0")/.." && pwd)/src/debug/gdb/weft-gdb.py
program=$(cd "$B" && pwd)/tests/prog/parked
TMP=$(mktemp -d) || exit 1
trap 'rm -rf "$TMP"' EXIT
unset WEFT_DEBUG WEFT_MAXPROCS

# gdb_run ARGUMENTS...: with the script and the commands in $TMP/commands
gdb_run() { timeout 120 gdb -nx -batch -iex 'set debuginfod enabled off' "$@" > "$TMP/out" 2>&1 < /dev/null; }
# says NAME PATTERNS: lines that the output has, in this order, one pattern each
says() {
    echo "$2" | awk '
        NR == FNR { want[++n] = $0; next }
        at < n && $0 ~ want[at + 1] { at++ }
        END { if (at < n) { print want[at + 1]; exit 1 } }' - "$TMP/out" > "$TMP/missing" && echo "ok $1" && return
    echo "not ok $1: no /$(cat "$TMP/missing")/"
    head -n 60 "$TMP/out"
    bad=1
}

cat > "$TMP/look" <<'END'
weft fibers all
weft bt 2
weft bt 8
weft bt 9
weft bt 1
weft bt 10
weft heap
weft enter 3
frame function reader
print c == never
weft leave
bt
weft bt 77
END
# What it says. In a core file the time is as the monitor saw it last.
fibers='^ID  STATE +FOR +FUNCTION +MADE BY
^ 1  running, thread [0-9]+ +- +program +main at parked.c:
^ 2  chan receive +[0-9]+m?s +reader +program at parked.c:
^ 7  sleep +[0-9]+m?s +sleeper
^ 8  sync.Mutex.Lock +[0-9]+m?s +locker
^ 9  chan receive +[0-9]+m?s +wired
^10  runnable, not started +- +unborn +program at parked.c:
^[1-9][0-9] fibers$
^fiber 2 .chan receive.: reader$
 weft_chan_recv .*c=
 deep .* at .*parked.c:
 deep 
 deep 
 deep .*depth=.*3
 reader .*parked.c
 fiber_start
^made by program at parked.c:
^fiber 8 .sync.Mutex.Lock.: locker$
 weft_mutex_lock.*lock
 locker .*parked.c
^fiber 9 .chan receive.: wired$
^#0 
 park_in_place
 weft_chan_recv
 wired .*parked.c
^fiber 1 .running, thread [0-9]+.: program$
 stands_here
 program .*parked.c
^fiber 10 .runnable, not started.: unborn$
^made by program
^ +SIZE +SPANS +OBJECTS +IN USE +BYTES +KIND
^ +48 +[0-9]+ +1[0-9]+ +1[0-9]+ +[0-9]+ +scan
^ +48 +[0-9]+ +1[0-9]+ +1[0-9]+ +[0-9]+ +noscan
^ +1024 +125 +1000 +1000 +1024000 +scan
^ +large +1 +1 +1 +106496 +noscan
^live 1[0-9]+ bytes .*goal none
 reader .*parked.c
= 1$
^#. .*stands_here
^#. .* program .*parked.c
there is no fiber 77'

{ echo "source $script"; cat "$TMP/look"; } > "$TMP/commands"
gdb_run -ex 'break stands_here' -ex run -x "$TMP/commands" "$program"
says "a live process" "$fibers"

# A core file as the kernel makes them, where it puts them into the folder. (Those of gcore have no stacks: it leaves out a mapping that has a guard in it.)
if [ "$(cat /proc/sys/kernel/core_pattern)" = core ] && (cd "$TMP" && ulimit -c unlimited && { "$program" abort; [ -n "$(ls | grep core)" ]; }) > "$TMP/out" 2>&1
then
    gdb_run -x "$TMP/commands" "$program" "$(ls "$TMP"/core*)"
    says "a core file" "$(echo "$fibers" | sed 's/\[0-9\]+m?s/[-0-9ms]+/')"
else
    echo "[SKIP] gdb_script: core files do not go where they can be found (core_pattern is $(cat /proc/sys/kernel/core_pattern))"
fi

# gcore writes whatever is mapped, be it by zeroes: what the heap may grow into is not to be in it.
(ulimit -f 1000000; gdb_run -ex 'break stands_here' -ex run -ex "generate-core-file $TMP/gcore" "$program")
gdb_run -ex "source $script" -ex 'weft heap' "$program" "$TMP/gcore"
says "gcore leaves out what is only reserved" '^ +1024 +125 +1000 +1000 +1024000 +scan'
rm -f "$TMP"/*core*

echo "weft fibers" > "$TMP/commands"
gdb_run -ex "source $script" -ex 'break main' -ex run -x "$TMP/commands" "$program"
says "before the runtime's life" "weft: the runtime does not run"
gdb_run -ex "source $script" -ex 'break exit' -ex run -ex 'weft bt' -x "$TMP/commands" /bin/true
says "a program without weft" "weft: no debug information of libweft"
gdb_run -ex "source $script" -ex 'break stands_here' -ex run -ex 'weft bt x' -ex 'weft enter 10' "$program"
says "what is no fiber's number" "weft: the number of a fiber is needed"
gdb_run -ex "source $script" -ex 'break stands_here' -ex run -ex 'weft enter 10' "$program"
says "a fiber without a stack" "fiber 10 has no stack to enter"
exit $bad
