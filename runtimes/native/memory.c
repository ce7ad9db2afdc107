/* Parts laid out one behind the other in memory that the caller gave. */
#include "internal.h"

size_t spoof_align(size_t bytes) { return (bytes + SPOOF_ALIGN - 1) / SPOOF_ALIGN * SPOOF_ALIGN; }

int spoof_memory_fits(const void *memory, size_t bytes, size_t needed) {
    return memory && needed && bytes >= needed && (uintptr_t)memory % SPOOF_ALIGN == 0;
}
