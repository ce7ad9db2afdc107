#!/bin/bash
# Says where the runner and ONNX Runtime for a phone's processor are, one path a line.
#
#     android_demo/scripts/get-runner.sh ABI
#
# Compiles the runner where there is none or its source is newer, and fetches what that takes into get-tools.sh's
# cache. Exits with 3 and one line where something cannot be had. Progress goes to stderr.
set -euo pipefail
abi=$1
demo=$(cd "$(dirname "$0")/.." && pwd)
scripts=$demo/scripts

# tools WHAT...: sets cache, or ends with the reason that there is none.
tools() {
    local code=0
    cache=$("$scripts/get-tools.sh" "$@") || code=$?
    if ((code)); then
        echo "$cache"
        exit "$code"
    fi
}

tools headers
library=$cache/onnxruntime/jniLibs/$abi/libonnxruntime.so
if [[ ! -f $library ]]; then
    echo "there is no ONNX Runtime for $abi, only for $(ls -m "$cache/onnxruntime/jniLibs")"
    exit 3
fi
runner=$cache/runner/$abi/runner
sources=("$demo/native" "$scripts/build-native.sh" "$demo/../antispoof/__init__.py")
if [[ ! -f $runner || $(find "${sources[@]}" -type f -newer "$runner" -print -quit) ]]; then
    what=(runner)
    [[ $abi != armeabi-v7a ]] || what+=(libgcc)
    tools "${what[@]}"
    echo "compiling the runner for $abi" >&2
    "$scripts/build-native.sh" runner "$cache" "$cache/runner" "$abi" >&2
fi
echo "$runner"
echo "$library"
