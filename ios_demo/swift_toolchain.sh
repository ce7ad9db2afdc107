#!/usr/bin/env bash
# Runs a command where Swift is: on this machine if it has Swift, else in a Debian 13 beside it.
#
#   ios_demo/swift_toolchain.sh swift --version
#
# Debian 12 has no Swift, Debian 13 has, and its packages lie on the same mirror. So a small Debian 13 is put
# into a folder of the cache (3 GB, once; $ANTISPOOF_SWIFT moves it) and entered with chroot. Nothing of the
# machine itself is changed. The command finds the repository at $REPO and a folder to build in at $SCRATCH.
#
# Exit code 3: Swift cannot be had here; the reason is the last line on stderr.
set -euo pipefail
REPOSITORY=$(cd "$(dirname "$0")/.." && pwd)
CACHE=${ANTISPOOF_SWIFT:-${XDG_CACHE_HOME:-$HOME/.cache}/antispoof/swift}
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
SUITE=trixie
PACKAGES=(swiftlang g++ libc6-dev openssl)

cannot() {
    echo "$1" >&2
    exit 3
}

# The mirror that this machine's own packages come from; no host is named here.
mirror() {
    apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 !~ /security|updates|backports/ { print $2; exit }'
}

install() {
    [ "$(id -u)" = 0 ] || cannot "Swift is not installed, and only root can make a Debian 13 for it"
    for tool in apt-get dpkg-deb chroot unshare; do
        command -v "$tool" > /dev/null || cannot "Swift is not installed, and $tool is missing"
    done
    local uri packages
    uri=$(mirror)
    [ -n "$uri" ] || cannot "Swift is not installed, and apt knows no Debian mirror"
    packages=$(mktemp -d)
    echo "making a Debian 13 with Swift in $CACHE (3 GB, minutes)" >&2
    (cd "$packages" && apt-get -qq download debootstrap && dpkg-deb -x debootstrap_*.deb .) ||
        cannot "debootstrap cannot be downloaded"
    rm -rf "$CACHE/root" "$CACHE/unfinished"
    mkdir -p "$CACHE"
    DEBOOTSTRAP_DIR=$packages/usr/share/debootstrap "$packages/usr/sbin/debootstrap" --variant=minbase \
        --keyring="$KEYRING" "$SUITE" "$CACHE/unfinished" "$uri" > "$CACHE/log" 2>&1 ||
        cannot "debootstrap failed: $CACHE/log"
    inside "$CACHE/unfinished" apt-get install -qq --no-install-recommends -y "${PACKAGES[@]}" \
        >> "$CACHE/log" 2>&1 || cannot "$SUITE's Swift cannot be installed: $CACHE/log"
    # Of ONNX Runtime the headers alone: the library that runs is the one that scored in Python.
    inside "$CACHE/unfinished" sh -c 'cd /tmp && apt-get -qq download libonnxruntime-dev && dpkg -x *.deb /' \
        >> "$CACHE/log" 2>&1 || echo "no headers of ONNX Runtime: its test is left out" >&2
    rm -rf "$packages" "$CACHE"/unfinished/var/cache/apt/archives/*.deb "$CACHE"/unfinished/tmp/*.deb
    mkdir -p "$CACHE/unfinished/repo" "$CACHE/unfinished/scratch"
    mv "$CACHE/unfinished" "$CACHE/root"
}

# In a mount namespace of its own: /proc (Swift finds its libraries through it) and the repository are
# unmounted when the command ends, however it ends.
inside() {
    unshare --mount bash -c '
        root=$1 repository=$2
        shift 2
        mount -t proc proc "$root/proc"
        if [ -d "$root/repo" ]; then
            mount --bind "$repository" "$root/repo"
            mount -o remount,bind,ro "$root/repo"
        fi
        export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/libexec/swift/bin
        export REPO=/repo SCRATCH=/scratch TMPDIR=/tmp
        exec chroot "$root" "$@"
    ' inside "$1" "$REPOSITORY" "${@:2}"
}

if swift --version 2> /dev/null | grep -q "Swift version"; then
    mkdir -p "$CACHE/scratch"
    export REPO=$REPOSITORY SCRATCH=$CACHE/scratch
    exec "$@"
fi
[ -d "$CACHE/root" ] || install
inside "$CACHE/root" "$@"
