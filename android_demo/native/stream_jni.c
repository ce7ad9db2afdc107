/* io.antispoof.core.SpeechStream: microphone samples in, windows out. */
#include <jni.h>
#include <stdlib.h>

#include "errors.h"
#include "spoof_core.h"

#define CHUNK 4096    /* samples copied from Java at a time */
#define ALIGNMENT 16  /* of the core's memory; malloc of a 32-bit phone gives 8 */
#define EVENT_LONGS 7

typedef struct {
    spoof_stream *stream;
    void *memory;
    float *window;
    jint samples, channels;
    int16_t pcm[CHUNK];
} listener;

static listener *of(jlong handle) { return (listener *)(intptr_t)handle; }

static void discard(listener *l) {
    if (!l) return;
    free(l->memory);
    free(l->window);
    free(l);
}

static listener *make(const spoof_config *config, size_t size) {
    listener *l = calloc(1, sizeof *l);
    if (!l) return NULL;
    l->samples = config->window;
    l->channels = config->channels;
    l->memory = malloc(size + ALIGNMENT);
    l->window = malloc((size_t)config->window * sizeof *l->window);
    if (l->memory && l->window) {
        uintptr_t aligned = ((uintptr_t)l->memory + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1);
        l->stream = spoof_stream_init((void *)aligned, size, config);
    }
    if (l->stream) return l;
    discard(l);
    return NULL;
}

/* Returns 0 where the core refuses the configuration. */
JNIEXPORT jlong JNICALL Java_io_antispoof_core_SpeechStream_open(JNIEnv *env, jclass unused, jint rate, jint channels,
                                                                 jint window, jint hop, jint first, jint min_speech,
                                                                 jboolean gate, jint lead_in, jint hang_over,
                                                                 jint pause, jfloat margin_db, jfloat least_db) {
    spoof_config c = {rate, channels, window, hop, first, min_speech, gate ? 1 : 0, lead_in, hang_over, pause,
                      margin_db, least_db};
    size_t size = spoof_stream_size(&c);
    (void)unused;
    if (!size) return 0;
    listener *l = make(&c, size);
    if (!l) throw_no_memory(env);
    return (jlong)(intptr_t)l;
}

JNIEXPORT void JNICALL Java_io_antispoof_core_SpeechStream_close(JNIEnv *env, jclass unused, jlong handle) {
    (void)env, (void)unused;
    discard(of(handle));
}

/* Returns how many of the frames were taken, at least one unless events wait; -1 after the end. */
JNIEXPORT jint JNICALL Java_io_antispoof_core_SpeechStream_push(JNIEnv *env, jclass unused, jlong handle,
                                                                jshortArray pcm, jint from, jint frames) {
    listener *l = of(handle);
    jint most = CHUNK / l->channels, count = frames < most ? frames : most;
    (void)unused;
    (*env)->GetShortArrayRegion(env, pcm, from * l->channels, count * l->channels, l->pcm);
    if ((*env)->ExceptionCheck(env)) return 0;
    return spoof_stream_push_pcm16(l->stream, l->pcm, count);
}

JNIEXPORT jint JNICALL Java_io_antispoof_core_SpeechStream_gap(JNIEnv *env, jclass unused, jlong handle,
                                                               jlong frames) {
    (void)env, (void)unused;
    return spoof_stream_gap(of(handle)->stream, frames);
}

JNIEXPORT void JNICALL Java_io_antispoof_core_SpeechStream_end(JNIEnv *env, jclass unused, jlong handle) {
    (void)env, (void)unused;
    spoof_stream_finish(of(handle)->stream);
}

/* Writes kind, samples, start, end, speech, turn and position; and the window, where there is one. */
JNIEXPORT jboolean JNICALL Java_io_antispoof_core_SpeechStream_next(JNIEnv *env, jclass unused, jlong handle,
                                                                    jfloatArray window, jlongArray event) {
    listener *l = of(handle);
    spoof_event e;
    (void)unused;
    if (!spoof_stream_next(l->stream, l->window, &e)) return JNI_FALSE;
    jlong told[EVENT_LONGS] = {e.kind, e.samples, e.start, e.end, e.speech, e.turn, e.position};
    (*env)->SetLongArrayRegion(env, event, 0, EVENT_LONGS, told);
    if ((*env)->ExceptionCheck(env)) return JNI_FALSE;
    if (e.kind == SPOOF_WINDOW) (*env)->SetFloatArrayRegion(env, window, 0, l->samples, l->window);
    return JNI_TRUE;
}

JNIEXPORT jlong JNICALL Java_io_antispoof_core_SpeechStream_time(JNIEnv *env, jclass unused, jlong handle) {
    (void)env, (void)unused;
    return spoof_stream_time(of(handle)->stream);
}

JNIEXPORT jdouble JNICALL Java_io_antispoof_core_SpeechStream_power(JNIEnv *env, jclass unused, jlong handle) {
    (void)env, (void)unused;
    return spoof_stream_power(of(handle)->stream);
}
