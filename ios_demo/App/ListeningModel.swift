import Combine
import Foundation
import SpoofAudio
import SpoofCore
import UIKit

/// What the screen shows.
@MainActor
final class ListeningModel: ObservableObject {
    enum Phase: Equatable { case opening, ready, starting, listening, measuring }

    @Published private(set) var phase = Phase.opening {
        // A phone that locks itself takes the microphone away, and throttles.
        didSet { UIApplication.shared.isIdleTimerDisabled = phase == .listening || phase == .measuring }
    }
    @Published private(set) var updates: [Update] = []
    @Published private(set) var level = 0.0
    /// Whether a call or another app has the microphone while this one listens.
    @Published private(set) var isInterrupted = false
    @Published private(set) var line = "opening the detector"
    @Published private(set) var resultFile: URL?
    private var opened: OpenedDetector?
    private var capture: Capture?

    /// The last decision, or nil where there is none yet or the model has nothing to decide by.
    var decision: Decision? { updates.last?.verdict?.decision }

    func open() async {
        do {
            let opened = try await DeviceBenchmark.open()
            self.opened = opened
            let model = opened.model.manifest
            let difference = String(format: "%.0e", opened.goldenDifference)
            line = "\(model.model), version \(model.version), signed; golden scores within \(difference)"
            phase = .ready
        } catch {
            line = error.localizedDescription
        }
    }

    func start() async {
        guard phase == .ready, let opened else { return }
        phase = .starting  // who presses again while the system asks starts no second one
        guard await Microphone.isAllowed() else {
            line = "the microphone is not allowed; Settings, Privacy, Microphone"
            phase = .ready
            return
        }
        do {
            let capture = try Capture(Microphone())
            let listener = try Listener(capture, opened.detector, opened.model.manifest)
            try capture.start()
            self.capture = capture
            updates = []
            phase = .listening
            Thread.detachNewThread { [weak self] in
                let ending = ListeningModel.listen(listener) { update in
                    Task { @MainActor in self?.show(update) }
                } level: { power in
                    Task { @MainActor in self?.level = power }
                } interrupted: { away in
                    Task { @MainActor in self?.interrupted(away) }
                }
                Task { @MainActor in self?.ended(ending) }
            }
        } catch {
            line = error.localizedDescription
            phase = .ready
        }
    }

    func stop() {
        capture?.stop()
    }

    func measure() {
        guard phase == .ready, let opened else { return }
        phase = .measuring
        let device = DeviceBenchmark.device()
        Thread.detachNewThread { [weak self] in
            let result = Result {
                try DeviceBenchmark.resultFile(opened, device: device) { said in
                    Task { @MainActor in self?.line = said }
                }
            }
            Task { @MainActor in
                self?.phase = .ready
                switch result {
                case .success(let url):
                    self?.resultFile = url
                    self?.line = "measured; share the result"
                case .failure(let error): self?.line = error.localizedDescription
                }
            }
        }
    }

    private nonisolated static func listen(
        _ listener: Listener, _ tell: (Update) -> Void, level: (Double) -> Void, interrupted: (Bool) -> Void
    ) -> String {
        do {
            try listener.run(level: level, interrupted: interrupted, tell)
            return listener.lostFrames == 0 ? "stopped" : "stopped; \(listener.lostFrames) frames were lost"
        } catch {
            return error.localizedDescription
        }
    }

    private func show(_ update: Update) {
        updates.append(update)
        if updates.count > 240 { updates.removeFirst() }
    }

    private func interrupted(_ away: Bool) {
        isInterrupted = away
        if away { level = 0 }
        line =
            away
            ? "a call or another app has the microphone; listening goes on when it is free"
            : "listening again, after an interruption"
    }

    private func ended(_ sentence: String) {
        isInterrupted = false
        capture?.stop()
        capture = nil
        level = 0
        line = sentence
        phase = .ready
    }
}
