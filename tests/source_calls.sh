#!/bin/sh
# Calls that the library makes nowhere: what is asked for here has a better way, which is named.
set -u
cd "$(dirname "$0")/.." || exit 1
never()
{
    if grep -rnE --include='*.[chS]' "$1" src include; then echo "not ok $1: $2"; else echo "ok $1"; fi
}
never '(sched|pthread|thrd)_yield *\(\)|SYS_sched_yield' 'see base/backoff.h'
