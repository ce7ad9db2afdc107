#if canImport(AVFAudio) && !os(macOS)
    import AVFAudio
    import Foundation
    import SpoofCore

    /// The phone's microphone with as little processing as iOS allows: `.record` and `.measurement`, since
    /// noise suppression and automatic gain remove what a detector listens for.
    public final class Microphone: PcmSource {
        private static let bufferSeconds = 0.1
        public private(set) var rate: Int
        public private(set) var channels: Int
        private let engine = AVAudioEngine()
        private var observers: [NSObjectProtocol] = []
        private var tell: ((SourceEvent) -> Void)?
        private var interruptedAt: Date?

        /// Asks the person for permission, the first time with a dialogue.
        public static func isAllowed() async -> Bool {
            await AVAudioApplication.requestRecordPermission()
        }

        public init() throws {
            let session = AVAudioSession.sharedInstance()
            do {
                try session.setCategory(.record, mode: .measurement, options: [])
                try session.setActive(true, options: [])
            } catch {
                throw SpoofFailure("the microphone is not to be had: \(error.localizedDescription)")
            }
            let format = engine.inputNode.outputFormat(forBus: 0)
            rate = Int(format.sampleRate)
            channels = Int(format.channelCount)
            guard rate > 0, channels > 0 else {
                try? session.setActive(false, options: [.notifyOthersOnDeactivation])
                throw SpoofFailure("there is no microphone; connect one")
            }
        }

        public func start(_ tell: @escaping (SourceEvent) -> Void) throws {
            self.tell = tell
            let size = AVAudioFrameCount(Double(rate) * Microphone.bufferSeconds)
            engine.inputNode.installTap(onBus: 0, bufferSize: size, format: nil) { buffer, time in
                let samples = interleaved(buffer)
                tell(.samples(samples, at: time.isSampleTimeValid ? Int(time.sampleTime) : nil))
            }
            observe()
            engine.prepare()
            do {
                try engine.start()
            } catch {
                stop()
                throw SpoofFailure("the microphone cannot be started: \(error.localizedDescription)")
            }
        }

        public func stop() {
            observers.forEach(NotificationCenter.default.removeObserver)
            observers = []
            engine.inputNode.removeTap(onBus: 0)
            engine.stop()
            try? AVAudioSession.sharedInstance().setActive(false, options: [.notifyOthersOnDeactivation])
            tell = nil
        }

        private func observe() {
            func on(_ name: Notification.Name, of object: Any? = nil, _ act: @escaping @Sendable (Notification) -> Void) {
                let center = NotificationCenter.default
                observers.append(center.addObserver(forName: name, object: object, queue: nil, using: act))
            }
            on(AVAudioSession.interruptionNotification) { [weak self] in self?.interruption($0) }
            on(AVAudioSession.mediaServicesWereResetNotification) { [weak self] _ in
                self?.tell?(.failed(SpoofFailure("the phone restarted its audio; start listening again")))
            }
            on(.AVAudioEngineConfigurationChange, of: engine) { [weak self] _ in
                // Another microphone, perhaps with another rate: a listener of the old one would mishear it.
                self?.tell?(.failed(SpoofFailure("the microphone changed; start listening again")))
            }
        }

        private func interruption(_ notification: Notification) {
            guard let raw = notification.userInfo?[AVAudioSessionInterruptionTypeKey] as? UInt,
                let type = AVAudioSession.InterruptionType(rawValue: raw)
            else { return }
            if type == .began {
                interruptedAt = Date()
                tell?(.interrupted)
                return
            }
            do {
                try AVAudioSession.sharedInstance().setActive(true, options: [])
                try engine.start()
                let seconds = interruptedAt.map { Date().timeIntervalSince($0) } ?? 0
                tell?(.resumed(lost: Int(seconds * Double(rate))))
            } catch {
                tell?(.failed(SpoofFailure("the microphone did not come back: \(error.localizedDescription)")))
            }
        }
    }

    /// Returns the frames of a buffer one behind the other.
    private func interleaved(_ buffer: AVAudioPCMBuffer) -> [Float] {
        guard let data = buffer.floatChannelData else { return [] }
        let channels = Int(buffer.format.channelCount)
        let frames = Int(buffer.frameLength)
        var samples = [Float](repeating: 0, count: frames * channels)
        for channel in 0..<channels {
            for frame in 0..<frames {
                samples[frame * channels + channel] = data[channel][frame]
            }
        }
        return samples
    }
#endif
