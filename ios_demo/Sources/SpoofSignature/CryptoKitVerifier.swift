#if canImport(CryptoKit)
    import CryptoKit
    import Foundation
    import SpoofCore

    /// Verifies signatures with Apple's CryptoKit.
    public struct CryptoKitVerifier: SignatureVerifier {
        public init() {}

        public func verifies(key: Data, signature: Data, message: Data) -> Bool {
            guard let key = try? Curve25519.Signing.PublicKey(rawRepresentation: key) else { return false }
            return key.isValidSignature(signature, for: message)
        }
    }
#endif
