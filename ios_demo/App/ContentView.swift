import SpoofCore
import SwiftUI

struct ContentView: View {
    @ObservedObject var model: ListeningModel

    var body: some View {
        VStack(spacing: 24) {
            Text(verdict).font(.largeTitle.bold()).foregroundStyle(color)
            ScoreLine(scores: model.updates.compactMap { $0.verdict?.smoothed ?? $0.score })
                .frame(height: 160)
            Grid(alignment: .leading, horizontalSpacing: 16, verticalSpacing: 8) {
                row("score", model.updates.last?.score.map { String(format: "%+.2f", $0) })
                row("speech in the window", (model.updates.last?.speechSeconds).map { String(format: "%.1f s", $0) })
                row("one window takes", model.updates.last?.milliseconds.map { String(format: "%.0f ms", $0) })
            }
            ProgressView(value: meter).accessibilityLabel("level of the microphone")
            button
            HStack {
                Button("Benchmark") { model.measure() }.disabled(model.phase != .ready)
                if let file = model.resultFile { ShareLink("Result", item: file) }
            }
            Text(model.line).font(.footnote).foregroundStyle(.secondary).multilineTextAlignment(.center)
        }
        .padding()
    }

    private var button: some View {
        Button(model.phase == .listening ? "Stop" : "Listen") {
            if model.phase == .listening { model.stop() } else { Task { await model.start() } }
        }
        .buttonStyle(.borderedProminent)
        .controlSize(.large)
        .disabled(model.phase == .opening || model.phase == .measuring)
    }

    private var verdict: String {
        guard let last = model.updates.last else { return "Genuine or synthetic?" }
        guard last.score != nil else { return "Not enough speech" }
        switch model.decision {
        case .bonafide: return "Sounds genuine"
        case .spoof: return "Sounds synthetic"
        case .undecided: return "Listening"
        case nil: return "Score only"
        }
    }

    private var color: Color {
        switch model.decision {
        case .bonafide: return .green
        case .spoof: return .red
        default: return .primary
        }
    }

    /// -60 to 0 dB of full scale.
    private var meter: Double {
        min(1, max(0, 1 + 10 * log10(max(model.level, 1e-9)) / 60))
    }

    private func row(_ name: String, _ value: String?) -> some View {
        GridRow {
            Text(name).foregroundStyle(.secondary)
            Text(value ?? "-").monospacedDigit()
        }
    }
}

/// The scores over time, the newest at the right edge.
struct ScoreLine: View {
    let scores: [Double]

    var body: some View {
        Canvas { context, size in
            let most = max(2, scores.map(abs).max() ?? 0)
            func point(_ index: Int) -> CGPoint {
                let x = size.width * (1 - CGFloat(scores.count - 1 - index) / 240)
                return CGPoint(x: x, y: size.height * (0.5 - 0.5 * scores[index] / most))
            }
            var zero = Path()
            zero.move(to: CGPoint(x: 0, y: size.height / 2))
            zero.addLine(to: CGPoint(x: size.width, y: size.height / 2))
            context.stroke(zero, with: .color(.secondary), lineWidth: 1)
            guard scores.count > 1 else { return }
            var line = Path()
            line.move(to: point(0))
            for index in 1..<scores.count { line.addLine(to: point(index)) }
            context.stroke(line, with: .color(.accentColor), lineWidth: 3)
        }
        .accessibilityLabel("scores over time; above the line is more likely genuine")
    }
}
