import Foundation
import SpoofCore
import XCTest

/// A microphone that does what the test says.
final class Script: PcmSource {
    let rate: Int
    let channels: Int
    var refusal: SpoofFailure?
    private(set) var stopped = false
    private(set) var tell: (SourceEvent) -> Void = { _ in }

    init(rate: Int = 16_000, channels: Int = 1) {
        (self.rate, self.channels) = (rate, channels)
    }

    func start(_ tell: @escaping (SourceEvent) -> Void) throws {
        if let refusal { throw refusal }
        self.tell = tell
    }

    func stop() { stopped = true }
}

/// Scores as the golden vectors do.
final class CrcDetector: Detector {
    let library = "crc"
    let samples: Int
    var answer: ((UInt32) -> Double) = goldenScore

    init(samples: Int) { self.samples = samples }

    func score(_ window: [Float]) throws -> Double { answer(crc32(window)) }
}

private let ramp = (0..<100).map { Float($0) / 100 }

final class CaptureTests: XCTestCase {
    private func started(_ source: Script, backlog: Double = 5, stall: Double = 3) throws -> Capture {
        let capture = try Capture(source, backlogSeconds: backlog, stallSeconds: stall)
        try capture.start()
        return capture
    }

    func testSamplesComeInOrderAndThenTheEnd() throws {
        let source = Script()
        let capture = try started(source)
        for start in stride(from: 0, to: 100, by: 30) {  // the last one short
            source.tell(.samples(Array(ramp[start..<min(start + 30, 100)]), at: nil))
        }
        source.tell(.samples([], at: nil))
        source.tell(.ended)
        source.tell(.samples([1], at: nil))  // after the end
        var heard: [Float] = []
        while case .samples(let samples) = capture.next() { heard += samples }
        XCTAssertEqual(heard, ramp)
        XCTAssertEqual(capture.next(), .ended)
        XCTAssertEqual(capture.state, .ended)
    }

    func testAFrameInTwoPiecesIsOneFrame() throws {
        let source = Script(channels: 2)
        let capture = try started(source)
        source.tell(.samples([1, 2, 3], at: nil))
        source.tell(.samples([4, 5], at: nil))
        XCTAssertEqual(capture.next(), .samples([1, 2]))
        XCTAssertEqual(capture.next(), .samples([3, 4]))
        XCTAssertEqual(capture.next(within: 0), .nothing)
    }

    func testWhatTheListenerIsTooLateForIsLostAtItsPlace() throws {
        let source = Script()
        let capture = try started(source, backlog: 60.0 / 16_000)
        for start in stride(from: 0, to: 100, by: 25) {
            source.tell(.samples(Array(ramp[start..<start + 25]), at: nil))
        }
        XCTAssertEqual(capture.next(), .samples(Array(ramp[..<25])))
        XCTAssertEqual(capture.next(), .samples(Array(ramp[25..<50])))
        source.tell(.samples([1], at: nil))
        XCTAssertEqual(capture.next(), .lost(50))
        XCTAssertEqual(capture.next(), .samples([1]))
    }

    func testPositionsTellOfLossesAndRepeats() throws {
        let source = Script()
        let capture = try started(source)
        source.tell(.samples(Array(ramp[..<10]), at: 1_000))
        source.tell(.samples(Array(ramp[30..<40]), at: 1_030))
        source.tell(.samples(Array(ramp[35..<50]), at: 1_035))
        source.tell(.samples(Array(ramp[40..<45]), at: 1_040))  // all of it known
        source.tell(.samples(Array(ramp[50..<60]), at: 1_050))
        let wanted: [Capture.Piece] = [
            .samples(Array(ramp[..<10])), .lost(20), .samples(Array(ramp[30..<40])),
            .samples(Array(ramp[40..<50])), .samples(Array(ramp[50..<60])), .nothing,
        ]
        XCTAssertEqual(wanted.map { _ in capture.next(within: 0) }, wanted)
    }

