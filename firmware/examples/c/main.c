/* Loads a deployable that is part of the image, runs its self-test and one inference, and says so by semihosting. */
#include "../../include/shiftwise.h"

extern const uint8_t model[];
extern const uint8_t model_end[];
extern uint32_t stack_bottom[];
extern uint32_t stack_top[];

#define PAINT 0xA5A5A5A5u

static uint8_t arena[ARENA_BYTES] __attribute__((aligned(16)));
static sw_network network;

static int semihost(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void print(const char *text)
{
    semihost(0x04, text);
}

static void print_number(size_t number)
{
    char text[12];
    char *at = text + sizeof text - 1;
    *at = '\0';
    do {
        *--at = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    print(at);
}

static void leave(uint32_t reason)
{
    semihost(0x18, (const void *)(uintptr_t)reason);
    for (;;) {
    }
}

static void check(const char *what, uint8_t error)
{
    if (error == 0) {
        return;
    }
    print(what);
    print(": ");
    print(sw_error_text(error));
    print("\n");
    leave(0x20023); /* run-time error */
}

int main(void)
{
    size_t bytes = (size_t)(model_end - model);
    bool done = false;
    sw_tensor input;

    if (sw_version() != SW_VERSION) {
        print("the library does not fit the header\n");
        leave(0x20023);
    }
    print("arena bytes: ");
    print_number(sw_arena_bytes(model, bytes));
    print("\n");
    check("open", sw_open(&network, model, bytes, arena, sizeof arena));
    while (!done) {
        check("self-test", sw_self_test_step(&network, &done));
    }
    print("self-test passed\n");

    check("input", sw_input(&network, 0, &input));
    for (size_t i = 0; i < input.elements; i++) {
        input.data[i] = 0;
    }
    check("run", sw_run(&network));

    /* What must fail does, and says why. */
    if (sw_open(&network, model, bytes - 1, arena, sizeof arena) != 1 || sw_run(&network) != SW_ERROR_HANDLE) {
        print("a damaged deployable was taken\n");
        leave(0x20023);
    }
    const uint32_t *used = stack_bottom;
    while (used < stack_top && *used == PAINT) {
        used++;
    }
    print("stack bytes: ");
    print_number((size_t)(stack_top - used) * sizeof *used);
    print("\n");
    leave(0x20026); /* application exit */
    return 0;
}
