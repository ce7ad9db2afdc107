import Foundation

/// Says whether a signature is that of a key. CryptoKit's is in `SpoofSignature`.
public protocol SignatureVerifier {
    /// Ed25519 (RFC 8032): a public key of 32 bytes, a signature of 64.
    func verifies(key: Data, signature: Data, message: Data) throws -> Bool
}

/// Remembers, as long as the app is installed, what was accepted; an older version is refused.
public protocol VersionStore: AnyObject {
    func highest(_ model: String) -> Int
    func accept(_ model: String, version: Int)
}

/// Keeps the versions in the app's preferences.
public final class UserDefaultsVersions: VersionStore {
    private let defaults: UserDefaults

    public init(_ defaults: UserDefaults = .standard) {
        self.defaults = defaults
    }

    public func highest(_ model: String) -> Int {
        defaults.integer(forKey: "spoof.version." + model)
    }

    public func accept(_ model: String, version: Int) {
        defaults.set(max(version, highest(model)), forKey: "spoof.version." + model)
    }
}

/// A model file that may be opened: signed, whole and not older than what was used.
public struct VerifiedModel {
    public let url: URL
    public let manifest: Manifest
    public let golden: GoldenScores
}

/// The folder that `antispoof embed` writes. Everything in it is verified, in the order of
/// runtimes/detector_folder.py, before anything is opened; any changed byte ends in a sentence.
public struct DetectorFolder {
    static let list = "detector.json"
    static let key = "trusted-key.pub"
    static let messagePrefix = Data("antispoof manifest 1\n".utf8)
    let folder: URL

    public init(_ folder: URL) {
        self.folder = folder
    }

    /// Returns the model files, best first.
    public func verified(by verifier: SignatureVerifier, versions: VersionStore) throws -> [VerifiedModel] {
        let names = try readList()
        let key = try readKey()
        return try names.map { name in
            let content = try signedManifest(name, key: key, verifier)
            let manifest = try Manifest(content, name: name + Manifest.suffix)
            try checkFile(name, manifest)
            let highest = versions.highest(manifest.model)
            guard manifest.version >= highest else {
                throw SpoofFailure(
                    "\(name): version \(manifest.version) is older than \(highest), already used; install a newer one"
                )
            }
            return VerifiedModel(
                url: folder.appendingPathComponent(name), manifest: manifest, golden: try readGolden(name, manifest)
            )
        }
    }

    /// The names in the list, which must be, to the byte, what embed.py writes, for it is not signed.
    private func readList() throws -> [String] {
        struct List: Decodable {
            let schema: Int
            let files: [String]
        }
        let content = try read(DetectorFolder.list, most: 4096)
        let list = try decode(List.self, from: content, DetectorFolder.list)
        guard list.schema == 1 else {
            throw SpoofFailure("\(DetectorFolder.list): schema \(list.schema); this app reads 1, update it")
        }
        for name in list.files where !isPlain(name) {
            throw SpoofFailure("\(DetectorFolder.list): '\(name.prefix(80))' is no plain file name")
        }
        let names = list.files.map { "\"\($0)\"" }.joined(separator: ", ")
        guard !list.files.isEmpty, content == Data("{\"schema\": 1, \"files\": [\(names)]}\n".utf8) else {
            throw SpoofFailure("\(DetectorFolder.list): not as it was written; embed the detector again")
        }
        return list.files
    }

    /// The key, whose line is refused where only its spare bits were changed.
    private func readKey() throws -> Data {
        let content = try read(DetectorFolder.key, most: 64)
        let line = String(decoding: content, as: UTF8.self)
        guard let key = Data(base64Encoded: String(line.dropLast())), key.count == 32,
            content == Data((key.base64EncodedString() + "\n").utf8)
        else {
            throw SpoofFailure("\(DetectorFolder.key): no public key; embed the detector again")
        }
        return key
    }

