import Foundation

/// What went wrong, in one sentence for people: what it is and what to do about it.
public struct SpoofFailure: Error, Equatable, LocalizedError, CustomStringConvertible {
    public let sentence: String

    public init(_ sentence: String) {
        self.sentence = sentence
    }

    public var description: String { sentence }
    public var errorDescription: String? { sentence }
}
