/*
 * Runs a shiftwise deployable: no heap, no globals, memory given by the caller.
 *
 * Functions return 0 or an error number, for which sw_error_text has words. The README beside this folder has an example.
 */

#ifndef SHIFTWISE_H
#define SHIFTWISE_H

/* Made from firmware/c/src/lib.rs; a test compares the two. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Error number of a null or misaligned pointer, or of storage that holds no network.
#define SW_ERROR_HANDLE 64

// Version of this interface: a library with another number does not fit this header.
#define SW_VERSION 2

// An element type: signed 8-bit integers, q stands for q * 2^-position.
#define SW_INT8 0

// An element type: 32-bit floats.
#define SW_FLOAT32 1

// An element type: signed 8-bit integers with a step of any size; sw_set_f32 and sw_get_f32 convert them.
#define SW_SCALED8 2

// An element type: the same of 16 bits.
#define SW_SCALED16 3

// What a tensor has held is what is expected of it.
#define SW_DRIFT_INSIDE 0

// Nothing was seen.
#define SW_DRIFT_UNSEEN 1

// Too many values lie at -128 or 127: more than 1/256, and four times as many as expected.
#define SW_DRIFT_CLIPPED 2

// Values are four times as large as expected, or larger; one in 1024 is left aside.
#define SW_DRIFT_WIDE 3

// Values are a fourth of what is expected, or smaller.
#define SW_DRIFT_NARROW 4

// Storage of one network, to be placed anywhere; the contents are not for the user.
typedef struct {
    uint64_t opaque[64];
} sw_network;

// Facts about a tensor.
typedef struct {
    // Its number among all tensors of the network, which is that of its sketch.
    size_t number;
    // The name: not terminated, lies in the deployable.
    const char *name;
    // Bytes of the name.
    size_t name_bytes;
    // Sizes of the dimensions, channels last; 1 beyond the rank.
    uint32_t dims[4];
    // Number of dimensions.
    uint8_t rank;
    // SW_INT8, SW_FLOAT32, SW_SCALED8 or SW_SCALED16.
    uint8_t type_;
    // Fraction bits of integers.
    int8_t position;
    // Number of elements.
    size_t elements;
    // The tensor's memory, which may be read and, for inputs, written in place; null for a tensor inside the network,
    // whose memory holds others as well.
    uint8_t *data;
} sw_tensor;

// What one int8 tensor has held over many runs. Counters stop at their largest number.
typedef struct {
    // Times that the tensor was seen.
    uint32_t runs;
    // Values at -128.
    uint32_t low;
    // Values at 127.
    uint32_t high;
    // Smallest value; above `max` as long as nothing was seen.
    int8_t min;
    // Largest value.
    int8_t max;
    // Number of values by magnitude: zeros, 1, 2..3, 4..7, and so on, 64..127, 128.
    uint32_t octaves[9];
} sw_sketch;

// What a tensor holds on data like that of calibration.
typedef struct {
    // Share of values at -128 or 127, in 1/65536.
    uint16_t saturated;
    // The octave that has, with those below it, all but one in 1024 of the values: 0 to 8.
    uint8_t reach;
} sw_expected;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// SW_VERSION of the library.
uint32_t sw_version(void);

// A sentence about an error number, for ever.
const char *sw_error_text(uint8_t error);

// Bytes of memory that the deployable in `file` needs; 0 if it is none, which sw_open says more about. A little more
// memory makes convolutions faster.
size_t sw_arena_bytes(const uint8_t *file, size_t file_bytes);

// Checks the deployable that `file` begins with, aligned to 16 bytes, and makes it a network in `storage`. The arena,
// best aligned to 16 bytes, holds its tensors.
uint8_t sw_open(sw_network *storage, const uint8_t *file, size_t file_bytes, uint8_t *arena, size_t arena_bytes);

// Facts about input `index`.
uint8_t sw_input(sw_network *network, size_t index, sw_tensor *tensor);

// Facts about output `index`.
uint8_t sw_output(sw_network *network, size_t index, sw_tensor *tensor);

// Facts about tensor `number` of the network, from 0: inputs, outputs and what is computed in between. Error 18 is the
// end of the list.
uint8_t sw_tensor_at(sw_network *network, size_t number, sw_tensor *tensor);

// Writes input `index` from real values, as the network was calibrated with them.
uint8_t sw_set_f32(sw_network *network, size_t index, const float *values, size_t count);

// Writes input `index` from integers of its position.
uint8_t sw_set_i8(sw_network *network, size_t index, const int8_t *values, size_t count);

// Writes input `index` from raw samples, each of which stands for sample * scale + offset.
uint8_t sw_set_u8(sw_network *network, size_t index, const uint8_t *samples, size_t count, float scale, float offset);

// Runs the network once. A run may use the memory of inputs, so they are written anew before each.
uint8_t sw_run(sw_network *network);

// Real values of output `index`, whatever its element type.
uint8_t sw_get_f32(sw_network *network, size_t index, float *values, size_t count);

// Integers of output `index`.
uint8_t sw_get_i8(sw_network *network, size_t index, int8_t *values, size_t count);

// Runs one layer of the self-test that the deployable holds. `*done` says whether that was the last and all outputs
// are right. Call it until then, or until an error; run nothing else on the network in between.
uint8_t sw_self_test_step(sw_network *network, bool *done);

// Watches what tensors hold, from the next run or step of a self-test on: `sketches[n]` counts the values of tensor n,
// over all runs until sw_forget. Tensors from `count` on, and those in floats, are not watched; `count` 0 watches none.
// The sketches are set to nothing seen. They stay where they are as long as the network is used; read them between
// calls.
uint8_t sw_watch(sw_network *network, sw_sketch *sketches, size_t count);

// Sets the sketches that sw_watch was given back to nothing seen.
uint8_t sw_forget(sw_network *network);

// What is to be expected of a tensor that has held this on good data, such as the self-test's.
uint8_t sw_expect(const sw_sketch *sketch, sw_expected *expected);

// How what a tensor has held differs from what is expected: one of SW_DRIFT_INSIDE and the others. Without `expected`
// (null) it is compared with the range that calibration gave the tensor. A null sketch has seen nothing.
uint8_t sw_drift(const sw_sketch *sketch, const sw_expected *expected);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SHIFTWISE_H */
