/* See stdlib.h. */
#ifndef ANTISPOOF_STRING_H
#define ANTISPOOF_STRING_H

#include <stddef.h>

void *memcpy(void *to, const void *from, size_t count);
int strcmp(const char *a, const char *b);
size_t strlen(const char *text);

#endif
