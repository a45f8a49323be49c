#!/bin/sh
# make soak: the long random run (tests/soak/soak.h) in every mode of the collector, so many seconds in all.  tools/soak.sh SECONDS [SEED]
#
# One after the other: each back-end of the collector (WEFT_DEBUG=gc=...) with each line of the table below. A back-end that is refused is left out,
# and that is said. A run that fails has said what it lost, and from which seed; the others go on. Needs B, where the program was built.
set -u
B=${B:?output directory}
all=${1:-3600}
seed=${2:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
out=$B/tests/soak
failed=0 count=0

# options | debug keys
modes()
{
    cat <<'TABLE'
-p 1            |
-p 2            |
-p 8            | gcpoison=1
-p 2            | gcverify=1,gcpoison=1
-p 8            | gcverify=1
-p 2            | gcstress=300,gcpoison=1
-p 8            | gcstress=1000,gcverify=1,gcpoison=1
                | migrate=1,gcpoison=1
-p 2 -g 20 -n 10000 |
-g 20 -n 10000  | gcpoison=1
-p 2 -n 40000   |
-n 40000        | gcverify=1
TABLE
}

backends=
for gc in stw uffd mprotect; do
    if "$out/soak" -s 0 -f -d gc=$gc > "$out/log" 2>&1; then
        backends="$backends $gc"
    else
        code=$?
        [ $code = 77 ] || { echo "soak: gc=$gc fails at once ($code):"; cat "$out/log"; failed=1; }
        [ $code != 77 ] || echo "soak: gc=$gc is left out: $(head -1 "$out/log")"
    fi
done
modes > "$out/modes"
for gc in $backends; do
    count=$((count + $(wc -l < "$out/modes")))
done
[ $count != 0 ] || exit 1
each=$((all / count))
[ $each -gt 0 ] || each=1
echo "soak: $count runs of $each s, seed $seed and following"
for gc in $backends; do
    while IFS='|' read -r options keys <&3; do
        keys=$(echo $keys)
        [ $gc != mprotect ] || options="$options -k" # a read(2) into an armed page fails there, as is said of it
        # shellcheck disable=SC2086
        timeout -k 10 $((each + 300)) "$out/soak" -s $each -r $seed -d "gc=$gc${keys:+,$keys}" $options 2>&1 < /dev/null
        code=$?
        if [ $code != 0 ]; then
            echo "soak: FAILED, exit code $code$([ $code != 124 ] || echo ', it hangs'):" \
                "$out/soak -s $each -r $seed -d gc=$gc${keys:+,$keys} $options"
            failed=$((failed + 1))
        fi
        seed=$((seed + 1))
    done 3< "$out/modes"
done
echo "soak: $failed of $count failed"
[ $failed = 0 ]
