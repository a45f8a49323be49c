#!/bin/sh
# doctor_cmd - weft-doctor on traces and profiles of weft programs and of Go programs (where Go is there), misused and healthy ones; on files that are
# cut, damaged, empty, or something else; and what it says to a machine.
B=${B:?output directory}
. "$(dirname "$0")/support/script.sh"
TMP=$(mktemp -d) || exit 1
trap 'rm -rf "$TMP"' EXIT
doctor=$(cd "$B" && pwd)/weft-doctor replay=$(cd "$B" && pwd)/tests/fuzz/replay
unset WEFT_DEBUG WEFT_MAXPROCS

# expect NAME CODE PATTERNS ARGUMENTS...: the exit code, and lines that the output has (one pattern a line; "!" before it: has not)
expect() {
    name=$1 want=$2 patterns=$3
    shift 3
    timeout 60 "$doctor" "$@" > "$TMP/out" 2>&1
    code=$?
    wrong=
    [ $code = "$want" ] || wrong="exit code $code, not $want"
    echo "$patterns" > "$TMP/patterns"
    while read -r pattern; do
        case $pattern in
        '') ;;
        !*) ! grep -qE -- "${pattern#!}" "$TMP/out" || wrong="$wrong [there is: ${pattern#!}]" ;;
        *) grep -qE -- "$pattern" "$TMP/out" || wrong="$wrong [no: $pattern]" ;;
        esac
    done < "$TMP/patterns"
    report "$name" "$wrong"
    [ -z "$wrong" ] || head -n 20 "$TMP/out"
}

# What both twins write: name of the language, a pattern for its source, its call to collect
same_files() {
    d=$TMP/$1 at=$2
    expect "$1: nothing in what is healthy" 0 "$1/healthy.trace: trace
^0 findings in 7 files" "$d/healthy.trace" "$d/healthy_cpu.pb.gz" "$d/heap.pb.gz" "$d/before.pb.gz" "$d/after.pb.gz" "$d/block.pb.gz" "$d/quiet.pb.gz"
    expect "$1: threads that end with their fibers" 1 "W03  (99|100) threads came to their end
locked_?[aA]nd_?[gG]one at .*$at
^1 finding in 1 file$" "$d/w03.trace"
    expect "$1: forced collections" 1 "W04  [0-9]+ of [0-9]+ collections were forced
!W16
^1 finding in" "$d/w04.trace"
    expect "$1: memory statistics polled" 1 "W06  the world was stopped [0-9]+ times to read memory statistics
!W16
^1 finding in" "$d/w06.trace"
    [ -n "${SAN:-}" ] || expect "$1: what recording costs" 1 "W10  [0-9]+ % of the processor time
^1 finding in" "$d/w10_cpu.pb.gz"
    expect "$1: a lock held while its holder sleeps" 1 "P04  others waited [0-9.]+ s in [0-9]+ waits
(holds|convoy.*) at .*$at
^1 finding in" "$d/convoy.pb.gz"
    expect "$1: fibers that have become more" 1 "P02  200 fibers are here, which were 0 in the first
waits at .*$at
^1 finding in" --base "$d/before.pb.gz" "$d/after.pb.gz"
    expect "$1: no more fibers than before" 0 "^0 findings" --base "$d/after.pb.gz" "$d/after.pb.gz" "$d/before.pb.gz"
}

mkdir "$TMP/weft" "$TMP/go"
timeout 120 "$B/tests/prog/misuse" "$TMP/weft" > "$TMP/said" 2>&1 || { echo "not ok misuse: $(cat "$TMP/said")"; exit 1; }
same_files weft 'misuse\.c:[0-9]+$'
expect "fibers that wait for ever" 1 "P03  200 fibers wait here
waits at .*misuse.c" "$TMP/weft/leak.pb.gz"
expect "what the doctor in the program has said" 1 "W06  statistics that stop the world are polled \(4\)
told_by_the_doctor at
^1 finding in" "$TMP/weft/told.trace"
report "the doctor in the program has said it, too" "$(grep -q 'doctor: W03: ' "$TMP/said" || echo 'W03 is not in the log')"
if command -v go > /dev/null; then
    (cd tests/go && GOFLAGS=-mod=mod go build -o "$TMP/misuse" misuse.go) > "$TMP/out" 2>&1 && timeout 120 "$TMP/misuse" "$TMP/go" >> "$TMP/out" 2>&1 ||
        { echo "not ok misuse.go: $(cat "$TMP/out")"; exit 1; }
    same_files go 'misuse\.go:[0-9]+$'
else
    echo "[SKIP] doctor_cmd: files of Go programs: no Go"
fi

# ---- files that are not as they should be ---------------------------------------------------------------------------
w=$TMP/weft
cd "$TMP" || exit 1
: > empty
echo "This is a text, of some length, so that there is something to be misunderstood." > text
expect "no arguments" 2 "^usage: "
expect "an option that there is not" 2 "^usage: " --nonsense text
expect "a file that is not there" 2 "nowhere: No such file
w03.trace: trace
W03 " nowhere "$w/w03.trace"
expect "an empty file" 2 "^empty: empty" empty
expect "a text" 2 "^text: no profile" text
expect "a folder" 2 "^weft: Is a directory" weft
expect "standard input" 1 "^-: trace" - < "$w/w03.trace"

