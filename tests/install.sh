#!/bin/sh
# The README's program, compiled against an installed copy with nothing but pkg-config, as C and as C++, shared and static.
set -u
cd "$(dirname "$0")/.." || exit 1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
CC=${CC:-gcc} CXX=${CXX:-g++} MAKE=${MAKE:-make}
sanitize=${SAN:+-fsanitize=$SAN}
[ "${SAN:-}" != address ] || sanitize=-fsanitize=address,undefined
make_b="$MAKE -s --no-print-directory B=$B CC=$CC SAN=${SAN:-}"

# check NAME COMMAND: a shell command; its output is kept in $tmp/out
check()
{
    if sh -c "$2" >"$tmp/out" 2>&1; then
        echo "ok $1"
    else
        echo "not ok $1: $2"
        head -30 "$tmp/out"
    fi
}

# The program and what it prints, as README.md has them.
sed -n '/^```c$/,/^```$/p' README.md | sed -e 1d -e '/^```$/,$d' >"$tmp/prog.c"
cp "$tmp/prog.c" "$tmp/prog.cc"
said=$(sed -n '/&& \.\/hello$/{n;s/^ *//;p;}' README.md)
check "README.md has a program and its output" "grep -q weft_run $tmp/prog.c && test -n '$said'"
check "examples/hello.c is that program" "sed 1d examples/hello.c | cmp - $tmp/prog.c"
flags='$(pkg-config --cflags --libs weft)'
static='$(pkg-config --cflags --libs --static weft)'
runs() { echo "test \"\$(timeout 60 $1)\" = '$said'"; }
c="$CC -std=c11 -pedantic $sanitize -Wall -Wextra -Werror $tmp/prog.c"
cxx="$CXX -std=c++17 $sanitize -Wall -Wextra -Werror $tmp/prog.cc"

# ---- as packagers do it: DESTDIR, and nothing left after uninstall
check "install with DESTDIR" "$make_b install PREFIX=/usr LIBDIR=/usr/lib/x DESTDIR=$tmp/dest"
check "what is installed" "cd $tmp/dest/usr && test -f include/weft.h -a -f include/weft/gc.h -a -f lib/x/libweft.a \
    -a -f lib/x/pkgconfig/weft.pc && test -L lib/x/libweft.so && test -f lib/x/libweft.so"
check "DESTDIR is not in weft.pc" "! grep -q $tmp $tmp/dest/usr/lib/x/pkgconfig/weft.pc"
staged="export PKG_CONFIG_PATH=$tmp/dest/usr/lib/x/pkgconfig PKG_CONFIG_SYSROOT_DIR=$tmp/dest LD_LIBRARY_PATH=$tmp/dest/usr/lib/x"
check "C, against the staged copy" "$staged; $c $flags -o $tmp/c && $(runs $tmp/c)"
check "the shapes of JSON" "for word in quota_cpus falls retained_objects root.kind; do grep -q \$word $tmp/dest/usr/share/doc/weft/json.txt || exit 1; done"
check "the reference" "cd $tmp/dest/usr && grep -q 'id=\"weft_chan_send\"' share/doc/weft/weft.html && test -f share/man/man1/weft-doctor.1"
: >"$tmp/dest/usr/include/weft/mine.h"
check "install again" "$make_b install PREFIX=/usr LIBDIR=/usr/lib/x DESTDIR=$tmp/dest"
check "uninstall" "$make_b uninstall PREFIX=/usr LIBDIR=/usr/lib/x DESTDIR=$tmp/dest"
check "uninstall leaves what is not ours, and nothing else" "test \"\$(find $tmp/dest ! -type d)\" = $tmp/dest/usr/include/weft/mine.h"
check "uninstall leaves no folder of ours" "test -z \"\$(find $tmp/dest -name '*weft*' ! -path '*/include/*')\""
check "uninstall of what is not there" "! $make_b uninstall PREFIX=/usr LIBDIR=/usr/lib/x DESTDIR=$tmp/dest"

