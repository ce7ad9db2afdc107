import Foundation
import SpoofCore
import XCTest

/// CryptoKit is not on Linux: here the openssl program verifies, and CryptoKit's own answer is untested.
struct OpenSSLVerifier: SignatureVerifier {
    private static let derPrefix = Data([0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00])

    func verifies(key: Data, signature: Data, message: Data) throws -> Bool {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        func write(_ name: String, _ data: Data) throws -> String {
            let url = folder.appendingPathComponent(name)
            try data.write(to: url)
            return url.path
        }
        let openssl = Process()
        openssl.executableURL = URL(fileURLWithPath: "/usr/bin/openssl")
        openssl.arguments = [
            "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-rawin",
            "-inkey", try write("key", OpenSSLVerifier.derPrefix + key),
            "-in", try write("message", message), "-sigfile", try write("signature", signature),
        ]
        openssl.standardOutput = FileHandle.nullDevice
        openssl.standardError = FileHandle.nullDevice
        try openssl.run()
        openssl.waitUntilExit()
        return openssl.terminationStatus == 0
    }
}

final class Versions: VersionStore {
    var seen: [String: Int] = [:]
    func highest(_ model: String) -> Int { seen[model] ?? 0 }
    func accept(_ model: String, version: Int) { seen[model] = version }
}

/// On a folder that `antispoof embed ios` wrote just now; check.sh says where.
final class DetectorFolderTests: XCTestCase {
    private var folder = URL(fileURLWithPath: "/")

    override func setUpWithError() throws {
        guard let place = ProcessInfo.processInfo.environment["SPOOF_DETECTOR"] else {
            throw XCTSkip("SPOOF_DETECTOR names no folder of `antispoof embed ios`")
        }
        folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.copyItem(at: URL(fileURLWithPath: place), to: folder)
    }

    override func tearDownWithError() throws {
        if folder.path != "/" { try? FileManager.default.removeItem(at: folder) }
    }

    private func verified(_ versions: Versions = Versions()) throws -> [VerifiedModel] {
        try DetectorFolder(folder).verified(by: OpenSSLVerifier(), versions: versions)
    }

    private func files() throws -> [String] {
        try FileManager.default.subpathsOfDirectory(atPath: folder.path).sorted().filter {
            let path = folder.appendingPathComponent($0).path
            return try FileManager.default.attributesOfItem(atPath: path)[.type] as? FileAttributeType == .typeRegular
        }
    }

    /// Runs with other content in a file, and puts the old back.
    private func with(_ content: Data, in name: String, _ run: () throws -> Void) throws {
        let url = folder.appendingPathComponent(name)
        let before = try Data(contentsOf: url)
        try content.write(to: url)
        try run()
        try before.write(to: url)
    }

    private func assertRefused(_ what: String, _ message: String = "") {
        XCTAssertThrowsError(try verified(), what) { error in
            XCTAssert(error is SpoofFailure, "\(what): \(error)")
            XCTAssert(message.isEmpty || "\(error)".contains(message), "\(what): \(error)")
            XCTAssertFalse("\(error)".contains("\n"), "\(what): \(error)")
        }
    }

    func testAWholeFolderIsAccepted() throws {
        let models = try verified()
        XCTAssertEqual(models.first?.manifest.format, "coreml")
        for model in models {
            XCTAssertGreaterThanOrEqual(model.golden.scores.count, 4)
            XCTAssertEqual(model.golden.clip(3).count, model.manifest.samples)
        }
    }

    func testAnyChangedByteOfAnyFileIsRefused() throws {
        var tried = 0
        for name in try files() {
            let content = [UInt8](try Data(contentsOf: folder.appendingPathComponent(name)))
            let some = (0..<4).map { _ in Int.random(in: 0..<content.count) }
            for place in Set([0, content.count - 1] + some) {
                var changed = content
                changed[place] ^= UInt8.random(in: 1...255)
                try with(Data(changed), in: name) { assertRefused("\(name), byte \(place)") }
                tried += 1
            }
            try with(Data(content.dropLast()), in: name) { assertRefused("\(name), cut") }
            try with(Data(content + [10]), in: name) { assertRefused("\(name), longer") }
        }
        XCTAssertGreaterThan(tried, 40)
        XCTAssertNoThrow(try verified())
    }

    func testBytesThatAreNoTextAreRefused() throws {
        // One of these in a key once ended the process, in JSONDecoder.
        for place in 0..<20 {
            var list = [UInt8](try Data(contentsOf: folder.appendingPathComponent("detector.json")))
            list[place] = 0xff
            try with(Data(list), in: "detector.json") { assertRefused("byte \(place)", "detector.json") }
        }
    }

    func testEveryBitOfTheListAndTheKey() throws {
        for name in ["detector.json", "trusted-key.pub"] {
            let content = [UInt8](try Data(contentsOf: folder.appendingPathComponent(name)))
            for place in content.indices {
                var changed = content
                changed[place] ^= 1 << UInt8.random(in: 0...7)
                try with(Data(changed), in: name) { assertRefused("\(name), byte \(place)") }
            }
        }
    }

    func testAMissingFileIsRefused() throws {
        for name in try files() {
            let url = folder.appendingPathComponent(name)
            let content = try Data(contentsOf: url)
            try FileManager.default.removeItem(at: url)
            assertRefused("\(name) missing")
            try content.write(to: url)
        }
    }

    func testAPackageWithMoreInsideIsRefused() throws {
        let name = try XCTUnwrap(verified().first).url.lastPathComponent
        let more = folder.appendingPathComponent(name).appendingPathComponent("Data/more")
        try Data().write(to: more)
        assertRefused("a file more", name)
        try FileManager.default.removeItem(at: more)
        try FileManager.default.createSymbolicLink(
            at: more, withDestinationURL: folder.appendingPathComponent("trusted-key.pub"))
        assertRefused("a link more", "link")
    }

