// What Sources/SpoofSignature uses of CryptoKit, declared from its documentation, to check types where there is
// no CryptoKit. A mistake of ours here hides one there.
@_exported import Foundation

public enum Curve25519 {
    public enum Signing {
        public struct PublicKey {
            public init<D: ContiguousBytes>(rawRepresentation: D) throws {}
            public func isValidSignature<S: DataProtocol, D: DataProtocol>(_ signature: S, for data: D) -> Bool {
                fatalError()
            }
        }
    }
}
