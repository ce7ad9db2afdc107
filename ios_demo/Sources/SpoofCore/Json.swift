import Foundation

/// Returns what a JSON text holds; whatever is wrong with it becomes a sentence.
func decode<Content: Decodable>(_ type: Content.Type, from text: Data, _ name: String) throws -> Content {
    // JSONDecoder of Swift 6.0 ends the process where a key is not UTF-8 or holds a control character; it
    // looks into strings late, and JSONSerialization at once.
    guard String(data: text, encoding: .utf8) != nil, (try? JSONSerialization.jsonObject(with: text)) != nil else {
        throw SpoofFailure("\(name): the text is damaged; embed the detector again")
    }
    do {
        return try JSONDecoder().decode(type, from: text)
    } catch let error as DecodingError {
        throw SpoofFailure("\(name): \(sentence(error)); embed the detector again")
    } catch {
        throw SpoofFailure("\(name): damaged; embed the detector again")
    }
}

/// Says where something is missing or of another kind.
private func sentence(_ error: DecodingError) -> String {
    func place(_ context: DecodingError.Context, _ last: CodingKey? = nil) -> String {
        let path = (context.codingPath + (last.map { [$0] } ?? [])).map(\.stringValue).joined(separator: ".")
        return path.isEmpty ? "the text" : "'\(path)'"
    }
    switch error {
    case .keyNotFound(let key, let context): return "\(place(context, key)) is missing"
    case .typeMismatch(_, let context): return "\(place(context)) is of another kind"
    case .valueNotFound(_, let context): return "\(place(context)) is empty"
    case .dataCorrupted(let context): return "\(place(context)) is damaged"
    @unknown default: return "it is damaged"
    }
}
