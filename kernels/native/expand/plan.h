// Compressed weights for small batches, with the lanes of a vector along the input.
//
// The rows of the weight are cut into blocks, the inputs into steps. Within a block everything lies in the order in
// which it is read, step by step and row by row: one stream of values, one of bits. Three formats:
//
// expand    A step is one vector of inputs; one bit a weight says whether its value is stored. Inputs without weights are
//           left out. Where most rows have no more values in a step than half a vector holds, fuller steps come more
//           than once: whole vectors are loaded across two cache lines, which takes a Zen 5 as long as all the rest.
// select    A step is m vectors of inputs, m = 2, 4 or 8, the j-th of which holds inputs j, m + j, 2 m + j ... (the
//           caller's x is dealt out once a run). A stored vector of values has one value for each group of m inputs,
//           and log2(m) vectors of bits say which of them it multiplies. A block stores as many vectors ("slots") for
//           each row and step as its fullest group has non-zeros: n of them for an n:m pattern, whatever else it is.
// look up   A step is a window of two vectors of inputs, a permutation of which each value finds its input in. `bits`
//           has one byte for the number of values of a row, at most a vector; a third stream, one byte a value, has
//           their places in the window. Windows without values are left out, fuller ones come more than once.
#pragma once

#include <cstdint>

namespace sparseplan {

enum class ExpandFormat { expand, select2, select4, select8, look_up };
constexpr int kExpandFormats = 5;

// Rows of a block: many share the loads of the input best, few leave registers for the sums of four samples.
constexpr int kManyRows = 8, kFewRows = 4;

// Where a block starts in each stream; steps and slots are its own.
struct ExpandBlock {
    int64_t bits = 0, places = 0, windows = 0, values = 0;
    int64_t steps = 0, slots = 1;
    bool few_values = false;  // no row of a step has more than half a vector of them
};

struct ExpandPlan {
    int64_t n, c_in, c_out;
    int64_t rows, pitch;        // of a block; values from one dealt-out sample to the next
    int64_t blocks;
    bool relu;
    const ExpandBlock* starts;  // [blocks + 1]
    const uint8_t *bits, *places;
    const int32_t* windows;
    const void* values;         // float, or the upper halves of floats (bfloat16)
    const float* bias;          // [blocks * rows]
};

}  // namespace sparseplan
