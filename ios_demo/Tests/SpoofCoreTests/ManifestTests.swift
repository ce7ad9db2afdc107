import Foundation
import SpoofCore
import XCTest

/// A manifest that is right, with more or other fields.
func manifestText(_ more: String = "", replacing: [String: String] = [:]) -> String {
    let hash = String(repeating: "0", count: 64)
    var text = """
        {\(more) "schema": 1, "model": "m", "format": "coreml", "thresholds": [],
         "input": {"name": "waveform", "batch": 1, "samples": 64600, "sample_rate": 16000, "dtype": "float32",
                   "length_rule": "tile when shorter, head when longer"},
         "output": {"name": "score", "dtype": "float32", "polarity": "higher is bona fide",
                    "labels": ["spoof", "bonafide"]},
         "file": {"name": "m.mlpackage", "bytes": 1, "sha256": "\(hash)"},
         "model_version": 1, "golden_sha256": "\(hash)"}
        """
    for (old, new) in replacing {
        precondition(text.contains(old))
        text = text.replacingOccurrences(of: old, with: new)
    }
    return text
}

final class ManifestTests: XCTestCase {
    private func problem(_ text: String) -> String? {
        do {
            _ = try Manifest(Data(text.utf8), name: "m.manifest.json")
            return nil
        } catch {
            XCTAssert(error is SpoofFailure, "\(error)")
            XCTAssertFalse("\(error)".contains("\n"))
            return "\(error)"
        }
    }

