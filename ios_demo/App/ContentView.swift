import SpoofCore
import SwiftUI
import UIKit

struct ContentView: View {
    @ObservedObject var model: ListeningModel
    @Environment(\.scenePhase) private var scene

    var body: some View {
        ScrollView { content.padding() }  // large text is longer than a screen
            .onChange(of: verdict) { _, said in AccessibilityNotification.Announcement(said).post() }
            .onChange(of: scene) { _, now in
                // iOS stops the microphone of an app that is away, and need not say so when it comes back.
                if now == .background { model.stop() }
            }
    }

    private var content: some View {
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
    }

    private var button: some View {
        Button(model.phase == .listening ? "Stop" : "Listen") {
            if model.phase == .listening { model.stop() } else { Task { await model.start() } }
        }
        .buttonStyle(.borderedProminent)
        .controlSize(.large)
        .disabled(model.phase != .ready && model.phase != .listening)
    }

    private var verdict: String {
        if model.isInterrupted { return "Interrupted" }
        guard let last = model.updates.last else {
            return model.phase == .listening ? "Listening" : "Genuine or synthetic?"
        }
        guard last.score != nil else { return "Not enough speech" }
        switch model.decision {
        case .bonafide: return "Sounds genuine"
        case .spoof: return "Sounds synthetic"
        case .undecided: return "Undecided"
        case nil: return "Score only"
        }
    }

    private var color: Color {
        switch model.isInterrupted ? nil : model.decision {
        case .bonafide: return Color(light: 0x00695c, dark: 0x63d2b7)
        case .spoof: return Color(light: 0xb3331a, dark: 0xff9475)
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

extension Color {
    /// A colour of the page in web_demo, whose contrast with the screen suffices in light and dark; the system's
    /// own green on white does not.
    init(light: Int, dark: Int) {
        self.init(
            uiColor: UIColor { traits in
                let rgb = traits.userInterfaceStyle == .dark ? dark : light
                func part(_ shift: Int) -> CGFloat { CGFloat(rgb >> shift & 255) / 255 }
                return UIColor(red: part(16), green: part(8), blue: part(0), alpha: 1)
            })
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
