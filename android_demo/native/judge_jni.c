/* io.antispoof.core.Judge: scores in, decisions out. */
#include <jni.h>
#include <stdlib.h>

#include "errors.h"
#include "spoof_core.h"

typedef struct {
    spoof_judge judge;
    spoof_rules rules;
} court;

static court *of(jlong handle) { return (court *)(intptr_t)handle; }

/* Returns 0 where the core refuses the rules. */
JNIEXPORT jlong JNICALL Java_io_antispoof_core_Judge_open(JNIEnv *env, jclass unused, jdouble scale, jdouble offset,
                                                          jdouble time_constant, jdouble enter, jdouble leave,
                                                          jlong min_duration) {
    court *c = calloc(1, sizeof *c);
    (void)unused;
    if (!c) {
        throw_no_memory(env);
        return 0;
    }
    c->rules = (spoof_rules){scale, offset, time_constant, enter, leave, min_duration};
    if (spoof_judge_init(&c->judge, &c->rules)) return (jlong)(intptr_t)c;
    free(c);
    return 0;
}

JNIEXPORT void JNICALL Java_io_antispoof_core_Judge_close(JNIEnv *env, jclass unused, jlong handle) {
    (void)env, (void)unused;
    free(of(handle));
}

/* Writes llr and smoothed; decision, since and changed. Returns false where the score cannot be judged. */
JNIEXPORT jboolean JNICALL Java_io_antispoof_core_Judge_update(JNIEnv *env, jclass unused, jlong handle,
                                                               jdouble score, jlong end, jdoubleArray ratios,
                                                               jlongArray decision) {
    court *c = of(handle);
    (void)unused;
    if (!spoof_judge_update(&c->judge, &c->rules, score, end)) return JNI_FALSE;
    jdouble r[] = {c->judge.llr, c->judge.smoothed};
    jlong d[] = {c->judge.decision, c->judge.since, c->judge.changed};
    (*env)->SetDoubleArrayRegion(env, ratios, 0, 2, r);
    if ((*env)->ExceptionCheck(env)) return JNI_FALSE;
    (*env)->SetLongArrayRegion(env, decision, 0, 3, d);
    return JNI_TRUE;
}
