import SpoofCore
import SwiftUI

@main
struct SpoofApp: App {
    @StateObject private var model = ListeningModel()

    var body: some Scene {
        WindowGroup {
            ContentView(model: model)
                .task {
                    if await answerRunner() { exit(0) }
                    await model.open()
                }
        }
    }

    /// Where benchmarks/on_device.py started the app: answers on the console. Returns whether it did.
    private func answerRunner() async -> Bool {
        do {
            guard let asked = try RunnerArguments(CommandLine.arguments) else { return false }
            print("ANTISPOOF-THERMAL \(thermalState().name)")
            print(try await DeviceBenchmark.answer(asked).line)
            print("ANTISPOOF-THERMAL \(thermalState().name)")
            return true
        } catch {
            print("failed: \(error.localizedDescription)")
            exit(1)
        }
    }
}
