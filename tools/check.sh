#!/bin/sh
# make check: every test in every configuration, a line of result each.  tools/check.sh NAME... runs only those.
#
# To add a configuration: a line in the table. Fields: name; what it needs (a command; - for none); make arguments;
# environment of the tests; T, the tests it runs (empty: all). Logs are kept in build/check/. With CI=true what is skipped has failed.
set -u
cd "$(dirname "$0")/.." || exit 1
MAKE=${MAKE:-make}
OUT=$PWD/build/check
mkdir -p "$OUT"

table()
{
    cat <<TABLE
release     | -       | BUILD=release        |                                             |
debug       | -       | BUILD=debug          |                                             |
procs-1     | -       | BUILD=release        | WEFT_MAXPROCS=1                             |
procs-2     | -       | BUILD=release        | WEFT_MAXPROCS=2                             |
procs-8     | -       | BUILD=release        | WEFT_MAXPROCS=8                             |
membarrier-0 | -      | BUILD=debug          | WEFT_DEBUG=membarrier=0                     |
gcstress    | -       | BUILD=debug          | WEFT_DEBUG=gcstress=200 WEFT_TEST_SLOW=1    |
gcpoison    | -       | BUILD=debug          | WEFT_DEBUG=gcstress=500,gcpoison=1 WEFT_TEST_SLOW=1 |
gcverify    | -       | BUILD=debug          | WEFT_DEBUG=gcstress=500,gcverify=1 WEFT_TEST_SLOW=1 |
gc-stw      | -       | BUILD=release        | WEFT_DEBUG=gc=stw                           |
gc-uffd     | uffd    | BUILD=debug          | WEFT_DEBUG=gc=uffd                          |
gc-mprotect | -       | BUILD=debug          | WEFT_DEBUG=gc=mprotect                      |
asan-ubsan  | -       | SAN=address          |                                             |
tsan        | -       | SAN=thread           |                                             |
clang       | clang   | CC=clang WERROR=1    |                                             |
clang-asan  | clang   | CC=clang SAN=address |                                             |
seeds       | -       | BUILD=debug          | WEFT_TEST_SEEDS=3000                        | stress_seed
migrate     | -       | BUILD=debug          | WEFT_DEBUG=migrate=1 WEFT_TEST_SLOW=1       | chan_ select_ sync_ timer_ wait_ io_ life_
fail        | -       | BUILD=debug          | WEFT_TEST_SWEEP=all                         | stress_fail
aarch64     | aarch64 | CROSS=aarch64-linux-gnu- | WEFT_TEST_SLOW=1                        |
TABLE
}

failures=0 skipped=0

line() { printf '%-8s %-12s %s\n' "$1" "$2" "$3"; }

skip()
{
    line SKIP "$1" "$2"
    skipped=$((skipped + 1))
    [ "${CI:-}" != true ] || failures=$((failures + 1))
}

go_missing()
{
    wanted=$(sed -n 's/^go //p' bench/go/go.mod)
    have=$(go env GOVERSION 2>/dev/null)
    printf '%s\n' "$wanted" "${have#go}" | sort -VC || echo "Go $wanted or newer is not installed${have:+, but $have}"
}

# What is missing for a configuration; empty: nothing.
missing()
{
    case $1 in
    -) ;;
    aarch64) tools/aarch64.sh missing ;;
    go) go_missing ;;
    uffd) printf '6.7\n%s\n' "$(uname -r)" | sort -VC || echo "Linux $(uname -r) does not tell what is written to (6.7 does)" ;;
    *) command -v "$1" >/dev/null 2>&1 || echo "$1 is not installed (apt-get install $1)" ;;
    esac
}

run()
{
    name=$1 needs=$2 args=$3 env=$4 only=$5
    why=$(missing "$needs")
    if [ -n "$why" ]; then
        skip "$name" "$why"
        return
    fi
    start=$(date +%s)
    [ "$needs" != aarch64 ] || args="$args $(tools/aarch64.sh make-args)"
    # shellcheck disable=SC2086
    if env $env TEST_TIMEOUT=900 TEST_CASE_TIMEOUT=300 "$MAKE" -j"$(nproc)" --no-print-directory $args ${only:+T="$only"} run-tests >"$OUT/$name.log" 2>&1; then
        result=ok
    else
        result=FAIL
        failures=$((failures + 1))
    fi
    line $result "$name" "$(tail -n 30 "$OUT/$name.log" | grep -o '^[0-9]* passed, [0-9]* failed.*' | tail -1) $(($(date +%s) - start)) s"
    [ $result = ok ] || grep -A30 -E '^FAIL|[Ee]rror' "$OUT/$name.log" | head -80 | sed 's/^/    /'
}

# command NAME NEEDS COMMAND...
command_line()
{
    name=$1 needs=$2
    shift 2
    why=$(missing "$needs")
    if [ -n "$why" ]; then
        skip "$name" "$why"
        return
    fi
    start=$(date +%s)
    if "$@" >"$OUT/$name.log" 2>&1; then
        line ok "$name" "$(($(date +%s) - start)) s"
    else
        line FAIL "$name" "$(($(date +%s) - start)) s"
        tail -n 40 "$OUT/$name.log" | sed 's/^/    /'
        failures=$((failures + 1))
    fi
}

is_wanted() { [ -z "$names" ] || case " $names " in *" $1 "*) ;; *) return 1 ;; esac; }

names=$*
table >"$OUT/table"
for name in $names; do
    grep -q "^$name " "$OUT/table" || case $name in demo | go-twins | models) ;; *)
        echo "check.sh: no configuration $name; there are $(sed 's/ .*//' "$OUT/table" | tr '\n' ' ')demo go-twins models" >&2
        exit 2
        ;;
    esac
done
while IFS='|' read -r name needs args env only; do
    name=$(echo $name) # trims
    is_wanted "$name" || continue
    run "$name" "$(echo $needs)" "$(echo $args)" "$(echo $env)" "$(echo $only)" </dev/null
done <"$OUT/table"
is_wanted demo && command_line demo - "$MAKE" --no-print-directory demo
is_wanted go-twins && command_line go-twins go sh -c 'cd bench/go && go vet ./...'
is_wanted models && command_line models spin tests/model/run.sh

echo "check: $failures failed, $skipped skipped; logs in build/check/"
[ "$failures" = 0 ]
