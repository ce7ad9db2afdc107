import Foundation
import SpoofCore
import SpoofCoreML
import SpoofSignature
import UIKit

/// How hot the phone is: 0 to 3, and what benchmarks/devices/ios.py calls it.
func thermalState() -> (level: Int, name: String) {
    switch ProcessInfo.processInfo.thermalState {
    case .nominal: return (0, "nominal")
    case .fair: return (1, "fair")
    case .serious: return (2, "serious")
    case .critical: return (3, "critical")
    @unknown default: return (3, "critical")
    }
}

/// Times the embedded detector, for a result file of the app's own and for benchmarks/on_device.py.
enum DeviceBenchmark {
    static let folder = Bundle.main.bundleURL.appendingPathComponent("detector")

    static func open() async throws -> OpenedDetector {
        let cache = try FileManager.default.url(
            for: .cachesDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
        return try await OpenedDetector.open(
            DetectorFolder(folder), verifier: CryptoKitVerifier(), versions: UserDefaultsVersions(),
            formats: ["coreml"]
        ) {
            try await CoreMLDetector.load($0, cache: cache)
        }
    }

    /// Only the embedded model is run, whatever the benchmark copies over: nothing unsigned is opened.
    static func answer(_ asked: RunnerArguments) async throws -> RunnerAnswer {
        let opened = try await open()
        guard asked.model == opened.model.url.lastPathComponent, asked.samples == opened.model.manifest.samples else {
            throw SpoofFailure("embed \(asked.model) and build the app again; it holds \(opened.model.url.lastPathComponent)")
        }
        let documents = FileManager.default.urls(for: .documentDirectory, in: .userDomainMask)[0]
        let all = floats(try Data(contentsOf: documents.appendingPathComponent(asked.clips)))
        let clips = stride(from: 0, to: all.count - asked.samples + 1, by: asked.samples).map {
            Array(all[$0..<$0 + asked.samples])
        }
        return try timeRuns(opened.detector, clips: clips, runs: asked.runs, loadMs: opened.loadMilliseconds)
    }

    /// What this phone is.
    @MainActor static func device() -> [String: String] {
        ["model": UIDevice.current.model, "product": product(), "ios": UIDevice.current.systemVersion]
    }

    /// Runs blocks until two in a row agree, and writes the result where it can be shared from.
    static func resultFile(
        _ opened: OpenedDetector, device: [String: String], say: (String) -> Void
    ) throws -> URL {
        let clips = opened.model.golden.scores.indices.map(opened.model.golden.clip)
        var blocks: [Block] = []
        while blocks.count < 12 && !isSteady(blocks) {
            let before = thermalState().level
            let answer = try timeRuns(opened.detector, clips: clips, runs: 50, loadMs: opened.loadMilliseconds)
            blocks.append(Block(answer: answer, heatBefore: before, heatAfter: thermalState().level))
            say("block \(blocks.count) done")
        }
        let data = try deviceResult(
            opened.model, blocks, goldenDifference: opened.goldenDifference, device: device, date: Date())
        let url = FileManager.default.temporaryDirectory.appendingPathComponent("on-device.json")
        try data.write(to: url, options: .atomic)
        return url
    }

    /// Such as iPhone16,1.
    private static func product() -> String {
        var names = utsname()
        uname(&names)
        return withUnsafeBytes(of: &names.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
}