    func testNamesThatLeadElsewhere() throws {
        for name in ["../x.onnx", "a/b", #"a\\b"#, "..", ".", "", "/etc/passwd", "a..b", "-x", "\\u0000", "é"] {
            let list = Data("{\"schema\": 1, \"files\": [\"\(name)\"]}\n".utf8)
            try with(list, in: "detector.json") { assertRefused(name, "detector.json") }
        }
        for text in ["", "[]", "{\"\u{80}\": 1}", #"{"schema": 1, "files": ["\ud800"]}"#, "{\"schema\": 2, \"files\": []}\n", "{\"schema\": 1, \"files\": []}\n"] {
            try with(Data(text.utf8), in: "detector.json") { assertRefused(text, "detector.json") }
        }
    }

    func testAnOlderVersionIsRefused() throws {
        let versions = Versions()
        let model = try XCTUnwrap(verified(versions).first).manifest
        versions.accept(model.model, version: model.version)
        XCTAssertNoThrow(try verified(versions))
        versions.accept(model.model, version: model.version + 1)
        XCTAssertThrowsError(try verified(versions)) { XCTAssert("\($0)".contains("older than"), "\($0)") }
    }

    func testVersionsInPreferencesOnlyRise() throws {
        let suite = "spoof.test.\(UUID().uuidString)"
        let defaults = try XCTUnwrap(UserDefaults(suiteName: suite))
        defer { defaults.removePersistentDomain(forName: suite) }
        let versions = UserDefaultsVersions(defaults)
        XCTAssertEqual(versions.highest("m"), 0)
        versions.accept("m", version: 5)
        versions.accept("m", version: 3)
        XCTAssertEqual([versions.highest("m"), versions.highest("n")], [5, 0])
    }

    func testAnotherKeyIsRefused() throws {
        let other = Data((Data((0..<32).map { _ in UInt8.random(in: 0...255) }).base64EncodedString() + "\n").utf8)
        try with(other, in: "trusted-key.pub") { assertRefused("another key", "not signed by") }
    }

    func testGoldenScoresTellARuntimeThatIsOff() throws {
        let golden = try XCTUnwrap(verified().first).golden
        let clips = golden.scores.indices.map { crc32(golden.clip($0)) }
        let answers = Dictionary(zip(clips, golden.scores), uniquingKeysWith: { first, _ in first })
        XCTAssertEqual(answers.count, golden.scores.count, "two golden clips are alike")
        let detector = CrcDetector(samples: golden.samples)
        detector.answer = { answers[$0]! + golden.tolerance / 2 }
        XCTAssertEqual(try golden.check(detector), golden.tolerance / 2, accuracy: 1e-9)
        detector.answer = { answers[$0]! + ($0 == clips[2] ? 2 * golden.tolerance : 0) }
        XCTAssertThrowsError(try golden.check(detector)) { XCTAssert("\($0)".contains("golden clip 2")) }
        detector.answer = { _ in .nan }
        XCTAssertThrowsError(try golden.check(detector))
    }

    func testAVersionCountsAsUsedOnlyWhenItsGoldenScoresWereRight() async throws {
        let golden = try XCTUnwrap(verified().first).golden
        let answers = Dictionary(
            zip(golden.scores.indices.map { crc32(golden.clip($0)) }, golden.scores), uniquingKeysWith: { $1 })
        let versions = Versions()
        func open(_ formats: Set<String>, off: Double) async throws -> OpenedDetector {
            try await OpenedDetector.open(
                DetectorFolder(folder), verifier: OpenSSLVerifier(), versions: versions, formats: formats
            ) { model in
                let detector = CrcDetector(samples: model.manifest.samples)
                detector.answer = { answers[$0]! + off }
                return detector
            }
        }
        for (formats, off, message) in [(["coreml"], 1.0, "golden clip 0"), (["none"], 0, "runs none")] {
            do {
                _ = try await open(Set(formats), off: off)
                XCTFail("opened")
            } catch {
                XCTAssert("\(error)".contains(message), "\(error)")
            }
            XCTAssertEqual(versions.seen, [:])
        }
        let opened = try await open(["coreml"], off: 0)
        XCTAssertEqual(opened.goldenDifference, 0)
        XCTAssertEqual(versions.seen, [opened.model.manifest.model: opened.model.manifest.version])
    }

    func testTheResultFileOfTheBenchmark() throws {
        let model = try XCTUnwrap(verified().first)
        let detector = CrcDetector(samples: model.manifest.samples)
        let clips = [model.golden.clip(0), model.golden.clip(1)]
        let blocks = try (0..<2).map { _ in
            Block(answer: try steady(detector, clips), heatBefore: 0, heatAfter: 0)
        }
        let device = ["model": "iPhone", "product": "iPhone0,0", "ios": "0.0"]
        let data = try deviceResult(model, blocks, goldenDifference: 1e-6, device: device, date: Date())
        if let place = ProcessInfo.processInfo.environment["SPOOF_RESULT"] {
            try data.write(to: URL(fileURLWithPath: place))  // Python reads it after this
        }
        let hot = [Block(answer: blocks[0].answer, heatBefore: 0, heatAfter: 2)]
        XCTAssertThrowsError(
            try deviceResult(model, hot, goldenDifference: 0, device: device, date: Date())
        ) { XCTAssert("\($0)".contains("throttling")) }
    }

    private func steady(_ detector: Detector, _ clips: [[Float]]) throws -> RunnerAnswer {
        var time = 0.0
        return try timeRuns(detector, clips: clips, runs: 60, loadMs: 3) {
            time += 1
            return time
        }
    }
}