    func testAnInterruptionIsALoss() throws {
        let source = Script()
        let capture = try started(source, stall: 0.01)
        source.tell(.samples([1], at: 0))
        source.tell(.interrupted)
        XCTAssertEqual(capture.state, .interrupted)
        source.tell(.samples([9], at: 1))  // somebody else's
        XCTAssertEqual(capture.next(), .samples([1]))
        XCTAssertEqual(capture.next(within: 0.02), .nothing)  // and no stall: a call may last
        source.tell(.resumed(lost: 0))
        source.tell(.samples([2], at: 70_000))
        XCTAssertEqual(capture.next(), .lost(1))
        XCTAssertEqual(capture.next(), .samples([2]))
        XCTAssertEqual(capture.state, .running)
    }

    func testARevokedPermissionEndsItAfterWhatWasHeard() throws {
        let source = Script()
        let capture = try started(source)
        let revoked = SpoofFailure("the permission was revoked")
        source.tell(.samples([1], at: nil))
        source.tell(.failed(revoked))
        XCTAssertEqual(capture.next(), .samples([1]))
        XCTAssertEqual(capture.next(), .failed(revoked))
        capture.stop()
        XCTAssertEqual(capture.state, .failed(revoked))
    }

    func testAMicrophoneThatGivesNothingIsDead() throws {
        let capture = try started(Script(), stall: 0.03)
        XCTAssertEqual(capture.next(within: 0.02), .nothing)
        guard case .failed(let failure) = capture.next(within: 0.02) else { return XCTFail("still waiting") }
        XCTAssert(failure.sentence.contains("gives nothing"))
    }

    func testStartingFailsInASentenceAndOnce() throws {
        let source = Script()
        source.refusal = SpoofFailure("no permission")
        let capture = try Capture(source)
        XCTAssertThrowsError(try capture.start()) { XCTAssertEqual("\($0)", "no permission") }
        XCTAssertEqual(capture.next(), .failed(SpoofFailure("no permission")))
        XCTAssertThrowsError(try capture.start()) { XCTAssert("\($0)".contains("started before")) }
        XCTAssertThrowsError(try Capture(Script(rate: 4_000)))
        XCTAssertThrowsError(try Capture(Script(channels: 9)))
    }

    func testStoppingFromAnotherThreadEndsAWait() throws {
        let source = Script()
        let capture = try started(source)
        DispatchQueue.global().asyncAfter(deadline: .now() + 0.05) { capture.stop() }
        XCTAssertEqual(capture.next(within: 10), .ended)
        XCTAssert(source.stopped)
    }

    func testManyThreadsLoseNothing() throws {
        let source = Script()
        let capture = try started(source, backlog: 1_000)
        DispatchQueue.global().async {
            for index in 0..<5_000 { source.tell(.samples([Float(index)], at: index)) }
            source.tell(.ended)
        }
        var next: Float = 0
        while case .samples(let samples) = capture.next(within: 10) {
            XCTAssertEqual(samples, [next])
            next += 1
        }
        XCTAssertEqual(next, 5_000)
    }
}

final class ListenerTests: XCTestCase {
    private func manifest(_ more: String = "") throws -> Manifest {
        try Manifest(Data(manifestText(more).utf8), name: "test")
    }

