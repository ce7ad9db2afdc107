import Foundation

/// A model ready to score, whatever runs it.
public protocol Detector: AnyObject {
    /// What runs it, with its version.
    var library: String { get }
    /// How many samples a window has.
    var samples: Int { get }
    /// Returns the score of a window; higher is more likely bona fide.
    func score(_ window: [Float]) throws -> Double
}

/// Clips and what the model file must score them (`<file>.golden.json` and `.golden.f32`).
public struct GoldenScores {
    public let scores: [Double]
    public let tolerance: Double
    public let samples: Int
    private let clips: Data

    init(scores content: Data, clips: Data, samples: Int, name: String) throws {
        struct Raw: Decodable {
            let schema, clips, samples: Int
            let scores: [Double]
            let tolerance: Double
            let sha256: String
        }
        let raw = try decode(Raw.self, from: content, name + ".golden.json")
        guard raw.schema == 1, raw.samples == samples, (1...1000).contains(raw.clips),
            raw.clips == raw.scores.count, raw.scores.allSatisfy(\.isFinite), raw.tolerance >= 0, raw.tolerance < 1
        else {
            throw SpoofFailure("\(name).golden.json: no golden scores of this model; embed the detector again")
        }
        guard clips.count == 4 * raw.clips * raw.samples, hex(sha256(clips)) == raw.sha256 else {
            throw SpoofFailure("\(name).golden.f32: not the clips that were signed; embed the detector again")
        }
        scores = raw.scores
        tolerance = raw.tolerance
        self.samples = samples
        self.clips = clips
    }

    /// Returns a clip.
    public func clip(_ index: Int) -> [Float] {
        floats(clips, from: index * samples, count: samples)
    }

    /// Scores all clips and returns the largest difference.
    public func check(_ detector: Detector) throws -> Double {
        var worst = 0.0
        for (index, expected) in scores.enumerated() {
            let score = try detector.score(clip(index))
            let difference = abs(score - expected)
            guard difference <= tolerance else {  // nor is NaN
                throw SpoofFailure(
                    "golden clip \(index) of \(scores.count) scores \(score) here instead of \(expected) "
                        + "(allowed: \(tolerance)); do not trust this phone's \(detector.library) with this file"
                )
            }
            worst = max(worst, difference)
        }
        return worst
    }
}

/// Returns little-endian float32 values out of bytes.
public func floats(_ data: Data, from first: Int = 0, count: Int? = nil) -> [Float] {
    data.withUnsafeBytes { bytes in
        (first..<first + (count ?? data.count / 4)).map {
            Float(bitPattern: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self)))
        }
    }
}
