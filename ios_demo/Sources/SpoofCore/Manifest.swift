import Foundation

/// What a model's maker says of it, checked field by field: the parts of a manifest that an app uses.
/// `antispoof/manifest.py` writes them and says what they mean.
public struct Manifest: Equatable {
    public static let suffix = ".manifest.json"
    public static let mostBytes = 1 << 20
    public static let mostSamples = 960_000
    /// Beyond any calibration: the million that the streaming core takes, less a threshold's margin.
    static let mostRatio = 999_999.0

    public struct Threshold: Equatable {
        public let name: String
        public let score: Double
    }

    public let model: String
    public let format: String
    public let input: String
    public let samples: Int
    public let output: String
    /// `llr = scale * score + offset`, where the manifest holds a calibration.
    public let calibration: Calibration?
    public let thresholds: [Threshold]
    public let bytes: Int
    public let sha256: String
    public let version: Int
    public let goldenSha256: String

    public struct Calibration: Equatable {
        public let scale: Double
        public let offset: Double
    }

    /// Reads a manifest whose signature was found right.
    public init(_ content: Data, name: String) throws {
        guard content.count <= Manifest.mostBytes else {
            throw SpoofFailure("\(name): larger than \(Manifest.mostBytes) bytes, and so no manifest")
        }
        let schema = try decode(RawSchema.self, from: content, name).schema
        guard schema == 1 else {
            throw SpoofFailure("\(name): schema \(schema); this app reads 1, update it")
        }
        let raw = try decode(RawManifest.self, from: content, name)
        if let problem = raw.problem {
            throw SpoofFailure("\(name): \(problem)")
        }
        model = raw.model
        format = raw.format
        input = raw.input.name
        samples = raw.input.samples
        output = raw.output.name
        calibration = raw.calibration.map { Calibration(scale: $0.scale, offset: $0.offset) }
        thresholds = raw.thresholds.map { Threshold(name: $0.name, score: $0.score) }
        bytes = raw.file.bytes
        sha256 = raw.file.sha256
        version = raw.modelVersion
        goldenSha256 = raw.goldenSha256
    }

    /// How scores become decisions at the first operating point, or nil where there is nothing to decide by.
    /// The same as `rules_of` of runtimes/stream.py.
    public func rules(smoothingSeconds: Double = 3) -> Rules? {
        guard calibration != nil || !thresholds.isEmpty else { return nil }
        var rules = Rules()
        rules.scale = calibration?.scale ?? 1
        rules.offset = calibration?.offset ?? 0
        let middle = thresholds.first.map { rules.scale * $0.score + rules.offset } ?? 0
        let margin = calibration == nil ? 0 : 0.5
        rules.timeConstant = smoothingSeconds * Double(sampleRate)
        rules.enter = middle - margin
        rules.exit = middle + margin
        rules.minDuration = sampleRate
        return rules
    }

    /// How audio of this form becomes windows for this model.
    public func config(rate: Int, channels: Int) -> StreamConfig {
        var config = StreamConfig()
        config.sampleRate = rate
        config.channels = channels
        config.window = samples
        config.first = min(sampleRate, samples)
        config.minSpeech = config.first
        return config
    }
}

private struct RawSchema: Decodable {
    let schema: Int
}

private struct RawManifest: Decodable {
    struct Input: Decodable {
        let name, dtype, length_rule: String
        let samples, sample_rate: Int
        let batch: Int?
    }
    struct Output: Decodable {
        let name, dtype, polarity: String
        let labels: [String]
    }
    struct Calibration: Decodable {
        let scale, offset: Double
    }
    struct Threshold: Decodable {
        let name: String
        let score: Double
    }
    struct File: Decodable {
        let name, sha256: String
        let bytes: Int
    }
    let model, format: String
    let input: Input
    let output: Output
    let calibration: Calibration?
    let thresholds: [Threshold]
    let file: File
    let modelVersion: Int
    let goldenSha256: String

    enum CodingKeys: String, CodingKey {
        case model, format, input, output, calibration, thresholds, file
        case modelVersion = "model_version"
        case goldenSha256 = "golden_sha256"
    }

    /// What this app cannot honour, if anything.
    var problem: String? {
        let (scale, offset) = (calibration?.scale ?? 1, calibration?.offset ?? 0)
        let ratios = [scale, offset] + thresholds.map { scale * $0.score + offset }
        switch true {
        case input.sample_rate != sampleRate: return "made for \(input.sample_rate) Hz, not for \(sampleRate)"
        case !(1...Manifest.mostSamples).contains(input.samples): return "takes \(input.samples) samples"
        case input.batch != nil && input.batch != 1: return "takes \(input.batch!) clips at once; export it for 1"
        case input.dtype != "float32" || output.dtype != "float32": return "its input or output is not float32"
        case input.length_rule != "tile when shorter, head when longer":
            return "fills short clips in a way that this app does not know"
        case output.polarity != "higher is bona fide" || output.labels != ["spoof", "bonafide"]:
            return "its scores mean something else than higher is bona fide"
        case scale <= 0: return "its calibration turns the score round"
        case !ratios.allSatisfy({ abs($0) <= Manifest.mostRatio }):
            return "its calibration or a threshold is beyond all bounds"
        case !(1...Int(Int32.max)).contains(modelVersion): return "model version \(modelVersion), never released"
        case !isHash(file.sha256) || !isHash(goldenSha256): return "a sha256 is none"
        case file.bytes < 0: return "its file has \(file.bytes) bytes"
        default: return nil
        }
    }
}

private func isHash(_ text: String) -> Bool {
    text.utf8.count == 64 && text.utf8.allSatisfy { "0123456789abcdef".utf8.contains($0) }
}

