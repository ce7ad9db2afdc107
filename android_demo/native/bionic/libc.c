/*
 * Names for the linker: what Android's libc.so gives to native/. Linked as libc.so, shipped never; on the phone the
 * real one takes its place. A name that is missing here fails the build, and not the app when it starts.
 */
#define EXISTS(name) \
    void name(void); \
    void name(void) {}

EXISTS(malloc)
EXISTS(calloc)
EXISTS(free)
EXISTS(memcpy)
EXISTS(memmove)
EXISTS(memset)
EXISTS(strcmp)
EXISTS(strlen)
EXISTS(__stack_chk_fail)
/* Of native/runner alone. */
EXISTS(__libc_init)
EXISTS(clock_gettime)
EXISTS(dprintf)
EXISTS(exit)
EXISTS(fclose)
EXISTS(fopen)
EXISTS(fread)
EXISTS(fseek)
EXISTS(ftell)
EXISTS(memchr)
EXISTS(memcmp)
EXISTS(printf)
EXISTS(snprintf)
EXISTS(strcspn)
EXISTS(strstr)
EXISTS(strtol)
#if defined(__arm__)
EXISTS(__aeabi_memcpy)
EXISTS(__aeabi_memcpy4)
EXISTS(__aeabi_memcpy8)
EXISTS(__aeabi_memmove)
EXISTS(__aeabi_memmove4)
EXISTS(__aeabi_memmove8)
EXISTS(__aeabi_memset)
EXISTS(__aeabi_memset4)
EXISTS(__aeabi_memset8)
EXISTS(__aeabi_memclr)
EXISTS(__aeabi_memclr4)
EXISTS(__aeabi_memclr8)
EXISTS(raise) /* of a division by zero, in libgcc */
void *__stack_chk_guard;
#endif