    private func signedManifest(_ name: String, key: Data, _ verifier: SignatureVerifier) throws -> Data {
        let content = try read(name + Manifest.suffix, most: Manifest.mostBytes)
        let signature = try read(name + Manifest.suffix + ".sig", most: 64)
        guard signature.count == 64,
            try verifier.verifies(key: key, signature: signature, message: DetectorFolder.messagePrefix + content)
        else {
            throw SpoofFailure(
                "\(name + Manifest.suffix): not signed by \(DetectorFolder.key): changed, or another's; embed it again"
            )
        }
        return content
    }

    private func checkFile(_ name: String, _ manifest: Manifest) throws {
        let (bytes, hash) = try fingerprint(folder.appendingPathComponent(name), name)
        guard bytes == manifest.bytes, hash == manifest.sha256 else {
            throw SpoofFailure("\(name): not the file that its manifest was signed for; embed the detector again")
        }
    }

    private func readGolden(_ name: String, _ manifest: Manifest) throws -> GoldenScores {
        let scores = try read(name + ".golden.json", most: 1 << 20)
        guard hex(sha256(scores)) == manifest.goldenSha256 else {
            throw SpoofFailure("\(name).golden.json: not what was signed; embed the detector again")
        }
        let clips = try read(name + ".golden.f32", most: 1 << 28)
        return try GoldenScores(scores: scores, clips: clips, samples: manifest.samples, name: name)
    }

    private func read(_ name: String, most: Int) throws -> Data {
        let url = folder.appendingPathComponent(name)
        guard let content = try? Data(contentsOf: url, options: .mappedIfSafe) else {
            throw SpoofFailure("\(name) is missing; embed the detector again")
        }
        guard content.count <= most else {
            throw SpoofFailure("\(name): larger than \(most) bytes, and so not what it should be")
        }
        return content
    }
}

/// Letters, digits, '-', '_' and '.': names that mean themselves and lead nowhere else.
private func isPlain(_ name: String) -> Bool {
    let first = name.utf8.first.map { $0 != UInt8(ascii: "-") && $0 != UInt8(ascii: ".") } ?? false
    let allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.".utf8
    return first && name.utf8.count <= 127 && name.utf8.allSatisfy(allowed.contains) && !name.contains("..")
}

/// Returns size and sha256 of a file, or of a package: there the sha256 is that of the sorted lines
/// `sha256  relative/path` of its files (`describe_file` of antispoof/manifest.py).
private func fingerprint(_ url: URL, _ name: String) throws -> (Int, String) {
    let missing = SpoofFailure("\(name) is missing or cannot be read; embed the detector again")
    func content(_ url: URL) throws -> Data {
        guard let data = try? Data(contentsOf: url, options: .mappedIfSafe) else { throw missing }
        return data
    }
    var isFolder: ObjCBool = false
    guard FileManager.default.fileExists(atPath: url.path, isDirectory: &isFolder) else { throw missing }
    guard isFolder.boolValue else {
        let data = try content(url)
        return (data.count, hex(sha256(data)))
    }
    guard let inside = try? FileManager.default.subpathsOfDirectory(atPath: url.path) else { throw missing }
    var lines: [(path: [String], hash: String)] = []
    var bytes = 0
    for path in inside {
        let file = url.appendingPathComponent(path)
        let type = (try? FileManager.default.attributesOfItem(atPath: file.path))?[.type] as? FileAttributeType
        if type == .typeDirectory { continue }
        guard type == .typeRegular else {
            throw SpoofFailure("\(name)/\(path): a link or device, which no package of ours holds")
        }
        let data = try content(file)
        bytes += data.count
        lines.append((path.split(separator: "/").map(String.init), hex(sha256(data))))
    }
    // As Python sorts paths: part by part, each by its bytes.
    lines.sort { one, other in
        one.path.lexicographicallyPrecedes(other.path) { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    }
    let text = lines.map { "\($0.hash)  \($0.path.joined(separator: "/"))\n" }.joined()
    return (bytes, hex(sha256(Data(text.utf8))))
}
