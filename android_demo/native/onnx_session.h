/* A model file in ONNX Runtime that takes one window and gives one score. Knows nothing of Java. */
#ifndef ANTISPOOF_ONNX_SESSION_H
#define ANTISPOOF_ONNX_SESSION_H

#include <stddef.h>
#include <stdint.h>

typedef struct session session;

typedef struct {
    char text[256]; /* why, empty where nothing failed */
} failure;

/*
 * Returns a session for the bytes of an ONNX file, which may go afterwards; NULL, and why, where they are no
 * model, or its input and output are not float (1, samples) and float (1) of these names.
 */
session *session_open(const void *model, size_t bytes, const char *input, const char *output, int32_t samples,
                      int32_t threads, failure *why);
/* Where a window is put before `session_run`. */
float *session_input(session *s);
int32_t session_samples(const session *s);
/* Returns 1 and the score, or 0 and why. */
int session_run(session *s, float *score, failure *why);
void session_close(session *s);
const char *session_runtime_version(void);

#endif
