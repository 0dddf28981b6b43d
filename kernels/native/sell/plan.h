// Sliced ELLPACK with rows sorted by length (SELL-C-sigma): one slice holds as many rows as a vector has lanes.
//
// Kreutzer et al., A unified sparse matrix data format for efficient general sparse matrix-vector multiplication on
// modern processors with wide SIMD units, SIAM J. Sci. Comput. 36(5), 2014.
#pragma once

#include <cstdint>

namespace sparseplan {

struct SellPlan {
    int64_t n, c_in, c_out, slices;
    bool relu;
    const int64_t* starts;     // [slices + 1], in vectors
    const float* values;       // [starts[slices]][lanes], padded with zeros
    const uint16_t* columns;   // likewise
    const int64_t* rows;       // [slices * lanes]: the output that each lane computes, -1 for none
    const float* bias;         // [slices * lanes], in the order of `rows`
};

}  // namespace sparseplan
