#!/bin/bash
# Compiles libantispoof.so for Android, with clang and lld alone: the streaming core, JNI, and the model's runner.
#
#     android_demo/scripts/build-native.sh CACHE OUT [ABI...]
#
# CACHE is what get-tools.sh printed. Needs no NDK, because the code is C that uses eight functions of a C library:
# native/bionic declares them for the compiler and names them for the linker, and the phone has them.
set -euo pipefail
cache=$1 out=$2
shift 2
demo=$(cd "$(dirname "$0")/.." && pwd)
core=$demo/../runtimes/native
clang=${CLANG:-$(command -v clang-14 || echo clang)}
java_home=${JAVA_HOME:-$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")}
declare -A targets=([arm64-v8a]=aarch64-linux-android24 [armeabi-v7a]=armv7a-linux-androideabi24
    [x86_64]=x86_64-linux-android24)
# As the core's own Makefile: a product and a sum are rounded apart, for the same bits on every processor.
compile=(-std=c99 -O2 -ffp-contract=off -fno-math-errno -fvisibility=hidden -fPIC -fstack-protector-strong -Wall
    -Wextra -Werror -nostdlibinc -isystem "$demo/native/bionic/include" -isystem "$java_home/include"
    -isystem "$java_home/include/linux" -isystem "$cache/onnxruntime/include" -I"$core")
# Android 15 has phones with pages of 16 KB.
link=(-shared -nostdlib -fuse-ld=lld -Wl,-z,max-page-size=16384 -Wl,-z,relro -Wl,-z,now -Wl,--gc-sections -Wl,-s
    -Wl,--no-undefined)

(($#)) || set -- arm64-v8a armeabi-v7a x86_64
for abi in "$@"; do
    stubs=$out/stubs/$abi
    mkdir -p "$stubs" "$out/$abi"
    target=(--target="${targets[$abi]}")
    for name in libc libonnxruntime; do
        "$clang" "${target[@]}" -ffreestanding -fno-builtin -shared -nostdlib -fuse-ld=lld -Wl,-soname,$name.so \
            "$demo/native/bionic/$name.c" -o "$stubs/$name.so"
    done
    extra=()
    # What 32-bit ARM has no instruction for, such as dividing 64-bit integers.
    [[ $abi != armeabi-v7a ]] || extra+=("$cache/libgcc/usr/lib/gcc-cross/arm-linux-gnueabi/12/libgcc.a")
    "$clang" "${target[@]}" "${compile[@]}" "${link[@]}" -Wl,-soname,libantispoof.so "$core"/*.c "$demo"/native/*.c \
        "${extra[@]}" -L"$stubs" -lonnxruntime -lc -o "$out/$abi/libantispoof.so"
done
