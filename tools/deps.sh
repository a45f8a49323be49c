#!/bin/sh
# Debian packages that weft is built and tested with.
#   deps.sh install GROUP...   installs what is missing (as root, or by sudo); otherwise prints the command to run
#   deps.sh ensure GROUP...    the same, but silent and quick when nothing is missing
#   deps.sh missing GROUP...   prints what is missing
# Groups: build (library, tests, examples, demo), check (what `make check` adds). On a system without dpkg it does nothing: the
# compiler will name what is missing.
set -eu

build="gcc g++ make pkg-config binutils libc6-dev libunwind-dev libjemalloc-dev libdw-dev libelf-dev zlib1g-dev libcriterion-dev redis-tools curl
    libmicrohttpd-dev libgnutls28-dev openssl"
check="clang libclang-rt-dev gdb gcc-aarch64-linux-gnu g++-aarch64-linux-gnu qemu-user libgc-dev prometheus chromium-headless-shell spin"
command -v go >/dev/null 2>&1 || check="$check golang-go"
command -v npm >/dev/null 2>&1 || check="$check nodejs npm"

mode=$1
shift
command -v dpkg-query >/dev/null 2>&1 || exit 0

missing=""
for group in "$@"; do
    eval "list=\$$group"
    for p in $list; do
        case $(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true) in
        installed*) ;;
        *) missing="$missing $p" ;;
        esac
    done
done

if [ "$mode" = missing ]; then
    echo $missing
    exit 0
fi
if [ -z "$missing" ]; then
    [ "$mode" = ensure ] || echo "deps: nothing is missing"
    exit 0
fi

if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null 2>&1; then
    as_root="sudo"
else
    echo "deps: missing:$missing"
    echo "deps: run as root:  apt-get update && apt-get install -y --no-install-recommends$missing"
    exit 1
fi
echo "deps: installing$missing"
$as_root apt-get -q update
$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $missing
