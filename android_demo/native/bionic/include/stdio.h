/* See stdlib.h. FILE is never looked into, and neither stdout nor stderr is named. */
#ifndef ANTISPOOF_STDIO_H
#define ANTISPOOF_STDIO_H

#include <stddef.h>

#define SEEK_SET 0
#define SEEK_END 2

typedef struct __sFILE FILE;

FILE *fopen(const char *path, const char *mode);
size_t fread(void *to, size_t size, size_t count, FILE *file);
int fseek(FILE *file, long offset, int from);
long ftell(FILE *file);
int fclose(FILE *file);
int printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
int dprintf(int descriptor, const char *format, ...) __attribute__((format(printf, 2, 3)));
int snprintf(char *to, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
