#!/bin/sh
# What the libraries define: only weft_*, and in libweft.so exactly what the public headers declare.
set -u
cd "$(dirname "$0")/.." || exit 1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

expect_empty()
{
    if [ -z "$2" ]; then
        echo "ok $1"
    else
        echo "not ok $1:"
        echo "$2"
    fi
}

# Sanitizers and the unwinder add symbols of their own; they start with __.
nm -D --defined-only "$B/libweft.so" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort -u >"$tmp/all"
nm -D --defined-only "$B/libweft.so" | awk '$2 ~ /[BDR]/ { sub(/@.*/, "", $3); print $3 }' | grep '^weft_' >"$tmp/data"
comm -23 "$tmp/all" "$tmp/data" >"$tmp/so"
nm -g --defined-only "$B/libweft.a" 2>/dev/null | awk 'NF == 3 && $3 !~ /^(__|_?DW\.ref)/ { print $3 }' | sort -u >"$tmp/a"
${CC:-gcc} -E -Iinclude include/weft.h | grep -o '\bweft_[a-z0-9_]*(' | tr -d '(' | sort -u >"$tmp/called"
${CC:-gcc} -E -DWEFT_TEST -Iinclude include/weft.h | tr '\n' ' ' | sed 's/;/;\n/g' |
    grep 'visibility("default")' | grep -o '\bweft_[a-z0-9_]* *(' | tr -d ' (' | sort -u >"$tmp/declared"

expect_empty "libweft.so exports only weft_*" "$(grep -v '^weft_' "$tmp/so")"
expect_empty "libweft.a defines only weft_*" "$(grep -v '^weft_' "$tmp/a")"
expect_empty "every exported function is declared in a public header" "$(comm -23 "$tmp/so" "$tmp/called")"
expect_empty "every declared function is exported" "$(comm -13 "$tmp/so" "$tmp/declared")"
expect_empty "one variable is exported, the table of cards" "$(echo weft_card_table_ | diff - "$tmp/data")"
# A program may have a copy of it, which the library has to use then.
expect_empty "the library finds the variable as a program's copy" "$(readelf -rW "$B/libweft.so" | grep -q 'GLOB_DAT.* weft_card_table_' || echo bound)"
expect_empty "libweft.so has a SONAME" "$(readelf -d "$B/libweft.so" | grep -q 'SONAME.*libweft\.so\.[0-9]' || echo missing)"
# libunwind, libdw and zlib are loaded when they are needed: a program that never looks does not carry them.
expect_empty "libweft.so needs libc, and no more" "$(readelf -d "$B/libweft.so" | grep NEEDED |
    grep -vE '\[(libc\.so|ld-linux|lib[a-z]*san\.so|libgcc_s|lib(dl|pthread|m|rt)\.so)')"
expect_empty "no executable stack" "$(readelf -lW "$B/libweft.so" | grep GNU_STACK | grep E)"

# libweft-debug, which libmicrohttpd does not let do without malloc.
if [ -e "$B/libweft-debug.so" ]; then
    nm -D --defined-only "$B/libweft-debug.so" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort -u >"$tmp/debug-so"
    nm -g --defined-only "$B/libweft-debug.a" 2>/dev/null | awk 'NF == 3 && $3 !~ /^(__|_?DW\.ref)/ { print $3 }' | sort -u >"$tmp/debug-a"
    ${CC:-gcc} -E -Iinclude include/weft/serve.h | tr '\n' ' ' | sed 's/;/;\n/g' |
        grep 'visibility("default")' | grep -o '\bweft_debug_[a-z0-9_]* *(' | tr -d ' (' | sort -u >"$tmp/debug-declared"
    expect_empty "libweft-debug.so exports what serve.h declares" "$(diff "$tmp/debug-so" "$tmp/debug-declared")"
    expect_empty "libweft-debug.a defines what serve.h declares" "$(diff "$tmp/debug-a" "$tmp/debug-declared")"
    expect_empty "libweft-debug uses the library as any program does" "$(nm -u "$B/weft-debug.o" | awk '$2 ~ /^weft_/ { print $2 }' | sort -u |
        comm -23 - "$tmp/so")"
    expect_empty "no way to serve without its rules is in libweft-debug" "$(nm "$B/weft-debug.o" | grep -i unsafe)"
fi

# Memory of our own comes from base/offheap.h.
for f in $(find "$B/src" -name '*.o' ! -path '*/debug/serve/*' ! -path '*/debug/cmd/*'); do
    nm -u "$f" | awk -v f="${f#"$B/"}" '$2 ~ /^(malloc|calloc|realloc|strdup|aligned_alloc|posix_memalign)$/ { print f, $2 }'
done >"$tmp/malloc"
expect_empty "the library does not call the host's malloc" "$(cat "$tmp/malloc")"
