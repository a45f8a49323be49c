#!/bin/sh
# Each header compiles alone: the public ones as C11 and as C++17 without a warning, the internal ones as C.
set -u
cd "$(dirname "$0")/.." || exit 1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
CC=${CC:-gcc} CXX=${CXX:-g++}

# check NAME COMMAND...: the command compiles $tmp/h.c or $tmp/h.cc
check()
{
    name=$1
    shift
    if "$@" >"$tmp/out" 2>&1; then
        echo "ok $name"
    else
        echo "not ok $name: $*"
        head -20 "$tmp/out"
    fi
}

for h in include/weft.h include/weft/*.h; do
    h=${h#include/}
    printf '#include <%s>\nint weft_test_header(void);\nint weft_test_header(void) { return 0; }\n' "$h" >"$tmp/h.c"
    cp "$tmp/h.c" "$tmp/h.cc"
    check "$h as C11" $CC -std=c11 -Wall -Wextra -Wpedantic -Werror -Iinclude -fsyntax-only "$tmp/h.c"
    check "$h as C++17" $CXX -std=c++17 -Wall -Wextra -Werror -Iinclude -fsyntax-only "$tmp/h.cc"
done
for h in src/*/*.h src/debug/serve/*.h src/os/arch/*.h; do
    echo "#include \"${h#src/}\"" >"$tmp/h.c"
    check "$h" $CC -std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Werror -Iinclude -Isrc -fsyntax-only "$tmp/h.c"
done
