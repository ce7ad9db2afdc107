#include "errors.h"

#include <string.h>

#define ROOM 320

/* Java takes messages as modified UTF-8 only, and a runtime's text may be cut in the middle of a character. */
static size_t append(char *line, size_t used, const char *text) {
    for (; *text && used + 1 < ROOM; text++) line[used++] = *text >= 32 && *text < 127 ? *text : '?';
    line[used] = 0;
    return used;
}

static void throw_new(JNIEnv *env, const char *name, const char *message) {
    jclass kind = (*env)->FindClass(env, name);
    if (kind) (*env)->ThrowNew(env, kind, message);
}

void throw_failure(JNIEnv *env, const char *what, const char *detail) {
    char line[ROOM];
    size_t used = append(line, 0, what);
    if (detail) append(line, append(line, used, ": "), detail);
    throw_new(env, "io/antispoof/core/ScorerException", line);
}

void throw_no_memory(JNIEnv *env) { throw_new(env, "java/lang/OutOfMemoryError", "no memory for the detector"); }
