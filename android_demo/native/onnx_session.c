#include "onnx_session.h"

#include <stdlib.h>
#include <string.h>

#include "onnxruntime_c_api.h"

#define MAX_RANK 4

struct session {
    const OrtApi *api;
    OrtEnv *env;
    OrtSessionOptions *options;
    OrtSession *session;
    OrtMemoryInfo *memory;
    OrtValue *tensor; /* over `input` */
    float *input;
    int32_t samples;
    char *input_name, *output_name;
};

static int fail(failure *why, const char *text) {
    size_t length = strlen(text);
    if (length >= sizeof why->text) length = sizeof why->text - 1;
    memcpy(why->text, text, length);
    why->text[length] = 0;
    return 0;
}

/* Returns 1 where the call succeeded; else 0, and why. */
static int done(const OrtApi *api, OrtStatus *status, failure *why) {
    if (!status) return 1;
    fail(why, api->GetErrorMessage(status));
    api->ReleaseStatus(status);
    return 0;
}

static char *copy_of(const char *text) {
    size_t bytes = strlen(text) + 1;
    char *copy = malloc(bytes);
    if (copy) memcpy(copy, text, bytes);
    return copy;
}

/* Whether a shape is `wanted`; -1 in the file stands for any size. */
static int same_shape(const int64_t *shape, size_t rank, const int64_t *wanted, size_t wanted_rank) {
    if (rank != wanted_rank) return 0;
    for (size_t i = 0; i < rank; i++)
        if (shape[i] != wanted[i] && shape[i] != -1) return 0;
    return 1;
}

static int is_float_of(const OrtApi *api, OrtTypeInfo *info, const int64_t *wanted, size_t wanted_rank, failure *why) {
    const OrtTensorTypeAndShapeInfo *tensor = NULL;
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    int64_t shape[MAX_RANK];
    size_t rank = 0;
    if (!done(api, api->CastTypeInfoToTensorInfo(info, &tensor), why)) return 0;
    if (!tensor) return fail(why, "it takes or gives something that is no tensor");
    if (!done(api, api->GetTensorElementType(tensor, &type), why)) return 0;
    if (!done(api, api->GetDimensionsCount(tensor, &rank), why)) return 0;
    if (rank > MAX_RANK) return fail(why, "its input or output has not the shape that its manifest says");
    if (!done(api, api->GetDimensions(tensor, shape, rank), why)) return 0;
    if (type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT || !same_shape(shape, rank, wanted, wanted_rank))
        return fail(why, "its input or output has not the shape that its manifest says");
    return 1;
}

static int check_name(const OrtApi *api, OrtStatus *status, char *name, OrtAllocator *allocator, const char *wanted,
                      failure *why) {
    if (!done(api, status, why)) return 0;
    int same = strcmp(name, wanted) == 0;
    if (!done(api, api->AllocatorFree(allocator, name), why)) return 0;
    return same ? 1 : fail(why, "its input or output has not the name that its manifest says");
}

/* Refuses a graph that is not what the manifest promises. */
static int check_interface(session *s, failure *why) {
    const OrtApi *api = s->api;
    OrtAllocator *allocator = NULL;
    size_t inputs = 0, outputs = 0;
    char *name = NULL;
    if (!done(api, api->GetAllocatorWithDefaultOptions(&allocator), why)) return 0;
    if (!done(api, api->SessionGetInputCount(s->session, &inputs), why)) return 0;
    if (!done(api, api->SessionGetOutputCount(s->session, &outputs), why)) return 0;
    if (inputs != 1 || outputs != 1) return fail(why, "it has more than one input or output");
    OrtStatus *status = api->SessionGetInputName(s->session, 0, allocator, &name);
    if (!check_name(api, status, name, allocator, s->input_name, why)) return 0;
    status = api->SessionGetOutputName(s->session, 0, allocator, &name);
    if (!check_name(api, status, name, allocator, s->output_name, why)) return 0;

    const int64_t clip[] = {1, s->samples}, score[] = {1};
    OrtTypeInfo *info = NULL;
    if (!done(api, api->SessionGetInputTypeInfo(s->session, 0, &info), why)) return 0;
    int right = is_float_of(api, info, clip, 2, why);
    api->ReleaseTypeInfo(info);
    if (!right || !done(api, api->SessionGetOutputTypeInfo(s->session, 0, &info), why)) return 0;
    right = is_float_of(api, info, score, 1, why);
    api->ReleaseTypeInfo(info);
    return right;
}

