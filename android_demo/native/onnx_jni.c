/* io.antispoof.core.OnnxScorer: one window in, one score out, through the C interface of ONNX Runtime. */
#include <jni.h>
#include <stdlib.h>

#include "errors.h"
#include "onnx_session.h"

static session *of(jlong handle) { return (session *)(intptr_t)handle; }

JNIEXPORT jlong JNICALL Java_io_antispoof_core_OnnxScorer_open(JNIEnv *env, jclass unused, jbyteArray model,
                                                               jstring input, jstring output, jint samples,
                                                               jint threads) {
    jlong handle = 0;
    const char *in = (*env)->GetStringUTFChars(env, input, NULL);
    const char *out = in ? (*env)->GetStringUTFChars(env, output, NULL) : NULL;
    jbyte *bytes = out ? (*env)->GetByteArrayElements(env, model, NULL) : NULL;
    (void)unused;
    if (bytes) {
        failure why = {{0}};
        session *s = session_open(bytes, (size_t)(*env)->GetArrayLength(env, model), in, out, samples, threads, &why);
        (*env)->ReleaseByteArrayElements(env, model, bytes, JNI_ABORT);
        if (s)
            handle = (jlong)(intptr_t)s;
        else
            throw_failure(env, "ONNX Runtime cannot open the model", why.text);
    }
    if (out) (*env)->ReleaseStringUTFChars(env, output, out);
    if (in) (*env)->ReleaseStringUTFChars(env, input, in);
    return handle;
}

JNIEXPORT jfloat JNICALL Java_io_antispoof_core_OnnxScorer_run(JNIEnv *env, jclass unused, jlong handle,
                                                               jfloatArray window) {
    session *s = of(handle);
    failure why = {{0}};
    float score = 0;
    (void)unused;
    (*env)->GetFloatArrayRegion(env, window, 0, session_samples(s), session_input(s));
    if ((*env)->ExceptionCheck(env)) return 0;
    if (!session_run(s, &score, &why)) throw_failure(env, "ONNX Runtime cannot run the model", why.text);
    return score;
}

JNIEXPORT void JNICALL Java_io_antispoof_core_OnnxScorer_close(JNIEnv *env, jclass unused, jlong handle) {
    (void)env, (void)unused;
    session_close(of(handle));
}

JNIEXPORT jstring JNICALL Java_io_antispoof_core_OnnxScorer_runtimeVersion(JNIEnv *env, jclass unused) {
    (void)unused;
    return (*env)->NewStringUTF(env, session_runtime_version());
}
