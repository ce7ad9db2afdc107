#!/bin/bash
# Builds the app into OUT/antispoof-demo.apk, signs and checks it.
#
#     android_demo/scripts/build-apk.sh OUT [DETECTOR]
#
# DETECTOR is the folder that `antispoof embed android` wrote, by default the one in app/assets. OUT/work takes what
# is compiled. Where a tool cannot be had, it prints one line that begins with SKIPPED, and exits with 0.
#
# It is signed with a key for development that the cache keeps, or with one of your own:
#   ANTISPOOF_KEYSTORE            a keystore (JKS or PKCS#12), as keytool makes it
#   ANTISPOOF_KEY_ALIAS           the key in it, where there are several
#   ANTISPOOF_KEYSTORE_PASSWORD   its password and the key's; where it is not set, apksigner asks for it
set -euo pipefail
demo=$(cd "$(dirname "$0")/.." && pwd)
out=$(mkdir -p "$1" && cd "$1" && pwd)
detector=$(cd "${2:-$demo/app/assets/detector}" 2>/dev/null && pwd) || {
    echo "there is no detector to put into the app: python export/embed.py android MODEL.onnx" >&2
    exit 2
}
keystore=${ANTISPOOF_KEYSTORE:-}
if [[ $keystore && ! -f $keystore ]]; then
    echo "$keystore: there is no such keystore (ANTISPOOF_KEYSTORE)" >&2
    exit 2
fi
scripts=$demo/scripts
python=${PYTHON:-python3}
code=0
cache=$("$scripts/get-tools.sh" apk) || code=$?
if ((code)); then
    echo "SKIPPED: $cache"
    exit $((code == 3 ? 0 : code))
fi
android=$cache/sdk/usr/share/java/com.android.android-23.jar
dx=$cache/sdk/usr/share/java/com.android.dx.jar
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$demo/../antispoof/__init__.py")
work=$out/work
rm -rf "$work"
mkdir -p "$work/classes" "$work/generated" "$work/assets"
cp -r "$detector" "$work/assets/detector"
java_home=${JAVA_HOME:-$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")}

# Gradle takes the package from build.gradle and refuses it in the manifest; aapt2 wants it there.
sed 's/<manifest /<manifest package="io.antispoof.demo" /' "$demo/app/src/main/AndroidManifest.xml" \
    >"$work/AndroidManifest.xml"
aapt2 compile --dir "$demo/app/src/main/res" -o "$work/resources.zip"
aapt2 link -I /usr/share/android-framework-res/framework-res.apk --manifest "$work/AndroidManifest.xml" \
    --min-sdk-version 24 --target-sdk-version 34 --version-code 1 --version-name "$version" -A "$work/assets" -0 onnx \
    --java "$work/generated" -o "$work/base.apk" "$work/resources.zip"

# Against Android's own class library for both, so that nothing is used that phones do not have.
find "$demo/core/src/main" "$demo/app/src/main/java" "$work/generated" -name '*.java' >"$work/sources"
"$java_home/bin/javac" -Xlint:all,-options -Werror -source 8 -target 8 -bootclasspath "$android" -d "$work/classes" @"$work/sources"
"$java_home/bin/java" -cp "$dx" com.android.dx.command.Main --dex --min-sdk-version=24 --output="$work/classes.dex" "$work/classes"

"$scripts/build-native.sh" library "$cache" "$work/native"
files=(classes.dex="$work/classes.dex")
for abi in arm64-v8a armeabi-v7a x86_64; do
    files+=("lib/$abi/libantispoof.so=$work/native/$abi/libantispoof.so"
        "lib/$abi/libonnxruntime.so=$cache/onnxruntime/jniLibs/$abi/libonnxruntime.so")
done
"$python" "$scripts/pack_apk.py" "$work/base.apk" "$work/unsigned.apk" "${files[@]}"

signer=()
if [[ $keystore ]]; then
    signer=(--ks "$keystore")
    [[ ! ${ANTISPOOF_KEY_ALIAS:-} ]] || signer+=(--ks-key-alias "$ANTISPOOF_KEY_ALIAS")
    # By its name: the arguments of a program are no secret.
    [[ ! ${ANTISPOOF_KEYSTORE_PASSWORD:-} ]] || signer+=(--ks-pass env:ANTISPOOF_KEYSTORE_PASSWORD)
else
    # A key of this machine's, kept so that one build can be installed over another.
    key=$cache/debug.jks
    if [[ ! -f $key ]]; then
        "$java_home/bin/keytool" -genkeypair -keystore "$key.new" -storetype JKS -storepass android -keypass android \
            -alias debug -keyalg RSA -keysize 2048 -validity 10000 -dname "CN=debug" >/dev/null 2>&1
        mv "$key.new" "$key"
    fi
    signer=(--ks "$key" --ks-pass pass:android)
fi
apksigner sign "${signer[@]}" --min-sdk-version 24 --out "$work/antispoof-demo.apk" "$work/unsigned.apk" 2>"$work/apksigner.log" || {
    why=$(sed -n 's/.*Exception: //p' "$work/apksigner.log" | head -1)
    echo "apksigner cannot sign with ${keystore:-$key}: ${why:-$(tail -1 "$work/apksigner.log")}" >&2
    exit 2
}
"$python" "$scripts/check_apk.py" "$work/antispoof-demo.apk" "$android"
mv "$work/antispoof-demo.apk" "$out/antispoof-demo.apk"
echo "$out/antispoof-demo.apk"
