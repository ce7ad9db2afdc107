import Foundation

/// What a listener found; times are seconds since the capture began.
public struct Update: Equatable {
    public let time: Double
    public let speechSeconds: Double
    /// Nil while there is not enough speech for a score.
    public let score: Double?
    /// Nil where the manifest holds nothing to decide by.
    public let verdict: Verdict?
    /// What the detector took, in milliseconds.
    public let milliseconds: Double?
}

/// Turns a capture into scores and decisions. Runs on a thread of its own until the capture ends.
///
/// Where scoring takes longer than the speech does, windows are left out, and no samples: what is told stays new.
public final class Listener {
    private let capture: Capture
    private let detector: Detector
    private let stream: SpoofStream
    private let lateFrames: Double
    private var judge: Judge?
    public private(set) var lostFrames = 0

    /// - Parameter lateSeconds: Of audio that may wait before windows are left out; by default what lies between
    ///   two of them. A recording, which waits as a whole, has no such bound.
    public init(
        _ capture: Capture, _ detector: Detector, _ manifest: Manifest, lateSeconds: Double = 0.5
    ) throws {
        guard detector.samples == manifest.samples else {
            throw SpoofFailure("the model takes \(detector.samples) samples, its manifest says \(manifest.samples)")
        }
        self.capture = capture
        self.detector = detector
        lateFrames = lateSeconds * Double(capture.rate)
        stream = try SpoofStream(manifest.config(rate: capture.rate, channels: capture.channels))
        judge = try manifest.rules().map { try Judge($0) }
    }

    /// Mean power of the last 10 ms, after a piece was heard.
    public var power: Double { stream.power }

    /// Hears the capture to its end and tells what it finds; `level` is called after each piece, for a meter,
    /// `interrupted` when something else has taken the microphone, and when it is ours again.
    /// Where the capture failed, the last windows are told before its failure is thrown.
    public func run(
        level: (Double) -> Void = { _ in }, interrupted: (Bool) -> Void = { _ in }, _ tell: (Update) -> Void
    ) throws {
        var isInterrupted = false
        while true {
            let piece = capture.next()
            if isInterrupted != (capture.state == .interrupted) {
                isInterrupted.toggle()
                interrupted(isInterrupted)
            }
            switch piece {
            case .nothing: continue
            case .samples(let samples): try score(stream.feed(samples), tell)
            case .lost(let frames):
                lostFrames += frames
                try score(stream.gap(frames), tell)
            case .ended:
                return try score(stream.finish(), tell)
            case .failed(let failure):
                try score(stream.finish(), tell)
                throw failure
            }
            level(stream.power)
        }
    }

    private func score(_ events: [StreamEvent], _ tell: (Update) -> Void) throws {
        for event in events {
            let time = Double(event.end) / Double(sampleRate)
            let speech = Double(event.speech) / Double(sampleRate)
            guard let window = event.window else {
                tell(Update(time: time, speechSeconds: speech, score: nil, verdict: nil, milliseconds: nil))
                continue
            }
            if Double(capture.backlog) > lateFrames { continue }
            let began = DispatchTime.now().uptimeNanoseconds
            let score = try detector.score(window)
            let took = Double(DispatchTime.now().uptimeNanoseconds - began) / 1e6
            guard score.isFinite else {
                throw SpoofFailure("\(detector.library) gave a score that is no number; do not trust it with this file")
            }
            let verdict = try judge?.hear(score, end: event.end)
            tell(Update(time: time, speechSeconds: speech, score: score, verdict: verdict, milliseconds: took))
        }
    }
}
