#!/bin/sh
# The benchmarks, which bench/run.sh builds only when they are asked for, compile without a warning.
set -u
cd "$(dirname "$0")/.." || exit 1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
for f in bench/*.c; do
    if ${CC:-gcc} -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -Iinclude -Isrc -pthread -c "$f" -o "$tmp/o" >"$tmp/out" 2>&1; then
        echo "ok $f"
    else
        echo "not ok $f"
        head -20 "$tmp/out"
    fi
done
