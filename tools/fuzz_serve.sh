#!/bin/sh
# Fuzzes what the endpoint makes of requests, with libFuzzer (clang), under AddressSanitizer and UBSan.  tools/fuzz_serve.sh [SECONDS], by default 600.
# The corpus is kept in build/fuzz-serve/corpus and begins with requests that are right. A crash leaves its bytes in build/fuzz-serve.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-600}
CLANG=${CLANG:-clang}
out=$PWD/build/fuzz-serve
mkdir -p "$out/corpus"
${MAKE:-make} -s CC="$CLANG" SAN=address B="$out/lib" "$out/lib/libweft.a" "$out/lib/src/debug/serve/page/files.c"
"$CLANG" -g -O1 -std=gnu11 -D_GNU_SOURCE -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -Iinclude -Isrc \
    tests/fuzz/serve/requests.c src/debug/serve/*.c "$out/lib/src/debug/serve/page/files.c" "$out/lib/libweft.a" -o "$out/requests" \
    -lmicrohttpd -lgnutls -lm -ldl -pthread
seed() { printf '%b' "$2" > "$out/corpus/seed-$1"; }
seed 1 '\001GET /debug/pprof/ HTTP/1.1\r\nHost: localhost\r\n\r\n'
seed 2 '\001GET /debug/pprof/heap?debug=1&seconds=1&gc=1 HTTP/1.1\r\nHost: localhost\r\n\r\n'
seed 3 '\001POST /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\n0x10+0x20+1'
seed 4 '\001POST /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n0x10+\r\n0\r\n\r\n'
seed 5 '\001HEAD /debug/pprof/%68eap HTTP/1.0\r\nSec-Fetch-Site: cross-site\r\nOrigin: null\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n'
seed 6 '\001GET http://localhost/debug/pprof/own?seconds=1 HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nAccept: text/html\r\n\r\n'
seed 7 '\002Bearer 0123456789abcdef'
seed 8 '\002Basic YTowMTIzNDU2Nzg5YWJjZGVm'
seed 9 '\002/debug/pprof/heap?seconds=%31&a=b;c+d'
seed 10 '\002[::1]:6060'
seed 11 '\0020x10+016+0b1+99999999999999999999'
seed 12 '\002-9223372036854775808'
seed 13 '\0021.5e-3'
ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0 UBSAN_OPTIONS=print_stacktrace=1 \
    "$out/requests" -max_total_time="$seconds" -max_len=4096 -timeout=20 -rss_limit_mb=2048 -artifact_prefix="$out/" -print_final_stats=1 "$out/corpus"
