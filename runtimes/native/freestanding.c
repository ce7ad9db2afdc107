/* What compilers call without being asked, for targets that have no C library: WebAssembly. */
#include "internal.h"

#if defined(__wasm__)
void *memcpy(void *to, const void *from, size_t count) { return memmove(to, from, count); }

void *memmove(void *to, const void *from, size_t count) {
    volatile unsigned char *target = to; /* volatile, or this becomes a call to itself */
    const unsigned char *source = from;
    if ((uintptr_t)to < (uintptr_t)from)
        for (size_t i = 0; i < count; i++) target[i] = source[i];
    else
        while (count--) target[count] = source[count];
    return to;
}

void *memset(void *to, int value, size_t count) {
    volatile unsigned char *target = to;
    for (size_t i = 0; i < count; i++) target[i] = (unsigned char)value;
    return to;
}
#endif
