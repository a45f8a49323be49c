#!/bin/sh
# Calls that the library never makes, and where the better way is.
set -u
cd "$(dirname "$0")/.." || exit 1

never() # name, expression, the better way
{
    found=$(grep -rnE --include='*.[chS]' "$2" src include)
    case $? in
    1) echo "ok $1" ;;
    *) echo "not ok $1: see $3"; echo "$found" ;;
    esac
}

never sched_yield '(sched|pthread|thrd)_yield *\(\)|SYS_sched_yield' src/base/backoff.h
