/*
 * What Android's C library has and glibc has not, as far as ONNX Runtime for Android and the runner use it: linked as
 * libc.so, so that both run on a desktop, and their scores can be checked without a phone. Never shipped.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

char __sF[3 * 256]; /* stdin, stdout and stderr of Android; nothing is written to them here */

/* Found before glibc's own. What Android's libraries want to do at the end is for Android's files; there are none. */
void exit(int code) {
    fflush(NULL);
    _exit(code);
}

/* `arguments` lie as the kernel puts them: how many words, the words, 0, the environment. */
void __libc_init(void *arguments, void (*unused)(void), int (*start)(int, char **, char **), const void *structors) {
    long count = *(long *)arguments;
    char **words = (char **)arguments + 1;
    (void)unused, (void)structors;
    exit(start((int)count, words, words + count + 1));
}

int *__errno(void) { return &errno; }

char *__gnu_strerror_r(int number, char *buffer, size_t size) { return strerror_r(number, buffer, size); }

size_t __strlen_chk(const char *text, size_t size) {
    (void)size;
    return strlen(text);
}

int __system_property_get(const char *name, char *value) {
    (void)name;
    *value = 0;
    return 0;
}

void android_set_abort_message(const char *message) { fprintf(stderr, "aborts: %s\n", message); }

int __android_log_write(int priority, const char *tag, const char *text) {
    (void)priority;
    return fprintf(stderr, "%s: %s\n", tag, text);
}

int __android_log_vprint(int priority, const char *tag, const char *format, va_list values) {
    (void)priority;
    fprintf(stderr, "%s: ", tag);
    return vfprintf(stderr, format, values);
}

int __android_log_print(int priority, const char *tag, const char *format, ...) {
    va_list values;
    va_start(values, format);
    int written = __android_log_vprint(priority, tag, format, values);
    va_end(values);
    return written;
}
