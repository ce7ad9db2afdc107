// swift-tools-version:5.9
import PackageDescription

// iOS 17 is what export/to_coreml.py writes packages for by default. The adapters are empty where their
// framework is missing, so that the package builds and tests on Linux, too.
let package = Package(
    name: "Spoof",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [
        .library(name: "SpoofCore", targets: ["SpoofCore"]),
        .library(name: "SpoofCoreML", targets: ["SpoofCoreML"]),
        .library(name: "SpoofAudio", targets: ["SpoofAudio"]),
        .library(name: "SpoofSignature", targets: ["SpoofSignature"]),
    ],
    targets: [
        .target(name: "CSpoofCore"),
        // What the App Store asks of every package that keeps preferences, as UserDefaultsVersions does.
        .target(name: "SpoofCore", dependencies: ["CSpoofCore"], resources: [.copy("PrivacyInfo.xcprivacy")]),
        .target(name: "SpoofCoreML", dependencies: ["SpoofCore"]),
        .target(name: "SpoofAudio", dependencies: ["SpoofCore"]),
        .target(name: "SpoofSignature", dependencies: ["SpoofCore"]),
        .testTarget(name: "SpoofCoreTests", dependencies: ["SpoofCore"]),
    ],
    cLanguageStandard: .c99
)

// Where Core ML is missing, ONNX Runtime can show that a recording gets the scores that it gets in Python.
if Context.environment["SPOOF_ONNX"] != nil {
    package.targets += [
        .systemLibrary(name: "COnnxRuntime"),
        .testTarget(name: "OnnxTests", dependencies: ["SpoofCore", "COnnxRuntime"]),
    ]
}
