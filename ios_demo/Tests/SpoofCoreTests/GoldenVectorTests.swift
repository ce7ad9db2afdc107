import Foundation
import SpoofCore
import XCTest

/// The vectors of tests/golden, which every language must reproduce to the bit.
struct GoldenVectors: Decodable {
    struct Event: Decodable {
        let kind: String
        let samples, start, end, speech, turn, position: Int
        let crc32: UInt32?
        let smoothed: Double?
        let decision: String?
        let since: Int?
    }
    struct Case: Decodable {
        let name, pcm: String
        let config: [String: JSONNumber]
        let rules: [String: JSONNumber]
        let `repeat`, lose: Int
        let events: [Event]
    }
    struct Resampled: Decodable {
        let pcm: String
        let rate, samples: Int
        let crc32: UInt32
        let values: [Float]
    }
    let schema, every: Int
    let cases: [Case]
    let resampled: [Resampled]

    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("../../../tests/golden").standardized

    static func read() throws -> GoldenVectors {
        let content = try Data(contentsOf: folder.appendingPathComponent("core.json"))
        return try JSONDecoder().decode(GoldenVectors.self, from: content)
    }

    static func pcm(_ name: String) throws -> [Int16] {
        let data = try Data(contentsOf: folder.appendingPathComponent(name))
        return data.withUnsafeBytes { $0.bindMemory(to: Int16.self).map(Int16.init(littleEndian:)) }
    }
}

/// A number or a truth value.
struct JSONNumber: Decodable {
    let value: Double

    init(from decoder: Decoder) throws {
        let container = try decoder.singleValueContainer()
        value = try (try? container.decode(Bool.self)).map { $0 ? 1 : 0 } ?? container.decode(Double.self)
    }
}

extension GoldenVectors.Case {
    func streamConfig() throws -> StreamConfig {
        var made = StreamConfig()
        for (name, number) in config {
            let value = Int(number.value)
            switch name {
            case "sample_rate": made.sampleRate = value
            case "channels": made.channels = value
            case "window": made.window = value
            case "hop": made.hop = value
            case "first": made.first = value
            case "min_speech": made.minSpeech = value
            case "gate": made.gate = value != 0
            case "lead_in": made.leadIn = value
            case "hang_over": made.hangOver = value
            case "pause": made.pause = value
            default: throw SpoofFailure("a setting that this test does not know: \(name)")
            }
        }
        return made
    }

    func decisionRules() throws -> Rules {
        var made = Rules()
        for (name, number) in rules {
            switch name {
            case "scale": made.scale = number.value
            case "offset": made.offset = number.value
            case "time_constant": made.timeConstant = number.value
            case "enter": made.enter = number.value
            case "exit": made.exit = number.value
            case "min_duration": made.minDuration = Int(number.value)
            default: throw SpoofFailure("a rule that this test does not know: \(name)")
            }
        }
        return made
    }
}

/// The score that tests/golden/make.py gives a window.
func goldenScore(_ crc: UInt32) -> Double {
    Double(Int(crc % 2001) - 1000) / 250
}

final class GoldenVectorTests: XCTestCase {
    func testEventsHoweverTheSamplesCome() throws {
        let vectors = try GoldenVectors.read()
        XCTAssertEqual(vectors.schema, 1)
        XCTAssertGreaterThanOrEqual(vectors.cases.count, 12)
        for golden in vectors.cases {
            XCTAssertFalse(golden.events.isEmpty)
            for chunk in [1_000, 7_777, 1 << 20] {
                try check(golden, chunk)
            }
        }
    }

    private func check(_ golden: GoldenVectors.Case, _ chunk: Int) throws {
        let pcm = try GoldenVectors.pcm(golden.pcm)
        let stream = try SpoofStream(golden.streamConfig())
        var judge = try Judge(golden.decisionRules())
        let size = chunk * stream.config.channels
        var events: [StreamEvent] = []
        for _ in 0..<golden.repeat {
            for start in stride(from: 0, to: pcm.count, by: size) {
                events += stream.feed(Array(pcm[start..<min(start + size, pcm.count)]))
            }
            if golden.lose > 0 { events += stream.gap(golden.lose) }
        }
        events += stream.finish()
        XCTAssertEqual(events.count, golden.events.count, golden.name)
        for (event, expected) in zip(events, golden.events) {
            let at = "\(golden.name), chunks of \(chunk), event that ends at \(expected.end)"
            XCTAssertEqual(event.window != nil, expected.kind == "window", at)
            let found = [event.samples, event.start, event.end, event.speech, event.turn, event.position]
            let wanted = [
                expected.samples, expected.start, expected.end, expected.speech, expected.turn, expected.position,
            ]
            XCTAssertEqual(found, wanted, at)
            guard let window = event.window else { continue }
            XCTAssertEqual(crc32(window), expected.crc32, at)
            let verdict = try judge.hear(goldenScore(crc32(window)), end: event.end)
            XCTAssertEqual(verdict.smoothed, expected.smoothed, at)  // to the bit
            XCTAssertEqual(verdict.decision.rawValue, expected.decision, at)
            XCTAssertEqual(verdict.since, expected.since, at)
        }
    }

    func testResampling() throws {
        let vectors = try GoldenVectors.read()
        XCTAssertGreaterThanOrEqual(vectors.resampled.count, 6)
        for golden in vectors.resampled {
            let samples = try GoldenVectors.pcm(golden.pcm).map { Float($0) / 32_768 }
            let out = try resample(samples, from: golden.rate)
            XCTAssertEqual(out.count, golden.samples)
            XCTAssertEqual(crc32(out), golden.crc32, "\(golden.rate) Hz")
            XCTAssertEqual(stride(from: 0, to: out.count, by: vectors.every).map { out[$0] }, golden.values)
        }
    }

    func testWhatTheCoreCannotDoIsASentence() {
        var config = StreamConfig()
        config.sampleRate = 12_345
        XCTAssertThrowsError(try SpoofStream(config)) { XCTAssert("\($0)".contains("12345")) }
        var rules = Rules()
        rules.scale = -1
        XCTAssertThrowsError(try Judge(rules))
        XCTAssertThrowsError(try resample([0], from: 7))
        var judge = try! Judge(Rules())
        XCTAssertThrowsError(try judge.hear(.nan, end: 1))
    }
}
