#!/bin/sh
# Fuzzes the readers of weft-doctor with libFuzzer (clang), under AddressSanitizer and UBSan.  tools/fuzz.sh [SECONDS [KIND...]], by default 600
# each for the kinds trace, profile, gzip.
# The corpus is kept in build/fuzz/corpus and begins with files that weft (and Go, if it is there) has written: small ones, and compressed ones unpacked,
# since nothing comes through a checksum by chance. A crash leaves its bytes in build/fuzz.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-600}
[ $# -eq 0 ] || shift
kinds=${*:-trace profile gzip}
out=$PWD/build/fuzz
CLANG=${CLANG:-clang}
mkdir -p "$out/corpus/trace" "$out/corpus/profile" "$out/corpus/gzip" "$out/seeds"

make -s -j2 lib "$PWD/build/gcc-release/tests/prog/misuse"
"$CLANG" -g -O1 -std=gnu11 -D_GNU_SOURCE -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -Iinclude -Isrc \
    tests/fuzz/files.c $(ls src/debug/cmd/*.c | grep -v /main.c) -lz -o "$out/files"

seed() # whose files, their folder
{
    for f in "$2"/*; do
        case $f in
        *.trace) kind=trace ;;
        *) kind=profile ;;
        esac
        name=$1-$(basename "$f" .gz)
        [ "$(wc -c <"$f")" -lt 70000 ] || continue
        if [ $kind = profile ]; then
            { printf '\001'; gzip -dc "$f"; } >"$out/corpus/profile/$name"
            { printf '\001'; cat "$f"; } >"$out/corpus/gzip/$name"
        else
            { printf '\000'; cat "$f"; } >"$out/corpus/trace/$name"
        fi
    done
}
rm -rf "$out/seeds"
mkdir -p "$out/seeds/weft" "$out/seeds/go"
build/gcc-release/tests/prog/misuse "$out/seeds/weft"
seed weft "$out/seeds/weft"
if command -v go >/dev/null 2>&1; then
    (cd tests/go && go build -o "$out/misuse" misuse.go)
    "$out/misuse" "$out/seeds/go"
    seed go "$out/seeds/go"
fi

cd "$out"
for kind in $kinds; do
    echo "== $kind: $(ls corpus/$kind | wc -l) files, $seconds s"
    ASAN_OPTIONS=detect_leaks=1 ./files -max_total_time="$seconds" -max_len=100000 -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 corpus/$kind 2>&1 |
        grep -E 'ERROR|SUMMARY|runtime error|stat::|DONE|Test unit' || true
done
crashes=$(ls "$out" | grep -E '^(crash|leak|timeout|oom)-' || true)
[ -z "$crashes" ] || { echo "found: $crashes"; exit 1; }
echo "no crash"
