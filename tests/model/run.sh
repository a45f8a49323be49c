#!/bin/sh
# Checks the models of this folder with spin, exhaustively: run.sh [WORD...], all, or those whose file name holds one of the words.
#
# Each model says in its head which of its forms are right and which are wrong: lines " * right  DEFINES" and " * wrong  DEFINES  what is wrong".
# A right form must hold in every state. A wrong one must be found to be wrong, or the model could not tell. Says "ok NAME" or
# "not ok NAME: why" of each.
# To see how one goes wrong, here:
#   spin -a -DSTEPS=3 -DNO_DATA_ROOTS conc.pml && cc -O2 -DREACH -o pan pan.c && ./pan -i && spin -t -p -g -DSTEPS=3 -DNO_DATA_ROOTS conc.pml
set -u
cd "$(dirname "$0")" || exit 1
TMP=$(mktemp -d) || exit 1
trap 'rm -rf "$TMP"' EXIT
bad=0
command -v spin >/dev/null 2>&1 || { echo "not ok models: spin is not installed (apt-get install spin)"; exit 1; }

say() { # name, empty or what is wrong
    if [ -z "$2" ]; then echo "ok $1"; else echo "not ok $1: $2"; bad=1; fi
}

# One form of a model: prints what is wrong with the outcome.
check() { # model, right or wrong, defines
    model=$PWD/$1.pml want=$2
    defines=
    for d in $(echo "$3" | tr ',' ' '); do [ "$d" = - ] || defines="$defines -D$d"; done
    how=-O2
    [ "$want" = right ] || how="-O0 -DREVERSE -DT_REVERSE" # an order in which what is wrong comes early
    # shellcheck disable=SC2086
    (cd "$TMP" && rm -f pan* && spin -a $defines "$model" && ${CC:-cc} $how -w -DSAFETY -DVECTORSZ=512 -o pan pan.c) >"$TMP/made" 2>&1 ||
        { echo "it cannot be made: $(tail -n 1 "$TMP/made")"; return; }
    (cd "$TMP" && ./pan -w23 -m500000) >"$TMP/out" 2>&1
    grep -q 'error: max search depth too small' "$TMP/out" && { echo "its search was cut off at a depth"; return; }
    case $want,$(sed -n 's/.*, errors: \([0-9]*\)$/\1/p' "$TMP/out") in
    right,0)
        grep -q '^(Spin\|^Full statespace' "$TMP/out" && ! grep -q 'Search not completed' "$TMP/out" || echo "its search did not end"
        ;;
    right,*) grep -m1 '^pan:' "$TMP/out" ;;
    wrong,1) ;;
    wrong,*) echo "nothing wrong was found" ;;
    esac
}

for file in *.pml; do
    model=${file%.pml}
    if [ $# != 0 ]; then
        wanted=
        for word in "$@"; do case $model in *"$word"*) wanted=1 ;; esac; done
        [ -n "$wanted" ] || continue
    fi
    sed -n 's/^ \* \(right\|wrong\)  \([^ ]*\).*/\1 \2/p' "$file" >"$TMP/forms"
    [ -s "$TMP/forms" ] || say "$model" "it names no forms"
    while read -r want defines; do
        say "$model $want $defines" "$(check "$model" "$want" "$defines")"
    done <"$TMP/forms"
done
exit $bad
