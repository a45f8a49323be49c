#!/bin/sh
# make install, make uninstall.  install.sh install|uninstall, from the source folder, with what the Makefile sets: B, PREFIX, LIBDIR, DESTDIR,
# VERSION, LIBRARIES (weft, weft-debug).
#
# What was put where is written down in PREFIX/share/weft/installed, so that uninstall removes exactly that, whatever the sources have become; and a newer
# version's install does not forget what an older one left.
set -eu
: "${B:?}" "${PREFIX:?}" "${LIBDIR:?}" "${VERSION:?}"
DESTDIR=${DESTDIR:-}
share=$PREFIX/share/weft
list=$share/installed
major=${VERSION%%.*}
autoload=$PREFIX/share/gdb/auto-load$LIBDIR

# put MODE SOURCE PATH
put()
{
    install -D -m "$1" "$2" "$DESTDIR$3"
    echo "$3" >>"$made"
}
# link TARGET PATH
link()
{
    ln -sf "$1" "$DESTDIR$2"
    echo "$2" >>"$made"
}

put_library()
{
    put 644 "$B/lib$1.a" "$LIBDIR/lib$1.a"
    put 755 "$B/lib$1.so.$major" "$LIBDIR/lib$1.so.$VERSION"
    link "lib$1.so.$VERSION" "$LIBDIR/lib$1.so.$major"
    link "lib$1.so.$major" "$LIBDIR/lib$1.so"
    case $LIBDIR in
    "$PREFIX"/*) libdir="\${prefix}/${LIBDIR#"$PREFIX"/}" ;;
    *) libdir=$LIBDIR ;;
    esac
    sed "s|^prefix=.*|prefix=$PREFIX|; s|^libdir=.*|libdir=$libdir|" "$B/$1.pc" >"$made.pc"
    put 644 "$made.pc" "$LIBDIR/pkgconfig/$1.pc"
}

do_install()
{
    made=$(mktemp)
    trap 'rm -f "$made" "$made".*' EXIT
    put 644 include/weft.h "$PREFIX/include/weft.h"
    for h in include/weft/*.h; do
        case $h:$LIBRARIES in include/weft/serve.h:weft) continue ;; esac
        put 644 "$h" "$PREFIX/$h"
    done
    for library in $LIBRARIES; do
        put_library "$library"
    done
    put 755 "$B/weft-doctor" "$PREFIX/bin/weft-doctor"
    put 644 src/debug/cmd/weft-doctor.1 "$PREFIX/share/man/man1/weft-doctor.1"
    for page in "$B"/man/*.3; do
        put 644 "$page" "$PREFIX/share/man/man3/${page##*/}"
    done
    put 644 "$B/weft.html" "$PREFIX/share/doc/weft/weft.html"
    # What the JSON looks like is said at the heads of the files that make it.
    for name in documents memory heap_dump why; do
        sed -n '1,/\*\/$/p' "src/debug/$name.c"
        echo
    done >"$made.json"
    put 644 "$made.json" "$PREFIX/share/doc/weft/json.txt"
    put 644 src/debug/gdb/weft-gdb.py "$share/weft-gdb.py"
    # gdb looks for this beside its own data, for a library under /usr; elsewhere after add-auto-load-scripts-directory.
    printf 'import gdb\n\ngdb.execute("source %s/weft-gdb.py")\n' "$share" >"$made.py"
    put 644 "$made.py" "$autoload/libweft.so.$VERSION-gdb.py"
    [ ! -e "$DESTDIR$list" ] || cat "$DESTDIR$list" >>"$made"
    echo "$list" >>"$made"
    sort -u "$made" >"$made.all"
    install -m 644 "$made.all" "$DESTDIR$list"
}

do_uninstall()
{
    if [ ! -e "$DESTDIR$list" ]; then
        echo "uninstall: nothing is installed in $DESTDIR$PREFIX: there is no $DESTDIR$list" >&2
        exit 1
    fi
    while read -r path; do
        rm -f "$DESTDIR$path"
    done <"$DESTDIR$list"
    # Folders that are ours alone; and those of gdb's that are empty now.
    for dir in "$PREFIX/include/weft" "$share" "$PREFIX/share/doc/weft"; do
        rmdir "$DESTDIR$dir" 2>/dev/null || true
    done
    dir=$autoload
    while [ "$dir" != "$PREFIX/share" ] && rmdir "$DESTDIR$dir" 2>/dev/null; do
        dir=${dir%/*}
    done
}

"do_$1"
# The loader's table, where it looks by itself.
case $DESTDIR$LIBDIR in /usr/*) PATH="$PATH:/sbin" ldconfig 2>/dev/null || true ;; esac
