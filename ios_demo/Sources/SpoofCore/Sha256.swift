import Foundation

/// SHA-256 (FIPS 180-4), because a package that also runs on Linux has no CryptoKit there.
public func sha256(_ data: Data) -> [UInt8] {
    var state: [UInt32] = [
        0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19,
    ]
    var schedule = [UInt32](repeating: 0, count: 64)
    let whole = data.count / 64 * 64
    var tail = [UInt8](data.suffix(data.count - whole)) + [0x80]
    tail += [UInt8](repeating: 0, count: (120 - tail.count % 64) % 64)
    tail += withUnsafeBytes(of: (8 * UInt64(data.count)).bigEndian) { [UInt8]($0) }
    data.withUnsafeBytes { bytes in
        for block in stride(from: 0, to: whole, by: 64) {
            compress(UnsafeRawBufferPointer(rebasing: bytes[block..<block + 64]), &state, &schedule)
        }
    }
    tail.withUnsafeBytes { bytes in
        for block in stride(from: 0, to: bytes.count, by: 64) {
            compress(UnsafeRawBufferPointer(rebasing: bytes[block..<block + 64]), &state, &schedule)
        }
    }
    return state.flatMap { word in withUnsafeBytes(of: word.bigEndian) { [UInt8]($0) } }
}

/// Returns bytes as lower-case hexadecimal digits.
public func hex(_ bytes: [UInt8]) -> String {
    bytes.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
}

private func compress(_ block: UnsafeRawBufferPointer, _ state: inout [UInt32], _ schedule: inout [UInt32]) {
    for t in 0..<16 {
        schedule[t] = UInt32(bigEndian: block.loadUnaligned(fromByteOffset: 4 * t, as: UInt32.self))
    }
    for t in 16..<64 {
        let early = schedule[t - 15]
        let late = schedule[t - 2]
        let sigma0 = rotated(early, 7) ^ rotated(early, 18) ^ (early >> 3)
        let sigma1 = rotated(late, 17) ^ rotated(late, 19) ^ (late >> 10)
        schedule[t] = schedule[t - 16] &+ sigma0 &+ schedule[t - 7] &+ sigma1
    }
    var (a, b, c, d) = (state[0], state[1], state[2], state[3])
    var (e, f, g, h) = (state[4], state[5], state[6], state[7])
    for t in 0..<64 {
        let sum1 = rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)
        let choice = (e & f) ^ (~e & g)
        let first = h &+ sum1 &+ choice &+ roundConstants[t] &+ schedule[t]
        let sum0 = rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)
        let majority = (a & b) ^ (a & c) ^ (b & c)
        (h, g, f, e, d, c, b, a) = (g, f, e, d &+ first, c, b, a, first &+ sum0 &+ majority)
    }
    for (index, value) in [a, b, c, d, e, f, g, h].enumerated() {
        state[index] &+= value
    }
}

@inline(__always)
private func rotated(_ word: UInt32, _ bits: UInt32) -> UInt32 {
    word >> bits | word << (32 - bits)
}

/// The first 32 bits of the fractional parts of the cube roots of the first 64 primes, computed from that
/// definition in integers: the largest r with r^3 <= prime * 2^96 has them as its lowest.
private let roundConstants: [UInt32] = {
    let primes = (2...311).filter { n in !(2..<n).contains { $0 * $0 <= n && n % $0 == 0 } }
    return primes.map { prime in
        var root: UInt64 = 0
        for bit in stride(from: 34, through: 0, by: -1) {
            let next = root | 1 << UInt64(bit)
            // next^3 <= prime * 2^96, in two halves of 64 bits
            let square = next.multipliedFullWidth(by: next)
            let low = square.low.multipliedFullWidth(by: next)
            let (high, overflow) = square.high.multipliedReportingOverflow(by: next)
            let (sum, carry) = high.addingReportingOverflow(low.high)
            if !overflow && !carry && (sum < UInt64(prime) << 32 || sum == UInt64(prime) << 32 && low.low == 0) {
                root = next
            }
        }
        return UInt32(truncatingIfNeeded: root)
    }
}()
