// Compressed weights that are expanded in registers, with the lanes of a vector along the input.
//
// The rows of the weight are cut into blocks of kExpandRows, the inputs into steps. Within a block everything lies in
// the order in which it is read, step by step and row by row: one stream of bits, one of values.
//
// Group 1 ("bitmap"): a step is one vector of inputs; one bit a weight says whether its value is stored.
// Group m = 2, 4 or 8 ("select"): a step is m vectors of inputs, the j-th of which holds inputs j, m + j, 2 m + j ...
// (the caller's x is dealt out once a run); a stored vector of values has one value for each group of m consecutive
// inputs, and log2(m) vectors of bits say which input it multiplies. A block stores as many vectors ("slots") for each
// row and step as its fullest group has non-zeros: n of them for an n:m pattern, whatever else the weight holds.
#pragma once

#include <cstdint>

namespace sparseplan {

constexpr int kExpandRows = 4;

struct ExpandPlan {
    int64_t n, c_in, c_out, blocks, steps;
    bool relu;
    const uint8_t* bits;
    const void* values;           // float, or the upper halves of floats (bfloat16)
    const int64_t* bit_starts;    // [blocks + 1], in bytes
    const int64_t* value_starts;  // [blocks + 1], in values
    const float* bias;            // [blocks * kExpandRows]
};

}  // namespace sparseplan
