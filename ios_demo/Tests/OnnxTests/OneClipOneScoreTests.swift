import Foundation
import SpoofCore
import XCTest

/// A recording of prepare.py goes through capture, core, ONNX Runtime and judge, and must get what
/// runtimes/stream.py said of it.
final class OneClipOneScoreTests: XCTestCase {
    private struct Expected: Decodable {
        let time, speech_seconds: Double
        let status: String
        let score, llr, smoothed_llr, since: Double?
        let decision: String?
        let changed: Bool?
    }
    private struct Recording: Decodable {
        let rate, channels: Int
    }

    /// Verification is DetectorFolderTests' matter.
    private struct Anybody: SignatureVerifier {
        func verifies(key: Data, signature: Data, message: Data) -> Bool { true }
    }
    private final class NoVersions: VersionStore {
        func highest(_ model: String) -> Int { 0 }
        func accept(_ model: String, version: Int) {}
    }
    private final class Silent: PcmSource {
        let rate: Int
        let channels: Int
        var tell: (SourceEvent) -> Void = { _ in }
        init(_ recording: Recording) { (rate, channels) = (recording.rate, recording.channels) }
        func start(_ tell: @escaping (SourceEvent) -> Void) throws { self.tell = tell }
        func stop() {}
    }

    private func place(_ name: String) throws -> URL {
        let folder = try XCTUnwrap(ProcessInfo.processInfo.environment["SPOOF_ONNX"])
        return URL(fileURLWithPath: folder).appendingPathComponent(name)
    }

    func testEveryOnnxFile() throws {
        let models = try DetectorFolder(place("onnx")).verified(by: Anybody(), versions: NoVersions())
        XCTAssertEqual(models.count, 2)
        for model in models {
            try check(model, exactly: model.url.lastPathComponent.contains("-f64"))
        }
    }

    private func check(_ model: VerifiedModel, exactly: Bool) throws {
        let name = model.url.lastPathComponent
        let detector = try OnnxDetector(model)
        let difference = try model.golden.check(detector)
        print("\(name) in \(detector.library): golden scores within \(difference)")
        let expected = try String(contentsOf: place(name + ".jsonl"), encoding: .utf8).split(separator: "\n")
            .map { try JSONDecoder().decode(Expected.self, from: Data($0.utf8)) }
        let found = try listen(detector, model.manifest)
        XCTAssertEqual(found.count, expected.count)
        XCTAssertGreaterThan(expected.filter { $0.score != nil }.count, 8)
        XCTAssertGreaterThan(Set(expected.compactMap(\.decision)).count, 1, "the recording decides nothing")
        var worst = 0.0
        for (update, wanted) in zip(found, expected) {
            XCTAssertEqual(update.time, wanted.time)
            XCTAssertEqual(update.speechSeconds, wanted.speech_seconds)
            XCTAssertEqual(update.verdict?.decision.rawValue, wanted.decision)
            XCTAssertEqual(update.verdict?.changed, wanted.changed)
            guard let score = update.score, let known = wanted.score else {
                XCTAssertEqual(update.score == nil, wanted.score == nil)
                continue
            }
            worst = max(worst, abs(score - known))
            XCTAssertEqual(update.verdict!.smoothed, wanted.smoothed_llr!, accuracy: 1e-3)
        }
        print("\(name): \(found.count) windows, scores of the recording within \(worst) of Python's")
        XCTAssertLessThanOrEqual(worst, exactly ? 0 : 1e-4)
    }

    private func listen(_ detector: Detector, _ manifest: Manifest) throws -> [Update] {
        let recording = try JSONDecoder().decode(Recording.self, from: Data(contentsOf: place("recording.json")))
        let samples = try Data(contentsOf: place("recording.pcm")).withUnsafeBytes {
            $0.bindMemory(to: Int16.self).map { Float(Int16(littleEndian: $0)) / 32_768 }
        }
        let source = Silent(recording)
        let capture = try Capture(source, backlogSeconds: 1_000)
        try capture.start()
        var done = 0
        while done < samples.count {
            let size = min(Int.random(in: 1...20_000), samples.count - done)  // at times half a frame
            source.tell(.samples(Array(samples[done..<done + size]), at: nil))
            done += size
        }
        source.tell(.ended)
        var updates: [Update] = []
        try Listener(capture, detector, manifest, lateSeconds: .infinity).run { updates.append($0) }
        return updates
    }
}
