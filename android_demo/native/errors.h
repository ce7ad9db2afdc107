/* How native code tells Java that it failed: by exceptions whose message is one plain line. */
#ifndef ANTISPOOF_ERRORS_H
#define ANTISPOOF_ERRORS_H

#include <jni.h>

/* Throws io.antispoof.core.ScorerException; what is not printable ASCII in the message becomes '?'. */
void throw_failure(JNIEnv *env, const char *what, const char *detail);

/* Throws OutOfMemoryError. */
void throw_no_memory(JNIEnv *env);

#endif