    /// Microphone to decision in random pieces, against the golden events of whole windows.
    func testFromMicrophoneToDecision() throws {
        let golden = try XCTUnwrap(GoldenVectors.read().cases.first { $0.name == "whole windows" })
        let pcm = try GoldenVectors.pcm(golden.pcm)
        let whole = Array(repeating: pcm, count: golden.repeat).flatMap { $0 }.map { Float($0) / 32_768 }
        let manifest = try manifest(#""calibration": {"scale": 1, "offset": 0},"#)
        var expected: [String] = []
        for pieces in 0..<3 {
            let source = Script()
            let capture = try Capture(source, backlogSeconds: 100)
            try capture.start()
            var done = 0
            var position = 0
            while done < whole.count {
                let size = min(pieces == 0 ? 1_600 : Int.random(in: 0...5_000), whole.count - done)
                source.tell(.samples(Array(whole[done..<done + size]), at: position))
                done += size
                position += size
            }
            source.tell(.ended)
            var told: [String] = []
            let listener = try Listener(capture, CrcDetector(samples: 64_600), manifest, lateSeconds: .infinity)
            try listener.run { told.append("\($0.time) \($0.score ?? 0) \($0.verdict?.smoothed ?? 0)") }
            XCTAssertGreaterThan(told.count, 3)
            if pieces == 0 { expected = told } else { XCTAssertEqual(told, expected) }
        }
    }

    /// A minute of speech that pauses, on a phone that takes so long for a window.
    func testASlowPhoneLeavesWindowsOutAndNoSamples() throws {
        for secondsPerWindow in [0.3, 0.6, 0.8, 1.5] {
            let source = Script()
            let capture = try Capture(source)
            try capture.start()
            var heard = 0
            func goOn(seconds: Double) {
                let end = min(heard + Int(seconds * 16_000), 60 * 16_000)
                if heard == end { return source.tell(.ended) }
                let samples = (heard..<end).map { Float(sin(0.001 * Double($0 * $0)) * ($0 % 8_000 < 6_400 ? 0.1 : 0.001)) }
                source.tell(.samples(samples, at: heard))
                heard = end
            }
            let detector = CrcDetector(samples: 64_600)
            detector.answer = { _ in
                for _ in 0..<Int(20 * secondsPerWindow) { goOn(seconds: 0.05) }
                return 0
            }
            let listener = try Listener(capture, detector, manifest())
            var times: [Double] = []
            var latest = 0.0
            goOn(seconds: 0.05)
            try listener.run(level: { _ in if capture.backlog == 0 { goOn(seconds: 0.05) } }) { update in
                guard update.score != nil else { return }
                times.append(update.time)
                latest = max(latest, Double(heard) / 16_000 - update.time)
            }
            XCTAssertEqual(listener.lostFrames, 0)
            XCTAssertLessThan(latest, 2 * secondsPerWindow + 1)
            XCTAssertGreaterThan(Double(times.count), 0.6 * 60 / max(secondsPerWindow, 0.5))
            let steps = zip(times.dropFirst(), times).map { $0 - $1 }
            if secondsPerWindow < 0.5 { XCTAssertEqual(try XCTUnwrap(steps.max()), 0.5, accuracy: 1e-9) }
        }
    }

    func testAnInterruptionIsToldWhileItLasts() throws {
        let source = Script()
        let capture = try Capture(source)
        try capture.start()
        source.tell(.samples([0.1], at: nil))
        source.tell(.interrupted)
        DispatchQueue.global().asyncAfter(deadline: .now() + 5) { source.tell(.ended) }  // where nothing is told
        var told: [Bool] = []
        let listener = try Listener(capture, CrcDetector(samples: 64_600), manifest())
        try listener.run(interrupted: { away in
            told.append(away)
            source.tell(away ? .resumed(lost: 7) : .ended)
        }) { _ in }
        XCTAssertEqual(told, [true, false])
        XCTAssertEqual(listener.lostFrames, 7)
    }

    func testARevokedMicrophoneStillTellsWhatItHeard() throws {
        let source = Script()
        let capture = try Capture(source)
        try capture.start()
        let speech = try GoldenVectors.pcm("speech-16000.pcm").map { Float($0) / 32_768 }
        source.tell(.samples(speech, at: nil))
        source.tell(.lost(123))
        source.tell(.failed(SpoofFailure("revoked")))
        var updates: [Update] = []
        let listener = try Listener(capture, CrcDetector(samples: 64_600), manifest())
        XCTAssertThrowsError(try listener.run { updates.append($0) }) { XCTAssertEqual("\($0)", "revoked") }
        XCTAssertEqual(listener.lostFrames, 123)
        XCTAssertEqual(updates.last?.time, Double(speech.count) / 16_000)
        XCTAssertNotNil(updates.last?.score)
        XCTAssertNil(updates.last?.verdict)  // nothing to decide by
    }

    func testAScoreThatIsNoNumberEndsIt() throws {
        let source = Script()
        let capture = try Capture(source)
        try capture.start()
        source.tell(.samples(try GoldenVectors.pcm("speech-16000.pcm").map { Float($0) / 32_768 }, at: nil))
        source.tell(.ended)
        let detector = CrcDetector(samples: 64_600)
        detector.answer = { _ in .nan }
        XCTAssertThrowsError(try Listener(capture, detector, manifest()).run { _ in }) {
            XCTAssert("\($0)".contains("no number"))
        }
        XCTAssertThrowsError(try Listener(capture, CrcDetector(samples: 5), manifest()))
    }
}
