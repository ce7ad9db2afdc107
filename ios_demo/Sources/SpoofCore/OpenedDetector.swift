import Foundation

/// A detector that was verified, opened and found to score here as it did where it was made.
public struct OpenedDetector {
    public let detector: Detector
    public let model: VerifiedModel
    /// Largest difference from the golden scores.
    public let goldenDifference: Double
    public let loadMilliseconds: Double

    /// Verifies a folder, opens the first of its files that can run here, and checks its golden scores; then,
    /// and only then, its version counts as used. The golden clips are scored at every start, not only of a
    /// new version: they take little, and an update of the system may change what runs the model.
    ///
    /// - Parameters:
    ///   - formats: What `load` can open, such as `coreml`.
    ///   - load: Opens a verified file.
    public static func open(
        _ folder: DetectorFolder,
        verifier: SignatureVerifier,
        versions: VersionStore,
        formats: Set<String>,
        load: (VerifiedModel) async throws -> Detector
    ) async throws -> OpenedDetector {
        let models = try folder.verified(by: verifier, versions: versions)
        guard let model = models.first(where: { formats.contains($0.manifest.format) }) else {
            throw SpoofFailure("this app runs \(formats.sorted().joined(separator: ", ")), and there is none; embed one")
        }
        let began = milliseconds()
        let detector = try await load(model)
        let took = milliseconds() - began
        let difference = try model.golden.check(detector)
        versions.accept(model.manifest.model, version: model.manifest.version)
        return OpenedDetector(
            detector: detector, model: model, goldenDifference: difference, loadMilliseconds: took
        )
    }
}
