/* See stdlib.h. */
#ifndef ANTISPOOF_STRING_H
#define ANTISPOOF_STRING_H

#include <stddef.h>

void *memcpy(void *to, const void *from, size_t count);
int memcmp(const void *a, const void *b, size_t count);
void *memchr(const void *memory, int byte, size_t count);
int strcmp(const char *a, const char *b);
size_t strlen(const char *text);
size_t strcspn(const char *text, const char *end);
char *strstr(const char *text, const char *wanted);

#endif
