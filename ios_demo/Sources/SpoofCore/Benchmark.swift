import Foundation

/// What benchmarks/on_device.py calls the app with: `--model FILE --clips FILE --samples N --threads T --runs R`.
public struct RunnerArguments: Equatable {
    public let model: String
    public let clips: String
    public let samples: Int
    public let runs: Int

    /// Nil where the app was started by a finger and not by a benchmark.
    public init?(_ arguments: [String]) throws {
        guard arguments.contains("--model") else { return nil }
        func value(_ flag: String) throws -> String {
            guard let at = arguments.firstIndex(of: flag), at + 1 < arguments.count else {
                throw SpoofFailure("\(flag) is missing from what the benchmark asks")
            }
            return arguments[at + 1]
        }
        func number(_ flag: String, _ range: ClosedRange<Int>) throws -> Int {
            guard let number = Int(try value(flag)), range.contains(number) else {
                throw SpoofFailure("\(flag) takes \(range.lowerBound) to \(range.upperBound)")
            }
            return number
        }
        (model, clips) = (try value("--model"), try value("--clips"))
        samples = try number("--samples", 1...Manifest.mostSamples)
        runs = try number("--runs", 0...100_000)
    }
}

/// What a runner prints, on one line after `mark` (benchmarks/devices/runs.py).
public struct RunnerAnswer: Codable, Equatable {
    public static let mark = "ANTISPOOF-RESULT "
    public var runner: String
    public var library: String
    public var scores: [Double]
    public var load_ms: Double
    public var first_ms: Double
    public var times_ms: [Double]
    public var peak_rss_kib: Int

    public init(
        library: String, scores: [Double], load_ms: Double, first_ms: Double, times_ms: [Double], peak_rss_kib: Int
    ) {
        runner = "ios_demo 1"
        (self.library, self.scores, self.load_ms) = (library, scores, load_ms)
        (self.first_ms, self.times_ms, self.peak_rss_kib) = (first_ms, times_ms, peak_rss_kib)
    }

    public var line: String {
        get throws {
            RunnerAnswer.mark + String(decoding: try JSONEncoder().encode(self), as: UTF8.self)
        }
    }
}

/// Milliseconds of a steady clock.
public func milliseconds() -> Double {
    Double(DispatchTime.now().uptimeNanoseconds) / 1e6
}

/// Scores every clip in its own run, then runs so many times more over the clips in turn.
public func timeRuns(
    _ detector: Detector, clips: [[Float]], runs: Int, loadMs: Double, clock: () -> Double = milliseconds
) throws -> RunnerAnswer {
    var times: [Double] = []
    func timed(_ clip: [Float]) throws -> Double {
        let began = clock()
        let score = try detector.score(clip)
        times.append(clock() - began)
        return score
    }
    let scores = try clips.map(timed)
    let first = times.first ?? 0
    times = []
    for run in 0..<(clips.isEmpty ? 0 : runs) {
        _ = try timed(clips[run % clips.count])
    }
    return RunnerAnswer(
        library: detector.library, scores: scores, load_ms: loadMs, first_ms: first, times_ms: times,
        peak_rss_kib: peakKiB()
    )
}

/// Percentiles as NumPy's: linear between the two nearest; p99 for a hundred times and more.
public struct Percentiles: Equatable {
    public let p50: Double
    public let p90: Double
    public let p99: Double?

    public init?(_ times: [Double]) {
        guard !times.isEmpty else { return nil }
        let sorted = times.sorted()
        func at(_ share: Double) -> Double {
            let place = share * Double(sorted.count - 1)
            let low = Int(place)
            let high = min(low + 1, sorted.count - 1)
            return sorted[low] + (place - Double(low)) * (sorted[high] - sorted[low])
        }
        (p50, p90) = (at(0.5), at(0.9))
        p99 = sorted.count < 100 ? nil : at(0.99)
    }
}

/// Runs in a row, and the thermal state around them: 0 nominal to 3 critical.
public struct Block {
    public let answer: RunnerAnswer
    public let heatBefore: Int
    public let heatAfter: Int

    public init(answer: RunnerAnswer, heatBefore: Int, heatAfter: Int) {
        (self.answer, self.heatBefore, self.heatAfter) = (answer, heatBefore, heatAfter)
    }

    var counts: Bool { heatBefore == 0 && heatAfter == 0 }
    var median: Double { Percentiles(answer.times_ms)?.p50 ?? .nan }
}

/// Whether the last two blocks count and their medians agree to 3 %, as benchmarks/devices/runs.py asks.
public func isSteady(_ blocks: [Block]) -> Bool {
    let last = blocks.suffix(2)
    guard last.count == 2, last.allSatisfy(\.counts), let earlier = last.first, let later = last.last else {
        return false
    }
    return abs(later.median / earlier.median - 1) <= 0.03
}

/// The result file of the app's own benchmark, in the form of benchmarks/on_device.py.
public func deviceResult(
    _ model: VerifiedModel, _ blocks: [Block], goldenDifference: Double, device: [String: String], date: Date
) throws -> Data {
    let counted = blocks.filter(\.counts)
    let steady = isSteady(blocks)
    let used = steady ? Array(counted.suffix(2)) : counted
    let times = used.flatMap(\.answer.times_ms)
    guard let figures = Percentiles(times), let first = blocks.first?.answer else {
        throw SpoofFailure("the phone was throttling in every block of runs; let it cool down and try again")
    }
    func median(_ key: KeyPath<RunnerAnswer, Double>) -> Double {
        Percentiles(counted.map { $0.answer[keyPath: key] })?.p50 ?? 0
    }
    let ms: [String: Any] = [
        "p50": figures.p50, "p90": figures.p90, "p99": figures.p99.map { $0 as Any } ?? NSNull(),
        "least": times.min() ?? 0, "runs": times.count,
    ]
    let row: [String: Any] = [
        "label": model.url.deletingPathExtension().lastPathComponent,
        "file": model.url.lastPathComponent,
        "bytes": model.manifest.bytes,
        "sha256": model.manifest.sha256,
        "golden": [
            "clips": model.golden.scores.count, "max_difference": goldenDifference,
            "tolerance": model.golden.tolerance,
        ] as [String: Any],
        "device": device,
        "threads": 1,
        "steady": steady,
        "blocks": ["run": blocks.count, "hot": blocks.count - counted.count, "used": used.count],
        "ms": ms,
        "load_ms": median(\.load_ms),
        "first_run_ms": median(\.first_ms),
        "peak_rss_mib": Double(counted.map(\.answer.peak_rss_kib).max() ?? 0) / 1024,
        "runner": first.runner,
        "library": first.library,
    ]
    let conditions: [String: Any] = [
        "date": ISO8601DateFormatter().string(from: date),
        "packages": ["ios_demo": "1"],
        "protocol": ["runs": first.times_ms.count, "blocks": blocks.count, "cores": "any"] as [String: Any],
    ]
    let content: [String: Any] = ["schema": 1, "kind": "on-device", "conditions": conditions, "rows": [row]]
    return try JSONSerialization.data(withJSONObject: content, options: [.prettyPrinted, .sortedKeys])
}

/// The most memory that this process has had.
private func peakKiB() -> Int {
    var usage = rusage()
    #if canImport(Darwin)
        getrusage(RUSAGE_SELF, &usage)
        return usage.ru_maxrss / 1024  // bytes there
    #else
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        return usage.ru_maxrss
    #endif
}
