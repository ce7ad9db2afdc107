// What Sources/SpoofAudio uses of AVFAudio, declared from its documentation, to check types where there is no
// AVFAudio. A mistake of ours here hides one there.
@_exported import Foundation

public typealias AVAudioFrameCount = UInt32
public typealias AVAudioChannelCount = UInt32
public typealias AVAudioFramePosition = Int64
public typealias AVAudioNodeBus = Int
public typealias AVAudioNodeTapBlock = (AVAudioPCMBuffer, AVAudioTime) -> Void
public let AVAudioSessionInterruptionTypeKey = "type"

public class AVAudioFormat: NSObject {
    public var sampleRate: Double { fatalError() }
    public var channelCount: AVAudioChannelCount { fatalError() }
}
public class AVAudioBuffer: NSObject { public var format: AVAudioFormat { fatalError() } }
public class AVAudioPCMBuffer: AVAudioBuffer {
    public var frameLength: AVAudioFrameCount = 0
    public var floatChannelData: UnsafePointer<UnsafeMutablePointer<Float>>? { fatalError() }
}
public class AVAudioTime: NSObject {
    public var isSampleTimeValid: Bool { fatalError() }
    public var sampleTime: AVAudioFramePosition { fatalError() }
}
public class AVAudioNode: NSObject {
    public func outputFormat(forBus bus: AVAudioNodeBus) -> AVAudioFormat { fatalError() }
    public func installTap(
        onBus bus: AVAudioNodeBus, bufferSize: AVAudioFrameCount, format: AVAudioFormat?,
        block: @escaping AVAudioNodeTapBlock
    ) {}
    public func removeTap(onBus bus: AVAudioNodeBus) {}
}
public class AVAudioInputNode: AVAudioNode {}
public class AVAudioEngine: NSObject {
    public var inputNode: AVAudioInputNode { fatalError() }
    public func prepare() {}
    public func start() throws {}
    public func stop() {}
}
extension NSNotification.Name { public static let AVAudioEngineConfigurationChange = NSNotification.Name("c") }
public class AVAudioSession: NSObject {
    public struct Category { public static let record = Category() }
    public struct Mode { public static let measurement = Mode() }
    public struct CategoryOptions: OptionSet {
        public let rawValue: UInt
        public init(rawValue: UInt) { self.rawValue = rawValue }
    }
    public struct SetActiveOptions: OptionSet {
        public static let notifyOthersOnDeactivation = SetActiveOptions(rawValue: 1)
        public let rawValue: UInt
        public init(rawValue: UInt) { self.rawValue = rawValue }
    }
    public enum InterruptionType: UInt { case ended, began }
    public static let interruptionNotification = NSNotification.Name("i")
    public static let mediaServicesWereResetNotification = NSNotification.Name("m")
    public class func sharedInstance() -> AVAudioSession { fatalError() }
    public func setCategory(_ category: Category, mode: Mode, options: CategoryOptions = []) throws {}
    public func setActive(_ active: Bool, options: SetActiveOptions = []) throws {}
}
public class AVAudioApplication: NSObject {
    public class func requestRecordPermission() async -> Bool { fatalError() }
}
