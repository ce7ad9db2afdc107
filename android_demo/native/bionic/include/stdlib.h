/* As much of Android's C library as native/ uses, for a compiler without an NDK. See ../libc.c. */
#ifndef ANTISPOOF_STDLIB_H
#define ANTISPOOF_STDLIB_H

#include <stddef.h>

void *malloc(size_t bytes);
void *calloc(size_t count, size_t bytes);
void free(void *memory);
long strtol(const char *text, char **end, int base);
__attribute__((noreturn)) void exit(int code);

#endif
