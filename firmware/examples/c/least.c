/* The least that runs a deployable: what a project links of the library for it is what the tables of sizes tell. */
#include "../../include/shiftwise.h"

extern const uint8_t model[];
extern const uint8_t model_end[];

static uint8_t arena[ARENA_BYTES] __attribute__((aligned(16)));
static sw_network network;

int main(void)
{
    sw_tensor input, output;
    uint8_t error = sw_open(&network, model, (size_t)(model_end - model), arena, sizeof arena);
    if (error != 0 || (error = sw_input(&network, 0, &input)) != 0) {
        return error;
    }
    for (size_t i = 0; i < input.elements; i++) {
        input.data[i] = (uint8_t)i; /* a sensor's values */
    }
    if ((error = sw_run(&network)) != 0 || (error = sw_output(&network, 0, &output)) != 0) {
        return error;
    }
    return output.data[0];
}
