#!/bin/bash
# Compiles C for Android, with clang and lld alone.
#
#     android_demo/scripts/build-native.sh library|runner CACHE OUT [ABI...]
#
# library  OUT/ABI/libantispoof.so: the streaming core, JNI, and the session of ONNX Runtime (needs a JDK's headers)
# runner   OUT/ABI/runner: the program that benchmarks/on_device.py runs on a phone
#
# CACHE is what get-tools.sh printed. Needs no NDK, because the code is C that uses two dozen functions of a C
# library: native/bionic declares them for the compiler and names them for the linker, and the phone has them.
set -euo pipefail
what=$1 cache=$2 out=$3
shift 3
demo=$(cd "$(dirname "$0")/.." && pwd)
native=$demo/native
clang=${CLANG:-$(command -v clang-14 || echo clang)}
declare -A targets=([arm64-v8a]=aarch64-linux-android24 [armeabi-v7a]=armv7a-linux-androideabi24
    [x86_64]=x86_64-linux-android24)
# As the core's own Makefile: a product and a sum are rounded apart, for the same bits on every processor.
compile=(-std=c99 -O2 -ffp-contract=off -fno-math-errno -fvisibility=hidden -fPIC -fstack-protector-strong -Wall
    -Wextra -Werror -nostdlibinc -isystem "$native/bionic/include" -isystem "$cache/onnxruntime/include")
# Android 15 has phones with pages of 16 KB.
link=(-nostdlib -fuse-ld=lld -Wl,-z,max-page-size=16384 -Wl,-z,relro -Wl,-z,now -Wl,--gc-sections -Wl,-s
    -Wl,--no-undefined)
case $what in
library)
    java_home=${JAVA_HOME:-$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")}
    core=$demo/../runtimes/native
    file=libantispoof.so
    sources=("$core"/*.c "$native"/*.c)
    compile+=(-isystem "$java_home/include" -isystem "$java_home/include/linux" -I"$core")
    link+=(-shared -Wl,-soname,libantispoof.so)
    ;;
runner)
    version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$demo/../antispoof/__init__.py")
    file=runner
    sources=("$native"/runner/*.c "$native/onnx_session.c" "$native/bionic/start.c")
    compile+=(-DANTISPOOF_VERSION="\"$version\"" -fno-builtin-printf)
    link+=(-pie -Wl,-rpath,\$ORIGIN)
    ;;
*)
    echo "there is nothing called $what; see the top of $0" >&2
    exit 2
    ;;
esac

(($#)) || set -- arm64-v8a armeabi-v7a x86_64
for abi in "$@"; do
    stubs=$out/stubs/$abi
    mkdir -p "$stubs" "$out/$abi"
    target=(--target="${targets[$abi]}")
    for name in libc libonnxruntime; do
        "$clang" "${target[@]}" -ffreestanding -fno-builtin -shared -nostdlib -fuse-ld=lld -Wl,-soname,$name.so \
            "$native/bionic/$name.c" -o "$stubs/$name.so"
    done
    extra=()
    # What 32-bit ARM has no instruction for, such as dividing 64-bit integers.
    [[ $abi != armeabi-v7a ]] || extra+=("$cache/libgcc/usr/lib/gcc-cross/arm-linux-gnueabi/12/libgcc.a")
    "$clang" "${target[@]}" "${compile[@]}" "${link[@]}" "${sources[@]}" "${extra[@]}" -L"$stubs" -lonnxruntime -lc \
        -o "$out/$abi/$file"
done
