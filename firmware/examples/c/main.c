/* Loads a deployable that is part of the image, runs its self-test and one inference, tells what the tensors have held
   beside what they held in the self-test, and says so by semihosting. */
#include "../../include/shiftwise.h"

extern const uint8_t model[];
extern const uint8_t model_end[];
extern uint32_t stack_bottom[];
extern uint32_t stack_top[];

#define PAINT 0xA5A5A5A5u
#define WATCHED 64

static uint8_t arena[ARENA_BYTES] __attribute__((aligned(16)));
static sw_network network;
static sw_sketch sketches[WATCHED];
static sw_expected expected[WATCHED];

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

static void print_signed(int number)
{
    if (number < 0) {
        print("-");
    }
    print_number((size_t)(number < 0 ? -number : number));
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

static void print_sketch(const sw_tensor *tensor)
{
    static const char *const verdicts[] = {"inside", "unseen", "clipped", "wide", "narrow"};
    const sw_sketch *sketch = &sketches[tensor->number];
    if (sketch->runs == 0) {
        return;
    }
    print("tensor ");
    print_number(tensor->number);
    print(": ");
    print_signed(sketch->min);
    print(" to ");
    print_signed(sketch->max);
    print(", at the limits ");
    print_number((size_t)sketch->low + sketch->high);
    print(", zeros ");
    print_number(sketch->octaves[0]);
    print(", ");
    print(verdicts[sw_drift(sketch, &expected[tensor->number])]);
    print("\n");
}

int main(void)
{
    size_t bytes = (size_t)(model_end - model);
    bool done = false;
    sw_tensor tensor;

    if (sw_version() != SW_VERSION) {
        print("the library does not fit the header\n");
        leave(0x20023);
    }
    print("arena bytes: ");
    print_number(sw_arena_bytes(model, bytes));
    print("\n");
    check("open", sw_open(&network, model, bytes, arena, sizeof arena));
    check("watch", sw_watch(&network, sketches, WATCHED));
    while (!done) {
        check("self-test", sw_self_test_step(&network, &done));
    }
    print("self-test passed\n");
    /* What the tensors hold on good data. */
    for (size_t n = 0; n < WATCHED; n++) {
        check("expect", sw_expect(&sketches[n], &expected[n]));
    }
    check("forget", sw_forget(&network));

    for (size_t n = 0; sw_input(&network, n, &tensor) == 0; n++) {
        for (size_t i = 0; i < tensor.elements * (tensor.type_ == SW_FLOAT32 ? 4 : 1); i++) {
            tensor.data[i] = 0;
        }
    }
    check("run", sw_run(&network));
    for (size_t n = 0; n < WATCHED && sw_tensor_at(&network, n, &tensor) == 0; n++) {
        print_sketch(&tensor);
    }

    /* What must fail does, and says why. */
    if (sw_watch(&network, NULL, 1) != SW_ERROR_HANDLE || sw_drift(NULL, NULL) != SW_DRIFT_UNSEEN) {
        print("sketches that are not there were taken\n");
        leave(0x20023);
    }
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