    func testWhatItCannotHonourIsRefused() {
        XCTAssertNil(problem(manifestText()))
        XCTAssertNil(problem(manifestText(replacing: [#""batch": 1"#: #""batch": null"#])))
        let wrongs = [
            [#""schema": 1"#: #""schema": 2"#]: "schema 2",
            [#""schema": 1"#: #""schema": true"#]: "'schema' is of another kind",
            ["64600": "0"]: "takes 0 samples",
            ["64600": "960001"]: "takes 960001 samples",
            ["64600": "1.5"]: "damaged",
            ["16000": "8000"]: "8000 Hz",
            [#""batch": 1"#: #""batch": 4"#]: "takes 4 clips",
            ["higher is": "lower is"]: "something else",
            [#""spoof", "bonafide""#: #""bonafide", "spoof""#]: "something else",
            ["tile when": "pad when"]: "short clips",
            [#""dtype": "float32", "polarity""#: #""dtype": "int8", "polarity""#]: "not float32",
            [#""model_version": 1"#: #""model_version": 0"#]: "never released",
            [#""model_version": 1"#: #""model_version": -3"#]: "never released",
            [#""model_version": 1,"#: ""]: "'model_version' is missing",
            [#""thresholds": []"#: #""thresholds": [{"name": "x", "score": "1"}]"#]: "score' is of another kind",
            [#""thresholds": []"#: #""thresholds": [{"name": "x", "score": 1e999}]"#]: "damaged",
            ["\"0000": "\"000G"]: "a sha256 is none",
            ["{": "["]: "damaged",
        ]
        for (replacing, message) in wrongs {
            let found = problem(manifestText(replacing: replacing))
            XCTAssert(found?.contains(message) ?? false, "\(replacing): \(found ?? "accepted")")
        }
        XCTAssert(problem(manifestText(#""calibration": {"scale": -1, "offset": 0},"#))?.contains("turns") ?? false)
        XCTAssertNotNil(problem(""))
        XCTAssertNotNil(problem(String(repeating: "[", count: 100_000)))
        XCTAssert(problem(String(repeating: " ", count: 1 << 20 + 1))?.contains("larger") ?? false)
    }

    /// Whatever bytes come, there is a manifest or a sentence: the process lives on.
    func testAnyBytesEndInAManifestOrASentence() {
        let whole = [UInt8](manifestText().utf8)
        let pieces = [#"\ud800"#, #"\udc00x"#, #"\u"#, "\u{0}", "1e400", "-", "\"", "}", "[", "é"].map { [UInt8]($0.utf8) }
        var random = SystemRandomNumberGenerator()
        for _ in 0..<10_000 {
            var text = whole
            for _ in 0..<Int.random(in: 1...3, using: &random) where text.count > 1 {
                let place = Int.random(in: 0..<text.count, using: &random)
                switch Int.random(in: 0..<4, using: &random) {
                case 0: text[place] = UInt8.random(in: 0...255, using: &random)
                case 1: text.insert(contentsOf: pieces.randomElement(using: &random)!, at: place)
                case 2: text.remove(at: place)
                default: text = Array(text[..<max(1, place)])
                }
            }
            do {
                _ = try Manifest(Data(text), name: "m")
            } catch {
                XCTAssert(error is SpoofFailure, "\(error)")
            }
        }
    }

    func testRulesAreThoseOfThePythonStream() throws {
        func rules(_ more: String, _ thresholds: String) throws -> Rules? {
            let text = manifestText(more, replacing: [#""thresholds": []"#: #""thresholds": \#(thresholds)"#])
            return try Manifest(Data(text.utf8), name: "m").rules()
        }
        let calibration = #""calibration": {"scale": 2, "offset": -1, "data": "x"},"#
        let point = #"[{"name": "a", "score": 0.75, "data": "x"}, {"name": "b", "score": 9, "data": "x"}]"#
        XCTAssertNil(try rules("", "[]"))
        let both = try XCTUnwrap(rules(calibration, point))
        XCTAssertEqual([both.scale, both.offset, both.enter, both.exit], [2, -1, 0, 1])
        XCTAssertEqual([both.timeConstant, Double(both.minDuration)], [48_000, 16_000])
        let bare = try XCTUnwrap(rules("", point))
        XCTAssertEqual([bare.scale, bare.offset, bare.enter, bare.exit], [1, 0, 0.75, 0.75])
        let uncut = try XCTUnwrap(rules(calibration, "[]"))
        XCTAssertEqual([uncut.enter, uncut.exit], [-0.5, 0.5])
    }

    func testDecisionsAreThoseThatPythonReads() throws {
        struct Row: Decodable {
            let scale, offset, score: Double?
            let legal: Bool
        }
        let bounds = try Data(contentsOf: GoldenVectors.folder.appendingPathComponent("bounds.json"))
        for row in try JSONDecoder().decode([Row].self, from: bounds) {
            let calibration = row.scale.map { #""calibration": {"scale": \#($0), "offset": \#(row.offset!)},"# }
            let points = row.score.map { #"[{"name": "eer", "score": \#($0)}]"# } ?? "[]"
            let text = manifestText(calibration ?? "", replacing: [#""thresholds": []"#: #""thresholds": \#(points)"#])
            guard row.legal else {
                let found = problem(text) ?? "accepted"
                XCTAssert(found.contains("beyond all bounds") || found.contains("turns the score"), "\(row): \(found)")
                continue
            }
            let rules = try Manifest(Data(text.utf8), name: "m").rules()
            XCTAssertNoThrow(try Judge(XCTUnwrap(rules)))  // the core takes them too
        }
    }

    func testAShortModelHearsShortSpeech() throws {
        let manifest = try Manifest(Data(manifestText(replacing: ["64600": "8000"]).utf8), name: "m")
        let config = manifest.config(rate: 48_000, channels: 2)
        XCTAssertEqual([config.window, config.first, config.minSpeech, config.sampleRate], [8000, 8000, 8000, 48_000])
        XCTAssertNoThrow(try SpoofStream(config))
    }

    func testSha256() {
        func of(_ text: String) -> String { hex(sha256(Data(text.utf8))) }
        // FIPS 180-4's examples.
        XCTAssertEqual(of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
        XCTAssertEqual(of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        XCTAssertEqual(
            of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1")
        XCTAssertEqual(
            of(String(repeating: "a", count: 1_000_000)),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0")
        let data = Data([9, 9] + Array("abc".utf8))
        XCTAssertEqual(hex(sha256(data.dropFirst(2))), of("abc"))  // a slice, whose first index is not 0
    }
}