# ---- as users do it
check "install with PREFIX" "$make_b install PREFIX=$tmp/usr"
export PKG_CONFIG_PATH="$tmp/usr/lib/pkgconfig"
export LD_LIBRARY_PATH="$tmp/usr/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
check "version in weft.pc" "pkg-config --modversion weft | grep -qx \"\$(sed -n 's/.*WEFT_VERSION \"\(.*\)\"/\1/p' include/weft/base.h)\""
check "C, shared" "$c $flags -o $tmp/c && $(runs $tmp/c)"
cat >"$tmp/serve.c" <<'END'
#include <stdio.h>
#include <weft/serve.h>
int main(void)
{
    weft_debug_server *server;
    if (weft_debug_serve(NULL, &server) != 0)
        return 1;
    puts(weft_debug_port(server) > 0 ? "serves" : "?");
    return -weft_debug_serve_stop(server);
}
END
serve="$CC -std=c11 -pedantic $sanitize -Wall -Wextra -Werror $tmp/serve.c -o $tmp/serve"
check "the endpoint, shared" "$serve \$(pkg-config --cflags --libs weft-debug) && test \"\$(timeout 60 $tmp/serve 2>/dev/null)\" = serves"
# The table of cards is the program's own copy, or the library's: both write to the same.
cat >"$tmp/store.c" <<'END'
#include <stdio.h>
#include <weft.h>
static void run(void *arg)
{
    void **p = (void **)weft_alloc_carded(64);
    weft_store(&p[1], arg);
    unsigned char *card = weft_card_table_.table + (((uintptr_t)&p[1] + weft_card_table_.minus_base) >> WEFT_CARD_SHIFT_);
    puts(p[1] == arg && weft_card_table_.bytes != 0 && *card == WEFT_CARD_MARKED_ ? "told" : "lost");
}
int main(void)
{
    int x;
    return weft_run(run, &x, NULL);
}
END
cp "$tmp/store.c" "$tmp/store.cc"
for how in "$CC -std=c11 -fno-pie -no-pie $tmp/store.c" "$CC -std=c11 -fPIE -pie $tmp/store.c" "$CXX -std=c++17 -fPIC -pie $tmp/store.cc"; do
    check "weft_store, shared: ${how%% "$tmp"*}" "$how $sanitize -Wall -Wextra -Werror $flags -o $tmp/store && test \"\$(timeout 60 $tmp/store)\" = told"
done
check "weft-doctor" "test \"\$($tmp/usr/bin/weft-doctor --version)\" = \"weft-doctor \$(pkg-config --modversion weft)\""
nm -D --defined-only "$tmp/usr/lib/libweft.so" | awk '$2 == "T" { sub(/@.*/, "", $3); print $3 }' | sort -u >"$tmp/names"
check "each function is in the reference" "sed 's/.*/<span id=\"&\">/' $tmp/names | while read -r n; do grep -qF \"\$n\" $tmp/usr/share/doc/weft/weft.html ||
    { echo \"\$n\"; exit 1; }; done"
check "each function has a manual page" "while read -r n; do test -f $tmp/usr/share/man/man3/\$n.3 || { echo \$n; exit 1; }; done <$tmp/names"
if command -v python3 >/dev/null; then
    cat >"$tmp/whole.py" <<'END'
import sys
from html.parser import HTMLParser
class Check(HTMLParser):
    stack, ids, links = [], set(), set()
    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "input"): self.stack.append(tag)
        for key, value in attrs:
            if key == "id": assert value not in self.ids, value; self.ids.add(value)
            if key == "href": assert value[0] == "#", value; self.links.add(value[1:])
            assert key != "src", value
    def handle_endtag(self, tag):
        assert self.stack and self.stack.pop() == tag, (tag, self.getpos())
c = Check()
c.feed(open(sys.argv[1]).read())
assert c.stack == [] and not c.links - c.ids, (c.stack, c.links - c.ids)
assert len(c.ids) > 200
END
    check "the reference is one page, whole, and its links lead somewhere" "python3 $tmp/whole.py $tmp/usr/share/doc/weft/weft.html"
fi
if command -v groff >/dev/null; then
    check "manual pages" "for f in $tmp/usr/share/man/man1/weft-doctor.1 $tmp/usr/share/man/man3/weft-*.3; do groff -man -ww -Wbreak -Tascii \$f 2>&1 >/dev/null; done |
        grep . && exit 1 || true"
fi
if [ -z "$sanitize" ] && command -v gdb >/dev/null; then
    check "gdb loads the script with the library" "timeout 120 gdb -nx -batch -iex 'add-auto-load-scripts-directory $tmp/usr/share/gdb/auto-load' \
        -iex 'add-auto-load-safe-path $tmp' -ex 'break weft_chan_recv' -ex run -ex 'weft fibers' $tmp/c 2>&1 </dev/null | tee $tmp/gdb | grep -q '^ *1 .*program' ||
        { cat $tmp/gdb; false; }"
fi
check "C++, shared" "$cxx $flags -o $tmp/cc && $(runs $tmp/cc)"
check "shared means shared" "readelf -d $tmp/c | grep -q 'NEEDED.*libweft.so'"
rm -f "$tmp"/usr/lib/libweft.so* "$tmp"/usr/lib/libweft-debug.so*
check "the endpoint, static" "$serve \$(pkg-config --cflags --libs --static weft-debug) && test \"\$(timeout 60 $tmp/serve 2>/dev/null)\" = serves"
check "C, static" "$c $static -o $tmp/c && $(runs $tmp/c)"
check "C++, static" "$cxx $static -o $tmp/cc && $(runs $tmp/cc)"
check "static means static" "! readelf -d $tmp/c | grep -q 'NEEDED.*libweft'"
