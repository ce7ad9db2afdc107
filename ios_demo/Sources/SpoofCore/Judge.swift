import CSpoofCore

/// How scores become decisions; durations are samples at 16 kHz (`spoof_rules` in the core's header).
public struct Rules: Equatable {
    public var scale = 1.0
    public var offset = 0.0
    public var timeConstant = 48_000.0
    public var enter = 0.0
    public var exit = 0.0
    public var minDuration = 0

    public init() {}

    var native: spoof_rules {
        spoof_rules(
            scale: scale, offset: offset, time_constant: timeConstant, enter: enter, exit: exit,
            min_duration: Int64(minDuration)
        )
    }
}

public enum Decision: String {
    case undecided, bonafide, spoof

    init(_ native: Int32) {
        switch UInt32(native) {
        case UInt32(SPOOF_BONAFIDE.rawValue): self = .bonafide
        case UInt32(SPOOF_SPOOF.rawValue): self = .spoof
        default: self = .undecided
        }
    }
}

/// What the judge makes of the scores: LLR of the last, average of all, the decision and since when.
public struct Verdict: Equatable {
    public let llr: Double
    public let smoothed: Double
    public let decision: Decision
    public let since: Int
    public let changed: Bool
}

/// Scores in, decisions out: calibrated, averaged over time, with a threshold for each direction.
public struct Judge {
    private var judge = spoof_judge()
    private var rules: spoof_rules

    public init(_ rules: Rules) throws {
        self.rules = rules.native
        guard spoof_judge_init(&judge, &self.rules) == 1 else {
            throw SpoofFailure("the streaming core cannot decide by these rules: \(rules)")
        }
    }

    /// Takes the score of the window that ended at `end` and says what follows.
    public mutating func hear(_ score: Double, end: Int) throws -> Verdict {
        guard spoof_judge_update(&judge, &rules, score, Int64(end)) == 1 else {
            throw SpoofFailure("a score of \(score) for a window that ended at \(end) cannot be judged")
        }
        return Verdict(
            llr: judge.llr, smoothed: judge.smoothed, decision: Decision(judge.decision),
            since: Int(judge.since), changed: judge.changed != 0
        )
    }
}
