import Foundation
import SpoofCore
import XCTest

final class BenchmarkTests: XCTestCase {
    func testPercentilesAreNumPys() throws {
        // np.quantile([1, 2, 4, 8, 16], (.5, .9))
        let few = try XCTUnwrap(Percentiles([16, 1, 8, 2, 4]))
        XCTAssertEqual([few.p50, few.p90], [4, 12.8])
        XCTAssertNil(few.p99)
        let many = try XCTUnwrap(Percentiles((0..<100).map(Double.init)))
        XCTAssertEqual(many.p50, 49.5, accuracy: 1e-12)
        XCTAssertEqual(try XCTUnwrap(many.p99), 98.01, accuracy: 1e-12)
        XCTAssertNil(Percentiles([]))
        XCTAssertEqual(Percentiles([7])?.p90, 7)
    }

    func testWhatTheBenchmarkAsksAndIsTold() throws {
        let asked = ["app", "--model", "m", "--clips", "c", "--samples", "10", "--threads", "1", "--runs", "3"]
        let arguments = try XCTUnwrap(RunnerArguments(asked))
        XCTAssertEqual([arguments.samples, arguments.runs], [10, 3])
        XCTAssertNil(try RunnerArguments(["app"]))
        XCTAssertThrowsError(try RunnerArguments(["app", "--model"]))
        XCTAssertThrowsError(try RunnerArguments(asked.map { $0 == "3" ? "-1" : $0 }))
        let detector = CrcDetector(samples: 2)
        let answer = try timeRuns(detector, clips: [[0, 1], [1, 0]], runs: 5, loadMs: 1)
        XCTAssertEqual([answer.scores.count, answer.times_ms.count], [2, 5])
        XCTAssertGreaterThan(answer.peak_rss_kib, 1_000)
        XCTAssert(answer.times_ms.allSatisfy { $0 >= 0 })
        let line: String = try answer.line
        XCTAssert(line.hasPrefix(RunnerAnswer.mark) && !line.contains("\n"))
        let back = Data(line.dropFirst(RunnerAnswer.mark.count).utf8)
        XCTAssertEqual(try JSONDecoder().decode(RunnerAnswer.self, from: back), answer)
    }

    func testSteadyIsTwoCoolBlocksThatAgree() {
        func block(_ ms: Double, heat: Int = 0) -> Block {
            let answer = RunnerAnswer(
                library: "", scores: [], load_ms: 0, first_ms: 0, times_ms: [ms, ms], peak_rss_kib: 0)
            return Block(answer: answer, heatBefore: 0, heatAfter: heat)
        }
        XCTAssert(isSteady([block(1), block(10), block(10.2)]))
        XCTAssertFalse(isSteady([block(10), block(10.5)]))
        XCTAssertFalse(isSteady([block(10), block(10, heat: 1)]))
        XCTAssertFalse(isSteady([block(10)]))
    }
}
