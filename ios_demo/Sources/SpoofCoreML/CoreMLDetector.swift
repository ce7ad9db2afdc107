#if canImport(CoreML)
    import CoreML
    import Foundation
    import SpoofCore

    /// Runs a verified `.mlpackage`.
    public final class CoreMLDetector: Detector {
        public let library = "Core ML"
        public let samples: Int
        private let model: MLModel
        private let input: String
        private let output: String

        /// Compiles the package, unless that was done before, and loads it.
        ///
        /// - Parameters:
        ///   - verified: Of `DetectorFolder`; nothing else is opened.
        ///   - cache: A folder of the app's own; what was compiled is kept under the package's sha256.
        ///   - units: Which processors may run it.
        public static func load(
            _ verified: VerifiedModel, cache: URL, units: MLComputeUnits = .all
        ) async throws -> CoreMLDetector {
            guard verified.manifest.format == "coreml" else {
                throw SpoofFailure("\(verified.url.lastPathComponent): Core ML runs .mlpackage files only")
            }
            let compiled = cache.appendingPathComponent(verified.manifest.sha256 + ".mlmodelc")
            do {
                let configuration = MLModelConfiguration()
                configuration.computeUnits = units
                let model = try await open(verified.url, compiled: compiled, configuration)
                return try CoreMLDetector(model, verified.manifest)
            } catch let failure as SpoofFailure {
                throw failure
            } catch {
                throw SpoofFailure("\(verified.url.lastPathComponent): Core ML refuses it: \(error.localizedDescription)")
            }
        }

        /// Loads what was compiled before; where the system refuses that, as it may after an update of its own or
        /// with half of its cache emptied, compiles anew.
        private static func open(
            _ package: URL, compiled: URL, _ configuration: MLModelConfiguration
        ) async throws -> MLModel {
            let files = FileManager.default
            if files.fileExists(atPath: compiled.path) {
                if let model = try? await MLModel.load(contentsOf: compiled, configuration: configuration) {
                    return model
                }
                try files.removeItem(at: compiled)
            }
            let made = try await MLModel.compileModel(at: package)
            try files.createDirectory(at: compiled.deletingLastPathComponent(), withIntermediateDirectories: true)
            try files.moveItem(at: made, to: compiled)
            return try await MLModel.load(contentsOf: compiled, configuration: configuration)
        }

        private init(_ model: MLModel, _ manifest: Manifest) throws {
            let description = model.modelDescription
            guard description.inputDescriptionsByName[manifest.input] != nil,
                description.outputDescriptionsByName[manifest.output] != nil
            else {
                throw SpoofFailure("the package has no input \(manifest.input) or no output \(manifest.output)")
            }
            self.model = model
            samples = manifest.samples
            input = manifest.input
            output = manifest.output
        }

        public func score(_ window: [Float]) throws -> Double {
            let array = try MLMultiArray(shape: [1, NSNumber(value: samples)], dataType: .float32)
            array.withUnsafeMutableBytes { bytes, _ in
                window.withUnsafeBytes { bytes.copyMemory(from: $0) }
            }
            let given = try MLDictionaryFeatureProvider(dictionary: [input: MLFeatureValue(multiArray: array)])
            guard let score = try model.prediction(from: given).featureValue(for: output)?.multiArrayValue else {
                throw SpoofFailure("Core ML gave no score")
            }
            guard score.count == 1 else {  // a package may leave that open
                throw SpoofFailure("Core ML gave \(score.count) scores for one window; do not trust the model")
            }
            return score[0].doubleValue
        }
    }
#endif
