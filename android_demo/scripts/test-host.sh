#!/bin/bash
# Runs the JUnit tests of core and native in this machine's JVM, with every JNI call checked.
#
#     android_demo/scripts/test-host.sh BUILD [DETECTOR...]
#
# BUILD takes everything that is compiled. Each DETECTOR is a folder that `antispoof embed android` wrote, with a
# recording beside it (see DetectorTest); their tests run in the ONNX Runtime that ONNXRUNTIME_LIBRARY names, with
# the headers in ONNXRUNTIME_HEADERS. Without detectors those tests do not run, and nothing of ONNX Runtime is needed.
set -euo pipefail
build=$(mkdir -p "$1" && cd "$1" && pwd)
shift
demo=$(cd "$(dirname "$0")/.." && pwd)
java_home=${JAVA_HOME:-$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")}
junit=${JUNIT_CLASSPATH:-/usr/share/java/junit4.jar:/usr/share/java/hamcrest-core.jar}
tests=(GoldenVectorsTest CaptureTest OverrunWatchTest LiveDetectorTest JsonTest Ed25519Test DetectorFolderTest TimingTest)
options=(-Xmx256m -Xcheck:jni -Djava.library.path="$build" -Dantispoof.golden="$demo/../tests/golden")

mkdir -p "$build/classes" "$build/test-classes"
"$java_home/bin/javac" --release 8 -Xlint:all,-options -Werror -d "$build/classes" "$demo"/core/src/main/java/io/antispoof/core/*.java
"$java_home/bin/javac" -Xlint:all -Werror -cp "$build/classes:$junit" -d "$build/test-classes" \
    "$demo"/core/src/test/java/io/antispoof/core/*.java

# As the core's own Makefile: a product and a sum are rounded apart, for the same bits on every processor.
flags=(-std=c99 -O2 -ffp-contract=off -fno-math-errno -fvisibility=hidden -fPIC -shared -Wall -Wextra -Werror)
sources=("$demo"/../runtimes/native/*.c "$demo"/native/{errors,stream_jni,judge_jni}.c)
includes=(-I"$java_home/include" -I"$java_home/include/linux" -I"$demo/../runtimes/native")
libraries=()
if (($#)); then
    ln -sf "$ONNXRUNTIME_LIBRARY" "$build/libonnxruntime.so.1"
    sources+=("$demo"/native/onnx_{jni,session}.c)
    includes+=(-isystem "$ONNXRUNTIME_HEADERS")
    libraries+=("$build/libonnxruntime.so.1" -Wl,-rpath,"$build")
    tests+=(DetectorTest)
    options+=(-Dantispoof.detectors="$(IFS=:; echo "$*")" -Dantispoof.out="$build")
fi
"${CC:-cc}" "${flags[@]}" "${includes[@]}" "${sources[@]}" "${libraries[@]}" -Wl,--no-undefined -o "$build/libantispoof.so"

"$java_home/bin/java" "${options[@]}" -cp "$build/classes:$build/test-classes:$junit" \
    org.junit.runner.JUnitCore "${tests[@]/#/io.antispoof.core.}"
