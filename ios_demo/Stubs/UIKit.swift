// What App uses of UIKit beside SwiftUI, declared from its documentation, to check types where there is no UIKit. A
// mistake of ours here hides one there.
@_exported import Foundation

@MainActor public class UIDevice: NSObject {
    public class var current: UIDevice { fatalError() }
    public var model: String { fatalError() }
    public var systemVersion: String { fatalError() }
}
@MainActor public class UIApplication: NSObject {
    public class var shared: UIApplication { fatalError() }
    public var isIdleTimerDisabled = false
}
extension ProcessInfo {
    public enum ThermalState: Int { case nominal, fair, serious, critical }
    public var thermalState: ThermalState { fatalError() }
}
