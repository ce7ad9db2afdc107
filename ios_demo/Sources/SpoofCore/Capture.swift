import Foundation

/// What a source of audio says.
public enum SourceEvent {
    /// Interleaved samples in -1...1, and at which frame since the start they begin, where the source knows.
    case samples([Float], at: Int?)
    /// Frames were lost that the source knows of.
    case lost(Int)
    /// Something else has the microphone: a call, another app.
    case interrupted
    /// It is ours again; frames went by meanwhile.
    case resumed(lost: Int)
    /// It will give no more: the permission was revoked, the device is gone.
    case failed(SpoofFailure)
    /// It has come to its end, as recordings do.
    case ended
}

/// A microphone, or what stands for one.
public protocol PcmSource: AnyObject {
    var rate: Int { get }
    var channels: Int { get }
    /// Begins, and from then on calls `tell` from any one thread. Throws what a person can mend.
    func start(_ tell: @escaping (SourceEvent) -> Void) throws
    func stop()
}

/// Takes audio from a source that must not wait and keeps it for a listener that may be late.
///
/// Nothing is dropped silently: frames for which there was no room, that the source lost, or that went by
/// during an interruption are told as lost, at their place, so that times stay right and no window spans a gap.
public final class Capture {
    public enum State: Equatable {
        case idle, running, interrupted, ended
        case failed(SpoofFailure)
    }

    /// What comes next.
    public enum Piece: Equatable {
        case samples([Float])
        case lost(Int)
        /// Nothing came within the time allowed.
        case nothing
        case ended
        case failed(SpoofFailure)
    }

    public let rate: Int
    public let channels: Int
    private let source: PcmSource
    private let room: Int
    private let stall: TimeInterval
    private let condition = NSCondition()
    private var now = State.idle
    private var waiting: [Piece] = []
    private var frames = 0
    private var rest: [Float] = []
    private var expected: Int?
    private var silence: TimeInterval = 0

    /// - Parameters:
    ///   - backlogSeconds: How late the listener may be before audio is lost.
    ///   - stallSeconds: How long a running source may give nothing before it is taken for dead.
    public init(_ source: PcmSource, backlogSeconds: Double = 5, stallSeconds: TimeInterval = 3) throws {
        guard (8_000...192_000).contains(source.rate), (1...8).contains(source.channels) else {
            throw SpoofFailure("the microphone gives \(source.rate) Hz and \(source.channels) channels; not supported")
        }
        self.source = source
        rate = source.rate
        channels = source.channels
        room = Int(backlogSeconds * Double(source.rate))
        stall = stallSeconds
    }

    public var state: State {
        condition.lock()
        defer { condition.unlock() }
        return now
    }

    /// Frames that wait to be taken.
    public var backlog: Int {
        condition.lock()
        defer { condition.unlock() }
        return frames
    }

    /// Starts the source; a capture starts once.
    public func start() throws {
        condition.lock()
        let first = now == .idle
        if first { now = .running }
        condition.unlock()
        guard first else {
            throw SpoofFailure("this capture has been started before; make another")
        }
        do {
            try source.start { [weak self] in self?.hear($0) }
        } catch {
            let failure = error as? SpoofFailure ?? SpoofFailure("the microphone cannot be started: \(error)")
            finish(.failed(failure))
            throw failure
        }
    }

    /// Stops the source; what waits can still be taken.
    public func stop() {
        source.stop()
        finish(.ended)
    }

    /// Takes the next piece, waiting for it at most so long.
    public func next(within seconds: TimeInterval = 0.5) -> Piece {
        let deadline = Date(timeIntervalSinceNow: seconds)
        condition.lock()
        defer { condition.unlock() }
        while waiting.isEmpty && (now == .running || now == .interrupted) {
            guard condition.wait(until: deadline) else { return nothing(after: seconds) }
        }
        silence = 0
        if !waiting.isEmpty {
            let piece = waiting.removeFirst()
            if case .samples(let samples) = piece { frames -= samples.count / channels }
            return piece
        }
        if case .failed(let failure) = now { return .failed(failure) }
        return .ended
    }

    private func nothing(after seconds: TimeInterval) -> Piece {
        silence += seconds
        if now == .running && silence >= stall {
            now = .failed(SpoofFailure("the microphone gives nothing any more; check that the app may use it"))
        }
        if case .failed(let failure) = now { return .failed(failure) }
        return .nothing
    }

    private func finish(_ state: State) {
        condition.lock()
        if now == .running || now == .interrupted || now == .idle { now = state }
        condition.broadcast()
        condition.unlock()
    }

    private func hear(_ event: SourceEvent) {
        condition.lock()
        defer {
            condition.broadcast()
            condition.unlock()
        }
        guard now == .running || now == .interrupted else { return }  // a last buffer after the end
        switch event {
        case .samples(let samples, let position): take(samples, at: position)
        case .lost(let frames): lose(frames)
        case .interrupted:
            now = .interrupted
            rest = []
        case .resumed(let frames):
            now = .running
            expected = nil
            lose(max(frames, 1))  // even a short interruption ends the turn
        case .failed(let failure): now = .failed(failure)
        case .ended: now = .ended
        }
    }

    private func take(_ samples: [Float], at position: Int?) {
        guard now == .running else { return }
        var samples = rest + samples
        if let position, let expected {
            if position > expected { lose(position - expected) }
            samples.removeFirst(min(samples.count, max(0, expected - position) * channels))  // told twice
        }
        let whole = samples.count / channels
        rest = Array(samples[(whole * channels)...])
        if let position { expected = max(position, expected ?? position) + whole }
        guard whole > 0 else { return }
        if frames + whole > room {
            lose(whole)
        } else {
            frames += whole
            waiting.append(.samples(Array(samples[..<(whole * channels)])))
        }
    }

    private func lose(_ count: Int) {
        guard count > 0 else { return }
        if case .lost(let before) = waiting.last {
            waiting[waiting.count - 1] = .lost(before + count)
        } else {
            waiting.append(.lost(count))
        }
    }
}
