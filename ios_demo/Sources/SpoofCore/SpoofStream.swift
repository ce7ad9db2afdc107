import CSpoofCore

/// Samples a second of everything behind the microphone; all times are counts of them.
public let sampleRate = 16_000

/// How audio becomes windows; lengths are samples at 16 kHz (`spoof_config` in the core's header).
public struct StreamConfig: Equatable {
    public var sampleRate = 16_000
    public var channels = 1
    public var window = 64_600
    public var hop = 8_000
    public var first = 16_000
    public var minSpeech = 16_000
    public var gate = true
    public var leadIn = 3_200
    public var hangOver = 4_800
    public var pause = 32_000

    public init() {}

    var native: spoof_config {
        var config = spoof_config()
        spoof_config_default(&config)
        config.sample_rate = Int32(clamping: sampleRate)
        config.channels = Int32(clamping: channels)
        config.window = Int32(clamping: window)
        config.hop = Int32(clamping: hop)
        config.first = Int32(clamping: first)
        config.min_speech = Int32(clamping: minSpeech)
        config.gate = gate ? 1 : 0
        config.lead_in = Int32(clamping: leadIn)
        config.hang_over = Int32(clamping: hangOver)
        config.pause = Int32(clamping: pause)
        return config
    }
}

/// What the stream found; times are samples at 16 kHz since it began.
public struct StreamEvent: Equatable {
    /// The samples to score, or nil where a hop went by and there is not enough speech.
    public let window: [Float]?
    /// Samples of the turn in the window, before they were repeated to fill it.
    public let samples: Int
    public let start: Int
    public let end: Int
    public let speech: Int
    public let turn: Int
    public let position: Int
}

/// Audio in, events out; whatever the chunks, the events are the same to the last bit. For one thread at a time.
public final class SpoofStream {
    public let config: StreamConfig
    private let memory: UnsafeMutableRawPointer
    private let stream: OpaquePointer
    private var window: [Float]
    private var finished = false

    public init(_ config: StreamConfig) throws {
        var native = config.native
        let size = spoof_stream_size(&native)
        guard size > 0 else {
            throw SpoofFailure("the streaming core cannot do this: \(config)")
        }
        memory = .allocate(byteCount: size, alignment: 16)
        guard let made = spoof_stream_init(memory, size, &native) else {
            memory.deallocate()
            throw SpoofFailure("the streaming core refuses its memory")
        }
        self.config = config
        stream = made
        window = [Float](repeating: 0, count: config.window)
    }

    deinit {
        memory.deallocate()
    }

    /// Samples at 16 kHz heard so far, gaps included.
    public var time: Int { Int(spoof_stream_time(stream)) }

    /// Mean power of the last 10 ms, for a level meter.
    public var power: Double { spoof_stream_power(stream) }

    /// Takes interleaved frames in -1...1 and returns what was found in them.
    public func feed(_ samples: [Float]) -> [StreamEvent] {
        push(samples) { spoof_stream_push_float(stream, $0, $1) }
    }

    /// Takes interleaved 16-bit frames and returns what was found in them.
    public func feed(_ pcm: [Int16]) -> [StreamEvent] {
        push(pcm) { spoof_stream_push_pcm16(stream, $0, $1) }
    }

    /// Says that frames were lost; returns what the turn that ends there still says.
    public func gap(_ frames: Int) -> [StreamEvent] {
        precondition(spoof_stream_gap(stream, Int64(frames)) == 1, "a gap of \(frames) frames cannot be told here")
        return events()
    }

    /// Says that no input follows; returns the last events.
    public func finish() -> [StreamEvent] {
        finished = true
        spoof_stream_finish(stream)
        return events()
    }

    private func push<Sample>(
        _ samples: [Sample], _ taken: (UnsafePointer<Sample>, Int32) -> Int32
    ) -> [StreamEvent] {
        precondition(!finished, "the stream is finished")
        precondition(samples.count % config.channels == 0, "frames are of \(config.channels) channels")
        let frames = samples.count / config.channels
        var found: [StreamEvent] = []
        samples.withUnsafeBufferPointer { buffer in
            var done = 0
            while done < frames, let base = buffer.baseAddress {
                done += Int(taken(base + done * config.channels, Int32(clamping: frames - done)))
                found += events()
            }
        }
        return found
    }

    private func events() -> [StreamEvent] {
        var found: [StreamEvent] = []
        var event = spoof_event()
        while spoof_stream_next(stream, &window, &event) == 1 {
            found.append(
                StreamEvent(
                    window: event.kind == Int32(SPOOF_WINDOW.rawValue) ? window : nil,
                    samples: Int(event.samples),
                    start: Int(event.start),
                    end: Int(event.end),
                    speech: Int(event.speech),
                    turn: Int(event.turn),
                    position: Int(event.position)
                )
            )
        }
        return found
    }
}

/// Returns samples of another rate at 16 kHz, as the stream would hear them.
public func resample(_ samples: [Float], from rate: Int) throws -> [Float] {
    let size = spoof_resampler_size(Int32(clamping: rate))
    guard size > 0 else {
        throw SpoofFailure("the streaming core cannot resample \(rate) Hz")
    }
    let memory = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 16)
    defer { memory.deallocate() }
    guard let resampler = spoof_resampler_init(memory, size, Int32(rate)) else {
        throw SpoofFailure("the streaming core refuses its memory")
    }
    var out = [Float](repeating: 0, count: samples.count * sampleRate / rate + 1)
    var done = 0
    var given = 0
    func pull() {
        out.withUnsafeMutableBufferPointer {
            given += Int(spoof_resampler_pull(resampler, $0.baseAddress! + given, Int32($0.count - given)))
        }
    }
    samples.withUnsafeBufferPointer { buffer in
        while done < buffer.count {
            done += Int(spoof_resampler_push(resampler, buffer.baseAddress! + done, Int32(buffer.count - done)))
            pull()
        }
    }
    spoof_resampler_end(resampler)
    pull()
    return Array(out[..<given])
}

/// Returns the CRC-32 of the bytes of samples, to compare windows with golden ones.
public func crc32(_ samples: [Float]) -> UInt32 {
    samples.withUnsafeBytes { spoof_crc32($0.baseAddress, $0.count) }
}
