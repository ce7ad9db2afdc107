#!/bin/bash
# Brings what the app is built with and Debian 12 has not installed, into a cache outside the repository.
#
#     android_demo/scripts/get-tools.sh [apk|headers|runner|libgcc|arm]...
#
# apk      Debian's build tools (installed, which needs root), android.jar and dx of the release before, and ONNX
#          Runtime for Android out of an npm package: no Android SDK, no NDK, nothing that asks for a licence
# headers  ONNX Runtime's C headers and its Android libraries alone
# runner   the same and clang, for build-native.sh runner
# libgcc   what clang's code for 32-bit ARM calls
# arm      an emulator for arm64 programs (Debian's cross compiler must be installed)
#
# What is there is not fetched again. Prints where the cache is; exits with 3 and one line where something cannot
# be had.
set -euo pipefail
cache=${ANTISPOOF_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/antispoof}/android
npm_package=@siteed/sherpa-onnx.rn@1.3.1 # carries libonnxruntime.so 1.24.3 for Android, MIT
npm_sha512=dez/tSd+2JzEOw67OHuHc0tIKI84UPvJYv4OiYBVhpwwvdOgEm1dHlXMx/DQYAjvdP3dQ7vC0++YDMtjwQqD1w==
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$cache"
work=$(mktemp -d "$cache/.fetching.XXXXXX")
trap 'rm -rf "$work"' EXIT

cannot() {
    echo "$1"
    exit 3
}

need() {
    for program in "$@"; do
        command -v "$program" >/dev/null || cannot "$program is not installed"
    done
}

# debs SUITE ARCHITECTURE FOLDER PACKAGE...: unpacks packages of another release or architecture, with a state of
# apt's own, so that this machine's packages stay as they are.
debs() {
    local suite=$1 architecture=$2 target=$3 mirror
    shift 3
    [[ -d $target ]] && return
    need apt-get dpkg-deb
    # The mirror that this machine is set up with.
    mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 == "bookworm" {print $2; exit}') || true
    [[ $mirror ]] || cannot "apt knows no mirror of Debian 12 here"
    local apt="$work/apt-$suite-$architecture"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/root"
    echo "deb [arch=$architecture signed-by=$keyring] $mirror $suite main" >"$apt/sources.list"
    local options=(-o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$apt/lists"
        -o Dir::Cache="$apt/cache" -o Dir::State::status=/dev/null -o APT::Architecture="$architecture"
        -o APT::Architectures="$architecture" -o APT::Sandbox::User=root -o Acquire::Languages=none)
    apt-get -qq "${options[@]}" update >&2 || cannot "Debian's $suite cannot be reached"
    (cd "$apt" && apt-get -qq "${options[@]}" download "$@" >&2) || cannot "Debian's $suite has no $*"
    for deb in "$apt"/*.deb; do
        dpkg-deb -x "$deb" "$apt/root"
    done
    mv -T "$apt/root" "$target"
}

# programs PROGRAM[:PACKAGE]...: installs the packages of those that are missing.
programs() {
    local missing=() program
    for program in "$@"; do
        command -v "${program%%:*}" >/dev/null || missing+=("${program##*:}")
    done
    packages "${missing[@]}"
}

packages() {
    (($#)) || return 0
    [[ $(id -u) == 0 ]] || cannot "not installed: $* (apt-get install them, or run this as root)"
    apt-get -qq install --no-install-recommends -y "$@" >&2 || cannot "apt-get cannot install $*"
}

compiler() {
    local clang=()
    command -v clang >/dev/null || clang=(clang-14)
    programs "${clang[@]}" ld.lld:lld
}

libgcc() {
    debs bookworm amd64 "$cache/libgcc" libgcc-12-dev-armel-cross
}

onnxruntime() {
    local target=$cache/onnxruntime
    [[ -f $target/package.json ]] && grep -q "\"version\": \"${npm_package##*@}\"" "$target/package.json" && return
    need npm openssl
    echo "fetching ONNX Runtime for Android (npm package $npm_package)" >&2
    (cd "$work" && npm pack --silent "$npm_package" >/dev/null 2>"$work/npm.log") || cannot "npm cannot bring $npm_package"
    local found
    found=$(openssl dgst -sha512 -binary "$work"/*.tgz | base64 -w0)
    [[ $found == "$npm_sha512" ]] || cannot "$npm_package is not the package that it was"
    mkdir "$work/onnxruntime"
    tar -xzf "$work"/*.tgz -C "$work" package/package.json package/prebuilt/include/onnxruntime \
        --wildcards 'package/android/src/main/jniLibs/*/libonnxruntime.so'
    mv "$work/package/prebuilt/include/onnxruntime" "$work/onnxruntime/include"
    mv "$work/package/android/src/main/jniLibs" "$work/onnxruntime/jniLibs"
    mv "$work/package/package.json" "$work/onnxruntime/package.json"
    rm -rf "$target"
    mv "$work/onnxruntime" "$target"
}

for what in "${@:-apk}"; do
    case $what in
    apk)
        compiler
        programs aapt aapt2:aapt apksigner zipalign dexdump javac:openjdk-17-jdk-headless
        [[ -f /usr/share/android-framework-res/framework-res.apk ]] || packages android-framework-res
        debs bullseye amd64 "$cache/sdk" libandroid-23-java dalvik-exchange
        libgcc
        onnxruntime
        ;;
    headers) onnxruntime ;;
    runner)
        compiler
        onnxruntime
        ;;
    libgcc) libgcc ;;
    arm)
        need aarch64-linux-gnu-gcc
        debs trixie amd64 "$cache/qemu" qemu-user # Debian 12's own crashes in ONNX Runtime
        onnxruntime
        ;;
    *) cannot "there is nothing called $what; see the top of $0" ;;
    esac
done
echo "$cache"
