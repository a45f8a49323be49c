#!/bin/sh
# The host's malloc is untouched: whichever it is, weft's own memory does not go through it, and settings for it do not reach
# the jemalloc inside weft.
set -u
cd "$(dirname "$0")/.." || exit 1
[ -z "${SAN:-}" ] || exit 0 # a sanitizer has a malloc of its own
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
CC=${CC:-gcc}
libs="-rdynamic -ldl -pthread"
build="$CC -O1 -g -Iinclude tests/prog/host_malloc.c"
preload=$($CC -print-file-name=libjemalloc.so.2)

check()
{
    if sh -c "$2" >"$tmp/out" 2>&1; then
        echo "ok $1"
    else
        echo "not ok $1: $2"
        head -30 "$tmp/out"
    fi
}

export LD_LIBRARY_PATH="$B"
$build $B/libweft.a $libs -o "$tmp/own-static"
$build -L$B -lweft $libs -o "$tmp/own-shared"
$build -DHOST_JEMALLOC -L$B -lweft $libs -o "$tmp/preloaded"
$build -DHOST_JEMALLOC $B/libweft.a -ljemalloc $libs -o "$tmp/jemalloc-static"
$build -DHOST_JEMALLOC -ljemalloc -L$B -lweft $libs -Wl,--no-as-needed -ljemalloc -o "$tmp/jemalloc-shared"

check "host with a malloc of its own, static" "$tmp/own-static"
check "host with a malloc of its own, shared" "$tmp/own-shared"
check "host linked with jemalloc, static" "$tmp/jemalloc-static"
check "host linked with jemalloc, shared" "$tmp/jemalloc-shared"
check "jemalloc preloaded" "LD_PRELOAD=$preload $tmp/preloaded"
# Misspelt on purpose: a jemalloc that reads it complains on stderr.
check "MALLOC_CONF is not read: nothing is said" "test \"\$(MALLOC_CONF=no_such_option:1,stats_print:true $tmp/own-shared 2>&1 | wc -l)\" = 1"
