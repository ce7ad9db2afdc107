#!/usr/bin/env bash
# What `make ios` does: builds and tests the Swift package, checks what cannot be built without a Mac.
#
# $PYTHON is a Python that has this project (default: .venv's), $RESULT where to leave the result file of the
# app's benchmark. Where Swift cannot be had, that is said with its reason, and the exit code is 0.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
PYTHON=${PYTHON:-$HERE/../.venv/bin/python}
RUN=$HERE/swift_toolchain.sh
export JOBS=${JOBS:-2}

status=0
"$RUN" swift --version > /dev/null || status=$?
if [ $status = 3 ]; then
    echo "SKIPPED: the iOS demo was not checked, for the reason above"
    exit 0
fi
[ $status = 0 ] || exit $status

inputs=$(mktemp -d)
trap 'rm -rf "$inputs"' EXIT
"$PYTHON" "$HERE/prepare.py" "$inputs" > "$inputs/log" 2>&1 || {
    cat "$inputs/log" >&2
    exit 1
}
# Swift may live in another root, so they are handed over by a pipe.
tar -C "$inputs" --exclude=made --exclude=key.pem -c . | "$RUN" sh -c 'rm -rf "$SCRATCH/inputs"
    mkdir -p "$SCRATCH/inputs"; tar -C "$SCRATCH/inputs" --no-same-owner -x'

"$RUN" sh -c 'cd "$REPO/ios_demo" && swift build --scratch-path "$SCRATCH/build" -j "$JOBS" 2>&1' | tail -1
"$RUN" sh -c '
    if [ -e /usr/include/onnxruntime/onnxruntime_c_api.h ]; then export SPOOF_ONNX=$SCRATCH/inputs; fi
    export SPOOF_DETECTOR=$SCRATCH/inputs/detector SPOOF_RESULT=$SCRATCH/result.json
    rm -f "$SPOOF_RESULT"
    cd "$REPO/ios_demo"
    swift test --scratch-path "$SCRATCH/build" -j "$JOBS" > "$SCRATCH/log" 2>&1 || {
        grep -v "passed\|started" "$SCRATCH/log" | tail -60
        exit 1
    }
    grep "within\|skipped" "$SCRATCH/log" || true
    grep "Executed" "$SCRATCH/log" | tail -1'
[ -z "${RESULT:-}" ] || "$RUN" sh -c 'cat "$SCRATCH/result.json"' > "$RESULT"
"$RUN" sh -c 'bash "$REPO/ios_demo/check_adapters.sh"'
