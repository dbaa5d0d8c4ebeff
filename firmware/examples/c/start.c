/* Start-up of a Cortex-M4F: vectors, data, floating-point unit, and paint on the stack to see how deep it gets. */
#include <stdint.h>

extern uint32_t data_start[], data_end[], data_load[], bss_start[], bss_end[], stack_bottom[], stack_top[];
extern int main(void);

__attribute__((noreturn)) void fault(void)
{
    register uint32_t r0 __asm__("r0") = 0x18;
    register uint32_t r1 __asm__("r1") = 0x20023;
    __asm__ volatile("bkpt 0xAB" : : "r"(r0), "r"(r1));
    for (;;) {
    }
}

__attribute__((noreturn, naked)) void reset(void)
{
    /* No stack is used before it is painted. */
    __asm__ volatile("ldr r0, =stack_bottom\n"
                     "ldr r1, =stack_top\n"
                     "ldr r2, =0xA5A5A5A5\n"
                     "1: cmp r0, r1\n"
                     "bhs 2f\n"
                     "str r2, [r0], #4\n"
                     "b 1b\n"
                     "2: b start\n");
}

__attribute__((noreturn, used)) void start(void)
{
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20;
    __asm__ volatile("dsb\nisb");
    for (volatile uint32_t *to = data_start, *from = data_load; to < data_end;) {
        *to++ = *from++;
    }
    for (volatile uint32_t *to = bss_start; to < bss_end;) {
        *to++ = 0;
    }
    main();
    fault();
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    stack_top, (const void *)reset, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault, (const void *)fault,
};

__asm__(".section .rodata.model, \"a\"\n"
        ".global model, model_end\n"
        ".balign 4096\n"
        "model: .incbin \"" MODEL "\"\n"
        "model_end: .byte 0\n"
        ".previous\n");
