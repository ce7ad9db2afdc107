#!/usr/bin/env bash
# Checks what needs Apple's frameworks, as far as that goes without them. check.sh runs it where Swift is.
set -euo pipefail
cd "$(dirname "$0")"

if [ "$(uname)" != Darwin ]; then
    modules=$SCRATCH/stubs
    rm -rf "$modules"
    mkdir -p "$modules"
    for stub in Stubs/*.swift; do
        swiftc -emit-module -module-name "$(basename "$stub" .swift)" -parse-as-library \
            -o "$modules/$(basename "$stub" .swift).swiftmodule" "$stub"
    done
    core=$(dirname "$(find "$SCRATCH/build/" -name SpoofCore.swiftmodule | head -1)")
    compile() {
        swiftc -I "$modules" -I "$core" -I Sources/CSpoofCore/include -parse-as-library "$@"
    }
    for adapter in SpoofCoreML SpoofAudio SpoofSignature; do
        compile -typecheck -module-name "$adapter" "Sources/$adapter"/*.swift
        compile -emit-module -module-name "$adapter" -o "$modules/$adapter.swiftmodule" "Sources/$adapter"/*.swift
        # A check that cannot fail is none: with a function that does not exist it must.
        sed 's/\(.*\)#endif/\1private let wrong = doesNotExist()\n#endif/' "Sources/$adapter"/*.swift > "$modules/wrong.swift"
        if compile -typecheck "$modules/wrong.swift" 2> /dev/null; then
            echo "$adapter: the type check finds nothing" >&2
            exit 1
        fi
        echo "$adapter: types agree with the stubs"
    done
    # SwiftUI is too large for a stub, so of the app this is all but its views.
    compile -typecheck -module-name App App/ListeningModel.swift App/DeviceBenchmark.swift
    sed 's/line = "opening the detector"/line = doesNotExist()/' App/ListeningModel.swift > "$modules/wrong.swift"
    if compile -typecheck -module-name App "$modules/wrong.swift" App/DeviceBenchmark.swift 2> /dev/null; then
        echo "App: the type check finds nothing" >&2
        exit 1
    fi
    echo "App, without its views: types agree with the stubs"
fi
for file in App/*.swift; do
    swiftc -frontend -parse "$file"
    head -c "$(($(wc -c < "$file") - 2))" "$file" > "$SCRATCH/cut.swift" # without its last brace
    if swiftc -frontend -parse "$SCRATCH/cut.swift" 2> /dev/null; then
        echo "$file: the syntax check finds nothing" >&2
        exit 1
    fi
    echo "$file: syntax is right"
done
plutil -lint -- App/Info.plist Sources/SpoofCore/PrivacyInfo.xcprivacy
