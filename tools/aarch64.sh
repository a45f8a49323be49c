#!/bin/sh
# What the aarch64 configuration of make check needs: the cross compiler, qemu-user, and the arm64 libraries we link with. The
# libraries are unpacked into build/aarch64-root (by apt with a state of its own, so the system gains no architecture).
#   aarch64.sh missing      prints what keeps it from running, or nothing; unpacks the libraries when they are not there
#   aarch64.sh make-args    prints the variables for make
set -u
cd "$(dirname "$0")/.." || exit 1
root=$PWD/build/aarch64-root
packages="libc6 libgcc-s1 libstdc++6 libunwind-dev libunwind8 libjemalloc-dev libjemalloc2 libdw-dev libdw1 libelf-dev libelf1
    zlib1g-dev zlib1g liblzma5 libbz2-1.0"

unpack()
{
    apt=$root/apt
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$root/deb"
    : >"$apt/status"
    options="-q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State=$apt -o Dir::State::lists=$apt/lists
        -o Dir::State::status=$apt/status -o Dir::Cache=$apt/cache -o APT::Sandbox::User="
    apt-get $options update && cd "$root/deb" && apt-get $options download $packages || return 1
    for deb in *.deb; do
        dpkg-deb -x "$deb" "$root" || return 1
    done
    touch "$root/done"
}

case $1 in
missing)
    for tool in aarch64-linux-gnu-gcc qemu-aarch64; do
        if ! command -v $tool >/dev/null 2>&1; then
            echo "no $tool (apt-get install gcc-aarch64-linux-gnu g++-aarch64-linux-gnu qemu-user)"
            exit 0
        fi
    done
    if ! [ -e "$root/done" ] && ! unpack >"$PWD/build/aarch64-root.log" 2>&1; then
        echo "the arm64 libraries cannot be had (see build/aarch64-root.log)"
    fi
    ;;
make-args)
    lib=$root/usr/lib/aarch64-linux-gnu
    # The loader's path for qemu is the root: -L makes it look there for /lib/ld-linux-aarch64.so.1 and the libraries.
    echo "CROSS=aarch64-linux-gnu- SYSROOT=$root EMULATOR=qemu-aarch64 JEMALLOC=$lib/libjemalloc_pic.a EXTRA_CFLAGS=-DWEFT_RESERVE_GIB=8"
    ;;
*)
    echo "aarch64.sh missing|make-args" >&2
    exit 2
    ;;
esac