half() { head -c $(($(wc -c < "$1") * $2 / 100)) "$1" > "$3"; }
gzip -dc "$w/w10_cpu.pb.gz" > plain.pb
if [ -z "${SAN:-}" ]; then # what a sanitizer adds takes most of the time
    half "$w/w10_cpu.pb.gz" 90 cut.pb.gz
    expect "a profile that was cut is read up to the last piece" 1 "cut.pb.gz: CPU profile
W07  the file ends in the middle of a piece
W10" cut.pb.gz
    expect "a profile that is not compressed" 1 "^plain.pb: CPU profile
W10" plain.pb
fi
half "$w/heap.pb.gz" 60 cut.pb.gz
expect "a profile that was cut in its first piece" 2 "cut.pb.gz: cut before the end of its first" cut.pb.gz
head -c 100 "$w/healthy.trace" > cut.trace
expect "a trace that was cut before its first generation ends" 2 "cut.trace: a trace without a complete generation" cut.trace
half "$w/w06.trace" 100 whole.trace
printf '\001\002\003' >> whole.trace
expect "a trace with something behind its end" 1 "W06
T01  3 bytes at the end" whole.trace
{ head -c 5 "$w/w03.trace"; printf 21; tail -c +8 "$w/w03.trace"; } > old.trace
expect "a trace of another form" 2 "before Go 1.22" old.trace
gzip -c "$w/w03.trace" > packed.trace.gz
# As Go 1.23 has it: no byte at the end of a generation, and its clock in a batch of another kind.
cat > older.py <<'END'
import sys
data = open(sys.argv[1], "rb").read()
out, at = bytearray(b"go 1.23 trace\0\0\0"), 16
def number(at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        shift += 7
        at += 1
        if byte < 128:
            return value, at
while at < len(data):
    if data[at] == 52:
        at += 1
        continue
    head = at
    at += 1
    for _ in range(3):
        _, at = number(at)
    size, body = number(at)
    batch = data[body:body + size]
    out += data[head:at]
    if batch[:1] == b"\x32":
        _, end = number(body + 2)
        batch = data[body + 1:end]
    n = len(batch)
    out += bytes((n & 127 | 128, n >> 7 & 127 | 128, n >> 14)) + batch
    at = body + size
open(sys.argv[2], "wb").write(out)
END
if command -v python3 > /dev/null; then
    python3 older.py "$w/w03.trace" older.trace
    python3 older.py "$w/healthy.trace" healthy.trace
    expect "traces as older Go writes them" 1 "older.trace: trace .Go 1.23., .* 10[0-9] threads
W03  (99|100) threads
healthy.trace: trace .Go 1.23., .*nothing found
^1 finding in 2 files" older.trace healthy.trace
fi
expect "a trace that was compressed" 1 "^packed.trace.gz: trace
W03" packed.trace.gz
expect "a base that is no profile of fibers" 2 "heap.pb.gz: no profile of fibers" --base "$w/heap.pb.gz" "$w/after.pb.gz"

# A clock that stands still: found by libFuzzer.
printf 'go 1.26 trace\0\0\0\001\001\001\005\003\062\010\000\001\001\002\005\002\013\001\064' > still.trace
expect "a trace whose clock stands still" 1 "T01  1 batches hold what is no event" still.trace

# Any bytes will do. SEED=N ROUNDS=M to look further.
seed=${SEED:-1}
timeout 200 "$replay" "$seed" "${ROUNDS:-30}" "$w"/*.gz "$w/healthy.trace" "$w/w03.trace" "$w/w04.trace" "$w/told.trace" plain.pb still.trace > out 2>&1
code=$?
report "damaged files (seed $seed)" "$([ $code = 0 ] || { echo "exit code $code"; tr '\r' '\n' < out | tail -n 20; })"

# ---- for machines -----------------------------------------------------------------------------------------------------
printf 'a "name" \377\n' > 'odd "name"'
timeout 60 "$doctor" --json "$w/w03.trace" "$w/healthy.trace" 'odd "name"' > json
if command -v python3 > /dev/null; then
    report "json" "$(python3 - <<'PY' 2>&1
import json
d = json.load(open("json"))
w, h, o = d["files"]
assert d["findings"] == 1 and len(w["findings"]) == 1 and h["findings"] == [] and "error" not in w, d
f = w["findings"][0]
assert f["code"] == "W03" and "0 threads" in f["what"].replace("99", "100") and "unlock" in f["cure"] and "misuse.c:" in f["stack"][1], f
assert o["file"] == 'odd "name"' and "no profile" in o["error"], o
PY
)"
else
    grep -q '"code": "W03"' json
    report "json" "$([ $? = 0 ] || echo 'no finding')"
fi
expect "codes" 0 "^W03  threads end with their fibers: unlock" --codes
timeout 60 "$doctor" --json "$w/w03.trace" > /dev/full 2> err
report "a full disk" "$([ $? = 2 ] && grep -q 'No space' err || cat err)"
exit $bad