/* As runtimes/ort.py sets it up, memory pattern included, for the same scores in the same memory. */
static int start(session *s, const void *model, size_t bytes, int32_t threads, failure *why) {
    const OrtApi *api = s->api;
    const int64_t clip[] = {1, s->samples};
    size_t room = (size_t)s->samples * sizeof *s->input;
    return done(api, api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "antispoof", &s->env), why) &&
           done(api, api->CreateSessionOptions(&s->options), why) &&
           done(api, api->SetIntraOpNumThreads(s->options, threads), why) &&
           done(api, api->SetInterOpNumThreads(s->options, 1), why) &&
           done(api, api->DisableMemPattern(s->options), why) &&
           done(api, api->CreateSessionFromArray(s->env, model, bytes, s->options, &s->session), why) &&
           check_interface(s, why) &&
           done(api, api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &s->memory), why) &&
           done(api,
                api->CreateTensorWithDataAsOrtValue(s->memory, s->input, room, clip, 2,
                                                    ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &s->tensor),
                why);
}

session *session_open(const void *model, size_t bytes, const char *input, const char *output, int32_t samples,
                      int32_t threads, failure *why) {
    session *s = calloc(1, sizeof *s);
    if (!s) return fail(why, "no memory"), NULL;
    s->api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    s->samples = samples;
    s->input = calloc((size_t)samples, sizeof *s->input);
    s->input_name = copy_of(input);
    s->output_name = copy_of(output);
    if (!s->api)
        fail(why, "the ONNX Runtime library is older than this app");
    else if (!s->input || !s->input_name || !s->output_name)
        fail(why, "no memory");
    else if (start(s, model, bytes, threads, why))
        return s;
    session_close(s);
    return NULL;
}

float *session_input(session *s) { return s->input; }

int32_t session_samples(const session *s) { return s->samples; }

/* Whether a run gave one value; the file may leave that open, and none would be read from nowhere. */
static int is_one_value(const OrtApi *api, const OrtValue *result, failure *why) {
    OrtTensorTypeAndShapeInfo *info = NULL;
    size_t count = 0;
    if (!done(api, api->GetTensorTypeAndShape(result, &info), why)) return 0;
    int right = done(api, api->GetTensorShapeElementCount(info, &count), why);
    api->ReleaseTensorTypeAndShapeInfo(info);
    return right && (count == 1 || fail(why, "it gave more or fewer scores than the one of its window"));
}

int session_run(session *s, float *score, failure *why) {
    const OrtApi *api = s->api;
    const char *inputs[] = {s->input_name}, *outputs[] = {s->output_name};
    const OrtValue *given[] = {s->tensor};
    OrtValue *result = NULL;
    float *value = NULL;
    if (!done(api, api->Run(s->session, NULL, inputs, given, 1, outputs, 1, &result), why)) return 0;
    int right = is_one_value(api, result, why) && done(api, api->GetTensorMutableData(result, (void **)&value), why);
    if (right) *score = *value;
    api->ReleaseValue(result);
    return right;
}

void session_close(session *s) {
    if (!s) return;
    if (s->tensor) s->api->ReleaseValue(s->tensor);
    if (s->memory) s->api->ReleaseMemoryInfo(s->memory);
    if (s->session) s->api->ReleaseSession(s->session);
    if (s->options) s->api->ReleaseSessionOptions(s->options);
    if (s->env) s->api->ReleaseEnv(s->env);
    free(s->input);
    free(s->input_name);
    free(s->output_name);
    free(s);
}

const char *session_runtime_version(void) { return OrtGetApiBase()->GetVersionString(); }
