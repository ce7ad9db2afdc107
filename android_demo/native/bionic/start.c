/*
 * Where the kernel and Android's linker begin a program, which else an NDK brings: hands the arguments on the stack
 * to the C library, and it calls main and exits.
 */
typedef struct {
    void (**preinit)(void), (**init)(void), (**fini)(void);
    void *more[5]; /* whatever later Androids look for; this program has nothing to call before main or after it */
} structors;

int main(int count, char **words, char **environment);
__attribute__((noreturn)) void __libc_init(void *arguments, void (*unused)(void), int (*start)(int, char **, char **),
                                           const structors *at_start_and_end);
__attribute__((noreturn, used, visibility("hidden"))) void start_main(void *arguments);

void start_main(void *arguments) {
    static const structors none;
    __libc_init(arguments, 0, main, &none);
}

#if defined(__aarch64__)
__asm__(".globl _start\n.type _start, %function\n_start:\nmov x29, #0\nmov x30, #0\nmov x0, sp\nb start_main\n");
#elif defined(__arm__)
__asm__(".arm\n.globl _start\n.type _start, %function\n_start:\nmov r11, #0\nmov lr, #0\nmov r0, sp\nbic sp, sp, #15\n"
        "bl start_main\n");
#elif defined(__x86_64__)
__asm__(".globl _start\n.type _start, @function\n_start:\nxorl %ebp, %ebp\nmovq %rsp, %rdi\nandq $-16, %rsp\n"
        "call start_main\n");
#endif
