// What App uses of Combine, declared from its documentation, to check types where there is no Combine. A mistake
// of ours here hides one there.
public protocol ObservableObject: AnyObject {}
@propertyWrapper public struct Published<Value> {
    public var wrappedValue: Value
    public init(wrappedValue: Value) { self.wrappedValue = wrappedValue }
}
