import COnnxRuntime
import Foundation
import SpoofCore

/// Runs an ONNX file through the C API of ONNX Runtime, one thread.
final class OnnxDetector: Detector {
    let library: String
    let samples: Int
    private let api: OrtApi
    private let environment: OpaquePointer?
    private let session: OpaquePointer?
    private let memory: OpaquePointer?
    private let names: [UnsafeMutablePointer<CChar>?]

    init(_ model: VerifiedModel) throws {
        let base = try OnnxDetector.base()
        library = "onnxruntime " + String(cString: base.GetVersionString()!)
        samples = model.manifest.samples
        names = [strdup(model.manifest.input), strdup(model.manifest.output)]
        let api = base.GetApi(UInt32(ORT_API_VERSION))!.pointee
        func made(_ make: (UnsafeMutablePointer<OpaquePointer?>) -> OrtStatusPtr?) throws -> OpaquePointer? {
            var pointer: OpaquePointer?
            try OnnxDetector.check(make(&pointer), api)
            return pointer
        }
        self.api = api
        environment = try made { api.CreateEnv(ORT_LOGGING_LEVEL_ERROR, "test", $0) }
        let options = try made { api.CreateSessionOptions($0) }
        defer { api.ReleaseSessionOptions(options) }
        try OnnxDetector.check(api.SetIntraOpNumThreads(options, 1), api)
        let environment = environment
        session = try made { api.CreateSession(environment, model.url.path, options, $0) }
        memory = try made { api.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, $0) }
    }

    /// The very library that scored in Python, for the bits to be the same.
    private static func base() throws -> OrtApiBase {
        typealias GetBase = @convention(c) () -> UnsafePointer<OrtApiBase>
        let path = ProcessInfo.processInfo.environment["SPOOF_ONNX"]! + "/libonnxruntime.so"
        guard let library = dlopen(path, RTLD_NOW), let function = dlsym(library, "OrtGetApiBase") else {
            throw SpoofFailure("\(path) cannot be loaded: \(dlerror().map { String(cString: $0) } ?? "?")")
        }
        return unsafeBitCast(function, to: GetBase.self)().pointee
    }

    deinit {
        api.ReleaseMemoryInfo(memory)
        api.ReleaseSession(session)
        api.ReleaseEnv(environment)
        names.forEach { free($0) }
    }

    func score(_ window: [Float]) throws -> Double {
        var window = window
        let shape: [Int64] = [1, Int64(samples)]
        return try window.withUnsafeMutableBytes { bytes in
            var input: OpaquePointer?
            try check(
                api.CreateTensorWithDataAsOrtValue(
                    memory, bytes.baseAddress, bytes.count, shape, 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &input))
            defer { api.ReleaseValue(input) }
            var output: OpaquePointer?
            let (given, wanted) = ([UnsafePointer(names[0])], [UnsafePointer(names[1])])
            try check(api.Run(session, nil, given, [input], 1, wanted, 1, &output))
            defer { api.ReleaseValue(output) }
            var data: UnsafeMutableRawPointer?
            try check(api.GetTensorMutableData(output, &data))
            return Double(data!.load(as: Float.self))
        }
    }

    private func check(_ status: OrtStatusPtr?) throws {
        try OnnxDetector.check(status, api)
    }

    private static func check(_ status: OrtStatusPtr?, _ api: OrtApi) throws {
        guard let status else { return }
        defer { api.ReleaseStatus(status) }
        throw SpoofFailure(String(cString: api.GetErrorMessage(status)!))
    }
}
